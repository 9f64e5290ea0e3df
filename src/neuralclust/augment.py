"""Random views of a batch, on its device: what should not change a row's cluster."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Augmentation = Callable[[Tensor], Tensor]


class RandomAffine:
    """Shift, rotate, scale and shear every image of a batch by its own random amounts; what comes in is black.

    Parameters
    ----------
    shift : float, default=0.1
        Most, as a share of the width and of the height.
    degrees : float, default=10.0
        Most that an image is turned, either way.
    scale : float, default=0.0
        Most that it grows or shrinks, as a share of its size.
    shear : float, default=0.0
        Most that a row of pixels moves, as a share of its distance from the middle.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.augment import RandomAffine
    >>> images = torch.rand(4, 1, 28, 28)
    >>> RandomAffine()(images).shape
    torch.Size([4, 1, 28, 28])
    """

    def __init__(self, shift: float = 0.1, degrees: float = 10.0, scale: float = 0.0, shear: float = 0.0):
        self.shift = shift
        self.degrees = degrees
        self.scale = scale
        self.shear = shear

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ValueError(
                f"augment needs images (n, height, width) or (n, channels, height, width), got rows of shape "
                f"{tuple(x.shape[1:])}. Reshape X, or use augment=None."
            )

        def up_to(most: float) -> Tensor:
            return (2 * torch.rand(len(x), device=x.device, dtype=x.dtype) - 1) * most

        height, width = x.shape[2:]  # the grid counts both from -1 to 1
        angle, size = up_to(math.radians(self.degrees)), 1 + up_to(self.scale)
        cos, sin, slant = angle.cos() * size, angle.sin() * size, up_to(self.shear)
        rows = (
            torch.stack([cos, (slant * cos - sin) * height / width, up_to(2 * self.shift)], dim=1),
            torch.stack([sin * width / height, slant * sin + cos, up_to(2 * self.shift)], dim=1),
        )
        grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


AUGMENTATIONS: dict[str, Augmentation] = {"digits": RandomAffine()}


def resolve_augmentation(augment: str | Augmentation | None) -> Augmentation | None:
    """An augmentation by name, or the one given."""
    return AUGMENTATIONS[augment] if isinstance(augment, str) else augment
