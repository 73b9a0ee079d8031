"""Simulate a compiled design as it lies on disk, compare every value it computes and count its cycles."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.boards.cocotb_runner import CocotbFailure, build_icarus, build_verilator, run_cocotb
from zeroskip.boards.simulated_design import SimulatedDesign, read_design
from zeroskip.boards.trace import (
    NEVER_WRITTEN,
    Comparison,
    Mismatch,
    TensorTrace,
    compare_outputs,
    compare_trace,
    read_records,
)
from zeroskip.boards.verilator_cache import OPTIMIZATION
from zeroskip.compiler.errors import InputError, ToolError, VerificationError

__all__ = ["Cycles", "SimulationResult", "StallPattern", "simulate"]

IDLE_LIMIT_CYCLES = 1 << 18
"""Cycles without an input word, a written value or an output word after which a design is said to hang."""

OUTPUT_STREAM = "output stream"
"""Name under which mismatches of the output words are reported."""

_TOP = "sim_top"
_SIM_TOP = Path(__file__).with_name("sim_top.v")
_SIM_FLASH = Path(__file__).with_name("sim_flash.v")
_TESTBENCH_FILE = Path(__file__).with_name("testbench.py")
_TESTBENCH = "zeroskip_testbench"
_MISSING_IMAGE = re.compile(r"^%Warning: (.*):\d+: \$readmem file not found|\$readmemh: Unable to open (.*) for", re.M)
_MIN_INFERENCES = 3
_LONG_RUN_CYCLES = 1 << 20
"""A run for which optimizing the model pays: measured, the longer build is won back in 0.7 to 1.5 million cycles."""
_DONE = 1
_RUNAWAY = 3
_CORRUPT = 4
_TRACE_RECORD_BYTES = 36
_PROGRESS_SECONDS = 2.0

IntArray = NDArray[Any]


@dataclass(frozen=True)
class StallPattern:
    """Random stalls: in each cycle the source pauses and the sink is not ready with these probabilities.

    Probabilities are rounded to 1/256 and below 1. ``seed``, not 0, starts the generator in the simulation.
    """

    input_gap: float = 0.0
    output_gap: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("input_gap", "output_gap"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)!r}")
        if not 0 < self.seed < 1 << 32:
            raise ValueError(f"seed must be at least 1 and below 2**32, not {self.seed!r}")


@dataclass(frozen=True)
class Cycles:
    """Cycles of one inference in an idle design whose host is always ready: ``load + layers + unload == total``.

    ``total`` runs from the first input word accepted to the last output word accepted, both included; a layer from its
    first cycle in ``state`` to the first cycle of the next. ``interval`` lies between the last output words of
    successive inferences when inputs are always available.
    """

    load: int
    layers: Mapping[str, int]
    unload: int
    total: int
    interval: int


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation showed.

    ``outputs`` has the codes of the finished vectors, shape (vectors, *output shape), int64. ``cycles`` is None when
    stalls were asked for or the design failed. ``failure`` says where a design that did not finish hangs, or that
    ``state`` does not walk through the layers.
    ``mismatches`` holds the first ones in the order of vector, layer, cycle; ``mismatch_count`` counts all. ``values``
    has, where they were asked for, the codes that each layer wrote, by the name of its tensor: shape (vectors, *shape),
    masked where nothing was written.
    """

    outputs: IntArray
    vectors: int
    inferences: int
    cycles: Cycles | None
    values_compared: int
    mismatch_count: int
    mismatches: tuple[Mismatch, ...]
    failure: str | None
    simulated_cycles: int
    build_seconds: float
    run_seconds: float
    simulator: str
    waves: Path | None = None
    values: Mapping[str, np.ma.MaskedArray[Any, Any]] = field(default_factory=dict)

    @property
    def first_mismatch(self) -> Mismatch | None:
        """The first mismatch, None when all values agree."""
        return self.mismatches[0] if self.mismatches else None

    def check(self) -> SimulationResult:
        """Return self when the design finished and every value agrees.

        Raises
        ------
        VerificationError
            Naming the first differing layer, its place, both values and the cycle; or where the design hangs.
        """
        differ = (
            f"RTL differs from the reference in {self.mismatch_count} places "
            f"({self.values_compared} values compared); first: {self.first_mismatch}"
        )
        if self.failure is not None:
            raise VerificationError(self.failure if self.first_mismatch is None else f"{self.failure}. {differ}")
        if self.first_mismatch is not None:
            raise VerificationError(differ)
        return self


def simulate(
    directory: Path,
    inputs: IntArray | None = None,
    expected: Mapping[str, IntArray] | None = None,
    simulator: str = "verilator",
    waves: bool = False,
    stalls: StallPattern | None = None,
    progress: Callable[[str], None] | None = None,
    idle_limit: int = IDLE_LIMIT_CYCLES,
    jobs: int | None = None,
    keep_values: bool = False,
) -> SimulationResult:
    """Run the RTL of a compiled folder on ``inputs`` and compare every value of every layer with ``expected``.

    The files under ``rtl`` and ``rom`` are used as they lie there. The first inference runs alone, the others follow
    without a pause; at least three are run, repeating the vectors when there are fewer.

    Parameters
    ----------
    directory : compiled folder, with ``rtl/*.v``, ``rom/*.mem`` and ``ir/program.json``
    inputs : int codes, shape (vectors, *input shape); the artifact's golden samples when None
    expected : codes by tensor name, each with the vectors as first axis; of a layer whose tensor is not named only the
        coverage is checked (each element written once); the reference's tensors when None
    simulator : ``"verilator"`` or ``"icarus"``
    waves : write ``sim/dump.vcd`` (Verilator) or ``sim/dump.fst`` (Icarus)
    stalls : random input gaps and output back-pressure
    progress : called with one line of text at each step and every few seconds
    idle_limit : cycles without any word or value after which the design is said to hang
    jobs : compiler runs at a time; the number of usable cores when None
    keep_values : return what every layer wrote, not only where it differs

    Raises
    ------
    InputError
        If a file is missing or ``inputs`` or ``expected`` have a wrong shape or range.
    ToolError
        If a simulator or compiler is missing or fails.
    VerificationError
        If a four-state simulator shows unknown values. Differing values and a design that hangs do not raise: see
        :meth:`SimulationResult.check`.
    """
    directory = directory.resolve()
    if simulator not in ("verilator", "icarus"):
        raise InputError(f"Simulator must be verilator or icarus, not {simulator!r}")
    design = read_design(directory)
    if inputs is None or expected is None:
        inputs, expected = _reference_vectors(directory, inputs, expected)
    inputs = _check_codes("Inputs", inputs, design.input_shape)
    vectors = len(inputs)
    traces = _expected_traces(design, expected, vectors)
    vector_of = np.arange(max(vectors, _MIN_INFERENCES)) % vectors
    report = progress or (lambda line: None)

    started = time.perf_counter()
    report(f"build simulation with {simulator}")
    optimization = OPTIMIZATION if design.cycles * len(vector_of) >= _LONG_RUN_CYCLES else "-O0"
    command = _build(design, simulator, waves, optimization, jobs)
    built = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="run-", dir=directory / "sim") as scratch:
        run = Path(scratch)
        _write_inputs(design, inputs[vector_of], run / "inputs.bin")
        count = sum(trace.size for trace in traces[:-1])
        arguments = _plusargs(design, run, len(vector_of), count, stalls, idle_limit)
        with _progress_reports(report, run / "trace.hex", count, len(vector_of)):
            _run(design, [*command, *arguments], run)
        ran = time.perf_counter()
        report("compare values")
        values = [
            np.full((vectors if keep_values else 0, trace.size), NEVER_WRITTEN, np.int16) for trace in traces[:-1]
        ]
        logs = _compare(design, run, traces, vector_of, idle_limit, values, measure=stalls is None)
    return SimulationResult(
        outputs=logs.outputs[:vectors].reshape(-1, *design.output_shape),
        vectors=vectors,
        inferences=len(vector_of),
        cycles=logs.cycles,
        values_compared=logs.comparison.compared,
        mismatch_count=logs.comparison.differing,
        mismatches=logs.comparison.mismatches,
        failure=logs.failure,
        simulated_cycles=logs.simulated_cycles,
        build_seconds=built - started,
        run_seconds=ran - built,
        simulator=simulator,
        waves=_waves_file(design, simulator) if waves else None,
        values=_written(design, values) if keep_values else {},
    )


@dataclass(frozen=True)
class _Logs:
    """What the logs of one run say."""

    outputs: IntArray
    comparison: Comparison
    failure: str | None
    cycles: Cycles | None
    simulated_cycles: int


def _reference_vectors(
    directory: Path, inputs: IntArray | None, expected: Mapping[str, IntArray] | None
) -> tuple[IntArray, Mapping[str, IntArray]]:
    """Fill in what the caller left out: the golden samples, and the reference's tensors."""
    # Imported here: a caller who brings both needs neither the compiler nor the interpreter.
    from zeroskip.compiler import reference
    from zeroskip.compiler.emit import load_program

    program = load_program(directory)
    if inputs is None:
        inputs = program.model.golden.get(program.model.input)
        if inputs is None:
            raise InputError(f"Inputs must be given: the artifact in '{directory}' holds no golden samples")
    return inputs, reference.run(program.model, inputs) if expected is None else expected


def _check_codes(what: str, codes: IntArray, shape: tuple[int, ...]) -> IntArray:
    """Return codes as int64 when they are 8-bit integers of shape ``(vectors, *shape)``."""
    codes = np.asarray(codes)
    if codes.ndim != len(shape) + 1 or codes.shape[1:] != shape or len(codes) == 0:
        wanted = ", ".join(map(str, ("vectors", *shape)))
        raise InputError(f"{what} must have shape ({wanted}), not {codes.shape}")
    if not np.issubdtype(codes.dtype, np.integer):
        raise InputError(f"{what} must be integer codes, not {codes.dtype}")
    if codes.min() < -128 or codes.max() > 255:
        raise InputError(f"{what} must be 8-bit codes, not {codes.min()} to {codes.max()}")
    return codes.astype(np.int64)


def _expected_traces(
    design: SimulatedDesign, expected: Mapping[str, IntArray], vectors: int
) -> tuple[TensorTrace, ...]:
    """Return what every layer has to write and, last, what has to leave the output."""
    if expected and not set(expected) & set(design.tensors):
        raise InputError(f"Expected tensors must be among {', '.join(design.tensors)}, not {', '.join(expected)}")
    traces = []
    rows = [*zip(design.names, design.tensors, design.shapes, design.signed, design.places, strict=True)]
    rows.append((OUTPUT_STREAM, design.output, design.output_shape, design.output_signed, None))
    for name, tensor, shape, signed, places in rows:
        codes = expected.get(tensor)
        if codes is not None:
            codes = _check_codes(f"Expected tensor '{tensor}'", codes, shape)
            if len(codes) != vectors:
                raise InputError(f"Inputs have {vectors} vectors, but expected tensor '{tensor}' has {len(codes)}")
        if tensor == design.output:
            signed = design.output_signed
        elif signed is None:
            signed = codes is not None and bool((codes < 0).any())
        channels, height, width = (*shape, 1, 1)[:3]
        traces.append(TensorTrace(name, (channels, height, width), signed, codes, places))
    return tuple(traces)


def _written(design: SimulatedDesign, values: Sequence[IntArray]) -> dict[str, np.ma.MaskedArray[Any, Any]]:
    """Return what every layer wrote by the name of its tensor."""
    return {
        name: np.ma.masked_equal(codes.reshape(-1, *shape), NEVER_WRITTEN)
        for name, shape, codes in zip(design.tensors, design.shapes, values, strict=True)
    }


def _build(design: SimulatedDesign, simulator: str, waves: bool, optimization: str, jobs: int | None) -> list[str]:
    """Build the simulation when the RTL has changed; return the command that runs it, without its plusargs."""
    outside = design.outside
    sources = [_SIM_TOP, *([_SIM_FLASH] if outside and outside.source == "flash" else []), *design.sources]
    defines = outside.defines if outside else ()
    directory = design.directory / "sim"
    directory.mkdir(exist_ok=True)
    if simulator == "verilator":
        settings = [f"-G{name}={bits}" for name, bits in design.parameters.items()]
        settings += [f"-D{name}" for name in defines]
        program = build_verilator(
            sources, _TOP, directory, verilator_args=settings, waves=waves, optimization=optimization, jobs=jobs
        )
        options = ["--trace", "--trace-file", str(_waves_file(design, simulator))] if waves else []
        return [str(program), *options]
    parameters = {f"{_TOP}.{name}": bits for name, bits in design.parameters.items()}
    command = build_icarus(sources, _TOP, directory, parameters=parameters, defines=defines)
    return [*command, "-fst", f"+waves={_waves_file(design, simulator)}"] if waves else [*command, "-none"]


def _host_bytes(design: SimulatedDesign) -> int:
    """Return how many bytes of parameters the host sends behind each input."""
    return design.outside.size if design.outside is not None and design.outside.source == "host" else 0


def _write_inputs(design: SimulatedDesign, inputs: IntArray, path: Path) -> None:
    """Write what the host sends: the words of each input, and the parameters where they come from there."""
    words = inputs.astype(np.uint8).reshape(len(inputs), -1)
    if design.outside is not None and _host_bytes(design):
        image = np.frombuffer(design.outside.image.read_bytes(), np.uint8)
        words = np.concatenate([words, np.broadcast_to(image, (len(words), len(image)))], axis=1)
    words.tofile(path)


def _waves_file(design: SimulatedDesign, simulator: str) -> Path:
    """Return where the waves go."""
    return design.directory / "sim" / ("dump.vcd" if simulator == "verilator" else "dump.fst")


def _plusargs(
    design: SimulatedDesign, run: Path, inferences: int, values: int, stalls: StallPattern | None, idle_limit: int
) -> list[str]:
    """Return the run's settings as ``sim_top`` reads them."""
    pattern = stalls or StallPattern()
    settings = {
        "run": run,
        "inferences": inferences,
        "input_words": int(np.prod(design.input_shape)) + _host_bytes(design),
        "output_words": int(np.prod(design.output_shape)),
        "trace_limit": 2 * values,
        "idle_limit": idle_limit,
        "seed": pattern.seed,
        "input_gap": min(round(pattern.input_gap * 256), 255),
        "output_gap": min(round(pattern.output_gap * 256), 255),
    }
    return [f"+{name}={value}" for name, value in settings.items()]


def _run(design: SimulatedDesign, command: list[str], run: Path) -> None:
    """Run the simulation in the compiled folder, where ``rom/*.mem`` resolves."""
    # A copy under a name of its own: the simulator need not import this package, however it is installed.
    shutil.copyfile(_TESTBENCH_FILE, run / f"{_TESTBENCH}.py")
    try:
        printed = run_cocotb(command, _TOP, _TESTBENCH, run / "results.xml", cwd=design.directory, python_path=[run])
    except CocotbFailure as error:
        # The test bench compares nothing: it fails only when the simulator stops under it.
        raise ToolError(
            f"Simulation of '{design.directory}' ended before its results were complete\n{error}"
        ) from error
    missing = _MISSING_IMAGE.search(printed)
    if missing is not None:
        raise InputError(f"Compiled folder '{design.directory}' lacks the ROM image '{missing[1] or missing[2]}'")


@contextlib.contextmanager
def _progress_reports(report: Callable[[str], None], log: Path, values: int, inferences: int) -> Iterator[None]:
    """Report every few seconds how many inferences are done, by the length of the trace log."""
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(_PROGRESS_SECONDS):
            if log.exists():
                done = log.stat().st_size // (_TRACE_RECORD_BYTES * values)
                report(f"simulate: {min(done, inferences)} of {inferences} inferences")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stopped.set()
        watcher.join()


def _compare(
    design: SimulatedDesign,
    run: Path,
    traces: tuple[TensorTrace, ...],
    vector_of: IntArray,
    idle_limit: int,
    values: Sequence[IntArray],
    measure: bool,
) -> _Logs:
    """Read the logs of a run: compare the values, count the cycles when ``measure``."""
    *layers, stream = traces
    comparison = Comparison()
    cycles, words = _read_all(run / "outputs.hex", (48, 16))
    ends = cycles[stream.size - 1 :: stream.size][: len(vector_of)]
    compare_trace(run / "trace.hex", layers, len(ends), vector_of, comparison, values)
    outputs = compare_outputs(len(layers), stream, words, cycles, vector_of, comparison)
    (cycle,), (status,), (state,), (accepted,) = _read_all(run / "end.hex", (48, 16, 16, 48))
    failure, counted = None, None
    if status == _CORRUPT and design.outside is not None:
        ((page,),) = _read_all(run / "pages.hex", (16,))
        failure = (
            f"Parameters from the {design.outside.source}: the CRC of {design.outside.describe_page(int(page))} is "
            f"wrong in inference {len(ends)}, at cycle {cycle}; compile again and load "
            f"'{design.outside.image.name}' anew"
        )
    elif status != _DONE:
        reason = f"no word and no value for {idle_limit} cycles"
        if status == _RUNAWAY:
            reason = "more than twice as many values written as the network has"
        failure = (
            f"Design hangs in {design.describe_state(int(state))} of inference {len(ends)}, at cycle {cycle}: "
            f"{reason}; {accepted} input words accepted, {len(words)} output words received"
        )
    else:
        (first, *_), _ = _read_all(run / "inputs.hex", (48, 48))
        starts, states = _read_all(run / "states.hex", (48, 16))
        during = (starts > first) & (starts <= ends[0])
        walk = list(range(1, len(design.names) + 2))
        if states[during].tolist() != walk:
            failure = f"State must walk through {walk} during an inference, not through {states[during].tolist()}"
        elif measure:
            counted = _count_cycles(design, int(first), starts[during].tolist(), ends)
    return _Logs(outputs, comparison, failure, counted, int(cycle))


def _count_cycles(design: SimulatedDesign, first: int, starts: list[int], ends: IntArray) -> Cycles:
    """Count the cycles of the first inference, which ran alone, and the interval of the later ones.

    ``first`` is the cycle of the first input word, ``starts`` the first cycle of each state after loading.
    """
    last = int(ends[0])
    bounds = [first, *starts, last + 1]
    load, *layers, unload = (after - before for before, after in itertools.pairwise(bounds))
    return Cycles(
        load=load,
        layers=dict(zip(design.names, layers, strict=True)),
        unload=unload,
        total=last + 1 - first,
        interval=int(np.diff(ends[1:]).max()),
    )


def _read_all(path: Path, layout: tuple[int, ...]) -> tuple[IntArray, ...]:
    """Return all records of a log, one array a field."""
    chunks = list(read_records(path, layout))
    if not chunks:
        return tuple(np.zeros(0, np.int64) for _ in layout)
    return tuple(np.concatenate(columns) for columns in zip(*chunks, strict=True))
