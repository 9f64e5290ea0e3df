"""Dense self-expressive coefficients: each solver against an independent one, and what holds on unions of subspaces."""

import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.linalg as sl
import torch
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from neuralclust.functional import self_expression
from neuralclust.subspace.lowrank import lrr, lrsc, lsr1, lsr2, smr

SOLVERS = {
    "lrr": lambda X: lrr(X, lam=0.3, tol=1e-9, max_iter=20000),
    "lrr entry": lambda X: lrr(X, lam=0.2, noise="entry", tol=1e-9, max_iter=20000),
    "lrr noise-free": lambda X: lrr(X, lam=None),
    "lrsc": lambda X: lrsc(X, tau=20.0),
    "lrsc alpha": lambda X: lrsc(X, tau=20.0, alpha=15.0),
    "lsr1": lambda X: lsr1(X, ridge=0.1),
    "lsr2": lambda X: lsr2(X, ridge=0.1),
    "smr": lambda X: smr(X, alpha=2.0),
}
SHAPES = [(24, 7), (12, 12), (12, 30), (30, 29)]


@pytest.fixture(params=SOLVERS)
def solver(request):
    return SOLVERS[request.param]


def table(n, d, rank=None, seed=0):
    """Rows of about unit length, of rank ``rank`` if given."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) if rank is None else rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    return X * np.sqrt(n) / np.linalg.norm(X)


def union(n=60, d=20, k=3, dim=3, noise=0.0, seed=0):
    """Unit rows of k independent subspaces, and which rows share one."""
    rng = np.random.default_rng(seed)
    X = np.vstack([rng.normal(size=(n // k, dim)) @ rng.normal(size=(dim, d)) for _ in range(k)])
    X = X / np.linalg.norm(X, axis=1, keepdims=True) + noise * rng.normal(size=(n, d))
    y = np.repeat(np.arange(k), n // k)
    return X, y[:, None] == y


def nuclear(C):
    return np.linalg.svd(C, compute_uv=False).sum()


def size_of_noise(E, noise):
    return np.linalg.norm(E, axis=1).sum() if noise == "row" else np.abs(E).sum()


def is_subgradient_of_nuclear_norm(G, C, tol=1e-6):
    """At C: 1 on its singular vectors, nothing between them and the rest, at most 1 on the rest."""
    u, s, vt = np.linalg.svd(C)
    rank = int((s > tol).sum())
    inner = u.T @ G @ vt.T
    expected = np.zeros_like(inner)
    expected[:rank, :rank] = np.eye(rank)
    inner[rank:, rank:], rest = 0, inner[rank:, rank:]
    return np.allclose(inner, expected, atol=tol) and np.linalg.norm(rest, 2) <= 1 + tol


def lrr_multiplier(X, C, lam, noise):
    """Y with ``Y X^T`` in the subdifferential at C and Y in lam times that at E: known where E is not 0.

    The rest solves the equations of the first and is kept within bounds, by alternate reflections.
    """
    E = X - C @ X
    length = np.linalg.norm(E, axis=1, keepdims=True) if noise == "row" else np.abs(E)
    known = np.broadcast_to(length > 1e-6, E.shape)
    Y = np.where(known, lam * E / np.maximum(length, 1e-300), 0)
    u, s, vt = np.linalg.svd(C)
    rank = int((s > 1e-6).sum())
    u, v = u[:, :rank], vt[:rank].T
    free = np.flatnonzero(~known)
    n = len(X)
    system = np.vstack([np.kron(u.T, X), np.kron(np.eye(n), v.T @ X)])[:, free]  # u^T Y X^T = v^T, Y X^T v = u
    wanted = np.concatenate([(v.T - u.T @ Y @ X.T).ravel(), (u - Y @ X.T @ v).ravel()])
    inverse = np.linalg.pinv(system, rcond=1e-10)
    y = inverse @ wanted
    for _ in range(2000):
        Y.flat[free] = y
        size = np.linalg.norm(Y, axis=1, keepdims=True) if noise == "row" else np.abs(Y)
        bounded = (Y * np.minimum(1, lam / np.maximum(size, 1e-300))).flat[free]
        step = 2 * bounded - y
        step = step + inverse @ (wanted - system @ step) - bounded
        if np.abs(step).max(initial=0) < 1e-9:
            break
        y = y + step
    Y.flat[free] = bounded
    return Y


@pytest.mark.parametrize(("n", "d", "rank"), [(20, 8, None), (20, 8, 3), (10, 25, None), (10, 25, 4)])
@pytest.mark.parametrize("lam", [None, np.inf, 1e3])
def test_lrr_without_noise_is_the_projection_on_the_columns(n, d, rank, lam):
    X = table(n, d, rank)
    C = lrr(X, lam=lam, tol=1e-10, max_iter=5000)
    assert np.allclose(C, X @ np.linalg.pinv(X, rcond=1e-10), atol=1e-6)


@pytest.mark.parametrize("noise", ["row", "entry"])
@pytest.mark.parametrize("lam", [0.1, 0.3, 0.4, 0.5, 0.8])
@pytest.mark.parametrize(
    "X",
    [
        table(14, 6),
        table(10, 16),
        table(14, 9, 4),
        union(18, 10, 2, 2, 0.1)[0],
        np.vstack([union(12, 10, 2, 2)[0], table(2, 10)]),
    ],
    ids=["long", "wide", "low rank", "noisy", "outliers"],
)
def test_lrr_has_no_duality_gap(X, lam, noise):
    """A feasible Y bounds the minimum from below by <Y, X>; one from the optimality conditions meets the objective."""
    C = lrr(X, lam=lam, noise=noise, tol=1e-11, max_iter=20000)
    Y = lrr_multiplier(X, C, lam, noise)
    largest = np.linalg.norm(Y, axis=1).max() if noise == "row" else np.abs(Y).max()
    Y = Y / max(1, np.linalg.norm(Y @ X.T, 2), largest / lam)
    objective = nuclear(C) + lam * size_of_noise(X - C @ X, noise)
    assert (Y * X).sum() == pytest.approx(objective, rel=1e-6)


def test_the_duality_gap_tells_a_wrong_weight():
    """What the test above would see of a solver that is off: the gap of the answer to another weight."""
    X = table(14, 6)
    C = lrr(X, lam=0.3, tol=1e-11, max_iter=20000)
    Y = lrr_multiplier(X, C, 0.33, "row")
    Y = Y / max(1, np.linalg.norm(Y @ X.T, 2), np.linalg.norm(Y, axis=1).max() / 0.33)
    objective = nuclear(C) + 0.33 * size_of_noise(X - C @ X, "row")
    assert (Y * X).sum() < objective * (1 - 1e-4)


@pytest.mark.parametrize("noise", ["row", "entry"])
def test_lrr_scales_with_the_rows(noise):
    X = table(15, 8)
    C = lrr(X, lam=0.25, noise=noise, tol=1e-9, max_iter=5000)
    assert np.abs(C).max() > 0.05
    assert np.allclose(lrr(1e3 * X, lam=0.25e-3, noise=noise, tol=1e-9, max_iter=5000), C, atol=1e-6)


@pytest.mark.parametrize(
    ("X", "lam", "noise"),
    [(union(90, noise=0.1)[0], 0.1, "row"), (union(noise=0.3)[0], 0.4, "entry")],
    ids=["row", "entry"],
)
def test_lrr_default_precision_is_near_the_minimum(X, lam, noise):
    def objective(C):
        return nuclear(C) + lam * size_of_noise(X - C @ X, noise)

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        found = lrr(X, lam=lam, noise=noise)
    assert objective(found) == pytest.approx(
        objective(lrr(X, lam=lam, noise=noise, tol=1e-11, max_iter=20000)), rel=1e-4
    )
    assert 0.1 < np.linalg.norm(found) < 5


@pytest.mark.parametrize("lam", [0.02, 0.05])
def test_lrr_takes_a_few_hundred_iterations(lam):
    """Without balanced penalties, or with multipliers that do not follow them, it would be over a thousand."""
    X = load_digits().data[:100]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        lrr(X / np.linalg.norm(X, axis=1, keepdims=True), lam=lam, noise="entry", max_iter=450)


@pytest.mark.parametrize("lam", [0.3, 0.4])
def test_lrr_puts_the_outliers_into_the_noise(lam):
    X, same = union(60, 30, 2, 2)
    rng = np.random.default_rng(1)
    outliers = rng.choice(60, 5, replace=False)
    X[outliers] = rng.normal(size=(5, 30)) / np.sqrt(30)
    inliers = np.setdiff1d(np.arange(60), outliers)
    C = lrr(X, lam=lam, tol=1e-9, max_iter=10000)
    noise = np.linalg.norm(X - C @ X, axis=1)
    assert noise[outliers].min() > 0.3
    assert noise[inliers].max() < 1e-5
    inner = np.ix_(inliers, inliers)
    assert np.abs(C[inner][same[inner]]).mean() > 10 * np.abs(C[inner][~same[inner]]).mean()


def test_lrr_tells_that_it_stopped_early():
    with pytest.warns(ConvergenceWarning, match="max_iter=3 was not enough for tol=1e-05"):
        lrr(table(20, 8), lam=0.2, max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lrr(table(20, 8), lam=0.2, max_iter=3, tol=0)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("tau", [0.5, 3.0, 100.0])
def test_lrsc_is_stationary(n, d, tau):
    """``tau (X - C X) X^T`` in the subdifferential of the nuclear norm at C: the minimum, as the problem is convex."""
    X = table(n, d)
    C = lrsc(X, tau=tau)
    assert np.linalg.matrix_rank(C, tol=1e-8) > 0
    assert is_subgradient_of_nuclear_norm(tau * (X - C @ X) @ X.T, C)


def scalar_lrsc(s, tau, alpha):
    """The best c and a for one singular value, by search over both."""

    def cost(v):
        return np.abs(v[0]) + tau / 2 * (v[1] * (1 - v[0])) ** 2 + alpha / 2 * (s - v[1]) ** 2

    grid = np.array([g.ravel() for g in np.meshgrid(np.linspace(0, 1, 401), np.linspace(0, s, 401))])
    start = grid[:, np.argmin(cost(grid))]
    best = minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-15, "maxiter": 2000})
    return best.x[0]


@pytest.mark.parametrize("tau", [0.3, 2.0, 50.0])
@pytest.mark.parametrize("alpha", [0.4, 5.0, 1000.0])
@pytest.mark.parametrize("s", [0.2, 0.7, 1.1, 1.6, 3.0])
def test_lrsc_with_noise_against_a_search(s, tau, alpha):
    assert lrsc(np.array([[s]]), tau=tau, alpha=alpha).item() == pytest.approx(scalar_lrsc(s, tau, alpha), abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(12, 5), (5, 12)])
def test_lrsc_with_noise_treats_singular_values_one_by_one(n, d):
    rng = np.random.default_rng(0)
    s = np.array([3.0, 1.9, 1.2, 0.8, 0.1])
    u, v = (np.linalg.qr(rng.normal(size=(m, 5)))[0] for m in (n, d))
    weights = [scalar_lrsc(value, 2.0, 5.0) for value in s]
    assert weights[4] == pytest.approx(0, abs=1e-6)
    assert weights[2] > 0.1
    assert np.allclose(lrsc((u * s) @ v.T, tau=2.0, alpha=5.0), (u * weights) @ u.T, atol=1e-6)


def test_lrsc_with_little_noise_is_lrsc_without():
    X = table(15, 8)
    assert np.allclose(lrsc(X, tau=5.0, alpha=1e9), lrsc(X, tau=5.0), atol=1e-6)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("ridge", [1e-3, 0.5, 20.0])
def test_lsr1_is_ridge_regression_on_the_others(n, d, ridge):
    X = table(n, d)
    expected = np.zeros((n, n))
    for i in range(n):
        others = np.delete(np.arange(n), i)
        gram = X[others] @ X[others].T + ridge * np.eye(n - 1)
        expected[i, others] = np.linalg.solve(gram, X[others] @ X[i])
    C = lsr1(X, ridge=ridge)
    assert np.allclose(C, expected, atol=1e-6)
    assert np.allclose(C.T, self_expression(torch.from_numpy(X), ridge).numpy(), atol=1e-6)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("ridge", [1e-3, 0.5, 20.0])
def test_lsr2_is_its_formula(n, d, ridge):
    X = table(n, d)
    gram = X @ X.T
    assert np.allclose(lsr2(X, ridge=ridge), gram @ np.linalg.inv(gram + ridge * np.eye(n)), atol=1e-6)


def test_lsr1_of_a_tiny_ridge_is_exact_where_the_rows_are_independent():
    """Its limit are the inverse Gram matrix's rows over its diagonal, which 1 minus shrunk eigenvalues would lose."""
    X = table(10, 30)
    inverse = np.linalg.inv(X @ X.T)
    expected = -inverse / inverse.diagonal()[:, None]
    np.fill_diagonal(expected, 0)
    assert np.allclose(lsr1(X, ridge=1e-12), expected, atol=1e-8)


@pytest.mark.parametrize("d", [5, 40])
@pytest.mark.parametrize("length", [1.0, 1e3, 1e5])
def test_lsr1_of_a_row_unlike_all_others_and_no_ridge_to_speak_of(d, length):
    """Its leverage is 1 to the last digit: what is left beside it must not become a division by 0."""
    X = np.random.default_rng(0).normal(size=(20, d)).astype("float32")
    X[:, 0] = 0
    X[3] = length * np.eye(d, dtype="float32")[0]
    C = lsr1(X, ridge=1e-9)
    assert np.isfinite(C).all()
    assert np.abs(C[3]).max() < 1e-6


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize(("alpha", "n_neighbors", "eps"), [(0.1, 3, 0.01), (5.0, 4, 0.01), (200.0, 1, 0.5)])
def test_smr_solves_its_sylvester_equation(n, d, alpha, n_neighbors, eps):
    X = table(n, d)
    nearest = np.argsort(cdist(X, X), axis=1)[:, 1 : n_neighbors + 1]
    W = np.zeros((n, n))
    for i in range(n):
        W[i, nearest[i]] = W[nearest[i], i] = 1
    L = np.diag(W.sum(axis=1)) - W + eps * np.eye(n)
    gram = alpha * X @ X.T
    C = smr(X, alpha=alpha, n_neighbors=n_neighbors, eps=eps)
    assert np.allclose(L @ C + C @ gram, gram, atol=1e-6)
    assert np.allclose(C, sl.solve_sylvester(L, gram, gram), atol=1e-6)


def test_defaults():
    X = table(20, 6)
    assert np.array_equal(lrr(X), lrr(X, lam=1.0, noise="row", max_iter=1000, tol=1e-5))
    assert np.array_equal(lrsc(X), lrsc(X, tau=100.0, alpha=None))


def test_smr_defaults():
    X = table(20, 6)
    assert np.array_equal(smr(X, alpha=1.0), smr(X, alpha=1.0, n_neighbors=4, eps=0.01))
    assert not np.allclose(smr(X, alpha=1.0), smr(X, alpha=1.0, n_neighbors=5))
    assert np.allclose(smr(X, alpha=1.0, n_neighbors=50), smr(X, alpha=1.0, n_neighbors=19))


@pytest.mark.parametrize(
    ("solve", "atol"),
    [
        (lambda X: lrr(X, lam=None), 1e-9),
        (lambda X: lrr(X, lam=2.0, tol=1e-9, max_iter=5000), 1e-6),
        (lambda X: lsr2(X, ridge=1e-8), 1e-6),
        (lambda X: lsr1(X, ridge=1e-8), 1e-6),
        (lambda X: lrsc(X, tau=1e8), 1e-6),
        (lambda X: lrsc(X, tau=1e8, alpha=1e8), 1e-6),
    ],
)
@pytest.mark.parametrize("d", [20, 80])
def test_independent_subspaces_give_blocks(solve, atol, d):
    X, same = union(60, d, 3, 3)
    C = solve(X)
    assert np.abs(C[~same]).max() < atol
    assert np.abs(C[same]).mean() > 0.02
    assert np.allclose(C @ X, X, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("rank", [None, 4])
def test_a_basis_with_more_columns_changes_nothing(solver, rank, noise, request):
    """The ways for fewer columns than rows and for more agree."""
    if "entry" in request.node.callspec.id:
        wide = np.eye(30)[:9]  # noise in entries counts them along the axes
    else:
        wide = np.linalg.qr(np.random.default_rng(1).normal(size=(30, 9)))[0].T
    X = table(16, 9, rank) + noise * table(16, 9, seed=2)
    assert np.allclose(solver(X @ wide), solver(X), atol=1e-6)


DEGENERATE = {
    "one row": lambda: table(1, 4),
    "one row of zeros": lambda: np.zeros((1, 3)),
    "zeros": lambda: np.zeros((5, 3)),
    "a row of zeros": lambda: np.vstack([table(9, 4), np.zeros(4)]),
    "duplicates": lambda: np.repeat(table(3, 5), 4, axis=0),
    "duplicates, wide": lambda: np.repeat(table(3, 20), 4, axis=0),
    "one row only": lambda: np.ones((7, 3)),
    "one column": lambda: table(8, 1),
    "low rank": lambda: table(20, 10, 2),
    "two rows": lambda: table(2, 2),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_rows(solver, kind, dtype):
    X = DEGENERATE[kind]().astype(dtype)
    X.flags.writeable = False
    before = X.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        C = solver(X)
    assert C.shape == (len(X), len(X))
    assert C.dtype == dtype
    assert np.isfinite(C).all()
    assert np.array_equal(X, before)
    assert np.abs(C).max() < 2
    zero = ~X.any(axis=1)
    assert not np.abs(C[:, zero]).max(initial=0) > 1e-6  # no row is expressed by zeros


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "smr"])
def test_duplicates_are_expressed_alike(name):
    C = SOLVERS[name](np.repeat(3 * table(4, 6), 3, axis=0))
    within = C + np.eye(12) * C[0, 1] if name == "lsr1" else C  # without itself
    assert np.abs(C[0, 1]) > 0.05
    assert np.allclose(within[0], within[1], atol=1e-4)


def test_float32_is_as_good_as_its_digits(solver):
    X = table(40, 12).astype("float32")
    C = solver(X)
    assert C.dtype == np.float32
    assert np.allclose(C, solver(X.astype(float)), atol=1e-5)


@pytest.mark.parametrize("solve", [lsr1, lsr2, lambda X, ridge: lrsc(X), lambda X, ridge: lrr(X, lam=None)])
def test_memory_is_that_of_the_coefficients(solve):
    X = table(1500, 10).astype("float32")
    solve(X[:20], ridge=1.0)
    tracemalloc.start()
    C = solve(X, ridge=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * C.nbytes  # two of them, or one of float64, would be 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X: lrr(X, lam=0), r"lam=0 must be above 0\."),
        (lambda X: lrr(X, lam=float("nan")), r"lam=nan must be above 0\."),
        (lambda X: lrr(X, noise="rows"), r"noise='rows' must be one of \('row', 'entry'\)\."),
        (lambda X: lrr(X, max_iter=0), r"max_iter=0 must be above 0\."),
        (lambda X: lrr(X, tol=-1e-3), r"tol=-0.001 must be at least 0\."),
        (lambda X: lrsc(X, tau=-1.0), r"tau=-1.0 must be above 0\."),
        (lambda X: lrsc(X, tau=1.0, alpha=0), r"alpha=0 must be above 0\."),
        (lambda X: lrsc(X, tau=float("inf")), r"tau=inf must be finite\."),
        (lambda X: lsr1(X, ridge=0), r"ridge=0 must be above 0\."),
        (lambda X: lsr2(X, ridge=0), r"ridge=0 must be above 0\."),
        (lambda X: smr(X, alpha=0), r"alpha=0 must be above 0\."),
        (lambda X: smr(X, alpha=1.0, eps=0), r"eps=0 must be above 0\."),
        (lambda X: smr(X, alpha=1.0, n_neighbors=0), r"n_neighbors=0 must be above 0\."),
    ],
)
def test_parameters_that_make_no_sense(call, message):
    with pytest.raises(ValueError, match=message):
        call(table(6, 3))
