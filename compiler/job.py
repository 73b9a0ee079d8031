"""Working state of one layer while it is lowered: operands, rows, encoding and the groups the array works on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.encodings import relative
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Grid, Kind, Layer, Model, Tensor
from zeroskip.compiler.reference import rescale
from zeroskip.compiler.requantization import Scales, average_scales
from zeroskip.compiler.schedule import Access, Plane, Tile, access_of, tile_count
from zeroskip.compiler.target import MIN_DRAIN, Format, Geometry

__all__ = ["Job", "encode_job", "prepare_job"]

Tap = tuple[int, int, int]
IntArray = NDArray[np.int64]


@dataclass
class Job:
    """One layer on its way to a plan.

    ``weight`` is the integer matrix ``[rows, positions]`` over the tap table (windowed) or the kept inputs (linear);
    a pooling pass has one row of ones shared by all channels (``shared_row``). ``members`` output channels are worked
    on at once. A ``slow`` layer's results leave the array one a cycle. ``rows`` are the encoded rows of an indexed
    layer, a linear one's cut into ``split`` parts each; ``lengths`` the slots that each group of them takes a pass.
    ``idle_taps`` taps at the end have no weight: two windows may not end in a row. ``functions`` are the values of an addition's operands by code, shape ``(2, 256)``: two slots a tile, no product.
    """

    layer: Layer
    source: Tensor
    target: Tensor
    weight: IntArray
    scales: Scales
    format: Format = Format.DENSE
    access: Access | None = None
    plane: Plane | None = None
    tile: Tile | None = None
    taps: list[Tap] = field(default_factory=list)
    keep: list[int] | None = None
    split: int = 1
    groups: int = 1
    members: int = 1
    slow: bool = False
    functions: IntArray | None = None
    codebook: tuple[int, ...] = ()
    idle_taps: int = 0
    shared_row: bool = False
    index_bits: int = 0
    stored_bits: int = 8
    zero_excluded: bool = False
    rows: list[list[relative.Entry]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def linear(self) -> bool:
        """Whether this is a fully connected layer."""
        return self.layer.kind is Kind.LINEAR

    @property
    def per_channel(self) -> bool:
        """Whether every output channel reads an input channel of its own (depthwise convolution, pooling)."""
        return self.shared_row or (self.groups > 1 and self.groups == self.target.shape[0])

    @property
    def bias(self) -> IntArray:
        """Bias of every output channel, zeros for passes without weights."""
        if self.layer.bias is None:
            return np.zeros(self.target.shape[0], np.int64)
        return np.asarray(self.layer.bias, np.int64)

    @property
    def out_channels(self) -> int:
        """Output channels, or outputs of a linear layer."""
        return int(self.target.shape[0])

    @property
    def positions(self) -> int:
        """Positions a row walks in a pass of the dense format."""
        return -(-int(self.weight.shape[1]) // self.split)

    def windowed(self) -> tuple[Access, Plane, Tile]:
        """Return access, plane and tile of a layer that has them."""
        if self.access is None or self.plane is None or self.tile is None:
            raise CompileError(f"Layer {self.layer.name!r} must be windowed")
        return self.access, self.plane, self.tile

    @property
    def windows(self) -> int:
        """Pooled positions that one result is the maximum of."""
        return 1 if self.access is None else int(self.access.windows[0] * self.access.windows[1])

    def tiles(self, lanes: int) -> int:
        """Return how many tiles a map takes."""
        return 1 if self.tile is None else tile_count(self.tile, self.target.shape, lanes)

    def rows_of(self, group: int) -> range:
        """Return the matrix rows of a group, which may reach past the last row."""
        if self.shared_row:
            return range(1)
        return range(group * self.members, (group + 1) * self.members)

    @property
    def group_count(self) -> int:
        """Groups of output channels."""
        return -(-self.out_channels // self.members)


def prepare_job(layer: Layer, model: Model, geometry: Geometry, format_: Format) -> Job:
    """Collect what a layer needs: operands, weight matrix, scales, access pattern and members of a group."""
    source, target = model.tensors[layer.inputs[0]], model.tensors[layer.output]
    if layer.kind is Kind.LINEAR:
        job = _prepare_linear(layer, source, target)
    elif layer.kind is Kind.CONV2D:
        job = _prepare_convolution(layer, source, target)
    else:
        job = _prepare_pass(layer, source, target, model.tensors[layer.inputs[-1]])
    job.format = Format.DENSE if job.shared_row else format_
    if job.format is not Format.DENSE:
        job.keep = None
    return job


def _prepare_pass(layer: Layer, source: Tensor, target: Tensor, other: Tensor) -> Job:
    """A pooling or an addition: a row of ones for every channel."""
    if layer.kind is Kind.ADD:
        return _prepare_addition(layer, source, target, other)
    if layer.kind is Kind.AVG_POOL2D and any(layer.padding):
        raise CompileError(
            f"Layer {layer.name!r} is an average pooling with padding {layer.padding}, whose count of valid "
            "elements varies; pad the layer before it instead"
        )
    access = access_of(layer)
    taps = [(0, ky, kx) for ky in range(access.kernel[0]) for kx in range(access.kernel[1])]
    scales = average_scales(layer, source, len(taps)) if layer.kind is Kind.AVG_POOL2D else Scales.identity()
    return Job(layer, source, target, np.ones((1, len(taps)), np.int64), scales, access=access, taps=taps,
               groups=source.shape[0], shared_row=True)  # fmt: skip


def _prepare_addition(layer: Layer, source: Tensor, target: Tensor, other: Tensor) -> Job:
    """Two slots a tile, one an operand, whose rescaled value is looked up."""
    if len(source.shape) != 3:
        raise CompileError(f"Layer {layer.name!r} adds vectors of shape {source.shape}; only maps (C, H, W) are served")
    multiplier, shift = np.asarray(layer.multiplier), np.asarray(layer.shift)
    functions = np.zeros((2, 256), np.int64)
    for index, tensor in enumerate((source, other)):
        codes = np.arange(tensor.lo, tensor.hi + 1)
        values = (codes - tensor.zero_point) << layer.left_shift
        functions[index, codes & 0xFF] = rescale(values, multiplier[index], shift[index], layer.rounding)
    scales = Scales([int(multiplier[2])], [int(shift[2])], layer.rounding)
    return Job(layer, source, target, np.ones((1, 2), np.int64), scales, access=access_of(layer),
               taps=[(0, 0, 0), (0, 0, 0)], groups=source.shape[0], shared_row=True, functions=functions)  # fmt: skip


def _prepare_linear(layer: Layer, source: Tensor, target: Tensor) -> Job:
    weight = np.asarray(layer.weight, np.int64)
    job = Job(layer, source, target, weight, Scales.of(layer))
    used = np.flatnonzero(weight.any(axis=0))
    if len(used) < weight.shape[1]:
        job.keep = [int(position) for position in used] or [0]
    return job


def _prepare_convolution(layer: Layer, source: Tensor, target: Tensor) -> Job:
    weight = np.asarray(layer.weight, np.int64)
    _, in_channels, height, width = weight.shape
    taps = [
        (c, y, x) for c in range(in_channels) for y in range(height) for x in range(width) if weight[:, c, y, x].any()
    ] or [(0, 0, 0)]
    matrix = np.stack([weight[:, c, y, x] for c, y, x in taps], axis=1)
    job = Job(layer, source, target, matrix, Scales.of(layer), access=access_of(layer), taps=taps, groups=layer.groups)
    total = in_channels * height * width
    if len(taps) < total:
        job.notes.append(f"tap table shortened from {total} to {len(taps)} entries")
    return job


def _members(job: Job, geometry: Geometry) -> int:
    """Return how many rows one group has: what the array can work on side by side."""
    units = geometry.units if job.format is Format.DENSE else geometry.cores
    if job.linear:
        return min(units * geometry.lanes // job.split, job.out_channels)
    if job.per_channel:
        # columns share one gather, which delivers one channel at a time
        return geometry.cores
    # a group of output channels must not reach into the next convolution group: they read other input channels
    rows = job.out_channels // job.groups
    return units if job.groups == 1 else max(m for m in range(1, units + 1) if rows % m == 0)


def encode_job(job: Job, geometry: Geometry, index_bits: int | None) -> None:
    """Choose stored weight width, index width and the split of linear rows; fix the slots of every group."""
    job.zero_excluded = job.layer.grid in (Grid.ZERO_EXCLUDED, Grid.BINARY) or job.shared_row
    if job.layer.codebook is not None:
        job.codebook = tuple(int(level) for level in job.layer.codebook)
    job.stored_bits = 1 if job.shared_row else job.layer.weight_bits
    job.members = _members(job, geometry)
    if job.format is Format.DENSE:
        _encode_dense(job, geometry)
    else:
        _encode_relative(job, geometry, index_bits)


def _encode_dense(job: Job, geometry: Geometry) -> None:
    if job.windows > 1 and len(job.taps) == 1:
        job.idle_taps = 1
        job.taps = [*job.taps, job.taps[0]]
        job.weight = np.concatenate([job.weight, np.zeros_like(job.weight)], axis=1)
    if job.keep is not None:
        job.notes.append(
            f"{job.weight.shape[1] - len(job.keep)} of {job.weight.shape[1]} inputs hold no weight: skipped"
        )
        job.weight = job.weight[:, job.keep]
    if job.zero_excluded and not job.weight.all():
        job.zero_excluded = False
        job.stored_bits += 1
        job.notes.append(
            f"zeros inside the dense layout: {job.stored_bits} bits a weight instead of {job.stored_bits - 1}"
        )
    if job.linear:
        job.split = _choose_split(job, geometry)
        job.members = _members(job, geometry)
    job.lengths = [job.positions] * job.group_count


def _choose_split(job: Job, geometry: Geometry) -> int:
    """Return over how many lanes each row is spread: fewer cycles where there are fewer rows than multipliers."""
    inputs = job.weight.shape[1]
    if job.keep is not None:
        return 1
    products = geometry.products
    best: tuple[int, int] | None = None
    split = 1
    while split <= geometry.lanes:
        # a zero-excluded code cannot say zero: no lane may run past the last input
        if inputs % split == 0 or not job.zero_excluded:
            members = min(products // split, job.out_channels)
            groups = -(-job.out_channels // members)
            last = job.out_channels - (groups - 1) * members
            length = -(-inputs // split)
            # the next layer waits for the last group's sums, which leave one lane a cycle
            cycles = (groups - 1) * max(length, members * split) + length + last * split
            if best is None or cycles < best[0]:
                best = (cycles, split)
        split *= 2
    return 1 if best is None else best[1]


def _encode_relative(job: Job, geometry: Geometry, index_bits: int | None) -> None:
    if job.linear:
        job.split = _choose_sparse_split(job, geometry)
        job.members = _members(job, geometry)
    supports = _supports(job)
    if index_bits is None:
        job.index_bits = relative.choose_index_bits(supports, job.stored_bits)
    else:
        job.index_bits = index_bits
    job.rows = [
        relative.encode_row(support, values, job.index_bits)
        for support, values in zip(supports, _values(job), strict=True)
    ]
    per_group = job.members * job.split
    least = 2 if job.windows > 1 else 1
    job.lengths = [
        max(least, *(len(row) for row in job.rows[first : first + per_group]))
        for first in range(0, len(job.rows), per_group)
    ]


def _parts(job: Job) -> list[IntArray]:
    """Return the rows, each cut into ``split`` runs of positions."""
    step = -(-job.weight.shape[1] // job.split)
    return [row[first * step : (first + 1) * step] for row in job.weight for first in range(job.split)]


def _supports(job: Job) -> list[list[int]]:
    return [np.flatnonzero(part).tolist() for part in _parts(job)]


def _values(job: Job) -> list[list[int]]:
    return [part[np.flatnonzero(part)].tolist() for part in _parts(job)]


def _choose_sparse_split(job: Job, geometry: Geometry) -> int:
    """Return the split with the fewest cycles, escapes left out."""
    lanes = geometry.lanes * geometry.cores
    best: tuple[int, int] | None = None
    split = 1
    while split <= geometry.lanes:
        job.split = split
        counts = [max(len(support), 1) for support in _supports(job)]
        groups = [counts[i : i + lanes] for i in range(0, len(counts), lanes)]
        cycles = sum(max(max(group), len(group), MIN_DRAIN) for group in groups[:-1])
        cycles += max(groups[-1]) + len(groups[-1])
        if best is None or cycles < best[0]:
            best = (cycles, split)
        split *= 2
    return 1 if best is None else best[1]
