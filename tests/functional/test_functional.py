"""Functions against NumPy loops."""

import numpy as np
import torch

from neuralclust.functional import (
    cosine,
    hard_assignment,
    mask_noise,
    reconstruction_loss,
    sharpen,
    squared_euclidean,
)


def test_squared_euclidean_by_loops():
    torch.manual_seed(0)
    z, c = torch.randn(7, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    expected = [[float(((a - b) ** 2).sum()) for b in c] for a in z]
    assert np.allclose(squared_euclidean(z, c), expected)
    assert torch.autograd.gradcheck(squared_euclidean, (z.requires_grad_(), c.requires_grad_()))


def test_squared_euclidean_far_from_the_origin():
    """Without centring, float32 mis-assigns a third of the rows at a distance of 1000."""
    torch.manual_seed(0)
    z = torch.randn(500, 8) + 1000
    c = torch.randn(5, 8) + 1000
    exact = torch.cdist(z.double(), c.double()).argmin(dim=1)
    assert torch.equal(squared_euclidean(z, c).argmin(dim=1), exact)
    naive = (z.square().sum(1, keepdim=True) - 2 * z @ c.T + c.square().sum(1)).argmin(dim=1)
    assert (naive != exact).any()


def test_hard_assignment_has_no_gradient():
    s = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True)
    assert hard_assignment(s).tolist() == [[0, 1, 0]]
    assert not hard_assignment(s).requires_grad


def test_reconstruction_loss_and_noise():
    torch.manual_seed(0)
    x = torch.ones(200, 50)
    assert float(reconstruction_loss(x, x + 2)) == 4
    noisy = mask_noise(x, 0.3)
    assert set(noisy.unique().tolist()) == {0.0, 1.0}
    assert abs(float((noisy == 0).float().mean()) - 0.3) < 0.02
    assert mask_noise(x, 0.0) is x


def test_sharpen_of_a_row_of_zeros_is_uniform():
    q = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    assert sharpen(q, 2.0, torch.tensor([9.0, 1.0])).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_cosine_is_never_negative():
    z = torch.rand(1000, 7, generator=torch.Generator().manual_seed(0))
    assert cosine(z, z).min() >= 0


def test_sharpen_keeps_nan():
    """A loss of codes that are not finite must not be."""
    p = sharpen(torch.tensor([[torch.nan, 1.0], [0.0, 0.0], [3.0, 1.0]]))
    assert p[0].isnan().all()
    assert torch.allclose(p[1:], torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
