"""NCSC: a self-expressive affinity teaches a classifier, which gives the clusters; no spectral clustering of all rows.

For the rows of a batch, A_s says who helps to express whom and A_c who has the same class probabilities. Pairs that A_s
is sure of become positives for the classifier, pairs that it is sure to be unrelated become negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from neuralclust._warn import warn
from neuralclust.augment import Augmentation
from neuralclust.base import AUGMENT, NeuralClusterer
from neuralclust.data import Rows, Source
from neuralclust.functional import (
    class_affinity,
    coefficient_affinity,
    collaboration,
    printed_collaboration,
    reconstruction_loss,
    squared_euclidean,
    unit_norm,
)
from neuralclust.kmeans import finite_codes
from neuralclust.nn import (
    Autoencoder,
    ClassifierLayer,
    ClusterModule,
    Features,
    SelfExpression,
    StrideConvAutoencoder,
    WideAutoencoder,
)
from neuralclust.nn.targets import expected_share
from neuralclust.schedules import joint_rate, small_steps
from neuralclust.spectral import first_centers, spectral_partition
from neuralclust.training import (
    LEARNING_RATES,
    TILE,
    LabelChanges,
    RunningMeans,
    Terms,
    Trainer,
    Update,
    cosine_rate,
    make_optimizer,
    map_rows,
    trainable,
)
from neuralclust.warmstart import graph_clusters, learn

_FEATURES_RIDGE = 0.01  # for features as they are, which keep their mean
_COLLAPSING = 0.8  # of the effective number of clusters at the start
_CONVOLUTIONAL: dict[str, dict[str, Any]] = {
    "conv": {},
    "residual": {"channels": (10, 20, 30, 40), "kernels": (3,) * 4, "strides": (2, 2, 2, 1), "residual": "post"},
    "preactivation": {"channels": (10, 20, 30, 10), "kernels": (3,) * 4, "strides": (1, 2, 2, 2), "residual": "pre"},
}


class NCSC(NeuralClusterer):
    """Neural collaborative subspace clustering.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    encoder : {"mlp", "conv", "residual", "preactivation"}, nn.Module or None, default="mlp"
        Fully connected net whose last hidden layer is the code; the paper's nets for MNIST, Fashion-MNIST and Stanford
        Online Products (images only); the user's own encoder (a decoder is added) or
        :class:`~neuralclust.nn.Autoencoder` (a copy is trained); or the features as they are, with a hidden layer in
        the classifier. Codes should be longer than 9 times the number of clusters.
    embed_dim : int, default=10
        Bottleneck of the fully connected autoencoder, between its code and its decoder.
    hidden_layer_sizes : sequence of int, default=(500, 500, 2000)
        Layers of the fully connected encoder; the last is the length of a code.
    n_init : int, default=1
        Runs with different seeds; the one with the smallest loss is kept.
    init : {"k-means", "k-means++", "random", "spectral"} or ndarray, default=None
        Labels that the classifier starts from, found on the bottleneck (on the codes, where there is none): clusters of
        a nearest-neighbour graph of at most 10,000 rows (those of k-means beyond 50 clusters, or if of fewer than 1,000
        rows a graph of more neighbours has other ones), of k-means, of its seeding or of random rows; or of given
        centres in the space of the codes. With ``encoder=None`` "spectral" is spectral clustering of one batch's A_s,
        as data on subspaces through the origin need. None: "spectral" (repaired); the paper starts from nothing, unless
        asked.
    max_epochs : int, default=None
        Epochs of joint training at most. None: 30 (repaired), 50 (paper, which names none).
    pretrain_epochs : int, default=None
        Epochs of the autoencoder alone before. None: enough for 4,000 steps, 40 to 150 (repaired), 60 (paper).
    batch_size : int, default=None
        Rows in a step of joint training: time and memory of a step grow with its square. None: 2,000, fewer for less
        than 16,000 rows (repaired); 5,000 (paper). Pretraining has 256 or fewer.
    lr, lr_classifier : float, default=None
        Learning rates of the autoencoder and of the classifier. None: for the autoencoder the usual one of the
        optimiser (Adam 1e-3; repaired) or 1e-5 (paper), for the classifier 1e-3. Repaired: pretraining rises to three
        times as much and falls to 0; joint training falls to 0 by a cosine, from a third of it if None, less in
        batches below 86. In the paper's variant pretraining has the usual rate. Either pretraining takes less, by the
        root, where batches have fewer than 256 rows.
    optimizer : {"adam", "adadelta", "adagrad", "rmsprop", "sgd"}, default="adam"
        Optimiser of the autoencoder and of the classifier; the classifier's start is learned by Adam.
    tol : float, default=1e-3
        Joint training ends when at most this share of the rows has changed cluster since the epoch before; 0 never. In
        the paper's variant pretraining ends when ten epochs together improve the loss by at most 0.1 %.
    variant : {"repaired", "paper"}, default="repaired"
        The form that works, or the published one, which collapses to one cluster. See Notes.
    augment : {"digits", "images", "table"}, callable or None, default=None
        Random views, see :mod:`neuralclust.augment`: by name, or any function from a batch of scaled rows to a batch of
        the same shape, which is not saved with the model. The autoencoder learns the views; the
        classifier compares rows with views (repaired; the paper's has none).
    u, l : float, default=None
        Pairs with A_s above u both ways are positive; with A_s below 0.05 and A_c below l, negative. None: 0.9 and 0.5
        (repaired); 0.1 one way, and 0.7 in the first epoch, 0.9 after (paper, where pairs with A_c below l teach A_s).
    ridge : float, default=None
        Weight of the coefficients' squares in the self-expression. None: 0.1 of the squared norm of the batch, or
        0.01 with ``encoder=None`` (repaired); 0.2 (paper: 2 / lambda_1).
    clustering_weight : float, default=None
        Weight of the collaboration beside the mean squared error of a pixel. None: 0.005, less where the scaled columns
        have a mean variance below 0.02, as those of texts, in proportion to it (repaired); in the paper what makes the
        two losses equal at the first batch (``loss_`` and ``score`` then take 1).
    balance_weight : float, default=0.5
        Of the balance term, within the collaboration (repaired).
    standardize : bool, default=False
        For tables: scale each column by its own standard deviation, where their units differ. False: all by one range.
    device : str or torch.device, default="auto"
        Where to compute; "auto" takes a GPU if there is one.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of the autoencoder while training. Affinities and inference are float32.
    random_state : int, RandomState or None, default=None
        Seed. The global random states are never touched.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of every training row, as ``predict`` gives it: by the classifier alone (Eq. 10).
    cluster_centers_ : ndarray of shape (n_clusters, code length)
        Mean code of each cluster.
    history_ : list of dict
        A row an epoch: ``init``, ``stage``, ``epoch``, ``loss``, ``rec`` and, in joint training, ``clu``; ``positives``
        a row; ``agreed``, the share of them in one cluster; ``negatives``, their share of all pairs; ``balance``, the
        effective share of the clusters, 1 if all are of equal size; ``changed``, the share of rows in another cluster
        than in the epoch before. None of these needs labels.
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
    As printed the loss has a trivial optimum: with all rows in one class every A_c is 1, all positives agree, and no
    pair is left for the negative term, which moreover teaches A_s and not the classifier. Even from a start that is
    right, ``variant="paper"`` ends with one cluster, and says so with a warning. ``variant="repaired"`` adds negatives
    for the classifier, ``-log(1 - A_c)`` where both affinities are low, and a balance term (how far the mean class
    probabilities are from equal, or from what ``share`` of :class:`~neuralclust.nn.ClassifierLayer` says where the
    first clusters are far from equally large); A_s is a teacher without gradient, and the classifier acts on it through
    the encoder they share. The self-expression is solved in closed form for every batch instead of being learned for
    batch positions that hold other rows each time.

    The published classifier on a convolutional encoder is convolutional, in ``variant="paper"`` as well; all others are
    one linear layer, after a hidden one with ``encoder=None``.

    A step takes O(b^2 p) operations and O(b^2) memory for b rows and codes of length p; an epoch is linear in the rows.

    References
    ----------
    T. Zhang, P. Ji, M. Harandi, W. Huang, H. Li: "Neural Collaborative Subspace Clustering", ICML 2019. Eq. 1-10.

    Examples
    --------
    >>> from neuralclust import NCSC
    >>> from neuralclust.datasets import make_subspaces
    >>> X, y = make_subspaces(120, 3, 2, 20, random_state=0)
    >>> model = NCSC(3, encoder=None, max_epochs=5, random_state=0).fit(X)
    >>> model.affinity(X[:10]).classifier.shape
    (10, 10)
    """

    _head_learns_views: ClassVar[bool] = True
    _centers_decide: ClassVar[bool] = False

    _recipes: ClassVar[dict[str, dict[str, Any]]] = {
        "repaired": {
            "init": "spectral", "max_epochs": 30, "batch_size": None, "lr_classifier": 1e-3, "u": 0.9, "l": 0.5,
            "ridge": 0.1, "clustering_weight": 0.005, "normalize": True, "pretrain_batch_size": None,
            "pretrain_tol": 0.0, "one_cycle": True,
        },
        "paper": {
            "max_epochs": 50, "pretrain_epochs": 60, "batch_size": 5000, "lr": 1e-5, "lr_classifier": 1e-3, "u": 0.1,
            "l": 0.9, "ridge": 0.2, "normalize": False, "pretrain_batch_size": None, "pretrain_tol": 1e-3,
        },
    }  # fmt: skip

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NeuralClusterer._parameter_constraints,
        "encoder": [StrOptions({"mlp", *_CONVOLUTIONAL}), nn.Module, None],
        "init": [StrOptions({"k-means", "k-means++", "random", "spectral"}), np.ndarray, None],
        "batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "lr_classifier": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, 1, closed="left")],
        "augment": AUGMENT,
        "u": [Interval(Real, 0, 1, closed="left"), None],
        "l": [Interval(Real, 0, 1, closed="right"), None],
        "ridge": [Interval(Real, 0, None, closed="neither"), None],
        "clustering_weight": [Interval(Real, 0, None, closed="left"), None],
        "balance_weight": [Interval(Real, 0, None, closed="left")],
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
        lr_classifier: float | None = None,
        optimizer: str = "adam",
        tol: float = 1e-3,
        variant: str = "repaired",
        augment: str | Augmentation | None = None,
        u: float | None = None,
        l: float | None = None,  # noqa: E741
        ridge: float | None = None,
        clustering_weight: float | None = None,
        balance_weight: float = 0.5,
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
        self.lr_classifier = lr_classifier
        self.optimizer = optimizer
        self.tol = tol
        self.variant = variant
        self.augment = augment
        self.u = u
        self.l = l
        self.ridge = ridge
        self.clustering_weight = clustering_weight
        self.balance_weight = balance_weight
        self.standardize = standardize
        self.device = device
        self.precision = precision
        self.random_state = random_state

    # -- network ----------------------------------------------------------------------------------------------

    def _recipe(self, n_samples: int) -> SimpleNamespace:
        recipe = super()._recipe(n_samples)
        if self._value("batch_size") is None:
            recipe.batch_size = min(2000, max(500, n_samples // 8))
        recipe.batch_size = min(recipe.batch_size, n_samples)
        return recipe

    def _autoencoder(self, shape: tuple[int, ...], recipe: SimpleNamespace) -> Autoencoder:
        if self.encoder is None:
            return Features(shape)
        if not isinstance(self.encoder, str) or self.encoder == "mlp":
            return WideAutoencoder(shape, self.embed_dim, hidden_layer_sizes=self.hidden_layer_sizes)
        net = StrideConvAutoencoder(shape, **_CONVOLUTIONAL[self.encoder])
        if self.variant == "paper":
            recipe.maps = net.maps  # its classifier is convolutional as well
        return net

    def _head(self, embed_dim: int, recipe: SimpleNamespace) -> ClassifierLayer:
        hidden = (256,) if self.encoder is None else ()
        scale = 10.0 if recipe.normalize else 1.0
        maps = getattr(recipe, "maps", None)
        return ClassifierLayer(embed_dim, self.n_clusters, hidden_layer_sizes=hidden, maps=maps, scale=scale)

    def _place_centers(
        self, module: ClusterModule, source: Source, recipe: SimpleNamespace, trainer: Trainer, seed: int
    ) -> None:
        """Teach the classifier the labels that it starts from."""
        if recipe.init is None:
            return
        rows, labels = self._first_labels(module, source, recipe, trainer, seed)
        labels = labels.to(trainer.device)
        module.head.share.copy_(expected_share(labels.bincount(minlength=self.n_clusters)))

        def loss(module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
            with torch.no_grad():
                z = module.encode(x)
            return {"loss": F.cross_entropy(module.head.logits(z), labels[index.to(labels.device)])}

        learn(module, rows, Update(loss, torch.optim.Adam(module.head.parameters(), 1e-2), rate=cosine_rate), trainer)

    def _first_labels(
        self, module: ClusterModule, source: Source, recipe: SimpleNamespace, trainer: Trainer, seed: int
    ) -> tuple[Source, Tensor]:
        """Rows and a cluster for each."""
        if self.n_clusters == 1:
            return source, torch.zeros(len(source), dtype=torch.long)
        given = isinstance(recipe.init, np.ndarray)
        squeeze = getattr(module.autoencoder, "squeeze", None)

        def space(x: Tensor) -> Tensor:
            z = module.encode(x)
            return z if squeeze is None or given else F.normalize(squeeze(z), dim=1)

        if not given and recipe.init == "spectral":
            found = self._graph(module, source, recipe, trainer, space, seed)
            if found is not None:
                return found
        if given:
            super()._place_centers(module, source, recipe, trainer, seed)
            centers = module.head.centers.clone()
        else:
            z = self._codes(module, source, trainer, space)
            init = "k-means" if recipe.init == "spectral" else recipe.init  # the graph has fewer clusters
            first = first_centers(z, self.n_clusters, init, seed=seed)
            centers = torch.as_tensor(first, dtype=torch.float32, device=trainer.device)

        def nearest(x: Tensor) -> Tensor:
            return squared_euclidean(space(x), centers).argmin(dim=1)

        return source, torch.from_numpy(map_rows(module, nearest, source, tile=TILE, device=trainer.device))

    def _graph(
        self,
        module: ClusterModule,
        source: Source,
        recipe: SimpleNamespace,
        trainer: Trainer,
        space: Callable[[Tensor], Tensor],
        seed: int,
    ) -> tuple[Source, Tensor] | None:
        """Rows and their clusters in the graph of nearest neighbours or, of features as they are, of A_s."""
        if self.encoder is not None:
            return graph_clusters(module, source, space, self.n_clusters, trainer, seed)
        enough = max(recipe.batch_size, 10 * self.n_clusters)
        rows = Rows(source, torch.randperm(len(source), generator=trainer.generator)[:enough])
        z = finite_codes(map_rows(module, module.encode, rows, tile=TILE, device=trainer.device))
        a = self._self_expressive(torch.from_numpy(z).to(trainer.device)).cpu().double().numpy()
        np.fill_diagonal(a, 0)
        return rows, torch.from_numpy(spectral_partition((a + a.T) / 2, self.n_clusters, seed=seed)[0])

    def _summarize(self, module: ClusterModule, source: Source, recipe: SimpleNamespace, device: torch.device) -> None:
        self._mean_codes(module, source, device)

    def _fill_empty_clusters(self, source: Source, seed: int) -> None:
        """A class that no row wants is not refilled: no centre could be moved to bring it back."""

    # -- losses -----------------------------------------------------------------------------------------------

    def _self_expressive(self, z: Tensor) -> Tensor:
        """A_s of a batch of codes.

        Codes of the network share a large mean, which says nothing of clusters, and rows of one cluster then lie to the
        same side of it: the mean is removed and only positive coefficients count. Not so in the paper.
        """
        if self.variant == "paper":
            return coefficient_affinity(SelfExpression(ridge=self._value("ridge"))(z))
        network = self.encoder is not None
        if network:
            z = unit_norm(z - z.mean(dim=0))
        ridge = _FEATURES_RIDGE if self.ridge is None and not network else self._value("ridge")
        return coefficient_affinity(SelfExpression(ridge=ridge, relative=True)(z), signed=network)

    def _loss(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        if self.variant == "repaired":
            return self._repaired(module, x)[1]
        z, a_s, terms = self._subspace(module, x)
        weight = 1.0 if self.clustering_weight is None else self.clustering_weight
        return self._whole(terms, self._printed(module, z, a_s, self._value("l")), weight)

    def _repaired(self, module: ClusterModule, x: Tensor) -> tuple[Tensor, Terms]:
        """Class probabilities and the terms of the loss."""
        view = self._view(module, x)
        z = module.encode(x)
        z_view = z if view is x else module.encode(view)
        p = module.head.logits(z).softmax(dim=1)
        p_view = None if view is x else module.head.logits(z_view).softmax(dim=1)
        terms = self._collaboration(module, z, p, p_view, self.balance_weight)
        rec = reconstruction_loss(view, module.decode(z_view))
        return p, {"loss": rec + self._weight("clustering_weight", module) * terms["clu"], "rec": rec, **terms}

    def _collaboration(
        self, module: ClusterModule, z: Tensor, p: Tensor, p_view: Tensor | None, balance_weight: float
    ) -> Terms:
        with torch.no_grad():
            a_s = self._self_expressive(z)
        u, least = self._value("u"), self._value("l")
        return collaboration(a_s, p, p_view, u=u, l=least, balance_weight=balance_weight, share=module.head.share)

    def _evaluation(self, source: Source) -> tuple[Source, int]:
        """Batches as in training: who is in a batch with whom decides the loss, and rows may come sorted."""
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
        return Rows(source, order), self._recipe(len(source)).batch_size

    def _subspace(self, module: ClusterModule, x: Tensor) -> tuple[Tensor, Tensor, Terms]:
        """Codes, A_s and Eq. 9 per row."""
        z = module.encode(x)
        layer = SelfExpression(ridge=self._value("ridge"))
        c = layer(z)
        rec = reconstruction_loss(x, module.decode(c.T @ z))  # ZC, as Section 3.4 (iii) has it, not Z
        subspace = layer.loss(z, c) / layer.ridge + 0.5 * rec * x[0].numel()
        return z, coefficient_affinity(c), {"loss": subspace, "rec": rec, "subspace": subspace}

    def _printed(self, module: ClusterModule, z: Tensor, a_s: Tensor, least: float) -> Terms:
        """Eq. 5."""
        return printed_collaboration(a_s, module.head.logits(z).softmax(dim=1), u=self._value("u"), l=least)

    @staticmethod
    def _whole(subspace: Terms, collaboration: Terms, weight: float) -> Terms:
        """Eq. 8."""
        return {**subspace, **collaboration, "loss": subspace["subspace"] + weight * collaboration["clu"]}

    # -- updates ----------------------------------------------------------------------------------------------

    def _optimizers(self, module: ClusterModule, recipe: SimpleNamespace) -> list[torch.optim.Optimizer]:
        """Of the classifier and, if it learns, of the autoencoder."""
        found = [make_optimizer(recipe.optimizer, list(module.head.parameters()), recipe.lr_classifier)]
        weights = trainable(module.autoencoder)
        return [*found, make_optimizer(recipe.optimizer, weights, joint_rate(recipe))] if weights else found

    def _pretraining(self, weights: list[Tensor], recipe: SimpleNamespace) -> Update:
        if recipe.one_cycle:
            return super()._pretraining(weights, recipe)
        # Small batches, small steps: with the usual rate the wide net dies on a few hundred rows.
        lr = LEARNING_RATES[recipe.optimizer] * small_steps(recipe.pretrain_batch_size) ** 0.5
        return Update(self._reconstruction, make_optimizer(recipe.optimizer, weights, lr))

    def _updates(self, module: ClusterModule, recipe: SimpleNamespace) -> list[Update]:
        changes = LabelChanges(recipe.n_samples, recipe.memory)
        classifier, *autoencoder = self._optimizers(module, recipe)

        def whole(module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
            p, terms = self._repaired(module, x)
            return {**terms, "changed": changes(p.argmax(dim=1), index)}

        if self.variant == "repaired":
            return [Update(whole, classifier, *autoencoder, rate=cosine_rate)]
        return self._printed_updates(recipe, changes, classifier, *autoencoder)

    def _printed_updates(
        self,
        recipe: SimpleNamespace,
        changes: LabelChanges,
        classifier: torch.optim.Optimizer,
        *autoencoder: torch.optim.Optimizer,
    ) -> list[Update]:
        """On every batch Eq. 9 for the autoencoder, Eq. 5 for the classifier, then Eq. 8 for both."""
        memory = recipe.memory
        memory["seen"] = torch.tensor(0)
        epoch = recipe.n_samples - recipe.n_samples % recipe.batch_size  # rows that a pass sees

        def subspace(module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
            return self._subspace(module, x)[2]

        def classify(module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
            with torch.no_grad():
                z = module.encode(x)
                a_s = self._self_expressive(z)
            terms = self._printed(module, z, a_s, self.l or (0.7 if memory["seen"] < epoch else 0.9))
            memory["seen"] = memory["seen"] + len(index)
            return {"loss": terms["clu"], **terms, "changed": changes(module.head.predict(z), index)}

        def everything(module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
            z, a_s, terms = self._subspace(module, x)
            pairs = self._printed(module, z, a_s, self.l or (0.7 if memory["seen"] <= epoch else 0.9))
            if self.clustering_weight is not None:
                return self._whole(terms, pairs, self.clustering_weight)
            first = module.gather((terms["subspace"] / pairs["clu"].clamp_min(1e-6)).detach()[None]).mean()
            return self._whole(terms, pairs, float(memory.setdefault("weight", first)))

        alone = [Update(classify, classifier)]
        if not autoencoder:
            return alone
        return [Update(subspace, *autoencoder), *alone, Update(everything, classifier, *autoencoder)]

    def _stop(self, rows: list[dict[str, Any]], recipe: SimpleNamespace) -> bool:
        if "balance" in rows[-1]:
            low = [row["balance"] < _COLLAPSING * rows[0]["balance"] for row in rows]
            if low[-1] and not any(low[:-1]):
                warn(
                    f"Clusters are merging: in epoch {len(rows) - 1} they are as "
                    f"{self.n_clusters * rows[-1]['balance']:.1f} clusters of equal size, after "
                    f"{self.n_clusters * rows[0]['balance']:.1f} at the start. "
                    f"variant='repaired', a larger balance_weight or a smaller clustering_weight keeps them apart."
                )
        return super()._stop(rows, recipe)

    def _centers_update(self, module: ClusterModule, recipe: SimpleNamespace) -> Update:
        def loss(module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
            with torch.no_grad():
                z = module.encode(x)
            if self.variant == "paper":
                return {"loss": self._printed(module, z, self._self_expressive(z), self._value("l"))["clu"]}
            # no balance: the next rows of a stream may well be of one cluster
            p = module.head.logits(z).softmax(dim=1)
            return {"loss": self._collaboration(module, z, p, None, 0.0)["clu"]}

        return RunningMeans(loss, self._optimizers(module, recipe)[0])

    # -- for looking at ---------------------------------------------------------------------------------------

    def affinity(self, X: Any) -> Bunch:
        """Both affinities of a set of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows as in ``fit``, all compared with all: keep them to some thousands.

        Returns
        -------
        Bunch
            ``self_expressive`` and ``classifier``, A_s and A_c, ndarrays of float32 and shape (n_samples, n_samples).
            A_s depends on all rows given.

        Examples
        --------
        >>> from neuralclust import NCSC
        >>> from neuralclust.datasets import make_subspaces
        >>> X, y = make_subspaces(120, 3, 2, 20, random_state=0)
        >>> a = NCSC(3, encoder=None, max_epochs=5, random_state=0).fit(X).affinity(X)
        >>> a.self_expressive.shape, a.classifier.shape
        ((120, 120), (120, 120))
        """
        z = torch.from_numpy(self.transform(X))
        p = torch.from_numpy(self.predict_proba(X))
        return Bunch(self_expressive=self._self_expressive(z).numpy(), classifier=class_affinity(p).numpy())
