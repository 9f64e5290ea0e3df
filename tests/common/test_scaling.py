"""Columns of different units: what ``standardize=True`` does, for every method and container."""

import json
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

import neuralclust
from neuralclust import open_rows
from neuralclust.cli import main
from tests.common.test_inputs import Rows, of_people, pandas_frame
from tests.conftest import small


@pytest.mark.parametrize("params", [{}, {"encoder": None}, {"variant": "paper"}], ids=["repaired", "none", "paper"])
def test_the_network_sees_what_it_would_see_behind_a_scaler(method, params):
    X = load_wine().data
    if method == "AEKMeans" and "variant" in params:
        pytest.skip("it has one form")
    params = {"pretrain_epochs": 1, "max_epochs": 1, **params}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        own = small(method, standardize=True, **params).fit(X)
        scaled = StandardScaler().fit_transform(X)
        behind = small(method, **params).fit(scaled)
    sees, would = own.module_.prepare(torch.tensor(X)), behind.module_.prepare(torch.tensor(scaled))
    torch.testing.assert_close(sees, would, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(own.module_.variance, behind.module_.variance)
    torch.testing.assert_close(own.module_.restore(sees).numpy(), X, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", ["array", "pandas", "tensor", "Dataset", "csr array", "memory map", "float32"])
def test_units_do_not_count(kind, tmp_path):
    X, y = of_people()
    np.save(tmp_path / "X.npy", X)
    data = {
        "array": X,
        "pandas": pandas_frame(X, tmp_path),
        "tensor": torch.tensor(X),
        "Dataset": Rows(torch.tensor(X), y),
        "csr array": sp.csr_array(X),
        "memory map": open_rows(tmp_path / "X.npy"),
        "float32": X.astype("float32"),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = small("AEKMeans", 2, encoder=None, standardize=True).fit(data)
        assert adjusted_rand_score(y, model.labels_) == 1
        assert np.array_equal(model.predict(data), model.labels_)
    means = np.stack([X[model.labels_ == j].mean(axis=0) for j in range(2)])
    np.testing.assert_allclose(model.reconstruct_centers(), means, rtol=1e-4)  # in years and money again


def test_columns_far_from_0_and_constant_ones():
    X, y = of_people()
    X = np.column_stack([1e7 + X[:, :2], np.full(len(X), 3.5), np.zeros(len(X)), 1e-9 * X[:, 1]])
    model = small("AEKMeans", 2, encoder=None, standardize=True).fit(X)
    assert adjusted_rand_score(y, model.labels_) == 1
    assert model.module_.prepare(torch.tensor(X)).std(dim=0).tolist()[2:4] == [0, 0]


def test_means_of_many_chunks_are_those_of_all_rows(monkeypatch):
    monkeypatch.setattr("neuralclust.scaling.CHUNK_BYTES", 1000)
    X = load_wine().data
    model = small("AEKMeans", 3, encoder=None, standardize=True).fit(X)
    seen = model.module_.prepare(torch.tensor(X)).double().numpy()
    scaled = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(seen, scaled / np.abs(scaled).max(), atol=1e-6)  # 0 stays, without a network


def test_it_is_saved_and_kept(method, tmp_path):
    X = load_wine().data
    params = {"pretrain_epochs": 2, "max_epochs": 2, "standardize": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = small(method, **params).fit(X)
    model.save(tmp_path / "model")
    loaded = neuralclust.load(tmp_path / "model")
    assert loaded.standardize
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))
    loaded.partial_fit(X[:20])
    with pytest.raises(ValueError, match="standardize=False was set after the fit"):
        loaded.set_params(standardize=False).partial_fit(X[:20])


def test_what_cannot_be_standardized(images):
    with pytest.raises(ValueError, match="standardize=True is for tables, and X has images"):
        small("TELL", 2, standardize=True).fit(images[0])
    X, _ = of_people()
    with pytest.raises(ValueError, match="column 1 of X are too large"):
        small("TELL", 2, standardize=True).fit(X * [1, 1e200, 1])
    with pytest.raises(ValueError, match="'standardize' parameter"):
        small("TELL", 2, standardize="yes").fit(X)


def test_the_command_line_has_it(tmp_path, capsys):
    X, y = of_people()
    np.savetxt(tmp_path / "X.csv", X, delimiter=",", header="age,bmi,income", comments="")
    command = ["fit", str(tmp_path / "X.csv"), "--method", "aekmeans", "--n-clusters", "2", "--encoder", "none"]
    assert main([*command, "--standardize", "true", "--quiet", "--out", str(tmp_path / "run")]) == 0
    assert "warning" not in capsys.readouterr().err
    assert adjusted_rand_score(y, np.loadtxt(tmp_path / "run" / "labels.csv", skiprows=1)) == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["parameters"]["standardize"] is True
