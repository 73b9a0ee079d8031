"""The public Python API: the same verbs as the command line, on a Design folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import InputError, VerificationError
from zeroskip.compiler.program import FlashRead
from zeroskip.compiler.resources import Limits
from zeroskip.disk import require_space

if TYPE_CHECKING:
    from zeroskip.boards.board import Board
    from zeroskip.boards.simulation import SimulationResult, StallPattern
    from zeroskip.boards.synthesis import SynthesisResult
    from zeroskip.compiler.program import Program

__all__ = ["Design", "board_limits", "compile", "load", "read_manifest", "reference", "reuse", "simulate", "synthesize"]

REPORT_KEYS = ("model", "engine", "geometry", "kinds", "accuracy", "cycles", "storage_bits", "resources", "fmax_mhz")
MANIFEST_KEYS = ("format", "artifact", "engine", "files")
"""What every report and manifest has; without them the file is damaged."""

SIMULATION_MB = 50
WAVES_MB = 500
SYNTHESIS_MB = 100
"""Free disk space that a step must find."""

Reporter = Callable[[str], None]


@dataclass(frozen=True)
class Design:
    """A compiled network in a folder.

    ``reasons`` says why this engine and geometry were chosen.
    """

    directory: Path
    reasons: tuple[str, ...] = ()

    @cached_property
    def program(self) -> Program:
        """The program, read back with the proof that the ROM images are those of the network."""
        from zeroskip.compiler.emit import load_program

        return load_program(self.directory)

    def reference(self, inputs: NDArray[np.generic]) -> NDArray[np.int64]:
        """Return the output codes of the integer reference for ``inputs``, shape (vectors, *output shape)."""
        from zeroskip.compiler import reference as interpreter
        from zeroskip.vectors import to_codes

        model = self.program.model
        codes = to_codes(np.asarray(inputs), model.tensors[model.input], "Inputs")
        return interpreter.run(model, codes)[model.output].astype(np.int64)

    def simulate(
        self,
        inputs: NDArray[np.generic] | None = None,
        *,
        simulator: str = "verilator",
        waves: bool = False,
        stalls: StallPattern | None = None,
        progress: Reporter | None = None,
    ) -> SimulationResult:
        """Simulate the RTL on ``inputs`` and compare every layer.

        Without inputs it takes the artifact's golden samples, or random codes for a model that has none.
        Call ``.check()`` on the result to raise on a mismatch. The measured cycles go into ``report/report.json``.
        """
        from zeroskip.boards.simulation import simulate as run_rtl
        from zeroskip.compiler import reference as interpreter
        from zeroskip.vectors import sample_inputs, to_codes

        self.report()
        model = self.program.model
        require_space(self.directory, WAVES_MB if waves else SIMULATION_MB)
        codes = sample_inputs(model) if inputs is None else np.asarray(inputs)
        codes = to_codes(codes, model.tensors[model.input], "Inputs")
        expected = interpreter.run(model, codes)
        if inputs is None:
            compare_golden(model.golden, expected)
        result = run_rtl(
            self.directory, codes, expected, simulator=simulator, waves=waves, stalls=stalls, progress=progress
        )
        if stalls is None:
            self._record_simulation(result)
        return result

    def _record_simulation(self, result: SimulationResult) -> None:
        report = self.report()
        cycles = result.cycles
        report["accuracy"].update(rtl_vectors=result.vectors, rtl_mismatches=result.mismatch_count)
        report["rtl_values"] = result.values_compared
        report["rtl_sha256"] = self.rtl_digest() if cycles is not None and not result.mismatch_count else None
        if cycles is None:
            write_json(self.directory / "report" / "report.json", report)
            return
        report["kinds"]["cycles"] = "measured"
        report["cycles"].update(total=cycles.total, interval=cycles.interval, load=cycles.load, unload=cycles.unload)
        for layer in report["cycles"]["layers"]:
            layer["cycles"] = cycles.layers[layer["name"]]
            layer["utilization"] = layer["macs_useful"] / (layer["cycles"] * layer["lanes"])
        write_json(self.directory / "report" / "report.json", report)

    def rtl_digest(self) -> str:
        """Return a digest of the RTL and the ROM images as they lie on disk: what a simulation was good for."""
        total = sha256()
        for path in sorted([*(self.directory / "rtl").glob("*.v"), *(self.directory / "rom").glob("*.mem")]):
            total.update(path.name.encode())
            total.update(path.read_bytes())
        return total.hexdigest()

    def is_simulated(self) -> bool:
        """Whether exactly these files were simulated before and every value agreed."""
        return self.report().get("rtl_sha256") == self.rtl_digest()

    def is_edited(self) -> bool:
        """Whether the RTL or a ROM image was changed after the simulation that the report tells of."""
        digest = self.report().get("rtl_sha256")
        return digest is not None and digest != self.rtl_digest()

    def synthesize(
        self,
        board: str | Board,
        seeds: int | Sequence[int] = 1,
        *,
        jobs: int = 2,
        netlist_check: bool = True,
        portable: bool = False,
        progress: Reporter | None = None,
    ) -> SynthesisResult:
        """Synthesize, check the mapped netlist, place and route; write ``report/<board>/report.json``.

        ``portable`` leaves multipliers and memories to synthesis instead of giving the device's own cells for them.
        """
        from zeroskip.boards import find_board
        from zeroskip.boards.capacity import refuse_oversized
        from zeroskip.boards.synthesis import synthesize as run_flow
        from zeroskip.vectors import sample_inputs

        target = find_board(board) if isinstance(board, str) else board
        refuse_oversized(target, self.program)
        model = self.program.model
        require_space(self.directory, SYNTHESIS_MB)
        # A model without golden samples is checked against the reference.
        inputs = None if model.golden else sample_inputs(model)
        result = run_flow(
            self.directory,
            target,
            seeds,
            jobs=jobs,
            netlist_check=netlist_check,
            inputs=inputs,
            expected=None if inputs is None else self.reference(inputs),
            portable=portable,
            progress=progress,
        )
        report = self.report()
        measured = result.to_report()
        report["kinds"].update(measured.pop("kinds"))
        report.update(measured)
        if result.fmax_mhz is not None:
            median = float(result.fmax_mhz["median"])
            report["latency_us"] = report["cycles"]["total"] / median
            report["throughput_per_s"] = median * 1e6 / report["cycles"]["interval"]
        write_json(self.directory / "report" / target.name / "report.json", report)
        return result

    def report(self, board: str | None = None) -> dict[str, Any]:
        """Return ``report.json``, of a board where one is named."""
        folder = self.directory / "report" if board is None else self.directory / "report" / board
        path = folder / "report.json"
        remedy = "zeroskip compile" if board is None else f"zeroskip synth {self.directory} --board {board}"
        try:
            content: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            raise InputError(f"Report '{path}' does not exist; run '{remedy}' first") from None
        except (ValueError, OSError) as error:
            raise InputError(f"Report '{path}' is damaged ({error}); run '{remedy}' again") from error
        missing = _missing_keys(content, REPORT_KEYS)
        if missing:
            raise InputError(f"Report '{path}' is damaged ({missing} is missing); run '{remedy}' again")
        return content

    def boards(self) -> list[str]:
        """Return the boards that have a report."""
        return sorted(path.parent.name for path in (self.directory / "report").glob("*/report.json"))

    def __str__(self) -> str:
        from zeroskip.report import design_text

        return design_text(self)

    def _repr_html_(self) -> str:
        from zeroskip.report import html_page

        return html_page(self)


def compare_golden(golden: Mapping[str, NDArray[np.generic]], computed: Mapping[str, NDArray[np.generic]]) -> int:
    """Compare PyTorch's golden samples with the reference, tensor by tensor; return the number of values.

    Raises
    ------
    VerificationError
        Naming the first tensor and element that differ.
    """
    values = 0
    for name, codes in golden.items():
        if name not in computed:
            continue
        got = np.asarray(computed[name])
        if not np.array_equal(got, codes):
            where = tuple(int(i) for i in np.argwhere(got != codes)[0])
            raise VerificationError(
                f"Tensor {name!r} at {where}: PyTorch's integer golden has {int(codes[where])}, "
                f"the reference {int(got[where])}; export the artifact again"
            )
        values += got.size
    return values


def board_limits(board: Board) -> Limits:
    """Return what a board holds, in the compiler's terms."""
    family = board.family
    flash = None
    if board.flash is not None:
        flash = FlashRead(board.flash.commands[0], board.flash.offset, board.flash.wake_cycles(board.clock_mhz))
    return Limits(
        f"board {board.name!r}",
        board.dsp,
        board.bram,
        family.block_shapes,
        family.operand_bits,
        board.spram,
        flash,
        board.flash.commands if board.flash is not None else (),
        can_wait=False,
    )


def compile(
    artifact: Path | str,
    out: Path | str,
    engine: str = "auto",
    board: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Design:
    """Compile a model file into the folder ``out``.

    Parameters
    ----------
    artifact : ``.safetensors`` file that zeroskip wrote, or a full-integer ``.tflite`` file
    out : folder
    engine : ``dense``, ``sparse`` or ``auto``
    board : name of the board whose size the geometry must fit; an ECP5-25F by default
    settings : ``lanes``, ``columns``, ``cores``, ``results``, ``logic_products``, ``banked_vectors``,
        ``paired_products``, ``sign_adds``, ``index_bits``, ``bitmap``, ``spram``,
        ``least_storage``, ``parameters``, ``flash_command``
    """
    from zeroskip.boards import find_board
    from zeroskip.hw.design import compile_artifact

    limits = board_limits(find_board(board)) if board is not None else None
    choice = compile_artifact(Path(artifact), Path(out), engine=engine, limits=limits, settings=settings)
    return Design(Path(out), choice.reasons)


def reuse(artifact: Path, out: Path, settings: Mapping[str, str]) -> Design | None:
    """Return the design in ``out`` if compiling ``artifact`` again would write the same, else None."""
    from zeroskip.hw.design import parse_settings, source_digest

    if not (out / "manifest.json").is_file():
        return None
    manifest = read_manifest(out)
    same = (
        manifest.get("artifact", {}).get("sha256") == sha256(artifact.read_bytes()).hexdigest()
        and manifest.get("settings") == parse_settings(settings)
        and manifest.get("source") == source_digest()
    )
    return load(out) if same else None


def load(directory: Path | str) -> Design:
    """Open a compiled folder."""
    folder = Path(directory)
    return Design(folder, tuple(read_manifest(folder).get("reasons", ())))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a compiled folder."""
    path = folder / "manifest.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"Folder '{folder}' is no compiled design: manifest.json is missing; run 'zeroskip compile' first"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(f"File '{path}' is damaged ({error}); compile again") from error
    missing = _missing_keys(content, MANIFEST_KEYS)
    if missing:
        raise InputError(f"File '{path}' is damaged ({missing} is missing); compile again")
    return content


def _missing_keys(content: object, keys: Sequence[str]) -> str:
    """Return the first key that a JSON object lacks, empty when it has all."""
    if not isinstance(content, dict):
        return "a JSON object"
    return next((repr(key) for key in keys if key not in content), "")


def reference(directory: Path | str, inputs: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the integer reference's output codes for a compiled folder."""
    return load(directory).reference(inputs)


def simulate(directory: Path | str, inputs: NDArray[np.generic] | None = None, **options: Any) -> SimulationResult:
    """Simulate a compiled folder; see :meth:`Design.simulate`."""
    return load(directory).simulate(inputs, **options)


def synthesize(directory: Path | str, board: str, seeds: int = 1, **options: Any) -> SynthesisResult:
    """Synthesize a compiled folder; see :meth:`Design.synthesize`."""
    return load(directory).synthesize(board, seeds, **options)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    scratch.replace(path)
