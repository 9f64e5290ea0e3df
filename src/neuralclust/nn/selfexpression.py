"""The self-expressive layer: every row of a batch as a combination of the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuralclust.functional.affinity import self_expression


class SelfExpression(nn.Module):
    """Coefficients between the rows of a batch, solved in closed form or learned.

    Parameters
    ----------
    mode : {"closed", "learned"}, default="closed"
        "closed" solves the ridge regression of every row on the others, for whatever rows come: it has no parameters,
        and its gradient flows into the codes. "learned" has a coefficient for every pair of rows of the same group of a
        fixed partition, as deep subspace clustering networks have for all pairs; descend on :meth:`loss`.
    ridge : float, default=0.2
        Weight of ``|C|^2`` beside the squared error: the paper's ``2 / lambda_1``, lambda_1 = 10.
    relative : bool, default=False
        Multiply ``ridge`` by ``|Z|_F^2``, the sum of the eigenvalues of ``Z Z^T``, so that neither the units of the
        codes nor the size of the batch change what it means.
    n_samples, group_size : int, optional
        Of "learned": rows in all, and rows of a group. Memory is ``n_samples * group_size`` numbers.

    References
    ----------
    "Neural Collaborative Subspace Clustering", Eq. 9. A parameter for each pair of batch *positions*, as the paper has
    it, would stand for other rows in every batch; neither mode has such parameters.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import SelfExpression
    >>> z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> SelfExpression()(z).shape
    torch.Size([3, 3])
    """

    def __init__(
        self,
        mode: str = "closed",
        *,
        ridge: float = 0.2,
        relative: bool = False,
        n_samples: int | None = None,
        group_size: int | None = None,
    ):
        super().__init__()
        if mode not in ("closed", "learned"):
            raise ValueError(f"mode={mode!r} must be 'closed' or 'learned'.")
        if not ridge > 0:
            raise ValueError(f"ridge={ridge!r} must be above 0, or rows would explain themselves exactly.")
        self.mode = mode
        self.ridge = ridge
        self.relative = relative
        self.coefficients: nn.Parameter | None = None
        if mode == "learned":
            if n_samples is None or group_size is None or not 1 < group_size <= n_samples:
                raise ValueError(
                    f"mode='learned' needs n_samples={n_samples} and group_size={group_size} with "
                    f"1 < group_size <= n_samples: a coefficient for every pair of rows of a group."
                )
            groups = -(-n_samples // group_size)
            self.group_size = group_size
            self.coefficients = nn.Parameter(torch.full((groups, group_size, group_size), 1e-4))

    def _ridge(self, z: Tensor) -> Tensor | float:
        return self.ridge * z.detach().square().sum().clamp_min(1e-12) if self.relative else self.ridge

    def forward(self, z: Tensor, index: Tensor | None = None) -> Tensor:
        """Coefficients ``(b, b)`` with a zero diagonal; column j explains row j.

        Parameters
        ----------
        z : Tensor of shape (b, p)
            Codes.
        index : Tensor of shape (b,), optional
            Numbers of the rows, needed by "learned". Rows of different groups have coefficients of 0; group g holds
            the rows ``g * group_size`` up to the next group's.
        """
        if self.coefficients is None:
            return self_expression(z, self._ridge(z))
        if index is None:
            raise ValueError("mode='learned' needs the numbers of the rows: call it with index.")
        index = index.to(self.coefficients.device)
        group, place = index // self.group_size, index % self.group_size
        c = self.coefficients[group[:, None], place[:, None], place[None, :]]
        related = (group[:, None] == group[None, :]) & (index[:, None] != index[None, :])
        return c * related

    def loss(self, z: Tensor, c: Tensor) -> Tensor:
        """``ridge |C|^2 + |Z - C^T Z|^2`` per row: the terms of Eq. 9 that have C, divided by ``lambda_1 / 2``."""
        return (self._ridge(z) * c.square().sum() + (z - c.T @ z).square().sum()) / len(z)
