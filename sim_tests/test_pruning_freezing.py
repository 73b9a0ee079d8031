"""Progressive freezing: nearest first, on every level alike, for good; and a chain that ends on its levels."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from zeroskip.pruning import prune
from zeroskip.pruning.calibration import calibrate
from zeroskip.pruning.capture import capture
from zeroskip.pruning.data import load_digits
from zeroskip.pruning.freezing import Freezing
from zeroskip.pruning.networks import make_network
from zeroskip.pruning.recipe_tables import parse_recipe


class Net(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.fc = nn.Linear(96, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).flatten(1))


def made(per_channel=False):
    torch.manual_seed(0)
    model, x = Net(), torch.randn(8, 1, 6, 6)
    with torch.no_grad():
        model.fc.weight[:, ::2] = 0
    graph = capture(model, x[:1])
    tensors = graph.tensors(model)
    plan = calibrate(graph, tensors, x, None, 3, per_channel=per_channel)
    masks = {"conv": model.conv.weight.detach() != 0, "fc": model.fc.weight.detach() != 0}
    return model, x, plan, masks, Freezing(graph, tensors, plan, masks)


def test_every_level_freezes_its_nearest_weights():
    model, _, plan, masks, freezing = made()
    before = model.fc.weight.detach().clone()
    scale = plan.weight_scales["fc"]
    levels = plan.grids["fc"].levels(before, scale) * scale * masks["fc"]
    freezing.grow(0.3)
    frozen = freezing.frozen["fc"] & masks["fc"]
    assert freezing.frozen["fc"][~masks["fc"]].all()
    for level in levels[masks["fc"]].unique():
        own = masks["fc"] & (levels == level)
        assert int((frozen & own).sum()) == math.ceil(0.3 * int(own.sum()))
        distance = (before - levels).abs()
        assert distance[frozen & own].max() <= distance[own & ~frozen].min()
    after = model.fc.weight.detach()
    assert torch.equal(after[frozen], levels[frozen])
    assert torch.equal(after[~frozen], before[~frozen])


@pytest.mark.parametrize("per_channel", [False, True])
def test_frozen_weights_stay_and_in_the_end_all_are_on_levels(per_channel):
    model, x, plan, masks, freezing = made(per_channel)
    was = -1
    for _ in range(12):
        freezing.grow(0.5)
        held = {name: freezing.frozen[name].clone() for name in masks}
        values = {name: model.get_parameter(f"{name}.weight").detach().clone() for name in masks}
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        for _ in range(3):
            optimizer.zero_grad()
            freezing.forward(x).square().sum().backward()
            optimizer.step()
        count = 0
        for name in masks:
            weight = model.get_parameter(f"{name}.weight").detach()
            assert torch.equal(weight[held[name]], values[name][held[name]])
            count += int(held[name].sum())
        assert count > was or count == sum(mask.numel() for mask in masks.values())
        was = count
    freezing.grow(1.0)
    assert all(frozen.all() for frozen in freezing.frozen.values())
    with torch.no_grad():
        end = freezing.forward(x)
    for name, mask in masks.items():
        weight = model.get_parameter(f"{name}.weight").detach()
        assert torch.equal(weight != 0, mask)
        scale = torch.tensor(plan.weight_scales[name]).reshape(-1, *(1,) * (weight.dim() - 1) if per_channel else ())
        steps = weight / scale
        assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert torch.equal(end, freezing.forward(x).detach())


def test_a_chain_that_freezes_resumes_with_the_same_bytes(tmp_path):
    split = load_digits()
    rule = {
        "conv*": {"kind": "nonstructured", "keep": 0.5},
        "fc1": {"kind": "micro_block", "keep": 0.5, "mode": "both"},
    }
    recipe = parse_recipe(
        {
            "name": "frozen", "network": "digits_cnn", "dataset": "digits", "threads": 1, "batch": 64,
            "input": {"range": 16, "std": 0.5}, "dense": {"epochs": 6, "lr": [8e-3, 1e-3]},
            "stages": [
                {
                    "name": "half", "updates_per_epoch": 2, "layers": rule,
                    "admm": {"epochs": 2, "lr": [2e-3, 1e-3]}, "retrain": {"epochs": 2, "lr": [2e-3, 1e-3]},
                }
            ],
            "quantization": {"weights": 3, "freeze": 0.3, "rounds": 3, "finetune": {"epochs": 1, "lr": [1e-3, 1e-4]}},
        }
    )  # fmt: skip
    assert recipe.epochs() == 6 + 4 + 3

    def run(**options):
        torch.manual_seed(0)
        return prune(make_network("digits_cnn"), split.train, split.validation, recipe, **options)

    class Interrupted(Exception):
        pass

    steps = []

    def interrupt(step, elapsed, expected):
        steps.append(step)
        if step.startswith("finetune frozen2"):
            raise Interrupted

    with pytest.raises(Interrupted):
        run(checkpoints=tmp_path / "stages", progress=interrupt)
    assert [step.partition(" epoch")[0] for step in steps[-2:]] == ["finetune frozen1", "finetune frozen2"]
    log = tmp_path / "log.jsonl"
    first, second = run(log=log), run(checkpoints=tmp_path / "stages")
    assert first.save(tmp_path / "a.safetensors").read_bytes() == second.save(tmp_path / "b.safetensors").read_bytes()
    assert first.accuracy(split.validation) > 0.7
    # No weight moved after the last judgement.
    judged = [
        line["validation"] for line in map(json.loads, log.read_text().splitlines()) if line["stage"] == "finetune"
    ]
    assert abs(judged[-1] - first.accuracy(split.validation)) < 0.011
    assert first.structures["fc1"]["kind"] == "micro_block"
