"""What a legal Model is; run before and after every pass."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Grid, Kind, Layer, Model, Tensor
from zeroskip.compiler.shapes import output_shape, unpooled_shape

__all__ = ["MULTIPLIER_LIMIT", "SHIFT_LIMIT", "grid_limits", "verify"]

IntArray = NDArray[Any]

MULTIPLIER_LIMIT = 1 << 17
SHIFT_LIMIT = 48

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_WEIGHTED = (Kind.CONV2D, Kind.LINEAR)
_RANKS = {Kind.CONV2D: ("OIHW", 4), Kind.LINEAR: ("OI", 2)}


def grid_limits(grid: Grid, bits: int) -> tuple[int, int]:
    """Return the smallest and largest weight level of ``grid`` with ``bits`` bits; 0 is always the pruned position."""
    top = 1 << (bits - 1)
    if grid is Grid.SIGNED:
        return -top, top - 1
    return (1 - top, top - 1) if grid is Grid.SYMMETRIC else (-top, top)


def verify(model: Model) -> None:
    """Check that ``model`` is a legal chain of integer layers.

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
    _check_chain(model)
    for layer in model.layers:
        _check_layer(layer, model.tensors[layer.input], model.tensors[layer.output])
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


def _check_chain(model: Model) -> None:
    """Check names and connections; every tensor has one writer and a reader, which makes the layers a chain."""
    seen: set[str] = set()
    for layer in model.layers:
        _check_name("Layer", layer.name)
        if layer.name in seen:
            raise CompileError(f"Layer name {layer.name!r} must be unique, but two layers have it")
        seen.add(layer.name)
    written: dict[str, str] = {model.input: "the network input"}
    read: dict[str, str] = {}
    producers = {layer.output: layer.name for layer in model.layers}
    for layer in model.layers:
        what = f"Layer {layer.name!r}"
        if layer.input not in written:
            if layer.input in producers:
                later = producers[layer.input]
                raise CompileError(
                    f"{what} reads {layer.input!r}, which layer {later!r} writes only afterwards: a cycle"
                )
            raise CompileError(f"{what} reads {layer.input!r}, but no layer writes a tensor of that name")
        if layer.input in read:
            raise CompileError(
                f"{what} reads {layer.input!r}, but layer {read[layer.input]!r} does too; only chains are supported"
            )
        read[layer.input] = layer.name
        if layer.output in written:
            raise CompileError(f"{what} writes {layer.output!r}, but {written[layer.output]} has that name already")
        if layer.output not in model.tensors:
            raise CompileError(f"{what} writes {layer.output!r}, but the model declares no tensor of that name")
        written[layer.output] = f"the output of layer {layer.name!r}"
    last = model.layers[-1]
    if model.output != last.output:
        raise CompileError(
            f"Model {model.name!r} has output {model.output!r}, but its last layer {last.name!r} writes {last.output!r}"
        )
    for name in model.tensors:
        if name not in written:
            raise CompileError(
                f"Tensor {name!r} must be the network input or written by a layer, but no layer writes it"
            )


def _check_layer(layer: Layer, source: Tensor, target: Tensor) -> None:
    _check_geometry(layer, source)
    if layer.kind in _WEIGHTED:
        _check_weight(layer, source)
        _check_requantization(layer)
        _check_clamp(layer, target)
    else:
        _check_pooling(layer, source, target)
    if layer.pool is not None:
        _check_fused_pool(layer, source)
    computed = output_shape(layer, source.shape)
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
    if layer.kind is Kind.LINEAR:
        plain = (layer.kernel, layer.stride, layer.dilation, layer.padding, layer.groups)
        if plain != ((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1):
            raise CompileError(f"{what} is linear and must have no kernel, stride, dilation, padding or groups")
        return
    if len(source.shape) != 3:
        raise CompileError(f"{what} needs an input of shape (C, H, W), but {source.name!r} has shape {source.shape}")
    windows = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(layer.kernel, layer.dilation, strict=True)]
    top, left, bottom, right = layer.padding
    if max(top, bottom) >= windows[0] or max(left, right) >= windows[1]:
        raise CompileError(
            f"{what} has padding {layer.padding}, but its window is {windows[0]} x {windows[1]}: "
            "padding must be smaller"
        )


def _check_array(layer: Layer, label: str, array: IntArray | None, dtype: str) -> IntArray:
    if array is None:
        raise CompileError(f"Layer {layer.name!r} has no {label}, but a {layer.kind.value} layer needs one")
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
    if not 1 <= layer.weight_bits <= 8:
        raise CompileError(f"{what} must have 1 to 8 weight bits, not {layer.weight_bits!r}")
    if layer.grid is Grid.SYMMETRIC and layer.weight_bits == 1:
        raise CompileError(f"{what} must have at least 2 weight bits on grid symmetric, not 1")
    lo, hi = grid_limits(layer.grid, layer.weight_bits)
    least, most = int(weight.min()), int(weight.max())
    if least < lo or most > hi:
        raise CompileError(
            f"{what} must have weight levels {lo} to {hi} (grid {layer.grid.value}, {layer.weight_bits} bits), "
            f"not {least if least < lo else most}"
        )
    bias = _check_array(layer, "bias", layer.bias, "int32")
    if bias.shape != (rows,):
        raise CompileError(f"{what} has {rows} weight rows, but bias of shape {bias.shape}")


def _check_requantization(layer: Layer) -> None:
    what = f"Layer {layer.name!r}"
    multiplier = _check_array(layer, "multiplier", layer.multiplier, "int32")
    shift = _check_array(layer, "shift", layer.shift, "int8")
    rows = 0 if layer.weight is None else layer.weight.shape[0]
    if multiplier.shape not in ((rows,), (1,)):
        raise CompileError(f"{what} must have multiplier of shape ({rows},) or (1,), not {multiplier.shape}")
    if shift.shape != multiplier.shape:
        raise CompileError(f"{what} has multiplier of shape {multiplier.shape}, but shift of shape {shift.shape}")
    for label, array, limit in (("multiplier", multiplier, MULTIPLIER_LIMIT), ("shift", shift, SHIFT_LIMIT)):
        least, most = int(array.min()), int(array.max())
        if least < 0 or most >= limit:
            raise CompileError(f"{what} must have {label} 0 to {limit - 1}, not {least if least < 0 else most}")


def _check_clamp(layer: Layer, target: Tensor) -> None:
    lo, hi = layer.clamp
    if not target.lo <= lo <= hi <= target.hi:
        raise CompileError(
            f"Layer {layer.name!r} must have a clamp within {target.lo} to {target.hi}, the range of its output "
            f"{target.name!r}, not {lo} to {hi}"
        )


def _check_pooling(layer: Layer, source: Tensor, target: Tensor) -> None:
    what = f"Layer {layer.name!r}"
    for label, array in (
        ("weight", layer.weight),
        ("bias", layer.bias),
        ("multiplier", layer.multiplier),
        ("shift", layer.shift),
    ):
        if array is not None:
            raise CompileError(f"{what} is a pooling and must have no {label}")
    if layer.groups != 1 or layer.dilation != (1, 1):
        raise CompileError(f"{what} is a pooling and must have no groups and no dilation")
    if layer.kind is Kind.AVG_POOL2D:
        if any(layer.padding):
            raise CompileError(
                f"{what} is an average pooling and must have no padding, not {layer.padding}; pad the layer before it"
            )
        _check_clamp(layer, target)
    for label, before, after in (
        ("bits", source.bits, target.bits),
        ("signedness", source.signed, target.signed),
        ("zero point", source.zero_point, target.zero_point),
    ):
        if before != after:
            raise CompileError(
                f"{what} passes codes through, but its input {source.name!r} has {label} {before} "
                f"and its output {target.name!r} {after}"
            )
    if not math.isclose(source.scale, target.scale, rel_tol=1e-6):
        raise CompileError(
            f"{what} passes codes through, but its input {source.name!r} has scale {source.scale} "
            f"and its output {target.name!r} {target.scale}"
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
