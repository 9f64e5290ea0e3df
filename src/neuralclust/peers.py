"""The processes of one fit: who they are, and what they tell one another. torch.distributed does the talking.

All processes run the same program on the same rows. In training each encodes and decodes its share of every batch, and
the codes of all are put together before the loss looks at them; so a loss sees whole batches and knows nothing of this.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
_alone = ContextVar("alone", default=False)
_PATIENCE = timedelta(minutes=10)  # for a process that is silent; one that has ended is noticed at once


class Peers:
    """The processes that share a fit; what they tell one another, each of them must take part in.

    Parameters
    ----------
    rank : int, default=0
        Number of this process.
    size : int, default=1
        How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank = rank
        self.size = size

    # -- who does what ----------------------------------------------------------------------------------------

    def own(self, x: Tensor) -> Tensor:
        """This process's share of the rows of a batch."""
        return x if self.size == 1 else x.chunk(self.size)[self.rank]

    def shares(self, items: Sequence[T]) -> Sequence[T]:
        """Every ``size``-th item, beginning with the rank."""
        return items[self.rank :: self.size]

    def part(self, n: int) -> Tensor:
        """Numbers of this process's part of ``n`` rows. Parts are of one length: the last one may repeat row n - 1."""
        length = -(-n // self.size)
        return torch.arange(self.rank * length, (self.rank + 1) * length).clamp_max(n - 1)

    # -- what they tell one another ----------------------------------------------------------------------------

    def gather(self, z: Tensor) -> Tensor:
        """Rows of all processes ``(size * b, ...)`` from each one's ``(b, ...)``, with gradient."""
        return z if self.size == 1 else _Gather.apply(z, self.rank, self.size)

    def join(self, parts: np.ndarray, n: int) -> np.ndarray:
        """Results of ``n`` rows, from those of each process's :meth:`part`."""
        return parts if self.size == 1 else self.gather(torch.from_numpy(parts)).numpy()[:n]

    def average(self, grads: Sequence[Tensor | None], params: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Means of the gradients of parameters over the processes, in one message; None where no process has one."""
        if self.size == 1:
            return grads
        present = torch.tensor([g is not None for g in grads], dtype=params[0].dtype, device=params[0].device)
        parts = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, params, strict=True)]
        flat = torch.cat([*(part.flatten() for part in parts), present])
        with _answering():
            dist.all_reduce(flat)
        *means, present = (flat / self.size).split([*(p.numel() for p in params), len(params)])
        there = present.tolist()
        return [m.view_as(p) if t else None for m, p, t in zip(means, params, there, strict=True)]

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """Sums of numbers over the processes."""
        return values if self.size == 1 else self._reduced(values, dist.ReduceOp.SUM)

    def greatest(self, values: dict[str, float]) -> dict[str, float]:
        """Largest of each number."""
        return values if self.size == 1 else self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: dict[str, float], how: Any) -> dict[str, float]:
        numbers = torch.tensor(list(values.values()), dtype=torch.float64)
        with _answering():
            dist.all_reduce(numbers, how)
        return dict(zip(values, numbers.tolist(), strict=True))

    def first(self, ask: Callable[[], T]) -> T:
        """What the first process finds, or the error it ends with, in all of them."""
        if self.size == 1:
            return ask()
        told: list[Any] = [None, None]
        mine: Exception | None = None
        if self.rank == 0:
            try:
                told[0] = ask()
            except Exception as error:  # raised below, in every process
                mine = error
                told[1] = error if _travels(error) else RuntimeError(f"{type(error).__name__}: {error}")
        with _answering():
            dist.broadcast_object_list(told)
        if told[1] is not None:
            raise mine or told[1]
        return told[0]

    @torch.no_grad()
    def equalize_(self, module: nn.Module) -> None:
        """Give all processes the parameters and buffers of the first."""
        if self.size == 1:
            return
        for value in [*module.parameters(), *module.buffers()]:
            new = value.detach().clone(memory_format=torch.contiguous_format)
            with _answering():
                dist.broadcast(new.reshape(-1).view(torch.uint8), 0)  # bytes: gloo does not know all dtypes
            if not torch.equal(new, value):
                value.copy_(new)

    def agree(self, told: str, otherwise: str) -> None:
        """ValueError in all of them if they were not told the same."""
        differs = float(self.first(lambda: told) != told)
        if self.greatest({"differs": differs})["differs"]:
            raise ValueError(otherwise)

    def part_ways(self) -> None:
        """Let the processes draw different random numbers from here on: each has other rows to make views of."""
        if self.rank > 0:
            seed = int(torch.randint(2**31, ()))
            torch.default_generator.manual_seed(seed + self.rank)
            if torch.cuda.is_available():
                torch.cuda.manual_seed(seed + self.rank)


_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # its new name, and its old one


class _Gather(torch.autograd.Function):
    """Rows of all processes; the gradient of a row is the sum of what all of them want of it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.size = rank, size
        out = z.new_empty((size * len(z), *z.shape[1:]))
        with _answering():
            _all_gather(out, z.contiguous())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = grads[0].contiguous()
        with _answering():
            dist.all_reduce(grad)
        return grad.chunk(ctx.size)[ctx.rank], None, None


def _travels(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class within a function, say, or a lock among the arguments
        return False
    return True


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"Another process of this fit has ended, has not answered for {_PATIENCE.seconds // 60} minutes, or has "
            f"sent something else ({str(error).splitlines()[0]}). Look for its error above. A fit with checkpoint= "
            f"goes on after its last epoch, with any number of processes: start them again with resume=True."
        ) from error


def find_peers() -> Peers:
    """The processes of ``torch.distributed``, which is set up here if torchrun started this one."""
    if _alone.get() or not dist.is_available():
        return Peers()
    if not dist.is_initialized():
        if not _launched():
            return Peers()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        with _answering():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
        atexit.register(_leave)
    return Peers(dist.get_rank(), dist.get_world_size())


@contextmanager
def apart() -> Iterator[None]:
    """What is fitted in the block is fitted by each process for itself."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def writes() -> bool:
    """Whether this process is the one that writes: of several, the first."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return not _launched() or os.environ["RANK"] == "0"


def _launched() -> bool:
    """Whether torchrun, or whatever sets the same variables, started this process as one of several.

    A worker of joblib or of a DataLoader has the same environment, but fits alone.
    """
    known = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return known and os.environ["WORLD_SIZE"] != "1" and multiprocessing.current_process().name == "MainProcess"


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
    # gloo's threads drop the last message's tensors, for which they need the interpreter: not while it ends
    time.sleep(0.2)
