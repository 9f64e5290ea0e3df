"""Losses that more than one method uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def reconstruction_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean squared error over rows and features.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import reconstruction_loss
    >>> reconstruction_loss(torch.zeros(2, 4), torch.ones(2, 4))
    tensor(1.)
    """
    return F.mse_loss(x_hat, x)


def mask_noise(x: Tensor, ratio: float) -> Tensor:
    """Set each entry to zero with probability ``ratio``: the corruption of a denoising autoencoder.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import mask_noise
    >>> mask_noise(torch.ones(1, 3), 0.0)
    tensor([[1., 1., 1.]])
    """
    return x * (torch.rand_like(x) >= ratio) if ratio > 0 else x


def assignment_divergence(target: Tensor, prediction: Tensor, eps: float = 1e-7) -> Tensor:
    """Kullback-Leibler divergence of two soft assignments, mean over the rows.

    ``mean_i sum_j T_ij log((T_ij + eps) / (P_ij + eps))``. Source: Eq. 5 of "Deep Clustering With
    Sample-Assignment Invariance Prior", which has no ``eps`` and is infinite as soon as an entry of P is zero.

    Parameters
    ----------
    target, prediction : Tensor of shape (b, k)
        Rows that sum to 1.
    eps : float, default=1e-7
        Keeps the logarithms finite.

    Returns
    -------
    Tensor of shape ()

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import assignment_divergence
    >>> t, p = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    >>> assignment_divergence(t, p)
    tensor(0.6931)
    """
    return (torch.xlogy(target, target + eps) - torch.xlogy(target, prediction + eps)).sum(dim=1).mean()
