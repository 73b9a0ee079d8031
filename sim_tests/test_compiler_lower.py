"""Lowering, ROM images and the ledger: what is stored decodes back, and every bit is accounted for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import models
from zeroskip.compiler import reference
from zeroskip.compiler.balance import balance_rows
from zeroskip.compiler.errors import CompileError, VerificationError
from zeroskip.compiler.geometry import ECP5_SHAPES, Limits, choose_program, program_blocks
from zeroskip.compiler.lower import lower
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.program import Program
from zeroskip.compiler.requantization import Scales, align_shifts
from zeroskip.compiler.rom import weight_code, weight_level
from zeroskip.compiler.rom_check import check_roms
from zeroskip.compiler.target import Engine, Geometry

DENSE = Geometry(Engine.DENSE, 4, 3)
SPARSE = Geometry(Engine.SPARSE, 8)


def spoil(program: Program, name: str, address: int, bit: int) -> Program:
    """Flip one bit of a ROM image."""
    roms = []
    for rom in program.roms:
        if rom.name == name:
            words = list(rom.words)
            words[address] ^= 1 << bit
            rom = replace(rom, words=tuple(words))
        roms.append(rom)
    return replace(program, roms=tuple(roms))


@pytest.mark.parametrize("geometry", [DENSE, SPARSE])
@pytest.mark.parametrize("name", sorted(set(models.TINY) - {"floor"}))
def test_every_image_decodes_to_the_network(name, geometry):
    model, _ = run_passes(models.tiny(name))
    check_roms(lower(model, geometry))


@pytest.mark.parametrize("geometry", [DENSE, SPARSE])
def test_every_flipped_weight_bit_is_found_in_its_layer(geometry):
    model, _ = run_passes(models.digits_like("nonstructured", 0.3))
    program = lower(model, geometry)
    rom = program.rom("weights_0")
    for segment in rom.segments:
        spoiled = spoil(program, "weights_0", segment.first, rom.slots * 0)
        with pytest.raises(VerificationError, match=f"Layer '{segment.layer}'"):
            check_roms(spoiled)


def test_flipped_bias_bit_names_the_layer():
    model, _ = run_passes(models.digits_like())
    program = lower(model, DENSE)
    segment = program.rom("bias").segments[1]
    with pytest.raises(VerificationError, match="Layer 'conv2': bias at \\(2,\\) decodes from the ROM image to"):
        check_roms(spoil(program, "bias", segment.first + 2, 0))


@pytest.mark.parametrize("engine", list(Engine))
def test_ledger_accounts_for_every_physical_parameter_bit(engine):
    geometry = DENSE if engine is Engine.DENSE else SPARSE
    program = lower(run_passes(models.lenet5_like())[0], geometry)
    physical = sum(rom.word_bits * rom.depth for rom in program.roms if rom.name.startswith("weights_"))
    keys = ("value", "index", "filler", "padding")
    assert sum(plan.storage[key] for plan in program.layers for key in keys) == physical
    for plan in program.layers:
        parts = (*keys, "row_end", "tap_table", "bias", "requantize")
        assert plan.storage["total"] == sum(plan.storage[key] for key in parts)
        assert min(plan.storage[key] for key in parts) >= 0
        assert plan.storage["entropy_bound"] <= plan.storage["value"] + plan.storage["index"] + plan.storage["filler"]


def test_column_pruning_shortens_the_tap_table():
    model, _ = run_passes(models.digits_like("column", {"conv1": 1.0, "conv2": 0.25, "fc1": 1.0, "fc2": 1.0}))
    program = lower(model, DENSE)
    conv2 = program.layers[1]
    assert conv2.fields["slot_last"] + 1 == 18
    assert any(note.startswith("tap table shortened from") and note.endswith("to 18 entries") for note in conv2.notes)
    assert conv2.weight_bits == 4


def test_zeros_inside_a_dense_layout_cost_a_bit_and_say_so():
    program = lower(run_passes(models.digits_like("nonstructured", 0.5))[0], DENSE)
    assert program.layers[1].weight_bits == 5
    assert any("5 bits a weight instead of 4" in note for note in program.layers[1].notes)


def test_balancing_rows_leaves_the_network_alone():
    model = models.lenet5_like(samples=2)
    balanced, orders = balance_rows(model, 8)
    assert sorted(orders["fc1"]) == list(range(500))
    inputs = model.golden["input"]
    before, after = reference.run(model, inputs), reference.run(balanced, inputs)
    np.testing.assert_array_equal(before["output"], after["output"])
    np.testing.assert_array_equal(before["fc1"][:, list(orders["fc1"])], after["fc1"])
    np.testing.assert_array_equal(balanced.golden["fc1"], after["fc1"])


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("zero_excluded", [False, True])
def test_weight_codes_round_trip(bits, zero_excluded):
    half = 1 << (bits - 1)
    levels = np.array([w for w in range(-half, half + zero_excluded) if w or not zero_excluded])
    codes = weight_code(levels, zero_excluded, bits)
    assert len(set(codes.tolist())) == 1 << bits
    np.testing.assert_array_equal(weight_level(codes, zero_excluded, bits), levels)


def test_aligned_shifts_round_alike():
    from zeroskip.compiler.ir import Rounding

    scales = [Scales([3000], [14], Rounding.HALF_UP), Scales([70000, 9], [20, 5], Rounding.HALF_UP)]
    before = [(list(s.multiplier), list(s.shift)) for s in scales]
    align_shifts(scales)
    values = np.arange(-5000, 5000, dtype=np.int64)
    for (old_m, old_s), scale in zip(before, scales, strict=True):
        for m, s, new_m, new_s in zip(old_m, old_s, scale.multiplier, scale.shift, strict=True):
            np.testing.assert_array_equal(
                (values * m + (1 << (s - 1))) >> s, (values * new_m + (1 << (new_s - 1))) >> new_s
            )
    assert scales[0].shift == [19] and scales[1].shift == [20, 18]


def test_unsupported_rounding_names_the_layer():
    model, _ = run_passes(models.tiny("floor"))
    with pytest.raises(CompileError, match="Layer 'conv1' rounds floor; the hardware rounds half_up or half_away"):
        lower(model, SPARSE)


def test_choice_fits_the_limits():
    model, _ = run_passes(models.lenet5_like())
    limits = Limits("a tiny device", 8, 20, ECP5_SHAPES)
    choice = choose_program(model, Engine.SPARSE, limits)
    assert program_blocks(choice.program, ECP5_SHAPES) <= 20
    assert choice.program.config.geometry.lanes == 4


def test_network_too_large_says_what_is_needed():
    from zeroskip.compiler.errors import CapacityError

    model, _ = run_passes(models.lenet5_like("dense"))
    text = "needs at least .* block RAMs and .* multipliers, but a tiny device has 5 and 8; prune further"
    with pytest.raises(CapacityError, match=text):
        choose_program(model, None, Limits("a tiny device", 8, 5, ECP5_SHAPES))


@pytest.mark.parametrize(
    ("lanes", "columns", "text"),
    [(3, 1, "Geometry lanes must be 4, 8, 16 or 32, not 3"), (8, 0, "Geometry columns must be 1 to 32, not 0")],
)
def test_geometry_is_checked(lanes, columns, text):
    with pytest.raises(CompileError, match=text):
        Geometry(Engine.DENSE, lanes, columns)
