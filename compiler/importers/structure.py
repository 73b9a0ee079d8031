"""Check that a layer's weights have the sparsity structure that the artifact claims: one checker a kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRUCTURES", "kernels_of", "living_blocks", "structure_fault"]

Weights = NDArray[Any]

_LISTED_PATTERNS = 256


def structure_fault(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Return what is wrong with a structure or with weights that do not have it; None when all is well.

    ``keep`` is a count of groups (an integer) or a fraction of them (``max(1, floor(keep * groups + 0.5))``), 1.0 where
    it is missing. What a group is, and what else a structure has to say, stands at the checker of its kind. The matrix
    of a weight is ``[O, I*kh*kw]``, one row an output channel.

    Parameters
    ----------
    structure : the header's table of one layer
    weight : ndarray[int16] of shape ``OIHW``, ``OIL`` or ``OI``
    """
    kind = structure.get("kind")
    if not isinstance(kind, str) or kind not in _CHECKERS:
        return f"has structure {kind!r}; supported are {', '.join(STRUCTURES)}"
    fault = _keep_fault(structure.get("keep", 1.0))
    if fault is not None or not weight.size:
        return fault
    return _CHECKERS[kind](structure, weight)


def _keep_fault(keep: Any) -> str | None:
    fraction = type(keep) is float and 0.0 < keep <= 1.0
    if fraction or (type(keep) is int and keep >= 1):
        return None
    return f"must have a structure whose keep is a fraction above 0 up to 1 or a count of at least 1, not {keep!r}"


def _allowed(keep: float | int, groups: int) -> int:
    """Return how many of ``groups`` a ``keep`` setting lets live."""
    return max(1, math.floor(keep * groups + 0.5)) if isinstance(keep, float) else keep


def _count_fault(structure: Mapping[str, Any], alive: NDArray[Any], what: str) -> str | None:
    """Return the fault of more living groups than ``keep`` allows; ``alive`` has an entry a group."""
    keep = structure.get("keep", 1.0)
    found, groups = int(np.count_nonzero(alive)), int(alive.size)
    allowed = _allowed(keep, groups)
    if found <= allowed:
        return None
    return (
        f"has {found} of {groups} {what} that are not 0, but its structure ({structure['kind']}, keep {keep}) allows "
        f"{allowed}"
    )


def _size_fault(structure: Mapping[str, Any], *keys: str) -> str | None:
    """Return the fault of a size that is missing or no count of at least 1."""
    for key in keys:
        value = structure.get(key)
        if type(value) is not int or value < 1:
            return f"must have a structure whose {key} is a count of at least 1, not {value!r}"
    return None


def _alive(values: Weights, *axes: int) -> Weights:
    """Return which groups, each spread over ``axes``, hold anything."""
    return np.asarray(values.any(axis=axes))


def kernels_of(weight: Weights) -> Weights:
    """Return the weights as ``(O, I, positions of a kernel)``; a linear layer has kernels of one position."""
    return weight.reshape(*weight.shape[:2], -1)


def living_blocks(values: Weights, size: int, axis: int) -> Weights:
    """Return where a block of ``size`` along ``axis`` holds anything; the last block may be shorter."""
    starts = np.arange(0, values.shape[axis], min(size, values.shape[axis]))
    blocks: Weights = np.add.reduceat((values != 0).astype(np.int64), starts, axis=axis) > 0
    return blocks


def _dense(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Accept everything: a dense layer may hold zeros."""
    return None


def _nonstructured(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Groups are the single weights."""
    return _count_fault(structure, weight, "weights")


def _column(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Groups are ``group`` (default 1) adjacent columns of the matrix."""
    if "group" in structure:
        fault = _size_fault(structure, "group")
        if fault is not None:
            return fault
    used = _alive(weight.reshape(len(weight), -1), 0)
    return _count_fault(structure, living_blocks(used, structure.get("group", 1), 0), "column groups")


def _filter(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Groups are the filters: the rows of the matrix."""
    return _count_fault(structure, _alive(weight.reshape(len(weight), -1), 1), "filters")


def _channel(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Groups are the input channels (of a group of a grouped convolution)."""
    return _count_fault(structure, _alive(kernels_of(weight), 0, 2), "input channels")


def _kernel(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Groups are the kernels: the positions of one input and one output channel."""
    return _count_fault(structure, _alive(kernels_of(weight), 2), "kernels")


def _vector(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Groups are ``size`` consecutive input or output channels (``axis``) at one position of the kernel."""
    fault = _size_fault(structure, "size")
    if fault is not None:
        return fault
    axis = structure.get("axis")
    if axis not in ("input", "output"):
        return f"must have a structure whose axis is input or output, not {axis!r}"
    return _count_fault(
        structure, living_blocks(kernels_of(weight), structure["size"], ("output", "input").index(axis)), "vectors"
    )


def _block(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Groups are blocks of ``rows`` x ``columns`` of the matrix; those at its right and lower edge may be smaller."""
    fault = _size_fault(structure, "rows", "columns")
    if fault is not None:
        return fault
    bands = living_blocks(weight.reshape(len(weight), -1), structure["rows"], 0)
    return _count_fault(structure, living_blocks(bands, structure["columns"], 1), "blocks")


def _nm(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """At most ``n`` weights live in every ``m`` consecutive entries of a row of the matrix; ``keep`` says nothing."""
    fault = _size_fault(structure, "n", "m")
    if fault is not None:
        return fault
    n, m = structure["n"], structure["m"]
    if n > m:
        return f"must have a structure whose n is at most its m, not {n} of {m}"
    used = (weight.reshape(len(weight), -1) != 0).astype(np.int64)
    m = min(m, used.shape[1])
    counts = np.add.reduceat(used, np.arange(0, used.shape[1], m), axis=1)
    row, group = np.unravel_index(int(counts.argmax()), counts.shape)
    if counts[row, group] <= n:
        return None
    return (
        f"has {counts[row, group]} weights that are not 0 in row {row}, entries {group * m} to "
        f"{min(group * m + m, used.shape[1]) - 1}, but its structure (nm, {n} of {m}) allows {n}"
    )


def _bank_balanced(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Every row of the matrix has ``banks`` equal parts; in each at most ``keep`` of its weights live."""
    fault = _size_fault(structure, "banks")
    if fault is not None:
        return fault
    used, banks = weight.reshape(len(weight), -1) != 0, structure["banks"]
    columns = used.shape[1]
    if columns % banks:
        return f"has rows of {columns} weights, but its structure (bank_balanced) cuts them into {banks} equal parts"
    counts = used.reshape(len(weight), banks, -1).sum(axis=2)
    allowed = _allowed(structure.get("keep", 1.0), columns // banks)
    row, bank = np.unravel_index(int(counts.argmax()), counts.shape)
    if counts[row, bank] <= allowed:
        return None
    return (
        f"has {counts[row, bank]} weights that are not 0 in bank {bank} of row {row}, but its structure "
        f"(bank_balanced, keep {structure.get('keep', 1.0)}) allows {allowed}"
    )


def _pattern(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """Every kernel that lives (at most ``keep`` of them) lies inside one of ``patterns``, lists of kept positions."""
    kernels = kernels_of(weight) != 0
    positions = kernels.shape[2]
    patterns = structure.get("patterns")
    if not isinstance(patterns, list) or not 1 <= len(patterns) <= _LISTED_PATTERNS:
        return f"must have a structure with 1 to {_LISTED_PATTERNS} patterns, not {patterns!r}"
    fits = np.zeros(kernels.shape[:2], bool)
    for pattern in patterns:
        if not isinstance(pattern, list) or not all(type(at) is int and 0 <= at < positions for at in pattern):
            return f"must have patterns that are lists of positions 0 to {positions - 1}, not {pattern!r}"
        outside = np.ones(positions, bool)
        outside[pattern] = False
        fits |= ~kernels[:, :, outside].any(axis=2)
    if not fits.all():
        row, channel = np.unravel_index(int(fits.argmin()), fits.shape)
        return (
            f"has weights that are not 0 in kernel {channel} of filter {row} at positions "
            f"{np.flatnonzero(kernels[row, channel]).tolist()}, which no pattern of its structure holds"
        )
    return _count_fault(structure, _alive(kernels, 2), "kernels")


def _micro_block(structure: Mapping[str, Any], weight: Weights) -> str | None:
    """In ``size`` consecutive entries of a row of the matrix all weights that live share one magnitude.

    Groups are these blocks.
    """
    fault = _size_fault(structure, "size")
    if fault is not None:
        return fault
    magnitude = np.abs(weight.reshape(len(weight), -1).astype(np.int64))
    size = min(structure["size"], magnitude.shape[1])
    starts = np.arange(0, magnitude.shape[1], size)
    largest = np.maximum.reduceat(magnitude, starts, axis=1)
    shared = np.repeat(largest, size, axis=1)[:, : magnitude.shape[1]]
    differs = (magnitude != 0) & (magnitude != shared)
    if differs.any():
        row, column = np.unravel_index(int(differs.argmax()), differs.shape)
        return (
            f"has weights of magnitude {magnitude[row, column]} and {shared[row, column]} in row {row}, block "
            f"{column // size}, but its structure (micro_block, size {size}) shares one magnitude"
        )
    return _count_fault(structure, largest, "micro blocks")


_CHECKERS: Mapping[str, Callable[[Mapping[str, Any], Weights], str | None]] = {
    "dense": _dense,
    "nonstructured": _nonstructured,
    "column": _column,
    "filter": _filter,
    "channel": _channel,
    "kernel": _kernel,
    "vector": _vector,
    "block": _block,
    "nm": _nm,
    "bank_balanced": _bank_balanced,
    "pattern": _pattern,
    "micro_block": _micro_block,
}
STRUCTURES = tuple(_CHECKERS)
