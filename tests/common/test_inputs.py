"""What goes in: every kind of container gives the same clusters; everything else a clear error and no trace."""

import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from tests.conftest import small


class Rows(Dataset):
    """A map-style data set of (row, label) pairs."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([torch.zeros(3)])


def memory_map(X, tmp_path):
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode="r")


def pandas_frame(X, tmp_path):
    return pytest.importorskip("pandas").DataFrame(X)


def polars_frame(X, tmp_path):
    return pytest.importorskip("polars").DataFrame(X)


CONTAINERS = {
    "read-only array": lambda X, _: X,
    "writeable array": lambda X, _: X.copy(),
    "Fortran order": lambda X, _: np.asfortranarray(X),
    "strided view": lambda X, _: np.repeat(X, 2, axis=1)[:, ::2],
    "reversed view": lambda X, _: X[::-1].copy()[::-1],
    "big-endian": lambda X, _: X.astype(">f4"),
    "float64": lambda X, _: X.astype("float64"),
    "memory map": memory_map,
    "pandas": pandas_frame,
    "polars": polars_frame,
    "list": lambda X, _: X.tolist(),
    "tensor": lambda X, _: torch.tensor(X),
    "tensor that needs a gradient": lambda X, _: torch.tensor(X, requires_grad=True),
    "csr array": lambda X, _: sp.csr_array(X),
    "coo matrix": lambda X, _: sp.coo_matrix(X),
    "TensorDataset": lambda X, _: TensorDataset(torch.tensor(X), torch.zeros(len(X))),
    "Dataset": lambda X, _: Rows(torch.tensor(X), np.arange(len(X))),
    "DataLoader": lambda X, _: DataLoader(Rows(torch.tensor(X), np.arange(len(X))), 7, shuffle=True),
    "loader of workers": lambda X, _: DataLoader(TensorDataset(torch.tensor(X)), 64, num_workers=1),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_give_the_same_clusters(easy, tmp_path, container):
    X, _ = easy
    expected = small("TELL", pretrain_epochs=3, max_epochs=3).fit(X)
    data = CONTAINERS[container](X, tmp_path)
    model = small("TELL", pretrain_epochs=3, max_epochs=3).fit(data)
    assert np.array_equal(model.labels_, expected.labels_)
    assert np.array_equal(model.predict(data), expected.labels_)
    assert np.allclose(model.transform(data), expected.transform(X), atol=1e-5)


@pytest.mark.parametrize(
    "dtype",
    [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "longdouble",
    ],
)
def test_numeric_dtypes(images, dtype):
    X, _ = images
    X = (X.reshape(60, -1) > 100) if dtype == "bool" else X.reshape(60, -1) // 2
    model = small("AEKMeans", 2, pretrain_epochs=3).fit(X.astype(dtype))
    assert np.array_equal(model.labels_, small("AEKMeans", 2, pretrain_epochs=3).fit(X.astype("float32")).labels_)


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e30, 1e300])
def test_units_do_not_matter(method, easy, factor):
    X = easy[0].astype("float64")
    model = small(method).fit(X)
    scaled = small(method).fit(X * factor)
    assert np.array_equal(model.labels_, scaled.labels_)
    assert np.isfinite(scaled.loss_)
    assert np.isfinite(scaled.reconstruct_centers()).all()


def test_float32_near_its_limits(method, easy):
    model = small(method).fit(easy[0] * np.float32(1e38))
    assert np.array_equal(model.labels_, small(method).fit(easy[0]).labels_)


def test_a_far_offset_does_not_matter(method, easy):
    X = easy[0].astype("float64")
    far = small(method).fit(X + 1e6).labels_
    if method == "SSCNet":  # subspaces go through the origin: near it, it counts
        assert adjusted_rand_score(easy[1], far) > 0.9
    else:
        assert np.array_equal(far, small(method).fit(X).labels_)


def test_constant_columns(method, easy):
    X = np.hstack([easy[0], np.full((240, 2), 0.25)])
    assert np.isfinite(small(method).fit(X).loss_)


def bad(change):
    def make(X):
        X = X.astype("float64")
        return change(X)

    return make


def with_value(value):
    def change(X):
        X[3, 2] = value
        return X

    return change


BAD = {
    "NaN": (bad(with_value(np.nan)), ValueError, "NaN"),
    "infinity": (bad(with_value(np.inf)), ValueError, "infinity"),
    "NaN tensor": (lambda X: torch.tensor(with_value(np.nan)(X.copy())), ValueError, "NaN or infinity"),
    "NaN dataset": (
        lambda X: Rows(torch.tensor(with_value(np.nan)(X.copy())), X[:, 0]),
        ValueError,
        "NaN or infinity",
    ),
    "sparse NaN": (lambda X: sp.csr_array(with_value(np.nan)(X.copy())), ValueError, "NaN"),
    "no rows": (lambda X: X[:0], ValueError, "0 sample"),
    "no columns": (lambda X: X[:, :0], ValueError, "0 feature"),
    "empty tensor": (lambda X: torch.tensor(X[:0]), ValueError, "minimum of 1 row"),
    "empty dataset": (lambda X: TensorDataset(torch.zeros(0, 3)), ValueError, "0 rows"),
    "1-D": (lambda X: X[0], ValueError, "Reshape your data"),
    "1-D tensor": (lambda X: torch.tensor(X[0]), ValueError, "Reshape your data"),
    "labels": (lambda X: np.arange(240) % 3, ValueError, "looks like labels"),
    "0-D": (lambda X: np.float64(3.0), ValueError, "Expected 2D array"),
    "5-D": (lambda X: X.reshape(10, 4, 6, 4, 4), ValueError, "Flatten the rows"),
    "complex": (lambda X: X + 1j, ValueError, "Complex data not supported"),
    "complex tensor": (lambda X: torch.tensor(X + 1j), ValueError, "Complex data not supported"),
    "strings": (lambda X: np.array([["a", "b"]] * 9), ValueError, "holds text, such as 'a'"),
    "documents": (lambda X: ["a text", "another"] * 9, ValueError, "TfidfVectorizer"),
    "ragged": (lambda X: [[1.0, 2.0], [3.0]], ValueError, "inhomogeneous|array|sequence"),
    "objects": (lambda X: np.array([[{}, {}]] * 9), (ValueError, TypeError), "."),
    "None": (lambda X: None, (ValueError, TypeError), "."),
    "a stream": (lambda X: Stream(), TypeError, "map-style Dataset"),
    "a dataset of strings": (lambda X: Rows(["a"] * 9, [0] * 9), TypeError, "must yield dense real tensors"),
    "fewer rows than clusters": (lambda X: X[:2], ValueError, "n_samples=2 should be >= n_clusters=3"),
    "a span beyond float64": (
        lambda X: X.astype("float64") * 1.7e308 / abs(X).max(),
        ValueError,
        "Rescale X",
    ),
}


def test_refusing_a_large_array_makes_no_copy_of_it(easy):
    model = small("TELL").fit(easy[0])
    X = np.zeros((100_000, 17), dtype=np.float32)
    tracemalloc.start()
    with pytest.raises(ValueError, match="17 features"):
        model.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_leaves_no_trace(method, easy, case):
    make, error, message = BAD[case]
    model = small(method)
    before = dict(vars(model))
    with pytest.raises(error, match=message):
        model.fit(make(easy[0]))
    assert vars(model) == before


def test_a_failed_fit_keeps_the_earlier_one(method, easy):
    X, _ = easy
    model = small(method).fit(X)
    before = model.predict(X)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(with_value(np.nan)(X.astype("float64")))
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(X[:, :5])
    assert np.array_equal(model.predict(X), before)


def test_an_interrupted_fit_keeps_the_earlier_one(method, easy):
    class Interrupt:
        def setup(self, estimator, context): ...

        def teardown(self, estimator, context): ...

        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context):
            raise KeyboardInterrupt

    X, _ = easy
    model = small(method).fit(X)
    before = model.predict(X)
    with pytest.raises(KeyboardInterrupt):
        model.set_callbacks(Interrupt()).fit(X * 2)
    assert np.array_equal(model.predict(X), before)
    model.set_callbacks().fit(X)


def test_other_features_at_predict(method, easy):
    X, _ = easy
    model = small(method).fit(X)
    for use in (model.predict, model.predict_proba, model.transform, model.score):
        with pytest.raises(ValueError, match=r"X has 15 features, but .* is expecting 16"):
            use(X[:, :15])
    with pytest.raises(ValueError, match="15 features"):
        model.predict(torch.tensor(X[:, :15]))
    with pytest.raises(ValueError, match="rows of shape"):
        model.predict(X.reshape(240, 4, 4))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_clusters": 0}, "'n_clusters' parameter .* range"),
        ({"n_clusters": 2.5}, "'n_clusters' parameter"),
        ({"encoder": "resnet"}, "'encoder' parameter"),
        ({"embed_dim": 0}, "'embed_dim' parameter"),
        ({"n_init": 0}, "'n_init' parameter"),
        ({"init": "farthest"}, "'init' parameter"),
        ({"pretrain_epochs": -1}, "'pretrain_epochs' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"lr": 0.0}, "'lr' parameter"),
        ({"optimizer": "lion"}, "'optimizer' parameter"),
        ({"tol": -1.0}, "'tol' parameter"),
        ({"precision": "float8"}, "'precision' parameter"),
        ({"random_state": "seed"}, "'random_state' parameter"),
        ({"device": "abacus"}, "device='abacus' cannot be used here"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here"),
        ({"hidden_layer_sizes": (32, 0)}, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": ("wide",)}, "hidden_layer_sizes"),
        ({"encoder": "conv"}, "Reshape X, or use encoder='mlp'"),
        ({"encoder": torch.nn.Linear(5, 2)}, "failed on a batch of shape"),
        ({"encoder": torch.nn.Unflatten(1, (4, 4))}, "returned .* must return a tensor of codes"),
    ],
)
def test_bad_parameters(method, easy, params, message):
    model = small(method).set_params(**params)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(easy[0])
    assert not hasattr(model, "module_")
    assert not hasattr(model, "n_features_in_")


def test_a_frozen_encoder_stays_frozen(method, easy):
    X, _ = easy
    encoder = torch.nn.Linear(16, 8)
    encoder.requires_grad_(False)
    model = small(method, encoder=encoder).fit(X)
    assert torch.equal(model.module_.autoencoder.encoder.weight, encoder.weight)


def test_memory_stays_bounded_by_the_batch():
    """70,000 x 784 floats: fit and predict add less than 100 MiB to data that is 419 MiB as float64."""
    code = """
import resource, sys
import numpy as np
from neuralclust import TELL

def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

X = np.zeros((70_000, 784))
X[:] = np.arange(784) % 7
X[::2] += 1
model = TELL(2, hidden_layer_sizes=(16,), pretrain_epochs=1, max_epochs=0, batch_size=512, random_state=0)
model.fit(X[:2000])
before = rss()
assert peak() - before < 50, "the measurement itself"
model.fit(X)
model.predict(X)
print(peak() - before)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 100


def test_sparse_rows_are_densified_a_batch_at_a_time(method, monkeypatch):
    X = sp.random_array((400, 50), density=0.05, format="csr", rng=np.random.default_rng(0))
    largest = []
    original = sp.csr_array.toarray

    def counting(self, *args, **kwargs):
        if self.shape[1] == 50:  # not a graph of rows
            largest.append(self.shape[0])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(sp.csr_array, "toarray", counting)
    monkeypatch.setattr("neuralclust.scaling.CHUNK_BYTES", 100 * 50 * 8)
    monkeypatch.setattr("neuralclust.training._SCALED_BYTES", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        small(method, batch_size=32).fit(X).predict(X)
    assert 0 < max(largest) <= 256


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_broken_stream_is_undone(method, easy, stop):
    """Rows that fail in the middle of a partial_fit leave the model as it was, and the next call works."""
    X, _ = easy

    class Broken(Rows):
        def __getitem__(self, i):
            if i == 200:
                raise stop("row 200")
            return super().__getitem__(i)

    model = small(method, batch_size=32).fit(X)
    before = {name: value.clone() for name, value in model.module_.state_dict().items()}
    with pytest.raises(stop):
        model.partial_fit(Broken(torch.tensor(X), X[:, 0]), train_encoder=True)
    assert all(torch.equal(before[name], value) for name, value in model.module_.state_dict().items())
    model.partial_fit(X)


def test_after_a_refit_the_stream_trains_the_new_network(method, easy):
    X, _ = easy
    model = small(method).fit(X)
    model.partial_fit(X, train_encoder=True)
    model.fit(X)
    weight = next(model.module_.autoencoder.parameters())
    before = weight.detach().clone()
    model.partial_fit(X, train_encoder=True)
    assert not torch.equal(before, weight)


def test_datasets_leave_the_global_random_state_alone(easy):
    X, _ = easy
    data = Rows(torch.tensor(X), X[:, 0])
    torch.manual_seed(0)
    before = torch.get_rng_state()
    small("TELL").fit(data).predict(DataLoader(data, 32, num_workers=1))
    assert torch.equal(before, torch.get_rng_state())


def test_loaders_are_taken_at_their_word(easy):
    X, _ = easy

    def half(rows):
        return torch.stack([row for row, *_ in rows])[:, :8]

    class Shorter(TensorDataset):
        def __getitem__(self, i):
            return self.tensors[0][i, :4]

    plain = TensorDataset(torch.tensor(X))
    assert small("AEKMeans").fit(DataLoader(plain, 16, collate_fn=half)).n_features_in_ == 8
    assert small("AEKMeans").fit(Shorter(torch.tensor(X))).n_features_in_ == 4
    with pytest.raises(ValueError, match="Subset"):
        small("AEKMeans").fit(DataLoader(plain, 16, sampler=SubsetRandomSampler(range(100))))
    assert len(small("AEKMeans").fit(Subset(plain, range(100))).labels_) == 100


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([torch.tensor(1.0)] * 9, TypeError),
        ([torch.zeros(2), torch.zeros(3)] * 5, ValueError),
        ([torch.zeros(3, dtype=torch.complex64)] * 9, TypeError),
        ([torch.zeros(0)] * 9, ValueError),
        ([torch.zeros(3).to_sparse()] * 9, (TypeError, ValueError)),
    ],
)
def test_bad_datasets(rows, error):
    with pytest.raises(error):
        small("AEKMeans").fit(Rows(rows, rows))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.bfloat16, torch.bool])
def test_tensor_dtypes(images, dtype):
    X = (
        torch.tensor(images[0].reshape(60, -1)) > 100
        if dtype == torch.bool
        else torch.tensor(images[0].reshape(60, -1))
    )
    model = small("AEKMeans", 2, pretrain_epochs=3).fit(X.to(dtype))
    assert np.array_equal(model.labels_, small("AEKMeans", 2, pretrain_epochs=3).fit(X.float().numpy()).labels_)


@pytest.mark.parametrize("bad", [
    torch.zeros(9, 3).to_sparse_csr(), torch.zeros(9, 3, dtype=torch.float8_e4m3fn), torch.zeros(9, 3, device="meta"),
])  # fmt: skip
def test_tensors_that_cannot_be_computed_with(bad):
    with pytest.raises(ValueError, match=r"not supported|cannot be computed"):
        small("AEKMeans").fit(bad)


def test_rows_far_outside_the_fitted_range(method, easy):
    """A label, or an error that says so; never NaN."""
    X = easy[0].astype("float64")
    model = small(method).fit(X)
    for use in (model.predict, model.predict_proba, model.score, model.partial_fit):
        with pytest.raises(ValueError, match="too far outside"):
            use(X * 1e300)
    assert np.isfinite(model.predict_proba(X * 1e15)).all()
    direct = small(method, encoder=None).fit(X)
    if direct.module_.autoencoder.normalize:  # directions are clustered: length does not matter
        assert np.array_equal(direct.predict(X * 1e20), direct.labels_)
        assert np.array_equal(direct.predict(X * 1e-30), direct.labels_)


def test_rows_for_the_whole_pipeline_given_to_its_last_step_are_noticed(method):
    X = load_wine().data
    pipe = make_pipeline(StandardScaler(), small(method))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipe.fit(X)
        pipe.predict(X)
        pipe.predict(X[:1])
    for rows in (X, X[:1]):
        with pytest.warns(UserWarning, match="Most of these rows lie more than 3 times .* with the whole pipeline"):
            pipe[-1].predict(rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_given_centres_must_be_finite(method, easy, bad):
    init = np.full((3, 16), bad)
    with pytest.raises(ValueError, match="init"):
        small(method, encoder=None, init=init).fit(easy[0])


def test_an_encoder_that_returns_nan_is_named(method, easy):
    encoder = torch.nn.Linear(16, 4)
    with torch.no_grad():
        encoder.weight.fill_(float("nan"))
    encoder.requires_grad_(False)
    model = small(method, encoder=encoder, pretrain_epochs=0)
    with pytest.raises(ValueError, match="encoder returns codes with NaN"):
        model.fit(easy[0])


def test_rows_that_hardly_count_are_named(easy):
    X, _ = easy
    outlier = X.copy()
    outlier[0, 0] = 1e6
    model = small("TELL", encoder=None)
    with pytest.warns(ConvergenceWarning, match=r"span .* 1e\+06, but 98 % .* Clip or drop outliers"):
        model.fit(outlier)
    with pytest.warns(ConvergenceWarning, match="The values of X span"):
        model.fit(np.vstack([X, 100 * X[:2]]))
    rng = np.random.default_rng(0)
    sparse = np.where(rng.random((200, 500)) < 0.01, rng.random((200, 500)), 0.0)
    far = np.where(sparse > 0, 1000 + sparse, 0.0)
    for rows in (X, X + 1e6, np.vstack([X, 5 * X[:2]]), sparse, far, rng.poisson(3, (200, 20))):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="The values of X span")
            model.fit(rows)


def of_people(n=300):
    """Two perfect clusters in age and bmi, and an income that knows nothing of them."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    return np.column_stack([rng.normal(40 + 30 * y, 2), rng.normal(20 + 10 * y, 1), rng.normal(50_000, 15_000, n)]), y


def test_a_column_that_hides_the_others_is_named(tmp_path):
    X, y = of_people()
    model = small("AEKMeans", 2, encoder=None)
    with pytest.warns(UserWarning, match=r"Column 2 of X has \d+ times .* median column.*standardize=True") as seen:
        model.fit(X)
    assert len(seen) == 1
    assert seen[0].filename == __file__  # the line that calls fit, not one of ours
    frame = pandas_frame(X, tmp_path).set_axis(["age", "bmi", "income"], axis=1)
    with pytest.warns(UserWarning, match="Column 'income' of X"):
        model.fit(frame)
    for rows in (torch.tensor(X), Rows(torch.tensor(X), y), sp.csr_array(X), X[:, 1:]):
        with pytest.warns(UserWarning, match=r"Column \d of X"):
            model.fit(rows)
    wide = np.hstack([X, np.random.default_rng(1).normal(size=(300, 200))])  # the incomes are 0.5 % of all values
    with pytest.warns(UserWarning, match="Column 2 of X"):
        model.fit(wide)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.partial_fit(wide)  # said once, by fit
        model.fit(StandardScaler().fit_transform(X))
    assert adjusted_rand_score(y, model.labels_) == 1


@pytest.mark.parametrize("kind", ["pixels", "one-hot", "tf-idf", "counts", "tiny noise", "blobs", "images", "constant"])
def test_columns_of_one_scale_are_not(kind):
    rng = np.random.default_rng(0)
    counts = rng.poisson(100 / np.arange(1, 1001) ** 1.1 * rng.gamma(2, 0.5, (400, 1)))
    blobs = rng.normal(size=(400, 10)) + 5 * rng.integers(3, size=(400, 1))
    rows = {
        "pixels": lambda: load_digits().data,
        "one-hot": lambda: np.eye(200)[rng.pareto(1, 2000).astype(int) % 200],
        "tf-idf": lambda: TfidfTransformer().fit_transform(counts),
        "counts": lambda: np.log1p(counts),
        "tiny noise": lambda: np.hstack([blobs, 1e-6 * rng.normal(size=(400, 3))]),
        "blobs": lambda: blobs,
        "images": lambda: np.stack([blobs, 1000 * blobs], axis=1),
        "constant": lambda: np.hstack([blobs[:, :1], np.full((400, 3), 7.0)]),
    }[kind]()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Column")
        small("AEKMeans", encoder=None).fit(rows)


@pytest.mark.parametrize("params", [{"encoder": "conv"}, {"augment": "images"}, {"augment": "digits"}])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_with_their_channels_last_are_refused(params, channels):
    X = np.random.default_rng(0).random((12, 9, 7, channels), dtype=np.float32)
    model = small("TELL", 2, pretrain_epochs=1, max_epochs=1, batch_size=6)
    for rows in (X, torch.tensor(X), Rows(torch.tensor(X), X)):
        with pytest.raises(ValueError, match=rf"\(9, 7, {channels}\) .* channels last.*X.transpose\(0, 3, 1, 2\)"):
            clone(model).set_params(**params).fit(rows)
    fit = clone(model).set_params(**params).fit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit(X.transpose(0, 3, 1, 2))
        model.fit(X)  # flattened: the order of the pixels says nothing
        if "encoder" in params:
            fit(X[:, :, :4, :1].repeat(4, axis=3))  # maps of features, 4 x 4


LISTS = {
    "arrays": list,
    "tuple": tuple,
    "numbers": lambda X: X.tolist(),
    "tensors": lambda X: [torch.tensor(x) for x in X],
    "one channel": lambda X: list(X[:, None]),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_images(images, kind):
    X, _ = images
    model = small("AEKMeans", 2, pretrain_epochs=1).fit(LISTS[kind](X))
    assert model.module_.shape == (1, 9, 7)
    assert np.array_equal(model.labels_, small("AEKMeans", 2, pretrain_epochs=1).fit(X).labels_)
    assert np.array_equal(model.predict(LISTS[kind](X)), model.labels_)


def test_lists_of_images_of_different_sizes(images):
    X, _ = images
    for rows in ([*X, X[0, 1:]], [torch.tensor(X[0]), torch.tensor(X[0, 1:])]):
        with pytest.raises(ValueError, match=r"different shapes, such as \(8, 7\) and \(9, 7\). Resize"):
            small("AEKMeans").fit(rows)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_columns_that_are_not_numbers_are_named(kind):
    library = pytest.importorskip(kind)
    columns = {"age": [1.0, 2.0, 3.0] * 3, "city": ["a", "b", "c"] * 3, "note": [None, "x", "y"] * 3}
    model = small("AEKMeans", encoder=None)
    with pytest.raises(
        ValueError, match=r"Columns \['city', 'note'\] of X could not .*OneHotEncoder.*ColumnTransformer"
    ):
        model.fit(library.DataFrame(columns))
    when = np.arange("2020-01-01", "2020-01-10", dtype="datetime64[D]").astype("datetime64[ms]")
    for times in ({"when": when}, {"age": columns["age"], "when": when}):
        with pytest.raises(ValueError, match=r"dates or times in column 'when'.*Drop them, or make numbers"):
            model.fit(library.DataFrame(times))
    with pytest.raises(ValueError, match="dates or times"):
        model.fit(when[:, None])
    with pytest.raises(ValueError, match=r"Input X contains NaN. The first is in row 1, column 'b'.*SimpleImputer"):
        model.fit(library.DataFrame({"a": [1.0, 2.0, 3.0, None], "b": [1.0, None, 3.0, 4.0]}))


def test_categories_of_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": np.arange(9.0), "kind": pd.Categorical([1, 2, 3] * 3)})
    assert small("AEKMeans", encoder=None).fit(frame).n_features_in_ == 2
    with pytest.raises(ValueError, match=r"Columns \['kind'\]"):
        small("AEKMeans", encoder=None).fit(frame.assign(kind=pd.Categorical(["u", "v", "w"] * 3)))


def test_where_the_first_gap_is(images):
    X = with_value(np.nan)(np.zeros((5000, 4)))
    model = small("AEKMeans", encoder=None)
    for rows in (X, sp.csr_array(X), X[::-1].copy()):
        row = 3 if np.isnan(rows[3, 2]) else 4996
        with pytest.raises(ValueError, match=rf"contains NaN. The first is in row {row}, column 2") as caught:
            model.fit(rows)
        assert "HistGradient" not in str(caught.value)
    with pytest.raises(ValueError, match=r"contains infinity .*row 3, column 2.*clip"):
        model.fit(with_value(np.inf)(np.zeros((9, 4))))
    gap = images[0].astype("float32")
    gap[7, 2, 2] = np.nan
    with pytest.raises(ValueError, match=r"The first is in X\[7\]"):
        model.fit(gap)


def test_one_row_or_image_alone(images):
    X, _ = images
    color = np.random.default_rng(0).random((9, 3, 5, 6), dtype=np.float32)
    flat, square, colored = (small("AEKMeans", 2, encoder=None).fit(x) for x in (X.reshape(60, -1), X, color))
    for model, row, remedy in [
        (square, X[0], r"X has 7 features, .* expecting 63 .* One image\? .* pass X\[None\]"),
        (square, torch.tensor(X[0]), r"pass X\[None\]"),
        (square, X[0].ravel(), r"One row\? .* pass X.reshape\(1, 1, 9, 7\)"),
        (flat, X[0], r"One image\? .* pass X.reshape\(1, -1\)"),
        (flat, X[0].ravel(), r"Reshape your data: pass X.reshape\(1, -1\)"),
        (flat, X[0].ravel().tolist(), r"pass X.reshape\(1, -1\)"),
        (flat, torch.tensor(X[0].ravel()), r"pass X.reshape\(1, -1\)"),
        (colored, color[0], r"pass X\[None\]"),
    ]:
        with pytest.raises(ValueError, match=remedy):
            model.predict(row)
    assert square.predict(X[0][None]).shape == flat.predict(X[0].reshape(1, -1)).shape == (1,)


def test_paths_are_not_rows():
    for path, reader in (("a.csv", "pandas.read_csv"), ("a.TSV", "pandas.read_csv"), ("a.npy", "open_rows")):
        with pytest.raises(TypeError, match=reader):
            small("AEKMeans").fit(path)


def test_a_batch_sampler_of_some_rows_is_refused(easy):
    rows = TensorDataset(torch.tensor(easy[0]))
    some = DataLoader(rows, batch_sampler=BatchSampler(SubsetRandomSampler(range(30)), 10, False))
    with pytest.raises(ValueError, match="draws rows by a SubsetRandomSampler"):
        small("AEKMeans").fit(some)
    all_of_them = DataLoader(rows, batch_sampler=BatchSampler(SequentialSampler(rows), 10, False))
    assert len(small("AEKMeans").fit(all_of_them).labels_) == 240
