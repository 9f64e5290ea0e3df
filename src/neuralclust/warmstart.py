"""A start from the clusters of a nearest-neighbour graph of the codes, which the network learns before anything else.

Such clusters are far better than their means tell: rows of one cluster lie along a curved sheet, and the nearest mean
of a row is often that of another one. So the sheets are drawn together first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from neuralclust.data import Rows, Source, part_of
from neuralclust.functional import reconstruction_loss, squared_euclidean
from neuralclust.kmeans import finite_codes
from neuralclust.schedules import joint_rate
from neuralclust.spectral import GRAPH_ROWS, neighbor_partition
from neuralclust.training import (
    TILE,
    Terms,
    Trainer,
    Update,
    cosine_rate,
    map_rows,
    trainable,
)

if TYPE_CHECKING:
    from neuralclust.fitting import FitProcedure
    from neuralclust.nn import ClusterModule

_CODE_BYTES = 2**25  # codes held at once to choose the first centres from
_NEIGHBORS = 5
_FEW = 1000  # rows below which the clusters of a graph may hang on a few edges
_AGREED = 0.7  # adjusted Rand index from which two graphs have the same clusters
_STEPS = 200
_WIDTH = 0.1  # of the softmax, over the mean squared distance of the centres


def graph_clusters(
    module: ClusterModule,
    source: Source,
    encode: Callable[[Tensor], Tensor],
    n_clusters: int,
    trainer: Trainer,
    seed: int,
) -> tuple[Source, Tensor] | None:
    """At most 10,000 random rows, fewer if codes are wide, and their clusters in the graph of the nearest neighbours.

    None if there are more than 50 clusters to find, or fewer are found; or if of fewer than 1,000 rows the graph of
    twice as many neighbours has other clusters, so that they hang on a few edges.
    """
    most = min(GRAPH_ROWS, rows_held(module, source, encode, n_clusters, trainer))
    rows = Rows(source, torch.randperm(len(source), generator=trainer.generator)[:most])
    z = encoded(module, rows, encode, trainer)
    # One process finds them for all: others might find others, by the last digits of the eigenvectors.
    labels = trainer.peers.first(lambda: _partition(z, n_clusters, seed))
    return None if labels is None else (rows, torch.from_numpy(labels).to(trainer.device))


def _partition(z: np.ndarray, n_clusters: int, seed: int) -> np.ndarray | None:
    labels = neighbor_partition(z, n_clusters, n_neighbors=_NEIGHBORS, seed=seed)
    if labels is None or len(z) >= _FEW:
        return labels
    wider = neighbor_partition(z, n_clusters, n_neighbors=2 * _NEIGHBORS, seed=seed)
    return None if wider is None or adjusted_rand_score(labels, wider) < _AGREED else labels


def rows_held(
    module: ClusterModule, source: Source, encode: Callable[[Tensor], Tensor], n_clusters: int, trainer: Trainer
) -> int:
    """How many rows may have their codes held at once: as many as fit, but some of every cluster."""
    width = map_rows(module, encode, Rows(source, torch.tensor([0])), tile=TILE, device=trainer.device).shape[1]
    return max(_CODE_BYTES // (4 * width), 100 * n_clusters)


def encoded(module: ClusterModule, rows: Source, encode: Callable[[Tensor], Tensor], trainer: Trainer) -> np.ndarray:
    """Codes of the rows, a share of them computed by each process."""
    z = map_rows(module, encode, part_of(rows, trainer.peers), tile=TILE, device=trainer.device)
    return finite_codes(trainer.peers.join(z, len(rows)))


def learn(module: ClusterModule, rows: Source, update: Update, trainer: Trainer) -> None:
    """As many epochs as give some hundred steps."""
    steps = max(1, len(rows) // trainer.batch_size)
    trainer.fit(module, rows, [update], stage="warm start", epochs=math.ceil(_STEPS / steps))


def draw_together(
    model: FitProcedure, module: ClusterModule, rows: Source, labels: Tensor, recipe: SimpleNamespace, trainer: Trainer
) -> np.ndarray:
    """Teach the encoder these clusters of rows, by cross-entropy beside the reconstruction; the codes of the rows.

    The centres become the means of the clusters. An encoder that may not learn stays as it is.
    """

    def place() -> tuple[np.ndarray, Tensor]:
        z = encoded(module, rows, module.encode, trainer)
        means = torch.from_numpy(np.stack([z[members == j].mean(axis=0) for j in range(members.max() + 1)]))
        module.head.init_(means.to(trainer.device))
        return z, module.head.centers.detach().clone()

    def loss(module: ClusterModule, x: Tensor, index: Tensor) -> Terms:
        view, z, codes = model._encode_views(module, x)
        given = labels[index.to(labels.device)]
        logits = (-squared_euclidean(each, means) / width for each in codes)
        clu = torch.stack([F.cross_entropy(each, given) for each in logits]).mean()
        rec = reconstruction_loss(view, module.decode(z))
        return {"loss": share * rec + model._weight("clustering_weight", module) * clu, "rec": rec, "clu": clu}

    members = labels.cpu().numpy()
    share = model._value("reconstruction_weight") if hasattr(model, "reconstruction_weight") else 1.0
    z, means = place()
    width = _WIDTH * squared_euclidean(means, means).mean()
    if model._encoder_learns(module):
        optimizer = model._optimizer(trainable(module.autoencoder), recipe, joint_rate(recipe))
        learn(module, rows, Update(loss, optimizer, rate=cosine_rate), trainer)
        z, _ = place()
    return z
