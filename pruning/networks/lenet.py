"""Networks for small grey images: LeNet-300-100, LeNet-5 and the demo's CNN."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DigitsCnn", "LeNet5", "LeNet300100"]


class LeNet300100(nn.Module):
    """LeNet-300-100: three linear layers, 266,200 weights, for 1x28x28 images."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``x`` (N, 1, 28, 28)."""
        x = F.relu(self.fc1(x.flatten(1)))
        y: Tensor = self.fc3(F.relu(self.fc2(x)))
        return y


class _Pooled(nn.Module):
    """Two convolutions, each with its pooling, and two linear layers; a subclass says how large they are."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    fc1: nn.Linear
    fc2: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``x`` (N, 1, H, W)."""
        # A maximum and a ReLU commute; behind the pool the ReLU has a quarter of the values to touch.
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = F.relu(self.fc1(x.flatten(1)))
        y: Tensor = self.fc2(x)
        return y


class LeNet5(_Pooled):
    """LeNet-5 of the pruning literature (Caffe's): 20-50-500-10, 430,500 weights, for 1x28x28 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, 10)


class DigitsCnn(_Pooled):
    """The demo's network: two convolutions and two linear layers, 3,592 weights, for 1x8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc1 = nn.Linear(64, 32)
        self.fc2 = nn.Linear(32, 10)
