"""The classical systems: accuracy, and how fast the self-expressive solvers are. ``run.py`` runs these as tasks."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from statistics import mean, median

from common import cell, load, scores

METHODS = (
    "SSC", "SSC-OMP", "EnSC", "KSSC", "LRR", "SLRR", "LRSC", "LSR1", "LSR2", "SMR",
    "SpectralClustering", "SEC", "LSC-K", "LSC-R", "ZAC", "NMF-LP", "NMF", "FuzzyCMeans",
    "AverageLinkage", "WeightedLinkage", "GaussianMixture", "KMeans",
)  # fmt: skip
SEEDED = {"SLRR", "SEC", "LSC-K", "LSC-R", "NMF-LP", "NMF", "FuzzyCMeans", "GaussianMixture", "KMeans"}
SUBJECTS = (10, 20, 38)
DATA = ("orl", "coil20", *(f"extended_yale_b, {n} subjects" for n in SUBJECTS), "mnist_test")
# ACC of "Deep Clustering With Sample-Assignment Invariance Prior", Table II, MNIST-test, tuned.
PUBLISHED = {
    "KMeans": 56.07, "NMF-LP": 66.48, "ZAC": 60.16, "AverageLinkage": 12.20, "WeightedLinkage": 41.58, "LRR": 59.27,
    "LRSC": 60.21, "LSR1": 43.81, "LSR2": 41.70, "SpectralClustering": 69.33, "SMR": 67.59, "SSC": 60.96,
    "LSC-R": 59.27, "LSC-K": 70.35,
}  # fmt: skip


def rows(dataset: str):
    """Rows of unit range, labels, number of clusters; the first so many subjects of Yale B."""
    name, _, subjects = dataset.partition(", ")
    X, y, k = load(name)
    if subjects:
        k = int(subjects.split()[0])
        X, y = X[y < k], y[y < k]
    X = X.reshape(len(X), -1).astype("float32")
    return X / X.max(), y, k


def accuracy(dataset: str, method: str, seed: int) -> dict:
    """Scores at default settings."""
    from neuralclust import registry

    X, y, k = rows(dataset)
    model = registry.make(method, k)
    if "random_state" in model.get_params():
        model.set_params(random_state=seed)
    if method == "KMeans":
        model.set_params(n_init=10)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = model.fit_predict(X)
    return {**scores(y, labels), "seconds": time.perf_counter() - begin}


def _mnist(n: int):
    """MNIST, 500 principal components, unit length."""
    import numpy as np

    X = load("mnist")[0][:n].reshape(n, -1).astype("float32") / 255
    X -= X.mean(axis=0)
    _, vectors = np.linalg.eigh(X.T @ X)
    X = X @ vectors[:, -500:]
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def solver(name: str, n: int, seed: int) -> dict:
    """Seconds of all rows, beside scikit-learn's for some of them one by one, extrapolated."""
    import numpy as np
    from sklearn.linear_model import ElasticNet, OrthogonalMatchingPursuit

    from neuralclust.subspace import elastic_net, lsr1, ssc_omp

    X = _mnist(n)
    _forget_peak()
    begin = time.perf_counter()
    C = {"SSC-OMP": ssc_omp, "EnSC": elastic_net, "LSR1": lambda X: lsr1(X, ridge=0.1)}[name](X)
    seconds = time.perf_counter() - begin
    row = {"seconds": seconds, "peak_mib": _peak()}
    if name == "LSR1":
        return row
    row["per_row"] = C.nnz / n
    dictionary = np.asfortranarray(X.T)
    times, error = [], 0.0
    for i in np.random.default_rng(seed).permutation(n)[:5]:
        column = dictionary[:, i].copy()
        dictionary[:, i] = 0  # itself
        begin = time.perf_counter()
        if name == "SSC-OMP":
            found = OrthogonalMatchingPursuit(n_nonzero_coefs=10, fit_intercept=False).fit(dictionary, column)
        else:
            weight = 50 * 0.95 / np.abs(column @ dictionary).max() * X.shape[1]
            net = ElasticNet(1 / weight, l1_ratio=0.95, fit_intercept=False, tol=1e-6, max_iter=10_000)
            found = net.fit(dictionary, column)
        times.append(time.perf_counter() - begin)
        dictionary[:, i] = column
        error = max(error, float(np.abs(C[[int(i)]].toarray()[0] - found.coef_).max()))
    return {**row, "sklearn_s": median(times) * n, "ratio": median(times) * n / seconds, "difference": error}


def whole(method: str, n: int, seed: int) -> dict:
    """Coefficients, graph and partition of MNIST, 500 principal components."""
    from neuralclust import registry

    X, y = _mnist(n), load("mnist")[1][:n]
    _forget_peak()
    begin = time.perf_counter()
    labels = registry.make(method, 10, random_state=seed).fit_predict(X)
    return {**scores(y, labels), "seconds": time.perf_counter() - begin, "peak_mib": _peak()}


def _forget_peak() -> None:
    """The peak counts from here, not from the loading of the data."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """MiB of the process since then, data and libraries included."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def tasks() -> dict[str, tuple]:
    """Name -> (function, arguments, seeds)."""
    found: dict[str, tuple] = {}
    for dataset in DATA:
        for method in METHODS:
            arguments = {"dataset": dataset, "method": method}
            found[f"classical / {dataset} / {method}"] = accuracy, arguments, range(3 if method in SEEDED else 1)
    for n in (10_000, 70_000):
        for name in ("SSC-OMP", "EnSC"):
            found[f"solver / {name} / {n}"] = solver, {"name": name, "n": n}, [0]
            found[f"whole / {name} / {n}"] = whole, {"method": name, "n": n}, [0]
    found["solver / LSR1 / 10000"] = solver, {"name": "LSR1", "n": 10_000}, [0]
    return found


def table(runs: dict[str, list[dict]]) -> list[str]:
    """Markdown lines from the rows."""
    lines = [
        "## Classical systems",
        "",
        "ACC in percent at default settings, unit range, no principal components, no post-processing; with ± of three",
        "seeds, else of one. Published: MNIST-test, tuned for it (DCSAI, Table II).",
        "",
        f"| method | {' | '.join(DATA)} | published | seconds |",
        f"|---|{'---|' * len(DATA)}---|---|",
    ]
    for method in METHODS:
        found = [runs.get(f"classical / {dataset} / {method}") for dataset in DATA]
        if not any(found):
            continue
        cells = [cell([r["acc"] for r in rows]) if rows else "" for rows in found]
        seconds = " ".join(f"{mean(r['seconds'] for r in rows):.0f}" if rows else "-" for rows in found)
        lines.append(f"| {method} | {' | '.join(cells)} | {PUBLISHED.get(method, '')} | {seconds} |")
    lines += [
        "",
        "Coefficients of MNIST, 500 principal components, beside scikit-learn's pursuit and elastic net row by row,",
        "the median of five rows, times as many as there are; the largest difference of a coefficient of these rows.",
        "",
        "| solver | rows | seconds | scikit-learn, s | ratio | non-zero a row | difference | peak, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, (r, *_) in runs.items():
        if task.startswith("solver / "):
            _, name, n = task.split(" / ")
            beside = " | | | "
            if "ratio" in r:
                beside = f"{r['sklearn_s']:,.0f} | {r['ratio']:.0f} | {r['per_row']:.0f} | {r['difference']:.0e}"
            lines.append(f"| {name} | {int(n):,} | {r['seconds']:.1f} | {beside} | {r['peak_mib']:,.0f} |")
    lines += ["", "| whole fit | rows | ACC | NMI | ARI | seconds | peak, MiB |", "|---|---|---|---|---|---|---|"]
    for task, (r, *_) in runs.items():
        if task.startswith("whole / "):
            _, name, n = task.split(" / ")
            three = " | ".join(cell([r[s]]) for s in ("acc", "nmi", "ari"))
            lines.append(f"| {name} | {int(n):,} | {three} | {r['seconds']:.0f} | {r['peak_mib']:,.0f} |")
    return lines
