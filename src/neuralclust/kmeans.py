"""k-means on codes: the start of every centroid method. On CPUs scikit-learn's is the fastest there is."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning


def fit_kmeans(z: np.ndarray, n_clusters: int, *, n_init: int, seed: int) -> KMeans:
    """scikit-learn's k-means, on codes that are ours to centre in place.

    Too few distinct rows are reported by the estimator, once, at the end.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(n_clusters, n_init=n_init, random_state=seed, copy_x=False).fit(z)


def initial_centers(z: np.ndarray, n_clusters: int, init: str, *, n_init: int, seed: int) -> np.ndarray:
    """Cluster centres to start from.

    Parameters
    ----------
    z : ndarray of shape (n, p)
        Codes, at least ``n_clusters`` of them.
    n_clusters : int
        Number of centres.
    init : {"k-means", "k-means++", "random"}
        A full run of k-means (the best of ``n_init``), its seeding alone, or rows drawn at random.
    n_init : int
        Runs of k-means.
    seed : int
        Random seed.

    Returns
    -------
    ndarray of shape (n_clusters, p)

    Examples
    --------
    >>> import numpy as np
    >>> from neuralclust.kmeans import initial_centers
    >>> z = np.array([[0.0], [0.5], [4.0], [4.5]], dtype="float32")
    >>> sorted(initial_centers(z, 2, "k-means", n_init=1, seed=0).ravel().tolist())
    [0.25, 4.25]
    """
    if init == "k-means":
        return fit_kmeans(z, n_clusters, n_init=n_init, seed=seed).cluster_centers_
    if init == "k-means++":
        return kmeans_plusplus(z, n_clusters, random_state=seed)[0]
    rows = np.random.default_rng(seed).choice(len(z), n_clusters, replace=False)
    return z[rows]


def split_clusters(
    z: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], centers: np.ndarray, seed: int
) -> tuple[np.ndarray, list[int], list[int]]:
    """Give every empty cluster half of the widest one, cut in two by k-means.

    Parameters
    ----------
    z : ndarray of shape (n, p)
        Codes.
    predict : callable
        Centres ``(k, p)`` to the labels ``(n,)`` of ``z``.
    centers : ndarray of shape (k, p)
        Current centres.
    seed : int
        Random seed.

    Returns
    -------
    centers : ndarray of shape (k, p)
        With the new ones in place.
    filled : list of int
        Clusters that were empty and have a new centre.
    cut : list of int
        The others whose centre is new: what was cut in two.
    """
    centers = centers.copy()
    first = set(range(len(centers))) - set(predict(centers).tolist())
    changed: set[int] = set()
    for _ in range(len(centers)):
        labels = predict(centers)
        counts = np.bincount(labels, minlength=len(centers))
        empty = np.flatnonzero(counts == 0)
        if len(empty) == 0:
            break
        spread = np.bincount(labels, ((z - centers[labels]) ** 2).sum(axis=1), minlength=len(centers))
        widest = int(np.where(counts > 1, spread, -1.0).argmax())
        members = z[labels == widest]
        if np.all(members == members[0]):
            break  # nothing left to tell apart
        halves = fit_kmeans(members, 2, n_init=3, seed=seed).cluster_centers_
        centers[[widest, empty[0]]] = halves
        changed |= {widest, int(empty[0])}
    return centers, sorted(changed & first), sorted(changed - first)


def finite_codes(z: np.ndarray) -> np.ndarray:
    """The codes, if they can be clustered."""
    if not np.isfinite(z).all():
        raise ValueError("The encoder returns codes with NaN or infinity. Check its weights and its layers.")
    return z
