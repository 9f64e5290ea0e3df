"""The base of every estimator: parameters, validation, fit, predict, and what scikit-learn expects of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
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
from sklearn.utils import ClassifierTags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from neuralclust._warn import warn
from neuralclust.augment import AUGMENTATIONS
from neuralclust.data import Source, as_source, consecutive
from neuralclust.fitting import FitProcedure
from neuralclust.peers import apart
from neuralclust.runtime import draw_seeds, seeded
from neuralclust.schedules import joint_rate
from neuralclust.training import (
    LEARNING_RATES,
    TILE,
    Update,
    map_rows,
    prepared,
    trainable,
)

AUGMENT: list[Any] = [StrOptions(set(AUGMENTATIONS)), callable, None]  # what the parameter of that name may be

# Parameters that shape the network and the rows it sees, which partial_fit keeps.
_SHAPES = {
    "n_clusters", "embed_dim", "hidden_layer_sizes", "encoder", "variant", "standardize", "normalize", "alpha",
    "temperature", "target", "assignment", "coupled", "metric", "predict_from", "eps", "n_neighbors", "bandwidth",
    "n_layers", "n_anchors",
}  # fmt: skip

# of methods whose encoder can learn the clusters of a graph first
INIT: list[Any] = [StrOptions({"graph", "spectral", "k-means", "k-means++", "random"}), np.ndarray, None]


class NeuralClusterer(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, FitProcedure
):
    """A clusterer with an encoder, a cluster layer and scikit-learn's interface.

    A method's file writes the hooks of :class:`~neuralclust.fitting.FitProcedure`; the rest is here and there.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "encoder": [StrOptions({"mlp", "conv"}), nn.Module, None],
        "embed_dim": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like"],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"spectral", "k-means", "k-means++", "random"}), np.ndarray],
        "max_epochs": [Interval(Integral, 0, None, closed="left"), None],
        "pretrain_epochs": [Interval(Integral, 0, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "optimizer": [StrOptions(set(LEARNING_RATES)), None],
        "tol": [Interval(Real, 0, None, closed="left"), None],
        "variant": [StrOptions({"repaired", "paper"})],
        "standardize": ["boolean"],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "random_state": ["random_state"],
    }

    # -- fit --------------------------------------------------------------------------------------------------

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None, resume: bool = False) -> Self:
        """Cluster the rows of ``X``.

        Parameters
        ----------
        X : array-like, sparse matrix, tensor, torch Dataset or DataLoader
            Rows ``(n_samples, n_features)`` or images ``(n, height, width)`` or ``(n, channels, height, width)``,
            of any numeric dtype; images may come as a list. Of arrays, memory maps, CSR matrices and tensors beyond
            16 MB, nothing but a batch at a time is copied, cast or densified; lists, data frames and other sparse
            formats are converted first. Of the tuples that a Dataset yields, the first item is used. All columns of a
            table are mapped to 0 .. 1 by one range, so that differences between them count as they are: with columns
            of different units set ``standardize=True``.
        y : Ignored
            Present for scikit-learn; labels are never used.
        checkpoint : str, Path or Checkpoint, optional
            Folder in which each epoch leaves all that the next one depends on; :class:`~neuralclust.Checkpoint` says
            how often.
        resume : bool, default=False
            Go on after the last epoch in ``checkpoint``, if there is one: the model will be, bit for bit, that of a fit
            without an interruption. Rows and parameters must be the same.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If ``X`` or a parameter cannot be used, or the checkpoint is damaged or of another fit. The estimator is
            then left as it was.
        FileExistsError
            If ``checkpoint`` holds a fit that has not ended, without ``resume``.
        OSError
            If a checkpoint cannot be written. The last one is kept.
        """
        with _all_or_nothing(self):
            self._fit_source(as_source(self, X, reset=True), checkpoint, resume)
        return self

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

        The loss is the method's own, so scores compare fits of equal parameters: their seeds, or the rows they learned
        from. What changes the loss itself, or how hard it is to lower (``n_clusters``, ``target``,
        ``clustering_weight``, ``augment``, the method), is not to be chosen by it. For those, give ``GridSearchCV`` a
        ``scoring`` that compares clusterings, such as :func:`sklearn.metrics.silhouette_score` of ``transform``: see
        the example.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows as in ``fit``; for the training rows the score is ``-loss_``.
        y : Ignored
            Present for scikit-learn.

        Returns
        -------
        float

        Examples
        --------
        >>> from sklearn.metrics import silhouette_score
        >>> from sklearn.model_selection import GridSearchCV
        >>> from neuralclust import AEKMeans
        >>> from neuralclust.datasets import make_sphere_clusters
        >>> X, y = make_sphere_clusters(120, 3, 8, noise=0.1, random_state=0)
        >>> def silhouette(model, X, y=None):
        ...     return silhouette_score(model.transform(X), model.predict(X))
        >>> grid = {"n_clusters": [2, 3, 4]}
        >>> GridSearchCV(AEKMeans(encoder=None, random_state=0), grid, scoring=silhouette, cv=2).fit(X).best_params_
        {'n_clusters': 3}
        """
        source = self._checked(X)
        fitted = copy.copy(self)
        fitted.__dict__.update(self._fitted_params)  # set_params may have been called since
        return -fitted._mean_loss(self.module_, source, self._device())

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

    def partial_fit(
        self, X: Any, y: Any = None, *, train_encoder: bool = False, forgetting: float | None = None
    ) -> Self:
        """Learn from the next rows of a stream.

        The first call on an unfitted estimator fits it on its rows. Every later call takes one step of the
        centres per ``batch_size`` rows, with the encoder as it is. There are never more clusters than before: rows
        of a kind not seen so far join the nearest one. The model may be saved and loaded between calls; what the
        optimisers remember of earlier steps is not saved, so the next step is a little different. Of several processes
        each learns on its own.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows.
        y : Ignored
            Present for scikit-learn.
        train_encoder : bool, default=False
            Take one step of the encoder after each step of the centres, at the rate of joint training.
        forgetting : float, default=None
            Above 0 and up to 1: centres follow clusters that move, as weighted means of the rows that they win, of
            which those of a batch (of ``batch_size`` rows) ago count ``1 - forgetting`` as much. 0.1 keeps about the
            last ten batches in mind.
            None: centres learn as the method does, or, with :class:`AEKMeans`, as means of all rows so far.

        Returns
        -------
        self
            ``labels_`` are those of the rows of this call.

        Raises
        ------
        ValueError, TypeError
            If ``X`` or a parameter cannot be used, if one that shapes the network was changed since the fit, or if
            ``forgetting`` is given and no centres decide (SSCNet, NCSC). The estimator is then left as it was.
        """
        if forgetting is not None and not (isinstance(forgetting, Real) and 0 < forgetting <= 1):
            raise ValueError(f"forgetting={forgetting!r} must be above 0 and at most 1, or None.")
        if forgetting is not None and not self._centers_decide:
            raise ValueError(
                f"forgetting={forgetting!r} moves centres, but a classifier decides in {type(self).__name__}. Use "
                f"forgetting=None, or a method with centres, such as TELL."
            )
        if not hasattr(self, "module_"):
            with apart():
                return self.fit(X)
        self._validate_params()
        for name in _SHAPES & self._fitted_params.keys():
            now, fitted = getattr(self, name), self._fitted_params[name]
            if now is not fitted and (isinstance(now, nn.Module) or not np.array_equal(now, fitted)):
                raise ValueError(
                    f"{name}={now!r} was set after the fit, whose network has {name}={fitted!r}; partial_fit cannot "
                    f"change it. Set it back, or fit anew."
                )
        with _all_or_nothing(self):
            source = as_source(self, X, reset=False)
            recipe = self._recipe(len(source))
            device = self._device()
            centers, encoder, seeds = self._online_updates(recipe)
            seed = next(seeds)
            learning = self.module_ if train_encoder else self.module_.head
            before = {name: value.clone() for name, value in learning.state_dict().items()}
            try:
                with seeded(seed, device):
                    for index, x in source.batches(_no_single(consecutive(len(source), recipe.batch_size))):
                        x = prepared(self.module_, x, device)
                        if forgetting is None:
                            centers.step(self.module_.eval(), x, index)
                        else:
                            with torch.no_grad():
                                z = self.module_.eval().encode(x)
                            self.module_.head.follow_(z, float(forgetting), recipe.batch_size)
                        if train_encoder and encoder is not None:
                            # The next rows may all be of one cluster: they say nothing of how frequent it is.
                            self.module_.train().head.eval()
                            encoder.step(self.module_, x, index)
                if not all(bool(torch.isfinite(value).all()) for value in learning.state_dict().values()):
                    learning.load_state_dict(before)
                    self.__dict__.pop("_online", None)
                    warn("Non-finite weights after partial_fit; those from before were restored. A lower lr helps.")
                self.labels_ = self._predict(source)
            except BaseException:
                learning.load_state_dict(before)
                self.module_.eval()
                raise
        return self

    def _online_updates(self, recipe: SimpleNamespace) -> tuple[Any, Update | None, Iterator[int]]:
        """Of the centres and of the encoder, if it has weights; kept between calls, with what their optimisers know.

        And a seed for each call: by the same one, every call would draw the same views.
        """
        if not hasattr(self, "_online"):
            weights = trainable(self.module_.autoencoder)
            encoder = None
            if weights:
                rate = joint_rate(self._recipe(self._n_samples))  # not that of the first few rows of the stream
                encoder = Update(self._encoder_loss, self._optimizer(weights, recipe, rate))
            (first,) = draw_seeds(self.random_state, 1)
            drawn = np.random.default_rng(first)
            seeds = (int(drawn.integers(2**31)) for _ in count())
            self._online = self._centers_update(self.module_, recipe), encoder, seeds
        return self._online

    def set_callbacks(self, *callbacks: Any) -> Self:
        """Set what is told of each epoch of a fit, in place of what was set before.

        Parameters
        ----------
        *callbacks : callback instances
            Those of :mod:`neuralclust.callbacks`, scikit-learn's, or others of its ``FitCallback`` protocol.

        Raises
        ------
        TypeError
            If one of them is none, such as a class or a list.
        """
        try:
            return super().set_callbacks(*callbacks)
        except TypeError as error:
            raise TypeError(
                f"{error} Give instances, one by one: set_callbacks(ProgressBar(), EarlyStopping()); got "
                f"{', '.join(map(repr, callbacks))}."
            ) from None

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
        return map_rows(self.module_, fn, source, tile=TILE, device=self._device())

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


def _no_single(batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """The batches, a last one of a single row joined to the one before: batch norm can do nothing with one row."""
    if len(batches) > 1 and len(batches[-1]) == 1:
        *batches, last, single = batches
        batches.append(torch.cat([last, single]))
    return batches


@contextmanager
def _all_or_nothing(estimator: BaseEstimator) -> Iterator[None]:
    """Leave the estimator exactly as it was if the block fails, but for what the optimisers of a stream remember."""
    before = {key: value for key, value in vars(estimator).items() if key != "_online"}
    try:
        with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's code is in
            yield
    except BaseException:
        now = vars(estimator)
        kept = {key: now[key] for key in now if key.startswith(("_skl", "_callback"))}  # callbacks end later
        now.clear()
        now.update({**before, **kept})
        raise
