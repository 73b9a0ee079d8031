"""The bit ledger: what every stored bit of a layer is for, and the entropy bound it is measured against."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from zeroskip.compiler.program import Rom
from zeroskip.compiler.rom import lane_rows, slot_count
from zeroskip.compiler.sign_add import RunCode, used_runs
from zeroskip.compiler.target import EngineConfig, Format

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

    ``value``: weight codes that are multiplied; ``index``: their relative indices, or the masks of a bitmap;
    ``filler``: escapes, empty mask words, idle lanes and padding rows or columns; ``row_end``: row lengths;
    ``tap_table``: tap or keep-list entries; ``bias``; ``requantize``: multipliers and shifts, or thresholds;
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
    geometry = config.geometry
    useful = job.weight.size if job.format is Format.DENSE else int(np.count_nonzero(job.weight))
    own_index = job.format not in (Format.DENSE, Format.BITMAP)
    slots = slot_count(job, geometry.cores if own_index else geometry.units, geometry.lanes)
    index, slot_bits = useful * job.index_bits, job.stored_bits + job.index_bits
    if job.format is Format.BITMAP:
        # cores without a row store masks without a bit
        index = geometry.cores * sum(len(group[0].codes) for group in job.streams) * job.index_bits
        slot_bits = job.stored_bits
    return {"value": useful * job.stored_bits, "index": index, "filler": (slots - useful) * slot_bits}


def _runs(job: Job, config: EngineConfig, code: RunCode) -> dict[str, int]:
    geometry = config.geometry
    slots = slot_count(job, geometry.units, geometry.lanes)
    stored = slots * code.sign_bits + slots // code.adds * code.magnitude_bits
    codes = escapes = 0
    if job.decoding is None:
        rows = [lane_rows(job)]
    else:
        streams = [stream for group in job.streams for stream in group]
        rows = [stream.levels for stream in streams]
        slots_a_code = 1 if job.decoding.codes_a_slot else job.decoding.elements
        codes = slot_count(job, geometry.cores, geometry.lanes) // slots_a_code
        escapes = codes - sum(int((stream.codes != job.decoding.escape).sum()) for stream in streams)
    ledger = {
        "value": sum(used_runs(row, code.adds) for row in rows) * code.magnitude_bits,
        "sign": sum(int(np.count_nonzero(row)) for row in rows) * code.sign_bits,
        "index": (codes - escapes) * job.index_bits,
    }
    return {**ledger, "filler": stored + codes * job.index_bits - sum(ledger.values())}
