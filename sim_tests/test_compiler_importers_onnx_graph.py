"""An ONNX file is data: damaged, absurd and foreign ones are refused quickly, with a reason, and nothing is opened."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_networks import Net, evaluate
from zeroskip.compiler import reference
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.importers.onnx_model import load_onnx
from zeroskip.vectors import to_codes

ROUNDS = 300


def small() -> Net:
    rng = np.random.default_rng(3)
    net = Net([1, 2, 5, 5])
    net.quant("x", 0.5, 0, 4)
    net.op("Conv", net.last, net.weight(rng.normal(0, 2, (3, 2, 3, 3)), 1.0, 3), pads=[1, 1, 1, 1])
    net.norm(rng, 3)
    net.op("Relu")
    net.quant(net.last, 0.5, 0, 3, signed=0)
    net.op("MaxPool", net.last, kernel_shape=[2, 2], strides=[2, 2])
    net.op("Flatten")
    net.op("MatMul", net.last, net.weight(rng.normal(0, 2, (12, 4)), 0.5, 3))
    net.quant(net.last, 1.0, 0, 5)
    return net


def write(tmp_path, proto) -> object:
    path = tmp_path / "net.onnx"
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    return path


def initializer(proto, name="c0"):
    return next(item for item in proto.graph.initializer if item.name == name)


def external(proto):
    tensor = initializer(proto)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def dimensions(*sizes):
    def edit(proto):
        initializer(proto).dims[:] = sizes

    return edit


def dtype(kind):
    def edit(proto):
        initializer(proto).data_type = kind

    return edit


def input_size(axis, **size):
    def edit(proto):
        dim = proto.graph.input[0].type.tensor_type.shape.dim[axis]
        dim.Clear()
        for key, value in size.items():
            setattr(dim, key, value)

    return edit


def cycle(proto):
    proto.graph.node[0].input[0] = proto.graph.node[2].output[0]


def subgraph(proto):
    proto.graph.node[3].attribute.append(helper.make_attribute("body", helper.make_graph([], "g", [], [])))


def second_input(proto):
    proto.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))


EDITS = {
    "external data": (external, r"Initializer 'c0' lies in another file, '../../etc/passwd'; save the model with its"),
    "absurd size": (dimensions(1 << 40, 1 << 40), "Initializer 'c0' has shape .*; sizes must be natural numbers"),
    "negative size": (dimensions(-1, -1), "sizes must be natural numbers"),
    "too few bytes": (dimensions(1000), r"Initializer 'c0' of shape \(1000,\) needs 4000 bytes, but 4 are there"),
    "half floats": (dtype(TensorProto.FLOAT16), "Initializer 'c0' has data type FLOAT16; supported are FLOAT"),
    "unknown type": (dtype(77), "Initializer 'c0' has data type 77"),
    "text": (dtype(TensorProto.STRING), "has data type STRING"),
    "dynamic size": (
        input_size(2, dim_param="height"),
        "Input 'x' has axis 2 of size 'height'; export it with a fixed",
    ),
    "negative input": (input_size(1, dim_value=-3), "Input 'x' has axis 1 of size -3"),
    "absurd input": (input_size(1, dim_value=1 << 60), "more than 268435456 elements"),
    "batch": (input_size(0, dim_value=8), "Input 'x' has a batch of 8; export it with a batch of 1 or a dynamic one"),
    "cycle": (cycle, r"Node 'Quant_0' \(Quant\) reads 't2', which is written only afterwards: a cycle"),
    "unknown tensor": (lambda p: p.graph.node[0].input.__setitem__(0, "?"), "reads '\\?', which nothing writes"),
    "written twice": (lambda p: p.graph.node[1].output.__setitem__(0, "t0"), "writes 't0', which exists already"),
    "two names": (lambda p: setattr(p.graph.node[1], "name", "Quant_0"), "Node name 'Quant_0' must be unique"),
    "two initializers": (lambda p: p.graph.initializer.append(initializer(p)), "Initializer name 'c0' must be unique"),
    "foreign domain": (lambda p: setattr(p.graph.node[0], "domain", "com.evil"), "has domain 'com.evil'; known are"),
    "old operators": (lambda p: setattr(p.opset_import[0], "version", 6), "has operator set 6; supported are 9 to"),
    "new operators": (lambda p: setattr(p.opset_import[0], "version", 99), "has operator set 99"),
    "subgraph": (subgraph, "has attribute 'body' of a kind that is not supported: no subgraphs"),
    "functions": (lambda p: p.functions.add(name="f"), "has functions of its own"),
    "sparse": (lambda p: p.graph.sparse_initializer.add(), "has sparse initializers"),
    "two inputs": (second_input, "The graph must have one input, not 'x', 'y'"),
    "no output": (lambda p: p.graph.ClearField("output"), "The graph must have one output, not none"),
    "strange output": (lambda p: setattr(p.graph.output[0], "name", "?"), "Output '\\?' is a constant, the input or"),
    "unknown operator": (lambda p: setattr(p.graph.node[4], "op_type", "Reluu"), "is not supported; nearest is Relu"),
    "empty": (lambda p: p.Clear(), "has operator set 0"),
}


@pytest.mark.parametrize(("edit", "text"), EDITS.values(), ids=EDITS)
def test_faulty_files_are_refused(tmp_path, edit, text):
    proto = small().proto()
    edit(proto)
    with pytest.raises(InputError, match=text):
        load_onnx(write(tmp_path, proto))


@pytest.mark.parametrize("content", [b"", b"not an onnx file", b"\x80\x04\x95pickle", b"\x08" * 1000])
def test_files_of_another_kind_are_refused(tmp_path, content):
    with pytest.raises(InputError, match="net.onnx'"):
        load_onnx(write(tmp_path, content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="gone.onnx' does not exist"):
        load_onnx(tmp_path / "gone.onnx")


@pytest.mark.parametrize(
    "edit", [dimensions(1 << 14, 1 << 13), dimensions(1 << 62, 4), input_size(1, dim_value=1 << 27)]
)
def test_declared_sizes_take_no_memory(tmp_path, edit):
    proto = small().proto()
    edit(proto)
    path = write(tmp_path, proto)
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            load_onnx(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def mutate(rng: np.random.Generator, content: bytes) -> bytes:
    """Return the file with a few bytes changed, cut out, doubled, or a number in its structure changed."""
    kind = rng.integers(5)
    data = bytearray(content)
    place = int(rng.integers(len(data)))
    if kind == 0:
        for _ in range(int(rng.integers(1, 9))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
    elif kind == 1:
        del data[place : place + int(rng.integers(1, 64))]
    elif kind == 2:
        data[place:place] = data[place : place + int(rng.integers(1, 64))]
    elif kind == 3:
        del data[place:]
    else:
        return _structural(rng, content)
    return bytes(data)


def _structural(rng: np.random.Generator, content: bytes) -> bytes:
    """Return the file with a legal structure and one number or name changed."""
    proto = onnx.ModelProto.FromString(content)
    node = proto.graph.node[int(rng.integers(len(proto.graph.node)))]
    tensor = proto.graph.initializer[int(rng.integers(len(proto.graph.initializer)))]
    extremes = (0, 1, -1, 2, 3, 1 << 31, -(1 << 63), (1 << 63) - 1)
    number = extremes[int(rng.integers(len(extremes)))]
    choice = rng.integers(6)
    if choice == 0 and node.attribute:
        attribute = node.attribute[int(rng.integers(len(node.attribute)))]
        if attribute.ints:
            attribute.ints[int(rng.integers(len(attribute.ints)))] = number
        else:
            attribute.i = number
    elif choice == 1 and tensor.dims:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = number
    elif choice == 2:
        values = np.frombuffer(tensor.raw_data, np.uint8).copy()
        if len(values):
            values[int(rng.integers(len(values)))] ^= 1 << int(rng.integers(8))
        tensor.raw_data = values.tobytes()
    elif choice == 3:
        ops = ("Relu", "MaxPool", "Add", "Concat", "Quant", "Transpose", "Softmax", "Trunc", "Gemm", "Shape", "If")
        node.op_type = ops[int(rng.integers(len(ops)))]
    elif choice == 4 and node.input:
        others = [name for other in proto.graph.node for name in (*other.input, *other.output)]
        node.input[int(rng.integers(len(node.input)))] = others[int(rng.integers(len(others)))]
    else:
        special = np.float32([np.nan, np.inf, -np.inf, 0, 1e-45, 3e38, -1])[int(rng.integers(7))]
        if tensor.data_type == TensorProto.FLOAT and tensor.raw_data:
            values = np.frombuffer(tensor.raw_data, np.float32).copy()
            values[int(rng.integers(len(values)))] = special
            tensor.raw_data = values.tobytes()
    return proto.SerializeToString()


def agree(content: bytes, model) -> bool:
    """Whether a network that was taken computes what its file says; True where the evaluator does not know the file."""
    proto = onnx.ModelProto.FromString(content)
    tensor = model.tensors[model.input]
    inputs = np.random.default_rng(1).normal(0, 2, (3, *tensor.shape)).astype(np.float32)
    expected = evaluate(proto, inputs).get(model.output)
    got = reference.run(model, to_codes(inputs, tensor, "inputs"))[model.output].astype(np.int64)
    target = model.tensors[model.output]
    values = (got - target.zero_point).astype(np.float32) * np.float32(target.scale)
    if expected is not None and expected.dtype != np.float32:
        values = got
    return expected is None or np.array_equal(values.reshape(expected.shape), expected)


def fuzz(tmp_path, content: bytes, rounds: int, seed: int) -> tuple[int, int, int]:
    """Mutate a file; return how many were refused, taken, and taken and compared."""
    rng = np.random.default_rng(seed)
    counts = [0, 0, 0]
    for number in range(rounds):
        mutated = mutate(rng, content)
        path = write(tmp_path, mutated)
        begin = time.monotonic()
        try:
            model = load_onnx(path)
        except InputError as error:
            counts[0] += 1
            assert "net.onnx" in str(error), f"seed {seed}, round {number}"
            continue
        finally:
            assert time.monotonic() - begin < 20, f"seed {seed}, round {number}"
        counts[1] += 1
        try:
            same = agree(mutated, model)
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration, UnicodeDecodeError, IndexError):
            continue  # the evaluator does not know this file
        assert same, f"seed {seed}, round {number}"
        counts[2] += 1
    return counts[0], counts[1], counts[2]


def test_mutated_files_are_refused_or_mean_what_they_say(tmp_path):
    refused, taken, compared = fuzz(tmp_path, small().proto().SerializeToString(), ROUNDS, 1)
    assert refused > ROUNDS // 3
    assert compared > taken // 2 > 10


@pytest.mark.slow
def test_ten_thousand_mutated_files(tmp_path):
    refused, taken, compared = fuzz(tmp_path, small().proto().SerializeToString(), 10000, 2)
    assert refused + taken == 10000
    assert compared > 100
