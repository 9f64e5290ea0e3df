"""Benchmarks as data: what to run is in TOML files, what came out in JSON lines, tables and pictures are made of both.

A task names a data set, a method, its parameters and seeds; :func:`plan` spells it out as runs, :func:`run` makes
those that have no row yet, each in a process of its own, and :func:`~neuralclust.bench.table.document` writes the rows
beside the numbers that the papers print. Labels are read by the scorer alone, after the fit.
"""

from neuralclust.bench.plan import Run, plan, suites
from neuralclust.bench.runner import Results, run

__all__ = ["Results", "Run", "plan", "run", "suites"]
