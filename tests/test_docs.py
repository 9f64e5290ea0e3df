"""The code of the documents runs as it is printed."""

import re
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import mse_loss

import neuralclust
from neuralclust.metrics import clustering_accuracy
from neuralclust.nn import MLPAutoencoder

ROOT = Path(__file__).parents[1]


def blocks(text):
    """The first line and the code of every python block."""
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, block.start(1)) + 1, block[1]


def run(text, document, names):
    for line, code in blocks(text):
        try:  # empty lines before it: the traceback names the lines of the document
            exec(compile("\n" * (line - 1) + code, document, "exec"), names)
        except Exception as error:
            raise AssertionError(f"{document}, block at line {line}: {error!r}") from error


def test_a_block_that_fails_is_named():
    with pytest.raises(AssertionError, match="page, block at line 6: NameError"):
        run("```python\na = 1\n```\n\n```python\na\nb\n```\n", "page", {})


def test_the_guide_runs(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "guide.md").read_text()
    assert len(list(blocks(text))) > 10
    monkeypatch.chdir(tmp_path)  # it writes files
    with torch.random.fork_rng():
        run(text, "docs/guide.md", {})


def test_the_layer_of_the_readme_clusters_digits():
    """As printed, with an autoencoder for the names that the reader brings."""
    text = (ROOT / "README.md").read_text()
    (code,) = (code for _, code in blocks(text) if "TELLLayer" in code)
    images, digits = load_digits(return_X_y=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        X = torch.tensor(images / 16, dtype=torch.float32)
        net = MLPAutoencoder((64,), 10, hidden_layer_sizes=(256,), normalize=True)
        optimizer = torch.optim.Adam(net.parameters())
        for x in (x for _ in range(20) for x in X[torch.randperm(len(X))].split(64)):
            optimizer.zero_grad()
            mse_loss(net(x), x).backward()
            optimizer.step()
        names = {
            "neuralclust": neuralclust,
            "X": X,
            "my_encoder": net.encoder,
            "my_parameters": list(net.parameters()),
            "my_batches": [x for _ in range(10) for x in X[torch.randperm(len(X))].split(64)],
            "my_loss": lambda x, z: mse_loss(net.decoder(z), x),
        }
        exec(code, names)
        labels = names["layer"].predict(net.encoder(X))
    assert clustering_accuracy(digits, labels.numpy()) > 0.75
