"""The cache folder: reading ``NAME.npz`` from it, and filling it from the canonical sources."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import scipy.sparse as sp

from ._catalog import CATALOG, Remote, Spec
from ._formats import Arrays

DOWNLOAD_LIMIT = 2**29  # bytes; the largest archive has 170 MB
CACHED_LIMIT = 2**32  # bytes of a cached file after decompression
TIMEOUT = 30.0  # seconds to wait for the next byte
_CHUNK = 2**20


def cache_folder(data_home: str | os.PathLike | None = None) -> Path:
    """`data_home`, else the environment variable ``NEURALCLUST_DATA``, else the user's cache folder."""
    if chosen := data_home or os.environ.get("NEURALCLUST_DATA"):
        return Path(chosen).expanduser()
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "neuralclust"


def obtain(spec: Spec, folder: Path, download: bool) -> Arrays:
    """The arrays of a data set: from its own file, from that of the set it is part of, or from its source."""
    path = folder / f"{spec.name}.npz"
    if path.is_file():
        return _cached(path, spec)
    if spec.parent is not None and spec.part is not None:
        try:
            arrays = spec.part(obtain(CATALOG[spec.parent], folder, download))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path} is missing, and so is what holds it: {error}") from None
        try:
            _check_form(spec, arrays)
            _check_contents(spec, arrays)
        except ValueError as error:
            whole = folder / f"{spec.parent}.npz"
            raise ValueError(f"{whole} does not hold the rows of {spec.name}: {error}; delete it") from error
        return arrays
    if not spec.files:
        raise FileNotFoundError(
            f"{path} is missing, and {spec.name} cannot be downloaded: {spec.by_hand} and save it there with "
            f"numpy.savez_compressed, with {_wanted(spec)}"
        )
    local = folder / spec.name
    if not download and not all((local / remote.name).is_file() for remote in spec.files):
        raise FileNotFoundError(
            f"{spec.name} is not in the folder {folder}, and download=False: allow the download, or put "
            f"there {path.name} (with {_wanted(spec)}) or, in its folder {spec.name}, "
            f"{' and '.join(remote.name for remote in spec.files)}, or name another folder by data_home or "
            "the environment variable NEURALCLUST_DATA"
        )
    return _fetch(spec, folder)


def _wanted(spec: Spec) -> str:
    if spec.sparse:
        return f"arrays data (float32), indices, indptr and shape {spec.shape} of a CSR matrix, and y (n,)"
    size = ", ".join("any" if n is None else str(n) for n in spec.shape)
    return f"arrays x of shape ({size}), {spec.dtype}, and {', '.join(spec.keys[1:])} (n,)"


def _cached(path: Path, spec: Spec) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if missing := [key for key in spec.keys if key not in archive.files]:
                raise ValueError(f"it has no array {', '.join(missing)}")
            if sum(entry.file_size for entry in archive.zip.infolist()) > CACHED_LIMIT:
                raise ValueError(f"it decompresses to more than {CACHED_LIMIT} bytes")
            arrays = {key: archive[key] for key in spec.keys}
        _check_form(spec, arrays)
    except OSError:  # no permission, a broken disk: the message of the system says it best
        raise
    except Exception as error:  # a broken zip file can fail in many ways, none of which names the file
        raise ValueError(
            f"{path} is not a good file of {spec.name} ({type(error).__name__}: {error}): delete it, and "
            f"fetch it again or put one there with {_wanted(spec)}"
        ) from error
    return arrays


def _fetch(spec: Spec, folder: Path) -> Arrays:
    """Convert the files of the source to ``NAME.npz``; the folder gets that file, whole, or nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot make the folder {folder} ({error}): name another by data_home or NEURALCLUST_DATA"
        ) from error
    assert spec.parse is not None
    own = [folder / spec.name / remote.name for remote in spec.files]
    sources = ", ".join(
        str(path) if path.is_file() else remote.url for path, remote in zip(own, spec.files, strict=True)
    )
    with ExitStack() as stack:
        streams = [stack.enter_context(_open(remote, folder, spec.name)) for remote in spec.files]
        try:
            arrays = spec.parse(streams)
        except Exception as error:  # as above: what was served can be anything
            raise ValueError(
                f"{sources}: cannot read {spec.name} from it ({type(error).__name__}: {error}). Try again "
                f"later, or put a good {spec.name}.npz in {folder}, with {_wanted(spec)}"
            ) from error
    try:
        _check_form(spec, arrays)
        _check_contents(spec, arrays)
    except ValueError as error:
        raise ValueError(f"{sources}: not the {spec.name} expected: {error}") from error
    _save(folder / f"{spec.name}.npz", arrays)
    return arrays


def _open(remote: Remote, folder: Path, name: str) -> BinaryIO:
    """A file of the source: the user's own copy in ``folder/NAME`` if there is one, else downloaded."""
    own = folder / name / remote.name
    stream = cast(BinaryIO, own.open("rb")) if own.is_file() else _download(remote.url, folder, own)
    try:
        if remote.md5 is not None:
            digest = hashlib.file_digest(
                cast(BufferedReader, stream), lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
            if digest != remote.md5:
                where = own if own.is_file() else remote.url
                raise ValueError(f"{where}: wrong MD5 checksum: expected {remote.md5}, got {digest}; fetch it again")
            stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def _download(url: str, folder: Path, by_hand: Path) -> BinaryIO:
    """The body of `url` in a file without a name, which is gone however the process ends."""
    try:
        body = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (the caller closes it)
    except OSError as error:
        raise OSError(
            f"cannot write to the folder {folder} ({error}): name another by data_home or NEURALCLUST_DATA"
        ) from error
    try:
        request = Request(url, headers={"User-Agent": "neuralclust"})
        with urlopen(request, timeout=TIMEOUT) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            received = 0
            with _progress(url.rsplit("/", 1)[1], total) as advance:
                while chunk := response.read(_CHUNK):
                    received += len(chunk)
                    if received > DOWNLOAD_LIMIT:
                        raise OSError(f"it sends more than {DOWNLOAD_LIMIT} bytes")
                    body.write(chunk)
                    advance(len(chunk))
        if total is not None and received != total:
            raise OSError(f"truncated: {received} bytes came out of {total}")
        body.seek(0)
    except (HTTPException, OSError) as error:
        body.close()
        if isinstance(error, HTTPError):
            error.close()
        raise ConnectionError(
            f"cannot download {url} ({error}): try again, or fetch it by other means and put it at {by_hand}"
        ) from error
    except BaseException:
        body.close()
        raise
    return body


@contextmanager
def _progress(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show on the terminal, if there is one, how many bytes came."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda n: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        received = 0

        def advance(n: int) -> None:
            nonlocal received
            received += n
            of = f" of {total / 1e6:.1f}" if total else ""
            sys.stderr.write(f"\r{name}: {received / 1e6:.1f}{of} MB")
            sys.stderr.flush()

        try:
            yield advance
        finally:
            sys.stderr.write("\n")
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=total)
            yield lambda n: bar.advance(task, n)


def _save(path: Path, arrays: Arrays) -> None:
    # Written under another name first, so that whoever reads `path` finds it whole or not at all.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _check_form(spec: Spec, arrays: Arrays) -> None:
    y = arrays["y"]
    if spec.sparse:
        x = sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=tuple(arrays["shape"]))
        x.check_format(full_check=True)
        values = x.data
    else:
        x = values = arrays["x"]
    if x.dtype != spec.dtype:
        raise ValueError(f"its rows are {x.dtype}, not {spec.dtype}")
    if len(x.shape) != len(spec.shape) or any(
        want is not None and n != want for n, want in zip(x.shape, spec.shape, strict=True)
    ):
        raise ValueError(f"its rows have shape {x.shape}, not {spec.shape}")
    top = float(np.finfo(np.float32).max) if spec.sparse else 1.0  # papers scale tf-idf in many ways
    if values.dtype.kind == "f" and values.size and not (values.min() >= 0 and values.max() <= top):
        raise ValueError(f"its values lie between {values.min()} and {values.max()}, not in [0, {top}]")
    for key, classes in (("y", spec.classes), ("y_coarse", spec.coarse_classes)):
        labels = arrays.get(key, y)
        if labels.shape != x.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(f"{key} must be {x.shape[0]} integers, not {labels.dtype} of shape {labels.shape}")
        last = len(classes) - 1 if classes else np.inf
        if labels.size and not (labels.min() >= 0 and labels.max() <= last):
            raise ValueError(f"{key} lies between {labels.min()} and {labels.max()}, not in [0, {last}]")


def _check_contents(spec: Spec, arrays: Arrays) -> None:
    counts = tuple(np.bincount(arrays["y"], minlength=len(spec.classes)).tolist())
    if spec.counts is not None and counts != spec.counts:
        raise ValueError(f"wrong class counts: expected {spec.counts}, got {counts}")
    checks = [(key, want, _sha256(arrays[key])) for key, want in spec.sha256]
    if spec.rows_sha256 is not None:
        checks.append(("the rows", spec.rows_sha256, rows_sha256(arrays["x"], arrays["y"])))
    for what, want, got in checks:
        if got != want:
            raise ValueError(f"wrong SHA-256 checksum of {what}: expected {want}, got {got}")


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def rows_sha256(x: np.ndarray, y: np.ndarray) -> str:
    """A checksum of the rows and their labels that does not depend on the order of the rows."""
    x = np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("<"))
    labels = y.astype(np.uint8)
    digests = sorted(
        hashlib.sha256(row.tobytes() + bytes([label])).digest() for row, label in zip(x, labels, strict=True)
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()
