"""Remove channels that the next layer does not read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.ir import Model
from zeroskip.compiler.passes.channels import channel_list, input_channels, keep_channels, spans

__all__ = ["compact_columns"]

IntArray = NDArray[Any]


def compact_columns(model: Model, report: list[str] | None = None) -> Model:
    """Remove every channel whose weights in the next layer are all pruned, with the filter or row that computes it.

    Runs from the last layer to the first: a row removed here may be the only reader of a channel before it. One channel
    of a tensor that nobody reads stays, and so does what a grouped convolution writes or reads.

    Parameters
    ----------
    model : Model
    report : list of str, gets a line for every layer with unread channels
    """
    lines: list[str] = []
    for span in reversed(list(spans(model))):
        producer, consumer = model.layers[span.producer], model.layers[span.consumer]
        what = f"compact_columns: layer {producer.name!r}:"
        if producer.groups > 1 or consumer.groups > 1:
            continue
        channels = model.tensors[producer.output].shape[0]
        read: IntArray = np.asarray(input_channels(consumer, channels).any(axis=(0, 2)))
        unread = np.flatnonzero(~read)
        if not len(unread):
            continue
        if len(unread) == channels:
            read[0] = True
            unread = unread[1:]
            lines.append(
                f"{what} channel 0 stays, though {consumer.name!r} reads none: a tensor needs at least one channel"
            )
        if len(unread):
            model = keep_channels(model, span, read)
            lines.append(
                f"{what} {len(unread)} of {channels} channels ({channel_list(unread)}) removed: "
                f"{consumer.name!r} does not read them"
            )
    if report is not None:
        report.extend(lines)
    return model
