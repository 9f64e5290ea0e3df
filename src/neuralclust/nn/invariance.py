"""The cluster layer of DCSAI: soft assignments by several distances that learn to agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralclust.functional.assignment import relu_closeness, sharpen, student_closeness
from neuralclust.functional.distance import DISTANCES, euclidean, squared_euclidean
from neuralclust.functional.losses import assignment_divergence
from neuralclust.nn.autoencoders import require_among
from neuralclust.nn.heads import Centroids
from neuralclust.nn.targets import EQUAL

TARGET_LEVEL = 0.95  # mean largest entry of a target; with 0.8, codes and centres lose what k-means gave them
_MOST_PREDICTION_LEVEL = 0.8  # of a prediction, which has nothing to learn if it is one-hot, as P1 of two clusters is
_POWERS = 1.0, 128.0
_CALIBRATION_ROWS = 10_000
_TINY = 1e-30
_MEMORY = 0.1  # weight of a batch in the running frequencies


class InvarianceLayer(Centroids):
    """Soft assignments P1, P2, ... of a code, each by a distance of its own, and the loss that makes them agree.

    P1 comes from the Euclidean distance by ``max(0, mean - d)`` (Eq. 7), each other from its own distance by
    ``1 / (1 + s d)`` (Eq. 8; Euclidean distances squared); both are raised to a power and normalised (Eq. 6).

    Parameters
    ----------
    embed_dim : int
        Length of a code.
    n_clusters : int
        Number of centres.
    metrics : sequence of {"euclidean", "cosine", "correlation", "cityblock"}, default=("euclidean",)
        Distances of P2, P3, ...
    printed : bool, default=False
        The published loss ``sum_m KL(P_m || P1)``, every P with power 2, scale 1 and divided by the frequencies of
        the clusters. See Notes for what is done instead.
    predict_from : {"P1", "P2"}, default="P1"
        The assignment that gives labels and probabilities (the paper's Eq. 12 takes P1, its Table VI compares).
    eps : float, default=1e-7
        Keeps the logarithms of the loss finite.

    Attributes
    ----------
    centers : Parameter of shape (n_clusters, embed_dim)
        Cluster centres.
    scale : Tensor of shape (n_metrics,)
        ``s``.
    prediction_power, target_power : Tensor of shape (1 + n_metrics,)
        Powers of Eq. 6, P1's first.
    frequency : Tensor of shape (1 + n_metrics, n_clusters)
        Cluster frequencies of Eq. 6: mean closeness over the rows, P1's first.
    expected : Tensor of shape (1 + n_metrics, n_clusters)
        Frequencies for which no cluster counts as crowded, 1 on average; all 1 with the printed loss.

    Notes
    -----
    The printed loss has two flaws. Its target P2 is flatter than its prediction P1, so that agreement means unlearning;
    and P1 is divided by the frequencies as well, so that a cluster may take over while its P1 stays balanced. Here
    every assignment learns from the other's *target*, without gradient through it: ``(Q^2 / f)^a``, Eq. 6 for a = 1,
    with a power for which the mean largest entry is 0.95, while predictions carry no frequencies and are about as sharp
    as the P1 of Eq. 6-7. All powers and scales are set once, from the codes at the start (:meth:`calibrate_`), so that
    neither the metric nor the units of the codes matter.

    References
    ----------
    "Deep Clustering With Sample-Assignment Invariance Prior", Eq. 4-12.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import InvarianceLayer
    >>> layer = InvarianceLayer(2, 3, metrics=("cosine", "cityblock")).init_(3 * torch.eye(3, 2))
    >>> layer.predict(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([0, 1])
    """

    scale: Tensor
    prediction_power: Tensor
    target_power: Tensor
    frequency: Tensor
    expected: Tensor

    def __init__(
        self,
        embed_dim: int,
        n_clusters: int,
        *,
        metrics: Sequence[str] = ("euclidean",),
        printed: bool = False,
        predict_from: str = "P1",
        eps: float = 1e-7,
    ):
        super().__init__(embed_dim, n_clusters)
        require_among(("P1", "P2"), predict_from=predict_from)
        if isinstance(metrics, str) or not metrics:
            raise ValueError(f"metrics={metrics!r} must be a sequence of one or more names, such as ('cosine',).")
        for metric in metrics:
            require_among(DISTANCES, metrics=metric)
        self.metrics = tuple(metrics)
        self.printed = printed
        self.predict_from = predict_from
        self.eps = eps
        self.centers = nn.Parameter(torch.randn(n_clusters, embed_dim))
        self.register_buffer("scale", torch.ones(len(self.metrics)))
        self.register_buffer("prediction_power", torch.full((1 + len(self.metrics),), 2.0))
        self.register_buffer("target_power", torch.full((1 + len(self.metrics),), 2.0))
        self.register_buffer("frequency", torch.ones(1 + len(self.metrics), n_clusters))
        self.register_buffer("expected", torch.ones(1 + len(self.metrics), n_clusters))

    def _set_(self, centers: Tensor, rows: Tensor | slice = slice(None)) -> None:
        self.centers[rows] = centers

    @torch.no_grad()
    def calibrate_(self, z: Tensor) -> InvarianceLayer:
        """Set scales, powers and what frequencies are expected, from codes ``(n, p)``, at most 10,000 of them.

        With the printed loss, nothing. A scale is the inverse of the mean distance to the nearest centre, so that the
        kernel bends where clusters end. Equal frequencies are expected, but where clusters are far from equally large
        those that there are: division by plain ones would fill small clusters with rows of the large.
        """
        if self.printed:
            return self
        z = z[:: -(-len(z) // _CALIBRATION_ROWS)].double()
        for i, metric in enumerate(self.metrics):
            d = self._distance(z, metric)
            # codes may coincide with their centres; the kernel must stay wider than the rounding of distances
            self.scale[i] = 1 / d.min(dim=1).values.mean().clamp_min(1e-4 * d.mean()).clamp_min(1e-30)
        closeness = self.closeness(z)
        self.frequency.copy_(torch.stack([q.mean(dim=0) for q in closeness]))
        inequality = _inequality(closeness[0].argmax(dim=1).bincount(minlength=len(self.centers)))
        frequency = self.frequency.clamp_min(_TINY)  # P1 of codes that are all alike is close to no centre
        self.expected.copy_((frequency / frequency.mean(dim=1, keepdim=True)).pow(inequality))
        level = min(_sharpness(sharpen(closeness[0], 2.0)), _MOST_PREDICTION_LEVEL)
        for i, q in enumerate(closeness):
            self.target_power[i] = _power(q, q.mean(dim=0) / self.expected[i], TARGET_LEVEL)
            if i > 0:
                self.prediction_power[i] = _power(q, None, level)
        return self

    def _distance(self, z: Tensor, metric: str) -> Tensor:
        distance = squared_euclidean if metric == "euclidean" else DISTANCES[metric]
        return distance(z, self.centers.to(z.dtype))

    def closeness(self, z: Tensor) -> list[Tensor]:
        """Q1, Q2, ... ``(b, k)``: Eq. 7 by the Euclidean distance, Eq. 8 by each of the metrics."""
        first = relu_closeness(euclidean(z, self.centers.to(z.dtype)))
        others = (self._distance(z, m) for m in self.metrics)
        return [first, *(student_closeness(d, s) for d, s in zip(others, self.scale, strict=True))]

    def assignments(self, z: Tensor) -> list[Tensor]:
        """P1, P2, ... ``(b, k)`` with the stored frequencies: a row's do not depend on the rows that come with it."""
        frequencies = self.frequency.to(z.dtype) if self.printed else [None] * len(self.prediction_power)
        return [
            sharpen(q, power, f)
            for q, power, f in zip(self.closeness(z), self.prediction_power, frequencies, strict=True)
        ]

    def forward(self, z: Tensor) -> Tensor:
        """Soft assignment ``(b, k)``: P1 or P2."""
        return self.assignments(self._codes(z).double())[int(self.predict_from == "P2")].float()

    def predict(self, z: Tensor) -> Tensor:
        """Index of the largest entry of the soft assignment ``(b,)``, Eq. 12."""
        return self.assignments(self._codes(z).double())[int(self.predict_from == "P2")].argmax(dim=1)

    def loss(self, z: Tensor, *views: Tensor) -> Tensor:
        """Disagreement of the assignments, mean over the rows and sum over the pairs (P1, P2), (P1, P3), ... (Eq. 4).

        The targets of the codes of further views of the same rows are those of ``z``; the printed loss, which has no
        targets, is the mean over the views.

        Frequencies are those of the batch in the printed loss and running means otherwise, while training; the stored
        ones in evaluation mode.
        """
        z, views = self._codes(z), tuple(map(self._codes, views))
        closeness = self.closeness(z)
        if self.printed:
            each = [self._printed_loss(q) for q in (closeness, *map(self.closeness, views))]
            return torch.stack(each).mean()
        with torch.no_grad():
            if self.training:
                now = torch.stack([q.mean(dim=0) for q in closeness])
                self.frequency.lerp_(now.to(self.frequency.dtype), _MEMORY)
            first, *others = (
                _target(q, power, f)
                for q, power, f in zip(closeness, self.target_power, self.frequency / self.expected, strict=True)
            )
        total = z.new_zeros(())
        for each in (closeness, *map(self.closeness, views)):
            prediction, *others_prediction = (
                sharpen(q, power) for q, power in zip(each, self.prediction_power, strict=True)
            )
            for target, other in zip(others, others_prediction, strict=True):
                total = total + assignment_divergence(target, prediction, self.eps)
                total = total + assignment_divergence(first, other, self.eps)
        return total / (2 * (1 + len(views)))

    def _printed_loss(self, closeness: list[Tensor]) -> Tensor:
        frequencies = [q.mean(dim=0) for q in closeness] if self.training else list(self.frequency)
        first, *others = (sharpen(q, 2.0, f) for q, f in zip(closeness, frequencies, strict=True))
        return torch.stack([assignment_divergence(p, first, self.eps) for p in others]).sum()


def _target(closeness: Tensor, power: float | Tensor, frequency: Tensor) -> Tensor:
    """``(Q^2 / f)^(power / 2)``, normalised: the frequencies count as much beside a high power as beside 2, Eq. 6.

    Beside a plain f a high power lets one cluster take all the rows of data without clear clusters.
    """
    return sharpen(closeness / (frequency / frequency.mean().clamp_min(_TINY)).clamp_min(_TINY).sqrt(), power)


def _inequality(sizes: Tensor) -> Tensor:
    """How far clusters of these sizes are from equally large: 0 up to twice or half the mean, then towards 1."""
    relative = (sizes.clamp_min(1) / sizes.double().mean()).log().abs()
    return (1 - math.log(EQUAL) / relative.max().clamp_min(math.log(EQUAL))).float()


def _sharpness(p: Tensor) -> float:
    return float(p.amax(dim=1).mean())


def _power(closeness: Tensor, frequency: Tensor | None, level: float) -> float:
    """The power for which an assignment has this sharpness, within ``_POWERS``."""
    low, high = _POWERS
    for _ in range(30):
        middle = (low * high) ** 0.5
        p = sharpen(closeness, middle) if frequency is None else _target(closeness, middle, frequency)
        low, high = (middle, high) if _sharpness(p) < level else (low, middle)
    return middle
