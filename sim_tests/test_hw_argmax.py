"""The unit that finds the largest result: every order, sign, number of parts and tie, against numpy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from amaranth.sim import Simulator

from zeroskip.compiler.timing import ARGMAX
from zeroskip.hw.argmax import ArgMax

CODES = {False: [0, 1, 127, 128, 255], True: [-128, -1, 0, 1, 127]}


def largest(size: int, parts: int, is_signed: bool, vectors: list[np.ndarray], rng: np.random.Generator) -> list[int]:
    """Return what the unit says of vectors that follow one another, their words in any order and with pauses."""
    dut = ArgMax(size, parts, is_signed=is_signed)
    latency = ARGMAX + (parts - 1).bit_length()
    found = []

    async def bench(ctx) -> None:
        for codes in vectors:
            for word in rng.permutation(-(-size // parts)).tolist():
                if rng.random() < 0.3:
                    ctx.set(dut.en, 0)
                    await ctx.tick()
                # what fills the last word up is larger than all others
                full = np.append(codes, [127 if is_signed else 255] * parts)[word * parts : (word + 1) * parts]
                ctx.set(dut.en, (1 << parts) - 1)
                ctx.set(dut.number, word * parts)
                ctx.set(dut.data, sum((int(code) & 0xFF) << (8 * part) for part, code in enumerate(full)))
                await ctx.tick()
            ctx.set(dut.en, 0)
            for _ in range(latency):
                await ctx.tick()
            ctx.set(dut.take, 1)
            found.append(ctx.get(dut.index))
            await ctx.tick()
            ctx.set(dut.take, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize(("size", "parts"), [(1, 1), (2, 1), (10, 1), (10, 2), (7, 4), (33, 8), (300, 4)])
def test_the_lowest_number_of_the_largest_code(size, parts, is_signed):
    rng = np.random.default_rng(size)
    vectors = [rng.choice(CODES[is_signed], size) for _ in range(12)]
    # all equal: only the number decides
    vectors += [np.full(size, code) for code in CODES[is_signed]]
    assert largest(size, parts, is_signed, vectors, rng) == [int(np.argmax(codes)) for codes in vectors]


def test_a_code_of_the_cycle_of_the_take_belongs_to_the_next_vector():
    dut = ArgMax(4)
    codes = [5, 9, 3, 7, 2, 6, 8, 1]
    found = []

    async def bench(ctx) -> None:
        for cycle in range(len(codes) + 3):
            ctx.set(dut.en, cycle < len(codes))
            ctx.set(dut.number, cycle % 4)
            ctx.set(dut.data, codes[cycle] if cycle < len(codes) else 0)
            ctx.set(dut.take, cycle in (5, 9))
            if cycle in (5, 9):
                found.append(ctx.get(dut.index))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == [int(np.argmax(codes[first:last])) for first, last in pairwise((0, 4, 8))]
