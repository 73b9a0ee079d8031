"""Where networks are trained: on a GPU where there is one, with the same bytes for the same inputs on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

__all__ = ["repeatable", "training_device"]


def training_device() -> torch.device:
    """Return the GPU of this process (under torchrun that of its local rank), the processor where there is none.

    ``CUDA_VISIBLE_DEVICES=`` in the environment hides GPUs, as from everything else.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


@contextlib.contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Run torch with ``threads`` threads, and on a GPU with kernels that give the same bytes, inside the block.

    The count of threads is part of what makes a run repeatable. An operation of a GPU without such a kernel warns.
    """
    before = torch.get_num_threads()
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # What cuBLAS needs for sums in the same order; it reads this as it starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(was, warn_only=warned)
