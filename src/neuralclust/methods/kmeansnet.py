"""k-meansNet: the k-means objective written as a linear layer with softmax.

``|z - c_j|^2 = 1 - (W_j.z + b_j) / alpha`` for unit-length codes, ``W_j = 2 alpha c_j``, ``b_j = -alpha |c_j|^2``. The
paper trains W and b freely, which has no lower bound; the default ties b to W, which is k-means' own objective.
"""

from __future__ import annotations

from numbers import Real
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from neuralclust._warn import warn
from neuralclust.augment import Augmentation
from neuralclust.base import AUGMENT, INIT, NeuralClusterer
from neuralclust.functional import reconstruction_loss
from neuralclust.nn import Autoencoder, ClusterModule, KMeansNetLayer, PoolConvAutoencoder
from neuralclust.nn.autoencoders import mlp_or_features
from neuralclust.schedules import joint_rate, learning_rate
from neuralclust.training import Terms, Update, cosine_rate, make_optimizer, trainable


class KMeansNet(NeuralClusterer):
    """k-meansNet: an autoencoder with k-means as its last layer.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
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
        First centres: from the codes by spectral clustering (of 10,000 rows at most; k-means beyond 50 clusters), by
        k-means, by its seeding or as random rows, or given. "graph": the clusters of a nearest-neighbour graph of the
        codes, of as many rows, which the encoder learns first, in some 200 steps of joint training (not in
        ``history_``, and taken with ``max_epochs=0``, too); k-means also if of fewer than 1,000 rows a graph of more
        neighbours has other clusters. None: "graph", or "spectral" with ``augment`` or where no encoder learns
        (repaired); "k-means++" (paper).
    max_epochs : int, default=None
        Epochs of joint training. None: enough for 2,000 steps, 20 to 60 (repaired), 3000 (paper).
    pretrain_epochs : int, default=None
        Epochs of the autoencoder alone before. None: enough for 4,000 steps, 40 to 150 (repaired), 100 (paper).
    batch_size : int, default=None
        Rows in a step. None: 256, fewer for less than about 4,000 rows (repaired), 256 (paper).
    lr : float, default=None
        Learning rate. None: the usual one of the optimiser (Adam 1e-3, Adadelta 1.0). Repaired: pretraining
        rises to three times as much and falls to 0; joint training falls to 0 by a cosine, if None from a third of it
        for the network, and from less in batches below 86.
    optimizer : {"adam", "adadelta", "adagrad", "rmsprop", "sgd"}, default=None
        Optimiser of everything. None: "adam" (repaired), "adadelta" (paper).
    tol : float, default=None
        Training ends when ten epochs together improve the loss by at most this share; 0 never. None: 0 (the paper's own
        rule, an absolute change below 1e-3, a diverging loss never meets).
    variant : {"repaired", "paper"}, default="repaired"
        The form that works, or the published one, which diverges. See Notes.
    end_to_end : bool, default=True
        Train the encoder with the clustering loss, or only the cluster layer on the codes of a pretrained one.
    target : {"balanced", "hard"}, default=None
        What the encoder learns from: soft targets that keep clusters apart, which suit clusters of comparable sizes
        (:class:`~neuralclust.nn.BalancedTarget`), or the ``assignment``, as in the paper. None: "balanced" (repaired),
        "hard" (paper).
    augment : {"digits", "images", "table"}, callable or None, default=None
        What should not change a row's cluster; targets come from the rows as they are. "digits" shifts, turns, scales
        and shears images, "images" crops, mirrors and recolours them, "table" swaps features between rows; a callable
        takes a batch of scaled rows and gives one of the same shape, and is not saved with the model. See
        :mod:`neuralclust.augment`.
    assignment : {"hard", "soft"}, default=None
        Indicator in the loss of k-means. None: "hard" (repaired), "soft" (paper).
    coupled : bool, default=None
        Tie ``b`` to ``W`` instead of training it. Soft and coupled needs ``alpha`` of at least about 5. None: True
        (repaired), False (paper).
    clustering_weight : float, default=None
        Weight of the clustering loss of a row beside the mean squared error of a pixel. None: 0.1 with balanced
        targets, 0.02 with hard ones, 1e-3 (paper, which names none); repaired: less where the scaled columns have a
        mean variance below 0.02, as those of texts and embeddings, in proportion to it.
    alpha : float, default=None
        Inverse temperature of the softmax. None: 5 (repaired), 1e-3 (paper). With hard assignment and hard targets it
        only sets how peaked ``predict_proba`` is.
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
        Cluster of every training row, as ``predict`` gives it: the largest output of the cluster layer.
    cluster_centers_ : ndarray of shape (n_clusters, embed_dim)
        ``W / (2 alpha)``.
    history_ : list of dict
        A row an epoch: ``init``, ``stage``, ``epoch``, ``loss``, ``rec`` and, in joint training, ``clu`` (Eq. 7 per
        row: the squared distance to the centre, minus 1; plus, with balanced targets, the cross-entropy).
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
    ``variant="paper"`` trains W and b without constraint ("decoupled"), soft assignment at ``alpha = 1e-3`` and
    Adadelta. Adding a constant to every bias then lowers the loss without changing an assignment, and the longest
    weight of a cluster feeds on itself: the loss falls without end, centres leave the unit ball and clusters die; a
    ``ConvergenceWarning`` says so. The paper's argument for decoupling has the bound inverted: coupled, the loss is a
    squared distance minus 1 and cannot fall below -1. ``variant="repaired"`` couples them and takes the hard indicator,
    since at the paper's ``alpha`` the softmax is uniform to within 0.4 %. With ``coupled=False`` it projects
    after every step onto the set that the paper itself writes down (``|W_j| <= 2 alpha``, Eq. 10) with
    ``-alpha <= b_j <= 0``: bounded, but every bias runs to 0 and small clusters can die on the way. On digits with a
    256-128 encoder and hard targets the accuracy fell from 86.8 to 65.7 (mean of three seeds, k-means start).

    References
    ----------
    X. Peng, J. T. Zhou, H. Zhu: "k-meansNet: When k-means Meets Differentiable Programming", 2018. Eq. 5-10.

    Examples
    --------
    >>> from neuralclust import KMeansNet
    >>> from neuralclust.datasets import make_sphere_clusters
    >>> X, y = make_sphere_clusters(200, 3, 16, noise=0.1, random_state=0)
    >>> model = KMeansNet(3, hidden_layer_sizes=(32,), max_epochs=5, pretrain_epochs=5, random_state=0).fit(X)
    >>> model.predict_proba(X[:2]).shape
    (2, 3)
    """

    _recipes: ClassVar[dict[str, dict[str, Any]]] = {
        "repaired": {
            "batch_size": None, "optimizer": "adam", "tol": 0.0, "assignment": "hard", "coupled": True, "alpha": 5.0,
            "dropout": 0.0, "code_activation": "linear", "normalize": True, "target": "balanced", "one_cycle": True,
        },
        "paper": {
            "init": "k-means++", "max_epochs": 3000, "pretrain_epochs": 100, "batch_size": 256,
            "optimizer": "adadelta", "tol": 0.0, "assignment": "soft", "coupled": False,
            "clustering_weight": 1e-3, "alpha": 1e-3, "dropout": 0.2,
            "code_activation": "sigmoid", "normalize": True, "target": "hard",
        },
    }  # fmt: skip

    _by_target: ClassVar[dict[str, dict[str, Any]]] = {
        "balanced": {"clustering_weight": 0.1},
        "hard": {"clustering_weight": 0.02},
    }

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NeuralClusterer._parameter_constraints,
        "init": INIT,
        "end_to_end": ["boolean"],
        "target": [StrOptions({"balanced", "hard"}), None],
        "augment": AUGMENT,
        "assignment": [StrOptions({"hard", "soft"}), None],
        "coupled": ["boolean", None],
        "clustering_weight": [Interval(Real, 0, None, closed="left"), None],
        "alpha": [Interval(Real, 1e-8, 1e8, closed="both"), None],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
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
        tol: float | None = None,
        variant: str = "repaired",
        end_to_end: bool = True,
        target: str | None = None,
        augment: str | Augmentation | None = None,
        assignment: str | None = None,
        coupled: bool | None = None,
        clustering_weight: float | None = None,
        alpha: float | None = None,
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
        self.max_epochs = max_epochs
        self.pretrain_epochs = pretrain_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.tol = tol
        self.variant = variant
        self.end_to_end = end_to_end
        self.target = target
        self.augment = augment
        self.assignment = assignment
        self.coupled = coupled
        self.clustering_weight = clustering_weight
        self.alpha = alpha
        self.standardize = standardize
        self.device = device
        self.precision = precision
        self.random_state = random_state

    def _autoencoder(self, shape: tuple[int, ...], recipe: SimpleNamespace) -> Autoencoder:
        activation = recipe.code_activation
        if self.encoder == "conv":
            return PoolConvAutoencoder(shape, self.embed_dim, code_activation=activation)
        return mlp_or_features(
            self.encoder,
            shape,
            self.embed_dim,
            hidden_layer_sizes=self.hidden_layer_sizes,
            dropout=recipe.dropout,
            code_activation=activation,
        )

    def _head(self, embed_dim: int, recipe: SimpleNamespace) -> KMeansNetLayer:
        return KMeansNetLayer(
            embed_dim,
            self.n_clusters,
            alpha=recipe.alpha,
            assignment=recipe.assignment,
            coupled=recipe.coupled,
            balanced=recipe.target == "balanced",
        )

    def _loss(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        x, z, codes = self._encode_views(module, x)
        rec = reconstruction_loss(x, module.decode(z))
        clu = module.head.loss(*codes)
        return {"loss": rec + self._weight("clustering_weight", module) * clu, "rec": rec, "clu": clu}

    def _layer_optimizer(self, module: ClusterModule, recipe: SimpleNamespace) -> torch.optim.Optimizer:
        """Of W and b. The repaired variant counts steps in units of the centres, so that ``alpha`` cancels.

        Exactly so for gradient descent, whose step is the gradient times the rate, and for the optimisers whose step
        does not depend on the gradient's scale; Adadelta's does a little, by its absolute eps.
        """
        params = list(module.head.parameters())
        if self.variant == "paper":
            return make_optimizer(recipe.optimizer, params, recipe.lr)
        lr, unit = learning_rate(recipe), 2 * recipe.alpha
        optimizer = make_optimizer(recipe.optimizer, params, lr * (unit**2 if recipe.optimizer == "sgd" else unit))
        optimizer.register_step_post_hook(lambda *_: module.head.project_())
        return optimizer

    def _updates(self, module: ClusterModule, recipe: SimpleNamespace) -> list[Update]:
        if not self._encoder_learns(module):
            return [self._centers_update(module, recipe)]
        layer = self._layer_optimizer(module, recipe)
        network = self._optimizer(trainable(module.autoencoder), recipe, joint_rate(recipe))
        return [Update(self._loss, network, layer, rate=cosine_rate if recipe.one_cycle else None)]

    def _centers_update(self, module: ClusterModule, recipe: SimpleNamespace) -> Update:
        return Update(self._centers_only, self._layer_optimizer(module, recipe))

    def _check_clusters(self) -> None:
        super()._check_clusters()
        longest = float(np.linalg.norm(self.cluster_centers_, axis=1).max())
        if longest > 1.01:  # float32 and the paper's own bound, |W_j| <= 2 alpha
            warn(
                f"k-meansNet diverged: the longest centre has length {longest:.3g}, where unit-length codes allow "
                f"at most 1. The published loss has no lower bound; use variant='repaired'."
            )
