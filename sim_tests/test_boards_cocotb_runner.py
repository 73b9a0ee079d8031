"""The cocotb runner: failures become exceptions that show the traceback."""

from __future__ import annotations

from pathlib import Path

import cocotb
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import Timer

from drivers import settings
from simulate import run_component
from zeroskip.boards.cocotb_runner import CocotbFailure, run_cocotb
from zeroskip.compiler.errors import ToolError


class Inverter(wiring.Component):
    """``o = ~i``."""

    def __init__(self) -> None:
        super().__init__({"i": In(4), "o": Out(4)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += self.o.eq(~self.i)
        return m


@cocotb.test()
async def inverts(dut) -> None:
    """The output is the input inverted, plus what the settings add to be wrong."""
    dut.i.value = 5
    await Timer(1, unit="ns")
    assert int(dut.o.value) == 10 + settings()["offset"]


@cocotb.test()
async def always_fails(dut) -> None:
    """A test that is left out by name."""
    raise RuntimeError("this test must not be selected")


def test_right():
    printed = run_component(Inverter(), __file__, ["inverts"], settings={"offset": 0})
    assert "TESTS=1 PASS=1 FAIL=0" in printed


def test_failure_shows_the_assertion():
    text = r"(?s)^1 of 1 cocotb tests failed in module 'test_boards_cocotb_runner'\n.*assert .*10 == \(10 \+ 3\)"
    with pytest.raises(CocotbFailure, match=text) as caught:
        run_component(Inverter(), __file__, ["inverts"], settings={"offset": 3})
    assert caught.value.exit_code == 1


def test_no_selected_test_is_an_error():
    with pytest.raises(ToolError, match=r"^Simulator ended with exit code \d+ after 0 tests\n"):
        run_component(Inverter(), __file__, ["no_such_test"])


def test_program_without_cocotb(tmp_path):
    with pytest.raises(ToolError, match=r"^Simulator ended with exit code 3 after 0 tests\nfarewell$"):
        command = ["sh", "-c", "echo farewell; exit 3"]
        run_cocotb(command, "dut", Path(__file__).stem, tmp_path / "results.xml", cwd=tmp_path)
