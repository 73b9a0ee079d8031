"""Bank index: the same number of entries for every ``bank`` consecutive positions (N:M and bank-balanced sparsity).

A code is the position within the bank; there are no escapes. A bank with fewer weights than entries names other
positions of its own, whose weights are 0. A last bank too short for that repeats position 0, which counts once.
"""

from __future__ import annotations

from collections.abc import Sequence

from zeroskip.compiler.errors import CompileError

__all__ = ["encode_row"]


def encode_row(positions: Sequence[int], length: int, bank: int, entries: int) -> list[int]:
    """Encode the kept ``positions`` (ascending) of a row of ``length``, ``entries`` codes a bank.

    Raises
    ------
    CompileError
        If a bank keeps more than ``entries`` positions.
    """
    kept: list[list[int]] = [[] for _ in range(0, length, bank)]
    for position in positions:
        kept[position // bank].append(position % bank)
    codes: list[int] = []
    for number, used in enumerate(kept):
        if len(used) > entries:
            raise CompileError(f"Bank at position {number * bank} has {len(used)} weights, but {entries} are allowed")
        spare = [place for place in range(min(bank, length - number * bank)) if place not in used]
        filled = sorted(used + spare[: entries - len(used)])
        codes += filled + [0] * (entries - len(filled))
    return codes
