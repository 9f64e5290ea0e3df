"""Pure functions on tensors: distances, assignments, losses."""

from neuralclust.functional.assignment import hard_assignment
from neuralclust.functional.distance import squared_euclidean, unit_norm
from neuralclust.functional.losses import mask_noise, reconstruction_loss

__all__ = ["hard_assignment", "mask_noise", "reconstruction_loss", "squared_euclidean", "unit_norm"]
