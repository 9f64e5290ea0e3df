"""Affinities between the rows of a batch: self-expression, and classes in common."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def self_expression(z: Tensor, ridge: float | Tensor) -> Tensor:
    """Coefficients that express every row by the others: ridge regression of each on the rest, in closed form.

    Minimises ``ridge |C|_F^2 + |Z - C^T Z|_F^2`` with a zero diagonal, so column j explains row j:
    ``C_ij = -T_ij / T_jj`` with ``T = (Z Z^T + ridge I)^-1``. Costs O(b^2 min(b, p)) operations and O(b^2) memory.
    Differentiable. Source: Eq. 9 of "Neural Collaborative Subspace Clustering" with ``ridge = 2 / lambda_1``, solved
    per batch instead of learned, by the block inverse and, where p < b, the Woodbury identity.

    Parameters
    ----------
    z : Tensor of shape (b, p)
        Rows.
    ridge : float or Tensor of shape ()
        Above 0.

    Returns
    -------
    Tensor of shape (b, b)
        C, in the dtype of ``z``.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import self_expression
    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> self_expression(z, 0.01).abs().round(decimals=2)
    tensor([[0.0000, 0.9900, 0.0000],
            [0.9900, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    b, p = z.shape
    if p < b:
        gram = z.T @ z + ridge * torch.eye(p, dtype=z.dtype, device=z.device)
        half = torch.linalg.solve_triangular(_cholesky(gram), z.T, upper=False)  # (p, b)
        theta = torch.eye(b, dtype=z.dtype, device=z.device) - half.T @ half  # ridge * T
        # Of a long row unlike the others the diagonal cancels to 0; it is never below this.
        least = ridge / (z.square().sum(dim=1) + ridge)
        diagonal = torch.where(theta.diagonal() < least, least, theta.diagonal())
    else:
        gram = z @ z.T + ridge * torch.eye(b, dtype=z.dtype, device=z.device)
        theta = torch.cholesky_inverse(_cholesky(gram))
        diagonal = theta.diagonal()
    c = -theta / diagonal
    return c - torch.diag(c.diagonal())


def _cholesky(gram: Tensor) -> Tensor:
    """NaN instead of an error where the matrix is not finite, or too large for its ridge to count."""
    factor, info = torch.linalg.cholesky_ex(gram)
    return torch.where(info == 0, factor, torch.nan)


def coefficient_affinity(c: Tensor, *, signed: bool = False) -> Tensor:
    """Affinity of rows from self-expressive coefficients: symmetric part, each row relative to its largest entry.

    Source: Eq. 4 of "Neural Collaborative Subspace Clustering", with the largest entry taken after symmetrising, as in
    its Section 4: before, entries can exceed 1.

    Parameters
    ----------
    c : Tensor of shape (b, b)
        Coefficients with a zero diagonal.
    signed : bool, default=False
        Count negative coefficients as no affinity, as suits codes without negative entries, instead of by magnitude.

    Returns
    -------
    Tensor of shape (b, b)
        Entries in [0, 1] with ones on the diagonal. Not symmetric: every row has its own largest entry.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import coefficient_affinity
    >>> coefficient_affinity(torch.tensor([[0.0, 0.4, -0.1], [0.4, 0.0, 0.0], [-0.1, 0.0, 0.0]]))
    tensor([[1.0000, 1.0000, 0.2500],
            [1.0000, 1.0000, 0.0000],
            [1.0000, 0.0000, 1.0000]])
    """
    s = ((c + c.T) / 2).clamp_min(0) if signed else (c.abs() + c.abs().T) / 2
    a = s / s.detach().amax(dim=1, keepdim=True).clamp_min(torch.finfo(s.dtype).tiny)
    eye = torch.eye(len(a), dtype=a.dtype, device=a.device)
    return a * (1 - eye) + eye


def class_affinity(p: Tensor, other: Tensor | None = None) -> Tensor:
    """Affinity of rows from their class probabilities: the cosine of the two.

    Source: Eq. 1 of "Neural Collaborative Subspace Clustering".

    Parameters
    ----------
    p : Tensor of shape (b, k)
        Rows that sum to 1.
    other : Tensor of shape (m, k), optional
        Rows to compare them with. None: ``p`` itself.

    Returns
    -------
    Tensor of shape (b, m)
        Entries in [0, 1].

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import class_affinity
    >>> class_affinity(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([[1.0000, 0.7071],
            [0.7071, 1.0000]])
    """
    v = F.normalize(p, dim=1)
    return (v @ (v if other is None else F.normalize(other, dim=1)).T).clamp(0, 1)
