"""TELL: who learns from what, the published update, and what makes it interpretable."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import adjusted_rand_score

from neuralclust import TELL
from neuralclust.methods.tell import released_loss
from neuralclust.nn import ClusterModule, TELLLayer
from tests.conftest import small


def parts(**params):
    """An estimator, its module and its updates, before any training: the loss of the paper, in turns."""
    torch.manual_seed(0)
    model = small("TELL", **{"target": "hard", **params})
    recipe = model._recipe(100)
    module = model._build((16,), recipe)
    return model, module, model._updates(module, recipe)


def snapshot(module: ClusterModule):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def moved(module, before):
    return {name.split(".")[1] if "autoencoder" in name else "head"
            for name, p in module.named_parameters() if not torch.equal(p, before[name])}  # fmt: skip


@pytest.mark.parametrize("variant", ["repaired", "paper"])
def test_who_learns_when(easy, variant):
    _, module, (centers_turn, encoder_turn) = parts(variant=variant)
    x, index = torch.tensor(easy[0][:64]), torch.arange(64)
    before = snapshot(module)
    centers_turn.step(module.train(), x, index)
    assert moved(module, before) == {"encoder", "decoder", "head"}
    before = snapshot(module)
    encoder_turn.step(module.train(), x, index)
    assert moved(module, before) == {"encoder", "decoder"}


def test_the_encoder_feels_the_clusters_only_in_its_own_turn(easy):
    _, module, (centers_turn, encoder_turn) = parts(clustering_weight=5.0)
    x, index = torch.tensor(easy[0][:64]), torch.arange(64)
    weight = module.autoencoder.encoder[1].weight

    def gradient(loss):
        return torch.autograd.grad(loss, weight)[0]

    reconstruction = gradient(centers_turn.loss(module, x, index)["rec"])
    assert torch.allclose(gradient(centers_turn.loss(module, x, index)["loss"]), reconstruction)
    assert not torch.allclose(gradient(encoder_turn.loss(module, x, index)["loss"]), reconstruction)


def test_adadelta_step_is_the_ten_percent_rule():
    """At alpha = 1e-3 the published optimiser is c <- normalise(c + 0.1 g / |g|), g the sum of its codes."""
    _, module, (update, _) = parts(variant="paper")
    head = module.head
    torch.manual_seed(1)
    z = F.normalize(torch.randn(200, 10), dim=1)
    won = head.predict(z)
    old = head.centers.detach().clone()
    expected = old.clone()
    for j in won.unique():
        g = z[won == j].sum(dim=0)
        expected[j] = F.normalize(old[j] + 0.1 * g / g.norm(), dim=0)
    _, centers = update.optimizers
    head.weight.grad = torch.autograd.grad(head.loss(z), head.weight)[0]
    centers.step()
    angle = torch.rad2deg(torch.arccos((head.centers * expected).sum(dim=1).clamp(max=1)))
    turned = torch.rad2deg(torch.arccos((head.centers * old).sum(dim=1).clamp(max=1)))
    assert turned.max() > 2  # degrees
    assert angle.max() < 0.3 * turned.max()
    assert isinstance(centers, torch.optim.Adadelta)


def test_repaired_step_is_the_ten_percent_rule_exactly():
    _, module, (update, _) = parts()
    head = module.head
    z = F.normalize(torch.randn(200, 10, generator=torch.Generator().manual_seed(1)), dim=1)
    won, old = head.predict(z), head.centers.detach().clone()
    head.weight.grad = torch.autograd.grad(head.loss(z), head.weight)[0]
    update.optimizers[1].step()
    for j in won.unique():
        g = z[won == j].sum(dim=0)
        assert torch.allclose(head.centers[j], F.normalize(old[j] + 0.1 * g / g.norm(), dim=0), atol=1e-6)
    assert torch.allclose(head.centers.norm(dim=1), torch.ones(3))


def test_without_gradient_normalisation_steps_are_huge_at_the_papers_alpha():
    """That "gradient normalisation is necessary" holds because alpha is 1e-3."""
    turned = {}
    for normalize in (True, False):
        _, module, (update, _) = parts(variant="paper", normalize_gradient=normalize)
        head = module.head
        z = F.normalize(torch.randn(200, 10, generator=torch.Generator().manual_seed(1)), dim=1)
        old = head.centers.detach().clone()
        head.weight.grad = torch.autograd.grad(head.loss(z), head.weight)[0]
        update.optimizers[1].step()
        turned[normalize] = float(torch.rad2deg(torch.arccos((head.centers * old).sum(dim=1).clamp(max=1))).max())
    assert turned[True] < 6 < 30 < turned[False]


def test_centres_have_unit_length_after_every_kind_of_training(easy):
    for params in (
        {},
        {"variant": "paper"},
        {"end_to_end": False},
        {"alternate": "batch"},
        {"encoder": None},
    ):
        model = small("TELL", **params).fit(easy[0])
        assert np.allclose(np.linalg.norm(model.cluster_centers_, axis=1), 1, atol=1e-5), params
        model.partial_fit(easy[0])
        assert np.allclose(np.linalg.norm(model.cluster_centers_, axis=1), 1, atol=1e-5), params


def test_paper_variant_is_the_published_recipe():
    recipe = TELL(variant="paper")._recipe(70_000)
    assert (recipe.max_epochs, recipe.pretrain_epochs, recipe.batch_size) == (3000, 0, 256)
    assert (recipe.optimizer, recipe.alpha, recipe.init, recipe.clustering_weight) == (
        "adadelta",
        1e-3,
        "kaiming",
        0.01,
    )
    own = TELL(variant="paper", max_epochs=7, optimizer="adam")._recipe(70_000)
    assert (own.max_epochs, own.optimizer) == (7, "adam")


def test_paper_variant_reports_the_published_loss(easy):
    model = small("TELL", variant="paper").fit(easy[0])
    row = model.history_[-1]
    assert row["loss"] - row["rec"] == pytest.approx(0.02 - 0.02 / 3 + 0.01 / 3 * row["clu"], rel=1e-4)


def test_two_stage_leaves_the_encoder_as_pretrained(easy):
    X, _ = easy
    only = small("TELL", end_to_end=False, max_epochs=0).fit(X)
    two_stage = small("TELL", end_to_end=False).fit(X)
    assert np.array_equal(only.transform(X), two_stage.transform(X))
    assert not np.array_equal(only.cluster_centers_, two_stage.cluster_centers_)
    assert "rec" not in two_stage.history_[-1]
    assert not np.array_equal(small("TELL").fit(X).transform(X), two_stage.transform(X))


@pytest.mark.parametrize("init", ["k-means", "k-means++", "random", "kaiming"])
def test_starts(easy, init):
    X, y = easy
    model = small("TELL", init=init, n_init=4, max_epochs=20).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.5


@pytest.mark.parametrize("optimizer", ["adam", "adadelta", "adagrad", "rmsprop", "sgd"])
@pytest.mark.parametrize("variant", ["repaired", "paper"])
def test_optimizers(easy, optimizer, variant):
    model = small("TELL", optimizer=optimizer, variant=variant).fit(easy[0])
    assert math.isfinite(model.loss_)


def test_explanations_add_up(easy):
    X, _ = easy
    model = small("TELL").fit(X)
    why = model.explain(X)
    assert np.array_equal(why.cluster, model.labels_)
    assert (why.runner_up != why.cluster).all()
    assert np.allclose(why.contributions.sum(axis=1), why.margin, atol=1e-6)
    z, c = model.transform(X), model.cluster_centers_
    for i in range(0, 240, 37):
        scores = [float(z[i] @ c[j]) for j in range(3)]
        best, second = np.argsort(scores)[::-1][:2]
        assert (why.cluster[i], why.runner_up[i]) == (best, second)
        assert why.margin[i] == pytest.approx(scores[best] - scores[second], abs=1e-6)
        assert np.allclose(why.contributions[i], z[i] * (c[best] - c[second]), atol=1e-6)
    assert np.array_equal(why.attention, model.predict_proba(X))
    assert (small("TELL", 1).fit(X).explain(X).margin == 0).all()


def test_online_follows_a_drift_that_fixed_centres_miss():
    """Table 5: centres fitted on a few rows go along with a stream whose clusters turn."""
    rng = np.random.default_rng(0)

    def batch(turn):
        y = rng.integers(0, 3, 128)
        angle = y * 2 * np.pi / 3 + turn + 0.1 * rng.normal(size=128)
        return np.c_[np.cos(angle), np.sin(angle)], y

    X, _ = batch(0.0)
    fixed, online = (TELL(3, encoder=None, random_state=0).fit(X) for _ in range(2))
    truth, by_fixed, by_online = [], [], []
    for turn in np.linspace(0, 2 * np.pi / 3, 40):
        X, y = batch(turn)
        truth.append(y)
        by_fixed.append(fixed.predict(X))
        by_online.append(online.predict(X))  # predict, then learn
        online.partial_fit(X)
    truth = np.concatenate(truth)
    assert adjusted_rand_score(truth, np.concatenate(by_online)) > 0.95
    assert adjusted_rand_score(truth, np.concatenate(by_fixed)) < 0.7


@pytest.mark.parametrize("method", ["TELL", "KMeansNet", "DCSAI", "AEKMeans"])
def test_rates_rise_and_fall(easy, monkeypatch, method):
    """Pretraining rises to three times the usual rate and falls, joint training falls, both less for small batches."""
    seen = []
    step = torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        seen.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    settings = {"init": "spectral", "pretrain_epochs": 5, "max_epochs": 4, "batch_size": 64}  # three steps an epoch
    small(method, **settings).fit(easy[0])
    pretrain, joint = np.array(seen[:15]), np.array(seen[15 :: 1 + (method == "KMeansNet")])  # which has two
    assert pretrain.max() < 3e-3 / 2 < pretrain.max() + 3e-4
    assert pretrain.argmax() in (4, 5)
    assert pretrain[0] == pytest.approx(0.04 * 1.5e-3)
    assert pretrain[-1] < 2e-4
    if method != "AEKMeans":
        assert np.allclose(joint, 0.0005 / 4 * (1 + np.cos(np.pi * np.arange(12) / 12)))


def test_what_none_stands_for():
    repaired, paper = TELL()._recipe(70_000), TELL(variant="paper")._recipe(70_000)
    assert (repaired.target, repaired.alternate, repaired.clustering_weight) == ("balanced", "never", 0.1)
    assert (repaired.init, repaired.pretrain_epochs, repaired.max_epochs, repaired.one_cycle) == (None, 40, 20, True)
    assert TELL()._recipe(1797).pretrain_epochs == 150
    assert (paper.target, paper.alternate, paper.clustering_weight) == ("hard", "epoch", 0.01)
    assert (paper.init, paper.pretrain_epochs, paper.max_epochs, paper.one_cycle) == ("kaiming", 0, 3000, False)
    hard = TELL(target="hard")._recipe(70_000)
    assert (hard.alternate, hard.clustering_weight) == ("epoch", 0.02)


def test_the_papers_loss_has_no_balanced_target(easy):
    with pytest.raises(ValueError, match="target='balanced' is not in the paper's loss"):
        small("TELL", variant="paper", target="balanced").fit(easy[0])


@pytest.mark.parametrize("method", ["TELL", "KMeansNet", "DCSAI", "NCSC"])
def test_unequal_clusters_keep_their_sizes(method):
    """One row in fifty for the smallest of five: balanced targets must not fill it up with rows of the largest."""
    rng = np.random.default_rng(1)
    sizes = [500, 250, 125, 60, 20]
    centers = rng.normal(size=(5, 16)) * 1.8
    X = np.vstack([c + rng.normal(size=(n, 16)) for c, n in zip(centers, sizes, strict=True)]).astype("float32")
    y = np.repeat(np.arange(5), sizes)
    model = small(method, 5, pretrain_epochs=40, max_epochs=60, hidden_layer_sizes=(64,)).fit(X)
    head = model.module_.head
    share = {"DCSAI": lambda: head.expected, "NCSC": lambda: head.share}.get(method, lambda: head.target.share)()
    assert share.min() < 0.5
    assert adjusted_rand_score(y, model.labels_) > 0.95


def test_a_view_is_pulled_to_what_its_row_chose():
    layer = TELLLayer(2, 2).init_(torch.eye(2))
    z, view = torch.tensor([[1.0, 0.1]]), torch.tensor([[0.1, 1.0]])
    expected = 1 / 0.5 * (2 * 0.5 - torch.tensor([2 * 0.5 * torch.cosine_similarity(view, torch.eye(2)[:1])[0], 0.0]))
    assert float(released_loss(layer, z, 1.0, view).detach()) == pytest.approx(float(expected.mean()))


def test_two_stages_of_the_paper_pretrain(easy):
    model = small("TELL", variant="paper", end_to_end=False, pretrain_epochs=None, max_epochs=3).fit(easy[0])
    assert [row["stage"] for row in model.history_] == ["pretrain"] * 3 + ["fit"] * 3


@pytest.mark.parametrize("method", ["TELL", "KMeansNet"])
def test_fixed_codes_are_fixed(method, easy):
    layers = (
        torch.nn.Linear(16, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(8, 4),
    )
    params = {"encoder": torch.nn.Sequential(*layers), "end_to_end": False, "init": "k-means"}
    before, after = (small(method, max_epochs=n, **params).fit(easy[0]) for n in (0, 5))
    assert np.array_equal(before.transform(easy[0]), after.transform(easy[0]))
    assert not np.array_equal(before.cluster_centers_, after.cluster_centers_)
