"""Cluster layers against NumPy loops, gradients against finite differences, and the invariants of the papers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neuralclust.methods.tell import released_loss
from neuralclust.nn import (
    BalancedTarget,
    CentroidLayer,
    ClassifierLayer,
    InvarianceLayer,
    KMeansNetLayer,
    MLPAutoencoder,
    PoolConvAutoencoder,
    SpectralLayer,
    TELLLayer,
)


def codes(n=12, p=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, p, generator=generator, dtype=dtype), dim=1)


def unit_centers(k=3, p=4, seed=1):
    return codes(k, p, seed)


# -- TELL ------------------------------------------------------------------------------------


def test_tell_loss_by_loops():
    z, c = codes(), unit_centers()
    layer = TELLLayer(4, 3).double().init_(c)
    total = 0.0
    for i in range(12):
        total += min(float(((z[i] - c[j]) ** 2).sum()) for j in range(3))
    assert float(layer.loss(z).detach()) == pytest.approx(total / 12, rel=1e-10)


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 1.0])
@pytest.mark.parametrize("k", [3, 5])
def test_tell_released_loss_identity(alpha, k):
    """The authors' mean over all b x k entries is 0.02 - (0.02 / k) mean cos; floor 0.018 for k = 10."""
    z, c = codes(20), unit_centers(k)
    layer = TELLLayer(4, k, alpha=alpha).double().init_(c)
    w = 2 * alpha * c.numpy()
    total, cosines = 0.0, []
    for row in z.numpy():
        s = [float(w[j] @ row) for j in range(k)]
        winner = int(np.argmax(s))
        cosines.append(s[winner] / (2 * alpha))
        for j in range(k):
            total += 2 * alpha - (s[j] if j == winner else 0.0)
    by_loops = 0.01 / alpha * total / (20 * k)
    assert float(released_loss(layer, z)) == pytest.approx(by_loops, rel=1e-10)
    assert by_loops == pytest.approx(0.02 - 0.02 / k * np.mean(cosines), rel=1e-10)
    assert float(released_loss(layer, z)) == pytest.approx(0.02 - 0.02 / k + 0.01 / k * float(layer.loss(z)), rel=1e-10)


def test_tell_table_s1():
    """The published 0.018138861 on MNIST is a mean cosine of .9306, 0.018088113 on CIFAR-10 one of .9559."""
    layer = TELLLayer(11, 10).double().init_(torch.eye(10, 11))
    for cosine, published in ((0.9306, 0.018138861), (0.9559, 0.018088113)):
        z = torch.zeros(1, 11, dtype=torch.float64)
        z[0, 3], z[0, 10] = cosine, (1 - cosine**2) ** 0.5
        assert float(released_loss(layer, z).detach()) == pytest.approx(published, abs=1e-6)


def test_tell_attention_by_loops():
    z, c = codes(), unit_centers()
    layer = TELLLayer(4, 3, temperature=0.3).double().init_(c)
    for i in range(12):
        e = np.exp([-float(((z[i] - c[j]) ** 2).sum()) / 0.3 for j in range(3)])  # Eq. 7
        assert np.allclose(layer(z)[i].detach(), e / e.sum(), atol=1e-6)


def test_tell_normalises_codes_and_centres():
    layer = TELLLayer(4, 3).init_(5 * unit_centers().float())
    assert torch.allclose(layer.centers.norm(dim=1), torch.ones(3))
    z = codes(dtype=torch.float32)
    assert torch.allclose(layer.loss(7 * z), layer.loss(z), atol=1e-6)


def test_tell_gradient_step_has_a_tenth_of_the_length():
    layer = TELLLayer(4, 3, alpha=1e-3).double()
    z = codes(40)
    layer.loss(z).backward()
    direction = F.normalize(layer.weight.grad.clone(), dim=1)
    layer.normalize_gradient_(0.1)
    assert torch.allclose(layer.weight.grad.norm(dim=1), 0.1 * layer.weight.norm(dim=1))
    assert torch.allclose(F.normalize(layer.weight.grad, dim=1), direction)


def test_tell_a_cluster_that_won_nothing_stays():
    layer = TELLLayer(2, 2).double().init_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    layer.loss(F.normalize(torch.tensor([[1.0, 0.3], [1.0, -0.1]], dtype=torch.float64), dim=1)).backward()
    layer.normalize_gradient_()
    assert torch.equal(layer.weight.grad[1], torch.zeros(2))
    assert float(layer.weight.grad[0].norm()) > 0


# -- k-meansNet ------------------------------------------------------------------------------------


@pytest.mark.parametrize("assignment", ["hard", "soft"])
@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("alpha", [1e-3, 0.5, 5.0])
def test_kmeansnet_loss_by_loops(assignment, coupled, alpha):
    """Eq. 7 and 8, and their equality with k-means' squared distance, |z - c|^2 - 1, while b is the centres'."""
    z, c = codes(), 0.8 * unit_centers()
    layer = KMeansNetLayer(4, 3, alpha=alpha, assignment=assignment, coupled=coupled).double().init_(c)
    total = 0.0
    for i in range(12):
        d2 = np.array([float(((z[i] - c[j]) ** 2).sum()) for j in range(3)])
        s = np.array([2 * alpha * float(c[j] @ z[i]) - alpha * float(c[j] @ c[j]) for j in range(3)])
        e = np.exp(s - s.max())
        indicator = e / e.sum() if assignment == "soft" else np.eye(3)[s.argmax()]
        assert np.allclose(-s / alpha, d2 - 1)
        total += float((indicator * (-s / alpha)).sum())
        assert np.allclose(layer(z)[i].detach(), e / e.sum(), atol=1e-6)
    assert float(layer.loss(z)) == pytest.approx(total / 12, rel=1e-9)
    assert torch.equal(layer.predict(z), layer.nearest(z))
    assert torch.allclose(layer.centers, c)


def test_kmeansnet_projection_bounds_weights_and_loss():
    layer = KMeansNetLayer(4, 3, alpha=0.7).double()
    with torch.no_grad():
        layer.weight.mul_(100)
        layer.free_bias.copy_(torch.tensor([5.0, -9.0, -0.2]))
    layer.project_()
    assert layer.weight.norm(dim=1).max() <= 2 * 0.7 + 1e-12
    assert layer.free_bias.tolist() == pytest.approx([0.0, -0.7, -0.2])
    assert -2 - 1e-9 <= float(layer.loss(codes())) <= 3


def test_kmeansnet_bias_feeds_the_loss_without_end():
    """Adding c to every bias leaves the assignments alone and lowers the loss by c / alpha."""
    layer = KMeansNetLayer(4, 3, alpha=0.5, assignment="soft").double()
    z = codes()
    before, q = float(layer.loss(z)), layer(z)
    with torch.no_grad():
        layer.free_bias += 1000.0
    assert float(layer.loss(z)) == pytest.approx(before - 1000 / 0.5)
    assert torch.allclose(layer(z), q)


def test_kmeansnet_soft_is_uniform_at_the_papers_alpha():
    """Within 0.4 % of 1 / k at alpha = 1e-3."""
    layer = KMeansNetLayer(4, 3, alpha=1e-3).double().init_(unit_centers())
    assert float((layer(codes()) * 3 - 1).abs().max()) < 0.004


@pytest.mark.parametrize("make", [
    lambda: TELLLayer(3, 2, alpha=0.5), lambda: KMeansNetLayer(3, 2, assignment="soft"),
    lambda: KMeansNetLayer(3, 2, coupled=True, assignment="soft"), lambda: KMeansNetLayer(3, 2),
])  # fmt: skip
def test_gradients(make):
    torch.manual_seed(0)
    layer = make().double()
    z = codes(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(layer.loss, (z,))
    params = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    names = [n for n, _ in layer.named_parameters()]

    def by_params(*values):
        return torch.func.functional_call(
            _Loss(layer), {f"layer.{n}": v for n, v in zip(names, values, strict=True)}, z.detach()
        )

    assert torch.autograd.gradcheck(by_params, params)


class _Loss(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, z):
        return self.layer.loss(z)


# -- centroids ------------------------------------------------------------------------------------


def test_centroid_update_is_the_row_by_row_rule():
    torch.manual_seed(0)
    z = torch.cat([torch.randn(30, 2), torch.randn(30, 2) + 8])[torch.randperm(60)]
    start = torch.tensor([[0.0, 0.0], [8.0, 8.0], [99.0, 99.0]])
    layer = CentroidLayer(2, 3).init_(start)
    for part in z.split(7):
        layer.update_(part)
    centers, counts = start.numpy().copy(), np.zeros(3)
    for row in z.numpy():
        j = ((centers - row) ** 2).sum(axis=1).argmin()
        counts[j] += 1
        centers[j] += (row - centers[j]) / counts[j]
    assert np.allclose(layer.centers, centers, atol=1e-4)
    assert np.array_equal(layer.counts, counts)


def test_centroid_probabilities():
    layer = CentroidLayer(2, 2).init_(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
    q = layer(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert torch.allclose(q, torch.tensor([[1 / 1.5, 0.5 / 1.5], [0.5, 0.5]]))
    assert torch.equal(CentroidLayer(2, 1)(torch.tensor([[1e6, 1e6]])), torch.ones(1, 1))
    same = CentroidLayer(2, 2).init_(torch.ones(2, 2))
    assert torch.allclose(same(torch.ones(3, 2)), torch.full((3, 2), 0.5))


def test_layers_plug_into_any_network():
    """A user's own module that takes a layer learns end to end with it."""
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    layer = TELLLayer(3, 2)
    x = torch.randn(64, 6) + 3 * torch.sign(torch.randn(64, 1))
    optimizer = torch.optim.Adam([*encoder.parameters(), *layer.parameters()], 1e-2)
    first = float(layer.loss(encoder(x)))
    for _ in range(50):
        optimizer.zero_grad()
        layer.loss(encoder(x)).backward()
        optimizer.step()
        layer.normalize_()
    assert float(layer.loss(encoder(x))) < 0.2 * first
    assert layer(encoder(x)).shape == (64, 2)


# -- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [CentroidLayer, KMeansNetLayer, TELLLayer, InvarianceLayer, ClassifierLayer])
def test_layers_check_and_show_their_sizes(layer):
    for sizes in ((0, 3), (4, 0), (4, -1), (4, 2.5), (4, "3"), (None, 3)):
        with pytest.raises(ValueError, match=r"(embed_dim|n_clusters)=.* must be a positive whole number"):
            layer(*sizes)
    assert "embed_dim=4, n_clusters=3" in repr(layer(4, 3))
    assert "embed_dim=4, n_clusters=3" in repr(layer(np.int64(4), np.int64(3)))


@pytest.mark.parametrize("layer", [
    CentroidLayer(4, 3), KMeansNetLayer(4, 3), TELLLayer(4, 3), InvarianceLayer(4, 3), ClassifierLayer(4, 3),
    SpectralLayer(4, 3, 5),
])  # fmt: skip
def test_codes_are_checked(layer):
    calls = [layer, layer.predict] + [layer.loss] * (not isinstance(layer, ClassifierLayer))
    for call in calls:
        with pytest.raises(TypeError, match="takes a tensor of codes, not a ndarray"):
            call(np.zeros((5, 4)))
        for wrong in (torch.zeros(5, 3), torch.zeros(4), torch.zeros(2, 4, 4)):
            with pytest.raises(ValueError, match=r"must be of shape \(b, 4\)"):
                call(wrong)
    if isinstance(layer, (KMeansNetLayer, TELLLayer, InvarianceLayer)):
        with pytest.raises(TypeError, match="takes a tensor of codes"):
            layer.loss(torch.zeros(5, 4), np.zeros((5, 4)))
        with pytest.raises(ValueError, match=r"must be of shape \(b, 4\)"):
            layer.loss(torch.zeros(5, 4), torch.zeros(5, 3))


def test_codes_may_be_float64():
    for layer in (CentroidLayer(4, 3), KMeansNetLayer(4, 3), TELLLayer(4, 3), InvarianceLayer(4, 3)):
        assert torch.isfinite(layer.loss(torch.rand(5, 4, dtype=torch.float64)))


def test_a_balanced_target_needs_clusters():
    with pytest.raises(ValueError, match="n_clusters=0 must be a positive whole number"):
        BalancedTarget(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KMeansNetLayer(4, 3, assignment="Soft"), "assignment='Soft' must be one of 'hard', 'soft'"),
        (lambda: KMeansNetLayer(4, 3, alpha=0), "alpha=0 must be a number above 0"),
        (lambda: TELLLayer(4, 3, alpha=-1.0), "alpha=-1.0 must be"),
        (lambda: TELLLayer(4, 3, temperature=0.0), "temperature=0.0 must be"),
        (lambda: TELLLayer(4, 3, temperature=float("inf")), "temperature=inf must be"),
        (lambda: InvarianceLayer(4, 3, metrics="cosine"), r"metrics='cosine' must be a sequence .* \('cosine',\)"),
        (lambda: InvarianceLayer(4, 3, metrics=()), r"metrics=\(\) must be a sequence"),
        (lambda: InvarianceLayer(4, 3, metrics=("manhattan",)), "metrics='manhattan' must be one of 'cityblock'"),
        (lambda: MLPAutoencoder((8,), code_activation="tanh"), "code_activation='tanh' must be one of 'linear'"),
        (lambda: PoolConvAutoencoder((1, 8, 8), output_activation=None), "output_activation=None must be one of"),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [CentroidLayer, KMeansNetLayer, TELLLayer, InvarianceLayer])
def test_first_centres_may_be_arrays_and_are_checked(make):
    layer = make(4, 3)
    centers = np.eye(3, 4)
    assert np.allclose(layer.init_(centers).centers.detach(), centers)
    for wrong in (centers[0], centers[:2], centers.T, centers[:, :3]):
        with pytest.raises(ValueError, match=r"must be of shape \(3, 4\)"):
            layer.init_(wrong)
    with pytest.raises(ValueError, match="NaN or infinite"):
        layer.init_(np.full((3, 4), np.nan))
    assert np.allclose(layer.centers.detach(), centers)
