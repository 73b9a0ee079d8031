"""Choose how the weights of each layer are stored."""

from __future__ import annotations

import numpy as np

from zeroskip.compiler.ir import Kind, Layer, Model
from zeroskip.compiler.lower import LayerCost, layer_costs
from zeroskip.compiler.target import Engine, Format, Geometry

__all__ = ["CYCLE_TOLERANCE", "best_formats", "layer_formats", "sparse_format"]

SPARSE_DENSITY = 0.7
"""Below this density a layer is stored with indices when the engine is free to choose."""

CYCLE_TOLERANCE = 1.02
"""A smaller array is taken when it costs no more cycles than this ratio."""


def best_formats(
    model: Model, geometry: Geometry, index_bits: int | None, bitmap: bool = False, least_storage: bool = False
) -> tuple[dict[str, Format], list[str]]:
    """Return for every layer with weights the format that takes fewest cycles in ``geometry``, and why.

    Within CYCLE_TOLERANCE the dense format wins: it stores no indices. With ``bitmap`` the relative index has a rival,
    and the one with fewer bits wins within that tolerance. With ``least_storage`` the fewest bits win in all cases.
    """
    dense, sparse = layer_formats(model, Engine.DENSE), layer_formats(model, Engine.SPARSE)
    counted = layer_costs(model, geometry, dense)
    indexed = layer_costs(model, geometry, sparse, index_bits, least_storage)
    masks = layer_formats(model, Engine.SPARSE, bitmap)
    masked = layer_costs(model, geometry, masks, index_bits, least_storage) if masks != sparse else indexed
    formats, reasons = {}, []
    for name in dense:
        reason = f"{counted[name].cycles} cycles dense and {indexed[name].cycles} with indices"
        least, takes = indexed[name], sparse
        if masks[name] is not sparse[name]:
            reason += f", {masked[name].cycles} with a bitmap"
            if masked[name].bits < indexed[name].bits if least_storage else _better(masked[name], indexed[name]):
                least, takes = masked[name], masks
        if least_storage:
            reason += f"; {least.bits} bits against {counted[name].bits} dense"
            takes = takes if least.bits < counted[name].bits else dense
        elif least.cycles * CYCLE_TOLERANCE >= counted[name].cycles:
            takes = dense
        formats[name] = takes[name]
        reasons.append(f"layer {name}: {takes[name].value}, {reason}")
    return formats, reasons


def _better(one: LayerCost, other: LayerCost) -> bool:
    """Whether ``one`` takes fewer cycles, or about as many and fewer bits."""
    if one.cycles > other.cycles * CYCLE_TOLERANCE:
        return False
    return one.bits < other.bits or one.cycles * CYCLE_TOLERANCE < other.cycles


def layer_formats(model: Model, engine: Engine | None, bitmap: bool = False) -> dict[str, Format]:
    """Return the format of every layer with weights.

    Without an engine a layer is sparse when it has zeros enough that its indices skip more than they cost;
    :func:`best_formats` counts. ``bitmap`` is that of :func:`sparse_format`.
    """
    formats = {}
    for layer in model.layers:
        if layer.weight is None:
            continue
        sparse = engine is Engine.SPARSE or (engine is None and _density(layer) < SPARSE_DENSITY)
        formats[layer.name] = sparse_format(layer, bitmap) if sparse else Format.DENSE
    return formats


def sparse_format(layer: Layer, bitmap: bool = False) -> Format:
    """Return the format with indices that suits the structure of a layer's zeros.

    With ``bitmap`` a convolution whose zeros have no structure is a bitmap instead of a relative index.
    """
    suits = _structured_format(layer)
    if bitmap and suits is Format.RELATIVE and layer.kind is Kind.CONV2D:
        return Format.BITMAP
    return suits


def _structured_format(layer: Layer) -> Format:
    kind = layer.structure.get("kind")
    if layer.groups > 1:
        return Format.RELATIVE
    if kind in ("block", "kernel") or (kind == "vector" and layer.structure.get("axis") == "input"):
        return Format.RELATIVE if kind == "kernel" and layer.kind is Kind.LINEAR else Format.BLOCKS
    if kind in ("nm", "bank_balanced"):
        return Format.BANKS
    if kind == "pattern" and layer.kind is Kind.CONV2D:
        return Format.PATTERN
    return Format.RELATIVE


def _density(layer: Layer) -> float:
    """Return the fraction of a layer's weights that are not zero."""
    weight = np.asarray(layer.weight)
    return float(np.count_nonzero(weight)) / weight.size
