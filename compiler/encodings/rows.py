"""What the row coders share: the check of a row, and the order, balance and splitting of rows."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["check_row", "imbalance", "sort_rows", "split_rows"]


def check_row(positions: Sequence[int], values: Sequence[int], length: int) -> dict[int, int]:
    """Return the values of a row of ``length`` positions by position.

    Raises
    ------
    ValueError
        If the positions do not ascend or leave the row, or a value is zero.
    """
    if len(positions) != len(values):
        raise ValueError(f"Row has {len(positions)} positions, but {len(values)} values")
    row: dict[int, int] = {}
    previous = -1
    for position, value in zip(positions, values, strict=True):
        if not 0 <= position < length:
            raise ValueError(f"Position must be 0 to {length - 1}, not {position}")
        if position <= previous:
            raise ValueError(f"Positions must ascend, but {position} follows {previous}")
        if value == 0:
            raise ValueError(f"Value at position {position} must be nonzero")
        row[int(position)] = int(value)
        previous = position
    return row


def sort_rows(lengths: Sequence[int], lanes: int) -> list[int]:
    """Return the order in which ``lanes`` lanes in lock step take the rows: longest first, equal ones as they come.

    Rows that all fit one round keep their order: every order costs the same then.
    """
    _check_lanes(lanes)
    if len(lengths) <= lanes:
        return list(range(len(lengths)))
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def imbalance(lengths: Sequence[int], lanes: int) -> float:
    """Return the lane cycles of rows in this order over the useful ones: 1.0 is perfect.

    A round takes ``lanes`` rows and lasts as long as its longest row; idle lanes of the last round count.
    """
    _check_lanes(lanes)
    spent = sum(max(lengths[first : first + lanes]) * lanes for first in range(0, len(lengths), lanes))
    useful = sum(lengths)
    return spent / useful if useful else 1.0


def split_rows(positions: Sequence[int], parts: int) -> list[list[int]]:
    """Split a row into ``parts`` interleaved ones: position ``p`` goes to part ``p % parts`` as ``p // parts``."""
    if parts < 1:
        raise ValueError(f"Parts must be at least 1, not {parts!r}")
    rows: list[list[int]] = [[] for _ in range(parts)]
    for position in positions:
        rows[position % parts].append(position // parts)
    return rows


def _check_lanes(lanes: int) -> None:
    """Refuse fewer than one lane."""
    if lanes < 1:
        raise ValueError(f"Lanes must be at least 1, not {lanes!r}")
