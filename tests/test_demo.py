"""The demo with tiny networks, and the pictures."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA

import neuralclust
from neuralclust import cli, demo, plots
from neuralclust.metrics import clustering_accuracy


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    network = {"hidden_layer_sizes": (32,), "pretrain_epochs": 2}
    joint = {**network, "max_epochs": 2}
    methods = {"KMeans": {"n_init": 1}, "AEKMeans": network, "KMeansNet": joint, "TELL": joint}
    methods[demo.SHOWN] = {**joint, "augment": "digits"}
    monkeypatch.setattr(demo, "METHODS", methods)
    X, y = demo.digits()
    monkeypatch.setattr(demo, "digits", lambda: (X[:300], y[:300]))
    return X[:300], y[:300]


def test_demo_end_to_end(tiny, tmp_path, monkeypatch, capsys):
    X, y = tiny
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "--seeds", "2"]) == 0
    out, err = capsys.readouterr()
    assert "TELL" in err  # the progress bars
    folder = tmp_path / "neuralclust-demo"
    assert {file.name for file in folder.iterdir()} == set(demo.FILES)
    for picture in folder.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert 5_000 < picture.stat().st_size < 200_000

    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("method"))
    table = lines[start : start + 8]
    assert max(map(len, table)) <= 80
    assert [line.split()[0] for line in table[2:7]] == list(demo.METHODS)
    assert table[0].split() == ["method", "ACC", "NMI", "ARI", "seconds"]
    scores = json.loads((folder / "run.json").read_text())["scores"]
    assert {name: len(rows) for name, rows in scores.items()} == dict.fromkeys(demo.METHODS, 2)
    accuracies = [100 * row["ACC"] for row in scores[demo.SHOWN]]
    assert table[6].split()[1:4] == [f"{np.mean(accuracies):.1f}", "±", f"{np.std(accuracies):.1f}"]

    model = neuralclust.load(folder / "model")
    labels = np.loadtxt(folder / "labels.csv", skiprows=1)
    assert (model.predict(np.load(folder / "digits.npy")) == labels).all()
    assert (np.load(folder / "digits.npy") == X).all()
    assert clustering_accuracy(y, labels) == scores[demo.SHOWN][0]["ACC"]
    assert model.random_state == 0

    following = lines[-1].removeprefix("Next: neuralclust ").split()
    assert cli.main(following) == 0  # the command that the user is told to try
    assert (np.loadtxt("labels.csv", skiprows=1, delimiter=",")[:, 0] == labels).all()
    assert cli.main(["evaluate", "labels.csv", "neuralclust-demo/truth.csv"]) == 0
    assert f"{scores[demo.SHOWN][0]['ACC']:.4f}" in capsys.readouterr().out
    assert cli.main(["demo", "--seeds", "1", "--quiet"]) == 0  # over the earlier one
    out, err = capsys.readouterr()
    assert err == ""
    assert "one seed" in out


def test_classes_never_reach_a_fit(tiny, tmp_path, monkeypatch):
    """Whatever the classes are, every label and every tensor is the same: only the scores differ."""
    X, y = tiny
    found = []
    for name, classes in {"true": y, "poisoned": np.random.default_rng(0).permutation(y)}.items():
        monkeypatch.setattr(demo, "digits", lambda classes=classes: (X, classes))
        folder = tmp_path / name
        folder.mkdir()
        said = []
        demo.run(folder, seeds=1, say=said.append, quiet=True)
        files = ("labels.csv", "model/model.safetensors", "model/config.json", "centers.png", "embedding.png")
        results = {file: (folder / file).read_bytes() for file in files}
        found.append((results, json.loads((folder / "run.json").read_text())["scores"]))
    assert found[0][0] == found[1][0]
    assert found[0][1]["TELL"][0]["ACC"] > found[1][1]["TELL"][0]["ACC"]


def test_fits_are_given_no_classes(tiny, tmp_path, monkeypatch):
    seen = []
    for name in demo.METHODS:
        if name == demo.SHOWN:
            continue  # TELL again
        cls = neuralclust.registry.resolve(name)

        def fit(self, X, *args, original=cls.fit, **kwargs):
            seen.append((type(self).__name__, args, kwargs))
            return original(self, X)

        monkeypatch.setattr(cls, "fit", fit)
    demo.run(tmp_path, seeds=1, say=lambda _: None, quiet=True)
    assert {name for name, _, _ in seen} == set(demo.METHODS) - {demo.SHOWN}
    assert [name for name, _, _ in seen].count("TELL") == 2
    assert all(not args and not kwargs for _, args, kwargs in seen)


def test_all_networks_get_the_same_settings():
    methods = importlib.reload(demo).METHODS
    for name in ("AEKMeans", "KMeansNet"):
        assert methods["TELL"] | methods[name] == methods["TELL"]


def test_demo_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "--seeds", "0"]) == 2
    assert "--seeds 0 must be at least 1" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["demo"]) == 2
    assert "pip install 'neuralclust[report]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_demo_without_rich(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    said = []
    demo.run(tmp_path, seeds=1, say=said.append)
    assert any("pip install 'neuralclust[cli]'" in line for line in said)


# -- pictures ---------------------------------------------------------------------------------------------


def texts(figure):
    return [text.get_text() for panel in figure.axes for text in panel.texts]


def titles(figure):
    return [panel.get_title() for panel in figure.axes if panel.axison]


def test_pictures_need_no_pyplot():
    code = (
        "import sys\nfrom neuralclust import plots\n"
        "plots.embedding([[0, 0], [1, 1]], [0, 1], [[0, 0], [1, 1]]).savefig(__import__('io').BytesIO())\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr


def test_history():
    rows = [{"init": 0, "stage": "pretrain", "epoch": e, "loss": 1 / (e + 1), "rec": 1 / (e + 1)} for e in range(4)]
    rows += [{"init": 0, "stage": "fit", "epoch": e, "loss": 0.1, "rec": 0.1, "clu": -0.5 - e} for e in range(3)]
    scores = [{"init": 0, "stage": "fit", "epoch": e, "ACC": 0.5, "NMI": 0.25} for e in range(3)]
    figure = plots.history(rows, scores)
    rec, clu, agreement = figure.axes
    assert rec.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert rec.get_yscale() == "log"
    assert clu.lines[0].get_xdata().tolist() == [5, 6, 7]
    assert clu.lines[0].get_ydata().tolist() == [-0.5, -1.5, -2.5]
    assert agreement.lines[0].get_ydata().tolist() == [50, 50, 50]
    assert [text.get_text() for text in agreement.get_legend().get_texts()] == ["ACC", "NMI"]
    assert texts(figure) == ["pretraining", "joint"]
    assert len(plots.history(rows[:4]).axes) == 1
    two = [{**row, "init": run} for run in (0, 1) for row in rows]
    assert len(plots.history(two).axes[1].lines) == 2
    assert titles(plots.history([{"init": 0, "stage": "fit", "epoch": 0, "loss": 2.0}])) == ["loss"]
    with pytest.raises(ValueError, match="empty"):
        plots.history([])


def test_centers():
    images = np.arange(12 * 4, dtype=float).reshape(12, 2, 2)
    figure = plots.centers(images, np.arange(12) * 1000)
    assert titles(figure)[11] == "cluster 11\n11,000 rows"
    assert len(titles(figure)) == 12
    shown = figure.axes[11].images[0]
    assert (shown.get_array() == images[11]).all()
    assert shown.get_clim() == (0, 47)  # one scale for all, or they could not be compared
    colours = plots.centers(np.stack([np.zeros((3, 4, 5)), np.full((3, 4, 5), 2.0)]))
    assert colours.axes[1].images[0].get_array().shape == (4, 5, 3)
    assert float(colours.axes[1].images[0].get_array().max()) == 1
    profiles = plots.centers([[0, 1, 2], [2, 1, 0]])
    assert profiles.axes[1].lines[0].get_ydata().tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="shape"):
        plots.centers([1.0, 2.0])


def test_embedding():
    points = np.random.default_rng(0).normal(size=(50, 2))
    labels = np.arange(50) % 12
    figure = plots.embedding(points, labels, points[:12], title="seen")
    assert titles(figure) == ["seen"]
    assert texts(figure) == [str(j) for j in range(12)]
    cloud = figure.axes[0].collections[0]
    at = {
        tuple(point): tuple(colour)
        for point, colour in zip(cloud.get_offsets().data, cloud.get_facecolors(), strict=True)
    }
    assert at[tuple(points[0])] == at[tuple(points[10])]  # ten colours, then again from the first
    assert len({at[tuple(points[i])] for i in range(10)}) == 10


def test_a_map_of_codes_is_that_of_their_principal_components():
    codes = np.random.default_rng(0).normal(size=(50, 6)) * [9, 1, 1, 5, 1, 1] + 3
    figure = plots.embedding(codes, np.where(np.arange(50) % 2, "odd", "even"), codes[:2])
    cloud = np.asarray(figure.axes[0].collections[0].get_offsets())
    expected = PCA(2).fit(codes)
    assert np.allclose(cloud.std(axis=0, ddof=1) ** 2, expected.explained_variance_)
    centers = [collection.get_offsets().data[0] for collection in figure.axes[0].collections[1:]]
    assert np.allclose(np.abs(centers), np.abs(expected.transform(codes[:2])))
    assert len(np.unique(figure.axes[0].collections[0].get_facecolors(), axis=0)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.0], [1.0]], [0, 1]), r"points has shape \(2, 1\)"),
        (([[0.0, 1.0], [1.0, 0.0]], [0, 1, 2]), r"labels has shape \(3,\), but a label for each of 2"),
        (([[0.0, 1.0], [1.0, 0.0]], [0, 1], [[0.0, 1.0, 2.0]]), r"centers has shape \(1, 3\); \(k, 2\)"),
    ],
)
def test_maps_of_what_does_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.embedding(*arguments)


@pytest.mark.parametrize("draw", [plots.history, plots.centers])
def test_an_estimator_is_no_picture(draw):
    with pytest.raises(TypeError, match="is an estimator: give"):
        draw(PCA())


def test_confusion():
    y = np.array(list("aaabbbcc"))
    labels = np.array([5, 5, 5, 2, 2, 9, 7, 7])
    figure = plots.confusion(y, labels)
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.get_yticklabels()] == [
        "5",
        "2",
        "7",
        "9",
    ]  # 9 has no class left
    assert panel.images[0].get_array().tolist() == [[3, 0, 0], [0, 2, 0], [0, 0, 2], [0, 1, 0]]
    assert texts(figure) == ["3", "2", "2", "1"]
    assert "87.5 %" in titles(figure)[0]
