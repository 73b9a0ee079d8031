"""Remove channels between a layer with weights and the next one: what both compaction passes share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Kind, Layer, Model

__all__ = ["Span", "arrays_of", "channel_list", "input_channels", "keep_channels", "spans", "with_layer"]

IntArray = NDArray[Any]

_LISTED = 8


@dataclass(frozen=True)
class Span:
    """Indices of two layers with weights that have nothing but poolings between them."""

    producer: int
    consumer: int


def spans(model: Model) -> Iterator[Span]:
    """Yield every pair of consecutive layers with weights, in execution order."""
    weighted = [index for index, layer in enumerate(model.layers) if layer.weight is not None]
    for producer, consumer in pairwise(weighted):
        yield Span(producer, consumer)


def arrays_of(layer: Layer) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Return weight, bias, multiplier and shift of a layer that has them."""
    if layer.weight is None or layer.bias is None or layer.multiplier is None or layer.shift is None:
        raise CompileError(f"Layer {layer.name!r} has no weights: its kind is {layer.kind.value}")
    return layer.weight, layer.bias, layer.multiplier, layer.shift


def input_channels(layer: Layer, channels: int) -> IntArray:
    """Return the weights as ``(O, channels, taps)``; a linear layer on an image has one tap a position."""
    weight = arrays_of(layer)[0]
    return weight.reshape(weight.shape[0], channels, -1)


def with_layer(model: Model, index: int, layer: Layer) -> Model:
    """Return the model with one layer replaced."""
    return replace(model, layers=(*model.layers[:index], layer, *model.layers[index + 1 :]))


def keep_channels(model: Model, span: Span, keep: IntArray) -> Model:
    """Return the model with only the channels ``keep`` (bool) of the producer, in every tensor up to the consumer.

    Golden samples are cut alike. What the consumer added for a removed channel is lost: fold it first.
    """
    producer, consumer = model.layers[span.producer], model.layers[span.consumer]
    weight, bias, multiplier, shift = arrays_of(producer)
    per_channel = len(multiplier) == len(weight) and len(weight) > 1
    producer = replace(
        producer,
        weight=weight[keep],
        bias=bias[keep],
        multiplier=multiplier[keep] if per_channel else multiplier,
        shift=shift[keep] if per_channel else shift,
    )
    rest = np.ascontiguousarray(input_channels(consumer, len(keep))[:, keep])
    rows = rest.shape[0]
    shape = (rows, -1) if consumer.kind is Kind.LINEAR else (rows, rest.shape[1], *consumer.kernel)
    consumer = replace(consumer, weight=rest.reshape(shape))
    tensors, golden = dict(model.tensors), dict(model.golden)
    for layer in model.layers[span.producer : span.consumer]:
        tensor = tensors[layer.output]
        tensors[layer.output] = replace(tensor, shape=(int(keep.sum()), *tensor.shape[1:]))
        if layer.output in golden:
            golden[layer.output] = np.ascontiguousarray(golden[layer.output][:, keep])
    layers = list(model.layers)
    layers[span.producer], layers[span.consumer] = producer, consumer
    return replace(model, layers=tuple(layers), tensors=tensors, golden=golden)


def channel_list(channels: IntArray) -> str:
    """Return channel numbers as text, shortened after the first few."""
    numbers = [str(int(channel)) for channel in channels[:_LISTED]]
    return ", ".join(numbers) + (", ..." if len(channels) > _LISTED else "")
