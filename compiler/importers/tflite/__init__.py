"""Read a full-integer TensorFlow Lite file into a Model that equals the framework's reference kernels, code by code."""

from __future__ import annotations

import re
from pathlib import Path

from zeroskip.compiler.errors import CompileError, InputError
from zeroskip.compiler.importers.tflite.file import Graph, read_graph
from zeroskip.compiler.importers.tflite.network import Network, Value
from zeroskip.compiler.importers.tflite.operators import import_operator
from zeroskip.compiler.ir import Model
from zeroskip.compiler.verify import verify

__all__ = ["load_tflite"]


def load_tflite(path: Path | str) -> Model:
    """Read a ``.tflite`` file with int8 activations, int8 weights and int32 biases.

    Maps ``(1, H, W, C)`` become ``(C, H, W)``. Layers and tensors have the names of the file's tensors, their first
    part where several were fused. SOFTMAX, DEQUANTIZE and the QUANTIZE of the input are left to the host, and so is an
    ARG_MAX behind them.

    Returns
    -------
    Model : legal as :func:`zeroskip.compiler.verify.verify` has it, named after the file; ``metadata`` has
        ``provenance``, ``notes`` (a line for every operator of the file) and ``source_tensors`` (the file's names of
        ours)

    Raises
    ------
    InputError
        Naming the operator or tensor, the reason and the nearest supported form.
    """
    path = Path(path)
    graph = read_graph(path)
    network = Network(graph, f"Model {str(path)!r}")
    source = graph.tensors[graph.input]
    if source.type == "INT8":
        if not graph.nodes:
            raise InputError(f"{network.what} has no operators; export a model that computes something")
        network.codes(graph.nodes[0], source)
        network.open_input(source)
    for node in graph.nodes:
        import_operator(network, node)
    model = _model(path, graph, network)
    try:
        verify(model)
    except CompileError as error:
        raise InputError(f"{network.what} is not a network that can be served: {error}") from error
    return model


def _model(path: Path, graph: Graph, network: Network) -> Model:
    """Return the model of a network that is complete."""
    output = network.values.get(graph.output)
    name = graph.tensors[graph.output].name
    if output is None or not network.layers:
        raise InputError(f"{network.what} must compute its output {name!r}, but no layer does; export it again")
    if any(output.border):
        raise InputError(f"{network.what} pads its output {name!r}; leave the PAD out of the exported model")
    return Model(
        re.sub(r"[^A-Za-z0-9_.\-]+", "-", path.stem) or "model",
        tuple(network.layers),
        network.tensors,
        network.input,
        output.tensor,
        metadata={
            "provenance": _provenance(graph, network, output),
            "notes": network.notes,
            "source_tensors": network.sources,
        },
    )


def _provenance(graph: Graph, network: Network, output: Value) -> dict[str, str]:
    """Return where the model comes from and what the host has to know of its input and output."""
    rows = {"source": f"TensorFlow Lite, {graph.description or 'no description'}"}
    for label, name, shape in (
        ("input", network.input, graph.tensors[graph.input].shape),
        ("output", output.tensor, output.shape),
    ):
        rows[label] = f"{shape} of the file is {network.tensors[name].shape} here"
    left = [note for note in network.notes if "left to the host" in note]
    if left:
        rows["left to the host"] = ", ".join(note.split()[3] for note in left)
    return rows
