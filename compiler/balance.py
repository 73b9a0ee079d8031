"""Order the rows of sparse layers by length, so that lanes and cores that run in lock step end together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from zeroskip.compiler.encodings import bitmap, relative
from zeroskip.compiler.ir import Kind, Layer, Model
from zeroskip.compiler.passes.channels import bound, select_rows
from zeroskip.compiler.target import Format, Geometry

__all__ = ["balance_rows", "row_slots"]


def balance_rows(
    model: Model, geometry: Geometry, formats: Mapping[str, Format]
) -> tuple[Model, dict[str, tuple[int, ...]]]:
    """Permute the rows of sparse layers, longest first, where the only consumer can follow; the function is unchanged.

    Returns the new model and, by tensor name, the original row of each position. Golden samples of a permuted tensor
    follow the permutation. The rows of the last layer keep their order: the host reads them. So do rows that a
    structure counts, such as blocks or N of M.
    """
    layers = list(model.layers)
    golden = dict(model.golden)
    orders: dict[str, tuple[int, ...]] = {}
    for index, layer in enumerate(layers):
        if formats.get(layer.name, Format.DENSE) is Format.DENSE or layer.output == model.output:
            continue
        side_by_side = geometry.cores * (geometry.lanes if layer.kind is Kind.LINEAR else 1)
        readers = [number for number, other in enumerate(layers) if layer.output in other.inputs]
        if side_by_side == 1 or layer.groups > 1 or len(readers) != 1 or not _can_follow(layers[readers[0]]):
            continue
        if bound(layer, layers[readers[0]]):
            continue
        lengths = row_slots(layer, formats[layer.name])
        order = np.lexsort((np.arange(len(lengths)), -lengths))
        layers[index] = select_rows(layer, order)
        layers[readers[0]] = _permute_inputs(layers[readers[0]], order)
        if layer.output in golden:
            golden[layer.output] = golden[layer.output][:, order]
        orders[layer.output] = tuple(int(i) for i in order)
    return replace(model, layers=tuple(layers), golden=golden), orders


def row_slots(layer: Layer, format_: Format = Format.RELATIVE) -> np.ndarray:
    """Return the slots of each row, escapes or empty mask words included; other formats are taken for relative."""
    weight = np.asarray(layer.weight)
    matrix = weight.reshape(len(weight), -1)
    supports = [np.flatnonzero(row).tolist() for row in matrix]
    if format_ is Format.BITMAP:
        length = matrix.shape[1]
        return np.array([bitmap.slot_count(support, length, bitmap.LIMIT) for support in supports])
    bits = relative.choose_index_bits(supports, layer.weight_bits)
    return relative.Gaps(supports).counts(bits)


def _can_follow(reader: Layer) -> bool:
    return reader.kind is Kind.LINEAR or (reader.kind is Kind.CONV2D and reader.groups == 1)


def _permute_inputs(layer: Layer, order: np.ndarray) -> Layer:
    """Follow a permutation of the input channels; a linear layer reads whole maps a channel."""
    weight = np.asarray(layer.weight)
    if layer.kind is Kind.CONV2D:
        return replace(layer, weight=np.ascontiguousarray(weight[:, order]))
    blocks = weight.reshape(len(weight), len(order), -1)[:, order]
    return replace(layer, weight=np.ascontiguousarray(blocks.reshape(weight.shape)))
