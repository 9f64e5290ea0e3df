"""Pure functions on tensors: distances, assignments, losses."""

from neuralclust.functional.affinity import class_affinity, coefficient_affinity, self_expression
from neuralclust.functional.assignment import hard_assignment, relu_closeness, sharpen, student_closeness
from neuralclust.functional.collaboration import collaboration, printed_collaboration
from neuralclust.functional.distance import (
    DISTANCES,
    cityblock,
    correlation,
    cosine,
    euclidean,
    squared_euclidean,
    unit_norm,
)
from neuralclust.functional.losses import assignment_divergence, mask_noise, reconstruction_loss

__all__ = [
    "DISTANCES",
    "assignment_divergence",
    "cityblock",
    "class_affinity",
    "coefficient_affinity",
    "collaboration",
    "correlation",
    "cosine",
    "euclidean",
    "hard_assignment",
    "mask_noise",
    "printed_collaboration",
    "reconstruction_loss",
    "relu_closeness",
    "self_expression",
    "sharpen",
    "squared_euclidean",
    "student_closeness",
    "unit_norm",
]
