"""Remove channels whose output is the same code for every input and fold that code into the next layer's bias."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.ir import Kind, Layer, Model, Tensor
from zeroskip.compiler.passes.channels import (
    Span,
    arrays_of,
    channel_list,
    input_channels,
    keep_channels,
    obstacle,
    replace_layers,
    span_from,
)
from zeroskip.compiler.reference import code_range, layer_codes, row_ranges

__all__ = ["compact_filters"]

IntArray = NDArray[Any]

_INT32 = np.iinfo(np.int32)


def compact_filters(model: Model, report: list[str] | None = None) -> Model:
    """Remove constant channels: all weights pruned, multiplier 0, or always clamped to the same code.

    A channel is constant when the smallest and the largest accumulator it can reach give the same code. The code times
    the next layer's weights goes into that layer's bias: exact where the next layer has no padding, or where the
    constant is its padding code. Everything else stays, and the report says why: what several layers, an addition or a
    concatenation read, what a structure counts, and one channel of a layer that is constant throughout.

    Parameters
    ----------
    model : Model
    report : list of str, gets a line for every layer with constant channels
    """
    lines: list[str] = []
    for name in [layer.name for layer in model.layers if layer.weight is not None]:
        span = span_from(model, name)
        if span is None:
            _report_stay(model, model.layer(name), lines)
        else:
            model = _compact(model, span, lines)
    if report is not None:
        report.extend(lines)
    return model


def _constants(model: Model, layer: Layer) -> tuple[IntArray, IntArray]:
    """Return which output channels are constant (bool) and their codes."""
    source, target = model.tensors[layer.input], model.tensors[layer.output]
    lo, hi = (layer_codes(layer, target, limit) for limit in row_ranges(layer, source, code_range(model, source.name)))
    return lo == hi, lo


def _compact(model: Model, span: Span, lines: list[str]) -> Model:
    """Remove the constant channels between the two layers of ``span``."""
    producer, consumer = span.producer, span.consumer
    constant, codes = _constants(model, producer)
    if not constant.any():
        return model
    for between in span.between:
        if between.kind is Kind.AVG_POOL2D:
            codes = np.clip(codes, *between.clamp)
    what = f"compact_filters: layer {producer.name!r}:"
    if producer.groups > 1 or consumer.groups > 1:
        grouped = producer if producer.groups > 1 else consumer
        lines.append(f"{what} {_count(constant)} stay: {grouped.name!r} is a grouped convolution")
        return model
    source = model.tensors[consumer.input]
    removable = constant & _foldable(consumer, source, codes)
    if (constant & ~removable).any():
        lines.append(
            f"{what} {_count(constant & ~removable)} stay: {consumer.name!r} pads with {source.zero_point}, "
            "which is not their constant"
        )
    if removable.all():
        removable[0] = False
        lines.append(f"{what} constant channel 0 stays: a tensor needs at least one channel")
    if not removable.any():
        return model
    folded = _fold(consumer, len(constant), codes * removable)
    if isinstance(folded, str):
        lines.append(f"{what} {_count(removable)} stay: {folded}")
        return model
    place = "bias" if consumer.thresholds is None else "thresholds"
    lines.append(f"{what} {_count(removable)} removed and folded into the {place} of {consumer.name!r}")
    return keep_channels(replace_layers(model, folded), replace(span, consumer=folded), ~removable)


def _foldable(consumer: Layer, source: Tensor, codes: IntArray) -> IntArray:
    """Return for which channels the consumer sees the constant under every tap."""
    exact: IntArray = codes == source.zero_point if any(consumer.padding) else np.ones(len(codes), bool)
    return exact


def _fold(consumer: Layer, channels: int, codes: IntArray) -> Layer | str:
    """Return the consumer with ``codes`` times its weights in its bias, or why that cannot be."""
    taps = input_channels(consumer, channels).sum(axis=2, dtype=np.int64)
    constant = taps @ codes.astype(np.int64)
    if consumer.thresholds is not None:
        # acc + constant >= threshold is acc >= threshold - constant.
        thresholds = consumer.thresholds.astype(np.int64) - constant[:, None]
        if not _fits(thresholds):
            return f"the thresholds of {consumer.name!r} would exceed 32 bits"
        return replace(consumer, thresholds=thresholds.astype(np.int32))
    bias = arrays_of(consumer)[1].astype(np.int64) + constant
    if not _fits(bias):
        return f"the bias of {consumer.name!r} would exceed 32 bits"
    return replace(consumer, bias=bias.astype(np.int32))


def _fits(values: IntArray) -> bool:
    return bool(values.min() >= _INT32.min and values.max() <= _INT32.max)


def _count(channels: IntArray) -> str:
    """Return how many of the channels are set, and which."""
    numbers = np.flatnonzero(channels)
    plural = "s" if len(numbers) > 1 else ""
    return f"{len(numbers)} constant channel{plural} of {len(channels)} ({channel_list(numbers)})"


def _report_stay(model: Model, layer: Layer, lines: list[str]) -> None:
    """Say which channels are constant though nothing can be folded: of the network's output, or of shared tensors."""
    constant, _ = _constants(model, layer)
    if constant.any():
        reason = obstacle(model, layer.name) or "they belong to the network's output"
        lines.append(f"compact_filters: layer {layer.name!r}: {_count(constant)} stay: {reason}")
