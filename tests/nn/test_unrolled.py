"""D-LADMM: the same numbers as the classical iteration, and what a learned one has to keep."""

import pytest
import torch

from neuralclust.functional import linearised_admm, sparse_objective
from neuralclust.nn import DLADMM
from tests.functional.test_sparse import optimum_of_entries


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.randn(20, 12, generator=generator, dtype=torch.float64)
    return torch.randn(8, 12, generator=generator, dtype=torch.float64), dictionary


@pytest.mark.parametrize("noise", ["row", "entry"])
@pytest.mark.parametrize("n_blocks", [1, 2, 40])
def test_blocks_are_iterations(problem, noise, n_blocks):
    X, dictionary = problem
    settings = {"lam": 2.0, "beta": 0.7, "noise": noise}
    expected = linearised_admm(X, dictionary, max_iter=n_blocks, tol=0, **settings)
    net = DLADMM.from_dictionary(dictionary, n_blocks, **settings)
    z, e, multiplier = net.solve(X)
    assert torch.allclose(z, expected.codes, atol=1e-12)
    assert torch.allclose(e, expected.noise, atol=1e-12)
    assert torch.allclose(multiplier, expected.multiplier, atol=1e-12)
    assert torch.allclose(net.encode(X).double(), z, atol=1e-5)  # codes are float32
    assert torch.allclose(net.decode(z).double(), z @ dictionary, atol=1e-5)


def test_enough_blocks_reach_the_optimum(problem):
    X, dictionary = problem
    with torch.no_grad():
        z, e, _ = DLADMM.from_dictionary(dictionary, 4000, lam=2.0, noise="entry").solve(X)
    best = optimum_of_entries(X, dictionary, 2.0)  # by a linear program
    assert float(sparse_objective(z, e, 2.0, "entry")) == pytest.approx(best, rel=1e-3)
    assert (z @ dictionary + e - X).norm() < 1e-3


@pytest.mark.parametrize(
    ("maps", "shape"), [("linear", (12,)), ("mlp", (12,)), ("mlp", (1, 9, 7)), ("conv", (2, 9, 7))]
)
def test_shapes_and_gradients(maps, shape):
    torch.manual_seed(0)
    net = DLADMM(shape, 3, maps=maps, embed_dim=30, hidden_layer_sizes=(16,))
    x = torch.rand(5, *shape)
    z, e, multiplier = net.solve(x)
    assert z.shape == (5, net.embed_dim)
    assert e.shape == multiplier.shape == net(x).shape == x.shape
    (net(x) - x).square().mean().backward()
    for block in net.blocks[:-1]:
        assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


def test_no_parameter_belongs_to_a_place_in_the_batch():
    net = DLADMM((12,), 3, embed_dim=30)
    x = torch.rand(6, 12)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    assert torch.allclose(net.encode(x)[order], net.encode(x[order]), atol=1e-6)
    assert torch.allclose(net.encode(x)[:2], net.encode(x[:2]), atol=1e-6)


def test_penalties_and_thresholds_stay_positive():
    net = DLADMM((12,), 2, embed_dim=30)
    optimizer = torch.optim.Adam(net.parameters(), 1.0)
    for _ in range(5):
        optimizer.zero_grad()
        (net(torch.rand(4, 12)) ** 2).sum().backward()
        optimizer.step()
    for block in net.blocks:
        for value in (block.penalty, block.code_threshold, block.noise_threshold):
            assert (value >= 0).all()


@pytest.mark.parametrize("change", [{"maps": "fourier"}, {"noise": "column"}, {"n_blocks": 0}])
def test_bad_arguments(change):
    (name, _), *_ = change.items()
    with pytest.raises(ValueError, match=name):
        DLADMM((12,), **change)


def test_bad_shapes_and_dictionaries():
    with pytest.raises(ValueError, match="4 x 4"):
        DLADMM((12,), maps="conv")
    with pytest.raises(ValueError, match="strides"):
        DLADMM((1, 8, 8), maps="conv", strides=(2, 2))
    with pytest.raises(ValueError, match="lam=0"):
        DLADMM.from_dictionary(torch.eye(3), 2, lam=0)
    with pytest.raises(ValueError, match="norm 0"):
        DLADMM.from_dictionary(torch.zeros(3, 3), 2)
