"""Data-parallel training under torchrun: shared gradients, and the check that every rank holds the same state."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

# Its functions keep the group of the time of import as a default, and torch imports it with the first optimizer. A
# group kept so outlives destroy_process_group, and its threads sometimes abort the interpreter as it ends.
import torch.distributed.nn  # noqa: F401
from torch import Tensor, nn

from zeroskip.pruning.devices import training_device
from zeroskip.pruning.errors import PruningError

__all__ = ["agree_", "average_", "check_same", "from_first", "joined", "rank", "share", "size"]

_Value = TypeVar("_Value")


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Be in the process group that torchrun describes inside the block; without torchrun there is none."""
    if not dist.is_torchelastic_launched():
        yield
        return
    device = training_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # What is no tensor of a GPU goes through gloo, which is in every build of torch.
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    try:
        yield
        # A rank that leaves early would cut off those that still read from it.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def size() -> int:
    """Return the number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def from_first(value: _Value) -> _Value:
    """Return what rank 0 gave (picklable); the other ranks' values do not count."""
    if size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def agree_(model: nn.Module) -> None:
    """Give the model of every rank the state of rank 0's."""
    if size() > 1:
        model.load_state_dict(from_first({name: value.cpu() for name, value in model.state_dict().items()}))


def share(batch: Tensor) -> Tensor:
    """Return this rank's part of a batch (N, ...) that all ranks hold: N / ranks samples.

    Raises
    ------
    PruningError
        If the ranks cannot have equal parts, whose mean would not be the batch's.
    """
    ranks = size()
    if len(batch) % ranks:
        raise PruningError(f"A batch of {len(batch)} samples has no equal parts for {ranks} ranks; change batch")
    part = len(batch) // ranks
    return batch[rank() * part : (rank() + 1) * part]


def average_(tensors: Sequence[Tensor]) -> None:
    """Replace every tensor by its mean over the ranks, all in one exchange; the result is the same on each."""
    if size() == 1:
        return
    with torch.no_grad():
        flat = torch.cat([values.reshape(-1) for values in tensors])
        dist.all_reduce(flat)
        flat /= size()
        for values, mean in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            values.copy_(mean.view(values.shape))


def check_same(layers: Mapping[str, Mapping[str, Tensor | None]], when: str) -> None:
    """Compare the tensors of every rank by their hashes.

    Parameters
    ----------
    layers : layer name -> name of a tensor (``W``, ``Z``, ...) -> the tensor
    when : what was done last, for the error

    Raises
    ------
    PruningError
        On all ranks, naming the first layer that differs.
    """
    if size() == 1:
        return
    own = [(name, what, _digest(values)) for name, tensors in layers.items() for what, values in tensors.items()]
    found: list[list[tuple[str, str, str]]] = [[] for _ in range(size())]
    dist.all_gather_object(found, own)
    for other, theirs in enumerate(found):
        if [entry[:2] for entry in theirs] != [entry[:2] for entry in found[0]]:
            raise PruningError(
                f"Rank {other} prunes the layers {_names(theirs)}, but rank 0 {_names(found[0])} ({when}); give every "
                "rank the same sets"
            )
        for (name, what, digest), (_, _, first) in zip(theirs, found[0], strict=True):
            if digest != first:
                raise PruningError(
                    f"Layer '{name}' has another {what} on rank {other} than on rank 0 ({when}); start every rank from "
                    "the same weights, as DistributedDataParallel does, and call Admm after the same step on each"
                )


def _digest(values: Tensor | None) -> str:
    """Return the hash of a tensor's bytes in logical order."""
    if values is None:
        return "none"
    flat = values.detach().cpu().reshape(-1).contiguous()
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()


def _names(entries: Iterable[tuple[str, str, str]]) -> list[str]:
    return list(dict.fromkeys(name for name, _, _ in entries))
