"""ULX3S with the 85F: the large ECP5 board."""

from __future__ import annotations

from typing import Any

from zeroskip.boards.board import Board
from zeroskip.boards.families.ecp5 import ECP5
from zeroskip.boards.ulx3s_25f import ULX3S_25F

__all__ = ["ULX3S_85F"]


def _platform() -> Any:
    from amaranth_boards.ulx3s import ULX3S_85F_Platform

    return ULX3S_85F_Platform(toolchain="Trellis")


ULX3S_85F = Board(
    name="ulx3s-85f",
    family=ECP5,
    part="LFE5U-85F-6BG381C",
    package="CABGA381",
    speed="6",
    device_options=("--85k",),
    clock="clk25",
    clock_mhz=25.0,
    constraint_mhz=240.0,
    lut=83640,
    ff=83640,
    bram=208,
    bram_bits=18432,
    dsp=156,
    reset_button=("button", 0),
    programmer=("openFPGALoader", "-b", "ulx3s"),
    description="Radiona ULX3S, Lattice ECP5 LFE5U-85F",
    platform=_platform,
    flash=ULX3S_25F.flash,  # the same board around the larger device
)
