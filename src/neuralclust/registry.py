"""The methods by name: what the command line lists, the tests run over, and saved models may name.

Entries are strings, so that reading the list imports neither torch nor scikit-learn.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes
    ----------
    path : str
        ``"module:attribute"`` of its class, or of a function that makes it.
    paper : str
        Where it is described.
    year : int
        When.
    family : str
        ``"neural"``, or ``"baseline"`` for scikit-learn's.
    """

    path: str
    paper: str
    year: int
    family: str = "neural"


METHODS = {
    "TELL": Method("neuralclust.methods.tell:TELL", "XAI Beyond Classification: Interpretable Neural Clustering", 2022),
    "KMeansNet": Method(
        "neuralclust.methods.kmeansnet:KMeansNet",
        "k-meansNet: When k-means Meets Differentiable Programming",
        2018,
    ),
    "DCSAI": Method("neuralclust.methods.dcsai:DCSAI", "Deep Clustering With Sample-Assignment Invariance Prior", 2020),
    "NCSC": Method("neuralclust.methods.ncsc:NCSC", "Neural Collaborative Subspace Clustering", 2019),
    "SSCNet": Method("neuralclust.methods.sscnet:SSCNet", "SSCNet: learning-based subspace clustering", 2024),
    "AEKMeans": Method(
        "neuralclust.methods.aekmeans:AEKMeans", "autoencoder, then k-means: every paper's ablation", 2006
    ),
}

BASELINES = {
    "KMeans": Method("sklearn.cluster:KMeans", "Lloyd: Least squares quantization in PCM", 1982, "baseline"),
    "MiniBatchKMeans": Method(
        "sklearn.cluster:MiniBatchKMeans", "Sculley: Web-scale k-means clustering", 2010, "baseline"
    ),
    "GaussianMixture": Method(
        "neuralclust.registry:gaussian_mixture",
        "Dempster, Laird, Rubin: Maximum likelihood via EM",
        1977,
        "baseline",
    ),
}


def names() -> list[str]:
    """Names of all methods, the library's own first.

    Examples
    --------
    >>> from neuralclust import registry
    >>> "TELL" in registry.names()
    True
    """
    return [*METHODS, *BASELINES]


def find(name: str) -> str:
    """The registered spelling of a name given in any case, with or without ``-`` and ``_``.

    Examples
    --------
    >>> from neuralclust import registry
    >>> registry.find("k-means")
    'KMeans'
    """

    def bare(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "")

    spellings = {bare(known): known for known in names()}
    if bare(name) in spellings:
        return spellings[bare(name)]
    close = difflib.get_close_matches(bare(name), spellings, 1)
    hint = f" Did you mean {spellings[close[0]]}?" if close else ""
    raise ValueError(f"method={name!r} is not one of {', '.join(names())}.{hint}")


def resolve(name: str) -> Callable[..., Any]:
    """The class of a method, or the function that makes it."""
    name = find(name)
    module, attribute = {**METHODS, **BASELINES}[name].path.split(":")
    return getattr(import_module(module), attribute)


def make(name: str, n_clusters: int, **params: Any) -> Any:
    """An unfitted estimator by name.

    Examples
    --------
    >>> from neuralclust import registry
    >>> registry.make("kmeans", 3, random_state=0)
    KMeans(n_clusters=3, random_state=0)
    """
    return resolve(name)(n_clusters, **params)


def gaussian_mixture(n_clusters: int, **params: Any) -> Any:
    """scikit-learn's GaussianMixture, which calls clusters components."""
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(n_clusters, **params)
