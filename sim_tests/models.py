"""Synthetic networks for the tests, random layers of every kind with golden samples, and artifact files of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from zeroskip.compiler import reference
from zeroskip.compiler.ir import Grid, Kind, Layer, Model, Rounding, Tensor
from zeroskip.compiler.shapes import output_shape, window_positions

__all__ = [
    "TINY",
    "Spec",
    "artifact_parts",
    "avg_pool",
    "build_model",
    "conv",
    "digits_like",
    "lenet5_like",
    "linear",
    "max_pool",
    "random_codes",
    "random_model",
    "tiny",
    "write_artifact",
    "write_parts",
]

IntArray = NDArray[Any]
Padding = tuple[int, int, int, int]

GOLDEN_SAMPLES = 16
MULTIPLIER_BITS = 16
SHIFT_MAX = 47
LAYER_NAMES = {Kind.CONV2D: "conv", Kind.LINEAR: "fc", Kind.MAX_POOL2D: "pool", Kind.AVG_POOL2D: "pool"}


@dataclass(frozen=True)
class Spec:
    """What one layer of a synthetic network should be; :func:`build_model` draws the numbers.

    ``keep`` is the fraction of weights (structure ``nonstructured``) or of column groups (``column``) that stay,
    ``group`` the adjacent columns that live or die together, ``empty_rows`` the output channels without any weight.
    """

    kind: Kind
    out: int = 0
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    structure: str = "dense"
    keep: float = 1.0
    group: int = 1
    bits: int = 4
    grid: Grid = Grid.ZERO_EXCLUDED
    relu: bool = True
    out_bits: int = 8
    out_signed: bool = False
    out_zero_point: int = 0
    rounding: Rounding = Rounding.HALF_UP
    power_of_two: bool = False
    per_channel: bool = True
    empty_rows: tuple[int, ...] = ()


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _border(value: int | Padding) -> Padding:
    return (value, value, value, value) if isinstance(value, int) else value


def conv(
    out: int,
    kernel: int | tuple[int, int] = 3,
    stride: int | tuple[int, int] = 1,
    padding: int | Padding = 0,
    dilation: int | tuple[int, int] = 1,
    **options: Any,
) -> Spec:
    """Return a convolution; ``options`` are the other fields of :class:`Spec`."""
    return Spec(Kind.CONV2D, out, _pair(kernel), _pair(stride), _border(padding), _pair(dilation), **options)


def linear(out: int, **options: Any) -> Spec:
    """Return a linear layer; ``options`` are the other fields of :class:`Spec`."""
    return Spec(Kind.LINEAR, out, **options)


def max_pool(kernel: int | tuple[int, int] = 2, stride: int | tuple[int, int] = 0, padding: int | Padding = 0) -> Spec:
    """Return a max pooling; the stride is the kernel unless given."""
    return Spec(Kind.MAX_POOL2D, kernel=_pair(kernel), stride=_pair(stride or kernel), padding=_border(padding))


def avg_pool(kernel: int | tuple[int, int] = 2, stride: int | tuple[int, int] = 0) -> Spec:
    """Return an average pooling; the stride is the kernel unless given."""
    return Spec(Kind.AVG_POOL2D, kernel=_pair(kernel), stride=_pair(stride or kernel))


def random_codes(rng: np.random.Generator, tensor: Tensor, samples: int) -> IntArray:
    """Return random samples of ``tensor``; the first holds only the smallest code, the second the largest."""
    codes = rng.integers(tensor.lo, tensor.hi + 1, (samples, *tensor.shape)).astype(reference.code_dtype(tensor))
    codes[0] = tensor.lo
    if samples > 1:
        codes[1] = tensor.hi
    return codes


def _legal_levels(grid: Grid, bits: int, with_zero: bool) -> IntArray:
    top = 1 << (bits - 1)
    limits = {Grid.SIGNED: (-top, top - 1), Grid.SYMMETRIC: (1 - top, top - 1), Grid.ZERO_EXCLUDED: (-top, top)}
    lo, hi = limits[grid]
    if grid is Grid.SYMMETRIC and bits == 1:
        raise ValueError("Grid symmetric must have at least 2 bits, not 1")
    levels = np.arange(lo, hi + 1)
    return levels if with_zero and grid is not Grid.ZERO_EXCLUDED else levels[levels != 0]


def _kept(rng: np.random.Generator, groups: int, keep: float) -> IntArray:
    """Return which of ``groups`` stay: ``max(1, floor(keep * groups + 0.5))`` of them."""
    mask = np.zeros(groups, bool)
    mask[rng.permutation(groups)[: max(1, int(np.floor(keep * groups + 0.5)))]] = True
    return mask


def _draw_weight(rng: np.random.Generator, spec: Spec, shape: tuple[int, ...]) -> IntArray:
    rows, columns = shape[0], int(np.prod(shape[1:]))
    weight = rng.choice(_legal_levels(spec.grid, spec.bits, spec.structure == "dense"), (rows, columns))
    if spec.structure == "nonstructured":
        weight = weight * _kept(rng, rows * columns, spec.keep).reshape(rows, columns)
    elif spec.structure == "column":
        groups = -(-columns // spec.group)
        weight = weight * np.repeat(_kept(rng, groups, spec.keep), spec.group)[:columns]
    elif spec.structure != "dense":
        raise ValueError(f"Structure must be dense, nonstructured or column, not {spec.structure!r}")
    weight[list(spec.empty_rows)] = 0
    return weight.astype(np.int16).reshape(shape)


def _structure(spec: Spec) -> dict[str, Any]:
    if spec.structure == "dense":
        return {"kind": "dense"}
    if spec.structure == "column":
        return {"kind": "column", "keep": spec.keep, "group": spec.group}
    return {"kind": "nonstructured", "keep": spec.keep}


def _draw_scales(rng: np.random.Generator, spec: Spec, acc: IntArray, span: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return bias, multiplier and shift that spread accumulators ``(B, O, ...)`` over ``span`` codes and clip a few."""
    channels = np.moveaxis(acc, 1, 0).reshape(acc.shape[1], -1).astype(np.float64)
    deviation = np.maximum(channels.std(axis=1), 1.0)
    centre = -channels.mean(axis=1) + rng.uniform(-0.5, 0.5, len(channels)) * deviation
    rate = span / (rng.uniform(2.5, 4.0, len(channels)) * deviation)
    if not spec.per_channel:
        rate = rate.mean(keepdims=True)
    if spec.power_of_two:
        shift = np.clip(np.round(-np.log2(rate)), 0, SHIFT_MAX).astype(np.int8)
        multiplier = np.ones_like(shift, dtype=np.int32)
    else:
        shift = np.clip(np.floor(MULTIPLIER_BITS - np.log2(rate)), 0, SHIFT_MAX).astype(np.int8)
        limit = (1 << (MULTIPLIER_BITS + 1)) - 1
        multiplier = np.clip(np.round(rate * 2.0**shift), 0, limit).astype(np.int32)
    return np.round(centre).astype(np.int32), multiplier, shift


def _weighted(
    rng: np.random.Generator, spec: Spec, blank: Layer, source: Tensor, codes: IntArray
) -> tuple[Layer, Tensor]:
    """Return the layer with drawn numbers and its output tensor."""
    if spec.kind is Kind.LINEAR:
        shape: tuple[int, ...] = (spec.out, source.size)
    else:
        shape = (spec.out, source.shape[0] // spec.groups, *spec.kernel)
    layer = replace(
        blank,
        weight=_draw_weight(rng, spec, shape),
        rounding=spec.rounding,
        weight_bits=spec.bits,
        grid=spec.grid,
        structure=_structure(spec),
        kernel=spec.kernel,
        groups=spec.groups,
    )
    target = Tensor(
        blank.output, output_shape(layer, source.shape), spec.out_bits, spec.out_signed, 1.0, spec.out_zero_point
    )
    clamp = (target.zero_point if spec.relu else target.lo, target.hi)
    bias, multiplier, shift = _draw_scales(rng, spec, reference.accumulate(layer, source, codes), clamp[1] - clamp[0])
    scale = source.scale * _weight_scale(layer) * float(np.mean(2.0**shift / np.maximum(multiplier, 1)))
    return replace(layer, bias=bias, multiplier=multiplier, shift=shift, clamp=clamp), replace(target, scale=scale)


def _weight_scale(layer: Layer) -> float:
    return 2.0 ** (1 - layer.weight_bits)


def build_model(
    rng: np.random.Generator,
    source: Tensor,
    specs: Sequence[Spec],
    *,
    name: str = "synthetic",
    samples: int = GOLDEN_SAMPLES,
) -> Model:
    """Return a network of ``specs`` on the input tensor ``source``, with golden samples of every tensor.

    Requantization is fitted to random inputs, so that every layer's outputs spread over their codes and a few clip.
    Layers are called ``conv1 pool1 fc1 ...``, tensors like the layer that writes them, the first and the last ``input``
    and ``output``.
    """
    source = replace(source, name="input")
    tensors, layers = {"input": source}, []
    golden = {"input": random_codes(rng, source, samples)}
    numbers: dict[str, int] = {}
    for index, spec in enumerate(specs):
        stem = LAYER_NAMES[spec.kind]
        numbers[stem] = numbers.get(stem, 0) + 1
        layer_name = f"{stem}{numbers[stem]}"
        output = "output" if index == len(specs) - 1 else layer_name
        blank = Layer(
            layer_name, spec.kind, source.name, output, stride=spec.stride, padding=spec.padding, dilation=spec.dilation
        )
        if spec.kind in (Kind.CONV2D, Kind.LINEAR):
            layer, target = _weighted(rng, spec, blank, source, golden[source.name])
        else:
            layer = replace(blank, kernel=spec.kernel, clamp=(source.lo, source.hi))
            target = replace(source, name=output, shape=output_shape(layer, source.shape))
        layers.append(layer)
        tensors[output] = source = target
        part = Model(name, (layer,), {layer.input: tensors[layer.input], output: target}, layer.input, output)
        golden[output] = reference.run(part, golden[layer.input])[output]
    model = Model(name, tuple(layers), tensors, "input", "output", golden)
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
        blank = Layer("", Kind.MAX_POOL2D, "", "", kernel=spec.kernel, stride=spec.stride, padding=spec.padding)
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


_IMAGE = Tensor("input", (2, 7, 6), scale=1 / 255)
_LAST = {"relu": False, "out_signed": True}

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
    "single_output": (_IMAGE, (conv(1, 3), linear(1, **_LAST))),
    "only_linear": (Tensor("input", (13,)), (linear(9), linear(4, **_LAST))),
    "one_pixel": (Tensor("input", (1, 1, 1)), (conv(1, 1), linear(1, **_LAST))),
    "depthwise": (_IMAGE, (conv(2, 3, padding=1, groups=2), conv(5, 1), linear(4, **_LAST))),
    **{
        f"weights_{grid.value}_{bits}": (
            Tensor("input", (2, 4, 4)),
            (conv(4, 3, padding=1, bits=bits, grid=grid), linear(4, bits=bits, grid=grid, **_LAST)),
        )
        for grid in Grid
        for bits in range(1 if grid is not Grid.SYMMETRIC else 2, 9)
    },
}


def tiny(name: str, *, seed: int = 0, samples: int = GOLDEN_SAMPLES) -> Model:
    """Return the tiny network ``name`` of :data:`TINY`, each of which exercises one feature."""
    source, specs = TINY[name]
    return build_model(np.random.default_rng(seed), source, specs, name=f"tiny-{name}", samples=samples)


def _header(model: Model) -> dict[str, Any]:
    """Return the artifact header of an unfused model, without its hash."""
    return {
        "format": "1.0",
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


def _layer_header(layer: Layer) -> dict[str, Any]:
    if layer.pool is not None:
        raise ValueError(f"Layer {layer.name!r} has a fused pooling, but an artifact holds poolings as layers")
    entry: dict[str, Any] = {
        "name": layer.name,
        "kind": layer.kind.value,
        "inputs": [layer.input],
        "output": layer.output,
    }
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
        "weight_scale": _weight_scale(layer),
        "rounding": layer.rounding.value,
        "clamp": list(layer.clamp),
    }


def artifact_parts(model: Model) -> tuple[dict[str, IntArray], dict[str, Any]]:
    """Return the tensors and the header (without hash) of the model's artifact, for :func:`write_parts`."""
    arrays: dict[str, IntArray] = {}
    for layer in model.layers:
        if layer.weight is None or layer.bias is None or layer.multiplier is None or layer.shift is None:
            continue
        arrays[f"{layer.name}.weight"] = layer.weight.astype(np.int16)
        arrays[f"{layer.name}.bias"] = layer.bias.astype(np.int32)
        arrays[f"{layer.name}.multiplier"] = layer.multiplier.astype(np.int32)
        arrays[f"{layer.name}.shift"] = layer.shift.astype(np.int8)
    for name, codes in model.golden.items():
        arrays[f"golden/{name}"] = codes.astype(reference.code_dtype(model.tensors[name]))
    return arrays, json.loads(json.dumps({**_header(model), **model.metadata}))


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
    """Write an unfused model as an artifact file of format 1.0 and return its path."""
    return write_parts(*artifact_parts(model), path)
