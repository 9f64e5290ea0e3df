"""Autoencoders of the papers: fully connected, and the convolutional nets of TELL and of k-meansNet."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from neuralclust.functional.distance import unit_norm

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "linear": nn.Identity}


class Autoencoder(nn.Module):
    """An encoder and a decoder, with one place for what every clustering method needs of them.

    Parameters
    ----------
    encoder : nn.Module
        Maps ``(b, *shape)`` to codes ``(b, embed_dim)``.
    decoder : nn.Module
        Maps codes ``(b, embed_dim)`` back to ``(b, *shape)``.
    embed_dim : int
        Length of a code.
    normalize : bool, default=False
        Scale every code to unit length before it is clustered or decoded (Section 2.2.3 of TELL).

    Attributes
    ----------
    precision : torch.dtype
        ``torch.float32``, or ``torch.bfloat16`` to run the two networks under autocast. Codes are float32
        either way, so that centres, targets and distances never lose digits.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import Autoencoder
    >>> net = Autoencoder(torch.nn.Linear(8, 2), torch.nn.Linear(2, 8), embed_dim=2, normalize=True)
    >>> net.encode(torch.ones(3, 8)).norm(dim=1).allclose(torch.ones(3))
    True
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, embed_dim: int, normalize: bool = False):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.embed_dim = embed_dim
        self.normalize = normalize
        self.precision = torch.float32

    def _autocast(self, x: Tensor):
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(x.device.type, self.precision)

    def encode(self, x: Tensor) -> Tensor:
        """Codes ``(b, embed_dim)`` of ``x`` ``(b, *shape)``, float32."""
        with self._autocast(x):
            z = self.encoder(x)
        z = z.float()
        return unit_norm(z) if self.normalize else z

    def decode(self, z: Tensor) -> Tensor:
        """Reconstructions ``(b, *shape)`` of codes ``z`` ``(b, embed_dim)``, float32."""
        with self._autocast(z):
            x = self.decoder(z)
        return x.float()

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class MLPAutoencoder(Autoencoder):
    """Fully connected autoencoder ``m - 500 - 500 - 2000 - d`` and its mirror image, ReLU between layers.

    Parameters
    ----------
    shape : tuple of int
        Shape of one row, ``(features,)`` or ``(channels, height, width)``; images are flattened.
    embed_dim : int, default=10
        Length of a code.
    hidden_layer_sizes : sequence of int, default=(500, 500, 2000)
        Widths of the encoder's hidden layers; the decoder's are the same in reverse.
    dropout, input_dropout : float, default=0.0
        Probability of dropping each hidden unit of the encoder, and each input.
    code_activation, output_activation : {"linear", "relu", "sigmoid"}
        Last layer of the encoder (default ``"linear"``) and of the decoder (default ``"sigmoid"``).
    normalize : bool, default=False
        Scale codes to unit length.

    References
    ----------
    Section 4.1 of "k-meansNet" and Section 4.4 of "XAI Beyond Classification" (TELL) use these widths; the
    first puts a sigmoid on the code, the second leaves it linear and normalises it.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import MLPAutoencoder
    >>> net = MLPAutoencoder((64,), 10, hidden_layer_sizes=(32, 16))
    >>> net(torch.rand(5, 64)).shape
    torch.Size([5, 64])
    """

    def __init__(
        self,
        shape: Sequence[int],
        embed_dim: int = 10,
        *,
        hidden_layer_sizes: Sequence[int] = (500, 500, 2000),
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        code_activation: str = "linear",
        output_activation: str = "sigmoid",
        normalize: bool = False,
    ):
        require_sizes(embed_dim=embed_dim)
        require_among(ACTIVATIONS, code_activation=code_activation, output_activation=output_activation)
        sizes = [math.prod(shape), *hidden_layer_sizes, embed_dim]
        first = [nn.Dropout(input_dropout)] * (input_dropout > 0)
        encoder = [nn.Flatten(), *first, *dense(sizes, dropout), ACTIVATIONS[code_activation]()]
        decoder = [*dense(sizes[::-1], 0.0), ACTIVATIONS[output_activation](), nn.Unflatten(1, tuple(shape))]
        super().__init__(nn.Sequential(*encoder), nn.Sequential(*decoder), embed_dim=embed_dim, normalize=normalize)


def dense(sizes: Sequence[int], dropout: float) -> list[nn.Module]:
    """Linear layers with ReLU and, if asked, dropout between them."""
    for size in sizes:
        require_sizes(width=size)
    layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
    for n_in, n_out in pairwise(sizes[1:]):
        layers += [nn.ReLU()] + [nn.Dropout(dropout)] * (dropout > 0) + [nn.Linear(n_in, n_out)]
    return layers


class ConvAutoencoder(Autoencoder):
    """The convolutional autoencoder of TELL: four 3 x 3 convolutions with batch norm, two of stride 2.

    ``conv(16) - conv(32, stride 2) - conv(32) - conv(16, stride 2) - fc(256) - fc(embed_dim)``, mirrored by
    transposed convolutions, with a sigmoid at the output. Any image size from 4 x 4 up is accepted.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, height, width)`` of one image.
    embed_dim : int, default=10
        Length of a code.
    normalize : bool, default=False
        Scale codes to unit length.

    References
    ----------
    Section 4.1, "Implementation Details", of "XAI Beyond Classification: Interpretable Neural Clustering".

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import ConvAutoencoder
    >>> ConvAutoencoder((1, 28, 28), 10)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(self, shape: Sequence[int], embed_dim: int = 10, *, normalize: bool = False):
        require_sizes(embed_dim=embed_dim)
        channels, *full = image_shape(shape)
        half = [math.ceil(s / 2) for s in full]
        small = [math.ceil(s / 2) for s in half]
        flat = 16 * math.prod(small)

        def conv(n_in, n_out, stride):
            return [nn.Conv2d(n_in, n_out, 3, stride, 1), nn.BatchNorm2d(n_out), nn.ReLU()]

        def conv_up(n_in, n_out, size):
            # A stride-2 transposed 3 x 3 convolution gives 2 s - 1 pixels; the padding adds the missing one.
            padding = [now - (2 * math.ceil(now / 2) - 1) for now in size]
            layer = nn.ConvTranspose2d(n_in, n_out, 3, 2, 1, output_padding=padding)
            return [layer, nn.BatchNorm2d(n_out), nn.ReLU()]

        encoder = nn.Sequential(
            *conv(channels, 16, 1), *conv(16, 32, 2), *conv(32, 32, 1), *conv(32, 16, 2),
            nn.Flatten(), nn.Linear(flat, 256), nn.ReLU(), nn.Linear(256, embed_dim),
        )  # fmt: skip
        decoder = nn.Sequential(
            nn.Linear(embed_dim, 256), nn.ReLU(), nn.Linear(256, flat), nn.Unflatten(1, (16, *small)),
            *conv_up(16, 32, half),
            nn.ConvTranspose2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(),
            *conv_up(32, 16, full),
            nn.ConvTranspose2d(16, channels, 3, 1, 1), nn.Sigmoid(),
        )  # fmt: skip
        super().__init__(encoder, decoder, embed_dim=embed_dim, normalize=normalize)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class PoolConvAutoencoder(Autoencoder):
    """The convolutional autoencoder of k-meansNet and DCSAI: two 5 x 5 convolutions, each max-pooled by 2.

    ``conv(64) - pool - conv(32) - pool - fc(1024) - fc(embed_dim)``; the decoder undoes each pooling by
    nearest-neighbour upsampling. Any image size from 4 x 4 up is accepted.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, height, width)`` of one image.
    embed_dim : int, default=10
        Length of a code.
    code_activation, output_activation : {"linear", "relu", "sigmoid"}
        Last layer of the encoder (default ``"linear"``; the paper has ``"sigmoid"``) and of the decoder.
    normalize : bool, default=False
        Scale codes to unit length.

    References
    ----------
    Section 4.4 of "k-meansNet: When k-means Meets Differentiable Programming". The paper states neither the
    padding (taken as 2, which keeps the size) nor the decoder's upsampling.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import PoolConvAutoencoder
    >>> PoolConvAutoencoder((1, 28, 28), 10)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        shape: Sequence[int],
        embed_dim: int = 10,
        *,
        code_activation: str = "linear",
        output_activation: str = "sigmoid",
        normalize: bool = False,
    ):
        require_sizes(embed_dim=embed_dim)
        require_among(ACTIVATIONS, code_activation=code_activation, output_activation=output_activation)
        channels, *full = image_shape(shape)
        half = [s // 2 for s in full]
        small = [s // 2 for s in half]
        flat = 32 * math.prod(small)
        encoder = nn.Sequential(
            nn.Conv2d(channels, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(flat, 1024), nn.ReLU(), nn.Linear(1024, embed_dim),
            ACTIVATIONS[code_activation](),
        )  # fmt: skip
        decoder = nn.Sequential(
            nn.Linear(embed_dim, 1024), nn.ReLU(), nn.Linear(1024, flat), nn.ReLU(),
            nn.Unflatten(1, (32, *small)),
            nn.Upsample(size=tuple(half)), nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(),
            nn.Upsample(size=tuple(full)), nn.Conv2d(64, channels, 5, padding=2),
            ACTIVATIONS[output_activation](),
        )  # fmt: skip
        super().__init__(encoder, decoder, embed_dim=embed_dim, normalize=normalize)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def require_sizes(**sizes: Any) -> None:
    """ValueError for a size that is not a positive whole number."""
    for name, size in sizes.items():
        if not isinstance(size, Integral) or size < 1:
            raise ValueError(f"{name}={size!r} must be a positive whole number, such as 10.")


def require_among(known: Iterable[str], **choices: Any) -> None:
    """ValueError for an option that is none of the known ones."""
    for name, choice in choices.items():
        if choice not in list(known):
            raise ValueError(f"{name}={choice!r} must be one of {', '.join(map(repr, sorted(known)))}.")


def require_positive(**numbers: Any) -> None:
    """ValueError for a number that is not above 0 and finite."""
    for name, number in numbers.items():
        if not (isinstance(number, Real) and 0 < float(number) < math.inf):
            raise ValueError(f"{name}={number!r} must be a number above 0, and finite.")


def refuse_channels_last(shape: Sequence[int]) -> None:
    """ValueError for images that would be read as many channels of a few columns of pixels."""
    if len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) > 4:
        raise ValueError(
            f"Rows of shape {tuple(shape)} look like images with the channels last; (channels, height, width) is "
            f"needed. Pass X.transpose(0, 3, 1, 2), or X.permute(0, 3, 1, 2) of a tensor."
        )


def image_shape(shape: Sequence[int]) -> Sequence[int]:
    refuse_channels_last(shape)
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise ValueError(
            f"A convolutional encoder needs images (n, height, width) or (n, channels, height, width) of at "
            f"least 4 x 4 pixels, got rows of shape {tuple(shape)}. Reshape X, or use encoder='mlp'."
        )
    return shape


class Features(Autoencoder):
    """No encoder: the flattened features themselves are the codes, unit length if asked.

    Parameters
    ----------
    shape : tuple of int
        Shape of one row.
    normalize : bool, default=False
        Scale rows to unit length.
    """

    def __init__(self, shape: Sequence[int], *, normalize: bool = False):
        super().__init__(nn.Flatten(), nn.Unflatten(1, tuple(shape)), embed_dim=math.prod(shape), normalize=normalize)


def mlp_or_features(encoder: Any, shape: tuple[int, ...], embed_dim: int, **options: Any) -> Autoencoder:
    """The two networks that every method shares: fully connected, or the features as they are."""
    if encoder is None:
        return Features(shape)
    return MLPAutoencoder(shape, embed_dim, **options)


def adapt_encoder(
    encoder: nn.Module, shape: Sequence[int], hidden_layer_sizes: Sequence[int], *, output_activation: str = "sigmoid"
) -> Autoencoder:
    """A private copy of a user's network as an :class:`Autoencoder`.

    An :class:`Autoencoder` is taken as it is. Any other module is an encoder; it is given a fully connected
    decoder with the mirrored ``hidden_layer_sizes``, because without a reconstruction to hold them apart the
    codes of different clusters would all move to one point.
    """
    encoder = copy.deepcopy(encoder)
    probe = torch.zeros(2, *shape)
    with torch.no_grad():
        mode = encoder.training
        encoder.eval()
        try:
            z = encoder.encode(probe) if isinstance(encoder, Autoencoder) else encoder(probe)
        except Exception as error:
            raise ValueError(
                f"encoder={type(encoder).__name__} failed on a batch of shape {tuple(probe.shape)} ({error}). "
                f"It must map rows of shape {tuple(shape)} to codes (b, embed_dim)."
            ) from error
        encoder.train(mode)
    if not (isinstance(z, Tensor) and z.ndim == 2 and len(z) == 2):
        got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(
            f"encoder={type(encoder).__name__} returned {got} for a batch of shape {tuple(probe.shape)}; it "
            f"must return a tensor of codes (b, embed_dim). Flatten its output or add a last linear layer."
        )
    if isinstance(encoder, Autoencoder):
        _check_decoder(encoder, probe, z)
        return encoder
    embed_dim = z.shape[1]
    mirror = MLPAutoencoder(
        shape, embed_dim, hidden_layer_sizes=hidden_layer_sizes, output_activation=output_activation
    )
    return Autoencoder(encoder, mirror.decoder, embed_dim=embed_dim)


@torch.no_grad()
def _check_decoder(net: Autoencoder, probe: Tensor, z: Tensor) -> None:
    """That codes are as long as ``embed_dim`` says, and are decoded to rows of the shape that was encoded."""
    if z.shape[1] != net.embed_dim:
        raise ValueError(
            f"encoder={type(net).__name__} returned codes of length {z.shape[1]}, but has embed_dim={net.embed_dim}. "
            f"Make it with embed_dim={z.shape[1]}, or change the last layer of its encoder."
        )
    mode = net.training
    net.eval()
    needed = f"Its decoder must map codes (b, {net.embed_dim}) back to rows of shape {tuple(probe.shape[1:])}."
    try:
        x = net.decode(z)
    except Exception as error:
        raise ValueError(
            f"encoder={type(net).__name__} failed to decode codes of shape {tuple(z.shape)} ({error}). {needed}"
        ) from error
    if not (isinstance(x, Tensor) and x.shape == probe.shape):
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"encoder={type(net).__name__} decoded {tuple(z.shape)} codes to {got}. {needed}")
    net.train(mode)
