"""Run a cocotb test module in a built simulation, with failures as ordinary exceptions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import cocotb_tools.config
import find_libpython

from zeroskip.boards.verilator_cache import OPTIMIZATION, build_model
from zeroskip.compiler.errors import ToolError

__all__ = ["TIMESCALE", "CocotbFailure", "build_icarus", "build_verilator", "run_cocotb"]

TIMESCALE = ("1ns", "1ps")

_REPORT_LINES = 40


class CocotbFailure(ToolError):
    """A cocotb test failed; the text holds its traceback."""

    exit_code = 1


def build_verilator(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    *,
    verilator_args: Sequence[str] = (),
    waves: bool = False,
    optimization: str = OPTIMIZATION,
    cache: Path | None = None,
    jobs: int | None = None,
) -> Path:
    """Compile Verilog into a program that cocotb drives; see :func:`zeroskip.boards.verilator_cache.build_model`.

    Signals that cocotb reads or writes need ``/*verilator public_flat_rw*/`` or a control file (``.vlt``).
    """
    main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    libraries = cocotb_tools.config.libs_dir
    arguments = ["--vpi", "--timescale", "/".join(TIMESCALE), "-Wno-fatal", "-Wno-lint", *verilator_args]
    if waves:
        arguments.append("--trace-vcd")
    return build_model(
        sources,
        top,
        directory,
        cpp_sources=[Path(main)],
        verilator_args=arguments,
        link_args=[f"-Wl,-rpath,{libraries}", f"-L{libraries}", "-lcocotbvpi_verilator"],
        optimization=optimization,
        cache=cache,
        jobs=jobs,
    )


def build_icarus(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    *,
    parameters: Mapping[str, int] | None = None,
    defines: Sequence[str] = (),
) -> list[str]:
    """Compile Verilog with Icarus and return the command that runs it under cocotb; the last build is replaced.

    Raises
    ------
    ToolError
        If Icarus is missing or fails.
    """
    compiler, runtime = shutil.which("iverilog"), shutil.which("vvp")
    if compiler is None or runtime is None:
        raise ToolError(
            "Icarus Verilog is missing: looked for 'iverilog' and 'vvp' on the PATH; "
            "install it with `apt-get install iverilog`, or use the simulator 'verilator'"
        )
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / f"{top}.vvp"
    with tempfile.TemporaryDirectory(prefix="build-", dir=directory) as scratch:
        built, options = Path(scratch) / program.name, Path(scratch) / "options.f"
        options.write_text(f"+timescale+{'/'.join(TIMESCALE)}\n")
        settings = [f"-P{path}={value}" for path, value in (parameters or {}).items()]
        settings += [f"-D{name}" for name in defines]
        command = [compiler, "-g2012", "-s", top, "-o", str(built), "-f", str(options), *settings, *map(str, sources)]
        result = subprocess.run(command, text=True, errors="replace", capture_output=True)
        if result.returncode != 0:
            raise ToolError(f"Icarus Verilog failed with exit code {result.returncode}\n{result.stderr.strip()}")
        built.replace(program)
    return [runtime, "-m", cocotb_tools.config.lib_entry("vpi", "icarus"), str(program)]


def run_cocotb(
    command: Sequence[str],
    top: str,
    test_module: str,
    results: Path,
    *,
    cwd: Path,
    python_path: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    seed: int = 1,
) -> str:
    """Run a simulation with ``test_module`` in it and return what it printed.

    Parameters
    ----------
    command : the simulation program with its arguments
    top : name of the top module
    test_module : importable name of the cocotb test module
    results : xUnit file that cocotb writes
    cwd : working folder of the simulation (``$readmemh`` paths start there)
    python_path : folders put before this process's own ``sys.path`` inside the simulator
    environment : variables in addition
    seed : cocotb's random seed

    Raises
    ------
    CocotbFailure
        If a test failed.
    ToolError
        If the simulator ended without running a test.
    """
    # Relative entries of sys.path mean another folder once the simulator runs in `cwd`.
    paths = [*map(str, python_path), *(str(Path(entry or ".").resolve()) for entry in sys.path)]
    libpython = find_libpython.find_libpython()
    if libpython is None:
        raise ToolError(f"Python's shared library is missing: cocotb needs it, looked beside '{sys.executable}'")
    variables = {
        **os.environ,
        **(environment or {}),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYGPI_PYTHON_BIN": sys.executable,
        "GPI_USERS": f"{libpython};{cocotb_tools.config.pygpi_entry_point()}",
        "COCOTB_TOPLEVEL": top,
        "COCOTB_TEST_MODULES": test_module,
        "COCOTB_RESULTS_FILE": str(results.resolve()),
        "COCOTB_RANDOM_SEED": str(seed),
        "COCOTB_TRUST_INERTIAL_WRITES": "1",
        "TOPLEVEL_LANG": "verilog",
    }
    results.unlink(missing_ok=True)
    run = subprocess.run(command, cwd=cwd, env=variables, text=True, errors="replace", capture_output=True)
    printed = run.stdout + run.stderr
    tests, failed = _count_tests(results)
    report = "\n".join(printed.strip().splitlines()[-_REPORT_LINES:])
    if failed:
        raise CocotbFailure(f"{failed} of {tests} cocotb tests failed in module '{test_module}'\n{report}")
    if run.returncode != 0 or tests == 0:
        raise ToolError(f"Simulator ended with exit code {run.returncode} after {tests} tests\n{report}")
    return printed


def _count_tests(results: Path) -> tuple[int, int]:
    """Return the number of tests and of failed tests in an xUnit file; none when there is no file."""
    if not results.is_file():
        return 0, 0
    cases = list(ElementTree.parse(results).getroot().iter("testcase"))
    failed = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    return len(cases), failed
