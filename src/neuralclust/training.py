"""The training loop and the loop over rows for inference: the only ones in the library."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralclust._warn import warn
from neuralclust.checkpoint import Keeper
from neuralclust.data import ArraySource, Source, consecutive
from neuralclust.nn import ClusterModule
from neuralclust.peers import Peers

Terms = dict[str, Tensor]
Loss = Callable[[ClusterModule, Tensor, Tensor], Terms]

# Learning rate when the user names none: torch's own default, save where that is of no use here.
LEARNING_RATES = {"adam": 1e-3, "adadelta": 1.0, "adagrad": 1e-2, "rmsprop": 1e-3, "sgd": 1e-2}
TILE = 256  # rows a product at inference: as fast as larger on a CPU, and a single row is not padded to more
_SCALED_BYTES = 2**24  # rows kept as scaled float32 while training
_RISE, _LEAST_RATE = 0.3, 0.04  # of a one-cycle rate: length of the way up, and where it starts
_FAR = 4.0  # scaled entries of rows that have little to do with those of the fit, which are at most 1
_WINDOW = 10  # epochs that must together improve the loss by less than tol before it has settled


def make_optimizer(
    name: str, params: Any, lr: float | None = None, *, momentum: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """An optimiser by name; ``lr=None`` takes the usual rate of that optimiser, ``momentum`` is of "sgd" only.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.training import make_optimizer
    >>> type(make_optimizer("adadelta", [torch.zeros(1, requires_grad=True)])).__name__
    'Adadelta'
    """
    lr = LEARNING_RATES[name] if lr is None else lr
    if name == "adam":
        return torch.optim.Adam(params, lr, weight_decay=weight_decay, fused=True)
    if name == "sgd":
        return torch.optim.SGD(params, lr, momentum=momentum, weight_decay=weight_decay, fused=True)
    if name == "adagrad":
        return torch.optim.Adagrad(params, lr, weight_decay=weight_decay)
    if name == "rmsprop":
        return torch.optim.RMSprop(params, lr, weight_decay=weight_decay)
    return torch.optim.Adadelta(params, lr, weight_decay=weight_decay)


def cosine_rate(progress: float) -> float:
    """Share of the learning rate at a point of a stage, from 1 at the start (0.0) to 0 at the end (1.0).

    Examples
    --------
    >>> from neuralclust.training import cosine_rate
    >>> [round(cosine_rate(p), 2) for p in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * progress))


def one_cycle(progress: float) -> float:
    """Share of the highest learning rate at a point of a stage: up from 4 % over the first 30 %, then down to 0.

    The warm-up lets a wide network survive a rate at which it would die at once; the higher rate and the way down make
    up for many epochs at a constant one.

    Examples
    --------
    >>> from neuralclust.training import one_cycle
    >>> [round(one_cycle(p), 2) for p in (0.0, 0.3, 0.65, 1.0)]
    [0.04, 1.0, 0.5, 0.0]
    """
    if progress < _RISE:
        return _LEAST_RATE + (1 - _LEAST_RATE) * cosine_rate(1 - progress / _RISE)
    return cosine_rate((progress - _RISE) / (1 - _RISE))


def trainable(module: nn.Module) -> list[Tensor]:
    """Parameters that may learn: all but those the user has frozen."""
    return [p for p in module.parameters() if p.requires_grad]


class Update:
    """ "This loss moves these parameters": a loss and the optimisers whose parameters learn from it.

    Parameters
    ----------
    loss : callable
        ``loss(module, x, index) -> {"loss": scalar, ...}`` with scaled rows ``x`` (b, *shape) and their numbers
        ``index`` (b,). The dict becomes the epoch's row of ``history_``. Of several processes each has a share of
        ``x``, but all of ``index`` and of the codes; a term is a mean over rows, or the same in all of them.
    *optimizers : torch.optim.Optimizer
        Each steps once; what must happen around a step (a projection, say) is a hook on its optimiser.
    rate : callable, optional
        ``rate(progress) -> factor`` of the learning rates at a point of the stage, 0.0 to 1.0. None: constant.
    """

    def __init__(self, loss: Loss, *optimizers: torch.optim.Optimizer, rate: Callable[[float], float] | None = None):
        self.loss = loss
        self.optimizers = optimizers
        self.rate = rate
        self._lrs = [[group["lr"] for group in o.param_groups] for o in optimizers]
        self.params = [p for o in optimizers for group in o.param_groups for p in group["params"]]

    def set_progress(self, progress: float) -> None:
        """Set the learning rates for a point of the stage."""
        if self.rate is not None:
            factor = self.rate(progress)
            for optimizer, lrs in zip(self.optimizers, self._lrs, strict=True):
                for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                    group["lr"] = factor * lr

    def step(self, module: ClusterModule, x: Tensor, index: Tensor, peers: Peers | None = None) -> Terms:
        """One optimiser step. Exactly ``self.params`` learn, whatever else the loss depends on."""
        terms = self.loss(module, x, index)
        grads: Sequence[Tensor | None] = torch.autograd.grad(terms["loss"], self.params, allow_unused=True)
        if peers is not None:
            grads = peers.average(grads, self.params)
        for p, g in zip(self.params, grads, strict=True):
            p.grad = g
        for optimizer in self.optimizers:
            optimizer.step()
        return terms


class RunningMeans(Update):
    """A step of a classifier on a stream; the rows then join the mean codes of their clusters."""

    def step(self, module: ClusterModule, x: Tensor, index: Tensor, peers: Peers | None = None) -> Terms:
        """One optimiser step, and the means."""
        terms = super().step(module, x, index, peers)
        with torch.no_grad():
            module.head.update_(module.encode(x))
        return terms


@dataclass
class Trainer:
    """Runs stages of updates over a source of rows.

    Parameters
    ----------
    batch_size : int
        Rows in a step, of all processes together: their largest multiple up to this. The rows left over at the end of
        an epoch are dropped (another few each epoch).
    device : torch.device
        Where the module lives.
    precision : torch.dtype
        Of the autoencoder while training.
    generator : torch.Generator
        Source of the row order.
    peers : Peers, optional
        The processes that share the work.
    report : callable, optional
        Called after each epoch with the share of the stage that is done.
    """

    batch_size: int
    device: torch.device
    precision: torch.dtype
    generator: torch.Generator
    peers: Peers = field(default_factory=Peers)
    report: Callable[[float], None] | None = None

    def fit(
        self,
        module: ClusterModule,
        source: Source,
        updates: list[Update],
        *,
        stage: str,
        epochs: int,
        turn: str = "all",
        on_epoch: Callable[[dict[str, Any]], bool] | None = None,
        keeper: Keeper | None = None,
    ) -> list[dict[str, Any]]:
        """Train one stage.

        Parameters
        ----------
        module : ClusterModule
            What is trained, in place.
        source : Source
            Training rows.
        updates : list of Update
            Steps to take.
        stage : str
            Name in the history.
        epochs : int
            Passes over the rows at most.
        turn : {"all", "epoch", "batch"}, default="all"
            All updates on every batch, or one at a time in turn by epoch or by batch.
        on_epoch : callable, optional
            Called with each epoch's row; ends the stage by returning True.
        keeper : Keeper, optional
            Writes checkpoints, and knows where a fit that is resumed goes on.

        Returns
        -------
        list of dict
            One row an epoch: ``stage``, ``epoch`` and the mean of each term of the loss.
        """
        rows: list[dict[str, Any]] = []
        row: dict[str, Any]
        before = {name: value.clone() for name, value in module.state_dict().items()}
        batch = 0  # of the stage, not of the epoch: an epoch may have only one
        stop = False
        optimizers = list(dict.fromkeys(optimizer for update in updates for optimizer in update.optimizers))
        if keeper is not None and (found := keeper.restore(stage, module, optimizers, self.generator)):
            rows, batch, stop, before = found["rows"], found["batch"], found["done"], found["before"]
        source, prepare = self._scaled_once(module, source)
        self.peers.part_ways()
        with module.computing_in(self.precision), module.shared_by(self.peers):
            for epoch in range(epochs if stop else len(rows), epochs):
                module.train()
                totals: dict[str, Any] = {}
                counts: Counter[str] = Counter()  # a term that only some updates have is a mean over their batches
                order = self._shuffled(len(source))
                own = source.batches([self.peers.own(index) for index in order])
                for index, (_, x) in zip(order, own, strict=True):
                    x = prepare(x.to(self.device, non_blocking=True))
                    count = epoch if turn == "epoch" else batch
                    batch += 1
                    now = updates if turn == "all" else [updates[count % len(updates)]]
                    terms: Terms = {}
                    for update in now:
                        update.set_progress((batch - 1) / (epochs * len(order)))
                        # of a term that several have, the last is reported
                        terms |= update.step(module, x, index, self.peers)
                    counts.update(terms.keys())
                    for name, value in terms.items():
                        totals[name] = totals.get(name, 0.0) + value.detach()  # no wait for a GPU
                means = self.peers.total({k: float(v) / counts[k] / self.peers.size for k, v in totals.items()})
                row = {"stage": stage, "epoch": epoch, **means}
                rows.append(row)
                with module.shared_by(None):  # a callback may ask the model what it likes
                    stop = (on_epoch is not None and on_epoch(row)) or not math.isfinite(row["loss"])
                    if self.report is not None:
                        self.report((epoch + 1) / epochs)
                if keeper is not None:
                    done = stop or epoch + 1 == epochs
                    keeper.write(stage, rows, batch, done, module, optimizers, self.generator, before)
                if stop:
                    break
        if rows and not (math.isfinite(rows[-1]["loss"]) and _all_finite(module)):
            module.load_state_dict(before)
            warn(
                f"Non-finite loss or weights in epoch {len(rows) - 1} of stage {stage!r} (loss "
                f"{rows[-1]['loss']:.3g}); the weights from before the stage were restored. A lower lr helps."
            )
        return rows

    def _scaled_once(self, module: ClusterModule, source: Source) -> tuple[Source, Callable[[Tensor], Tensor]]:
        """A small table scaled before the first epoch, or the source as it is and how to scale a batch of it.

        Scaling a batch takes 5 % of a step of the smallest networks. A Dataset is asked anew in every epoch: it may
        give other rows.
        """
        if not isinstance(source, ArraySource) or 4 * len(source) * math.prod(source.shape) > _SCALED_BYTES:
            return source, module.prepare
        parts = [module.prepare(x.to(self.device)) for _, x in source.batches(consecutive(len(source), 4096))]
        return ArraySource(torch.cat(parts), source.shape), lambda x: x

    def _shuffled(self, n: int) -> list[Tensor]:
        size = min(self.batch_size, n)
        size -= size % self.peers.size
        if size == 0:
            raise ValueError(
                f"{self.peers.size} processes cannot share a step of {min(self.batch_size, n)} rows "
                f"(batch_size={self.batch_size}, {n} samples). Start fewer, or use larger batches."
            )
        order = torch.randperm(n, generator=self.generator)
        return list(order[: n - n % size].split(size))


class LabelChanges:
    """Share of the rows of a batch that are in another cluster than when they were last in one.

    Parameters
    ----------
    n_samples : int
        Rows in all.
    memory : dict
        Where the labels are kept, as ``"labels"``: what checkpoints hold beside the module.
    """

    def __init__(self, n_samples: int, memory: dict[str, Tensor]):
        self._memory = memory
        memory["labels"] = torch.full((n_samples,), -1)

    def __call__(self, labels: Tensor, index: Tensor) -> Tensor:
        before = self._memory["labels"].to(labels.device)
        index = index.to(labels.device)
        changed = labels.ne(before[index]).float().mean()
        before[index] = labels
        self._memory["labels"] = before
        return changed


def settled(rows: list[dict[str, Any]], tol: float) -> bool:
    """Whether the last ten epochs together improved the loss by at most ``tol`` of itself; never if ``tol`` is 0."""
    if tol == 0 or len(rows) <= _WINDOW:
        return False
    losses = [row["loss"] for row in rows]
    earlier = min(losses[:-_WINDOW])
    return earlier - min(losses[-_WINDOW:]) <= tol * abs(earlier)


def _all_finite(module: ClusterModule) -> bool:
    return bool(torch.stack([p.detach().sum() for p in module.parameters()]).isfinite().all())


def prepared(module: ClusterModule, x: Tensor, device: torch.device) -> Tensor:
    """Scaled rows on the device; rows so far outside the range of the fit that float32 cannot hold them are refused."""
    scaled = module.prepare(x.to(device))
    if not torch.isfinite(scaled).all():
        raise ValueError(
            "X has values too far outside the range of the rows that the estimator was fitted on to be told apart. "
            "Check their units, or fit on rows that include them."
        )
    return scaled


@torch.inference_mode()
def map_rows(
    module: ClusterModule, fn: Callable[[Tensor], Tensor], source: Source, *, tile: int, device: torch.device
) -> np.ndarray:
    """``fn`` of all scaled rows, in evaluation mode and float32, ``tile`` rows at a time.

    The last tile is padded, so every product has the same shape and a row's result does not depend on how many
    rows came with it.
    """
    module.eval()
    out: np.ndarray | None = None
    with module.computing_in(torch.float32), module.packed(), module.shared_by(None):
        for index, x, n_rows in _tiles(source, tile):
            scaled = prepared(module, x, device)
            values = fn(scaled)[:n_rows].cpu().numpy()
            if out is None:
                _warn_if_far(module, scaled[:n_rows])
                out = np.empty((len(source), *values.shape[1:]), values.dtype)
            out[index[0] : index[0] + n_rows] = values
    assert out is not None  # a validated source has at least one row
    return out


def _warn_if_far(module: ClusterModule, scaled: Tensor) -> None:
    """Say so if most rows are from elsewhere: raw ones, say, given to the last step of a pipeline."""
    far = scaled.flatten(1).abs().amax(dim=1) > _FAR
    if far.float().mean() > 0.5:
        fitted = "" if module.scale.ndim else f" ({1 / float(module.scale):.3g})"
        warn(
            f"Most of these rows lie more than {_FAR - 1:g} times the range of the rows that the estimator was fitted "
            f"on{fitted} outside that range, so their clusters mean little. Check their units; if the estimator "
            f"was fitted as part of a pipeline, predict with the whole pipeline.",
            UserWarning,
        )


def _tiles(source: Source, tile: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    for index, x in source.batches(consecutive(len(source), tile)):
        n_rows = len(x)
        if n_rows < tile:
            x = torch.cat([x, x[-1:].expand(tile - n_rows, *x.shape[1:])])
        yield index, x, n_rows


@torch.inference_mode()
def mean_loss(
    module: ClusterModule, loss: Loss, source: Source, *, tile: int, device: torch.device, peers: Peers
) -> float:
    """Mean of a loss over all rows, in evaluation mode and float32; each process looks at some of them."""
    module.eval()
    total = 0.0
    with module.computing_in(torch.float32), module.shared_by(None):
        for index, x in source.batches(peers.shares(consecutive(len(source), tile))):
            total += float(loss(module, prepared(module, x, device), index)["loss"]) * len(index)
    return peers.total({"loss": total})["loss"] / len(source)
