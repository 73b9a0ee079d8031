"""Refuse a mapped design that the board cannot hold or that is not what was planned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from zeroskip.boards.board import Board
from zeroskip.boards.families.family import Cell
from zeroskip.boards.reports import count_cells
from zeroskip.boards.rom_images import rom_header
from zeroskip.compiler.errors import CapacityError, VerificationError
from zeroskip.compiler.program import Program
from zeroskip.compiler.spram import spram_grid

__all__ = [
    "RESOURCE_NAMES",
    "mapped_needs",
    "refuse_broken_logic",
    "refuse_misplaced_roms",
    "refuse_overflow",
    "refuse_oversized",
    "refuse_unroutable",
    "scopes",
]

RESOURCE_NAMES = {"lut": "LUTs", "ff": "flip-flops", "bram": "block RAMs", "dsp": "multipliers", "spram": "SPRAMs"}

_REMEDIES = {
    "lut": "choose fewer lanes, columns or cores, or a larger board",
    "ff": "choose fewer lanes, columns or cores, or a larger board",
    "bram": "prune further, store fewer bits a weight, or choose a larger board",
    "dsp": "choose fewer lanes, columns or cores, LUT multipliers, paired products, or a larger board",
    "spram": "prune further, store fewer bits a weight, or choose a larger board",
}
_TOO_SMALL = (
    "Unable to place cell",
    "Unable to find legal placement",
    "failed to place",
    "Failed to expand region",
    "Failed to route arc",
    "Failed to find a route",
)
"""What nextpnr says when it runs out of cells or wires."""
_BROKEN_LOGIC = ("found logic loop", "multiple conflicting drivers")
"""What Yosys warns of and goes on; no such design is simulated or built the way it was written."""


def mapped_needs(board: Board, cells: Mapping[str, Cell]) -> dict[str, int]:
    """Return what the mapped netlist takes of each resource, before placement."""
    counts = count_cells(cells)
    family = board.family
    return {
        "lut": _units(counts, family.lut_cost),
        "ff": sum(count for kind, count in counts.items() if kind.startswith(family.ff_prefix)),
        "bram": sum(counts[kind] for kind in family.block_rams),
        "dsp": _units(counts, family.dsp_cost),
        **({"spram": counts[family.spram]} if board.spram else {}),
    }


def _units(counts: Counter[str], cost: Mapping[str, float]) -> int:
    return math.ceil(sum(counts[kind] * units for kind, units in cost.items()))


def refuse_oversized(board: Board, program: Program) -> None:
    """Raise before anything is mapped when activations and block ROMs have more bits than the board's block RAM.

    Raises
    ------
    CapacityError
        Naming what each needs, what there is, what to change, and what can be had without the board.
    """
    config = program.config
    geometry = config.geometry
    activations = geometry.lanes * geometry.cores * config.activation_depth * 8
    parameters = sum(rom.held * rom.word_bits for rom in program.roms if rom.style in ("block", "paged"))
    holds = board.bram * board.bram_bits
    if activations + parameters <= holds:
        return
    copies = f", one copy for each of {geometry.cores} cores" if geometry.cores > 1 else ""
    raise CapacityError(
        f"Design needs {activations + parameters:,} bits of block RAM ({activations:,} for activations{copies}, "
        f"{parameters:,} for weights, indices and tables), but board {board.name!r} holds {holds:,}; prune further, "
        "store fewer bits a weight, take smaller inputs or fewer cores, or choose a larger board "
        "('zeroskip reference', 'zeroskip simulate' and the cycles in the report need none)"
    )


def refuse_overflow(board: Board, cells: Mapping[str, Cell]) -> None:
    """Raise when the mapped netlist needs more of something than the board holds.

    Raises
    ------
    CapacityError
        Naming every resource that is short: what is needed, what there is, what to change.
    """
    needs = mapped_needs(board, cells)
    short = [name for name, need in needs.items() if need > board.available[name]]
    if short:
        wants = ", ".join(f"{needs[name]} {RESOURCE_NAMES[name]}" for name in short)
        has = ", ".join(f"{board.available[name]} {RESOURCE_NAMES[name]}" for name in short)
        raise CapacityError(f"Design needs {wants}, but board {board.name!r} holds {has}; {_REMEDIES[short[0]]}")


def refuse_unroutable(board: Board, log: Path, kept: Path) -> None:
    """Raise when the router's ``log`` says that the device is too small; ``kept`` is where the log will lie.

    Raises
    ------
    CapacityError
    """
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if any(sign in line for sign in _TOO_SMALL):
            raise CapacityError(
                f"Design cannot be placed and routed on board {board.name!r} ({line.removeprefix('ERROR: ').strip()}); "
                f"choose fewer lanes, columns or cores, or a larger board (log: {kept})"
            )


def refuse_broken_logic(log: Path) -> None:
    """Raise when Yosys warned of a combinational loop or of two drivers of one wire.

    Raises
    ------
    VerificationError
    """
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if any(sign in line for sign in _BROKEN_LOGIC):
            raise VerificationError(f"Synthesis found broken logic: {line.strip()} (log: {log})")


def refuse_misplaced_roms(directory: Path, board: Board, cells: Mapping[str, Cell]) -> None:
    """Raise when a ROM planned for block RAM is not in block RAM, or one planned for SPRAM lacks blocks there.

    ``directory/rom/<name>.json`` says where ROM ``<name>``, the module ``rom_<name>``, belongs.

    Raises
    ------
    VerificationError
        Naming the ROM.
    InputError
        If a description of a ROM cannot be read.
    """
    family = board.family
    memories = [name for name, cell in cells.items() if cell["type"] in family.block_rams]
    sprams = [name for name, cell in cells.items() if cell["type"] == family.spram]
    for path in sorted((directory / "rom").glob("*.json")):
        header = rom_header(path)
        if header["style"] == "logic":
            continue
        module = f"rom_{path.stem}"
        places = scopes(cells, module)
        if not places:
            raise VerificationError(f"ROM {path.stem!r} must be in the netlist as module {module!r}, but there is none")
        for place in places:
            if header["style"] == "spram":
                wanted = math.prod(spram_grid(header["depth"], header["word_bits"]))
                count = sum(name.startswith(f"{place}.") for name in sprams)
                if count != wanted:
                    raise VerificationError(
                        f"ROM {path.stem!r} is planned for {wanted} SPRAMs, but its instance {place!r} has {count}; "
                        "compile again, and leave its module as it was written"
                    )
                continue
            if not any(name.startswith(f"{place}.") for name in memories):
                raise VerificationError(
                    f"ROM {path.stem!r} is planned for block RAM, but its instance {place!r} has no "
                    f"{' or '.join(family.block_rams)}; give it a registered read port, or plan it as logic"
                )


def scopes(cells: Mapping[str, Cell], module: str) -> list[str]:
    """Return the instances of ``module`` by the marks that flattening leaves for them."""
    return [
        name
        for name, cell in cells.items()
        if cell["type"] == "$scopeinfo" and cell["attributes"].get("module") == module
    ]
