"""Metrics against brute force, and the identities of the papers."""

import itertools

import numpy as np
import pytest

from neuralclust import metrics

rng = np.random.default_rng(0)
PAIRS = [(rng.integers(0, k, 40), rng.integers(0, m, 40)) for k, m in ((3, 3), (4, 2), (2, 5), (1, 3), (3, 1))]


@pytest.mark.parametrize(("y", "q"), PAIRS)
def test_accuracy_is_the_best_map(y, q):
    size = max(y.max(), q.max()) + 1
    best = max(np.mean(np.array(p)[q] == y) for p in itertools.permutations(range(size)))
    assert metrics.clustering_accuracy(y, q) == pytest.approx(best)
    assert np.mean(metrics.match_labels(y, q) == y) == pytest.approx(best)


@pytest.mark.parametrize(("y", "q"), PAIRS)
def test_pairwise_precision_by_counting_pairs(y, q):
    together = [(i, j) for i, j in itertools.combinations(range(40), 2) if q[i] == q[j]]
    right = sum(y[i] == y[j] for i, j in together)
    assert metrics.pairwise_precision(y, q) == pytest.approx(right / len(together))


def test_pairwise_precision_of_one_cluster_is_the_sum_of_squared_class_shares():
    y = np.repeat(np.arange(4), [1000, 2000, 3000, 4000])
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    assert metrics.pairwise_precision(y, np.zeros(10_000)) == pytest.approx((shares**2).sum(), abs=1e-4)
    assert metrics.pairwise_precision(y, np.arange(10_000)) == 1.0


def test_v_measure_is_arithmetic_nmi():
    for y, q in PAIRS:
        scores = metrics.evaluate(y, q)
        assert scores["v_measure"] == pytest.approx(scores["nmi"])


def test_geometric_nmi_by_its_formula():
    y, q = PAIRS[1]
    p = metrics._contingency(y, q) / 40
    outer = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    information = (p[p > 0] * np.log(p[p > 0] / outer[p > 0])).sum()
    entropies = [-(m * np.log(m)).sum() for m in (p.sum(0), p.sum(1))]
    assert metrics.evaluate(y, q)["nmi_geometric"] == pytest.approx(information / np.sqrt(np.prod(entropies)))


def test_renaming_clusters_changes_nothing():
    y, q = PAIRS[0]
    renamed = np.array([2, 0, 1])[q]
    for name, value in metrics.evaluate(y, q).items():
        assert metrics.evaluate(y, renamed)[name] == pytest.approx(value), name


def test_perfect_and_useless():
    y = np.repeat([0, 1, 2], 10)
    assert all(value == pytest.approx(1.0) for value in metrics.evaluate(y, y).values())
    one = metrics.evaluate(y, np.zeros(30))
    assert one["acc"] == pytest.approx(1 / 3)
    assert one["nmi"] == one["ari"] == 0.0


def test_strings_and_missing_ids_are_fine():
    assert metrics.clustering_accuracy(["a", "a", "b"], [7, 7, 99]) == 1.0


@pytest.mark.parametrize("bad", [([], []), ([0, 1], [0]), ([[0, 1]], [0, 1])])
def test_bad_labels(bad):
    for metric in (metrics.clustering_accuracy, metrics.purity, metrics.pairwise_precision, metrics.evaluate):
        with pytest.raises(ValueError, match=r".+"):
            metric(*bad)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (np.array([True, True, False, False]), [1, 1, 0, -1]),
        (np.array([3, 3, 5, 5], dtype=np.uint8), [3, 3, 5, -1]),
        (np.array([2**40, 2**40, 5, 5], dtype=np.uint64), [2**40, 2**40, 5, -1]),
        (np.array(["ab", "ab", "c", "c"]), ["ab", "ab", "c", -1]),
        (np.array([3.0, 3.0, 5.0, 5.0]), [3.0, 3.0, 5.0, -1.0]),
    ],
)
def test_a_cluster_without_a_class_is_minus_one_whatever_the_classes_are(classes, expected):
    assert metrics.match_labels(classes, [1, 1, 0, 2]).tolist() == expected


@pytest.mark.parametrize("metric", ["clustering_accuracy", "match_labels", "purity", "pairwise_precision"])
def test_missing_labels_are_refused(metric):
    with pytest.raises(ValueError, match=r"labels_true has 1 missing values \(NaN\)"):
        getattr(metrics, metric)([0.0, np.nan, 1.0], [0, 0, 1])
    with pytest.raises(ValueError, match="labels_pred has 2 missing"):
        getattr(metrics, metric)([0, 0, 1], [np.nan, np.nan, 1.0])


def test_columns_of_labels_are_matched_as_vectors():
    found = metrics.match_labels(np.array([[3], [3], [5]]), np.array([[1], [1], [0]]))
    assert found.tolist() == [3, 3, 5]
