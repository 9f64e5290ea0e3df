"""Save and load fitted estimators: a folder with ``config.json`` and ``model.safetensors``, never a pickle."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import uuid
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sklearn.utils.validation import check_is_fitted
from torch import nn

from neuralclust import __version__
from neuralclust._warn import warn
from neuralclust.nn.module import load_state, state_of
from neuralclust.peers import writes
from neuralclust.registry import METHODS, resolve
from neuralclust.runtime import resolve_device, seeded

FORMAT = 1
CONFIG, TENSORS = "config.json", "model.safetensors"
_CUSTOM = {"custom": True}


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a folder.

    The folder appears whole or not at all: it is written beside its place and then moved there. Of several processes of
    torchrun the first one writes.

    Parameters
    ----------
    estimator : NeuralClusterer
        A fitted estimator of this library. What is written are the parameters it was fitted with, but for a function as
        ``augment``, of which a warning tells.
    path : str or Path
        Folder to write. An earlier model there is replaced; a folder with anything else in it is left alone.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    FileExistsError
        If ``path`` exists and is not a model folder.

    Examples
    --------
    >>> import tempfile
    >>> import neuralclust
    >>> from neuralclust.datasets import make_sphere_clusters
    >>> X, y = make_sphere_clusters(60, 3, 8, noise=0.1, random_state=0)
    >>> model = neuralclust.AEKMeans(3, encoder=None, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model")
    ...     again = neuralclust.load(f"{folder}/model")
    >>> bool((again.predict(X) == model.labels_).all())
    True
    """
    check_is_fitted(estimator)
    if not writes():
        return
    name = type(estimator).__name__
    if name not in METHODS or resolve(name) is not type(estimator):
        raise TypeError(
            f"{name} is not a class of this library, and load could not make it. Use joblib.dump, or pickle."
        )
    path = Path(path).resolve()  # a link stays, and what it points to is written
    if path.exists() and not _is_ours(path):
        raise FileExistsError(f"{path} exists and is not a model folder of ours. Give a new path, or remove it first.")
    if callable(estimator._fitted_params.get("augment")):
        warn(
            f"augment is a function, which {path} does not hold: the loaded model has none. Set it again before "
            f"partial_fit(train_encoder=True)."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    new, old = path.with_name(f".{path.name}.{mark}.new"), path.with_name(f".{path.name}.{mark}.old")
    try:
        new.mkdir()
        # Copies: tied weights are one tensor under two names, which the format refuses.
        tensors = {
            name: value.detach().cpu().clone().contiguous() for name, value in state_of(estimator.module_).items()
        }
        tensors["labels_"] = torch.from_numpy(np.ascontiguousarray(estimator.labels_))
        save_file(tensors, new / TENSORS)
        config = _describe(estimator)
        config["sha256"] = _digest(new / TENSORS, config)
        (new / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        for part in (TENSORS, CONFIG):  # on the disk before the former model goes
            with (new / part).open("rb+") as file:
                os.fsync(file.fileno())
        _settle(new)
        if path.exists():
            path.rename(old)
        new.rename(path)
        _settle(path.parent)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _settle(folder: Path) -> None:
    """Entries of a folder on the disk, where the system lets one wait for that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    encoder: nn.Module | None = None,
) -> Any:
    """Read a fitted estimator from a folder that ``save`` wrote.

    Parameters
    ----------
    path : str or Path
        The folder.
    device : str or torch.device, optional
        Where to put the model; by default the ``device`` it was made with.
    encoder : nn.Module, optional
        The network, if the estimator was made with one of the user's own: code is never read from the folder.

    Returns
    -------
    NeuralClusterer
        Fitted; it predicts what the saved one did.

    Raises
    ------
    FileNotFoundError
        If there is no model.
    ValueError
        If the files are damaged, do not fit together, come from a newer version, or name an unknown method; or if the
        device is not there.
    """
    path = Path(path)
    for name in (CONFIG, TENSORS):
        if not (path / name).is_file():
            inside = path / "model"  # of the folder of a run
            hint = f" Did you mean {inside}?" if (inside / CONFIG).is_file() else ""
            raise FileNotFoundError(f"{path} has no {name}: it is not a model that neuralclust saved.{hint}")
    config = _read_config(path / CONFIG)
    if _digest(path / TENSORS, config) != config["sha256"]:
        raise ValueError(
            f"{path} is damaged or was edited: the checksum in {CONFIG} is not that of its files. Restore both."
        )
    params = dict(config["params"])
    if params.get("encoder") == _CUSTOM:
        if encoder is None:
            raise ValueError(f"{path} was made with a network of your own. Pass it: load(path, encoder=your_module).")
        params["encoder"] = encoder
    if device is not None:
        params["device"] = device
    try:
        if isinstance(params.get("init"), list):
            params["init"] = np.asarray(params["init"], dtype=np.float32)
        params = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}  # JSON
        estimator = resolve(config["class"])(**params)
        estimator._validate_params()
        restored = _restore(estimator, path, config)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RuntimeError, SafetensorError) as error:
        if encoder is not None:
            raise ValueError(f"{path} does not fit the encoder given: {error}") from error
        raise ValueError(f"{path} does not hold a model that can be read: {error}") from error
    try:
        place = resolve_device(restored.device)
    except ValueError as error:
        raise ValueError(
            f"The model in {path} is whole, but {error} For the CPU: load(path, device='cpu'), or --device cpu on the "
            f"command line."
        ) from error
    restored.module_.to(place)
    return restored


def _restore(estimator: Any, path: Path, config: dict[str, Any]) -> Any:
    """The estimator as it was saved, on the CPU."""
    shape, names, history = tuple(config["shape"]), config["feature_names_in"], config["history"]
    _require(len(shape) in (1, 3) and all(type(s) is int and s > 0 for s in shape), "'shape'")
    n_features = math.prod(shape)
    named = isinstance(names, list) and len(names) == n_features and all(type(n) is str for n in names)
    _require(names is None or named, "'feature_names_in'")
    _require(isinstance(history, list) and all(isinstance(row, dict) for row in history), "'history'")
    _require(type(config["n_iter"]) is int and config["n_iter"] >= 0, "'n_iter'")
    _require(type(config["n_samples"]) is int and config["n_samples"] > 0, "'n_samples'")
    _require(type(config["loss"]) is float, "'loss'")
    tensors = load_file(path / TENSORS)
    labels = tensors.pop("labels_")
    _require(labels.ndim == 1 and labels.dtype == torch.int64, "'labels_'")
    _require(bool(((labels >= 0) & (labels < estimator.n_clusters)).all()), "'labels_'")
    _require(all(bool(torch.isfinite(value).all()) for value in tensors.values()), "a tensor with NaN or infinity")
    recipe = estimator._recipe(config["n_samples"])
    if isinstance(estimator.encoder, nn.Module):
        with seeded(0, torch.device("cpu")):  # a decoder is drawn before its weights are read
            module = estimator._build(shape, recipe)
    else:
        with (
            seeded(0, torch.device("cpu")),
            torch.device("meta"),
        ):  # shapes only: a hostile size cannot fill the memory before it is compared
            module = estimator._build(shape, recipe)
    for name in ("shift", "scale", "mean"):
        if name in tensors and tensors[name].shape == shape:  # a row, in place of one number
            setattr(module, name, tensors[name].to(getattr(module, name).dtype))
    expected = {name: (tuple(v.shape), v.dtype) for name, v in state_of(module).items()}
    found = {name: (tuple(v.shape), v.dtype) for name, v in tensors.items()}
    if expected != found:
        differs = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        raise ValueError(f"its tensors are not those of its parameters, first {differs[0]!r}")
    if not isinstance(estimator.encoder, nn.Module):
        module = module.to_empty(device="cpu")
    load_state(module, tensors)
    _require(bool((module.scale > 0).all()) and float(module.variance) >= 0, "'scale' or 'variance'")
    estimator.module_ = module.eval()
    estimator.labels_ = labels.numpy()
    estimator.history_ = history
    estimator.loss_ = config["loss"]
    estimator.n_iter_ = config["n_iter"]
    estimator.n_features_in_ = n_features
    estimator._fitted_params = estimator.get_params(deep=False)
    estimator._n_samples = config["n_samples"]
    if names is not None:
        estimator.feature_names_in_ = np.asarray(names, dtype=object)
    return estimator


def _require(sound: bool, what: str) -> None:
    if not sound:
        raise ValueError(f"{what} is not what neuralclust writes")


def _is_ours(path: Path) -> bool:
    """A model that we wrote and nothing beside it, or an empty folder."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    if names and names == {CONFIG, TENSORS}:
        try:
            _read_config(path / CONFIG)
        except ValueError:
            return False
    return names in (set(), {CONFIG, TENSORS})


def _describe(estimator: Any) -> dict[str, Any]:
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "format": FORMAT,
        "neuralclust": __version__,
        "class": type(estimator).__name__,
        "params": {
            name: _CUSTOM if name == "encoder" and isinstance(value, nn.Module) else _plain(value)
            for name, value in estimator._fitted_params.items()
        },
        "shape": list(estimator.module_.shape),
        "feature_names_in": None if names is None else [str(name) for name in names],
        "n_samples": estimator._n_samples,
        "n_iter": estimator.n_iter_,
        "loss": estimator.loss_,
        "history": estimator.history_,
    }


def _plain(value: Any) -> Any:
    """A parameter as JSON. A random state cannot be kept, it has moved on since; nor can a function."""
    if isinstance(value, np.random.RandomState) or callable(value):
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, (np.ndarray, list, tuple)):
        return [_plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return value if value is None or isinstance(value, str) else str(value)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: it is not JSON ({error}). Restore it from a copy.") from error
    if not isinstance(config, dict) or type(config.get("format")) is not int or config["format"] < 1:
        raise ValueError(f"{file} is not the description of a neuralclust model.")
    if config["format"] > FORMAT:
        raise ValueError(
            f"{file} has format {config['format']}, written by neuralclust {config.get('neuralclust')}; this version "
            f"({__version__}) reads up to {FORMAT}. Upgrade neuralclust."
        )
    keys = {
        "class",
        "params",
        "shape",
        "feature_names_in",
        "n_samples",
        "n_iter",
        "loss",
        "history",
        "sha256",
    }
    if missing := sorted(keys - config.keys()):
        raise ValueError(f"{file} is damaged: it lacks {missing}. Restore it from a copy.")
    if not isinstance(config["class"], str) or config["class"] not in METHODS:
        raise ValueError(
            f"{file} names the class {config['class']!r}, which is not a method of this library: {sorted(METHODS)}."
        )
    if not isinstance(config["params"], dict):
        raise ValueError(f"{file} is damaged: 'params' is not an object. Restore it from a copy.")
    return config


def _digest(tensors: Path, config: dict[str, Any]) -> str:
    """Of both files: of the tensors' bytes, and of what the description says, however it is laid out."""
    with tensors.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    described = {key: value for key, value in config.items() if key != "sha256"}
    digest.update(json.dumps(described, sort_keys=True).encode())
    return digest.hexdigest()
