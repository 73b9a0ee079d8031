"""What every part of the accelerator sees: sequencers, descriptors, and the modules of the ROMs."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Module
from amaranth.lib import data, wiring

from zeroskip.compiler.program import Program, Rom
from zeroskip.compiler.spram import spram_count, spram_roms
from zeroskip.hw.memory import RomReader
from zeroskip.hw.paging import ParameterPages
from zeroskip.hw.sequencer import BackSequencer, FrontSequencer

__all__ = ["Control", "RomReaders", "address_bits"]


def address_bits(rom: Rom) -> int:
    """Return the bits of a ROM's address; of a paged one, those of its buffer."""
    return max(1, (rom.held - 1).bit_length())


@dataclass(frozen=True)
class Control:
    """The two sequencers, the descriptors of the layers that they run, and the source of parameters from outside."""

    front_sequencer: FrontSequencer
    back_sequencer: BackSequencer
    front: data.View
    back: data.View
    parameters: ParameterPages | None


class RomReaders:
    """The ROMs of a program as modules, each connected to what fills it.

    Parameters
    ----------
    program : Program
    boot : interface of boot_signature, None where no ROM lies in SPRAM
    parameters : ParameterPages, None where all parameters stay on the chip
    """

    def __init__(self, program: Program, boot: wiring.PureInterface | None, parameters: ParameterPages | None) -> None:
        self.program = program
        self.boot = boot
        self.parameters = parameters

    def add(self, m: Module, name: str, copy: int | None = None) -> RomReader:
        """Add the module of a ROM, or one copy of it, and return it."""
        reader = RomReader(self.program.rom(name))
        m.submodules[f"rom_{name}" if copy is None else f"rom_{name}_{copy}"] = reader
        if self.boot is not None and reader.rom.style == "spram":
            before = [rom for rom in spram_roms(self.program.roms) if rom.name < name]
            m.d.comb += [
                reader.boot.en.eq(self.boot.en[spram_count(before) :]),
                reader.boot.addr.eq(self.boot.addr),
                reader.boot.data.eq(self.boot.data),
            ]
        if self.parameters is not None and reader.rom.style == "paged":
            load, number = self.parameters.port(reader.rom)
            m.d.comb += [
                reader.load_en.eq(load.en[number]),
                reader.load_addr.eq(load.addr),
                reader.load_data.eq(load.data),
            ]
        return reader
