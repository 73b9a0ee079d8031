"""The error of the pruning folder whose text is meant for the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["Diverged", "PruningError", "nearest"]


class PruningError(ValueError):
    """A model, recipe, data set or setting given by the user is not usable."""

    exit_code = 2


class Diverged(PruningError):
    """Training ran into a NaN or an infinity."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the names of ``known`` closest to ``name`` as text for an error, all of them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return ", ".join(close or names) or "none"
