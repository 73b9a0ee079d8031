"""Sums and concatenations of layers, the largest of a layer's results; slices, zero channels and zero borders."""

from __future__ import annotations

import math
from typing import Any

from torch import fx

from zeroskip.pruning.capture.reader import Reader
from zeroskip.pruning.graph import Kind, Op
from zeroskip.pruning.selection import Selection

__all__ = ["argmax", "concatenation", "pad", "strided_slice", "sum_of_two"]

Arguments = dict[str, Any]


def sum_of_two(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read a sum of two layers."""
    other = a["other"]
    if not isinstance(other, fx.Node) or a.get("alpha", 1) != 1:
        raise reader.refuse(node, f"operation '{node.target}' with a number")
    pair = (a["input"], reader.source(node, other))
    if any(reader.shape(source) != reader.shape(node) for source in pair):
        raise reader.refuse(node, "a sum of tensors of different shapes")
    _join(reader, node, Kind.ADD, "add", pair)


def concatenation(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read a concatenation of channels."""
    axes = len(reader.shape(node)) + 1
    sources = tuple(reader.source(node, value) for value in a["tensors"])
    if a["dim"] % axes != 1 or len(sources) < 2:
        raise reader.refuse(node, f"torch.cat along axis {a['dim']}; only the channels, axis 1, are known")
    reader.concat_nodes[_join(reader, node, Kind.CONCAT, "concat", sources)] = node


def argmax(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read the number of the largest output at the end."""
    shape = reader.shape(a["input"])
    if a["dim"] is None or a["dim"] % (len(shape) + 1) != 1 or math.prod(shape) != shape[0]:
        raise reader.refuse(node, f"argmax over the axis {a['dim']}; only the outputs of a vector, axis 1, are known")
    source = reader.ops.get(reader.made_by[a["input"]])
    if source is None or source.kind is Kind.CONCAT:
        raise reader.refuse(node, "argmax of something else than a layer's result")
    reader.made_by[node] = source.name
    reader.argmax = True


def _join(reader: Reader, node: fx.Node, kind: Kind, stem: str, sources: tuple[fx.Node, ...]) -> str:
    inputs = tuple(reader.made_by[source] for source in sources)
    if any(reader.reads_input(name) for name in inputs):
        raise reader.refuse(node, f"the network's input in '{node.target}'; put a convolution between them")
    if any(
        reader.ops[name].out_shape != reader.map_shape(source) for name, source in zip(inputs, sources, strict=True)
    ):
        raise reader.refuse(node, f"flattened maps in '{node.target}'; join the maps and flatten the result")
    name = reader.unique(f"{stem}{1 + sum(op.kind is kind for op in reader.ops.values())}")
    reader.add(node, Op(name, kind, inputs, reader.map_shape(sources[0]), reader.map_shape(node)))
    return name


def strided_slice(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read ``x[:, :, ::n, ::n]``."""
    source, selection = reader.selected(node, a["self"])
    shape = a["self"].meta["val"].shape
    axis, step = int(a["dim"]) % len(shape), int(a["step"])
    whole = not a["start"] and (a["end"] is None or a["end"] >= shape[axis])
    known = whole and (step == 1 or axis >= 2)
    found = selection.strided(axis - len(shape), step) if known else None
    _extend(reader, node, source, found, "take x[:, :, ::n, ::n]")


def pad(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read a padding with zeros: of channels, or of positions in front of a convolution."""
    zeros = a["mode"] == "constant" and not a["value"]
    margins = [int(n) for n in a["pad"]]
    axes = len(a["self"].meta["val"].shape)
    if zeros and axes > 2 and len(margins) <= 2 * (axes - 2) and min(margins) >= 0:
        source, (left, right, top, bottom) = reader.padded_source(node, a["self"])
        more = (*margins, 0, 0)[:4]
        reader.margins[node] = source, (left + more[0], right + more[1], top + more[2], bottom + more[3])
        return
    source, selection = reader.selected(node, a["self"])
    found = selection.padded(margins, len(reader.shape(source)) + 1) if zeros else None
    _extend(reader, node, source, found, "add channels of zeros, or a border of zeros in front of a convolution")


def _extend(reader: Reader, node: fx.Node, source: fx.Node, selection: Selection | None, limit: str) -> None:
    if selection is None or len(reader.shape(source)) < 2:
        raise reader.refuse(node, f"operation '{node.target}' that does more than {limit}")
    if reader.reads_input(reader.made_by[source]):
        raise reader.refuse(node, f"operation '{node.target}' on the network's input; put a convolution between them")
    reader.selections[node] = source, selection
