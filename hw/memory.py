"""Memories as Verilog modules of their own: ROMs that read their image file or are loaded, and the activation banks."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Rom
from zeroskip.compiler.spram import SPRAM_BITS, SPRAM_DEPTH, spram_count, spram_grid
from zeroskip.hw.boot import boot_signature

__all__ = [
    "ActivationBank",
    "DescriptorRom",
    "RomReader",
    "bank_verilog",
    "descriptor_verilog",
    "rom_module",
    "rom_verilog",
    "spram_module",
]


class RomReader(wiring.Component):
    """A ROM image with ``rom.ports`` read ports.

    Latency 2 cycles (the memory, then a register), initiation interval 1. The image stays a file (``rom/<name>.mem``),
    so the design that is simulated and synthesized holds what the compiler wrote and proved, and no other copy of it.
    In SPRAM it is written block by block, while nothing is read; a simulation may start with the image instead. Of a
    paged ROM only ``rom.held`` words are there, which are written while others are read.

    Parameters
    ----------
    rom : Rom

    Members
    -------
    addr_0, addr_1 ... : In(address bits), words
    data_0, data_1 ... : Out(rom.word_bits)
    boot : In(boot_signature(blocks)), of a ROM in SPRAM
    load_en, load_addr, load_data : In, of a paged ROM
    """

    latency_cycles = 2

    def __init__(self, rom: Rom) -> None:
        self.rom = rom
        address_bits = max(1, (rom.held - 1).bit_length())
        members = {}
        if rom.style == "spram":
            members["boot"] = In(boot_signature(spram_count([rom])))
        if rom.style == "paged":
            members |= {"load_en": In(1), "load_addr": In(address_bits), "load_data": In(rom.word_bits)}
        for port in range(rom.ports):
            members[f"addr_{port}"] = In(address_bits)
            members[f"data_{port}"] = Out(rom.word_bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Instantiate the ROM's module."""
        m = Module()
        ports = {"i_clk": ClockSignal()}
        for port in range(self.rom.ports):
            ports[f"i_addr_{port}"] = getattr(self, f"addr_{port}")
            ports[f"o_data_{port}"] = getattr(self, f"data_{port}")
        if self.rom.style == "spram":
            ports |= {"i_boot_en": self.boot.en, "i_boot_addr": self.boot.addr, "i_boot_data": self.boot.data}
        if self.rom.style == "paged":
            ports |= {f"i_{name}": getattr(self, name) for name in ("load_en", "load_addr", "load_data")}
        m.submodules.rom = Instance(f"rom_{self.rom.name}", **ports)
        return m


class DescriptorRom(wiring.Component):
    """The ROM of the layer descriptors: a word is read when ``en`` is high, and held until the next one.

    Latency 1 cycle.

    Parameters
    ----------
    rom : Rom

    Members
    -------
    addr : In(address bits); en : In(1); data : Out(rom.word_bits)
    """

    latency_cycles = 1

    def __init__(self, rom: Rom) -> None:
        self.rom = rom
        super().__init__({"addr": In(max(1, (rom.depth - 1).bit_length())), "en": In(1), "data": Out(rom.word_bits)})

    def elaborate(self, platform: object) -> Module:
        """Instantiate the ROM's module."""
        m = Module()
        m.submodules.rom = Instance(
            f"rom_{self.rom.name}", i_clk=ClockSignal(), i_en=self.en, i_addr=self.addr, o_data=self.data
        )
        return m


class ActivationBank(wiring.Component):
    """One bank of the activation memory: a read port for the gather, a write port for write-back and host.

    The write port is ``parts`` words wide, each of which has an enable: as the byte enables of a block RAM, whose ports
    may differ in width. Read latency 2 cycles (the memory, then a register). A word read in the cycle it is written is
    undefined; layers never do that.

    Parameters
    ----------
    depth : int, words of 8 bits, a multiple of ``parts``
    parts : int, a power of two

    Members
    -------
    read_addr : In(address bits), words; write_addr : In(fewer bits), ``parts`` words each
    read_data : Out(8)
    write_data : In(8 * parts)
    write_en : In(parts)
    """

    latency_cycles = 2

    def __init__(self, depth: int, parts: int = 1) -> None:
        self.depth = depth
        bits, write_bits = (max(1, (words - 1).bit_length()) for words in (depth, depth // parts))
        super().__init__(
            {
                "read_addr": In(bits),
                "read_data": Out(8),
                "write_addr": In(write_bits),
                "write_data": In(8 * parts),
                "write_en": In(parts),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Instantiate the bank's module."""
        m = Module()
        m.submodules.bank = Instance(
            "activation_bank",
            i_clk=ClockSignal(),
            i_read_addr=self.read_addr,
            o_read_data=self.read_data,
            i_write_addr=self.write_addr,
            i_write_data=self.write_data,
            i_write_en=self.write_en,
        )
        return m


def rom_verilog(rom: Rom) -> str:
    """Return the Verilog module of a ROM; it reads ``rom/<name>.mem`` relative to the tool's working folder."""
    if rom.style == "spram":
        return spram_module(rom.name, rom.depth, rom.word_bits, rom.format)
    if rom.style == "paged":
        return buffer_module(rom.name, rom.held, rom.word_bits, rom.format)
    return rom_module(rom.name, rom.depth, rom.word_bits, rom.ports, rom.style, rom.format)


def rom_module(name: str, depth: int, word_bits: int, ports: int, style: str, format: str) -> str:
    """Return the text of :func:`rom_verilog` for a ROM of these numbers."""
    high = max(1, (depth - 1).bit_length()) - 1
    pins = "".join(
        f",\n    input wire [{high}:0] addr_{port},\n    output reg [{word_bits - 1}:0] data_{port}"
        for port in range(ports)
    )
    reads = "".join(
        f"    reg [{word_bits - 1}:0] word_{port};\n    always @(posedge clk) begin\n"
        f"        word_{port} <= mem[addr_{port}];\n        data_{port} <= word_{port};\n    end\n"
        for port in range(ports)
    )
    return (
        f"// ROM image {name}: {depth} words of {word_bits} bits, format {format}\n"
        f"module rom_{name}(\n    input wire clk{pins}\n);\n"
        f'    (* rom_style = "{style}" *) reg [{word_bits - 1}:0] mem [0:{depth - 1}];\n'
        f'    initial $readmemh("rom/{name}.mem", mem);\n'
        f"{reads}endmodule\n"
    )


def spram_module(name: str, depth: int, word_bits: int, format: str) -> str:
    """Return the text of :func:`rom_verilog` for a ROM in SPRAM: the blocks' twin, which starts with the image."""
    high = max(1, (depth - 1).bit_length()) - 1
    rows, columns = spram_grid(depth, word_bits)
    writes = ""
    for row in range(rows):
        for column in range(columns):
            low = column * SPRAM_BITS
            bits = min(word_bits - low, SPRAM_BITS)
            word = f"mem[{row * SPRAM_DEPTH} + boot_addr]" if rows > 1 else "mem[boot_addr]"
            writes += (
                f"        if (boot_en[{row * columns + column}]) "
                f"{word}[{low + bits - 1}:{low}] <= boot_data[{bits - 1}:0];\n"
            )
    return (
        f"// SPRAM image {name}: {depth} words of {word_bits} bits, format {format}\n"
        f"module rom_{name}(\n    input wire clk,\n    input wire [{high}:0] addr_0,\n"
        f"    output reg [{word_bits - 1}:0] data_0,\n    input wire [{rows * columns - 1}:0] boot_en,\n"
        f"    input wire [{(SPRAM_DEPTH - 1).bit_length() - 1}:0] boot_addr,\n"
        f"    input wire [{SPRAM_BITS - 1}:0] boot_data\n);\n"
        f"    reg [{word_bits - 1}:0] mem [0:{depth - 1}];\n"
        f'    initial $readmemh("rom/{name}.mem", mem);\n'
        f"    reg [{word_bits - 1}:0] word_0;\n    always @(posedge clk) begin\n{writes}"
        "        word_0 <= mem[addr_0];\n        data_0 <= word_0;\n    end\nendmodule\n"
    )


def buffer_module(name: str, depth: int, word_bits: int, format: str) -> str:
    """Return the text of :func:`rom_verilog` for a paged ROM, of which ``depth`` words are held."""
    high = (depth - 1).bit_length() - 1
    return (
        f"// Buffer of image {name}: {depth} words of {word_bits} bits, format {format}\n"
        f"module rom_{name}(\n    input wire clk,\n    input wire [{high}:0] addr_0,\n"
        f"    output reg [{word_bits - 1}:0] data_0,\n    input wire load_en,\n    input wire [{high}:0] load_addr,\n"
        f"    input wire [{word_bits - 1}:0] load_data\n);\n"
        f'    (* no_rw_check, ram_style = "block" *) reg [{word_bits - 1}:0] mem [0:{depth - 1}];\n'
        f"    reg [{word_bits - 1}:0] word_0;\n    always @(posedge clk) begin\n"
        "        if (load_en) mem[load_addr] <= load_data;\n"
        "        word_0 <= mem[addr_0];\n        data_0 <= word_0;\n    end\nendmodule\n"
    )


def descriptor_verilog(rom: Rom) -> str:
    """Return the Verilog module of a descriptor ROM."""
    high = max(1, (rom.depth - 1).bit_length()) - 1
    return (
        f"// Descriptor ROM {rom.name}: {rom.depth} words of {rom.word_bits} bits\n"
        f"module rom_{rom.name}(\n    input wire clk,\n    input wire en,\n    input wire [{high}:0] addr,\n"
        f"    output reg [{rom.word_bits - 1}:0] data\n);\n"
        f'    (* rom_style = "{rom.style}" *) reg [{rom.word_bits - 1}:0] mem [0:{rom.depth - 1}];\n'
        f'    initial $readmemh("rom/{rom.name}.mem", mem);\n'
        "    always @(posedge clk) if (en) data <= mem[addr];\nendmodule\n"
    )


def bank_verilog(depth: int, parts: int = 1) -> str:
    """Return the Verilog module of an activation bank of ``depth`` words, of which ``parts`` are written at once."""
    high, write_high = (max(1, (words - 1).bit_length()) - 1 for words in (depth, depth // parts))
    low = (parts - 1).bit_length()
    ports = f"    input wire [{write_high}:0] write_addr,\n    input wire [{8 * parts - 1}:0] write_data,\n"
    ports += f"    input wire {f'[{parts - 1}:0] ' if parts > 1 else ''}write_en\n"
    writes = "        if (write_en) mem[write_addr] <= write_data;\n"
    if parts > 1:
        writes = "".join(
            f"        if (write_en[{part}]) mem[{{write_addr, {low}'d{part}}}] <= write_data[{8 * part} +: 8];\n"
            for part in range(parts)
        )
    return (
        f"// One activation bank: {depth} words of 8 bits, {parts} written at once\n"
        "module activation_bank(\n    input wire clk,\n"
        f"    input wire [{high}:0] read_addr,\n    output reg [7:0] read_data,\n"
        f"{ports});\n"
        f'    (* no_rw_check, ram_style = "block" *) reg [7:0] mem [0:{depth - 1}];\n    reg [7:0] word;\n'
        f"    always @(posedge clk) begin\n{writes}"
        "        word <= mem[read_addr];\n        read_data <= word;\n    end\nendmodule\n"
    )
