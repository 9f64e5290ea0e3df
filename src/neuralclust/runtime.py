"""Where and how tensors are computed: device, precision, and random states that leave no trace."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

# Networks with fewer weights lose more to the casts of autocast than they gain from faster products
# (benchmarks/README.md has the measurement).
BFLOAT16_WEIGHTS = 200_000

# torch has one random state for all threads of a process, so fits in threads take turns.
_TURN = threading.RLock()


def resolve_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is CUDA if there is one, else the CPU; anything else is checked to exist."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r} cannot be used here ({reason}). Use 'auto', 'cpu', or a device of this machine."
        ) from error
    return resolved


def resolve_precision(precision: str, device: torch.device, network: nn.Module) -> torch.dtype:
    """``"auto"`` is bfloat16 where the processor multiplies it natively and the network is large enough.

    Convolutional networks stay in float32 on CPUs, where bfloat16 convolutions do not pay.
    """
    if precision != "auto":
        return getattr(torch, precision)
    weights = sum(p.numel() for p in network.parameters())
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        convolves = any(isinstance(m, nn.Conv2d) for m in network.modules())
        native = device.type == "cpu" and _cpu_multiplies_bfloat16() and not convolves
    return torch.bfloat16 if native and weights >= BFLOAT16_WEIGHTS else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    # Private names, the only way to ask; a version of torch without one simply answers no.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


@contextmanager
def _in_float32() -> Iterator[None]:
    """Networks are made in float32, whatever torch's default is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Run with torch's random state set to ``seed`` and put the old state back afterwards.

    Of several threads one at a time is let in.

    Yields
    ------
    torch.Generator
        A CPU generator of the same seed, for the order of the rows.
    """
    devices = [device] if device.type == "cuda" else []
    with _TURN, torch.random.fork_rng(devices), _in_float32():
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def draw_seeds(random_state: int | np.random.RandomState | None, n: int) -> list[int]:
    """``n`` seeds. None draws fresh entropy and so leaves NumPy's global state as it is."""
    if random_state is None:
        return np.random.default_rng().integers(2**31, size=n).tolist()
    if isinstance(random_state, np.random.RandomState):
        return random_state.randint(2**31 - 1, size=n).tolist()
    return np.random.default_rng(random_state).integers(2**31, size=n).tolist()
