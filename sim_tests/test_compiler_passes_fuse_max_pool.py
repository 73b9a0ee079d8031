"""Tests of the fusion of max poolings into convolutions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models import (
    TINY,
    add,
    build_model,
    conv,
    linear,
    max_pool,
    random_codes,
    random_graph,
    random_model,
    tiny,
)
from zeroskip.compiler.ir import Kind, Model, Pool, Rounding, Tensor
from zeroskip.compiler.passes.fuse_max_pool import fuse_max_pool
from zeroskip.compiler.reference import run
from zeroskip.compiler.verify import verify

SOURCE = Tensor("input", (2, 9, 8))


def assert_same(before: Model, after: Model) -> None:
    """The fused model is legal and every tensor it kept has the same codes."""
    verify(after)
    inputs = random_codes(np.random.default_rng(9), before.tensors["input"], 8)
    expected, got = run(before, inputs), run(after, inputs)
    assert set(got) == set(after.tensors) <= set(expected)
    for name, codes in got.items():
        np.testing.assert_array_equal(codes, expected[name], err_msg=name)
        np.testing.assert_array_equal(after.golden[name], before.golden[name], err_msg=name)


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_keep_every_code(seed: int) -> None:
    rounding = list(Rounding)[seed % len(Rounding)]
    model = random_model(np.random.default_rng(seed), layers=5, rounding=rounding)
    assert_same(model, fuse_max_pool(model))


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_keep_every_code(seed: int) -> None:
    model = random_graph(np.random.default_rng(seed), layers=8)
    assert_same(model, fuse_max_pool(model))


@pytest.mark.parametrize("name", sorted(TINY))
def test_tiny_networks_keep_every_code(name: str) -> None:
    model = tiny(name)
    assert_same(model, fuse_max_pool(model))


def test_the_fused_layer_keeps_the_name_and_writes_the_pooled_tensor() -> None:
    model = tiny("pool_remainder")
    report: list[str] = []
    fused = fuse_max_pool(model, report)
    assert [layer.name for layer in fused.layers] == ["conv1", "fc1"]
    assert fused.layers[0].output == "pool1"
    assert fused.layers[0].pool == Pool((2, 3), (2, 3))
    assert set(fused.tensors) == set(fused.golden) == {"input", "pool1", "output"}
    assert fused.tensors["pool1"].shape == (5, 2, 1)
    assert report == ["fuse_max_pool: layer 'pool1' is fused into 'conv1'"]


def test_the_model_given_is_not_changed() -> None:
    model = tiny("pool_remainder")
    fuse_max_pool(model)
    assert [layer.name for layer in model.layers] == ["conv1", "pool1", "fc1"]
    assert "conv1" in model.tensors
    assert "conv1" in model.golden


def test_a_pool_at_the_end_becomes_the_output() -> None:
    fused = fuse_max_pool(tiny("pool_last"))
    assert [(layer.name, layer.output) for layer in fused.layers] == [("conv1", "output")]


def test_a_pool_of_one_element_vanishes() -> None:
    model = build_model(np.random.default_rng(0), SOURCE, [conv(3), max_pool(1), linear(4)])
    fused = fuse_max_pool(model)
    assert fused.layers[0].pool is None
    assert_same(model, fused)


def test_the_second_of_two_pools_stays() -> None:
    model = build_model(np.random.default_rng(0), SOURCE, [conv(3), max_pool(2), max_pool(2), linear(4)])
    report: list[str] = []
    fused = fuse_max_pool(model, report)
    assert [layer.name for layer in fused.layers] == ["conv1", "pool2", "fc1"]
    assert report[1] == ("fuse_max_pool: layer 'pool2' stays a pass of its own: 'conv1' has a fused pooling already")
    assert_same(model, fused)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("overlapping_pool", "its windows of (3, 3) overlap or leave gaps at stride (2, 2)"),
        ("pool_first", "the layer before it is no convolution"),
    ],
)
def test_what_cannot_be_fused_stays(name: str, reason: str) -> None:
    model = tiny(name)
    report: list[str] = []
    after = fuse_max_pool(model, report)
    assert report == [f"fuse_max_pool: layer 'pool1' stays a pass of its own: {reason}"]
    assert [layer.kind for layer in after.layers] == [layer.kind for layer in model.layers]


def test_a_padded_pool_stays() -> None:
    model = build_model(np.random.default_rng(0), SOURCE, [conv(3, 2), max_pool(2, 2, 1), linear(4)])
    report: list[str] = []
    after = fuse_max_pool(model, report)
    assert after.layers[1].kind is Kind.MAX_POOL2D
    assert report == ["fuse_max_pool: layer 'pool1' stays a pass of its own: it has padding (1, 1, 1, 1)"]


def test_a_convolution_whose_map_is_read_elsewhere_is_not_fused() -> None:
    model = tiny("pool_last")
    model = replace(model, output="conv1")
    report: list[str] = []
    after = fuse_max_pool(model, report)
    assert len(after.layers) == 2
    assert report == [
        "fuse_max_pool: layer 'pool1' stays a pass of its own: the unpooled tensor 'conv1' is needed elsewhere"
    ]


def test_only_a_map_with_one_reader_is_fused_wherever_its_pooling_stands() -> None:
    specs = [
        conv(3, 3, padding=1),
        conv(3, 3, padding=1),
        conv(2, 3, inputs=("conv1",)),
        replace(max_pool(2), inputs=("conv2",)),
        add("conv2", "conv1"),
        replace(max_pool(2), inputs=("conv3",)),
        replace(max_pool(2), inputs=("add1",)),
        add("pool3", "pool1"),
        linear(2, inputs=("pool2",)),
        linear(2, inputs=("add2",)),
        add("fc1", "fc2", relu=False, out_signed=True),
    ]
    model = build_model(np.random.default_rng(0), SOURCE, specs)
    report: list[str] = []
    fused = fuse_max_pool(model, report)
    assert_same(model, fused)
    assert report == [
        "fuse_max_pool: layer 'pool1' stays a pass of its own: the unpooled tensor 'conv2' is needed elsewhere",
        "fuse_max_pool: layer 'pool2' is fused into 'conv3'",
        "fuse_max_pool: layer 'pool3' stays a pass of its own: the layer before it is no convolution",
    ]
    assert fused.layer("conv3").output == "pool2"
