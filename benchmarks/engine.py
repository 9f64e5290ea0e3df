"""The engine: its overhead, precision, inference, the command line, and what NCSC costs."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from neuralclust.bench.data import load

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
        subprocess.run([sys.executable, "-m", "neuralclust", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times)}


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
