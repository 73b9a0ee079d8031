"""Every kind of constraint set, for the tests of pruning; all of them fit a weight of shape ``(8, 4, 3, 3)``."""

from __future__ import annotations

from zeroskip.pruning import (
    NM,
    BankBalanced,
    Block,
    Channel,
    Codebook,
    Column,
    Filter,
    FilterColumn,
    Joint,
    Kernel,
    Levels,
    MicroBlock,
    NonStructured,
    Pattern,
    Vector,
)

__all__ = ["EVERY_SET", "LIBRARY", "STRUCTURES", "VALUE_SETS"]

LIBRARY = ((0, 1, 3, 4), (1, 2, 4, 5), (3, 4, 6, 7), (1, 3, 4, 5))

STRUCTURES = (
    NonStructured(0.3),
    Filter(3),
    Channel(0.5),
    Column(10, 1),
    Column(0.4, 4),
    FilterColumn(4, 0.5),
    Kernel(0.4),
    Vector(0.5, "input", 4),
    Vector(20, "output", 3),
    Block(0.3),
    Block(7, 3, 5),
    NM(2, 4),
    NM(1, 5),
    BankBalanced(4, 3),
    BankBalanced(2, 0.25),
    Pattern(0.5, LIBRARY),
)

VALUE_SETS = (
    MicroBlock(),
    MicroBlock(rows=4, columns=1),
    MicroBlock(columns=8),
    MicroBlock(0.5, 4, 4, "both"),
    MicroBlock(0.4, mode="prune"),
    MicroBlock(0.4, columns=16, mode="both"),
    MicroBlock(0.6, 1, 4, "both", 0.5),
    MicroBlock(unified=7),
    Codebook(1),
    Codebook(15),
    Levels(4, 0.05),
    Levels(3),
    Levels(1, grid="binary"),
    Levels(2, grid="ternary"),
    Levels(4, grid="symmetric"),
    Joint(NonStructured(0.3), Levels(4)),
    Joint(Pattern(0.5, LIBRARY), Levels(3, 0.1)),
    Joint(Block(0.3), Levels(2, grid="ternary")),
)

EVERY_SET = STRUCTURES + VALUE_SETS
