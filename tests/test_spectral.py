"""Spectral partitions: eigenvectors against numpy, the choice of how many, graphs of every kind."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import eigsh
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from neuralclust import spectral
from neuralclust.functional import knn_graph
from neuralclust.kmeans import fit_kmeans, initial_centers
from neuralclust.spectral import (
    as_scipy,
    balanced_cut,
    normalized_cut,
    smallest_eigenvectors,
    spectral_centers,
    spectral_partition,
)


def blocks(sizes, within=1.0, between=0.01, seed=0):
    """A noisy graph of groups, and the group of each row."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    weights = rng.random((len(y), len(y))) * np.where(y[:, None] == y, within, between)
    weights = np.triu(weights, 1)
    return weights + weights.T, y


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("n", [30, 520])  # all eigenvectors at once, or by Lanczos
def test_eigenvectors(n, sparse):
    graph, _ = blocks([n // 3] * 3)
    n = len(graph)
    half = 1 / np.sqrt(graph.sum(axis=1))
    _, expected = np.linalg.eigh(half[:, None] * graph * half)
    found = smallest_eigenvectors(sp.csr_array(graph) if sparse else graph, 3)
    overlap = np.linalg.svd(found.T @ expected[:, -3:], compute_uv=False)
    assert np.allclose(overlap, 1, atol=1e-4)


@pytest.mark.parametrize("sizes", [[40, 40, 40], [80, 30, 10], [5, 5, 5, 5, 5, 5]])
def test_finds_groups(sizes):
    graph, y = blocks(sizes)
    labels, vectors = spectral_partition(graph, len(sizes))
    assert adjusted_rand_score(y, labels) == 1
    assert len(sizes) <= vectors.shape[1] <= 2 * len(sizes)
    assert np.allclose(vectors.T @ vectors, np.eye(vectors.shape[1]), atol=1e-8)


def test_more_eigenvectors_where_they_cut_less():
    """Two close groups beside loose ends that take the first eigenvectors: one per cluster is not enough."""
    graph, y = blocks([60, 60], between=0.35)
    n = len(graph)
    for end in range(2):  # pairs of rows that hang on a thread
        pair = np.zeros((n + 2, n + 2))
        pair[:n, :n] = graph
        pair[n, n + 1] = pair[n + 1, n] = 1.0
        pair[n, end] = pair[end, n] = 0.05
        graph, n = pair, n + 2
    labels, _ = spectral_partition(graph, 4)
    assert adjusted_rand_score(y, labels[:120]) == 1
    assert normalized_cut(graph, labels, 4) <= normalized_cut(graph, np.r_[y, 2, 2, 3, 3], 4) + 1e-12


def test_rows_without_neighbours_and_separate_parts():
    graph = np.kron(np.eye(3), np.ones((4, 4)) - np.eye(4))
    graph = np.pad(graph, ((0, 1), (0, 1)))
    labels, _ = spectral_partition(sp.csr_array(graph), 3)
    assert adjusted_rand_score(np.repeat([0, 1, 2], 4), labels[:12]) == 1
    assert labels.shape == (13,)


@pytest.mark.parametrize("link", [0.0, 1e-6])
def test_many_separate_parts_of_a_large_graph(link):
    """Their eigenvalues are (nearly) equal: an eigensolver that finds one vector after the other misses some."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 60)
    i = np.arange(720)
    j = 60 * y + rng.integers(0, 60, (8, 720))  # eight neighbours each, of the same part
    graph = sp.coo_array((np.ones(8 * 720), (np.tile(i, 8), j.ravel())), shape=(720, 720)).tocsr()
    ring = sp.coo_array((np.full(12, link), (i[::60], np.roll(i[::60], 1))), shape=(720, 720)).tocsr()
    graph = graph + graph.T + ring + ring.T
    labels, vectors = spectral_partition(graph, 12)
    assert adjusted_rand_score(y, labels) == 1
    parts = np.eye(12)[y] * np.sqrt(graph.sum(axis=1))[:, None]
    overlap = np.linalg.svd(vectors.T @ (parts / np.linalg.norm(parts, axis=0)), compute_uv=False)
    assert np.allclose(overlap, 1, atol=1e-3)


def test_as_many_clusters_as_rows():
    labels, _ = spectral_partition(np.ones((3, 3)), 3)
    assert labels.shape == (3,)


def test_same_seed_same_partition():
    graph, _ = blocks([30, 30, 30], between=0.6)
    first, second = (spectral_partition(graph, 3, seed=4)[0] for _ in range(2))
    assert np.array_equal(first, second)


def test_a_handful_of_rows_apart_from_all_others_is_no_cluster():
    """Of digits the normalised cut alone takes 27 rows for a cluster, and merges two classes for it."""
    z = torch.from_numpy(load_digits().data).float()
    graph = knn_graph(z, 5).coalesce()
    graph = sp.csr_array((graph.values().double().numpy(), graph.indices().numpy()), shape=graph.shape)

    def smallest(balance):
        labels, _ = spectral_partition(graph, 10, n_init=5, balance=balance)
        return labels, np.bincount(labels, minlength=10).min()

    cut, n_cut = smallest(0.0)
    balanced, n_balanced = smallest(0.05)
    assert n_cut < 50 < 80 < n_balanced
    assert normalized_cut(graph, cut, 10) < normalized_cut(graph, balanced, 10)
    assert balanced_cut(graph, cut, 10) > balanced_cut(graph, balanced, 10)


def test_centers_of_long_clusters():
    """k-means cuts two long strips across; the graph of neighbours finds them."""
    rng = np.random.default_rng(0)
    z = np.stack([rng.uniform(-10, 10, 400), np.repeat([0.0, 3.0], 200) + 0.2 * rng.normal(size=400)], axis=1)
    z = z.astype("float32")
    assert np.allclose(spectral_centers(z, 2), [z[:200].mean(0), z[200:].mean(0)], atol=1e-4)
    across = fit_kmeans(z, 2, n_init=10, seed=0).cluster_centers_
    assert np.ptp(across[:, 0]) > 8


def test_centers_are_of_k_means_where_the_graph_falls_short():
    z = np.repeat(np.eye(3, dtype="float32"), 5, axis=0)  # three distinct rows, four clusters
    assert spectral_centers(z, 4).shape == (4, 3)
    many = np.random.default_rng(0).normal(size=(300, 2)).astype("float32")
    assert np.allclose(spectral_centers(many, 60), initial_centers(many, 60, "k-means", n_init=10, seed=0))


def test_cut_by_loops():
    graph, y = blocks([7, 5, 3], between=0.5)
    leaving = [graph[y == j][:, y != j].sum() / graph[y == j].sum() for j in range(3)]
    assert normalized_cut(graph, y, 3) == pytest.approx(sum(leaving))
    assert normalized_cut(sp.csr_array(graph), y, 3) == pytest.approx(sum(leaving))


def test_a_repeated_eigenvalue_that_lapack_fails_on():
    """All rows alike: in this matrix of 30 rows one eigenvalue has 29 eigenvectors."""
    n = 30
    graph = (np.ones((n, n)) - np.eye(n)) / (n - 1)
    for q in range(1, n + 1):
        vectors = smallest_eigenvectors(graph, q)
        assert np.allclose(vectors.T @ vectors, np.eye(q), atol=1e-8)


def test_the_slow_driver_is_there_if_the_fast_one_fails(monkeypatch):
    from neuralclust import spectral

    eigh = spectral.eigh

    def fails(a, **options):
        if "subset_by_index" in options:
            raise np.linalg.LinAlgError("Internal Error.")
        return eigh(a, **options)

    a = np.diag([3.0, 1.0, 2.0])
    expected = np.abs(spectral.leading_eigenvectors(a, 2))
    monkeypatch.setattr(spectral, "eigh", fails)
    assert np.allclose(np.abs(spectral.leading_eigenvectors(a, 2)), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool])
def test_cuts_of_whole_weights_do_not_overflow(dtype):
    graph = np.kron(np.eye(2), np.ones((300, 300)))
    graph[0, 599] = graph[599, 0] = 1
    labels = np.repeat([0, 1, 0], [300, 200, 100])
    assert normalized_cut(graph.astype(dtype), labels, 2) == pytest.approx(normalized_cut(graph, labels, 2))


def rings(n):
    """Two rings in a plane: many eigenvalues of their graph nearly meet."""
    rng = np.random.default_rng(0)
    angle, y = rng.uniform(0, 2 * np.pi, n), rng.integers(2, size=n)
    X = (1 + y)[:, None] * np.c_[np.cos(angle), np.sin(angle)] + rng.normal(size=(n, 2), scale=0.03)
    return as_scipy(knn_graph(torch.from_numpy(X), 10)), y


def test_long_thin_parts():
    graph, y = rings(1500)
    half = sp.diags_array(1 / np.sqrt(graph.sum(axis=1)))
    vectors = smallest_eigenvectors(graph, 4)
    _, expected = np.linalg.eigh((half @ graph @ half).toarray())
    assert np.linalg.svd(vectors.T @ expected[:, -4:], compute_uv=False).min() > 1 - 1e-8
    assert adjusted_rand_score(y, spectral_partition(graph, 2, n_init=1)[0]) == 1


def test_wide_parts():
    """Factors of a graph in a plane are not nearly whole, as those of a ring are."""
    X = np.random.default_rng(0).uniform(size=(6000, 2)) * [3, 1]
    graph = as_scipy(knn_graph(torch.from_numpy(X), 10))
    half = sp.diags_array(1 / np.sqrt(graph.sum(axis=1)))
    _, expected = eigsh(half @ graph @ half, 4, sigma=1 + 1e-6)
    vectors = smallest_eigenvectors(graph, 4)
    assert np.linalg.svd(vectors.T @ expected, compute_uv=False).min() > 1 - 1e-6


def test_eigenvectors_that_are_not_accurate_are_told(monkeypatch):
    graph, _ = rings(1500)
    monkeypatch.setattr(spectral, "_nearly_inverse", lambda graph: None)
    with pytest.warns(ConvergenceWarning, match="4 eigenvectors of a graph of 1500 rows are not accurate"):
        smallest_eigenvectors(graph, 4)


def test_factors_that_fail(monkeypatch):
    def singular(*_, **__):
        raise RuntimeError("Factor is exactly singular")

    monkeypatch.setattr(spectral, "spilu", singular)
    with pytest.warns(ConvergenceWarning, match="not accurate"):
        smallest_eigenvectors(rings(1500)[0], 4)
