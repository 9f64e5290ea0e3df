"""Lasso, elastic net and pursuit: optimality conditions, other solvers, and what is known of subspaces."""

import tracemalloc
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, Lasso, OrthogonalMatchingPursuit
from sklearn.metrics.pairwise import rbf_kernel

from neuralclust.subspace import active_set, affinity, elastic_net, kernel_ssc, pursuit, ssc, ssc_omp
from neuralclust.subspace.sparse import _ssc_admm
from tests.subspace.conftest import union_of_subspaces


def products(X):
    """Absolute, without those of a row with itself."""
    G = np.abs(X @ X.T)
    np.fill_diagonal(G, 0)
    return G


def violation(gradient, c, l1):
    """How far ``gradient`` is from ``l1`` times the subdifferential of the absolute values, off the diagonal."""
    wrong = np.where(c == 0, np.maximum(np.abs(gradient) - l1, 0), np.abs(gradient - l1 * np.sign(c)))
    np.fill_diagonal(wrong, 0)
    return wrong.max()


def share_within(C, y):
    C = np.abs(C.toarray() if hasattr(C, "toarray") else C)
    return C[y[:, None] == y].sum() / C.sum()


@pytest.mark.parametrize("alpha", [2.0, 20.0, 800.0])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_ssc_is_optimal(alpha, noise):
    X, _ = union_of_subspaces(noise=noise)
    C = ssc(X, alpha=alpha).toarray()
    weight = alpha / products(X).max(axis=1).min()
    assert violation(weight * (X - C @ X) @ X.T, C, 1.0) < 1e-6
    assert np.abs(np.diagonal(C)).max() == 0
    assert (C != 0).any(axis=1).all()


@pytest.mark.parametrize(("gamma", "l1_ratio"), [(5.0, 0.9), (50.0, 0.5), (500.0, 0.9), (50.0, 1.0)])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_elastic_net_is_optimal(gamma, l1_ratio, noise):
    X, _ = union_of_subspaces(noise=noise)
    C = elastic_net(X, gamma=gamma, l1_ratio=l1_ratio).toarray()
    weight = gamma * l1_ratio / products(X).max(axis=1, keepdims=True)
    assert violation(weight * (X - C @ X) @ X.T - (1 - l1_ratio) * C, C, l1_ratio) < 1e-6
    assert np.abs(np.diagonal(C)).max() == 0


def test_the_same_as_scikit_learns():
    X, _ = union_of_subspaces(n=30, noise=0.1)
    most = products(X).max(axis=1)
    lasso, net = ssc(X).toarray(), elastic_net(X, gamma=10).toarray()
    for i in range(len(X)):
        others = np.delete(np.arange(len(X)), i)
        settings = {"fit_intercept": False, "tol": 1e-12, "max_iter": 100_000}
        weight = 20 / most.min() * X.shape[1]
        expected = Lasso(1 / weight, **settings).fit(X[others].T, X[i]).coef_
        assert np.allclose(lasso[i, others], expected, atol=1e-6)
        weight = 10 * 0.95 / most[i] * X.shape[1]
        expected = ElasticNet(1 / weight, l1_ratio=0.95, **settings).fit(X[others].T, X[i]).coef_
        assert np.allclose(net[i, others], expected, atol=1e-6)


def test_small_supports_grow_to_the_solution(noisy, monkeypatch):
    """However few rows a support starts with, and however many at a time: the same coefficients."""
    X, _ = noisy
    expected = elastic_net(X, gamma=500).toarray()
    monkeypatch.setattr(active_set, "_SUPPORT", 3)
    monkeypatch.setattr(active_set, "_ROWS", 7)
    monkeypatch.setattr(active_set, "_SWEEPS", 1)
    assert np.allclose(elastic_net(X, gamma=500).toarray(), expected, atol=1e-4)
    monkeypatch.setattr(active_set, "_TOGETHER", 0)
    assert np.allclose(elastic_net(X, gamma=500).toarray(), expected, atol=1e-4)


def test_what_is_not_solved_is_said(noisy, monkeypatch):
    monkeypatch.setattr(active_set, "_SWEEPS", 1)
    monkeypatch.setattr(active_set, "_STEPS", 0)
    with pytest.warns(ConvergenceWarning, match="60 of 60 rows have coefficients that miss the optimality conditions"):
        elastic_net(noisy[0], gamma=500)


def test_no_coefficients_below_the_threshold(noisy):
    assert elastic_net(noisy[0], gamma=0.999).nnz == 0
    assert (np.diff(elastic_net(noisy[0], gamma=1.01).indptr) > 0).all()


def test_admm_finds_the_same(noisy):
    X, _ = noisy
    found = ssc(X, solver="admm", tol=1e-9, max_iter=20_000)
    assert np.abs((found - ssc(X)).toarray()).max() < 1e-6


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("outliers", [None, 2.0])
def test_affine_and_outliers_against_a_general_solver(affine, outliers):
    """One row of a tiny problem: all others are solved by the same matrix products."""
    X, _ = union_of_subspaces(n=8, d=4, k=2, rank=2, noise=0.2)
    weight = 5 / products(X).max(axis=1).min()
    entry = np.inf if outliers is None else outliers / np.sort(np.abs(X).sum(axis=1))[-2:].min()
    C, E = _ssc_admm(X, weight, entry, affine, 1.0, 1e-11, 100_000)
    found = ssc(X, alpha=5, affine=affine, outliers=outliers, solver="admm", tol=1e-9, max_iter=100_000)
    assert np.allclose(found.toarray(), C, atol=1e-6)
    x, others = X[0], X[1:]
    n, d = others.shape

    def objective(v):  # positive and negative parts, so that it is smooth
        c, e = v[:n] - v[n : 2 * n], v[2 * n : 2 * n + d] - v[2 * n + d :]
        left = x - c @ others - e
        value = v[: 2 * n].sum() + (0 if outliers is None else entry * v[2 * n :].sum()) + weight / 2 * left @ left
        pull_c, pull_e = -weight * others @ left, -weight * left
        free = 0 if outliers is None else entry
        return value, np.concatenate([1 + pull_c, 1 - pull_c, free + pull_e, free - pull_e])

    most = [(0, None)] * (2 * n) + [(0, 0 if outliers is None else None)] * (2 * d)
    sums = np.concatenate([np.ones(n), -np.ones(n), np.zeros(2 * d)])
    constraint = [{"type": "eq", "fun": lambda v: sums @ v - 1, "jac": lambda v: sums}] if affine else []
    best = minimize(objective, np.full(2 * n + 2 * d, 0.1), jac=True, bounds=most, constraints=constraint,
                    method="SLSQP", options={"ftol": 1e-15, "maxiter": 2000})  # fmt: skip
    parts = np.concatenate([np.maximum(sign * v, 0) for v in (C[0, 1:], E[0]) for sign in (1, -1)])
    assert objective(parts)[0] == pytest.approx(best.fun, abs=1e-6)
    if affine:
        assert np.allclose(C.sum(axis=1), 1, atol=1e-8)


def test_entries_that_are_outliers_are_found():
    X, y = union_of_subspaces(n=90, d=30, rank=3)
    broken = X.copy()
    broken[::9, 4] += 0.5
    entry = 3 / np.sort(np.abs(broken).sum(axis=1))[-2:].min()
    weight = 100 / products(broken).max(axis=1).min()
    _, E = _ssc_admm(broken, weight, entry, False, 10.0, 1e-6, 5000)
    assert (E[::9, 4] > 0.25).all()
    assert np.abs(np.delete(E, slice(None, None, 9), axis=0)).max() < 0.05
    assert share_within(ssc(broken, alpha=100, outliers=3, max_iter=5000, tol=1e-5), y) > 0.9999
    assert share_within(ssc(broken, alpha=100), y) < 0.98


def test_affine_subspaces_need_affine_coefficients():
    """Two parallel lines: through the origin they span one plane."""
    rng = np.random.default_rng(0)
    X = np.outer(rng.uniform(-1, 1, 40), [1, 0, 0]) + np.repeat([[0, 1.0, 0.5], [0, 0.5, 1.0]], 20, axis=0)
    y = np.repeat([0, 1], 20)
    assert share_within(ssc(X, alpha=100, affine=True, tol=1e-6, max_iter=20_000), y) > 0.99


@pytest.mark.parametrize(
    "C", [lambda X: ssc(X, alpha=1e5), lambda X: elastic_net(X, gamma=1e5), ssc_omp], ids=["ssc", "ensc", "omp"]
)
def test_independent_subspaces_are_kept_apart(C, subspaces):
    """Rows without noise are expressed by their own subspace alone (a fit of infinite weight, that is)."""
    X, y = subspaces
    assert share_within(C(X), y) > 1 - 1e-6


def test_a_kernel_is_products_in_another_space(noisy):
    X, _ = noisy
    assert np.abs((kernel_ssc(X @ X.T) - ssc(X)).toarray()).max() < 1e-6
    K = rbf_kernel(X)
    C = kernel_ssc(K).toarray()
    weight = 20 / products(np.linalg.cholesky(K + 1e-12 * np.eye(60))).max(axis=1).min()
    assert violation(weight * (K - C @ K), C, 1.0) < 1e-5


@pytest.mark.parametrize("n_nonzero", [1, 3, 6])
def test_pursuit_is_scikit_learns(n_nonzero, noisy, monkeypatch):
    X, _ = noisy
    monkeypatch.setattr(pursuit, "_ROWS", 7)
    monkeypatch.setattr(pursuit, "_COLUMNS", 11)
    C = ssc_omp(X, n_nonzero=n_nonzero).toarray()
    for i in range(len(X)):
        others = np.delete(np.arange(len(X)), i)
        expected = OrthogonalMatchingPursuit(n_nonzero_coefs=n_nonzero, fit_intercept=False).fit(X[others].T, X[i])
        assert np.allclose(C[i, others], expected.coef_, atol=1e-9)


def test_pursuit_ends_when_a_row_is_explained(subspaces):
    X, _ = subspaces
    C = ssc_omp(X, n_nonzero=15)
    assert (np.diff(C.indptr) <= 4).all()  # the rank
    assert np.allclose(C @ X, X, atol=1e-6)


@pytest.mark.parametrize("solver", [ssc, elastic_net, ssc_omp])
def test_float32_stays_and_is_close(solver, noisy):
    X, _ = noisy
    C = solver(X.astype("float32"))
    assert C.dtype == np.float32
    assert np.abs((C - solver(X)).toarray()).max() < 1e-3


@pytest.mark.parametrize("solver", [ssc, elastic_net, ssc_omp])
@pytest.mark.parametrize(
    "X",
    [
        np.zeros((4, 3)),
        np.ones((5, 2)),
        np.eye(4),
        np.vstack([np.eye(3), np.eye(3), np.zeros((2, 3))]),
        np.ones((1, 2)),
    ],
    ids=["zeros", "equal", "orthogonal", "duplicates", "one"],
)
def test_degenerate_rows(solver, X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        C = solver(X).toarray()
    assert np.isfinite(C).all()
    assert np.abs(np.diagonal(C)).max() == 0
    assert np.abs(C @ X).max() <= 1.01 * np.abs(X).max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X: ssc(X, alpha=0), "alpha=0 must be above 0"),
        (lambda X: ssc(X, outliers=-1.0), "outliers=-1.0 must be above 0"),
        (lambda X: ssc(X, solver="lars"), "solver='lars' must be 'auto', 'active-set' or 'admm'"),
        (lambda X: ssc(X, solver="active-set", affine=True), "knows neither affine=True nor outliers"),
        (lambda X: elastic_net(X, gamma=0), "gamma=0 must be above 0"),
        (lambda X: elastic_net(X, l1_ratio=1.5), "l1_ratio=1.5 must be at most 1"),
        (lambda X: ssc_omp(X, n_nonzero=0), "n_nonzero=0 must be an integer of at least 1"),
        (lambda X: kernel_ssc(X @ X.T, alpha=-1), "alpha=-1 must be above 0"),
    ],
)
def test_bad_parameters(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.eye(3))


def test_admm_that_is_not_done_says_so(noisy):
    with pytest.warns(ConvergenceWarning, match="ADMM ended after 3 iterations"):
        ssc(noisy[0], solver="admm", max_iter=3)


@pytest.mark.parametrize("copies", [3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", [ssc, lambda X: elastic_net(X, gamma=1e4, l1_ratio=1.0), ssc_omp])
def test_copies_of_rows(solver, dtype, copies):
    rows = np.random.default_rng(0).normal(size=(40, 20))
    X = np.repeat(rows / np.linalg.norm(rows, axis=1, keepdims=True), copies, axis=0).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        C = solver(X).toarray()
    assert np.isfinite(C).all()
    assert share_within(C, np.repeat(np.arange(40), copies)) > 0.9


@pytest.mark.parametrize("solver", [ssc_omp, elastic_net, ssc])
def test_no_array_of_n_squared(solver):
    """Nowhere near the 8 n^2 bytes of one."""
    n = 4000
    X = union_of_subspaces(n=n, d=20, rank=3, noise=0.02)[0].astype("float32")
    tracemalloc.start()
    affinity(solver(X[:50]))
    tracemalloc.reset_peak()
    affinity(solver(X))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * n**2 / 2


def test_small_products_of_few_terms_are_no_rounding():
    """Sparse rows whose cosines are 1e-4: exact in float32, however long the rows."""
    X = np.zeros((8, 100_000), dtype="float32")
    X[:, 0] = 0.01
    X[np.arange(8), 1 + np.arange(8)] = 1
    for solver in (ssc, elastic_net, ssc_omp):
        assert solver(X).nnz == solver(X.astype(np.float64)).nnz > 0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_lengths_beyond_float32(noisy):
    """One huge row makes nothing of the others' products."""
    rows = noisy[0]
    X = np.vstack([rows, 1e20 * rows[:1]]).astype("float32")
    assert (ssc_omp(X)[: len(rows)] != 0).sum(axis=1).min() > 0


def test_no_array_of_all_rows_of_all_supports():
    """Long rows that most others explain: together 240 MiB in float64."""
    X = np.random.default_rng(0).normal(size=(64, 8000))
    tracemalloc.start()
    C = elastic_net(X, l1_ratio=0.05)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert C.nnz > 3500
    assert peak < 150 * 2**20


@pytest.mark.parametrize("solver", [ssc, elastic_net, ssc_omp, lambda X: kernel_ssc(X)])
def test_rows_are_checked(solver):
    with pytest.raises(ValueError, match="contains NaN"):
        solver(np.full((3, 3), np.nan))
    whole = solver([[2, 0, 1], [1, 2, 0], [1, 1, 3]])
    assert np.array_equal(whole.toarray(), solver(np.array([[2.0, 0, 1], [1, 2, 0], [1, 1, 3]])).toarray())


def test_affine_rows_with_nothing_in_common():
    assert np.allclose(ssc(np.eye(4), affine=True).sum(axis=1), 1, atol=1e-4)


def test_close_rows_in_float32_are_solved():
    """Normalised rows of four columns: their products, rounded to float32, leave no positive matrix."""
    X = load_iris().data
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ssc(X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "solver",
    [ssc, elastic_net, ssc_omp, lambda X: ssc(X, affine=True), lambda X: kernel_ssc(X @ X.T)],
    ids=["ssc", "elastic_net", "ssc_omp", "affine", "kernel_ssc"],
)
def test_rounding_is_no_correlation(solver, dtype):
    rng = np.random.default_rng(0)
    X = np.zeros((17, 18))
    X[:8, :8], X[8:16, 8:16], X[16, 17] = rng.normal(size=(8, 8)), rng.normal(size=(8, 8)), 1  # the last row is alone
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    turned = X @ np.linalg.qr(rng.normal(size=(18, 18)))[0]  # products of 0 are now some 1e-17
    C, D = (solver(x.astype(dtype)).toarray() for x in (X, turned))
    assert C[16].any() == D[16].any()
    assert np.count_nonzero(np.abs(D) > 1e-6) == np.count_nonzero(np.abs(C) > 1e-6)
    assert np.allclose(C, D, atol=1e-9 if dtype is np.float64 else 1e-3)
