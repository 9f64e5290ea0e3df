"""Graphs against scikit-learn and dense algebra."""

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import laplacian as scipy_laplacian
from sklearn.neighbors import NearestNeighbors

from neuralclust.functional import knn_graph, laplacian, nearest_neighbors
from neuralclust.functional.graph import multiply


@pytest.fixture
def points():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_neighbours_are_the_nearest(points, monkeypatch):
    monkeypatch.setattr("neuralclust.functional.graph._CHUNK", 40 * 7)  # seven rows at a time
    expected = NearestNeighbors(n_neighbors=4).fit(points.numpy()).kneighbors(return_distance=False)
    assert np.array_equal(nearest_neighbors(points, 4).numpy(), expected)
    other = points[:9] + 0.1
    expected = NearestNeighbors(n_neighbors=3).fit(points.numpy()).kneighbors(other.numpy(), return_distance=False)
    assert np.array_equal(nearest_neighbors(other, 3, points).numpy(), expected)


def test_fewer_rows_than_neighbours():
    assert nearest_neighbors(torch.rand(3, 2), 5).shape == (3, 2)
    assert knn_graph(torch.rand(1, 2), 5).to_dense().item() == 0


@pytest.mark.parametrize("bandwidth", [1.0, 0.5])
def test_graph_is_eq_14(points, bandwidth):
    d2, index = NearestNeighbors(n_neighbors=4).fit(points.numpy()).kneighbors()
    d2 = d2**2
    expected = np.zeros((40, 40))
    # torch's median is the lower of the two in the middle
    scale = bandwidth * np.sort(d2.ravel())[(d2.size - 1) // 2]
    np.put_along_axis(expected, index, np.exp(-d2 / scale), axis=1)
    graph = knn_graph(points, 4, bandwidth)
    assert graph.is_sparse
    assert np.allclose(graph.to_dense().numpy(), (expected + expected.T) / 2)


@pytest.mark.parametrize("normalized", [True, False])
def test_laplacian_is_scipys(points, normalized):
    graph = knn_graph(points, 4)
    expected = scipy_laplacian(graph.to_dense().numpy(), normed=normalized)
    assert np.allclose(laplacian(graph, normalized=normalized).to_dense().numpy(), expected)
    assert np.allclose(laplacian(graph.to_dense(), normalized=normalized).numpy(), expected)


def test_a_row_without_neighbours_has_no_nan():
    graph = torch.zeros(3, 3)
    graph[0, 1] = graph[1, 0] = 1.0
    graph.requires_grad_()
    lap = laplacian(graph)
    assert lap[2].abs().sum() == 0
    lap.sum().backward()
    assert graph.grad.isfinite().all()


def test_a_row_far_from_its_neighbours_has_finite_gradients():
    """exp(-d^2 / s) of such a row underflows, and the gradient of a degree like that overflows."""
    z = torch.cat([0.01 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.full((1, 3), 5.0)])
    z.requires_grad_()
    y = torch.randn(21, 2, generator=torch.Generator().manual_seed(1))
    lap = laplacian(knn_graph(z, 3))
    (y * multiply(lap, y)).sum().backward()
    assert z.grad.isfinite().all()


def test_neighbours_far_from_the_origin():
    points = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    far = (points + 1000.0).double()
    assert torch.equal(nearest_neighbors(far.float(), 3), nearest_neighbors(far.float().double(), 3))


@pytest.mark.parametrize("layout", ["csr", "uncoalesced"])
def test_products_of_other_sparse_layouts(points, layout):
    dense = knn_graph(points, 3).to_dense()
    if layout == "csr":
        graph = dense.to_sparse_csr()
    else:
        i, j = dense.nonzero(as_tuple=True)
        index = torch.stack([torch.cat([i, i]), torch.cat([j, j])])
        graph = torch.sparse_coo_tensor(index, torch.cat([dense[i, j], dense[i, j]]) / 2, dense.shape)
    y = torch.randn(40, 2, dtype=torch.float64)
    assert torch.allclose(multiply(graph, y), dense @ y)


def test_gradient_reaches_codes(points):
    """Through weights, normalisation and products; the choice of neighbours and the scale are constants."""
    scale = torch.ones((), dtype=torch.float64)
    y = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def smoothness(z):
        lap = laplacian(knn_graph(z, 3))
        return (y * multiply(lap, y)).sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralclust.functional.graph.distance_scale", lambda squared: scale)
        assert torch.autograd.gradcheck(smoothness, points.clone().requires_grad_(), eps=1e-7, atol=1e-5)


def test_product_has_the_dense_gradients(points):
    graph = knn_graph(points, 3)
    y = torch.randn(40, 3, dtype=torch.float64)
    weight = torch.randn(40, 3, dtype=torch.float64)
    results = []
    for matrix in (graph, graph.to_dense()):
        values = (matrix.values() if matrix.is_sparse else matrix).detach().requires_grad_()
        mine = torch.sparse_coo_tensor(graph.indices(), values, (40, 40)).coalesce() if matrix.is_sparse else values
        other = y.clone().requires_grad_()
        (multiply(mine, other) * weight).sum().backward()
        grad = values.grad if matrix.is_sparse else values.grad[tuple(graph.indices())]
        results.append((grad, other.grad))
    for sparse, dense in zip(*results, strict=True):
        assert torch.allclose(sparse, dense)


def test_a_large_graph_stays_sparse():
    """20,000 rows: a dense matrix of them, forward or backward, would be 1.6 GB."""
    n = 20_000
    i = torch.arange(n)
    index = torch.stack([torch.cat([i, (i + 1) % n]), torch.cat([(i + 1) % n, i])])
    values = torch.ones(2 * n, requires_grad=True)
    graph = torch.sparse_coo_tensor(index, values, (n, n)).coalesce()
    y = torch.rand(n, 2)
    with torch.profiler.profile(profile_memory=True) as profile:
        lap = laplacian(graph)
        (y * multiply(lap, y)).sum().backward()
    assert values.grad.shape == (2 * n,)
    assert max(abs(event.self_device_memory_usage or event.self_cpu_memory_usage) for event in profile.events()) < 1e8
