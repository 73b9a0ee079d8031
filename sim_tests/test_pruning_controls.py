"""Control recipes: the same final sets and epochs, stages that are shared, and what has no control."""

from __future__ import annotations

from dataclasses import replace

from zeroskip.pruning import NM, Budget, NonStructured
from zeroskip.pruning.controls import controls
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.recipe import LayerRule, Method, Quantization, Recipe, Stage, StageAllocation
from zeroskip.pruning.training import Phase


def phase(epochs, **more):
    return Phase(epochs, (1e-3, 1e-4), **more)


def stage(name, admm, retrain, **rules):
    return Stage(name, {layer: LayerRule(kind, options) for layer, (kind, options) in rules.items()}, admm, retrain)


def recipe(*stages):
    return Recipe("r", "digits_cnn", "digits", phase(7), Quantization(phase(3)), stages, Input(16))


FIRST = stage("a", phase(2), phase(4), conv1=("nonstructured", {"keep": 0.5}), fc1=("nonstructured", {"keep": 0.4}))
SECOND = stage("b", phase(3), phase(5, distill=0.5), fc1=("nonstructured", {"keep": 0.1}))
STRUCTURED = stage("c", phase(3), phase(5), fc1=("column", {"keep": 4}))
LEVELS = stage("levels", phase(2), phase(0), fc1=("levels", {"bits": 4}))
JOINT = stage(
    "joint", phase(2), phase(1),
    fc1=("joint", {"structure": {"kind": "nm", "n": 2, "m": 4}, "levels": {"kind": "levels", "bits": 4}}),
)  # fmt: skip


def test_one_stage_has_all_epochs_and_the_final_sets():
    base = recipe(FIRST, SECOND)
    found = controls(base)
    assert list(found) == ["oneshot", "gradual"]
    for name, control in found.items():
        (only,) = control.stages
        assert (control.name, only.name, only.method.value) == (f"r-{name}", name, name)
        assert control.epochs() == base.epochs()
        assert (only.admm.epochs, only.retrain.epochs, only.retrain.distill) == (5, 9, 0.5)
        assert only.layers["fc1"].constraint() == NonStructured(0.1)
        assert only.layers["conv1"].constraint() == NonStructured(0.5)
        assert replace(control, name="r", stages=base.stages) == base


def test_controls_share_the_budget_of_the_last_stage_that_has_one():
    share = StageAllocation(Budget(macs=500))
    for stages in ((FIRST, replace(SECOND, allocation=share)), (replace(FIRST, allocation=share), SECOND)):
        assert [control.stages[0].allocation for control in controls(recipe(*stages)).values()] == [share, share]


def test_scratch_finds_the_shape_with_the_recipes_own_stages():
    base = recipe(FIRST, STRUCTURED)
    scratch = controls(base)["scratch"]
    assert scratch.stages[:2] == base.stages
    last = scratch.stages[2]
    assert last.method is Method.SCRATCH
    assert last.admm.epochs + last.retrain.epochs == 7 + 2 + 4 + 3 + 5
    assert last.retrain.lr == base.dense.lr


def test_stages_that_quantize_stay_and_joint_sets_are_pruned_only():
    found = controls(recipe(FIRST, LEVELS))
    assert [s.name for s in found["oneshot"].stages] == ["oneshot", "levels"]
    joint = controls(recipe(JOINT))
    assert joint["gradual"].stages[0].layers["fc1"].constraint() == NM(2, 4)
    assert [s.name for s in joint["scratch"].stages] == ["joint", "scratch"]


def test_what_prunes_nothing_has_no_control():
    assert controls(recipe()) == {}
    assert controls(recipe(LEVELS)) == {}


def test_what_is_pruned_without_admm_has_no_control():
    assert controls(recipe(replace(FIRST, method=Method.MAGNITUDE))) == {}
