"""Cluster layers: k-means as a neural layer, in the forms of k-meansNet and of TELL, and plain centroids.

Each maps codes ``z`` (b, p) to soft assignments ``q`` (b, k) and plugs into any network: call ``layer.loss(z)``
in a training loop, ``layer(z)`` or ``layer.predict(z)`` afterwards. The latter two compute in float64: products with
few columns round differently by a row's place in the batch, and a row's answer must not depend on its company.

The loss takes the codes of further views of the same rows (an augmentation, say); their target is that of ``z``.
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralclust.functional.assignment import hard_assignment
from neuralclust.functional.distance import squared_euclidean
from neuralclust.nn.autoencoders import require_among, require_positive, require_sizes
from neuralclust.nn.targets import BalancedTarget


class Centroids(nn.Module):
    """What a cluster layer with centres can do beside its loss.

    Parameters
    ----------
    embed_dim : int
        Length of a code.
    n_clusters : int
        Number of centres.

    Attributes
    ----------
    unit_norm : bool
        Whether codes count by their direction only.
    """

    centers: Tensor
    unit_norm = False

    def __init__(self, embed_dim: int, n_clusters: int):
        super().__init__()
        require_sizes(embed_dim=embed_dim, n_clusters=n_clusters)
        self.embed_dim = embed_dim

    def _codes(self, z: Tensor) -> Tensor:
        """These codes ``(b, p)``, if they are some that the layer can take.

        Raises
        ------
        TypeError
            If ``z`` is not a tensor.
        ValueError
            If its shape is not ``(b, embed_dim)``.
        """
        name = type(self).__name__
        if not isinstance(z, Tensor):
            raise TypeError(
                f"{name} takes a tensor of codes, not a {type(z).__name__}: pass torch.as_tensor(z, "
                f"dtype=torch.float32)."
            )
        if z.ndim != 2 or z.shape[1] != self.embed_dim:
            raise ValueError(
                f"z of shape {tuple(z.shape)} must be of shape (b, {self.embed_dim}): a code a row, of the embed_dim "
                f"with which the {name} was made."
            )
        return z

    def extra_repr(self) -> str:
        n_clusters, embed_dim = self.centers.shape
        return f"embed_dim={embed_dim}, n_clusters={n_clusters}"

    def predict(self, z: Tensor) -> Tensor:
        """Cluster of every code ``(b,)``."""
        raise NotImplementedError

    @torch.no_grad()
    def init_(self, centers: Any, rows: Tensor | slice = slice(None)) -> Self:
        """Take these centres, a tensor or array ``(k, p)``, or ``(m, p)`` for ``m`` of the ``rows``.

        Raises
        ------
        ValueError
            If their shape is another, or one of them is not finite.
        """
        centers = torch.as_tensor(centers).to(self.centers)
        need = tuple(self.centers[rows].shape)
        if tuple(centers.shape) != need:
            raise ValueError(f"centers of shape {tuple(centers.shape)} must be of shape {need}: one row a cluster.")
        if not torch.isfinite(centers).all():
            raise ValueError("centers have NaN or infinite values. Pass finite ones, such as the result of k-means.")
        self._set_(centers, rows)
        return self

    def _set_(self, centers: Tensor, rows: Tensor | slice = slice(None)) -> None:
        """``init_`` without its checks."""
        raise NotImplementedError

    @torch.no_grad()
    def move_(self, centers: Tensor, rows: Tensor) -> None:
        """Put some centres elsewhere, and leave all else as it is."""
        self._set_(centers, rows)

    @torch.no_grad()
    def follow_(self, z: Tensor, forgetting: float, batch_size: int | None = None) -> None:
        """Move the centres that won codes of a batch towards their mean, and leave the others where they are.

        A centre that wins its share of a batch (of ``batch_size`` codes; by default, these), ``batch_size / k`` codes
        or more, goes ``forgetting`` of the way; with fewer codes, in proportion less. So a centre is a weighted mean of
        its codes, of which those of a batch ago count ``1 - forgetting`` as much as those of the last.

        Examples
        --------
        >>> import torch
        >>> from neuralclust.nn import CentroidLayer
        >>> layer = CentroidLayer(1, 2).init_(torch.tensor([[0.0], [4.0]]))
        >>> layer.follow_(torch.tensor([[1.0], [1.0]]), forgetting=0.5)
        >>> layer.centers.flatten().tolist()
        [0.5, 4.0]
        """
        centers = self.centers.detach()
        k = len(centers)
        won = F.one_hot(self.predict(z), k).to(centers.dtype)  # (b, k)
        z = (F.normalize(z, dim=1) if self.unit_norm else z).to(centers.dtype)
        counts = won.sum(dim=0)
        mean = won.T @ z / counts.clamp_min(1)[:, None]
        step = forgetting * (counts * k / (batch_size or len(z))).clamp_max(1)
        rows = counts > 0
        self.move_(torch.lerp(centers, mean, step[:, None])[rows], rows)


class CentroidLayer(Centroids):
    """Nearest-centroid assignment with running means: what k-means leaves behind when it is done.

    Parameters
    ----------
    embed_dim : int
        Length of a code.
    n_clusters : int
        Number of centres.

    Attributes
    ----------
    centers : Tensor of shape (n_clusters, embed_dim)
        Cluster centres.
    counts : Tensor of shape (n_clusters,)
        Rows that each centre is the mean of.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import CentroidLayer
    >>> layer = CentroidLayer(2, 2).init_(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
    >>> layer.predict(torch.tensor([[1.0, 0.0], [3.0, 1.0]]))
    tensor([0, 1])
    """

    centers: Tensor
    counts: Tensor

    def __init__(self, embed_dim: int, n_clusters: int):
        super().__init__(embed_dim, n_clusters)
        self.register_buffer("centers", torch.zeros(n_clusters, embed_dim))
        self.register_buffer("counts", torch.zeros(n_clusters))

    def _set_(self, centers: Tensor, rows: Tensor | slice = slice(None)) -> None:
        """Each is the mean of no rows yet."""
        self.centers[rows] = centers
        self.counts[rows] = 0.0

    @torch.no_grad()
    def move_(self, centers: Tensor, rows: Tensor) -> None:
        """Put some centres elsewhere; the rows that they are the mean of still count."""
        self.centers[rows] = centers

    def forward(self, z: Tensor) -> Tensor:
        """Soft assignment: Student's t kernel of the distances, ``1 / (1 + d^2 / s)``, normalised over clusters.

        ``s`` is the mean squared distance between different centres, so the kernel has the data's own scale.
        """
        centers = self.centers.double()
        k = len(centers)
        scale = squared_euclidean(centers, centers).sum() / max(k * (k - 1), 1)
        q = 1.0 / (1.0 + squared_euclidean(self._codes(z).double(), centers) / scale.clamp_min(1e-30))
        return (q / q.sum(dim=1, keepdim=True)).float()

    def predict(self, z: Tensor) -> Tensor:
        """Index of the nearest centre ``(b,)``."""
        return squared_euclidean(self._codes(z).double(), self.centers.double()).argmin(dim=1)

    def loss(self, z: Tensor) -> Tensor:
        """Mean squared distance to the nearest centre: inertia per row."""
        return squared_euclidean(self._codes(z), self.centers.to(z.dtype)).min(dim=1).values.mean()

    @torch.no_grad()
    def count_(self, z: Tensor) -> None:
        """Add these rows to the counts of their clusters, and leave the centres where they are."""
        self.counts += torch.bincount(self.predict(z), minlength=len(self.counts))

    @torch.no_grad()
    def update_(self, z: Tensor) -> None:
        """Move every centre to the mean of all rows it has won so far, this batch included.

        The closed form of the row-by-row rule ``c += (z - c) / count`` over one batch.
        """
        one_hot = F.one_hot(self.predict(z), len(self.counts)).to(z.dtype)  # (b, k)
        won = one_hot.sum(dim=0)
        total = self.counts + won
        mean = (self.counts[:, None] * self.centers + one_hot.T @ z) / total.clamp_min(1)[:, None]
        self.centers.copy_(torch.where(won[:, None] > 0, mean, self.centers))
        self.counts.copy_(total)


class KMeansNetLayer(Centroids):
    """k-means as a linear layer with softmax: the cluster layer of k-meansNet.

    ``-alpha |z - c_j|^2 = W_j.z + b_j - alpha`` for ``|z| = 1``, with ``W_j = 2 alpha c_j`` and
    ``b_j = -alpha |c_j|^2`` (Eq. 6); the soft assignment is the softmax of ``W z + b`` (Eq. 8) and the loss its
    expectation of ``-(W_j.z + b_j) / alpha`` (Eq. 7), which is ``|z - c_j|^2 - 1``.

    Parameters
    ----------
    embed_dim : int
        Length of a code.
    n_clusters : int
        Number of clusters.
    alpha : float, default=5.0
        Inverse temperature of the softmax (the paper tunes it within 1e-5 .. 5). With hard assignment it cancels
        from the loss that is not balanced and only sets how peaked the probabilities are.
    assignment : {"hard", "soft"}, default="hard"
        Indicator in the loss: the largest entry without gradient, or the softmax itself.
    coupled : bool, default=False
        Keep ``b_j = -|W_j|^2 / (4 alpha)`` instead of training ``b`` on its own. Soft and coupled needs
        ``alpha`` of at least about 5: below, every centre moves to the mean of the data.
    balanced : bool, default=False
        Codes learn from a :class:`~neuralclust.nn.BalancedTarget` and the centres alone from Eq. 7.

    Notes
    -----
    Trained freely, as the paper prescribes, the decoupled loss has no lower bound: adding c to every bias leaves
    the assignments alone and lowers the loss by c / alpha. Call :meth:`project_` after every optimiser step to
    keep ``|W_j| <= 2 alpha`` (the constraint the paper writes down in Eq. 10) and ``-alpha <= b_j <= 0``; the
    loss then stays within [-2, 3].

    References
    ----------
    "k-meansNet: When k-means Meets Differentiable Programming", Eq. 5-10.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import KMeansNetLayer
    >>> layer = KMeansNetLayer(2, 2).init_(torch.eye(2))
    >>> layer(torch.tensor([[1.0, 0.0]])).argmax(dim=1)
    tensor([0])
    """

    unit_norm = True

    def __init__(
        self,
        embed_dim: int,
        n_clusters: int,
        *,
        alpha: float = 5.0,
        assignment: str = "hard",
        coupled: bool = False,
        balanced: bool = False,
    ):
        super().__init__(embed_dim, n_clusters)
        require_positive(alpha=alpha)
        require_among(("hard", "soft"), assignment=assignment)
        self.alpha = alpha
        self.assignment = assignment
        self.coupled = coupled
        self.target = BalancedTarget(n_clusters) if balanced else None
        self.weight = nn.Parameter(torch.empty(n_clusters, embed_dim))
        self.free_bias = None if coupled else nn.Parameter(torch.empty(n_clusters))
        with torch.no_grad():
            self._set_(F.normalize(torch.randn(n_clusters, embed_dim), dim=1))

    def _set_(self, centers: Tensor, rows: Tensor | slice = slice(None)) -> None:
        """``W`` and ``b`` from cluster centres (Eq. 6)."""
        self.weight[rows] = 2 * self.alpha * centers
        if self.free_bias is not None:
            self.free_bias[rows] = -self.alpha * centers.square().sum(dim=1)

    @torch.no_grad()
    def move_(self, centers: Tensor, rows: Tensor) -> None:
        """Put some centres elsewhere; a bias that was learned changes by as much as the coupled one would."""
        if self.free_bias is not None:
            before = self.centers[rows].square().sum(dim=1)
            self.free_bias[rows] -= self.alpha * (centers.square().sum(dim=1) - before)
        self.weight[rows] = 2 * self.alpha * centers

    @property
    def centers(self) -> Tensor:  # type: ignore[override]
        """Cluster centres ``W / (2 alpha)``, ``(k, p)``."""
        return self.weight / (2 * self.alpha)

    @property
    def bias(self) -> Tensor:
        """``b`` ``(k,)``; computed from ``W`` when coupled."""
        if self.free_bias is None:
            return -self.weight.square().sum(dim=1) / (4 * self.alpha)
        return self.free_bias

    def logits(self, z: Tensor) -> Tensor:
        """``W z + b`` of the unit-norm codes, ``(b, k)``, in the precision of ``z``."""
        return self._logits(z, self.weight, self.bias)

    @staticmethod
    def _logits(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(F.normalize(z, dim=1), weight.to(z.dtype), bias.to(z.dtype))

    def forward(self, z: Tensor) -> Tensor:
        """Soft assignment ``(b, k)``, Eq. 8."""
        return self.logits(self._codes(z).double()).softmax(dim=1).float()

    def predict(self, z: Tensor) -> Tensor:
        """Largest output ``(b,)``, as in the paper's Fig. 1."""
        return self.logits(self._codes(z).double()).argmax(dim=1)

    def nearest(self, z: Tensor) -> Tensor:
        """Index of the nearest recovered centre ``(b,)``: the same as :meth:`predict` while ``b`` is coupled."""
        return squared_euclidean(F.normalize(self._codes(z).double(), dim=1), self.centers.double()).argmin(dim=1)

    def loss(self, z: Tensor, *views: Tensor) -> Tensor:
        """Eq. 7, as a mean over the rows instead of a sum; if balanced, plus the cross-entropy.

        The cross-entropy then moves the codes alone, and Eq. 7 the centres alone.
        """
        balanced = self.target is not None
        z, views = self._codes(z), tuple(map(self._codes, views))
        s = self.logits(z.detach() if balanced else z)
        indicator = hard_assignment(s) if self.assignment == "hard" else s.softmax(dim=1)
        pulled = [s] if balanced else [s, *map(self.logits, views)]
        pull = torch.stack([-(indicator * each).sum(dim=1).mean() / self.alpha for each in pulled]).mean()
        if self.target is None:
            return pull
        weight, bias = self.weight.detach(), self.bias.detach()
        return pull + self.target.loss(*(self._logits(each, weight, bias) for each in (z, *views)))

    @torch.no_grad()
    def project_(self) -> None:
        """Back to ``|W_j| <= 2 alpha``, ``-alpha <= b_j <= 0``."""
        self.weight.copy_(self.weight.renorm(2, 0, 2 * self.alpha))
        if self.free_bias is not None:
            self.free_bias.clamp_(-self.alpha, 0.0)


class TELLLayer(Centroids):
    """The cluster layer of TELL: unit-length centres as the weights of a linear layer without bias.

    With ``|z| = |c_j| = 1`` the bias is the same constant for every cluster and drops out;
    ``|z - c_j|^2 = 2 - 2 cos(z, c_j)``.

    Parameters
    ----------
    embed_dim : int
        Length of a code.
    n_clusters : int
        Number of clusters.
    alpha : float, default=0.5
        Scale of the stored weight, ``W_j = 2 alpha c_j``. It changes nothing but the size of gradients; the
        authors' code has 1e-3, the paper 1.
    temperature : float, default=0.2
        ``tau`` of the attention (Eq. 7), in units of the squared distance. The hard loss is its limit 0, as in the
        paper; a balanced target uses it.
    balanced : bool, default=False
        Codes learn from a :class:`~neuralclust.nn.BalancedTarget` and the centres alone from Eq. 13.

    References
    ----------
    "XAI Beyond Classification: Interpretable Neural Clustering", Eq. 5-8, 12, 13 and Section 2.2.3.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import TELLLayer
    >>> layer = TELLLayer(2, 2).init_(torch.eye(2))
    >>> layer.predict(torch.tensor([[3.0, 1.0], [0.0, 2.0]]))
    tensor([0, 1])
    """

    unit_norm = True

    def __init__(
        self,
        embed_dim: int,
        n_clusters: int,
        *,
        alpha: float = 0.5,
        temperature: float = 0.2,
        balanced: bool = False,
    ):
        super().__init__(embed_dim, n_clusters)
        require_positive(alpha=alpha, temperature=temperature)
        self.alpha = alpha
        self.temperature = temperature
        self.target = BalancedTarget(n_clusters) if balanced else None
        self.weight = nn.Parameter(torch.empty(n_clusters, embed_dim))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.normalize_()

    def _set_(self, centers: Tensor, rows: Tensor | slice = slice(None)) -> None:
        """The directions of these centres; their lengths do not count."""
        self.weight[rows] = 2 * self.alpha * F.normalize(centers, dim=1)

    @property
    def centers(self) -> Tensor:  # type: ignore[override]
        """Unit-length cluster centres ``W / (2 alpha)``, ``(k, p)``."""
        return self.weight / (2 * self.alpha)

    def cosine(self, z: Tensor, centers: Tensor | None = None) -> Tensor:
        """Cosine of every code with every centre (or these ones), ``(b, k)``, in the precision of ``z``."""
        centers = self.centers if centers is None else centers
        return F.linear(F.normalize(z, dim=1), centers.to(z.dtype))

    def forward(self, z: Tensor) -> Tensor:
        """Attention over the clusters ``(b, k)``, Eq. 7 with squared distances ``2 - 2 cos``."""
        return (2 * self.cosine(self._codes(z).double()) / self.temperature).softmax(dim=1).float()

    def predict(self, z: Tensor) -> Tensor:
        """Index of the nearest centre ``(b,)``."""
        return self.cosine(self._codes(z).double()).argmax(dim=1)

    def loss(self, z: Tensor, *views: Tensor) -> Tensor:
        """Mean squared distance to the nearest centre, ``2 - 2 cos``: Eq. 13 per row, with tau at 0.

        If balanced, plus the cross-entropy, which then moves the codes alone, and Eq. 13 the centres alone.
        """
        z, views = self._codes(z), tuple(map(self._codes, views))
        if self.target is None:
            nearest = self.cosine(z).argmax(dim=1, keepdim=True)
            cosines = [self.cosine(each).gather(1, nearest) for each in (z, *views)]
            return (2 - 2 * torch.cat(cosines)).mean()
        centers, scale = self.centers.detach(), 2 / self.temperature
        logits = [scale * self.cosine(each, centers) for each in (z, *views)]
        return (2 - 2 * self.cosine(z.detach()).max(dim=1).values).mean() + self.target.loss(*logits)

    @torch.no_grad()
    def normalize_(self) -> None:
        """Back to unit length, after an optimiser step (Section 2.2.3)."""
        self._set_(self.weight)

    @torch.no_grad()
    def normalize_gradient_(self, fraction: float = 0.1) -> None:
        """Scale each row of the gradient to ``fraction`` of its centre's length (Section 2.2.3).

        The row of a cluster that won nothing has no direction and stays zero.
        """
        if self.weight.grad is not None:
            length = fraction * 2 * self.alpha
            self.weight.grad.copy_(length * F.normalize(self.weight.grad, dim=1, eps=1e-30))
