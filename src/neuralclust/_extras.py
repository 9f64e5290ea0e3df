"""Optional dependencies: the one place that says how to install what is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def require(module: str, extra: str) -> Any:
    """Import a module that only an extra of this package installs.

    Parameters
    ----------
    module : str
        Name to import, such as ``"matplotlib.figure"``.
    extra : str
        The extra that brings it.

    Raises
    ------
    ImportError
        If the package is not installed; the message has the command that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise  # it is installed, but something that it needs is not
        raise ImportError(f"{package} is not installed. Run: pip install 'neuralclust[{extra}]'") from error
