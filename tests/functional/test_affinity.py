"""Self-expression against regressions solved one by one, and the two affinities by loops."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from neuralclust.functional import class_affinity, coefficient_affinity, self_expression
from neuralclust.nn import SelfExpression


def codes(n, p, seed=0):
    return torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(30, 7), (12, 40), (20, 20), (2, 5)])
@pytest.mark.parametrize("ridge", [0.01, 0.2, 50.0])
def test_every_column_is_a_ridge_regression_on_the_other_rows(shape, ridge):
    z = codes(*shape)
    c = self_expression(z, ridge)
    assert torch.equal(c.diagonal(), torch.zeros(len(z), dtype=c.dtype))
    for j in range(len(z)):
        others = [i for i in range(len(z)) if i != j]
        exact = Ridge(alpha=ridge, fit_intercept=False, solver="svd", tol=0).fit(z[others].T, z[j]).coef_
        assert np.allclose(c[others, j], exact, atol=1e-6)


def test_self_expression_is_differentiable_and_its_own_minimum():
    z = codes(9, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: self_expression(z, 0.3), z)
    z = z.detach()
    layer, best = SelfExpression(ridge=0.3), self_expression(z, 0.3)
    for seed in range(5):
        step = 1e-3 * codes(9, 9, seed)
        step = step - torch.diag(step.diagonal())
        assert layer.loss(z, best + step) > layer.loss(z, best)


def test_self_expression_of_bad_codes_is_nan_not_an_error():
    z = codes(5, 3)
    z[2, 1] = torch.nan
    assert self_expression(z, 0.1).isnan().any()


def test_relative_ridge_does_not_see_units():
    z = codes(20, 6)
    layer = SelfExpression(ridge=0.05, relative=True)
    assert torch.allclose(layer(z), layer(1e3 * z))
    assert torch.allclose(layer(z), self_expression(z, 0.05 * float(z.square().sum())))


def test_learned_coefficients_reach_the_closed_form():
    """One group of all rows; the batch in any order."""
    z = codes(15, 6).float()
    layer = SelfExpression("learned", ridge=0.3, n_samples=15, group_size=15)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300, tolerance_change=0.0)

    def closure():
        index = torch.randperm(15, generator=generator)
        optimizer.zero_grad()
        loss = layer.loss(z[index], layer(z[index], index))
        loss.backward()
        return loss

    optimizer.step(closure)
    everything = torch.arange(15)
    assert torch.allclose(layer(z, everything), self_expression(z, 0.3), atol=1e-3)
    shuffled = torch.randperm(15, generator=generator)
    assert torch.equal(layer(z[shuffled], shuffled), layer(z, everything)[shuffled][:, shuffled])


def test_learned_coefficients_stay_within_their_group():
    layer = SelfExpression("learned", n_samples=10, group_size=4)
    torch.nn.init.ones_(layer.coefficients)
    index = torch.tensor([9, 0, 5, 3, 8])
    c = layer(codes(5, 3), index)
    expected = [[int(i // 4 == j // 4 and i != j) for j in index.tolist()] for i in index.tolist()]
    assert c.tolist() == expected
    assert sum(p.numel() for p in layer.parameters()) == 3 * 4 * 4


@pytest.mark.parametrize("bad", [
    {"mode": "free"}, {"ridge": 0.0}, {"mode": "learned"}, {"mode": "learned", "n_samples": 3, "group_size": 4},
])  # fmt: skip
def test_bad_self_expression(bad):
    with pytest.raises(ValueError, match=r"mode|ridge"):
        SelfExpression(**bad)
    with pytest.raises(ValueError, match="index"):
        SelfExpression("learned", n_samples=4, group_size=2)(codes(4, 2))


@pytest.mark.parametrize("signed", [True, False])
def test_coefficient_affinity_by_loops(signed):
    c = codes(7, 7)
    c = c - torch.diag(c.diagonal())
    a = coefficient_affinity(c, signed=signed)
    for i in range(7):
        row = []
        for j in range(7):
            x, y = float(c[i, j]), float(c[j, i])
            row.append(max(0.0, (x + y) / 2) if signed else (abs(x) + abs(y)) / 2)
        largest = max(row)
        for j in range(7):
            assert float(a[i, j]) == pytest.approx(1.0 if i == j else row[j] / largest)
    assert torch.equal(coefficient_affinity(torch.zeros(3, 3)), torch.eye(3))


def test_affinity_before_symmetrising_exceeds_one():
    """Eq. 4 as printed divides by the largest entry of the row of C, not of its symmetric part."""
    c = self_expression(codes(40, 5), 0.2)
    symmetric = (c.abs() + c.abs().T) / 2
    printed = symmetric / c.abs().amax(dim=1, keepdim=True)
    assert printed.max() > 1
    assert coefficient_affinity(c).max() == 1


def test_class_affinity_by_loops():
    p = codes(6, 3).softmax(dim=1)
    for i in range(6):
        for j in range(6):
            a, b = p[i].numpy(), p[j].numpy()
            assert float(class_affinity(p)[i, j]) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_long_row_unlike_the_others_is_expressed_by_nothing():
    z = torch.tensor([[5e3, 0.0], [0.0, 1.0], [0.0, 1.0]])
    for c in (self_expression(z, 0.2), self_expression(z.double(), 0.2)):
        assert torch.isfinite(c).all()
        assert torch.equal(c[:, 0], torch.zeros(3, dtype=c.dtype))
