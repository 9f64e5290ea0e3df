"""What the benchmark files share: data, scores, cells of a table."""

from __future__ import annotations

from statistics import mean, stdev


def load(dataset: str):
    """Rows or images, labels, number of classes."""
    from neuralclust import datasets

    data = datasets.load(dataset)
    return (data.images if "images" in data else data.data), data.target, len(data.target_names)


def scores(y, labels) -> dict:
    """ACC, NMI and ARI."""
    from neuralclust import metrics

    found = metrics.evaluate(y, labels)
    return {name: found[name] for name in ("acc", "nmi", "ari")}


def cell(values, scale: float = 100.0) -> str:
    """Mean and, of several, standard deviation."""
    values = [scale * value for value in values]
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
