"""Time a routed design by the router's delay file, where the router itself does not follow every path."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from zeroskip.boards.families.family import CellDelays
from zeroskip.boards.reports import CriticalPath
from zeroskip.compiler.errors import ToolError

__all__ = ["count_cells_named", "slowest_path"]

_NAME = r"((?:\\.|[^\\\s()])+)"
_TRIPLE = r"\((?:-?\d+:-?\d+:)?(-?\d+)\)"
_LINE = re.compile(
    rf'\(CELLTYPE "(?P<kind>.*)"\)|\(INSTANCE {_NAME}\)'
    rf"|\(INTERCONNECT {_NAME} {_NAME} {_TRIPLE} {_TRIPLE}\)|\(IOPATH {_NAME} {_NAME} {_TRIPLE} {_TRIPLE}\)"
    rf"|\(SETUPHOLD \((?:pos|neg)edge {_NAME}\) \((?P<edge>pos|neg)edge {_NAME}\) {_TRIPLE} "
)
Pin = tuple[str, str]
"""Cell and port."""


class _Graph:
    """What a delay file says of a design, in picoseconds at the slow corner.

    ``edges`` leads from a pin to those that follow it through a wire or a cell, ``launch`` and ``setup`` name the pins
    behind and before a clock edge. ``readers`` are the ends of wires with the pin that drives each.
    """

    def __init__(self, text: str) -> None:
        self.kinds: dict[str, str] = {}
        self.edges: defaultdict[Pin, list[tuple[Pin, int]]] = defaultdict(list)
        self.launch: dict[Pin, int] = {}
        self.setup: dict[Pin, int] = {}
        self.drivers: set[Pin] = set()
        self.readers: dict[Pin, Pin] = {}
        paths: list[tuple[Pin, Pin, int]] = []
        clocks: set[Pin] = set()
        kind = cell = ""
        for found in _LINE.finditer(text):
            (_, instance, source, sink, rise, fall, start, end, up, down, data, edge, clock, setup) = found.groups()
            if found["kind"] is not None:
                kind = found["kind"]
            elif instance is not None:
                cell = instance
                self.kinds[cell] = kind
            elif source is not None:
                self._connect(_pin(source), _pin(sink), max(int(rise), int(fall)))
            elif start is not None:
                paths.append(((cell, start), (cell, end), max(int(up), int(down))))
            elif edge == "neg":
                raise ToolError(f"Cell {cell!r} must work on the rising clock edge, not on the falling one")
            else:
                clocks.add((cell, clock))
                self.setup[cell, data] = max(int(setup), self.setup.get((cell, data), 0))
        for start_pin, end_pin, delay in paths:
            if start_pin in clocks:
                self.launch[end_pin] = max(delay, self.launch.get(end_pin, 0))
            else:
                self.edges[start_pin].append((end_pin, delay))

    def _connect(self, driver: Pin, reader: Pin, delay: int) -> None:
        self.edges[driver].append((reader, delay))
        self.drivers.add(driver)
        self.readers[reader] = driver

    def complete(self, missing: Mapping[str, CellDelays]) -> None:
        """Add the delays that the file lacks, but never beside one that it has."""
        outputs: defaultdict[str, list[str]] = defaultdict(list)
        for cell, port in sorted(self.drivers):
            outputs[cell].append(port)
        for cell, port in sorted(self.readers):
            delays = missing.get(self.kinds[cell])
            if delays is None or (cell, port) in self.setup or (cell, port) in self.edges:
                continue
            setup, through = _look_up(delays.setup, port), _look_up(delays.through, port)
            if setup is not None:
                self.setup[cell, port] = setup
            if through is not None:
                self.edges[cell, port] = [((cell, output), through) for output in outputs[cell]]
        for cell, port in sorted(self.drivers):
            delays = missing.get(self.kinds[cell])
            launch = _look_up(delays.launch, port) if delays is not None else None
            if launch is not None:
                self.launch.setdefault((cell, port), launch)

    def refuse_gaps(self, sources: Sequence[str]) -> None:
        """Raise where a path would end unseen: at a cell that passes something on, but without a delay."""
        passing = {cell for (cell, _), driver in self.readers.items() if self.kinds[driver[0]] not in sources}
        timed = {end for pin, ends in self.edges.items() if pin not in self.drivers for end, _ in ends}
        for cell, port in sorted(self.drivers - timed - self.launch.keys()):
            if cell in passing:
                raise ToolError(
                    f"Delay file must have a delay to port {port!r} of cell {_plain(cell)!r}, a {self.kinds[cell]}; "
                    "add it to the family's missing_delays"
                )


def _pin(text: str) -> Pin:
    cell, _, port = text.rpartition("/")
    return cell, port


def _look_up(delays: Mapping[str, int], port: str) -> int | None:
    """Return the delay of a port, named with its number in the bus or without."""
    plain = port.replace("\\", "")
    return delays.get(plain, delays.get(re.sub(r"\[?\d+\]?$", "", plain)))


def slowest_path(path: Path, missing: Mapping[str, CellDelays], sources: Sequence[str]) -> CriticalPath:
    """Return the slowest path from clock edge to clock edge; its clock in MHz is 1000 over its delay.

    One clock, rising edges only; a clock reaches all cells at the same time. Without ``missing`` the path is the
    router's own.

    Parameters
    ----------
    path : Path
        File that nextpnr's ``--sdf`` wrote (Standard Delay Format 3.0).
    missing : Mapping[str, CellDelays]
        Kind of cell -> delays that the file lacks.
    sources : Sequence[str]
        Kinds of cells that give constants or what comes from outside, where no path begins.

    Raises
    ------
    ToolError
        If a cell has no delay in either, a loop has no register, or no path is found.
    """
    graph = _Graph(path.read_text(encoding="utf-8"))
    if missing:
        graph.complete(missing)
        graph.refuse_gaps(sources)
    arrivals, before = _arrivals(graph)
    ends = {pin: arrivals[pin] + setup for pin, setup in graph.setup.items() if pin in arrivals}
    if not ends:
        raise ToolError(f"Delay file '{path}' must have a path between two registers")
    end = min(ends, key=lambda pin: (-ends[pin], pin))
    pins = [end]
    while pins[-1] in before:
        pins.append(before[pins[-1]])
    pins.reverse()
    steps = [arrivals[b] - arrivals[a] for a, b in zip(pins, pins[1:], strict=False)]
    routing = sum(step for pin, step in zip(pins, steps, strict=False) if pin in graph.drivers)
    cells = tuple(f"{arrivals[pin] / 1000:6.2f} ns  {_place(pin)}" for pin in pins if pin in graph.readers)
    delay = ends[end]
    return CriticalPath(_place(pins[0]), _place(end), delay / 1000, (delay - routing) / 1000, routing / 1000, cells)


def count_cells_named(path: Path, ending: str) -> int:
    """Return how many cells of the delay file have a name with this ending."""
    instances = re.findall(r"^ *\(INSTANCE (.*)\)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return sum(_plain(name).endswith(ending) for name in instances)


def _arrivals(graph: _Graph) -> tuple[dict[Pin, int], dict[Pin, Pin]]:
    """Return when each pin settles after a clock edge, and the pin before it on the slowest way there."""
    entering: Counter[Pin] = Counter()
    reached, waiting = set(graph.launch), list(graph.launch)
    while waiting:
        for pin, _ in graph.edges.get(waiting.pop(), ()):
            entering[pin] += 1
            if pin not in reached:
                reached.add(pin)
                waiting.append(pin)
    arrivals, before = dict(graph.launch), {}
    ready = [pin for pin in graph.launch if not entering[pin]]
    settled = 0
    while ready:
        pin = ready.pop()
        settled += 1
        for after, delay in graph.edges.get(pin, ()):
            if arrivals[pin] + delay > arrivals.get(after, -1):
                arrivals[after], before[after] = arrivals[pin] + delay, pin
            entering[after] -= 1
            if not entering[after]:
                ready.append(after)
    if settled < len(reached):
        loop = min(pin for pin in reached if entering[pin])
        raise ToolError(f"Routed design must have a register in every loop, but not in one before {_place(loop)}")
    return arrivals, before


def _place(pin: Pin) -> str:
    return ".".join(_plain(part) for part in pin)


def _plain(name: str) -> str:
    return name.replace("\\", "")
