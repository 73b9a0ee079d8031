"""The table of codebooks: every level of every book, and nothing where there is none."""

from __future__ import annotations

import re

import pytest

from zeroskip.hw.codebook import CodebookTable, codebook_verilog


@pytest.mark.parametrize(("code_bits", "level_bits"), [(3, 4), (8, 9)])
def test_every_level_stands_at_its_book_and_code(code_bits, level_bits):
    top = (1 << (level_bits - 1)) - 1
    books = [(0, -top, 3), tuple(range(-3, 4)), (0, top)]
    text = codebook_verilog(books, code_bits, level_bits)
    found = {}
    for place, level in re.findall(r"'d(\d+): level = \d+'d(\d+);", text):
        value = int(level) - ((1 << level_bits) if int(level) > top else 0)
        found[int(place) >> code_bits, int(place) & ((1 << code_bits) - 1)] = value
    wanted = {(n, c): level for n, levels in enumerate(books, 1) for c, level in enumerate(levels) if level}
    assert found == wanted
    assert f"default: level = {level_bits}'d0;" in text
    assert f"input wire [1:0] book,\n    input wire [{code_bits - 1}:0] code" in text


def test_ports_are_those_of_the_module():
    table = CodebookTable(26, 8, 9)
    assert (len(table.book), len(table.code), len(table.level)) == (5, 8, 9)
    assert table.level.shape().signed
