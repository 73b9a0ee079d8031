"""Lowering, ROM images and the ledger: what is stored decodes back, and every bit is accounted for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import models
from zeroskip.compiler import geometry as geometry_module
from zeroskip.compiler import reference
from zeroskip.compiler.balance import balance_rows, row_slots
from zeroskip.compiler.emit import load_program
from zeroskip.compiler.errors import CapacityError, CompileError, InputError, VerificationError
from zeroskip.compiler.formats import best_formats, layer_formats
from zeroskip.compiler.geometry import choose_program
from zeroskip.compiler.ir import Model, Tensor
from zeroskip.compiler.lower import lower
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.program import Program
from zeroskip.compiler.resources import DEFAULT_LIMITS, ECP5_SHAPES, Limits, program_blocks, program_multipliers
from zeroskip.compiler.rom_check import check_roms
from zeroskip.compiler.rom_words import unpack_word, weight_code, weight_level
from zeroskip.compiler.target import Engine, Format, Geometry, pair_bits
from zeroskip.hw.design import compile_artifact

DENSE = (Geometry(4, columns=3), Engine.DENSE)
SPARSE = (Geometry(8), Engine.SPARSE)
CHOICES = [
    DENSE,
    SPARSE,
    (Geometry(16, columns=2, results=4), Engine.DENSE),
    (Geometry(4, cores=3, results=2), Engine.SPARSE),
    (Geometry(8, cores=2, results=4), None),
]
"""Geometries with columns, cores and several results a cycle; None: each layer its own engine."""


def name_of(choice: tuple[Geometry, Engine | None]) -> str:
    """Return a test's name for a geometry and an engine."""
    geometry, engine = choice
    kind = "hybrid" if engine is None else engine.value
    return f"{kind}-{geometry.lanes}x{geometry.columns}x{geometry.cores}-{geometry.results}"


def compiled(model: Model, choice: tuple[Geometry, Engine | None]) -> Program:
    """Run the passes and lower."""
    geometry, engine = choice
    source, _ = run_passes(model)
    return lower(source, geometry, layer_formats(source, engine))


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


@pytest.mark.parametrize("choice", CHOICES, ids=name_of)
@pytest.mark.parametrize("name", sorted(models.TINY))
def test_every_image_decodes_to_the_network(name, choice):
    check_roms(compiled(models.tiny(name), choice))


def codes_of(program: Program, name: str, base: int) -> list[int]:
    """Return the slots of an image from slot address ``base`` on."""
    rom = program.rom(name)
    mask = (1 << rom.slot_bits) - 1
    return [word >> slot * rom.slot_bits & mask for word in rom.words for slot in range(rom.slots)][base:]


def spoil_slot(program: Program, name: str, slot: int) -> Program:
    """Flip the lowest bit of a slot."""
    rom = program.rom(name)
    return spoil(program, name, slot // rom.slots, slot % rom.slots * rom.slot_bits)


@pytest.mark.parametrize("choice", CHOICES, ids=name_of)
def test_flipped_weight_bit_is_found_in_its_layer(choice):
    program = compiled(models.digits_like("nonstructured", 0.3), choice)
    for plan in program.layers:
        if plan.layer.weight is None:
            continue
        first = 0
        if plan.format is not Format.DENSE:
            indices = codes_of(program, "index_0", plan.front["index_base"])
            # an escape's weight is never multiplied
            first = next(slot for slot, index in enumerate(indices) if index != plan.front["escape"])
        spoiled = spoil_slot(program, "weights_0", plan.front["weight_base"] + first)
        with pytest.raises(VerificationError, match=f"Layer '{plan.name}': weight at "):
            check_roms(spoiled)


def test_flipped_index_bit_is_found_in_its_layer():
    program = compiled(models.digits_like("nonstructured", 0.3), (Geometry(4, cores=2), Engine.SPARSE))
    for plan in program.layers:
        for core in range(2):
            base = plan.front["index_base"]
            indices = codes_of(program, f"index_{core}", base)
            slot = next(slot for slot, index in enumerate(indices) if index & 1 and index != plan.front["escape"])
            with pytest.raises(VerificationError, match=f"Layer '{plan.name}': weight at "):
                check_roms(spoil_slot(program, f"index_{core}", base + slot))


@pytest.mark.parametrize("name", ["front", "back"])
def test_every_flipped_descriptor_bit_is_found_in_its_layer(name):
    program = compiled(models.digits_like("nonstructured", 0.3), (Geometry(4, cores=2, results=2), Engine.SPARSE))
    rom = program.rom(name)
    for address, segment in enumerate(rom.segments):
        for bit in range(rom.word_bits):
            with pytest.raises(VerificationError, match=f"Layer '{segment.layer}': descriptor field '.*' decodes to"):
                check_roms(spoil(program, name, address, bit))


def test_flipped_place_names_the_layer():
    program = compiled(models.digits_like(), (Geometry(8, columns=2, results=4), Engine.DENSE))
    for segment in program.rom("places").segments:
        if segment.layer.startswith("conv"):
            with pytest.raises(VerificationError, match=f"Layer '{segment.layer}': its places write"):
                check_roms(spoil(program, "places", segment.first, 0))


def test_flipped_bias_bit_names_the_layer():
    program = compiled(models.digits_like(), DENSE)
    segment = program.rom("bias").segments[1]
    with pytest.raises(VerificationError, match="Layer 'conv2': bias at \\(2,\\) decodes from the ROM image to"):
        check_roms(spoil(program, "bias", segment.first + 2, 0))


def test_every_flipped_threshold_bit_names_the_layer():
    program = compiled(models.tiny("mixed_roundings"), DENSE)
    assert program.config.search_stages == 4
    for stage in range(4):
        rom = program.rom(f"thresholds_{stage}")
        for segment in rom.segments:
            for address in range(segment.first, segment.first + segment.count):
                for bit in range(rom.word_bits):
                    with pytest.raises(VerificationError, match=f"Layer '{segment.layer}': threshold at "):
                        check_roms(spoil(program, rom.name, address, bit))


@pytest.mark.parametrize("name", ["tflite_per_channel", "tflite_double", "wide_multipliers"])
def test_every_flipped_bit_of_a_scale_names_the_layer(name):
    program = compiled(models.tiny(name), SPARSE)
    rom = program.rom("bias")
    for segment in rom.segments:
        held = (rom.words[address] for address in range(segment.first, segment.first + segment.count))
        for address, word in enumerate(held, segment.first):
            for bit in range(rom.fields[1].lsb, rom.word_bits):
                multiplier = unpack_word(rom.fields, word)["multiplier"]
                if multiplier or bit < rom.fields[2].lsb:
                    with pytest.raises(VerificationError, match=f"Layer '{segment.layer}': (shift|2\\*\\*63 times)"):
                        check_roms(spoil(program, "bias", address, bit))


def test_ledger_counts_thresholds_and_no_bias_beside_them():
    program = compiled(models.tiny("mixed_roundings"), DENSE)
    images = [rom for rom in program.roms if rom.name.startswith("thresholds_")]
    searched = [plan for plan in program.layers if plan.layer.thresholds is not None]
    assert sum(plan.storage["requantize"] for plan in searched) == sum(rom.depth * rom.word_bits for rom in images)
    assert {plan.storage["bias"] for plan in searched} == {0}
    # the layer of fewer bits has no words in the later stages
    assert [segment.layer for segment in images[1].segments] == ["conv3", "fc1"]
    assert [segment.layer for segment in images[3].segments] == ["conv3"]
    assert program.rom("bias").depth == sum(plan.shape[0] for plan in program.layers if plan.layer.thresholds is None)


@pytest.mark.parametrize(("values", "width"), [((1, 1), 0), ((1, 0), 1), ((0, 0), 1), ((1, 2), 2)])
def test_only_a_network_of_ones_has_no_multiplier(values, width):
    model = models.tiny("power_of_two_per_tensor")
    layers = [
        replace(layer, multiplier=np.full_like(layer.multiplier, value))
        for layer, value in zip(model.layers, values, strict=True)
    ]
    program = lower(replace(model, layers=tuple(layers)), Geometry(4), {})
    assert program.config.multiplier_width == width


def test_network_of_thresholds_alone_has_no_bias():
    program = compiled(models.tiny("one_threshold"), DENSE)
    assert not program.has_rom("bias") and not program.config.has_scales
    assert program_multipliers(program.config) == 12


def test_threshold_images_are_counted_for_every_result():
    program = compiled(models.tiny("thresholds_of_8_bits"), (Geometry(8, results=4), Engine.SPARSE))
    blocks = {rom.name for rom in program.roms if rom.style == "block" and rom.name.startswith("thresholds_")}
    assert blocks == {"thresholds_5", "thresholds_6", "thresholds_7"}
    logic = replace(program, roms=tuple(rom for rom in program.roms if rom.name not in blocks))
    assert program_blocks(program, ECP5_SHAPES) - program_blocks(logic, ECP5_SHAPES) == 4 * len(blocks)


@pytest.mark.parametrize("choice", CHOICES, ids=name_of)
def test_ledger_accounts_for_every_physical_parameter_bit(choice):
    program = compiled(models.lenet5_like(samples=2), choice)
    parameters = [rom for rom in program.roms if rom.name.startswith(("weights_", "index_"))]
    physical = sum(rom.word_bits * rom.depth for rom in parameters)
    keys = ("value", "index", "filler", "padding")
    assert sum(plan.storage[key] for plan in program.layers for key in keys) == physical
    for plan in program.layers:
        parts = (*keys, "row_end", "tap_table", "bias", "requantize")
        assert plan.storage["total"] == sum(plan.storage[key] for key in parts)
        assert min(plan.storage[key] for key in parts) >= 0
        assert plan.storage["entropy_bound"] <= plan.storage["value"] + plan.storage["index"] + plan.storage["filler"]


@pytest.mark.parametrize("geometry", [Geometry(4, columns=3), Geometry(8, cores=2)], ids=str)
@pytest.mark.parametrize("name", sorted(models.TINY))
def test_no_kind_of_bits_is_negative_with_indices(name, geometry):
    for plan in compiled(models.tiny(name), (geometry, Engine.SPARSE)).layers:
        assert min(plan.storage.values()) >= 0


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_ledger_counts_an_index_once_for_all_columns(columns):
    specs = (models.conv(5, 2, structure="nonstructured", keep=0.4), models.linear(3, relu=False, out_signed=True))
    model = models.build_model(np.random.default_rng(0), Tensor("input", (3, 5, 5)), specs)
    plan = lower(model, Geometry(4, columns), layer_formats(model, Engine.SPARSE), index_bits=4).layers[0]
    kept = np.asarray(plan.layer.weight).reshape(5, -1) != 0
    groups = [kept[first : first + columns] for first in range(0, 5, columns)]
    named = [int(group.any(axis=0).sum()) for group in groups]
    # 12 positions a row: gaps of 4 bits need no escapes
    assert plan.schedule.lengths == tuple(named)
    assert plan.storage["index"] == 4 * sum(named)
    assert plan.storage["value"] == int(kept.sum()) * plan.weight_bits
    assert plan.storage["filler"] == (columns * sum(named) - int(kept.sum())) * plan.weight_bits


def test_ledger_counts_an_index_once_for_a_block():
    model = models.tiny("structure_block")
    program = lower(model, Geometry(4, cores=2), layer_formats(model, Engine.SPARSE))
    blocks = [plan for plan in program.layers if plan.format is Format.BLOCKS]
    assert blocks
    for plan in blocks:
        assert plan.decoding is not None and plan.decoding.elements > 1
        entries = plan.storage["index"] // plan.index_bits
        weights = plan.storage["value"] // plan.weight_bits
        assert entries < weights <= entries * plan.decoding.elements


def bitmap_program(model: Model, geometry: Geometry) -> Program:
    """Lower with every convolution a bitmap."""
    source, _ = run_passes(model)
    return lower(source, geometry, layer_formats(source, Engine.SPARSE, bitmap=True))


@pytest.mark.parametrize("geometry", [Geometry(8), Geometry(4, cores=3), Geometry(4, columns=3)], ids=str)
@pytest.mark.parametrize("name", ["densities", "empty_rows", "very_sparse", "weights_zero_excluded_4"])
def test_ledger_of_a_bitmap_counts_its_masks(name, geometry):
    program = bitmap_program(models.tiny(name), geometry)
    for plan in program.layers:
        if plan.format is not Format.BITMAP:
            continue
        rows = geometry.cores * (plan.front["group_last"] + 1)
        masks = rows * (plan.front["mask_last"] + 1) * plan.index_bits
        slots = geometry.units * sum(plan.schedule.lengths)
        kept = int(np.count_nonzero(plan.layer.weight))
        assert plan.storage["index"] == masks
        assert plan.storage["value"] == kept * plan.weight_bits
        assert plan.storage["filler"] == (slots - kept) * plan.weight_bits
        assert plan.storage["padding"] >= 0


def test_flipped_mask_bit_is_found_in_its_layer():
    program = bitmap_program(models.digits_like("nonstructured", 0.3), Geometry(4, cores=2))
    masked = [plan for plan in program.layers if plan.format is Format.BITMAP]
    assert [plan.name for plan in masked] == ["conv1", "conv2"]
    for plan in masked:
        for core in range(2):
            base = plan.front["index_base"]
            slot = next(slot for slot, word in enumerate(codes_of(program, f"index_{core}", base)) if word & 1)
            with pytest.raises(VerificationError, match=f"Layer '{plan.name}': weight at "):
                check_roms(spoil_slot(program, f"index_{core}", base + slot))


def test_mask_word_beyond_its_slots_is_found():
    program = bitmap_program(models.digits_like("nonstructured", 0.3), Geometry(8))
    plan = program.layers[0]
    spoiled = program
    for slot in range(plan.front["mask_last"] + 1):
        word = codes_of(program, "index_0", plan.front["index_base"])[slot]
        for bit in range(plan.index_bits):
            if not word >> bit & 1:
                rom = program.rom("index_0")
                address, lane = divmod(plan.front["index_base"] + slot, rom.slots)
                spoiled = spoil(spoiled, "index_0", address, lane * rom.slot_bits + bit)
    with pytest.raises(VerificationError, match="Layer 'conv1': a row's indices name .* slots, but it has "):
        check_roms(spoiled)


def test_linear_layer_is_no_bitmap():
    model = models.digits_like("nonstructured", 0.3)
    text = (
        "Layer 'fc1' is linear: each of its lanes follows a row of its own, but a core decodes one bitmap a cycle; "
        "give it 'relative_index'"
    )
    with pytest.raises(CompileError, match=f"^{text}$"):
        lower(model, Geometry(4), {"fc1": Format.BITMAP})


def test_bitmaps_are_for_convolutions_without_structure():
    model = models.digits_like("nonstructured", 0.3)
    relative, bitmap = Format.RELATIVE, Format.BITMAP
    assert layer_formats(model, Engine.SPARSE, bitmap=True) == {
        "conv1": bitmap,
        "conv2": bitmap,
        "fc1": relative,
        "fc2": relative,
    }
    blocks = models.tiny("structure_kernel")
    assert Format.BITMAP not in layer_formats(blocks, Engine.SPARSE, bitmap=True).values()


def test_bitmap_is_taken_where_it_needs_fewer_bits_and_no_more_cycles():
    model = models.digits_like("nonstructured", {"conv1": 0.6, "conv2": 0.1, "fc1": 0.1, "fc2": 1.0})
    without, _ = best_formats(model, Geometry(8), None)
    taken, reasons = best_formats(model, Geometry(8), None, bitmap=True)
    assert without["conv1"] is without["conv2"] is Format.RELATIVE
    assert taken == {**without, "conv1": Format.BITMAP}
    assert reasons[0].startswith("layer conv1: bitmap, ") and " with a bitmap" in reasons[1]
    assert "bitmap" not in reasons[2]


def test_rows_of_a_bitmap_are_sorted_by_its_slots():
    model, _ = run_passes(models.lenet5_like(samples=2))
    formats = layer_formats(model, Engine.SPARSE, bitmap=True)
    balanced, _ = balance_rows(model, Geometry(8, cores=3), formats)
    conv2 = next(layer for layer in balanced.layers if layer.name == "conv2")
    assert (np.diff(row_slots(conv2, Format.BITMAP)) <= 0).all()


def test_column_pruning_shortens_the_tap_table():
    model = models.digits_like("column", {"conv1": 1.0, "conv2": 0.25, "fc1": 1.0, "fc2": 1.0})
    conv2 = compiled(model, DENSE).layers[1]
    assert conv2.front["slot_last"] + 1 == 18
    assert any(note.startswith("tap table shortened from") and note.endswith("to 18 entries") for note in conv2.notes)
    assert conv2.weight_bits == 4


def test_zeros_inside_a_dense_layout_cost_a_bit_and_say_so():
    program = compiled(models.digits_like("nonstructured", 0.5), DENSE)
    assert program.layers[1].weight_bits == 5
    assert any("5 bits a weight instead of 4" in note for note in program.layers[1].notes)


@pytest.mark.parametrize(
    ("geometry", "layers"), [(Geometry(8), ["fc1"]), (Geometry(8, cores=3), ["conv1", "conv2", "fc1"])]
)
def test_balancing_rows_leaves_the_network_alone(geometry, layers):
    model, _ = run_passes(models.lenet5_like(samples=2))
    names = {"conv1": "pool1", "conv2": "pool2", "fc1": "fc1"}
    balanced, orders = balance_rows(model, geometry, layer_formats(model, Engine.SPARSE))
    assert sorted(orders) == sorted(names[layer] for layer in layers)
    inputs = model.golden["input"]
    before, after = reference.run(model, inputs), reference.run(balanced, inputs)
    np.testing.assert_array_equal(before["output"], after["output"])
    for layer in layers:
        tensor = names[layer]
        assert sorted(orders[tensor]) == list(range(model.tensors[tensor].shape[0]))
        np.testing.assert_array_equal(before[tensor][:, list(orders[tensor])], after[tensor])
        np.testing.assert_array_equal(balanced.golden[tensor], after[tensor])
        sorted_layer = next(each for each in balanced.layers if each.name == layer)
        assert (np.diff(row_slots(sorted_layer)) <= 0).all()


def test_dense_rows_and_the_last_layers_keep_their_order():
    model = models.lenet5_like(samples=2)
    assert balance_rows(model, Geometry(8, columns=2), layer_formats(model, Engine.DENSE))[1] == {}
    orders = balance_rows(model, Geometry(8, cores=3), layer_formats(model, Engine.SPARSE))[1]
    assert "output" not in orders


def test_layers_choose_their_engine_by_density():
    model = models.digits_like("nonstructured", {"conv1": 1.0, "conv2": 0.6, "fc1": 0.1, "fc2": 0.8})
    dense, sparse = Format.DENSE, Format.RELATIVE
    assert layer_formats(model, None) == {"conv1": dense, "conv2": sparse, "fc1": sparse, "fc2": dense}
    assert set(layer_formats(model, Engine.DENSE).values()) == {dense}
    assert set(layer_formats(model, Engine.SPARSE).values()) == {sparse}
    program = compiled(model, (Geometry(4, cores=2), None))
    weighted = [plan for plan in program.layers if plan.layer.weight is not None]
    assert {plan.name: plan.format for plan in weighted} == layer_formats(model, None)
    assert [plan.index_bits > 0 for plan in weighted] == [False, True, True, False]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("zero_excluded", [False, True])
def test_weight_codes_round_trip(bits, zero_excluded):
    half = 1 << (bits - 1)
    levels = np.array([w for w in range(-half, half + zero_excluded) if w or not zero_excluded])
    codes = weight_code(levels, zero_excluded, bits)
    assert len(set(codes.tolist())) == 1 << bits
    np.testing.assert_array_equal(weight_level(codes, zero_excluded, bits), levels)


def test_choice_fits_the_limits():
    model, _ = run_passes(models.lenet5_like())
    limits = Limits("a tiny device", 8, 20, ECP5_SHAPES)
    choice = choose_program(model, Engine.SPARSE, limits)
    assert program_blocks(choice.program, ECP5_SHAPES) <= 20
    assert choice.program.config.geometry.lanes == 4


def test_a_few_products_lie_in_logic_where_the_array_fits_so():
    model, _ = run_passes(models.digits_like("dense", bits=8))
    logic = {}
    for multipliers in (63, 64, 67, 68):
        program = choose_program(model, Engine.DENSE, Limits("a device", multipliers, 400, ECP5_SHAPES)).program
        assert program_multipliers(program.config) <= multipliers
        logic[multipliers] = (program.config.geometry.products, program.config.logic_products)
    # 64 products and the multipliers of one result or two, of which a 32nd of the device may be missing
    assert logic == {63: (32, 0), 64: (64, 2), 67: (64, 1), 68: (64, 0)}


@pytest.mark.parametrize("blocks", [20, 40])
def test_geometries_that_cannot_fit_are_passed_over(blocks, monkeypatch):
    model, _ = run_passes(models.lenet5_like())
    limits = Limits("a tiny device", 28, blocks, ECP5_SHAPES)
    programs, bounds = [], []

    def lowered(*arguments, **options):
        programs.append(lower(*arguments, **options))
        return programs[-1]

    def least(model, geometry, stored, limits):
        bounds.append((geometry, least_blocks(model, geometry, stored, limits)))
        return 0

    least_blocks = geometry_module._least_blocks
    monkeypatch.setattr(geometry_module, "lower", lowered)
    quick = choose_program(model, None, limits).program
    few = len(programs)
    monkeypatch.setattr(geometry_module, "_least_blocks", least)
    assert choose_program(model, None, limits).program.config == quick.config
    assert few < len(programs) - few
    known = dict(bounds)
    assert all(known[p.config.geometry] <= program_blocks(p, ECP5_SHAPES) for p in programs)


def test_network_too_large_says_what_is_needed():
    model, _ = run_passes(models.lenet5_like("dense"))
    text = "needs at least .* block RAMs and .* multipliers, but a small device has 96 and 8; prune further"
    with pytest.raises(CapacityError, match=text):
        choose_program(model, Engine.DENSE, Limits("a small device", 8, 96, ECP5_SHAPES))


def test_network_beyond_all_memory_is_refused_without_a_search(monkeypatch):
    monkeypatch.setattr("zeroskip.compiler.geometry.layer_costs", lambda *_: pytest.fail("searched"))
    model, _ = run_passes(models.lenet5_like("dense"))
    text = (
        "Network 'lenet5-dense-w4a8' needs at least 1,722,000 bits for its weights and 29,440 for input and output of "
        "layer 'conv2', but a tiny device has 92,160 bits of memory; prune further, use fewer weight bits, take "
        "smaller inputs or name a "
        "larger board. For reference outputs, simulation and cycles alone fix the geometry, such as --set lanes=16 "
        "--set cores=4"
    )
    with pytest.raises(CapacityError, match=f"^{text}$"):
        choose_program(model, None, Limits("a tiny device", 8, 5, ECP5_SHAPES))


def test_fixed_geometry_too_large_for_the_device_is_served_and_says_so():
    model, _ = run_passes(models.lenet5_like("dense"))
    fixed = choose_program(model, Engine.DENSE, DEFAULT_LIMITS, lanes=8, columns=4)
    blocks, multipliers = program_blocks(fixed.program, ECP5_SHAPES), program_multipliers(fixed.program.config)
    text = f"{blocks} block RAMs of 56 and {multipliers} multipliers of 28"
    assert blocks > 56 and multipliers > 28
    assert fixed.reasons[-1] == f"too large for an ECP5-25F: {text}; fit for simulation alone"
    roomy = Limits("a large device", multipliers, blocks, ECP5_SHAPES)
    fitting = choose_program(model, Engine.DENSE, roomy, lanes=8, columns=4)
    assert not [reason for reason in fitting.reasons if "too large" in reason]


def test_paired_products_of_wide_weights_name_the_layer():
    model, _ = run_passes(models.tiny("weights_symmetric_6"))
    text = (
        "Layer 'conv1' has weights up to 31, two of which need a multiplier operand of 20 bits, but multipliers have "
        "18; store fewer bits a weight or leave out --set paired_products=1"
    )
    with pytest.raises(CompileError, match=f"^{text}$"):
        choose_program(model, Engine.DENSE, DEFAULT_LIMITS, lanes=4, columns=2, paired_products=1)


def test_paired_products_of_a_device_with_narrow_multipliers():
    limits = Limits("a narrow device", 8, 30, ECP5_SHAPES, 16)
    model, _ = run_passes(models.tiny("weights_zero_excluded_4"))
    text = (
        "Network 'tiny-weights_zero_excluded_4' with paired products and weights up to 8 needs multiplier operands of "
        "17 bits, but those of a narrow device have 16; store fewer bits a weight or leave out --set paired_products=1"
    )
    with pytest.raises(CapacityError, match=f"^{text}$"):
        choose_program(model, Engine.DENSE, limits, lanes=4, columns=2, paired_products=1)
    assert not choose_program(model, Engine.DENSE, limits).program.config.geometry.paired_products
    model, _ = run_passes(models.tiny("weights_symmetric_4"))
    assert pair_bits(7) == limits.operand_bits
    choose_program(model, Engine.DENSE, limits, lanes=4, columns=2, paired_products=1)


def test_columns_are_paired_where_multipliers_are_short():
    limits = Limits("a tiny device", 8, 40, ECP5_SHAPES)
    wide, narrow = (run_passes(models.digits_like(bits=bits))[0] for bits in (8, 4))
    single, paired = (choose_program(model, Engine.DENSE, limits) for model in (wide, narrow))
    assert not single.program.config.geometry.paired_products
    assert paired.program.config.geometry.paired_products
    assert paired.cycles < 0.7 * single.cycles
    assert program_multipliers(paired.program.config) <= limits.multipliers
    roomy = choose_program(narrow, Engine.DENSE, replace(limits, multipliers=1000))
    assert not roomy.program.config.geometry.paired_products


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"lanes": 3}, "Geometry lanes must be 4, 8, 16 or 32, not 3"),
        ({"lanes": 8, "columns": 0}, "Geometry columns must be 1 to 32, not 0"),
        ({"lanes": 8, "cores": 9}, "Geometry cores must be 1 to 8, not 9"),
        (
            {"lanes": 8, "columns": 2, "cores": 3},
            (
                "Geometry has 2 columns and 3 cores; only one of them may be above 1: "
                "columns share the operands of one gather, cores have their own"
            ),
        ),
        ({"lanes": 4, "results": 3}, "Geometry results must be a power of two up to the 4 lanes, not 3"),
        ({"lanes": 4, "results": 8}, "Geometry results must be a power of two up to the 4 lanes, not 8"),
        (
            {"lanes": 4, "columns": 9, "results": 4},
            "Geometry results must be below the 4 lanes with 9 columns; use 2",
        ),
    ],
)
def test_geometry_is_checked(sizes, text):
    with pytest.raises(CompileError, match=f"^{text}$"):
        Geometry(**sizes)


@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize("banked", [False, True])
def test_parts_of_a_concatenation_lie_one_behind_the_other(lanes, banked):
    specs = (
        models.conv(3, 2, out_scale=1.0),
        models.conv(5, 2, inputs=("input",), out_scale=1.0),
        models.conv(1, 2, inputs=("input",), out_scale=1.0),
        models.concat("conv1", "conv2", "conv3"),
        models.linear(4, relu=False, out_signed=True),
    )
    model = models.build_model(np.random.default_rng(0), Tensor("input", (2, 4, 4)), specs)
    program = lower(model, Geometry(lanes, columns=2, banked_vectors=banked), {})

    def addresses(name: str) -> list[int]:
        layout = program.layouts[name]
        base = layout.base * (lanes if banked else 1)
        return [
            base + channel * layout.channel_step + row + column
            for channel in range(model.tensors[name].shape[0])
            for row in layout.rows
            for column in layout.columns
        ]

    parts = [address for name in ("conv1", "conv2", "conv3") for address in addresses(name)]
    assert parts == addresses("concat1")
    assert parts == list(range(parts[0], parts[0] + 81))


def test_part_that_a_layer_reads_must_begin_in_the_first_bank():
    specs = (
        models.linear(4, out_scale=1.0),
        models.linear(2, out_scale=1.0, inputs=("input",)),
        models.linear(6, out_scale=1.0, inputs=("fc2",)),
        models.concat("fc1", "fc2", "fc3"),
        models.linear(3, relu=False, out_signed=True),
    )
    model = models.build_model(np.random.default_rng(0), Tensor("input", (9,)), specs)
    lower(model, Geometry(4, banked_vectors=True), {})
    with pytest.raises(
        CompileError,
        match="Layer 'fc3' reads tensor 'fc2', which begins in bank 4 as a part of 'concat1', but vectors over the "
        "banks are read from the first bank on; leave out --set banked_vectors=1",
    ):
        lower(model, Geometry(8, banked_vectors=True), {})


@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
@pytest.mark.parametrize("results", [4, 8])
def test_results_of_a_residual_network_leave_together(results, backwards):
    model = models.resnet8_like(samples=1)
    if backwards:
        model = replace(model, tensors=dict(reversed(model.tensors.items())))
    program = compiled(model, (Geometry(16, 8, results=results), Engine.DENSE))
    # the average is summed up over lanes, and the rows of the last layer are spread over them
    assert {plan.name for plan in program.layers if plan.back["slow"]} == {"pool1", "fc1"}


@pytest.mark.parametrize(("results", "rows"), [(1, 1), (2, 2), (4, 4), (8, 1)])
def test_rows_leave_together_where_banks_take_words(results, rows):
    program = compiled(models.lenet5_like(), (Geometry(16, cores=2, results=results), Engine.SPARSE))
    conv2, fc1, fc2 = program.layers[1:]
    # the ten rows of the last layer are spread over lanes
    assert [fc1.rows_together, fc2.rows_together] == [rows, 1]
    assert conv2.back.get("slow", 0) == int(results == 8)
    assert program.rom("bias").slots == rows
    assert program.config.bank_bytes == rows
    assert program.config.activation_depth % rows == 0
    assert fc1.back["channels"] == -(-fc1.shape[0] // rows) and fc1.back["channel_step"] == rows
    assert fc2.back["channels"] == 10 and fc2.back["channel_step"] == 1


def test_threshold_rows_leave_one_by_one():
    program = compiled(models.tiny("thresholds"), (Geometry(4, results=2), Engine.DENSE))
    linear = [plan for plan in program.layers if plan.front["linear"]]
    assert [plan.rows_together for plan in linear if plan.layer.thresholds is not None] == [1] * sum(
        plan.layer.thresholds is not None for plan in linear
    )
    assert any(plan.layer.thresholds is not None for plan in linear)


@pytest.mark.parametrize("slot", [0, 1])
def test_wrong_bias_of_a_row_that_leaves_with_others_is_found(slot):
    program = compiled(models.tiny("only_linear"), (Geometry(4, results=2), Engine.DENSE))
    rom = program.rom("bias")
    with pytest.raises(VerificationError, match="^Layer 'fc1': bias at "):
        check_roms(spoil(program, "bias", 0, slot * rom.slot_bits))


def test_different_biases_of_one_channel_are_found():
    program = compiled(models.lenet5_like(), (Geometry(8, results=2), Engine.SPARSE))
    rom = program.rom("bias")
    with pytest.raises(
        VerificationError, match="^Layer 'conv1': the results of a cycle have different biases in channel 3"
    ):
        check_roms(spoil(program, "bias", 3, rom.slot_bits))


def stored(program: Program) -> int:
    """Return the bits of all layers, without the padding to words of memory."""
    return sum(plan.storage["total"] - plan.storage["padding"] for plan in program.layers)


def test_least_storage_takes_the_narrowest_gaps_and_formats_that_store_least():
    model, _ = run_passes(models.digits_like("nonstructured", {"conv1": 0.9, "conv2": 0.1, "fc1": 0.04, "fc2": 1.0}))
    geometry = Geometry(4)
    formats, reasons = best_formats(model, geometry, None, True, least_storage=True)
    assert formats["fc2"] is Format.DENSE and formats["fc1"] is Format.RELATIVE
    assert any("bits against" in reason for reason in reasons)
    fast = lower(model, geometry, layer_formats(model, Engine.SPARSE))
    small = lower(model, geometry, layer_formats(model, Engine.SPARSE), least_storage=True)
    for one, other in zip(fast.layers, small.layers, strict=True):
        kinds = ("value", "index", "filler")
        assert sum(other.storage[kind] for kind in kinds) <= sum(one.storage[kind] for kind in kinds)
    assert stored(lower(model, geometry, formats, least_storage=True)) < stored(fast)


def test_least_storage_chooses_the_geometry_that_stores_least():
    model, _ = run_passes(models.digits_like("nonstructured", 0.2))
    limits = Limits("a small device", 12, 56, ECP5_SHAPES)
    fast = choose_program(model, None, limits)
    small = choose_program(model, None, limits, least_storage=1, bitmap=1)
    assert stored(small.program) < stored(fast.program)
    assert small.cycles >= fast.cycles
    assert small.program.config.geometry.products <= fast.program.config.geometry.products


def test_a_design_of_least_storage_is_read_back(tmp_path):
    model = models.digits_like("nonstructured", 0.1)
    models.write_artifact(model, tmp_path / "net.safetensors")
    settings = {"lanes": "4", "least_storage": "1"}
    compile_artifact(tmp_path / "net.safetensors", tmp_path / "small", engine="sparse", settings=settings)
    source, _ = run_passes(model)
    fast = lower(source, Geometry(4), layer_formats(source, Engine.SPARSE))
    assert stored(load_program(tmp_path / "small")) < stored(fast)
    with pytest.raises(InputError, match="Setting 'least_storage' must be 0 or 1, not 2"):
        compile_artifact(tmp_path / "net.safetensors", tmp_path / "bad", settings={"least_storage": "2"})
