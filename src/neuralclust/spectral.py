"""Spectral partition of a graph: k-means on eigenvectors, the partition with the smallest balanced cut."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, lobpcg, spilu
from sklearn.preprocessing import normalize
from sklearn.utils import check_array
from torch import Tensor

from neuralclust._warn import warn
from neuralclust.functional.graph import knn_graph
from neuralclust.kmeans import fit_kmeans, initial_centers

_DENSE = 500  # rows up to which all eigenvectors are computed at once
_TOL = 1e-5  # of eigenvectors
_PATIENCE = 10  # starts without a smaller cut
_NEIGHBORS = 10
GRAPH_ROWS = 10_000  # rows of a graph that gives first clusters
_MOST_CLUSTERS = 50  # beyond, their eigenvectors take longer than the training
_SPARE = 2.0  # eigenvectors looked at, per cluster


def smallest_eigenvectors(graph: Any, n_components: int, seed: int = 0) -> np.ndarray:
    """Eigenvectors of the normalised Laplacian with the smallest eigenvalues, smallest first.

    Parameters
    ----------
    graph : sparse matrix or ndarray of shape (n, n)
        Symmetric weights. A sparse one of more than 500 rows, and five for each eigenvector, is never made dense.
    n_components : int
        How many.
    seed : int, default=0
        Of the start vector.

    Returns
    -------
    ndarray of shape (n, n_components)

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.spectral import smallest_eigenvectors
    >>> smallest_eigenvectors(np.kron(np.eye(2), np.ones((3, 3))), 2).shape
    (6, 2)
    """
    n = graph.shape[0]
    degree = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    half = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, np.finfo(np.float64).tiny)), 0.0)
    if all_at_once(n, n_components):
        dense = graph.toarray() if sp.issparse(graph) else np.asarray(graph, dtype=np.float64)
        return leading_eigenvectors(half[:, None] * dense * half, n_components)
    scaled = sp.diags_array(half) @ graph @ sp.diags_array(half) if sp.issparse(graph) else half[:, None] * graph * half
    return leading_eigenvectors(scaled, n_components, seed)


def all_at_once(n: int, n_components: int) -> bool:
    """Whether so many eigenvectors of so many rows are best had from a dense matrix."""
    return n <= _DENSE or 5 * n_components >= n


def leading_eigenvectors(operator: Any, n_components: int, seed: int = 0, graph: Any = None) -> np.ndarray:
    """Eigenvectors of a symmetric matrix with the largest eigenvalues, largest first; by LOBPCG if it is large.

    Small ones, by :func:`all_at_once`, are dense arrays. ``graph``, a sparse part of the matrix, of eigenvalues up to 1
    (None: the matrix itself, if it is sparse), helps where many eigenvalues nearly meet, as along rings and spirals.
    """
    n = operator.shape[0]
    if all_at_once(n, n_components):
        try:
            found = eigh(operator, subset_by_index=[n - n_components, n - 1])[1]
        except np.linalg.LinAlgError:  # LAPACK's fast driver at times fails on a repeated eigenvalue
            found = eigh(operator, driver="evd")[1][:, n - n_components :]
        return found[:, ::-1].copy()
    # All at once: separate parts share an eigenvalue, of which a method that finds one after the other misses some.
    start = np.random.default_rng(seed).standard_normal((n, n_components))
    values, vectors = _lobpcg(operator, start, _TOL)
    if not _told_apart(operator, values, vectors):
        inverse = _nearly_inverse(operator if graph is None else graph)
        values, vectors = _lobpcg(operator, vectors, _TOL if inverse is None else 1e-8, inverse)
        if not _told_apart(operator, values, vectors):
            warn(
                f"The first {n_components} eigenvectors of a graph of {n} rows are not accurate, as their eigenvalues "
                f"are too close to one another. Clusters may be cut elsewhere."
            )
    return vectors


def _lobpcg(operator: Any, start: np.ndarray, tol: float, inverse: Any = None) -> tuple[np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # near enough for k-means, if not to the last digit
        return lobpcg(operator, start, M=inverse, largest=True, tol=tol, maxiter=200)


def _told_apart(operator: Any, values: np.ndarray, vectors: np.ndarray) -> bool:
    """Whether what is left of each eigenvector's equation is small beside its distance to the largest eigenvalue."""
    left = np.linalg.norm(operator @ vectors - vectors * values, axis=0)
    return bool((left <= np.maximum(2 * _TOL, 0.1 * (values.max() - values))).all())


def _nearly_inverse(graph: Any) -> LinearOperator | None:
    """Incomplete symmetric factors of a graph's Laplacian, a little above singular, of up to ten times its entries."""
    if not sp.issparse(graph):
        return None
    n = graph.shape[0]
    above = sp.csc_array((1 + _TOL) * sp.eye_array(n) - graph)
    symmetric = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    try:
        solve = spilu(above, drop_tol=1e-5, fill_factor=10, **symmetric).solve
    except RuntimeError:  # a pivot of 0
        return None
    return LinearOperator((n, n), matvec=solve, matmat=solve, dtype=np.float64)


def normalized_cut(graph: Any, labels: np.ndarray, n_clusters: int) -> float:
    """Sum over clusters of the weight that leaves it, as a share of all weight at its rows.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.spectral import normalized_cut
    >>> graph = np.array([[0.0, 3.0, 1.0], [3.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    >>> round(normalized_cut(graph, np.array([0, 0, 1]), 2), 3)
    1.143
    """
    return _normalized_cuts(graph, [labels], n_clusters)[0]


def _normalized_cuts(graph: Any, partitions: Sequence[np.ndarray], n_clusters: int) -> list[float]:
    """:func:`normalized_cut` of several partitions of one graph; a dense one is read once for all of them."""
    if sp.issparse(graph):
        edges = sp.coo_array(graph)
        return [_sparse_cut(edges, labels, n_clusters) for labels in partitions]
    counts = np.result_type(graph.dtype, np.float32)  # sums of small integers overflow in their own dtype
    members = np.concatenate([np.eye(n_clusters, dtype=counts)[labels] for labels in partitions], axis=1)
    weights = (graph @ members).reshape(len(graph), len(partitions), n_clusters)  # of each row to each cluster
    cuts = []
    for weight, labels in zip(weights.swapaxes(0, 1), partitions, strict=True):
        within = np.bincount(labels, weight[np.arange(len(labels)), labels], n_clusters)
        volume = np.bincount(labels, weight.sum(axis=1), n_clusters)
        cuts.append(_cut(within, volume))
    return cuts


def _sparse_cut(edges: sp.coo_array, labels: np.ndarray, n_clusters: int) -> float:
    i, j = labels[edges.coords[0]], labels[edges.coords[1]]  # clusters of the two ends
    within = np.bincount(i[i == j], edges.data[i == j], n_clusters)
    return _cut(within, np.bincount(i, edges.data, n_clusters))


def _cut(within: np.ndarray, volume: np.ndarray) -> float:
    return float(len(volume) - (within / np.maximum(volume, 1e-300)).sum())


def balanced_cut(graph: Any, labels: np.ndarray, n_clusters: int, balance: float = 0.05) -> float:
    """Normalised cut plus ``balance`` times the logarithm of how much smaller than the mean the smallest cluster is.

    A handful of rows that have only one another as neighbours are the cheapest cluster there is: the cut alone would
    give them one and merge two large clusters for it.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.spectral import balanced_cut
    >>> round(balanced_cut(np.eye(4), np.array([0, 0, 0, 1]), 2), 3)  # half of the mean
    0.035
    """
    return _balanced_cuts(graph, [labels], n_clusters, balance)[0]


def _balanced_cuts(graph: Any, partitions: Sequence[np.ndarray], n_clusters: int, balance: float) -> list[float]:
    smallest = [max(np.bincount(labels, minlength=n_clusters).min(), 0.5) for labels in partitions]
    cuts = _normalized_cuts(graph, partitions, n_clusters)
    mean = graph.shape[0] / n_clusters
    return [cut + balance * float(np.log(mean / size)) for cut, size in zip(cuts, smallest, strict=True)]


def spectral_partition(
    graph: Any, n_clusters: int, *, n_init: int = 50, balance: float = 0.05, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of a graph's rows, and the eigenvectors that tell them apart.

    k-means on the rows of the first q eigenvectors, scaled to unit length, for several q from ``n_clusters`` to twice
    as many and ``n_init`` starts each. The partition with the smallest :func:`balanced_cut` is kept; the normalised cut
    in it is what the eigenvectors are a relaxation of, and inertia cannot compare different q. (With
    q = ``n_clusters`` alone, two close clusters are often merged and a large one is cut: what tells the close ones
    apart is in the next eigenvectors.)

    Parameters
    ----------
    graph : sparse matrix or ndarray of shape (n, n)
        Symmetric weights.
    n_clusters : int
        Number of clusters.
    n_init : int, default=50
        Starts of k-means for each q at most; ten in a row that find nothing better are the last.
    balance : float, default=0.05
        How much a small cluster costs; 0: the normalised cut alone.
    seed : int, default=0
        Random seed.

    Returns
    -------
    labels : ndarray of shape (n,)
    eigenvectors : ndarray of shape (n, q)
        Of the normalised Laplacian, orthonormal columns.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.spectral import spectral_partition
    >>> labels, _ = spectral_partition(np.kron(np.eye(2), np.ones((3, 3))), 2)
    >>> bool(labels[0] == labels[2] != labels[3] == labels[5])
    True
    """
    n = graph.shape[0]
    most = min(n, int(_SPARE * n_clusters))
    vectors = smallest_eigenvectors(graph, most, seed)
    counts = np.unique(np.linspace(min(n_clusters, most), most, 12).round().astype(int))
    rows = {q: normalize(vectors[:, :q]) for q in counts}
    best: tuple[float, np.ndarray, int] = np.inf, np.zeros(n, dtype=np.int64), counts[0]
    found = 0
    for start in range(n_init):
        partitions = [fit_kmeans(rows[q], n_clusters, n_init=1, seed=seed + start).labels_ for q in counts]
        cuts = _balanced_cuts(graph, partitions, n_clusters, balance)
        for q, labels, cut in zip(counts, partitions, cuts, strict=True):
            if cut < best[0] - 1e-9:
                best, found = (cut, labels, q), start
        if start - found >= _PATIENCE:
            break
    return best[1].astype(np.int64), vectors[:, : best[2]]


def as_scipy(graph: Tensor) -> sp.csr_array:
    """A sparse graph as scipy's routines want it, in float64."""
    graph = graph.coalesce()
    values = graph.values().double().cpu().numpy()
    return sp.csr_array((values, tuple(graph.indices().cpu().numpy())), shape=tuple(graph.shape))


def spectral_centers(z: np.ndarray, n_clusters: int, *, n_neighbors: int = _NEIGHBORS, seed: int = 0) -> np.ndarray:
    """Mean codes of the clusters of the codes' nearest-neighbour graph, of at most 10,000 rows.

    k-means wants round clusters of one size; codes of an autoencoder lie along curved sheets, of which it merges some
    and cuts others.

    Parameters
    ----------
    z : ndarray of shape (n, p)
        Codes, at least ``n_clusters`` of them.
    n_clusters : int
        Number of centres.
    n_neighbors : int, default=10
        Of each row in the graph.
    seed : int, default=0
        Random seed.

    Returns
    -------
    ndarray of shape (n_clusters, p)
        k-means' centres for more than 50 clusters, and where the graph has fewer, as with duplicate rows.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.spectral import spectral_centers
    >>> z = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
    >>> z[20:] += 10
    >>> bool(np.abs(np.diff(spectral_centers(z, 2), axis=0)).min() > 8)
    True
    """
    rows = np.random.default_rng(seed).permutation(len(z))[:GRAPH_ROWS]
    some = z[np.sort(rows)]
    labels = neighbor_partition(some, n_clusters, n_neighbors=n_neighbors, seed=seed)
    if labels is not None:
        return np.stack([some[labels == j].mean(axis=0) for j in range(n_clusters)])
    return initial_centers(z, n_clusters, "k-means", n_init=10, seed=seed)


def neighbor_partition(z: np.ndarray, n_clusters: int, *, n_neighbors: int, seed: int) -> np.ndarray | None:
    """Clusters ``(n,)`` of the nearest-neighbour graph of some thousands of rows ``(n, p)``.

    None if there are more than 50 to find, or fewer are found, as with duplicate rows.
    """
    if not 1 < n_clusters < min(len(z), 1 + _MOST_CLUSTERS):
        return None
    graph = as_scipy(knn_graph(torch.from_numpy(z), min(n_neighbors, len(z) - 1)))
    labels, _ = spectral_partition(graph, n_clusters, seed=seed)
    found, first = np.unique(labels, return_index=True)
    if len(found) < n_clusters:
        return None
    # In the order of their first rows: that of k-means hangs on the last digits of the eigenvectors.
    return first.argsort().argsort()[labels]


def first_centers(z: np.ndarray, n_clusters: int, init: str | np.ndarray, *, seed: int) -> np.ndarray:
    """Centres ``(k, p)`` that training starts from: given ones, :func:`spectral_centers`, or ``initial_centers``."""
    if not isinstance(init, np.ndarray):
        if init == "spectral":
            return spectral_centers(z, n_clusters, seed=seed)
        return initial_centers(z, n_clusters, init, n_init=10, seed=seed)
    expected = (n_clusters, z.shape[1])
    centers = check_array(init, dtype=np.float32, ensure_2d=False, input_name="init")
    if centers.shape != expected:
        raise ValueError(
            f"init has shape {centers.shape}; {expected} is needed: a centre for each cluster, in the space of the "
            f"codes."
        )
    return centers
