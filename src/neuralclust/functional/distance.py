"""Distances between the rows of two matrices."""

from __future__ import annotations

from torch import Tensor


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
