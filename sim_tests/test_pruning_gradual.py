"""Sets on their way to their final size: both ends, never less than before, and what has no way."""

from __future__ import annotations

import pytest
import torch

from constraint_sets import EVERY_SET
from zeroskip.pruning import (
    NM,
    BankBalanced,
    Codebook,
    Column,
    FilterColumn,
    Joint,
    Kernel,
    Levels,
    MicroBlock,
    NonStructured,
)
from zeroskip.pruning.gradual import prunes, relaxed, shape_only, structured

SHAPE = (8, 4, 3, 3)


@pytest.mark.parametrize("constraint", [c for c in EVERY_SET if prunes(c)], ids=str)
def test_a_set_shrinks_from_everything_to_itself(constraint):
    torch.manual_seed(0)
    weight = torch.randn(SHAPE)
    fitted = constraint.fit(weight)
    masks = [relaxed(fitted, SHAPE, done).project(weight) != 0 for done in (0.0, 0.25, 0.5, 0.75, 1.0)]
    kept = [int(mask.sum()) for mask in masks]
    assert kept == sorted(kept, reverse=True)
    if not hasattr(shape_only(fitted), "patterns"):
        assert kept[0] == weight.numel()
    assert relaxed(fitted, SHAPE, 1.0).count(SHAPE) == fitted.count(SHAPE)
    # Blocks that get one magnitude are chosen by what that costs, not by their energy.
    if not isinstance(fitted, MicroBlock):
        assert torch.equal(masks[-1], shape_only(fitted).project(weight) != 0)


def test_half_the_time_leaves_an_eighth_of_the_way():
    assert relaxed(NonStructured(8), SHAPE, 0.5).count(SHAPE) == 8 + (288 - 8) // 8
    assert relaxed(Column(4), SHAPE, 0.5) == Column(8)
    assert relaxed(NM(1, 9), SHAPE, 0.5) == NM(2, 9)
    assert relaxed(BankBalanced(4, 1), SHAPE, 0.5) == BankBalanced(4, 2)
    assert relaxed(FilterColumn(0.5, 4), SHAPE, 0.5) == FilterColumn(5, 8)
    assert relaxed(MicroBlock(8, mode="both"), SHAPE, 0.5) == MicroBlock(16, mode="prune")


def test_sets_of_values_have_no_way():
    for constraint in (Levels(4), Codebook(3), MicroBlock()):
        assert not prunes(constraint)
        assert relaxed(constraint, SHAPE, 1.0) is None


def test_what_is_structured():
    assert [structured(c) for c in (Kernel(0.5), MicroBlock(0.5, mode="prune"), Joint(NM(2, 4), Levels(4)))] == [
        True
    ] * 3
    assert not any(structured(c) for c in (NonStructured(0.5), Joint(NonStructured(0.5), Levels(4)), MicroBlock()))
