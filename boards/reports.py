"""Parse what Yosys and nextpnr report into the parts of report.json."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroskip.boards.board import Board
from zeroskip.boards.families.family import Cell
from zeroskip.compiler.errors import ToolError

__all__ = [
    "CriticalPath",
    "RouteReport",
    "count_cells",
    "fmax_summary",
    "parse_route_report",
    "read_netlist",
    "resource_table",
]


_SHOWN_CELLS = 6
"""Cells at each end of a path that are printed."""
_SHOWN_NAME = 96


@dataclass(frozen=True)
class CriticalPath:
    """The slowest path from clock edge to clock edge.

    Parameters
    ----------
    start, end : str
        Cell and port where it begins and ends.
    delay_ns, logic_ns, routing_ns : float, ns
    cells : tuple[str, ...]
        The cells it goes through, in order, with the delay up to there.
    """

    start: str
    end: str
    delay_ns: float
    logic_ns: float
    routing_ns: float
    cells: tuple[str, ...]

    def __str__(self) -> str:
        head = (
            f"{self.delay_ns:.2f} ns ({self.logic_ns:.2f} logic, {self.routing_ns:.2f} routing) "
            f"from {_shortened(self.start)} to {_shortened(self.end)}"
        )
        cells = [f"  {_shortened(cell)}" for cell in self.cells]
        if len(cells) > 2 * _SHOWN_CELLS + 1:
            left = len(cells) - 2 * _SHOWN_CELLS
            cells[_SHOWN_CELLS:-_SHOWN_CELLS] = [f"  ... {left} more cells"]
        return "\n".join([head, *cells])


def _shortened(name: str) -> str:
    """Return the name of a cell without its middle where it is long: Yosys names a carry chain after its whole way."""
    half = _SHOWN_NAME // 2
    return name if len(name) <= _SHOWN_NAME else f"{name[:half]}...{name[-half:]}"


@dataclass(frozen=True)
class RouteReport:
    """One place-and-route run: ``used`` counts bels by the router's names, ``fmax_mhz`` is the slowest clock's."""

    fmax_mhz: float
    used: Mapping[str, int]
    available: Mapping[str, int]
    path: CriticalPath


def read_netlist(path: Path) -> dict[str, Cell]:
    """Return the cells of the module ``top`` in a JSON netlist of Yosys.

    Raises
    ------
    ToolError
        If the file is no such netlist.
    """
    try:
        cells: dict[str, Cell] = json.loads(path.read_text(encoding="utf-8"))["modules"]["top"]["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolError(f"Netlist '{path}' must be a Yosys JSON file with a module 'top': {error!r}") from error
    return cells


def count_cells(cells: Mapping[str, Cell]) -> Counter[str]:
    """Return how often each cell type occurs."""
    return Counter(cell["type"] for cell in cells.values())


def parse_route_report(path: Path) -> RouteReport:
    """Read the file that nextpnr's ``--report`` wrote.

    Raises
    ------
    ToolError
        If the file lacks a clock, a utilization or a path.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        fmax = min(clock["achieved"] for clock in report["fmax"].values())
        used = {name: int(entry["used"]) for name, entry in report["utilization"].items()}
        available = {name: int(entry["available"]) for name, entry in report["utilization"].items()}
        paths = [path for path in report["critical_paths"] if path["from"] == path["to"]]
        slowest = max(paths, key=lambda path: sum(step["delay"] for step in path["path"]))
        return RouteReport(float(fmax), used, available, _critical_path(slowest["path"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError(
            f"Report '{path}' must be one of nextpnr with a clock and its slowest path: {error!r}"
        ) from error


def _critical_path(steps: Sequence[Mapping[str, Any]]) -> CriticalPath:
    """Turn the steps of a path into a summary."""
    total = logic = 0.0
    cells = []
    for step in steps:
        total += step["delay"]
        if step["type"] != "routing":
            logic += step["delay"]
            continue
        cells.append(f"{total:6.2f} ns  {_place(step['to'])}")
    return CriticalPath(_place(steps[0]["from"]), _place(steps[-1]["to"]), total, logic, total - logic, tuple(cells))


def _place(end: Mapping[str, Any]) -> str:
    return f"{end['cell']}.{end['port']}"


def resource_table(board: Board, route: RouteReport, cells: Mapping[str, Cell]) -> dict[str, dict[str, int]]:
    """Return the ``resources`` part of report.json: used after place and route, and available.

    Flip-flops of a family whose logic cell holds one are counted in the netlist that was placed.
    """
    used = {
        name: math.ceil(sum(route.used[bel] * units for bel, units in bels.items()))
        for name, bels in board.family.used.items()
    }
    if "ff" not in used:
        kinds = count_cells(cells).items()
        used["ff"] = sum(count for kind, count in kinds if kind.startswith(board.family.ff_prefix))
    return {name: {"used": used[name], "available": there} for name, there in board.available.items()}


def fmax_summary(fmax_mhz: Sequence[float], constraint_mhz: float) -> dict[str, Any]:
    """Return the ``fmax_mhz`` part of report.json from one frequency a seed, in the order of the seeds."""
    values = [round(value, 2) for value in fmax_mhz]
    return {
        "median": round(statistics.median(values), 2),
        "min": min(values),
        "max": max(values),
        "seeds": values,
        "constraint": constraint_mhz,
    }
