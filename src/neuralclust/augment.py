"""Random views of a batch, on its device: what should not change a row's cluster.

A view is any callable from a batch of scaled rows to a batch of the same shape. Those here draw random amounts for
every row from torch's random state, which an estimator seeds from its ``random_state``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralclust.nn.autoencoders import refuse_channels_last

Augmentation = Callable[[Tensor], Tensor]


class RandomAffine:
    """Shift, rotate, scale and shear every image of a batch by its own random amounts; what comes in is 0.

    That is black, where rows are scaled to 0 .. 1.

    Parameters
    ----------
    shift : float, default=0.1
        Most, as a share of the width and of the height.
    degrees : float, default=10.0
        Most that an image is turned, either way.
    scale : float, default=0.0
        Most that its side grows or shrinks, as a share of what is seen: at 0.5 to between 2/3 and twice as large.
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
        _need_images(x)
        height, width = x.shape[2:]  # the grid counts both from -1 to 1
        angle, size = _up_to(x, math.radians(self.degrees)), 1 + _up_to(x, self.scale)
        cos, sin, slant = angle.cos() * size, angle.sin() * size, _up_to(x, self.shear)
        rows = (
            torch.stack([cos, (slant * cos - sin) * height / width, _up_to(x, 2 * self.shift)], dim=1),
            torch.stack([sin * width / height, slant * sin + cos, _up_to(x, 2 * self.shift)], dim=1),
        )
        grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


class RandomElastic:
    """Bend every image by its own smooth field of shifts, drawn on a coarse grid and interpolated between.

    Parameters
    ----------
    shift : float, default=0.05
        Standard deviation of a shift at the points of the grid, as a share of the width and of the height.
    cells : int, default=4
        Points of the coarse grid along each side: fewer bend more smoothly.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.augment import RandomElastic
    >>> RandomElastic()(torch.rand(4, 1, 28, 28)).shape
    torch.Size([4, 1, 28, 28])
    """

    def __init__(self, shift: float = 0.05, cells: int = 4):
        self.shift = shift
        self.cells = cells

    def __call__(self, x: Tensor) -> Tensor:
        _need_images(x)
        coarse = 2 * self.shift * torch.randn(len(x), 2, self.cells, self.cells, device=x.device, dtype=x.dtype)
        field = F.interpolate(coarse, x.shape[2:], mode="bicubic", align_corners=True)
        still = F.affine_grid(torch.eye(2, 3, device=x.device, dtype=x.dtype)[None], [1, *x.shape[1:]], False)
        return F.grid_sample(x, still + field.permute(0, 2, 3, 1), align_corners=False)


class RandomCrop:
    """A random part of every image, as large as the image again.

    Parameters
    ----------
    smallest : float, default=0.6
        Least side of the part, as a share of the image's.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.augment import RandomCrop
    >>> RandomCrop()(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 3, 32, 32])
    """

    def __init__(self, smallest: float = 0.6):
        self.smallest = smallest

    def __call__(self, x: Tensor) -> Tensor:
        _need_images(x)
        side = 1 - torch.rand(len(x), device=x.device, dtype=x.dtype) * (1 - self.smallest)
        zero = torch.zeros_like(side)
        places = [_up_to(x, 1.0) * (1 - side) for _ in range(2)]
        rows = (torch.stack([side, zero, places[0]], dim=1), torch.stack([zero, side, places[1]], dim=1))
        grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


class RandomFlip:
    """Mirror half of the images, left to right."""

    def __call__(self, x: Tensor) -> Tensor:
        _need_images(x)
        mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
        return torch.where(mirrored, x.flip(3), x)


class ColorJitter:
    """Brightness, contrast and saturation of every image times its own random factors, then cut off at 0 and 1.

    For rows scaled to 0 .. 1, as the estimators scale them unless they keep the origin.

    Parameters
    ----------
    brightness, contrast, saturation : float, default=0.4
        Most that a factor differs from 1.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.augment import ColorJitter
    >>> bool((ColorJitter()(torch.ones(4, 3, 8, 8)) <= 1).all())
    True
    """

    def __init__(self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4):
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation

    def __call__(self, x: Tensor) -> Tensor:
        _need_images(x)

        def factor(most: float) -> Tensor:
            return (1 + _up_to(x, most))[:, None, None, None]

        x = x * factor(self.brightness)
        x = torch.lerp(x.mean(dim=(1, 2, 3), keepdim=True), x, factor(self.contrast))
        return torch.lerp(x.mean(dim=1, keepdim=True), x, factor(self.saturation)).clamp(0, 1)


class RandomErasing:
    """A random rectangle of every image set to the image's mean.

    Parameters
    ----------
    largest : float, default=0.4
        Most of the rectangle's sides, as a share of the image's.
    """

    def __init__(self, largest: float = 0.4):
        self.largest = largest

    def __call__(self, x: Tensor) -> Tensor:
        _need_images(x)

        def within(size: int) -> Tensor:
            side = torch.rand(len(x), 1, device=x.device) * self.largest
            start = torch.rand(len(x), 1, device=x.device) * (1 - side)
            at = (torch.arange(size, device=x.device) + 0.5) / size
            return (at >= start) & (at < start + side)

        erased = within(x.shape[2])[:, None, :, None] & within(x.shape[3])[:, None, None, :]
        return torch.where(erased, x.mean(dim=(1, 2, 3), keepdim=True), x)


class GaussianNoise:
    """Noise added to every entry.

    Parameters
    ----------
    scale : float, default=0.1
        Standard deviation, in units of the range of the training rows.
    """

    def __init__(self, scale: float = 0.1):
        self.scale = scale

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.randn_like(x)


class FeatureMask:
    """Features of a table replaced by those of other rows of the batch, each with the same probability.

    A replaced value says nothing about its row and cannot be told from the feature's other values. All come from one
    other row, which keeps what features have in common.

    Parameters
    ----------
    ratio : float, default=0.2
        Share of the entries.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.augment import FeatureMask
    >>> FeatureMask(0.0)(torch.eye(2))
    tensor([[1., 0.],
            [0., 1.]])
    """

    def __init__(self, ratio: float = 0.2):
        self.ratio = ratio

    def __call__(self, x: Tensor) -> Tensor:
        others = x[torch.randperm(len(x), device=x.device)]
        return torch.where(torch.rand_like(x) < self.ratio, others, x)


class Chain:
    """One view after the other.

    Parameters
    ----------
    views : sequence of callable
        Each from a batch to a batch of the same shape.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.augment import Chain, RandomCrop, RandomFlip
    >>> Chain([RandomCrop(), RandomFlip()])(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(self, views: Sequence[Augmentation]):
        self.views = views

    def __call__(self, x: Tensor) -> Tensor:
        for view in self.views:
            x = view(x)
        return x


class Views(NamedTuple):
    """What a named augmentation does: gently while the autoencoder learns alone, more in joint training.

    The autoencoder must be able to draw what it sees; a cluster must survive more than that.
    """

    pretrain: Augmentation
    joint: Augmentation


AUGMENTATIONS: dict[str, Views] = {
    "digits": Views(RandomAffine(), RandomAffine(shift=0.12, degrees=15.0, scale=0.15, shear=0.2)),
    "images": Views(
        Chain([RandomFlip(), RandomAffine(shift=0.1, degrees=0.0)]),
        Chain([RandomFlip(), RandomCrop(), ColorJitter()]),
    ),
    "table": Views(FeatureMask(0.1), Chain([FeatureMask(0.2), GaussianNoise(0.02)])),
}


def resolve_augmentation(augment: str | Augmentation | None) -> Views | None:
    """An augmentation by name, or the one given, for both stages.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.augment import resolve_augmentation
    >>> resolve_augmentation(torch.neg).joint(torch.ones(1, 2))
    tensor([[-1., -1.]])
    """
    if augment is None:
        return None
    return AUGMENTATIONS[augment] if isinstance(augment, str) else Views(augment, augment)


def _need_images(x: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(
            f"augment needs images (n, height, width) or (n, channels, height, width), got rows of shape "
            f"{tuple(x.shape[1:])}. Reshape X, or use augment='table' or None."
        )
    refuse_channels_last(x.shape[1:])


def _up_to(x: Tensor, most: float) -> Tensor:
    """A random amount for each row, ``-most`` to ``most``."""
    return (2 * torch.rand(len(x), device=x.device, dtype=x.dtype) - 1) * most
