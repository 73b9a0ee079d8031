"""The bitmap decoder against the coder: bits, fillers, word ends, passes and cycles, without and with pauses."""

from __future__ import annotations

import random
from typing import NamedTuple

import cocotb
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from cocotb.triggers import FallingEdge, ReadOnly

from drivers import STALLS, settings, start
from simulate import run_component
from zeroskip.compiler.encodings import bitmap
from zeroskip.hw.decoders.bitmap import ARRIVAL_CYCLES, BitmapDecoder
from zeroskip.hw.pipeline import delay

ROW_BITS = 4
PASS_BITS = 2

SHAPES = [(1, 9, 1), (3, 7, 3), (8, 40, 2), (16, 144, 1), (16, 16, 4), (32, 33, 2)]
"""(mask width, positions a row, passes a row)."""


class Emission(NamedTuple):
    """The number of a position's bit (None: filler), whether it ends its mask word, and whether its pass."""

    bit: int | None
    word_end: bool
    last: bool


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
    return [word for row in rows for word in bitmap.encode_row(row, length, width)]


def emissions(rows: list[list[int]], length: int, width: int, passes: int) -> list[Emission]:
    """Return every emission, from the positions alone; a pass waits up to two cycles for a longer row elsewhere."""
    generator = random.Random(len(rows))
    result: list[Emission] = []
    for row in (row for row in rows for _ in range(passes)):
        walked: list[Emission] = []
        for first in range(0, length, width):
            bits = [position - first for position in row if first <= position < first + width] or [None]
            walked += [Emission(bit, index == len(bits) - 1, False) for index, bit in enumerate(bits)]
        walked += [Emission(None, True, False)] * generator.randrange(3)
        result += [*walked[:-1], walked[-1]._replace(last=True)]
    return result


class DecoderWithRom(wiring.Component):
    """The decoder and a mask ROM."""

    def __init__(self, width: int, words: list[int], row_words: int, passes: int) -> None:
        self.words = words
        self.row_words = row_words
        self.passes = passes
        self.decoder = BitmapDecoder(width, max(1, (len(words) - 1).bit_length()), ROW_BITS, PASS_BITS)
        self.taken = {"valid": 1, "bit": len(self.decoder.bit), "filler": 1, "word_end": 1}
        super().__init__(
            {
                "start": In(1),
                "base": In(self.decoder.pointer_bits),
                "enable": In(1),
                "last": In(1),
                **{name: Out(bits) for name, bits in self.taken.items()},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.decoder = decoder = self.decoder
        m.submodules.rom = rom = Memory(shape=decoder.width, depth=len(self.words), init=self.words)
        port = rom.read_port()
        m.d.comb += [
            port.addr.eq(decoder.pointer),
            decoder.mask.eq(delay(m, port.data, ARRIVAL_CYCLES - 1)),
            decoder.mask_last.eq(self.row_words - 1),
            decoder.pass_last.eq(self.passes - 1),
        ]
        m.d.comb += [getattr(decoder, name).eq(getattr(self, name)) for name in ("start", "base", "enable", "last")]
        m.d.comb += [getattr(self, name).eq(getattr(decoder, name)) for name in self.taken]
        return m


async def strobe_start(dut, base: int) -> None:
    """Start at ``base`` and wait until the first emission must be there."""
    dut.base.value = base
    dut.start.value = 1
    await FallingEdge(dut.clk)
    dut.start.value = 0
    for _ in range(BitmapDecoder.latency_cycles - 1):
        await ReadOnly()
        assert not int(dut.valid.value)
        await FallingEdge(dut.clk)


async def take(dut, expected: list[Emission], stalls) -> None:
    """Take as many emissions as are expected and compare; in every cycle there must be one, taken or not."""
    for number, emission in enumerate(expected):
        enable = False
        while not enable:
            enable = not next(stalls)
            dut.enable.value = int(enable)
            dut.last.value = int(emission.last)
            await ReadOnly()
            assert int(dut.valid.value), f"bubble before emission {number}"
            bit = None if int(dut.filler.value) else int(dut.bit.value)
            assert (bit, bool(int(dut.word_end.value))) == (emission.bit, emission.word_end), number
            await FallingEdge(dut.clk)
    dut.enable.value = 0


@cocotb.test()
@cocotb.parametrize(pauses=list(STALLS))
async def decode_rows(dut, pauses: str) -> None:
    """All rows from the first one, then again from a row in the middle while words are still on their way."""
    case = settings()
    rows, length, width = case["rows"], case["length"], case["width"]
    dut.enable.value = 0
    dut.last.value = 0
    dut.start.value = 0
    await start(dut)
    stalls = STALLS[pauses]()
    for first in (0, len(rows) // 2, 1):
        expected = emissions(rows[first:], length, width, case["passes"])
        if first == 1:
            expected = expected[: len(expected) // 2]
        await strobe_start(dut, first * bitmap.word_count(length, width))
        await take(dut, expected, stalls)


@pytest.mark.parametrize(("width", "length", "passes"), SHAPES)
def test_decoder_finds_what_the_coder_kept(width, length, passes):
    rows = rows_of(length, 12, seed=width)
    words = mask_words(rows, length, width)
    dut = DecoderWithRom(width, words, bitmap.word_count(length, width), passes)
    case = {"rows": rows, "length": length, "width": width, "passes": passes}
    run_component(dut, __file__, ["decode_rows"], settings=case)


@pytest.mark.parametrize(
    ("widths", "text"),
    [
        ((0, 4, 4, 4), "Mask width must be at least 1, not 0"),
        ((4, 0, 4, 4), "Pointer width must be at least 1, not 0"),
        ((4, 4, 0, 4), "Row width must be at least 1, not 0"),
        ((4, 4, 4, 0), "Pass width must be at least 1, not 0"),
    ],
)
def test_missing_bits_are_refused(widths, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        BitmapDecoder(*widths)
