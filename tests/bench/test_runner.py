"""Runs that can be killed, split, timed out, and go on."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from neuralclust import datasets
from neuralclust.bench import Results, plan, run, runner


def test_finished_runs_are_not_made_again(squares, tmp_path):
    runs, results, lines = plan([squares])[1:4], Results(tmp_path / "deep" / "rows.jsonl"), []
    assert run(runs, results, say=lines.append) == 3
    assert lines[0] == "0 of 3 runs have rows; 3 to go."
    assert lines[1].startswith("[1/3] squares / x 1, seed 1")
    assert lines[-2].startswith("[3/3] squares / x 2, seed 1; about ")
    assert lines[-1].strip().startswith("ACC 4.0, ")
    assert {row["acc"] for row in results.read().values()} == {0.01, 0.04}
    assert run(runs, results) == 0
    assert len(results.path.read_text().splitlines()) == 3


def test_a_row_says_what_was_run_and_where(squares, tmp_path):
    (one,) = plan([squares], only="x 3")[:1]
    results = Results(tmp_path / "rows.jsonl")
    run([one], results)
    row = results.read()[one.key]
    assert row["arguments"] == {"x": 3}
    assert row.keys() >= {"machine", "python", "torch", "version", "peak_mib", "wall", "seed", "setting", "protocol"}


def test_a_kill_loses_one_run_at_most(tasks, tmp_path):
    begun = tmp_path / "begun"
    path = tasks(f"""
        [[tasks]]
        experiment = "toy_experiments:square"
        sweep = {{ x = [1] }}
        [[tasks]]
        experiment = "toy_experiments:slow"
        params = {{ path = {str(begun)!r} }}
    """)
    rows = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "neuralclust", "bench", "run", "--tasks", str(path), "--results", str(rows)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(begun.read_text())
    process.kill()
    process.communicate()
    assert len(Results(rows).read()) == 1
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)  # a run ends with its runner
    with rows.open("a") as file:
        file.write('{"key": "cut", "arguments": {"x": 1}')  # as if killed while writing
    results, runs = Results(rows), plan([path])
    assert len(results.read()) == 1
    results.append({"key": runs[1].key, "acc": 1.0})
    assert len(results.read()) == 2
    assert run(runs, results) == 0


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().split(")")[1][:3]


def test_a_run_whose_runner_ends_while_it_starts_ends_too(tasks, tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    begun = tmp_path / "begun"
    what = json.dumps(["toy_experiments:slow", {"path": str(begun)}, 0, int(gone.stdout)])
    child = [sys.executable, "-c", runner._CHILD, what, str(tasks("").parent)]
    assert subprocess.run(child, timeout=50).returncode == 1  # the run itself would take 60 seconds
    assert not begun.exists()


def test_a_run_that_is_killed_says_so(tasks, tmp_path):
    runs = plan([tasks('[[tasks]]\nexperiment = "toy_experiments:suicide"')])
    results = Results(tmp_path / "rows.jsonl")
    run(runs, results)
    assert results.read()[runs[0].key]["skipped"] == "killed by signal 9, out of memory?"


def test_shards_are_disjoint_and_whole(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_row", lambda each, rows, minutes: {"key": each.key, "skipped": "not here"})
    runs = plan([squares])
    for i in (1, 2, 3):
        run(runs, Results(tmp_path / f"{i}.jsonl"), shard=(i, 3))
    together = tmp_path / "all.jsonl"
    together.write_text("".join(p.read_text() for p in tmp_path.glob("[123].jsonl")))
    assert len(together.read_text().splitlines()) == 6
    assert Results(together).read().keys() == {each.key for each in runs}
    with pytest.raises(ValueError, match="shard=4/3 must be i/n"):
        run(runs, Results(together), shard=(4, 3))


def test_processes_share_a_file(tmp_path):
    results = Results(tmp_path / "rows.jsonl")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: results.append({"key": str(i), "text": "x" * 2000}), range(100)))
    assert len(results.read()) == 100


def test_what_takes_too_long_is_tried_again_only_with_more_time(tasks, tmp_path, monkeypatch):
    params = f"params = {{ path = {str(tmp_path / 'begun')!r} }}"
    runs = plan([tasks(f'[[tasks]]\nexperiment = "toy_experiments:slow"\n{params}\nminutes = 0.05')])
    results = Results(tmp_path / "rows.jsonl")
    lines = []
    assert run(runs, results, say=lines.append) == 0
    assert "skipped: over 0.05 minutes, " in lines[-1]
    run(runs, results)
    assert len(results.path.read_text().splitlines()) == 1
    run(runs, results, minutes=0.06)
    assert len(results.path.read_text().splitlines()) == 2
    monkeypatch.setattr(runner, "_machine", lambda: "a faster one")
    run(runs, results)
    assert len(results.path.read_text().splitlines()) == 3
    with pytest.raises(ValueError, match="minutes=-1 must be positive"):
        run(runs, results, minutes=-1)


def test_further_seeds_of_what_took_too_long_are_not_tried(tasks, tmp_path, monkeypatch):
    params = f"params = {{ path = {str(tmp_path / 'begun')!r} }}"
    runs = plan([tasks(f'[[tasks]]\nexperiment = "toy_experiments:slow"\n{params}\nminutes = 0.05\nseeds = 3')])
    results = Results(tmp_path / "rows.jsonl")
    assert run(runs, results) == 0
    rows = results.read()
    assert rows[runs[1].key]["skipped"].startswith("seed 0 took over 0.05 minutes, ")
    assert rows[runs[2].key]["skipped"] == rows[runs[1].key]["skipped"]
    run(runs, results)
    assert len(results.path.read_text().splitlines()) == 3

    made = []
    monkeypatch.setattr(runner, "_outlasted", lambda each, rows, limit: made.append(each.seed))
    run(runs, results, minutes=0.06)  # with more time each is open again
    assert made == [0, 1, 2]


def test_a_seed_is_tried_where_an_earlier_one_was_finished(tasks):
    path = tasks('[[tasks]]\nexperiment = "toy_experiments:square"\nparams = {x = 2}\nseeds = 3')
    first, second, third = plan([path])
    long = {"skipped": "over 5 minutes", "minutes": 5, "machine": runner._machine()}
    assert runner._outlasted(third, {first.key: long}, 5) == 0
    assert runner._outlasted(third, {first.key: long}, 6) is None
    assert runner._outlasted(third, {first.key: {**long, "machine": "a slower one"}}, 5) is None
    assert runner._outlasted(third, {first.key: long, second.key: {"wall": 3.0}}, 5) is None


def test_a_failure_is_a_row_and_tried_again_if_asked(tasks, tmp_path):
    runs = plan([tasks('[[tasks]]\nexperiment = "toy_experiments:broken"')])
    results = Results(tmp_path / "rows.jsonl")
    for retry, rows in ((False, 1), (False, 1), (True, 2)):
        assert run(runs, results, retry=retry) == 0
        assert len(results.path.read_text().splitlines()) == rows
    assert results.read()[runs[0].key]["skipped"] == "ValueError: no luck"


def test_missing_data_is_told_and_tried_again_when_there(tasks, tmp_path, monkeypatch):
    runs = plan([tasks('[[tasks]]\nmethod = "KMeans"\ndata = "digits"')])
    results, load = Results(tmp_path / "rows.jsonl"), datasets.load

    def missing(name):
        raise FileNotFoundError("it is not there")

    monkeypatch.setattr(datasets, "load", missing)
    run(runs, results)
    assert results.read()[runs[0].key]["skipped"] == "data set 'digits' is not at hand: it is not there"
    run(runs, results)
    assert len(results.path.read_text().splitlines()) == 1
    monkeypatch.setattr(datasets, "load", load)
    assert run(runs, results) == 1
    assert results.read()[runs[0].key]["acc"] > 0.7


def test_a_gpu_that_is_not_there_is_told(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    runs = plan([tasks('[[tasks]]\nmethod = "KMeans"\ndata = "digits"\ngpu = true')])
    results = Results(tmp_path / "rows.jsonl")
    run(runs, results)
    assert results.read()[runs[0].key]["skipped"] == "needs a GPU"


def test_what_is_impossible_is_never_tried(tasks, tmp_path):
    runs = plan([tasks('[[tasks]]\nexperiment = "toy_experiments:broken"\nimpossible = "too large"')])
    assert run(runs, Results(tmp_path / "rows.jsonl")) == 0
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    for text in ('{"no": "key"}\n', "{nonsense}\n", "[1]\n"):
        path.write_text(json.dumps({"key": "a"}) + "\n" + text)
        with pytest.raises(ValueError, match=r"rows.jsonl, line 2 is not a row of results"):
            Results(path).read()


def test_numbers_of_numpy_and_torch_are_rows(tasks, tmp_path):
    runs = plan([tasks('[[tasks]]\nexperiment = "toy_experiments:arrays"')])
    results = Results(tmp_path / "rows.jsonl")
    assert run(runs, results) == 1
    row = results.read()[runs[0].key]
    assert (row["acc"], row["each"], row["loss"]) == (0.5, [1, 2], 2.0)


def test_what_is_no_row_is_named(tasks, tmp_path):
    runs = plan([tasks('[[tasks]]\nexperiment = "toy_experiments:nonsense"')])
    results = Results(tmp_path / "rows.jsonl")
    assert run(runs, results) == 0
    assert "which JSON cannot hold. Give back numbers" in results.read()[runs[0].key]["skipped"]
