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
