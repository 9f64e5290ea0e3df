"""Small made-up data whose true clusters are known."""

from __future__ import annotations

import numpy as np


def make_sphere_clusters(
    n_samples: int = 300,
    n_clusters: int = 3,
    n_features: int = 10,
    *,
    noise: float = 0.2,
    random_state: int | np.random.Generator | None = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Points of the unit sphere around random directions, one direction for each cluster.

    Parameters
    ----------
    n_samples : int, default=300
        Number of points, shared out evenly among the clusters and shuffled.
    n_clusters : int, default=3
        Number of clusters.
    n_features : int, default=10
        Dimension of the space.
    noise : float, default=0.2
        Typical distance of a point from its direction, before it is put back on the sphere, in any dimension.
    random_state : int, numpy.random.Generator or None, default=0
        Seed.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), float32
    y : ndarray of shape (n_samples,), int64

    Examples
    --------
    >>> from neuralclust.datasets import make_sphere_clusters
    >>> X, y = make_sphere_clusters(90, 3, 5)
    >>> X.shape, sorted(set(y.tolist()))
    ((90, 5), [0, 1, 2])
    """
    rng = np.random.default_rng(random_state)
    y = _labels(rng, n_samples, n_clusters, n_features, noise)
    centers = _unit(rng.normal(size=(n_clusters, n_features)))
    X = _unit(centers[y] + _jitter(rng, n_samples, n_features, noise))
    return X.astype(np.float32), y


def make_subspaces(
    n_samples: int = 300,
    n_subspaces: int = 3,
    subspace_dim: int = 2,
    n_features: int = 10,
    *,
    noise: float = 0.0,
    random_state: int | np.random.Generator | None = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Points of a union of random linear subspaces, their mean squared norm one but for the noise.

    Parameters
    ----------
    n_samples : int, default=300
        Number of points, shared out evenly among the subspaces and shuffled.
    n_subspaces : int, default=3
        Number of subspaces.
    subspace_dim : int, default=2
        Dimension of every subspace, at most `n_features`.
    n_features : int, default=10
        Dimension of the space.
    noise : float, default=0.0
        Typical distance of a point from its subspace, whatever the dimension.
    random_state : int, numpy.random.Generator or None, default=0
        Seed.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), float32
    y : ndarray of shape (n_samples,), int64

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.datasets import make_subspaces
    >>> X, y = make_subspaces(60, 3, 2, 8)
    >>> [int(np.linalg.matrix_rank(X[y == k], tol=1e-4)) for k in range(3)]
    [2, 2, 2]
    """
    if not 1 <= subspace_dim <= n_features:
        raise ValueError(f"subspace_dim={subspace_dim} must lie between 1 and n_features={n_features}")
    rng = np.random.default_rng(random_state)
    y = _labels(rng, n_samples, n_subspaces, n_features, noise)
    bases = np.linalg.qr(rng.normal(size=(n_subspaces, n_features, subspace_dim))).Q
    weights = rng.normal(size=(n_samples, subspace_dim)) / np.sqrt(subspace_dim)
    X = _jitter(rng, n_samples, n_features, noise)
    for k, basis in enumerate(bases):  # one product for each subspace: bases[y] would hold a basis for each point
        X[y == k] += weights[y == k] @ basis.T
    return X.astype(np.float32), y


def _labels(rng: np.random.Generator, n_samples: int, n_groups: int, n_features: int, noise: float) -> np.ndarray:
    if not 1 <= n_groups <= n_samples:
        raise ValueError(f"{n_groups} groups of {n_samples} samples: ask for at least one, and a sample for each")
    if n_features < 1 or not 0 <= noise < np.inf:
        raise ValueError(f"n_features={n_features} must be at least 1 and noise={noise} finite and not negative")
    return rng.permutation(np.arange(n_samples, dtype=np.int64) % n_groups)


def _jitter(rng: np.random.Generator, n_samples: int, n_features: int, noise: float) -> np.ndarray:
    return rng.normal(size=(n_samples, n_features)) * (noise / np.sqrt(n_features))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
