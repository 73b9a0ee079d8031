"""TensorFlow Lite files: real networks against the framework at every tensor, borders left to the host, refusals."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import tflite
from numpy.typing import NDArray

from tflite_models import NONE, RELU, SAME, VALID, Act, Op, flatbuffer
from zeroskip.compiler import reference
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.importers import load_model
from zeroskip.compiler.ir import Kind, Model, Rounding

Array = NDArray[Any]

NETWORKS = {
    "pretrainedResnet_quant": (16, {"input_1_int8": (3, 32, 32)}),
    "kws_ref_model": (13, {"input_1": (1, 49, 10)}),
}
SHAPE = (1, 4, 5, 3)
CONV = {"Padding": SAME, "StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
INT32 = tflite.TensorType.INT32
POOL = {"Padding": VALID, "StrideH": 2, "StrideW": 2, "FilterHeight": 2, "FilterWidth": 2}


def load(tmp_path, tensors, ops, **ends: Any) -> Model:
    path = tmp_path / "net.tflite"
    path.write_bytes(flatbuffer(tensors, ops, **ends))
    return load_model(path)


def act(name: str, shape=SHAPE, scale: float = 0.1, zero_point: int = -5, **options: Any) -> Act:
    return Act(name, shape, scale, zero_point, **options)


def weight(*shape: int, scale: Any = 0.004, **options: Any) -> Act:
    return Act(
        "weight", data=np.random.default_rng(4).integers(-127, 128, shape).astype(np.int8), scale=scale, **options
    )


def real_inputs(name: str, data_folder, samples: int) -> Array:
    """Return images as the network takes them; for the keyword network noise of the spread of its features."""
    if name == "kws_ref_model":
        noise = np.random.default_rng(7).normal(83, 25, (samples, 1, 49, 10))
        return np.clip(np.rint(noise), -128, 127).astype(np.int8)
    with np.load(data_folder / "cifar10" / "cifar10_train10k_test1k.npz") as archive:
        return (archive["x_test"][:samples].astype(np.int16) - 128).astype(np.int8)


@pytest.mark.parametrize("name", NETWORKS)
def test_real_network_equals_the_framework_at_every_tensor(name, data_folder):
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    path = data_folder / "models" / f"{name}.tflite"
    model = load_model(path)
    shape = model.tensors[model.input].shape
    random = np.random.default_rng(6).integers(-128, 128, (4, *shape)).astype(np.int8)
    codes = np.concatenate([random, real_inputs(name, data_folder, 4)])
    ours = reference.run(model, codes)
    interpreter = interpreters.Interpreter(
        str(path),
        experimental_op_resolver_type=interpreters.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    index = {row["name"]: row["index"] for row in interpreter.get_tensor_details()}
    compared = 0
    for sample, image in enumerate(codes):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.transpose(1, 2, 0)[None])
        interpreter.invoke()
        for tensor, source in model.metadata["source_tensors"].items():
            theirs = interpreter.get_tensor(index[source])[0]
            theirs = theirs.transpose(2, 0, 1) if theirs.ndim == 3 else theirs
            assert np.array_equal(ours[tensor][sample], theirs), tensor
            compared += theirs.size
    assert compared == 8 * sum(tensor.size for tensor in model.tensors.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_real_network(name, data_folder):
    model = load_model(data_folder / "models" / f"{name}.tflite")
    operators, tensors = NETWORKS[name]
    assert len(model.metadata["notes"]) == operators
    assert {model.input: model.tensors[model.input].shape} == tensors
    assert model.metadata["provenance"]["left to the host"] == "SOFTMAX"
    assert model.layers[-1].kind is Kind.LINEAR and model.layers[-1].rounding is Rounding.TFLITE_SINGLE


def test_accuracy_of_resnet8(data_folder):
    model = load_model(data_folder / "models" / "pretrainedResnet_quant.tflite")
    with np.load(data_folder / "cifar10" / "cifar10_train10k_test1k.npz") as archive:
        labels = archive["y_test"][:100].astype(np.int64)
    inputs = real_inputs("pretrainedResnet_quant", data_folder, 100)
    assert reference.accuracy(model, inputs, labels) == 0.88  # 87.8 % of all 1,000


def test_host_computes_the_borders(tmp_path):
    tensors = [
        Act("image", SHAPE, type="FLOAT32"),
        act("input"),
        weight(2, 1, 1, 3),
        act("map", (1, 4, 5, 2)),
        act("flat", (1, 40)),
        act("fraction", (1, 40), 1 / 256, -128),
        Act("output", (1, 40), type="FLOAT32"),
    ]
    ops = [
        Op("QUANTIZE", ["image"], ["input"]),
        Op("CONV_2D", ["input", "weight"], ["map"], CONV),
        Op("RESHAPE", ["map"], ["flat"], version=1),
        Op("SOFTMAX", ["flat"], ["fraction"]),
        Op("DEQUANTIZE", ["fraction"], ["output"]),
    ]
    model = load(tmp_path, tensors, ops, inputs=("image",))
    assert (model.input, model.output) == ("input", "map")
    assert model.tensors["input"].shape == (3, 4, 5)
    assert model.metadata["provenance"] == {
        "source": "TensorFlow Lite, test",
        "input": "(1, 4, 5, 3) of the file is (3, 4, 5) here",
        "output": "(1, 40) of the file is (2, 4, 5) here",
        "left to the host": "QUANTIZE, SOFTMAX, DEQUANTIZE",
    }
    assert model.metadata["notes"] == [
        "import: operator 0 QUANTIZE 'input': left to the host, which gives codes",
        "import: operator 1 CONV_2D 'map': layer 'map', conv2d",
        "import: operator 2 RESHAPE 'flat': layout only",
        "import: operator 3 SOFTMAX 'fraction': left to the host, which gets the codes before it",
        "import: operator 4 DEQUANTIZE 'output': left to the host, which gets the codes before it",
    ]


def largest(softmax: bool = False, axis: int = 1) -> tuple[list[Act], list[Op]]:
    """A linear layer of few different outputs, and the number of the largest."""
    tensors = [act("input", (1, 6)), weight(5, 6), act("sums", (1, 5), 40.0), Act("output", (1,), type="INT32")]
    tensors += [Act("axis", data=np.array(axis, np.int32)), act("fraction", (1, 5), 1 / 256, -128)]
    ops = [Op("FULLY_CONNECTED", ["input", "weight"], ["sums"])]
    ops += [Op("SOFTMAX", ["sums"], ["fraction"], {"Beta": 1.0})] if softmax else []
    ops += [Op("ARG_MAX", ["fraction" if softmax else "sums", "axis"], ["output"], {"OutputType": INT32})]
    return tensors, ops


@pytest.mark.parametrize("axis", [1, -1])
def test_the_number_of_the_largest_is_the_frameworks(tmp_path, axis):
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    model = load(tmp_path, *largest(axis=axis))
    assert [layer.kind for layer in model.layers] == [Kind.LINEAR, Kind.ARGMAX]
    assert "left to the host" not in model.metadata["provenance"]
    interpreter = interpreters.Interpreter(
        str(tmp_path / "net.tflite"), experimental_op_resolver_type=interpreters.OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    inputs = np.random.default_rng(3).integers(-128, 128, (200, 6)).astype(np.int8)
    values = reference.run(model, inputs)
    # ties, which the lowest number wins
    assert ((values["sums"] == values["sums"].max(axis=1, keepdims=True)).sum(axis=1) > 1).any()
    for sample, found in zip(inputs, values["output"], strict=True):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample[None])
        interpreter.invoke()
        assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist() == found.tolist()


def test_the_number_of_the_largest_fraction_is_left_to_the_host(tmp_path):
    # a softmax in int8 makes different outputs equal
    model = load(tmp_path, *largest(softmax=True))
    assert model.output == "sums"
    assert model.metadata["provenance"]["left to the host"] == "SOFTMAX, ARG_MAX"


def test_relu_behind_its_layer_is_a_clamp(tmp_path):
    tensors = [act("input"), weight(2, 1, 1, 3), act("sums", (1, 4, 5, 2)), act("output", (1, 4, 5, 2))]
    ops = [Op("CONV_2D", ["input", "weight"], ["sums"], CONV), Op("RELU6", ["sums"], ["output"])]
    model = load(tmp_path, tensors, ops)
    assert [layer.clamp for layer in model.layers] == [(-5, 55)]
    assert model.metadata["source_tensors"] == {"input": "input", "sums": "output"}


def test_flat_input_becomes_a_map(tmp_path):
    tensors = [act("input", (1, 20)), act("map", (1, 4, 5, 1)), weight(2, 3, 3, 1), act("output", (1, 4, 5, 2))]
    ops = [Op("RESHAPE", ["input"], ["map"], version=1), Op("CONV_2D", ["map", "weight"], ["output"], CONV)]
    model = load(tmp_path, tensors, ops)
    assert model.tensors["input"].shape == (1, 4, 5)


def test_input_in_the_order_of_channels_first_stays_so(tmp_path):
    tensors = [act("input", (1, 3, 4, 5)), act("map"), weight(2, 1, 1, 3), act("output", (1, 4, 5, 2))]
    tensors.append(Act("axes", data=np.array([0, 2, 3, 1], np.int32)))
    ops = [Op("TRANSPOSE", ["input", "axes"], ["map"]), Op("CONV_2D", ["map", "weight"], ["output"], CONV)]
    model = load(tmp_path, tensors, ops)
    assert model.tensors["input"].shape == (3, 4, 5)
    codes = np.random.default_rng(2).integers(-128, 128, (2, 3, 4, 5)).astype(np.int8)
    straight = load(tmp_path, [act("input"), *tensors[2:4]], [Op("CONV_2D", ["input", "weight"], ["output"], CONV)])
    assert np.array_equal(reference.run(model, codes)["output"], reference.run(straight, codes)["output"])


def test_names_are_cut_and_made_unique(tmp_path):
    tensors = [act("a/b:0;c"), act("a/b 0;d"), act("a.b.0;e")]
    ops = [Op("MAX_POOL_2D", [one.name], [two.name], POOL | {"Padding": SAME, "StrideH": 1, "StrideW": 1})
           for one, two in zip(tensors, tensors[1:], strict=False)]  # fmt: skip
    model = load(tmp_path, tensors, ops, inputs=[tensors[0].name], outputs=[tensors[2].name])
    assert list(model.tensors) == ["a.b.0", "a.b.0.2", "a.b.0.3"]


def one_conv(input_act=None, weights=None, output=None, options=CONV, **op: Any):
    tensors = [input_act or act("input"), weights or weight(2, 3, 3, 3), output or act("output", (1, 4, 5, 2))]
    return tensors, [Op("CONV_2D", ["input", "weight"], ["output"], options, **op)]


def one_op(operator: str, out=None, options=None, **op: Any):
    return [act("input"), out or act("output")], [Op(operator, ["input"], ["output"], options or {}, **op)]


def padded(before: str, options: dict[str, int], pads: Any = ((0, 0), (1, 1), (1, 1), (0, 0))):
    tensors = [
        act("input"),
        Act("pads", data=np.array(pads, np.int32)),
        act("wide", (1, 6, 7, 3)),
        act("output", (1, 3, 3, 3)),
    ]
    return tensors, [Op("PAD", ["input", "pads"], ["wide"]), Op(before, ["wide"], ["output"], options)]


REFUSED = {
    "operator": (one_op("TANH"), r"operator 0 TANH 'output' is not supported; nearest supported form: RELU6"),
    "version": (one_conv(version=99), r"operator 0 CONV_2D 'output' has version 99; nearest .*: versions 1 to 8"),
    "activation": (one_conv(options=CONV | {"FusedActivationFunction": 4}), r"has fused activation TANH; .* or RELU6"),
    "padding": (one_conv(options=CONV | {"Padding": 7}), r"has padding number 7; .*: SAME or VALID"),
    "stride": (one_conv(options=CONV | {"StrideH": 0}), r"has StrideH and StrideW of 0 and 1; .* at least 1"),
    "dilation": (
        one_conv(options=CONV | {"DilationHFactor": 1 << 19}),
        r"pads \(3, 4, 5\) by \[\(524288, 524288\), \(1, 1\)\]; .*: at most 1048576 elements",
    ),
    "float": (one_conv(act("input", type="FLOAT32")), r"has tensor 'input' of type FLOAT32; .*: INT8"),
    "int16": (one_conv(output=act("output", type="INT16")), r"has tensor 'output' of type INT16; .*: INT8"),
    "unquantized": (one_conv(output=Act("output", (1, 4, 5, 2))), r"has tensor 'output' with 0 scales"),
    "zero point": (one_conv(act("input", zero_point=200)), r"zero points \[200\]; .* a zero point of -128 to 127"),
    "dynamic": (
        one_conv(act("input", signature=(-1, -1, 5, 3))),
        r"has tensor 'input' of dynamic shape \(-1, -1, 5, 3\); .*: fixed sizes, but for the batch",
    ),
    "batch": (one_conv(act("input", (2, 4, 5, 3))), r"of shape \(2, 4, 5, 3\); nearest supported form: a batch of 1"),
    "size": (one_conv(act("input", (1, 4000, 4000, 3))), r"a batch of 1 and 1 to 1048576 elements"),
    "asymmetric weights": (one_conv(weights=weight(2, 3, 3, 3, zero_point=4)), r"has weights with a zero point"),
    "weight scales": (one_conv(weights=weight(2, 3, 3, 3, scale=[0.1] * 3)), r"has 3 weight scales along axis 0"),
    "groups": (one_conv(weights=weight(2, 3, 3, 2)), r"has weights \(2, 3, 3, 2\) for 3 channels"),
    "weights": (one_conv(weights=act("weight")), r"has a computed input 1 of type INT8; .* a constant of type INT8"),
    "output shape": (one_conv(output=act("output", (1, 4, 4, 2))), r"computes shape .*, but writes \(2, 4, 4\)"),
    "scales": (one_conv(output=act("output", (1, 4, 5, 2), 1e-30)), r"has scales whose ratio exceeds 31 bits"),
    "average at edges": (
        one_op("AVERAGE_POOL_2D", act("output", (1, 2, 3, 3)), POOL | {"Padding": SAME}),
        r"averages fewer elements at the edges \(padding \(0, 0, 0, 1\)\); .*: padding VALID",
    ),
    "clamped maximum": (
        one_op("MAX_POOL_2D", act("output", (1, 2, 2, 3)), POOL | {"FusedActivationFunction": RELU}),
        r"clamps its maxima to \(-5, 127\); .*: the activation in the layer before it",
    ),
    "changed scale": (
        one_op("MAX_POOL_2D", act("output", (1, 2, 2, 3), 0.2), POOL),
        r"is not a network that can be served: Layer 'output' passes codes through, but .* scale",
    ),
    "padded maximum": (padded("MAX_POOL_2D", POOL), r"has a PAD of -5, which may be the maximum; .*: padding SAME"),
    "padded average": (padded("AVERAGE_POOL_2D", POOL), r"reads a map with a PAD of \(1, 1, 1, 1\)"),
    "padded channels": (padded("RELU", {}, ((0, 0),) * 3 + ((1, 1),)), r"pads by \[.*\]; .*: height and width only"),
    "options": (one_op("ADD"), r"operator 0 ADD 'output' has no input 1; .*: ADD with all its inputs"),
    "upsampling": (
        one_op("TRANSPOSE_CONV", act("output", (1, 8, 10, 3))),
        r"operator 0 TRANSPOSE_CONV 'output' is not supported; nearest supported form: CONV_2D",
    ),
    "softmax inside": (
        (
            [act("input"), act("middle"), act("output", (1, 2, 2, 3))],
            [Op("SOFTMAX", ["input"], ["middle"]), Op("MAX_POOL_2D", ["middle"], ["output"], POOL)],
        ),
        r"reads 'middle', which is left to the host; .* behind the last layer only",
    ),
    "cycle": (
        (
            [act("input"), act("one"), act("output")],
            [
                Op("ADD", ["input", "output"], ["one"], {"FusedActivationFunction": NONE}),
                Op("ADD", ["input", "one"], ["output"], {"FusedActivationFunction": NONE}),
            ],
        ),
        r"operator 0 ADD 'one' reads 'output' before it is written: a cycle",
    ),
    "two writers": (
        ([act("input"), act("output")], [Op("RELU", ["input"], ["output"])] * 2),
        r"operator 1 RELU 'output' writes 'output', which has a value already",
    ),
    "nothing computed": (one_op("RESHAPE", version=1), r"must compute its output 'output', but no layer does"),
    "moved map": (
        (
            [act("input"), act("pooled", (1, 2, 2, 3)), act("turned", (1, 2, 3, 2)), weight(2, 1, 1, 2),
             act("output", (1, 2, 3, 2)), Act("axes", data=np.array([0, 1, 3, 2], np.int32))],
            [Op("MAX_POOL_2D", ["input"], ["pooled"], POOL), Op("TRANSPOSE", ["pooled", "axes"], ["turned"]),
             Op("CONV_2D", ["turned", "weight"], ["output"], CONV)],
        ),
        r"reads a map \(1, 2, 3, 2\) that a RESHAPE or TRANSPOSE made of shape \(3, 2, 2\) in another order",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name, tmp_path):
    (tensors, ops), message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, tensors, ops)
    assert str(caught.value).startswith(f"Model '{tmp_path / 'net.tflite'}'")


def test_unknown_suffix(tmp_path):
    with pytest.raises(InputError, match=re.escape("must end in .safetensors, .onnx, .tflite, not '.pb'; rename it")):
        load_model(tmp_path / "net.pb")
