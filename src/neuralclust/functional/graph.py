"""Sparse graphs of rows: nearest neighbours, Laplacians, and what a stack of eigenvector layers is measured by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK = 2**22  # distances held at once


@torch.no_grad()
def nearest_neighbors(z: Tensor, n_neighbors: int, other: Tensor | None = None) -> Tensor:
    """Numbers of the nearest rows, nearest first, a chunk of rows at a time.

    Parameters
    ----------
    z : Tensor of shape (n, p)
        Rows.
    n_neighbors : int
        Neighbours of each; fewer where there are not as many.
    other : Tensor of shape (m, p), optional
        Where to look for them, near the origin: squares cancel far from it. None: among ``z``, without the row itself.

    Returns
    -------
    Tensor of shape (n, n_neighbors)

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import nearest_neighbors
    >>> nearest_neighbors(torch.tensor([[0.0], [1.0], [5.0]]), 1).ravel()
    tensor([1, 0, 1])
    """
    if other is None:
        z = z - z.mean(dim=0)  # far from the origin the squares below would cancel
    rows = z if other is None else other
    k = min(n_neighbors, len(rows) - (other is None))
    squares = rows.square().sum(dim=1)
    found = torch.empty(len(z), k, dtype=torch.long, device=z.device)
    step = max(1, _CHUNK // len(rows))
    room = z.new_empty(min(step, len(z)), len(rows))  # one for all chunks: a new one each leaves holes in memory
    for start in range(0, len(z), step):
        part = z[start : start + step]
        d = torch.addmm(squares, part, rows.T, alpha=-2, out=room[: len(part)])  # ranks as the distance does
        if other is None:
            i = torch.arange(len(part), device=z.device)
            d[i, start + i] = torch.inf
        found[start : start + step] = d.topk(k, dim=1, largest=False).indices
    return found


def knn_graph(z: Tensor, n_neighbors: int = 5, bandwidth: float = 1.0) -> Tensor:
    """Weights ``exp(-|z_i - z_j|^2 / s)`` of the nearest neighbours, symmetric.

    Source: Eq. 14 of "SSCNet: learning-based subspace clustering", where the index slips to ``z_i in KNN(z_i)``. The
    choice of neighbours and the scale have no gradient, the weights have.

    Parameters
    ----------
    z : Tensor of shape (n, p)
        Codes.
    n_neighbors : int, default=5
        Neighbours of a row, itself not counted; the paper has 3 to 6.
    bandwidth : float, default=1.0
        ``s``, in units of the median of the positive squared distances between neighbours.

    Returns
    -------
    sparse Tensor of shape (n, n)
        Coalesced, with a zero diagonal and at most ``2 n n_neighbors`` entries.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import knn_graph
    >>> knn_graph(torch.tensor([[0.0], [1.0], [3.0], [4.0]]), 1).to_dense().bool().int()
    tensor([[0, 1, 0, 0],
            [1, 0, 0, 0],
            [0, 0, 0, 1],
            [0, 0, 1, 0]], dtype=torch.int32)
    """
    i, j, squared = neighbor_edges(z, n_neighbors)
    return symmetric_graph(i, j, edge_weights(squared, bandwidth * distance_scale(squared)), len(z))


def neighbor_edges(z: Tensor, n_neighbors: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, their nearest neighbours, and the squared distances between them, each ``(n * n_neighbors,)``."""
    neighbors = nearest_neighbors(z.detach(), n_neighbors)
    i = torch.arange(len(z), device=z.device).repeat_interleave(neighbors.shape[1])
    # One neighbour of all rows after the other: the differences need n_neighbors times less memory.
    squared = [(z - z[near]).square().sum(dim=1) for near in neighbors.T]
    return i, neighbors.ravel(), torch.stack(squared, dim=1).ravel() if squared else z.new_empty(0)


def edge_weights(squared: Tensor, scale: Tensor) -> Tensor:
    """``exp(-d^2 / scale)``, at least 4e-18: gradients of a degree much below that overflow."""
    return (-squared / scale).clamp_min(-40).exp()


def distance_scale(squared: Tensor) -> Tensor:
    """Median of the positive squared distances; 1 if there are none."""
    positive = squared.detach()
    positive = positive[positive > 0]
    return positive.median() if len(positive) else squared.new_ones(())


def symmetric_graph(i: Tensor, j: Tensor, weight: Tensor, n: int) -> Tensor:
    """``(W + W^T) / 2`` of the weights from rows ``i`` to rows ``j``, as a coalesced sparse tensor."""
    index = torch.stack([torch.cat([i, j]), torch.cat([j, i])])
    return torch.sparse_coo_tensor(index, torch.cat([weight, weight]) / 2, (n, n), check_invariants=False).coalesce()


def degrees(graph: Tensor) -> Tensor:
    """Sum of each row ``(n,)``, dense."""
    if graph.layout == torch.strided:
        return graph.sum(dim=1)
    values, (i, _) = graph.values(), graph.indices()
    return values.new_zeros(len(graph)).index_add(0, i, values)


def laplacian(graph: Tensor, *, normalized: bool = True) -> Tensor:
    """Graph Laplacian ``I - D^-1/2 W D^-1/2``, with eigenvalues in [0, 2], or ``D - W``.

    Parameters
    ----------
    graph : Tensor of shape (n, n)
        Symmetric weights, sparse (coalesced) or dense.
    normalized : bool, default=True
        False: ``D - W``, as the paper of SSCNet has it; its largest eigenvalue grows with the weights.

    Returns
    -------
    Tensor of shape (n, n)
        Sparse if ``graph`` is.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import laplacian
    >>> laplacian(torch.tensor([[0.0, 4.0], [4.0, 0.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    d = degrees(graph)
    if normalized:
        half = torch.where(d > 0, d, 1).rsqrt() * (d > 0)
        diagonal = (d > 0).to(d.dtype)  # a row without neighbours has eigenvalue 0
    else:
        half, diagonal = torch.ones_like(d), d
    if graph.layout == torch.strided:
        return torch.diag(diagonal) - half[:, None] * graph * half
    i, j = graph.indices()
    own = torch.arange(len(d), device=d.device)
    index = torch.stack([torch.cat([own, i]), torch.cat([own, j])])
    values = torch.cat([diagonal, -half[i] * graph.values() * half[j]])
    return torch.sparse_coo_tensor(index, values, graph.shape, check_invariants=False).coalesce()


def multiply(graph: Tensor, y: Tensor) -> Tensor:
    """``graph @ y`` whose gradient towards a sparse graph is computed at its entries alone.

    torch's own forms the dense n x n gradient before it picks these.
    """
    if graph.layout == torch.strided:
        return graph @ y
    graph = graph if graph.layout == torch.sparse_coo else graph.to_sparse_coo()
    graph = graph.coalesce()
    return _SparseProduct.apply(graph.indices(), graph.values(), y)


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, index: Tensor, values: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(index, values, y)
        return _plain_product(index, values, y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        index, values, y = ctx.saved_tensors
        (grad,) = grads
        i, j = index
        for_values = (grad[i] * y[j]).sum(dim=1) if ctx.needs_input_grad[1] else None
        for_y = _plain_product(index.flip(0), values, grad) if ctx.needs_input_grad[2] else None
        return None, for_values, for_y


def _plain_product(index: Tensor, values: Tensor, y: Tensor) -> Tensor:
    graph = torch.sparse_coo_tensor(index, values, (len(y), len(y)), check_invariants=False)
    return torch.sparse.mm(graph, y)


def captured_fraction(y: Tensor, eigenvectors: Tensor) -> Tensor:
    """Share of an eigenspace that lies in the span of ``y``: ``|U^T Q|_F^2 / k`` for an orthonormal basis Q of ``y``.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import captured_fraction
    >>> u = torch.eye(4)[:, :2]
    >>> captured_fraction(u[:, [1, 0]], u), captured_fraction(torch.eye(4)[:, 1:3], u)
    (tensor(1.), tensor(0.5000))
    """
    q, _ = torch.linalg.qr(y)
    return (eigenvectors.T @ q).square().sum() / eigenvectors.shape[1]
