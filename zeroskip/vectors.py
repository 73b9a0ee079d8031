"""Input and output arrays of the user: ``.npz`` files of codes or floats, by tensor name."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from zeroskip.compiler.errors import InputError
from zeroskip.compiler.ir import Model, Tensor

__all__ = [
    "check_outputs",
    "read_array",
    "read_arrays",
    "read_inputs",
    "sample_inputs",
    "to_codes",
    "to_floats",
    "write_arrays",
    "write_outputs",
]

RANDOM_SAMPLES = 2
SAMPLE_SEED = 1


def read_inputs(path: Path, tensor: Tensor) -> NDArray[np.int64]:
    """Read the network's input from an ``.npz`` file as codes; a single array may have any name.

    Raises
    ------
    InputError
        If the file is missing, no ``.npz``, has no such array, or its shape, type or range is wrong.
    """
    return to_codes(read_array(path, tensor), tensor, f"File '{path}'")


def read_array(path: Path, tensor: Tensor) -> NDArray[np.generic]:
    """Read the network's input from an ``.npz`` file as it stands there.

    Raises
    ------
    InputError
        If the file is missing, no ``.npz``, or has no such array.
    """
    with _opened(path, f"{tensor.name}=...", "--inputs") as archive:
        names = list(archive.files)
        if tensor.name not in names and len(names) != 1:
            raise InputError(
                f"File '{path}' must hold an array {tensor.name!r}, but it holds {', '.join(names) or 'none'}; "
                f"write it with numpy.savez('{path.stem}.npz', {tensor.name}=...)"
            )
        array: NDArray[np.generic] = archive[tensor.name if tensor.name in names else names[0]]
    return array


def read_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read all arrays of an ``.npz`` file by name.

    Raises
    ------
    InputError
        If the file is missing or no ``.npz``.
    """
    with _opened(path, "**arrays", "--floats") as archive:
        return dict(archive)


@contextmanager
def _opened(path: Path, arrays: str, option: str) -> Iterator[NpzFile]:
    """Open an ``.npz`` archive; ``arrays`` and ``option`` are how the user writes and names it."""
    try:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise InputError(
                f"File '{path}' must be an .npz archive; write it with numpy.savez('{path.stem}.npz', {arrays})"
            )
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except FileNotFoundError:
        raise InputError(f"File '{path}' does not exist; name another one with {option}") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"File '{path}' is not a readable .npz archive of plain arrays ({error}); write it again"
        ) from error


def to_codes(array: NDArray[np.generic], tensor: Tensor, where: str) -> NDArray[np.int64]:
    """Return the codes of ``array``: integers are codes already, floats are quantized by the tensor's scale.

    ``clamp(half_even(x / scale) + zero_point)``, or by the tensor's own boundaries where it has any. The
    first axis is the batch; a missing channel axis of 1 is added, and so is the height of 1 that a sequence has inside
    the network.
    """
    array = _with_axes(array, tensor.shape, where)
    if np.issubdtype(array.dtype, np.integer):
        low, high = int(array.min()), int(array.max())
        if low < tensor.lo or high > tensor.hi:
            raise InputError(
                f"{where} must hold codes from {tensor.lo} to {tensor.hi}, but it has {low} to {high}; "
                f"give floats to have them quantized"
            )
        return array.astype(np.int64)
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{where} must hold finite numbers, but at {index} it has {array[index]}; correct it")
    if tensor.boundaries:
        # the comparison is exact in float64, which holds every float32
        passed = np.searchsorted(np.asarray(tensor.boundaries), array.astype(np.float64), side="right")
        return (passed + tensor.lo).astype(np.int64)
    codes = np.rint(array.astype(np.float64) / tensor.scale) + tensor.zero_point
    return np.clip(codes, tensor.lo, tensor.hi).astype(np.int64)


def to_floats(array: NDArray[np.generic], tensor: Tensor, where: str) -> NDArray[np.float32]:
    """Return floats with the codes of ``array``: floats as they are, of a code its value or the least with that code.

    Shapes are those of :func:`to_codes`, which must accept ``array``.
    """
    array = _with_axes(array, tensor.shape, where)
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    if not tensor.boundaries:
        return ((array.astype(np.int64) - tensor.zero_point) * tensor.scale).astype(np.float32)
    starts = np.asarray(tensor.boundaries, np.float32)
    below = np.nextafter(starts[np.isfinite(starts)][:1], np.float32(-np.inf))
    least = np.concatenate([below, np.where(np.isfinite(starts), starts, below)])
    return least[array.astype(np.int64) - tensor.lo]


def _with_axes(array: NDArray[np.generic], shape: tuple[int, ...], where: str) -> NDArray[Any]:
    """Return a batch of numbers with the axes of ``shape`` behind the first."""
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise InputError(f"{where} must hold integers (codes) or floats, not {array.dtype}")
    if array.ndim == len(shape) and len(shape) == 3 and shape[0] == 1 and array.shape[1:] == shape[1:]:
        array = array[:, None]
    if array.ndim == len(shape) == 3 and shape[1] == 1 and array.shape[1:] == (shape[0], shape[2]):
        array = array[:, :, None]
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
        raise InputError(
            f"{where} must have shape (vectors, {', '.join(map(str, shape))}) with at least one vector, "
            f"not {array.shape}"
        )
    return array


def sample_inputs(model: Model) -> NDArray[np.integer]:
    """Return input codes to try a model on: its golden samples, or a few random ones of a fixed seed."""
    if model.input in model.golden:
        return model.golden[model.input]
    tensor = model.tensors[model.input]
    rng = np.random.default_rng(SAMPLE_SEED)
    return rng.integers(tensor.lo, tensor.hi + 1, (RANDOM_SAMPLES, *tensor.shape))


def check_outputs(path: Path) -> None:
    """Check that ``path`` can be written, before long work starts.

    Raises
    ------
    InputError
        If its folder is missing or read-only, or it is a folder itself.
    """
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"Folder '{folder}' of '{path}' does not exist; make it, or name another file with --outputs")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"File '{path}' cannot be written; name another one with --outputs")


def write_outputs(path: Path, name: str, codes: NDArray[np.generic]) -> None:
    """Write output codes as ``.npz`` under the output tensor's name, complete or not at all."""
    write_arrays(path, {name: codes})


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write arrays as ``.npz`` by their names, complete or not at all."""
    check_outputs(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise InputError(
            f"File '{path}' cannot be written: {error.strerror}; name another one with --outputs"
        ) from error
