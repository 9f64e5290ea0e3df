"""The layer of DCSAI against NumPy loops, and the published loss doing what its flaws say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neuralclust.functional import (
    DISTANCES,
    assignment_divergence,
    cosine,
    relu_closeness,
    sharpen,
    student_closeness,
)
from neuralclust.metrics import clustering_accuracy
from neuralclust.nn import InvarianceLayer

METRICS = ["euclidean", "cosine", "correlation", "cityblock"]


def codes(n=12, p=4, seed=0):
    return torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(metrics=("euclidean",), k=3, p=4, **options):
    return InvarianceLayer(p, k, metrics=metrics, **options).double().init_(codes(k, p, 1))


def distance_by_hand(metric, a, b):
    if metric == "euclidean":
        return float(((a - b) ** 2).sum())  # squared, as in Eq. 8
    if metric == "cityblock":
        return float(abs(a - b).sum())
    if metric == "correlation":
        a, b = a - a.mean(), b - b.mean()
    return 1 - float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def assignments_by_hand(metric, z, c, scale=1.0, powers=(2.0, 2.0), divide=True):
    """Eq. 6-11 by loops; frequencies of the rows given, to the power / 2 that leaves Eq. 6 at 2."""
    n, k = len(z), len(c)
    q1, q2 = np.zeros((n, k)), np.zeros((n, k))
    for i in range(n):
        d = [float(np.linalg.norm(z[i] - c[j])) for j in range(k)]
        for j in range(k):
            q1[i, j] = max(0.0, sum(d) / k - d[j])
            q2[i, j] = 1 / (1 + scale * distance_by_hand(metric, z[i], c[j]))
        q2[i] /= q2[i].sum()
    found = []
    for q, power in zip((q1, q2), powers, strict=True):
        p = q**power / (q.sum(axis=0) ** (power / 2) if divide else 1)
        found.append(p / p.sum(axis=1, keepdims=True))
    return found


def divergence_by_hand(t, p, eps=1e-7):
    total = 0.0
    for i in range(len(t)):
        for j in range(t.shape[1]):
            total += t[i, j] * np.log((t[i, j] + eps) / (p[i, j] + eps))
    return total / len(t)


@pytest.mark.parametrize("metric", METRICS)
def test_printed_loss_by_loops(metric):
    z, one = codes(), layer((metric,), printed=True)
    p1, p2 = assignments_by_hand(metric, z.numpy(), codes(3, 4, 1).numpy())
    assert float(one.train().loss(z).detach()) == pytest.approx(divergence_by_hand(p2, p1), rel=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_mutual_loss_by_loops(metric):
    z, one = codes(40), layer((metric,))
    one.calibrate_(z).eval()
    scale, c = float(one.scale[0]), codes(3, 4, 1).numpy()
    t1, t2 = assignments_by_hand(metric, z.numpy(), c, scale, one.target_power.tolist())
    p1, p2 = assignments_by_hand(metric, z.numpy(), c, scale, one.prediction_power.tolist(), divide=False)
    by_hand = (divergence_by_hand(t2, p1) + divergence_by_hand(t1, p2)) / 2
    assert float(one.loss(z).detach()) == pytest.approx(by_hand, rel=1e-6)
    for found, expected in zip(one.assignments(z), (p1, p2), strict=True):
        assert np.allclose(found.detach(), expected)


@pytest.mark.parametrize("printed", [True, False])
def test_several_metrics_are_summed(printed):
    """Eq. 4 over the pairs (P1, P2), (P1, P3), ..."""
    z = codes(40)
    alone = sum(float(layer((m,), printed=printed).calibrate_(z).eval().loss(z).detach()) for m in METRICS)
    if printed:  # the stored frequencies are ones there
        assert float(layer(METRICS, printed=True).eval().loss(z).detach()) == pytest.approx(alone, rel=1e-9)
    else:
        assert float(layer(METRICS).calibrate_(z).eval().loss(z).detach()) == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_gradients(metric):
    """Both sides of the printed loss carry gradient; the targets of the other do not."""
    z = codes().requires_grad_()
    printed = layer((metric,), printed=True)
    assert torch.autograd.gradcheck(printed.loss, (z,))
    mutual = layer((metric,)).calibrate_(z.detach()).eval()
    closeness = mutual.closeness(z)
    with torch.no_grad():
        parts = zip(closeness, mutual.target_power, mutual.frequency, strict=True)
        t1, t2 = (sharpen(q / f.sqrt(), r) for q, r, f in parts)
    p1, p2 = mutual.assignments(z)
    expected = torch.autograd.grad((assignment_divergence(t2, p1) + assignment_divergence(t1, p2)) / 2, z)[0]
    assert torch.allclose(torch.autograd.grad(mutual.loss(z), z)[0], expected)


def test_batch_frequencies_train_the_printed_loss_and_move_the_others():
    z = codes(40)
    printed, mutual = layer(printed=True), layer().calibrate_(z)
    before = mutual.frequency.clone()
    printed.train().loss(z[:9])
    mutual.train().loss(z[:9])
    batch = torch.stack([q.mean(dim=0) for q in mutual.closeness(z[:9])])
    assert torch.equal(printed.frequency, torch.ones(2, 3, dtype=torch.float64))
    assert torch.allclose(mutual.frequency, 0.9 * before + 0.1 * batch)


def test_a_cluster_does_not_take_over_where_there_are_none():
    """Rows of one blob: with frequencies that count less than the power, one cluster ends with most of them."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 10, generator=generator)
    one = InvarianceLayer(10, 5).init_(z[:5]).calibrate_(z).train()
    adam = torch.optim.Adam(one.parameters(), 1e-2)
    for step in range(300):
        (grad,) = torch.autograd.grad(one.loss(z[(40 * step) % 400 :][:40]), [one.centers])
        one.centers.grad = grad
        adam.step()
    sizes = one.predict(z).bincount(minlength=5)
    assert sizes.min() > 20


def test_clusters_that_are_far_from_equal_are_not_crowded_at_the_start():
    centers = 4 * torch.eye(3, 4)

    def calibrated(*sizes):
        noise = torch.randn(sum(sizes), 4, generator=torch.Generator().manual_seed(0))
        rows = centers.repeat_interleave(torch.tensor(sizes), dim=0) + 0.3 * noise
        return InvarianceLayer(4, 3, metrics=METRICS).init_(centers).calibrate_(rows)

    assert torch.equal(calibrated(30, 20, 10).expected, torch.ones(5, 3))  # half of the mean and one and a half
    for sizes, smallest in (((270, 20, 10), 0.1), ((900, 99, 1), 0.003)):  # the last cluster, in units of the mean
        one = calibrated(*sizes)
        spreads = [f.log().std(dim=1) for f in (one.frequency / one.expected, one.frequency)]
        assert torch.allclose(spreads[0] / spreads[1], torch.tensor(np.log(0.5) / np.log(smallest)).float())


def test_predict_from_either_assignment_and_alone():
    z = torch.randn(200, 4, generator=torch.Generator().manual_seed(2))
    for printed in (True, False):
        for which in ("P1", "P2"):
            one = InvarianceLayer(4, 3, metrics=("cosine",), printed=printed, predict_from=which)
            one.init_(codes(3, 4, 1).float()).calibrate_(z)
            one.frequency.uniform_(0.1, 1.0, generator=torch.Generator().manual_seed(0))
            expected = one.assignments(z.double())[which == "P2"]
            assert torch.equal(one.predict(z), expected.argmax(dim=1))
            assert torch.allclose(one(z), expected.float())
            assert torch.equal(torch.cat([one.predict(row) for row in z.split(1)]), one.predict(z))
    assert torch.equal(layer().predict(z), torch.cdist(z.double(), codes(3, 4, 1)).argmin(dim=1))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("units", [1e-3, 1.0, 1e3])
def test_calibration_sets_the_sharpness_whatever_the_units(metric, units):
    z = 3 * F.normalize(codes(3, 4, 1), dim=1)[torch.arange(300) % 3] + 0.3 * codes(300)
    one = layer((metric,)).init_(units * 3 * F.normalize(codes(3, 4, 1), dim=1)).calibrate_(units * z)
    closeness = one.closeness(units * z)
    for q, power in zip(closeness, one.target_power, strict=True):
        level = float(sharpen(q, power, q.mean(dim=0)).amax(dim=1).mean().detach())
        assert level == pytest.approx(0.95, abs=0.01) or (level > 0.95 and float(power) < 1.001)


def test_degenerate_codes():
    """All codes alike, a centre on a code, one cluster: finite, and probabilities that sum to 1."""
    for z, k in ((torch.zeros(20, 4), 3), (codes(20).float(), 1), (codes(20).float(), 2)):
        for printed in (True, False):
            one = InvarianceLayer(4, k, metrics=METRICS, printed=printed).init_(z[:k]).calibrate_(z)
            rows = z.clone().requires_grad_()
            loss = one.train().loss(rows)
            assert torch.isfinite(loss)
            assert torch.isfinite(torch.autograd.grad(loss, rows)[0]).all()
            assert torch.allclose(one(z).sum(dim=1), torch.ones(20))


def test_float64_codes_train():
    one = InvarianceLayer(4, 3, metrics=("cosine",)).init_(codes(3, 4, 1).float()).calibrate_(codes(40))
    assert torch.isfinite(one.train().loss(codes(40)))
    with pytest.raises(ValueError, match="predict_from"):
        InvarianceLayer(4, 3, predict_from="p2")


@pytest.mark.parametrize("metric", METRICS)
def test_centres_that_are_the_codes(metric):
    """Distances of zero: closenesses stay finite, and every row keeps its centre."""
    z = codes(6, 5).float()
    one = InvarianceLayer(5, 6, metrics=(metric,)).init_(z).calibrate_(z)
    assert torch.equal(one.predict(z), torch.arange(6))
    assert torch.isfinite(one.loss(z))


# -- where the printed form fails -----------------------------------------------------------------------------


def test_printed_divergence_is_infinite_without_eps():
    """P1 has exact zeros (Eq. 7) where P2 has none (Eq. 8)."""
    z = codes(100, 8)
    one = InvarianceLayer(8, 10, printed=True, eps=0.0).double().init_(codes(10, 8, 1))
    p1 = one.train().closeness(z)[0]
    assert float((p1 == 0).double().mean()) > 0.3
    assert float(one.loss(z).detach()) == float("inf")
    one.eps = 1e-7
    assert 0 < float(one.loss(z).detach()) < 100


def test_similarities_in_place_of_distances_rank_backwards():
    """Eq. 9 as printed is the cosine itself: (1 + cos)^-1 is largest for the centre that is least alike."""
    c = F.normalize(codes(3, 4, 1), dim=1)
    literal = student_closeness(1 - cosine(c, c))
    ours = student_closeness(cosine(c, c))
    assert torch.equal(ours.argmax(dim=1), torch.arange(3))
    assert (literal.argmin(dim=1) == torch.arange(3)).all()


def well_separated(seed, n=600, k=6, p=10):
    generator = torch.Generator().manual_seed(seed)
    centers = F.normalize(torch.randn(k, p, generator=generator), dim=1)
    y = torch.arange(n) % k
    return F.normalize(centers[y] + 0.12 * torch.randn(n, p, generator=generator), dim=1), y, centers


def descend(z, one, steps=300, lr=0.02):
    """Free codes and centres: what the loss itself wants."""
    free = z.clone().requires_grad_()
    adam = torch.optim.Adam([free, one.centers], lr)
    for _ in range(steps):
        adam.zero_grad()
        one.train().loss(free).backward()
        adam.step()
    return free.detach()


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_a_frozen_flat_target_unlearns_the_clusters(metric):
    """Scale 1 on a bounded distance: P2 is flatter than P1, and P1 follows it. The mutual loss keeps the clusters."""
    z, y, centers = well_separated(0)

    class Frozen(InvarianceLayer):
        """The printed loss with P2 as a fixed target."""

        def loss(self, z):
            first, second = (sharpen(q, 2.0, q.mean(dim=0)) for q in self.closeness(z))
            return assignment_divergence(second.detach(), first, self.eps)

    printed = Frozen(10, 6, metrics=(metric,), printed=True).init_(centers)
    assert clustering_accuracy(y, printed.predict(z)) > 0.98
    p1, p2 = (p.amax(dim=1).mean() for p in printed.assignments(z.double()))
    assert p2 < 0.7 * p1
    free = descend(z, printed)
    after = printed.assignments(free.double())[0].amax(dim=1).mean()
    assert after < 0.7 * p1
    mutual = InvarianceLayer(10, 6, metrics=(metric,)).init_(centers).calibrate_(z)
    before = mutual.assignments(z.double())[0].amax(dim=1).mean()
    free = descend(z, mutual)
    assert mutual.assignments(free.double())[0].amax(dim=1).mean() > before
    assert clustering_accuracy(y, mutual.predict(free)) > 0.98


def test_dividing_the_prediction_by_frequencies_rewards_imbalance():
    """Eq. 6 in P1: a target that asks for balance is met by P1 while Q1 gives a cluster more than its share."""
    q = torch.tensor([[0.6, 0.4], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]], dtype=torch.float64)
    even = torch.full_like(q, 0.5)
    assert torch.allclose(sharpen(q, 1.0, q.sum(dim=0)), even)
    assert not torch.allclose(sharpen(q, 1.0), even)


def test_relu_closeness_of_two_clusters_is_one_hot():
    q = relu_closeness(torch.rand(50, 2, generator=torch.Generator().manual_seed(0)))
    assert ((q > 0).sum(dim=1) <= 1).all()


def test_distances_know_their_names():
    assert sorted(DISTANCES) == sorted(METRICS)
    for name, distance in DISTANCES.items():
        z, c = codes(5), codes(3, 4, 1)
        expected = [[distance_by_hand(name, a, b) for b in c.numpy()] for a in z.numpy()]
        if name == "euclidean":
            expected = np.sqrt(expected)
        assert np.allclose(distance(z, c), expected)
        assert torch.autograd.gradcheck(distance, (z.requires_grad_(), c.requires_grad_()))
