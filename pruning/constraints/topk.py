"""Exact top-k selection with a fixed rule for ties, and the count that a ``keep`` setting means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.pruning.errors import PruningError

__all__ = ["check_keep", "check_size", "kept_count", "largest", "largest_in_rows"]


def check_keep(keep: float | int, name: str = "keep") -> None:
    """Refuse a ``keep`` that is neither a fraction in (0, 1] nor a count of at least 1."""
    if isinstance(keep, bool) or not isinstance(keep, (int, float)):
        raise TypeError(f"{name} must be a number, not {keep!r}")
    if isinstance(keep, int) and keep < 1:
        raise PruningError(f"{name} must be a count of at least 1 or a fraction in (0, 1], not {keep!r}")
    if isinstance(keep, float) and not 0.0 < keep <= 1.0:
        raise PruningError(f"{name} must be a fraction in (0, 1] or a whole count, not {keep!r}")


def check_size(size: int, name: str) -> None:
    """Refuse a size that is no whole number of at least 1."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{name} must be a whole number, not {size!r}")
    if size < 1:
        raise PruningError(f"{name} must be at least 1, not {size!r}")


def kept_count(keep: float | int, groups: int, name: str = "keep", what: str = "groups") -> int:
    """Return how many of ``groups`` groups ``keep`` leaves: ``max(1, floor(keep * groups + 0.5))`` for a fraction."""
    if isinstance(keep, int):
        if keep > groups:
            raise PruningError(
                f"{name} is {keep}, but the layer has {groups} {what}; use a smaller count or a fraction"
            )
        return keep
    return max(1, math.floor(keep * groups + 0.5))


def largest(scores: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Mark the ``count`` largest of ``scores`` (1-D, finite); of equal scores the lower index wins."""
    if count >= scores.size:
        return np.ones(scores.shape, dtype=bool)
    threshold = np.partition(scores, scores.size - count)[scores.size - count]
    mask: NDArray[np.bool_] = scores > threshold
    ties = np.flatnonzero(scores == threshold)
    mask[ties[: count - int(mask.sum())]] = True
    return mask


def largest_in_rows(scores: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Mark the ``count`` largest in every row of ``scores`` (2-D, finite); of equal scores the lower index wins."""
    length = scores.shape[1]
    if count >= length:
        return np.ones(scores.shape, dtype=bool)
    threshold = np.partition(scores, length - count, axis=1)[:, length - count]
    # Rows are short and many: sums over them are fast only when a row lies across memory.
    columns = np.ascontiguousarray(scores.T)
    mask: NDArray[np.bool_] = columns >= threshold
    crowded = np.flatnonzero(mask.sum(axis=0, dtype=np.int32) > count)
    if crowded.size:
        above = columns[:, crowded] > threshold[crowded]
        ties = mask[:, crowded] & ~above
        missing = count - above.sum(axis=0, dtype=np.int32)
        mask[:, crowded] = above | (ties & (np.cumsum(ties, axis=0, dtype=np.int32) <= missing))
    return np.ascontiguousarray(mask.T)
