"""What the papers' tables say is better than what, and whether it is here; the methods as printed beside ours."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from statistics import mean

from neuralclust.bench.groups import DEFAULTS, SHORTER, TABLES, Group, by_loss, cell, p_value, pairs, shown
from neuralclust.bench.pages import Block, Grid, Heading
from neuralclust.bench.papers import FOLDER, PAPERS, STAND_INS, counterparts, known, published

_LEVEL = 0.05  # of the test
_LEAST = 1e-3  # share of one that counts as a difference


def claims(found: Sequence[Group]) -> list[Block]:
    """A table of them, those with no rows left out."""
    with (FOLDER / "claims.csv").open(newline="") as file:
        tested = [line for each in csv.DictReader(file) if (line := _tested(each, found))]
    if not tested:
        return []
    verdicts = [line[-1] for line in tested]
    names = ["method", "claim", "data", "published", "difference", "ours on", "ours", "difference", "p", "holds"]
    return [
        Heading(2, "Claims of the papers"),
        f"What a table of the papers says is better than what: of {len(tested)}, {verdicts.count('yes')} hold here, "
        f"{verdicts.count('no')} do not (ours differ the other way), and {verdicts.count('not told')} cannot be told "
        f"(p of a paired t-test over seeds from {_LEVEL}, fewer than three seeds, or less than 0.1 points). ACC; of "
        "SSCNet's blocks NMI. Ours is what the library does by default, the repaired variant and mostly a fully "
        "connected network, or a sweep, on smaller data where that is named: no paper's program at its published "
        "schedule.",
        Grid(names, tested),
    ]


def published_forms(found: Sequence[Group]) -> list[Block]:
    """The methods as printed beside what is made of them here, on the same data and seeds."""
    own = {(g.run.arguments["data"], g.method): g for g in found if g.rows and g.run.name == "quick" and not g.setting}
    lines = []
    for g in found:
        data = g.run.arguments["data"]
        if g.setting == "as printed" and g.rows and (repaired := own.get((data, g.method))):
            accuracy = [cell(row["acc"] for row in rows) for rows in (g.rows, repaired.rows)]
            gain = mean(row["acc"] for row in repaired.rows) - mean(row["acc"] for row in g.rows)
            p = shown(p_value(pairs(repaired, g)))
            lines.append([g.method, data, accuracy[0], by_loss(g), accuracy[1], f"{100 * gain:+.1f}", p, g.seeds])
    if not lines:
        return []
    names = ["method", "data", "as printed", "by loss", "repaired", "difference", "p", "seeds"]
    return [
        Heading(2, "Published forms"),
        'ACC of `variant="paper"` beside the default, `"repaired"`, on the same rows and seeds: what the printed '
        "objectives and starts do on their own. Not the papers' numbers, which come from more rows and thousands of "
        "epochs; see how many under settings. By loss: the run with the smallest; empty where no loss is a "
        "number any more.",
        Grid(names, lines),
    ]


def _ours(line: dict[str, str], method: str, setting: str, found: Sequence[Group]) -> Group | None:
    """The counterpart of a printed line, or else what the method does by default on the data, if it has rows."""
    groups = known(found)
    if counterpart := counterparts(line["paper"]).get((line["table"], method, setting)):
        candidates = [groups.get(counterpart[:4])]
    else:
        data = STAND_INS.get(line["data"], line["data"])
        candidates = [groups.get((data, task, method, own)) for own in (*DEFAULTS, *SHORTER) for task in TABLES]
    return next((g for g in candidates if g and g.rows), None)


def _tested(line: dict[str, str], found: Sequence[Group]) -> list[str] | None:
    score, sides = line["score"], [(line[f"{than}method"], line[f"{than}setting"]) for than in ("", "than_")]
    ours = [g for side in sides if (g := _ours(line, *side, found))]
    if len(ours) < 2:
        return None
    lines = {(p["table"], p["data"], p["method"], p["setting"]): p for p in published(line["paper"])}
    printed = [float(lines[line["table"], line["data"], *side][score]) for side in sides]
    both = pairs(ours[0], ours[1], score)
    difference = mean(row[score] for row in ours[0].rows) - mean(row[score] for row in ours[1].rows)
    p = p_value(both)
    verdict = "not told"
    if p is not None and p < _LEVEL and abs(difference) >= _LEAST:
        verdict = "yes" if difference * (printed[0] - printed[1]) > 0 else "no"
    return [
        PAPERS[line["paper"]][0], line["claim"], line["data"], f"{printed[0]:.2f} / {printed[1]:.2f}",
        f"{printed[0] - printed[1]:+.1f}", ours[0].run.arguments["data"],
        " / ".join(cell(row[score] for row in g.rows) for g in ours), f"{100 * difference:+.1f}",
        shown(p), verdict,
    ]  # fmt: skip
