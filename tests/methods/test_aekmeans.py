"""Autoencoder and k-means."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from neuralclust import AEKMeans
from tests.conftest import small


def test_without_encoder_it_is_k_means(easy):
    X, _ = easy
    model = AEKMeans(3, encoder=None, random_state=0).fit(X)
    reference = KMeans(3, n_init=10, random_state=0).fit(X)
    assert adjusted_rand_score(reference.labels_, model.labels_) == 1.0
    assert np.allclose(
        np.sort(model.reconstruct_centers(), axis=0), np.sort(reference.cluster_centers_, axis=0), atol=1e-4
    )
    scale = float(model.module_.scale)
    assert model.loss_ == pytest.approx(reference.inertia_ / len(X) * scale**2, rel=1e-3)


def test_counts_are_those_of_the_training_rows(easy):
    model = small("AEKMeans").fit(easy[0])
    assert np.array_equal(model.module_.head.counts, np.bincount(model.labels_, minlength=3))


def test_codes_beyond_the_limit_are_sampled(easy, monkeypatch):
    X, _ = easy
    monkeypatch.setattr("neuralclust.warmstart._CODE_BYTES", 64)
    seen = []
    original = KMeans.fit
    monkeypatch.setattr(KMeans, "fit", lambda self, z, *a: seen.append(len(z)) or original(self, z, *a))
    model = small("AEKMeans", n_clusters=2).fit(X)
    assert seen == [200]  # 100 rows a cluster at least
    assert float(model.module_.head.counts.sum()) == 240


def test_denoising_corrupts_training_only(easy):
    X, _ = easy
    clean, noisy = small("AEKMeans").fit(X), small("AEKMeans", noise=0.5).fit(X)
    assert noisy.history_[-1]["rec"] > clean.history_[-1]["rec"]
    assert np.array_equal(noisy.transform(X), noisy.transform(X))


def test_normalize(easy):
    X, _ = easy
    unit, free = small("AEKMeans").fit(X), small("AEKMeans", normalize=False).fit(X)
    assert np.allclose(np.linalg.norm(unit.transform(X), axis=1), 1, atol=1e-5)
    assert not np.allclose(np.linalg.norm(free.transform(X), axis=1), 1, atol=1e-2)


def test_stream_keeps_running_means():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(50, 2)), rng.normal(size=(30, 2)) + 0.5
    model = AEKMeans(1, encoder=None, random_state=0).fit(first)
    model.partial_fit(second)
    mean = np.concatenate([first, second]).mean(axis=0)
    assert np.allclose(model.reconstruct_centers()[0], mean, atol=1e-5)
    assert isinstance(model.module_.head.counts, torch.Tensor)
