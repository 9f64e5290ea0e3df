"""Data, labels and folders on disk, for the command line."""

from __future__ import annotations

import csv
import gzip
import os
import re
import shlex
import shutil
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


_TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def read_data(path: Path, drop: Sequence[str] = ()) -> tuple[Any, list[str] | None]:
    """Rows of a data file, and the names of its columns.

    Parameters
    ----------
    path : Path
        ``.npy`` (opened as a memory map), ``.npz`` (the array named x or data, the only one, or a scipy sparse
        matrix), ``.csv`` or ``.tsv`` (with or without a header, also ``.gz``; columns are parted by commas,
        semicolons or tabs, whichever the first line has most of) or ``.parquet``; or a folder of ``.parquet``
        files, which are copied once into a memory map beside it (:func:`neuralclust.open_rows`).
    drop : sequence of str
        Names of columns to leave out, of ``.csv`` and ``.parquet`` files.

    Returns
    -------
    rows : ndarray or scipy sparse matrix
    names : list of str, or None
        Of the columns of ``rows``, if the file names them.

    Raises
    ------
    ValueError
        If the file has another extension, is damaged, or has a column that does not hold numbers, or that holds the
        numbers of the rows.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, **dict.fromkeys(_TEXT, _read_csv), ".parquet": _read_parquet}
    read = _read_folder if path.is_dir() else readers.get(_ending(path))
    if read is None:
        raise ValueError(f"{path}: the extension must be one of {', '.join(readers)}.")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    try:
        X, names = read(path, drop)
        if names is not None:
            _refuse_index(X, names)
    except (ValueError, EOFError, csv.Error, gzip.BadGzipFile, zlib.error) as error:
        if str(path) in str(error):
            raise
        raise _unreadable(path, error) from error
    return X, names


def _unreadable(path: Path, error: Exception) -> ValueError:
    if isinstance(error, UnicodeDecodeError):
        return ValueError(
            f"{path} is not UTF-8 text: {error.reason}, {error.object[error.start]:#x}. Save it as UTF-8."
        )
    return ValueError(f"{path}: {error}")


def _kept(names: Sequence[str], drop: Sequence[str]) -> list[int]:
    """Numbers of the columns that are not left out."""
    if unknown := [name for name in drop if name not in names]:
        there = ", ".join(map(repr, names[:20])) + ", ..." * (len(names) > 20)
        raise ValueError(f"--drop {unknown[0]!r} is not a column; those are {there}.")
    kept = [number for number, name in enumerate(names) if name not in drop]
    if not kept:
        raise ValueError("it has no columns." if not names else "--drop leaves no column.")
    return kept


def _refuse_drop(drop: Sequence[str], why: str) -> None:
    if drop:
        raise ValueError(f"--drop {drop[0]!r} is for .csv and .parquet files; {why}.")


def _refuse_index(X: Any, names: list[str]) -> None:
    """Rows would be clustered by their numbers, which pandas writes unless told not to."""
    import numpy as np

    for number, name in enumerate(names):
        found = re.fullmatch(r"__index_level_\d+__", name) is not None
        if number == 0 and name in ("", "Unnamed: 0"):
            column = np.asarray(X[:, 0])
            found = bool((column == np.floor(column)).all()) and len(np.unique(column)) == len(column)
        if found:
            raise ValueError(
                f"column {name!r} looks like an index, the number of each row. Write the table with index=False, or "
                f"leave the column out with --drop {shlex.quote(name)}; if it is data, give it a name."
            )


def _read_folder(path: Path, drop: Sequence[str]) -> tuple[np.ndarray, list[str] | None]:
    from neuralclust.outofcore import column_names, open_rows

    _refuse_drop(drop, "write those of a folder without the column")
    X, names = open_rows(path), column_names(path)
    return X, names if len(names) == X.shape[1] else None  # a column of lists is several


def _read_npy(path: Path, drop: Sequence[str]) -> tuple[np.ndarray, None]:
    from neuralclust.outofcore import open_rows

    _refuse_drop(drop, "an array has no names of columns")
    return open_rows(path), None


def _read_npz(path: Path, drop: Sequence[str]) -> tuple[Any, None]:
    import zipfile

    import numpy as np
    import scipy.sparse as sp

    _refuse_drop(drop, "an array has no names of columns")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if {"format", "shape", "data"} <= set(names):
                return sp.load_npz(path), None
            chosen = [name for name in names if name.lower() in ("x", "data")] or names
            if len(chosen) == 1:
                return arrays[chosen[0]], None
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # numpy advises to allow pickles
        raise ValueError("it is not a whole .npz file of numbers. Write it anew with numpy.savez.") from error
    raise ValueError(f"it has the arrays {names}; name the one to use x or data.")


def _ending(path: Path) -> str:
    ending = path.suffix.lower()
    return Path(path.stem).suffix.lower() + ending if ending == ".gz" else ending


def _text(path: Path) -> Any:
    """A text file, packed or not, opened."""
    return (gzip.open if _ending(path).endswith(".gz") else open)(path, "rt", newline="", encoding="utf-8-sig")


def _separator(path: Path) -> str:
    with _text(path) as file:
        line = file.readline()
    return max("\t,;" if ".tsv" in _ending(path) else ",;\t", key=line.count)


def _read_csv(path: Path, drop: Sequence[str]) -> tuple[np.ndarray, list[str] | None]:
    import numpy as np

    separator = _separator(path)
    with _text(path) as file:
        header = next(csv.reader(file, delimiter=separator), [])
    skip = int(not all(_is_number(cell) for cell in header))
    names = header if skip else [str(number) for number in range(1, len(header) + 1)]
    kept = _kept(names, drop) if drop else list(range(len(names)))
    if drop and all(_is_number(header[number]) for number in kept):
        raise ValueError(f"--drop {drop[0]!r} goes by names, and the first line holds none, but numbers.")
    options: dict[str, Any] = {
        "delimiter": separator,
        "ndmin": 2,
        "comments": None,
        "quotechar": '"',
        "encoding": "utf-8-sig",
        # Not usecols, with which lines of any length would pass.
        "converters": dict.fromkeys(set(range(len(names))) - set(kept), lambda _: 0.0) or None,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file
            X = np.loadtxt(path, skiprows=skip, **options)
        if skip and len(X) and X.shape[1] != len(names):
            raise ValueError(f"its lines have {X.shape[1]} columns, its header {len(names)}.")
    except ValueError as error:
        raise ValueError(_wrong_cell(path, separator, names, skip, drop) or str(error)) from error
    if not len(X):
        raise ValueError("it has no rows.")
    if len(kept) < len(names):
        X = X.take(kept, axis=1)
    return X, [header[number] for number in kept] if skip else None


def _wrong_cell(path: Path, separator: str, names: list[str], skip: int, drop: Sequence[str]) -> str | None:
    """Where the first cell is that is not a number."""
    with _text(path) as file:
        for line, row in enumerate(csv.reader(file, delimiter=separator), 1):
            if line <= skip or not row:
                continue
            if len(row) != len(names):
                return f"line {line} has {len(row)} columns, not {len(names)} as the first line."
            for name, cell in zip(names, row, strict=True):
                if name not in drop and not _is_number(cell):
                    leave = f"leave it out{f' with --drop {shlex.quote(name)}' * skip}"
                    if not cell.strip():
                        return f"column {name!r} has no value in line {line}. Fill the gaps of the column, or {leave}."
                    where = f"column {name!r} has {cell!r} in line {line}, not a number"
                    if _is_number(cell.replace(",", "").replace(";", "")):
                        return f"{where}. Write decimals with a point, and commas between the columns."
                    return f"{where}. Encode it, or {leave}."
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _read_parquet(path: Path, drop: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    import numpy as np

    columns = _parquet_columns(path)
    names = list(columns)
    names = [names[number] for number in _kept(names, drop)]
    for name in names:
        if columns[name].dtype.kind not in "biuf":
            raise ValueError(
                f"column {name!r} holds {columns[name].dtype}, not numbers. Encode it, or leave it out with --drop "
                f"{shlex.quote(name)}."
            )
    return np.column_stack([columns[name] for name in names]), names


def _parquet_columns(path: Path) -> dict[str, np.ndarray]:
    """Columns by name, by the first reader that is installed."""
    try:
        if find_spec("pyarrow"):
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(path)
            return {name: table[name].to_numpy() for name in table.column_names}
        if find_spec("polars"):
            import polars

            return {column.name: column.to_numpy() for column in polars.read_parquet(path)}
        if find_spec("pandas"):
            import pandas

            return {str(name): column.to_numpy() for name, column in pandas.read_parquet(path).items()}
    except ImportError:  # pandas reads nothing without an engine
        pass
    except Exception as error:  # each reader has errors of its own
        raise ValueError(f"it cannot be read as parquet: {error}") from error
    raise ImportError("Reading .parquet needs pyarrow, polars or pandas. Run: pip install pyarrow")


def read_labels(first: Path, second: Path) -> list[np.ndarray]:
    """Labels of two files that belong together: one column of a ``.csv``, or a ``.npy``.

    Parameters
    ----------
    first, second : Path
        A ``.csv`` has one column, or one named ``label``. A first line that is not a number, above numbers, is a
        header. So is a word that never comes again in a file that has one line more than the other, or in both files.

    Returns
    -------
    list of two ndarrays
        Of one length. Integers if they all are, else numbers or words.
    """
    paths = (first, second)
    found = [_label_column(path) for path in paths]
    headed = [
        path.suffix.lower() != ".npy" and labels.dtype.kind == "U" and labels[0] not in labels[1:]
        for path, labels in zip(paths, found, strict=True)
    ]
    a, b = found
    if len(a) == len(b):  # else a class of one row is lost, for the header of the other file
        headed = [all(headed) and a[0] not in b[1:] and b[0] not in a[1:]] * 2
    else:
        headed = [headed[0] and len(a) == len(b) + 1, headed[1] and len(b) == len(a) + 1]
    a, b = (labels[int(head) :] for labels, head in zip(found, headed, strict=True))
    if len(a) != len(b):
        raise ValueError(
            f"{first} has {len(a):,} labels, {second} {len(b):,}: each row needs one in both. A first line that is a "
            f"header is known by the word label."
        )
    return [a, b]


def _label_column(path: Path) -> np.ndarray:
    """Labels of a file; a header of words above words is still among them."""
    import numpy as np

    if _ending(path) not in (*_TEXT, ".npy"):
        raise ValueError(f"{path}: labels are read from {', '.join(_TEXT)} and .npy.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if path.suffix.lower() == ".npy":
        from neuralclust.outofcore import open_rows

        labels = np.asarray(open_rows(path))
        if labels.ndim != 1 and labels.shape[1:] != (1,):
            raise ValueError(f"{path}: it has shape {labels.shape}; labels are one number a row.")
        return labels.ravel()
    try:
        with _text(path) as file:
            rows = [row for row in csv.reader(file, delimiter=_separator(path)) if row]
    except (ValueError, EOFError, csv.Error, gzip.BadGzipFile, zlib.error) as error:
        raise _unreadable(path, error) from error
    first = rows[0] if rows else []
    column = first.index("label") if "label" in first else 0
    widths = {len(row) for row in rows}
    if len(widths) > 1 or ("label" not in first and widths - {1}):
        raise ValueError(f"{path}: it needs a single column, or the same columns in every line with one named label.")
    values = [row[column] for row in rows]
    numbers = [_is_number(value) for value in values]
    if "label" in first or (values and not numbers[0] and all(numbers[1:])):
        values, numbers = values[1:], numbers[1:]
    if not values:
        raise ValueError(f"{path}: it holds no labels.")
    if not all(numbers):
        return np.asarray(values)
    floats = np.asarray(values, dtype=np.float64)
    integers = floats.astype(np.int64)
    return integers if (integers == floats).all() else floats


def labels_as_csv(labels: np.ndarray, proba: np.ndarray | None = None) -> str:
    lines = [str(label) for label in labels.tolist()]
    if proba is None:
        return "\n".join(["label", *lines, ""])
    header = ",".join(["label", *(f"p{j}" for j in range(proba.shape[1]))])
    shares = (",".join(f"{p:.9g}" for p in row) for row in proba.tolist())  # 9 digits keep a float32 whole
    return "\n".join([header, *(f"{line},{share}" for line, share in zip(lines, shares, strict=True)), ""])


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        new.write_text(text)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def output_folder(out: Path, known: Any) -> Iterator[Path]:
    """A folder to write into, whose files move to ``out`` once all is done; until then ``out`` is as it was.

    Raises
    ------
    FileExistsError
        If ``out`` holds anything but the ``known`` files of an earlier run, among them its ``run.json``.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out {out} is a file. Give a folder.")
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    old = {file.name for file in out.iterdir() if not file.name.startswith(".neuralclust-")}
    if foreign := sorted(old if "run.json" not in old else old - set(known)):
        raise FileExistsError(
            f"--out {out} holds {foreign[0]!r}, which this command did not write. Give a new or empty folder."
        )
    try:
        with TemporaryDirectory(prefix=".neuralclust-", dir=out) as new:
            yield Path(new)
            for name in old:
                shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
            for file in Path(new).iterdir():
                file.rename(out / file.name)
    except BaseException:
        if made:
            with suppress(OSError):
                out.rmdir()
        raise
