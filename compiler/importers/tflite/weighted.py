"""The operators that multiply: convolutions, linear layers, and sums that are rescaled."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from zeroskip.compiler.importers.tflite.file import Node, TensorInfo
from zeroskip.compiler.importers.tflite.network import Network, Value, map_shape
from zeroskip.compiler.importers.tflite.scales import (
    mean_scales,
    product_scales,
    ratio_scales,
    rounded_scales,
    weight_scales,
)
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
from zeroskip.compiler.ir import Grid, Kind, Layer, Rounding, Tensor
from zeroskip.compiler.reference import row_ranges

__all__ = ["convolution", "depthwise", "fully_connected", "mean", "rescale"]

Array = NDArray[Any]

_INT32 = np.iinfo(np.int32)
_BIAS_TOLERANCE = 0.02


def convolution(network: Network, node: Node) -> None:
    """``ConvPerChannel``: weights OHWI, groups where they have fewer channels than the input."""
    source, value = network.map(node, padded=True)
    weight = _weights(network, node, 4)
    channels, inner = source.shape[0], weight.shape[3]
    if channels % inner or weight.shape[0] % (channels // inner):
        network.refuse(
            node, f"has weights {weight.shape} for {channels} channels", "channels that divide into equal groups"
        )
    _windowed(network, node, source, value, weight.transpose(0, 3, 1, 2), channels // inner)


def depthwise(network: Network, node: Node) -> None:
    """``DepthwiseConvPerChannel``: weights 1HWO, output channel ``c * multiplier + m`` of input channel ``c``."""
    source, value = network.map(node, padded=True)
    weight = _weights(network, node, 4)
    channels = source.shape[0]
    multiplier = node.options["DepthMultiplier"]
    if weight.shape[0] != 1 or weight.shape[3] != channels * multiplier:
        network.refuse(
            node,
            f"has weights {weight.shape} and depth multiplier {multiplier} for {channels} channels",
            "weights (1, H, W, channels * multiplier)",
        )
    _windowed(network, node, source, value, weight.transpose(3, 0, 1, 2), channels)


def _windowed(network: Network, node: Node, source: Tensor, value: Value, weight: Array, groups: int) -> None:
    """Add a convolution with weights OIHW."""
    kernel = (weight.shape[2], weight.shape[3])
    dilation = pair_option(network, node, "DilationHFactor", "DilationWFactor")
    stride, padding = window_of(network, node, source, value.border, kernel, dilation)
    axis = 3 if node.operator.startswith("DEPTHWISE") else 0
    target = network.declare(node, map_shape(written_shape(network, node, 4)))
    scales = weight_scales(
        network.info(node, 0).scales[0], network.info(node, 1).scales, network.target(node).scales[0]
    )
    if scales is None:
        network.refuse(node, "has scales whose ratio exceeds 31 bits", "scales of similar size")
    layer = Layer(
        target.name,
        Kind.CONV2D,
        (source.name,),
        target.name,
        multiplier=scales[0],
        shift=scales[1],
        rounding=Rounding.TFLITE_DOUBLE,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        **_parameters(network, node, source, target, weight, axis),
    )
    append_layer(network, node, layer)


def fully_connected(network: Network, node: Node) -> None:
    """``FullyConnected``: weights OI over the input flattened in the file's order; rescaled in double, rounded once.

    Kernels before TensorFlow 2.20 rounded twice, as convolutions do, and differ by 1 in about one of a thousand codes.
    """
    source, places = network.elements(node)
    weight = _weights(network, node, 2)
    if node.options["WeightsFormat"] != tflite.FullyConnectedOptionsWeightsFormat.DEFAULT:
        network.refuse(node, "has shuffled weights", "the default format of weights")
    if weight.shape[1] != source.size:
        network.refuse(node, f"has weights {weight.shape} for {source.size} elements", "a batch of 1")
    ours = np.empty_like(weight)
    ours[:, places] = weight
    rows = len(weight)
    shape = network.target(node).shape
    if math.prod(shape) != rows:
        network.refuse(node, f"has {rows} rows of weights, but writes shape {shape}", "an output of (1, rows)")
    target = network.declare(node, (rows,), None if len(shape) == 2 else np.arange(rows).reshape(shape))
    parameters = _parameters(network, node, source, target, ours, 0)
    layer = Layer(target.name, Kind.LINEAR, (source.name,), target.name, **parameters)
    append_layer(network, node, _rescaled(network, node, layer, source, target))


def _rescaled(network: Network, node: Node, layer: Layer, source: Tensor, target: Tensor) -> Layer:
    """Return a linear layer with multipliers and shifts that round as the framework's doubles do, for every sum."""
    reals = product_scales(
        network.info(node, 0).scales[0], network.info(node, 1).scales, network.target(node).scales[0]
    )
    least, most = (limits + layer.bias for limits in row_ranges(layer, source))
    steps = (layer.clamp[0] - target.zero_point, layer.clamp[1] - target.zero_point)
    pairs = []
    for row, sums in enumerate(zip(least.tolist(), most.tolist(), strict=True)):
        pair = rounded_scales(reals[row if len(reals) > 1 else 0], sums, steps)
        if pair is None:
            network.refuse(
                node, f"has no integer multiplier that rounds like {reals[0]}", "scales whose ratio is 2**-31 to 1"
            )
        pairs.append(pair)
    return replace(
        layer,
        multiplier=np.array([multiplier for multiplier, _ in pairs], np.int32),
        shift=np.array([shift for _, shift in pairs], np.int8),
        rounding=Rounding.TFLITE_SINGLE,
    )


def _weights(network: Network, node: Node, rank: int) -> Array:
    """Return the int8 weights of an operator as they stand in the file."""
    weight = network.constant(node, 1, "INT8")
    if weight.ndim != rank or not weight.size:
        network.refuse(node, f"has weights of shape {weight.shape}", f"weights of {rank} axes")
    return weight


def _parameters(
    network: Network, node: Node, source: Tensor, target: Tensor, weight: Array, axis: int
) -> dict[str, Any]:
    """Return weight, bias and clamp of a layer; ``axis`` is that of the weights' scales in the file."""
    info, rows = network.info(node, 1), len(weight)
    if info.scales.size not in (1, rows) or (info.scales.size > 1 and info.axis != axis):
        network.refuse(
            node, f"has {info.scales.size} weight scales along axis {info.axis}", f"one, or {rows} along axis {axis}"
        )
    if info.zero_points.any():
        network.refuse(node, "has weights with a zero point", "symmetric weights")
    weight = np.ascontiguousarray(weight, np.int16)
    sums = weight.reshape(rows, -1).sum(axis=1, dtype=np.int64)
    bias = _bias(network, node, rows, info) - source.zero_point * sums
    if bias.min() < _INT32.min or bias.max() > _INT32.max:
        network.refuse(node, "has a bias beyond 32 bits", "a bias that int32 accumulators hold")
    return {
        "weight": weight,
        "bias": bias.astype(np.int32),
        "clamp": fused_clamp(network, node, target),
        "grid": Grid.SYMMETRIC if int(weight.min()) > -128 else Grid.SIGNED,
        "structure": {"kind": "dense"},
    }


def _bias(network: Network, node: Node, rows: int, weights: TensorInfo) -> Array:
    """Return the bias, int64, zeros where the operator has none."""
    if len(node.inputs) < 3 or node.inputs[2] < 0:
        return np.zeros(rows, np.int64)
    bias, info = network.constant(node, 2, "INT32"), network.info(node, 2)
    if bias.shape != (rows,):
        network.refuse(node, f"has a bias of shape {bias.shape}", f"a bias of shape ({rows},)")
    if node.operator == "FULLY_CONNECTED" and info.scales.size == weights.scales.size == 1:
        # The framework refuses such files too: the bias would not be in accumulator units.
        product = float(network.info(node, 0).scales[0]) * float(weights.scales[0])
        if abs(product - float(info.scales[0])) > _BIAS_TOLERANCE * float(network.target(node).scales[0]):
            network.refuse(node, f"has a bias of scale {info.scales[0]}", f"the scale of the products, {product}")
    return bias.astype(np.int64)


def mean(network: Network, node: Node) -> None:
    """``QuantizedMeanOrSum``: the sum of all elements of a channel, its count folded into the multiplier."""
    source, _ = network.map(node)
    axes = network.constant(node, 1, "INT32")
    if sorted({int(axis) % 4 for axis in axes.ravel()[:8]}) != [1, 2] or (abs(axes) > 4).any():
        network.refuse(node, f"averages axes {axes.ravel()[:8].tolist()}", "height and width, axes 1 and 2")
    channels, height, width = source.shape
    if height * width > WINDOW_LIMIT:
        network.refuse(node, f"averages {height} x {width} elements", f"at most {WINDOW_LIMIT}")
    shape = network.target(node).shape
    if math.prod(shape) != channels or shape not in ((1, 1, 1, channels), (1, channels)):
        network.refuse(node, f"writes shape {shape}", f"(1, 1, 1, {channels}) or (1, {channels})")
    target = network.declare(node, (channels, 1, 1), None if len(shape) == 4 else np.arange(channels)[None])
    scales = mean_scales(network.info(node, 0).scales[0], network.target(node).scales[0], height * width)
    if scales is None:
        network.refuse(node, "has scales whose ratio exceeds 31 bits", "scales of similar size")
    append_layer(network, node, _sums(source, target, (height, width), scales, (target.lo, target.hi)))


def _sums(source: Tensor, target: Tensor, kernel: Pair, scales: tuple[Array, Array], clamp: Pair) -> Layer:
    """Return a depthwise convolution that adds up its window, less the zero points, and rescales the sum."""
    channels = source.shape[0]
    return Layer(
        target.name,
        Kind.CONV2D,
        (source.name,),
        target.name,
        weight=np.ones((channels, 1, *kernel), np.int16),
        bias=np.full(channels, -source.zero_point * math.prod(kernel), np.int32),
        multiplier=scales[0],
        shift=scales[1],
        rounding=Rounding.TFLITE_DOUBLE,
        clamp=clamp,
        weight_bits=2,
        grid=Grid.SYMMETRIC,
        structure={"kind": "dense"},
        kernel=kernel,
        groups=channels,
    )


def rescale(network: Network, node: Node, activation: str) -> None:
    """Add a depthwise convolution of one tap that takes codes to another scale and zero point."""
    source, _ = network.map(node)
    target = network.declare(node, map_shape(written_shape(network, node, 4)))
    # An activation divides its scales as floats, a change of scale as doubles.
    ends = network.info(node, 0).scales[0], network.target(node).scales[0]
    scales = ratio_scales(*ends, single=activation != "NONE")
    if scales is None:
        network.refuse(node, "has scales whose ratio exceeds 31 bits", "scales of similar size")
    clamp = activation_clamp(network, node, activation, target)
    append_layer(network, node, _sums(source, target, (1, 1), scales, clamp))
