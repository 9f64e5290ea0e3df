"""Side by side with ClustPy in one process, and how far a step is from its matrix products.

ClustPy is no dependency: where it cannot be imported its tasks are skipped. Both sides get the same network, batch and
number of epochs, in turn; ratios are medians of pairs.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from statistics import median

from neuralclust.bench.data import load, scores

NETS = {
    "784-500-500-2000-10, 20,000 rows": (784, (500, 500, 2000), 10, 20_000, 1),
    "16-64-64-4, 20,000 rows": (16, (64, 64), 4, 20_000, 2),
}
BATCH = 256


def _rows(features: int, n: int):
    """Images of MNIST, or a table of Gaussian clusters, float32 within 0 .. 1."""
    import numpy as np

    if features == 784:
        return (load("mnist")[0][:n].reshape(n, -1) / 255).astype("float32")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5, features))[rng.integers(0, 5, n)] + 0.3 * rng.normal(size=(n, features))
    return ((X - X.min()) / (X.max() - X.min())).astype("float32")


def _clustpy():
    import torchvision_shim  # noqa: F401 - before clustpy.deep, where torchvision has no compiled part
    from clustpy import deep
    from clustpy.deep.neural_networks import FeedforwardAutoencoder

    return FeedforwardAutoencoder, deep


def autoencoder(net: str, seed: int) -> dict:
    """Seconds an epoch of pretraining."""
    from neuralclust import AEKMeans

    feedforward, _ = _clustpy()
    features, hidden, embed_dim, n, epochs = NETS[net]
    X = _rows(features, n)

    def ours() -> float:
        model = AEKMeans(  # ClustPy's network does not scale its codes to unit length
            5, hidden_layer_sizes=hidden, embed_dim=embed_dim, batch_size=BATCH, init="random", normalize=False,
            random_state=seed,
        )  # fmt: skip
        return _difference(lambda e: model.set_params(pretrain_epochs=e).fit(X), epochs)

    def theirs() -> float:
        def fit(epochs: int) -> None:
            net = feedforward([features, *hidden, embed_dim], random_state=seed)
            net.fit(n_epochs=epochs, optimizer_params={"lr": 1e-3}, batch_size=BATCH, data=X)

        return _difference(fit, epochs)

    return _pairs(ours, theirs)


def _difference(fit, epochs: int) -> float:
    """Seconds of an epoch: a fit of ``1 + epochs`` less one of 1, so that what surrounds the epochs cancels."""
    seconds = []
    for e in (1, 1 + epochs):
        begin = time.perf_counter()
        fit(e)
        seconds.append(time.perf_counter() - begin)
    return (seconds[1] - seconds[0]) / epochs


def _pairs(ours, theirs, repeats: int = 5) -> dict:
    ours(), theirs()  # warm up
    found = [(ours(), theirs()) for _ in range(repeats)]
    return {
        "ours_s": median(a for a, _ in found),
        "clustpy_s": median(b for _, b in found),
        "ratio": median(b / a for a, b in found),
    }


def predict(n: int, seed: int) -> dict:
    """Seconds of ``predict`` on fitted models, one process."""
    from neuralclust import TELL

    feedforward, deep = _clustpy()
    X = _rows(784, n)
    sizes = (500, 500, 2000)
    model = TELL(10, hidden_layer_sizes=sizes, pretrain_epochs=0, max_epochs=0, random_state=seed).fit(X[:1000])
    net = feedforward([784, *sizes, 10], random_state=seed)
    other = deep.DEC(10, neural_network=net, pretrain_epochs=0, clustering_epochs=0, random_state=seed).fit(X[:1000])

    def seconds(estimator) -> float:
        begin = time.perf_counter()
        estimator.predict(X)
        return time.perf_counter() - begin

    return _pairs(lambda: seconds(model), lambda: seconds(other))


def memory(side: str, n: int, seed: int) -> dict:
    """MiB that ``predict`` needs beyond data, model and libraries, in a process of its own."""
    from neuralclust import TELL

    X = _rows(784, n)
    if side == "ours":
        model = TELL(10, pretrain_epochs=0, max_epochs=0, random_state=seed).fit(X[:1000])
    else:
        feedforward, deep = _clustpy()
        net = feedforward([784, 500, 500, 2000, 10], random_state=seed)
        model = deep.DEC(10, neural_network=net, pretrain_epochs=0, clustering_epochs=0, random_state=seed).fit(
            X[:1000]
        )
    model.predict(X[:1000])
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from the loading of the data

    def status(name: str) -> float:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) / 1024

    before = status("VmRSS")
    model.predict(X)
    return {"extra_mib": status("VmHWM") - before}


def versus(data: str, augmented: bool, seed: int) -> dict:
    """Scores of TELL at default settings, and of ClustPy's methods given as many seconds, two thirds to pretraining."""

    from neuralclust import TELL

    feedforward, deep = _clustpy()
    images, y, k = load(data)
    images = (images / images.max()).astype("float32")
    begin = time.perf_counter()
    labels = TELL(k, augment="digits" if augmented else None, random_state=seed).fit_predict(images)
    budget = time.perf_counter() - begin
    row: dict = {"TELL": scores(y, labels) | {"seconds": budget}}
    X = images.reshape(len(images), -1)

    def fit(method: str, pretraining: int, clustering: int):
        loaders = None
        if augmented:
            loaders = deep.get_default_augmented_dataloaders(images.copy(), batch_size=BATCH)
        net = feedforward([X.shape[1], 500, 500, 2000, 10], random_state=seed)
        begin = time.perf_counter()
        model = getattr(deep, method)(
            k, neural_network=net, batch_size=BATCH, pretrain_epochs=pretraining, clustering_epochs=clustering,
            custom_dataloaders=loaders, augmentation_invariance=augmented, random_state=seed,
        ).fit(X)  # fmt: skip
        return model.labels_, time.perf_counter() - begin

    for method in ("DEC", "IDEC", "DCN"):
        fit(method, 1, 1)  # warm up
        times = [fit(method, *epochs)[1] for epochs in ((1, 1), (4, 1), (1, 4))]
        rates = [max((t - times[0]) / 3, 1e-3) for t in times[1:]]
        epochs = [max(1, round(share * budget / rate)) for share, rate in zip((2 / 3, 1 / 3), rates, strict=True)]
        labels, seconds = fit(method, *epochs)
        row[method] = scores(y, labels) | {"seconds": seconds, "epochs": epochs}
    return row


def limit(net: str, seed: int, batch: int = BATCH) -> dict:
    """An epoch of the library over the time of its matrix products alone, same shapes and precision."""
    import torch

    from neuralclust import AEKMeans
    from neuralclust.runtime import resolve_precision

    features, hidden, embed_dim, n, epochs = NETS[net]
    X = _rows(features, n)
    model = AEKMeans(
        5, hidden_layer_sizes=hidden, embed_dim=embed_dim, batch_size=batch, init="random", random_state=seed
    )
    model.set_params(pretrain_epochs=1).fit(X[:1000])
    dtype = resolve_precision("auto", torch.device("cpu"), model.module_.autoencoder)
    sizes = [features, *hidden, embed_dim, *hidden[::-1], features]
    weights = [torch.randn(b, a).to(dtype) for a, b in itertools.pairwise(sizes)]
    inputs = [torch.randn(batch, a).to(dtype) for a in sizes]

    def products() -> float:
        begin = time.perf_counter()
        for _ in range(epochs * (n // batch)):
            for i, w in enumerate(weights):
                inputs[i] @ w.T  # forward
                inputs[i + 1].T @ inputs[i]  # gradient of the weights
                if i:
                    inputs[i + 1] @ w  # gradient of the input
        return (time.perf_counter() - begin) / epochs

    def ours() -> float:
        return _difference(lambda e: model.set_params(pretrain_epochs=e).fit(X), epochs)

    ours(), products()
    found = [(ours(), products()) for _ in range(5)]
    return {
        "ours_s": median(a for a, _ in found),
        "products_s": median(b for _, b in found),
        "ratio": median(a / b for a, b in found),
        "precision": str(dtype).removeprefix("torch."),
    }
