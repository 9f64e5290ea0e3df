"""What is to be run: TOML files to runs."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any

from neuralclust import __version__

_FIELDS: dict[str, Any] = {
    "name": str, "experiment": str, "data": (str, list), "method": (str, list), "setting": str, "params": dict,
    "sweep": dict, "seeds": int, "protocol": str, "minutes": (int, float), "gpu": bool, "revision": int,
    "impossible": str,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run: an experiment with its arguments and a seed.

    Attributes
    ----------
    experiment : str
        Name of a function of :mod:`neuralclust.bench.experiments`, or ``"module:function"`` of a module beside the TOML
        file.
    arguments : dict
        What it is called with, the seed aside.
    seed : int
    name : str
        Of the task, for pictures and the option ``--only``.
    setting : str
        What is not the method's default, in words.
    protocol : str
        ``"quick"``, for two cores, or ``"paper"``, the published schedule.
    minutes : float
        Longest time that it may take.
    gpu : bool
        Whether it is hopeless without one.
    impossible : str
        Why it cannot be made anywhere, if it cannot; it stays in the tables.
    revision : int
        Raised where the code has changed so much that old rows are void: with the version of the library it is the
        code's part of the key. A row also names its commit.
    folder : Path
        Of the TOML file.
    """

    experiment: str
    arguments: dict[str, Any]
    seed: int
    name: str = ""
    setting: str = ""
    protocol: str = "quick"
    minutes: float = 30.0
    gpu: bool = False
    impossible: str = ""
    revision: int = 1
    folder: Path = field(default=Path(), compare=False)

    @property
    def key(self) -> str:
        """Hash of what decides the result: experiment, arguments, seed, revision and version of the library."""
        parts = [self.experiment, self.arguments, self.seed, self.revision, __version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def task(self) -> str:
        """The run without its seed, in words."""
        parts = [self.name, self.arguments.get("data"), self.arguments.get("method"), self.setting]
        return " / ".join(str(part) for part in parts if part)


def suites() -> list[Path]:
    """The TOML files of the library, in the order in which their runs are made."""
    return [Path(__file__).parent / "suites" / f"{name}.toml" for name in ("quick", "classical", "figures", "paper")]


def plan(files: Iterable[Path] | None = None, *, only: str = "", protocol: str | None = None) -> list[Run]:
    """Runs of the tasks, in their order, seed by seed. Two tasks may share runs, which are then made once.

    Parameters
    ----------
    files : iterable of Path, optional
        TOML files; those of the library if none are given.
    only : str, default=""
        Part of a task's words that a run must have, in capital or small letters.
    protocol : {"quick", "paper"}, optional
        Only the runs of this one.

    Raises
    ------
    ValueError
        If a file is not TOML, or a field is unknown, missing or of a wrong type, or a method, one of its parameters, a
        data set or an experiment is unknown.
        The message names file and task.

    Examples
    --------
    >>> from neuralclust.bench import plan
    >>> runs = plan(only="quick / digits / TELL")
    >>> runs[0].task, runs[0].seed
    ('quick / digits / TELL', 0)
    """
    found: list[Run] = []
    for file in suites() if files is None else files:
        for number, entry in enumerate(_entries(file), start=1):
            try:
                runs = _expand(entry, file.parent)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{file}, task {number}: {error}") from error
            found += runs
    return [run for run in found if only.lower() in run.task.lower() and protocol in (None, run.protocol)]


def _entries(file: Path) -> list[dict[str, Any]]:
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file}: there is no such file.")
    try:
        content = tomllib.loads(Path(file).read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not TOML: {error}") from error
    entries = content.get("tasks")
    if not isinstance(entries, list) or set(content) != {"tasks"} or not all(isinstance(e, dict) for e in entries):
        found = f", not {', '.join(content)}" if content else "; it is empty"
        raise ValueError(f"{file} must consist of [[tasks]] sections{found}.")
    return entries


def _refuse_unknown(axes: Mapping[Any, Any]) -> None:
    """A name that is wrong is told before anything runs, not as a reason to skip each run."""
    from neuralclust import datasets, registry

    for name in axes["method"]:
        registry.find(name)
    known = datasets.names()
    for name in axes["data"]:
        if (data := name.partition(", ")[0]) not in known:
            close = difflib.get_close_matches(data, known, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(f"data={name!r} is not one of {', '.join(known)}.{hint}")


def _refuse_parameters(methods: Iterable[str], names: Iterable[str]) -> None:
    """The same for the parameters of the methods, and those of the experiment."""
    from neuralclust import registry
    from neuralclust.bench import experiments

    of_fit = [p.name for p in signature(experiments.fit).parameters.values() if p.kind is p.KEYWORD_ONLY]
    elsewhere = {
        "data": "a field of the task", "method": "a field of the task", "n_clusters": "that of the data",
        "seed": "counted from 0 by seeds", "random_state": "counted from 0 by seeds",
    }  # fmt: skip
    for name in names:
        if name in elsewhere:
            raise ValueError(f"{name} is {elsewhere[name]}, and no parameter here.")
        for method in methods:
            known = sorted({*of_fit, *registry.make(method, 2).get_params(deep=False)} - elsewhere.keys())
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise ValueError(f"{name!r} is not a parameter of {method}; those are {', '.join(known)}.{hint}")


def _expand(entry: dict[str, Any], folder: Path) -> list[Run]:
    """Every data set with every method with every value of the sweep, seed by seed."""
    for name, value in entry.items():
        if name not in _FIELDS:
            raise ValueError(f"{name!r} is not a field; those are {', '.join(_FIELDS)}.")
        kind = _FIELDS[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name}={value!r} has the wrong type.")
    if entry.get("protocol", "quick") not in ("quick", "paper"):
        raise ValueError(f"protocol={entry['protocol']!r} must be 'quick' or 'paper'.")
    if "experiment" not in entry and not {"data", "method"} <= entry.keys():
        raise ValueError("data and method are needed, or an experiment that needs none.")
    experiment = entry.get("experiment", "fit")
    usual_name = entry.get("protocol", "quick") if experiment == "fit" else experiment.rpartition(":")[2]
    for name in ("seeds", "minutes", "revision"):
        if entry.get(name, 1) <= 0:
            raise ValueError(f"{name}={entry[name]!r} must be positive.")
    axes = {name: entry[name] if isinstance(entry[name], list) else [entry[name]] for name in ("data", "method")
            if name in entry}  # fmt: skip
    for name, values in axes.items():
        if not values or not all(isinstance(value, str) for value in values):
            raise ValueError(f"{name}={entry[name]!r} must be a name or a list of names.")
        if len(set(values)) < len(values):
            raise ValueError(f"{name}={values!r} has a name twice.")
    sweep = entry.get("sweep", {})
    if experiment == "fit":
        _refuse_unknown(axes)
        _refuse_parameters(axes["method"], {**entry.get("params", {}), **sweep})
    elif ":" not in experiment:
        from neuralclust.bench import experiments

        experiments.find(experiment)
    json.dumps([entry.get("params"), sweep])  # a date, say, is no parameter
    for name, values in sweep.items():
        if not isinstance(values, list):
            raise ValueError(f"sweep: {name}={values!r} must be a list of values.")
    axes.update(sweep)
    runs = []
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        swept = [f"{name} {chosen[name]}" for name in sweep]
        for seed in range(entry.get("seeds", 1)):
            runs.append(
                Run(
                    experiment,
                    {**entry.get("params", {}), **chosen},
                    seed,
                    name=entry.get("name", usual_name),
                    setting=", ".join(part for part in (entry.get("setting", ""), *swept) if part),
                    protocol=entry.get("protocol", "quick"),
                    minutes=entry.get("minutes", 30),
                    gpu=entry.get("gpu", False),
                    impossible=entry.get("impossible", ""),
                    revision=entry.get("revision", 1),
                    folder=folder,
                )
            )
    return runs
