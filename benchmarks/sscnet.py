"""SSCNet on the data sets of its paper, and the number of blocks of its Fig. 3. ``run.py`` runs these as tasks."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from statistics import mean

from common import cell, load, scores

# Published NMI / ACC, Table 1 and Fig. 3.
PUBLISHED = {"usps": (94.82, 98.90), "mnist": (93.49, 97.52), "cifar10_test": (30.41, 35.15)}
BLOCKS = range(7)


def fit(dataset: str, seed: int, n: int | None = None, **params) -> dict:
    """Scores of k-means on the pretrained codes, of the spectral start, and of the end."""
    import numpy as np

    from neuralclust import SSCNet
    from neuralclust.kmeans import fit_kmeans

    X, y, k = load(dataset)
    if n is not None:
        rows = np.random.default_rng(seed).permutation(len(X))[:n]
        X, y = X[rows], y[rows]
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = SSCNet(k, random_state=seed, **params, max_epochs=0).fit(X)
        pretraining = time.perf_counter() - begin
        codes = first.transform(X)
        if params.get("encoder", "") is not None:
            params = {**params, "encoder": first.module_.autoencoder}
        begin = time.perf_counter()
        model = SSCNet(k, random_state=seed, **params, pretrain_epochs=0).fit(X)
    return {
        "kmeans": scores(y, fit_kmeans(codes, k, n_init=10, seed=seed).labels_),
        "start": scores(y, first.labels_),
        **scores(y, model.labels_),
        "nonzero": float((codes != 0).mean()),
        "eigenvectors": int(first.module_.head.n_components),
        "pretraining_s": pretraining,
        "seconds": pretraining + time.perf_counter() - begin,
        "epochs": model.n_iter_,
    }


def tasks() -> dict[str, tuple]:
    """Name -> (function, arguments, seeds)."""
    found: dict[str, tuple] = {}
    for blocks in (4, 0, 1, 2, 3, 5, 6):
        seeds = range(5) if blocks in (0, 4) else range(2)
        found[f"sscnet / usps, {blocks} blocks"] = (fit, {"dataset": "usps", "n_blocks": blocks}, seeds)
    found["sscnet / usps, features"] = (fit, {"dataset": "usps", "encoder": None}, range(5))
    found["sscnet / usps, conv"] = (fit, {"dataset": "usps", "encoder": "conv"}, range(2))
    found["sscnet / usps, as printed"] = (fit, {"dataset": "usps", "encoder": "conv", "variant": "paper"}, range(1))
    found["sscnet / mnist, 10,000 rows"] = (fit, {"dataset": "mnist", "n": 10_000}, range(3))
    found["sscnet / mnist, 10,000 rows, conv"] = (fit, {"dataset": "mnist", "n": 10_000, "encoder": "conv"}, range(3))
    found["sscnet / mnist"] = (fit, {"dataset": "mnist", "max_epochs": 5}, range(3))
    found["sscnet / cifar10_test"] = (fit, {"dataset": "cifar10_test"}, range(2))
    found["sscnet / digits"] = (fit, {"dataset": "digits"}, range(5))
    return found


def table(runs: dict[str, list[dict]]) -> list[str]:
    """Markdown lines from the rows."""
    lines = [
        "## SSCNet",
        "",
        "k-means: on the codes of the unrolled network after pretraining ('AE + k-means' on the same encoder). Start:",
        "spectral partition of these codes. 0 blocks: a plain autoencoder, the paper's ablation. 'features': without a",
        "network. Published: NMI and ACC. Seconds were taken beside other work.",
        "",
        "| data | seeds | k-means ACC | start ACC | ACC | NMI | ARI | non-zero codes | seconds | published |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, rows in runs.items():
        if not task.startswith("sscnet / "):
            continue
        name = task.split(" / ")[1]
        known = PUBLISHED.get(name.split(",")[0], ()) if name.endswith(("4 blocks", "mnist", "_test")) else ()
        lines.append(
            f"| {name} | {len(rows)} | {cell([r['kmeans']['acc'] for r in rows])} | "
            f"{cell([r['start']['acc'] for r in rows])} | {cell([r['acc'] for r in rows])} | "
            f"{cell([r['nmi'] for r in rows])} | {cell([r['ari'] for r in rows])} | "
            f"{mean(r['nonzero'] for r in rows):.2f} | {mean(r['seconds'] for r in rows):.0f} | "
            f"{' / '.join(f'{v:.1f}' for v in known)} |"
        )
    lines += [
        "",
        "![Accuracy by the number of blocks](../docs/images/sscnet_blocks.png)",
        "",
        "The experiment of the paper's Fig. 3, on USPS; each point is a seed. Runs end near 95 or near 80, by which of",
        "two nearly equal cuts of the codes' graph is found (two digits merged and a third cut in two, or not): with",
        "four blocks the right one in every seed, with none in three of five. That decides more than the number of",
        "blocks does.",
    ]
    return lines


def picture(runs: dict[str, list[dict]], folder: Path) -> None:
    """ACC and NMI by the number of blocks, each seed a point (Fig. 3 of the paper, there on MNIST)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = {b: f"sscnet / usps, {b} blocks" for b in BLOCKS}
    found = {b: runs[name] for b, name in names.items() if name in runs}
    if len(found) < 2:
        return
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for score, label, marker in (("acc", "ACC", "o"), ("nmi", "NMI", "s")):
        line = axes.plot(list(found), [100 * mean(r[score] for r in rows) for rows in found.values()], label=label)
        for b, rows in found.items():
            axes.scatter(
                [b] * len(rows), [100 * r[score] for r in rows], s=14, marker=marker, color=line[0].get_color()
            )
    axes.plot(
        list(found), [100 * mean(r["kmeans"]["acc"] for r in rows) for rows in found.values()],
        "--", color="0.5", label="ACC of k-means on the codes",
    )  # fmt: skip
    axes.set_xlabel("blocks after the first code")
    axes.set_ylabel("percent")
    axes.set_title("SSCNet on USPS", loc="left")
    axes.legend(frameon=False, ncols=3, loc="center", bbox_to_anchor=(0.5, 0.3))
    axes.spines[["top", "right"]].set_visible(False)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "sscnet_blocks.png", dpi=150)
    plt.close(figure)
