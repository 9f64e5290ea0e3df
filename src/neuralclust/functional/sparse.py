"""Sparse coding over a dictionary: shrinkage, the objective, and linearised ADMM as the classical solver."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NOISES = ("row", "entry")


def soft_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Every entry moved towards 0 by ``threshold``, and to 0 within it.

    Source: Eq. 5 of "SSCNet: learning-based subspace clustering", the activation R(x; B) of its Eq. 9.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import soft_threshold
    >>> soft_threshold(torch.tensor([-2.0, 0.5, 3.0]), 1.0)
    tensor([-1., 0., 2.])
    """
    return torch.relu(x - threshold) - torch.relu(-x - threshold)


def shrink_rows(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Every row shortened by ``threshold``, and to 0 if it is shorter.

    Source: Eq. 6 of "SSCNet: learning-based subspace clustering", for rows instead of columns.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import shrink_rows
    >>> shrink_rows(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 2.5)
    tensor([[1.5000, 2.0000],
            [0.0000, 0.0000]])
    """
    norm = x.norm(dim=1, keepdim=True)
    return x * (1 - threshold / norm.clamp_min(torch.finfo(x.dtype).tiny)).clamp_min(0)


def shrink(x: Tensor, threshold: Tensor | float, noise: str) -> Tensor:
    """:func:`shrink_rows` for ``noise="row"``, :func:`soft_threshold` for ``"entry"``."""
    return shrink_rows(x, threshold) if noise == "row" else soft_threshold(x, threshold)


def sparse_objective(z: Tensor, e: Tensor, lam: float, noise: str = "row") -> Tensor:
    """``|Z|_1 + lam |E|``: what sparse coding minimises (Eq. 2 of SSCNet).

    Parameters
    ----------
    z : Tensor of shape (n, m)
        Codes.
    e : Tensor of shape (n, d)
        Noise.
    lam : float
        Weight of the noise.
    noise : {"row", "entry"}, default="row"
        Sum of the rows' lengths, for whole rows that are outliers, or of the absolute entries.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import sparse_objective
    >>> sparse_objective(torch.ones(1, 2), torch.tensor([[3.0, 4.0]]), 2.0)
    tensor(12.)
    """
    size = e.norm(dim=1).sum() if noise == "row" else e.abs().sum()
    return z.abs().sum() + lam * size


def largest_step(dictionary: Tensor, lam: float, beta: float, step: float | None) -> float:
    """``step``, or 0.95 of the largest with which linearised ADMM converges; errors for values that make no sense."""
    for name, value in (("lam", lam), ("beta", beta), ("step", 1.0 if step is None else step)):
        if not value > 0:
            raise ValueError(f"{name}={value!r} must be above 0.")
    norm = float(torch.linalg.matrix_norm(dictionary, 2))
    if not 0 < norm < float("inf"):
        raise ValueError(f"dictionary has the norm {norm}: it needs finite atoms, at least one of them not 0.")
    return 0.95 / (beta * norm**2) if step is None else step


class SparseCode(NamedTuple):
    """What :func:`linearised_admm` returns."""

    codes: Tensor
    noise: Tensor
    multiplier: Tensor
    residual: float
    n_iter: int


@torch.no_grad()
def linearised_admm(
    X: Tensor,
    dictionary: Tensor,
    *,
    lam: float = 1.0,
    noise: str = "row",
    beta: float = 1.0,
    step: float | None = None,
    max_iter: int = 1000,
    tol: float = 1e-6,
) -> SparseCode:
    """Sparse codes of rows over a dictionary, with noise: minimise ``|Z|_1 + lam |E|`` where ``X = Z A + E``.

    Source: Eq. 2 and 4 of "SSCNet: learning-based subspace clustering", transposed. The paper asks for a step above
    ``|A^T A|``, with which the iteration does not converge; it does for steps below ``1 / (beta |A^T A|)``, the inverse
    of the curvature that is linearised.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Rows.
    dictionary : Tensor of shape (m, d)
        A; an atom a row.
    lam : float, default=1.0
        Weight of the noise.
    noise : {"row", "entry"}, default="row"
        Outliers are whole rows, or single entries.
    beta : float, default=1.0
        Penalty of the constraint; it changes the way, not the solution.
    step : float, optional
        Of the codes. None: ``0.95 / (beta |A^T A|)``.
    max_iter : int, default=1000
        Iterations at most.
    tol : float, default=1e-6
        Ends when the constraint holds and the codes stand still to this share of ``|X|``. 0: never.

    Returns
    -------
    SparseCode
        ``codes`` (n, m), ``noise`` and ``multiplier`` (n, d), ``residual``, the relative violation of the constraint,
        and ``n_iter``.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import linearised_admm
    >>> X = torch.tensor([[2.0, 0.0], [0.0, -1.0]])
    >>> linearised_admm(X, torch.eye(2), lam=10.0).codes.round(decimals=3)
    tensor([[ 2.,  0.],
            [ 0., -1.]])
    """
    if noise not in NOISES:
        raise ValueError(f"noise={noise!r} must be one of {NOISES}.")
    if X.ndim != 2 or dictionary.ndim != 2 or X.shape[1] != dictionary.shape[1]:
        raise ValueError(
            f"X {tuple(X.shape)} and dictionary {tuple(dictionary.shape)} must have rows of the same length: "
            f"(n, d) and (m, d)."
        )
    step = largest_step(dictionary, lam, beta, step)
    z = X.new_zeros(len(X), len(dictionary))
    e, multiplier = torch.zeros_like(X), torch.zeros_like(X)
    decoded = torch.zeros_like(X)  # z A
    size = X.norm().clamp_min(torch.finfo(X.dtype).tiny)
    residual, iteration = torch.ones(()), 0
    for iteration in range(1, max_iter + 1):  # noqa: B007
        before = z
        z = soft_threshold(z - step * (multiplier + beta * (decoded + e - X)) @ dictionary.T, step)
        decoded = z @ dictionary
        e = shrink(X - decoded - multiplier / beta, lam / beta, noise)
        violation = decoded + e - X
        multiplier = multiplier + beta * violation
        residual = violation.norm() / size
        if tol > 0 and residual <= tol and (z - before).norm() <= tol * size:
            break
    return SparseCode(z, e, multiplier, float(residual), iteration)


@torch.no_grad()
def adaptive_weights(norms: Tensor) -> Tensor:
    """Weights of rows by the length of their noise: ``1 - q_i / sum q``, ``q_i = 1 / (1 + min(norm_i, cap))``.

    Source: Eq. 13 of "SSCNet: learning-based subspace clustering" (its index n stands for the last block). The cap is
    not given; here it is the 95th percentile of the batch. They hardly differ: in a batch of 256 by less than 1 %,
    since they sum to one less than the rows.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import adaptive_weights
    >>> adaptive_weights(torch.tensor([0.0, 1.0, 1.0]))
    tensor([0.5000, 0.7500, 0.7500])
    """
    q = 1 / (1 + norms.clamp(max=torch.quantile(norms, 0.95)))
    return 1 - q / q.sum()
