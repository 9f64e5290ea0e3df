"""Progress, early stopping, logs and scores during a fit: the bridge to ``sklearn.callback`` (new in 1.9).

Give any of these, or scikit-learn's ``ProgressBar``, to ``estimator.set_callbacks(...)`` before ``fit``. Each epoch
is one task: a callback finds its row at the end of ``estimator.history_`` and, once there are clusters, a fitted
copy of the estimator to score. What has no epochs of its own, such as the search for first centres ("start"), is told
percent by percent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.callback import CallbackSupportMixin, ProgressBar
from torch.utils.data import DataLoader

from neuralclust.peers import Peers

__all__ = ["EarlyStopping", "HistoryLog", "ProgressBar", "ScoreEpochs"]

_WHERE = "init", "stage", "epoch"  # what a row of the history has beside terms of the loss


class FitReport:
    """Tells the estimator's callbacks what its fit is doing: a root task, a task a stage, a leaf an epoch.

    Of several processes the first one does.
    """

    def __init__(self, estimator: CallbackSupportMixin, n_stages: int, peers: Peers | None = None):
        self._estimator = estimator
        self._first = (peers or Peers()).first  # an error of a callback reaches all processes
        self._first(lambda: self._begin(n_stages))

    def _begin(self, n_stages: int) -> None:
        self._root = self._estimator._init_callback_context(max_subtasks=n_stages)
        self._root.call_on_fit_task_begin(estimator=self._estimator)

    @contextmanager
    def share(self, name: str) -> Iterator[Callable[[float], None]]:
        """Yield what to call with the share done, up to 1, of a stage that has no epochs."""
        estimator = self._estimator
        begun: list[Any] = []
        ticks = 0

        def begin() -> None:
            begun.append(self._root.subcontext(task_name=name, max_subtasks=100))
            begun[0].call_on_fit_task_begin(estimator=estimator)

        def tick() -> None:
            leaf = begun[0].subcontext(task_name="percent")
            leaf.call_on_fit_task_begin(estimator=estimator)
            leaf.call_on_fit_task_end(estimator=estimator)

        def done(share: float) -> None:
            nonlocal ticks
            while ticks < min(100, int(100 * share)):
                self._first(tick)
                ticks += 1

        self._first(begin)
        yield done
        done(1.0)
        self._first(lambda: begun[0].call_on_fit_task_end(estimator=estimator))

    @contextmanager
    def stage(
        self, name: str, epochs: int, fitted: Callable[[], dict[str, Any]] | None
    ) -> Iterator[Callable[[], bool]]:
        """Yield what to call after every epoch; it answers whether a callback asks to stop."""
        estimator = self._estimator
        begun: list[Any] = []

        def begin() -> None:
            begun.append(self._root.subcontext(task_name=name, max_subtasks=epochs))
            begun[0].call_on_fit_task_begin(estimator=estimator)

        def epoch_ended() -> bool:
            leaf = begun[0].subcontext(task_name="epoch")
            leaf.call_on_fit_task_begin(estimator=estimator)
            return leaf.call_on_fit_task_end(estimator=estimator, reconstruction_attributes=fitted)

        self._first(begin)
        yield lambda: self._first(epoch_ended)
        self._first(lambda: begun[0].call_on_fit_task_end(estimator=estimator))

    def end(self) -> None:
        """The fit is done."""
        self._first(lambda: self._root.call_on_fit_task_end(estimator=self._estimator))


class _Callback:
    """A callback that listens to the ends of epochs only."""

    def setup(self, estimator: Any, context: Any) -> None: ...

    def teardown(self, estimator: Any, context: Any) -> None: ...

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None: ...

    def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any = None) -> bool | None:
        if context.task_name == "epoch":
            return self.on_epoch_end(estimator.history_[-1], fitted_estimator)
        return None

    def on_epoch_end(self, row: dict[str, Any], fitted_estimator: Any) -> bool | None:
        raise NotImplementedError


class EarlyStopping(_Callback):
    """End a stage when a term of the loss has stopped falling.

    Parameters
    ----------
    patience : int, default=10
        Epochs without an improvement to wait for.
    min_delta : float, default=0.0
        What counts as an improvement, in units of the term.
    monitor : str, default="loss"
        Name of the term in ``history_``. Stages without it run to their end: ``"clu"`` is of joint training alone.
        ValueError if no stage of a fit has it.

    Examples
    --------
    >>> from neuralclust import KMeansNet
    >>> from neuralclust.callbacks import EarlyStopping
    >>> KMeansNet(3).set_callbacks(EarlyStopping(patience=5))
    KMeansNet(n_clusters=3)
    """

    def __init__(self, patience: int = 10, *, min_delta: float = 0.0, monitor: str = "loss"):
        _require_epochs("patience", patience)
        if not isinstance(min_delta, (int, float, np.number)) or not math.isfinite(min_delta):
            raise ValueError(f"min_delta={min_delta!r} must be a finite number, in units of the term, such as 0.01.")
        if not isinstance(monitor, str) or monitor in _WHERE:
            raise ValueError(f"monitor={monitor!r} must be the name of a term in history_, such as 'loss'.")
        self.patience = patience
        self.min_delta = min_delta
        self.monitor = monitor

    def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any = None) -> bool | None:
        """From the history alone, so that a fit that is resumed stops where it would have."""
        history = getattr(estimator, "history_", [])
        if not history or context.task_name not in ("epoch", "fit"):
            return None
        last = history[-1]
        # Joint training comes last, and all its epochs have the same terms: a wrong name need not wait for its end.
        if self.monitor not in last and "fit" in (context.task_name, last["stage"]):
            terms = sorted(set().union(*history).difference(_WHERE))
            if self.monitor not in terms:
                raise ValueError(f"monitor={self.monitor!r} is not a term of this fit, which has {terms}.")
        if context.task_name == "fit" or self.monitor not in last:
            return None
        where = last["init"], last["stage"]
        best, since = math.inf, 0
        for row in history:
            if (row["init"], row["stage"]) == where:
                better = row["epoch"] == 0 or row[self.monitor] < best - self.min_delta
                best, since = (row[self.monitor], 0) if better else (best, since + 1)
        return since >= self.patience


class HistoryLog(_Callback):
    """Append every epoch's row to a file, one JSON object a line, as it happens.

    Parameters
    ----------
    path : str or Path
        File to append to; it and its folder are made if missing.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def on_epoch_end(self, row: dict[str, Any], fitted_estimator: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


class ScoreEpochs(_Callback):
    """Score the clusters after every few epochs, on data that the fit itself never sees the labels of.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows to predict.
    y : array-like of shape (n_samples,)
        Their classes. They stay in this object; only the scores leave it.
    metrics : dict of str to callable
        ``metric(y, labels) -> float``, by the names that the scores are to have.
    every : int, default=1
        Epochs between two scores.

    Attributes
    ----------
    scores_ : list of dict
        A row an epoch scored: ``init``, ``stage``, ``epoch`` and each metric.
    """

    def __init__(self, X: Any, y: Any, metrics: Mapping[str, Callable[[Any, Any], float]], *, every: int = 1):
        _require_epochs("every", every)
        if not isinstance(metrics, Mapping) or not all(map(callable, metrics.values())):
            raise TypeError(
                f"metrics={metrics!r} must be a dict of names and functions metric(y, labels), such as "
                f"{{'nmi': sklearn.metrics.normalized_mutual_info_score}}."
            )
        n_rows, n_classes = _length(X), _length(y)
        if None not in (n_rows, n_classes) and n_rows != n_classes:
            raise ValueError(f"X has {n_rows} rows, but y has {n_classes} entries. Pass the class of every row.")
        self.X = X
        self.y = y
        self.metrics = metrics
        self.every = every
        self.scores_: list[dict[str, Any]] = []

    def setup(self, estimator: Any, context: Any) -> None:
        self.scores_ = []  # those of an earlier fit are not of this one

    def on_epoch_end(self, row: dict[str, Any], fitted_estimator: Any) -> None:
        if fitted_estimator is None or row["epoch"] % self.every:
            return
        labels = fitted_estimator.predict(self.X)
        where = {key: row[key] for key in _WHERE}
        self.scores_.append({**where, **{name: f(self.y, labels) for name, f in self.metrics.items()}})


def _require_epochs(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}={value!r} must be a whole number of epochs, at least 1.")


def _length(rows: Any) -> int | None:
    """Number of rows, if it can be told."""
    rows = rows.dataset if isinstance(rows, DataLoader) else rows
    shape = getattr(rows, "shape", None)  # a sparse matrix has no len
    if shape:
        return shape[0]
    return len(rows) if hasattr(rows, "__len__") else None
