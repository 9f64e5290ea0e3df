"""The published numbers, and ours beside them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from neuralclust import registry
from neuralclust.bench.groups import SCORES, TABLES, Group, Row, by_loss, cell, machines, mean_time
from neuralclust.bench.pages import Block, Grid, Heading
from neuralclust.datasets._catalog import CATALOG

PAPERS = {
    "kmeansnet": ("KMeansNet", "k-meansNet: When k-means Meets Differentiable Programming"),
    "tell": ("TELL", "XAI Beyond Classification: Interpretable Neural Clustering"),
    "dcsai": ("DCSAI", "Deep Clustering With Sample-Assignment Invariance Prior"),
    "sscnet": ("SSCNet", "SSCNet: learning-based subspace clustering"),
    "ncsc": ("NCSC", "Neural Collaborative Subspace Clustering"),
}
MORE_SCORES = ("precision", "ami", "homogeneity", "completeness", "v_measure")  # where a paper prints them
# Where a paper's data set cannot be had or is too large, the part of it that stands in.
STAND_INS = {"cifar10": "cifar10_test", "cifar100_s1": "cifar100_aquatic_mammals"}
ELSEWHERE = {  # what is best told by a picture
    ("kmeansnet", "Figure 3"): "on the digits: Sweeps, alpha", ("dcsai", "Figure 4"): "on the digits: Sweeps, noise",
    ("dcsai", "Figure 1"): "on the digits: the picture of invariance",
}  # fmt: skip
FOLDER = Path(__file__).parent / "published"


def published(paper: str) -> list[dict[str, str]]:
    """Lines of the tables of a paper, as printed.

    Parameters
    ----------
    paper : {"kmeansnet", "tell", "dcsai", "sscnet", "ncsc"}

    Returns
    -------
    list of dict
        ``table``, ``data``, ``method``, ``setting`` and the scores in percent, empty where none is printed.

    Examples
    --------
    >>> from neuralclust.bench.papers import published
    >>> published("ncsc")[0]["data"]
    'mnist'
    """
    with (FOLDER / f"{paper}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Counterpart(NamedTuple):
    """Of a printed line what ours is: data set, name of the task, method, setting; and how it differs."""

    data: str
    task: str
    method: str
    setting: str
    note: str


def counterparts(paper: str) -> dict[tuple[str, str, str], Counterpart]:
    """Of the printed lines about one parameter, by table, method and setting, what ours are.

    Examples
    --------
    >>> from neuralclust.bench.papers import counterparts
    >>> counterparts("tell")["4", "TELL", "FCN, TwoStage"].setting
    'end_to_end False'
    """
    with (FOLDER / "counterparts.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["paper"] == paper]
    ours = [Counterpart(**{name: line[f"our_{name}"] for name in Counterpart._fields}) for line in lines]
    return {(line["table"], line["method"], line["setting"]): our for line, our in zip(lines, ours, strict=True)}


def main_table(paper: str, data: str) -> str | None:
    """The first with a paper's own method on a data set: the others are about a part of it."""
    lines = published(paper)
    return next((line["table"] for line in lines if (line["data"], line["method"]) == (data, PAPERS[paper][0])), None)


def known(found: Iterable[Group]) -> dict[tuple[str, ...], Group]:
    """Groups by data set, name of the task, method and setting."""
    return {(g.run.arguments["data"], g.run.name, g.method, g.setting): g for g in found}


def by_paper(paper: str, found: list[Group]) -> list[Block]:
    """Each table of a paper; one over many data sets, with ACC alone, as a matrix."""
    tables: dict[str, list[dict[str, str]]] = {}
    for line in published(paper):
        tables.setdefault(line["table"], []).append(line)
    fits = [g for g in found if g.run.experiment == "fit" and g.run.name in TABLES]
    groups, others = known(found), counterparts(paper)
    blocks: list[Block] = []
    for number, lines in tables.items():
        name = number if number[0].islower() or number.startswith("Figure") else f"Table {number}"
        data = list(dict.fromkeys(line["data"] for line in lines))
        if len(data) > 5:
            ours = f", ours: {STAND_INS['cifar100_s1']} (s1) alone"
            blocks += [Heading(3, f"{name}, superclasses of CIFAR-100, ACC{ours}"), _matrix(lines, data, fits, paper)]
            continue
        mine = {(m, s): (groups[o[:4]], o.note) for (t, m, s), o in others.items() if t == number and o[:4] in groups}
        for each in data:
            here = [line for line in lines if line["data"] == each]
            grid = _beside(here, each, fits, paper, main_table(paper, each) == number, mine)
            blocks += [Heading(3, f"{name[0].upper()}{name[1:]}, {each}"), grid]
    return blocks


def _beside(
    lines: list[dict[str, str]],
    data: str,
    fits: list[Group],
    paper: str,
    main: bool,
    others: dict[tuple[str, str], tuple[Group, str]],
) -> Grid:
    """The printed lines and ours that belong to them; in a paper's main table also all else of the proposed method."""
    proposed = PAPERS[paper][0]
    here = [g for g in fits if g.run.arguments["data"] in (data, STAND_INS.get(data))]
    names = [*SCORES, *(s for s in MORE_SCORES if any(line[s] for line in lines))]
    grid: list[list[str]] = []
    used: set[int] = set()
    for line in lines:
        printed = " / ".join(line[s] or "-" for s in names) if any(line[s] for s in names) else ""
        first = [line["method"], line["setting"], printed]
        ours = [g for g in here if g.method == line["method"] and matches(g, line["setting"], proposed)]
        ours = [g for g in ours if g.rows] or ours[:1]
        used.update(map(id, ours))
        other, note = others.get((line["method"], line["setting"]), (None, ""))
        if other and not any(g.rows for g in ours):
            grid.append([*first, *_ours(other, data, names, note, *(f"as printed: {g.reason}" for g in ours))])
        elif not ours:
            grid.append([*first, "", "", "", "", "", _why_not(line, proposed, ELSEWHERE.get((paper, line["table"])))])
        for i, g in enumerate(ours if any(g.rows for g in ours) or not other else ()):
            setting = line["setting"] if i == 0 or not g.setting else g.setting
            if i == 0 and g.setting not in line["setting"]:
                setting = ", ".join(part for part in (line["setting"], g.setting) if part)
            grid.append([line["method"], setting, "" if i else printed, *_ours(g, data, names)])
    more = [g for g in here if main and g.method == proposed and id(g) not in used and g.rows]
    grid += [[proposed, g.setting, "", *_ours(g, data, names)] for g in more]
    columns = " / ".join(name.upper() if len(name) < 4 else name.replace("_", "-") for name in names)
    return Grid(
        ["method", "setting", f"published {columns}", "ours", "by loss", "seeds", "time", "machine", "remark"], grid
    )


def matches(g: Group, setting: str, proposed: str) -> bool:
    """Whether a group is what a printed line is about.

    Of the proposed method, the published schedule of the published variant; of the others what they do by default.
    """
    if g.method == proposed:
        return g.run.protocol == "paper" and setting.removesuffix(", from P1") == g.setting
    if g.method == "AEKMeans" and setting in ("", "FCN"):
        return g.setting == "" or (
            g.setting == f"codes of {proposed}" and proposed != "SSCNet"
        )  # whose codes are sparse
    return g.setting == setting


def _ours(g: Group, data: str, names: Sequence[str], *notes: str) -> list[str]:
    if not g.rows:
        return ["", "", "", "", "", g.reason]
    own = g.run.arguments["data"]
    ours = " / ".join(_cell_of(g.rows, s) for s in names)
    remark = "; ".join(part for part in (g.run.protocol, *notes) if part)
    return [f"{own}: {ours}" if own != data else ours, by_loss(g), g.seeds, mean_time(g), machines(g), remark]


def _cell_of(rows: list[Row], score: str) -> str:
    """Rows of earlier code have fewer scores: then how many have this one."""
    values = [row[score] for row in rows if score in row]
    return (cell(values) or "-") + (f" ({len(values)})" if 0 < len(values) < len(rows) else "")


def _why_not(line: dict[str, str], proposed: str, elsewhere: str | None) -> str:
    if line["method"] not in registry.ALL:
        return "not in the library"
    if elsewhere:
        return elsewhere
    spec = CATALOG.get(line["data"])
    if spec and not (spec.files or spec.parent):
        return "the data cannot be downloaded"
    return "not planned" + " at the published schedule" * (line["method"] == proposed)


def _matrix(lines: list[dict[str, str]], data: list[str], fits: list[Group], paper: str) -> Grid:
    """ACC, a column a data set: printed, and below each method ours where there is one."""
    proposed = PAPERS[paper][0]
    grid: list[list[str]] = []
    for method, setting in dict.fromkeys((line["method"], line["setting"]) for line in lines):
        printed = {
            line["data"]: line["acc"] for line in lines if (line["method"], line["setting"]) == (method, setting)
        }
        grid.append([method, "published", *(printed.get(each, "") for each in data)])
        ours: dict[str, str] = {}
        for g in fits:
            same = g.setting == "" if method == proposed else matches(g, setting, proposed)
            for each in data:
                if g.method == method and g.rows and same and g.run.arguments["data"] in (each, STAND_INS.get(each)):
                    ours.setdefault(each, cell(row["acc"] for row in g.rows))
        if ours:
            grid.append([method, "ours", *(ours.get(each, "") for each in data)])
    return Grid(["method", "", *(each.removeprefix("cifar100_") for each in data)], grid)
