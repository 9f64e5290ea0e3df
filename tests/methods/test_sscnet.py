"""SSCNet: what its three modules do together, and where the printed form leads."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from neuralclust import SSCNet
from neuralclust.datasets import make_subspaces
from neuralclust.functional import adaptive_weights
from neuralclust.nn import DLADMM
from tests.conftest import small


@pytest.fixture(scope="module")
def subspaces():
    return make_subspaces(300, 3, 2, 20, random_state=0)


def test_terms_of_the_history(easy):
    model = small("SSCNet", batch_size=60).fit(easy[0])
    pretraining = [row for row in model.history_ if row["stage"] == "pretrain"]
    joint = [row for row in model.history_ if row["stage"] == "fit"]
    assert {*pretraining[0]} == {"init", "stage", "epoch", "loss", "rec", "sparse"}
    assert {*joint[0]} == {*pretraining[0], "eigen", "clu", "changed"}  # four batches: all three updates had a turn
    assert joint[-1]["clu"] < joint[0]["clu"]


def test_the_updates_take_turns(easy):
    """Algorithm 1: codes alone, codes and eigenvectors, everything."""
    model = small("SSCNet", batch_size=60).fit(easy[0])
    recipe = model._recipe(240)
    coding, eigen, everything = (set(map(id, u.params)) for u in model._updates(model.module_, recipe))
    network = set(map(id, model.module_.autoencoder.parameters()))
    assert coding == eigen == network  # eigenvector layers have no weights of their own, unless printed
    assert everything - network == set(map(id, model.module_.head.parameters()))
    printed = small("SSCNet", variant="paper", max_epochs=1).fit(easy[0])
    coding, eigen, everything = (set(map(id, u.params)) for u in printed._updates(printed.module_, recipe))
    assert coding < eigen < everything


def test_no_blocks_is_a_plain_autoencoder(easy):
    model = small("SSCNet", n_blocks=0).fit(easy[0])
    assert len(model.module_.autoencoder.blocks) == 1
    assert adjusted_rand_score(easy[1], model.labels_) > 0.9


@pytest.mark.parametrize("init", ["spectral", "k-means", "k-means++", "random"])
def test_starts(easy, init):
    model = small("SSCNet", init=init).fit(easy[0])
    assert model.labels_.shape == (240,)
    if init in ("spectral", "k-means"):
        assert adjusted_rand_score(easy[1], model.labels_) > 0.9


def test_few_anchors_carry_all_rows(easy):
    X, y = easy
    model = small("SSCNet", n_anchors=60).fit(X)
    assert int(model.module_.head.n_used) == 60
    assert adjusted_rand_score(y, model.labels_) > 0.9


def test_subspaces(subspaces):
    X, y = subspaces
    model = SSCNet(3, encoder=None, n_neighbors=8, random_state=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.9


def test_the_printed_loss_has_a_trivial_optimum(subspaces):
    """Eq. 12 knows codes and noise only: thresholds that make both zero cost nothing, and explain nothing."""
    x = torch.from_numpy(subspaces[0]).float()
    model = SSCNet(3, variant="paper")
    module = model._build((20,))
    for block in module.autoencoder.blocks:
        block.set_(penalty=1.0, relaxation=1.0, code_threshold=100.0, noise_threshold=100.0)
    index = torch.arange(len(x))
    _, printed = model._printed_coding(module, x)
    _, repaired = model._coding(module, x)
    assert float(printed["loss"]) < 1e-2  # a sum over 300 rows
    assert float(repaired["rec"]) > 0.5 * float(x.norm(dim=1).mean()) / 20**0.5
    assert model._reconstruction(module, x, index)["loss"] == repaired["loss"]


def test_the_paper_variant_runs_and_is_worse(subspaces):
    X, y = subspaces
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        paper = SSCNet(3, variant="paper", max_epochs=5, random_state=0).fit(X)
    assert np.isfinite(paper.transform(X)).all()
    assert adjusted_rand_score(y, paper.labels_) < 0.5


def test_weights_of_hard_rows_hardly_differ():
    norms = torch.rand(256, generator=torch.Generator().manual_seed(0))
    w = adaptive_weights(norms)
    assert torch.equal(w.sort().values, w[norms.argsort()])
    assert w[norms.argmax()] == w.max()
    assert w.sum() == pytest.approx(255, rel=1e-5)
    assert w.max() / w.min() < 1.01


@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_codes_are_not_born_dead(images, scale):
    """With the printed threshold of 0.15 every code of this network is 0, and nothing would ever be learned."""
    torch.manual_seed(0)
    net = DLADMM((1, 9, 7), 5, maps="conv")
    x = torch.from_numpy(images[0][:, None] / 255).float() * scale
    assert not net.encode(x).any()
    net.calibrate_(x, zeros=0.5)
    assert (net.encode(x) != 0).float().mean() == pytest.approx(0.5, abs=0.01)
