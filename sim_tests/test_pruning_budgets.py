"""Budgets: one resource each, prices that no choice of groups exceeds, and stored bits as the compiler counts them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from zeroskip.compiler.encodings import relative
from zeroskip.compiler.formats import layer_formats
from zeroskip.compiler.ir import Tensor
from zeroskip.compiler.lower import lower
from zeroskip.compiler.target import Engine, Geometry
from zeroskip.pruning import NM, Block, Budget, Channel, Column, Filter, Joint, Kernel, Levels, NonStructured, Vector
from zeroskip.pruning.budgets import price_of, stored_bits
from zeroskip.pruning.errors import PruningError

SHAPE = (6, 5, 3, 3)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "A budget must be one of weights, macs, cycles, bits, not none"),
        ({"macs": 5, "bits": 5}, "A budget must be one of weights, macs, cycles, bits, not macs and bits"),
        ({"macs": 0}, "macs must be at least 1, not 0"),
        ({"macs": 5, "products": 2}, "products belongs to a budget of cycles, not of macs"),
        ({"cycles": 5, "value_bits": 2}, "value_bits belongs to a budget of bits, not of cycles"),
    ],
)
def test_a_budget_is_one_resource(values, text):
    with pytest.raises(PruningError, match=text):
        Budget(**values)


def test_a_budget_of_bits_takes_the_bits_of_the_recipe_where_it_has_none():
    assert Budget(bits=9).quantized(4) == Budget(bits=9, value_bits=4)
    assert Budget(bits=9, value_bits=2).quantized(4).value_bits == 2
    assert Budget(macs=9).quantized(4) == Budget(macs=9)
    assert str(Budget(macs=9)) == "9 macs"


GROUPS = (Filter(1), Channel(1), Kernel(1), Column(1, 4), Vector(1, "input", 2), Vector(1, "output", 4), Block(1))


@pytest.mark.parametrize("constraint", [NonStructured(1), *GROUPS], ids=str)
def test_the_price_is_of_the_largest_groups(constraint):
    rng = np.random.default_rng(3)
    price = price_of(Budget(macs=1), constraint, np.ones(SHAPE), 7)
    groups = constraint.sums(np.ones(SHAPE)).size
    assert price(0) == 0 and price(groups) == 7 * np.prod(SHAPE)
    for keep in range(1, groups + 1):
        mask = type(constraint)(**(vars(constraint) | {"keep": keep})).support(rng.random(SHAPE))
        assert 7 * mask.sum() <= price(keep)
        assert price(keep) <= price(keep - 1) + 7 * (np.prod(SHAPE) if groups == 1 else 90)


def test_weights_and_cycles():
    weight = np.ones(SHAPE)
    assert [price_of(Budget(weights=1), NonStructured(1.0), weight, 7)(k) for k in (0, 3)] == [0, 3]
    cycles = price_of(Budget(cycles=1, products=4), NonStructured(1.0), weight, 7)
    assert [cycles(k) for k in (0, 1, 4, 5)] == [0, 2, 7, 9]
    assert price_of(Budget(weights=1), Filter(1.0), weight, 1)(2) == 90


def test_what_has_no_groups_or_no_bits_is_refused():
    weight = np.ones(SHAPE)
    with pytest.raises(PruningError, match="An allocation needs a set that keeps the groups of largest sum .*, not NM"):
        price_of(Budget(weights=1), NM(2, 4), weight, 1)
    with pytest.raises(PruningError, match="counts the indices of single weights, not of Filter; use a budget of wei"):
        price_of(Budget(bits=1, value_bits=4), Filter(1), weight, 1)
    with pytest.raises(PruningError, match="A budget of bits needs value_bits, the bits of a weight"):
        price_of(Budget(bits=1), NonStructured(1), weight, 1)


def test_levels_say_their_bits_and_dead_rows_and_columns_cost_nothing():
    weight = np.zeros((8, 40))
    weight[:4, 1::2] = 1
    joint = Joint(NonStructured(1.0), Levels(2))
    price = price_of(Budget(bits=1, value_bits=8), joint, weight, 1)
    assert [price(k) for k in (1, 20)] == [stored_bits(k, 4, 20, 2) for k in (1, 20)]
    # 5 channels and kernels of 3 x 3 are named by 3 + 2 + 2 bits
    convolution = price_of(Budget(bits=1, value_bits=8), NonStructured(1.0), np.ones(SHAPE), 1)
    assert convolution(270) == stored_bits(270, 6, 45, 8, 7) == 270 * 9 + 45 * 7


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 8), st.integers(0, 12))
def test_more_weights_never_take_fewer_bits(rows, columns, value_bits, entry_bits):
    steps = sorted({round(rows * columns * share / 16) for share in range(17)} | {0, 1, 2})
    bits = [stored_bits(k, rows, columns, value_bits, entry_bits) for k in steps if k <= rows * columns]
    assert bits == sorted(bits) and bits[0] == 0


@pytest.mark.parametrize(("kept", "bits"), [(60, 4), (400, 1), (400, 8), (3000, 4), (12000, 4)])
def test_words_are_those_of_the_relative_index(kept, bits):
    """Random supports in the compiler's encoding, the best width of each: within 3 % on average of eight."""
    rows, columns = 50, 500
    rng = np.random.default_rng(kept)
    found = []
    for _ in range(8):
        mask = np.zeros(rows * columns, bool)
        mask[rng.choice(mask.size, kept, replace=False)] = True
        lines = [np.flatnonzero(row).tolist() for row in mask.reshape(rows, columns)]
        # a row without weights is cut out by the compiler before it is encoded
        counts = {k: relative.Gaps([line for line in lines if line]).counts(k).sum() for k in range(1, 13)}
        found.append(min(count * (k + bits) for k, count in counts.items()))
    assert np.mean(found) == pytest.approx(stored_bits(kept, rows, columns, bits), rel=0.03)


@pytest.mark.parametrize("keep", [0.3, 0.1, 0.04])
def test_the_ledger_counts_as_much(keep):
    """One core, so that no word waits for a longer row; the compiler's width is within 8 % of the best."""
    specs = (
        models.conv(24, 5, structure="nonstructured", keep=keep, bits=4),
        models.linear(3, relu=False, out_signed=True),
    )
    model = models.build_model(np.random.default_rng(1), Tensor("input", (8, 6, 6)), specs)
    program = lower(model, Geometry(4), layer_formats(model, Engine.SPARSE))
    plan = program.layers[0]
    weight = np.asarray(plan.layer.weight)
    kept = np.count_nonzero(weight)
    words = stored_bits(kept, 24, 200, 4)
    measured = sum(plan.storage[key] for key in ("value", "index", "filler"))
    # about 200 weights at the lowest density: the escapes of one draw differ by some percent
    assert 0.95 * words <= measured <= 1.10 * words
    table = stored_bits(kept, 24, 200, 4, 1) - words
    used = np.count_nonzero(weight.reshape(24, -1).any(axis=0))
    assert table == pytest.approx(used, rel=0.05)
    entry_bits = next(rom.word_bits for rom in program.roms if rom.name == "taps")
    assert plan.storage["tap_table"] == used * entry_bits
