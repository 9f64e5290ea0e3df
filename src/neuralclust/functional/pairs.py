"""The losses of NCSC on the pairs of a batch, from a self-expressive affinity A_s and class probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralclust.functional.affinity import class_affinity

_EPS = 1e-6
_UNRELATED = 0.05  # A_s of a pair that may be a negative


def collaboration(
    a_s: Tensor,
    p: Tensor,
    p_view: Tensor | None = None,
    *,
    u: float,
    l: float,  # noqa: E741
    balance_weight: float,
    share: Tensor | None = None,
) -> dict[str, Tensor]:
    """What a classifier learns from A_s: sure pairs together, unrelated ones apart, classes in balance.

    Parameters
    ----------
    a_s : Tensor of shape (b, b)
        Self-expressive affinity, a constant.
    p : Tensor of shape (b, k)
        Class probabilities of the rows.
    p_view : Tensor of shape (b, k), optional
        Of augmented views of the rows: A_c then compares rows with views, and a row's own view is one of its positives.
    u : float
        Pairs with A_s above it both ways are positives.
    l : float
        Pairs with A_s below 0.05 and A_c below ``l`` are negatives.
    balance_weight : float
        Weight of the balance: how far the mean probabilities are from ``share``, a Kullback-Leibler divergence.
    share : Tensor of shape (k,), optional
        Sizes that the classes are balanced towards, 1 on average. None: equal sizes.

    Returns
    -------
    dict
        ``clu``, the loss, a mean over pairs; and what tells without labels whether it goes well: ``positives`` a row,
        the share of them that ``agreed`` on a class, the share of all pairs that are ``negatives``, and ``balance``,
        the effective number of classes over k.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import collaboration
    >>> a_s = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    >>> terms = collaboration(a_s, p, u=0.9, l=0.5, balance_weight=0.5)
    >>> {name: round(float(terms[name]), 2) for name in ("positives", "agreed", "negatives")}
    {'positives': 0.67, 'agreed': 1.0, 'negatives': 0.44}
    """
    compared = torch.ones_like(a_s, dtype=torch.bool)
    if p_view is None:
        p_view = p
        compared.fill_diagonal_(False)
    a_c = class_affinity(p, p_view)
    with torch.no_grad():
        positive = (torch.minimum(a_s, a_s.T) > u) & compared
        negative = (a_s < _UNRELATED) & (a_c < l) & compared
    mean = (p + p_view).mean(dim=0) / 2
    log_share = 0.0 if share is None else share.log()
    balance = (mean * (mean.clamp_min(_EPS).log() - log_share)).sum()  # but for the constant log(k)
    sure = a_c[positive]  # few pairs: no matrix of their logarithms
    pull = -sure.clamp_min(_EPS).log().sum() / max(len(sure), 1)
    push = -_mean(torch.log1p(-a_c.clamp_max(1 - _EPS)), negative)
    return {"clu": pull + push + balance_weight * balance, **_signs(p, positive, negative)}


def printed_collaboration(a_s: Tensor, p: Tensor, *, u: float, l: float) -> dict[str, Tensor]:  # noqa: E741
    """Eq. 5 of "Neural Collaborative Subspace Clustering" in its soft form, with the minus that Eq. 6 and 7 leave out.

    Parameters and result as of :func:`collaboration`; A_s learns as well, and pairs with A_c below ``l`` teach it.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.functional import printed_collaboration
    >>> one_class = torch.tensor([[1.0, 0.0]]).expand(3, 2)  # the trivial optimum
    >>> abs(float(printed_collaboration(torch.eye(3), one_class, u=0.1, l=0.9)["clu"]))
    0.0
    """
    others = ~torch.eye(len(p), dtype=torch.bool, device=p.device)
    a_c = class_affinity(p)
    positive, negative = (a_s > u) & others, (a_c < l) & others
    pull = -_mean(a_s * a_c.clamp_min(_EPS).log(), positive)
    push = -_mean((1 - a_c) * (1 - a_s).clamp_min(_EPS).log(), negative)
    return {"clu": pull + push, **_signs(p, positive, negative)}


@torch.no_grad()
def _signs(p: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
    labels, mean = p.argmax(dim=1), p.mean(dim=0)
    first, second = positive.nonzero(as_tuple=True)
    return {
        "positives": positive.sum() / len(p),
        "agreed": (labels[first] == labels[second]).sum() / max(len(first), 1),
        "negatives": negative.float().mean(),
        "balance": (-torch.xlogy(mean, mean).sum()).exp() / p.shape[1],
    }


def _mean(values: Tensor, pairs: Tensor) -> Tensor:
    """Mean over the chosen pairs; 0 if there are none."""
    return (values * pairs).sum() / pairs.sum().clamp_min(1)
