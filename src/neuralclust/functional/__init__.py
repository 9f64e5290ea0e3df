"""Pure functions on tensors: distances, assignments, losses."""

from neuralclust.functional.affinity import class_affinity, coefficient_affinity, self_expression
from neuralclust.functional.assignment import hard_assignment, relu_closeness, sharpen, student_closeness
from neuralclust.functional.distance import (
    DISTANCES,
    cityblock,
    correlation,
    cosine,
    euclidean,
    squared_euclidean,
    unit_norm,
)
from neuralclust.functional.graph import captured_fraction, knn_graph, laplacian, nearest_neighbors
from neuralclust.functional.losses import assignment_divergence, mask_noise, reconstruction_loss
from neuralclust.functional.pairs import collaboration, printed_collaboration
from neuralclust.functional.sparse import (
    adaptive_weights,
    linearised_admm,
    shrink_rows,
    soft_threshold,
    sparse_objective,
)

__all__ = [
    "DISTANCES",
    "adaptive_weights",
    "assignment_divergence",
    "captured_fraction",
    "cityblock",
    "class_affinity",
    "coefficient_affinity",
    "collaboration",
    "correlation",
    "cosine",
    "euclidean",
    "hard_assignment",
    "knn_graph",
    "laplacian",
    "linearised_admm",
    "mask_noise",
    "nearest_neighbors",
    "printed_collaboration",
    "reconstruction_loss",
    "relu_closeness",
    "self_expression",
    "sharpen",
    "shrink_rows",
    "soft_threshold",
    "sparse_objective",
    "squared_euclidean",
    "student_closeness",
    "unit_norm",
]
