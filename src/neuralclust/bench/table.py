"""The report: rows by data set, beside the published numbers, and what is missing; of rows and tasks alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from neuralclust import registry
from neuralclust.bench.claims import claims, published_forms
from neuralclust.bench.groups import (
    DEFAULTS,
    SCORES,
    SHORTER,
    TABLES,
    Group,
    Row,
    by_blocks,
    by_loss,
    cell,
    few,
    groups,
    machines,
    mean_time,
    p_value,
    pairs,
    shown,
)
from neuralclust.bench.pages import Block, Grid, Heading, Picture
from neuralclust.bench.papers import PAPERS, by_paper
from neuralclust.bench.plan import Run

SETTINGS = {
    "(none)": "the method's own defaults",
    "augmented": 'augment="digits", or "images" on CIFAR-10',
    "augmented, 150 passes": "40 epochs of pretraining and 110 of joint training, where there are usually 40 and 20",
    "spectral start": "the means of spectral clusters of the codes; without augmentation the usual start is the "
    "clusters themselves, which the encoder learns first",
    "hard targets": "each code is drawn to its nearest centre, as printed; the default balances the clusters",
    "as printed": 'variant="paper"; the networks of TELL, KMeansNet and DCSAI for 300 epochs, where the papers have '
    "3,000 and more",
    "40 + 12 epochs; 5 epochs": "of pretraining and of joint training; of joint training",
    "10,000 rows": "drawn at random",
    "blocks": "iterations of SSCNet's encoder; usually 1",
    "without a network; raw": "the features as they are",
    "convolutional": "a convolutional autoencoder; all else is fully connected",
    "codes of X": "k-means on the codes of the autoencoder that X starts from",
    "codes of an autoencoder": "of one of its own, in place of the rows; a convolutional one is NCSC's, of 10,000 rows",
    "HOMO, HOE, HOT, HIT": "DCSAI with Euclidean distances on one side and on the other Euclidean ones, cosines, "
    "correlations, city blocks; from P2: by the assignment of the other side",
    "FCN, CNN, TwoStage": "in printed lines: a fully connected or convolutional network; encoder and centres trained "
    "one after the other (`end_to_end=False`)",
}


SWEEPS = (
    "One parameter at a time, mostly on the digits. All but blocks, curve, start, online and progress begin from the "
    'means of spectral clusters of the codes (`init="spectral"`), as the papers begin from centres on codes: from the '
    "usual start there is little left to change. So their levels are below those of the tables above; compare within "
    "a sweep. In progress TELL is augmented, and NCSC has 40 + 12 epochs. Online: KMeans and TELL are fitted on the "
    "whole stream (59,000 to 60,000 rows), online KMeans keeps the centres of the first 1,000 rows, online TELL learns "
    "on."
)
COLUMNS = (
    "By loss: ACC of the run with the smallest loss, which `n_init` would keep. Over k-means: points that the whole "
    "has over k-means on the codes of the very autoencoder that it starts from. Over start: points that joint training "
    "adds to what it starts from. Wins: in how many seeds it beats the method of the highest mean (of those with three "
    "seeds or more, or without chance). All with the p-value of a paired t-test, not corrected for the number of tests "
    "or for the choice of the best. A cell is empty where there is nothing to compare: no such start, no spread, or "
    "fewer than three seeds."
)


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
    where = sorted({machine for g in scored if (machine := machines(g))})
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
        Grid(["setting", "what it is"], [[name, text] for name, text in SETTINGS.items()]),
        "GaussianMixture sees float64: in float32 its covariances are often not positive definite; three of its runs "
        "on 70,000 images left out products by zero (same labels on MNIST's test images) and are not "
        "in its times. Remarks: **not planned**, no task of this benchmark makes it; **not in the library**, another "
        "system of the paper's table. "
        "FuzzyCMeans and TELL's GaussianMixture stand beside ours on codes: k-meansNet's paper says so of the one, and "
        "TELL's, which does not, prints an NMI of 84 on MNIST, which raw rows do not give.",
        f"Machines: {', '.join(where) or 'none yet'}. Times were often taken beside other work."
        + " A row names its commit, and is void once the `revision` of its task is raised."
        + (f" † marks rows from before commits were noted ({early} in all)." if early else ""),
        *claims(scored),
        *published_forms(scored),
        Heading(2, "Overview"),
        "ACC at default settings, raw rows, no augmentation; KMeans with 10 restarts, DCSAI with Euclidean distances. "
        "AEKMeans: k-means on the codes of an autoencoder of its own. In brackets the number of seeds, where it is 1 "
        "or 2 and chance plays a part. An asterisk: with fewer epochs or rows, which the data set's own table names. A "
        "dash: cannot be made here, and the end of this page says why; empty: not run, or not planned.",
        overview(fits),
        Heading(2, "Data set by data set"),
        f"{COLUMNS} Without augmentation, TELL, KMeansNet, DCSAI and NCSC start from clusters of a graph of the codes, "
        "which the encoder of the first three has learned: most of what the whole gains is there.",
    ]
    for data in dict.fromkeys(g.run.arguments["data"] for g in fits if g.rows):
        here = [g for g in fits if g.run.arguments["data"] == data and g.run.name in TABLES]
        blocks += [Heading(3, data), by_data(here)]
    blocks += [
        Heading(2, "Choosing a run without labels"),
        "The run with the smallest loss, the run whose codes have the largest silhouette, and the best, which nobody "
        "knows; where three runs or more have all of these. First the points of ACC by which such a run is above the "
        "mean of all, over the tasks of a method, then ACC in each.",
        *choices([g for g in fits if g.run.name in TABLES]),
    ]
    for paper, (_, title) in PAPERS.items():
        blocks += [Heading(2, title), *by_paper(paper, scored)]
    blocks += [Heading(2, "Figures"), *pictures] if pictures else []
    blocks += [Heading(2, "Sweeps"), SWEEPS, *sweeps(scored)]
    return blocks + missing(found)


def missing(found: Sequence[Group]) -> list[Block]:
    """Tasks that have not all their rows, and why."""
    wanting = [g for g in found if len(g.rows) < g.planned and not g.derived]
    lines: dict[tuple[str, ...], list[str]] = {}
    for g in wanting:
        of = " / ".join(part for part in (g.run.name, g.run.arguments.get("data")) if part)
        what = ", ".join(part for part in (g.method, g.setting) if part)
        lines.setdefault((of, g.seeds.removesuffix("†"), g.reason), []).append(what)

    def count(impossible: bool) -> int:
        return sum(g.planned - len(g.rows) for g in wanting if bool(g.run.impossible) == impossible)

    return [
        Heading(2, "What is missing"),
        f"{count(False)} runs are still to be made, and {count(True)} cannot be. What a paper prints and no task here "
        "makes is in its tables: not planned.",
        Grid(["tasks", "seeds", "why", "what"], [[*key, "; ".join(whats)] for key, whats in lines.items()]),
    ]


def overview(fits: list[Group]) -> Grid:
    """Methods against data sets."""
    plain = [g for g in fits if g.rows and g.run.protocol == "quick" and g.run.name in TABLES]
    data = list(dict.fromkeys(g.run.arguments["data"] for g in plain))
    best: dict[tuple[str, str], str] = {}
    for setting in (*DEFAULTS, *SHORTER):
        for g in (g for g in plain if g.setting == setting):
            text = cell(row["acc"] for row in g.rows) + "*" * (setting in SHORTER) + few(g)
            best.setdefault((g.method, g.run.arguments["data"]), text)
    for g in fits:
        if g.run.impossible:
            best.setdefault((g.method, g.run.arguments["data"]), "-")
    methods = [name for name in registry.ALL if any((name, d) in best for d in data)]
    return Grid(["method", *data], [[name, *(best.get((name, d), "") for d in data)] for name in methods])


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
        lines.append(
            [
                g.method, g.setting, g.run.protocol, g.seeds, *(cell(row[s] for row in g.rows) for s in SCORES),
                by_loss(g), mean_time(g), machines(g), *_over(g, "kmeans"), *_over(g, "start"), wins, p,
            ]
        )  # fmt: skip
    names = [
        "method", "setting", "protocol", "seeds", "ACC", "NMI", "ARI", "by loss", "time", "machine",
        "over k-means", "p", "over start", "p", "wins", "p",
    ]  # fmt: skip
    return Grid(names, lines)


def choices(fits: list[Group]) -> list[Grid]:
    """How well the loss, and the silhouette of the codes, find a good run: by method, and every task."""
    order = list(dict.fromkeys(g.run.arguments["data"] for g in fits))
    lines: list[list[str]] = []
    gains: dict[str, list[tuple[float, ...]]] = {}
    for g in sorted(fits, key=lambda g: (order.index(g.run.arguments["data"]), list(registry.ALL).index(g.method))):
        known = [row for row in g.rows if math.isfinite(row.get("loss") or math.nan) and "silhouette" in row]
        if len(known) < 3:
            continue
        by_loss = min(known, key=lambda row: row["loss"])["acc"]
        by_silhouette = max(known, key=lambda row: row["silhouette"])["acc"]
        picks = (by_loss, by_silhouette, max(row["acc"] for row in known))
        middle = mean(row["acc"] for row in known)
        gains.setdefault(g.method, []).append(tuple(acc - middle for acc in picks))
        texts = (cell([acc]) for acc in picks)
        data = g.run.arguments["data"]
        lines.append([data, g.method, g.setting, str(len(known)), cell(row["acc"] for row in known), *texts])
    names = ["by loss", "by silhouette", "best"]
    by_method = {name: gains[name] for name in registry.ALL if name in gains}
    by_method["all"] = [each for some in by_method.values() for each in some]
    summary = [
        [name, str(len(some)), *(f"{100 * mean(each):+.1f}" for each in zip(*some, strict=True))]
        for name, some in by_method.items()
        if some
    ]
    return [
        Grid(["method", "tasks", *names], summary),
        Grid(["data", "method", "setting", "seeds", "ACC", *names], lines),
    ]


def compare(ours: Group, best: Group) -> tuple[str, str]:
    """Seeds in which `ours` is better, and the p-value of a paired t-test; empty with fewer than three pairs."""
    both = pairs(ours, best)
    if len(both) < 3:
        return "", ""
    return f"{sum(x > y for x, y in both)} of {len(both)}", shown(p_value(both))


def _over(g: Group, name: str) -> tuple[str, str]:
    """Points over other scores that came with the rows, and the p-value of a paired t-test."""
    both = [[row["acc"], row[name]["acc"]] for row in g.rows if name in row]
    return (f"{100 * mean(x - y for x, y in both):+.1f}", shown(p_value(both))) if both else ("", "")


def sweeps(scored: list[Group]) -> list[Block]:
    """One parameter at a time, and streams."""
    blocks: list[Block] = []
    named = [g for g in scored if g.run.name not in TABLES and g.rows]
    for name in dict.fromkeys(g.run.name for g in named):
        members = [g for g in named if g.run.name == name and "acc" in g.rows[0] and not g.derived]
        if name == "blocks":
            members = list(by_blocks(scored).values())
        if not members:
            continue
        lines = [
            [g.run.arguments["data"], g.method, g.setting, g.seeds, *(cell(r[s] for r in g.rows) for s in SCORES)]
            for g in members
        ]
        blocks += [Heading(3, name), Grid(["data", "method", "setting", "seeds", "ACC", "NMI", "ARI"], lines)]
    return blocks
