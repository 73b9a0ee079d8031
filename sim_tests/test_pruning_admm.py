"""ADMM: equal to a plain numpy ADMM on a quadratic, masks that hold, progressive parents, state and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from zeroskip.pruning import Admm, Column, Levels, NonStructured, PruningError


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
    assert admm.rho == pytest.approx(0.4)


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
        (lambda: Admm(Toy(), {}, updates=0), "updates must be at least 1, not 0"),
        (lambda: Admm(Toy(), {}, parent={"x": torch.ones(1)}), "The parent prunes layer 'x', but the model has: conv1"),
        (lambda: Admm(Toy(), {"fc1": NonStructured(500)}), "keep is 500, but the layer has 128 groups"),
        (lambda: Admm(Toy(), {"fc1": NonStructured(0.5)}).check(), "Admm must be hardened before its result is used"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(PruningError, match=text):
        call()


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
