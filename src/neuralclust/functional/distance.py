"""Distances between the rows of two matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit_norm(z: Tensor) -> Tensor:
    """Rows scaled to unit length, however small or large; rows of zeros stay zero.

    Parameters
    ----------
    z : Tensor of shape (b, p)
        Rows.

    Returns
    -------
    Tensor of shape (b, p)

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import unit_norm
    >>> unit_norm(torch.tensor([[3e-30, 4e-30], [3e30, 4e30]]))
    tensor([[0.6000, 0.8000],
            [0.6000, 0.8000]])
    """
    largest = z.detach().abs().amax(dim=1, keepdim=True)  # its square would not fit into a float32
    return F.normalize(z / largest.clamp_min(torch.finfo(z.dtype).tiny), dim=1)


def squared_euclidean(z: Tensor, c: Tensor) -> Tensor:
    """Squared Euclidean distances by the expanded form, centred first so that far-off data keeps its digits.

    Parameters
    ----------
    z : Tensor of shape (b, p)
        Rows.
    c : Tensor of shape (k, p)
        Centres.

    Returns
    -------
    Tensor of shape (b, k)
        ``|z_i - c_j|^2``, never negative.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import squared_euclidean
    >>> squared_euclidean(torch.tensor([[1000.0, 0.0]]), torch.tensor([[1000.0, 1.0], [1002.0, 0.0]]))
    tensor([[1., 4.]])
    """
    origin = c.mean(dim=0)
    z, c = z - origin, c - origin
    d2 = z.square().sum(dim=1, keepdim=True) - 2 * z @ c.T + c.square().sum(dim=1)
    return d2.clamp_min(0)
