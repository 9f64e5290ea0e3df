"""Autoencoder, then k-means on its codes: the ablation that every deep clustering paper compares with.

The autoencoder learns from its reconstruction alone, from corrupted input if ``noise`` is set; k-means then runs once
on the codes of all rows.
"""

from __future__ import annotations

from numbers import Real
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn

from neuralclust.augment import Augmentation
from neuralclust.base import AUGMENT, NeuralClusterer
from neuralclust.data import Source
from neuralclust.functional import reconstruction_loss
from neuralclust.nn import Autoencoder, CentroidLayer, ClusterModule, ConvAutoencoder
from neuralclust.nn.autoencoders import mlp_or_features
from neuralclust.training import Terms, Update


class RunningMeans:
    """The update of centres that are means: no gradient, no optimiser."""

    @torch.no_grad()
    def step(self, module: ClusterModule, x: Tensor, index: Tensor) -> None:
        """Let the rows ``x`` join the clusters that win them."""
        module.head.update_(module.encode(x))


class AEKMeans(NeuralClusterer):
    """k-means on the codes of an autoencoder, or on the features as they are (``encoder=None``).

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    encoder : {"mlp", "conv"}, nn.Module or None, default="mlp"
        Fully connected net, TELL's convolutional net (images only), the user's own encoder (a decoder is added)
        or :class:`~neuralclust.nn.Autoencoder` (a copy is trained), or the features as they are.
    embed_dim : int, default=10
        Length of a code. A user's own encoder brings its own.
    hidden_layer_sizes : sequence of int, default=(500, 500, 2000)
        Hidden layers of the fully connected encoder, mirrored in the decoder.
    n_init : int, default=1
        Runs with different seeds; the one with the smallest loss is kept.
    init : {"k-means", "k-means++", "random", "spectral"} or ndarray, default="k-means"
        Centres: by k-means (the best of 10 runs), or only what k-means would start from; the means of a spectral
        clustering of the codes' nearest-neighbour graph; or given.
    pretrain_epochs : int, default=None
        Epochs of the autoencoder. None: enough for 4,000 steps, 40 to 150.
    batch_size : int, default=None
        Rows in a step. None: 256, fewer for less than about 4,000 rows.
    lr : float, default=None
        Learning rate. None: the usual one of the optimiser (Adam 1e-3, Adadelta 1.0). The rate rises to three times as
        much and falls to 0.
    optimizer : {"adam", "adadelta", "adagrad", "rmsprop", "sgd"}, default="adam"
        Optimiser of the autoencoder.
    tol : float, default=0.0
        Training ends when ten epochs together improve the loss by at most this share; 0 never.
    augment : {"digits", "images", "table"}, callable or None, default=None
        What should not change a row's cluster. "digits" shifts, turns, scales
        and shears images, "images" crops, mirrors and recolours them, "table" swaps features between rows; a callable
        takes a batch of scaled rows and gives one of the same shape, and is not saved with the model. See
        :mod:`neuralclust.augment`.
    noise : float, default=0.0
        Share of the inputs set to zero while training: above 0, a denoising autoencoder.
    normalize : bool, default=True
        Unit-length codes, as TELL and k-meansNet have them. Never applied to ``encoder=None``.
    standardize : bool, default=False
        For tables: scale each column by its own standard deviation, where their units differ. False: all by one range.
    device : str or torch.device, default="auto"
        Where to compute; "auto" takes a GPU if there is one.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of the autoencoder while training. Codes, centres and inference are float32.
    random_state : int, RandomState or None, default=None
        Seed. The global random states are never touched.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of every training row, as ``predict`` gives it.
    cluster_centers_ : ndarray of shape (n_clusters, embed_dim)
        Centres in the space of the codes.
    history_ : list of dict
        A row an epoch: ``init``, ``stage``, ``epoch``, ``loss``, ``rec``.
    loss_ : float
        Mean squared error of a pixel plus mean squared distance of a code to its centre, over the training rows.
    n_iter_ : int
        Epochs of the autoencoder.
    n_features_in_ : int
        Features of a row.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if ``X`` was a data frame.
    module_ : neuralclust.nn.ClusterModule
        The network.

    Notes
    -----
    k-means sees the codes of all rows up to 32 MB of them, and of a random part of the rows beyond that.
    ``partial_fit`` continues the centres as running means, weighted by the rows that each has won so far.

    References
    ----------
    "AE + k-means" and "DAE + k-means" in the tables of the k-meansNet, TELL, DCSAI, SSCNet and NCSC papers.

    Examples
    --------
    >>> from neuralclust import AEKMeans
    >>> from neuralclust.datasets import make_sphere_clusters
    >>> X, y = make_sphere_clusters(200, 3, 16, noise=0.1, random_state=0)
    >>> AEKMeans(3, encoder=None, random_state=0).fit(X).cluster_centers_.shape
    (3, 16)
    """

    _recipes: ClassVar[dict[str, dict[str, Any]]] = {
        "repaired": {"max_epochs": 0, "batch_size": None, "one_cycle": True}
    }

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{
            name: constraint
            for name, constraint in NeuralClusterer._parameter_constraints.items()
            if name not in ("max_epochs", "variant")
        },
        "augment": AUGMENT,
        "noise": [Interval(Real, 0, 1, closed="left")],
        "normalize": ["boolean"],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        encoder: str | nn.Module | None = "mlp",
        embed_dim: int = 10,
        hidden_layer_sizes: Any = (500, 500, 2000),
        n_init: int = 1,
        init: str | np.ndarray = "k-means",
        pretrain_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        optimizer: str = "adam",
        tol: float = 0.0,
        augment: str | Augmentation | None = None,
        noise: float = 0.0,
        normalize: bool = True,
        standardize: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        random_state: Any = None,
    ):
        self.n_clusters = n_clusters
        self.encoder = encoder
        self.embed_dim = embed_dim
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_init = n_init
        self.init = init
        self.pretrain_epochs = pretrain_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.tol = tol
        self.augment = augment
        self.noise = noise
        self.normalize = normalize
        self.standardize = standardize
        self.device = device
        self.precision = precision
        self.random_state = random_state

    def _recipe(self, n_samples: int) -> SimpleNamespace:
        recipe = super()._recipe(n_samples)
        recipe.normalize = self.normalize and self.encoder is not None
        return recipe

    def _autoencoder(self, shape: tuple[int, ...], recipe: SimpleNamespace) -> Autoencoder:
        if self.encoder == "conv":
            return ConvAutoencoder(shape, self.embed_dim)
        return mlp_or_features(self.encoder, shape, self.embed_dim, hidden_layer_sizes=self.hidden_layer_sizes)

    def _head(self, embed_dim: int, recipe: SimpleNamespace) -> CentroidLayer:
        return CentroidLayer(embed_dim, self.n_clusters)

    def _loss(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        z = module.encode(x)
        rec = reconstruction_loss(x, module.decode(z))
        clu = module.head.loss(z)
        return {"loss": rec + clu, "rec": rec, "clu": clu}

    def _updates(self, module: ClusterModule, recipe: SimpleNamespace) -> list[Update]:
        return []

    def _summarize(self, module: ClusterModule, source: Source, recipe: SimpleNamespace, device: torch.device) -> None:
        module.head.counts.zero_()
        for z in self._all_codes(module, source, device):
            module.head.count_(z)

    def _centers_update(self, module: ClusterModule, recipe: SimpleNamespace) -> RunningMeans:
        return RunningMeans()

    def _encoder_loss(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        return self._reconstruction(module, x, index)
