"""LPNMF: the objective by a dense sum and its gradient by autograd, plain NMF as the limit, and k-means on top."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import non_negative_factorization
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.utils.estimator_checks import check_estimator

from neuralclust.classical.nmf import LocalityPreservingNMF
from neuralclust.functional import knn_graph


@pytest.fixture(scope="module")
def parts():
    """Mixtures of three parts, (60, 12), with a column and a row of zeros, and the part that dominates a row."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    share = rng.dirichlet([0.3] * 3, 60) * 0.4 + np.eye(3)[y] * 0.6
    X = share @ rng.gamma(0.5, size=(3, 12)) * rng.uniform(1, 3, (60, 1)) + 0.2 * rng.random((60, 12))
    X[:, 5] = 0
    X[7] = 0
    return X, y


def dense_objective(X, V, U, lam, n_neighbors=5):
    """The objective by its definition: ``(n, n, k)`` terms, no cleverness."""
    X = torch.as_tensor(X)
    W = knn_graph(X, n_neighbors).to_dense()
    Y = (V @ U).clamp_min(1e-30)
    divergence = (torch.xlogy(X, X) - torch.xlogy(X, Y) - X + Y).sum()
    gap, log_gap = V[:, None] - V[None], V.log()[:, None] - V.log()[None]
    return divergence + lam / 2 * (W[:, :, None] * gap * log_gap).sum()


def tensors(model):
    return torch.tensor(model.coefficients_), torch.tensor(model.components_)


@pytest.mark.parametrize("lam", [0.0, 0.3, 10.0, 1e4])
def test_objective_is_the_papers_and_never_increases(parts, lam):
    X, _ = parts
    values = []
    for n_iter in range(1, 30):
        model = LocalityPreservingNMF(3, lam=lam, tol=0, max_iter=n_iter, n_init=1, random_state=0).fit(X)
        values.append(model.objective_)
        if n_iter in (1, 29):
            assert float(dense_objective(X, *tensors(model), lam)) == pytest.approx(model.objective_, rel=1e-9)
    assert model.n_iter_ == 29
    assert (np.diff(values) <= 1e-12 * values[0]).all()
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("lam", [0.0, 10.0])
def test_rows_a_block_at_a_time(parts, lam, monkeypatch):
    X, _ = parts
    whole = LocalityPreservingNMF(3, lam=lam, max_iter=20, random_state=0).fit(X)
    monkeypatch.setattr("neuralclust.classical.nmf._BLOCK", 7 * X.shape[1] + 1)  # 60 rows: the last block has 4
    model = LocalityPreservingNMF(3, lam=lam, max_iter=20, random_state=0).fit(X)
    assert model.objective_ == pytest.approx(whole.objective_, rel=1e-9)
    np.testing.assert_allclose(model.coefficients_, whole.coefficients_, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(model.predict(X), whole.predict(X))


@pytest.mark.parametrize("lam", [1.0, 10.0, 1e3])
def test_objective_never_increases_on_sparse_rows(lam):
    """Neighbours with coefficients of very different sizes, where full steps would go too far."""
    rng = np.random.default_rng(2)
    X = rng.random((40, 8)) * (rng.random((40, 8)) < 0.15)
    models = [LocalityPreservingNMF(4, lam=lam, tol=0, max_iter=i, n_init=1, random_state=0) for i in range(1, 25)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        values = [model.fit(X).objective_ for model in models]
    assert (np.diff(values) <= 1e-12 * values[0]).all()
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("lam", [0.0, 0.3, 3.0])
def test_final_point_is_stationary(parts, lam):
    """Karush-Kuhn-Tucker: no slope at positive entries, none downwards at zero; rows of U give way along their sum."""
    X, _ = parts
    model = LocalityPreservingNMF(3, lam=lam, tol=0, max_iter=1200, n_init=1, random_state=0).fit(X)
    V, U = (part.requires_grad_() for part in tensors(model))
    slope_v, slope_u = torch.autograd.grad(dense_objective(X, V, U, lam), [V, U])
    scale = X.sum() / len(X)
    V, U = V.detach(), U.detach()
    assert float((V * slope_v).abs().max()) < 1e-3 * scale
    assert float(slope_v[V > 1e-9].min()) > -0.05
    along = slope_u - (U * slope_u).sum(dim=1, keepdim=True)  # the multiplier of "sums to 1"
    mass = V.sum(dim=0)[:, None]
    assert float((U * along / mass).abs().max()) < 1e-3
    assert float((along / mass).min()) > -0.05


def test_one_component_has_a_closed_form(parts):
    X, _ = parts
    model = LocalityPreservingNMF(1, lam=0, tol=0, random_state=0).fit(X)
    assert np.allclose(model.components_[0], X.sum(axis=0) / X.sum())
    assert np.allclose(model.coefficients_[:, 0], X.sum(axis=1), atol=1e-9)


def test_without_graph_scikit_learn_finds_nothing_better(parts):
    X, _ = parts
    model = LocalityPreservingNMF(3, lam=0, tol=0, max_iter=2000, random_state=0).fit(X)
    W, H, _ = non_negative_factorization(
        X, W=model.coefficients_.copy(), H=model.components_.copy(), n_components=3, init="custom", solver="mu",
        beta_loss="kullback-leibler", max_iter=500, tol=0,
    )  # fmt: skip
    theirs = float(dense_objective(X, torch.tensor(W).clamp_min(1e-12), torch.tensor(H), 0))
    assert theirs == pytest.approx(model.objective_, rel=1e-4)
    assert np.allclose(W @ H, model.coefficients_ @ model.components_, atol=0.01 * X.max())


def test_factors_are_non_negative_and_parts_sum_to_one(parts):
    X, _ = parts
    model = LocalityPreservingNMF(3, n_components=5, random_state=0).fit(X)
    assert model.components_.shape == (5, 12)
    assert model.coefficients_.shape == (60, 5)
    assert (model.components_ >= 0).all()
    assert (model.coefficients_ > 0).all()
    assert np.allclose(model.components_.sum(axis=1), 1)
    assert np.allclose(model.components_[:, 5], 0)


def test_parts_are_found(parts):
    X, y = parts
    rows = np.arange(60) != 7
    for lam in (0.0, 1.0):
        model = LocalityPreservingNMF(3, lam=lam, random_state=0).fit(X[rows])
        assert adjusted_rand_score(y[rows], model.labels_) > 0.9
        assert adjusted_rand_score(y[rows], model.predict(X[rows])) > 0.9


def test_graph_improves_on_plain_factors():
    X, y = load_digits(return_X_y=True)
    X, y = X[:600], y[:600]
    plain, smooth = (LocalityPreservingNMF(10, lam=lam, max_iter=80, random_state=0).fit(X) for lam in (0.0, 10.0))
    assert normalized_mutual_info_score(y, smooth.labels_) > normalized_mutual_info_score(y, plain.labels_) + 0.1


def test_units_of_the_features_do_not_matter(parts):
    X, _ = parts
    model = LocalityPreservingNMF(3, random_state=0).fit(X)
    for factor in (2.0**-40, 2.0**60):
        scaled = LocalityPreservingNMF(3, random_state=0).fit(X * factor)
        assert np.array_equal(model.labels_, scaled.labels_)
        assert scaled.objective_ == pytest.approx(factor * model.objective_, rel=1e-6)


def test_predict_does_not_depend_on_the_other_rows(parts):
    X, _ = parts
    model = LocalityPreservingNMF(3, random_state=0).fit(X)
    together = model.predict(X)
    assert np.array_equal(together, np.concatenate([model.predict(X[i : i + 1]) for i in range(len(X))]))
    assert len(np.unique(together)) == 3


def test_same_seed_same_labels(easy):
    X, y = easy
    X = X - X.min()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    model = LocalityPreservingNMF(3, random_state=1).fit(X)
    assert adjusted_rand_score(y, model.labels_) == 1.0
    assert np.array_equal(model.labels_, LocalityPreservingNMF(3, random_state=1).fit(X).labels_)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("k", [1, 2, 6])
def test_degenerate_rows(k):
    for X in (np.zeros((6, 3)), np.ones((6, 3)), np.eye(6), np.repeat(np.eye(3), 2, axis=0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LocalityPreservingNMF(k, n_neighbors=1, random_state=0).fit(X)
        assert model.labels_.shape == model.predict(X).shape == (6,)
        assert np.allclose(model.components_.sum(axis=1), 1)
        assert np.isfinite(model.objective_)
    assert LocalityPreservingNMF(1).fit([[1.0, 2.0]]).labels_.tolist() == [0]
    rows = np.random.default_rng(0).random((6, 4))
    assert len(np.unique(LocalityPreservingNMF(6, lam=0.1, random_state=0).fit(rows).labels_)) == 6


def test_equal_rows_are_one_cluster_and_that_is_reported():
    with pytest.warns(ConvergenceWarning, match=r"Only 1 of n_clusters=3.*fewer clusters"):
        labels = LocalityPreservingNMF(3, random_state=0).fit(np.ones((30, 4))).labels_
    assert len(np.unique(labels)) == 1


def test_negative_values_are_refused_with_the_remedy(parts):
    X, _ = parts
    model = LocalityPreservingNMF(3, random_state=0).fit(X)
    for call in (model.fit, model.predict):
        with pytest.raises(ValueError, match=r"Negative values in data passed to .*-0\.5.*>= 0.*Shift or scale"):
            call(X - 0.5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_accepts_it():
    refused = {"check_clustering": "its rows have negative values, which the positive_only tag rules out"}
    results = check_estimator(LocalityPreservingNMF(), on_fail=None, expected_failed_checks=refused)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == set(refused)
    assert len(results) > 35
