"""Allocation: LAMP scores by cost, budgets that are used and never exceeded, exchange towards what is judged better."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zeroskip.pruning import NM, Allocation, Budget, Filter, Joint, Levels, NonStructured, PruningError, allocate
from zeroskip.pruning.allocation import lamp_scores

FREE = {"*": NonStructured(1.0)}
SAMPLE = torch.zeros(1, 1, 6, 6)
# conv 3 x 3 on 6 x 6 without padding: 16 positions
SIZES = {"conv": 4 * 9, "fc1": 64 * 12, "fc2": 12 * 3}
POSITIONS = {"conv": 16, "fc1": 1, "fc2": 1}


class Net(nn.Module):
    """A convolution with BatchNorm and two linear layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc1 = nn.Linear(64, 12)
        self.fc2 = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x))).flatten(1)
        return self.fc2(torch.relu(self.fc1(x)))


def run(budget, judge=lambda admm: 0.0, sets=FREE, parent=None, model=None, sample=SAMPLE, **more):
    """Return the kept groups by layer and the trials."""
    trials = []
    found = allocate(
        model or Net(), sets, Allocation(budget, **more), judge, sample=sample, parent=parent, on_trial=trials.append
    )
    keep = {name: getattr(c, "structure", c).keep for name, c in found.items()}
    assert keep == [trial for trial in trials if trial.accepted][-1].keep
    return keep, trials


def test_scores_are_those_of_the_paper():
    energy = np.array([4.0, 1.0, 0.0, 9.0, 1.0])
    expected = [9 / 9, 4 / 13, 1 / 14, 1 / 15]
    assert lamp_scores(energy) == pytest.approx(expected)


def test_without_exchange_a_budget_of_weights_is_lamps_global_choice():
    keep, trials = run(Budget(weights=300), trials=1)
    assert len(trials) == 1 and trials[0].cost == 300
    model = Net()
    scores = []
    for name in SIZES:
        weight = model.get_submodule(name).weight.detach().to(torch.float64).reshape(-1).square()
        scores += [(float(w / weight[weight >= w].sum()), name) for w in weight]
    best = sorted(scores, key=lambda entry: -entry[0])[:300]
    assert keep == {name: sum(owner == name for _, owner in best) for name in SIZES}


def test_a_group_competes_by_what_it_costs():
    by_weights, _ = run(Budget(weights=60), trials=1)
    by_macs, trials = run(Budget(macs=160), trials=1)
    assert trials[0].cost == 160 == sum(POSITIONS[name] * count for name, count in by_macs.items())
    assert by_macs["conv"] < by_weights["conv"] and by_macs["fc1"] > by_weights["fc1"]


@settings(max_examples=12)
@given(
    st.sampled_from(["weights", "macs", "cycles", "bits"]), st.integers(60, 4000), st.integers(1, 12),
    st.integers(0, 2**31),
)  # fmt: skip
def test_no_split_exceeds_the_budget_or_goes_below_a_floor(resource, amount, floor, seed):
    rng = np.random.default_rng(seed)
    more = {"bits": {"value_bits": 3}, "cycles": {"products": 3}}.get(resource, {})
    amount *= 8 if resource == "bits" else 1
    budget = Budget(**{resource: amount}, **more)
    try:
        keep, trials = run(budget, lambda admm: rng.random(), floor=floor, trials=9)
    except PruningError as error:
        assert "is below the least of" in str(error)
        return
    for trial in trials:
        assert trial.cost <= amount
        assert all(min(floor, SIZES[name]) <= count <= SIZES[name] for name, count in trial.keep.items())
        if resource in ("weights", "macs"):
            used = sum(count * (POSITIONS[name] if resource == "macs" else 1) for name, count in trial.keep.items())
            assert used == trial.cost
            # what is left buys no group of any layer that still has some
            left = [POSITIONS[name] if resource == "macs" else 1 for name in SIZES if trial.keep[name] < SIZES[name]]
            assert amount - used < min(left, default=math.inf)
    assert keep == max(trials, key=lambda trial: trial.score).keep


def test_exchange_finds_what_the_judge_likes():
    wanted = {"conv": 30, "fc1": 200, "fc2": 12}

    def judge(admm):
        kept = {name: int(mask.sum()) for name, mask in admm.masks().items()}
        return -sum(abs(kept[name] - count) / count for name, count in wanted.items())

    keep, trials = run(Budget(weights=242), judge, trials=200, shares=(0.4, 0.2, 0.1, 0.05, 0.02))
    assert all(abs(keep[name] - count) <= 0.1 * count for name, count in wanted.items())
    scores = [trial.score for trial in trials if trial.accepted]
    assert scores == sorted(scores) and len(scores) > 3
    assert [trial.number for trial in trials] == list(range(1, len(trials) + 1))
    assert len({tuple(trial.keep.values()) for trial in trials}) == len(trials)
    assert run(Budget(weights=242), judge, trials=200, shares=(0.4, 0.2, 0.1, 0.05, 0.02)) == (keep, trials)


def test_training_in_the_judge_is_undone_and_respects_the_zeros():
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def judge(admm):
        optimizer = torch.optim.Adam(admm.model.parameters(), 0.1)
        admm.attach(optimizer)
        admm.model(torch.randn(8, 1, 6, 6)).square().sum().backward()
        optimizer.step()
        admm.check()
        return float(admm.masks()["conv"].sum())

    run(Budget(macs=300), judge, model=model, trials=4)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_zeros_of_the_parent_stay_and_other_layers_cost_what_they_have():
    model = Net()
    masks = {name: torch.zeros_like(model.get_submodule(name).weight, dtype=torch.bool) for name in ("conv", "fc1")}
    masks["conv"].view(-1)[:10] = True
    masks["fc1"].view(-1)[::6] = True
    kept = []
    keep, trials = run(
        Budget(weights=10_000), lambda admm: kept.append(admm.masks()) or 0.0, {"fc*": NonStructured(1.0)}, masks, model
    )
    assert keep == {"fc1": 128, "fc2": 36} and trials[-1].cost == 128 + 36 + 10
    assert all(not (found["fc1"] & ~masks["fc1"]).any() for found in kept)
    limited, _ = run(
        Budget(weights=110), sets={"fc1": NonStructured(50), "fc2": NonStructured(1.0)}, parent=masks, model=model
    )
    assert sum(limited.values()) == 86 and limited["fc1"] == 50


def test_structured_and_joint_sets():
    keep, trials = run(Budget(macs=4 * 36 + 200), sets={"conv": Filter(1.0), "fc1": Filter(1.0)})
    # fc2 is not allocated and costs 36, a filter of conv 144, one of fc1 64
    assert keep["conv"] * 144 + keep["fc1"] * 64 + 36 == trials[-1].cost <= 344
    found = allocate(
        Net(), {"*": Joint(NonStructured(1.0), Levels(2))}, Allocation(Budget(bits=900), trials=3), lambda admm: 0.0
    )
    assert all(c.levels == Levels(2) and isinstance(c.structure.keep, int) for c in found.values())


@pytest.mark.parametrize(
    ("budget", "more", "text"),
    [
        (
            Budget(macs=40), {"floor": 3},
            r"40 macs is below the least of 54 that the floor of 3 groups a layer leaves \(conv 48, fc1 3, fc2 3\);",
        ),
        (
            Budget(weights=5), {"sets": {"fc2": NonStructured(1.0)}},
            r"the least of 805 .* \(fc2 1, other layers 804\)",
        ),
        (Budget(weights=50), {"sets": {"fc3": NonStructured(1.0)}}, "No layer .*'fc3'; the nearest are: fc2, fc1"),
        (Budget(weights=50), {"sets": {"fc1": NM(2, 4)}}, "Layer 'fc1': An allocation needs a set that keeps .*not NM"),
        (Budget(weights=50), {"sets": {}}, "An allocation needs at least one layer"),
        (Budget(macs=500), {"sample": None}, "A budget of macs needs sample, an input of the network"),
        (Budget(weights=50), {"floor": 0}, "floor must be at least 1, not 0"),
        (Budget(weights=50), {"shares": (1.5,)}, r"shares must be numbers above 0 and at most 1, not \(1.5,\)"),
        (Budget(weights=50), {"judge": lambda admm: math.nan}, "must return a number, not nan"),
    ],
)  # fmt: skip
def test_what_cannot_be_allocated_is_said(budget, more, text):
    with pytest.raises(PruningError, match=text):
        run(budget, **more)


def test_a_layer_of_zeros_is_refused():
    model = Net()
    nn.init.zeros_(model.fc2.weight)
    with pytest.raises(PruningError, match="Layer 'fc2' has no weight that is not 0; leave it out of the allocation"):
        run(Budget(weights=50), model=model)
