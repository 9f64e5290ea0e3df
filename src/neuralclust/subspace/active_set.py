"""Lasso and elastic net of every row over the others, exactly: an active set, many rows at a time.

A block of rows is solved over the few others that matter, then one product with all rows shows whether more do. Nothing
of n x n entries is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_info, threadpool_limits

from neuralclust._warn import warn

_BLOCK_BYTES = 2**27  # of the products of a block of rows with all rows
_GRAM_BYTES = 2**26  # of the Gram matrices of the supports solved together, and of the rows of supports
_ROWS = 256  # of a block
_THREADS = 8  # at most, each with a block
_SUPPORT = 64  # others that a row starts with
_SWEEPS = 20  # of coordinate descent, which find most of a support
_TOGETHER = 30  # steps in which several may join a support
_ROUNDING = 10  # how far the product of orthogonal rows is from 0, in units of what rounding leaves as a rule
_STEPS = 4  # joining or leaving, for each of the support, before a problem counts as not solved


class Dictionary(Protocol):
    """What rows are expressed by: their products, however they are had."""

    n: int
    dtype: np.dtype
    lengths: np.ndarray  # (n,) of the rows
    rounding: float  # share of two rows' lengths that a product may be off

    def rows(self, block: slice) -> np.ndarray:
        """Products (b, n) of a block's rows with all rows."""

    def gram(self, support: np.ndarray) -> np.ndarray:
        """Products (b, s, s) of the rows of each support (b, s) with one another."""

    def explained(self, support: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Products (b, n) of the combinations ``c`` (b, s) with all rows."""


class Rows:
    """The rows themselves."""

    def __init__(self, X: np.ndarray):
        self.X, self.n, self.dtype = X, len(X), X.dtype
        self.lengths, self.rounding = lengths_of(X), rounding(X.dtype, most_terms(X))

    def rows(self, block: slice) -> np.ndarray:
        return self.X[block] @ self.X.T

    def _parts(self, support: np.ndarray) -> Iterator[slice]:
        """A few supports at a time, whose rows fit into memory."""
        b, s = support.shape
        size = max(1, _GRAM_BYTES // (8 * max(1, s) * self.X.shape[1]))
        return (slice(i, i + size) for i in range(0, b, size))

    def gram(self, support: np.ndarray) -> np.ndarray:
        products = np.empty((*support.shape, support.shape[1]))
        for part in self._parts(support):
            # In float64: of close rows rounding leaves no positive matrix.
            some = self.X[support[part]].astype(np.float64, copy=False)
            products[part] = some @ some.transpose(0, 2, 1)
        return products

    def explained(self, support: np.ndarray, c: np.ndarray) -> np.ndarray:
        combined = np.empty((len(c), self.X.shape[1]), self.X.dtype)
        for part in self._parts(support):
            combined[part] = (c[part].astype(self.X.dtype)[:, None] @ self.X[support[part]])[:, 0]
        return combined @ self.X.T


class Kernel:
    """Rows known by a kernel alone."""

    def __init__(self, K: np.ndarray, made_in: np.dtype):
        self.K, self.n, self.dtype = K, len(K), K.dtype
        self.lengths, self.rounding = np.sqrt(np.maximum(np.diagonal(K), 0)), rounding(made_in, len(K))

    def rows(self, block: slice) -> np.ndarray:
        return self.K[block].copy()

    def gram(self, support: np.ndarray) -> np.ndarray:
        return self.K[support[:, :, None], support[:, None, :]]

    def explained(self, support: np.ndarray, c: np.ndarray) -> np.ndarray:
        b, s = support.shape
        spread = sp.csr_array((c.ravel(), support.ravel(), np.arange(0, b * s + 1, s)), shape=(b, self.n))
        return spread @ self.K


def blocks(dictionary: Dictionary) -> list[slice]:
    """Rows whose products with all rows fit into memory."""
    n = dictionary.n
    size = max(1, min(_ROWS, _BLOCK_BYTES // (dictionary.dtype.itemsize * n)))
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def lengths_of(X: np.ndarray) -> np.ndarray:
    """Lengths (n,) of rows (n, d) in float64, which holds the squares of float32."""
    return np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64))


def rounding(dtype: np.dtype, terms: int) -> float:
    """Share of two rows' lengths up to which their product, a sum of so many terms, means nothing."""
    return _ROUNDING * math.sqrt(terms) * float(np.finfo(dtype).eps)


def most_terms(X: np.ndarray) -> int:
    """Of the product of two rows: zeros do not round."""
    return int(np.count_nonzero(X, axis=1).max(initial=0))


def other_products(dictionary: Dictionary, block: slice) -> tuple[np.ndarray, np.ndarray]:
    """Products (b, n) of a block's rows with all others, 0 for themselves, and the largest size (b,) of each row's.

    A row that is orthogonal to all others has nothing but rounding here, which no weight may call a correlation: it
    gets zeros.
    """
    products = dictionary.rows(block)
    rows = np.arange(len(products))
    products[rows, block.start + rows] = 0
    lengths, least = dictionary.lengths, dictionary.rounding * dictionary.lengths[block]
    most = np.abs(products).max(axis=1)
    doubtful = np.flatnonzero(most <= least * lengths.max())
    nothing = (np.abs(products[doubtful]) <= least[doubtful, None] * lengths).all(axis=1)
    products[doubtful[nothing]], most[doubtful[nothing]] = 0, 0
    return products, most


Progress = Callable[[float], object]
Penalties = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def active_set(
    dictionary: Dictionary, penalties: Penalties, tol: float, on_progress: Progress | None = None, max_rounds: int = 50
) -> sp.csr_array:
    """For every row minimise ``l1 |c|_1 + l2 / 2 |c|^2 - b . c + c . G c / 2``, b and G its and their products.

    ``penalties`` gives l1 and l2 of rows from the largest entry of their b. A row is solved over its support; others
    whose correlation with what is left exceeds l1 join it, and those with coefficient 0 leave.
    """
    n, dtype = dictionary.n, dictionary.dtype
    parts, failed, all_blocks = [], set(), blocks(dictionary)
    # The products are many and small: a thread a block, rather than all threads for each product.
    found = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    threads = min(max(found, default=1), _THREADS)
    pool = ThreadPoolExecutor(threads)
    try:
        with threadpool_limits(1, user_api="blas"):
            solve = partial(_block, dictionary, penalties, tol, max_rounds)
            for block, (part, missed) in zip(all_blocks, pool.map(solve, all_blocks), strict=True):
                parts.append(part)
                failed |= missed
                if on_progress is not None:
                    on_progress(block.stop / n)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for no more than the blocks at work
    if failed:
        warn(
            f"{len(failed)} of {n} rows have coefficients that miss the optimality conditions by more than "
            f"tol={tol}. A smaller gamma or alpha helps, or a larger tol of the function.",
        )
    return sp.csr_array(sp.vstack(parts, format="csr"), dtype=dtype)


def _block(
    dictionary: Dictionary, penalties: Penalties, tol: float, max_rounds: int, block: slice
) -> tuple[sp.csr_array, set[int]]:
    """Coefficients of a block of rows, and which rows were not solved."""
    n, dtype, failed = dictionary.n, dictionary.dtype, set()
    b, most = other_products(dictionary, block)
    most = most.astype(np.float64)
    l1, l2 = penalties(most)
    slack = max(tol, 10 * float(np.finfo(dtype).eps)) * np.maximum(most, l1)
    size = min(_SUPPORT, n - 1)
    found = [sp.csr_array((len(b), n), dtype=dtype)]
    todo = np.flatnonzero(most > l1)
    itself = block.start + todo
    near = np.abs(b[todo])
    near[np.arange(len(todo)), itself] = -1
    support = np.argpartition(-near, size - 1, axis=1)[:, :size] if size else np.zeros((len(todo), 0), int)
    c = np.zeros(support.shape)
    for _ in range(max_rounds):
        if not len(todo):
            break
        own = np.take_along_axis(b[todo], support, axis=1).astype(np.float64)
        size = max(1, _GRAM_BYTES // (8 * max(support.shape[1], 1) ** 2))
        for part in (slice(i, i + size) for i in range(0, len(todo), size)):
            empty = support[part] == itself[part, None]  # a place that nobody has taken
            G = dictionary.gram(support[part]).astype(np.float64)
            G[empty[:, :, None] | empty[:, None, :]] = 0
            own[part][empty] = 0
            some = todo[part]
            c[part], unsolved = _solve(G, own[part], c[part], l1[some], l2[some], slack[some])
            failed.update(itself[part][unsolved].tolist())
        rest = np.abs(b[todo] - dictionary.explained(support, c))
        np.put_along_axis(rest, support, 0, axis=1)
        rest[np.arange(len(todo)), itself] = 0
        excess = rest - (l1 + slack)[todo, None]
        more = (excess > 0).sum(axis=1)
        found.append(_scatter(c[more == 0], support[more == 0], todo[more == 0], (len(b), n), dtype))
        keep = more > 0
        todo, itself = todo[keep], itself[keep]
        failed.difference_update(itself.tolist())  # another round
        support, c = _grow(support[keep], c[keep], excess[keep], itself, int(more.max(initial=0)))
    failed.update(itself.tolist())
    found.append(_scatter(c, support, todo, (len(b), n), dtype))
    return sum(found[1:], found[0]), failed


def _grow(support, c, excess, itself, more):
    """Supports without the rows whose coefficient is 0, and with the worst of those that should join."""
    kept = int((c != 0).sum(axis=1).max(initial=0))
    room = min(max(_SUPPORT // 2, kept), more)
    order = np.argsort(c == 0, axis=1, kind="stable")[:, :kept]  # those in use first
    c, support = np.take_along_axis(c, order, axis=1), np.take_along_axis(support, order, axis=1)
    support = np.where(c == 0, itself[:, None], support)
    joining = np.argpartition(-excess, room - 1, axis=1)[:, :room] if room else support[:, :0]
    joining = np.where(np.take_along_axis(excess, joining, axis=1) > 0, joining, itself[:, None])
    return np.hstack([support, joining]), np.hstack([c, np.zeros(joining.shape)])


def _scatter(c, support, rows, shape, dtype) -> sp.csr_array:
    i, j = np.nonzero(c)
    return sp.csr_array((c[i, j].astype(dtype), (rows[i], support[i, j])), shape=shape)


def _solve(G, b, c, l1, l2, slack):
    """Many small problems at once: coordinate descent to near the solution, then a primal active set to it.

    G (m, s, s), b and c (m, s), the others (m,). Float64. Beside the solution: which problems were not solved.
    """
    x = _descend(G, b, c, l1[:, None], l2[:, None])
    sign = np.sign(x)
    open_ = np.arange(len(x))
    for step in range(_STEPS * (1 + x.shape[1])):
        if not len(open_):
            return x, open_
        own, at, to = G[open_], x[open_], sign[open_]
        a1, a2, some = l1[open_, None], l2[open_, None], np.arange(len(open_))
        # Towards the solution for these signs, up to where the first of them would change: it leaves.
        y = _on_support(own, b[open_], to, a1, a2)
        wrong = (to != 0) & (y * to <= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(wrong, np.nan_to_num(at / (at - y)), 1.0)
        first = share.min(axis=1, initial=1.0)[:, None]
        at = at + first * (y - at)
        leaves = wrong & (share <= first)
        at[leaves], to[leaves] = 0.0, 0.0
        # At that solution those join whose correlation with what is left is most above l1; if none is, it is solved.
        # In the end one by one, which is slow and sure to end: the objective falls with each.
        left = b[open_] - (own @ at[:, :, None])[:, :, 0] - a2 * at
        excess = np.where(to == 0, np.abs(left) - a1, -np.inf)
        joins = excess.argmax(axis=1)
        there = ~wrong.any(axis=1)
        solved = there & (excess[some, joins] <= slack[open_])
        share = 0.5 if step < _TOGETHER else 1.0
        join = (excess >= share * excess[some, joins][:, None]) & (there & ~solved)[:, None]
        to[join] = np.sign(left[join])
        x[open_], sign[open_] = at, to
        open_ = open_[~solved]
    return x, open_


def _descend(G, b, x, l1, l2):
    left = b - (G @ x[:, :, None])[:, :, 0]
    curved = np.diagonal(G, axis1=1, axis2=2) + l2
    curved = np.where(curved > 0, curved, np.inf)  # a row of zeros explains nothing
    diagonal = np.diagonal(G, axis1=1, axis2=2)
    x = x.copy()
    for _ in range(_SWEEPS):
        for j in range(x.shape[1]):
            pull = left[:, j] + diagonal[:, j] * x[:, j]
            new = np.sign(pull) * np.maximum(np.abs(pull) - l1[:, 0], 0) / curved[:, j]
            step = new - x[:, j]
            if step.any():
                left -= step[:, None] * G[:, j]
                x[:, j] = new
    return x


def _on_support(G, b, sign, l1, l2):
    """The solution if the signs are right: one linear system for each problem, of the size of the largest support."""
    order = np.argsort(sign == 0, axis=1, kind="stable")[:, : int((sign != 0).sum(axis=1).max(initial=0))]
    signs = np.take_along_axis(sign, order, axis=1)
    used, rows, at = signs != 0, np.arange(len(sign))[:, None], np.arange(order.shape[1])
    system = G[rows[:, :, None], order[:, :, None], order[:, None, :]] * (used[:, :, None] & used[:, None, :])
    scale = np.maximum(system[:, at, at].max(axis=1, initial=0.0), 1e-300)[:, None]
    system[:, at, at] += np.where(used, l2 + 1e-13 * scale, 1.0)
    right = np.where(used, np.take_along_axis(b, order, axis=1) - l1 * signs, 0.0)
    found = np.zeros(sign.shape)
    np.put_along_axis(found, order, np.linalg.solve(system, right[:, :, None])[:, :, 0], axis=1)
    return found
