"""Copies for readers that need a tensor stored differently: the function stays, and only differing readers get one."""

from __future__ import annotations

import numpy as np

import models
from models import add, conv, linear, max_pool
from zeroskip.compiler import reference
from zeroskip.compiler.ir import Kind, Model, Tensor
from zeroskip.compiler.passes.copy_tensors import copy_tensors

LAST = {"relu": False, "out_signed": True}


def build(*specs: models.Spec) -> Model:
    return models.build_model(np.random.default_rng(3), Tensor("input", (2, 8, 8), scale=1 / 255), specs)


def check_same_function(model: Model, changed: Model) -> None:
    inputs = model.golden["input"]
    before, after = reference.run(model, inputs), reference.run(changed, inputs)
    for name in model.tensors:
        np.testing.assert_array_equal(before[name], after[name])


def test_chain_is_left_alone():
    model = build(conv(4, 3, padding=1), max_pool(2), linear(3, **LAST))
    report: list[str] = []
    assert [layer.name for layer in copy_tensors(model, report).layers] == [layer.name for layer in model.layers]
    assert report == []


def test_strided_and_unstrided_readers_get_a_copy():
    model = build(
        conv(4, 3, padding=1),
        conv(4, 3, padding=1, stride=2, inputs=("conv1",)),
        conv(4, 3, padding=1, inputs=("conv1",)),
        conv(4, 1, stride=2, inputs=("conv3",)),
        add("conv2", "conv4"),
        linear(3, **LAST),
    )
    report: list[str] = []
    changed = copy_tensors(model, report)
    copies = [layer for layer in changed.layers if layer.name.endswith(".copy1")]
    assert [(layer.kind, layer.inputs) for layer in copies] == [(Kind.AVG_POOL2D, ("conv1",))]
    assert report == ["copy_tensors: layer 'conv2' reads a copy of 'conv1', stored its own way"]
    check_same_function(model, changed)
