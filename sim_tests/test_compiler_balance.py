"""Tests of the sorting of rows by length."""

from __future__ import annotations

import numpy as np
import pytest

from models import Spec, add, build_model, linear, random_codes
from zeroskip.compiler.balance import balance_rows, row_slots
from zeroskip.compiler.formats import layer_formats
from zeroskip.compiler.ir import Model, Rounding, Tensor
from zeroskip.compiler.reference import run
from zeroskip.compiler.target import Engine, Geometry
from zeroskip.compiler.verify import verify

SPARSE = {"structure": "nonstructured", "keep": 0.3}
LAST = {"relu": False, "out_signed": True}


def network(*specs: Spec) -> Model:
    return build_model(np.random.default_rng(2), Tensor("input", (20,)), specs)


def balanced(model: Model) -> dict[str, tuple[int, ...]]:
    """Sort for 4 lanes and prove that the output did not change and that every golden sample is still right."""
    after, orders = balance_rows(model, Geometry(4), layer_formats(model, Engine.SPARSE))
    verify(after)
    inputs = random_codes(np.random.default_rng(8), model.tensors["input"], 8)
    np.testing.assert_array_equal(run(after, inputs)["output"], run(model, inputs)["output"])
    got = run(after, after.golden["input"])
    for name, codes in after.golden.items():
        np.testing.assert_array_equal(codes, got[name], err_msg=name)
    return orders


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("per_channel", [False, True])
def test_rows_are_sorted_with_all_their_arrays(rounding: Rounding, per_channel: bool) -> None:
    common = {**SPARSE, "rounding": rounding, "per_channel": per_channel}
    model = network(linear(9, **common), linear(7, **common), linear(3, **{**common, **LAST}))
    orders = balanced(model)
    assert set(orders) == {"fc1", "fc2"}
    lengths = row_slots(model.layers[0])[list(orders["fc1"])]
    assert (np.diff(lengths) <= 0).all()


def test_rows_that_several_layers_read_or_that_are_added_stay() -> None:
    model = network(
        linear(9, **SPARSE),
        linear(6, **SPARSE),
        linear(6, **SPARSE, inputs=("fc1",)),
        add("fc2", "fc3"),
        linear(8, **SPARSE),
        linear(3, **LAST),
    )
    assert set(balanced(model)) == {"fc4"}


def test_rows_that_a_structure_counts_stay() -> None:
    model = network(
        linear(8, **SPARSE),
        linear(8, structure="nm", detail={"n": 1, "m": 4}),
        linear(8, structure="vector", keep=0.5, detail={"axis": "output", "size": 2}),
        linear(3, **LAST),
    )
    assert set(balanced(model)) == {"fc2"}
