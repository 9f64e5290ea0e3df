"""From scores to assignments."""

from __future__ import annotations

import torch
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


def relu_closeness(distance: Tensor) -> Tensor:
    """How much nearer than average each centre is: ``max(0, mean_j d_ij - d_ij)``.

    More than half of the entries are usually zeros. Source: Eq. 7 of "Deep Clustering With Sample-Assignment
    Invariance Prior".

    Parameters
    ----------
    distance : Tensor of shape (b, k)
        Of every row to every centre.

    Returns
    -------
    Tensor of shape (b, k)

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import relu_closeness
    >>> relu_closeness(torch.tensor([[1.0, 2.0, 6.0]]))
    tensor([[2., 1., 0.]])
    """
    return F.relu(distance.mean(dim=1, keepdim=True) - distance)


def student_closeness(distance: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """Student's t kernel ``1 / (1 + scale d_ij)``, each row divided by its sum.

    Source: Eq. 8 of "Deep Clustering With Sample-Assignment Invariance Prior", where ``scale`` is 1 and the distance
    is squared if it is Euclidean; with that, DEC's soft assignment.

    Parameters
    ----------
    distance : Tensor of shape (b, k)
        Of every row to every centre, none negative.
    scale : float or Tensor, default=1.0
        Inverse of the distance at which closeness is halved.

    Returns
    -------
    Tensor of shape (b, k)
        Rows sum to 1.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import student_closeness
    >>> student_closeness(torch.tensor([[0.0, 3.0]]))
    tensor([[0.8000, 0.2000]])
    """
    q = 1 / (1 + scale * distance)
    return q / q.sum(dim=1, keepdim=True)


def sharpen(closeness: Tensor, power: float | Tensor = 2.0, frequency: Tensor | None = None) -> Tensor:
    """``Q_ij^power / f_j``, each row divided by its sum; a row of zeros becomes uniform.

    Source: Eq. 6 of "Deep Clustering With Sample-Assignment Invariance Prior"; with power 2 and the column sums as
    frequencies, DEC's target distribution.

    Parameters
    ----------
    closeness : Tensor of shape (b, k)
        Q, none negative.
    power : float or Tensor, default=2.0
        Above 1, the larger entries of a row gain.
    frequency : Tensor of shape (k,), optional
        f, such as the column sums of the closeness: entries of crowded clusters lose. None: no division.

    Returns
    -------
    Tensor of shape (b, k)
        Rows sum to 1.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import sharpen
    >>> sharpen(torch.tensor([[3.0, 1.0]]))
    tensor([[0.9000, 0.1000]])
    >>> sharpen(torch.tensor([[3.0, 1.0]]), frequency=torch.tensor([9.0, 1.0]))
    tensor([[0.5000, 0.5000]])
    """
    largest = closeness.detach().amax(dim=1, keepdim=True)  # a high power of small numbers would underflow
    p = (closeness / largest.clamp_min(_TINY)) ** power
    if frequency is not None:
        share = frequency / frequency.mean().clamp_min(_TINY)
        p = p / share.clamp_min(_LEAST_SHARE)  # a cluster that no row is near has frequency 0
    p = torch.where(largest == 0, torch.ones_like(p), p)  # NaN stays NaN, for whoever looks at the loss
    return p / p.sum(dim=1, keepdim=True)


_TINY = 1e-30
_LEAST_SHARE = 1e-7
