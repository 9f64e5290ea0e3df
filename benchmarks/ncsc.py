"""NCSC on the data sets of its paper, and what its steps cost. ``run.py`` runs these as tasks."""

from __future__ import annotations

import resource
import time
import warnings
from statistics import mean

from common import cell, load, scores

from neuralclust.augment import RandomAffine

# Published ACC / NMI / ARI, Tables 1 and 2.
PUBLISHED = {"mnist": (94.09, 86.12, 87.52), "fashion_mnist": (72.14, 68.60, 59.17)}
PROXIES = ("positives", "agreed", "negatives", "balance")


def fit(dataset: str, seed: int, **params) -> dict:
    """Scores of the start (k-means on the bottleneck, as the classifier learns it) and of the end."""
    from neuralclust import NCSC

    X, y, k = load(dataset)
    joint = {name: params.pop(name) for name in ("max_epochs", "batch_size") if name in params}
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = NCSC(k, random_state=seed, max_epochs=0, **params).fit(X)
        pretraining = time.perf_counter() - begin
        if params.get("encoder", "") is not None:
            params.update(encoder=start.module_.autoencoder, pretrain_epochs=0)
        model = NCSC(k, random_state=seed, **params, **joint).fit(X)
    rows = model.history_
    return {
        "start": scores(y, start.labels_),
        **scores(y, model.labels_),
        "seconds": time.perf_counter() - begin,
        "pretraining_s": pretraining,
        "epochs": model.n_iter_,
        "first": {name: rows[0][name] for name in PROXIES},
        "last": {name: rows[-1][name] for name in PROXIES},
    }


def scaling(n: int, batch_size: int, seed: int) -> dict:
    """An epoch of joint training on MNIST repeated to ``n`` rows, in a process of its own."""
    import numpy as np

    from neuralclust import NCSC

    X, _, k = load("mnist")
    X = np.resize(X, (n, *X.shape[1:]))
    settings = {"random_state": seed, "batch_size": batch_size}
    net = NCSC(k, pretrain_epochs=1, max_epochs=0, **settings).fit(X[:2000]).module_.autoencoder
    seconds = []
    model = NCSC(k, encoder=net, pretrain_epochs=0, init="spectral", tol=0.0, **settings)
    for epochs in (0, 1):
        begin = time.perf_counter()
        model.set_params(max_epochs=epochs).fit(X)
        seconds.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"n": n, "epoch_s": seconds[1] - seconds[0], "peak_mib": peak, "data_mib": X.nbytes / 2**20}


def tasks() -> dict[str, tuple]:
    """Name -> (function, arguments, seeds)."""
    mnist = {"pretrain_epochs": 40, "max_epochs": 12}
    found: dict[str, tuple] = {
        "ncsc / mnist, augmented": (fit, {"dataset": "mnist", "augment": RandomAffine(), **mnist}, range(5)),
        "ncsc / mnist": (fit, {"dataset": "mnist", **mnist}, range(5)),
        "ncsc / fashion_mnist": (fit, {"dataset": "fashion_mnist", **mnist}, range(3)),
        "ncsc / coil20": (fit, {"dataset": "coil20"}, range(5)),
        "ncsc / orl": (fit, {"dataset": "orl"}, range(5)),
        "ncsc / coil20, features": (fit, {"dataset": "coil20", "encoder": None}, range(5)),
        "ncsc / orl, features": (fit, {"dataset": "orl", "encoder": None}, range(5)),
    }
    for n in (10_000, 70_000, 280_000):
        found[f"ncsc scaling / {n} rows, batches of 2000"] = (scaling, {"n": n, "batch_size": 2000}, [0])
    found["ncsc scaling / 70000 rows, batches of 5000"] = (scaling, {"n": 70_000, "batch_size": 5000}, [0])
    return found


def table(runs: dict[str, list[dict]]) -> list[str]:
    """Markdown lines from the rows."""

    lines = [
        "## NCSC",
        "",
        "Start: k-means on the bottleneck of the autoencoder, as the classifier has learned it. MNIST and Fashion:",
        "40 + 12 epochs; 'features': without a network. Positives a row and the share of them in one cluster, at the",
        "last epoch, need no labels. Seconds of MNIST were taken beside other work.",
        "",
        "| data | seeds | start ACC | ACC | NMI | ARI | positives | in one cluster | seconds | published |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, rows in runs.items():
        if not task.startswith("ncsc / "):
            continue
        dataset = task.split(" / ")[1]
        known = PUBLISHED.get(dataset.split(",")[0], ())
        lines.append(
            f"| {dataset} | {len(rows)} | {cell([r['start']['acc'] for r in rows])} | "
            f"{cell([r['acc'] for r in rows])} | {cell([r['nmi'] for r in rows])} | {cell([r['ari'] for r in rows])} | "
            f"{mean(r['last']['positives'] for r in rows):.1f} | {mean(r['last']['agreed'] for r in rows):.2f} | "
            f"{mean(r['seconds'] for r in rows):.0f} | {' / '.join(f'{v:.1f}' for v in known)} |"
        )
    lines += [
        "",
        "An epoch of joint training, MNIST repeated; memory of the whole process with libraries and data.",
        "",
        "| task | seconds an epoch | microseconds a row | peak, MiB | of it data, MiB |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {task.split(' / ')[1]} | {r['epoch_s']:.1f} | {1e6 * r['epoch_s'] / r['n']:.0f} | "
        f"{r['peak_mib']:.0f} | {r['data_mib']:.0f} |"
        for task, (r, *_) in runs.items()
        if task.startswith("ncsc scaling")
    ]
    return lines
