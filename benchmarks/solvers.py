"""How fast the self-expressive solvers are, beside scikit-learn's, row by row."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from neuralclust.bench.data import load, scores


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
