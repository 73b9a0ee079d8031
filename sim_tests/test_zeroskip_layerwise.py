"""Float, integer and RTL values of every layer: equal where the design is right, and the first wrong place named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models
from designs import write_design
from onnx_networks import Net
from tflite_cases import CASES, inputs_of
from zeroskip import api, cli
from zeroskip.compiler import reference
from zeroskip.compiler.errors import InputError, VerificationError
from zeroskip.compiler.ir import Model
from zeroskip.layerwise import LayerValues, LayerwiseComparison, compare

VECTORS = 3


def network() -> Model:
    """Three layers; channels of the first that the second does not read, so that a pass removes them."""
    model = models.digits_like("nonstructured", 0.4)
    conv2 = model.layer("conv2")
    weight = conv2.weight.copy()
    weight[:, [0, 3]] = 0
    return with_weight(model, "conv2", weight)


def with_weight(model: Model, name: str, weight: np.ndarray) -> Model:
    """Return the model with another weight, and golden samples that fit it."""
    layers = tuple(replace(layer, weight=weight) if layer.name == name else layer for layer in model.layers)
    changed = replace(model, layers=layers)
    return replace(changed, golden=reference.run(changed, model.golden["input"]))


def with_one_weight(model: Model, name: str, row: int) -> Model:
    """Return the model with the largest weight of a row turned around."""
    weight = model.layer(name).weight.copy()
    flat = weight[row].reshape(-1)
    flat[np.argmax(np.abs(flat))] *= -1
    return with_weight(model, name, weight)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (VECTORS, 1, 8, 8))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The network's design, and those of two others with one weight changed; all of one geometry."""
    folder = tmp_path_factory.mktemp("layerwise")
    for name, model in (
        ("right", network()),
        ("conv2", with_one_weight(network(), "conv2", 5)),
        ("fc1", with_one_weight(network(), "fc1", 7)),
    ):
        (folder / name).mkdir()
        write_design(model, folder / name, "sparse", 4)
    return folder


@pytest.fixture
def design(home, tmp_path) -> Path:
    """A copy of the right design."""
    shutil.copytree(home / "right" / "design", tmp_path / "design")
    return tmp_path / "design"


def test_every_layer_of_a_right_design_is_equal(home, design, inputs):
    result = compare(home / "right" / "model.safetensors", design, inputs).check()
    assert [(layer.layer, layer.tensor, layer.rtl is None) for layer in result.layers] == [
        ("input", "input", True),
        ("conv1", "conv1", True),
        ("conv1", "pool1", False),
        ("conv2", "conv2", True),
        ("conv2", "pool2", False),
        ("fc1", "fc1", False),
        ("fc2", "output", False),
    ]
    expected = reference.run(network(), inputs)
    for layer in result.layers:
        np.testing.assert_array_equal(layer.codes, expected[layer.tensor])
        if layer.rtl is not None:
            np.testing.assert_array_equal(layer.rtl.filled(-1)[~layer.rtl.mask], layer.codes[~layer.rtl.mask])
    # channels 0 and 3 are not computed, all others are in the places of the imported network
    removed = next(layer for layer in result.layers if layer.tensor == "pool1").rtl.mask.all(axis=(0, 2, 3))
    assert removed.tolist() == [True, False, False, True, False, False, False, False]
    assert (result.first_difference, result.failure, result.notes) == (None, None, ())
    assert "first difference of the RTL from the integers: none" in str(result)


@pytest.mark.parametrize("name", ["conv2", "fc1"])
def test_a_changed_weight_of_the_folder_is_traced_to_its_layer_and_place(home, design, inputs, name):
    changed = [
        path.name
        for path in sorted((home / name / "design" / "rom").glob("*.mem"))
        if path.read_bytes() != (design / "rom" / path.name).read_bytes()
    ]
    assert changed
    for file in changed:
        shutil.copy(home / name / "design" / "rom" / file, design / "rom" / file)
    result = compare(home / "right" / "model.safetensors", design, inputs)
    right, wrong = (reference.run(network(), inputs), reference.run(with_one_weight(*_change(name)), inputs))
    tensor = {"conv2": "pool2", "fc1": "fc1"}[name]
    counts = {layer.tensor: int(layer.rtl_differs.sum()) for layer in result.layers}
    assert counts == {key: 0 if key in ("conv1", "conv2") else int((right[key] != wrong[key]).sum()) for key in counts}
    vector, *place = np.argwhere(right[tensor] != wrong[tensor])[0].tolist()
    first = result.first_difference
    assert (first.layer, first.tensor, first.vector, first.place) == (name, tensor, vector, tuple(place))
    assert (first.expected, first.got) == (right[tensor][vector, *place], wrong[tensor][vector, *place])
    (note,) = result.notes
    assert note.startswith("ROM image '") and f"(layer '{name}')" in note
    with pytest.raises(VerificationError, match=f"RTL differs .* first: layer '{name}' \\(input {vector}, "):
        result.check()


def _change(name: str) -> tuple[Model, str, int]:
    return network(), name, {"conv2": 5, "fc1": 7}[name]


def test_a_place_that_was_never_written_is_a_difference_and_a_removed_channel_none():
    codes = np.arange(12).reshape(2, 3, 2)
    rtl = np.ma.masked_array(codes.copy(), mask=False)
    rtl[:, 1] = np.ma.masked
    rtl[1, 2, 0] = np.ma.masked
    silent = np.zeros(codes.shape, bool)
    silent[1, 2, 0] = True
    layer = LayerValues("conv1", "pool1", None, codes, codes / 2, rtl, silent)
    result = LayerwiseComparison((layer,), 2, None, ())
    assert int(layer.rtl_differs.sum()) == 1
    assert str(result.first_difference) == "layer 'conv1' (input 1, channel 2, y 0): expected 10, got nothing"
    assert layer.summary()["shown"]["rtl"] is None
    with pytest.raises(VerificationError, match="in 1 values; first: layer 'conv1'"):
        result.check()


def test_floats_that_differ_are_counted_and_do_not_fail():
    codes = np.arange(6).reshape(2, 3)
    floats = codes.astype(np.float32) / 2
    floats[1, 2] += 1.5
    layer = LayerValues("fc1", "fc1", floats, codes, codes.astype(np.float32) / 2, None, None)
    result = LayerwiseComparison((layer,), 2, None, ()).check()
    row = layer.summary()
    assert (row["float_differing"], row["largest_difference"], row["rtl_differing"]) == (1, 1.5, None)
    assert "first difference of the integers from the floats: layer 'fc1' (input 1, output 2): expected 4, got 2.5" in (
        str(result)
    )


def test_a_design_that_hangs_fails_whatever_it_wrote():
    with pytest.raises(VerificationError, match=r"^Design hangs$"):
        LayerwiseComparison((), 2, "Design hangs", ()).check()


def onnx_network(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    net = Net([1, 6, 5, 3])
    net.op("Transpose", "x", perm=[0, 3, 1, 2])
    net.quant(net.last, 0.5, 0, 4)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (4, 3, 3, 3))), pads=[1, 1, 1, 1])
    net.norm(rng, 4)
    net.quant(net.last, 2.0, 0, 4, signed=0)
    net.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.op("Flatten")
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (24, 5))))
    net.quant(net.last, 4.0, 0, 8)
    net.op("Softmax", net.last, axis=1)
    net.op("ArgMax", net.last, axis=1)
    path = folder / "net.onnx"
    path.write_bytes(net.proto().SerializeToString())
    return path


def test_an_onnx_network_has_the_floats_of_its_own_evaluation(tmp_path):
    path = onnx_network(tmp_path)
    api.compile(path, tmp_path / "design", settings={"lanes": "4"})
    x = np.random.default_rng(1).normal(0, 3, (VECTORS, 3, 6, 5)).astype(np.float32)
    result = compare(path, tmp_path / "design", x).check()
    assert all(layer.floats is not None for layer in result.layers)
    assert [layer.tensor for layer in result.layers if layer.rtl is None] == ["x", "t5"]
    assert [layer["float_differing"] for layer in result.to_dict()["layers"]] == [0] * len(result.layers)
    assert [layer["largest_difference"] for layer in result.to_dict()["layers"]] == [0.0] * len(result.layers)


def test_a_tflite_network_has_the_values_of_its_codes(tmp_path):
    case = CASES["conv_same_stride"]
    (tmp_path / "net.tflite").write_bytes(case.content)
    api.compile(tmp_path / "net.tflite", tmp_path / "design", settings={"lanes": "4"})
    x = inputs_of(case, VECTORS)
    result = compare(tmp_path / "net.tflite", tmp_path / "design", x.transpose(0, 3, 1, 2)).check()
    output = result.layers[-1]
    np.testing.assert_array_equal(output.rtl.transpose(0, 2, 3, 1), case.expect(x))
    assert output.floats is None and output.summary()["float"] == "scale x integer"


def given_floats(inputs) -> dict[str, np.ndarray]:
    """What the integers stand for, half a step beside at one place of one tensor."""
    model = network()
    floats = {
        name: (codes.astype(np.float32) - model.tensors[name].zero_point) * np.float32(model.tensors[name].scale)
        for name, codes in reference.run(model, inputs).items()
    }
    floats["conv2"][1, 0, 2, 3] += model.tensors["conv2"].scale / 2
    return floats


def test_floats_can_be_given(home, inputs):
    home, floats = home / "right", given_floats(inputs)
    result = compare(home / "model.safetensors", home / "design", inputs, floats=floats).check()
    assert [layer.summary()["float_differing"] for layer in result.layers] == [
        int(layer.tensor == "conv2") for layer in result.layers
    ]
    conv2 = next(layer for layer in result.layers if layer.tensor == "conv2")
    assert conv2.largest_difference == pytest.approx(network().tensors["conv2"].scale / 2)
    first = conv2.first_float_difference
    assert (first.vector, first.place) == (1, (0, 2, 3))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"conv9": np.zeros((3, 2), np.float32)}, "Floats have the tensor 'conv9', but the network has conv1, conv2"),
        ({"output": np.zeros((3, 10), np.int64)}, "Floats of tensor 'output' must be finite floats, not int64"),
        ({"output": np.full((3, 10), np.nan)}, "Floats of tensor 'output' must be finite floats"),
        (
            {"output": np.zeros((2, 10), np.float32)},
            r"Floats of tensor 'output' must have shape \(3, 10\), not \(2, 10\)",
        ),
    ],
)
def test_floats_that_do_not_fit_are_refused(home, inputs, changes, text):
    with pytest.raises(InputError, match=text):
        compare(home / "right" / "model.safetensors", home / "right" / "design", inputs, floats=changes)


@pytest.fixture
def zeroskip(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return call


def test_the_command_prints_one_object_and_the_contracts_codes(home, design, inputs, tmp_path, zeroskip):
    model, x, y = home / "right" / "model.safetensors", tmp_path / "x.npz", tmp_path / "y.npz"
    np.savez(x, input=inputs)
    np.savez(tmp_path / "floats.npz", **given_floats(inputs))
    floats = ("--floats", tmp_path / "floats.npz")
    code, out, _ = zeroskip("compare", model, design, "--inputs", x, *floats, "--outputs", y, "--json")
    assert code == 0
    content = json.loads(out)
    assert sum(layer["float_differing"] for layer in content["layers"]) == 1
    assert content["vectors"] == VECTORS and content["first_difference"] is None
    arrays, expected = np.load(y), reference.run(network(), inputs)
    np.testing.assert_array_equal(arrays["output.rtl"], expected["output"])
    np.testing.assert_array_equal(arrays["conv2.integer"], expected["conv2"])
    assert (arrays["pool1.rtl"][:, 3] == -32768).all()
    shutil.copytree(home / "fc1" / "design" / "rom", design / "rom", dirs_exist_ok=True)
    code, out, err = zeroskip("compare", model, design, "--inputs", x, "-q")
    assert code == 1
    assert "first difference of the RTL from the integers: layer 'fc1'" in out
    assert err.startswith("zeroskip: RTL differs from the integer reference in ")


BAD: dict[str, tuple[str, str]] = {
    "shape": ("shape.npz", "must have shape (vectors, 1, 8, 8) with at least one vector, not (2, 1, 8, 7)"),
    "dtype": ("dtype.npz", "must hold integers (codes) or floats, not complex128"),
    "range": ("range.npz", "must hold codes from 0 to 255, but it has 300 to 300"),
    "pickle": ("pickle.npy", "must be an .npz archive"),
    "pickle inside": ("inside.npz", "is not a readable .npz archive of plain arrays"),
    "missing": ("missing.npz", "does not exist; name another one with --inputs"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_are_refused_with_code_2(home, tmp_path, zeroskip, case):
    name, text = BAD[case]
    np.savez(tmp_path / "shape.npz", input=np.zeros((2, 1, 8, 7), np.uint8))
    np.savez(tmp_path / "dtype.npz", input=np.zeros((2, 1, 8, 8), complex))
    np.savez(tmp_path / "range.npz", input=np.full((2, 1, 8, 8), 300))
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.savez(tmp_path / "inside.npz", input=np.array([{"a": 1}], object))
    model, design = home / "right" / "model.safetensors", home / "right" / "design"
    code, out, err = zeroskip("compare", model, design, "--inputs", tmp_path / name)
    assert (code, out) == (2, "")
    assert text in err


def test_another_model_and_another_folder_are_refused(home, tmp_path, inputs):
    design = home / "right" / "design"
    with pytest.raises(InputError, match=r"has SHA-256 \w{12}\.\.\., but the design was compiled from 'model"):
        compare(home / "fc1" / "model.safetensors", design, inputs)
    with pytest.raises(InputError, match=r"cannot be read: No such file"):
        compare(tmp_path / "none.safetensors", design, inputs)
    with pytest.raises(InputError, match=r"is no compiled design: manifest\.json is missing"):
        compare(home / "right" / "model.safetensors", tmp_path, inputs)
