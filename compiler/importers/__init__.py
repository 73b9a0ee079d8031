"""Importers: a file of one kind becomes a Model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from zeroskip.compiler.errors import InputError
from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.compiler.ir import Model

__all__ = ["IMPORTERS", "load_model", "stored_model"]


def _load_onnx(path: Path) -> Model:
    # onnx and protobuf are loaded only for files that need them
    from zeroskip.compiler.importers.onnx_model import load_onnx

    return load_onnx(path)


IMPORTERS: Mapping[str, Callable[[Path], Model]] = {
    ".safetensors": load_artifact,
    ".onnx": _load_onnx,
}
"""What reads a file, by its suffix."""


def load_model(path: Path | str) -> Model:
    """Read a network file of any kind that zeroskip knows.

    Raises
    ------
    InputError
        If the suffix is unknown, or the file is refused.
    """
    path = Path(path)
    if path.suffix.lower() not in IMPORTERS:
        raise InputError(f"Model {str(path)!r} must be a file of {', '.join(IMPORTERS)}, not {path.suffix!r}")
    return IMPORTERS[path.suffix.lower()](path)


def stored_model(directory: Path) -> Path:
    """Return the network file inside a compiled folder, ``ir/model.<suffix>``.

    Raises
    ------
    InputError
        If there is none.
    """
    for suffix in IMPORTERS:
        path = directory / "ir" / f"model{suffix}"
        if path.is_file():
            return path
    raise InputError(
        f"Folder '{directory}' is no compiled design: {directory / 'ir' / 'model.safetensors'} is missing; "
        "run 'zeroskip compile' first"
    )
