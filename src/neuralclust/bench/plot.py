"""Pictures of what the rows are enough for, each a matplotlib ``Figure``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralclust.bench.groups import DEFAULTS, SHORTER, TABLES, Group, by_blocks, groups
from neuralclust.bench.pages import Picture
from neuralclust.bench.papers import PAPERS, STAND_INS, published
from neuralclust.bench.plan import Run
from neuralclust.plots import COLORS, _figure, _open_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What is to be seen in each picture.
CAPTIONS = {
    "published": "The best ACC that each paper prints anywhere for its method, of whatever network and run (|), and "
    "ours, a point a seed: as it comes, fully connected but for NCSC, and with augmentation, which no paper's method "
    "has. CIFAR-10 is all of it in the papers of KMeansNet, TELL and SSCNet.",
    "curves": "Joint training on the digits, one seed: accuracy, NMI, and the loss.",
    "centers": "Decoded centres of TELL on the digits over joint training with augmentation, one seed (its Figure 5, "
    "there on MNIST); epoch 0: the means of the spectral clusters that it starts from.",
    "maps": "t-SNE of 500 codes of TELL on the digits over the same training; colours are classes, pentagons centres "
    "(its Figure 6, there on MNIST).",
    "maps_sscnet": "t-SNE of 1,000 codes of SSCNet on USPS over joint training (its Figure 2, there up to epoch 100); "
    "pentagons are the means of its clusters.",
    "maps_ncsc": "The first two principal components of 2,000 codes of NCSC on Fashion-MNIST (its Figure 4); pentagons "
    "are the means of its clusters.",
    "blocks": "SSCNet by the number of blocks (its Figure 3, there rising up to 4 on MNIST), each point a seed.",
    "invariance": "DCSAI on the digits, one seed (its Figure 1a, on MNIST, where the divergence falls as the accuracy "
    "rises). Left: the divergence of Eq. 5 as printed between Euclidean and cosine assignments, and the accuracy of "
    "k-means on the codes, while an autoencoder learns: from epoch 10 on both rise. Right, another network: divergence "
    "(with this variant's powers and scales) and accuracy of the repaired DCSAI in joint training: it falls, and the "
    "accuracy stays.",
    "optimiser": "Optimisers on the digits, fully connected nets with hard targets (TELL, Table 6, and k-meansNet, "
    "Table 5, on MNIST with a convolutional one, have AdaDelta first).",
    "two-stage": "On the digits, the encoder fixed after pretraining, or trained with the centres (TELL, Table 4, on "
    "MNIST 80.7 and 93.3).",
    "start": "First centres on the digits (k-meansNet, Table 4, on MNIST: on codes 87.6 to 87.8 whatever the start).",
    "alpha": "k-meansNet's alpha on the digits (its Figure 3, of the printed variant on MNIST, is flat at about 85); "
    "here of the repaired one, whose own is 5.",
    "noise": "DCSAI on the digits by the noise of its autoencoder (its Figure 4, on MNIST, spans 82 to 87).",
    "rate_decay": "DCSAI on the digits by the factor of its learning rate every five epochs (its Figure 5, there every "
    "300).",
    "code_length": "DCSAI on the digits by the length of the codes (its Figure 6).",
    "online": "The training rows of MNIST as a stream, each batch predicted before it is learned (TELL, Table 5). "
    "Codes: of a TELL that has seen all rows, in place of IIC's; there is little left to tell apart.",
}


def drawn(folder: Path, base: Path) -> list[Picture]:
    """The pictures in a folder, with captions, for a page in another one."""
    paths = {name: folder / f"{name}.png" for name in CAPTIONS}
    return [Picture(os.path.relpath(path, base), CAPTIONS[name]) for name, path in paths.items() if path.is_file()]


def figures(runs: Sequence[Run], rows: dict[str, dict[str, Any]]) -> dict[str, Figure]:
    """Every picture that the rows are enough for.

    Parameters
    ----------
    runs : sequence of Run
        The plan.
    rows : dict of str to dict
        As :meth:`Results.read` gives them.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        By name: see ``CAPTIONS``.
    """
    found = [g for g in groups(runs, rows) if g.rows and not g.derived]
    named: dict[str, list[Group]] = {}
    for g in found:
        named.setdefault(g.run.name, []).append(g)
    out = {
        "published": beside_published(found),
        "curves": curves(named.get("curve", [])),
        "blocks": blocks(found),
        **{name.replace(" ", "_"): sweep(name, members) for name, members in named.items() if is_sweep(members)},
    }
    for g in named.get("progress", []):
        if g.method == "TELL":
            out.update(centers=centers(g.rows[0]), maps=maps(g.rows[0]))
        else:
            out[f"maps_{g.method.lower()}"] = maps(g.rows[0])
    for g in named.get("invariance", []):
        out["invariance"] = invariance(g.rows[0])
    return {name: figure for name, figure in out.items() if figure is not None}


def beside_published(found: list[Group]) -> Figure | None:
    """For each data set the ACC that a paper prints for its own method, and ours, plain and augmented."""
    pairs = []
    for paper, (method, _) in PAPERS.items():
        own = [line for line in published(paper) if line["method"] == method and line["acc"]]
        lines = [line for line in own if not line["setting"].startswith("IIC")]  # codes of another system
        for data in dict.fromkeys(line["data"] for line in lines):
            printed = max(float(line["acc"]) for line in lines if line["data"] == data)
            here = STAND_INS.get(data, data)
            mine = {
                g.setting: [100 * row["acc"] for row in g.rows]
                for g in found
                if (g.method, g.run.arguments["data"]) == (method, here)
                and g.run.name in TABLES
                and g.run.protocol == "quick"
            }
            plain = next((name for name in (*DEFAULTS, *SHORTER) if name in mine), None)
            views = next((name for name in mine if name.endswith("augmented")), None)
            if plain is not None or views:
                label = f"{method}, {here}" + (f"\n({plain})" if plain and plain not in DEFAULTS else "")
                pairs.append((label, printed, mine.get(plain or "", []), mine.get(views or "augmented", [])))
    if not pairs:
        return None
    figure = _figure(7, 0.48 * len(pairs) + 1.1)
    panel = figure.subplots()
    for i, (_, printed, ours, views) in enumerate(reversed(pairs)):
        for values, color, name in ((ours, COLORS[0], "ours, a seed"), (views, COLORS[1], "ours, augmented")):
            panel.plot(
                values, [i] * len(values), "o", color=color, alpha=0.8, markersize=6, label=name if not i else ""
            )
        panel.plot(
            printed, i, "|", color=COLORS[2], markersize=16, markeredgewidth=2.5, label="published" if not i else ""
        )
    panel.set_yticks(range(len(pairs)), [label for label, *_ in reversed(pairs)])
    panel.set_xlabel("ACC, %")
    figure.legend(frameon=False, loc="outside upper center", ncols=3)
    _open_frame(panel)
    return figure


def curves(members: list[Group]) -> Figure | None:
    """Accuracy and loss of joint training."""
    members = [g for g in members if "curve" in g.rows[0]]
    if not members:
        return None
    lowest = min(100 * p[s] for g in members for p in g.rows[0]["curve"] if p["stage"] == "fit" for s in ("acc", "nmi"))
    columns = min(3, len(members))
    lines = -(-len(members) // columns)
    figure = _figure(3.4 * columns + 0.4, 2.8 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel in panels[len(members) :]:
        panel.set_axis_off()
    for panel, g in zip(panels, members, strict=False):
        points = [p for p in g.rows[0]["curve"] if p["stage"] == "fit"]
        epochs = [p["epoch"] + 1 for p in points]
        panel.plot(epochs, [100 * p["acc"] for p in points], color=COLORS[0], label="ACC")
        panel.plot(epochs, [100 * p["nmi"] for p in points], color=COLORS[1], label="NMI")
        panel.set_title(g.method)
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylim(10 * (lowest // 10), 100)
        _open_frame(panel)
        loss = panel.twinx()
        loss.plot(epochs, [p["loss"] for p in points], ":", color=COLORS[3])
        loss.set_ylabel("loss (dotted)", color="#717581")
        loss.spines["top"].set_visible(False)
        panel.set_ylabel("%")
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=2)
    return figure


_NARROWEST = 5.0  # points of accuracy that a panel spans: less would show differences that are none


def is_sweep(members: list[Group]) -> bool:
    """Whether the groups differ by the values of one or two parameters, and have scores."""
    scored = all("acc" in g.rows[0] for g in members)
    return (
        members[0].run.name not in (*TABLES, "curve", "blocks", "progress", "invariance")
        and scored
        and len(members) > 1
    )


def sweep(name: str, members: list[Group]) -> Figure:
    """ACC for each value, mean and spread, a panel a method."""
    methods = list(dict.fromkeys(g.method.removeprefix("online ") for g in members))
    figure = _figure(3.6 * len(methods) + 1.4, 0.3 * max(len(members) / len(methods), 3) + 1.2)
    panels = figure.subplots(1, len(methods), squeeze=False, sharex=True)[0]
    for panel, method in zip(panels, methods, strict=True):
        mine = [g for g in members if g.method.removeprefix("online ") == method]
        labels = [(f"{g.method}, " if g.method != method else "") + g.setting for g in mine]
        for i, g in enumerate(reversed(mine)):
            values = [100 * row["acc"] for row in g.rows]
            panel.errorbar(
                mean(values), i, xerr=stdev(values) if len(values) > 1 else 0, fmt="o", color=COLORS[0], capsize=3
            )
        panel.set_yticks(range(len(mine)), labels[::-1])
        panel.set_ylim(-0.6, len(mine) - 0.4)
        panel.set_xlabel("ACC, %")
        panel.set_title(method, fontsize=10)
        _open_frame(panel)
    panel.set_xlim(_wide(*panel.get_xlim()))
    seeds = "-".join(map(str, sorted({len(g.rows) for g in members})))
    figure.suptitle(f"{name}, {members[0].run.arguments['data']}, seeds: {seeds}", fontsize=11)
    return figure


def blocks(found: list[Group]) -> Figure | None:
    """SSCNet by the number of blocks (its Figure 3, there on MNIST): each seed a point."""
    mine = {n: g.rows for n, g in by_blocks(found).items()}
    if len(mine) < 3:
        return None
    figure = _figure(6, 3.6)
    panel = figure.subplots()
    order = list(mine)
    for (score, label), color in zip((("acc", "ACC"), ("nmi", "NMI")), COLORS, strict=False):
        panel.plot(order, [100 * mean(r[score] for r in mine[b]) for b in order], color=color, label=label)
        panel.plot(
            [b + 0.05 * i for b in order for i in range(len(mine[b]))],
            [100 * r[score] for b in order for r in mine[b]],
            "o", color=color, markersize=4,
        )  # fmt: skip
    panel.plot(order, [100 * mean(r["kmeans"]["acc"] for r in mine[b]) for b in order], "--", color=COLORS[3],
               label="ACC of k-means on the codes")  # fmt: skip
    panel.set_xticks(order)
    panel.set_xlabel("blocks after the first code")
    panel.set_ylabel("%")
    panel.set_title("SSCNet on USPS")
    panel.legend(frameon=False, ncols=3, loc="center", bbox_to_anchor=(0.5, 0.27), fontsize=9)
    _open_frame(panel)
    return figure


def centers(row: dict[str, Any]) -> Figure:
    """Decoded centres over training, a line an epoch."""
    shots = row["shots"]
    k = len(shots[0]["centers"])
    figure = _figure(0.75 * k + 0.8, 0.8 * len(shots) + 0.3)
    for panels, shot in zip(figure.subplots(len(shots), k, squeeze=False), shots, strict=True):
        images = np.asarray(shot["centers"])
        for panel, image in zip(panels, images, strict=True):
            panel.imshow(image, cmap="gray_r", vmin=images.min(), vmax=images.max())
            panel.set_xticks([])
            panel.set_yticks([])
        panels[0].set_ylabel(f"epoch {shot['epoch']}", rotation=0, ha="right", va="center")
    figure.suptitle("Decoded centres of TELL over joint training")
    return figure


def maps(row: dict[str, Any]) -> Figure:
    """A plane of the codes over training, coloured by class; centres as black pentagons."""
    shots, classes = row["shots"], np.asarray(row["classes"])
    figure = _figure(2.5 * len(shots), 2.9)
    for panel, shot in zip(figure.subplots(1, len(shots), squeeze=False)[0], shots, strict=True):
        points = np.asarray(shot["points"])
        n = len(classes)
        colors = [COLORS[c % len(COLORS)] for c in classes]
        panel.scatter(*points[:n].T, s=4, c=colors, linewidths=0)
        panel.scatter(*points[n:].T, s=30, c="none", edgecolors="black", marker="p")
        panel.set_title(f"epoch {shot['epoch']}, ACC {100 * shot['acc']:.1f}", fontsize=10)
        panel.set_xticks([])
        panel.set_yticks([])
    return figure


def _wide(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis on which small differences look small."""
    wider = max(0.0, _NARROWEST - (high - low)) / 2
    return low - wider, high + wider


def invariance(row: dict[str, Any]) -> Figure:
    """The disagreement of two assignments beside the accuracy (Figure 1a of DCSAI)."""
    figure = _figure(8.6, 3.3)
    parts = (("autoencoder", "learning to reconstruct"), ("joint", "learning to agree"))
    for left, (part, title) in zip(figure.subplots(1, 2), parts, strict=True):
        points = row[part]
        epochs = [p["epoch"] for p in points]
        left.plot(epochs, [p["kl"] for p in points], color=COLORS[0], marker="o", markersize=3)
        left.xaxis.get_major_locator().set_params(integer=True)
        left.set_xlabel("epoch")
        left.set_ylabel("divergence of P1 and P2", color=COLORS[0])
        left.set_title(title)
        right = left.twinx()
        right.plot(epochs, [100 * p["acc"] for p in points], color=COLORS[2], marker="o", markersize=3)
        right.set_ylabel("ACC, %", color=COLORS[2])
        right.set_ylim(_wide(*right.get_ylim()))
    return figure
