"""Runs of one magnitude: their order, their stored words, and whole networks whose images decode back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from test_compiler_lower import compiled, name_of, spoil
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.errors import VerificationError
from zeroskip.compiler.formats import layer_formats
from zeroskip.compiler.ir import Tensor
from zeroskip.compiler.lower import lower
from zeroskip.compiler.rom_check import check_roms
from zeroskip.compiler.sign_add import RunCode, RunNeeds, order_runs, run_needs, shares_runs, used_runs
from zeroskip.compiler.target import Engine, Format, Geometry

CHOICES = [
    (Geometry(4, columns=3, sign_adds=2), Engine.DENSE),
    (Geometry(8, cores=2, sign_adds=4), Engine.SPARSE),
    (Geometry(8, columns=2, results=2, sign_adds=8), None),
]

adds_of = st.sampled_from([2, 4, 8])


def matrices(largest: int = 3):
    """Draw small matrices of weights with few magnitudes."""
    shape = st.tuples(st.integers(1, 3), st.integers(1, 14))
    return st.tuples(shape, st.integers(0, 2**32 - 1)).map(
        lambda drawn: np.random.default_rng(drawn[1]).integers(-largest, largest + 1, drawn[0])
    )


def fewest_runs(weight: np.ndarray, adds: int) -> int:
    """Return the fewest runs that any cut of the columns, in their order, has."""
    fewest = [0]
    for end in range(1, weight.shape[1] + 1):
        firsts = range(max(0, end - adds), end)
        fewest.append(min(fewest[first] + 1 for first in firsts if shares_runs(weight[:, first:end], adds)))
    return fewest[-1]


@given(matrices(), adds_of)
def test_runs_hold_every_position_once_and_are_the_fewest(weight, adds):
    order, idle = order_runs(weight, adds)
    assert order[~idle].tolist() == list(range(weight.shape[1]))
    assert len(order) == adds * fewest_runs(weight, adds)
    assert shares_runs(np.where(idle, 0, weight[:, order]), adds)
    runs, holds = order.reshape(-1, adds), idle.reshape(-1, adds)
    assert all(position in run[~held] for run, held in zip(runs, holds, strict=True) for position in run[held])


def test_positions_apart_take_a_run_each():
    order, idle = order_runs(np.ones((1, 2), np.int64), 4, apart=True)
    assert order.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert idle.tolist() == [False, True, True, True] * 2


def test_micro_blocks_are_runs_without_idle_slots():
    weight = np.array([[3, -3, 0, 3, 1, 1, -1, -1], [0, 0, 0, 0, 2, -2, 2, 0]])
    order, idle = order_runs(weight, 4)
    assert order.tolist() == list(range(8))
    assert not idle.any()


@pytest.mark.parametrize("linear", [False, True])
@given(st.integers(0, 2**32 - 1), st.sampled_from([(2, 4), (4, 4), (4, 8)]), st.booleans(), st.booleans())
def test_words_decode_to_the_levels(linear, seed, sizes, zeros, empty):
    adds, lanes = sizes
    rng = np.random.default_rng(seed)
    words = 3 * adds
    sign = rng.choice([-1, 0, 1] if zeros else [-1, 1], (words, lanes))
    magnitude = rng.integers(0 if empty else 1, 9, words * lanes // adds)
    if linear:
        levels = sign * np.repeat(magnitude.reshape(3, lanes), adds, axis=0)
        needs = run_needs(levels.reshape(3, adds, lanes).transpose(0, 2, 1), adds)
    else:
        levels = sign * np.repeat(magnitude, adds).reshape(words, lanes)
        needs = run_needs(levels, adds)
    base = int(needs.zeros or not needs.empty)
    code = RunCode(adds, 2 if needs.zeros else 1, max(1, (needs.largest - base).bit_length()), base)
    codes = code.encode(levels, linear)
    assert codes.shape == (words, lanes // adds)
    assert codes.min() >= 0 and int(codes.max()).bit_length() <= code.bits
    np.testing.assert_array_equal(code.decode(codes, linear), levels)


def test_needs_leave_free_slots_out():
    levels = np.array([[0, 5, 0, 0, -2, 2]])
    assert run_needs(levels, 2) == RunNeeds(zeros=True, empty=True, largest=5)
    free = np.array([True, False, False, False, False, False])
    assert run_needs(levels, 2, free) == RunNeeds(zeros=False, empty=True, largest=5)
    assert run_needs(levels[:, :2], 2, free[:2]) == RunNeeds(largest=5)
    assert used_runs(levels, 2) == 2


@pytest.mark.parametrize("choice", CHOICES, ids=name_of)
@pytest.mark.parametrize("name", sorted(models.TINY))
def test_images_with_runs_decode_to_the_network(name, choice):
    program = compiled(models.tiny(name), choice)
    check_roms(program)
    kinds = ("value", "sign", "index", "filler", "row_end", "tap_table", "bias", "requantize", "padding")
    for plan in program.layers:
        assert min(plan.storage.values()) >= 0
        assert sum(plan.storage[kind] for kind in kinds) == plan.storage["total"]
    for layer in program_cycles(program).layers:
        assert sum(layer.slots.values()) == layer.cycles * layer.lanes
        assert min(layer.slots.values()) >= 0


@pytest.mark.parametrize("choice", CHOICES, ids=name_of)
def test_flipped_sign_or_magnitude_is_found_in_its_layer(choice):
    program = compiled(models.tiny("unified"), choice)
    rom, code = program.rom("weights_0"), program.config.run_code
    assert code is not None
    for plan in program.layers:
        if plan.layer.weight is None:
            continue
        segment = next(segment for segment in rom.segments if segment.layer == plan.name)
        words = rom.words[segment.first : segment.first + segment.count]
        runs = [[word >> run * rom.slot_bits & (1 << rom.slot_bits) - 1 for run in range(rom.slots)] for word in words]
        linear = bool(plan.front["linear"])
        levels = code.decode(np.array(runs), linear)[:: code.adds if linear else 1, :: code.adds]
        # a weight in the first slot of a run; a linear layer's magnitude for its lane lies in the same word
        word, run = (int(place) for place in np.argwhere(levels)[0])
        for bit in (0, code.adds * code.sign_bits):
            address = segment.first + word * (code.adds if linear else 1)
            with pytest.raises(VerificationError, match=f"Layer '{plan.name}': weight at "):
                check_roms(spoil(program, "weights_0", address, run * rom.slot_bits + bit))


def test_unified_layers_store_a_magnitude_a_run_and_waste_no_slot():
    unified = {"structure": "micro_block", "keep": 0.5, "detail": {"size": 4}}
    specs = (models.conv(4, 2, **unified), models.linear(3, relu=False, out_signed=True, **unified))
    model = models.build_model(np.random.default_rng(0), Tensor("input", (2, 4, 4)), specs)
    program = compiled(model, (Geometry(4, sign_adds=4), Engine.DENSE))
    config = program.config
    assert (config.sign_bits, config.magnitude_bits) == (1, 4)
    assert config.has_empty_runs
    for plan in program.layers:
        kept = np.count_nonzero(np.asarray(plan.layer.weight))
        assert plan.idle_slots == 0
        assert (plan.storage["sign"], plan.storage["value"]) == (kept, kept // 4 * 4)


def test_layers_without_runs_pay_a_run_a_weight():
    model = models.digits_like("nonstructured", 0.3)
    geometry = Geometry(8, sign_adds=4)
    shared, own = (compiled(model, (size, Engine.SPARSE)) for size in (geometry, Geometry(8)))
    for plan, other in zip(shared.layers, own.layers, strict=True):
        if plan.layer.weight is None:
            continue
        assert plan.format is Format.RELATIVE
        # the last layer's few rows may be spread over lanes with the longer ones only
        if plan.name != "fc2":
            assert plan.schedule.lengths == tuple(4 * length for length in other.schedule.lengths)
        assert plan.notes.count("weights without a common magnitude: 4 slots each") == 1


def test_binary_and_ternary_layers_need_no_runs_of_their_own():
    for name, engine in (("binary", Engine.DENSE), ("ternary", Engine.SPARSE)):
        shared, own = (compiled(models.tiny(name), (size, engine)) for size in (Geometry(4, sign_adds=2), Geometry(4)))
        for plan, other in zip(shared.layers, own.layers, strict=True):
            pairs = zip(plan.schedule.lengths, other.schedule.lengths, strict=True)
            assert all(length == more + more % 2 for length, more in pairs)


def test_other_indices_than_runs_give_way_and_say_so():
    model = models.tiny("densities")
    formats = layer_formats(model, Engine.SPARSE, bitmap=True)
    program = lower(model, Geometry(4, columns=3, sign_adds=2), formats)
    check_roms(program)
    gave_way = [plan for plan in program.layers if formats.get(plan.name) is Format.BITMAP]
    assert gave_way
    for plan in gave_way:
        assert plan.format is Format.RELATIVE
        assert plan.notes.count("relative_index instead of bitmap, which has no runs of one magnitude") == 1
    assert program.config.mask_bits == 0
