"""Simulate the mapped netlist that is placed and routed, as a whole board, against golden vectors."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.boards.board import Board
from zeroskip.boards.families.family import Cell, Family
from zeroskip.boards.rom_images import FLASH_IMAGE, boot_image, parameter_image
from zeroskip.boards.steps import write_atomically
from zeroskip.boards.tools import Tool, find_tool, run_tool, share_folder
from zeroskip.boards.top import DEFAULT_BAUD, Plan, plan_top
from zeroskip.boards.verilator_cache import build_model
from zeroskip.compiler.errors import InputError, ToolError, VerificationError
from zeroskip.compiler.importers import stored_model
from zeroskip.hw.host.uart import FRAME_BITS

__all__ = [
    "NetlistCheck",
    "estimated_cycles",
    "golden_vectors",
    "model_files",
    "netlist_check",
    "simulation_library",
    "write_netlist",
]

_HERE = Path(__file__).parent
_TIMEOUT_CYCLES = 20_000_000
_SLACK_CYCLES = 100_000
_TIMED_OUT, _BAD_FRAME = 3, 4
_EXTRA_STATES = 3
"""Random initial states that the first vector is tried from again; the whole set runs from one."""

_BENCH = """\
module bench(
  input clk, input button, input rx, output tx,
  output flash_select, output flash_clk, output flash_copi, input flash_cipo
);
  wire pin_clk = clk;
  wire pin_button = {button};
  wire pin_rx = rx;
{flash}  top board(.{clock_port}(pin_clk), .{button_port}(pin_button), .{rx_port}(pin_rx), .{tx_port}(tx){flash_ports});
endmodule
"""

_FLASH_NAMES = {"cs": "flash_select", "clk": "flash_clk", "copi": "flash_copi", "cipo": "pin_cipo"}
_FLASH = "  wire pin_cipo = flash_cipo;\n"
_NO_FLASH = "  assign {flash_select, flash_clk, flash_copi} = 3'b100;\n"

VERILATOR_OPTIONS = (
    "--no-timing",
    "--x-initial", "unique",
    "--x-assign", "unique",
    "-Wno-lint",
    "-Wno-style",
    "-Wno-fatal",
    "-Wno-SPECIFYIGN",
)  # fmt: skip
"""Registers and memories without a known initial value start random; flip-flop cells draw theirs."""


@dataclass(frozen=True)
class NetlistCheck:
    """The outcome: ``mismatches`` of ``values`` output codes differ over ``vectors`` input vectors.

    ``cycles`` is the length of all simulations in board clock cycles, with the link.
    """

    vectors: int
    values: int
    mismatches: int
    cycles: int

    def to_report(self) -> dict[str, int]:
        """Return the ``netlist_check`` part of report.json."""
        return {"vectors": self.vectors, "values": self.values, "mismatches": self.mismatches}


def netlist_check(
    directory: Path,
    board: Board,
    inputs: NDArray[np.integer] | None = None,
    expected: NDArray[np.integer] | None = None,
    *,
    baud: int = DEFAULT_BAUD,
    seed: int = 1,
    timeout_cycles: int | None = None,
    cancel: threading.Event | None = None,
) -> NetlistCheck:
    """Compare the mapped netlist of ``directory/synth/<board>/top.json`` with golden vectors.

    The whole board top is driven at its pins, by the UART's waveform. Flip-flops and memories without initial content
    start random; then the reset button is pressed once. The first vector runs from three more random states. A design
    whose parameters lie in SPRAM boots each time from a model of the flash that holds ``flash.bin`` beside the netlist;
    others may read them there during every inference.

    Parameters
    ----------
    directory : folder that compile and synth wrote
    board : the board it was synthesized for
    inputs : ndarray, shape (B, ...), codes of 8 bits; the artifact's golden samples when None
    expected : ndarray, shape (B, ...), codes of 8 bits
    baud : bits/s, as synthesized
    seed : seed of the random initial state
    timeout_cycles : clock cycles without an output after which the netlist counts as stuck; from the compiled cycle
        count when None
    cancel : ends the simulation when set from another thread

    Raises
    ------
    VerificationError
        If an output differs, is missing or is one too many; the text names the first one.
    InputError
        If the folder has no netlist or no vectors.
    ToolError
        If a tool is missing or fails.
    """
    folder = directory / "synth" / board.name
    if not (folder / "top.json").is_file():
        raise InputError(f"Folder '{directory}' has no netlist for {board.name}; run zeroskip synth first")
    if inputs is None or expected is None:
        inputs, expected = golden_vectors(directory)
    sent, wanted = _as_bytes(inputs, "input"), _as_bytes(expected, "expected")
    if len(sent) != len(wanted):
        raise InputError(f"Inputs have {len(sent)} vectors, but the expected outputs have {len(wanted)}")

    limit = timeout_cycles if timeout_cycles is not None else _patience(directory)
    check = folder / "check"
    check.mkdir(exist_ok=True)
    image = boot_image(directory, board)
    paged = parameter_image(directory, board) is not None
    plan = plan_top(board, baud, image, paged=paged)
    flash = _flash_arguments(folder, board) if image is not None or paged else ["-", "0", "0", "0"]
    sources = [write_netlist(folder, board.family), *simulation_library(check, board.family), _write_bench(check, plan)]
    program = build_model(
        sources,
        "bench",
        check,
        cpp_sources=[_HERE / "netlist_check.cpp"],
        verilator_args=VERILATOR_OPTIONS,
        optimization="-O1",
        jobs=2,
    )
    cycles = 0
    for number, count in enumerate((len(sent), *[1] * _EXTRA_STATES)):
        numbers = (
            count,
            sent.shape[1],
            wanted.shape[1],
            plan.divisor,
            plan.reset_cycles,
            limit,
            seed + number,
        )
        code = _simulate(program, check, sent[:count], [*map(str, numbers), *flash], cancel)
        cycles += _compare(check, code, wanted[:count], limit)
    return NetlistCheck(len(wanted), wanted.size, 0, cycles)


def estimated_cycles(directory: Path, inputs: NDArray[np.integer], divisor: int) -> int:
    """Return about how many board clock cycles a check of ``inputs`` simulates, 0 where no report says it.

    ``divisor`` is the clock cycles of a bit of the link.
    """
    total = _compiled_cycles(directory)
    if total is None:
        return 0
    return (len(inputs) + _EXTRA_STATES) * (total + FRAME_BITS * divisor * (inputs.size // max(1, len(inputs))))


def _flash_arguments(folder: Path, board: Board) -> list[str]:
    """Return what the simulation needs to know of the flash: image, offset in bytes, cycles to wake, if it sleeps."""
    image = folder / FLASH_IMAGE
    if board.flash is None or not image.is_file():
        raise InputError(f"Folder '{folder}' has no {FLASH_IMAGE} to boot from; run zeroskip synth first")
    numbers = (board.flash.offset, board.flash.wake_cycles(board.clock_mhz), int(board.flash.sleeps))
    return [str(image.resolve()), *map(str, numbers)]


def _patience(directory: Path) -> int:
    """Return how many cycles to wait for an output: several inferences, by the compile report where there is one."""
    total = _compiled_cycles(directory)
    return _TIMEOUT_CYCLES if total is None else _SLACK_CYCLES + 4 * total


def _compiled_cycles(directory: Path) -> int | None:
    """Return the cycles of one inference by the compile report, None where there is none."""
    try:
        report = json.loads((directory / "report" / "report.json").read_text(encoding="utf-8"))
        return int(report["cycles"]["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def golden_vectors(directory: Path) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return the golden input and output samples of the artifact that ``directory`` was compiled from.

    Raises
    ------
    InputError
        If there is no artifact, or it holds no golden samples.
    """
    from safetensors import SafetensorError, safe_open

    path = stored_model(directory)
    if path.suffix != ".safetensors":
        raise InputError(f"Model '{path}' holds no golden samples; give inputs and expected outputs instead")
    try:
        with safe_open(path, framework="numpy") as artifact:
            header = json.loads((artifact.metadata() or {}).get("zeroskip", "{}"))
            names = [f"golden/{header.get(end, end)}" for end in ("input", "output")]
            missing = [name for name in names if name not in artifact.keys()]
            if missing:
                raise InputError(
                    f"Artifact '{path}' has no tensor {missing[0]!r}; give inputs and expected outputs instead"
                )
            return artifact.get_tensor(names[0]), artifact.get_tensor(names[1])
    except (OSError, SafetensorError) as error:
        raise InputError(f"Artifact '{path}' cannot be read: {error}; run zeroskip compile again") from error


def write_netlist(folder: Path, family: Family) -> Path:
    """Write ``netlist.v`` from ``top.json``, the very file that place and route reads.

    A memory that can be written and has no content loses even the zeros it would start with: after power-up it holds
    what it held, and the design must not depend on it. Look-up tables become expressions: thousands of instances, each
    with a table of its own, would take the simulator longer than all the rest.

    Raises
    ------
    ToolError
        If Yosys is missing or fails.
    """
    design = json.loads((folder / "top.json").read_text(encoding="utf-8"))
    cells = design["modules"]["top"]["cells"]
    _resolve_ties(cells, family)
    for cell in cells.values():
        if _starts_unknown(cell, family):
            family.unknown_start(cell)
        _simplify_lut(cell, family)
    _expose_flash_clock(design["modules"]["top"], family)
    # The models of the pin cells have bidirectional pads, also where the top level calls them inputs.
    for port in design["modules"]["top"]["ports"].values():
        port["direction"] = "inout"
    marked = folder / "check" / "netlist.json"
    marked.parent.mkdir(exist_ok=True)
    write_atomically(marked, json.dumps(design))
    log = folder / "check" / "netlist.log"
    script = "read_json netlist.json; write_verilog -noattr netlist.v"
    code = run_tool(find_tool("yosys"), ["-q", "-p", script], cwd=marked.parent, log=log)
    if code != 0:
        raise ToolError(f"Yosys cannot write the netlist as Verilog (exit code {code}); see {log}")
    return (marked.parent / "netlist.v").replace(folder / "netlist.v")


def model_files(family: Family) -> list[Path]:
    """Return the files of this package that decide what a netlist check simulates."""
    return [Path(__file__), _HERE / "netlist_check.cpp", *(_HERE / "cells" / name for name in family.own_cells)]


def _expose_flash_clock(top: dict[str, Any], family: Family) -> None:
    """Give the pad that only a cell of its own reaches a port, as the board has a trace there."""
    pad = family.flash_clock
    if pad is None:
        return
    nets = [net for name in top["netnames"].values() for net in name["bits"] if isinstance(net, int)]
    for net, cell in enumerate(top["cells"].values(), max(nets) + 1):
        if cell["type"] == pad.cell:
            cell["connections"][pad.pad] = [net]
            cell["port_directions"][pad.pad] = "output"
            top["ports"][pad.pad] = {"direction": "output", "bits": [net]}


def _resolve_ties(cells: Mapping[str, Cell], family: Family) -> None:
    """Put constants at the pins that a cell with nothing but a constant output drives: they say what is never used."""
    constants = {}
    for cell in cells.values():
        if cell["type"] in family.ties:
            (net,) = (net for pin in cell["connections"].values() for net in pin)
            constants[net] = family.ties[cell["type"]]
    for cell in cells.values():
        if cell["type"] not in family.ties:
            for name, pin in cell["connections"].items():
                cell["connections"][name] = [constants.get(net, net) for net in pin]


def _starts_unknown(cell: Cell, family: Family) -> bool:
    """Whether a cell is a memory that can be written and has no initial content."""
    if cell["type"] not in (*family.block_rams, family.distributed_ram):
        return False
    rows = [value for name, value in cell["parameters"].items() if name.startswith(family.init_prefix)]
    if any("1" in row for row in rows):
        return False
    return cell["type"] == family.distributed_ram or family.written(cell)


def _simplify_lut(cell: Cell, family: Family) -> None:
    """Turn a look-up table of the device into Yosys' own, which is written as an expression."""
    kind, inputs, output, table = family.lut
    if cell["type"] != kind:
        return
    pins = cell["connections"]
    address = [pins[pin][0] if pins.get(pin) else "0" for pin in inputs]
    cell["type"] = "$lut"
    cell["parameters"] = {"WIDTH": f"{len(inputs):032b}", "LUT": cell["parameters"][table]}
    cell["port_directions"] = {"A": "input", "Y": "output"}
    cell["connections"] = {"A": address, "Y": pins[output]}


def simulation_library(folder: Path, family: Family) -> list[Path]:
    """Write the models of the cells into ``folder``: Yosys' own with random flip-flops, and ours for its black boxes.

    Raises
    ------
    ToolError
        If Yosys' models are not found or are not the known ones.
    """
    share = share_folder(find_tool("yosys"))
    try:
        texts = [(share / name).read_text(encoding="utf-8") for name in family.simulation_cells]
    except OSError as error:
        raise ToolError(f"Yosys' cell models cannot be read: {error}") from error
    library = folder / "cells.v"
    write_atomically(library, family.random_start("\n".join(texts)))
    return [library, *(_HERE / "cells" / name for name in family.own_cells)]


def _write_bench(folder: Path, plan: Plan) -> Path:
    """Write the module that gives the pins of the board top their plain names."""
    bench = folder / "bench.v"
    text = _BENCH.format(
        button="button" if plan.button_active else "~button",
        clock_port=plan.clock,
        button_port=plan.button,
        rx_port=plan.rx,
        tx_port=plan.tx,
        flash=_FLASH if plan.flash else _NO_FLASH,
        flash_ports="".join(f", .{port}({_FLASH_NAMES[name]})" for name, port in (plan.flash or {}).items()),
    )
    write_atomically(bench, text)
    return bench


def _as_bytes(codes: NDArray[np.integer], what: str) -> NDArray[np.uint8]:
    """Return codes of 8 bits as bytes, one row a vector."""
    array = np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise InputError(f"Codes of the {what} vectors must be integers, not {array.dtype}")
    if array.ndim < 2 or array.size == 0:
        raise InputError(f"Shape of the {what} vectors must be (vectors, ...) and not empty, not {array.shape}")
    if array.min() < -128 or array.max() > 255 or (array.min() < 0 and array.max() > 127):
        raise InputError(f"Codes of the {what} vectors must fit 8 bits, not reach from {array.min()} to {array.max()}")
    return (array.astype(np.int64) & 255).astype(np.uint8).reshape(len(array), -1)


def _simulate(
    program: Path, folder: Path, sent: NDArray[np.uint8], arguments: Sequence[str], cancel: threading.Event | None
) -> int:
    """Run the built simulation in ``folder`` and return its exit code."""
    (folder / "inputs.bin").write_bytes(sent.tobytes())
    simulator = Tool("netlist simulation", (str(program.resolve()),), "", "native")
    log = folder / "simulation.log"
    code = run_tool(simulator, ["inputs.bin", "outputs.bin", *arguments], cwd=folder, log=log, cancel=cancel)
    if code not in (0, _TIMED_OUT, _BAD_FRAME):
        raise ToolError(f"Netlist simulation failed with exit code {code}: {log.read_text().strip()[-500:]}")
    return code


def _compare(folder: Path, code: int, wanted: NDArray[np.uint8], timeout_cycles: int) -> int:
    """Compare what the simulation left in ``folder`` with the expected bytes; return the cycles it ran."""
    got = np.frombuffer((folder / "outputs.bin").read_bytes(), dtype=np.uint8)
    flat = wanted.reshape(-1)
    common = min(len(got), len(flat))
    wrong = np.flatnonzero(got[:common] != flat[:common])
    if len(wrong):
        vector, value = divmod(int(wrong[0]), wanted.shape[1])
        raise VerificationError(
            f"Mapped netlist differs from the golden outputs in {len(wrong)} of {common} values; first: vector "
            f"{vector}, value {value}: expected {flat[wrong[0]]}, got {got[wrong[0]]} (as unsigned bytes)"
        )
    if code == _BAD_FRAME:
        raise VerificationError(f"Mapped netlist sent a byte without a stop bit after {len(got)} of {len(flat)} values")
    if len(got) != len(flat):
        vector, value = divmod(common, wanted.shape[1])
        raise VerificationError(
            f"Mapped netlist gave {len(got)} values, but {len(flat)} are expected; first difference at vector "
            f"{vector}, value {value}" + (f" (no output for {timeout_cycles} cycles)" if code == _TIMED_OUT else "")
        )
    return int((folder / "simulation.log").read_text().split()[-1])
