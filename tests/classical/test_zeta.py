"""Zeta merging: gains against sums over cycles, updated inverses against direct ones, and rings that are not balls."""

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import make_circles
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from neuralclust.classical import zeta
from neuralclust.classical.zeta import ZetaClustering, _chains, _join_nearest, _Merger


def log_zeta(P, z):
    """``sum_m z^m tr(P^m) / m``: every cycle by its length, until they no longer count."""
    total, power = 0.0, np.eye(len(P))
    for m in range(1, 200):
        power = z * power @ P
        total += np.trace(power) / m
    return total


def popularity(P, rows, of, z):
    """Mean of what leaving out a row of ``of`` takes from the cycles within ``rows``."""
    inside = log_zeta(P[np.ix_(rows, rows)], z)
    without = [[r for r in rows if r != row] for row in of]
    return np.mean([inside - log_zeta(P[np.ix_(rest, rest)], z) for rest in without])


def cycles_gain(P, a, b, z):
    both = [*a, *b]
    return sum(popularity(P, both, of, z) - popularity(P, of, of, z) for of in (a, b))


@pytest.fixture
def digraph():
    """Nine nodes with three edges each, rows that sum to 1, and the nodes that edges lead to."""
    rng = np.random.default_rng(0)
    neighbors = np.array([rng.choice(np.delete(np.arange(9), i), 3, replace=False) for i in range(9)])
    P = np.zeros((9, 9))
    P[np.arange(9)[:, None], neighbors] = rng.dirichlet(np.ones(3), 9)
    return P, neighbors


@pytest.mark.parametrize("z", [0.01, 0.3, 0.8])
def test_gain_is_what_the_cycles_add(digraph, z):
    P, neighbors = digraph
    owner = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    merger = _Merger(P, z, owner.copy(), neighbors)
    groups = [np.flatnonzero(owner == c).tolist() for c in range(3)]
    gains = []
    for a, b in ((0, 1), (1, 2), (0, 2), (2, 0)):
        gains.append(merger.gain(a, b))
        assert gains[-1] == pytest.approx(cycles_gain(P, groups[a], groups[b], z), rel=1e-6, abs=1e-14)
    assert gains[2] == gains[3]
    assert gains[0] > 0
    assert gains[1] == 0  # all edges between these two lead one way


def test_edges_in_one_direction_close_no_cycle():
    P = np.zeros((4, 4))
    P[0, 1] = P[1, 0] = P[2, 3] = P[3, 2] = 0.5
    P[0, 2] = 0.5
    merger = _Merger(P, 0.5, np.array([0, 0, 1, 1]), np.array([[1, 2], [0, 0], [3, 3], [2, 2]]))
    assert merger.gain(0, 1) == 0
    assert merger.merge(1).tolist() == [0, 0, 1, 1]


def test_merger_picks_the_largest_gain_and_updates_the_inverse(digraph):
    P, neighbors = digraph
    merger = _Merger(P, 0.5, np.arange(9), neighbors)
    groups = [[i] for i in range(9)]
    while len(groups) > 2:
        pairs = [(cycles_gain(P, a, b, 0.5), a, b) for i, a in enumerate(groups) for b in groups[:i]]
        _, a, b = max(pairs)
        groups = [g for g in groups if g not in (a, b)] + [a + b]
        labels = merger.merge(len(groups))
        assert {tuple(sorted(g)) for g in groups} == {tuple(np.flatnonzero(labels == c)) for c in np.unique(labels)}
        for c, rows in merger.rows.items():
            direct = np.linalg.inv(np.eye(len(rows)) - 0.5 * P[np.ix_(rows, rows)])
            assert np.allclose(merger.inverse[c], direct, atol=1e-12)
    assert np.array_equal(labels, _Merger(P, 0.5, np.arange(9), neighbors).merge(2))  # in one go, from one queue


def test_weights_are_those_of_the_definition(monkeypatch):
    X = np.random.default_rng(0).normal(size=(30, 2))
    seen = []
    monkeypatch.setattr(zeta, "_Merger", lambda P, *rest: seen.append(P) or _Merger(P, *rest))
    ZetaClustering(2, n_neighbors=5, a=0.4).fit(X)
    d = np.linalg.norm(X[:, None] - X, axis=2)
    scale = np.mean([np.sort(row)[1:4] ** 2 for row in d]) / -np.log(0.4)
    for i in range(30):
        near = np.argsort(d[i])[1:6]
        weight = np.exp(-(d[i, near] ** 2) / scale)
        assert np.allclose(seen[0][i, near], weight / weight.sum(), rtol=1e-9)
    assert np.count_nonzero(seen[0]) == 150


def test_rings_are_found_where_k_means_fails():
    X, y = make_circles(300, noise=0.03, factor=0.4, random_state=0)
    assert adjusted_rand_score(y, ZetaClustering(2, n_neighbors=10).fit_predict(X)) == 1.0
    assert adjusted_rand_score(y, KMeans(2, n_init=3, random_state=0).fit_predict(X)) < 0.2


def test_chains_are_found_where_k_means_fails():
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    X = np.column_stack([np.linspace(0, 30, 240), 2.0 * y]) + rng.normal(scale=0.1, size=(240, 2))
    assert adjusted_rand_score(y, ZetaClustering(3, n_neighbors=8).fit_predict(X)) == 1.0
    assert adjusted_rand_score(y, KMeans(3, n_init=3, random_state=0).fit_predict(X)) < 0.2


def test_parts_without_edges_between_them_are_joined_by_nearest_rows():
    def parts(*corners):
        return (np.array(corners)[:, None] + np.array([0.0, 0.1, 0.2, 0.3])).reshape(-1, 1)

    X = parts(0.0, 10.0, 20.1, 30.3, 45.0)  # the farthest rows would cut the chain of four in two
    for k, groups in {5: [0, 1, 2, 3, 4], 4: [0, 0, 1, 2, 3], 3: [0, 0, 0, 1, 2], 2: [0, 0, 0, 0, 1]}.items():
        labels = ZetaClustering(k, n_neighbors=3).fit_predict(X)
        assert adjusted_rand_score(np.repeat(groups, 4), labels) == 1.0
    for k in range(1, 5):  # equal gaps
        assert len(np.unique(ZetaClustering(k, n_neighbors=3).fit_predict(parts(0.0, 8.0, 16.0, 24.0)))) == k
    assert _join_nearest(X, np.repeat([7, 7, 3, 3, 5], 4), 2).tolist() == [0] * 16 + [1] * 4


def test_chains_are_nearest_neighbours_without_the_longest_links():
    nearest, d2 = np.array([1, 0, 1, 4, 3, 4]), np.array([1.0, 1.0, 4.0, 9.0, 9.0, 16.0])
    partitions = {1: [0, 0, 0, 1, 1, 1], 3: [0, 0, 0, 1, 1, 2], 4: [0, 0, 0, 1, 2, 3], 5: [0, 0, 1, 2, 3, 4]}
    for at_least, expected in partitions.items():
        assert adjusted_rand_score(expected, _chains(nearest, d2, at_least)) == 1.0
    assert len(np.unique(_chains(nearest, 0 * d2, 6))) == 6  # links of no length are links all the same
    assert len(np.unique(_chains(nearest, 0 * d2, 1))) == 2


@pytest.mark.parametrize("k", [1, 2, 7, 40, 79, 80])
def test_there_are_as_many_clusters_as_asked_for(k):
    X = np.random.default_rng(0).normal(size=(80, 3))
    assert np.array_equal(np.unique(ZetaClustering(k).fit_predict(X)), np.arange(k))


def test_order_place_and_scale_of_the_rows_do_not_matter(easy):
    X, y = easy
    order = np.random.default_rng(0).permutation(len(X))
    labels = ZetaClustering(6).fit_predict(X)
    assert adjusted_rand_score(y, ZetaClustering(3).fit_predict(X)) == 1.0
    assert np.array_equal(labels, ZetaClustering(6).fit_predict(X))
    assert adjusted_rand_score(labels[order], ZetaClustering(6).fit_predict(X[order])) == 1.0
    assert adjusted_rand_score(labels, ZetaClustering(6).fit_predict(X.astype(float) * 1e-9 + 1)) == 1.0


def test_weights_that_are_all_zero_before_scaling():
    X = np.concatenate([np.random.default_rng(0).normal(size=(80, 2)), [[1e9, 0.0]]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 0 / 0
        labels = ZetaClustering(2, a=1e-9).fit_predict(X)
    assert len(np.unique(labels)) == 2


def test_new_rows_follow_the_nearest_training_row(easy):
    X = easy[0].astype(float)
    far = X + 1e7  # squares keep nothing of the differences
    model = ZetaClustering(20).fit(far[:200])
    assert np.array_equal(model.labels_, model.predict(far[:200]))
    nearest = np.linalg.norm(X[200:, None] - X[None, :200], axis=2).argmin(axis=1)
    assert np.array_equal(model.labels_[nearest], model.predict(far[200:]))


@pytest.mark.parametrize("k", [1, 2, 6])
def test_degenerate_rows(k):
    for X in (np.zeros((6, 2)), np.eye(6), np.repeat([[0.0], [1.0]], 3, axis=0)):
        few = len(np.unique(X, axis=0)) < k
        with pytest.warns(ConvergenceWarning, match="fewer distinct rows") if few else nullcontext():
            model = ZetaClustering(k).fit(X)
        assert len(np.unique(model.labels_)) == k
        assert model.predict(X).shape == (6,)
    X = np.repeat([[0.0], [1.0]], 30, axis=0)
    assert adjusted_rand_score(X[:, 0], ZetaClustering(2).fit_predict(X)) == 1.0


def test_one_or_two_rows():
    assert ZetaClustering(1).fit([[1.0, 2.0]]).labels_.tolist() == [0]
    assert ZetaClustering(1).fit([[1.0], [2.0]]).labels_.tolist() == [0, 0]
    assert sorted(ZetaClustering(2).fit([[1.0], [2.0]]).labels_) == [0, 1]
    with pytest.raises(ValueError, match="n_samples=2 should be >= n_clusters=3"):
        ZetaClustering(3).fit([[1.0], [2.0]])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_it():
    results = check_estimator(ZetaClustering(), on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert len(results) > 35
