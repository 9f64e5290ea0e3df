"""Fuzzy c-means: its fixed point by loops, its limits, and numbers that would overflow without logarithms."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from neuralclust.classical.fuzzy import FuzzyCMeans
from neuralclust.classical.zeta import ZetaClustering


@pytest.fixture(scope="module")
def blurred():
    """Four overlapping clusters in the plane, (150, 2)."""
    return make_blobs(150, centers=4, cluster_std=1.5, center_box=(-4, 4), random_state=1)[0]


def by_loops(X, centers, m):
    """Memberships, the centres they give, and the objective, term by term."""
    d = np.array([[np.linalg.norm(x - c) for c in centers] for x in X])
    u = np.zeros_like(d)
    for i in range(len(X)):
        for j in range(len(centers)):
            u[i, j] = 1 / sum((d[i, j] / d[i, other]) ** (2 / (m - 1)) for other in range(len(centers)))
    weights = u**m
    updated = [sum(w * x for w, x in zip(column, X, strict=True)) / column.sum() for column in weights.T]
    return u, np.array(updated), (weights * d**2).sum()


@pytest.mark.parametrize("m", [1.5, 2.0, 3.0])
def test_fixed_point_recomputed_by_loops(blurred, m):
    model = FuzzyCMeans(4, fuzziness=m, tol=1e-10, max_iter=2000, random_state=0).fit(blurred)
    u, centers, objective = by_loops(blurred, model.cluster_centers_, m)
    assert np.allclose(model.predict_proba(blurred), u, atol=1e-10)
    assert np.allclose(model.cluster_centers_, centers, atol=1e-7)
    assert model.objective_ == pytest.approx(objective, rel=1e-10)
    assert np.array_equal(model.labels_, u.argmax(axis=1))
    assert np.array_equal(model.labels_, model.predict(blurred))


def test_objective_falls_with_every_round(blurred):
    values = [FuzzyCMeans(4, tol=0, max_iter=i, random_state=0).fit(blurred).objective_ for i in range(1, 15)]
    assert all(np.diff(values) < 0)


def test_rounds_end_by_tolerance_or_limit(blurred):
    assert FuzzyCMeans(4, tol=0, max_iter=3, random_state=0).fit(blurred).n_iter_ == 3
    loose = FuzzyCMeans(4, tol=0.1, random_state=0).fit(blurred).n_iter_
    tight = FuzzyCMeans(4, tol=1e-6, max_iter=2000, random_state=0).fit(blurred).n_iter_
    assert 1 <= loose < tight < 2000


def test_memberships_hold_far_from_the_origin(blurred):
    near = FuzzyCMeans(4, random_state=0).fit(blurred)
    far = FuzzyCMeans(4, random_state=0).fit(blurred + 1e6)
    assert np.allclose(near.predict_proba(blurred), far.predict_proba(blurred + 1e6), atol=1e-6)
    assert np.allclose(near.transform(blurred), far.transform(blurred + 1e6), atol=1e-8)


def test_distances_hold_far_from_the_mean():
    """Between two clusters far apart the mean is near none of them, and squared distances would cancel."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 2)) + np.where(np.arange(80) < 40, 1e6, -1e6)[:, None]
    model = FuzzyCMeans(2, random_state=0).fit(X)
    exact = np.linalg.norm(X[:, None] - model.cluster_centers_, axis=2)
    assert np.allclose(model.transform(X), exact, rtol=1e-9)


def test_near_one_it_is_k_means(blurred):
    model = FuzzyCMeans(4, fuzziness=1.0001, tol=0, random_state=0).fit(blurred)
    hard = KMeans(4, init=model.cluster_centers_, n_init=1).fit(blurred)  # finds nothing to move
    assert np.array_equal(model.labels_, hard.labels_)
    assert np.allclose(model.cluster_centers_, hard.cluster_centers_, atol=1e-3)
    assert model.objective_ == pytest.approx(hard.inertia_, rel=1e-3)


@pytest.mark.parametrize("m", [1 + 1e-9, 1.02, 50.0])
def test_powers_that_overflow(m):
    X, y = make_blobs(60, 500, centers=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 50 does collapse
        plain = FuzzyCMeans(3, fuzziness=m, random_state=0).fit(X)
        large = FuzzyCMeans(3, fuzziness=m, random_state=0).fit(X * 2.0**200)
    u = plain.predict_proba(X)
    assert np.allclose(u.sum(axis=1), 1)
    assert np.allclose(u, large.predict_proba(X * 2.0**200), atol=1e-6)
    if m < 2:
        assert adjusted_rand_score(y, plain.labels_) == 1.0


def test_row_at_a_centre_belongs_to_it_alone():
    model = FuzzyCMeans(2, random_state=0).fit([[1e6, 0.0], [1e6, 0.0], [1e6 + 3, 1.0], [1e6 + 3, 1.0]])
    assert np.array_equal(np.sort(model.predict_proba([[1e6, 0.0]])), [[0.0, 1.0]])
    assert model.objective_ == 0


def test_row_at_several_centres_is_shared_equally():
    X = np.repeat([[0.0], [1.0]], 3, axis=0)
    with pytest.warns(ConvergenceWarning):
        model = FuzzyCMeans(4, random_state=0).fit(X)
    at = model.transform(X) == 0
    assert at.sum() > 6  # four centres at two places
    assert np.allclose(model.predict_proba(X), at / at.sum(axis=1, keepdims=True), atol=1e-12)


def test_collapse_is_reported_with_its_remedy():
    X, y = make_blobs(200, 300, centers=4, cluster_std=6, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"fuzziness=2\.0 is too high.*300 features.*Lower fuzziness"):
        FuzzyCMeans(4, random_state=0).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = FuzzyCMeans(4, fuzziness=1.1, n_init=3, random_state=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) == 1.0


def test_best_of_several_runs_is_kept():
    X = make_blobs(200, centers=12, cluster_std=0.5, random_state=3)[0]
    one, five = (
        np.array([FuzzyCMeans(12, fuzziness=1.2, n_init=n, random_state=s).fit(X).objective_ for s in range(4)])
        for n in (1, 5)
    )
    assert (five <= one).all()  # the first start is the same
    assert five.max() < 0.99 * one.max()


def test_easy_clusters_are_found_from_any_seed_alike(easy):
    X, y = easy
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    model = FuzzyCMeans(3, random_state=3).fit(X)
    assert adjusted_rand_score(y, model.labels_) == 1.0
    assert np.array_equal(model.labels_, FuzzyCMeans(3, random_state=3).fit(X).labels_)
    state = np.random.RandomState(0)
    assert len(FuzzyCMeans(3, random_state=state).fit(X).labels_) == 240
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert model.get_feature_names_out().tolist() == ["fuzzycmeans0", "fuzzycmeans1", "fuzzycmeans2"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("k", [1, 2, 6])
def test_degenerate_rows(k):
    rng = np.random.default_rng(0)
    for X in (np.zeros((6, 2)), np.full((6, 2), 3.0), np.repeat(rng.normal(size=(3, 2)), 2, axis=0)):
        model = FuzzyCMeans(k, random_state=0).fit(X)
        assert np.allclose(model.predict_proba(X).sum(axis=1), 1)
        assert np.isfinite(model.cluster_centers_).all()
    distinct = FuzzyCMeans(6, random_state=0).fit(rng.normal(size=(6, 2)))
    assert sorted(distinct.labels_) == list(range(6))


def test_bad_parameters():
    with pytest.raises(ValueError, match="fuzziness"):
        FuzzyCMeans(2, fuzziness=1.0).fit(np.eye(4))
    with pytest.raises(ValueError, match="n_samples=4 should be >= n_clusters=5"):
        FuzzyCMeans(5).fit(np.eye(4))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_accepts_it():
    results = check_estimator(FuzzyCMeans(), on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert len(results) > 35


def test_a_data_frame_is_no_cause_for_warnings():
    X = pd.DataFrame({"a": [0.0, 0.1, 5.0, 5.1], "b": [1.0, 1.1, 1.0, 1.2]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = FuzzyCMeans(2, random_state=0).fit(X)
        assert np.array_equal(model.predict(X), model.labels_)


def test_squares_that_overflow_are_told():
    for method in (FuzzyCMeans(2), ZetaClustering(2)):
        with pytest.raises(ValueError, match="whose squares float64 cannot hold"):
            method.fit(1e160 * np.arange(12.0).reshape(6, 2))
