"""Small float networks with branches, sums, concatenations and sequences, for the tests of pruning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["GRAPHS", "Branches", "Clipped", "InPlace", "Pooled", "Residual", "Sequence", "Shortcut", "shaken"]


class Block(nn.Module):
    """A residual block as torchvision writes it."""

    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or before != width:
            self.downsample = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class Residual(nn.Module):
    """A small residual network."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.blocks = nn.Sequential(Block(4, 4, 1), Block(4, 8, 2))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1), 1))


class Branches(nn.Module):
    """Branches that are concatenated and added, grouped and depthwise convolutions, a mean."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.wide = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.deep = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.last, self.other = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.stem(x))
        joined = torch.cat([F.relu(self.wide(x)), self.deep(x)], dim=1)
        pooled = F.max_pool2d(F.relu(self.other(joined)), 1)
        return self.fc(F.relu(self.last(joined) + pooled).mean((2, 3)))


class InPlace(nn.Module):
    """A sum and a ReLU in the place of a tensor that is used again."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(2, 3, 3) for _ in range(3))

    def forward(self, x):
        y = self.a(x)
        z = y.add_(self.b(x))
        torch.relu_(y)
        return y + z + self.c(x)


class Sequence(nn.Module):
    """A 1-D network with a residual sum."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(2, 4, 7, stride=2, padding=3)
        self.norm1 = nn.BatchNorm1d(4)
        self.conv2 = nn.Conv1d(4, 4, 3, padding="same", dilation=2)
        self.pool = nn.MaxPool1d(2)
        self.average = nn.AvgPool1d(3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.pool(F.relu(self.norm1(self.conv1(x))))
        x = self.average(F.relu(x + self.conv2(x)))
        return self.fc(F.adaptive_avg_pool1d(x, 1).squeeze(2))


class Clipped(nn.Module):
    """ReLU6, HardTanh and clamp behind layers, sums and concatenations; a border of zeros; a depthwise convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU6())
        self.deep = nn.Conv2d(4, 4, 3, groups=4)
        self.border = nn.ZeroPad2d((0, 1, 0, 1))
        self.left, self.right = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 5, 1)
        self.one, self.two = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = F.hardtanh(self.deep(self.border(self.stem(x))))
        x = F.relu(torch.cat([self.left(x), self.right(x).clamp_max(2)], 1))
        x = (self.one(x) + self.two(x)).clamp(min=-2)
        return self.fc(F.max_pool2d(x, 2, ceil_mode=True).flatten(1)).clamp(-4, 4)


class Pooled(nn.Module):
    """Max pools with padding and ceil_mode, adaptive ones, a maximum of a whole map, and Softmax at the end."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 1)
        self.halves = nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True))
        self.wholes = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d((1, 2)))
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return F.softmax(self.fc(self.wholes(self.halves(self.conv(x))).amax((2, 3))), 1)


class Averaged(nn.Module):
    """Averages over windows with a border of zeros, of values with a sign and without, as Inception has them."""

    def __init__(self):
        super().__init__()
        self.stem, self.right = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 1)
        self.before, self.behind = nn.AvgPool2d((3, 2), (1, 2), (1, 0)), nn.AvgPool2d(3, 1, 1)
        self.left, self.fc = nn.Conv2d(4, 3, 1), nn.Linear(3, 2)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = self.left(self.behind(x)) + self.right(x)
        return self.fc(self.before(x).mean((2, 3)))


def shaken(model):
    """Give every BatchNorm numbers of its own."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


class Shortcut(nn.Module):
    """A block whose shortcut is written as in the ResNet of CIFAR-10: slices, and channels of zeros."""

    def __init__(self, shortcut=lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 8, 3, 2, 1)
        self.fc = nn.Linear(8, 3)
        self.shortcut = shortcut

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.conv(x) + self.shortcut(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


GRAPHS = {
    "residual": (Residual, (3, 8, 8)),
    "branches": (Branches, (2, 8, 7)),
    "in_place": (InPlace, (2, 6, 6)),
    "sequence": (Sequence, (2, 40)),
    "shortcut": (Shortcut, (2, 7, 8)),
    "clipped": (Clipped, (3, 9, 9)),
    "pooled": (Pooled, (2, 13, 13)),
    "averaged": (Averaged, (2, 9, 8)),
}
