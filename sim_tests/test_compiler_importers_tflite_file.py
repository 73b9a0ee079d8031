"""Damaged and hostile files: a clean error or a legal model, whatever the bytes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tflite_cases import CASES, inputs_of
from tflite_models import Act, Op, flatbuffer, mutated
from zeroskip.compiler import reference
from zeroskip.compiler.errors import InputError, ZeroskipError
from zeroskip.compiler.importers.tflite import load_tflite
from zeroskip.compiler.importers.tflite.file import read_graph

NAMES = ("conv_same_stride", "add_relu", "reshape", "mean")


def write(tmp_path, content: bytes):
    path = tmp_path / "net.tflite"
    path.write_bytes(content)
    return path


def pool(**options):
    return Op("MAX_POOL_2D", ["input"], ["output"], {"FilterHeight": 1, "FilterWidth": 1, "StrideH": 1} | options)


def acts(*names: str) -> list[Act]:
    return [Act(name, (1, 2, 2, 1), 0.1, 0) for name in names]


def damaged_reports(path, mutations: int, seed: int) -> dict[str, int]:
    """Count how many mutations of a file were refused and how many accepted; anything else raises."""
    content, rng = path.read_bytes(), np.random.default_rng(seed)
    counts = {"refused": 0, "accepted": 0}
    for number in range(mutations):
        path.write_bytes(mutated(content, rng))
        try:
            model = load_tflite(path)
        except ZeroskipError as error:
            counts["refused"] += 1
            assert len(str(error)) < 2000, f"mutation {number}"
            continue
        tensor = model.tensors[model.input]
        codes = rng.integers(-128, 128, (1, *tensor.shape))
        assert reference.run(model, codes)[model.output].shape[1:] == model.tensors[model.output].shape
        counts["accepted"] += 1
    path.write_bytes(content)
    return counts


@pytest.mark.parametrize("name", NAMES)
def test_mutated_file_is_refused_or_a_legal_model(name, tmp_path):
    counts = damaged_reports(write(tmp_path, CASES[name].content), 60, seed=len(name))
    assert min(counts.values()) > 0


@pytest.mark.parametrize("name", ["pretrainedResnet_quant", "kws_ref_model"])
def test_mutated_real_file_is_refused_or_a_legal_model(name, tmp_path, data_folder):
    content = (data_folder / "models" / f"{name}.tflite").read_bytes()
    counts = damaged_reports(write(tmp_path, content), 30, seed=1)
    assert counts["refused"] > 0


def test_truncation_is_refused_unless_only_a_name_is_cut(tmp_path):
    case = CASES["mean"]
    codes = inputs_of(case).transpose(0, 3, 1, 2)
    whole = load_tflite(write(tmp_path, case.content))
    accepted = 0
    for length in range(0, len(case.content), 3):
        try:
            model = load_tflite(write(tmp_path, case.content[:length]))
        except InputError:
            continue
        accepted += 1
        outputs = [reference.run(one, codes)[one.output] for one in (model, whole)]
        assert np.array_equal(*outputs)
    assert accepted < 8


def test_plain_values(tmp_path):
    graph = read_graph(write(tmp_path, CASES["pad"].content))
    assert [node.operator for node in graph.nodes] == ["PAD", "CONV_2D"]
    assert graph.nodes[1].options["StrideH"] == 1 and graph.nodes[1].version == 3
    pads, value = graph.tensors[1], graph.tensors[0]
    assert pads.data is not None and pads.data.tolist() == [[0, 0], [1, 0], [2, 1], [0, 0]]
    assert (value.shape, value.type, value.data, value.scales.tolist()) == (
        (1, 4, 5, 2),
        "INT8",
        None,
        [np.float32(0.05)],
    )


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) == 1
    return content.replace(old, new)


SIZED = flatbuffer([Act("input", (1, 77001, 2, 1), 0.1), Act("output", (1, 2, 2, 1), 0.1)], [pool()])
SIZE = (77001).to_bytes(4, "little")
CONSTANT = Act("weight", data=np.arange(64, dtype=np.int8), scale=0.1)
HOSTILE = {
    "empty": (b"", r"is no TensorFlow Lite model: bytes 4 to 7 must be b'TFL3', not b''"),
    "zip": (b"PK\x03\x04" + bytes(40), r"is no TensorFlow Lite model: .*; give the .tflite file"),
    "pickle": (b"\x80\x04\x95" + bytes(40), r"is no TensorFlow Lite model"),
    "header only": (bytes(4) + b"TFL3", r"has schema version 0, but version 3 is supported"),
    "root outside": (b"\xff\xff\xff\x7fTFL3" + bytes(64), r"is a damaged flatbuffer"),
    "negative size": (replaced(SIZED, SIZE, b"\xff" * 4), r"must have sizes of at least 0, not shape \(1, -1, 2, 1\)"),
    "absurd size": (replaced(SIZED, SIZE, b"\xff\xff\xff\x7f"), r"of shape \(1, 2147483647, 2, 1\); nearest"),
    "two graphs": (flatbuffer(acts("input", "output"), [pool()], graphs=2), r"has 2 graphs, but control flow"),
    "two outputs": (
        flatbuffer(acts("input", "output"), [pool()], outputs=("output", "output")),
        r"must have one output tensor, not 2",
    ),
    "same names": (
        flatbuffer([*acts("input", "output"), *acts("output")], [pool()]),
        r"has two tensors of name 'output'; export it with distinct names",
    ),
    "nan scale": (
        flatbuffer([Act("input", (1, 2, 2, 1), float("nan")), *acts("output")], [pool()]),
        r"tensor 'input' must have finite scales above 0, not nan",
    ),
    "short constant": (
        replaced(
            flatbuffer([*acts("input", "output"), CONSTANT], [pool()]),
            (64).to_bytes(4, "little") + bytes(range(64)),
            (60).to_bytes(4, "little") + bytes(range(64)),
        ),
        r"tensor 'weight' of shape \(64,\) and type INT8 takes 64 bytes, but its buffer has 60",
    ),
    "long constant": (
        replaced(
            flatbuffer([*acts("input", "output"), CONSTANT], [pool()]),
            (64).to_bytes(4, "little") + bytes(range(64)),
            b"\xff\xff\xff\x7f" + bytes(range(64)),
        ),
        r"tensor 'weight' has a buffer of 2147483647 bytes, more than the file",
    ),
    "no operators": (flatbuffer(acts("input", "output"), []), r"has no operators"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file(name, tmp_path):
    content, message = HOSTILE[name]
    with pytest.raises(InputError, match=message):
        load_tflite(write(tmp_path, content))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"Model '{tmp_path / 'no.tflite'}' does not exist")):
        load_tflite(tmp_path / "no.tflite")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_tflite(tmp_path)


def test_fuzzed_cases_are_the_ones_that_are_read(tmp_path):
    """The unmutated files are accepted: refusals above come from the damage."""
    for name in NAMES:
        model = load_tflite(write(tmp_path, CASES[name].content))
        assert model.tensors[model.input].size == inputs_of(CASES[name])[0].size
