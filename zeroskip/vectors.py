"""Input and output arrays of the user: ``.npz`` files of codes or floats, by tensor name."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import InputError
from zeroskip.compiler.ir import Tensor

__all__ = ["read_inputs", "to_codes", "write_outputs"]


def read_inputs(path: Path, tensor: Tensor) -> NDArray[np.int64]:
    """Read the network's input from an ``.npz`` file; a single array may have any name.

    Raises
    ------
    InputError
        If the file is missing, no ``.npz``, has no such array, or its shape, type or range is wrong.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise InputError(f"File '{path}' must be an .npz archive; write it with numpy.savez({tensor.name}=...)")
            names = list(archive.files)
            if tensor.name not in names and len(names) != 1:
                raise InputError(
                    f"File '{path}' must hold an array {tensor.name!r}, but it holds {', '.join(names) or 'none'}"
                )
            array = archive[tensor.name if tensor.name in names else names[0]]
    except FileNotFoundError:
        raise InputError(f"File '{path}' does not exist") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"File '{path}' is not a readable .npz archive of plain arrays ({error})") from error
    return to_codes(array, tensor, f"File '{path}'")


def to_codes(array: NDArray[np.generic], tensor: Tensor, where: str) -> NDArray[np.int64]:
    """Return the codes of ``array``: integers are codes already, floats are quantized by the tensor's scale.

    ``clamp(half_even(x / scale) + zero_point)``. The first axis is the batch; a missing channel axis of 1 is added.
    """
    shape = tensor.shape
    if array.ndim == len(shape) and len(shape) == 3 and shape[0] == 1 and array.shape[1:] == shape[1:]:
        array = array[:, None]
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
        raise InputError(f"{where} must have shape (vectors, {', '.join(map(str, shape))}), not {array.shape}")
    if np.issubdtype(array.dtype, np.integer):
        low, high = int(array.min()), int(array.max())
        if low < tensor.lo or high > tensor.hi:
            raise InputError(f"{where} must hold codes from {tensor.lo} to {tensor.hi}, but it has {low} to {high}")
        return array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{where} must hold integers or floats, not {array.dtype}")
    if not np.isfinite(array).all():
        raise InputError(f"{where} must hold finite numbers, but it has NaN or infinity")
    codes = np.rint(array.astype(np.float64) / tensor.scale) + tensor.zero_point
    return np.clip(codes, tensor.lo, tensor.hi).astype(np.int64)


def write_outputs(path: Path, name: str, codes: NDArray[np.generic]) -> None:
    """Write output codes as ``.npz`` under the output tensor's name, complete or not at all."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as scratch:
            np.savez(scratch, **{name: codes})  # type: ignore[arg-type]
        Path(scratch.name).replace(path)
    except OSError as error:
        raise InputError(
            f"File '{path}' cannot be written: {error.strerror}; name another one with --outputs"
        ) from error
