"""Pictures of a fit, each a matplotlib ``Figure`` of its own: no pyplot, no window, no global state.

They need matplotlib: ``pip install 'neuralclust[report]'``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from neuralclust._extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["centers", "confusion", "embedding", "history"]

# M. A. Petroff's ten colours, chosen to stay apart for colour-blind readers (arXiv:2107.02270).
COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
_INK, _GRID = "#262626", "#dddddd"
_WHERE = ("init", "stage", "epoch")
_TITLES = {"rec": "Reconstruction error", "clu": "Clustering loss"}


def _figure(width: float, height: float) -> Figure:
    return require("matplotlib.figure", "report").Figure((width, height), dpi=120, layout="constrained")


def history(history: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]] | None = None) -> Figure:
    """Losses, and scores if there are any, over the epochs.

    Parameters
    ----------
    history : list of dict
        ``history_`` of an estimator. Several runs (``n_init``) are drawn over each other.
    scores : list of dict, optional
        ``scores_`` of a :class:`~neuralclust.callbacks.ScoreEpochs`: shares of one, drawn in percent.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if hasattr(history, "get_params"):
        raise TypeError("history is an estimator: give its history_.")
    if not history:
        raise ValueError("history is empty: the estimator was fitted without an epoch.")
    first_joint = max((row["epoch"] + 1 for row in history if row["stage"] == "pretrain"), default=0)
    named = {key for row in history for key in row} - {*_WHERE, "loss"}
    terms = sorted(named, key=lambda name: ([*_TITLES, name].index(name), name)) or ["loss"]
    figure = _figure(3.9 * (len(terms) + bool(scores)) + 0.3, 3.5)
    panels = figure.subplots(1, len(terms) + bool(scores), squeeze=False)[0]

    for panel, name, color in zip(panels, terms, COLORS, strict=False):
        drawn = _lines(panel, history, name, first_joint, color=color)
        panel.set_title(_TITLES.get(name, name))
        if name == "rec" and min(drawn) > 0:
            panel.set_yscale("log")
            _plain_log_ticks(panel)
    if scores:
        panels[-1].set_title("Agreement with the classes")
        panels[-1].set_ylabel("percent")
        names = [name for name in scores[0] if name not in _WHERE]
        looks = zip(cycle((COLORS[0], COLORS[6], COLORS[4], COLORS[2])), cycle(("-", "--", "-.", ":", (0, (1, 3)))))
        for name, (color, style) in zip(names, looks, strict=False):
            _lines(panels[-1], scores, name, first_joint, factor=100, color=color, linestyle=style, label=name)
        panels[-1].legend(frameon=False, loc="best")
    for panel in panels:
        panel.grid(axis="y", color=_GRID, linewidth=0.8)
        _open_frame(panel)
        start, end = panel.dataLim.intervalx
        panel.set_xlabel("epoch")
        if start > first_joint > 0:
            panel.set_xlabel(f"epoch (joint training starts at {first_joint + 1})")
        elif end > first_joint > 0:
            panel.axvline(first_joint + 0.5, color=_INK, linewidth=0.9, linestyle=":")
            for text, side, shift in (("pretraining", "right", -5), ("joint", "left", 5)):
                panel.annotate(
                    text, (first_joint + 0.5, 1), (shift, -4), ha=side, va="top", color=_INK,
                    xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=9,
                )  # fmt: skip
    return figure


def _lines(
    panel: Axes,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    first_joint: int,
    *,
    factor: float = 1,
    **style: Any,
) -> list[float]:
    """A line for each run, joint epochs counted on from the pretraining's; what was drawn."""
    drawn: list[float] = []
    for run in sorted({row["init"] for row in rows}):
        chosen = [row for row in rows if row["init"] == run and name in row]
        epochs = [row["epoch"] + 1 + (first_joint if row["stage"] == "fit" else 0) for row in chosen]
        values = [factor * row[name] for row in chosen]
        marker = "o" if len(values) == 1 else None
        panel.plot(epochs, values, linewidth=1.8, marker=marker, **style)
        style.pop("label", None)
        drawn += values
    return drawn


def centers(centers: ArrayLike, sizes: ArrayLike | None = None, *, limits: tuple[float, float] | None = None) -> Figure:
    """Cluster centres as pictures, or as profiles over the features.

    Parameters
    ----------
    centers : array-like of shape (k, height, width), (k, channels, height, width) or (k, n_features)
        What ``reconstruct_centers`` gives.
    sizes : array-like of int, shape (k,), optional
        Rows in each cluster, for the titles.
    limits : tuple of float, optional
        Values drawn black and white; by default the smallest and the largest there are.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if hasattr(centers, "get_params"):
        raise TypeError("centers is an estimator: give what its reconstruct_centers() gives.")
    centers = np.asarray(centers, dtype=float)
    if centers.ndim not in (2, 3, 4):
        raise ValueError(f"centers has shape {centers.shape}; vectors (k, n) or images (k, [c,] h, w) are drawn.")
    counts = None if sizes is None else np.asarray(sizes)
    low, high = limits or (float(centers.min()), float(centers.max()))
    k = len(centers)
    columns = min(k, 5 if k <= 10 else 10)
    rows = -(-k // columns)
    size = 1.45 if columns <= 5 else 1.15
    figure = _figure(max(columns * size, 3.5), rows * (size + 0.4) + 0.35)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for j, panel in enumerate(panels):
        panel.set_xticks([])
        panel.set_yticks([])
        if j >= k:
            panel.axis("off")
            continue
        if centers.ndim == 2:
            panel.plot(centers[j], color=COLORS[j % len(COLORS)], linewidth=1.5)
            panel.set_ylim(low, high + (high == low))
        else:
            image = centers[j] if centers.ndim == 3 else np.moveaxis(centers[j], 0, -1)
            if image.ndim == 3:  # colours are shares of one
                image = np.clip((image - low) / ((high - low) or 1), 0, 1)
                image = image[..., 0] if image.shape[-1] not in (3, 4) else image
                panel.imshow(image, cmap="gray")
            else:
                panel.imshow(image, cmap="gray", vmin=low, vmax=high)
        count = "" if counts is None else f"\n{counts[j]:,} rows"
        panel.set_title(f"cluster {j}{count}", fontsize=9, color=_INK)
    figure.suptitle("Decoded cluster centres", fontsize=11)
    return figure


def embedding(
    points: ArrayLike, labels: ArrayLike, centers: ArrayLike | None = None, *, title: str = "Map of the codes"
) -> Figure:
    """Rows on a plane, coloured by cluster, with the numbered centres as black pentagons.

    Parameters
    ----------
    points : array-like of shape (n_samples, n)
        Codes, as ``transform(X)`` gives them, or positions. Of more than two columns the first two principal components
        are drawn.
    labels : array-like of shape (n_samples,)
        Cluster, or class, of every row.
    centers : array-like of shape (k, n), optional
        Centres among the points.
    title : str, default="Map of the codes"
        What is seen.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the shapes do not fit together.
    """
    at, labels = np.asarray(points, dtype=float), np.asarray(labels)
    if at.ndim != 2 or at.shape[1] < 2 or not len(at):
        raise ValueError(f"points has shape {at.shape}; (n_samples, 2 or more) is needed, such as transform(X).")
    if labels.shape != at.shape[:1]:
        raise ValueError(f"labels has shape {labels.shape}, but a label for each of {len(at)} points is needed.")
    middles = np.empty((0, at.shape[1])) if centers is None else np.asarray(centers, dtype=float)
    if middles.shape[1:] != at.shape[1:]:
        raise ValueError(f"centers has shape {middles.shape}; (k, {at.shape[1]}) is needed, as of the points.")
    if at.shape[1] > 2:
        from sklearn.decomposition import PCA

        plane = PCA(2).fit(at)
        at, middles = plane.transform(at), (middles - plane.mean_) @ plane.components_.T  # there may be no centres
    figure = _figure(6.4, 5.6)
    panel = figure.subplots()
    numbers = labels if np.issubdtype(labels.dtype, np.integer) else np.unique(labels, return_inverse=True)[1]
    shade = np.array(COLORS, dtype=object)[numbers % len(COLORS)]
    # In a random order, or the last cluster would lie on top of all others.
    order = np.random.default_rng(0).permutation(len(at))
    size = float(np.clip(2e4 / len(at), 2, 20))
    panel.scatter(at[order, 0], at[order, 1], s=size, c=list(shade[order]), alpha=0.75, linewidths=0)
    for j, (x, y) in enumerate(middles):
        panel.scatter(x, y, s=260, marker="p", color="black", edgecolors="white", zorder=3)
        panel.text(x, y, str(j), color="white", ha="center", va="center", fontsize=8.5, weight="bold", zorder=4)
    panel.set_aspect("equal", adjustable="datalim")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_title(title, color=_INK)
    for side in panel.spines.values():
        side.set_color(_GRID)
    return figure


def confusion(y: ArrayLike, labels: ArrayLike) -> Figure:
    """Clusters against classes, every cluster in the row of the class that it matches best.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Classes.
    labels : array-like of shape (n_samples,)
        Clusters. Those left without a class of their own come last.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from neuralclust.metrics import clustering_accuracy, match_labels

    classes, y = np.unique(np.asarray(y), return_inverse=True)
    names, cluster = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.zeros((len(names), len(classes)), dtype=int)
    np.add.at(counts, (cluster, y), 1)
    matched = np.full(len(names), -1)
    matched[cluster] = match_labels(y, cluster)
    order = np.argsort(np.where(matched < 0, len(classes), matched), kind="stable")
    counts = counts[order]

    cell = 0.46
    figure = _figure(max(len(classes) * cell + 1.6, 4.2), max(len(names) * cell + 1.5, 3))
    panel = figure.subplots()
    panel.imshow(counts, cmap="Blues", vmin=0)
    panel.set_xticks(range(len(classes)), [str(c) for c in classes])
    panel.set_yticks(range(len(names)), [str(c) for c in names[order]])
    panel.set_xlabel("class")
    panel.set_ylabel("cluster, in the row of the class it matches")
    if counts.size <= 400:  # beyond that, numbers would be too small to read
        dark = counts.max() / 2
        for (i, j), count in np.ndenumerate(counts):
            if count:
                panel.text(j, i, str(count), ha="center", va="center", fontsize=9,
                           color="white" if count > dark else _INK)  # fmt: skip
    panel.set_xticks(np.arange(0.5, len(classes) - 1), minor=True)
    panel.set_yticks(np.arange(0.5, len(names) - 1), minor=True)
    panel.grid(which="minor", color=_GRID, linewidth=0.8)
    panel.tick_params(which="both", length=0)
    for side in panel.spines.values():
        side.set_color(_GRID)
    panel.set_title(f"Clusters and classes: {100 * clustering_accuracy(y, cluster):.1f} % on the diagonal", fontsize=11)
    return figure


def _open_frame(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(_INK)
    panel.tick_params(colors=_INK)


def _plain_log_ticks(panel: Axes) -> None:
    """0.01 rather than a power of ten: less than a decade is common here, and then powers leave no label."""
    ticker = require("matplotlib.ticker", "report")
    panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    panel.yaxis.set_minor_locator(ticker.NullLocator())
