"""Saved models over Dask arrays, and as a plain function."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from neuralclust import scoring
from neuralclust.scoring import score_dask, score_rows

from .conftest import small

da = pytest.importorskip("dask.array")


@pytest.fixture(scope="module")
def saved(easy, tmp_path_factory):
    model = small("TELL").fit(easy[0])
    path = tmp_path_factory.mktemp("scoring") / "model"
    model.save(path)
    return model, path


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform"])
def test_a_dask_array_is_scored_block_by_block(method, easy, saved):
    X, _ = easy
    model, path = saved
    expected = getattr(model, method)(X)
    lazy = score_dask(da.from_array(X, chunks=(70, 5)), path, method)
    assert lazy.shape == expected.shape
    assert lazy.dtype == expected.dtype
    for scheduler in ("sync", "threads"):
        np.testing.assert_array_equal(lazy.compute(scheduler=scheduler), expected)
    np.testing.assert_array_equal(lazy[:10].compute(), expected[:10])


def test_nothing_is_computed_before_it_is_asked_for(saved):
    def fail(block):
        raise AssertionError("computed")

    X = da.zeros((100, 16), chunks=(50, 16), dtype=np.float32).map_blocks(fail, meta=np.empty((0, 0), np.float32))
    lazy = score_dask(X, saved[1])
    with pytest.raises(AssertionError, match="computed"):
        lazy.compute(scheduler="sync")


def test_rows_of_unknown_number_and_empty_blocks(easy, saved):
    X, _ = easy
    model, path = saved
    rows = da.from_array(X, chunks=(60, 16))
    some = rows[rows[:, 0] > np.sort(X[:, 0])[-20]]  # blocks of unknown length, some perhaps empty
    np.testing.assert_array_equal(score_dask(some, path).compute(), model.predict(X[X[:, 0] > np.sort(X[:, 0])[-20]]))
    assert score_rows(X[:0], path).shape == (0,)
    assert score_rows(X[:0], path, "predict_proba").shape == (0, 3)
    assert score_rows(X[:0], path, "transform").shape == (0, model.transform(X[:1]).shape[1])


def test_images(images, tmp_path):
    X, _ = images
    model = small("TELL", 2).fit(X)
    model.save(tmp_path / "model")
    lazy = da.from_array(X, chunks=(20, 5, 7))
    np.testing.assert_array_equal(score_dask(lazy, tmp_path / "model").compute(), model.labels_)
    assert score_dask(lazy, tmp_path / "model", "predict_proba").compute().shape == (60, 2)


def test_a_process_loads_a_model_once_and_a_new_one_anew(easy, tmp_path, monkeypatch):
    X, _ = easy
    loads = []
    load = scoring.load
    monkeypatch.setattr(scoring, "load", lambda *args, **options: (loads.append(1), load(*args, **options))[1])
    small("TELL").fit(X).save(tmp_path / "model")
    score_dask(da.from_array(X, chunks=(10, 16)), tmp_path / "model").compute(scheduler="threads")
    assert len(loads) == 1
    other = small("TELL", random_state=1).fit(X)
    other.save(tmp_path / "model")
    np.testing.assert_array_equal(score_rows(X, tmp_path / "model"), other.labels_)
    assert len(loads) == 2
    lazy = [score_dask(da.from_array(X, chunks=(60, 16), name="rows"), tmp_path / "model") for _ in range(2)]
    assert lazy[0].name == lazy[1].name
    other.save(tmp_path / "model")
    assert score_dask(da.from_array(X, chunks=(60, 16), name="rows"), tmp_path / "model").name != lazy[0].name
    np.testing.assert_array_equal(score_rows(sp.csr_array(X), tmp_path / "model"), other.labels_)


def test_what_is_sent_to_a_worker_is_small(easy, saved):
    lazy = score_dask(da.zeros((1000, 16), chunks=(100, 16), dtype=np.float32), saved[1])
    assert len(pickle.dumps(lazy)) < 10_000


def test_errors_say_what_to_do(easy, saved, tmp_path):
    X, _ = easy
    with pytest.raises(TypeError, match="Use score_rows"):
        score_dask(X, saved[1])
    with pytest.raises(ValueError, match="fitted on rows of 16 features"):
        score_dask(da.zeros((10, 3)), saved[1])
    with pytest.raises(ValueError, match="method='fit' must be one of predict"):
        score_rows(X, saved[1], "fit")
    with pytest.raises((FileNotFoundError, ValueError), match="nowhere"):
        score_rows(X, tmp_path / "nowhere")
