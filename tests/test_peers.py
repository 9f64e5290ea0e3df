"""Fits by several processes: the same model in all of them, and that of one process."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import neuralclust
from neuralclust.peers import Peers, find_peers, writes

from . import peers_program
from .peers_program import NEURAL, X, result, small, without_chance

PROGRAM = Path(peers_program.__file__)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(scenario, folder, size=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    done = subprocess.run(
        [*command, str(PROGRAM), scenario, str(folder)], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    return torchrun("methods", tmp_path_factory.mktemp("methods"))


@pytest.fixture(scope="module")
def agreements(tmp_path_factory):
    folder = torchrun("agreements", tmp_path_factory.mktemp("agreements"))
    return folder, [json.loads((folder / f"told-{rank}.json").read_text()) for rank in (0, 1)]


def loaded(folder, name):
    return [dict(np.load(folder / f"{name}-{rank}.npz")) for rank in (0, 1)]


@pytest.mark.parametrize("variant", ["repaired", "paper"])
@pytest.mark.parametrize("name", NEURAL)
def test_two_processes_fit_the_model_of_one(name, variant, by_two):
    first, second = loaded(by_two, f"{name}-{variant}")
    for key, value in first.items():
        np.testing.assert_array_equal(second[key], value, err_msg=key)  # bit for bit
    alone = result(small(name, **without_chance(name, variant)).fit(X))
    np.testing.assert_array_equal(first["labels_"], alone["labels_"])
    np.testing.assert_allclose(first["loss_"], alone["loss_"], rtol=1e-4)
    # eigenvectors of equal eigenvalues have any direction within their space, and the classifier follows
    chance = ("head.embedding", "head.prototypes", "head.transform", "head.classifier") if name == "SSCNet" else ()
    for key, value in alone.items():
        if not key.startswith(chance):
            np.testing.assert_allclose(first[key], value, atol=2e-4 * max(1, np.abs(value).max()), err_msg=key)


@pytest.mark.parametrize("what", ["views", "dataset", "columns", "encoder", "strange", "odd"])
def test_all_processes_have_the_same_model(what, agreements):
    """Whatever is random, and where the user's networks differ to begin with."""
    first, second = loaded(agreements[0], what)
    for key, value in first.items():
        np.testing.assert_array_equal(second[key], value, err_msg=key)
        assert np.isfinite(value).all()


def test_the_first_process_alone_writes(agreements):
    folder, told = agreements
    assert neuralclust.load(folder / "model-0").n_clusters == 3
    assert not (folder / "model-1").exists()
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert all(each["predicts"] for each in told)


def test_a_callback_may_ask_the_model(agreements):
    """In the first process, while the others wait: it is then a model like any other."""
    assert agreements[1][0]["asked"] == [3, 256]


def test_a_stream_is_each_process_s_own(agreements):
    first, second = (told["stream"] for told in agreements[1])
    assert first != second


def test_errors_reach_all_processes(agreements):
    for told in agreements[1]:
        assert "different rows, parameters" in told["rows"]
        assert "different rows, parameters" in told["parameters"]
        assert "or checkpoints" in told["checkpoint"]
        assert "2 processes cannot share a step of 1 rows" in told["batch"]
        assert "encoder" in told["network"]
        assert "that is enough" in told["interrupted"]
        assert "resume=True" in told["unfinished"]
        assert told["resumed"]
        assert "No space left on device" in told["full"]


def test_a_process_that_dies_stops_the_others_and_one_process_goes_on(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {**ENVIRONMENT, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(PROGRAM), "dies", str(tmp_path)]
    first, second = (
        subprocess.Popen(command, env={**group, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    )
    second.communicate(timeout=240)
    start = time.monotonic()
    _, said = first.communicate(timeout=60)
    assert time.monotonic() - start < 60
    assert second.returncode == -9
    assert first.returncode == 1
    assert "Another process of this fit has ended" in said
    assert "resume=True" in said

    model = peers_program.dies(tmp_path, 0)  # by this process alone
    position = neuralclust.checkpoint._read(tmp_path / "checkpoint" / neuralclust.checkpoint.FILE)[0]
    assert [(row["stage"], row["epoch"]) for row in position["history"]] == [
        *(("pretrain", epoch) for epoch in range(3)),
        *(("fit", epoch) for epoch in range(3)),
    ]
    assert position["finished"]
    whole = peers_program.dies(tmp_path / "whole", 0)
    np.testing.assert_allclose(model.cluster_centers_, whole.cluster_centers_, atol=1e-5)
    np.testing.assert_array_equal(model.labels_, whole.labels_)


def test_the_command_line_writes_once(tmp_path):
    np.save(tmp_path / "rows.npy", X)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    fit = ["neuralclust", "fit", str(tmp_path / "rows.npy"), "--method", "AEKMeans", "--n-clusters", "3"]
    fit += ["--encoder", "none", "--out", str(tmp_path / "run"), "--checkpoint", str(tmp_path / "checkpoint")]
    done = subprocess.run([*command, *fit], env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("256 rows in 3 clusters") == 1
    assert neuralclust.load(tmp_path / "run" / "model").labels_.shape == (256,)


@pytest.mark.parametrize(("n", "size"), [(10, 1), (10, 3), (4, 3), (2, 3)])
def test_parts_cover_all_rows(n, size):
    parts = [Peers(rank, size).part(n) for rank in range(size)]
    assert len({len(part) for part in parts}) == 1
    assert torch.cat(parts)[:n].tolist() == list(range(n))
    shares = [number for rank in range(size) for number in Peers(rank, size).shares(range(n))]
    assert sorted(shares) == list(range(n))


def test_alone_nothing_is_sent(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")  # torchrun with one process
    peers = find_peers()
    assert (peers.rank, peers.size, writes()) == (0, 1, True)
    z = torch.ones(4, 2)
    assert peers.own(z) is z
    assert peers.gather(z) is z
    assert peers.first(lambda: 3) == 3
    assert peers.total({"a": 2.0}) == {"a": 2.0}
    with pytest.raises(ValueError, match="no"):
        peers.first(_refuse)


def _refuse():
    raise ValueError("no")
