"""Heartbeats (ECG5000) as signed codes: five classes, or normal beats against all others for an autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zeroskip.pruning.data.npz import Array, read_parts
from zeroskip.pruning.data.partition import FOLDS, Parts, divide
from zeroskip.pruning.data.sets import ImageSet, Split, data_folder
from zeroskip.pruning.errors import DataError

__all__ = ["CODES_PER_UNIT", "NORMAL", "load_ecg", "load_normal_ecg", "series_codes"]

CODES_PER_UNIT = 16
"""Codes of one unit of the series (one standard deviation of a beat): the input scale is 1/16, saturating at 8."""
NORMAL = 0
"""The class of normal beats."""

_FILE = Path("ecg5000") / "ecg5000_500.npz"
_CLASSES = 5


def series_codes(series: NDArray[Any], codes_per_unit: int = CODES_PER_UNIT) -> NDArray[np.int8]:
    """Return ``clamp(half_even(series * codes_per_unit), -128, 127)``, as a host quantizes by the header's scale."""
    codes = np.rint(series.astype(np.float64) * codes_per_unit)
    return np.clip(codes, -128, 127).astype(np.int8)


def load_ecg(folder: Path | str | None = None, validation: int = 70, fold: int | None = None, seed: int = 0) -> Split:
    """Load 500 beats of ECG5000 as series (N, 1, 140), int8 codes of 1/16, in five unbalanced classes.

    Without ``fold`` the test part is that of the file; with it, one of 5 folds over all beats. Folds and validation are
    stratified by class. Train with ``Input(range=16, signed=True)``.
    """
    full, parts, division = _divided(folder, validation, fold, seed)
    provenance = f"{_SOURCE} {division} The golden samples hold 16 beats."
    return Split("ecg5000", full.pick(parts.train), full.pick(parts.validation), full.pick(parts.test), provenance)


def load_normal_ecg(
    folder: Path | str | None = None, validation: int = 70, fold: int | None = None, seed: int = 0
) -> Split:
    """Load the beats of :func:`load_ecg` for anomaly detection: label 0 is normal, 1 is anything else.

    The training part holds normal beats only; validation and test hold both, as the AUC needs them.
    """
    full, parts, division = _divided(folder, validation, fold, seed)
    train = full.pick(parts.train)
    normal = train.pick(np.flatnonzero(train.y.numpy() == NORMAL))
    held, test = (_against_normal(full.pick(part)) for part in (parts.validation, parts.test))
    provenance = (
        f"{_SOURCE} {division} Labels: 0 normal (class {NORMAL}), 1 anything else; the {len(train) - len(normal)} "
        "other beats of the training part are left out. The golden samples hold 16 beats."
    )
    return Split("ecg5000_normal", _against_normal(normal), held, test, provenance)


_SOURCE = (
    "ECG5000 (UCR archive; from PhysioNet BIDMC-CHF, ODC-By 1.0), the 500 beats of its training half, each of mean 0 "
    f"and standard deviation 1, as int8 codes of 1/{CODES_PER_UNIT} (half to even, saturating at 8)."
)


def _divided(folder: Path | str | None, validation: int, fold: int | None, seed: int) -> tuple[ImageSet, Parts, str]:
    """Return all beats, the sample numbers of the parts, and what to say of the division."""
    path = data_folder(folder, _FILE) / _FILE
    train, test = read_parts(path, Array("float32", (None, 140)), classes=_CLASSES)
    labels = np.concatenate([train.y, test.y])
    if not (labels == NORMAL).any() or (labels == NORMAL).all():
        raise DataError(f"Data file '{path}' must hold normal beats (class {NORMAL}) and others; fetch it again")
    parts = divide(labels, len(train.y), fold, validation, seed)
    if fold is None:
        division = f"Test: the file's own part of {len(test.y)}."
    else:
        division = f"Test: fold {fold} of {FOLDS} over all beats, stratified by class, seed {seed}."
    codes = series_codes(np.concatenate([train.x, test.x]))
    full = ImageSet(torch.from_numpy(codes).unsqueeze(1), torch.from_numpy(labels))
    return full, parts, f"{division} Validation: {validation} training beats, stratified by class, seed {seed}."


def _against_normal(part: ImageSet) -> ImageSet:
    return ImageSet(part.x, (part.y != NORMAL).to(torch.int64))
