"""Reports of compiled designs: terminal tables, comparisons and one self-contained HTML page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from zeroskip.compiler.errors import InputError
from zeroskip.compiler.target import Geometry

if TYPE_CHECKING:
    from zeroskip.api import Design

__all__ = ["Column", "comparison_table", "design_text", "html_page", "render", "result_rows", "write_html"]

WIDTH = 120
STORAGE_KINDS = ("value", "sign", "index", "filler", "row_end", "tap_table", "bias", "requantize", "padding")
RESOURCES = ("lut", "ff", "bram", "dsp", "spram")
"""Cells of a device; most have no SPRAM."""


@dataclass(frozen=True)
class Column:
    """A column of a comparison: ``better`` is ``low``, ``high`` or empty (no winner)."""

    title: str
    key: str
    better: str = ""
    form: str = "{:,}"


def render(*tables: Table | str, width: int = WIDTH) -> str:
    """Return tables and lines as plain text."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False, color_system=None)
    for table in tables:
        console.print(table, markup=False, highlight=False)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def comparison_table(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]], columns: Sequence[Column]) -> Table:
    """Return a table with one row a design and a last row that names the winner of every column that has one.

    A value that was not measured is shown as ``-`` and cannot win; equal values share the win.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("design")
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=column.key != "errors")
    for name, row in rows:
        table.add_row(name, *(_cell(column, row.get(column.key)) for column in columns))
    if len(rows) > 1:
        table.add_section()
        table.add_row("winner", *(_winner(column, rows) for column in columns))
    return table


def _cell(column: Column, value: Any) -> str:
    return "-" if value is None else column.form.format(value)


def _winner(column: Column, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    known = [(row[column.key], name) for name, row in rows if row.get(column.key) is not None]
    if not column.better or not known:
        return ""
    best = min(known)[0] if column.better == "low" else max(known)[0]
    names = [name for value, name in known if value == best]
    return "all" if len(names) == len(rows) else "\n".join(names)


def result_rows(report: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a report into the keys of the comparison tables."""
    storage = report["storage_bits"]
    row: dict[str, Any] = {"storage": storage["total"], "cycles": report["cycles"]["total"]}
    for kind in storage_kinds(report):
        row[kind] = sum(layer[kind] for layer in storage["layers"])
    for name in RESOURCES:
        row[name] = report["resources"][name]["used"] if name in (report["resources"] or {}) else None
    row["fmax"] = report["fmax_mhz"]["median"] if report["fmax_mhz"] else None
    row["latency"] = report["latency_us"]
    row["throughput"] = report["throughput_per_s"]
    useful = sum(layer["macs_useful"] for layer in report["cycles"]["layers"])
    slots = sum(_cycles(layer) * layer["lanes"] for layer in report["cycles"]["layers"])
    row["utilization"] = useful / slots if slots else None
    return row


def _cycles(layer: Mapping[str, Any]) -> int:
    return int(layer["model_cycles"] if layer["cycles"] is None else layer["cycles"])


def layer_table(report: Mapping[str, Any]) -> Table:
    """Return cycles, MACs and utilization of every layer."""
    table = Table(title=f"Layers ({report['kinds']['cycles']} cycles)", title_justify="left")
    for title in ("layer", "engine", "cycles", "MACs dense", "MACs done", "products/cycle", "utilization"):
        table.add_column(title, justify="left" if title in ("layer", "engine") else "right")
    for layer in report["cycles"]["layers"]:
        table.add_row(
            layer["name"],
            layer["engine"],
            f"{_cycles(layer):,}",
            f"{layer['macs_dense']:,}",
            f"{layer['macs_useful']:,}",
            str(layer["lanes"]),
            f"{layer['utilization']:.3f}",
        )
    return table


def storage_table(report: Mapping[str, Any]) -> Table:
    """Return the bit ledger of every layer."""
    table = Table(title="Stored bits (counted)", title_justify="left")
    table.add_column("layer")
    kinds = (*storage_kinds(report), "total", "entropy_bound")
    for kind in kinds:
        table.add_column(kind.replace("_", " "), justify="right")
    for layer in report["storage_bits"]["layers"]:
        table.add_row(layer["name"], *(f"{layer[kind]:,}" for kind in kinds))
    return table


def storage_kinds(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the bit ledger counts: signs only where lanes share multipliers."""
    layers = report["storage_bits"]["layers"]
    return tuple(kind for kind in STORAGE_KINDS if all(kind in layer for layer in layers))


def design_text(design: Design) -> str:
    """Return everything known of a design as text."""
    report = design.report()
    accuracy = report["accuracy"]
    lines: list[Table | str] = [
        f"{report['model']}: {report['engine']} engine, {Geometry(**report['geometry'])}",
        f"accuracy: float {_percent(accuracy['float'])}, integer {_percent(accuracy['integer'])}",
        f"RTL: {_simulation(design, accuracy)}",
        (
            f"cycles: {report['cycles']['total']:,} for one inference, "
            f"{report['cycles']['interval']:,} between results ({report['kinds']['cycles']})"
        ),
        layer_table(report),
        storage_table(report),
    ]
    for board in design.boards():
        lines.append(board_text(board, design.report(board)))
    return render(*lines)


def board_text(board: str, report: Mapping[str, Any]) -> str:
    """Return the resources and clock of a design on a board."""
    if not report["resources"] or not report["fmax_mhz"]:
        return f"{board}: not measured (the netlist was not checked)"
    cells = ", ".join(
        f"{name.upper()} {value['used']:,} of {value['available']:,}"
        for name, value in ((name, report["resources"][name]) for name in RESOURCES if name in report["resources"])
    )
    portable = "; plain Verilog only" if report["resources"].get("primitives") is False else ""
    fmax, check = report["fmax_mhz"], report["netlist_check"]
    kind = "estimated, " if report["kinds"]["fmax_mhz"] == "estimated" else ""
    return (
        f"{board}: {cells}{portable}\n"
        f"  Fmax {fmax['median']:.1f} MHz ({kind}median of {_plural(len(fmax['seeds']), 'seed')}, "
        f"{fmax['min']:.1f} to {fmax['max']:.1f}), latency {report['latency_us']:.1f} us, "
        f"{report['throughput_per_s']:,.0f} inferences/s\n"
        f"  netlist check: {_plural(check['vectors'], 'vector')}, {check['mismatches']:,} values differ"
    )


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.2f} %"


def _simulation(design: Design, accuracy: Mapping[str, Any]) -> str:
    """Return what was simulated; a result of other files than those in the folder is marked."""
    if accuracy["rtl_vectors"] is None:
        return "not simulated"
    edited = "; files were changed since, simulate again" if design.is_edited() else ""
    return f"{_plural(accuracy['rtl_vectors'], 'vector')}, {accuracy['rtl_mismatches']:,} values differ{edited}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def html_page(design: Design) -> str:
    """Return one self-contained HTML page: tables and bars, no scripts, nothing loaded from elsewhere."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(loader=PackageLoader("zeroskip", "html"), autoescape=select_autoescape(["html", "jinja"]))
    report = design.report()
    boards = {name: design.report(name) for name in design.boards()}
    layers = [{**layer, "shown": _cycles(layer)} for layer in report["cycles"]["layers"]]
    most = max((layer["shown"] for layer in layers), default=1)
    return environment.get_template("report.html.jinja").render(
        report=report,
        geometry=Geometry(**report["geometry"]),
        boards=boards,
        layers=layers,
        most_cycles=most,
        simulation=_simulation(design, report["accuracy"]),
        storage_kinds=storage_kinds(report),
        resources=RESOURCES,
        storage=report["storage_bits"],
        most_bits=max((layer["total"] for layer in report["storage_bits"]["layers"]), default=1),
        reasons=design.reasons,
    )


def write_html(design: Design) -> Path:
    """Write ``report/report.html`` and return its path."""
    path = design.directory / "report" / "report.html"
    page = html_page(design)
    scratch = path.with_name(".report.html.new")
    try:
        scratch.write_text(page, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise InputError(f"File '{path}' cannot be written: {error.strerror}; make its folder writable") from error
    return path
