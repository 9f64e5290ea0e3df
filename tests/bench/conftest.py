"""An experiment and tasks of its own, which take no time."""

import pytest

TOY = """
import os, sys, time

def square(x, seed):
    return {"acc": x * x / 100, "seconds": 0.0}

def slow(path, seed):
    open(path, "w").write(str(os.getpid()))
    time.sleep(60)
    return {}

def suicide(seed):
    sys.stderr.write("warnings.warn(harmless)\\n")
    os.kill(os.getpid(), 9)

def broken(seed):
    raise ValueError("no luck")

def arrays(seed):
    import numpy, torch
    return {"acc": numpy.float32(0.5), "each": numpy.array([1, 2]), "loss": torch.tensor(2.0)}

def nonsense(seed):
    return {"acc": object()}
"""


@pytest.fixture
def tasks(tmp_path):
    """Write a TOML file beside the toy experiments; its path."""
    (tmp_path / "toy_experiments.py").write_text(TOY)

    def write(text):
        path = tmp_path / "tasks.toml"
        path.write_text(text)
        return path

    return write


SQUARES = """
[[tasks]]
name = "squares"
experiment = "toy_experiments:square"
sweep = { x = [1, 2, 3] }
seeds = 2
"""


@pytest.fixture
def squares(tasks):
    return tasks(SQUARES)
