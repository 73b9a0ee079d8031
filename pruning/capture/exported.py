"""Walk a module's exported graph once and build its layers."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from zeroskip.pruning.capture.operations import HANDLERS, JOINS, NEAREST, SUPPORTED
from zeroskip.pruning.capture.reader import Reader
from zeroskip.pruning.capture.samples import refuse_sample, silenced
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.graph import INPUT, Graph

__all__ = ["capture"]


def capture(model: nn.Module, sample: Tensor) -> Graph:
    """Return the layers of ``model`` in eval mode; ``sample`` is an example input with a batch axis.

    Raises
    ------
    PruningError
        For an operation or an arrangement outside :data:`SUPPORTED`, with the node, the user's source line and the
        nearest supported form; for a sample of a wrong shape, with what is odd about it.
    """
    training = model.training
    model.eval()
    try:
        with silenced():
            program = torch.export.export(model, (sample,), strict=False)
    except Exception as error:
        # torch.export raises many types; all mean that the module has no static graph for such a sample.
        raise refuse_sample(model, sample, error, SUPPORTED) from error
    finally:
        model.train(training)
    return _read(program, sample.shape[0])


def _read(program: Any, batch: int) -> Graph:
    signature = program.graph_signature
    inputs, outputs = tuple(signature.user_inputs), tuple(signature.user_outputs)
    if len(inputs) != 1 or len(outputs) != 1:
        raise PruningError(f"A network must have one input and one output, not {len(inputs)} and {len(outputs)}")
    names = dict(signature.inputs_to_parameters) | dict(signature.inputs_to_buffers)
    reader = Reader(names, batch, SUPPORTED)
    in_shape: tuple[int, ...] = ()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name == inputs[0]:
                reader.made_by[node] = INPUT
                in_shape = reader.map_shape(node)
        elif node.op == "call_function":
            _call(reader, node)
        elif node.op == "output":
            made = {known.name: name for known, name in reader.made_by.items()}
            if not reader.ops or made.get(outputs[0]) != list(reader.ops)[-1]:
                raise PruningError("The network's output must be that of its last layer")
        else:
            raise reader.refuse(node, f"node '{node.op}'")
    ops = tuple(reader.ops.values())
    if not any(op.weight for op in ops):
        raise PruningError("The network has no convolution and no linear layer")
    read = {name for op in ops for name in op.inputs}
    for op in ops[:-1]:
        if op.name not in read:
            raise PruningError(f"Layer '{op.name}' is computed, but the network's output does not depend on it")
    return Graph(ops, in_shape, reader.constants, reader.argmax)


def _call(reader: Reader, node: fx.Node) -> None:
    if node.target is operator.getitem and (node.args[1] == 0 or not node.users):
        # The values of an adaptive maximum; nothing may read their places.
        reader.made_by[node] = reader.made_by[reader.source(node, node.args[0])]
        return
    full = str(node.target)
    name = full.removeprefix("aten.").split(".")[0].removesuffix("_")
    if not full.startswith("aten.") or name not in HANDLERS:
        raise reader.refuse(node, f"operation '{full}'", NEAREST.get(name))
    if reader.argmax:
        raise reader.refuse(node, f"operation '{full}' behind an argmax")
    arguments = _arguments(node)
    if name not in JOINS:
        arguments["input"] = reader.source(node, arguments.get("input", arguments.get("self")))
    HANDLERS[name](reader, node, arguments)


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Return the operator's arguments by name, defaults included."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    values = {a.name: a.default_value for a in schema if a.has_default_value()}
    values |= {a.name: value for a, value in zip(schema, node.args, strict=False)}
    return values | dict(node.kwargs)
