"""TELL: k-means as an interpretable cluster layer, trained end to end with an autoencoder.

Codes and centres have unit length, so a row's squared distance to centre j is ``2 - 2 cos``, linear in the centre.
In the paper the clustering loss moves the centres in one epoch and the encoder in the next, and a centre's step has a
fixed length, 10 % of the centre's own; the repaired variant moves both at once, by steps that shrink with the rate.
"""

from __future__ import annotations

from functools import partial
from numbers import Real
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from neuralclust.augment import Augmentation
from neuralclust.base import AUGMENT, NeuralClusterer
from neuralclust.functional import hard_assignment, reconstruction_loss
from neuralclust.nn import Autoencoder, ClusterModule, ConvAutoencoder, TELLLayer
from neuralclust.nn.autoencoders import mlp_or_features
from neuralclust.schedules import joint_rate
from neuralclust.training import Terms, Update, cosine_rate, make_optimizer, trainable


def released_loss(layer: TELLLayer, z: Tensor, weight: float | Tensor = 0.01, view: Tensor | None = None) -> Tensor:
    """L_clu as the authors' code computes it: a mean over all b x k entries of ``2 alpha - delta_ij s_ij``.

    It equals ``2 weight - (2 weight / k) mean_i cos(z_i, c_i)``: of the k entries of a row only one counts. The
    losses in Tables S1 and S2 of the paper are this number; its floor is ``2 weight (1 - 1 / k)``. Codes of a view of
    the rows, if given, are pulled to the centres that the rows chose.
    """
    chosen = hard_assignment(_scores(layer, z))
    s = _scores(layer, z if view is None else view)
    return weight / layer.alpha * (2 * layer.alpha - chosen * s).mean()


def _scores(layer: TELLLayer, z: Tensor) -> Tensor:
    """``(b, k)``: alpha times 2 cos."""
    return nn.functional.linear(nn.functional.normalize(z, dim=1), layer.weight)


class TELL(NeuralClusterer):
    """Interpretable neural clustering (TELL): an autoencoder whose cluster layer is k-means.

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
    init : {"graph", "spectral", "k-means", "k-means++", "random", "kaiming"} or ndarray, default=None
        First centres: from the codes by spectral clustering (of 10,000 rows at most; k-means beyond 50 clusters), by
        k-means, by its seeding or as random rows, random directions, or given. "graph": the clusters of a
        nearest-neighbour graph of the codes, of as many rows, which the encoder learns first, in some 200 steps of
        joint training (not in ``history_``, and taken with ``max_epochs=0``, too); k-means also if of fewer than 1,000
        rows a graph of more neighbours has other clusters. None: "graph", or "spectral" with ``augment`` or where no
        encoder learns (repaired); "kaiming" (paper).
    max_epochs : int, default=None
        Epochs of joint training. None: enough for 2,000 steps, 20 to 60 (repaired), 3000 (paper).
    pretrain_epochs : int, default=None
        Epochs of the autoencoder alone before. None: enough for 4,000 steps, 40 to 150 (repaired), 0 (paper; as many as
        ``max_epochs`` with ``end_to_end=False``).
    batch_size : int, default=None
        Rows in a step. None: 256, fewer for less than about 4,000 rows (repaired), 256 (paper).
    lr : float, default=None
        Learning rate of the autoencoder. None: the usual one of the optimiser (Adam 1e-3, Adadelta 1.0). Repaired:
        pretraining rises to three times as much and falls to 0; joint training falls to 0 by a cosine, from a third of
        it if None, and from less in batches below 86.
    optimizer : {"adam", "adadelta", "adagrad", "rmsprop", "sgd"}, default=None
        Optimiser of the autoencoder and, in the paper's variant, of the centres. None: "adam" (repaired),
        "adadelta" (paper).
    tol : float, default=None
        Training ends when ten epochs together improve the loss by at most this share; 0 never. None: 0.
    variant : {"repaired", "paper"}, default="repaired"
        The form that works best, or the published one. See Notes.
    end_to_end : bool, default=True
        Train the encoder with the clustering loss, or only the centres on the codes of a pretrained encoder
        ("TELL-TwoStage").
    target : {"balanced", "hard"}, default=None
        What the encoder learns from: soft targets that keep clusters apart, which suit clusters of comparable sizes
        (:class:`~neuralclust.nn.BalancedTarget`), or the nearest centre, as in the paper. None: "balanced" (repaired),
        "hard" (paper).
    augment : {"digits", "images", "table"}, callable or None, default=None
        What should not change a row's cluster; targets come from the rows as they are. "digits" shifts, turns, scales
        and shears images, "images" crops, mirrors and recolours them, "table" swaps features between rows; a callable
        takes a batch of scaled rows and gives one of the same shape, and is not saved with the model. See
        :mod:`neuralclust.augment`.
    alternate : {"epoch", "batch", "never"}, default=None
        What decides whose turn it is to learn from the clustering loss, the centres or the encoder; "never": both
        learn from every batch. None: "never" with balanced targets, "epoch" with hard ones.
    clustering_weight : float, default=None
        Weight of the clustering loss beside the mean squared error of a pixel. None: 0.1 with balanced targets, 0.02
        per row and assigned centre with hard ones, 0.01 over all b x k entries as in the authors' code (paper);
        repaired: less where the scaled columns have a mean variance below 0.02, as those of texts and embeddings, in
        proportion to it, or the reconstruction would hardly count and the codes collapse.
    center_step : float, default=0.1
        Length of a centre's step, as a share of the centre's own length; repaired: of the first step.
    normalize_gradient : bool, default=True
        Give the centres' steps that length. False leaves them as the gradient has them (Table 6 of the paper).
    alpha : float, default=None
        Scale of the stored weight ``W = 2 alpha c``. None: 0.5 (repaired), 1e-3 (paper).
    temperature : float, default=0.2
        Temperature of ``predict_proba`` and of balanced targets, in units of the squared distance; hard targets are
        its limit 0.
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
        Unit-length centres.
    history_ : list of dict
        A row an epoch: ``init``, ``stage``, ``epoch``, ``loss``, ``rec`` and, in joint training, ``clu``, the mean
        squared distance of a code to its centre plus, with balanced targets, the cross-entropy.
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
    ``variant="paper"`` follows the authors' released code: no pretraining, random directions as centres, Adadelta
    over everything with ``alpha = 1e-3``, dropout of 0.2 before every layer of the fully connected encoder and 3000
    epochs. Its five published runs on MNIST reach accuracies of 95.16, 95.10, 82.88, 82.04 and 81.69 (Table S1): the
    outcome is decided by the start. ``variant="repaired"`` pretrains, starts as ``init`` says, lets the
    encoder learn from balanced targets and, with the centres stored at their own length, needs neither the paper's
    ``alpha`` nor its optimiser. The gradient of the centres is that of the assigned cluster alone: Eq. 13 sums over all
    j, which only adds a constant.

    Fully connected, MNIST-70k takes 60 passes over the data, on two busy cores 8 minutes, augmented 13; see
    ``benchmarks/``.

    References
    ----------
    X. Peng, Y. Li, I. Tsang, H. Zhu, J. Lv, J. T. Zhou: "XAI Beyond Classification: Interpretable Neural
    Clustering", Journal of Machine Learning Research, 2022. Eq. 12-15, Sections 2.2.3 and 2.2.4.

    Examples
    --------
    >>> from neuralclust import TELL
    >>> from neuralclust.datasets import make_sphere_clusters
    >>> X, y = make_sphere_clusters(200, 3, 16, noise=0.1, random_state=0)
    >>> model = TELL(3, hidden_layer_sizes=(32,), max_epochs=5, pretrain_epochs=5, random_state=0).fit(X)
    >>> bool((model.predict(X) == model.labels_).all())
    True
    """

    _recipes: ClassVar[dict[str, dict[str, Any]]] = {
        "repaired": {
            "batch_size": None, "optimizer": "adam", "tol": 0.0, "alpha": 0.5, "dropout": 0.0, "normalize": True,
            "target": "balanced", "one_cycle": True,
        },
        "paper": {
            "init": "kaiming", "max_epochs": 3000, "pretrain_epochs": 0, "batch_size": 256, "optimizer": "adadelta",
            "tol": 0.0, "clustering_weight": 0.01, "alpha": 1e-3, "dropout": 0.2, "normalize": True, "target": "hard",
        },
    }  # fmt: skip

    _by_target: ClassVar[dict[str, dict[str, Any]]] = {
        "balanced": {"alternate": "never", "clustering_weight": 0.1},
        "hard": {"alternate": "epoch", "clustering_weight": 0.02},
    }

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NeuralClusterer._parameter_constraints,
        "init": [StrOptions({"graph", "spectral", "k-means", "k-means++", "random", "kaiming"}), np.ndarray, None],
        "end_to_end": ["boolean"],
        "target": [StrOptions({"balanced", "hard"}), None],
        "augment": AUGMENT,
        "alternate": [StrOptions({"epoch", "batch", "never"}), None],
        "clustering_weight": [Interval(Real, 0, None, closed="left"), None],
        "center_step": [Interval(Real, 0, None, closed="neither")],
        "normalize_gradient": ["boolean"],
        "alpha": [Interval(Real, 1e-8, 1e8, closed="both"), None],
        "temperature": [Interval(Real, 1e-8, 1e8, closed="both")],
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
        alternate: str | None = None,
        clustering_weight: float | None = None,
        center_step: float = 0.1,
        normalize_gradient: bool = True,
        alpha: float | None = None,
        temperature: float = 0.2,
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
        self.alternate = alternate
        self.clustering_weight = clustering_weight
        self.center_step = center_step
        self.normalize_gradient = normalize_gradient
        self.alpha = alpha
        self.temperature = temperature
        self.standardize = standardize
        self.device = device
        self.precision = precision
        self.random_state = random_state

    def _recipe(self, n_samples: int) -> SimpleNamespace:
        recipe = super()._recipe(n_samples)
        if self.variant == "paper" and not self.end_to_end and self.pretrain_epochs is None:
            recipe.pretrain_epochs = recipe.max_epochs  # the codes of a network that has learned nothing tell nothing
        return recipe

    def _autoencoder(self, shape: tuple[int, ...], recipe: SimpleNamespace) -> Autoencoder:
        if self.encoder == "conv":
            return ConvAutoencoder(shape, self.embed_dim)
        return mlp_or_features(
            self.encoder,
            shape,
            self.embed_dim,
            hidden_layer_sizes=self.hidden_layer_sizes,
            dropout=recipe.dropout,
            input_dropout=recipe.dropout,
        )

    def _head(self, embed_dim: int, recipe: SimpleNamespace) -> TELLLayer:
        if self.variant == "paper" and recipe.target == "balanced":
            raise ValueError("target='balanced' is not in the paper's loss. Use variant='repaired', or target='hard'.")
        return TELLLayer(
            embed_dim,
            self.n_clusters,
            alpha=recipe.alpha,
            temperature=self.temperature,
            balanced=recipe.target == "balanced",
        )

    def _place_centers(self, module: ClusterModule, *args: Any) -> None:
        recipe = args[1]
        if isinstance(recipe.init, np.ndarray) or recipe.init != "kaiming":
            super()._place_centers(module, *args)

    # -- losses -----------------------------------------------------------------------------------------------

    def _loss(self, module: ClusterModule, x: Tensor, index: Tensor, centers_only: bool = False) -> Terms:
        """Eq. 15; with ``centers_only`` the clustering loss does not reach the encoder."""
        x, z, codes = self._encode_views(module, x)
        codes = [each.detach() for each in codes] if centers_only else codes
        weight = self._weight("clustering_weight", module)
        rec = reconstruction_loss(x, module.decode(z))  # Eq. 14, as a mean
        clu = module.head.loss(*codes)
        pull = weight * clu if self.variant == "repaired" else released_loss(module.head, codes[0], weight, *codes[1:])
        return {"loss": rec + pull, "rec": rec, "clu": clu}

    def _centers_only(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        z = self._fixed_codes(module, x)
        clu = module.head.loss(z) if self.variant == "repaired" else released_loss(module.head, z)
        return {"loss": clu, "clu": clu}

    # -- updates ----------------------------------------------------------------------------------------------

    def _centers_optimizer(self, module: ClusterModule, recipe: SimpleNamespace) -> torch.optim.Optimizer:
        """Section 2.2.3: gradient to 10 % of the centre's length, step, centre back to unit length.

        The authors' Adadelta is plain gradient descent of rate 1 here: gradients of about 6e-5 are far below the
        square root of its eps, 1e-3. The repaired variant says so and takes gradient descent.
        """
        if self.variant == "paper":
            optimizer = make_optimizer(recipe.optimizer, [module.head.weight], recipe.lr)
        else:
            optimizer = torch.optim.SGD([module.head.weight], lr=1.0)
        if self.normalize_gradient:
            optimizer.register_step_pre_hook(lambda *_: module.head.normalize_gradient_(self.center_step))
        optimizer.register_step_post_hook(lambda *_: module.head.normalize_())
        return optimizer

    def _updates(self, module: ClusterModule, recipe: SimpleNamespace) -> list[Update]:
        if not self._encoder_learns(module):
            return [self._centers_update(module, recipe)]
        centers = self._centers_optimizer(module, recipe)
        network = self._optimizer(trainable(module.autoencoder), recipe, joint_rate(recipe))
        rate = cosine_rate if recipe.one_cycle else None
        if recipe.alternate == "never":
            return [Update(self._loss, network, centers, rate=rate)]
        centers_turn = partial(self._loss, centers_only=True)
        return [Update(centers_turn, network, centers, rate=rate), Update(self._loss, network, rate=rate)]

    def _turn(self) -> str:
        alternate = self._value("alternate")
        return "all" if alternate == "never" else alternate

    def _centers_update(self, module: ClusterModule, recipe: SimpleNamespace) -> Update:
        return Update(self._centers_only, self._centers_optimizer(module, recipe))

    # -- what makes it interpretable -----------------------------------------------------------------------------

    def explain(self, X: Any) -> Bunch:
        """Why each row is in its cluster: the exact share of every code dimension, and the attention.

        The score of cluster j is the cosine ``z . c_j``. The difference between the cluster chosen and the
        runner-up is the sum over dimensions d of ``z_d (c_chosen,d - c_runner_up,d)``, so these products are
        additive contributions, with nothing approximated.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows as in ``fit``.

        Returns
        -------
        Bunch
            ``cluster`` (n,) and ``runner_up`` (n,), equal if there is only one; ``contributions``
            (n, embed_dim); ``margin`` (n,), their sum and the difference of the two scores; ``attention``
            (n, n_clusters), Eq. 7.

        Examples
        --------
        >>> from neuralclust import TELL
        >>> from neuralclust.datasets import make_sphere_clusters
        >>> X, y = make_sphere_clusters(100, 3, 8, noise=0.1, random_state=0)
        >>> why = TELL(3, encoder=None, random_state=0).fit(X).explain(X)
        >>> bool(abs(why.contributions.sum(axis=1) - why.margin).max() < 1e-6)
        True
        """
        z = self.transform(X)
        centers = self.cluster_centers_
        scores = z @ centers.T  # (n, k)
        order = np.argsort(-scores, axis=1, kind="stable")
        cluster, runner_up = order[:, 0], order[:, min(1, len(centers) - 1)]
        rows = np.arange(len(z))
        return Bunch(
            cluster=cluster,
            runner_up=runner_up,
            contributions=z * (centers[cluster] - centers[runner_up]),
            margin=scores[rows, cluster] - scores[rows, runner_up],
            attention=self.predict_proba(X),
        )
