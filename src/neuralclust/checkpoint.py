"""Checkpoints of a fit: one file with all that the next epoch depends on, so that it goes on bit for bit."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from neuralclust import __version__
from neuralclust.data import ArraySource
from neuralclust.nn.module import load_state, state_of

if TYPE_CHECKING:
    from neuralclust.data import Source
    from neuralclust.nn import ClusterModule
    from neuralclust.peers import Peers

FILE = "checkpoint.safetensors"
_FORMAT = 1
_PROBED, _PROBED_NUMBERS = 64, 2**24  # rows that tell one data set from another: at least, and as many as have so many


class Checkpoint:
    """Where, and how often, a fit writes down how far it is.

    Parameters
    ----------
    folder : str or Path
        Holds one file, ``checkpoint.safetensors``; it is made if missing. A new checkpoint replaces the last one whole
        or not at all.
    every_epochs : int, default=1
        Epochs between two checkpoints.
    every_seconds : float, default=0.0
        Least time between two, for epochs that are short.

    Notes
    -----
    One folder is for one fit, so not for a search over parameters; of several processes that share it the first writes.
    Callbacks begin anew when a fit goes on: they are told of the epochs that are left. Of a ``RandomState`` the seeds
    first drawn are kept.

    Examples
    --------
    >>> import tempfile
    >>> from neuralclust import TELL, Checkpoint
    >>> from neuralclust.datasets import make_sphere_clusters
    >>> X, y = make_sphere_clusters(100, 3, 8, noise=0.1, random_state=0)
    >>> model = TELL(3, hidden_layer_sizes=(16,), pretrain_epochs=2, max_epochs=2, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     labels = model.fit(X, checkpoint=Checkpoint(folder, every_epochs=2)).labels_
    ...     again = model.fit(X, checkpoint=folder, resume=True).labels_
    >>> bool((labels == again).all())
    True
    """

    def __init__(self, folder: str | os.PathLike[str], *, every_epochs: int = 1, every_seconds: float = 0.0):
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"folder={folder!r} must be a path.")
        if not isinstance(every_epochs, (int, np.integer)) or every_epochs < 1:
            raise ValueError(f"every_epochs={every_epochs!r} must be a whole number of epochs, at least 1.")
        if not isinstance(every_seconds, (int, float, np.number)) or not every_seconds >= 0:
            raise ValueError(f"every_seconds={every_seconds!r} must be a number of at least 0.")
        self.folder = Path(folder)
        self.every_epochs = every_epochs
        self.every_seconds = every_seconds


class Keeper:
    """The checkpoints of one fit: writes them, and gives back what the last one holds."""

    def __init__(self, checkpoint: Any, resume: bool, estimator: Any, source: Source, peers: Peers):
        if checkpoint is None:
            if resume:
                raise ValueError("resume=True needs checkpoint=, the folder of the fit that is to go on.")
            self.settings = None
        elif isinstance(checkpoint, Checkpoint):
            self.settings = checkpoint
        elif isinstance(checkpoint, (str, os.PathLike)):
            self.settings = Checkpoint(checkpoint)
        else:
            raise TypeError(f"checkpoint={checkpoint!r} must be a folder or a neuralclust.Checkpoint.")
        self.about: dict[str, Any] = {}
        self.memory: dict[str, Tensor] = {}
        self.best: tuple[float, ClusterModule, int, int] | None = None
        self._found: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        self._run, self._seeds, self._history = 0, [0], []  # type: ignore[var-annotated]
        self._last = time.monotonic()
        if self.settings is None:
            return
        self.path = self.settings.folder / FILE
        self.about = describe(estimator, source)
        self._peers = peers
        self._found = peers.first(lambda: self._find(resume))

    def _find(self, resume: bool) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """What there is to go on from."""
        self._prepare_folder()
        if not self.path.exists():
            return None
        position, tensors = _read(self.path)
        if resume:
            _compare(self.path, position["about"], self.about)
            return position, tensors
        if not position["finished"]:
            raise FileExistsError(
                f"{self.path} is of a fit that has not ended. Pass resume=True to go on with it, or remove it."
            )
        return None

    def _prepare_folder(self) -> None:
        assert self.settings is not None
        folder = self.settings.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            trial = folder / f".{FILE}.tmp"
            trial.touch()
            trial.unlink()
        except OSError as error:
            why = error.strerror or error
            raise OSError(f"checkpoint={str(folder)!r} cannot be written to: {why}. Give another folder.") from error

    # -- going on ---------------------------------------------------------------------------------------------

    def begin(self, seeds: list[int]) -> list[int]:
        """The seeds of the restarts: those of the fit that goes on, if one does."""
        self._seeds = self._found[0]["seeds"] if self._found else seeds
        return self._seeds

    @property
    def run(self) -> int:
        """The restart to begin with."""
        return self._found[0]["run"] if self._found else 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows of the epochs that are done."""
        return list(self._found[0]["history"]) if self._found else []

    def earlier_best(self, build: Any) -> tuple[float, ClusterModule, int, int] | None:
        """The best of the restarts that are done; ``build`` makes a module to hold it from its seed."""
        if not self._found or self._found[0]["best"] is None:
            return None
        loss, n_iter, seed = self._found[0]["best"]
        module = build(seed)
        self._load(module, _part(self._found[1], "best"))
        return loss, module, n_iter, seed

    def is_past(self, stage: str) -> bool:
        """Whether the stage is done, and the next one has begun."""
        return self._found is not None and stage == "pretrain" and self._found[0]["stage"] == "fit"

    def recall(self, module: ClusterModule) -> None:
        """Module and memory as they are in the checkpoint, before the stage that goes on is set up."""
        assert self._found is not None
        self._load(module, _part(self._found[1], "module"))
        self.memory.update(_part(self._found[1], "memory"))

    def restore(
        self, stage: str, module: ClusterModule, optimizers: list[torch.optim.Optimizer], generator: torch.Generator
    ) -> dict[str, Any] | None:
        """Put everything back as it was after the last epoch that was written down; beside it, what else is known."""
        if not self._found or self._found[0]["stage"] != stage:
            return None
        (position, tensors), self._found = self._found, None
        self._load(module, _part(tensors, "module"))
        for i, optimizer in enumerate(optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in _part(tensors, f"optimizer.{i}").items():
                number, _, key = name.partition(".")
                state.setdefault(int(number), {})[key] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.memory.update(_part(tensors, "memory"))
        generator.set_state(tensors["random.order"])
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and module.shift.is_cuda:
            torch.cuda.set_rng_state(tensors["random.cuda"], module.shift.device)
        return {**position, "before": _part(tensors, "before")}

    def _load(self, module: ClusterModule, values: dict[str, Tensor]) -> None:
        try:
            load_state(module, values)
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{self.path} is of a fit of another network: {error}. Give another folder.") from error

    # -- writing ----------------------------------------------------------------------------------------------

    def start_run(self, run: int, history: list[dict[str, Any]], best: Any) -> None:
        """A restart begins."""
        self._run, self._history, self.best = run, history, best
        self.memory.clear()

    def write(self, *epoch: Any) -> None:
        """Write an epoch down, if it is time to; of several processes the first does, and all hear if it cannot."""
        if self.settings is not None:
            self._peers.first(lambda: self._write(*epoch))

    def _write(
        self,
        stage: str,
        rows: list[dict[str, Any]],
        batch: int,
        done: bool,
        module: ClusterModule,
        optimizers: list[torch.optim.Optimizer],
        generator: torch.Generator,
        before: Mapping[str, Tensor],
    ) -> None:
        assert self.settings is not None
        late = time.monotonic() - self._last >= self.settings.every_seconds
        if not done and not (late and len(rows) % self.settings.every_epochs == 0):
            return
        tensors = {**_named("module", state_of(module)), **_named("before", before)}
        tensors |= _named("memory", self.memory)
        for i, optimizer in enumerate(optimizers):
            for number, values in optimizer.state_dict()["state"].items():
                tensors |= _named(f"optimizer.{i}.{number}", {k: v for k, v in values.items() if v is not None})
        tensors["random.order"], tensors["random.cpu"] = generator.get_state(), torch.get_rng_state()
        if module.shift.is_cuda:
            tensors["random.cuda"] = torch.cuda.get_rng_state(module.shift.device)
        if self.best is not None:
            best = self.best[1]
            tensors |= _named("best", state_of(best))
        self._put(
            {
                "stage": stage, "rows": rows, "batch": batch, "done": done, "history": self._history, "run": self._run,
                "best": None if self.best is None else [self.best[0], *self.best[2:]], "finished": False,
            },
            tensors,
        )  # fmt: skip
        self._last = time.monotonic()

    def finish(self) -> None:
        """The fit is over: a later one may take the folder."""
        if self.settings is not None:
            self._peers.first(self._finish)

    def _finish(self) -> None:
        if self.path.exists():
            position, tensors = _read(self.path)
            self._put({**position, "finished": True}, tensors)

    def _put(self, position: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        seeds = [int(seed) for seed in self._seeds]
        text = json.dumps({"format": _FORMAT, "about": self.about, "seeds": seeds, **position})
        metadata = {"neuralclust": text, "sha256": _digest(text, tensors)}
        new = self.path.with_name(f".{FILE}.tmp")
        content = save(tensors, metadata)
        try:
            with new.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        except BaseException as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise
            kept = "; the last one is kept" if self.path.exists() else ""
            raise OSError(f"{self.path} cannot be written: {error.strerror or error}{kept}.") from error


def _named(part: str, values: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{part}/{name}": torch.as_tensor(value) for name, value in values.items()}


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    found = {}
    for name, value in tensors.items():
        head, slash, rest = name.partition("/")
        if slash and head == part:
            found[rest] = value
        elif slash and head.startswith(f"{part}."):  # optimizer.0.3/exp_avg: number and name
            found[f"{head.removeprefix(f'{part}.')}.{rest}"] = value
    return found


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with path.open("rb"):  # what cannot be opened is not damaged
        pass
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            # Copies: what is mapped from the file need not be aligned as torch would, which changes the last digit.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
        position = json.loads(metadata["neuralclust"])
        whole = metadata["sha256"] == _digest(metadata["neuralclust"], tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is not a checkpoint of neuralclust, or is damaged: {error}. Remove it.") from error
    if not whole:
        raise ValueError(f"{path} is damaged: its checksum does not fit its contents. Remove it.")
    if position["format"] > _FORMAT:
        raise ValueError(f"{path} has format {position['format']}, of a newer version. Upgrade neuralclust.")
    return position, tensors


def describe(estimator: Any, source: Source) -> dict[str, Any]:
    """What must be the same for a fit to go on."""
    params = {name: _told(value) for name, value in estimator.get_params(deep=False).items() if name != "device"}
    n, digest = len(source), hashlib.sha256()
    if isinstance(source, ArraySource):  # a Dataset may give other rows each time
        row = max(1, math.prod(source.shape))
        chosen = np.unique(np.linspace(0, n - 1, min(n, max(_PROBED, _PROBED_NUMBERS // row))).astype(int))
        for _, x in source.batches(torch.from_numpy(chosen).split(1024)):
            digest.update(_bytes(x))
    return {
        "neuralclust": __version__, "class": type(estimator).__name__, "params": params, "n_samples": n,
        "shape": list(source.shape), "rows": digest.hexdigest()[:16],
    }  # fmt: skip


def check_agreement(estimator: Any, source: Source, peers: Peers, *others: Any) -> None:
    """ValueError in all processes of a fit if they have different rows or parameters."""
    if peers.size == 1:
        return
    about = {**describe(estimator, source), "others": others}
    about["params"].pop("encoder", None)  # networks may differ so far: all processes get the first one's weights
    peers.agree(
        json.dumps(about, sort_keys=True),
        f"The {peers.size} processes of torch.distributed have different rows, parameters or checkpoints. One fit is "
        f"for all of them: give each the same. To fit apart, start them without torchrun.",
    )


def _told(value: Any) -> Any:
    """A parameter as JSON that tells it from another."""
    from neuralclust.io import _plain

    if isinstance(value, np.random.RandomState):
        return "RandomState"
    if isinstance(value, nn.Module):
        state = state_of(value)
        learns = [name for name, p in value.named_parameters() if p.requires_grad]
        return f"{value!r} {learns} {_digest('', state)[:16]}"
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]}"
    if isinstance(value, functools.partial):
        return [_told(value.func), repr(value.args), repr(value.keywords)]
    if isinstance(value, (list, tuple)) and any(map(callable, value)):
        return [_told(each) for each in value]
    if callable(value) and not isinstance(value, type) and (own := getattr(value, "__dict__", None)):
        return [type(value).__qualname__, {name: _told(each) for name, each in own.items()}]
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return _plain(value)


def _bytes(x: Tensor) -> Any:
    return x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _compare(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    if there == here:
        return
    mine, other = here["params"], there["params"]
    if there["neuralclust"] != here["neuralclust"]:
        what = f"of neuralclust {there['neuralclust']}; this is {here['neuralclust']}"
    elif there["class"] != here["class"]:
        what = f"of {there['class']}, not of {here['class']}"
    elif other != mine:
        name = next(n for n in sorted({*mine, *other}) if other.get(n) != mine.get(n))
        what = f"with {name}={other.get(name)!r}, not with {name}={mine.get(name)!r}"
    else:
        what = "with other rows"
    raise ValueError(f"{path} is of a fit {what}. Give it what it had, or another folder: one is for one fit.")
