"""Kills survived, cases tried, memory of a fit on a file larger than it: what docs/reliability.md says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from neuralclust.checkpoint import FILE

ROOT = Path(__file__).parents[1]

FIT = """
import sys, numpy as np
from sklearn.datasets import load_digits
from neuralclust import registry
name, folder, resume = sys.argv[1], sys.argv[2], sys.argv[3] == "resume"
X = load_digits().data[:600]
settings = dict(hidden_layer_sizes=(32,), pretrain_epochs=25, max_epochs=25, random_state=0)
known = registry.resolve(name)().get_params()
model = registry.make(name, 10, **{k: v for k, v in settings.items() if k in known})
model.fit(X, **(dict(checkpoint=folder, resume=True) if resume else {})).save(folder + "/model")
"""


def kills(method: str, n: int, seed: int) -> dict:
    """``kill -9`` at random moments of a fit, n times, and whether its model is that of a fit that was left alone."""
    import numpy as np

    rng = np.random.default_rng(seed)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        whole.mkdir()

        def start(where: Path, how: str) -> subprocess.Popen:
            return subprocess.Popen(
                [sys.executable, "-c", FIT, method, str(where), how], stderr=subprocess.PIPE, start_new_session=True
            )

        process = start(whole, "alone")
        assert process.wait() == 0, process.stderr.read()
        done = in_file = 0
        while done < n:
            process = start(killed, "resume")
            file, new = killed / FILE, killed / f".{FILE}.tmp"
            while not file.exists() and process.poll() is None:  # there is something to lose
                time.sleep(0.01)
            if done % 2:
                time.sleep(float(rng.uniform(0.0, 4.0)))
            else:  # in the middle of writing
                while not new.exists() and process.poll() is None:
                    pass
                in_file += process.poll() is None
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
            elif process.returncode:
                raise RuntimeError(process.stderr.read().decode())
            else:  # it had ended before the blow: from the start
                assert _same(whole, killed)
                for file in killed.rglob("*.*"):
                    file.unlink()
                (killed / "model").rmdir()
        process = start(killed, "resume")
        assert process.wait() == 0, process.stderr.read()
        return {"kills": done, "while_writing": in_file, "same": _same(whole, killed),
                "seconds": time.perf_counter() - begin}  # fmt: skip


def partners(method: str, n: int, seed: int) -> dict:
    """``kill -9`` of one of two processes that share a fit, n times; each time one process or two go on in turn.

    How long the other one took to end, whether it said why, and whether the model is that of one process, undisturbed.
    """
    import socket

    import numpy as np

    import neuralclust

    rng = np.random.default_rng(seed)
    begin, waits, told = time.perf_counter(), [], 0
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        whole.mkdir()

        def start(where: Path, how: str, size: int) -> list[subprocess.Popen]:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                group = {
                    "WORLD_SIZE": str(size),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(probe.getsockname()[1]),
                }
            command = [sys.executable, "-c", FIT, method, str(where), how]
            return [
                subprocess.Popen(
                    command, env={**os.environ, **group, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True
                )
                for rank in range(size)
            ]

        def written() -> int:
            return (killed / FILE).stat().st_mtime_ns if (killed / FILE).exists() else 0

        for process in start(whole, "alone", 1):
            assert process.wait() == 0, process.stderr.read()
        done = 0
        while done < n:
            before, running = written(), start(killed, "resume", 2)
            while written() == before and all(each.poll() is None for each in running):
                time.sleep(0.01)
            time.sleep(float(rng.uniform(0.0, 1.0)))
            struck = running.pop(int(rng.integers(2)))
            (other,) = running
            if struck.poll() is not None or other.poll() is not None:  # they had ended before the blow: from the start
                for each in (struck, other):
                    assert each.wait() == 0, each.stderr.read()
                shutil.rmtree(killed)
                continue
            struck.kill()
            blow = time.perf_counter()
            _, said = other.communicate()
            waits.append(time.perf_counter() - blow)
            told += "Another process of this fit has ended" in said
            done += 1
        for process in start(killed, "resume", 1):
            assert process.wait() == 0, process.stderr.read()
        one, two = (neuralclust.load(where / "model") for where in (whole, killed))
    return {
        "kills": done,
        "longest_s": max(waits),
        "told": told,
        "labels": bool((one.labels_ == two.labels_).all()),
        "centers": float(np.abs(one.cluster_centers_ - two.cluster_centers_).max()),
        "seconds": time.perf_counter() - begin,
    }


def _same(a: Path, b: Path) -> bool:
    names = ("config.json", "model.safetensors")
    return all((a / "model" / name).read_bytes() == (b / "model" / name).read_bytes() for name in names)


def cases(n: int, seed: int) -> dict:
    """The property tests, with n cases each."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_properties.py"],
        cwd=ROOT, env={**os.environ, "NEURALCLUST_CASES": str(n)}, capture_output=True, text=True,
    )  # fmt: skip
    return {"cases": n, "ok": done.returncode == 0, "seconds": time.perf_counter() - begin}


def memory(n: int, seed: int, width: int = 64) -> dict:
    """Fit (one epoch of each stage) and predict on a memory-mapped table: seconds, and the largest resident memory."""
    import numpy as np

    from neuralclust import TELL

    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(10, width))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        rows = np.lib.format.open_memmap(path, "w+", "float32", (n, width))
        for i in range(0, n, 100_000):
            m = min(100_000, n - i)
            rows[i : i + m] = centers[rng.integers(0, 10, m)] + 0.3 * rng.normal(size=(m, width))
        rows.flush()
        del rows
        Path("/proc/self/clear_refs").write_text("5")
        X = np.load(path, mmap_mode="r")
        with _Peak() as peak:
            begin = time.perf_counter()
            model = TELL(10, hidden_layer_sizes=(64, 64), pretrain_epochs=1, max_epochs=1, random_state=seed).fit(X)
            fitted = time.perf_counter()
            labels = model.predict(X)
            seconds = time.perf_counter() - fitted
        assert (labels == model.labels_).all()
    return {
        "fit_s": fitted - begin, "predict_s": seconds, "own_mib": peak.own, "mapped_mib": peak.mapped,
        "file_mib": n * width * 4 / 2**20,
    }  # fmt: skip


def stress(method: str, seed: int) -> dict:
    """Three clear clusters (240 x 16), made hard for arithmetic: agreement of the labels with the classes (ARI)."""
    import numpy as np
    from sklearn.metrics import adjusted_rand_score

    from neuralclust.datasets import make_sphere_clusters

    X, y = make_sphere_clusters(240, 3, 16, noise=0.05, random_state=0)
    X = X.astype(np.float64)
    outlier = X.copy()
    outlier[7] *= 1e6
    inputs = {
        "as it is": X, "times 1e-30": 1e-30 * X, "times 1e30": 1e30 * X, "plus 1e6": X + 1e6,
        "one row times 1e6": outlier, "float16": X.astype(np.float16), "all rows equal": np.ones_like(X),
    }  # fmt: skip
    begin, found = time.perf_counter(), {}
    for name, rows in inputs.items():
        model = _small(method, 3, seed).fit(rows)
        q = model.predict_proba(rows)
        assert np.isfinite(q).all()
        assert (model.predict(rows) == model.labels_).all()
        found[name] = adjusted_rand_score(y, model.labels_)
    for k in (1, 40):
        assert set(_small(method, k, seed).fit(X[:40]).labels_) <= set(range(k))
    return {"agreement": found, "seconds": time.perf_counter() - begin}


def threads(method: str, seed: int) -> dict:
    """The same fit on one thread and on two: labels, and the largest difference of a code."""
    import numpy as np
    import torch

    from neuralclust.datasets import make_sphere_clusters

    X, _ = make_sphere_clusters(240, 3, 16, noise=0.05, random_state=0)
    begin, before, models = time.perf_counter(), torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        models.append(_small(method, 3, seed).fit(X))
    torch.set_num_threads(before)
    one, two = models
    return {
        "labels": bool((one.labels_ == two.labels_).all()),
        "codes": float(np.abs(one.transform(X) - two.transform(X)).max()),
        "seconds": time.perf_counter() - begin,
    }


def _small(method: str, n_clusters: int, seed: int):
    from neuralclust import registry

    settings = {"hidden_layer_sizes": (32,), "pretrain_epochs": 10, "max_epochs": 10, "random_state": seed}
    known = registry.resolve(method)().get_params()
    return registry.make(method, n_clusters, **{k: v for k, v in settings.items() if k in known})


PROCESSES = """
import json, os, sys, time
import numpy as np, torch
from neuralclust import TELL
n, threads = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
X = np.random.default_rng(0).random((n, 784), dtype=np.float32)
settings = dict(pretrain_epochs=0, max_epochs=1, batch_size=1024, precision="float32", random_state=0)
TELL(10, init="random", **settings).fit(X[:2048])
begin = time.perf_counter()
model = TELL(10, init="random", **{**settings, "max_epochs": 3}).fit(X)
if os.environ.get("RANK", "0") == "0":
    print(json.dumps({"fit_s": time.perf_counter() - begin, "centers": model.cluster_centers_.tolist()}))
"""


def processes(size: int, threads: int, seed: int, n: int = 20_000) -> dict:
    """Three epochs of joint training, 784-500-500-2000-10 in float32, by so many processes of so many threads each."""
    import json

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "fit.py"
        program.write_text(PROCESSES)
        done = subprocess.run(
            [*command, str(program), str(n), str(threads)], capture_output=True, text=True, check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
    row = json.loads(done.stdout.strip().splitlines()[-1])
    return {"fit_s": row["fit_s"], "checksum": sum(map(sum, row["centers"])), "seconds": row["fit_s"]}


TABLE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
folder, files, n, width, seed = sys.argv[1], *map(int, sys.argv[2:])
rng = np.random.default_rng(seed)
for number in range(files):
    rows = rng.random((n // files, width), dtype=np.float32)
    columns = pa.table({f"x{j}": rows[:, j] for j in range(width)})
    pq.write_table(columns, f"{folder}/{number:03}.parquet", row_group_size=100_000)
"""


def parquet(n: int, seed: int, width: int = 64, files: int = 20) -> dict:
    """A folder of Parquet files, copied by open_rows: seconds, and the largest resident memory of the process."""
    from neuralclust import open_rows

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table"
        table.mkdir()
        numbers = [str(number) for number in (files, n, width, seed)]
        subprocess.run([sys.executable, "-c", TABLE, str(table), *numbers], check=True)
        with _Peak() as peak:
            begin = time.perf_counter()
            opened = open_rows(table)
            seconds = time.perf_counter() - begin
        assert opened.shape == (n // files * files, width)
    return {"copy_s": seconds, "own_mib": peak.own, "file_mib": n * width * 4 / 2**20, "seconds": seconds}


class _Peak:
    """Largest resident memory: the process's own pages, and those of mapped files, which the system may take back."""

    own = mapped = 0.0

    def __enter__(self) -> _Peak:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            status = Path("/proc/self/status").read_text()
            own, mapped = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024 for name in ("RssAnon", "RssFile"))
            self.own, self.mapped = max(self.own, own), max(self.mapped, mapped)
