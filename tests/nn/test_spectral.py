"""The cluster layer of SSCNet: rows alone, rows in a batch, and anchors that follow a network."""

import pytest
import torch

from neuralclust.functional import laplacian, unit_norm
from neuralclust.nn import SpectralLayer
from neuralclust.nn.spectral import orthonormal, rotation_onto
from neuralclust.spectral import smallest_eigenvectors, spectral_partition


def groups(n, seed=0):
    """Codes around three orthogonal directions, and which: (n, 8), (n,)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return torch.eye(8)[y] + 0.2 * torch.randn(n, 8, generator=generator), y


@pytest.fixture
def layer():
    """A layer with 60 anchors of three groups, their graph and their groups."""
    torch.manual_seed(0)
    layer = SpectralLayer(8, 3, 80, n_neighbors=4)
    z, y = groups(60)
    graph = layer.set_anchors_(z)
    _, vectors = spectral_partition(graph.to_dense().numpy(), 3)
    layer.set_embedding_(vectors, y)
    return layer, graph, y


def test_new_rows_join_the_clusters_of_their_neighbours(layer):
    layer, _, _ = layer
    z, y = groups(30, seed=1)
    assert torch.equal(layer.predict(z), y)
    assert torch.equal(layer.predict(5 * z), y)  # directions count
    assert torch.allclose(layer(z).sum(dim=1), torch.ones(30))


def test_a_batch_agrees_with_its_rows_alone_whatever_the_batch(layer):
    """The rotation of the eigenvectors is undone: two batches embed a row alike, and as it is embedded alone."""
    layer, graph, _ = layer
    z, y = groups(30, seed=1)
    none = torch.full((15,), -1)
    a, smoothness = layer.embed(z[:15], graph, none)
    b, _ = layer.embed(torch.cat([z[:5], z[20:]]), graph, none)
    assert smoothness >= 0
    assert ((a[:5] - b[:5]).norm(dim=1) < 0.1).all()
    assert ((a * layer.extend(z[:15])).sum(dim=1) > 0.95).all()
    assert torch.equal(layer.pseudo_labels(a), y[:15])


@pytest.fixture
def turning():
    """A layer whose eigenvector layers also turn the columns among themselves."""
    torch.manual_seed(0)
    layer = SpectralLayer(8, 3, 60, n_neighbors=4, learn_rotation=True)
    for step in layer.layers:
        torch.nn.init.normal_(step.rotation, std=0.5)
    z, y = groups(60)
    graph = layer.set_anchors_(z)
    layer.set_embedding_(smallest_eigenvectors(graph.to_dense().double().numpy(), 3), y)
    return layer, graph, y


def test_a_turn_of_the_eigenvectors_is_undone_in_a_batch(turning, monkeypatch):
    layer, graph, _ = turning
    z, _ = groups(30, seed=1)
    none = torch.full((30,), -1)
    alone = layer.extend(z)
    assert ((layer.embed(z, graph, none)[0] * alone).sum(dim=1) > 0.95).all()
    monkeypatch.setattr("neuralclust.nn.spectral.rotation_onto", lambda y, reference: torch.eye(y.shape[1]))
    assert ((layer.embed(z, graph, none)[0] * alone).sum(dim=1) < 0.5).any()


def test_a_turn_of_the_eigenvectors_is_undone_in_a_refresh(turning, monkeypatch):
    layer, _, _ = turning
    z, _ = groups(60)
    before = layer.embedding.clone()
    layer.refresh_(z, n_steps=3)
    assert torch.allclose(layer.embedding, before, atol=0.02)
    monkeypatch.setattr("neuralclust.nn.spectral.rotation_onto", lambda y, reference: torch.eye(y.shape[1]))
    layer.refresh_(z, n_steps=3)
    assert (layer.embedding - before).norm() > 0.1 * before.norm()


def test_a_cluster_that_loses_its_anchors_keeps_its_prototype(layer):
    layer, _, _ = layer
    lost = torch.zeros(6)
    lost[5] = 1.0  # far from every row
    layer.prototypes[2] = lost
    z, _ = groups(60)
    layer.refresh_(z)
    assert torch.equal(layer.prototypes[2], lost)
    assert torch.bincount(layer.predict(z), minlength=3)[2] == 0


def test_a_row_is_not_its_own_neighbour(layer):
    layer, graph, _ = layer
    own = torch.tensor([7, 12])
    nearest, squared = layer._weights(layer.anchors[own], own)
    assert nearest.eq(own[:, None]).any(dim=1).all()  # found, and left out
    assert not squared[nearest == own[:, None]].isfinite().any()
    assert squared.isfinite().sum(dim=1).tolist() == [4, 4]
    _, smoothness = layer.embed(layer.anchors[own], graph, own)
    assert smoothness.isfinite()


def test_gradients_pull_a_stray_row_into_its_cluster(layer):
    layer, graph, _ = layer
    stray = (0.5 * torch.eye(8)[0] + 0.5 * torch.eye(8)[1])[None].requires_grad_()
    layer.n_neighbors, layer.scale[...] = 30, 1.0  # so that it has neighbours on both sides

    def loss(z):
        return torch.nn.functional.cross_entropy(layer.logits(layer.embed(z, graph, torch.tensor([-1]))[0]), target)

    target = torch.tensor([1])
    before = loss(stray)
    (gradient,) = torch.autograd.grad(before, stray)
    assert gradient.norm() > 1e-3
    assert loss((stray - 0.05 * gradient / gradient.norm()).detach()) < before


def test_anchors_follow_a_network_and_keep_their_clusters(layer):
    layer, _, y = layer
    z, _ = groups(60)
    turned = z @ torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)))[0]
    before = layer.embedding.clone()
    layer.refresh_(turned)
    assert torch.equal(layer.predict(turned), y)
    # a turn of the codes leaves the graph as it is, so the embedding as well, and in the same coordinates
    assert torch.allclose(layer.embedding, before, atol=0.02)


def test_embedding_is_an_eigenvector_of_the_new_graph(layer):
    layer, _, _ = layer
    z, _ = groups(60, seed=5)
    graph = layer.refresh_(z, n_steps=200)
    q = int(layer.n_components)
    y = layer.embedding[:60, :q]
    lap = laplacian(graph)
    residual = lap @ y - y @ (y.T @ (lap @ y))
    assert residual.norm() < 0.02
    assert torch.allclose(y.T @ y, torch.eye(q), atol=1e-4)


def test_it_starts_as_nearest_prototype(layer):
    layer, _, _ = layer
    y = unit_norm(torch.randn(20, 6, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(layer.logits(y).argmax(dim=1), layer.pseudo_labels(y))
    assert not torch.equal(layer.logits(y), SpectralLayer(8, 3, 80, residual=False).logits(y))


def test_fewer_anchors_than_room_change_nothing():
    z, y = groups(60)
    answers = []
    for room in (60, 500):
        torch.manual_seed(0)
        layer = SpectralLayer(8, 3, room, n_neighbors=4)
        graph = layer.set_anchors_(z)
        layer.set_embedding_(spectral_partition(graph.to_dense().numpy(), 3)[1], y)
        answers.append(layer(groups(30, seed=1)[0]))
    assert torch.equal(*answers)


def test_too_many_anchors():
    with pytest.raises(ValueError, match="n_anchors=10"):
        SpectralLayer(8, 3, 10).set_anchors_(groups(60)[0])


def test_orthonormal_and_rotation():
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(20, 3, generator=generator)
    q = orthonormal(y)
    assert torch.allclose(q.T @ q, torch.eye(3), atol=1e-4)
    assert torch.linalg.matrix_rank(torch.cat([y, q], dim=1), tol=1e-3) == 3
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    assert torch.allclose(q @ turn @ rotation_onto(q @ turn, q), q, atol=1e-4)
