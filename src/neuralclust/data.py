"""Whatever the user has, as a source of row batches: nothing is copied, densified or cast but one batch at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from neuralclust._refuse import explained, refuse_labels, refuse_one_row, refuse_path, refuse_times
from neuralclust.peers import Peers

CHUNK_BYTES = 2**22  # rows looked at together when a statistic is taken over all of them
# torch can store these but hardly compute with them.
_UNSIGNED = {torch.uint16: torch.float32, torch.uint32: torch.float64, torch.uint64: torch.float64}
_DIRECT = {np.dtype(t) for t in ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")}


class Source(Protocol):
    """Rows by number. ``shape`` is that of one row: ``(features,)`` or ``(channels, height, width)``."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def batches(self, indices: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each tensor of row numbers ``(b,)``: itself and the rows ``(b, *shape)`` in their own dtype."""


class ArraySource:
    """Rows of a NumPy array or memory map, a scipy sparse matrix or a tensor."""

    def __init__(self, rows: Any, shape: tuple[int, ...]):
        self.shape = shape
        self._sparse = sp.issparse(rows)
        if isinstance(rows, np.ndarray) and rows.dtype in _DIRECT and rows.flags.writeable:
            with suppress(ValueError):  # negative strides or foreign byte order
                rows = torch.from_numpy(rows)  # shares memory; gathers rows on all threads
        self._rows = rows

    def __len__(self) -> int:
        return self._rows.shape[0]

    def batches(self, indices: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for index in indices:
            yield index, self._take(index).reshape(-1, *self.shape)

    def _take(self, index: Tensor) -> Tensor:
        if isinstance(self._rows, Tensor):
            taken = self._rows[index.to(self._rows.device)]
            return taken.to(_UNSIGNED.get(taken.dtype, taken.dtype))
        rows = self._rows[index.numpy()]
        rows = rows.toarray() if self._sparse else np.asarray(rows)
        if rows.dtype not in _DIRECT:
            rows = rows.astype(np.float64 if rows.dtype.itemsize > 2 else np.float32)
        return torch.from_numpy(rows if rows.dtype.isnative else rows.astype(rows.dtype.newbyteorder("=")))


class LoaderSource:
    """Rows of a map-style torch Dataset, fetched as the user's DataLoader would, in the order asked for."""

    def __init__(self, dataset: Dataset, loader: DataLoader | None = None):
        self._dataset = dataset
        self._options: dict[str, Any] = {}
        if loader is not None:
            names = ("num_workers", "pin_memory", "worker_init_fn", "multiprocessing_context", "timeout")
            self._options = {name: getattr(loader, name) for name in names}
            if loader.batch_sampler is not None:
                self._options["collate_fn"] = loader.collate_fn
        (_, first), *_ = self.batches([torch.tensor([0])])
        if first.numel() == 0:
            raise ValueError(f"The Dataset has rows of shape {tuple(first.shape[1:])}; a feature is needed.")
        self.shape = _row_shape(tuple(first.shape))

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def batches(self, indices: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        indices = list(indices)
        shape = getattr(self, "shape", None)
        sampler: Any = (index.tolist() for index in indices)
        # A generator of its own: a loader draws a seed for its workers, from torch's global state if not given one.
        generator = torch.Generator().manual_seed(0)
        loader = DataLoader(self._dataset, batch_sampler=sampler, generator=generator, **self._options)
        for index, batch in zip(indices, self._fetched(loader), strict=True):
            rows = batch[0] if isinstance(batch, (tuple, list)) else batch  # (rows, labels): labels stay out
            if not isinstance(rows, Tensor) or rows.ndim < 2 or rows.layout != torch.strided or rows.is_complex():
                got = f"{rows.dtype} of shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
                raise TypeError(
                    f"A Dataset must yield dense real tensors of at least one dimension, or tuples that begin with "
                    f"one; a batch of it is {got}. Convert the rows in its __getitem__."
                )
            rows = rows.to(_UNSIGNED.get(rows.dtype, rows.dtype))
            if shape is not None:
                rows = rows.reshape(len(index), *shape)
                if rows.is_floating_point() and not torch.isfinite(rows).all():
                    raise ValueError(
                        "The Dataset yields rows with NaN or infinity. Impute or drop them before clustering."
                    )
            yield index, rows

    @staticmethod
    def _fetched(loader: DataLoader) -> Iterator[Any]:
        batches = iter(loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:  # torch's word for rows that do not stack
                raise ValueError(f"The rows of the Dataset cannot be put into one batch: {error}") from error
            yield batch


class Rows:
    """Some rows of a source as a source."""

    def __init__(self, source: Source, rows: Tensor):
        self.shape = source.shape
        self._source = source
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, indices: Any) -> Iterator[tuple[Tensor, Tensor]]:
        indices = list(indices)
        for index, (_, x) in zip(indices, self._source.batches([self._rows[i] for i in indices]), strict=True):
            yield index, x


def part_of(source: Source, peers: Peers) -> Source:
    """The rows of a source that this process is to look at."""
    return source if peers.size == 1 else Rows(source, peers.part(len(source)))


def as_source(estimator: Any, X: Any, *, reset: bool) -> Source:
    """Validate ``X`` for an estimator and wrap it.

    Sets the estimator's ``n_features_in_`` and ``feature_names_in_`` when ``reset``, and compares with them
    otherwise.

    Raises
    ------
    ValueError, TypeError
        For anything that is not a finite numeric table or stack of images of the fitted shape.
    """
    if isinstance(X, (str, os.PathLike)):
        refuse_path(X)
    if isinstance(X, DataLoader):
        dataset, loader = X.dataset, X
    elif isinstance(X, Dataset):
        dataset, loader = X, None
    else:
        return _array_source(estimator, X, reset)
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            f"{type(dataset).__name__} is an IterableDataset, which has no rows by number. Wrap the data in a "
            f"map-style Dataset with __len__ and __getitem__, or pass its batches to partial_fit one by one."
        )
    if len(dataset) == 0:  # type: ignore[arg-type]
        raise ValueError("The Dataset has 0 rows; at least 1 is needed.")
    sampler = None if loader is None else loader.sampler
    if loader is not None and loader.batch_sampler is not None:  # it may be the user's own, beside a plain sampler
        sampler = loader.batch_sampler
        sampler = sampler.sampler if type(sampler) is BatchSampler else sampler
    if loader is not None and not isinstance(sampler, (SequentialSampler, RandomSampler)):
        raise ValueError(
            f"The DataLoader draws rows by a {type(sampler).__name__}, but every row is used, in an order of "
            f"our own. Pass torch.utils.data.Subset(dataset, indices) to choose rows."
        )
    plain = loader is None or (loader.num_workers == 0 and loader.collate_fn is default_collate)
    if type(dataset) is TensorDataset and plain:
        return _array_source(estimator, dataset.tensors[0], reset)
    source = LoaderSource(dataset, loader)
    _check_shape(estimator, source.shape, reset)
    return source


def _array_source(estimator: Any, X: Any, reset: bool) -> ArraySource:
    X = _stacked(X)
    if not reset:
        refuse_one_row(estimator, X)
    if isinstance(X, Tensor):
        X = _checked_tensor(estimator, X)
    else:
        refuse_labels(X)
        refuse_times(X)
        try:
            if getattr(X, "ndim", 2) > 2 and not sp.issparse(X):
                X = check_array(X, dtype="numeric", allow_nd=True, estimator=estimator, input_name="X")
            else:
                rows = validate_data(estimator, X, accept_sparse="csr", dtype="numeric", reset=reset)
                # of categories, and of frames of polars with text, scikit-learn leaves objects
                X = check_array(rows, dtype=np.float64, input_name="X") if rows.dtype == object else rows
        except (TypeError, ValueError) as error:
            if (better := explained(error, X)) is error:
                raise
            raise better from error
    shape = _row_shape(tuple(X.shape))
    if X.ndim > 2 or isinstance(X, Tensor):
        _check_shape(estimator, shape, reset)
    elif not reset:
        _compare_shapes(estimator, shape)
    return ArraySource(X, shape)


def _stacked(X: Any) -> Any:
    """Images, tensors or numbers in a list as one array or tensor; tables as they are."""
    if not isinstance(X, (list, tuple)) or len(X) == 0:
        return X
    shapes = sorted({tuple(x.shape) for x in X if hasattr(x, "shape")})
    if len(shapes) > 1:
        raise ValueError(
            f"X is a {type(X).__name__} of rows of different shapes, such as {shapes[0]} and {shapes[-1]}. Resize, "
            f"crop or pad them to one shape."
        )
    if all(isinstance(x, Tensor) for x in X):
        return torch.stack(list(X))
    with suppress(ValueError):  # rows of different lengths: scikit-learn says so
        array = np.asarray(X)
        return array if array.ndim != 2 or array.dtype in _DIRECT else X
    return X


def _checked_tensor(estimator: Any, X: Tensor) -> Tensor:
    X = X.detach()
    name = type(estimator).__name__
    if X.ndim < 2:
        raise ValueError(
            f"Expected 2D array, got a {X.ndim}-D tensor instead. {name} needs (n_samples, n_features), "
            f"(n, height, width) or (n, channels, height, width). Reshape your data."
        )
    if X.is_complex() or X.layout != torch.strided or X.is_quantized or X.device.type == "meta":
        raise ValueError(
            f"Complex data not supported, nor sparse, quantised or meta tensors: got {X.dtype}, {X.layout}. Pass a "
            f"dense real tensor, or a scipy sparse matrix."
        )
    if X.is_floating_point() and X.element_size() < 2:
        raise ValueError(f"X has dtype {X.dtype}, which cannot be computed with. Convert it with X.to(torch.float32).")
    if X.shape[0] == 0 or math.prod(X.shape[1:]) == 0:
        raise ValueError(
            f"Found tensor with shape={tuple(X.shape)} while a minimum of 1 row and 1 feature is required by {name}."
        )
    rows = max(1, CHUNK_BYTES // max(1, X[0].numel() * X.element_size()))
    if X.is_floating_point() and not all(torch.isfinite(part).all() for part in X.split(rows)):
        raise ValueError(f"Input X contains NaN or infinity. {name} does not accept them: impute or drop.")
    return X


def _row_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(n, f) -> (f,); (n, h, w) -> (1, h, w); (n, c, h, w) -> (c, h, w)."""
    if len(shape) > 4:
        raise ValueError(
            f"X has shape {shape}; tables (n, features) and images (n, height, width) or (n, channels, height, "
            f"width) are accepted. Flatten the rows with X.reshape(len(X), -1)."
        )
    return (1, *shape[1:]) if len(shape) == 3 else tuple(shape[1:])


def _check_shape(estimator: Any, shape: tuple[int, ...], reset: bool) -> None:
    """What validate_data does for tables, for images and tensors."""
    if reset:
        estimator.n_features_in_ = math.prod(shape)
        vars(estimator).pop("feature_names_in_", None)
    elif len(shape) == 1 and shape[0] != estimator.n_features_in_:
        raise ValueError(
            f"X has {shape[0]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input."
        )
    else:
        _compare_shapes(estimator, shape)


def _compare_shapes(estimator: Any, shape: tuple[int, ...]) -> None:
    fitted = estimator.module_.shape
    if shape != fitted:
        raise ValueError(
            f"X has rows of shape {shape}, but {type(estimator).__name__} was fitted on rows of shape {fitted}. "
            f"Reshape X to (n, {', '.join(map(str, fitted))})."
        )


def consecutive(n: int, size: int) -> list[Tensor]:
    """Row numbers 0 .. n-1 in order, ``size`` at a time."""
    return list(torch.arange(n).split(size))
