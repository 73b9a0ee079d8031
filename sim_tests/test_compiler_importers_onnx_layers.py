"""Convolutions, matrix products and poolings of ONNX: our integers equal float32, whatever the window and layout."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_networks import CHANNELS_LAST, Net, check
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.ir import Kind


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def images(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 3, (20, *shape)).astype(np.float32)


def refused(net: Net, tmp_path, text: str) -> None:
    with pytest.raises(InputError, match=text):
        net.load(tmp_path)


def convolution(rng, shape=(4, 7, 6), weight=(6, 4, 3, 3), bits=4, **settings) -> Net:
    net = Net([1, *shape])
    net.quant("x", 0.5, 0, 4)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, weight)), **settings)
    net.norm(rng, weight[0], 9)
    net.op("Relu")
    net.quant(net.last, 0.25, 0, bits, signed=0)
    return net


@pytest.mark.parametrize(
    ("weight", "settings"),
    [
        ((6, 4, 3, 3), {}),
        ((6, 4, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((6, 4, 3, 2), {"pads": [2, 0, 1, 1], "strides": [1, 2]}),
        ((6, 4, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((6, 4, 4, 3), {"auto_pad": "SAME_LOWER"}),
        ((6, 4, 2, 2), {"dilations": [2, 3], "pads": [1, 1, 1, 1]}),
        ((4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
        ((6, 2, 3, 3), {"group": 2}),
        ((6, 4, 1, 1), {"kernel_shape": [1, 1]}),
        ((6, 4, 7, 6), {}),
    ],
)
def test_convolution_batch_normalization_relu(rng, tmp_path, weight, settings):
    check(convolution(rng, weight=weight, **settings), tmp_path, images(rng, 4, 7, 6))


def test_one_dimension(rng, tmp_path):
    net = convolution(rng, (3, 17), (5, 3, 4), pads=[2, 1], strides=[3])
    net.op("MaxPool", net.last, kernel_shape=[2], strides=[2])
    net.op("Flatten")
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (15, 3))))
    net.quant(net.last, 2.0, 0, 6)
    model = check(net, tmp_path, images(rng, 3, 17), minimum=2)
    assert model.tensors[model.input].shape == (3, 1, 17)


@pytest.mark.parametrize("relu", [True, False])
def test_max_pooling_before_and_behind_the_quantizer(rng, tmp_path, relu):
    """A pooling on sums turns the filters with a gamma below 0 and is taken on codes that rise."""
    net = Net([1, 3, 9, 8])
    net.quant("x", 0.5, 0, 4)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (8, 3, 3, 3)), 1.0, 4), pads=[1, 1, 1, 1])
    net.norm(rng, 8, 9)
    if relu:
        net.op("Relu")
    net.op("MaxPool", net.last, kernel_shape=[2, 2], strides=[2, 2])
    net.quant(net.last, 0.25, 0, 4)
    net.op("MaxPool", net.last, kernel_shape=[3, 2], strides=[1, 2], pads=[1, 0, 1, 1])
    model = check(net, tmp_path, images(rng, 3, 9, 8), minimum=2)
    assert [layer.kind for layer in model.layers] == [Kind.CONV2D, Kind.MAX_POOL2D, Kind.MAX_POOL2D]


def test_pooling_that_rounds_its_size_up(rng, tmp_path):
    net = convolution(rng)
    net.op("MaxPool", net.last, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1)
    check(net, tmp_path, images(rng, 4, 7, 6), minimum=2)


def test_a_factor_below_0_behind_a_pooling_is_refused(rng, tmp_path):
    net = Net([1, 3, 8, 8])
    net.quant("x")
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (4, 3, 3, 3))))
    net.op("MaxPool", net.last, kernel_shape=[2, 2], strides=[2, 2])
    net.op("Mul", net.last, -0.5)
    net.quant()
    refused(net, tmp_path, r"Node 'MaxPool_3' takes a maximum that a later node turns around")


@pytest.mark.parametrize("settings", [{"kernel_shape": [3, 3], "strides": [2, 1]}, {"kernel_shape": [7, 6]}])
def test_average_pooling(rng, tmp_path, settings):
    net = convolution(rng, pads=[1, 1, 1, 1])
    net.op("AveragePool", net.last, **settings)
    net.quant(net.last, 0.125, 0, 5, signed=0)
    check(net, tmp_path, images(rng, 4, 7, 6), minimum=2)


def test_average_pooling_over_padding_that_counts(rng, tmp_path):
    net = convolution(rng)
    net.op("AveragePool", net.last, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    net.quant(net.last, 0.25, 0, 4, signed=0)
    check(net, tmp_path, images(rng, 4, 7, 6), minimum=2)
    net = convolution(rng)
    net.op("AveragePool", net.last, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    net.quant(net.last, 0.25, 0, 4)
    refused(net, tmp_path, "divides by the elements inside the map; supported with padding is count_include_pad 1")


@pytest.mark.parametrize(("size", "kind"), [((5, 5), Kind.AVG_POOL2D), ((4, 4), Kind.CONV2D)])
def test_global_average_is_the_pooling_of_the_hardware_where_no_tie_tells_them_apart(rng, tmp_path, size, kind):
    net = Net([1, 4, *size])
    net.quant("x", 0.5, 0, 4, signed=0)
    net.op("GlobalAveragePool")
    net.quant(net.last, 0.5, 0, 4, signed=0)
    net.op("Flatten")
    net.op("Gemm", net.last, net.weight(rng.normal(0, 2, (3, 4))), rng.normal(0, 2, 3), transB=1)
    net.quant(net.last, 1.0, 0, 5)
    model = check(net, tmp_path, images(rng, 4, *size), minimum=2)
    assert model.layers[0].kind is kind


def test_channels_last_as_finn_and_qonnx_write_it(rng, tmp_path):
    net = Net([1, 9, 8, 3])
    net.quant("x", 0.5, 0, 4)
    weight = net.weight(rng.normal(0, 2, (6, 3, 3, 3)), 1.0, 4)
    settings = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1}
    net.op("Conv", net.last, weight, domain=CHANNELS_LAST, **settings)
    net.norm(rng, 6, 9, domain=CHANNELS_LAST)
    net.quant(net.last, 0.5, 0, 4)
    net.op("MaxPool", net.last, kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4, domain=CHANNELS_LAST)
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (6, 5))))
    net.quant(net.last, 1.0, 0, 5)
    net.op("Flatten")
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (4 * 4 * 5, 7))))
    net.quant(net.last, 4.0, 0, 6)
    model = check(net, tmp_path, images(rng, 9, 8, 3), minimum=4)
    assert model.tensors[model.input].shape == (3, 9, 8)
    assert any("channels last in the file" in note for note in model.metadata["notes"])


def test_channels_are_moved_by_transpositions(rng, tmp_path):
    net = convolution(rng)
    net.op("Transpose", net.last, perm=[0, 2, 3, 1])
    net.op("Reshape", net.last, net.const([1, -1], np.int64))
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (5 * 4 * 6, 7))))
    net.quant(net.last, 4.0, 0, 6)
    check(net, tmp_path, images(rng, 4, 7, 6), minimum=2)


def test_integer_bias_is_added_to_the_accumulator(rng, tmp_path):
    net = Net([1, 6])
    net.quant("x", 0.3, 0, 4)
    weight, last = net.weight(rng.normal(0, 1, (4, 6)), 0.7, 4), net.last
    bias = net.quant(net.const(rng.normal(0, 5, 4)), np.float32(0.3) * np.float32(0.7), 0, 16)
    net.op("Gemm", last, weight, bias, transB=1)
    net.quant(net.last, 0.21, 0, 8)
    layer = net.load(tmp_path).layers[0]
    assert layer.multiplier is not None


@pytest.mark.parametrize(
    ("op", "settings", "text"),
    [
        ("Conv", {"group": 3}, r"has 3 groups and weights of shape \(6, 4, 3, 3\) for 4 channels"),
        ("Conv", {"pads": [-1, 0, 0, 0]}, "must have 4 pads of at least 0"),
        ("Conv", {"strides": [0, 1]}, "must have 2 strides of at least 1"),
        ("Conv", {"strides": [1]}, "must have 2 strides"),
        ("Conv", {"dilations": [9, 9]}, "has a window of .* that does not fit"),
        ("Conv", {"auto_pad": "EVEN"}, "has auto_pad 'EVEN'"),
        ("Conv", {"colour": 1}, "has attribute 'colour'; supported are group, auto_pad"),
        ("Conv", {"group": 1.5}, "must have attribute 'group' like 1, not 1.5"),
        (
            "ConvTranspose",
            {},
            r"Node 'Conv_2' \(ConvTranspose\) is not supported; nearest is Conv, with the upsampling outside of the",
        ),
    ],
)
def test_windows_that_do_not_fit_are_refused(rng, tmp_path, op, settings, text):
    net = convolution(rng, **settings)
    net.nodes[2].op_type = op
    refused(net, tmp_path, text)


def test_weights_that_do_not_fit_are_refused(rng, tmp_path):
    net = Net([1, 6])
    net.quant("x")
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (7, 3))))
    net.quant()
    refused(net, tmp_path, "has weights for 7 columns, but its input has 6")


def test_scales_by_input_channel_are_refused(rng, tmp_path):
    net = Net([1, 6])
    net.quant("x")
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (6, 3)), 2.0 ** np.arange(6)[:, None]))
    net.quant()
    refused(net, tmp_path, "they may differ by output channel only")
