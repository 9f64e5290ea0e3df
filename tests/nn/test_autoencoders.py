"""Shapes of the papers' networks, layer by layer, and what the base class promises."""

import pytest
import torch
from torch import nn

from neuralclust.nn import Autoencoder, ClusterModule, ConvAutoencoder, MLPAutoencoder, PoolConvAutoencoder, TELLLayer
from neuralclust.nn.autoencoders import Features, adapt_encoder


def shapes(net, x, kinds):
    """Output shapes of the layers of some kinds, in order."""
    seen = []
    hooks = [
        m.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
        for m in net.modules()
        if isinstance(m, kinds)
    ]
    net.eval()(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_fully_connected():
    net = MLPAutoencoder((1, 28, 28))
    widths = [s[0] for s in shapes(net, torch.rand(2, 1, 28, 28), nn.Linear)]
    assert widths == [500, 500, 2000, 10, 2000, 500, 500, 784]
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)


def test_tell_convolutional_mnist_and_cifar():
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    assert shapes(ConvAutoencoder((1, 28, 28)), torch.rand(2, 1, 28, 28), kinds) == [
        (16, 28, 28), (32, 14, 14), (32, 14, 14), (16, 7, 7), (256,), (10,),
        (256,), (784,), (32, 14, 14), (32, 14, 14), (16, 28, 28), (1, 28, 28),
    ]  # fmt: skip
    assert shapes(ConvAutoencoder((3, 32, 32)), torch.rand(2, 3, 32, 32), nn.Linear)[0] == (256,)
    weights = sum(p.numel() for n, p in ConvAutoencoder((1, 28, 28)).named_parameters() if p.ndim > 1)
    assert weights == pytest.approx(0.45e6, rel=0.02)


def test_kmeansnet_convolutional():
    net = PoolConvAutoencoder((1, 28, 28), code_activation="sigmoid")
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.Linear)
    assert shapes(net, torch.rand(2, 1, 28, 28), kinds) == [
        (64, 28, 28), (64, 14, 14), (32, 14, 14), (32, 7, 7), (1024,), (10,),
        (1024,), (1568,), (64, 14, 14), (1, 28, 28),
    ]  # fmt: skip
    code = net.encode(torch.rand(2, 1, 28, 28))
    assert 0 <= code.min() <= code.max() <= 1


@pytest.mark.parametrize("kind", [ConvAutoencoder, PoolConvAutoencoder])
@pytest.mark.parametrize("size", [(4, 4), (5, 9), (8, 8), (16, 16), (28, 28), (48, 42)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_image_size(kind, size, channels):
    x = torch.rand(2, channels, *size)
    assert kind(x.shape[1:])(x).shape == x.shape


def test_images_too_small():
    with pytest.raises(ValueError, match="at least 4 x 4"):
        ConvAutoencoder((1, 3, 9))


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_sizes_are_positive(size):
    for make in (MLPAutoencoder, ConvAutoencoder, PoolConvAutoencoder):
        with pytest.raises(ValueError, match=f"embed_dim={size} must be a positive whole number"):
            make((1, 8, 8), size)
    with pytest.raises(ValueError, match=f"width={size} must be a positive whole number"):
        MLPAutoencoder((6,), 2, hidden_layer_sizes=(5, size))


def test_dropout_is_where_it_is_asked_for():
    net = MLPAutoencoder((6,), 2, hidden_layer_sizes=(5, 4), dropout=0.2, input_dropout=0.3)
    rates = [m.p for m in net.encoder if isinstance(m, nn.Dropout)]
    assert rates == [0.3, 0.2, 0.2]
    assert not any(isinstance(m, nn.Dropout) for m in net.decoder)


def test_normalised_codes_are_what_is_decoded():
    net = MLPAutoencoder((6,), 3, hidden_layer_sizes=(5,), normalize=True)
    x = torch.rand(4, 6)
    z = net.encode(x)
    assert torch.allclose(z.norm(dim=1), torch.ones(4))
    assert torch.allclose(net(x), net.decode(z))


def test_bfloat16_gives_float32_codes():
    net = MLPAutoencoder((6,), 3, hidden_layer_sizes=(5,))
    exact = net.encode(torch.ones(2, 6))
    net.precision = torch.bfloat16
    rough = net.encode(torch.ones(2, 6))
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert torch.allclose(rough, exact, atol=0.02)


def test_own_encoder_gets_a_decoder_and_is_copied():
    encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(3))
    encoder(torch.zeros(1, 1, 6, 6))
    net = adapt_encoder(encoder, (1, 6, 6), (8,))
    assert net.embed_dim == 3
    assert net(torch.rand(2, 1, 6, 6)).shape == (2, 1, 6, 6)
    assert net.encoder is not encoder
    assert net.encoder.training


@pytest.mark.parametrize(
    ("decoder", "embed_dim", "message"),
    [
        (nn.Linear(3, 4), 3, r"decoded \(2, 3\) codes to \(2, 4\).*rows of shape \(5,\)"),
        (nn.Linear(3, 1), 3, r"decoded \(2, 3\) codes to \(2, 1\)"),  # would train, by broadcasting
        (nn.Linear(4, 5), 3, r"failed to decode codes of shape \(2, 3\)"),
        (nn.Linear(3, 5), 4, r"codes of length 3, but has embed_dim=4"),
    ],
)
def test_own_autoencoder_is_tried_before_it_is_trained(decoder, embed_dim, message):
    with pytest.raises(ValueError, match=message):
        adapt_encoder(Autoencoder(nn.Linear(5, 3), decoder, embed_dim=embed_dim), (5,), ())
    net = adapt_encoder(Autoencoder(nn.Linear(5, 3), nn.Linear(3, 5), embed_dim=3), (5,), ())
    assert net.training


def test_module_scales_and_restores():
    module = ClusterModule(Features((2,)), TELLLayer(2, 2), (2,))
    module.set_range_(10.0, 30.0)
    x = torch.tensor([[10, 20], [30, 25]])
    assert torch.allclose(module.prepare(x), torch.tensor([[0.0, 0.5], [1.0, 0.75]]))
    assert torch.allclose(module.restore(module.prepare(x)), x.double())
    module.set_range_(7.0, 7.0)
    assert torch.equal(module.prepare(torch.full((1, 2), 7.0)), torch.zeros(1, 2))
    assert module(x).shape == (2, 2)
    assert torch.allclose(module(x).sum(dim=1), torch.ones(2))
    assert x.dtype == torch.int64  # the input is never written to
    kept = torch.rand(2, 2, dtype=torch.float64)
    before = kept.clone()
    module.prepare(kept)
    assert torch.equal(kept, before)
