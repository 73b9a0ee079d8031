"""Tests of the artifact reader: what was written comes back, and every kind of bad file gets a clear error."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import models
from models import (
    TINY,
    artifact_parts,
    conv1d_like,
    digits_like,
    random_model,
    sequence_parts,
    tiny,
    write_artifact,
    write_parts,
)
from zeroskip import pruning
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.compiler.importers.structure import STRUCTURES, structure_fault
from zeroskip.compiler.ir import Kind, Model
from zeroskip.compiler.reference import run

LEGAL = "is not a legal network: "
AGAIN = "; correct it and export it again"


@dataclass
class Parts:
    """An artifact in pieces, to be broken and written."""

    arrays: dict[str, Any]
    header: dict[str, Any]
    tensors: dict[str, Any] = field(init=False)
    layers: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.tensors = self.header["tensors"]
        self.layers = self.header["layers"]


def parts_of(model: Model) -> Parts:
    return Parts(*artifact_parts(model))


def refused(path: Path, text: str) -> None:
    """The file is refused with exactly this text behind its name."""
    with pytest.raises(InputError) as caught:
        load_artifact(path)
    assert str(caught.value) == f"Artifact {str(path)!r}{text}"
    assert caught.value.exit_code == 2


def assert_same_model(got: Model, expected: Model) -> None:
    assert (got.name, got.input, got.output) == (expected.name, expected.input, expected.output)
    assert dict(got.tensors) == dict(expected.tensors)
    assert set(got.golden) == set(expected.golden)
    for name, codes in expected.golden.items():
        assert got.golden[name].dtype == codes.dtype
        np.testing.assert_array_equal(got.golden[name], codes)
    for layer, other in zip(got.layers, expected.layers, strict=True):
        for name in ("weight", "bias", "multiplier", "shift", "thresholds", "codebook"):
            np.testing.assert_array_equal(getattr(layer, name), getattr(other, name))
        names = (
            "name",
            "kind",
            "inputs",
            "output",
            "left_shift",
            "rounding",
            "clamp",
            "stride",
            "padding",
            "dilation",
            "kernel",
        )
        for name in (*names, "groups", "weight_bits", "grid", "structure", "pool"):
            assert getattr(layer, name) == getattr(other, name), (layer.name, name)


@pytest.mark.parametrize("name", sorted(TINY))
def test_tiny_networks_come_back(name: str, tmp_path: Path) -> None:
    model = tiny(name, samples=3)
    assert_same_model(load_artifact(write_artifact(model, tmp_path / "a.safetensors")), model)


@pytest.mark.parametrize("seed", range(10))
def test_random_networks_come_back_and_equal_their_golden_samples(seed: int, tmp_path: Path) -> None:
    model = random_model(np.random.default_rng(seed), structure="column")
    read = load_artifact(str(write_artifact(model, tmp_path / "a.safetensors")))
    assert_same_model(read, model)
    for name, codes in run(read, read.golden["input"]).items():
        np.testing.assert_array_equal(codes, read.golden[name])


def test_the_header_is_kept_and_unknown_entries_are_allowed(tmp_path: Path) -> None:
    parts = parts_of(digits_like())
    parts.header |= {"format": "1.7", "comment": "later minor versions add entries"}
    for key in ("network", "dataset", "recipe", "seed", "accuracy", "provenance"):
        parts.header[key] = None
    model = load_artifact(write_parts(parts.arrays, parts.header, tmp_path / "a.safetensors"))
    assert model.metadata["comment"] == "later minor versions add entries"
    assert model.metadata["format"] == "1.7"


def test_same_model_same_bytes(tmp_path: Path) -> None:
    files = [write_artifact(digits_like(), tmp_path / f"{index}.safetensors") for index in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()


# Files that are no artifact at all


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "a.safetensors", " does not exist")
    refused(tmp_path, " cannot be read: Is a directory")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickle_is_never_unpickled(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "opened"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return marker.touch, ()

    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps(Trap(), protocol=protocol))
    refused(
        path,
        " is a Python pickle; zeroskip never unpickles files; export the network with zeroskip.pruning, "
        "which writes safetensors",
    )
    assert not marker.exists()


def test_zip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    refused(
        path,
        " is a zip archive, as torch.save writes it around a Python pickle; zeroskip never unpickles files; "
        "export the network with zeroskip.pruning, which writes safetensors",
    )


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "not a safetensors file: it holds only 0 bytes"),
        (b"\x10\0\0\0\0\0\0\0", "not a safetensors file: it holds only 8 bytes"),
        (b"no network at all, just some text", "not a safetensors file"),
        (b"\xff" * 8 + b"{}", "not a safetensors file"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 20, "an HDF5 file"),
    ],
)
def test_garbage_is_named(content: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused(path, f" is {kind}; export the network with zeroskip.pruning, which writes safetensors")


def test_truncated_header(tmp_path: Path) -> None:
    path = write_artifact(tiny("floor"), tmp_path / "a.safetensors")
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    path.write_bytes(content[:100])
    refused(path, f" is truncated: its header needs {size} bytes, but 92 are there; copy or export it again")


@pytest.mark.parametrize("missing", [1, 100])
def test_truncated_data(missing: int, tmp_path: Path) -> None:
    path = write_artifact(tiny("floor"), tmp_path / "a.safetensors")
    content = path.read_bytes()
    size = len(content) - 8 - int.from_bytes(content[:8], "little")
    path.write_bytes(content[:-missing])
    refused(
        path, f" is truncated: its tensors need {size} bytes, but {size - missing} are there; copy or export it again"
    )


def test_bytes_behind_the_last_tensor(tmp_path: Path) -> None:
    path = write_artifact(tiny("floor"), tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes() + b"more")
    refused(path, " has 4 bytes behind its last tensor; copy or export it again")


def raw_file(path: Path, header: Any, data: bytes = b"") -> Path:
    """Write a safetensors file whose header nobody checked."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("shape", [[1 << 29], [1 << 15, 1 << 15], [1 << 40, 0], [0, 1 << 62, 1 << 62]])
def test_absurd_sizes_are_refused_by_the_header_alone(shape: list[int], tmp_path: Path) -> None:
    size = int(np.prod(shape, dtype=object)) * 2
    path = raw_file(tmp_path / "a", {"w": {"dtype": "I16", "shape": shape, "data_offsets": [0, size]}})
    refused(
        path,
        f" has a tensor 'w' of shape {tuple(shape)}, more than 268435456 elements; no supported device holds it",
    )


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"dtype": "I16", "shape": [2]}, " has a tensor 'w' without dtype, shape and data offsets; export it again"),
        ([], " has a tensor 'w' without dtype, shape and data offsets; export it again"),
        (
            {"dtype": "I7", "shape": [2], "data_offsets": [0, 4]},
            " has a tensor 'w' of dtype 'I7'; known are BOOL, U8, I8, U16, I16, F16, U32, I32, F32, U64, I64, F64",
        ),
        (
            {"dtype": "I16", "shape": [-2], "data_offsets": [0, 4]},
            " has a tensor 'w' with shape [-2] and data offsets [0, 4], which must be natural numbers",
        ),
        (
            {"dtype": "I16", "shape": 2, "data_offsets": [0, 4]},
            " has a tensor 'w' with shape 2 and data offsets [0, 4], which must be natural numbers",
        ),
        (
            {"dtype": "I16", "shape": [3], "data_offsets": [0, 4]},
            " has a tensor 'w' of shape (3,) and dtype I16, 6 bytes, but 4 bytes of data; export it again",
        ),
    ],
)
def test_inconsistent_entries(entry: Any, text: str, tmp_path: Path) -> None:
    refused(raw_file(tmp_path / "a", {"w": entry}, bytes(4)), text)


def test_duplicate_and_damaged_header(tmp_path: Path) -> None:
    entry = b'{"dtype":"I8","shape":[1],"data_offsets":[0,1]}'
    path = raw_file(tmp_path / "a", b'{"w":' + entry + b',"w":' + entry + b"}", b"\0")
    refused(path, " has a damaged safetensors header ('w' occurs twice); export it again")
    path = raw_file(tmp_path / "b", b'{"w":')
    with pytest.raises(InputError, match=r"has a damaged safetensors header \(Expecting value.*\); export it again"):
        load_artifact(path)
    path = raw_file(tmp_path / "c", {"__metadata__": {"zeroskip": 3}})
    refused(path, " has metadata that is not a table of texts; export it again")


def test_overlapping_tensors(tmp_path: Path) -> None:
    entry = {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]}
    path = raw_file(tmp_path / "a", {"v": entry, "w": entry}, b"\0\0")
    with pytest.raises(InputError, match=r"is not a valid safetensors file: .*; export it again"):
        load_artifact(path)


def test_checkpoint_without_our_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"conv1.weight": np.zeros((1, 1, 3, 3), np.float32)}, path)
    refused(
        path,
        " is a safetensors file without a 'zeroskip' header, perhaps a checkpoint of float weights; "
        "prune and quantize the network with zeroskip first",
    )


def test_damaged_data_has_the_wrong_hash(tmp_path: Path) -> None:
    path = write_artifact(tiny("floor"), tmp_path / "a.safetensors")
    content = bytearray(path.read_bytes())
    right = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    content[-1] ^= 1
    wrong = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    path.write_bytes(content)
    refused(path, f" is damaged: its header has sha256 {right}, but its tensors have {wrong}; copy or export it again")


# Artifacts with bad contents: an edit of the digits network and the text behind the file's name


def set_array(name: str, edit: Callable[[Any], Any]) -> Callable[[Parts], None]:
    def apply(parts: Parts) -> None:
        parts.arrays[name] = edit(np.array(parts.arrays[name]))

    return apply


def set_element(name: str, index: tuple[int, ...], value: int) -> Callable[[Parts], None]:
    def edit(array: Any) -> Any:
        array[index] = value
        return array

    return set_array(name, edit)


def set_entry(where: str, key: str, value: Any) -> Callable[[Parts], None]:
    """Set ``key`` of the header, of a tensor (``tensor:NAME``) or of a layer (``layer:NUMBER``); None removes it."""

    def apply(parts: Parts) -> None:
        table = parts.header
        if where.startswith("tensor:"):
            table = parts.tensors[where.removeprefix("tensor:")]
        elif where.startswith("layer:"):
            table = parts.layers[int(where.removeprefix("layer:"))]
        if value is None:
            table.pop(key)
        else:
            table[key] = value

    return apply


def with_nan(array: Any) -> Any:
    values = array.astype(np.float32)
    values[0] = np.nan
    return values


KINDS = "conv2d, linear, max_pool2d, avg_pool2d, add, concat, argmax, conv1d, max_pool1d, avg_pool1d"
ROUNDINGS = "floor, half_up, half_away, half_even, tflite_double, tflite_single, thresholds"
GRIDS = "signed, symmetric, zero_excluded, binary, ternary, codebook"
BAD: list[tuple[Callable[[Parts], None], str]] = [
    # header
    (set_entry("header", "format", None), ": header must have an entry 'format'; export it again"),
    (set_entry("header", "format", "one"), " must have a format like '1.0', not 'one'; export it again"),
    (
        set_entry("header", "format", "2.0"),
        " has format 2.0, but this zeroskip reads formats up to 1.x; install a zeroskip that reads format 2.x",
    ),
    (set_entry("header", "sha256", 5), ": header must have a text as 'sha256', not 5"),
    (set_entry("header", "name", None), ": header must have an entry 'name'; export it again"),
    (set_entry("header", "layers", {}), ": header must have a list as 'layers', not {}"),
    (set_entry("header", "layers", [3]), " must have tables as layers, but layer number 0 is 3"),
    (set_entry("header", "tensors", []), ": header must have a table as 'tensors', not []"),
    (set_entry("header", "recipe", []), ": header must have a table as 'recipe', not []"),
    (set_entry("header", "accuracy", {"integer": 1.2}), " must have an accuracy 'integer' of 0 to 1, not 1.2"),
    (
        set_entry("header", "accuracy", {"float": float("nan")}),
        " must have an accuracy 'float' of 0 to 1, not nan",
    ),
    (set_entry("header", "input", "x"), " has no tensor 'x' in its header, but names it as input or output"),
    (
        set_entry("header", "output", "conv1"),
        f" {LEGAL}Model 'digits-dense-w4a8' has output 'conv1', but its last layer 'fc2' writes 'output'{AGAIN}",
    ),
    # activation tensors
    (set_entry("tensor:conv1", "shape", None), ": tensor 'conv1' must have an entry 'shape'; export it again"),
    (
        set_entry("tensor:conv1", "shape", [8, -1, 8]),
        ": tensor 'conv1' must have a shape of positive integers, not [8, -1, 8]",
    ),
    (
        set_entry("tensor:conv1", "shape", [8, 1 << 20, 1 << 20]),
        ": tensor 'conv1' must have at most 268435456 elements, not shape [8, 1048576, 1048576]",
    ),
    (
        set_entry("tensor:conv1", "shape", [8, 8, 8, 1]),
        f" {LEGAL}Tensor 'conv1' must have shape (C, H, W) or (F,) of positive sizes, not (8, 8, 8, 1){AGAIN}",
    ),
    (set_entry("tensor:conv1", "bits", 8.5), ": tensor 'conv1' must have an integer as 'bits', not 8.5"),
    (set_entry("tensor:conv1", "bits", 16), ": tensor 'conv1' must have 1 to 8 bits, not 16"),
    (set_entry("tensor:pool1", "bits", -1), ": tensor 'pool1' must have 1 to 8 bits, not -1"),
    (set_entry("tensor:conv1", "signed", 1), ": tensor 'conv1' must have true or false as 'signed', not 1"),
    (set_entry("tensor:conv1", "scale", "x"), ": tensor 'conv1' must have a number as 'scale', not 'x'"),
    (
        set_entry("tensor:conv1", "scale", float("nan")),
        f" {LEGAL}Tensor 'conv1' must have a finite scale above 0, not nan{AGAIN}",
    ),
    (
        set_entry("tensor:conv1", "zero_point", -1),
        f" {LEGAL}Tensor 'conv1' must have a zero point in 0 to 255, not -1{AGAIN}",
    ),
    # layers
    (set_entry("layer:2", "name", None), ": layer number 2 must have an entry 'name'; export it again"),
    (set_entry("layer:0", "kind", "gru"), f": layer 'conv1' has kind 'gru'; supported are {KINDS}"),
    (set_entry("layer:0", "kind", 7), ": layer 'conv1' must have a text as 'kind', not 7"),
    (
        set_entry("layer:2", "inputs", ["pool1", "conv1"]),
        f" {LEGAL}Layer 'conv2' is conv2d and must have one input, not 2{AGAIN}",
    ),
    (
        set_entry("layer:2", "inputs", []),
        ": layer 'conv2' must have a list of tensor names as 'inputs', not []",
    ),
    (
        set_entry("layer:2", "inputs", ["pool1", 3]),
        ": layer 'conv2' must have a list of tensor names as 'inputs', not ['pool1', 3]",
    ),
    (
        set_entry("layer:2", "inputs", ["x"]),
        f" {LEGAL}Layer 'conv2' reads 'x', but no layer writes a tensor of that name{AGAIN}",
    ),
    (
        set_entry("layer:2", "inputs", ["fc1"]),
        (
            f" {LEGAL}Layer 'conv2' reads 'fc1', which layer 'fc1' writes only afterwards: a cycle, or layers out of "
            f"order{AGAIN}"
        ),
    ),
    (
        set_entry("layer:2", "output", "x"),
        ": layer 'conv2' writes tensor 'x', which the header does not declare",
    ),
    (
        set_entry("layer:2", "output", "pool1"),
        f" {LEGAL}Layer 'conv2' writes 'pool1', but the output of layer 'pool1' has that name already{AGAIN}",
    ),
    (set_entry("layer:0", "stride", None), ": layer 'conv1' must have an entry 'stride'; export it again"),
    (set_entry("layer:0", "stride", [1]), ": layer 'conv1' must have 2 integers as 'stride', not [1]"),
    (set_entry("layer:0", "stride", [1, "a"]), ": layer 'conv1' must have 2 integers as 'stride', not [1, 'a']"),
    (
        set_entry("layer:0", "stride", [0, 1]),
        f" {LEGAL}Layer 'conv1' must have a stride of two numbers of at least 1, not (0, 1){AGAIN}",
    ),
    (set_entry("layer:0", "padding", [1, 1]), ": layer 'conv1' must have 4 integers as 'padding', not [1, 1]"),
    (
        set_entry("layer:0", "padding", [-1, 1, 1, 1]),
        (
            f" {LEGAL}Layer 'conv1' must have a padding of four numbers (top, left, bottom, right) of at least 0, "
            f"not (-1, 1, 1, 1){AGAIN}"
        ),
    ),
    (
        set_entry("layer:1", "padding", [9, 9, 9, 9]),
        (
            f" {LEGAL}Layer 'pool1' has padding (9, 9, 9, 9), but its window is 2 x 2: a pooling's padding must be "
            f"smaller{AGAIN}"
        ),
    ),
    (set_entry("layer:1", "kernel", None), ": layer 'pool1' must have an entry 'kernel'; export it again"),
    (
        set_entry("layer:1", "kernel", [20, 20]),
        f" {LEGAL}Layer 'pool1' has a window that does not fit its input 'conv1' of shape (8, 8, 8){AGAIN}",
    ),
    (
        set_entry("layer:1", "stride", [1, 1]),
        f" {LEGAL}Layer 'pool1' computes shape (8, 7, 7), but its output 'pool1' has shape (8, 4, 4){AGAIN}",
    ),
    (
        set_entry("layer:0", "rounding", "up"),
        f": layer 'conv1' has rounding 'up'; supported are {ROUNDINGS}",
    ),
    (
        set_entry("layer:0", "grid", "quinary"),
        f": layer 'conv1' has grid 'quinary'; supported are {GRIDS}",
    ),
    (set_entry("layer:0", "weight_bits", 12), f" {LEGAL}Layer 'conv1' must have 1 to 8 weight bits, not 12{AGAIN}"),
    (
        set_entry("layer:0", "clamp", [0, 256]),
        (
            f" {LEGAL}Layer 'conv1' must have a clamp within 0 to 255, the range of its output 'conv1', "
            f"not 0 to 256{AGAIN}"
        ),
    ),
    (set_entry("layer:0", "structure", None), ": layer 'conv1' must have an entry 'structure'; export it again"),
    (
        set_entry("layer:0", "structure", {"kind": "fractal"}),
        f": layer 'conv1' has structure 'fractal'; supported are {', '.join(STRUCTURES)}; export it again",
    ),
    (
        set_entry("layer:0", "structure", {"kind": "column", "keep": float("nan")}),
        (
            ": layer 'conv1' must have a structure whose keep is a fraction above 0 up to 1 or a count of at least 1, "
            "not nan; export it again"
        ),
    ),
    (
        set_entry("layer:0", "structure", {"kind": "column", "keep": 0.5, "group": 0}),
        ": layer 'conv1' must have a structure whose group is a count of at least 1, not 0; export it again",
    ),
    (
        set_entry("layer:4", "structure", {"kind": "column", "keep": 0.25, "group": 4}),
        (
            ": layer 'fc1' has 16 of 16 column groups that are not 0, but its structure (column, keep 0.25) allows 4; "
            "export it again"
        ),
    ),
    (
        set_entry("layer:4", "structure", {"kind": "nonstructured", "keep": 2047}),
        (
            ": layer 'fc1' has 2048 of 2048 weights that are not 0, but its structure (nonstructured, keep 2047) "
            "allows 2047; export it again"
        ),
    ),
    (set_entry("layer:2", "groups", 3), f" {LEGAL}Layer 'conv2' has 3 groups, but 8 channels in and 16 out{AGAIN}"),
    # weights and requantization
    (
        lambda parts: parts.arrays.pop("fc1.bias"),
        " has no tensor 'fc1.bias', which layer 'fc1' needs; export it again",
    ),
    (
        set_array("fc1.weight", with_nan),
        " must have tensor 'fc1.weight' of dtype I16, not F32 with 64 NaN; quantize the network before exporting it",
    ),
    (
        set_array("fc1.weight", lambda w: w.astype(np.float64)),
        " must have tensor 'fc1.weight' of dtype I16, not F64; quantize the network before exporting it",
    ),
    (
        set_array("fc1.bias", lambda b: b.astype(np.int64)),
        " must have tensor 'fc1.bias' of dtype I32, not I64; export it again",
    ),
    (
        set_array("fc1.weight", lambda w: w[..., None]),
        ": layer 'fc1' must have weight of shape OI, not (32, 64, 1); export it again",
    ),
    (
        set_array("conv1.weight", lambda w: w[..., 0]),
        ": layer 'conv1' must have weight of shape OIHW, not (8, 1, 3); export it again",
    ),
    (
        set_array("fc1.weight", lambda w: w[:, 1:]),
        f" {LEGAL}Layer 'fc1' has 63 weight columns, but its input 'pool2' of shape (16, 2, 2) has 64 elements{AGAIN}",
    ),
    (
        set_array("conv2.weight", lambda w: w[:, 1:]),
        f" {LEGAL}Layer 'conv2' has weights for 7 channels, but its input 'pool1' of shape (8, 4, 4) has 8{AGAIN}",
    ),
    (
        set_array("fc1.weight", lambda w: w[:0]),
        f" {LEGAL}Layer 'fc1' must have weight of shape OI, not (0, 64){AGAIN}",
    ),
    (
        set_array("fc1.bias", lambda b: b[1:]),
        f" {LEGAL}Layer 'fc1' has 32 weight rows, but bias of shape (31,){AGAIN}",
    ),
    (
        set_element("fc1.weight", (0, 0), 9),
        f" {LEGAL}Layer 'fc1' must have weight levels -8 to 8 (grid zero_excluded, 4 bits), not 9{AGAIN}",
    ),
    (
        set_entry("layer:4", "weight_bits", 2),
        f" {LEGAL}Layer 'fc1' must have weight levels -2 to 2 (grid zero_excluded, 2 bits), not -8{AGAIN}",
    ),
    (
        set_element("fc1.multiplier", (0,), 1 << 17),
        f" {LEGAL}Layer 'fc1' must have multiplier 0 to 131071, not 131072{AGAIN}",
    ),
    (
        set_element("fc1.multiplier", (0,), -3),
        f" {LEGAL}Layer 'fc1' must have multiplier 0 to 131071, not -3{AGAIN}",
    ),
    (set_element("fc1.shift", (0,), 48), f" {LEGAL}Layer 'fc1' must have shift 0 to 47, not 48{AGAIN}"),
    (
        set_array("fc1.multiplier", lambda m: m[:, None]),
        f" {LEGAL}Layer 'fc1' must have multiplier of shape (32,) or (1,), not (32, 1){AGAIN}",
    ),
    (
        lambda parts: parts.arrays.update({"fc9.weight": np.zeros(1, np.int16)}),
        " has a tensor 'fc9.weight', which belongs to no layer; export it again",
    ),
    # golden samples
    (
        lambda parts: parts.arrays.pop("golden/output"),
        " has no tensor 'golden/output'; export it again with golden samples",
    ),
    (
        set_array("golden/output", lambda g: g.astype(np.float32)),
        " must have tensor 'golden/output' of dtype I8, not F32; quantize the network before exporting it",
    ),
    (
        set_array("golden/input", lambda g: g.astype(np.int8)),
        " must have tensor 'golden/input' of dtype U8, not I8; export it again",
    ),
    (
        lambda parts: parts.arrays.update({"golden/x": np.zeros(1, np.uint8)}),
        " has a tensor 'golden/x', but its header declares no such activation",
    ),
    (
        set_array("golden/pool1", lambda g: g[:, :, 1:]),
        f" {LEGAL}Golden 'pool1' must have shape (samples, 8, 4, 4), not (16, 8, 3, 4){AGAIN}",
    ),
    (
        set_array("golden/output", lambda g: g[:4]),
        f" {LEGAL}Golden 'conv1' has 16 samples, but golden 'output' has 4{AGAIN}",
    ),
    (
        set_entry("tensor:input", "bits", 7),
        f" {LEGAL}Golden 'input' must hold codes 0 to 127, not 255{AGAIN}",
    ),
]


@pytest.mark.parametrize(("edit", "text"), BAD, ids=[f"{number}-{text[:70]}" for number, (_, text) in enumerate(BAD)])
def test_bad_contents(edit: Callable[[Parts], None], text: str, tmp_path: Path) -> None:
    parts = parts_of(digits_like())
    edit(parts)
    refused(write_parts(parts.arrays, parts.header, tmp_path / "a.safetensors"), text)


def test_duplicate_layer_names(tmp_path: Path) -> None:
    parts = parts_of(digits_like())
    parts.layers[3]["name"] = "pool1"
    path = write_parts(parts.arrays, parts.header, tmp_path / "a.safetensors")
    refused(path, f" {LEGAL}Layer name 'pool1' must be unique, but two layers have it{AGAIN}")


def test_header_that_is_not_json_or_not_an_object(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "a", {"__metadata__": {"zeroskip": "[]"}})
    refused(path, " has a 'zeroskip' header that is not a JSON object; export it again")
    path = raw_file(tmp_path / "b", {"__metadata__": {"zeroskip": "{"}})
    with pytest.raises(InputError, match=re.escape("has a damaged 'zeroskip' header (")):
        load_artifact(path)


def test_padding_of_an_average_pool_is_refused(tmp_path: Path) -> None:
    model = tiny("avg_pool")
    parts = parts_of(model)
    assert model.layers[1].kind is Kind.AVG_POOL2D
    parts.layers[1]["padding"] = [1, 1, 1, 1]
    path = write_parts(parts.arrays, parts.header, tmp_path / "a.safetensors")
    refused(
        path,
        f" {LEGAL}Layer 'pool1' is an average pooling and must have no padding, not (1, 1, 1, 1); "
        f"pad the layer before it{AGAIN}",
    )


def damage(path: Path, seed: int) -> None:
    """Change one byte of the header a hundred times: the file is refused, or read as a legal network."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(seed)
    outcomes = set()
    for _ in range(100):
        damaged = bytearray(content)
        damaged[int(rng.integers(8, 8 + size))] = int(rng.choice(list(b'0123456789-.eE"{}[],:ntf\x00\xff')))
        path.write_bytes(damaged)
        try:
            outcomes.add(type(load_artifact(path)))
        except InputError as error:
            outcomes.add(type(error))
    assert outcomes <= {Model, InputError}
    assert InputError in outcomes


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_header_gives_an_input_error_or_a_legal_network(seed: int, tmp_path: Path) -> None:
    damage(write_artifact(tiny("stride_2", samples=2), tmp_path / "a.safetensors"), seed)


@pytest.mark.parametrize(
    ("structure", "weight", "fault"),
    [
        ({"kind": "dense"}, [[1, 1, 1]], None),
        ({"kind": "nonstructured", "keep": 2}, [[1, 0, 1]], None),
        ({"kind": "nonstructured", "keep": 0.5}, [[1, 0, 1]], None),
        ({"kind": "nonstructured", "keep": 1}, [[1, 0, 1]], "2 of 3 weights that are not 0"),
        ({"kind": "nonstructured", "keep": 0.01}, [[0, 0, 1]], None),
        ({"kind": "column", "keep": 1, "group": 2}, [[1, 0, 0, 0, 0], [0, 2, 0, 0, 0]], None),
        ({"kind": "column", "keep": 1, "group": 2}, [[0, 0, 0, 0, 3], [0, 0, 0, 0, 4]], None),
        ({"kind": "column", "keep": 1, "group": 2}, [[1, 0, 0, 0, 0], [0, 0, 2, 0, 0]], "2 of 3 column groups"),
        ({"kind": "column", "keep": 1, "group": 9}, [[1, 2, 3, 4, 5]], None),
        ({"kind": "column", "keep": 0.5}, [[1, 2, 3, 0, 0]], None),
        ({"kind": "column", "keep": 0.5}, [[1, 2, 3, 0, 1]], "4 of 5 column groups"),
        ({"kind": "column", "keep": True}, [[1]], "not True"),
        ({"kind": "column", "keep": 0}, [[1]], "not 0"),
        ({"keep": 1}, [[1]], "has structure None"),
        ({"kind": ["column"]}, [[1]], "has structure ['column']"),
        # filters and channels
        ({"kind": "filter", "keep": 0.5}, [[1, 0], [0, 0]], None),
        ({"kind": "filter", "keep": 1}, [[1, 0], [0, 1], [0, 0]], "2 of 3 filters"),
        ({"kind": "channel", "keep": 1}, [[1, 0], [3, 0]], None),
        ({"kind": "channel", "keep": 1}, [[1, 0], [0, 3]], "2 of 2 input channels"),
        # vectors: along the row of a linear layer, or down its column; the last one is shorter
        ({"kind": "vector", "axis": "input", "size": 2, "keep": 2}, [[1, 1, 0, 0, 5]], None),
        ({"kind": "vector", "axis": "input", "size": 2, "keep": 1}, [[0, 1, 1, 0, 0]], "2 of 3 vectors"),
        ({"kind": "vector", "axis": "output", "size": 2, "keep": 1}, [[1, 0], [1, 0], [0, 0]], None),
        ({"kind": "vector", "axis": "output", "size": 2, "keep": 1}, [[0, 0], [1, 0], [1, 0]], "2 of 4 vectors"),
        ({"kind": "vector", "axis": "both", "size": 2}, [[1]], "axis is input or output, not 'both'"),
        ({"kind": "vector", "axis": "input"}, [[1]], "size is a count of at least 1, not None"),
        ({"kind": "vector", "axis": "input", "size": 1 << 80, "keep": 1}, [[1, 1]], None),
        # blocks of the matrix
        ({"kind": "block", "rows": 2, "columns": 2, "keep": 1}, [[1, 1, 0], [1, 1, 0], [0, 0, 0]], None),
        ({"kind": "block", "rows": 2, "columns": 2, "keep": 1}, [[1, 0, 0], [0, 0, 0], [0, 0, 1]], "2 of 4 blocks"),
        ({"kind": "block", "rows": 2}, [[1]], "columns is a count of at least 1, not None"),
        # N of M along a row; the last group is shorter
        ({"kind": "nm", "n": 1, "m": 2}, [[1, 0, 0, 1, 1]], None),
        (
            {"kind": "nm", "n": 1, "m": 2},
            [[0, 0, 0, 0, 0], [1, 0, 1, 1, 1]],
            "2 weights that are not 0 in row 1, entries 2",
        ),
        ({"kind": "nm", "n": 3, "m": 2}, [[1]], "n is at most its m, not 3 of 2"),
        ({"kind": "nm", "n": 2}, [[1]], "m is a count of at least 1, not None"),
        # banks
        ({"kind": "bank_balanced", "banks": 2, "keep": 1}, [[1, 0, 0, 1]], None),
        ({"kind": "bank_balanced", "banks": 2, "keep": 0.5}, [[1, 0, 0, 1]], None),
        (
            {"kind": "bank_balanced", "banks": 2, "keep": 1},
            [[1, 0, 1, 1]],
            "2 weights that are not 0 in bank 1 of row 0",
        ),
        ({"kind": "bank_balanced", "banks": 3, "keep": 1}, [[1, 0, 1, 1]], "rows of 4 weights"),
        ({"kind": "bank_balanced", "keep": 1}, [[1, 0, 1, 1]], "banks is a count of at least 1"),
        # one magnitude a block
        ({"kind": "micro_block", "size": 2}, [[3, -3, 0, 2, 5]], None),
        ({"kind": "micro_block", "size": 2}, [[3, -3, 1, 2]], "magnitude 1 and 2 in row 0, block 1"),
        ({"kind": "micro_block", "size": 2, "keep": 1}, [[3, 3, 2, 2]], "2 of 2 micro blocks"),
        ({"kind": "micro_block"}, [[1]], "size is a count of at least 1"),
    ],
)
def test_structure_is_counted_as_pruning_counts(structure: Any, weight: Any, fault: str | None) -> None:
    found = structure_fault(structure, np.array(weight, np.int16))
    assert (found is None) == (fault is None)
    assert fault is None or fault in str(found)


@pytest.mark.parametrize(
    ("structure", "kernels", "fault"),
    [
        # two filters of two channels, kernels of 1 x 3, each given as its positions that live
        ({"kind": "kernel", "keep": 2}, [[[0], []], [[], [1, 2]]], None),
        ({"kind": "kernel", "keep": 1}, [[[0], []], [[], [1, 2]]], "2 of 4 kernels"),
        ({"kind": "channel", "keep": 1}, [[[0], []], [[1], []]], None),
        ({"kind": "vector", "axis": "input", "size": 2, "keep": 1}, [[[1], [1]], [[], []]], None),
        ({"kind": "vector", "axis": "input", "size": 2, "keep": 1}, [[[1], [2]], [[], []]], "2 of 6 vectors"),
        ({"kind": "vector", "axis": "output", "size": 2, "keep": 1}, [[[1], []], [[1], []]], None),
        ({"kind": "vector", "axis": "output", "size": 2, "keep": 1}, [[[1], []], [[0], []]], "2 of 6 vectors"),
        ({"kind": "nm", "n": 1, "m": 3}, [[[0], [2]], [[1], []]], None),
        ({"kind": "pattern", "patterns": [[0, 1], [2]]}, [[[0, 1], [2]], [[1], []]], None),
        (
            {"kind": "pattern", "patterns": [[0, 1], [2]]},
            [[[0], []], [[], [1, 2]]],
            "kernel 1 of filter 1 at positions [1, 2], which no pattern",
        ),
        ({"kind": "pattern", "patterns": [[0, 1], [2]], "keep": 1}, [[[0], [1]], [[], []]], "2 of 4 kernels"),
        ({"kind": "pattern", "patterns": [[0, 3]]}, [[[0], [1]], [[], []]], "lists of positions 0 to 2, not [0, 3]"),
        ({"kind": "pattern", "patterns": ["01"]}, [[[0], [1]], [[], []]], "lists of positions 0 to 2, not '01'"),
        ({"kind": "pattern", "patterns": []}, [[[0], [1]], [[], []]], "1 to 256 patterns, not []"),
        ({"kind": "pattern"}, [[[0], [1]], [[], []]], "1 to 256 patterns, not None"),
    ],
)
@pytest.mark.parametrize("rank", [3, 4])
def test_structure_of_kernels(structure: Any, kernels: Any, fault: str | None, rank: int) -> None:
    weight = np.zeros((2, 2, 3), np.int16)
    for row, channel in np.ndindex(2, 2):
        weight[row, channel, kernels[row][channel]] = 1
    found = structure_fault(structure, weight if rank == 3 else weight[:, :, None])
    assert (found is None) == (fault is None), found
    assert fault is None or fault in str(found)


@pytest.mark.parametrize("name", sorted(name for name in TINY if name.startswith("structure_")))
def test_weights_off_their_structure_are_refused(name: str, tmp_path: Path) -> None:
    parts = parts_of(tiny(name))
    weight = np.array(parts.arrays["conv1.weight"])
    # Every weight lives, and no two neighbours share a magnitude.
    parts.arrays["conv1.weight"] = (1 + np.arange(weight.size) % 2).reshape(weight.shape).astype(np.int16)
    path = write_parts(parts.arrays, parts.header, tmp_path / "a.safetensors")
    kind = parts.layers[0]["structure"]["kind"]
    with pytest.raises(
        InputError, match=rf"layer 'conv1' has .* its structure.*{'' if kind == 'pattern' else kind}.*; export"
    ):
        load_artifact(path)


# What format 1.1 adds


def test_sequences_become_maps_of_height_1(tmp_path: Path) -> None:
    for model in (tiny("conv1d"), conv1d_like(samples=3)):
        arrays, header = sequence_parts(model)
        assert header["layers"][0]["kind"] == "conv1d"
        assert arrays["conv1.weight"].ndim == arrays["golden/input"].ndim == 3
        assert_same_model(load_artifact(write_parts(arrays, header, tmp_path / "a.safetensors")), model)


def test_a_codebook_is_stored_as_indices(tmp_path: Path) -> None:
    model = tiny("codebook")
    arrays, header = artifact_parts(model)
    assert header["format"] == "1.1"
    assert "conv1.weight" not in arrays
    np.testing.assert_array_equal(arrays["conv1.codebook"][arrays["conv1.weight_index"]], model.layers[0].weight)
    assert_same_model(load_artifact(write_parts(arrays, header, tmp_path / "a.safetensors")), model)


def test_a_threshold_layer_may_state_its_bias_and_clamp_or_leave_them_out(tmp_path: Path) -> None:
    model = tiny("thresholds")
    parts = parts_of(model)
    assert "conv1.bias" not in parts.arrays
    for layer in parts.layers:
        layer.pop("clamp", None)
    parts.arrays["conv1.bias"] = np.zeros(5, np.int32)
    assert_same_model(load_artifact(write_parts(parts.arrays, parts.header, tmp_path / "a.safetensors")), model)


ZOO = sorted((Path(pruning.__file__).parent / "zoo").glob("*.safetensors"))


@pytest.mark.parametrize("path", ZOO, ids=[path.stem for path in ZOO])
def test_zoo_artifacts_of_format_1_0_still_load_and_equal_their_golden_samples(path: Path) -> None:
    model = load_artifact(path)
    assert model.metadata["format"] == "1.0"
    for name, codes in run(model, model.golden["input"], tensors=model.golden).items():
        np.testing.assert_array_equal(codes, model.golden[name])


@pytest.mark.parametrize("network", ["resnet8_like", "dscnn_like", "autoencoder_like"])
def test_known_networks_come_back(network: str, tmp_path: Path) -> None:
    model = getattr(models, network)(samples=2)
    assert_same_model(load_artifact(write_artifact(model, tmp_path / "a.safetensors")), model)


def test_formats_are_the_oldest_that_hold_the_network(tmp_path: Path) -> None:
    for name, version in (("depthwise", "1.0"), ("half_away", "1.0"), ("add", "1.1"), ("structure_nm", "1.1")):
        assert artifact_parts(tiny(name, samples=2))[1]["format"] == version
    parts = parts_of(tiny("add"))
    parts.header["format"] = "1.9"
    load_artifact(write_parts(parts.arrays, parts.header, tmp_path / "a.safetensors"))


BAD_NEW: list[tuple[str, Callable[[Parts], None], str]] = [
    ("add", set_entry("layer:1", "left_shift", "x"), ": layer 'add1' must have an integer as 'left_shift', not 'x'"),
    ("add", set_entry("layer:1", "clamp", None), ": layer 'add1' must have an entry 'clamp'; export it again"),
    (
        "add",
        lambda parts: parts.arrays.pop("add1.shift"),
        " has no tensor 'add1.shift', which layer 'add1' needs; export it again",
    ),
    (
        "add",
        lambda parts: parts.arrays.update({"add1.bias": np.zeros(2, np.int32)}),
        " has a tensor 'add1.bias', which belongs to no layer; export it again",
    ),
    (
        "add",
        set_entry("layer:1", "rounding", "thresholds"),
        " has no tensor 'add1.thresholds', which layer 'add1' needs; export it again",
    ),
    (
        "add",
        set_entry("layer:1", "inputs", ["conv1"]),
        f" {LEGAL}Layer 'add1' is add and must have two inputs, not 1{AGAIN}",
    ),
    (
        "concat",
        set_entry("tensor:conv2", "scale", 0.5),
        (
            f" {LEGAL}Layer 'concat1' passes codes through, but its input 'conv2' has scale 0.5 and its output "
            f"'concat1' {1 / 255}; give all of them one scale and zero point when quantizing{AGAIN}"
        ),
    ),
    (
        "thresholds",
        lambda parts: parts.arrays.pop("conv1.thresholds"),
        " has no tensor 'conv1.thresholds', which layer 'conv1' needs; export it again",
    ),
    (
        "thresholds",
        set_array("conv1.thresholds", lambda t: t.astype(np.float32)),
        " must have tensor 'conv1.thresholds' of dtype I32, not F32; quantize the network before exporting it",
    ),
    (
        "thresholds",
        set_array("conv1.thresholds", lambda t: t.reshape(-1)[0]),
        (
            f" {LEGAL}Layer 'conv1' must have thresholds of shape (5, 1 to 15), for its rows and the codes of its "
            f"output 'conv1', not (1,){AGAIN}"
        ),
    ),
    (
        "thresholds",
        set_array("conv1.thresholds", lambda t: t[:, ::-1]),
        f" {LEGAL}Layer 'conv1' must have ascending thresholds, but those of channel 0 fall{AGAIN}",
    ),
    (
        "codebook",
        lambda parts: parts.arrays.pop("conv1.codebook"),
        " has no tensor 'conv1.codebook', which layer 'conv1' needs; export it again",
    ),
    (
        "codebook",
        set_array("conv1.codebook", lambda c: c[:2]),
        (
            " has a tensor 'conv1.weight_index' with indices up to 7, but 'conv1.codebook' has shape (2,); export it "
            "again"
        ),
    ),
    (
        "codebook",
        set_array("conv1.codebook", lambda c: c[:, None]),
        (
            " has a tensor 'conv1.weight_index' with indices up to 7, but 'conv1.codebook' has shape (8, 1); export it "
            "again"
        ),
    ),
    (
        "codebook",
        set_array("conv1.weight_index", lambda i: i.astype(np.int16)),
        " must have tensor 'conv1.weight_index' of dtype U8, not I16; export it again",
    ),
    (
        "codebook",
        set_element("conv1.codebook", (0,), 9),
        f" {LEGAL}Layer 'conv1' must have a codebook whose entry 0 is 0, the pruned position, not 9{AGAIN}",
    ),
]


@pytest.mark.parametrize(
    ("name", "edit", "text"), BAD_NEW, ids=[f"{n}-{name}" for n, (name, _, _) in enumerate(BAD_NEW)]
)
def test_bad_contents_of_newer_features(name: str, edit: Callable[[Parts], None], text: str, tmp_path: Path) -> None:
    parts = parts_of(tiny(name))
    edit(parts)
    refused(write_parts(parts.arrays, parts.header, tmp_path / "a.safetensors"), text)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("stride", [1, 1], ": layer 'conv1' must have 1 integer as 'stride', not [1, 1]"),
        ("padding", [1, 1, 1, 1], ": layer 'conv1' must have 2 integers as 'padding', not [1, 1, 1, 1]"),
        ("dilation", [1, 1], ": layer 'conv1' must have 1 integer as 'dilation', not [1, 1]"),
        ("kind", "conv2d", ": layer 'conv1' must have 2 integers as 'stride', not [1]"),
        ("kind", "linear", ": layer 'conv1' must have weight of shape OI, not (5, 2, 3); export it again"),
    ],
)
def test_bad_sequences(key: str, value: Any, text: str, tmp_path: Path) -> None:
    arrays, header = sequence_parts(tiny("conv1d"))
    header["layers"][0][key] = value
    refused(write_parts(arrays, header, tmp_path / "a.safetensors"), text)
    arrays["conv1.weight"] = arrays["conv1.weight"][:, :, None]
    header["layers"][0] = sequence_parts(tiny("conv1d"))[1]["layers"][0]
    text = ": layer 'conv1' must have weight of shape OIL, not (5, 2, 1, 3); export it again"
    refused(write_parts(arrays, header, tmp_path / "a.safetensors"), text)


@pytest.mark.parametrize("name", ["add", "concat", "codebook", "thresholds", "structure_pattern"])
def test_a_damaged_header_of_a_newer_network(name: str, tmp_path: Path) -> None:
    damage(write_artifact(tiny(name, samples=2), tmp_path / "a.safetensors"), 3)
