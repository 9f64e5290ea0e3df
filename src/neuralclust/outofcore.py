"""Tables larger than memory: Parquet, copied once into a file whose rows can be read in any order."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from neuralclust._extras import require

_CHUNK_ROWS, _CHUNK_BYTES = 2**16, 2**24  # read at a time, at most


def open_rows(path: str | os.PathLike[str], *, cache: str | os.PathLike[str] | None = None) -> np.memmap:
    """Rows of a file or folder that may be larger than memory, for ``fit``, ``predict`` and the rest.

    Training reads rows in random order, which Parquet cannot: it is copied once into an ``.npy`` file, some rows at a
    time. Later calls find that file, as long as the Parquet files have the same names, sizes and times.

    Parameters
    ----------
    path : str or Path
        An ``.npy`` file, which is mapped as it is; a ``.parquet`` file; or a folder of them, in the order of their
        names. Columns hold numbers or lists of numbers of one length, without missing values; the files have the same
        columns.
    cache : str or Path, optional
        The ``.npy`` file to write, of as many bytes as the rows have. By default beside ``path``, with the ending
        ``.rows.npy``.

    Returns
    -------
    numpy.memmap of shape (n_samples, n_features)
        Read-only, in the smallest dtype that holds all columns.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no ``.parquet`` file in the folder.
    ValueError
        If a file is damaged, or a column is not numeric, has missing values, or differs from the first file's.
    OSError
        If the cache cannot be written, or the disk has too little room. Nothing half-written is left.
    ImportError
        If there is no pyarrow: ``pip install 'neuralclust[scale]'``.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    >>> from neuralclust import open_rows
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in range(3):
    ...         columns = {"a": np.arange(4.0) + part, "b": np.ones(4)}
    ...         pq.write_table(pa.table(columns), f"{folder}/part-{part}.parquet")
    ...     open_rows(folder, cache=f"{folder}/rows.npy").shape
    (12, 2)
    """
    path = Path(path).absolute()  # not resolved: a link may have the ending that its file lacks
    if path.suffix.lower() == ".npy":
        return _mapped(path)
    files = _parquet_files(path)
    target = Path(cache) if cache is not None else path.with_name(f"{path.name}.rows.npy")
    note = target.with_name(f"{target.name}.sources")  # beside the copy: of which files it is
    sources = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    told = hashlib.sha256(json.dumps(sources).encode()).hexdigest()
    if not _is_copy(target, note, told):
        if target.exists() and not (note.exists() and note.read_text().endswith(_stamp(target))):
            raise FileExistsError(
                f"{target} exists and is not what was written from {path}. Give cache= another name, or remove it."
            )
        _copy(files, target, note, told)
    return _mapped(target)


def column_names(path: Path) -> list[str]:
    """Names of the columns of a Parquet file, or of the files of a folder, which all have the same."""
    return _schema(_parquet_files(path)[0])[1]


def _is_copy(target: Path, note: Path, told: str) -> bool:
    return target.exists() and note.exists() and note.read_text() == told + _stamp(target)


def _stamp(file: Path) -> str:
    about = file.stat()
    return f" {about.st_size} {about.st_mtime_ns}"


def _mapped(path: Path) -> np.memmap:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    try:
        return np.lib.format.open_memmap(path, mode="r")  # whose errors do not advise to allow pickles
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a whole .npy file of numbers ({error}). Write it anew.") from error


def _parquet_files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise FileNotFoundError(f"{path}: there is no .parquet file in this folder.")
        return files
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if path.suffix.lower() != ".parquet":
        raise ValueError(f"{path}: .npy, .parquet, or a folder of .parquet files is needed.")
    return [path]


def _copy(files: list[Path], target: Path, note: Path, told: str) -> None:
    """Write all rows to ``target``, whole or not at all."""
    schemas = [_schema(file) for file in files]
    n_rows = sum(rows for rows, _ in schemas)
    columns = schemas[0][1]
    for file, (_, names) in zip(files, schemas, strict=True):
        if names != columns:
            differing = sorted(set(columns) ^ set(names)) or "in another order"
            raise ValueError(f"{file} has other columns than {files[0].name}: {differing}.")
    if index := [name for name in columns if re.fullmatch(r"__index_level_\d+__", name)]:
        raise ValueError(
            f"{files[0]} has the column {index[0]!r}, the numbers of a data frame's rows. Write it with "
            f"to_parquet(..., index=False)."
        )
    files = [file for file, (rows, _) in zip(files, schemas, strict=True) if rows]
    if not files:
        raise ValueError(f"{target}: the Parquet files have no rows.")
    layouts = [_layout(file) for file in files]
    dtype, width = np.result_type(*(dtype for dtype, _ in layouts)), layouts[0][1]
    needed = n_rows * width * dtype.itemsize
    target.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(target.parent).free) < needed:
        raise OSError(
            f"{target} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Give cache= a place on another "
            f"disk."
        )
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        with new.open("wb") as out:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n_rows, width)}
            np.lib.format.write_array_header_1_0(out, header)
            for file in files:
                for rows in _batches(file):
                    if rows.shape[1] != width:
                        raise ValueError(f"{file} has rows of {rows.shape[1]} numbers, {files[0].name} of {width}.")
                    out.write(np.ascontiguousarray(rows, dtype).data)
        if not _is_copy(target, note, told):  # another process may have been faster
            target.unlink(missing_ok=True)  # the note must never be of another copy, wherever this ends
            note.write_text(told + _stamp(new))
            os.replace(new, target)
    except OSError as error:
        raise OSError(f"{target} cannot be written: {error.strerror or error}. Give another cache=.") from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _schema(file: Path) -> tuple[int, list[str]]:
    """Number of rows and names of the columns."""
    with _opened(file) as parquet:
        return parquet.metadata.num_rows, parquet.schema_arrow.names


def _layout(file: Path) -> tuple[np.dtype, int]:
    """Dtype and length of the rows of a file that has some."""
    rows = next(_batches(file, 1))
    return rows.dtype, rows.shape[1]


def _batches(file: Path, size: int | None = None) -> Iterator[np.ndarray]:
    """Rows of a Parquet file, some at a time."""
    with _opened(file) as parquet:
        about = parquet.metadata
        total = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        size = size or max(1, _CHUNK_BYTES * about.num_rows // max(total, 1))
        for batch in parquet.iter_batches(min(size, _CHUNK_ROWS)):
            parts = [_numbers(file, name, batch.column(name)) for name in batch.schema.names]
            if not parts:
                raise ValueError(f"{file} has no columns.")
            dtype = np.result_type(*parts)
            yield np.concatenate([part.astype(dtype, copy=False) for part in parts], axis=1)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    parquet = require("pyarrow.parquet", "scale")
    try:
        with parquet.ParquetFile(file, pre_buffer=False) as opened:  # else it reads ahead whole files
            yield opened
    except OSError as error:  # pyarrow's, of what is in the file
        raise ValueError(f"{file} cannot be read as Parquet: {error}") from error
    except ValueError as error:
        if str(file) in str(error):
            raise
        raise ValueError(f"{file} cannot be read as Parquet: {error}") from error


def _numbers(file: Path, name: str, column: Any) -> np.ndarray:
    """A column ``(rows, 1)``, or one of lists ``(rows, their length)``."""
    rows = len(column)
    if column.null_count:
        raise ValueError(f"{file}: column {name!r} has missing values. Impute or drop them.")
    types = require("pyarrow.types", "scale")
    if any(is_list(column.type) for is_list in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        lengths = require("pyarrow.compute", "scale").list_value_length(column).to_numpy()
        column = column.flatten()
        if column.null_count or (lengths != lengths[0]).any() or not lengths[0]:
            raise ValueError(f"{file}: the lists of column {name!r} have missing values, or not all the same length.")
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{file}: column {name!r} holds {column.type}, not numbers. Drop or encode it.")
    return values.reshape(rows, -1)
