"""Spectral embedded clustering: eigenvectors of a graph that a linear map of the rows can nearly reach."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator
from scipy.spatial.distance import cdist
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.preprocessing import normalize
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from neuralclust.classical.base import RowClusterer
from neuralclust.functional.graph import knn_graph
from neuralclust.kmeans import fit_kmeans
from neuralclust.runtime import draw_seeds
from neuralclust.spectral import all_at_once, as_scipy, leading_eigenvectors


class SpectralEmbeddedClustering(ClassNamePrefixFeaturesOutMixin, TransformerMixin, RowClusterer):
    """Spectral clustering whose embedding is nearly linear in the rows (SEC), and so has one for new rows.

    Minimises ``tr(F^T L F) + mu (|X W + 1 b^T - F|^2 + gamma |W|^2)`` over F with orthonormal columns, W and b. L is
    the normalised Laplacian of the graph of nearest neighbours. k-means on the rows of F gives the clusters; the map
    ``x W + b`` places new rows. An n x n matrix is formed only for at most 500 rows, five rows a cluster, or fewer rows
    than features.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters, and of columns of F.
    mu : float, default=1.0
        Weight of the linear map. 0 is spectral clustering; the larger, the more clusters are what hyperplanes can
        tell apart, as those of k-means are. Curved or nested clusters need very little, 1e-4 or so.
    gamma : float, default=1.0
        Ridge of the linear map, in units of the sum of a feature's squared deviations from its mean, which grows with
        the number of rows.
    n_neighbors : int, default=5
        Neighbours of a row in the graph, itself not counted; fewer where there are not as many rows.
    n_init : int, default=10
        Starts of k-means.
    random_state : int, RandomState or None, default=None
        Seed. The global random state is never touched.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of every training row, from its own row of F, which knows its neighbours. ``predict`` knows the linear
        map alone and may differ, for one row in thirty on handwritten digits; ``fit_predict`` gives ``labels_``.
    cluster_centers_ : ndarray of shape (n_clusters, n_clusters)
        Mean of each cluster's training rows as ``transform`` gives them.
    embedding_ : ndarray of shape (n_samples, n_clusters)
        F, the smallest eigenvalue first.
    coef_ : ndarray of shape (n_features_in_, n_clusters)
        W.
    intercept_ : ndarray of shape (n_clusters,)
        b.
    n_features_in_ : int
        Features of a row.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if ``X`` was a data frame.

    Notes
    -----
    With the best W and b put in, F are the eigenvectors with the smallest eigenvalues of ``L + mu L_g``, where
    ``L_g = H - H X (X^T H X + gamma I)^-1 X^T H`` and H takes off the mean. They are the ones with the largest of
    ``D^-1/2 A D^-1/2 + mu (I - L_g)``, which is a sparse matrix, a constant and a ridge regression.

    Rows of F and of ``X W + b`` are scaled to unit length before k-means and before the centres: the regression shrinks
    its values, and less so in some clusters. New rows are compared with means of mapped rows, not with the centres
    that k-means found in F, for the same reason. The weights of the graph are those of
    :func:`~neuralclust.functional.knn_graph`. F has as many independent rows as clusters, so there are always
    ``n_clusters`` of them: where fewer rows are distinct, equal ones fall into different clusters.

    References
    ----------
    F. Nie, Z. Zeng, I. W. Tsang, D. Xu, C. Zhang: "Spectral Embedded Clustering: A Framework for In-Sample and
    Out-of-Sample Spectral Clustering", IEEE Transactions on Neural Networks, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.classical.sec import SpectralEmbeddedClustering
    >>> X = np.random.default_rng(0).normal(size=(60, 3))
    >>> X[30:, 0] += 9
    >>> model = SpectralEmbeddedClustering(2, random_state=0).fit(X)
    >>> bool((model.predict(X) == model.labels_).all()), bool(model.labels_[0] != model.labels_[59])
    (True, True)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "mu": [Interval(Real, 0, None, closed="left")],
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        mu: float = 1.0,
        gamma: float = 1.0,
        n_neighbors: int = 5,
        n_init: int = 10,
        random_state: Any = None,
    ):
        self.n_clusters = n_clusters
        self.mu = mu
        self.gamma = gamma
        self.n_neighbors = n_neighbors
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
        k = self.n_clusters
        for_vectors, for_clusters = draw_seeds(self.random_state, 2)
        mean = X.mean(axis=0, dtype=np.float64)
        centered = X - mean
        graph = as_scipy(knn_graph(torch.from_numpy(centered.astype(X.dtype, copy=False)), self.n_neighbors))
        if not np.isfinite(graph.data).all():
            raise ValueError(
                f"X has values as large as {np.abs(X).max():.3g}, whose squares {X.dtype} cannot hold. Scale X down."
            )
        regress = _ridge(centered, self.gamma)
        self.embedding_ = _embedding(graph, centered, regress, self.mu, k, for_vectors)
        self.coef_ = regress(self.embedding_)
        self.intercept_ = self.embedding_.mean(axis=0) - mean @ self.coef_
        fitted = fit_kmeans(normalize(self.embedding_), k, n_init=self.n_init, seed=for_clusters)
        self.labels_ = fitted.labels_.astype(np.int64)
        mapped = self._map(X)
        self.cluster_centers_ = fitted.cluster_centers_.copy()
        for j in np.unique(self.labels_):
            self.cluster_centers_[j] = mapped[self.labels_ == j].mean(axis=0)
        self._warn_of_copies(X)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Cluster of every row: that of the centre nearest to it after the linear map.

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        check_is_fitted(self)
        return cdist(self._map(self._rows(X)), self.cluster_centers_, "sqeuclidean").argmin(axis=1)

    def transform(self, X: Any) -> np.ndarray:
        """Rows through the linear map, ``x W + b`` scaled to unit length: for those of ``fit`` too, whose F is near.

        Returns
        -------
        ndarray of shape (n_samples, n_clusters)
            float32 if ``X`` is, else float64.
        """
        check_is_fitted(self)
        X = self._rows(X)
        return self._map(X).astype(X.dtype, copy=False)

    def _map(self, X: np.ndarray) -> np.ndarray:
        return normalize(X @ self.coef_ + self.intercept_)

    @property
    def _n_features_out(self) -> int:
        return self.coef_.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _ridge(x: np.ndarray, gamma: float) -> Callable[[np.ndarray], np.ndarray]:
    """From targets (n, k) to the coefficients (d, k) of their ridge regression on centred rows (n, d)."""
    n, d = x.shape
    gram = x.T @ x if d <= n else x @ x.T  # both lead there; the smaller one is factored
    gram[np.diag_indices_from(gram)] += gamma
    try:
        factor = cho_factor(gram, overwrite_a=True)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"gamma={gamma} vanishes beside the rows' scatter, whose largest entry is {np.abs(gram).max():.3g}: the "
            f"linear map is not determined. Raise gamma or scale X down."
        ) from error
    if d <= n:
        return lambda f: cho_solve(factor, x.T @ f)
    return lambda f: x.T @ cho_solve(factor, f)


def _embedding(
    graph: sp.csr_array, x: np.ndarray, regress: Callable[[np.ndarray], np.ndarray], mu: float, k: int, seed: int
) -> np.ndarray:
    """The k eigenvectors (n, k) of ``L + mu L_g`` with the smallest eigenvalues, smallest first."""
    n = len(x)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    half = sp.diags_array(np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1.0)), 0.0))
    near = half @ graph @ half

    def product(v: np.ndarray) -> np.ndarray:
        """``(I - L) v + mu (I - L_g) v``: the largest eigenvalues of this are the smallest of the other."""
        return near @ v + mu * (v.mean(axis=0) + x @ regress(v))

    if all_at_once(n, k):
        dense = product(np.eye(n))
        return leading_eigenvectors((dense + dense.T) / 2, k)
    whole = LinearOperator((n, n), matvec=product, matmat=product, dtype=np.float64)
    return leading_eigenvectors(whole, k, seed, near)
