"""Decoding of the simulation's logs and the comparison of traces, with chunks smaller than a log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zeroskip.boards import trace
from zeroskip.boards.simulated_design import Places
from zeroskip.boards.trace import KEPT_MISMATCHES, Comparison, TensorTrace, compare_outputs, compare_trace, read_records
from zeroskip.compiler.errors import VerificationError

LAYOUT = (48, 16, 16, 16, 32, 16)
SHAPES = ((2, 3, 4), (5, 1, 1))
VECTORS = 4
CYCLES_PER_INFERENCE = 100


def expected_codes() -> list[np.ndarray]:
    """Return the codes of an unsigned and of a signed tensor."""
    generator = np.random.default_rng(1)
    return [
        generator.integers(0, 256, (VECTORS, *SHAPES[0])),
        generator.integers(-128, 128, (VECTORS, *SHAPES[1])),
    ]


def right_records(codes: list[np.ndarray]) -> list[list[int]]:
    """Return the trace of a right design: each inference writes layer 0, then layer 1."""
    records = []
    for vector in range(VECTORS):
        cycle = vector * CYCLES_PER_INFERENCE
        for layer, tensor in enumerate(codes):
            for channel, values in enumerate(tensor[vector].reshape(tensor.shape[1], -1)):
                for place, value in enumerate(values.tolist()):
                    cycle += 1
                    records.append([cycle, vector, layer, channel, place, value & 0xFF])
    return records


def write_log(path: Path, records: list[list[int]], layout: tuple[int, ...] = LAYOUT) -> Path:
    """Write records as the simulation does."""
    path.write_text("".join(f"{v:0{bits // 4}x}" for record in records for v, bits in zip(record, layout, strict=True)))
    return path


def compare(
    path: Path,
    records: list[list[int]],
    codes: list[np.ndarray],
    *,
    finished: int = VECTORS,
    places: Places | None = None,
) -> Comparison:
    """Compare a trace."""
    tensors = [
        TensorTrace("layer0", SHAPES[0], False, codes[0], places),
        TensorTrace("layer1", SHAPES[1], True, codes[1]),
    ]
    comparison = Comparison()
    compare_trace(write_log(path, records), tensors, finished, np.arange(VECTORS), comparison)
    return comparison


def place_of(record: list[int]) -> tuple[int, int, int]:
    """Return channel, row and column of a record."""
    _, _, layer, channel, place, _ = record
    return channel, *divmod(place, SHAPES[layer][2])


@pytest.fixture(params=[1, 7, 1 << 20], ids=lambda records: f"chunk{records}")
def chunk(request, monkeypatch) -> int:
    """Read the log in chunks of this many records."""
    monkeypatch.setattr(trace, "_CHUNK_RECORDS", request.param)
    return request.param


def test_records_round_trip(tmp_path, chunk):
    records = [[2**47 + 5, 65535, 1, 2, 2**31 + 3, 255], [0, 0, 0, 0, 0, 0], [7, 1, 2, 3, 4, 5]]
    chunks = list(read_records(write_log(tmp_path / "log", records), LAYOUT))
    assert np.concatenate([np.stack(fields, 1) for fields in chunks]).tolist() == records


def test_unknown_values_are_an_error(tmp_path):
    (tmp_path / "trace.hex").write_text("00xx")
    text = r"^Log 'trace.hex' holds unknown values \(x\): a port was never set$"
    with pytest.raises(VerificationError, match=text):
        list(read_records(tmp_path / "trace.hex", (16,)))


def test_right_trace(tmp_path, chunk):
    codes = expected_codes()
    comparison = compare(tmp_path / "log", right_records(codes), codes)
    assert (comparison.compared, comparison.differing) == (VECTORS * (24 + 5), 0)
    assert comparison.mismatches == ()


@pytest.mark.parametrize("index", [0, 23, 24, 28, 29, 60, 115])
def test_one_wrong_value(tmp_path, chunk, index):
    codes = expected_codes()
    records = right_records(codes)
    cycle, vector, layer, _, _, data = records[index]
    assert vector == index // 29
    channel, y, x = place_of(records[index])
    records[index][-1] = data ^ 0x80
    comparison = compare(tmp_path / "log", records, codes)
    assert comparison.differing == 1
    (mismatch,) = comparison.mismatches
    wanted = int(codes[layer][vector, channel, y, x])
    assert (mismatch.kind, mismatch.layer, mismatch.cycle, mismatch.vector) == ("value", f"layer{layer}", cycle, vector)
    assert (mismatch.channel, mismatch.y, mismatch.x) == (channel, y, x)
    assert mismatch.expected == wanted
    assert abs(mismatch.got - wanted) == 128


@pytest.mark.parametrize("index", [0, 40, 115])
def test_missing_and_repeated_values(tmp_path, chunk, index):
    codes = expected_codes()
    missing = right_records(codes)
    cycle, vector, layer, channel, place, data = missing[index]
    where = place_of(missing.pop(index))
    (mismatch,) = compare(tmp_path / "log", missing, codes).mismatches
    assert (mismatch.kind, mismatch.layer, mismatch.cycle, mismatch.got) == ("missing", f"layer{layer}", None, None)
    assert (mismatch.channel, mismatch.y, mismatch.x) == where
    assert mismatch.vector == vector == index // 29

    repeated = right_records(codes)
    repeated.insert(index + 1, [cycle + 1, vector, layer, channel, place, data])
    (mismatch,) = compare(tmp_path / "log", repeated, codes).mismatches
    assert (mismatch.kind, mismatch.layer, mismatch.cycle) == ("repeated", f"layer{layer}", cycle + 1)


@pytest.mark.parametrize("index", [0, 40, 115])
def test_value_of_another_inference(tmp_path, chunk, index):
    codes = expected_codes()
    records = right_records(codes)
    _, vector, layer, *_ = records[index]
    other = (vector + 1) % VECTORS
    records[index][1] = other
    mismatches = compare(tmp_path / "log", records, codes).mismatches
    kinds = {(m.kind, m.layer, m.vector) for m in mismatches}
    assert kinds - {("value", f"layer{layer}", other)} == {
        ("missing", f"layer{layer}", vector),
        ("repeated", f"layer{layer}", other),
    }


def test_inferences_that_overlap(tmp_path, chunk):
    codes = expected_codes()
    records = right_records(codes)
    # layer 1 of an inference is written while layer 0 of the next one is
    records.sort(key=lambda record: (record[1] + record[2], -record[2]))
    comparison = compare(tmp_path / "log", records, codes)
    assert (comparison.compared, comparison.differing) == (VECTORS * (24 + 5), 0)


def test_unfinished_inference_misses_nothing(tmp_path, chunk):
    codes = expected_codes()
    records = right_records(codes)[:-3]
    assert compare(tmp_path / "log", records, codes, finished=VECTORS - 1).differing == 0
    assert compare(tmp_path / "log", records, codes).differing == 3


def test_places_outside(tmp_path, chunk):
    codes = expected_codes()
    records = [
        *right_records(codes),
        [398, 3, 0, 1, 12, 9],
        [399, 3, 0, 2, 0, 9],
        [400, 3, 7, 0, 0, 9],
        [401, 4, 0, 0, 0, 9],
    ]
    mismatches = compare(tmp_path / "log", records, codes).mismatches
    assert [(m.kind, m.layer, m.cycle) for m in mismatches] == [
        ("outside", "layer0", 398),
        ("outside", "layer0", 399),
        ("late", "layer0", 401),
        ("outside", "number 7", 400),
    ]


def test_places_name_the_elements(tmp_path, chunk):
    codes = expected_codes()
    # the map in tiles of 4 x 2: rows 0 and 1 of columns 0, 1, then of columns 2, 3; two places beyond the map
    elements = (0, 1, 4, 5, 2, 3, 6, 7, 8, 9, -1, -1, 10, 11)
    places = Places(5, elements)
    records = [
        [*record[:4], 5 + elements.index(record[4]), record[5]] if record[2] == 0 else record
        for record in right_records(codes)
    ]
    assert compare(tmp_path / "log", records, codes, places=places).differing == 0

    records[4][-1] ^= 1
    (mismatch,) = compare(tmp_path / "log", records, codes, places=places).mismatches
    assert (mismatch.kind, mismatch.channel, mismatch.y, mismatch.x) == ("value", 0, 1, 0)
    records[4][-1] ^= 1

    for place in (4, 5 + 10, 5 + len(elements)):
        strange = [*records, [399, 3, 0, 1, place, 9]]
        (mismatch,) = compare(tmp_path / "log", strange, codes, places=places).mismatches
        assert (mismatch.kind, mismatch.layer, mismatch.channel, mismatch.cycle) == ("outside", "layer0", 1, 399)


def test_first_mismatches_are_kept_and_all_counted(tmp_path, chunk):
    codes = expected_codes()
    records = [[*record[:-1], record[-1] ^ 1] for record in right_records(codes)]
    comparison = compare(tmp_path / "log", records, codes)
    assert comparison.differing == len(records)
    assert len(comparison.mismatches) == KEPT_MISMATCHES
    assert [m.cycle for m in comparison.mismatches] == [record[0] for record in records[:KEPT_MISMATCHES]]


def test_outputs_too_few_and_too_many():
    codes = expected_codes()[1]
    tensor = TensorTrace("output stream", SHAPES[1], True, codes)
    words = codes.reshape(-1) & 0xFF
    vectors = np.arange(VECTORS)

    comparison = Comparison()
    outputs = compare_outputs(2, tensor, words[:-1], np.arange(19), vectors, comparison)
    np.testing.assert_array_equal(outputs, codes.reshape(VECTORS, -1)[:-1])
    assert (comparison.compared, comparison.differing) == (19, 0)

    comparison = Comparison()
    outputs = compare_outputs(2, tensor, np.append(words, [1, 2]), np.arange(22), vectors, comparison)
    np.testing.assert_array_equal(outputs, codes.reshape(VECTORS, -1))
    assert [(m.kind, m.got, m.cycle) for m in comparison.mismatches] == [("outside", 1, 20), ("outside", 2, 21)]


def test_the_first_write_of_every_place_is_kept(tmp_path, chunk):
    codes = expected_codes()
    records = right_records(codes)
    records[3][-1] ^= 1
    repeated = [*records[:30], [records[30][0], *records[30][1:-1], records[30][-1] ^ 1], *records[30:]]
    lost = repeated.pop(60)
    tensors = [TensorTrace("layer0", SHAPES[0], False, codes[0]), TensorTrace("layer1", SHAPES[1], True, codes[1])]
    values = [np.full((VECTORS - 1, tensor.size), trace.NEVER_WRITTEN, np.int16) for tensor in tensors]
    compare_trace(write_log(tmp_path / "log", repeated), tensors, VECTORS, np.arange(VECTORS), Comparison(), values)
    expected = [tensor[: VECTORS - 1].reshape(VECTORS - 1, -1).copy() for tensor in codes]
    expected[0][0, 3] ^= 1
    expected[0][1, 1] ^= 1
    _, vector, layer, channel, place, _ = lost
    expected[layer][vector, channel * int(np.prod(SHAPES[layer][1:])) + place] = trace.NEVER_WRITTEN
    for found, wanted in zip(values, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
