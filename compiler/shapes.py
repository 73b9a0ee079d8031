"""The output shape of a layer, computed from its input shapes and its window."""

from __future__ import annotations

import math

from zeroskip.compiler.argmax import index_shape
from zeroskip.compiler.ir import Kind, Layer

__all__ = ["output_shape", "unpooled_shape", "window_positions"]


def window_positions(size: int, before: int, after: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Return how many positions a window takes along one axis; zero or less when it does not fit once."""
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def unpooled_shape(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the layer's result before a fused pooling, for an input of ``shape``."""
    if layer.kind is Kind.LINEAR:
        return (0 if layer.weight is None else int(layer.weight.shape[0]),)
    if layer.kind is Kind.ADD:
        return shape
    channels, height, width = shape
    top, left, bottom, right = layer.padding
    kernel_y, kernel_x = layer.kernel
    if layer.weight is not None:
        channels = int(layer.weight.shape[0])
        kernel_y, kernel_x = int(layer.weight.shape[2]), int(layer.weight.shape[3])
    return (
        channels,
        window_positions(height, top, bottom, kernel_y, layer.stride[0], layer.dilation[0]),
        window_positions(width, left, right, kernel_x, layer.stride[1], layer.dilation[1]),
    )


def output_shape(layer: Layer, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the layer's output tensor for inputs of ``shapes``, as many as the layer reads."""
    if layer.kind is Kind.CONCAT:
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])
    if layer.kind is Kind.ARGMAX:
        return index_shape(math.prod(shapes[0]))
    result = unpooled_shape(layer, shapes[0])
    if layer.pool is None or len(result) != 3:
        return result
    channels, height, width = result
    return (
        channels,
        window_positions(height, 0, 0, layer.pool.kernel[0], layer.pool.stride[0]),
        window_positions(width, 0, 0, layer.pool.kernel[1], layer.pool.stride[1]),
    )
