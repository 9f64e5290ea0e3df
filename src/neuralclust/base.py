"""The base of every estimator: parameters, validation, fit, predict, and what scikit-learn expects of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import ClassifierTags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted
from torch import Tensor, nn

from neuralclust.callbacks import FitReport
from neuralclust.data import Rows, Source, as_source, consecutive, value_range
from neuralclust.functional import mask_noise, reconstruction_loss
from neuralclust.kmeans import initial_centers, split_clusters
from neuralclust.nn import Autoencoder, ClusterModule
from neuralclust.nn.autoencoders import adapt_encoder
from neuralclust.runtime import draw_seeds, resolve_device, resolve_precision, seeded
from neuralclust.training import (
    LEARNING_RATES,
    Terms,
    Trainer,
    Update,
    make_optimizer,
    map_rows,
    mean_terms,
    prepared,
    trainable,
)

_TILE = 256  # rows a product at inference: as fast as larger on a CPU, and a single row is not padded to more
_CODE_BYTES = 2**25  # codes held at once to choose the first centres from


class NeuralClusterer(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator
):
    """A clusterer with an encoder, a cluster layer and scikit-learn's interface.

    A method's file writes ``_recipes``, ``_head``, ``_loss`` and ``_updates``; the rest is here.
    """

    # What a parameter left at None stands for, by variant.
    _recipes: ClassVar[dict[str, dict[str, Any]]]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "encoder": [StrOptions({"mlp", "conv"}), nn.Module, None],
        "embed_dim": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like"],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"k-means", "k-means++", "random"}), np.ndarray, None],
        "max_epochs": [Interval(Integral, 0, None, closed="left"), None],
        "pretrain_epochs": [Interval(Integral, 0, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "optimizer": [StrOptions(set(LEARNING_RATES)), None],
        "tol": [Interval(Real, 0, None, closed="left"), None],
        "variant": [StrOptions({"repaired", "paper"})],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "random_state": ["random_state"],
    }

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
        return "all"

    def _centers_update(self, module: ClusterModule, recipe: SimpleNamespace) -> Any:
        """For a stream: what moves the centres alone, on the codes as they are."""
        raise NotImplementedError

    def _encoder_loss(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        """For a stream: what the encoder learns from, if asked."""
        return self._loss(module, x, index)

    # variant is a parameter of the methods that a paper proposes; the others have one form only.
    variant: str = "repaired"

    # -- fit --------------------------------------------------------------------------------------------------

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Cluster the rows of ``X``.

        Parameters
        ----------
        X : array-like, sparse matrix, tensor, torch Dataset or DataLoader
            Rows ``(n_samples, n_features)`` or images ``(n, height, width)`` or ``(n, channels, height, width)``,
            of any numeric dtype. Of arrays, memory maps, CSR matrices and tensors beyond 16 MB, nothing but a batch at
            a time is copied, cast or densified; lists, data frames and other sparse formats are converted first. Of
            the tuples that a Dataset yields, the first item is used.
        y : Ignored
            Present for scikit-learn; labels are never used.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If ``X`` or a parameter cannot be used. The estimator is then left as it was.
        """
        with _all_or_nothing(self):
            self._fit_source(as_source(self, X, reset=True))
        return self

    def _fit_source(self, source: Source) -> None:
        if len(source) < self.n_clusters:
            raise ValueError(
                f"n_samples={len(source)} should be >= n_clusters={self.n_clusters}. "
                f"Pass more rows or ask for fewer clusters."
            )
        recipe = self._recipe(len(source))
        device = resolve_device(self.device)
        low, high = value_range(source)
        if self.encoder is None and recipe.normalize:  # directions count: scale, but do not shift
            low, high = 0.0, max(-low, high)
        self.history_: list[dict[str, Any]] = []
        self.__dict__.pop("_online", None)
        stages = [
            recipe.pretrain_epochs > 0 and self.encoder is not None,
            recipe.max_epochs > 0,
        ]
        report = FitReport(self, self.n_init * sum(stages))
        best: tuple[float, ClusterModule, int, int] | None = None
        for run, seed in enumerate(draw_seeds(self.random_state, self.n_init)):
            with seeded(seed, device) as generator:
                module = self._build(source.shape, recipe)
                module.set_range_(low, high)
                module.to(device)
                precision = resolve_precision(self.precision, device, module.autoencoder)
                trainer = Trainer(recipe.batch_size, device, precision, generator, recipe.tol)
                n_iter = self._train(module, source, trainer, recipe, report, run, seed)
                loss = mean_terms(module, self._loss, source, tile=_TILE, device=device)["loss"]
            if best is None or _smaller(loss, best[0]):
                best = loss, module, n_iter, seed
        assert best is not None  # n_init is at least 1
        self.loss_, self.module_, self.n_iter_, seed = best
        self._fitted_params = self.get_params(deep=False)  # what save writes, whatever set_params does later
        self.labels_ = self._predict(source)
        if len(np.unique(self.labels_)) < self.n_clusters and self.variant == "repaired":
            self._fill_empty_clusters(source, seed)
        self._check_clusters()
        report.end()

    def _train(
        self,
        module: ClusterModule,
        source: Source,
        trainer: Trainer,
        recipe: SimpleNamespace,
        report: FitReport,
        run: int,
        seed: int,
    ) -> int:
        """Pretraining, first centres, joint training; the number of epochs of the last stage."""

        def stage(name: str, epochs: int, updates: list[Update], turn: str, fitted: Any) -> int:
            if not epochs or not updates:
                return 0
            with report.stage(name, epochs, fitted) as epoch_ended:

                def log(row: dict[str, Any]) -> bool:
                    self.history_.append({"init": run, **row})
                    return epoch_ended()

                return len(trainer.fit(module, source, updates, stage=name, epochs=epochs, turn=turn, on_epoch=log))

        weights = trainable(module.autoencoder)
        n_iter = 0
        if weights:
            pretraining = Update(self._reconstruction, make_optimizer(recipe.optimizer, weights, recipe.lr))
            n_iter = stage("pretrain", recipe.pretrain_epochs, [pretraining], "all", None)
        self._place_centers(module, source, recipe, trainer, seed)
        fitted = {"module_": module, "n_features_in_": self.n_features_in_}
        updates = self._updates(module, recipe)
        return stage("fit", recipe.max_epochs, updates, self._turn(), lambda: fitted) or n_iter

    def _place_centers(
        self, module: ClusterModule, source: Source, recipe: SimpleNamespace, trainer: Trainer, seed: int
    ) -> None:
        """First centres, from the codes of all rows or of as many as fit into memory."""
        z = self._codes(module, source, trainer.generator, trainer.device)
        if isinstance(recipe.init, np.ndarray):
            expected = (self.n_clusters, z.shape[1])
            centers = check_array(recipe.init, dtype=np.float32, ensure_2d=False, input_name="init")
            if centers.shape != expected:
                raise ValueError(
                    f"init has shape {centers.shape}; {expected} is needed: a centre for each cluster, in "
                    f"the space of the codes."
                )
        else:
            centers = initial_centers(z, self.n_clusters, recipe.init, n_init=10, seed=seed)
        module.head.init_(torch.as_tensor(centers, dtype=torch.float32, device=trainer.device))

    def _codes(
        self, module: ClusterModule, source: Source, generator: torch.Generator, device: torch.device
    ) -> np.ndarray:
        """Codes of all rows, or of a random part of them that fits into ``_CODE_BYTES``."""
        most = max(_CODE_BYTES // (4 * module.autoencoder.embed_dim), 100 * self.n_clusters)
        rows: Source = source
        if most < len(source):
            chosen = torch.randperm(len(source), generator=generator)[:most].sort().values
            rows = Rows(source, chosen)
        z = map_rows(module, module.encode, rows, tile=_TILE, device=device)
        if not np.isfinite(z).all():
            raise ValueError("The encoder returns codes with NaN or infinity. Check its weights and its layers.")
        return z

    def _fill_empty_clusters(self, source: Source, seed: int) -> None:
        """Cut the widest clusters in two until none is empty, and say so."""
        module, device = self.module_, self._device()
        generator = torch.Generator().manual_seed(seed)
        z = torch.from_numpy(self._codes(module, source, generator, device))
        old = module.head.centers.detach().clone()

        def place(centers: np.ndarray) -> None:
            new = torch.as_tensor(centers, dtype=torch.float32, device=device)
            rows = new.ne(module.head.centers).any(dim=1)
            module.head.init_(new[rows], rows)

        @torch.inference_mode()
        def predict(centers: np.ndarray) -> np.ndarray:
            place(centers)
            return torch.cat([module.head.predict(part.to(device)).cpu() for part in z.split(2**14)]).numpy()

        centers, changed = split_clusters(z.numpy(), predict, old.cpu().numpy(), seed)
        place(centers)
        if changed:
            self.labels_ = self._predict(source)
            self.loss_ = mean_terms(module, self._loss, source, tile=_TILE, device=device)["loss"]
            warnings.warn(
                f"Clusters were empty after training: centres {changed} were placed anew, by cutting the widest "
                f"cluster in two for each.",
                ConvergenceWarning,
                stacklevel=2,
            )

    def _check_clusters(self) -> None:
        """Warn, by name, of what went wrong."""
        if not np.isfinite(self.loss_):
            warnings.warn(
                f"The loss of the fitted model is {self.loss_}: do not trust its clusters. Rescale X or lower lr.",
                ConvergenceWarning,
                stacklevel=2,
            )
        empty = sorted(set(range(self.n_clusters)) - set(np.unique(self.labels_).tolist()))
        if not empty:
            return
        if self.variant == "paper":
            why = "Nothing was done about them, as in the paper; variant='repaired' fills them."
        else:
            why = (
                "X may have fewer distinct rows than n_clusters, all codes may have collapsed to one point, or rows of "
                "zeros, which have no direction, are more than one cluster can tell apart."
            )
        warnings.warn(
            f"{len(empty)} of {self.n_clusters} clusters are empty: {empty}. {why}",
            ConvergenceWarning,
            stacklevel=2,
        )

    # -- pieces of a fit ------------------------------------------------------------------------------------

    def _value(self, name: str) -> Any:
        """A parameter, or what None stands for in this variant."""
        value = getattr(self, name, None)
        return self._recipes[self.variant].get(name) if value is None else value

    def _recipe(self, n_samples: int) -> SimpleNamespace:
        """All parameters, with what None stands for filled in."""
        names = {*self._get_param_names(), *self._recipes[self.variant]}
        values = {name: self._value(name) for name in names}
        if values["batch_size"] is None:
            values["batch_size"] = min(256, max(32, 2 ** round(np.log2(n_samples / 16))))
        return SimpleNamespace(**values)

    def _build(self, shape: tuple[int, ...], recipe: SimpleNamespace | None = None) -> ClusterModule:
        recipe = recipe or self._recipe(1)
        sizes = recipe.hidden_layer_sizes
        if not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes={sizes!r} must be positive integers, such as (500, 500, 2000).")
        if isinstance(self.encoder, nn.Module):
            autoencoder = adapt_encoder(self.encoder, shape, sizes)
        else:
            autoencoder = self._autoencoder(shape, recipe)
        autoencoder.normalize = recipe.normalize
        return ClusterModule(autoencoder, self._head(autoencoder.embed_dim, recipe), shape)

    def _reconstruction(self, module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        noisy = mask_noise(x, getattr(self, "noise", 0.0)) if module.training else x
        rec = reconstruction_loss(x, module.decode(module.encode(noisy)))
        return {"loss": rec, "rec": rec}

    # -- use --------------------------------------------------------------------------------------------------

    def predict(self, X: Any) -> np.ndarray:
        """Cluster of every row.

        Parameters
        ----------
        X : array-like, sparse matrix, tensor, Dataset or DataLoader of shape (n_samples, n_features)
            Rows as in ``fit``. A row's cluster does not depend on the rows that come with it.

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        return self._predict(self._checked(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Soft assignment of every row.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_clusters)
            Rows sum to 1; the largest entry is the cluster that ``predict`` gives, but for ties in float32.
        """
        source = self._checked(X)
        return self._map(self.module_.assign, source)

    def transform(self, X: Any) -> np.ndarray:
        """Codes of the rows: the space in which they are clustered.

        Returns
        -------
        ndarray of float32, shape (n_samples, embed_dim)
        """
        source = self._checked(X)
        return self._map(self.module_.encode, source)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean loss of the rows: larger is better, as model selection in scikit-learn expects.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows as in ``fit``; for the training rows the score is ``-loss_``.
        y : Ignored
            Present for scikit-learn.

        Returns
        -------
        float
        """
        source = self._checked(X)
        return -mean_terms(self.module_, self._loss, source, tile=_TILE, device=self._device())["loss"]

    def reconstruct_centers(self) -> np.ndarray:
        """Cluster centres decoded into the space and the units of the data.

        Returns
        -------
        ndarray of float64, shape (n_clusters, *row_shape)
            Images of one channel come without the channel axis. With ``encoder=None`` a centre is its own code.
        """
        check_is_fitted(self)
        module = self.module_.eval()
        with torch.inference_mode():
            x = module.restore(module.decode(module.head.centers)).cpu().numpy()
        return x[:, 0] if x.ndim == 4 and x.shape[1] == 1 else x

    def partial_fit(self, X: Any, y: Any = None, *, train_encoder: bool = False) -> Self:
        """Learn from the next rows of a stream.

        The first call on an unfitted estimator fits it on its rows. Every later call takes one step of the
        centres per ``batch_size`` rows, with the encoder as it is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows.
        y : Ignored
            Present for scikit-learn.
        train_encoder : bool, default=False
            Take one step of the encoder after each step of the centres.

        Returns
        -------
        self
            ``labels_`` are those of the rows of this call.
        """
        if not hasattr(self, "module_"):
            return self.fit(X)
        self._validate_params()
        with _all_or_nothing(self):
            source = as_source(self, X, reset=False)
            recipe = self._recipe(len(source))
            device = self._device()
            (seed,) = draw_seeds(self.random_state, 1)
            centers, encoder = self._online_updates(recipe)
            learning = self.module_ if train_encoder else self.module_.head
            before = {name: value.clone() for name, value in learning.state_dict().items()}
            try:
                with seeded(seed, device):
                    for index, x in source.batches(consecutive(len(source), recipe.batch_size)):
                        x = prepared(self.module_, x, device)
                        centers.step(self.module_.eval(), x, index)
                        if train_encoder and encoder is not None:
                            encoder.step(self.module_.train(), x, index)
            except BaseException:
                learning.load_state_dict(before)
                raise
            if not all(bool(torch.isfinite(value).all()) for value in learning.state_dict().values()):
                learning.load_state_dict(before)
                self.__dict__.pop("_online", None)
                warnings.warn(
                    "Non-finite weights after partial_fit; those from before were restored. A lower lr helps.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
            self.labels_ = self._predict(source)
        return self

    def _online_updates(self, recipe: SimpleNamespace) -> tuple[Any, Update | None]:
        """Of the centres and of the encoder, if it has weights; kept between calls, with what their optimisers know."""
        if not hasattr(self, "_online"):
            weights = trainable(self.module_.autoencoder)
            encoder = None
            if weights:
                encoder = Update(self._encoder_loss, make_optimizer(recipe.optimizer, weights, recipe.lr))
            self._online = self._centers_update(self.module_, recipe), encoder
        return self._online

    def set_params(self, **params: Any) -> Self:
        """Set parameters, as in scikit-learn. Of a fitted estimator they are those of the next (partial) fit."""
        self.__dict__.pop("_online", None)
        return super().set_params(**params)

    def save(self, path: Any) -> None:
        """Write the fitted estimator to a folder: ``config.json`` and ``model.safetensors``.

        See :func:`neuralclust.load`.
        """
        from neuralclust.io import save

        save(self, path)

    @classmethod
    def load(cls, path: Any, **options: Any) -> Self:
        """Read an estimator of this class; see :func:`neuralclust.load` for the options."""
        from neuralclust.io import load

        estimator = load(path, **options)
        if not isinstance(estimator, cls):
            raise ValueError(
                f"{path} holds a {type(estimator).__name__}, not a {cls.__name__}. Use neuralclust.load(path)."
            )
        return estimator

    @property
    def cluster_centers_(self) -> np.ndarray:
        """Cluster centres in the space of the codes, shape (n_clusters, embed_dim)."""
        check_is_fitted(self, "module_")
        return self.module_.head.centers.detach().cpu().numpy().copy()

    def _checked(self, X: Any) -> Source:
        check_is_fitted(self)
        return as_source(self, X, reset=False)

    def _device(self) -> torch.device:
        return self.module_.shift.device

    def _map(self, fn: Any, source: Source) -> np.ndarray:
        return map_rows(self.module_, fn, source, tile=_TILE, device=self._device())

    def _predict(self, source: Source) -> np.ndarray:
        return self._map(self.module_.predict, source)

    @property
    def _n_features_out(self) -> int:
        return self.module_.autoencoder.embed_dim

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_online"}  # optimisers hold closures

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        # Not a classifier; but scikit-learn's sparse checks read this of whatever has predict_proba.
        tags.classifier_tags = ClassifierTags(multi_class=True)
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _smaller(loss: float, best: float) -> bool:
    return loss < best or (np.isnan(best) and not np.isnan(loss))


@contextmanager
def _all_or_nothing(estimator: BaseEstimator) -> Iterator[None]:
    """Leave the estimator exactly as it was if the block fails."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        now = vars(estimator)
        kept = {key: now[key] for key in now if key.startswith(("_skl", "_callback"))}  # callbacks end later
        now.clear()
        now.update({**before, **kept})
        raise
