"""Steps of a tool flow that are skipped when nothing they depend on has changed, and that a killed run cannot spoil."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroskip.compiler.errors import InputError

__all__ = ["Progress", "StepRecord", "Steps", "file_digest", "write_atomically"]

Progress = Callable[[str], None]
"""Takes one line of text for the user."""


@dataclass(frozen=True)
class StepRecord:
    """How a step went: ``seconds`` is what it took when it last ran, ``reused`` that this was an earlier call."""

    name: str
    seconds: float
    reused: bool


class Steps:
    """Run the steps of one output folder.

    A step's action writes into a scratch folder inside ``folder``; when it returns, the outputs are renamed to their
    places, and only then is ``<step>.step.json`` written with the identity of the inputs and the digests of the
    outputs. A later call with the same identity and intact outputs does nothing. One process works in a folder at a
    time; within it, steps of different names may run in parallel threads.

    Parameters
    ----------
    folder : Path
        Made when missing.
    total : int
        Number of steps, for the progress lines.
    title : str
        What the progress lines name beside the step, such as the board.
    progress : Progress or None
    resume : bool
        False runs every step anew.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """

    def __init__(
        self, folder: Path, *, total: int, title: str, progress: Progress | None = None, resume: bool = True
    ) -> None:
        self.folder = folder
        self.total = total
        self.title = title
        self.resume = resume
        self._progress = progress
        self._started = 0
        self.records: list[StepRecord] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Folder '{folder}' must be writable: {error.strerror}") from error

    def run(
        self,
        name: str,
        identity: Mapping[str, str],
        outputs: Sequence[str],
        action: Callable[[Path], None],
        *,
        expected_s: float | None = None,
    ) -> StepRecord:
        """Run ``action(scratch)`` unless its result is there; ``outputs`` are file names it leaves in ``scratch``."""
        self._started += 1
        number = f"[{self._started}/{self.total}] {name} {self.title}"
        digest = hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()
        note = self.folder / f"{_file_name(name)}.step.json"
        last = _read_note(note)
        if self.resume and last.get("identity") == digest and _intact(self.folder, last, outputs):
            record = StepRecord(name, float(last["seconds"]), True)
            self._say(f"{number} ... unchanged, reused (took {record.seconds:.1f} s)")
        else:
            expected = last.get("seconds", expected_s)
            self._say(f"{number} ..." + (f" about {expected:.0f} s" if expected is not None else ""))
            record = StepRecord(name, self._execute(name, digest, note, outputs, action), False)
            self._say(f"{number} ... {record.seconds:.1f} s")
        self.records.append(record)
        return record

    def tell(self, name: str, state: str, seconds: float) -> None:
        """Say how far a running step is."""
        self._say(f"      {name} {self.title} ... {state} ({seconds:.0f} s)")

    def _execute(
        self, name: str, digest: str, note: Path, outputs: Sequence[str], action: Callable[[Path], None]
    ) -> float:
        scratch = self.folder / f".partial-{_file_name(name)}"
        shutil.rmtree(scratch, ignore_errors=True)
        note.unlink(missing_ok=True)
        scratch.mkdir()
        start = time.monotonic()
        try:
            action(scratch)
            seconds = round(time.monotonic() - start, 2)
            for output in outputs:
                (scratch / output).replace(self.folder / output)
        finally:
            _keep_log(scratch, self.folder)
            shutil.rmtree(scratch, ignore_errors=True)
        digests = {output: file_digest(self.folder / output) for output in outputs}
        content = {"identity": digest, "outputs": digests, "seconds": seconds}
        write_atomically(note, json.dumps(content, indent=1, sort_keys=True) + "\n")
        return seconds

    def _say(self, line: str) -> None:
        if self._progress is not None:
            self._progress(line)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` under a temporary name first, so that no reader sees half of it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _file_name(step: str) -> str:
    return step.replace(" ", "-")


def _read_note(path: Path) -> dict[str, Any]:
    """Return what an earlier run wrote about a step; nothing where the file is missing or torn."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _intact(folder: Path, note: dict[str, Any], outputs: Sequence[str]) -> bool:
    digests = note.get("outputs", {})
    return set(digests) == set(outputs) and all(
        (folder / output).is_file() and file_digest(folder / output) == digest for output, digest in digests.items()
    )


def _keep_log(scratch: Path, folder: Path) -> None:
    """Move logs with something in them out of the scratch folder: after a failure they are what the user reads next."""
    for log in scratch.glob("*.log"):
        if log.stat().st_size:
            log.replace(folder / log.name)
