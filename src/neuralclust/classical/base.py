"""What the estimators without a network share: the check of their rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import validate_data

from neuralclust._warn import warn


class RowClusterer(ClusterMixin, BaseEstimator):
    """A clusterer of the rows of a table, a dense one but where a tag says otherwise."""

    n_clusters: int

    def _rows(self, X: Any, *, reset: bool = False) -> Any:
        """Checked rows, float32 if they are and float64 otherwise; while fitting, at least ``n_clusters`` of them."""
        sparse = "csr" if self.__sklearn_tags__().input_tags.sparse else False
        X = validate_data(self, X, reset=reset, accept_sparse=sparse, dtype=[np.float64, np.float32], order="C")
        if reset and X.shape[0] < self.n_clusters:
            raise ValueError(
                f"n_samples={X.shape[0]} should be >= n_clusters={self.n_clusters}. "
                f"Pass more rows or ask for fewer clusters."
            )
        return X

    def _require_squares(self, rows: np.ndarray) -> None:
        """ValueError for rows, float64 ones, whose squares are infinite."""
        with np.errstate(over="ignore"):
            if not np.isfinite(np.vdot(rows, rows)):
                raise ValueError(
                    f"X has values as large as {np.abs(rows).max():.3g}, whose squares {rows.dtype} cannot hold. Scale "
                    f"X down."
                )

    def _warn_of_copies(self, X: np.ndarray) -> None:
        """Say so if there are fewer distinct rows than clusters: then rows that are the same are told apart."""
        few = self.n_clusters  # mostly the first rows settle it
        if any(len(np.unique(rows, axis=0)) >= few for rows in (X[: 10 * few], X)):
            return
        warn(
            f"X has fewer distinct rows than n_clusters={few}, so rows that are the same were put into different "
            f"clusters. Ask for fewer clusters."
        )
