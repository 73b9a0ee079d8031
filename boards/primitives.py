"""Put a device's own multipliers and memories, with their registers, in the place of the RTL's small modules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroskip.boards.board import Board
from zeroskip.boards.capacity import scopes
from zeroskip.boards.families.family import Cell, Family
from zeroskip.boards.families.primitives import (
    MEMORY_LATENCY,
    BlockRam,
    Tile,
    address_bits,
    memory_ports,
    module_text,
)
from zeroskip.compiler.errors import CapacityError, InputError, VerificationError
from zeroskip.hw.adder import gated_adder_verilog
from zeroskip.hw.memory import bank_verilog, rom_module
from zeroskip.hw.multiplier import multiplier_verilog

__all__ = ["Adder", "Memory", "Multiplier", "Replacement", "choose_shapes", "find_modules", "replace_modules"]

_ROM = re.compile(
    r"// ROM image (?P<name>\w+): (?P<depth>\d+) words of (?P<word_bits>\d+) bits, format (?P<format>.*)\n"
    r"[\s\S]*rom_style = \"(?P<style>\w+)\""
)
_BANK = re.compile(r"// One activation bank: (?P<depth>\d+) words of 8 bits, (?P<parts>\d+) written at once")
_PARAMETER = re.compile(r"^ +\.(\w+)\((\d+'h[0-9a-f]+|\d+)\),?$", re.MULTILINE)
"""A parameter of a generated cell that is a number."""
_ADDER = re.compile(r"// Gated adder, (?P<bits>\d+) bits, (?P<carry>with|without) carry")
_MULTIPLIERS = ("multiplier", "paired_multiplier", "scaler")
_MULTIPLIER = re.compile(r"// Signed multiplier, (?P<a_bits>\d+) x (?P<b_bits>\d+) bits")


@dataclass(frozen=True)
class Memory:
    """A ROM in block RAM (``words`` is its image) or the activation bank (``words`` is empty).

    ``parts`` words of a bank are written at once.
    """

    module: str
    depth: int
    width: int
    read_ports: int
    words: tuple[int, ...]
    parts: int = 1

    @property
    def writable(self) -> bool:
        """Whether it is the activation bank."""
        return not self.words


@dataclass(frozen=True)
class Multiplier:
    """A signed multiplier."""

    module: str
    a_bits: int
    b_bits: int


@dataclass(frozen=True)
class Adder:
    """An adder with a gated operand."""

    module: str
    bits: int
    carry: bool


@dataclass(frozen=True)
class Replacement:
    """What synthesis reads in the place of some RTL modules.

    Parameters
    ----------
    modules : tuple[str, ...]
        The modules replaced, each the only one of ``rtl/<module>.v``.
    wrappers : str
        Their new bodies: logic around black boxes, and the black boxes.
    cells : str
        What takes the place of the black boxes after synthesis.
    tiles : Mapping[str, Mapping[str, tuple[Tile, tuple[int, ...]]]]
        Memory module -> instance inside it -> its size and the words it must hold.
    """

    modules: tuple[str, ...]
    wrappers: str
    cells: str
    tiles: Mapping[str, Mapping[str, tuple[Tile, tuple[int, ...]]]]

    def refuse_wrong_images(self, cells: Mapping[str, Cell], family: Family) -> None:
        """Raise when a block RAM of the mapped netlist holds other words than the ROM image.

        Raises
        ------
        VerificationError
            Naming the ROM and the cell.
        """
        if family.primitives is None or family.primitives.block_ram is None:
            return
        for module, tiles in self.tiles.items():
            for place in scopes(cells, module):
                for instance, (tile, words) in tiles.items():
                    cell = cells.get(f"{place}.{instance}")
                    if cell is None or tile.writable:
                        continue
                    parameters = {key: _number(value) for key, value in cell["parameters"].items()}
                    if family.primitives.block_ram.words(parameters, tile)[: len(words)] != list(words):
                        raise VerificationError(
                            f"Block RAM '{place}.{instance}' of the netlist holds other words than the image of "
                            f"module {module!r}"
                        )


def find_modules(directory: Path) -> list[Memory | Multiplier | Adder]:
    """Return the multipliers, adders and memories of ``directory/rtl`` that are written as the generator writes them.

    A module that differs in anything else than its numbers, or a ROM that belongs in logic, is left to synthesis.

    Raises
    ------
    InputError
        If the image of a ROM cannot be read or has another size than the ROM.
    """
    found: list[Memory | Multiplier | Adder] = []
    for path in sorted((directory / "rtl").glob("*.v")):
        text = path.read_text(encoding="utf-8")
        if path.stem.startswith("rom_"):
            found += _find_rom(directory, path.stem, text)
        elif match := (_BANK.match(text) if path.stem == "activation_bank" else None):
            depth, parts = int(match["depth"]), int(match["parts"])
            if text == bank_verilog(depth, parts):
                found.append(Memory(path.stem, depth, 8, 1, (), parts))
        elif match := (_MULTIPLIER.match(text) if path.stem in _MULTIPLIERS else None):
            bits = int(match["a_bits"]), int(match["b_bits"])
            if text == multiplier_verilog(*bits, path.stem):
                found.append(Multiplier(path.stem, *bits))
        elif match := (_ADDER.match(text) if path.stem == "gated_adder" else None):
            width, carry = int(match["bits"]), match["carry"] == "with"
            if text == gated_adder_verilog(width, carry=carry):
                found.append(Adder(path.stem, width, carry))
    return found


def _find_rom(directory: Path, module: str, text: str) -> list[Memory | Multiplier | Adder]:
    match = _ROM.match(text)
    if match is None or match["style"] != "block" or module != f"rom_{match['name']}":
        return []
    name, depth, width, ports = match["name"], int(match["depth"]), int(match["word_bits"]), text.count("] addr_")
    if text != rom_module(name, depth, width, ports, match["style"], match["format"]):
        return []
    image = directory / "rom" / f"{name}.mem"
    try:
        words = tuple(int(word, 16) for word in image.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise InputError(f"ROM image '{image}' must hold one hexadecimal word a line: {error}") from error
    if len(words) != depth or any(word >> width for word in words):
        raise InputError(
            f"ROM image '{image}' has {len(words)} words of up to {max(words, default=0).bit_length()} bits, "
            f"but module {module!r} has {depth} words of {width} bits"
        )
    return [Memory(module, depth, width, ports, words)]


def replace_modules(directory: Path, board: Board) -> Replacement | None:
    """Return what takes the place of the modules for which the board's family has cells of its own, or None.

    A multiplier that is wider than the family's is left to synthesis, which makes it of several, or of logic.
    Every initial content is read back from the generated text and compared with the ROM image.

    Raises
    ------
    CapacityError
        If two products do not fit one multiplier of the device; other wide multipliers are left to synthesis.
    InputError
        If a ROM image cannot be read.
    VerificationError
        If a generated block RAM does not hold its part of the image.
    """
    primitives = board.family.primitives
    if primitives is None:
        return None
    found = find_modules(directory)
    wrappers, cells, tiles, names = [], [], {}, []
    for multiplier in (module for module in found if isinstance(module, Multiplier)):
        if max(multiplier.a_bits, multiplier.b_bits) > board.family.operand_bits:
            _refuse_wide_pair(multiplier, board)
            continue
        cell = primitives.multiplier(f"{multiplier.module}_cell", multiplier.a_bits, multiplier.b_bits)
        wrappers.append(_wrap(multiplier.module, cell))
        cells.append(cell)
        names.append(multiplier.module)
    for adder in (module for module in found if isinstance(module, Adder)):
        if primitives.adder is None:
            continue
        cell = primitives.adder(f"{adder.module}_cell", adder.bits, adder.carry)
        wrappers.append(_wrap(adder.module, cell))
        cells.append(cell)
        names.append(adder.module)
    if primitives.block_ram is not None:
        most = primitives.block_ram.most_parts
        memories = [module for module in found if isinstance(module, Memory) and module.parts <= most]
        shapes = choose_shapes(memories, _instances(directory, memories), primitives.block_ram, board.bram)
        for memory in memories:
            tiles[memory.module] = _cut(memory, shapes[memory.module])
            wrappers.append(_wrap_memory(memory, shapes[memory.module]))
            names.append(memory.module)
            for instance, (tile, words) in tiles[memory.module].items():
                name = f"{memory.module}_{instance}"
                cells.append(_fill(name, tile, words, primitives.block_ram))
                wrappers.append(module_text(name, memory_ports(tile), ""))
    return Replacement(tuple(names), "\n".join(wrappers), "\n".join(cells), tiles) if names else None


def _refuse_wide_pair(multiplier: Multiplier, board: Board) -> None:
    """Synthesis would spend several multipliers on the two products that were to share one."""
    if multiplier.module != "paired_multiplier":
        return
    raise CapacityError(
        f"Module {multiplier.module!r} needs a multiplier with operands of {multiplier.b_bits} bits, but those of "
        f"board {board.name!r} have {board.family.operand_bits}; compile without --set paired_products=1"
    )


def _wrap(module: str, cell: str) -> str:
    """Return the module with a black box in it that has the ports of ``cell``, named after the module."""
    box = f"{module}_cell"
    ports = re.findall(r"^  (input .*?|output .*?),?$", cell.partition(");")[0], flags=re.MULTILINE)
    names = (port.rpartition(" ")[2] for port in ports)
    body = f"  {box} inner({', '.join(f'.{name}({name})' for name in names)});\n"
    return module_text(module, ports, body) + module_text(box, ports, "")


def _instances(directory: Path, memories: Sequence[Memory]) -> dict[str, int]:
    """Return how often each module occurs in the RTL; the generator writes no module twice."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((directory / "rtl").glob("*.v"))]
    counts = {}
    for memory in memories:
        line = re.compile(rf"^\s*{memory.module}\s+\\?\S+\s*\(", flags=re.MULTILINE)
        counts[memory.module] = max(1, sum(len(line.findall(text)) for text in texts))
    return counts


def choose_shapes(
    memories: Sequence[Memory], instances: Mapping[str, int], block_ram: BlockRam, blocks: int
) -> dict[str, tuple[int, int]]:
    """Return depth and width of the block RAMs of each memory.

    A memory is cut by bits, which needs no logic behind its output registers, as long as all fit into ``blocks``; then
    those whose cut by depth saves most are cut by depth as well.
    """
    chosen, saving = {}, {}
    for memory in memories:
        shapes = block_ram.shapes(memory.read_ports, memory.writable)
        if memory.parts > 1:
            # a byte has one enable: no cut by bits
            shapes = tuple(shape for shape in shapes if shape[1] >= memory.width)
        flat = [shape for shape in shapes if shape[0] >= memory.depth]
        least = min(shapes, key=lambda shape: (_blocks(memory, shape), -shape[0]))
        first = min(flat, key=lambda shape: (_blocks(memory, shape), -shape[1])) if flat else least
        chosen[memory.module] = first
        saving[memory.module] = (instances[memory.module] * (_blocks(memory, first) - _blocks(memory, least)), least)
    need = sum(instances[memory.module] * _blocks(memory, chosen[memory.module]) for memory in memories)
    for module, (saved, least) in sorted(saving.items(), key=lambda item: -item[1][0]):
        if need <= blocks or not saved:
            break
        chosen[module] = least
        need -= saved
    return chosen


def _blocks(memory: Memory, shape: tuple[int, int]) -> int:
    return -(-memory.depth // shape[0]) * -(-memory.width // shape[1])


def _cut(memory: Memory, shape: tuple[int, int]) -> dict[str, tuple[Tile, tuple[int, ...]]]:
    """Return the tiles of a memory by instance name: row by row of words, from the low bits on."""
    depth, width = shape
    tile = Tile(depth, width, memory.read_ports, memory.writable, memory.parts)
    mask = (1 << width) - 1
    return {
        f"tile_{row}_{column}": (
            tile,
            tuple(word >> (width * column) & mask for word in memory.words[row * depth : (row + 1) * depth]),
        )
        for row in range(-(-memory.depth // depth))
        for column in range(-(-memory.width // width))
    }


def _fill(name: str, tile: Tile, words: Sequence[int], block_ram: BlockRam) -> str:
    """Return the cell of a tile, after reading its content back from the text."""
    text = block_ram.cell(name, tile, words)
    if not tile.writable:
        parameters = {
            key: int(value.rpartition("'h")[2], 16 if "'" in value else 10) for key, value in _PARAMETER.findall(text)
        }
        if block_ram.words(parameters, tile) != [*words, *[0] * (tile.depth - len(words))]:
            raise VerificationError(f"Block RAM {name!r} as generated does not hold its part of the ROM image")
    return text


def _wrap_memory(memory: Memory, shape: tuple[int, int]) -> str:
    """Return the module of a memory as instances of its tiles, with a choice of the row where there are several."""
    depth, width = shape
    rows, columns = -(-memory.depth // depth), -(-memory.width // width)
    bits, low = address_bits(memory.depth), address_bits(depth)
    whole = Tile(memory.depth, memory.width, memory.read_ports, memory.writable, memory.parts)
    write_bits, write_low = address_bits(memory.depth // memory.parts), address_bits(depth // memory.parts)
    ports = [("read_addr", "read_data")] if memory.writable else []
    ports = ports or [(f"addr_{port}", f"data_{port}") for port in range(memory.read_ports)]
    body = ""
    for addr, data in ports:
        body += f"  wire [{width * columns - 1}:0] {', '.join(f'{data}_row_{row}' for row in range(rows))};\n"
        if rows == 1:
            body += f"  assign {data} = {data}_row_0[{memory.width - 1}:0];\n"
            continue
        row_bits = f"[{bits - low - 1}:0]"
        stages = [f"{addr}_stage_{stage}" for stage in range(MEMORY_LATENCY)]
        body += f"  reg {row_bits} {', '.join(stages)};\n  always @(posedge clk) begin\n"
        body += f"    {stages[0]} <= {addr}[{bits - 1}:{low}];\n"
        body += "".join(f"    {after} <= {before};\n" for before, after in zip(stages, stages[1:], strict=False))
        choice = " : ".join(f"{stages[-1]} == {row} ? {data}_row_{row}" for row in range(rows - 1))
        body += f"  end\n  assign {data} = {choice} : {data}_row_{rows - 1};\n"
    for row in range(rows):
        for column in range(columns):
            pins = [".clk(clk)"]
            for addr, data in ports:
                pins.append(f".{addr}({_local(addr, bits, low)})")
                pins.append(f".{data}({data}_row_{row}[{width * (column + 1) - 1}:{width * column}])")
            if memory.writable:
                chosen = f"write_addr[{write_bits - 1}:{write_low}] == {row}"
                here = f"write_en & {{{memory.parts}{{{chosen}}}}}" if rows > 1 else "write_en"
                pins.append(f".write_addr({_local('write_addr', write_bits, write_low)})")
                pins.append(f".write_data({{{', '.join(reversed(_write_parts(memory, width, column)))}}})")
                pins.append(f".write_en({here})")
            instance = f"tile_{row}_{column}"
            body += f"  {memory.module}_{instance} {instance}({', '.join(pins)});\n"
    return module_text(memory.module, memory_ports(whole), body)


def _write_parts(memory: Memory, width: int, column: int) -> list[str]:
    """Return what a tile takes of each word that is written at once, filled up to its width."""
    low, top = width * column, min(memory.width, width * (column + 1)) - 1
    missing = width * (column + 1) - 1 - top
    words = (f"write_data[{memory.width * part + top}:{memory.width * part + low}]" for part in range(memory.parts))
    return [f"{missing}'b0, {word}" if missing else word for word in words]


def _local(addr: str, bits: int, low: int) -> str:
    """Return an address of ``bits`` bits as one of ``low`` bits inside a tile."""
    if bits > low:
        return f"{addr}[{low - 1}:0]"
    return f"{{{low - bits}'b0, {addr}}}" if bits < low else addr


def _number(value: Any) -> Any:
    """Return a parameter of Yosys' JSON as a number where it is one."""
    return int(value, 2) if isinstance(value, str) and re.fullmatch(r"[01]+", value) else value
