"""Tiles, tensor layouts and the activation memory map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Kind, Layer, Model
from zeroskip.compiler.program import Storage, TensorLayout
from zeroskip.compiler.target import Engine, Geometry

__all__ = [
    "Access",
    "Tile",
    "access_of",
    "choose_tile",
    "linear_layout",
    "memory_map",
    "raster_layout",
    "windowed_layout",
]


@dataclass(frozen=True)
class Access:
    """How a windowed layer reads its input: input row = ``y * stride + window * step + tap * dilation - padding``.

    ``windows`` is the number of pooled positions ``(y, x)``, ``step`` their distance in the input, ``stride`` the
    distance between output positions, ``span`` the number of distinct ``window * step + tap * dilation`` values.
    """

    stride: tuple[int, int]
    windows: tuple[int, int]
    step: tuple[int, int]
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]

    @property
    def span(self) -> tuple[int, int]:
        """Number of distinct input offsets along y and x."""
        return (
            (self.windows[0] - 1) * self.step[0] + (self.kernel[0] - 1) * self.dilation[0] + 1,
            (self.windows[1] - 1) * self.step[1] + (self.kernel[1] - 1) * self.dilation[1] + 1,
        )


@dataclass(frozen=True)
class Tile:
    """``x * y`` lanes: ``x`` neighbouring output columns by ``y`` output rows; ``pitch`` of the stored input rows.

    The pitch is congruent to ``x`` modulo the lanes, so lane ``l`` of a tile lies in bank ``(base + l) mod lanes`` for
    every tap: a rotation serves all lanes without conflicts.
    """

    x: int
    y: int
    pitch: int


def access_of(layer: Layer) -> Access:
    """Return how ``layer`` (a convolution or a pooling pass) walks its input."""
    padding = (layer.padding[0], layer.padding[1])
    if layer.kind is Kind.CONV2D:
        pool_kernel = layer.pool.kernel if layer.pool else (1, 1)
        pool_stride = layer.pool.stride if layer.pool else (1, 1)
        stride = (layer.stride[0] * pool_stride[0], layer.stride[1] * pool_stride[1])
        return Access(stride, pool_kernel, layer.stride, layer.kernel, layer.dilation, padding)
    if layer.kind is Kind.MAX_POOL2D:
        return Access(layer.stride, layer.kernel, (1, 1), (1, 1), (1, 1), padding)
    if layer.kind is Kind.AVG_POOL2D:
        return Access(layer.stride, (1, 1), (1, 1), layer.kernel, (1, 1), padding)
    raise CompileError(f"Layer {layer.name!r} must be windowed, not {layer.kind.value!r}")


def choose_tile(access: Access, in_shape: Sequence[int], out_shape: Sequence[int], lanes: int) -> Tile:
    """Choose the tile with the fewest tiles, then the least activation memory, then the widest."""
    _, height, width = out_shape
    plane_width = -(-in_shape[2] // access.stride[1])
    best: tuple[tuple[int, int, int], Tile] | None = None
    x = 1
    while x <= lanes:
        y = lanes // x
        pitch = plane_width + (x - plane_width) % lanes
        tiles = -(-width // x) * -(-height // y)
        key = (tiles, pitch, -x)
        if best is None or key < best[0]:
            best = (key, Tile(x, y, pitch))
        x *= 2
    if best is None:
        raise CompileError(f"Tile lanes must be positive, not {lanes!r}")
    return best[1]


def windowed_layout(access: Access, tile: Tile, in_shape: Sequence[int], lanes: int) -> TensorLayout:
    """Lay a tensor out for a windowed consumer: one plane per stride phase, so that strided lanes are neighbours."""
    channels, height, width = in_shape
    stride_y, stride_x = access.stride
    plane = -(-height // stride_y) * tile.pitch
    rows = tuple((y % stride_y) * stride_x * plane + (y // stride_y) * tile.pitch for y in range(height))
    columns = tuple((x % stride_x) * plane + x // stride_x for x in range(width))
    step = -(-(stride_y * stride_x * plane) // lanes) * lanes
    return TensorLayout(Storage.BANKED, 0, channels * step // lanes, step, rows, columns)


def window_offset(access: Access, tile: Tile, in_shape: Sequence[int], axis: int, t: int) -> int:
    """Return the address offset of input coordinate ``stride * position + t`` along ``axis`` (0: y, 1: x)."""
    stride_y, stride_x = access.stride
    plane = -(-in_shape[1] // stride_y) * tile.pitch
    if axis == 0:
        return (t % stride_y) * stride_x * plane + (t // stride_y) * tile.pitch
    return (t % stride_x) * plane + t // stride_x


def raster_layout(shape: Sequence[int], lanes: int) -> TensorLayout:
    """Lay a tensor out in C, H, W order over the banks: what a dense linear layer and the host read."""
    channels, height, width = (*shape, 1, 1)[:3]
    size = channels * height * width
    rows = tuple(y * width for y in range(height))
    return TensorLayout(Storage.BANKED, 0, -(-size // lanes), height * width, rows, tuple(range(width)))


def linear_layout(shape: Sequence[int], geometry: Geometry) -> TensorLayout:
    """Lay a tensor out for a linear consumer: banked for the dense engine, a copy in every bank for the sparse one."""
    raster = raster_layout(shape, geometry.lanes)
    if geometry.engine is Engine.DENSE:
        return raster
    channels, height, width = (*shape, 1, 1)[:3]
    return TensorLayout(
        Storage.REPLICATED, 0, channels * height * width, raster.channel_step, raster.rows, raster.columns
    )


def memory_map(model: Model, layouts: dict[str, TensorLayout]) -> tuple[dict[str, TensorLayout], int]:
    """Place every tensor; return the placed layouts and the bank depth in words.

    In a chain only a layer's input and output live together, so tensors alternate between the two ends of the memory
    and the depth is the largest sum of two neighbours.
    """
    order = [model.input, *(layer.output for layer in model.layers)]
    words = [layouts[name].words for name in order]
    depth = max((a + b for a, b in zip(words, words[1:], strict=False)), default=words[0])
    placed = {}
    for index, name in enumerate(order):
        old = layouts[name]
        base = 0 if index % 2 == 0 else depth - old.words
        placed[name] = TensorLayout(old.storage, base, old.words, old.channel_step, old.rows, old.columns)
    return placed, depth
