"""What travels through the datapath beside the data: the flags of a slot, the descriptor layout, delay lines."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Shape, ShapeCastable, Signal, Value, signed, unsigned
from amaranth.lib import data

from zeroskip.compiler.program import FieldSpec

__all__ = ["FLAGS", "delay", "descriptor_layout", "rotate_left", "rotate_right"]

FLAGS = data.StructLayout({"valid": 1, "first": 1, "last": 1, "unit_first": 1, "unit_last": 1, "group_last": 1})
"""``first``/``last`` slot of an accumulation, in the ``unit_first`` window of a unit, at a unit's, a group's end."""


def descriptor_layout(fields: Sequence[FieldSpec]) -> data.StructLayout:
    """Return the layout of a ROM word whose fields lie one after the other from bit 0."""
    return data.StructLayout({spec.name: signed(spec.bits) if spec.signed else unsigned(spec.bits) for spec in fields})


def delay(m: Module, value: Value, cycles: int, shape: Shape | ShapeCastable | None = None) -> Value:
    """Return ``value`` delayed by ``cycles`` registers; only flags are reset, data need not be."""
    if shape is None:
        shape = value.shape()
    for _ in range(cycles):
        stage = Signal(shape, reset_less=shape is not FLAGS)
        m.d.sync += stage.eq(value)
        value = stage
    return value


def rotate_left(values: Sequence[Value], amount: Value, bits: range) -> list[Value]:
    """Rotate ``values`` so that output ``i`` is input ``i + amount``, by the bits of ``amount`` in ``bits`` only."""
    result = list(values)
    count = len(result)
    for bit in bits:
        step = 1 << bit
        result = [Mux(amount[bit], result[(i + step) % count], result[i]) for i in range(count)]
    return result


def rotate_right(values: Sequence[Value], amount: Value, bits: range) -> list[Value]:
    """Rotate ``values`` so that output ``i`` is input ``i - amount``, by the bits of ``amount`` in ``bits`` only."""
    result = list(values)
    count = len(result)
    for bit in bits:
        step = 1 << bit
        result = [Mux(amount[bit], result[(i - step) % count], result[i]) for i in range(count)]
    return result
