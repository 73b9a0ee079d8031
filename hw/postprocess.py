"""The post-processor: bias, requantization and clamp, or thresholds, one result a cycle."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Rom
from zeroskip.compiler.reference import TFLITE_SHIFT
from zeroskip.compiler.requantization import LOW_BITS, operand_parts
from zeroskip.compiler.target import EngineConfig
from zeroskip.compiler.timing import post_cycles, scale_cycles, search_cycles
from zeroskip.hw.multiplier import Multiplier
from zeroskip.hw.pipeline import delay, descriptor_layout
from zeroskip.hw.search import ThresholdSearch

__all__ = ["PostProcessor", "scaler_bits"]

ENTRY_CYCLES = 2
"""From a value to the entry of its channel in the bias ROM."""
_NEAR_BITS = 10
"""Signed bits that hold every value that a zero point (-128 to 255) brings among the codes."""


def scaler_bits(config: EngineConfig) -> tuple[int, int]:
    """Return the widths of the operands of the post-processor's multipliers: a part of an accumulator, a part of M."""
    values, multipliers = operand_parts(config)
    return max(LOW_BITS + 1, *values), max(multipliers)


class PostProcessor(wiring.Component):
    """``o = clamp(((i + bias) * M, shifted right by S and rounded) + zero_point, low, high)``, or a thresholds' count.

    Bit-exact with :func:`zeroskip.compiler.reference.requantize`. Rounding half up needs no rounding constant:
    ``(v + 2**(S-1)) >> S == ((v >> (S-1)) + 1) >> 1``; half away from zero subtracts 1 from negative products first;
    floor leaves the 1 out. TensorFlow Lite's two steps are one shift after the product has moved away from zero by half
    a unit of the first: ``v + 2**30`` where that is not negative, else ``v - 2**30``. The partial sums of a linear row
    that is spread over lanes arrive one after the other and are added up here. Layers with thresholds take the result
    of :class:`zeroskip.hw.search.ThresholdSearch`.

    Latency :func:`zeroskip.compiler.timing.post_cycles`, initiation interval 1, never stalls. Cost:
    :func:`zeroskip.compiler.requantization.scaler_count` multipliers, none with power-of-two scales.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the back descriptor
    bias : Rom, None where all layers have thresholds
    thresholds : Rom of each stage of the search
    channel_bits : int, of the entry of a channel in these images

    Members
    -------
    descriptor : In(layout)
    i : In(signed(accumulator_width)); first : In(1), starts a sum
    entry : In(bias.slot_bits), bias and scale of the value's channel, 2 cycles after ``i``
    channel : In(channel_bits), with ``i``; addr_0, addr_1 ... : Out; data_0, data_1 ... : In, of the threshold ROMs
    o : Out(8)
    """

    def __init__(
        self,
        config: EngineConfig,
        layout: data.StructLayout,
        bias: Rom | None,
        thresholds: Sequence[Rom] = (),
        channel_bits: int = 1,
    ) -> None:
        self.config = config
        self.entry_fields = () if bias is None else bias.fields
        self.latency_cycles = post_cycles(config)
        members = {
            "descriptor": In(layout),
            "i": In(signed(config.accumulator_width)),
            "first": In(1),
            "o": Out(8),
        }
        if bias is not None:
            members["entry"] = In(bias.slot_bits)
        self.search = ThresholdSearch(config, layout, thresholds, channel_bits) if thresholds else None
        if self.search is not None:
            members |= {name: member for name, member in self.search.signature.members.items() if name not in members}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Add up the parts, then requantize, search, or both and choose."""
        m = Module()
        config = self.config
        total = Signal(signed(config.accumulator_width), reset_less=True)
        summed = Mux(self.first, 0, total) if config.has_partial_sums else 0
        m.d.sync += total.eq(summed + self.i)
        if self.search is None:
            m.d.comb += self.o.eq(self._build_scale(m, total))
            return m
        m.submodules.search = search = self.search
        ports = [name for name in search.signature.members if name.startswith(("addr_", "data_"))]
        m.d.comb += [search.descriptor.eq(self.descriptor), search.channel.eq(self.channel), search.i.eq(total)]
        for name in ports:
            mine, its = getattr(self, name), getattr(search, name)
            m.d.comb += mine.eq(its) if name.startswith("addr_") else its.eq(mine)
        counted = delay(m, search.o, self.latency_cycles - search_cycles(config))
        if not config.has_scales:
            m.d.comb += self.o.eq(counted)
            return m
        # a result is narrower than anything before it: the faster of the two waits here
        late = delay(m, self._build_scale(m, total), self.latency_cycles - scale_cycles(config))
        m.d.comb += self.o.eq(Mux(self.descriptor.search_stages == 0, late, counted))
        return m

    def _build_scale(self, m: Module, total: Signal) -> Signal:
        """Chain the stages from the sum to the clamped code."""
        config, d = self.config, self.descriptor
        entry = Signal(descriptor_layout(self.entry_fields))
        m.d.comb += entry.eq(self.entry)
        biased = Signal(signed(max(config.accumulator_width, config.bias_width) + 1), reset_less=True)
        m.d.sync += biased.eq(delay(m, total, 1) + entry.bias)
        product = self._build_multiply(m, biased, entry)
        if config.has_two_steps:
            product = self._build_first_step(m, product, entry)
        shifted = self._build_shift(m, product, entry)
        rounded = Signal(signed(max(2, len(shifted))), reset_less=True)
        nearest = (shifted + (~d.floor if config.has_floor else 1)) >> 1
        if config.has_half_even:
            # a half rounds up to the even neighbour or, when that is odd, back down
            nearest = nearest - (d.half_even & shifted[0] & ~self.sticky & nearest[0])
        m.d.sync += rounded.eq(nearest)
        # beyond 10 bits no zero point brings a value back among the codes: sums and comparisons need not be wider
        near, high = rounded[:_NEAR_BITS].as_signed(), rounded[_NEAR_BITS - 1 :]
        beyond, negative = high.any() & ~high.all(), rounded[-1]
        result = Signal(signed(_NEAR_BITS + 1))
        code = Signal(8, reset_less=True)
        m.d.comb += result.eq(near + d.zero_point)
        with m.If(Mux(beyond, negative, result < d.clamp_low)):
            m.d.sync += code.eq(d.clamp_low)
        with m.Elif(Mux(beyond, ~negative, result > d.clamp_high)):
            m.d.sync += code.eq(d.clamp_high)
        with m.Else():
            m.d.sync += code.eq(result)
        return code

    def _build_multiply(self, m: Module, biased: Signal, entry: data.View) -> Signal:
        """Three cycles: operand registers, the parts of ``biased`` times M, their sum; an M in parts takes one more."""
        config, d = self.config, self.descriptor
        away = (d.half_away & biased[-1]) if config.has_half_away else None
        if config.multiplier_width == 0:
            product = Signal(signed(len(biased) + 1), reset_less=True)
            m.d.sync += product.eq(biased - away if away is not None else biased)
            return delay(m, product, 2)
        values, multipliers = operand_parts(config)
        scale = Signal(signed(config.multiplier_width + 1))
        m.d.comb += scale.eq(delay(m, entry.multiplier, 1) if config.per_channel else d.multiplier)
        sums: list[Value] = []
        for row, factor in enumerate(_cut(scale, len(multipliers))):
            total: Value = Const(0)
            for index, value in enumerate(_cut(biased, len(values))):
                multiplier = Multiplier(*scaler_bits(config), "scaler")
                m.submodules[f"scaler_{row * len(values) + index}"] = multiplier
                m.d.comb += [multiplier.a.eq(value), multiplier.b.eq(factor)]
                total = total + (multiplier.p << (LOW_BITS * index))
            sums.append(total)
        whole, cycles = sums[0], 2
        if len(sums) > 1:
            low, high = (Signal(signed(len(biased) + bits), reset_less=True) for bits in multipliers)
            m.d.sync += [low.eq(sums[0]), high.eq(sums[1])]
            whole, cycles = low + (high << LOW_BITS), 3
        if away is not None:
            whole = whole - delay(m, away, cycles)
        product = Signal(signed(len(biased) + config.multiplier_width + 1), reset_less=True)
        m.d.sync += product.eq(whole)
        return product

    def _build_first_step(self, m: Module, product: Signal, entry: data.View) -> Signal:
        """Move the product away from zero by half a unit of the first of two roundings (one cycle)."""
        config, d = self.config, self.descriptor
        half = 1 << (TFLITE_SHIFT - 1)
        moved = Signal(signed(max(len(product), TFLITE_SHIFT + 1) + 1), reset_less=True)
        # a shift that the first rounding takes alone has no second
        enable: Value = d.two_steps
        if config.per_channel and config.shift_width:
            enable = enable & (self._shift(m, entry, 1) > TFLITE_SHIFT - config.shift_min)
        # less than -half: no comparison, whose carries would come before those of the sum
        below = product[-1] & ~product[TFLITE_SHIFT - 1 :].all()
        m.d.sync += moved.eq(product + Mux(enable, Mux(below, -half, half), 0))
        return moved

    def _build_shift(self, m: Module, product: Signal, entry: data.View) -> Signal:
        """Shift right by S - 1 (one cycle): a constant part and the layer's or channel's own."""
        config = self.config
        value = (product >> (config.shift_min - 1)) if config.shift_min else (product << 1)
        shifted = Signal(signed(len(value)), reset_less=True)
        if config.has_half_even:
            self._build_sticky(m, product, value, entry)
        if config.shift_width:
            m.d.sync += shifted.eq(value >> self._shift(m, entry, 0))
        else:
            m.d.sync += shifted.eq(value)
        return shifted

    def _build_sticky(self, m: Module, product: Value, value: Value, entry: data.View) -> None:
        """Whether any bit below the half is set: then it is no half."""
        config = self.config
        self.sticky = Signal(reset_less=True)
        lost = product[: config.shift_min - 1].any() if config.shift_min > 1 else 0
        if not config.shift_width:
            m.d.sync += self.sticky.eq(lost)
            return
        mask = Signal((1 << config.shift_width) - 1, reset_less=True)
        m.d.sync += mask.eq((1 << self._shift(m, entry, 1)) - 1)
        m.d.sync += self.sticky.eq(lost | (value[: len(mask)] & mask[: len(value)]).any())

    def _shift(self, m: Module, entry: data.View, early: int) -> Value:
        """Return the layer's or channel's own part of the shift, ``early`` cycles before the product is shifted."""
        if not self.config.per_channel:
            return self.descriptor.shift
        # behind the product: shifted, rounded, clamped
        return delay(m, entry.shift, scale_cycles(self.config) - 3 - ENTRY_CYCLES - early)


def _cut(value: Value, parts: int) -> list[Value]:
    """Return a signed value as one part, or as its low bits and the rest."""
    return [value] if parts == 1 else [Cat(value[:LOW_BITS], 0).as_signed(), value[LOW_BITS:].as_signed()]
