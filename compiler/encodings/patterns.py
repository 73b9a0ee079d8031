"""Pattern id: kernels that keep positions of one of a few shapes, each found by the relative index of its number.

A code holds the gap to the previous kept kernel in its low bits and the number of the shape above them. A kernel takes
the first shape that has all its positions; the others of that shape have weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from zeroskip.compiler.encodings import relative
from zeroskip.compiler.errors import CompileError

__all__ = ["encode_row"]


def encode_row(kernels: Sequence[Sequence[int]], shapes: Sequence[Sequence[int]], gap_bits: int) -> list[int]:
    """Encode the kept positions of each kernel of a row; a kernel without any is skipped.

    Raises
    ------
    CompileError
        If no shape has the positions of a kernel.
    """
    kept = [number for number, used in enumerate(kernels) if used]
    numbers = iter([_choose(number, kernels[number], shapes) for number in kept])
    escape = (1 << gap_bits) - 1
    gaps = relative.encode_row(kept, gap_bits)
    return [gap if gap == escape else gap | next(numbers) << gap_bits for gap in gaps]


def _choose(kernel: int, used: Sequence[int], shapes: Sequence[Sequence[int]]) -> int:
    """Return the number of the first shape that has all positions."""
    for number, shape in enumerate(shapes):
        if set(used) <= set(shape):
            return number
    raise CompileError(f"Kernel {kernel} keeps positions {sorted(used)}, which no pattern has")
