"""Fold operators whose operands are known when the graph is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.importers.container import ELEMENT_LIMIT
from zeroskip.compiler.importers.flows import Constant, Levels
from zeroskip.compiler.importers.onnx_graph import Node

__all__ = ["FOLDED", "fold", "shape_of"]

Array = NDArray[Any]

_CASTS = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}


def _arithmetic(function: Callable[[Array, Array], Array]) -> Callable[[Node, Sequence[Array]], Array]:
    def apply(node: Node, arrays: Sequence[Array]) -> Array:
        left, right = arrays
        if left.dtype != right.dtype:
            raise node.refused(f"computes with {left.dtype} and {right.dtype}")
        if math.prod(np.broadcast_shapes(left.shape, right.shape)) > ELEMENT_LIMIT:
            raise node.refused(f"makes a constant of more than {ELEMENT_LIMIT} elements")
        return np.asarray(function(left, right), left.dtype)

    return apply


def _divide(left: Array, right: Array) -> Array:
    # integers are divided towards zero
    return np.trunc(left / right) if np.issubdtype(left.dtype, np.integer) else left / right


def _cast(node: Node, arrays: Sequence[Array]) -> Array:
    target = node.attributes.get("to")
    if target not in _CASTS:
        raise node.refused(f"casts to type {target}; supported are float32, float64 and integers")
    return arrays[0].astype(_CASTS[target])


def _constant(node: Node, _: Sequence[Array]) -> Array:
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in node.attributes:
            return np.asarray(node.attributes[name], dtype)
    value = node.attributes.get("value")
    if not isinstance(value, np.ndarray):
        raise node.refused("has no value")
    return value


def _gather(node: Node, arrays: Sequence[Array]) -> Array:
    if arrays[1].size > 8:
        raise node.refused("gathers more than 8 entries of a constant")
    return np.asarray(np.take(arrays[0], arrays[1].astype(np.int64), axis=node.attributes.get("axis", 0)))


def _concat(node: Node, arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays, axis=node.attributes.get("axis", 0))


def _transpose(node: Node, arrays: Sequence[Array]) -> Array:
    return np.transpose(arrays[0], node.attributes.get("perm"))


def _reshape(node: Node, arrays: Sequence[Array]) -> Array:
    shape = arrays[0].shape
    target = [int(size) for size in arrays[1].ravel()[:9]]
    if not node.attributes.get("allowzero", 0):
        target = [shape[i] if size == 0 and i < len(shape) else size for i, size in enumerate(target)]
    return arrays[0].reshape(target)


def _axes(node: Node, arrays: Sequence[Array]) -> tuple[int, ...]:
    given = arrays[1].ravel()[:9] if len(arrays) > 1 else node.attributes.get("axes", ())
    return tuple(int(axis) for axis in given)


def _unsqueeze(node: Node, arrays: Sequence[Array]) -> Array:
    return np.expand_dims(arrays[0], _axes(node, arrays))


def _squeeze(node: Node, arrays: Sequence[Array]) -> Array:
    return np.squeeze(arrays[0], _axes(node, arrays) or None)


def shape_of(node: Node, shape: Sequence[int]) -> Constant:
    """Return the constant that a Shape node gives for an input of ``shape``."""
    part = slice(node.attributes.get("start", 0), node.attributes.get("end"))
    return Constant(np.asarray(shape, np.int64)[part])


FOLDED: Mapping[str, Callable[[Node, Sequence[Array]], Array]] = {
    "Add": _arithmetic(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "Div": _arithmetic(_divide),
    "Gather": _gather,
    "Identity": lambda _, arrays: arrays[0],
    "Mul": _arithmetic(np.multiply),
    "Neg": lambda _, arrays: -arrays[0],
    "Pow": _arithmetic(np.power),
    "Reshape": _reshape,
    "Sqrt": lambda _, arrays: np.sqrt(arrays[0]),
    "Squeeze": _squeeze,
    "Sub": _arithmetic(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""What is folded when all operands are constants, in their own data type."""

_LAYOUTS = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def fold(node: Node, operands: Sequence[Constant]) -> Constant:
    """Return what ``node`` computes from constants; layouts keep the integers behind a quantized one.

    Raises
    ------
    CompileError
        If the operands do not fit.
    """
    try:
        with np.errstate(all="ignore"):
            array = FOLDED[node.op](node, [operand.array for operand in operands])
            levels = operands[0].quantized if operands and node.op in _LAYOUTS else None
            if levels is None:
                return Constant(array)
            rest = [operand.array for operand in operands[1:]]
            moved = FOLDED[node.op](node, [levels.levels, *rest])
            wide = np.broadcast_to(levels.scale, levels.levels.shape)
            scale = FOLDED[node.op](node, [wide, *rest])
    except (ValueError, IndexError, TypeError, ZeroDivisionError, np.exceptions.AxisError) as error:
        raise node.refused(f"cannot be computed from its constants: {error}") from error
    return Constant(array, Levels(moved, scale, levels.bits, levels.narrow, levels.binary))
