"""Every picture is made from rows that are enough for it, and from no others."""

import numpy as np
import pytest

from neuralclust.bench import plan, plot

pytest.importorskip("matplotlib")


def scores(acc):
    return {"acc": acc, "nmi": acc, "ari": acc}


def test_every_picture(tmp_path):
    runs, rng = plan(), np.random.default_rng(0)
    rows = {}
    for run in runs:
        row = {"key": run.key, "seed": run.seed, **scores(rng.random())}
        if run.arguments.get("every"):
            row["curve"] = [{"stage": "fit", "epoch": i, "loss": 1 / (i + 1), **scores(0.5)} for i in range(4)]
        if run.arguments.get("method") == "SSCNet":
            row["kmeans"] = scores(0.4)
        if run.experiment == "progress":
            shot = {"points": rng.random((60, 2)).tolist(), "centers": rng.random((10, 8, 8)).tolist(), **scores(0.5)}
            row.update(shots=[{"epoch": e, **shot} for e in (0, 3)], classes=rng.integers(0, 10, 50).tolist())
        if run.experiment == "invariance":
            part = [{"epoch": i, "kl": 1.0 / (i + 1), "acc": 0.5} for i in range(3)]
            row.update(autoencoder=part, joint=part)
        rows[run.key] = row
    found = plot.figures(runs, rows)
    assert found.keys() == plot.CAPTIONS.keys()
    for name, figure in found.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert figure.axes
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    labels = [text.get_text() for text in found["published"].axes[0].get_yticklabels()]
    assert any(label.startswith("TELL, mnist") for label in labels)


def test_no_rows_no_pictures():
    assert plot.figures(plan(), {}) == {}


def test_a_sweep_has_a_line_a_value(tasks):
    runs = plan(
        [tasks('[[tasks]]\nname = "rate"\ndata = "digits"\nmethod = "TELL"\nsweep = { lr = [0.1, 0.2] }\nseeds = 2')]
    )
    rows = {run.key: {"key": run.key, "seed": run.seed, **scores(0.5 + run.seed / 10)} for run in runs}
    (panel,) = plot.figures(runs, rows)["rate"].axes
    assert [text.get_text() for text in panel.get_yticklabels()] == ["lr 0.2", "lr 0.1"]
    assert len(panel.containers) == 2
