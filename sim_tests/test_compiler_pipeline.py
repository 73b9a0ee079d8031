"""Tests of the order of the passes and of what they do together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from models import (
    Spec,
    argmax,
    avg_pool,
    build_model,
    conv,
    digits_like,
    lenet5_like,
    linear,
    max_pool,
    random_codes,
    random_graph,
    random_model,
)
from zeroskip.compiler import pipeline
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Model, Rounding, Tensor
from zeroskip.compiler.pipeline import PASSES, Pass, run_passes
from zeroskip.compiler.reference import run
from zeroskip.compiler.verify import verify


def test_the_order_of_the_passes() -> None:
    names = [transform.__name__ for transform in PASSES]
    assert names == ["fuse_max_pool", "compact_filters", "compact_columns", "recognize_structure", "copy_tensors"]


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


@st.composite
def small_models(draw) -> Model:
    """Random small networks with channels that are constant and channels that nobody reads, some with an argmax."""
    count = st.integers(1, 5)
    specs: list[Spec] = []
    size = 9
    for _ in range(draw(st.integers(1, 3))):
        out, kernel = draw(count), draw(st.sampled_from([1, 2, 3]))
        stride, padding = draw(st.sampled_from([1, 1, 2])), draw(st.integers(0, kernel - 1))
        size = (size + 2 * padding - kernel) // stride + 1
        specs.append(
            conv(
                out,
                kernel,
                stride=stride,
                padding=padding,
                empty_rows=tuple(draw(st.sets(st.integers(0, out - 1)))),
                relu=draw(st.booleans()),
                out_zero_point=draw(st.sampled_from([0, 7])),
                rounding=draw(st.sampled_from([Rounding.HALF_UP, Rounding.THRESHOLDS])),
                bits=draw(st.integers(2, 4)),
            )
        )
        if size > 6 and draw(st.booleans()):
            specs.append(draw(st.sampled_from([max_pool(2), avg_pool(2, 1), max_pool(2, 1)])))
            size = size // 2 if specs[-1].stride == (2, 2) else size - 1
        if size < 4:
            break
    if draw(st.booleans()):
        out = draw(count)
        specs.append(linear(out, empty_rows=tuple(draw(st.sets(st.integers(0, out - 1))))))
    out = draw(count)
    specs.append(linear(out, relu=False, out_signed=True, empty_rows=tuple(draw(st.sets(st.integers(0, out - 1))))))
    if draw(st.booleans()):
        specs.append(argmax())
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    model = build_model(rng, Tensor("input", (draw(count), 9, 10)), specs, samples=2)
    layers = []
    for layer in model.layers:
        channels = model.tensors[layer.input].shape[0]
        if layer.weight is not None:
            unread = draw(st.sets(st.integers(0, channels - 1), max_size=channels))
            weight = layer.weight.reshape(len(layer.weight), channels, -1).copy()
            weight[:, sorted(unread)] = 0
            layer = replace(layer, weight=weight.reshape(layer.weight.shape))
        layers.append(layer)
    model = replace(model, layers=tuple(layers), golden={})
    verify(model)
    return model


def check_pass(transform: Pass, model: Model, inputs: np.ndarray) -> Model:
    """Check that a pass keeps the function: the output, and every tensor that is left in the channels that are left."""
    after = transform(model, None)
    verify(after)
    before, found = run(model, inputs), run(after, inputs)
    np.testing.assert_array_equal(found[after.output], before[model.output])
    for name in set(model.tensors) & set(after.tensors):
        # both models count the channels of the network as it was drawn
        whole = model.kept_channels.get(name, range(model.tensors[name].shape[0]))
        left = [list(whole).index(channel) for channel in after.kept_channels.get(name, whole)]
        np.testing.assert_array_equal(found[name], before[name][:, left], err_msg=name)
    return after


@settings(max_examples=80)
@given(small_models())
def test_every_pass_keeps_the_function_and_the_chain_ends(model):
    inputs = random_codes(np.random.default_rng(1), model.tensors["input"], 4)
    for transform in PASSES:
        check_pass(transform, model, inputs)
    chained = model
    for _ in range(3):
        before = chained
        for transform in PASSES:
            chained = check_pass(transform, chained, inputs)
        if chained.tensors == before.tensors:
            break
    # one run leaves nothing to do for a second
    once, _ = run_passes(model)
    assert once.tensors == chained.tensors
    assert [layer.nonzero for layer in once.layers] == [layer.nonzero for layer in chained.layers]


@settings(max_examples=40)
@given(st.integers(0, 1 << 16), st.sampled_from(["filter", "channel", "kernel", "nonstructured"]))
def test_every_pass_keeps_the_function_of_a_graph(seed, structure):
    model = random_graph(np.random.default_rng(seed), layers=5, structure=structure, keep=0.2, samples=2)
    inputs = random_codes(np.random.default_rng(seed), model.tensors["input"], 3)
    for transform in PASSES:
        model = check_pass(transform, replace(model, golden={}), inputs)


def test_a_constant_and_an_unread_channel_go_and_the_rest_are_numbered_as_before():
    model = build_model(
        np.random.default_rng(0),
        Tensor("input", (2, 6, 6)),
        (conv(5, 3, empty_rows=(1,)), conv(3, 1), linear(2, relu=False, out_signed=True)),
    )
    weight = model.layer("conv2").weight.copy()
    weight[:, 3] = 0
    layers = tuple(replace(layer, weight=weight) if layer.name == "conv2" else layer for layer in model.layers)
    after, report = run_passes(replace(model, layers=layers, golden={}))
    assert after.kept_channels == {"conv1": (0, 2, 4)}
    assert [line for line in report if "removed" in line] == [
        "compact_filters: layer 'conv1': 1 constant channel of 5 (1) removed and folded into the bias of 'conv2'",
        "compact_columns: layer 'conv1': 1 of 4 channels (2) removed: 'conv2' does not read them",
    ]


def test_a_pass_that_breaks_the_model_is_found(monkeypatch):
    def breaking(model: Model, report: list[str] | None) -> Model:
        return replace(model, layers=model.layers[:-1])

    def unreached(model: Model, report: list[str] | None) -> Model:
        raise AssertionError("a pass must not see an illegal model")

    monkeypatch.setattr(pipeline, "PASSES", (breaking, unreached))
    with pytest.raises(CompileError, match="has output 'output', but its last layer 'fc1' writes 'fc1'"):
        run_passes(digits_like())


def test_an_illegal_model_is_refused_before_the_passes() -> None:
    model = digits_like()
    broken = replace(model, layers=(replace(model.layers[0], stride=(0, 0)), *model.layers[1:]))
    with pytest.raises(CompileError, match="Layer 'conv1' must have a stride of two numbers"):
        run_passes(broken)
