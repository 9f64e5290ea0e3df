"""Saved models over data that is somewhere else: Dask arrays, and the function that Spark and Ray call."""

from __future__ import annotations

import os
import threading
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from neuralclust._extras import require
from neuralclust.io import CONFIG, load

_METHODS = ("predict", "predict_proba", "transform")
_loading = threading.Lock()


def score_rows(rows: Any, path: str | os.PathLike[str], method: str = "predict", *, device: str = "cpu") -> np.ndarray:
    """What a saved model says of some rows; a process loads the model once, however often it is called.

    Parameters
    ----------
    rows : array-like of shape (n_samples, n_features)
        Rows as in ``fit``; none are fine.
    path : str or Path
        Folder of the model, as ``save`` wrote it, where every worker can read it.
    method : {"predict", "predict_proba", "transform"}, default="predict"
        What to ask.
    device : str, default="cpu"
        Where to compute.

    Returns
    -------
    ndarray of shape (n_samples,), (n_samples, n_clusters) or (n_samples, code length)

    Examples
    --------
    >>> import tempfile
    >>> from neuralclust import AEKMeans
    >>> from neuralclust.datasets import make_sphere_clusters
    >>> from neuralclust.scoring import score_rows
    >>> X, y = make_sphere_clusters(60, 3, 8, noise=0.1, random_state=0)
    >>> model = AEKMeans(3, encoder=None, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model")
    ...     bool((score_rows(X, f"{folder}/model") == model.labels_).all())
    True
    """
    model = _model(path, method, device)
    if (rows.shape[0] if hasattr(rows, "shape") else len(rows)) == 0:
        return _answer_of_none(model, method)
    return getattr(model, method)(rows)


def score_dask(X: Any, path: str | os.PathLike[str], method: str = "predict", *, device: str = "cpu") -> Any:
    """What a saved model says of the rows of a Dask array: a Dask array, of which nothing is computed yet.

    Parameters
    ----------
    X : dask.array.Array of shape (n_samples, n_features)
        Rows as in ``fit``, or images; of a data frame, ``frame.to_dask_array()``. Chunks of some ten thousand rows are
        a good size.
    path, method, device
        As in :func:`score_rows`.

    Returns
    -------
    dask.array.Array

    Raises
    ------
    ImportError
        If Dask is missing: ``pip install 'neuralclust[scale]'``.
    TypeError, ValueError
        If ``X`` is not a Dask array, or its rows are not those that the model was fitted on.

    Examples
    --------
    >>> import tempfile
    >>> import dask.array as da
    >>> from neuralclust import AEKMeans
    >>> from neuralclust.datasets import make_sphere_clusters
    >>> from neuralclust.scoring import score_dask
    >>> X, y = make_sphere_clusters(60, 3, 8, noise=0.1, random_state=0)
    >>> model = AEKMeans(3, encoder=None, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model")
    ...     q = score_dask(da.from_array(X, chunks=(20, 8)), f"{folder}/model", "predict_proba")
    ...     q, q.compute().shape
    (dask.array<score_rows, shape=(60, 3), dtype=float32, chunksize=(20, 3), chunktype=numpy.ndarray>, (60, 3))
    """
    array = require("dask.array", "scale")
    if not isinstance(X, array.Array):
        raise TypeError(f"X must be a dask.array.Array, got {type(X).__name__}. Use score_rows for what is in memory.")
    model = _model(path, method, device)
    n_features = int(np.prod(X.shape[1:]))
    if X.ndim < 2 or n_features != model.n_features_in_:
        raise ValueError(
            f"X has shape {X.shape}, but the {type(model).__name__} in {path} was fitted on rows of "
            f"{model.n_features_in_} features."
        )
    X = X.rechunk({axis: -1 for axis in range(1, X.ndim)})  # whole rows
    empty = _answer_of_none(model, method)
    ask = partial(_score_version, version=_version(path), path=str(Path(path).resolve()), method=method, device=device)
    chunks: tuple[Any, ...]
    if empty.ndim == 1:
        chunks, drop = (X.chunks[0],), list(range(1, X.ndim))
    else:
        chunks, drop = (X.chunks[0], (empty.shape[1],)), list(range(2, X.ndim))
    return array.map_blocks(ask, X, chunks=chunks, drop_axis=drop, meta=empty, name=None, token="score_rows")


def _score_version(rows: Any, *, version: int, **options: Any) -> np.ndarray:
    """:func:`score_rows`, with another key in Dask's graph for another model in the same place."""
    return score_rows(rows, **options)


def _version(path: str | os.PathLike[str]) -> int:
    config = Path(path).resolve() / CONFIG
    return config.stat().st_mtime_ns if config.exists() else 0


def _model(path: str | os.PathLike[str], method: str, device: str) -> Any:
    if method not in _METHODS:
        raise ValueError(f"method={method!r} must be one of {', '.join(_METHODS)}.")
    with _loading:  # threads of a worker that come at once
        return _loaded(str(Path(path).resolve()), _version(path), device)  # a model saved anew is loaded anew


@lru_cache(maxsize=8)
def _loaded(path: str, written: int, device: str) -> Any:
    return load(path, device=device)


def _answer_of_none(model: Any, method: str) -> np.ndarray:
    """The answer for no rows."""
    if method == "predict":
        return np.empty(0, np.int64)
    width = model.n_clusters if method == "predict_proba" else model.module_.autoencoder.embed_dim
    return np.empty((0, width), np.float32)
