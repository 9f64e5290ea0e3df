"""Dense coefficients that express rows by rows: low-rank, least-squares and smooth representations.

Rows are samples, and row i of the coefficients C expresses row i of X: ``X ~ C X``. The papers have samples in columns,
so that their C is the transpose. All is computed in float64 but the last product, n x n, which is in the dtype of X.
"""

from __future__ import annotations

import numpy as np
import torch

from neuralclust._warn import warn
from neuralclust.functional import nearest_neighbors
from neuralclust.functional.sparse import NOISES
from neuralclust.subspace.checks import check_positive, check_rows

_RELAXATION = 1.6  # of ADMM: a tenth to a third fewer iterations than with 1
_BALANCED = 300  # iterations whose penalties may change: ADMM converges once they stay


def lrr(
    X: np.ndarray, *, lam: float | None = 1.0, noise: str = "row", max_iter: int = 1000, tol: float = 1e-5
) -> np.ndarray:
    """Low-rank representation: as few dimensions as will express all rows but the outliers.

    Minimises ``|C|_* + lam |E|`` where ``X = C X + E``; ``|C|_*`` is the sum of the singular values. Source: "Robust
    recovery of subspace structures by low-rank representation". The paper's solver lets its penalty grow for ever and
    stops short of the minimum. This one alternates between {C, E} and a copy of C, two blocks, with penalties that
    settle, and reaches it. C acts within the r = rank(X) dimensions of X: an iteration costs O(n r^2), or O(n d r) for
    noise in entries.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows.
    lam : float or None, default=1.0
        Weight of the noise, in absolute units, of 1 / X; the default is for rows of unit length. None or infinite: no
        noise. Then ``C = U U^T`` of the thin SVD, the shape interaction matrix; singular values count as 0 up to
        ``max(n, d)`` times the precision of X, relative to the largest.
    noise : {"row", "entry"}, default="row"
        ``|E|`` sums the lengths of rows, for rows that are outliers, or the absolute entries.
    max_iter : int, default=1000
        Iterations at most; a ConvergenceWarning tells that they were not enough.
    tol : float, default=1e-5
        Ends when the constraints hold and the iterates stand still to this relative precision. 0: never.

    Returns
    -------
    ndarray of shape (n, n)
        C. The noise is ``X - C X``.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace.lowrank import lrr
    >>> X = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> lrr(X, lam=None).round(2)[2:]
    array([[0.33, 0.33, 0.33, 0.  ],
           [0.  , 0.  , 0.  , 1.  ]])
    >>> np.abs(lrr(X, lam=0.8).round(2))[2:]  # as noise the last row costs 0.8, as a dimension of its own 1
    array([[0.33, 0.33, 0.33, 0.  ],
           [0.  , 0.  , 0.  , 0.  ]])
    """
    if lam == np.inf:
        lam = None
    X = check_rows(X)
    check_positive(lam=1.0 if lam is None else lam, max_iter=max_iter)
    if noise not in NOISES:
        raise ValueError(f"noise={noise!r} must be one of {NOISES}.")
    if not tol >= 0:
        raise ValueError(f"tol={tol!r} must be at least 0.")
    u, s, vt = _thin_svd(X)
    if lam is None or not len(s):
        return _product(u, u, X.dtype)
    # C = J U^T: what C does beside U changes no product C X and only adds to its norm. Rows of E are as long in the
    # coordinates of V. In the unit of the largest singular value penalties do not depend on the scale of X.
    j = _lrr_admm(u, s / s[0], None if noise == "row" else vt, lam * s[0], max_iter, tol)
    return _product(j, u, X.dtype)


def _lrr_admm(u: np.ndarray, s: np.ndarray, vt: np.ndarray | None, lam: float, max_iter: int, tol: float) -> np.ndarray:
    """Minimise ``|J|_* + lam |E|`` where ``J = Z``, ``E = (U - Z) diag(s) vt``. vt is None where E counts by rows.

    Each constraint has its own penalty, as their units have nothing in common: with one for both, a small or a large
    ``lam`` takes several times the iterations. Residuals are relative to what the iterates could be, not to what they
    are, which may be 0: a multiplier of J has singular values up to 1, one of E rows or entries up to ``lam``.
    """
    x = u * s if vt is None else u * s @ vt
    z, p = np.zeros((2, len(x), len(s)))  # p and q: multipliers, divided by the penalties
    za, q = np.zeros((2, *x.shape))
    rank = np.sqrt(len(s))
    primal, dual = np.array([[rank, np.linalg.norm(x)], [rank, lam * np.sqrt(len(x) if vt is None else x.size)]])
    mu = 2 * dual / primal
    for iteration in range(max_iter):
        j = _shrink_singular_values(z - p, 1 / mu[0])
        e = _shrink(x - za + q, lam / mu[1], rows=vt is None)
        p += _RELAXATION * j + (1 - _RELAXATION) * z
        q -= _RELAXATION * e + (1 - _RELAXATION) * (x - za)
        z_before, za_before = z, za
        back = q + x if vt is None else (q + x) @ vt.T
        z = (mu[0] * p + mu[1] * s * back) / (mu[0] + mu[1] * s**2)
        za = z * s if vt is None else (z * s) @ vt
        p -= z
        q += x - za
        residual = np.array([np.linalg.norm(j - z), np.linalg.norm(x - za - e)]) / primal
        change = np.array([np.linalg.norm(z - z_before), np.linalg.norm(za - za_before)]) * mu / dual
        if max(*residual, *change) < tol:
            return j
        if iteration < _BALANCED and iteration % 10 == 9:
            factor = np.where(residual > 3 * change, 2.0, np.where(change > 3 * residual, 0.5, 1.0))
            mu *= factor
            p /= factor[0]
            q /= factor[1]
    if tol > 0:
        message = f"lrr: max_iter={max_iter} was not enough for tol={tol}. Raise one of the two."
        warn(message)
    return j


def lrsc(X: np.ndarray, *, tau: float = 100.0, alpha: float | None = None) -> np.ndarray:
    """Low-rank subspace clustering: low-rank coefficients of rows, or of rows freed of noise, in closed form.

    Minimises ``|C|_* + tau/2 |A - C A|_F^2 + alpha/2 |X - A|_F^2`` over C and, with ``alpha``, over A; without,
    ``A = X``. With the SVD ``A = U diag(a) V^T`` it is ``C = U diag(max(0, 1 - 1 / (tau a^2))) U^T``. A has the
    singular vectors of X and its singular values after polynomial thresholding. Source: "Low rank subspace clustering
    (LRSC)".

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows.
    tau : float, default=100.0
        Weight of the error, in absolute units, of 1 / X^2: singular values up to ``1 / sqrt(tau)`` are left out. The
        default is for rows of unit length.
    alpha : float, optional
        Weight of the noise, in the same units. None: there is none.

    Returns
    -------
    ndarray of shape (n, n)
        C, symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace.lowrank import lrsc
    >>> lrsc(np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 0.1]]), tau=1.0).round(3)
    array([[0.346, 0.461, 0.   ],
           [0.461, 0.614, 0.   ],
           [0.   , 0.   , 0.   ]])
    """
    X = check_rows(X)
    check_positive(tau=tau)
    u, a, _ = _thin_svd(X)
    if alpha is not None:
        check_positive(alpha=alpha)
        a = _threshold_polynomially(a, tau, alpha)
    return _product(u * (1 - 1 / np.maximum(tau * a**2, 1)), u, X.dtype)


def _threshold_polynomially(s: np.ndarray, tau: float, alpha: float) -> np.ndarray:
    """Minimise ``min_c(c + tau/2 (1 - c)^2 a^2) + alpha/2 (s - a)^2`` over a, for every s.

    Up to the edge ``a = 1 / sqrt(tau)`` c is 0 and a share of s is best. Beyond, ``x = a / s`` is the upper root of
    ``x^3 (1 - x) = 1 / (alpha tau s^4)``, above 3/4, where the left side has its top. Without a root the search ends
    at 3/4 itself, and the share costs less.
    """
    edge = 1 / np.sqrt(tau)
    low = np.minimum(s * alpha / (alpha + tau), edge)
    left, right = np.full((2, len(s)), [[0.75], [1.0]])
    for _ in range(55):  # halvings: all digits
        middle = (left + right) / 2
        below = middle**3 * (1 - middle) * (alpha * tau * s**4) > 1
        left, right = np.where(below, middle, left), np.where(below, right, middle)
    high = s * right

    def cost(a: np.ndarray) -> np.ndarray:
        best = np.where(a > edge, 1 - 1 / (2 * np.maximum(tau * a**2, 1)), tau * a**2 / 2)
        return best + alpha / 2 * (s - a) ** 2

    return np.where(cost(high) < cost(low), high, low)


def lsr1(X: np.ndarray, *, ridge: float) -> np.ndarray:
    """Least-squares regression of every row on the others, in closed form.

    Minimises ``|X - C X|_F^2 + ridge |C|_F^2`` with a zero diagonal: ``C_ij = -T_ij / T_ii`` with
    ``T = (X X^T + ridge I)^-1``. Source: LSR1 of "Robust and efficient subspace segmentation via least squares
    regression". The transpose of :func:`neuralclust.functional.self_expression`, in less memory and, for float32, with
    more digits.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows.
    ridge : float
        Above 0, in absolute units, of X^2. In float32 take at least 1e-6 of the squared length of a row.

    Returns
    -------
    ndarray of shape (n, n)
        C.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace.lowrank import lsr1
    >>> np.abs(lsr1(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), ridge=0.01).round(2))
    array([[0.  , 0.99, 0.  ],
           [0.99, 0.  , 0.  ],
           [0.  , 0.  , 0.  ]])
    """
    X = check_rows(X)
    check_positive(ridge=ridge)
    if X.shape[1] < len(X):
        half = _ridge_half(X, ridge)  # ridge T = I - half half^T
        C = _product(half, half, X.dtype)
        # T_ii is at least 1 / (X X^T + ridge I)_ii, which is all that rounding may leave of a row unlike all others.
        lengths = np.square(X, dtype=np.float64).sum(axis=1)
        own = np.maximum(1 - np.square(half).sum(axis=1), ridge / (lengths + ridge))
    else:
        w, v = _gram_eigh(X.T)
        C = (v / -(1 + w / ridge)) @ v.T  # -ridge T; as a difference it would lose the digits of a small ridge
        own, C = -C.diagonal(), C.astype(X.dtype)
    C /= own[:, None].astype(X.dtype)
    np.fill_diagonal(C, 0)
    return C


def lsr2(X: np.ndarray, *, ridge: float) -> np.ndarray:
    """Least-squares regression of every row on all rows, itself included, in closed form.

    Minimises ``|X - C X|_F^2 + ridge |C|_F^2``: ``C = X X^T (X X^T + ridge I)^-1``. Source: LSR2 of "Robust and
    efficient subspace segmentation via least squares regression".

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows.
    ridge : float
        Above 0, in absolute units, of X^2.

    Returns
    -------
    ndarray of shape (n, n)
        C, symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace.lowrank import lsr2
    >>> lsr2(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), ridge=0.01).round(2)
    array([[0.5 , 0.5 , 0.  ],
           [0.5 , 0.5 , 0.  ],
           [0.  , 0.  , 0.99]])
    """
    X = check_rows(X)
    check_positive(ridge=ridge)
    half = _ridge_half(X, ridge)
    return _product(half, half, X.dtype)


def smr(X: np.ndarray, *, alpha: float, n_neighbors: int = 4, eps: float = 0.01) -> np.ndarray:
    """Smooth representation: least squares with coefficients that are alike for neighbouring rows.

    Minimises ``alpha |X - C X|_F^2 + tr(C^T L C)``, where ``L = D - W + eps I`` and W has a 1 where one of two rows is
    among the nearest of the other. Solves ``L C + alpha C X X^T = alpha X X^T``, a Sylvester equation, by the
    eigenvectors of L and of ``X X^T``, at O(n^3). Source: "Smooth representation clustering".

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows.
    alpha : float
        Weight of the error, in absolute units, of 1 / X^2.
    n_neighbors : int, default=4
        Nearest rows of each by Euclidean distance; all others where there are not as many.
    eps : float, default=0.01
        Above 0; added to the eigenvalues of the Laplacian, which are between 0 and twice the largest degree.

    Returns
    -------
    ndarray of shape (n, n)
        C.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.subspace.lowrank import smr
    >>> smr(np.array([[1.0, 0.0], [0.8, 0.0], [0.0, 1.0], [0.0, 0.8]]), alpha=1.0, n_neighbors=1).round(2)
    array([[0.57, 0.46, 0.  , 0.  ],
           [0.52, 0.41, 0.  , 0.  ],
           [0.  , 0.  , 0.57, 0.46],
           [0.  , 0.  , 0.52, 0.41]])
    """
    X = check_rows(X)
    check_positive(alpha=alpha, n_neighbors=n_neighbors, eps=eps)
    graph = np.zeros((len(X), len(X)))
    np.put_along_axis(graph, nearest_neighbors(torch.tensor(X), n_neighbors).numpy(), 1, axis=1)
    graph = np.maximum(graph, graph.T)
    w, q = np.linalg.eigh(np.diag(graph.sum(axis=1) + eps) - graph)
    u, s, _ = _thin_svd(X)  # beside U there is no error to reduce, and C is 0
    error = alpha * s**2
    return _product(q @ (q.T @ u * (error / (np.maximum(w, eps)[:, None] + error))), u, X.dtype)


def _thin_svd(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U, s and V^T in float64, without the singular values that are 0 as far as the dtype of X can tell."""
    u, s, vt = np.linalg.svd(np.asarray(X, np.float64), full_matrices=False)
    rank = int((s > max(X.shape) * np.finfo(X.dtype).eps * s[0]).sum())
    return u[:, :rank], s[:rank], vt[:rank]


def _gram_eigh(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, none below 0, and eigenvectors of ``a^T a``, in float64."""
    a = np.asarray(a, np.float64)
    w, v = np.linalg.eigh(a.T @ a)
    return np.maximum(w, 0), v


def _ridge_half(X: np.ndarray, ridge: float) -> np.ndarray:
    """H in float64 with ``H H^T = X X^T (X X^T + ridge I)^-1``, by the smaller Gram matrix."""
    if X.shape[1] < len(X):
        w, v = _gram_eigh(X)
        return X @ (v / np.sqrt(w + ridge))
    w, v = _gram_eigh(X.T)
    return v * np.sqrt(w / (w + ridge))


def _product(a: np.ndarray, b: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """``a b^T``. The copy is for ``b is a``: NumPy would fill the other triangle by a loop, which is slower."""
    return np.ascontiguousarray(a, dtype) @ b.astype(dtype, order="C", copy=True).T


def _shrink(a: np.ndarray, threshold: float, *, rows: bool) -> np.ndarray:
    """Rows or entries moved towards 0 by ``threshold``, and to 0 within it."""
    size = np.linalg.norm(a, axis=1, keepdims=True) if rows else np.abs(a)
    return a * (1 - threshold / np.maximum(size, threshold))


def _shrink_singular_values(a: np.ndarray, threshold: float) -> np.ndarray:
    """The same for singular values. By the Gram matrix of the columns: a fraction of the time of an SVD."""
    w, v = _gram_eigh(a)
    return a @ ((v * (1 - threshold / np.maximum(np.sqrt(w), threshold))) @ v.T)
