"""Tests of what a legal Model is: every rule broken once, with the full text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models import TINY, digits_like, random_graph, random_model, tiny
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Grid, Model, Pool, Rounding, Tensor
from zeroskip.compiler.verify import grid_limits, verify


def change_layer(index: int, **changes: Any) -> Callable[[Model], Model]:
    """Return an edit that changes fields of one layer."""

    def edit(model: Model) -> Model:
        layers = list(model.layers)
        layers[index] = replace(layers[index], **changes)
        return replace(model, layers=tuple(layers))

    return edit


def change_tensor(key: str, **changes: Any) -> Callable[[Model], Model]:
    """Return an edit that changes fields of one tensor."""
    return lambda model: replace(model, tensors={**model.tensors, key: replace(model.tensors[key], **changes)})


def change_array(index: int, field: str, edit: Callable[[Any], Any]) -> Callable[[Model], Model]:
    """Return an edit that replaces an array of one layer."""
    return lambda model: change_layer(index, **{field: edit(np.array(getattr(model.layers[index], field)))})(model)


def with_value(index: tuple[int, ...], value: int) -> Callable[[Any], Any]:
    """Return an edit of an array that sets one element."""

    def edit(array: Any) -> Any:
        array[index] = value
        return array

    return edit


def golden(key: str, edit: Callable[[Any], Any]) -> Callable[[Model], Model]:
    """Return an edit of golden samples."""
    return lambda model: replace(model, golden={**model.golden, key: edit(model.golden[key])})


@pytest.mark.parametrize("name", sorted(TINY))
def test_tiny_networks_are_legal(name: str) -> None:
    verify(tiny(name, samples=2))


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_legal(seed: int) -> None:
    verify(random_graph(np.random.default_rng(seed), samples=2))


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_are_legal(seed: int) -> None:
    verify(random_model(np.random.default_rng(seed), samples=2))


@pytest.mark.parametrize(
    ("grid", "bits", "limits"),
    [
        (Grid.SIGNED, 1, (-1, 0)),
        (Grid.SIGNED, 4, (-8, 7)),
        (Grid.SYMMETRIC, 4, (-7, 7)),
        (Grid.ZERO_EXCLUDED, 1, (-1, 1)),
        (Grid.ZERO_EXCLUDED, 4, (-8, 8)),
        (Grid.ZERO_EXCLUDED, 8, (-128, 128)),
        (Grid.BINARY, 1, (-1, 1)),
        (Grid.TERNARY, 2, (-1, 1)),
        (Grid.CODEBOOK, 3, (-256, 255)),
    ],
)
def test_grid_limits(grid: Grid, bits: int, limits: tuple[int, int]) -> None:
    assert grid_limits(grid, bits) == limits


# The model that is broken: conv1 (8x1x3x3, padding 1), pool1, conv2 (16x8x3x3, padding 1), pool2, fc1 (32x64), fc2.
BROKEN: list[tuple[Callable[[Model], Model], str]] = [
    (lambda m: replace(m, layers=()), "Model 'digits-dense-w4a8' must have at least one layer, not 0"),
    (lambda m: replace(m, input="x"), "Model 'digits-dense-w4a8' has input 'x', but no tensor of that name"),
    (
        lambda m: replace(m, output="fc1"),
        "Model 'digits-dense-w4a8' has output 'fc1', but its last layer 'fc2' writes 'output'",
    ),
    (
        lambda m: replace(m, tensors={**m.tensors, "x": Tensor("x", (1,))}),
        "Tensor 'x' must be the network input or written by a layer, but no layer writes it",
    ),
    (
        lambda m: replace(m, tensors={**m.tensors, "a/b": Tensor("a/b", (1,))}),
        "Tensor name must be letters, digits, '_', '.' and '-' (at most 128), not 'a/b'",
    ),
    (change_tensor("conv1", name="x"), "Tensor 'conv1' must carry its own name, not 'x'"),
    (
        change_tensor("conv1", shape=(8, 8)),
        "Tensor 'conv1' must have shape (C, H, W) or (F,) of positive sizes, not (8, 8)",
    ),
    (
        change_tensor("conv1", shape=(8, 0, 8)),
        "Tensor 'conv1' must have shape (C, H, W) or (F,) of positive sizes, not (8, 0, 8)",
    ),
    (change_tensor("conv1", bits=9), "Tensor 'conv1' must have 1 to 8 bits, not 9"),
    (change_tensor("conv1", scale=float("nan")), "Tensor 'conv1' must have a finite scale above 0, not nan"),
    (change_tensor("conv1", scale=0.0), "Tensor 'conv1' must have a finite scale above 0, not 0.0"),
    (change_tensor("conv1", zero_point=256), "Tensor 'conv1' must have a zero point in 0 to 255, not 256"),
    (
        change_layer(1, name="../pool"),
        "Layer name must be letters, digits, '_', '.' and '-' (at most 128), not '../pool'",
    ),
    (change_layer(2, name="conv1"), "Layer name 'conv1' must be unique, but two layers have it"),
    (
        change_layer(0, inputs=("conv2",)),
        "Layer 'conv1' reads 'conv2', which layer 'conv2' writes only afterwards: a cycle, or layers out of order",
    ),
    (
        change_layer(0, inputs=("conv1",)),
        "Layer 'conv1' reads 'conv1', which layer 'conv1' writes only afterwards: a cycle, or layers out of order",
    ),
    (change_layer(2, inputs=("gone",)), "Layer 'conv2' reads 'gone', but no layer writes a tensor of that name"),
    (
        change_layer(2, inputs=("conv1",)),
        "Layer 'pool1' writes 'pool1', but no layer reads it; remove the dead layer",
    ),
    (change_layer(2, inputs=("pool1", "conv1")), "Layer 'conv2' is conv2d and must have one input, not 2"),
    (change_layer(2, inputs=()), "Layer 'conv2' is conv2d and must have one input, not 0"),
    (
        change_layer(2, inputs=["pool1"]),
        "Layer 'conv2' must have inputs that are a tuple of tensor names, not ['pool1']",
    ),
    (change_layer(4, left_shift=1), "Layer 'fc1' is linear and must have no left shift"),
    (
        change_layer(4, thresholds=np.zeros((32, 3), np.int32)),
        "Layer 'fc1' has rounding half_up and must have no thresholds",
    ),
    (change_layer(4, codebook=np.zeros(2, np.int16)), "Layer 'fc1' has grid zero_excluded and must have no codebook"),
    (
        lambda m: change_layer(4, grid=Grid.BINARY)(m),
        "Layer 'fc1' must have 1 weight bits on grid binary, not 4",
    ),
    (
        change_layer(4, rounding=Rounding.THRESHOLDS),
        "Layer 'fc1' has rounding thresholds and must have no multiplier",
    ),
    (
        change_layer(1, output="conv1"),
        "Layer 'pool1' writes 'conv1', but the output of layer 'conv1' has that name already",
    ),
    (change_layer(1, output="input"), "Layer 'pool1' writes 'input', but the network input has that name already"),
    (change_layer(5, output="x"), "Layer 'fc2' writes 'x', but the model declares no tensor of that name"),
    (change_layer(0, stride=(0, 1)), "Layer 'conv1' must have a stride of two numbers of at least 1, not (0, 1)"),
    (change_layer(0, dilation=(1, 0)), "Layer 'conv1' must have a dilation of two numbers of at least 1, not (1, 0)"),
    (change_layer(1, kernel=(2,)), "Layer 'pool1' must have a kernel of two numbers of at least 1, not (2,)"),
    (
        change_layer(0, padding=(-1, 0, 0, 0)),
        "Layer 'conv1' must have a padding of four numbers (top, left, bottom, right) of at least 0, not (-1, 0, 0, 0)",
    ),
    (
        change_layer(1, padding=(0, 2, 0, 0)),
        "Layer 'pool1' has padding (0, 2, 0, 0), but its window is 2 x 2: a pooling's padding must be smaller",
    ),
    (change_layer(0, groups=0), "Layer 'conv1' must have at least 1 group, not 0"),
    (change_layer(2, groups=3), "Layer 'conv2' has 3 groups, but 8 channels in and 16 out"),
    (
        change_layer(4, stride=(2, 2)),
        "Layer 'fc1' is linear and must have no kernel, stride, dilation, padding or groups",
    ),
    (change_layer(0, weight=None), "Layer 'conv1' has no weight, but a conv2d layer needs one"),
    (change_layer(4, bias=None), "Layer 'fc1' has no bias, but a linear layer needs one"),
    (change_layer(4, multiplier=None), "Layer 'fc1' has no multiplier, but a linear layer needs one"),
    (
        change_array(4, "weight", lambda w: w.astype(np.float32)),
        "Layer 'fc1' must have weight of dtype int16, not float32",
    ),
    (change_array(4, "weight", lambda w: w[..., None]), "Layer 'fc1' must have weight of shape OI, not (32, 64, 1)"),
    (change_array(0, "weight", lambda w: w[0]), "Layer 'conv1' must have weight of shape OIHW, not (1, 3, 3)"),
    (
        change_array(4, "weight", lambda w: w[:, 1:]),
        "Layer 'fc1' has 63 weight columns, but its input 'pool2' of shape (16, 2, 2) has 64 elements",
    ),
    (
        change_array(2, "weight", lambda w: w[:, 1:]),
        "Layer 'conv2' has weights for 7 channels, but its input 'pool1' of shape (8, 4, 4) has 8",
    ),
    (change_layer(2, kernel=(3, 2)), "Layer 'conv2' has kernel (3, 2), but weight of shape (16, 8, 3, 3)"),
    (change_layer(0, weight_bits=0), "Layer 'conv1' must have 1 to 8 weight bits, not 0"),
    (
        change_layer(0, weight_bits=1, grid=Grid.SYMMETRIC),
        "Layer 'conv1' must have at least 2 weight bits on grid symmetric, not 1",
    ),
    (
        change_array(4, "weight", with_value((3, 3), 9)),
        "Layer 'fc1' must have weight levels -8 to 8 (grid zero_excluded, 4 bits), not 9",
    ),
    (
        change_array(4, "weight", with_value((3, 3), -9)),
        "Layer 'fc1' must have weight levels -8 to 8 (grid zero_excluded, 4 bits), not -9",
    ),
    (
        lambda m: change_array(4, "weight", with_value((0, 0), 8))(change_layer(4, grid=Grid.SIGNED)(m)),
        "Layer 'fc1' must have weight levels -8 to 7 (grid signed, 4 bits), not 8",
    ),
    (change_array(4, "bias", lambda b: b[:-1]), "Layer 'fc1' has 32 weight rows, but bias of shape (31,)"),
    (
        change_array(4, "multiplier", lambda a: a[:, None]),
        "Layer 'fc1' must have multiplier of shape (32,) or (1,), not (32, 1)",
    ),
    (
        change_array(4, "shift", lambda a: a[:1]),
        "Layer 'fc1' has multiplier of shape (32,), but shift of shape (1,)",
    ),
    (
        change_array(4, "multiplier", with_value((1,), 1 << 17)),
        "Layer 'fc1' must have multiplier 0 to 131071, not 131072",
    ),
    (change_array(4, "multiplier", with_value((1,), -1)), "Layer 'fc1' must have multiplier 0 to 131071, not -1"),
    (change_array(4, "shift", with_value((1,), 48)), "Layer 'fc1' must have shift 0 to 47, not 48"),
    (change_array(4, "shift", with_value((1,), -1)), "Layer 'fc1' must have shift 0 to 47, not -1"),
    (
        change_layer(4, clamp=(0, 256)),
        "Layer 'fc1' must have a clamp within 0 to 255, the range of its output 'fc1', not 0 to 256",
    ),
    (
        change_layer(4, clamp=(9, 8)),
        "Layer 'fc1' must have a clamp within 0 to 255, the range of its output 'fc1', not 9 to 8",
    ),
    (
        change_tensor("conv2", shape=(16, 4, 5)),
        "Layer 'conv2' computes shape (16, 4, 4), but its output 'conv2' has shape (16, 4, 5)",
    ),
    (
        change_layer(1, kernel=(9, 1)),
        "Layer 'pool1' has a window that does not fit its input 'conv1' of shape (8, 8, 8)",
    ),
    (change_layer(1, bias=np.zeros(8, np.int32)), "Layer 'pool1' is a pooling and must have no bias"),
    (change_layer(1, dilation=(2, 2)), "Layer 'pool1' is a pooling and must have no groups and no dilation"),
    (
        change_tensor("pool1", signed=True),
        "Layer 'pool1' passes codes through, but its input 'conv1' has signedness False and its output 'pool1' True",
    ),
    (
        change_tensor("pool1", zero_point=3),
        "Layer 'pool1' passes codes through, but its input 'conv1' has zero point 0 and its output 'pool1' 3",
    ),
    (
        change_layer(4, pool=Pool((2, 2), (2, 2))),
        "Layer 'fc1' is linear, but only a conv2d layer can have a fused pooling",
    ),
    (
        change_layer(2, pool=Pool((2, 2), (1, 1))),
        "Layer 'conv2' must have a fused pooling whose stride is its kernel, not kernel (2, 2) and stride (1, 1)",
    ),
    (
        change_layer(2, pool=Pool((5, 2), (5, 2))),
        "Layer 'conv2' has a fused pooling of (5, 2), but only 4 x 4 positions",
    ),
    (
        lambda m: replace(m, golden={"x": m.golden["input"]}),
        "Golden 'x' belongs to no tensor of model 'digits-dense-w4a8'",
    ),
    (golden("input", lambda g: g.astype(np.float32)), "Golden 'input' must hold integer codes, not float32"),
    (
        golden("input", lambda g: g[:, 0]),
        "Golden 'input' must have shape (samples, 1, 8, 8), not (16, 8, 8)",
    ),
    (golden("input", lambda g: g[:0]), "Golden 'input' must have shape (samples, 1, 8, 8), not (0, 1, 8, 8)"),
    (golden("output", lambda g: g[:3]), "Golden 'output' has 3 samples, but golden 'fc1' has 16"),
    (golden("input", lambda g: g.astype(np.int64) + 1), "Golden 'input' must hold codes 0 to 255, not 256"),
]


@pytest.mark.parametrize(("edit", "text"), BROKEN, ids=[text[:60] for _, text in BROKEN])
def test_each_rule_is_checked(edit: Callable[[Model], Model], text: str) -> None:
    with pytest.raises(CompileError, match=f"^{re.escape(text)}$"):
        verify(edit(digits_like()))


def test_average_pool_must_not_pad_and_must_clamp_inside_its_output() -> None:
    model = tiny("avg_pool")
    text = r"Layer 'pool1' is an average pooling and must have no padding, not \(1, 0, 0, 0\); pad the layer before it"
    with pytest.raises(CompileError, match=text):
        verify(change_layer(1, padding=(1, 0, 0, 0))(model))
    text = "Layer 'pool1' must have a clamp within 0 to 255, the range of its output 'pool1', not -1 to 255"
    with pytest.raises(CompileError, match=text):
        verify(change_layer(1, clamp=(-1, 255))(model))


def test_pooling_must_keep_the_scale() -> None:
    model = tiny("avg_pool")
    scale = model.tensors["conv1"].scale
    with pytest.raises(CompileError, match=f"input 'conv1' has scale {scale} and its output 'pool1' {2 * scale}"):
        verify(change_tensor("pool1", scale=2 * scale)(model))


def test_convolution_needs_an_image() -> None:
    model = tiny("only_linear")
    conv1 = tiny("one_pixel").layers[0]
    broken = replace(model, layers=(replace(conv1, output="fc1"), *model.layers[1:]))
    with pytest.raises(
        CompileError, match=r"Layer 'conv1' needs an input of shape \(C, H, W\), but 'input' has shape \(13,\)"
    ):
        verify(broken)


# Networks of one feature, broken: TINY name, edit, text.
BROKEN_TINY: list[tuple[str, Callable[[Model], Model], str]] = [
    # graphs
    (
        "add",
        lambda m: replace(m, layers=(m.layers[1], m.layers[0], m.layers[2])),
        "Layer 'add1' reads 'conv1', which layer 'conv1' writes only afterwards: a cycle, or layers out of order",
    ),
    (
        "branches",
        change_layer(4, inputs=("conv2", "conv2")),
        "Layer 'conv3' writes 'conv3', but no layer reads it; remove the dead layer",
    ),
    (
        "branches",
        lambda m: replace(m, layers=m.layers[:-1], output="add1"),
        "Model 'tiny-branches' has output 'add1', but its last layer 'concat1' writes 'concat1'",
    ),
    # additions
    ("add", change_layer(1, inputs=("conv1",)), "Layer 'add1' is add and must have two inputs, not 1"),
    ("add", change_layer(1, inputs=("conv1", "input", "input")), "Layer 'add1' is add and must have two inputs, not 3"),
    (
        "add",
        change_tensor("input", shape=(2, 7, 7)),
        "Layer 'conv1' computes shape (2, 7, 7), but its output 'conv1' has shape (2, 7, 6)",
    ),
    (
        "branches",
        change_layer(4, inputs=("conv2", "pool1")),
        "Layer 'conv3' writes 'conv3', but no layer reads it; remove the dead layer",
    ),
    (
        "add_scales",
        change_layer(2, inputs=("conv1", "input")),
        "Layer 'conv2' writes 'conv2', but no layer reads it; remove the dead layer",
    ),
    (
        "add_scales",
        lambda m: change_layer(4, inputs=("conv3", "input"))(m),
        (
            "Layer 'add2' adds inputs of equal shape, but 'conv3' has (5, 7, 6) and 'input' (2, 7, 6); give a shortcut "
            "that changes the shape a 1x1 convolution"
        ),
    ),
    ("add", change_layer(1, bias=np.zeros(2, np.int32)), "Layer 'add1' is an addition and must have no bias"),
    ("add", change_layer(1, multiplier=None), "Layer 'add1' has no multiplier, but an add layer needs one"),
    (
        "add",
        change_array(1, "multiplier", lambda a: a[:1]),
        "Layer 'add1' must have multiplier of shape (3,), two inputs and the output, not (1,)",
    ),
    (
        "add",
        change_array(1, "shift", lambda a: a[:2]),
        "Layer 'add1' has multiplier of shape (3,), but shift of shape (2,)",
    ),
    (
        "add",
        change_array(1, "multiplier", with_value((2,), 1 << 17)),
        "Layer 'add1' must have multiplier 0 to 131071, not 131072",
    ),
    (
        "add",
        change_layer(1, rounding=Rounding.THRESHOLDS),
        "Layer 'add1' is an addition and must have a rounding with multiplier and shift, not thresholds",
    ),
    ("add", change_layer(1, left_shift=21), "Layer 'add1' must have a left shift of 0 to 20, not 21"),
    ("add", change_layer(1, left_shift=-1), "Layer 'add1' must have a left shift of 0 to 20, not -1"),
    (
        "add",
        change_layer(1, stride=(2, 2)),
        "Layer 'add1' is add and must have no kernel, stride, dilation, padding or groups",
    ),
    (
        "add",
        change_layer(1, clamp=(0, 256)),
        "Layer 'add1' must have a clamp within 0 to 255, the range of its output 'add1', not 0 to 256",
    ),
    (
        "add",
        lambda m: change_layer(
            1, multiplier=np.array([1 << 16] * 3, np.int32), shift=np.zeros(3, np.int8), left_shift=8
        )(m),
        "Layer 'add1' has a rescaled input 'conv1' of 0 to 4278190080, but it must fit 32 bits; raise the shift",
    ),
    (
        "add",
        lambda m: change_layer(
            1, multiplier=np.array([1 << 15] * 3, np.int32), shift=np.zeros(3, np.int8), left_shift=8
        )(m),
        "Layer 'add1' has a rescaled sum of 0 to 4278190080, but it must fit 32 bits; raise the shift",
    ),
    # concatenations
    ("concat", change_layer(2, inputs=("conv1",)), "Layer 'concat1' is concat and must have two or more inputs, not 1"),
    (
        "concat",
        change_layer(2, multiplier=np.ones(3, np.int32)),
        "Layer 'concat1' is a concatenation and must have no multiplier",
    ),
    (
        "concat",
        change_tensor("conv2", zero_point=2),
        (
            "Layer 'concat1' passes codes through, but its input 'conv2' has zero point 2 and its output 'concat1' 0; "
            "give all of them one scale and zero point when quantizing"
        ),
    ),
    (
        "concat",
        change_tensor("conv2", scale=0.5),
        (
            f"Layer 'concat1' passes codes through, but its input 'conv2' has scale 0.5 and its output 'concat1' "
            f"{1 / 255}; give all of them one scale and zero point when quantizing"
        ),
    ),
    (
        "branches",
        change_layer(5, inputs=("add1", "pool1")),
        "Layer 'concat1' joins channels of maps of equal size, but 'add1' has shape (3, 2, 2) and 'pool1' (4, 3, 3)",
    ),
    (
        "concat",
        change_layer(2, inputs=("conv1", "conv2")),
        "Layer 'concat1' computes shape (5, 7, 6), but its output 'concat1' has shape (7, 7, 6)",
    ),
    # roundings
    (
        "tflite_double",
        change_array(0, "shift", with_value((0,), 63)),
        "Layer 'conv1' must have shift 0 to 62, not 63",
    ),
    (
        "tflite_single",
        change_array(0, "multiplier", with_value((0,), -1)),
        "Layer 'conv1' must have multiplier 0 to 2147483647, not -1",
    ),
    (
        "thresholds",
        change_layer(0, thresholds=None),
        "Layer 'conv1' has no thresholds, but a conv2d layer needs one",
    ),
    (
        "thresholds",
        change_array(0, "thresholds", lambda t: t.astype(np.int64)),
        "Layer 'conv1' must have thresholds of dtype int32, not int64",
    ),
    (
        "thresholds",
        change_array(0, "thresholds", lambda t: np.repeat(t, 2, axis=1)),
        (
            "Layer 'conv1' must have thresholds of shape (5, 1 to 15), for its rows and the codes of its output "
            "'conv1', not (5, 30)"
        ),
    ),
    (
        "thresholds",
        change_array(0, "thresholds", lambda t: t[:4]),
        (
            "Layer 'conv1' must have thresholds of shape (5, 1 to 15), for its rows and the codes of its output "
            "'conv1', not (4, 15)"
        ),
    ),
    (
        "thresholds",
        change_array(0, "thresholds", with_value((3, 0), (1 << 31) - 1)),
        "Layer 'conv1' must have ascending thresholds, but those of channel 3 fall",
    ),
    (
        "thresholds",
        change_array(0, "bias", with_value((1,), 1)),
        "Layer 'conv1' has rounding thresholds and must have a bias of 0; subtract it from the thresholds",
    ),
    (
        "thresholds",
        change_layer(0, clamp=(0, 14)),
        "Layer 'conv1' must have the clamp of its thresholds, 0 to 15, not 0 to 14",
    ),
    (
        "thresholds",
        change_layer(0, shift=np.zeros(1, np.int8)),
        "Layer 'conv1' has rounding thresholds and must have no shift",
    ),
    # grids
    (
        "binary",
        change_array(0, "weight", with_value((0, 0, 0, 0), 0)),
        (
            "Layer 'conv1' must have weight levels -1 and 1 (grid binary), not 0; a pruned layer of signs has grid "
            "zero_excluded with 1 bit, or ternary"
        ),
    ),
    (
        "binary",
        change_array(0, "weight", with_value((0, 0, 0, 0), 2)),
        "Layer 'conv1' must have weight levels -1 to 1 (grid binary, 1 bits), not 2",
    ),
    ("ternary", change_layer(0, weight_bits=1), "Layer 'conv1' must have 2 weight bits on grid ternary, not 1"),
    (
        "ternary",
        change_array(0, "weight", with_value((0, 0, 0, 0), -2)),
        "Layer 'conv1' must have weight levels -1 to 1 (grid ternary, 2 bits), not -2",
    ),
    ("codebook", change_layer(0, codebook=None), "Layer 'conv1' has no codebook, but a conv2d layer needs one"),
    (
        "codebook",
        change_array(0, "codebook", lambda c: c[:1]),
        "Layer 'conv1' must have a codebook of 2 to 256 levels, not shape (1,)",
    ),
    (
        "codebook",
        change_array(0, "codebook", with_value((0,), 3)),
        "Layer 'conv1' must have a codebook whose entry 0 is 0, the pruned position, not 3",
    ),
    (
        "codebook",
        change_array(0, "codebook", with_value((1,), 256)),
        "Layer 'conv1' must have codebook levels -256 to 255, signed 9 bits, not 256",
    ),
    (
        "codebook",
        change_layer(0, weight_bits=4),
        "Layer 'conv1' has a codebook of 8 levels, which needs an index of 3 bits, but 4 weight bits",
    ),
]


@pytest.mark.parametrize(("name", "edit", "text"), BROKEN_TINY, ids=[text[:60] for _, _, text in BROKEN_TINY])
def test_each_rule_of_the_newer_features_is_checked(name: str, edit: Callable[[Model], Model], text: str) -> None:
    with pytest.raises(CompileError, match=f"^{re.escape(text)}$"):
        verify(edit(tiny(name, samples=2)))


def test_a_weight_outside_the_codebook_is_refused() -> None:
    model = tiny("codebook")
    strange = next(level for level in range(1, 256) if level not in model.layers[0].codebook)
    broken = change_array(0, "weight", with_value((0, 0, 0, 0), strange))(model)
    with pytest.raises(CompileError, match=f"^Layer 'conv1' must have weights from its codebook, not {strange}$"):
        verify(broken)


def test_tflite_roundings_take_accumulators_of_32_bits() -> None:
    model = change_array(0, "bias", with_value((0,), (1 << 31) - 1))(tiny("tflite_double"))
    text = r"Layer 'conv1' has accumulators of -?\d+ to \d+, but rounding tflite_double takes 32 bits"
    with pytest.raises(CompileError, match=text):
        verify(model)


def test_one_tensor_may_be_added_to_itself() -> None:
    model = tiny("add")
    layers = (replace(model.layers[1], inputs=("input", "input")), model.layers[2])
    tensors = {name: tensor for name, tensor in model.tensors.items() if name != "conv1"}
    verify(replace(model, layers=layers, tensors=tensors, golden={}))
