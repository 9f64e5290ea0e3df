"""Small data and small networks: what is tested here is behaviour; accuracy and speed live in benchmarks/."""

import numpy as np
import pytest
import torch

from neuralclust import registry
from neuralclust.datasets import make_sphere_clusters

torch.set_num_threads(1)  # the suite runs in two processes

METHODS = list(registry.METHODS)


def small(name: str, n_clusters: int = 3, **params):
    """A method by name with settings that fit in a fraction of a second."""
    settings = {"hidden_layer_sizes": (32,), "pretrain_epochs": 10, "max_epochs": 10, "tol": 0.0, "random_state": 0}
    settings |= params
    known = registry.resolve(name)().get_params()
    return registry.make(name, n_clusters, **{k: v for k, v in settings.items() if k in known})


@pytest.fixture(scope="session")
def easy():
    """Three tight clusters around random directions: (240, 16) float32 and their labels."""
    X, y = make_sphere_clusters(240, 3, 16, noise=0.05, random_state=0)
    X.flags.writeable = False
    return X, y


@pytest.fixture(params=METHODS)
def method(request) -> str:
    return request.param


@pytest.fixture
def images():
    """Two kinds of 9 x 7 images, a bright upper and a bright lower half: (60, 9, 7) uint8 and their labels."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = rng.integers(0, 60, (60, 9, 7))
    X[y == 0, :4] += 150
    X[y == 1, 5:] += 150
    return X.astype("uint8"), y
