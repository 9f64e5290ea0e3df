"""Any rows, any parameters: a fitted estimator, or a ValueError or TypeError that says what is wrong.

``NEURALCLUST_CASES=10000 pytest tests/test_properties.py`` tries more of them.
"""

import os
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import neuralclust
from neuralclust import registry

from .conftest import METHODS

CASES = int(os.environ.get("NEURALCLUST_CASES", "120"))
TINY = {"hidden_layer_sizes": (6,), "embed_dim": 3}
DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int16", "int64", "bool"]


@st.composite
def rows(draw):
    """Tables of every kind: scales from 1e-30 to 1e30, far from the origin, constant, with copies or one huge row."""
    n, width = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = rng.normal(size=(n, width))
    kind = draw(st.sampled_from(["plain", "scaled", "offset", "constant", "copies", "outlier", "zeros", "bad"]))
    if kind == "scaled":
        X *= 10.0 ** draw(st.integers(-30, 30))
    elif kind == "offset":
        X += 10.0 ** draw(st.integers(0, 12))
    elif kind == "constant":
        X[:] = X[:1]
    elif kind == "copies":
        X = X[rng.integers(0, max(1, n // 5), n)]
    elif kind == "outlier":
        X[0] = 1e30
    elif kind == "zeros":
        X[rng.random(X.shape) < 0.8] = 0
    elif kind == "bad":
        X[0, 0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X = X.astype(draw(st.sampled_from(DTYPES))) if draw(st.booleans()) else X
    form = draw(st.sampled_from(["array", "fortran", "sparse", "list", "reversed"]))
    if form == "sparse" and np.isfinite(X.astype(float)).all() and X.dtype != np.float16:
        return sp.csr_array(X)
    return {"fortran": np.asfortranarray, "list": lambda X: X.tolist(), "reversed": lambda X: X[::-1]}.get(
        form, lambda X: X
    )(X)


ODD = st.sampled_from([None, 0, -1, 1.5, "nonsense", float("nan"), 1e30, True, (), [3]])
PARAMETERS = {
    "n_clusters": st.integers(0, 7),
    "n_init": st.integers(0, 2),
    "max_epochs": st.integers(-1, 2),
    "pretrain_epochs": st.integers(-1, 2),
    "batch_size": st.integers(0, 50),
    "lr": st.sampled_from([None, 1e-8, 1e-2, 1.0, 1e6, -1.0]),
    "encoder": st.sampled_from(["mlp", None, "conv", "nonsense"]),
    "variant": st.sampled_from(["repaired", "paper", "printed"]),
    "augment": st.sampled_from([None, "digits", "images", "table", "nonsense"]),
    "target": st.sampled_from([None, "balanced", "hard", "soft"]),
    "init": st.sampled_from([None, "graph", "spectral", "k-means", "k-means++", "random", "kaiming", "nonsense"]),
    "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "clustering_weight": st.sampled_from([None, 0.0, 1.0, 1e10, -1.0]),
    "embed_dim": st.integers(0, 5),
}


@st.composite
def estimators(draw):
    """A method with a few parameters of its own, at times one that cannot be."""
    name = draw(st.sampled_from(METHODS))
    known = registry.resolve(name)().get_params()
    params = {**TINY, "max_epochs": 1, "pretrain_epochs": 1, "n_clusters": draw(st.integers(1, 5))}
    for parameter in draw(st.lists(st.sampled_from(sorted(PARAMETERS)), max_size=3, unique=True)):
        params[parameter] = draw(PARAMETERS[parameter])
    if draw(st.integers(0, 9)) == 0:
        params[draw(st.sampled_from(sorted(known)))] = draw(ODD)
    params = {key: value for key, value in params.items() if key in known}
    return registry.resolve(name)(**{"random_state": 0, **params})


@settings(
    max_examples=CASES, deadline=None, derandomize=CASES < 1000, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(estimator=estimators(), X=rows())
def test_a_model_or_a_clear_error(estimator, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            estimator.fit(X)
        except (ValueError, TypeError) as error:
            assert len(str(error)) > 15  # noqa: PT017
            assert not hasattr(estimator, "module_")
            return
        labels = estimator.labels_
        n = X.shape[0] if hasattr(X, "shape") else len(X)
        assert labels.shape == (n,)
        assert ((labels >= 0) & (labels < estimator.n_clusters)).all()
        assert (estimator.predict(X) == labels).all()
        p = estimator.predict_proba(X)
        assert np.allclose(p.sum(axis=1), 1, atol=1e-3) or not np.isfinite(estimator.loss_)
        assert np.isfinite(estimator.transform(X)).all() or not np.isfinite(estimator.loss_)  # which was warned of


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    X = np.random.default_rng(0).normal(size=(30, 4))
    folder = tmp_path_factory.mktemp("model") / "model"
    neuralclust.TELL(3, **TINY, pretrain_epochs=1, max_epochs=1, random_state=0).fit(X).save(folder)
    return folder, X, neuralclust.load(folder).predict_proba(X)


@settings(
    max_examples=CASES, deadline=None, derandomize=CASES < 1000, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(
    seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["config.json", "model.safetensors"]), hits=st.integers(1, 4)
)
def test_a_damaged_model_is_refused_or_the_same(model_folder, seed, name, hits):
    """Bits flipped, bytes cut or put in: never other code, never another answer."""
    folder, X, expected = model_folder
    file = folder / name
    whole = file.read_bytes()
    rng, bad = np.random.default_rng(seed), bytearray(whole)
    for _ in range(hits):
        at = int(rng.integers(len(bad)))
        kind = rng.integers(3)
        if kind == 0:
            bad[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del bad[at : at + int(rng.integers(1, 20))]
        else:
            bad[at:at] = rng.bytes(int(rng.integers(1, 20)))
    file.write_bytes(bad)
    try:
        assert (neuralclust.load(folder).predict_proba(X) == expected).all()
    except (ValueError, TypeError) as error:
        assert len(str(error)) > 15  # noqa: PT017
    finally:
        file.write_bytes(whole)
