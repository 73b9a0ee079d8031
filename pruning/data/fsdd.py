"""Spoken digits (FSDD) as log-mel images: 48 frames x 32 bands, official split or 5-fold cross-validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from zeroskip.pruning.data.npz import Array, read_parts
from zeroskip.pruning.data.partition import FOLDS, divide
from zeroskip.pruning.data.sets import ImageSet, Split, data_folder

__all__ = ["SPEAKERS", "load_fsdd"]

SPEAKERS = 6
_FILE = Path("fsdd") / "fsdd_logmel.npz"


def load_fsdd(folder: Path | str | None = None, validation: int = 300, fold: int | None = None, seed: int = 0) -> Split:
    """Load the Free Spoken Digit Dataset as 1x48x32 images (time, mel band) of codes 0..255.

    Without ``fold`` the test part is the official one (recordings 0 to 4 of each speaker and digit); with it, one of 5
    folds over all recordings. Folds and validation are stratified by digit and speaker.
    """
    shape = Array("uint8", (None, 48, 32))
    train, test = read_parts(data_folder(folder, _FILE) / _FILE, shape, classes=10, extra={"speaker": SPEAKERS})
    labels = np.concatenate([train.y, test.y])
    speakers = np.concatenate([train.extra["speaker"], test.extra["speaker"]])
    strata = labels * SPEAKERS + speakers
    parts = divide(strata, len(train.y), fold, validation, seed)
    if fold is None:
        division = "Test: the official part, recordings 0 to 4 of each speaker and digit."
    else:
        division = f"Test: fold {fold} of {FOLDS} over all recordings, stratified by digit and speaker, seed {seed}."
    full = ImageSet(torch.from_numpy(np.concatenate([train.x, test.x])).unsqueeze(1), torch.from_numpy(labels))
    counts = np.bincount(speakers[parts.test], minlength=SPEAKERS)
    shared = set(speakers[parts.test]) & set(speakers[parts.train])
    provenance = (
        "Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0) as log-mel: "
        f"48 frames x 32 bands, 8 bit. {division} Validation: {validation} training recordings, stratified in the same "
        f"way. Test recordings of speakers 0 to {SPEAKERS - 1}: {', '.join(map(str, counts))}; {len(shared)} of them "
        "also speak in training, so the accuracy is that for known speakers. The golden samples hold 16 recordings."
    )
    return Split("fsdd", full.pick(parts.train), full.pick(parts.validation), full.pick(parts.test), provenance)
