"""What several operators share: options, windows and their padding, activations, and the checks of a new layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from zeroskip.compiler.importers.tflite.file import ELEMENT_LIMIT, Node
from zeroskip.compiler.importers.tflite.network import Border, Network
from zeroskip.compiler.importers.tflite.scales import activation_range
from zeroskip.compiler.ir import Layer, Rounding, Tensor
from zeroskip.compiler.reference import row_ranges
from zeroskip.compiler.shapes import output_shape

__all__ = [
    "WINDOW_LIMIT",
    "Pair",
    "activation_clamp",
    "append_layer",
    "fused_clamp",
    "pair_option",
    "window_of",
    "written_shape",
]

Array = NDArray[Any]
Pair = tuple[int, int]

WINDOW_LIMIT = 1 << 14
"""Elements of a pooling window."""
_INT32 = np.iinfo(np.int32)
_ACTIVATIONS = {value: name for name, value in vars(tflite.ActivationFunctionType).items() if isinstance(value, int)}


def append_layer(network: Network, node: Node, layer: Layer) -> None:
    """Add a layer after checking the shape it computes, and that no product leaves the framework's 32 bits."""
    sources, target = [network.tensors[name] for name in layer.inputs], network.tensors[layer.output]
    computed = output_shape(layer, *(source.shape for source in sources))
    if computed != target.shape:
        network.refuse(node, f"computes shape {computed}, but writes {target.shape}", "shapes that fit the window")
    if layer.rounding is Rounding.TFLITE_DOUBLE and layer.bias is not None and layer.shift is not None:
        least, most = row_ranges(layer, sources[0])
        largest = np.maximum(np.abs(least + layer.bias), np.abs(most + layer.bias))
        if (largest << np.maximum(31 - layer.shift.astype(np.int64), 0)).max() > _INT32.max:
            network.refuse(node, "has accumulators that leave 32 bits when scaled", "scales below 1")
    network.layers.append(layer)
    network.note(node, f"layer {layer.name!r}, {layer.kind.value}")


def fused_clamp(network: Network, node: Node, target: Tensor) -> Pair:
    """Return the codes that an operator's fused activation leaves."""
    name = _ACTIVATIONS.get(node.options.get("FusedActivationFunction", 0), "unknown")
    return activation_clamp(network, node, name, target)


def activation_clamp(network: Network, node: Node, activation: str, target: Tensor) -> Pair:
    """Return the codes of ``target`` that an activation leaves."""
    limits = activation_range(activation, np.float32(target.scale), target.zero_point, target.lo, target.hi)
    if limits is None:
        network.refuse(node, f"has fused activation {activation}", "NONE, RELU, RELU_N1_TO_1 or RELU6")
    if limits[0] > limits[1]:
        network.refuse(node, f"has activation {activation} on codes {limits}", "an output whose codes it leaves")
    return limits


def pair_option(network: Network, node: Node, *keys: str) -> Pair:
    """Return two options, height first, that must be at least 1."""
    height, width = (node.options[key] for key in keys)
    if not (1 <= height <= ELEMENT_LIMIT and 1 <= width <= ELEMENT_LIMIT):
        network.refuse(node, f"has {' and '.join(keys)} of {height} and {width}", "counts of at least 1")
    return height, width


def written_shape(network: Network, node: Node, rank: int) -> tuple[int, ...]:
    """Return the shape that an operator writes, of ``rank`` axes."""
    shape = network.target(node).shape
    if len(shape) != rank:
        network.refuse(node, f"writes shape {shape}", f"an output of {rank} axes")
    return shape


def window_of(
    network: Network, node: Node, source: Tensor, border: Border, kernel: Pair, dilation: Pair
) -> tuple[Pair, Border]:
    """Return stride and padding of a window; SAME pads half of what is missing before, the rest behind."""
    stride = pair_option(network, node, "StrideH", "StrideW")
    pads = []
    for axis in (0, 1):
        before, after = border[axis], border[axis + 2]
        if node.options["Padding"] == tflite.Padding.SAME:
            size = source.shape[axis + 1] + before + after
            reach = (kernel[axis] - 1) * dilation[axis] + 1
            total = max(0, (-(-size // stride[axis]) - 1) * stride[axis] + reach - size)
            before, after = before + total // 2, after + total - total // 2
        elif node.options["Padding"] != tflite.Padding.VALID:
            network.refuse(node, f"has padding number {node.options['Padding']}", "SAME or VALID")
        pads.append((before, after))
    channels, height, width = source.shape
    if channels * (height + sum(pads[0])) * (width + sum(pads[1])) > ELEMENT_LIMIT:
        network.refuse(node, f"pads {source.shape} by {pads}", f"at most {ELEMENT_LIMIT} elements")
    return stride, (pads[0][0], pads[1][0], pads[0][1], pads[1][1])
