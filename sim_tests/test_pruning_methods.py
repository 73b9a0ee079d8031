"""The ways of a stage: as many epochs in each, sets that hold, and what each does to the weights."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from zeroskip.pruning import PruningError
from zeroskip.pruning.checkpoints import Checkpoints
from zeroskip.pruning.data import load_digits
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.methods import run_stage
from zeroskip.pruning.networks import make_network
from zeroskip.pruning.recipe import LayerRule, Method, Quantization, Recipe, Stage
from zeroskip.pruning.retrain import Run, run_stages
from zeroskip.pruning.training import Phase

RULES = {
    "conv1": LayerRule("filter", {"keep": 4}),
    "conv2": LayerRule("column", {"keep": 20}),
    "fc1": LayerRule("nonstructured", {"keep": 200}),
}
STAGE = Stage("half", RULES, Phase(2, (2e-3, 1e-3)), Phase(1, (2e-3, 1e-3)), (1e-2, 1.0), 3)


@pytest.fixture(scope="module")
def split():
    whole = load_digits()
    return replace(whole, train=whole.train.take(0, 320), validation=whole.validation.take(0, 100))


def finished(split, *stages, seed=0):
    """Return the run of some stages after two dense epochs."""
    quiet = Quantization(Phase(0, (1e-3, 1e-3)))
    recipe = Recipe(
        "tiny", "digits_cnn", "digits", Phase(2, (8e-3, 1e-3)), quiet, stages, Input(16, 0.0, 0.5), batch=64
    )
    torch.manual_seed(seed)
    run = Run(recipe, make_network("digits_cnn"), split.train, split.validation, Checkpoints(None))
    run_stages(run)
    return run


def phases(run, stage="half"):
    return [line["phase"] for line in run.log if line["stage"] == stage and "epoch" in line]


@pytest.mark.parametrize("method", Method)
def test_every_method_ends_on_the_sets_after_as_many_epochs(split, method):
    run = finished(split, replace(STAGE, method=method))
    assert {name: int(mask.sum()) for name, mask in run.masks.items()} == {"conv1": 36, "conv2": 320, "fc1": 200}
    for name, mask in run.masks.items():
        assert torch.equal(run.model.get_submodule(name).weight != 0, mask)
    assert len(phases(run)) == 3
    assert run.epochs_left == 0
    assert set(run.sets) == set(RULES)


def test_admm_logs_residuals_accuracies_and_goals(split):
    run = finished(split, STAGE)
    lines = [line for line in run.log if line["stage"] == "half"]
    residuals = [line for line in lines if line["phase"] == "residual"]
    assert [(line["update"], line["layer"]) for line in residuals] == [(u, n) for u in range(1, 7) for n in RULES]
    assert all(0 < line["relative"] < 1 for line in residuals)
    assert [line["update"] for line in lines if line["phase"] == "mapped"] == [1, 2, 3, 4, 5, 6]
    # Nothing is trained between the last update and the mapping.
    mapped = [line["validation"] for line in lines if line["phase"] in ("mapped", "mapping")]
    assert mapped[-1] == mapped[-2]
    goals = {line["name"]: line for line in lines if line["phase"] == "goal"}
    assert set(goals) == {f"residual of {name}" for name in RULES} | {"gap to the retrained network"}
    last = {line["layer"]: line["relative"] for line in residuals}
    assert all(goals[f"residual of {name}"]["met"] == (last[name] <= 0.05) for name in RULES)


def test_goals_are_reported_by_name(split):
    steps = []
    stage = replace(STAGE, rho=(1e-6, 1e-6))
    recipe_run = finished(split)
    run = replace(
        recipe_run, recipe=replace(recipe_run.recipe, stages=(stage,)), progress=lambda *a: steps.append(a[0])
    )
    run_stages(run)
    assert any(re.match(r"half: goals missed: .*residual of conv1 0\.\d+ \(at most 0\.05\)", step) for step in steps)


def test_gradual_pruning_never_brings_a_weight_back(split):
    run = finished(split, replace(STAGE, method=Method.GRADUAL))
    assert phases(run) == ["gradual", "gradual", "retrain"]


def test_scratch_keeps_the_shape_and_nothing_else(split):
    again = replace(
        STAGE, name="again", method=Method.SCRATCH, admm=Phase(0, (1e-3, 1e-3)), retrain=Phase(0, (1e-3, 1e-3))
    )
    pruned, fresh = finished(split, STAGE), finished(split, STAGE, again)
    for name, mask in pruned.masks.items():
        assert torch.equal(mask, fresh.masks[name])
        before, after = pruned.model.get_submodule(name).weight, fresh.model.get_submodule(name).weight
        assert not torch.equal(before, after)
        bound = 1 / after[0].numel() ** 0.5
        assert float(after.detach().abs().max()) <= bound
    assert torch.equal(fresh.model.fc2.weight, finished(split, STAGE, again).model.fc2.weight)


def test_scratch_needs_modules_that_start_themselves(split):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(64, 10)
            self.gain = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.gain * self.fc1(x.flatten(1))

    stage = replace(STAGE, layers={"fc1": RULES["fc1"]}, method=Method.SCRATCH)
    recipe = replace(finished(split).recipe, stages=(stage,))
    run = Run(recipe, Bare(), split.train, split.validation, Checkpoints(None))
    with pytest.raises(PruningError, match=r"Parameter 'gain' has no reset_parameters\(\)"):
        run_stages(run)


def test_magnitude_keeps_the_largest_sums(split):
    quiet = replace(STAGE, admm=Phase(0, (1e-3, 1e-3)), retrain=Phase(0, (1e-3, 1e-3)), method=Method.MAGNITUDE)
    stage = replace(quiet, layers={"conv1": LayerRule("filter", {"keep": 4})})
    dense, pruned = finished(split), finished(split, stage)
    sums = dense.model.conv1.weight.detach().abs().sum((1, 2, 3))
    kept = sums >= sums.sort(descending=True).values[3]
    assert torch.equal(pruned.model.conv1.weight, dense.model.conv1.weight * kept.reshape(-1, 1, 1, 1))
    again = replace(stage, name="again", layers={"conv1": LayerRule("filter", {"keep": 2})})
    both = finished(split, stage, again)
    assert bool((both.masks["conv1"] <= pruned.masks["conv1"]).all()) and int(both.masks["conv1"].sum()) == 2 * 9


def test_sums_differ_from_norms(split):
    """One large weight has the larger norm, many small ones the larger sum."""
    run = finished(split)
    with torch.no_grad():
        run.model.conv1.weight.fill_(0.1)
        run.model.conv1.weight[5] = 0
        run.model.conv1.weight[5, 0, 0, 0] = 0.5
    rules = {"conv1": LayerRule("filter", {"keep": 7})}
    none = Phase(0, (1e-3, 1e-3))
    weight = run.model.conv1.weight.detach().clone()
    for method, lost in ((Method.MAGNITUDE, 5), (Method.ONESHOT, 7)):
        run.model.conv1.weight.data.copy_(weight)
        run.masks = {}
        run_stage(run, replace(STAGE, layers=rules, admm=none, retrain=none, method=method), torch.Generator())
        assert (run.masks["conv1"].flatten(1).any(1)).tolist() == [number != lost for number in range(8)]


def test_magnitude_needs_a_set_that_prunes():
    with pytest.raises(
        PruningError, match="Stage 'half' has levels for layer 'fc1', but method magnitude needs a set that says which"
    ):
        replace(STAGE, layers={"fc1": LayerRule("levels", {"bits": 4})}, method=Method.MAGNITUDE)
