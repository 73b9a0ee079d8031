"""The post-processor: bias, requantization and clamp, one result a cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Rom
from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.multiplier import Multiplier
from zeroskip.hw.pipeline import delay, descriptor_layout

__all__ = ["PostProcessor", "scaler_bits"]

LOW_BITS = 15
"""The accumulator is multiplied in two halves; with M of 15 bits each fits one 16 x 16 multiplier, the smallest."""


def scaler_bits(config: EngineConfig) -> int:
    """Return the width of the operand that the post-processor's multipliers take of an accumulator."""
    return max(LOW_BITS + 1, max(config.accumulator_width, config.bias_width) + 1 - LOW_BITS)


class PostProcessor(wiring.Component):
    """``o = clamp(((i + bias) * M, shifted right by S and rounded) + zero_point, low, high)``.

    Bit-exact with :func:`zeroskip.compiler.reference.requantize`. Rounding half up needs no rounding constant:
    ``(v + 2**(S-1)) >> S == ((v >> (S-1)) + 1) >> 1``; half away from zero subtracts 1 from negative products first;
    floor leaves the 1 out. The partial sums of a linear row that is spread over lanes arrive one after the other and
    are added up here.

    Latency 9 cycles, initiation interval 1, never stalls. Cost: two DSP multipliers, none with power-of-two scales.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the back descriptor
    bias : Rom

    Members
    -------
    descriptor : In(layout)
    i : In(signed(accumulator_width)); first : In(1), starts a sum
    entry : In(bias.word_bits), bias and scale of the value's channel, 2 cycles after ``i``
    o : Out(8)
    """

    latency_cycles = 9

    def __init__(self, config: EngineConfig, layout: data.StructLayout, bias: Rom) -> None:
        self.config = config
        self.bias = bias
        super().__init__(
            {
                "descriptor": In(layout),
                "i": In(signed(config.accumulator_width)),
                "first": In(1),
                "entry": In(bias.word_bits),
                "o": Out(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Chain the stages."""
        m = Module()
        config, d = self.config, self.descriptor
        total = Signal(signed(config.accumulator_width))
        summed = Mux(self.first, 0, total) if config.has_partial_sums else 0
        m.d.sync += total.eq(summed + self.i)
        entry = Signal(descriptor_layout(self.bias.fields))
        m.d.comb += entry.eq(self.entry)
        biased = Signal(signed(max(config.accumulator_width, config.bias_width) + 1))
        m.d.sync += biased.eq(delay(m, total, 1) + entry.bias)
        product = self._build_multiply(m, biased, entry)
        shifted = self._build_shift(m, product, entry)
        rounded = Signal(signed(max(2, len(shifted))))
        nearest = (shifted + (~d.floor if config.has_floor else 1)) >> 1
        if config.has_half_even:
            # a half rounds up to the even neighbour or, when that is odd, back down
            nearest = nearest - (d.half_even & shifted[0] & ~self.sticky & nearest[0])
        m.d.sync += rounded.eq(nearest)
        result = Signal(signed(len(rounded) + 1))
        m.d.comb += result.eq(rounded + d.zero_point)
        with m.If(result < d.clamp_low):
            m.d.sync += self.o.eq(d.clamp_low)
        with m.Elif(result > d.clamp_high):
            m.d.sync += self.o.eq(d.clamp_high)
        with m.Else():
            m.d.sync += self.o.eq(result)
        return m

    def _build_multiply(self, m: Module, biased: Signal, entry: data.View) -> Signal:
        """Three cycles: the operand registers, the halves of ``biased`` times M, their sum."""
        config, d = self.config, self.descriptor
        away = (d.half_away & biased[-1]) if config.has_half_away else None
        if config.multiplier_width == 0:
            product = Signal(signed(len(biased) + 1))
            m.d.sync += product.eq(biased - away if away is not None else biased)
            return delay(m, product, 2)
        scale = Signal(signed(config.multiplier_width + 1))
        m.d.comb += scale.eq(delay(m, entry.multiplier, 1) if config.per_channel else d.multiplier)
        halves: list[Value] = [biased]
        if len(biased) > LOW_BITS:
            halves = [Cat(biased[:LOW_BITS], 0).as_signed(), biased[LOW_BITS:].as_signed()]
        total: Value = Const(0)
        for index, half in enumerate(halves):
            multiplier = Multiplier(scaler_bits(config), config.multiplier_width + 1, "scaler")
            m.submodules[f"scaler_{index}"] = multiplier
            m.d.comb += [multiplier.a.eq(half), multiplier.b.eq(scale)]
            total = total + (multiplier.p << (LOW_BITS * index))
        if away is not None:
            total = total - delay(m, away, 2)
        product = Signal(signed(len(biased) + config.multiplier_width + 1))
        m.d.sync += product.eq(total)
        return product

    def _build_shift(self, m: Module, product: Signal, entry: data.View) -> Signal:
        """Shift right by S - 1 (one cycle): a constant part and the layer's or channel's own."""
        config, d = self.config, self.descriptor
        value = (product >> (config.shift_min - 1)) if config.shift_min else (product << 1)
        shifted = Signal(signed(len(value)))
        if config.has_half_even:
            self._build_sticky(m, product, value, entry)
        if config.shift_width:
            amount = delay(m, entry.shift, 4) if config.per_channel else d.shift
            m.d.sync += shifted.eq(value >> amount)
        else:
            m.d.sync += shifted.eq(value)
        return shifted

    def _build_sticky(self, m: Module, product: Value, value: Value, entry: data.View) -> None:
        """Whether any bit below the half is set: then it is no half."""
        config, d = self.config, self.descriptor
        self.sticky = Signal()
        lost = product[: config.shift_min - 1].any() if config.shift_min > 1 else 0
        if not config.shift_width:
            m.d.sync += self.sticky.eq(lost)
            return
        amount = delay(m, entry.shift, 3) if config.per_channel else d.shift
        mask = Signal((1 << config.shift_width) - 1)
        m.d.sync += mask.eq((1 << amount) - 1)
        m.d.sync += self.sticky.eq(lost | (value[: len(mask)] & mask[: len(value)]).any())
