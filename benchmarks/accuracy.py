"""Augmentation, balanced targets and spectral starts: what each adds. ``run.py`` runs these as tasks."""

from __future__ import annotations

import time
import warnings
from statistics import mean

from common import cell, load, scores

GAIN = ("TELL", "KMeansNet", "DCSAI", "NCSC")
UNTUNED = ("coil20", "orl", "cifar10_test", "reuters_r8")


def fit(dataset: str, method: str, seed: int, **params) -> dict:
    """Scores of k-means on the codes of the pretrained autoencoder, of the method's own start, and of the end."""
    from sklearn.metrics import silhouette_score

    from neuralclust import registry
    from neuralclust.kmeans import fit_kmeans

    X, y, k = load(dataset)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = registry.make(method, k, random_state=seed, **{**params, "max_epochs": 0}).fit(X)
        seconds = time.perf_counter() - begin
        codes = first.transform(X)
        whole = {**params, "encoder": first.module_.autoencoder, "pretrain_epochs": 0}
        begin = time.perf_counter()
        model = registry.make(method, k, random_state=seed, **whole).fit(X)
    found = model.transform(X)
    return {
        "kmeans": scores(y, fit_kmeans(codes, k, n_init=10, seed=seed).labels_),
        "start": scores(y, first.labels_),
        **scores(y, model.labels_),
        "loss": model.loss_,
        "silhouette": float(silhouette_score(found, model.labels_, sample_size=5000, random_state=0)),
        "passes": len(first.history_) + len(model.history_),
        "seconds": seconds + time.perf_counter() - begin,
    }


def tasks() -> dict[str, tuple]:
    """Name -> (function, arguments, seeds)."""
    found: dict[str, tuple] = {}

    def add(dataset: str, method: str, seeds: int, name: str = "", **params) -> None:
        arguments = {"dataset": dataset, "method": method, **params}
        found[f"better / {dataset}{name} / {method}"] = fit, arguments, range(seeds)

    add("mnist", "TELL", 5, ", augmented", augment="digits")
    add("usps", "TELL", 5, ", augmented", augment="digits")
    add("usps", "TELL", 5)
    for method in GAIN:
        add("digits", method, 5)
        add("digits", method, 5, ", augmented", augment="digits")
    for method in ("TELL", "KMeansNet"):
        add("digits", method, 5, ", hard targets", target="hard")
        add("digits", method, 5, ", augmented, hard targets", augment="digits", target="hard")
    add("fashion_mnist", "TELL", 3, ", augmented", augment="digits")
    add("mnist", "TELL", 3)
    for dataset in UNTUNED:
        add(dataset, "TELL", 5 if dataset in ("coil20", "orl") else 3)
        add(dataset, "TELL", 5 if dataset in ("coil20", "orl") else 3, ", hard targets", target="hard")
    add("cifar10_test", "TELL", 3, ", augmented", augment="images")
    return found


def table(runs: dict[str, list[dict]]) -> list[str]:
    """Markdown lines from the rows."""
    lines = [
        "## Augmentation, balanced targets, spectral starts",
        "",
        "Default settings but for what the name says. k-means: on the codes of the pretrained autoencoder ('AE +",
        "k-means' on the same encoder). Start: the method's own. Passes over the data, pretraining included.",
        "",
        "| data | method | seeds | k-means ACC | start ACC | ACC | NMI | ARI | passes | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, rows in runs.items():
        if not task.startswith("better / "):
            continue
        _, name, method = task.split(" / ")
        lines.append(
            f"| {name} | {method} | {len(rows)} | {cell([r['kmeans']['acc'] for r in rows])} | "
            f"{cell([r['start']['acc'] for r in rows])} | {cell([r['acc'] for r in rows])} | "
            f"{cell([r['nmi'] for r in rows])} | {cell([r['ari'] for r in rows])} | "
            f"{mean(r['passes'] for r in rows):.0f} | {mean(r['seconds'] for r in rows) / 60:.1f} |"
        )
    return [*lines, "", *choice(runs)]


def choice(runs: dict[str, list[dict]]) -> list[str]:
    """How well two criteria that need no labels pick one run of several."""
    lines = [
        "Which run of several, without labels: ACC of the one with the smallest loss, which `n_init` takes, and of the",
        "one whose codes have the largest silhouette, beside the mean and the best.",
        "",
        "| data | method | seeds | mean | smallest loss | largest silhouette | best |",
        "|---|---|---|---|---|---|---|",
    ]
    picked: list[list[float]] = []
    for task, rows in runs.items():
        rows = [r for r in rows if "silhouette" in r]
        if not task.startswith("better / ") or len(rows) < 3:
            continue
        acc = [r["acc"] for r in rows]
        by_loss = min(rows, key=lambda r: r["loss"])["acc"]
        by_silhouette = max(rows, key=lambda r: r["silhouette"])["acc"]
        picked.append([mean(acc), by_loss, by_silhouette, max(acc)])
        cells = " | ".join(f"{100 * value:.1f}" for value in picked[-1])
        lines.append(f"| {' | '.join(task.split(' / ')[1:])} | {len(rows)} | {cells} |")
    if picked:
        cells = " | ".join(f"{100 * mean(column):.1f}" for column in zip(*picked, strict=True))
        lines.append(f"| mean of all | | | {cells} |")
    return lines
