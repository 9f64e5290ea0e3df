"""Sparse coding against a convex solver, and where the paper's step size leads."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from neuralclust.functional import linearised_admm, shrink_rows, soft_threshold, sparse_objective


@pytest.fixture
def problem():
    """12-dimensional rows over 20 unit atoms: (8, 12), (20, 12) float64."""
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.randn(20, 12, generator=generator, dtype=torch.float64)
    dictionary /= dictionary.norm(dim=1, keepdim=True)
    return torch.randn(8, 12, generator=generator, dtype=torch.float64), dictionary


def optimum_of_entries(X, dictionary, lam):
    """|Z|_1 + lam |E|_1 as a linear program of positive and negative parts, row by row."""
    m, d = dictionary.shape
    cost = np.r_[np.ones(2 * m), lam * np.ones(2 * d)]
    equal = np.c_[dictionary.T, -dictionary.T, np.eye(d), -np.eye(d)]
    return sum(linprog(cost, A_eq=equal, b_eq=row, method="highs").fun for row in X.numpy())


def bound_of_rows(X, dictionary, lam, multiplier):
    """A lower bound of |Z|_1 + lam |E|_{2,1}: <V, X> for any V with |V A^T| <= 1 and rows no longer than lam."""
    v = -multiplier
    v = v / torch.clamp((v @ dictionary.T).abs().amax(dim=1, keepdim=True), min=1)
    v = v * (lam / v.norm(dim=1, keepdim=True)).clamp(max=1)
    return float((v * X).sum())


def test_entries_reach_the_optimum_of_a_linear_program(problem):
    X, dictionary = problem
    found = linearised_admm(X, dictionary, lam=2.0, noise="entry", max_iter=50_000, tol=1e-10)
    value = float(sparse_objective(found.codes, found.noise, 2.0, "entry"))
    assert value == pytest.approx(optimum_of_entries(X, dictionary, 2.0), rel=1e-6)
    assert found.residual < 1e-9


def test_rows_meet_their_dual_bound(problem):
    X, dictionary = problem
    found = linearised_admm(X, dictionary, lam=2.0, max_iter=50_000, tol=1e-11)
    value = float(sparse_objective(found.codes, found.noise, 2.0))
    bound = bound_of_rows(X, dictionary, 2.0, found.multiplier)
    assert bound <= value + 1e-9
    assert value == pytest.approx(bound, rel=1e-6)


def test_outliers_become_noise():
    """Rows of few atoms are coded, a row far from all of them is noise."""
    dictionary = torch.eye(6)[:3]
    X = torch.tensor([[2.0, 0, 0, 0, 0, 0], [0, 0, 0, 3.0, 3.0, 3.0]])
    found = linearised_admm(X, dictionary, lam=2.0)
    assert found.codes[0].abs().sum() == pytest.approx(2.0, abs=1e-4)
    assert found.codes[1].abs().max() == 0
    assert torch.allclose(found.noise[1], X[1], atol=1e-4)


def test_with_the_printed_step_nothing_converges(problem):
    X, dictionary = problem
    norm = float(torch.linalg.matrix_norm(dictionary, 2)) ** 2
    settings = {"lam": 100.0, "max_iter": 300, "tol": 0}  # noise is dear: codes have to explain the rows
    assert linearised_admm(X, dictionary, **settings).residual < 1e-2
    assert linearised_admm(X, dictionary, step=1.05 * norm, **settings).residual > 10


def test_shrinkage_by_a_negative_threshold_doubles():
    """Why thresholds are kept positive: R(x; B) of Eq. 9 is no shrinkage below 0."""
    x = torch.tensor([-0.1, 0.1])
    assert torch.allclose(soft_threshold(x, -0.5), 2 * x)


def test_shrink_rows_has_no_nan_at_zero():
    assert torch.equal(shrink_rows(torch.zeros(2, 3), 1.0), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": "column"}, "noise='column'"),
        ({"lam": 0.0}, r"lam=0\.0"),
        ({"step": -1.0}, r"step=-1\.0"),
        ({"dictionary": torch.eye(3, dtype=torch.float64)}, r"\(8, 12\).*\(3, 3\)"),
    ],
)
def test_bad_arguments(problem, change, message):
    X, dictionary = problem
    arguments = {"X": X, "dictionary": dictionary, **change}
    with pytest.raises(ValueError, match=message):
        linearised_admm(**arguments)
