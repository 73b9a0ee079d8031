"""What the tool flow needs to know of a device family."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zeroskip.boards.families.primitives import Primitives

__all__ = ["Cell", "CellDelays", "DedicatedPad", "Family", "without_module"]

Cell = dict[str, Any]
"""A cell of Yosys' JSON netlist: ``type``, ``parameters``, ``connections``, ``attributes``."""


@dataclass(frozen=True)
class CellDelays:
    """Delays of one kind of cell in picoseconds at the slow corner, by port, with its number in the bus or without.

    Parameters
    ----------
    through : Mapping[str, int]
        Input -> delay from there to every output.
    setup : Mapping[str, int]
        Input -> time before the clock edge.
    launch : Mapping[str, int]
        Output -> time after the clock edge.
    """

    through: Mapping[str, int] = field(default_factory=dict)
    setup: Mapping[str, int] = field(default_factory=dict)
    launch: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DedicatedPad:
    """A pad that no pin constraint reaches: a cell drives it, and no port of the top level.

    Parameters
    ----------
    cell : str
        Cell type, kept by Yosys although it has no output.
    level, released : str
        Its inputs: what the pad shows, and whether it is left to others (high).
    pad : str
        Output that the cell's own model has instead; in the netlist check a port of that name.
    """

    cell: str
    level: str
    released: str
    pad: str


@dataclass(frozen=True)
class Family:
    """Tools, options and cell names of one device family.

    Parameters
    ----------
    name : str
    synthesis : str
        Yosys command; ``-top`` is appended.
    router, packer : str
        Names of the place-and-route and the bitstream tool.
    remap : str
        Verilog that Yosys' ``techmap`` applies to the mapped netlist; empty where there is none.
    constraint_suffix, routed_suffix, bitstream_suffix : str
        File name endings, without the dot.
    constraint_option : str
        Option by which the router takes the pin file, up to the file's name.
    routed_option : str
        Option by which the router writes its result.
    clock_constraint : str
        Start of the pin file lines that set a frequency; they are dropped, the router's ``--freq`` rules. Empty where
        a pin file has none.
    reset_us : float, microseconds
        How long the design is held in reset after configuration.
    used : Mapping[str, Mapping[str, float]]
        Resource (``lut``, ``ff``, ``bram``, ``dsp``) -> bel in the router's utilization report -> units it takes; a
        resource that the report does not have (flip-flops of iCE40 share the logic cell) is counted in the netlist.
    lut_cost, dsp_cost : Mapping[str, float]
        Mapped cell -> LUTs or multipliers it takes, for the capacity check before place and route.
    ff_prefix : str
        Start of the names of flip-flop cells.
    lut : tuple[str, tuple[str, ...], str, str]
        Cell type of the look-up table, its inputs (low address bit first), its output and its table.
    block_rams : tuple[str, ...]
        Cell types.
    distributed_ram : str
        Cell type, empty where there is none.
    operand_bits : int
        Of the multiplier's signed operands.
    block_shapes : tuple[tuple[int, int], ...]
        Depth and width that one block RAM can take, deepest first.
    init_prefix : str
        Start of the memory parameters that hold the initial content.
    written : Callable[[Cell], bool]
        Whether a block RAM of the netlist can be written (a ROM never is).
    unknown_start : Callable[[Cell], None]
        Changes a memory of the netlist so that it starts with random content in simulation.
    simulation_cells : tuple[str, ...]
        Files of Yosys' share folder that model the cells.
    own_cells : tuple[str, ...]
        Files of ``boards/cells`` that model what Yosys has only as black boxes.
    random_start : Callable[[str], str]
        Turns the text of ``simulation_cells`` into one whose flip-flops start random and that lacks ``own_cells``.
    ties : Mapping[str, str]
        Cell whose only output is a constant -> the constant.
    package_option, speed_option : str
        Options of the router for package and speed grade, empty where the board's ``device_options`` name them.
    pack_options : tuple[str, ...]
    packed_option : str
        Option of the packer before the bitstream's name, where it needs one.
    missing_delays : Mapping[str, Mapping[str, CellDelays]]
        Speed grade -> kind of cell -> delays that the router does not know; where there are any, the clock is
        calculated from the router's delays and these (:func:`zeroskip.boards.timing.slowest_path`), and is estimated.
    sources : tuple[str, ...]
        Kinds of routed cells that give constants or what comes from outside; used with ``missing_delays`` only.
    spare_lut : str
        End of the names of look-up tables that the router adds as a wire to a flip-flop where one is left; they are not
        counted. Used with ``missing_delays`` only; empty where there are none.
    primitives : Primitives or None
        The family's own multiplier and memory with their pipeline registers; None where there are none.
    block_ram_mhz : Mapping[str, float], MHz
        Speed grade -> clock beyond which a block RAM's clock pulse is too short; the router looks at paths only.
    spram : str
        Cell type of the single-port RAM, empty where there is none.
    flash_clock : DedicatedPad or None
        The clock of the flash that holds the bitstream; None where it is an ordinary pin.
    """

    name: str
    synthesis: str
    router: str
    packer: str
    constraint_suffix: str
    routed_suffix: str
    bitstream_suffix: str
    constraint_option: str
    routed_option: str
    clock_constraint: str
    reset_us: float
    used: Mapping[str, Mapping[str, float]]
    lut_cost: Mapping[str, float]
    dsp_cost: Mapping[str, float]
    ff_prefix: str
    lut: tuple[str, tuple[str, ...], str, str]
    block_rams: tuple[str, ...]
    distributed_ram: str
    operand_bits: int
    block_shapes: tuple[tuple[int, int], ...]
    init_prefix: str
    written: Callable[[Cell], bool]
    unknown_start: Callable[[Cell], None]
    simulation_cells: tuple[str, ...]
    own_cells: tuple[str, ...]
    random_start: Callable[[str], str]
    remap: str = ""
    ties: Mapping[str, str] = field(default_factory=dict)
    package_option: str = "--package"
    speed_option: str = "--speed"
    pack_options: tuple[str, ...] = ()
    packed_option: str = ""
    missing_delays: Mapping[str, Mapping[str, CellDelays]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    spare_lut: str = ""
    primitives: Primitives | None = None
    block_ram_mhz: Mapping[str, float] = field(default_factory=dict)
    spram: str = ""
    flash_clock: DedicatedPad | None = None


def without_module(text: str, name: str) -> str:
    """Return Verilog ``text`` without the definition of module ``name``."""
    return re.sub(rf"^module {name}\b.*?^endmodule$", "", text, flags=re.MULTILINE | re.DOTALL)
