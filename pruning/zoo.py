"""The networks of the zoo: LeNet-5 (20-50-500-10) and the small CNN of the demo."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from zeroskip.pruning.errors import PruningError, nearest

__all__ = ["NETWORKS", "DigitsCnn", "LeNet5", "make_network"]


class LeNet5(nn.Module):
    """LeNet-5 of the pruning literature (Caffe's): 20-50-500-10, 430,500 weights, for 1x28x28 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``x`` (N, 1, 28, 28)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        y: Tensor = self.fc2(x)
        return y


class DigitsCnn(nn.Module):
    """The demo's network: two convolutions and two linear layers, 3,592 weights, for 1x8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc1 = nn.Linear(64, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``x`` (N, 1, 8, 8)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        y: Tensor = self.fc2(x)
        return y


NETWORKS: dict[str, Callable[[], nn.Module]] = {"digits_cnn": DigitsCnn, "lenet5": LeNet5}


def make_network(name: str) -> nn.Module:
    """Return a fresh network of the zoo; its weights come from torch's random state."""
    if name not in NETWORKS:
        raise PruningError(f"Unknown network '{name}'; the nearest are: {nearest(name, NETWORKS)}")
    return NETWORKS[name]()
