"""The soak test: random networks on random geometries, simulated and compared value by value and cycle by cycle."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np

from zeroskip.boards.simulation import SimulationResult, simulate
from zeroskip.compiler import reference
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.lower import lower
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.program import Program
from zeroskip.compiler.rom_check import check_roms
from zeroskip.compiler.spram import move_roms, parameter_roms
from zeroskip.compiler.target import Geometry
from zeroskip.compiler.verify import verify
from zeroskip.configurations import Configuration, draw_configuration
from zeroskip.coverage import coverage_table, features
from zeroskip.hw.design import design_files

__all__ = ["Outcome", "Refused", "Tally", "check_configuration", "compile_configuration", "main", "run_soak"]

DEFAULT_COUNT = 100
IDLE_LIMIT_CYCLES = 1 << 15
"""No network drawn here is silent for longer."""
_FAILURE_LINES = 12


class Disagreement(Exception):
    """Two links of the exactness chain differ."""


@dataclass(frozen=True)
class Outcome:
    """What became of one configuration; ``refused`` is the compiler's reason, ``failure`` what went wrong.

    ``features`` are those of a design that passed (:func:`zeroskip.coverage.features`).
    """

    index: int
    line: str
    seconds: float
    values: int = 0
    cycles_compared: bool = False
    refused: str | None = None
    failure: str | None = None
    features: tuple[str, ...] = ()


@dataclass
class Tally:
    """The outcomes so far."""

    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)
    values: int = 0
    cycles_compared: int = 0
    seconds: float = 0.0
    features: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.seconds += outcome.seconds
        self.values += outcome.values
        self.cycles_compared += outcome.cycles_compared
        self.features.update(outcome.features)
        if outcome.failure is not None:
            self.failed.append(outcome)
        elif outcome.refused is not None:
            self.refused[_pattern(outcome.refused)] += 1
        else:
            self.passed += 1

    @property
    def done(self) -> int:
        """Number of configurations tried."""
        return self.passed + self.refused.total() + len(self.failed)

    def text(self, seed: int) -> str:
        """Return the tally, what it covers, a reason a line, and the command that repeats each failure."""
        head = (
            f"{self.done} configurations in {_duration(self.seconds)}: {self.passed} passed, "
            f"{self.refused.total()} refused, {len(self.failed)} failed; {self.values:,} values equal the reference, "
            f"cycles equal the model in {self.cycles_compared} runs"
        )
        lines = [head]
        if self.passed:
            lines += ["configurations that passed, by feature:", coverage_table(self.features)]
        lines += [f"refused {count} times: {reason}" for reason, count in self.refused.most_common()]
        lines += [f"failed: {repeat_command(seed, outcome.index)}" for outcome in self.failed]
        return "\n".join(lines)


def repeat_command(seed: int, index: int) -> str:
    """Return the command that runs one configuration again."""
    return shlex.join(["python", "-m", "zeroskip.soak", "--seed", str(seed), "--first", str(index), "--count", "1"])


def _pattern(reason: str) -> str:
    """Return a reason without its names and numbers, so that equal reasons count together."""
    return re.sub(r"\d+", "N", re.sub(r"'[^']*'", "...", reason))


def check_configuration(seed: int, index: int, keep: Path | None = None) -> Outcome:
    """Draw configuration ``index`` and check it; every exception but the compiler's refusal is a failure.

    Parameters
    ----------
    seed, index : int, all that the configuration depends on
    keep : folder that gets the design when it fails
    """
    started = time.monotonic()
    line = "not drawn"

    def outcome(**options: object) -> Outcome:
        return Outcome(index, line, time.monotonic() - started, **options)  # type: ignore[arg-type]

    try:
        configuration = draw_configuration(seed, index)
        line = configuration.describe()
        with _folder(keep, seed, index) as folder:
            checked = _check(configuration, folder)
    except Refused as refusal:
        return outcome(refused=str(refusal))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        text = "\n".join(str(error).splitlines()[:_FAILURE_LINES])
        return outcome(failure=f"{where}: {text}")
    return outcome(**checked)


class Refused(Exception):
    """The compiler does not serve the configuration."""


@contextlib.contextmanager
def _folder(keep: Path | None, seed: int, index: int) -> Iterator[Path]:
    """Give a folder that goes when the block ends well."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
            yield Path(scratch)
        return
    folder = keep / f"{seed}-{index}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    except Refused:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _check(configuration: Configuration, folder: Path) -> dict[str, object]:
    """Compile, simulate and compare; return what the outcome says of a design that passed."""
    model = configuration.model
    inputs = model.golden[model.input][: configuration.vectors]
    golden = model.golden[model.output][: configuration.vectors]
    program = compile_configuration(configuration)
    expected = reference.run(program.model, inputs)
    if not np.array_equal(expected[program.model.output], golden):
        raise Disagreement("The compiled network computes other outputs than the network it was made from")
    for path, content in design_files(program, configuration.index_bits).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    result = simulate(
        folder,
        inputs,
        expected,
        stalls=configuration.stalls,
        idle_limit=IDLE_LIMIT_CYCLES,
        jobs=1,
    ).check()
    if not np.array_equal(result.outputs, golden):
        raise Disagreement("The outputs of the design differ from the network's")
    if configuration.stalls is None:
        _compare_cycles(program, result)
    return {
        "values": result.values_compared,
        "cycles_compared": configuration.stalls is None,
        "features": features(configuration, program),
    }


def compile_configuration(configuration: Configuration) -> Program:
    """Compile the network and prove its images.

    Raises
    ------
    Refused
        If the compiler does not serve the configuration.
    """
    model = configuration.model
    verify(model)
    if configuration.passes:
        model, _ = run_passes(model)
    try:
        geometry = Geometry(**configuration.geometry)
        program = lower(model, geometry, configuration.formats(model), index_bits=configuration.index_bits)
    except CompileError as error:
        raise Refused(str(error)) from error
    if configuration.spram:
        program = move_roms(program, [rom.name for rom in parameter_roms(program)])
    check_roms(program)
    verify(program.model)
    return program


def _compare_cycles(program: Program, result: SimulationResult) -> None:
    cycles, counted = program_cycles(program), result.cycles
    if counted is None:
        raise Disagreement("The simulation counted no cycles")
    modelled = {layer.name: layer.cycles for layer in cycles.layers}
    pairs = {
        "load": (cycles.load, counted.load),
        **{f"layer {name!r}": (modelled[name], counted.layers[name]) for name in modelled},
        "unload": (cycles.unload, counted.unload),
        "total": (cycles.total, counted.total),
        "interval": (cycles.interval, counted.interval),
    }
    wrong = [f"{what}: model {ours}, counted {theirs}" for what, (ours, theirs) in pairs.items() if ours != theirs]
    if wrong:
        raise Disagreement("The cycle model differs from the simulation; " + "; ".join(wrong))


def run_soak(
    seed: int,
    *,
    first: int = 0,
    count: int | None = DEFAULT_COUNT,
    minutes: float | None = None,
    jobs: int = 1,
    keep: Path | None = None,
    log: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Tally, int | None]:
    """Check configurations ``first``, ``first + 1`` ... until ``count`` are done or ``minutes`` are over.

    ``log`` gets a JSON line an outcome. What it already holds is counted and not run again, except failures.

    Returns
    -------
    the tally, and the index to go on from when it was interrupted or the time was over, else None
    """
    tally = Tally()
    started = time.monotonic()
    until = None if minutes is None else started + 60 * minutes
    span = range(first, first + count) if count is not None else None
    done: set[int] = set()
    for outcome in _logged(log, seed):
        wanted = outcome.index >= first and (span is None or outcome.index in span)
        if outcome.failure is None and outcome.index not in done and wanted:
            done.add(outcome.index)
            tally.add(outcome)
    before = tally.done
    indices = iter(index for index in span or itertools.count(first) if index not in done)
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_ignore_interrupt)
    running: set[Future[Outcome]] = set()
    stopped = False
    try:
        while True:
            late = until is not None and time.monotonic() >= until
            while not late and len(running) < jobs and (index := next(indices, None)) is not None:
                running.add(pool.submit(check_configuration, seed, index, keep))
            if not running:
                stopped = late
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                outcome = future.result()
                done.add(outcome.index)
                tally.add(outcome)
                _append(log, seed, outcome)
                report(_line(outcome, tally, before, count, until, started))
                if outcome.failure is not None:
                    report(f"    repeat with: {repeat_command(seed, outcome.index)}")
    except KeyboardInterrupt:
        stopped = True
        for process in list((pool._processes or {}).values()):
            process.terminate()
    finally:
        pool.shutdown(wait=not stopped, cancel_futures=True)
    left = next(index for index in itertools.count(first) if index not in done)
    return tally, left if stopped and (count is None or left < first + count) else None


def _logged(log: Path | None, seed: int) -> Iterable[Outcome]:
    """Return the outcomes of ``seed`` in a log; the last line of one that was killed may be torn."""
    if log is None or not log.is_file():
        return
    for line in log.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if record.pop("seed") == seed:
                yield Outcome(**{**record, "features": tuple(record["features"])})


def _append(log: Path | None, seed: int, outcome: Outcome) -> None:
    if log is not None:
        with log.open("a") as file:
            file.write(json.dumps({"seed": seed, **asdict(outcome)}) + "\n")


def _ignore_interrupt() -> None:
    """Leave Ctrl-C to the process that prints the tally."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _line(outcome: Outcome, tally: Tally, before: int, count: int | None, until: float | None, started: float) -> str:
    """Return the progress: ``before`` configurations were done when this run ``started``."""
    verdict = f"ok, {outcome.values:,} values" + (", cycles" if outcome.cycles_compared else "")
    if outcome.refused is not None:
        verdict = f"refused: {outcome.refused}"
    if outcome.failure is not None:
        verdict = f"FAILED: {outcome.failure}"
    now = time.monotonic()
    ends = [] if count is None else [(now - started) / (tally.done - before) * (count - tally.done)]
    ends += [] if until is None else [max(0.0, until - now)]
    left = f", {_duration(min(ends))} left" if ends else ""
    total = "" if count is None else f"/{count}"
    return f"[{tally.done}{total}{left}] {outcome.index}: {outcome.line}: {verdict} ({outcome.seconds:.1f} s)"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _log(line: str) -> None:
    click.echo(line, err=True)


@click.command()
@click.option("--seed", default=0, show_default=True, metavar="S", help="first half of what a configuration is made of")
@click.option("--first", default=0, show_default=True, metavar="I", help="index of the first configuration")
@click.option("--count", type=int, metavar="N", help=f"configurations [default: {DEFAULT_COUNT}, or as time allows]")
@click.option("--minutes", type=float, metavar="M", help="start no more configurations after this time")
@click.option("--jobs", default=1, show_default=True, metavar="J", help="configurations at a time")
@click.option(
    "--log",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="append outcomes here; a later run with the same file goes on",
)
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="keep the design folders of failures here")
def main(
    seed: int, first: int, count: int | None, minutes: float | None, jobs: int, log: Path | None, keep: Path | None
) -> None:
    """Simulate random networks on random geometries and compare every value and cycle."""
    if count is None and minutes is None:
        count = DEFAULT_COUNT
    tally, left = run_soak(seed, first=first, count=count, minutes=minutes, jobs=jobs, keep=keep, log=log, report=_log)
    click.echo(tally.text(seed))
    if left is not None:
        click.echo(f"go on with: python -m zeroskip.soak --seed {seed} --first {left}", err=True)
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
