"""Float values of ONNX networks: ONNX's evaluator equals the tests' own on every tensor that the model has."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from onnx_networks import CHANNELS_LAST, Net, evaluate
from zeroskip.compiler import reference
from zeroskip.compiler.importers.onnx_values import onnx_values
from zeroskip.compiler.ir import Model
from zeroskip.vectors import to_codes

VECTORS = 4


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def values_of(net: Net, tmp_path, x: np.ndarray, codes: bool = False) -> tuple[Model, dict[str, np.ndarray]]:
    """Return the model and its values; they are those of its codes, tensor by tensor."""
    model = net.load(tmp_path)
    values = onnx_values(tmp_path / "net.onnx", model, x)
    computed = reference.run(model, x if codes else to_codes(x, model.tensors[model.input], "x"))
    for name, found in values.items():
        tensor = model.tensors[name]
        expected = (computed[name].astype(np.int64) - tensor.zero_point).astype(np.float32) * np.float32(tensor.scale)
        np.testing.assert_array_equal(found, expected, err_msg=name)
    return model, values


def test_every_quantizer(rng, tmp_path):
    net = Net([1, 12])
    net.quant("x", 0.25, 0, 4)
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (12, 6)), 1.0, 3, narrow=1))
    net.quant(net.last, 0.5, 1, 6, op="IntQuant", rounding_mode="FLOOR")
    net.op("Trunc", net.last, 0.5, 1.0, 6.0, 4.0, domain="qonnx.custom_op.general", rounding_mode="FLOOR")
    net.op("MatMul", net.last, net.weight(rng.choice([-1.0, 1.0], (6, 6)), 1.0, 1))
    net.op(
        "MultiThreshold",
        net.last,
        np.sort(rng.normal(0, 9, (6, 3)), axis=1),
        domain="qonnx.custom_op.general",
        out_scale=1.0,
        out_bias=-1.0,
        out_dtype="INT3",
    )
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (6, 6))))
    net.op("BipolarQuant", net.last, 1.0, domain="qonnx.custom_op.general")
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (6, 3))))
    net.quant(net.last, 1.0, 0, 8)
    model, values = values_of(net, tmp_path, rng.normal(0, 3, (VECTORS, 12)).astype(np.float32))
    assert set(values) == set(model.tensors)


@pytest.mark.parametrize("last", [False, True])
def test_layouts_of_maps(rng, tmp_path, last):
    net = Net([1, 6, 5, 3] if last else [1, 3, 6, 5])
    net.quant("x", 0.5, 0, 4)
    domain = CHANNELS_LAST if last else ""
    kernel = rng.normal(0, 2, (4, 3, 3, 2) if not last else (4, 3, 2, 3))
    net.op("Conv", net.last, net.weight(kernel), domain=domain, kernel_shape=[3, 2])
    net.norm(rng, 4, domain=domain)
    net.op("Relu")
    net.quant(net.last, 2.0, 0, 4, signed=0)
    net.op("MaxPool", domain=domain, kernel_shape=[2, 2], strides=[2, 2])
    net.op("Flatten")
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (16, 5))))
    net.quant(net.last, 4.0, 0, 8)
    x = np.round(rng.normal(0, 3, (VECTORS, 3, 6, 5)) * 8).astype(np.float32) / 8
    _, values = values_of(net, tmp_path, x)
    assert {"x", net.last} < set(values)
    raw = evaluate(net.proto(), x.transpose(0, 2, 3, 1) if last else x)
    np.testing.assert_array_equal(values[net.last], raw[net.last])


def test_a_concatenation_and_a_branch_that_nothing_reads(rng, tmp_path):
    net = Net([1, 3, 4, 4])
    start = net.quant("x", 0.5, 0, 4)
    left = net.op("Conv", start, net.weight(rng.normal(0, 2, (2, 3, 1, 1))))
    left = net.quant(left, 2.0, 0, 4)
    right = net.op("Conv", start, net.weight(rng.normal(0, 2, (3, 3, 1, 1))))
    right = net.quant(right, 2.0, 0, 4)
    joined = net.op("Concat", left, right, axis=1)
    net.op("Erf", start)
    net.op("GlobalAveragePool", joined)
    net.quant(net.last, 0.25, 0, 8)
    _, values = values_of(net, tmp_path, rng.normal(0, 3, (VECTORS, 3, 4, 4)).astype(np.float32))
    assert joined in values


def test_integers_at_the_input_and_sums_at_the_output(rng, tmp_path):
    net = Net([1, 5], TensorProto.UINT8)
    net.op("DequantizeLinear", "x", np.float32(0.5), net.const(3, np.uint8))
    net.op("MatMul", net.last, net.weight(rng.integers(0, 2, (5, 3)), 1.0, 2))
    net.quant(net.last, 4.0, 0, 8)
    net.op("MatMul", net.last, net.weight(rng.choice([-1.0, 0.0], (3, 2)) * 0 + np.eye(3)[:, :2], 1.0, 2))
    sums = net.last
    net.op("Mul", net.last, 0.5)
    codes = rng.integers(0, 256, (VECTORS, 5)).astype(np.uint8)
    model, _ = values_of(net, tmp_path, codes, codes=True)
    # the function behind the last sums is the host's
    assert model.metadata["source_tensors"][model.output] == sums
