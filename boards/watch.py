"""How far a running place and route is, from the log that nextpnr writes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["RouteWatch"]

_EVERY_S = 30.0
_PLACED = re.compile(r"at iteration #(\d+)")
_ARCS = re.compile(r"Routing (\d+) arcs")
_ARCS_LEFT = re.compile(r"Info:\s+\d+ \|[^|]*\|[^|]*\|\s*(\d+)\|")
_OVERUSED = re.compile(r"iter=(\d+) wires=\d+ overused=(\d+)")


class RouteWatch:
    """Say now and then how far nextpnr is; an instance is called while it runs, as often as one likes.

    Parameters
    ----------
    log : Path
        What nextpnr writes; it need not be there yet.
    say : callable
        Takes the state in words and the seconds since the start.
    every_s : float
        Seconds between two lines at least.
    clock : callable
        Returns seconds.
    """

    def __init__(
        self,
        log: Path,
        say: Callable[[str, float], None],
        every_s: float = _EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._say = say
        self._every_s = every_s
        self._clock = clock
        self._started = self._last = clock()
        self._read = 0
        self._arcs = ""
        self._state = "packing"

    def __call__(self) -> None:
        """Read what is new in the log, and say the state if it is time."""
        now = self._clock()
        if now - self._last < self._every_s:
            return
        self._last = now
        for line in self._new_lines():
            self._take(line)
        self._say(self._state, now - self._started)

    def _new_lines(self) -> list[str]:
        """Return the whole lines that were written since the last call."""
        try:
            with self._log.open("rb") as source:
                source.seek(self._read)
                text = source.read()
        except OSError:
            return []
        whole = text.rpartition(b"\n")[0]
        self._read += len(whole)
        return whole.decode(errors="replace").splitlines()

    def _take(self, line: str) -> None:
        if found := _ARCS_LEFT.search(line):
            self._state = f"routing, {int(found[1]):,}{self._arcs} arcs left"
        elif found := _OVERUSED.search(line):
            self._state = f"routing, round {found[1]}, {int(found[2]):,} wires used twice"
        elif found := _ARCS.search(line):
            self._arcs = f" of {int(found[1]):,}"
        elif found := _PLACED.search(line):
            self._state = f"placing, iteration {found[1]}"
