"""Residual networks for 3x32x32 images: ResNet-8 of MLPerf Tiny and the CIFAR ResNet-20."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResNet8", "ResNet20"]


class _Subsample(nn.Module):
    """The shortcut of option A (He et al. 2015): every second pixel, and zero channels before and behind.

    It is written as a 1x1 convolution of stride 2 whose constant weights copy channels: the same values, and a layer
    the integer network knows. The ReLU changes nothing, as no input is below 0, and says that the codes are unsigned.
    """

    weight: Tensor

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        weight = torch.zeros(width, before, 1, 1)
        first = (width - before) // 2
        weight[first : first + before, :, 0, 0] = torch.eye(before)
        # Not trained, not pruned, and no part of the state: published checkpoints hold none.
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(x, self.weight, stride=2))


class _Block(nn.Module):
    """A basic block: two 3x3 convolutions with BatchNorm around a shortcut."""

    def __init__(self, before: int, width: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10: 3 stages of 3 basic blocks, 16, 32 and 64 channels, shortcuts of option A.

    267,696 convolution and 640 linear weights; its tensors have the names of the published checkpoint
    (github.com/akamaster/pytorch_resnet_cifar10), see :func:`zeroskip.pruning.networks.load_start`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16)
        self.layer2 = self._stage(16, 32)
        self.layer3 = self._stage(32, 64)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(before: int, width: int) -> nn.Sequential:
        first = _Block(before, width, 2, _Subsample(before, width)) if before != width else None
        return nn.Sequential(
            first or _Block(before, width, 1, nn.Identity()),
            *(_Block(width, width, 1, nn.Identity()) for _ in range(2)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``x`` (N, 3, 32, 32)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        y: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return y


class ResNet8(nn.Module):
    """ResNet-8 of MLPerf Tiny: one basic block a stage, 16, 32 and 64 channels, 1x1 convolutions as shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.block1 = _Block(16, 16, 1, nn.Identity())
        self.block2 = _Block(16, 32, 2, nn.Conv2d(16, 32, 1, 2))
        self.block3 = _Block(32, 64, 2, nn.Conv2d(32, 64, 1, 2))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``x`` (N, 3, 32, 32)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.block3(self.block2(self.block1(x)))
        y: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return y
