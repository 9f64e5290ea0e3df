"""Spectral embedded clustering: eigenvectors against the dense matrix, the linear map, shapes and new rows."""

import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_circles, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from neuralclust.classical.sec import SpectralEmbeddedClustering
from neuralclust.functional import knn_graph, laplacian
from neuralclust.metrics import clustering_accuracy


def clouds(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 1.5 * np.eye(max(d, 3))[np.arange(n) % 3, :d] + 5


def strips(n, seed=0):
    """Two long strips side by side: k-means cuts them across, a line can tell them apart."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return np.stack([rng.uniform(-10, 10, n), 3.0 * y + 0.2 * rng.normal(size=n)], axis=1), y


def dense_parts(X, gamma, n_neighbors=5):
    """L and L_g as the paper has them, but for X whose rows are samples."""
    n, d = X.shape
    L = laplacian(knn_graph(torch.from_numpy(X - X.mean(axis=0)), n_neighbors)).to_dense().numpy()
    H = np.eye(n) - np.ones((n, n)) / n
    return L, H - H @ X @ np.linalg.inv(X.T @ H @ X + gamma * np.eye(d)) @ X.T @ H


@pytest.mark.parametrize(("n", "d"), [(60, 4), (60, 90), (700, 4), (600, 620)])  # dense or not, tall or wide
@pytest.mark.parametrize(("mu", "gamma"), [(1.0, 1.0), (0.01, 50.0), (20.0, 0.1)])
def test_embedding_against_the_dense_matrix(n, d, mu, gamma):
    X = clouds(n, d)
    model = SpectralEmbeddedClustering(3, mu=mu, gamma=gamma, n_init=1, random_state=0).fit(X)
    L, Lg = dense_parts(X, gamma)
    values, vectors = np.linalg.eigh(L + mu * Lg)
    F = model.embedding_
    assert np.allclose(F.T @ F, np.eye(3), atol=1e-8)
    if values[3] - values[2] > 1e-4:  # else the three are not determined
        assert np.allclose(np.linalg.svd(F.T @ vectors[:, :3], compute_uv=False), 1, atol=1e-4)
    assert np.allclose(np.sum(F * (L @ F + mu * Lg @ F), axis=0), values[:3], atol=1e-6)  # smallest first
    # The objective at F, W and b is the sum of these: W and b are the best for F.
    W, b = model.coef_, model.intercept_
    fit = np.sum((X @ W + b - F) ** 2) + gamma * np.sum(W**2)
    assert np.trace(F.T @ L @ F) + mu * fit == pytest.approx(values[:3].sum(), abs=1e-6)
    ridge = Ridge(gamma, solver="svd").fit(X, F)
    assert np.allclose(ridge.coef_.T, W, atol=1e-8)
    assert np.allclose(ridge.intercept_, b, atol=1e-8)


def test_some_cases_above_are_determined():
    L, Lg = dense_parts(clouds(700, 4), 1.0)
    values = np.linalg.eigvalsh(L + Lg)
    assert values[3] - values[2] > 1e-2


def test_weight_of_the_map_from_none_to_all():
    X = clouds(200, 2)
    L, _ = dense_parts(X, 1.0)
    expected = np.linalg.eigh(L)[1][:, :3]
    free = SpectralEmbeddedClustering(3, mu=0, random_state=0).fit(X).embedding_
    assert np.allclose(np.linalg.svd(free.T @ expected, compute_uv=False), 1, atol=1e-6)
    bound = SpectralEmbeddedClustering(3, mu=1e6, gamma=1e-6, random_state=0).fit(X).embedding_
    span = np.linalg.qr(np.c_[np.ones(200), X])[0]
    assert np.allclose(np.linalg.svd(bound.T @ span, compute_uv=False), 1, atol=1e-6)
    assert np.linalg.svd(free.T @ span, compute_uv=False).min() < 0.99


@pytest.mark.parametrize("shape", ["moons", "rings", "strips"])
def test_shapes_that_k_means_cannot_split(shape):
    X, y = {
        "moons": make_moons(600, noise=0.05, random_state=0),
        "rings": make_circles(600, noise=0.03, factor=0.4, random_state=0),
        "strips": strips(600),
    }[shape]
    assert adjusted_rand_score(y, KMeans(2, n_init=3, random_state=0).fit_predict(X)) < 0.6
    model = SpectralEmbeddedClustering(2, mu=1e-4, n_neighbors=10, random_state=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.98
    # No linear map tells rings apart: there labels_ and predict differ, as the docstring says.
    agree = adjusted_rand_score(model.labels_, model.predict(X))
    least, most = {"moons": (0.4, 0.9), "rings": (-0.1, 0.1), "strips": (0.98, 1.0)}[shape]
    assert least <= agree <= most


def test_digits():
    X, y = load_digits(return_X_y=True)
    model = SpectralEmbeddedClustering(10, random_state=0).fit(X / 16)
    accuracy = clustering_accuracy(y, model.labels_)
    assert accuracy > 0.82
    assert accuracy > clustering_accuracy(y, model.predict(X / 16))  # why labels_ are not predict's
    assert 0.95 < np.mean(model.predict(X / 16) == model.labels_) < 1


def test_centers_are_means_of_mapped_rows():
    X = clouds(100, 4)
    model = SpectralEmbeddedClustering(3, random_state=0).fit(X)
    mapped = X @ model.coef_ + model.intercept_
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    assert np.allclose(model.transform(X), mapped, atol=1e-12)
    for j in range(3):
        assert np.allclose(model.cluster_centers_[j], mapped[model.labels_ == j].mean(axis=0), atol=1e-12)
    nearest = np.square(mapped[:, None] - model.cluster_centers_).sum(axis=2).argmin(axis=1)
    assert np.array_equal(model.predict(X), nearest)


def test_new_rows_have_the_labels_of_their_neighbours():
    X, _ = strips(400)
    model = SpectralEmbeddedClustering(2, mu=1e-4, n_neighbors=10, random_state=0).fit(X)
    near = X + np.random.default_rng(1).normal(scale=0.05, size=X.shape)
    assert np.array_equal(model.predict(near), model.labels_)
    new, truth = strips(200, seed=5)
    assert adjusted_rand_score(truth, model.predict(new)) == 1


def test_fit_predict_gives_labels():
    X = load_digits().data[:600] / 16
    model = SpectralEmbeddedClustering(10, random_state=0).fit(X)
    assert np.array_equal(SpectralEmbeddedClustering(10, random_state=0).fit_predict(X), model.labels_)
    assert model.labels_.dtype == model.predict(X).dtype == np.int64


def test_float32_rows():
    X, y = strips(600)
    model = SpectralEmbeddedClustering(2, mu=1e-4, n_neighbors=10, random_state=0).fit(X.astype("float32"))
    assert model.transform(X.astype("float32")).dtype == np.float32
    assert model.transform(X).dtype == np.float64
    assert adjusted_rand_score(y, model.labels_) == 1


def test_origin_does_not_matter():
    X = clouds(150, 4)
    model, moved = (SpectralEmbeddedClustering(3, random_state=0).fit(rows) for rows in (X, X + 2.0**20))
    assert adjusted_rand_score(model.labels_, moved.labels_) == 1
    assert np.allclose(np.abs(np.sum(model.embedding_ * moved.embedding_, axis=0)), 1, atol=1e-6)


def test_same_seed_same_model():
    X = load_digits().data[:700] / 16  # beyond the dense solver: the start of the eigenvectors is random too

    def fit(seed):
        return SpectralEmbeddedClustering(10, n_init=2, random_state=seed).fit(X)

    first, second, other = fit(1), fit(1), fit(2)
    assert np.array_equal(first.embedding_, second.embedding_)
    assert np.array_equal(first.labels_, second.labels_)
    assert not np.array_equal(first.embedding_, other.embedding_)
    first, second = (fit(np.random.RandomState(3)) for _ in range(2))
    assert np.array_equal(first.labels_, second.labels_)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    fit(None)
    assert np.array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_memory_without_rows_by_rows():
    """A dense n x n matrix would take 128 MB."""
    X = clouds(4000, 10)
    tracemalloc.start()
    SpectralEmbeddedClustering(3, n_init=1, random_state=0).fit(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_many_separate_parts_of_a_large_graph():
    """The eigenvalue 0 of L is repeated; all its vectors are needed."""
    rng = np.random.default_rng(0)
    y = np.arange(720) % 12
    X = rng.normal(size=(720, 2)) + 40 * np.stack([y // 4, y % 4], axis=1)
    model = SpectralEmbeddedClustering(12, mu=1e-3, random_state=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) == 1


def test_scikit_learn_checks(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else one check skips itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(SpectralEmbeddedClustering(3, n_init=2), on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] != "passed"] == []
    assert len(results) > 40


@pytest.mark.parametrize("X", [clouds(30, 3), np.ones((1, 3)), np.zeros((20, 3)), np.full((600, 3), 0.1)])
def test_one_cluster(X):
    model = SpectralEmbeddedClustering(1, random_state=0).fit(X)
    assert (model.labels_ == 0).all()
    assert (model.predict(X) == 0).all()


@pytest.mark.parametrize("n", [2, 7, 40])
def test_as_many_clusters_as_rows(n):
    X = np.random.default_rng(n).normal(size=(n, 3))
    assert sorted(SpectralEmbeddedClustering(n, random_state=0).fit(X).labels_) == list(range(n))


@pytest.mark.parametrize("X", [np.full((600, 3), 0.1), np.zeros((30, 3)), np.full((600, 3), 0.1, "float32")])
def test_equal_rows_have_an_answer(X):
    with pytest.warns(ConvergenceWarning, match="fewer distinct rows than n_clusters=3"):
        model = SpectralEmbeddedClustering(3, random_state=0).fit(X)
    assert np.isfinite(model.embedding_).all()
    assert np.isfinite(model.transform(X)).all()
    assert len(set(model.predict(X))) == 1


def test_duplicate_rows_and_zero_rows():
    X = np.repeat([[0.0, 0.0], [3.0, 1.0], [-2.0, 4.0]], 10, axis=0)
    model = SpectralEmbeddedClustering(3, random_state=0).fit(X)
    assert adjusted_rand_score(np.repeat([0, 1, 2], 10), model.labels_) == 1
    assert np.array_equal(model.predict(X), model.labels_)


@pytest.mark.parametrize("mu", [0, 1, 100])
def test_fewer_distinct_rows_than_clusters(mu):
    """F has as many independent rows as clusters: no cluster is empty."""
    X = np.repeat([[0.0], [1.0], [5.0]], 4, axis=0)
    with pytest.warns(ConvergenceWarning, match="fewer distinct rows than n_clusters=5"):
        model = SpectralEmbeddedClustering(5, mu=mu, random_state=0).fit(X)
    assert set(model.labels_) == set(range(5))
    assert np.isfinite(model.cluster_centers_).all()


def test_errors_name_value_need_and_remedy():
    X = clouds(30, 3)
    with pytest.raises(ValueError, match=r"n_samples=2 should be >= n_clusters=3"):
        SpectralEmbeddedClustering(3).fit(X[:2])
    with pytest.raises(ValueError, match=r"whose squares float32 cannot hold. Scale X down"):
        SpectralEmbeddedClustering(3).fit((1e30 * X).astype("float32"))
    flat = np.repeat(1e8 * X[:, :1], 3, axis=1)
    with pytest.raises(ValueError, match=r"gamma=1e-09 vanishes beside the rows' scatter.*Raise gamma"):
        SpectralEmbeddedClustering(3, gamma=1e-9).fit(flat)
    for wrong in ({"mu": -1}, {"gamma": 0}, {"n_neighbors": 0}, {"n_init": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SpectralEmbeddedClustering(3, **wrong).fit(X)
