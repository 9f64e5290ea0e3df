"""Non-negative matrix factorisation whose coefficients vary slowly along a graph of neighbours."""

from __future__ import annotations

from functools import cached_property
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from scipy.special import rel_entr
from sklearn.base import _fit_context
from sklearn.preprocessing import normalize
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from neuralclust._warn import warn
from neuralclust.classical.base import RowClusterer
from neuralclust.functional.graph import knn_graph
from neuralclust.kmeans import fit_kmeans
from neuralclust.runtime import draw_seeds
from neuralclust.spectral import as_scipy

_TINY = 1e-100  # in place of a denominator of zero
_FLOOR = 1e-12  # least coefficient where rows have a mean sum of 1: logarithms stay finite
_SOLVER_STEPS = 10  # of conjugate gradients: more make an iteration longer and need as many of them
_NEW_ROW_STEPS = 100
_BLOCK = 2**17  # entries of X at a time: what is computed of them stays in the processor's cache


class _Smoother:
    """The graph's term of the objective, and the step of the coefficients that it allows."""

    def __init__(self, X: np.ndarray, n_neighbors: int, lam: float) -> None:
        n = len(X)
        graph = as_scipy(knn_graph(torch.tensor(X), n_neighbors)) if lam else sp.csr_array((n, n))
        self.W = lam * graph
        edges = self.W.tocoo()
        (self.i, self.j), self.weight = edges.coords, edges.data
        self.degree = self.W.sum(axis=1)[:, None]

    def roughness(self, V: np.ndarray) -> np.ndarray:
        """Symmetric divergence of neighbours for every column of ``V``, from differences: nothing cancels."""
        log_v = np.log(V)
        return self.weight @ ((V[self.i] - V[self.j]) * (log_v[self.i] - log_v[self.j])) / 2

    def step(self, V: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Lower ``sum_i v_i - target_i log v_i`` plus the roughness, column by column.

        Without a graph the minimum is ``target``, which the first step reaches. Newton's system for the relative step
        ``v' = v (1 + z)`` is ``diag(v)`` plus the Laplacian of the weights ``W_ij (v_i + v_j)``: positive definite, so
        conjugate gradients descend wherever they are stopped, and well scaled for coefficients of any size.
        """
        WV, log_v = self.W @ V, np.log(V)
        row = self.degree * V + WV
        diagonal = V + row
        rest = target - V - V * (self.degree * log_v - self.W @ log_v) - self.degree * V + WV  # minus v times gradient
        z = np.zeros_like(V)
        p = scaled = rest / diagonal
        rho = (rest * scaled).sum(axis=0)
        for _ in range(_SOLVER_STEPS):
            Ap = diagonal * p - V * (self.W @ p) - self.W @ (V * p)
            a = rho / np.maximum((p * Ap).sum(axis=0), _TINY)
            z, rest = z + a * p, rest - a * Ap
            scaled = rest / diagonal
            old, rho = rho, (rest * scaled).sum(axis=0)
            p = scaled + rho / np.maximum(old, _TINY) * p

        def value(v: np.ndarray, of: np.ndarray) -> np.ndarray:
            return v.sum(axis=0) - (target[:, of] * np.log(v)).sum(axis=0) + self.roughness(v)

        V = V.copy()
        left = np.arange(V.shape[1])  # columns still to be moved
        before, length = value(V, left), 1.0
        while len(left) and length > 1e-9:
            moved = np.maximum(V[:, left] * np.maximum(1 + length * z[:, left], 0.1), _FLOOR)
            lower = value(moved, left) <= before[left]
            V[:, left[lower]] = moved[:, lower]
            left, length = left[~lower], length / 2
        return V


def _directions(V: np.ndarray) -> np.ndarray:
    """Rows of unit length, rounded: k-means would make clusters of the rounding errors of equal rows."""
    return normalize(V).round(6)


class _Parts:
    """``X`` against ``V U``, a block of rows after the other."""

    def __init__(self, X: np.ndarray) -> None:
        size = max(1, _BLOCK // X.shape[1])
        self.X = X
        self.blocks = [(slice(i, i + size), X[i : i + size]) for i in range(0, len(X), size)]

    def rows(self, V: np.ndarray, U: np.ndarray) -> np.ndarray:
        """``(X / V U) U^T``: by what plain NMF multiplies ``V`` where rows of ``U`` sum to 1."""
        return np.concatenate([(x / np.maximum(V[b] @ U, _TINY)) @ U.T for b, x in self.blocks])

    def columns(self, V: np.ndarray, U: np.ndarray) -> np.ndarray:
        """``V^T (X / V U)``."""
        return sum(V[b].T @ (x / np.maximum(V[b] @ U, _TINY)) for b, x in self.blocks)

    @cached_property
    def constant(self) -> float:
        return float(rel_entr(self.X, 1).sum() - self.X.sum())

    def rows_and_divergence(self, V: np.ndarray, U: np.ndarray) -> tuple[np.ndarray, float]:
        """The rows, and ``KL(X || V U)``, of numbers that need not sum to 1."""
        found, fit = [], 0.0
        for b, x in self.blocks:
            product = np.maximum(V[b] @ U, _TINY)
            found.append((x / product) @ U.T)
            fit += np.vdot(x, torch.from_numpy(product).log_().numpy())  # several times as fast as NumPy's
        return np.concatenate(found), float(self.constant - fit + V.sum(axis=0) @ U.sum(axis=1))


class LocalityPreservingNMF(RowClusterer):
    """Locality preserving NMF (LPNMF): parts that near rows share, and k-means on how much of each a row has.

    ``X ~ V U`` with non-negative factors that minimise the divergence ``KL(X || V U)`` plus
    ``lam / 2 sum_ij W_ij sum_k (v_ik - v_jk) (log v_ik - log v_jk)``, the symmetric divergence between the
    coefficients of neighbours. k-means then clusters the rows of ``V``, scaled to unit length.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    n_components : int, default=None
        Rows of ``U``. None: ``n_clusters``.
    lam : float, default=10.0
        Weight of the graph; it has no unit. 0 is plain NMF.
    n_neighbors : int, default=5
        Neighbours of a row in the graph.
    max_iter : int, default=200
        Most iterations.
    tol : float, default=1e-4
        The end is an iteration that lowers the objective by at most this share of it.
    n_init : int, default=10
        Starts of k-means. The factorisation has one: others end within a few per cent of its objective.
    random_state : int, RandomState or None, default=None
        Seed of both. The global random states are never touched.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of every training row. **Not** what ``predict`` gives for them: it has no graph.
    components_ : ndarray of shape (n_components, n_features)
        ``U``. Rows sum to 1.
    coefficients_ : ndarray of shape (n_samples, n_components)
        ``V``, in units of the features, positive.
    objective_ : float
        Divergence plus ``lam`` times the graph's term, in units of the features.
    n_iter_ : int
        Iterations.
    n_features_in_ : int
        Features of a row.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if ``X`` was a data frame.

    Notes
    -----
    Three things differ from the paper. Rows of ``U`` sum to 1: with free scales, large parts and small coefficients
    make the graph's term vanish. The paper's update of ``V`` solves a system with the graph's Laplacian that replaces
    ``log(v_i / v_j)`` by ``1 - v_j / v_i``; here the logarithm stays, the system has the curvature of the true term,
    and a step that would not lower the objective is halved, so the objective never increases. Weights are
    ``exp(-d^2 / s)``, with the median of the neighbours' squared distances as ``s``.

    With ``lam=0`` the iterations are the multiplicative updates of NMF, but that coefficients fall tenfold at most.
    Memory is two arrays of the size of ``X``, and with a graph three or four.

    References
    ----------
    D. Cai, X. He, X. Wang, H. Bao, J. Han: "Locality Preserving Nonnegative Matrix Factorization", IJCAI 2009.

    Examples
    --------
    >>> from neuralclust.classical.nmf import LocalityPreservingNMF
    >>> X = [[4.0, 0.0], [3.0, 0.1], [0.0, 2.0], [0.1, 3.0]]
    >>> labels = LocalityPreservingNMF(2, n_neighbors=1, random_state=0).fit_predict(X)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "lam": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_components: int | None = None,
        lam: float = 10.0,
        n_neighbors: int = 5,
        max_iter: int = 200,
        tol: float = 1e-4,
        n_init: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_components = n_components
        self.lam = lam
        self.n_neighbors = n_neighbors
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Cluster the rows of ``X``, ``(n_samples, n_features)`` and non-negative; ``y`` is ignored.

        Returns
        -------
        self
        """
        X = self._nonnegative(X, reset=True)
        seed, kmeans_seed = draw_seeds(self.random_state, 2)
        smoother = _Smoother(X, self.n_neighbors, self.lam)
        unit = X.sum() / len(X) or 1.0
        X = X / unit
        rng = np.random.default_rng(seed)
        k = self.n_components or self.n_clusters
        U = rng.uniform(0.1, 1.1, (k, X.shape[1]))
        U /= U.sum(axis=1, keepdims=True)
        V = np.tile(np.maximum(X.sum(axis=1, keepdims=True), 1.0) / k, k)  # large: coefficients fall faster than rise
        parts, last = _Parts(X), np.inf
        pull = parts.rows(V, U)
        for n_iter in range(1, self.max_iter + 1):
            self.n_iter_ = n_iter
            V = smoother.step(V, V * pull)
            new = U * parts.columns(V, U)
            total = new.sum(axis=1, keepdims=True)
            U = np.where(total > 0, new / np.maximum(total, _TINY), U)  # a part of nothing but zero rows stays
            pull, divergence = parts.rows_and_divergence(V, U)
            objective = divergence + smoother.roughness(V).sum()
            if last - objective <= self.tol * abs(objective):
                break
            last = objective
        self.components_, self.coefficients_, self.objective_ = U, V * unit, float(objective * unit)
        kmeans = fit_kmeans(_directions(V), self.n_clusters, n_init=self.n_init, seed=kmeans_seed)
        self._kmeans, self.labels_ = kmeans, kmeans.labels_.astype(np.int64)
        found = len(np.unique(self.labels_))
        if found < self.n_clusters:
            warn(
                f"Only {found} of n_clusters={self.n_clusters} clusters have rows: not more rows have coefficients of "
                f"their own. Ask for fewer clusters or lower lam (now {self.lam}).",
            )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Cluster of every row: its coefficients for ``components_``, without a graph, and the nearest centre.

        Training rows near a border can get another cluster than in ``labels_``, where neighbours had a say.

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        check_is_fitted(self)
        X, U = self._nonnegative(X), self.components_
        V, parts = np.tile(X.sum(axis=1, keepdims=True) / len(U), len(U)), _Parts(X)
        for _ in range(_NEW_ROW_STEPS):  # as many for every row: it does not depend on the rows that come with it
            V = V * parts.rows(V, U)
        return self._kmeans.predict(_directions(V)).astype(np.int64)

    def _nonnegative(self, X: Any, *, reset: bool = False) -> np.ndarray:
        X = self._rows(X, reset=reset).astype(np.float64, copy=False)
        if X.min() < 0:
            raise ValueError(
                f"Negative values in data passed to {type(self).__name__}: the smallest is {X.min():.3g}, but parts "
                f"only add up, so every value must be >= 0. Shift or scale the features, as MinMaxScaler does."
            )
        return X
