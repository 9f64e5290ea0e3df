"""The command line. Heavy imports wait inside the commands: ``neuralclust --help`` answers at once."""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import re
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from neuralclust import __version__, registry
from neuralclust.bench.commands import add_bench
from neuralclust.files import labels_as_csv, output_folder, read_data, read_labels, write_text

RUN_FILES = {
    "model": "fitted model, for neuralclust.load and neuralclust predict",
    "labels.csv": "cluster of every row",
    "history.jsonl": "losses, a line an epoch",
    "run.json": "method, parameters and data file of this run",
}
_DATA = (
    "data file: .npy, .npz, .csv, .tsv, .csv.gz or .parquet; a row a sample, numbers only. Or a folder of .parquet "
    "files, larger than memory if need be: they are copied once to FOLDER.rows.npy"
)
_DROP: dict[str, Any] = {
    "action": "append",
    "default": [],
    "metavar": "COLUMN",
    "help": "column of a .csv or .parquet file to leave out, by its name; may be given again",
}
_NAMES = {
    "acc": "accuracy under the best one-to-one map to the classes",
    "nmi": "normalised mutual information, arithmetic mean",
    "nmi_geometric": "normalised mutual information, geometric mean",
    "ari": "adjusted Rand index",
    "ami": "adjusted mutual information",
    "homogeneity": "every cluster has one class only",
    "completeness": "every class is in one cluster only",
    "v_measure": "harmonic mean of the two above",
    "purity": "rows of the commonest class of their cluster",
    "precision": "pairs of rows put together that belong together",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, 2 after an error, 130 after Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args = argparse.Namespace()
    try:
        args = _parse(argv)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _show("warning", message, args)
            args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        print(f"neuralclust: interrupted; {str(error) or 'nothing was written'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - Python flushes it once more when it exits
        return 0
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError) as error:
        if "--debug" in argv:
            raise
        _show("error", error, args)
        return 2
    return 0


# -- the arguments --------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and exit: ``main`` prints all errors alike."""

    def error(self, message: str) -> Any:
        raise ValueError(f"{message}. See {self.prog} --help.")


def _parse(argv: list[str]) -> argparse.Namespace:
    fitting = argv[:1] == ["fit"]
    method = None
    if fitting:
        first = _Parser(prog="neuralclust fit", add_help=False, allow_abbrev=False)
        first.add_argument("--method")
        method = first.parse_known_args(argv)[0].method
        if method is None and not {"-h", "--help"} & set(argv):
            method = "tell"
    # Only now are the parameters known; listing them loads the method, which plain help need not wait for.
    if method and "--quiet" not in argv:
        _say_loading()
    estimator = registry.make(method, 1) if method else None
    if fitting and any(text.partition("=")[0] == "--n_clusters" for text in argv):  # else it is told to be missing
        raise ValueError(_unknown_parameter(estimator, "--n_clusters"))
    args, unknown = _parser(estimator).parse_known_args(argv)
    if unknown:
        if fitting and (names := [text.partition("=")[0] for text in unknown if text.startswith("--")]):
            raise ValueError(_unknown_parameter(estimator, names[0]))
        raise ValueError(f"unrecognised arguments: {' '.join(unknown)}. See neuralclust {args.command} --help.")
    args.estimator = estimator
    return args


def _parser(estimator: Any = None) -> argparse.ArgumentParser:
    def add(name: str, run: Callable[[argparse.Namespace], None], about: str, example: str) -> Any:
        command = commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(run=run)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return command

    parser = _Parser(
        prog="neuralclust",
        description=textwrap.fill(
            f"Neural clustering: {', '.join(registry.METHODS)}, beside the methods without a network that their papers "
            f"compare with. All of them: neuralclust list.",
            80,
        ),
        epilog=textwrap.dedent("""\
            examples:
              neuralclust demo
              neuralclust fit data.npy --method tell --n-clusters 10 --out run
              neuralclust predict run/model new.npy --out labels.csv
              neuralclust evaluate labels.csv truth.csv"""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"neuralclust {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    demo = add("demo", _demo, "compare the methods on handwritten digits, with pictures (minutes)",
               "neuralclust demo --seeds 1")  # fmt: skip
    demo.add_argument("--out", type=Path, default=Path("neuralclust-demo"), metavar="DIR",
                      help="folder to write; an earlier demo there is replaced, a folder with any other "
                      "file is refused (default: %(default)s)")  # fmt: skip
    demo.add_argument("--seeds", type=int, default=3, metavar="N", help="fits of each method (default: 3)")
    demo.add_argument("--quiet", action="store_true", help="no progress bars")

    fit = add("fit", _fit, "cluster the rows of a file and save the model",
              "neuralclust fit data.npy --method tell --n-clusters 10 --max-epochs 20 --out run\n\n"
              "Every parameter of the method is an option; to list them with their meaning:\n"
              "  neuralclust fit --method tell --help")  # fmt: skip
    fit.add_argument("data", type=Path, metavar="DATA", help=_DATA)
    fit.add_argument("--drop", **_DROP)
    fit.add_argument("--n-clusters", type=int, required=True, metavar="K", help="number of clusters")
    fit.add_argument("--method", default="tell", metavar="NAME",
                     help="method, as `neuralclust list` names it (default: tell)")  # fmt: skip
    fit.add_argument("--out", type=Path, default=Path("neuralclust-fit"), metavar="DIR",
                     help="folder to write; an earlier fit there is replaced, a folder with any other "
                     "file is refused (default: %(default)s)")  # fmt: skip
    fit.add_argument("--checkpoint", type=Path, metavar="DIR",
                     help="folder in which each epoch is written down, so that nothing is lost")  # fmt: skip
    fit.add_argument("--resume", action="store_true", help="go on after the last epoch in the checkpoint")
    fit.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    if estimator is not None:
        group = fit.add_argument_group(f"parameters of {type(estimator).__name__}")
        about = _parameter_help(type(estimator))
        for name in _parameters(estimator):
            group.add_argument(_option(name), metavar="VALUE", dest=f"parameter:{name}", help=about.get(name))

    predict = add("predict", _predict, "find the cluster of every row of a file with a saved model",
                  "neuralclust predict run/model new.npy --out labels.csv")  # fmt: skip
    predict.add_argument("model", type=Path, metavar="MODEL", help="model folder that fit, demo or save() wrote")
    predict.add_argument("data", type=Path, metavar="DATA", help=_DATA)
    predict.add_argument("--drop", **_DROP)
    predict.add_argument("--out", type=Path, metavar="FILE",
                         help="CSV file to write or replace (default: standard output)")  # fmt: skip
    predict.add_argument("--proba", action="store_true", help="add a column p0, p1, ... for each cluster: "
                         "soft assignments, which sum to 1")  # fmt: skip
    predict.add_argument("--device", metavar="NAME", help="where to compute: auto, cpu, cuda, ... "
                         "(default: as the model was made)")  # fmt: skip

    evaluate = add("evaluate", _evaluate, "compare clusters with known classes",
                   "neuralclust evaluate run/labels.csv truth.csv")  # fmt: skip
    files = ".csv with one column, or one named label, or .npy"
    evaluate.add_argument("labels", type=Path, metavar="LABELS", help=f"clusters: {files}")
    evaluate.add_argument("truth", type=Path, metavar="TRUTH", help=f"classes: {files}")
    evaluate.add_argument("--json", action="store_true", help="print JSON")

    add("list", _list, "list the methods with their papers", "neuralclust list")
    add_bench(commands)
    return parser


def _option(parameter: str) -> str:
    return "--" + parameter.replace("_", "-")


def _parameters(estimator: Any) -> list[str]:
    names = list(estimator.get_params(deep=False))
    fixed = ["n_clusters" if "n_clusters" in names else "n_components", "method"]  # --n-clusters and --method
    return [name for name in names if name not in fixed]


def _parameter_help(cls: type) -> dict[str, str]:
    """First paragraph of each parameter in a numpydoc docstring, made fit for argparse."""
    section = (cls.__doc__ or "").partition("Attributes\n")[0]
    found = re.findall(r"^    (\w[\w, ]*?) ?: (.+)\n((?:        .+\n)+)", section, re.MULTILINE)
    texts = {name: f"{' '.join(text.split())} ({kind})" for names, kind, text in found for name in names.split(", ")}
    plain = {name: re.sub(r":\w+:`~?(.+?)`", r"\1", text).replace("``", "") for name, text in texts.items()}
    return {name: text.replace("%", "%%") for name, text in plain.items()}


def _unknown_parameter(estimator: Any, option: str) -> str:
    options = ["--n-clusters"]
    if estimator is not None:
        options += [_option(name) for name in _parameters(estimator)]
    close = difflib.get_close_matches(option.replace("_", "-"), options, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    name = type(estimator).__name__ if estimator is not None else "fit"
    return f"{name} has no parameter {option}.{hint} It has {', '.join(options)}."


def _value(text: str) -> Any:
    """A parameter as a Python value: a number, a tuple, None, True, False, or else the text itself."""
    constants = {"none": None, "true": True, "false": False}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# -- the commands ---------------------------------------------------------------------------------------


def _demo(args: argparse.Namespace) -> None:
    if not args.quiet:
        _say_loading()
    from neuralclust import demo

    with output_folder(args.out, demo.FILES) as folder:
        demo.run(folder, seeds=args.seeds, say=print, quiet=args.quiet)
    _say_files(args.out, demo.FILES)
    print(f"Next: neuralclust predict {args.out / 'model'} {args.out / 'digits.npy'} --proba --out labels.csv")


def _fit(args: argparse.Namespace) -> None:
    estimator, out = args.estimator, args.out
    given = {key.partition(":")[2]: value for key, value in vars(args).items() if key.startswith("parameter:")}
    params = {name: _value(text) for name, text in given.items() if text is not None}
    for name, value in params.items():  # --hidden-layer-sizes 64 means one layer
        if name == "hidden_layer_sizes" and isinstance(value, int):
            params[name] = (value,)
    method = registry.find(args.method)
    estimator = registry.make(method, args.n_clusters).set_params(**params)
    ours = method in registry.METHODS
    if (args.checkpoint or args.resume) and not ours:
        raise ValueError(f"{method} has no epochs to write down: --checkpoint is for the neural methods.")
    how = {"checkpoint": args.checkpoint, "resume": args.resume} if ours else {}
    X, names = read_data(args.data, args.drop)
    if not ours and X.ndim > 2:  # images: the neural methods flatten them for themselves
        X = X.reshape(len(X), -1)
    if hasattr(X, "toarray") and not estimator.__sklearn_tags__().input_tags.sparse:
        X = X.toarray()
    if ours:
        from neuralclust.peers import writes

        if not writes():  # one of several processes, and not the first
            estimator.fit(X, **how)
            return
    with output_folder(out, RUN_FILES) as folder:
        if hasattr(estimator, "set_callbacks") and not args.quiet:
            _show_progress(estimator)
        start = time.perf_counter()
        args.speaks, args.columns = estimator, names
        try:
            labels = estimator.fit(X, **how).labels_ if ours else estimator.fit_predict(X)
        except KeyboardInterrupt:
            from neuralclust.checkpoint import FILE

            if args.checkpoint is None or not (args.checkpoint / FILE).is_file():
                raise
            raise KeyboardInterrupt(
                f"the last epoch is in {args.checkpoint}: the same command with --resume goes on from there"
            ) from None
        seconds = time.perf_counter() - start
        args.speaks = None
        if ours:
            if names is not None:  # as of a data frame
                import numpy as np

                estimator.feature_names_in_ = np.asarray(names, dtype=object)
            estimator.save(folder / "model")
            lines = "".join(json.dumps(row) + "\n" for row in estimator.history_)
            (folder / "history.jsonl").write_text(lines)
        (folder / "labels.csv").write_text(labels_as_csv(labels))
        about = {
            "neuralclust": __version__, "method": method, "n_clusters": args.n_clusters, "parameters": params,
            "data": str(args.data), "drop": args.drop, "seconds": round(seconds, 3),
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(about, indent=1, default=str) + "\n")
        written = sorted(file.name for file in folder.iterdir())
    if not ours:
        print(f"neuralclust: {_no_model(method, estimator, args.n_clusters, params)}", file=sys.stderr)
    if not args.quiet:
        sizes = [int((labels == j).sum()) for j in range(args.n_clusters)]
        loss = f", loss {estimator.loss_:.4g}" if ours else ""
        print(
            f"{method}: {X.shape[0]:,} rows in {args.n_clusters} clusters of {min(sizes):,} to "
            f"{max(sizes):,}{loss}, {seconds:.1f} s"
        )
        _say_files(out, {name: RUN_FILES[name] for name in written})


def _no_model(method: str, estimator: Any, n_clusters: int, params: dict[str, Any]) -> str:
    """Why there is none, and what else there is."""
    why = f"no model file is written for {method}: only the neural methods have one"
    if method == "KMeans":
        return f"{why}, and its equivalent among them is --method AEKMeans --encoder none"
    new = "and knows new rows by predict" if hasattr(estimator, "predict") else "but has no answer for new rows"
    return f"{why}. In Python {registry.call(method, n_clusters, **params)} is fitted, {new}"


def _predict(args: argparse.Namespace) -> None:
    if args.out is not None:
        _refuse_out(args.out, args.data, args.model)
        _say_loading()
    import neuralclust

    model = neuralclust.load(args.model, device=args.device)
    X, names = read_data(args.data, args.drop)
    known = vars(model).pop("feature_names_in_", None)  # or scikit-learn warns that an array has no names
    if names is not None and known is not None:
        _compare_columns(args.data, names, list(known))
    args.speaks, args.columns = model, names
    text = labels_as_csv(model.predict(X), model.predict_proba(X) if args.proba else None)
    args.speaks = None
    if args.out is None:
        sys.stdout.write(text)
    else:
        write_text(args.out, text)


def _refuse_out(out: Path, data: Path, model: Path) -> None:
    """Labels must not take the place of what they are made from, nor be CSV under the name of something else."""
    if out.suffix.lower() in (".npy", ".npz", ".parquet"):
        raise ValueError(f"--out {out}: labels are written as CSV. Give a name that ends in .csv.")
    place = out.resolve()
    if place == data.resolve() or model.resolve() in (place, *place.parents):
        raise ValueError(f"--out {out} would replace the data or a part of the model. Give another name.")


def _compare_columns(path: Path, names: list[str], known: list[str]) -> None:
    """A model takes its columns by their places: the same names in another order would be another table."""

    def some(columns: list[str]) -> str:
        return ", ".join(map(repr, columns[:20])) + ", ..." * (len(columns) > 20)

    if names == known:
        return
    missing = [name for name in known if name not in names]
    extra = [name for name in names if name not in known]
    wrong = [f"it lacks {some(missing)}"] * bool(missing)
    wrong += [f"it has {some(extra)} besides (--drop leaves a column out)"] * bool(extra)
    wrong = wrong or [f"they are in the order {some(names)}"]
    raise ValueError(f"{path} must have the columns of the model, {some(known)}, in this order: {'; '.join(wrong)}.")


def _evaluate(args: argparse.Namespace) -> None:
    labels, truth = read_labels(args.labels, args.truth)
    from neuralclust.metrics import evaluate

    scores = evaluate(truth, labels)
    if args.json:
        print(json.dumps(scores, indent=1))
        return
    for name, score in scores.items():
        print(f"{name:<14}{score:>8.4f}  {_NAMES.get(name, '')}".rstrip())


def _list(args: argparse.Namespace) -> None:
    methods = registry.ALL
    width = max(len(name) for name in methods) + 2
    indent = " " * (width + 16)
    print(f"{'method':<{width}}{'year':<6}{'family':<10}paper")
    for name, method in methods.items():
        first = f"{name:<{width}}{method.year:<6}{method.family:<10}"
        columns = max(shutil.get_terminal_size().columns, 60)
        fill: dict[str, Any] = {"width": columns, "subsequent_indent": indent, "break_on_hyphens": False}
        print(textwrap.fill(method.paper, initial_indent=first, **fill))
        call = registry.call(name)
        if not call.replace("_", "").lower().endswith(f".{name.lower()}(k)"):  # the name is not all of it
            print(textwrap.fill(call, initial_indent=indent, **fill))


# -- what is shown --------------------------------------------------------------------------------------


def _say_loading() -> None:
    """Where somebody looks on, that nothing is wrong: torch and scikit-learn take seconds to load."""
    if sys.stderr.isatty():
        print("neuralclust: loading torch and scikit-learn ...", file=sys.stderr)


def _say_files(out: Path, files: dict[str, str]) -> None:
    print(f"\nWritten to {out}:")
    for name, about in files.items():
        print(f"  {name:<15}{about}")


def _show_progress(estimator: Any) -> None:
    if find_spec("rich") is None:
        print(
            "neuralclust: there is no progress bar without rich: pip install 'neuralclust[cli]'",
            file=sys.stderr,
        )
        return
    import rich

    from neuralclust.callbacks import ProgressBar

    rich.reconfigure(stderr=True)  # scikit-learn's bar goes to rich's own console; standard output is for results
    estimator.set_callbacks(ProgressBar())


def _show(kind: str, message: Warning | Exception | str, args: argparse.Namespace) -> None:
    text = " ".join(str(message).split()) or type(message).__name__
    if (model := getattr(args, "speaks", None)) is not None:
        text = _as_typed(text, model, args.columns)
    print(f"neuralclust: {kind}: {text}", file=sys.stderr)


def _as_typed(text: str, estimator: Any, columns: list[str] | None) -> str:
    """What an estimator says, with its parameters as options and the columns by their names in the file."""
    names = "|".join(["n_clusters", "checkpoint", *_parameters(estimator)])
    text = text.replace("resume=True", "--resume")
    text = re.sub(  # in a path it is no parameter
        rf"(?<![\w/\\])({names})=(?=([\w'\"(\[-])?)(?!\S*[/\\])",
        lambda found: _option(found[1]) + " " * (found[2] is not None),
        text,
    )

    def name(found: re.Match[str]) -> str:
        number = int(found[2])
        return f"{found[1]} {columns[number]!r}" if columns and number < len(columns) else found[0]

    return re.sub(r"\b([Cc]olumn) (\d+)\b( of X)?", name, text)
