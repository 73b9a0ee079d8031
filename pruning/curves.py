"""Accuracy over density as a figure: a panel a network, a line a structure and way of pruning."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zeroskip.pruning.checkpoints import replace_bytes
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.recipe import Method
from zeroskip.pruning.rows import Row
from zeroskip.pruning.structures import last_pruning, structures
from zeroskip.pruning.summary import Results, Runs, by_network, measure

__all__ = ["Line", "curves", "draw"]

_FORMATS = (".svg", ".pdf", ".png")
_UNDATED: Mapping[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Metadata without the date, which would make equal figures unequal files."""
_PANEL_INCHES = (7.0, 5.0)
_STYLES = {Method.ADMM: ("-", "o"), Method.MAGNITUDE: ("--", "s")}
_OTHER_STYLE = (":", "^")
_WAYS = {Method.ADMM: "ADMM", Method.MAGNITUDE: "sum of magnitudes"}


class Line(NamedTuple):
    """Which networks one line joins."""

    structures: str
    method: Method
    bits: int


class Panel(NamedTuple):
    """A network's curves.

    Parameters
    ----------
    lines : densities in percent of the weights, falling, with accuracies
    dense : accuracy of the network that is not pruned, where it has run
    measure : what the accuracies are
    """

    lines: Mapping[Line, list[tuple[float, float]]]
    dense: float | None
    measure: str


def curves(rows: Iterable[Row], results: Results) -> dict[tuple[str, str], Panel]:
    """Return the lines of each network and data set.

    A point is the median of the finished seeds. Lines join recipes of one structure, way of pruning and number of
    weight bits; a layer allocation or power-of-two scales make another network, and stay out, as does a line of one
    point.
    """
    panels: dict[tuple[str, str], Panel] = {}
    for place, found in by_network(rows, results).items():
        lines: dict[Line, list[tuple[float, float]]] = {}
        for runs in found.values():
            if (line := _line(runs)) and runs.own.median is not None and runs.own.rate is not None:
                lines.setdefault(line, []).append((100 / runs.own.rate, runs.own.median))
        joined = {line: sorted(points, reverse=True) for line, points in lines.items() if len(points) > 1}
        if joined:
            medians = [runs.own.median for runs in found.values() if not runs.recipe.stages]
            dense = next((median for median in medians if median is not None), None)
            panels[place] = Panel(joined, dense, measure(found))
    return panels


def _line(runs: Runs) -> Line | None:
    last = last_pruning(runs.recipe)
    if last is None or last.allocation is not None or runs.recipe.quantization.power_of_two:
        return None
    return Line(structures(runs.recipe), last.method, runs.recipe.quantization.weights)


def draw(rows: Iterable[Row], results: Results, path: Path) -> None:
    """Draw the curves of all networks that have some into ``path`` (``.svg``, ``.pdf`` or ``.png``).

    Raises
    ------
    PruningError
        If nothing can be drawn yet, or the file is of another kind.
    """
    if path.suffix not in _FORMATS:
        raise PruningError(f"Figure '{path}' must end in {', '.join(_FORMATS)}")
    rows = list(rows)
    panels = curves(rows, results)
    if not panels:
        raise PruningError(
            "No structure has results at two densities; build more rows, or name others than "
            + ", ".join(list(dict.fromkeys(row.base for row in rows))[:3])
        )
    replace_bytes(path, _figure(panels, path.suffix[1:]))


def _figure(panels: Mapping[tuple[str, str], Panel], form: str) -> bytes:
    # Imported here: it takes a second, and only figures need it.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    content = io.BytesIO()
    # Names inside an SVG are random without a salt.
    with rc_context({"svg.hashsalt": "zeroskip", "svg.fonttype": "none"}):
        figure = Figure(figsize=(_PANEL_INCHES[0], _PANEL_INCHES[1] * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axis, ((network, dataset), panel) in zip(axes, panels.items(), strict=True):
            _panel(axis, panel)
            axis.set_title(f"{network}, {dataset}, integer network")
            axis.set_ylabel(panel.measure)
        figure.savefig(content, format=form, metadata=_UNDATED.get(form))
    return content.getvalue()


def _panel(axis: Any, panel: Panel) -> None:
    """Draw a network's lines: a colour a structure and number of bits, a line style a way of pruning."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    kinds = dict.fromkeys((line.structures, line.bits) for line in panel.lines)
    colours = {kind: f"C{i}" for i, kind in enumerate(kinds)}
    several = len({line.bits for line in panel.lines}) > 1
    for line, points in panel.lines.items():
        style, marker = _STYLES.get(line.method, _OTHER_STYLE)
        label = f"{line.structures}, {_WAYS.get(line.method, line.method.value)}"
        label += f", {line.bits} bits" if several else ""
        axis.plot(
            *zip(*points, strict=True), style, marker=marker, color=colours[line.structures, line.bits], label=label
        )
    if panel.dense is not None:
        axis.axhline(panel.dense, color="0.6", linewidth=1, label="dense")
    axis.set_xscale("log")
    ticks = sorted({round(density, 1) for points in panel.lines.values() for density, _ in points})
    axis.set_xticks(_apart(ticks))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.invert_xaxis()
    axis.set_xlabel("weights kept in %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")


def _apart(values: list[float], ratio: float = 1.3) -> list[float]:
    """Return the rising ``values`` without those too near the one before on a logarithmic axis."""
    kept: list[float] = []
    for value in values:
        if not kept or value >= ratio * kept[-1]:
            kept.append(value)
    return kept
