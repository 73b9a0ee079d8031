"""Remove channels between a layer with weights and the next one: what both compaction passes share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Kind, Layer, Model

__all__ = [
    "Span",
    "arrays_of",
    "bound",
    "channel_list",
    "input_channels",
    "keep_channels",
    "obstacle",
    "replace_layers",
    "select_rows",
    "source_of",
    "span_from",
]

IntArray = NDArray[Any]

_LISTED = 8
_POOLINGS = (Kind.MAX_POOL2D, Kind.AVG_POOL2D)
_JOINS = {Kind.ADD: "adds", Kind.CONCAT: "concatenates"}


@dataclass(frozen=True)
class Span:
    """Two layers with weights and the poolings between them: nothing else reads what the producer writes."""

    producer: Layer
    between: tuple[Layer, ...]
    consumer: Layer


def span_from(model: Model, name: str) -> Span | None:
    """Return the span whose producer is the layer ``name``; None where it has none, see :func:`obstacle`."""
    producer = model.layer(name)
    path = _path(model, producer)
    if producer.weight is None or len(path) == 1 or path[-1].weight is None or bound(producer, path[-1]):
        return None
    return Span(producer, tuple(path[1:-1]), path[-1])


def obstacle(model: Model, name: str) -> str | None:
    """Return why the output channels of layer ``name`` must stay; None if a span begins there or it feeds the output.

    They must where several layers read them, where an addition or a concatenation reads or writes them, and where a
    structure counts them.
    """
    path = _path(model, model.layer(name))
    for layer in (path[0], path[-1]):
        if layer.kind in _JOINS:
            return f"{layer.name!r} {_JOINS[layer.kind]} them"
    if len(path) > 1 and path[-1].weight is not None:
        return bound(path[0], path[-1])
    readers = model.readers(path[-1].output)
    return f"{len(readers)} layers read {path[-1].output!r}" if len(readers) > 1 else None


def bound(producer: Layer, consumer: Layer) -> str | None:
    """Return which structure needs the channels between two layers in their places; None if they may go or move."""
    for layer, axis, kinds in (
        (producer, "output", ("block", "vector")),
        (consumer, "input", ("block", "vector", "nm", "bank_balanced", "micro_block")),
    ):
        kind = layer.structure.get("kind")
        if kind in kinds and layer.structure.get("axis", axis) == axis:
            return f"the structure of {layer.name!r} ({kind}) counts {axis} channels"
    return None


def source_of(model: Model, consumer: Layer) -> Layer | None:
    """Return the layer that computes what ``consumer`` reads, poolings left out; None for the network's input."""
    source = model.producer(consumer.input)
    while source is not None and source.kind in _POOLINGS:
        source = model.producer(source.input)
    return source


def _path(model: Model, producer: Layer) -> list[Layer]:
    """Return the layers from ``producer`` on, each the only reader of the one before, up to the first non-pooling."""
    path = [producer]
    while len(path) == 1 or path[-1].kind in _POOLINGS:
        readers = model.readers(path[-1].output)
        if len(readers) != 1 or path[-1].output == model.output:
            break
        path.append(readers[0])
    return path


def arrays_of(layer: Layer) -> tuple[IntArray, IntArray]:
    """Return weight and bias of a layer that has them."""
    if layer.weight is None or layer.bias is None:
        raise CompileError(f"Layer {layer.name!r} has no weights: its kind is {layer.kind.value}")
    return layer.weight, layer.bias


def select_rows(layer: Layer, rows: IntArray) -> Layer:
    """Return the layer with the output channels ``rows`` (bool, or indices in their new order) in all its arrays."""
    weight, bias = arrays_of(layer)
    selected = replace(layer, weight=weight[rows], bias=bias[rows])
    if layer.thresholds is not None:
        return replace(selected, thresholds=layer.thresholds[rows])
    if layer.multiplier is None or layer.shift is None or len(layer.multiplier) != len(weight):
        return selected
    return replace(selected, multiplier=layer.multiplier[rows], shift=layer.shift[rows])


def input_channels(layer: Layer, channels: int) -> IntArray:
    """Return the weights as ``(O, channels, taps)``; a linear layer on an image has one tap a position."""
    weight = arrays_of(layer)[0]
    return weight.reshape(weight.shape[0], channels, -1)


def replace_layers(model: Model, *layers: Layer) -> Model:
    """Return the model with ``layers`` in the places of those of the same names."""
    changed = {layer.name: layer for layer in layers}
    return replace(model, layers=tuple(changed.get(layer.name, layer) for layer in model.layers))


def keep_channels(model: Model, span: Span, keep: IntArray) -> Model:
    """Return the model with only the channels ``keep`` (bool) of the producer, in every tensor up to the consumer.

    Golden samples are cut alike, and the model notes which channels are left. What the consumer added for a removed
    channel is lost: fold it first.
    """
    producer, consumer = span.producer, span.consumer
    producer = select_rows(producer, keep)
    rest = np.ascontiguousarray(input_channels(consumer, len(keep))[:, keep])
    count = rest.shape[0]
    shape = (count, -1) if consumer.kind is Kind.LINEAR else (count, rest.shape[1], *consumer.kernel)
    consumer = replace(consumer, weight=rest.reshape(shape))
    tensors, golden, kept = dict(model.tensors), dict(model.golden), dict(model.kept_channels)
    for layer in (producer, *span.between):
        tensor = tensors[layer.output]
        before = np.array(kept.get(layer.output, range(len(keep))))
        kept[layer.output] = tuple(before[keep].tolist())
        tensors[layer.output] = replace(tensor, shape=(int(keep.sum()), *tensor.shape[1:]))
        if layer.output in golden:
            golden[layer.output] = np.ascontiguousarray(golden[layer.output][:, keep])
    cut = replace_layers(model, producer, consumer)
    return replace(cut, tensors=tensors, golden=golden, kept_channels=kept)


def channel_list(channels: IntArray) -> str:
    """Return channel numbers as text, shortened after the first few."""
    numbers = [str(int(channel)) for channel in channels[:_LISTED]]
    return ", ".join(numbers) + (", ..." if len(channels) > _LISTED else "")
