"""The classical self-expressive family as one estimator: coefficients, their graph, its spectral partition."""

from __future__ import annotations

from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh
from sklearn.base import _fit_context
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.preprocessing import normalize
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from neuralclust._warn import warn
from neuralclust.callbacks import FitReport
from neuralclust.classical.base import RowClusterer
from neuralclust.runtime import draw_seeds
from neuralclust.spectral import spectral_partition
from neuralclust.subspace.active_set import Progress
from neuralclust.subspace.lowrank import lrr, lrsc, lsr1, lsr2, smr
from neuralclust.subspace.pursuit import ssc_omp
from neuralclust.subspace.sparse import elastic_net, kernel_ssc, ssc

METHODS = ("ssc", "ssc_omp", "ensc", "lrr", "lrsc", "lsr1", "lsr2", "smr", "kssc", "slrr")
_CODING_RIDGE = 1e-2  # of new rows over the training rows, in units of their mean squared length
_MOST_DIMENSIONS = 500  # of the space in which new rows are coded
_BLOCK_BYTES = 2**26
_AGREE = 0.9  # share of the training rows whose codes give their own cluster below which predict warns
_LONELY = 0.1  # share of the rows without an edge above which the clusters are no answer
_KERNELS = {"rbf", "laplacian", "polynomial", "cosine", "linear"}  # positive semi-definite ones


class Postprocess(NamedTuple):
    """What DSC-Net's evaluation does to coefficients before the spectral clustering.

    Much of the accuracy reported for subspace clustering since is due to it, and its numbers were set for each data
    set. Source: the code of "Deep Subspace Clustering Networks" (Ji, Zhang, Li, Salzmann, Reid, 2017).

    Attributes
    ----------
    keep : float
        Largest coefficients of each row that are kept, as a share of the sum of all: 0 to 1.
    dimension : int
        Of a subspace: the graph is made of ``dimension * n_clusters + 1`` singular vectors of the coefficients, which
        takes arrays of n x n entries. 0: of the coefficients themselves.
    power : float
        To which the cosines between the rows of these vectors are raised; of no account with dimension 0.
    """

    keep: float = 1.0
    dimension: int = 0
    power: float = 1.0


class SubspaceClustering(CallbackSupportMixin, RowClusterer):
    """Cluster rows that lie near several subspaces: each is a combination of others of its own.

    Every row is expressed by the others, with a penalty on the coefficients that is the method's; their magnitudes are
    the weights of a graph, and its spectral partition the clusters.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    method : str, default="ensc"
        "ssc" (lasso), "ssc_omp" (orthogonal matching pursuit), "ensc" (elastic net), "kssc" (lasso in the space of a
        kernel); "lrr" (lowest rank), "lrsc" (the same, in closed form), "lsr1", "lsr2" (least squares without and with
        the row itself), "smr" (least squares, smooth over neighbours); "slrr" (LRR of some rows, then the others by
        them). The first three need no array of n x n entries unless ``affine``, ``outliers`` or ``postprocess`` do;
        "slrr" has one of ``n_in_sample`` squared; all others do.
    alpha : float, default=20.0
        Weight of the fit of "ssc", "kssc" and "smr": see :func:`ssc`, :func:`smr`.
    affine : bool, default=False
        Coefficients sum to 1 ("ssc").
    outliers : float, default=None
        Weight of entries explained by nothing ("ssc"). None: there are none.
    gamma, l1_ratio : float, default=50.0 and 0.95
        Weight of the fit and share of the lasso of "ensc", see :func:`elastic_net`.
    n_nonzero : int, default=10
        Coefficients of a row ("ssc_omp").
    lam : float, default=1.0
        Weight of the noise of "lrr" and "slrr", see :func:`lrr`.
    tau : float, default=100.0
        Weight of the fit of "lrsc".
    ridge : float, default=0.1
        Weight of the squares of "lsr1" and "lsr2".
    kernel : {"rbf", "laplacian", "polynomial", "cosine", "linear"}, default="rbf"
        Of "kssc".
    kernel_gamma : float, default=None
        Of the first three. None: one over the mean squared distance of two rows.
    n_in_sample : int, default=1000
        Rows that "slrr" clusters itself, drawn at random; ``n_clusters`` at least.
    normalize : bool, default=True
        Scale rows to unit length first. The weights of "lrr", "slrr", "lrsc", "lsr1", "lsr2" and "smr" are set for
        such rows; without it, set them anew.
    postprocess : Postprocess or None, default=None
        What is done to the coefficients before they become a graph. None: nothing.
    n_init : int, default=20
        Starts of k-means in the spectral partition, at most.
    random_state : int, RandomState or None, default=None
        Seed.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of each training row.
    coefficients_ : csr_array or ndarray of shape (n_samples, n_samples)
        What row i is made of, in row i ("slrr": of and by the rows in ``in_sample_``).
    in_sample_ : ndarray of int
        Rows that were clustered by their coefficients: all, but for "slrr".
    n_features_in_ : int
        Length of a row.

    Notes
    -----
    New rows are coded over the training rows by ridge regression and join the cluster whose part of the code explains
    them best, as in SLRR: the smallest ``|x - X_j^T c_j| / |c_j|`` (Peng, Zhang, Yi, 2013, its last step). ``labels_``
    are those of the spectral partition; ``predict`` of a training row, which now may express itself, need not agree.
    Where clusters are subspaces of fewer dimensions than the rows it does for nearly all; with few columns, as of
    iris or wine, for about four of five, and then ``predict`` warns. Of "kssc" too the codes of new rows are linear.

    References
    ----------
    The solvers name theirs: :mod:`neuralclust.subspace`.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust import SubspaceClustering
    >>> rng = np.random.default_rng(0)
    >>> lines = rng.normal(size=(2, 8))  # through the origin, in 8 dimensions
    >>> X = rng.normal(size=(40, 1)) * np.repeat(lines, 20, axis=0)
    >>> labels = SubspaceClustering(2, random_state=0).fit_predict(X)
    >>> bool((labels[:20] == labels[0]).all() and (labels[20:] != labels[0]).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "method": [StrOptions(set(METHODS))],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "affine": ["boolean"],
        "outliers": [Interval(Real, 0, None, closed="neither"), None],
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "l1_ratio": [Interval(Real, 0, 1, closed="right")],
        "n_nonzero": [Interval(Integral, 1, None, closed="left")],
        "lam": [Interval(Real, 0, None, closed="neither")],
        "tau": [Interval(Real, 0, None, closed="neither")],
        "ridge": [Interval(Real, 0, None, closed="neither")],
        "kernel": [StrOptions(_KERNELS)],
        "kernel_gamma": [Interval(Real, 0, None, closed="neither"), None],
        "n_in_sample": [Interval(Integral, 1, None, closed="left")],
        "normalize": ["boolean"],
        "postprocess": [Postprocess, None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        method: str = "ensc",
        alpha: float = 20.0,
        affine: bool = False,
        outliers: float | None = None,
        gamma: float = 50.0,
        l1_ratio: float = 0.95,
        n_nonzero: int = 10,
        lam: float = 1.0,
        tau: float = 100.0,
        ridge: float = 0.1,
        kernel: str = "rbf",
        kernel_gamma: float | None = None,
        n_in_sample: int = 1000,
        normalize: bool = True,
        postprocess: Postprocess | None = None,
        n_init: int = 20,
        random_state: Any = None,
    ):
        self.n_clusters = n_clusters
        self.method = method
        self.alpha = alpha
        self.affine = affine
        self.outliers = outliers
        self.gamma = gamma
        self.l1_ratio = l1_ratio
        self.n_nonzero = n_nonzero
        self.lam = lam
        self.tau = tau
        self.ridge = ridge
        self.kernel = kernel
        self.kernel_gamma = kernel_gamma
        self.n_in_sample = n_in_sample
        self.normalize = normalize
        self.postprocess = postprocess
        self.n_init = n_init
        self.random_state = random_state

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Cluster the rows of ``X``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : Ignored
            Present for scikit-learn; labels are never used.

        Returns
        -------
        self
        """
        rows = self._rows(X, reset=True)
        X = self._unit(rows)
        _check(self.postprocess)
        (seed,) = draw_seeds(self.random_state, 1)
        n, some = len(X), X
        in_sample = np.arange(n)
        if self.method == "slrr" and self.n_in_sample < n:
            size = max(self.n_in_sample, self.n_clusters)
            in_sample = np.sort(np.random.default_rng(seed).permutation(n)[:size])
            some = X[in_sample]
        report = FitReport(self, 2)
        with report.share("coefficients") as done:
            coefficients = self._express(some, done)
        labels = np.zeros(len(some), dtype=np.int64)
        if self.n_clusters > 1:
            refined = refine(coefficients, self.n_clusters, self.postprocess)
            graph = refined if self.postprocess and self.postprocess.dimension else affinity(refined)
            self._check_edges(graph, some)
            with report.share("partition"):
                labels, _ = spectral_partition(graph, self.n_clusters, n_init=self.n_init, seed=seed)
        self.coefficients_, self.in_sample_ = coefficients, in_sample
        self._coding = _Coding.of(some, labels, self.n_clusters)
        coded = self._coding.predict(X)
        self._agreement = float((coded[in_sample] == labels).mean())
        coded[in_sample] = labels
        self.labels_ = coded
        self._warn_of_copies(rows)
        report.end()
        return self

    def _check_edges(self, graph: Any, X: np.ndarray) -> None:
        lonely = int((graph.sum(axis=1) == 0).sum())
        if lonely <= _LONELY * len(X):
            return
        zero = int((~X.any(axis=1)).sum())
        warn(
            f"{lonely} of {len(X)} rows are expressed by none and express none ({zero} of them are 0), so their "
            f"clusters mean nothing. Raise the weight of the fit: alpha, gamma, lam or tau, whichever "
            f"method={self.method!r} has.",
        )

    def predict(self, X: Any) -> np.ndarray:
        """Cluster of every row, by its code over the training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows as in ``fit``.

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        check_is_fitted(self)
        X = self._rows(X)
        if self._agreement < _AGREE:
            warn(
                f"Codes put only {100 * self._agreement:.0f} % of the training rows into their own cluster: the "
                f"clusters are not subspaces that differ, as where they have as many dimensions as X. Read labels_ for "
                f"training rows, and trust the clusters of new ones as little."
            )
        return self._coding.predict(self._unit(X))

    def _unit(self, X: np.ndarray) -> np.ndarray:
        return normalize(X) if self.normalize else X

    def _express(self, X: np.ndarray, done: Progress) -> Any:
        """The method's coefficients."""
        match self.method:
            case "ssc":
                return ssc(X, alpha=self.alpha, affine=self.affine, outliers=self.outliers, on_progress=done)
            case "ssc_omp":
                return ssc_omp(X, n_nonzero=self.n_nonzero, on_progress=done)
            case "ensc":
                return elastic_net(X, gamma=self.gamma, l1_ratio=self.l1_ratio, on_progress=done)
            case "kssc":
                return kernel_ssc(self._kernel(X), alpha=self.alpha, on_progress=done).astype(X.dtype)
            case "lrsc":
                return lrsc(X, tau=self.tau)
            case "lsr1":
                return lsr1(X, ridge=self.ridge)
            case "lsr2":
                return lsr2(X, ridge=self.ridge)
            case "smr":
                return smr(X, alpha=self.alpha)
            case _:
                return lrr(X, lam=self.lam)

    def _kernel(self, X: np.ndarray) -> np.ndarray:
        X = X.astype(np.float64)
        gamma = self.kernel_gamma
        if gamma is None:
            spread = 2 * X.var(axis=0).sum()
            gamma = 1 / spread if spread > 0 else 1.0
        return pairwise_kernels(X, metric=self.kernel, filter_params=True, gamma=gamma)


def _check(how: Postprocess | None) -> None:
    if how is None:
        return
    numbers = isinstance(how.keep, Real) and isinstance(how.dimension, Integral) and isinstance(how.power, Real)
    if not (numbers and 0 < how.keep <= 1 and how.dimension >= 0 and how.power > 0):
        raise ValueError(f"postprocess={how} needs numbers: 0 < keep <= 1, an integer dimension >= 0 and power > 0.")


def refine(coefficients: Any, n_clusters: int, how: Postprocess | None) -> Any:
    """Coefficients as they are, their largest alone, or the graph that DSC-Net's evaluation makes of them.

    Sparse ones stay so, unless singular vectors are asked for: then the weights of a graph, dense and symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace import Postprocess, refine
    >>> refine(np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 0.0], [1.0, 1.0, 0.0]]), 2, Postprocess(keep=0.7))
    array([[0., 3., 0.],
           [2., 0., 0.],
           [1., 1., 0.]])
    """
    _check(how)
    if how is None:
        return coefficients
    c = _largest(coefficients, how.keep) if how.keep < 1 else coefficients
    if not how.dimension:
        return c
    dense = c.toarray() if sp.issparse(c) else c
    values, vectors = eigh((dense + dense.T) / 2)
    leading = np.argsort(-np.abs(values))[: how.dimension * n_clusters + 1]
    rows = normalize(vectors[:, leading] * np.sqrt(np.abs(values[leading])))
    graph = np.maximum(rows @ rows.T, 0) ** how.power
    np.fill_diagonal(graph, 0)
    return graph


def _largest(c: Any, keep: float) -> Any:
    """Of each row the largest entries that make up this share of it."""
    rows = sp.csr_array(c, copy=True)
    for start, end in pairwise(rows.indptr):
        size = np.abs(rows.data[start:end])
        order = np.argsort(-size)
        before = np.cumsum(size[order]) - size[order]
        rows.data[start:end][order[before >= keep * size.sum()]] = 0
    rows.eliminate_zeros()
    return rows if sp.issparse(c) else rows.toarray()


def affinity(coefficients: Any) -> Any:
    """Weights of the graph: ``|C| + |C|^T``, every row of C first scaled to a largest entry of 1; no weight to itself.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace import affinity
    >>> affinity(np.array([[0.0, -2.0], [1.0, 0.0]]))
    array([[0., 2.],
           [2., 0.]])
    """
    if sp.issparse(coefficients):
        c = abs(sp.csr_array(coefficients, dtype=np.float64))
        c.setdiag(0)
        most = c.max(axis=1).toarray().ravel()
        c = sp.diags_array(1 / np.where(most > 0, most, 1.0)) @ c
        return sp.csr_array(c + c.T)
    c = np.abs(coefficients).astype(np.float64)
    np.fill_diagonal(c, 0)
    most = c.max(axis=1, keepdims=True, initial=0)
    c /= np.where(most > 0, most, 1.0)
    return c + c.T


class _Coding(NamedTuple):
    """What a row's code over the training rows says of its cluster, without the training rows.

    With the scatter ``S_j = X_j^T X_j`` of each cluster and w = (sum S_j + ridge I)^-1 x, the part of the code that
    belongs to cluster j explains ``S_j w`` and has the squared length ``w . S_j w``.
    """

    basis: np.ndarray  # (d, r), of the space of the training rows
    scatter: np.ndarray  # (k, r, r)
    inverse: np.ndarray  # (r, r)

    @classmethod
    def of(cls, X: np.ndarray, labels: np.ndarray, k: int) -> _Coding:
        n, d = X.shape
        X = X.astype(np.float64, copy=False)
        gram = X.T @ X if d <= n else X @ X.T
        size = min(_MOST_DIMENSIONS, len(gram))
        values, vectors = eigh(gram, subset_by_index=[len(gram) - size, len(gram) - 1])
        used = values > 1e-10 * max(values[-1], 1e-300)
        basis = vectors[:, used] if d <= n else X.T @ (vectors[:, used] / np.sqrt(values[used]))
        Y = X @ basis
        scatter = np.stack([Y[labels == j].T @ Y[labels == j] for j in range(k)]) if used.any() else np.zeros((k, 0, 0))
        ridge = _CODING_RIDGE * float(np.trace(gram)) / n
        return cls(basis, scatter, np.linalg.inv(scatter.sum(axis=0) + ridge * np.eye(scatter.shape[1])))

    def predict(self, X: np.ndarray) -> np.ndarray:
        k, r, _ = self.scatter.shape
        if not r:  # all training rows are 0
            return np.zeros(len(X), dtype=np.int64)
        size = max(1, _BLOCK_BYTES // (8 * k * r))
        return np.concatenate([self._nearest(X[i : i + size]) for i in range(0, len(X), size)])

    def _nearest(self, X: np.ndarray) -> np.ndarray:
        y = X @ self.basis
        outside = ((X**2).sum(axis=1) - (y**2).sum(axis=1)).clip(0)
        w = y @ self.inverse
        explained = np.matmul(w, self.scatter)  # (k, b, r)
        length = np.einsum("br,kbr->kb", w, explained).clip(0)
        left = ((y - explained) ** 2).sum(axis=2) + outside
        # A row that no cluster has a part in is as far from all; the nearest is the one that leaves least.
        least = 1e-30 * np.maximum(left.max(axis=0, initial=0), 1e-200)
        return np.argmin(left / np.maximum(length, least), axis=0).astype(np.int64)
