"""The demo: k-means and three neural methods on scikit-learn's digits, one of them with random views of the images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from neuralclust import __version__, plots, registry
from neuralclust._extras import require
from neuralclust.callbacks import ScoreEpochs
from neuralclust.metrics import adjusted_rand_score, clustering_accuracy, normalized_mutual_info_score

METRICS: dict[str, Callable[[Any, Any], float]] = {
    "ACC": clustering_accuracy,
    "NMI": normalized_mutual_info_score,
    "ARI": adjusted_rand_score,
}

# A layer and some epochs less than by default, so that three seeds take 70 s on two cores. Every network gets
# the same.
AUTOENCODER: dict[str, Any] = {"hidden_layer_sizes": (500, 500), "pretrain_epochs": 150}
JOINT: dict[str, Any] = {"max_epochs": 20}
METHODS: dict[str, dict[str, Any]] = {
    "KMeans": {"n_init": 10},
    "AEKMeans": AUTOENCODER,
    "KMeansNet": {**AUTOENCODER, **JOINT},
    "TELL": {**AUTOENCODER, **JOINT},
    "TELL+views": {**AUTOENCODER, **JOINT, "augment": "digits"},
}
SHOWN = "TELL+views"

FILES = {
    "model": "fitted TELL+views (seed 0), for neuralclust.load and neuralclust predict",
    "labels.csv": "its cluster of every image",
    "digits.npy": "the images, (1797, 8, 8)",
    "truth.csv": "their classes, for neuralclust evaluate",
    "history.png": "its losses and scores over the epochs",
    "centers.png": "its cluster centres, decoded into images",
    "embedding.png": "a map of its codes with the centres",
    "confusion.png": "its clusters against the classes",
    "run.json": "settings, and the table above as numbers",
}

Scores = dict[str, list[dict[str, float]]]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, 8, 8)`` and their classes."""
    data = load_digits()
    return data.images.astype(np.uint8), data.target


def run(folder: Path, *, seeds: int, say: Callable[[str], None], quiet: bool = False) -> None:
    """Fit, score and print the methods, and write ``FILES`` into a folder.

    Parameters
    ----------
    folder : Path
        An existing folder.
    seeds : int
        Fits of each method, with the seeds 0, 1, ...
    say : callable
        Takes each line to show.
    quiet : bool, default=False
        Show no progress bars.
    """
    if seeds < 1:
        raise ValueError(f"--seeds {seeds} must be at least 1.")
    require("matplotlib.figure", "report")  # rather now than after the training
    X, y = digits()
    k = len(np.unique(y))
    network = METHODS[SHOWN]
    layers = "-".join(str(size) for size in network["hidden_layer_sizes"])
    say(f"Data: digits, {len(X):,} images of 8 x 8 pixels, {k} classes. No fit sees the classes.")
    say(
        f"Networks: hidden layers {layers}, {network['pretrain_epochs']} epochs of the autoencoder, then "
        f"{network['max_epochs']} joint."
    )
    say(f"{SHOWN}: every epoch sees the images shifted, turned, scaled and sheared anew (augment='digits').")
    watch = _Watch(X, y, METRICS)
    scores: Scores = {name: [] for name in METHODS}
    models: dict[str, Any] = {}
    with _bars(seeds, say, quiet) as advance:
        for name, params in METHODS.items():
            for seed in range(seeds):
                estimator = registry.make(name.split("+")[0], k, random_state=seed, **params)
                followed = name == SHOWN and seed == 0
                rows = X if "hidden_layer_sizes" in params else X.reshape(len(X), -1)
                seconds = _fit(estimator, rows, [_Tick(name, advance), *([watch] if followed else [])])
                seconds -= watch.seconds if followed else 0
                advance(name, (seed + 1) / seeds)
                scores[name].append(
                    {**{metric: f(y, estimator.labels_) for metric, f in METRICS.items()}, "seconds": seconds}
                )
                models.setdefault(name, estimator)
    say("")
    for line in table(scores, seeds):
        say(line)
    _write(folder, models[SHOWN], X, y, watch.scores_, scores)


def _fit(estimator: Any, X: np.ndarray, callbacks: list[Any]) -> float:
    """Fit, and the seconds that it took. There is no ``y`` here to leak."""
    if hasattr(estimator, "set_callbacks"):
        estimator.set_callbacks(*callbacks)
    start = perf_counter()
    estimator.fit(X)
    return perf_counter() - start


def table(scores: Scores, seeds: int) -> list[str]:
    """The scores as lines of at most 80 characters."""
    columns = [*METRICS, "seconds"]
    lines = [f"{'method':<12}" + "".join(f"{column:>15}" for column in columns)]
    for name, rows in scores.items():
        cells = ""
        for column in columns:
            values = np.array([row[column] for row in rows]) * (1 if column == "seconds" else 100)
            spread = f" ± {values.std():4.1f}" if seeds > 1 else ""
            cells += f"{f'{values.mean():.1f}{spread}':>15}"
        lines.append(f"{name:<12}{cells}")
    lines.insert(1, "-" * len(lines[0]))
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    return [*lines, f"ACC, NMI and ARI in percent; {over}."]


def _write(
    folder: Path, model: Any, X: np.ndarray, y: np.ndarray, epochs: list[dict[str, Any]], scores: Scores
) -> None:
    labels = model.labels_
    model.save(folder / "model")
    np.save(folder / "digits.npy", X)
    for name, values in (("labels.csv", labels), ("truth.csv", y)):
        np.savetxt(folder / name, values, fmt="%d", header="label", comments="")
    settings = {"neuralclust": __version__, "methods": METHODS, "scores": scores}
    (folder / "run.json").write_text(json.dumps(settings, indent=1) + "\n")

    plane = PCA(2).fit(model.transform(X))
    share = 100 * plane.explained_variance_ratio_.sum()
    images = model.reconstruct_centers().reshape(-1, 8, 8)
    pictures = {
        "history": plots.history(model.history_, epochs),
        "centers": plots.centers(images, np.bincount(labels, minlength=len(images)), limits=(0, 16)),
        "embedding": plots.embedding(
            plane.transform(model.transform(X)),
            labels,
            plane.transform(model.cluster_centers_),
            title=f"Codes of {len(X):,} images: two principal components, {share:.0f} % of the variance",
        ),
        "confusion": plots.confusion(y, labels),
    }
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png")


class _Watch(ScoreEpochs):
    """Scores the epochs, and counts its own time: the table's seconds are those of the fit alone."""

    seconds = 0.0

    def on_epoch_end(self, row: dict[str, Any], fitted_estimator: Any) -> None:
        start = perf_counter()
        super().on_epoch_end(row, fitted_estimator)
        self.seconds += perf_counter() - start


class _Tick:
    """Moves the bar of a method on after every epoch."""

    def __init__(self, name: str, advance: Callable[..., None]):
        self._name = name
        self._advance = advance

    def setup(self, estimator: Any, context: Any) -> None: ...

    def teardown(self, estimator: Any, context: Any) -> None: ...

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None: ...

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        if context.task_name == "epoch":
            self._advance(self._name)


@contextmanager
def _bars(seeds: int, say: Callable[[str], None], quiet: bool) -> Iterator[Callable[..., None]]:
    """A bar for each method. Yields ``advance(name)``, by an epoch, and ``advance(name, share)``, to it."""
    if quiet or find_spec("rich") is None:
        if not quiet:
            say("There are no progress bars without rich: pip install 'neuralclust[cli]'")
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        bars = {}
        for name, params in METHODS.items():
            epochs = params.get("pretrain_epochs", 0) + params.get("max_epochs", 0)
            bars[name] = progress.add_task(name, total=seeds * max(epochs, 1), start=False)

        def advance(name: str, share: float | None = None) -> None:
            task = progress.tasks[bars[name]]
            if not task.started:
                progress.start_task(task.id)
            if share is None:
                progress.advance(task.id)
            else:  # a fit may stop before its last epoch
                progress.update(task.id, completed=share * (task.total or 0))

        yield advance
