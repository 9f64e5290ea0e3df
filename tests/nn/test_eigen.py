"""Eigenvector layers against dense algebra, finite differences and scipy; and what the printed forms do."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import eigsh

from neuralclust.functional import captured_fraction, knn_graph, laplacian
from neuralclust.nn import EigenvectorLayer
from neuralclust.nn.eigen import cayley_curve, curve_derivatives, random_orthonormal

N, K = 40, 4


@pytest.fixture
def lap():
    """A dense symmetric positive semidefinite matrix with eigenvalues up to 2, float64."""
    a = torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = a @ a.T
    return 2 * a / torch.linalg.matrix_norm(a, 2)


@pytest.fixture
def y():
    return random_orthonormal(N, K, torch.Generator().manual_seed(1), dtype=torch.float64)


def skew(y, lap):
    g = 2 * lap @ y
    return g @ y.T - y @ g.T


def objective(y, lap):
    return float((y * (lap @ y)).sum())


def orthogonality(y):
    return float(torch.linalg.matrix_norm(y.T @ y - torch.eye(y.shape[1], dtype=y.dtype), 2))


def order_in_t(curve, steps=(0.02, 0.01)):
    """Exponent of t in the orthogonality error."""
    large, small = (orthogonality(curve(t)) for t in steps)
    return np.log(large / small) / np.log(steps[0] / steps[1])


def test_cayley_is_the_dense_transform_and_orthonormal_for_any_step(y, lap):
    p = skew(y, lap)
    eye = torch.eye(N, dtype=torch.float64)
    g = 2 * lap @ y
    for t in (0.01, 0.5, 50.0):
        dense = torch.linalg.solve(eye + t / 2 * p, (eye - t / 2 * p) @ y)
        ours = cayley_curve(y, torch.cat([g, y], 1), torch.cat([y, -g], 1), t)
        assert torch.allclose(ours, dense, atol=1e-10)
        assert orthogonality(ours) < 1e-12
    assert torch.equal(EigenvectorLayer(K, step=0.5)(y, lap), cayley_curve(y, *_factors(y, g), 0.5))


def _factors(y, g):
    return torch.cat([g, y], 1), torch.cat([y, -g], 1)


def test_the_printed_cayley_curve_ascends(y, lap):
    """Eq. 17 has the signs the other way round; property 1 of the paper demands the direction -P Y."""
    p, eye, t = skew(y, lap), torch.eye(N, dtype=torch.float64), 1e-3
    printed = (eye + t / 2 * p) @ torch.linalg.solve(eye - t / 2 * p, y)
    assert objective(printed, lap) > objective(y, lap)
    assert objective(EigenvectorLayer(K, step=t)(y, lap), lap) < objective(y, lap)


@pytest.mark.parametrize(("order", "expected"), [(2, 4), (3, 6)])
def test_orthogonality_orders_of_the_polynomial(y, lap, order, expected):
    layer = EigenvectorLayer(K, mode="polynomial", order=order)

    def curve(t):
        layer.best_step = lambda *_: torch.tensor(t, dtype=torch.float64)
        return layer(y, lap)

    assert order_in_t(curve) == pytest.approx(expected, abs=0.1)


def test_the_printed_polynomial_has_order_2_only(y, lap):
    """Eq. 19 has 2^(-(i-1)/2) for the coefficients of Appendix B, 2^(-i(i-1)/2)."""
    p = skew(y, lap)
    assert order_in_t(lambda t: y - t * p @ y + 2**-0.5 * t**2 * p @ p @ y) == pytest.approx(2, abs=0.1)


def test_the_printed_layer_is_eq_27(y, lap):
    p = skew(y, lap)
    slope = torch.trace(y.T @ lap @ p @ y)
    t = min(0.01, float(slope / (slope - torch.trace(y.T @ lap @ p @ p @ y))))
    expected = y - t * p @ y + t**2 / 2 * p @ p @ p @ y
    assert torch.allclose(EigenvectorLayer(K, mode="printed", step=0.01)(y, lap), expected)


def test_derivatives_by_finite_differences(y, lap):
    p = skew(y, lap)
    first, second = curve_derivatives(p @ y, p @ p @ y, 2 * lap @ y, lap)

    def f(t):
        return objective(y - t * p @ y + t**2 / 2 * p @ p @ y, lap)

    h = 1e-4
    assert float(first) == pytest.approx((f(h) - f(-h)) / (2 * h), rel=1e-5)
    assert float(second) == pytest.approx((f(h) - 2 * f(0) + f(-h)) / h**2, rel=1e-4)
    # Eq. 27's own denominator is far from it.
    slope = torch.trace(y.T @ lap @ p @ y)
    printed = slope / (slope - torch.trace(y.T @ lap @ p @ p @ y))
    assert abs(float(printed) + float(first / second)) > 0.5 * abs(float(first / second))


def test_best_step_descends_where_the_curve_is_concave(lap):
    """Near the largest eigenvectors -f'/f'' is negative and would ascend."""
    vectors = torch.linalg.eigh(lap)[1]
    mixed = vectors[:, -K:] + 0.01 * random_orthonormal(N, K, torch.Generator().manual_seed(2), dtype=torch.float64)
    y = torch.linalg.qr(mixed)[0]
    p = skew(y, lap)
    _, second = curve_derivatives(p @ y, p @ p @ y, 2 * lap @ y, lap)
    assert second < 0
    assert objective(EigenvectorLayer(K, mode="polynomial", step=0.1)(y, lap), lap) < objective(y, lap)


@pytest.mark.parametrize("mode", ["cayley", "polynomial"])
def test_gradients(lap, mode):
    y = random_orthonormal(10, 2, torch.Generator().manual_seed(1), dtype=torch.float64)
    small = (lap[:10, :10] / 2).clone().requires_grad_()
    layer = EigenvectorLayer(2, mode=mode, step=0.3)
    assert torch.autograd.gradcheck(lambda a: layer(layer(y, (a + a.T) / 2), (a + a.T) / 2), small)


def test_rotation_is_skew_and_harmless(y, lap):
    """Any W leaves Y orthonormal and its objective the same to first order; a plain Y W Y^T would not."""
    layer = EigenvectorLayer(K, step=0.1, learn_rotation=True)
    plain = EigenvectorLayer(K, step=0.1)(y, lap)
    torch.nn.init.eye_(layer.rotation)  # all symmetric: no effect
    layer.double()
    assert torch.allclose(layer(y, lap), plain)
    torch.nn.init.normal_(layer.rotation, generator=torch.Generator().manual_seed(0))
    turned = layer(y, lap)
    assert orthogonality(turned) < 1e-12
    assert objective(turned, lap) == pytest.approx(objective(plain, lap), rel=0.05)


def test_a_stack_captures_the_eigenspace_of_scipy():
    """30 layers on the graph of 256 points in ten groups that touch; the paper's step of 0.01 goes nowhere."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(10, 20, generator=generator, dtype=torch.float64)
    points = centers[torch.arange(256) % 10] + 0.9 * torch.randn(256, 20, generator=generator, dtype=torch.float64)
    lap = laplacian(knn_graph(points, 5))
    i, j = lap.indices().numpy()
    _, vectors = eigsh(sp.csr_array((lap.values().numpy(), (i, j)), shape=(256, 256)), 10, sigma=-0.01)
    vectors = torch.from_numpy(vectors)
    start = random_orthonormal(256, 10, generator, dtype=torch.float64)

    def captured(**options):
        y = start
        for _ in range(30):
            y = EigenvectorLayer(10, **options)(y, lap)
        return float(captured_fraction(y, vectors))

    assert captured() > 0.9
    assert captured(mode="polynomial") > 0.9
    assert captured(step=0.01) < 0.15


@pytest.mark.parametrize("change", [{"mode": "exact"}, {"order": 4}, {"step": 0.0}])
def test_bad_arguments(change):
    (name, _), *_ = change.items()
    with pytest.raises(ValueError, match=name):
        EigenvectorLayer(K, **change)
