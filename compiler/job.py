"""Working state of one layer while it is lowered: operands, rows, encoding and the groups the array works on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import gcd

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Grid, Kind, Layer, Model, Rounding, Tensor
from zeroskip.compiler.reference import rescale
from zeroskip.compiler.requantization import Scales, average_scales
from zeroskip.compiler.schedule import Access, Plane, Tile, access_of, choose_tile, tile_count
from zeroskip.compiler.sign_add import order_runs, shares_runs
from zeroskip.compiler.streams import Decoding, Stream
from zeroskip.compiler.target import Format, Geometry
from zeroskip.compiler.thresholds import padded_thresholds

__all__ = ["Job", "encode_dense", "group_members", "place_job", "prepare_job", "start_encoding"]

Tap = tuple[int, int, int]
IntArray = NDArray[np.int64]


@dataclass
class Job:
    """One layer on its way to a plan.

    ``weight`` is the integer matrix ``[rows, positions]`` over the tap table (windowed) or the kept inputs (linear);
    a pooling pass has one row of ones shared by all channels (``shared_row``). ``members`` output channels are worked
    on at once. A ``slow`` layer's results leave the array one a cycle. ``streams[g]`` are the encoded rows of group
    ``g`` of an indexed layer, one a core (windowed) or lane (linear), or one for all columns (``shared_stream``);
    ``lengths`` the slots that each group takes a pass. ``block[b]`` are the positions of block or kernel ``b``,
    ``shapes`` the kept positions of each pattern. ``idle_taps`` slots of a dense row have no weight: two windows may
    not end in a row, and runs of lanes that share a multiplier are filled up. ``unified`` is the size of the
    micro-blocks that an indexed layer's runs are made of. A layer that averages a whole map may ``reduce`` it: the
    lanes take its pixels in turn and are summed up while they drain. The input of a ``banked`` linear layer is spread
    over the banks. ``functions`` are the values of an addition's operands by code, shape ``(2, 256)``: two slots (or
    runs) a tile, no product. A layer with ``thresholds``, shape ``(O, 2**stages - 1)``, has no ``scales``.
    """

    layer: Layer
    source: Tensor
    target: Tensor
    weight: IntArray
    scales: Scales | None
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
    thresholds: IntArray | None = None
    codebook: tuple[int, ...] = ()
    idle_taps: int = 0
    unified: int = 1
    reduce: bool = False
    banked: bool = False
    shared_row: bool = False
    index_bits: int = 0
    stored_bits: int = 8
    zero_excluded: bool = False
    decoding: Decoding | None = None
    block: IntArray | None = None
    shapes: list[list[int]] = field(default_factory=list)
    streams: list[list[Stream]] = field(default_factory=list)
    shared_stream: bool = False
    lengths: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def linear(self) -> bool:
        """Whether this is a fully connected layer."""
        return self.layer.kind is Kind.LINEAR

    @property
    def sums(self) -> bool:
        """Whether the lanes of a member are summed up while they drain."""
        return self.linear or self.reduce

    @property
    def reducible(self) -> bool:
        """Whether one result takes a whole map, each element once."""
        return self.layer.kind is Kind.AVG_POOL2D and self.layer.kernel == self.source.shape[1:]

    def ragged(self, lanes: int) -> bool:
        """Whether the last slot of a reduced map has lanes beyond its end."""
        return self.reduce and self.source.shape[1] * self.source.shape[2] % lanes > 0

    @property
    def per_channel(self) -> bool:
        """Whether every output channel reads an input channel of its own (depthwise convolution, pooling)."""
        return self.shared_row or (self.groups > 1 and self.groups == self.target.shape[0] == self.source.shape[0])

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
        return 1 if self.tile is None or self.reduce else tile_count(self.tile, self.target.shape, lanes)

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
    if layer.rounding is Rounding.THRESHOLDS:
        job.thresholds = padded_thresholds(layer, source)
    job.format = Format.DENSE if job.shared_row else format_
    if job.format is not Format.DENSE:
        job.keep = None
        if geometry.sign_adds > 1:
            job.unified = _unified_size(layer, model)
            job.format = Format.BLOCKS if job.unified > 1 else Format.RELATIVE
        arrange(job, geometry.sign_adds)
        if format_ not in (Format.RELATIVE, job.format):
            job.notes.append(f"{job.format.value} instead of {format_.value}, which has no runs of one magnitude")
    return job


def _unified_size(layer: Layer, model: Model) -> int:
    """Return the size of a layer's micro-blocks, 1 where it has none; linear layers agree on one that divides all."""
    others = [other for other in model.layers if other.kind is Kind.LINEAR] if layer.kind is Kind.LINEAR else [layer]
    sizes = {
        other.name: int(other.structure["size"]) for other in others if other.structure.get("kind") == "micro_block"
    }
    return gcd(*sizes.values()) if layer.name in sizes else 1


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
    if target.shape[1:] == (1, 1):
        # a single position has no stride, whatever the layer says
        access = replace(access, stride=(1, 1))
    taps = [(0, ky, kx) for ky in range(access.kernel[0]) for kx in range(access.kernel[1])]
    scales = average_scales(layer, source, len(taps)) if layer.kind is Kind.AVG_POOL2D else Scales.identity()
    return Job(layer, source, target, np.ones((1, len(taps)), np.int64), scales, access=access, taps=taps,
               groups=source.shape[0], shared_row=True)  # fmt: skip


def place_job(job: Job, plane: Plane, lanes: int) -> None:
    """Fix the tile of a windowed layer on the plane its input is stored in."""
    job.plane = plane
    _, height, width = job.source.shape
    if job.reducible and plane == Plane((1, 1), width):
        job.reduce = True
        slots = -(-height * width // lanes)
        job.taps = [(0, slot, 0) for slot in range(slots)]
        job.weight = np.ones((1, slots), np.int64)
        job.tile = Tile(lanes, 1, width, flat=True)
        return
    job.tile = choose_tile(job.target.shape, plane.pitch, lanes)


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
    rounding = Rounding.HALF_UP if layer.rounding is Rounding.TFLITE_SINGLE else layer.rounding
    scales = Scales([int(multiplier[2])], [int(shift[2])], rounding)
    return Job(layer, source, target, np.ones((1, 2), np.int64), scales, access=access_of(layer),
               taps=[(0, 0, 0), (0, 0, 0)], groups=source.shape[0], shared_row=True, functions=functions)  # fmt: skip


def _prepare_linear(layer: Layer, source: Tensor, target: Tensor) -> Job:
    weight = np.asarray(layer.weight, np.int64)
    job = Job(layer, source, target, weight, _scales(layer))
    used = np.flatnonzero(weight.any(axis=0))
    if len(used) < weight.shape[1]:
        job.keep = [int(position) for position in used] or [0]
    return job


def _scales(layer: Layer) -> Scales | None:
    return None if layer.rounding is Rounding.THRESHOLDS else Scales.of(layer)


def _prepare_convolution(layer: Layer, source: Tensor, target: Tensor) -> Job:
    weight = np.asarray(layer.weight, np.int64)
    _, in_channels, height, width = weight.shape
    used = np.argwhere(weight.any(axis=0))
    taps = [(c, y, x) for c, y, x in used.tolist()] or [(0, 0, 0)]
    matrix = weight[(slice(None), *np.transpose(taps))]
    job = Job(layer, source, target, matrix, _scales(layer), access=access_of(layer), taps=taps, groups=layer.groups)
    total = in_channels * height * width
    if len(taps) < total:
        job.notes.append(f"tap table shortened from {total} to {len(taps)} entries")
    return job


def group_members(job: Job, geometry: Geometry) -> int:
    """Return how many rows one group has: what the array can work on side by side.

    Columns share their operands: an indexed row pays for the weights of its neighbours too, so a linear layer and one
    whose kernels have patterns use the first column only.
    """
    shared = job.format is Format.DENSE or (not job.linear and job.format is not Format.PATTERN)
    units = geometry.units if shared else geometry.cores
    if job.linear:
        return min(units * geometry.lanes // job.split, job.out_channels)
    if job.per_channel:
        # columns share one gather, which delivers one channel at a time
        return geometry.cores
    # a group of output channels must not reach into the next convolution group: they read other input channels
    rows = job.out_channels // job.groups
    return units if job.groups == 1 else max(m for m in range(1, units + 1) if rows % m == 0)


def start_encoding(job: Job, geometry: Geometry) -> None:
    """Set what both kinds of layers begin with: grid, codebook and weight width."""
    signs = geometry.sign_adds > 1
    job.zero_excluded = not signs and (job.layer.grid in (Grid.ZERO_EXCLUDED, Grid.BINARY) or job.shared_row)
    if job.layer.codebook is not None and not signs:
        job.codebook = tuple(int(level) for level in job.layer.codebook)
    job.stored_bits = 1 if job.shared_row else job.layer.weight_bits
    job.members = group_members(job, geometry)


def encode_dense(job: Job, geometry: Geometry) -> None:
    """Fix stored weight width, the split of linear rows and the slots of every group."""
    if geometry.sign_adds > 1:
        _encode_runs(job, geometry)
        return
    if job.windows > 1 and len(job.taps) == 1:
        job.idle_taps = 1
        job.taps = [*job.taps, job.taps[0]]
        job.weight = np.concatenate([job.weight, np.zeros_like(job.weight)], axis=1)
    if geometry.banked_vectors:
        job.keep = None
        if job.linear and job.weight.shape[1] % geometry.lanes:
            # the last word of the vector is not full: its other lanes need a weight of 0
            missing = -job.weight.shape[1] % geometry.lanes
            job.weight = np.concatenate([job.weight, np.zeros((len(job.weight), missing), np.int64)], axis=1)
    _skip_inputs(job)
    if job.zero_excluded and not job.weight.all():
        job.zero_excluded = False
        job.stored_bits += 1
        job.notes.append(
            f"zeros inside the dense layout: {job.stored_bits} bits a weight instead of {job.stored_bits - 1}"
        )
    if job.linear:
        job.split = _choose_split(job, geometry)
        job.banked = geometry.banked_vectors
        job.members = group_members(job, geometry)
    job.lengths = [job.positions] * job.group_count


def _skip_inputs(job: Job) -> None:
    """Leave the inputs without weights out of a linear layer's matrix."""
    if job.keep is not None:
        job.notes.append(
            f"{job.weight.shape[1] - len(job.keep)} of {job.weight.shape[1]} inputs hold no weight: skipped"
        )
        job.weight = job.weight[:, job.keep]


def _encode_runs(job: Job, geometry: Geometry) -> None:
    """Order the slots of a dense layer in runs of one magnitude, which a tap table or keep-list names."""
    adds = geometry.sign_adds
    _skip_inputs(job)
    count = job.weight.shape[1]
    order, idle = order_runs(job.weight, adds, apart=job.functions is not None)
    job.weight = np.where(idle, 0, job.weight[:, order])
    if not job.linear:
        job.taps = [job.taps[position] for position in order]
    elif job.keep is not None:
        job.keep = [job.keep[position] for position in order]
    elif idle[:count].any():
        job.keep = [int(position) for position in order]
    if job.linear:
        job.split = _choose_split(job, geometry)
        missing = -job.weight.shape[1] % (adds * job.split)
        job.weight = np.concatenate([job.weight, np.zeros((len(job.weight), missing), np.int64)], axis=1)
        job.members = group_members(job, geometry)
    job.idle_taps = job.weight.shape[1] - count
    if job.idle_taps:
        job.notes.append(
            f"{job.idle_taps} of {job.weight.shape[1]} slots of a row are idle: they fill runs of {adds} up"
        )
    job.lengths = [job.positions] * job.group_count


def _choose_split(job: Job, geometry: Geometry) -> int:
    """Return over how many lanes each row is spread: fewer cycles where there are fewer rows than multipliers."""
    inputs = job.weight.shape[1]
    if geometry.banked_vectors:
        return geometry.lanes
    if job.keep is not None:
        return 1
    products = geometry.products
    best: tuple[int, int] | None = None
    split = 1
    while split <= geometry.lanes:
        # a zero-excluded code cannot say zero: no lane may run past the last input
        if (inputs % split == 0 or not job.zero_excluded) and _lanes_share(job, split, geometry.sign_adds):
            members = min(products // split, job.out_channels)
            groups = -(-job.out_channels // members)
            last = job.out_channels - (groups - 1) * members
            length = -(-inputs // split)
            # the next layer waits for the last group's results; the sums of lanes leave one lane a cycle
            together = 1 if job.slow or split > 1 else geometry.results
            drain, last_drain = (-(-rows * split // together) for rows in (members, last))
            cycles = (groups - 1) * max(length, drain) + length + last_drain
            if best is None or cycles < best[0]:
                best = (cycles, split)
        split *= 2
    return 1 if best is None else best[1]


def _lanes_share(job: Job, split: int, adds: int) -> bool:
    """Return whether the runs of lanes that take a dense row's inputs in turn have one magnitude each."""
    if adds == 1 or split == 1:
        return True
    missing = -job.weight.shape[1] % split
    padded = np.concatenate([job.weight, np.zeros((len(job.weight), missing), np.int64)], axis=1)
    return shares_runs(padded.reshape(len(padded), -1, split).transpose(0, 2, 1), adds)


def arrange(job: Job, adds: int) -> None:
    """Order the positions of a structured layer the way its decoder walks them.

    Blocks and kernels of windowed layers lie element by element: element ``s`` of block ``b`` at ``s * blocks + b``, so
    that a decoder adds instead of multiplying. Banks count every position, with weight or without. Micro-blocks are
    filled up to whole runs of ``adds``.
    """
    if job.format in (Format.BLOCKS, Format.PATTERN):
        _arrange_blocks(job, adds)
    elif job.format is Format.BANKS and not job.linear:
        _use_all_taps(job)


def _use_all_taps(job: Job) -> None:
    weight = np.asarray(job.layer.weight, np.int64)
    _, in_channels, height, width = weight.shape
    job.taps = [(c, y, x) for c in range(in_channels) for y in range(height) for x in range(width)]
    job.weight = weight.reshape(len(weight), -1)
    job.notes.clear()


def _arrange_blocks(job: Job, adds: int) -> None:
    structure = job.layer.structure
    kind = structure.get("kind")
    if job.linear:
        size = job.unified if job.unified > 1 else int(structure["size"] if kind == "vector" else structure["columns"])
        count = -(-job.weight.shape[1] // size)
        job.block = np.arange(count * size).reshape(count, size)
        padded = np.zeros((len(job.weight), count * size), np.int64)
        padded[:, : job.weight.shape[1]] = job.weight
        job.weight = padded
        return
    _use_all_taps(job)
    blocks = _tap_blocks(job, kind)
    if job.unified > 1:
        no_tap = len(job.taps)
        blocks = [block + [no_tap] * (-len(block) % adds) for block in blocks]
    matrix = np.concatenate([job.weight, np.zeros_like(job.weight[:, :1])], axis=1)
    used = [block for block in blocks if matrix[:, block].any()] or blocks[:1]
    columns = np.array(used).T.reshape(-1)
    job.taps = [job.taps[column] if column < len(job.taps) else job.taps[0] for column in columns]
    job.weight = matrix[:, columns]
    job.block = np.arange(len(columns)).reshape(len(used[0]), len(used)).T
    if kind == "pattern":
        job.shapes = [[int(p) for p in pattern] for pattern in structure["patterns"]]


def _tap_blocks(job: Job, kind: str | None) -> list[list[int]]:
    """Return the taps of every block in natural order; one past the last tap stands for no tap."""
    _, in_channels, height, width = np.asarray(job.layer.weight).shape
    area, total = height * width, in_channels * height * width
    structure = job.layer.structure
    if kind in ("kernel", "pattern"):
        return [list(range(c * area, (c + 1) * area)) for c in range(in_channels)]
    if kind == "vector":
        size = int(structure["size"])
        starts = [(c, p) for c in range(0, in_channels, size) for p in range(area)]
        return [[(c + s) * area + p if c + s < in_channels else total for s in range(size)] for c, p in starts]
    size = job.unified if job.unified > 1 else int(structure["columns"])
    return [[min(first + s, total) for s in range(size)] for first in range(0, total, size)]
