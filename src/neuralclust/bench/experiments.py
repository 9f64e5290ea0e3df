"""What a run does. Each function takes its arguments and a seed and returns what goes into the row.

Labels come in by :func:`~neuralclust.bench.data.load` and go into :func:`~neuralclust.bench.data.scores` alone, once
the fit is over, or into the callback that scores epochs, which no fit can read.
"""

from __future__ import annotations

import copy
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.metrics import normalized_mutual_info_score, silhouette_score
from sklearn.utils import get_tags

from neuralclust import metrics, registry
from neuralclust.bench.data import load, scores
from neuralclust.callbacks import ScoreEpochs, _Callback
from neuralclust.kmeans import fit_kmeans
from neuralclust.nn import InvarianceLayer


def find(name: str) -> Callable[..., dict[str, Any]]:
    """A function of this module, or ``"module:function"``.

    Examples
    --------
    >>> from neuralclust.bench import experiments
    >>> experiments.find("fit") is experiments.fit
    True
    """
    module, colon, function = name.rpartition(":")
    holder = import_module(module) if colon else sys.modules[__name__]
    found = getattr(holder, function, None)
    if function.startswith("_") or not callable(found) or (not colon and found.__module__ != __name__):
        raise ValueError(f"experiment={name!r} is not known: 'fit', 'online', or 'module:function' are.")
    return found


def fit(
    data: str,
    method: str,
    seed: int,
    *,
    rows: int | None = None,
    every: int | None = None,
    codes: str | None = None,
    **params: Any,
) -> dict:
    """Cluster all rows, or so many drawn at random, and score the labels of the last epoch.

    A neural method is fitted in two parts, its autoencoder and the rest, so that k-means on the codes of the very same
    autoencoder, and the method's own start, are scored too. ``every``: epochs between two scores on the way.
    ``codes``: cluster those of an autoencoder in place of the rows: ``"mlp"``, the usual one, or ``"conv"`` or
    ``"residual"``, those of NCSC's paper.
    """
    neural = registry.find(method) in registry.METHODS
    X, y, k = load(data, neural or codes is not None, rows, seed)
    begin = time.perf_counter()
    if codes is not None:
        X = _codes(X, k, codes, seed)
    params = {name: _value(value) for name, value in params.items()}
    model = registry.make(method, k, **params)
    if "random_state" in model.get_params():
        model.set_params(random_state=seed)
    if issparse(X) and not get_tags(model).input_tags.sparse:
        X = X.toarray()
    if method == "GaussianMixture":
        X = X.astype(np.float64)  # in float32 its covariances are often not positive definite
    found: dict[str, Any] = {}
    goes_on = False  # after the pretraining of ``first``
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if neural and model.get_params().get("variant") == "repaired":
            first, model = _two_parts(method, k, params, seed, X)
            found["pretrain_s"] = round(time.perf_counter() - begin, 3)
            found["start"] = scores(y, _start(first, model, X).labels_)
            found["kmeans"] = scores(y, fit_kmeans(first.transform(X), k, n_init=10, seed=seed).labels_)
            goes_on = model.encoder is first.module_.autoencoder
            begin = time.perf_counter() - found["pretrain_s"] * goes_on
        scorer = None
        if every:
            on_the_way = {"acc": metrics.clustering_accuracy, "nmi": normalized_mutual_info_score}
            scorer = ScoreEpochs(X, y, on_the_way, every=every)
            model.set_callbacks(scorer)
        labels = model.fit_predict(X)
        found["seconds"] = round(time.perf_counter() - begin, 3)
    found.update(scores(y, labels), n=len(y), labels=zlib.crc32(np.asarray(labels, np.int64).tobytes()))
    if neural:
        found.update(_neural(model, X, y))
        found["passes"] = len(model.history_) + (len(first.history_) if goes_on else 0)
    if scorer:
        losses = {(row["stage"], row["epoch"]): row["loss"] for row in model.history_}
        found["curve"] = [{**s, "loss": losses[s["stage"], s["epoch"]]} for s in scorer.scores_]
    return found


def _codes(X: Any, k: int, encoder: str, seed: int) -> np.ndarray:
    """Of an autoencoder that has learned nothing but to reconstruct."""
    if encoder == "mlp":
        model = registry.make("AEKMeans", k, random_state=seed)
    else:
        model = registry.make("NCSC", k, encoder=encoder, variant="paper", max_epochs=0, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X).transform(X)


def _two_parts(method: str, k: int, params: dict[str, Any], seed: int, X: Any) -> tuple[Any, Any]:
    """A neural method after pretraining, before its encoder learns any clusters; an estimator that goes on from it."""
    first = registry.make(method, k, **{**params, "random_state": seed, "max_epochs": 0})
    if first._value("init") in (None, "graph"):
        first.set_params(init="spectral")
    first.fit(X)
    model = registry.make(method, k, **{**params, "random_state": seed})
    # A network that is passed sees rows with their mean: where SSCNet has taken it off, the whole is fitted once more.
    if model.encoder is not None and first.module_.shift.ndim == 0:
        model.set_params(encoder=first.module_.autoencoder, pretrain_epochs=0)
    return first, model


def _start(first: Any, model: Any, X: Any) -> Any:
    """What joint training begins with: ``first``, unless the encoder learns clusters before."""
    module = first.module_
    same = str(first._start(module)) == str(model._start(module))
    return first if same else clone(model).set_params(max_epochs=0).fit(X)


def _neural(model: Any, X: Any, y: Any) -> dict[str, Any]:
    """What a neural method knows beyond its labels."""
    codes = model.transform(X)
    joint = [row for row in model.history_ if row["stage"] == "fit"]
    found: dict[str, Any] = {"loss": model.loss_, "nonzero": round(float((codes != 0).mean()), 4)}
    if len(np.unique(model.labels_)) > 1:
        found["silhouette"] = float(silhouette_score(codes, model.labels_, sample_size=5000, random_state=0))
    if joint:
        found.update(first=joint[0], last=joint[-1])
    if isinstance(model.module_.head, InvarianceLayer):  # whose second assignment is an answer too
        model.module_.head.predict_from = "P2"
        found["p2"] = scores(y, model.predict(X))
    return found


def online(
    data: str, method: str, seed: int, *, features: str = "raw", first: int = 1000, streamed: int = 60_000
) -> dict:
    """TELL's Table 5: fit on a few test rows, then predict each batch of the training rows before learning from it.

    ``features``: "raw", or "codes" of a network that learned, without labels, from all rows, in place of IIC's.
    ``method``: "KMeans" and "TELL" are fitted on all rows streamed; "online KMeans" keeps the centres of the first
    rows, as in the paper, "online TELL" learns on the way. Rows from ``streamed`` on are test rows.
    """
    from neuralclust import TELL

    X, y, k = load(data)
    chance = np.random.default_rng(seed)
    streamed = min(streamed, len(X) - first)
    order = np.concatenate([streamed + chance.permutation(len(X) - streamed)[:first], chance.permutation(streamed)])
    begin = time.perf_counter()
    if features == "codes":
        X = TELL(k, augment="digits", random_state=seed).fit(X).transform(X)
    else:
        X = X.reshape(len(X), -1).astype(np.float32)
    X, y = X[order], y[order]
    start, stream, truth = X[:first], X[first:], y[first:]
    is_tell = method.endswith("TELL")
    settings: dict[str, Any] = {"encoder": None, "random_state": seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = TELL(k, **settings) if is_tell else registry.make("KMeans", k, random_state=seed, n_init=10)
        if not method.startswith("online"):
            labels = model.fit_predict(stream)
        else:
            model.fit(start)
            parts = []
            for rows in np.array_split(stream, max(1, len(stream) // 256)):
                parts.append(model.predict(rows))
                if is_tell:
                    model.partial_fit(rows)
            labels = np.concatenate(parts)
    return {**scores(truth, labels), "seconds": round(time.perf_counter() - begin, 3)}


def progress(
    data: str, method: str, seed: int, *, epochs: list[int], points: int = 500, plane: str = "t-SNE", **params: Any
) -> dict:
    """Decoded centres and a plane of codes after some epochs of joint training, the start (0) included.

    ``plane``: "t-SNE", or "PCA" of the codes at that epoch. Where a classifier decides, the centres are the means of
    the codes shown, and are not decoded.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    X, y, k = load(data)
    drawn = np.random.default_rng(seed).permutation(len(X))[:points]
    settings = {name: _value(value) for name, value in params.items()}
    shots = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, model = _two_parts(method, k, settings, seed, X)
        start = _start(first, model, X)
        shooting = _Shots(set(epochs))
        model.set_callbacks(shooting).fit(X)
    for epoch, estimator in [(0, start), *shooting.found]:
        codes, labels = estimator.transform(X[drawn]), estimator.predict(X)
        shot = {"epoch": epoch, **scores(y, labels)}
        if estimator._centers_decide:
            centers, shot["centers"] = estimator.cluster_centers_, estimator.reconstruct_centers().round(2).tolist()
        else:
            centers = np.stack([codes[labels[drawn] == j].mean(axis=0) for j in np.unique(labels[drawn])])
        projections = {"t-SNE": TSNE(init="pca", random_state=seed), "PCA": PCA(2, random_state=seed)}
        map_ = projections[plane].fit_transform(np.concatenate([codes, centers]))
        shots.append({**shot, "points": _short(map_)})
    return {"shots": shots, "classes": y[drawn].tolist(), **scores(y, model.labels_)}


def _short(points: np.ndarray) -> list[list[float]]:
    """Three digits of the largest: what a picture shows."""
    digits = 2 - int(np.floor(np.log10(max(np.abs(points).max(), 1e-9))))
    return np.round(points.astype(float), digits).tolist()


class _Shots(_Callback):
    """Keeps copies of the estimator after some epochs."""

    def __init__(self, epochs: set[int]):
        self.epochs = epochs
        self.found: list[tuple[int, Any]] = []

    def on_epoch_end(self, row: dict[str, Any], fitted_estimator: Any) -> None:
        if row["stage"] == "fit" and row["epoch"] + 1 in self.epochs:
            self.found.append((row["epoch"] + 1, copy.deepcopy(fitted_estimator)))


def invariance(data: str, seed: int, *, epochs: list[int], **network: Any) -> dict:
    """DCSAI's Figure 1a: KL(P2 || P1) of Eq. 5 as printed, between Euclidean and cosine assignments, and the accuracy
    of k-means on the codes, as an autoencoder learns; then the repaired DCSAI's own divergence and accuracy. Both have
    networks of these parameters.
    """
    from neuralclust import DCSAI, AEKMeans

    X, y, k = load(data)
    network = {name: _value(value) for name, value in network.items()}
    noisy: dict[str, Any] = {"noise": 0.3, "tol": 0.0, "random_state": seed, **network}
    learning = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in epochs:
            dae = AEKMeans(k, normalize=False, pretrain_epochs=number, **noisy).fit(X)
            settings: dict[str, Any] = {"encoder": dae.module_.autoencoder, "pretrain_epochs": 0, "random_state": seed}
            printed = DCSAI(k, metric="cosine", variant="paper", max_epochs=0, **settings).fit(X)
            learning.append({"epoch": number, "kl": printed.loss_, **scores(y, dae.labels_)})
        scorer = ScoreEpochs(X, y, {"acc": metrics.clustering_accuracy})
        model = DCSAI(k, metric="cosine", random_state=seed, **network).set_callbacks(scorer).fit(X)
    rows = [row for row in model.history_ if row["stage"] == "fit"]
    joint = [{"epoch": r["epoch"], "kl": r["clu"], "acc": s["acc"]} for r, s in zip(rows, scorer.scores_, strict=True)]
    return {"autoencoder": learning, "joint": joint}


def _value(value: Any) -> Any:
    """A parameter as TOML can say it: ``"none"`` is None, ``"module:Class"`` an object made of it."""
    if value == "none":
        return None
    if isinstance(value, str) and ":" in value:
        module, _, name = value.partition(":")
        return getattr(import_module(module), name)()
    return tuple(value) if isinstance(value, list) else value
