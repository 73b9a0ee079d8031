"""Which operation of torch.export is read by what, and which supported form is nearest to one that is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from zeroskip.pruning.capture import activations, joins, pooling, weighted
from zeroskip.pruning.capture.reader import Reader

__all__ = ["HANDLERS", "JOINS", "NEAREST", "SUPPORTED"]

SUPPORTED = (
    "Conv2d and Conv1d (zeros padding), Linear, BatchNorm directly after one of these, a sum of two layers, ReLU, "
    "ReLU6, HardTanh and clamp directly after these (or after the max pool or torch.cat that follows), torch.cat along "
    "the channels, slices x[:, :, ::n, ::n] and zero channels by F.pad behind a layer, zero borders by F.pad in front "
    "of a convolution, MaxPool, AvgPool, adaptive pooling to a size that divides the map's, a mean or "
    "maximum over the positions, flatten/view/reshape to (N, features), Dropout in eval mode, Softmax and argmax over "
    "the classes at the end; one input, one output"
)

Handler = Callable[[Reader, fx.Node, dict[str, Any]], None]


def _same_values(reader: Reader, node: fx.Node, a: dict[str, Any]) -> None:
    """Accept an operation that changes no value."""
    reader.made_by[node] = reader.made_by[a["input"]]


def _flatten(reader: Reader, node: fx.Node, a: dict[str, Any]) -> None:
    if len(reader.shape(node)) != 1 and reader.shape(node) != reader.shape(a["input"]):
        raise reader.refuse(node, f"a change of shape to {reader.shape(node)}; only (N, features) is known")
    _same_values(reader, node, a)


def _dropout(reader: Reader, node: fx.Node, a: dict[str, Any]) -> None:
    if a["train"]:
        raise reader.refuse(node, "dropout in training mode")
    _same_values(reader, node, a)


HANDLERS: Mapping[str, Handler] = {
    "conv1d": weighted.convolution,
    "conv2d": weighted.convolution,
    "linear": weighted.linear,
    "batch_norm": weighted.batch_norm,
    "relu": activations.relu,
    "relu6": activations.clamp,
    "hardtanh": activations.clamp,
    "clamp": activations.clamp,
    "clamp_min": activations.clamp,
    "clamp_max": activations.clamp,
    "clip": activations.clamp,
    "softmax": activations.on_host,
    "log_softmax": activations.on_host,
    "argmax": joins.argmax,
    "add": joins.sum_of_two,
    "cat": joins.concatenation,
    "slice": joins.strided_slice,
    "pad": joins.pad,
    "max_pool1d": pooling.maximum,
    "max_pool2d": pooling.maximum,
    "avg_pool1d": pooling.average,
    "avg_pool2d": pooling.average,
    "adaptive_avg_pool1d": pooling.adaptive,
    "adaptive_avg_pool2d": pooling.adaptive,
    "adaptive_max_pool1d": pooling.adaptive,
    "adaptive_max_pool2d": pooling.adaptive,
    "mean": pooling.whole_map,
    "amax": pooling.whole_map,
    "flatten": _flatten,
    "view": _flatten,
    "reshape": _flatten,
    "squeeze": _flatten,
    "dropout": _dropout,
    "contiguous": _same_values,
    "alias": _same_values,
}

JOINS = ("cat", "conv1d", "conv2d", "pad", "slice")
"""Operations that find their inputs themselves: several, or a selection or padding of a layer's result."""

NEAREST: Mapping[str, str] = {
    **dict.fromkeys(
        ("elu", "gelu", "leaky_relu", "mish", "prelu", "rrelu", "selu", "silu", "softplus", "celu"), "ReLU"
    ),
    **dict.fromkeys(("hardsigmoid", "hardswish", "sigmoid"), "ReLU6"),
    **dict.fromkeys(("tanh", "softsign"), "HardTanh"),
    **dict.fromkeys(("group_norm", "instance_norm", "layer_norm", "rms_norm"), "BatchNorm behind a convolution"),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv3d"), "Conv2d"),
    **dict.fromkeys(("addmm", "bmm", "einsum", "matmul", "mm"), "Linear"),
    **dict.fromkeys(("mul", "div", "sub", "rsub", "neg"), "a BatchNorm behind a convolution, or a sum of two layers"),
    **dict.fromkeys(("maximum", "minimum", "where"), "clamp with numbers"),
    **dict.fromkeys(("permute", "transpose", "movedim"), "flatten of the map as it is"),
    **dict.fromkeys(("stack", "hstack", "concat"), "torch.cat along the channels"),
    **dict.fromkeys(("max_pool3d", "avg_pool3d", "lp_pool2d", "fractional_max_pool2d"), "MaxPool2d"),
    **dict.fromkeys(("upsample_nearest2d", "interpolate", "pixel_shuffle"), "a network without upsampling"),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh"), "Conv1d over the sequence"),
}
"""Name of an operation that is refused -> the supported form that is nearest to it."""
