"""Lower a Model to a Program: layer plans with descriptor fields, parameter images, memory map and static schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from zeroskip.compiler.balance import balance_rows
from zeroskip.compiler.encode import choose_mask_bits, encode_indexed
from zeroskip.compiler.encodings import relative
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.fields import (
    back_fields,
    bank_conflicts,
    front_fields,
    is_slow,
    rows_together,
    schedule_of,
)
from zeroskip.compiler.ir import Kind, Model, Rounding
from zeroskip.compiler.job import Job, encode_dense, place_job, prepare_job, start_encoding
from zeroskip.compiler.ledger import bit_ledger
from zeroskip.compiler.program import LayerPlan, Program, Rom, Schedule, Storage, TensorLayout
from zeroskip.compiler.requantization import align_shifts
from zeroskip.compiler.rom import Tables, descriptor_rom, places_of
from zeroskip.compiler.rom_slots import lane_rows, slot_count
from zeroskip.compiler.schedule import (
    Plane,
    banked_layout,
    choose_plane,
    memory_map,
    output_layout,
    part_offsets,
    plane_layout,
    replicated_layout,
)
from zeroskip.compiler.sign_add import RunNeeds, run_needs
from zeroskip.compiler.streams import Decoding
from zeroskip.compiler.target import EngineConfig, Format, Geometry, pair_bits
from zeroskip.compiler.thresholds import search_stages
from zeroskip.compiler.timing import plan_timing, unit_ends

__all__ = ["Formats", "LayerCost", "layer_costs", "lower", "plan_jobs"]

MAX_PAIR_BITS = 18
"""The widest operand of a device's multiplier; a board's own may be narrower (compiler.resources)."""

Formats = Mapping[str, Format]
"""The format of each layer with weights, by name; layers that are not named are dense."""


def lower(
    model: Model,
    geometry: Geometry,
    formats: Formats,
    *,
    index_bits: int | None = None,
    least_storage: bool = False,
) -> Program:
    """Lower ``model`` to a Program for ``geometry``.

    ``index_bits`` fixes the relative index width of every sparse layer; by default each layer chooses its own:
    the one of fewest cycles near the least storage, with ``least_storage`` that of the least. Storage is
    counted without the padding to words of memory, which hold all indices at the width of the widest.
    The images are not proved yet: :func:`zeroskip.compiler.rom_check.check_roms` decodes them.

    Raises
    ------
    CompileError
        If a layer cannot be served; the text names it and the remedy.
    """
    model, row_orders, jobs, layouts = plan_jobs(model, geometry, formats, index_bits, least_storage)
    wide = {layouts[job.layer.output].storage for job in jobs if not job.slow} if geometry.results > 1 else set()
    granule = geometry.results if Storage.REPLICATED in wide else 1
    placed, depth, release = memory_map(model, layouts, geometry.lanes, granule)
    config = _config(model, jobs, geometry, depth, wide)
    if geometry.paired_products:
        _refuse_wide_levels(jobs)
    schedules = [schedule_of(job, geometry, config.drain_delay, config.indexed) for job in jobs]
    tables = Tables(jobs, config, model, placed, [rows_together(job, geometry) for job in jobs])
    timing = plan_timing(model, jobs, schedules, config, release)
    for index, (job, schedule) in enumerate(zip(jobs, schedules, strict=True)):
        tables.front[index].update(front_fields(job, schedule, placed, config))
        tables.front[index].update(gap=timing.gaps[index], release_input=int(index == release))
        layout = placed[job.layer.output]
        tables.back[index].update(back_fields(job, schedule, layout, config))
    names = [job.layer.name for job in jobs]
    roms = (*tables.roms, descriptor_rom("front", tables.front, names), descriptor_rom("back", tables.back, names))
    plans = tuple(
        _plan(job, schedule, front, back, config, roms)
        for job, schedule, front, back in zip(jobs, schedules, tables.front, tables.back, strict=True)
    )
    return Program(model, config, plans, placed, roms, timing, release, row_orders)


def plan_jobs(
    model: Model, geometry: Geometry, formats: Formats, index_bits: int | None, least_storage: bool = False
) -> tuple[Model, dict[str, tuple[int, ...]], list[Job], dict[str, TensorLayout]]:
    """Fix what every layer does before anything is placed: the balanced model, row orders, jobs and layouts."""
    tolerance = 1.0 if least_storage else relative.TOLERANCE
    model, row_orders = balance_rows(model, geometry, formats)
    jobs = [
        prepare_job(layer, model, geometry, formats.get(layer.name, Format.DENSE))
        for layer in model.layers
        if layer.kind.runs
    ]
    align_shifts([job.scales for job in jobs if job.scales is not None])
    layouts = _layouts(model, jobs, geometry)
    offsets = part_offsets(model)
    for job in jobs:
        name = job.layer.output
        job.slow = is_slow(job, layouts[name], geometry, offsets.get(name))
        start_encoding(job, geometry)
        if job.format is Format.DENSE:
            encode_dense(job, geometry)
        elif job.format is not Format.BITMAP:
            encode_indexed(job, geometry, index_bits, tolerance)
    _encode_bitmaps(jobs, geometry, index_bits, tolerance)
    if index_bits is None and not least_storage:
        _widen_gaps(jobs, geometry)
    _align_patterns(jobs, geometry)
    for job in jobs:
        job.slow = job.slow or (geometry.results > 1 and job.linear and job.split > 1)
    return model, row_orders, jobs, layouts


def _encode_bitmaps(jobs: Sequence[Job], geometry: Geometry, index_bits: int | None, tolerance: float) -> None:
    """Encode the bitmap layers behind all others: their words share the image with the others' indices."""
    masked = [job for job in jobs if job.format is Format.BITMAP]
    if not masked:
        return
    encoded = [job for job in jobs if job.decoding is not None]
    bits = index_bits or choose_mask_bits(masked, geometry, encoded, tolerance)
    for job in masked:
        encode_indexed(job, geometry, bits)


def _widen_gaps(jobs: Sequence[Job], geometry: Geometry) -> None:
    """Give layers with narrow gaps the width of the widest where that saves slots: the image's slots are that wide."""
    widest = max((decoding.code_bits for _, decoding in _decoded(jobs)), default=0)
    for job, decoding in _decoded(jobs):
        if decoding.bank or decoding.patterns or decoding.mask_bits or decoding.gap_bits == widest:
            continue
        before, notes = sum(job.lengths), list(job.notes)
        for bits in (widest, decoding.gap_bits):
            job.notes[:] = notes
            start_encoding(job, geometry)
            encode_indexed(job, geometry, bits)
            if sum(job.lengths) < before:
                break


def _align_patterns(jobs: Sequence[Job], geometry: Geometry) -> None:
    """Give all layers with patterns the widest of their gaps: the decoder cuts their codes at one place."""
    mine = [(job, decoding) for job, decoding in _decoded(jobs) if decoding.patterns]
    widest = max((decoding.gap_bits for _, decoding in mine), default=0)
    for job, decoding in mine:
        if decoding.gap_bits != widest:
            start_encoding(job, geometry)
            encode_indexed(job, geometry, widest)


@dataclass(frozen=True)
class LayerCost:
    """The cycles in which a layer issues its slots, stalls included, and the bits of its weights and indices."""

    cycles: int
    bits: int


def layer_costs(
    model: Model,
    geometry: Geometry,
    formats: Formats,
    index_bits: int | None = None,
    least_storage: bool = False,
) -> dict[str, LayerCost]:
    """Return what each layer costs, by name; its cycles are exact but for the hand-over between layers."""
    jobs = plan_jobs(model, geometry, formats, index_bits, least_storage)[2]
    delay = geometry.skew(geometry.columns - 1) if any(job.slow for job in jobs) else 0
    indexed = any(job.format is not Format.DENSE for job in jobs)
    costs = {}
    for job in jobs:
        cycles = int(unit_ends(schedule_of(job, geometry, delay, indexed))[-1]) + 1
        codes = sum(len(stream.codes) for group in job.streams for stream in group)
        bits = slot_count(job, geometry.units, geometry.lanes) * job.stored_bits + codes * job.index_bits
        costs[job.layer.name] = LayerCost(cycles, bits)
    return costs


def _layouts(model: Model, jobs: Sequence[Job], geometry: Geometry) -> dict[str, TensorLayout]:
    """Lay out every tensor the way its consumers read it, and fix the tiles of the windowed ones.

    Tensors that an addition reads together, or that a concatenation joins, are stored alike.
    """
    layouts = {}
    for names in _classes(model):
        readers = [job for job in jobs if set(job.layer.inputs) & set(names)]
        shapes = {name: model.tensors[name].shape for name in names}
        if model.output in names and model.output != model.results:
            layouts[model.output] = output_layout(shapes[model.output])
        elif model.results in names:
            if len(names) > 1 or readers:
                raise CompileError(
                    f"Tensor {model.results!r} is the network's output and cannot be read or joined as well; "
                    "add a layer behind it"
                )
            layouts[model.results] = output_layout(shapes[model.results])
        elif all(job.linear for job in readers):
            layouts.update({name: _vector_layout(shape, geometry) for name, shape in shapes.items()})
        else:
            plane = _choose_plane(names[0], shapes[names[0]], readers, geometry)
            for job in readers:
                place_job(job, plane, geometry.lanes)
            layouts.update({name: plane_layout(plane, shape, geometry.lanes) for name, shape in shapes.items()})
    if geometry.results > 1:
        # when all tiles are known
        for names in _classes(model):
            _part_phases({name: model.tensors[name].shape for name in names}, layouts, jobs, geometry)
    return layouts


def _vector_layout(shape: tuple[int, ...], geometry: Geometry) -> TensorLayout:
    return banked_layout(shape, geometry.lanes) if geometry.banked_vectors else replicated_layout(shape)


def _choose_plane(name: str, shape: tuple[int, ...], readers: Sequence[Job], geometry: Geometry) -> Plane:
    """Choose one plane for all readers of a tensor, or of tensors that are stored alike."""
    windowed = [
        (job.access, job.source.shape, 1)
        if job.reducible
        else (job.access, job.target.shape, int(np.count_nonzero(job.weight)) * job.windows)
        for job in readers
        if job.access is not None
    ]
    plane = choose_plane(windowed, shape, geometry.lanes, geometry.results) if len(windowed) == len(readers) else None
    if plane is None:
        which = ", ".join(repr(job.layer.name) for job in readers)
        raise CompileError(f"Tensor {name!r} is read by layers that need it stored differently: {which}")
    return plane


def _part_phases(
    shapes: Mapping[str, tuple[int, ...]],
    layouts: dict[str, TensorLayout],
    jobs: Sequence[Job],
    geometry: Geometry,
) -> None:
    """Move the stride phases of tensors that are stored alike apart, to other banks.

    By the fewest words with which the results of a cycle of all writers lie in different banks, or meet least often.
    """
    readers = [job for job in jobs if set(job.layer.inputs) & set(shapes)]
    writers = [job for job in jobs if job.layer.output in shapes and not job.sums]
    plane = next((job.plane for job in readers if job.plane is not None), None)
    if plane is None or plane.stride == (1, 1) or not writers:
        return
    best: tuple[int, Plane, dict[str, TensorLayout]] | None = None
    for spare in range(geometry.lanes):
        candidate = replace(plane, spare=spare)
        moved = {name: plane_layout(candidate, shape, geometry.lanes) for name, shape in shapes.items()}
        conflicts = sum(bank_conflicts(job, moved[job.layer.output], geometry) for job in writers)
        if best is None or conflicts < best[0]:
            best = (conflicts, candidate, moved)
        if not conflicts:
            break
    if best is None:
        raise ValueError("There must be lanes")
    layouts.update(best[2])
    for job in readers:
        job.plane = best[1]


def _classes(model: Model) -> list[list[str]]:
    """Return the tensors in groups that must be stored alike, in the order of the model."""
    group = {name: name for name in model.tensors}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for layer in model.layers:
        joined = layer.inputs if layer.kind is Kind.ADD else ()
        if layer.kind is Kind.CONCAT:
            joined = (*layer.inputs, layer.output)
        for name in joined[1:]:
            group[root(name)] = root(joined[0])
    classes: dict[str, list[str]] = {}
    for name in model.tensors:
        classes.setdefault(root(name), []).append(name)
    return list(classes.values())


def _config(model: Model, jobs: Sequence[Job], geometry: Geometry, depth: int, wide: Set[Storage]) -> EngineConfig:
    """Derive every width of the hardware from the layers."""
    low = high = 0
    bias_low = bias_high = 0
    for job in jobs:
        job_low, job_high = _accumulator_range(job)
        low, high = min(low, job_low), max(high, job_high)
        bias_low, bias_high = min(bias_low, int(job.bias.min())), max(bias_high, int(job.bias.max()))
    scales = [job.scales for job in jobs if job.scales is not None]
    # a design of nothing but thresholds has no shift
    shifts = [int(s) for scale in scales for s in scale.shift] or [0]
    multipliers = {int(m) for scale in scales for m in scale.multiplier}
    roundings = {scale.rounding for scale in scales}
    index_width = max(job.index_bits for job in jobs)
    decodings = [job.decoding for job in jobs if job.decoding is not None]
    elements = max((decoding.elements for decoding in decodings), default=1)
    needs = _run_needs(jobs, geometry.sign_adds)
    has_empty_runs = needs.empty and not needs.zeros
    return EngineConfig(
        geometry=geometry,
        activation_depth=depth,
        accumulator_width=_signed_bits(low, high),
        weight_width=max(job.stored_bits for job in jobs),
        level_bits=max(_level_bits(job, geometry.sign_adds > 1) for job in jobs),
        level_limit=max(_level_limit(job) for job in jobs),
        sign_bits=0 if geometry.sign_adds == 1 else 2 if needs.zeros else 1,
        magnitude_bits=max(1, (needs.largest - int(not has_empty_runs)).bit_length()) if geometry.sign_adds > 1 else 0,
        codebooks=tuple(dict.fromkeys(job.codebook for job in jobs if job.codebook)),
        index_width=index_width,
        mask_bits=max((decoding.mask_bits for decoding in decodings), default=0),
        pattern_bits=_one_value("gap widths of pattern layers", {d.gap_bits for d in decodings if d.patterns}),
        patterns=tuple(dict.fromkeys(d.patterns for d in decodings if d.patterns)),
        element_bits=(elements - 1).bit_length(),
        linear_unit=_one_value(
            "block sizes of linear layers", {d.unit for job, d in _decoded(jobs) if job.linear and not d.bank} - {1}
        )
        or 1,
        bias_width=_signed_bits(bias_low, bias_high),
        # a multiplier of 0 needs a multiplication, too
        multiplier_width=0 if multipliers <= {1} else max(1, max(multipliers).bit_length()),
        shift_width=(max(shifts) - min(shifts)).bit_length(),
        shift_min=min(shifts),
        search_stages=max(search_stages(job.thresholds) for job in jobs),
        per_channel=any(len(scale.multiplier) > 1 for scale in scales),
        output_size=model.tensors[model.output].size,
        argmax_size=0 if model.results == model.output else model.tensors[model.results].size,
        has_padding=any(any(job.layer.padding) or job.ragged(geometry.lanes) for job in jobs),
        has_pooling=any(job.windows > 1 for job in jobs),
        has_scales=bool(scales),
        has_two_steps=Rounding.TFLITE_DOUBLE in roundings,
        has_half_away=Rounding.HALF_AWAY in roundings,
        has_half_even=Rounding.HALF_EVEN in roundings,
        has_floor=Rounding.FLOOR in roundings,
        has_zero_excluded=any(job.zero_excluded for job in jobs),
        has_row_offsets=any(
            job.tile is not None and not job.tile.flat and job.tile.y > 1 and job.tile.pitch != job.tile.x
            for job in jobs
        ),
        has_linear=any(job.linear for job in jobs),
        has_windowed=any(not job.linear for job in jobs),
        has_split=any(job.split > 1 for job in jobs),
        has_keep=any(job.linear and job.keep is not None for job in jobs),
        has_counted=index_width > 0 and any(job.format is Format.DENSE for job in jobs),
        has_slow=any(job.slow for job in jobs),
        has_sums=any(job.sums for job in jobs),
        has_partial_sums=any(job.split > 1 or job.reduce for job in jobs),
        has_banks=any(decoding.bank > 0 or decoding.mask_bits > 0 for decoding in decodings),
        has_steps=any(decoding.step > 0 for decoding in decodings),
        has_functions=any(job.functions is not None for job in jobs),
        has_empty_runs=has_empty_runs,
        has_plain_levels=not all(job.zero_excluded for job in jobs),
        has_wide_writes=Storage.REPLICATED in wide,
        has_wide_output=Storage.OUTPUT in wide,
        has_row_words=any(rows_together(job, geometry) > 1 for job in jobs),
        has_core_words=geometry.cores > 1 and any(job.per_channel for job in jobs),
    )


def _run_needs(jobs: Sequence[Job], adds: int) -> RunNeeds:
    """Return what the stored runs of all layers must be able to say; escapes and additions may say anything."""
    needs = RunNeeds()
    for job in jobs:
        if adds == 1 or job.functions is not None:
            continue
        if job.format is Format.DENSE:
            needs |= run_needs(lane_rows(job), adds)
        for group in job.streams:
            for stream in group:
                needs |= run_needs(stream.levels, adds, stream.positions < 0)
    return needs


def _accumulator_range(job: Job) -> tuple[int, int]:
    """Bound every partial sum: each product adds its worst case, or nothing."""
    if job.functions is not None:
        return int(np.minimum(job.functions.min(axis=1), 0).sum()), int(np.maximum(job.functions.max(axis=1), 0).sum())
    low, high = min(job.source.lo, 0), max(job.source.hi, 0)
    if job.reduce:
        pixels = job.source.shape[1] * job.source.shape[2]
        return low * pixels, high * pixels
    products_high = np.maximum(job.weight * high, job.weight * low)
    products_low = np.minimum(job.weight * high, job.weight * low)
    return int(products_low.sum(axis=1).min()), int(products_high.sum(axis=1).max())


def _decoded(jobs: Sequence[Job]) -> list[tuple[Job, Decoding]]:
    return [(job, job.decoding) for job in jobs if job.decoding is not None]


def _one_value(what: str, values: set[int]) -> int:
    """Return the only value of a set, 0 of an empty one."""
    if len(values) > 1:
        raise CompileError(
            f"The decoder has one setting for the {what}, but the layers have {', '.join(map(str, sorted(values)))}; "
            "give them the same, or compile some of these layers with --engine dense"
        )
    return values.pop() if values else 0


def _level_bits(job: Job, shared: bool) -> int:
    """Return the bits of the multiplier's weight operand; 2 bits stand for -1, 0 and 1 only."""
    low, high = min(int(job.weight.min()), 0), max(int(job.weight.max()), 0)
    if shared:
        # a magnitude, which is not negative
        return max(high, -low, 1).bit_length() + 1
    bits = _signed_bits(low, high)
    return 2 if -1 <= low and high <= 1 else max(bits, 3)


def _level_limit(job: Job) -> int:
    """Return the largest magnitude of a level; where there is no weight, a zero-excluded code still means 1."""
    return max(int(np.abs(job.weight).max()), 1)


def _signed_bits(low: int, high: int) -> int:
    return max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1


def _macs(job: Job) -> tuple[int, int]:
    """Return dense and useful MACs (dense format: padded taps and stored zeros of kept taps count as useful)."""
    layer, rows = job.layer, job.out_channels
    if job.linear:
        stored = rows * (job.weight.shape[1] - job.idle_taps)
        useful = stored if job.format is Format.DENSE else int(np.count_nonzero(job.weight))
        return rows * job.source.size, int(useful)
    positions = job.target.shape[1] * job.target.shape[2] * job.windows
    if layer.weight is None:
        if job.reduce:
            return job.source.size, job.source.size
        taps = len(job.taps) - job.idle_taps
        return rows * positions * taps, rows * positions * taps
    dense = int(np.asarray(layer.weight).size) * positions
    if job.format is Format.DENSE:
        return dense, rows * (len(job.taps) - job.idle_taps) * positions
    return dense, int(np.count_nonzero(job.weight)) * positions


def _refuse_wide_levels(jobs: Sequence[Job]) -> None:
    """Raise when a layer's levels are too large for two of them to share an operand of the widest multiplier."""
    for job in jobs:
        bits = pair_bits(_level_limit(job))
        if bits > MAX_PAIR_BITS:
            raise CompileError(
                f"Layer {job.layer.name!r} has weights up to {_level_limit(job)}, two of which need a multiplier "
                f"operand of {bits} bits, but multipliers have {MAX_PAIR_BITS}; store fewer bits a weight or leave out "
                "--set paired_products=1"
            )


def _plan(
    job: Job,
    schedule: Schedule,
    front: Mapping[str, int],
    back: Mapping[str, int],
    config: EngineConfig,
    roms: tuple[Rom, ...],
) -> LayerPlan:
    dense, useful = _macs(job)
    geometry = config.geometry
    per_channel = job.per_channel and not job.linear
    return LayerPlan(
        name=job.layer.name,
        kind=job.layer.kind.value,
        format=job.format,
        layer=replace(job.layer),
        output=job.layer.output,
        shape=job.target.shape,
        front=dict(front),
        back=dict(back),
        schedule=schedule,
        products=geometry.lanes * geometry.cores if per_channel else geometry.products,
        places=tuple(places_of(job, geometry.lanes)),
        macs_dense=dense,
        macs_useful=useful,
        index_bits=job.index_bits,
        weight_bits=job.stored_bits,
        zero_excluded=job.zero_excluded,
        entries=sum(stream.levels.size for group in job.streams for stream in group),
        decoding=job.decoding,
        storage=bit_ledger(job, config, roms),
        idle_slots=job.idle_taps,
        rows_together=rows_together(job, geometry),
        notes=tuple(job.notes),
    )
