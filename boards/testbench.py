"""The cocotb test that runs inside the simulator: clock, reset, and the wait for ``sim_top`` to finish."""

from __future__ import annotations

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge

__all__ = ["RESET_CYCLES", "run_to_the_end"]

RESET_CYCLES = 4


@cocotb.test()
async def run_to_the_end(dut) -> None:
    """Reset the design and wait until ``sim_top`` has its results, or has given up (it writes which to its log)."""
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    await ClockCycles(dut.clk, RESET_CYCLES)
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.finished)
