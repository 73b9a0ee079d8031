"""Tests of the description that ``zeroskip inspect`` prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models
from models import digits_like, lenet5_like, tiny, write_artifact
from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.compiler.inspect import describe
from zeroskip.compiler.pipeline import run_passes


def test_rows_of_lenet5() -> None:
    result = describe(lenet5_like("column", 0.25, samples=2))
    rows = {row["name"]: row for row in result["layers"]}
    assert list(rows) == ["conv1", "pool1", "conv2", "pool2", "fc1", "fc2"]
    conv2 = rows["conv2"]
    assert (conv2["kind"], conv2["input_shape"], conv2["output_shape"]) == ("conv2d", [20, 12, 12], [50, 8, 8])
    assert (conv2["weights"], conv2["kept"], conv2["rate"]) == (25_000, 6_250, 4.0)
    assert (conv2["columns"], conv2["columns_kept"]) == (500, 125)
    assert conv2["structure"] == {"kind": "column", "keep": 0.25, "group": 1}
    assert (conv2["bits"], conv2["grid"], conv2["weight_bits_kept"]) == (4, "zero_excluded", 25_000)
    assert (conv2["macs_dense"], conv2["macs_nonzero"]) == (25_000 * 64, 6_250 * 64)
    assert conv2["window"]["kernel"] == [5, 5]
    assert (rows["fc1"]["weights"], rows["fc1"]["macs_dense"], rows["fc1"]["window"]) == (400_000, 400_000, None)
    pool = rows["pool1"]
    assert (pool["kind"], pool["weights"], pool["bits"], pool["macs_dense"]) == ("max_pool2d", None, None, 0)
    total = result["total"]
    assert (total["weights"], total["macs_dense"]) == (430_500, 500 * 576 + 25_000 * 64 + 400_000 + 5_000)
    assert total["rate"] == total["weights"] / total["kept"]


# Multiply-accumulates as MLPerf Tiny's networks have them, and weights without biases and BatchNorm.
KNOWN = {
    "resnet8_like": (12_501_632, 77_360),
    "resnet20_like": (40_813_184, 270_896),
    "dscnn_like": (2_656_768, 22_016),
    "autoencoder_like": (264_192, 264_192),
}


@pytest.mark.parametrize("network", sorted(KNOWN))
def test_known_networks_have_their_size(network: str) -> None:
    total = describe(getattr(models, network)(samples=1))["total"]
    assert (total["macs_dense"], total["weights"]) == KNOWN[network]


def test_rows_of_layers_that_join() -> None:
    rows = {row["name"]: row for row in describe(tiny("branches"))["layers"]}
    add, concat = rows["add1"], rows["concat1"]
    assert (add["kind"], add["inputs"], add["window"], add["weights"]) == ("add", ["conv2", "conv3"], None, None)
    assert (concat["inputs"], concat["input_shape"], concat["output_shape"]) == (
        ["add1", "conv2"],
        [3, 2, 2],
        [6, 2, 2],
    )


def test_header_of_an_artifact_is_passed_on(tmp_path: Path) -> None:
    model = digits_like("nonstructured", 0.2)
    header = {
        **model.metadata,
        "accuracy": {"float": 0.99, "integer": 0.98, "samples": 360},
        "samples_correct": {"integer": 353},
        "provenance": {"data": "digits"},
        "seed": 7,
    }
    result = describe(load_artifact(write_artifact(replace(model, metadata=header), tmp_path / "a.safetensors")))
    assert result["name"] == "digits-nonstructured-w4a8"
    assert result["accuracy"] == {"float": 0.99, "integer": 0.98, "samples": 360}
    assert result["samples_correct"] == {"integer": 353}
    assert (result["provenance"], result["seed"], result["dataset"]) == ({"data": "digits"}, 7, "random")
    assert len(result["sha256"]) == 64
    assert result["golden_samples"] == 16
    assert result["input"] == {
        "name": "input", "shape": [1, 8, 8], "bits": 8, "signed": False, "scale": 1 / 16, "zero_point": 0
    }  # fmt: skip
    assert result["output"]["shape"] == [10]


def test_channels_that_the_compiler_takes_out_are_not_kept() -> None:
    model = digits_like()
    first = model.layers[0]
    weight, bias = first.weight.copy(), first.bias.copy()
    # zero is what the next convolution's padding has, too
    weight[3], bias[3] = 0, 0
    result = describe(replace(model, layers=(replace(first, weight=weight, bias=bias), *model.layers[1:])))
    reads = int(np.count_nonzero(model.layers[2].weight[:, 3]))
    total, compiled = result["total"], result["compiled"]
    assert reads and compiled["kept"] == total["kept"] - reads
    assert compiled["rate"] == total["weights"] / compiled["kept"] > total["rate"]
    assert compiled["macs_nonzero"] < total["macs_nonzero"]
    illegal = replace(first, weight_bits=9)
    assert describe(replace(model, layers=(illegal, *model.layers[1:])))["compiled"] is None


def test_description_is_json_and_the_same_every_time() -> None:
    texts = {json.dumps(describe(tiny("column")), sort_keys=True) for _ in range(2)}
    assert len(texts) == 1


def test_fused_layers_and_empty_layers() -> None:
    model, _ = run_passes(digits_like())
    row = describe(model)["layers"][0]
    assert row["window"]["pool"] == [2, 2]
    assert (row["output_shape"], row["macs_dense"]) == ([8, 4, 4], 72 * 64)
    empty = replace(model.layers[-1], weight=np.zeros_like(model.layers[-1].weight))
    result = describe(replace(model, layers=(*model.layers[:-1], empty), metadata={}))
    assert (result["layers"][-1]["kept"], result["layers"][-1]["rate"]) == (0, None)
    assert (result["accuracy"], result["provenance"]) == (None, None)
