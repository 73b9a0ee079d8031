"""Decode every ROM image back to tensors and tables and compare: the proof that the images hold the network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zeroskip.compiler.encodings.relative import decode_row
from zeroskip.compiler.errors import VerificationError
from zeroskip.compiler.program import LayerPlan, Program, Rom
from zeroskip.compiler.rom import unpack_word, weight_level
from zeroskip.compiler.target import Engine

__all__ = ["check_roms", "decode_weights"]


def check_roms(program: Program) -> None:
    """Decode the parameters of every layer from the images alone and compare them with the layer's tensors.

    Raises
    ------
    VerificationError
        If a decoded value differs; the text names the layer and the first position.
    """
    descriptors = [unpack_word(program.descriptors, word) for word in program.rom("layers").words]
    for plan, descriptor in zip(program.layers, descriptors[1:-1], strict=True):
        for name, value in descriptor.items():
            if value != plan.fields.get(name, 0):
                raise VerificationError(
                    f"Layer {plan.name!r}: descriptor field {name!r} decodes to {value}, "
                    f"but {plan.fields.get(name, 0)} was meant; compile again"
                )
        _compare(plan.name, "bias", *_bias(program, plan, descriptor))
        if plan.layer.weight is not None:
            weight = np.asarray(plan.layer.weight, np.int64)
            _compare(
                plan.name, "weight", decode_weights(program, plan, descriptor), weight.reshape(weight.shape[0], -1)
            )


def _compare(layer: str, what: str, got: np.ndarray, expected: np.ndarray) -> None:
    if np.array_equal(got, expected):
        return
    where = tuple(int(i) for i in np.argwhere(got != expected)[0])
    raise VerificationError(
        f"Layer {layer!r}: {what} at {where} decodes from the ROM image to {int(got[where])}, "
        f"but the network has {int(expected[where])}; compile again"
    )


def _bias(program: Program, plan: LayerPlan, descriptor: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    rom = program.rom("bias")
    base, count = descriptor["bias_base"], plan.shape[0]
    got = np.array([unpack_word(rom.fields, word)["bias"] for word in rom.words[base : base + count]], np.int64)
    expected = np.zeros(count, np.int64) if plan.layer.bias is None else np.asarray(plan.layer.bias, np.int64)
    return got, expected


def decode_weights(program: Program, plan: LayerPlan, descriptor: dict[str, int]) -> np.ndarray:
    """Return the weight matrix ``(rows, inputs or channel*ky*kx)`` that the ROM images hold for a layer."""
    rows = plan.shape[0]
    width = int(np.prod(np.asarray(plan.layer.weight).shape[1:]))
    weight = np.zeros((rows, width), np.int64)
    sparse = program.config.geometry.engine is Engine.SPARSE
    decode = _sparse_rows if sparse else _dense_rows
    positions = None if sparse and descriptor["linear"] else _positions(program, plan, descriptor)
    for row, columns, values in decode(program, descriptor, rows):
        where = columns if positions is None else [positions[i] for i in columns]
        kept = [(column, value) for column, value in zip(where, values, strict=True) if column < width]
        weight[row, [column for column, _ in kept]] = [value for _, value in kept]
    return weight


def _positions(program: Program, plan: LayerPlan, descriptor: dict[str, int]) -> list[int]:
    """Return the weight column of each entry that the engine walks."""
    lanes = program.config.geometry.lanes
    if descriptor["linear"]:
        count = descriptor["slot_last"] + 1
        words = list(range(count)) if descriptor["identity"] else [t["word"] for t in _taps(program, descriptor, count)]
        return [word * lanes + lane for word in words for lane in range(lanes)]
    segment = next(s for s in program.rom("taps").segments if s.layer == plan.name)
    _, _, height, width = np.asarray(plan.layer.weight).shape
    step = program.layouts[plan.layer.input].channel_step // lanes
    dilation_y, dilation_x = plan.layer.dilation
    return [
        (tap["word"] // step * height + tap["y"] // dilation_y) * width + tap["x"] // dilation_x
        for tap in _taps(program, descriptor, segment.count)
    ]


def _taps(program: Program, descriptor: dict[str, int], count: int) -> list[dict[str, int]]:
    rom = program.rom("taps")
    base = descriptor["tap_base"]
    return [unpack_word(rom.fields, word) for word in rom.words[base : base + count]]


def _slots(rom: Rom, first: int, count: int) -> list[dict[str, int]]:
    """Unpack ``count`` slots from slot address ``first``."""
    mask = (1 << rom.slot_bits) - 1
    return [
        unpack_word(rom.fields, rom.words[i // rom.slots] >> (i % rom.slots * rom.slot_bits) & mask)
        for i in range(first, first + count)
    ]


def _dense_rows(program: Program, descriptor: dict[str, int], rows: int) -> Iterator[tuple[int, list[int], list[int]]]:
    geometry, width = program.config.geometry, program.config.weight_width
    columns = descriptor["channel_last"] + 1
    length = (descriptor["slot_last"] + 1) * (geometry.lanes if descriptor["linear"] else 1)
    base = descriptor["weight_base"]
    mask = (1 << width) - 1
    for column in range(min(columns, rows)):
        rom = program.rom(f"weights_{column}")
        groups = -(-(rows - column) // columns)
        first_word = base // rom.slots
        words = np.array(rom.words[first_word : first_word - (-groups * length // rom.slots)], object)
        codes = np.stack([(words >> (lane * rom.slot_bits)) & mask for lane in range(rom.slots)], axis=1)
        flat = codes.astype(np.int64).reshape(-1)[: groups * length].reshape(groups, length)
        levels = weight_level(flat, bool(descriptor["zero_excluded"]), width)
        for group in range(groups):
            yield group * columns + column, list(range(length)), levels[group].tolist()


def _sparse_rows(program: Program, descriptor: dict[str, int], rows: int) -> Iterator[tuple[int, list[int], list[int]]]:
    rom, lanes = program.rom("weights_0"), program.config.geometry.lanes
    escape = descriptor["escape"]
    bits = escape.bit_length()
    cursor = descriptor["weight_base"]
    per_row = lanes if descriptor["linear"] else 1
    lengths = program.rom("rows").words[descriptor["row_base"] : descriptor["row_base"] - (-rows // per_row)]
    row = 0
    for length in (n + 1 for n in lengths):
        slots = _slots(rom, cursor, length * per_row)
        cursor += length * per_row
        for lane in range(min(per_row, rows - row)):
            mine = slots[lane::per_row]
            codes = np.array([slot["weight"] for slot in mine], np.int64)
            levels = weight_level(codes, bool(descriptor["zero_excluded"]), program.config.weight_width)
            columns, values = decode_row(
                ((slot["index"], int(level)) for slot, level in zip(mine, levels, strict=True)), bits
            )
            if any(slot["index"] > escape for slot in mine):
                raise VerificationError(f"ROM image weights_0 holds an index above the escape {escape} in row {row}")
            yield row, columns, values
            row += 1
