"""CIFAR-10: 10,000 training and 1,000 test images as one ``.npz`` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from zeroskip.pruning.data.npz import Array, LabelledArrays, read_parts
from zeroskip.pruning.data.partition import hold_out
from zeroskip.pruning.data.sets import ImageSet, Split, data_folder

__all__ = ["load_cifar10"]

_FILE = Path("cifar10") / "cifar10_train10k_test1k.npz"


def load_cifar10(folder: Path | str | None = None, validation: int = 1_000, seed: int = 0) -> Split:
    """Load CIFAR-10's first training batch and first 1,000 test images; a stratified part is set apart."""
    train, test = read_parts(data_folder(folder, _FILE) / _FILE, Array("uint8", (None, 3, 32, 32)), classes=10)
    kept, held = hold_out(np.arange(len(train.y)), train.y, validation, seed)
    full = _images(train)
    provenance = (
        "CIFAR-10 (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009), lossless pixels from "
        f"github.com/taneishi/convnetjs: {len(train.y)} images of data_batch_1 and the first {len(test.y)} of the test "
        f"batch. Validation: {validation} training images, stratified by class, seed {seed}. The golden samples hold "
        "16 of its images."
    )
    return Split("cifar10", full.pick(kept), full.pick(held), _images(test), provenance)


def _images(part: LabelledArrays) -> ImageSet:
    return ImageSet(torch.from_numpy(part.x), torch.from_numpy(part.y))
