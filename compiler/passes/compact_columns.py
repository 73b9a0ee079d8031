"""Remove channels that the next layer does not read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.ir import Layer, Model
from zeroskip.compiler.passes.channels import (
    Span,
    channel_list,
    input_channels,
    keep_channels,
    obstacle,
    source_of,
    span_from,
)

__all__ = ["compact_columns"]

IntArray = NDArray[Any]


def compact_columns(model: Model, report: list[str] | None = None) -> Model:
    """Remove every channel whose weights in the next layer are all pruned, with the filter or row that computes it.

    Runs from the last layer to the first: a row removed here may be the only reader of a channel before it. One channel
    of a tensor that nobody reads stays, and so does what a grouped convolution writes or reads, what several layers, an
    addition or a concatenation read, and what a structure counts.

    Parameters
    ----------
    model : Model
    report : list of str, gets a line for every layer with unread channels
    """
    lines: list[str] = []
    for name in [layer.name for layer in reversed(model.layers)]:
        consumer = model.layer(name)
        source = None if consumer.weight is None else source_of(model, consumer)
        if source is None or source.groups > 1 or consumer.groups > 1:
            continue
        channels = model.tensors[source.output].shape[0]
        read: IntArray = np.asarray(input_channels(consumer, channels).any(axis=(0, 2)))
        if read.all():
            continue
        span = span_from(model, source.name)
        if span is None:
            _report_stay(model, source, consumer, read, lines)
        else:
            model = _compact(model, span, read, lines)
    if report is not None:
        report.extend(lines)
    return model


def _compact(model: Model, span: Span, read: IntArray, lines: list[str]) -> Model:
    """Remove the channels that are not ``read`` between the two layers of ``span``."""
    what, reader = f"compact_columns: layer {span.producer.name!r}:", span.consumer.name
    unread = np.flatnonzero(~read)
    if len(unread) == len(read):
        read[0] = True
        unread = unread[1:]
        lines.append(f"{what} channel 0 stays, though {reader!r} reads none: a tensor needs at least one channel")
    if not len(unread):
        return model
    lines.append(
        f"{what} {len(unread)} of {len(read)} channels ({channel_list(unread)}) removed: {reader!r} does not read them"
    )
    return keep_channels(model, span, read)


def _report_stay(model: Model, source: Layer, consumer: Layer, read: IntArray, lines: list[str]) -> None:
    unread = np.flatnonzero(~read)
    lines.append(
        f"compact_columns: layer {source.name!r}: {len(unread)} of {len(read)} channels ({channel_list(unread)}) stay, "
        f"though {consumer.name!r} does not read them: {obstacle(model, source.name)}"
    )
