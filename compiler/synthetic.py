"""Synthetic networks: layers as they should be, random numbers that fit them, and golden samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler import reference
from zeroskip.compiler.argmax import index_tensor
from zeroskip.compiler.ir import Grid, Kind, Layer, Model, Rounding, Tensor
from zeroskip.compiler.shapes import output_shape

__all__ = [
    "GOLDEN_SAMPLES",
    "LAYER_NAMES",
    "TFLITE",
    "Padding",
    "Spec",
    "add",
    "argmax",
    "avg_pool",
    "build_model",
    "concat",
    "conv",
    "linear",
    "max_pool",
    "random_codes",
    "weight_scale",
]

IntArray = NDArray[Any]
Padding = tuple[int, int, int, int]

GOLDEN_SAMPLES = 16
MULTIPLIER_BITS = 16
SHIFT_MAX = 47
SMALLEST_RATE = 2.0**-60
"""Where only one code is left, the rate is 0 and has no logarithm."""
TFLITE_BITS = 31
TFLITE_SHIFT_MAX = 62
ADD_FRACTION_BITS = 8
LAYER_NAMES = {
    Kind.CONV2D: "conv",
    Kind.LINEAR: "fc",
    Kind.MAX_POOL2D: "pool",
    Kind.AVG_POOL2D: "pool",
    Kind.ADD: "add",
    Kind.CONCAT: "concat",
    Kind.ARGMAX: "argmax",
}
TFLITE = (Rounding.TFLITE_DOUBLE, Rounding.TFLITE_SINGLE)


@dataclass(frozen=True)
class Spec:
    """What one layer of a synthetic network should be; :func:`build_model` draws the numbers.

    ``keep`` is the fraction of weights (structure ``nonstructured``) or of column groups (``column``) that stay,
    ``group`` the adjacent columns that live or die together, ``empty_rows`` the output channels without any weight.
    ``detail`` holds what other structures have to say beside their kind; ``ends`` keeps the first and the last position
    of every row only, the widest gap there is. ``inputs`` names the layers that are read (``input`` is the network's),
    by default the one before. ``varied_scales`` draws multipliers and shifts of every size, some out of proportion.
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
    inputs: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)
    left_shift: int = 0
    out_scale: float | None = None
    varied_scales: bool = False


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


def add(*inputs: str, **options: Any) -> Spec:
    """Return an addition of two layers; ``options`` are the other fields of :class:`Spec`."""
    return Spec(Kind.ADD, inputs=inputs, **options)


def concat(*inputs: str) -> Spec:
    """Return a concatenation of layers, which must have one ``out_scale``."""
    return Spec(Kind.CONCAT, inputs=inputs)


def argmax() -> Spec:
    """Return the number of the largest value, at the end of a network."""
    return Spec(Kind.ARGMAX)


def random_codes(rng: np.random.Generator, tensor: Tensor, samples: int) -> IntArray:
    """Return random samples of ``tensor``; the first holds only the smallest code, the second the largest."""
    codes = rng.integers(tensor.lo, tensor.hi + 1, (samples, *tensor.shape)).astype(reference.code_dtype(tensor))
    codes[0] = tensor.lo
    if samples > 1:
        codes[1] = tensor.hi
    return codes


def _legal_levels(grid: Grid, bits: int, with_zero: bool) -> IntArray:
    if grid in (Grid.BINARY, Grid.TERNARY):
        with_zero = with_zero and grid is Grid.TERNARY
        return np.array([-1, 0, 1] if with_zero else [-1, 1])
    top = 1 << (bits - 1)
    limits = {Grid.SIGNED: (-top, top - 1), Grid.SYMMETRIC: (1 - top, top - 1), Grid.ZERO_EXCLUDED: (-top, top)}
    lo, hi = limits[grid]
    if grid is Grid.SYMMETRIC and bits == 1:
        raise ValueError("Grid symmetric must have at least 2 bits, not 1")
    levels = np.arange(lo, hi + 1)
    return levels if with_zero and grid is not Grid.ZERO_EXCLUDED else levels[levels != 0]


def _draw_codebook(rng: np.random.Generator, spec: Spec) -> IntArray | None:
    """Return 0 and other levels, as many as the layer's bits count; None on another grid."""
    if spec.grid is not Grid.CODEBOOK:
        return None
    levels = np.concatenate([np.arange(-256, 0), np.arange(1, 256)])
    return np.concatenate([[0], rng.permutation(levels)[: (1 << spec.bits) - 1]]).astype(np.int16)


def _kept(rng: np.random.Generator, groups: int, keep: float) -> IntArray:
    """Return which of ``groups`` stay: ``max(1, floor(keep * groups + 0.5))`` of them."""
    mask = np.zeros(groups, bool)
    mask[rng.permutation(groups)[: max(1, int(np.floor(keep * groups + 0.5)))]] = True
    return mask


def _draw_weight(
    rng: np.random.Generator, spec: Spec, shape: tuple[int, ...], codebook: IntArray | None = None
) -> IntArray:
    rows, columns = shape[0], int(np.prod(shape[1:]))
    dense = spec.structure == "dense"
    if codebook is None:
        levels = _legal_levels(spec.grid, spec.bits, dense)
    else:
        levels = codebook if dense else codebook[codebook != 0]
    weight: IntArray = rng.choice(levels, (rows, columns))
    if spec.structure == "nonstructured":
        weight = weight * _kept(rng, rows * columns, spec.keep).reshape(rows, columns)
    elif spec.structure == "column":
        groups = -(-columns // spec.group)
        weight = weight * np.repeat(_kept(rng, groups, spec.keep), spec.group)[:columns]
    elif spec.structure == "ends":
        weight[:, 1:-1] = 0
    elif spec.structure == "micro_block":
        size = spec.detail["size"]
        first = np.abs(np.repeat(weight[:, ::size], size, axis=1)[:, :columns])
        alive = _alive_groups(rng, spec, (rows, -(-columns // size)))
        weight = np.sign(weight) * first * np.repeat(alive, size, axis=1)[:, :columns]
    elif not dense:
        weight = weight * _structured(rng, spec, (*shape, 1, 1)[:4]).reshape(rows, columns)
    weight[list(spec.empty_rows)] = 0
    return weight.astype(np.int16).reshape(shape)


def _alive_groups(rng: np.random.Generator, spec: Spec, shape: tuple[int, ...]) -> IntArray:
    """Return which groups of an array of groups stay."""
    return _kept(rng, int(np.prod(shape)), spec.keep).reshape(shape)


def _structured(rng: np.random.Generator, spec: Spec, shape: tuple[int, ...]) -> IntArray:
    """Return the weights that a structure keeps, ``OIHW`` or a matrix ``[O, I*kh*kw]``."""
    rows, channels, height, width = shape
    positions, columns = height * width, channels * height * width
    detail = spec.detail
    if spec.structure == "filter":
        return np.broadcast_to(_alive_groups(rng, spec, (rows, 1)), (rows, columns))
    if spec.structure == "channel":
        return np.broadcast_to(_alive_groups(rng, spec, (1, channels, 1)), (rows, channels, positions))
    if spec.structure == "kernel":
        return np.broadcast_to(_alive_groups(rng, spec, (rows, channels, 1)), (rows, channels, positions))
    if spec.structure == "vector":
        size, axis = detail["size"], 1 if detail["axis"] == "input" else 0
        groups = [rows, channels, positions]
        groups[axis] = -(-groups[axis] // size)
        return np.repeat(_alive_groups(rng, spec, tuple(groups)), size, axis=axis)[:rows, :channels]
    if spec.structure == "block":
        groups = [-(-rows // detail["rows"]), -(-columns // detail["columns"])]
        alive = np.repeat(_alive_groups(rng, spec, tuple(groups)), detail["rows"], axis=0)
        return np.repeat(alive, detail["columns"], axis=1)[:rows, :columns]
    if spec.structure == "nm":
        n, m = detail["n"], detail["m"]
        order = rng.random((rows, -(-columns // m), m)).argsort(axis=2)
        kept: IntArray = (order < n).reshape(rows, -1)[:, :columns]
        return kept
    if spec.structure == "bank_balanced":
        size = columns // detail["banks"]
        order = rng.random((rows, detail["banks"], size)).argsort(axis=2)
        return order < max(1, int(np.floor(spec.keep * size + 0.5)))
    if spec.structure == "pattern":
        masks = np.zeros((len(detail["patterns"]), positions), bool)
        for mask, pattern in zip(masks, detail["patterns"], strict=True):
            mask[pattern] = True
        chosen = masks[rng.integers(0, len(masks), (rows, channels))]
        return chosen & _alive_groups(rng, spec, (rows, channels, 1))
    raise ValueError(f"Structure must be one that artifacts know, not {spec.structure!r}")


def _structure(spec: Spec) -> dict[str, Any]:
    if spec.structure == "dense":
        return {"kind": "dense"}
    if spec.structure == "ends":
        return {"kind": "nonstructured", "keep": spec.keep}
    if spec.structure == "column":
        return {"kind": "column", "keep": spec.keep, "group": spec.group}
    keep = {} if spec.structure == "nm" else {"keep": spec.keep}
    return {"kind": spec.structure, **keep, **spec.detail}


def _draw_scales(rng: np.random.Generator, spec: Spec, acc: IntArray, span: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return bias, multiplier and shift that spread accumulators ``(B, O, ...)`` over ``span`` codes and clip a few."""
    channels = np.moveaxis(acc, 1, 0).reshape(acc.shape[1], -1).astype(np.float64)
    deviation = np.maximum(channels.std(axis=1), 1.0)
    centre = -channels.mean(axis=1) + rng.uniform(-0.5, 0.5, len(channels)) * deviation
    rate = span / (rng.uniform(2.5, 4.0, len(channels)) * deviation)
    if not spec.per_channel:
        rate = rate.mean(keepdims=True)
    rate = np.maximum(rate, SMALLEST_RATE)
    if spec.power_of_two:
        shift = np.clip(np.round(-np.log2(rate)), 0, SHIFT_MAX).astype(np.int8)
        multiplier = np.ones_like(shift, dtype=np.int32)
    else:
        multiplier, shift = _nearest_scales(rate, spec.rounding)
    bias = np.round(centre).astype(np.int32)
    if spec.varied_scales and spec.rounding in TFLITE:
        return bias, *_vary_tflite_scales(rng, multiplier, shift)
    if spec.varied_scales:
        return _vary_scales(rng, bias, multiplier, shift, spec.power_of_two)
    return bias, multiplier, shift


def _vary_scales(
    rng: np.random.Generator, bias: IntArray, multiplier: IntArray, shift: IntArray, power_of_two: bool
) -> tuple[IntArray, IntArray, IntArray]:
    """Return other scales: most near the given ones with any number of bits, one in ten and its bias at random."""
    odd = rng.random(len(shift)) < 0.1
    near: IntArray = shift + rng.integers(-1, 2, len(shift))
    if not power_of_two:
        drawn = rng.integers(0, 1 << rng.integers(1, MULTIPLIER_BITS + 2, len(shift)))
        wanted = np.log2(np.maximum(drawn, 1) / np.maximum(multiplier, 1) * 2.0**shift)
        near, multiplier = np.round(wanted), drawn.astype(np.int32)
    shift = np.clip(np.where(odd, rng.integers(0, SHIFT_MAX + 1, len(shift)), near), 0, SHIFT_MAX).astype(np.int8)
    limit = np.int64(1) << rng.integers(1, 32, len(bias))
    strange = rng.integers(-limit, limit)
    bias = np.where(rng.random(len(bias)) < 0.1, strange, bias).astype(np.int32)
    return bias, multiplier, shift


def _vary_tflite_scales(rng: np.random.Generator, multiplier: IntArray, shift: IntArray) -> tuple[IntArray, IntArray]:
    """Return most scales with fewer bits of multiplier and shift, around the 31 that the first rounding takes.

    One in ten is at random.
    """
    fewer = np.minimum(rng.integers(0, 12, len(shift)), shift)
    odd = rng.random(len(shift)) < 0.1
    drawn = rng.integers(0, 1 << rng.integers(1, TFLITE_BITS + 1, len(shift)))
    multiplier = np.where(odd, drawn, multiplier >> fewer).astype(np.int32)
    shift = np.where(odd, rng.integers(0, TFLITE_SHIFT_MAX + 1, len(shift)), shift - fewer).astype(np.int8)
    return multiplier, shift


def _nearest_scales(rate: IntArray, rounding: Rounding) -> tuple[IntArray, IntArray]:
    """Return multiplier and shift nearest to each rate, of 31 bits for TensorFlow Lite's roundings, else of 17."""
    bits, most = (TFLITE_BITS - 1, TFLITE_SHIFT_MAX) if rounding in TFLITE else (MULTIPLIER_BITS, SHIFT_MAX)
    shift = np.clip(np.floor(bits - np.log2(rate)), 0, most).astype(np.int8)
    multiplier = np.clip(np.round(rate * 2.0**shift), 0, (1 << (bits + 1)) - 1).astype(np.int32)
    return multiplier, shift


def _draw_thresholds(rng: np.random.Generator, acc: IntArray, count: int) -> IntArray:
    """Return ``count`` ascending thresholds a channel, spread over accumulators ``(B, O, ...)``, some of them equal."""
    channels = np.moveaxis(acc, 1, 0).reshape(acc.shape[1], -1).astype(np.float64)
    deviation = np.maximum(channels.std(axis=1, keepdims=True), 1.0)
    steps = np.sort(rng.uniform(-2.0, 2.0, (len(channels), count)), axis=1)
    steps[:, : count // 4] = steps[:, :1]
    thresholds: IntArray = np.round(channels.mean(axis=1, keepdims=True) + steps * deviation).astype(np.int32)
    return thresholds


def _weighted(
    rng: np.random.Generator, spec: Spec, blank: Layer, source: Tensor, codes: IntArray
) -> tuple[Layer, Tensor]:
    """Return the layer with drawn numbers and its output tensor."""
    if spec.kind is Kind.LINEAR:
        shape: tuple[int, ...] = (spec.out, source.size)
    else:
        shape = (spec.out, source.shape[0] // spec.groups, *spec.kernel)
    codebook = _draw_codebook(rng, spec)
    layer = replace(
        blank,
        weight=_draw_weight(rng, spec, shape, codebook),
        codebook=codebook,
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
    acc = reference.accumulate(layer, source, codes)
    if spec.rounding is Rounding.THRESHOLDS:
        bias, thresholds = np.zeros(spec.out, np.int32), _draw_thresholds(rng, acc, target.hi - target.lo)
        layer = replace(layer, bias=bias, thresholds=thresholds, clamp=(target.lo, target.hi))
        return layer, replace(target, scale=spec.out_scale or source.scale)
    bias, multiplier, shift = _draw_scales(rng, spec, acc, clamp[1] - clamp[0])
    scale = source.scale * weight_scale(layer) * float(np.mean(2.0**shift / np.maximum(multiplier, 1)))
    layer = replace(layer, bias=bias, multiplier=multiplier, shift=shift, clamp=clamp)
    return layer, replace(target, scale=spec.out_scale or scale)


def _added(
    rng: np.random.Generator, spec: Spec, blank: Layer, sources: Sequence[Tensor], codes: Sequence[IntArray]
) -> tuple[Layer, Tensor]:
    """Return an addition whose output spreads over its codes, and its output tensor.

    Without a left shift the inputs go to the output's scale with some bits of fraction, which a plain shift removes;
    with one they go to twice the larger input scale, as in TensorFlow Lite.
    """
    real = sum(t.scale * (c.astype(np.float64) - t.zero_point) for t, c in zip(sources, codes, strict=True))
    target = Tensor(blank.output, sources[0].shape, spec.out_bits, spec.out_signed, 1.0, spec.out_zero_point)
    clamp = (target.zero_point if spec.relu else target.lo, target.hi)
    scale = float(rng.uniform(2.5, 4.0) * np.std(real) / max(clamp[1] - clamp[0], 1)) or 1.0
    if spec.left_shift or spec.rounding in TFLITE:
        middle = 2 * max(source.scale for source in sources)
        rates = [*(source.scale / middle for source in sources), middle / scale / 2.0**spec.left_shift]
    else:
        fraction = 2.0**ADD_FRACTION_BITS
        rates = [*(source.scale / scale * fraction for source in sources), 1 / fraction]
    multiplier, shift = _nearest_scales(np.array(rates), spec.rounding)
    if spec.power_of_two:
        shift = np.clip(np.round(-np.log2(rates)), 0, SHIFT_MAX).astype(np.int8)
        multiplier = np.ones_like(shift, dtype=np.int32)
    layer = replace(
        blank, multiplier=multiplier, shift=shift, clamp=clamp, rounding=spec.rounding, left_shift=spec.left_shift
    )
    return layer, replace(target, scale=spec.out_scale or scale)


def weight_scale(layer: Layer) -> float:
    """Return the real value of a weight level of 1."""
    return 2.0 ** (1 - layer.weight_bits) if layer.grid is not Grid.CODEBOOK else 2.0**-8


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
    outputs = {"input": "input"}
    numbers: dict[str, int] = {}
    last = "input"
    for index, spec in enumerate(specs):
        stem = LAYER_NAMES[spec.kind]
        numbers[stem] = numbers.get(stem, 0) + 1
        layer_name = f"{stem}{numbers[stem]}"
        output = "output" if index == len(specs) - 1 else layer_name
        names = tuple(outputs[name] for name in spec.inputs or (last,))
        blank = Layer(
            layer_name, spec.kind, names, output, stride=spec.stride, padding=spec.padding, dilation=spec.dilation
        )
        layer, target = _drawn(rng, spec, blank, [tensors[name] for name in names], [golden[name] for name in names])
        layers.append(layer)
        tensors[output] = target
        part = Model(name, tuple(layers), tensors, "input", output)
        golden[output] = reference.run_layer(part, layer, [golden[name] for name in names])
        last = layer_name
        outputs[layer_name] = output
    return Model(name, tuple(layers), tensors, "input", "output", golden)


def _drawn(
    rng: np.random.Generator, spec: Spec, blank: Layer, sources: Sequence[Tensor], codes: Sequence[IntArray]
) -> tuple[Layer, Tensor]:
    """Return the layer with its numbers and its output tensor."""
    if spec.kind in (Kind.CONV2D, Kind.LINEAR):
        return _weighted(rng, spec, blank, sources[0], codes[0])
    if spec.kind is Kind.ADD:
        return _added(rng, spec, blank, sources, codes)
    source = sources[0]
    if spec.kind is Kind.ARGMAX:
        return blank, index_tensor(blank.output, source.size)
    layer = blank
    if spec.kind is not Kind.CONCAT:
        layer = replace(blank, kernel=spec.kernel, clamp=(source.lo, source.hi))
    shape = output_shape(layer, *(tensor.shape for tensor in sources))
    return layer, replace(source, name=blank.output, shape=shape)
