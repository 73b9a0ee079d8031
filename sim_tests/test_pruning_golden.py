"""The integer network in torch against a slow loop in plain Python, and its bounds."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
import torch

import models
from zeroskip.compiler import reference
from zeroskip.pruning import PruningError
from zeroskip.pruning.golden import Codes, IntegerLayer, IntegerNetwork, Rounding, scaled
from zeroskip.pruning.graph import Kind


def requantize(value, bias, multiplier, shift, zero_point, clamp):
    """Round half up in Python integers."""
    product = (value + bias) * multiplier
    scaled = (product + (1 << (shift - 1))) >> shift if shift else product
    return min(max(scaled + zero_point, clamp[0]), clamp[1])


def pick(values, channel):
    """Return a per-channel or per-layer value."""
    return int(values[channel if len(values) > 1 else 0])


def slow_conv(layer, x, zero_in, zero_out):
    """Convolve with explicit loops; ``x`` is a nested list (C, H, W)."""
    top, left, bottom, right = layer.padding
    height, width = len(x[0]) + top + bottom, len(x[0][0]) + left + right

    def at(c, y, z):
        inside = 0 <= y - top < len(x[0]) and 0 <= z - left < len(x[0][0])
        return x[c][y - top][z - left] if inside else zero_in

    weight = layer.weight.tolist()
    kh, kw = len(weight[0][0]), len(weight[0][0][0])
    per_group = len(weight[0])
    share = len(weight) // layer.groups
    rows = (height - (kh - 1) * layer.dilation[0] - 1) // layer.stride[0] + 1
    columns = (width - (kw - 1) * layer.dilation[1] - 1) // layer.stride[1] + 1
    out = []
    for o in range(len(weight)):
        plane = []
        for oy in range(rows):
            line = []
            for ox in range(columns):
                total = 0
                for i, ky, kx in itertools.product(range(per_group), range(kh), range(kw)):
                    channel = (o // share) * per_group + i
                    y, z = oy * layer.stride[0] + ky * layer.dilation[0], ox * layer.stride[1] + kx * layer.dilation[1]
                    total += weight[o][i][ky][kx] * at(channel, y, z)
                line.append(
                    requantize(
                        total,
                        int(layer.bias[o]),
                        pick(layer.multiplier, o),
                        pick(layer.shift, o),
                        zero_out,
                        layer.clamp,
                    )
                )
            plane.append(line)
        out.append(plane)
    return out


def test_convolutions_equal_a_plain_loop():
    g = torch.Generator().manual_seed(4)
    layer = IntegerLayer(
        "conv", Kind.CONV2D, ("input",), "output",
        weight=torch.randint(-8, 9, (4, 2, 3, 2), generator=g, dtype=torch.int16),
        bias=torch.randint(-300, 300, (4,), generator=g, dtype=torch.int32),
        multiplier=torch.tensor([1, 70000, 131071, 3], dtype=torch.int32),
        shift=torch.tensor([0, 22, 20, 1], dtype=torch.int8),
        clamp=(-128, 127), stride=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2), groups=2,
    )  # fmt: skip
    rows = (6 + 3 - 2 - 1) // 2 + 1
    columns = (5 + 1 - 2 - 1) // 1 + 1
    tensors = {
        "input": Codes("input", (4, 6, 5), 8, False, 1.0, zero_point=3),
        "output": Codes("output", (4, rows, columns), 8, True, 1.0, zero_point=-2),
    }
    x = torch.randint(0, 256, (3, 4, 6, 5), generator=g, dtype=torch.uint8)
    got = IntegerNetwork((layer,), tensors).run(x)["output"]
    assert got.dtype == torch.int8
    assert got.tolist() == [slow_conv(layer, image, 3, -2) for image in x.tolist()]


def test_linear_and_pools_equal_a_plain_loop():
    g = torch.Generator().manual_seed(5)
    weight = torch.randint(-8, 9, (3, 8), generator=g, dtype=torch.int16)
    layers = (
        IntegerLayer("pool1", Kind.MAX_POOL2D, ("input",), "pool1", kernel=(2, 2), stride=(2, 2)),
        IntegerLayer("pool2", Kind.AVG_POOL2D, ("pool1",), "pool2", kernel=(2, 1), stride=(2, 1), clamp=(-128, 127)),
        IntegerLayer(
            "fc", Kind.LINEAR, ("pool2",), "output", weight=weight, bias=torch.tensor([5, -7, 0], dtype=torch.int32),
            multiplier=torch.tensor([90000], dtype=torch.int32), shift=torch.tensor([20], dtype=torch.int8),
            clamp=(-128, 127),
        ),
    )  # fmt: skip
    tensors = {
        "input": Codes("input", (2, 8, 4), 8, True, 1.0),
        "pool1": Codes("pool1", (2, 4, 2), 8, True, 1.0),
        "pool2": Codes("pool2", (2, 2, 2), 8, True, 1.0),
        "output": Codes("output", (3,), 8, True, 1.0),
    }
    x = torch.randint(-128, 128, (5, 2, 8, 4), generator=g, dtype=torch.int8)
    got = IntegerNetwork(layers, tensors).run(x)
    for n, image in enumerate(x.tolist()):
        pooled = [
            [[max(c[2 * y + a][2 * z + b] for a in (0, 1) for b in (0, 1)) for z in range(2)] for y in range(4)]
            for c in image
        ]
        assert got["pool1"][n].tolist() == pooled

        def average(total):
            half = (abs(total) + 1) // 2
            return half if total >= 0 else -half

        means = [[[average(c[2 * y][z] + c[2 * y + 1][z]) for z in range(2)] for y in range(2)] for c in pooled]
        assert got["pool2"][n].tolist() == means
        flat = [v for c in means for row in c for v in row]
        sums = [sum(w * v for w, v in zip(row, flat, strict=True)) for row in weight.tolist()]
        expected = [requantize(s, b, 90000, 20, 0, (-128, 127)) for s, b in zip(sums, (5, -7, 0), strict=True)]
        assert got["output"][n].tolist() == expected
    assert IntegerNetwork(layers, tensors).predict(x).tolist() == [
        row.index(max(row)) for row in got["output"].tolist()
    ]


def one_linear(**changes):
    values = {
        "weight": torch.ones((1, 1), dtype=torch.int16), "bias": torch.zeros(1, dtype=torch.int32),
        "multiplier": torch.ones(1, dtype=torch.int32), "shift": torch.zeros(1, dtype=torch.int8),
    } | changes  # fmt: skip
    layer = IntegerLayer("fc", Kind.LINEAR, ("input",), "output", **values)
    tensors = {"input": Codes("input", (1,), 8, False, 1.0), "output": Codes("output", (1,), 8, False, 1.0)}
    return IntegerNetwork((layer,), tensors)


def test_wrong_input_and_overflow_are_refused():
    with pytest.raises(
        PruningError, match=r"Input codes must be torch\.uint8 of shape \(N, 1\), not torch\.int8 \(2, 1\)"
    ):
        one_linear().run(torch.zeros((2, 1), dtype=torch.int8))
    big = {
        "bias": torch.tensor([2**31 - 1], dtype=torch.int32),
        "multiplier": torch.tensor([2**31 - 1], dtype=torch.int32),
    }
    with pytest.raises(PruningError, match="Layer 'fc' overflows: accumulator bound"):
        one_linear(**big)


def test_an_addition_that_overflows_is_refused():
    tensors = {name: Codes(name, (2,), 8, False, 1.0) for name in ("input", "output")}
    layer = IntegerLayer(
        "sum", Kind.ADD, ("input", "input"), "output", multiplier=torch.tensor([2**31 - 1] * 3, dtype=torch.int32),
        shift=torch.zeros(3, dtype=torch.int8), left_shift=20,
    )  # fmt: skip
    with pytest.raises(PruningError, match="Layer 'sum' overflows: its sum reaches"):
        IntegerNetwork((layer,), tensors)


# The two readings of the rules, torch and numpy, on the same networks.


def torch_network(model):
    """Return a compiler's model as an integer network in torch; weights are decoded levels."""

    def tensor(array):
        return None if array is None else torch.from_numpy(np.ascontiguousarray(array))

    layers = tuple(
        IntegerLayer(
            layer.name, Kind(layer.kind.value), layer.inputs, layer.output, tensor(layer.weight), tensor(layer.bias),
            tensor(layer.multiplier), tensor(layer.shift), layer.clamp, layer.kernel, layer.stride, layer.padding,
            layer.dilation, layer.groups, Rounding(layer.rounding.value), layer.left_shift, tensor(layer.thresholds),
        )
        for layer in model.layers
    )  # fmt: skip
    tensors = {
        name: Codes(name, t.shape, t.bits, t.signed, t.scale, t.zero_point) for name, t in model.tensors.items()
    }  # fmt: skip
    return IntegerNetwork(layers, tensors)


def assert_same(model):
    """Compare every tensor of both readings on extreme and random inputs."""
    inputs = models.random_codes(np.random.default_rng(3), model.tensors["input"], 8)
    expected = reference.run(model, inputs)
    got = torch_network(model).run(torch.from_numpy(inputs))
    assert set(got) == set(expected)
    for name, codes in expected.items():
        np.testing.assert_array_equal(got[name].numpy(), codes, err_msg=name)


@pytest.mark.parametrize("name", sorted(models.TINY))
def test_torch_equals_the_reference_on_tiny_networks(name):
    assert_same(models.tiny(name))


@pytest.mark.parametrize("seed", range(30))
def test_torch_equals_the_reference_on_random_graphs(seed):
    rounding = list(reference.Rounding)[seed % len(reference.Rounding)]
    assert_same(models.random_graph(np.random.default_rng(seed), rounding=rounding))


@pytest.mark.parametrize("network", ["resnet8_like", "dscnn_like", "autoencoder_like", "conv1d_like"])
@pytest.mark.parametrize("bits", [4, 8])
def test_torch_equals_the_reference_on_known_networks(network, bits):
    assert_same(getattr(models, network)(bits=bits, samples=2))


def exact(value, rounding):
    """Round a fraction by a rule of a single rounding."""
    if rounding is Rounding.FLOOR:
        return floor(value)
    if rounding in (Rounding.HALF_UP, Rounding.TFLITE_SINGLE):
        return floor(value + Fraction(1, 2))
    if rounding is Rounding.HALF_EVEN:
        return round(value)
    return floor(value + Fraction(1, 2)) if value >= 0 else ceil(value - Fraction(1, 2))


@pytest.mark.parametrize("rounding", [r for r in Rounding if r is not Rounding.THRESHOLDS])
def test_scaling_equals_fractions_and_the_reference(rounding):
    rng = np.random.default_rng(11)
    edges = [-(2**31) + 1, -(2**16), -3, -2, -1, 0, 1, 2, 3, 2**16, 2**31 - 1]
    values = np.array([*edges, *rng.integers(-(2**31) + 1, 2**31, 40), *rng.integers(-40, 40, 40)])
    shifts = [0, 1, 2, 3, 16, 30, 31, 32, 33, 47, 62]
    multipliers = [0, 1, 3, 2**16 + 1, 2**17 - 1, 2**30, 2**31 - 1]
    for shift, multiplier in itertools.product(shifts, multipliers):
        m, s = torch.tensor(multiplier), torch.tensor(shift)
        got = scaled(torch.from_numpy(values), m, s, rounding).tolist()
        numpy_rounding = reference.Rounding(rounding.value)
        assert got == reference.rescale(values, multiplier, shift, numpy_rounding).tolist(), (shift, multiplier)
        products = [int(v) * multiplier for v in values]
        if rounding is Rounding.TFLITE_DOUBLE:
            first = min(shift, 31)
            high = [exact(Fraction(p, 2**first), Rounding.HALF_UP) for p in products]
            wanted = [exact(Fraction(h, 2 ** (shift - first)), Rounding.HALF_AWAY) for h in high]
        else:
            wanted = [exact(Fraction(p, 2**shift), rounding) for p in products]
        assert got == wanted, (shift, multiplier)


def test_thresholds_are_no_scaling():
    with pytest.raises(ValueError, match="Rounding must be a shift, not 'thresholds'"):
        scaled(torch.ones(1), torch.ones(1), torch.ones(1, dtype=torch.int64), Rounding.THRESHOLDS)
