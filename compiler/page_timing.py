"""The cycles of a program whose parameters come from outside: docs/hardware/pages.md has the recurrences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.pages import page_bytes, read_cycles
from zeroskip.compiler.program import Paging, Program
from zeroskip.compiler.timing import LOADED, START, busy_cycles, last_accept, release_cycles, unit_ends

__all__ = ["Run", "paged_runs"]

IntArray = NDArray[np.int64]

LONG_AGO = -(1 << 40)
"""The cycle of what an idle design has behind it."""

PUSH = 1
"""hw.pages: from a page's last byte to the page at the gate."""
ENTER = 2
"""hw.pages: from there to the first slot, where issue waits for it."""
NEXT_PAGE = 3
"""hw.pages: from a page's last byte to the first cycle in which the next one's first byte is taken."""
FREE = 2
"""hw.pages: from the release of a page to the first cycle in which a byte is taken in its place."""
HELD = 2
"""Pages that the buffers hold."""

MOST_RUNS = 12
"""Inferences in a row after which the interval is as good as steady."""


@dataclass(frozen=True)
class Run:
    """One inference: the cycles of each layer's start and last slot, and the one in which the output begins to leave.

    ``slots`` are the last slots of each layer's units; ``loaded`` is the cycle of the last input word, plus ``LOADED``.
    """

    starts: tuple[int, ...]
    last_slots: tuple[int, ...]
    finish: int
    slots: tuple[IntArray, ...]


def paged_runs(program: Program) -> tuple[Run, int]:
    """Return an inference that comes alone, its first input word in cycle 0, and the interval when inputs wait."""
    schedule = _Pages(program)
    timing = program.timing
    words = program.model.tensors[program.model.input].size
    unload = program.model.tensors[program.model.output].size + 1
    accepted = words - 1
    first = run = schedule.run(accepted + LOADED, LONG_AGO, accepted)
    intervals: list[int] = []
    while len(intervals) < 2 or (intervals[-1] != intervals[-2] and len(intervals) < MOST_RUNS):
        released = run.last_slots[program.release] + timing.gaps[program.release] + START
        # behind the parameters, where the host sends both
        released = max(released, schedule.host_free)
        accepted = last_accept(released, busy_cycles(timing.blocked, run.slots, released), words)
        start = max(run.last_slots[-1] + START + timing.gaps[-1], accepted + LOADED)
        following = schedule.run(start, run.finish + unload + 2, accepted)
        intervals.append(following.finish - run.finish)
        run = following
    return first, intervals[-1]


class _Pages:
    """The pages of successive inferences, each at its time."""

    def __init__(self, program: Program) -> None:
        if program.paging is None:
            raise CompileError(f"Program of network {program.model.name!r} keeps its parameters on the chip")
        self.program = program
        self.paging: Paging = program.paging
        self.sizes = [page_bytes(program, page) for page in self.paging.pages]
        self.byte_cycles, self.restart = (1, 1) if self.paging.flash is None else read_cycles(self.paging.flash)
        self.release = release_cycles(program.config)
        timing = program.timing
        ends = [int(unit_ends(plan.schedule)[-1]) for plan in program.layers]
        self.finish = timing.finish - (timing.starts[-1] + 1 + ends[-1])
        # of the last pages: the last byte, and the last slot
        self.last_byte = LONG_AGO
        self.used = [LONG_AGO] * HELD
        # an idle design has the first pages; those of the host come with the input
        self.ahead = 0 if self.paging.flash is None else HELD

    @property
    def host_free(self) -> int:
        """The cycle from which the host's next input is taken."""
        return self.last_byte + 1 if self.paging.flash is None else LONG_AGO

    def _arrive(self, page: int, accepted: int) -> int:
        """Return the first cycle in which a slot of the next page may issue; ``accepted`` is the input's last word."""
        if self.ahead:
            self.ahead -= 1
            return LONG_AGO
        follows = self.last_byte + (self.byte_cycles if page else self.restart)
        if self.paging.flash is None and page == 0:
            follows = accepted + 1
        ready = max(self.last_byte + NEXT_PAGE, self.used[-HELD] + self.release + FREE)
        self.last_byte = max(follows, ready) + (self.sizes[page] - 1) * self.byte_cycles
        return self.last_byte + PUSH + ENTER

    def run(self, start: int, output_free: int, accepted: int) -> Run:
        """Return an inference whose first layer starts in ``start``; the last one waits for ``output_free``."""
        program, gaps = self.program, self.program.timing.gaps
        layers = len(program.layers)
        starts: list[int] = []
        slots: list[list[IntArray]] = [[] for _ in range(layers)]
        end = LONG_AGO
        for number, page in enumerate(self.paging.pages):
            there = self._arrive(number, accepted)
            for layer, first, count in page.parts:
                schedule = program.layers[layer].schedule
                if first == 0:
                    begin = end + START + gaps[layer - 1] if layer else start
                    starts.append(max(begin, output_free) if layer == layers - 1 else begin)
                    end, least = starts[-1], schedule.lead
                else:
                    least = schedule.drain
                lengths = np.repeat(
                    np.array(schedule.lengths[first : first + count], np.int64) * schedule.windows, schedule.tiles
                )
                ends = np.cumsum(np.maximum(lengths, schedule.drain))
                # the first unit ends when its slots have issued, and no sooner after the one before than that drains
                unit = max(max(end + 1, there) + int(lengths[0]) - 1, end + least)
                ends += unit - int(ends[0])
                slots[layer].append(ends)
                end = int(ends[-1])
            self.used = [*self.used[1:], end]
        joined = tuple(np.concatenate(parts) for parts in slots)
        return Run(tuple(starts), tuple(int(ends[-1]) for ends in joined), end + self.finish, joined)
