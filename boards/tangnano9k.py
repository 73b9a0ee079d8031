"""Tang Nano 9K: the Gowin LittleBee board."""

from __future__ import annotations

from typing import Any

from zeroskip.boards.board import Board
from zeroskip.boards.families.gowin import GOWIN

__all__ = ["TANGNANO9K"]


def _platform() -> Any:
    from amaranth_boards.tang_nano_9k import TangNano9kPlatform

    return TangNano9kPlatform(toolchain="Apicula")


TANGNANO9K = Board(
    name="tangnano9k",
    family=GOWIN,
    part="GW1NR-LV9QN88PC6/I5",
    package="QN88P",
    speed="C6/I5",
    # The part's name does not tell the dies GW1N-9 and GW1N-9C apart.
    device_options=("--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C"),
    pack_options=("-d", "GW1N-9C"),
    clock="clk27",
    clock_mhz=27.0,
    constraint_mhz=100.0,
    lut=8640,
    ff=6480,
    bram=26,
    bram_bits=18432,
    dsp=20,
    reset_button=("button", 0),
    programmer=("openFPGALoader", "-b", "tangnano9k"),
    description="Sipeed Tang Nano 9K, Gowin GW1NR-9C",
    platform=_platform,
)
