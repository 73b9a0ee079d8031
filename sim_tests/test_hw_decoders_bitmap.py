"""The bitmap decoder against the coder: positions, fillers, row ends and cycles, without and with pauses."""

from __future__ import annotations

import random

import cocotb
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from cocotb.triggers import FallingEdge, ReadOnly

from drivers import STALLS, settings, start
from simulate import run_component
from zeroskip.compiler.encodings import bitmap
from zeroskip.hw.decoders.bitmap import BitmapDecoder

BASE = 5
POSITION_BITS = 9
ROW_BITS = 4

SHAPES = [(1, 9), (3, 7), (8, 40), (16, 144), (16, 16), (32, 33)]
"""(mask width, positions a row)."""


def rows_of(length: int, count: int, seed: int) -> list[list[int]]:
    """Return the kept positions of rows: empty, full, ends only, then any density."""
    generator = random.Random(seed)
    rows = [[], list(range(length)), [0], [length - 1], []]
    for _ in range(count):
        density = generator.choice([0.02, 0.1, 0.3, 0.7])
        rows.append([position for position in range(length) if generator.random() < density])
    return rows


def mask_words(rows: list[list[int]], length: int, width: int) -> list[int]:
    """Return the mask ROM."""
    return [word for row in rows for word in bitmap.encode_row(row, [1] * len(row), length, width)[0]]


def emissions(rows: list[list[int]], length: int, width: int) -> list[tuple[int | None, bool, bool]]:
    """Return (position or None, first, last) of every emission, from the positions alone."""
    result = []
    for row in rows:
        row_emissions: list[int | None] = []
        for first in range(0, length, width):
            row_emissions += [position for position in row if first <= position < first + width] or [None]
        last = len(row_emissions) - 1
        result += [
            (None if position is None else BASE + position, index == 0, index == last)
            for index, position in enumerate(row_emissions)
        ]
    return result


class DecoderWithRom(wiring.Component):
    """The decoder and a mask ROM of latency 2."""

    def __init__(self, width: int, words: list[int], row_words: int) -> None:
        self.words = words
        self.row_words = row_words
        self.decoder = BitmapDecoder(width, max(1, (len(words) - 1).bit_length()), ROW_BITS, POSITION_BITS)
        outputs = {"valid": 1, "position": POSITION_BITS, "filler": 1, "row_first": 1, "row_last": 1}
        super().__init__(
            {
                "start": In(1),
                "address": In(self.decoder.address_bits),
                "enable": In(1),
                **{name: Out(bits) for name, bits in outputs.items()},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.decoder = decoder = self.decoder
        m.submodules.rom = rom = Memory(shape=decoder.width, depth=len(self.words), init=self.words)
        port = rom.read_port()
        answer = Signal(decoder.width)
        m.d.sync += answer.eq(port.data)
        m.d.comb += [
            port.addr.eq(decoder.mask_addr),
            decoder.mask_data.eq(answer),
            decoder.start.eq(self.start),
            decoder.row_words.eq(self.row_words - 1),
            decoder.base.eq(BASE),
            decoder.address.eq(self.address),
            decoder.enable.eq(self.enable),
        ]
        m.d.comb += [
            getattr(self, name).eq(getattr(decoder, name))
            for name in ("valid", "position", "filler", "row_first", "row_last")
        ]
        return m


async def strobe_start(dut, address: int) -> None:
    """Start at ``address`` and wait until the first emission must be there."""
    dut.address.value = address
    dut.start.value = 1
    await FallingEdge(dut.clk)
    dut.start.value = 0
    for _ in range(BitmapDecoder.latency_cycles - 1):
        await ReadOnly()
        assert not int(dut.valid.value)
        await FallingEdge(dut.clk)


async def take(dut, count: int, stalls) -> list[tuple[int | None, bool, bool]]:
    """Return the next ``count`` emissions; in every cycle there must be one, taken or not."""
    taken = []
    while len(taken) < count:
        enable = not next(stalls)
        dut.enable.value = int(enable)
        await ReadOnly()
        assert int(dut.valid.value), f"bubble before emission {len(taken)}"
        if enable:
            position = None if int(dut.filler.value) else int(dut.position.value)
            taken.append((position, bool(int(dut.row_first.value)), bool(int(dut.row_last.value))))
        await FallingEdge(dut.clk)
    dut.enable.value = 0
    return taken


@cocotb.test()
@cocotb.parametrize(pauses=list(STALLS))
async def decode_rows(dut, pauses: str) -> None:
    """All rows from the first one, then again from a row in the middle while words are still on their way."""
    case = settings()
    rows, length, width = case["rows"], case["length"], case["width"]
    dut.enable.value = 0
    dut.start.value = 0
    await start(dut)
    stalls = STALLS[pauses]()
    for first in (0, len(rows) // 2, 1):
        expected = emissions(rows[first:], length, width)
        if first == 1:
            expected = expected[: len(expected) // 2]
        await strobe_start(dut, first * bitmap.word_count(length, width))
        assert await take(dut, len(expected), stalls) == expected


@pytest.mark.parametrize(("width", "length"), SHAPES)
def test_decoder_finds_what_the_coder_kept(width, length):
    rows = rows_of(length, 12, seed=width)
    words = mask_words(rows, length, width)
    dut = DecoderWithRom(width, words, bitmap.word_count(length, width))
    case = {"rows": rows, "length": length, "width": width}
    run_component(dut, __file__, ["decode_rows"], settings=case)


@pytest.mark.parametrize(("width", "length"), SHAPES)
def test_emissions_are_the_cycles_of_the_coder(width, length):
    rows = rows_of(length, 12, seed=width)
    words = mask_words(rows, length, width)
    assert len(emissions(rows, length, width)) == bitmap.cycle_count(words)


@pytest.mark.parametrize(
    ("widths", "text"),
    [
        ((0, 4, 4, 4), "Mask width must be at least 1, not 0"),
        ((4, 0, 4, 4), "Address width must be at least 1, not 0"),
        ((4, 4, 0, 4), "Row width must be at least 1, not 0"),
        ((4, 4, 4, 0), "Position width must be at least 1, not 0"),
    ],
)
def test_missing_bits_are_refused(widths, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        BitmapDecoder(*widths)
