"""The bit-exact integer interpreter of a Model: what every other link of the chain must equal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zeroskip.compiler.argmax import index_words
from zeroskip.compiler.errors import CompileError, InputError
from zeroskip.compiler.ir import Kind, Layer, Model, Pool, Rounding, Tensor
from zeroskip.compiler.shapes import unpooled_shape, window_positions

__all__ = [
    "TFLITE_SHIFT",
    "AccumulatorRange",
    "accumulate",
    "accumulator_range",
    "accuracy",
    "add_range",
    "check_inputs",
    "code_dtype",
    "code_range",
    "layer_codes",
    "predictions",
    "requantize",
    "rescale",
    "row_ranges",
    "run",
    "run_layer",
    "threshold_codes",
]

IntArray = NDArray[Any]

TFLITE_SHIFT = 31
"""Bits that TensorFlow Lite's first rounding takes; its second takes the rest of the shift."""

# Integers below these magnitudes are exact in a float's significand, and so is every sum and product that stays below.
_FLOAT32_EXACT = 1 << 24
_FLOAT64_EXACT = 1 << 53
_INT64_EXACT = 1 << 63
# Elements of one batch's unfolded input; keeps the matrix product in tens of megabytes whatever the network.
_UNFOLDED_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class AccumulatorRange:
    """The proven range of a layer's accumulator, each a pair ``(lo, hi)`` over all output channels.

    Attributes
    ----------
    partial : every partial sum of products, whatever the order of the taps; holds 0, without bias
    total : the complete sum of products, without bias
    biased : the complete sum plus the channel's bias
    """

    partial: tuple[int, int]
    total: tuple[int, int]
    biased: tuple[int, int]

    @property
    def partial_width(self) -> int:
        """Bits of a two's complement register that holds every partial sum."""
        return _signed_width(self.partial)

    @property
    def biased_width(self) -> int:
        """Bits of a two's complement register that holds the biased sum."""
        return _signed_width(self.biased)


def _signed_width(limits: tuple[int, int]) -> int:
    lo, hi = limits
    return max(hi.bit_length(), (~lo).bit_length() if lo < 0 else 0) + 1


def code_dtype(tensor: Tensor) -> np.dtype[Any]:
    """Return the smallest integer dtype that holds the tensor's codes."""
    return np.min_scalar_type(tensor.lo if tensor.signed else tensor.hi)


def code_range(model: Model, name: str) -> tuple[int, int]:
    """Return the smallest and largest code tensor ``name`` can take: its own range, cut by the clamp of its producer.

    A max pooling and a concatenation pass codes through, so the ranges of their inputs hold for their output.
    """
    tensor = model.tensors[name]
    layer = model.producer(name)
    if layer is None:
        return tensor.lo, tensor.hi
    if layer.kind in (Kind.MAX_POOL2D, Kind.CONCAT):
        ranges = [code_range(model, source) for source in layer.inputs]
        lo, hi = min(limits[0] for limits in ranges), max(limits[1] for limits in ranges)
    else:
        lo, hi = layer.clamp
    return max(tensor.lo, lo), min(tensor.hi, hi)


def accumulator_range(layer: Layer, tensor: Tensor, codes: tuple[int, int] | None = None) -> AccumulatorRange:
    """Prove the accumulator range of a convolution or linear layer from its weights and its input codes.

    Every tap is taken at its worst code independently, so the range holds for every input, at every position, with any
    part of the window on padding.

    Parameters
    ----------
    layer : Layer
    tensor : Tensor, the layer's input; its zero point is the padding code
    codes : smallest and largest input code; default: the tensor's own range (:func:`code_range` may be narrower)

    Raises
    ------
    CompileError
        If the layer has no weights.
    """
    if layer.bias is None:
        raise CompileError(f"Layer {layer.name!r} has no accumulator: its kind is {layer.kind.value}")
    least, most = _tap_limits(layer, tensor, codes)
    total_lo, total_hi = least.sum(axis=1), most.sum(axis=1)
    bias = layer.bias.astype(np.int64)
    return AccumulatorRange(
        partial=(int(np.minimum(least, 0).sum(axis=1).min()), int(np.maximum(most, 0).sum(axis=1).max())),
        total=(int(total_lo.min()), int(total_hi.max())),
        biased=(int((total_lo + bias).min()), int((total_hi + bias).max())),
    )


def row_ranges(layer: Layer, tensor: Tensor, codes: tuple[int, int] | None = None) -> tuple[IntArray, IntArray]:
    """Return the smallest and largest sum of products of each output channel, without bias, int64 ``[O]``.

    Arguments as for :func:`accumulator_range`.
    """
    least, most = _tap_limits(layer, tensor, codes)
    return least.sum(axis=1), most.sum(axis=1)


def _tap_limits(layer: Layer, tensor: Tensor, codes: tuple[int, int] | None) -> tuple[IntArray, IntArray]:
    """Return the smallest and largest product of each weight, ``[O, taps]``."""
    lo, hi = (tensor.lo, tensor.hi) if codes is None else codes
    if any(layer.padding):
        lo, hi = min(lo, tensor.zero_point), max(hi, tensor.zero_point)
    rows = _rows(layer).astype(np.int64)
    return np.minimum(rows * lo, rows * hi), np.maximum(rows * lo, rows * hi)


def rescale(value: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, rounding: Rounding) -> NDArray[np.int64]:
    """Return ``value * multiplier / 2**shift`` as an integer, rounded as ``rounding`` says.

    With ``v = value * multiplier`` and ``S = shift``; S = 0 is exact in every rounding:

    * FLOOR: ``v >> S``
    * HALF_UP and TFLITE_SINGLE: ``(v + 2**(S-1)) >> S``
    * HALF_AWAY: the nearest integer, halves away from zero
    * HALF_EVEN: the nearest integer, halves to the even one
    * TFLITE_DOUBLE: HALF_UP by ``min(S, 31)`` bits, the rest HALF_AWAY (``SaturatingRoundingDoublingHighMul``, then
      ``RoundingDivideByPOT``; S is 31 minus TensorFlow Lite's exponent)

    Parameters
    ----------
    value, multiplier, shift : integers that broadcast against each other, ``abs(value * multiplier) < 2**62``, S < 63
    rounding : Rounding, not THRESHOLDS
    """
    shifts = np.asarray(shift, dtype=np.int64)
    product = np.asarray(value, dtype=np.int64) * np.asarray(multiplier, dtype=np.int64)
    if rounding is Rounding.FLOOR:
        return product >> shifts
    if rounding in (Rounding.HALF_UP, Rounding.TFLITE_SINGLE):
        return (product + _half(shifts)) >> shifts
    if rounding is Rounding.HALF_AWAY:
        return _shift_half_away(product, shifts)
    if rounding is Rounding.HALF_EVEN:
        quotient = product >> shifts
        # Twice the remainder could need 64 bits; the distance from the half does not.
        above = product - (quotient << shifts) - _half(shifts)
        up = (above > 0) | ((above == 0) & ((quotient & 1) == 1))
        rounded: NDArray[np.int64] = quotient + ((shifts > 0) & up)
        return rounded
    if rounding is Rounding.TFLITE_DOUBLE:
        first = np.minimum(shifts, TFLITE_SHIFT)
        return _shift_half_away((product + _half(first)) >> first, shifts - first)
    raise ValueError(f"Rounding must be a shift, not {rounding.value!r}")


def _half(shifts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return half of ``2**shifts``, 0 for a shift of 0."""
    return (np.int64(1) << shifts) >> 1


def _shift_half_away(value: NDArray[np.int64], shifts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``value / 2**shifts`` rounded to the nearest integer, halves away from zero."""
    # For negatives floor((v + half - 1) / 2**S) rounds an exact half down, away from zero; S = 0 has no half.
    rounded: NDArray[np.int64] = (value + np.where(shifts > 0, _half(shifts) - (value < 0), 0)) >> shifts
    return rounded


def requantize(
    acc: ArrayLike,
    bias: ArrayLike,
    multiplier: ArrayLike,
    shift: ArrayLike,
    rounding: Rounding,
    zero_point: int,
    clamp: tuple[int, int],
) -> NDArray[np.int64]:
    """Scale accumulators to codes: ``clamp(rescale(acc + bias, multiplier, shift) + zero_point, *clamp)``.

    Parameters
    ----------
    acc, bias, multiplier, shift : integers that broadcast against each other, see :func:`rescale`
    rounding : Rounding, not THRESHOLDS
    zero_point : int, of the output tensor
    clamp : smallest and largest result

    Returns
    -------
    ndarray[int64]
    """
    value = np.asarray(acc, dtype=np.int64) + np.asarray(bias, dtype=np.int64)
    result: NDArray[np.int64] = np.clip(rescale(value, multiplier, shift, rounding) + zero_point, *clamp)
    return result


def threshold_codes(acc: IntArray, thresholds: IntArray, lo: int) -> NDArray[np.int64]:
    """Return ``lo`` plus the number of thresholds of its channel that each accumulator reaches.

    Parameters
    ----------
    acc : ndarray[int], shape (O, ...), channels first
    thresholds : ndarray[int32], shape (O, T), each row ascending
    lo : int, the smallest code of the output tensor
    """
    flat = acc.reshape(len(acc), -1)
    counts = [np.searchsorted(row, values, side="right") for row, values in zip(thresholds, flat, strict=True)]
    result: NDArray[np.int64] = np.stack(counts).astype(np.int64).reshape(acc.shape) + lo
    return result


def layer_codes(layer: Layer, target: Tensor, acc: IntArray) -> NDArray[np.int64]:
    """Return the codes of a convolution's or linear layer's accumulators (without bias), by whatever rule it has.

    Parameters
    ----------
    layer : Layer
    target : Tensor, the layer's output
    acc : ndarray[int], shape (O, ...), channels first
    """
    if layer.bias is None:
        raise CompileError(f"Layer {layer.name!r} has no accumulator: its kind is {layer.kind.value}")
    channel = (-1,) + (1,) * (acc.ndim - 1)
    sums = acc.astype(np.int64) + layer.bias.reshape(channel)
    if layer.rounding is Rounding.THRESHOLDS and layer.thresholds is not None:
        return threshold_codes(sums, layer.thresholds, target.lo)
    if layer.multiplier is None or layer.shift is None:
        raise CompileError(f"Layer {layer.name!r} has no multiplier and shift, and no thresholds")
    multiplier, shift = layer.multiplier.reshape(channel), layer.shift.reshape(channel)
    return requantize(sums, 0, multiplier, shift, layer.rounding, target.zero_point, layer.clamp)


def _add(layer: Layer, sources: Sequence[Tensor], target: Tensor, inputs: Sequence[IntArray]) -> NDArray[np.int64]:
    """Return the codes of the rescaled sum of two inputs."""
    if layer.multiplier is None or layer.shift is None:
        raise CompileError(f"Layer {layer.name!r} has no multiplier and shift")
    total = sum(
        rescale((codes.astype(np.int64) - source.zero_point) << layer.left_shift, multiplier, shift, layer.rounding)
        for codes, source, multiplier, shift in zip(inputs, sources, layer.multiplier[:2], layer.shift[:2], strict=True)
    )
    scale, zero_point = (layer.multiplier[2], layer.shift[2]), target.zero_point
    return requantize(np.asarray(total), 0, *scale, layer.rounding, zero_point, layer.clamp)


def add_range(layer: Layer, sources: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """Return the proven range ``(lo, hi)`` of each rescaled input of an addition, and behind them that of their sum."""
    if layer.multiplier is None or layer.shift is None:
        raise CompileError(f"Layer {layer.name!r} has no multiplier and shift")
    ranges = []
    for source, multiplier, shift in zip(sources, layer.multiplier, layer.shift, strict=False):
        # A rescale never decreases because multipliers are not negative.
        codes = np.array([source.lo - source.zero_point, source.hi - source.zero_point], np.int64) << layer.left_shift
        lo, hi = rescale(codes, multiplier, shift, layer.rounding).tolist()
        ranges.append((lo, hi))
    return (*ranges, (sum(lo for lo, _ in ranges), sum(hi for _, hi in ranges)))


def check_inputs(tensor: Tensor, inputs: IntArray) -> None:
    """Refuse input codes whose dtype, shape or range does not fit ``tensor``.

    Raises
    ------
    InputError
        Naming the tensor, what it needs and what it got.
    """
    what = f"Input {tensor.name!r}"
    if not isinstance(inputs, np.ndarray) or not np.issubdtype(inputs.dtype, np.integer):
        kind = inputs.dtype if isinstance(inputs, np.ndarray) else type(inputs).__name__
        raise InputError(
            f"{what} must be an integer array of codes, not {kind}; quantize floats with the tensor's scale first"
        )
    wanted = ", ".join(str(size) for size in tensor.shape)
    if inputs.ndim != len(tensor.shape) + 1 or inputs.shape[1:] != tensor.shape:
        raise InputError(f"{what} must have shape (samples, {wanted}), not {inputs.shape}")
    if not len(inputs):
        raise InputError(f"{what} must hold at least one sample, not 0")
    lo, hi = int(inputs.min()), int(inputs.max())
    if lo < tensor.lo or hi > tensor.hi:
        raise InputError(f"{what} must hold codes {tensor.lo} to {tensor.hi}, not {lo if lo < tensor.lo else hi}")


def _rows(layer: Layer) -> IntArray:
    """Return the weights as a matrix, one row an output channel."""
    if layer.weight is None:
        raise CompileError(f"Layer {layer.name!r} has no accumulator: its kind is {layer.kind.value}")
    return layer.weight.reshape(layer.weight.shape[0], -1)


def _exact_dtype(layer: Layer, largest: int) -> np.dtype[Any]:
    """Return the fastest dtype in which every partial sum of products with codes up to ``largest`` is exact."""
    bound = int(np.abs(_rows(layer).astype(np.int64)).sum(axis=1).max()) * largest
    for dtype, exact in ((np.float32, _FLOAT32_EXACT), (np.float64, _FLOAT64_EXACT), (np.int64, _INT64_EXACT)):
        if bound < exact:
            return np.dtype(dtype)
    raise CompileError(
        f"Layer {layer.name!r} needs accumulators of {bound.bit_length() + 1} bits, but the reference holds 64"
    )


def _accumulate(layer: Layer, tensor: Tensor, inputs: IntArray) -> IntArray:
    """Return the exact sums of products, channels first, ``(O, B, ...)``, in the dtype of :func:`_exact_dtype`."""
    largest = max(abs(tensor.lo), abs(tensor.hi), abs(tensor.zero_point))
    dtype = _exact_dtype(layer, largest)
    weight = _rows(layer)
    if layer.kind is Kind.LINEAR:
        used = np.flatnonzero(weight.any(axis=0))
        flat = inputs.reshape(len(inputs), -1)
        if len(used) < weight.shape[1]:
            weight, flat = weight[:, used], flat[:, used]
        linear: IntArray = weight.astype(dtype) @ flat.astype(dtype).T
        return linear
    _, height, width = unpooled_shape(layer, tensor.shape)
    padded = _pad(inputs.astype(dtype), layer.padding, tensor.zero_point).transpose(1, 0, 2, 3)
    per_group, channels = len(weight) // layer.groups, padded.shape[0] // layer.groups
    result: IntArray = np.empty((len(weight), len(inputs), height, width), dtype)
    for group in range(layer.groups):
        rows = slice(group * per_group, (group + 1) * per_group)
        block = weight[rows]
        taps = np.flatnonzero(block.any(axis=0))
        source = padded[group * channels : (group + 1) * channels]
        unfolded = _unfold(layer, source, taps, height, width)
        product = block[:, taps].astype(dtype) @ unfolded.reshape(len(taps), len(inputs) * height * width)
        result[rows] = product.reshape(per_group, len(inputs), height, width)
    return result


def _pad(images: IntArray, padding: tuple[int, int, int, int], code: int) -> IntArray:
    """Return ``(B, C, H, W)`` images with a border of ``code``."""
    top, left, bottom, right = padding
    if not any(padding):
        return images
    return np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=code)


def _unfold(layer: Layer, source: IntArray, taps: IntArray, height: int, width: int) -> IntArray:
    """Return the inputs of each tap: ``source`` (C, B, H, W) to ``(taps, B, height, width)``."""
    kernel_y, kernel_x = layer.kernel
    unfolded: IntArray = np.empty((len(taps), source.shape[1], height, width), source.dtype)
    for row, tap in enumerate(taps):
        channel, position = divmod(int(tap), kernel_y * kernel_x)
        offset_y, offset_x = divmod(position, kernel_x)
        unfolded[row] = _positions(
            source[channel],
            (offset_y * layer.dilation[0], offset_x * layer.dilation[1]),
            layer.stride,
            (height, width),
        )
    return unfolded


def _positions(images: IntArray, offset: tuple[int, int], stride: tuple[int, int], count: tuple[int, int]) -> IntArray:
    """Return every ``stride``-th element of the last two axes from ``offset`` on, ``count`` of them."""
    rows = slice(offset[0], offset[0] + stride[0] * (count[0] - 1) + 1, stride[0])
    columns = slice(offset[1], offset[1] + stride[1] * (count[1] - 1) + 1, stride[1])
    return images[..., rows, columns]


def _max_pool(images: IntArray, pool: Pool) -> IntArray:
    """Return the maximum of each window over the last two axes."""
    height = window_positions(images.shape[-2], 0, 0, pool.kernel[0], pool.stride[0])
    width = window_positions(images.shape[-1], 0, 0, pool.kernel[1], pool.stride[1])
    result: IntArray | None = None
    for offset_y in range(pool.kernel[0]):
        for offset_x in range(pool.kernel[1]):
            part = _positions(images, (offset_y, offset_x), pool.stride, (height, width))
            result = part.copy() if result is None else np.maximum(result, part, out=result)
    if result is None:
        raise CompileError(f"Pooling kernel must be at least (1, 1), not {pool.kernel}")
    return result


def _average_pool(layer: Layer, inputs: IntArray) -> IntArray:
    """Return the average of each window, half away from zero, clamped."""
    height = window_positions(inputs.shape[-2], 0, 0, layer.kernel[0], layer.stride[0])
    width = window_positions(inputs.shape[-1], 0, 0, layer.kernel[1], layer.stride[1])
    total: IntArray = np.zeros((*inputs.shape[:-2], height, width), np.int64)
    for offset_y in range(layer.kernel[0]):
        for offset_x in range(layer.kernel[1]):
            total += _positions(inputs, (offset_y, offset_x), layer.stride, (height, width))
    count = layer.kernel[0] * layer.kernel[1]
    average = np.sign(total) * ((2 * np.abs(total) + count) // (2 * count))
    clamped: IntArray = np.clip(average, layer.clamp[0], layer.clamp[1])
    return clamped


def accumulate(layer: Layer, tensor: Tensor, inputs: IntArray) -> NDArray[np.int64]:
    """Return a convolution's or linear layer's accumulators before pooling, without bias.

    Parameters
    ----------
    layer : Layer
    tensor : Tensor, the layer's input
    inputs : ndarray[int], shape (B, *tensor.shape)

    Returns
    -------
    ndarray[int64], shape (B, O, H, W) or (B, O)
    """
    return np.ascontiguousarray(np.moveaxis(_accumulate(layer, tensor, inputs), 0, 1), dtype=np.int64)


def run_layer(model: Model, layer: Layer, inputs: Sequence[IntArray]) -> IntArray:
    """Return the codes of the layer's output tensor, ``(B, *shape)``, for those of its inputs, in their order."""
    sources, target = [model.tensors[name] for name in layer.inputs], model.tensors[layer.output]
    dtype = code_dtype(target)
    if layer.kind is Kind.ADD:
        return _add(layer, sources, target, inputs).astype(dtype)
    if layer.kind is Kind.CONCAT:
        return np.concatenate(inputs, axis=1).astype(dtype)
    if layer.kind is Kind.MAX_POOL2D:
        padded = _pad(inputs[0], layer.padding, sources[0].lo)
        return _max_pool(padded, Pool(layer.kernel, layer.stride)).astype(dtype)
    if layer.kind is Kind.AVG_POOL2D:
        return _average_pool(layer, inputs[0]).astype(dtype)
    if layer.kind is Kind.ARGMAX:
        return index_words(predictions(inputs[0]), target.size).astype(dtype)
    acc = _accumulate(layer, sources[0], inputs[0])
    if layer.pool is not None:
        acc = _max_pool(acc, layer.pool)
    return np.ascontiguousarray(np.moveaxis(layer_codes(layer, target, acc).astype(dtype), 0, 1))


def _batch_size(model: Model) -> int:
    """Return how many samples keep the largest unfolded input within the memory limit."""
    largest = 1
    for layer in model.layers:
        shape = model.tensors[layer.input].shape
        elements = int(np.prod(shape))
        if layer.kind is Kind.CONV2D and layer.weight is not None:
            _, height, width = unpooled_shape(layer, shape)
            elements = int(np.prod(layer.weight.shape[1:])) * height * width
        largest = max(largest, elements)
    return max(1, min(1024, _UNFOLDED_ELEMENTS // largest))


def run(
    model: Model, inputs: IntArray, *, batch: int | None = None, tensors: Collection[str] | None = None
) -> dict[str, IntArray]:
    """Run the network on integer codes, bit-exact.

    Parameters
    ----------
    model : Model
    inputs : ndarray[int], shape (B, *input shape), codes of the input tensor
    batch : samples computed at a time; default: as many as keep the memory small. Does not change the result.
    tensors : names of the tensors to return; default: all of them, the input included

    Returns
    -------
    dict[str, ndarray[uint8 or int8]], each of shape (B, *tensor shape)

    Raises
    ------
    InputError
        If the inputs do not fit the input tensor, or a wanted tensor does not exist.
    """
    check_inputs(model.tensors[model.input], inputs)
    if batch is not None and batch < 1:
        raise InputError(f"Batch must be at least 1, not {batch!r}")
    wanted = set(model.tensors) if tensors is None else set(tensors)
    for name in sorted(wanted - set(model.tensors)):
        raise InputError(f"Model {model.name!r} has no tensor {name!r}; it has {', '.join(sorted(model.tensors))}")
    step = _batch_size(model) if batch is None else batch
    results = {
        name: np.empty((len(inputs), *tensor.shape), code_dtype(tensor))
        for name, tensor in model.tensors.items()
        if name in wanted
    }
    for first in range(0, len(inputs), step):
        part = slice(first, first + step)
        values = {model.input: inputs[part].astype(code_dtype(model.tensors[model.input]))}
        for layer in model.layers:
            values[layer.output] = run_layer(model, layer, [values[name] for name in layer.inputs])
        for name, result in results.items():
            result[part] = values[name]
    return results


def predictions(outputs: IntArray) -> NDArray[np.int64]:
    """Return the class of each sample: the index of its largest output, the lowest index where outputs tie."""
    classes: NDArray[np.int64] = np.argmax(outputs.reshape(len(outputs), -1), axis=1)
    return classes


def accuracy(model: Model, inputs: IntArray, labels: IntArray, *, batch: int | None = None) -> float:
    """Return the fraction of samples whose largest output is at index ``labels``.

    Raises
    ------
    InputError
        If ``labels`` is not one class a sample.
    """
    classes = model.tensors[model.results].size
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(inputs),):
        raise InputError(
            f"Labels must be {len(inputs)} integers, one a sample, not {labels.dtype} of shape {labels.shape}"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(f"Labels must be 0 to {classes - 1}, not {int(labels.min())} to {int(labels.max())}")
    scores = run(model, inputs, batch=batch, tensors=(model.results,))[model.results]
    return float(np.mean(predictions(scores) == labels))
