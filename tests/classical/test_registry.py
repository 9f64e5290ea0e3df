"""Every method without a network, by its name."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from neuralclust import registry
from tests.subspace.conftest import union_of_subspaces


@pytest.mark.parametrize("name", [*registry.CLASSICAL, *registry.BASELINES])
def test_by_name(name, easy):
    X, y = union_of_subspaces(n=90, noise=0.01) if registry.ALL[name].family == "subspace" else easy
    if name.startswith("NMF"):
        X = np.abs(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = registry.make(name.lower().replace("-", "_"), 3).fit_predict(X)
    assert adjusted_rand_score(y, labels) > 0.9
