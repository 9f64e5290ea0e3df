"""From scores to assignments."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def hard_assignment(scores: Tensor) -> Tensor:
    """One-hot rows at the largest score, without gradient.

    Parameters
    ----------
    scores : Tensor of shape (b, k)
        Larger is closer.

    Returns
    -------
    Tensor of shape (b, k)
        Zeros and, in each row, a single one.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import hard_assignment
    >>> hard_assignment(torch.tensor([[0.2, 0.7, 0.1]]))
    tensor([[0., 1., 0.]])
    """
    return F.one_hot(scores.argmax(dim=1), scores.shape[1]).to(scores.dtype)
