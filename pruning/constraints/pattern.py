"""Pattern pruning: every kernel keeps the positions of one of a few patterns, and whole kernels go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from zeroskip.pruning.constraints.base import Mask, Structure, Values, as_kernels, check_axes, finite_values
from zeroskip.pruning.constraints.topk import check_keep, check_size, kept_count, largest, largest_in_rows
from zeroskip.pruning.errors import PruningError

__all__ = ["Pattern"]

_LIBRARY_LIMIT = 256


@dataclass(frozen=True)
class Pattern(Structure):
    """Tensors with at most ``count`` nonzero kernels, each inside one of ``patterns`` (PatDNN, METHODS 5).

    With a given library the projection is exact: the pattern with the largest energy for every kernel, then the kernels
    of largest energy. Without one, :meth:`fit` chooses it: of the positions of the ``entries`` largest weights of every
    kernel, the ``library`` most frequent. That choice is the usual one, not the best one.

    Parameters
    ----------
    keep : fraction of the kernels in (0, 1], or their number (connectivity pruning)
    patterns : lists of kept positions ``y * kw + x``; None: chosen by :meth:`fit`
    entries : positions of a pattern that is chosen, 4 of a 3 x 3 kernel
    library : patterns to choose, up to 256
    """

    keep: float | int = 1.0
    patterns: tuple[tuple[int, ...], ...] | None = None
    entries: int = 4
    library: int = 8

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_size(self.entries, "entries")
        check_size(self.library, "library")
        if self.library > _LIBRARY_LIMIT:
            raise PruningError(f"library must be at most {_LIBRARY_LIMIT}, not {self.library}")
        if self.patterns is None:
            return
        if not 1 <= len(self.patterns) <= _LIBRARY_LIMIT:
            raise PruningError(f"patterns must be 1 to {_LIBRARY_LIMIT} lists of positions, not {len(self.patterns)}")
        for pattern in self.patterns:
            listed = isinstance(pattern, (list, tuple))
            if not listed or not pattern or not all(type(at) is int and at >= 0 for at in pattern):
                raise PruningError(f"A pattern must be a list of positions from 0 on, not {pattern!r}")
        object.__setattr__(self, "patterns", tuple(tuple(sorted(set(pattern))) for pattern in self.patterns))

    def _positions(self, shape: Sequence[int]) -> int:
        """Return the positions of a kernel."""
        check_axes("Pattern", shape)
        positions = math.prod(shape[2:])
        if positions == 1:
            raise PruningError(
                f"Pattern needs kernels of two or more positions, but the weight of shape {tuple(shape)} has kernels "
                "of one; use NonStructured or Block"
            )
        return positions

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of kernels kept in a tensor of this shape."""
        self._positions(shape)
        return kept_count(self.keep, shape[0] * shape[1])

    def fit(self, weight: Tensor) -> Pattern:
        """Return the set with a library chosen by frequency; of equally frequent patterns the lower positions win."""
        positions = self._positions(weight.shape)
        if self.patterns is not None:
            self._table(positions)
            return self
        kernels = np.abs(finite_values(weight)).reshape(-1, positions)
        kernels = kernels[kernels.any(axis=1)]
        supports = np.packbits(largest_in_rows(kernels, min(self.entries, positions)), axis=1)
        found, counts = np.unique(supports, axis=0, return_counts=True)
        rows = np.unpackbits(found, axis=1, count=positions)
        listed = [tuple(np.flatnonzero(row).tolist()) for row in rows]
        ranked = sorted((-int(count), pattern) for pattern, count in zip(listed, counts, strict=True))
        # A layer without any weight left still needs a library.
        chosen = [pattern for _, pattern in ranked[: self.library]] or [tuple(range(min(self.entries, positions)))]
        return replace(self, patterns=tuple(chosen))

    def _table(self, positions: int) -> Mask:
        """Return the library as masks, ``(patterns, positions)``."""
        if self.patterns is None:
            raise PruningError("Pattern has no library yet; give patterns=..., or call fit(weight) as Admm does")
        table = np.zeros((len(self.patterns), positions), bool)
        for row, pattern in zip(table, self.patterns, strict=True):
            if pattern[-1] >= positions:
                raise PruningError(
                    f"Pattern {pattern} has position {pattern[-1]}, but the layer's kernels have positions 0 to "
                    f"{positions - 1}; give patterns for these kernels"
                )
            row[list(pattern)] = True
        return table

    def support(self, gains: Values) -> Mask:
        """Return the best pattern of every kernel, and the kernels of largest gain."""
        count, positions = self.count(gains.shape), self._positions(gains.shape)
        table = self._table(positions)
        patterns = [np.flatnonzero(row) for row in table]
        columns = np.ascontiguousarray(as_kernels(gains).reshape(-1, positions).T, dtype=np.float64)
        best = _total(columns, patterns[0])
        chosen = np.zeros(len(best), np.uint8)
        for number, pattern in enumerate(patterns[1:], 1):
            gain = _total(columns, pattern)
            np.copyto(chosen, number, where=gain > best)
            np.maximum(best, gain, out=best)
        mask: Mask = table[chosen] & largest(best, count)[:, None]
        return mask.reshape(gains.shape)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        if self.patterns is None:
            raise PruningError("Pattern has no library yet; give patterns=..., or call fit(weight) as Admm does")
        return {"kind": "pattern", "keep": self.keep, "patterns": [list(pattern) for pattern in self.patterns]}


def _total(columns: Values, positions: Values) -> Values:
    """Return the sum of some rows, added in order: the same for every kernel."""
    total: Values = columns[positions[0]].copy()
    for position in positions[1:]:
        total += columns[position]
    return total
