"""What a device family says about its own multipliers and memories, with their pipeline registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MEMORY_LATENCY", "BlockRam", "Primitives", "Tile", "address_bits", "memory_ports", "module_text"]

MEMORY_LATENCY = 2
"""Cycles from address to word: the memory, then its output register."""


@dataclass(frozen=True)
class Tile:
    """What one block RAM holds of a memory.

    Parameters
    ----------
    depth, width : int
        Words and their bits.
    read_ports : int
    writable : bool
        Whether there is a write port as well; without one the content is fixed.
    parts : int
        Words that the write port takes at once, each with an enable.
    """

    depth: int
    width: int
    read_ports: int
    writable: bool
    parts: int = 1


@dataclass(frozen=True)
class BlockRam:
    """A block RAM with an output register.

    Parameters
    ----------
    shapes : Callable[[int, bool], tuple[tuple[int, int], ...]]
        Number of read ports, and whether it is written -> depths and widths that one block RAM can take.
    cell : Callable[[str, Tile, Sequence[int]], str]
        Name, size and content -> module with the ports of :func:`memory_ports`.
    words : Callable[[Mapping[str, Any], Tile], list[int]]
        Numeric parameters of such a cell by name, and the size -> the words it holds; written apart from ``cell``.
    most_parts : int
        Words of 8 bits that a write port can take at once, each with an enable.
    """

    shapes: Callable[[int, bool], tuple[tuple[int, int], ...]]
    cell: Callable[[str, Tile, Sequence[int]], str]
    words: Callable[[Mapping[str, Any], Tile], list[int]]
    most_parts: int = 1


@dataclass(frozen=True)
class Primitives:
    """How a family gives its own cells for the multipliers (``multiplier``, ``paired_multiplier``, ``scaler``), the
    modules ``rom_<name>``, ``activation_bank`` and ``gated_adder``.

    Each cell is the text of one Verilog module without parameters, whose instances take the place of black boxes after
    synthesis; nothing but cells of the device and constants may be in it.

    Parameters
    ----------
    multiplier : Callable[[str, int, int], str]
        Name of the module and bits of its signed operands ``a`` and ``b`` -> module; behaves as that of
        :func:`zeroskip.hw.multiplier.multiplier_verilog`.
    block_ram : BlockRam or None
        None where the block RAM has no output register, so that nothing is gained.
    adder : Callable[[str, int, bool], str] or None
        Name of the module, bits, whether it has a carry -> module; behaves as that of
        :func:`zeroskip.hw.adder.gated_adder_verilog`. None where a carry chain cannot gate an operand.
    """

    multiplier: Callable[[str, int, int], str]
    block_ram: BlockRam | None = None
    adder: Callable[[str, int, bool], str] | None = None


def address_bits(depth: int) -> int:
    """Return the width of an address of ``depth`` words."""
    return max(1, (depth - 1).bit_length())


def memory_ports(tile: Tile) -> list[str]:
    """Return the port declarations of a memory of this size: those of a ROM, or of an activation bank."""
    address, word = f"[{address_bits(tile.depth) - 1}:0]", f"[{tile.width - 1}:0]"
    if tile.writable:
        return [
            "input wire clk",
            f"input wire {address} read_addr",
            f"output wire {word} read_data",
            f"input wire [{address_bits(tile.depth // tile.parts) - 1}:0] write_addr",
            f"input wire [{tile.width * tile.parts - 1}:0] write_data",
            f"input wire {f'[{tile.parts - 1}:0] ' if tile.parts > 1 else ''}write_en",
        ]
    ports = range(tile.read_ports)
    pins = [(f"input wire {address} addr_{port}", f"output wire {word} data_{port}") for port in ports]
    return ["input wire clk", *(pin for pair in pins for pin in pair)]


def module_text(name: str, ports: Sequence[str], body: str) -> str:
    """Return a Verilog module; without a ``body`` it is a black box."""
    box = "" if body else "(* blackbox *)\n"
    declarations = ",\n".join(f"  {port}" for port in ports)
    return f"{box}module {name}(\n{declarations}\n);\n{body}endmodule\n"
