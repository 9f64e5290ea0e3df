"""What several processes run in tests/test_peers.py: ``torchrun ... peers_program.py SCENARIO FOLDER``."""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from neuralclust import checkpoint, registry
from neuralclust.callbacks import HistoryLog
from neuralclust.datasets import make_sphere_clusters

X, y = make_sphere_clusters(256, 3, 16, noise=0.1, random_state=0)
NEURAL = ("TELL", "KMeansNet", "DCSAI", "NCSC", "SSCNet", "AEKMeans")


def small(name, **params):
    """An estimator whose fit takes a moment."""
    if name != "AEKMeans":
        params = {"max_epochs": 2, **params}
    if params.get("encoder", "mlp") is not None:
        params = {"pretrain_epochs": 2, "hidden_layer_sizes": (16,), **params}
    return registry.make(name, 3, batch_size=64, precision="float32", **{"random_state": 0, **params})


def without_chance(name, variant):
    """Parameters that leave nothing random to the rows of a process: no dropout, no noise."""
    params = {} if name == "AEKMeans" else {"variant": variant}
    if variant == "paper":
        params["encoder"] = torch.nn.Sequential(torch.nn.Linear(16, 24), torch.nn.ReLU(), torch.nn.Linear(24, 6))
        torch.manual_seed(0)
        for p in params["encoder"].parameters():
            torch.nn.init.normal_(p, std=0.3)
        if name == "DCSAI":
            params["noise"] = 0.0
    return params


def result(model):
    """What all processes must agree on."""
    state = {key: value.numpy() for key, value in model.module_.state_dict().items()}
    return {**state, "labels_": model.labels_, "loss_": np.array(model.loss_)}


def methods(folder, rank):
    for name in NEURAL:
        for variant in ("repaired", "paper"):
            model = small(name, **without_chance(name, variant)).fit(X)
            np.savez(folder / f"{name}-{variant}-{rank}.npz", **result(model))


class Table(Dataset):
    """Rows by number."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.from_numpy(X[i])


class Strange(torch.nn.Module):
    """An encoder of random depth, with buffers of all kinds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(16, 6), torch.nn.Linear(6, 6)
        self.register_buffer("short", torch.ones(3, dtype=torch.int16))
        self.register_buffer("wide", torch.ones(1).expand(5))
        self.register_buffer("flag", torch.tensor(True))

    def forward(self, x):
        z = self.first(x)
        return z + self.second(z) if self.training and torch.rand(()) < 0.5 else z


def agreements(folder, rank):
    """One thing after the other; each leaves the processes able to go on."""
    told = {}

    model = small("TELL", augment="table", random_state=None, n_init=2).fit(X)
    np.savez(folder / f"views-{rank}.npz", **result(model))
    model = small("KMeansNet").fit(Table())
    np.savez(folder / f"dataset-{rank}.npz", **result(model))
    model = small("TELL", standardize=True).fit(X)
    np.savez(folder / f"columns-{rank}.npz", **result(model))
    torch.manual_seed(rank)  # networks of the user's own that differ
    model = small("TELL", encoder=torch.nn.Linear(16, 6)).fit(X)
    np.savez(folder / f"encoder-{rank}.npz", **result(model))

    small("AEKMeans").set_callbacks(HistoryLog(folder / "history.jsonl")).fit(X)
    model.set_params(encoder="mlp", hidden_layer_sizes=(16,)).fit(X).save(folder / f"model-{rank}")
    told["predicts"] = bool((model.predict(X[:10]) == model.labels_[:10]).all())

    model = small("TELL", encoder=Strange()).fit(X)
    np.savez(folder / f"strange-{rank}.npz", **result(model))
    np.savez(folder / f"odd-{rank}.npz", **result(small("NCSC", variant="paper").set_params(batch_size=65).fit(X)))

    class Ask(HistoryLog):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            if fitted_estimator is not None:
                fitted_estimator.score(X)
                told["asked"] = [len(fitted_estimator.reconstruct_centers()), len(fitted_estimator.predict_proba(X))]

    small("TELL").set_callbacks(Ask(folder)).fit(X)
    stream = small("AEKMeans", encoder=None).partial_fit(X + rank).partial_fit(X, forgetting=0.5)
    told["stream"] = stream.cluster_centers_.tolist()
    try:
        small("TELL").fit(X, checkpoint=folder / "one" if rank == 0 else None)
    except ValueError as error:
        told["checkpoint"] = str(error)

    for what, args in {
        "rows": ({}, X + rank),
        "parameters": ({"n_init": 1 + rank}, X),
        "batch": ({"batch_size": 1}, X),
        "network": ({"encoder": torch.nn.Linear(3, 3)}, X),
    }.items():
        try:
            small("TELL").set_params(**args[0]).fit(args[1])
        except ValueError as error:
            told[what] = str(error)

    class Interrupted(Exception):
        pass

    class Interrupt(HistoryLog):
        def on_epoch_end(self, row, fitted_estimator):
            if row["epoch"] == 1:
                raise Interrupted("that is enough")

    try:
        small("TELL").set_callbacks(Interrupt(folder)).fit(X, checkpoint=folder / "checkpoint")
    except (Interrupted, RuntimeError) as error:
        told["interrupted"] = str(error)
    try:
        small("TELL").fit(X, checkpoint=folder / "checkpoint")
    except FileExistsError as error:
        told["unfinished"] = str(error)
    model = small("TELL").fit(X, checkpoint=folder / "checkpoint", resume=True)
    told["resumed"] = bool(np.allclose(model.cluster_centers_, small("TELL").fit(X).cluster_centers_, atol=1e-4))

    def full(*_):
        raise OSError(28, "No space left on device")

    checkpoint.save = full
    try:
        small("TELL").fit(X, checkpoint=folder / "full")
    except OSError as error:
        told["full"] = str(error)
    (folder / f"told-{rank}.json").write_text(json.dumps(told))


class Dies(torch.nn.Module):
    """An encoder whose process ends in the middle of training."""

    def __init__(self, after):
        super().__init__()
        self.linear = torch.nn.Linear(16, 6)
        self.after = after

    def forward(self, x):
        if self.training:
            self.after -= 1
            if self.after == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.linear(x)


def dies(folder, rank):
    torch.manual_seed(0)
    model = small("TELL", encoder=Dies(after=19 if rank == 1 else -1), pretrain_epochs=3, max_epochs=3)
    return model.fit(X, checkpoint=folder / "checkpoint", resume=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    {"methods": methods, "agreements": agreements, "dies": dies}[sys.argv[1]](
        Path(sys.argv[2]), int(os.environ.get("RANK", "0"))
    )
