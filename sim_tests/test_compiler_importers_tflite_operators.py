"""Every operator against a second statement of the framework's formula, and against the framework where it is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tflite_cases import CASES, Case, inputs_of
from zeroskip.compiler import reference
from zeroskip.compiler.importers.tflite import load_tflite
from zeroskip.compiler.ir import Model

Array = NDArray[Any]


def imported(case: Case, tmp_path) -> Model:
    path = tmp_path / "model.tflite"
    path.write_bytes(case.content)
    return load_tflite(path)


def ours(model: Model, inputs: Array) -> Array:
    """Return the outputs for inputs as the file has them, as the file has them."""
    codes = inputs.transpose(0, 3, 1, 2) if inputs.ndim == 4 else inputs
    outputs = reference.run(model, np.ascontiguousarray(codes))[model.output]
    return outputs.transpose(0, 2, 3, 1) if outputs.ndim == 4 else outputs


@pytest.mark.parametrize("name", CASES)
def test_operator_equals_the_formula(name, tmp_path):
    case = CASES[name]
    inputs = inputs_of(case)
    wanted = case.expect(inputs)
    got = ours(imported(case, tmp_path), inputs)
    assert len(np.unique(wanted)) > 2  # a case that saturates throughout would prove nothing
    assert np.array_equal(got.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("name", CASES)
def test_operator_equals_the_framework(name, tmp_path):
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    case = CASES[name]
    interpreter = interpreters.Interpreter(
        model_content=case.content, experimental_op_resolver_type=interpreters.OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    inputs, wanted = inputs_of(case), []
    for sample in inputs:
        interpreter.set_tensor(source["index"], sample[None])
        interpreter.invoke()
        wanted.append(interpreter.get_tensor(target["index"])[0].copy())
    got = ours(imported(case, tmp_path), inputs)
    assert np.array_equal(got.reshape(np.shape(wanted)), wanted)
