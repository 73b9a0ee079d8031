"""The codebooks of all layers as one table, a Verilog module: as an expression it would be most of the netlist."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Instance, Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["CodebookTable", "codebook_verilog"]


class CodebookTable(wiring.Component):
    """``level = codebooks[book - 1][code]``; combinational.

    Unused codes of a short codebook mean nothing, and so does ``book`` = 0: their level is 0.

    Parameters
    ----------
    books : int, number of codebooks
    code_bits, level_bits : int

    Members
    -------
    book : In; code : In(code_bits); level : Out(signed(level_bits))
    """

    def __init__(self, books: int, code_bits: int, level_bits: int) -> None:
        self.books = books
        self.code_bits = code_bits
        self.level_bits = level_bits
        super().__init__({"book": In(books.bit_length()), "code": In(code_bits), "level": Out(signed(level_bits))})

    def elaborate(self, platform: object) -> Module:
        """Instantiate the table's module."""
        m = Module()
        m.submodules.table = Instance("codebook", i_book=self.book, i_code=self.code, o_level=self.level)
        return m


def codebook_verilog(codebooks: Sequence[Sequence[int]], code_bits: int, level_bits: int) -> str:
    """Return the Verilog module that holds ``codebooks``, levels by code."""
    book_bits = len(codebooks).bit_length()
    mask = (1 << level_bits) - 1
    entries = "".join(
        f"            {book_bits + code_bits}'d{(number << code_bits) | code}: level = {level_bits}'d{level & mask};\n"
        for number, levels in enumerate(codebooks, 1)
        for code, level in enumerate(levels)
        if level
    )
    return (
        f"// Codebooks: {len(codebooks)} of codes of {code_bits} bits, levels of {level_bits}\n"
        f"module codebook(\n    input wire [{book_bits - 1}:0] book,\n    input wire [{code_bits - 1}:0] code,\n"
        f"    output reg [{level_bits - 1}:0] level\n);\n"
        "    always @*\n        case ({book, code})\n"
        f"{entries}            default: level = {level_bits}'d0;\n        endcase\nendmodule\n"
    )
