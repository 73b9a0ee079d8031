"""Rows of the accuracy tables: a recipe, a seed, a fold and one of its controls; their order, names and results."""

from __future__ import annotations

import fnmatch
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zeroskip.pruning.chain import Built
from zeroskip.pruning.checkpoints import replace_bytes
from zeroskip.pruning.controls import controls
from zeroskip.pruning.data import FOLDED, FOLDS
from zeroskip.pruning.errors import PruningError, nearest
from zeroskip.pruning.recipe import Recipe
from zeroskip.pruning.recipe_files import QUEUE, RECIPES, builtin_recipes, load_recipe

__all__ = ["CONTROLS", "Row", "find_rows", "is_result_of", "queued_names", "read_result", "write_result"]

CONTROLS = ("oneshot", "gradual", "scratch")


@dataclass(frozen=True)
class Row:
    """One run: ``recipe`` with the row's seed, fold and name, ``base`` the name of the recipe it belongs to."""

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

    The small sets are judged by cross-validation: such a recipe has a row for every fold, unless it names one itself.

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
            suffix = "" if seed == recipe.seed else f"-seed{seed}"
            for control, variant in variants:
                rows += [
                    Row(
                        recipe.name,
                        control,
                        replace(variant, seed=seed, fold=fold, name=f"{variant.name}{part}{suffix}"),
                    )
                    for part, fold in _folds(recipe)
                ]
    return rows


def _folds(recipe: Recipe) -> list[tuple[str, int | None]]:
    """Return the folds that judge a recipe, each with what it adds to the name of a row."""
    if recipe.dataset not in FOLDED or recipe.fold is not None:
        return [("", recipe.fold)]
    return [(f"-fold{fold}", fold) for fold in range(FOLDS)]


def read_result(row: Row, folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished row, None where there is none of this very recipe."""
    try:
        result = json.loads(row.result_path(folder).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return result if is_result_of(result, row) else None


def is_result_of(result: Any, row: Row) -> bool:
    """Return whether ``result`` is one of this very recipe."""
    return isinstance(result, dict) and result.get("recipe_sha256") == row.recipe.digest()


def write_result(row: Row, folder: Path, built: Built, figures: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Write and return a row's result: accuracies, validation scores, goals and errors from its log, and the figures.

    ``wrong`` are the test samples that a classifier gets wrong, ``squared_errors`` and ``anomalous`` how an autoencoder
    orders them; older logs say none.
    """
    log = built.path.with_name(f"{row.name}.log.jsonl")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    validation = {f"{line['stage']} {line['phase']}": line["validation"] for line in lines if "validation" in line}
    result: dict[str, Any] = {
        "row": row.name,
        "recipe": row.base,
        "control": row.control,
        "seed": row.recipe.seed,
        "fold": row.recipe.fold,
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
    result |= {key: line[key] for line in lines for key in ("wrong", "squared_errors", "anomalous") if key in line}
    replace_bytes(row.result_path(folder), (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    return result
