"""Activation functions that a clamp of the codes computes, and what the host does behind the last layer."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

from torch import fx

from zeroskip.pruning.capture.reader import Reader
from zeroskip.pruning.graph import INPUT, Kind

__all__ = ["clamp", "on_host", "relu"]

_log = logging.getLogger(__name__)

Arguments = dict[str, Any]


def relu(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read a ReLU."""
    _clip(reader, node, a["input"], "ReLU", 0.0, math.inf)


def clamp(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Read ReLU6, HardTanh and the forms of clamp."""
    label = str(node.target).removeprefix("aten.").split(".")[0].removesuffix("_")
    lo, hi = (0.0, 6.0) if label == "relu6" else (a.get("min_val", a.get("min")), a.get("max_val", a.get("max")))
    limits = (-math.inf if lo is None else lo, math.inf if hi is None else hi)
    if not all(isinstance(limit, (int, float)) for limit in limits) or limits[0] > limits[1]:
        raise reader.refuse(node, f"{label} whose limits are no two ascending numbers")
    _clip(reader, node, a["input"], label, float(limits[0]), float(limits[1]))


def _clip(reader: Reader, node: fx.Node, source: fx.Node, label: str, lo: float, hi: float) -> None:
    _absorb(reader, node, node, reader.made_by[source], label, lo, hi)
    reader.made_by[node] = reader.made_by[source]


def _absorb(reader: Reader, node: fx.Node, consumer: fx.Node, name: str, label: str, lo: float, hi: float) -> None:
    """Give the function of ``node`` to layer ``name``, which ``consumer`` reads.

    It never falls, so it commutes with a maximum, and it works on every value, so it commutes with a concatenation: it
    then belongs to the layers before these.
    """
    op = reader.ops.get(name)
    if op is None or (op.weight is None and op.kind not in (Kind.MAX_POOL2D, Kind.CONCAT, Kind.ADD)):
        raise reader.refuse(node, f"{label} that does not follow a convolution or linear layer or a sum")
    if op.kind in (Kind.MAX_POOL2D, Kind.CONCAT):
        own = reader.pool_nodes[name] if op.kind is Kind.MAX_POOL2D else reader.concat_nodes[name]
        if not _idle(reader, name, lo, hi) and not reader.alone(consumer, name):
            raise reader.refuse(node, f"{label} of layer '{name}', whose result without it is used as well")
        for before in dict.fromkeys(op.inputs):
            _absorb(reader, node, own, before, label, lo, hi)
        return
    clip = (min(max(op.clip[0], lo), hi), min(max(op.clip[1], lo), hi))
    if clip == op.clip:
        return
    if not reader.alone(consumer, name):
        raise reader.refuse(node, f"{label} of layer '{name}', whose result without it is used as well")
    reader.ops[name] = replace(op, clip=clip)


def _idle(reader: Reader, name: str, lo: float, hi: float) -> bool:
    """Return whether every value of layer ``name`` lies in ``lo`` to ``hi`` already."""
    if name == INPUT:
        return False
    op = reader.ops[name]
    if op.kind in (Kind.MAX_POOL2D, Kind.CONCAT):
        return all(_idle(reader, before, lo, hi) for before in op.inputs)
    return lo <= op.clip[0] and op.clip[1] <= hi


def on_host(reader: Reader, node: fx.Node, a: Arguments) -> None:
    """Leave Softmax behind the last layer to the host: the network's outputs are the values before it."""
    label = str(node.target).removeprefix("aten.").split(".")[0]
    shape = reader.shape(a["input"])
    axis = a["dim"] % (1 + len(shape)) - 1
    over_classes = axis >= 0 and math.prod(shape) == shape[axis]
    if any(user.op != "output" for user in node.users) or not over_classes:
        raise reader.refuse(node, f"{label} before the end of the network, or not over one axis of classes")
    _log.warning("%s at the end is left to the host: the outputs are the values before it", label)
    reader.made_by[node] = reader.made_by[a["input"]]
