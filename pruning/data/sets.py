"""What every data set is: samples as integer codes with labels, and their split into parts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.errors import DataError, PruningError

__all__ = ["ImageSet", "Split", "check_validation", "data_folder"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Samples ``x`` as codes and labels ``y`` (N,) int64 from 0 on.

    Images are (N, C, H, W), series (N, C, T); codes are uint8, or int8 where the values have a sign.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.x.dtype not in (torch.uint8, torch.int8) or self.x.dim() not in (3, 4):
            raise PruningError(
                "Samples must be uint8 or int8 of shape (N, C, H, W) or (N, C, T), "
                f"not {self.x.dtype} {tuple(self.x.shape)}; turn floats into codes first"
            )
        if self.y.dim() != 1 or len(self.x) != len(self.y):
            raise PruningError(f"The set has {len(self.x)} samples, but labels of shape {tuple(self.y.shape)}")
        if self.y.dtype != torch.int64:
            raise PruningError(f"Labels must be int64, not {self.y.dtype}; convert them with y.long()")
        if len(self.y) and int(self.y.min()) < 0:
            raise PruningError(f"Labels must be classes from 0 on, but the least is {int(self.y.min())}")

    def __len__(self) -> int:
        return len(self.y)

    def take(self, start: int, stop: int) -> ImageSet:
        """Return the samples ``start`` to ``stop`` (exclusive)."""
        return ImageSet(self.x[start:stop], self.y[start:stop])

    def pick(self, indices: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]]) -> ImageSet:
        """Return the samples at ``indices``, in that order."""
        chosen = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return ImageSet(self.x[chosen], self.y[chosen])

    def digest(self) -> str:
        """Return the sha256 of samples and labels."""
        sign = "" if self.x.dtype == torch.uint8 else "int8"
        h = hashlib.sha256((repr(tuple(self.x.shape)) + sign).encode())
        h.update(self.x.contiguous().numpy().tobytes())
        h.update(self.y.contiguous().numpy().astype("<i8").tobytes())
        return h.hexdigest()


@dataclass(frozen=True, eq=False)
class Split:
    """A data set in its parts: ``train``, ``validation`` (for every choice) and ``test`` (read at the end of a run).

    ``provenance`` says where the samples come from and how they were divided, ``test_use`` how often the test part was
    looked at while the zoo's recipes were made.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    provenance: str
    test_use: str = "read once"


def data_folder(folder: Path | str | None = None, files: Path | str = "the data sets") -> Path:
    """Return the folder of downloaded data sets: ``folder``, else the environment variable ``ZEROSKIP_DATA``.

    ``files`` is what errors say that it must hold.
    """
    chosen = folder or os.environ.get("ZEROSKIP_DATA")
    remedy = f"give --data DIR or set ZEROSKIP_DATA to a folder with {files}"
    if not chosen:
        raise DataError(f"No data folder is known; {remedy}")
    path = Path(chosen)
    if not path.is_dir():
        raise DataError(f"Data folder '{path}' does not exist; {remedy}")
    return path


def check_validation(validation: int, samples: int) -> None:
    """Refuse a validation part that is empty or leaves no sample for training."""
    if not 0 < validation < samples:
        raise PruningError(f"validation must be between 1 and {samples - 1} samples, not {validation!r}")
