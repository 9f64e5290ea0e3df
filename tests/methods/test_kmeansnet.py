"""k-meansNet: bounded after projection, divergent as printed."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from neuralclust import KMeansNet
from neuralclust.datasets import make_sphere_clusters
from tests.conftest import small


@pytest.fixture(scope="module")
def unbalanced():
    """Ten directions with clusters of very different size, k-means' own ground."""
    X, y = make_sphere_clusters(2000, 10, 10, noise=0.35, random_state=1)
    keep = np.random.default_rng(0).random(2000) < (0.1 + 0.9 * (y < 3))
    return X[keep], y[keep]


def norms(model):
    return np.linalg.norm(model.cluster_centers_, axis=1)


def test_the_printed_objective_diverges(unbalanced):
    """The loss falls without end, centres leave the unit ball, clusters die."""
    X, y = unbalanced
    model = KMeansNet(10, variant="paper", encoder=None, max_epochs=150, batch_size=64, tol=0, random_state=0)
    with pytest.warns(ConvergenceWarning, match="diverged"):
        model.fit(X)
    losses = [row["loss"] for row in model.history_]
    assert losses[-1] < -100  # a squared distance minus 1 cannot be below -1
    assert all(later < earlier for earlier, later in zip(losses[::30], losses[30::30], strict=False))
    assert norms(model).max() > 50

    repaired = KMeansNet(10, encoder=None, max_epochs=150, batch_size=64, tol=0, random_state=0).fit(X)
    assert norms(repaired).max() <= 1 + 1e-5
    assert -2 <= repaired.history_[-1]["loss"] <= 3
    assert adjusted_rand_score(y, repaired.labels_) > adjusted_rand_score(y, model.labels_)


@pytest.mark.parametrize("assignment", ["hard", "soft"])
@pytest.mark.parametrize("coupled", [True, False])
def test_repaired_stays_in_its_set(easy, assignment, coupled):
    model = small("KMeansNet", assignment=assignment, coupled=coupled, lr=0.05).fit(easy[0])
    head = model.module_.head
    assert norms(model).max() <= 1 + 1e-5
    assert float(head.bias.detach().max()) <= 0
    assert float(head.bias.detach().min()) >= -head.alpha * (1 + 1e-5)
    assert all(-2 <= row["clu"] <= 3 for row in model.history_ if row["stage"] == "fit")


def test_alpha_cancels_with_hard_assignment(easy):
    """The flat curve of Fig. 3: only the probabilities know alpha."""
    models = [small("KMeansNet", target="hard", alpha=alpha).fit(easy[0]) for alpha in (0.5, 2.0)]
    assert np.array_equal(models[0].labels_, models[1].labels_)
    assert np.allclose(models[0].cluster_centers_, models[1].cluster_centers_, atol=1e-3)
    sharp = [float(m.predict_proba(easy[0]).max(axis=1).mean()) for m in models]
    assert sharp[1] > sharp[0]


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "adagrad", "sgd"])
def test_alpha_cancels_for_every_scale_free_optimizer(easy, optimizer):
    centers = [
        small("KMeansNet", encoder=None, alpha=alpha, optimizer=optimizer).fit(easy[0]).cluster_centers_
        for alpha in (0.5, 5.0)
    ]
    assert np.allclose(*centers, atol=1e-3)


def test_what_none_stands_for():
    repaired, hard = KMeansNet()._recipe(70_000), KMeansNet(target="hard")._recipe(70_000)
    assert (repaired.target, repaired.clustering_weight, repaired.init) == ("balanced", 0.1, None)
    assert (repaired.pretrain_epochs, repaired.max_epochs, repaired.one_cycle) == (40, 20, True)
    assert (hard.target, hard.clustering_weight) == ("hard", 0.02)


def test_paper_variant_is_the_published_recipe():
    recipe = KMeansNet(variant="paper")._recipe(70_000)
    assert (recipe.max_epochs, recipe.optimizer, recipe.alpha) == (3000, "adadelta", 1e-3)
    assert (recipe.assignment, recipe.init) == ("soft", "k-means++")
    module = KMeansNet(variant="paper")._build((784,))
    assert isinstance(module.autoencoder.encoder[-1], torch.nn.Sigmoid)
    assert sum(isinstance(m, torch.nn.Dropout) for m in module.autoencoder.encoder) == 3


@pytest.mark.parametrize("optimizer", ["adam", "adadelta", "adagrad", "rmsprop", "sgd"])
@pytest.mark.parametrize("variant", ["repaired", "paper"])
def test_optimizers(easy, optimizer, variant):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = small("KMeansNet", optimizer=optimizer, variant=variant).fit(easy[0])
    assert math.isfinite(model.loss_)


def test_two_stage_leaves_the_encoder_as_pretrained(easy):
    X, _ = easy
    only = small("KMeansNet", end_to_end=False, max_epochs=0).fit(X)
    two_stage = small("KMeansNet", end_to_end=False).fit(X)
    assert np.array_equal(only.transform(X), two_stage.transform(X))
    assert not np.array_equal(only.cluster_centers_, two_stage.cluster_centers_)


@pytest.mark.parametrize("init", ["k-means", "k-means++", "random"])
def test_starts(easy, init):
    X, y = easy
    model = small("KMeansNet", init=init, n_init=4).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.5
