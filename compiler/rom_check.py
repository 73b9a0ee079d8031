"""Decode every ROM image back to tensors and tables and compare: the proof that the images hold the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from zeroskip.compiler.errors import VerificationError
from zeroskip.compiler.ir import Kind, Rounding
from zeroskip.compiler.program import LayerPlan, Program, Rom
from zeroskip.compiler.reference import TFLITE_SHIFT
from zeroskip.compiler.rom import unpack_word, weight_level
from zeroskip.compiler.rom_check_tables import check_arrivals, check_windows
from zeroskip.compiler.streams import decode_positions
from zeroskip.compiler.target import Format
from zeroskip.compiler.thresholds import join_tables, padded_thresholds

__all__ = ["check_roms", "decode_weights"]

SHIFT_LIMIT = 63
"""No shift is larger."""


def check_roms(program: Program) -> None:
    """Decode the parameters of every layer from the images alone and compare them with the layer's tensors.

    Raises
    ------
    VerificationError
        If a decoded value differs; the text names the layer and the first position.
    """
    for name in ("front", "back"):
        rom = program.rom(name)
        for plan, word in zip(program.layers, rom.words, strict=True):
            meant = plan.front if name == "front" else plan.back
            for key, value in unpack_word(rom.fields, word).items():
                if value != meant.get(key, 0):
                    raise VerificationError(
                        f"Layer {plan.name!r}: descriptor field {key!r} decodes to {value}, "
                        f"but {meant.get(key, 0)} was meant; compile again"
                    )
    check_arrivals(program)
    for index, plan in enumerate(program.layers):
        front = unpack_word(program.rom("front").fields, program.rom("front").words[index])
        back = unpack_word(program.rom("back").fields, program.rom("back").words[index])
        if plan.layer.thresholds is not None:
            _compare(plan.name, "threshold", *_thresholds(program, plan, back))
        else:
            _compare(plan.name, "bias", *_bias(program, plan, back))
            _check_scales(program, plan, back)
        if plan.layer.weight is not None:
            weight = np.asarray(plan.layer.weight, np.int64)
            _compare(plan.name, "weight", decode_weights(program, plan, front, back), weight.reshape(len(weight), -1))
        if not back.get("sums"):
            _check_places(program, plan, back)
        check_windows(program, plan, front)


def _compare(layer: str, what: str, got: np.ndarray, expected: np.ndarray) -> None:
    if np.array_equal(got, expected):
        return
    where = tuple(int(i) for i in np.argwhere(got != expected)[0])
    raise VerificationError(
        f"Layer {layer!r}: {what} at {where} decodes from the ROM image to {int(got[where])}, "
        f"but the network has {int(expected[where])}; compile again"
    )


def _bias(program: Program, plan: LayerPlan, back: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    count = plan.shape[0]
    entries = _bias_entries(program, plan, back)
    wrong = [number for number, word in enumerate(entries) if any(entry != word[0] for entry in word)]
    if wrong and plan.rows_together == 1:
        raise VerificationError(
            f"Layer {plan.name!r}: the results of a cycle have different biases in channel {wrong[0]}; compile again"
        )
    got = np.array([entry["bias"] for word in entries for entry in word[: plan.rows_together]][:count], np.int64)
    expected = np.zeros(count, np.int64) if plan.layer.bias is None else np.asarray(plan.layer.bias, np.int64)
    return got, expected


def _bias_entries(program: Program, plan: LayerPlan, back: Mapping[str, int]) -> list[list[Mapping[str, int]]]:
    """Return the bias words of a layer, an entry for each result of a cycle."""
    rom = program.rom("bias")
    base = back["bias_base"]
    words = rom.words[base : base + -(-plan.shape[0] // plan.rows_together)]
    mask = (1 << rom.slot_bits) - 1
    return [
        [unpack_word(rom.fields, word >> (slot * rom.slot_bits) & mask) for slot in range(rom.slots)] for word in words
    ]


def _thresholds(program: Program, plan: LayerPlan, back: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    base, count = back["bias_base"], plan.shape[0]
    tables = []
    for stage in range(back["search_stages"]):
        rom = program.rom(f"thresholds_{stage}")
        words = rom.words[base << stage : (base + count) << stage]
        tables.append(np.array([unpack_word(rom.fields, word)["threshold"] for word in words]).reshape(count, -1))
    source = program.model.tensors[plan.layer.inputs[0]]
    return join_tables(tables), padded_thresholds(plan.layer, source)


def _check_scales(program: Program, plan: LayerPlan, back: Mapping[str, int]) -> None:
    """Compare ``multiplier / 2**shift`` of every channel; with rounding in two steps the shift itself must agree."""
    layer, config = plan.layer, program.config
    if layer.multiplier is None or layer.shift is None:
        return
    count = plan.shape[0]
    # an addition has the scales of its inputs as well
    part = slice(2, 3) if layer.kind is Kind.ADD else slice(None)
    wanted = [np.broadcast_to(array[part], count).tolist() for array in (layer.multiplier, layer.shift)]
    entries: list[Mapping[str, int]] = [back] * count
    if config.per_channel:
        words = _bias_entries(program, plan, back)
        entries = [entry for word in words for entry in word[: plan.rows_together]][:count]
    held = (
        [entry.get("multiplier", 1) for entry in entries],
        [entry.get("shift", 0) + config.shift_min for entry in entries],
    )
    got, expected = (
        np.array([m << SHIFT_LIMIT >> s for m, s in zip(*scales, strict=True)], object) for scales in (held, wanted)
    )
    _compare(plan.name, f"2**{SHIFT_LIMIT} times the scale", got, expected)
    if layer.rounding is Rounding.TFLITE_DOUBLE and max(wanted[1]) > TFLITE_SHIFT:
        got, expected = (np.maximum(shifts, TFLITE_SHIFT) for shifts in (held[1], wanted[1]))
        _compare(plan.name, "shift", got, expected)


def _check_places(program: Program, plan: LayerPlan, back: Mapping[str, int]) -> None:
    """Follow the places of one output channel: every element of its map must be written, and none twice."""
    rom = program.rom("places")
    layout = program.layouts[plan.output]
    count = (back["tile_last"] + 1) * program.config.geometry.words
    mask = (1 << rom.slot_bits) - 1
    entries = [
        unpack_word(rom.fields, word >> (slot * rom.slot_bits) & mask)
        for word in rom.words[back["place_base"] : back["place_base"] + count]
        for slot in range(rom.slots)
    ]
    got = sorted(entry["offset"] for entry in entries if entry["inside"])
    expected = sorted(row + column for row in layout.rows for column in layout.columns)
    if got != expected:
        raise VerificationError(
            f"Layer {plan.name!r}: its places write {len(got)} offsets, but the map has {len(expected)} elsewhere; "
            "compile again"
        )


def decode_weights(program: Program, plan: LayerPlan, front: Mapping[str, int], back: Mapping[str, int]) -> np.ndarray:
    """Return the weight matrix ``(rows, inputs or channel*ky*kx)`` that the ROM images hold for a layer."""
    rows = plan.shape[0]
    width = int(np.prod(np.asarray(plan.layer.weight).shape[1:]))
    weight = np.zeros((rows, width), np.int64)
    positions = _positions(program, plan, front)
    decode = _linear_rows if front["linear"] else _windowed_rows
    for row, where, values in decode(program, plan, front, back):
        for position, value in zip(where, values, strict=True):
            if positions is not None and position >= len(positions):
                raise VerificationError(
                    f"Layer {plan.name!r}: position {position} of row {row} lies past the {len(positions)} taps; "
                    "compile again"
                )
            target = positions[position] if positions is not None else position
            if value and row < rows and target < width:
                weight[row, target] = value
    return weight


def _positions(program: Program, plan: LayerPlan, front: Mapping[str, int]) -> list[int] | None:
    """Return the weight column of each position that the engine walks, None where it is the position itself."""
    lanes = program.config.geometry.lanes
    layout = program.layouts[plan.layer.inputs[0]]
    if front["linear"]:
        if not front.get("keep"):
            return None
        return [tap["word"] - layout.base for tap in _taps(program, plan, front)]
    _, _, height, width = np.asarray(plan.layer.weight).shape
    step = layout.channel_step // lanes
    dilation_y, dilation_x = plan.layer.dilation
    return [
        (tap["word"] // step * height + tap["y"] // dilation_y) * width + tap["x"] // dilation_x
        for tap in _taps(program, plan, front)
    ]


def _taps(program: Program, plan: LayerPlan, front: Mapping[str, int]) -> list[dict[str, int]]:
    rom = program.rom("taps")
    count = next(segment.count for segment in rom.segments if segment.layer == plan.name)
    base = front["tap_base"]
    return [unpack_word(rom.fields, word) for word in rom.words[base : base + count]]


def _slots(rom: Rom, first: int, count: int) -> np.ndarray:
    """Return ``count`` slots from slot address ``first``."""
    start, end = first // rom.slots, -(-(first + count) // rom.slots)
    words = np.array(rom.words[start:end], object)
    mask = (1 << rom.slot_bits) - 1
    table = np.stack([(words >> (slot * rom.slot_bits)) & mask for slot in range(rom.slots)], axis=1)
    flat: np.ndarray = table.astype(np.int64).reshape(-1)[first - start * rom.slots :][:count]
    return flat


def _lengths(program: Program, front: Mapping[str, int]) -> list[int]:
    """Return the slots a pass of every group."""
    groups = front["group_last"] + 1
    if not program.config.indexed:
        return [front["slot_last"] + 1] * groups
    if front["row_shared"]:
        return [front["first_length"] + 1] * groups
    following = program.rom("rows").words[front["row_base"] : front["row_base"] + groups - 1]
    return [front["first_length"] + 1, *(word + 1 for word in following)]


def _entries(
    program: Program, plan: LayerPlan, front: Mapping[str, int], unit: int, group: int, cursor: int, count: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the levels and the index codes (None: counted) of the ``count`` slots of a group of one column or core."""
    levels = _levels(program, front, program.rom(f"weights_{unit}"), front["weight_base"] + cursor, count)
    if plan.format is Format.DENSE or plan.decoding is None:
        return levels, None
    lanes = program.config.geometry.lanes if front["linear"] else 1
    slots_a_code = 1 if front["codes_a_slot"] else front["element_last"] + 1
    count, index = count // lanes // slots_a_code * lanes, cursor // lanes // slots_a_code * lanes
    if front.get("masked"):
        count = front["mask_last"] + 1
        index = group * count
    core = unit if program.config.geometry.cores > 1 else 0
    return levels, _slots(program.rom(f"index_{core}"), front["index_base"] + index, count)


def _levels(program: Program, front: Mapping[str, int], rom: Rom, first: int, count: int) -> np.ndarray:
    """Return the levels of ``count`` slots from slot address ``first``."""
    runs, lanes = program.config.run_code, program.config.geometry.lanes
    if runs is not None:
        start, end = first // lanes, -(-(first + count) // lanes)
        codes = _slots(rom, start * rom.slots, (end - start) * rom.slots).reshape(-1, rom.slots)
        levels: np.ndarray = runs.decode(codes, bool(front["linear"])).reshape(-1)[first - start * lanes :][:count]
        return levels
    codes = _slots(rom, first, count)
    if front.get("codebook"):
        levels = np.array(program.config.codebooks[front["codebook"] - 1])[codes]
        return levels
    return weight_level(codes, bool(front["zero_excluded"]), program.config.weight_width)


def _decode(plan: LayerPlan, levels: np.ndarray, indices: np.ndarray | None) -> tuple[list[int], list[int]]:
    if indices is None or plan.decoding is None:
        return list(range(len(levels))), levels.tolist()
    if (indices >> plan.decoding.code_bits).any():
        raise VerificationError(
            f"Layer {plan.name!r}: an index does not fit {plan.decoding.code_bits} bits; compile again"
        )
    positions = decode_positions(indices, plan.decoding)
    if len(positions) > len(levels):
        raise VerificationError(
            f"Layer {plan.name!r}: a row's indices name {len(positions)} slots, but it has {len(levels)}; compile again"
        )
    kept = positions >= 0
    return positions[kept].tolist(), levels[: len(positions)][kept].tolist()


def _windowed_rows(
    program: Program, plan: LayerPlan, front: Mapping[str, int], back: Mapping[str, int]
) -> Iterator[tuple[int, list[int], list[int]]]:
    cursor = 0
    members = back["member_last"] + 1
    for group, length in enumerate(_lengths(program, front)):
        for unit in range(members):
            levels, indices = _entries(program, plan, front, unit, group, cursor, length)
            yield group * members + unit, *_decode(plan, levels, indices)
        cursor += length


def _linear_rows(
    program: Program, plan: LayerPlan, front: Mapping[str, int], back: Mapping[str, int]
) -> Iterator[tuple[int, list[int], list[int]]]:
    lanes, layout = program.config.geometry.lanes, program.layouts[plan.layer.inputs[0]]
    members, split = (back["member_last"] + 1) * plan.rows_together, back["place_last"] + 1
    cursor = 0
    for group, length in enumerate(_lengths(program, front)):
        for unit in range(-(-members * split // lanes)):
            levels, indices = _entries(program, plan, front, unit, group, cursor, length * lanes)
            for lane in range(lanes):
                sub = unit * lanes + lane
                mine = None if indices is None else indices[lane::lanes]
                where, values = _decode(plan, levels[lane::lanes], mine)
                base, step = 0, split if indices is None else 1
                if program.config.geometry.banked_vectors:
                    base, step = lane, lanes
                elif not front.get("keep") and program.config.has_split:
                    base = front[f"lane_base_{lane}"] - layout.base
                yield group * members + sub // split, [base + position * step for position in where], values
        cursor += length * lanes
