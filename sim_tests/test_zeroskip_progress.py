"""Progress: plain lines with step, elapsed and expected time, and a bar on a terminal."""

from __future__ import annotations

import io
import re
import time

import pytest

from zeroskip import progress as module
from zeroskip.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_short_step_is_one_line():
    stream = io.StringIO()
    shown = Progress(2, stream)
    with shown.step("compile", 3):
        pass
    with shown.step("simulate"):
        pass
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\[1/2\] compile \.\.\. 0\.\d s \(expected 3 s\)", first)
    assert re.fullmatch(r"\[2/2\] simulate \.\.\. 0\.\d s", second)


def test_a_long_step_is_announced_and_tells_what_it_does(monkeypatch):
    monkeypatch.setattr(module, "OPENING_SECONDS", 0.01)
    monkeypatch.setattr(module, "DETAIL_SECONDS", 0.0)
    stream = io.StringIO()
    with Progress(9, stream).step("prune", 40) as step:
        time.sleep(0.2)
        step.detail("epoch 1", 60)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/9] prune ... (expected 40 s)"
    assert lines[1] == "      epoch 1, 0 s (expected 60 s)"
    assert lines[2].startswith("[1/9] prune ... 0.") and step.seconds >= 0.2


def test_details_come_at_intervals():
    stream = io.StringIO()
    with Progress(1, stream).step("prune") as step:
        for number in range(100):
            step.detail(f"epoch {number}")
    assert "epoch" not in stream.getvalue()


def test_a_reused_step_says_what_it_took():
    stream = io.StringIO()
    with Progress(1, stream).step("synth", 40) as step:
        step.reuse(41.2)
    assert stream.getvalue() == "[1/1] synth ... unchanged, reused (took 41.2 s)\n"


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_failing_step_is_named_and_its_error_kept(kind):
    stream = kind()
    with pytest.raises(ValueError, match="broken"):
        with Progress(1, stream).step("synth"):
            raise ValueError("broken")
    assert "[1/1] synth ... failed after 0." in stream.getvalue()


def test_a_terminal_gets_a_bar_and_the_same_last_line():
    stream = Terminal()
    shown = Progress(1, stream)
    assert shown.is_terminal
    with shown.step("synth ecp5", 0.3) as step:
        step.detail("routing [seed 1]")
        shown.note("note [x]")
        time.sleep(0.35)
    text = stream.getvalue()
    assert "routing [seed 1]" in text and "note [x]" in text and "━" in text
    assert re.search(r"\[1/1\] synth ecp5 \.\.\. 0\.\d s \(expected 0 s\)", text)


def test_quiet_shows_nothing():
    stream = Terminal()
    shown = Progress(1, stream, quiet=True)
    with shown.step("synth") as step:
        step.detail("routing")
        shown.note("note")
    assert stream.getvalue() == "" and not shown.is_terminal
