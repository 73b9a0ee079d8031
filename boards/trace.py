"""Decode the logs of ``sim_top`` and compare every written value with the expected tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.boards.simulated_design import Places
from zeroskip.compiler.errors import VerificationError

__all__ = ["NEVER_WRITTEN", "Comparison", "Mismatch", "TensorTrace", "compare_outputs", "compare_trace", "read_records"]

NEVER_WRITTEN = np.iinfo(np.int16).min
"""What stands in the values of a layer where nothing was written."""

KEPT_MISMATCHES = 100
"""How many mismatches are kept with their place; all are counted."""

_CHUNK_RECORDS = 1 << 20
_NEVER = np.iinfo(np.int64).max

IntArray = NDArray[Any]


@dataclass(frozen=True)
class Mismatch:
    """One value that differs: ``kind`` is ``"value"``, ``"missing"``, ``"repeated"``, ``"outside"`` (no such
    place) or ``"late"`` (after the last output word).

    ``got`` and ``cycle`` are None for a missing value; ``expected`` is None where nothing was expected.
    """

    kind: str
    layer: str
    channel: int
    y: int
    x: int
    expected: int | None
    got: int | None
    cycle: int | None
    vector: int

    def __str__(self) -> str:
        place = f"layer '{self.layer}' (vector {self.vector}, channel {self.channel}, y {self.y}, x {self.x}"
        place += ")" if self.cycle is None else f", cycle {self.cycle})"
        match self.kind:
            case "missing":
                return f"{place}: never written" + ("" if self.expected is None else f", expected {self.expected}")
            case "repeated":
                return f"{place}: written more than once, got {self.got}"
            case "outside":
                return f"{place}: outside the tensor, got {self.got}"
            case "late":
                return f"{place}: written after the last output word, got {self.got}"
        return f"{place}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True)
class TensorTrace:
    """What is checked about the tensor a layer writes: its shape and, for every vector, its codes.

    Without ``expected`` only the coverage is checked: each element written exactly once.
    """

    layer: str
    shape: tuple[int, int, int]
    signed: bool
    expected: IntArray | None
    places: Places | None = None

    def positions(self, place: IntArray) -> tuple[IntArray, IntArray]:
        """Return row and column of the places in a trace; -1 where the map has no such place."""
        element = place
        count = self.shape[1] * self.shape[2]
        if self.places is not None:
            table = np.array(self.places.elements, np.int64)
            index = place - self.places.first
            known = (index >= 0) & (index < len(table))
            element = np.where(known, table[np.clip(index, 0, len(table) - 1)], -1)
        outside = (element < 0) | (element >= count)
        return np.where(outside, -1, element // self.shape[2]), np.where(outside, -1, element % self.shape[2])

    def channels(self, channel: IntArray, place: IntArray) -> IntArray:
        """Return the channels of the records in a trace; those that only fill a word up lie past the last one."""
        if self.places is None or self.places.rows == 1:
            return channel
        together: IntArray = channel * self.places.rows + (place - self.places.first) % self.places.rows
        return together

    @property
    def filled(self) -> int:
        """Channels with those that fill the last word up."""
        rows = 1 if self.places is None else self.places.rows
        return -(-self.shape[0] // rows) * rows

    @property
    def size(self) -> int:
        """Values of one vector."""
        return int(np.prod(self.shape))


class Comparison:
    """Counts of compared and differing values, and the first :data:`KEPT_MISMATCHES` with their place."""

    def __init__(self) -> None:
        self.compared = 0
        self.differing = 0
        self._kept: list[tuple[tuple[int, int, int], Mismatch]] = []

    @property
    def mismatches(self) -> tuple[Mismatch, ...]:
        """Kept mismatches in the order of vector, layer, cycle."""
        return tuple(mismatch for _, mismatch in sorted(self._kept, key=lambda pair: pair[0])[:KEPT_MISMATCHES])

    def add(
        self,
        kind: str,
        number: int,
        tensor: TensorTrace,
        vectors: IntArray,
        places: Sequence[IntArray],
        expected: IntArray | None,
        got: IntArray | None,
        cycles: IntArray | None,
    ) -> None:
        """Count mismatches of layer ``number`` and keep the first ones; the arrays have one entry a mismatch."""
        self.differing += len(vectors)
        for index in range(min(len(vectors), KEPT_MISMATCHES)):
            cycle = None if cycles is None else int(cycles[index])
            channel, y, x = (int(axis[index]) for axis in places)
            mismatch = Mismatch(
                kind,
                tensor.layer,
                channel,
                y,
                x,
                None if expected is None else int(expected[index]),
                None if got is None else int(got[index]),
                cycle,
                int(vectors[index]),
            )
            order = (mismatch.vector, number, _NEVER if cycle is None else cycle)
            self._kept.append((order, mismatch))


def read_records(path: Path, layout: Sequence[int]) -> Iterator[tuple[IntArray, ...]]:
    """Yield the records of a log in chunks: one int64 array a field, ``layout`` gives the fields' widths in bits.

    Raises
    ------
    VerificationError
        If a field holds an unknown value (``x`` or ``z``, from a four-state simulator).
    """
    record_bytes = sum(layout) // 8
    with path.open("rb") as log:
        while text := log.read(2 * record_bytes * _CHUNK_RECORDS):
            try:
                raw = bytes.fromhex(text.decode("ascii"))
            except ValueError as error:
                raise VerificationError(f"Log '{path.name}' holds unknown values (x): a port was never set") from error
            table = np.frombuffer(raw[: len(raw) // record_bytes * record_bytes], np.uint8).reshape(-1, record_bytes)
            fields, first = [], 0
            for bits in layout:
                value = np.zeros(len(table), np.int64)
                for column in range(first, first + bits // 8):
                    value = value << 8 | table[:, column]
                fields.append(value)
                first += bits // 8
            yield tuple(fields)


def compare_trace(
    path: Path,
    tensors: Sequence[TensorTrace],
    finished: int,
    vector_of: IntArray,
    comparison: Comparison,
    values: Sequence[IntArray] | None = None,
) -> None:
    """Compare every value in the trace log; each element must be written exactly once an inference.

    Parameters
    ----------
    path : the trace log
    tensors : what each layer writes, in layer order
    finished : inferences whose last output word has left
    vector_of : ndarray[int], shape (inferences,): the vector each inference was given
    comparison : receives the counts
    values : ndarray[int16], shape (vectors, size), one a layer: receives what was written for each vector first, where
        it holds :data:`NEVER_WRITTEN`
    """
    inferences = len(vector_of)
    written = [np.zeros((inferences, tensor.size), np.uint8) for tensor in tensors]
    for cycle, inference, layer, channel, place, data in read_records(path, (48, 16, 16, 16, 32, 16)):
        late = inference >= inferences
        for number in np.unique(layer[late | (layer >= len(tensors))]).tolist():
            known = number < len(tensors)
            nobody = TensorTrace(tensors[number].layer if known else f"number {number}", (0, 0, 0), False, None)
            rows = np.flatnonzero((layer == number) & (late | (not known)))
            vectors = vector_of[np.minimum(inference[rows], inferences - 1)]
            places = (channel[rows], np.zeros_like(rows), place[rows])
            comparison.add(
                "late" if known else "outside", number, nobody, vectors, places, None, data[rows], cycle[rows]
            )
        for number, tensor in enumerate(tensors):
            channels = tensor.channels(channel, place)
            filling = (channels >= tensor.shape[0]) & (channels < tensor.filled)
            rows = np.flatnonzero((layer == number) & ~late & ~filling)
            if rows.size:
                y, x = tensor.positions(place[rows])
                columns = (inference[rows], channels[rows], y, x, data[rows], cycle[rows])
                kept = None if values is None else values[number]
                _compare_rows(number, tensor, columns, written[number], vector_of, comparison, kept)
    for number, (tensor, counts) in enumerate(zip(tensors, written, strict=True)):
        # Only finished inferences can be said to miss a value.
        inference, index = np.nonzero(counts[:finished] == 0)
        if inference.size:
            vectors = vector_of[inference]
            wanted = None if tensor.expected is None else tensor.expected.reshape(-1, tensor.size)[vectors, index]
            where = np.unravel_index(index, tensor.shape)
            comparison.add("missing", number, tensor, vectors, where, wanted, None, None)


def _compare_rows(
    number: int,
    tensor: TensorTrace,
    columns: Sequence[IntArray],
    written: IntArray,
    vector_of: IntArray,
    comparison: Comparison,
    values: IntArray | None,
) -> None:
    """Compare the writes of one layer in one chunk, count them in ``written`` and keep them in ``values``."""
    inside = np.ones(len(columns[0]), bool)
    for axis, limit in zip(columns[1:4], tensor.shape, strict=True):
        inside &= (axis >= 0) & (axis < limit)
    if not inside.all():
        inference, channel, y, x, data, cycle = (column[~inside] for column in columns)
        places = (channel, y, x)
        comparison.add("outside", number, tensor, vector_of[inference], places, None, data, cycle)
    inference, channel, y, x, data, cycle = (column[inside] for column in columns)
    index = np.ravel_multi_index((channel, y, x), tensor.shape)
    got = _codes(data, tensor.signed)
    if values is not None:
        # backwards, so that of several writes of an element the first one stays
        kept = np.flatnonzero(inference < len(values))[::-1]
        kept = kept[values[inference[kept], index[kept]] == NEVER_WRITTEN]
        values[inference[kept], index[kept]] = got[kept]
    comparison.compared += len(index) if tensor.expected is not None else 0
    if tensor.expected is not None:
        wanted = tensor.expected.reshape(-1, tensor.size)[vector_of[inference], index]
        wrong = np.flatnonzero(wanted != got)
        if wrong.size:
            places = (channel[wrong], y[wrong], x[wrong])
            vectors = vector_of[inference[wrong]]
            comparison.add("value", number, tensor, vectors, places, wanted[wrong], got[wrong], cycle[wrong])
    # A write is repeated when the same element was written before, in this chunk or an earlier one.
    flat = inference * tensor.size + index
    _, first = np.unique(flat, return_index=True)
    fresh = np.zeros(len(flat), bool)
    fresh[first] = True
    fresh &= written.reshape(-1)[flat] == 0
    written.reshape(-1)[flat] = 1
    again = np.flatnonzero(~fresh)
    if again.size:
        places = (channel[again], y[again], x[again])
        vectors = vector_of[inference[again]]
        comparison.add("repeated", number, tensor, vectors, places, None, got[again], cycle[again])


def compare_outputs(
    number: int, tensor: TensorTrace, words: IntArray, cycles: IntArray, vector_of: IntArray, comparison: Comparison
) -> IntArray:
    """Compare the output words in their order and return them as codes, shape (finished inferences, size).

    ``words`` and ``cycles`` have one entry an accepted output word; words after the last inference are mismatches.
    """
    wanted_words = len(vector_of) * tensor.size
    codes = _codes(words, tensor.signed)
    extra = len(codes) - wanted_words
    if extra > 0:
        vectors = np.full(extra, vector_of[-1])
        places = (np.arange(extra) + tensor.shape[0], np.zeros(extra, np.int64), np.zeros(extra, np.int64))
        late = slice(wanted_words, None)
        comparison.add("outside", number, tensor, vectors, places, None, codes[late], cycles[late])
        codes = codes[:wanted_words]
    if tensor.expected is not None:
        wanted = tensor.expected.reshape(-1, tensor.size)[vector_of].reshape(-1)[: len(codes)]
        comparison.compared += len(codes)
        wrong = np.flatnonzero(wanted != codes)
        if wrong.size:
            place = np.unravel_index(wrong % tensor.size, tensor.shape)
            vectors = vector_of[wrong // tensor.size]
            comparison.add("value", number, tensor, vectors, place, wanted[wrong], codes[wrong], cycles[wrong])
    return codes[: len(codes) // tensor.size * tensor.size].reshape(-1, tensor.size)


def _codes(data: IntArray, signed: bool) -> IntArray:
    """Turn bytes into codes: two's complement when ``signed``."""
    return np.where(data >= 128, data - 256, data) if signed else data
