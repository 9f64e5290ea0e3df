"""Networks and cluster layer of NCSC: wide codes and a classifier on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralclust.functional import unit_norm
from neuralclust.nn.autoencoders import Autoencoder, dense, image_shape
from neuralclust.nn.heads import CentroidLayer


class WideAutoencoder(Autoencoder):
    """A fully connected autoencoder whose code is the last and widest hidden layer; the bottleneck opens the decoder.

    Self-expression needs codes of many more dimensions than there are clusters ("latent dimension above 9 k"); a
    bottleneck is what makes an autoencoder learn clusters. This has both: ``m - 500 - 500 - 2000`` (the code) and
    ``- 10 - 2000 - 500 - 500 - m`` (the decoder). With ``normalize`` the bottleneck, too, has unit length.

    Parameters
    ----------
    shape : tuple of int
        Shape of one row.
    bottleneck_dim : int, default=10
        Width of the bottleneck.
    hidden_layer_sizes : sequence of int, default=(500, 500, 2000)
        Layers of the encoder; the last is the length of a code.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import WideAutoencoder
    >>> net = WideAutoencoder((64,), 10, hidden_layer_sizes=(32, 100))
    >>> z = net.encode(torch.rand(5, 64))
    >>> z.shape, net.squeeze(z).shape, net.decode(z).shape
    (torch.Size([5, 100]), torch.Size([5, 10]), torch.Size([5, 64]))
    """

    def __init__(
        self, shape: Sequence[int], bottleneck_dim: int = 10, *, hidden_layer_sizes: Sequence[int] = (500, 500, 2000)
    ):
        if len(hidden_layer_sizes) == 0:
            raise ValueError("hidden_layer_sizes=() leaves no layer to be the code. Give at least one, such as (500,).")
        sizes = [math.prod(shape), *hidden_layer_sizes]
        encoder = nn.Sequential(nn.Flatten(), *dense(sizes, 0.0), nn.ReLU())
        decoder = nn.Sequential(
            nn.Linear(sizes[-1], bottleneck_dim),
            *dense([bottleneck_dim, *sizes[::-1]], 0.0),
            nn.Sigmoid(),
            nn.Unflatten(1, tuple(shape)),
        )
        super().__init__(encoder, decoder, embed_dim=sizes[-1])

    def squeeze(self, z: Tensor) -> Tensor:
        """Output of the bottleneck ``(b, bottleneck_dim)`` for codes ``(b, embed_dim)``."""
        z = cast(nn.Sequential, self.decoder)[0](z).float()
        return unit_norm(z) if self.normalize else z

    def decode(self, z: Tensor) -> Tensor:
        with self._autocast(z):
            x = cast(nn.Sequential, self.decoder)[1:](self.squeeze(z))
        return x.float()


class StrideConvAutoencoder(Autoencoder):
    """The convolutional autoencoders of NCSC: strides instead of pooling, no batch norm, ReLU.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, height, width)`` of one image.
    channels : sequence of int, default=(10, 20, 30)
        Maps of each stage. The code is the last stage's maps, flattened.
    kernels : sequence of int, default=(5, 3, 3)
        Kernel sizes, odd.
    strides : sequence of int, default=(2, 2, 2)
        Strides of the stages.
    residual : {None, "post", "pre"}, default=None
        All stages after the first as plain convolutions, or as residual blocks of two convolutions with the activation
        after the sum or before each convolution. The decoder is plain.

    References
    ----------
    "Neural Collaborative Subspace Clustering", Section 5: MNIST (plain, 10-20-30), Fashion-MNIST ("post", 10 then
    20-30-40) and Stanford Online Products ("pre", 10 then 20-30-10). Strides of the latter two are not stated.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import StrideConvAutoencoder
    >>> net = StrideConvAutoencoder((1, 28, 28))
    >>> net.encode(torch.rand(2, 1, 28, 28)).shape, net(torch.rand(2, 1, 28, 28)).shape
    (torch.Size([2, 480]), torch.Size([2, 1, 28, 28]))
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: Sequence[int] = (10, 20, 30),
        *,
        kernels: Sequence[int] = (5, 3, 3),
        strides: Sequence[int] = (2, 2, 2),
        residual: str | None = None,
    ):
        n_in, *size = image_shape(shape)
        maps, sizes = [n_in, *channels], [size]
        down: list[nn.Module] = []
        for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            sizes.append([math.ceil(s / stride) for s in sizes[-1]])
            if i > 0 and residual:
                down.append(_ResidualBlock(maps[i], maps[i + 1], kernel, stride, pre=residual == "pre"))
            else:
                down += [nn.Conv2d(maps[i], maps[i + 1], kernel, stride, kernel // 2), nn.ReLU()]
        up: list[nn.Module] = [nn.Unflatten(1, (maps[-1], *sizes[-1]))]
        for i in reversed(range(len(channels))):
            now, small = sizes[i], sizes[i + 1]
            padding = tuple(now[d] - ((small[d] - 1) * strides[i] + 1) for d in (0, 1))
            up.append(
                nn.ConvTranspose2d(
                    maps[i + 1],
                    maps[i],
                    kernels[i],
                    strides[i],
                    kernels[i] // 2,
                    output_padding=cast(tuple[int, int], padding),
                )
            )
            up.append(nn.ReLU() if i else nn.Sigmoid())
        encoder = nn.Sequential(*down, nn.Flatten())
        code = maps[-1], *sizes[-1]
        super().__init__(encoder, nn.Sequential(*up), embed_dim=math.prod(code))
        self.maps = code
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _ResidualBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, *, pre: bool):
        super().__init__()
        self.pre = pre
        self.first = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2)
        self.second = nn.Conv2d(n_out, n_out, kernel, 1, kernel // 2)
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.pre:
            return self.shortcut(x) + self.second(F.relu(self.first(F.relu(x))))
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class ClassifierLayer(CentroidLayer):
    """A softmax classifier as a cluster layer.

    Parameters
    ----------
    embed_dim : int
        Length of a code.
    n_clusters : int
        Number of classes.
    hidden_layer_sizes : sequence of int, default=()
        Fully connected layers with ReLU before the last. None are needed on codes of a network; features as they are
        need some, since subspaces cannot be told apart by a linear classifier.
    maps : tuple of int, optional
        ``(channels, height, width)`` of the codes: three 2 x 2 convolutions of 64, 64 and 128 maps come first, as in
        the paper's classifier (which does not state how many maps).
    scale : float, default=1.0
        Factor of the codes; above 1 for codes of unit length, so that weights of order one can tell them apart.

    Attributes
    ----------
    centers : Tensor of shape (n_clusters, embed_dim)
        Mean code of each class: for looking at, they decide nothing.
    counts : Tensor of shape (n_clusters,)
        Rows that each is the mean of.
    share : Tensor of shape (n_clusters,)
        Sizes that the classes are balanced towards, 1 on average.

    Examples
    --------
    >>> import torch
    >>> from neuralclust.nn import ClassifierLayer
    >>> ClassifierLayer(8, 3)(torch.rand(5, 8)).shape
    torch.Size([5, 3])
    """

    share: Tensor

    def __init__(
        self,
        embed_dim: int,
        n_clusters: int,
        *,
        hidden_layer_sizes: Sequence[int] = (),
        maps: tuple[int, ...] | None = None,
        scale: float = 1.0,
    ):
        super().__init__(embed_dim, n_clusters)
        self.scale = scale
        self.register_buffer("share", torch.ones(n_clusters))
        layers: list[nn.Module] = []
        width = embed_dim
        if maps is not None:
            layers.append(nn.Unflatten(1, maps))
            n_in, *size = maps
            for n_out in (64, 64, 128):
                kernel = min(2, size[0]), min(2, size[1])
                layers += [nn.Conv2d(n_in, n_out, kernel), nn.ReLU()]
                n_in, size = n_out, [s - k + 1 for s, k in zip(size, kernel, strict=True)]
            layers.append(nn.Flatten())
            width = n_in * math.prod(size)
        for wider in hidden_layer_sizes:
            layers += [nn.Linear(width, wider), nn.ReLU()]
            width = wider
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(width, n_clusters)

    def logits(self, z: Tensor) -> Tensor:
        """``(b, k)``, in float32."""
        return self.last(self.body(self.scale * self._codes(z)))

    def _exact_logits(self, z: Tensor) -> Tensor:
        h = self.body(self.scale * self._codes(z)).double()
        return F.linear(h, self.last.weight.double(), self.last.bias.double())

    def forward(self, z: Tensor) -> Tensor:
        """Class probabilities ``(b, k)``."""
        return self._exact_logits(z).softmax(dim=1).float()

    def predict(self, z: Tensor) -> Tensor:
        """Most probable class ``(b,)``."""
        return self._exact_logits(z).argmax(dim=1)

    def loss(self, z: Tensor) -> Tensor:
        """Not defined: a classifier alone has no opinion on unlabelled rows."""
        raise NotImplementedError("The loss of a classifier needs targets; see NCSC.")
