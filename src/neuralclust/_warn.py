"""Warnings that point at the user's own line."""

from __future__ import annotations

import sys
import warnings

from sklearn.exceptions import ConvergenceWarning

_BETWEEN = ("neuralclust", "sklearn", "joblib", "torch")


def warn(message: str, category: type[Warning] = ConvergenceWarning) -> None:
    """Warn in the name of the first caller outside this library, scikit-learn and what that calls through.

    Parameters
    ----------
    message : str
        What is wrong and what helps.
    category : type of Warning, default=ConvergenceWarning
        Its class.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
