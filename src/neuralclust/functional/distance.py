"""Distances between the rows of two matrices."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def unit_norm(z: Tensor) -> Tensor:
    """Rows scaled to unit length, however small or large; rows of zeros stay zero, without a gradient.

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
    # Over infinity zeros stay zeros and their gradient vanishes; NaN is passed on.
    return F.normalize(z / largest.masked_fill(largest == 0, torch.inf), dim=1)


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


def euclidean(z: Tensor, c: Tensor) -> Tensor:
    """Euclidean distances, from the differences themselves: exact near zero, where the expanded form is not.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import euclidean
    >>> euclidean(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """
    return torch.cdist(z, c, compute_mode="donot_use_mm_for_euclid_dist")


def cosine(z: Tensor, c: Tensor) -> Tensor:
    """Cosine distances, 1 minus the cosine: within [0, 2]; 1 for a row of zeros.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import cosine
    >>> cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-3.0, 0.0]]))
    tensor([[0., 1., 2.]])
    """
    return (1 - unit_norm(z) @ unit_norm(c).T).clamp_min(0)


def correlation(z: Tensor, c: Tensor) -> Tensor:
    """Correlation distances, 1 minus Pearson's r: the cosine distance of rows less their own mean.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import correlation
    >>> correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 30.0], [3.0, 2.0, 1.0]])).round()
    tensor([[0., 2.]])
    """
    return cosine(z - z.mean(dim=1, keepdim=True), c - c.mean(dim=1, keepdim=True))


def cityblock(z: Tensor, c: Tensor) -> Tensor:
    """City-block (L1) distances.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import cityblock
    >>> cityblock(torch.zeros(1, 2), torch.tensor([[3.0, -4.0]]))
    tensor([[7.]])
    """
    return torch.cdist(z, c, p=1.0)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "euclidean": euclidean,
    "cosine": cosine,
    "correlation": correlation,
    "cityblock": cityblock,
}
