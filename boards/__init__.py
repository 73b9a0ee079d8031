"""Boards: one declarative file each, and the tool flow from RTL to a checked bitstream."""

from __future__ import annotations

import difflib

from zeroskip.boards.board import Board
from zeroskip.boards.icebreaker import ICEBREAKER
from zeroskip.boards.tangnano9k import TANGNANO9K
from zeroskip.boards.ulx3s_25f import ULX3S_25F
from zeroskip.boards.ulx3s_85f import ULX3S_85F
from zeroskip.compiler.errors import InputError

__all__ = ["BOARDS", "Board", "find_board"]

BOARDS: dict[str, Board] = {board.name: board for board in (ICEBREAKER, TANGNANO9K, ULX3S_25F, ULX3S_85F)}
"""Every known board by name."""


def find_board(name: str) -> Board:
    """Return the board called ``name``.

    Raises
    ------
    InputError
        If there is none; the text lists the names that come nearest, or all of them.
    """
    board = BOARDS.get(name)
    if board is not None:
        return board
    near = difflib.get_close_matches(name.lower(), BOARDS, n=3, cutoff=0.4)
    hint = f"the nearest names are {', '.join(near)}" if near else f"the boards are {', '.join(BOARDS)}"
    raise InputError(f"Board must be a known one, not {name!r}; {hint}")
