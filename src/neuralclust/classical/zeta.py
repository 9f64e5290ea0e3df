"""Agglomerative clustering by the cycles that two clusters of a graph of neighbours close between them."""

from __future__ import annotations

import heapq
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from scipy.cluster.hierarchy import linkage
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import cdist, squareform
from scipy.special import softmax
from sklearn.base import _fit_context
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from neuralclust.classical.base import RowClusterer
from neuralclust.classical.linkage import cut
from neuralclust.functional.graph import nearest_neighbors


class _Merger:
    """Clusters of a weighted digraph, each with its matrix ``(I - z P_C)^-1``."""

    def __init__(self, P: np.ndarray, z: float, owner: np.ndarray, neighbors: np.ndarray) -> None:
        self.P, self.z, self.owner, self.neighbors = P, z, owner, neighbors
        self.rows = {int(c): np.flatnonzero(owner == c) for c in np.unique(owner)}
        self.inverse = {c: np.linalg.inv(np.eye(len(r)) - z * P[np.ix_(r, r)]) for c, r in self.rows.items()}
        self.next = len(P)  # numbers of merged clusters are new: what was queued for the old ones is seen to be stale

    def merge(self, n_clusters: int) -> np.ndarray:
        """Join the two clusters of the largest gain until so many are left, or no two share a cycle."""
        queue: list[tuple[float, int, int]] = []
        for c in list(self.rows):
            self._enqueue(queue, c, [d for d in self._reached(c) if d > c])
        while queue and len(self.rows) > n_clusters:
            _, a, b = heapq.heappop(queue)
            if a in self.rows and b in self.rows:
                c = self._join(a, b)
                self._enqueue(queue, c, self._reached(c))
        return self.owner

    def gain(self, a: int, b: int) -> float:
        """Sum of the rises in popularity that the clusters owe to the cycles through both."""
        a, b = sorted((a, b), key=lambda c: -len(self.rows[c]))
        out, back = self._between(a, b)
        if not (out.any() and back.any()):
            return 0.0  # a cycle needs both
        left, inner, right = self._blocks(a, b, out, back)
        of_a = np.log1p(((left @ inner) * right.T).sum(axis=1) / self.inverse[a].diagonal()).mean()
        if of_a == 0:
            return 0.0  # rounding aside, so is the other
        return float(of_a + np.log(inner.diagonal() / self.inverse[b].diagonal()).mean())

    def _reached(self, c: int) -> list[int]:
        return [d for d in np.unique(self.owner[self.neighbors[self.rows[c]]]).tolist() if d != c]

    def _enqueue(self, queue: list[tuple[float, int, int]], c: int, others: list[int]) -> None:
        for d in others:
            gain = self.gain(c, d)
            if gain > 0:
                heapq.heappush(queue, (-gain, min(c, d), max(c, d)))

    def _between(self, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        rows_a, rows_b = self.rows[a], self.rows[b]
        return self.P[np.ix_(rows_a, rows_b)], self.P[np.ix_(rows_b, rows_a)]

    def _blocks(self, a: int, b: int, out: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parts of the inverse of the union. Only the smaller cluster's block, b, is inverted."""
        rows, inverse = self.rows[b], self.inverse[a]
        leave, enter = out.any(axis=1), back.any(axis=0)  # of a large cluster, few rows have an edge to the other
        left = self.z * inverse[:, leave] @ out[leave]
        right = self.z * back[:, enter] @ inverse[enter]
        inner = np.linalg.inv(np.eye(len(rows)) - self.z * (self.P[np.ix_(rows, rows)] + back @ left))
        return left, inner, right

    def _join(self, a: int, b: int) -> int:
        a, b = sorted((a, b), key=lambda c: -len(self.rows[c]))
        left, inner, right = self._blocks(a, b, *self._between(a, b))
        corner = left @ inner
        inverse = np.block([[self.inverse.pop(a) + corner @ right, corner], [inner @ right, inner]])
        del self.inverse[b]
        c, self.next = self.next, self.next + 1
        self.rows[c] = np.concatenate([self.rows.pop(a), self.rows.pop(b)])
        self.inverse[c] = inverse
        self.owner[self.rows[c]] = c
        return c


def _chains(nearest: np.ndarray, d2: np.ndarray, at_least: int) -> np.ndarray:
    """Rows linked to their nearest neighbours, the shortest links first, while so many clusters are left."""
    n = len(nearest)
    rank = np.empty(n)
    rank[np.argsort(d2, kind="stable")] = np.arange(1, n + 1)  # a length of 0 would be no link
    links = minimum_spanning_tree(sp.coo_array((rank, (np.arange(n), nearest)), shape=(n, n)).tocsr()).tocoo()
    kept = np.argsort(links.data)[: n - at_least]
    i, j = links.coords[0][kept], links.coords[1][kept]
    chains = sp.coo_array((np.ones(len(i)), (i, j)), shape=(n, n))
    return connected_components(chains, directed=False)[1].astype(np.int64)


def _join_nearest(X: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Single linkage of clusters, for those without an edge between them."""
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    gaps = np.zeros((len(groups), len(groups)))
    for i, own in enumerate(groups):
        for j in range(i):
            gaps[i, j] = gaps[j, i] = cdist(X[own], X[groups[j]]).min()
    return cut(linkage(squareform(gaps), method="single"), n_clusters)[np.unique(labels, return_inverse=True)[1]]


class ZetaClustering(RowClusterer):
    """Zeta merging: clusters are joined where that closes the most cycles in a graph of neighbours.

    From every row, edges lead to its nearest neighbours, with weights ``exp(-d^2 / s)`` scaled to a sum of 1: the
    matrix ``P``. The zeta function of a cluster C counts its cycles of all lengths m,
    ``ln zeta = sum_m z^m tr(P_C^m) / m``, which is ``-ln det(I - z P_C)``. A row's popularity is what leaving it out
    takes from that: the logarithm of its diagonal entry of ``(I - z P_C)^-1``. Small clusters of nearest neighbours are
    merged, always the two whose rows gain the most popularity: the mean over the one plus the mean over the other.
    Nothing in it is random.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters, of which there are exactly as many.
    n_neighbors : int, default=20
        Neighbours of a row. With too few, clusters of two or three rows stay alone.
    a : float, default=0.95
        Weight before scaling, between 0 and 1, of an edge as long as the root mean square distance to the three nearest
        neighbours.
    z : float, default=0.01
        What one more edge multiplies a cycle's weight by, between 0 and 1.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of every row, 0 to ``n_clusters - 1``.
    n_features_in_ : int
        Features of a row.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if ``X`` was a data frame.

    Notes
    -----
    The first clusters chain each row to its nearest neighbour; where that leaves fewer than ``n_clusters``, the longest
    links are left out. Once no two clusters share a cycle, those with the nearest rows are joined (single linkage).
    Both are this library's.

    Memory is at most about 20 n^2 bytes, ``P`` and the inverses of all clusters: 80 MB for 2,000 rows. Those take about
    one second with clusters and ten without any. A merger updates the gains of its own pairs only, and of two clusters
    only the smaller is inverted.

    References
    ----------
    D. Zhao, X. Tang: "Cyclizing Clusters via Zeta Function of a Graph", Advances in Neural Information Processing
    Systems 21, 2008.

    Examples
    --------
    >>> from neuralclust.classical.zeta import ZetaClustering
    >>> labels = ZetaClustering(2, n_neighbors=2).fit_predict([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> labels.tolist()
    [0, 0, 0, 1, 1, 1]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "a": [Interval(Real, 0, 1, closed="neither")],
        "z": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(self, n_clusters: int = 8, *, n_neighbors: int = 20, a: float = 0.95, z: float = 0.01) -> None:
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors
        self.a = a
        self.z = z

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Cluster the rows of ``X``, ``(n_samples, n_features)``; ``y`` is ignored.

        Returns
        -------
        self
        """
        X = self._rows(X, reset=True).astype(np.float64, copy=False)
        self._origin = X.mean(axis=0)
        self._train = X = X - self._origin  # squared distances keep their digits near the origin
        self._require_squares(X)
        n = len(X)
        neighbors = nearest_neighbors(torch.from_numpy(X), self.n_neighbors).numpy()
        labels = np.arange(n)
        if n > 1:
            d2 = np.stack([((X - X[j]) ** 2).sum(axis=1) for j in neighbors.T], axis=1)
            scale = d2[:, :3].mean() / -np.log(self.a) or 1.0
            P = np.zeros((n, n))
            P[np.arange(n)[:, None], neighbors] = softmax(-d2 / scale, axis=1)  # outliers' weights alone would be 0
            owner = _chains(neighbors[:, 0], d2[:, 0], self.n_clusters)
            labels = _Merger(P, self.z, owner, neighbors).merge(self.n_clusters)
            if len(np.unique(labels)) > self.n_clusters:
                labels = _join_nearest(X, labels, self.n_clusters)
        self.labels_ = np.unique(labels, return_inverse=True)[1]
        self._warn_of_copies(X)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Cluster of the nearest training row; the merging itself has no rule for new ones.

        Returns
        -------
        ndarray of int64, shape (n_samples,)
            For training rows ``labels_``, but where two rows are equal and their clusters are not.
        """
        check_is_fitted(self)
        return self.labels_[pairwise_distances_argmin(self._rows(X) - self._origin, self._train)]
