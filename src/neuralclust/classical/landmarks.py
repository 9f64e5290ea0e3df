"""Landmark-based spectral clustering: a graph of all rows that passes through a few landmarks."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh
from scipy.spatial.distance import cdist
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from neuralclust._warn import warn
from neuralclust.classical.base import RowClusterer
from neuralclust.kmeans import fit_kmeans
from neuralclust.runtime import draw_seeds

_BLOCK = 256  # rows whose distances to the landmarks are held at once
_ROWS_EACH = 20  # rows for each landmark that k-means places
_STEPS = 5  # of that k-means
_ZERO = 1e-10  # eigenvalues up to here, of at most 1, are rounding


class LandmarkSpectralClustering(ClassNamePrefixFeaturesOutMixin, TransformerMixin, RowClusterer):
    """Spectral clustering of many rows by way of a few landmarks (LSC-K, LSC-R).

    Every row is a weighted mean of its nearest landmarks; two rows are as similar as the landmarks that they share.
    The eigenvectors of that n x n graph follow from a matrix of landmarks by landmarks, for new rows too. Time grows
    linearly with the number of rows; memory is O(n_samples n_neighbors + n_landmarks (n_landmarks + n_features)) beside
    the rows, which may be a sparse matrix, of texts for instance.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    landmarks : {"k-means", "random"}, default="k-means"
        Centres of five steps of k-means, on 20 rows for each landmark at most (LSC-K), or rows drawn at random (LSC-R).
    n_landmarks : int, default=1000
        How many, at least ``n_clusters``. All rows where there are no more; equal landmarks count once.
    n_neighbors : int, default=5
        Landmarks that a row is made of.
    bandwidth : float, default=None
        Standard deviation of the Gaussian kernel, in units of the distance. None: the mean distance of a row to its
        nearest landmarks.
    n_init : int, default=10
        Starts of k-means on the embedding.
    random_state : int, RandomState or None, default=None
        Seed. The global random state is never touched.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of every training row, as ``predict`` gives it.
    cluster_centers_ : ndarray of shape (n_clusters, n_components)
        Centres in the embedding.
    landmarks_ : ndarray of shape (p, n_features_in_)
        The distinct landmarks, in the dtype of the rows.
    projection_ : ndarray of shape (p, n_components)
        From a row's weights to its embedding; n_components is ``n_clusters``, or p if that is less.
    bandwidth_ : float
        Bandwidth used.
    n_neighbors_ : int
        Landmarks of a row: ``n_neighbors``, or p if that is less.
    n_features_in_ : int
        Features of a row.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if ``X`` was a data frame.

    Notes
    -----
    With weights Z, whose rows sum to 1, and column sums D the graph is ``W = Z D^-1 Z^T``. Its rows sum to 1 as well,
    so a constant is an eigenvector, with the eigenvalue 1, and tells nothing. The authors' code drops the first
    eigenvector computed. Where the landmarks fall into separate parts the eigenvalue 1 is repeated, the first
    eigenvector is any mixture, and what tells the parts apart may be dropped with it: two rings are then often missed.
    Here the constant is taken out of the matrix before, ``Z^T Z`` scaled by ``D^-1/2`` on both sides less ``q q^T``
    with ``q = sqrt(D / n)``. The ``n_clusters`` eigenvectors after it are kept, as in that code, and rows are scaled to
    unit length. On scikit-learn's digits, with 500 landmarks, that has an accuracy of 0.89; with the constant as one
    of the ``n_clusters`` it is 0.87, and without the scaling 0.83. On USPS and Fashion-MNIST the constant costs more.

    The authors' code uses the mean squared distance to all landmarks as if it were a distance, so that the weights
    hang on the units of the data. With k-means landmarks the mean distance to the nearest is as accurate, or more so.

    References
    ----------
    X. Chen, D. Cai: "Large Scale Spectral Clustering with Landmark-Based Representation", AAAI Conference on
    Artificial Intelligence, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_circles
    >>> from neuralclust.classical.landmarks import LandmarkSpectralClustering
    >>> X, y = make_circles(300, noise=0.03, factor=0.4, random_state=0)
    >>> model = LandmarkSpectralClustering(2, n_landmarks=60, random_state=0).fit(X)
    >>> bool(max(np.mean(model.labels_ == y), np.mean(model.labels_ != y)) > 0.99)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "landmarks": [StrOptions({"k-means", "random"})],
        "n_landmarks": [Interval(Integral, 1, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "bandwidth": [Interval(Real, 0, None, closed="neither"), None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        landmarks: str = "k-means",
        n_landmarks: int = 1000,
        n_neighbors: int = 5,
        bandwidth: float | None = None,
        n_init: int = 10,
        random_state: Any = None,
    ):
        self.n_clusters = n_clusters
        self.landmarks = landmarks
        self.n_landmarks = n_landmarks
        self.n_neighbors = n_neighbors
        self.bandwidth = bandwidth
        self.n_init = n_init
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Cluster the rows of ``X``, an array or a sparse matrix ``(n_samples, n_features)``; ``y`` is ignored.

        Returns
        -------
        self
        """
        X = self._rows(X, reset=True)
        if self.n_landmarks < self.n_clusters:
            raise ValueError(
                f"n_landmarks={self.n_landmarks} should be >= n_clusters={self.n_clusters}. "
                f"Ask for more landmarks, ten for each cluster or so, or for fewer clusters."
            )
        for_landmarks, for_clusters = draw_seeds(self.random_state, 2)
        self.landmarks_ = self._choose(X, for_landmarks)
        self.n_neighbors_ = min(self.n_neighbors, len(self.landmarks_))
        index, squared = self._nearest(X)
        # 1.0: all rows lie on their landmarks, and any bandwidth gives the same weights.
        self.bandwidth_ = float(self.bandwidth or np.sqrt(squared).mean() or 1.0)
        z = self._weights(index, squared)
        self.projection_ = _projection(z, self.n_clusters)
        embedding = normalize(z @ self.projection_)
        fitted = fit_kmeans(embedding.copy(), self.n_clusters, n_init=self.n_init, seed=for_clusters)
        self.cluster_centers_ = fitted.cluster_centers_
        self.labels_ = self._assign(embedding)
        found = len(np.unique(self.labels_))
        if found < self.n_clusters:
            warn(
                f"{found} of n_clusters={self.n_clusters} clusters have rows: X may have fewer distinct rows than "
                f"that, or too few landmarks. Ask for fewer clusters or raise n_landmarks={self.n_landmarks}.",
            )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Cluster of every row, whatever rows come with it: that of the nearest centre in the embedding.

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        check_is_fitted(self)
        return self._assign(self._embed(self._rows(X)))

    def transform(self, X: Any) -> np.ndarray:
        """Spectral embedding of the rows, each of unit length (0 for a row that has none).

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            float32 if ``X`` is, else float64.
        """
        check_is_fitted(self)
        X = self._rows(X)
        return self._embed(X).astype(X.dtype, copy=False)

    def _choose(self, X: Any, seed: int) -> np.ndarray:
        """Distinct landmarks: of several equal ones a row might have no other neighbours."""
        rng = np.random.default_rng(seed)
        n = X.shape[0]
        p = min(self.n_landmarks, n)
        if self.landmarks == "random" or p == n:
            return np.unique(_dense(X[rng.choice(n, p, replace=False)]), axis=0)
        some = X
        if n > _ROWS_EACH * p:
            some = X[np.sort(rng.choice(n, _ROWS_EACH * p, replace=False))]
        if sp.issparse(some):  # KMeans takes no indices of 64 bits
            short = [part.astype(np.int32, copy=False) for part in (some.indices, some.indptr)]
            some = sp.csr_array((some.data, *short), shape=some.shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than landmarks are no harm
            centers = KMeans(p, init="random", n_init=1, max_iter=_STEPS, random_state=seed).fit(some).cluster_centers_
        return np.unique(centers, axis=0)

    def _nearest(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Nearest landmarks and squared distances to them, both (n, n_neighbors_) and in no order."""
        n, r = X.shape[0], self.n_neighbors_
        center = self.landmarks_.mean(axis=0, dtype=np.float64)  # far from it the products below would cancel
        landmarks = self.landmarks_ - center
        with np.errstate(over="ignore"):
            halves = np.square(landmarks).sum(axis=1) / 2
        index, squared = np.empty((n, r), dtype=np.int64), np.empty((n, r))
        # In float64 and padded to one shape, so that no tie is broken by the rows that come with a row, or by its place
        # among them: products in float32 round differently from place to place.
        block = np.zeros((_BLOCK, X.shape[1]))
        for start in range(0, n, _BLOCK):
            part = _dense(X[start : start + _BLOCK])
            block[: len(part)] = part - center
            with np.errstate(over="ignore", invalid="ignore"):
                ranks = (halves - block @ landmarks.T)[: len(part)]  # half the squared distance less half the square
            if not np.isfinite(ranks).all():
                raise ValueError(
                    f"X has values as large as {np.abs(part).max():.3g}, whose squares float64 cannot hold. "
                    f"Scale X down."
                )
            i = np.argpartition(ranks, r - 1, axis=1)[:, :r]
            index[start : start + len(part)] = i
            for j in range(r):  # from the differences in float64: exact for a row that is a landmark
                gap = np.subtract(part, self.landmarks_[i[:, j]], dtype=np.float64)
                squared[start : start + len(part), j] = np.einsum("ij,ij->i", gap, gap)
        return index, squared

    def _weights(self, index: np.ndarray, squared: np.ndarray) -> sp.csr_array:
        """Z (n, p): Gaussian weights of each row's nearest landmarks, with sum 1."""
        # Less the smallest, which the sum cancels: of a far row all weights would underflow.
        w = np.exp((squared.min(axis=1, keepdims=True) - squared) / self.bandwidth_ / self.bandwidth_ / 2)
        w /= w.sum(axis=1, keepdims=True)
        starts = np.arange(0, w.size + 1, w.shape[1])
        return sp.csr_array((w.ravel(), index.ravel(), starts), shape=(len(w), len(self.landmarks_)))

    def _embed(self, X: Any) -> np.ndarray:
        return normalize(self._weights(*self._nearest(X)) @ self.projection_)

    def _assign(self, embedding: np.ndarray) -> np.ndarray:
        return cdist(embedding, self.cluster_centers_, "sqeuclidean").argmin(axis=1)

    @property
    def _n_features_out(self) -> int:
        return self.projection_.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = True
        return tags


def _dense(rows: Any) -> np.ndarray:
    return rows.toarray() if sp.issparse(rows) else rows


def _projection(z: sp.csr_array, n_components: int) -> np.ndarray:
    """From weights to the eigenvectors of ``Z D^-1 Z^T`` with the largest eigenvalues, the constant left out."""
    n, p = z.shape
    mass = np.asarray(z.sum(axis=0)).ravel()
    half = np.where(mass > 0, 1 / np.sqrt(np.maximum(mass, np.finfo(np.float64).tiny)), 0.0)  # 0: nobody's neighbour
    scaled = z @ sp.diags_array(half)
    gram = (scaled.T @ scaled).toarray() - np.outer(np.sqrt(mass / n), np.sqrt(mass / n))
    k = min(n_components, p)
    values, vectors = eigh(gram, subset_by_index=[p - k, p - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    there = values > _ZERO  # the graph has no more eigenvectors; these columns are 0
    return half[:, None] * vectors * (there / np.sqrt(np.where(there, values, 1.0)))
