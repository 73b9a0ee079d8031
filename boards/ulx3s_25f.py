"""ULX3S with the 25F: the small ECP5 board."""

from __future__ import annotations

from typing import Any

from zeroskip.boards.board import Board, Flash
from zeroskip.boards.families.ecp5 import ECP5

__all__ = ["ULX3S_25F"]


def _platform() -> Any:
    from amaranth_boards.ulx3s import ULX3S_25F_Platform

    return ULX3S_25F_Platform(toolchain="Trellis")


ULX3S_25F = Board(
    name="ulx3s-25f",
    family=ECP5,
    part="LFE5U-25F-6BG381C",
    package="CABGA381",
    speed="6",
    device_options=("--25k",),
    clock="clk25",
    clock_mhz=25.0,
    constraint_mhz=240.0,
    lut=24288,
    ff=24288,
    bram=56,
    bram_bits=18432,
    dsp=28,
    reset_button=("button", 0),
    programmer=("openFPGALoader", "-b", "ulx3s"),
    description="Radiona ULX3S, Lattice ECP5 LFE5U-25F",
    platform=_platform,
    flash=Flash(
        resource=("spi_flash", 0),
        # behind two bitstreams of the 85F: boot loaders lie at 0 and start what lies at 2 MiB
        offset=4 << 20,
        wake_us=50.0,
        programmer=("openFPGALoader", "-b", "ulx3s", "-f", "-o", "0x400000"),
        done_led=("led", 0),
        failed_led=("led", 1),
        # one line: the boards' flashes differ in how four are enabled, and in whether they are
        commands=(0x0B, 0x03),
        sleeps=False,
    ),
)
