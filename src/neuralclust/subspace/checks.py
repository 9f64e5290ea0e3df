"""What every solver asks of its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_array


def check_rows(X: Any) -> np.ndarray:
    """Finite rows (n, d), float32 if they are and float64 otherwise."""
    return check_array(X, dtype=[np.float64, np.float32], order="C", input_name="X")


def check_kernel(K: Any) -> np.ndarray:
    """A finite square matrix, as float64."""
    K = check_array(K, dtype=np.float64, input_name="K")
    if K.shape[0] != K.shape[1]:
        raise ValueError(f"K has shape {K.shape}; a kernel between the rows is square.")
    return K


def check_positive(**parameters: float) -> None:
    """Parameters that must be above 0 and finite."""
    for name, value in parameters.items():
        if not value > 0:
            raise ValueError(f"{name}={value!r} must be above 0.")
        if value == np.inf:
            raise ValueError(f"{name}={value!r} must be finite.")
