"""Tiles, tensor layouts and the activation memory map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Kind, Layer, Model
from zeroskip.compiler.program import Storage, TensorLayout

__all__ = [
    "Access",
    "Plane",
    "Tile",
    "access_of",
    "banked_layout",
    "choose_plane",
    "choose_tile",
    "memory_map",
    "output_layout",
    "part_offsets",
    "plane_layout",
    "replicated_layout",
    "tile_count",
    "tile_of_positions",
    "tile_positions",
    "window_offset",
]

BLOCK_WORDS = 512
"""Granule of the activation memory: no block RAM is shallower at a byte a word."""


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
class Plane:
    """How maps are stored for consumers of one ``stride``: a plane a stride phase, rows ``pitch`` apart.

    ``spare`` words behind each phase move the phases apart, to other banks.
    """

    stride: tuple[int, int]
    pitch: int
    spare: int = 0


@dataclass(frozen=True)
class Tile:
    """The output positions that the lanes work on at once.

    2-D: ``x`` neighbouring columns by ``y`` rows; the pitch of the stored input rows is congruent to ``x`` modulo the
    lanes. Flat: consecutive positions in raster order (``x`` is the number of lanes); the pitch equals the output's
    width. Either way lane ``l`` lies in bank ``(base + l) mod lanes`` for every tap: a rotation serves all lanes.
    """

    x: int
    y: int
    pitch: int
    flat: bool = False


def access_of(layer: Layer) -> Access:
    """Return how ``layer`` (a convolution, a pooling or an elementwise pass) walks its input."""
    padding = (layer.padding[0], layer.padding[1])
    if layer.kind is Kind.CONV2D:
        pool_kernel = layer.pool.kernel if layer.pool else (1, 1)
        pool_stride = layer.pool.stride if layer.pool else (1, 1)
        stride = (layer.stride[0] * pool_stride[0], layer.stride[1] * pool_stride[1])
        return Access(stride, pool_kernel, layer.stride, layer.kernel, layer.dilation, padding)
    if layer.kind is Kind.MAX_POOL2D:
        return Access(layer.stride, layer.kernel, (1, 1), (1, 1), (1, 1), padding)
    if layer.kind is Kind.ADD:
        return Access((1, 1), (1, 1), (1, 1), (1, 1), (1, 1), (0, 0))
    if layer.kind is Kind.AVG_POOL2D:
        return Access(layer.stride, (1, 1), (1, 1), layer.kernel, (1, 1), padding)
    raise CompileError(f"Layer {layer.name!r} must be windowed, not {layer.kind.value!r}")


def choose_plane(
    consumers: Sequence[tuple[Access, tuple[int, ...], int]], in_shape: Sequence[int], lanes: int, results: int = 1
) -> Plane | None:
    """Choose the pitch at which all consumers together need the fewest cycles.

    Of these the one whose results of a cycle are neighbours in a row, since a vector takes them at once, then the least
    memory.

    Parameters
    ----------
    consumers : access, output shape and slots a tile of every layer that reads the tensor
    in_shape : of the tensor
    lanes, results : of the array

    Returns
    -------
    Plane, or None when consumers differ in stride and the tensor must be stored more than once
    """
    strides = {access.stride for access, _, _ in consumers}
    if len(strides) != 1:
        return None
    stride = strides.pop()
    width = -(-in_shape[2] // stride[1])
    candidates = {width + ((1 << bit) - width) % lanes for bit in range(lanes.bit_length())}
    candidates.update(shape[2] for _, shape, _ in consumers if shape[2] >= width)
    best: tuple[tuple[int, int, int], Plane] | None = None
    for pitch in sorted(candidates):
        tiles = [choose_tile(shape, pitch, lanes) for _, shape, _ in consumers]
        if any(tile is None for tile in tiles):
            continue
        cost = sum(
            tile_count(tile, shape, lanes) * slots
            for tile, (_, shape, slots) in zip(tiles, consumers, strict=True)
            if tile is not None
        )
        narrow = sum(tile.x < results for tile in tiles if tile is not None)
        if best is None or (cost, narrow, pitch) < best[0]:
            best = ((cost, narrow, pitch), Plane(stride, pitch))
    return None if best is None else best[1]


def choose_tile(out_shape: Sequence[int], pitch: int, lanes: int) -> Tile | None:
    """Return the tile with the fewest tiles that a stored ``pitch`` allows, None when it allows none."""
    options = []
    if pitch == out_shape[2]:
        options.append(Tile(lanes, 1, pitch, flat=True))
    residue = pitch % lanes or lanes
    if residue & (residue - 1) == 0:
        options.append(Tile(residue, lanes // residue, pitch))
    if not options:
        return None
    return min(options, key=lambda tile: (tile_count(tile, out_shape, lanes), tile.flat))


def tile_count(tile: Tile, out_shape: Sequence[int], lanes: int) -> int:
    """Return how many tiles cover a map."""
    _, height, width = out_shape
    if tile.flat:
        return -(-height * width // lanes)
    return -(-width // tile.x) * -(-height // tile.y)


def tile_positions(tile: Tile, out_shape: Sequence[int], lanes: int) -> NDArray[np.int64]:
    """Return the output position ``(y, x)`` of every lane of every tile, shape ``(tiles, lanes, 2)``; -1 outside."""
    _, height, width = out_shape
    lane = np.arange(lanes)
    if tile.flat:
        index = np.arange(-(-height * width // lanes))[:, None] * lanes + lane
        y, x = index // width, index % width
    else:
        tiles_x, tiles_y = -(-width // tile.x), -(-height // tile.y)
        first_y, first_x = np.divmod(np.arange(tiles_x * tiles_y), tiles_x)
        y = (first_y * tile.y)[:, None] + lane // tile.x
        x = (first_x * tile.x)[:, None] + lane % tile.x
    outside = (y >= height) | (x >= width)
    return np.stack([np.where(outside, -1, y), np.where(outside, -1, x)], axis=-1)


def tile_of_positions(tile: Tile, out_shape: Sequence[int], lanes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return tile and lane of every output position in raster order, the inverse of :func:`tile_positions`."""
    _, height, width = out_shape
    index = np.arange(height * width)
    if tile.flat:
        return index // lanes, index % lanes
    y, x = np.divmod(index, width)
    number = y // tile.y * -(-width // tile.x) + x // tile.x
    return number, y % tile.y * tile.x + x % tile.x


def plane_layout(plane: Plane, shape: Sequence[int], lanes: int) -> TensorLayout:
    """Lay a tensor out for windowed consumers: one plane a stride phase, so that strided lanes are neighbours."""
    channels, height, width = shape
    stride_y, stride_x = plane.stride
    size = _plane_size(plane, shape)
    rows = tuple((y % stride_y) * stride_x * size + (y // stride_y) * plane.pitch for y in range(height))
    columns = tuple((x % stride_x) * size + x // stride_x for x in range(width))
    step = -(-(stride_y * stride_x * size) // lanes) * lanes
    return TensorLayout(Storage.BANKED, 0, channels * step // lanes, step, rows, columns)


def _plane_size(plane: Plane, shape: Sequence[int]) -> int:
    return -(-shape[1] // plane.stride[0]) * plane.pitch + plane.spare


def window_offset(plane: Plane, in_shape: Sequence[int], axis: int, t: int) -> int:
    """Return the address offset of input coordinate ``stride * position + t`` along ``axis`` (0: y, 1: x)."""
    stride_y, stride_x = plane.stride
    size = _plane_size(plane, in_shape)
    if axis == 0:
        return (t % stride_y) * stride_x * size + (t // stride_y) * plane.pitch
    return (t % stride_x) * size + t // stride_x


def output_layout(shape: Sequence[int]) -> TensorLayout:
    """Lay the network's output out in C, H, W order, as the host reads it, in a memory of its own."""
    channels, height, width = (*shape, 1, 1)[:3]
    rows = tuple(y * width for y in range(height))
    return TensorLayout(Storage.OUTPUT, 0, channels * height * width, height * width, rows, tuple(range(width)))


def replicated_layout(shape: Sequence[int]) -> TensorLayout:
    """Lay a tensor out for a linear consumer: C, H, W order, a copy in every bank."""
    return replace(output_layout(shape), storage=Storage.REPLICATED)


def banked_layout(shape: Sequence[int], lanes: int) -> TensorLayout:
    """Lay a tensor out for a linear consumer whose lanes share each row: C, H, W order, spread over the banks."""
    layout = output_layout(shape)
    return replace(layout, storage=Storage.BANKED, words=-(-layout.words // lanes))


def memory_map(
    model: Model, layouts: Mapping[str, TensorLayout], lanes: int, granule: int = 1
) -> tuple[dict[str, TensorLayout], int, int]:
    """Place every tensor; return the placed layouts, the bank depth in words and the layer that releases the input.

    Tensors begin at multiples of ``granule`` words. A tensor lives from the layer that writes it to the last layer that
    reads it; first fit, the largest first. The input keeps its place for itself when that costs no block RAM: then the
    next input is loaded while the layers run.

    Raises
    ------
    CompileError
        If a layer reads a part of a concatenation that does not begin in the first bank.
    """
    order = [layer for layer in model.layers if layer.kind.runs]
    last = len(order) - 1
    views = _views(model)
    live: dict[str, tuple[int, int]] = {}
    for index, layer in [(-1, None), *enumerate(order)]:
        names = (model.input,) if layer is None else (*layer.inputs, layer.output)
        for name in names:
            root = views.get(name, (name, 0))[0]
            if layouts[root].storage is not Storage.OUTPUT:
                born, dies = live.get(root, (index, index))
                live[root] = (min(born, index), max(dies, index))
    # a network that begins with a concatenation keeps its input inside another tensor
    held = views.get(model.input, (model.input, 0))[0]
    words = {name: -(-layout.words // granule) * granule for name, layout in layouts.items()}
    shared, depth = _place(live, words)
    alone, alone_depth = _place({**live, held: (-1, last)}, words)
    if -(-alone_depth // BLOCK_WORDS) <= -(-depth // BLOCK_WORDS):
        bases, depth, release = alone, alone_depth, live[held][1]
    else:
        bases, release = shared, last
    placed = {}
    for name, layout in layouts.items():
        root, channel = views.get(name, (name, 0))
        first, within = channel * layout.channel_step, 0
        if layout.storage is Storage.BANKED:
            # a part of a vector over the banks may begin within a word
            first, within = divmod(first, lanes)
        reader = next((layer for layer in order if name in layer.inputs), None)
        if within and reader is not None:
            raise CompileError(
                f"Layer {reader.name!r} reads tensor {name!r}, which begins in bank {within} as a part of {root!r}, "
                "but vectors over the banks are read from the first bank on; leave out --set banked_vectors=1"
            )
        rows = tuple(row + within for row in layout.rows)
        placed[name] = replace(layout, base=bases.get(root, 0) + first, rows=rows)
    return placed, max(depth, granule), release


def part_offsets(model: Model) -> dict[str, int]:
    """Return where each tensor begins in the concatenation it is a part of, in elements."""
    return {name: channel * int(np.prod(model.tensors[name].shape[1:])) for name, (_, channel) in _views(model).items()}


def _views(model: Model) -> dict[str, tuple[str, int]]:
    """Return the tensor and the first channel in it for every tensor that is part of a concatenation."""
    parts: dict[str, tuple[str, int]] = {}
    for layer in model.layers:
        if layer.kind is not Kind.CONCAT:
            continue
        channel = 0
        for name in layer.inputs:
            if name in parts:
                raise CompileError(
                    f"Layer {layer.name!r} joins tensor {name!r}, which {parts[name][0]!r} holds already; "
                    "a tensor can be part of one concatenation"
                )
            parts[name] = (layer.output, channel)
            channel += model.tensors[name].shape[0]
    views = {}
    for name in parts:
        root, channel = parts[name]
        while root in parts:
            root, more = parts[root]
            channel += more
        views[name] = (root, channel)
    return views


def _place(live: Mapping[str, tuple[int, int]], words: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """First fit of intervals ``(born, dies)``: a tensor written by a layer may not overlap what that layer reads."""
    bases: dict[str, int] = {}
    for name in sorted(live, key=lambda item: (-words[item], live[item])):
        born, dies = live[name]
        taken = sorted(
            (bases[other], bases[other] + words[other])
            for other in bases
            if live[other][0] <= dies and born <= live[other][1]
        )
        base = 0
        for first, end in taken:
            if base + words[name] <= first:
                break
            base = max(base, end)
        bases[name] = base
    return bases, max((bases[name] + words[name] for name in bases), default=0)
