"""ECP5's multiplier ``MULT18X18D`` and block RAM ``DP16KD`` as explicit cells with their registers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zeroskip.boards.families.primitives import BlockRam, Primitives, Tile, memory_ports, module_text

__all__ = ["ECP5_PRIMITIVES"]

_OPERAND_BITS = 18
_GATED_SUM = "16'hc6cc"
_ADDRESS_BITS = 14
_ROWS = 64
_ROW_BITS = 320
_NARROW_SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9))
_PORT_SHAPE = (1024, 18)
_PAIR_SHAPE = (512, 36)
"""Both ports read, each half of the word: the mode of 36 bits has no order of halves that every tool agrees on."""

_REGISTERS = {
    f"REG_{place}_{pin}": f"{pin}0" for place in ("INPUTA", "INPUTB", "OUTPUT") for pin in ("CLK", "CE", "RST")
}


def _multiplier(name: str, a_bits: int, b_bits: int) -> str:
    """Return a multiplier with registers at its operands and its product."""
    product_bits = a_bits + b_bits
    if max(a_bits, b_bits) > _OPERAND_BITS:
        raise ValueError(f"Operands of MULT18X18D must have at most {_OPERAND_BITS} bits, not {a_bits} and {b_bits}")
    pins = {"CLK0": "clk", "CE0": "1'b1", "RST0": "1'b0", "SIGNEDA": "1'b1", "SIGNEDB": "1'b1"}
    pins |= {"SOURCEA": "1'b0", "SOURCEB": "1'b0"}
    for bit in range(_OPERAND_BITS):
        pins[f"A{bit}"] = f"a[{min(bit, a_bits - 1)}]"
        pins[f"B{bit}"] = f"b[{min(bit, b_bits - 1)}]"
    pins |= {f"P{bit}": f"p[{bit}]" for bit in range(product_bits)}
    ports = [
        "input wire clk",
        f"input wire signed [{a_bits - 1}:0] a",
        f"input wire signed [{b_bits - 1}:0] b",
        f"output wire signed [{product_bits - 1}:0] p",
    ]
    parameters = {key: f'"{value}"' for key, value in _REGISTERS.items()}
    return module_text(name, ports, _cell("MULT18X18D", parameters, pins))


def _adder(name: str, bits: int, carry: bool) -> str:
    """Return a chain of ``CCU2C`` whose cells gate ``a`` by ``clear``, two bits a cell.

    A cell's LUT has D tied to 1 and gives b with C set, else a ^ b; where that is 0, the carry is b (its inner LUT of
    A and B).
    """
    ends = [(f"a[{bit}]", f"b[{bit}]", "clear", f"s[{bit}]") for bit in range(bits)]
    if carry:
        # a ^ b is 0 and the carry b: the chain begins with the carry
        ends.insert(0, ("carry", "carry", "1'b0", ""))
    if len(ends) % 2:
        ends.append(("1'b0", "1'b0", "1'b0", ""))
    cells = []
    for number, pair in enumerate(zip(ends[::2], ends[1::2], strict=True)):
        pins = {"CIN": f"chain[{number}]", "COUT": f"chain[{number + 1}]"}
        for half, (a, b, c, s) in enumerate(pair):
            pins |= {f"A{half}": a, f"B{half}": b, f"C{half}": c, f"D{half}": "1'b1", f"S{half}": s}
        parameters = {"INIT0": _GATED_SUM, "INIT1": _GATED_SUM, "INJECT1_0": '"NO"', "INJECT1_1": '"NO"'}
        cells.append(_cell("CCU2C", parameters, pins, f"pair_{number}"))
    ports = [
        "input wire clear",
        *(f"input wire [{bits - 1}:0] {operand}" for operand in "ab"),
        *(["input wire carry"] if carry else []),
        f"output wire [{bits - 1}:0] s",
    ]
    count = len(ends) // 2
    return module_text(name, ports, f"  wire [{count}:0] chain;\n  assign chain[0] = 1'b0;\n" + "".join(cells))


def _memory_shapes(read_ports: int, writable: bool) -> tuple[tuple[int, int], ...]:
    """Return the shapes of a memory; the words of a written one have no more than one byte enable."""
    if writable:
        return _NARROW_SHAPES
    return (*_NARROW_SHAPES, _PORT_SHAPE, *([_PAIR_SHAPE] if read_ports == 1 else []))


def _memory(name: str, tile: Tile, words: Sequence[int]) -> str:
    """Return a block RAM with output register; one read port is B, a second one, or a second half of the word, A."""
    paired = tile.width == _PAIR_SHAPE[1]
    width = _PORT_SHAPE[1] if paired else tile.width
    reads: dict[str, tuple[str, str]] = {}
    if tile.writable:
        reads["B"] = ("read_addr", "read_data")
    elif paired:
        reads = {"B": ("{1'b1, addr_0}", "data_0[35:18]"), "A": ("{1'b0, addr_0}", "data_0[17:0]")}
    else:
        reads = {port: (f"addr_{i}", f"data_{i}") for i, port in zip(range(tile.read_ports), "BA", strict=False)}
    body = "".join(_address(port, source, width) for port, (source, _) in reads.items())
    body += "".join(f"  wire [17:0] out_{port.lower()};\n" for port in reads)
    body += "".join(f"  assign {target} = out_{port.lower()};\n" for port, (_, target) in reads.items())
    pins = {f"{pin}{port}": "1'b0" for port in "AB" for pin in ("WE", "CE", "RST", "OCE")}
    for port in reads:
        pins |= {f"CLK{port}": "clk", f"CE{port}": "1'b1", f"OCE{port}": "1'b1"}
        pins |= {f"DO{port}{bit}": f"out_{port.lower()}[{bit}]" for bit in range(18)}
    write_width = width * tile.parts
    if tile.writable:
        body += _address("A", "write_addr", write_width)
        pins |= {"CLKA": "clk", "CEA": "1'b1", "WEA": "write_en" if tile.parts == 1 else "1'b1"}
        # a port of 36 bits takes the upper half of its word from port B's pins
        pins |= {f"DI{'AB'[bit // 18]}{bit % 18}": f"write_data[{bit}]" for bit in range(write_width)}
    for port in {*reads, *("A" if tile.writable else "")}:
        pins |= {f"AD{port}{bit}": f"address_{port.lower()}[{bit}]" for bit in range(_ADDRESS_BITS)}
    if tile.parts > 1:
        # the lowest address bits of a wide port are its byte enables
        pins |= {f"ADA{part}": f"write_en[{part}]" for part in range(tile.parts)}
    pins |= {f"CS{port}{bit}": "1'b0" for port in "AB" for bit in range(3)}
    parameters = {"DATA_WIDTH_A": str(write_width), "DATA_WIDTH_B": str(width)}
    parameters |= {f"REGMODE_{port}": '"OUTREG"' if port in reads else '"NOREG"' for port in "AB"}
    parameters |= {f"WRITEMODE_{port}": '"NORMAL"' for port in "AB"}
    parameters |= {"RESETMODE": '"SYNC"', "ASYNC_RESET_RELEASE": '"SYNC"', "CLKAMUX": '"CLKA"', "CLKBMUX": '"CLKB"'}
    parameters |= {"CSDECODE_A": '"0b000"', "CSDECODE_B": '"0b000"', "GSR": '"DISABLED"'}
    for row, value in enumerate(_initial_rows(words, tile.width)):
        if value:
            parameters[f"INITVAL_{row:02X}"] = f"{_ROW_BITS}'h{value:x}"
    return module_text(name, memory_ports(tile), body + _cell("DP16KD", parameters, pins))


def _address(port: str, source: str, width: int) -> str:
    """Return the address of a port: the word's number above the bits that choose a part of a wider word."""
    shift = max(width, 1).bit_length() - 1
    low = f", {shift}'b0" if shift else ""
    return f"  wire [{_ADDRESS_BITS - 1}:0] address_{port.lower()} = {{{source}{low}}};\n"


def _cell(kind: str, parameters: Mapping[str, str], pins: Mapping[str, str], name: str = "_TECHMAP_REPLACE_") -> str:
    settings = ",\n".join(f"    .{key}({value})" for key, value in sorted(parameters.items()))
    wires = ",\n".join(f"    .{key}({value})" for key, value in sorted(pins.items()))
    return f"  {kind} #(\n{settings}\n  ) {name} (\n{wires}\n  );\n"


def _initial_rows(words: Sequence[int], width: int) -> list[int]:
    """Return the parameters ``INITVAL_00`` to ``INITVAL_3F`` of a memory whose words have ``width`` bits.

    The cell holds 2048 bytes of nine bits, two of them in 20 bits of a parameter. A narrow word is a part of the low
    eight bits of a byte, a word of 18 bits two bytes.
    """
    memory = [0] * 2048
    for number, word in enumerate(words):
        if width == _PAIR_SHAPE[1]:
            for half, base in ((word & 0x3FFFF, 0), (word >> 18, 1024)):
                memory[base + 2 * number], memory[base + 2 * number + 1] = half & 0x1FF, half >> 9
        elif width == _PORT_SHAPE[1]:
            memory[2 * number], memory[2 * number + 1] = word & 0x1FF, word >> 9
        elif width == 9:
            memory[number] = word
        else:
            parts = 8 // width
            memory[number // parts] |= word << (width * (number % parts))
    rows = [0] * _ROWS
    for index, byte in enumerate(memory):
        rows[index // 32] |= byte << (20 * (index % 32 // 2) + 9 * (index % 2))
    return rows


def _memory_words(parameters: Mapping[str, Any], tile: Tile) -> list[int]:
    """Return the words that a ``DP16KD`` shows at its ports, bit by bit from the address."""
    width = int(parameters["DATA_WIDTH_B"])
    bits = [int(parameters.get(f"INITVAL_{row:02X}", 0)) for row in range(_ROWS)]

    def port(address: int) -> int:
        """Read one port at an address of 14 bits."""
        if width < 9:
            places = [9 * (address >> 3) + (address & 7) // width * width + bit for bit in range(width)]
        else:
            places = [9 * ((address >> 3) & ~(width // 18)) + bit for bit in range(width)]
        word = 0
        for position, place in enumerate(places):
            row, offset = divmod(place, 288)
            word |= (bits[row] >> (offset // 18 * 20 + offset % 18) & 1) << position
        return word

    shift = max(width, 1).bit_length() - 1
    if tile.width == 2 * width:
        half = 1 << (_ADDRESS_BITS - 1)
        return [port(i << shift) | port(half | i << shift) << width for i in range(tile.depth)]
    return [port(i << shift) for i in range(tile.depth)]


ECP5_PRIMITIVES = Primitives(_multiplier, BlockRam(_memory_shapes, _memory, _memory_words, most_parts=4), _adder)
