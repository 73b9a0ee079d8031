"""Boot from a behavioural SPI flash: the commands, every word written, and what happens to a wrong image."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from amaranth.lib.crc.catalog import CRC32_BZIP2
from amaranth.sim import Simulator

from zeroskip.hw.boot import CRC32, FlashBoot


class Flash:
    """An SPI NOR flash in mode 0 that sleeps: it knows wake-up and read, and says 1 where it says nothing.

    ``commands`` holds what it was told.
    """

    def __init__(self, content: bytes, *, wake_cycles: int) -> None:
        self.content = content
        self.wake_cycles = wake_cycles
        self.awake_from: int | None = None
        self.commands: list[int] = []
        self.before = (0, 0)
        self.bits: list[int] = []
        self.out = 1

    def drive(self, cycle: int, cs: int, sck: int, copi: int) -> int:
        """Return the level of its output after these levels of its inputs."""
        before_cs, before_sck = self.before
        self.before = (cs, sck)
        if not cs:
            if before_cs and self.bits:
                self._end(cycle)
            self.bits, self.out = [], 1
        elif sck and not before_sck:
            self.bits.append(copi)
        elif before_sck and not sck:
            self._answer(cycle)
        return self.out

    def _end(self, cycle: int) -> None:
        command = _number(self.bits[:8])
        self.commands.append(command if len(self.bits) == 8 else _number(self.bits[:32]))
        if command == 0xAB and len(self.bits) == 8:
            self.awake_from = cycle + self.wake_cycles

    def _answer(self, cycle: int) -> None:
        if len(self.bits) < 32 or self.bits[:8] != [0, 0, 0, 0, 0, 0, 1, 1]:
            return
        if len(self.bits) == 32 and (self.awake_from is None or cycle - 64 < self.awake_from):
            self.bits = [1] * 8
            return
        place = len(self.bits) - 32
        at = _number(self.bits[8:32]) + place // 8
        self.out = self.content[at] >> (7 - place % 8) & 1 if at < len(self.content) else 1


def _number(bits: list[int]) -> int:
    return int("".join(map(str, bits)), 2)


LENGTHS = (3, 1, 5)
OFFSET = 0x000123
WAKE = 9


def image(lengths=LENGTHS) -> bytes:
    return np.random.default_rng(5).integers(0, 256, 2 * sum(lengths), np.uint8).tobytes()


def boot(flash: Flash | None, lengths=LENGTHS, *, crc: int | None = None, stuck: int = 1):
    """Return the words written by block and address, the cycle of the end, done and failed."""
    dut = FlashBoot(lengths, CRC32(data_width=8).compute(image(lengths)) if crc is None else crc, OFFSET, WAKE)
    written: dict[tuple[int, int], int] = {}
    outcome = []

    async def bench(ctx):
        for cycle in range(dut.cycles + 40):
            if ctx.get(dut.done) or ctx.get(dut.failed):
                outcome.append((cycle, ctx.get(dut.done), ctx.get(dut.failed)))
            en = ctx.get(dut.boot.en)
            if en:
                place = (en.bit_length() - 1, ctx.get(dut.boot.addr))
                assert en & (en - 1) == 0 and place not in written
                written[place] = ctx.get(dut.boot.data)
            pins = (ctx.get(dut.cs), ctx.get(dut.sck), ctx.get(dut.copi))
            ctx.set(dut.cipo, stuck if flash is None else flash.drive(cycle, *pins))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    # it stays as it ended
    assert [entry[1:] for entry in outcome] == [outcome[0][1:]] * len(outcome)
    assert outcome[0][0] == dut.cycles
    return written, *outcome[0][1:]


def flash_of(data: bytes, **changes: int) -> Flash:
    return Flash(bytes(OFFSET) + data, **{"wake_cycles": WAKE, **changes})


@pytest.mark.parametrize("lengths", [(1,), (3, 3), LENGTHS, (2, 1, 1, 2)])
def test_every_word_goes_to_its_place_and_the_image_is_accepted(lengths):
    flash = flash_of(image(lengths))
    written, done, failed = boot(flash, lengths)
    words = np.frombuffer(image(lengths), ">u2").tolist()
    places = [(block, address) for block, length in enumerate(lengths) for address in range(length)]
    assert written == dict(zip(places, words, strict=True))
    assert (done, failed) == (1, 0)
    assert flash.commands == [0xAB, 0x03000000 | OFFSET]


@pytest.mark.parametrize("byte", [0, 7, 2 * sum(LENGTHS) - 1])
def test_one_wrong_bit_fails(byte):
    data = bytearray(image())
    data[byte] ^= 1
    _, done, failed = boot(flash_of(bytes(data)))
    assert (done, failed) == (0, 1)


@pytest.mark.parametrize("flash", [None, Flash(b"", wake_cycles=WAKE)], ids=["no flash", "erased"])
@pytest.mark.parametrize("stuck", [0, 1])
def test_a_missing_image_fails_in_the_same_time(flash, stuck):
    assert boot(flash, stuck=stuck)[1:] == (0, 1)


def test_a_flash_that_sleeps_longer_fails():
    assert boot(flash_of(image(), wake_cycles=WAKE + 8))[1:] == (0, 1)


def test_checksum_is_the_catalogued_one():
    assert CRC32(data_width=8).compute(b"123456789") == CRC32_BZIP2(data_width=8).compute(b"123456789") == 0xFC891918


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_impossible_boots_are_refused():
    with pytest.raises(ValueError, match=r"^Blocks must have 1 to 16384 words each, not \[\]$"):
        FlashBoot((), 0, 0, 1)
    with pytest.raises(ValueError, match=r"^Blocks must have 1 to 16384 words each, not \[4, 16385\]$"):
        FlashBoot((4, 16385), 0, 0, 1)
    with pytest.raises(ValueError, match="^Image must lie within the flash's 16 MiB, not at 16777215$"):
        FlashBoot((1,), 0, (1 << 24) - 1, 1)
    with pytest.raises(ValueError, match="^Flash must have at least one cycle to wake up, not 0$"):
        FlashBoot((1,), 0, 0, 0)
    gc.collect()
