"""Parameter images in single-port RAM, which starts without content: what moves there, and how words lie in blocks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.program import Program, Rom

__all__ = [
    "SPRAM_BITS",
    "SPRAM_DEPTH",
    "move_roms",
    "parameter_roms",
    "spram_count",
    "spram_grid",
    "spram_roms",
    "spram_words",
]

SPRAM_DEPTH = 16384
"""Words of one block (iCE40 UltraPlus: SB_SPRAM256KA)."""

SPRAM_BITS = 16
"""Bits of its words."""

_PARAMETERS = ("weights", "runs", "index")
"""Formats of the images that may move: one instance and one read port each, and by far the largest."""


def spram_grid(depth: int, word_bits: int) -> tuple[int, int]:
    """Return rows and columns of the blocks that hold an image: rows for its depth, columns for its width."""
    return -(-depth // SPRAM_DEPTH), -(-word_bits // SPRAM_BITS)


def spram_words(words: Sequence[int], word_bits: int) -> list[list[int]]:
    """Return the words of every block of an image, each as many as it holds.

    Row by row, and in a row from the low bits on.
    """
    rows, columns = spram_grid(len(words), word_bits)
    mask = (1 << SPRAM_BITS) - 1
    return [
        [word >> (SPRAM_BITS * column) & mask for word in words[row * SPRAM_DEPTH : (row + 1) * SPRAM_DEPTH]]
        for row in range(rows)
        for column in range(columns)
    ]


def parameter_roms(program: Program) -> list[Rom]:
    """Return the images that may lie in SPRAM: weights and indices."""
    return [rom for rom in program.roms if rom.style != "logic" and rom.format in _PARAMETERS]


def spram_roms(roms: Iterable[Rom]) -> list[Rom]:
    """Return the images that lie in SPRAM, in the order of their blocks: by name."""
    return sorted((rom for rom in roms if rom.style == "spram"), key=lambda rom: rom.name)


def spram_count(roms: Iterable[Rom]) -> int:
    """Return how many blocks of SPRAM the images among ``roms`` take that lie there."""
    return sum(math.prod(spram_grid(rom.depth, rom.word_bits)) for rom in spram_roms(roms))


def move_roms(program: Program, names: Collection[str]) -> Program:
    """Return ``program`` with the images called ``names`` in SPRAM; nothing else depends on where an image lies.

    Raises
    ------
    CompileError
        If an image is none of :func:`parameter_roms`.
    """
    unknown = set(names) - {rom.name for rom in parameter_roms(program)}
    if unknown:
        raise CompileError(f"Program has no image {min(unknown)!r} that SPRAM could hold; compile again")
    return replace(program, roms=tuple(replace(r, style="spram") if r.name in names else r for r in program.roms))
