"""What is said of rows that cannot be used: where the trouble is and what to do, where scikit-learn does not say."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_array


def refuse_path(X: str | os.PathLike[str]) -> None:
    """TypeError for a file's name in place of its rows."""
    if Path(X).suffix.lower() in (".csv", ".tsv", ".txt"):
        raise TypeError(f"X={str(X)!r} is a path. Read it first: pandas.read_csv(path), and keep the numeric columns.")
    raise TypeError(
        f"X={str(X)!r} is a path. Open it first: neuralclust.open_rows(path) maps .npy files and Parquet folders."
    )


def refuse_labels(X: Any) -> None:
    """A 1-D array of few integers is a label vector in the wrong place: say so."""
    if getattr(X, "ndim", None) != 1 or not hasattr(X, "dtype"):
        return
    values = np.asarray(X)
    if values.dtype.kind in "iub":
        raise ValueError(
            f"Expected 2D array, got 1D array instead: {len(values)} integers with {len(np.unique(values))} "
            f"distinct values, which looks like labels passed as X. Pass the data (n_samples, n_features); "
            f"labels are never needed. Reshape your data with array.reshape(-1, 1) if it has a single feature."
        )


def refuse_one_row(estimator: Any, X: Any) -> None:
    """One row, or one image, without the axis of rows, given to a fitted estimator."""
    shape, n, fitted = tuple(getattr(X, "shape", ())), estimator.n_features_in_, estimator.module_.shape
    if hasattr(X, "iloc") or hasattr(X, "columns") or math.prod(shape) != n or shape[:1] in ((), (1,)):
        return
    name = type(estimator).__name__
    what = f"X has shape {shape}, but {name} was fitted on rows of shape {fitted}"
    if len(shape) == 1:
        what = f"Expected 2D array, got 1D array instead: {n} values"
    elif len(shape) == 2:
        what = f"X has {shape[1]} features, but {name} is expecting {n} features as input"
    remedy = f"reshape({', '.join(map(str, (1, *fitted)))})" if len(fitted) > 1 else "reshape(1, -1)"
    remedy = "X[None]" if len(shape) > 1 and shape == fitted[-len(shape) :] else f"X.{remedy}"
    raise ValueError(f"{what}. One {'row' if len(shape) == 1 else 'image'}? Reshape your data: pass {remedy}.")


def refuse_times(X: Any) -> None:
    """Dates and durations: as numbers they would be nanoseconds."""
    named = (
        [(f" in column {name!r}", dtype) for name, dtype in zip(X.columns, X.dtypes, strict=True)] if _frame(X) else []
    )
    for where, dtype in named or [("", getattr(X, "dtype", None))]:
        if getattr(dtype, "kind", "") in ("m", "M") or getattr(dtype, "is_temporal", bool)():
            raise ValueError(
                f"X has dates or times{where} ({dtype}), which have no unit to be compared in. Drop them, or make "
                f"numbers of them, such as days since the first: (t - t.min()) / numpy.timedelta64(1, 'D')."
            )


def explained(error: Exception, X: Any) -> Exception:
    """The error that scikit-learn has with ``X``, or one that names the columns and the remedy."""
    said = str(error).partition("\n")[0]
    if said.startswith(("Input X contains NaN", "Input X contains infinity")):
        missing = "NaN" in said
        remedy = "fill gaps by sklearn.impute.SimpleImputer in a pipeline" if missing else "clip such values"
        where = _first(X, np.isnan if missing else np.isinf)
        return ValueError(f"{said} The first is in {where}. Drop such rows or columns, or {remedy}.")
    texts = list(_not_numbers(X)) if _frame(X) and not said.startswith("The feature names") else []
    if texts:
        return ValueError(
            f"Columns {texts} of X could not be converted to numbers. Drop them, or encode them: "
            f"sklearn.preprocessing.OneHotEncoder for these columns in a sklearn.compose.ColumnTransformer."
        )
    if not _frame(X) and (text := _first_text(X)) is not None:
        return ValueError(
            f"X holds text, such as {text[:40]!r}. Numbers in quotes: X.astype(float). Documents or categories: encode "
            f"them by sklearn's TfidfVectorizer or OneHotEncoder, whose sparse matrices can be passed as they are."
        )
    return error


def _first_text(X: Any) -> str | None:
    if sp.issparse(X) or getattr(getattr(X, "dtype", None), "kind", "O") not in "OUST":
        return None  # numbers, however many
    entries = np.asarray(X, dtype=object).ravel()
    return next((entry for entry in entries if isinstance(entry, str)), None)


def _frame(X: Any) -> bool:
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def _not_numbers(X: Any) -> Iterator[Any]:
    """Names of the columns of a data frame, of pandas or polars, with entries that are not numbers."""
    for i, name in enumerate(X.columns):
        column = X.iloc[:, i] if hasattr(X, "iloc") else X[name]
        there = column.dropna() if hasattr(column, "dropna") else column.drop_nulls()
        try:
            np.asarray(there).astype(np.float64)
        except (TypeError, ValueError):
            yield name


def _first(X: Any, wrong: np.ufunc) -> str:
    """Where the first entry is of which ``wrong`` is true; rows are counted from 0."""
    rows = check_array(X, accept_sparse="coo", dtype="numeric", allow_nd=True, ensure_all_finite=False)
    if hasattr(rows, "tocoo"):
        at = int(wrong(rows.data).argmax())
        row, column = int(rows.row[at]), int(rows.col[at])
    else:
        starts = range(0, len(rows), 4096)
        start, part = next((i, part) for i in starts if (part := wrong(rows[i : i + 4096].astype(np.float64))).any())
        row, column, *_ = np.argwhere(part)[0].tolist()
        row += start
    if rows.ndim > 2:
        return f"X[{row}]"
    return f"row {row}, column {repr(X.columns[column]) if _frame(X) else column}"
