"""The methods by name: what the command line lists, the tests run over, and saved neural models may name.

Entries are strings, so that reading the list imports neither torch nor scikit-learn.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
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
        ``"neural"``, ``"subspace"``, ``"classical"``, or ``"baseline"`` for scikit-learn's.
    params : dict
        Parameters that make it what its name says.
    """

    path: str
    paper: str
    year: int
    family: str = "neural"
    params: dict[str, Any] = field(default_factory=dict)


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


def _subspace(method: str, paper: str, year: int) -> Method:
    return Method("neuralclust.subspace:SubspaceClustering", paper, year, "subspace", {"method": method})


CLASSICAL = {
    "SSC": _subspace("ssc", "Sparse Subspace Clustering: Algorithm, Theory, and Applications", 2013),
    "SSC-OMP": _subspace("ssc_omp", "Scalable Sparse Subspace Clustering by Orthogonal Matching Pursuit", 2016),
    "EnSC": _subspace("ensc", "Oracle Based Active Set Algorithm for Scalable Elastic Net Subspace Clustering", 2016),
    "KSSC": _subspace("kssc", "Kernel Sparse Subspace Clustering", 2014),
    "LRR": _subspace("lrr", "Robust Recovery of Subspace Structures by Low-Rank Representation", 2013),
    "SLRR": _subspace(
        "slrr",
        "A Unified Framework for Representation-Based Subspace Clustering of Out-of-Sample and Large-Scale Data",
        2016,
    ),
    "LRSC": _subspace("lrsc", "Low Rank Subspace Clustering", 2014),
    "LSR1": _subspace("lsr1", "Robust and Efficient Subspace Segmentation via Least Squares Regression", 2012),
    "LSR2": _subspace("lsr2", "Robust and Efficient Subspace Segmentation via Least Squares Regression", 2012),
    "SMR": _subspace("smr", "Smooth Representation Clustering", 2014),
    "LSC-K": Method(
        "neuralclust.classical.landmarks:LandmarkSpectralClustering",
        "Large Scale Spectral Clustering with Landmark-Based Representation",
        2011,
        "classical",
        {"landmarks": "k-means"},
    ),
    "LSC-R": Method(
        "neuralclust.classical.landmarks:LandmarkSpectralClustering",
        "Large Scale Spectral Clustering with Landmark-Based Representation",
        2011,
        "classical",
        {"landmarks": "random"},
    ),
    "SEC": Method(
        "neuralclust.classical.sec:SpectralEmbeddedClustering", "Spectral Embedded Clustering", 2011, "classical"
    ),
    "FuzzyCMeans": Method(
        "neuralclust.classical.fuzzy:FuzzyCMeans",
        "Bezdek: Pattern Recognition with Fuzzy Objective Function Algorithms",
        1981,
        "classical",
    ),
    "NMF-LP": Method(
        "neuralclust.classical.nmf:LocalityPreservingNMF",
        "Locality Preserving Nonnegative Matrix Factorization",
        2009,
        "classical",
    ),
    "NMF": Method(
        "neuralclust.classical.nmf:LocalityPreservingNMF",
        "Lee, Seung: Learning the parts of objects by non-negative matrix factorization",
        1999,
        "classical",
        {"lam": 0.0},
    ),
    "ZAC": Method(
        "neuralclust.classical.zeta:ZetaClustering",
        "Cyclizing Clusters via Zeta Function of a Graph",
        2008,
        "classical",
    ),
    "WeightedLinkage": Method(
        "neuralclust.classical.linkage:WeightedLinkage",
        "Sokal, Michener: A statistical method for evaluating systematic relationships",
        1958,
        "classical",
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
    "SpectralClustering": Method(
        "sklearn.cluster:SpectralClustering",
        "Ng, Jordan, Weiss: On spectral clustering",
        2001,
        "baseline",
        {"affinity": "nearest_neighbors", "assign_labels": "cluster_qr"},
    ),
    "AverageLinkage": Method(
        "sklearn.cluster:AgglomerativeClustering",
        "Sokal, Michener: A statistical method for evaluating systematic relationships",
        1958,
        "baseline",
        {"linkage": "average"},
    ),
}


ALL = {**METHODS, **CLASSICAL, **BASELINES}


def names() -> list[str]:
    """Names of all methods, the library's own first.

    Examples
    --------
    >>> from neuralclust import registry
    >>> "TELL" in registry.names()
    True
    """
    return list(ALL)


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
    """The class of a method, or what makes an instance."""
    method = ALL[find(name)]
    module, attribute = method.path.split(":")
    found = getattr(import_module(module), attribute)
    return partial(found, **method.params) if method.params else found


def make(name: str, n_clusters: int, **params: Any) -> Any:
    """An unfitted estimator by name.

    Examples
    --------
    >>> from neuralclust import registry
    >>> registry.make("kmeans", 3, random_state=0)
    KMeans(n_clusters=3, random_state=0)
    """
    return resolve(name)(n_clusters, **params)


def call(name: str, n_clusters: int | str = "k", **params: Any) -> str:
    """How a method is written in Python.

    Examples
    --------
    >>> from neuralclust import registry
    >>> registry.call("ssc-omp", 3)
    "neuralclust.SubspaceClustering(3, method='ssc_omp')"
    """
    method = ALL[find(name)]
    module, attribute = method.path.split(":")
    holder = module if module.startswith("sklearn") or module == __name__ else "neuralclust"
    given = [str(n_clusters), *(f"{key}={value!r}" for key, value in {**method.params, **params}.items())]
    return f"{holder}.{attribute}({', '.join(given)})"


def gaussian_mixture(n_clusters: int, **params: Any) -> Any:
    """scikit-learn's GaussianMixture, which calls clusters components."""
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(n_clusters, **params)
