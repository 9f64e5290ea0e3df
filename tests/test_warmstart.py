"""Training that starts from the clusters of a nearest-neighbour graph."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from neuralclust import DCSAI, NCSC, TELL, KMeansNet, fitting, warmstart
from neuralclust.metrics import clustering_accuracy
from neuralclust.nn import WideAutoencoder
from neuralclust.schedules import joint_rate

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
    settings = SMALL | {"pretrain_epochs": 5, "max_epochs": 0}
    for params in ({"augment": "table"}, {"variant": "paper"}):
        codes = [method(2, **settings | params | {"init": init}).fit(X).transform(X) for init in ("graph", "spectral")]
        assert np.isfinite(codes).all()
        assert not np.allclose(*codes)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("params", "usual"),
    [
        ({}, "graph"),
        ({"augment": "table"}, "spectral"),
        ({"encoder": None}, "spectral"),
        ({"encoder": torch.nn.Flatten()}, "spectral"),
        ({"encoder": torch.nn.Linear(2, 3).requires_grad_(False)}, "spectral"),
    ],
)
def test_the_graph_is_the_usual_start_without_views_if_an_encoder_learns(method, params, usual, moons):
    X, _ = moons
    settings = SMALL | {"pretrain_epochs": 5} | params
    found = {init: method(2, init=init, **settings).fit(X).cluster_centers_ for init in (None, "graph", "spectral")}
    assert np.array_equal(found[None], found[usual])
    assert not np.array_equal(found["graph"], found["spectral"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("augment", [None, "table"])
def test_how_the_network_learns_the_clusters(method, augment, moons, monkeypatch):
    X, _ = moons
    rates, losses, given = [], [], []
    optimizer, entropy, learn = method._optimizer, warmstart.F.cross_entropy, fitting.draw_together

    def spied(self, params, recipe, lr):
        rates.append((lr, joint_rate(recipe)))
        return optimizer(self, params, recipe, lr)

    def together(model, module, rows, labels, *args):
        z = learn(model, module, rows, labels, *args)
        given.append((rows, labels.numpy(), len(losses)))
        return z

    monkeypatch.setattr(method, "_optimizer", spied)
    monkeypatch.setattr(fitting, "draw_together", together)
    monkeypatch.setattr(warmstart.F, "cross_entropy", lambda *args: losses.append(1) or entropy(*args))
    model = method(2, init="graph", augment=augment, **SMALL | {"pretrain_epochs": 2, "batch_size": 100}).fit(X)
    assert rates[0][0] == rates[0][1] < 1e-3 / 2
    ((rows, labels, asked),) = given
    assert asked == 200 * (1 if augment is None else 2)
    z = model.transform(X)[rows._rows]
    means = np.stack([z[labels == j].mean(axis=0) for j in range(2)])  # of the codes as they are now
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(means, model.cluster_centers_, strict=True)
    ]
    assert min(cosines) > 1 - 1e-5


@pytest.mark.parametrize("method", [*METHODS, NCSC])
def test_callbacks_hear_how_far_the_start_is(method, moons, monkeypatch):
    heard, steps = [], []

    class Ears:
        def setup(self, estimator, context): ...

        def teardown(self, estimator, context): ...

        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context, **_):
            heard.append((context.task_name, len(steps)))

    entropy = warmstart.F.cross_entropy
    monkeypatch.setattr(warmstart.F, "cross_entropy", lambda *args: steps.append(1) or entropy(*args))
    settings = SMALL | {"pretrain_epochs": 2, "batch_size": 100, "max_epochs": 1, "n_init": 2}
    model = method(2, **settings).set_callbacks(Ears()).fit(moons[0])
    names = [name for name, _ in heard]
    first = ["epoch"] * 2 + ["pretrain"] + ["percent"] * 100 + ["start", "epoch", "fit"]
    assert names == [*first, *first, "fit"]  # the last: all of it
    ticks = [done for name, done in heard if name == "percent"][:100]
    assert len(set(ticks)) == 50  # once an epoch of four steps
    assert {row["stage"] for row in model.history_} == {"pretrain", "fit"}


@pytest.mark.parametrize("method", [TELL, KMeansNet])
def test_an_encoder_that_does_not_learn_stays_as_it_is(method, moons):
    X, _ = moons
    trained = TELL(2, **SMALL).fit(X).module_.autoencoder
    model = method(2, encoder=trained, end_to_end=False, init="graph", **SMALL | {"pretrain_epochs": 0}).fit(X)
    before, after = trained.state_dict(), model.module_.autoencoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", METHODS)
def test_beyond_50_clusters_k_means_starts(method):
    X = np.random.default_rng(0).normal(size=(150, 4)).astype("float32")
    settings = SMALL | {"pretrain_epochs": 2}
    model = method(51, init="graph", **settings).fit(X)
    assert np.array_equal(model.cluster_centers_, method(51, init="k-means", **settings).fit(X).cluster_centers_)


@pytest.mark.parametrize("method", METHODS)
def test_clusters_of_few_rows_that_hang_on_the_number_of_neighbours_are_not_taken(method, monkeypatch):
    X = np.random.default_rng(0).normal(size=(150, 4)).astype("float32")  # no clusters at all
    settings = SMALL | {"pretrain_epochs": 2}
    found = [method(3, init=init, **settings).fit(X).cluster_centers_ for init in ("graph", "k-means")]
    assert np.array_equal(*found)
    monkeypatch.setattr(warmstart, "_FEW", len(X))  # enough not to ask
    assert not np.array_equal(method(3, init="graph", **settings).fit(X).cluster_centers_, found[0])


def test_ncsc_starts_from_the_clusters_of_the_graph(moons):
    X, y = moons
    starts = [clustering_accuracy(y, NCSC(2, init=init, **SMALL).fit_predict(X)) for init in ("spectral", "k-means")]
    assert starts[0] > starts[1] + 0.03


def test_the_bottleneck_is_of_unit_length_where_codes_are():
    net = WideAutoencoder((12,), 3, hidden_layer_sizes=(20, 40))
    net.normalize = True
    z = net.encode(torch.rand(5, 12))
    assert torch.allclose(net.squeeze(z).norm(dim=1), torch.ones(5))
    assert torch.equal(net.decode(z), net.decoder[1:](net.squeeze(z)))


def test_the_start_weighs_the_reconstruction_as_asked(moons, monkeypatch):
    """As joint training does: the loss of a start that weighs it twice as much is larger by the reconstruction."""
    seen = []
    learn = warmstart.learn

    def spied(module, rows, update, trainer):
        x = torch.from_numpy(moons[0][:50])
        with torch.no_grad():
            terms = update.loss(module.eval(), module.prepare(x), rows._rows[:50])
        seen.append({name: float(value) for name, value in terms.items()})
        learn(module, rows, update, trainer)

    monkeypatch.setattr(warmstart, "learn", spied)
    for weight in (1.0, 2.0, 0.0):
        DCSAI(2, init="graph", reconstruction_weight=weight, **SMALL | {"pretrain_epochs": 2}).fit(moons[0])
    once, twice, never = (terms["loss"] for terms in seen)
    assert seen[0]["rec"] > 0
    assert twice - once == pytest.approx(seen[0]["rec"], rel=1e-4)
    assert once - never == pytest.approx(seen[0]["rec"], rel=1e-4)
