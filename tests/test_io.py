"""Saved models: what comes back is what went in, and whatever is damaged says so and runs nothing."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import neuralclust
from neuralclust import AEKMeans, load
from neuralclust.io import _digest
from tests.conftest import small


@pytest.fixture
def saved(method, easy, tmp_path):
    model = small(method).fit(easy[0])
    model.save(tmp_path / "model")
    return model, tmp_path / "model"


def rewrite(path, **changes):
    """Change the description, and set the checksum right."""
    config = json.loads((path / "config.json").read_text())
    config.update(changes)
    config["sha256"] = _digest(path / "model.safetensors", config)
    (path / "config.json").write_text(json.dumps(config))


def test_views_that_are_a_function_are_not_kept(easy, tmp_path):
    model = small("TELL", augment=lambda x: x).fit(easy[0])
    with pytest.warns(UserWarning, match=r"augment is a function, .* the loaded model has none"):
        model.save(tmp_path / "model")
    assert neuralclust.load(tmp_path / "model").augment is None


def test_round_trip(saved, easy):
    model, path = saved
    X, _ = easy
    again = neuralclust.load(path)
    assert type(again) is type(model)
    assert {p.name for p in path.iterdir()} == {"config.json", "model.safetensors"}
    assert np.array_equal(again.predict(X), model.labels_)
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert np.array_equal(again.transform(X), model.transform(X))
    assert again.get_params() == model.get_params()
    for name in ("labels_", "history_", "loss_", "n_iter_", "n_features_in_", "cluster_centers_"):
        assert np.array_equal(getattr(again, name), getattr(model, name)), name
    assert again.score(X) == model.score(X)
    again.partial_fit(X)
    again.fit(X)
    assert np.array_equal(again.labels_, model.labels_)


def test_global_random_state_is_left_alone(saved, easy):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    neuralclust.load(saved[1])
    own = small("TELL", encoder=torch.nn.Linear(16, 4)).fit(easy[0])
    own.save(saved[1].with_name("own"))
    before = torch.get_rng_state()
    neuralclust.load(saved[1].with_name("own"), encoder=own.encoder)
    assert torch.equal(before, torch.get_rng_state())


def test_saving_again_replaces_and_leaves_nothing_else(saved, easy):
    model, path = saved
    model.fit(easy[0] + 1).save(path)
    assert neuralclust.load(path).loss_ == model.loss_
    assert [p.name for p in path.parent.iterdir()] == ["model"]


def test_load_of_the_class(saved):
    model, path = saved
    assert type(type(model).load(path)) is type(model)
    other = neuralclust.TELL if not isinstance(model, neuralclust.TELL) else neuralclust.AEKMeans
    with pytest.raises(ValueError, match="not a"):
        other.load(path)


def test_feature_names_and_images(tmp_path, images):
    pd = pytest.importorskip("pandas")
    X, _ = images
    frame = pd.DataFrame(X.reshape(60, -1)[:, :3], columns=["a", "b", "c"])
    small("TELL", 2).fit(frame).save(tmp_path / "table")
    assert list(neuralclust.load(tmp_path / "table").feature_names_in_) == ["a", "b", "c"]
    model = small("TELL", 2, encoder="conv", batch_size=20).fit(X)
    model.save(tmp_path / "images")
    again = neuralclust.load(tmp_path / "images")
    assert np.array_equal(again.predict(X), model.labels_)
    kernel = again.module_.autoencoder.encoder[0].weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_own_network(tmp_path, easy):
    X, _ = easy
    model = small("TELL", encoder=torch.nn.Linear(16, 4), random_state=np.random.RandomState(0)).fit(X)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"load\(path, encoder=your_module\)"):
        neuralclust.load(tmp_path / "model")
    again = neuralclust.load(tmp_path / "model", encoder=torch.nn.Linear(16, 4))
    assert np.array_equal(again.predict(X), model.labels_)
    with pytest.raises(ValueError, match="does not fit the encoder"):
        neuralclust.load(tmp_path / "model", encoder=torch.nn.Linear(16, 5))


def test_given_centres_survive(tmp_path, easy):
    init = easy[0][:3].copy()
    model = small("AEKMeans", encoder=None, init=init).fit(easy[0])
    model.save(tmp_path / "m")
    assert np.allclose(neuralclust.load(tmp_path / "m").init, init)


def test_unfitted(tmp_path):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        small("TELL").save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_former_model_stays_until_the_new_one_is_on_the_disk(tmp_path, easy, monkeypatch):
    path = tmp_path / "model"
    small("AEKMeans", encoder=None).fit(easy[0]).save(path)
    before = (path / "config.json").read_text()

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        small("AEKMeans", encoder=None, random_state=1).fit(easy[0]).save(path)
    assert (path / "config.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_foreign_folder_is_left_alone(tmp_path, easy):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "only-copy.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not a model folder"):
        small("TELL").fit(easy[0]).save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "only-copy.txt").read_text() == "precious"


def test_a_model_of_another_library_is_left_alone(tmp_path, easy):
    model = small("TELL").fit(easy[0])
    other = tmp_path / "bert"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    (other / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        model.save(other)
    assert (other / "model.safetensors").read_bytes() == b"precious"
    model.save(tmp_path / "ours")
    (tmp_path / "ours" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "ours")
    assert (tmp_path / "ours" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")


def test_parameters_set_after_the_fit_do_not_reach_the_file(method, easy, tmp_path):
    X, _ = easy
    model = small(method).fit(X)
    proba = model.predict_proba(X)
    model.set_params(n_clusters=7, encoder=None)
    model.save(tmp_path / "m")
    assert np.array_equal(neuralclust.load(tmp_path / "m").predict_proba(X), proba)


def test_a_failed_save_keeps_the_earlier_model(saved, monkeypatch):
    model, path = saved

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuralclust.io.save_file", full)
    with pytest.raises(OSError, match="No space"):
        model.save(path)
    assert [p.name for p in path.parent.iterdir()] == ["model"]
    assert neuralclust.load(path).loss_ == model.loss_


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not a model that neuralclust saved\.$"):
        neuralclust.load(tmp_path / "nowhere")


def test_the_folder_of_a_run_is_not_the_model(tmp_path, easy):
    small("TELL").fit(easy[0]).save(tmp_path / "run" / "model")
    with pytest.raises(FileNotFoundError, match=r"not a model that neuralclust saved\. Did you mean .*run.model\?"):
        neuralclust.load(tmp_path / "run")


def test_a_device_that_is_not_here_is_no_damage(tmp_path, easy):
    path = tmp_path / "model"
    model = small("TELL").fit(easy[0])
    model.save(path)
    rewrite(path, params=params(path, device="cuda:99"))  # as from a larger machine
    with pytest.raises(ValueError, match="is whole, but device='cuda:99' cannot be used here") as error:
        neuralclust.load(path)
    assert "load(path, device='cpu'), or --device cpu" in str(error.value)
    assert "can be read" not in str(error.value)
    assert np.array_equal(neuralclust.load(path, device="cpu").predict(easy[0]), model.labels_)


def damage_truncate(path):
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[: len(data) // 2])


def damage_flip(path):
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (path / "model.safetensors").write_bytes(data)


def damage_json(path):
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(text[: len(text) // 2])


def damage_header(path):
    """A tensor of another size, with the checksum set right: only the comparison with the parameters sees it."""
    tensors = load_file(path / "model.safetensors")
    tensors["shift"] = torch.zeros(3)
    save_file(tensors, path / "model.safetensors")
    rewrite(path)


def params(path, **changes):
    return {**json.loads((path / "config.json").read_text())["params"], **changes}


def tamper(**changes):
    """Change tensors, and set the checksum right."""

    def change(path):
        tensors = load_file(path / "model.safetensors")
        tensors.update({name: make(tensors[name]) for name, make in changes.items()})
        save_file(tensors, path / "model.safetensors")
        rewrite(path)

    return change


DAMAGE = {
    "NaN weights": (tamper(shift=lambda v: v * float("nan")), "NaN or infinity"),
    "no scale": (tamper(scale=lambda v: v * 0), "'scale'"),
    "labels of no cluster": (tamper(labels_=lambda v: v + 9), "'labels_'"),
    "labels as floats": (tamper(labels_=lambda v: v.float()), "'labels_'"),
    "class as a list": (lambda p: rewrite(p, **{"class": []}), "not a method of this library"),
    "centres of objects": (lambda p: rewrite(p, params=params(p, init=[{}])), "can be read"),
    "huge centres": (lambda p: rewrite(p, params=params(p, init=[10**400])), "can be read"),
    "huge alpha": (lambda p: rewrite(p, params=params(p, alpha=10**400)), "can be read"),
    "meta device": (lambda p: rewrite(p, params=params(p, device="meta")), "device='meta' cannot be used here"),
    "endless loss": (lambda p: rewrite(p, loss=10**400), "'loss'"),
    "endless training": (lambda p: rewrite(p, n_iter=float("inf")), "'n_iter'"),
    "history of no rows": (lambda p: rewrite(p, history="abc"), "'history'"),
    "names of no columns": (lambda p: rewrite(p, feature_names_in=["a"]), "'feature_names_in'"),
    "many dimensions": (lambda p: rewrite(p, shape=[1] * 100 + [16]), "'shape'"),
    "format of no number": (lambda p: rewrite(p, format=True), "not the description"),
    "truncated": (damage_truncate, "damaged"),
    "one bit": (damage_flip, "damaged"),
    "half a description": (damage_json, "not JSON"),
    "an edited parameter": (
        lambda p: (p / "config.json").write_text((p / "config.json").read_text().replace("0.2", "0.3")),
        "damaged or was edited",
    ),
    "other tensors": (damage_header, "tensors"),
    "empty description": (lambda p: (p / "config.json").write_text("[]"), "not the description"),
    "newer format": (lambda p: rewrite(p, format=99, neuralclust="9.9"), "written by neuralclust 9.9"),
    "other class": (lambda p: rewrite(p, **{"class": "os.system"}), "not a method of this library"),
    "baseline class": (lambda p: rewrite(p, **{"class": "KMeans"}), "not a method of this library"),
    "other parameter": (lambda p: rewrite(p, params=params(p, shell="rm")), "cannot be read|can be read"),
    "parameter type": (lambda p: rewrite(p, params=params(p, n_clusters="3")), "n_clusters"),
    "parameters as a list": (lambda p: rewrite(p, params=[]), "'params' is not an object"),
    "another size": (lambda p: rewrite(p, params=params(p, n_clusters=4)), "tensors"),
    "a hostile size": (lambda p: rewrite(p, params=params(p, hidden_layer_sizes=[10**7, 10**7])), "tensors"),
    "no loss": (lambda p: rewrite(p, loss=None), "can be read"),
    "a hostile shape": (lambda p: rewrite(p, shape=["x"]), "can be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(easy, tmp_path, damage):
    path = tmp_path / "model"
    small("TELL").fit(easy[0]).save(path)
    break_it, message = DAMAGE[damage]
    break_it(path)
    with pytest.raises(ValueError, match=message):
        neuralclust.load(path)


def test_several_metrics_come_back_as_they_were(easy, tmp_path):
    model = small("DCSAI", metric=("cosine", "cityblock")).fit(easy[0])
    model.save(tmp_path / "m")
    assert neuralclust.load(tmp_path / "m").get_params() == model.get_params()


def test_a_link_to_a_model_stays_a_link(tmp_path, easy):
    model = small("AEKMeans", encoder=None).fit(easy[0])
    (tmp_path / "current").symlink_to(tmp_path / "v1")
    for _ in range(2):
        model.save(tmp_path / "current")
    assert (tmp_path / "current").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "v1"]
    assert np.array_equal(load(tmp_path / "v1").labels_, model.labels_)


class Loose(torch.nn.Module):
    """A buffer that no state dict has, and one layer under two names."""

    def __init__(self):
        super().__init__()
        self.register_buffer("waves", torch.randn(16, 6), persistent=False)
        self.first = torch.nn.Linear(6, 6)
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(torch.sin(x @ self.waves)))


def test_encoders_are_saved_whole(tmp_path, easy):
    model = small("KMeansNet", encoder=Loose()).fit(easy[0])
    model.save(tmp_path / "model")
    again = load(tmp_path / "model", encoder=Loose())
    assert np.array_equal(again.transform(easy[0]), model.transform(easy[0]))


def test_a_subclass_is_refused_before_it_is_lost(tmp_path, easy):
    class Own(AEKMeans):
        pass

    model = Own(3, encoder=None).fit(easy[0])
    with pytest.raises(TypeError, match=r"Own is not a class of this library.*joblib"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
