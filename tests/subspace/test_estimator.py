"""The estimator: every method on subspaces, out of sample, post-processing, bad input."""

import warnings
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from neuralclust.subspace import (
    Postprocess,
    SubspaceClustering,
    active_set,
    affinity,
    elastic_net,
    kernel_ssc,
    pursuit,
    refine,
    ssc,
    ssc_omp,
)
from neuralclust.subspace.estimator import METHODS
from tests.subspace.conftest import union_of_subspaces


@pytest.fixture(scope="module")
def rows():
    return union_of_subspaces(n=150, d=30, noise=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_finds_subspaces_and_places_new_rows(method, rows):
    X, y = rows
    model = SubspaceClustering(3, method=method, random_state=0, n_in_sample=90).fit(X[::2])
    assert adjusted_rand_score(y[::2], model.labels_) > 0.95
    assert adjusted_rand_score(y[1::2], model.predict(X[1::2])) > 0.9
    assert (model.predict(X[::2]) == model.labels_).mean() > 0.95
    assert sp.issparse(model.coefficients_) == (method in ("ssc", "ssc_omp", "ensc", "kssc"))


@pytest.mark.parametrize("method", METHODS)
def test_scikit_learn_checks(method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(SubspaceClustering(3, method=method), on_fail=None, on_skip=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    # In the plane any two others express a row, whatever blob they are of.
    assert set(failed) <= ({"check_clustering"} if method == "ssc_omp" else set())
    assert len(results) > 40


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("X", "k"),
    [
        (np.zeros((6, 3)), 2),
        (np.ones((6, 3)), 2),
        (np.repeat(np.eye(2, 4), 4, axis=0), 2),
        (np.vstack([np.eye(5), np.zeros((2, 5))]), 3),
        (np.random.default_rng(0).normal(size=(6, 3)), 6),
        (np.random.default_rng(0).normal(size=(6, 3)), 1),
        (np.random.default_rng(0).normal(size=(6, 1)), 2),
    ],
    ids=["zeros", "equal", "duplicates", "orthogonal and zero", "as many as rows", "one cluster", "one feature"],
)
def test_degenerate_rows(method, X, k):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = SubspaceClustering(k, method=method, random_state=0).fit(X)
        for labels in (model.labels_, model.predict(X), model.predict(X[:1])):
            assert labels.dtype == np.int64
            assert 0 <= labels.min() <= labels.max() < k
    if method == "ensc" and len(np.unique(X, axis=0)) == k == 2:
        assert adjusted_rand_score(np.repeat([0, 1], 4), model.labels_) == 1


def test_some_rows_are_clustered_and_the_others_follow(rows):
    X, y = rows
    model = SubspaceClustering(3, method="slrr", n_in_sample=60, random_state=0).fit(X)
    assert model.coefficients_.shape == (60, 60)
    assert len(np.unique(model.in_sample_)) == 60
    assert len(model.labels_) == 150
    out = np.delete(np.arange(150), model.in_sample_)
    assert np.array_equal(model.labels_[out], model.predict(X[out]))
    assert adjusted_rand_score(y, model.labels_) > 0.95


def test_a_row_is_placed_by_what_its_code_explains(rows):
    """The smallest |x - X_j^T c_j| / |c_j|, with the training rows at hand."""
    X, _ = rows
    model = SubspaceClustering(3, random_state=0).fit(X[:100])
    new, old, labels = X[100:], X[:100], model.labels_
    ridge = 0.01 * (old**2).sum() / 100
    c = np.linalg.solve(old @ old.T + ridge * np.eye(100), old @ new.T).T
    expected = np.empty((50, 3))
    for j in range(3):
        part = c * (labels == j)
        expected[:, j] = np.linalg.norm(new - part @ old, axis=1) / np.linalg.norm(part, axis=1)
    assert np.array_equal(model.predict(new), expected.argmin(axis=1))
    one_by_one = np.concatenate([model.predict(row[None]) for row in new])
    assert np.array_equal(one_by_one, model.predict(new))


def test_lengths_count_only_if_asked():
    X, _ = union_of_subspaces(n=60, noise=0.05)
    longer = X * np.random.default_rng(0).uniform(0.1, 10, size=(60, 1))
    model = SubspaceClustering(3, random_state=0)
    assert np.array_equal(model.fit_predict(X), model.fit_predict(longer))
    assert np.array_equal(model.predict(X), model.predict(longer))
    plain = clone(model).set_params(normalize=False).fit(longer)
    assert abs(plain.coefficients_ - model.coefficients_).max() > 0.1


def test_same_seed_same_labels(rows):
    X, _ = rows
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (SubspaceClustering(3, method="slrr", n_in_sample=50, random_state=7).fit(X) for _ in range(2))
    assert np.array_equal(first.labels_, second.labels_)
    assert np.array_equal(first.in_sample_, second.in_sample_)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_affinity_is_symmetric_and_has_no_loops():
    c = np.array([[5.0, -2.0, 1.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    expected = np.array([[0.0, 2.0, 0.5], [2.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
    assert np.allclose(affinity(c), expected)
    off = c - np.diag(np.diagonal(c))
    assert np.allclose(affinity(sp.csr_array(off)).toarray(), expected)
    assert c[0, 0] == 5.0


def test_postprocessing_keeps_the_largest_and_the_leading():
    rng = np.random.default_rng(0)
    c = rng.normal(size=(8, 8))
    kept = refine(c, 2, Postprocess(keep=0.5))
    for row, all_ in zip(np.abs(kept), np.abs(c), strict=True):
        assert row.sum() >= 0.5 * all_.sum()
        assert row.sum() - row[row > 0].min() < 0.5 * all_.sum()  # one fewer would not do
        assert row[row > 0].min() > all_[row == 0].max()
    sparse = refine(sp.csr_array(c), 2, Postprocess(keep=0.5))
    assert sp.issparse(sparse)
    assert np.array_equal(sparse.toarray(), kept)
    # The graph, by the singular value decomposition of the symmetric part, signs and all.
    u, s, _ = np.linalg.svd((c + c.T) / 2)
    rows = u[:, :5] * np.sqrt(s[:5])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.maximum(rows @ rows.T, 0) ** 3
    np.fill_diagonal(expected, 0)
    assert np.allclose(refine(c, 2, Postprocess(dimension=2, power=3.0)), expected)
    assert refine(c, 2, None) is c


def test_postprocessing_reaches_the_labels(rows):
    X, y = rows
    model = SubspaceClustering(3, method="lsr2", postprocess=Postprocess(0.8, 4, 3.0), random_state=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.95


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "sss"}, "The 'method' parameter of SubspaceClustering must be a str among"),
        ({"n_clusters": 9}, "n_samples=8 should be >= n_clusters=9. Pass more rows or ask for fewer clusters"),
        ({"ridge": 0.0}, "'ridge'"),
        ({"postprocess": 0.5}, "'postprocess'"),
        ({"method": "kssc", "kernel": "chi2"}, "'kernel' parameter .* must be a str among"),
        ({"postprocess": Postprocess(dimension=2.0)}, "dimension=2.0"),
        ({"postprocess": Postprocess("half")}, "keep='half'"),
        ({"postprocess": Postprocess(keep=2.0)}, "keep=2.0"),
        ({"postprocess": Postprocess(dimension=-1)}, "dimension=-1"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        SubspaceClustering(**{"n_clusters": 2, **params}).fit(np.random.default_rng(0).normal(size=(8, 3)))


@pytest.mark.parametrize("params", [{"gamma": 0.5}, {"method": "lrr", "lam": 1e-3}, {"method": "lrsc", "tau": 1e-3}])
def test_rows_that_nothing_expresses_are_said(params, rows):
    with pytest.warns(ConvergenceWarning, match="150 of 150 rows are expressed by none"):
        SubspaceClustering(3, **params).fit(rows[0])


def test_kernels(rows):
    X, y = rows
    for kernel in ("rbf", "laplacian", "polynomial", "cosine", "linear"):
        model = SubspaceClustering(3, method="kssc", kernel=kernel, random_state=0).fit(X)
        assert adjusted_rand_score(y, model.labels_) > 0.9
    wide, narrow = (SubspaceClustering(3, method="kssc", kernel_gamma=g).fit(X).coefficients_ for g in (0.01, 10.0))
    assert abs(wide - narrow).max() > 0.01


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("method", ["ssc", "ssc_omp", "ensc"])
def test_the_scale_of_rows_does_not_count(method, scale, rows):
    X, _ = rows
    models = [SubspaceClustering(3, method=method, normalize=False, random_state=0).fit(X * s) for s in (1.0, scale)]
    assert np.allclose(*(m.coefficients_.toarray() for m in models), atol=1e-6)
    assert np.array_equal(models[0].predict(X), models[1].predict(X * scale))


@pytest.mark.parametrize("method", METHODS)
def test_callbacks_are_told_how_far_it_is(method, rows):
    class Ears:
        heard: ClassVar[list] = []

        def setup(self, estimator, context): ...

        def teardown(self, estimator, context): ...

        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context, **_):
            self.heard.append(context.task_name)

    ears = Ears()
    ears.heard.clear()
    SubspaceClustering(3, method=method, random_state=0).set_callbacks(ears).fit(rows[0])
    assert ears.heard.count("percent") == 200
    assert ears.heard.index("coefficients") < ears.heard.index("partition")


@pytest.mark.parametrize("solver", [ssc, elastic_net, ssc_omp, lambda X, **k: kernel_ssc(X @ X.T, **k)])
def test_solvers_tell_their_share(solver, rows, monkeypatch):
    monkeypatch.setattr(active_set, "_ROWS", 50)
    monkeypatch.setattr(pursuit, "_ROWS", 50)
    shares = []
    solver(rows[0], on_progress=shares.append)
    assert np.allclose(shares, [1 / 3, 2 / 3, 1])


def test_rows_that_are_the_same_in_two_clusters_are_announced():
    with pytest.warns(ConvergenceWarning, match="fewer distinct rows than n_clusters=3"):
        SubspaceClustering(3, random_state=0).fit(np.repeat(np.eye(2, 4), 4, axis=0))


def test_codes_that_do_not_give_the_training_rows_their_clusters_are_announced(rows):
    X, _ = rows
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SubspaceClustering(3, random_state=0).fit(X)
        assert (model.predict(X) == model.labels_).mean() > 0.9
    flat = load_iris().data  # four columns, and each species spans them
    model = SubspaceClustering(3, random_state=0).fit(flat)
    with pytest.warns(ConvergenceWarning, match="% of the training rows into their own cluster"):
        share = (model.predict(flat) == model.labels_).mean()
    assert share < 0.9


def test_affinities_of_sparse_and_dense_coefficients_are_the_same():
    c = np.array([[4.0, 1.0, 0.5], [1.0, 0.0, -2.0], [0.0, 3.0, 0.0]])
    assert np.array_equal(affinity(c), affinity(sp.csr_array(c)).toarray())
