"""Neural clustering: scikit-learn estimators on PyTorch, and the parts they are made of.

Names load when they are first used, so that ``import neuralclust`` and ``neuralclust --help`` cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("neuralclust")

if TYPE_CHECKING:
    from neuralclust import augment, callbacks, datasets, functional, metrics, nn, plots, registry, scoring, subspace
    from neuralclust.checkpoint import Checkpoint
    from neuralclust.classical.fuzzy import FuzzyCMeans
    from neuralclust.classical.landmarks import LandmarkSpectralClustering
    from neuralclust.classical.linkage import WeightedLinkage
    from neuralclust.classical.nmf import LocalityPreservingNMF
    from neuralclust.classical.sec import SpectralEmbeddedClustering
    from neuralclust.classical.zeta import ZetaClustering
    from neuralclust.io import load
    from neuralclust.methods.aekmeans import AEKMeans
    from neuralclust.methods.dcsai import DCSAI
    from neuralclust.methods.kmeansnet import KMeansNet
    from neuralclust.methods.ncsc import NCSC
    from neuralclust.methods.sscnet import SSCNet
    from neuralclust.methods.tell import TELL
    from neuralclust.outofcore import open_rows
    from neuralclust.subspace import SubspaceClustering

_MODULES = (
    "augment",
    "callbacks",
    "datasets",
    "functional",
    "metrics",
    "nn",
    "plots",
    "registry",
    "scoring",
    "subspace",
)
_OBJECTS = {
    "AEKMeans": "neuralclust.methods.aekmeans",
    "Checkpoint": "neuralclust.checkpoint",
    "DCSAI": "neuralclust.methods.dcsai",
    "FuzzyCMeans": "neuralclust.classical.fuzzy",
    "KMeansNet": "neuralclust.methods.kmeansnet",
    "LandmarkSpectralClustering": "neuralclust.classical.landmarks",
    "LocalityPreservingNMF": "neuralclust.classical.nmf",
    "NCSC": "neuralclust.methods.ncsc",
    "SSCNet": "neuralclust.methods.sscnet",
    "TELL": "neuralclust.methods.tell",
    "WeightedLinkage": "neuralclust.classical.linkage",
    "ZetaClustering": "neuralclust.classical.zeta",
    "SpectralEmbeddedClustering": "neuralclust.classical.sec",
    "SubspaceClustering": "neuralclust.subspace",
    "load": "neuralclust.io",
    "open_rows": "neuralclust.outofcore",
}

__all__ = [
    "DCSAI",
    "NCSC",
    "TELL",
    "AEKMeans",
    "Checkpoint",
    "FuzzyCMeans",
    "KMeansNet",
    "LandmarkSpectralClustering",
    "LocalityPreservingNMF",
    "SSCNet",
    "SpectralEmbeddedClustering",
    "SubspaceClustering",
    "WeightedLinkage",
    "ZetaClustering",
    "augment",
    "callbacks",
    "datasets",
    "functional",
    "load",
    "metrics",
    "nn",
    "open_rows",
    "plots",
    "registry",
    "scoring",
    "subspace",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"neuralclust.{name}")
    if name in _OBJECTS:
        return getattr(import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module 'neuralclust' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
