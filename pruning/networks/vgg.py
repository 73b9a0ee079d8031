"""A small VGG: 3x3 convolutions of 16, 16, 32, 32 and 64 channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SmallVgg"]

_CHANNELS = (16, 16, 32, 32, 64)
# Convolutions after which the map is halved.
_POOLED = (1, 3, 4)


class SmallVgg(nn.Module):
    """VGG of 16-16-32-32-64 channels: padded 3x3 convolutions with BatchNorm, three max pools, one linear layer.

    Parameters
    ----------
    channels : of the image
    size : height and width of the image, at least 8
    classes : number of logits
    """

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 10) -> None:
        super().__init__()
        widths = (channels, *_CHANNELS)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, width, 3, padding=1, bias=False)
            for before, width in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in _CHANNELS)
        self.fc = nn.Linear(_CHANNELS[-1] * (size >> len(_POOLED)) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``x`` (N, channels, size, size)."""
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            # A maximum and a ReLU commute; behind the pool the ReLU has a quarter of the values to touch.
            x = F.relu(F.max_pool2d(x, 2) if number in _POOLED else x)
        y: Tensor = self.fc(x.flatten(1))
        return y
