"""Progress of a run of numbered steps: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

__all__ = ["Progress", "Step"]

OPENING_SECONDS = 0.5
"""A step that takes longer is announced before its result."""

DETAIL_SECONDS = 10.0
"""Plain lines tell of what goes on inside a step at most this often."""


class Step:
    """A step that is running."""

    def __init__(self, expected_seconds: float | None, show: Callable[[str], None]) -> None:
        self.expected_seconds = expected_seconds
        self.reused = False
        self.seconds = 0.0
        self._show = show

    def detail(self, text: str, expected_seconds: float | None = None) -> None:
        """Say what goes on inside the step, and how long all of it will take when that is known better now."""
        if expected_seconds is not None:
            self.expected_seconds = expected_seconds
        self._show(text)

    def reuse(self, seconds: float) -> None:
        """Say that the step's result was there already; making it had taken ``seconds``."""
        self.reused = True
        self.seconds = seconds


class Progress:
    """Numbered steps with elapsed and expected time: ``[3/9] synth ecp5 ... 12.4 s (expected 40 s)``.

    Parameters
    ----------
    total_steps : int
    stream : TextIO or None
        Standard error when None.
    quiet : bool
        Show nothing.
    """

    def __init__(self, total_steps: int, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.total_steps = total_steps
        self.started_steps = 0
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._lock = threading.Lock()
        self._bars: Bars | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether a bar is drawn."""
        return not self._quiet and self._stream.isatty()

    @contextlib.contextmanager
    def step(self, name: str, expected_seconds: float | None = None) -> Iterator[Step]:
        """Announce a step, show it while the block runs, and say what it took; a step that fails is named as such."""
        self.started_steps += 1
        head = f"[{self.started_steps}/{self.total_steps}] {name} ..."
        start = time.monotonic()
        try:
            with self._show(head, expected_seconds) as step:
                yield step
        except BaseException:
            self.note(f"{head} failed after {time.monotonic() - start:.1f} s")
            raise
        if not step.reused:
            step.seconds = time.monotonic() - start
        if step.reused:
            self.note(f"{head} unchanged, reused (took {step.seconds:.1f} s)")
        else:
            self.note(f"{head} {step.seconds:.1f} s{_expected(expected_seconds)}")

    def note(self, text: str) -> None:
        """Print a line."""
        if self._quiet:
            return
        with self._lock:
            if self._bars is not None:
                self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=self._stream, flush=True)

    def _show(self, head: str, expected_seconds: float | None) -> contextlib.AbstractContextManager[Step]:
        return self._bar(head, expected_seconds) if self.is_terminal else self._lines(head, expected_seconds)

    @contextlib.contextmanager
    def _bar(self, head: str, expected_seconds: float | None) -> Iterator[Step]:
        bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            _TimeColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=Console(file=self._stream),
            transient=True,
        )
        with bars:
            task = bars.add_task(head, total=expected_seconds, detail="")
            step = Step(expected_seconds, lambda text: bars.update(task, detail=text, total=step.expected_seconds))
            self._bars = bars
            try:
                yield step
            finally:
                self._bars = None

    @contextlib.contextmanager
    def _lines(self, head: str, expected_seconds: float | None) -> Iterator[Step]:
        # A step that is over at once needs one line, not two.
        opening = threading.Timer(OPENING_SECONDS, self.note, [head + _expected(expected_seconds)])
        opening.daemon = True
        opening.start()
        start = last = time.monotonic()

        def show(text: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= DETAIL_SECONDS:
                last = now
                self.note(f"      {text}, {now - start:.0f} s{_expected(step.expected_seconds)}")

        step = Step(expected_seconds, show)
        try:
            yield step
        finally:
            opening.cancel()
            opening.join()


class _TimeColumn(ProgressColumn):
    """A bar of elapsed against expected time with both numbers, or only the elapsed time."""

    max_refresh = 0.2

    def render(self, task: Task) -> Text | ProgressBar:
        elapsed = task.elapsed or 0.0
        if task.total is None:
            return Text(f"{elapsed:.0f} s")
        done = round(20 * min(1.0, elapsed / max(task.total, 0.1)))
        return Text(f"{'━' * done}{'╌' * (20 - done)} {elapsed:.0f} s{_expected(task.total)}")


def _expected(seconds: float | None) -> str:
    return "" if seconds is None else f" (expected {seconds:.0f} s)"
