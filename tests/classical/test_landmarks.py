"""Landmark-based spectral clustering: weights by loops, eigenvectors against the dense graph, shapes and new rows."""

import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_circles, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from neuralclust.classical.landmarks import LandmarkSpectralClustering

KINDS = ["k-means", "random"]


@pytest.fixture(scope="module")
def rows():
    """Three overlapping clouds, so that the graph is connected."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(90, 4)) + 1.5 * np.eye(4)[np.arange(90) % 3]


@pytest.fixture(scope="module")
def rings():
    return make_circles(600, noise=0.03, factor=0.4, random_state=0)


def weights(model, X):
    return model._weights(*model._nearest(X)).toarray()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bandwidth", [0.7, None])
def test_weights_by_loops(rows, kind, bandwidth):
    model = LandmarkSpectralClustering(
        3, landmarks=kind, n_landmarks=12, n_neighbors=4, bandwidth=bandwidth, random_state=0
    ).fit(rows)
    distances = np.array([[np.sqrt(sum((x - u) ** 2)) for u in model.landmarks_] for x in rows])
    nearest = np.sort(distances, axis=1)[:, :4]
    h = nearest.mean() if bandwidth is None else bandwidth
    assert model.bandwidth_ == pytest.approx(h)
    expected = np.zeros((90, 12))
    for i in range(90):
        for j in range(12):
            if distances[i, j] <= nearest[i, 3]:
                expected[i, j] = np.exp(-(distances[i, j] ** 2) / (2 * h**2))
        expected[i] /= expected[i].sum()
    assert np.allclose(weights(model, rows), expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_eigenvectors_of_the_dense_graph(rows, kind):
    model = LandmarkSpectralClustering(3, landmarks=kind, n_landmarks=25, random_state=0).fit(rows)
    z = weights(model, rows)
    mass = z.sum(axis=0)
    assert (mass > 0).all()
    graph = z @ np.diag(1 / mass) @ z.T
    assert np.allclose(graph.sum(axis=1), 1)  # hence a constant eigenvector
    values, vectors = np.linalg.eigh(graph)
    assert values[-1] == pytest.approx(1)
    assert values[-2] < 1 - 1e-3  # connected: there is one alone
    assert values[-4] - values[-5] > 1e-3  # else the three are not determined
    found = z @ model.projection_
    assert np.allclose(found.T @ found, np.eye(3), atol=1e-8)
    assert np.allclose(graph @ found, found * values[[-2, -3, -4]], atol=1e-8)
    assert np.allclose(np.abs(np.sum(found * vectors[:, [-2, -3, -4]], axis=0)), 1, atol=1e-8)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert np.allclose(model.transform(rows), unit, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["moons", "rings"])
def test_shapes_that_k_means_cannot_split(kind, shape, rings):
    X, y = rings if shape == "rings" else make_moons(600, noise=0.05, random_state=0)
    assert adjusted_rand_score(y, KMeans(2, n_init=3, random_state=0).fit_predict(X)) < 0.6
    model = LandmarkSpectralClustering(2, landmarks=kind, n_landmarks=100, random_state=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.98


def test_separate_parts_are_found_whatever_the_seed():
    """The eigenvalue 1 is repeated: dropping the first computed vector, as the authors do, often loses the parts."""
    X, y = make_circles(600, noise=0.02, factor=0.3, random_state=0)
    for seed in range(8):
        model = LandmarkSpectralClustering(2, n_landmarks=100, n_init=3, random_state=seed).fit(X)
        z = weights(model, X)
        assert not z[y == 0].any(axis=0)[z[y == 1].any(axis=0)].any()  # no landmark has rows of both
        assert adjusted_rand_score(y, model.labels_) == 1


def test_digits():
    X, y = load_digits(return_X_y=True)
    for kind, least in (("k-means", 0.78), ("random", 0.75)):
        model = LandmarkSpectralClustering(10, landmarks=kind, n_landmarks=500, random_state=0).fit(X / 16)
        assert adjusted_rand_score(y, model.labels_) > least  # k-means: 0.67


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predict_gives_labels_for_training_rows(dtype):
    X = (load_digits().data[:1000] / 16).astype(dtype)
    model = LandmarkSpectralClustering(10, n_landmarks=200, random_state=0).fit(X)
    assert np.array_equal(model.predict(X), model.labels_)
    assert np.array_equal(np.concatenate([model.predict(part) for part in np.array_split(X, 7)]), model.labels_)
    for i in (0, 500, 999):
        assert np.array_equal(model.transform(X[i : i + 1])[0], model.transform(X)[i])
    assert model.transform(X).dtype == model.landmarks_.dtype == dtype
    assert model.labels_.dtype == np.int64
    assert np.array_equal(LandmarkSpectralClustering(10, n_landmarks=200, random_state=0).fit_predict(X), model.labels_)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ties_between_landmarks_do_not_hang_on_the_other_rows(dtype):
    """On a grid many landmarks are equally near; products of other shapes, or in float32, break ties otherwise."""
    X = np.random.default_rng(0).integers(0, 4, size=(300, 9)).astype(dtype)
    model = LandmarkSpectralClustering(4, landmarks="random", n_landmarks=60, random_state=0).fit(X)
    together = model.transform(X)
    assert all(np.array_equal(model.transform(X[i : i + 1])[0], together[i]) for i in range(300))
    assert np.array_equal(np.concatenate([model.predict(part) for part in np.array_split(X, 11)]), model.labels_)


@pytest.mark.parametrize("kind", KINDS)
def test_new_rows_have_the_labels_of_their_neighbours(kind, rings):
    X, _ = rings
    model = LandmarkSpectralClustering(2, landmarks=kind, n_landmarks=100, random_state=0).fit(X)
    near = X + np.random.default_rng(1).normal(scale=0.01, size=X.shape)
    assert np.mean(model.predict(near) == model.labels_) > 0.99
    new, truth = make_circles(300, noise=0.03, factor=0.4, random_state=5)
    assert adjusted_rand_score(truth, model.predict(new)) > 0.98


def test_a_row_far_from_all_others_has_a_cluster(rows):
    model = LandmarkSpectralClustering(3, n_landmarks=20, random_state=0).fit(rows)
    far = np.full((1, 4), 1e6)
    assert np.isfinite(model.transform(far)).all()
    assert weights(model, far).sum() == pytest.approx(1)  # exp(-d^2 / 2 h^2) itself is 0


def test_units_and_origin_do_not_matter(rows):
    model, scaled, moved = (
        LandmarkSpectralClustering(3, n_landmarks=30, random_state=0).fit(X)
        for X in (rows, 1024 * rows, rows + 2.0**26)
    )
    assert np.array_equal(model.labels_, scaled.labels_)
    assert scaled.bandwidth_ == pytest.approx(1024 * model.bandwidth_)
    assert np.array_equal(model.labels_, moved.labels_)
    assert np.allclose(model.transform(rows), moved.transform(rows + 2.0**26), atol=1e-6)


def test_landmarks(rows):
    drawn = LandmarkSpectralClustering(3, landmarks="random", n_landmarks=20, random_state=0).fit(rows).landmarks_
    assert drawn.shape == (20, 4)
    assert all((rows == u).all(axis=1).any() for u in drawn)
    means = LandmarkSpectralClustering(3, n_landmarks=20, random_state=0).fit(rows).landmarks_
    assert not all((rows == u).all(axis=1).any() for u in means)

    def spread(landmarks):
        return np.square(rows[:, None] - landmarks).sum(axis=2).min(axis=1).mean()

    assert spread(means) < 0.8 * spread(drawn)
    for kind in KINDS:
        every = LandmarkSpectralClustering(3, landmarks=kind, n_landmarks=1000, random_state=0).fit(rows)
        assert np.array_equal(every.landmarks_, np.unique(rows, axis=0))


def test_equal_landmarks_count_once():
    """A row whose nearest landmarks are five copies of one would have no other neighbours."""
    X = np.repeat(np.random.default_rng(0).integers(0, 9, size=(40, 2)), 10, axis=0)
    for kind, p in (("random", 400), ("random", 300), ("k-means", 400), ("k-means", 300)):
        model = LandmarkSpectralClustering(2, landmarks=kind, n_landmarks=p, random_state=0).fit(X)
        assert len(model.landmarks_) == len(np.unique(model.landmarks_, axis=0)) > 30
        assert (weights(model, X).astype(bool).sum(axis=1) == 5).all()


def test_same_seed_same_model(rows):
    def fit(seed, kind="k-means"):
        return LandmarkSpectralClustering(3, landmarks=kind, n_landmarks=20, random_state=seed).fit(rows)

    for kind in KINDS:
        assert np.array_equal(fit(1, kind).landmarks_, fit(1, kind).landmarks_)
        assert np.array_equal(fit(1, kind).labels_, fit(1, kind).labels_)
        assert not np.array_equal(fit(1, kind).landmarks_, fit(2, kind).landmarks_)
    first, second = (fit(np.random.RandomState(3)) for _ in range(2))
    assert np.array_equal(first.landmarks_, second.landmarks_)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    fit(None)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_memory_without_rows_by_landmarks():
    """A dense n x p matrix would take 160 MB, n x n 13 GB."""
    X = np.random.default_rng(0).normal(size=(40_000, 4))
    tracemalloc.start()
    LandmarkSpectralClustering(3, n_landmarks=500, n_init=1, random_state=0).fit(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_scikit_learn_checks(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else one check skips itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(LandmarkSpectralClustering(3, n_init=2), on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] != "passed"] == []
    assert len(results) > 40


@pytest.mark.parametrize("kind", KINDS)
def test_one_cluster(kind, rows):
    for X in (rows, rows[:1], np.zeros((20, 3))):
        model = LandmarkSpectralClustering(1, landmarks=kind, n_landmarks=10, random_state=0).fit(X)
        assert (model.labels_ == 0).all()
        assert (model.predict(X) == 0).all()


@pytest.mark.parametrize("n", [2, 7, 40])
def test_as_many_clusters_as_rows(n):
    X = np.random.default_rng(n).normal(size=(n, 3))
    model = LandmarkSpectralClustering(n, random_state=0).fit(X)
    assert sorted(model.labels_) == list(range(n))
    assert np.array_equal(model.predict(X), model.labels_)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("X", [np.full((300, 3), 0.1), np.zeros((30, 3)), np.full((300, 3), 0.1, "float32")])
def test_equal_rows_are_one_cluster_and_a_warning(X, kind):
    model = LandmarkSpectralClustering(3, landmarks=kind, n_landmarks=50, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"1 of n_clusters=3 clusters have rows.*n_landmarks=50"):
        model.fit(X)
    assert len(set(model.labels_)) == 1
    assert np.array_equal(model.predict(X), model.labels_)
    assert np.isfinite(model.transform(X)).all()


def test_duplicate_rows():
    X = np.repeat(np.random.default_rng(0).normal(size=(3, 2)), 10, axis=0)
    model = LandmarkSpectralClustering(3, random_state=0).fit(X)
    assert adjusted_rand_score(np.repeat([0, 1, 2], 10), model.labels_) == 1


def test_errors_name_value_need_and_remedy(rows):
    with pytest.raises(ValueError, match=r"n_landmarks=4 should be >= n_clusters=5.*more landmarks"):
        LandmarkSpectralClustering(5, n_landmarks=4).fit(rows)
    with pytest.raises(ValueError, match=r"n_samples=2 should be >= n_clusters=3"):
        LandmarkSpectralClustering(3).fit(rows[:2])
    with pytest.raises(ValueError, match=r"as large as .*e\+200, whose squares float64 cannot hold. Scale X down"):
        LandmarkSpectralClustering(3).fit(1e200 * rows)
    for wrong in ({"landmarks": "k-medoids"}, {"bandwidth": 0}, {"n_neighbors": 0}, {"n_landmarks": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LandmarkSpectralClustering(3, **wrong).fit(rows)


@pytest.mark.parametrize("landmarks", ["k-means", "random"])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_array, sp.coo_array])
def test_sparse_rows_are_clustered_like_dense_ones(landmarks, form):
    rng = np.random.default_rng(0)
    X = (rng.random((1200, 30)) * (rng.random((1200, 30)) < 0.5)).astype(np.float32)
    X[:600, :15] = X[600:, 15:] = 0.0  # two topics
    model = LandmarkSpectralClustering(2, landmarks=landmarks, n_landmarks=55, random_state=0)  # of some rows
    dense = model.fit_predict(X)
    assert {tuple(dense[:600]), tuple(dense[600:])} == {(0,) * 600, (1,) * 600}
    sparse = clone(model).fit(form(X))
    long = sp.csr_array(X)
    long.indices, long.indptr = long.indices.astype(np.int64), long.indptr.astype(np.int64)
    np.testing.assert_array_equal(clone(model).fit_predict(long), sparse.labels_)
    assert adjusted_rand_score(dense, sparse.labels_) == 1
    np.testing.assert_array_equal(sparse.predict(X), sparse.labels_)
    np.testing.assert_array_equal(sparse.transform(form(X)), sparse.transform(X))
