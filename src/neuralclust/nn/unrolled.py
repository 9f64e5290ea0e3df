"""Linearised ADMM for sparse coding, unrolled into a network with learned dictionaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralclust.functional.sparse import NOISES, largest_step, shrink, soft_threshold
from neuralclust.nn.autoencoders import Autoencoder, dense, image_shape

MAPS = ("linear", "mlp", "conv")
_CHANNELS = (32, 64, 128)
_SAMPLE = 2**20  # entries that a quantile is taken of
_UPDATE = {"conv": 0.1}  # of A2^T and B_1 after the first block: steps of 1 diverge where patches overlap


class DLADMMBlock(nn.Module):
    """One iteration: affinity updating, de-noising and multiplier updating layer (Eq. 9, 10 and 11).

    Parameters
    ----------
    to_data, to_code : nn.Module
        A1, from codes ``(b, *code_shape)`` to rows, and A2^T, from rows ``(b, *shape)`` to codes.
    shape, code_shape : tuple of int
        Shapes of a row and of a code.
    noise : {"row", "entry"}, default="entry"
        Shape of the noise: "entry" as in the paper's network, "row" as in its objective.

    Notes
    -----
    Penalty and thresholds have a value for each entry of a row or each map of a code, none for a place in the batch.
    Penalty and thresholds are kept positive by softplus: a shrinkage by a negative threshold doubles small entries.
    """

    def __init__(
        self,
        to_data: nn.Module,
        to_code: nn.Module,
        shape: Sequence[int],
        code_shape: Sequence[int],
        *,
        noise: str = "entry",
    ):
        super().__init__()
        self.to_data: Any = to_data
        self.to_code: Any = to_code
        self.noise = noise
        maps = (code_shape[0], *[1] * (len(code_shape) - 1)) if len(code_shape) > 1 else code_shape
        self.raw_penalty = nn.Parameter(torch.empty(*shape))  # beta
        self.relaxation = nn.Parameter(torch.empty(*shape))  # W_1, without the constraint to be 1 / beta
        self.raw_code_threshold = nn.Parameter(torch.empty(*maps))  # B_1
        self.raw_noise_threshold = nn.Parameter(torch.empty(shape if noise == "entry" else [1] * len(shape)))  # B_2
        self.set_(penalty=1.0, relaxation=1.0, code_threshold=0.15, noise_threshold=0.15)

    @torch.no_grad()
    def init_(self, scale: float = 1.0) -> None:
        """Maps that keep the size of what they map, but for A2^T and its threshold, the step: ``scale`` of that."""
        for net in (self.to_code, self.to_data):
            layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
            for layer in layers:
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            if net is self.to_code:
                layers[-1].weight.mul_(scale)
        self.set_(penalty=1.0, relaxation=1.0, code_threshold=0.15 * scale, noise_threshold=0.15)

    @torch.no_grad()
    def set_(self, *, penalty: float, relaxation: float, code_threshold: float, noise_threshold: float) -> None:
        """Give all entries the same values, as the classical iteration has."""
        for raw, value in (
            (self.raw_penalty, penalty),
            (self.raw_code_threshold, code_threshold),
            (self.raw_noise_threshold, noise_threshold),
        ):
            raw.fill_(_inverse_softplus(value))
        self.relaxation.fill_(relaxation)

    @property
    def penalty(self) -> Tensor:
        """beta, of the shape of a row."""
        return F.softplus(self.raw_penalty)

    @property
    def code_threshold(self) -> Tensor:
        """B_1, a value for each map (or entry) of a code."""
        return F.softplus(self.raw_code_threshold)

    @property
    def noise_threshold(self) -> Tensor:
        """B_2, of the shape of a row, or one value for whole rows."""
        return F.softplus(self.raw_noise_threshold)

    def step(self, x: Tensor, z: Tensor | None, e: Tensor | None, multiplier: Tensor | None) -> Tensor:
        """The codes before they are shrunk; from zeros at the start: ``A2^T(beta x)``."""
        if z is None or e is None or multiplier is None:
            return self.to_code(self.penalty * x)
        violation = self.to_data(z) + e - x
        return z - self.to_code(multiplier + self.penalty * violation)

    def code(self, x: Tensor, z: Tensor | None, e: Tensor | None, multiplier: Tensor | None) -> Tensor:
        """Affinity updating layer, Eq. 9."""
        return soft_threshold(self.step(x, z, e, multiplier), self.code_threshold)

    def forward(
        self, x: Tensor, z: Tensor | None = None, e: Tensor | None = None, multiplier: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next codes, noise and multiplier."""
        z = self.code(x, z, e, multiplier)
        multiplier = torch.zeros_like(x) if multiplier is None else multiplier
        decoded = self.to_data(z)
        e = self._shrink(x - decoded - self.relaxation * multiplier)
        return z, e, multiplier + self.penalty * (decoded + e - x)

    def _shrink(self, e: Tensor) -> Tensor:
        if self.noise == "entry":
            return shrink(e, self.noise_threshold, "entry")
        return shrink(e.flatten(1), self.noise_threshold.reshape(1), "row").view_as(e)


class DLADMM(Autoencoder):
    """Differentiable linearised ADMM: sparse codes of rows by a few learned iterations; the last A1 decodes.

    Every block is an iteration of :func:`~neuralclust.functional.linearised_admm` with a dictionary, a step and
    thresholds of its own, all learned. The first starts from zeros and so is the encoder of a plain autoencoder.

    Parameters
    ----------
    shape : tuple of int
        Shape of one row; ``(channels, height, width)`` for "conv".
    n_blocks : int, default=5
        Iterations. The paper's count leaves out the first: its 4 are 5 here, its 0 is 1, a plain autoencoder.
    maps : {"linear", "mlp", "conv"}, default="mlp"
        Dictionary maps A1 and A2^T: matrices; fully connected; or three 3 x 3 convolutions of 32, 64 and 128 maps.
    embed_dim : int, default=500
        Length of a code ("linear" and "mlp").
    hidden_layer_sizes : sequence of int, default=(500,)
        Hidden layers of "mlp".
    strides : sequence of int, default=(2, 2, 1)
        Of "conv". The paper names none; (1, 1, 1) would give codes of ``128 height width`` numbers.
    noise : {"row", "entry"}, default="entry"
        Shape of the noise: "entry" as in the paper's network, "row" as in its objective.
    normalize : bool, default=False
        Scale codes to unit length.

    References
    ----------
    "SSCNet: learning-based subspace clustering", Eq. 7-11. Followed where it is right: A1 maps codes to rows and A2^T
    rows to codes (the text after Eq. 7 has it the other way round), the first code is ``R(A2^T(beta x); B_1)`` (the
    printed ``A2^T(A1(X))`` does not fit the shapes). Parameters of the size of a batch cannot be applied to another
    one; here they have the size of a row. X. Xie, J. Wu, G. Liu, Z. Zhong, Z. Lin: "Differentiable linearized ADMM",
    ICML 2019.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import linearised_admm
    >>> from neuralclust.nn import DLADMM
    >>> dictionary, x = torch.eye(3), torch.tensor([[2.0, 0.0, -1.0]])
    >>> net = DLADMM.from_dictionary(dictionary, n_blocks=5, lam=2.0, noise="row")
    >>> z, e, multiplier = net.solve(x)
    >>> z.allclose(linearised_admm(x, dictionary, lam=2.0, max_iter=5).codes, atol=1e-6)
    True
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_blocks: int = 5,
        *,
        maps: str = "mlp",
        embed_dim: int = 500,
        hidden_layer_sizes: Sequence[int] = (500,),
        strides: Sequence[int] = (2, 2, 1),
        noise: str = "entry",
        normalize: bool = False,
    ):
        if maps not in MAPS:
            raise ValueError(f"maps={maps!r} must be one of {MAPS}.")
        if noise not in NOISES:
            raise ValueError(f"noise={noise!r} must be one of {NOISES}.")
        if maps == "conv" and len(strides) != len(_CHANNELS):
            raise ValueError(f"strides={tuple(strides)!r} must be {len(_CHANNELS)} numbers, one for each convolution.")
        if n_blocks < 1:
            raise ValueError(f"n_blocks={n_blocks!r} must be at least 1: the first makes the code.")
        blocks = []
        to_code: Any
        to_data: Any
        for i in range(n_blocks):
            if maps == "conv":
                to_code, to_data, code_shape = _convolutions(shape, strides)
            else:
                sizes = [math.prod(shape), *(hidden_layer_sizes if maps == "mlp" else ()), embed_dim]
                to_code = nn.Sequential(nn.Flatten(), *dense(sizes, 0.0))
                to_data = nn.Sequential(*dense(sizes[::-1], 0.0), nn.Unflatten(1, tuple(shape)))
                if maps == "linear":
                    to_code[1].bias = to_data[0].bias = None
                code_shape = (embed_dim,)
            blocks.append(DLADMMBlock(to_data, to_code, shape, code_shape, noise=noise))
            blocks[-1].init_(_UPDATE.get(maps, 1.0) if i else 1.0)
        # The decoder is in the last block: registered twice, its weights would be saved twice.
        super().__init__(_Iterations(blocks), nn.Identity(), embed_dim=math.prod(code_shape), normalize=normalize)
        self.code_shape = tuple(code_shape)
        if maps == "conv":
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def blocks(self) -> list[DLADMMBlock]:
        """The iterations, first to last."""
        return [cast(DLADMMBlock, block) for block in cast(_Iterations, self.encoder).blocks]

    def decode(self, z: Tensor) -> Tensor:
        """Rows ``(b, *shape)`` of codes ``z`` ``(b, embed_dim)``, float32: the last A1."""
        with self._autocast(z):
            x = self.blocks[-1].to_data(z.view(-1, *self.code_shape))
        return x.float()

    def solve(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes ``(b, embed_dim)``, noise and multiplier ``(b, *shape)`` after the last block."""
        with self._autocast(x):
            z, e, multiplier = cast(_Iterations, self.encoder).iterate(x)
        return z.flatten(1).to(x.dtype), e.to(x.dtype), multiplier.to(x.dtype)

    @torch.no_grad()
    def calibrate_(self, x: Tensor, zeros: float = 0.5) -> None:
        """Set the codes' thresholds, block by block, so that this share of the entries is 0 for the rows ``x``.

        Whatever the scale of the data, codes then neither start all zero, from where nothing is learned, nor all full.
        """
        state: tuple[Tensor | None, ...] = (None, None, None)
        for block in self.blocks:
            level = block.step(x, *state).abs().flatten()[:_SAMPLE].float().quantile(zeros)
            block.raw_code_threshold.fill_(_inverse_softplus(max(float(level), 1e-6)))
            state = block(x, *state)

    @classmethod
    def from_dictionary(
        cls,
        dictionary: Tensor,
        n_blocks: int,
        *,
        lam: float = 1.0,
        beta: float = 1.0,
        step: float | None = None,
        noise: str = "row",
    ) -> DLADMM:
        """The network that computes ``n_blocks`` iterations of linearised ADMM, with a fixed dictionary to start from.

        Parameters
        ----------
        dictionary : Tensor of shape (m, d)
            An atom a row; its dtype becomes the network's.
        n_blocks : int
            Iterations.
        lam, beta, step, noise
            As in :func:`~neuralclust.functional.linearised_admm`.
        """
        m, d = dictionary.shape
        step = largest_step(dictionary, lam, beta, step)
        net = cls((d,), n_blocks, maps="linear", embed_dim=m, noise=noise).to(dictionary.dtype)
        with torch.no_grad():
            for block in net.blocks:
                to_data, to_code = block.to_data[0], block.to_code[1]
                to_data.weight.copy_(dictionary.T)
                to_code.weight.copy_(step * dictionary)
                block.set_(penalty=beta, relaxation=1 / beta, code_threshold=step, noise_threshold=lam / beta)
        return net


class _Iterations(nn.Module):
    """The blocks one after the other, as an encoder."""

    def __init__(self, blocks: list[DLADMMBlock]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def iterate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state: tuple[Tensor, ...] = ()
        for block in self.blocks:
            state = block(x, *state)
        return cast(tuple[Tensor, Tensor, Tensor], state)

    def forward(self, x: Tensor) -> Tensor:
        """Codes alone: the last block's noise and multiplier are not needed."""
        *first, last = self.blocks
        state: tuple[Tensor | None, ...] = (None, None, None)
        for block in first:
            state = block(x, *state)
        return cast(DLADMMBlock, last).code(x, *state).flatten(1)


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


def _convolutions(shape: Sequence[int], strides: Sequence[int]) -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    """A2^T, A1 and the shape of a code."""
    n_in, *size = image_shape(shape)
    channels, sizes = [n_in, *_CHANNELS], [size]
    down: list[nn.Module] = []
    for i, stride in enumerate(strides):
        sizes.append([math.ceil(s / stride) for s in sizes[-1]])
        down += [nn.Conv2d(channels[i], channels[i + 1], 3, stride, 1), nn.ReLU()]
    up: list[nn.Module] = []
    for i in reversed(range(len(strides))):
        padding = [now - ((small - 1) * strides[i] + 1) for now, small in zip(sizes[i], sizes[i + 1], strict=True)]
        up += [
            nn.ConvTranspose2d(
                channels[i + 1], channels[i], 3, strides[i], 1, output_padding=cast(tuple[int, int], tuple(padding))
            ),
            nn.ReLU(),
        ]
    return nn.Sequential(*down[:-1]), nn.Sequential(*up[:-1]), (channels[-1], *sizes[-1])
