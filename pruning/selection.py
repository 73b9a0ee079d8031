"""Every n-th position of a map, and channels of zeros around its own, as a 1x1 convolution of constant weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Selection"]


@dataclass(frozen=True)
class Selection:
    """Slices ``x[:, :, ::y, ::x]`` and ``F.pad(x, (0, 0, 0, 0, before, behind))`` in any order.

    Both together are the shortcut of option A (He et al. 2015).

    Parameters
    ----------
    stride : ``(y, x)``
    before, behind : channels of zeros
    """

    stride: tuple[int, int] = (1, 1)
    before: int = 0
    behind: int = 0

    @property
    def identity(self) -> bool:
        """Whether nothing is left out and nothing added."""
        return self == Selection()

    def strided(self, axis: int, step: int) -> Selection:
        """Return this behind a slice that takes every ``step``-th position along axis -2 (y) or -1 (x)."""
        y, x = self.stride
        return replace(self, stride=(y * step, x) if axis == -2 else (y, x * step))

    def padded(self, margins: Sequence[int], axes: int) -> Selection | None:
        """Return this behind a zero padding; None for one that adds positions or takes channels away.

        ``margins`` are F.pad's, from the last axis on, of a tensor with ``axes`` axes.
        """
        places = 2 * (axes - 2)
        before, behind = (*margins[places : places + 2], 0, 0)[:2]
        if any(margins[:places]) or any(margins[places + 2 :]) or min(before, behind) < 0:
            return None
        return replace(self, before=self.before + before, behind=self.behind + behind)

    def weight(self, channels: int, dtype: torch.dtype) -> Tensor:
        """Return the convolution's weight (O, I, 1, 1) that copies ``channels`` channels between those of zeros."""
        weight = torch.zeros(self.before + channels + self.behind, channels, 1, 1, dtype=dtype)
        weight[self.before : self.before + channels, :, 0, 0] = torch.eye(channels, dtype=dtype)
        return weight
