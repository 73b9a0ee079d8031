"""Networks for sound and heartbeats: DS-CNN, a 1-D CNN and an autoencoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Autoencoder", "Cnn1d", "DsCnn"]


class _Separable(nn.Module):
    """A depthwise 3x3 and a pointwise convolution, each with BatchNorm and ReLU."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)
        self.norm1 = nn.BatchNorm2d(before)
        self.pointwise = nn.Conv2d(before, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.depthwise(x)))
        return F.relu(self.norm2(self.pointwise(x)))


class DsCnn(nn.Module):
    """DS-CNN (Zhang et al. 2017) for 1x48x32 log-mel images: one convolution, four depthwise separable ones.

    10x4 kernels of stride 2 as in MLPerf Tiny, 32 channels, the second block halves the map.
    """

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, (10, 4), 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(_Separable(width, width, 2 if number == 1 else 1) for number in range(4)))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of spectra ``x`` (N, 1, 48, 32): time, then mel bands."""
        x = self.blocks(F.relu(self.norm(self.conv(x))))
        y: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return y


class Cnn1d(nn.Module):
    """Three 1-D convolutions with BatchNorm and one linear layer, 1,544 weights, for series (N, 1, 140)."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 8, 7, 2, 3, bias=False)
        self.norm1 = nn.BatchNorm1d(8)
        self.conv2 = nn.Conv1d(8, 16, 5, 2, 2, bias=False)
        self.norm2 = nn.BatchNorm1d(16)
        self.conv3 = nn.Conv1d(16, 16, 3, 1, 1, bias=False)
        self.norm3 = nn.BatchNorm1d(16)
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of series ``x`` (N, 1, 140)."""
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        # A maximum and a ReLU commute; behind the pool the ReLU has half of the values to touch.
        x = F.relu(F.max_pool1d(self.norm3(self.conv3(x)), 2))
        y: Tensor = self.fc(F.adaptive_avg_pool1d(x, 1).flatten(1))
        return y


class Autoencoder(nn.Module):
    """A linear autoencoder 140-64-16-64-140 with ReLU between, 19,968 weights, for series (N, 1, 140)."""

    def __init__(self, length: int = 140, width: int = 64, code: int = 16) -> None:
        super().__init__()
        self.encoder1 = nn.Linear(length, width)
        self.encoder2 = nn.Linear(width, code)
        self.decoder1 = nn.Linear(code, width)
        self.decoder2 = nn.Linear(width, length)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction (N, 140) of series ``x`` (N, 1, 140)."""
        x = F.relu(self.encoder1(x.flatten(1)))
        x = F.relu(self.decoder1(F.relu(self.encoder2(x))))
        y: Tensor = self.decoder2(x)
        return y
