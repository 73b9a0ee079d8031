"""Load published dense weights into a network before it is pruned."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.pruning.errors import PruningError, nearest

__all__ = ["load_start"]

# The largest start, a ResNet-20, takes 1 MB.
_LIMIT = 1 << 28


def load_start(model: nn.Module, path: Path) -> None:
    """Load the float tensors of a PyTorch checkpoint into ``model``, in place.

    The file holds tensors by name, or such a table as ``state_dict``; a leading ``module.`` (of ``DataParallel``) is
    dropped. Only tensors and plain containers are read (``weights_only``), nothing in the file is run.

    Raises
    ------
    PruningError
        Naming file, tensor and remedy, if the file is missing, damaged or of another network.
    """
    values = _tensors(path)
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in values:
            # Counters that older versions of PyTorch did not have change no result.
            if name.endswith("num_batches_tracked"):
                values[name] = tensor
                continue
            raise PruningError(
                f"Checkpoint '{path}' has no tensor '{name}', which the network needs; the nearest are: "
                f"{nearest(name, values)}; choose the checkpoint of this network"
            )
        found = values[name]
        if found.shape != tensor.shape:
            raise PruningError(
                f"Checkpoint '{path}' has '{name}' of shape {tuple(found.shape)}, but the network needs "
                f"{tuple(tensor.shape)}; choose the checkpoint of this network"
            )
        if not bool(torch.isfinite(found).all()):
            raise PruningError(f"Checkpoint '{path}' has values in '{name}' that are not finite; fetch it again")
    for name in values:
        if name not in wanted:
            raise PruningError(
                f"Checkpoint '{path}' has a tensor '{name}', which the network lacks; the nearest are: "
                f"{nearest(name, wanted)}; choose the checkpoint of this network"
            )
    model.load_state_dict(values)


def _tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name."""
    try:
        size = path.stat().st_size
        content: Any = torch.load(path, map_location="cpu", weights_only=True) if size <= _LIMIT else None
    except FileNotFoundError:
        raise PruningError(f"Checkpoint '{path}' does not exist; put it there or leave out 'start'") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PruningError(f"Checkpoint '{path}' cannot be read ({first}); fetch it again") from error
    if size > _LIMIT:
        raise PruningError(f"Checkpoint '{path}' takes {size} bytes, more than {_LIMIT}; check that it is a checkpoint")
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise PruningError(f"Checkpoint '{path}' holds no table of tensors; save the model's state_dict() again")
    return {str(name).removeprefix("module."): value for name, value in content.items()}
