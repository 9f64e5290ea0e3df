"""DCSAI as an estimator: what its two variants do, and its own parameters."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from neuralclust import DCSAI
from neuralclust.metrics import clustering_accuracy
from tests.conftest import small

METRICS = ["euclidean", "cosine", "correlation", "cityblock"]


@pytest.mark.parametrize("metric", [*METRICS, METRICS])
@pytest.mark.parametrize("encoder", ["mlp", None])
def test_easy_clusters(easy, metric, encoder):
    X, y = easy
    model = small("DCSAI", metric=metric, encoder=encoder, pretrain_epochs=30).fit(X)
    assert clustering_accuracy(y, model.labels_) > 0.99
    assert model.module_.head.metrics == (tuple(metric) if isinstance(metric, list) else (metric,))
    joint = [row for row in model.history_ if row["stage"] == "fit"]
    assert set(joint[0]) == {"init", "stage", "epoch", "loss", "clu", "changed", "rec"}
    assert joint[0]["changed"] == 1
    assert joint[-1]["changed"] < 0.05


def test_the_paper_variant_stays_near_its_start(easy):
    """The printed step size, 1e-5, moves hardly anything, the loss least of all."""
    X, y = easy
    model = small("DCSAI", variant="paper", metric="cosine", pretrain_epochs=30, max_epochs=20).fit(X)
    start = small("DCSAI", variant="paper", metric="cosine", pretrain_epochs=30, max_epochs=0).fit(X)
    assert clustering_accuracy(y, model.labels_) > 0.99
    assert np.allclose(model.cluster_centers_, start.cluster_centers_, atol=0.02)
    assert not np.array_equal(model.cluster_centers_, start.cluster_centers_)
    joint = [row["clu"] for row in model.history_ if row["stage"] == "fit"]
    assert 0.9 < joint[-1] / joint[0] < 1.05


def test_the_paper_variant_diverges_without_eps(easy):
    with pytest.warns(ConvergenceWarning, match="Non-finite loss"):
        small("DCSAI", variant="paper", eps=0.0, n_clusters=5).fit(easy[0])


def test_step_decay_and_cosine(easy, monkeypatch):
    """Eq. of Table II: the rate is multiplied by lr_decay every decay_epochs epochs."""
    seen = []
    step = torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        seen.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    settings = {"encoder": None, "optimizer": "sgd", "lr": 0.1, "max_epochs": 6, "batch_size": 120}
    small("DCSAI", lr_decay=0.5, decay_epochs=2, **settings).fit(easy[0])
    assert np.allclose(seen, np.repeat([0.1, 0.05, 0.025], 4))
    seen.clear()
    small("DCSAI", **settings).fit(easy[0])
    assert np.allclose(seen, 0.05 * (1 + np.cos(np.pi * np.arange(12) / 12)))


def test_what_none_stands_for():
    repaired, paper = DCSAI()._recipe(70_000), DCSAI(variant="paper")._recipe(70_000)
    assert (repaired.init, repaired.noise, repaired.pretrain_epochs, repaired.one_cycle) == (None, 0.0, 40, True)
    assert (paper.init, paper.noise, paper.pretrain_epochs, paper.one_cycle) == ("k-means", 0.3, 100, False)


def test_pretraining_masks_inputs_if_asked(easy, monkeypatch):
    asked = []
    monkeypatch.setattr("neuralclust.fitting.mask_noise", lambda x, ratio: asked.append(ratio) or x)
    for params in ({}, {"variant": "paper"}, {"noise": 0.1}):
        small("DCSAI", pretrain_epochs=1, max_epochs=0, batch_size=240, **params).fit(easy[0])
    assert asked == [0.0, 0.3, 0.1]


def test_it_stops_when_few_rows_change(easy):
    X, _ = easy
    stopped = small("DCSAI", tol=0.01, max_epochs=50).fit(X)
    rows = [row for row in stopped.history_ if row["stage"] == "fit"]
    assert 1 < stopped.n_iter_ == len(rows) < 50
    assert rows[-1]["changed"] <= 0.01 < min(row["changed"] for row in rows[:-1])
    assert small("DCSAI", tol=0.0, max_epochs=15).fit(X).n_iter_ == 15


def test_frequencies_are_those_of_all_rows(easy):
    X, _ = easy
    model = small("DCSAI", metric=["cosine", "cityblock"]).fit(X)
    closeness = model.module_.head.closeness(torch.from_numpy(model.transform(X)))
    assert torch.allclose(model.module_.head.frequency, torch.stack([q.mean(dim=0) for q in closeness]), atol=1e-6)


@pytest.mark.parametrize("variant", ["repaired", "paper"])
def test_labels_from_the_second_assignment(easy, variant):
    X, _ = easy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = small("DCSAI", metric="cityblock", variant=variant, predict_from="P2").fit(X)
    p2 = model.module_.head.assignments(torch.from_numpy(model.transform(X)).double())[1]
    assert np.array_equal(model.labels_, p2.argmax(dim=1))
    assert np.array_equal(model.labels_, np.concatenate([model.predict(row[None]) for row in X]))


def test_starts_from_another_model_as_it_is(easy):
    """What the benchmarks do: k-means' labels, if nothing is trained."""
    X, _ = easy
    dae = small("AEKMeans", noise=0.3).fit(X)
    same = DCSAI(
        3, encoder=dae.module_.autoencoder, init="k-means", pretrain_epochs=0, max_epochs=0, random_state=0
    ).fit(X)
    assert np.array_equal(same.labels_, dae.labels_)
    assert same.module_.autoencoder is not dae.module_.autoencoder


def test_convolutional(images):
    X, y = images
    model = small("DCSAI", 2, encoder="conv", pretrain_epochs=5, max_epochs=2).fit(X)
    assert clustering_accuracy(y, model.labels_) > 0.9


@pytest.mark.parametrize("metric", ["manhattan", [], ["cosine", "cosine"], [3], ("cosine", "l2")])
def test_bad_metrics(easy, metric):
    with pytest.raises(ValueError, match="metric"):
        small("DCSAI", metric=metric).fit(easy[0])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("encoder", ["mlp", None])
def test_few_distinct_rows(easy, metric, encoder):
    for X in (easy[0][:3], np.repeat(easy[0][:3], 10, axis=0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = small("DCSAI", metric=metric, encoder=encoder).fit(X)
        assert np.isfinite(model.loss_)
