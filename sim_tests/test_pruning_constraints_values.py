"""Sets that fix values: unification, shared values, levels, joint sets; against brute force, and retraining in ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from zeroskip.pruning import (
    NM,
    Block,
    Codebook,
    Column,
    FilterColumn,
    Joint,
    Levels,
    MicroBlock,
    NonStructured,
    Pattern,
    PruningError,
)
from zeroskip.pruning.constraints.ties import Frozen, Tied


def blocks_of(shape, rows, columns):
    """Return the positions (row, column) of every block of a matrix."""
    found = {}
    for r, c in itertools.product(*map(range, shape)):
        found.setdefault((r // rows, c // columns), []).append((r, c))
    return list(found.values())


def block_cost(values, choice):
    """Return the squared distance of pruning (0), unifying (1) or keeping (2) a block."""
    magnitude = np.abs(values)
    return [float((magnitude**2).sum()), float(((magnitude - magnitude.mean()) ** 2).sum()), 0.0][choice]


@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (4, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize(("mode", "keep"), [("unify", 1.0), ("prune", 2), ("both", 1), ("both", 0.5), ("both", 1.0)])
def test_blocks_are_pruned_and_unified_at_the_least_cost(rows, columns, mode, keep):
    rng = np.random.default_rng(1)
    shape = (4, 5)
    blocks = blocks_of(shape, rows, columns)
    rule = MicroBlock(keep, rows, columns, mode)
    count = rule.count(shape)
    for _ in range(4):
        weight = torch.tensor(rng.normal(size=shape))
        pieces = [np.array([weight[at] for at in block]) for block in blocks]
        alive = 2 if mode == "prune" else 1
        wanted = min(
            sum(block_cost(piece, alive if number in kept else 0) for number, piece in enumerate(pieces))
            for kept in map(set, itertools.combinations(range(len(blocks)), count))
        )
        projected = rule.project(weight)
        assert float(((weight - projected) ** 2).sum()) == pytest.approx(wanted)
        if mode != "prune":
            assert all(len({abs(float(projected[at])) for at in block}) == 1 for block in blocks)
            assert bool((projected * weight >= 0).all())


def test_blocks_that_stay_free_follow_the_patents_order_close_to_the_best():
    rng = np.random.default_rng(2)
    blocks = blocks_of((3, 8), 1, 4)
    rule = MicroBlock(4, 1, 4, "both", 2)
    ratios = []
    for _ in range(20):
        weight = torch.tensor(rng.normal(size=(3, 8)))
        pieces = [np.array([weight[at] for at in block]) for block in blocks]
        best = min(
            sum(block_cost(piece, choice) for piece, choice in zip(pieces, choices, strict=True))
            for choices in set(itertools.permutations([0, 0, 1, 1, 2, 2]))
        )
        projected = rule.project(weight)
        counts = [len({abs(float(projected[at])) for at in block}) for block in blocks]
        assert sorted(counts) == [1, 1, 1, 1, 4, 4]
        ratios.append(float(((weight - projected) ** 2).sum()) / best)
    assert min(ratios) >= 1 - 1e-9
    assert np.mean(ratios) < 1.1


def test_the_sign_of_zero_is_positive_and_zero_blocks_stay():
    weight = torch.tensor([[0.0, -4.0, 0.0, 0.0], [0.0, 0.0, 0.0, -0.0]])
    assert MicroBlock().project(weight).tolist() == [[1.0, -1.0, 1.0, 1.0], [0.0] * 4]


@pytest.mark.parametrize(
    ("rule", "structure"),
    [
        (MicroBlock(), {"kind": "micro_block", "keep": 1.0, "size": 4}),
        (MicroBlock(3, 1, 8, "both"), {"kind": "micro_block", "keep": 3, "size": 8}),
        (MicroBlock(3, 4, 4, "both"), {"kind": "micro_block", "keep": 12, "size": 4}),
        (MicroBlock(0.5, 4, 4, "both"), {"kind": "micro_block", "keep": 1.0, "size": 4}),
        (MicroBlock(0.5, mode="prune"), {"kind": "block", "keep": 0.5, "rows": 1, "columns": 4}),
        (MicroBlock(0.5, 4, 1, "both"), {"kind": "block", "keep": 0.5, "rows": 4, "columns": 1}),
        (MicroBlock(0.5, 1, 4, "both", 0.5), {"kind": "block", "keep": 0.5, "rows": 1, "columns": 4}),
        (MicroBlock(rows=4, columns=1), {"kind": "dense"}),
    ],
)
def test_structures_of_micro_blocks(rule, structure):
    assert rule.describe() == structure


def test_codebook_is_a_local_optimum_of_k_values():
    rng = np.random.default_rng(3)
    weight = torch.tensor(rng.normal(size=(20, 30)))
    weight[3] = 0
    for k in (1, 2, 7, 16):
        projected = Codebook(k).project(weight)
        shared = torch.unique(projected[weight != 0])
        assert len(shared) <= k
        assert bool((projected[weight == 0] == 0).all())
        distances = (weight[weight != 0][:, None] - shared).abs()
        assert torch.allclose((weight - projected)[weight != 0].abs(), distances.min(dim=1).values)
        for value in shared:
            assert float(weight[projected == value].mean()) == pytest.approx(float(value), abs=1e-9)


@pytest.mark.parametrize(("k", "values"), [(1, [1.0, -1.0, 1.0, -1.0]), (3, [9.0, -9.0, 0.5, -0.5, 0.5, -0.5])])
def test_codebook_prunes_nothing_where_a_mean_is_zero(k, values):
    weight = torch.tensor([values])
    projected = Codebook(k).project(weight)
    assert (projected != 0).all()
    assert len(projected.unique()) <= k
    assert torch.equal(Codebook(k).project(projected), projected)


def test_codebook_of_two_values_equals_brute_force_on_separated_weights():
    values = np.array([-1.0, -0.9, 0.8, 1.0, 1.1])
    best = min(
        sum(float(((part - part.mean()) ** 2).sum()) for part in (values[:cut], values[cut:])) for cut in range(1, 5)
    )
    weight = torch.tensor(values)
    assert float(((weight - Codebook(2).project(weight)) ** 2).sum()) == pytest.approx(best)


# Levels


def legal_levels(rule):
    """Return the levels of a rule with a scale, without 0."""
    top = {"binary": 1, "ternary": 1, "symmetric": 2 ** (rule.bits - 1) - 1}.get(rule.grid, 2 ** (rule.bits - 1))
    return np.array([level * rule.scale for level in range(-top, top + 1) if level])


@pytest.mark.parametrize(
    "rule",
    [
        Levels(2, 0.5),
        Levels(1, 0.5, "binary"),
        Levels(2, 0.5, "ternary"),
        Levels(3, 0.25, "symmetric"),
        Levels(8, 0.01),
    ],
    ids=str,
)
def test_levels_are_the_nearest_point_and_zeros_stay(rule):
    rng = np.random.default_rng(4)
    weight = torch.tensor(np.append(rng.normal(size=200), [0.0, 0.01, -0.01]))
    projected = rule.project(weight)
    legal = legal_levels(rule)
    if rule.grid in ("ternary", "symmetric"):
        legal = np.append(legal, 0.0)
    for value, got in zip(weight.tolist(), projected.tolist(), strict=True):
        assert abs(value - got) == pytest.approx(np.abs(legal - value).min() if value else 0.0)
        assert got == 0.0 or np.isclose(legal, got).any()
    assert rule.count(weight.shape) == 203


def test_a_scale_that_is_missing_is_searched_and_then_kept():
    weight = torch.randn(40, 40, generator=torch.Generator().manual_seed(1))
    fitted = Levels(4).fit(weight)
    assert fitted.scale is not None
    assert fitted.fit(weight * 3) == fitted
    # The scale of the other grids alternates with the levels in every projection.
    binary = Levels(1, grid="binary")
    assert binary.fit(weight) == binary
    assert torch.allclose(binary.project(weight).abs(), weight.abs().mean())
    for rule in (Levels(4), binary, Levels(2, grid="ternary"), Levels(5, grid="symmetric")):
        projected = rule.project(weight)
        grid, scale = rule.levels_of(projected)
        assert torch.allclose(grid.levels(projected, scale) * scale * (projected != 0), projected, rtol=1e-5)


# Joint sets


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize(
    ("structure", "supports"),
    [
        (NonStructured(3), [[(k,) for k in range(8)], 3]),
        (Column(2), [[(k, k + 4) for k in range(4)], 2]),
        (Block(1, 2, 2), [[(0, 1, 4, 5), (2, 3, 6, 7)], 1]),
        (NM(1, 2), [[(0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,)], None]),
    ],
    ids=str,
)
def test_joint_projection_is_the_nearest_point(structure, supports, bits):
    rng = np.random.default_rng(bits)
    rule = Joint(structure, Levels(bits, 0.7))
    legal = np.append(legal_levels(rule.levels), 0.0)
    groups, count = supports
    for _ in range(25):
        weight = torch.tensor(rng.normal(size=(2, 4)))
        flat = weight.reshape(-1).numpy()
        saved = flat**2 - np.array([np.abs(legal - v).min() ** 2 for v in flat])
        if count is None:
            best = sum(max(saved[first], saved[first + 1]) for first in range(0, 8, 2))
        else:
            best = max(sum(saved[list(g)].sum() for g in chosen) for chosen in itertools.combinations(groups, count))
        projected = rule.project(weight)
        assert float(((weight - projected) ** 2).sum()) == pytest.approx(float((flat**2).sum() - best))
        assert structure.violation(projected) == 0
        assert all(np.isclose(legal, v).any() for v in projected.reshape(-1).tolist())
    assert rule.describe() == structure.describe()


def test_weights_that_gain_nothing_become_zero():
    rule = Joint(NonStructured(1.0), Levels(2, 1.0))
    assert rule.project(torch.tensor([[0.4, 0.5, 0.6, -0.3]])).tolist() == [[0.0, 0.0, 1.0, 0.0]]


def test_joint_sets_choose_library_and_scale_from_what_stays():
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    fitted = Joint(Pattern(0.5), Levels(4)).fit(weight)
    assert fitted.structure == Pattern(0.5).fit(weight)
    assert fitted.levels == Levels(4).fit(fitted.structure.project(weight))
    assert fitted.violation(fitted.project(weight)) == 0
    assert Joint(FilterColumn(4, 9), Levels(4)).count(weight.shape) == 36


# Ties of retraining


def test_tied_weights_share_their_gradient_and_value():
    weight = torch.tensor([[2.0, -2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    ties = MicroBlock().ties(weight)
    gradient = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    ties.gather_(gradient)
    assert gradient.tolist() == [[6.0, -6.0, 6.0, 6.0], [0.0] * 4]
    weight[0] = torch.tensor([1.0, -3.0, 2.5, 2.5])
    ties.hold_(weight)
    assert weight.tolist() == [[2.25, -2.25, 2.25, 2.25], [0.0] * 4]
    assert MicroBlock(0.5, mode="prune").ties(weight) is None


def test_weights_of_a_codebook_move_together():
    weight = torch.tensor([0.5, 0.5, -1.0, 0.0])
    ties = Codebook(2).ties(weight)
    gradient = torch.tensor([1.0, 2.0, 3.0, 4.0])
    ties.gather_(gradient)
    assert gradient.tolist() == [3.0, 3.0, 3.0, 0.0]
    assert isinstance(ties, Tied)


def test_weights_on_levels_are_frozen():
    weight = torch.tensor([0.5, -1.0])
    for ties in (Levels(2, 0.5).ties(weight), Joint(NonStructured(2), Levels(2, 0.5)).ties(weight)):
        assert isinstance(ties, Frozen)
        moved, gradient = weight + 1, torch.ones(2)
        ties.hold_(moved)
        ties.gather_(gradient)
        assert (moved.tolist(), gradient.tolist()) == ([0.5, -1.0], [0.0, 0.0])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: MicroBlock(mode="tie"), "mode must be one of unify, prune, both, not 'tie'"),
        (lambda: MicroBlock(0.5), "mode unify prunes nothing, so keep must be 1.0, not 0.5; use mode both"),
        (lambda: MicroBlock(0.5, mode="prune", unified=2), "mode prune unifies nothing, so unified must be 1.0, not 2"),
        (
            lambda: MicroBlock(2, mode="both", unified=3).project(torch.ones(2, 9)),
            "unified is 3, but the layer has 2 kept",
        ),
        (
            lambda: MicroBlock().project(torch.ones(3)),
            r"MicroBlock needs a weight with two or more axes, not shape \(3,\)",
        ),
        (lambda: Codebook(0), "k must be at least 1, not 0"),
        (lambda: Codebook(256), "k must be at most 255, not 256"),
        (lambda: Codebook(2).levels_of(torch.tensor([1.0, 2.0, 3.0])), "Weights have more than 2 values; project them"),
        (lambda: Levels(4, -1.0), r"scale must be a positive number, not -1\.0"),
        (lambda: Levels(9, 1.0), "Weight bits must be a whole number from 1 to 8, not 9"),
        (
            lambda: Levels(4, grid="signed"),
            "grid must be one of zero_excluded, binary, ternary, symmetric, not 'signed'",
        ),
        (lambda: Levels(2, grid="binary"), "Weight grid 'binary' needs 1 bits, not 2"),
        (lambda: Joint(Levels(2), Levels(2)), "Joint needs a set that prunes .* not Levels and Levels"),
        (lambda: Joint(MicroBlock(), Levels(2)), "Joint needs a set that prunes .* not MicroBlock and Levels"),
    ],
)
def test_refusals(make, text):
    with pytest.raises(PruningError, match=text):
        make()
