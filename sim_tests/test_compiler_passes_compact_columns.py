"""Tests of the removal of channels that nobody reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models import (
    TINY,
    Spec,
    add,
    build_model,
    concat,
    conv,
    linear,
    max_pool,
    random_codes,
    random_graph,
    random_model,
    tiny,
)
from zeroskip.compiler.ir import Model, Rounding, Tensor
from zeroskip.compiler.passes.compact_columns import compact_columns
from zeroskip.compiler.reference import run
from zeroskip.compiler.verify import verify

LAST = {"relu": False, "out_signed": True}


def network(*specs: Spec, unread: dict[str, list[int]]) -> Model:
    """Return a network in which layers do not read some channels of their input."""
    model = build_model(np.random.default_rng(4), Tensor("input", (2, 7, 6)), specs)
    layers = []
    for layer in model.layers:
        if layer.name in unread:
            channels = model.tensors[layer.input].shape[0]
            weight = np.array(layer.weight).reshape(len(layer.weight), channels, -1)
            weight[:, unread[layer.name]] = 0
            layer = replace(layer, weight=weight.reshape(layer.weight.shape))
        layers.append(layer)
    model = replace(model, layers=tuple(layers))
    return replace(model, golden=run(model, model.golden["input"]))


def compact(model: Model) -> tuple[Model, list[str]]:
    """Run the pass and prove that the output did not change and that every golden sample is still right."""
    report: list[str] = []
    after = compact_columns(model, report)
    verify(after)
    inputs = random_codes(np.random.default_rng(8), model.tensors["input"], 8)
    np.testing.assert_array_equal(run(after, inputs)["output"], run(model, inputs)["output"])
    got = run(after, after.golden["input"])
    assert set(after.golden) == set(model.golden)
    for name, codes in after.golden.items():
        np.testing.assert_array_equal(codes, got[name], err_msg=name)
    return after, report


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_keep_their_output(seed: int) -> None:
    rng = np.random.default_rng(seed)
    structure = "column" if seed % 2 else "nonstructured"
    compact(random_model(rng, layers=4, structure=structure, keep=float(rng.choice([0.05, 0.2, 0.4]))))


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_keep_their_output(seed: int) -> None:
    rng = np.random.default_rng(seed)
    compact(random_graph(rng, layers=8, structure="channel", keep=float(rng.choice([0.2, 0.4]))))


@pytest.mark.parametrize("name", sorted(TINY))
def test_tiny_networks_keep_their_output(name: str) -> None:
    compact(tiny(name))


def test_rows_whose_columns_are_pruned_are_removed() -> None:
    model = network(linear(6), linear(4, **LAST), unread={"fc2": [1, 4]})
    after, report = compact(model)
    assert report == ["compact_columns: layer 'fc1': 2 of 6 channels (1, 4) removed: 'fc2' does not read them"]
    keep = [0, 2, 3, 5]
    np.testing.assert_array_equal(after.layers[0].weight, model.layers[0].weight[keep])
    np.testing.assert_array_equal(after.layers[0].bias, model.layers[0].bias[keep])
    np.testing.assert_array_equal(after.layers[0].multiplier, model.layers[0].multiplier[keep])
    np.testing.assert_array_equal(after.layers[0].shift, model.layers[0].shift[keep])
    np.testing.assert_array_equal(after.layers[1].weight, model.layers[1].weight[:, keep])
    np.testing.assert_array_equal(after.golden["fc1"], model.golden["fc1"][:, keep])


def test_filters_are_removed_across_a_pooling_and_a_flatten_even_with_padding() -> None:
    specs = [conv(4), max_pool(3, 2, 1), conv(5, padding=1), linear(4, **LAST)]
    model = network(*specs, unread={"conv2": [3], "fc1": [0, 2]})
    after, _ = compact(model)
    assert after.layer("conv1").weight.shape == (3, 2, 3, 3)
    assert after.tensors["pool1"].shape[0] == 3
    assert after.layer("conv2").weight.shape == (3, 3, 3, 3)
    assert after.layer("fc1").weight.shape[1] == after.tensors["conv2"].size


def test_removal_runs_backwards_through_the_network() -> None:
    model = network(linear(5), linear(3), linear(4, **LAST), unread={"fc3": [2]})
    weight = np.array(model.layers[1].weight)
    weight[:2, 4] = 0
    model = replace(model, layers=(model.layers[0], replace(model.layers[1], weight=weight), model.layers[2]))
    model = replace(model, golden=run(model, model.golden["input"]))
    after, report = compact(model)
    assert report == [
        "compact_columns: layer 'fc2': 1 of 3 channels (2) removed: 'fc3' does not read them",
        "compact_columns: layer 'fc1': 1 of 5 channels (4) removed: 'fc2' does not read them",
    ]
    assert (after.tensors["fc1"].shape, after.tensors["fc2"].shape) == ((4,), (2,))


def test_a_tensor_that_nobody_reads_keeps_one_channel() -> None:
    model = network(linear(3), linear(4, **LAST), unread={"fc2": [0, 1, 2]})
    after, report = compact(model)
    assert after.tensors["fc1"].shape == (1,)
    assert report[0] == (
        "compact_columns: layer 'fc1': channel 0 stays, though 'fc2' reads none: a tensor needs at least one channel"
    )


def test_the_network_input_and_grouped_convolutions_stay() -> None:
    model = network(conv(2, groups=2), linear(4, **LAST), unread={"fc1": [1]})
    after, report = compact(model)
    assert report == []
    assert after.tensors == model.tensors
    model = network(conv(3), linear(4, **LAST), unread={"conv1": [0]})
    assert compact(model)[0].tensors["input"].shape == (2, 7, 6)


def test_the_model_given_is_not_changed() -> None:
    model = network(linear(6), linear(4, **LAST), unread={"fc2": [1, 4]})
    compact_columns(model)
    assert model.tensors["fc1"].shape == (6,)
    assert model.golden["fc1"].shape == (16, 6)


def test_what_several_layers_read_stays() -> None:
    specs = [
        conv(4),
        conv(3, padding=1),
        conv(3, inputs=("conv1",), padding=1),
        add("conv2", "conv3"),
        linear(4, **LAST),
    ]
    after, report = compact(network(*specs, unread={"conv2": [1, 3], "fc1": [0]}))
    assert report == [
        "compact_columns: layer 'add1': 1 of 3 channels (0) stay, though 'fc1' does not read them: 'add1' adds them",
        (
            "compact_columns: layer 'conv1': 2 of 4 channels (1, 3) stay, though 'conv2' does not read them: "
            "2 layers read 'conv1'"
        ),
    ]
    assert after.tensors["conv1"].shape[0] == 4


def test_what_is_concatenated_or_pooled_for_several_layers_stays() -> None:
    specs = [
        conv(4, out_scale=1.0), max_pool(2), conv(2, 1, out_scale=1.0), concat("pool1", "conv2"), linear(4, **LAST)
    ]  # fmt: skip
    _, report = compact(network(*specs, unread={"fc1": [5], "conv2": [2]}))
    assert report == [
        (
            "compact_columns: layer 'concat1': 1 of 6 channels (5) stay, though 'fc1' does not read them: 'concat1' "
            "concatenates them"
        ),
        (
            "compact_columns: layer 'conv1': 1 of 4 channels (2) stay, though 'conv2' does not read them: "
            "2 layers read 'pool1'"
        ),
    ]


def test_what_a_structure_counts_stays() -> None:
    specs = [linear(6), linear(8, structure="nm", detail={"n": 2, "m": 3}), linear(4, **LAST)]
    after, report = compact(network(*specs, unread={"fc2": [1, 4], "fc3": [7]}))
    assert report == [
        "compact_columns: layer 'fc2': 1 of 8 channels (7) removed: 'fc3' does not read them",
        (
            "compact_columns: layer 'fc1': 2 of 6 channels (1, 4) stay, though 'fc2' does not read them: "
            "the structure of 'fc2' (nm) counts input channels"
        ),
    ]
    assert after.layers[1].weight.shape == (7, 6)


def test_thresholds_go_with_their_rows() -> None:
    model = network(linear(6, rounding=Rounding.THRESHOLDS, out_bits=3), linear(4, **LAST), unread={"fc2": [1, 4]})
    after, _ = compact(model)
    np.testing.assert_array_equal(after.layers[0].thresholds, model.layers[0].thresholds[[0, 2, 3, 5]])
