"""Neural parts of the methods as plain ``torch.nn`` modules."""

from neuralclust.nn.autoencoders import (
    Autoencoder,
    ConvAutoencoder,
    Features,
    MLPAutoencoder,
    PoolConvAutoencoder,
)
from neuralclust.nn.collaborative import ClassifierLayer, StrideConvAutoencoder, WideAutoencoder
from neuralclust.nn.heads import CentroidLayer, KMeansNetLayer, TELLLayer
from neuralclust.nn.invariance import InvarianceLayer
from neuralclust.nn.module import ClusterModule
from neuralclust.nn.selfexpression import SelfExpression

__all__ = [
    "Autoencoder",
    "CentroidLayer",
    "ClassifierLayer",
    "ClusterModule",
    "ConvAutoencoder",
    "Features",
    "InvarianceLayer",
    "KMeansNetLayer",
    "MLPAutoencoder",
    "PoolConvAutoencoder",
    "SelfExpression",
    "StrideConvAutoencoder",
    "TELLLayer",
    "WideAutoencoder",
]
