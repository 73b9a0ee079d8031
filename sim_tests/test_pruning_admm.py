"""ADMM: equal to a plain numpy ADMM on a quadratic, masks that hold, progressive parents, state and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zeroskip.pruning import (
    NM,
    Admm,
    Channel,
    Codebook,
    Column,
    ConstraintSet,
    Joint,
    Levels,
    MicroBlock,
    NonStructured,
    Pattern,
    PruningError,
)
from zeroskip.pruning.errors import Diverged


class Toy(nn.Module):
    """A convolution and two linear layers."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.fc1 = nn.Linear(16, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(torch.relu(self.conv1(x)).flatten(1))))


def toy_step(model, optimizer):
    x = torch.randn(16, 1, 4, 4)
    loss = nn.functional.cross_entropy(model(x), torch.randint(0, 3, (16,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def numpy_admm(target, curvature, keep, rhos, steps, lr):
    """Plain ADMM (METHODS 1.2) on ``0.5 * curvature * (w - target)^2`` with gradient descent as W-step."""

    def project(v):
        order = np.argsort(-np.abs(v), kind="stable")[:keep]
        out = np.zeros_like(v)
        out[order] = v[order]
        return out

    w = target.copy()
    z, u = project(w), np.zeros_like(w)
    history = []
    for k in range(len(rhos)):
        for _ in range(steps):
            w = w - lr * (curvature * (w - target) + rhos[k] * (w - z + u))
        before, z = z, project(w + u)
        u = u + w - z
        history.append((np.linalg.norm(w - z), rhos[k] * np.linalg.norm(z - before)))
        u = u * rhos[k] / rhos[min(k + 1, len(rhos) - 1)]
    return w, project(w), history


def test_equals_a_plain_admm_on_a_quadratic():
    rng = np.random.default_rng(0)
    target, curvature = rng.normal(size=12), rng.uniform(0.2, 2.0, size=12)
    updates, steps, lr, keep = 9, 15, 0.2, 4
    rhos = [0.05 * (2.0 / 0.05) ** (k / (updates - 1)) for k in range(updates)]
    w, hard, history = numpy_admm(target, curvature, keep, rhos, steps, lr)

    model = nn.Sequential(nn.Linear(12, 1, bias=False)).double()
    goal, bend = torch.tensor(target), torch.tensor(curvature)
    with torch.no_grad():
        model[0].weight.copy_(goal[None])
    admm = Admm(model, {"0": NonStructured(keep)}, rho=(0.05, 2.0), updates=updates)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    admm.attach(optimizer)
    for _ in range(updates):
        for _ in range(steps):
            optimizer.zero_grad()
            (0.5 * bend * (model[0].weight[0] - goal) ** 2).sum().backward()
            optimizer.step()
        admm.update()
    np.testing.assert_allclose(model[0].weight.detach().numpy()[0], w, atol=1e-4)
    np.testing.assert_allclose([(r.primal, r.dual) for r in admm.residuals], history, atol=1e-4)
    admm.harden()
    np.testing.assert_allclose(model[0].weight.detach().numpy()[0], hard, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.3),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.05),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_equals_a_plain_admm_whose_w_step_is_solved_exactly(make):
    rng = np.random.default_rng(1)
    target, curvature = rng.normal(size=(2, 10)), rng.uniform(0.5, 2.0, size=(2, 10))
    updates, steps, keep = 5, 300, 3
    ranges = {"a": (0.1, 1.6), "b": (0.4, 0.9)}
    expected = {}
    for row, (name, (start, end)) in enumerate(ranges.items()):
        rhos = [start * (end / start) ** (k / (updates - 1)) for k in range(updates)]
        # Without gradient steps numpy_admm leaves W alone, so the exact W-step goes in here.
        w, z, u = target[row], numpy_admm(target[row], curvature[row], keep, [], 0, 0.0)[1], np.zeros(10)
        for k, rho in enumerate(rhos):
            w = (curvature[row] * target[row] + rho * (z - u)) / (curvature[row] + rho)
            z = numpy_admm(w + u, curvature[row], keep, [], 0, 0.0)[1]
            u = (u + w - z) * rho / rhos[min(k + 1, updates - 1)]
        expected[name] = w

    model = nn.ModuleDict({name: nn.Linear(10, 1, bias=False) for name in ranges}).double()
    goal, bend = torch.tensor(target), torch.tensor(curvature)
    with torch.no_grad():
        for row, layer in enumerate(model.values()):
            layer.weight.copy_(goal[row][None])
    admm = Admm(model, {"*": NonStructured(keep)}, rho={"a": ranges["a"], "*": ranges["b"]}, updates=updates)
    for _ in range(updates):
        optimizer = make(model.parameters())
        admm.attach(optimizer)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
        for _ in range(steps):
            optimizer.zero_grad()
            weights = torch.cat([model["a"].weight, model["b"].weight])
            (0.5 * bend * (weights - goal) ** 2).sum().backward()
            optimizer.step()
            schedule.step()
        admm.update()
        admm.detach(optimizer)
    for name, w in expected.items():
        np.testing.assert_allclose(model[name].weight.detach().numpy()[0], w, atol=1e-4)


@settings(max_examples=12, deadline=None)
@given(
    optimizer=st.sampled_from(["sgd", "nesterov", "adam", "adamw"]),
    clip=st.sampled_from([None, 0.1]),
    scheduled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_no_pruned_weight_is_ever_nonzero_after_a_step(optimizer, clip, scheduled, seed):
    torch.manual_seed(seed)
    model = Toy()
    first = Admm(model, {"conv1": Column(6), "fc*": NonStructured(0.5)})
    first.harden()
    admm = Admm(model, {"conv1": Column(3), "fc1": NonStructured(0.2)}, updates=2, parent=first)
    trained = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
        "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        "adam": lambda p: torch.optim.Adam(p, lr=0.05),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, amsgrad=True),
    }[optimizer](model.parameters())
    # Moments from before the hooks must not move a pruned weight, either.
    nn.functional.cross_entropy(model(torch.randn(8, 1, 4, 4)), torch.randint(0, 3, (8,))).backward()
    trained.step()
    with torch.no_grad():
        for name, mask in first.masks().items():
            model.get_submodule(name).weight.mul_(mask)
    admm.attach(trained)
    schedule = torch.optim.lr_scheduler.OneCycleLR(trained, 0.2, total_steps=6) if scheduled else None
    for step in range(6):
        loss = nn.functional.cross_entropy(model(torch.randn(8, 1, 4, 4)), torch.randint(0, 3, (8,)))
        trained.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        trained.step()
        if schedule:
            schedule.step()
        for name, mask in admm.masks().items():
            assert (model.get_submodule(name).weight[~mask] == 0).all()
        if step < 2:
            admm.update()
        elif step == 2:
            admm.harden()


class Normed(nn.Module):
    """A layer, batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        return nn.functional.dropout(self.norm(self.fc(x)), 0.5, self.training)


def quadratic(step, model, optimizer, admm):
    """Bring two layers onto their sets by the penalty alone."""
    admm.attach(optimizer)
    for _ in range(3):
        for _ in range(10):
            step(model, optimizer)
        admm.update()


def plain_step(model, optimizer):
    optimizer.zero_grad()
    (0 * sum(p.sum() for p in model.parameters())).backward()
    optimizer.step()


def closure_step(model, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = 0 * sum(p.sum() for p in model.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)


def keyword_closure_step(model, optimizer):
    step, optimizer.step = optimizer.step, lambda closure: step(closure=closure)
    try:
        closure_step(model, optimizer)
    finally:
        optimizer.step = step


def scaled_step(model, optimizer):
    """A step with a loss scale of 65536, as of float16."""
    if not hasattr(optimizer, "scaler"):
        optimizer.scaler = torch.amp.GradScaler("cpu")
    optimizer.zero_grad()
    optimizer.scaler.scale(0 * sum(p.sum() for p in model.parameters())).backward()
    optimizer.scaler.step(optimizer)
    optimizer.scaler.update()


@pytest.mark.parametrize("step", [closure_step, keyword_closure_step, scaled_step])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_the_penalty_is_the_same_however_the_step_is_called(step, fused, kind):
    found = []
    for one in (plain_step, step):
        torch.manual_seed(0)
        model = Toy()
        admm = Admm(model, {"fc*": NonStructured(0.2), "conv1": MicroBlock(0.5, mode="both")}, rho=(1.0, 4.0))
        quadratic(one, model, kind(model.parameters(), lr=0.02, fused=fused), admm)
        found.append([line.relative for line in admm.residuals])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    # Without the penalty the weights would stay where they are.
    assert found[0][-1] != pytest.approx(found[0][2], rel=1e-2)


def test_every_optimizer_moves_its_own_layers():
    def run(split):
        torch.manual_seed(0)
        model = Toy()
        first = Admm(model, {"conv1": MicroBlock(0.5, columns=9, mode="both")})
        first.harden()
        admm = Admm(model, {"fc*": NonStructured(0.2)}, rho=(1.0, 4.0), parent=first)
        parts = [[model.conv1, model.fc2], [model.fc1]] if split else [[model]]
        optimizers = [torch.optim.SGD([p for m in part for p in m.parameters()], lr=0.1) for part in parts]
        for optimizer in optimizers:
            admm.attach(optimizer)
        for _ in range(4):
            x, y = torch.randn(16, 1, 4, 4), torch.randint(0, 3, (16,))
            model.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            for optimizer in optimizers:
                optimizer.step()
            admm.update()
        return model.state_dict()

    one, two = run(False), run(True)
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


def test_update_leaves_all_as_it_was_where_one_layer_diverged():
    model = Toy()
    admm = Admm(model, {"fc*": NonStructured(0.5)})
    before = admm.state_dict()
    with torch.no_grad():
        model.fc2.weight[0, 0] = float("inf")
    with pytest.raises(Diverged, match="Layer 'fc2'"):
        admm.update()
    after = admm.state_dict()
    assert after["updates_done"] == 0 and after["residuals"] == []
    assert all(torch.equal(value, before["tensors"][name]) for name, value in after["tensors"].items())


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ({"fc1": Codebook(4)}, {"fc2": NonStructured(0.5)}),
        ({"fc1": MicroBlock()}, {"fc2": NonStructured(0.5)}),
        ({"fc1": Levels(2, grid="ternary")}, {"fc2": Levels(4)}),
        ({"fc1": Joint(NonStructured(0.5), Levels(3))}, {"fc2": Column(4)}),
        ({"fc*": Column(0.25)}, {"fc2": NonStructured(0.1)}),
    ],
)
def test_a_later_stage_keeps_what_it_does_not_name(early, late):
    torch.manual_seed(0)
    model = Toy()
    first = Admm(model, early)
    first.harden()
    values = len(model.fc1.weight.detach().unique())
    admm = Admm(model, late, parent=first, updates=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    admm.attach(optimizer)
    for _ in range(2):
        toy_step(model, optimizer)
        admm.update()
    admm.harden()
    toy_step(model, optimizer)
    admm.check()
    assert admm.names() == ("fc2",)
    assert admm.constraint("fc1") == first.constraint("fc1")
    assert set(admm.sets()) == {"fc1", "fc2"}
    assert {line.layer for line in admm.residuals} == {"fc2"}
    if not isinstance(first.constraint("fc1"), Column):
        assert len(model.fc1.weight.detach().unique()) <= values
    third = Admm(model, {}, parent=admm)
    third.harden()
    assert third.sets() == admm.sets()


def test_sets_of_earlier_weights_bring_fresh_ones_onto_them():
    model = Toy()
    first = Admm(model, {"fc1": Joint(NonStructured(0.5), Levels(3))})
    first.harden()
    with torch.no_grad():
        model.fc1.weight.uniform_(-1, 1)
    Admm(model, {}, parent=first.masks(), held=first.on_sets())
    assert not (model.fc1.weight[~first.masks()["fc1"]] != 0).any()
    assert first.constraint("fc1").violation(model.fc1.weight) == 0


def warnings(caplog):
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_hardening_far_from_the_sets_warns(caplog):
    model = Toy()
    admm = Admm(model, {"fc*": NonStructured(0.1)}, rho=(0.1, 1.0), updates=3)
    admm.update()
    admm.harden()
    (text,) = warnings(caplog)
    assert text.startswith("ADMM ended far from the sets: residual of fc1 0.")
    assert "residual of fc2" in text and "a larger last rho" in text
    assert text.endswith("update was called 1 of 3 times, too few for rho's last value")
    caplog.clear()
    # What lies on its set, was never updated, or is judged elsewhere needs no words.
    Admm(model, {"fc*": NonStructured(0.1)}, updates=1).update()
    close = Admm(model, {"fc*": NonStructured(0.1)}, updates=1)
    close.update()
    close.harden()
    Admm(Toy(), {"fc*": NonStructured(0.1)}).harden()
    quiet = Admm(Toy(), {"fc*": NonStructured(0.1)}, updates=1)
    quiet.update()
    quiet.harden(warn=False)
    assert not warnings(caplog)


def test_a_layer_that_cannot_move_is_named():
    model = Toy()
    model.fc1.weight.requires_grad_(False)
    with pytest.raises(PruningError, match="Layer 'fc1' is frozen: its weight needs requires_grad"):
        Admm(model, {"fc1": NonStructured(0.5)}).update()
    model = Toy()
    admm = Admm(model, {"fc*": NonStructured(0.5)})
    admm.attach(torch.optim.SGD(model.fc1.parameters(), 0.1))
    with pytest.raises(PruningError, match="No attached optimizer has the weight of layer 'fc2'"):
        admm.update()


def test_a_copy_is_judged_by_its_own_weights():
    model = Toy()
    admm = Admm(model, {"fc1": NonStructured(0.1)})
    admm.harden()
    admm.check({"fc1": model.fc1.weight.detach().clone()})
    with pytest.raises(PruningError, match="Layer 'fc1' has nonzero weights at pruned positions"):
        admm.check({"fc1": torch.ones(8, 16)})
    model.load_state_dict(Toy().state_dict(), assign=True)
    with pytest.raises(PruningError, match="Layer 'fc1' has nonzero weights at pruned positions"):
        admm.check()


def test_a_state_of_other_settings_is_refused():
    state = Admm(Toy(), {"fc1": NonStructured(0.5)}, rho=(0.1, 1.0), updates=4).state_dict()
    other = Admm(Toy(), {"fc1": NonStructured(0.2)}, rho=(0.1, 1.0), updates=4)
    with pytest.raises(PruningError, match="Layer 'fc1' is on .*0.2.*, but the state on .*0.5"):
        other.load_state_dict(state)
    with pytest.raises(PruningError, match="This Admm has rho .*2.0.*, but the state has"):
        Admm(Toy(), {"fc1": NonStructured(0.5)}, rho=(0.1, 2.0), updates=4).load_state_dict(state)
    with pytest.raises(PruningError, match="This Admm has updates 5, but the state has 4"):
        Admm(Toy(), {"fc1": NonStructured(0.5)}, rho=(0.1, 1.0), updates=5).load_state_dict(state)


def shared():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    return model


def test_a_weight_of_two_layers_is_pruned_once():
    model = shared()
    admm = Admm(model, {"*": NonStructured(0.2)})
    assert admm.names() == ("0",)
    with pytest.raises(PruningError, match="Layer '1' has the very weight of layer '0'; name that one alone"):
        Admm(model, {"1": NonStructured(0.2)})


def test_the_mapped_network_is_judged_without_a_trace():
    torch.manual_seed(0)
    model = Normed()
    admm = Admm(model, {"fc": NonStructured(7)})
    x = torch.randn(9, 6)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    with torch.no_grad():
        mapped = admm.mapped()(x)
        dense = model(x)
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    admm.harden()
    assert not torch.equal(mapped, dense)
    assert torch.equal(mapped, model(x))


def test_residuals_are_relative_to_the_weight():
    model = Toy()
    admm = Admm(model, {"fc*": NonStructured(0.5)}, updates=1)
    admm.update()
    for line in admm.residuals:
        size = float(model.get_submodule(line.layer).weight.detach().norm())
        assert line.relative == pytest.approx(line.primal / size)
        assert 0 < line.relative < 1


def test_released_levels_train_on_under_their_mask():
    model = Toy()
    admm = Admm(model, {"fc1": Joint(NonStructured(0.5), Levels(4)), "conv1": Column(4)})
    admm.harden()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    admm.released().attach(optimizer)
    before = model.fc1.weight.detach().clone()
    toy_step(model, optimizer)
    assert not torch.equal(before, model.fc1.weight)
    assert torch.equal(before != 0, model.fc1.weight != 0)
    assert admm.holds_levels("fc1") and not admm.holds_levels("conv1")


def test_a_diverged_weight_is_named():
    model = Toy()
    admm = Admm(model, {"fc1": NonStructured(0.5)})
    with torch.no_grad():
        model.fc1.weight[0, 0] = float("nan")
    with pytest.raises(Diverged, match="Layer 'fc1': Weights must be finite, but a NaN"):
        admm.update()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=0.05),
        lambda p: torch.optim.AdamW(p, lr=0.05, amsgrad=True),
    ],
)
def test_masks_hold_with_momentum_and_optimizer_state_is_cleared(make):
    model = Toy()
    rules = {"conv1": Column(4), "fc*": NonStructured(0.25)}
    admm = Admm(model, rules, rho=(1e-2, 1.0), updates=3)
    optimizer = make(model.parameters())
    admm.attach(optimizer)
    for _ in range(3):
        toy_step(model, optimizer)
        admm.update()
    admm.harden()
    masks = admm.masks()
    moved = model.fc1.weight.detach().clone()
    for _ in range(5):
        toy_step(model, optimizer)
    for name, mask in masks.items():
        weight = model.get_submodule(name).weight
        assert (weight[~mask] == 0).all()
        for value in optimizer.state[weight].values():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                assert (value[~mask] == 0).all()
    assert not torch.equal(moved, model.fc1.weight)
    assert int(masks["conv1"].flatten(1).any(0).sum()) == 4
    admm.check()


def test_parent_mask_stays_frozen():
    model = Toy()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    first = Admm(model, {"fc1": NonStructured(0.5), "fc2": NonStructured(0.5)}, updates=2)
    first.attach(optimizer)
    toy_step(model, optimizer)
    first.harden()
    parent = first.masks()
    second = Admm(model, {"fc1": NonStructured(0.2)}, updates=2, parent=first)
    fresh = torch.optim.Adam(model.parameters(), lr=0.05)
    second.attach(fresh)
    for _ in range(4):
        toy_step(model, fresh)
        second.update()
        assert (model.fc1.weight[~parent["fc1"]] == 0).all()
    second.harden()
    masks = second.masks()
    assert int(masks["fc1"].sum()) == round(0.2 * 128)
    assert not (masks["fc1"] & ~parent["fc1"]).any()
    assert torch.equal(masks["fc2"], parent["fc2"])


def test_dual_is_rescaled_with_rho():
    model = Toy()
    admm = Admm(model, {"fc2": NonStructured(0.5)}, rho=(0.1, 0.4), updates=2)
    admm.update()
    state = admm.state_dict()["tensors"]
    difference = model.fc2.weight.detach() - state["fc2.z"]
    torch.testing.assert_close(state["fc2.u"], difference * 0.25)
    assert admm.rho == {"fc2": pytest.approx(0.4)}


def test_levels_are_frozen_after_hardening():
    model = Toy()
    admm = Admm(model, {"fc2": Levels(4, 0.05)}, updates=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    admm.attach(optimizer)
    toy_step(model, optimizer)
    admm.update()
    admm.harden()
    held = model.fc2.weight.detach().clone()
    toy_step(model, optimizer)
    assert torch.equal(held, model.fc2.weight)
    admm.check()


def test_state_round_trip_continues_equally():
    def run(interrupted):
        torch.manual_seed(3)
        model = Toy()
        admm = Admm(model, {"fc*": NonStructured(0.3)}, rho=(0.01, 0.5), updates=4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        admm.attach(optimizer)
        for _ in range(2):
            toy_step(model, optimizer)
            admm.update()
        if interrupted:
            state, weights = admm.state_dict(), {k: v.clone() for k, v in model.state_dict().items()}
            model = Toy.__new__(Toy)
            with torch.random.fork_rng():
                Toy.__init__(model)
            model.load_state_dict(weights)
            admm = Admm(model, {"fc*": NonStructured(0.3)}, rho=(0.01, 0.5), updates=4)
            admm.load_state_dict(state)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            admm.attach(optimizer)
        for _ in range(2):
            toy_step(model, optimizer)
            admm.update()
        admm.harden()
        return model.state_dict()

    expected, resumed = run(False), run(True)
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name


def test_check_finds_a_violated_mask():
    model = Toy()
    admm = Admm(model, {"fc1": NonStructured(0.1)})
    admm.harden()
    with torch.no_grad():
        model.fc1.weight.add_(1.0)
    with pytest.raises(PruningError, match="Layer 'fc1' has nonzero weights at pruned positions; attach the optimizer"):
        admm.check()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: Admm(Toy(), {"conv9": Column(0.5)}),
            "No layer with weights is called 'conv9'; the nearest are: conv1",
        ),
        (
            lambda: Admm(Toy(), {"f*": Column(0.5), "fc*": Column(0.2)}),
            "Layer 'fc1' is matched by both 'f\\*' and 'fc\\*'",
        ),
        (
            lambda: Admm(Toy(), {}, rho=(0.0, 1.0)),
            r"rho must be two positive numbers \(start, end\), not \(0\.0, 1\.0\)",
        ),
        (
            lambda: Admm(Toy(), {"fc*": Column(0.5)}, rho={"fc1": (0.1, 1.0)}),
            r"rho names no penalty for layer 'fc2'; add it, or a glob such as '\*'",
        ),
        (
            lambda: Admm(Toy(), {"fc*": Column(0.5)}, rho={"*": (0.1, 1.0), "fc3": (0.1, 1.0)}),
            "No layer with a set is called 'fc3'; the nearest are: fc1, fc2|fc2, fc1",
        ),
        (
            lambda: Admm(Toy(), {"fc*": Column(0.5)}, rho={"*": (0.1, float("nan"))}),
            r"rho must be two positive numbers \(start, end\), not \(0\.1, nan\)",
        ),
        (
            lambda: Admm(Toy(), {}).detach(torch.optim.SGD(Toy().parameters(), 0.1)),
            "This optimizer is not attached to this Admm",
        ),
        (lambda: Admm(Toy(), {}, updates=0), "updates must be at least 1, not 0"),
        (lambda: Admm(Toy(), NonStructured(0.5)), "sets must map layer names or globs to constraint sets"),
        (lambda: Admm(Toy(), {"fc1": 0.1}), "sets must map layer names or globs to constraint sets"),
        (
            lambda: Admm(Toy(), {"fc1": Column(0.5)}, rho=0.1),
            r"rho must be two positive numbers \(start, end\), not 0.1",
        ),
        (
            lambda: Admm(nn.Sequential(nn.ConvTranspose2d(3, 6, 3)), {"*": NonStructured(0.5)}),
            "Layer '0' is a transposed convolution, whose weight has its inputs first",
        ),
        (
            lambda: Admm(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))), {"*": Column(0.5)}),
            "Layer '0' computes its weight from other parameters",
        ),
        (
            lambda: Admm(Toy(), {"fc1": Column(0.5)}).attach(torch.optim.LBFGS(Toy().parameters())),
            "LBFGS compares losses, in which the penalty does not stand",
        ),
        (
            lambda: Admm(Toy(), {"fc1": Column(0.5)}).attach(torch.optim.SGD(Toy().parameters(), 0.1)),
            "This optimizer has no weight of the layers fc1; give it theirs",
        ),
        (lambda: Admm(Toy(), {}, parent={"x": torch.ones(1)}), "The parent prunes layer 'x', but the model has: conv1"),
        (lambda: Admm(Toy(), {"fc1": NonStructured(500)}), "keep is 500, but the layer has 128 groups"),
        (lambda: Admm(Toy(), {"fc1": NonStructured(0.5)}).check(), "Admm must be hardened before its result is used"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(PruningError, match=text):
        call()


def test_an_optimizer_that_goes_uphill_is_refused():
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, maximize=True)
    with pytest.raises(PruningError, match="With maximize the penalty would drive weights off their sets"):
        Admm(model, {"fc1": Column(0.5)}).attach(optimizer)


def test_a_plain_name_wins_over_a_glob():
    admm = Admm(Toy(), {"*": NonStructured(0.5), "fc1": Column(0.5)})
    assert admm.constraint("fc1") == Column(0.5)
    assert admm.constraint("conv1") == NonStructured(0.5)
    assert admm.names() == ("conv1", "fc1", "fc2")


def test_update_after_harden_is_refused():
    admm = Admm(Toy(), {"fc1": NonStructured(0.5)})
    admm.harden()
    with pytest.raises(PruningError, match="Admm.update was called after harden"):
        admm.update()
    with pytest.raises(PruningError, match="Admm.harden was called twice"):
        admm.harden()


# Sets that choose something once, and sets that fix values


def test_retraining_keeps_shared_magnitudes_and_values():
    torch.manual_seed(0)
    model = Toy()
    admm = Admm(model, {"conv1": Codebook(3), "fc1": MicroBlock(0.5, mode="both"), "fc2": Joint(NM(2, 4), Levels(3))})
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    admm.attach(optimizer)
    for _ in range(3):
        toy_step(model, optimizer)
        admm.update()
    admm.harden()
    before = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(10):
        toy_step(model, optimizer)
    admm.check()
    assert len(torch.unique(model.conv1.weight)) == 3
    assert not torch.equal(model.conv1.weight, before["conv1.weight"])
    magnitudes = model.fc1.weight.detach().abs().reshape(8, 4, 4)
    assert bool((magnitudes == magnitudes[..., :1]).all())
    assert int((magnitudes[..., 0] != 0).sum()) == 16
    assert not torch.equal(model.fc1.weight, before["fc1.weight"])
    assert torch.equal(model.fc2.weight, before["fc2.weight"])


def test_a_shared_magnitude_learns_like_one_parameter():
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    admm = Admm(nn.Sequential(layer), {"0": MicroBlock()})
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    admm.attach(optimizer)
    admm.harden()
    x = torch.tensor([[1.0, 2.0, 4.0, 3.0]])
    layer(x).sum().backward()
    optimizer.step()
    # The magnitude a times x0 - x1 + x2 - x3 = 0.
    assert layer.weight.tolist() == [[1.0, -1.0, 1.0, -1.0]]
    optimizer.zero_grad()
    layer(torch.tensor([[1.0, 2.0, 4.0, 1.0]])).sum().backward()
    optimizer.step()
    assert layer.weight.detach().reshape(-1).tolist() == pytest.approx([0.8, -0.8, 0.8, -0.8])


def test_state_holds_what_a_set_chose(tmp_path):
    torch.manual_seed(0)
    model = Toy()
    admm = Admm(model, {"conv1": Pattern(library=2), "fc*": Levels(4)})
    library = admm.constraint("conv1").patterns
    assert len(library) == 2
    admm.harden()
    torch.save(admm.state_dict(), tmp_path / "state.pt")
    other = Admm(Toy(), {"conv1": Pattern(library=2), "fc*": Levels(4)})
    assert other.constraint("conv1").patterns != library
    other.model.load_state_dict(model.state_dict())
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.constraint("conv1") == admm.constraint("conv1")
    assert other.sets() == admm.sets()
    other.check()


def test_layers_are_named_where_a_set_does_not_fit():
    with pytest.raises(PruningError, match="Layer 'conv1': Channel needs two or more input channels"):
        Admm(Toy(), {"conv1": Channel(0.5)})
    with pytest.raises(PruningError, match="Layer 'fc2': Pattern needs kernels of two or more positions"):
        Admm(Toy(), {"fc2": Pattern()})


def test_unified_blocks_leave_pruned_weights_of_a_parent_alone():
    torch.manual_seed(0)
    model = Toy()
    first = Admm(model, {"fc1": NonStructured(0.5)})
    first.harden()
    with pytest.raises(PruningError, match="Layer 'fc1' has pruned weights of an earlier stage to which MicroBlock"):
        Admm(model, {"fc1": MicroBlock()}, parent=first)
    model = Toy()
    whole = Admm(model, {"fc1": MicroBlock(0.5, mode="prune")})
    whole.harden()
    Admm(model, {"fc1": MicroBlock(0.25, mode="both")}, parent=whole).harden()


class OnlyRows(ConstraintSet):
    """A set of the user's own: the first row only."""

    def project(self, weight):
        return weight.detach() * (torch.arange(len(weight)) == 0)[:, None]

    def count(self, shape):
        return 1

    def describe(self):
        return {"kind": "filter", "keep": 1}


def test_own_sets_need_three_methods():
    model = Toy()
    admm = Admm(model, {"fc1": OnlyRows()})
    assert admm.constraint("fc1").violation(model.fc1.weight) > 0
    admm.harden()
    admm.load_state_dict(admm.state_dict())
    assert int((model.fc1.weight != 0).any(1).sum()) == 1
