"""``neuralclust bench``: list, run, table, plot."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuralclust.bench import Results, plan, run
from neuralclust.files import write_text


def add_bench(commands: Any) -> None:
    """Add ``bench`` and what it can do to the commands of a parser."""
    about = "benchmarks: what there is to run, runs that go on where they stopped, tables, pictures"
    bench = commands.add_parser("bench", help=about, description=about[0].upper() + about[1:] + ".",
                                allow_abbrev=False)  # fmt: skip
    actions = bench.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], None], about: str, example: str) -> Any:
        action = actions.add_parser(
            name, help=about, description=about[0].upper() + about[1:] + ".", epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        )  # fmt: skip
        action.set_defaults(run=command)
        action.add_argument("--debug", action="store_true", help="show the traceback of an error")
        action.add_argument("--tasks", type=Path, action="append", metavar="FILE",
                            help="TOML file of tasks, may be given again (default: those of the library)")  # fmt: skip
        action.add_argument("--results", type=Path, default=Path("neuralclust-bench.jsonl"), metavar="FILE",
                            help="rows, one a line (default: %(default)s)")  # fmt: skip
        if name in ("list", "run"):
            action.add_argument("--only", default="", metavar="TEXT", help="tasks whose words contain this")
            action.add_argument("--protocol", choices=("quick", "paper"),
                                help="quick: made for two cores; paper: the published schedules")  # fmt: skip
        return action

    add(
        "list",
        _list,
        "list the tasks, and how many of their runs have rows",
        "neuralclust bench list --only digits",
    )
    running = add("run", _run, "make the runs that have no row yet; stop it at any time, start it again",
              "neuralclust bench run --only 'quick / digits'")  # fmt: skip
    running.add_argument(
        "--shard", default="1/1", metavar="I/N", help="the i-th of n parts, for n processes or machines"
    )
    running.add_argument("--minutes", type=float, metavar="M", help="longest time of a run (default: the task's own)")
    running.add_argument("--retry", action="store_true", help="make runs that have failed once more")
    table = add("table", _table, "write the rows beside the published numbers, or those of --tasks alone",
                "neuralclust bench table --out results.md")  # fmt: skip
    table.add_argument("--out", type=Path, metavar="FILE",
                       help=".md or .html file to write or replace (default: Markdown to standard output)")  # fmt: skip
    table.add_argument("--figures", type=Path, metavar="DIR", help="folder of what bench plot has drawn, to be linked")
    plot = add("plot", _plot, "draw what the rows are enough for", "neuralclust bench plot --out figures")
    plot.add_argument("--out", type=Path, default=Path("figures"), metavar="DIR",
                      help="folder for the pictures; those there are replaced (default: %(default)s)")  # fmt: skip


def _list(args: argparse.Namespace) -> None:
    rows = Results(args.results).read()
    tasks: dict[str, list[Any]] = {}
    for each in _planned(args):
        tasks.setdefault(each.task, []).append(each)
    for task, runs in tasks.items():
        mine = [rows[each.key] for each in runs if each.key in rows]
        reasons = {row["skipped"] for row in mine if "skipped" in row} or {runs[0].impossible} - {""}
        if runs[0].gpu and not mine:
            reasons = {"needs a GPU"}
        done = sum("skipped" not in row for row in mine)
        print(f"{done:>3} of {len(runs):<3}{task}{f' (skipped: {reasons.pop()})' if reasons else ''}")
    print(f"{len(tasks)} tasks; rows: {args.results}")


def _run(args: argparse.Namespace) -> None:
    shard = re.fullmatch(r"(\d+)/(\d+)", args.shard)
    if not shard:
        raise ValueError(f"--shard {args.shard} must be I/N, such as 1/4.")
    runs, results = _planned(args), Results(args.results)
    part, parts = map(int, shard.groups())
    before = {} if args.retry else results.read()
    try:
        finished = run(
            runs, results, shard=(part, parts), minutes=args.minutes, retry=args.retry,
            say=lambda text: print(text, flush=True),
        )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"finished runs are in {args.results}; start again to go on") from None
    rows = results.read()
    mine = [rows[each.key] for each in runs if each.key in rows]
    if not finished and mine and all("skipped" in row for row in mine):
        raise RuntimeError(f"none of these runs has a result. The last was skipped: {mine[-1]['skipped']}")
    failed = [each for each in runs if rows.get(each.key, {}).get("failed")]
    if any(each.key not in before for each in failed):
        last = failed[-1]
        raise RuntimeError(
            f"{len(failed)} of {len(runs)} runs failed, the last ({last.task}, seed {last.seed}) with: "
            f"{rows[last.key]['skipped']}. {args.results} has the rows; --retry makes the runs that failed once more."
        )
    if failed:
        print(f"{len(failed)} of these runs failed earlier; --retry makes them once more.")


def _planned(args: argparse.Namespace) -> list[Any]:
    """The runs that the options ask for."""
    runs = plan(args.tasks, only=args.only, protocol=args.protocol)
    if not runs:
        wanted = f" --only {args.only!r}" * bool(args.only) + f" --protocol {args.protocol}" * bool(args.protocol)
        raise ValueError(f"no task has{wanted or ' a run'}. See neuralclust bench list.")
    return runs


def _table(args: argparse.Namespace) -> None:
    from neuralclust.bench import owntable, pages, plot, table

    if args.out and args.out.suffix not in (".md", ".html"):
        raise ValueError(f"{args.out}: the extension must be .md or .html.")
    pictures = plot.drawn(args.figures, args.out.parent if args.out else Path()) if args.figures else ()
    rows = _rows(args.results)
    document = owntable.own_document if args.tasks else table.document
    blocks = document(plan(args.tasks), rows, pictures)
    text = pages.page(blocks) if args.out and args.out.suffix == ".html" else pages.markdown(blocks)
    if args.out is None:
        sys.stdout.write(text)
    else:
        write_text(args.out, text)


def _rows(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file. Make one with neuralclust bench run, or name it by --results."
        )
    return Results(path).read()


def _plot(args: argparse.Namespace) -> None:
    from neuralclust.bench import plot

    figures = plot.figures(plan(args.tasks), _rows(args.results))
    if not figures:
        raise ValueError(f"{args.results} has no rows that make a picture. See neuralclust bench run --only curve.")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in plot.CAPTIONS.keys() - figures.keys():  # of rows that are void
        (args.out / f"{name}.png").unlink(missing_ok=True)
    for name, figure in figures.items():
        figure.savefig(args.out / f"{name}.png", dpi=120)
        print(args.out / f"{name}.png")
