"""Readers of the formats the canonical sources serve: binary streams in, the arrays of ``NAME.npz`` out.

Nothing is unpickled and nothing is extracted to a path: members of archives are read in memory, each of a
bounded size, and looked up by name.
"""

from __future__ import annotations

import bz2
import gzip
import io
import re
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
import scipy.io
from sklearn.datasets import load_svmlight_files
from sklearn.feature_extraction.text import TfidfVectorizer

Arrays = dict[str, np.ndarray]

MEMBER_LIMIT = 2**28  # bytes after decompression; the largest real one, train.bin of CIFAR-100, has 154 MB
_PGM = re.compile(rb"P5" + rb"\s+(?:#[^\n]*\n\s*)*(\d+)" * 3 + rb"\s")
_RECORD_BYTES = 3 * 32 * 32


def _read(stream, limit: int | None = None) -> bytes:
    limit = MEMBER_LIMIT if limit is None else limit
    content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it decompresses to more than {limit} bytes")
    return content


def idx(streams: Sequence[BinaryIO]) -> Arrays:
    """MNIST and its kin: gzipped IDX files, training images and labels, then test images and labels."""
    arrays = []
    for stream in streams:
        content = _read(gzip.GzipFile(fileobj=stream))
        zeros, kind, ndim = struct.unpack_from(">HBB", content)
        if zeros != 0 or kind != 8:
            raise ValueError(f"an IDX file of unsigned bytes starts with 00 00 08, not {content[:3].hex(' ')}")
        shape = struct.unpack_from(f">{ndim}I", content, 4)
        arrays.append(np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(shape))
    return {"x": np.concatenate(arrays[0::2]), "y": np.concatenate(arrays[1::2])}


def usps(streams: Sequence[BinaryIO]) -> Arrays:
    """bzip2-ed svmlight files of 16 x 16 images in [-1, 1], labels 1 to 10: mapped to [0, 1] and 0 to 9."""
    parts = load_svmlight_files(
        [io.BytesIO(_read(bz2.BZ2File(stream))) for stream in streams], n_features=256, zero_based=False
    )
    x = np.concatenate([part.toarray() for part in parts[0::2]]).astype(np.float32)
    # Halving is exact and the sum is rounded once, in float32: the bytes are the same on every machine.
    x = (x + np.float32(1)) / np.float32(2)
    return {"x": x.reshape(-1, 16, 16), "y": (np.concatenate(parts[1::2]) - 1).astype(np.uint8)}


def matlab(streams: Sequence[BinaryIO], dtype: str) -> Arrays:
    """Deng Cai's files: ``fea`` (n, 1024), each image stored column by column, and ``gnd`` (n, 1) from 1."""
    content = scipy.io.loadmat(streams[0], variable_names=["fea", "gnd"])
    x = np.asarray(content["fea"]).reshape(-1, 32, 32).transpose(0, 2, 1)
    y = np.asarray(content["gnd"]).ravel()
    return {"x": np.ascontiguousarray(x, dtype=dtype), "y": (y - 1).astype(np.uint8)}


def cifar(streams: Sequence[BinaryIO], members: Sequence[str], labels: Sequence[str]) -> Arrays:
    """Records of one byte for each of ``labels`` and 3072 bytes of channels-first image, in a gzipped tar."""
    found = {}
    with tarfile.open(fileobj=streams[0], mode="r|gz") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            if name in members and (content := archive.extractfile(member)) is not None:
                found[name] = _read(content)
    if missing := [name for name in members if name not in found]:
        raise ValueError(f"the archive has no {', '.join(missing)}")
    records = np.concatenate([np.frombuffer(found[name], np.uint8) for name in members])
    records = records.reshape(-1, len(labels) + _RECORD_BYTES)
    x = records[:, len(labels) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return {"x": np.ascontiguousarray(x)} | {name: records[:, i].copy() for i, name in enumerate(labels)}


def yale(streams: Sequence[BinaryIO]) -> Arrays:
    """A zip of PGM files, a folder for each subject; the images are made four times smaller each way."""
    images, subjects = [], []
    with zipfile.ZipFile(streams[0]) as archive:
        for name in sorted(archive.namelist()):
            # Left out: one picture of the background for each subject, and the unreadable files, "*.pgm.bad".
            if name.endswith(".pgm") and not name.endswith("Ambient.pgm"):
                with archive.open(name) as member:
                    images.append(_pgm(_read(member, 2**20), name))
                subjects.append(PurePosixPath(name).parent.name)
    if not images or len({image.shape for image in images}) > 1:
        raise ValueError("the zip must hold PGM images, all of one size")
    y = np.unique(subjects, return_inverse=True)[1].astype(np.uint8)
    return {"x": _quarter(np.stack(images)), "y": y}


def _pgm(content: bytes, name: str) -> np.ndarray:
    header = _PGM.match(content)
    if header is None or header[3] != b"255":
        raise ValueError(f"{name} is not a binary PGM file of 8 bits")
    width, height = int(header[1]), int(header[2])
    return np.frombuffer(content, np.uint8, width * height, header.end()).reshape(height, width)


def _quarter(images: np.ndarray) -> np.ndarray:
    import torch  # only this data set needs it: the others load without the time its import takes

    size = (images.shape[1] // 4, images.shape[2] // 4)
    parts = []
    for chunk in np.array_split(images, -(-len(images) // 128)):
        pixels = torch.from_numpy(chunk)[:, None].float()
        small = torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True)
        parts.append(small[:, 0].round().clamp(0, 255).to(torch.uint8).numpy())
    return np.concatenate(parts)


def r8(streams: Sequence[BinaryIO], topics: Sequence[str], max_features: int = 2000) -> Arrays:
    """Lines of a topic, a tab and a text; the tf-idf of the most frequent terms, in CSR parts."""
    lines = [line for stream in streams for line in _read(stream).decode("utf-8", "replace").splitlines()]
    pairs = [line.partition("\t")[::2] for line in lines if line.strip()]
    number = {topic: i for i, topic in enumerate(topics)}
    if strange := {topic for topic, _ in pairs} - number.keys():
        raise ValueError(f"unknown topic {min(strange)!r}")
    vectorizer = TfidfVectorizer(max_features=max_features, stop_words="english", dtype=np.float32)
    x = vectorizer.fit_transform([text for _, text in pairs]).tocsr()
    return {
        "data": x.data,
        "indices": x.indices.astype(np.int32),
        "indptr": x.indptr.astype(np.int32),
        "shape": np.array(x.shape, dtype=np.int64),
        "y": np.array([number[topic] for topic, _ in pairs], dtype=np.uint8),
    }
