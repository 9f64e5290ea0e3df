"""How long, how fast and in what batches to train, where nobody has said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from neuralclust.training import LEARNING_RATES

PEAK = 3.0  # highest rate of pretraining, in units of the learning rate
JOINT = 1 / 3  # highest rate of joint training, in the same units: at more, CIFAR-10 loses what pretraining has found


class Epochs(NamedTuple):
    """As many as give so many steps, within limits."""

    steps: int
    least: int
    most: int

    def epochs(self, steps: int) -> int:
        return min(self.most, max(self.least, round(self.steps / steps)))


# Epochs of a stage when nobody names them, and the parameter with the rows in a step of it.
ENOUGH = {
    "pretrain_epochs": ("pretrain_batch_size", Epochs(4000, 40, 150)),
    "max_epochs": ("batch_size", Epochs(2000, 20, 60)),
}


def usual_batch(n_samples: int) -> int:
    """Rows in a step, unless the user or the method says otherwise."""
    return min(256, max(32, 2 ** round(np.log2(n_samples / 16))))


def learning_rate(recipe: SimpleNamespace) -> float:
    """As given, or the usual one of the optimiser."""
    return LEARNING_RATES[recipe.optimizer] if recipe.lr is None else recipe.lr


def joint_rate(recipe: SimpleNamespace) -> float:
    """Of the autoencoder in joint training: as given, or the usual one.

    Pretraining by one cycle has ended at a rate of 0. Joint training at the full one would undo it, and the more so
    the smaller the batches.
    """
    whole = recipe.lr is not None or not recipe.one_cycle
    return learning_rate(recipe) * (1.0 if whole else min(JOINT, small_steps(recipe.batch_size)))


def small_steps(batch_size: int) -> float:
    """Share of the learning rate that suits a batch, 1 from 256 rows on."""
    return min(1.0, batch_size / 256)
