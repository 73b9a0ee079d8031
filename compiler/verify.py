"""What a legal Model is; run before and after every pass."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.argmax import index_tensor
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Grid, Kind, Layer, Model, Rounding, Tensor
from zeroskip.compiler.reference import accumulator_range, add_range
from zeroskip.compiler.shapes import output_shape, unpooled_shape

__all__ = [
    "ADD_LEFT_SHIFT_LIMIT",
    "CODEBOOK_LIMIT",
    "MULTIPLIER_LIMIT",
    "SHIFT_LIMIT",
    "TFLITE_MULTIPLIER_LIMIT",
    "TFLITE_SHIFT_LIMIT",
    "grid_limits",
    "verify",
]

IntArray = NDArray[Any]

MULTIPLIER_LIMIT = 1 << 17
SHIFT_LIMIT = 48
# TensorFlow Lite: a 31-bit fraction and an exponent down to -31.
TFLITE_MULTIPLIER_LIMIT = 1 << 31
TFLITE_SHIFT_LIMIT = 63
ADD_LEFT_SHIFT_LIMIT = 21
CODEBOOK_LIMIT = 256

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_WEIGHTED = (Kind.CONV2D, Kind.LINEAR)
_RANKS = {Kind.CONV2D: ("OIHW", 4), Kind.LINEAR: ("OI", 2)}
_POOLINGS = (Kind.MAX_POOL2D, Kind.AVG_POOL2D)
_WINDOWED = (Kind.CONV2D, *_POOLINGS)
_TFLITE = (Rounding.TFLITE_DOUBLE, Rounding.TFLITE_SINGLE)
_ARRAYS = ("weight", "bias", "multiplier", "shift", "thresholds", "codebook")
# Grids whose number of bits is fixed.
_GRID_BITS = {Grid.BINARY: 1, Grid.TERNARY: 2}
_INT32 = np.iinfo(np.int32)


def grid_limits(grid: Grid, bits: int) -> tuple[int, int]:
    """Return the smallest and largest weight level of ``grid`` with ``bits`` bits; 0 is always the pruned position.

    The levels of a codebook are any of signed 9 bits, whatever the bits of its index.
    """
    top = 1 << (bits - 1)
    limits = {
        Grid.SIGNED: (-top, top - 1),
        Grid.SYMMETRIC: (1 - top, top - 1),
        Grid.ZERO_EXCLUDED: (-top, top),
        Grid.BINARY: (-1, 1),
        Grid.TERNARY: (-1, 1),
        Grid.CODEBOOK: (-256, 255),
    }
    return limits[grid]


def verify(model: Model) -> None:
    """Check that ``model`` is a legal graph of integer layers.

    Raises
    ------
    CompileError
        Naming the layer or tensor, what it must be and what it is.
    """
    if not model.layers:
        raise CompileError(f"Model {model.name!r} must have at least one layer, not 0")
    for name, tensor in model.tensors.items():
        _check_tensor(name, tensor)
    if model.input not in model.tensors:
        raise CompileError(f"Model {model.name!r} has input {model.input!r}, but no tensor of that name")
    _check_graph(model)
    for layer in model.layers:
        _check_layer(layer, [model.tensors[name] for name in layer.inputs], model.tensors[layer.output])
    _check_golden(model)


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise CompileError(f"{what} name must be letters, digits, '_', '.' and '-' (at most 128), not {name!r}")


def _check_tensor(name: str, tensor: Tensor) -> None:
    _check_name("Tensor", name)
    what = f"Tensor {name!r}"
    if tensor.name != name:
        raise CompileError(f"{what} must carry its own name, not {tensor.name!r}")
    if len(tensor.shape) not in (1, 3) or min(tensor.shape) < 1:
        raise CompileError(f"{what} must have shape (C, H, W) or (F,) of positive sizes, not {tensor.shape}")
    if not 1 <= tensor.bits <= 8:
        raise CompileError(f"{what} must have 1 to 8 bits, not {tensor.bits!r}")
    if not (math.isfinite(tensor.scale) and tensor.scale > 0):
        raise CompileError(f"{what} must have a finite scale above 0, not {tensor.scale!r}")
    if not tensor.lo <= tensor.zero_point <= tensor.hi:
        raise CompileError(f"{what} must have a zero point in {tensor.lo} to {tensor.hi}, not {tensor.zero_point!r}")


def _check_graph(model: Model) -> None:
    """Check names, connections and order; every tensor has one writer and, but for the output, a reader."""
    seen: set[str] = set()
    for layer in model.layers:
        _check_name("Layer", layer.name)
        if layer.name in seen:
            raise CompileError(f"Layer name {layer.name!r} must be unique, but two layers have it")
        seen.add(layer.name)
    written: dict[str, str] = {model.input: "the network input"}
    producers = {layer.output: layer.name for layer in model.layers}
    for layer in model.layers:
        _check_inputs(layer, written, producers)
        what = f"Layer {layer.name!r}"
        if layer.output in written:
            raise CompileError(f"{what} writes {layer.output!r}, but {written[layer.output]} has that name already")
        if layer.output not in model.tensors:
            raise CompileError(f"{what} writes {layer.output!r}, but the model declares no tensor of that name")
        written[layer.output] = f"the output of layer {layer.name!r}"
    for layer in model.layers:
        if layer.kind is Kind.ARGMAX:
            _check_argmax_place(model, layer)
    last = model.layers[-1]
    if model.output != last.output:
        raise CompileError(
            f"Model {model.name!r} has output {model.output!r}, but its last layer {last.name!r} writes {last.output!r}"
        )
    read = {name for layer in model.layers for name in layer.inputs}
    for layer in model.layers[:-1]:
        if layer.output not in read:
            raise CompileError(
                f"Layer {layer.name!r} writes {layer.output!r}, but no layer reads it; remove the dead layer"
            )
    for name in model.tensors:
        if name not in written:
            raise CompileError(
                f"Tensor {name!r} must be the network input or written by a layer, but no layer writes it"
            )


def _check_inputs(layer: Layer, written: Mapping[str, str], producers: Mapping[str, str]) -> None:
    """Check how many tensors the layer reads and that they are ``written`` before it."""
    what = f"Layer {layer.name!r}"
    if not isinstance(layer.inputs, tuple):
        raise CompileError(f"{what} must have inputs that are a tuple of tensor names, not {layer.inputs!r}")
    counts = {Kind.ADD: ("two inputs", 2, 2), Kind.CONCAT: ("two or more inputs", 2, len(layer.inputs))}
    wanted, least, most = counts.get(layer.kind, ("one input", 1, 1))
    if not least <= len(layer.inputs) <= most:
        raise CompileError(f"{what} is {layer.kind.value} and must have {wanted}, not {len(layer.inputs)}")
    for name in layer.inputs:
        if name in written:
            continue
        if name in producers:
            raise CompileError(
                f"{what} reads {name!r}, which layer {producers[name]!r} writes only afterwards: a cycle, or layers "
                "out of order"
            )
        raise CompileError(f"{what} reads {name!r}, but no layer writes a tensor of that name")


def _check_layer(layer: Layer, sources: Sequence[Tensor], target: Tensor) -> None:
    source = sources[0]
    _check_geometry(layer, source)
    if layer.kind in _WEIGHTED:
        _check_weight(layer, source)
        if layer.rounding is Rounding.THRESHOLDS:
            _check_thresholds(layer, target)
        else:
            _check_requantization(layer, 0 if layer.weight is None else layer.weight.shape[0])
            _check_clamp(layer, target)
        if layer.rounding in _TFLITE:
            _check_tflite_range(layer, source)
    elif layer.kind is Kind.ADD:
        _check_add(layer, sources, target)
    elif layer.kind is Kind.CONCAT:
        _check_concat(layer, sources, target)
    elif layer.kind is Kind.ARGMAX:
        _check_argmax(layer, source, target)
    else:
        _check_pooling(layer, source, target)
    if layer.left_shift and layer.kind is not Kind.ADD:
        raise CompileError(f"Layer {layer.name!r} is {layer.kind.value} and must have no left shift")
    if layer.pool is not None:
        _check_fused_pool(layer, source)
    computed = output_shape(layer, *(tensor.shape for tensor in sources))
    if min(computed) < 1:
        raise CompileError(
            f"Layer {layer.name!r} has a window that does not fit its input {source.name!r} of shape {source.shape}"
        )
    if computed != target.shape:
        raise CompileError(
            f"Layer {layer.name!r} computes shape {computed}, but its output {target.name!r} has shape {target.shape}"
        )


def _check_geometry(layer: Layer, source: Tensor) -> None:
    what = f"Layer {layer.name!r}"
    for label, pair in (("kernel", layer.kernel), ("stride", layer.stride), ("dilation", layer.dilation)):
        if len(pair) != 2 or min(pair) < 1:
            raise CompileError(f"{what} must have a {label} of two numbers of at least 1, not {pair}")
    if len(layer.padding) != 4 or min(layer.padding) < 0:
        raise CompileError(
            f"{what} must have a padding of four numbers (top, left, bottom, right) of at least 0, not {layer.padding}"
        )
    if layer.groups < 1:
        raise CompileError(f"{what} must have at least 1 group, not {layer.groups!r}")
    if layer.kind not in _WINDOWED:
        plain = (layer.kernel, layer.stride, layer.dilation, layer.padding, layer.groups)
        if plain != ((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1):
            raise CompileError(
                f"{what} is {layer.kind.value} and must have no kernel, stride, dilation, padding or groups"
            )
        return
    if len(source.shape) != 3:
        raise CompileError(f"{what} needs an input of shape (C, H, W), but {source.name!r} has shape {source.shape}")
    windows = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(layer.kernel, layer.dilation, strict=True)]
    top, left, bottom, right = layer.padding
    # around a convolution there may be positions that see padding alone; a pooling of nothing has no value
    if layer.kind is not Kind.CONV2D and (max(top, bottom) >= windows[0] or max(left, right) >= windows[1]):
        raise CompileError(
            f"{what} has padding {layer.padding}, but its window is {windows[0]} x {windows[1]}: "
            "a pooling's padding must be smaller"
        )


def _check_array(layer: Layer, label: str, array: IntArray | None, dtype: str) -> IntArray:
    if array is None:
        article = "an" if layer.kind.value[0] == "a" else "a"
        raise CompileError(f"Layer {layer.name!r} has no {label}, but {article} {layer.kind.value} layer needs one")
    if array.dtype != np.dtype(dtype):
        raise CompileError(f"Layer {layer.name!r} must have {label} of dtype {dtype}, not {array.dtype}")
    return array


def _check_weight(layer: Layer, source: Tensor) -> None:
    what = f"Layer {layer.name!r}"
    weight = _check_array(layer, "weight", layer.weight, "int16")
    order, rank = _RANKS[layer.kind]
    if weight.ndim != rank or min(weight.shape) < 1:
        raise CompileError(f"{what} must have weight of shape {order}, not {weight.shape}")
    rows = weight.shape[0]
    if layer.kind is Kind.LINEAR:
        if weight.shape[1] != source.size:
            raise CompileError(
                f"{what} has {weight.shape[1]} weight columns, but its input {source.name!r} of shape {source.shape} "
                f"has {source.size} elements"
            )
    else:
        if rows % layer.groups or source.shape[0] % layer.groups:
            raise CompileError(f"{what} has {layer.groups} groups, but {source.shape[0]} channels in and {rows} out")
        if weight.shape[1] * layer.groups != source.shape[0]:
            raise CompileError(
                f"{what} has weights for {weight.shape[1] * layer.groups} channels, but its input {source.name!r} "
                f"of shape {source.shape} has {source.shape[0]}"
            )
        if weight.shape[2:] != layer.kernel:
            raise CompileError(f"{what} has kernel {layer.kernel}, but weight of shape {weight.shape}")
    _check_levels(layer, weight)
    bias = _check_array(layer, "bias", layer.bias, "int32")
    if bias.shape != (rows,):
        raise CompileError(f"{what} has {rows} weight rows, but bias of shape {bias.shape}")


def _check_levels(layer: Layer, weight: IntArray) -> None:
    """Check that every weight is a level of the layer's grid."""
    what, grid = f"Layer {layer.name!r}", layer.grid.value
    if not 1 <= layer.weight_bits <= 8:
        raise CompileError(f"{what} must have 1 to 8 weight bits, not {layer.weight_bits!r}")
    if layer.grid is Grid.SYMMETRIC and layer.weight_bits == 1:
        raise CompileError(f"{what} must have at least 2 weight bits on grid symmetric, not 1")
    bits = _GRID_BITS.get(layer.grid, layer.weight_bits)
    if layer.weight_bits != bits:
        raise CompileError(f"{what} must have {bits} weight bits on grid {grid}, not {layer.weight_bits}")
    lo, hi = grid_limits(layer.grid, layer.weight_bits)
    least, most = int(weight.min()), int(weight.max())
    if least < lo or most > hi:
        raise CompileError(
            f"{what} must have weight levels {lo} to {hi} (grid {grid}, {layer.weight_bits} bits), "
            f"not {least if least < lo else most}"
        )
    if layer.grid is Grid.BINARY and not weight.all():
        raise CompileError(
            f"{what} must have weight levels -1 and 1 (grid binary), not 0; a pruned layer of signs has grid "
            "zero_excluded with 1 bit, or ternary"
        )
    if layer.grid is Grid.CODEBOOK:
        _check_codebook(layer, weight)
    elif layer.codebook is not None:
        raise CompileError(f"{what} has grid {grid} and must have no codebook")


def _check_codebook(layer: Layer, weight: IntArray) -> None:
    what = f"Layer {layer.name!r}"
    codebook = _check_array(layer, "codebook", layer.codebook, "int16")
    if codebook.ndim != 1 or not 2 <= len(codebook) <= CODEBOOK_LIMIT:
        raise CompileError(f"{what} must have a codebook of 2 to {CODEBOOK_LIMIT} levels, not shape {codebook.shape}")
    if codebook[0] != 0:
        raise CompileError(
            f"{what} must have a codebook whose entry 0 is 0, the pruned position, not {int(codebook[0])}"
        )
    lo, hi = grid_limits(Grid.CODEBOOK, layer.weight_bits)
    least, most = int(codebook.min()), int(codebook.max())
    if least < lo or most > hi:
        raise CompileError(
            f"{what} must have codebook levels {lo} to {hi}, signed 9 bits, not {least if least < lo else most}"
        )
    bits = (len(codebook) - 1).bit_length()
    if layer.weight_bits != bits:
        raise CompileError(
            f"{what} has a codebook of {len(codebook)} levels, which needs an index of {bits} bits, but "
            f"{layer.weight_bits} weight bits"
        )
    strange = weight[~np.isin(weight, codebook)]
    if strange.size:
        raise CompileError(f"{what} must have weights from its codebook, not {int(strange[0])}")


def _check_requantization(layer: Layer, rows: int) -> None:
    """Check multiplier and shift, one for all or one for each of ``rows`` (for an addition exactly three)."""
    what = f"Layer {layer.name!r}"
    if layer.thresholds is not None:
        raise CompileError(f"{what} has rounding {layer.rounding.value} and must have no thresholds")
    multiplier = _check_array(layer, "multiplier", layer.multiplier, "int32")
    shift = _check_array(layer, "shift", layer.shift, "int8")
    if layer.kind is Kind.ADD:
        shapes, wanted = [(rows,)], f"({rows},), two inputs and the output,"
    else:
        shapes, wanted = [(rows,), (1,)], f"({rows},) or (1,),"
    if multiplier.shape not in shapes:
        raise CompileError(f"{what} must have multiplier of shape {wanted} not {multiplier.shape}")
    if shift.shape != multiplier.shape:
        raise CompileError(f"{what} has multiplier of shape {multiplier.shape}, but shift of shape {shift.shape}")
    limits = (MULTIPLIER_LIMIT, SHIFT_LIMIT)
    if layer.rounding in _TFLITE:
        limits = (TFLITE_MULTIPLIER_LIMIT, TFLITE_SHIFT_LIMIT)
    for label, array, limit in (("multiplier", multiplier, limits[0]), ("shift", shift, limits[1])):
        least, most = int(array.min()), int(array.max())
        if least < 0 or most >= limit:
            raise CompileError(f"{what} must have {label} 0 to {limit - 1}, not {least if least < 0 else most}")


def _check_thresholds(layer: Layer, target: Tensor) -> None:
    what = f"Layer {layer.name!r}"
    for label in ("multiplier", "shift"):
        if getattr(layer, label) is not None:
            raise CompileError(f"{what} has rounding thresholds and must have no {label}")
    thresholds = _check_array(layer, "thresholds", layer.thresholds, "int32")
    rows = 0 if layer.weight is None else layer.weight.shape[0]
    most = target.hi - target.lo
    if thresholds.ndim != 2 or thresholds.shape[0] != rows or not 1 <= thresholds.shape[1] <= most:
        raise CompileError(
            f"{what} must have thresholds of shape ({rows}, 1 to {most}), for its rows and the codes of its output "
            f"{target.name!r}, not {thresholds.shape}"
        )
    falling = (np.diff(thresholds.astype(np.int64), axis=1) < 0).any(axis=1)
    if falling.any():
        raise CompileError(f"{what} must have ascending thresholds, but those of channel {np.argmax(falling)} fall")
    if layer.bias is not None and layer.bias.any():
        raise CompileError(f"{what} has rounding thresholds and must have a bias of 0; subtract it from the thresholds")
    clamp = (target.lo, target.lo + thresholds.shape[1])
    if layer.clamp != clamp:
        raise CompileError(
            f"{what} must have the clamp of its thresholds, {clamp[0]} to {clamp[1]}, not {layer.clamp[0]} to "
            f"{layer.clamp[1]}"
        )


def _check_tflite_range(layer: Layer, source: Tensor) -> None:
    """TensorFlow Lite's roundings are defined for 32-bit accumulators; so are their 64-bit products."""
    lo, hi = accumulator_range(layer, source).biased
    if lo < _INT32.min or hi > _INT32.max:
        raise CompileError(
            f"Layer {layer.name!r} has accumulators of {lo} to {hi}, but rounding {layer.rounding.value} takes 32 bits"
        )


def _check_add(layer: Layer, sources: Sequence[Tensor], target: Tensor) -> None:
    what = f"Layer {layer.name!r}"
    for label in ("weight", "bias", "thresholds", "codebook"):
        if getattr(layer, label) is not None:
            raise CompileError(f"{what} is an addition and must have no {label}")
    first, second = sources
    if first.shape != second.shape:
        raise CompileError(
            f"{what} adds inputs of equal shape, but {first.name!r} has {first.shape} and {second.name!r} "
            f"{second.shape}; give a shortcut that changes the shape a 1x1 convolution"
        )
    if layer.rounding is Rounding.THRESHOLDS:
        raise CompileError(f"{what} is an addition and must have a rounding with multiplier and shift, not thresholds")
    if not 0 <= layer.left_shift < ADD_LEFT_SHIFT_LIMIT:
        raise CompileError(f"{what} must have a left shift of 0 to {ADD_LEFT_SHIFT_LIMIT - 1}, not {layer.left_shift}")
    _check_requantization(layer, 3)
    _check_clamp(layer, target)
    labels = (f"input {first.name!r}", f"input {second.name!r}", "sum")
    for label, (lo, hi) in zip(labels, add_range(layer, sources), strict=True):
        if lo < _INT32.min or hi > _INT32.max:
            raise CompileError(
                f"{what} has a rescaled {label} of {lo} to {hi}, but it must fit 32 bits; raise the shift"
            )


def _check_concat(layer: Layer, sources: Sequence[Tensor], target: Tensor) -> None:
    what = f"Layer {layer.name!r}"
    for label in _ARRAYS:
        if getattr(layer, label) is not None:
            raise CompileError(f"{what} is a concatenation and must have no {label}")
    first = sources[0]
    for other in sources[1:]:
        if other.shape[1:] != first.shape[1:]:
            raise CompileError(
                f"{what} joins channels of maps of equal size, but {first.name!r} has shape {first.shape} and "
                f"{other.name!r} {other.shape}"
            )
    for tensor in sources:
        _check_same_codes(what, tensor, target, "; give all of them one scale and zero point when quantizing")


def _check_argmax(layer: Layer, source: Tensor, target: Tensor) -> None:
    what = f"Layer {layer.name!r}"
    for label in _ARRAYS:
        if getattr(layer, label) is not None:
            raise CompileError(f"{what} is an argmax and must have no {label}")
    if source.size != source.shape[0]:
        raise CompileError(
            f"{what} takes the largest value of a vector, but its input {source.name!r} has shape {source.shape}; "
            "flatten it, or average it to one element a channel"
        )
    wanted = index_tensor(target.name, source.size)
    if target != wanted:
        raise CompileError(
            f"{what} gives one of {source.size} numbers, for which its output {target.name!r} must have shape "
            f"{wanted.shape}, {wanted.bits} unsigned bits, scale 1 and zero point 0"
        )


def _check_argmax_place(model: Model, layer: Layer) -> None:
    """Check that an argmax ends the network and alone reads what a layer of the array writes."""
    what = f"Layer {layer.name!r}"
    if layer is not model.layers[-1]:
        raise CompileError(f"{what} is an argmax and must be the last layer; leave it out, or what follows it")
    producer = model.producer(layer.input)
    if producer is None or not producer.kind.runs:
        source = "the network's input" if producer is None else f"the {producer.kind.value} {producer.name!r}"
        raise CompileError(f"{what} is an argmax and must read the results of a layer, not {source}")
    if len(model.readers(layer.input)) > 1:
        raise CompileError(f"{what} must be the only reader of {layer.input!r}, whose values are not stored")


def _check_clamp(layer: Layer, target: Tensor) -> None:
    lo, hi = layer.clamp
    if not target.lo <= lo <= hi <= target.hi:
        raise CompileError(
            f"Layer {layer.name!r} must have a clamp within {target.lo} to {target.hi}, the range of its output "
            f"{target.name!r}, not {lo} to {hi}"
        )


def _check_pooling(layer: Layer, source: Tensor, target: Tensor) -> None:
    what = f"Layer {layer.name!r}"
    for label in _ARRAYS:
        if getattr(layer, label) is not None:
            raise CompileError(f"{what} is a pooling and must have no {label}")
    if layer.groups != 1 or layer.dilation != (1, 1):
        raise CompileError(f"{what} is a pooling and must have no groups and no dilation")
    if layer.kind is Kind.AVG_POOL2D:
        if any(layer.padding):
            raise CompileError(
                f"{what} is an average pooling and must have no padding, not {layer.padding}; pad the layer before it"
            )
        _check_clamp(layer, target)
    _check_same_codes(what, source, target)


def _check_same_codes(what: str, source: Tensor, target: Tensor, remedy: str = "") -> None:
    """Check that codes of ``source`` are codes of ``target`` with the same values."""
    for label, before, after in (
        ("bits", source.bits, target.bits),
        ("signedness", source.signed, target.signed),
        ("zero point", source.zero_point, target.zero_point),
    ):
        if before != after:
            raise CompileError(
                f"{what} passes codes through, but its input {source.name!r} has {label} {before} "
                f"and its output {target.name!r} {after}{remedy}"
            )
    if not math.isclose(source.scale, target.scale, rel_tol=1e-6):
        raise CompileError(
            f"{what} passes codes through, but its input {source.name!r} has scale {source.scale} "
            f"and its output {target.name!r} {target.scale}{remedy}"
        )


def _check_fused_pool(layer: Layer, source: Tensor) -> None:
    what = f"Layer {layer.name!r}"
    if layer.pool is None:
        return
    if layer.kind is not Kind.CONV2D:
        raise CompileError(f"{what} is {layer.kind.value}, but only a conv2d layer can have a fused pooling")
    if layer.pool.kernel != layer.pool.stride or min(layer.pool.kernel) < 1:
        raise CompileError(
            f"{what} must have a fused pooling whose stride is its kernel, not kernel {layer.pool.kernel} "
            f"and stride {layer.pool.stride}"
        )
    height, width = unpooled_shape(layer, source.shape)[1:]
    if layer.pool.kernel[0] > height or layer.pool.kernel[1] > width:
        raise CompileError(f"{what} has a fused pooling of {layer.pool.kernel}, but only {height} x {width} positions")


def _check_golden(model: Model) -> None:
    samples: tuple[str, int] | None = None
    for name, codes in model.golden.items():
        what = f"Golden {name!r}"
        if name not in model.tensors:
            raise CompileError(f"{what} belongs to no tensor of model {model.name!r}")
        tensor = model.tensors[name]
        if not np.issubdtype(codes.dtype, np.integer):
            raise CompileError(f"{what} must hold integer codes, not {codes.dtype}")
        if codes.ndim < 1 or codes.shape[1:] != tensor.shape or not len(codes):
            wanted = ", ".join(str(size) for size in tensor.shape)
            raise CompileError(f"{what} must have shape (samples, {wanted}), not {codes.shape}")
        if samples is not None and samples[1] != len(codes):
            raise CompileError(f"{what} has {len(codes)} samples, but golden {samples[0]!r} has {samples[1]}")
        samples = (name, len(codes))
        lo, hi = int(codes.min()), int(codes.max())
        if lo < tensor.lo or hi > tensor.hi:
            raise CompileError(f"{what} must hold codes {tensor.lo} to {tensor.hi}, not {lo if lo < tensor.lo else hi}")
