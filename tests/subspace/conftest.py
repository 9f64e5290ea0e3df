"""Rows on several subspaces."""

import numpy as np
import pytest


def union_of_subspaces(n=60, d=20, k=3, rank=4, noise=0.0, seed=0):
    """Rows of unit length near ``k`` random subspaces, and their subspace."""
    rng = np.random.default_rng(seed)
    bases = [np.linalg.qr(rng.normal(size=(d, rank)))[0].T for _ in range(k)]
    X = np.vstack([rng.normal(size=(n // k, rank)) @ basis for basis in bases])
    X += noise * rng.normal(size=X.shape)
    return X / np.linalg.norm(X, axis=1, keepdims=True), np.repeat(np.arange(k), n // k)


@pytest.fixture
def subspaces():
    return union_of_subspaces()


@pytest.fixture
def noisy():
    return union_of_subspaces(noise=0.05)
