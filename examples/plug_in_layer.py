"""A cluster layer in a network of your own, trained by a loop of your own.

TELLLayer needs nothing of this library around it: give it codes, add its loss to yours, and call ``normalize_()``
after each step. Here it sits in a small autoencoder for scikit-learn's digits.

    python examples/plug_in_layer.py
"""

import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from torch import nn

from neuralclust.metrics import clustering_accuracy
from neuralclust.nn import TELLLayer


class ClusteringAutoencoder(nn.Module):
    """Any module may take a cluster layer."""

    def __init__(self, n_features: int, n_clusters: int):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_features, 500), nn.ReLU(), nn.Linear(500, 10))
        self.decoder = nn.Sequential(nn.Linear(10, 500), nn.ReLU(), nn.Linear(500, n_features), nn.Sigmoid())
        self.clusters = TELLLayer(10, n_clusters)

    def forward(self, x):
        return self.clusters(self.encoder(x))  # soft assignments, rows sum to 1

    def loss(self, x, weight):
        z = nn.functional.normalize(self.encoder(x), dim=1)
        return nn.functional.mse_loss(self.decoder(z), x) + weight * self.clusters.loss(z)


def main(epochs: int = 60) -> float:
    """Train, print and return the accuracy."""
    images, digits = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32)
    torch.manual_seed(0)
    model = ClusteringAutoencoder(64, 10)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(2 * epochs):
        if epoch == epochs:  # the first half trains the autoencoder alone; k-means then gives the first centres
            with torch.no_grad():
                z = nn.functional.normalize(model.encoder(x), dim=1).numpy()
            model.clusters.init_(torch.tensor(KMeans(10, n_init=10, random_state=0).fit(z).cluster_centers_))
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            model.loss(x[rows], weight=0.02 if epoch >= epochs else 0.0).backward()
            optimizer.step()
            model.clusters.normalize_()
    with torch.no_grad():
        labels = model(x).argmax(dim=1).numpy()
    accuracy = clustering_accuracy(digits, labels)
    print(f"accuracy on digits: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
