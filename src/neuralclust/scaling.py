"""How the values of the rows become numbers around 0 to 1: one range for all columns, or each by its own spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from neuralclust._warn import warn
from neuralclust.data import CHUNK_BYTES, Source, consecutive
from neuralclust.peers import Peers

_CROWDED = 0.05  # share of the range for nearly all values: at .03, two rows in 300 undo the clusters of the digits
_HIDING = 100  # times the spread of the median column: what one range for all leaves it is lost beside the largest
_SAMPLE_ROWS = 1000
Columns = tuple[np.ndarray, np.ndarray]  # mean and standard deviation of each


def find_range(
    source: Source, peers: Peers, recipe: SimpleNamespace, names: Sequence[str] | None
) -> tuple[float, float, np.ndarray, Columns | None]:
    """What :meth:`~neuralclust.nn.ClusterModule.set_range_` takes: one range for all values, which become 0 to 1.

    With ``recipe.standardize`` it is that of the columns without their means and over their standard deviations, which
    come with it. Without, says so where some columns or values are so large that others hardly count beside them.
    """
    rows, columns = _sample_rows(source), None
    if recipe.standardize:
        low, high, columns = peers.first(lambda: _columns(source))
    else:
        low, high = _value_range(source, peers)
        if not (rows.ndim == 2 and low < high and _columns_hide(rows, low, high, names)):
            _values_crowd(rows.ravel(), low, high)
    # Rows far from the origin cannot be told apart without a shift.
    if recipe.keep_origin and (recipe.normalize or low <= 0):
        low, high = 0.0, max(-low, high)
    return low, high, rows, columns


def _chunks(source: Source) -> list[Tensor]:
    return consecutive(len(source), max(1, CHUNK_BYTES // (8 * math.prod(source.shape))))


def _columns(source: Source) -> tuple[float, float, Columns]:
    """Range of a standardized table, and the mean and standard deviation of its columns (1 where constant)."""
    if len(source.shape) > 1:
        raise ValueError(
            f"standardize=True is for tables, and X has images of shape {source.shape}, whose pixels are of one unit. "
            f"Use standardize=False."
        )
    scaler, least, most = StandardScaler(), np.inf, -np.inf
    with np.errstate(all="ignore"):
        for _, rows in source.batches(_chunks(source)):
            x = rows.double().cpu().numpy()
            scaler.partial_fit(x)
            least, most = np.minimum(least, x.min(axis=0)), np.maximum(most, x.max(axis=0))
    if not (np.isfinite(scaler.mean_).all() and np.isfinite(scaler.scale_).all()):
        column = int(np.argmin(np.isfinite(scaler.mean_) & np.isfinite(scaler.scale_)))
        raise ValueError(f"The values of column {column} of X are too large to be squared. Rescale it.")
    low, high = scaler.transform(np.stack([least, most]))
    return float(low.min()), float(high.max()), (scaler.mean_, scaler.scale_)


def _value_range(source: Source, peers: Peers) -> tuple[float, float]:
    """Smallest and largest entry, in float64; each process looks at some of the rows."""
    low, high, limit = math.inf, -math.inf, math.inf
    for _, rows in source.batches(peers.shares(_chunks(source))):
        least, most = torch.aminmax(rows)
        low, high = min(low, float(least)), max(high, float(most))
        limit = math.inf if rows.dtype == torch.float64 else 3.4e38
    together = peers.greatest({"-low": -low, "high": high, "-limit": -limit})
    low, high, limit = -together["-low"], together["high"], -together["-limit"]
    if not high - low < limit:
        raise ValueError(f"The values of X span {low:.3g} .. {high:.3g}, more than its dtype can subtract. Rescale X.")
    return low, high


def _sample_rows(source: Source) -> np.ndarray:
    """At most a thousand rows from all over the data, in float64: the same in every process."""
    most_rows = min(len(source), _SAMPLE_ROWS, max(1, CHUNK_BYTES // (8 * math.prod(source.shape))))
    rows = torch.linspace(0, len(source) - 1, most_rows, dtype=torch.float64).long()
    ((_, x),) = source.batches([rows])
    return x.double().cpu().numpy()


def _columns_hide(x: np.ndarray, low: float, high: float, names: Sequence[str] | None) -> bool:
    """Whether a column has many times the spread of the median one; if so, say it.

    The spread is without the largest and smallest percent, so that a few outliers do not make a column large; and it
    is that of a column's entries other than 0, so that those that are mostly 0 do not count as small.
    """
    ordered = np.sort((x - low) / (high - low), axis=0)
    out = -(-(len(x) - 1) // 100)
    inner = ordered[out : len(x) - out]
    varying = np.flatnonzero(inner[-1] > inner[0]) if len(inner) else np.arange(0)
    if len(varying) < 2:
        return False
    spread = inner[:, varying].std(axis=0) / np.sqrt((x[:, varying] != 0).mean(axis=0))
    largest = int(spread.argmax())
    times = spread[largest] / np.median(np.delete(spread, largest))
    if times < _HIDING:
        return False
    column = int(varying[largest])
    warn(
        f"Column {column if names is None else repr(names[column])} of X has {times:.0f} times the standard deviation "
        f"of the median column: all columns are scaled by one range, and the others hardly count beside it. "
        f"Set standardize=True, or transform X (counts by log1p).",
        UserWarning,
    )
    return True


def _values_crowd(values: np.ndarray, low: float, high: float) -> None:
    """Zeros do not count: most of a sparse table is zero."""
    values = values[values != 0]
    if len(values) < 100:
        return
    least, most = np.quantile(values, [0.01, 0.99])
    away = max(high - most if high != 0 else 0.0, least - low if low != 0 else 0.0)
    if 0 < most - least < _CROWDED * away:
        warn(
            f"The values of X span {low:.3g} .. {high:.3g}, but 98 % of a sample of them lie in {least:.3g} .. "
            f"{most:.3g}: beside the largest, the others hardly count. Clip or drop outliers, or transform X (counts "
            f"by log1p)."
        )
