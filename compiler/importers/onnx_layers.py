"""ONNX operators that become layers: convolutions, matrix products and poolings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.importers.float_functions import Step, usable
from zeroskip.compiler.importers.flows import Constant, Flow, Levels, MaxPool, Product, Stored
from zeroskip.compiler.importers.onnx_context import Context, Value
from zeroskip.compiler.importers.onnx_graph import Node
from zeroskip.compiler.importers.onnx_layout import Layout, channels_first, natural
from zeroskip.compiler.ir import Kind
from zeroskip.compiler.shapes import window_positions

__all__ = ["LAYERS"]

IntArray = NDArray[np.int64]

_FLOAT32_EXACT = 1 << 24
_LEVEL_LIMIT = 256
_WINDOW: dict[str, Any] = {"auto_pad": "NOTSET", "kernel_shape": (), "strides": (), "pads": (), "dilations": ()}


def _convolution(context: Context, node: Node) -> Value:
    values = context.attributes(node, group=1, **_WINDOW)
    flow, stored = context.stored(node, pad=True)
    last = node.domain.endswith("channels_last")
    layout = _first(node, flow.layout, last)
    quantized = _quantized(context, node, 1)
    levels, scales = quantized.levels, quantized.scale
    if levels.ndim != len(layout):
        raise node.refused(f"has weights of shape {levels.shape} for an input of {len(layout)} axes")
    if last:
        levels, scales = np.moveaxis(levels, -1, 1), np.moveaxis(scales, -1, 1)
    if min(levels.shape) < 1:
        raise node.refused(f"has weights of shape {levels.shape}")
    group = values["group"]
    if values["kernel_shape"] not in ((), levels.shape[2:]):
        raise node.refused(f"has kernel {values['kernel_shape']}, but weights of shape {levels.shape}")
    if group < 1 or levels.shape[0] % group or levels.shape[1] * group != flow.shape[0]:
        raise node.refused(f"has {group} groups and weights of shape {levels.shape} for {flow.shape[0]} channels")
    scale = _row_scales(node, scales, levels)
    settings: dict[str, Any] = {}
    if len(flow.shape) == 1:
        if levels.size != levels.shape[0] * levels.shape[1] or group != 1 or any(values["pads"]) or any(flow.pad):
            raise node.refused("is a convolution of a vector; supported are kernels of one element without padding")
        weight = levels.reshape(len(levels), -1)
        shape: tuple[int, ...] = (len(levels),)
    else:
        weight = levels if levels.ndim == 4 else levels[:, :, None]
        settings = _window(node, values, flow, weight.shape[2:], levels.ndim - 2)
        settings["groups"] = group
        shape = (len(weight), *_positions(node, flow.shape, settings))
    kind = Kind.CONV2D if settings else Kind.LINEAR
    product = _product(node, kind, stored, weight, scale, quantized, settings)
    order = {4: "CHW", 3: "CW"}[len(layout)]
    result = Flow(node.outputs[0], product, shape, natural(shape, order[1:] + "C" if last else order))
    return _biased(context, node, result, product, 2)


def _matrix_product(context: Context, node: Node) -> Value:
    context.attributes(node)
    return _linear(context, node, transposed=False)


def _gemm(context: Context, node: Node) -> Value:
    values = context.attributes(node, alpha=1.0, beta=1.0, transA=0, transB=0)
    if (values["alpha"], values["beta"], values["transA"]) != (1.0, 1.0, 0):
        raise node.refused("must have alpha 1, beta 1 and transA 0")
    flow = _linear(context, node, transposed=bool(values["transB"]))
    if not isinstance(flow.source, Product):
        raise TypeError("A matrix product must be a product")
    return _biased(context, node, flow, flow.source, 2)


def _linear(context: Context, node: Node, *, transposed: bool) -> Flow:
    if isinstance(context.operand(node, 0), Constant):
        raise node.refused("has the weights first; supported is activations times weights")
    flow, stored = context.stored(node)
    quantized = _quantized(context, node, 1)
    levels, scales = quantized.levels, quantized.scale
    if levels.ndim != 2 or not levels.size:
        raise node.refused(f"must have a matrix of weights, not shape {levels.shape}")
    if not transposed:
        levels, scales = levels.T, scales.T
    columns, layout = flow.layout[-1], flow.layout
    if levels.shape[1] != context.shape(flow)[-1]:
        raise node.refused(f"has weights for {levels.shape[1]} columns, but its input has {context.shape(flow)[-1]}")
    scale = _row_scales(node, scales, levels)
    rest = "".join(layout[:-1])
    if not rest:
        sizes = dict(zip("CHW", flow.shape, strict=False))
        order = [columns.index(letter) for letter in "CHW" if letter in columns]
        weight = levels.reshape(len(levels), *(sizes[letter] for letter in columns))
        weight = weight.transpose(0, *(1 + axis for axis in order)).reshape(len(levels), -1)
        product = _product(node, Kind.LINEAR, stored, weight, scale, quantized, {})
        shape: tuple[int, ...] = (len(levels),)
    elif columns in ("C", "") and "C" not in rest:
        settings: dict[str, Any] = {
            "kernel": (1, 1),
            "stride": (1, 1),
            "padding": (0, 0, 0, 0),
            "dilation": (1, 1),
            "groups": 1,
        }
        weight = levels[:, :, None, None]
        product = _product(node, Kind.CONV2D, stored, weight, scale, quantized, settings)
        shape = (len(levels), *flow.shape[1:])
    else:
        raise node.refused(
            f"multiplies along axis {columns!r} of layout {layout}; supported are flattened maps, and channels last"
        )
    return Flow(node.outputs[0], product, shape, (*layout[:-1], "C" if len(levels) > 1 else ""))


def _max_pool(context: Context, node: Node) -> Value:
    values = context.attributes(node, ceil_mode=0, storage_order=0, **_WINDOW)
    value = context.computed(node, integer=True)
    last = node.domain.endswith("channels_last")
    layout = _first(node, value.layout, last)
    kernel = _kernel(node, values, len(layout))
    settings = _window(node, values, value, kernel, len(layout) - 2)
    if settings["dilation"] != (1, 1):
        raise node.refused(f"has dilations {settings['dilation']}; supported is 1")
    if values["ceil_mode"]:
        settings["padding"] = _rounded_up(value.shape, settings)
    shape = (value.shape[0], *_positions(node, value.shape, settings))
    pool = MaxPool(node.name, 0, value.shape, settings["kernel"], settings["stride"], settings["padding"])
    name = node.outputs[0]
    if isinstance(value, Flow) and isinstance(value.source, Product) and not value.quantizer and not value.pool:
        return replace(value, name=name, pool=replace(pool, after=len(value.steps)), shape=shape)
    return context.builder.pool(context.builder.store(value, node.name), pool, name, shape)


def _average_pool(context: Context, node: Node) -> Value:
    values = context.attributes(node, ceil_mode=0, count_include_pad=0, **_WINDOW)
    flow, stored = context.stored(node, pad=True)
    layout = _first(node, flow.layout, False)
    kernel = _kernel(node, values, len(layout))
    own = _window(node, values, replace(flow, pad=(0, 0, 0, 0)), kernel, len(layout) - 2)
    settings = _window(node, values, flow, kernel, len(layout) - 2)
    if any(own["padding"]) and not values["count_include_pad"]:
        raise node.refused("divides by the elements inside the map; supported with padding is count_include_pad 1")
    if values["ceil_mode"] and _rounded_up(flow.shape, settings) != settings["padding"]:
        raise node.refused("has windows that reach beyond the map (ceil_mode 1); supported is ceil_mode 0")
    if settings["dilation"] != (1, 1):
        raise node.refused(f"has dilations {settings['dilation']}; supported is 1")
    return _average(context, node, flow, stored, settings)


def _global_average(context: Context, node: Node) -> Value:
    context.attributes(node)
    flow, stored = context.stored(node)
    _first(node, flow.layout, False)
    if len(flow.shape) != 3:
        raise node.refused("must have a map of channels, height and width")
    settings: dict[str, Any] = {"kernel": flow.shape[1:], "stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    return _average(context, node, flow, stored, settings)


def _average(context: Context, node: Node, flow: Flow, stored: Stored, settings: dict[str, Any]) -> Flow:
    """Return the sums over windows, divided by the number of elements, as a depthwise product of ones."""
    channels, count = flow.shape[0], math.prod(settings["kernel"])
    settings["groups"] = channels
    weight = np.ones((channels, 1, *settings["kernel"]), np.int64)
    scale, bias = np.full(channels, stored.scale), np.zeros(channels, np.int64)
    exact = _is_power(scale) and count * max(abs(stored.lo), abs(stored.hi), 1) * 2 < _FLOAT32_EXACT
    product = Product(
        node.name,
        Kind.CONV2D,
        stored,
        weight,
        scale,
        bias,
        1,
        binary=True,
        exact=exact,
        average=count,
        settings=settings,
    )
    divide = Step(node.name, lambda x: x / np.float32(count), np.array(1))
    shape = (channels, *_positions(node, flow.shape, settings))
    kept = "".join(letter for letter, size in zip("CHW", shape, strict=True) if size > 1)
    layout = tuple("".join(letter for letter in letters if letter in kept) for letters in flow.layout)
    return Flow(node.outputs[0], product, shape, layout, steps=(divide,))


def _first(node: Node, layout: Layout, last: bool) -> Layout:
    """Return the layout with the channels in front, checked."""
    moved = (layout[0], layout[-1], *layout[1:-1]) if last else layout
    if len(layout) not in (3, 4) or not channels_first(moved):
        order = "height, width, channels" if last else "channels, height, width"
        raise node.refused(f"reads layout {layout}; it must be batch, {order}")
    return moved


def _kernel(node: Node, values: Mapping[str, Any], rank: int) -> tuple[int, int]:
    kernel = values["kernel_shape"]
    if len(kernel) != rank - 2:
        raise node.refused(f"must have a kernel of {rank - 2} sizes, not {kernel}")
    return (1, kernel[0]) if rank == 3 else (kernel[0], kernel[1])


def _window(node: Node, values: Mapping[str, Any], flow: Any, kernel: Sequence[int], axes: int) -> dict[str, Any]:
    """Return the window settings of a layer; the border of the flow is added to the padding."""

    def pair(name: str) -> tuple[int, int]:
        sizes = values[name] or (1,) * axes
        if len(sizes) != axes or min(sizes) < 1 or max(sizes) > 1 << 16:
            raise node.refused(f"must have {axes} {name} of at least 1, not {sizes}")
        return (1, sizes[0]) if axes == 1 else (sizes[0], sizes[1])

    stride, dilation = pair("strides"), pair("dilations")
    if len(flow.shape) != 3:
        raise node.refused("must have a map of channels, height and width")
    if min(kernel) < 1 or max(kernel) > 1 << 16:
        raise node.refused(f"must have a kernel of at least 1, not {tuple(kernel)}")
    pads = values["pads"] or (0,) * (2 * axes)
    if len(pads) != 2 * axes or min(pads) < 0 or max(pads) > 1 << 16:
        raise node.refused(f"must have {2 * axes} pads of at least 0, not {pads}")
    padding = tuple(pads) if axes == 2 else (0, pads[0], 0, pads[1])
    mode = values["auto_pad"]
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER") or (mode != "NOTSET" and any(pads)):
        raise node.refused(f"has auto_pad {mode!r} and pads {pads}; supported are explicit pads")
    if mode.startswith("SAME"):
        padding = _same(flow.shape, kernel, stride, dilation, mode == "SAME_UPPER")
    top, left, bottom, right = (own + border for own, border in zip(padding, flow.pad, strict=True))
    return {
        "kernel": (int(kernel[0]), int(kernel[1])),
        "stride": stride,
        "padding": (top, left, bottom, right),
        "dilation": dilation,
    }


def _same(
    shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], upper: bool
) -> tuple[int, int, int, int]:
    """Return the padding that keeps ``ceil(size / stride)`` positions; ``upper``: the odd one stands behind."""
    before, after = [], []
    for axis in range(2):
        size = shape[axis + 1]
        window = dilation[axis] * (kernel[axis] - 1) + 1
        total = max((-(-size // stride[axis]) - 1) * stride[axis] + window - size, 0)
        less = total // 2
        before.append(less if upper else total - less)
        after.append(total - before[-1])
    return before[0], before[1], after[0], after[1]


def _rounded_up(shape: Sequence[int], settings: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return the padding with which positions are rounded up; a window must begin inside the map or its padding."""
    top, left, bottom, right = settings["padding"]
    more = []
    for axis, (before, after) in enumerate(((top, bottom), (left, right))):
        size, kernel, stride = shape[axis + 1], settings["kernel"][axis], settings["stride"][axis]
        positions = -(-(size + before + after - kernel) // stride) + 1
        if (positions - 1) * stride >= size + before:
            positions -= 1
        more.append(max(after, (positions - 1) * stride + kernel - size - before))
    return top, left, more[0], more[1]


def _positions(node: Node, shape: Sequence[int], settings: Mapping[str, Any]) -> tuple[int, int]:
    top, left, bottom, right = settings["padding"]
    kernel, stride, dilation = settings["kernel"], settings["stride"], settings["dilation"]
    height = window_positions(shape[1], top, bottom, kernel[0], stride[0], dilation[0])
    width = window_positions(shape[2], left, right, kernel[1], stride[1], dilation[1])
    if min(height, width) < 1:
        raise node.refused(f"has a window of {kernel} that does not fit its input of shape {tuple(shape)}")
    return height, width


def _quantized(context: Context, node: Node, index: int) -> Levels:
    """Return the integers behind the weights; without a quantizer the weights must be integers themselves."""
    value = context.operand(node, index)
    if not isinstance(value, Constant):
        raise node.refused("must have constant weights as its second input")
    if value.quantized is not None:
        return value.quantized
    array = np.asarray(value.array, np.float64)
    if not np.isfinite(array).all() or (array != np.rint(array)).any() or np.abs(array).max(initial=0) > _LEVEL_LIMIT:
        raise node.refused("has float weights that nothing quantizes; put a Quant between the weights and it")
    scale = np.ones((1,) * array.ndim, np.float32)
    return Levels(array.astype(np.int64), scale, 2)


def _row_scales(node: Node, scale: NDArray[np.float32], levels: IntArray) -> NDArray[np.float64]:
    """Return the scale of each output channel, float64."""
    if scale.size != scale.shape[0]:
        same = scale.reshape(scale.shape[0], -1)
        if (same != same[:, :1]).any():
            raise node.refused(f"has weight scales of shape {scale.shape}; they may differ by output channel only")
        scale = same[:, :1]
    rows = np.broadcast_to(scale.reshape(-1), (len(levels),))
    return rows.astype(np.float64)


def _product(
    node: Node,
    kind: Kind,
    stored: Stored,
    weight: IntArray,
    scale: NDArray[np.float64],
    quantized: Levels,
    settings: dict[str, Any],
) -> Product:
    largest = max(abs(stored.lo - stored.zero_point), abs(stored.hi - stored.zero_point))
    bound = int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max()) * largest
    products = scale * stored.scale
    if not (usable(products) and usable(products * max(bound, 1))):
        raise node.refused(
            f"has sums of scales down to {products.min():g} and up to {products.max() * bound:g}, too small or large"
        )
    exact = _is_power(scale) and _is_power(np.array([stored.scale])) and bound < _FLOAT32_EXACT
    return Product(
        node.name,
        kind,
        stored,
        np.ascontiguousarray(weight),
        products,
        np.zeros(len(weight), np.int64),
        quantized.bits,
        quantized.narrow,
        quantized.binary,
        exact=exact,
        settings=settings,
    )


def _is_power(scale: NDArray[np.float64]) -> bool:
    return bool((np.frexp(scale)[0] == 0.5).all())


def _biased(context: Context, node: Node, flow: Flow, product: Product, index: int) -> Flow:
    """Return the flow with its bias: in accumulator units where its scale is theirs, otherwise as a float32 step."""
    value = context.operand(node, index)
    if value is None:
        return flow
    if not isinstance(value, Constant):
        raise node.refused("must have a constant bias")
    channels = len(product.weight)
    if value.array.size not in (1, channels) or not np.isfinite(value.array).all():
        raise node.refused(f"must have a bias of {channels} finite values, not shape {value.array.shape}")
    array = np.broadcast_to(value.array.astype(np.float32).reshape(-1), (channels,))
    if value.quantized is not None:
        scale = np.broadcast_to(value.quantized.scale.reshape(-1), (channels,))
        if np.array_equal(scale, product.scale.astype(np.float32)):
            bias = np.broadcast_to(value.quantized.levels.reshape(-1), (channels,)).astype(np.int64)
            return replace(flow, source=replace(product, bias=bias))
    if not array.any():
        return flow
    term = array[:, None]
    step = Step(node.name, lambda x: x + term, np.array(1))
    return replace(flow, source=replace(product, exact=False), steps=(*flow.steps, step))


LAYERS: Mapping[str, Callable[[Context, Node], Value]] = {
    "AveragePool": _average_pool,
    "Conv": _convolution,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "MatMul": _matrix_product,
    "MaxPool": _max_pool,
}
