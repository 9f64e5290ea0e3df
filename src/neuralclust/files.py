"""Data, labels and folders on disk, for the command line."""

from __future__ import annotations

import csv
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def read_data(path: Path) -> Any:
    """Rows of a data file.

    Parameters
    ----------
    path : Path
        ``.npy`` (opened as a memory map), ``.npz`` (the array named x or data, the only one, or a scipy
        sparse matrix), ``.csv`` (with or without a header) or ``.parquet``; or a folder of ``.parquet`` files, which
        are copied once into a memory map beside it (:func:`neuralclust.open_rows`).

    Returns
    -------
    ndarray or scipy sparse matrix

    Raises
    ------
    ValueError
        If the file has another extension, is damaged, or has a column that does not hold numbers.
    """
    if path.is_dir():
        from neuralclust.outofcore import open_rows

        return open_rows(path)
    readers = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: the extension must be one of {', '.join(readers)}.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    try:
        return readers[path.suffix.lower()](path)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_npy(path: Path) -> np.ndarray:
    import numpy as np

    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_npz(path: Path) -> Any:
    import zipfile

    import numpy as np
    import scipy.sparse as sp

    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if {"format", "shape", "data"} <= set(names):
                return sp.load_npz(path)
            chosen = [name for name in names if name.lower() in ("x", "data")] or names
            if len(chosen) != 1:
                raise ValueError(f"it has the arrays {names}; name the one to use x or data.")
            return arrays[chosen[0]]
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is not an .npz file ({error}).") from error


def _read_csv(path: Path) -> np.ndarray:
    import numpy as np

    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    skip = int(not all(_is_number(cell) for cell in header))
    options: dict[str, Any] = {
        "delimiter": ",",
        "ndmin": 2,
        "comments": None,
        "quotechar": '"',
        "encoding": "utf-8-sig",
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file: the estimator says so
            return np.loadtxt(path, skiprows=skip, **options)
    except ValueError as error:
        names = header if skip else [str(number) for number in range(1, len(header) + 1)]
        raise ValueError(_wrong_cell(path, names, skip) or str(error)) from error


def _wrong_cell(path: Path, names: list[str], skip: int) -> str | None:
    """Where the first cell is that is not a number."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line, row in enumerate(csv.reader(file), 1):
            if line <= skip or not row:
                continue
            if len(row) != len(names):
                return f"line {line} has {len(row)} columns, not {len(names)} as the first line."
            for name, cell in zip(names, row, strict=True):
                if not _is_number(cell):
                    return f"column {name!r} has {cell!r} in line {line}, not a number. Drop or encode it."
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _read_parquet(path: Path) -> np.ndarray:
    import numpy as np

    columns = _parquet_columns(path)
    for name, column in columns.items():
        if column.dtype.kind not in "biuf":
            raise ValueError(f"column {name!r} holds {column.dtype}, not numbers. Drop or encode it.")
    if not columns:
        raise ValueError("it has no columns.")
    return np.column_stack(list(columns.values()))


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


def read_labels(path: Path) -> np.ndarray:
    """Labels of a file: one column of a ``.csv``, or a ``.npy``.

    Parameters
    ----------
    path : Path
        A ``.csv`` has one column, or one named ``label``. A first line that is not a number, above numbers,
        is a header.

    Returns
    -------
    ndarray
        Integers if they all are, else numbers or words.
    """
    import numpy as np

    if path.suffix.lower() not in (".csv", ".npy"):
        raise ValueError(f"{path}: labels are read from .csv and .npy.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if path.suffix.lower() == ".npy":
        try:
            labels = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: {error}") from error
        if labels.ndim != 1 and labels.shape[1:] != (1,):
            raise ValueError(f"{path}: it has shape {labels.shape}; labels are one number a row.")
        return labels.ravel()
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
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
