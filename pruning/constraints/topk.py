"""Exact top-k selection with a fixed rule for ties, and the count that a ``keep`` setting means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.pruning.errors import PruningError

__all__ = ["check_keep", "kept_count", "largest"]


def check_keep(keep: float | int) -> None:
    """Refuse a ``keep`` that is neither a fraction in (0, 1] nor a count of at least 1."""
    if isinstance(keep, bool) or not isinstance(keep, (int, float)):
        raise TypeError(f"keep must be a number, not {keep!r}")
    if isinstance(keep, int) and keep < 1:
        raise PruningError(f"keep must be a count of at least 1 or a fraction in (0, 1], not {keep!r}")
    if isinstance(keep, float) and not 0.0 < keep <= 1.0:
        raise PruningError(f"keep must be a fraction in (0, 1] or a whole count, not {keep!r}")


def kept_count(keep: float | int, groups: int) -> int:
    """Return how many of ``groups`` groups ``keep`` leaves: ``max(1, floor(keep * groups + 0.5))`` for a fraction."""
    if isinstance(keep, int):
        if keep > groups:
            raise PruningError(f"keep is {keep}, but the layer has {groups} groups; use a smaller count or a fraction")
        return keep
    return max(1, math.floor(keep * groups + 0.5))


def largest(scores: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Mark the ``count`` largest of ``scores`` (1-D, finite); of equal scores the lower index wins."""
    if not np.isfinite(scores).all():
        raise PruningError("Weights must be finite, but a NaN or an infinity was found; lower the learning rate or rho")
    if count >= scores.size:
        return np.ones(scores.shape, dtype=bool)
    threshold = np.partition(scores, scores.size - count)[scores.size - count]
    mask: NDArray[np.bool_] = scores > threshold
    ties = np.flatnonzero(scores == threshold)
    mask[ties[: count - int(mask.sum())]] = True
    return mask
