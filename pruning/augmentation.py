"""Random changes of training batches: shifts of images and series, horizontal flips, crops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["cropped", "flipped", "shifted"]


def _padded(x: Tensor, margins: tuple[int, ...], fill: Tensor) -> Tensor:
    """Return ``x`` with a border: of ``fill`` around images, of the outermost values around series.

    Code 0 is an image's background, but nothing in a series.
    """
    if x.dim() == 3:
        return F.pad(x, (margins[0], margins[0]), mode="replicate")
    y, x_margin = margins
    count, channels, height, width = x.shape
    result = fill.to(x.dtype).expand(count, channels, height + 2 * y, width + 2 * x_margin).clone()
    result[:, :, y : y + height, x_margin : x_margin + width] = x
    return result


def shifted(x: Tensor, margins: tuple[int, ...], fill: Tensor, generator: torch.Generator) -> Tensor:
    """Return the batch moved by one random offset of at most ``margins`` in each position axis.

    Parameters
    ----------
    x : images (N, C, H, W) or series (N, C, T)
    margins : for images (y, x), for series (t,)
    fill : what comes in at the border of images, (1, C or 1, 1, 1)
    """
    offsets = [int(torch.randint(0, 2 * margin + 1, (), generator=generator)) for margin in margins]
    padded = _padded(x, margins, fill)
    for axis, (offset, size) in enumerate(zip(offsets, x.shape[2:], strict=True), start=2):
        padded = padded.narrow(axis, offset, size)
    return padded


def flipped(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images (N, C, H, W), about half of them mirrored left to right."""
    chosen = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(chosen.reshape(-1, 1, 1, 1).to(x.device), x.flip(3), x)


def cropped(x: Tensor, margin: int, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images (N, C, H, W), each moved by an offset of its own of at most ``margin`` in y and in x."""
    count, _, height, width = x.shape
    offsets = torch.randint(0, 2 * margin + 1, (2, count), generator=generator)
    rows = (offsets[0, :, None] + torch.arange(height)).reshape(count, 1, height, 1)
    columns = (offsets[1, :, None] + torch.arange(width)).reshape(count, 1, 1, width)
    samples = torch.arange(count).reshape(-1, 1, 1, 1)
    channels = torch.arange(x.shape[1]).reshape(1, -1, 1, 1)
    places = [index.to(x.device) for index in (samples, channels, rows, columns)]
    return _padded(x, (margin, margin), fill)[places[0], places[1], places[2], places[3]]
