"""ONNX's own operators: windows, products, element-wise functions and layouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.importers.float_functions import Quantizer, Step
from zeroskip.compiler.importers.flows import Constant, Flow, Joined, Stored, Sum
from zeroskip.compiler.importers.onnx_context import Context, Value
from zeroskip.compiler.importers.onnx_graph import Node
from zeroskip.compiler.importers.onnx_layout import reshaped

__all__ = ["OPERATORS", "input_layout"]

FloatArray = NDArray[np.float32]

ONE = np.float32(1)
SOFTMAX_STEP = 2.0**-20
"""Distance of two values that are still two behind a softmax in float32."""


def _binary(symbol: str) -> Callable[[Context, Node], Value]:
    def apply(context: Context, node: Node) -> Value:
        context.attributes(node)
        left, right = context.operand(node, 0), context.operand(node, 1)
        if isinstance(left, Constant):
            if symbol == "add" or symbol == "mul":
                return _by_constant(context, node, context.computed(node, 1), left.array, symbol)
            if symbol == "sub":
                return _by_constant(context, node, context.computed(node, 1), left.array, "from")
            raise node.refused("divides a constant by a computed tensor; supported is a constant divisor")
        if isinstance(right, Constant):
            return _by_constant(context, node, context.computed(node, 0), right.array, symbol)
        if symbol != "add":
            raise node.refused("computes with two activations; supported is Add, or a constant on one side")
        return _addition(context, node)

    return apply


def _by_constant(context: Context, node: Node, value: Flow | Joined, array: NDArray[Any], symbol: str) -> Value:
    numbers = context.channel_values(node, value, array)
    sign = np.sign(numbers).astype(np.int64)
    if symbol == "div" and not sign.all():
        raise node.refused("divides by zero")

    def make(channels: slice) -> Step:
        c = numbers[channels] if numbers.ndim else numbers
        direction = (sign[channels] if sign.ndim else sign).reshape(-1 if sign.ndim else ())
        ones = np.ones_like(direction)
        single = float(c) if not c.ndim and c > 0 else None
        steps: dict[str, Step] = {
            "add": Step(node.name, lambda x: x + c, ones),
            "sub": Step(node.name, lambda x: x - c, ones),
            "from": Step(node.name, lambda x: c - x, -ones),
            "mul": Step(node.name, lambda x: x * c, direction, single),
            "div": Step(node.name, lambda x: x / c, direction, None if single is None else 1.0 / single),
        }
        return steps[symbol]

    return context.elementwise(node, value, make)


def _addition(context: Context, node: Node) -> Value:
    (first, one), (second, two) = (context.stored(node, index) for index in range(2))
    if first.shape != second.shape or first.layout != second.layout:
        raise node.refused(
            f"adds tensors of shapes {context.shape(first)} and {context.shape(second)}; both must have one shape"
        )
    return Flow(node.outputs[0], Sum(node.name, one, two), first.shape, first.layout)


def _relu(context: Context, node: Node) -> Value:
    context.attributes(node)
    return _clipped(context, node, np.float32(0), np.float32(np.inf))


def _clip(context: Context, node: Node) -> Value:
    values = context.attributes(node, min=float("-inf"), max=float("inf"))
    limits = [
        np.float32(context.constant(node, index, values[name]).ravel()[:1].sum())
        for index, name in ((1, "min"), (2, "max"))
    ]
    if np.isnan(limits).any() or limits[0] > limits[1]:
        raise node.refused(f"must have limits in ascending order, not {limits[0]} and {limits[1]}")
    return _clipped(context, node, limits[0], limits[1])


def _clipped(context: Context, node: Node, lowest: np.float32, highest: np.float32) -> Value:
    """Return a limited tensor; limits that are values of the codes limit the codes and leave them codes."""
    value = context.computed(node)
    limited = [_limited(context, part, lowest, highest) for part in _parts(value)]
    if all(part is not None for part in limited):
        name = node.outputs[0]
        context.builder.made.setdefault(node.name, "a limit of codes")
        if isinstance(value, Flow):
            return replace(limited[0] or value, name=name, label=name)
        parts = tuple(
            replace(part, name=f"{name}.{number}", label=f"{name}.{number}")
            for number, part in enumerate(limited)
            if part
        )
        return replace(value, name=name, parts=parts)
    clip = Step(node.name, lambda x: np.clip(x, lowest, highest), np.array(1))
    return context.elementwise(node, value, lambda _: clip)


def _parts(value: Flow | Joined) -> tuple[Flow, ...]:
    return value.parts if isinstance(value, Joined) else (value,)


def _limited(context: Context, flow: Flow, lowest: np.float32, highest: np.float32) -> Flow | None:
    """Return the flow with fewer codes; None where a limit is none of its values, or it has no codes."""
    if flow.quantizer is not None and context.readers[flow.name] > 1:
        flow = context.builder.store(flow, flow.name)
    quantizer, source = flow.quantizer, flow.source
    if quantizer is None and isinstance(source, Stored) and not flow.steps:
        quantizer = _same_codes(context, source)
    if quantizer is None or not quantizer.bits or flow.factors:
        return None
    codes = np.arange(quantizer.lo, quantizer.hi + 1)
    values = quantizer.values(codes)
    kept = codes[(values >= lowest) & (values <= highest)]
    between = [limit for limit in (lowest, highest) if values[0] < limit < values[-1]]
    if not len(kept) or not np.isin(between, values).all():
        return None
    return replace(flow, quantizer=replace(quantizer, lo=int(kept[0]), hi=int(kept[-1])))


def _same_codes(context: Context, source: Stored) -> Quantizer:
    """Return the quantizer that gives stored codes again."""
    tensor, scale = context.builder.tensors[source.tensor], np.float32(source.scale)

    def function(x: FloatArray) -> NDArray[Any]:
        return np.asarray(np.rint(x / scale) + source.zero_point)

    return Quantizer(
        source.tensor, function, scale, source.zero_point, source.lo, source.hi, tensor.bits, tensor.signed
    )


def _negative(context: Context, node: Node) -> Value:
    context.attributes(node)
    step = Step(node.name, lambda x: -x, np.array(-1))
    return context.elementwise(node, context.computed(node), lambda _: step)


def _batch_normalization(context: Context, node: Node) -> Value:
    values = context.attributes(node, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1)
    if values["training_mode"] or values["spatial"] != 1 or len(node.outputs) > 1:
        raise node.refused("normalizes over the batch; export the network in evaluation mode")
    value = context.computed(node)
    last = node.domain.endswith("channels_last")
    axis = len(value.layout) - 1 if last else 1
    if axis >= len(value.layout) or value.layout[axis] not in ("C", ""):
        raise node.refused(f"must have the channels on axis {axis}, but that holds {value.layout[axis] or 'nothing'!r}")
    gamma, beta, mean, variance = (context.constant(node, index).astype(np.float32) for index in range(1, 5))
    channels = value.shape[0]
    for array in (gamma, beta, mean, variance):
        if array.shape != (channels,) or not np.isfinite(array).all():
            raise node.refused(f"must have {channels} finite parameters each, not {array.shape}")
    # as ONNX Runtime computes it
    with np.errstate(all="ignore"):
        scale = (ONE / np.sqrt(variance + np.float32(values["epsilon"]))) * gamma
        offset = beta - mean * scale
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        raise node.refused("has a variance that is not above 0")

    def make(part: slice) -> Step:
        factor, term = scale[part, None], offset[part, None]
        return Step(node.name, lambda x: x * factor + term, np.sign(scale[part]).astype(np.int64))

    return context.elementwise(node, value, make)


def _concat(context: Context, node: Node) -> Value:
    axis = context.attributes(node, axis=1)["axis"]
    parts = [context.computed(node, index, integer=True) for index in range(len(node.inputs))]
    rank = len(parts[0].layout)
    axis = axis + rank if axis < 0 else axis
    flat: list[Flow] = []
    for part in parts:
        here = part.layout[axis] if 0 < axis < len(part.layout) else "-"
        if here not in ("C", "") or "C" in "".join(part.layout).replace(here, "", 1) or len(part.layout) != rank:
            raise node.refused(f"joins along axis {axis}; supported are the channels")
        if part.shape[1:] != parts[0].shape[1:] or part.integer != parts[0].integer:
            raise node.refused(f"joins maps of sizes {parts[0].shape} and {part.shape}; they must be equal")
        flat += part.parts if isinstance(part, Joined) else [part]
    channels = sum(part.shape[0] for part in flat)
    others = max((part.layout for part in parts), key=lambda layout: sum(map(len, layout)))
    layout = tuple("C" if index == axis else letters for index, letters in enumerate(others))
    if len(flat) == 1:
        return replace(parts[0], name=node.outputs[0])
    shape = (channels, *parts[0].shape[1:])
    return Joined(node.outputs[0], node.name, tuple(flat), shape, layout, parts[0].integer)


def _identity(context: Context, node: Node) -> Value:
    context.attributes(node, ratio=0.5, seed=0)
    if any(node.outputs[1:]):
        raise node.refused("has a second output; export the network in evaluation mode")
    training = context.operand(node, 2)
    if training is not None and not (isinstance(training, Constant) and not training.array.any()):
        raise node.refused("is in training mode; export the network in evaluation mode")
    value = context.computed(node, pad=True, integer=True)
    return context.relayout(node, value, value.layout)


def _reshape(context: Context, node: Node) -> Value:
    values = context.attributes(node, allowzero=0)
    value = context.computed(node, integer=True)
    shape = context.shape(value)
    target = list(context.integers(node, 1))
    if not values["allowzero"]:
        target = [shape[i] if size == 0 and i < len(shape) else size for i, size in enumerate(target)]
    known = math.prod(size for size in target if size != -1)
    if target.count(-1) == 1 and known > 0:
        target[target.index(-1)] = math.prod(shape) // known
    return _reshaped(context, node, value, target)


def _reshaped(context: Context, node: Node, value: Flow | Joined, target: list[int]) -> Value:
    layout = None if min(target, default=0) < 1 else reshaped(value.layout, value.shape, target)
    if layout is None:
        raise node.refused(
            f"reshapes {context.shape(value)} to {tuple(target)}, which cuts an axis of the map; supported are "
            "flattening, and axes of size 1"
        )
    return context.relayout(node, value, layout)


def _flatten(context: Context, node: Node) -> Value:
    axis = context.attributes(node, axis=1)["axis"]
    value = context.computed(node, integer=True)
    shape = context.shape(value)
    axis = axis + len(shape) if axis < 0 else axis
    return _reshaped(context, node, value, [math.prod(shape[:axis]), math.prod(shape[axis:])])


def _axes(context: Context, node: Node) -> list[int]:
    axes = context.attributes(node, axes=())["axes"]
    return list(context.integers(node, 1) if len(node.inputs) > 1 and node.inputs[1] else axes)


def _squeeze(context: Context, node: Node) -> Value:
    value = context.computed(node, integer=True)
    shape = context.shape(value)
    axes = {axis % len(shape) for axis in _axes(context, node)} or {i for i, size in enumerate(shape) if size == 1}
    if any(shape[axis] != 1 for axis in axes):
        raise node.refused(f"removes axes {sorted(axes)} of shape {shape}; their size must be 1")
    return _reshaped(context, node, value, [size for index, size in enumerate(shape) if index not in axes])


def _unsqueeze(context: Context, node: Node) -> Value:
    value = context.computed(node, integer=True)
    target = list(context.shape(value))
    rank = len(target) + len(_axes(context, node))
    for axis in sorted(axis % rank for axis in _axes(context, node)):
        target.insert(axis, 1)
    return _reshaped(context, node, value, target)


def _transpose(context: Context, node: Node) -> Value:
    value = context.computed(node, integer=True)
    rank = len(value.layout)
    order = context.attributes(node, perm=tuple(reversed(range(rank))))["perm"]
    if sorted(order) != list(range(rank)):
        raise node.refused(f"must have a permutation of {rank} axes, not {order}")
    return context.relayout(node, value, tuple(value.layout[axis] for axis in order))


def _pad(context: Context, node: Node) -> Value:
    values = context.attributes(node, mode="constant", pads=(), value=0.0)
    value = context.computed(node)
    pads = context.integers(node, 1) if len(node.inputs) > 1 else values["pads"]
    fill = context.constant(node, 2, values["value"])
    rank = len(value.layout)
    if values["mode"] != "constant" or np.any(fill) or context.operand(node, 3) is not None:
        raise node.refused(f"pads with mode {values['mode']!r} and value {fill}; supported is a constant 0")
    if len(pads) != 2 * rank or min(pads) < 0:
        raise node.refused(f"must have {2 * rank} paddings of at least 0, not {pads}")
    sizes = {letters: (pads[i], pads[i + rank]) for i, letters in enumerate(value.layout)}
    outside = [i for i, letters in enumerate(value.layout) if letters not in ("H", "W") and (pads[i] or pads[i + rank])]
    if outside or len(value.shape) != 3:
        raise node.refused(f"pads axes {outside} of layout {value.layout}; supported are height and width")
    (top, bottom), (left, right) = sizes.get("H", (0, 0)), sizes.get("W", (0, 0))
    context.served(node, "padding of the layers behind it")
    return replace(value, name=node.outputs[0], pad=(top, left, bottom, right))


def _softmax(context: Context, node: Node) -> Value:
    """Leave a last operation that keeps the order of the outputs to the host; before an ArgMax it is not needed."""
    axis = context.attributes(node, axis=-1 if context.graph.opset >= 13 else 1)["axis"]
    readers = [other.op for other in context.graph.nodes if node.outputs[0] in other.inputs]
    last = node.outputs[0] == context.graph.output
    if not last and readers != ["ArgMax"]:
        raise node.refused("is served at the end of the network only, where the host computes it")
    value = context.computed(node)
    _check_vector(node, value, axis)
    if last:
        context.host.append(node)
        context.served(node, "left to the host: the output is what it reads")
        return value
    if not _far_apart(value):
        raise node.refused("may make different outputs equal before an ArgMax; supported is the ArgMax without it")
    context.served(node, "nothing: the number of the largest is the same without it")
    return value


def _far_apart(value: Flow | Joined) -> bool:
    """Whether a float32 softmax keeps different values different: it rounds them by some parts in 2**23."""
    if not isinstance(value, Flow) or value.factors:
        return False
    if value.quantizer is not None:
        return float(value.quantizer.scale) >= SOFTMAX_STEP
    return isinstance(value.source, Stored) and not value.steps and value.source.scale >= SOFTMAX_STEP


def _argmax(context: Context, node: Node) -> Value:
    """Keep the number of the largest output; the hardware finds it."""
    values = context.attributes(node, axis=0, keepdims=1, select_last_index=0)
    if node.outputs[0] != context.graph.output:
        raise node.refused("is served at the end of the network only")
    value = context.computed(node)
    _check_vector(node, value, values["axis"])
    if values["select_last_index"]:
        raise node.refused("takes the last of equal outputs; here the first one counts")
    context.argmax = node
    return value


def _check_vector(node: Node, value: Flow | Joined, axis: int) -> None:
    axis = axis + len(value.layout) if axis < 0 else axis
    vector = value.shape[0] == math.prod(value.shape)
    # an axis of one element is in no layout
    if not 0 < axis < len(value.layout) or not vector or value.layout[axis] != ("C" if value.shape[0] > 1 else ""):
        raise node.refused("must work along all outputs of a vector")


def input_layout(rank: int, channels_last: bool) -> str:
    """Return the axes of an input of ``rank`` behind the batch, in their order."""
    orders = {2: ("C", "C"), 3: ("CW", "WC"), 4: ("CHW", "HWC")}[rank]
    return orders[int(channels_last)]


OPERATORS: Mapping[str, Callable[[Context, Node], Value]] = {
    "Add": _binary("add"),
    "ArgMax": _argmax,
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Concat": _concat,
    "Div": _binary("div"),
    "Dropout": _identity,
    "Flatten": _flatten,
    "Identity": _identity,
    "LogSoftmax": _softmax,
    "Mul": _binary("mul"),
    "Neg": _negative,
    "Pad": _pad,
    "Relu": _relu,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _binary("sub"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
