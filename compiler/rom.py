"""Program -> ROM images: parameters, tap and address tables, requantization and layer descriptors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zeroskip.compiler.ir import Model
from zeroskip.compiler.program import FieldSpec, Rom, Segment, TensorLayout
from zeroskip.compiler.schedule import window_offset
from zeroskip.compiler.target import Engine, EngineConfig, Geometry

if TYPE_CHECKING:
    from zeroskip.compiler.lower import Job

__all__ = ["Tables", "layers_rom", "pack_word", "unpack_word", "weight_code", "weight_level"]

LOGIC_BITS = 2048
"""A smaller ROM is cheaper in LUTs than a block RAM that stays nearly empty."""


def weight_code(levels: np.ndarray, zero_excluded: bool, width: int) -> np.ndarray:
    """Return the stored codes of ``levels``: two's complement in ``width`` bits, zero-excluded positive ones less 1."""
    codes = np.asarray(levels, np.int64)
    if zero_excluded:
        codes = np.where(codes > 0, codes - 1, codes)
    return codes & ((1 << width) - 1)


def weight_level(codes: np.ndarray, zero_excluded: bool, width: int) -> np.ndarray:
    """Return the levels of stored ``codes``, the inverse of :func:`weight_code`."""
    codes = np.asarray(codes, np.int64)
    signed = np.where(codes >> (width - 1) & 1, codes - (1 << width), codes)
    return np.where(signed >= 0, signed + 1, signed) if zero_excluded else signed


def pack_word(fields: Sequence[FieldSpec], values: Mapping[str, int]) -> int:
    """Pack named values into one ROM word."""
    word = 0
    for spec in fields:
        value = values[spec.name]
        low, high = (-(1 << (spec.bits - 1)), (1 << (spec.bits - 1)) - 1) if spec.signed else (0, (1 << spec.bits) - 1)
        if not low <= value <= high:
            raise ValueError(f"Field {spec.name!r} must be {low} to {high}, not {value!r}")
        word |= (value & ((1 << spec.bits) - 1)) << spec.lsb
    return word


def unpack_word(fields: Sequence[FieldSpec], word: int) -> dict[str, int]:
    """Unpack a ROM word into named values, the inverse of :func:`pack_word`."""
    values = {}
    for spec in fields:
        value = word >> spec.lsb & ((1 << spec.bits) - 1)
        values[spec.name] = value - (1 << spec.bits) if spec.signed and value >> (spec.bits - 1) else value
    return values


def field_layout(rows: Sequence[Mapping[str, int]]) -> tuple[FieldSpec, ...]:
    """Lay out the fields of ``rows``, each just wide enough, in sorted order from bit 0."""
    specs = []
    lsb = 0
    for name in sorted({name for row in rows for name in row}):
        values = [row.get(name, 0) for row in rows]
        signed = min(values) < 0
        bits = max(1, max((v if v >= 0 else -v - 1).bit_length() for v in values)) + int(signed)
        specs.append(FieldSpec(name, lsb, bits, signed))
        lsb += bits
    return tuple(specs)


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
    """The ROM images of a network while they are filled, and the base of each layer in each of them."""

    def __init__(
        self, jobs: Sequence[Job], config: EngineConfig, model: Model, placed: Mapping[str, TensorLayout]
    ) -> None:
        self.config = config
        self.bases: list[dict[str, int]] = [{} for _ in jobs]
        self.load: dict[str, int] = {}
        self.unload: dict[str, int] = {}
        self.roms: list[Rom] = []
        if config.geometry.engine is Engine.DENSE:
            self._dense_weights(jobs)
        else:
            self._sparse_weights(jobs)
            self._row_lengths(jobs)
        self._taps(jobs, placed)
        self._bias(jobs)
        self._offsets(jobs)
        self._coordinates(jobs, model, placed)

    def _slot_fields(self) -> tuple[FieldSpec, ...]:
        index = (FieldSpec("index", 0, self.config.index_width),) if self.config.index_width else ()
        return (*index, FieldSpec("weight", self.config.index_width, self.config.weight_width))

    def _pack_slots(self, slots: np.ndarray) -> list[int]:
        """Pack slot values of shape ``(words, lanes)`` into words, slot 0 in the low bits."""
        words = np.zeros(slots.shape[0], object)
        for lane in range(slots.shape[1]):
            words += slots[:, lane].astype(object) << (lane * self.config.slot_bits)
        return [int(word) for word in words]

    def _to_words(self, slots: np.ndarray) -> np.ndarray:
        """Cut a run of slots into words of L, the last one filled with zeros."""
        lanes = self.config.geometry.lanes
        padded = np.zeros(-(-len(slots) // lanes) * lanes, np.int64)
        padded[: len(slots)] = slots
        return padded.reshape(-1, lanes)

    def _dense_weights(self, jobs: Sequence[Job]) -> None:
        geometry = self.config.geometry
        columns: list[list[int]] = [[] for _ in range(geometry.columns)]
        segments = []
        for job, base in zip(jobs, self.bases, strict=True):
            base["weight_base"] = len(columns[0]) * geometry.lanes
            blocks = [self._pack_slots(block) for block in self._dense_blocks(job)]
            segments.append(Segment(job.layer.name, len(columns[0]), len(blocks[0])))
            for column, block in zip(columns, blocks, strict=True):
                column.extend(block)
        for index, words in enumerate(columns):
            self._add(
                f"weights_{index}",
                self._slot_fields(),
                words,
                segments,
                slots=geometry.lanes,
                style="block",
                description="dense",
            )

    def _dense_blocks(self, job: Job) -> list[np.ndarray]:
        """Return for each column its words ``(words, lanes)`` of codes."""
        config, geometry = self.config, self.config.geometry
        codes = weight_code(job.weight, job.zero_excluded, config.weight_width)
        stride = 1 if job.depthwise else geometry.columns
        groups = -(-codes.shape[0] // stride)
        padded = np.zeros((groups * stride, codes.shape[1]), np.int64)
        padded[: codes.shape[0]] = codes
        blocks = []
        for column in range(geometry.columns):
            rows = padded[column::stride] if column < stride else np.zeros_like(padded[0::stride])
            if job.linear:
                blocks.append(linear_words(rows, job.words, geometry.lanes).reshape(-1, geometry.lanes))
            else:
                blocks.append(self._to_words(rows.reshape(-1)))
        return blocks

    def _sparse_weights(self, jobs: Sequence[Job]) -> None:
        lanes = self.config.geometry.lanes
        words: list[int] = []
        segments = []
        for job, base in zip(jobs, self.bases, strict=True):
            base["weight_base"] = len(words) * lanes
            values = [[self._entry(job, entry) for entry in row] for row in job.rows]
            if job.linear:
                packed = self._lane_words(values, self._entry(job, ((1 << job.index_bits) - 1, 0)))
            else:
                packed = self._to_words(np.array([value for row in values for value in row], np.int64))
            segments.append(Segment(job.layer.name, len(words), len(packed)))
            words.extend(self._pack_slots(packed))
        self._add(
            "weights_0", self._slot_fields(), words, segments, slots=lanes, style="block", description="relative_index"
        )

    def _entry(self, job: Job, entry: tuple[int, int]) -> int:
        index, level = entry
        config = self.config
        code = int(weight_code(np.array([level]), job.zero_excluded, config.weight_width)[0])
        return index | code << config.index_width

    def _lane_words(self, rows: Sequence[Sequence[int]], idle: int) -> np.ndarray:
        """One row a lane, in groups of L rows; lanes whose row is over idle until the longest ends."""
        lanes = self.config.geometry.lanes
        blocks = []
        for first in range(0, len(rows), lanes):
            group = rows[first : first + lanes]
            block = np.full((max(len(row) for row in group), lanes), idle, np.int64)
            for lane, row in enumerate(group):
                block[: len(row), lane] = row
            blocks.append(block)
        return np.concatenate(blocks)

    def _row_lengths(self, jobs: Sequence[Job]) -> None:
        """One length a row (linear: a group of L rows): the sequencer knows a row's end before the ROM answers."""
        lanes = self.config.geometry.lanes
        lengths: list[int] = []
        segments = []
        for job, base in zip(jobs, self.bases, strict=True):
            base["row_base"] = len(lengths)
            counts = [len(row) for row in job.rows]
            if job.linear:
                counts = [max(counts[i : i + lanes]) for i in range(0, len(counts), lanes)]
            segments.append(Segment(job.layer.name, len(lengths), len(counts)))
            lengths.extend(count - 1 for count in counts)
        fields = field_layout([{"length_less_1": length} for length in lengths])
        self._add("rows", fields, lengths, segments)

    def _taps(self, jobs: Sequence[Job], placed: Mapping[str, TensorLayout]) -> None:
        lanes = self.config.geometry.lanes
        rows: list[dict[str, int]] = []
        segments = []
        for job, base in zip(jobs, self.bases, strict=True):
            base["tap_base"] = len(rows)
            if job.access is not None:
                step = placed[job.layer.input].channel_step // lanes
                dilation_y, dilation_x = job.access.dilation
                rows.extend({"word": c * step, "y": y * dilation_y, "x": x * dilation_x} for c, y, x in job.taps)
            elif job.words is not None:
                rows.extend({"word": word, "y": 0, "x": 0} for word in job.words)
            segments.append(Segment(job.layer.name, base["tap_base"], len(rows) - base["tap_base"]))
        if rows:
            fields = field_layout(rows)
            self._add("taps", fields, (pack_word(fields, row) for row in rows), segments)

    def _bias(self, jobs: Sequence[Job]) -> None:
        config = self.config
        fields = [FieldSpec("bias", 0, config.bias_width, True)]
        if config.per_channel:
            fields.append(FieldSpec("multiplier", config.bias_width, max(config.multiplier_width, 1)))
            fields.append(FieldSpec("shift", config.bias_width + fields[1].bits, max(config.shift_width, 1)))
        words: list[int] = []
        segments = []
        for job, base in zip(jobs, self.bases, strict=True):
            base["bias_base"] = len(words)
            channels = len(job.bias)
            segments.append(Segment(job.layer.name, len(words), channels))
            multiplier = np.broadcast_to(job.scales.multiplier, channels)
            shift = np.broadcast_to(job.scales.shift, channels) - config.shift_min
            for bias, m, s in zip(job.bias, multiplier, shift, strict=True):
                values = {"bias": int(bias), "multiplier": int(m), "shift": int(s)}
                words.append(pack_word(fields, values))
        self._add("bias", fields, words, segments)

    def _offsets(self, jobs: Sequence[Job]) -> None:
        """Address offsets of window and tap coordinates; entry 0 is the zero that linear layers use."""
        mask = (1 << self.config.position_bits) - 1
        words = [0]
        segments = [Segment("", 0, 1)]
        for job, base in zip(jobs, self.bases, strict=True):
            first = len(words)
            base["y_table"] = base["x_table"] = 0
            if job.access is not None and job.tile is not None:
                for axis, name in enumerate(("y_table", "x_table")):
                    base[name] = len(words)
                    padding, span = job.access.padding[axis], job.access.span[axis]
                    offsets = (
                        window_offset(job.access, job.tile, job.source.shape, axis, t - padding) for t in range(span)
                    )
                    words.extend(offset & mask for offset in offsets)
            segments.append(Segment(job.layer.name, first, len(words) - first))
        fields = (FieldSpec("offset", 0, self.config.position_bits),)
        self._add("offsets", fields, words, segments, ports=2, style="logic" if len(words) <= 256 else None)

    def _coordinates(self, jobs: Sequence[Job], model: Model, placed: Mapping[str, TensorLayout]) -> None:
        """Address offsets of output rows and columns in the layout of the consumer; entry 0 is zero for vectors."""
        words = [0]
        segments = [Segment("", 0, 1)]
        names = [model.input, *(job.layer.output for job in jobs)]
        bases = [self.load, *self.bases]
        for name, base in zip(names, bases, strict=True):
            first = len(words)
            layout = placed[name]
            base["row_table"] = base["column_table"] = 0
            if len(layout.rows) > 1 or len(layout.columns) > 1:
                base["row_table"] = len(words)
                words.extend(layout.rows)
                base["column_table"] = len(words)
                words.extend(layout.columns)
            segments.append(Segment(name, first, len(words) - first))
        self.unload.update({key: bases[-1][key] for key in ("row_table", "column_table")})
        fields = (FieldSpec("offset", 0, self.config.position_bits),)
        self._add("coordinates", fields, words, segments, ports=2, style="logic" if len(words) <= 256 else None)

    def _add(
        self,
        name: str,
        fields: Sequence[FieldSpec],
        words: Iterable[int],
        segments: Sequence[Segment],
        **options: object,
    ) -> None:
        self.roms.append(_rom(name, fields, words, segments, **options))  # type: ignore[arg-type]


def linear_words(rows: np.ndarray, words: Sequence[int] | None, lanes: int) -> np.ndarray:
    """Return rows cut into words of L inputs, shape ``(rows, kept words, lanes)``; the tail is filled with zeros."""
    count = -(-rows.shape[1] // lanes)
    padded = np.zeros((rows.shape[0], count * lanes), np.int64)
    padded[:, : rows.shape[1]] = rows
    cut = padded.reshape(rows.shape[0], count, lanes)
    return cut if words is None else cut[:, list(words)]


def layers_rom(descriptors: Sequence[Mapping[str, int]], names: Sequence[str]) -> Rom:
    """Pack the load, layer and unload descriptors, one word each; a field a descriptor does not use is 0."""
    fields = field_layout(descriptors)
    words = (pack_word(fields, {spec.name: row.get(spec.name, 0) for spec in fields}) for row in descriptors)
    segments = [Segment(name, index, 1) for index, name in enumerate(names)]
    return _rom("layers", fields, words, segments, style="logic", description="descriptors")


def slot_count(job: Job, geometry: Geometry) -> int:
    """Return how many parameter slots the layer stores, useful or not."""
    if geometry.engine is Engine.SPARSE:
        if not job.linear:
            return sum(len(row) for row in job.rows)
        lanes = geometry.lanes
        return sum(max(len(row) for row in job.rows[i : i + lanes]) * lanes for i in range(0, len(job.rows), lanes))
    rows = job.weight.shape[0]
    columns = 1 if job.depthwise else geometry.columns
    rows = -(-rows // columns) * columns
    if job.linear:
        words = len(job.words) if job.words is not None else -(-job.source.size // geometry.lanes)
        return int(rows * words * geometry.lanes)
    return int(rows * job.weight.shape[1])
