"""Convolutions, linear layers and the BatchNorm behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from zeroskip.pruning.capture.reader import Reader, as_list, as_window
from zeroskip.pruning.graph import Kind, Norm, Op

__all__ = ["batch_norm", "convolution", "linear"]

Arguments = dict[str, Any]


def convolution(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read a convolution; zeros that were padded around its input belong to it."""
    weight = reader.parameter(node, a["weight"])
    if weight is None:
        raise reader.refuse(node, "a convolution without a weight")
    shape = a["weight"].meta["val"].shape[2:]
    source, (left, right, top, bottom) = reader.padded_source(node, a["input"])
    if len(reader.shape(source)) != 1 + len(shape):
        size = tuple(source.meta["val"].shape)
        raise reader.misfit(node, f"a convolution reads an input of shape {size} without the batch axis")
    kernel, dilation = as_window(shape, shape), as_window(a["dilation"], shape)
    own = _padding(a["padding"], kernel, dilation, shape)
    padding = (own[0] + top, own[1] + left, own[2] + bottom, own[3] + right)
    reader.add(
        node,
        Op(
            name=_layer_name(reader, node, weight), kind=Kind.CONV2D, inputs=(reader.made_by[source],),
            in_shape=reader.map_shape(source), out_shape=reader.map_shape(node), weight=weight,
            bias=reader.parameter(node, a["bias"]), kernel=kernel, stride=as_window(a["stride"], shape),
            padding=padding, dilation=dilation, groups=int(a["groups"]),
        ),
    )  # fmt: skip


def linear(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read a linear layer; a map before it was flattened in the order C, H, W."""
    weight = reader.parameter(node, a["weight"])
    source = reader.shape(a["input"])
    if weight is None:
        raise reader.refuse(node, "a linear layer without a weight")
    if not source:
        size = tuple(a["input"].meta["val"].shape)
        raise reader.misfit(node, f"a linear layer reads an input of shape {size} without the batch axis")
    if len(source) != 1:
        raise reader.misfit(
            node, f"a linear layer reads an input of shape {(reader.batch, *source)}", "flatten it to (N, features)"
        )
    name = reader.made_by[a["input"]]
    before = reader.ops[name].out_shape if name in reader.ops else source
    reader.add(
        node,
        Op(
            name=_layer_name(reader, node, weight), kind=Kind.LINEAR, inputs=(name,), in_shape=before,
            out_shape=reader.shape(node), weight=weight, bias=reader.parameter(node, a["bias"]),
        ),
    )  # fmt: skip


def batch_norm(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Give a BatchNorm to the layer it follows."""
    if a["training"]:
        raise reader.refuse(node, "BatchNorm in training mode")
    mean, var = reader.parameter(node, a["running_mean"]), reader.parameter(node, a["running_var"])
    name = reader.made_by[a["input"]]
    last = reader.ops.get(name)
    if last is None or last.weight is None or last.clips or last.norm or mean is None or var is None:
        raise reader.refuse(node, "BatchNorm that does not follow a convolution or linear layer directly")
    if not reader.alone(node, name):
        raise reader.refuse(node, f"BatchNorm of layer '{name}', whose result without it is used as well")
    scale, shift = reader.parameter(node, a["weight"]), reader.parameter(node, a["bias"])
    reader.add(node, replace(last, norm=Norm(scale, shift, mean, var, float(a["eps"]))))


def _layer_name(reader: Reader, node: fx.Node, weight: str) -> str:
    module = weight.rpartition(".")[0]
    if any(op.weight == weight for op in reader.ops.values()):
        raise reader.refuse(node, f"layer '{module}' used twice")
    return reader.unique((module or weight).replace(".", "_"))


def _padding(
    value: Any, kernel: tuple[int, int], dilation: tuple[int, int], shape: Sequence[Any]
) -> tuple[int, int, int, int]:
    """Return ``(top, left, bottom, right)`` of a padding argument; ``same`` puts the odd one below and right."""
    if value == "valid":
        return 0, 0, 0, 0
    if value == "same":
        y, x = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
        return y // 2, x // 2, y - y // 2, x - x // 2
    top, left = (0, as_list(value)[0]) if len(shape) == 1 else as_window(value, shape)
    return top, left, top, left
