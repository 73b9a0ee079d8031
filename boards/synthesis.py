"""From a compiled folder to a checked, placed and routed design: Yosys, netlist check, nextpnr, bitstream."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import math
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.boards.board import Board
from zeroskip.boards.capacity import (
    RESOURCE_NAMES,
    mapped_needs,
    refuse_broken_logic,
    refuse_misplaced_roms,
    refuse_overflow,
    refuse_unroutable,
)
from zeroskip.boards.families.family import Cell
from zeroskip.boards.netlist_check import NetlistCheck, estimated_cycles, golden_vectors, model_files
from zeroskip.boards.netlist_check import netlist_check as check_netlist
from zeroskip.boards.primitives import Replacement, replace_modules
from zeroskip.boards.reports import (
    CriticalPath,
    RouteReport,
    fmax_summary,
    parse_route_report,
    read_netlist,
    resource_table,
)
from zeroskip.boards.rom_images import FLASH_IMAGE, boot_image, parameter_image
from zeroskip.boards.steps import Progress, StepRecord, Steps, file_digest, write_atomically
from zeroskip.boards.timing import count_cells_named, slowest_path
from zeroskip.boards.tools import Tool, find_tool, run_tool
from zeroskip.boards.top import DEFAULT_BAUD, Plan, plan_top
from zeroskip.boards.verilator_cache import find_toolchain
from zeroskip.boards.watch import RouteWatch
from zeroskip.compiler.errors import CapacityError, InputError, ToolError

__all__ = ["SynthesisResult", "router_options", "synthesize"]

_LOG_LINES = 12

_CLOCK_TOLERANCE = 1.001
"""Delay files hold whole picoseconds."""

# Seconds on one ordinary core with the WebAssembly tools, for the expected times in the progress lines.
_SYNTHESIS_BASE_S = 4.0
_SYNTHESIS_BYTE_S = 1e-4
_ROUTE_BASE_S = 10.0
_ROUTE_CELL_S = 1.9e-5
"""To the power of 1.5 in the cells, over the share of free block RAMs: fits 65 to 1,260 s of four designs."""
_ROUTE_FREE = 0.05
_CHECK_BASE_S = 5.0
_CHECK_CELL_S = 2.5e-3
_CHECK_CELL_CYCLE_S = 1.5e-9


def router_options(board: Board, seed: int) -> list[str]:
    """Return the options with which nextpnr routes a design for ``board``, without its files."""
    family = board.family
    named = ((family.package_option, board.package), (family.speed_option, board.speed))
    return [
        *board.device_options, *(part for pair in named if all(pair) for part in pair),
        "--freq", f"{board.constraint_mhz:g}", "--seed", str(seed), "--timing-allow-fail",
        "--no-print-critical-path-source",
    ]  # fmt: skip


@dataclass(frozen=True)
class SynthesisResult:
    """What a board build measured.

    Without a passed netlist check there is no number: ``resources``, ``fmax_mhz`` and ``critical_path`` are None.

    Parameters
    ----------
    board : Board
    folder : Path
        ``DIR/synth/<board>``.
    tools : Mapping[str, str]
        Versions.
    resources : Mapping or None
        ``{"lut": {"used", "available"}, "ff": ..., "bram": ..., "dsp": ...}`` after place and route, and
        ``primitives``: whether the family's own multipliers and memories took the place of RTL modules.
    fmax_mhz : Mapping or None
        ``{"median", "min", "max", "seeds", "constraint"}``; no more than a block RAM bears.
    critical_path : CriticalPath or None
        Of the fastest seed, whose bitstream is kept.
    check : NetlistCheck or None
    bitstream : Path
    flash_image : Path or None
        What the board's flash must hold beside it, where parameters lie in SPRAM or are read from there.
    boot_ms : float or None, milliseconds
        Of a design that boots: from the end of configuration, or of a press of the reset button, to its first input.
    best_seed : int
    steps : tuple[StepRecord, ...]
    """

    board: Board
    folder: Path
    tools: Mapping[str, str]
    resources: Mapping[str, Any] | None
    fmax_mhz: Mapping[str, Any] | None
    critical_path: CriticalPath | None
    check: NetlistCheck | None
    bitstream: Path
    flash_image: Path | None
    boot_ms: float | None
    best_seed: int
    steps: tuple[StepRecord, ...]

    def to_report(self) -> dict[str, Any]:
        """Return the parts of report.json that a board build fills; None where nothing was measured."""
        measured = self.check is not None
        return {
            "device": self.board.device,
            "tools": dict(self.tools),
            "kinds": {"resources": "measured", "fmax_mhz": self._clock_kind} if measured else {},
            "resources": self.resources,
            "fmax_mhz": self.fmax_mhz,
            "critical_path": str(self.critical_path) if self.critical_path is not None else None,
            "netlist_check": self.check.to_report() if self.check is not None else None,
        }

    @property
    def _clock_kind(self) -> str:
        return "estimated" if self.board.family.missing_delays else "measured"

    def __str__(self) -> str:
        flash = f"\n{self.flash_text()}" if self.flash_image is not None else ""
        if self.resources is None or self.fmax_mhz is None or self.check is None:
            return f"{self.board.name}: no numbers without a netlist check; run with --netlist-check{flash}"
        counts = {name: self.resources[name] for name in self.board.available}
        cells = ", ".join(
            f"{RESOURCE_NAMES[name]} {count['used']} of {count['available']}" for name, count in counts.items()
        )
        fmax = self.fmax_mhz
        seeds = f"{len(fmax['seeds'])} seed" + ("s" if len(fmax["seeds"]) > 1 else "")
        kind = "estimated, " if self._clock_kind == "estimated" else ""
        return (
            f"{self.board.name} ({self.board.part}): {cells}\n"
            f"Fmax {fmax['median']} MHz ({kind}median of {seeds}, {fmax['min']} to {fmax['max']}; "
            f"constraint {fmax['constraint']:g})\n"
            f"netlist check: {self.check.values} values, {self.check.mismatches} differ\n"
            f"slowest path: {self.critical_path}{flash}"
        )

    def flash_text(self) -> str:
        """Return how the flash gets what the design reads there, empty where it reads nothing."""
        if self.flash_image is None or self.board.flash is None:
            return ""
        command = " ".join(self.board.flash.programmer)
        use = "read during every inference" if self.boot_ms is None else f"boots in {self.boot_ms:.1f} ms"
        return f"flash image ({use}): {self.flash_image}; program it with: {command} FILE"


def synthesize(
    directory: Path | str,
    board: Board,
    seeds: int | Sequence[int] = 1,
    jobs: int = 2,
    netlist_check: bool = True,
    progress: Progress | None = None,
    resume: bool = True,
    *,
    inputs: NDArray[np.integer] | None = None,
    expected: NDArray[np.integer] | None = None,
    baud: int = DEFAULT_BAUD,
    portable: bool = False,
) -> SynthesisResult:
    """Synthesize, check, place and route what is in ``directory/rtl`` for ``board``.

    Writes ``directory/synth/<board>/``: ``top.json`` (mapped netlist), ``netlist.v``, logs, ``seed-<n>.json`` (router's
    report), ``top.bit`` or ``top.bin``, and ``flash.bin`` where parameters are loaded at boot. Steps whose
    inputs and tools are unchanged are not run again, so that a killed run resumes. The netlist check and
    the seeds run side by side, ``jobs`` at a time.

    Parameters
    ----------
    directory : folder that compile wrote
    board : Board
    seeds : number of router seeds (1, 2, ...), or the seeds themselves
    jobs : processes at a time
    netlist_check : False leaves out the check, and with it every number
    progress : takes lines of text
    resume : False runs every step anew
    inputs, expected : vectors for the check; the artifact's golden samples when None
    baud : bits/s of the board's host link
    portable : True leaves every module of the RTL to synthesis; False gives the family's own cells, with their
        registers, for the multiplier, the ROMs in block RAM and the activation bank; SPRAM is such a cell either way

    Raises
    ------
    CapacityError
        If the design needs more than the board holds, cannot be routed, or misses the board's clock.
    VerificationError
        If the netlist check fails, or a ROM is not where it was planned.
    InputError, ToolError
    """
    flow = _Flow(Path(directory), board, _seed_list(seeds), jobs, netlist_check, progress, resume, baud, portable)
    vectors = _vectors(flow.directory, inputs, expected) if netlist_check else None
    flow.map_design()
    check = flow.check_and_route(vectors)
    return flow.finish(check)


def _seed_list(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """Return the router seeds, distinct and at least one."""
    values = tuple(range(1, seeds + 1)) if isinstance(seeds, int) else tuple(seeds)
    if not values or len(set(values)) != len(values):
        raise InputError(f"Seeds must be at least one and distinct, not {seeds!r}")
    return values


def _vectors(
    directory: Path, inputs: NDArray[np.integer] | None, expected: NDArray[np.integer] | None
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    if inputs is None or expected is None:
        return golden_vectors(directory)
    return np.asarray(inputs), np.asarray(expected)


class _Flow:
    """One run of :func:`synthesize`."""

    def __init__(
        self,
        directory: Path,
        board: Board,
        seeds: tuple[int, ...],
        jobs: int,
        check: bool,
        progress: Progress | None,
        resume: bool,
        baud: int,
        portable: bool,
    ) -> None:
        if not (directory / "rtl" / "accelerator.v").is_file():
            raise InputError(f"Folder '{directory}' has no rtl/accelerator.v; run zeroskip compile first")
        self.directory = directory
        self.board = board
        self.seeds = seeds
        self.jobs = max(1, jobs)
        self.baud = baud
        self.yosys = find_tool("yosys")
        self.router = find_tool(board.family.router)
        self.packer = find_tool(board.family.packer)
        self.image = boot_image(directory, board)
        paged = parameter_image(directory, board)
        self.flash_data = paged if self.image is None else self.image.data
        self.plan: Plan = plan_top(board, baud, self.image, paged=paged is not None)
        self.replacement: Replacement | None = replace_modules(directory, board, portable=portable)
        self.folder = directory / "synth" / board.name
        self.flash_image = self.folder / FLASH_IMAGE
        self.bitstream = self.folder / f"top.{board.family.bitstream_suffix}"
        total = 1 + len(seeds) + check
        self.steps = Steps(self.folder, total=total, title=board.name, progress=progress, resume=resume)
        self.cells: dict[str, Cell] = {}
        self.cancel = threading.Event()

    def map_design(self) -> None:
        """Run Yosys; refuse what does not fit and ROMs that missed their place."""
        rtl = sorted((self.directory / "rtl").glob("*.v"))
        images = sorted((self.directory / "rom").glob("*.mem"))
        inner = os.path.relpath(self.folder, self.directory)

        def action(scratch: Path) -> None:
            place = f"{inner}/{scratch.name}"
            (scratch / "top.il").write_text(self.plan.rtlil, encoding="utf-8")
            (scratch / "synth.ys").write_text(script.format(place=place), encoding="utf-8")
            (scratch / "remap.v").write_text(self.board.family.remap, encoding="utf-8")
            if self.replacement is not None:
                (scratch / "wrappers.v").write_text(self.replacement.wrappers, encoding="utf-8")
                (scratch / "cells.v").write_text(self.replacement.cells, encoding="utf-8")
            if self.flash_data is not None:
                (scratch / FLASH_IMAGE).write_bytes(self.flash_data)
            log = scratch / "yosys-console.log"
            arguments = ["-q", "-l", f"{place}/yosys.log", "-s", f"{place}/synth.ys"]
            code = run_tool(self.yosys, arguments, cwd=self.directory, log=log, cancel=self.cancel)
            if code != 0:
                raise ToolError(_failure(self.yosys, code, log, self.folder / log.name))

        replaced = self.replacement.modules if self.replacement is not None else ()
        cells = self.replacement.cells if self.replacement is not None else ""
        script = "\n".join(
            [
                f"read_verilog {' '.join(f'rtl/{path.name}' for path in rtl if path.stem not in replaced)}",
                *(["read_verilog {place}/wrappers.v"] if replaced else []),
                "read_rtlil {place}/top.il",
                f"{self.board.family.synthesis} -top top",
                # Only now: ABC9 stops without a word at multipliers with registers.
                *(["techmap -map {place}/cells.v", "opt_clean"] if cells else []),
                *(["techmap -map {place}/remap.v"] if self.board.family.remap else []),
                "tee -q -o {place}/stat.json stat -json",
                "write_json {place}/top.json",
                "",
            ]
        )
        identity = {
            "tool": self.yosys.label,
            "script": script,
            "remap": self.board.family.remap,
            "top": self.plan.rtlil,
            "primitives": self.replacement.wrappers + self.replacement.cells if self.replacement is not None else "",
            **{path.name: file_digest(path) for path in (*rtl, *images)},
        }
        outputs = ["top.json", "stat.json", "yosys.log", "top.il", "synth.ys"]
        outputs += ["wrappers.v", "cells.v"] if replaced else []
        outputs += [FLASH_IMAGE] if self.flash_data is not None else []
        self.steps.run("synthesis", identity, outputs, action, expected_s=_synthesis_estimate(rtl))
        self.cells = read_netlist(self.folder / "top.json")
        refuse_broken_logic(self.folder / "yosys.log")
        refuse_overflow(self.board, self.cells)
        refuse_misplaced_roms(self.directory, self.board, self.cells)
        if self.replacement is not None:
            self.replacement.refuse_wrong_images(self.cells, self.board.family)

    def check_and_route(self, vectors: tuple[NDArray[np.integer], NDArray[np.integer]] | None) -> NetlistCheck | None:
        """Run the netlist check and every seed, ``jobs`` at a time; the first failure stops the rest."""
        # No bitstream of an older design outlives a failure of this one.
        self.bitstream.unlink(missing_ok=True)
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            check = pool.submit(self._check, vectors) if vectors is not None else None
            routes = [pool.submit(self._route, seed) for seed in self.seeds]
            everything: list[concurrent.futures.Future[Any]] = [*([check] if check is not None else []), *routes]
            try:
                for future in concurrent.futures.as_completed(everything):
                    future.result()
            except BaseException:
                self.cancel.set()
                for future in everything:
                    future.cancel()
                raise
        return check.result() if check is not None else None

    def _check(self, vectors: tuple[NDArray[np.integer], NDArray[np.integer]]) -> NetlistCheck:
        inputs, expected = vectors
        note = self.folder / "netlist-check.json"

        def action(scratch: Path) -> None:
            result = check_netlist(self.directory, self.board, inputs, expected, baud=self.baud, cancel=self.cancel)
            content = {**result.to_report(), "cycles": result.cycles}
            write_atomically(scratch / note.name, json.dumps(content, indent=1, sort_keys=True) + "\n")

        toolchain = find_toolchain()
        identity = {
            "tool": f"{self.yosys.label} {toolchain.identity}",
            "netlist": file_digest(self.folder / "top.json"),
            "baud": str(self.baud),
            "models": " ".join(file_digest(path) for path in model_files(self.board.family)),
            "inputs": f"{inputs.shape} {sha256(inputs.tobytes()).hexdigest()}",
            "expected": f"{expected.shape} {sha256(expected.tobytes()).hexdigest()}",
        }
        cycles = estimated_cycles(self.directory, inputs, self.plan.divisor)
        expected_s = _CHECK_BASE_S + len(self.cells) * (_CHECK_CELL_S + cycles * _CHECK_CELL_CYCLE_S)
        self.steps.run("netlist check", identity, [note.name], action, expected_s=expected_s)
        return NetlistCheck(**json.loads(note.read_text(encoding="utf-8")))

    def _route(self, seed: int) -> None:
        """Place and route with one router seed, and pack the bitstream."""
        family = self.board.family
        step, stem = f"place and route seed {seed}", f"seed-{seed}"
        routed, report, pins = f"{stem}.{family.routed_suffix}", f"{stem}.json", f"top.{family.constraint_suffix}"
        delays = [f"{stem}.sdf"] if family.missing_delays else []
        inner = os.path.relpath(self.folder, self.directory)
        options = router_options(self.board, seed)

        def action(scratch: Path) -> None:
            place = f"{inner}/{scratch.name}"
            (scratch / pins).write_text(self.plan.pins, encoding="utf-8")
            files = [
                "--json", f"{inner}/top.json", f"{family.constraint_option}{place}/{pins}",
                "--report", f"{place}/{report}", family.routed_option, f"{place}/{routed}",
                *(part for name in delays for part in ("--sdf", f"{place}/{name}")),
            ]  # fmt: skip
            log = scratch / f"{stem}.log"
            watch = RouteWatch(scratch / f"{stem}-nextpnr.log", functools.partial(self.steps.tell, step))
            code = run_tool(self.router, ["-q", "-l", f"{place}/{stem}-nextpnr.log", *options, *files],
                            cwd=self.directory, log=log, cancel=self.cancel, watch=watch)  # fmt: skip
            if code != 0:
                refuse_unroutable(self.board, log, self.folder / log.name)
                raise ToolError(_failure(self.router, code, log, self.folder / log.name))
            self._pack(f"{place}/{routed}", f"{place}/{stem}.{family.bitstream_suffix}", scratch / f"{stem}-pack.log")

        identity = {
            "tool": f"{self.router.label} {self.packer.label}",
            "options": " ".join([*options, *self._pack_options]),
            "netlist": file_digest(self.folder / "top.json"),
            "pins": self.plan.pins,
        }
        outputs = [report, routed, *delays, f"{stem}.{family.bitstream_suffix}", f"{stem}-nextpnr.log"]
        self.steps.run(step, identity, outputs, action, expected_s=_route_estimate(self.board, self.cells))

    @property
    def _pack_options(self) -> tuple[str, ...]:
        return (*self.board.family.pack_options, *self.board.pack_options)

    def _pack(self, routed: str, bitstream: str, log: Path) -> None:
        """Turn the routed design into the file that programs the device."""
        named = [self.board.family.packed_option] if self.board.family.packed_option else []
        arguments = [*self._pack_options, routed, *named, bitstream]
        code = run_tool(self.packer, arguments, cwd=self.directory, log=log, cancel=self.cancel)
        if code != 0:
            raise ToolError(_failure(self.packer, code, log, self.folder / log.name))

    def finish(self, check: NetlistCheck | None) -> SynthesisResult:
        """Collect the reports, keep the fastest seed's bitstream and refuse a design too slow for the board."""
        suffix = self.board.family.bitstream_suffix
        routes = {seed: self._read_route(seed) for seed in self.seeds}
        best = max(self.seeds, key=lambda seed: routes[seed].fmax_mhz)
        if check is not None and routes[best].fmax_mhz < self.board.clock_mhz:
            raise CapacityError(
                f"Design reaches {routes[best].fmax_mhz:.2f} MHz, but board {self.board.name!r} runs at "
                f"{self.board.clock_mhz:g} MHz; try more seeds or choose fewer lanes\nslowest path: {routes[best].path}"
            )
        scratch = self.folder / f".top.{suffix}"
        shutil.copyfile(self.folder / f"seed-{best}.{suffix}", scratch)
        scratch.replace(self.bitstream)
        fmax = [min(routes[seed].fmax_mhz, self._clock_limit()) for seed in self.seeds]
        measured = check is not None
        tools = [self.yosys, self.router, *([find_tool("verilator")] if measured else [])]
        return SynthesisResult(
            board=self.board,
            folder=self.folder,
            tools={tool.name: tool.label for tool in tools},
            resources={
                **resource_table(self.board, routes[best], self.cells),
                "primitives": self.replacement is not None and bool(self.replacement.cells),
            }
            if measured
            else None,
            fmax_mhz=fmax_summary(fmax, self.board.constraint_mhz) if measured else None,
            critical_path=routes[best].path if measured else None,
            check=check,
            bitstream=self.bitstream,
            flash_image=self.flash_image if self.flash_data is not None else None,
            boot_ms=self.plan.reset_cycles / self.board.clock_mhz / 1e3 if self.image is not None else None,
            best_seed=best,
            steps=tuple(self.steps.records),
        )

    def _read_route(self, seed: int) -> RouteReport:
        """Return the router's report; where the router lacks delays, with the clock and the LUTs by its delay file."""
        route = parse_route_report(self.folder / f"seed-{seed}.json")
        family = self.board.family
        if not family.missing_delays:
            return route
        delays = self.folder / f"seed-{seed}.sdf"
        path = slowest_path(delays, family.missing_delays[self.board.speed], family.sources)
        fmax = 1000 / path.delay_ns
        if fmax > route.fmax_mhz * _CLOCK_TOLERANCE:
            raise ToolError(
                f"Delay file '{delays}' must hold the router's slowest path of {route.fmax_mhz:.2f} MHz, but its own "
                f"gives {fmax:.2f} MHz"
            )
        lut = family.lut[0]
        spare = count_cells_named(delays, family.spare_lut) if family.spare_lut else 0
        used = {**route.used, lut: route.used[lut] - spare}
        return dataclasses.replace(route, fmax_mhz=fmax, path=path, used=used)

    def _clock_limit(self) -> float:
        """Return the clock in MHz that the design's block RAMs bear, whatever the paths between them allow."""
        family = self.board.family
        has_memory = any(cell["type"] in family.block_rams for cell in self.cells.values())
        return family.block_ram_mhz.get(self.board.speed, math.inf) if has_memory else math.inf


def _synthesis_estimate(rtl: Sequence[Path]) -> float:
    """Return about how many seconds Yosys takes for this much Verilog."""
    return _SYNTHESIS_BASE_S + sum(path.stat().st_size for path in rtl) * _SYNTHESIS_BYTE_S


def _route_estimate(board: Board, cells: Mapping[str, Cell]) -> float:
    """Return about how many seconds nextpnr takes, longer as block RAMs leave it no choice of places."""
    used = mapped_needs(board, cells)["bram"] / max(1, board.available["bram"])
    return _ROUTE_BASE_S + _ROUTE_CELL_S * len(cells) ** 1.5 / max(_ROUTE_FREE, 1 - used)


def _failure(tool: Tool, code: int, log: Path, kept: Path) -> str:
    """Return the error text for a tool that failed; ``kept`` is where its log will lie."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_LOG_LINES:]
    return "\n".join([f"Tool {tool.name!r} failed with exit code {code}; its log is {kept}", *lines])
