"""The flash reader against a behavioural flash: every byte, again and again, for every command and any pauses."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from zeroskip.compiler.pages import FLASH_COMMANDS, read_cycles
from zeroskip.compiler.program import FlashRead
from zeroskip.hw.flash import FlashReader

CONTENT = np.random.default_rng(3).integers(0, 256, 700, np.uint8).tobytes()
WAKE = 9
CLOCKS = {0x03: (24, 0, 1), 0x0B: (24, 8, 1), 0x6B: (24, 8, 4), 0xEB: (6, 6, 4)}
"""By command: clocks of the address, clocks until data come, data lines."""


class Flash:
    """An SPI NOR flash in mode 0, as the data sheets tell: asleep until it is woken, by the levels of its lines."""

    def __init__(self) -> None:
        self.awake_from = 1 << 30
        self.before = (0, 0)
        self.seen: list[int] = []
        self.out = 15
        self.commands: list[int] = []

    def drive(self, cycle: int, cs: int, sck: int, lines: int, driven: int) -> int:
        before_cs, before_sck = self.before
        self.before = (cs, sck)
        if not cs:
            if before_cs and self.command == 0xAB and len(self.seen) == 8:
                self.awake_from = cycle + WAKE
            if before_cs:
                self.commands.append(self.command)
            self.seen, self.out = [], 15
        elif sck and not before_sck:
            self.seen.append(lines)
        elif before_sck and not sck:
            self._answer(cycle, driven)
        return self.out

    @property
    def command(self) -> int:
        return int("".join(str(lines & 1) for lines in self.seen[:8]), 2) if len(self.seen) >= 8 else -1

    def _answer(self, cycle: int, driven: int) -> None:
        if self.command not in CLOCKS or cycle < self.awake_from:
            return
        address_clocks, wait, width = CLOCKS[self.command]
        place = len(self.seen) - 8 - address_clocks - wait
        if place < 0:
            return
        per_clock = 4 if address_clocks == 6 else 1
        address = 0
        for lines in self.seen[8 : 8 + address_clocks]:
            address = address << per_clock | lines & ((1 << per_clock) - 1)
        at, part = divmod(place * width, 8)
        byte = CONTENT[address + at] if address + at < len(CONTENT) else 255
        bits = byte >> (8 - width - part) & ((1 << width) - 1)
        # who drives a line as well sees nothing
        self.out = (bits if width == 4 else 13 | bits << 1) if not driven & (15 if width == 4 else 2) else 0


def receive(command: int, length: int, count: int, pause: float = 0.0, offset: int = 37):
    """Return the bytes taken, the cycle of each, and the commands that the flash was given."""
    reader = FlashReader(FlashRead(command, offset, WAKE + 2), length)
    flash, taken, cycles = Flash(), [], []
    generator = random.Random(1)

    async def bench(ctx):
        cycle = 0
        while len(taken) < count:
            pins = reader.pins
            ctx.set(pins.i, flash.drive(cycle, *(ctx.get(pin) for pin in (pins.cs, pins.clk, pins.o, pins.oe))))
            ready = generator.random() >= pause
            ctx.set(reader.o.ready, ready)
            if ready and ctx.get(reader.o.valid):
                taken.append(ctx.get(reader.o.payload))
                cycles.append(cycle)
            await ctx.tick()
            cycle += 1

    simulator = Simulator(reader)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return taken, cycles, flash.commands


@pytest.mark.parametrize("command", FLASH_COMMANDS)
@pytest.mark.parametrize("pause", [0.0, 0.9])
@pytest.mark.parametrize("length", [1, 7])
def test_the_image_comes_again_and_again(command, pause, length):
    taken, cycles, commands = receive(command, length, 3 * length, pause)
    assert bytes(taken) == 3 * CONTENT[37 : 37 + length]
    assert commands[0] == 0xAB and set(commands[1:]) <= {command}
    if not pause:
        byte, restart = read_cycles(FlashRead(command, 0, 1))
        gaps = np.diff(cycles).tolist()
        assert gaps == ([byte] * (length - 1) + [restart]) * 2 + [byte] * (length - 1)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_impossible_reads_are_refused():
    with pytest.raises(ValueError, match=r"^Flash command must be one of 0x03, 0x0B, 0x6B, 0xEB, not 0x3B$"):
        FlashReader(FlashRead(0x3B, 0, 1), 8)
    for offset, length in ((1 << 24, 1), (-1, 8), ((1 << 24) - 7, 8), (0, 0)):
        text = f"^Image must lie within the flash's 16 MiB, not at {offset} with {length} bytes$"
        with pytest.raises(ValueError, match=text):
            FlashReader(FlashRead(0x03, offset, 1), length)
    with pytest.raises(ValueError, match="^Flash must have at least one cycle to wake up, not 0$"):
        FlashReader(FlashRead(0x03, 0, 0), 8)
    gc.collect()
