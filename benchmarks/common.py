"""What the benchmark files share: data and scores."""

from __future__ import annotations


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
