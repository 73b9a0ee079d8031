"""A trained QONNX network end to end, and how model files of all kinds are found."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import models
from onnx_networks import Net, evaluate, evaluate_tfc
from zeroskip.compiler import reference
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.importers import load_model, stored_model
from zeroskip.compiler.importers.onnx_model import load_onnx
from zeroskip.compiler.ir import Grid, Rounding
from zeroskip.vectors import to_codes

MNIST = "mnist/t10k-images-idx3-ubyte.gz"


@pytest.fixture(scope="module")
def data() -> Path:
    """The data folder, where it holds the sample network and MNIST."""
    folder = Path(os.environ.get("ZEROSKIP_DATA", "no data"))
    for name in ("models/TFC_2W2A.onnx", MNIST):
        if not (folder / name).is_file():
            pytest.skip(f"{folder / name} is missing; name a folder that has it in ZEROSKIP_DATA")
    return folder


@pytest.fixture(scope="module")
def inputs(data) -> np.ndarray:
    """A hundred digits and a thousand random images, as the network takes them."""
    pixels = np.frombuffer(gzip.decompress((data / MNIST).read_bytes()), np.uint8, offset=16)[: 100 * 784]
    digits = pixels.reshape(100, 1, 28, 28).astype(np.float32) / np.float32(255)
    return np.concatenate([digits, np.random.default_rng(1).random((1000, 1, 28, 28), np.float32)])


@pytest.mark.data
def test_the_sample_network_equals_float32_on_every_tensor(data, inputs):
    path = data / "models" / "TFC_2W2A.onnx"
    model = load_onnx(path)
    computed = reference.run(model, to_codes(inputs, model.tensors[model.input], "inputs"))
    values = evaluate_tfc(onnx.load(path), inputs)
    assert set(computed) == {model.input, *values}
    for name, value in values.items():
        np.testing.assert_array_equal(computed[name].astype(np.float32), value, err_msg=name)
    assert [layer.rounding for layer in model.layers[:3]] == [Rounding.THRESHOLDS] * 3
    assert {layer.grid for layer in model.layers} == {Grid.TERNARY}


@pytest.mark.data
@pytest.mark.optional_tool
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_sample_network_equals_the_qonnx_package(data, inputs, monkeypatch):
    pytest.importorskip("qonnx", reason="qonnx is not installed; pip install qonnx onnxruntime")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    def make_model(graph, **settings):
        # the runtime reads older files than the library writes
        model = original(graph, **settings)
        model.ir_version = 10
        return model

    original = helper.make_model
    monkeypatch.setattr(helper, "make_model", make_model)
    path = data / "models" / "TFC_2W2A.onnx"
    model = load_onnx(path)
    computed = reference.run(model, to_codes(inputs, model.tensors[model.input], "inputs"))
    proto = onnx.load(path)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = len(inputs)
    wrapped = ModelWrapper(proto).transform(InferShapes())
    values = execute_onnx(wrapped, {wrapped.graph.input[0].name: inputs}, return_full_exec_context=True)
    for ours, theirs in (("51", "51"), ("63", "63"), ("75", "75"), ("90", "82")):
        np.testing.assert_array_equal(computed[ours].astype(np.float32), values[theirs], err_msg=theirs)


def small() -> Net:
    net = Net([1, 4])
    net.quant("x", 0.5, 0, 4)
    net.op("MatMul", net.last, net.weight(np.arange(12).reshape(4, 3) - 6, 1.0, 4))
    net.quant(net.last, 1.0, 0, 6)
    return net


def test_what_became_of_every_node(tmp_path):
    net = small()
    kept = net.last
    net.op("Relu", "x")
    rows = net.load(tmp_path, kept).metadata["nodes"]
    assert [(row["node"], row["became"]) for row in rows] == [
        ("Quant_0", "the rule by which floats become codes of 'x'"),
        ("Quant_1", "constant, folded"),
        ("MatMul_2", "layer 'MatMul_2' (linear, rounding half_even)"),
        ("Quant_3", "part of layer 'MatMul_2'"),
        ("Relu_4", "unused: the output does not need it"),
    ]


def test_an_annotated_input_holds_integers(tmp_path):
    net = Net([1, 4])
    net.op("MatMul", "x", net.weight(np.arange(12).reshape(4, 3) - 6, 1.0, 4))
    net.quant(net.last, 8.0, 0, 6)
    proto = net.proto()
    entry = proto.graph.quantization_annotation.add(tensor_name="x")
    entry.quant_parameter_tensor_names.add(key="finn_datatype", value="UINT5")
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    model = load_onnx(path)
    inputs = np.random.default_rng(0).integers(0, 32, (50, 4))
    expected = evaluate(proto, inputs.astype(np.float32))[model.output]
    np.testing.assert_array_equal(reference.run(model, inputs)[model.output] * np.float32(8), expected)
    assert (model.tensors["x"].bits, model.tensors["x"].signed) == (5, False)


def test_names_become_legal_and_stay_unique(tmp_path):
    proto = small().proto()
    proto.graph.node[2].name = "/fc/Mat Mul:0"
    proto.graph.node[3].output[0] = proto.graph.output[0].name = "../../x"
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    model = load_onnx(path)
    assert ([layer.name for layer in model.layers], model.output) == (["_fc_Mat_Mul_0"], "_.._x")


def test_the_same_file_gives_the_same_model(tmp_path):
    first, second = (small().load(tmp_path) for _ in range(2))
    assert first.metadata == second.metadata
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


def test_models_are_found_by_their_suffix(tmp_path):
    small().load(tmp_path)
    assert load_model(tmp_path / "net.onnx").name == "net"
    artifact = models.write_artifact(models.tiny("pool_remainder"), tmp_path / "a.safetensors")
    assert load_model(artifact).layers
    with pytest.raises(InputError, match="must end in .safetensors, .onnx, .tflite, not '.pt'; weights alone"):
        load_model(tmp_path / "net.pt")


def test_folders_without_a_model_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"is no compiled design: .*model.\* is missing"):
        stored_model(tmp_path)
