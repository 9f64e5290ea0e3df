"""The rows of a task together, and what a table says of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from statistics import mean, stdev
from typing import Any, NamedTuple

from neuralclust import registry
from neuralclust.bench.plan import Run
from neuralclust.bench.runner import duration

SCORES = ("acc", "nmi", "ari")
TABLES = ("quick", "classical", "paper")  # names of tasks that are not about one parameter
DEFAULTS = ("", "HOMO")  # settings that are a method's own: HOMO is DCSAI's metric
SHORTER = ("40 + 12 epochs", "5 epochs", "10,000 rows")  # where a method's own take too long, the first there is
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


def cell(values: Iterable[float]) -> str:
    """Shares as percent: mean and, of several, standard deviation.

    >>> from neuralclust.bench.groups import cell
    >>> cell([0.5, 0.52]), cell([0.5])
    ('51.0 ± 1.4', '50.0')
    """
    values = [100 * value for value in values]
    if not values:
        return ""
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def few(g: Group) -> str:
    """The number of seeds, where there are fewer than three and chance plays a part."""
    return f" ({len(g.rows)})" if len(g.rows) < 3 and has_chance(g.method) else ""


@cache
def has_chance(method: str) -> bool:
    """Whether its labels depend on the seed."""
    return "random_state" in registry.make(method.removeprefix("online "), 2).get_params()


def mean_time(g: Group) -> str:
    """Of its fits, in words."""
    seconds = [row["seconds"] for row in g.rows if "seconds" in row]
    return duration(mean(seconds)) if seconds else ""


def by_loss(g: Group) -> str:
    """ACC of the run of the smallest loss, where there are several."""
    finite = [row for row in g.rows if math.isfinite(row.get("loss") or math.nan)]
    return cell([min(finite, key=lambda row: row["loss"])["acc"]]) if finite and len(g.rows) > 1 else ""


def machines(g: Group) -> str:
    """Where its runs were made."""
    return ", ".join(sorted({row["machine"] for row in g.rows if "machine" in row}))


def pairs(ours: Group, other: Group, score: str = "acc") -> list[list[float]]:
    """A score of both, seed by seed; one without chance is the same for every seed."""
    a, b = ({row["seed"]: row[score] for row in g.rows} for g in (ours, other))
    if not has_chance(ours.method):
        a = dict.fromkeys(b, *a.values())
    if not has_chance(other.method):
        b = dict.fromkeys(a, *b.values())
    return [[a[seed], b[seed]] for seed in sorted(a.keys() & b.keys())]


def by_blocks(found: Sequence[Group]) -> dict[int, Group]:
    """SSCNet on USPS by the number of its blocks, whatever task it is of (Figure 3 of its paper, there on MNIST)."""
    default = registry.make("SSCNet", 1)._value("n_blocks")
    mine = {
        g.run.arguments.get("n_blocks", default): g
        for g in found
        if g.method == "SSCNet" and g.rows and not g.derived and g.run.arguments["data"] == "usps"
        and set(g.run.arguments) <= {"data", "method", "n_blocks"}
    }  # fmt: skip
    return dict(sorted(mine.items()))


def p_value(pairs: list[list[float]]) -> float | None:
    """Of a paired t-test, where there are three pairs whose differences differ."""
    from scipy.stats import ttest_rel

    if len(pairs) < 3 or len({round(x - y, 12) for x, y in pairs}) == 1:
        return None
    return float(ttest_rel(*zip(*pairs, strict=True)).pvalue)


def shown(p: float | None) -> str:
    """A p-value as it is printed.

    >>> from neuralclust.bench.groups import shown
    >>> shown(0.0421), shown(1e-6), shown(None)
    ('0.042', '< 0.001', '')
    """
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
