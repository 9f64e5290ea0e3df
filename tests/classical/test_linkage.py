"""Weighted linkage: the tree is SciPy's, the cut gives exactly as many clusters as asked for."""

from contextlib import nullcontext

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from neuralclust.classical.linkage import WeightedLinkage


def merged_by_hand(X, n_clusters):
    """WPGMA from its definition: the two nearest clusters, then the plain mean of two rows of distances."""
    d = cdist(X, X)
    groups = [[i] for i in range(len(X))]
    while len(groups) > n_clusters:
        masked = d + np.diag(np.full(len(d), np.inf))
        a, b = sorted(np.unravel_index(masked.argmin(), d.shape))
        d[a] = d[:, a] = (d[a] + d[b]) / 2
        d = np.delete(np.delete(d, b, 0), b, 1)
        groups[a] += groups.pop(b)
    labels = np.zeros(len(X), dtype=int)
    for label, group in enumerate(groups):
        labels[group] = label
    return labels


@pytest.mark.parametrize("k", [1, 2, 5, 17])
def test_partition_is_scipys_and_that_of_the_definition(k):
    X = np.random.default_rng(0).normal(size=(60, 3))
    labels = WeightedLinkage(k).fit_predict(X)
    assert adjusted_rand_score(fcluster(linkage(X, "weighted"), k, "maxclust"), labels) == 1.0
    assert adjusted_rand_score(merged_by_hand(X, k), labels) == 1.0
    assert np.array_equal(np.unique(labels), np.arange(k))


def test_it_is_not_average_linkage():
    X = np.random.default_rng(0).normal(size=(60, 3))
    average = fcluster(linkage(X, "average"), 8, "maxclust")
    assert adjusted_rand_score(average, WeightedLinkage(8).fit_predict(X)) < 0.999


@pytest.mark.parametrize("k", range(1, 13))
def test_equal_heights_still_give_every_number_of_clusters(k):
    grid = np.array([[i, j] for i in range(3) for j in range(4)], dtype=float)
    assert len(np.unique(WeightedLinkage(k).fit_predict(grid))) == k
    with pytest.warns(ConvergenceWarning, match=f"fewer distinct rows than n_clusters={k}") if k > 1 else nullcontext():
        assert len(np.unique(WeightedLinkage(k).fit_predict(np.ones((12, 2))))) == k


def test_easy_clusters_are_found(easy):
    X, y = easy
    assert adjusted_rand_score(y, WeightedLinkage(3).fit_predict(X)) == 1.0


def test_distances_hold_far_from_the_origin(easy):
    X, _ = easy
    near, far = WeightedLinkage(9).fit(X.astype(float)), WeightedLinkage(9).fit(X.astype(float) + 1e6)
    assert adjusted_rand_score(near.labels_, far.labels_) == 1.0


def test_single_row_and_too_few_rows():
    assert WeightedLinkage(1).fit_predict([[1.0, 2.0]]).tolist() == [0]
    with pytest.raises(ValueError, match=r"n_samples=2 should be >= n_clusters=3.*fewer clusters"):
        WeightedLinkage(3).fit([[0.0], [1.0]])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_it():
    results = check_estimator(WeightedLinkage(), on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert len(results) > 35
