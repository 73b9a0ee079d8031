"""The row pointer walks as its model does, whatever the rows, passes and pauses."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from zeroskip.hw.row_pointer import RowPointer

LANE_BITS = 2


def slots(rows: list[tuple[int, int]], base: int, words: bool) -> list[tuple[int, int, int]]:
    """Return address, last and next_row of every slot; a row is its length and its passes."""
    step = 1 << LANE_BITS if words else 1
    walked = []
    for length, passes in rows:
        for number in range(passes):
            for slot in range(length):
                walked.append((base + slot * step, int(slot == length - 1), int(number == passes - 1)))
        base += length * step
    return walked


@pytest.mark.parametrize("words", [False, True], ids=["slots", "words"])
def test_pointer_walks_rows_and_passes(words):
    generator = random.Random(int(words))
    dut = RowPointer(10, LANE_BITS)
    layers = []
    for _ in range(20):
        rows = [(generator.randint(1, 6), generator.randint(1, 3)) for _ in range(generator.randint(1, 5))]
        base = generator.randrange(32) << LANE_BITS if words else generator.randrange(128)
        layers.append((base, slots(rows, base, words)))

    async def bench(ctx) -> None:
        ctx.set(dut.whole_words, words)
        for base, walked in layers:
            ctx.set(dut.base, base)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for address, last, done in walked:
                while generator.random() < 0.3:
                    ctx.set(dut.step, 0)
                    await ctx.tick()
                    assert ctx.get(dut.pointer) == address
                assert ctx.get(dut.pointer) == address
                ctx.set(dut.step, 1)
                ctx.set(dut.last, last)
                ctx.set(dut.next_row, done)
                await ctx.tick()
            ctx.set(dut.step, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
