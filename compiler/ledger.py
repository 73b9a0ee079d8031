"""The bit ledger: what every stored bit of a layer is for, and the entropy bound it is measured against."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from zeroskip.compiler.program import Rom
from zeroskip.compiler.rom import lane_rows, slot_count
from zeroskip.compiler.sign_add import RunCode, used_runs
from zeroskip.compiler.target import EngineConfig, Format, Geometry

if TYPE_CHECKING:
    from zeroskip.compiler.job import Job

__all__ = ["bit_ledger", "entropy_bound"]


def entropy_bound(weight: np.ndarray) -> int:
    """Return the bits an ideal coder needs for the values and zeros of ``weight`` as independent symbols."""
    _, counts = np.unique(weight, return_counts=True)
    total = int(counts.sum())
    return math.ceil(-sum(int(n) * math.log2(int(n) / total) for n in counts))


def bit_ledger(job: Job, config: EngineConfig, roms: tuple[Rom, ...]) -> dict[str, int]:
    """Count the stored bits of one layer.

    ``value``: weight codes that are multiplied; ``index``: their index codes, once for all columns, or the masks of a
    bitmap; ``filler``: escapes, slots of empty mask words, zeros of kept blocks, idle lanes, padding rows and columns;
    ``row_end``: row lengths; ``tap_table``: tap or keep-list entries; ``bias``; ``requantize``: multipliers and shifts,
    or thresholds;
    ``padding``: physical bits of the parameter words beyond all that. ``total`` is their sum;
    ``entropy_bound`` is no part of it. Where lanes share multipliers, ``value`` counts the magnitudes of runs that have
    a weight, ``sign`` the signs of the weights, and what is stored for weights of 0 is filler.
    """
    name = job.layer.name
    physical = 0
    tables = {"rows": 0, "taps": 0}
    thresholds = 0
    for rom in roms:
        count = sum(segment.count for segment in rom.segments if segment.layer == name)
        if rom.name.startswith(("weights_", "index_")):
            physical += count * rom.word_bits
        elif rom.name in tables:
            tables[rom.name] += count * rom.word_bits
        elif rom.name.startswith("thresholds_"):
            thresholds += count * rom.word_bits
    scale_bits = config.multiplier_width + config.shift_width
    parameters = _parameters(job, config) if config.run_code is None else _runs(job, config, config.run_code)
    scale_bits *= len(job.bias) if config.per_channel else 1
    ledger = {
        **parameters,
        "row_end": tables["rows"],
        "tap_table": tables["taps"],
        "bias": len(job.bias) * config.bias_width if job.scales is not None else 0,
        "requantize": scale_bits if job.scales is not None else thresholds,
    }
    ledger["padding"] = physical - sum(parameters.values())
    ledger["total"] = sum(ledger.values())
    weight = job.weight if job.layer.weight is None else np.asarray(job.layer.weight)
    ledger["entropy_bound"] = entropy_bound(weight)
    return ledger


def _parameters(job: Job, config: EngineConfig) -> dict[str, int]:
    useful = job.weight.size if job.format is Format.DENSE else int(np.count_nonzero(job.weight))
    slots = slot_count(job, config.geometry.units, config.geometry.lanes)
    codes, naming = _index_codes(job, config.geometry)
    return {
        "value": useful * job.stored_bits,
        "index": naming * job.index_bits,
        "filler": (slots - useful) * job.stored_bits + (codes - naming) * job.index_bits,
    }


def _runs(job: Job, config: EngineConfig, code: RunCode) -> dict[str, int]:
    slots = slot_count(job, config.geometry.units, config.geometry.lanes)
    stored = slots * code.sign_bits + slots // code.adds * code.magnitude_bits
    rows = [lane_rows(job)] if job.decoding is None else [stream.levels for group in job.streams for stream in group]
    codes, naming = _index_codes(job, config.geometry)
    ledger = {
        "value": sum(used_runs(row, code.adds) for row in rows) * code.magnitude_bits,
        "sign": sum(int(np.count_nonzero(row)) for row in rows) * code.sign_bits,
        "index": naming * job.index_bits,
    }
    return {**ledger, "filler": stored + codes * job.index_bits - sum(ledger.values())}


def _index_codes(job: Job, geometry: Geometry) -> tuple[int, int]:
    """Return how many index codes are stored, columns sharing theirs, and how many of them name a weight."""
    if job.decoding is None:
        return 0, 0
    if job.decoding.mask_bits:
        # a bit that is not set says something, too; cores without a row store masks without a bit
        masks = geometry.cores * sum(len(group[0].codes) for group in job.streams)
        return masks, masks
    slots_a_code = 1 if job.decoding.codes_a_slot else job.decoding.elements
    levels = [stream.levels.any(axis=0).reshape(-1, slots_a_code) for group in job.streams for stream in group]
    naming = sum(int(np.count_nonzero(slots.any(axis=1))) for slots in levels)
    return slot_count(job, geometry.cores, geometry.lanes) // slots_a_code, naming
