"""Training that starts from the clusters of a nearest-neighbour graph."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from neuralclust import DCSAI, TELL, KMeansNet
from neuralclust.metrics import clustering_accuracy

METHODS = [TELL, KMeansNet, DCSAI]
SMALL = {"hidden_layer_sizes": (100, 100), "embed_dim": 8, "pretrain_epochs": 40, "max_epochs": 0, "random_state": 0}


@pytest.fixture(scope="module")
def moons():
    X, y = make_moons(400, noise=0.04, random_state=0)
    return X.astype("float32"), y


@pytest.mark.parametrize("method", METHODS)
def test_the_network_learns_the_clusters_of_the_graph_which_their_means_cannot_tell(method, moons):
    X, y = moons
    means = method(2, init="spectral", **SMALL).fit(X)
    model = method(2, init="graph", clustering_weight=1.0, **SMALL).fit(X)
    assert clustering_accuracy(y, model.labels_) > clustering_accuracy(y, means.labels_) + 0.03
    assert np.array_equal(model.predict(X), model.labels_)
    again = method(2, init="graph", clustering_weight=1.0, **SMALL).fit(X)
    assert np.array_equal(model.transform(X), again.transform(X))


@pytest.mark.parametrize("method", METHODS)
def test_views_and_the_published_variant_take_the_start_as_well(method, moons):
    X, _ = moons
    settings = SMALL | {"pretrain_epochs": 5, "max_epochs": 2, "init": "graph"}
    views = method(2, augment="table", **settings).fit(X)
    assert np.isfinite(views.loss_)
    printed = method(2, variant="paper", **settings).fit(X)
    assert len(printed.labels_) == len(X)


@pytest.mark.parametrize("method", [TELL, KMeansNet])
def test_an_encoder_that_does_not_learn_stays_as_it_is(method, moons):
    X, _ = moons
    trained = TELL(2, **SMALL).fit(X).module_.autoencoder
    model = method(2, encoder=trained, end_to_end=False, init="graph", **SMALL | {"pretrain_epochs": 0}).fit(X)
    before, after = trained.state_dict(), model.module_.autoencoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", METHODS)
def test_where_the_graph_has_too_few_clusters_k_means_starts(method):
    X = np.repeat(np.eye(4, dtype="float32"), 10, axis=0)
    model = method(4, init="graph", **SMALL).fit(X)
    assert len(set(model.labels_)) == 4
