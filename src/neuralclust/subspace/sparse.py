"""Sparse self-expression: every row as a combination of few others.

Row i of the coefficients expresses row i of ``X``: ``X ~ C X``, with a zero diagonal.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp

from neuralclust._warn import warn
from neuralclust.subspace.active_set import Dictionary, Kernel, Progress, Rows, active_set, blocks, other_products
from neuralclust.subspace.checks import check_kernel, check_positive, check_rows


def elastic_net(
    X: np.ndarray,
    *,
    gamma: float = 50.0,
    l1_ratio: float = 0.95,
    tol: float = 1e-7,
    on_progress: Progress | None = None,
) -> sp.csr_array:
    """Elastic-net self-expression (EnSC) by an active set.

    Minimises ``l1_ratio |c|_1 + (1 - l1_ratio) / 2 |c|^2 + g / 2 |x - X^T c|^2`` for every row x, over the others, with
    ``g = gamma l1_ratio / max_j |x . x_j|``: up to ``gamma = 1`` the solution is 0. Source: Eq. 3 of "Oracle Based
    Active Set Algorithm for Scalable Elastic Net Subspace Clustering" (You, Li, Robinson, Vidal, 2016).

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows, as a rule of unit length.
    gamma : float, default=50.0
        Weight of the fit, in units of what the largest correlation needs.
    l1_ratio : float, default=0.95
        Between 0 (ridge regression: nothing is sparse) and 1 (lasso), above 0.
    tol : float, default=1e-7
        How far the optimality conditions may be violated, as a share of the largest correlation; float32 rows are
        solved to 1e-6 at best.
    on_progress : callable, optional
        Called with the share of the rows that are done.

    Returns
    -------
    csr_array of shape (n, n)
        Coefficients.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace import elastic_net
    >>> X = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> elastic_net(X).toarray().round(2)
    array([[0.  , 0.98, 0.  , 0.  ],
           [0.98, 0.  , 0.  , 0.  ],
           [0.  , 0.  , 0.  , 0.98],
           [0.  , 0.  , 0.98, 0.  ]])
    """
    X = check_rows(X)
    check_positive(gamma=gamma, l1_ratio=l1_ratio)
    if l1_ratio > 1:
        raise ValueError(f"l1_ratio={l1_ratio} must be at most 1, the lasso.")

    def penalties(most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return most / gamma, most * (1 - l1_ratio) / (l1_ratio * gamma)

    return active_set(Rows(X), penalties, tol, on_progress)


def ssc(
    X: np.ndarray,
    *,
    alpha: float = 20.0,
    affine: bool = False,
    outliers: float | None = None,
    solver: str = "auto",
    tol: float | None = None,
    max_iter: int = 10_000,
    on_progress: Progress | None = None,
) -> sp.csr_array:
    """Sparse subspace clustering's coefficients: the lasso of every row over the others.

    Minimises ``|C|_1 + outliers' |E|_1 + weight / 2 |X - C X - E|^2`` with a zero diagonal, where ``weight = alpha /
    min_i max_j |x_i . x_j|``. Source: Eq. 13, 14 and 20 of "Sparse Subspace Clustering: Algorithm, Theory, and
    Applications" (Elhamifar, Vidal, 2013).

    The weight hangs on the one row that is least like any other: an outlier makes all rows less sparse.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows.
    alpha : float, default=20.0
        Weight of the fit; above 1, no row is expressed by nothing. Rows of zeros do not count.
    affine : bool, default=False
        Coefficients of a row sum to 1: for subspaces that do not pass through the origin.
    outliers : float, optional
        Weight of single entries that are explained by nothing, ``outliers / min_i max_j |x_j|_1``; above 1, and the
        smaller the more such entries. None: there are none.
    solver : {"auto", "active-set", "admm"}, default="auto"
        The active set is exact, fast and sparse; ADMM, which holds several n x n arrays, is the paper's and the only
        one for ``affine`` and ``outliers``. "auto": the first that can.
    tol : float, default=None
        Of the optimality conditions (active set; None: 1e-7), or of the largest change and violation, of entries in
        units of the largest of X (ADMM; None: 1e-5).
    max_iter : int, default=10000
        Iterations of ADMM.
    on_progress : callable, optional
        Called with the share of the rows that are done (active set).

    Returns
    -------
    csr_array of shape (n, n)
        Coefficients.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace import ssc
    >>> X = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> ssc(X).toarray().round(2)
    array([[0.  , 0.95, 0.  , 0.  ],
           [0.95, 0.  , 0.  , 0.  ],
           [0.  , 0.  , 0.  , 0.95],
           [0.  , 0.  , 0.95, 0.  ]])
    """
    X = check_rows(X)
    check_positive(alpha=alpha, outliers=1.0 if outliers is None else outliers)
    plain = not affine and outliers is None
    if solver not in ("auto", "active-set", "admm"):
        raise ValueError(f"solver={solver!r} must be 'auto', 'active-set' or 'admm'.")
    if solver == "active-set" and not plain:
        raise ValueError("solver='active-set' knows neither affine=True nor outliers. Use solver='auto'.")
    dictionary = Rows(X)
    least = _least_largest(dictionary)
    if not math.isfinite(least):  # rows without anything in common: only what the constraint asks for
        if not affine or len(X) == 1:
            return sp.csr_array((len(X), len(X)), dtype=X.dtype)
        least = 1.0
    weight = alpha / least
    tol = (1e-7 if plain and solver != "admm" else 1e-5) if tol is None else tol
    if plain and solver != "admm":
        return _lasso(dictionary, weight, tol, on_progress)
    lengths = np.sort(np.abs(X).sum(axis=1))
    entry = math.inf if outliers is None else outliers / max(float(lengths[-2:].min()), 1e-300)
    return sp.csr_array(_ssc_admm(X, weight, entry, affine, alpha / 10, tol, max_iter)[0].astype(X.dtype))


def kernel_ssc(
    K: np.ndarray, *, alpha: float = 20.0, tol: float = 1e-7, on_progress: Progress | None = None
) -> sp.csr_array:
    """Sparse subspace clustering in the feature space of a kernel (KSSC).

    Minimises ``|C|_1 + weight / 2 tr((I - C) K (I - C)^T)`` with a zero diagonal, where ``weight = alpha / min_i max_j
    |K_ij|``. Source: Eq. 4 of "Kernel Sparse Subspace Clustering" (Patel, Vidal, 2014).

    Parameters
    ----------
    K : ndarray of shape (n, n)
        Positive semi-definite kernel between the rows.
    alpha : float, default=20.0
        Weight of the fit.
    tol : float, default=1e-7
        How far the optimality conditions may be violated, as a share of the largest entry of a row of K.
    on_progress : callable, optional
        Called with the share of the rows that are done.

    Returns
    -------
    csr_array of shape (n, n)
        Coefficients.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace import kernel_ssc, ssc
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> bool(abs(kernel_ssc(X @ X.T) - ssc(X)).max() < 1e-6)
    True
    """
    made_in = np.dtype(np.float32 if getattr(K, "dtype", None) == np.float32 else np.float64)
    K = check_kernel(K)
    check_positive(alpha=alpha)
    dictionary = Kernel(K, made_in)
    least = _least_largest(dictionary)
    if not math.isfinite(least):
        return sp.csr_array(K.shape, dtype=K.dtype)
    return _lasso(dictionary, alpha / least, tol, on_progress)


def _lasso(dictionary: Dictionary, weight: float, tol: float, on_progress: Progress | None) -> sp.csr_array:
    """Minimise ``|c|_1`` and ``weight`` times half the squared error."""

    def penalties(most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(most), 1 / weight), np.zeros(len(most))

    return active_set(dictionary, penalties, tol, on_progress)


def _least_largest(dictionary: Dictionary) -> float:
    """``min_i max_j |x_i . x_j|`` over the other rows; infinite if no two have anything in common."""
    least = np.inf
    for block in blocks(dictionary):
        _, most = other_products(dictionary, block)
        least = min(least, float(most[most > 0].min(initial=np.inf)))
    return least


# -- ADMM ---------------------------------------------------------------------------------------------------------


def _ssc_admm(
    X: np.ndarray, weight: float, entry: float, affine: bool, rho: float, tol: float, max_iter: int
) -> tuple[np.ndarray, np.ndarray]:
    """C and E: A explains, given them; they are sparse, given A; multipliers of ``A = C`` and of its sums."""
    X = X.astype(np.float64)
    n, unit = len(X), max(float(np.abs(X).max()), 1e-300)
    ones = np.ones((n, 1), X.dtype)
    gram = weight * X @ X.T
    inverse = np.linalg.inv(gram + rho * (np.eye(n, dtype=X.dtype) + (ones @ ones.T if affine else 0)))
    C, E = np.zeros_like(gram), np.zeros_like(X)
    dual, sums = np.zeros_like(gram), np.zeros_like(ones)
    violation = 0.0
    for _ in range(max_iter):
        right = gram - weight * E @ X.T + rho * (C - dual)
        if affine:
            right += rho * (ones - sums) @ ones.T
        A = right @ inverse
        before, noise = C, E
        C = _soft(A + dual, 1 / rho)
        np.fill_diagonal(C, 0)
        if math.isfinite(entry):
            E = _soft(X - A @ X, entry / weight)
        dual += A - C
        violation = float(np.abs(A - C).max())
        if affine:
            sums += A @ ones - ones
            violation = max(violation, float(np.abs(A @ ones - ones).max()))
        if max(violation, np.abs(C - before).max(), np.abs(E - noise).max() / unit) <= tol:
            return C, E
    warn(
        f"ADMM ended after {max_iter} iterations with a violation of {violation:.1e} and is still moving, where "
        f"tol={tol:.1e}. Raise max_iter or tol of ssc, or lower alpha.",
    )
    return C, E


def _soft(x: np.ndarray, threshold: float) -> np.ndarray:
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0)
