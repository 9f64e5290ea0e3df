"""The module that every estimator has: scaling, autoencoder and cluster layer in one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuralclust.nn.autoencoders import Autoencoder


class ClusterModule(nn.Module):
    """What a fitted estimator keeps as ``module_``: everything from raw rows to assignments.

    All state is parameters and buffers, so saving, moving and exporting need no special case.

    Parameters
    ----------
    autoencoder : Autoencoder
        Maps scaled rows to codes and back.
    head : nn.Module
        Cluster layer: maps codes to soft assignments, has ``predict``, ``loss`` and ``centers``.
    shape : tuple of int
        Shape of one row.

    Attributes
    ----------
    shift, scale : Tensor of shape (), or of the shape of a row
        ``prepare`` maps x to ``(x - shift) * scale``; float64, so that an offset far from zero costs no digits.
    mean : Tensor of shape () or of the shape of a row
        What ``prepare`` takes off rows scaled to 0 to 1; 0 as a rule.
    variance : Tensor of shape ()
        Mean variance of the scaled columns.
    """

    autoencoder: Autoencoder
    head: Any  # a layer of heads.py, or anything that has what these have
    shift: Tensor
    scale: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, autoencoder: Autoencoder, head: nn.Module, shape: tuple[int, ...]):
        super().__init__()
        self._peers: Any = None
        self.autoencoder = autoencoder
        self.head = head
        self.shape = tuple(shape)
        self.register_buffer("shift", torch.zeros((), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))

    def set_range_(self, low: float, high: float, rows: Any = None, columns: Any = None) -> None:
        """Scale so that ``low`` becomes 0 and ``high`` 1 (a constant data set is only shifted).

        ``rows``: a sample. ``columns``: mean and standard deviation of each, in whose terms ``low`` and ``high`` are.
        """
        mean, deviation = (0.0, 1.0) if columns is None else columns
        spread = high - low
        scale = (1.0 / spread if spread > _SMALLEST else 1.0) / deviation
        like: dict[str, Any] = {"dtype": torch.float64, "device": self.shift.device}
        self.shift, self.scale = torch.as_tensor(mean + low * deviation, **like), torch.as_tensor(scale, **like)
        if rows is not None:
            scaled = (torch.as_tensor(rows, dtype=torch.float64) - self.shift) * self.scale
            self.variance.copy_(scaled.var(dim=0, correction=0).mean())

    def center_(self, row: Tensor) -> None:
        """Take off a mean row, in the data's units, as well."""
        row = row.to(self.shift)
        self.mean, self.shift = (row - self.shift) * self.scale, row.clone()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name in ("shift", "scale", "mean"):  # one number, or a row
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @contextmanager
    def computing_in(self, precision: torch.dtype) -> Iterator[None]:
        """Run the autoencoder in this precision for the length of the block."""
        outer, self.autoencoder.precision = self.autoencoder.precision, precision
        try:
            yield
        finally:
            self.autoencoder.precision = outer

    @contextmanager
    def shared_by(self, peers: Any) -> Iterator[None]:
        """Let the processes of a fit share the rows of a batch, for the length of the block; None: each has its own.

        ``encode`` then takes the rows of this process and gives the codes of all; ``decode`` takes the codes of all and
        gives the rows of this one.
        """
        outer, self._peers = self._peers, peers
        try:
            yield
        finally:
            self._peers = outer

    @contextmanager
    def packed(self) -> Iterator[None]:
        """For inference: wide linear layers of the encoder in oneDNN's layout, for the length of the block.

        On a CPU that is float32 as before and 1.5 times as fast or more; packing takes no longer than it saves on one
        tile of rows.
        """
        layers = [m for m in self.autoencoder.encoder.modules() if isinstance(m, nn.Linear)]
        wide = [layer.weight for layer in layers if _pays_to_pack(layer.weight)]
        with _PackedProducts(wide) if wide else nullcontext():
            yield

    def prepare(self, x: Tensor) -> Tensor:
        """Raw rows of any numeric dtype to scaled float32 rows ``(b, *shape)``."""
        x = x.to(torch.float64 if x.dtype in _WIDE else torch.float32)
        return (x - self.shift).mul_(self.scale).float()

    def restore(self, x: Tensor) -> Tensor:
        """Scaled rows back to the data's own units, in float64: the inverse of :meth:`prepare`."""
        return x.double() / self.scale + self.shift

    def encode(self, x: Tensor) -> Tensor:
        """Codes ``(b, p)`` of scaled rows."""
        return self.gather(self.autoencoder.encode(x))

    def encode_views(self, x: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of rows and of a view of each, in one go."""
        z, z_view = self.autoencoder.encode(torch.cat([x, view])).chunk(2)
        return self.gather(z), self.gather(z_view)

    def gather(self, values: Tensor) -> Tensor:
        """Values ``(b, ...)`` of all rows of a batch, from those of the rows of this process."""
        return values if self._peers is None else self._peers.gather(values)

    def decode(self, z: Tensor) -> Tensor:
        """Scaled rows of codes ``(b, p)``."""
        return self.autoencoder.decode(z if self._peers is None else self._peers.own(z))

    def assign(self, x: Tensor) -> Tensor:
        """Soft assignments ``(b, k)`` of scaled rows; each row sums to 1."""
        return self.head(self.encode(x))

    def predict(self, x: Tensor) -> Tensor:
        """Cluster index ``(b,)`` of scaled rows."""
        return self.head.predict(self.encode(x))

    def forward(self, x: Tensor) -> Tensor:
        """Soft assignments ``(b, k)`` of raw rows."""
        return self.assign(self.prepare(x))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """All of a module's tensors by name: also the buffers that a state dict leaves out."""
    return {**dict(module.named_buffers()), **module.state_dict()}


def load_state(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a module what :func:`state_of` took from one like it; KeyError or RuntimeError if it is of another."""
    left_out = state_of(module).keys() - module.state_dict().keys()
    for name in left_out:
        module.get_buffer(name).copy_(tensors[name])
    module.load_state_dict({name: value for name, value in tensors.items() if name not in left_out})


class _PackedProducts(TorchFunctionMode):
    """Within it, and in its thread alone, oneDNN multiplies rows by packed copies of these weights.

    The layers are left as they are, so that others may use, copy or pickle them meanwhile.
    """

    def __init__(self, weights: list[Tensor]):
        super().__init__()
        self._packed = {id(weight): (weight, weight.detach().to_mkldnn()) for weight in weights}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and len(args) == 3 and not torch.compiler.is_compiling():
            x, weight, bias = args
            known, packed = self._packed.get(id(weight), (None, None))
            if known is weight and x.dtype == torch.float32 and x.ndim == 2:
                bias = None if bias is None else bias.detach()
                return torch.ops.aten.mkldnn_linear(x.to_mkldnn(), packed, bias).to_dense()
        return func(*args, **kwargs)


def _pays_to_pack(weight: Tensor) -> bool:
    """Whether a weight is on the CPU, in float32, and large enough."""
    plain = type(weight) is nn.Parameter and weight.device.type == "cpu" and weight.dtype == torch.float32
    return plain and weight.numel() >= _WIDE_LAYER and torch.backends.mkldnn.is_available()


_WIDE_LAYER = 2**16  # weights; below, what oneDNN saves it spends on the layout of the rows
_WIDE = (torch.float64, torch.int32, torch.int64)  # float32 cannot hold their values exactly
_SMALLEST = 1e-37  # the inverse of a smaller spread is not a float32
