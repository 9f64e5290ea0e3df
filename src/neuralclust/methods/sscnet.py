"""SSCNet: sparse subspace clustering as one network: unrolled L-ADMM, eigenvector layers, self-supervised k-means."""

from __future__ import annotations

from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from neuralclust.augment import Augmentation
from neuralclust.base import AUGMENT, NeuralClusterer
from neuralclust.data import Rows, Source
from neuralclust.functional import adaptive_weights, knn_graph, laplacian, squared_euclidean
from neuralclust.functional.graph import multiply
from neuralclust.kmeans import finite_codes, fit_kmeans
from neuralclust.nn import DLADMM, Autoencoder, ClusterModule, Features, SpectralLayer
from neuralclust.nn.eigen import random_orthonormal
from neuralclust.schedules import Epochs
from neuralclust.spectral import as_scipy, spectral_partition
from neuralclust.training import (
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

_TINY = 1e-12
_ONE_WAY = 0.75  # share of the rows' mean square that their mean has where it hides their differences


class SSCNet(NeuralClusterer):
    """Sparse subspace clustering network.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    encoder : {"mlp", "conv", "linear"}, nn.Module or None, default="mlp"
        Dictionary maps of the unrolled L-ADMM: fully connected, three convolutions (the paper's, with strides 2, 2 and
        1; images only), or matrices; the user's own encoder (a decoder is added) or
        :class:`~neuralclust.nn.Autoencoder` (a copy is trained) instead of it; or the features as they are, which
        leaves spectral clustering by anchors.
    embed_dim : int, default=None
        Length of a code ("mlp" and "linear"). None: 16 ("mlp", repaired), or 500, since a sparse code should be longer
        than a row.
    hidden_layer_sizes : sequence of int, default=None
        Hidden layers of "mlp". None: (500, 500, 2000) (repaired), (500,) (paper).
    n_blocks : int, default=None
        Blocks after the first code. 0 is a plain autoencoder, the paper's ablation. None: 1 ("mlp", repaired), or 4, as
        in the paper.
    n_init : int, default=1
        Runs with different seeds; the one with the smallest loss is kept.
    init : {"spectral", "k-means", "k-means++", "random"} or ndarray, default="spectral"
        First clusters of the anchors: the spectral partition of their graph with the smallest balanced cut; or of
        k-means on the codes, of its seeding, of random rows, of given centres in the space of the codes. Not used by
        the paper, which clusters every batch anew.
    max_epochs : int, default=None
        Epochs of joint training at most. None: 10 (repaired), 100 (paper, whose figure shows that many).
    pretrain_epochs : int, default=None
        Epochs on the sparse coding loss alone before. None: as many as give 2000 steps, 40 to 150 (repaired; 10 with
        "conv" and "linear"), 0 (paper).
    batch_size : int, default=None
        Rows in a step. None: 256 (the paper's) or fewer.
    lr : float, default=None
        Learning rate of joint training. None: 1e-4 (repaired), 3e-4 (paper). Pretraining has 1e-3.
    optimizer : {"adam", "adadelta", "adagrad", "rmsprop", "sgd"}, default=None
        None: "adam" (repaired), "sgd" (paper).
    tol : float, default=1e-3
        Joint training ends when at most this share of the rows has changed cluster since the epoch before; 0 never.
        Pretraining ends when ten epochs together improve the loss by at most 0.1 %.
    variant : {"repaired", "paper"}, default="repaired"
        The form that works, or the published one. See Notes.
    n_neighbors : int, default=None
        Neighbours of a row in the graph; the paper has 3 to 6. None: 4 (repaired), 5 (paper).
    bandwidth : float, default=None
        Of the graph's weights, in units of the median squared distance between neighbours. None: 0.5 (repaired), 1
        (paper).
    n_anchors : int, default=None
        Training rows that carry the embedding, kept with the model; at least ``n_clusters``, all if there are fewer.
        None: 10,000 (repaired), 256 (paper, at most a batch).
    n_layers : int, default=4
        Eigenvector layers.
    sparsity : float, default=None
        lambda, the weight of ``|Z|_1``. None: 0 (repaired, where thresholds alone make codes sparse), but with "conv"
        and "linear" 0.5 (both terms are means; less where the scaled columns have a mean variance below 0.02, in
        proportion to its root), 0.15 (paper).
    eigen_weight, clustering_weight : float, default=0.15
        c_1 and c_2: weights of ``tr(Y^T L Y)`` and of the classifier's cross-entropy.
    augment : {"digits", "images", "table"}, callable or None, default=None
        What should not change a row's cluster; all parts learn from views. "digits" shifts, turns, scales
        and shears images, "images" crops, mirrors and recolours them, "table" swaps features between rows; a callable
        takes a batch of scaled rows and gives one of the same shape, and is not saved with the model. See
        :mod:`neuralclust.augment`.
    standardize : bool, default=False
        For tables: scale each column by its own standard deviation, where their units differ. False: all by one range.
    device : str or torch.device, default="auto"
        Where to compute; "auto" takes a GPU if there is one.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of the unrolled network while training. Graphs, eigenvectors and inference are float32.
    random_state : int, RandomState or None, default=None
        Seed. The global random states are never touched.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of every training row, as ``predict`` gives it.
    cluster_centers_ : ndarray of shape (n_clusters, code length)
        Mean code of each cluster.
    history_ : list of dict
        A row an epoch: ``init``, ``stage``, ``epoch``, ``loss``, ``rec`` (weighted mean length of the residual of a
        row, over the root of its features), ``sparse`` (mean absolute code); sums over a batch in the paper. In joint
        training also ``eigen``, ``clu``, and ``changed``, the share of rows in another cluster than in the epoch
        before, if a batch of the epoch had its turn to teach them.
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
    ``predict`` embeds a row by its nearest anchors, with the weights it would have in their graph, and asks the
    classifier. Anchors are rows of the training data, kept with the model, so a row has the same cluster whatever rows
    come with it, and the cost is linear in the rows. ``partial_fit(train_encoder=True)`` leaves the anchors' codes
    where they were: for a stream that changes its codes much, fit anew.

    What is repaired. As printed, the loss (Eq. 12) contains outputs of the network alone: with large thresholds codes
    and noise are 0, the loss is 0, and nothing is learned; here it is the residual ``X - A1(Z)`` that counts. A step of
    0.01 for the eigenvector layers from a random start leaves the embedding random; here they start from the anchors'
    eigenvectors, with steps of 0.5 on the normalised Laplacian. Batches are tied together by the anchors, pseudo-labels
    by persistent centres, and codes are compared by their direction. ``variant="paper"`` has none of this: Eq. 12, Eq.
    27 and a k-means for every batch as printed, graphs of the batch alone; only the rows of ``predict`` go by anchors,
    since the paper does not say how.

    The paper's codes are longer than a row, with a price for their entries. Neighbours by such codes are hardly better
    than neighbours by pixels: of 10,000 digits of MNIST, their graph puts fours and nines together. The usual network
    here is deep, its codes are short, and thresholds alone make half of their entries 0.

    Rows whose mean has more than three quarters of their energy, such as photographs, all point one way, and so would
    their codes: networks, which unlike dictionaries need no origin, get them without their mean (ORL 69 % instead of
    42). On a black background the mean stays: what is 0 there is worth keeping.

    The eigenvectors are as many as give the smallest balanced cut, between one and two per cluster: with one per
    cluster, two close clusters are often merged.

    References
    ----------
    X. Xie, J. Wu, G. Liu, Z. Lin: "SSCNet: learning-based subspace clustering", Visual Intelligence 2024. Algorithm 1.

    Examples
    --------
    >>> from neuralclust import SSCNet
    >>> from neuralclust.datasets import make_subspaces
    >>> X, y = make_subspaces(120, 3, 2, 20, random_state=0)
    >>> SSCNet(3, embed_dim=40, pretrain_epochs=5, max_epochs=3, random_state=0).fit(X).labels_.shape
    (120,)
    """

    _head_learns_views: ClassVar[bool] = True
    _centers_decide: ClassVar[bool] = False

    _recipes: ClassVar[dict[str, dict[str, Any]]] = {
        "repaired": {
            "max_epochs": 10, "lr": 1e-4, "optimizer": "adam", "n_anchors": 10_000, "n_neighbors": 4, "bandwidth": 0.5,
            "pretrain_epochs": Epochs(2000, 40, 150), "embed_dim": 16, "hidden_layer_sizes": (500, 500, 2000),
            "n_blocks": 1, "sparsity": 0.0,
            "normalize": False, "keep_origin": True, "pretrain_tol": 1e-3,
        },
        "paper": {
            "max_epochs": 100, "pretrain_epochs": 0, "lr": 3e-4, "optimizer": "sgd", "n_anchors": 256,
            "n_neighbors": 5, "bandwidth": 1.0, "embed_dim": 500, "hidden_layer_sizes": (500,), "n_blocks": 4,
            "sparsity": 0.15, "normalize": False, "keep_origin": True, "pretrain_tol": 1e-3,
        },
    }  # fmt: skip

    # What the repaired variant has in their place for codes that are longer than rows: these need a price, or they
    # would be copies.
    _wide: ClassVar[dict[str, Any]] = {
        "embed_dim": 500, "n_blocks": 4, "sparsity": 0.5, "pretrain_epochs": 10,
    }  # fmt: skip

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NeuralClusterer._parameter_constraints,
        "encoder": [StrOptions({"mlp", "conv", "linear"}), nn.Module, None],
        "augment": AUGMENT,
        "init": [StrOptions({"spectral", "k-means", "k-means++", "random"}), np.ndarray],
        "batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "tol": [Interval(Real, 0, 1, closed="left")],
        "embed_dim": [Interval(Integral, 1, None, closed="left"), None],
        "hidden_layer_sizes": ["array-like", None],
        "n_blocks": [Interval(Integral, 0, None, closed="left"), None],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "bandwidth": [Interval(Real, 0, None, closed="neither"), None],
        "n_anchors": [Interval(Integral, 1, None, closed="left"), None],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "sparsity": [Interval(Real, 0, None, closed="left"), None],
        "eigen_weight": [Interval(Real, 0, None, closed="left")],
        "clustering_weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        encoder: str | nn.Module | None = "mlp",
        embed_dim: int | None = None,
        hidden_layer_sizes: Any = None,
        n_blocks: int | None = None,
        n_init: int = 1,
        init: str | np.ndarray = "spectral",
        max_epochs: int | None = None,
        pretrain_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        optimizer: str | None = None,
        tol: float = 1e-3,
        variant: str = "repaired",
        n_neighbors: int | None = None,
        bandwidth: float | None = None,
        n_anchors: int | None = None,
        n_layers: int = 4,
        sparsity: float | None = None,
        eigen_weight: float = 0.15,
        clustering_weight: float = 0.15,
        augment: str | Augmentation | None = None,
        standardize: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        random_state: Any = None,
    ):
        self.n_clusters = n_clusters
        self.encoder = encoder
        self.embed_dim = embed_dim
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_blocks = n_blocks
        self.n_init = n_init
        self.init = init
        self.max_epochs = max_epochs
        self.pretrain_epochs = pretrain_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.tol = tol
        self.variant = variant
        self.n_neighbors = n_neighbors
        self.bandwidth = bandwidth
        self.n_anchors = n_anchors
        self.n_layers = n_layers
        self.sparsity = sparsity
        self.eigen_weight = eigen_weight
        self.clustering_weight = clustering_weight
        self.augment = augment
        self.standardize = standardize
        self.device = device
        self.precision = precision
        self.random_state = random_state

    # -- network ----------------------------------------------------------------------------------------------

    def _autoencoder(self, shape: tuple[int, ...], recipe: SimpleNamespace) -> Autoencoder:
        if self.encoder is None:
            return Features(shape)
        assert isinstance(self.encoder, str)
        return DLADMM(
            shape,
            recipe.n_blocks + 1,
            maps=self.encoder,
            embed_dim=recipe.embed_dim,
            hidden_layer_sizes=recipe.hidden_layer_sizes,
        )

    def _head(self, embed_dim: int, recipe: SimpleNamespace) -> SpectralLayer:
        shared: dict[str, Any] = {
            "n_neighbors": recipe.n_neighbors,
            "bandwidth": recipe.bandwidth,
            "n_layers": self.n_layers,
        }
        if self.variant == "repaired":
            return SpectralLayer(embed_dim, self.n_clusters, recipe.n_anchors, **shared)
        printed: dict[str, Any] = {"mode": "printed", "step": 0.01, "learn_rotation": True, "normalized": False}
        return SpectralLayer(
            embed_dim, self.n_clusters, recipe.n_anchors, cosine=False, residual=False, **printed, **shared
        )

    def _value(self, name: str) -> Any:
        wide = self.variant == "repaired" and isinstance(self.encoder, str) and self.encoder != "mlp"
        if wide and name in self._wide and getattr(self, name, None) is None:
            return self._wide[name]
        return super()._value(name)

    def _recipe(self, n_samples: int) -> SimpleNamespace:
        recipe = super()._recipe(n_samples)
        if self.variant == "paper":
            if min(recipe.batch_size, n_samples) < self.n_clusters <= n_samples:
                raise ValueError(
                    f"batch_size={recipe.batch_size} is smaller than n_clusters={self.n_clusters}, and the paper "
                    f"clusters every batch on its own. Use larger batches, or variant='repaired'."
                )
            recipe.n_anchors = min(recipe.n_anchors, recipe.batch_size)
        if recipe.n_anchors < self.n_clusters <= n_samples:
            raise ValueError(
                f"n_anchors={recipe.n_anchors} is smaller than n_clusters={self.n_clusters}. Use a hundred for each."
            )
        recipe.n_anchors = min(recipe.n_anchors, n_samples)
        return recipe

    def _initialize(self, module: ClusterModule, source: Source, trainer: Trainer) -> None:
        """The data's mean and thresholds on its scale, unless printed, or those of a network that was passed."""
        net = module.autoencoder
        if self.variant == "repaired" and isinstance(self.encoder, str) and isinstance(net, DLADMM):
            rows = torch.randperm(len(source), generator=trainer.generator)[:TILE]
            (_, x), *_ = source.batches([rows])
            x = x.to(trainer.device)
            mean = x.double().mean(dim=0)
            if self.encoder != "linear" and mean.square().mean() > _ONE_WAY * x.double().square().mean():
                module.center_(mean)
            net.calibrate_(module.prepare(x))

    def _place_centers(
        self, module: ClusterModule, source: Source, recipe: SimpleNamespace, trainer: Trainer, seed: int
    ) -> None:
        """Choose the anchors; their graph, embedding and first clusters."""
        recipe.memory["anchors"] = torch.randperm(len(source), generator=trainer.generator)[: recipe.n_anchors]
        self._find_anchors(source, recipe)
        if self.variant == "paper":
            size = min(recipe.batch_size, len(source))
            recipe.memory["start"] = random_orthonormal(size, self.n_clusters, trainer.generator)
            self._printed_anchors(module, recipe, trainer.device)
            return
        z = self._anchor_codes(module, recipe, trainer.device)
        finite_codes(z.cpu().numpy())
        recipe.graph = module.head.set_anchors_(z)
        found, vectors = spectral_partition(as_scipy(recipe.graph), self.n_clusters, seed=seed)
        labels = torch.from_numpy(found).to(trainer.device)
        if not (isinstance(recipe.init, str) and recipe.init == "spectral"):
            super()._place_centers(module, source, recipe, trainer, seed)
            labels = squared_euclidean(z, module.head.centers).argmin(dim=1)
        module.head.set_embedding_(vectors, labels)

    def _find_anchors(self, source: Source, recipe: SimpleNamespace) -> None:
        chosen = recipe.memory["anchors"]
        recipe.anchors = Rows(source, chosen)
        recipe.position = torch.full((len(source),), -1)  # of a row among the anchors
        recipe.position[chosen] = torch.arange(len(chosen))

    def _recall(self, module: ClusterModule, source: Source, recipe: SimpleNamespace) -> None:
        self._find_anchors(source, recipe)
        if self.variant == "repaired":
            recipe.graph = module.head.graph()

    def _anchor_codes(self, module: ClusterModule, recipe: SimpleNamespace, device: torch.device) -> Tensor:
        mode = module.training
        z = map_rows(module, module.encode, recipe.anchors, tile=TILE, device=device)
        module.train(mode)
        return torch.from_numpy(z).to(device)

    def _summarize(self, module: ClusterModule, source: Source, recipe: SimpleNamespace, device: torch.device) -> None:
        """The anchors under the final network, and mean codes of the clusters."""
        if self.variant == "paper":
            self._printed_anchors(module, recipe, device)
        elif recipe.max_epochs and trainable(module.autoencoder):
            z = self._anchor_codes(module, recipe, device)
            if z.isfinite().all():  # else the loss is not, which is warned of
                module.head.refresh_(z)
        self._mean_codes(module, source, device)

    def _fill_empty_clusters(self, source: Source, seed: int) -> None:
        """A cluster without anchors is not refilled: no centre could be moved to bring it back."""

    # -- losses -----------------------------------------------------------------------------------------------

    def _coding(self, module: ClusterModule, x: Tensor) -> tuple[Tensor, Terms]:
        """Codes, and Eq. 12 with the residual for the noise, per row and per entry.

        The weights of rows depend on the batch: they are for training.
        """
        z = module.encode(x)
        norms = module.gather(_norms(x - module.decode(z)))
        if module.training:
            norms = adaptive_weights(norms.detach()) * norms
        rec = norms.mean() / x[0].numel() ** 0.5
        sparse = z.abs().mean()
        weight = self._weight("sparsity", module, 0.5)  # the residual is a length, the root of a variance
        return z, {"loss": rec + weight * sparse, "rec": rec, "sparse": sparse}

    def _reconstruction(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        return self._coding(module, self._view(module, x, "pretrain"))[1]

    def _loss(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        """Without Eq. 28, which belongs to a graph. The printed weights of rows depend on the others of a batch."""
        if self.variant == "repaired":
            z, terms = self._coding(module, x)
        else:
            z, sums = self._printed_coding(module, x)
            terms = {name: value / len(z) for name, value in sums.items()}
        clu = module.head.loss(z)
        return {**terms, "loss": terms["loss"] + self.clustering_weight * clu, "clu": clu}

    # -- updates ----------------------------------------------------------------------------------------------

    def _turn(self) -> str:
        return "batch"

    def _stop(self, rows: list[dict[str, Any]], recipe: SimpleNamespace) -> bool:
        if rows[-1]["stage"] == "fit" and "changed" not in rows[-1]:
            return False  # the losses of different turns cannot be compared
        return super()._stop(rows, recipe)

    def _pretraining(self, weights: list[Tensor], recipe: SimpleNamespace) -> Update:
        return Update(self._reconstruction, make_optimizer(recipe.optimizer, weights))

    def _updates(self, module: ClusterModule, recipe: SimpleNamespace) -> list[Update]:
        """Algorithm 1: every third batch teaches the codes, every third the eigenvectors too, every third all."""
        changes = LabelChanges(recipe.n_samples, recipe.memory)
        if self.variant == "repaired":
            coding, embed, classify = self._coding, self._embed, self._classify
        else:
            coding, embed, classify = self._printed_coding, self._printed_embed, self._printed_classify
        batches = max(1, recipe.n_samples // recipe.batch_size)
        recipe.memory["seen"] = torch.tensor(0)

        def codes(module: ClusterModule, x: Tensor) -> tuple[Tensor, Terms]:
            seen = int(recipe.memory["seen"])
            if seen and seen % batches == 0:
                self._follow(module, recipe)
            recipe.memory["seen"] = torch.tensor(seen + 1)
            return coding(module, self._view(module, x))

        def eigenvectors(module: ClusterModule, x: Tensor, index: Tensor) -> tuple[Tensor, Terms]:
            z, terms = codes(module, x)
            y, smoothness = embed(module, z, index, recipe)
            return y, {**terms, "loss": terms["loss"] + self.eigen_weight * smoothness, "eigen": smoothness}

        def everything(module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
            y, terms = eigenvectors(module, x, index)
            logits, clu = classify(module, y)
            loss = terms["loss"] + self.clustering_weight * clu
            return {**terms, "loss": loss, "clu": clu, "changed": changes(logits.argmax(dim=1), index)}

        head = [*module.head.transform.parameters(), *module.head.classifier.parameters()]
        parts = trainable(module.autoencoder), list(module.head.layers.parameters()), head  # Theta 1, 2, 3
        one, two, three = ([make_optimizer(recipe.optimizer, p, recipe.lr)] if p else [] for p in parts)
        rate = cosine_rate if self.variant == "repaired" else None
        all_three = Update(everything, *one, *two, *three, rate=rate)
        if not one:
            return [all_three]
        return [
            Update(lambda module, x, index: codes(module, x)[1], *one, rate=rate),
            Update(lambda module, x, index: eigenvectors(module, x, index)[1], *one, *two, rate=rate),
            all_three,
        ]

    def _follow(self, module: ClusterModule, recipe: SimpleNamespace) -> None:
        """Once an epoch the anchors follow the network."""
        if self.variant == "repaired" and self.encoder is not None:
            z = self._anchor_codes(module, recipe, recipe.graph.device)
            if z.isfinite().all():  # else the loss will not be either, and the trainer says so
                recipe.graph = module.head.refresh_(z)

    def _embed(self, module: ClusterModule, z: Tensor, index: Tensor, recipe: SimpleNamespace) -> tuple[Tensor, Tensor]:
        """Eigenvectors of the batch within the anchors' graph, and Eq. 28."""
        return module.head.embed(z, recipe.graph, recipe.position[index.cpu()].to(z.device))

    def _classify(self, module: ClusterModule, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and Eq. 29 with the persistent prototypes as pseudo-labels."""
        logits = module.head.logits(y)
        return logits, F.cross_entropy(logits, module.head.pseudo_labels(y.detach()))

    def _centers_update(self, module: ClusterModule, recipe: SimpleNamespace) -> Update:
        return RunningMeans(
            self._centers_only, make_optimizer(recipe.optimizer, list(module.head.parameters()), recipe.lr)
        )

    # -- as printed -------------------------------------------------------------------------------------------

    def _printed_coding(self, module: ClusterModule, x: Tensor) -> tuple[Tensor, Terms]:
        """Eq. 12: nothing in it but outputs of the network."""
        net = module.autoencoder
        if isinstance(net, DLADMM):
            z, e, _ = net.solve(x)
            z = module.gather(z)
        else:
            z = module.encode(x)
            e = x - module.decode(z)
        norms = module.gather(_norms(e))
        rec, sparse = (adaptive_weights(norms.detach()) * norms).sum(), z.abs().sum()
        return z, {"loss": rec + self._value("sparsity") * sparse, "rec": rec, "sparse": sparse}

    def _printed_embed(
        self, module: ClusterModule, z: Tensor, index: Tensor | None, recipe: SimpleNamespace
    ) -> tuple[Tensor, Tensor]:
        """Eigenvectors of the batch's own graph, from the start that all batches share, and Eq. 28."""
        lap = laplacian(knn_graph(z, recipe.n_neighbors, recipe.bandwidth), normalized=False)
        y = recipe.memory["start"].to(z.device)
        if len(z) < len(y):  # fewer anchors than a batch has rows
            y = torch.linalg.qr(y[: len(z)])[0]
        for layer in module.head.layers:
            y = layer(y, lap)
        return F.pad(y, (0, self.n_clusters)), (y * multiply(lap, y)).sum()

    def _printed_classify(self, module: ClusterModule, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and Eq. 29 with a k-means of this batch alone as pseudo-labels."""
        h = module.head.transform(y)
        points = h.detach().nan_to_num(0.0).cpu().numpy()  # what diverges is for the trainer to notice
        labels = torch.from_numpy(fit_kmeans(points, self.n_clusters, n_init=1, seed=0).labels_).long()
        logits = module.head.classifier(h)
        return logits, F.cross_entropy(logits, labels.to(h.device), reduction="sum")

    def _printed_anchors(self, module: ClusterModule, recipe: SimpleNamespace, device: torch.device) -> None:
        """The anchors as a batch, for ``predict``."""
        z = self._anchor_codes(module, recipe, device)
        module.head.set_anchors_(z)
        with torch.no_grad():
            y, _ = self._printed_embed(module, z, None, recipe)
            labels = module.head.logits(y).argmax(dim=1)
        module.head.set_embedding_(y[:, : self.n_clusters], labels)


def _norms(e: Tensor) -> Tensor:
    """Length of each row, with a gradient where it is 0."""
    return (e.flatten(1).square().sum(dim=1) + _TINY).sqrt()
