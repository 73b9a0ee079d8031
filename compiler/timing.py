"""The static schedule: when every layer may start, so that no value is read before it is written.

Nothing in the datapath waits for anything but the drain of results, whose cycles are known. So the cycles between two
layers are a number of the program: the compiler finds the fewest that keep the front end's stages, the back end and
the data apart, and the sequencer counts them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.fields import drain_cycles, rows_together, waits_for_columns
from zeroskip.compiler.ir import Kind, Model
from zeroskip.compiler.job import Job
from zeroskip.compiler.program import Schedule, Timing
from zeroskip.compiler.requantization import operand_parts
from zeroskip.compiler.schedule import tile_of_positions
from zeroskip.compiler.target import EngineConfig

__all__ = [
    "argmax_cycles",
    "busy_cycles",
    "first_result",
    "last_accept",
    "plan_timing",
    "post_cycles",
    "release_cycles",
    "scale_cycles",
    "search_cycles",
    "unit_ends",
]

IntArray = NDArray[np.int64]

NEVER = np.int64(1 << 40)
"""A cycle that does not come."""

DECODE = 4
"""hw.decoders: from a slot to its position: index ROM, slot, register behind the sum."""
BITMAP = 2
"""hw.decoders, on top of that in designs with bitmap layers: the present mask word, the number of its lowest bit."""
KEEP = 2
"""hw.gather: a linear layer's keep-list."""
WINDOWED_ADDRESS = 10
"""hw.gather, windowed layers: from a position to the bank address."""
LINEAR_ADDRESS = 1
"""hw.gather, linear layers."""
READ = 4
"""hw.gather: from the bank address to the activation."""
ACCUMULATE = 4
"""hw.array: from the activation to the first drained value; pooling adds 2, a shared multiplier its turns."""
SCALE = 9
"""hw.postprocess: from a drained value to the result, by multiplier and shift; each of two steps more takes 1 more."""
COMPARE = 2
"""hw.search: a stage: from an address to the next one, or to the count."""
ADDRESS = 4
"""hw.writer: from a drained value to its address, before which no result can be written."""
WRITE = 3
"""From a result to the cycle in which its bank may be read again (hw.back_end)."""
BACK_SWITCH = 4
"""From a layer's last result to the next layer's first drained value (hw.sequencer: the descriptor changes)."""
FINISH = 2
"""From the last result to the cycle in which the output begins to leave."""
ARGMAX = 1
"""hw.argmax: the register of the largest result; each halving of the results of a cycle takes 1 more."""
START = 2
"""From a layer's last slot to the start of the next with a gap of 0 (hw.sequencer)."""
LATE_FIELDS = 3
"""Cycles by which the fields of the last gather stages are delayed, so that the next layer can start earlier."""
LOADED = 4
"""From the last input word accepted to the start of the first layer."""
LOADER = 3
"""hw.loader: from a word accepted to its write, in which no result may be written."""


def scale_cycles(config: EngineConfig) -> int:
    """Return the cycles from a drained value to the result by multiplier and shift."""
    return SCALE + int(len(operand_parts(config)[1]) > 1) + int(config.has_two_steps)


def search_cycles(config: EngineConfig) -> int:
    """Return the cycles from a drained value to the result by thresholds."""
    return COMPARE * config.search_stages + 1


def post_cycles(config: EngineConfig) -> int:
    """Return the cycles from a drained value to the result: one number for all layers of a design."""
    return max(
        ADDRESS,
        scale_cycles(config) if config.has_scales else 0,
        search_cycles(config) if config.search_stages else 0,
    )


def argmax_cycles(config: EngineConfig) -> int:
    """Return the cycles from the last result to the number of the largest, which leaves instead of the results."""
    if not config.argmax_size:
        return 0
    parts = config.geometry.results if config.has_wide_output else 1
    return ARGMAX + (parts - 1).bit_length()


def decode_cycles(config: EngineConfig) -> int:
    """Return the cycles from a slot to its position."""
    if not config.indexed:
        return 0
    return DECODE + BITMAP if config.mask_bits else DECODE


def address_cycles(linear: bool, config: EngineConfig) -> int:
    """Return the cycles from a slot to the cycle in which the banks take its address."""
    if linear:
        return decode_cycles(config) + LINEAR_ADDRESS + (KEEP if config.has_keep else 0)
    return decode_cycles(config) + WINDOWED_ADDRESS


def release_cycles(config: EngineConfig) -> int:
    """Return the cycles from a slot to the one after the last unit has read its weight: its word may be overwritten."""
    kinds = [kind for kind, there in ((True, config.has_linear), (False, config.has_windowed)) if there]
    return max(address_cycles(linear, config) for linear in kinds) + config.geometry.skew(config.geometry.units - 1)


def column_wait(job: Job, config: EngineConfig) -> int:
    """Return the cycles that a unit's first value waits in the chain for the last column's."""
    return config.drain_delay if waits_for_columns(job, config.geometry) else 0


def first_result(job: Job, config: EngineConfig) -> int:
    """Return the cycles from the last slot of a unit to its first drained value."""
    wait = column_wait(job, config)
    runs = config.product_cycles - 2 + config.turn_cycles
    return address_cycles(job.linear, config) + READ + ACCUMULATE + runs + 2 * int(config.has_pooling) + wait


def front_gap(linear: bool, config: EngineConfig) -> int:
    """Return the fewest cycles of a gap after a layer: its last slot must have passed the stages that see fields."""
    last_use = address_cycles(linear, config)
    late = address_cycles(linear, config) + READ - 1 - LATE_FIELDS
    return max(last_use, late, 0) + 1 - START


def unit_ends(schedule: Schedule) -> IntArray:
    """Return the issue cycle of every unit's last slot, the layer's first slot being cycle 0."""
    lengths = np.repeat(np.array(schedule.lengths, np.int64) * schedule.windows, schedule.tiles)
    steps = np.maximum(lengths, schedule.drain)
    steps[0] = max(lengths[0], schedule.lead)
    ends: IntArray = np.cumsum(steps) - 1
    return ends


def plan_timing(
    model: Model,
    jobs: Sequence[Job],
    schedules: Sequence[Schedule],
    config: EngineConfig,
    release: int,
) -> Timing:
    """Return the earliest start of every layer; see the module.

    ``release`` is the layer after whose end the input's memory is free.
    """
    source = model.tensors[model.input]
    starts, gaps = [0], []
    written: dict[str, IntArray] = {source.name: np.full((*source.shape, 1, 1)[:3], -NEVER)}
    ends = [unit_ends(schedule) for schedule in schedules]
    post = post_cycles(config)
    for index, job in enumerate(jobs):
        first_slot = starts[index] + 1
        result = first_result(job, config)
        last_slot = first_slot + int(ends[index][-1])
        last_drained = last_slot + result + drain_cycles(job, config.geometry) - 1
        written[job.layer.output] = _write_times(job, ends[index], config) + first_slot + result + post + WRITE
        earliest = last_slot + START + max(front_gap(job.linear, config), 0)
        following = jobs[(index + 1) % len(jobs)]
        after = ends[(index + 1) % len(jobs)]
        # the first result of the next layer meets a back end that has changed over
        first_drain = 1 + int(after[0]) + first_result(following, config)
        earliest = max(earliest, last_drained + post + BACK_SWITCH - first_drain)
        # where the first column waits for the others, it must find the chain empty all the same
        earliest = max(earliest, last_drained + 1 - (first_drain - column_wait(following, config)))
        if index + 1 < len(jobs):
            reads = _read_times(following, schedules[index + 1], config) + 1
            for name in following.layer.inputs:
                earliest = max(earliest, int((_written(model, written, name) - reads).max()))
            starts.append(earliest)
        gaps.append(earliest - last_slot - START)
    finish = last_drained + post + FINISH + argmax_cycles(config)
    period = earliest
    released = 1 + starts[release] + int(ends[release][-1]) + 1 + gaps[release] + 1
    blocked = tuple((first_result(job, config) + post - LOADER, drain_cycles(job, config.geometry)) for job in jobs)
    slots = [end + start + 1 for end, start in zip(ends, starts, strict=True)]
    loaded = last_accept(released, busy_cycles(blocked, slots, released), source.size) + LOADED
    return Timing(tuple(starts), tuple(gaps), finish, period, released, loaded, blocked)


def _written(model: Model, written: dict[str, IntArray], name: str) -> IntArray:
    """Return when each element of a tensor is written, the joined tensors of a concatenation one after the other."""
    if name not in written:
        layer = model.producer(name)
        if layer is None or layer.kind is not Kind.CONCAT:
            raise CompileError(f"Tensor {name!r} is read before it is written")
        written[name] = np.concatenate([_written(model, written, part) for part in layer.inputs])
    return written[name]


def _write_times(job: Job, ends: IntArray, config: EngineConfig) -> IntArray:
    """Return when each output element leaves, after its unit's end: shape of the output as (C, H, W)."""
    geometry = config.geometry
    results = 1 if job.slow else geometry.results
    channel = np.arange(job.out_channels)
    group, member = channel // job.members, channel % job.members
    if (rows := rows_together(job, geometry)) > 1:
        return (ends[group] + member // rows)[:, None, None]
    if job.sums:
        # the last of the lanes that share a row or a map completes its sum
        lanes = job.split if job.linear else geometry.lanes
        return (ends[group] + (member + 1) * lanes - 1)[:, None, None]
    _, _, tile = job.windowed()
    _, height, width = job.target.shape
    number, lane = tile_of_positions(tile, job.target.shape, geometry.lanes)
    tiles = job.tiles(geometry.lanes)
    unit_end = ends.reshape(-1, tiles)[group][:, number]
    times: IntArray = unit_end + (member * geometry.lanes)[:, None] // results + lane // results
    return times.reshape(job.out_channels, height, width)


def _read_times(job: Job, schedule: Schedule, config: EngineConfig) -> IntArray:
    """Return a cycle before which no element of the input is read, after the first slot; shape (C, H, W).

    Exact for linear layers, but for runs that wait for the drain. For windowed ones a channel is read no earlier than
    its first slot in a row, a pixel no earlier than the first tile that can see it.
    """
    address = address_cycles(job.linear, config)
    if job.linear:
        return _linear_reads(job, schedule) + address
    if job.reduce:
        return np.zeros(job.source.shape, np.int64) + _channel_slots(job, schedule)[:, None, None] + address
    access, _, _ = job.windowed()
    first = _tile_begins(job, schedule, config)
    _, height, width = job.source.shape
    pixels = np.full((height, width), NEVER)
    # rows (columns) that an output row (column) may read, padding left out
    for y, x in np.ndindex(first.shape):
        top, left = (p * s - d for p, s, d in zip((y, x), access.stride, access.padding, strict=True))
        window = pixels[max(0, top) : top + access.span[0], max(0, left) : left + access.span[1]]
        np.minimum(window, first[y, x], out=window)
    times: IntArray = pixels[None] + _channel_slots(job, schedule)[:, None, None] + address
    return times


def _channel_slots(job: Job, schedule: Schedule) -> IntArray:
    """Return how many slots after the start of a tile an input channel is read at the earliest, in any row."""
    channels = job.source.shape[0]
    if job.per_channel:
        return _group_begins(schedule)[np.arange(channels) // job.members]
    if job.groups > 1:
        return np.zeros(channels, np.int64)
    taps = np.array([channel for channel, _, _ in job.taps])
    slots = np.full(channels, NEVER)
    if not job.streams:
        np.minimum.at(slots, taps, np.arange(len(taps)))
        return slots
    for begin, group in zip(_group_begins(schedule), job.streams, strict=True):
        for stream in group:
            slot = np.flatnonzero((stream.positions >= 0) & (stream.positions < len(taps)))
            np.minimum.at(slots, taps[stream.positions[slot]], slot + begin)
    return slots


def _unit_begins(schedule: Schedule) -> IntArray:
    """Return a cycle no later than the first slot of every unit, shape (groups, tiles): its last slot or run waits."""
    ends = unit_ends(schedule)
    begins: IntArray = np.concatenate([[0], ends[:-1] + 1]).reshape(-1, schedule.tiles)
    return begins


def _group_begins(schedule: Schedule) -> IntArray:
    """Return the first slot of every group."""
    begins: IntArray = _unit_begins(schedule)[:, 0]
    return begins


def _tile_begins(job: Job, schedule: Schedule, config: EngineConfig) -> IntArray:
    """Return the first slot of each output position's tile from its group's first one, in the group where it is least.

    Shape (H, W).
    """
    _, _, tile = job.windowed()
    units = _unit_begins(schedule)
    begins: IntArray = (units - units[:, :1]).min(axis=0)
    number, _ = tile_of_positions(tile, job.target.shape, config.geometry.lanes)
    return begins[number].reshape(job.target.shape[1:])


def _linear_reads(job: Job, schedule: Schedule) -> IntArray:
    """Return each input's first slot; NEVER where no row reads it."""
    times = np.full(job.source.size, NEVER)
    if job.streams:
        for begin, group in zip(_group_begins(schedule), job.streams, strict=True):
            for number, stream in enumerate(group):
                position = stream.positions + number % job.split * job.positions
                if job.banked:
                    position = stream.positions * job.split + number % job.split
                slot = np.flatnonzero((stream.positions >= 0) & (position < len(times)))
                np.minimum.at(times, position[slot], slot + begin)
    elif job.keep is not None:
        np.minimum.at(times, job.keep, np.arange(len(job.keep)))
    else:
        times = np.arange(job.source.size) // job.split
    shape = (*job.source.shape, 1, 1)[:3]
    return times.reshape(shape)


def busy_cycles(blocked: Sequence[tuple[int, int]], slots: Sequence[IntArray], released: int) -> list[tuple[int, int]]:
    """Return the intervals after ``released`` in which no input word is accepted: a result would be written with it.

    ``slots`` are the cycles of the last slots of every layer's units, ``blocked`` as in :class:`Timing`.
    """
    intervals: list[tuple[int, int]] = []
    for (wait, length), ends in zip(blocked, slots, strict=True):
        first = ends + wait
        intervals.extend((begin, begin + length) for begin in first[first + length > released].tolist())
    return sorted(intervals)


def last_accept(released: int, busy: Sequence[tuple[int, int]], words: int) -> int:
    """Return the cycle in which the last of ``words`` input words is accepted, one every free cycle."""
    cycle, left = released, words
    for first, end in busy:
        free = max(0, first - cycle)
        if free >= left:
            break
        left -= free
        cycle = max(cycle, end)
    return cycle + left - 1
