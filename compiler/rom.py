"""Program -> ROM images: parameters, tap and address tables, requantization and layer descriptors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zeroskip.compiler.ir import Model
from zeroskip.compiler.program import FieldSpec, Rom, Segment, TensorLayout
from zeroskip.compiler.rom_slots import stored_codes, unit_indices, unit_levels
from zeroskip.compiler.rom_words import field_layout, pack_slots, pack_word, run_fields
from zeroskip.compiler.schedule import tile_positions, window_offset
from zeroskip.compiler.target import EngineConfig, Format
from zeroskip.compiler.thresholds import search_tables

if TYPE_CHECKING:
    from zeroskip.compiler.job import Job

__all__ = ["Tables", "descriptor_rom", "places_of", "table_rom"]

LOGIC_BITS = 2048
"""A smaller ROM is cheaper in LUTs than a block RAM that stays nearly empty."""


def _rom(
    name: str,
    fields: Sequence[FieldSpec],
    words: Iterable[int],
    segments: Sequence[Segment],
    *,
    slots: int = 1,
    ports: int = 1,
    style: str | None = None,
    description: str = "table",
) -> Rom:
    slot_bits = sum(spec.bits for spec in fields)
    words = tuple(words)
    word_bits = slot_bits * slots
    if style is None:
        style = "block" if len(words) * word_bits > LOGIC_BITS else "logic"
    return Rom(name, word_bits, words, slots, slot_bits, tuple(fields), tuple(segments), ports, style, description)


class Tables:
    """The ROM images of a network while they are filled, and the base of each layer in each of them.

    ``front`` and ``back`` collect the descriptor fields that point into the images. ``rows`` are how many rows of each
    layer leave the array together.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        config: EngineConfig,
        model: Model,
        placed: Mapping[str, TensorLayout],
        rows: Sequence[int],
    ) -> None:
        self.config = config
        self.lanes = config.geometry.lanes
        self.front: list[dict[str, int]] = [{} for _ in jobs]
        self.back: list[dict[str, int]] = [{} for _ in jobs]
        self.roms: list[Rom] = []
        self._parameters(jobs)
        if config.indexed:
            self._row_lengths(jobs)
        self._taps(jobs, placed)
        if config.has_scales:
            self._bias(jobs, rows)
        self._thresholds(jobs)
        self._offsets(jobs)
        if config.has_padding:
            self._masks(jobs)
        self._places(jobs, placed)
        self._arrivals(model, placed)
        if config.has_functions:
            self._functions(jobs)

    def _parameters(self, jobs: Sequence[Job]) -> None:
        """One image of weights a column or core, and one of indices a core."""
        config, geometry = self.config, self.config.geometry
        runs = config.run_code
        weights: list[list[int]] = [[] for _ in range(geometry.units)]
        indices: list[list[int]] = [[] for _ in range(geometry.cores if config.indexed else 0)]
        weight_segments, index_segments = [], []
        for job, base in zip(jobs, self.front, strict=True):
            base["weight_base"] = len(weights[0]) * self.lanes
            first = len(weights[0])
            for unit in range(geometry.units):
                levels = unit_levels(job, unit, self.lanes)
                if runs is not None:
                    weights[unit].extend(pack_slots(runs.encode(levels, job.linear), runs.bits))
                else:
                    codes = stored_codes(job, levels, config.weight_width)
                    weights[unit].extend(pack_slots(codes, config.weight_width))
            weight_segments.append(Segment(job.layer.name, first, len(weights[0]) - first))
            if not config.indexed:
                continue
            base["index_base"] = len(indices[0]) * self.lanes
            first = len(indices[0])
            if job.format is not Format.DENSE:
                for core in range(geometry.cores):
                    indices[core].extend(pack_slots(unit_indices(job, core, self.lanes), config.index_width))
            index_segments.append(Segment(job.layer.name, first, len(indices[0]) - first))
        weight_fields = (FieldSpec("weight", 0, config.weight_width),) if runs is None else run_fields(runs)
        for unit, words in enumerate(weights):
            self._add(f"weights_{unit}", weight_fields, words, weight_segments, slots=self.lanes // geometry.sign_adds,
                      style="block", description="weights" if runs is None else "runs")  # fmt: skip
        index_fields = (FieldSpec("index", 0, config.index_width),)
        for core, words in enumerate(indices):
            self._add(f"index_{core}", index_fields, words, index_segments, slots=self.lanes, style="block",
                      description="index")  # fmt: skip

    def _row_lengths(self, jobs: Sequence[Job]) -> None:
        """Slots a pass of every group: the front end knows a row's end before the row comes."""
        lengths: list[int] = []
        segments = []
        for job, base in zip(jobs, self.front, strict=True):
            mine = job.lengths[:1] if job.shared_row else job.lengths
            # the first group's length lies in the descriptor, the image answers for the group after the present one
            base["first_length"] = mine[0] - 1
            base["row_base"] = len(lengths) + 1
            segments.append(Segment(job.layer.name, len(lengths), len(mine)))
            lengths.extend(length - 1 for length in mine)
        # the front end looks one row ahead, at the end too
        lengths.append(0)
        fields = field_layout([{"length_less_1": length} for length in lengths])
        self._add("rows", fields, lengths, segments)

    def _taps(self, jobs: Sequence[Job], placed: Mapping[str, TensorLayout]) -> None:
        rows: list[dict[str, int]] = []
        segments = []
        for job, base in zip(jobs, self.front, strict=True):
            first = len(rows)
            if job.functions is not None:
                depth = 1 << self.config.word_address_bits
                here, there = (placed[name].base for name in (job.layer.inputs[0], job.layer.inputs[1]))
                words = np.repeat((0, (there - here) % depth), len(job.taps) // 2)
                rows.extend({"word": int(word), "y": 0, "x": 0} for word in words)
            elif job.reduce:
                rows.extend({"word": slot, "y": slot, "x": 0} for _, slot, _ in job.taps)
            elif job.access is not None:
                step = placed[job.layer.inputs[0]].channel_step // self.lanes
                dilation_y, dilation_x = job.access.dilation
                rows.extend({"word": c * step, "y": y * dilation_y, "x": x * dilation_x} for c, y, x in job.taps)
            elif job.keep is not None:
                word = placed[job.layer.inputs[0]].base
                rows.extend({"word": word + position, "y": 0, "x": 0} for position in job.keep)
            base["tap_base"] = first if job.access is not None or job.keep is not None else 0
            segments.append(Segment(job.layer.name, first, len(rows) - first))
        if rows:
            fields = field_layout(rows)
            self._add("taps", fields, (pack_word(fields, row) for row in rows), segments)

    def _bias(self, jobs: Sequence[Job], rows: Sequence[int]) -> None:
        """An entry for every channel; where rows leave together, a word has one for each result of a cycle."""
        config = self.config
        slots = config.geometry.results if config.has_row_words else 1
        fields = [FieldSpec("bias", 0, config.bias_width, True)]
        if config.per_channel:
            fields.append(FieldSpec("multiplier", config.bias_width, max(config.multiplier_width, 1)))
            fields.append(FieldSpec("shift", config.bias_width + fields[1].bits, max(config.shift_width, 1)))
        words: list[int] = []
        segments = []
        for job, base, together in zip(jobs, self.back, rows, strict=True):
            if job.scales is None:
                continue
            base["bias_base"] = len(words)
            channels = len(job.bias)
            multiplier = np.broadcast_to(job.scales.multiplier, channels)
            shift = np.broadcast_to(job.scales.shift, channels) - config.shift_min
            entries = [
                pack_word(fields, {"bias": int(bias), "multiplier": int(m), "shift": int(s)})
                for bias, m, s in zip(job.bias, multiplier, shift, strict=True)
            ]
            entries += [0] * (-channels % together)
            # one row a word: all results of a cycle are of its channel
            table = np.repeat(np.array(entries, object).reshape(-1, together), slots // together, axis=1)
            words.extend(pack_slots(table, sum(spec.bits for spec in fields)))
            segments.append(Segment(job.layer.name, base["bias_base"], len(words) - base["bias_base"]))
        self._add("bias", fields, words, segments, slots=slots)

    def _thresholds(self, jobs: Sequence[Job]) -> None:
        """One image a stage of the search: 2**s thresholds a channel in stage s.

        Layers with more stages come first, so that the later images end where the layers with fewer begin.
        """
        searched = [(job.thresholds, job, base) for job, base in zip(jobs, self.back, strict=True)]
        tables = [(search_tables(table), job, base) for table, job, base in searched if table is not None]
        tables.sort(key=lambda item: -len(item[0]))
        first = 0
        for _, job, base in tables:
            base["bias_base"] = first
            first += job.out_channels
        for stage in range(self.config.search_stages):
            words: list[int] = []
            segments = []
            for table, job, _ in tables:
                if len(table) > stage:
                    segments.append(Segment(job.layer.name, len(words), table[stage].size))
                    words.extend(table[stage].reshape(-1).tolist())
            rows = [{"threshold": word} for word in words]
            fields = field_layout(rows)
            packed = [pack_word(fields, row) for row in rows]
            self._add(f"thresholds_{stage}", fields, packed, segments, description="thresholds")

    def _offsets(self, jobs: Sequence[Job]) -> None:
        """Address offsets of window and tap coordinates."""
        config = self.config
        mask = (1 << config.position_bits) - 1
        words: list[int] = []
        segments = []
        for job, base in zip(jobs, self.front, strict=True):
            if job.access is None:
                continue
            access, plane, _ = job.windowed()
            first = len(words)
            for axis, name in enumerate(("y_table", "x_table")):
                base[name] = len(words)
                if job.reduce:
                    words.extend([0] * (len(job.taps) if axis == 0 else 1))
                    continue
                for t in range(access.span[axis]):
                    offset = window_offset(plane, job.source.shape, axis, t - access.padding[axis])
                    words.append(offset & mask)
            segments.append(Segment(job.layer.name, first, len(words) - first))
        if words:
            fields = (FieldSpec("offset", 0, config.position_bits),)
            style = "logic" if len(words) <= 256 else None
            self._add("offsets", fields, words, segments, ports=2, style=style)

    def _masks(self, jobs: Sequence[Job]) -> None:
        """Which lanes read inside the input, for every tile and row (column) of the window; layers share tables."""
        for axis, name in enumerate("yx"):
            words: list[int] = []
            segments = []
            known: dict[tuple[int, ...], int] = {}
            for job, base in zip(jobs, self.front, strict=True):
                if job.access is None:
                    continue
                table = tuple(_lane_masks(job, axis, self.lanes))
                if table not in known:
                    known[table] = len(words)
                    segments.append(Segment(job.layer.name, len(words), len(table)))
                    words.extend(table)
                base[f"mask_{name}"] = known[table]
            fields = (FieldSpec("inside", 0, self.lanes),)
            self._add(f"mask_{name}", fields, words, segments, description="lanes")

    def _places(self, jobs: Sequence[Job], placed: Mapping[str, TensorLayout]) -> None:
        """Where every lane's result of every tile goes, ``results`` a word; layers that write alike share a table."""
        results, bits = self.config.geometry.results, self.config.position_bits
        words: list[int] = []
        segments = []
        known: dict[tuple[int, ...], int] = {}
        last = self.config.argmax_size or self.config.output_size
        bits = max(bits, max(1, (last - 1).bit_length()))
        for job, base in zip(jobs, self.back, strict=True):
            layout = placed[job.layer.output]
            table = []
            for place in places_of(job, self.lanes):
                inside = place is not None
                offset = layout.rows[place[0]] + layout.columns[place[1]] if place is not None else 0
                table.append(int(inside) | offset << 1)
            packed = tuple(
                sum(entry << (index * (bits + 1)) for index, entry in enumerate(table[i : i + results]))
                for i in range(0, len(table), results)
            )
            if packed not in known:
                known[packed] = len(words)
                segments.append(Segment(job.layer.name, len(words), len(packed)))
                words.extend(packed)
            base["place_base"] = known[packed]
        fields = (FieldSpec("inside", 0, 1), FieldSpec("offset", 1, bits))
        self._add("places", fields, words, segments, slots=results)

    def _functions(self, jobs: Sequence[Job]) -> None:
        """The operands of additions by code: two tables of 256 values a layer."""
        values: list[int] = []
        segments = []
        for job, base in zip(jobs, self.front, strict=True):
            base["function"] = int(job.functions is not None)
            base["function_table"] = 0
            if job.functions is not None:
                base["function_table"] = len(values) // 512
                segments.append(Segment(job.layer.name, len(values), 512))
                values.extend(int(value) for value in job.functions.reshape(-1))
        width = max(max(v.bit_length() if v >= 0 else (~v).bit_length() for v in values) + 1, 2)
        fields = (FieldSpec("value", 0, width, True),)
        words = [value & ((1 << width) - 1) for value in values]
        # two lanes share a table
        ports = 1 if self.config.geometry.lanes * self.config.geometry.cores == 1 else 2
        self._add("functions", fields, words, segments, ports=ports, style="block", description="functions")

    def _arrivals(self, model: Model, placed: Mapping[str, TensorLayout]) -> None:
        """Where the rows and columns of the input go, in the order the host sends its words."""
        layout = placed[model.input]
        fields = (FieldSpec("offset", 0, self.config.position_bits),)
        for name, words in (("arrival_rows", layout.rows), ("arrival_columns", layout.columns)):
            if len(words) > 1:
                self._add(name, fields, words, [Segment(model.input, 0, len(words))])

    def _add(
        self,
        name: str,
        fields: Sequence[FieldSpec],
        words: Iterable[int],
        segments: Sequence[Segment],
        **options: object,
    ) -> None:
        self.roms.append(_rom(name, fields, words, segments, **options))  # type: ignore[arg-type]


def places_of(job: Job, lanes: int) -> list[tuple[int, int] | None]:
    """Return the output position of every lane of every tile in drain order; a linear result has one place."""
    if job.tile is None or job.reduce:
        return [(0, 0)] * lanes
    positions = tile_positions(job.tile, job.target.shape, lanes).reshape(-1, 2).tolist()
    return [None if y < 0 else (y, x) for y, x in positions]


def _lane_masks(job: Job, axis: int, lanes: int) -> list[int]:
    """Return for each tile (2-D: each row or column of tiles) and window coordinate the lanes inside the input."""
    access, _, tile = job.windowed()
    if job.reduce:
        left = job.source.shape[1] * job.source.shape[2]
        slots = range(len(job.taps) - job.idle_taps)
        counts = [min(lanes, left - slot * lanes) for slot in slots] if axis == 0 else [lanes]
        return [(1 << count) - 1 for count in counts]
    if not any(job.layer.padding):
        return [(1 << lanes) - 1] * access.span[axis]
    positions = tile_positions(tile, job.target.shape, lanes)[:, :, axis]
    if not tile.flat:
        tiles_x = -(-job.target.shape[2] // tile.x)
        positions = positions[::tiles_x] if axis == 0 else positions[:tiles_x]
    t = np.arange(access.span[axis])
    coordinate = positions[:, None, :] * access.stride[axis] + t[:, None] - access.padding[axis]
    inside = (coordinate >= 0) & (coordinate < job.source.shape[axis + 1])
    return [sum(1 << lane for lane in np.flatnonzero(row).tolist()) for row in inside.reshape(-1, lanes)]


def descriptor_rom(name: str, descriptors: Sequence[Mapping[str, int]], names: Sequence[str]) -> Rom:
    """Pack the descriptors of the layers, one word each; a field a descriptor does not use is 0."""
    fields = field_layout(descriptors)
    words = (pack_word(fields, {spec.name: row.get(spec.name, 0) for spec in fields}) for row in descriptors)
    segments = [Segment(layer, index, 1) for index, layer in enumerate(names)]
    return _rom(name, fields, words, segments, style="logic", description="descriptors")


def table_rom(name: str, fields: Sequence[FieldSpec], words: Iterable[int]) -> Rom:
    """Return a ROM of a table that belongs to no layer."""
    return _rom(name, fields, words, ())
