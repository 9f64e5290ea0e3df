"""Data sets of the clustering literature, as scikit-learn bunches, and small generators."""

from __future__ import annotations

import difflib
import os

import numpy as np
import scipy.sparse as sp
from sklearn.utils import Bunch

from ._catalog import CATALOG, Spec
from ._download import cache_folder, obtain
from ._formats import Arrays
from ._synthetic import make_sphere_clusters, make_subspaces

__all__ = ["load", "make_sphere_clusters", "make_subspaces", "names"]


def names() -> list[str]:
    """Names of all data sets that `load` knows.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from neuralclust.datasets import names
    >>> names()[:3]
    ['digits', 'iris', 'wine']
    """
    return list(CATALOG)


def load(name: str, *, data_home: str | os.PathLike | None = None, download: bool = True) -> Bunch:
    """Load a data set: from the cache folder, or downloaded into it from its canonical source.

    The cache folder holds one file ``NAME.npz`` for each set. It may be read-only once the file is there.
    Files of the source fetched by other means can be put in its folder ``NAME``: they are used instead of a
    download.

    Parameters
    ----------
    name : str
        One of `names`. "digits" and the tables "iris", "wine" and "breast_cancer" are part of scikit-learn and
        always at hand. The superclasses of CIFAR-100 are sets of their own, such as "cifar100_aquatic_mammals".
        "reuters10k" and "stanford_online_products" cannot be downloaded: the error says why and what file to supply.
    data_home : str or path, optional
        The cache folder. By default the environment variable ``NEURALCLUST_DATA``, or else the folder
        ``neuralclust`` in the user's cache folder.
    download : bool, default=True
        Whether a missing set may be downloaded.

    Returns
    -------
    Bunch
        With

        - ``data``: (n, features), in the stored dtype, columns of a table as they were measured; a CSR matrix for
          the Reuters sets;
        - ``images``, for image sets: (n, h, w) if grey, (n, channels, h, w) if in colour, with ``data`` a
          view of it;
        - ``target``: (n,) int64, and ``target_names``, the name of each class;
        - ``target_coarse`` and ``target_coarse_names``, for "cifar100" alone;
        - ``DESCR``: source, licence and how a download is checked.

    Raises
    ------
    ValueError
        If the name is unknown, or a file in the folder or a download is not what it should be.
    FileNotFoundError
        If the set is missing and may not or cannot be downloaded.
    ConnectionError
        If the download fails or is cut short. Nothing is left in the folder then.

    Examples
    --------
    >>> from neuralclust.datasets import load
    >>> digits = load("digits")
    >>> digits.data.shape, digits.images.shape, digits.target[:4].tolist()
    ((1797, 64), (1797, 8, 8), [0, 1, 2, 3])
    """
    spec = CATALOG.get(name) if isinstance(name, str) else None
    if spec is None:
        close = difflib.get_close_matches(str(name), CATALOG, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown data set {name!r}.{hint} There are {', '.join(CATALOG)}.")
    if spec.embedded is not None:
        found = spec.embedded()
        return _bunch(spec, {"x": found.get("images", found.data), "y": found.target})
    return _bunch(spec, obtain(spec, cache_folder(data_home), download))


def _bunch(spec: Spec, arrays: Arrays) -> Bunch:
    bunch = Bunch()
    if spec.sparse:
        bunch.data = sp.csr_matrix(
            (arrays["data"], arrays["indices"], arrays["indptr"]), shape=tuple(arrays["shape"].tolist())
        )
    else:
        x = arrays["x"]
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x
        if x.ndim > 2:
            bunch.images = x
        bunch.data = x.reshape(len(x), -1)
    bunch.target = arrays["y"].astype(np.int64)
    bunch.target_names = list(spec.classes or map(str, range(int(arrays["y"].max(initial=-1)) + 1)))
    if spec.coarse_classes:
        bunch.target_coarse = arrays["y_coarse"].astype(np.int64)
        bunch.target_coarse_names = list(spec.coarse_classes)
    bunch.DESCR = _description(spec)
    return bunch


def _description(spec: Spec) -> str:
    whole = CATALOG.get(spec.parent or "")
    files = (whole or spec).files
    if not files:
        origin, check = "", "nothing but dtype, shape and range, as it cannot be downloaded"
    else:
        origin = "\nDownloaded from: " + ", ".join(remote.url for remote in files)
        checks = ["shape, value range and class counts"]
        if any(remote.md5 for remote in files):
            checks.append("the MD5 checksum its authors publish for the archive")
        if spec.sha256 or (whole and whole.sha256):
            checks.append("SHA-256 checksums of the arrays")
        if spec.rows_sha256:
            checks.append("a SHA-256 checksum of the rows, whatever their order")
        if len(checks) == 1:
            checks[0] += " only"
        check = "; ".join(checks)
    if spec.embedded is not None:
        check = "nothing: it comes with scikit-learn"
    return (
        f"{spec.name}\n\n{spec.about}\nSource: {spec.source}\nLicence: {spec.licence}{origin}\n"
        f"Contents checked, when downloaded, by: {check}\n"
    )
