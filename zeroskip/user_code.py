"""Run a project's own Python: its images, checked, and its network."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.boards.steps import file_digest
from zeroskip.compiler.errors import InputError
from zeroskip.project import Project

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PARTS", "Images", "code_identity", "load_images", "load_network"]

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Images:
    """One part of the data: ``codes`` uint8 (N, C, H, W) and ``labels`` int64 (N,)."""

    codes: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def digest(self) -> str:
        """Return the sha256 of codes and labels."""
        total = hashlib.sha256(repr(self.codes.shape).encode())
        total.update(np.ascontiguousarray(self.codes).tobytes())
        total.update(self.labels.astype("<i8").tobytes())
        return total.hexdigest()


def code_identity(project: Project) -> dict[str, str]:
    """Return the digests of what the network is made of: all Python files beside its module and the project file.

    And the checkpoint it starts from.

    The data module is left out: what it returns counts.
    """
    data = (project.folder / project.data.module).resolve()
    home = project.folder.resolve()
    folders = {home, (home / project.network.module).resolve().parent}
    files = sorted(path for folder in folders for path in folder.glob("*.py") if path.resolve() != data)
    identity = {f"code {os.path.relpath(path, home)}": file_digest(path) for path in files}
    start = project.network.start
    return identity if start is None else identity | {f"start {start}": file_digest(project.folder / start)}


def load_images(project: Project) -> dict[str, Images]:
    """Return the parts ``train``, ``validation`` and ``test`` of the project's data.

    Raises
    ------
    InputError
        If the module fails or what it returns has a wrong type, shape or range.
    """
    path = project.folder / project.data.module
    with _imports_from(project.folder):
        module = _load(path)
        parts = {part: _checked(path, part, _call(path, module, part), project.quantize.input.range) for part in PARTS}
    shapes = {part: images.codes.shape[1:] for part, images in parts.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{part}() {shape}" for part, shape in shapes.items())
        raise InputError(f"Data file '{path}' must return images of one shape, not {listed}")
    return parts


def load_network(project: Project) -> nn.Module:
    """Return a fresh network; its weights come from torch's random state, or from the checkpoint it starts from.

    Raises
    ------
    InputError
        If the module fails or returns something else.
    PruningError
        If the checkpoint is not one of this network.
    """
    from torch import nn

    from zeroskip.pruning.networks import load_start

    path = project.folder / project.network.module
    with _imports_from(project.folder):
        network = _call(path, _load(path), project.network.factory)
    if not isinstance(network, nn.Module):
        raise InputError(
            f"Function '{project.network.factory}' of '{path}' must return a torch.nn.Module, "
            f"not {type(network).__name__}"
        )
    if project.network.start is not None:
        load_start(network, project.folder / project.network.start)
    return network


@contextlib.contextmanager
def _imports_from(folder: Path) -> Iterator[None]:
    """Let the project's files import each other, always as they are now."""
    folder = folder.resolve()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).parent == folder:
            del sys.modules[name]
    # Without bytecode: its time stamps are too coarse for a file that is edited and built at once.
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.dont_write_bytecode = written
        sys.path.remove(str(folder))


def _load(path: Path) -> ModuleType:
    path = path.resolve()
    name = f"zeroskip_project_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"Module '{path}' must be a Python file ending in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader = spec.loader
    _guarded(path, f"File '{path}'", lambda: loader.exec_module(module))
    return module


def _call(path: Path, module: ModuleType, function: str) -> Any:
    called = getattr(module, function, None)
    if not callable(called):
        raise InputError(f"File '{path}' must define a function '{function}' without parameters; write it")
    return _guarded(path, f"Function '{function}' of '{path}'", called)


def _guarded(path: Path, what: str, run: Callable[[], Any]) -> Any:
    """Run the user's code; an exception in it becomes an error that names its line."""
    try:
        return run()
    except Exception as error:
        if isinstance(error, SyntaxError):
            line = error.lineno
        else:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame.lineno for frame in frames if Path(frame.filename) == path.resolve()]
            line = own[-1] if own else None
        place = f" in line {line}" if line is not None else ""
        kind = type(error).__name__
        raise InputError(f"{what} failed{place}: {kind}: {error}; correct it and build again") from error


def _checked(path: Path, part: str, value: Any, largest: int) -> Images:
    """Return what a data function gave, when it is what it must be."""
    what = f"Function '{part}' of '{path}'"
    if not isinstance(value, tuple) or len(value) != 2:
        raise InputError(f"{what} must return a pair (codes, labels), not {type(value).__name__}")
    codes, labels = (np.asarray(array) for array in value)
    if codes.dtype != np.uint8 or codes.ndim != 4 or not len(codes):
        raise InputError(f"{what} must return uint8 codes of shape (N, C, H, W), not {codes.dtype} {codes.shape}")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or len(labels) != len(codes):
        raise InputError(
            f"{what} must return {len(codes)} integer labels, one an image, not {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0:
        raise InputError(f"{what} must return labels from 0 on, not {labels.min()}")
    if codes.max() > largest:
        raise InputError(
            f"{what} returned the code {codes.max()}, but [quantize] input says range = {largest}; "
            "raise the range or scale the codes"
        )
    return Images(codes, labels.astype(np.int64))
