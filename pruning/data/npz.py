"""Read arrays from ``.npz`` archives, checked before they are unpacked and never unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from zeroskip.pruning.errors import DataError

__all__ = ["Array", "LabelledArrays", "read_npz", "read_parts"]

# The largest array of the known sets takes 31 MB.
_LIMIT = 1 << 28
_REMEDY = "fetch or make it again as docs/formats.md describes it (Data folder)"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Array:
    """What an array must be: its dtype and its shape, None for any length of at least 1."""

    dtype: str
    shape: tuple[int | None, ...]

    def holds(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Return whether an array of this dtype and shape is one."""
        fits = len(shape) == len(self.shape) and all(
            size == wanted if wanted is not None else size > 0 for size, wanted in zip(shape, self.shape, strict=False)
        )
        return fits and dtype == np.dtype(self.dtype)

    def __str__(self) -> str:
        return f"{self.dtype} of shape ({', '.join('N' if size is None else str(size) for size in self.shape)})"


@dataclass(frozen=True, eq=False)
class LabelledArrays:
    """One part of a set as its file holds it: samples, int64 labels, and further arrays of one entry a sample."""

    x: NDArray[Any]
    y: NDArray[np.int64]
    extra: Mapping[str, NDArray[np.int64]]


def read_npz(path: Path, wanted: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    """Return the arrays ``wanted`` of an archive.

    Raises
    ------
    DataError
        Naming file, array and remedy, if the file is missing or damaged, or an array is missing, of another dtype or
        shape, or larger than 256 MB. Sizes are read from the headers, before anything is unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name, array in wanted.items():
                _check_member(path, archive, name, array)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in wanted}
    except FileNotFoundError:
        raise DataError(f"Data file '{path}' does not exist; {_REMEDY}") from None
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(f"Data file '{path}' cannot be read ({error}); {_REMEDY}") from error


def _check_member(path: Path, archive: zipfile.ZipFile, name: str, wanted: Array) -> None:
    names = archive.namelist()
    if f"{name}.npy" not in names:
        held = ", ".join(sorted(entry.removesuffix(".npy") for entry in names)[:8]) or "nothing"
        raise DataError(f"Data file '{path}' has no array '{name}', it holds {held}; {_REMEDY}")
    with archive.open(f"{name}.npy") as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        start = file.tell()
    if not wanted.holds(dtype, shape):
        raise DataError(f"Data file '{path}' must hold '{name}' as {wanted}, not {dtype} of shape {shape}; {_REMEDY}")
    expected, stored = start + math.prod(shape) * dtype.itemsize, archive.getinfo(f"{name}.npy").file_size
    if max(expected, stored) > _LIMIT:
        raise DataError(f"Data file '{path}' claims {max(expected, stored)} bytes for '{name}', more than {_LIMIT}")
    if stored != expected:
        state = "truncated" if stored < expected else "too long"
        raise DataError(f"Data file '{path}' has a {state} array '{name}': {stored} bytes, not {expected}; {_REMEDY}")


def read_parts(
    path: Path, samples: Array, classes: int, extra: Mapping[str, int] | None = None
) -> tuple[LabelledArrays, LabelledArrays]:
    """Return the training and the test part of ``x_train``, ``y_train``, ``x_test``, ``y_test``, labels checked.

    ``extra`` names further arrays (``<name>_train``, ``<name>_test``, uint8) and how many values each may take.
    """
    limits = {"y": classes, **(extra or {})}
    column = Array("uint8", (None,))
    wanted = {f"x_{part}": samples for part in ("train", "test")}
    wanted |= {f"{name}_{part}": column for name in limits for part in ("train", "test")}
    arrays = read_npz(path, wanted)
    parts = []
    for part in ("train", "test"):
        x = arrays[f"x_{part}"]
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            count = int((~np.isfinite(x)).sum())
            raise DataError(f"Data file '{path}' has {count} values in 'x_{part}' that are not finite; {_REMEDY}")
        columns = {name: arrays[f"{name}_{part}"] for name in limits}
        for name, values in columns.items():
            if len(values) != len(x):
                raise DataError(
                    f"Data file '{path}' has {len(x)} samples in 'x_{part}', but {len(values)} entries in "
                    f"'{name}_{part}'; {_REMEDY}"
                )
            if int(values.max()) >= limits[name]:
                raise DataError(
                    f"Data file '{path}' must hold '{name}_{part}' from 0 to {limits[name] - 1}, not "
                    f"{int(values.max())}; {_REMEDY}"
                )
        wide = {name: values.astype(np.int64) for name, values in columns.items()}
        parts.append(LabelledArrays(x, wide.pop("y"), wide))
    return parts[0], parts[1]
