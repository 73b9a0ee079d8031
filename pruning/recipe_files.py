"""Recipe files: those of the repository by name, a user's by path, and what one takes over from another."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from zeroskip.pruning.errors import PruningError, nearest
from zeroskip.pruning.recipe import Recipe
from zeroskip.pruning.recipe_tables import parse_recipe

__all__ = ["QUEUE", "RECIPES", "builtin_recipes", "load_recipe"]

RECIPES = Path(__file__).parent / "recipes"
QUEUE = "queue.toml"
"""The file beside the recipes that says in which order they are built."""


def builtin_recipes() -> dict[str, Path]:
    """Return the recipes of the repository, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml")) if path.name != QUEUE}


def load_recipe(source: Recipe | Path | str) -> Recipe:
    """Return a recipe given as itself, as the path of a TOML file, or as the name of one in the repository.

    A file with ``extends = "NAME"`` starts from that recipe: its stages come first, its other keys hold where the file
    has none of its own. Recipes with the same first stages train these once.
    """
    if isinstance(source, Recipe):
        return source
    path = builtin_recipes().get(str(source), Path(source))
    return parse_recipe(_file_values(path, str(source), ()), f"recipe '{path.name}'")


def _file_values(path: Path, called: str, children: tuple[Path, ...]) -> dict[str, Any]:
    """Return the values of a recipe file and of those that it extends."""
    known = builtin_recipes()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PruningError(f"Recipe '{called}' does not exist; the nearest are: {nearest(called, known)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PruningError(f"Recipe '{path}' is not valid TOML: {error}") from error
    if "extends" not in values:
        return values
    base = values.pop("extends")
    if not isinstance(base, str) or path in children:
        raise PruningError(f"Recipe '{path}': extends must name another recipe or file, not {base!r}")
    first = _file_values(known.get(base, path.parent / base), base, (*children, path))
    stages = {"stages": [*first.get("stages", []), *values.pop("stages", [])]}
    return first | values | stages
