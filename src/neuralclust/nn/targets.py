"""Soft targets that keep clusters apart: what a cluster layer can learn from instead of its own hard assignment."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralclust.functional.assignment import sharpen
from neuralclust.nn.autoencoders import require_sizes

_MEMORY = 0.05  # share of a batch in the running frequencies
EQUAL = 2.0  # clusters within this factor of the mean size count as equally large


def expected_share(sizes: Tensor) -> Tensor:
    """Sizes ``(k,)``, 1 on average, to balance clusters towards that start with ``sizes`` rows.

    Up to twice or half the mean counts as equal, and beyond that the excess is kept: two clusters taken for one, or
    one for two, is what a start gets wrong, and balancing towards its exact sizes would let that grow. Of two clusters
    there are no such errors, and their first sizes are kept as they are.
    """
    relative = sizes.clamp_min(1) / sizes.float().mean()  # a cluster without rows may come to have some
    share = relative / relative.clamp(1 / EQUAL, EQUAL) if len(sizes) > 2 else relative
    return share / share.mean()


class BalancedTarget(nn.Module):
    """Cross-entropy with a sharpened assignment in which the entries of crowded clusters lose.

    The target of a row is ``q^2 / f``, scaled to sum to 1, with its soft assignment ``q`` and the frequencies ``f`` of
    the clusters: DEC's target distribution, but for batches, with running frequencies instead of those of all rows. It
    has no gradient. A hard target lets a large cluster grow at the cost of its neighbours; this one pulls rows that are
    nearly as close to a small cluster towards that one. Where sizes are far from equal it would fill the small ones
    with rows of the large; :meth:`expect_` relaxes it.

    Parameters
    ----------
    n_clusters : int
        Number of clusters.

    Attributes
    ----------
    frequency : Tensor of shape (n_clusters,)
        Running mean of the soft assignments.
    share : Tensor of shape (n_clusters,)
        Sizes that the clusters are balanced towards, 1 on average.

    References
    ----------
    J. Xie, R. Girshick, A. Farhadi: "Unsupervised Deep Embedding for Clustering Analysis", 2016, Eq. 3.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import BalancedTarget
    >>> target = BalancedTarget(2).eval()
    >>> target(torch.tensor([[0.0, 1.0]]))  # q = (.27, .73), twice as sharp
    tensor([[0.1192, 0.8808]])
    """

    frequency: Tensor
    share: Tensor

    def __init__(self, n_clusters: int):
        super().__init__()
        require_sizes(n_clusters=n_clusters)
        self.register_buffer("frequency", torch.full((n_clusters,), 1 / n_clusters))
        self.register_buffer("share", torch.ones(n_clusters))

    @torch.no_grad()
    def expect_(self, sizes: Tensor) -> None:
        """Balance towards the :func:`expected_share` of the sizes ``(k,)`` of the first clusters.

        Examples
        --------
        >>> import torch
        >>> from neuralclust.nn import BalancedTarget
        >>> target = BalancedTarget(3)
        >>> target.expect_(torch.tensor([50, 40, 10]))  # 0.3 of the mean: 0.6 times as small as half of it
        >>> target.share
        tensor([1.1538, 1.1538, 0.6923])
        """
        self.share.copy_(expected_share(sizes))
        self.frequency.copy_(self.share / len(sizes))  # no cluster is crowded yet

    @torch.no_grad()
    def forward(self, logits: Tensor) -> Tensor:
        """Targets ``(b, k)`` of the logits ``(b, k)`` of a batch, which join the frequencies while training."""
        q = logits.softmax(dim=1)
        if self.training:
            self.frequency.lerp_(q.mean(dim=0).to(self.frequency.dtype), _MEMORY)
        return sharpen(q, 2.0, (self.frequency / self.share).to(q.dtype))

    def loss(self, logits: Tensor, *views: Tensor) -> Tensor:
        """Cross-entropy with the targets of ``logits``, of these and of the logits of other views of the same rows."""
        target = self(logits)
        return torch.stack([F.cross_entropy(each, target) for each in (logits, *views)]).mean()
