"""Proof: the post-processor is the requantization formula, for every input at reduced widths."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from amaranth.hdl import Assert, Assume, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal import hold, prove, refute, small_engine
from zeroskip.compiler.program import FieldSpec, Rom
from zeroskip.compiler.target import EngineConfig
from zeroskip.hw import postprocess
from zeroskip.hw.pipeline import delay, descriptor_layout

ACCUMULATOR_BITS = 6
BIAS_BITS = 4
LOW_BITS = 3
"""Cuts the reduced accumulator in two, as the real one is cut."""


@dataclass(frozen=True)
class Case:
    """The widths of one proof (0 bits: the field does not exist) and the roundings that layers may choose from."""

    multiplier_bits: int = 3
    shift_bits: int = 2
    shift_min: int = 1
    per_channel: bool = False
    roundings: tuple[str, ...] = ("half_away",)
    sums: bool = False

    def engine(self) -> EngineConfig:
        """Return the configuration of the hardware."""
        return small_engine(
            accumulator_width=ACCUMULATOR_BITS,
            bias_width=BIAS_BITS,
            multiplier_width=self.multiplier_bits,
            shift_width=self.shift_bits,
            shift_min=self.shift_min,
            per_channel=self.per_channel,
            has_partial_sums=self.sums,
            **{f"has_{rounding}": True for rounding in self.roundings},
        )

    def scale_fields(self) -> list[tuple[str, int, bool]]:
        """Return the fields of the scale, wherever they lie."""
        fields = [("multiplier", self.multiplier_bits, False), ("shift", self.shift_bits, False)]
        return [field for field in fields if field[1]]

    def descriptor(self) -> tuple[FieldSpec, ...]:
        """Return the fields of the layer descriptor that the post-processor reads."""
        fields = [("zero_point", 4, True), ("clamp_low", 5, True), ("clamp_high", 5, True)]
        fields += [(rounding, 1, False) for rounding in self.roundings]
        fields += [] if self.per_channel else self.scale_fields()
        return place(fields)

    def bias(self) -> Rom:
        """Return the shape of the bias ROM; the solver chooses what it holds."""
        fields = place([("bias", BIAS_BITS, True), *(self.scale_fields() if self.per_channel else [])])
        bits = sum(field.bits for field in fields)
        return Rom("bias", bits, (0,) * 8, 1, bits, fields, (), 1, "logic", "table")


def place(fields: list[tuple[str, int, bool]]) -> tuple[FieldSpec, ...]:
    """Lay fields (name, bits, signed) one after the other."""
    specs: list[FieldSpec] = []
    for name, bits, is_signed in fields:
        specs.append(FieldSpec(name, sum(spec.bits for spec in specs), bits, is_signed))
    return tuple(specs)


def requantized(total: Value, bias: Value, multiplier: Value | int, shift: Value, rounding: dict[str, Value]) -> Value:
    """Return the product shifted right and rounded, as ``zeroskip.compiler.reference.rescale`` defines it."""
    product = (total + bias) * multiplier
    half = (Value.cast(1) << shift) >> 1
    nearest = (product + half - (rounding["half_away"] & (product < 0) & (shift != 0))) >> shift
    floor = product >> shift
    above = product - (floor << shift) - half
    even = floor + ((shift != 0) & ((above > 0) | ((above == 0) & floor[0])))
    return Mux(rounding["floor"], floor, Mux(rounding["half_even"], even, nearest))


class PostProcessorProof(wiring.Component):
    """Compare the post-processor with the formula on delayed inputs."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.layout = descriptor_layout(case.descriptor())
        super().__init__(
            {
                "descriptor": In(self.layout),
                "i": In(signed(ACCUMULATOR_BITS)),
                "first": In(1),
                "entry": In(case.bias().word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        case, d = self.case, self.descriptor
        m.submodules.dut = dut = postprocess.PostProcessor(case.engine(), self.layout, case.bias())
        m.d.comb += [dut.descriptor.eq(d), dut.i.eq(self.i), dut.first.eq(self.first), dut.entry.eq(self.entry)]
        hold(m, Value.cast(d))
        rounding = {
            name: d[name] if name in case.roundings else Const(0) for name in ("half_away", "half_even", "floor")
        }

        # the ROM answers two cycles after the accumulator
        total = Signal(signed(ACCUMULATOR_BITS))
        m.d.sync += total.eq((Mux(self.first, 0, total) if case.sums else 0) + self.i)
        entry = Signal(descriptor_layout(case.bias().fields))
        m.d.comb += entry.eq(self.entry)
        scale = entry if case.per_channel else d
        multiplier = scale.multiplier if case.multiplier_bits else 1
        shift = case.shift_min + (scale.shift if case.shift_bits else Value.cast(0))
        # what the compiler must guarantee
        m.d.comb += Assume(d.clamp_low <= d.clamp_high)
        m.d.comb += Assume(sum(rounding.values()) <= 1)
        m.d.comb += Assume(~rounding["half_away"] | (shift != 0))
        value = requantized(delay(m, total, 1), entry.bias, multiplier, shift, rounding) + d.zero_point
        clamped = Mux(value < d.clamp_low, d.clamp_low, Mux(value > d.clamp_high, d.clamp_high, value))

        expected = Signal(8)
        m.d.comb += expected.eq(clamped)
        valid = delay(m, Value.cast(1), dut.latency_cycles)
        m.d.comb += Assert(~valid | (dut.o == delay(m, expected, dut.latency_cycles - 2)))
        return m


CASES = {
    "layer_scale": Case(),
    "channel_scale": Case(per_channel=True),
    "large_constant_shift": Case(shift_min=3),
    "constant_shift": Case(shift_bits=0, shift_min=2),
    "power_of_two": Case(multiplier_bits=0, per_channel=True),
    "no_constant_shift": Case(multiplier_bits=2, shift_min=0),
    "half_up_only": Case(roundings=()),
    "half_even": Case(multiplier_bits=2, roundings=("half_even",), per_channel=True),
    "half_even_no_constant_shift": Case(multiplier_bits=2, roundings=("half_even",), shift_min=0),
    "half_even_constant_shift": Case(multiplier_bits=2, roundings=("half_even",), shift_bits=0, shift_min=3),
    "floor": Case(roundings=("floor",), shift_min=0),
    "every_rounding": Case(multiplier_bits=2, roundings=("half_away", "half_even", "floor")),
    "sums_of_lanes": Case(multiplier_bits=2, sums=True),
}


@pytest.fixture(autouse=True)
def cut_accumulator(monkeypatch):
    """Cut the reduced accumulator where the multiplication needs two halves."""
    monkeypatch.setattr(postprocess, "LOW_BITS", LOW_BITS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_post_processor_is_the_formula(case):
    # without sums nothing is fed back: two cycles more than the latency are all there is to see
    extra = 4 if case.sums else 2
    prove(PostProcessorProof(case), postprocess.PostProcessor.latency_cycles + extra)


def test_broken_rounding_is_found(monkeypatch):
    whole = postprocess.PostProcessor._build_shift

    def without_lowest_bit(self, m, product, entry):
        return whole(self, m, product, entry) & ~1

    monkeypatch.setattr(postprocess.PostProcessor, "_build_shift", without_lowest_bit)
    assert "Assert failed" in refute(PostProcessorProof(Case()), postprocess.PostProcessor.latency_cycles + 2)
