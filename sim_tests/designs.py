"""Design folders for the tests: a synthetic model, its artifact, and everything the compiler writes for it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import models
from zeroskip.compiler.ir import Model
from zeroskip.compiler.program import Program
from zeroskip.compiler.target import EngineConfig, Geometry
from zeroskip.hw.design import compile_artifact, design_files

__all__ = ["engine_config", "write_design", "write_program"]


def write_design(model: Model, folder: Path, engine: str, lanes: int, **settings: int | str) -> Program:
    """Write the artifact of ``model`` and compile it into ``folder / "design"``; return the program.

    ``settings`` are the others of ``--set``; a dense array has one column unless they say columns or cores.
    """
    artifact = models.write_artifact(model, folder / "model.safetensors")
    if engine == "dense" and not {"columns", "cores"} & set(settings):
        settings["columns"] = 1
    options = {"lanes": str(lanes), **{key: str(value) for key, value in settings.items()}}
    return compile_artifact(artifact, folder / "design", engine=engine, settings=options).program


def write_program(program: Program, folder: Path) -> None:
    """Write into ``folder / "design"`` what the simulation of ``program`` reads."""
    for path, content in design_files(program, None).items():
        target = folder / "design" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def engine_config(geometry: Geometry, **values: Any) -> EngineConfig:
    """Return the configuration of a block on its own: what ``values`` do not name is 0, False or empty."""
    empty: dict[str, Any] = {"bool": False, "int": 0}
    others = {field.name: empty.get(str(field.type), ()) for field in fields(EngineConfig)}
    return EngineConfig(**{**others, **values, "geometry": geometry})
