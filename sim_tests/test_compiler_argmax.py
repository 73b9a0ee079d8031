"""The number of the largest value: its bytes, the reference against numpy, and where an argmax is legal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from models import argmax, avg_pool, build_model, concat, conv, linear
from zeroskip.compiler import reference
from zeroskip.compiler.argmax import index_numbers, index_shape, index_tensor, index_words
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.importers import load_model
from zeroskip.compiler.ir import Kind, Model, Tensor
from zeroskip.compiler.lower import lower
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.target import Geometry
from zeroskip.compiler.verify import verify

LAST = {"relu": False, "out_signed": True}


@given(st.integers(1, 1 << 20), st.data())
def test_bytes_hold_the_number_and_no_more_than_it_needs(count, data):
    number = data.draw(st.integers(0, count - 1))
    tensor = index_tensor("index", count)
    words = index_words(np.array([number]), tensor.size)
    assert index_numbers(words).tolist() == [number]
    assert (words <= tensor.hi).all()
    assert tensor.shape == index_shape(count)
    assert tensor.size == max(1, -(-(count - 1).bit_length() // 8))


def network(count: int = 10, **options) -> Model:
    specs = (conv(4, 3), linear(count, **{**LAST, **options}), argmax())
    return build_model(np.random.default_rng(0), Tensor("input", (2, 5, 5)), specs)


@pytest.mark.parametrize("count", [1, 2, 10, 256, 257, 300])
def test_the_reference_is_numpys_argmax(count):
    # one bit: most outputs are equal
    model = network(count, out_bits=1, out_signed=False)
    verify(model)
    inputs = np.random.default_rng(1).integers(0, 256, (50, 2, 5, 5))
    values = reference.run(model, inputs)
    expected = np.argmax(values[model.results], axis=1)
    assert model.results == "fc1"
    np.testing.assert_array_equal(index_numbers(values["output"]), expected)
    assert reference.accuracy(model, inputs, expected) == 1.0


def test_an_artifact_with_an_argmax_is_read_as_it_was_written(tmp_path):
    model = network()
    found = load_model(models.write_artifact(model, tmp_path / "net.safetensors"))
    assert [layer.kind for layer in found.layers] == [Kind.CONV2D, Kind.LINEAR, Kind.ARGMAX]
    assert found.tensors == model.tensors
    inputs = model.golden["input"]
    np.testing.assert_array_equal(reference.run(found, inputs)["output"], model.golden["output"])


def test_passes_keep_the_number_and_the_outputs_before_it():
    model = build_model(
        np.random.default_rng(2),
        Tensor("input", (2, 5, 5)),
        (conv(6, 3, empty_rows=(1, 4)), linear(5, empty_rows=(2,), **LAST), argmax()),
    )
    after, report = run_passes(model)
    assert any("removed" in line for line in report)
    inputs = model.golden["input"]
    for name in ("fc1", "output"):
        np.testing.assert_array_equal(reference.run(after, inputs)[name], reference.run(model, inputs)[name])


def test_only_a_network_with_an_argmax_has_the_hardware_for_it():
    with_argmax = lower(run_passes(network())[0], Geometry(4), {})
    assert with_argmax.config.argmax_size == 10
    assert with_argmax.config.output_size == 1
    cycles = program_cycles(with_argmax)
    model = network()
    plain = replace(
        model,
        layers=(model.layers[0], replace(model.layers[1], output="output")),
        tensors={
            "input": model.tensors["input"],
            "conv1": model.tensors["conv1"],
            "output": replace(model.tensors["fc1"], name="output"),
        },
        golden={},
    )
    without = lower(run_passes(plain)[0], Geometry(4), {})
    assert without.config.argmax_size == 0
    # ten words leave instead of one; the number takes a cycle more
    assert program_cycles(without).total - cycles.total == 9 - 1


def changed(model: Model, **changes) -> Model:
    return replace(model, layers=(*model.layers[:-1], replace(model.layers[-1], **changes)))


def test_where_an_argmax_may_stand():
    model = network()
    with pytest.raises(
        CompileError, match=r"^Layer 'argmax1' gives one of 10 numbers, .* shape \(1,\), 4 unsigned bits"
    ):
        verify(replace(model, tensors={**model.tensors, "output": Tensor("output", (1,), 8)}, golden={}))
    with pytest.raises(CompileError, match=r"^Layer 'argmax1' is an argmax and must have no bias$"):
        verify(changed(model, bias=np.zeros(1, np.int32)))
    index = model.tensors["output"]
    after = replace(
        model,
        layers=(*model.layers, replace(model.layers[-1], name="again", inputs=("output",), output="more")),
        tensors={**model.tensors, "more": replace(index, name="more")},
        output="more",
        golden={},
    )
    with pytest.raises(CompileError, match=r"^Layer 'argmax1' is an argmax and must be the last layer"):
        verify(after)
    source = Tensor("input", (10,))
    alone = Model(
        "m", (replace(model.layers[-1], inputs=("input",)),), {"input": source, "output": index}, "input", "output"
    )
    with pytest.raises(CompileError, match=r"must read the results of a layer, not the network's input$"):
        verify(alone)


def test_an_argmax_of_a_concatenation_or_a_map_is_refused():
    source = Tensor("input", (4,))
    joined = (linear(3, out_scale=1.0), linear(2, inputs=("input",), out_scale=1.0), concat("fc1", "fc2"), argmax())
    with pytest.raises(CompileError, match=r"must read the results of a layer, not the concat 'concat1'$"):
        verify(build_model(np.random.default_rng(0), source, joined))
    maps = (conv(3, 2), avg_pool(2, 1), argmax())
    with pytest.raises(CompileError, match=r"its input 'pool1' has shape \(3, 3, 3\); flatten it, or average it"):
        verify(build_model(np.random.default_rng(0), Tensor("input", (2, 5, 5)), maps))
