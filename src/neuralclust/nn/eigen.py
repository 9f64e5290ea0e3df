"""Eigenvectors of a graph Laplacian as layers of a network: steps of descent on orthonormal matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuralclust.functional.graph import multiply

MODES = ("cayley", "polynomial", "printed")


class EigenvectorLayer(nn.Module):
    """One step of an orthonormal ``Y`` towards the eigenvectors with the smallest eigenvalues.

    Descends on ``tr(Y^T L Y)`` along a curve through ``Y`` that keeps ``Y^T Y = I``. With ``G = 2 L Y`` the curve's
    direction is ``-P Y``, ``P = G Y^T - Y G^T + Y (W - W^T) Y^T``. No n x n matrix is formed: P has rank 2k and is only
    ever multiplied with n x k matrices, and ``L`` may be sparse.

    Parameters
    ----------
    n_components : int
        Columns of ``Y``, k.
    mode : {"cayley", "polynomial", "printed"}, default="cayley"
        "cayley": ``(I + tP/2)^-1 (I - tP/2) Y`` by a 2k x 2k solve, orthonormal to rounding for any step. "polynomial":
        ``(I - tP + (tP)^2/2 - ...) Y``, orthonormal up to ``t^(2 order)``, at the best step between 0 and ``step``.
        "printed": Eq. 27 as it stands in the paper, for comparison.
    step : float, default=0.5
        t of "cayley", largest t of the other two. 0.5 = ``1 / lambda_max`` suits a normalised Laplacian; the paper has
        0.01, with which 1000 layers do what 30 do here.
    order : {2, 3}, default=2
        Of the polynomial.
    learn_rotation : bool, default=False
        Have ``W`` (k x k, 0 at first) as a parameter. It enters by its skew part, since any other would make ``Y``
        shrink; that rotates the columns among themselves, to which ``tr(Y^T L Y)`` is blind.

    References
    ----------
    "SSCNet: learning-based subspace clustering", Eq. 15-27. Followed where it is right: the signs of Eq. 17 are
    exchanged there (its curve ascends), the coefficients are those of Appendix B, ``2^(-i(i-1)/2)``, not of Eq. 19, the
    step ``-f'/f''`` is Appendix A's, not Eq. 27's, and is not taken where ``f'' <= 0``. Z. Wen, W. Yin: "A feasible
    method for optimization with orthogonality constraints", 2013.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import laplacian
    >>> from neuralclust.nn import EigenvectorLayer
    >>> graph = torch.ones(6, 6) - torch.eye(6)
    >>> y = torch.linalg.qr(torch.arange(12.0).reshape(6, 2).sin())[0]
    >>> step = EigenvectorLayer(2)
    >>> y = step(y, laplacian(graph))
    >>> (y.T @ y).allclose(torch.eye(2), atol=1e-6)
    True
    """

    def __init__(
        self,
        n_components: int,
        *,
        mode: str = "cayley",
        step: float = 0.5,
        order: int = 2,
        learn_rotation: bool = False,
    ):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode={mode!r} must be one of {MODES}.")
        if order not in (2, 3):
            raise ValueError(f"order={order!r} must be 2 or 3: the coefficients keep Y orthonormal for these only.")
        if not step > 0:
            raise ValueError(f"step={step!r} must be above 0.")
        self.mode = mode
        self.step = step
        self.order = order
        self.rotation = nn.Parameter(torch.zeros(n_components, n_components)) if learn_rotation else None

    def forward(self, y: Tensor, laplacian: Tensor) -> Tensor:
        """The next ``Y`` ``(n, k)``.

        Parameters
        ----------
        y : Tensor of shape (n, k)
            Orthonormal columns.
        laplacian : Tensor of shape (n, n)
            Symmetric; sparse or dense.
        """
        g = 2 * (multiply(laplacian, y))
        left, right = self._factors(y, g)
        if self.mode == "cayley":
            return cayley_curve(y, left, right, self.step)

        def p(v: Tensor) -> Tensor:
            return left @ (right.T @ v)

        py = p(y)
        ppy = p(py)
        if self.mode == "printed":
            slope = (y * (multiply(laplacian, py))).sum()
            t = (slope / (slope - (y * (multiply(laplacian, ppy))).sum())).nan_to_num(0.0).clamp(max=self.step)
            return y - t * py + t**2 / 2 * p(ppy)
        t = self.best_step(py, ppy, g, laplacian)
        y = y - t * py + t**2 / 2 * ppy
        return y if self.order == 2 else y - t**3 / 8 * p(ppy)

    def best_step(self, py: Tensor, ppy: Tensor, g: Tensor, laplacian: Tensor) -> Tensor:
        """``-f'(0) / f''(0)`` of ``f(t) = tr(Y(t)^T L Y(t))`` within ``[0, step]``; ``step`` where f is not convex."""
        first, second = curve_derivatives(py, ppy, g, laplacian)
        convex = second > 0
        return torch.where(convex, (-first / torch.where(convex, second, 1)).clamp(0, self.step), self.step)

    def _factors(self, y: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """A and B of ``P = A B^T``, both (n, 2k)."""
        if self.rotation is None:
            return torch.cat([g, y], dim=1), torch.cat([y, -g], dim=1)
        w = self.rotation if self.mode == "printed" else self.rotation - self.rotation.T
        return torch.cat([g + y @ w, y], dim=1), torch.cat([y, -g], dim=1)


def cayley_curve(y: Tensor, left: Tensor, right: Tensor, t: float | Tensor) -> Tensor:
    """``(I + tP/2)^-1 (I - tP/2) Y`` for ``P = left right^T`` of rank r, by an r x r solve.

    Parameters
    ----------
    y : Tensor of shape (n, k)
        Start of the curve.
    left, right : Tensor of shape (n, r)
        Factors of a skew-symmetric P.
    t : float or Tensor of shape ()
        Where on the curve.
    """
    small = torch.eye(left.shape[1], dtype=y.dtype, device=y.device) + t / 2 * (right.T @ left)
    return y - t * left @ torch.linalg.solve(small, right.T @ y)


def curve_derivatives(py: Tensor, ppy: Tensor, g: Tensor, laplacian: Tensor) -> tuple[Tensor, Tensor]:
    """``f'(0)`` and ``f''(0)`` of ``f(t) = tr(Y(t)^T L Y(t))`` on a curve ``Y - t P Y + t^2/2 P^2 Y`` (Appendix A).

    Parameters
    ----------
    py, ppy : Tensor of shape (n, k)
        ``P Y`` and ``P^2 Y``.
    g : Tensor of shape (n, k)
        ``2 L Y``.
    laplacian : Tensor of shape (n, n)
        L.
    """
    first = -(g * py).sum()
    second = 2 * (py * (multiply(laplacian, py))).sum() + (g * ppy).sum()
    return first, second


def random_orthonormal(
    n: int, k: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A random ``(n, k)`` matrix with orthonormal columns."""
    return torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=dtype))[0]
