"""Encode the rows of an indexed layer: index width, streams of every core or lane, slots of every group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.encodings import bitmap, relative
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.job import Job, group_members
from zeroskip.compiler.sign_add import shares_runs
from zeroskip.compiler.streams import (
    Decoding,
    Stream,
    encode_bank,
    encode_bitmap,
    encode_patterns,
    encode_relative,
    encode_relative_units,
)
from zeroskip.compiler.target import MIN_DRAIN, Format, Geometry

__all__ = ["choose_mask_bits", "encode_indexed"]

IntArray = NDArray[np.int64]


def encode_indexed(job: Job, geometry: Geometry, index_bits: int | None, tolerance: float = relative.TOLERANCE) -> None:
    """Fix ``decoding``, ``streams`` and ``lengths`` of a layer; zeros that must be stored cost a bit a weight.

    ``index_bits`` is the width of gaps or mask words; where it is None, gaps choose theirs and mask words are widest.
    A gap's width may take ``tolerance`` times the least storage where that saves cycles.
    """
    _share(job, geometry)
    parts = _parts(job)
    job.decoding, streams = _streams(job, parts, geometry.sign_adds, index_bits, tolerance)
    job.index_bits = job.decoding.code_bits
    per_group = _streams_together(job)
    job.streams = [streams[first : first + per_group] for first in range(0, len(streams), per_group)]
    least = (2 if job.windows > 1 else 1) * (1 if job.decoding.bank else job.decoding.elements)
    job.lengths = [max(least, *(stream.slots for stream in group)) for group in job.streams]
    if geometry.sign_adds > 1:
        job.lengths = [-(-length // geometry.sign_adds) * geometry.sign_adds for length in job.lengths]
        return
    _store_zeros(job)


def choose_mask_bits(jobs: Sequence[Job], geometry: Geometry, encoded: Sequence[Job], tolerance: float) -> int:
    """Return the bits of a mask word for all bitmap layers ``jobs``, beside the layers that are ``encoded`` already."""
    layers = []
    for job in jobs:
        _share(job, geometry)
        supports = [np.flatnonzero(rows.any(axis=0)).tolist() for rows in _parts(job)]
        layers.append(bitmap.Rows(supports, job.weight.shape[1], job.stored_bits, _streams_together(job)))
    others = sum(len(stream.codes) for job in encoded for group in job.streams for stream in group)
    return bitmap.choose_width(layers, others, max((job.index_bits for job in encoded), default=1), tolerance=tolerance)


def _share(job: Job, geometry: Geometry) -> None:
    """Fix over how many lanes a row is spread and which rows share a stream."""
    job.split = 1
    if job.linear and job.format is Format.BITMAP:
        raise CompileError(
            f"Layer {job.layer.name!r} is linear: each of its lanes follows a row of its own, but a core decodes one "
            f"bitmap a cycle; give it {Format.RELATIVE.value!r}"
        )
    if job.linear and geometry.banked_vectors:
        job.banked, job.split = True, geometry.lanes
        if job.format is not Format.RELATIVE:
            raise CompileError(
                f"Layer {job.layer.name!r} has {job.format.value} indices, which need vectors in every bank; "
                "leave out --set banked_vectors=1"
            )
    elif job.linear and job.format is Format.RELATIVE:
        job.split = _choose_split(job, geometry)
    job.members = group_members(job, geometry)
    job.shared_stream = not job.linear and geometry.columns > 1 and job.members > 1


def _streams(
    job: Job, parts: list[IntArray], adds: int, index_bits: int | None, tolerance: float
) -> tuple[Decoding, list[Stream]]:
    """Return how the layer is decoded and its streams.

    Where ``adds`` lanes share a multiplier, micro-blocks are decoded in whole runs. In other layers the kept weights
    that follow one another may happen to share their magnitudes, as binary and ternary ones do; if not, each weight
    takes a run.
    """
    decoding = _decoding(job, parts, index_bits, tolerance)
    if job.block is not None:
        decoding = replace(decoding, elements=-(-decoding.elements // adds) * adds)
    streams = _encode(job, parts, decoding)
    if job.block is None and not decoding.bank and not all(shares_runs(stream.levels, adds) for stream in streams):
        decoding = replace(decoding, elements=adds)
        streams = _encode(job, parts, decoding)
        note = f"weights without a common magnitude: {adds} slots each"
        # a layer may be encoded again with another width
        job.notes += [] if note in job.notes else [note]
    return decoding, streams


def _streams_together(job: Job) -> int:
    """Return how many streams of a group run in lock step."""
    return 1 if job.shared_stream else job.members * job.split


def _store_zeros(job: Job) -> None:
    stored = any((stream.levels[:, stream.positions >= 0] == 0).any() for group in job.streams for stream in group)
    if job.zero_excluded and stored:
        job.zero_excluded = False
        job.stored_bits += 1
        job.notes.append(
            f"zeros inside kept blocks or banks: {job.stored_bits} bits a weight instead of {job.stored_bits - 1}"
        )


def _parts(job: Job) -> list[IntArray]:
    """Return the rows that share a stream: a (sub-)row, or with columns all rows of a group."""
    if job.shared_stream:
        return [job.weight[first : first + job.members] for first in range(0, len(job.weight), job.members)]
    if job.banked:
        return [row[None, first :: job.split] for row in job.weight for first in range(job.split)]
    step = -(-job.weight.shape[1] // job.split)
    return [row[None, first * step : (first + 1) * step] for row in job.weight for first in range(job.split)]


def _encode(job: Job, parts: list[IntArray], decoding: Decoding) -> list[Stream]:
    if job.format is Format.BANKS:
        return [encode_bank(rows, decoding) for rows in parts]
    if job.format is Format.BITMAP:
        return [encode_bitmap(rows, decoding) for rows in parts]
    blocks = job.block
    if blocks is None:
        return encode_relative(parts, decoding)
    if job.format is Format.PATTERN:
        return [encode_patterns(rows[0], blocks, decoding, job.shapes) for rows in parts]
    return [encode_relative_units(rows, [bool(rows[:, block].any()) for block in blocks], decoding) for rows in parts]


def _decoding(job: Job, parts: list[IntArray], index_bits: int | None, tolerance: float) -> Decoding:
    """Return how the layer is decoded; the gap width is chosen unless it is given."""
    if job.format is Format.BANKS:
        return _bank_decoding(job, parts)
    if job.format is Format.BITMAP:
        return Decoding(mask_bits=index_bits or bitmap.LIMIT)
    together = _streams_together(job)
    if job.block is None:
        supports = [np.flatnonzero(rows.any(axis=0)).tolist() for rows in parts]
        bits = index_bits or relative.choose_index_bits(
            supports, job.stored_bits, tolerance=tolerance, together=together
        )
        return Decoding(bits)
    supports = [[n for n, block in enumerate(job.block) if rows[:, block].any()] for rows in parts]
    count, size = job.block.shape
    bits = index_bits or relative.choose_index_bits(
        supports, job.stored_bits * size, tolerance=tolerance, together=together
    )
    if job.format is Format.PATTERN:
        elements = max(len(shape) for shape in job.shapes)
        padded = tuple(tuple(p * count for p in [*s, *([s[0]] * (elements - len(s)))]) for s in job.shapes)
        return Decoding(bits, elements=elements, patterns=padded)
    if job.linear:
        return Decoding(bits, elements=size, unit=size, step=1)
    return Decoding(bits, elements=size, step=count)


def _bank_decoding(job: Job, parts: list[IntArray]) -> Decoding:
    structure = job.layer.structure
    length = job.weight.shape[1]
    if structure.get("kind") == "nm":
        bank = int(structure["m"])
    else:
        banks = int(structure["banks"])
        if length % banks:
            raise CompileError(
                f"Layer {job.layer.name!r} has {length} inputs a row, which {banks} banks do not divide; "
                "choose a number of banks that does"
            )
        bank = length // banks
    # two windows may not end in neighbouring cycles, and no code behind the last bank multiplies nothing
    most = 2 if job.windows > 1 and length <= bank else 1
    for rows in parts:
        used = np.zeros(-(-length // bank) * bank, bool)
        used[:length] = rows.any(axis=0)
        most = max(most, int(used.reshape(-1, bank).sum(axis=1).max()))
    return Decoding(max((bank - 1).bit_length(), 1), elements=most, bank=bank)


def _choose_split(job: Job, geometry: Geometry) -> int:
    """Return the split with the fewest cycles, escapes left out."""
    lanes = geometry.lanes * geometry.cores
    best: tuple[int, int] | None = None
    split = 1
    while split <= geometry.lanes:
        step = -(-job.weight.shape[1] // split)
        padded = np.zeros((len(job.weight), split * step), np.int64)
        padded[:, : job.weight.shape[1]] = job.weight
        counts = np.maximum(np.count_nonzero(padded.reshape(-1, step), axis=1), 1) * geometry.sign_adds
        groups = [counts[i : i + lanes] for i in range(0, len(counts), lanes)]
        together = 1 if job.slow or split > 1 else geometry.results
        cycles = sum(max(int(group.max()), -(-len(group) // together), MIN_DRAIN) for group in groups[:-1])
        cycles += int(groups[-1].max()) - (-len(groups[-1]) // together)
        if best is None or cycles < best[0]:
            best = (cycles, split)
        split *= 2
    return 1 if best is None else best[1]
