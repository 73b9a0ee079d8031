"""What the rows of the tables are to reach, as the queue file says it beside the order of the recipes."""

from __future__ import annotations

import dataclasses
import fnmatch
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroskip.pruning.errors import PruningError, nearest
from zeroskip.pruning.recipe_files import QUEUE, RECIPES, builtin_recipes

__all__ = ["Target", "read_targets"]

_LIMITS = {"macs": "MACs", "bits_weights": "bits of weights", "bits_storage": "bits with index"}


@dataclass(frozen=True)
class Target:
    """What a recipe is to reach, all of it in the median of the seeds.

    Parameters
    ----------
    accuracy : at least, in percent (an autoencoder's AUC times 100)
    below_dense : points below the unpruned network at most
    over_scratch : points above control (c), the kept shape trained from scratch, at least
    macs : nonzero MACs at most
    bits_weights, bits_storage : bits of the kept weights, and with their index, at most
    """

    accuracy: float | None = None
    below_dense: float | None = None
    over_scratch: float | None = None
    macs: int | None = None
    bits_weights: int | None = None
    bits_storage: int | None = None

    def checks(
        self, accuracy: float, dense: float | None, margin: float | None, figures: Mapping[str, float | None]
    ) -> dict[str, bool | None]:
        """Return each part of the target as words, and whether it is reached: None where that is not known yet.

        Parameters
        ----------
        accuracy, dense : medians in percent; of the row and of the unpruned network
        margin : in points, over control (c)
        figures : medians by the names of the results' figures
        """
        found: dict[str, bool | None] = {}
        if self.accuracy is not None:
            found[f">= {self.accuracy:.2f}"] = _at_least(accuracy, self.accuracy)
        if self.below_dense is not None:
            least = None if dense is None else dense - self.below_dense
            found[f"dense - {self.below_dense:g}"] = _at_least(accuracy, least)
        if self.over_scratch is not None:
            found[f"scratch + {self.over_scratch:g}"] = _at_least(margin, self.over_scratch)
        for key, words in _LIMITS.items():
            most = getattr(self, key)
            value = figures.get("macs_nonzero" if key == "macs" else key)
            if most is not None:
                found[f"<= {most:,} {words}"] = None if value is None else value <= most
        return found


def _at_least(value: float | None, least: float | None) -> bool | None:
    """Compare percentages to a thousandth of a point: shares of samples are not exact in binary."""
    return None if value is None or least is None else value >= least - 1e-3


def read_targets(path: Path = RECIPES / QUEUE) -> dict[str, Target]:
    """Return the targets by recipe; a name in the file wins over a glob.

    Raises
    ------
    PruningError
        If a target has an unknown key or a value that is no number, or is of no recipe.
    """
    tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")).get("targets", {})
    known = list(builtin_recipes())
    found: dict[str, Target] = {}
    for pattern in sorted(tables, key=lambda pattern: pattern in known):
        names = [pattern] if pattern in known else fnmatch.filter(known, pattern)
        if not names:
            raise PruningError(
                f"'{path.name}' has a target for '{pattern}', which is no recipe; the nearest are: "
                f"{nearest(pattern, known)}"
            )
        found |= dict.fromkeys(names, _target(tables[pattern], f"'{path.name}', targets.{pattern}"))
    return found


def _target(values: Any, where: str) -> Target:
    fields = [field.name for field in dataclasses.fields(Target)]
    if not isinstance(values, dict):
        raise PruningError(f"{where} must be a table, not {values!r}")
    for key, value in values.items():
        if key not in fields:
            raise PruningError(f"{where} has an unknown key '{key}'; the nearest are: {nearest(key, fields)}")
        if type(value) not in (int, float):
            raise PruningError(f"{where}.{key} must be a number, not {value!r}")
    return Target(**values)
