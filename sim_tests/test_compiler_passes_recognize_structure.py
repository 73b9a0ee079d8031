"""Zeros in a known structure are recognized where nobody says so, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models import build_model, conv, linear
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.formats import layer_formats
from zeroskip.compiler.ir import Model, Tensor
from zeroskip.compiler.lower import lower
from zeroskip.compiler.passes.recognize_structure import recognize_structure
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.reference import run
from zeroskip.compiler.target import Engine, Geometry

PATTERNS = [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]
KINDS = {
    "kernel": (0.3, {}, "is pruned by kernels"),
    "vector": (0.4, {"size": 4, "axis": "input"}, "is pruned by runs of 4 input channels"),
    "pattern": (0.6, {"patterns": PATTERNS}, "has kernels of 4 patterns"),
    "nm": (1.0, {"n": 2, "m": 4}, "keeps 2 of 4 weights"),
}


def unsaid(model: Model, name: str) -> Model:
    """Return the model with a layer whose zeros are said to have no structure."""
    kept = int(np.count_nonzero(model.layer(name).weight))
    return replace(
        model,
        layers=tuple(
            replace(layer, structure={"kind": "nonstructured", "keep": kept}) if layer.name == name else layer
            for layer in model.layers
        ),
    )


def network(structure: str, keep: float, detail: dict, seed: int = 0) -> Model:
    first = conv(16, 3, padding=1, bits=8)
    second = conv(12, 3, structure=structure, keep=keep, detail=detail, bits=8)
    source = Tensor("input", (4, 8, 8), scale=1 / 255)
    return build_model(np.random.default_rng(seed), source, [first, second, linear(10, bits=8)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_structure_is_found_that_nobody_named(kind: str) -> None:
    keep, detail, words = KINDS[kind]
    said = network(kind, keep, detail)
    report: list[str] = []
    found = recognize_structure(unsaid(said, "conv2"), report)
    assert report == [f"recognize_structure: layer 'conv2' {words}"]
    structure = dict(found.layer("conv2").structure)
    assert structure.pop("kind") == kind
    if kind == "pattern":
        assert sorted(structure.pop("patterns")) == PATTERNS
    assert {key: value for key, value in structure.items() if key != "keep"} == {
        key: value for key, value in detail.items() if key != "patterns"
    }
    np.testing.assert_array_equal(found.layer("conv2").weight, said.layer("conv2").weight)
    assert recognize_structure(found, report).layers == found.layers and len(report) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_it_stores_fewer_bits_in_no_more_cycles(kind: str) -> None:
    keep, detail, _ = KINDS[kind]
    model = unsaid(network(kind, keep, detail), "conv2")
    found, _ = run_passes(model)
    inputs = model.golden["input"]
    np.testing.assert_array_equal(run(found, inputs)[found.output], run(model, inputs)[model.output])
    geometry = Geometry(16, cores=2)
    programs = [lower(each, geometry, layer_formats(each, Engine.SPARSE)) for each in (run_passes(model)[0], model)]
    named, unnamed = ({plan.layer.name: plan for plan in program.layers}["conv2"] for program in programs)
    assert named.storage["total"] < unnamed.storage["total"]
    cycles = [program_cycles(program).total for program in programs]
    assert cycles[0] <= 1.05 * cycles[1]


def test_quantization_may_zero_a_few_that_were_kept() -> None:
    model = network("nm", 1.0, {"n": 2, "m": 4})
    weight = np.array(model.layer("conv2").weight)
    kept = np.argwhere(weight)
    for at in kept[:: len(kept) // 40]:
        weight[tuple(at)] = 0
    layers = [replace(layer, weight=weight) if layer.name == "conv2" else layer for layer in model.layers]
    found = recognize_structure(unsaid(replace(model, layers=tuple(layers)), "conv2"))
    assert found.layer("conv2").structure == {"kind": "nm", "n": 2, "m": 4}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("keep", [0.02, 0.1, 0.3, 0.5, 0.8, 0.97])
def test_weights_pruned_one_by_one_have_none(seed: int, keep: float) -> None:
    model = network("nonstructured", keep, {}, seed)
    report: list[str] = []
    assert recognize_structure(model, report).layers == model.layers and report == []


def test_what_is_said_stays(tmp_path) -> None:
    for kind, (keep, detail, _) in KINDS.items():
        model = network(kind, keep, detail)
        assert recognize_structure(model).layers == model.layers
    dense = network("dense", 1.0, {})
    assert recognize_structure(unsaid(dense, "conv2")).layer("conv2").structure["kind"] == "nonstructured"
