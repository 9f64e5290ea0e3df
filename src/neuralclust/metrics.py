"""Clustering metrics, what the papers report: thin over scikit-learn, whose functions are here under their names.

Every function takes ``(labels_true, labels_pred)`` and is unchanged by renaming clusters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    completeness_score,
    homogeneity_score,
    normalized_mutual_info_score,
    v_measure_score,
)
from sklearn.metrics.cluster import contingency_matrix, pair_confusion_matrix
from sklearn.utils.validation import check_consistent_length, column_or_1d

__all__ = [
    "adjusted_mutual_info_score",
    "adjusted_rand_score",
    "clustering_accuracy",
    "completeness_score",
    "evaluate",
    "homogeneity_score",
    "match_labels",
    "normalized_mutual_info_score",
    "pairwise_precision",
    "purity",
    "v_measure_score",
]


def _contingency(labels_true: ArrayLike, labels_pred: ArrayLike) -> np.ndarray:
    """Counts (classes, clusters), after the checks that scikit-learn's own metrics make."""
    labels_true = column_or_1d(labels_true)
    labels_pred = column_or_1d(labels_pred)
    check_consistent_length(labels_true, labels_pred)
    if np.size(labels_true) == 0:
        raise ValueError("labels_true and labels_pred are empty; at least 1 label is needed.")
    for name, labels in (("labels_true", labels_true), ("labels_pred", labels_pred)):
        if missing := int(np.sum(labels != labels)):  # of all values NaN alone differs from itself
            raise ValueError(f"{name} has {missing} missing values (NaN). Leave these rows out, or give them a label.")
    return contingency_matrix(labels_true, labels_pred)


def clustering_accuracy(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Share of rows that are right under the best one-to-one map of clusters to classes (Hungarian method).

    Parameters
    ----------
    labels_true, labels_pred : array-like of shape (n_samples,)
        Class and cluster of every row. Their numbers may differ; what is left over counts as wrong.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> from neuralclust.metrics import clustering_accuracy
    >>> clustering_accuracy([0, 0, 1, 1], [1, 1, 0, 1])
    0.75
    """
    counts = _contingency(labels_true, labels_pred)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / counts.sum())


def match_labels(labels_true: ArrayLike, labels_pred: ArrayLike) -> np.ndarray:
    """Rename clusters to the classes they match best one to one; a cluster without a class becomes -1.

    Returns
    -------
    ndarray of shape (n_samples,)
        Of the dtype of the classes, if it can hold -1; of Booleans and unsigned integers, signed integers; of names,
        objects.

    Examples
    --------
    >>> from neuralclust.metrics import match_labels
    >>> match_labels([3, 3, 5, 5], [1, 1, 0, 0]).tolist()
    [3, 3, 5, 5]
    """
    counts = _contingency(labels_true, labels_pred)
    classes = np.unique(labels_true)
    _, cluster = np.unique(column_or_1d(labels_pred), return_inverse=True)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    name = np.full(counts.shape[1], -1, dtype=_holds_minus_one(classes.dtype))
    name[columns] = classes[rows]
    return name[cluster]


def _holds_minus_one(dtype: np.dtype) -> np.dtype:
    if dtype.kind in "if":
        return dtype
    return np.dtype(np.int64 if dtype.kind in "bu" else object)


def pairwise_precision(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Share of the pairs of rows put together that belong together: TP / (TP + FP) over pairs.

    The "Precision" of the DCSAI paper. Without any pair put together it is 1.

    Examples
    --------
    >>> from neuralclust.metrics import pairwise_precision
    >>> pairwise_precision([0, 0, 1, 1], [0, 0, 0, 0])
    0.333...
    """
    _contingency(labels_true, labels_pred)
    (_, false), (_, true) = pair_confusion_matrix(labels_true, labels_pred).astype(float)
    return float(true / (true + false)) if true + false else 1.0


def purity(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Share of rows that belong to the commonest class of their cluster.

    Examples
    --------
    >>> from neuralclust.metrics import purity
    >>> purity([0, 0, 1, 1], [0, 1, 2, 3])
    1.0
    """
    counts = _contingency(labels_true, labels_pred)
    return float(counts.max(axis=0).sum() / counts.sum())


def evaluate(labels_true: ArrayLike, labels_pred: ArrayLike) -> dict[str, float]:
    """All metrics of the five papers at once.

    Returns
    -------
    dict of str to float
        ``acc``, ``nmi`` (arithmetic mean of the entropies, scikit-learn's default), ``nmi_geometric`` (Eq. 30 of
        the SSCNet paper), ``ari``, ``ami``, ``homogeneity``, ``completeness``, ``v_measure`` (equal to
        ``nmi``), ``purity`` and ``precision`` (over pairs).

    Examples
    --------
    >>> from neuralclust.metrics import evaluate
    >>> evaluate([0, 0, 1, 1], [1, 1, 0, 0])["acc"]
    1.0
    """
    both = labels_true, labels_pred
    return {
        "acc": clustering_accuracy(*both),
        "nmi": float(normalized_mutual_info_score(*both)),
        "nmi_geometric": float(normalized_mutual_info_score(*both, average_method="geometric")),
        "ari": float(adjusted_rand_score(*both)),
        "ami": float(adjusted_mutual_info_score(*both)),
        "homogeneity": float(homogeneity_score(*both)),
        "completeness": float(completeness_score(*both)),
        "v_measure": float(v_measure_score(*both)),
        "purity": purity(*both),
        "precision": pairwise_precision(*both),
    }
