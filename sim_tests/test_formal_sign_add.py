"""Proof: lanes that share a multiplier have their sums and magnitudes multiplied in their turns, for every input."""

from __future__ import annotations

from amaranth.hdl import Array, Assert, Assume, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from formal import past, prove, refute
from zeroskip.hw.multiplier import multiplier_verilog
from zeroskip.hw.pipeline import delay
from zeroskip.hw.sign_add import RunFlags, SharedProduct

MAGNITUDE_BITS = 3
ADDS = 2
"""Lanes and slots of a run; more take the solver too long."""


def operands_verilog() -> str:
    """Return the multiplier with both operands side by side in the place of their product, which solvers like less."""
    text = multiplier_verilog(10, MAGNITUDE_BITS)
    assert "p <= a_r * b_r;" in text
    return text.replace("p <= a_r * b_r;", "p <= {a_r, b_r};")


class TakenTurns(wiring.Component):
    """The shared product and the flags of its runs, fed with slots that pause only between runs."""

    def __init__(self, *, late: int = 0, pauses: bool = False) -> None:
        self.late = late
        self.pauses = pauses
        super().__init__(
            {
                "valid": In(1),
                "activations": In(data.ArrayLayout(signed(9), ADDS)),
                "signs": In(data.ArrayLayout(signed(2), ADDS)),
                "magnitudes": In(data.ArrayLayout(signed(MAGNITUDE_BITS), ADDS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.flags = flags = RunFlags(ADDS)
        m.submodules.dut = dut = SharedProduct(ADDS, MAGNITUDE_BITS, "multiplier")
        slot = Signal(range(ADDS))
        with m.If(self.valid):
            m.d.sync += slot.eq(slot + 1)
        if not self.pauses:
            m.d.comb += Assume((slot == 0) | self.valid)
        # the magnitudes of a run's lanes are chosen with its first slot
        chosen = Signal(self.magnitudes.shape())
        magnitudes = Mux(slot == 0, self.magnitudes.as_value(), past(m, chosen.as_value()))
        m.d.comb += [chosen.as_value().eq(magnitudes), *(Assume(self.signs[lane] != -2) for lane in range(ADDS))]
        m.d.comb += [
            flags.i.valid.eq(self.valid),
            dut.begin.eq(flags.begin),
            dut.end.eq(flags.o.valid),
            dut.magnitude.eq(Array(chosen[lane] for lane in range(ADDS))[slot]),
            dut.activations.eq(self.activations),
            dut.signs.eq(self.signs),
        ]
        end = self.valid & slot.all()
        m.d.comb += Assert(flags.o.valid == end)
        for lane in range(ADDS):
            held = Signal(signed(dut.sum_bits), name=f"held_{lane}")
            total = Signal(signed(dut.sum_bits), name=f"total_{lane}")
            with m.Switch(self.signs[lane]):
                for sign in (-1, 0, 1):
                    with m.Case(sign):
                        m.d.comb += total.eq(Mux(slot == 0, 0, held) + sign * self.activations[lane])
            with m.If(self.valid):
                m.d.sync += held.eq(total)
            turn = SharedProduct.latency_cycles + lane + self.late
            expected = Cat(delay(m, chosen[lane], turn), delay(m, total, turn))
            due = end
            for _ in range(turn):
                due = past(m, due)
            m.d.comb += Assert(~due | (dut.p.as_unsigned() == expected))
        return m


def test_operands_come_in_turns():
    prove(TakenTurns(), 8, verilog=[operands_verilog()])


def test_a_cycle_late_or_a_pause_within_a_run_is_refuted():
    for broken in (TakenTurns(late=1), TakenTurns(pauses=True)):
        assert "Assert failed" in refute(broken, 10, verilog=[operands_verilog()])
