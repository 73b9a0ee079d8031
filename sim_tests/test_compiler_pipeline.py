"""Tests of the order of the passes and of what they do together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import models
from models import digits_like, lenet5_like, random_codes, random_graph, random_model
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.pipeline import PASSES, run_passes
from zeroskip.compiler.reference import run


def test_the_order_of_the_passes() -> None:
    names = [transform.__name__ for transform in PASSES]
    assert names == ["fuse_max_pool", "compact_filters", "compact_columns", "copy_tensors"]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("structure", ["dense", "nonstructured", "column"])
def test_all_passes_keep_the_output_and_a_second_run_finds_nothing(seed: int, structure: str) -> None:
    model = random_model(np.random.default_rng(seed), layers=4, structure=structure, keep=0.15)
    after, _ = run_passes(model)
    inputs = random_codes(np.random.default_rng(seed + 1), model.tensors["input"], 8)
    np.testing.assert_array_equal(run(after, inputs)["output"], run(model, inputs)["output"])
    again, report = run_passes(after)
    assert not [line for line in report if " removed" in line or " fused into" in line]
    assert again.tensors == after.tensors


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("structure", ["filter", "channel", "kernel"])
def test_all_passes_keep_the_output_of_random_graphs(seed: int, structure: str) -> None:
    model = random_graph(np.random.default_rng(seed), layers=8, structure=structure, keep=0.3)
    after, _ = run_passes(model)
    inputs = random_codes(np.random.default_rng(seed + 1), model.tensors["input"], 8)
    np.testing.assert_array_equal(run(after, inputs)["output"], run(model, inputs)["output"])


@pytest.mark.parametrize("network", ["resnet8_like", "dscnn_like", "autoencoder_like", "conv1d_like"])
@pytest.mark.parametrize("bits", [4, 8])
def test_all_passes_keep_the_output_of_known_networks(network: str, bits: int) -> None:
    model = getattr(models, network)(bits=bits, structure="nonstructured", keep=0.02, samples=2)
    after, _ = run_passes(model)
    np.testing.assert_array_equal(run(after, model.golden["input"])["output"], model.golden["output"])


def test_same_model_same_report() -> None:
    assert run_passes(digits_like("nonstructured", 0.1))[1] == run_passes(digits_like("nonstructured", 0.1))[1]


def test_lenet5_becomes_four_layers() -> None:
    after, report = run_passes(lenet5_like())
    assert [layer.name for layer in after.layers] == ["conv1", "conv2", "fc1", "fc2"]
    assert after.tensors["pool2"].shape == (50, 4, 4)
    assert after.tensors["fc1"].shape[0] < 500
    assert report[0] == "fuse_max_pool: layer 'pool1' is fused into 'conv1'"


def test_an_illegal_model_is_refused_before_the_passes() -> None:
    model = digits_like()
    broken = replace(model, layers=(replace(model.layers[0], stride=(0, 0)), *model.layers[1:]))
    with pytest.raises(CompileError, match="Layer 'conv1' must have a stride of two numbers"):
        run_passes(broken)
