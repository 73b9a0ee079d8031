"""Measure the blocks of one placed design: cells of each block, and the slowest path that ends in it.

    python bench/blocks.py DIR [--board ulx3s-25f] [--seed 1]

DIR is a design that ``zeroskip synth`` has mapped for the board, for example ``build/bench-lenet5/cycles-25f`` after
``python bench/lenet5.py cycles-25f``. The design is routed once more, with the same options and seed, for the router's
report on every register; a path counts for the block whose register it ends in. Cells belong to the block that their
name begins with, as Yosys derives it from the signal they drive. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeroskip.boards import BOARDS
from zeroskip.boards.reports import read_netlist
from zeroskip.boards.synthesis import router_options
from zeroskip.boards.tools import find_tool, run_tool
from zeroskip.boards.top import plan_top

BLOCKS = {
    r"accelerator\.(front_sequencer|back_sequencer|rom_front|rom_back)": "sequencers",
    r"accelerator\.(issue|rom_rows)": "issue",
    r"accelerator\.(decoder|rom_index)": "decoders",
    r"accelerator\.(gather|walk|rom_taps|rom_offsets|rom_mask)": "gather",
    r"accelerator\.(feed|rom_weights)": "weights",
    r"accelerator\.(array|run_flags|rom_functions)": "array",
    r"accelerator\.(post|rom_bias|rom_thresholds)": "post-processors",
    r"accelerator\.(writer|rom_places|crossbar|output_buffer)": "writer",
    r"accelerator\.(loader|rom_arrival)": "loader",
    r"accelerator\.bank": "banks",
    r"accelerator": "between blocks (delays)",
    r"": "host link and reset",
}
"""Beginnings of the names of cells, the first that fits decides; pages of docs/hardware/."""

KINDS = {
    "LUT": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4},
    "FF": {"TRELLIS_FF": 1},
    "block RAM": {"DP16KD": 1},
    "DSP": {"MULT18X18D": 1},
}
"""What a cell of the mapped netlist counts for, ECP5."""


def main() -> None:
    """Route one design and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--board", choices=[name for name in BOARDS if name.startswith("ulx3s")], default="ulx3s-25f")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    netlist = options.directory / "synth" / options.board / "top.json"
    if not netlist.is_file():
        parser.error(f"'{netlist}' does not exist; run: zeroskip synth {options.directory} --board {options.board}")
    cells = count_blocks(read_netlist(netlist))
    paths = slowest_paths(detailed_report(netlist, options.board, options.seed))
    print(table(cells, paths))


def block_of(name: str) -> str:
    """Return the block of a cell by its name."""
    return next(block for start, block in BLOCKS.items() if re.match(start, name))


def count_blocks(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Return how much of each kind every block has."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, cell in cells.items():
        counts = found[block_of(name)]
        for kind, types in KINDS.items():
            counts[kind] += types.get(cell["type"], 0)
    return found


def detailed_report(netlist: Path, board_name: str, seed: int) -> dict[str, Any]:
    """Route the netlist and return the router's report on all nets."""
    board = BOARDS[board_name]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "top.json").write_bytes(netlist.read_bytes())
        (place / "top.lpf").write_text(plan_top(board).pins)
        options = [*router_options(board, seed), "--json", "top.json", "--lpf", "top.lpf", "--report", "report.json"]
        log = place / "console.log"
        if run_tool(find_tool(board.family.router), ["-q", *options, "--detailed-timing-report"], cwd=place, log=log):
            raise SystemExit(log.read_text())
        report: dict[str, Any] = json.loads((place / "report.json").read_text())
    return report


def slowest_paths(report: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Return for each block the slowest path that ends in it: ns and its end."""
    found: dict[str, tuple[float, str]] = {}
    for net in report["detailed_net_timings"]:
        for end in net["endpoints"]:
            if "posedge" not in end["event"] or "posedge" not in net["event"]:
                continue
            path = (max(end["delay"]), f"{end['cell']}.{end['port']}")
            block = block_of(end["cell"])
            found[block] = max(found.get(block, path), path)
    return found


def table(cells: Mapping[str, Counter[str]], paths: Mapping[str, tuple[float, str]]) -> str:
    """Return the Markdown table."""
    lines = [f"| block | {' | '.join(KINDS)} | slowest path that ends in it, ns | as a clock, MHz | its end |"]
    lines.append("|" + "---|" * (len(KINDS) + 4))
    for block in dict.fromkeys(BLOCKS.values()):
        if block not in cells:
            continue
        counts = " | ".join(f"{cells[block][kind]:,}" for kind in KINDS)
        delay, end = paths.get(block, (0.0, ""))
        timing = f"{delay:.2f} | {1e3 / delay:.0f} | `{end}`" if delay else "| |"
        lines.append(f"| {block} | {counts} | {timing} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
