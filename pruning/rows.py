"""Rows of the accuracy tables: a recipe, a seed, and one of its controls; their order, names and results."""

from __future__ import annotations

import fnmatch
import json
import statistics
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zeroskip.pruning.chain import Built
from zeroskip.pruning.checkpoints import replace_bytes
from zeroskip.pruning.controls import controls
from zeroskip.pruning.errors import PruningError, nearest
from zeroskip.pruning.recipe import QUEUE, RECIPES, Recipe, builtin_recipes, load_recipe

__all__ = ["CONTROLS", "Row", "find_rows", "queued_names", "read_result", "table", "write_result"]

CONTROLS = ("oneshot", "gradual", "scratch")


@dataclass(frozen=True)
class Row:
    """One run: ``recipe`` with the row's seed and name, ``base`` the name of the recipe it belongs to."""

    base: str
    control: str | None
    recipe: Recipe

    @property
    def name(self) -> str:
        """Name of the row's files."""
        return self.recipe.name

    def result_path(self, folder: Path) -> Path:
        """Return where the row's result lies, finished or not."""
        return folder / f"{self.name}.json"


def queued_names(path: Path = RECIPES / QUEUE) -> list[str]:
    """Return the recipes in the order in which the queue builds them, each once."""
    names = tomllib.loads(path.read_text(encoding="utf-8"))["order"]
    known = builtin_recipes()
    for name in names:
        if name not in known:
            raise PruningError(f"'{path.name}' names the recipe '{name}', but the nearest are: {nearest(name, known)}")
        if names.count(name) > 1:
            raise PruningError(f"'{path.name}' names the recipe '{name}' more than once")
    return list(names)


def find_rows(patterns: Sequence[str], seeds: Sequence[int] | None, with_controls: bool) -> list[Row]:
    """Return the rows of recipes in the queue's order: recipe by recipe, seed by seed, each with its controls.

    Parameters
    ----------
    patterns : names, globs or TOML files; none: the whole queue. What the queue does not name comes after it
    seeds : None: the recipe's own
    with_controls : with the control recipes of each
    """
    queue, known = queued_names(), list(builtin_recipes())
    chosen: set[str] = set()
    for pattern in patterns or queue:
        matches = fnmatch.filter(known, pattern) or [pattern]
        chosen |= set(matches)
    ordered = [name for name in queue if name in chosen] + sorted(chosen - set(queue))
    rows: list[Row] = []
    for name in ordered:
        recipe = load_recipe(name)
        for seed in (recipe.seed,) if seeds is None else seeds:
            variants = [(None, recipe), *(controls(recipe).items() if with_controls else ())]
            for control, variant in variants:
                suffix = "" if seed == recipe.seed else f"-seed{seed}"
                own = replace(variant, seed=seed, name=f"{variant.name}{suffix}")
                rows.append(Row(recipe.name, control, own))
    return rows


def read_result(row: Row, folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished row, None where there is none of this very recipe."""
    try:
        result = json.loads(row.result_path(folder).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    matches = isinstance(result, dict) and result.get("recipe_sha256") == row.recipe.digest()
    return result if matches else None


def write_result(row: Row, folder: Path, built: Built, figures: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Write and return a row's result: accuracies, validation scores and goals from its log, and the figures."""
    log = built.path.with_name(f"{row.name}.log.jsonl")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    validation = {f"{line['stage']} {line['phase']}": line["validation"] for line in lines if "validation" in line}
    result: dict[str, Any] = {
        "row": row.name,
        "recipe": row.base,
        "control": row.control,
        "seed": row.recipe.seed,
        "recipe_sha256": row.recipe.digest(),
        "artifact": built.path.name,
        "log": log.name,
        "accuracy": built.header["accuracy"],
        "split": built.header["provenance"]["split"],
        "validation": validation,
        "goals": [line for line in lines if line["phase"] == "goal"],
        "epochs": row.recipe.epochs(),
        "seconds": round(seconds, 1),
        **figures,
    }
    replace_bytes(row.result_path(folder), (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    return result


def table(rows: Iterable[Row], folder: Path) -> str:
    """Return the Markdown table of the rows' results: a line a recipe, with the median over the seeds.

    The spread is from the worst to the best seed; the margin over a control is the difference of the medians, in
    points. What no run has reached is "not run".
    """
    found: dict[str, dict[str | None, list[dict[str, Any] | None]]] = {}
    for row in rows:
        found.setdefault(row.base, {}).setdefault(row.control, []).append(read_result(row, folder))
    titles = ["recipe", "weights", "rate", "MACs", "bits", "bits with index", "integer %", "spread", "seeds", "goals"]
    lines = [
        "| " + " | ".join([*titles, *(f"over {control}" for control in CONTROLS)]) + " |",
        "|---" + "|---:" * (len(titles) + len(CONTROLS) - 1) + "|",
    ]
    for base, kinds in found.items():
        cells = [base, *_cells(kinds[None]), *(_margin(kinds, control) for control in CONTROLS)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(results: Sequence[dict[str, Any] | None]) -> list[str]:
    done = [result for result in results if result is not None]
    if not done:
        return ["not run", *[""] * 8]
    shares = [100 * result["accuracy"]["integer"] for result in done]
    figures = [_median(done, key) for key in ("kept", "macs_nonzero", "bits_value", "bits_total")]
    kept, macs, value, total = ("-" if number is None else f"{number:,.0f}" for number in figures)
    dense = done[0].get("weights")
    rate = f"{dense / figures[0]:.1f}x" if dense and figures[0] else "-"
    goals = [goal["met"] for result in done for goal in result["goals"]]
    met = f"{sum(goals)} of {len(goals)}" if goals else "-"
    spread = f"{min(shares):.2f} to {max(shares):.2f}"
    seeds = f"{len(done)} of {len(results)}"
    return [kept, rate, macs, value, total, f"{statistics.median(shares):.2f}", spread, seeds, met]


def _median(results: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [result[key] for result in results if result.get(key) is not None]
    return statistics.median(values) if values else None


def _margin(kinds: Mapping[str | None, Sequence[dict[str, Any] | None]], control: str) -> str:
    """Return the difference of the medians in points; only where both have run."""
    if control not in kinds:
        return "-"
    own, other = (
        [100 * result["accuracy"]["integer"] for result in kinds[kind] if result is not None]
        for kind in (None, control)
    )
    return f"{statistics.median(own) - statistics.median(other):+.2f}" if own and other else "not run"
