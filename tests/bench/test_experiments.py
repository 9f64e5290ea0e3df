"""What a run does, on data that everyone has."""

import zlib

import numpy as np
import pytest
import scipy.sparse as sp

from neuralclust import SSCNet, datasets
from neuralclust.bench import experiments
from neuralclust.bench.data import load

TINY = {"hidden_layer_sizes": [16], "pretrain_epochs": 2, "max_epochs": 3}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """300 rows of the digits."""
    load = datasets.load

    def part(name):
        data = load(name)
        data.data, data.images, data.target = data.data[:300], data.images[:300], data.target[:300]
        return data

    monkeypatch.setattr(datasets, "load", part)


def test_a_neural_method_has_its_start_and_k_means_on_its_codes():
    row = experiments.fit("digits", "TELL", 0, every=2, **TINY)
    assert row.keys() >= {"start", "kmeans", "acc", "loss", "silhouette", "seconds", "first", "last", "nonzero"}
    assert row["passes"] == 5
    assert [p["epoch"] for p in row["curve"]] == [0, 2]
    assert row["curve"][-1]["acc"] == pytest.approx(row["acc"], abs=1e-6)  # the last epoch
    assert row == {**experiments.fit("digits", "TELL", 0, every=2, **TINY), **times(row)}


def test_rows_without_their_mean_are_clustered_as_a_fit_would(monkeypatch):
    """A network that is passed on sees them with it."""
    bright = datasets.load

    def brighter(name):
        data = bright(name)
        data.images = data.images + 100
        return data

    monkeypatch.setattr(datasets, "load", brighter)
    row = experiments.fit("digits", "SSCNet", 0, **TINY)
    X, _, k = load("digits")
    plain = SSCNet(k, random_state=0, **TINY).fit(X)
    assert plain.module_.shift.ndim == 3
    assert row["labels"] == zlib.crc32(plain.labels_.astype(np.int64).tobytes())
    assert row["passes"] == len(plain.history_)
    assert {"start", "kmeans"} <= row.keys()


def times(row):
    return {name: row[name] for name in ("seconds", "pretrain_s")}


def test_both_assignments_of_dcsai_are_scored():
    row = experiments.fit("digits", "DCSAI", 0, **TINY)
    assert row["p2"].keys() == row["start"].keys()


def test_a_baseline_gets_vectors_of_unit_range(monkeypatch):
    seen = []
    from sklearn.cluster import KMeans

    fit_predict = KMeans.fit_predict
    monkeypatch.setattr(KMeans, "fit_predict", lambda self, X: seen.append(X) or fit_predict(self, X))
    row = experiments.fit("digits, 3 classes", "KMeans", 0, rows=50)
    assert row["n"] == 50
    assert seen[0].shape == (50, 64)
    assert (seen[0].min(), seen[0].max()) == (0, 1)


@pytest.mark.parametrize(("codes", "maker"), [("mlp", "AEKMeans"), ("conv", "NCSC"), ("residual", "NCSC")])
def test_a_baseline_can_have_the_codes_of_an_autoencoder(monkeypatch, codes, maker):
    made, make = [], experiments.registry.make

    def quickly(name, k, **params):
        model = make(name, k, **params)
        if name == maker:
            made.append(model.set_params(pretrain_epochs=1))
        return model

    monkeypatch.setattr(experiments.registry, "make", quickly)
    row = experiments.fit("digits", "KMeans", 0, codes=codes, n_init=2)
    (model,) = made
    assert {epoch["stage"] for epoch in model.history_} == {"pretrain"}
    X, _, k = load("digits")
    labels = make("KMeans", k, random_state=0, n_init=2).fit_predict(model.transform(X))
    assert row["labels"] == zlib.crc32(labels.astype(np.int64).tobytes())
    assert row["n"] == 300


@pytest.mark.parametrize("neural", [True, False])
def test_the_columns_of_a_table_count_alike(monkeypatch, neural):
    monkeypatch.undo()  # all rows of it
    X, y, k = load("wine", neural)
    assert (X.shape, X.dtype, len(y), k) == ((178, 13), np.float32, 178, 3)
    assert np.allclose(X.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(X.std(axis=0), 1, atol=1e-5)


def poison(monkeypatch):
    """The same rows with labels that say nothing."""
    load = datasets.load

    def poisoned(name):
        data = load(name)
        data.target = np.random.default_rng(1).permutation(data.target)
        return data

    monkeypatch.setattr(datasets, "load", poisoned)


@pytest.mark.parametrize("method", ["TELL", "NCSC", "KMeans", "SSC-OMP"])
def test_labels_reach_the_scorer_only(monkeypatch, method):
    """Poisoned labels change the scores and nothing else."""
    params = {**TINY, "every": 1} if method in ("TELL", "NCSC") else {}
    right = experiments.fit("digits", method, 0, **params)
    poison(monkeypatch)
    wrong = experiments.fit("digits", method, 0, **params)
    assert wrong["acc"] < right["acc"] - 0.1
    assert wrong["labels"] == right["labels"]
    for name in ("loss", "first", "last", "silhouette"):
        assert wrong.get(name) == right.get(name)
    assert [p["loss"] for p in wrong.get("curve", [])] == [p["loss"] for p in right.get("curve", [])]


def test_labels_reach_the_scorer_only_in_other_experiments(monkeypatch):
    def run():
        shots = experiments.progress("digits", "TELL", 0, epochs=[1], points=40, **TINY)["shots"]
        curve = experiments.invariance("digits", 0, epochs=[1], hidden_layer_sizes=[16])
        return [[shot["centers"], shot["points"]] for shot in shots], [p["kl"] for part in curve.values() for p in part]

    right, scored = run(), experiments.online("digits", "online TELL", 0, first=100, streamed=200)
    poison(monkeypatch)
    assert run() == right
    assert experiments.online("digits", "online TELL", 0, first=100, streamed=200)["acc"] < scored["acc"] - 0.1


@pytest.mark.parametrize("method", ["KMeans", "online KMeans", "TELL", "online TELL"])
def test_streams_are_predicted_before_they_are_learned(method):
    row = experiments.online("digits", method, 0, first=100, streamed=200)
    assert 0.3 < row["acc"] < 1


def test_shots_of_training():
    settings = {**TINY, "hidden_layer_sizes": [16]}
    row = experiments.progress("digits", "TELL", 0, epochs=[1, 3], points=60, **settings)
    assert [shot["epoch"] for shot in row["shots"]] == [0, 1, 3]
    assert np.shape(row["shots"][1]["centers"]) == (10, 8, 8)
    assert np.shape(row["shots"][1]["points"]) == (70, 2)
    assert row["shots"][-1]["acc"] == row["acc"]


def test_shots_in_the_plane_of_principal_components():
    row = experiments.progress("digits", "TELL", 0, epochs=[], points=60, plane="PCA", **TINY)
    points = np.array(row["shots"][0]["points"])
    assert points.shape == (70, 2)
    assert np.abs(points.mean(axis=0)).max() < 0.01 * np.abs(points).max()
    assert points[:, 0].std() > points[:, 1].std()
    assert abs(np.corrcoef(points.T)[0, 1]) < 0.01


def test_invariance():
    row = experiments.invariance("digits", 0, epochs=[0, 1], hidden_layer_sizes=[16])
    assert [point["epoch"] for point in row["autoencoder"]] == [0, 1]
    assert all(point["kl"] > 0 for point in row["joint"])


def test_parameters_as_toml_says_them():
    assert experiments._value("none") is None
    assert experiments._value([8, 4]) == (8, 4)
    assert type(experiments._value("neuralclust.augment:RandomAffine")).__name__ == "RandomAffine"


@pytest.mark.parametrize("name", ["nothing", "_value", "load", "neuralclust.metrics:nothing"])
def test_unknown_experiments_are_refused(name):
    with pytest.raises(ValueError, match=f"experiment='{name}' is not known"):
        experiments.find(name)


@pytest.mark.parametrize(("method", "sparse"), [("KMeans", True), ("LSC-R", True), ("AverageLinkage", False)])
def test_sparse_rows_stay_so_where_the_method_takes_them(monkeypatch, method, sparse):
    rng = np.random.default_rng(0)
    X = sp.random_array((60, 8), density=0.5, format="csr", dtype=np.float32, rng=rng)
    monkeypatch.setattr(experiments, "load", lambda *args: (X, rng.integers(0, 3, 60), 3))
    made, seen = experiments.registry.make, []

    def make(*args, **params):
        model = made(*args, **params)
        fit_predict = model.fit_predict
        monkeypatch.setattr(model, "fit_predict", lambda X: (seen.append(sp.issparse(X)), fit_predict(X))[1])
        return model

    monkeypatch.setattr(experiments.registry, "make", make)
    assert 0 < experiments.fit("reuters_r8", method, 0)["acc"] <= 1
    assert seen == [sparse]


def test_shots_of_a_method_whose_classifier_decides():
    row = experiments.progress("digits", "NCSC", 0, epochs=[1], points=60, pretrain_epochs=1, max_epochs=1)
    for shot in row["shots"]:
        assert "centers" not in shot
        centers = np.array(shot["points"][60:])
        assert 1 < len(centers) <= 10
        assert len(np.unique(centers, axis=0)) == len(centers)
