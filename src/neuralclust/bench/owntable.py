"""Rows of tasks of one's own: no papers, no prose about them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from statistics import mean

from neuralclust.bench.groups import Group, Row, groups
from neuralclust.bench.pages import Block, Grid, Heading, Picture
from neuralclust.bench.plan import Run
from neuralclust.bench.table import COLUMNS, by_data, missing

_ABOUT = ("seed", "torch", "python", "machine", "version", "commit", "key")  # of a run, not of its result


def own_document(runs: Sequence[Run], rows: dict[str, Row], pictures: Sequence[Picture] = ()) -> list[Block]:
    """A report of the tasks of a file.

    Parameters
    ----------
    runs : sequence of Run
        The plan: also what has not been run appears.
    rows : dict of str to dict
        As :meth:`Results.read` gives them.
    pictures : sequence of Picture, optional
        What ``plot`` has drawn.

    Returns
    -------
    list
        Headings, paragraphs and grids, for :func:`markdown` or :func:`page`.
    """
    found = groups(runs, rows)
    blocks: list[Block] = [
        Heading(1, "Results"),
        f"{sum(run.key in rows and 'skipped' not in rows[run.key] for run in runs)} of {len(runs)} runs have a result. "
        f"Percent, mean ± standard deviation over seeds, labels of the last epoch. {COLUMNS}",
    ]
    clusterings = [g for g in found if g.run.experiment == "fit" and g.rows]
    for data in dict.fromkeys(g.run.arguments["data"] for g in clusterings):
        blocks += [Heading(2, data), by_data([g for g in clusterings if g.run.arguments["data"] == data])]
    if others := [g for g in found if g.run.experiment != "fit" and g.rows]:
        blocks += [
            Heading(2, "Experiments"),
            "Means of the numbers in the rows.",
            Grid(["task", "seeds", "found"], [[g.run.task, g.seeds, _numbers(g)] for g in others]),
        ]
    blocks += [Heading(2, "Figures"), *pictures] if pictures else []
    return blocks + missing(found)


def _numbers(g: Group) -> str:
    names = [name for name, value in g.rows[0].items() if isinstance(value, Real) and name not in _ABOUT]
    each = {name: [row[name] for row in g.rows if isinstance(row.get(name), Real)] for name in names}
    return ", ".join(f"{name} {mean(values):.4g}" for name, values in each.items())
