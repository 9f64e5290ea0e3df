"""NCSC: the published loss collapses, the repaired one does not; what the history tells; the parts of the estimator."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from neuralclust import NCSC
from neuralclust.augment import RandomAffine
from neuralclust.datasets import make_subspaces
from neuralclust.functional import class_affinity
from neuralclust.metrics import clustering_accuracy
from neuralclust.nn import ClassifierLayer, SelfExpression, StrideConvAutoencoder, WideAutoencoder
from tests.conftest import small


def joint(model):
    return [row for row in model.history_ if row["stage"] == "fit"]


def fitted(seed, **params):
    X, y = make_subspaces(400, 4, 3, 30, random_state=seed)
    settings = {"encoder": None, "init": "spectral", "max_epochs": 150, "tol": 0.0, "random_state": seed}
    model = NCSC(4, **settings | params).fit(X)
    return clustering_accuracy(y, model.labels_), model


@pytest.mark.parametrize("seed", range(9))
def test_repaired_keeps_four_subspaces_apart(seed):
    accuracy, model = fitted(seed)
    assert accuracy == 1.0
    last = joint(model)[-1]
    assert last["balance"] > 0.99
    assert last["agreed"] == pytest.approx(1)
    assert last["positives"] > 1
    assert 0 < last["negatives"] < 1


@pytest.mark.parametrize("seed", range(3))
def test_the_paper_variant_collapses_from_a_start_that_is_right(seed):
    start, _ = fitted(seed, variant="paper", max_epochs=0)
    assert start > 0.85
    with pytest.warns(ConvergenceWarning, match="Clusters are merging"):
        accuracy, model = fitted(seed, variant="paper", max_epochs=300)
    assert accuracy == 0.25
    assert len(np.unique(model.labels_)) == 1
    rows = joint(model)
    assert rows[-1]["clu"] < 0.01 * rows[0]["clu"]  # the loss has reached its trivial optimum
    assert rows[-1]["negatives"] == 0
    assert rows[-1]["balance"] < 0.3


def test_it_takes_negatives_and_balance_to_keep_clusters_apart():
    """With u = 0.1, as printed, one positive in seven is wrong."""
    X, y = make_subspaces(400, 4, 3, 30, random_state=1)
    found = {}
    for least in (0.5, 1e-9):
        for balance_weight in (0.5, 0.0):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model = NCSC(
                    4, encoder=None, u=0.1, ridge=0.025, l=least, balance_weight=balance_weight, lr_classifier=1e-2,
                    max_epochs=150, tol=0.0, random_state=1,
                ).fit(X)  # fmt: skip
            found[least, balance_weight] = clustering_accuracy(y, model.labels_)
    assert found[0.5, 0.5] == 1.0
    assert max(found[0.5, 0.0], found[1e-9, 0.5]) < 0.9
    assert found[1e-9, 0.0] < 0.6


def test_paper_steps_in_turn(easy):
    """Eq. 9 for the autoencoder, Eq. 5 for the classifier, Eq. 8 for both, each on every batch."""
    X, _ = easy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = small("NCSC", variant="paper", max_epochs=3).fit(X)
    row = joint(model)[0]
    shown = {"positives", "agreed", "negatives", "balance", "changed"}
    assert set(row) == {"init", "stage", "epoch", "loss", "rec", "subspace", "clu", *shown}
    # at the first batch the collaboration weighs as much as the rest
    assert row["loss"] == pytest.approx(2 * row["subspace"], rel=0.05)


def test_the_paper_decodes_what_rows_are_expressed_by(easy, monkeypatch):
    model = small("NCSC", variant="paper", max_epochs=0).fit(easy[0])
    module, x = model.module_.eval(), torch.from_numpy(easy[0][:20].copy())
    decoded, decode = [], module.decode
    monkeypatch.setattr(module, "decode", lambda z: decoded.append(z) or decode(z))
    z, *_ = model._subspace(module, x)
    assert torch.allclose(decoded[0], SelfExpression(ridge=0.2)(z).T @ z, atol=1e-5)
    assert not torch.allclose(decoded[0], z, atol=1e-2)


@pytest.mark.parametrize("encoder", ["mlp", None])
@pytest.mark.parametrize("init", ["k-means", "k-means++", "random", "spectral", None])
def test_starts(easy, encoder, init):
    X, y = easy
    model = small("NCSC", encoder=encoder, init=init, pretrain_epochs=30).fit(X)
    if init in ("k-means", None):
        assert clustering_accuracy(y, model.labels_) > 0.98
    assert len(np.unique(model.labels_)) > 1


def test_given_centres_are_learned(easy):
    X, y = easy
    centers = np.stack([X[y == j].mean(axis=0) for j in range(3)])
    model = small("NCSC", encoder=None, init=centers, max_epochs=0).fit(X)
    assert np.array_equal(model.labels_, y)


def test_predict_is_the_classifier_alone(easy):
    X, _ = easy
    model = small("NCSC").fit(X)
    z = torch.from_numpy(model.transform(X))
    assert z.shape == (240, 32)
    assert np.allclose(z.norm(dim=1), 1, atol=1e-5)
    assert np.array_equal(model.module_.head(z).argmax(dim=1), model.labels_)
    assert np.array_equal(np.concatenate([model.predict(row[None]) for row in X]), model.labels_)


def test_affinities_for_looking_at(easy):
    X, y = easy
    model = small("NCSC", pretrain_epochs=30).fit(X)
    both = model.affinity(X)
    same = (y[:, None] == y[None, :]) & ~np.eye(240, dtype=bool)
    for a in (both.self_expressive, both.classifier):
        assert a.shape == (240, 240)
        assert a.min() >= 0
        assert a.max() <= 1
        assert a[same].mean() > 2 * a[y[:, None] != y[None, :]].mean()
    proba = torch.from_numpy(model.predict_proba(X))
    assert np.allclose(both.classifier, class_affinity(proba))


def test_augmentation(images):
    X, y = images
    seen = []

    def halve(x):
        seen.append(tuple(x.shape[1:]))
        return x / 2

    model = small("NCSC", 2, augment=halve, pretrain_epochs=3, max_epochs=2).fit(X)
    assert set(seen) == {(1, 9, 7)}
    assert len(seen) == 3 + 2  # a batch an epoch; nothing is augmented to predict or to score
    again = small("NCSC", 2, augment="digits", pretrain_epochs=3, max_epochs=2)
    labels = again.fit(X).labels_
    assert np.array_equal(labels, small("NCSC", 2, augment="digits", pretrain_epochs=3, max_epochs=2).fit(X).labels_)
    assert clustering_accuracy(y, model.labels_) > 0.9
    with pytest.raises(ValueError, match="augment needs images"):
        small("NCSC", 2, augment="digits").fit(X.reshape(60, -1))


def test_random_affine():
    torch.manual_seed(0)
    x = torch.zeros(200, 1, 15, 15)
    x[:, :, 6:9, 6:9] = 1.0
    assert torch.allclose(RandomAffine(0, 0)(x), x, atol=1e-5)
    moved = RandomAffine(shift=0.2, degrees=0)(x)[:, 0]
    grid = torch.arange(15.0)
    mass = moved.sum(dim=(1, 2))
    center = (moved.sum(dim=1) * grid).sum(dim=1) / mass - 7
    assert center.abs().max() <= 0.2 * 15 + 1e-3
    assert center.std() > 0.5
    assert abs(float(center.mean())) < 0.3
    turned = RandomAffine(shift=0, degrees=180)(x)
    assert torch.allclose(turned.sum(dim=(1, 2, 3)), x.sum(dim=(1, 2, 3)), rtol=0.15)


@pytest.mark.parametrize("encoder", ["conv", "residual", "preactivation"])
@pytest.mark.parametrize("variant", ["repaired", "paper"])
def test_convolutional(images, encoder, variant):
    X, y = images
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = small("NCSC", 2, encoder=encoder, variant=variant, pretrain_epochs=3, max_epochs=2).fit(X)
    assert model.reconstruct_centers().shape == (2, 9, 7)
    if variant == "repaired":
        assert clustering_accuracy(y, model.labels_) > 0.9


def test_networks():
    """Sizes of the paper: 28-14-7-4 and 30 maps; more than 9 dimensions a cluster; no batch norm."""
    net = StrideConvAutoencoder((1, 28, 28))
    assert net.maps == (30, 4, 4)
    assert net.embed_dim == 480
    assert [tuple(m.stride) for m in net.encoder if isinstance(m, torch.nn.Conv2d)] == [(2, 2)] * 3
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)
    for residual in ("post", "pre"):
        deep = StrideConvAutoencoder(
            (3, 32, 30), (10, 20, 30, 40), kernels=(3,) * 4, strides=(2, 2, 2, 1), residual=residual
        )
        assert deep.maps == (40, 4, 4)
        assert deep(torch.rand(2, 3, 32, 30)).shape == (2, 3, 32, 30)
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in deep.modules())
    wide = WideAutoencoder((12,), 3, hidden_layer_sizes=(20, 40))
    z = wide.encode(torch.rand(5, 12))
    assert (z >= 0).all()
    assert wide.squeeze(z).shape == (5, 3)
    assert torch.equal(wide.decode(z), wide.decoder[1:](wide.squeeze(z)))
    classifier = ClassifierLayer(480, 10, maps=(30, 4, 4))
    assert classifier(torch.rand(2, 480)).shape == (2, 10)
    with pytest.raises(NotImplementedError):
        classifier.loss(torch.rand(2, 480))


def test_streams_of_one_row(easy):
    X, _ = easy
    model = small("NCSC", batch_size=64).fit(X)
    before = model.predict(X)
    for row in X[:20]:
        model.partial_fit(row[None])
    assert np.array_equal(model.predict(X), before)  # a row alone has no pair to learn from
    model.partial_fit(X, train_encoder=True)
    assert (model.predict(X) == before).mean() > 0.95


def test_spectral_start_on_rows_too_long_to_hold_many(monkeypatch):
    """It labels the rows that it has looked at."""
    monkeypatch.setattr("neuralclust.warmstart._CODE_BYTES", 1)
    assert fitted(0, max_epochs=0)[0] > 0.95
    assert fitted(0, max_epochs=0, batch_size=4)[0] > 0.3  # few rows, but some of every cluster


def test_loss_does_not_depend_on_the_order_of_the_rows(easy):
    X, y = easy
    model = small("NCSC", pretrain_epochs=30, batch_size=60).fit(X)
    assert model.score(X) == pytest.approx(-model.loss_)
    assert model.score(X[np.argsort(y)]) == pytest.approx(model.score(X), abs=0.01)


def test_a_function_is_not_saved(images, tmp_path):
    X, _ = images
    model = small("NCSC", 2, augment=torch.nn.Identity(), pretrain_epochs=2, max_epochs=1).fit(X)
    model.save(tmp_path / "a")
    again = NCSC.load(tmp_path / "a")
    assert again.augment is None
    assert np.array_equal(again.predict(X), model.labels_)
    model.set_params(augment=lambda x: x).fit(X).save(tmp_path / "b")
    assert NCSC.load(tmp_path / "b").augment is None


@pytest.mark.parametrize("encoder", ["mlp", None])
def test_streams_of_the_paper_variant(easy, encoder):
    X, _ = easy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = small("NCSC", variant="paper", encoder=encoder, max_epochs=2).fit(X)
        assert model.partial_fit(X[:50], train_encoder=True).labels_.shape == (50,)


def test_thresholds_of_the_paper_variant(easy, monkeypatch):
    """l is 0.7 in the first epoch, 0.9 after; the user's own counts everywhere."""
    seen = []
    original = NCSC._printed

    def spy(self, module, z, a_s, least):
        seen.append(least)
        return original(self, module, z, a_s, least)

    monkeypatch.setattr(NCSC, "_printed", spy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        small("NCSC", variant="paper", max_epochs=2, batch_size=100).fit(easy[0])
        assert seen[:8] == [0.7] * 4 + [0.9] * 4  # two steps with the classifier a batch, two batches an epoch
        seen.clear()
        small("NCSC", variant="paper", max_epochs=2, l=0.3, encoder=None).fit(easy[0])
    assert set(seen) == {0.3}


def test_bad_layers(easy):
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        small("NCSC", hidden_layer_sizes=()).fit(easy[0])
    assert set(NCSC(1, encoder=None, max_epochs=1).fit(easy[0][:1]).labels_) == {0}
