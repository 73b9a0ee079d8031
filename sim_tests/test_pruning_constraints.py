"""Constraint sets: projections against brute force, ties, counts and refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from zeroskip.pruning import Column, Levels, NonStructured, PruningError


def nearest_by_brute_force(weight, supports):
    """Return the least distance from ``weight`` to any tensor supported on one of ``supports``."""
    return min(float(((weight * (1 - s)) ** 2).sum()) for s in supports)


@pytest.mark.parametrize("keep", [1, 3, 7, 0.4, 1.0])
def test_nonstructured_is_the_nearest_point(keep):
    rng = np.random.default_rng(1)
    for _ in range(20):
        weight = torch.tensor(rng.normal(size=(2, 4)))
        rule = NonStructured(keep)
        count = rule.count(weight.shape)
        projected = rule.project(weight)
        supports = []
        for chosen in itertools.combinations(range(8), count):
            support = torch.zeros(8, dtype=torch.float64)
            support[list(chosen)] = 1
            supports.append(support.reshape(2, 4))
        assert float(((weight - projected) ** 2).sum()) == pytest.approx(nearest_by_brute_force(weight, supports))
        assert int((projected != 0).sum()) == count
        assert torch.equal(rule.project(projected), projected)
        assert rule.violation(projected) == 0.0


@pytest.mark.parametrize(("keep", "group"), [(2, 1), (0.5, 1), (1, 2), (2, 3), (1, 4)])
def test_column_is_the_nearest_point(keep, group):
    rng = np.random.default_rng(2)
    for _ in range(20):
        weight = torch.tensor(rng.normal(size=(3, 2, 2, 2)))
        rule = Column(keep, group)
        groups = -(-8 // group)
        count = rule.count(weight.shape)
        supports = []
        for chosen in itertools.combinations(range(groups), count):
            support = torch.zeros(3, 8, dtype=torch.float64)
            for g in chosen:
                support[:, g * group : (g + 1) * group] = 1
            supports.append(support.reshape(3, 2, 2, 2))
        projected = rule.project(weight)
        assert float(((weight - projected) ** 2).sum()) == pytest.approx(nearest_by_brute_force(weight, supports))
        assert torch.equal(rule.project(projected), projected)
        assert rule.violation(projected) == 0.0
        assert rule.violation(weight) > 0.0


def test_levels_are_the_nearest_point_and_zeros_stay():
    weight = torch.tensor([0.0, 0.01, -0.01, 0.24, 0.26, -5.0, 1.49])
    rule = Levels(bits=2, scale=0.5)
    projected = rule.project(weight)
    legal = torch.tensor([-1.0, -0.5, 0.5, 1.0])
    for value, got in zip(weight[1:], projected[1:], strict=True):
        assert abs(float(value - got)) == pytest.approx(float((legal - value).abs().min()))
    assert projected[0] == 0
    assert torch.equal(rule.project(projected), projected)
    assert rule.violation(projected) == 0.0
    assert rule.count(weight.shape) == 7


def test_ties_go_to_the_lower_index():
    weight = torch.tensor([[1.0, -1.0, 1.0], [1.0, 2.0, -1.0]])
    assert NonStructured(3).project(weight).tolist() == [[1.0, -1.0, 0.0], [0.0, 2.0, 0.0]]
    assert Column(1).project(torch.ones(2, 3)).tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def test_memory_layout_does_not_matter():
    weight = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    moved = weight.to(memory_format=torch.channels_last)
    for rule in (NonStructured(0.2), Column(0.3)):
        assert torch.equal(rule.project(weight), rule.project(moved).contiguous())


def test_type_shape_and_gradient():
    weight = torch.nn.Parameter(torch.randn(4, 6, dtype=torch.float64))
    for rule in (NonStructured(0.5), Column(0.5), Levels(4, 0.1)):
        projected = rule.project(weight)
        assert (projected.dtype, projected.shape, projected.requires_grad) == (torch.float64, weight.shape, False)


@pytest.mark.parametrize(("keep", "expected"), [(0.001, 1), (0.25, 3), (0.5, 5), (0.05, 1), (4, 4), (1.0, 10)])
def test_count_rounds_half_up_and_is_at_least_one(keep, expected):
    assert NonStructured(keep).count((2, 5)) == expected


def test_last_group_may_be_shorter():
    rule = Column(keep=3, group=4)
    assert rule.groups((2, 10)) == 3
    assert torch.equal(rule.project(torch.ones(2, 10)), torch.ones(2, 10))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: NonStructured(0.0), r"keep must be a fraction in \(0, 1\] or a whole count, not 0\.0"),
        (lambda: NonStructured(0), r"keep must be a count of at least 1 or a fraction in \(0, 1\], not 0"),
        (lambda: Column(1.5), r"keep must be a fraction in \(0, 1\] or a whole count, not 1\.5"),
        (lambda: Column(0.5, group=0), "group must be at least 1, not 0"),
        (lambda: Levels(4, -1.0), r"scale must be a positive number, not -1\.0"),
        (lambda: Levels(9, 1.0), "Weight bits must be a whole number from 1 to 8, not 9"),
        (lambda: NonStructured(9).count((2, 4)), "keep is 9, but the layer has 8 groups"),
        (lambda: Column(0.5).project(torch.ones(3)), r"Column needs a weight with two or more axes, not shape \(3,\)"),
        (lambda: NonStructured(0.5).project(torch.tensor([1.0, float("nan")])), "Weights must be finite"),
    ],
)
def test_refusals(make, text):
    with pytest.raises(PruningError, match=text):
        make()
