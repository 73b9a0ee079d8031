"""Data sets as integer codes in memory, one module a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zeroskip.pruning.data.cifar10 import load_cifar10
from zeroskip.pruning.data.digits import load_digits
from zeroskip.pruning.data.ecg import load_ecg, load_normal_ecg
from zeroskip.pruning.data.fsdd import load_fsdd
from zeroskip.pruning.data.idx import load_fashion_mnist, load_mnist, read_idx
from zeroskip.pruning.data.partition import FOLDS
from zeroskip.pruning.data.sets import ImageSet, Split, data_folder
from zeroskip.pruning.errors import PruningError

__all__ = [
    "DATA_SETS",
    "FOLDED",
    "FOLDS",
    "ImageSet",
    "Split",
    "data_folder",
    "load",
    "load_cifar10",
    "load_digits",
    "load_ecg",
    "load_fashion_mnist",
    "load_fsdd",
    "load_mnist",
    "load_normal_ecg",
    "read_idx",
]

FOLDED: Mapping[str, Callable[..., Split]] = {
    "ecg5000": load_ecg,
    "ecg5000_normal": load_normal_ecg,
    "fsdd": load_fsdd,
}
"""The small sets, judged by cross-validation over ``FOLDS`` folds."""

DATA_SETS: Mapping[str, Callable[..., Split]] = {
    "cifar10": load_cifar10,
    "fashion_mnist": load_fashion_mnist,
    "mnist": load_mnist,
    **FOLDED,
}
"""The sets that need files, by name; scikit-learn's ``digits`` need none."""


def load(name: str, folder: Path | str | None = None, validation: int | None = None, fold: int | None = None) -> Split:
    """Load the data set ``name`` with ``validation`` samples set apart, or one fold of its cross-validation.

    Parameters
    ----------
    name : ``digits`` or one of ``DATA_SETS``
    folder : of the downloaded sets, instead of ``ZEROSKIP_DATA``
    validation : samples for every choice; default: what the set's loader says
    fold : 0 to 4, for the sets of ``FOLDED``

    Raises
    ------
    PruningError
        Naming what is unknown, or the file that is missing, damaged or of a wrong shape or type.
    """
    if name != "digits" and name not in DATA_SETS:
        raise PruningError(f"Unknown data set '{name}'; known are: {', '.join(sorted([*DATA_SETS, 'digits']))}")
    if fold is not None and name not in FOLDED:
        raise PruningError(f"Data set '{name}' has a test part of its own and no folds; folds have {', '.join(FOLDED)}")
    options: dict[str, Any] = {} if validation is None else {"validation": validation}
    if name == "digits":
        return load_digits(**options)
    if fold is not None:
        options["fold"] = fold
    return DATA_SETS[name](folder, **options)
