"""The error of the pruning folder whose text is meant for the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["DataError", "Diverged", "PruningError", "nearest"]

_LISTED = 12
"""How many names an error lists at most where none is close."""


class PruningError(ValueError):
    """A model, recipe, data set or setting given by the user is not usable."""

    exit_code = 2


class DataError(PruningError):
    """The files of a data set are missing or not what they must be: nothing that reads the set can run."""


class Diverged(PruningError):
    """Training ran into a NaN or an infinity."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the names of ``known`` closest to ``name``, or to whose beginning it is close, as text for an error.

    When none is close, all of them; of many the first ones, with the number of the others.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    close = close or [other for other in names if difflib.get_close_matches(name, [other[: len(name)]])][:3]
    if not close and len(names) > _LISTED:
        return f"{', '.join(names[:_LISTED])} and {len(names) - _LISTED} more"
    return ", ".join(close or names) or "none"
