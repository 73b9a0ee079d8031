"""Tests of the removal of constant channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models import (
    TINY,
    Spec,
    avg_pool,
    build_model,
    concat,
    conv,
    linear,
    max_pool,
    random_codes,
    random_graph,
    random_model,
    resnet8_like,
    tiny,
)
from zeroskip.compiler.ir import Model, Rounding, Tensor
from zeroskip.compiler.passes.compact_filters import compact_filters
from zeroskip.compiler.passes.fuse_max_pool import fuse_max_pool
from zeroskip.compiler.reference import run
from zeroskip.compiler.verify import verify

SOURCE = Tensor("input", (2, 7, 6))
SPARSE = {"structure": "nonstructured", "keep": 0.5}
LAST = {"relu": False, "out_signed": True}


def network(*specs: Spec, constants: dict[str, dict[int, int]] | None = None) -> Model:
    """Return a network; ``constants`` sets the bias of layers' rows so that an empty row gives that code."""
    model = build_model(np.random.default_rng(4), SOURCE, specs)
    layers = []
    for layer in model.layers:
        for row, code in (constants or {}).get(layer.name, {}).items():
            bias, multiplier, shift = (np.array(a) for a in (layer.bias, layer.multiplier, layer.shift))
            bias[row], multiplier[row], shift[row] = code, 1, 0
            layer = replace(layer, bias=bias, multiplier=multiplier, shift=shift)
        layers.append(layer)
    model = replace(model, layers=tuple(layers))
    return replace(model, golden=run(model, model.golden["input"]))


def compact(model: Model) -> tuple[Model, list[str]]:
    """Run the pass and prove that the output did not change and that every golden sample is still right."""
    report: list[str] = []
    after = compact_filters(model, report)
    verify(after)
    inputs = random_codes(np.random.default_rng(8), model.tensors["input"], 8)
    np.testing.assert_array_equal(run(after, inputs)["output"], run(model, inputs)["output"])
    got: dict[str, Any] = run(after, after.golden["input"])
    assert set(after.golden) == set(model.golden)
    for name, codes in after.golden.items():
        np.testing.assert_array_equal(codes, got[name], err_msg=name)
    return after, report


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("fused", [False, True])
def test_random_networks_keep_their_output(seed: int, fused: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_model(rng, layers=4, structure="nonstructured", keep=float(rng.choice([0.02, 0.1, 0.3])))
    compact(fuse_max_pool(model) if fused else model)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_keep_their_output(seed: int) -> None:
    rounding = list(Rounding)[seed % len(Rounding)]
    options = {"structure": "filter", "keep": 0.4, "rounding": rounding}
    compact(random_graph(np.random.default_rng(seed), layers=8, **options))


@pytest.mark.parametrize("name", sorted(TINY))
def test_tiny_networks_keep_their_output(name: str) -> None:
    compact(tiny(name))


def test_a_constant_is_folded_into_the_bias_of_the_next_layer() -> None:
    model = network(
        conv(4, 3, **SPARSE, empty_rows=(0, 2)),
        max_pool(2),
        conv(3, 2),
        linear(4, **LAST),
        constants={"conv1": {0: 7, 2: 31}},
    )
    after, report = compact(model)
    assert report == [
        "compact_filters: layer 'conv1': 2 constant channels of 4 (0, 2) removed and folded into the bias of 'conv2'"
    ]
    assert after.layers[0].weight.shape == (2, 2, 3, 3)
    assert after.tensors["conv1"].shape == (2, 5, 4)
    assert after.tensors["pool1"].shape == (2, 2, 2)
    weight = model.layer("conv2").weight.astype(np.int64)
    fold = 7 * weight[:, 0].sum(axis=(1, 2)) + 31 * weight[:, 2].sum(axis=(1, 2))
    np.testing.assert_array_equal(after.layer("conv2").bias, model.layer("conv2").bias + fold)
    np.testing.assert_array_equal(after.golden["pool1"], model.golden["pool1"][:, [1, 3]])


def test_a_constant_stays_where_the_next_layer_pads_with_another_code() -> None:
    model = network(
        conv(4, 3, **SPARSE, empty_rows=(0, 2)),
        conv(3, 3, padding=1),
        linear(4, **LAST),
        constants={"conv1": {0: 0, 2: 31}},
    )
    after, report = compact(model)
    assert report == [
        (
            "compact_filters: layer 'conv1': 1 constant channel of 4 (2) stay: 'conv2' pads with 0, "
            "which is not their constant"
        ),
        "compact_filters: layer 'conv1': 1 constant channel of 4 (0) removed and folded into the bias of 'conv2'",
    ]
    assert after.tensors["conv1"].shape[0] == 3


def test_a_constant_equal_to_a_nonzero_padding_code_is_folded() -> None:
    model = network(
        conv(4, 3, **SPARSE, empty_rows=(1,), out_zero_point=31, relu=False),
        conv(3, 3, padding=1, stride=2),
        linear(4, **LAST),
        constants={"conv1": {1: 0}},
    )
    after, report = compact(model)
    assert after.tensors["conv1"].shape[0] == 3
    assert "1 constant channel of 4 (1) removed" in report[0]


def test_a_channel_that_is_always_clamped_is_constant() -> None:
    model = network(conv(4, 3), linear(4, **LAST))
    bias = np.array(model.layers[0].bias)
    bias[1], bias[3] = -(1 << 30), 1 << 30
    model = replace(model, layers=(replace(model.layers[0], bias=bias), model.layers[1]))
    model = replace(model, golden=run(model, model.golden["input"]))
    after, report = compact(model)
    assert "2 constant channels of 4 (1, 3) removed" in report[0]
    assert after.tensors["conv1"].shape[0] == 2


def test_a_multiplier_of_zero_makes_a_constant() -> None:
    model = network(linear(6), linear(4, **LAST))
    multiplier = np.array(model.layers[0].multiplier)
    multiplier[5] = 0
    model = replace(model, layers=(replace(model.layers[0], multiplier=multiplier), model.layers[1]))
    model = replace(model, golden=run(model, model.golden["input"]))
    after, _ = compact(model)
    assert after.layers[0].weight.shape == (5, 84)
    assert after.layers[1].weight.shape == (4, 5)


def test_constants_follow_from_constants() -> None:
    model = network(linear(3, empty_rows=(0, 1)), linear(3), linear(4, **LAST))
    weight = np.array(model.layers[1].weight)
    weight[2, 2] = 0
    model = replace(model, layers=(model.layers[0], replace(model.layers[1], weight=weight), model.layers[2]))
    model = replace(model, golden=run(model, model.golden["input"]))
    after, report = compact(model)
    assert after.tensors["fc1"].shape == (1,)
    assert after.tensors["fc2"].shape == (2,)
    assert len(report) == 2


def test_an_average_of_a_constant_is_the_constant() -> None:
    model = network(
        conv(4, 3, **SPARSE, empty_rows=(2,)), avg_pool(2), linear(4, **LAST), constants={"conv1": {2: 200}}
    )
    pool = replace(model.layers[1], clamp=(10, 90))
    model = replace(model, layers=(model.layers[0], pool, model.layers[2]))
    model = replace(model, golden=run(model, model.golden["input"]))
    after, _ = compact(model)
    assert after.tensors["pool1"].shape[0] == 3


def test_a_layer_of_constants_keeps_one_channel() -> None:
    model = network(conv(3, 3, empty_rows=(0, 1, 2)), linear(4, **LAST))
    after, report = compact(model)
    assert after.tensors["conv1"].shape[0] == 1
    assert report[0] == "compact_filters: layer 'conv1': constant channel 0 stays: a tensor needs at least one channel"


def test_what_a_grouped_convolution_reads_or_writes_stays() -> None:
    model = network(conv(4, 3, **SPARSE, empty_rows=(2,)), conv(4, 1, groups=4, empty_rows=(1,)), linear(4, **LAST))
    after, report = compact(model)
    assert report[:2] == [
        "compact_filters: layer 'conv1': 1 constant channel of 4 (2) stay: 'conv2' is a grouped convolution",
        "compact_filters: layer 'conv2': 2 constant channels of 4 (1, 2) stay: 'conv2' is a grouped convolution",
    ]
    assert after.tensors == model.tensors


def test_a_bias_that_would_overflow_keeps_the_channel() -> None:
    model = network(linear(3, empty_rows=(0,)), linear(2, **LAST), constants={"fc1": {0: 255}})
    weight = np.abs(model.layers[1].weight)
    bias = np.array([np.iinfo(np.int32).max - 5, 0], np.int32)
    model = replace(model, layers=(model.layers[0], replace(model.layers[1], weight=weight, bias=bias)))
    model = replace(model, golden=run(model, model.golden["input"]))
    after, report = compact(model)
    assert report[0] == (
        "compact_filters: layer 'fc1': 1 constant channel of 3 (0) stay: the bias of 'fc2' would exceed 32 bits"
    )
    assert after.tensors == model.tensors


def test_constant_outputs_of_the_network_stay() -> None:
    model = network(linear(4, empty_rows=(1,), **LAST))
    after, report = compact(model)
    assert report == [
        "compact_filters: layer 'fc1': 1 constant channel of 4 (1) stay: they belong to the network's output"
    ]
    assert after.tensors["output"].shape == (4,)


def test_one_multiplier_for_all_channels_stays_one() -> None:
    model = network(conv(4, 3, **SPARSE, empty_rows=(0,), per_channel=False), linear(4, **LAST))
    after, _ = compact(model)
    assert after.layers[0].weight.shape[0] == 3
    assert after.layers[0].multiplier.shape == after.layers[0].shift.shape == (1,)


def test_constants_of_a_residual_network_stay_where_they_are_added() -> None:
    after, report = compact(resnet8_like(structure="filter", keep=0.75, samples=2))
    widths = [after.tensors[layer.output].shape[0] for layer in after.layers if layer.name in ("conv2", "conv3")]
    assert widths == [12, 16]
    assert "compact_filters: layer 'conv1': 4 constant channels of 16" in report[0]
    assert report[0].endswith("stay: 2 layers read 'conv1'")
    assert "removed and folded into the bias of 'conv3'" in report[1]
    assert report[2].endswith("stay: 'add1' adds them")


def test_constants_that_are_concatenated_stay() -> None:
    model = network(
        conv(3, 3, out_scale=1.0, **SPARSE, empty_rows=(1,)),
        conv(2, 3, out_scale=1.0, inputs=("input",)),
        concat("conv1", "conv2"),
        linear(4, **LAST),
    )
    _, report = compact(model)
    assert report == ["compact_filters: layer 'conv1': 1 constant channel of 3 (1) stay: 'concat1' concatenates them"]


def test_a_constant_moves_the_thresholds_of_the_next_layer() -> None:
    model = network(
        linear(6, empty_rows=(2,)),
        linear(5, rounding=Rounding.THRESHOLDS, out_bits=4),
        linear(4, **LAST),
        constants={"fc1": {2: 99}},
    )
    after, report = compact(model)
    assert report == [
        "compact_filters: layer 'fc1': 1 constant channel of 6 (2) removed and folded into the thresholds of 'fc2'"
    ]
    moved = model.layers[1].thresholds - 99 * model.layers[1].weight[:, 2:3].astype(np.int32)
    np.testing.assert_array_equal(after.layers[1].thresholds, moved)
    assert not after.layers[1].bias.any()


def test_thresholds_that_would_overflow_keep_the_channel() -> None:
    model = network(linear(3, empty_rows=(0,)), linear(2, rounding=Rounding.THRESHOLDS), constants={"fc1": {0: 255}})
    thresholds = np.array(model.layers[1].thresholds)
    thresholds[:, 0] = np.iinfo(np.int32).min
    weight = np.abs(model.layers[1].weight)
    model = replace(model, layers=(model.layers[0], replace(model.layers[1], weight=weight, thresholds=thresholds)))
    model = replace(model, golden=run(model, model.golden["input"]))
    _, report = compact(model)
    assert report[0].endswith("1 constant channel of 3 (0) stay: the thresholds of 'fc2' would exceed 32 bits")


def test_a_threshold_layer_that_no_input_moves_is_constant() -> None:
    model = network(conv(3, 3, rounding=Rounding.THRESHOLDS, out_bits=2), linear(4, **LAST))
    thresholds = np.array(model.layers[0].thresholds)
    thresholds[1] = np.iinfo(np.int32).max
    model = replace(model, layers=(replace(model.layers[0], thresholds=thresholds), model.layers[1]))
    model = replace(model, golden=run(model, model.golden["input"]))
    after, _ = compact(model)
    assert after.layers[0].thresholds.shape == (2, 3)
