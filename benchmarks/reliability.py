"""Kills survived, cases tried, memory of a fit on a file larger than it: what docs/reliability.md says."""

from __future__ import annotations

import os
import re
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
