"""SSCNet: what its three modules do together, and where the printed form leads."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from neuralclust import SSCNet, load
from neuralclust.datasets import make_subspaces
from neuralclust.functional import adaptive_weights, captured_fraction, knn_graph, laplacian
from neuralclust.nn import DLADMM, EigenvectorLayer, SpectralLayer
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


def test_the_anchors_follow_once_an_epoch(easy, monkeypatch):
    calls = []
    original = SpectralLayer.refresh_
    monkeypatch.setattr(SpectralLayer, "refresh_", lambda self, z: calls.append(1) or original(self, z))
    small("SSCNet", batch_size=60, max_epochs=5).fit(easy[0])
    assert len(calls) == 5  # before each epoch but the first, and at the end
    small("SSCNet", encoder=None, batch_size=60, max_epochs=5).fit(easy[0])
    assert len(calls) == 5  # features do not change


@pytest.mark.parametrize("batch_size", [240, 60])
def test_a_tolerance_of_0_never_ends_joint_training(easy, batch_size):
    """Losses of different turns are not compared, though an epoch of one batch has one turn only."""
    model = small("SSCNet", batch_size=batch_size, max_epochs=40, tol=0).fit(easy[0])
    assert model.n_iter_ == 40


def test_the_score_is_a_mean_over_rows(easy):
    X, _ = easy
    model = small("SSCNet").fit(X)
    assert np.mean([model.score(X[i : i + 1]) for i in range(60)]) == pytest.approx(model.score(X[:60]), rel=1e-4)


def test_eigenvectors_teach_the_codes(easy):
    """With their weight at 0 the same seed gives another network."""
    first, second = (small("SSCNet", eigen_weight=w, batch_size=60).fit(easy[0]).transform(easy[0]) for w in (0.0, 5.0))
    assert np.abs(first - second).max() > 1e-3


def test_a_far_row_does_not_break_joint_training(easy):
    X = np.vstack([easy[0], 50 * easy[0][:1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="The values of X span")
        assert np.isfinite(small("SSCNet").fit(X).loss_)


def test_a_saved_model_is_of_the_size_of_its_data(easy, tmp_path):
    small("SSCNet").fit(easy[0]).save(tmp_path / "model")
    model = SSCNet.load(tmp_path / "model")
    assert len(model.module_.head.anchors) == 240
    assert np.array_equal(model.predict(easy[0]), model.labels_)


def test_a_stream_teaches_the_classifier_and_moves_the_mean_codes(easy):
    X, _ = easy
    model = small("SSCNet").fit(X)
    centers, weight = model.cluster_centers_, model.module_.head.classifier[0].weight.clone()
    model.partial_fit(X[:60] + 0.2)
    assert np.abs(model.cluster_centers_ - centers).max() > 1e-6
    assert not torch.equal(weight, model.module_.head.classifier[0].weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_anchors": 2}, "n_anchors=2"),
        ({"variant": "paper", "batch_size": 2}, "batch_size=2"),
        ({"n_neighbors": 0}, "n_neighbors"),
        ({"sparsity": -1.0}, "sparsity"),
    ],
)
def test_bad_parameters(easy, change, message):
    with pytest.raises(ValueError, match=message):
        small("SSCNet", **change).fit(easy[0])


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
    module.head.loss = lambda z: z.new_zeros(())
    assert float(model._loss(module, x, index)["loss"]) == pytest.approx(float(printed["loss"]) / 300)  # per row


def test_the_printed_eigenvectors_stay_at_their_random_start(easy):
    """Four layers with steps of 0.01: the embedding of three plain clusters is noise."""
    X, y = easy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        paper = small("SSCNet", variant="paper", encoder=None, batch_size=240, max_epochs=30).fit(X)
    head = paper.module_.head
    lap = laplacian(knn_graph(head.anchors, 5), normalized=False).to_dense()
    assert captured_fraction(head.embedding[:, :3], torch.linalg.eigh(lap)[1][:, :3]) < 0.2
    assert adjusted_rand_score(y, paper.labels_) < 0.5
    repaired = small("SSCNet", encoder=None).fit(X)
    assert adjusted_rand_score(y, repaired.labels_) > 0.9


def test_fewer_anchors_than_a_printed_batch(easy, monkeypatch):
    monkeypatch.setattr(EigenvectorLayer, "forward", lambda self, y, laplacian: y)
    model = small("SSCNet", variant="paper", batch_size=60, n_anchors=30, max_epochs=0).fit(easy[0])
    start = model.module_.head.embedding[:30, :3]
    assert torch.allclose(start.T @ start, torch.eye(3), atol=1e-6)


def test_views_are_of_rows_with_their_mean():
    """Colours are shifted and cut in 0 to 1, also where the network sees photographs without their mean."""
    X = np.random.default_rng(0).normal(0.7, 0.08, size=(60, 20)).clip(0, 1).astype("float32")
    seen = []

    def brighter(x):
        seen.append(x.clone())
        return x.add_(0.1)

    model = small("SSCNet", augment=brighter, max_epochs=1, pretrain_epochs=1).fit(X)
    module = model.module_.train()
    assert module.shift.shape == (20,)
    rows = torch.cat(seen)
    assert -1e-6 < float(rows.min()) < 0.1
    assert 0.9 < float(rows.max()) < 1 + 1e-6
    x = module.prepare(torch.from_numpy(X))
    assert torch.allclose(model._view(module, x), x + 0.1, atol=1e-6)


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


def test_rows_that_all_point_one_way_lose_their_mean(easy, tmp_path):
    X = easy[0] + 10 * np.abs(easy[0]).max()
    model = small("SSCNet").fit(X)
    assert model.module_.shift.numpy() == pytest.approx(X.mean(axis=0), rel=1e-5)
    again = load(model.save(tmp_path / "model") or tmp_path / "model")
    assert (again.predict(X) == model.labels_).all()
    for kept in (small("SSCNet", encoder="linear"), small("SSCNet", encoder=None), small("SSCNet", variant="paper")):
        assert kept.set_params(max_epochs=0).fit(X).module_.shift.shape == ()
    assert small("SSCNet").fit(easy[0] - easy[0].mean(axis=0)).module_.shift.shape == ()


def test_rows_of_small_variance_pay_less_for_their_codes(easy):
    X = np.vstack([easy[0], np.full((1, easy[0].shape[1]), 100.0)])  # one row takes up the range
    model = small("SSCNet", encoder="linear", max_epochs=0, pretrain_epochs=0).fit(X)
    x = model.module_.prepare(torch.from_numpy(X))
    assert float(model.module_.variance) < 0.005
    with torch.no_grad():
        terms = model._coding(model.module_, x)[1]
    expected = 0.5 * (float(model.module_.variance) / 0.02) ** 0.5
    assert float((terms["loss"] - terms["rec"]) / terms["sparse"]) == pytest.approx(expected, rel=1e-3)


def test_codes_longer_than_rows_pay_for_their_entries(easy, images):
    """Short ones do not: thresholds alone make zeros in them."""

    def of(encoder, **params):
        model = SSCNet(2, encoder=encoder, max_epochs=0, random_state=0, **{"pretrain_epochs": 0, **params})
        return model.fit(images[0] if encoder == "conv" else easy[0])

    short, wide = of("mlp"), of("linear")
    assert short.transform(easy[0]).shape == (240, 16)
    assert wide.transform(easy[0]).shape == (240, 500)
    blocks = [len(model.module_.autoencoder.blocks) for model in (short, wide, of("conv"))]
    assert blocks == [2, 5, 5]
    assert [model._value("sparsity") for model in (short, wide, of("conv"))] == [0.0, 0.5, 0.5]
    zeros = float((short.transform(easy[0]) == 0).mean())
    assert 0.3 < zeros < 0.7
    own = of(torch.nn.Linear(16, 5))
    assert own._value("sparsity") == 0
    assert of("linear", embed_dim=7).transform(easy[0]).shape == (240, 7)
    epochs = {n: SSCNet(2)._recipe(n).pretrain_epochs for n in (100, 1797, 10_000, 70_000)}
    assert epochs == {100: 150, 1797: 143, 10_000: 51, 70_000: 40}
    assert SSCNet(2, encoder="linear")._recipe(1797).pretrain_epochs == 10
    assert SSCNet(2, pretrain_epochs=3)._recipe(1797).pretrain_epochs == 3


def test_a_saved_mean_of_another_shape_is_refused(easy, tmp_path):
    model = small("SSCNet", max_epochs=0).fit(easy[0] + 10 * np.abs(easy[0]).max())
    model.module_.shift = model.module_.shift[:3]
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="first 'shift'"):
        load(tmp_path / "model")


def test_a_users_encoder_gets_a_decoder_that_can_be_negative():
    X = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")
    model = small("SSCNet", encoder=torch.nn.Linear(8, 8), pretrain_epochs=0, max_epochs=0).fit(X)
    rows = model.module_.prepare(torch.from_numpy(X))
    assert float(rows.min()) < 0
    assert float(model.module_.decode(model.module_.encode(rows)).min()) < 0
