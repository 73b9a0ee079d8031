"""QuantizeLinear and DequantizeLinear around float operators: our integers equal their float32 evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from onnx_networks import Net, check, evaluate
from zeroskip.compiler import reference
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.ir import Grid, Kind, Rounding
from zeroskip.vectors import to_codes


class QdqNet(Net):
    """A network whose activations and weights pass a QuantizeLinear and a DequantizeLinear."""

    def qdq(self, scale: float, zero: int, dtype: type = np.int8, x: str = "") -> str:
        parameters = (self.const(scale), self.const(zero, dtype))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x or self.last, *parameters), *parameters)

    def levels(
        self,
        values: np.ndarray,
        scale: np.ndarray | float,
        zero: np.ndarray | int = 0,
        axis: int = 0,
        dtype: type = np.int8,
    ) -> str:
        last = self.last
        settings = {"axis": axis} if np.ndim(scale) else {}
        name = self.op(
            "DequantizeLinear", self.const(values, dtype), self.const(scale), self.const(zero, dtype), **settings
        )
        self.last = last
        return name


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(17)


def network(rng, *, power: bool, unsigned: bool = False, shape=(3, 8, 7)) -> QdqNet:
    """Convolution, depthwise, addition, pools and a matrix product; ``power``: all scales are powers of two."""
    scales = (lambda e: 2.0**e) if power else (lambda e: float(np.float32(2.0**e * rng.uniform(0.7, 1.4))))
    dtype, zero = (np.uint8, 120) if unsigned else (np.int8, -5)
    net = QdqNet([1, *shape])
    net.qdq(scales(-4), zero, dtype)
    weight = rng.integers(-127, 128, (6, 3, 3, 3))
    channel = np.array([scales(-7) for _ in range(6)])
    bias_scale = np.float32(net.constants["c0"]) * channel.astype(np.float32)
    bias = net.levels(rng.integers(-2000, 2000, 6), bias_scale, np.zeros(6, np.int32), 0, np.int32)
    net.op("Conv", net.last, net.levels(weight, channel, np.zeros(6, np.int8)), bias, pads=[1, 1, 1, 1])
    net.op("Relu")
    one = net.qdq(scales(-2), -128 if not unsigned else 0, dtype)
    net.op("Conv", net.last, net.levels(rng.integers(-127, 128, (6, 1, 3, 3)), scales(-7)), group=6, pads=[1, 1, 1, 1])
    two = net.qdq(scales(-1), 3 if not unsigned else 100, dtype)
    net.op("Add", one, two)
    net.qdq(scales(-1), 0 if not unsigned else 128, dtype)
    net.op("MaxPool", net.last, kernel_shape=[2, 2], strides=[2, 2])
    net.op("GlobalAveragePool")
    net.qdq(scales(-3), 1, dtype)
    net.op("Flatten")
    net.op("MatMul", net.last, net.levels(rng.integers(-127, 128, (6, 5)), scales(-6)))
    net.qdq(scales(-1), 0 if not unsigned else 128, dtype)
    return net


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("power", [True, False])
def test_a_network_of_every_layer(rng, tmp_path, power, unsigned):
    inputs = rng.normal(0, 4, (50, 3, 8, 7)).astype(np.float32)
    model = check(network(rng, power=power, unsigned=unsigned), tmp_path, inputs, minimum=5)
    assert [layer.kind for layer in model.layers].count(Kind.ADD) == 1
    assert bool(model.metadata["notes"]) is not power  # sums in float32 are exact for powers of two only


@pytest.mark.optional_tool
def test_powers_of_two_equal_onnx_runtime_without_fusions(rng, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; pip install onnxruntime")
    net = network(rng, power=True)
    model = net.load(tmp_path)
    inputs = rng.normal(0, 4, (1000, 3, 8, 7)).astype(np.float32)
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(net.proto().SerializeToString(), options, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"x": image[None]})[0] for image in inputs])
    target = model.tensors[model.output]
    got = reference.run(model, to_codes(inputs, model.tensors[model.input], "inputs"))[model.output].astype(np.int64)
    np.testing.assert_array_equal((got - target.zero_point).astype(np.float32) * np.float32(target.scale), expected)


def test_an_integer_bias_needs_no_thresholds(rng, tmp_path):
    layers = network(rng, power=False).load(tmp_path).layers
    assert all(layer.rounding is not Rounding.THRESHOLDS for layer in layers)


def test_unsigned_weights_with_a_zero_point(rng, tmp_path):
    for zero, grid in ((128, Grid.SIGNED), (60, Grid.CODEBOOK)):
        net = QdqNet([1, 9])
        net.qdq(0.25, 0)
        weight = rng.integers(0, 256, (9, 5))
        weight[0, :2] = 0, 255
        net.op("MatMul", net.last, net.levels(weight, 0.5, zero, dtype=np.uint8))
        net.qdq(8.0, 0)
        layer = check(net, tmp_path, rng.normal(0, 9, (100, 9)).astype(np.float32)).layers[0]
        assert layer.grid is grid


def test_the_zero_point_does_not_turn_a_tie(tmp_path):
    """ONNX rounds before it adds the zero point: 0.5 with zero point 1 is 1, not half_even(1.5)."""
    net = QdqNet([1, 2])
    net.qdq(1.0, 1)
    net.op("MatMul", net.last, net.levels(np.eye(2), 0.5))
    net.qdq(1.0, 1)
    ties = np.arange(-20, 20).reshape(-1, 2).astype(np.float32) / 2
    check(net, tmp_path, ties, minimum=1)


def test_pooling_and_joining_of_codes(rng, tmp_path):
    net = QdqNet([1, 3, 6, 6])
    net.qdq(0.25, 3)
    net.op("Conv", net.last, net.levels(rng.integers(-9, 9, (4, 3, 1, 1)), 0.125))
    parameters = (net.const(0.5), net.const(-7, np.int8))
    codes = net.op("QuantizeLinear", net.last, *parameters)
    pooled = net.op("MaxPool", codes, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    net.op("Concat", pooled, codes, axis=1)
    net.op("DequantizeLinear", net.last, *parameters)
    net.op("Conv", net.last, net.levels(rng.integers(-9, 9, (4, 8, 2, 2)), 0.125))
    net.qdq(1.0, 0)
    check(net, tmp_path, rng.normal(0, 4, (20, 3, 6, 6)).astype(np.float32), minimum=3)


def test_integer_inputs(rng, tmp_path):
    net = QdqNet([1, 9], dtype=TensorProto.UINT8)
    net.op("DequantizeLinear", "x", net.const(1 / 255), net.const(0, np.uint8))
    net.op("MatMul", net.last, net.levels(rng.integers(-9, 9, (9, 5)), 0.125))
    net.qdq(0.02, 0)
    model = net.load(tmp_path)
    inputs = rng.integers(0, 256, (50, 9)).astype(np.uint8)
    expected = evaluate(net.proto(), inputs)
    np.testing.assert_array_equal(reference.run(model, inputs)[model.output], expected[model.output])
    assert (model.tensors[model.input].bits, model.tensors[model.input].scale) == (8, float(np.float32(1 / 255)))


def test_networks_that_end_in_codes(rng, tmp_path):
    net = QdqNet([1, 9])
    net.qdq(0.25, 3)
    net.op("MatMul", net.last, net.levels(rng.integers(-9, 9, (9, 5)), 0.125))
    net.op("QuantizeLinear", net.last, net.const(0.5), net.const(3, np.int8))
    check(net, tmp_path, rng.normal(0, 9, (50, 9)).astype(np.float32))


@pytest.mark.parametrize(
    ("op", "operands", "text"),
    [
        ("DequantizeLinear", (0.5, 3), "has scale 0.5 and zero point 3, but its input was quantized with 0.25 and 3"),
        ("Relu", (), "computes with the integers of 't0'; put a DequantizeLinear before it"),
    ],
)
def test_codes_taken_for_values_are_refused(tmp_path, op, operands, text):
    net = QdqNet([1, 4])
    net.op("QuantizeLinear", "x", net.const(0.25), net.const(3, np.int8))
    net.op(op, net.last, *(net.const(v, d) for v, d in zip(operands, (np.float32, np.int8), strict=False)))
    with pytest.raises(InputError, match=text):
        net.load(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "scale", "text"),
    [
        (np.int16, 0.5, "one zero point of int8 or uint8, not 0.5 and int16"),
        (np.int8, 0.0, "must have one scale above 0"),
        (np.int8, np.nan, "must have one finite number as input 1"),
    ],
)
def test_other_quantizers_are_refused(tmp_path, dtype, scale, text):
    net = QdqNet([1, 4])
    net.qdq(scale, 0, dtype)
    with pytest.raises(InputError, match=text):
        net.load(tmp_path)


def test_float_inputs_to_dequantize_are_refused(tmp_path):
    net = QdqNet([1, 4])
    net.op("DequantizeLinear", "x", net.const(0.5), net.const(3, np.int8))
    with pytest.raises(InputError, match="reads floats; it must read what a QuantizeLinear gives"):
        net.load(tmp_path)
