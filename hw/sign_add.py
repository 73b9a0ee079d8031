"""Shared multipliers: lanes add and subtract the activations of a run, and take turns at one product for it."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.sign_add import RunCode
from zeroskip.hw.multiplier import ACTIVATION_BITS, Multiplier
from zeroskip.hw.pipeline import FLAGS, delay

__all__ = ["RunFlags", "SharedProduct", "run_signs"]


class RunFlags(wiring.Component):
    """Turn the flags of slots into those of runs: valid with a run's last slot only.

    Rows are whole runs, and a run's slots issue without a pause, so that counting valid slots finds the runs. No
    latency.

    Parameters
    ----------
    adds : int, slots of a run, a power of two

    Members
    -------
    i : In(FLAGS), of a slot
    o : Out(FLAGS), ``first`` through the whole run
    begin : Out(1), the slot is the first one of its run
    """

    def __init__(self, adds: int) -> None:
        self.adds = adds
        super().__init__({"i": In(FLAGS), "o": Out(FLAGS), "begin": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """Count the slots."""
        m = Module()
        slot = Signal(range(self.adds))
        first = Signal()
        with m.If(self.i.valid):
            m.d.sync += [slot.eq(slot + 1), first.eq(self.o.first)]
        m.d.comb += [
            self.begin.eq(slot == 0),
            self.o.eq(self.i),
            self.o.valid.eq(self.i.valid & slot.all()),
            self.o.first.eq(Mux(self.begin, self.i.first, first)),
        ]
        return m


class SharedProduct(wiring.Component):
    """``adds`` lanes with one multiplier: each has its sum of signed activations multiplied once a run.

    ``sum_l = (first slot of the run ? 0 : sum_l) +- activation_l``; then ``p = sum_j * magnitude_j`` for lanes
    ``j = 0, 1, ...`` one after the other, while the lanes add up the next run. The sums of lanes 1 and up wait in a
    chain that moves one place a cycle; its head is the multiplier's operand register.

    Latency from the run's last activation to ``p`` of lane ``j``: 4 + ``j`` cycles; initiation interval ``adds`` cycles
    a run. The slots of a run must come without a pause.

    Parameters
    ----------
    adds : int, lanes and slots of a run, a power of two
    magnitude_bits : int, of the signed operand
    module : str, name of the multiplier's Verilog module

    Members
    -------
    activations : In(array of signed(9)); signs : In(array of signed(2)): -1, 0, 1
    begin : In(1), with the first activations of a run; end : In(1), with the last ones
    magnitude : In(signed(magnitude_bits)), with the activations of slot ``j``: that of lane ``j`` and the same run
    p : Out(signed)
    """

    latency_cycles = 4

    def __init__(self, adds: int, magnitude_bits: int, module: str) -> None:
        self.adds = adds
        self.sum_bits = ACTIVATION_BITS + (adds - 1).bit_length()
        self.magnitude_bits = magnitude_bits
        self.module = module
        super().__init__(
            {
                "activations": In(data.ArrayLayout(signed(9), adds)),
                "signs": In(data.ArrayLayout(signed(2), adds)),
                "begin": In(1),
                "end": In(1),
                "magnitude": In(signed(magnitude_bits)),
                "p": Out(signed(self.sum_bits + magnitude_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the adders, the chain and the multiplier."""
        m = Module()
        begin, end = delay(m, self.begin, 1), delay(m, self.end, 2)
        sums = [self._build_sum(m, lane, begin) for lane in range(self.adds)]
        m.submodules.multiplier = multiplier = Multiplier(self.sum_bits, self.magnitude_bits, self.module)
        following: Value | None = None
        for lane in range(self.adds - 1, 0, -1):
            waiting = Signal(signed(self.sum_bits), name=f"waiting_{lane}", reset_less=True)
            m.d.sync += waiting.eq(sums[lane] if following is None else Mux(end, sums[lane], following))
            following = waiting
        m.d.comb += [
            multiplier.a.eq(Mux(end, sums[0], following)),
            # the slot of lane j lies adds - 1 - j cycles before the run's end, its turn 2 + j behind
            multiplier.b.eq(delay(m, self.magnitude, self.adds + 1)),
            self.p.eq(multiplier.p),
        ]
        return m

    def _build_sum(self, m: Module, lane: int, begin: Value) -> Value:
        """Two cycles: the activation passed, inverted or dropped; the sum, which completes a negation."""
        sign, activation = self.signs[lane], self.activations[lane]
        addend = Signal(signed(9), name=f"addend_{lane}", reset_less=True)
        negative = Signal(name=f"negative_{lane}", reset_less=True)
        total = Signal(signed(self.sum_bits), name=f"sum_{lane}", reset_less=True)
        m.d.sync += [
            addend.eq(Mux(sign[0], activation ^ sign[1].replicate(9), 0)),
            negative.eq(sign[1]),
            total.eq(Mux(begin, 0, total) + addend + negative),
        ]
        return total


def run_signs(word: Value, code: RunCode) -> tuple[list[Value], list[Value]]:
    """Return the signs (-1, 0, 1) of a word's slots, and the magnitudes of its runs."""
    signs: list[Value] = []
    magnitudes: list[Value] = []
    for first in range(0, len(word), code.bits):
        run = word[first : first + code.bits]
        for slot in range(code.adds):
            sign = run.word_select(slot, code.sign_bits)
            signs.append(sign.as_signed() if code.sign_bits == 2 else Cat(Const(1, 1), sign).as_signed())
        magnitudes.append(run[code.adds * code.sign_bits :])
    return signs, magnitudes
