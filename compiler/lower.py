"""Lower a Model to a Program: layer plans with descriptor fields, parameter rows and the memory map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from zeroskip.compiler import rom
from zeroskip.compiler.balance import balance_rows
from zeroskip.compiler.encodings import relative
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Grid, Kind, Layer, Model, Rounding, Tensor
from zeroskip.compiler.ledger import bit_ledger
from zeroskip.compiler.program import LayerPlan, Program, Rom, Storage, TensorLayout, Unit
from zeroskip.compiler.requantization import Scales, align_shifts, average_scales
from zeroskip.compiler.rom_check import check_roms
from zeroskip.compiler.schedule import (
    Access,
    Tile,
    access_of,
    choose_tile,
    linear_layout,
    memory_map,
    raster_layout,
    windowed_layout,
)
from zeroskip.compiler.target import Engine, EngineConfig, Geometry

__all__ = ["Job", "lower"]

Tap = tuple[int, int, int]


@dataclass
class Job:
    """Working state of one layer while it is lowered.

    ``weight`` is the integer matrix ``[rows, positions]`` over the tap table (windowed) or the input elements (linear);
    a pooling pass has one row of ones shared by all channels (``shared_row``).
    """

    layer: Layer
    source: Tensor
    target: Tensor
    weight: np.ndarray
    scales: Scales
    access: Access | None = None
    tile: Tile | None = None
    taps: list[Tap] = field(default_factory=list)
    words: list[int] | None = None
    depthwise: bool = False
    shared_row: bool = False
    index_bits: int = 0
    stored_bits: int = 8
    zero_excluded: bool = False
    rows: list[list[relative.Entry]] = field(default_factory=list)
    fields: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def linear(self) -> bool:
        """Whether this is a fully connected layer."""
        return self.layer.kind is Kind.LINEAR

    @property
    def bias(self) -> np.ndarray:
        """Bias of every output channel, zeros for pooling passes."""
        if self.layer.bias is None:
            return np.zeros(self.target.shape[0], np.int64)
        return np.asarray(self.layer.bias, np.int64)

    def dense_matrix(self, lanes: int) -> np.ndarray:
        """Return the weights a dense layout stores, ``(rows, stored positions)``, without tail and column padding."""
        if not self.linear or self.words is None:
            return self.weight
        kept = [i for word in self.words for i in range(word * lanes, min((word + 1) * lanes, self.source.size))]
        return self.weight[:, kept]


def lower(model: Model, geometry: Geometry, *, index_bits: int | None = None) -> Program:
    """Lower ``model`` to a Program for ``geometry``.

    ``index_bits`` fixes the relative index width of every sparse layer; by default each layer chooses its own.

    Raises
    ------
    CompileError
        If a layer cannot be served; the text names it and the remedy.
    """
    row_orders: dict[str, tuple[int, ...]] = {}
    if geometry.engine is Engine.SPARSE:
        model, row_orders = balance_rows(model, geometry.lanes)
    jobs = [_prepare(layer, model, geometry) for layer in model.layers]
    align_shifts([job.scales for job in jobs])
    layouts = _layouts(model, jobs, geometry)
    for job in jobs:
        if job.scales.rounding not in (Rounding.HALF_UP, Rounding.HALF_AWAY):
            raise CompileError(
                f"Layer {job.layer.name!r} rounds {job.scales.rounding.value}; the hardware rounds half_up or half_away"
            )
        _encode(job, geometry, index_bits)
    placed, depth = memory_map(model, layouts)
    config = _config(jobs, geometry, depth)
    tables = rom.Tables(jobs, config, model, placed)
    for job, bases in zip(jobs, tables.bases, strict=True):
        job.fields = {**bases, **_issue_fields(job, geometry), **_gather_fields(job, placed, config)}
        job.fields.update(_write_fields(job.target, placed[job.layer.output], geometry, job))
        job.fields.update(_requantize_fields(job, config))
    load = {**_write_fields(model.tensors[model.input], placed[model.input], geometry, None), **tables.load}
    unload = {**_write_fields(model.tensors[model.output], placed[model.output], geometry, None), **tables.unload}
    # reading back is a linear access: no lane is outside
    unload.update(linear=1, tail=(1 << geometry.lanes) - 1)
    if not config.has_padding:
        del unload["tail"]
    names = ["load", *(job.layer.name for job in jobs), "unload"]
    layers = rom.layers_rom([load, *(job.fields for job in jobs), unload], names)
    roms = (*tables.roms, layers)
    plans = tuple(_plan(job, geometry, config, roms) for job in jobs)
    program = Program(model, config, plans, placed, roms, layers.fields, row_orders)
    check_roms(program)
    return program


def _prepare(layer: Layer, model: Model, geometry: Geometry) -> Job:
    """Collect what a layer needs: taps, weight matrix, scales, access pattern and tile."""
    source, target = model.tensors[layer.input], model.tensors[layer.output]
    if layer.kind is Kind.LINEAR:
        return _prepare_linear(layer, source, target, geometry)
    access = access_of(layer)
    tile = choose_tile(access, source.shape, target.shape, geometry.lanes)
    if layer.kind is Kind.CONV2D:
        return _prepare_convolution(layer, source, target, access, tile)
    if layer.kind is Kind.AVG_POOL2D and any(layer.padding):
        raise CompileError(
            f"Layer {layer.name!r} is an average pooling with padding {layer.padding}, whose count of valid "
            "elements varies; pad the layer before it instead"
        )
    kernel = access.kernel
    taps = [(0, ky, kx) for ky in range(kernel[0]) for kx in range(kernel[1])]
    scales = average_scales(layer, source, len(taps)) if layer.kind is Kind.AVG_POOL2D else Scales.identity()
    return Job(
        layer,
        source,
        target,
        np.ones((1, len(taps)), np.int64),
        scales,
        access,
        tile,
        taps,
        depthwise=True,
        shared_row=True,
    )


def _prepare_linear(layer: Layer, source: Tensor, target: Tensor, geometry: Geometry) -> Job:
    weight = np.asarray(layer.weight, np.int64)
    job = Job(layer, source, target, weight, Scales.of(layer))
    if geometry.engine is Engine.DENSE:
        lanes = geometry.lanes
        count = -(-source.size // lanes)
        padded = np.zeros((weight.shape[0], count * lanes), np.int64)
        padded[:, : source.size] = weight
        used = padded.reshape(weight.shape[0], count, lanes).any(axis=(0, 2))
        words = [int(word) for word in np.flatnonzero(used)] or [0]
        if len(words) < count:
            job.words = words
            job.notes.append(f"{count - len(words)} of {count} input words hold no weight and are skipped")
    return job


def _prepare_convolution(layer: Layer, source: Tensor, target: Tensor, access: Access, tile: Tile) -> Job:
    weight = np.asarray(layer.weight, np.int64)
    out_channels, in_channels, height, width = weight.shape
    depthwise = layer.groups > 1
    if depthwise and not (layer.groups == source.shape[0] == out_channels and in_channels == 1):
        raise CompileError(
            f"Layer {layer.name!r} has {layer.groups} groups of {source.shape[0]} channels; only groups=1 and "
            "depthwise (groups = channels in = channels out) are supported"
        )
    taps = [
        (c, y, x) for c in range(in_channels) for y in range(height) for x in range(width) if weight[:, c, y, x].any()
    ] or [(0, 0, 0)]
    matrix = np.stack([weight[:, c, y, x] for c, y, x in taps], axis=1)
    job = Job(layer, source, target, matrix, Scales.of(layer), access, tile, taps, depthwise=depthwise)
    total = in_channels * height * width
    if len(taps) < total:
        job.notes.append(f"tap table shortened from {total} to {len(taps)} entries")
    return job


def _layouts(model: Model, jobs: Sequence[Job], geometry: Geometry) -> dict[str, TensorLayout]:
    """Lay out every tensor the way its consumer reads it; the output lies in C, H, W order."""
    layouts = {model.output: raster_layout(model.tensors[model.output].shape, geometry.lanes)}
    for job in jobs:
        if job.access is not None and job.tile is not None:
            layouts[job.layer.input] = windowed_layout(job.access, job.tile, job.source.shape, geometry.lanes)
        else:
            layouts[job.layer.input] = linear_layout(job.source.shape, geometry)
    return layouts


def _encode(job: Job, geometry: Geometry, index_bits: int | None) -> None:
    """Choose the stored weight width and, for the sparse engine, the index width; encode the rows."""
    grid, bits = job.layer.grid, job.layer.weight_bits
    if job.shared_row:
        grid, bits = Grid.ZERO_EXCLUDED, 1
    job.zero_excluded = grid is Grid.ZERO_EXCLUDED
    if geometry.engine is Engine.DENSE:
        if job.zero_excluded and not job.dense_matrix(geometry.lanes).all():
            job.zero_excluded = False
            bits += 1
            job.notes.append(f"zeros inside the dense layout: {bits} bits a weight instead of {bits - 1}")
        job.stored_bits = bits
        return
    job.stored_bits = bits
    supports = [np.flatnonzero(row).tolist() for row in job.weight]
    if index_bits is None:
        job.index_bits = relative.choose_index_bits(supports, bits)
    else:
        job.index_bits = index_bits
    job.rows = [
        relative.encode_row(support, row[support].tolist(), job.index_bits)
        for support, row in zip(supports, job.weight, strict=True)
    ]


def _config(jobs: Sequence[Job], geometry: Geometry, depth: int) -> EngineConfig:
    """Derive every width of the hardware from the layers."""
    low = high = 0
    bias_low = bias_high = 0
    for job in jobs:
        job_low, job_high = _accumulator_range(job)
        low, high = min(low, job_low), max(high, job_high)
        bias_low, bias_high = min(bias_low, int(job.bias.min())), max(bias_high, int(job.bias.max()))
    scales = [job.scales for job in jobs]
    shifts = [int(s) for scale in scales for s in scale.shift]
    multiplier = max(int(m) for scale in scales for m in scale.multiplier)
    padded = any(any(job.layer.padding) or (job.linear and job.source.size % geometry.lanes) for job in jobs)
    return EngineConfig(
        geometry=geometry,
        activation_depth=depth,
        accumulator_width=_signed_bits(low, high),
        weight_width=max(job.stored_bits for job in jobs),
        index_width=max(job.index_bits for job in jobs),
        bias_width=_signed_bits(bias_low, bias_high),
        multiplier_width=0 if multiplier <= 1 else multiplier.bit_length(),
        shift_width=(max(shifts) - min(shifts)).bit_length(),
        shift_min=min(shifts),
        per_channel=any(len(scale.multiplier) > 1 for scale in scales),
        has_padding=padded,
        has_pooling=any(job.access is not None and job.access.windows != (1, 1) for job in jobs),
        has_half_away=any(job.scales.rounding is Rounding.HALF_AWAY for job in jobs),
        has_zero_excluded=any(job.zero_excluded for job in jobs),
        has_row_offsets=any(job.tile is not None and job.tile.y > 1 and job.tile.pitch != job.tile.x for job in jobs),
        has_linear=any(job.linear for job in jobs),
    )


def _accumulator_range(job: Job) -> tuple[int, int]:
    """Bound every partial sum: each product adds its worst case, or nothing."""
    low, high = min(job.source.lo, 0), max(job.source.hi, 0)
    products_high = np.maximum(job.weight * high, job.weight * low)
    products_low = np.minimum(job.weight * high, job.weight * low)
    return int(products_low.sum(axis=1).min()), int(products_high.sum(axis=1).max())


def _signed_bits(low: int, high: int) -> int:
    return max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1


def _issue_fields(job: Job, geometry: Geometry) -> dict[str, int]:
    """Fields of the front end: how many slots, windows, tiles and groups."""
    out_channels = job.target.shape[0]
    sparse = geometry.engine is Engine.SPARSE
    if job.linear:
        drained = geometry.lanes if sparse else geometry.columns
        groups = -(-out_channels // drained)
        slots = len(job.words) if job.words is not None else -(-job.source.size // geometry.lanes)
        fields = {"window_last": 0, "tile_last": 0, "tile_x_last": 0, "group_last": groups - 1, "slot_last": slots - 1}
        values = geometry.lanes if sparse else geometry.columns * geometry.lanes
    else:
        access, tile = _windowed(job)
        columns = 1 if job.depthwise else geometry.columns
        tiles_x = -(-job.target.shape[2] // tile.x)
        tiles_y = -(-job.target.shape[1] // tile.y)
        fields = {
            "window_last": access.windows[0] * access.windows[1] - 1,
            "tile_last": tiles_x * tiles_y - 1,
            "tile_x_last": tiles_x - 1,
            "group_last": -(-out_channels // columns) - 1,
            "slot_last": len(job.taps) - 1,
        }
        values = columns * geometry.lanes
    fields["linear"] = int(job.linear)
    fields["row_shared"] = int(job.shared_row)
    fields["drain_last"] = values - 1
    fields["drain_wait"] = max(values + geometry.columns - 1, 4) - 1
    fields["sum_lanes"] = int(job.linear and not sparse)
    fields["identity"] = int(job.linear and job.words is None)
    if sparse:
        del fields["slot_last"], fields["identity"], fields["sum_lanes"]
        fields["escape"] = (1 << job.index_bits) - 1
    fields["zero_excluded"] = int(job.zero_excluded)
    return fields


def _windowed(job: Job) -> tuple[Access, Tile]:
    if job.access is None or job.tile is None:
        raise CompileError(f"Layer {job.layer.name!r} must be windowed")
    return job.access, job.tile


def _gather_fields(job: Job, placed: dict[str, TensorLayout], config: EngineConfig) -> dict[str, int]:
    """Fields of the gather: tile steps, window steps, lane offsets and padding."""
    lanes = config.geometry.lanes
    layout = placed[job.layer.input]
    fields = {"in_base": layout.base, "in_signed": int(job.source.signed)}
    if job.linear:
        windows, step, tile_step, group_step = (1, 1), (1, 1), (0, 0), 0
    else:
        access, tile = _windowed(job)
        windows, step = access.windows, access.step
        tile_step = (tile.y * tile.pitch, tile.x)
        group_step = layout.channel_step // lanes if job.depthwise else 0
    fields.update(
        window_y_last=windows[0] - 1,
        window_x_last=windows[1] - 1,
        window_step_y=step[0],
        window_step_x=step[1],
        tile_step_y=tile_step[0],
        tile_step_x=tile_step[1],
        group_step=group_step,
    )
    if config.has_row_offsets:
        for lane in range(lanes):
            fields[f"lane_word_{lane}"] = (
                0 if job.tile is None else (lane // job.tile.x) * (job.tile.pitch - job.tile.x) // lanes
            )
    if config.has_padding:
        fields.update(_padding_fields(job, lanes))
    return fields


def _padding_fields(job: Job, lanes: int) -> dict[str, int]:
    """Fields that say which lanes read outside the input and what they read there."""
    if job.linear:
        tail = job.source.size % lanes or lanes
        last_kept = job.words is None or job.words[-1] == -(-job.source.size // lanes) - 1
        fields = dict.fromkeys(
            (
                "first_y",
                "first_x",
                "pad_step_y",
                "pad_step_x",
                "pad_code",
                *(f"lane_{a}_{i}" for a in "yx" for i in range(lanes)),
            ),
            0,
        )
        return {**fields, "height": 1, "width": 1, "tail": (1 << tail if last_kept else 1 << lanes) - 1}
    access, tile = _windowed(job)
    fields = {
        "first_y": -access.padding[0],
        "first_x": -access.padding[1],
        "pad_step_y": tile.y * access.stride[0],
        "pad_step_x": tile.x * access.stride[1],
        "height": job.source.shape[1],
        "width": job.source.shape[2],
        "pad_code": job.source.lo if job.layer.kind is Kind.MAX_POOL2D else job.source.zero_point,
        "tail": (1 << lanes) - 1,
    }
    for lane in range(lanes):
        fields[f"lane_y_{lane}"] = lane // tile.x * access.stride[0]
        fields[f"lane_x_{lane}"] = lane % tile.x * access.stride[1]
    return fields


def _write_fields(target: Tensor, layout: TensorLayout, geometry: Geometry, job: Job | None) -> dict[str, int]:
    """Fields of the write-back walker; without a job, of a transfer in C, H, W order."""
    channels, height, width = (*target.shape, 1, 1)[:3]
    tile_x = tile_y = lane_x = lane_y = group = 1
    if job is not None:
        if job.linear:
            group = geometry.lanes if geometry.engine is Engine.SPARSE else geometry.columns
        else:
            tile = _windowed(job)[1]
            tile_x, tile_y = lane_x, lane_y = tile.x, tile.y
            group = 1 if job.depthwise else geometry.columns
    base = layout.base if layout.storage is Storage.REPLICATED else layout.base * geometry.lanes
    return {
        "lane_x_last": lane_x - 1,
        "lane_y_last": lane_y - 1,
        "channel_last": group - 1,
        "tile_x": tile_x,
        "tile_y": tile_y,
        "channels": channels,
        "out_height": height,
        "out_width": width,
        "out_base": base,
        "channel_step": layout.channel_step,
        "replicated": int(layout.storage is Storage.REPLICATED),
    }


def _requantize_fields(job: Job, config: EngineConfig) -> dict[str, int]:
    pooling = job.layer.kind in (Kind.MAX_POOL2D, Kind.AVG_POOL2D)
    fields = {
        "zero_point": 0 if pooling else job.target.zero_point,
        "clamp_low": job.layer.clamp[0],
        "clamp_high": job.layer.clamp[1],
    }
    if not config.per_channel:
        if config.multiplier_width:
            fields["multiplier"] = int(job.scales.multiplier[0])
        if config.shift_width:
            fields["shift"] = int(job.scales.shift[0]) - config.shift_min
    if config.has_half_away:
        fields["half_away"] = int(job.scales.rounding is Rounding.HALF_AWAY)
    return fields


def _units(job: Job, geometry: Geometry) -> tuple[Unit, ...]:
    """Return the accumulation units of a layer in issue order."""
    groups, tiles, windows = job.fields["group_last"] + 1, job.fields["tile_last"] + 1, job.fields["window_last"] + 1
    if geometry.engine is Engine.DENSE:
        return (Unit((job.fields["slot_last"] + 1) * windows, groups * tiles),)
    if job.linear:
        lanes = geometry.lanes
        return tuple(Unit(max(len(row) for row in job.rows[g * lanes : (g + 1) * lanes]), 1) for g in range(groups))
    rows = job.rows * groups if job.shared_row else job.rows
    return tuple(Unit(len(row) * windows, tiles) for row in rows)


def _macs(job: Job, geometry: Geometry) -> tuple[int, int]:
    """Return dense and useful MACs (dense engine: padded taps and stored zeros of kept taps count as useful)."""
    layer = job.layer
    rows = job.target.shape[0]
    if job.linear:
        if geometry.engine is Engine.SPARSE:
            return rows * job.source.size, int(np.count_nonzero(job.weight))
        return rows * job.source.size, rows * job.dense_matrix(geometry.lanes).shape[1]
    access, _ = _windowed(job)
    positions = job.target.shape[1] * job.target.shape[2] * access.windows[0] * access.windows[1]
    if layer.weight is None:
        return rows * positions * len(job.taps), rows * positions * len(job.taps)
    dense = int(np.prod(np.asarray(layer.weight).shape)) * positions
    if geometry.engine is Engine.SPARSE:
        return dense, int(np.count_nonzero(job.weight)) * positions
    return dense, rows * len(job.taps) * positions


def _plan(job: Job, geometry: Geometry, config: EngineConfig, roms: tuple[Rom, ...]) -> LayerPlan:
    units = _units(job, geometry)
    dense, useful = _macs(job, geometry)
    return LayerPlan(
        name=job.layer.name,
        kind=job.layer.kind.value,
        layer=replace(job.layer),
        output=job.layer.output,
        shape=job.target.shape,
        fields=dict(job.fields),
        units=units,
        macs_dense=dense,
        macs_useful=useful,
        index_bits=job.index_bits,
        weight_bits=job.stored_bits,
        zero_excluded=job.zero_excluded,
        entries=sum(len(row) for row in job.rows),
        storage=bit_ledger(job, config, roms),
        notes=tuple(job.notes),
    )
