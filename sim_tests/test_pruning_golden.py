"""The integer network in torch against a slow loop in plain Python, and its bounds."""

from __future__ import annotations

import itertools

import pytest
import torch

from zeroskip.pruning import PruningError
from zeroskip.pruning.capture import Kind
from zeroskip.pruning.golden import Codes, IntegerLayer, IntegerNetwork


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
        "conv", Kind.CONV2D, "input", "output",
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
        IntegerLayer("pool1", Kind.MAX_POOL2D, "input", "pool1", kernel=(2, 2), stride=(2, 2)),
        IntegerLayer("pool2", Kind.AVG_POOL2D, "pool1", "pool2", kernel=(2, 1), stride=(2, 1), clamp=(-128, 127)),
        IntegerLayer(
            "fc", Kind.LINEAR, "pool2", "output", weight=weight, bias=torch.tensor([5, -7, 0], dtype=torch.int32),
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
    layer = IntegerLayer("fc", Kind.LINEAR, "input", "output", **values)
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
