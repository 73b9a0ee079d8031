"""Stage checkpoints of a training run: safetensors files named by the content hash of everything that led to them."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from zeroskip.pruning.errors import PruningError, nearest

__all__ = [
    "LATER",
    "OF_RUN",
    "Checkpoints",
    "StageResult",
    "model_tensors",
    "plain_values",
    "replace_bytes",
    "stage_key",
]

_FORMAT = 1
_MODEL, _MASK = "model/", "mask/"

LATER = {"later": True}
"""Metadata of a settings field that came after others were hashed: left out where it has its default."""

OF_RUN = "zeroskip_of_run"
"""Attribute of a network whose weights are a run's: statistics of each channel are part of its first layer already."""


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: a temporary name in the same folder, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def plain_values(settings: Any) -> Any:
    """Return a dataclass of settings (or what one holds) as JSON values.

    Fields marked ``LATER`` are there only where they differ from their default, so old settings keep their hash, by
    which artifacts and checkpoints are known. What has a method ``plain`` says its values itself.
    """
    if hasattr(settings, "plain"):
        return settings.plain()
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        pairs = ((f, getattr(settings, f.name)) for f in dataclasses.fields(settings))
        return {f.name: plain_values(v) for f, v in pairs if not (f.metadata.get("later") and v == f.default)}
    if isinstance(settings, Mapping):
        return {key: plain_values(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [plain_values(value) for value in settings]
    return settings.value if isinstance(settings, enum.Enum) else settings


def model_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the model's tensors of a file that a run left, by their names in the model; none of any other file."""
    return {name.removeprefix(_MODEL): value for name, value in tensors.items() if name.startswith(_MODEL)}


def stage_key(previous: str, settings: Mapping[str, Any]) -> str:
    """Return the content hash of a stage: the key before it and its own settings."""
    text = json.dumps({"previous": previous, "settings": settings, "format": _FORMAT}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves beside the weights.

    Members
    -------
    masks : layer name -> kept weights
    sets : layer name -> constraint set as plain values, with all that it chose from the weights
    log : lines of the stage
    """

    masks: Mapping[str, Tensor]
    sets: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]


class Checkpoints:
    """The finished stages of runs in one folder; ``folder`` None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def path(self, stage: str, key: str) -> Path | None:
        """Return where a stage's file lies, finished or not."""
        return self.folder / f"{stage}-{key[:20]}.safetensors" if self.folder else None

    def save(self, stage: str, key: str, model: nn.Module, result: StageResult) -> None:
        """Write the model's state, the masks, the sets and the stage's log lines."""
        path = self.path(stage, key)
        if path is None:
            return
        tensors = {f"{_MODEL}{name}": value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        tensors |= {f"{_MASK}{name}": mask.to("cpu", torch.uint8).contiguous() for name, mask in result.masks.items()}
        replace_bytes(path, save(tensors, {"key": key, "log": json.dumps(result.log), "sets": json.dumps(result.sets)}))

    def save_good(self, stage: str, kind: str, key: str, state: Mapping[str, Tensor]) -> Path | None:
        """Write the last good state of a phase that diverged; return the file, None where nothing is kept."""
        path = self.path(f"{stage}-{kind}-last-good", key)
        if path is not None:
            replace_bytes(path, save({f"{_MODEL}{name}": value.cpu().contiguous() for name, value in state.items()}))
        return path

    def load(self, stage: str, key: str, model: nn.Module) -> StageResult | None:
        """Restore a finished stage into ``model``; return what else it left, None when it must be run (again).

        Raises
        ------
        PruningError
            If the file is whole, but of another run or network.
        """
        path = self.path(stage, key)
        if path is None or not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError:
            # A damaged checkpoint only costs the stage's time.
            return None
        state = model_tensors(tensors)
        if metadata.get("key") != key:
            raise PruningError(f"Checkpoint '{path}' is of another run than its name says; remove it to train again")
        _check_state(state, model, path)
        model.load_state_dict(state)
        masks = {name.removeprefix(_MASK): value.bool() for name, value in tensors.items() if name.startswith(_MASK)}
        return StageResult(masks, json.loads(metadata.get("sets", "{}")), json.loads(metadata["log"]))


def _check_state(state: Mapping[str, Tensor], model: nn.Module, path: Path) -> None:
    """Refuse the tensors of another network."""
    wanted = model.state_dict()
    for name in sorted(wanted.keys() ^ state.keys()):
        owner, others = ("it has", wanted) if name in state else ("the network has", state)
        raise PruningError(
            f"Checkpoint '{path}' is of another network: {owner} a tensor '{name}', but the other one "
            f"{nearest(name, others)}; remove it or choose another folder"
        )
    for name, value in wanted.items():
        if state[name].shape != value.shape:
            raise PruningError(
                f"Checkpoint '{path}' is of another network: '{name}' has shape {tuple(state[name].shape)}, but the "
                f"network needs {tuple(value.shape)}; remove it or choose another folder"
            )
