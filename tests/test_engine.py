"""The parts under the estimators: training loop, runtime, k-means, registry, and how the modules hang together."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import neuralclust
from neuralclust import registry
from neuralclust.data import ArraySource
from neuralclust.kmeans import initial_centers, split_clusters
from neuralclust.nn import CentroidLayer, ClusterModule, ConvAutoencoder, MLPAutoencoder
from neuralclust.runtime import draw_seeds, resolve_precision, seeded
from neuralclust.training import Trainer, Update, make_optimizer, map_rows
from tests.conftest import small

SRC = Path(neuralclust.__file__).parent


# -- structure ------------------------------------------------------------------------------------

ORDER = [
    "functional",
    "nn",
    "peers",
    "data",
    "kmeans",
    "runtime",
    "callbacks",
    "training",
    "fitting",
    "base",
    "methods",
]


def imports(file):
    """What a file imports, at any depth: our own modules by their first name, packages by theirs."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "neuralclust":
            modules = [f"neuralclust.{a.name}" for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            continue
        yield from (m.removeprefix("neuralclust.").split(".")[0] for m in modules)


@pytest.mark.parametrize("layer", ORDER)
def test_imports_go_one_way(layer):
    above = set(ORDER[ORDER.index(layer) + 1 :])
    files = [SRC / f"{layer}.py"] if (SRC / f"{layer}.py").exists() else list((SRC / layer).glob("*.py"))
    assert files
    for file in files:
        found = set(imports(file))
        assert not found & above, f"{file.name} imports {found & above}"
        if layer in ("functional", "nn"):
            assert "sklearn" not in found


def test_the_reader_of_imports_reads_them(tmp_path):
    (tmp_path / "a.py").write_text("from sklearn.cluster import KMeans\nfrom neuralclust import base\nimport os.path\n")
    assert list(imports(tmp_path / "a.py")) == ["sklearn", "base", "os"]


def test_importing_the_package_is_free():
    code = """
import sys
import neuralclust, neuralclust.registry
print([m for m in ("torch", "sklearn", "numpy") if m in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names():
    for name in neuralclust.__all__:
        assert getattr(neuralclust, name) is not None
    assert set(neuralclust.__all__) <= set(dir(neuralclust))
    with pytest.raises(AttributeError, match="no attribute 'DEC'"):
        _ = neuralclust.DEC


def test_only_one_training_loop():
    loops = [f for f in SRC.rglob("*.py") if "for epoch in" in f.read_text()]
    assert [f.name for f in loops] == ["training.py"]


# -- registry ------------------------------------------------------------------------------------


def test_every_entry_can_be_made():
    for name in registry.names():
        estimator = registry.make(name, 3)
        assert hasattr(estimator, "fit_predict")
    assert registry.make("gaussian-mixture", 4).n_components == 4
    assert registry.find("tell") == "TELL"
    with pytest.raises(ValueError, match="Did you mean KMeansNet"):
        registry.find("kmeansnot")
    with pytest.raises(ValueError, match="is not one of TELL"):
        registry.find("zzz")


# -- training ------------------------------------------------------------------------------------


def line(n=64):
    """A source, a module and a loss that fits one weight; drops nothing."""
    x = torch.linspace(-1, 1, n)[:, None].repeat(1, 2)
    torch.manual_seed(0)
    module = ClusterModule(MLPAutoencoder((2,), 1, hidden_layer_sizes=(4,)), CentroidLayer(1, 2), (2,))
    return ArraySource(x.numpy(), (2,)), module


def rec(module, x, index):
    value = (module.decode(module.encode(x)) - x).square().mean()
    return {"loss": value, "rec": value}


def trainer(**changes):
    settings = dict(batch_size=16, device=torch.device("cpu"), precision=torch.float32,
                    generator=torch.Generator().manual_seed(0)) | changes  # fmt: skip
    return Trainer(**settings)


def test_the_loop_is_the_loop_one_would_write():
    source, module = line()
    _, other = line()
    update = Update(rec, make_optimizer("adam", module.autoencoder.parameters()))
    rows = trainer().fit(module, source, [update], stage="s", epochs=3)
    optimizer = torch.optim.Adam(other.autoencoder.parameters(), 1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(-1, 1, 64)[:, None].repeat(1, 2)
    means = []
    for _ in range(3):
        losses = []
        for index in torch.randperm(64, generator=generator).split(16):
            optimizer.zero_grad()
            loss = rec(other, x[index], index)["loss"]
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        means.append(np.mean(losses))
    assert [row["loss"] for row in rows] == pytest.approx(means, rel=1e-6)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


@pytest.mark.parametrize(("turn", "expected"), [
    ("all", "abababab" * 2), ("epoch", "aaaabbbb"), ("batch", "abababab"),
])  # fmt: skip
def test_turns(turn, expected):
    source, module = line()
    seen = []

    def loss(name):
        def f(module, x, index):
            seen.append(name)
            return rec(module, x, index)

        return f

    updates = [Update(loss(name), make_optimizer("sgd", module.autoencoder.parameters())) for name in "ab"]
    trainer().fit(module, source, updates, stage="s", epochs=2, turn=turn)
    assert "".join(seen) == expected


def test_turns_by_batch_go_on_over_epochs_of_one_batch():
    source, module = line()
    seen = []

    def loss(name):
        return lambda module, x, index: seen.append(name) or rec(module, x, index)

    updates = [Update(loss(name), make_optimizer("sgd", module.autoencoder.parameters())) for name in "ab"]
    trainer(batch_size=64).fit(module, source, updates, stage="s", epochs=4, turn="batch")
    assert "".join(seen) == "abab"


def test_rows_left_over_are_dropped_and_small_data_is_one_batch():
    source, module = line(50)
    sizes = []

    def loss(module, x, index):
        sizes.append(len(x))
        return rec(module, x, index)

    update = Update(loss, make_optimizer("sgd", module.autoencoder.parameters()))
    trainer().fit(module, source, [update], stage="s", epochs=1)
    assert sizes == [16, 16, 16]
    sizes.clear()
    trainer(batch_size=99).fit(module, source, [update], stage="s", epochs=1)
    assert sizes == [50]


def test_map_pads_and_keeps_the_order():
    source, module = line(50)
    tiles = []

    def fn(x):
        tiles.append(len(x))
        return x.sum(dim=1)

    out = map_rows(module, fn, source, tile=16, device=torch.device("cpu"))
    assert tiles == [16, 16, 16, 16]
    assert np.allclose(out, 2 * np.linspace(-1, 1, 50), atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adadelta", "adagrad", "rmsprop", "sgd"])
def test_optimizers_step(name):
    p = torch.ones(3, requires_grad=True)
    optimizer = make_optimizer(name, [p])
    p.square().sum().backward()
    optimizer.step()
    assert (p < 1).all()
    assert make_optimizer(name, [p], 0.25).param_groups[0]["lr"] == 0.25


# -- runtime ------------------------------------------------------------------------------------


def test_precision_gate(monkeypatch):
    large, tiny = MLPAutoencoder((784,)), MLPAutoencoder((16,), hidden_layer_sizes=(32,))
    cpu = torch.device("cpu")
    monkeypatch.setattr("neuralclust.runtime._cpu_multiplies_bfloat16", lambda: True)
    assert resolve_precision("auto", cpu, large) == torch.bfloat16
    assert resolve_precision("auto", cpu, tiny) == torch.float32
    assert resolve_precision("auto", cpu, ConvAutoencoder((1, 28, 28))) == torch.float32
    assert resolve_precision("bfloat16", cpu, tiny) == torch.bfloat16
    monkeypatch.setattr("neuralclust.runtime._cpu_multiplies_bfloat16", lambda: False)
    assert resolve_precision("auto", cpu, large) == torch.float32


def test_seeds():
    assert draw_seeds(3, 2) == draw_seeds(3, 2) != draw_seeds(4, 2)
    assert draw_seeds(3, 1) == draw_seeds(3, 2)[:1]
    state = np.random.RandomState(0)
    assert draw_seeds(state, 2) != draw_seeds(state, 2)
    assert draw_seeds(None, 2) != draw_seeds(None, 2)


def test_seeded_restores_the_state_even_after_an_error():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = []

    def fail():
        with seeded(0, torch.device("cpu")) as generator:
            first.extend([torch.rand(1), torch.rand(1, generator=generator)])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert torch.equal(before, torch.get_rng_state())
    with seeded(0, torch.device("cpu")) as generator:
        assert [torch.rand(1), torch.rand(1, generator=generator)] == first


# -- k-means ------------------------------------------------------------------------------------


def test_initial_centres():
    z = np.repeat([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], 20, axis=0).astype("float32")
    z += np.random.default_rng(0).normal(size=z.shape).astype("float32") / 10
    exact = initial_centers(z, 3, "k-means", n_init=3, seed=0)
    assert np.allclose(np.sort(exact, axis=0), np.sort(z.reshape(3, 20, 2).mean(axis=1), axis=0), atol=1e-5)
    for init in ("k-means++", "random"):
        rows = initial_centers(z, 3, init, n_init=1, seed=0)
        assert all((z == row).all(axis=1).any() for row in rows)
        assert len(np.unique(rows, axis=0)) == 3
        assert np.array_equal(rows, initial_centers(z, 3, init, n_init=1, seed=0))


def test_empty_clusters_get_half_of_the_widest():
    z = np.array([[0.0], [0.1], [10.0], [20.0]], dtype="float32")

    def predict(centers):
        return ((z - centers.T) ** 2).argmin(axis=1)

    centers, filled, cut = split_clusters(z, predict, np.array([[0.0], [15.0], [99.0]]), seed=0)
    assert (filled, cut) == ([2], [1])
    assert sorted(centers.ravel().tolist()) == [0.0, 10.0, 20.0]
    same, filled, cut = split_clusters(z, predict, centers, seed=0)
    assert filled == cut == []
    assert np.array_equal(same, centers)
    hopeless, filled, cut = split_clusters(z * 0, lambda c: np.zeros(4, int), np.zeros((3, 1)), seed=0)
    assert filled == cut == []
    assert np.array_equal(hopeless, np.zeros((3, 1)))


def test_the_example_of_a_network_of_ones_own():
    example = SRC.parents[1] / "examples" / "plug_in_layer.py"
    if not example.exists():
        pytest.skip("the examples are not beside the installed package")
    spec = importlib.util.spec_from_file_location("plug_in_layer", example)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(epochs=3) > 0.5


@pytest.mark.parametrize(("method", "usual"), [("TELL", 0.1), ("KMeansNet", 0.1), ("DCSAI", 0.02)])
def test_rows_of_small_variance_have_a_small_clustering_weight(easy, method, usual):
    """Else it outweighs all there is to reconstruct, and the codes collapse."""
    X = easy[0] / (easy[0].max() - easy[0].min())
    plain = small(method, max_epochs=0).fit(X)
    variance = X.var(axis=0).mean()
    assert variance > 0.02
    assert float(plain._weight("clustering_weight", plain.module_)) == pytest.approx(usual)
    wide = np.vstack([X, np.full((1, X.shape[1]), 10.0), np.full((1, X.shape[1]), -10.0)])  # the range is 20
    model = small(method, max_epochs=0).fit(wide)
    assert float(model.module_.variance) == pytest.approx((wide / 20).var(axis=0).mean())
    expected = usual * float(model.module_.variance) / 0.02
    assert expected < usual / 2
    assert float(model._weight("clustering_weight", model.module_)) == pytest.approx(expected)
    assert model.set_params(clustering_weight=0.3)._weight("clustering_weight", model.module_) == 0.3
