"""The operators of TensorFlow Lite, one function each: from an operator of the file to layers, exactly or not at all.

The arithmetic is that of the reference kernels for int8; each function names what it relies on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import tflite

from zeroskip.compiler.argmax import index_tensor
from zeroskip.compiler.importers.tflite.file import ELEMENT_LIMIT, Node, TensorInfo
from zeroskip.compiler.importers.tflite.network import Network, Value, map_shape
from zeroskip.compiler.importers.tflite.scales import ADD_LEFT_SHIFT, add_scales
from zeroskip.compiler.importers.tflite.weighted import convolution, depthwise, fully_connected, mean, rescale
from zeroskip.compiler.importers.tflite.windows import (
    WINDOW_LIMIT,
    Pair,
    activation_clamp,
    append_layer,
    fused_clamp,
    pair_option,
    window_of,
    written_shape,
)
from zeroskip.compiler.ir import Kind, Layer, Rounding, Tensor

__all__ = ["OPERATORS", "Operator", "import_operator"]

_NEAREST = {
    "HARD_SWISH": "RELU6",
    "LEAKY_RELU": "RELU",
    "LOGISTIC": "RELU6, or LOGISTIC left out of the exported model",
    "MUL": "a scale folded into the convolution before it",
    "PRELU": "RELU",
    "RESIZE_NEAREST_NEIGHBOR": "convolutions of stride 1",
    "STRIDED_SLICE": "a convolution with a stride",
    "SUB": "ADD",
    "SUM": "MEAN over height and width",
    "TANH": "RELU6",
    "TRANSPOSE_CONV": "CONV_2D",
    "BATCH_MATMUL": "FULLY_CONNECTED",
    "MIRROR_PAD": "PAD with the zero point",
    "SPLIT": "a convolution with groups",
    "DELEGATE": "a model without delegates",
}


@dataclass(frozen=True)
class Operator:
    """How an operator is imported: its function, its newest known version, the table of options that it needs."""

    convert: Callable[[Network, Node], None]
    version: int
    table: str = ""


def import_operator(network: Network, node: Node) -> None:
    """Add what an operator computes to ``network``.

    Raises
    ------
    InputError
        Naming the operator, why it is refused and the nearest supported form.
    """
    known = OPERATORS.get(node.operator)
    if known is None:
        nearest = _NEAREST.get(node.operator, f"a model of {', '.join(sorted(OPERATORS))}")
        network.refuse(node, "is not supported", nearest)
    if not 1 <= node.version <= known.version:
        network.refuse(node, f"has version {node.version}", f"versions 1 to {known.version}")
    if known.table and node.options.get("table") != getattr(tflite.BuiltinOptions, known.table):
        network.refuse(node, "has options of another operator, or none", f"{node.operator} with {known.table}")
    known.convert(network, node)


def _pooling(network: Network, node: Node) -> None:
    """``MaxPool`` ignores what is beyond the map; ``AveragePool`` divides half away from zero by what is inside."""
    average = node.operator == "AVERAGE_POOL_2D"
    source, value = network.map(node, padded=not average)
    kernel = pair_option(network, node, "FilterHeight", "FilterWidth")
    if math.prod(kernel) > WINDOW_LIMIT:
        network.refuse(node, f"has a window of {kernel}", f"windows of at most {WINDOW_LIMIT} elements")
    stride, padding = window_of(network, node, source, value.border, kernel, (1, 1))
    if average and any(padding):
        network.refuse(node, f"averages fewer elements at the edges (padding {padding})", "padding VALID")
    if any(value.border) and source.zero_point != source.lo:
        network.refuse(node, f"has a PAD of {source.zero_point}, which may be the maximum", "padding SAME")
    target = network.declare(node, map_shape(written_shape(network, node, 4)))
    clamp = fused_clamp(network, node, target)
    if not average:
        codes = _codes(network, source)
        if clamp[0] > codes[0] or clamp[1] < codes[1]:
            network.refuse(node, f"clamps its maxima to {clamp}", "the activation in the layer before it")
        clamp = (target.lo, target.hi)
    kind = Kind.AVG_POOL2D if average else Kind.MAX_POOL2D
    layer = Layer(
        target.name, kind, (source.name,), target.name, kernel=kernel, stride=stride, padding=padding, clamp=clamp
    )
    append_layer(network, node, layer)


def _codes(network: Network, tensor: Tensor) -> Pair:
    """Return the smallest and largest code that a tensor takes by the clamp of the layer that writes it."""
    writer = next((layer for layer in network.layers if layer.output == tensor.name), None)
    if writer is None or writer.kind in (Kind.MAX_POOL2D, Kind.CONCAT):
        return tensor.lo, tensor.hi
    return writer.clamp


def _add(network: Network, node: Node) -> None:
    """``Add``: both inputs shifted left by 20 bits and rescaled, summed, rescaled again."""
    values = [network.value(node, position) for position in (0, 1)]
    shapes = [value.shape for value in values]
    if shapes[0] != shapes[1] or written_shape(network, node, len(shapes[0])) != shapes[0]:
        network.refuse(node, f"adds shapes {shapes[0]} and {shapes[1]}", "inputs of one shape")
    if len(shapes[0]) == 4:
        sources = [network.map(node, position)[0] for position in (0, 1)]
        target = network.declare(node, sources[0].shape)
    else:
        sources = []
        for position in (0, 1):
            tensor, places = network.elements(node, position)
            if not np.array_equal(places, np.arange(tensor.size)) or len(tensor.shape) != 1:
                network.refuse(node, "adds elements that were rearranged", "maps, or vectors as they were computed")
            sources.append(tensor)
        target = network.declare(node, sources[0].shape, np.arange(sources[0].size).reshape(shapes[0]))
    first, second, written = (network.info(node, 0), network.info(node, 1), network.target(node))
    scales = add_scales(first.scales[0], second.scales[0], written.scales[0])
    if scales is None:
        network.refuse(node, "has an output scale too small for its inputs", "scales of similar size")
    layer = Layer(
        target.name,
        Kind.ADD,
        (sources[0].name, sources[1].name),
        target.name,
        multiplier=scales[0],
        shift=scales[1],
        rounding=Rounding.TFLITE_DOUBLE,
        clamp=fused_clamp(network, node, target),
        left_shift=ADD_LEFT_SHIFT,
    )
    append_layer(network, node, layer)


def _concatenation(network: Network, node: Node) -> None:
    """``Concatenation``: codes as they are, along the channels of maps."""
    sources = [network.map(node, position)[0] for position in range(len(node.inputs))]
    shape = written_shape(network, node, 4)
    if len(sources) < 2:
        network.refuse(node, f"joins {len(sources)} tensors", "two or more")
    if node.options["Axis"] not in (3, -1):
        network.refuse(node, f"joins along axis {node.options['Axis']}", "the channels, axis 3")
    if fused_clamp(network, node, sources[0]) != (sources[0].lo, sources[0].hi):
        network.refuse(node, "has a fused activation", "the activation in the layers before it")
    channels = sum(source.shape[0] for source in sources)
    if any(source.shape[1:] != sources[0].shape[1:] for source in sources) or map_shape(shape)[0] != channels:
        network.refuse(node, f"joins {[source.shape for source in sources]} to {shape}", "maps of one size")
    written = network.codes(node, network.target(node))
    for source in sources:
        if source.zero_point != written.zero_points[0] or source.scale != float(written.scales[0]):
            network.refuse(node, f"joins {source.name!r} of another scale or zero point", "one scale for all")
    target = network.declare(node, map_shape(shape))
    names = tuple(source.name for source in sources)
    append_layer(network, node, Layer(target.name, Kind.CONCAT, names, target.name))


def _pad(network: Network, node: Node) -> None:
    """PAD and PADV2: a border of zero points, which becomes the padding of the convolution that reads it."""
    source, value = network.map(node, padded=True)
    pads = network.constant(node, 1, "INT32", "INT64")
    if pads.shape != (4, 2) or pads.min() < 0 or pads.max() > ELEMENT_LIMIT or pads[[0, 3]].any():
        network.refuse(node, f"pads by {pads.ravel()[:8].tolist()}", "height and width only")
    if node.operator == "PADV2":
        code = network.constant(node, 2, "INT8")
        if code.size != 1 or int(code.ravel()[0]) != source.zero_point:
            network.refuse(node, f"pads with codes {code.ravel()[:8].tolist()}", f"the zero point, {source.zero_point}")
    top, left, bottom, right = value.border
    border = (top + int(pads[1, 0]), left + int(pads[2, 0]), bottom + int(pads[1, 1]), right + int(pads[2, 1]))
    written = (1, source.shape[1] + border[0] + border[2], source.shape[2] + border[1] + border[3], source.shape[0])
    if network.target(node).shape != written:
        network.refuse(node, f"pads to {written}, but writes {network.target(node).shape}", "shapes that agree")
    network.pass_on(node, replace(value, border=border), "padding of the layers that read it")


def _reshape(network: Network, node: Node) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: the same elements in the same order under another shape."""
    places, shape = network.places_of(network.value(node)), network.target(node).shape
    if math.prod(shape) != places.size:
        network.refuse(node, f"makes shape {shape} of {places.shape}", "as many elements")
    network.rearrange(node, places.reshape(shape))


def _transpose(network: Network, node: Node) -> None:
    """TRANSPOSE: the same elements in another order."""
    places = network.places_of(network.value(node))
    axes = network.constant(node, 1, "INT32").ravel()
    if sorted(int(axis) for axis in axes) != list(range(places.ndim)):
        network.refuse(node, f"has the permutation {axes[:8].tolist()}", f"one of the {places.ndim} axes")
    network.rearrange(node, places.transpose([int(axis) for axis in axes]))


def _relu(network: Network, node: Node) -> None:
    """``QuantizedReluX``: a clamp of the layer before it, or where scales change a layer of its own."""
    value = network.value(node)
    source, target = network.info(node, 0), network.codes(node, network.target(node))
    readers = sum(index == source.index for other in network.graph.nodes for index in other.inputs)
    writer = next((layer for layer in network.layers if layer.output == value.tensor), None)
    same = (source.scales[0], source.zero_points[0]) == (target.scales[0], target.zero_points[0])
    clamped = writer is not None and writer.kind not in (Kind.MAX_POOL2D, Kind.CONCAT)
    if not same or not clamped or writer is None or readers > 1 or _is_shared(network, value, source):
        rescale(network, node, node.operator)
        return
    limits = activation_clamp(network, node, node.operator, network.tensors[value.tensor])
    clamp = (max(writer.clamp[0], limits[0]), min(writer.clamp[1], limits[1]))
    if clamp[0] > clamp[1]:
        network.refuse(node, f"leaves no code of {writer.clamp}", "an activation that leaves some")
    network.layers[network.layers.index(writer)] = replace(writer, clamp=clamp)
    network.sources[value.tensor] = target.name
    network.pass_on(node, replace(value, shape=target.shape), f"clamp of layer {writer.name!r}")


def _is_shared(network: Network, value: Value, source: TensorInfo) -> bool:
    """Return whether another tensor of the file is the same tensor of ours: a clamp would reach its readers too."""
    others = [index for index, other in network.values.items() if other.tensor == value.tensor]
    return others != [source.index] or network.graph.output == source.index


def _quantize(network: Network, node: Node) -> None:
    """QUANTIZE: at the borders left to the host, in between ``Requantize``."""
    source, target = network.info(node, 0), network.target(node)
    if target.type == "UINT8" and source.type == "INT8":
        _leave_to_host(network, node)
        return
    if source.index == network.graph.input and source.type in ("FLOAT32", "UINT8"):
        if network.input:
            network.refuse(node, "is the second that quantizes the input", "one QUANTIZE behind the input")
        network.codes(node, target)
        network.open_input(target)
        network.note(node, "left to the host, which gives codes")
        return
    value = network.value(node)
    network.codes(node, target)
    if (source.scales[0], source.zero_points[0]) == (target.scales[0], target.zero_points[0]):
        network.pass_on(node, value, "nothing: scale and zero point stay")
    else:
        rescale(network, node, "NONE")


def _leave_to_host(network: Network, node: Node) -> None:
    """SOFTMAX and DEQUANTIZE behind the last layer: the network's output are the codes before them."""
    info = network.info(node, 0)
    value = network.values.get(info.index)
    if value is None:
        value = network.value(node)
    if any(value.border):
        network.refuse(node, f"reads a map with a PAD of {value.border}", "PAD before a convolution or a max pooling")
    network.write(node, replace(value, shape=network.target(node).shape, computed_by_host=True))
    network.note(node, "left to the host, which gets the codes before it")


def _argmax(network: Network, node: Node) -> None:
    """ARG_MAX of a layer's results, the first of equal ones; of what the host computes, the host's."""
    value = network.values.get(network.info(node, 0).index)
    writer = None
    if value is not None and not value.computed_by_host:
        writer = next((layer for layer in network.layers if layer.output == value.tensor), None)
    if value is None or writer is None or not writer.kind.runs or not _along_a_vector(network, node, value):
        _leave_to_host(network, node)
        return
    info = network.target(node)
    target = index_tensor(network.name(info), network.tensors[value.tensor].size)
    network.tensors[target.name] = target
    network.write(node, Value(target.name, info.shape, computed_by_host=True))
    append_layer(network, node, Layer(target.name, Kind.ARGMAX, (value.tensor,), target.name))


def _along_a_vector(network: Network, node: Node, value: Value) -> bool:
    """Whether the axis holds all outputs, in our order."""
    (axis,) = network.constant(node, 1, "INT32", "INT64").ravel()[:1].tolist() or [0]
    rank = len(value.shape)
    if not -rank <= axis < rank or value.shape[axis] != math.prod(value.shape) or any(value.border):
        return False
    places = network.places_of(value).ravel()
    return len(network.tensors[value.tensor].shape) in (1, 3) and np.array_equal(places, np.arange(len(places)))


OPERATORS: Mapping[str, Operator] = {
    "ADD": Operator(_add, 5, "AddOptions"),
    "ARG_MAX": Operator(_argmax, 3),
    "AVERAGE_POOL_2D": Operator(_pooling, 3, "Pool2DOptions"),
    "CONCATENATION": Operator(_concatenation, 4, "ConcatenationOptions"),
    "CONV_2D": Operator(convolution, 8, "Conv2DOptions"),
    "DEPTHWISE_CONV_2D": Operator(depthwise, 7, "DepthwiseConv2DOptions"),
    "DEQUANTIZE": Operator(_leave_to_host, 6),
    "EXPAND_DIMS": Operator(_reshape, 1),
    "FULLY_CONNECTED": Operator(fully_connected, 13, "FullyConnectedOptions"),
    "MAX_POOL_2D": Operator(_pooling, 3, "Pool2DOptions"),
    "MEAN": Operator(mean, 3, "ReducerOptions"),
    "PAD": Operator(_pad, 4),
    "PADV2": Operator(_pad, 4),
    "QUANTIZE": Operator(_quantize, 4),
    "RELU": Operator(_relu, 3),
    "RELU6": Operator(_relu, 3),
    "RELU_N1_TO_1": Operator(_relu, 2),
    "RESHAPE": Operator(_reshape, 1),
    "SOFTMAX": Operator(_leave_to_host, 3),
    "SQUEEZE": Operator(_reshape, 2),
    "TRANSPOSE": Operator(_transpose, 6),
}
"""The operators that are served; an int8 tensor makes the versions from 2 on of most of them."""
