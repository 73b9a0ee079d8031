"""Recognize zeros that lie in a known structure, in networks that were pruned elsewhere and do not say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.importers.structure import kernels_of, living_blocks
from zeroskip.compiler.ir import Layer, Model

__all__ = ["recognize_structure"]

_LEAST_WEIGHTS = 64
"""Fewer nonzero weights lie in some structure by chance."""
_FILLED = 0.9
"""Share of a structure's places that hold a weight at least: quantization makes some of those that were kept zero."""
_EXPLAINED = 0.8
"""Share of the zeros that lie outside of those places at least."""
_VECTORS = (16, 8, 4, 2)
_BANKS = (4, 8, 16)
_PATTERNS = 16

Mask = NDArray[np.bool_]


def recognize_structure(model: Model, report: list[str] | None = None) -> Model:
    """Give layers whose zeros are said to have no structure the one that they have, so that indices count its groups.

    Whole kernels, runs of input channels, patterns and N of M are found, in this order, the larger groups first. A
    structure counts where nine tenths of the places that it keeps hold a weight, and four fifths of the zeros lie
    elsewhere. Runs after channels that nobody needs are gone: a structure that counts channels would keep them.

    Parameters
    ----------
    model : Model
    report : list of str, gets a line for every structure
    """
    layers = []
    for layer in model.layers:
        found = _structure(layer)
        if found is not None:
            layer = replace(layer, structure=found)
            if report is not None:
                report.append(f"recognize_structure: layer {layer.name!r} {_words(found)}")
        layers.append(layer)
    return replace(model, layers=tuple(layers))


def _structure(layer: Layer) -> dict[str, Any] | None:
    if layer.weight is None or layer.groups > 1 or layer.structure.get("kind") != "nonstructured":
        return None
    used: Mask = np.asarray(layer.weight) != 0
    if used.all() or np.count_nonzero(used) < _LEAST_WEIGHTS:
        return None
    for structure, kept in _candidates(kernels_of(used)):
        filled = np.count_nonzero(used) >= _FILLED * np.count_nonzero(kept)
        if filled and np.count_nonzero(~kept) >= _EXPLAINED * np.count_nonzero(~used):
            return structure
    return None


def _candidates(used: Mask) -> Iterator[tuple[dict[str, Any], Mask]]:
    """Return structures that hold the weights ``used``, ``(O, I, positions)``, each with all places that it keeps."""
    filters, channels, positions = used.shape
    alive = used.any(axis=2, keepdims=True)
    if positions > 1:
        yield {"kind": "kernel", "keep": int(alive.sum())}, np.broadcast_to(alive, used.shape)
    for size in _VECTORS:
        if size <= channels:
            runs = living_blocks(used, size, 1)
            kept = np.repeat(runs, size, axis=1)[:, :channels]
            yield {"kind": "vector", "size": size, "axis": "input", "keep": int(runs.sum())}, kept
    patterns = _patterns(used) if positions > 1 else []
    if patterns:
        listed = [[int(at) for at in np.flatnonzero(pattern)] for pattern in patterns]
        yield {"kind": "pattern", "keep": int(alive.sum()), "patterns": listed}, alive & _own_pattern(used, patterns)
    matrix = used.reshape(filters, -1)
    for size in _BANKS:
        if matrix.shape[1] % size == 0:
            counts = matrix.reshape(filters, -1, size).sum(axis=2)
            most = int(counts.max())
            kept = np.broadcast_to(np.arange(size) < most, (*counts.shape, size))
            yield {"kind": "nm", "n": most, "m": size}, kept


def _patterns(used: Mask) -> list[Mask]:
    """Return the few patterns of one size that hold all living kernels, none where there are no such."""
    kernels = used.reshape(-1, used.shape[2])
    shapes = np.unique(kernels[kernels.any(axis=1)], axis=0)
    most = int(shapes.sum(axis=1).max())
    largest = [shape for shape in shapes if shape.sum() == most]
    fits = all(any(not (shape & ~pattern).any() for pattern in largest) for shape in shapes)
    return largest if fits and most < used.shape[2] and len(largest) <= _PATTERNS else []


def _own_pattern(used: Mask, patterns: list[Mask]) -> Mask:
    """Return for every kernel the first pattern that holds it."""
    holds = np.stack([~(used & ~pattern).any(axis=2) for pattern in patterns])
    chosen: Mask = np.stack(patterns)[holds.argmax(axis=0)]
    return chosen


def _words(structure: dict[str, Any]) -> str:
    texts = {
        "kernel": "is pruned by kernels",
        "vector": "is pruned by runs of {size} input channels",
        "pattern": "has kernels of {count} patterns",
        "nm": "keeps {n} of {m} weights",
    }
    return texts[structure["kind"]].format(**structure, count=len(structure.get("patterns", ())))
