"""Build rows of the accuracy tables: artifact, log, recipe and result of each, in one queue that may be killed."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zeroskip.pruning.chain import build_artifact
from zeroskip.pruning.checkpoints import replace_bytes
from zeroskip.pruning.curves import draw
from zeroskip.pruning.errors import DataError, PruningError
from zeroskip.pruning.figures import figures
from zeroskip.pruning.ledger import Ledger
from zeroskip.pruning.replicas import from_first, joined, rank, size
from zeroskip.pruning.rows import Row, find_rows, read_result, write_result
from zeroskip.pruning.summary import Results
from zeroskip.pruning.tables import tables
from zeroskip.pruning.toml import to_toml

__all__ = ["TABLE_SEEDS", "Folders", "TimeUp", "build_row", "main", "run_queue"]

TABLE_SEEDS = (0, 1, 2)
"""Seeds of a row's median."""

_LINE_SECONDS = 10.0
Report = Callable[[str, float, float | None], None]


class TimeUp(Exception):
    """The queue's time is over; the stages that are finished stay."""


@dataclass(frozen=True)
class Folders:
    """Where rows go, where their stages are kept, and where the data sets are (None: ``ZEROSKIP_DATA``)."""

    out: Path
    checkpoints: Path
    data: Path | None = None


def build_row(
    row: Row, folders: Folders, deadline: float = float("inf"), report: Report | None = None
) -> dict[str, Any]:
    """Train what is not trained yet of a row, have its figures counted, and write its result.

    Raises
    ------
    TimeUp
        After the first epoch that ends later than ``deadline`` (of ``time.time()``), of rank 0 in a process group.
    """
    started = time.monotonic()

    def progress(step: str, elapsed: float, expected: float | None) -> None:
        if report:
            report(step, elapsed, expected)
        if from_first(time.time() > deadline):
            raise TimeUp

    built = build_artifact(
        row.recipe, folders.out, data=folders.data, checkpoints=folders.checkpoints, progress=progress
    )
    if rank():
        return from_first({})
    replace_bytes(built.path.with_suffix(".toml"), to_toml(row.recipe.as_dict()).encode())
    return from_first(write_result(row, folders.out, built, figures(built.path), time.monotonic() - started))


def run_queue(rows: Sequence[Row], folders: Folders, jobs: int = 1, until: float | None = None) -> list[str]:
    """Build the rows that have no result yet, in order, and return the names of those that failed.

    Several at a time are always of different seeds, so that no stage is trained twice. A row that fails is reported and
    the queue goes on; where its data set is missing or damaged, without the other rows of that set, which count as
    failed. In a process group all ranks train one row together, and rank 0 says what is to be done.
    """
    if jobs > 1 and size() > 1:
        raise PruningError(f"The ranks of a process group train one row at a time, not {jobs}; leave --jobs out")
    deadline = float("inf") if until is None else time.time() + until
    open_rows = from_first([row for row in rows if read_result(row, folders.out) is None])
    with _shown(len(open_rows), len(rows)) as show:
        if jobs == 1:
            waiting = list(open_rows)
            while waiting:
                if from_first(time.time() > deadline):
                    break
                row = waiting.pop(0)
                try:
                    show.done(build_row(row, folders, deadline, show.reporter(row)))
                except TimeUp:
                    break
                except PruningError as error:
                    if size() > 1:
                        # Whether the other ranks failed at the same place is not known.
                        raise
                    show.failed(row, error, waiting)
        else:
            _run_parallel(open_rows, folders, jobs, deadline, show)
    return show.failures


def _run_parallel(rows: Sequence[Row], folders: Folders, jobs: int, deadline: float, show: _Display) -> None:
    waiting = list(rows)
    running: dict[Future[dict[str, Any]], Row] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        while waiting or running:
            seeds = {row.recipe.seed for row in running.values()}
            following = next((row for row in waiting if row.recipe.seed not in seeds), None)
            if following and len(running) < jobs and time.time() <= deadline:
                waiting.remove(following)
                running[pool.submit(build_row, following, folders, deadline)] = following
                continue
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                row = running.pop(future)
                try:
                    show.done(future.result())
                except TimeUp:
                    waiting.clear()
                except PruningError as error:
                    show.failed(row, error, waiting)


class _Display:
    """Progress: bars on a terminal, lines elsewhere; results as lines on standard output."""

    def __init__(self, bars: Progress | None, open_rows: int) -> None:
        self._bars = bars
        self._total = open_rows
        self._finished = 0
        self.failures: list[str] = []
        self._unusable: set[str] = set()
        self._started = self._last = time.monotonic()
        self._queue: TaskID | None = bars.add_task("queue", total=open_rows) if bars else None
        self._row: TaskID | None = bars.add_task("", total=None) if bars else None

    def reporter(self, row: Row) -> Report:
        """Return what tells of a running row."""

        def report(step: str, elapsed: float, expected: float | None) -> None:
            if self._bars is not None and self._row is not None:
                self._bars.update(self._row, description=f"{row.name}: {step}", completed=elapsed, total=expected)
            elif time.monotonic() - self._last >= _LINE_SECONDS:
                self._last = time.monotonic()
                left = "" if expected is None else f" of about {expected:.0f} s"
                place = f"[{self._finished + 1}/{self._total}]"
                print(f"{place} {row.name}: {step} ({elapsed:.0f} s{left}{self._rest()})", file=sys.stderr, flush=True)

        return report

    def _rest(self) -> str:
        """Return how long the rows after this one take, judged by those before it."""
        if not self._finished:
            return ""
        seconds = (time.monotonic() - self._started) / self._finished * (self._total - self._finished)
        return f"; queue about {seconds / 3600:.1f} h"

    def done(self, result: dict[str, Any]) -> None:
        """Say what a row has reached."""
        accuracy = result["accuracy"]
        self._step(f"{result['row']}: {100 * accuracy['integer']:.2f} % of {accuracy['samples']} (integer)")

    def failed(self, row: Row, error: PruningError, waiting: list[Row]) -> None:
        """Say why a row has no result; where its data set is to blame, take the rows of that set out of ``waiting``."""
        name = row.recipe.dataset
        if name in self._unusable and isinstance(error, DataError):
            # It ran beside the row that said so.
            self._skip([row])
            return
        self.failures.append(row.name)
        self._step(f"{row.name}: failed: {error}", sys.stderr)
        if not isinstance(error, DataError):
            return
        self._unusable.add(name)
        same = [other for other in waiting if other.recipe.dataset == name]
        if same:
            waiting[:] = [other for other in waiting if other.recipe.dataset != name]
            self._skip(same, f"rows left out because they need the data set '{name}' too: {len(same)}")

    def _skip(self, rows: Sequence[Row], text: str | None = None) -> None:
        self.failures += [row.name for row in rows]
        self._step(text, sys.stderr, len(rows))

    def _step(self, text: str | None, stream: TextIO | None = None, rows: int = 1) -> None:
        self._finished += rows
        if self._bars is not None and self._queue is not None:
            if text:
                self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
            self._bars.advance(self._queue, rows)
        elif text:
            print(text, file=stream, flush=True)


@contextmanager
def _shown(open_rows: int, rows: int) -> Iterator[_Display]:
    print(f"{rows} rows, {rows - open_rows} of them finished", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        yield _Display(None, open_rows)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Display(bars, open_rows)


@contextmanager
def _one_voice() -> Iterator[None]:
    """Have only rank 0 of a process group print inside the block."""
    with ExitStack() as stack:
        if rank():
            nothing = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nothing))
            stack.enter_context(redirect_stderr(nothing))
        yield


def _results(rows: Sequence[Row], folder: Path, path: Path | None) -> Results:
    """Return what tells the results of rows: those in ``folder``, or those of the ledger, which takes these up."""
    if path is None:
        return functools.partial(read_result, folder=folder)
    ledger = Ledger(path)
    ledger.take(rows, folder)
    return ledger.read


def _seeds(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, build or print, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m zeroskip.pruning.zoo_build",
        description="build rows of the accuracy tables; finished rows are skipped, a killed run keeps finished stages",
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="names, globs or TOML files (default: the queue)")
    parser.add_argument("--seeds", type=_seeds, metavar="N,N", help="such as 0,1,2 (default: the recipe's own)")
    parser.add_argument("--controls", action="store_true", help="with one-shot, gradual and from-scratch runs of each")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="rows at a time, of different seeds (default: 1)"
    )
    parser.add_argument("--until", type=float, metavar="SECONDS", help="stop after so long; finished stages are kept")
    parser.add_argument("--table", action="store_true",
                        help="print the Markdown tables of what there is with its controls, by default of seeds 0,1,2; "
                        "build nothing")  # fmt: skip
    parser.add_argument("--curves", type=Path, metavar="FILE",
                        help="draw accuracy over density of what there is (.svg, .pdf or .png), by default of seeds "
                        "0,1,2; build nothing")  # fmt: skip
    parser.add_argument("--ledger", type=Path, metavar="FILE",
                        help="with --table and --curves: enter what there is into this file, and show all it "
                        "holds")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("build/zoo"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (default: ZEROSKIP_DATA)")
    parser.add_argument("--checkpoints", type=Path, default=Path("build/checkpoints"), metavar="DIR",
                        help="folder of finished stages (default: %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    shows = options.table or options.curves is not None
    if options.ledger and not shows:
        parser.error("--ledger goes with --table or --curves")
    folders = Folders(options.out, options.checkpoints, options.data)
    try:
        if shows:
            rows = find_rows(options.recipes, options.seeds or TABLE_SEEDS, True)
            results = _results(rows, options.out, options.ledger)
            if options.table:
                print(tables(rows, results))
            if options.curves:
                draw(rows, results, options.curves)
            return 0
        rows = find_rows(options.recipes, options.seeds, options.controls)
        with joined(), _one_voice():
            failures = run_queue(rows, folders, options.jobs, options.until)
            finished = sum(read_result(row, options.out) is not None for row in rows)
            print(f"{finished} of {len(rows)} rows finished", file=sys.stderr)
    except PruningError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return PruningError.exit_code if failures else 0


if __name__ == "__main__":
    sys.exit(main())
