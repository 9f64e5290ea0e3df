"""Views: what they do to a batch, and when an estimator asks for one."""

import numpy as np
import pytest
import torch

from neuralclust import augment, registry
from neuralclust.augment import (
    AUGMENTATIONS,
    Chain,
    ColorJitter,
    FeatureMask,
    GaussianNoise,
    RandomAffine,
    RandomCrop,
    RandomElastic,
    RandomErasing,
    RandomFlip,
)
from tests.conftest import METHODS, small

IMAGE_VIEWS = [RandomAffine(), RandomElastic(), RandomCrop(), RandomFlip(), ColorJitter(), RandomErasing()]


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("view", [*IMAGE_VIEWS, GaussianNoise(), FeatureMask()], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_views_keep_the_shape_and_draw_from_the_seed(view, channels):
    x = torch.rand(64, channels, 9, 7)
    before = x.clone()
    torch.manual_seed(1)
    first = view(x)
    torch.manual_seed(1)
    assert torch.equal(first, view(x))
    assert not torch.equal(first, view(x))
    assert (first.shape, first.dtype) == (x.shape, x.dtype)
    assert torch.equal(x, before)


@pytest.mark.parametrize("view", IMAGE_VIEWS, ids=lambda v: type(v).__name__)
def test_image_views_of_a_table_are_an_error(view):
    with pytest.raises(ValueError, match=r"augment needs images .* got rows of shape \(5,\)"):
        view(torch.rand(4, 5))


def test_affine_moves_by_as_much_as_it_says():
    x = torch.zeros(500, 1, 20, 20)
    x[:, :, 9:11, 9:11] = 1
    grid = torch.arange(20.0)

    def centres(y):
        weight = y.sum(dim=(1, 2, 3))
        return (y.sum(dim=(1, 2)) * grid).sum(1) / weight, (y.sum(dim=(1, 3)) * grid).sum(1) / weight

    for moved in centres(RandomAffine(shift=0.2, degrees=0)(x)):
        assert 3.5 < (moved - 9.5).abs().max() <= 4.01  # pixels: a fifth of 20
    bar = torch.zeros(500, 1, 21, 21)
    bar[:, :, 10, 4:17] = 1
    turned = RandomAffine(shift=0, degrees=90)(bar)
    assert (turned[:, 0, 4, 10] > 0.5).any()
    assert (turned[:, 0, 10, 4] > 0.5).any()
    assert torch.allclose(RandomAffine(shift=0, degrees=0)(x), x, atol=1e-5)


def test_affine_on_images_that_are_not_square():
    """A quarter turn keeps lengths in pixels, though the grid counts both sides from -1 to 1."""
    bar = torch.zeros(2000, 1, 11, 31)
    bar[:, :, 5, 13:18] = 1  # five pixels
    turned = RandomAffine(shift=0, degrees=90)(bar)
    upright = turned[turned[:, 0, 3, 15].argmax(), 0]  # of all, the one that reaches highest
    assert upright.sum() == pytest.approx(5, abs=0.4)
    assert (upright[3:8, 15] > 0.6).all()


@pytest.mark.parametrize(("amount", "least", "most"), [(0.0, 0.99, 1.01), (0.25, 0.8, 4 / 3)])
def test_affine_scales_by_as_much_as_it_says(amount, least, most):
    square = torch.zeros(500, 1, 40, 40)
    square[:, :, 10:30, 10:30] = 1
    side = RandomAffine(shift=0, degrees=0, scale=amount)(square).sum(dim=(1, 2, 3)).sqrt() / 20
    assert side.min() == pytest.approx(least, abs=0.02)
    assert side.max() == pytest.approx(most, abs=0.02)


def test_affine_shear_moves_rows_of_pixels():
    line = torch.zeros(500, 1, 41, 41)
    line[:, :, :, 20] = 1
    slanted = RandomAffine(shift=0, degrees=0, shear=0.5)(line)[:, 0]
    places = (slanted * torch.arange(41.0)).sum(2) / slanted.sum(2)
    assert (places[:, 20] - 20).abs().max() < 0.1  # the middle stays
    assert (places[:, 30] - 20).abs().max() == pytest.approx(5, abs=0.3)  # half of ten rows
    assert torch.allclose(places[:, 30] - 20, 20 - places[:, 10], atol=0.2)


def test_elastic_moves_along_both_sides():
    for ramp in (
        torch.linspace(0, 1, 32).expand(50, 1, 32, 32),
        torch.linspace(0, 1, 32)[:, None].expand(50, 1, 32, 32),
    ):
        moved = (RandomElastic()(ramp) - ramp)[:, :, 8:24, 8:24]  # away from what comes in
        assert 0.02 < moved.std() < 0.06


def test_elastic_and_crop_do_nothing_at_zero():
    x = torch.rand(3, 2, 8, 8)
    assert torch.allclose(RandomElastic(shift=0.0)(x), x, atol=1e-5)
    assert torch.allclose(RandomCrop(smallest=1.0)(x), x, atol=1e-5)


def test_crop_is_a_part_of_the_image():
    ramp = torch.linspace(0, 1, 32).expand(100, 1, 32, 32)
    part = RandomCrop(smallest=0.5)(ramp)
    left, spread = part.amin((1, 2, 3)), part.amax((1, 2, 3)) - part.amin((1, 2, 3))
    assert 0.45 < spread.min() < 0.6  # half of a ramp
    assert left.max() > 0.35  # and not always the same half


def test_flip_mirrors_half():
    x = torch.rand(1000, 1, 2, 3)
    flipped = (RandomFlip()(x) == x.flip(3)).all(dim=(1, 2, 3))
    assert 400 < flipped.sum() < 600


def test_colours_stay_within_the_range_of_the_data():
    x = torch.rand(50, 3, 4, 4)
    y = ColorJitter(brightness=0.9)(x)
    assert y.min() >= 0
    assert y.max() <= 1
    grey = ColorJitter(saturation=0.9, brightness=0, contrast=0)(torch.full((5, 3, 2, 2), 0.5))
    assert torch.allclose(grey, torch.tensor(0.5))


def test_erasing_leaves_the_mean_in_a_rectangle():
    x = torch.rand(200, 1, 10, 10)
    y = RandomErasing(largest=0.5)(x)
    changed = y != x
    assert changed.any()
    assert changed.float().mean() < 0.25
    i = int(changed.sum(dim=(1, 2, 3)).argmax())
    rows, columns = changed[i, 0].nonzero(as_tuple=True)
    assert changed[i, 0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert torch.allclose(y[i, 0][changed[i, 0]], x[i].mean())


def test_masked_features_come_from_the_same_column():
    x = torch.arange(12.0).reshape(4, 3)
    y = FeatureMask(1.0)(x)
    assert all(sorted(y[:, j].tolist()) == sorted(x[:, j].tolist()) for j in range(3))
    assert torch.equal(FeatureMask(0.0)(x), x)


def test_a_chain_applies_all_in_order():
    assert Chain([lambda x: x + 1, lambda x: 2 * x])(torch.zeros(1)).item() == 2


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_named_views(name):
    x = torch.rand(8, 3, 8, 8)
    for view in AUGMENTATIONS[name]:
        assert view(x).shape == x.shape
        assert not torch.equal(view(x), x)


# -- in an estimator ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_from_views_and_answers_from_the_rows(method, images):
    """A view is asked for on every batch of both stages, and never to predict, to transform or to score."""
    X, _ = images
    seen = []

    def dim(x):
        seen.append(len(x))
        return 0.5 * x

    params = {"pretrain_epochs": 3, "max_epochs": 2, "batch_size": 60}
    model = small(method, 2, augment=dim, **params)
    model.fit(X)
    joint = "max_epochs" in model.get_params()
    assert len(seen) == 3 + 2 * joint
    model.predict(X), model.transform(X), model.score(X)
    assert len(seen) == 3 + 2 * joint
    plain = small(method, 2, **params).fit(X)
    assert not np.allclose(model.transform(X), plain.transform(X), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_named_views_by_kind_of_data(method, images):
    X, _ = images
    params = {"pretrain_epochs": 1, "max_epochs": 1}
    model = small(method, 2, augment="digits", **params).fit(X)
    assert np.array_equal(model.labels_, small(method, 2, augment="digits", **params).fit(X).labels_)
    table = X.reshape(len(X), -1)
    small(method, 2, augment="table", **params).fit(table)
    with pytest.raises(ValueError, match="augment needs images"):
        small(method, 2, augment="digits", **params).fit(table)
    with pytest.raises(ValueError, match="augment"):
        registry.make(method, 2, augment="faces").fit(X)


def test_gentle_views_first(images, monkeypatch):
    """A named augmentation may be stronger in joint training."""
    asked = []
    views = augment.Views(lambda x: asked.append("gentle") or x, lambda x: asked.append("strong") or x.clone())
    monkeypatch.setitem(AUGMENTATIONS, "digits", views)
    small("TELL", 2, augment="digits", pretrain_epochs=2, max_epochs=1, batch_size=60).fit(images[0])
    assert asked == ["gentle", "gentle", "strong"]


@pytest.mark.parametrize("method", ["TELL", "KMeansNet", "DCSAI", "SSCNet", "NCSC"])
def test_joint_training_sees_views(method, images):
    """Rows whose views are views of other rows: pretraining is the same, the clustering loss is not."""
    X, _ = images
    model = [
        small(method, 2, augment=view, pretrain_epochs=20, max_epochs=3, batch_size=60)
        for view in (torch.clone, lambda x: x.roll(1, 0) if torch.is_grad_enabled() else x)
    ]
    weights = [torch.cat([p.flatten() for p in m.fit(X).module_.parameters()]) for m in model]
    assert not torch.allclose(*weights, atol=1e-4)
    if method in ("TELL", "KMeansNet", "DCSAI"):
        clu = [next(row["clu"] for row in m.history_ if row["stage"] == "fit") for m in model]
        assert abs(clu[1] - clu[0]) > 0.01 * abs(clu[0])


@pytest.mark.parametrize("encoder", [None, torch.nn.Flatten(), torch.nn.Linear(16, 4).requires_grad_(False)])
@pytest.mark.parametrize("method", ["TELL", "KMeansNet", "AEKMeans"])
def test_views_without_weights_to_learn_are_an_error(method, encoder, easy):
    with pytest.raises(ValueError, match=r"augment='table' has nothing to teach.*Use augment=None, or an encoder"):
        small(method, encoder=encoder, augment="table").fit(easy[0])


@pytest.mark.parametrize("bad", [lambda x: x.numpy(), lambda x: x[:, :, :2]], ids=["array", "shape"])
def test_a_view_of_another_kind_is_an_error(images, bad):
    with pytest.raises(ValueError, match=r"augment=.* must return a tensor of the same shape"):
        small("TELL", 2, augment=bad).fit(images[0])


def test_views_in_place_or_in_float64_are_as_good(images):
    fits = [lambda x: 0.5 * x, lambda x: x.mul_(0.5), lambda x: 0.5 * x.double()]
    losses = [small("TELL", 2, augment=view).fit(images[0]).loss_ for view in fits]
    assert np.allclose(losses, losses[0], rtol=1e-5)


def test_a_stream_of_one_cluster_leaves_the_frequencies(easy):
    X, y = easy
    model = small("TELL").fit(X)
    before = model.module_.head.target.frequency.clone()
    model.partial_fit(X[y == 0], train_encoder=True)
    assert torch.equal(model.module_.head.target.frequency, before)
