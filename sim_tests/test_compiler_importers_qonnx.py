"""Quant, IntQuant, BipolarQuant, Trunc and MultiThreshold: our integers equal their float32 definition."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_networks import QONNX, Net, check
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.ir import Grid, Rounding

ROUNDINGS = ("ROUND", "FLOOR", "CEIL", "UP", "DOWN", "HALF_UP", "HALF_DOWN")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def inputs(rng: np.random.Generator, *shape: int, spread: float = 3.0) -> np.ndarray:
    """Floats with ties among them."""
    values = rng.normal(0, spread, shape)
    return np.where(rng.random(shape) < 0.3, np.round(values * 4) / 4, values).astype(np.float32)


def dense(rng, tmp_path, *, wide=5, columns=12, scale=0.5, **quant) -> Net:
    net = Net([1, columns])
    net.quant("x", 0.25, 0, 4)
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (columns, wide)), 1.0, 3, narrow=1))
    net.quant(net.last, scale, quant.pop("zero", 0), quant.pop("bits", 4), **quant)
    return net


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0, 0.3, 1.7])
def test_every_rounding_at_every_boundary(rng, tmp_path, rounding, scale):
    check(dense(rng, tmp_path, scale=scale, rounding_mode=rounding), tmp_path, inputs(rng, 300, 12))


@pytest.mark.parametrize(
    ("bits", "signed", "narrow"), [(1, 0, 0), (2, 1, 1), (2, 0, 1), (3, 1, 0), (8, 0, 0), (8, 1, 1)]
)
@pytest.mark.parametrize("zero", [0.0, 1.0])
def test_bits_signs_and_zero_points(rng, tmp_path, bits, signed, narrow, zero):
    net = dense(rng, tmp_path, scale=0.5 if bits < 8 else 0.0625, bits=bits, signed=signed, narrow=narrow, zero=zero)
    model = check(net, tmp_path, inputs(rng, 200, 12))
    assert (model.tensors[model.output].bits, model.tensors[model.output].signed) == (bits, bool(signed))


def test_a_plain_scale_becomes_a_multiplier_and_a_shift(rng, tmp_path):
    model = check(dense(rng, tmp_path, scale=0.5), tmp_path, inputs(rng, 100, 12))
    assert model.layers[0].rounding is Rounding.HALF_EVEN
    assert model.layers[0].multiplier.tolist() == [1]


def test_batch_normalization_becomes_thresholds(rng, tmp_path):
    net = dense(rng, tmp_path, columns=40, wide=16)
    net.nodes.pop()
    net.last = net.nodes[-1].output[0]
    net.norm(rng, 16)
    net.quant(net.last, 0.37, 0, 3, narrow=1)
    model = check(net, tmp_path, inputs(rng, 500, 40))
    assert model.layers[0].rounding is Rounding.THRESHOLDS


def test_one_signed_bit_is_a_sign(rng, tmp_path):
    model = check(dense(rng, tmp_path, bits=1, scale=0.75), tmp_path, inputs(rng, 200, 12))
    assert model.layers[0].clamp == (-2, 1)


@pytest.mark.parametrize(
    ("weight", "grid", "bits"),
    [
        ({"bits": 2, "narrow": 1}, Grid.TERNARY, 2),
        ({"bits": 4, "narrow": 1}, Grid.SYMMETRIC, 4),
        ({"bits": 4}, Grid.SIGNED, 4),
        ({"bits": 1}, Grid.BINARY, 1),
        ({"bits": 3, "signed": 0}, Grid.SIGNED, 4),
        ({"bits": 8, "signed": 0}, Grid.CODEBOOK, 6),
    ],
)
def test_weights_have_the_grid_of_their_quantizer(rng, tmp_path, weight, grid, bits):
    net = Net([1, 9])
    net.quant("x", 0.25, 0, 4)
    values = rng.uniform(-9, 255 if weight["bits"] == 8 else 9, (9, 6))
    net.op("MatMul", net.last, net.weight(values, 1.0, **weight))
    net.quant(net.last, 32.0, 0, 8)
    layer = check(net, tmp_path, inputs(rng, 100, 9)).layers[0]
    assert (layer.grid, layer.weight_bits) == (grid, bits)


def test_scales_may_differ_by_output_channel(rng, tmp_path):
    net = Net([1, 9])
    net.quant("x", 0.25, 0, 4)
    net.op("MatMul", net.last, net.weight(rng.normal(0, 1, (9, 6)), 2.0 ** rng.integers(-5, 0, (1, 6)), 4))
    net.quant(net.last, 0.125, 0, 4)
    check(net, tmp_path, inputs(rng, 200, 9))


def test_bipolar_activations_and_weights(rng, tmp_path):
    net = Net([1, 9])
    net.op("BipolarQuant", "x", 0.5, domain=QONNX)
    last = net.last
    weight = net.op("BipolarQuant", net.const(rng.normal(0, 1, (9, 7))), 0.25, domain=QONNX)
    net.op("MatMul", last, weight)
    net.op("BipolarQuant", net.last, 1.0, domain=QONNX)
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (7, 3))))
    net.quant(net.last, 2.0, 0, 4)
    model = check(net, tmp_path, inputs(rng, 200, 9), minimum=2)
    assert model.layers[0].grid is Grid.BINARY


@pytest.mark.parametrize("rounding", ["FLOOR", "ROUND"])
def test_trunc_of_an_average(rng, tmp_path, rounding):
    net = Net([1, 3, 8, 8])
    net.quant("x", 0.5, 0, 4, signed=0)
    net.op("AveragePool", net.last, kernel_shape=[4, 4], strides=[4, 4])
    net.op("Mul", net.last, 16.0)
    net.op("Trunc", net.last, 0.5, 0.0, 8.0, 4.0, domain=QONNX, rounding_mode=rounding)
    check(net, tmp_path, inputs(rng, 50, 3, 8, 8))


def test_trunc_of_version_2(rng, tmp_path):
    net = dense(rng, tmp_path, bits=8, scale=0.25)
    net.op("Trunc", net.last, 0.25, 0.0, 8.0, 2.0, 5.0, domain=QONNX, rounding_mode="FLOOR", signed=1, narrow=0)
    check(net, tmp_path, inputs(rng, 200, 12))


@pytest.mark.parametrize(
    ("scale", "bias", "rows"), [(1.0, 0.0, 1), (1.0, -4.0, 6), (2.0, -1.0, 6), (0.5, 1.5, 6), (0.25, -1.0, 1)]
)
def test_multi_threshold(rng, tmp_path, scale, bias, rows):
    net = Net([1, 4, 5, 5])
    net.quant("x", 1.0, 0, 4)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (6, 4, 3, 3))), pads=[1, 1, 1, 1])
    thresholds = np.sort(rng.integers(-60, 60, (rows, 1 if scale == 2.0 else 7)) + rng.choice([0, 0.5]), axis=1)
    net.op("MultiThreshold", net.last, thresholds, domain=QONNX, out_scale=scale, out_bias=bias, out_dtype="INT4")
    check(net, tmp_path, inputs(rng, 20, 4, 5, 5))


def test_multi_threshold_with_channels_behind(rng, tmp_path):
    net = Net([1, 4, 5, 5])
    net.quant("x", 1.0, 0, 4)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (6, 4, 3, 3))))
    net.op("Transpose", net.last, perm=[0, 2, 3, 1])
    thresholds = np.sort(rng.integers(-60, 60, (6, 3)), axis=1)
    net.op("MultiThreshold", net.last, thresholds, domain=QONNX, data_layout="NHWC", out_dtype="UINT2")
    check(net, tmp_path, inputs(rng, 20, 4, 5, 5))


def refused(net: Net, tmp_path, text: str) -> None:
    with pytest.raises(InputError, match=text):
        net.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"scale": 0.0}, r"Node 'Quant_0' \(Quant\) must have a scale above 0, from 1e-30 to 1e\+30, not 0"),
        ({"scale": -1.0}, "from 1e-30 to 1e\\+30, not -1"),
        ({"scale": np.inf}, "must have one finite number as input 1"),
        ({"scale": [0.5] * 5 + [0.25]}, "activations have one scale a tensor"),
        ({"zero": 0.5}, "must have a whole zero point, not 0.5"),
        ({"zero": 9.0}, "has zero point 9, but codes -8 to 7"),
        ({"bits": 2.5}, "must have a whole number of bits from 1 to 32, not 2.5"),
        ({"bits": 0}, "must have a whole number of bits"),
        ({"bits": 16}, "without a number of bits of at most 8"),
        ({"rounding_mode": "STOCHASTIC"}, "has rounding mode 'STOCHASTIC'; supported are ROUND"),
    ],
)
def test_quantizers_without_an_exact_meaning_are_refused(rng, tmp_path, settings, text):
    net = Net([1, 6])
    net.quant("x", **settings)
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (6, 3))))
    net.quant()
    refused(net, tmp_path, text)


def test_wide_codes_are_served_only_where_they_fit(rng, tmp_path):
    check(dense(rng, tmp_path, bits=16, scale=16.0), tmp_path, inputs(rng, 50, 12))
    refused(dense(rng, tmp_path, bits=16, scale=2**-8), tmp_path, r"gives codes from -\d+ to \d+, 1\d bits")


def test_float_weights_are_refused(rng, tmp_path):
    net = Net([1, 6])
    net.quant("x")
    net.op("MatMul", net.last, net.const(rng.normal(0, 2, (6, 3))))
    net.quant()
    refused(net, tmp_path, "has float weights that nothing quantizes; put a Quant between the weights and it")


def test_a_bias_between_codes_is_refused(rng, tmp_path):
    net = Net([1, 6])
    net.op("MultiThreshold", "x", np.arange(3.0)[None], domain=QONNX, out_bias=0.3)
    refused(net, tmp_path, "the bias must be a whole number of half steps")
