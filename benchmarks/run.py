"""Benchmarks of the foundation: accuracy over seeds, the engine's overhead, inference, precision.

    make bench                                    # everything that has no row yet
    python benchmarks/run.py --only digits        # tasks whose name contains this
    python benchmarks/run.py --table              # only write benchmarks/README.md from the rows

One JSON line a finished run in ``results.jsonl``, keyed by task and seed: an interrupted run goes on where it was.
MNIST is read as every data set is, from ``NEURALCLUST_DATA`` or the user's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import accuracy as better
import dcsai
import ncsc
import speed
import sscnet
import subspace
from common import cell, scores

HERE = Path(__file__).parent
RESULTS, TABLE = HERE / "results.jsonl", HERE / "README.md"


# -- accuracy -------------------------------------------------------------------------------------------------


def accuracy(dataset: str, method: str, seed: int, **params) -> dict:
    """Fit on all rows, score the labels of the last epoch."""
    from neuralclust import datasets, registry

    data = datasets.load(dataset)
    k = len(data.target_names)
    estimator = registry.make(method, k, random_state=seed)
    known = estimator.get_params()
    estimator.set_params(**{name: value for name, value in params.items() if name in known})
    if method == "KMeans":
        estimator.set_params(n_init=10)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = estimator.fit_predict(data.data)
    seconds = time.perf_counter() - start
    loss = getattr(estimator, "loss_", getattr(estimator, "inertia_", None))
    return {**scores(data.target, labels), "loss": loss, "seconds": seconds}


# -- engine ---------------------------------------------------------------------------------------------------

NETS = {
    "784-500-500-2000-10, batch 256": (784, (500, 500, 2000), 10, 256, 20_000),
    "64-500-500-2000-10, batch 128": (64, (500, 500, 2000), 10, 128, 1_797),
    "16-64-64-4, batch 256": (16, (64, 64), 4, 256, 20_000),
}


def engine(net: str, seed: int) -> dict:
    """An epoch of our Trainer over an epoch of a bare loop: same net, batch, optimiser, order; median of pairs."""
    import torch
    import torch.nn.functional as F

    from neuralclust.data import ArraySource
    from neuralclust.nn import CentroidLayer, ClusterModule, MLPAutoencoder
    from neuralclust.training import Trainer, Update

    features, hidden, embed_dim, batch, n = NETS[net]
    torch.manual_seed(seed)
    x = torch.rand(n, features)
    net_a = MLPAutoencoder((features,), embed_dim, hidden_layer_sizes=hidden)
    net_b = MLPAutoencoder((features,), embed_dim, hidden_layer_sizes=hidden)
    module = ClusterModule(net_a, CentroidLayer(embed_dim, 3), (features,))
    adam_a = torch.optim.Adam(net_a.parameters(), 1e-3, fused=True)
    adam_b = torch.optim.Adam(net_b.parameters(), 1e-3, fused=True)

    def loss(module, rows, index):
        value = F.mse_loss(module.decode(module.encode(rows)), rows)
        return {"loss": value, "rec": value}

    generator = torch.Generator().manual_seed(seed)
    trainer = Trainer(batch, torch.device("cpu"), torch.float32, generator)
    update, source = Update(loss, adam_a), ArraySource(x.numpy(), (features,))

    repeats, epochs = (7, 1) if features > 500 else (25, 5)

    def ours():
        trainer.fit(module, source, [update], stage="bench", epochs=epochs)

    def bare():
        for _ in range(epochs):
            total = 0.0
            order = torch.randperm(n)
            for i in range(0, n - batch + 1, batch):
                rows = x[order[i : i + batch]]
                value = F.mse_loss(net_b.decoder(net_b.encoder(rows)), rows)
                adam_b.zero_grad()
                value.backward()
                adam_b.step()
                total += value.item()

    times = {"ours": [], "bare": []}
    for i in range(repeats + 1):
        for name, epoch in (("ours", ours), ("bare", bare)) if i % 2 else (("bare", bare), ("ours", ours)):
            start = time.perf_counter()
            epoch()
            if i:  # the first pair warms up
                times[name].append((time.perf_counter() - start) / epochs)
    ratios = [a / b for a, b in zip(times["ours"], times["bare"], strict=True)]
    return {
        "ours_s": statistics.median(times["ours"]),
        "bare_s": statistics.median(times["bare"]),
        "ratio": statistics.median(ratios),
    }


def precision(net: str, seed: int) -> dict:
    """A training step in bfloat16 over one in float32, in turn."""
    import torch
    import torch.nn.functional as F

    from neuralclust.nn import MLPAutoencoder
    from neuralclust.runtime import resolve_precision

    features, hidden, embed_dim, batch, _ = NETS[net]
    torch.manual_seed(seed)
    x = torch.rand(batch, features)
    model = MLPAutoencoder((features,), embed_dim, hidden_layer_sizes=hidden)
    adam = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def seconds(dtype, steps=20):
        model.precision = dtype
        start = time.perf_counter()
        for _ in range(steps):
            adam.zero_grad()
            F.mse_loss(model(x), x).backward()
            adam.step()
        return (time.perf_counter() - start) / steps

    for dtype in (torch.float32, torch.bfloat16):
        seconds(dtype)
    pairs = [(seconds(torch.float32), seconds(torch.bfloat16)) for _ in range(7)]
    chosen = resolve_precision("auto", torch.device("cpu"), model)
    return {
        "float32_ms": 1000 * statistics.median(a for a, _ in pairs),
        "bfloat16_ms": 1000 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
        "weights": sum(p.numel() for p in model.parameters()),
        "auto": str(chosen).removeprefix("torch."),
    }


def inference(n: int, seed: int) -> dict:
    """Throughput of predict and what it needs beyond the data, in a process of its own."""
    import numpy as np

    from neuralclust import TELL

    X = np.random.default_rng(seed).random((n, 784), dtype=np.float32)
    model = TELL(10, pretrain_epochs=0, max_epochs=0, random_state=seed).fit(X[:1000])
    model.predict(X[:1000])
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize() / 2**20
    start = time.perf_counter()
    model.predict(X)
    seconds = time.perf_counter() - start
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return {"rows_per_s": n / seconds, "extra_mib": extra, "data_mib": X.nbytes / 2**20}


def command_line(seed: int) -> dict:
    """Seconds of ``neuralclust --help``, a whole process, median of 7."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "neuralclust.cli", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times)}


# -- tasks ----------------------------------------------------------------------------------------------------


def tasks() -> dict[str, tuple]:
    """Name -> (function, arguments, seeds). Runs are in this order."""
    found: dict[str, tuple] = {}
    for net in NETS:
        found[f"engine / {net}"] = (engine, {"net": net}, [0])
        found[f"precision / {net}"] = (precision, {"net": net}, [0])
    for n in (1_000, 70_000):
        found[f"inference / {n} x 784"] = (inference, {"n": n}, [0])
    found["help"] = (command_line, {}, [0])
    for method in ("KMeans", "AEKMeans", "KMeansNet", "TELL", "DCSAI", "NCSC", "SSCNet"):
        found[f"accuracy / digits / {method}"] = (
            accuracy,
            {"dataset": "digits", "method": method},
            range(5),
        )
    return found | speed.tasks() | better.tasks() | dcsai.tasks() | ncsc.tasks() | sscnet.tasks() | subspace.tasks()


def run(only: str) -> None:
    """Every missing run, each in a process of its own so that peak memory is its own."""
    done = {(row["task"], row["seed"]) for row in rows()}
    todo = [(name, seed) for name, (_, _, seeds) in tasks().items() if only in name for seed in seeds]
    todo = [pair for pair in todo if pair not in done]
    for i, (name, seed) in enumerate(todo, start=1):
        print(f"[{i}/{len(todo)}] {name}, seed {seed}", flush=True)
        child = subprocess.run(
            [sys.executable, __file__, "--one", name, "--seed", str(seed)], capture_output=True, text=True
        )
        if child.returncode:
            print(f"  skipped: {child.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        with RESULTS.open("a") as file:
            file.write(child.stdout.strip().splitlines()[-1] + "\n")
        print("  " + child.stdout.strip().splitlines()[-1], flush=True)


def one(name: str, seed: int) -> None:
    """Run one task here and print its row."""
    import torch

    from neuralclust import __version__

    function, arguments, _ = tasks()[name]
    result = function(**arguments, seed=seed)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
    print(json.dumps({"task": name, "seed": seed, **result, "neuralclust": __version__, **machine}))


def rows() -> list[dict]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def by_task() -> dict[str, list[dict]]:
    """Rows of each task, in the order of the tasks and of their seeds."""
    found: dict[str, list[dict]] = {}
    order = list(tasks())
    for row in sorted(rows(), key=lambda row: (order.index(row["task"]), row["seed"])):
        found.setdefault(row["task"], []).append(row)
    return found


# -- table ----------------------------------------------------------------------------------------------------


def table() -> str:
    """benchmarks/README.md from the rows."""
    found = by_task()
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench` from `results.jsonl`; nothing here is typed by hand. Two cores, no GPU. Speeds are",
        "medians of one run on a shared machine: read the ratios.",
        "",
        "## Accuracy",
        "",
        "Percent, mean ± standard deviation over seeds, labels of the last epoch; default settings, so raw features",
        "and no augmentation.",
        "",
        "| data | method | seeds | ACC | NMI | ARI | seconds | ACC of the run with the smallest loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, runs in found.items():
        if not task.startswith("accuracy"):
            continue
        _, dataset, method = task.split(" / ")

        three = [cell([row[name] for row in runs]) for name in ("acc", "nmi", "ari")]
        best = min(runs, key=lambda row: row["loss"])
        lines.append(
            f"| {dataset} | {method} | {len(runs)} | {' | '.join(three)} | "
            f"{statistics.mean(row['seconds'] for row in runs):.0f} | {100 * best['acc']:.1f} |"
        )
    lines += ["", *better.table(found), "", *dcsai.table(found), "", *ncsc.table(found), "", *sscnet.table(found)]
    lines += ["", *subspace.table(found)]
    lines += [
        "",
        "## Engine",
        "",
        "An epoch of the library's training loop over one of a bare loop with the same network, batch and optimiser,",
        "in the same process, in turn; float32.",
        "",
        "| network | ours, s | bare, s | ratio |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {task.split(' / ')[1]} | {r['ours_s']:.3f} | {r['bare_s']:.3f} | {r['ratio']:.3f} |"
        for task, (r, *_) in found.items()
        if task.startswith("engine")
    ]
    lines += [
        "",
        'A training step in bfloat16 over one in float32, and what `precision="auto"` takes.',
        "",
        "| network | weights | float32, ms | bfloat16, ms | ratio | auto |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {task.split(' / ')[1]} | {r['weights']:,} | {r['float32_ms']:.2f} | {r['bfloat16_ms']:.2f} | "
        f"{r['ratio']:.2f} | {r['auto']} |"
        for task, (r, *_) in found.items()
        if task.startswith("precision")
    ]
    lines += ["", *speed.table(found)]
    lines += [
        "",
        "## Inference",
        "",
        "`TELL.predict`, 784-500-500-2000-10, float32; memory beyond the data, the model and the libraries.",
        "",
        "| rows | rows per second | data, MiB | extra, MiB |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {task.split(' / ')[1]} | {r['rows_per_s']:,.0f} | {r['data_mib']:.0f} | {r['extra_mib']:.0f} |"
        for task, (r, *_) in found.items()
        if task.startswith("inference")
    ]
    if "help" in found:
        lines += ["", f"`neuralclust --help` answers in {found['help'][0]['seconds']:.2f} s."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run the tasks whose name contains this")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.seed)
    else:
        if not options.table:
            run(options.only)
        TABLE.write_text(table())
        images = HERE.parent / "docs" / "images"
        dcsai.pictures(RESULTS, images)
        sscnet.picture(by_task(), images)
