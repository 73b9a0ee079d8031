"""What a board is: its device, what the device holds, and how its pins are reached."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zeroskip.boards.families.family import Family

__all__ = ["Board", "Flash"]


@dataclass(frozen=True)
class Flash:
    """The board's SPI flash, from which SPRAM is filled at boot, or parameters are read during every inference.

    Parameters
    ----------
    resource : tuple[str, int]
        Amaranth resource with the pins ``cs``, ``clk`` (unless the family has a ``flash_clock``), ``copi``, ``cipo``,
        ``wp`` and ``hold``.
    offset : int, bytes
        Where the image lies: behind the bitstream.
    wake_us : float, microseconds
        From the wake-up command to the next one; more than any flash of the board's revisions takes.
    programmer : tuple[str, ...]
        Command that writes the image; the file is appended.
    done_led, failed_led : tuple[str, int]
        Amaranth resources of the lamps that say how boot ended.
    commands : tuple[int, ...]
        Read commands that its pins allow, the usual one first.
    sleeps : bool
        Whether configuration leaves it in deep power-down. It is woken either way: another design may have left it so.
    """

    resource: tuple[str, int]
    offset: int
    wake_us: float
    programmer: tuple[str, ...]
    done_led: tuple[str, int]
    failed_led: tuple[str, int]
    commands: tuple[int, ...] = (0x03, 0x0B)
    sleeps: bool = True

    def wake_cycles(self, clock_mhz: float) -> int:
        """Return the cycles that it takes to wake up."""
        return math.ceil(self.wake_us * clock_mhz)


@dataclass(frozen=True)
class Board:
    """One board, in numbers.

    Parameters
    ----------
    name : str
        As given to ``--board``.
    family : Family
        Tools and cells of the device family.
    part, package, speed : str
        Ordering code, package and speed grade of the device (empty where there is only one grade).
    device_options : tuple[str, ...]
        Options that name the device to nextpnr, beside package and speed grade.
    clock : str
        Amaranth resource of the clock pin.
    clock_mhz : float, MHz
        Frequency of that clock; the design runs on it directly.
    constraint_mhz : float, MHz
        Constraint for place and route: above reach, so that the router pushes.
    lut, ff, bram, dsp : int
        Cells that the device holds, in the units of the family's ``used``.
    bram_bits : int
        Bits in one block RAM.
    reset_button : tuple[str, int]
        Amaranth resource that resets the design.
    programmer : tuple[str, ...]
        Command that loads a bitstream; the file is appended.
    description : str
    platform : Callable[[], Any]
        Makes a fresh Amaranth platform (one build uses one up).
    spram : int
        Blocks of single-port RAM (16,384 words of 16 bits, without initial content); 0: the device has none.
    flash : Flash or None
        What fills them, needed where there are any, and what designs may read while they run.
    pack_options : tuple[str, ...]
        Options that name the device to the packer, where it needs any.
    """

    name: str
    family: Family
    part: str
    package: str
    speed: str
    device_options: tuple[str, ...]
    clock: str
    clock_mhz: float
    constraint_mhz: float
    lut: int
    ff: int
    bram: int
    bram_bits: int
    dsp: int
    reset_button: tuple[str, int]
    programmer: tuple[str, ...]
    description: str
    platform: Callable[[], Any]
    spram: int = 0
    flash: Flash | None = None
    pack_options: tuple[str, ...] = ()

    @property
    def available(self) -> dict[str, int]:
        """Cells that the device holds, by the names of ``resources`` in report.json."""
        cells = {"lut": self.lut, "ff": self.ff, "bram": self.bram, "dsp": self.dsp}
        return {**cells, "spram": self.spram} if self.spram else cells

    @property
    def device(self) -> dict[str, str]:
        """The ``device`` part of report.json."""
        return {"family": self.family.name, "part": self.part, "package": self.package, "speed": self.speed}
