"""Element-wise functions, layouts and joins of ONNX: our integers equal float32."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_networks import Net, check
from zeroskip.compiler import reference
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.importers.onnx_values import onnx_values
from zeroskip.compiler.ir import Kind
from zeroskip.vectors import to_codes


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(13)


def images(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.round(rng.normal(0, 3, (20, *shape)) * 8).astype(np.float32) / 8


def refused(net: Net, tmp_path, text: str) -> None:
    with pytest.raises(InputError, match=text):
        net.load(tmp_path)


def start(rng, channels=4, scale=0.5, bits=4) -> Net:
    net = Net([1, 3, 6, 5])
    net.quant("x", 0.5, 0, 4)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (channels, 3, 3, 3)), 1.0, 4), pads=[1, 1, 1, 1])
    return net


STEPS = {
    "clip": [("Clip", (-3.3, 7.25), {})],
    "hard tanh": [("Mul", (0.05,), {}), ("Clip", (-1.0, 1.0), {}), ("Mul", (20.0,), {})],
    "affine": [("Mul", (0.37,), {}), ("Add", (1.9,), {}), ("Div", (0.73,), {}), ("Sub", (-0.11,), {})],
    "turned": [("Neg", (), {}), ("Add", (2.5,), {}), ("Relu", (), {})],
    "from a constant": [("Sub", (), {})],
    "identity": [("Identity", (), {}), ("Relu", (), {})],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_functions_of_one_element(rng, tmp_path, steps):
    net = start(rng)
    for op, constants, settings in steps:
        operands = [net.last, *constants] if constants or op != "Sub" else [3.5, net.last]
        net.op(op, *operands, **settings)
    net.quant(net.last, 0.6, 0, 6)
    check(net, tmp_path, images(rng, 3, 6, 5))


def test_constants_by_channel_of_both_signs(rng, tmp_path):
    net = start(rng)
    net.op("Mul", net.last, np.array([0.3, -0.4, 0.0, 1.5]).reshape(4, 1, 1))
    net.op("Add", np.array([0.1, 0.2, 0.3, -0.4]).reshape(1, 4, 1, 1), net.last)
    net.op("Div", net.last, np.array([-0.7, 0.2, 0.9, 1.1]).reshape(4, 1, 1))
    net.quant(net.last, 1.0, 0, 5)
    check(net, tmp_path, images(rng, 3, 6, 5))


def test_quantizers_one_after_another_are_one_layer(rng, tmp_path):
    net = start(rng)
    net.quant(net.last, 0.5, 0, 6)
    net.op("Relu")
    net.norm(rng, 4)
    net.quant(net.last, 0.75, 0, 3)
    assert len(check(net, tmp_path, images(rng, 3, 6, 5)).layers) == 1


def test_a_relu_limits_codes(rng, tmp_path):
    net = start(rng)
    quantized = net.quant(net.last, 0.5, 0, 4)
    net.op("Relu")
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (4, 4, 1, 1))))
    first = net.quant(net.last, 4.0, 0, 4)
    net.op("Conv", quantized, net.weight(rng.normal(0, 2, (4, 4, 1, 1))))
    net.quant(net.last, 4.0, 0, 4)
    net.op("Add", first, net.last)
    net.quant(net.last, 4.0, 0, 4)
    model = check(net, tmp_path, images(rng, 3, 6, 5), minimum=4)
    assert [layer.kind for layer in model.layers].count(Kind.CONV2D) == 4  # one limits the codes that two layers read


def test_a_scale_behind_codes_is_that_of_the_next_layer(rng, tmp_path):
    net = start(rng)
    net.quant(net.last, 0.5, 0, 4)
    net.op("Mul", net.last, 0.25)
    net.op("Div", net.last, 4.0)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (4, 4, 1, 1))))
    net.quant(net.last, 0.125, 0, 4)
    check(net, tmp_path, images(rng, 3, 6, 5), minimum=2)


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [(0.5, 0.5, 1.0), (0.5, 0.125, 0.25), (0.137, 0.137, 0.2113), (0.137, 0.0911, 0.2113)],
)
@pytest.mark.parametrize("relu", [True, False])
def test_addition(rng, tmp_path, first, second, result, relu):
    net = start(rng)
    net.quant(net.last, first, 0, 8)
    one = net.last
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (4, 4, 1, 1))))
    net.quant(net.last, second, 0, 8)
    net.op("Add", net.last, one)
    if relu:
        net.op("Relu")
    net.quant(net.last, result, 0, 8, signed=int(not relu))
    assert check(net, tmp_path, images(rng, 3, 6, 5), minimum=3).layers[-1].kind is Kind.ADD


def test_an_addition_whose_ties_no_multiplier_meets_is_refused(rng, tmp_path):
    net = start(rng)
    net.quant(net.last, 0.5, 0, 8)
    net.op("Add", net.last, net.last)
    net.quant(net.last, 0.6, 0, 8)
    refused(net, tmp_path, "adds codes of scales 0.5 and 0.5, and no integer multipliers give its 65536 results")


def test_concatenation_quantized_behind(rng, tmp_path):
    net = start(rng)
    one = net.quant(net.last, 0.5, 0, 4)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (2, 4, 1, 1))))
    net.op("Concat", net.last, one, axis=1)
    net.op("Mul", net.last, np.arange(1.0, 7.0).reshape(1, 6, 1, 1))
    net.op("Relu")
    net.quant(net.last, 1.5, 0, 4)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (3, 6, 2, 2))))
    net.quant(net.last, 4.0, 0, 4)
    model = check(net, tmp_path, images(rng, 3, 6, 5), minimum=3)
    assert Kind.CONCAT in [layer.kind for layer in model.layers]


def test_concatenation_of_codes(rng, tmp_path):
    net = start(rng)
    one = net.quant(net.last, 0.5, 0, 4)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (2, 4, 1, 1))))
    net.quant(net.last, 0.5, 0, 4)
    net.op("Concat", net.last, one, axis=-3)
    net.op("Relu")
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (3, 6, 2, 2))))
    net.quant(net.last, 4.0, 0, 4)
    check(net, tmp_path, images(rng, 3, 6, 5), minimum=2)


def test_padding_joins_that_of_the_convolution(rng, tmp_path):
    net = start(rng)
    net.quant(net.last, 0.5, 0, 4)
    net.op("Pad", net.last, net.const([0, 0, 1, 0, 0, 0, 0, 1], np.int64))
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (3, 4, 4, 4))), pads=[1, 0, 1, 1])
    net.quant(net.last, 4.0, 0, 4)
    check(net, tmp_path, images(rng, 3, 6, 5), minimum=2)


def test_axes_of_size_1_come_and_go(rng, tmp_path):
    net = start(rng)
    net.quant(net.last, 0.5, 0, 4)
    net.op("Flatten")
    net.op("Unsqueeze", net.last, net.const([1], np.int64))
    net.op("Squeeze", net.last, net.const([1], np.int64))
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (120, 3))))
    net.quant(net.last, 4.0, 0, 4)
    check(net, tmp_path, images(rng, 3, 6, 5), minimum=2)


def test_the_input_rule_is_exact_at_ties(tmp_path):
    """2x - 1 rounded half to even is not half_even(2x) - 1, so the tensor carries its own boundaries."""
    net = Net([1, 4])
    net.op("Mul", "x", 2.0)
    net.op("Sub", net.last, 1.0)
    net.quant(net.last, 1.0, 0, 2, narrow=1)
    net.op("MatMul", net.last, net.weight(np.eye(4)))
    net.quant(net.last, 1.0, 0, 3)
    ties = np.array([0.25, 0.75, 0.5, 1.0], np.float32)
    grid = np.concatenate([np.nextafter(ties, np.float32(side)) for side in (-9, 9)] + [ties]).reshape(-1, 4)
    model = check(net, tmp_path, grid)
    assert len(model.tensors[model.input].boundaries) == 3


def test_a_plain_input_needs_no_boundaries(tmp_path):
    net = Net([1, 4])
    net.quant("x", 0.1, 0, 8)
    net.op("MatMul", net.last, net.weight(np.eye(4)))
    net.quant(net.last, 0.1, 0, 8)
    values = (np.arange(-130, 130)[:, None] + np.array([-0.5, -0.4999999, 0.5, 0.25])).astype(np.float32) * np.float32(
        0.1
    )
    check(net, tmp_path, values)


def test_softmax_at_the_end_is_left_to_the_host(rng, tmp_path):
    net = start(rng)
    net.quant(net.last, 0.5, 0, 4)
    net.op("Flatten")
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (120, 3))))
    net.quant(net.last, 4.0, 0, 8)
    net.op("Softmax", net.last, axis=1)
    model = net.load(tmp_path)
    assert model.metadata["notes"] == [f"output {model.output!r}: the host computes 'Softmax_8' (Softmax) of it"]


def vectors(rng) -> Net:
    """A network with few different outputs, so that many are equal."""
    net = Net([1, 6])
    net.quant("x", 0.5, 0, 4)
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (6, 5))))
    net.quant(net.last, 8.0, 0, 3)
    return net


@pytest.mark.parametrize("softmax", ["", "Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("axis", "keepdims"), [(1, 1), (-1, 0)])
def test_the_number_of_the_largest_output_is_the_hardwares(rng, tmp_path, softmax, axis, keepdims):
    net = vectors(rng)
    if softmax:
        net.op(softmax, net.last, axis=1)
    net.op("ArgMax", net.last, axis=axis, keepdims=keepdims)
    model = net.load(tmp_path)
    assert [layer.kind for layer in model.layers] == [Kind.LINEAR, Kind.ARGMAX]
    assert model.metadata["notes"] == []
    became = {row["op"]: row["became"] for row in model.metadata["nodes"]}
    assert became["ArgMax"].endswith("(argmax)")
    if softmax:
        assert became[softmax] == "nothing: the number of the largest is the same without it"
    x = images(rng, 6)
    found = reference.run(model, to_codes(x, model.tensors[model.input], "x"))
    values = onnx_values(tmp_path / "net.onnx", model, x)
    np.testing.assert_array_equal(values[model.output], found[model.output])
    scores = found[model.results]
    assert ((scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1).any()


def test_sums_at_the_end_have_a_largest_without_the_functions_behind_them(rng, tmp_path):
    net = outputs(rng, 0.5)
    net.op("ArgMax", net.last, axis=1)
    model = net.load(tmp_path)
    became = {row["op"]: row["became"] for row in model.metadata["nodes"]}
    assert became["Mul"] == "nothing: the number of the largest is the same without it"
    assert not any("the host computes" in note for note in model.metadata["notes"])
    x = images(rng, 3)
    found = reference.run(model, to_codes(x, model.tensors[model.input], "x"))
    np.testing.assert_array_equal(onnx_values(tmp_path / "net.onnx", model, x)[model.output], found[model.output])


def test_an_argmax_that_is_not_numpys_is_refused(rng, tmp_path):
    for settings, text in (
        ({"axis": 0}, "must work along all outputs of a vector"),
        ({"axis": 1, "select_last_index": 1}, "takes the last of equal outputs; here the first one counts"),
    ):
        net = vectors(rng)
        net.op("ArgMax", net.last, **settings)
        refused(net, tmp_path, text)
    net = vectors(rng)
    net.op("ArgMax", net.last, axis=1)
    net.op("Identity")
    refused(net, tmp_path, r"\(ArgMax\) is served at the end of the network only")
    net = vectors(rng)
    net.quant(net.last, 1e-9, 0, 8)
    net.op("Softmax", net.last, axis=1)
    net.op("ArgMax", net.last, axis=1)
    refused(net, tmp_path, "may make different outputs equal before an ArgMax; supported is the ArgMax without it")


def outputs(rng, step=None, columns=3) -> Net:
    """A network whose last sums nothing quantizes."""
    net = Net([1, columns])
    net.quant("x", 1.0, 0, 2, narrow=1)
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (columns, 4)), 0.5, 3, narrow=1))
    if step is not None:
        net.op("Mul", net.last, step)
    return net


def test_sums_at_the_end_are_the_output_where_they_fit(rng, tmp_path):
    model = check(outputs(rng), tmp_path, images(rng, 3))
    assert (model.tensors[model.output].scale, model.layers[0].multiplier.tolist()) == (0.5, [1])
    assert "left to the host" in outputs(rng, 0.3).load(tmp_path).metadata["nodes"][-1]["became"]


@pytest.mark.parametrize(
    ("step", "columns", "text"),
    [
        (None, 400, "outputs have at most 8 bits: put a Quant of 8 bits behind it"),
        (
            np.arange(1.0, 5.0),
            3,
            "differs by channel or does not rise: the largest code would not be the largest output",
        ),
        (-1.0, 3, "differs by channel or does not rise"),
        (0.0, 3, "differs by channel or does not rise"),
    ],
)
def test_sums_at_the_end_are_refused_where_the_largest_would_not_be_it(rng, tmp_path, step, columns, text):
    refused(outputs(rng, step, columns), tmp_path, text)


REFUSED = {
    "sigmoid": ("Sigmoid", {}, r"Node 'Sigmoid_3' \(Sigmoid\) is not supported; nearest is Clip, as a hard sigmoid"),
    "misspelt": ("BatchNormalisation", {}, "nearest is BatchNormalization"),
    "softmax inside": ("Softmax", {}, "is served at the end of the network only"),
    "cut map": ("Reshape", {"constant": [1, 8, 15]}, "which cuts an axis of the map"),
    "batch": ("Transpose", {"perm": [1, 0, 2, 3]}, "which has lost the batch"),
    "padding": ("Pad", {"constant": [0, 1, 0, 0, 0, 1, 0, 0]}, r"pads axes \[1\]"),
    "absurd padding": ("Pad", {"constant": [0, 0, -1, 0, 0, 0, 0, 0]}, "must have 8 paddings of at least 0"),
    "mode": ("Pad", {"constant": [0] * 8, "mode": "edge"}, "pads with mode 'edge'"),
    "axis": ("Concat", {"axis": 2, "twice": True}, "joins along axis 2; supported are the channels"),
}


@pytest.mark.parametrize(("op", "settings", "text"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_integer_form_is_refused(rng, tmp_path, op, settings, text):
    net = start(rng)
    settings = dict(settings)
    operands = [net.last]
    if settings.pop("twice", False):
        operands *= 2
    if "constant" in settings:
        operands.append(net.const(settings.pop("constant"), np.int64))
    net.op(op, *operands, **settings)
    net.quant()
    refused(net, tmp_path, text)


def test_zero_divisors_and_strange_constants_are_refused(rng, tmp_path):
    for op, constant, text in (
        ("Div", 0.0, "divides by zero"),
        ("Add", np.nan, "has a constant that is not finite"),
        ("Mul", np.ones((6, 5)) * np.arange(5), "constants may differ by channel only"),
    ):
        net = start(rng)
        net.op(op, net.last, constant)
        net.quant()
        refused(net, tmp_path, text)


def test_unquantized_operands_are_refused(rng, tmp_path):
    net = start(rng)
    net.op("Relu")
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (4, 4, 1, 1))))
    net.quant()
    refused(net, tmp_path, r"Node 'Conv_\d' reads 't\d', which nothing quantizes; put a Quant between them")
