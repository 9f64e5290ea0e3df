"""Orthogonal matching pursuit of every row over the others, many rows at a time."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import scipy.sparse as sp

from neuralclust.subspace.active_set import Progress, lengths_of, most_terms, rounding
from neuralclust.subspace.checks import check_rows

_BLOCK_BYTES = 2**26  # of the rows that a block has chosen
_ROWS = 1024  # of a block
_COLUMNS = 4096  # correlations looked at together, which then stay in the cache


def ssc_omp(
    X: np.ndarray, *, n_nonzero: int = 10, tol: float = 1e-6, on_progress: Progress | None = None
) -> sp.csr_array:
    """Orthogonal matching pursuit of every row over the others (SSC-OMP), many rows at a time.

    Source: Algorithm 1 of "Scalable Sparse Subspace Clustering by Orthogonal Matching Pursuit" (You, Robinson, Vidal,
    2016).

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows; of unit length, or longer rows are taken first.
    n_nonzero : int, default=10
        Most others that express a row.
    tol : float, default=1e-6
        A row is done when this share of its length is left.
    on_progress : callable, optional
        Called with the share of the rows that are done.

    Returns
    -------
    csr_array of shape (n, n)
        Coefficients.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace import ssc_omp
    >>> X = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    >>> ssc_omp(X, n_nonzero=1).toarray()
    array([[0. , 0.5, 0. , 0. ],
           [2. , 0. , 0. , 0. ],
           [0. , 0. , 0. , 0.5],
           [0. , 0. , 2. , 0. ]])
    """
    X = check_rows(X)
    if not (isinstance(n_nonzero, Integral) and n_nonzero >= 1):
        raise ValueError(f"n_nonzero={n_nonzero!r} must be an integer of at least 1.")
    n, d = X.shape
    n_nonzero = min(n_nonzero, n - 1, d)
    unit = rounding(X.dtype, most_terms(X))
    size = max(1, min(_ROWS, _BLOCK_BYTES // (8 * d * max(n_nonzero, 1))))
    parts = []
    for start in range(0, n, size):
        parts.append(_pursuit(X, slice(start, min(start + size, n)), n_nonzero, tol, unit))
        if on_progress is not None:
            on_progress(min(start + size, n) / n)
    return sp.csr_array(sp.vstack(parts, format="csr"))


def _pursuit(X: np.ndarray, block: slice, n_nonzero: int, tol: float, unit: float) -> sp.csr_array:
    """A block's rows over all others."""
    x = X[block]
    b, rows = len(x), np.arange(len(x))
    lengths = lengths_of(x)
    support = np.zeros((b, 0), dtype=np.int64)
    c, left = np.zeros((b, 0)), x
    least = unit * lengths  # what is below has nothing in common
    done = lengths == 0
    for _ in range(n_nonzero):
        if done.all():
            break
        new, most = _most_correlated(left, X, support, block)
        done |= most <= least * lengths_of(X[new])
        # A row that is done takes what it will not use.
        support = np.hstack([support, new[:, None]])
        some = X[support].astype(np.float64)
        gram = some @ some.transpose(0, 2, 1)
        at = np.arange(gram.shape[1])
        gram[:, at, at] += 1e-13 * np.maximum(gram[:, at, at].max(axis=1, keepdims=True), 1e-300)
        now = np.linalg.solve(gram, some @ x.astype(np.float64)[:, :, None])[:, :, 0]
        c = np.where(done[:, None], np.pad(c, ((0, 0), (0, 1))), now)
        left = x - (c[:, None] @ some)[:, 0].astype(X.dtype)
        done |= np.linalg.norm(left, axis=1) <= tol * lengths
    i, j = np.nonzero(c)
    return sp.csr_array((c[i, j].astype(X.dtype), (rows[i], support[i, j])), shape=(b, len(X)))


def _most_correlated(
    left: np.ndarray, X: np.ndarray, support: np.ndarray, block: slice
) -> tuple[np.ndarray, np.ndarray]:
    """The row of X, not itself nor in the support, whose product with what is left is largest, and that product."""
    best, where = np.full(len(left), -1.0), np.zeros(len(left), dtype=np.int64)
    taken = np.hstack([support, block.start + np.arange(len(left))[:, None]])
    for start in range(0, len(X), _COLUMNS):
        products = np.abs(left @ X[start : start + _COLUMNS].T)
        i, j = np.nonzero((taken >= start) & (taken < start + _COLUMNS))
        products[i, taken[i, j] - start] = -1
        at = products.argmax(axis=1)
        most = products[np.arange(len(left)), at]
        better = most > best
        best[better], where[better] = most[better], start + at[better]
    return where, best
