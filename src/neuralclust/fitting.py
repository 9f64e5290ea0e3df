"""How an estimator is fitted: restarts, pretraining, first centres, joint training, empty clusters.

A method writes the hooks at the top; the order of things is here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from numbers import Integral
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from neuralclust._warn import warn
from neuralclust.augment import resolve_augmentation
from neuralclust.callbacks import FitReport
from neuralclust.checkpoint import Keeper, check_agreement
from neuralclust.data import Rows, Source, consecutive, part_of
from neuralclust.functional import mask_noise, reconstruction_loss
from neuralclust.kmeans import split_clusters
from neuralclust.nn import Autoencoder, BalancedTarget, ClusterModule
from neuralclust.nn.autoencoders import adapt_encoder
from neuralclust.peers import Peers, find_peers
from neuralclust.runtime import draw_seeds, resolve_device, resolve_precision, seeded
from neuralclust.scaling import find_range
from neuralclust.schedules import ENOUGH, PEAK, Epochs, learning_rate, small_steps, usual_batch
from neuralclust.spectral import first_centers
from neuralclust.training import (
    TILE,
    Terms,
    Trainer,
    Update,
    make_optimizer,
    mean_loss,
    one_cycle,
    settled,
    trainable,
)
from neuralclust.warmstart import draw_together, encoded, graph_clusters, rows_held

_VARIED = 0.02  # mean variance of scaled columns from which clustering weights are the usual ones: that of faces


class FitProcedure(BaseEstimator):
    """The part of :class:`~neuralclust.base.NeuralClusterer` that fits."""

    # What a parameter left at None stands for, by variant.
    _recipes: ClassVar[dict[str, dict[str, Any]]]

    # The same, of parameters whose default hangs on the target.
    _by_target: ClassVar[dict[str, dict[str, Any]]] = {}

    # Whether a cluster layer without an encoder learns anything from augmented rows.
    _head_learns_views: ClassVar[bool] = False

    # Whether a row's cluster is that of a centre, and not what a classifier says.
    _centers_decide: ClassVar[bool] = True

    # variant is a parameter of the methods that a paper proposes; the others have one form only.
    variant: str = "repaired"

    # -- what a method writes -------------------------------------------------------------------------------

    def _head(self, embed_dim: int, recipe: SimpleNamespace) -> nn.Module:
        """The cluster layer."""
        raise NotImplementedError

    def _autoencoder(self, shape: tuple[int, ...], recipe: SimpleNamespace) -> Autoencoder:
        """The network around it: fully connected, convolutional, the user's own, or none."""
        raise NotImplementedError

    def _loss(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        """The whole objective: what ``score`` reports and restarts are chosen by."""
        raise NotImplementedError

    def _updates(self, module: ClusterModule, recipe: SimpleNamespace) -> list[Update]:
        """The joint stage; none for a method that is done once its centres are."""
        raise NotImplementedError

    def _turn(self) -> str:
        """How the updates of the joint stage take turns: "all", "epoch" or "batch"."""
        return "all"

    def _evaluation(self, source: Source) -> tuple[Source, int]:
        """Rows and how many of them at a time, for the mean loss: what ``score`` and the choice of a run look at."""
        return source, TILE

    def _mean_loss(
        self, module: ClusterModule, source: Source, device: torch.device, peers: Peers | None = None
    ) -> float:
        rows, tile = self._evaluation(source)
        return mean_loss(module, self._loss, rows, tile=tile, device=device, peers=peers or Peers())

    def _stop(self, rows: list[dict[str, Any]], recipe: SimpleNamespace) -> bool:
        """Whether a stage is done, from its epochs so far: few rows change cluster, or the loss has settled."""
        if "changed" in rows[-1]:
            return 0 < recipe.tol >= rows[-1]["changed"]
        return settled(rows, recipe.pretrain_tol)

    def _initialize(self, module: ClusterModule, source: Source, trainer: Trainer) -> None:
        """What a new network takes from the data before it learns."""

    def _recall(self, module: ClusterModule, source: Source, recipe: SimpleNamespace) -> None:
        """In place of the first centres, when a fit goes on after them: what follows from module and memory."""

    def _pretraining(self, weights: list[Tensor], recipe: SimpleNamespace) -> Update:
        """Of the autoencoder alone."""
        if not recipe.one_cycle:
            return Update(self._reconstruction, make_optimizer(recipe.optimizer, weights, recipe.lr))
        # At the full rate a wide net dies on a few hundred rows.
        lr = PEAK * learning_rate(recipe) * small_steps(recipe.pretrain_batch_size) ** 0.5
        return Update(self._reconstruction, make_optimizer(recipe.optimizer, weights, lr), rate=one_cycle)

    def _summarize(self, module: ClusterModule, source: Source, recipe: SimpleNamespace, device: torch.device) -> None:
        """What the cluster layer keeps of all rows, once it is trained."""

    def _centers_only(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        """The loss of the cluster layer on codes as they are."""
        clu = module.head.loss(self._fixed_codes(module, x))
        return {"loss": clu, "clu": clu}

    @staticmethod
    @torch.no_grad()
    def _fixed_codes(module: ClusterModule, x: Tensor) -> Tensor:
        """Those that predict sees: no dropout, and statistics of batch norm stay."""
        module.autoencoder.eval()
        return module.encode(x)

    def _weight(self, name: str, module: ClusterModule, power: float = 1.0) -> float | Tensor:
        """As given, or the usual one: less for rows that vary so little that all of their reconstruction is less."""
        usual = self._value(name)
        if self.variant == "paper" or getattr(self, name) is not None:
            return usual
        return usual * (module.variance / _VARIED).clamp(max=1.0).pow(power).float()

    def _centers_update(self, module: ClusterModule, recipe: SimpleNamespace) -> Any:
        """For a stream: what moves the centres alone, on the codes as they are."""
        raise NotImplementedError

    def _encoder_loss(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        """For a stream: what the encoder learns from, if asked."""
        return self._loss(module, x, index)

    # -- the fit ------------------------------------------------------------------------------------------------

    def _fit_source(self, source: Source, checkpoint: Any = None, resume: bool = False) -> None:
        if len(source) < self.n_clusters:
            raise ValueError(
                f"n_samples={len(source)} should be >= n_clusters={self.n_clusters}. "
                f"Pass more rows or ask for fewer clusters."
            )
        recipe = self._recipe(len(source))
        peers = find_peers()
        device = resolve_device(self.device)
        check_agreement(self, source, peers, checkpoint is None)
        for name in ("batch_size", "pretrain_batch_size"):  # of all processes together: equal shares
            size = getattr(recipe, name)
            setattr(recipe, name, size - size % peers.size or size)
        found = find_range(source, peers, recipe, getattr(self, "feature_names_in_", None))
        keeper = Keeper(checkpoint, resume, self, source, peers)
        recipe.memory = keeper.memory
        self.history_: list[dict[str, Any]] = keeper.history
        self.__dict__.pop("_online", None)
        stages = [recipe.pretrain_epochs > 0 and self.encoder is not None, True, recipe.max_epochs > 0]
        report = FitReport(self, self.n_init * sum(stages), peers)

        def build(seed: int) -> ClusterModule:
            with seeded(seed, device):
                return self._build(source.shape, recipe).to(device)

        drawn = draw_seeds(self.random_state, self.n_init)
        seeds = keeper.begin(peers.first(lambda: drawn))
        best = keeper.earlier_best(build)
        for run, seed in enumerate(seeds):
            if run < keeper.run:
                continue
            keeper.start_run(run, self.history_, best)
            with seeded(seed, device) as generator:
                module = self._build(source.shape, recipe)
                self._check_views(module)
                module.set_range_(*found)
                module.to(device)
                precision = resolve_precision(self.precision, device, module.autoencoder)
                peers.equalize_(module)
                trainer = Trainer(recipe.batch_size, device, precision, generator, peers)
                n_iter = self._train(module, source, trainer, recipe, report, keeper, run, seed)
                self._summarize(module, source, recipe, device)
                peers.equalize_(module)
                loss = self._mean_loss(module, source, device, peers)
            if best is None or _smaller(loss, best[0]):
                best = loss, module, n_iter, seed
        assert best is not None  # n_init is at least 1
        self.loss_, self.module_, self.n_iter_, seed = best
        self._fitted_params = self.get_params(deep=False)  # what save writes, whatever set_params does later
        self._n_samples = len(source)  # some layers have room for so many rows
        self.labels_ = peers.join(self._predict(part_of(source, peers)), len(source))
        if len(np.unique(self.labels_)) < self.n_clusters and self.variant == "repaired":
            self._fill_empty_clusters(source, seed)
            peers.equalize_(self.module_)
            self.labels_, self.loss_ = peers.first(lambda: (self.labels_, self.loss_))
        self._check_clusters()
        keeper.finish()
        report.end()

    def _train(
        self,
        module: ClusterModule,
        source: Source,
        trainer: Trainer,
        recipe: SimpleNamespace,
        report: FitReport,
        keeper: Keeper,
        run: int,
        seed: int,
    ) -> int:
        """Pretraining, first centres, joint training; the number of epochs of the last stage."""

        def stage(name: str, epochs: int, updates: list[Update], turn: str, fitted: Any) -> int:
            if not epochs or not updates:
                return 0
            rows = [row for row in self.history_ if (row["init"], row["stage"]) == (run, name)]
            if keeper.is_past(name):
                return len(rows)
            with report.stage(name, epochs, fitted) as epoch_ended:

                def log(row: dict[str, Any]) -> bool:
                    rows.append(row)
                    self.history_.append({"init": run, **row})
                    return epoch_ended() or self._stop(rows, recipe)

                size = recipe.pretrain_batch_size if name == "pretrain" else recipe.batch_size
                replace(trainer, batch_size=size).fit(
                    module, source, updates, stage=name, epochs=epochs, turn=turn, on_epoch=log, keeper=keeper
                )
            return len(rows)

        self._initialize(module, source, trainer)
        trainer.peers.equalize_(module)
        weights = trainable(module.autoencoder)
        n_iter = 0
        if weights:
            n_iter = stage("pretrain", recipe.pretrain_epochs, [self._pretraining(weights, recipe)], "all", None)
        if keeper.is_past("pretrain"):
            keeper.recall(module)
            self._recall(module, source, recipe)
        else:
            with report.share("start") as done:
                self._place_centers(module, source, recipe, replace(trainer, report=done), seed)
        trainer.peers.equalize_(module)
        fitted = dict(module_=module, n_features_in_=self.n_features_in_, _fitted_params=self.get_params(deep=False))
        updates = self._updates(module, recipe)
        return stage("fit", recipe.max_epochs, updates, self._turn(), lambda: fitted) or n_iter

    def _place_centers(
        self, module: ClusterModule, source: Source, recipe: SimpleNamespace, trainer: Trainer, seed: int
    ) -> np.ndarray | None:
        """First centres, from the codes of all rows or of as many as fit into memory; these codes."""
        found, init = None, self._start(module)
        if isinstance(init, str) and init == "graph":
            found = graph_clusters(module, source, module.encode, self.n_clusters, trainer, seed)
            init = "k-means"  # if there is none
        if found is not None:
            z = draw_together(self, module, *found, recipe, trainer)
        else:
            z = self._codes(module, source, trainer)
            centers = first_centers(z, self.n_clusters, init, seed=seed)
            module.head.init_(torch.as_tensor(centers, dtype=torch.float32, device=trainer.device))
        if isinstance(getattr(module.head, "target", None), BalancedTarget):
            with torch.no_grad():
                parts = torch.as_tensor(z).split(2**14)
                labels = torch.cat([module.head.predict(part.to(trainer.device)) for part in parts])
            module.head.target.expect_(labels.bincount(minlength=self.n_clusters))
        return z

    def _start(self, module: ClusterModule) -> Any:
        """Where the first centres come from: as given, or the usual start."""
        if (init := self._value("init")) is not None:
            return init
        # With views joint training mends a vague start by itself, and cannot mend errors that have been learned.
        return "graph" if getattr(self, "augment", None) is None and self._encoder_learns(module) else "spectral"

    def _encoder_learns(self, module: ClusterModule) -> bool:
        """Whether the encoder has weights that the clusters may change."""
        return bool(trainable(module.autoencoder.encoder)) and getattr(self, "end_to_end", True)

    def _optimizer(self, params: list[Tensor], recipe: SimpleNamespace, lr: float) -> torch.optim.Optimizer:
        """The optimiser of joint training."""
        return make_optimizer(recipe.optimizer, params, lr)

    def _codes(
        self,
        module: ClusterModule,
        source: Source,
        trainer: Trainer,
        encode: Callable[[Tensor], Tensor] | None = None,
    ) -> np.ndarray:
        """Codes of all rows, or of a random part of them that fits into memory."""
        encode = encode or module.encode
        most = rows_held(module, source, encode, self.n_clusters, trainer)
        rows: Source = source
        if most < len(source):
            chosen = torch.randperm(len(source), generator=trainer.generator)[:most].sort().values
            rows = Rows(source, chosen)
        return encoded(module, rows, encode, trainer)

    @torch.no_grad()
    def _all_codes(self, module: ClusterModule, source: Source, device: torch.device) -> Iterator[Tensor]:
        """Codes of all rows, some at a time."""
        module.eval()
        for _, x in source.batches(consecutive(len(source), TILE)):
            yield module.encode(module.prepare(x.to(device)))

    def _mean_codes(self, module: ClusterModule, source: Source, device: torch.device) -> None:
        """Centres that decide nothing: the mean code of each cluster, for looking at."""
        module.head.init_(torch.zeros_like(module.head.centers))
        for z in self._all_codes(module, source, device):
            module.head.update_(z)

    def _fill_empty_clusters(self, source: Source, seed: int) -> None:
        """Cut the widest clusters in two until none is empty, and say so."""
        module, device = self.module_, self._device()
        alone = Trainer(TILE, device, torch.float32, torch.Generator().manual_seed(seed), Peers())
        z = torch.from_numpy(self._codes(module, source, alone))
        old = module.head.centers.detach().clone()

        def place(centers: np.ndarray) -> None:
            new = torch.as_tensor(centers, dtype=torch.float32, device=device)
            rows = new.ne(module.head.centers).any(dim=1)
            module.head.init_(new[rows], rows)

        @torch.inference_mode()
        def predict(centers: np.ndarray) -> np.ndarray:
            place(centers)
            return torch.cat([module.head.predict(part.to(device)).cpu() for part in z.split(2**14)]).numpy()

        centers, filled, cut = split_clusters(z.numpy(), predict, old.cpu().numpy(), seed)
        place(centers)
        if filled:
            self._summarize(module, source, self._recipe(len(source)), device)
            self.labels_ = self._predict(source)
            self.loss_ = self._mean_loss(module, source, device)
            warn(
                f"Clusters {filled} were empty after training; each was given half of the widest cluster: {cut} were "
                f"cut in two. Fewer n_clusters, or more epochs, may help."
            )

    def _check_clusters(self) -> None:
        """Warn, by name, of what went wrong."""
        if not np.isfinite(self.loss_):
            warn(f"The loss of the fitted model is {self.loss_}: do not trust its clusters. Rescale X or lower lr.")
        empty = sorted(set(range(self.n_clusters)) - set(np.unique(self.labels_).tolist()))
        if not empty:
            return
        if self.variant == "paper":
            why = "Nothing was done about them, as in the paper; variant='repaired' mends what leads there."
        else:
            why = (
                "X may have fewer distinct rows than n_clusters, all codes may have collapsed to one point, or rows of "
                "zeros, which have no direction, are more than one cluster can tell apart."
            )
        warn(f"{len(empty)} of {self.n_clusters} clusters are empty: {empty}. {why}")

    # -- pieces of a fit ------------------------------------------------------------------------------------

    def _value(self, name: str) -> Any:
        """A parameter, or what None stands for in this variant."""
        value = getattr(self, name, None)
        if value is None:
            value = self._recipes[self.variant].get(name)
        if value is None and name != "target":
            value = self._by_target.get(self._value("target"), {}).get(name)
        return value

    def _recipe(self, n_samples: int) -> SimpleNamespace:
        """All parameters, with what None stands for filled in."""
        names = {*self._get_param_names(), *self._recipes[self.variant]}
        values = {name: self._value(name) for name in names}
        for name in ("batch_size", "pretrain_batch_size"):
            if values.setdefault(name, values["batch_size"]) is None:
                values[name] = usual_batch(n_samples)
        # Scale without a shift where directions from the origin count.
        values.setdefault("keep_origin", self.encoder is None and values["normalize"])
        values.setdefault("pretrain_tol", values["tol"])
        values.setdefault("one_cycle", False)
        for name, (size, enough) in ENOUGH.items():
            if values.get(name) is None:
                values[name] = enough
            if isinstance(values[name], Epochs):
                values[name] = values[name].epochs(max(1, n_samples // values[size]))
        values["n_samples"] = n_samples
        values["memory"] = {}  # tensors that a stage keeps beside the module: checkpoints hold them
        return SimpleNamespace(**values)

    def _build(self, shape: tuple[int, ...], recipe: SimpleNamespace | None = None) -> ClusterModule:
        recipe = recipe or self._recipe(1)
        sizes = recipe.hidden_layer_sizes
        if not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes={sizes!r} must be positive integers, such as (500, 500, 2000).")
        if isinstance(self.encoder, nn.Module):
            ends = "linear" if recipe.keep_origin else "sigmoid"  # rows may be negative, or are 0 .. 1
            autoencoder = adapt_encoder(self.encoder, shape, sizes, output_activation=ends)
        else:
            autoencoder = self._autoencoder(shape, recipe)
        autoencoder.normalize = recipe.normalize
        return ClusterModule(autoencoder, self._head(autoencoder.embed_dim, recipe), shape)

    def _check_views(self, module: ClusterModule) -> None:
        if getattr(self, "augment", None) is None or self._head_learns_views or trainable(module.autoencoder.encoder):
            return
        raise ValueError(
            f"augment={self.augment!r} has nothing to teach: {type(self).__name__} learns from views by its encoder, "
            f"and encoder={self.encoder!r} has no weights that may learn. Use augment=None, or an encoder."
        )

    def _view(self, module: ClusterModule, x: Tensor, stage: str = "joint") -> Tensor:
        """Augmented rows, while training a method that has ``augment``."""
        views = resolve_augmentation(getattr(self, "augment", None))
        if views is None or not module.training:
            return x
        centered = module.mean.ndim > 0  # views are of rows in 0 to 1, black at 0, even where the mean row is taken off
        if centered:
            x = x + module.mean.to(x)
        y = getattr(views, stage)(x.clone() if callable(self.augment) else x)  # the user's may work in place
        if not isinstance(y, Tensor) or y.shape != x.shape:
            got = f"a tensor of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"augment={self.augment!r} returned {got} for a batch of shape {tuple(x.shape)}; it must return a "
                f"tensor of the same shape."
            )
        return (y - module.mean if centered else y).to(x.dtype)

    def _encode_views(self, module: ClusterModule, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What is to be reconstructed, its codes, and the codes that the clustering loss sees: the clean rows first.

        Without augmentation they are the rows themselves.
        """
        view = self._view(module, x)
        if view is x:
            z = module.encode(x)
            return x, z, [z]
        z, z_view = module.encode_views(x, view)
        return view, z_view, [z, z_view]

    def _reconstruction(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        x = self._view(module, x, "pretrain")
        noisy = mask_noise(x, self._value("noise") or 0.0) if module.training else x
        rec = reconstruction_loss(x, module.decode(module.encode(noisy)))
        return {"loss": rec, "rec": rec}


def _smaller(loss: float, best: float) -> bool:
    return loss < best or (np.isnan(best) and not np.isnan(loss))
