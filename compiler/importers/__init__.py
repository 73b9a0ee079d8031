"""Readers of model files, one a format, behind one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from zeroskip.compiler.errors import InputError
from zeroskip.compiler.ir import Model

__all__ = ["MODEL_SUFFIXES", "load_model", "stored_model"]

# Suffix -> the module and its function: a format's library is loaded only when a file needs it.
_IMPORTERS: Mapping[str, tuple[str, str]] = {
    ".safetensors": ("artifact", "load_artifact"),
    ".onnx": ("onnx_model", "load_onnx"),
    ".tflite": ("tflite", "load_tflite"),
}
_CHECKPOINTS = (".pt", ".pth", ".th", ".bin", ".ckpt")
MODEL_SUFFIXES = tuple(_IMPORTERS)
"""The suffixes of the files that are read."""


def load_model(path: Path | str) -> Model:
    """Read a model file; its suffix says by which importer.

    Raises
    ------
    InputError
        If the suffix is unknown or the file is refused; the text names file, layer or tensor, and the remedy.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _IMPORTERS:
        remedy = "rename it"
        if suffix in _CHECKPOINTS:
            remedy = "weights alone are no network: name them as start in the project of a 'zeroskip prune'"
        raise InputError(f"Model '{path}' must end in {', '.join(MODEL_SUFFIXES)}, not {path.suffix!r}; {remedy}")
    module, function = _IMPORTERS[suffix]
    reader: Callable[[Path], Model] = getattr(import_module(f"{__name__}.{module}"), function)
    return reader(path)


def stored_model(directory: Path) -> Path:
    """Return the model file that a design folder was compiled from.

    Raises
    ------
    InputError
        If the folder holds none.
    """
    for suffix in MODEL_SUFFIXES:
        path = directory / "ir" / f"model{suffix}"
        if path.is_file():
            return path
    raise InputError(
        f"Folder '{directory}' is no compiled design: {directory / 'ir' / 'model.*'} is missing; "
        "run 'zeroskip compile' first"
    )
