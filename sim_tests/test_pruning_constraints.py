"""Structures: projections against brute force, the importer's reading of them, ties, counts and refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_sets import EVERY_SET, LIBRARY, STRUCTURES
from zeroskip.compiler.importers.structure import structure_fault
from zeroskip.pruning import (
    NM,
    BankBalanced,
    Block,
    Channel,
    Column,
    Filter,
    FilterColumn,
    Kernel,
    NonStructured,
    Pattern,
    PruningError,
    Vector,
)
from zeroskip.pruning.constraints.kinds import as_values, from_values

# A set and, for every weight at (output, input, position, column of the matrix), the group it belongs to.
GROUPED = (
    (NonStructured(3), lambda o, i, p, c: (o, c)),
    (NonStructured(0.4), lambda o, i, p, c: (o, c)),
    (Filter(2), lambda o, i, p, c: o),
    (Channel(2), lambda o, i, p, c: i),
    (Column(2), lambda o, i, p, c: c),
    (Column(0.5, 2), lambda o, i, p, c: c // 2),
    (Column(1, 4), lambda o, i, p, c: c // 4),
    (Kernel(4), lambda o, i, p, c: (o, i)),
    (Vector(3, "input", 2), lambda o, i, p, c: (o, i // 2, p)),
    (Vector(0.5, "input", 4), lambda o, i, p, c: (o, i // 4, p)),
    (Vector(3, "output", 2), lambda o, i, p, c: (o // 2, i, p)),
    (Block(2, 2, 2), lambda o, i, p, c: (o // 2, c // 2)),
    (Block(1), lambda o, i, p, c: (o // 4, c // 4)),
    (Block(2, 1, 4), lambda o, i, p, c: (o, c // 4)),
)
SHAPES = ((3, 3, 1, 2), (3, 6), (3, 2, 3), (4, 3))


def drawn(rng, shape):
    """Return weights that often have equal magnitudes and zeros."""
    return torch.tensor(rng.choice([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0], size=shape) if rng.random() < 0.5
                        else rng.normal(size=shape))  # fmt: skip


def group_energies(weight, key):
    """Return the energy of every group."""
    o_count, i_count = weight.shape[:2]
    flat = weight.reshape(o_count, i_count, -1).numpy()
    energies = {}
    for o, i, p in itertools.product(*map(range, flat.shape)):
        group = key(o, i, p, i * flat.shape[2] + p)
        energies[group] = energies.get(group, 0.0) + float(flat[o, i, p]) ** 2
    return energies


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("constraint", "key"), GROUPED, ids=lambda v: str(v) if not callable(v) else "")
def test_groups_that_stay_have_the_most_energy_of_all_choices(constraint, key, shape):
    rng = np.random.default_rng(1)
    for _ in range(6):
        weight = drawn(rng, shape)
        energies = group_energies(weight, key)
        wanted = constraint.keep
        count = wanted if isinstance(wanted, int) else max(1, int(wanted * len(energies) + 0.5))
        assert constraint.count(shape) == count
        kept = max(sum(chosen) for chosen in itertools.combinations(energies.values(), count))
        projected = constraint.project(weight)
        assert float((projected**2).sum()) == pytest.approx(kept)
        assert len([e for e in group_energies(projected, key).values() if e]) <= count
        assert bool(((projected == weight) | (projected == 0)).all())


@pytest.mark.parametrize(("constraint", "run"), [(NM(1, 3), 3), (NM(2, 4), 4), (NM(3, 3), 3), (NM(2, 7), 7),
                                                 (BankBalanced(2, 2), 3), (BankBalanced(3, 0.5), 2)])  # fmt: skip
@pytest.mark.parametrize("shape", [(3, 6), (2, 2, 3), (3, 6, 1, 1), (2, 1, 2, 3)])
def test_balanced_rows_keep_the_most_energy_of_every_run(constraint, run, shape):
    rng = np.random.default_rng(2)
    for _ in range(6):
        weight = drawn(rng, shape)
        kept = constraint.n if isinstance(constraint, NM) else constraint.keep
        kept = kept if isinstance(kept, int) else max(1, int(kept * run + 0.5))
        projected = constraint.project(weight).reshape(shape[0], -1)
        total = 0
        for row, got in zip(weight.reshape(shape[0], -1).tolist(), projected.tolist(), strict=True):
            for first in range(0, len(row), run):
                part = [v * v for v in row[first : first + run]]
                count = min(kept, len(part))
                total += count
                best = max(sum(chosen) for chosen in itertools.combinations(part, count))
                assert sum(v * v for v in got[first : first + run]) == pytest.approx(best)
                assert sum(v != 0 for v in got[first : first + run]) <= count
        assert constraint.count(shape) == total


@pytest.mark.parametrize("keep", [1, 2, 0.75, 1.0])
def test_pattern_of_a_given_library_is_the_nearest_point(keep):
    rng = np.random.default_rng(3)
    library = ((0, 1), (1, 3), (0, 2, 3))
    constraint = Pattern(keep, library)
    for _ in range(10):
        weight = drawn(rng, (2, 2, 2, 2))
        kernels = weight.reshape(4, 4).numpy()
        count = constraint.count(weight.shape)
        best = max(
            sum(float(np.square(kernels[k][list(p)]).sum()) for k, p in zip(alive, patterns, strict=True))
            for alive in itertools.combinations(range(4), count)
            for patterns in itertools.product(library, repeat=count)
        )
        projected = constraint.project(weight)
        assert float((projected**2).sum()) == pytest.approx(best)
        assert structure_fault(constraint.describe(), (projected.numpy() != 0).astype(np.int16)) is None


def test_pattern_library_is_the_most_frequent_supports():
    weight = torch.zeros(1, 7, 3, 3)
    for channel, support in enumerate([(0, 1, 3, 4)] * 3 + [(1, 2, 4, 5)] * 2 + [(2, 4, 6, 8), (0, 4, 6, 8)]):
        weight.reshape(7, 9)[channel, list(support)] = torch.tensor([1.0, -2.0, 3.0, -4.0])
    assert Pattern(library=2).fit(weight).patterns == ((0, 1, 3, 4), (1, 2, 4, 5))
    # Equally frequent: the lower positions win.
    assert Pattern(library=3).fit(weight).patterns[2] == (0, 4, 6, 8)
    assert Pattern(library=9).fit(weight).violation(weight) == 0
    assert Pattern(patterns=LIBRARY).fit(weight).patterns == LIBRARY
    assert Pattern(entries=2, library=1).fit(torch.tensor([[[3.0, 1.0, 2.0]]])).patterns == ((0, 2),)
    assert Pattern().fit(torch.zeros(2, 2, 3)).patterns == ((0, 1, 2),)


def test_filter_column_is_never_worse_than_either_order():
    rng = np.random.default_rng(4)
    best_found = 0
    for _ in range(100):
        weight = torch.tensor(rng.normal(size=(5, 6)))
        energy = np.square(weight.numpy())
        got = float((FilterColumn(2, 3).project(weight) ** 2).sum())
        rows = energy[np.argsort(-energy.sum(1))[:2]]
        rows_first = np.sort(rows.sum(0))[-3:].sum()
        columns = energy[:, np.argsort(-energy.sum(0))[:3]]
        columns_first = np.sort(columns.sum(1))[-2:].sum()
        assert got >= max(rows_first, columns_first) - 1e-12
        best = max(
            energy[np.ix_(r, c)].sum()
            for r in itertools.combinations(range(5), 2)
            for c in itertools.combinations(range(6), 3)
        )
        best_found += got > best - 1e-12
        assert got <= best + 1e-12
    assert best_found > 80
    assert FilterColumn(2, 3).count((5, 6)) == 6


# What every set has in common

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ANY_SHAPE = ((8, 4, 3, 3), (8, 1, 3, 3), (6, 4, 9), (5, 36), (3, 5, 3, 3), (2, 8))
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 0.25, -3.0, 1e-3, -6e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), shape=st.sampled_from(ANY_SHAPE), dtype=st.sampled_from(DTYPES),
    few=st.integers(0, len(NUMBERS)),
)  # fmt: skip
@pytest.mark.parametrize("constraint", EVERY_SET, ids=str)
def test_projections_are_feasible_idempotent_and_keep_type_and_shape(constraint, seed, shape, dtype, few):
    rng = np.random.default_rng(seed)
    numbers = rng.choice(NUMBERS[:few], size=shape) if few else rng.normal(size=shape) * 10.0 ** rng.integers(-2, 2)
    weight = torch.nn.Parameter(torch.tensor(numbers).to(dtype))
    try:
        constraint.count(shape)
        fitted = constraint.fit(weight)
    except PruningError as refused:
        assert "; use" in str(refused)
        return
    projected = constraint.project(weight)
    assert (projected.dtype, projected.shape, projected.requires_grad) == (dtype, weight.shape, False)
    assert torch.equal(constraint.project(projected), projected)
    assert constraint.violation(projected) == 0.0
    assert (constraint.violation(weight) == 0.0) == torch.equal(projected, weight)
    assert torch.equal(constraint.project(weight.detach().clone()), projected)
    held = fitted.project(weight)
    magnitudes = np.unique(held.abs().double().numpy(), return_inverse=True)[1].reshape(shape)
    levels = np.where(held.double().numpy() < 0, -magnitudes, magnitudes) + (held.double().numpy() != 0) * (
        0 if bool((held == 0).any()) else np.where(held.double().numpy() < 0, -1, 1)
    )
    assert structure_fault(fitted.describe(), levels.astype(np.int16)) is None
    assert torch.equal(fitted.project(held), held)


@pytest.mark.parametrize("constraint", EVERY_SET, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(constraint, bad):
    weight = torch.ones(8, 4, 3, 3)
    weight[1, 2, 0, 1] = bad
    with pytest.raises(PruningError, match="Weights must be finite, but a NaN or an infinity was found"):
        constraint.project(weight)


@pytest.mark.parametrize("constraint", EVERY_SET, ids=str)
def test_sets_survive_as_plain_values(constraint):
    assert from_values(as_values(constraint)) == constraint


@pytest.mark.parametrize("constraint", EVERY_SET, ids=str)
def test_memory_layout_does_not_matter(constraint):
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    moved = weight.to(memory_format=torch.channels_last)
    assert torch.equal(constraint.project(weight), constraint.project(moved))


@pytest.mark.parametrize("constraint", STRUCTURES, ids=str)
def test_extreme_float64_weights_do_not_overflow(constraint):
    weight = torch.randn(8, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for factor in (2.0**1000, 2.0**-1000):
        assert torch.equal(constraint.project(weight * factor), constraint.project(weight) * factor)
        assert constraint.violation(weight * factor) == pytest.approx(constraint.violation(weight) * factor)


def test_ties_go_to_the_lower_index():
    weight = torch.tensor([[1.0, -1.0, 1.0], [1.0, 2.0, -1.0]])
    assert NonStructured(3).project(weight).tolist() == [[1.0, -1.0, 0.0], [0.0, 2.0, 0.0]]
    ones = torch.ones(2, 3)
    assert Column(1).project(ones).tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    assert Filter(1).project(ones).tolist() == [[1.0] * 3, [0.0] * 3]
    assert Channel(2).project(ones).tolist() == [[1.0, 1.0, 0.0]] * 2
    assert Kernel(4).project(ones).tolist() == [[1.0] * 3, [1.0, 0.0, 0.0]]
    assert Vector(2, "output", 2).project(ones).tolist() == [[1.0, 1.0, 0.0]] * 2
    assert Block(1, 1, 2).project(ones).tolist() == [[1.0, 1.0, 0.0], [0.0] * 3]
    assert NM(2, 3).project(ones).tolist() == [[1.0, 1.0, 0.0]] * 2
    assert BankBalanced(1, 1).project(ones).tolist() == [[1.0, 0.0, 0.0]] * 2
    assert FilterColumn(1, 2).project(ones).tolist() == [[1.0, 1.0, 0.0], [0.0] * 3]
    assert Pattern(1, ((1, 2), (0, 1))).project(ones[:, None]).tolist() == [[[0.0, 1.0, 1.0]], [[0.0] * 3]]


@pytest.mark.parametrize(("keep", "expected"), [(0.001, 1), (0.25, 3), (0.5, 5), (0.05, 1), (4, 4), (1.0, 10)])
def test_count_rounds_half_up_and_is_at_least_one(keep, expected):
    assert NonStructured(keep).count((2, 5)) == expected


def test_last_group_may_be_shorter():
    rule = Column(keep=3, group=4)
    assert rule.groups((2, 10)) == 3
    assert torch.equal(rule.project(torch.ones(2, 10)), torch.ones(2, 10))
    assert NM(2, 4).count((3, 10)) == 3 * 6
    assert Block(1.0).count((5, 9)) == 2 * 3


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: NonStructured(0.0), r"keep must be a fraction in \(0, 1\] or a whole count, not 0\.0"),
        (lambda: NonStructured(0), r"keep must be a count of at least 1 or a fraction in \(0, 1\], not 0"),
        (lambda: Column(1.5), r"keep must be a fraction in \(0, 1\] or a whole count, not 1\.5"),
        (lambda: Column(0.5, group=0), "group must be at least 1, not 0"),
        (lambda: FilterColumn(0.5, 0), "columns must be a count of at least 1"),
        (lambda: Vector(0.5, "rows"), "axis must be input or output, not 'rows'"),
        (lambda: Block(0.5, 0, 4), "rows must be at least 1, not 0"),
        (lambda: NM(3, 2), "n must be at most m, but n is 3 and m is 2"),
        (lambda: Pattern(library=257), "library must be at most 256, not 257"),
        (lambda: Pattern(patterns=()), "patterns must be 1 to 256 lists of positions, not 0"),
        (lambda: Pattern(patterns=((),)), r"A pattern must be a list of positions from 0 on, not \(\)"),
        (lambda: Pattern().project(torch.ones(2, 2, 3)), "Pattern has no library yet; give patterns=..., or call fit"),
        (lambda: Pattern().describe(), "Pattern has no library yet"),
        (
            lambda: Pattern(patterns=LIBRARY).fit(torch.ones(2, 2, 2, 2)),
            r"Pattern \(0, 1, 3, 4\) has position 4, but the layer's kernels have positions 0 to 3",
        ),
        (lambda: Pattern().count((4, 6)), r"but the weight of shape \(4, 6\) has kernels of one; use NonStructured"),
        (lambda: Channel(0.5).count((8, 1, 3, 3)), r"but the weight of shape \(8, 1, 3, 3\) has one; use Filter or"),
        (
            lambda: BankBalanced(8, 0.5).count((4, 36)),
            r"rows that 8 banks divide, but the weight of shape \(4, 36\) has rows of 36; use banks=6 or banks=9",
        ),
        (lambda: BankBalanced(4, 10).count((4, 36)), "keep is 10, but the layer has 9 weights a bank"),
        (lambda: FilterColumn(9, 0.5).count((8, 4)), "filters is 9, but the layer has 8 filters"),
        (lambda: NonStructured(9).count((2, 4)), "keep is 9, but the layer has 8 groups"),
        (lambda: Column(0.5).project(torch.ones(3)), r"Column needs a weight with two or more axes, not shape \(3,\)"),
        (
            lambda: NonStructured(0.5).project(torch.ones(3, dtype=torch.int8)),
            "must be floating-point numbers, not tor",
        ),
    ],
)
def test_refusals(make, text):
    with pytest.raises(PruningError, match=text):
        make()


@pytest.mark.parametrize("make", [lambda: NonStructured("0.5"), lambda: Block(0.5, 2.0), lambda: NM(True, 4)])
def test_values_of_another_type_are_refused(make):
    with pytest.raises(TypeError, match="must be a (whole )?number, not"):
        make()
