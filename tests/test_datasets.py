import bz2
import gzip
import hashlib
import io
import os
import socket
import struct
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import sklearn.datasets

from neuralclust import datasets
from neuralclust.datasets import _catalog, _download, _formats

CATALOG = _catalog.CATALOG
RNG = np.random.default_rng(0)


# ---------------------------------------------------------------- a server, and small files of every format


class Server:
    """Serves `files` by name from the loopback address, after `damage[name]` if there is any."""

    def __init__(self):
        self.files, self.damage, self.requests = {}, {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path[1:]
                outer.requests.append(name)
                damage = outer.damage.get(name)
                if damage == "missing" or name not in outer.files:
                    self.send_error(404)
                    return
                body = outer.files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if damage else body)
                if damage == "reset":  # the peer sees its connection torn down, not closed
                    self.wfile.flush()
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture(scope="module")
def running():
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running.files, running.damage, running.requests = {}, {}, []
    return running


def idx_gz(array):
    return gzip.compress(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def tar_gz(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def pgm(image):
    return b"P5\n# a comment\n%d %d\n255\n" % image.shape[::-1] + image.tobytes()


def images(n, *shape):
    return RNG.integers(0, 256, (n, *shape), dtype=np.uint8)


def put(server, monkeypatch, name, contents, y, shape, **changes):
    """Serve small `contents` in place of the files of a set, and expect them."""
    spec = CATALOG[name]
    assert len(contents) == len(spec.files)
    server.files |= {remote.name: content for remote, content in zip(spec.files, contents, strict=True)}
    files = tuple(_catalog.Remote(f"{server.url}/{remote.name}") for remote in spec.files)
    counts = tuple(np.bincount(y, minlength=len(spec.classes)).tolist())
    changes = {"files": files, "shape": shape, "counts": counts, "sha256": (), "rows_sha256": None} | changes
    monkeypatch.setitem(CATALOG, name, replace(spec, **changes))


@pytest.fixture
def tiny_mnist(server, monkeypatch):
    x, y = images(12, 28, 28), np.arange(12, dtype=np.uint8) % 10
    contents = [idx_gz(part) for part in (x[:8], y[:8], x[8:], y[8:])]
    sha256 = (("x", _download._sha256(x)), ("y", _download._sha256(y)))
    put(server, monkeypatch, "mnist", contents, y, x.shape, sha256=sha256)
    return x, y


@pytest.fixture
def tiny_cifar100(server, monkeypatch):
    fine = np.array([4, 30, 55, 72, 95, 0, 4, 95], dtype=np.uint8)
    coarse = np.array([0, 0, 0, 0, 0, 4, 0, 0], dtype=np.uint8)
    x = images(8, 3, 32, 32)
    records = np.column_stack([coarse, fine, x.reshape(8, -1)])
    members = {"cifar-100-binary/train.bin": records[:6].tobytes(), "../../test.bin": records[6:].tobytes()}
    put(server, monkeypatch, "cifar100", [tar_gz(members)], fine, (8, 32, 32, 3))
    return x, fine, coarse


# ---------------------------------------------------------------- names, digits, folders


def test_names_and_an_unknown_one():
    names = datasets.names()
    assert len(names) == len(set(names)) == 37
    assert {"digits", "reuters10k", "cifar100_aquatic_mammals", "cifar100_vehicles_2"} <= set(names)
    with pytest.raises(ValueError, match=r"unknown data set 'mnits'. Did you mean 'mnist'\? .*fashion_mnist"):
        datasets.load("mnits")
    for name in (None, ["mnist"], "../mnist"):
        with pytest.raises(ValueError, match="unknown data set"):
            datasets.load(name)


def test_digits_need_no_folder(tmp_path):
    digits = datasets.load("digits", data_home=tmp_path / "none", download=False)
    assert digits.data.shape == (1797, 64)
    assert np.shares_memory(digits.data, digits.images)
    assert digits.target.dtype == np.int64
    assert digits.target_names == [str(i) for i in range(10)]
    assert "CC BY 4.0" in digits.DESCR
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name, spec in CATALOG.items() if spec.embedded])
def test_what_comes_with_scikit_learn_is_what_the_catalog_says(tmp_path, name):
    spec, found = CATALOG[name], datasets.load(name, data_home=tmp_path / "none", download=False)
    assert ("images" in found) == (len(spec.shape) > 2)
    assert found.get("images", found.data).shape == spec.shape
    assert found.data.dtype == spec.dtype
    assert np.unique(found.target).tolist() == list(range(len(found.target_names)))
    assert "comes with scikit-learn" in found.DESCR
    original = getattr(sklearn.datasets, f"load_{name}")()
    assert np.array_equal(found.data, original.data)
    assert np.array_equal(found.target, original.target)


def test_catalog_is_coherent():
    classes = CATALOG["cifar100"].classes
    assert len(set(classes)) == 100
    mammals = CATALOG["cifar100_aquatic_mammals"].classes
    assert [classes.index(name) for name in mammals] == [4, 30, 55, 72, 95]  # the numbers of the original
    for spec in CATALOG.values():
        if spec.counts is not None:
            assert len(spec.counts) == len(spec.classes)
            assert sum(spec.counts) == spec.shape[0]
        origins = (spec.files, spec.parent, spec.by_hand, spec.embedded)
        assert sum(map(bool, origins)) == 1
        assert "Licence: " in datasets._description(spec)
    assert "class counts only" in datasets._description(CATALOG["orl"])
    assert "MD5" in datasets._description(CATALOG["cifar100_fish"])


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NEURALCLUST_DATA", str(tmp_path))
    assert _download.cache_folder() == tmp_path
    assert _download.cache_folder("elsewhere").name == "elsewhere"
    monkeypatch.setenv("NEURALCLUST_DATA", "")
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    assert _download.cache_folder() == tmp_path / "cache" / "neuralclust"
    monkeypatch.delenv(variable)
    assert _download.cache_folder().parts[-2:] == (".cache", "neuralclust")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnist", "mnist.npz.*t10k-labels-idx1-ubyte.gz.*NEURALCLUST_DATA"),
        ("mnist_test", "mnist_test.npz is missing.*mnist.npz"),
        ("reuters10k", "reuters10k.npz is missing.*cannot be downloaded.*agreement.*CSR"),
        ("stanford_online_products", "cannot be downloaded.*picked by hand.*\\(any, any, any, 3\\)"),
    ],
)
def test_missing_file_without_download(tmp_path, name, words):
    with pytest.raises(FileNotFoundError, match=words):
        datasets.load(name, data_home=tmp_path, download=False)


# ---------------------------------------------------------------- downloads that work


def test_download_mnist_once_and_its_test_part(server, tiny_mnist, tmp_path, monkeypatch):
    x, y = tiny_mnist
    home = tmp_path / "new" / "folder"
    mnist = datasets.load("mnist", data_home=home)
    np.testing.assert_array_equal(mnist.images, x)
    np.testing.assert_array_equal(mnist.target, y)
    assert mnist.data.dtype == np.uint8
    assert np.shares_memory(mnist.data, mnist.images)
    assert [path.name for path in home.iterdir()] == ["mnist.npz"]
    assert len(server.requests) == 4
    home.chmod(0o555)
    again = datasets.load("mnist", data_home=str(home), download=False)
    np.testing.assert_array_equal(again.data, mnist.data)
    part = replace(CATALOG["mnist_test"], shape=(4, 28, 28), part=lambda a: {k: v[-4:] for k, v in a.items()})
    monkeypatch.setitem(CATALOG, "mnist_test", part)
    np.testing.assert_array_equal(datasets.load("mnist_test", data_home=home).images, x[-4:])
    assert len(server.requests) == 4
    home.chmod(0o755)


def test_last_rows_are_views():
    arrays = {"x": np.zeros((10001, 2)), "y": np.zeros(10001)}
    part = CATALOG["mnist_test"].part(arrays)
    assert len(part["x"]) == 10000
    assert all(np.shares_memory(part[key], arrays[key]) for key in arrays)


def test_files_fetched_by_hand_replace_the_download(server, tiny_mnist, tmp_path):
    (tmp_path / "mnist").mkdir()
    for remote in CATALOG["mnist"].files:
        (tmp_path / "mnist" / remote.name).write_bytes(server.files[remote.name])
    mnist = datasets.load("mnist", data_home=tmp_path, download=False)
    np.testing.assert_array_equal(mnist.images, tiny_mnist[0])
    assert server.requests == []


def test_download_usps(server, monkeypatch, tmp_path):
    values = np.round(RNG.uniform(-1, 1, (3, 256)), 4)
    values[0, 5] = 0  # left out of the file
    lines = [
        f"{label} " + " ".join(f"{i + 1}:{v}" for i, v in enumerate(row) if v) + "\n"
        for label, row in zip((1, 10, 4), values, strict=True)
    ]
    contents = [bz2.compress("".join(lines[:2]).encode()), bz2.compress(lines[2].encode())]
    y = np.array([0, 9, 3], dtype=np.uint8)
    want = ((values.astype(np.float32) + 1) / 2).reshape(3, 16, 16)
    rows = _download.rows_sha256(want[::-1], y[::-1])  # in another order: it does not matter
    put(server, monkeypatch, "usps", contents, y, (3, 16, 16), rows_sha256=rows)
    usps = datasets.load("usps", data_home=tmp_path)
    np.testing.assert_array_equal(usps.images, want)
    assert usps.images.dtype == np.float32
    assert usps.images[0, 0, 5] == 0.5
    assert usps.target.tolist() == [0, 9, 3]


def test_download_cifar10_and_its_test_part(server, monkeypatch, tmp_path):
    x, y = images(12, 3, 32, 32), np.arange(12, dtype=np.uint8) % 10
    records = np.column_stack([y, x.reshape(12, -1)]).reshape(6, -1)
    names = ["test_batch.bin", *(f"data_batch_{i}.bin" for i in range(1, 6))]
    content = tar_gz(
        {f"cifar-10-batches-bin/{n}": r.tobytes() for n, r in zip(names, np.roll(records, 1, 0), strict=True)}
    )
    put(server, monkeypatch, "cifar10", [content], y, (12, 32, 32, 3))
    cifar = datasets.load("cifar10", data_home=tmp_path)
    np.testing.assert_array_equal(cifar.images, x)  # channels first
    assert cifar.images.flags.c_contiguous
    assert np.shares_memory(cifar.data, cifar.images)
    np.testing.assert_array_equal(cifar.target, y)
    test = CATALOG["cifar10_test"]
    counts = (1, 1, *(0,) * 8)
    small = {"shape": (2, 32, 32, 3), "counts": counts, "part": lambda a: {k: v[-2:] for k, v in a.items()}}
    rows = _download.rows_sha256(x[-2:].transpose(0, 2, 3, 1), y[-2:])
    monkeypatch.setitem(CATALOG, "cifar10_test", replace(test, rows_sha256=rows, **small))
    np.testing.assert_array_equal(datasets.load("cifar10_test", data_home=tmp_path).images, x[-2:])
    monkeypatch.setitem(CATALOG, "cifar10_test", replace(test, **small))
    with pytest.raises(ValueError, match=r"cifar10.npz does not hold the rows of cifar10_test: .*SHA-256"):
        datasets.load("cifar10_test", data_home=tmp_path)


def test_download_cifar100_and_a_superclass(tiny_cifar100, monkeypatch, tmp_path):
    x, fine, coarse = tiny_cifar100
    cifar = datasets.load("cifar100", data_home=tmp_path)
    np.testing.assert_array_equal(cifar.images, x)
    np.testing.assert_array_equal(cifar.target, fine)
    np.testing.assert_array_equal(cifar.target_coarse, coarse)
    assert cifar.target_coarse_names[4] == "fruit_and_vegetables"
    assert cifar.target_names[0] == "apple"
    name = "cifar100_aquatic_mammals"
    small = replace(CATALOG[name], shape=(7, 32, 32, 3), counts=(2, 1, 1, 1, 2), rows_sha256=None)
    monkeypatch.setitem(CATALOG, name, small)
    mammals = datasets.load(name, data_home=tmp_path, download=False)
    np.testing.assert_array_equal(mammals.images, x[coarse == 0])
    assert mammals.target.tolist() == [0, 1, 2, 3, 4, 0, 4]
    assert mammals.target_names == ["beaver", "dolphin", "otter", "seal", "whale"]


@pytest.mark.parametrize(("name", "classes"), [("coil20", 20), ("orl", 40)])
def test_download_matlab(server, monkeypatch, tmp_path, name, classes):
    x = images(classes, 32, 32) if name == "orl" else RNG.random((classes, 32, 32))
    out = io.BytesIO()
    # Images are stored column by column.
    content = {"fea": x.transpose(0, 2, 1).reshape(classes, -1), "gnd": np.arange(1, classes + 1)[:, None]}
    scipy.io.savemat(out, content, do_compression=True)
    y = np.arange(classes)
    put(server, monkeypatch, name, [out.getvalue()], y, x.shape)
    bunch = datasets.load(name, data_home=tmp_path)
    np.testing.assert_array_equal(bunch.images, x.astype(CATALOG[name].dtype))
    np.testing.assert_array_equal(bunch.target, y)


def test_download_yale(server, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    x = np.repeat(np.arange(3, dtype=np.uint8) * 100, 24 * 16).reshape(3, 24, 16)
    x[2, :, 8:] = 0
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("CroppedYale/yaleB02/yaleB02_P00A+000E+00.pgm", pgm(x[1]))
        archive.writestr("CroppedYale/yaleB02/yaleB02_P00A+010E+00.pgm", pgm(x[2]))
        archive.writestr("CroppedYale/yaleB01/yaleB01_P00A+000E+00.pgm", pgm(x[0]))
        archive.writestr("CroppedYale/yaleB01/yaleB01_P00_Ambient.pgm", pgm(images(1, 48, 64)[0]))
        archive.writestr("CroppedYale/yaleB01/yaleB01_P00A+050E-40.pgm.bad", b"")
    put(server, monkeypatch, "extended_yale_b", [out.getvalue()], np.array([0, 1, 1]), (3, 6, 4))
    faces = datasets.load("extended_yale_b", data_home=tmp_path)
    assert faces.images.dtype == np.uint8
    np.testing.assert_array_equal(faces.images[:2], x[:2, ::4, ::4])
    np.testing.assert_allclose(faces.images[2].astype(int), np.tile([200, 200, 0, 0], (6, 1)), atol=20)
    assert faces.target.tolist() == [0, 1, 1]
    assert faces.target_names[13] == "yaleB15"


def test_download_r8(server, monkeypatch, tmp_path):
    train = b"earn\tprofit profit dividend\nacq\tmerger of the shares\n\n"
    test = "ship\tport shares tanker caf\u00e9\n".encode()
    y = np.array([2, 0, 6])
    parse = partial(_formats.r8, topics=CATALOG["reuters_r8"].classes, max_features=6)
    put(server, monkeypatch, "reuters_r8", [train, test], y, (3, 6), parse=parse)
    news = datasets.load("reuters_r8", data_home=tmp_path)
    assert sp.isspmatrix_csr(news.data)
    assert "images" not in news
    assert news.data.dtype == np.float32
    np.testing.assert_allclose(np.asarray(news.data.power(2).sum(1)).ravel(), 1, rtol=1e-6)
    assert news.target.tolist() == [2, 0, 6]
    assert news.target_names[6] == "ship"
    server.files["r8-test-all-terms.txt"] = b"weather\train\n"
    (tmp_path / "reuters_r8.npz").unlink()
    with pytest.raises(ValueError, match="unknown topic 'weather'"):
        datasets.load("reuters_r8", data_home=tmp_path)


def test_sets_that_the_user_supplies(tmp_path, monkeypatch):
    x = images(4, 6, 5, 3)
    np.savez(tmp_path / "stanford_online_products.npz", x=x, y=np.array([0, 1, 2, 1]))
    products = datasets.load("stanford_online_products", data_home=tmp_path)
    np.testing.assert_array_equal(products.images, x.transpose(0, 3, 1, 2))
    assert products.target_names == ["0", "1", "2"]
    monkeypatch.setitem(CATALOG, "reuters10k", replace(CATALOG["reuters10k"], shape=(3, 4)))
    m = sp.csr_matrix(np.diag([1, 2.5, 3]).astype(np.float32), shape=(3, 4))
    parts = {"data": m.data, "indices": m.indices, "indptr": m.indptr, "shape": m.shape}
    np.savez(tmp_path / "reuters10k.npz", **parts, y=np.array([3, 0, 1]))
    assert (datasets.load("reuters10k", data_home=tmp_path).data != m).nnz == 0
    parts["indices"] = m.indices + 9
    np.savez(tmp_path / "reuters10k.npz", **parts, y=np.array([3, 0, 1]))
    with pytest.raises(ValueError, match=r"reuters10k.npz is not a good file"):
        datasets.load("reuters10k", data_home=tmp_path)


# ---------------------------------------------------------------- downloads that fail leave nothing behind


def test_not_found(server, tiny_mnist, tmp_path):
    server.damage["t10k-labels-idx1-ubyte.gz"] = "missing"  # the last file, after three good ones
    with pytest.raises(ConnectionError, match=rf"{server.url}/t10k-labels.*404.*put it at .*mnist"):
        datasets.load("mnist", data_home=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("damage", "words"), [("half", "truncated: .* bytes came out of"), ("reset", "")])
def test_truncated(server, tiny_mnist, tmp_path, damage, words):
    server.damage["t10k-images-idx3-ubyte.gz"] = damage
    with pytest.raises(OSError, match=f"{server.url}/t10k-images.*{words}.*put it at"):
        datasets.load("mnist", data_home=tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_server(server, tiny_mnist, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.gz"
    monkeypatch.setitem(CATALOG, "mnist", replace(CATALOG["mnist"], files=(_catalog.Remote(url),) * 4))
    with pytest.raises(ConnectionError, match=f"cannot download {url}"):
        datasets.load("mnist", data_home=tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_large(server, tiny_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "DOWNLOAD_LIMIT", 100)
    with pytest.raises(OSError, match="more than 100 bytes"):
        datasets.load("mnist", data_home=tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_decompresses_to_too_much(server, tiny_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(_formats, "MEMBER_LIMIT", 100)
    with pytest.raises(ValueError, match="decompresses to more than 100 bytes"):
        datasets.load("mnist", data_home=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": (("x", "0" * 64),)}, "SHA-256 checksum of x: expected 0{64}, got [0-9a-f]{64}"),
        ({"rows_sha256": "0" * 64}, "SHA-256 checksum of the rows: expected 0{64}, got [0-9a-f]{64}"),
        ({"counts": (1,) * 10}, "class counts: expected .* got .2, 2, 1"),
        ({"shape": (13, 28, 28)}, r"shape \(12, 28, 28\), not \(13, 28, 28\)"),
        ({"dtype": "float32"}, "uint8, not float32"),
        ({"classes": ("0", "1")}, "y lies between 0 and 9, not in \\[0, 1\\]"),
    ],
)
def test_wrong_contents(tiny_mnist, tmp_path, monkeypatch, changes, words):
    monkeypatch.setitem(CATALOG, "mnist", replace(CATALOG["mnist"], **changes))
    with pytest.raises(ValueError, match=words):
        datasets.load("mnist", data_home=tmp_path)
    assert not list(tmp_path.iterdir())


def test_wrong_checksum_of_an_archive(tiny_cifar100, tmp_path, monkeypatch):
    spec = CATALOG["cifar100"]
    files = (replace(spec.files[0], md5="0" * 32),)
    monkeypatch.setitem(CATALOG, "cifar100", replace(spec, files=files))
    with pytest.raises(
        ValueError, match=r"cifar-100-binary.tar.gz: wrong MD5 checksum: expected 0{32}, got [0-9a-f]{32}"
    ):
        datasets.load("cifar100", data_home=tmp_path)
    assert not list(tmp_path.iterdir())


def test_checksum_of_an_archive_fetched_by_hand(server, tiny_cifar100, tmp_path, monkeypatch):
    spec = CATALOG["cifar100"]
    own = tmp_path / "cifar100" / spec.files[0].name
    own.parent.mkdir()
    own.write_bytes(server.files[own.name])
    md5 = hashlib.md5(server.files[own.name], usedforsecurity=False).hexdigest()
    files = (replace(spec.files[0], md5=md5),)
    monkeypatch.setitem(CATALOG, "cifar100", replace(spec, files=files))
    assert datasets.load("cifar100", data_home=tmp_path).target[1] == 30
    (tmp_path / "cifar100.npz").unlink()
    own.write_bytes(b"another")
    with pytest.raises(ValueError, match=f"{own.name}: wrong MD5 checksum: expected {md5}"):
        datasets.load("cifar100", data_home=tmp_path)
    assert server.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["cifar100"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mnist", b"<html>sorry</html>"),
        ("mnist", gzip.compress(b"")),
        ("mnist", gzip.compress(struct.pack(">HBBI", 0, 13, 1, 1) + b"1")),  # not unsigned bytes
        ("mnist", gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2**31) + b"1")),  # claims more than it has
        ("usps", b"BZh9 not really"),
        ("usps", bz2.compress(b"1 257:1\n")),
        ("cifar10", tar_gz({"a/data_batch_1.bin": b"0"})),
        ("cifar100", tar_gz({"train.bin": b"0" * 3075, "test.bin": b"0"})),
        ("orl", b"MATLAB 5.0 MAT-file"),
        ("extended_yale_b", b"PK\x05\x06" + bytes(18)),  # an empty zip file
        ("extended_yale_b", b"PK\x03\x04"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # not the bytes: an archive has the time in it
)
def test_unreadable(server, monkeypatch, tmp_path, name, content):
    spec = CATALOG[name]
    put(server, monkeypatch, name, [content] * len(spec.files), np.arange(1), spec.shape)
    with pytest.raises(ValueError, match=f"{server.url}.*cannot read {name} from it"):
        datasets.load(name, data_home=tmp_path)
    assert not list(tmp_path.iterdir())


def test_pgm_of_16_bits_is_refused():
    with pytest.raises(ValueError, match=r"a.pgm is not a binary PGM file of 8 bits"):
        _formats._pgm(b"P5 1 1 65535\n00", "a.pgm")


@pytest.mark.parametrize("where", ["response", "parse", "save"])
def test_keyboard_interrupt(server, tiny_mnist, tmp_path, monkeypatch, where):
    seen = []

    def stop(*args, **kwargs):
        seen.extend(path.name for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    if where == "response":
        monkeypatch.setattr(_download, "_CHUNK", 64)
        monkeypatch.setattr(_download, "_progress", interrupting_progress)
    elif where == "parse":
        monkeypatch.setitem(CATALOG, "mnist", replace(CATALOG["mnist"], parse=stop))
    else:
        monkeypatch.setattr(_download.os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        datasets.load("mnist", data_home=tmp_path)
    assert not list(tmp_path.iterdir())
    if where == "save":
        assert seen[0].endswith(".part")


class interrupting_progress:
    def __init__(self, name, total):
        self.calls = 0

    def __enter__(self):
        return self.advance

    def __exit__(self, *error):
        return None

    def advance(self, n):
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt


def test_folder_that_cannot_be_made(tiny_mnist, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot make the folder .*file.*NEURALCLUST_DATA"):
        datasets.load("mnist", data_home=tmp_path / "file" / "folder")


def test_folder_that_cannot_be_written_or_read(tiny_mnist, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("not allowed")

    # Permissions do not stop a superuser, who may be running this.
    monkeypatch.setattr(_download.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"cannot write to the folder .*not allowed.*NEURALCLUST_DATA"):
        datasets.load("mnist", data_home=tmp_path)
    monkeypatch.undo()
    np.savez(tmp_path / "orl.npz", **good_orl())
    monkeypatch.setattr(_download.np, "load", refuse)
    with pytest.raises(PermissionError):
        datasets.load("orl", data_home=tmp_path)


# ---------------------------------------------------------------- broken files in the cache


def good_orl():
    return {"x": images(400, 32, 32), "y": np.repeat(np.arange(40, dtype=np.uint8), 10)}


def test_any_good_file_in_the_cache_will_do(tmp_path):
    arrays = good_orl()
    np.savez(tmp_path / "orl.npz", **arrays)
    np.testing.assert_array_equal(datasets.load("orl", data_home=tmp_path).images, arrays["x"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": None}, "no array x"),
        ({"y": None}, "no array y"),
        ({"x": np.zeros((400, 1024), np.uint8)}, "shape"),
        ({"x": np.zeros((400, 32, 32))}, "float64, not uint8"),
        ({"y": np.zeros(399, np.uint8)}, "y must be 400 integers"),
        ({"y": np.zeros(400)}, "y must be 400 integers"),
        ({"y": np.full(400, 40)}, "between 40 and 40"),
        ({"y": np.full(400, None)}, "allow_pickle"),
    ],
)
def test_wrong_arrays_in_the_cache(tmp_path, change, words):
    arrays = {key: value for key, value in (good_orl() | change).items() if value is not None}
    np.savez(tmp_path / "orl.npz", **arrays)
    with pytest.raises(ValueError, match=rf"orl.npz is not a good file of orl .*{words}.*delete it"):
        datasets.load("orl", data_home=tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "npy", "text", ""])
def test_damaged_file_in_the_cache(tmp_path, damage):
    path = tmp_path / "orl.npz"
    np.savez_compressed(path, **good_orl())
    content = path.read_bytes()
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content = content[:20000] + bytes([content[20000] ^ 255]) + content[20001:]
    elif damage == "npy":
        out = io.BytesIO()
        np.save(out, np.zeros(3))
        content = out.getvalue()
    else:
        content = damage.encode()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"orl.npz is not a good file of orl .*delete it"):
        datasets.load("orl", data_home=tmp_path)


def test_nan_and_size_limit_in_the_cache(tmp_path, monkeypatch):
    x = np.zeros((1440, 32, 32), np.float32)
    x[3, 4, 5] = np.nan
    np.savez(tmp_path / "coil20.npz", x=x, y=np.zeros(1440, np.uint8))
    with pytest.raises(ValueError, match="values lie between nan"):
        datasets.load("coil20", data_home=tmp_path)
    monkeypatch.setattr(_download, "CACHED_LIMIT", 1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        datasets.load("coil20", data_home=tmp_path)


# ---------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("total", [3_000_000, None])
def test_progress_in_plain_text(monkeypatch, total):
    monkeypatch.setitem(sys.modules, "rich.console", None)  # as if it were not installed
    monkeypatch.setattr(sys, "stderr", Terminal())
    with _download._progress("a.gz", total) as advance:
        advance(1_000_000)
        advance(2_000_000)
    of = " of 3.0" if total else ""
    assert sys.stderr.getvalue() == f"\ra.gz: 1.0{of} MB\ra.gz: 3.0{of} MB\n"


def test_progress_with_rich(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with _download._progress("a.gz", 30) as advance:
        advance(10)
    assert "a.gz" in sys.stderr.getvalue()


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_no_progress_without_a_terminal(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    with _download._progress("a.gz", 3) as advance:
        advance(1)
    assert stream is None or stream.getvalue() == ""


# ---------------------------------------------------------------- generators


def test_sphere_clusters():
    X, y = datasets.make_sphere_clusters(101, 4, 20, noise=0.1, random_state=3)
    assert X.shape == (101, 20)
    assert X.dtype == np.float32
    assert np.bincount(y).tolist() == [26, 25, 25, 25]
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, rtol=1e-5)
    centers = np.stack([X[y == k].mean(0) for k in range(4)])
    np.testing.assert_array_equal((X @ centers.T).argmax(1), y)
    again = datasets.make_sphere_clusters(101, 4, 20, noise=0.1, random_state=3)
    np.testing.assert_array_equal(again[0], X)
    assert not np.array_equal(datasets.make_sphere_clusters(101, 4, 20, noise=0.1, random_state=4)[0], X)


def test_subspaces():
    X, y = datasets.make_subspaces(200, 5, 3, 12, random_state=1)
    assert X.shape == (200, 12)
    assert X.dtype == np.float32
    assert np.bincount(y).tolist() == [40] * 5
    assert [np.linalg.matrix_rank(X[y == k], tol=1e-4) for k in range(5)] == [3] * 5
    assert np.mean(np.sum(X**2, axis=1)) == pytest.approx(1, abs=0.2)
    noisy, same = datasets.make_subspaces(200, 5, 3, 12, noise=0.1, random_state=1)
    np.testing.assert_array_equal(same, y)
    assert np.linalg.norm(noisy - X, axis=1).mean() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (datasets.make_sphere_clusters, {"n_clusters": 0}),
        (datasets.make_sphere_clusters, {"n_samples": 2, "n_clusters": 3}),
        (datasets.make_sphere_clusters, {"n_features": 0}),
        (datasets.make_sphere_clusters, {"noise": -1.0}),
        (datasets.make_subspaces, {"subspace_dim": 11, "n_features": 10}),
        (datasets.make_subspaces, {"subspace_dim": 0}),
        (datasets.make_subspaces, {"noise": np.nan}),
    ],
)
def test_generators_refuse(make, changes):
    with pytest.raises(ValueError, match=r"must|ask"):
        make(**changes)


# ---------------------------------------------------------------- the real data, where it is at hand

REAL = [
    "mnist",
    "mnist_test",
    "fashion_mnist",
    "usps",
    "cifar10_test",
    "cifar100_aquatic_mammals",
    "coil20",
    "orl",
    "extended_yale_b",
    "reuters_r8",
]


@pytest.mark.parametrize("name", REAL)
def test_real_data(name):
    if not os.environ.get("NEURALCLUST_DATA"):
        pytest.skip("NEURALCLUST_DATA is unset: the real data are not at hand")
    try:
        bunch = datasets.load(name, download=False)
    except FileNotFoundError:
        pytest.skip(f"{name}.npz is not in NEURALCLUST_DATA")
    spec = CATALOG[name]
    n = spec.shape[0]
    assert bunch.data.shape[0] == bunch.target.shape[0] == n
    assert bunch.data.dtype == spec.dtype
    assert set(np.unique(bunch.target)) == set(range(len(bunch.target_names)))
    if not spec.sparse:
        assert np.shares_memory(bunch.data, bunch.images)
    # What a download would be checked against is what is in the folder.
    arrays = _download.obtain(spec, _download.cache_folder(), False)
    _download._check_contents(spec, arrays)
