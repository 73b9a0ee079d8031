"""Words of ROM images: named fields, and the stored codes of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from zeroskip.compiler.program import FieldSpec
from zeroskip.compiler.sign_add import RunCode

__all__ = ["field_layout", "pack_slots", "pack_word", "run_fields", "unpack_word", "weight_code", "weight_level"]


def weight_code(levels: np.ndarray, zero_excluded: bool, width: int) -> np.ndarray:
    """Return the stored codes of ``levels``: two's complement in ``width`` bits, zero-excluded positive ones less 1."""
    codes = np.asarray(levels, np.int64)
    if zero_excluded:
        codes = np.where(codes > 0, codes - 1, codes)
    return codes & ((1 << width) - 1)


def weight_level(codes: np.ndarray, zero_excluded: bool, width: int) -> np.ndarray:
    """Return the levels of stored ``codes``, the inverse of :func:`weight_code`."""
    codes = np.asarray(codes, np.int64)
    signed = np.where(codes >> (width - 1) & 1, codes - (1 << width), codes)
    return np.where(signed >= 0, signed + 1, signed) if zero_excluded else signed


def pack_word(fields: Sequence[FieldSpec], values: Mapping[str, int]) -> int:
    """Pack named values into one ROM word."""
    word = 0
    for spec in fields:
        value = values[spec.name]
        low, high = (-(1 << (spec.bits - 1)), (1 << (spec.bits - 1)) - 1) if spec.signed else (0, (1 << spec.bits) - 1)
        if not low <= value <= high:
            raise ValueError(f"Field {spec.name!r} must be {low} to {high}, not {value!r}")
        word |= (value & ((1 << spec.bits) - 1)) << spec.lsb
    return word


def unpack_word(fields: Sequence[FieldSpec], word: int) -> dict[str, int]:
    """Unpack a ROM word into named values, the inverse of :func:`pack_word`."""
    values = {}
    for spec in fields:
        value = word >> spec.lsb & ((1 << spec.bits) - 1)
        values[spec.name] = value - (1 << spec.bits) if spec.signed and value >> (spec.bits - 1) else value
    return values


def field_layout(rows: Sequence[Mapping[str, int]]) -> tuple[FieldSpec, ...]:
    """Lay out the fields of ``rows``, each just wide enough, in sorted order from bit 0."""
    specs = []
    lsb = 0
    for name in sorted({name for row in rows for name in row}):
        values = [row.get(name, 0) for row in rows]
        signed = min(values) < 0
        bits = max(1, max((v if v >= 0 else -v - 1).bit_length() for v in values)) + int(signed)
        specs.append(FieldSpec(name, lsb, bits, signed))
        lsb += bits
    return tuple(specs)


def pack_slots(slots: np.ndarray, bits: int) -> list[int]:
    """Pack slot values of shape ``(words, lanes)`` into words, slot 0 in the low bits."""
    words = np.zeros(slots.shape[0], object)
    for lane in range(slots.shape[1]):
        words += slots[:, lane].astype(object) << (lane * bits)
    return [int(word) for word in words]


def run_fields(runs: RunCode) -> tuple[FieldSpec, ...]:
    """Return the fields of a slot that holds a run."""
    signs = [FieldSpec(f"sign_{n}", n * runs.sign_bits, runs.sign_bits, runs.sign_bits > 1) for n in range(runs.adds)]
    return (*signs, FieldSpec("magnitude", runs.adds * runs.sign_bits, runs.magnitude_bits))
