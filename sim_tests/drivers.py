"""Stream sources, sinks and stall patterns for cocotb test benches, and the settings a test hands to its bench."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

__all__ = [
    "SETTINGS_VARIABLE",
    "STALLS",
    "StreamSink",
    "StreamSource",
    "burst_stalls",
    "no_stalls",
    "random_stalls",
    "settings",
    "start",
]

SETTINGS_VARIABLE = "ZEROSKIP_TEST_SETTINGS"

Stalls = Callable[[], Iterator[bool]]


def no_stalls() -> Iterator[bool]:
    """Never pause."""
    return itertools.repeat(False)


def random_stalls(probability: float, seed: int) -> Iterator[bool]:
    """Pause in each cycle with ``probability``."""
    generator = random.Random(seed)
    while True:
        yield generator.random() < probability


def burst_stalls(run: int, pause: int) -> Iterator[bool]:
    """Run ``run`` cycles, pause ``pause`` cycles, and so on."""
    return itertools.cycle([False] * run + [True] * pause)


STALLS: dict[str, Stalls] = {
    "none": no_stalls,
    "random": lambda: random_stalls(0.5, 1),
    "bursts": lambda: burst_stalls(3, 17),
}
"""The pause patterns every stream block is tested with, on its input and on its output."""


def settings() -> dict[str, Any]:
    """Return what :func:`simulate.run_component` was given as ``settings``."""
    return json.loads(os.environ.get(SETTINGS_VARIABLE, "{}"))


async def start(dut: Any, reset_cycles: int = 2) -> None:
    """Start the clock of an Amaranth component and hold its reset for some cycles; return after a falling edge."""
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    for _ in range(reset_cycles + 1):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


class StreamSource:
    """Send words into the stream port ``name`` of ``dut``; a word offered stays offered until it is accepted.

    Ports are driven on falling edges and read when they have settled, so no simulator's order of events matters.
    """

    def __init__(self, dut: Any, name: str, stalls: Iterator[bool] | None = None) -> None:
        self._clock = dut.clk
        self._payload = getattr(dut, f"{name}__payload")
        self._valid = getattr(dut, f"{name}__valid")
        self._ready = getattr(dut, f"{name}__ready")
        self._stalls = no_stalls() if stalls is None else stalls
        self._valid.value = 0

    async def send(self, words: Iterable[int]) -> None:
        """Send ``words`` in order; return when the last one is accepted."""
        for word in words:
            while next(self._stalls):
                await FallingEdge(self._clock)
            self._payload.value = word
            self._valid.value = 1
            await ReadOnly()
            while not int(self._ready.value):
                await FallingEdge(self._clock)
                await ReadOnly()
            await FallingEdge(self._clock)
            self._valid.value = 0


class StreamSink:
    """Receive words from the stream port ``name`` of ``dut``."""

    def __init__(self, dut: Any, name: str, stalls: Iterator[bool] | None = None) -> None:
        self._clock = dut.clk
        self._payload = getattr(dut, f"{name}__payload")
        self._valid = getattr(dut, f"{name}__valid")
        self._ready = getattr(dut, f"{name}__ready")
        self._stalls = no_stalls() if stalls is None else stalls
        self._ready.value = 0

    async def receive(self, count: int) -> list[int]:
        """Return the next ``count`` words."""
        words: list[int] = []
        while len(words) < count:
            ready = not next(self._stalls)
            self._ready.value = int(ready)
            await ReadOnly()
            if ready and int(self._valid.value):
                words.append(int(self._payload.value))
            await FallingEdge(self._clock)
        self._ready.value = 0
        return words
