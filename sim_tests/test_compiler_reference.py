"""Tests of the integer interpreter against loops over Python integers."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest

from models import (
    TINY,
    build_model,
    conv,
    lenet5_like,
    linear,
    random_codes,
    random_graph,
    random_model,
    resnet8_like,
    tiny,
)
from zeroskip.compiler.errors import CompileError, InputError
from zeroskip.compiler.ir import Kind, Layer, Model, Pool, Rounding, Tensor
from zeroskip.compiler.reference import (
    _exact_dtype,
    accumulate,
    accumulator_range,
    accuracy,
    add_range,
    code_dtype,
    code_range,
    predictions,
    requantize,
    rescale,
    row_ranges,
    run,
    run_layer,
    threshold_codes,
)

SAMPLES = 3


def slow_round(value: Fraction, rounding: Rounding) -> int:
    if rounding is Rounding.FLOOR:
        return floor(value)
    if rounding is Rounding.HALF_UP:
        return floor(value + Fraction(1, 2))
    if rounding is Rounding.HALF_EVEN:
        return round(value)
    magnitude = floor(abs(value) + Fraction(1, 2))
    return magnitude if value >= 0 else -magnitude


def slow_rescale(value: int, multiplier: int, shift: int, rounding: Rounding) -> int:
    """Scale in Python integers; TensorFlow Lite's two roundings as its C++ source has them."""
    if rounding is Rounding.TFLITE_SINGLE:
        return (value * multiplier + (1 << shift >> 1)) >> shift
    if rounding is not Rounding.TFLITE_DOUBLE:
        return slow_round(Fraction(value * multiplier, 2**shift), rounding)
    exponent = 31 - shift
    product = (value << max(exponent, 0)) * multiplier
    nudge = 1 << 30 if product >= 0 else 1 - (1 << 30)
    high = abs(product + nudge) // (1 << 31) * (1 if product + nudge >= 0 else -1)
    if exponent >= 0:
        return high
    mask = (1 << -exponent) - 1
    return (high >> -exponent) + ((high & mask) > (mask >> 1) + (high < 0))


def slow_sum(layer: Layer, source: Tensor, image: Any, channel: int, y: int, x: int) -> int:
    """The accumulator of one convolution output, tap by tap."""
    depth = layer.weight.shape[1]
    first = channel // (layer.weight.shape[0] // layer.groups) * depth
    total = 0
    for c, ky, kx in itertools.product(range(depth), range(layer.kernel[0]), range(layer.kernel[1])):
        row = y * layer.stride[0] + ky * layer.dilation[0] - layer.padding[0]
        column = x * layer.stride[1] + kx * layer.dilation[1] - layer.padding[1]
        inside = 0 <= row < source.shape[1] and 0 <= column < source.shape[2]
        code = int(image[first + c][row][column]) if inside else source.zero_point
        total += int(layer.weight[channel, c, ky, kx]) * code
    return total


def slow_code(layer: Layer, target: Tensor, acc: int, channel: int) -> int:
    if layer.rounding is Rounding.THRESHOLDS:
        return target.lo + sum(int(threshold) <= acc for threshold in layer.thresholds[channel])
    index = channel if len(layer.multiplier) > 1 else 0
    scale = int(layer.multiplier[index]), int(layer.shift[index])
    value = slow_rescale(acc + int(layer.bias[channel]), *scale, layer.rounding)
    return min(max(value + target.zero_point, layer.clamp[0]), layer.clamp[1])


def slow_add(layer: Layer, sources: list[Tensor], target: Tensor, samples: list[Any]) -> Any:
    scales = [(int(m), int(s)) for m, s in zip(layer.multiplier, layer.shift, strict=True)]
    result = np.zeros(target.shape, np.int64)
    for index in np.ndindex(target.shape):
        total = 0
        for source, sample, scale in zip(sources, samples, scales[:2], strict=True):
            code = (int(sample[index]) - source.zero_point) << layer.left_shift
            total += slow_rescale(code, *scale, layer.rounding)
        code = slow_rescale(total, *scales[2], layer.rounding) + target.zero_point
        result[index] = min(max(code, layer.clamp[0]), layer.clamp[1])
    return result


def slow_window(layer: Layer, image: Any, channel: int, y: int, x: int) -> list[int]:
    """The codes under a pooling window, padding left out."""
    height, width = image.shape[1:]
    rows = range(y * layer.stride[0] - layer.padding[0], y * layer.stride[0] - layer.padding[0] + layer.kernel[0])
    columns = range(x * layer.stride[1] - layer.padding[1], x * layer.stride[1] - layer.padding[1] + layer.kernel[1])
    return [int(image[channel, r, c]) for r in rows for c in columns if 0 <= r < height and 0 <= c < width]


def slow_layer(layer: Layer, sources: list[Tensor], target: Tensor, samples: list[Any]) -> Any:
    if layer.kind is Kind.ADD:
        return slow_add(layer, sources, target, samples)
    if layer.kind is Kind.CONCAT:
        return np.array([row for sample in samples for row in sample])
    source, sample = sources[0], samples[0]
    result = np.zeros(target.shape, np.int64)
    if layer.kind is Kind.LINEAR:
        codes = [int(code) for code in sample.reshape(-1)]
        for row in range(target.shape[0]):
            acc = sum(int(weight) * code for weight, code in zip(layer.weight[row], codes, strict=True))
            result[row] = slow_code(layer, target, acc, row)
        return result
    for channel, y, x in itertools.product(*(range(size) for size in target.shape)):
        if layer.kind is Kind.CONV2D and layer.pool is None:
            result[channel, y, x] = slow_code(layer, target, slow_sum(layer, source, sample, channel, y, x), channel)
        elif layer.kind is Kind.CONV2D:
            window = itertools.product(range(layer.pool.kernel[0]), range(layer.pool.kernel[1]))
            places = [(y * layer.pool.stride[0] + dy, x * layer.pool.stride[1] + dx) for dy, dx in window]
            sums = [slow_sum(layer, source, sample, channel, *place) for place in places]
            result[channel, y, x] = max(slow_code(layer, target, acc, channel) for acc in sums)
        elif layer.kind is Kind.MAX_POOL2D:
            result[channel, y, x] = max(slow_window(layer, sample, channel, y, x))
        else:
            codes = slow_window(layer, sample, channel, y, x)
            average = slow_round(Fraction(sum(codes), len(codes)), Rounding.HALF_AWAY)
            result[channel, y, x] = min(max(average, layer.clamp[0]), layer.clamp[1])
    return result


def assert_equals_loop(model: Model, inputs: Any) -> None:
    """Every tensor of ``run`` equals the loop's."""
    fast = run(model, inputs)
    assert set(fast) == set(model.tensors)
    for index, sample in enumerate(inputs):
        values = {model.input: sample}
        for layer in model.layers:
            sources = [model.tensors[name] for name in layer.inputs]
            samples = [values[name] for name in layer.inputs]
            slow = values[layer.output] = slow_layer(layer, sources, model.tensors[layer.output], samples)
            np.testing.assert_array_equal(fast[layer.output][index], slow, err_msg=layer.name)


@pytest.mark.parametrize("name", sorted(TINY))
def test_run_equals_the_loop_on_tiny_networks(name: str) -> None:
    model = tiny(name, samples=SAMPLES)
    assert_equals_loop(model, random_codes(np.random.default_rng(5), model.tensors["input"], SAMPLES))


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("structure", ["dense", "nonstructured", "column"])
def test_run_equals_the_loop_on_random_networks(seed: int, structure: str) -> None:
    rounding = list(Rounding)[seed % len(Rounding)]
    model = random_model(np.random.default_rng(seed), structure=structure, rounding=rounding, samples=SAMPLES)
    assert_equals_loop(model, model.golden["input"])


@pytest.mark.parametrize("seed", range(25))
def test_run_equals_the_loop_on_random_graphs(seed: int) -> None:
    model = random_graph(np.random.default_rng(seed), rounding=list(Rounding)[seed % len(Rounding)], samples=SAMPLES)
    assert_equals_loop(model, model.golden["input"])


def test_resnet8_runs_in_batches_of_any_memory() -> None:
    model = resnet8_like(samples=SAMPLES)
    results = run(model, model.golden["input"], batch=2)
    for name, codes in model.golden.items():
        np.testing.assert_array_equal(results[name], codes)


@pytest.mark.parametrize("kernel", [(2, 2), (3, 1)])
def test_fused_pool_equals_the_loop_and_drops_the_remainder(kernel: tuple[int, int]) -> None:
    model = build_model(np.random.default_rng(1), Tensor("input", (2, 8, 7)), [conv(3, 3, relu=False, out_signed=True)])
    pooled = (3, 6 // kernel[0], 5 // kernel[1])
    fused = replace(model.layers[0], pool=Pool(kernel, kernel))
    tensors = {**model.tensors, "output": replace(model.tensors["output"], shape=pooled)}
    model = replace(model, layers=(fused,), tensors=tensors)
    assert_equals_loop(model, random_codes(np.random.default_rng(2), model.tensors["input"], SAMPLES))


def test_batch_size_does_not_change_the_result() -> None:
    model = tiny("asymmetric_padding", samples=11)
    whole = run(model, model.golden["input"])
    for batch in (1, 4, 11, 100):
        part = run(model, model.golden["input"], batch=batch)
        for name, codes in whole.items():
            np.testing.assert_array_equal(part[name], codes)


def test_run_returns_codes_of_eight_bits_and_only_what_is_wanted() -> None:
    model = tiny("signed")
    results = run(model, model.golden["input"].astype(np.int64), tensors=["fc1"])
    assert list(results) == ["fc1"]
    assert results["fc1"].dtype == np.int8
    assert code_dtype(Tensor("a", (1,), bits=8)) == np.uint8
    assert code_dtype(Tensor("a", (1,), bits=8, signed=True)) == np.int8


SHIFTS = [rounding for rounding in Rounding if rounding is not Rounding.THRESHOLDS]
TFLITE = (Rounding.TFLITE_DOUBLE, Rounding.TFLITE_SINGLE)


@pytest.mark.parametrize("rounding", SHIFTS)
def test_requantize_equals_big_integers(rounding: Rounding) -> None:
    rng = np.random.default_rng(7)
    top = (1 << 31) - 8
    edges = [-top, -(1 << 20), -3, -2, -1, 0, 1, 2, 3, (1 << 20) - 1, top]
    shifts, multipliers = [0, 1, 2, 5, 16, 30, 47], [0, 1, 3, (1 << 16) + 1, (1 << 17) - 1]
    if rounding in TFLITE:
        shifts += [31, 32, 33, 40, 62]
        multipliers += [1 << 30, (1 << 30) + 1, (1 << 31) - 1, *rng.integers(1 << 30, 1 << 31, 3).tolist()]
    for shift, multiplier in itertools.product(shifts, multipliers):
        acc = np.array([*edges, *rng.integers(-top, top, 20)])
        limit = (-(1 << 62), 1 << 62)
        fast = requantize(acc, 5, multiplier, shift, rounding, -3, limit)
        slow = [slow_rescale(int(v) + 5, multiplier, shift, rounding) - 3 for v in acc]
        assert fast.tolist() == slow, (shift, multiplier)


@pytest.mark.parametrize("rounding", SHIFTS)
def test_rescale_equals_big_integers_on_exact_halves_and_by_channel(rounding: Rounding) -> None:
    rng = np.random.default_rng(8)
    shift = rng.integers(0, 12, (1, 64))
    value = np.arange(-200, 201)[:, None] << np.maximum(shift - 1, 0)
    multiplier = rng.choice([1, 3, 5, 1 << 10], (1, 64))
    fast = rescale(value, multiplier, shift, rounding)
    for (row, column), got in np.ndenumerate(fast):
        slow = slow_rescale(int(value[row, column]), int(multiplier[0, column]), int(shift[0, column]), rounding)
        assert got == slow


def test_tflite_double_rounds_twice_and_single_once() -> None:
    # 3 * 2^30 / 2^32 is 0.75: one rounding gives 1; two give 1.5 -> 2 (half up), then 2 / 2 = 1.
    # -1 * 2^30 / 2^32 is -0.25; two roundings give -0.5 -> 0 (half up), then 0; one gives 0.
    # 1 * 2^30 / 2^32 is 0.25; two give 0.5 -> 1, then 0.5 -> 1: the double rounding differs.
    value = np.array([3, -1, 1, -3, -5])
    assert rescale(value, 1 << 30, 32, Rounding.TFLITE_DOUBLE).tolist() == [1, 0, 1, -1, -1]
    assert rescale(value, 1 << 30, 32, Rounding.TFLITE_SINGLE).tolist() == [1, 0, 0, -1, -1]


def test_thresholds_have_no_rescale() -> None:
    with pytest.raises(ValueError, match="Rounding must be a shift, not 'thresholds'"):
        rescale(1, 1, 0, Rounding.THRESHOLDS)


def test_thresholds_count_from_the_smallest_code() -> None:
    acc = np.array([[-6, -5, -4, 0, 1, 9], [2, 1, 0, -1, -2, -3]])
    thresholds = np.array([[-5, 1, 1], [0, 0, 2]], np.int32)
    assert threshold_codes(acc, thresholds, -2).tolist() == [[-2, -1, -1, -1, 1, 1], [1, 0, 0, -2, -2, -2]]


def test_add_range_is_reached() -> None:
    model = tiny("add_scales")
    layer = model.layer("add1")
    sources = [model.tensors[name] for name in layer.inputs]
    ranges = add_range(layer, sources)
    wide = replace(model.tensors["add1"], bits=32, zero_point=0)
    layer = replace(layer, multiplier=np.array([*layer.multiplier[:2], 1]), shift=np.array([*layer.shift[:2], 0]))
    layer = replace(layer, clamp=(wide.lo, wide.hi))
    part = replace(model, tensors={**model.tensors, "add1": wide})
    for side in (0, 1):
        inputs = [np.full((1, *t.shape), (t.lo, t.hi)[side]) for t in sources]
        assert (run_layer(part, layer, inputs) == ranges[2][side]).all()
    assert ranges[2] == (ranges[0][0] + ranges[1][0], ranges[0][1] + ranges[1][1])


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        (Rounding.FLOOR, [-2, -2, -1, -1, 0, 0, 1, 1]),
        (Rounding.HALF_UP, [-2, -1, -1, 0, 0, 1, 1, 2]),
        (Rounding.HALF_AWAY, [-2, -2, -1, -1, 0, 1, 1, 2]),
        (Rounding.HALF_EVEN, [-2, -2, -1, 0, 0, 0, 1, 2]),
        (Rounding.TFLITE_SINGLE, [-2, -1, -1, 0, 0, 1, 1, 2]),
        (Rounding.TFLITE_DOUBLE, [-2, -1, -1, 0, 0, 1, 1, 2]),
    ],
)
def test_requantize_rounds_halves(rounding: Rounding, expected: list[int]) -> None:
    assert requantize([-4, -3, -2, -1, 0, 1, 2, 3], 0, 1, 1, rounding, 0, (-9, 9)).tolist() == expected


def test_requantize_clamps_after_the_zero_point() -> None:
    assert requantize([-100, 0, 100], 0, 1, 0, Rounding.HALF_UP, 7, (5, 60)).tolist() == [5, 7, 60]


def worst_codes(layer: Layer, tensor: Tensor, row: int, largest: bool) -> Any:
    """The linear layer's input that drives output ``row`` to its limit."""
    positive = layer.weight[row] > 0
    return np.where(positive == largest, tensor.hi, tensor.lo).reshape(1, *tensor.shape)


@pytest.mark.parametrize("name", ["only_linear", "weights_signed_8", "empty_rows", "column"])
def test_accumulator_range_is_reached_and_never_left(name: str) -> None:
    model = tiny(name)
    layer = model.layers[-1]
    source = model.tensors[layer.input]
    proven = accumulator_range(layer, source)
    lows, highs = row_ranges(layer, source)
    for row in range(len(layer.weight)):
        assert accumulate(layer, source, worst_codes(layer, source, row, False))[0, row] == lows[row]
        assert accumulate(layer, source, worst_codes(layer, source, row, True))[0, row] == highs[row]
    assert proven.total == (lows.min(), highs.max())
    assert proven.biased == ((lows + layer.bias).min(), (highs + layer.bias).max())
    assert proven.partial[0] <= min(proven.total[0], 0)
    assert proven.partial[1] >= max(proven.total[1], 0)


def test_accumulator_range_counts_running_sums_padding_and_narrow_codes() -> None:
    source = Tensor("input", (1, 2, 2), bits=4, zero_point=15)
    weight = np.array([[[[3, -2], [0, -1]]]], np.int16)
    layer = Layer("conv1", Kind.CONV2D, ("input",), "output", weight, np.array([7], np.int32), kernel=(2, 2))
    proven = accumulator_range(layer, source)
    assert (proven.partial, proven.total, proven.biased) == ((-45, 45), (-45, 45), (-38, 52))
    assert (proven.partial_width, proven.biased_width) == (7, 7)
    narrow = accumulator_range(layer, source, (4, 5))
    assert (narrow.partial, narrow.total) == ((-15, 15), (-3, 3))
    padded = accumulator_range(replace(layer, padding=(1, 0, 0, 0)), source, (4, 5))
    assert padded.total == (12 - 45, 45 - 12)


@pytest.mark.parametrize(
    ("limits", "width"), [((0, 0), 1), ((-1, 0), 1), ((0, 1), 2), ((-128, 127), 8), ((-129, 0), 9)]
)
def test_accumulator_width_is_twos_complement(limits: tuple[int, int], width: int) -> None:
    lo, hi = limits
    weight = np.array([[lo], [hi]], np.int16)
    layer = Layer("fc1", Kind.LINEAR, ("input",), "output", weight, np.zeros(2, np.int32))
    assert accumulator_range(layer, Tensor("input", (1,)), (1, 1)).biased_width == width


def test_code_range_is_the_clamp_of_the_producer_through_max_pools() -> None:
    model = tiny("overlapping_pool")
    layer = replace(model.layers[0], clamp=(3, 99))
    model = replace(model, layers=(layer, *model.layers[1:]))
    assert code_range(model, "input") == (0, 255)
    assert code_range(model, "conv1") == (3, 99)
    assert code_range(model, "pool1") == (3, 99)


def test_code_range_of_a_concatenation_holds_those_of_its_inputs_and_of_an_addition_its_clamp() -> None:
    model = tiny("concat")
    layers = [
        replace(layer, clamp={"conv1": (5, 70), "conv2": (3, 20)}.get(layer.name, layer.clamp))
        for layer in model.layers
    ]
    model = replace(model, layers=tuple(layers))
    assert code_range(model, "concat1") == (0, 255)
    assert code_range(
        replace(model, layers=(*layers[:2], replace(layers[2], inputs=("conv1", "conv2")))), "concat1"
    ) == (3, 70)
    assert code_range(tiny("add_scales"), "add1") == (-128, 127)


def test_exact_dtype_is_proved_from_the_weights() -> None:
    weight = np.full((1, 1 << 12), 128, np.int16)
    layer = Layer("fc1", Kind.LINEAR, ("input",), "output", weight, np.zeros(1, np.int32))
    assert _exact_dtype(layer, 31) == np.float32
    assert _exact_dtype(layer, 32) == np.float64
    assert _exact_dtype(layer, 1 << 34) == np.int64
    with pytest.raises(CompileError, match="Layer 'fc1' needs accumulators of 66 bits, but the reference holds 64"):
        _exact_dtype(layer, 1 << 45)


@pytest.mark.parametrize("bits", [9, 30])
def test_wide_codes_are_exact_in_every_dtype(bits: int) -> None:
    source = Tensor("input", (64,), bits=bits, signed=True)
    rng = np.random.default_rng(3)
    weight = rng.integers(-128, 129, (3, 64)).astype(np.int16)
    layer = Layer("fc1", Kind.LINEAR, ("input",), "output", weight, np.zeros(3, np.int32))
    codes = rng.integers(source.lo, source.hi + 1, (5, 64))
    expected = [[sum(int(w) * int(c) for w, c in zip(row, sample, strict=True)) for row in weight] for sample in codes]
    assert accumulate(layer, source, codes).tolist() == expected


def test_pooling_has_no_accumulator() -> None:
    model = tiny("pool_first")
    with pytest.raises(CompileError, match="Layer 'pool1' has no accumulator: its kind is max_pool2d"):
        accumulator_range(model.layers[0], model.tensors["input"])
    with pytest.raises(CompileError, match="Layer 'pool1' has no accumulator: its kind is max_pool2d"):
        accumulate(model.layers[0], model.tensors["input"], model.golden["input"])


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            np.zeros((2, 2, 7, 6)),
            "must be an integer array of codes, not float64; quantize floats with the tensor's scale first",
        ),
        ([[1]], "Input 'input' must be an integer array of codes, not list"),
        (np.zeros((2, 7, 6), np.uint8), r"Input 'input' must have shape \(samples, 2, 7, 6\), not \(2, 7, 6\)"),
        (np.zeros((1, 2, 6, 7), np.uint8), r"Input 'input' must have shape \(samples, 2, 7, 6\), not \(1, 2, 6, 7\)"),
        (np.zeros((0, 2, 7, 6), np.uint8), "Input 'input' must hold at least one sample, not 0"),
        (np.full((1, 2, 7, 6), 256), "Input 'input' must hold codes 0 to 255, not 256"),
        (np.full((1, 2, 7, 6), -1), "Input 'input' must hold codes 0 to 255, not -1"),
    ],
)
def test_run_refuses_inputs_that_do_not_fit(inputs: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        run(tiny("floor"), inputs)


def test_run_refuses_a_bad_batch_and_an_unknown_tensor() -> None:
    model = tiny("floor")
    with pytest.raises(InputError, match="Batch must be at least 1, not 0"):
        run(model, model.golden["input"], batch=0)
    with pytest.raises(InputError, match="Model 'tiny-floor' has no tensor 'fc9'; it has conv1, input, output"):
        run(model, model.golden["input"], tensors=["fc9"])


def test_accuracy_counts_the_largest_output_and_the_first_of_ties() -> None:
    assert predictions(np.array([[1, 5, 5], [2, 0, 2], [-3, -2, -1]], np.int8)).tolist() == [1, 0, 2]
    model = build_model(np.random.default_rng(0), Tensor("input", (6,)), [linear(4, relu=False, out_signed=True)])
    labels = predictions(run(model, model.golden["input"])["output"])
    assert accuracy(model, model.golden["input"], labels) == 1.0
    wrong = np.where(np.arange(len(labels)) < 4, (labels + 1) % 4, labels)
    assert accuracy(model, model.golden["input"], wrong) == 0.75


def test_accuracy_refuses_bad_labels() -> None:
    model = tiny("floor")
    inputs = model.golden["input"]
    with pytest.raises(InputError, match=r"Labels must be 16 integers, one a sample, not int64 of shape \(3,\)"):
        accuracy(model, inputs, np.zeros(3, np.int64))
    with pytest.raises(InputError, match=r"Labels must be 16 integers, one a sample, not float64 of shape \(16,\)"):
        accuracy(model, inputs, np.zeros(16))
    with pytest.raises(InputError, match="Labels must be 0 to 3, not 0 to 4"):
        accuracy(model, inputs, np.arange(16) % 5)


def test_lenet5_runs_in_batches_of_any_memory() -> None:
    model = lenet5_like(samples=SAMPLES)
    results = run(model, model.golden["input"])
    for name, codes in model.golden.items():
        np.testing.assert_array_equal(results[name], codes)
