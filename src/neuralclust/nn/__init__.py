"""Neural parts of the methods as plain ``torch.nn`` modules."""

from neuralclust.nn.autoencoders import (
    Autoencoder,
    ConvAutoencoder,
    Features,
    MLPAutoencoder,
    PoolConvAutoencoder,
)
from neuralclust.nn.collaborative import ClassifierLayer, StrideConvAutoencoder, WideAutoencoder
from neuralclust.nn.eigen import EigenvectorLayer
from neuralclust.nn.heads import CentroidLayer, KMeansNetLayer, TELLLayer
from neuralclust.nn.invariance import InvarianceLayer
from neuralclust.nn.module import ClusterModule
from neuralclust.nn.selfexpression import SelfExpression
from neuralclust.nn.spectral import SpectralLayer
from neuralclust.nn.targets import BalancedTarget
from neuralclust.nn.unrolled import DLADMM, DLADMMBlock

__all__ = [
    "DLADMM",
    "Autoencoder",
    "BalancedTarget",
    "CentroidLayer",
    "ClassifierLayer",
    "ClusterModule",
    "ConvAutoencoder",
    "DLADMMBlock",
    "EigenvectorLayer",
    "Features",
    "InvarianceLayer",
    "KMeansNetLayer",
    "MLPAutoencoder",
    "PoolConvAutoencoder",
    "SelfExpression",
    "SpectralLayer",
    "StrideConvAutoencoder",
    "TELLLayer",
    "WideAutoencoder",
]
