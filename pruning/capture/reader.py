"""What the readers of single operations share: the layers so far, which node is whose result, and the refusals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx

from zeroskip.pruning.capture.source_lines import source_line
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.graph import INPUT, POOLINGS, Kind, Op
from zeroskip.pruning.selection import Selection

__all__ = ["Reader", "as_list", "as_window"]

_KEEP_BATCH = "give a sample with a batch axis, as by x[None], and leave its first axis alone"


class Reader:
    """The state of one walk over an exported graph.

    Members
    -------
    names : placeholder -> name of the parameter or buffer it stands for
    ops : layer name -> layer, in order
    made_by : node -> the layer whose result it is; several nodes are one layer's where one only changes the shape or
        was absorbed
    pool_nodes, concat_nodes : pooling or concatenation -> its node
    selections, margins : slices and paddings ``(left, right, top, bottom)`` of a layer's result, which become a layer
        or part of one where something reads them
    constants : weights of layers that stand for operations without a module
    argmax : whether the network ends in the number of its largest output
    """

    def __init__(self, names: Mapping[str, str], batch: int, supported: str) -> None:
        self.names = names
        self.batch = batch
        self.supported = supported
        self.ops: dict[str, Op] = {}
        self.made_by: dict[fx.Node, str] = {}
        self.pool_nodes: dict[str, fx.Node] = {}
        self.concat_nodes: dict[str, fx.Node] = {}
        self.selections: dict[fx.Node, tuple[fx.Node, Selection]] = {}
        self.margins: dict[fx.Node, tuple[fx.Node, tuple[int, int, int, int]]] = {}
        self.constants: dict[str, Tensor] = {}
        self.argmax = False

    def add(self, node: fx.Node, op: Op) -> None:
        """Take ``op`` as the layer that ``node`` is the result of."""
        self.ops[op.name] = op
        self.made_by[node] = op.name

    def unique(self, name: str) -> str:
        """Return ``name``, numbered where a layer has it already."""
        return name if name not in self.ops and name != INPUT else f"{name}_{len(self.ops)}"

    def refuse(self, node: fx.Node, what: str, nearest: str | None = None) -> PruningError:
        """Return the error that ``what`` at ``node`` is unsupported, with the supported form nearest to it."""
        remedy = f"; the nearest supported form is {nearest}" if nearest else ""
        return PruningError(
            f"Node '{node.name}' is unsupported: {what}{source_line(node)}{remedy}. Supported are: {self.supported}"
        )

    def misfit(self, node: fx.Node, what: str, remedy: str = _KEEP_BATCH) -> PruningError:
        """Return the error that no operation but a shape is to blame: ``what`` is found at ``node``."""
        return PruningError(f"The network cannot be captured: {what}{source_line(node)}; {remedy}")

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Return the shape of one sample."""
        shape = tuple(int(n) for n in node.meta["val"].shape)
        if shape[:1] != (self.batch,):
            raise self.misfit(node, f"node '{node.name}' has shape {shape} without the batch axis of {self.batch}")
        return shape[1:]

    def map_shape(self, node: fx.Node) -> tuple[int, ...]:
        """Return the shape of one sample as the layers see it: a sequence is a map of height 1."""
        shape = self.shape(node)
        return (shape[0], 1, shape[1]) if len(shape) == 2 else shape

    def source(self, node: fx.Node, value: Any) -> fx.Node:
        """Return an argument of ``node`` that must be the result of a layer."""
        if isinstance(value, fx.Node) and value in self.margins:
            raise self.refuse(node, f"operation '{node.target}' on a zero padding; pad in front of a convolution")
        if isinstance(value, fx.Node) and value in self.selections and value not in self.made_by:
            self._select(value)
        if not isinstance(value, fx.Node) or value not in self.made_by:
            raise self.refuse(node, f"operation '{node.target}' on something else than the result of a layer")
        return value

    def padded_source(self, node: fx.Node, value: Any) -> tuple[fx.Node, tuple[int, int, int, int]]:
        """Return the layer's result that an argument is, and the zeros ``(left, right, top, bottom)`` around it."""
        if isinstance(value, fx.Node) and value in self.margins:
            inner, margins = self.margins[value]
            return self.source(node, inner), margins
        return self.source(node, value), (0, 0, 0, 0)

    def selected(self, node: fx.Node, value: Any) -> tuple[fx.Node, Selection]:
        """Return the result of a layer that ``value`` selects from, and how."""
        if isinstance(value, fx.Node) and value in self.selections:
            return self.selections[value]
        return self.source(node, value), Selection()

    def _select(self, node: fx.Node) -> None:
        """Add the layer that a selection stands for."""
        source, selection = self.selections[node]
        if selection.identity:
            self.made_by[node] = self.made_by[source]
            return
        weight = selection.weight(self.map_shape(source)[0], source.meta["val"].dtype)
        self.add_constant(
            node, source, self.unique(f"select{1 + len(self.constants)}"), weight, stride=selection.stride
        )

    def add_constant(self, node: fx.Node, source: fx.Node, name: str, weight: Tensor, **window: Any) -> None:
        """Add a convolution with a weight of its own, no value of which is negative, for an operation without one."""
        # No module can have such a name.
        key = f"<{name}>.weight"
        self.constants[key] = weight
        inputs = (self.made_by[source],)
        # The ReLU changes no value then, and says that the codes have no sign.
        clip = (0.0, math.inf) if self.never_negative(inputs[0]) else (-math.inf, math.inf)
        before, after = self.map_shape(source), self.map_shape(node)
        self.add(node, Op(name, Kind.CONV2D, inputs, before, after, key, clip=clip, **window))

    def alone(self, node: fx.Node, name: str) -> bool:
        """Return whether ``node`` is all that reads the result of layer ``name``: the layer may then absorb it."""
        aliases = [known for known, maker in self.made_by.items() if maker == name]
        return {user for known in aliases for user in known.users} - set(aliases) == {node}

    def never_negative(self, name: str) -> bool:
        """Return whether no value of layer ``name`` is below 0."""
        op = self.ops[name]
        if op.kind in POOLINGS or op.kind is Kind.CONCAT:
            return all(before != INPUT and self.never_negative(before) for before in op.inputs)
        return op.relu

    def reads_input(self, name: str) -> bool:
        """Return whether ``name`` is the network's input or a pooling of it."""
        if name == INPUT:
            return True
        op = self.ops[name]
        return op.kind in POOLINGS and self.reads_input(op.inputs[0])

    def parameter(self, node: fx.Node, value: Any) -> str | None:
        """Return the name of the parameter that an argument is, None for None."""
        if value is None:
            return None
        name = self.names.get(value.name)
        if name is None:
            raise self.refuse(node, "a weight or bias that is not a parameter of the model")
        return name


def as_list(value: Any) -> list[int]:
    """Return an int or a list of ints as a list."""
    return [value] if isinstance(value, int) else [int(v) for v in value]


def as_window(value: Any, shape: Sequence[Any]) -> tuple[int, int]:
    """Return an int or a list as ``(y, x)`` for a window over positions of ``shape``; a sequence has height 1."""
    items = as_list(value)
    if len(shape) == 1:
        return 1, items[0]
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])
