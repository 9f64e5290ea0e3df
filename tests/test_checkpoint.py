"""Fits that are interrupted and go on: bit for bit the model of one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import neuralclust
from neuralclust import TELL, AEKMeans, Checkpoint, training
from neuralclust.augment import Chain, FeatureMask
from neuralclust.callbacks import EarlyStopping
from neuralclust.checkpoint import FILE

from .conftest import METHODS, small

PAPER = [name for name in METHODS if "variant" in small(name).get_params()]
FORMS = [
    *((name, {}) for name in METHODS),
    *((name, {"variant": "paper"}) for name in PAPER),
    ("TELL", {"alternate": "epoch", "target": "hard"}),
    ("TELL", {"n_init": 3}),
    ("KMeansNet", {"encoder": None}),
    ("TELL", {"standardize": True}),
]


class Killed(BaseException):
    pass


@pytest.fixture
def kill_at(monkeypatch):
    """End the process, as it were, at the n-th step of an optimiser from now."""
    step, left = training.Update.step, []

    def counted(self, *args):
        if left and (left.__setitem__(0, left[0] - 1) or left[0] < 0):
            left.clear()
            raise Killed
        return step(self, *args)

    monkeypatch.setattr(training.Update, "step", counted)
    return left.append


def assert_same(a, b):
    assert (a.labels_ == b.labels_).all()
    assert a.loss_ == b.loss_ or (np.isnan(a.loss_) and np.isnan(b.loss_))
    assert a.n_iter_ == b.n_iter_
    assert json.dumps(a.history_) == json.dumps(b.history_)
    mine, other = a.module_.state_dict(), b.module_.state_dict()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("name", "params"), FORMS)
def test_a_killed_fit_goes_on_bit_for_bit(easy, tmp_path, kill_at, name, params):
    settings = {"pretrain_epochs": 3, "max_epochs": 4, "batch_size": 60, **params}
    whole = small(name, **settings).fit(easy[0])
    rng, kills = np.random.default_rng(0), 0
    for attempt in range(50):
        kill_at(int(rng.integers(3, 12)) * (1 + attempt))  # four steps an epoch; more between the stages of NCSC
        try:
            model = small(name, **settings).fit(easy[0], checkpoint=tmp_path, resume=True)
            break
        except Killed:
            kills += 1
    assert kills >= 1
    assert_same(model, whole)


def test_a_fit_with_checkpoints_is_the_same(easy, tmp_path):
    assert_same(small("TELL").fit(easy[0], checkpoint=Checkpoint(tmp_path, every_epochs=3)), small("TELL").fit(easy[0]))


def test_a_fit_that_has_ended_is_there_again(easy, tmp_path, kill_at):
    model = small("TELL").fit(easy[0], checkpoint=tmp_path)
    kill_at(0)  # not one more step is taken
    assert_same(small("TELL").fit(easy[0], checkpoint=tmp_path, resume=True), model)


def test_the_seeds_of_no_random_state_are_kept(easy, tmp_path, kill_at):
    kill_at(20)
    with pytest.raises(Killed):
        small("TELL", random_state=None, batch_size=60).fit(easy[0], checkpoint=tmp_path)
    a = small("TELL", random_state=None, batch_size=60)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / FILE).write_bytes((tmp_path / FILE).read_bytes())
    a.fit(easy[0], checkpoint=tmp_path, resume=True)
    b = small("TELL", random_state=None, batch_size=60).fit(easy[0], checkpoint=copy, resume=True)
    assert_same(a, b)


def test_how_often(easy, tmp_path, monkeypatch):
    written = []
    from neuralclust.checkpoint import Keeper

    put = Keeper._put
    monkeypatch.setattr(
        Keeper, "_put", lambda self, p, t: written.append((p["stage"], len(p["rows"]))) or put(self, p, t)
    )
    AEKMeans(3, hidden_layer_sizes=(8,), pretrain_epochs=7, random_state=0).fit(
        easy[0], checkpoint=Checkpoint(tmp_path, every_epochs=3)
    )
    assert written[:3] == [("pretrain", 3), ("pretrain", 6), ("pretrain", 7)]  # and the last
    written.clear()
    small("AEKMeans").fit(easy[0], checkpoint=Checkpoint(tmp_path, every_seconds=1e6))
    assert len(written) == 2  # the end of the stage, and that all is done


@pytest.fixture
def half(easy, tmp_path, kill_at):
    """A folder with the checkpoint of a fit that was killed."""
    kill_at(30)
    with pytest.raises(Killed):
        small("TELL", batch_size=60).fit(easy[0], checkpoint=tmp_path)
    return tmp_path


def test_another_fit_does_not_go_on(easy, half):
    X = easy[0]

    def resume(model, X=X):
        return model.fit(X, checkpoint=half, resume=True)

    with pytest.raises(ValueError, match=r"with lr=None, not with lr=0\.5"):
        resume(small("TELL", batch_size=60, lr=0.5))
    with pytest.raises(ValueError, match="of a fit of TELL, not of AEKMeans"):
        resume(small("AEKMeans", batch_size=60))
    with pytest.raises(ValueError, match="with other rows"):
        resume(small("TELL", batch_size=60), X + 1)
    with pytest.raises(ValueError, match="with random_state=0, not with random_state=1"):
        resume(small("TELL", batch_size=60, random_state=1))
    before = (half / FILE).read_bytes()
    with pytest.raises(FileExistsError, match=r"has not ended\. Pass resume=True"):
        small("TELL", batch_size=60).fit(X, checkpoint=half)
    assert (half / FILE).read_bytes() == before
    model = TELL(3)
    with pytest.raises(ValueError, match="resume=True needs checkpoint="):
        model.fit(X, resume=True)
    assert not hasattr(model, "module_")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"encoder": nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))},
         {"encoder": nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4))}),
        ({"encoder": nn.Linear(16, 4)}, {"encoder": nn.Linear(16, 5)}),
        ({"augment": lambda x: x}, {"augment": None}),
        ({"random_state": 0}, {"random_state": np.random.RandomState(0)}),
        ({"init": np.eye(3, 10)}, {"init": np.ones((3, 10))}),
    ],
)  # fmt: skip
def test_other_objects_are_other_parameters(easy, tmp_path, one, other):
    small("TELL", **one).fit(easy[0], checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"is of a fit with .*, not with"):
        small("TELL", **other).fit(easy[0], checkpoint=tmp_path, resume=True)


def test_every_row_counts(easy, half):
    X = easy[0].copy()
    X[17, 3] += 1e-3
    with pytest.raises(ValueError, match="with other rows"):
        small("TELL", batch_size=60).fit(X, checkpoint=half, resume=True)


@pytest.mark.parametrize("kind", ["encoder", "loose buffer", "RandomState", "init", "Dataset", "bfloat16", "stopping"])
def test_what_else_a_fit_may_have_goes_on_too(easy, tmp_path, kill_at, kind):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(4), persistent=False)
            self.net = nn.Linear(16, 4)

        def forward(self, x):
            z = self.net(x)
            if self.training:
                self.mean.copy_(0.9 * self.mean + 0.1 * z.detach().mean(dim=0))
            return z - self.mean

    torch.manual_seed(0)
    nets = {"encoder": nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)), "loose buffer": Counting()}
    X = {"Dataset": torch.utils.data.TensorDataset(torch.tensor(easy[0])), "bfloat16": torch.tensor(easy[0]).bfloat16()}

    def fit(**options):
        params = {"encoder": nets[kind]} if kind in nets else {}
        params |= {"random_state": np.random.RandomState(3)} if kind == "RandomState" else {}
        params |= {"init": np.eye(3, 10)} if kind == "init" else {}
        model = small("TELL", batch_size=60, **params)
        if kind == "stopping":
            model.set_params(pretrain_epochs=40).set_callbacks(EarlyStopping(patience=2))
        return model.fit(X.get(kind, easy[0]), **options)

    whole = fit()
    kill_at(30)
    with pytest.raises(Killed):
        fit(checkpoint=tmp_path)
    again = fit(checkpoint=tmp_path, resume=True)
    assert_same(again, whole)


def test_damaged_files_are_refused(easy, half):
    """Or, where what was hit says nothing, read as they were."""
    right, refused = small("TELL", batch_size=60).fit(easy[0]), 0
    whole = (half / FILE).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        bad = bytearray(whole)
        bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
        (half / FILE).write_bytes(bad)
        try:
            assert_same(small("TELL", batch_size=60).fit(easy[0], checkpoint=half, resume=True), right)
        except ValueError as error:
            assert str(half) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 35
    for bad in (b"", whole[:100], whole[:-10], b"{}" * 50):
        (half / FILE).write_bytes(bad)
        with pytest.raises(ValueError, match=r"checkpoint.safetensors is (not a checkpoint|damaged)"):
            small("TELL", batch_size=60).fit(easy[0], checkpoint=half, resume=True)


def test_a_file_of_someone_else_is_refused(easy, tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="is not a checkpoint of neuralclust"):
        small("TELL").fit(easy[0], checkpoint=tmp_path)


def test_a_full_disk_keeps_the_last_checkpoint(easy, half, monkeypatch):
    before = (half / FILE).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    model = small("TELL", batch_size=60)
    with pytest.raises(OSError, match="No space left on device; the last one is kept"):
        model.fit(easy[0], checkpoint=half, resume=True)
    assert not hasattr(model, "module_")
    assert (half / FILE).read_bytes() == before
    assert [path.name for path in half.iterdir()] == [FILE]


def test_a_folder_that_cannot_be_written_to_is_told_at_once(easy, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written to"):
        small("TELL").fit(easy[0], checkpoint=tmp_path / "file")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Checkpoint("x", every_epochs=0), ValueError, "every_epochs=0 must be"),
        (lambda: Checkpoint("x", every_seconds=-1), ValueError, "every_seconds=-1 must be"),
        (lambda: Checkpoint("x", every_seconds="5"), ValueError, "every_seconds='5' must be"),
        (lambda: Checkpoint(None), TypeError, "folder=None must be a path"),
        (lambda: TELL(2).fit(np.eye(4), checkpoint=3), TypeError, "checkpoint=3 must be a folder"),
    ],
)
def test_bad_settings(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_checkpoint_is_tensors_and_json(half):
    tensors = load_file(half / FILE)
    assert any(name.startswith("module/") for name in tensors)
    assert any(name.startswith("optimizer.0.") for name in tensors)


SCRIPT = """
import sys, neuralclust
from neuralclust.datasets import make_sphere_clusters
X, _ = make_sphere_clusters(2000, 3, 16, noise=0.3, random_state=0)
model = neuralclust.TELL(3, hidden_layer_sizes=(64,), pretrain_epochs=30, max_epochs=30, random_state=0)
resume = len(sys.argv) > 2
model.fit(X, checkpoint=sys.argv[1] if resume else None, resume=resume).save(sys.argv[1] + "/model")
"""


def test_kill_minus_nine(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(*arguments):
        return subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, arguments)], env=env)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    assert start(whole).wait(120) == 0
    process, kills, seen, deadline = start(killed, "resume"), 0, b"", time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        file = killed / FILE
        now = file.read_bytes() if file.exists() else b""
        if kills < 2 and now != seen:  # an epoch was written: not the first, so that something is in it
            time.sleep(0.05)
            seen = file.read_bytes()
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            process = start(killed, "resume")
        time.sleep(0.01)
    assert process.returncode == 0
    assert kills == 2
    a, b = neuralclust.load(whole / "model"), neuralclust.load(killed / "model")
    assert_same(a, b)
    assert not list(Path(killed).glob(".*.tmp"))


def test_augmentations_of_other_strength_are_another_fit(tmp_path, easy, kill_at):
    def model(share):
        return small("KMeansNet", augment=Chain([FeatureMask(share)]))

    kill_at(15)
    with pytest.raises(Killed):
        model(0.1).fit(easy[0], checkpoint=tmp_path)
    with pytest.raises(ValueError, match="is of a fit with augment="):
        model(0.9).fit(easy[0], checkpoint=tmp_path, resume=True)
    model(0.1).fit(easy[0], checkpoint=tmp_path, resume=True)
