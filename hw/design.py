"""Compile a model file into a design folder: IR, ROM images, RTL, manifest and the first report."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.emit import program_files
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.geometry import PARAMETERS, Choice, choose_program
from zeroskip.compiler.importers import load_model
from zeroskip.compiler.inspect import describe
from zeroskip.compiler.ir import Model
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.program import Program
from zeroskip.compiler.resources import DEFAULT_LIMITS, Limits
from zeroskip.compiler.target import Engine
from zeroskip.hw.verilog import rtl_files

__all__ = ["SETTINGS", "compile_artifact", "compile_report", "design_files", "parse_settings", "source_digest"]

SETTINGS = (
    "lanes",
    "columns",
    "cores",
    "results",
    "logic_products",
    "banked_vectors",
    "paired_products",
    "sign_adds",
    "index_bits",
    "bitmap",
    "spram",
    "least_storage",
    "parameters",
    "flash_command",
)
"""What ``--set key=value`` may set."""

_FOLDERS = ("sim", "synth", "report", "ir", "rom", "rtl")
"""The folders of a design: what a new compilation replaces."""

_STAGING = ".compile-"

ENGINES = {"dense": Engine.DENSE, "sparse": Engine.SPARSE, "auto": None}


def compile_artifact(
    artifact: Path,
    out: Path,
    *,
    engine: str = "auto",
    limits: Limits | None = None,
    settings: Mapping[str, str] | None = None,
) -> Choice:
    """Compile ``artifact`` into the folder ``out`` and return the program with the reasons for its geometry.

    The folder appears complete or not at all; older reports in it are removed, since they belong to the older design
    (``sim`` and ``synth`` stay: their steps know by content what they are good for). Compiling the same artifact again
    gives the same bytes.

    Raises
    ------
    InputError
        If an option, the artifact or the folder is not usable.
    CompileError, CapacityError
        If a layer cannot be served or the network does not fit ``limits``.
    """
    if engine not in ENGINES:
        raise InputError(f"Engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    numbers = parse_settings(settings or {})
    network = load_model(artifact)
    source, notes = run_passes(network)
    notes = [*network.metadata.get("notes", ()), *notes]
    choice = choose_program(source, ENGINES[engine], limits or DEFAULT_LIMITS, **numbers)
    program = choice.program
    files = {
        **design_files(program, numbers.get("index_bits"), bool(numbers.get("least_storage"))),
        "report/report.json": _json(compile_report(program, network)).encode(),
    }
    original = artifact.read_bytes()
    manifest = {
        "format": "1.0",
        "artifact": {"file": artifact.name, "name": source.name, "sha256": sha256(original).hexdigest()},
        "engine": engine_name(program),
        "config": asdict(program.config.geometry),
        "settings": {key: numbers[key] for key in sorted(numbers)},
        "source": source_digest(),
        "reasons": list(choice.reasons),
        "notes": notes,
        "nodes": list(network.metadata.get("nodes", ())),
        "files": {path: sha256(content).hexdigest() for path, content in sorted(files.items())},
        "versions": {
            "zeroskip": version("zeroskip"),
            "amaranth": version("amaranth"),
            "python": platform.python_version(),
        },
    }
    files["manifest.json"] = _json(manifest).encode()
    _write(out, files, f"model{artifact.suffix.lower()}", original)
    return choice


def design_files(program: Program, index_bits: int | None, least_storage: bool = False) -> dict[str, bytes]:
    """Return by path the files of a design that its simulation reads: images, the program and the RTL."""
    return {
        **program_files(program, index_bits, least_storage),
        **{f"rtl/{name}": text.encode() for name, text in rtl_files(program).items()},
    }


@lru_cache
def source_digest() -> str:
    """Return a digest of the compiler and hardware sources: a design is up to date only for the code that wrote it."""
    total = sha256()
    for package in ("compiler", "hw"):
        folder = Path(str(resources.files(f"zeroskip.{package}")))
        for path in sorted(folder.rglob("*.py")):
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def engine_name(program: Program) -> str:
    """Return the engine that runs the layers with weights: ``dense``, ``sparse`` or ``hybrid``."""
    engines = {plan.format.engine.value for plan in program.layers if plan.layer.weight is not None}
    return engines.pop() if len(engines) == 1 else "hybrid"


def parse_settings(settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of ``--set``: whole numbers, but for ``parameters``.

    Raises
    ------
    InputError
        If a setting is unknown, is no number or clashes with another one.
    """
    numbers: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in SETTINGS:
            raise InputError(f"Setting {key!r} is unknown; known settings: {', '.join(SETTINGS)}")
        if key == "parameters":
            if value not in PARAMETERS:
                raise InputError(f"Setting 'parameters' must be one of {', '.join(PARAMETERS)}, not {value!r}")
            numbers[key] = value
            continue
        try:
            numbers[key] = int(value, 16 if value.lower().startswith("0x") else 10)
        except ValueError:
            raise InputError(f"Setting {key!r} must be a whole number, not {value!r}") from None
    for key in ("columns", "cores", "results", "logic_products", "banked_vectors", "paired_products", "sign_adds"):
        if key in numbers and "lanes" not in numbers:
            raise InputError(f"Setting {key!r} needs 'lanes' as well; add --set lanes=4, 8, 16 or 32")
    for key in ("spram", "least_storage"):
        if numbers.get(key, 0) not in (0, 1):
            raise InputError(f"Setting {key!r} must be 0 or 1, not {numbers[key]}")
    if "flash_command" in numbers and numbers.get("parameters") != "flash":
        raise InputError("Setting 'flash_command' needs 'parameters=flash'; add --set parameters=flash")
    if not 1 <= numbers.get("index_bits", 1) <= 12:
        raise InputError(f"Setting 'index_bits' must be 1 to 12, not {numbers['index_bits']}")
    return numbers


def compile_report(program: Program, network: Model) -> dict[str, Any]:
    """Return the part of ``report.json`` that is known after compiling; what was not measured is null.

    ``macs_dense`` counts the layers of ``network`` as it was imported, before any pass removed channels.
    """
    dense = {row["name"]: row["macs_dense"] for row in describe(network)["layers"]}
    cycles = program_cycles(program)
    metadata = program.model.metadata
    accuracy = metadata.get("accuracy") or {}
    ledgers = [{"name": plan.name, **plan.storage} for plan in program.layers]
    return {
        "model": program.model.name,
        "engine": engine_name(program),
        "geometry": asdict(program.config.geometry),
        "device": None,
        "tools": None,
        "kinds": {"cycles": "estimated", "storage_bits": "counted", "resources": None, "accuracy": "measured"},
        "accuracy": {
            "float": accuracy.get("float"),
            "integer": accuracy.get("integer"),
            "rtl_vectors": None,
            "rtl_mismatches": None,
        },
        "cycles": {
            "total": cycles.total,
            "interval": cycles.interval,
            "load": cycles.load,
            "unload": cycles.unload,
            "stream_bytes": program.model.tensors[program.model.input].size
            + program.model.tensors[program.model.output].size,
            "layers": [
                {
                    "name": plan.name,
                    "engine": plan.format.engine.value,
                    "cycles": None,
                    "model_cycles": layer.cycles,
                    "macs_dense": dense.get(plan.name) or plan.macs_dense,
                    "macs_useful": plan.macs_useful,
                    "lanes": layer.lanes,
                    "utilization": layer.utilization,
                    "slots": dict(layer.slots),
                }
                for plan, layer in zip(program.layers, cycles.layers, strict=True)
            ],
        },
        "storage_bits": {"layers": ledgers, "total": sum(ledger["total"] for ledger in ledgers)},
        "resources": None,
        "fmax_mhz": None,
        "latency_us": None,
        "throughput_per_s": None,
        "link_throughput_per_s": None,
        "netlist_check": None,
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _write(out: Path, files: Mapping[str, bytes], name: str, artifact: bytes) -> None:
    """Write everything beside ``out`` first, then move it in: a reader never sees half a design."""
    foreign = [name for name in _FOLDERS if (out / name).exists()]
    left = list(out.glob(f"{_STAGING}*"))
    ours = left or any((out / path).exists() for path in ("manifest.json", "ir/program.json"))
    if foreign and not ours:
        raise InputError(
            f"Folder '{out}' holds '{foreign[0]}', but no compiled design that could be replaced; "
            f"name another one with --out"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for killed in left:
            shutil.rmtree(killed, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_STAGING, dir=out) as temporary:
            staged = Path(temporary)
            for path, content in files.items():
                target = staged / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            (staged / "ir" / name).write_bytes(artifact)
            for stale in _FOLDERS:
                shutil.rmtree(out / stale, ignore_errors=True)
            (out / "manifest.json").unlink(missing_ok=True)
            for name in ("ir", "rom", "rtl", "report", "manifest.json"):
                (staged / name).replace(out / name)
    except OSError as error:
        raise InputError(f"Folder '{out}' cannot be written: {error.strerror}; name another one with --out") from error
