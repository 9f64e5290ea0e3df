"""The module's own parts: packed weights for inference."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from neuralclust import TELL
from neuralclust.nn import Autoencoder, ClusterModule, TELLLayer

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


@pytest.fixture
def module():
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Linear(300, 400), nn.ReLU(), nn.Linear(400, 300, bias=False), nn.ReLU(), nn.Linear(300, 5)
    )
    return ClusterModule(Autoencoder(encoder, nn.Linear(5, 300), embed_dim=5), TELLLayer(5, 3), (300,)).eval()


def packed_layers(module):
    """Which layers of the encoder give results that differ, by rounding, within the block."""
    x = {i: torch.randn(64, layer.in_features) for i, layer in enumerate(module.autoencoder.encoder) if i % 2 == 0}
    with torch.inference_mode():
        plain = {i: module.autoencoder.encoder[i].float()(x[i]) for i in x}
        with module.packed():
            return [i for i in x if not torch.equal(module.autoencoder.encoder[i](x[i]), plain[i])]


def test_packed_weights_give_the_same_codes(module):
    x = torch.randn(64, 300)
    with torch.inference_mode():
        dense = module.encode(x)
        with module.packed():
            packed = module.encode(x)
        assert torch.equal(module.encode(x), dense)
    assert not torch.equal(packed, dense)  # it did something
    assert torch.allclose(packed, dense, rtol=1e-5, atol=1e-6)
    assert packed_layers(module) == [0, 2]  # the last is too small to gain


def test_new_weights_count_in_the_next_block(module):
    x = torch.randn(8, 300)
    with torch.inference_mode(), module.packed():
        before = module.encode(x)
    with torch.no_grad():
        module.autoencoder.encoder[0].weight.mul_(2)
    with torch.inference_mode(), module.packed():
        after = module.encode(x)
        assert torch.allclose(after, before, rtol=0.5) is False
    assert torch.allclose(after, module.encode(x), rtol=1e-5, atol=1e-6)


def test_what_is_not_a_plain_weight_or_not_float32_stays(module):
    module.autoencoder.encoder[0] = torch.nn.utils.spectral_norm(nn.Linear(300, 400)).eval()  # a new weight each call
    module.autoencoder.encoder[2].double()
    x = torch.randn(8, 300)
    with torch.inference_mode():
        first = module.autoencoder.encoder[0](x)
        with module.packed():
            assert torch.equal(module.autoencoder.encoder[0](x), first)
            assert module.autoencoder.encoder[2](torch.randn(8, 400).double()).dtype == torch.float64


def test_other_shapes_and_dtypes_pass_through(module):
    layer = module.autoencoder.encoder[0]
    with torch.inference_mode(), module.packed():
        assert layer(torch.randn(2, 3, 300)).shape == (2, 3, 400)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.randn(4, 300).bfloat16()).dtype == torch.bfloat16


def test_an_error_leaves_no_packed_weights(module):
    x = torch.randn(64, 300)
    with torch.inference_mode():
        plain = module.encode(x)
        with pytest.raises(RuntimeError, match="stop"), module.packed():
            raise RuntimeError("stop")
        assert torch.equal(module.encode(x), plain)


def test_a_module_may_be_copied_and_pickled_while_it_is_packed(module):
    x = torch.randn(8, 300)
    with module.packed():
        copied = copy.deepcopy(module)
        again = pickle.loads(pickle.dumps(module))
    for other in (copied, again):
        with torch.no_grad():
            other.autoencoder.encoder[0].weight.zero_()
            assert not torch.equal(other.encode(x), module.encode(x))  # its own weights count


def test_threads_may_predict_at_once():
    X = np.random.default_rng(0).random((600, 300), dtype=np.float32)
    model = TELL(3, hidden_layer_sizes=(400,), pretrain_epochs=0, max_epochs=0, random_state=0).fit(X)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: model.transform(X), range(20)))
    expected = model.transform(X)
    assert all(np.allclose(z, expected, rtol=1e-4, atol=1e-6) for z in found)
    assert all((z.argmax(1) == expected.argmax(1)).all() for z in found)


def test_a_compiled_encoder_is_left_to_its_compiler(module):
    x = torch.randn(64, 300)
    with torch.inference_mode():
        plain = module.encode(x)
        module.autoencoder.encoder = torch.compile(module.autoencoder.encoder, backend="aot_eager")
        with module.packed():
            assert torch.allclose(module.encode(x), plain, rtol=1e-5, atol=1e-6)
