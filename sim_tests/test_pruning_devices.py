"""Training elsewhere than on the processor: device and key are chosen, and every tensor of a step follows the weights.

No GPU is needed: torch's meta device refuses to mix with the processor's tensors as a GPU does, but has no values.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from zeroskip.pruning import Admm, Column, MicroBlock, NonStructured
from zeroskip.pruning.calibration import calibrate, fake_quant_forward
from zeroskip.pruning.capture import capture
from zeroskip.pruning.checkpoints import Checkpoints
from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.devices import repeatable, training_device
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.recipe import Quantization, Recipe
from zeroskip.pruning.retrain import Run
from zeroskip.pruning.training import Phase, outputs, train

META = torch.device("meta")
SOURCE = Input(range=16, std=0.5)


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 10)
    )


class Halved(nn.Module):
    """A network of which one layer has no module, but constant weights: channels are padded."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.last = nn.Linear(72, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        sides = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.last(torch.relu(self.second(x) + sides).flatten(1))


def samples(count=64):
    return ImageSet(torch.randint(0, 17, (count, 1, 8, 8), dtype=torch.uint8), torch.randint(0, 10, (count,)))


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def valueless(monkeypatch):
    """Spare a training step the two things that the meta device has not: truth of values, and autocast."""
    monkeypatch.setattr(torch, "isfinite", lambda value: True)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


def test_a_gpu_is_used_where_there_is_one(two_gpus, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert training_device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert training_device() == torch.device("cuda", 1)


def test_without_a_gpu_the_processor_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_device() == torch.device("cpu")


@pytest.mark.parametrize("gpu", [False, True])
def test_repeatable_kernels_are_left_as_they_were(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"), repeatable(1):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled() == gpu
        raise RuntimeError("stop")
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_results_of_a_gpu_have_checkpoints_of_their_own():
    recipe = Recipe(
        "own", "own", "own", Phase(1, (1e-2, 1e-2)), Quantization(Phase(0, (1e-3, 1e-3))), (), SOURCE, batch=8
    )
    data = samples()
    keys = {Run(recipe, small(), data, data, Checkpoints(None), device=torch.device(d)).key for d in ("cpu", "cuda:0")}
    again = {Run(recipe, small(), data, data, Checkpoints(None), device=torch.device("cuda", 1)).key}
    assert len(keys) == 2 and again < keys


def test_the_meta_device_does_not_mix_with_the_processor():
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.zeros(3, device=META) + torch.zeros(3)


@pytest.mark.parametrize("changes", [{}, {"shift": 1}, {"flip": True, "crop": 2}, {"distill": 0.5}])
def test_a_training_step_follows_the_weights(valueless, changes):
    model = small().to(META)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    masks = {"5": torch.rand(10, 36) > 0.5}
    admm = Admm(model, {}, parent=masks)
    admm.attach(optimizer)
    steps = []
    train(
        model, samples(), SOURCE, Phase(2, (1e-2, 1e-3), **changes), optimizer, batch=16,
        generator=torch.Generator().manual_seed(0), teacher=torch.randn(64, 10), on_step=lambda *a: steps.append(a),
    )  # fmt: skip
    assert len(steps) == 8
    assert all(value.device == META for state in optimizer.state.values() for value in state.values())


@pytest.mark.parametrize("constraint", [NonStructured(0.3), MicroBlock(0.5, mode="both"), Column(3)])
def test_the_state_of_an_admm_follows_the_weights(constraint, monkeypatch):
    model = small()
    admm = Admm(model, {"5": constraint}, updates=2)
    admm.update()
    elsewhere = small().to(META)
    with monkeypatch.context() as patched:
        # The meta device has no values to project.
        patched.setattr(type(constraint), "project", lambda self, weight: torch.zeros_like(weight))
        patched.setattr(type(constraint), "fit", lambda self, weight: self)
        other = Admm(elsewhere, {"5": constraint}, updates=2)
    other.load_state_dict(admm.state_dict())
    assert {value.device for value in other.state_dict()["tensors"].values()} == {META}
    optimizer = torch.optim.SGD(elsewhere.parameters(), 0.1)
    other.attach(optimizer)
    elsewhere(torch.zeros(2, 1, 8, 8, device=META)).sum().backward()
    optimizer.step()


def test_fine_tuning_follows_the_weights(valueless):
    model, data = Halved().eval(), samples()
    x = SOURCE.normalize(data.x)
    graph = capture(model, x[:1])
    assert graph.constants
    tensors = graph.tensors(model)
    plan = calibrate(graph, tensors, x, SOURCE)
    model.to(META)
    live = {name: value.to(META) for name, value in graph.tensors(model).items()}
    assert all(live[name] is parameter for name, parameter in model.named_parameters())
    masks = {"first": (torch.rand(4, 1, 3, 3) > 0.5).to(META)}
    forward = fake_quant_forward(graph, live, plan, masks)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    train(
        forward, data, SOURCE, Phase(1, (1e-2, 1e-3)), optimizer, batch=16, generator=torch.Generator().manual_seed(0)
    )
    assert model.first.weight.grad.device == META


def test_outputs_come_back_to_the_processor():
    seen = []

    def forward(x):
        seen.append(x.device)
        return torch.zeros(len(x), 10)

    found = outputs(forward, samples(), SOURCE, META)
    assert found.shape == (64, 10) and found.device == torch.device("cpu")
    assert seen == [META]
