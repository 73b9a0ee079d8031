"""What a board is: its device, what the device holds, and how its pins are reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zeroskip.boards.families.family import Family

__all__ = ["Board"]


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
    pack_options: tuple[str, ...] = ()

    @property
    def available(self) -> dict[str, int]:
        """Cells that the device holds, by the names of ``resources`` in report.json."""
        return {"lut": self.lut, "ff": self.ff, "bram": self.bram, "dsp": self.dsp}

    @property
    def device(self) -> dict[str, str]:
        """The ``device`` part of report.json."""
        return {"family": self.family.name, "part": self.part, "package": self.package, "speed": self.speed}
