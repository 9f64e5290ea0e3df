"""Runs that have no row yet, one after the other; a row is a line of JSON, written when its run is done."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from neuralclust import __version__
from neuralclust.bench.plan import Run

_CHILD = "import sys; sys.path[:0] = sys.argv[2:]; from neuralclust.bench.runner import child; child(sys.argv[1])"


class Results:
    """Rows of finished runs, in a file of JSON lines.

    Several processes may append to one file; files of several machines may be put together by ``cat``.

    Parameters
    ----------
    path : Path
        The file. It is made with the first row.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from neuralclust.bench import Results
    >>> results = Results(Path(mkdtemp()) / "rows.jsonl")
    >>> results.append({"key": "a", "acc": 0.5})
    >>> results.read()["a"]["acc"]
    0.5
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    def read(self) -> dict[str, dict[str, Any]]:
        """Rows by their keys; of several of one key the last with a result. Lines cut short by a kill are left out."""
        rows: dict[str, dict[str, Any]] = {}
        if not self.path.exists():
            return rows
        for number, line in enumerate(self.path.read_text().splitlines(), start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                if line.startswith('{"key"') or '{"key"'.startswith(line):
                    continue
                raise ValueError(f"{self.path}, line {number} is not a row of results: {line[:60]!r}.") from error
            if not isinstance(row, dict) or "key" not in row:
                raise ValueError(f"{self.path}, line {number} is not a row of results: {line[:60]!r}.")
            key = row["key"]
            if "skipped" not in row or "skipped" in rows.get(key, row):
                rows[key] = row
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """Add a row, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("ab") as file:  # one write, so that processes do not write into each other's lines
            file.write(b"\n" * cut + json.dumps(row).encode() + b"\n")


def run(
    runs: Sequence[Run],
    results: Results,
    *,
    shard: tuple[int, int] = (1, 1),
    minutes: float | None = None,
    retry: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """Make the runs that have no row, each in a process of its own.

    Parameters
    ----------
    runs : sequence of Run
        As :func:`~neuralclust.bench.plan.plan` gives them.
    results : Results
        Where rows are, and go.
    shard : (int, int), default=(1, 1)
        The i-th of n parts, from 1: for n processes or machines.
    minutes : float, optional
        Longest time of a run, in place of the tasks' own.
    retry : bool, default=False
        Make runs that have failed once more.
    say : callable, optional
        Takes lines that tell the progress.

    Returns
    -------
    int
        How many runs were finished.
    """
    part, parts = shard
    if not 1 <= part <= parts:
        raise ValueError(f"shard={part}/{parts} must be i/n with 1 <= i <= n.")
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"minutes={minutes} must be positive.")
    once: dict[str, Run] = {}
    for each in runs:
        if int(each.key, 16) % parts == part - 1 and not each.impossible:
            once.setdefault(each.key, each)
    mine = list(once.values())
    rows = results.read()
    todo = [each for each in mine if _open(each, rows, minutes, retry)]
    say(f"{len(mine) - len(todo)} of {len(mine)} runs have rows; {len(todo)} to go.")
    width, finished = len(str(len(todo))), 0
    for i, each in enumerate(todo):
        rows = results.read()  # others may have been at work
        if not _open(each, rows, minutes, retry):
            continue
        ahead = _estimate(todo[i:], rows)
        say(f"[{i + 1:>{width}}/{len(todo)}] {each.task}, seed {each.seed}{ahead}")
        row = _row(each, rows, minutes)
        results.append(row)
        finished += "skipped" not in row
        say(" " * (2 * width + 4) + summary(row))
    return finished


def summary(row: dict[str, Any]) -> str:
    """A row in a few words."""
    if "skipped" in row:
        return f"skipped: {row['skipped']}"
    found = [f"{name.upper()} {100 * row[name]:.1f}" for name in ("acc", "nmi", "ari") if name in row]
    return ", ".join([*found, f"{row['wall']:.0f} s"])


def _open(each: Run, rows: dict[str, dict[str, Any]], minutes: float | None, retry: bool) -> bool:
    """Whether a run is to be made: it has no row, or only one that says why not, which may hold no longer."""
    row = rows.get(each.key)
    if row is None:
        return True
    if "skipped" not in row:
        return False
    if "minutes" in row:  # it took too long: only with more time, or elsewhere
        return (minutes or each.minutes) > row["minutes"] or row["machine"] != _machine()
    return retry if row.get("failed") else unavailable(each) is None


def unavailable(each: Run) -> str | None:
    """Why a run cannot be made here, if it cannot."""
    if each.gpu:
        import torch

        if not torch.cuda.is_available():
            return "needs a GPU"
    name = each.arguments.get("data")
    if name is None:
        return None
    from neuralclust import datasets

    try:
        datasets.load(name.partition(", ")[0])
    except (OSError, ValueError) as error:
        return f"data set {name!r} is not at hand: {' '.join(str(error).split())}"
    return None


def _row(each: Run, rows: dict[str, dict[str, Any]], minutes: float | None) -> dict[str, Any]:
    """A run's row, or why there is none."""
    known = {
        "key": each.key, "name": each.name, "experiment": each.experiment, "arguments": each.arguments,
        "setting": each.setting, "protocol": each.protocol, "seed": each.seed, "version": __version__,
        "commit": _commit(),
    }  # fmt: skip
    if reason := unavailable(each):
        return {**known, "skipped": reason}
    limit = minutes or each.minutes
    if (longer := _outlasted(each, rows, limit)) is not None:
        skipped = f"seed {longer} took over {rows[replace(each, seed=longer).key]['minutes']:g} minutes, {_machine()}"
        return {**known, "skipped": skipped, "minutes": limit, "machine": _machine()}
    what = [each.experiment, each.arguments, each.seed, os.getpid()]
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, json.dumps(what), str(each.folder)],
            capture_output=True,
            text=True,
            timeout=60 * limit,
        )
    except subprocess.TimeoutExpired:
        machine = _machine()
        return {**known, "skipped": f"over {limit:g} minutes, {machine}", "minutes": limit, "machine": machine}
    if done.returncode < 0:
        reason = f"killed by signal {-done.returncode}" + (", out of memory?" if done.returncode == -9 else "")
        return {**known, "skipped": reason, "failed": True}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        return {**known, "skipped": last, "failed": True}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {**known, **found, "wall": round(time.perf_counter() - begin, 2)}


def _outlasted(each: Run, rows: dict[str, dict[str, Any]], limit: float) -> int | None:
    """An earlier seed for which the limit was not enough on this machine, if none has been finished."""
    earlier = {seed: rows.get(replace(each, seed=seed).key, {}) for seed in range(each.seed)}
    if any("wall" in row for row in earlier.values()):
        return None
    long = (seed for seed, row in earlier.items() if row.get("machine") == _machine() and row["minutes"] >= limit)
    return next(long, None)


def child(text: str) -> None:
    """One run, in this process; its row goes to standard output."""
    name, arguments, seed, parent = json.loads(text)
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    import torch

    from neuralclust.bench import experiments

    found = experiments.find(name)(**arguments, seed=seed)
    about: dict[str, Any] = {"machine": _machine(), "python": platform.python_version(), "torch": torch.__version__}
    with suppress(ImportError):  # not on Windows
        import resource

        about["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    sys.stdout.write(json.dumps({**about, **found}, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """Numbers and arrays of NumPy or torch, which experiments give back at times."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"an experiment gave {value!r} back, which JSON cannot hold. Give back numbers, text and lists.")


def _end_with(parent: int) -> None:
    """A runner that is killed cannot stop its run: the run looks for itself."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@cache
def _machine() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"


@cache
def _commit() -> str | None:
    """Of the sources, if they are under version control."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10"]
    with suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.strip() or None
    return None


def _estimate(todo: Sequence[Run], rows: dict[str, dict[str, Any]]) -> str:
    """Time left, from rows of the same task, or else of the same method."""
    times: dict[str, list[float]] = {}
    for row in rows.values():
        if "wall" in row:
            arguments = row["arguments"]
            for name in (f"{arguments} {row['experiment']}", f"{arguments.get('method')}", ""):
                times.setdefault(name, []).append(row["wall"])
    if not times:
        return ""

    def expected(each: Run) -> float:
        names = (f"{each.arguments} {each.experiment}", f"{each.arguments.get('method')}", "")
        return statistics.median(next(times[name] for name in names if name in times))

    return f"; about {duration(sum(map(expected, todo)))} left"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever suits.

    >>> from neuralclust.bench.runner import duration
    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
