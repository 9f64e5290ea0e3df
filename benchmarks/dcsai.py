"""The experiments of the DCSAI paper: Tables III-VI, the curve of Fig. 1a and the sweeps of Fig. 4-6.

``run.py`` runs these as tasks. Every comparison starts from one pretrained denoising autoencoder a seed.
"""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from statistics import mean

from common import cell, scores

VARIANTS = {"HOMO": "euclidean", "HOE": "cosine", "HOT": "correlation", "HIT": "cityblock"}
# Published ACC / NMI / ARI, Tables III-V.
PUBLISHED = {
    "mnist_test": {
        "DAE + k-means": (72.70, 61.43, 55.34), "HOMO": (82.19, 67.96, 64.95), "HOE": (82.18, 67.95, 64.93),
        "HOT": (82.23, 69.00, 65.01), "HIT": (82.20, 67.97, 64.97), "HOE (CNN)": (91.03, 78.38, 76.05),
    },
    "cifar10_test": {
        "DAE + k-means": (20.86, 6.95, 3.67), "HOMO": (22.00, 6.99, 3.91), "HOE": (22.06, 7.02, 3.93),
        "HOT": (21.77, 7.02, 3.90), "HIT": (21.85, 7.21, 3.98),
    },
    "cifar100_aquatic_mammals": {
        "DAE + k-means": (34.10, 12.55, 10.74), "HOMO": (35.00, 13.69, 10.74), "HOE": (35.93, 13.67, 11.50),
        "HOT": (35.87, 13.72, 11.47), "HIT": (35.07, 13.85, 10.92),
    },
}  # fmt: skip


def pretrained(data, seed: int, **settings):
    """DAE + k-means: what every variant starts from."""
    from neuralclust import AEKMeans

    settings = {"noise": 0.3, "tol": 0.0, **settings}
    return AEKMeans(len(data.target_names), random_state=seed, **settings).fit(data.data)


def trained(data, dae, seed: int, **settings):
    from neuralclust import DCSAI

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = DCSAI(
            dae.n_clusters,
            encoder=dae.module_.autoencoder,
            pretrain_epochs=0,
            init="k-means",
            random_state=seed,
            **settings,
        )
        return model.fit(data.data)


def compare(dataset: str, seed: int, variants=tuple(VARIANTS), **settings) -> dict:
    """DAE + k-means and the variants on the same pretrained weights; labels from P1 and from P2."""
    from neuralclust import datasets

    data = datasets.load(dataset)
    start = time.perf_counter()
    dae = pretrained(data, seed, **settings)
    pretraining = time.perf_counter() - start
    found = {"DAE + k-means": {**scores(data.target, dae.labels_), "seconds": pretraining}}
    for name in variants:
        start = time.perf_counter()
        model = trained(data, dae, seed, metric=VARIANTS[name])
        found[name] = {
            **scores(data.target, model.labels_),
            "seconds": time.perf_counter() - start,
            "epochs": model.n_iter_,
        }
        model.module_.head.predict_from = "P2"
        found[name]["p2"] = scores(data.target, model.predict(data.data))
    return {"scores": found}


def curve(dataset: str, seed: int) -> dict:
    """Fig. 1a: KL(P2 || P1) of Eq. 5 as printed, and the accuracy of k-means on the codes, as the autoencoder learns;
    then both as the two assignments are made to agree."""
    from neuralclust import DCSAI, datasets
    from neuralclust.callbacks import ScoreEpochs
    from neuralclust.metrics import clustering_accuracy

    data = datasets.load(dataset)
    k = len(data.target_names)
    learning = []
    for epochs in (0, 1, 2, 5, 10, 20, 50, 100):
        dae = pretrained(data, seed, normalize=False, pretrain_epochs=epochs)
        printed = trained(data, dae, seed, variant="paper", max_epochs=0)
        learning.append({"epoch": epochs, "kl": printed.loss_, **scores(data.target, dae.labels_)})
    dae = pretrained(data, seed)
    every = ScoreEpochs(data.data, data.target, {"acc": clustering_accuracy})
    model = DCSAI(k, encoder=dae.module_.autoencoder, pretrain_epochs=0, random_state=seed)
    model.set_callbacks(every).fit(data.data)
    joint = [
        {"epoch": row["epoch"], "kl": row["clu"], "acc": score["acc"]}
        for row, score in zip(model.history_, every.scores_, strict=True)
    ]
    return {"autoencoder": learning, "joint": joint}


def sweep(dataset: str, parameter: str, values: list, seed: int) -> dict:
    """Fig. 4 (noise), 5 (lr_decay, here every 3 epochs of 30) or 6 (embed_dim)."""
    from neuralclust import datasets

    data = datasets.load(dataset)
    points = []
    dae = pretrained(data, seed) if parameter == "lr_decay" else None
    for value in values:
        start = dae or pretrained(data, seed, **{parameter: value})
        joint = {"lr_decay": value, "decay_epochs": 3} if parameter == "lr_decay" else {}
        model = trained(data, start, seed, metric="cosine", **joint)
        points.append({
            "value": value, "dae": scores(data.target, start.labels_), "dcsai": scores(data.target, model.labels_)
        })  # fmt: skip
    return {"points": points}


def tasks() -> dict[str, tuple]:
    """Name -> (function, arguments, seeds)."""
    found: dict[str, tuple] = {}
    for dataset in ("mnist_test", "usps"):
        found[f"dcsai / {dataset}"] = (compare, {"dataset": dataset}, range(5))
    found["dcsai / reuters_r8"] = (compare, {"dataset": "reuters_r8"}, range(3))
    found["dcsai / cifar10_test"] = (compare, {"dataset": "cifar10_test", "embed_dim": 100}, range(3))
    found["dcsai / cifar100_aquatic_mammals"] = (compare, {"dataset": "cifar100_aquatic_mammals"}, range(3))
    found["dcsai curve / mnist_test"] = (curve, {"dataset": "mnist_test"}, [0])
    for parameter, values in (
        ("noise", [0.0, 0.2, 0.3, 0.5]),
        ("lr_decay", [0.1, 0.5, 0.9, 1.0]),
        ("embed_dim", [5, 10, 20]),
    ):
        arguments = {"dataset": "mnist_test", "parameter": parameter, "values": values}
        found[f"dcsai sweep / {parameter}"] = (sweep, arguments, [0])
    return found


# -- tables and pictures --------------------------------------------------------------------------------------


def table(runs: dict[str, list[dict]]) -> list[str]:
    """Markdown lines from the rows of the comparisons."""

    lines = [
        "## DCSAI",
        "",
        "All rows of a seed start from the same denoising autoencoder (noise 0.3, 100 epochs at a constant rate; codes",
        "of length 10, 100 for CIFAR-10) and k-means on it; then 30 epochs of joint training at most. ACC from P2: the",
        "paper's Table VI. Published: ACC / NMI / ARI. The last column counts the seeds in which ACC and NMI are both",
        "above those of DAE + k-means. Taken before pretraining had its one-cycle rate; a new run starts higher.",
        "",
        "| data | method | seeds | ACC | NMI | ARI | ACC from P2 | seconds | published | better |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, rows in runs.items():
        if not task.startswith("dcsai / "):
            continue
        dataset = task.split(" / ")[1]
        for name in rows[0]["scores"]:
            found = [row["scores"][name] for row in rows]
            start = [row["scores"]["DAE + k-means"] for row in rows]
            better = sum(a["acc"] > b["acc"] and a["nmi"] > b["nmi"] for a, b in zip(found, start, strict=True))
            p2 = cell([r["p2"]["acc"] for r in found]) if "p2" in found[0] else ""
            known = PUBLISHED.get(dataset, {}).get(name)
            lines.append(
                f"| {dataset} | {name} | {len(rows)} | {cell([r['acc'] for r in found])} | "
                f"{cell([r['nmi'] for r in found])} | {cell([r['ari'] for r in found])} | {p2} | "
                f"{mean(r['seconds'] for r in found):.0f} | "
                f"{' / '.join(f'{v:.1f}' for v in known) if known else ''} | "
                f"{'' if name == 'DAE + k-means' else f'{better} of {len(rows)}'} |"
            )
    if "dcsai curve / mnist_test" in runs:
        lines += [
            "",
            "![Disagreement and accuracy over the epochs](../docs/images/dcsai_curve.png)",
            "",
            "MNIST-test, one seed. Left, the experiment of the paper's Fig. 1a: the KL divergence of Eq. 5 as printed",
            "and the accuracy of k-means while the autoencoder alone learns; the paper has the divergence fall; here",
            "it rises with the accuracy after the first epochs. Right: the default loss, learning to agree.",
        ]
    return lines


def pictures(results: Path, folder: Path) -> None:
    """``dcsai_curve.png`` and ``dcsai_sweeps.png`` from the rows."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in results.read_text().splitlines()]
    found = {row["task"]: row for row in rows if row["task"].startswith(("dcsai curve", "dcsai sweep"))}
    if "dcsai curve / mnist_test" in found:
        row = found["dcsai curve / mnist_test"]
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        parts = (("autoencoder", "learning to reconstruct"), ("joint", "learning to agree"))
        for left, (part, title) in zip(figure.subplots(1, 2), parts, strict=True):
            points = row[part]
            epochs = [p["epoch"] for p in points]
            left.plot(epochs, [p["kl"] for p in points], color="tab:blue", marker="o", markersize=3)
            left.set_xlabel("epoch")
            left.set_ylabel("disagreement of P1 and P2", color="tab:blue")
            left.set_title(title)
            right = left.twinx()
            right.plot(epochs, [100 * p["acc"] for p in points], color="tab:orange", marker="o", markersize=3)
            right.set_ylabel("accuracy, %", color="tab:orange")
        figure.savefig(folder / "dcsai_curve.png", dpi=110)
    sweeps = [row for task, row in found.items() if "sweep" in task]
    if sweeps:
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        for axes, row in zip(figure.subplots(1, len(sweeps), sharey=True, squeeze=False)[0], sweeps, strict=True):
            values = [p["value"] for p in row["points"]]
            for name, label in (("dae", "DAE + k-means"), ("dcsai", "DCSAI (cosine)")):
                axes.plot(values, [100 * p[name]["acc"] for p in row["points"]], marker="o", markersize=3, label=label)
            axes.set_xlabel(row["task"].split(" / ")[1])
        axes.legend()
        figure.axes[0].set_ylabel("accuracy, %")
        figure.savefig(folder / "dcsai_sweeps.png", dpi=110)
