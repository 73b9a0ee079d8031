"""Proof: the post-processor is the formula of requantization or the count of thresholds, at reduced widths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from amaranth.hdl import Array, Assert, Assume, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from designs import engine_config
from formal import hold, prove, refute
from zeroskip.compiler import requantization
from zeroskip.compiler.program import FieldSpec, Rom
from zeroskip.compiler.target import EngineConfig, Geometry
from zeroskip.compiler.timing import post_cycles
from zeroskip.hw import postprocess, search
from zeroskip.hw.memory import RomReader
from zeroskip.hw.multiplier import multiplier_verilog
from zeroskip.hw.pipeline import delay, descriptor_layout

ACCUMULATOR_BITS = 6
BIAS_BITS = 4
LOW_BITS = 3
"""Cuts the reduced accumulator in two, as the real one is cut."""
MULTIPLIER_BITS = 3
"""A wider multiplier is cut in two."""
TFLITE_SHIFT = 3
"""Bits of the first of two roundings."""
CHANNELS = 2
"""Channels with thresholds."""

ROUNDINGS = ("half_away", "half_even", "floor", "two_steps")
"""Descriptor fields that choose another rounding than half up, at most one of them."""


@dataclass(frozen=True)
class Case:
    """The widths of one proof; 0 bits: the field does not exist."""

    multiplier_bits: int = 3
    shift_bits: int = 2
    shift_min: int = 1
    per_channel: bool = False
    roundings: tuple[str, ...] = ("half_away",)
    sums: bool = False
    stages: int = 0
    scales: bool = True

    def engine(self) -> EngineConfig:
        """Return the configuration of the hardware."""
        return engine_config(
            Geometry(4),
            accumulator_width=ACCUMULATOR_BITS,
            bias_width=BIAS_BITS,
            multiplier_width=self.multiplier_bits,
            shift_width=self.shift_bits,
            shift_min=self.shift_min,
            per_channel=self.per_channel,
            has_partial_sums=self.sums,
            has_scales=self.scales,
            search_stages=self.stages,
            **{f"has_{name}": True for name in self.roundings},
        )

    def scale_fields(self) -> list[tuple[str, int, bool]]:
        """Return the fields of the scale, wherever they lie."""
        fields = [("multiplier", self.multiplier_bits, False), ("shift", self.shift_bits, False)]
        return [field for field in fields if field[1]]

    def descriptor(self) -> tuple[FieldSpec, ...]:
        """Return the fields of the layer descriptor that the post-processor reads."""
        fields = [("zero_point", 4, True), ("clamp_low", 5, True), ("clamp_high", 5, True)]
        fields += [(name, 1, False) for name in self.roundings]
        fields += [] if self.per_channel else self.scale_fields()
        fields += [("search_stages", self.stages.bit_length(), False)] if self.stages else []
        return place(fields)

    def thresholds(self) -> list[Rom]:
        """Return the shapes of the images of the search; the last stage exists for the first channel only."""
        fields = place([("threshold", ACCUMULATOR_BITS + 1, True)])
        depths = [(CHANNELS if stage < self.stages - 1 else 1) << stage for stage in range(self.stages)]
        bits = ACCUMULATOR_BITS + 1
        return [
            Rom(f"thresholds_{stage}", bits, (0,) * depth, 1, bits, fields, (), 1, "logic", "thresholds")
            for stage, depth in enumerate(depths)
        ]

    def bias(self) -> Rom:
        """Return the shape of the bias ROM; the solver chooses what it holds."""
        fields = place([("bias", BIAS_BITS, True), *(self.scale_fields() if self.per_channel else [])])
        bits = sum(field.bits for field in fields)
        return Rom("bias", bits, (0,) * 8, 1, bits, fields, (), 1, "logic", "table")

    def verilog(self) -> list[str]:
        """Return the modules that the post-processor has instances of."""
        if not self.multiplier_bits:
            return []
        return [multiplier_verilog(*postprocess.scaler_bits(self.engine()), "scaler")]


def place(fields: list[tuple[str, int, bool]]) -> tuple[FieldSpec, ...]:
    """Lay fields (name, bits, signed) one after the other."""
    specs: list[FieldSpec] = []
    for name, bits, is_signed in fields:
        specs.append(FieldSpec(name, sum(spec.bits for spec in specs), bits, is_signed))
    return tuple(specs)


def requantized(value: Value, multiplier: Value | int, shift: Value, chosen: dict[str, Value | int]) -> Value:
    """Return the product shifted right and rounded, as ``zeroskip.compiler.reference.requantize`` defines it."""
    product = value * multiplier
    half = (Value.cast(1) << shift) >> 1
    inexact = shift != 0
    odd = (product >> shift)[0]
    away = chosen["half_away"] & (product < 0) & inexact
    even = chosen["half_even"] & ~odd & inexact
    # TensorFlow Lite: a high multiplication that rounds, then a division by a power of two that rounds
    first = (product + (1 << TFLITE_SHIFT - 1)) >> TFLITE_SHIFT
    rest = (shift - TFLITE_SHIFT)[:3].as_unsigned()
    second = (first + ((Value.cast(1) << rest) >> 1) - (first < 0)) >> rest
    once = (product + Mux(chosen["floor"], 0, half) - away - even) >> shift
    return Mux(chosen["two_steps"] & (shift > TFLITE_SHIFT), second, once)


class PostProcessorProof(wiring.Component):
    """Compare the post-processor with the formula on delayed inputs."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.layout = descriptor_layout(case.descriptor())
        row = data.ArrayLayout(signed(ACCUMULATOR_BITS + 1), (1 << case.stages) - 1)
        table = {"channel": In(range(CHANNELS)), "table": In(data.ArrayLayout(row, CHANNELS))} if case.stages else {}
        super().__init__(
            {
                "descriptor": In(self.layout),
                "i": In(signed(ACCUMULATOR_BITS)),
                "first": In(1),
                "entry": In(case.bias().word_bits),
                **table,
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        case, d = self.case, self.descriptor
        roms = case.thresholds()
        bias = case.bias() if case.scales else None
        m.submodules.dut = dut = postprocess.PostProcessor(case.engine(), self.layout, bias, roms, 1)
        m.d.comb += [dut.descriptor.eq(d), dut.i.eq(self.i), dut.first.eq(self.first)]
        if case.scales:
            m.d.comb += dut.entry.eq(self.entry)
        hold(m, Value.cast(d), *([Value.cast(self.table)] if case.stages else []))
        chosen = {name: d[name] if name in case.roundings else 0 for name in ROUNDINGS}
        # what the compiler must guarantee
        m.d.comb += Assume(d.clamp_low <= d.clamp_high)
        m.d.comb += Assume(sum(chosen.values()) <= 1)
        if "half_away" in case.roundings and case.shift_min == 0:
            m.d.comb += Assume(~d.half_away | (d.shift != 0))
        if "two_steps" in case.roundings and not case.per_channel:
            m.d.comb += Assume(~d.two_steps | (case.shift_min + d.shift > TFLITE_SHIFT))

        total = Signal(signed(ACCUMULATOR_BITS))
        m.d.sync += total.eq(self.i)
        if case.sums:
            m.d.sync += total.eq(Mux(self.first, 0, total) + self.i)
        total = delay(m, total, postprocess.ENTRY_CYCLES - 1)
        expected = Signal(8)
        if case.scales:
            m.d.comb += expected.eq(self._requantized(total, chosen))
        if case.stages:
            count = self._counted(m, dut, total)
            with m.If(d.search_stages != 0):
                m.d.comb += expected.eq(count)
        valid = delay(m, Value.cast(1), dut.latency_cycles)
        late = delay(m, expected, dut.latency_cycles - postprocess.ENTRY_CYCLES)
        m.d.comb += Assert(~valid | (dut.o == late))
        return m

    def _requantized(self, total: Value, chosen: dict[str, Value | int]) -> Value:
        """Return the clamped code of a sum, when its entry is there."""
        case, d = self.case, self.descriptor
        entry = data.View(descriptor_layout(case.bias().fields), self.entry)
        scale = entry if case.per_channel else d
        multiplier = scale.multiplier if case.multiplier_bits else 1
        shift = case.shift_min + (scale.shift if case.shift_bits else Value.cast(0))
        value = requantized(total + entry.bias, multiplier, shift, chosen) + d.zero_point
        return Mux(value < d.clamp_low, d.clamp_low, Mux(value > d.clamp_high, d.clamp_high, value))

    def _counted(self, m: Module, dut: postprocess.PostProcessor, total: Value) -> Value:
        """Answer the search from the table; return the smallest code plus the thresholds that a sum reaches.

        A layer with a stage less knows every second threshold of the table only.
        """
        case, d = self.case, self.descriptor
        count = len(self.table[0])
        rows = [[row[i] for i in range(count)] for row in (self.table[channel] for channel in range(CHANNELS))]
        for row in rows:
            m.d.comb += [Assume(low <= high) for low, high in pairwise(row)]
        all_stages = d.search_stages == case.stages
        m.d.comb += Assume(all_stages | (d.search_stages == case.stages - 1) | (d.search_stages == 0))
        m.d.comb += Assume((d.search_stages != 0) | case.scales)
        # the last stage is there for the first channel only
        m.d.comb += [dut.channel.eq(self.channel), Assume(~all_stages | (self.channel == 0))]
        for stage, rom in enumerate(case.thresholds()):
            first, step = (1 << case.stages - 1 - stage) - 1, 1 << case.stages - stage
            words = [word for row in rows for word in row[first::step]]
            addr = delay(m, getattr(dut, f"addr_{stage}"), RomReader.latency_cycles)
            m.d.comb += getattr(dut, f"data_{stage}").eq(Array(words[: rom.depth])[addr])
        late = delay(m, self.channel, postprocess.ENTRY_CYCLES)
        reached = [total >= word for word in Array([Array(row) for row in rows])[late]]
        return d.zero_point + Mux(all_stages, sum(reached), sum(reached[1::2]))


CASES = {
    "layer_scale": Case(),
    "channel_scale": Case(per_channel=True),
    "large_constant_shift": Case(shift_min=3),
    "constant_shift": Case(shift_bits=0, shift_min=2),
    "power_of_two": Case(multiplier_bits=0, per_channel=True),
    "no_constant_shift": Case(multiplier_bits=2, shift_min=0),
    "sums_of_lanes": Case(multiplier_bits=2, sums=True),
    "floor": Case(multiplier_bits=2, roundings=("floor",)),
    "half_even": Case(multiplier_bits=2, roundings=("half_even",)),
    "half_even_channel_scale": Case(multiplier_bits=2, per_channel=True, shift_min=2, roundings=("half_even",)),
    "half_even_constant_shift": Case(shift_bits=0, shift_min=3, roundings=("half_even",)),
    "wide_multiplier": Case(multiplier_bits=4, shift_bits=1, shift_min=3),
    "wide_multiplier_channel_scale": Case(multiplier_bits=4, shift_bits=0, shift_min=4, per_channel=True),
    "two_steps": Case(multiplier_bits=2, shift_min=2, roundings=("two_steps",)),
    "two_steps_channel_scale": Case(multiplier_bits=2, shift_min=2, per_channel=True, roundings=("two_steps",)),
    "two_steps_wide_multiplier": Case(multiplier_bits=4, shift_bits=1, shift_min=4, roundings=("two_steps",)),
    "two_steps_power_of_two": Case(multiplier_bits=0, per_channel=True, roundings=("two_steps",)),
    "all_roundings": Case(multiplier_bits=2, shift_min=0, roundings=ROUNDINGS),
    "all_roundings_channel_scale": Case(multiplier_bits=2, per_channel=True, roundings=ROUNDINGS),
    "one_threshold": Case(stages=1, scales=False, roundings=()),
    "thresholds": Case(stages=3, scales=False, roundings=()),
    "thresholds_of_sums": Case(stages=2, scales=False, roundings=(), sums=True),
    "thresholds_and_scales": Case(stages=2, multiplier_bits=2),
}


@pytest.fixture(autouse=True)
def cut_accumulator(monkeypatch):
    """Cut the reduced operands where the multiplication needs parts, and take the first of two roundings earlier."""
    monkeypatch.setattr(requantization, "LOW_BITS", LOW_BITS)
    monkeypatch.setattr(requantization, "MULTIPLIER_BITS", MULTIPLIER_BITS)
    monkeypatch.setattr(postprocess, "LOW_BITS", LOW_BITS)
    monkeypatch.setattr(postprocess, "TFLITE_SHIFT", TFLITE_SHIFT)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_post_processor_is_the_formula(case):
    # without sums nothing is fed back: two cycles more than the latency are all there is to see
    extra = 4 if case.sums else 2
    prove(PostProcessorProof(case), post_cycles(case.engine()) + extra, verilog=case.verilog())


def test_broken_rounding_is_found(monkeypatch):
    whole = postprocess.PostProcessor._build_shift

    def without_lowest_bit(self, m, product, entry):
        return whole(self, m, product, entry) & ~1

    monkeypatch.setattr(postprocess.PostProcessor, "_build_shift", without_lowest_bit)
    depth = post_cycles(Case().engine()) + 2
    assert "Assert failed" in refute(PostProcessorProof(Case()), depth, verilog=Case().verilog())


def test_broken_first_step_is_found(monkeypatch):
    case = CASES["two_steps"]

    def without_move(self, m, product, entry):
        return delay(m, product, 1)

    monkeypatch.setattr(postprocess.PostProcessor, "_build_first_step", without_move)
    assert "Assert failed" in refute(PostProcessorProof(case), post_cycles(case.engine()) + 2, verilog=case.verilog())


def test_broken_search_is_found(monkeypatch):
    case = CASES["thresholds"]
    whole = search.ThresholdSearch.__init__

    def with_spare_word(self, config, layout, roms, channel_bits):
        """Pretend that every layer has the last stage."""
        whole(self, config, layout, roms, channel_bits)
        self.roms = [*roms[:-1], replace(roms[-1], words=roms[-1].words * CHANNELS)]

    monkeypatch.setattr(search.ThresholdSearch, "__init__", with_spare_word)
    assert "Assert failed" in refute(PostProcessorProof(case), post_cycles(case.engine()) + 2)
