"""Follow the address tables of the ROM images: every tap of every lane must meet the element it stands for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import VerificationError
from zeroskip.compiler.ir import Kind
from zeroskip.compiler.program import LayerPlan, Program, Rom, Storage
from zeroskip.compiler.rom_words import unpack_word
from zeroskip.compiler.schedule import access_of

__all__ = ["check_arrivals", "check_windows"]

IntArray = NDArray[np.int64]


def check_arrivals(program: Program) -> None:
    """Compare where the loader puts the input's rows and columns with the input's layout.

    Raises
    ------
    VerificationError
        If a table differs.
    """
    layout = program.layouts[program.model.input]
    for name, meant in (("arrival_rows", layout.rows), ("arrival_columns", layout.columns)):
        got = _words(program.rom(name)) if program.has_rom(name) else [0]
        if list(got) != list(meant):
            raise VerificationError(f"Table {name!r} of input {program.model.input!r} differs; compile again")


def check_windows(program: Program, plan: LayerPlan, front: Mapping[str, int]) -> None:
    """Walk the tiles and windows of a windowed layer as the gather does, from the images alone.

    For every tile, lane and offset ``(y, x)`` of a tap within the span of the windows, the address that the images give
    must be that of the input element in the input's layout, or the lane must be masked where the element lies outside
    the map.

    Raises
    ------
    VerificationError
        Naming the layer, the output position and the input position.
    """
    if plan.layer.kind is Kind.ADD or front.get("linear") or _is_reduced(plan):
        return
    config = program.config
    lanes = config.geometry.lanes
    access = access_of(plan.layer)
    _, height, width = program.model.tensors[plan.layer.inputs[0]].shape
    layout = program.layouts[plan.layer.inputs[0]]
    if layout.storage is not Storage.BANKED:
        raise VerificationError(f"Layer {plan.name!r} reads {plan.layer.inputs[0]!r}, which is not spread over banks")
    places = np.array([place or (-1, -1) for place in plan.places], np.int64).reshape(-1, lanes, 2)
    span = [
        np.array(sorted({w * s + k * d for w in range(windows) for k in range(kernel)}), np.int64)
        for windows, s, kernel, d in zip(access.windows, access.step, access.kernel, access.dilation, strict=True)
    ]
    offsets = _words(program.rom("offsets"))
    rows, columns = (offsets[front[name] + t] for name, t in zip(("y_table", "x_table"), span, strict=True))
    tiles = _tile_addresses(front, len(places))
    # shape (tiles, y, x): the first lane's address, whose bank is its remainder
    first = (tiles[:, None, None] + rows[:, None] + columns) & ((1 << config.position_bits) - 1)
    crossed = np.array([front.get(f"lane_word_{lane}", 0) for lane in range(lanes)], np.int64)
    address = first[:, None] + np.arange(lanes)[:, None, None] + (crossed * lanes)[:, None, None]
    inside = _inside(program, plan, front, len(places), span)
    y = places[:, :, 0, None] * access.stride[0] + span[0] - access.padding[0]
    x = places[:, :, 1, None] * access.stride[1] + span[1] - access.padding[1]
    alive = (places[:, :, 0] >= 0)[:, :, None, None]
    on_map = ((y >= 0) & (y < height))[..., None] & ((x >= 0) & (x < width))[:, :, None, :]
    meant = _at(layout.rows, y, height)[..., None] + _at(layout.columns, x, width)[:, :, None, :]
    wrong = alive & ((inside != on_map) | (on_map & ((address - meant) % (1 << config.position_bits) != 0)))
    if wrong.any():
        tile, lane, row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise VerificationError(
            f"Layer {plan.name!r}: output position {tuple(places[tile, lane].tolist())} reads input position "
            f"({int(y[tile, lane, row])}, {int(x[tile, lane, column])}) elsewhere than it lies; compile again"
        )


def _is_reduced(plan: LayerPlan) -> bool:
    """Whether the lanes share the map: its addresses simply count."""
    return plan.layer.kind is Kind.AVG_POOL2D and len(plan.places) > 0 and bool(plan.back.get("sums"))


def _tile_addresses(front: Mapping[str, int], count: int) -> IntArray:
    """Return the address that each tile adds: rows of tiles, ``tile_x_last + 1`` in each."""
    row, column = np.divmod(np.arange(count), front["tile_x_last"] + 1)
    addresses: IntArray = row * front["tile_step_y"] + column * front["tile_step_x"]
    return addresses


def _inside(
    program: Program, plan: LayerPlan, front: Mapping[str, int], tiles: int, span: list[IntArray]
) -> NDArray[np.bool_]:
    """Return which lanes the mask tables let through, shape ``(tiles, lanes, y, x)``."""
    lanes = program.config.geometry.lanes
    if not program.config.has_padding:
        return np.ones((tiles, lanes, len(span[0]), len(span[1])), np.bool_)
    row, column = np.divmod(np.arange(tiles), front["tile_x_last"] + 1)
    # a tile moves both tables on; the end of a row of tiles sends the columns' table back to its begin
    tile_y = np.arange(tiles) * front["mask_y_tile"] + row * front["mask_y_row"]
    tile_x = column * front["mask_x_tile"]
    masks = []
    for name, begin, t in (("mask_y", tile_y, span[0]), ("mask_x", tile_x, span[1])):
        words = _words(program.rom(name))[front[name] + begin[:, None] + t]
        masks.append((words[:, None, :] >> np.arange(lanes)[:, None]) & 1)
    both: NDArray[np.bool_] = (masks[0][..., None] & masks[1][:, :, None, :]).astype(np.bool_)
    return both


def _at(offsets: tuple[int, ...], where: IntArray, size: int) -> IntArray:
    found: IntArray = np.array(offsets, np.int64)[np.clip(where, 0, size - 1)]
    return found


def _words(rom: Rom) -> IntArray:
    field = rom.fields[0].name
    return np.array([unpack_word(rom.fields, word)[field] for word in rom.words], np.int64)
