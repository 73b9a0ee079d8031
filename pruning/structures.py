"""Which structures a recipe prunes to."""

from __future__ import annotations

from zeroskip.pruning.constraints.kinds import as_values
from zeroskip.pruning.gradual import prunes, shape_only, structured
from zeroskip.pruning.recipe import Recipe, Stage

__all__ = ["any_structured", "last_pruning", "structures"]


def last_pruning(recipe: Recipe) -> Stage | None:
    """Return the last stage that makes weights zero."""
    found = [s for s in recipe.stages if any(prunes(rule.constraint()) for rule in s.layers.values())]
    return found[-1] if found else None


def any_structured(recipe: Recipe) -> bool:
    """Return whether the last pruning stage keeps groups of weights in any layer."""
    last = last_pruning(recipe)
    return last is not None and any(structured(rule.constraint()) for rule in last.layers.values())


def structures(recipe: Recipe) -> str:
    """Return the kinds of the last pruning stage's sets, in the order of its layers."""
    last = last_pruning(recipe)
    rules = [] if last is None else [rule.constraint() for rule in last.layers.values()]
    return ", ".join(dict.fromkeys(as_values(shape_only(constraint))["kind"] for constraint in rules))
