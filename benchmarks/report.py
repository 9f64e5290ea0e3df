"""benchmarks/README.md from the rows of speed.jsonl, and README.md's table from those of results.jsonl."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import mean

from neuralclust.bench import Results, plan
from neuralclust.bench.groups import DEFAULTS, SHORTER, Group, cell, few, groups
from neuralclust.bench.pages import Grid as Table
from neuralclust.bench.pages import markdown
from neuralclust.bench.papers import PAPERS

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- measured: make results -->", "<!-- end -->"
SHOWN = {
    "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "usps": "USPS", "mnist_test": "MNIST test", "digits": "digits",
    "coil20": "COIL-20", "orl": "ORL", "cifar10_test": "CIFAR-10 test",
    "cifar100_aquatic_mammals": "CIFAR-100, one superclass", "reuters_r8": "Reuters R8",
}  # fmt: skip


def rows() -> dict[str, list[dict]]:
    """Rows of each name, in the order of the tasks."""
    found: dict[str, list[dict]] = {}
    done = Results(HERE / "speed.jsonl").read()
    for run in plan([HERE / "speed.toml"]):
        if "skipped" not in (row := done.get(run.key, {"skipped": ""})):
            found.setdefault(run.name, []).append(row)
    return found


def grid(header: str, lines: Iterable[list[str]]) -> list[str]:
    """A Markdown table."""
    names, lines = header.split(" | "), list(lines)
    if not lines:
        return ["", "(no rows yet)", ""]
    return ["", f"| {header} |", "|" + "---|" * len(names), *(f"| {' | '.join(line)} |" for line in lines), ""]


def document(found: dict[str, list[dict]]) -> str:
    def each(name: str) -> list[tuple[dict, dict]]:
        return [(row["arguments"], row) for row in found.get(name, [])]

    versus: dict[str, list[dict]] = {}
    for a, r in each("versus"):
        versus.setdefault(a["data"] + (", augmented" if a["augmented"] else ""), []).append(r)
    alone = next((r["fit_s"] for a, r in each("processes") if a["size"] == a["threads"] == 1), 0.0)
    memory = {a["side"]: r["extra_mib"] for a, r in each("clustpy memory")}
    lines = [
        "# Speed and memory",
        "",
        "Written by `make bench` from `speed.jsonl`; nothing here is typed by hand. Two cores, no GPU. Seconds are",
        "medians of one run on a shared machine: read the ratios. Accuracy: [docs/results.md](../docs/results.md).",
        "",
        "## Engine",
        "",
        "An epoch of the library's training loop over one of a bare loop with the same network, batch and optimiser,",
        "in the same process, in turn; float32.",
        *grid(
            "network | ours, s | bare, s | ratio",
            ([a["net"], f"{r['ours_s']:.3f}", f"{r['bare_s']:.3f}", f"{r['ratio']:.3f}"] for a, r in each("engine")),
        ),
        'A training step in bfloat16 over one in float32, and what `precision="auto"` takes.',
        *grid(
            "network | weights | float32, ms | bfloat16, ms | ratio | auto",
            (
                [
                    a["net"], f"{r['weights']:,}", f"{r['float32_ms']:.2f}", f"{r['bfloat16_ms']:.2f}",
                    f"{r['ratio']:.2f}", r["auto"],
                ]
                for a, r in each("precision")
            ),
        ),
        "How far an epoch of the autoencoder is from its matrix products alone, same shapes and precision; what is",
        "beside them is Adam's traffic through memory, once a batch, and torch's own time for each operation.",
        *grid(
            "network | batch | precision | s | products, s | ratio",
            (
                [
                    a["net"], f"{a.get('batch', 256):,}", r["precision"], f"{r['ours_s']:.3f}",
                    f"{r['products_s']:.3f}", f"{r['ratio']:.2f}",
                ]
                for a, r in each("limit")
            ),
        ),
        "`TELL.predict`, 784-500-500-2000-10, float32; memory beyond the data, the model and the libraries:",
        *grid(
            "rows | rows per second | data, MiB | extra, MiB",
            (
                [f"{a['n']:,}", f"{r['rows_per_s']:,.0f}", f"{r['data_mib']:.0f}", f"{r['extra_mib']:.0f}"]
                for a, r in each("inference")
            ),
        ),
        *(f"`neuralclust --help` answers in {r['seconds']:.2f} s.\n" for _, r in each("help")),
        "An epoch of NCSC's joint training, MNIST repeated; memory of the whole process with libraries and data:",
        *grid(
            "rows | batch | s an epoch | microseconds a row | peak, MiB | of it data, MiB",
            (
                [
                    f"{r['n']:,}", f"{a['batch_size']:,}", f"{r['epoch_s']:.1f}", f"{1e6 * r['epoch_s'] / r['n']:.0f}",
                    f"{r['peak_mib']:.0f}", f"{r['data_mib']:.0f}",
                ]
                for a, r in each("ncsc scaling")
            ),
        ),
        "## Beside ClustPy 0.0.3",
        "",
        "One process, same network (so without codes of unit length), batch of 256 and epochs, in turn, medians of",
        "pairs. Precision and optimiser of ours are the library's own.",
        *grid(
            "what | ours, s | ClustPy, s | ClustPy / ours",
            (
                [what, f"{r['ours_s']:.3f}", f"{r['clustpy_s']:.3f}", f"{r['ratio']:.2f}"]
                for what, r in [
                    *((f"epoch of the autoencoder, {a['net']}", r) for a, r in each("clustpy autoencoder")),
                    *((f"predict, {a['n']:,} x 784", r) for a, r in each("clustpy predict")),
                ]
            ),
        ),
        *(
            [
                f"`predict` of 70,000 x 784 needs {memory['ours']:.0f} MiB beyond the data, ClustPy's "
                f"{memory['ClustPy']:,.0f} MiB.",
                "",
            ]
            if len(memory) == 2
            else []
        ),
        "ACC at equal wall-clock, one process, all with the network 64- or 256-500-500-2000-10: TELL, else at default",
        "settings, then ClustPy's methods for as many seconds, two thirds of them pretraining; augmented: with",
        "ClustPy's own augmentation.",
        *grid(
            "data | seeds | seconds | TELL | DEC | IDEC | DCN | epochs of DEC",
            (
                [
                    name, str(len(runs)), f"{mean(r['TELL']['seconds'] for r in runs):.0f}",
                    *(cell([r[m]["acc"] for r in runs]) for m in ("TELL", "DEC", "IDEC", "DCN")),
                    " + ".join(str(round(mean(r["DEC"]["epochs"][i] for r in runs))) for i in (0, 1)),
                ]
                for name, runs in versus.items()
            ),
        ),
        "## Several processes",
        "",
        "Three epochs of TELL's joint training under torchrun, 784-500-500-2000-10, 20,000 rows, batch 1,024, float32,",
        "gloo on one machine.",
        *grid(
            "processes | threads of each | s | one process, one thread / this",
            (
                [str(a["size"]), str(a["threads"]), f"{r['fit_s']:.1f}", f"{alone / r['fit_s']:.2f}"]
                for a, r in each("processes")
            ),
        ),
        "## Self-expressive solvers",
        "",
        "Coefficients of MNIST, 500 principal components, beside scikit-learn's pursuit and elastic net row by row, as",
        "the median of five rows, times as many as there are; the largest difference of a coefficient of these rows.",
        *grid(
            "solver | rows | seconds | scikit-learn, s | ratio | non-zero a row | difference | peak, MiB",
            (
                [
                    a["name"], f"{a['n']:,}", f"{r['seconds']:.1f}",
                    *(
                        [f"{r['sklearn_s']:,.0f}", f"{r['ratio']:.0f}", f"{r['per_row']:.0f}", f"{r['difference']:.0e}"]
                        if "ratio" in r
                        else [""] * 4
                    ),
                    f"{r['peak_mib']:,.0f}",
                ]
                for a, r in each("solver")
            ),
        ),
        *grid(
            "whole fit | rows | ACC | NMI | ARI | seconds | peak, MiB",
            (
                [
                    a["method"], f"{a['n']:,}", *(cell([r[s]]) for s in ("acc", "nmi", "ari")),
                    f"{r['seconds']:.0f}", f"{r['peak_mib']:,.0f}",
                ]
                for a, r in each("whole")
            ),
        ),
    ]  # fmt: skip
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def measured(rows: dict[str, dict]) -> str:
    """ACC of the neural methods at their defaults and with augmentation, of k-means, and of the best of the others."""
    found = [g for g in groups(plan(protocol="quick"), rows) if g.rows and g.run.experiment == "fit"]
    found = [g for g in found if g.run.name in ("quick", "classical") and g.run.arguments["data"] in SHOWN]
    own = [method for method, _ in PAPERS.values()]
    lines: dict[str, dict[str, str]] = {}
    for method in own:
        for suffix, name in (("", method), ("augmented", f"{method}, augmented")):
            for setting in (*DEFAULTS, *SHORTER):  # the default, or the nearest to it that was run
                wanted = ", ".join(part for part in (setting, suffix) if part)
                for g in (g for g in found if (g.method, g.setting) == (method, wanted)):
                    text = _acc(g) + "*" * (setting in SHORTER)
                    lines.setdefault(name, {}).setdefault(g.run.arguments["data"], text)
    plain = [g for g in found if g.method not in own and not g.setting]
    for g in plain:
        if g.method in ("AEKMeans", "KMeans"):
            lines.setdefault(g.method, {})[g.run.arguments["data"]] = _acc(g)
    last = lines.setdefault("best of the rest", {})
    for data in SHOWN:
        rest = [g for g in plain if g.run.arguments["data"] == data and g.method not in lines]
        if rest:
            best = max(rest, key=lambda g: mean(r["acc"] for r in g.rows))
            last[data] = f"{best.method} {_acc(best)}"
    header = ["ACC, %", *SHOWN.values()]
    return markdown([Table(header, [[name, *(by.get(data, "") for data in SHOWN)] for name, by in lines.items()])])


def _acc(g: Group) -> str:
    return cell(row["acc"] for row in g.rows) + few(g)


def with_measured(text: str, rows: dict[str, dict]) -> str:
    """README.md with its table as the rows have it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{measured(rows)}\n{END}{after}"


def reliability(found: dict[str, list[dict]]) -> str:
    """docs/reliability.md."""

    def each(name: str) -> list[tuple[dict, dict]]:
        return [(row["arguments"], row) for row in found.get(name, [])]

    lines = [
        "# Reliability",
        "",
        "Written by `make results` from the rows of `neuralclust bench run --tasks benchmarks/speed.toml`; two cores.",
        "",
        "## A fit that is killed",
        "",
        "`kill -9` at random moments of a fit with checkpoints, each time started again with `resume=True`; then the",
        "saved model is compared, byte for byte, with that of a fit that nobody disturbed.",
        *grid(
            "method | kills survived | of them while a checkpoint was being written | the same model",
            (
                [a["method"], str(r["kills"]), str(r["while_writing"]), "yes" if r["same"] else "NO"]
                for a, r in each("kills")
            ),
        ),
        "## One of two processes is killed",
        "",
        "`kill -9` of one of two processes of a fit at random moments, each time started again with `resume=True`, at",
        "the end as one process: how long the other one took to end, with the reason in its error, and how far the",
        "model is from that of one process which nobody disturbed.",
        *grid(
            "method | kills | longest wait, s | said why | the same labels | centres differ by",
            (
                [
                    a["method"], str(r["kills"]), f"{r['longest_s']:.1f}", f"{r['told']} of {r['kills']}",
                    "yes" if r["labels"] else "NO", f"{r['centers']:.0e}",
                ]
                for a, r in each("partners")
            ),
        ),
        "## Any input",
        "",
        "Generated rows (8 dtypes, dense, sparse, lists; scales of 1e-30 to 1e30, far offsets, constant rows, copies,",
        "huge outliers, NaN) with generated parameters, valid or not, over all neural methods: each ends in a model",
        "whose labels are those of `predict` and whose probabilities sum to 1, or in a ValueError or TypeError that",
        "leaves the estimator as it was. And saved models with bits flipped, bytes cut or put in: each is refused with",
        "a ValueError or gives the same predictions.",
        *grid(
            "cases of each kind | without a fault | minutes",
            ([f"{r['cases']:,}", "yes" if r["ok"] else "NO", f"{r['seconds'] / 60:.0f}"] for _, r in each("cases")),
        ),
        "## Hard arithmetic",
        "",
        "Three clear clusters, 240 rows in 16 dimensions (standard deviation .05 about directions), small networks:",
        "agreement of the labels with the classes (adjusted Rand index). Equal rows have nothing to be told apart by.",
        "Beside one row a million times as large the others are nearly equal in float32, of which the fit warns.",
        *grid(
            "method | " + " | ".join(next((r["agreement"] for _, r in each("stress")), {})),
            ([a["method"], *(f"{max(v, 0):.2f}" for v in r["agreement"].values())] for a, r in each("stress")),
        ),
        "The same fit on one thread and on two: labels, and the largest difference of a code. On the same number of",
        "threads the same seed gives the same bits.",
        *grid(
            "method | the same labels | codes differ by",
            ([a["method"], "yes" if r["labels"] else "NO", f"{r['codes']:.0e}"] for a, r in each("threads")),
        ),
        "## Files larger than memory",
        "",
        "TELL, 64-64-64-10, one epoch of each stage and `predict`, on a memory-mapped float32 table of 64 columns.",
        "Own: the process with its libraries; mapped: pages of the file, which the system takes back as it needs.",
        *grid(
            "rows | file, MiB | fit, s | predict, s | own, MiB | mapped, MiB",
            (
                [
                    f"{a['n']:,}", f"{r['file_mib']:,.0f}", f"{r['fit_s']:.0f}", f"{r['predict_s']:.0f}",
                    f"{r['own_mib']:,.0f}", f"{r['mapped_mib']:,.0f}",
                ]
                for a, r in each("memory")
            ),
        ),
        "`open_rows` of a folder of 20 Parquet files, 64 columns of float32: the copy that makes rows readable in any",
        "order.",
        *grid(
            "rows | file, MiB | copy, s | own, MiB",
            (
                [f"{a['n']:,}", f"{r['file_mib']:,.0f}", f"{r['copy_s']:.0f}", f"{r['own_mib']:,.0f}"]
                for a, r in each("parquet")
            ),
        ),
    ]  # fmt: skip
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


if __name__ == "__main__":
    README.write_text(with_measured(README.read_text(), Results(HERE / "results.jsonl").read()))
    (HERE / "README.md").write_text(document(rows()))
    (HERE.parent / "docs" / "reliability.md").write_text(reliability(rows()))
