"""DCSAI: an encoder and centres for which different distances give a sample the same assignment.

Each code has two soft assignments to the centres: P1 by the Euclidean distance and P2 by another one. The published
loss is ``KL(P2 || P1)``; in the default, P1 learns from a sharpened and balanced P2 and P2 from such a P1.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from neuralclust.augment import Augmentation
from neuralclust.base import AUGMENT, INIT, NeuralClusterer
from neuralclust.data import Source
from neuralclust.functional import DISTANCES, reconstruction_loss
from neuralclust.nn import Autoencoder, ClusterModule, InvarianceLayer, PoolConvAutoencoder
from neuralclust.nn.autoencoders import mlp_or_features
from neuralclust.schedules import joint_rate, learning_rate
from neuralclust.training import LabelChanges, Terms, Trainer, Update, cosine_rate, make_optimizer, trainable


class DCSAI(NeuralClusterer):
    """Deep clustering with the sample-assignment invariance prior: HOMO, HOE, HOT, HIT.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    metric : {"euclidean", "cosine", "correlation", "cityblock"} or list of them, default="euclidean"
        Distance of P2: the paper's HOMO, HOE, HOT and HIT. Of a list, the losses are summed (Eq. 4).
    encoder : {"mlp", "conv"}, nn.Module or None, default="mlp"
        Fully connected net, the paper's convolutional net (images only), the user's own encoder (a decoder is
        added) or :class:`~neuralclust.nn.Autoencoder` (a copy is trained), or the features as they are.
    embed_dim : int, default=10
        Length of a code. A user's own encoder brings its own.
    hidden_layer_sizes : sequence of int, default=(500, 500, 2000)
        Hidden layers of the fully connected encoder, mirrored in the decoder.
    n_init : int, default=1
        Runs with different seeds; the one with the smallest loss is kept.
    init : {"graph", "spectral", "k-means", "k-means++", "random"} or ndarray, default=None
        First centres: from the codes by spectral clustering of a nearest-neighbour graph, by k-means, by its seeding or
        as random rows, or given. "graph": the clusters of that graph, of at most 10,000 rows, which the encoder learns
        first (k-means beyond 50 clusters, or if of fewer than 1,000 rows a graph of more neighbours has other ones), in
        some 200 steps of joint training (not in ``history_``, and taken with ``max_epochs=0``, too). None: "graph", or
        "spectral" with ``augment`` or where no encoder learns (repaired); "k-means" (paper).
    max_epochs : int, default=None
        Epochs of joint training at most. None: 30 (repaired), 4500 (paper).
    pretrain_epochs : int, default=None
        Epochs of the autoencoder before. None: enough for 4,000 steps, 40 to 150 (repaired), 100 (paper).
    batch_size : int, default=None
        Rows in a step. None: 256, fewer for less than about 4,000 rows (repaired), 256 (paper).
    lr : float, default=None
        Learning rate of joint training. None: a third of the optimiser's usual one, less for batches below 86
        (repaired); 1e-5 (paper, whose own are illegible but for 1.0 on Reuters). Pretraining has the usual one of Adam,
        1e-3, and rises to three times as much before it falls to 0 (repaired).
    optimizer : {"adam", "adadelta", "adagrad", "rmsprop", "sgd"}, default=None
        Optimiser of joint training. None: "adam" (repaired), "sgd" (paper). Pretraining has Adam.
    lr_decay : float, default=None
        Factor of the learning rate every ``decay_epochs`` epochs. None: 0.9 (paper); a cosine to zero (repaired).
    decay_epochs : int, default=300
        See ``lr_decay``.
    momentum : float, default=0.9
        Of the optimiser "sgd".
    weight_decay : float, default=1e-9
        Of the optimisers.
    tol : float, default=3e-4
        Joint training ends when at most this share of the rows has changed cluster since the epoch before; 0
        never. Pretraining ends when ten epochs together improve the loss by at most 0.1 % (paper).
    variant : {"repaired", "paper"}, default="repaired"
        The form that works, or the published one. See Notes.
    augment : {"digits", "images", "table"}, callable or None, default=None
        What should not change a row's cluster; targets come from the rows as they are. "digits" shifts, turns, scales
        and shears images, "images" crops, mirrors and recolours them, "table" swaps features between rows; a callable
        takes a batch of scaled rows and gives one of the same shape, and is not saved with the model. See
        :mod:`neuralclust.augment`.
    noise : float, default=None
        Share of the inputs set to zero while pretraining. None: 0 (repaired), 0.3 (paper).
    clustering_weight, reconstruction_weight : float, default=None
        Weights of the disagreement of a row and of the mean squared error of a pixel. None: 0.02 and 1 (repaired;
        less than 0.02 where the scaled columns have a mean variance below 0.02, as those of texts and embeddings, in
        proportion to it), 1 and 0 (paper, which drops the decoder).
    predict_from : {"P1", "P2"}, default="P1"
        The assignment that gives labels and probabilities; of several metrics, P2 is that of the first.
    eps : float, default=1e-7
        Added within the logarithms of the loss, which is infinite with 0: P1 has exact zeros.
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
        A row an epoch: ``init``, ``stage``, ``epoch``, ``loss``, ``rec`` and, in joint training, ``clu``, the
        disagreement, and ``changed``, the share of rows in another cluster than in the epoch before; no ``rec`` where
        it has no weight.
    loss_ : float
        Loss of the training rows under the final model.
    n_iter_ : int
        Epochs of the last stage.
    n_features_in_ : int
        Features of a row.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if ``X`` was a data frame.
    module_ : neuralclust.nn.ClusterModule
        The network.

    Notes
    -----
    ``variant="paper"`` minimises Eq. 5 as printed, with gradients through both sides and ``eps`` where the printed loss
    is infinite (P1 has exact zeros); the cosine and the correlation of Eq. 9 and 10, which are similarities and would
    rank the clusters backwards, are taken as 1 minus them, and the learning rate is *multiplied* by 0.9. It stays near
    its k-means start only because its steps are tiny. ``variant="repaired"`` has unit-length codes and the loss that
    :class:`~neuralclust.nn.InvarianceLayer` explains: both assignments learn from each other's target, whose sharpness
    is set from the codes at the start.

    The paper's denoising is off: on digits ``noise=0.3`` ends at 91.3 instead of 93.6 (means of five seeds), on USPS it
    makes no difference, and it does not go together with ``augment``: 88 instead of 95 on the first seed of digits.

    P1 of Eq. 7 is one-hot for two clusters and has no gradient then; P2 alone moves the network.

    References
    ----------
    X. Peng, H. Zhu, J. Feng, C. Shen, H. Zhang, J. T. Zhou: "Deep Clustering With Sample-Assignment Invariance Prior",
    IEEE Transactions on Neural Networks and Learning Systems, 2020. Eq. 3-12, Algorithm 1, Table II.

    Examples
    --------
    >>> from neuralclust import DCSAI
    >>> from neuralclust.datasets import make_sphere_clusters
    >>> X, y = make_sphere_clusters(200, 3, 16, noise=0.1, random_state=0)
    >>> model = DCSAI(3, metric="cosine", hidden_layer_sizes=(32,), max_epochs=5, pretrain_epochs=5, random_state=0)
    >>> model.fit_predict(X).shape
    (200,)
    """

    _head_learns_views: ClassVar[bool] = True

    _recipes: ClassVar[dict[str, dict[str, Any]]] = {
        "repaired": {
            "max_epochs": 30, "batch_size": None, "optimizer": "adam", "clustering_weight": 0.02,
            "reconstruction_weight": 1.0, "normalize": True, "pretrain_tol": 0.0, "noise": 0.0, "one_cycle": True,
        },
        "paper": {
            "max_epochs": 4500, "batch_size": 256, "optimizer": "sgd", "lr": 1e-5, "lr_decay": 0.9,
            "clustering_weight": 1.0, "reconstruction_weight": 0.0, "normalize": False, "pretrain_tol": 1e-3,
            "init": "k-means", "noise": 0.3, "pretrain_epochs": 100,
        },
    }  # fmt: skip

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NeuralClusterer._parameter_constraints,
        "init": INIT,
        "metric": [StrOptions(set(DISTANCES)), list, tuple],
        "lr_decay": [Interval(Real, 0, 1, closed="right"), None],
        "decay_epochs": [Interval(Integral, 1, None, closed="left")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "tol": [Interval(Real, 0, 1, closed="left")],
        "augment": AUGMENT,
        "noise": [Interval(Real, 0, 1, closed="left"), None],
        "clustering_weight": [Interval(Real, 0, None, closed="left"), None],
        "reconstruction_weight": [Interval(Real, 0, None, closed="left"), None],
        "predict_from": [StrOptions({"P1", "P2"})],
        "eps": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        metric: str | Sequence[str] = "euclidean",
        encoder: str | nn.Module | None = "mlp",
        embed_dim: int = 10,
        hidden_layer_sizes: Any = (500, 500, 2000),
        n_init: int = 1,
        init: str | np.ndarray | None = None,
        max_epochs: int | None = None,
        pretrain_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        optimizer: str | None = None,
        lr_decay: float | None = None,
        decay_epochs: int = 300,
        momentum: float = 0.9,
        weight_decay: float = 1e-9,
        tol: float = 3e-4,
        variant: str = "repaired",
        augment: str | Augmentation | None = None,
        noise: float | None = None,
        clustering_weight: float | None = None,
        reconstruction_weight: float | None = None,
        predict_from: str = "P1",
        eps: float = 1e-7,
        standardize: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        random_state: Any = None,
    ):
        self.n_clusters = n_clusters
        self.metric = metric
        self.encoder = encoder
        self.embed_dim = embed_dim
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_init = n_init
        self.init = init
        self.max_epochs = max_epochs
        self.pretrain_epochs = pretrain_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.lr_decay = lr_decay
        self.decay_epochs = decay_epochs
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.tol = tol
        self.variant = variant
        self.augment = augment
        self.noise = noise
        self.clustering_weight = clustering_weight
        self.reconstruction_weight = reconstruction_weight
        self.predict_from = predict_from
        self.eps = eps
        self.standardize = standardize
        self.device = device
        self.precision = precision
        self.random_state = random_state

    # -- network ----------------------------------------------------------------------------------------------

    def _recipe(self, n_samples: int) -> SimpleNamespace:
        recipe = super()._recipe(n_samples)
        recipe.normalize = recipe.normalize and self.encoder is not None
        return recipe

    def _autoencoder(self, shape: tuple[int, ...], recipe: SimpleNamespace) -> Autoencoder:
        if self.encoder == "conv":
            activation = "sigmoid" if self.variant == "paper" else "linear"
            return PoolConvAutoencoder(shape, self.embed_dim, code_activation=activation)
        return mlp_or_features(self.encoder, shape, self.embed_dim, hidden_layer_sizes=self.hidden_layer_sizes)

    def _head(self, embed_dim: int, recipe: SimpleNamespace) -> InvarianceLayer:
        return InvarianceLayer(
            embed_dim,
            self.n_clusters,
            metrics=self._metrics(),
            printed=self.variant == "paper",
            predict_from=self.predict_from,
            eps=self.eps,
        )

    def _metrics(self) -> list[str]:
        metrics = [self.metric] if isinstance(self.metric, str) else list(self.metric)
        known = all(isinstance(m, str) and m in DISTANCES for m in metrics)
        if not metrics or not known or len(set(metrics)) < len(metrics):
            raise ValueError(
                f"metric={self.metric!r} must be one or more of {', '.join(DISTANCES)}, each at most once."
            )
        return metrics

    def _place_centers(
        self, module: ClusterModule, source: Source, recipe: SimpleNamespace, trainer: Trainer, seed: int
    ) -> np.ndarray | None:
        z = super()._place_centers(module, source, recipe, trainer, seed)
        module.head.calibrate_(torch.as_tensor(z).to(trainer.device))
        return z

    @torch.no_grad()
    def _summarize(self, module: ClusterModule, source: Source, recipe: SimpleNamespace, device: torch.device) -> None:
        """The frequencies of all rows."""
        total = torch.zeros_like(module.head.frequency, dtype=torch.float64)
        for z in self._all_codes(module, source, device):
            total += torch.stack([q.sum(dim=0) for q in module.head.closeness(z)])
        module.head.frequency.copy_(total / len(source))

    # -- training ---------------------------------------------------------------------------------------------

    def _terms(self, module: ClusterModule, x: Tensor, z: Tensor, codes: list[Tensor]) -> Terms:
        clu = module.head.loss(*codes)
        loss = self._weight("clustering_weight", module) * clu
        weight = self._value("reconstruction_weight")
        if weight == 0:
            return {"loss": loss, "clu": clu}
        rec = reconstruction_loss(x, module.decode(z))
        return {"loss": weight * rec + loss, "rec": rec, "clu": clu}

    def _loss(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        return self._terms(module, *self._encode_views(module, x))

    def _pretraining(self, weights: list[Tensor], recipe: SimpleNamespace) -> Update:
        if recipe.one_cycle:
            return super()._pretraining(weights, SimpleNamespace(**{**vars(recipe), "optimizer": "adam", "lr": None}))
        return Update(self._reconstruction, make_optimizer("adam", weights, weight_decay=self.weight_decay))

    def _optimizer(self, params: list[Tensor], recipe: SimpleNamespace, lr: float) -> torch.optim.Optimizer:
        return make_optimizer(recipe.optimizer, params, lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def _updates(self, module: ClusterModule, recipe: SimpleNamespace) -> list[Update]:
        changes = LabelChanges(recipe.n_samples, recipe.memory)

        def loss(module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
            x, z, codes = self._encode_views(module, x)
            terms = self._terms(module, x, z, codes)
            return {**terms, "changed": changes(module.head.predict(codes[0].detach()), index)}

        def step_decay(progress: float) -> float:
            return recipe.lr_decay ** int(progress * recipe.max_epochs // self.decay_epochs)

        weights = trainable(module.autoencoder)
        rate = cosine_rate if recipe.lr_decay is None else step_decay
        optimizer = self._optimizer([*weights, module.head.centers], recipe, joint_rate(recipe))
        return [Update(loss, optimizer, rate=rate)]

    def _centers_update(self, module: ClusterModule, recipe: SimpleNamespace) -> Update:
        return Update(self._centers_only, self._optimizer([module.head.centers], recipe, learning_rate(recipe)))
