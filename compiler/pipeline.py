"""The passes from an imported Model to the Model that is lowered, in order."""

from __future__ import annotations

from collections.abc import Callable

from zeroskip.compiler.ir import Model
from zeroskip.compiler.passes.compact_columns import compact_columns
from zeroskip.compiler.passes.compact_filters import compact_filters
from zeroskip.compiler.passes.copy_tensors import copy_tensors
from zeroskip.compiler.passes.fuse_max_pool import fuse_max_pool
from zeroskip.compiler.passes.recognize_structure import recognize_structure
from zeroskip.compiler.verify import verify

__all__ = ["PASSES", "Pass", "run_passes"]

Pass = Callable[[Model, list[str] | None], Model]

PASSES: tuple[Pass, ...] = (
    fuse_max_pool,  # the hardware pools on the accumulators: the unpooled map never takes memory
    compact_filters,  # first to last: a folded constant can make a channel of the next layer constant
    compact_columns,  # last to first, after the constants are folded: their weights no longer count as readers
    recognize_structure,  # after channels are gone: a structure that counts channels keeps them
    copy_tensors,  # last: the copies depend on the readers that are left
)


def run_passes(model: Model) -> tuple[Model, list[str]]:
    """Verify ``model``, run every pass on it, verify each result.

    Returns
    -------
    the Model that is lowered, and one line for everything a pass removed, fused or had to leave

    Raises
    ------
    CompileError
        If the model is not legal.
    """
    verify(model)
    report: list[str] = []
    for transform in PASSES:
        model = transform(model, report)
        verify(model)
    return model, report
