"""What a model file or a compiled folder holds, and the list of artifacts that ship with zeroskip."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.table import Table

from zeroskip.compiler.errors import InputError
from zeroskip.compiler.importers import MODEL_SUFFIXES, load_model, stored_model
from zeroskip.compiler.inspect import describe
from zeroskip.report import render

__all__ = ["find_artifact", "inspect_source", "list_zoo", "missed_goals", "zoo_artifact"]


def inspect_source(source: Path) -> tuple[dict[str, Any], str]:
    """Return the description of a model file, a compiled folder or a zoo name, and its text."""
    if source.is_dir():
        path = stored_model(source)
    else:
        path = find_artifact(source)
    content = describe(load_model(path))
    table = Table(title=f"{content['name']}", title_justify="left")
    for title in (
        "layer",
        "kind",
        "output",
        "weights",
        "kept",
        "rate",
        "structure",
        "bits",
        "grid",
        "MACs dense",
        "MACs nonzero",
    ):
        table.add_column(title, justify="left" if title in ("layer", "kind", "structure", "grid") else "right")
    for row in content["layers"]:
        table.add_row(*(_cell(value) for value in _row(row)))
    total, compiled = content["total"], content["compiled"]
    rate = "-" if total["rate"] is None else f"{total['rate']:.1f}x"
    without = []
    if compiled and compiled["kept"] and compiled["kept"] < total["kept"]:
        without.append(
            f"compiled, without constant channels and those that nothing reads: {compiled['kept']:,} kept "
            f"({compiled['rate']:.1f}x), {compiled['macs_nonzero']:,} MACs nonzero"
        )
    lines = [
        (
            f"total: {total['weights']:,} weights, {total['kept']:,} kept ({rate}), "
            f"{total['macs_dense']:,} MACs dense, {total['macs_nonzero']:,} nonzero"
        ),
        *without,
        f"accuracy: {_listed(content.get('accuracy')) or 'not measured'}",
        f"data set: {content.get('dataset') or 'unknown'}, seed {content.get('seed')}",
        *(f"{key}: {_flat(value)}" for key, value in sorted((content.get("provenance") or {}).items())),
        f"versions: {_listed(content.get('versions')) or 'unknown'}",
    ]
    return content, render(table, *lines, width=140)


def _row(row: dict[str, Any]) -> list[Any]:
    structure = row.get("structure")
    kind = structure.get("kind", "") if isinstance(structure, dict) else structure
    shape = row.get("output_shape", row.get("shape"))
    return [
        row["name"],
        row["kind"],
        "x".join(map(str, shape)) if shape else "",
        row.get("weights"),
        row.get("kept"),
        f"{row['rate']:.1f}x" if row.get("rate") else None,
        kind,
        row.get("bits", row.get("weight_bits")),
        row.get("grid"),
        row.get("macs_dense"),
        row.get("macs_nonzero"),
    ]


def _listed(values: dict[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted((values or {}).items()))


def _flat(value: Any) -> str:
    return _listed(value) if isinstance(value, dict) else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _zoo() -> dict[str, Path]:
    folder = Path(str(files("zeroskip.pruning") / "zoo"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def zoo_artifact(name: str) -> Path:
    """Return the path of a zoo artifact by its name."""
    artifacts = _zoo()
    if name not in artifacts:
        raise InputError(
            f"'{name}' is neither a file nor a zoo artifact; the zoo holds: {', '.join(artifacts) or 'nothing'}"
        )
    return artifacts[name]


def find_artifact(source: Path) -> Path:
    """Return ``source`` where it is a file, else the zoo artifact of that name."""
    return source if source.exists() or source.suffix in MODEL_SUFFIXES else zoo_artifact(str(source))


def list_zoo() -> tuple[list[dict[str, Any]], str]:
    """Return name, rate, bits and accuracy of every artifact that ships, and a table of them."""
    table = Table()
    for title in ("artifact", "weights kept", "rate", "MACs nonzero", "integer accuracy", "path"):
        table.add_column(title, justify="left" if title in ("artifact", "path") else "right", overflow="fold")
    rows = []
    for name, path in _zoo().items():
        content = describe(load_model(path))
        total, accuracy = content["total"], content.get("accuracy") or {}
        row = {
            "name": name,
            "kept": total["kept"],
            "rate": total["rate"],
            "macs_nonzero": total["macs_nonzero"],
            "integer": accuracy.get("integer"),
            "path": str(path),
        }
        rows.append(row)
        rate = f"{total['rate']:.1f}x" if total["rate"] else "-"
        integer = "-" if row["integer"] is None else f"{100 * row['integer']:.2f} %"
        table.add_row(name, f"{row['kept']:,}", rate, f"{row['macs_nonzero']:,}", integer, row["path"])
    return rows, render(table, width=160) if rows else "the zoo is empty; make an artifact with: zeroskip prune RECIPE"


def missed_goals(content: Mapping[str, Any]) -> list[str]:
    """Return a line for every ADMM stage of an artifact that ended far from its sets."""
    goals = (content.get("provenance") or {}).get("goals") or {}
    return [f"stage '{stage}': {verdict}" for stage, verdict in goals.items() if verdict != "goals met"]
