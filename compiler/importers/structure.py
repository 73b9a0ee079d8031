"""Check that a layer's weights have the sparsity structure that the artifact claims."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRUCTURES", "structure_fault"]

STRUCTURES = ("dense", "nonstructured", "column")


def structure_fault(structure: Mapping[str, Any], weight: NDArray[Any]) -> str | None:
    """Return what is wrong with a structure or with weights that do not have it; None when all is well.

    ``keep`` is a count of groups (an integer) or a fraction of them (``max(1, floor(keep * groups + 0.5))``). Groups
    are single weights (``nonstructured``) or ``group`` adjacent columns of the matrix ``[O, I*kh*kw]`` (``column``).

    Parameters
    ----------
    structure : the header's table of one layer
    weight : ndarray[int16], first axis the output channels
    """
    kind, keep, group = structure.get("kind"), structure.get("keep", 1.0), structure.get("group", 1)
    if kind not in STRUCTURES:
        return f"has structure {kind!r}; supported are {', '.join(STRUCTURES)}"
    fraction = type(keep) is float and 0.0 < keep <= 1.0
    if not fraction and not (type(keep) is int and keep >= 1):
        return f"must have a structure whose keep is a fraction above 0 up to 1 or a count of at least 1, not {keep!r}"
    if type(group) is not int or group < 1:
        return f"must have a structure whose group is a count of at least 1, not {group!r}"
    if kind == "dense" or not weight.size:
        return None
    used = np.count_nonzero(weight.reshape(weight.shape[0], -1), axis=0)
    if kind == "column":
        starts = np.arange(0, used.size, min(group, used.size))
        groups, found = len(starts), int(np.count_nonzero(np.add.reduceat(used, starts)))
    else:
        groups, found = int(weight.size), int(used.sum())
    allowed = max(1, math.floor(keep * groups + 0.5)) if fraction else keep
    if found <= allowed:
        return None
    what = "column groups" if kind == "column" else "weights"
    return f"has {found} of {groups} {what} that are not 0, but its structure ({kind}, keep {keep}) allows {allowed}"
