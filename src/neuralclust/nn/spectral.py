"""The cluster layer of SSCNet: a spectral embedding carried by anchors, and a self-supervised classifier on it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralclust.functional.distance import unit_norm
from neuralclust.functional.graph import (
    degrees,
    distance_scale,
    edge_weights,
    laplacian,
    multiply,
    nearest_neighbors,
    neighbor_edges,
    symmetric_graph,
)
from neuralclust.nn.eigen import EigenvectorLayer
from neuralclust.nn.heads import CentroidLayer

_TEMPERATURE = 0.1  # of the cosine between embedded rows and prototypes


class SpectralLayer(CentroidLayer):
    """Spectral clustering as a layer: graph, eigenvectors, and a classifier that learns their k-means clusters.

    The eigenvectors of a graph belong to the rows it was made of. Here they are kept for a fixed set of rows, the
    anchors: a batch joins their graph, eigenvector layers refine the embedding of both, and the result is turned back
    onto the anchors' own embedding, so that batches agree on what a coordinate means. A row alone is embedded as the
    mean of its nearest anchors (weighted as in the graph), so its cluster does not depend on the rows that come with
    it.

    Parameters
    ----------
    embed_dim : int
        Length of a code.
    n_clusters : int
        Number of clusters.
    n_anchors : int
        Room for anchors; fewer may be set.
    n_neighbors : int, default=5
        Neighbours of a row in the graph.
    bandwidth : float, default=1.0
        Of the graph's weights, in units of the median squared distance between neighbours.
    n_layers : int, default=4
        Eigenvector layers.
    cosine : bool, default=True
        Scale codes to unit length before they are compared.
    residual : bool, default=True
        G and the classifier add to the embedding and to its cosine with the prototypes, and start as no change, instead
        of replacing them.
    mode, step, learn_rotation
        Of :class:`~neuralclust.nn.EigenvectorLayer`.
    normalized : bool, default=True
        Normalised Laplacian, or ``D - W``.

    Attributes
    ----------
    centers : Tensor of shape (n_clusters, embed_dim)
        Mean code of each cluster: for looking at, they decide nothing.
    anchors : Tensor of shape (n_anchors, embed_dim)
        Codes, as compared.
    embedding : Tensor of shape (n_anchors, 2 n_clusters)
        Eigenvectors at the anchors. Columns beyond ``n_components`` are zero.
    prototypes : Tensor of shape (n_clusters, 2 n_clusters)
        Persistent centres of the embedded rows, of unit length.
    n_used, n_components : Tensor of shape ()
        Anchors and eigenvectors in use.

    References
    ----------
    "SSCNet: learning-based subspace clustering", Sections 4.3 and 5. Persistent centres and anchors are ours: a k-means
    of its own for every batch, as printed, gives clusters other numbers each time, and the eigenvectors of different
    batches differ by a rotation that a network applied to single rows cannot undo.
    """

    anchors: Tensor
    embedding: Tensor
    prototypes: Tensor
    n_used: Tensor
    n_components: Tensor
    scale: Tensor

    def __init__(
        self,
        embed_dim: int,
        n_clusters: int,
        n_anchors: int,
        *,
        n_neighbors: int = 5,
        bandwidth: float = 1.0,
        n_layers: int = 4,
        cosine: bool = True,
        residual: bool = True,
        mode: str = "cayley",
        step: float = 0.5,
        learn_rotation: bool = False,
        normalized: bool = True,
    ):
        super().__init__(embed_dim, n_clusters)
        self.n_neighbors, self.bandwidth = n_neighbors, bandwidth
        self.cosine, self.residual, self.normalized = cosine, residual, normalized
        width = 2 * n_clusters
        self.layers = nn.ModuleList(
            EigenvectorLayer(n_clusters, mode=mode, step=step, learn_rotation=learn_rotation) for _ in range(n_layers)
        )
        self.transform = nn.Sequential(  # G
            nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, width)
        )
        self.classifier = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, n_clusters))
        self.register_buffer("anchors", torch.zeros(n_anchors, embed_dim))
        self.register_buffer("embedding", torch.zeros(n_anchors, width))
        self.register_buffer("prototypes", torch.zeros(n_clusters, width))
        self.register_buffer("n_used", torch.zeros((), dtype=torch.int64))
        self.register_buffer("n_components", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.ones(()))
        if residual:
            for net in (self.transform, self.classifier):
                nn.init.zeros_(net[-1].weight)  # type: ignore[arg-type]
                nn.init.zeros_(net[-1].bias)  # type: ignore[arg-type]

    # -- anchors ------------------------------------------------------------------------------------------------

    def compared(self, z: Tensor) -> Tensor:
        """Codes as the graph compares them."""
        return unit_norm(z) if self.cosine else z

    @torch.no_grad()
    def set_anchors_(self, z: Tensor) -> Tensor:
        """Take the codes ``(m, embed_dim)`` of the anchors and return their graph ``(m, m)``, sparse."""
        if len(z) > len(self.anchors):
            raise ValueError(f"{len(z)} anchors do not fit into n_anchors={len(self.anchors)}.")
        points = self.compared(z)
        self.anchors[: len(z)] = points
        self.n_used.fill_(len(z))
        return self.graph()

    @torch.no_grad()
    def graph(self) -> Tensor:
        """Graph ``(m, m)`` of the anchors, sparse; sets the scale of its weights."""
        points = self.anchors[: int(self.n_used)]
        i, j, squared = neighbor_edges(points, self.n_neighbors)
        self.scale.copy_(self.bandwidth * distance_scale(squared))
        return symmetric_graph(i, j, edge_weights(squared, self.scale), len(points))

    @torch.no_grad()
    def set_embedding_(self, y: Tensor | np.ndarray, labels: Tensor) -> None:
        """Take eigenvectors ``(m, q)`` at the anchors, and prototypes from a label for each."""
        y = torch.as_tensor(np.array(y) if isinstance(y, np.ndarray) else y).to(self.embedding)
        m, q = y.shape
        self.embedding.zero_()
        self.embedding[:m, :q] = y
        self.n_components.fill_(q)
        one_hot = F.one_hot(labels, len(self.prototypes)).to(self.embedding.dtype)
        self.prototypes.copy_(unit_norm(one_hot.T @ unit_norm(self.embedding[:m])))

    @torch.no_grad()
    def refresh_(self, z: Tensor, *, n_steps: int = 10) -> Tensor:
        """Follow a network that has learned: new codes of the anchors, their eigenvectors, turned back, and prototypes.

        Returns the anchors' graph.
        """
        graph = self.set_anchors_(z)
        old = self._eigenvectors()
        y = old
        lap = laplacian(graph, normalized=self.normalized)
        for _ in range(n_steps):
            y = EigenvectorLayer.forward(self._step, y, lap)
        y = y @ rotation_onto(y, old)
        labels = (unit_norm(y) @ self.prototypes[:, : y.shape[1]].T).argmax(dim=1)
        empty = torch.bincount(labels, minlength=len(self.prototypes)) == 0
        kept = self.prototypes.clone()
        self.set_embedding_(y, labels)
        self.prototypes[empty] = kept[empty]
        return graph

    @property
    def _step(self) -> EigenvectorLayer:
        layer = self.layers[0]
        assert isinstance(layer, EigenvectorLayer)
        return layer

    def _eigenvectors(self) -> Tensor:
        return self.embedding[: int(self.n_used), : int(self.n_components)]

    # -- embedding ----------------------------------------------------------------------------------------------

    def _weights(self, points: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The nearest anchors ``(b, N)`` of rows, but not the rows' ``own``, and the weights of the edges to them."""
        anchors = self.anchors[: int(self.n_used)]
        more = self.n_neighbors + (own is not None)
        middle = 0.0 if self.cosine else anchors.mean(dim=0)
        nearest = nearest_neighbors(points.detach() - middle, min(more, len(anchors)), anchors - middle)
        squared = (points[:, None] - anchors[nearest]).square().sum(dim=2)
        if own is None:
            return nearest, squared
        keep = nearest != own[:, None]
        keep &= keep.cumsum(dim=1) <= self.n_neighbors
        return nearest, torch.where(keep, squared, torch.inf)

    def extend(self, z: Tensor) -> Tensor:
        """Embedding ``(b, 2k)`` of rows on their own, the mean of their nearest anchors'; if residual, of length 1."""
        nearest, squared = self._weights(self.compared(self._codes(z)))
        weight = (-squared / self.scale).softmax(dim=1)  # as in the graph; relative, so that far rows have some too
        if not self.residual:  # its classifier has learned eigenvectors as they are
            return (weight[..., None] * self.embedding[nearest]).sum(dim=1)
        rows = unit_norm(self.embedding[nearest].flatten(0, 1)).view(*nearest.shape, -1)
        return unit_norm((weight[..., None] * rows).sum(dim=1))

    def embed(self, z: Tensor, graph: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding ``(b, 2k)`` of a batch within the anchors' graph, of unit length, and ``tr(Y^T L Y) / q``.

        Parameters
        ----------
        z : Tensor of shape (b, embed_dim)
            Codes.
        graph : sparse Tensor of shape (m, m)
            Of the anchors, as :meth:`set_anchors_` returns it.
        own : Tensor of shape (b,)
            The number of the anchor that a row is, or -1: a row is not its own neighbour.
        """
        if not z.isfinite().all():  # what diverges is for the trainer to notice
            nothing = z.new_full((len(z), self.embedding.shape[1]), torch.nan)
            return nothing, z.sum() * torch.nan
        m = int(self.n_used)
        nearest, squared = self._weights(self.compared(z), own)
        finite = squared.isfinite()
        row = torch.arange(len(z), device=z.device)[:, None].expand_as(nearest)[finite]
        weight = edge_weights(squared[finite], self.scale) / 2
        i, j = graph.indices()
        row, column = m + row, nearest[finite]
        index = torch.stack([torch.cat([i, row, column]), torch.cat([j, column, row])])
        n = m + len(z)
        joint = torch.sparse_coo_tensor(
            index, torch.cat([graph.values(), weight, weight]), (n, n), check_invariants=False
        ).coalesce()
        lap = laplacian(joint, normalized=self.normalized)
        reference = self._eigenvectors()
        start = multiply(joint, torch.cat([reference, reference.new_zeros(len(z), reference.shape[1])]))[m:]
        start = start / degrees(joint)[m:, None].clamp_min(1e-12)
        y = orthonormal(torch.cat([reference, start]))
        for layer in self.layers:
            y = layer(y, lap)
        smoothness = (y * multiply(lap, y)).sum() / y.shape[1]
        y = y @ rotation_onto(y[:m], reference)
        return unit_norm(F.pad(y[m:], (0, self.embedding.shape[1] - y.shape[1]))), smoothness

    # -- clusters -----------------------------------------------------------------------------------------------

    def logits(self, y: Tensor) -> Tensor:
        """``(b, k)`` of embedded rows, in float32."""
        if not self.residual:
            return self.classifier(self.transform(y))
        h = y + self.transform(y)
        return unit_norm(h) @ self.prototypes.T / _TEMPERATURE + self.classifier(h)

    def pseudo_labels(self, y: Tensor) -> Tensor:
        """Nearest prototype ``(b,)``."""
        return (y @ self.prototypes.T).argmax(dim=1)

    def forward(self, z: Tensor) -> Tensor:
        """Class probabilities ``(b, k)``."""
        return self.logits(self.extend(z)).softmax(dim=1)

    def predict(self, z: Tensor) -> Tensor:
        """Most probable class ``(b,)``."""
        return self.logits(self.extend(z)).argmax(dim=1)

    def loss(self, z: Tensor) -> Tensor:
        """Cross-entropy of the rows' own pseudo-labels (Eq. 29, a mean), each row embedded on its own."""
        y = self.extend(z)
        return F.cross_entropy(self.logits(y), self.pseudo_labels(y.detach()))


def rotation_onto(y: Tensor, reference: Tensor) -> Tensor:
    """The orthogonal matrix that turns ``y`` (m, q) onto ``reference`` (m, q) best; without gradient."""
    u, _, vh = torch.linalg.svd(y.detach().T @ reference)
    return u @ vh


def orthonormal(y: Tensor) -> Tensor:
    """``y`` with its columns made orthonormal by a Cholesky factor: the same span, as near as it can be."""
    gram = y.T @ y
    gram = gram + 1e-6 * gram.diagonal().mean().detach() * torch.eye(len(gram), dtype=y.dtype, device=y.device)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), y.T, upper=False).T
