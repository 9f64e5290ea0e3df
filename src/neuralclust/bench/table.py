"""Rows beside the published numbers: functions of rows and tasks alone."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from neuralclust import registry
from neuralclust.bench.pages import Block, Grid, Heading, Picture
from neuralclust.bench.plan import Run
from neuralclust.bench.runner import duration
from neuralclust.datasets._catalog import CATALOG

PAPERS = {
    "kmeansnet": ("KMeansNet", "k-meansNet: When k-means Meets Differentiable Programming"),
    "tell": ("TELL", "XAI Beyond Classification: Interpretable Neural Clustering"),
    "dcsai": ("DCSAI", "Deep Clustering With Sample-Assignment Invariance Prior"),
    "sscnet": ("SSCNet", "SSCNet: learning-based subspace clustering"),
    "ncsc": ("NCSC", "Neural Collaborative Subspace Clustering"),
}
SCORES = ("acc", "nmi", "ari")
MORE_SCORES = ("precision", "ami", "homogeneity", "completeness", "v_measure")  # where a paper prints them
# Where a paper's data set cannot be had or is too large, the part of it that stands in.
STAND_INS = {"cifar10": "cifar10_test", "cifar100_s1": "cifar100_aquatic_mammals"}
TABLES = ("quick", "classical", "paper")  # names of tasks that are not about one parameter
DEFAULTS = ("", "HOMO")  # settings that are a method's own: HOMO is DCSAI's metric
SHORTER = ("40 + 12 epochs", "5 epochs", "10,000 rows")  # where a method's own take too long, the first there is
ELSEWHERE = {  # where tables and figures about one parameter are
    ("kmeansnet", "4"): "on the digits: Sweeps, start", ("kmeansnet", "5"): "on the digits: Sweeps, optimiser",
    ("kmeansnet", "Figure 3"): "on the digits: Sweeps, alpha", ("tell", "4"): "on the digits: Sweeps, two-stage",
    ("tell", "5"): "see Sweeps, online", ("tell", "6"): "on the digits: Sweeps, optimiser",
    ("dcsai", "VI"): "on mnist_test: Table III, mnist_test", ("dcsai", "Figure 4"): "on the digits: Sweeps, noise",
    ("sscnet", "Figure 3"): "on USPS: the picture of blocks",
}  # fmt: skip
Row = dict[str, Any]


class Group(NamedTuple):
    """The runs of one task over its seeds, and why some have no result."""

    run: Run
    method: str
    setting: str
    rows: list[Row]
    planned: int
    reason: str
    derived: bool = False  # from the rows of another group

    @property
    def seeds(self) -> str:
        """How many, and of how many if some are missing; marked if some are of earlier code."""
        mark = "†" if any("commit" not in row for row in self.rows) else ""
        return str(len(self.rows)) + (f" of {self.planned}" if len(self.rows) < self.planned else "") + mark


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
    >>> from neuralclust.bench.table import published
    >>> published("ncsc")[0]["data"]
    'mnist'
    """
    with (Path(__file__).parent / "published" / f"{paper}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def groups(runs: Sequence[Run], rows: dict[str, Row]) -> list[Group]:
    """Runs of the same task together; k-means on a method's own autoencoder, and DCSAI's other assignment, are groups
    of their own."""
    tasks: dict[str, list[Run]] = {}
    for run in runs:
        tasks.setdefault(run.task, []).append(run)
    found = []
    for members in tasks.values():
        run = members[0]
        mine = [rows[each.key] for each in members if each.key in rows]
        done = [row for row in mine if "skipped" not in row]
        reason = next((row["skipped"] for row in mine if "skipped" in row), run.impossible or _not_yet(run))
        method = run.arguments.get("method", "")
        found.append(Group(run, method, run.setting, done, len(members), reason))
        if len(started := [row for row in done if "kmeans" in row]):
            of = f"codes of {method}" + (f", {run.setting}" if run.setting else "")
            found.append(Group(run, "AEKMeans", of, _parts(started, "kmeans"), len(members), "", True))
        if "metric" in run.arguments and (second := _parts(done, "p2")):
            found.append(Group(run, method, f"{run.setting}, from P2", second, len(members), "", True))
    return found


def _parts(rows: Sequence[Row], name: str) -> list[Row]:
    """Other scores that came with rows, as rows."""
    kept = ("seed", "machine", "commit")
    return [{**{key: row[key] for key in kept if key in row}, **row[name]} for row in rows if name in row]


def _not_yet(run: Run) -> str:
    return "needs a GPU" if run.gpu else "not run yet"


def document(runs: Sequence[Run], rows: dict[str, Row], pictures: Sequence[Picture] = ()) -> list[Block]:
    """The whole report: an overview, every data set, every table of the papers.

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
    scored = [g for g in found if "data" in g.run.arguments]
    fits = [g for g in scored if g.run.experiment == "fit"]
    machines = sorted({row["machine"] for g in scored for row in g.rows if "machine" in row})
    early = sum("commit" not in rows[key] for key in {r.key for r in runs} & rows.keys() if "skipped" not in rows[key])
    quick = [run for run in runs if run.protocol == "quick" and not run.impossible]
    done = sum("skipped" not in rows.get(run.key, {"skipped": ""}) for run in quick)
    slow = [run for run in runs if run.protocol == "paper"]
    blocks: list[Block] = [
        Heading(1, "Results"),
        "Made by `neuralclust bench table` from the rows of `neuralclust bench run`; nothing here is typed by hand. "
        f"{done} of {len(quick)} runs of the quick protocol have been made, and "
        f"{sum(run.key in rows for run in slow)} of {len(slow)} of the published schedules.",
        Heading(2, "How to read this"),
        "Percent, mean ± standard deviation over seeds, labels of the last epoch. "
        "**Quick** is what the library does when it is asked for nothing else: the repaired variant of each method, "
        "which differs from the printed one as its docstring says, trained for minutes on two cores. **Paper** is the "
        "printed variant at the published schedule, hours on a GPU. So a quick row beside a published number compares "
        "what a user gets with what the paper reports, not two runs of one program. The papers also choose: TELL's "
        "number is the best of five runs by loss, ours are means; baselines were tuned for each data set and the best "
        "is printed, ours run at defaults, on vectors of unit range. No paper's method sees augmented rows; the rows "
        "named augmented do. SSCNet prints a geometric NMI, all of ours are arithmetic; NCSC's baselines that need an "
        "n x n matrix saw 10,000 rows. CIFAR-10 is its 10,000 test images here, and CIFAR-100's first superclass the "
        "aquatic mammals.",
        "**Settings**: hard targets, each code drawn to its nearest centre as printed, where the default balances the "
        "clusters; blocks, the iterations of SSCNet's encoder; 40 + 12 epochs, of pretraining and of joint training; "
        "10,000 rows, drawn at random; without a network, the features as they are; codes of X, k-means on the codes "
        "of the autoencoder that X starts from; HOMO, HOE, HOT, HIT, DCSAI with Euclidean distances on one side and on "
        "the other Euclidean ones, cosines, correlations, city blocks; from P2, by the assignment of the other side. "
        "GaussianMixture sees float64: in float32 its covariances are often not positive definite.",
        f"Machines: {', '.join(machines) or 'none yet'}. Times were often taken beside other work."
        + (f" † marks rows of earlier states of the code ({early} in all)." if early else ""),
        Heading(2, "Overview"),
        "ACC at default settings, raw rows, no augmentation; KMeans with 10 restarts. AEKMeans: k-means on the codes "
        "of an autoencoder, its own or, in brackets, TELL's. In brackets also the number of seeds, where it is 1 or 2 "
        "and chance plays a part. An asterisk: with fewer epochs or rows, which the data set's own table names.",
        overview(fits),
        Heading(2, "Data set by data set"),
        "Best: ACC of the run with the smallest loss, which `n_init` would keep. Gain: over k-means on the codes of "
        "the very autoencoder that the method starts from. Better: in how many seeds it beats the method of the "
        "highest mean (of those with three seeds or more, or without chance). Both with the p-value of a paired "
        "t-test, not corrected for the number of tests or for the choice of the best.",
    ]
    for data in dict.fromkeys(g.run.arguments["data"] for g in fits if g.rows):
        here = [g for g in fits if g.run.arguments["data"] == data and g.run.name in TABLES]
        blocks += [Heading(3, data), by_data(here)]
    blocks += [
        Heading(2, "Choosing a run without labels"),
        "ACC of the run with the smallest loss, of the run whose codes have the largest silhouette, and of the best, "
        "which nobody knows; where three runs or more have all of these.",
        choices([g for g in fits if g.run.name in TABLES]),
    ]
    for paper, (method, title) in PAPERS.items():
        blocks += [Heading(2, title), *by_paper(paper, method, [g for g in fits if g.run.name in TABLES])]
    blocks += [Heading(2, "Figures"), *pictures] if pictures else []
    blocks += [Heading(2, "Sweeps"), *sweeps(scored)]
    return blocks + missing(found)


def missing(found: Sequence[Group]) -> list[Block]:
    """Tasks that have not all their rows, and why."""
    wanting = [g for g in found if len(g.rows) < g.planned and not g.derived]
    lines: dict[tuple[str, ...], list[str]] = {}
    for g in wanting:
        of = " / ".join(part for part in (g.run.name, g.run.arguments.get("data")) if part)
        what = ", ".join(part for part in (g.method, g.setting) if part)
        lines.setdefault((of, g.seeds.removesuffix("†"), g.reason), []).append(what)
    return [
        Heading(2, "What is missing"),
        f"{sum(g.planned - len(g.rows) for g in wanting)} runs of {len(wanting)} tasks.",
        Grid(["tasks", "seeds", "why", "what"], [[*key, "; ".join(whats)] for key, whats in lines.items()]),
    ]


def cell(values: Iterable[float]) -> str:
    """Shares as percent: mean and, of several, standard deviation.

    >>> from neuralclust.bench.table import cell
    >>> cell([0.5, 0.52]), cell([0.5])
    ('51.0 ± 1.4', '50.0')
    """
    values = [100 * value for value in values]
    if not values:
        return ""
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def overview(fits: list[Group]) -> Grid:
    """Methods against data sets."""
    plain = [g for g in fits if g.rows and g.run.protocol == "quick" and g.run.name in TABLES]
    data = list(dict.fromkeys(g.run.arguments["data"] for g in plain))
    best: dict[tuple[str, str], str] = {}
    for setting in (*DEFAULTS, "codes of TELL", *SHORTER):
        for g in (g for g in plain if g.setting == setting):
            text = cell(row["acc"] for row in g.rows) + "*" * (setting in SHORTER) + few(g)
            best.setdefault((g.method, g.run.arguments["data"]), f"({text})" if g.derived else text)
    methods = [name for name in registry.ALL if any((name, d) in best for d in data)]
    return Grid(["method", *data], [[name, *(best.get((name, d), "") for d in data)] for name in methods])


def few(g: Group) -> str:
    """The number of seeds, where there are fewer than three and chance plays a part."""
    return f" ({len(g.rows)})" if len(g.rows) < 3 and _has_chance(g.method) else ""


def by_data(members: list[Group]) -> Grid:
    """Everything about one data set, the best first."""
    members = sorted((g for g in members if g.rows), key=lambda g: -mean(row["acc"] for row in g.rows))
    first = next((g for g in members if not few(g)), None)
    lines: list[list[str]] = []
    seen: list[list[Row]] = []
    for g in members:
        if g.derived:  # methods that start from the same autoencoder have the same codes
            scored = [{name: row[name] for name in ("seed", *SCORES)} for row in g.rows]
            if scored in seen:
                continue
            seen.append(scored)
        wins, p = compare(g, first) if first and g is not first else ("", "")
        gain, gain_p = _gain(g)
        finite = [row for row in g.rows if math.isfinite(row.get("loss") or math.nan)]
        smallest = min(finite, key=lambda row: row["loss"], default=None)
        machines = {row["machine"] for row in g.rows if "machine" in row}
        lines.append(
            [
                g.method, g.setting, g.run.protocol, g.seeds, *(cell(row[s] for row in g.rows) for s in SCORES),
                f"{100 * smallest['acc']:.1f}" if smallest and len(g.rows) > 1 else "",
                _time(g), ", ".join(sorted(machines)), gain, gain_p, wins, p,
            ]
        )  # fmt: skip
    names = [
        "method", "setting", "protocol", "seeds", "ACC", "NMI", "ARI", "best", "time", "machine",
        "gain", "p", "better", "p",
    ]  # fmt: skip
    return Grid(names, lines)


def choices(fits: list[Group]) -> Grid:
    """How well the loss, and the silhouette of the codes, find a good run."""
    lines, gains = [], []
    for g in fits:
        known = [row for row in g.rows if math.isfinite(row.get("loss") or math.nan) and "silhouette" in row]
        if len(known) < 3:
            continue
        by_loss = min(known, key=lambda row: row["loss"])["acc"]
        by_silhouette = max(known, key=lambda row: row["silhouette"])["acc"]
        middle, top = mean(row["acc"] for row in known), max(row["acc"] for row in known)
        gains.append((by_loss - middle, by_silhouette - middle, top - middle))
        picked = (cell([acc]) for acc in (by_loss, by_silhouette, top))
        data = g.run.arguments["data"]
        lines.append([data, g.method, g.setting, str(len(known)), cell(row["acc"] for row in known), *picked])
    if gains:
        lines.append(["mean gain", "", "", "", "", *(f"{100 * mean(each):+.1f}" for each in zip(*gains, strict=True))])
    return Grid(["data", "method", "setting", "seeds", "ACC", "by loss", "by silhouette", "best"], lines)


def compare(ours: Group, best: Group) -> tuple[str, str]:
    """Seeds in which `ours` is better, and the p-value of a paired t-test; empty with fewer than three pairs."""
    a, b = ({row["seed"]: row["acc"] for row in g.rows} for g in (ours, best))
    if not _has_chance(ours.method):
        a = dict.fromkeys(b, *a.values())
    if not _has_chance(best.method):
        b = dict.fromkeys(a, *b.values())
    seeds = sorted(a.keys() & b.keys())
    if len(seeds) < 3:
        return "", ""
    pairs = [[a[s], b[s]] for s in seeds]
    wins = sum(x > y for x, y in pairs)
    return f"{wins} of {len(seeds)}", _paired(pairs)


def _gain(g: Group) -> tuple[str, str]:
    """Over k-means on the codes of the same autoencoders, in points, and the p-value of a paired t-test."""
    pairs = [[row["acc"], row["kmeans"]["acc"]] for row in g.rows if "kmeans" in row]
    if not pairs:
        return "", ""
    return f"{100 * mean(x - y for x, y in pairs):+.1f}", _paired(pairs) if len(pairs) > 2 else ""


def _paired(pairs: list[list[float]]) -> str:
    from scipy.stats import ttest_rel

    if len({round(x - y, 12) for x, y in pairs}) == 1:  # no spread, no test
        return ""
    p = ttest_rel(*zip(*pairs, strict=True)).pvalue
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


@cache
def _has_chance(method: str) -> bool:
    return "random_state" in registry.make(method, 2).get_params()


def _time(g: Group) -> str:
    seconds = [row["seconds"] for row in g.rows if "seconds" in row]
    return duration(mean(seconds)) if seconds else ""


def by_paper(paper: str, proposed: str, fits: list[Group]) -> list[Block]:
    """Each table of a paper; one over many data sets, with ACC alone, as a matrix."""
    tables: dict[str, list[dict[str, str]]] = {}
    for line in published(paper):
        tables.setdefault(line["table"], []).append(line)
    blocks: list[Block] = []
    for number, lines in tables.items():
        name = number if number[0].islower() or number.startswith("Figure") else f"Table {number}"
        data = list(dict.fromkeys(line["data"] for line in lines))
        if len(data) > 5:
            blocks += [Heading(3, f"{name}, ACC"), _matrix(lines, data, fits, proposed)]
            continue
        for each in data:
            mine = [line for line in lines if line["data"] == each]
            main = number == next(line["table"] for line in published(paper) if line["data"] == each)
            grid = _beside(mine, each, fits, proposed, main, ELSEWHERE.get((paper, number)))
            blocks += [Heading(3, f"{name[0].upper()}{name[1:]}, {each}"), grid]
    return blocks


def _beside(
    lines: list[dict[str, str]], data: str, fits: list[Group], proposed: str, main: bool, elsewhere: str | None
) -> Grid:
    """The printed lines and ours that belong to them; in a paper's main table also all else of the proposed method."""
    here = [g for g in fits if g.run.arguments["data"] in (data, STAND_INS.get(data))]
    names = [*SCORES, *(s for s in MORE_SCORES if any(line[s] for line in lines))]
    grid: list[list[str]] = []
    used: set[int] = set()
    for line in lines:
        printed = " / ".join(line[s] or "-" for s in names) if any(line[s] for s in names) else ""
        ours = [g for g in here if g.method == line["method"] and matches(g, line["setting"], proposed)]
        ours = [g for g in ours if g.rows] or ours[:1]
        if not ours:
            remark = _no_task(data, line["method"] == proposed, elsewhere)
            remark = remark if line["method"] in registry.ALL else "not in the library"
            grid.append([line["method"], line["setting"], printed, "", "", "", remark])
        for i, g in enumerate(ours):
            setting = ", ".join(dict.fromkeys(s for s in (line["setting"] if i == 0 else "", g.setting) if s))
            grid.append([g.method, setting, "" if i else printed, *_ours(g, data, names)])
        used.update(map(id, ours))
    more = [g for g in here if main and g.method == proposed and id(g) not in used and g.rows]
    grid += [[proposed, g.setting, "", *_ours(g, data, names)] for g in more]
    columns = " / ".join(name.upper() if len(name) < 4 else name.replace("_", "-") for name in names)
    return Grid(["method", "setting", f"published {columns}", "ours", "seeds", "time", "remark"], grid)


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


def _ours(g: Group, data: str, names: Sequence[str]) -> list[str]:
    if not g.rows:
        return ["", "", "", g.reason]
    own = g.run.arguments["data"]
    remark = ", ".join(part for part in (g.run.protocol, f"on {own}" if own != data else "") if part)
    ours = " / ".join(_cell_of(g.rows, s) for s in names)
    return [ours, g.seeds, _time(g), remark]


def _cell_of(rows: list[Row], score: str) -> str:
    """Rows of earlier code have fewer scores: then how many have this one."""
    values = [row[score] for row in rows if score in row]
    return (cell(values) or "-") + (f" ({len(values)})" if 0 < len(values) < len(rows) else "")


def _no_task(data: str, proposed: bool, elsewhere: str | None) -> str:
    if elsewhere:
        return elsewhere
    spec = CATALOG.get(data)
    if spec and not (spec.files or spec.parent):
        return "the data cannot be downloaded"
    return "not at the published schedule" if proposed else "no task"


def _matrix(lines: list[dict[str, str]], data: list[str], fits: list[Group], proposed: str) -> Grid:
    """ACC, a column a data set: printed, and below each method ours where there is one."""
    grid: list[list[str]] = []
    for method, setting in dict.fromkeys((line["method"], line["setting"]) for line in lines):
        printed = {
            line["data"]: line["acc"] for line in lines if (line["method"], line["setting"]) == (method, setting)
        }
        grid.append([method, "published", *(printed.get(each, "") for each in data)])
        ours: dict[str, str] = {}
        for g in fits:
            same = matches(g, setting, proposed) or (g.method == proposed and not g.setting)
            for each in data:
                if g.method == method and g.rows and same and g.run.arguments["data"] in (each, STAND_INS.get(each)):
                    ours[each] = cell(row["acc"] for row in g.rows)
        if ours:
            grid.append([method, "ours", *(ours.get(each, "") for each in data)])
    return Grid(["method", "", *(each.removeprefix("cifar100_") for each in data)], grid)


def sweeps(scored: list[Group]) -> list[Block]:
    """One parameter at a time, and streams."""
    blocks: list[Block] = []
    named = [g for g in scored if g.run.name not in TABLES and g.rows]
    for name in dict.fromkeys(g.run.name for g in named):
        members = [g for g in named if g.run.name == name and "acc" in g.rows[0] and not g.derived]
        if not members:
            continue
        lines = [
            [g.run.arguments["data"], g.method, g.setting, g.seeds, *(cell(r[s] for r in g.rows) for s in SCORES)]
            for g in members
        ]
        blocks += [Heading(3, name), Grid(["data", "method", "setting", "seeds", "ACC", "NMI", "ARI"], lines)]
    return blocks
