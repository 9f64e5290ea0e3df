"""Rows and labels of a data set as the experiments take them, and the scores of clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from neuralclust import datasets, metrics


def load(name: str, neural: bool = True, rows: int | None = None, seed: int = 0) -> tuple[Any, np.ndarray, int]:
    """Rows, labels and the number of classes: images for a network, else vectors of unit range; a table standardised.

    ``"extended_yale_b, 10 subjects"`` are the first so many classes.
    """
    name, _, classes = name.partition(", ")
    data = datasets.load(name)
    X, y, k = data.get("images", data.data), data.target, len(data.target_names)
    if classes:
        k = int(classes.split()[0])
        X, y = X[y < k], y[y < k]
    if rows is not None:
        drawn = np.random.default_rng(seed).permutation(X.shape[0])[:rows]
        X, y = X[drawn], y[drawn]
    if isinstance(X, np.ndarray) and X.ndim == 2:
        X = StandardScaler().fit_transform(X).astype(np.float32)
    elif not neural and isinstance(X, np.ndarray):
        X = X.reshape(len(X), -1).astype(np.float32)
        X = X / X.max()
    return X, y, k


def scores(y: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Shares of one: what the papers report."""
    names = ("acc", "nmi", "ari", "precision", "ami", "homogeneity", "completeness", "v_measure")
    found = metrics.evaluate(y, labels)
    return {name: round(float(found[name]), 6) for name in names}
