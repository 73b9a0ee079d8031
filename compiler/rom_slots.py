"""The slots of weight and index images: what each column, core and lane of a layer walks through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.rom_words import weight_code
from zeroskip.compiler.streams import Stream
from zeroskip.compiler.target import Format

if TYPE_CHECKING:
    from zeroskip.compiler.job import Job

__all__ = ["lane_rows", "slot_count", "stored_codes", "unit_indices", "unit_levels"]


def stored_codes(job: Job, levels: np.ndarray, width: int) -> np.ndarray:
    """Return the stored codes of a layer's ``levels``: entries of its codebook, or the levels' own codes."""
    if not job.codebook:
        return weight_code(levels, job.zero_excluded, width)
    order = np.argsort(job.codebook, kind="stable")
    codes: np.ndarray = order[np.searchsorted(np.array(job.codebook)[order], levels)]
    return codes


def unit_levels(job: Job, unit: int, lanes: int) -> np.ndarray:
    """Return the weight levels that one column or core walks through, shape ``(words, lanes)``, 0 where there are none.

    Windowed: the slots one after the other, a lane's worth a word; linear: a word a cycle, each lane its own.
    """
    if job.format is Format.DENSE:
        return _dense_linear_levels(job, unit, lanes) if job.linear else _to_words(_dense_levels(job, unit), lanes)
    row = unit if job.shared_stream else 0
    flat = np.concatenate([_lane_levels(job, group, unit, lanes, row) for group in range(len(job.streams))])
    return flat if job.linear else _to_words(flat[:, 0], lanes)


def unit_indices(job: Job, core: int, lanes: int) -> np.ndarray:
    """Return the index codes that one core walks through, as :func:`unit_levels`."""
    flat = np.concatenate([_lane_codes(job, group, core, lanes) for group in range(len(job.streams))])
    return flat if job.linear else _to_words(flat[:, 0], lanes)


def _to_words(slots: np.ndarray, lanes: int) -> np.ndarray:
    """Cut a run of slots into words of L, the last one filled with zeros."""
    padded = np.zeros(-(-len(slots) // lanes) * lanes, np.int64)
    padded[: len(slots)] = slots
    return padded.reshape(-1, lanes)


def _dense_levels(job: Job, unit: int) -> np.ndarray:
    """Return the rows of one unit one after the other; zeros for units and rows that are not there."""
    if job.shared_row:
        only: np.ndarray = job.weight[0]
        return only
    padded = np.zeros((job.group_count * job.members, job.weight.shape[1]), np.int64)
    padded[: job.weight.shape[0]] = job.weight
    mine = padded[unit :: job.members] if unit < job.members else np.zeros_like(padded[0 :: job.members])
    flat: np.ndarray = mine.reshape(-1)
    return flat


def lane_rows(job: Job) -> np.ndarray:
    """Return the rows of a dense layer as the lanes walk them, shape ``(rows, split, positions)``."""
    padded = np.zeros((len(job.weight), job.positions * job.split), np.int64)
    padded[:, : job.weight.shape[1]] = job.weight
    parts: np.ndarray = padded.reshape(len(padded), job.positions, job.split).transpose(0, 2, 1)
    return parts


def _dense_linear_levels(job: Job, unit: int, lanes: int) -> np.ndarray:
    step = job.positions
    rows, inputs = job.weight.shape
    padded = np.zeros((job.group_count * job.members, step * job.split), np.int64)
    padded[:rows, :inputs] = job.weight
    # (group, lane of the array, position): neighbouring lanes share a row and take its inputs in turn
    shape = (job.group_count, job.members, step, job.split)
    parts = padded.reshape(shape).transpose(0, 1, 3, 2).reshape(job.group_count, job.members * job.split, step)
    mine = np.zeros((job.group_count, lanes, step), np.int64)
    here = parts[:, unit * lanes : (unit + 1) * lanes]
    mine[:, : here.shape[1]] = here
    flat: np.ndarray = mine.transpose(0, 2, 1).reshape(-1, lanes)
    return flat


def _lane_streams(job: Job, group: int, unit: int, lanes: int) -> list[Stream | None]:
    """Return the streams of one core's lanes (windowed: its one stream); None where there is no row."""
    streams = job.streams[group]
    if not job.linear:
        number = 0 if job.shared_stream else unit
        return [streams[number] if number < len(streams) else None]
    return [streams[i] if i < len(streams) else None for i in range(unit * lanes, (unit + 1) * lanes)]


def _lane_levels(job: Job, group: int, unit: int, lanes: int, row: int) -> np.ndarray:
    """Return the levels of a group, shape ``(slots, lanes)``, filled up with zeros."""
    streams = _lane_streams(job, group, unit, lanes)
    levels = np.zeros((job.lengths[group], len(streams)), np.int64)
    for lane, stream in enumerate(streams):
        if stream is not None and row < len(stream.levels):
            levels[: stream.slots, lane] = stream.levels[row]
    return levels


def _lane_codes(job: Job, group: int, core: int, lanes: int) -> np.ndarray:
    """Return the codes of a group, shape ``(codes, lanes)``, filled up with blanks."""
    if job.decoding is None:
        raise CompileError(f"Layer {job.layer.name!r} has no indices")
    streams = _lane_streams(job, group, core, lanes)
    slots = job.lengths[group]
    count = slots if job.decoding.codes_a_slot else slots // job.decoding.elements
    if job.decoding.mask_bits:
        count = len(job.streams[group][0].codes)
    codes = np.full((count, len(streams)), job.decoding.blank, np.int64)
    for lane, stream in enumerate(streams):
        if stream is not None:
            codes[: len(stream.codes), lane] = stream.codes
    return codes


def slot_count(job: Job, units: int, lanes: int) -> int:
    """Return how many parameter slots the layer stores, useful or not, without the fill of its last word."""
    lengths = job.lengths[:1] if job.shared_row else job.lengths
    return sum(lengths) * units * (lanes if job.linear else 1)
