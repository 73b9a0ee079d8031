"""Maximum and average pooling, over windows and over whole maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from zeroskip.pruning.capture.reader import Reader, as_list, as_window
from zeroskip.pruning.graph import POOLINGS, Kind, Op

__all__ = ["adaptive", "average", "maximum", "whole_map"]

Arguments = dict[str, Any]


def maximum(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read a max pooling; ``ceil_mode`` becomes padding behind the map."""
    source = a["input"]
    shape = reader.shape(source)[1:]
    if not shape or set(as_list(a["dilation"])) != {1}:
        raise reader.refuse(node, "a max pooling with dilation", "one without dilation")
    kernel = as_window(a["kernel_size"], shape)
    stride = as_window(a["stride"], shape) if a["stride"] else kernel
    padding = (0, as_list(a["padding"])[0]) if len(shape) == 1 else as_window(a["padding"], shape)
    _add(reader, node, source, Kind.MAX_POOL2D, kernel, stride, padding)


def average(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read an average pooling; with padding, whose zeros count, it is a depthwise convolution."""
    source = a["input"]
    shape = reader.shape(source)[1:]
    if not shape or a["ceil_mode"] or a.get("divisor_override") is not None:
        raise reader.refuse(node, "an average pooling with ceil_mode or divisor_override", "AvgPool2d without them")
    kernel = as_window(a["kernel_size"], shape)
    stride = as_window(a["stride"], shape) if a["stride"] else kernel
    if not any(as_list(a["padding"])):
        _add(reader, node, source, Kind.AVG_POOL2D, kernel, stride)
        return
    if not a["count_include_pad"]:
        raise reader.refuse(
            node,
            "an average pooling that divides by the positions inside the map",
            "AvgPool2d with count_include_pad=True",
        )
    y, x = (0, as_list(a["padding"])[0]) if len(shape) == 1 else as_window(a["padding"], shape)
    channels, count = reader.map_shape(source)[0], kernel[0] * kernel[1]
    weight = torch.full((channels, 1, *kernel), 1 / count, dtype=source.meta["val"].dtype)
    name = reader.unique(f"average{1 + len(reader.constants)}")
    reader.add_constant(node, source, name, weight, stride=stride, padding=(y, x, y, x), groups=channels)


def adaptive(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read an adaptive pooling whose windows are all of one size, next to each other."""
    kind = Kind.MAX_POOL2D if "max_pool" in str(node.target) else Kind.AVG_POOL2D
    what = "maximum" if kind is Kind.MAX_POOL2D else "average"
    before = reader.map_shape(a["input"])[1:]
    wanted = as_window(a["output_size"], reader.shape(a["input"])[1:])
    if len(before) != 2 or any(size % out for size, out in zip(before, wanted, strict=True)):
        raise reader.refuse(
            node,
            f"adaptive {what} pooling to {a['output_size']} of a map of {' x '.join(map(str, before))}",
            "an output size that divides the map's, such as 1",
        )
    kernel = before[0] // wanted[0], before[1] // wanted[1]
    _add(reader, node, a["input"], kind, kernel, kernel)


def whole_map(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read a mean or a maximum over all positions of a map."""
    kind = Kind.MAX_POOL2D if "amax" in str(node.target) else Kind.AVG_POOL2D
    shape = reader.shape(a["input"])
    axes = sorted(int(axis) % (len(shape) + 1) for axis in a.get("dim") or [])
    if len(shape) < 2 or axes != list(range(2, len(shape) + 1)):
        what = "maximum" if kind is Kind.MAX_POOL2D else "mean"
        raise reader.refuse(node, f"a {what} over the axes {a.get('dim')}; only all positions of a map are known")
    size = as_window(shape[1:], shape[1:])
    _add(reader, node, a["input"], kind, size, size)


def _add(
    reader: Reader,
    node: fx.Node,
    source: fx.Node,
    kind: Kind,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    before: tuple[int, int] = (0, 0),
) -> None:
    """Add a pooling with ``before`` positions of padding above and left, and behind what its outputs take."""
    number = 1 + sum(op.kind in POOLINGS for op in reader.ops.values())
    name, shape = reader.unique(f"pool{number}"), reader.map_shape(source)
    result = _result_shape(node)
    outs = [1, *result] if len(result) == 1 else list(result) or [1, 1]
    behind = [
        max(0, (out - 1) * s + k - size - pad)
        for out, s, k, size, pad in zip(outs, stride, kernel, shape[1:], before, strict=True)
    ]
    inputs, padding = (reader.made_by[source],), (*before, behind[0], behind[1])
    reader.add(node, Op(name, kind, inputs, shape, (shape[0], *outs), kernel=kernel, stride=stride, padding=padding))
    reader.pool_nodes[name] = node


def _result_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the positions of a pooling's result; adaptive maxima return a pair, and a mean may drop the axes."""
    value = node.meta["val"]
    shape = (value[0] if isinstance(value, (tuple, list)) else value).shape
    return tuple(int(size) for size in shape[2:])
