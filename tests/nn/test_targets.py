"""Balanced targets: what they ask for, and who learns from them."""

import pytest
import torch
import torch.nn.functional as F

from neuralclust.nn import BalancedTarget, KMeansNetLayer, TELLLayer


@pytest.fixture
def z():
    return F.normalize(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), dim=1)


def test_target_is_decs_with_running_frequencies():
    logits = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    target = BalancedTarget(3)
    q = logits.softmax(dim=1)
    p = target(logits)
    frequency = 0.95 / 3 + 0.05 * q.mean(dim=0)
    expected = q**2 / frequency
    assert torch.allclose(p, expected / expected.sum(dim=1, keepdim=True), atol=1e-6)
    assert torch.allclose(target.frequency, frequency)


def test_crowded_clusters_lose():
    target = BalancedTarget(2).eval()
    target.frequency.copy_(torch.tensor([0.9, 0.1]))
    p = target(torch.tensor([[0.6, 0.0]]))
    assert p[0, 1] > p[0, 0]  # although the first is closer
    assert torch.equal(target.frequency, torch.tensor([0.9, 0.1]))  # nothing is learned in evaluation


def test_a_hair_of_a_cluster_is_no_division_by_zero():
    target = BalancedTarget(2).eval()
    target.frequency.copy_(torch.tensor([1.0, 0.0]))
    p = target(torch.tensor([[50.0, -50.0], [0.0, 0.0]]))
    assert torch.isfinite(p).all()
    assert torch.allclose(p.sum(dim=1), torch.ones(2))


def test_views_learn_the_targets_of_the_rows():
    target = BalancedTarget(2).eval()
    rows = torch.tensor([[4.0, 0.0]], requires_grad=True)
    view = torch.tensor([[0.0, 4.0]], requires_grad=True)
    target.loss(rows, view).backward()
    assert view.grad[0, 0] < 0 < view.grad[0, 1]
    assert view.grad.abs().sum() > 10 * rows.grad.abs().sum()


@pytest.mark.parametrize("layer", [TELLLayer, KMeansNetLayer])
def test_centres_learn_from_kmeans_and_codes_from_the_targets(layer, z):
    torch.manual_seed(0)
    centers = F.normalize(torch.randn(3, 4), dim=1)
    params = {"coupled": True} if layer is KMeansNetLayer else {}
    balanced = layer(4, 3, balanced=True, **params).init_(centers).eval()
    plain = layer(4, 3, **params).init_(centers).eval()
    z.requires_grad_(True)
    found, codes = torch.autograd.grad(balanced.loss(z), [balanced.weight, z])
    assert torch.allclose(found, torch.autograd.grad(plain.loss(z), plain.weight)[0], atol=1e-6)
    logits = 2 * plain.cosine(z) / plain.temperature if layer is TELLLayer else plain.logits(z)
    crossed = F.cross_entropy(logits, balanced.target(logits))
    assert torch.allclose(codes, torch.autograd.grad(crossed, z)[0], atol=1e-6)


@pytest.mark.parametrize("layer", [TELLLayer, KMeansNetLayer])
def test_hard_views_are_pulled_to_the_centres_of_their_rows(layer):
    head = layer(2, 2).init_(torch.eye(2))
    z, view = torch.tensor([[1.0, 0.1]]), torch.tensor([[0.1, 1.0]], requires_grad=True)
    head.loss(z, view).backward()
    assert view.grad[0, 0] < 0  # downhill is towards the first centre, though the second is nearer


def test_far_smaller_clusters_are_expected_to_stay_so():
    target = BalancedTarget(4).eval()
    target.expect_(torch.tensor([20, 30, 10, 20]))  # within a factor of two of the mean
    assert torch.equal(target.share, torch.ones(4))
    two = BalancedTarget(2)
    two.expect_(torch.tensor([60, 40]))
    assert torch.allclose(two.share, torch.tensor([1.2, 0.8]))
    target.expect_(torch.tensor([100, 90, 9, 1]))  # mean 50: 2, 1.8, 0.18 and 0.02 of it
    assert torch.allclose(target.share / target.share[0], torch.tensor([1.0, 1.0, 0.36, 0.04]))
    assert torch.allclose(target(torch.zeros(1, 4)), torch.full((1, 4), 0.25))  # none is crowded yet
    assert target.share.mean() == pytest.approx(1)
    target.frequency.copy_(torch.tensor([0.5, 0.45, 0.045, 0.005]))
    relaxed = target(torch.zeros(1, 4))
    target.share.fill_(1)
    assert relaxed[0, 3] < target(torch.zeros(1, 4))[0, 3] / 2


def test_a_cluster_without_rows_at_first_may_come_to_have_some():
    target = BalancedTarget(3)
    target.expect_(torch.tensor([500, 500, 0]))
    logits = torch.tensor([[0.0, 0.0, 3.7]])  # 95 % sure
    assert target(logits)[0, 2] > 0.9
