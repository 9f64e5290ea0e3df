"""The command line, end to end in temporary folders."""

import csv
import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn

import neuralclust
from neuralclust import _extras, callbacks, cli, files
from neuralclust.datasets import make_sphere_clusters
from neuralclust.metrics import evaluate
from neuralclust.scoring import score_rows

TINY = [
    "--n-clusters",
    "3",
    "--hidden-layer-sizes",
    "16",
    "--embed-dim",
    "4",
    "--random-state",
    "0",
    "--quiet",
]
EPOCHS = ["--pretrain-epochs", "2", "--max-epochs", "2"]


@pytest.fixture(scope="module")
def data():
    X, y = make_sphere_clusters(90, 3, 8, noise=0.1, random_state=0)
    return X.astype(np.float32), y


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fails(capsys):
    """Run a command that must fail; its one line of explanation."""

    def run(*argv):
        assert cli.main([str(arg) for arg in argv]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("neuralclust: error: ")
        assert err.count("\n") == 1
        return err

    return run


def labels_of(path):
    with open(path) as file:
        header, *rows = csv.reader(file)
    assert header[0] == "label"
    return np.array([int(row[0]) for row in rows])


def fit(folder, X, *options, method="tell", name="run"):
    np.save(folder / "X.npy", X)
    argv = [
        "fit",
        "X.npy",
        "--method",
        method,
        "--out",
        name,
        *TINY,
        *(EPOCHS if method == "tell" else ()),
        *options,
    ]
    assert cli.main(argv) == 0
    return folder / name


# -- start ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["fit", "--help"], ["list"]])
def test_answers_without_heavy_imports(argv):
    code = (
        "import sys\nfrom neuralclust import cli\n"
        f"try:\n    cli.main({argv})\nexcept SystemExit as end:\n    assert not end.code\n"
        "print([m for m in ('torch', 'numpy', 'sklearn', 'scipy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_version_and_list(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"neuralclust {neuralclust.__version__}\n"
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for name, method in neuralclust.registry.ALL.items():
        (line,) = [line for line in out.splitlines() if line.split()[0] == name]
        assert str(method.year) in line
        assert method.family in line
    text = " ".join(out.split())
    assert "Orthogonal Matching Pursuit neuralclust.SubspaceClustering(k, method='ssc_omp')" in text
    assert "sklearn.cluster.AgglomerativeClustering(k, linkage='average')" in text
    for name in ("TELL", "FuzzyCMeans", "KMeans", "GaussianMixture"):
        assert f"{name}(k" not in text
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert f"Neural clustering: {', '.join(neuralclust.registry.METHODS)}, beside" in " ".join(
        capsys.readouterr().out.split()
    )


def test_help_of_a_method_explains_its_parameters(capsys):
    with pytest.raises(SystemExit):
        cli.main(["fit", "--method", "kmeansnet", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "parameters of KMeansNet" in text
    assert (
        "--max-epochs VALUE Epochs of joint training. None: enough for 2,000 steps, 20 to 60 (repaired), 3000 (paper)."
        in text
    )
    assert "0.4 %" not in text  # notes are not parameters
    assert "--n-components" not in text


@pytest.mark.parametrize("method", neuralclust.registry.ALL)
def test_every_method_has_help(capsys, method):
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", "--method", method, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    estimator = neuralclust.registry.make(method, 2)
    assert (f"parameters of {type(estimator).__name__}" in out) == (len(estimator.get_params()) > 1)
    if neuralclust.registry.ALL[method].family != "baseline":
        options = re.findall(r"^  --[\w-]+ VALUE(.*\n.*)", out.partition("parameters of")[2], re.MULTILINE)
        assert all(len(text.split()) > 2 for text in options)  # each with what it is


def test_a_subspace_method_by_its_name(tmp_path, capsys):
    X = np.repeat(np.eye(3, 8), 10, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(30, 8))
    np.save(tmp_path / "x.npy", X)
    fit = ["fit", str(tmp_path / "x.npy"), "--method", "ensc", "--n-clusters", "3", "--out", str(tmp_path / "run")]
    assert cli.main([*fit, "--gamma", "20"]) == 0
    assert "EnSC: 30 rows in 3 clusters of 10 to 10" in capsys.readouterr().out


# -- fit and predict --------------------------------------------------------------------------------------


def test_fit_writes_what_the_estimator_finds(folder, data, capsys):
    X, _ = data
    np.save("X.npy", X)
    argv = ["fit", "X.npy", "--n-clusters", "3", "--hidden-layer-sizes", "16,8", "--random-state", "0"]
    assert cli.main([*argv, "--embed-dim=4", *EPOCHS, "--init", "k-means++", "--end-to-end", "false"]) == 0
    out, err = capsys.readouterr()
    assert "TELL" in err  # the progress bar
    assert "90 rows in 3 clusters" in out
    assert "\x1b" not in out
    run = folder / "neuralclust-fit"
    assert sorted(file.name for file in run.iterdir()) == ["history.jsonl", "labels.csv", "model", "run.json"]
    model = neuralclust.load(run / "model")
    assert (model.hidden_layer_sizes, model.init, model.end_to_end) == ((16, 8), "k-means++", False)
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert rows == model.history_
    assert [row["stage"] for row in rows] == ["pretrain"] * 2 + ["fit"] * 2
    params = {"hidden_layer_sizes": (16, 8), "embed_dim": 4, "pretrain_epochs": 2, "max_epochs": 2}
    by_hand = neuralclust.TELL(3, **params, init="k-means++", end_to_end=False, random_state=0).fit(X)
    for labels in (model.labels_, model.predict(X), by_hand.labels_):
        assert (labels_of(run / "labels.csv") == labels).all()


def test_quiet_is_quiet_and_predict_repeats_fit(folder, data, capsys):
    X, _ = data
    run = fit(folder, X)
    assert capsys.readouterr() == ("", "")
    assert cli.main(["predict", "run/model", "X.npy"]) == 0
    assert capsys.readouterr().out == (run / "labels.csv").read_text()
    assert cli.main(["predict", "run/model", "X.npy", "--out", "new/p.csv", "--proba", "--device", "cpu"]) == 0
    assert capsys.readouterr() == ("", "")
    assert (labels_of("new/p.csv") == labels_of(run / "labels.csv")).all()
    table = np.loadtxt("new/p.csv", delimiter=",", skiprows=1)
    assert (table[:, 1:].astype(np.float32) == neuralclust.load(run / "model").predict_proba(X)).all()
    assert os.listdir("new") == ["p.csv"]


def write_csv(path, X, header):
    np.savetxt(path, X, delimiter=",", header=header, comments="")


def write_parquet(path, X):
    import pandas

    pandas.DataFrame(X, columns=[f"c{j}" for j in range(X.shape[1])]).to_parquet(path)


WRITERS = {
    "only.npz": lambda path, X: np.savez(path, some=X),
    "named.npz": lambda path, X: np.savez(path, x=X, y=np.zeros(len(X))),
    "sparse.npz": lambda path, X: sp.save_npz(path, sp.csr_array(X)),
    "header.csv": lambda path, X: write_csv(path, X, '"a, b",c,d,e,f,g,h,1'),
    "bare.csv": lambda path, X: np.savetxt(path, X, delimiter=","),
    "mark.csv": lambda path, X: np.savetxt(path, X, delimiter=",", encoding="utf-8-sig"),
    "semicolons.csv": lambda path, X: np.savetxt(path, X, delimiter=";", header="a;b;c;d;e;f;g;h", comments=""),
    "tabs.tsv": lambda path, X: np.savetxt(path, X, delimiter="\t"),
    "packed.csv.gz": lambda path, X: np.savetxt(path, X, delimiter=",", header="a,b,c,d,e,f,g,h", comments=""),
    "packed.tsv.gz": lambda path, X: np.savetxt(path, X, delimiter="\t"),
    "table.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_clusters(folder, data, name):
    X, _ = data
    expected = labels_of(fit(folder, X) / "labels.csv")
    WRITERS[name](folder / name, X)
    assert cli.main(["fit", name, "--out", "again", *TINY, *EPOCHS]) == 0
    assert (labels_of("again/labels.csv") == expected).all()
    assert cli.main(["predict", "run/model", name, "--out", "labels.csv"]) == 0
    assert (labels_of("labels.csv") == expected).all()


KMEANS = ["--method", "aekmeans", "--encoder", "none", "--n-clusters", "3", "--random-state", "0", "--quiet"]


def write_table(path, frame):
    """As .csv, .parquet, or a folder of .parquet files."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
        return
    if not path.suffix:
        path.mkdir()
    frame.to_parquet(path if path.suffix else path / "part.parquet")


@pytest.mark.parametrize("ending", [".csv", ".parquet", ""])
def test_columns_go_by_their_names(folder, data, ending, fails, capsys, recwarn):
    import pandas

    frame = pandas.DataFrame(data[0][:, :4], columns=list("abcd"))
    tables = {
        "same": frame, "turned": frame[list("dcba")], "lacking": frame[list("abc")], "more": frame.assign(e=1.0),
        "renamed": frame.rename(columns={"a": "x"}),
    }  # fmt: skip
    for name, table in tables.items():
        write_table(folder / f"{name}{ending}", table)
    assert cli.main(["fit", f"same{ending}", *KMEANS, "--out", "run"]) == 0
    model = neuralclust.load("run/model")
    assert list(model.feature_names_in_) == list("abcd")
    labels = (folder / "run" / "labels.csv").read_text()

    def refused(name):
        return fails("predict", "run/model", f"{name}{ending}").partition("error: ")[2]

    columns = f"turned{ending} must have the columns of the model, 'a', 'b', 'c', 'd', in this order: "
    assert refused("turned") == f"{columns}they are in the order 'd', 'c', 'b', 'a'.\n"
    assert "in this order: it lacks 'd'." in refused("lacking")
    assert "in this order: it has 'e' besides (--drop leaves a column out)." in refused("more")
    assert "it lacks 'a'; it has 'x' besides" in refused("renamed")
    np.save("bare.npy", frame.to_numpy())
    for name in (f"same{ending}", "bare.npy"):
        assert cli.main(["predict", "run/model", name]) == 0
        assert capsys.readouterr() == (labels, "")
    if ending:
        assert cli.main(["predict", "run/model", f"more{ending}", "--drop", "e"]) == 0
        assert capsys.readouterr() == (labels, "")
    else:
        error = fails("predict", "run/model", "more", "--drop", "e")
        assert "write those of a folder without the column" in error
    assert (score_rows(frame, "run/model") == model.labels_).all()
    assert not recwarn.list


@pytest.mark.parametrize("order", ["as it is", "shuffled", "a part"])
def test_row_numbers_are_not_data(folder, data, order, fails):
    import pandas

    frame = pandas.DataFrame(data[0], columns=list("abcdefgh"))
    frame = frame if order == "as it is" else frame.sample(frac=1 if order == "shuffled" else 0.5, random_state=0)
    frame.to_csv("plain.csv", index=False)
    frame.to_csv("numbered.csv")
    pandas.read_csv("numbered.csv").to_csv("again.csv", index=False)  # "Unnamed: 0"
    names = {"numbered.csv": "", "again.csv": "Unnamed: 0"}
    if order != "as it is":
        frame.to_parquet("numbered.parquet")
        names["numbered.parquet"] = "__index_level_0__"
    assert cli.main(["fit", "plain.csv", *KMEANS, "--out", "run"]) == 0
    labels = (folder / "run" / "labels.csv").read_text()
    for file, name in names.items():
        for command in (["fit", file, *KMEANS, "--out", "new"], ["predict", "run/model", file]):
            assert f"{file}: column {name!r} looks like an index" in (error := fails(*command))
            assert "index=False" in error
            assert f"--drop {shlex.quote(name)};" in error
        assert cli.main(["fit", file, *KMEANS, "--out", "new", "--drop", name]) == 0
        assert (folder / "new" / "labels.csv").read_text() == labels
        assert json.loads((folder / "new" / "run.json").read_text())["drop"] == [name]
        assert cli.main(["predict", "run/model", file, "--drop", name, "--out", "p.csv"]) == 0
        assert (folder / "p.csv").read_text() == labels
    frame["a"] = np.arange(len(frame)) // 2  # no name, but no index either
    frame.rename(columns={"a": ""}).to_csv("data.csv", index=False)
    assert cli.main(["fit", "data.csv", *KMEANS, "--out", "new"]) == 0


def test_columns_that_are_left_out(folder, data, fails):
    import pandas

    X = data[0]
    frame = pandas.DataFrame(X, columns=list("abcdefgh")).assign(kind="red", owner="me")
    frame.to_csv("t.csv", index=False)
    frame.to_parquet("t.parquet")
    for name in ("t.csv", "t.parquet"):
        found, names = files.read_data(folder / name, ["kind", "owner"])
        np.testing.assert_allclose(found, X, rtol=1e-6)
        assert names == list("abcdefgh")
        assert "leave it out with --drop kind" in fails("fit", name, *KMEANS)
    frame[["kind", *"abcdefgh"]].to_csv("bare.csv", index=False, header=False)
    assert "the first line holds none, but numbers" in fails("fit", "bare.csv", *KMEANS, "--drop", "red")
    assert "--drop 'kin' is not a column; those are 'a', 'b'" in fails("fit", "t.csv", *KMEANS, "--drop", "kin")
    (folder / "one.csv").write_text("a\n1\n")
    assert "--drop leaves no column" in fails("fit", "one.csv", *KMEANS, "--drop", "a")
    (folder / "ragged.csv").write_text("a,b,c\n1,2,x\n1,2,3,4\n")
    assert "line 3 has 4 columns, not 3" in fails("fit", "ragged.csv", *KMEANS, "--drop", "c")
    (folder / "wide.csv").write_text("a,b\n1,2,3\n1,2,4\n")  # as R writes row names
    assert "line 2 has 3 columns, not 2" in fails("fit", "wide.csv", *KMEANS)
    np.save("X.npy", X)
    assert "an array has no names of columns" in fails("fit", "X.npy", *KMEANS, "--drop", "a")


def test_npy_is_mapped_and_images_are_accepted(folder, data):
    X, _ = data
    np.save("X.npy", X)
    assert isinstance(files.read_data(folder / "X.npy")[0], np.memmap)
    run = fit(folder, np.abs(X).reshape(-1, 2, 4))
    assert neuralclust.load(run / "model").reconstruct_centers().shape == (3, 2, 4)


@pytest.mark.parametrize("reader", ["polars", "pandas", None])
def test_parquet_takes_the_reader_that_is_there(folder, data, reader, monkeypatch, fails):
    X, _ = data
    write_parquet("t.parquet", X)
    monkeypatch.setattr(files, "find_spec", lambda name: name == reader or None)
    if reader is None:
        assert "needs pyarrow, polars or pandas" in fails("fit", "t.parquet", *TINY)
    else:
        assert (files.read_data(folder / "t.parquet")[0] == X).all()


def test_baselines_write_no_model(folder, data, capsys):
    X, _ = data
    for method, options in (
        ("k-means", ["--n-init", "2"]),
        ("gaussian-mixture", ["--covariance-type", "diag"]),
    ):
        np.save("X.npy", X)
        argv = [
            "fit",
            "X.npy",
            "--method",
            method,
            "--n-clusters",
            "3",
            "--out",
            method,
            "--random-state",
            "0",
        ]
        assert cli.main([*argv, *options]) == 0
        out, err = capsys.readouterr()
        assert ("its equivalent among them is --method AEKMeans --encoder none" in err) == (method == "k-means")
        assert err.count("\n") == 1
        assert "labels.csv" in out
        assert sorted(os.listdir(method)) == ["labels.csv", "run.json"]
        options = {"n_init": 2} if method == "k-means" else {"covariance_type": "diag"}
        expected = neuralclust.registry.make(method, 3, random_state=0, **options).fit_predict(X)
        assert (labels_of(f"{method}/labels.csv") == expected).all()
    run = fit(folder, X, "--encoder", "None", method="aekmeans")
    assert (run / "history.jsonl").read_text() == ""  # k-means alone has no epochs
    assert neuralclust.load(run / "model").encoder is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["ssc", "--gamma", "20"], "for SSC: .* neuralclust.SubspaceClustering(3, method='ssc', gamma=20) is"),
        (["LSC-K"], "LSC-K.* neuralclust.LandmarkSpectralClustering(3, landmarks='k-means') is fitted, and knows new"),
        (["gaussian-mixture"], "neuralclust.registry.gaussian_mixture(3) is fitted, and knows new rows by predict"),
        (["average-linkage"], "sklearn.cluster.AgglomerativeClustering(3, linkage='average') is fitted, but has no"),
    ],
)
def test_what_has_no_model_file_has_a_call_in_python(folder, data, capsys, options, told):
    np.save("X.npy", data[0])
    assert cli.main(["fit", "X.npy", "--n-clusters", "3", "--method", *options, "--quiet"]) == 0
    err = capsys.readouterr().err
    assert re.search(re.escape(told).replace(r"\.\*", ".*"), err)
    assert "AEKMeans" not in err
    call = re.search(r"In Python (.+?) is fitted, (and|but)", err)
    model = eval(call[1], {"neuralclust": neuralclust, "sklearn": sklearn}).fit(data[0])
    assert hasattr(model, "predict") == (call[2] == "and")


def test_no_progress_bar_without_rich(folder, data, monkeypatch, capsys):
    X, _ = data
    np.save("X.npy", X)
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    monkeypatch.setattr(callbacks, "ProgressBar", None)
    assert cli.main(["fit", "X.npy", *TINY[:-1], *EPOCHS]) == 0
    assert "no progress bar without rich: pip install 'neuralclust[cli]'" in capsys.readouterr().err


def test_warnings_are_one_line(folder, capsys):
    np.save("X.npy", np.ones((20, 4), dtype=np.float32))
    assert cli.main(["fit", "X.npy", *TINY, *EPOCHS]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("neuralclust: warning: ") for line in lines)


def test_warnings_and_errors_speak_of_columns_and_options(folder, fails, capsys):
    X = np.random.default_rng(0).normal(size=(60, 4))
    X[:, 2] *= 500
    table = {"delimiter": ",", "comments": "", "header": "age,height,weight,size"}
    np.savetxt("X.csv", X, **table)
    assert cli.main(["fit", "X.csv", *TINY, *EPOCHS]) == 0
    warning = capsys.readouterr().err
    assert "Column 'weight' has " in warning
    assert "Set --standardize True" in warning
    assert "n_samples=60 should be >= --n-clusters 61" in fails("fit", "X.csv", *TINY, "--n-clusters", 61)
    assert "--resume needs --checkpoint, the folder" in fails(
        "fit", "X.csv", *TINY, "--standardize", "true", "--resume"
    )
    X[7, 3] = np.nan
    np.savetxt("X.csv", X, **table)
    assert "in row 7, column 'size'" in fails("fit", "X.csv", *TINY)
    assert "in row 7, column 'size'" in fails("predict", "neuralclust-fit/model", "X.csv")
    os.makedirs("lr=0.1/column 9")
    os.rename("X.csv", "lr=0.1/column 9/n_init=3.csv")
    assert "lr=0.1/column 9/n_init=3.csv: " in fails("fit", "lr=0.1/column 9/n_init=3.csv", *TINY, "--drop", "none")
    assert "lr=0.2/X.csv: there is no such file" in fails("fit", "lr=0.2/X.csv", *TINY)


def test_components_are_clusters_only_where_they_are(folder, data):
    np.save("X.npy", abs(data[0]))
    fit = ["fit", "X.npy", "--n-clusters", "3", "--quiet", "--out", "run"]
    for method in ("nmf", "spectralclustering"):
        assert cli.main([*fit, "--method", method, "--n-components", "4"]) == 0
    assert json.loads(Path("run/run.json").read_text())["parameters"] == {"n_components": 4}
    assert cli.main([*fit, "--method", "gaussianmixture"]) == 0


def test_sparse_rows_are_for_every_method(folder, data):
    X, _ = data
    sp.save_npz("X.npz", sp.csr_array(X))
    assert cli.main(["fit", "X.npz", "--method", "lrsc", "--n-clusters", "3", "--out", "run", "--quiet"]) == 0
    assert len(labels_of("run/labels.csv")) == len(X)


def test_somebody_who_looks_on_is_told_of_loading(folder, data, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    np.save("X.npy", data[0])
    for quiet, told in (["--quiet"], False), ([], True):
        assert cli.main(["fit", "X.npy", *TINY[:-1], *EPOCHS, *quiet]) == 0
        assert ("neuralclust: loading" in capsys.readouterr().err) == told


# -- the output folder ------------------------------------------------------------------------------------


def test_an_earlier_run_is_replaced_whole(folder, data):
    X, _ = data
    run = fit(folder, X)
    before = (run / "labels.csv").read_text()
    fit(folder, X[:30], method="aekmeans")
    assert len(labels_of(run / "labels.csv")) == 30
    assert type(neuralclust.load(run / "model")).__name__ == "AEKMeans"
    assert (run / "labels.csv").read_text() != before
    assert cli.main(["fit", "X.npy", "--method", "kmeans", "--n-clusters", "3", "--out", "run", "--quiet"]) == 0
    assert sorted(os.listdir(run)) == ["labels.csv", "run.json"]  # no stale model beside other labels


def test_foreign_files_are_never_touched(folder, data, fails):
    X, _ = data
    np.save("X.npy", X)
    run = fit(folder, X)
    (run / "notes.txt").write_text("mine")
    labels = (run / "labels.csv").read_text()
    assert "'notes.txt'" in fails("fit", "X.npy", "--out", "run", *TINY, *EPOCHS)
    assert (run / "notes.txt").read_text() == "mine"
    assert (run / "labels.csv").read_text() == labels
    (folder / "truth").mkdir()
    (folder / "truth" / "labels.csv").write_text("label\n0\n")  # a name of ours, but not from a run
    assert "'labels.csv'" in fails("fit", "X.npy", "--out", "truth", *TINY, *EPOCHS)
    assert (folder / "truth" / "labels.csv").read_text() == "label\n0\n"
    assert "is a file" in fails("fit", "X.npy", "--out", "X.npy", *TINY, *EPOCHS)
    assert "'X.npy'" in fails("fit", "X.npy", "--out", ".", *TINY, *EPOCHS)


def test_a_failed_fit_leaves_nothing_and_keeps_the_earlier_run(folder, data, fails):
    X, _ = data
    run = fit(folder, X)
    before = {file: (run / file).stat().st_mtime_ns for file in os.listdir(run)}
    np.save("nan.npy", np.full((5, 8), np.nan))
    assert "NaN" in fails("fit", "nan.npy", "--out", "run", *TINY, *EPOCHS)
    assert {file: (run / file).stat().st_mtime_ns for file in os.listdir(run)} == before
    assert "NaN" in fails("fit", "nan.npy", "--out", "other", *TINY, *EPOCHS)
    assert not (folder / "other").exists()


@pytest.fixture
def ctrl_c(monkeypatch):
    # In the middle of a fit. Sent to another process, it could fall into an import, where Python may swallow it.
    monkeypatch.setattr(neuralclust.TELL, "_place_centers", lambda *_: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts without it
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_with_130_and_one_line(folder, data, ctrl_c, capsys):
    np.save("X.npy", data[0])
    assert cli.main(["fit", "X.npy", *TINY, *EPOCHS]) == 130
    assert capsys.readouterr() == ("", "neuralclust: interrupted; nothing was written\n")
    assert os.listdir(folder) == ["X.npy"]


def test_ctrl_c_tells_of_the_checkpoint(folder, data, ctrl_c, capsys):
    np.save("X.npy", data[0])
    assert cli.main(["fit", "X.npy", *TINY, *EPOCHS, "--checkpoint", "kept"]) == 130
    told = "neuralclust: interrupted; the last epoch is in kept: the same command with --resume goes on from there\n"
    assert capsys.readouterr() == ("", told)
    assert sorted(os.listdir(folder)) == ["X.npy", "kept"]


def test_text_that_is_not_utf_8_is_told(folder, fails):
    (folder / "latin.csv").write_bytes("größe,b\n1,2\n3,4\n".encode("latin-1"))
    for command in (["fit", "latin.csv", *TINY], ["evaluate", "latin.csv", "latin.csv"]):
        assert "latin.csv is not UTF-8 text: invalid start byte, 0xf6. Save it as UTF-8." in fails(*command)


def test_images_are_rows_for_methods_without_a_network(folder, data):
    X, _ = data
    np.save("rows.npy", X)
    np.save("images.npy", X.reshape(-1, 2, 4))
    for name in ("rows", "images"):
        assert (
            cli.main(
                ["fit", f"{name}.npy", "--method", "averagelinkage", "--n-clusters", "3", "--out", name, "--quiet"]
            )
            == 0
        )
    assert Path("images/labels.csv").read_text() == Path("rows/labels.csv").read_text()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("X.npy", "written as CSV"),
        ("X.csv", "would replace the data"),
        ("run/model/config.json", "a part of the model"),
    ],
)
def test_labels_never_replace_what_they_are_made_from(folder, data, fails, out, message):
    X, _ = data
    run = fit(folder, X)
    write_csv("X.csv", X, "a,b,c,d,e,f,g,h")
    before = {file: file.read_bytes() for file in (Path("X.npy"), Path("X.csv"), run / "model" / "config.json")}
    assert message in fails("predict", "run/model", "X.csv", "--out", out)
    assert all(file.read_bytes() == content for file, content in before.items())


# -- evaluate ---------------------------------------------------------------------------------------------


def test_evaluate_prints_every_metric(folder, capsys):
    truth, labels = [0, 0, 1, 1, 2, 2], [1, 1, 0, 0, 0, 2]
    (folder / "labels.csv").write_text("label,p0\n" + "".join(f"{label},0.5\n" for label in labels))
    np.save("truth.npy", truth)
    (folder / "plain.csv").write_text("".join(f"{label}\n" for label in truth))
    (folder / "other.csv").write_text("digit\n" + "".join(f"{label}.0\n" for label in truth))
    (folder / "words.csv").write_text("label\n" + "".join(f"class {label}\n" for label in truth))
    expected = evaluate(truth, labels)
    for name in ("truth.npy", "plain.csv", "other.csv", "words.csv"):
        assert cli.main(["evaluate", "labels.csv", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == pytest.approx(expected)
    assert cli.main(["evaluate", "labels.csv", "truth.npy"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {line[0]: float(line[1]) for line in table} == pytest.approx(expected, abs=1e-4)
    assert cli.main(["evaluate", "truth.npy", "labels.csv", "--json"]) == 0
    swapped = json.loads(capsys.readouterr().out)
    assert swapped["homogeneity"] == pytest.approx(expected["completeness"])


@pytest.mark.parametrize("labels", [[1, 1, 0, 0, 0, 2], list("xxyyyz")])
def test_evaluate_finds_headers_of_any_name(folder, labels, capsys, fails):
    def write(name, *lines):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))

    words = ["setosa", "setosa", "rose", "rose", "iris", "iris"]
    expected = evaluate(words, labels)
    write("labels.csv", "label", *labels)
    write("bare.csv", *labels)
    write("other.csv", "cluster", *labels)
    write("truth.csv", "species", *words)
    write("words.csv", *words)
    write("table.tsv", "label\tsize", *(f"{word}\t1,5" for word in words))
    pairs = [("labels", "truth"), ("bare", "truth"), ("truth", "labels"), ("other", "truth"), ("labels", "words"),
             ("bare", "words")]  # fmt: skip
    for first, second in [*((f"{a}.csv", f"{b}.csv") for a, b in pairs), ("labels.csv", "table.tsv")]:
        assert cli.main(["evaluate", first, second, "--json"]) == 0
        scores = json.loads(capsys.readouterr().out)
        assert scores["acc"] == pytest.approx(expected["acc"]), (first, second)
        assert scores["nmi"] == pytest.approx(expected["nmi"])
    write("more.csv", *words, "rose")  # its first line is a class: one row too many
    assert "labels.csv has 6 labels, more.csv 7" in fails("evaluate", "labels.csv", "more.csv")


def test_evaluate_refuses_what_is_no_label_file(folder, fails):
    np.save("a.npy", [0, 1])
    np.save("three.npy", [0, 1, 1])
    np.save("table.npy", np.zeros((2, 2), dtype=int))
    for name, text in {"two.csv": "1,2\n3,4\n", "empty.csv": "label\n", "ragged.csv": "label,x\n1\n"}.items():
        (folder / name).write_text(text)
    assert "a.npy has 2 labels, three.npy 3: each row needs one in both." in fails("evaluate", "a.npy", "three.npy")
    assert "table.npy" in fails("evaluate", "a.npy", "table.npy")
    assert "single column" in fails("evaluate", "a.npy", "two.csv")
    assert "single column" in fails("evaluate", "a.npy", "ragged.csv")
    assert "no labels" in fails("evaluate", "a.npy", "empty.csv")
    assert "no such file" in fails("evaluate", "a.npy", "missing.csv")
    assert "labels are read from" in fails("evaluate", "a.npy", "a.txt")


# -- errors -----------------------------------------------------------------------------------------------


def test_errors_are_one_line(folder, data, fails):
    X, _ = data
    run = fit(folder, X)
    np.save("narrow.npy", X[:, :5])
    np.savez("two.npz", a=X, b=X)
    (folder / "bad.npz").write_text("no zip")
    (folder / "bad.npy").write_text("no array")
    (folder / "empty.npy").write_text("")
    (folder / "bad.parquet").write_text("no table")
    (folder / "words.csv").write_text("size,colour\n1,red\n")
    (folder / "gap.csv").write_text("size,weight\n1,2\n3,\n")
    (folder / "ragged.csv").write_text("1,2\n3,4,5\n")
    (folder / "bare.csv").write_text("1,2\n3,x\n")
    (folder / "none.csv").write_text("")
    (folder / "header.csv").write_text("a,b\n")
    (folder / "comma.csv").write_text("a;b\n1;2,5\n")
    (folder / "bad.csv.gz").write_text("1,2\n")
    (folder / "cut.csv.gz").write_bytes(gzip.compress(b"1,2\n" * 100)[:-12])
    np.savez("whole.npz", X)
    for name, whole in {"cut.npy": "X.npy", "cut.npz": "whole.npz"}.items():
        (folder / name).write_bytes((folder / whole).read_bytes()[:-100])
    (folder / "array.npz").write_bytes((folder / "X.npy").read_bytes())
    np.savez("objects.npz", np.array([{}], dtype=object), allow_pickle=True)
    np.save("objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)

    def data_error(name):
        return fails("fit", name, "--out", "new", *TINY, *EPOCHS)

    assert "Did you mean TELL?" in fails("fit", "X.npy", "--method", "tel", "--n-clusters", "3")
    for wrong in (["--pretrain-epoch", "5"], ["--pretrain_epochs=5"]):
        error = fails("fit", *wrong, "X.npy", "--n-clusters", "3")
        assert "TELL has no parameter --pretrain" in error
        assert "Did you mean --pretrain-epochs? It has " in error
        assert "--temperature" in error
    for wrong in (["--n_clusters", "3"], ["--n_clusters=3"]):
        error = fails("fit", "X.npy", *wrong)
        assert "TELL has no parameter --n_clusters. Did you mean --n-clusters? It has --n-clusters, --" in error
    assert "max_epochs" in fails("fit", "X.npy", "--n-clusters", "3", "--max-epochs", "many")
    assert "lr" in fails("fit", "X.npy", "--n-clusters", "3", "--lr", "-1")
    assert "--n-clusters" in fails("fit", "X.npy")
    assert "unrecognised arguments: more" in fails("fit", "X.npy", "more", "--n-clusters", "3")
    assert "unrecognised arguments: --x" in fails("list", "--x")
    assert "COMMAND" in fails()
    assert "invalid choice: 'fti'" in fails("fti")
    assert "no such file" in data_error("missing.npy")
    assert "extension must be one of .npy, .npz, .csv, .tsv, .csv.gz, .tsv.gz, .parquet" in data_error("X.txt")
    assert "arrays ['a', 'b']" in data_error("two.npz")
    for name in ("bad.npz", "bad.npy", "empty.npy", "objects.npy", "objects.npz", "cut.npy", "cut.npz", "array.npz"):
        assert f"{name}" in (error := data_error(name))
        assert f"is not a whole {name[-4:]} file of numbers" in error
        assert "pickle" not in error
    assert "bad.npy is not a whole .npy file" in fails("evaluate", "bad.npy", "bad.npy")
    assert "bad.parquet" in data_error("bad.parquet")
    for name in ("none.csv", "header.csv"):
        assert f"{name}: it has no rows" in data_error(name)
        assert f"{name}: it has no rows" in fails("predict", "run/model", name)
    for name in ("bad.csv.gz", "cut.csv.gz"):
        assert f"{name}: " in data_error(name)
        assert f"{name}: " in fails("evaluate", name, name)
    assert "column 'b' has '2,5' in line 2, not a number. Write decimals with a point" in data_error("comma.csv")
    assert "column 'colour' has 'red' in line 2" in data_error("words.csv")
    assert (
        "column 'weight' has no value in line 3. Fill the gaps of the column, or leave it out with --drop weight"
        in data_error("gap.csv")
    )
    assert "column '2' has 'x' in line 2" in data_error("bare.csv")
    assert "line 2 has 3 columns, not 2" in data_error("ragged.csv")
    assert "5 features" in fails("predict", "run/model", "narrow.npy", "--out", "labels.csv")
    assert f"not a model that neuralclust saved. Did you mean {os.path.join('run', 'model')}?" in fails(
        "predict", "run", "X.npy"
    )
    assert "device" in fails("predict", "run/model", "X.npy", "--device", "abacus")
    (run / "model" / "config.json").write_text("{")
    assert "damaged" in fails("predict", "run/model", "X.npy")
    assert not {"new", "labels.csv", "neuralclust-fit"} & set(os.listdir(folder))


def test_parquet_names_the_column_that_is_not_numeric(folder, fails):
    import pandas

    pandas.DataFrame({"size": [1, 2], "colour": ["red", "blue"]}).to_parquet("t.parquet")
    assert "column 'colour' holds" in fails("fit", "t.parquet", *TINY)
    pandas.DataFrame({"size": [1, None, 3], "flag": [True, False, True]}).to_parquet("n.parquet")
    assert files.read_data(folder / "n.parquet")[0][0].tolist() == [1.0, 1.0]


def test_debug_shows_the_traceback():
    with pytest.raises(FileNotFoundError):
        cli.main(["predict", "nowhere", "X.npy", "--debug"])


def test_a_file_is_written_whole_or_not_at_all(folder, monkeypatch):
    (folder / "labels.csv").write_text("old")

    def no_space(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        files.write_text(folder / "labels.csv", "new")
    assert os.listdir(folder) == ["labels.csv"]
    assert (folder / "labels.csv").read_text() == "old"


def test_values():
    cases = {
        "1e-3": 1e-3,
        "none": None,
        "TRUE": True,
        "64,32": (64, 32),
        "k-means": "k-means",
        "(": "(",
        "7": 7,
    }
    for text, value in cases.items():
        assert cli._value(text) == value
        assert type(cli._value(text)) is type(value)


def test_a_missing_extra_is_named():
    with pytest.raises(ImportError, match=r"pip install 'neuralclust\[report\]'"):
        _extras.require("a_package_that_nobody_has", "report")
    assert _extras.require("json", "report") is json


TASKS = '[[tasks]]\ndata = "digits"\nmethod = "KMeans"\nsweep = { max_iter = [1, 2] }\n'


def test_bench_from_tasks_to_tables(folder, capsys):
    (folder / "mine.toml").write_text(TASKS)
    where = ["--tasks", "mine.toml", "--results", "rows.jsonl"]
    assert cli.main(["bench", "list", *where]) == 0
    assert "  0 of 1  quick / digits / KMeans / max_iter 1\n" in capsys.readouterr().out
    assert cli.main(["bench", "run", *where, "--shard", "1/1"]) == 0
    assert "[2/2] quick / digits / KMeans / max_iter 2, seed 0; about" in capsys.readouterr().out
    assert cli.main(["bench", "list", *where, "--only", "max_iter 2"]) == 0
    assert capsys.readouterr().out.startswith("  1 of 1  quick / digits / KMeans / max_iter 2\n1 tasks")
    assert cli.main(["bench", "table", *where]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# Results\n\n2 of 2 runs have a result")
    assert "| KMeans | max_iter 1 | quick | 1 |" in text
    assert "paper reports" not in text  # nothing of the library's own report
    assert "XAI Beyond" not in text
    for name in ("table.md", "table.html"):
        assert cli.main(["bench", "table", *where, "--out", name]) == 0
    assert (folder / "table.md").read_text() == text
    assert "<td>max_iter 1</td>" in (folder / "table.html").read_text()


def test_bench_errors_are_one_line(folder, fails):
    (folder / "mine.toml").write_text(TASKS)
    assert "--shard 3 must be I/N" in fails("bench", "run", "--shard", "3")
    for command in ("run", "list"):
        assert "no task has --only 'nothing'" in fails("bench", command, "--only", "nothing")
        assert "has --protocol paper. See" in fails("bench", command, "--tasks", "mine.toml", "--protocol", "paper")
    assert "must be .md or .html" in fails("bench", "table", "--out", "table.txt")
    (folder / "rows.jsonl").write_text('{"key": "none of ours"}\n')
    assert "has no rows that make a picture" in fails("bench", "plot", "--results", "rows.jsonl")
    for command in ("table", "plot"):
        assert "typo.jsonl: there is no such file" in fails("bench", command, "--results", "typo.jsonl")
    assert "there is no such file" in fails("bench", "list", "--tasks", "other.toml")


def test_bench_fails_if_every_run_does(folder, monkeypatch, capsys):
    (folder / "mine.toml").write_text(TASKS)
    row = {"skipped": "ValueError: no luck", "failed": True}
    monkeypatch.setattr("neuralclust.bench.runner._row", lambda each, rows, minutes: {"key": each.key, **row})
    where = ["bench", "run", "--tasks", "mine.toml", "--results", "rows.jsonl"]
    for _ in range(2):  # the second time nothing is left to be tried
        assert cli.main(where) == 2
        assert "none of these runs has a result. The last was skipped: ValueError: no luck" in capsys.readouterr().err
    row.clear()
    row["wall"] = 1.0
    assert cli.main([*where, "--retry", "--only", "max_iter 1"]) == 0
    assert cli.main(where) == 0  # one run has a result
    assert "1 of these runs failed earlier; --retry" in capsys.readouterr().out


def test_bench_fails_if_one_run_does(folder, monkeypatch, capsys):
    (folder / "mine.toml").write_text(TASKS)

    def row(each, rows, minutes):
        bad = {"skipped": "ValueError: no luck", "failed": True} if each.arguments["max_iter"] == 1 else {"wall": 1.0}
        return {"key": each.key, "experiment": each.experiment, "arguments": each.arguments, **bad}

    monkeypatch.setattr("neuralclust.bench.runner._row", row)
    where = ["bench", "run", "--tasks", "mine.toml", "--results", "rows.jsonl"]
    for retry in ([], ["--retry"]):
        assert cli.main([*where, *retry]) == 2
        error = capsys.readouterr().err
        assert "1 of 2 runs failed, the last (quick / digits / KMeans / max_iter 1, seed 0)" in error
        assert "ValueError: no luck. rows.jsonl has the rows" in error
    assert cli.main(where) == 0


def test_bench_plots(folder, capsys):
    (folder / "mine.toml").write_text(TASKS.replace("data", 'name = "steps"\ndata'))
    where = ["--tasks", "mine.toml", "--results", "rows.jsonl"]
    assert cli.main(["bench", "run", *where]) == 0
    capsys.readouterr()
    (folder / "figures").mkdir()
    for name in ("alpha", "mine"):
        (folder / "figures" / f"{name}.png").touch()
    assert cli.main(["bench", "plot", *where, "--out", "figures"]) == 0
    assert capsys.readouterr().out == "figures/steps.png\n"
    # A picture of rows that are void goes, anybody's own stays.
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["mine.png", "steps.png"]
    assert (folder / "figures" / "steps.png").stat().st_size > 5000


def test_ctrl_c_in_bench_says_where_the_rows_are(folder, monkeypatch, capsys):
    (folder / "mine.toml").write_text(TASKS)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("neuralclust.bench.runner._row", interrupted)
    assert cli.main(["bench", "run", "--tasks", "mine.toml", "--results", "rows.jsonl"]) == 130
    assert "finished runs are in rows.jsonl; start again to go on" in capsys.readouterr().err
