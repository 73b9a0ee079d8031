"""Synthetic networks for the tests, random layers of every kind with golden samples, and artifact files of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from zeroskip.compiler import reference, synthetic
from zeroskip.compiler.ir import Grid, Kind, Layer, Model, Rounding, Tensor
from zeroskip.compiler.shapes import output_shape, window_positions
from zeroskip.compiler.synthetic import (
    GOLDEN_SAMPLES,
    LAYER_NAMES,
    TFLITE,
    Padding,
    Spec,
    add,
    argmax,
    avg_pool,
    concat,
    conv,
    linear,
    max_pool,
    random_codes,
    weight_scale,
)

__all__ = [
    "TINY",
    "Spec",
    "add",
    "argmax",
    "artifact_parts",
    "autoencoder_like",
    "avg_pool",
    "build_model",
    "concat",
    "conv",
    "conv1d_like",
    "digits_like",
    "dscnn_like",
    "lenet5_like",
    "linear",
    "max_pool",
    "random_codes",
    "random_graph",
    "random_model",
    "resnet8_like",
    "resnet20_like",
    "sequence_parts",
    "tiny",
    "write_artifact",
    "write_parts",
]

IntArray = NDArray[Any]

# What artifacts of format 1.0 know; everything else needs 1.1.
OLD_KINDS = (Kind.CONV2D, Kind.LINEAR, Kind.MAX_POOL2D, Kind.AVG_POOL2D)
OLD_ROUNDINGS = (Rounding.FLOOR, Rounding.HALF_UP, Rounding.HALF_AWAY)
OLD_GRIDS = (Grid.SIGNED, Grid.SYMMETRIC, Grid.ZERO_EXCLUDED)
# Structures of format 1.1 with what they have to say beside their kind and keep.
STRUCTURE_DETAILS: Mapping[str, Mapping[str, Any]] = {
    "filter": {},
    "channel": {},
    "kernel": {},
    "vector": {"axis": "input", "size": 2},
    "block": {"rows": 2, "columns": 4},
    "nm": {"n": 2, "m": 4},
    "bank_balanced": {"banks": 2},
    "micro_block": {"size": 4},
}
OLD_STRUCTURES = ("dense", "nonstructured", "column")


def build_model(
    rng: np.random.Generator,
    source: Tensor,
    specs: Sequence[Spec],
    *,
    name: str = "synthetic",
    samples: int = GOLDEN_SAMPLES,
) -> Model:
    """Return :func:`zeroskip.compiler.synthetic.build_model` with an artifact's header as its metadata."""
    model = synthetic.build_model(rng, source, specs, name=name, samples=samples)
    return replace(model, metadata=_header(model))


def random_model(
    rng: np.random.Generator,
    *,
    layers: int = 3,
    structure: str = "dense",
    keep: float = 0.4,
    bits: int = 4,
    grid: Grid = Grid.ZERO_EXCLUDED,
    samples: int = GOLDEN_SAMPLES,
    **options: Any,
) -> Model:
    """Return a random chain of ``layers`` convolutions and poolings (where they fit) and one or two linear layers.

    ``options`` are fields of :class:`Spec` for every convolution and linear layer.
    """
    source = Tensor("input", (int(rng.integers(1, 4)), int(rng.integers(5, 11)), int(rng.integers(5, 11))))
    if rng.random() < 0.3:
        source = replace(source, signed=True, zero_point=int(rng.integers(-20, 21)))
    common = {
        "structure": structure,
        "keep": keep if structure != "dense" else 1.0,
        "bits": bits,
        "grid": grid,
        **options,
    }
    specs: list[Spec] = []
    shape = source.shape
    for _ in range(layers):
        spec = _random_spec(rng, shape, common)
        blank = Layer("", Kind.MAX_POOL2D, ("",), "", kernel=spec.kernel, stride=spec.stride, padding=spec.padding)
        blank = replace(blank, dilation=spec.dilation)
        if min(output_shape(blank, shape)[1:]) >= 1:
            specs.append(spec)
            shape = (spec.out or shape[0], *output_shape(blank, shape)[1:])
    if rng.random() < 0.5:
        specs.append(linear(int(rng.integers(2, 20)), **common))
    specs.append(linear(int(rng.integers(1, 12)), **{**common, "relu": False, "out_signed": True}))
    return build_model(rng, source, specs, name="random", samples=samples)


def _random_spec(rng: np.random.Generator, shape: tuple[int, ...], common: Mapping[str, Any]) -> Spec:
    """Return a convolution (two times in three) or a pooling for an input of ``shape``."""
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    stride = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    choice = rng.random()
    if choice < 0.12:
        return avg_pool(kernel, stride)
    if choice < 0.35:
        return max_pool(kernel, kernel if rng.random() < 0.6 else stride)
    padding = tuple(int(rng.integers(0, size)) for size in (*kernel, *kernel))
    dilation = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    border: Padding = (padding[0], padding[1], padding[2], padding[3])
    fits = window_positions(shape[1], border[0], border[2], kernel[0], 1, dilation[0]) > 0
    fits = fits and window_positions(shape[2], border[1], border[3], kernel[1], 1, dilation[1]) > 0
    return conv(int(rng.integers(1, 9)), kernel, stride, border, dilation if fits else 1, **common)


def _sparse(structure: str, keep: float | Mapping[str, float], name: str) -> dict[str, Any]:
    fraction = keep if isinstance(keep, (int, float)) else keep.get(name, 1.0)
    return {"structure": structure, "keep": float(fraction)} if structure != "dense" else {}


def digits_like(
    structure: str = "dense", keep: float | Mapping[str, float] = 0.25, *, bits: int = 4, seed: int = 0, **options: Any
) -> Model:
    """Return the demo's shape: 1x8x8, conv 3x3 pad 1 (8), pool, conv 3x3 pad 1 (16), pool, linear 32, linear 10.

    ``keep`` is one fraction for all layers or one by layer name; ``options`` are fields of :class:`Spec`.
    """
    common = {"bits": bits, **options}
    specs = [
        conv(8, 3, padding=1, **common, **_sparse(structure, keep, "conv1")),
        max_pool(2),
        conv(16, 3, padding=1, **common, **_sparse(structure, keep, "conv2")),
        max_pool(2),
        linear(32, **common, **_sparse(structure, keep, "fc1")),
        linear(10, **{**common, "relu": False, "out_signed": True}, **_sparse(structure, keep, "fc2")),
    ]
    rng = np.random.default_rng(seed)
    return build_model(rng, Tensor("input", (1, 8, 8), scale=1 / 16), specs, name=f"digits-{structure}-w{bits}a8")


def lenet5_like(
    structure: str = "nonstructured",
    keep: float | Mapping[str, float] | None = None,
    *,
    bits: int = 4,
    seed: int = 0,
    samples: int = GOLDEN_SAMPLES,
    **options: Any,
) -> Model:
    """Return LeNet-5's shape (20-50-500-10 on 1x28x28, 430,500 weights); ``keep`` defaults to a 71x split."""
    split = {"conv1": 0.6, "conv2": 0.06, "fc1": 0.01, "fc2": 0.07} if keep is None else keep
    common = {"bits": bits, **options}
    specs = [
        conv(20, 5, **common, **_sparse(structure, split, "conv1")),
        max_pool(2),
        conv(50, 5, **common, **_sparse(structure, split, "conv2")),
        max_pool(2),
        linear(500, **common, **_sparse(structure, split, "fc1")),
        linear(10, **{**common, "relu": False, "out_signed": True}, **_sparse(structure, split, "fc2")),
    ]
    source = Tensor("input", (1, 28, 28), scale=1 / 255)
    return build_model(
        np.random.default_rng(seed), source, specs, name=f"lenet5-{structure}-w{bits}a8", samples=samples
    )


def _residual_stack(specs: list[Spec], widths: Sequence[int], blocks: int, common: Mapping[str, Any]) -> None:
    """Append ``blocks`` residual blocks of each width; from the second width on the first one halves the map."""
    before, convs, adds = "conv1", 1, 0
    for width in widths:
        for block in range(blocks):
            down = width != widths[0] and block == 0
            # Keras pads "same" on the far side where an even map is halved.
            first = {"stride": 2, "padding": (0, 0, 1, 1)} if down else {"padding": 1}
            straight = {**common, "relu": False, "out_signed": True}
            specs.append(conv(width, 3, **first, **common, inputs=(before,)))
            specs.append(conv(width, 3, padding=1, **straight))
            convs += 2
            main, shortcut = f"conv{convs}", before
            if down:
                specs.append(conv(width, 1, stride=2, **straight, inputs=(before,)))
                convs += 1
                shortcut = f"conv{convs}"
            specs.append(add(main, shortcut))
            adds += 1
            before = f"add{adds}"


def resnet8_like(seed: int = 0, bits: int = 8, *, samples: int = GOLDEN_SAMPLES, **options: Any) -> Model:
    """Return MLPerf Tiny's ResNet-8: 3x32x32, conv 16, residual blocks 16, 32, 64, global average, linear 10."""
    return _resnet("resnet8", 1, seed, bits, samples, options)


def resnet20_like(seed: int = 0, bits: int = 8, *, samples: int = GOLDEN_SAMPLES, **options: Any) -> Model:
    """Return ResNet-20 for CIFAR-10, its shortcuts 1x1 convolutions: 3 residual blocks of each of 16, 32, 64."""
    return _resnet("resnet20", 3, seed, bits, samples, options)


def _resnet(name: str, blocks: int, seed: int, bits: int, samples: int, options: Mapping[str, Any]) -> Model:
    common = {"bits": bits, "grid": Grid.SYMMETRIC if bits == 8 else Grid.ZERO_EXCLUDED, **options}
    specs = [conv(16, 3, padding=1, **common)]
    _residual_stack(specs, (16, 32, 64), blocks, common)
    specs += [avg_pool(8), linear(10, **{**common, "relu": False, "out_signed": True})]
    source = Tensor("input", (3, 32, 32), scale=1 / 255)
    return build_model(np.random.default_rng(seed), source, specs, name=f"{name}-w{bits}a8", samples=samples)


def dscnn_like(seed: int = 0, bits: int = 8, *, samples: int = GOLDEN_SAMPLES, **options: Any) -> Model:
    """Return MLPerf Tiny's keyword spotting: 1x49x10, conv 10x4, 4 depthwise separable blocks of 64, average, 12."""
    common = {"bits": bits, "grid": Grid.SYMMETRIC if bits == 8 else Grid.ZERO_EXCLUDED, **options}
    specs = [conv(64, (10, 4), stride=2, padding=(4, 1, 5, 1), **common)]
    for _ in range(4):
        specs += [conv(64, 3, padding=1, groups=64, **common), conv(64, 1, **common)]
    specs += [avg_pool((25, 5)), linear(12, **{**common, "relu": False, "out_signed": True})]
    source = Tensor("input", (1, 49, 10), signed=True, scale=1 / 8)
    return build_model(np.random.default_rng(seed), source, specs, name=f"dscnn-w{bits}a8", samples=samples)


def autoencoder_like(seed: int = 0, bits: int = 8, *, samples: int = GOLDEN_SAMPLES, **options: Any) -> Model:
    """Return MLPerf Tiny's anomaly detection: linear 640, 4 of 128, 8, 4 of 128, 640."""
    common = {"bits": bits, "grid": Grid.SYMMETRIC if bits == 8 else Grid.ZERO_EXCLUDED, **options}
    specs = [linear(width, **common) for width in (128, 128, 128, 128, 8, 128, 128, 128, 128)]
    specs.append(linear(640, **{**common, "relu": False, "out_signed": True}))
    source = Tensor("input", (640,), signed=True, scale=1 / 16)
    return build_model(np.random.default_rng(seed), source, specs, name=f"autoencoder-w{bits}a8", samples=samples)


def conv1d_like(seed: int = 0, bits: int = 8, *, samples: int = GOLDEN_SAMPLES, **options: Any) -> Model:
    """Return a 1-D network for heart beats of 140 samples: conv 7, 5, 3 with poolings, global average, linear 5."""
    common = {"bits": bits, "grid": Grid.SYMMETRIC if bits == 8 else Grid.ZERO_EXCLUDED, **options}
    specs = [
        conv(16, (1, 7), padding=(0, 3, 0, 3), **common),
        max_pool((1, 2)),
        conv(32, (1, 5), padding=(0, 2, 0, 2), **common),
        max_pool((1, 2)),
        conv(32, (1, 3), stride=(1, 2), padding=(0, 1, 0, 1), **common),
        avg_pool((1, 18)),
        linear(5, **{**common, "relu": False, "out_signed": True}),
    ]
    source = Tensor("input", (1, 1, 140), signed=True, scale=1 / 32)
    return build_model(np.random.default_rng(seed), source, specs, name=f"ecg-w{bits}a8", samples=samples)


def random_graph(rng: np.random.Generator, *, layers: int = 6, samples: int = GOLDEN_SAMPLES, **options: Any) -> Model:
    """Return a random graph of convolutions, poolings, additions and concatenations on one image, and a linear layer.

    Every map has one size, so that any two can be joined; ``options`` are fields of :class:`Spec` for convolutions.
    """
    height, width = int(rng.integers(3, 7)), int(rng.integers(3, 7))
    source = Tensor("input", (int(rng.integers(1, 4)), height, width), scale=1 / 64)
    specs: list[Spec] = []
    channels, numbers, unread = {"input": source.shape[0]}, dict.fromkeys(LAYER_NAMES.values(), 0), {"input"}

    def append(spec: Spec, out: int) -> None:
        stem = LAYER_NAMES[spec.kind]
        numbers[stem] += 1
        unread.difference_update(spec.inputs)
        specs.append(spec)
        channels[f"{stem}{numbers[stem]}"] = out
        unread.add(f"{stem}{numbers[stem]}")

    common = {"padding": (1, 1, 1, 1), "out_scale": 1 / 64, "bits": 4, **options}
    for _ in range(layers):
        before = str(rng.choice(sorted(unread) if rng.random() < 0.5 else sorted(channels)))
        partners = [name for name in sorted(channels) if channels[name] == channels[before] and name != before]
        choice = rng.random()
        if choice < 0.35 and partners:
            append(add(before, str(rng.choice(partners)), out_scale=1 / 64), channels[before])
        elif choice < 0.5:
            append(replace(max_pool(3, 1, 1), inputs=(before,)), channels[before])
        elif choice < 0.6 and len(channels) > 1:
            other = str(rng.choice(sorted(set(channels) - {before})))
            append(concat(before, other), channels[before] + channels[other])
        else:
            out = int(rng.integers(1, 7))
            append(conv(out, 3, inputs=(before,), **common), out)
    while len(unread) > 1:
        first, second = sorted(unread)[:2]
        append(concat(first, second), channels[first] + channels[second])
    specs.append(linear(3, relu=False, out_signed=True, inputs=(unread.pop(),)))
    return build_model(rng, source, specs, name="random-graph", samples=samples)


_IMAGE = Tensor("input", (2, 7, 6), scale=1 / 255)
_LAST = {"relu": False, "out_signed": True}
_PATTERNS = [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]

TINY: Mapping[str, tuple[Tensor, tuple[Spec, ...]]] = {
    "stride_2": (_IMAGE, (conv(5, 3, stride=2, padding=1), linear(4, **_LAST))),
    "dilation_2": (_IMAGE, (conv(5, 3, dilation=2, padding=1), linear(4, **_LAST))),
    "asymmetric_padding": (_IMAGE, (conv(5, (3, 2), padding=(2, 0, 1, 1)), linear(4, **_LAST))),
    "zero_point": (
        replace(_IMAGE, zero_point=33),
        (conv(5, 3, padding=1, out_zero_point=17), conv(4, 3, padding=1, out_zero_point=9), linear(4, **_LAST)),
    ),
    "signed": (
        replace(_IMAGE, signed=True, zero_point=-5),
        (
            conv(5, 3, padding=1, relu=False, out_signed=True),
            linear(6, relu=False, out_signed=True),
            linear(4, **_LAST),
        ),
    ),
    "avg_pool": (_IMAGE, (conv(5, 2), avg_pool(2), linear(4, **_LAST))),
    "avg_pool_signed": (_IMAGE, (conv(5, 2, relu=False, out_signed=True), avg_pool((3, 2), 1), linear(4, **_LAST))),
    "overlapping_pool": (_IMAGE, (conv(5, 1), max_pool(3, 2), linear(4, **_LAST))),
    "padded_pool": (_IMAGE, (conv(5, 1, relu=False, out_signed=True), max_pool(3, 2, 1), linear(4, **_LAST))),
    "pool_remainder": (_IMAGE, (conv(5, 3), max_pool((2, 3)), linear(4, **_LAST))),
    "pool_first": (_IMAGE, (max_pool(2), conv(5, 2), linear(4, **_LAST))),
    "pool_last": (_IMAGE, (conv(5, 3, relu=False, out_signed=True), max_pool(2))),
    "power_of_two": (_IMAGE, (conv(5, 3, power_of_two=True), linear(4, power_of_two=True, **_LAST))),
    "per_tensor": (_IMAGE, (conv(5, 3, per_channel=False), linear(4, per_channel=False, **_LAST))),
    "power_of_two_per_tensor": (
        _IMAGE,
        (conv(5, 3, power_of_two=True, per_channel=False), linear(4, power_of_two=True, per_channel=False, **_LAST)),
    ),
    "floor": (_IMAGE, (conv(5, 3, rounding=Rounding.FLOOR), linear(4, rounding=Rounding.FLOOR, **_LAST))),
    "half_away": (
        _IMAGE,
        (
            conv(5, 3, rounding=Rounding.HALF_AWAY, power_of_two=True, relu=False, out_signed=True),
            linear(4, rounding=Rounding.HALF_AWAY, **_LAST),
        ),
    ),
    "low_bits": (
        replace(_IMAGE, bits=4),
        (conv(5, 3, out_bits=4), conv(5, 2, out_bits=3), linear(4, relu=False, out_signed=True, out_bits=6)),
    ),
    "one_bit_activations": (replace(_IMAGE, bits=1), (conv(5, 3, out_bits=1), linear(4, **_LAST))),
    "empty_rows": (
        _IMAGE,
        (
            conv(6, 3, structure="nonstructured", keep=0.4, empty_rows=(0, 3, 5)),
            linear(8, structure="nonstructured", keep=0.3, empty_rows=(0, 1, 7)),
            linear(4, structure="nonstructured", keep=0.5, empty_rows=(2,), **_LAST),
        ),
    ),
    "column": (
        _IMAGE,
        (
            conv(5, 3, structure="column", keep=0.4),
            linear(8, structure="column", keep=0.3, group=4),
            linear(4, structure="column", keep=0.5, **_LAST),
        ),
    ),
    "very_sparse": (
        _IMAGE,
        (
            conv(5, 3, structure="nonstructured", keep=0.05),
            linear(40, structure="nonstructured", keep=0.01),
            linear(4, structure="nonstructured", keep=0.03, **_LAST),
        ),
    ),
    "densities": (
        _IMAGE,
        (
            conv(6, 3, padding=1, structure="nonstructured", keep=0.5, empty_rows=(1, 4)),
            max_pool(2),
            conv(8, 3, stride=(2, 1), padding=1, structure="nonstructured", keep=0.08),
            conv(8, (1, 3), padding=(0, 1, 0, 1), groups=8, structure="nonstructured", keep=0.7),
            conv(4, 2, groups=2, structure="nonstructured", keep=0.9),
            conv(5, 1),
            conv(3, 1, structure="nonstructured", keep=0.3, empty_rows=(0, 1, 2)),
            linear(4, structure="nonstructured", keep=0.5, **_LAST),
        ),
    ),
    "single_output": (_IMAGE, (conv(1, 3), linear(1, **_LAST))),
    "only_linear": (Tensor("input", (13,)), (linear(9), linear(4, **_LAST))),
    "one_pixel": (Tensor("input", (1, 1, 1)), (conv(1, 1), linear(1, **_LAST))),
    "depthwise": (_IMAGE, (conv(2, 3, padding=1, groups=2), conv(5, 1), linear(4, **_LAST))),
    **{
        f"weights_{grid.value}_{bits}": (
            Tensor("input", (2, 4, 4)),
            (conv(4, 3, padding=1, bits=bits, grid=grid), linear(4, bits=bits, grid=grid, **_LAST)),
        )
        for grid in OLD_GRIDS
        for bits in range(1 if grid is not Grid.SYMMETRIC else 2, 9)
    },
    "add": (_IMAGE, (conv(2, 3, padding=1), add("conv1", "input"), linear(4, **_LAST))),
    "add_scales": (
        replace(_IMAGE, zero_point=7),
        (
            conv(5, 3, padding=1, out_zero_point=9),
            conv(5, 1, relu=False, out_signed=True, out_bits=6, inputs=("input",)),
            add("conv2", "conv1", left_shift=6, relu=False, out_signed=True, out_zero_point=-3),
            conv(5, 1, relu=False, out_signed=True, power_of_two=True, inputs=("add1",)),
            add("conv3", "add1", power_of_two=True),
            linear(4, **_LAST),
        ),
    ),
    "add_last": (_IMAGE, (conv(2, 3, padding=1), add("input", "conv1", relu=False, out_signed=True))),
    "concat": (
        _IMAGE,
        (
            conv(3, 3, padding=1, out_scale=1 / 255),
            conv(2, 1, out_scale=1 / 255, inputs=("input",)),
            concat("conv1", "input", "conv2"),
            conv(4, 3),
            linear(4, **_LAST),
        ),
    ),
    "concat_rows": (
        Tensor("input", (9,)),
        (
            linear(5, out_scale=1.0),
            linear(3, out_scale=1.0, inputs=("input",)),
            concat("fc2", "fc1"),
            linear(4, **_LAST),
        ),
    ),
    "branches": (
        _IMAGE,
        (
            conv(4, 3, padding=1, structure="nonstructured", keep=0.5, empty_rows=(2,)),
            max_pool(2),
            conv(3, 2, inputs=("pool1",), structure="nonstructured", keep=0.5, empty_rows=(1,), out_scale=1.0),
            conv(3, 2, inputs=("pool1",), out_scale=1.0),
            add("conv2", "conv3", out_scale=1.0),
            concat("add1", "conv2"),
            linear(4, **_LAST),
        ),
    ),
    "grouped_conv": (_IMAGE, (conv(4, 3, padding=1), conv(6, 3, padding=1, groups=2), linear(4, **_LAST))),
    "conv1d": (
        Tensor("input", (2, 1, 12)),
        (
            conv(5, (1, 3), padding=(0, 1, 0, 1)),
            max_pool((1, 2)),
            conv(4, (1, 3), stride=(1, 2), dilation=(1, 2), padding=(0, 2, 0, 1)),
            linear(4, **_LAST),
        ),
    ),
    "global_pool": (_IMAGE, (conv(5, 3, padding=1), avg_pool((7, 6)), linear(4, **_LAST))),
    "half_even": (
        _IMAGE,
        (
            conv(5, 3, rounding=Rounding.HALF_EVEN, power_of_two=True, relu=False, out_signed=True),
            linear(4, rounding=Rounding.HALF_EVEN, **_LAST),
        ),
    ),
    **{
        rounding.value: (
            replace(_IMAGE, signed=True, zero_point=-4),
            (
                conv(2, 3, padding=1, rounding=rounding, relu=False, out_signed=True, out_zero_point=5),
                add("conv1", "input", rounding=rounding, left_shift=20, relu=False, out_signed=True, out_zero_point=-2),
                linear(4, rounding=rounding, per_channel=False, **_LAST),
            ),
        )
        for rounding in TFLITE
    },
    "thresholds": (
        _IMAGE,
        (
            conv(5, 3, padding=1, rounding=Rounding.THRESHOLDS, out_bits=4),
            max_pool(2),
            conv(4, 2, rounding=Rounding.THRESHOLDS, out_bits=2, out_signed=True),
            linear(6, rounding=Rounding.THRESHOLDS, out_bits=1),
            linear(4, rounding=Rounding.THRESHOLDS, out_bits=8, **_LAST),
        ),
    ),
    "tflite_per_channel": (
        replace(_IMAGE, signed=True, zero_point=-4),
        (
            conv(6, 3, padding=1, rounding=Rounding.TFLITE_DOUBLE, varied_scales=True, relu=False, out_signed=True),
            max_pool(2),
            linear(9, rounding=Rounding.TFLITE_DOUBLE, **_LAST),
        ),
    ),
    "mixed_roundings": (
        _IMAGE,
        (
            conv(5, 3, padding=1, rounding=Rounding.HALF_EVEN, power_of_two=True, per_channel=False),
            conv(5, 1, rounding=Rounding.TFLITE_DOUBLE, per_channel=False, relu=False, out_signed=True),
            max_pool(2),
            conv(4, 2, rounding=Rounding.THRESHOLDS, out_bits=4),
            conv(4, 1, rounding=Rounding.HALF_AWAY, relu=False, out_signed=True),
            linear(6, rounding=Rounding.THRESHOLDS, out_bits=2, out_signed=True),
            linear(4, rounding=Rounding.FLOOR, **_LAST),
        ),
    ),
    "thresholds_of_8_bits": (
        _IMAGE,
        (
            conv(5, 3, padding=1, rounding=Rounding.THRESHOLDS, out_signed=True),
            conv(3, 3, per_channel=False),
            linear(4, **_LAST),
        ),
    ),
    "one_threshold": (
        _IMAGE,
        (
            conv(5, 3, padding=1, rounding=Rounding.THRESHOLDS, out_bits=1),
            linear(4, rounding=Rounding.THRESHOLDS, out_bits=1, relu=False),
        ),
    ),
    "wide_multipliers": (
        _IMAGE,
        (conv(5, 3, padding=1, varied_scales=True), linear(6, varied_scales=True), linear(4, **_LAST)),
    ),
    "binary": (
        _IMAGE,
        (conv(5, 3, bits=1, grid=Grid.BINARY), linear(4, bits=1, grid=Grid.BINARY, **_LAST)),
    ),
    "ternary": (
        _IMAGE,
        (
            conv(5, 3, bits=2, grid=Grid.TERNARY),
            linear(4, bits=2, grid=Grid.TERNARY, structure="nonstructured", keep=0.5, **_LAST),
        ),
    ),
    "codebook": (
        _IMAGE,
        (
            conv(5, 3, bits=3, grid=Grid.CODEBOOK),
            linear(6, bits=8, grid=Grid.CODEBOOK, structure="nonstructured", keep=0.3),
            linear(4, bits=1, grid=Grid.CODEBOOK, **_LAST),
        ),
    ),
    "codebook_maps": (
        _IMAGE,
        (
            conv(5, 3, bits=8, grid=Grid.CODEBOOK, structure="nonstructured", keep=0.6),
            conv(6, 1, bits=4, grid=Grid.CODEBOOK),
            conv(4, 3, padding=1, bits=3, grid=Grid.CODEBOOK, structure="nonstructured", keep=0.4),
            max_pool(2),
        ),
    ),
    **{
        f"structure_{structure}": (
            _IMAGE,
            (
                conv(8, 3, padding=1, structure=structure, keep=0.5, detail=detail),
                conv(6, 2, structure=structure, keep=0.5, detail=detail),
                linear(4, structure="nonstructured", keep=0.5, **_LAST),
            ),
        )
        for structure, detail in STRUCTURE_DETAILS.items()
    },
    "unified": (
        replace(_IMAGE, signed=True, zero_point=-5),
        (
            conv(8, 2, padding=(1, 1, 0, 0), structure="micro_block", keep=0.6, detail={"size": 4}),
            max_pool(2),
            conv(4, 3, structure="micro_block", keep=0.5, detail={"size": 8}),
            linear(6, structure="micro_block", keep=0.5, detail={"size": 4}),
            linear(5, structure="micro_block", keep=1.0, detail={"size": 2}, **_LAST),
        ),
    ),
    "structure_vector_output": (
        _IMAGE,
        (
            conv(8, 3, structure="vector", keep=0.4, detail={"axis": "output", "size": 4}),
            linear(6, structure="vector", keep=0.5, detail={"axis": "output", "size": 4}),
            linear(4, **_LAST),
        ),
    ),
    "structure_pattern": (
        _IMAGE,
        (
            conv(8, 3, padding=1, structure="pattern", keep=0.7, detail={"patterns": _PATTERNS}),
            conv(6, 3, structure="pattern", keep=1.0, detail={"patterns": _PATTERNS}),
            linear(4, **_LAST),
        ),
    ),
}


def tiny(name: str, *, seed: int = 0, samples: int = GOLDEN_SAMPLES) -> Model:
    """Return the tiny network ``name`` of :data:`TINY`, each of which exercises one feature."""
    source, specs = TINY[name]
    return build_model(np.random.default_rng(seed), source, specs, name=f"tiny-{name}", samples=samples)


def _header(model: Model) -> dict[str, Any]:
    """Return the artifact header of an unfused model, without its hash."""
    return {
        "format": _format(model),
        "name": model.name,
        "network": "synthetic",
        "dataset": "random",
        "input": model.input,
        "output": model.output,
        "tensors": {
            name: {
                "shape": list(tensor.shape),
                "bits": tensor.bits,
                "signed": tensor.signed,
                "scale": tensor.scale,
                "zero_point": tensor.zero_point,
            }
            for name, tensor in model.tensors.items()
        },
        "layers": [_layer_header(layer) for layer in model.layers],
        "recipe": {},
        "seed": 0,
        "accuracy": {},
        "provenance": {"source": "sim_tests/models.py"},
        "versions": {"numpy": np.__version__},
    }


def _format(model: Model) -> str:
    """Return the oldest format that holds the model."""
    tensors = [name for layer in model.layers for name in layer.inputs]
    old = len(tensors) == len(set(tensors)) and all(
        layer.kind in OLD_KINDS
        and layer.rounding in OLD_ROUNDINGS
        and layer.grid in OLD_GRIDS
        and layer.structure.get("kind", "dense") in OLD_STRUCTURES
        for layer in model.layers
    )
    return "1.0" if old else "1.1"


def _layer_header(layer: Layer) -> dict[str, Any]:
    if layer.pool is not None:
        raise ValueError(f"Layer {layer.name!r} has a fused pooling, but an artifact holds poolings as layers")
    entry: dict[str, Any] = {
        "name": layer.name,
        "kind": layer.kind.value,
        "inputs": list(layer.inputs),
        "output": layer.output,
    }
    if layer.kind in (Kind.CONCAT, Kind.ARGMAX):
        return entry
    if layer.kind is Kind.ADD:
        settings = {"left_shift": layer.left_shift, "rounding": layer.rounding.value, "clamp": list(layer.clamp)}
        return entry | settings
    if layer.kind is not Kind.LINEAR:
        entry |= {"stride": list(layer.stride), "padding": list(layer.padding)}
    if layer.kind is Kind.CONV2D:
        entry |= {"dilation": list(layer.dilation), "groups": layer.groups}
    if layer.weight is None:
        entry["kernel"] = list(layer.kernel)
        return entry
    return entry | {
        "structure": dict(layer.structure),
        "weight_bits": layer.weight_bits,
        "grid": layer.grid.value,
        "weight_scale": weight_scale(layer),
        "rounding": layer.rounding.value,
        "clamp": list(layer.clamp),
    }


def artifact_parts(model: Model) -> tuple[dict[str, IntArray], dict[str, Any]]:
    """Return the tensors and the header (without hash) of the model's artifact, for :func:`write_parts`."""
    arrays: dict[str, IntArray] = {}
    for layer in model.layers:
        for part, array in _layer_arrays(layer).items():
            arrays[f"{layer.name}.{part}"] = array
    for name, codes in model.golden.items():
        arrays[f"golden/{name}"] = codes.astype(reference.code_dtype(model.tensors[name]))
    return arrays, json.loads(json.dumps({**_header(model), **model.metadata}))


def _layer_arrays(layer: Layer) -> dict[str, IntArray]:
    """Return the arrays that an artifact holds of a layer."""
    arrays: dict[str, IntArray] = {}
    if layer.weight is not None and layer.codebook is not None:
        order = np.argsort(layer.codebook, kind="stable")
        found = np.searchsorted(layer.codebook[order], layer.weight)
        arrays |= {"weight_index": order[found].astype(np.uint8), "codebook": layer.codebook.astype(np.int16)}
    elif layer.weight is not None:
        arrays["weight"] = layer.weight.astype(np.int16)
    if layer.thresholds is not None:
        return arrays | {"thresholds": layer.thresholds.astype(np.int32)}
    if layer.bias is not None:
        arrays["bias"] = layer.bias.astype(np.int32)
    if layer.multiplier is not None and layer.shift is not None:
        arrays |= {"multiplier": layer.multiplier.astype(np.int32), "shift": layer.shift.astype(np.int8)}
    return arrays


def sequence_parts(model: Model) -> tuple[dict[str, IntArray], dict[str, Any]]:
    """Return :func:`artifact_parts` of a model with maps of height 1, written as 1-D layers on tensors ``(C, L)``."""
    arrays, header = artifact_parts(model)
    header["format"] = "1.1"
    for name, tensor in header["tensors"].items():
        if len(tensor["shape"]) == 3:
            channels, height, length = tensor["shape"]
            if height != 1:
                raise ValueError(f"Tensor {name!r} must have height 1, not {height}")
            tensor["shape"] = [channels, length]
            arrays[f"golden/{name}"] = arrays[f"golden/{name}"][:, :, 0]
    for layer in header["layers"]:
        layer["kind"] = layer["kind"].replace("2d", "1d")
        for key in ("kernel", "stride", "dilation"):
            if key in layer:
                layer[key] = layer[key][1:]
        if "padding" in layer:
            layer["padding"] = layer["padding"][1::2]
        for part in ("weight", "weight_index"):
            weight = arrays.get(f"{layer['name']}.{part}")
            if weight is not None and weight.ndim == 4:
                arrays[f"{layer['name']}.{part}"] = weight[:, :, 0]
    return arrays, header


def write_parts(arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any], path: Path) -> Path:
    """Write an artifact file; the hash is filled in unless ``header`` has one."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    body = save(contiguous)
    start = 8 + int.from_bytes(body[:8], "little")
    complete = {"sha256": hashlib.sha256(body[start:]).hexdigest(), **header}
    text = json.dumps(complete, sort_keys=True, separators=(",", ":"))
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(save(contiguous, {"zeroskip": text}))
    unfinished.replace(path)
    return path


def write_artifact(model: Model, path: Path) -> Path:
    """Write an unfused model as an artifact file and return its path."""
    return write_parts(*artifact_parts(model), path)
