"""iCEBreaker: the iCE40 UltraPlus board."""

from __future__ import annotations

from typing import Any

from zeroskip.boards.board import Board, Flash
from zeroskip.boards.families.ice40 import ICE40

__all__ = ["ICEBREAKER"]


def _platform() -> Any:
    from amaranth_boards.icebreaker import ICEBreakerPlatform

    return ICEBreakerPlatform(toolchain="IceStorm")


ICEBREAKER = Board(
    name="icebreaker",
    family=ICE40,
    part="iCE40UP5K-SG48",
    package="sg48",
    speed="",
    device_options=("--up5k",),
    clock="clk12",
    clock_mhz=12.0,
    constraint_mhz=48.0,
    lut=5280,
    ff=5280,
    bram=30,
    bram_bits=4096,
    dsp=8,
    reset_button=("button", 0),
    programmer=("iceprog",),
    description="1BitSquared iCEBreaker, Lattice iCE40 UltraPlus UP5K",
    platform=_platform,
    spram=4,
    flash=Flash(
        resource=("spi_flash_1x", 0),
        offset=1 << 20,
        wake_us=50.0,
        programmer=("iceprog", "-o", "1M"),
        done_led=("led_g", 0),
        failed_led=("led_r", 0),
    ),
)
