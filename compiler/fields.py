"""The descriptor fields of a layer: what the front end (operands) and the back end (results) need to know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zeroskip.compiler.ir import Kind, Rounding
from zeroskip.compiler.job import Job
from zeroskip.compiler.program import Schedule, Storage, TensorLayout
from zeroskip.compiler.rom import places_of
from zeroskip.compiler.streams import Decoding
from zeroskip.compiler.target import MIN_DRAIN, MIN_LEAD, WRITE_WIDTHS, EngineConfig, Format, Geometry
from zeroskip.compiler.thresholds import search_stages

__all__ = [
    "back_fields",
    "bank_conflicts",
    "drain_cycles",
    "drained_values",
    "front_fields",
    "is_slow",
    "is_wide",
    "rows_together",
    "schedule_of",
    "waits_for_columns",
]


def is_slow(job: Job, layout: TensorLayout, geometry: Geometry, part: int | None) -> bool:
    """Whether the results of a layer must leave the array one a cycle.

    So it is for reduced maps, where results that would leave together lie in the same bank, and for vectors and outputs
    whose results do not fill words (:func:`is_wide`). ``part`` is the offset of the layer's
    output in the concatenation it is a part of, if it is. A linear layer is slow in any case if its rows are spread
    over lanes, which is decided later.
    """
    if geometry.results == 1:
        return False
    if layout.storage is not Storage.BANKED:
        return not is_wide(job, layout, geometry, part)
    return job.sums or bank_conflicts(job, layout, geometry) > 0


def bank_conflicts(job: Job, layout: TensorLayout, geometry: Geometry) -> int:
    """Return how many words of R results that leave together have two for the same bank."""
    y, x = np.array([place or (-1, -1) for place in places_of(job, geometry.lanes)]).T
    banks = (np.asarray(layout.rows)[y] + np.asarray(layout.columns)[x]) % geometry.lanes
    # positions behind the map are nobody's: each a bank of its own
    banks = np.where(y < 0, -1 - np.arange(len(y)), banks).reshape(-1, geometry.results)
    banks.sort(axis=1)
    return int(np.count_nonzero((banks[:, 1:] == banks[:, :-1]).any(axis=1)))


def is_wide(job: Job, layout: TensorLayout, geometry: Geometry, part: int | None) -> bool:
    """Whether the results of a cycle are one word of a vector or of the output, in order.

    Then every bank, or the output buffer, takes them at once.

    Rows of a linear layer are; their last word may end behind the vector, where no other part may follow.
    """
    results = geometry.results
    if results not in WRITE_WIDTHS or layout.storage is Storage.BANKED or job.reduce or (part or 0) % results:
        return False
    if job.linear:
        return job.scales is not None and (part is None or job.out_channels % results == 0)
    places = places_of(job, geometry.lanes)
    if layout.channel_step % results and job.out_channels > 1:
        return False
    offsets = [-1 if place is None else layout.rows[place[0]] + layout.columns[place[1]] for place in places]
    for start in range(0, len(offsets), results):
        word = offsets[start : start + results]
        if any(offset >= 0 and (word[0] % results or offset != word[0] + n) for n, offset in enumerate(word)):
            return False
    return True


def rows_together(job: Job, geometry: Geometry) -> int:
    """Return how many rows of a linear layer leave the array in a cycle, 1 of any other layer."""
    return 1 if job.slow or not job.linear else geometry.results


def waits_for_columns(job: Job, geometry: Geometry) -> bool:
    """Whether a unit's results come from more than the first column."""
    return drained_values(job, geometry) > geometry.lanes * geometry.cores


def drained_values(job: Job, geometry: Geometry) -> int:
    """Return how many accumulators of a unit are drained."""
    return job.members * job.split if job.linear else job.members * geometry.lanes


def drain_cycles(job: Job, geometry: Geometry) -> int:
    """Return the cycles in which a unit's results leave the array."""
    return -(-drained_values(job, geometry) // (1 if job.slow else geometry.results))


def schedule_of(job: Job, geometry: Geometry, drain_delay: int, indexed: bool) -> Schedule:
    """Return when the layer's slots issue; with one member the first column need not wait for the others."""
    cycles = drain_cycles(job, geometry)
    if waits_for_columns(job, geometry):
        cycles += drain_delay
    least, lead = (MIN_DRAIN, MIN_LEAD) if indexed else (1, 1)
    lengths = tuple(job.lengths) if not job.shared_row else tuple(job.lengths[:1]) * job.group_count
    return Schedule(lengths, job.windows, job.tiles(geometry.lanes), max(cycles, least), lead)


def front_fields(
    job: Job, schedule: Schedule, placed: Mapping[str, TensorLayout], config: EngineConfig
) -> dict[str, int]:
    """Return the fields of issue, decoder, gather and weight feed that do not point into an image."""
    layout = placed[job.layer.inputs[0]]
    fields = {
        "linear": int(job.linear),
        "row_shared": int(job.shared_row),
        "window_last": schedule.windows - 1,
        "tile_last": schedule.tiles - 1,
        "group_last": job.group_count - 1,
        "drain_wait": schedule.drain - 1,
        "zero_excluded": int(job.zero_excluded),
        "in_signed": int(job.source.signed),
    }
    if config.drain_delay:
        fields["one_column"] = int(not waits_for_columns(job, config.geometry))
    if config.codebooks:
        fields["codebook"] = config.codebooks.index(job.codebook) + 1 if job.codebook else 0
    if config.indexed:
        fields.update(_decoder_fields(job, config))
        if config.mask_bits:
            fields.update(_bitmap_fields(job, schedule))
    else:
        fields["slot_last"] = job.lengths[0] - 1
    fields.update(_linear_fields(job, layout, config) if job.linear else _windowed_fields(job, layout, config))
    return fields


def _decoder_fields(job: Job, config: EngineConfig) -> dict[str, int]:
    """How index codes become positions; a counted layer has none."""
    decoding = job.decoding
    if decoding is None:
        fields = {"escape": 1 << config.index_width, "counted": 1, "element_last": 0, "codes_a_slot": 1}
        return fields | ({"bank": 0, "banked": 0} if config.has_banks else {})
    fields = {
        "escape": _escape(decoding, config.index_width),
        "counted": 0,
        "element_last": decoding.elements - 1,
        "codes_a_slot": int(decoding.codes_a_slot),
    }
    if config.has_banks:
        # a mask word is a bank whose slots end with its last set bit
        bank = decoding.bank or decoding.mask_bits
        fields |= {"bank": bank, "banked": int(bank > 0)}
    if config.has_steps:
        fields["element_step"] = decoding.step
    if config.patterns:
        fields["pattern"] = config.patterns.index(decoding.patterns) + 1 if decoding.patterns else 0
    if config.linear_unit > 1:
        fields["in_units"] = int(decoding.unit > 1)
    return fields


def _escape(decoding: Decoding, index_width: int) -> int:
    """Return the code that multiplies nothing."""
    if decoding.mask_bits:
        return (1 << index_width) - 1
    # no code reaches one above the widest index
    return 1 << index_width if decoding.bank else decoding.escape


def _bitmap_fields(job: Job, schedule: Schedule) -> dict[str, int]:
    """How many mask words a row has, and how often each row is walked."""
    if job.format is not Format.BITMAP:
        return {"masked": 0, "mask_last": 0, "pass_last": 0}
    return {
        "masked": 1,
        "mask_last": len(job.streams[0][0].codes) - 1,
        "pass_last": schedule.windows * schedule.tiles - 1,
    }


def _linear_fields(job: Job, layout: TensorLayout, config: EngineConfig) -> dict[str, int]:
    """Where each lane starts to read the input vector."""
    kept = job.keep is not None and job.format is Format.DENSE
    fields = {"keep": int(kept)}
    lanes = config.geometry.lanes if config.has_split else 1
    # dense lanes take the inputs of their row in turn, decoders begin at a run of their own
    step = 0 if job.banked else 1 if job.format is Format.DENSE else job.positions
    for lane in range(lanes):
        fields[f"lane_base_{lane}"] = 0 if kept else layout.base + lane % job.split * step
    if config.has_split:
        fields["position_step"] = job.split if job.format is Format.DENSE and not job.banked else 1
    return fields


def _windowed_fields(job: Job, layout: TensorLayout, config: EngineConfig) -> dict[str, int]:
    """Tile and window steps, the channels of a group, lane offsets and padding."""
    lanes = config.geometry.lanes
    access, plane, tile = job.windowed()
    tiles_x = job.tiles(lanes) if tile.flat else -(-job.target.shape[2] // tile.x)
    step = layout.channel_step // lanes
    repeat, group_step = 1, 0
    if job.per_channel:
        group_step = step * job.members
    elif job.groups > 1:
        repeat = job.group_count // job.groups
        group_step = job.source.shape[0] // job.groups * step
    fields = {
        **({"position_step": 1} if config.has_split else {}),
        "in_base": layout.base,
        "tile_x_last": tiles_x - 1,
        "window_y_last": access.windows[0] - 1,
        "window_x_last": access.windows[1] - 1,
        "window_step_y": access.step[0],
        "window_step_x": access.step[1],
        "tile_step_y": tile.y * plane.pitch,
        "tile_step_x": tile.x,
        "repeat_last": repeat - 1,
        "group_step": group_step,
    }
    if config.has_core_words:
        for core in range(config.geometry.cores):
            fields[f"core_word_{core}"] = core * step if job.per_channel else 0
    if config.has_row_offsets:
        for lane in range(lanes):
            crossed = 0 if tile.flat else lane // tile.x
            fields[f"lane_word_{lane}"] = crossed * (plane.pitch - tile.x) // lanes
    if config.has_padding:
        # a reduced map has one mask a slot, found by the slot's own number
        padded = any(job.layer.padding)
        fields["pad_code"] = _pad_code(job)
        span_y, span_x = access.span
        fields["mask_y_tile"] = span_y if padded and tile.flat else 0
        fields["mask_y_row"] = span_y if padded and not tile.flat else 0
        fields["mask_x_tile"] = span_x if padded else 0
    return fields


def _pad_code(job: Job) -> int:
    """Return what a lane outside the map takes."""
    if job.reduce:
        return 0
    return job.source.lo if job.layer.kind is Kind.MAX_POOL2D else job.source.zero_point


def back_fields(job: Job, schedule: Schedule, layout: TensorLayout, config: EngineConfig) -> dict[str, int]:
    """Return the fields of drain, post-processor and writer that do not point into an image."""
    geometry = config.geometry
    # rows that leave together are one member, and their word one channel
    rows = rows_together(job, geometry)
    per_member = job.split if job.linear else geometry.lanes // (1 if job.slow else geometry.results)
    fields = {
        "drain_last": drain_cycles(job, geometry) - 1,
        "place_last": per_member - 1,
        "member_last": -(-job.members // rows) - 1,
        "tile_last": schedule.tiles - 1,
        "group_last": job.group_count - 1,
        "channels": -(-job.out_channels // rows),
        "channel_step": layout.channel_step * rows,
        "out_base": layout.base * (geometry.lanes if layout.storage is Storage.BANKED else 1),
        "replicated": int(layout.storage is Storage.REPLICATED),
        "to_output": int(layout.storage is Storage.OUTPUT),
    }
    if config.has_sums:
        fields["sums"] = int(job.sums)
    if config.has_slow:
        fields["slow"] = int(job.slow)
    return {**fields, **_requantize_fields(job, config)}


def _requantize_fields(job: Job, config: EngineConfig) -> dict[str, int]:
    pooling = job.layer.kind in (Kind.MAX_POOL2D, Kind.AVG_POOL2D)
    scales = job.scales
    if scales is None:
        # a count begins at the smallest code, and needs no clamp
        return {"search_stages": search_stages(job.thresholds), "zero_point": job.target.lo}
    fields = {
        "zero_point": 0 if pooling else job.target.zero_point,
        "clamp_low": job.layer.clamp[0],
        "clamp_high": job.layer.clamp[1],
    }
    if not config.per_channel:
        if config.multiplier_width:
            fields["multiplier"] = int(scales.multiplier[0])
        if config.shift_width:
            fields["shift"] = int(scales.shift[0]) - config.shift_min
    if config.search_stages:
        fields["search_stages"] = 0
    if config.has_two_steps:
        fields["two_steps"] = int(scales.rounding is Rounding.TFLITE_DOUBLE)
    if config.has_half_away:
        fields["half_away"] = int(scales.rounding is Rounding.HALF_AWAY)
    if config.has_half_even:
        fields["half_even"] = int(scales.rounding is Rounding.HALF_EVEN)
    if config.has_floor:
        fields["floor"] = int(scales.rounding is Rounding.FLOOR)
    return fields
