"""Load the weights of others into a network: dense ones before it is pruned, or sparse ones to be quantized."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zeroskip.pruning.checkpoints import OF_RUN, model_tensors
from zeroskip.pruning.errors import PruningError, nearest

__all__ = ["load_start"]

# The largest start, a ResNet-20, takes 1 MB.
_LIMIT = 1 << 28


def load_start(model: nn.Module, path: Path | str) -> None:
    """Load the float tensors of a checkpoint into ``model``, in place; zeros and equal values stay as they are.

    A ``.safetensors`` file, or one of ``torch.save`` that holds tensors by name, or such a table as ``state_dict``. A
    leading ``module.`` (of ``DataParallel``) is dropped, sparse tensors become dense ones, and ``<name>_orig`` with
    ``<name>_mask`` (of ``torch.nn.utils.prune``) their product. Of a run's own files, finished stages and last good
    states, the weights are taken. Only tensors and plain containers are read (``weights_only``), nothing in the file is
    run.

    Raises
    ------
    PruningError
        Naming file, tensor and remedy, if the file is missing, damaged or of another network.
    """
    path = Path(path)
    content = _tensors(path)
    own = model_tensors(content)
    values = _masked({name.removeprefix("module."): value for name, value in (own or content).items()})
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
        values[name] = _fitting(path, name, values[name], tensor)
    for name in values:
        if name not in wanted:
            raise PruningError(
                f"Checkpoint '{path}' has a tensor '{name}', which the network lacks; the nearest are: "
                f"{nearest(name, wanted)}; choose the checkpoint of this network"
            )
    model.load_state_dict(values)
    setattr(model, OF_RUN, bool(own))


def _fitting(path: Path, name: str, found: Tensor, wanted: Tensor) -> Tensor:
    """Return a tensor of the checkpoint as the network takes it."""
    if found.shape != wanted.shape:
        raise PruningError(
            f"Checkpoint '{path}' has '{name}' of shape {tuple(found.shape)}, but the network needs "
            f"{tuple(wanted.shape)}; choose the checkpoint of this network"
        )
    if found.is_floating_point() != wanted.is_floating_point():
        raise PruningError(
            f"Checkpoint '{path}' has '{name}' of type {found.dtype}, but the network needs {wanted.dtype}; save float "
            "weights"
        )
    if found.layout != torch.strided:
        found = found.to_dense()
    if not bool(torch.isfinite(found).all()):
        raise PruningError(f"Checkpoint '{path}' has values in '{name}' that are not finite; fetch it again")
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name."""
    try:
        size = path.stat().st_size
        content: Any = _read(path) if size <= _LIMIT else None
    except FileNotFoundError:
        raise PruningError(f"Checkpoint '{path}' does not exist; put it there or leave out 'start'") from None
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, SafetensorError
    ) as error:  # fmt: skip
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "GLOBAL" in str(error):
            raise PruningError(
                f"Checkpoint '{path}' holds Python objects beside tensors, and nothing in a checkpoint is run; save "
                "the model's state_dict() alone"
            ) from error
        raise PruningError(f"Checkpoint '{path}' cannot be read ({first}); fetch it again") from error
    if size > _LIMIT:
        raise PruningError(f"Checkpoint '{path}' takes {size} bytes, more than {_LIMIT}; check that it is a checkpoint")
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise PruningError(f"Checkpoint '{path}' holds no table of tensors; save the model's state_dict() again")
    return {str(name): value for name, value in content.items()}


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _masked(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with the pairs that ``torch.nn.utils.prune`` leaves multiplied."""
    found = dict(values)
    for name in values:
        stem = name.removesuffix("_orig")
        mask = values.get(f"{stem}_mask")
        if stem != name and mask is not None and mask.shape == values[name].shape:
            found[stem] = found.pop(name) * found.pop(f"{stem}_mask")
    return found
