"""Fuzzy c-means: k-means whose rows belong to every cluster to some degree."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from scipy.spatial.distance import cdist, pdist
from scipy.special import log_softmax, softmax
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.cluster import kmeans_plusplus
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from neuralclust._warn import warn
from neuralclust.classical.base import RowClusterer
from neuralclust.runtime import draw_seeds

_CANCELLED = 1e-6  # a squared distance below this share of the squared lengths has lost too many digits
_COINCIDE = 1e-2  # distance between two centres, as a share of the rows' spread, below which they are one


def _squared_distances(X: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared distances ``(n, k)`` in float64, zero where a row is at a centre, however far the origin is."""
    origin = centers.mean(axis=0, dtype=np.float64)
    X, centers = X - origin, centers - origin
    squares = np.einsum("ij,ij->i", X, X)[:, None] + np.einsum("ij,ij->i", centers, centers)
    d2 = squares - 2 * X @ centers.T
    for j, close in enumerate((d2 <= _CANCELLED * squares).T):
        if close.any():
            d2[close, j] = cdist(X[close], centers[j : j + 1], "sqeuclidean")[:, 0]
    return d2


def _log_memberships(d2: np.ndarray, fuzziness: float) -> np.ndarray:
    """Logarithms of the memberships: the power ``-1 / (m - 1)`` of a distance overflows for m near 1."""
    with np.errstate(divide="ignore"):
        logits = np.log(d2) / (1 - fuzziness)
    at = d2 == 0
    logits = np.where(at.any(axis=1, keepdims=True), np.where(at, 0.0, -np.inf), logits)
    return log_softmax(logits, axis=1)


class FuzzyCMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, RowClusterer):
    """Fuzzy c-means (FCM): centres that are means of all rows, weighted by memberships.

    A row's membership in a cluster falls with its distance ``d_ij`` to the centre,
    ``u_ij = 1 / sum_l (d_ij / d_il)^(2 / (m - 1))``, and a centre is the mean of the rows with weights ``u_ij^m``. The
    two alternate, and each lowers ``sum_ij u_ij^m d_ij^2``. For m near 1 this is k-means.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    fuzziness : float, default=2.0
        Exponent m, above 1. The usual 2 suits a handful of features; with many, see Notes.
    max_iter : int, default=300
        Most rounds of a run.
    tol : float, default=1e-4
        A run ends when no membership changes by more than this.
    n_init : int, default=1
        Runs from different starts; the one with the smallest objective is kept.
    random_state : int, RandomState or None, default=None
        Seed of the starts, which are those of k-means++. The global random states are never touched.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of every training row, as ``predict`` gives it.
    cluster_centers_ : ndarray of float64, shape (n_clusters, n_features)
        Centres.
    objective_ : float
        ``sum_ij u_ij^m d_ij^2`` of the training rows, in squared units of the features.
    n_iter_ : int
        Rounds of the run that was kept; ``max_iter`` if it was cut off.
    n_features_in_ : int
        Features of a row.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if ``X`` was a data frame.

    Notes
    -----
    A row that lies at a centre, or at several, belongs to these alone, in equal shares.

    With many features all distances are alike, memberships with m = 2 are too, and the centres run together in the mean
    of the rows. A ``ConvergenceWarning`` says so; a fuzziness of 1.1 to 1.3 keeps them apart. On scikit-learn's digits
    (64 features) 2 and 1.5 collapse.

    Memory beyond the rows is a few arrays of n x k and two copies of the rows in float64.

    References
    ----------
    J. C. Bezdek: "Pattern Recognition with Fuzzy Objective Function Algorithms", Plenum Press, 1981.

    Examples
    --------
    >>> from neuralclust.classical.fuzzy import FuzzyCMeans
    >>> model = FuzzyCMeans(2, random_state=0).fit([[0.0], [0.2], [5.0], [5.2]])
    >>> sorted(model.cluster_centers_.ravel().round(1).tolist())
    [0.1, 5.1]
    >>> model.predict_proba([[2.6]]).round(2)
    array([[0.5, 0.5]])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "fuzziness": [Interval(Real, 1, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        fuzziness: float = 2.0,
        max_iter: int = 300,
        tol: float = 1e-4,
        n_init: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.fuzziness = fuzziness
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Cluster the rows of ``X``, ``(n_samples, n_features)``; ``y`` is ignored.

        Returns
        -------
        self
        """
        X = self._rows(X, reset=True)
        mean = X.mean(axis=0, dtype=np.float64)
        rows = X - mean
        self._require_squares(rows)
        self.objective_ = np.inf
        for seed in draw_seeds(self.random_state, self.n_init):
            centers, objective, n_iter = self._run(rows, kmeans_plusplus(rows, self.n_clusters, random_state=seed)[0])
            if objective < self.objective_:
                self.cluster_centers_, self.objective_, self.n_iter_ = centers + mean, objective, n_iter
        self.labels_ = _squared_distances(X, self.cluster_centers_).argmin(axis=1)
        spread = np.sqrt(np.einsum("ij,ij->", rows, rows) / len(rows))
        if self.n_clusters > 1 and pdist(self.cluster_centers_).min() <= _COINCIDE * spread:
            warn(
                f"Cluster centres coincide: fuzziness={self.fuzziness} is too high for these "
                f"{X.shape[1]} features, or there are fewer distinct rows than n_clusters={self.n_clusters}. "
                f"Lower fuzziness towards 1 (1.1 to 1.3 with many features) or ask for fewer clusters.",
            )
        return self

    def _run(self, rows: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, float, int]:
        """Alternate from these centres; gives the last ones, their objective and the rounds."""
        d2 = _squared_distances(rows, centers)
        log_u = _log_memberships(d2, self.fuzziness)
        n_iter, change = 0, np.inf
        while n_iter < self.max_iter and change > self.tol:
            centers = softmax(self.fuzziness * log_u, axis=0).T @ rows
            d2 = _squared_distances(rows, centers)
            old, log_u = log_u, _log_memberships(d2, self.fuzziness)
            n_iter, change = n_iter + 1, np.abs(np.exp(log_u) - np.exp(old)).max()
        with np.errstate(divide="ignore"):
            return centers, float(np.exp(self.fuzziness * log_u + np.log(d2)).sum()), n_iter

    def _distances(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return _squared_distances(self._rows(X), self.cluster_centers_)

    def predict(self, X: Any) -> np.ndarray:
        """Cluster of every row, the nearest centre's.

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        return self._distances(X).argmin(axis=1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Memberships of the rows in the clusters.

        Returns
        -------
        ndarray of float64, shape (n_samples, n_clusters)
            Rows sum to 1; the largest entry is the cluster that ``predict`` gives.
        """
        return np.exp(_log_memberships(self._distances(X), self.fuzziness))

    def transform(self, X: Any) -> np.ndarray:
        """Euclidean distances to the centres.

        Returns
        -------
        ndarray of float64, shape (n_samples, n_clusters)
        """
        return np.sqrt(self._distances(X))

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)
