"""A project's training: the artifact it writes, and what it refuses before the first epoch."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.project_file import parse_project
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.export import read_header
from zeroskip.training import train_artifact
from zeroskip.user_code import Images

NETWORK = """
import torch.nn.functional as F
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(16, 2)

    def forward(self, x):
        return self.fc(F.{pool}(F.{activation}(self.conv(x)), 2).flatten(1))


def build():
    return Tiny()
"""
SHORT = {"epochs": 8, "lr": [3e-2, 3e-3]}


@pytest.fixture
def images():
    """Bright left or bright right halves."""
    random = np.random.default_rng(0)
    parts = {}
    for name, count in {"train": 200, "validation": 40, "test": 50}.items():
        labels = random.integers(0, 2, count)
        codes = random.integers(0, 60, (count, 1, 4, 4)).astype(np.uint8)
        for image, label in zip(codes, labels, strict=True):
            image[:, :, 2 * label : 2 * label + 2] += 150
        parts[name] = Images(codes, labels)
    return parts


@pytest.fixture
def project(tmp_path):
    return make(tmp_path)


def make(folder, pool="max_pool2d", activation="relu", **changes):
    """Write a project whose training takes a second, and return it."""
    (folder / "data.py").write_text("")
    (folder / "network.py").write_text(NETWORK.format(pool=pool, activation=activation))
    prune = {"batch": 20, "dense": SHORT, "admm": SHORT, "retrain": SHORT}
    prune |= {"layers": {"*": {"kind": "nonstructured", "keep": 0.75}}, **changes}
    return parse_project({"name": "tiny", "prune": prune, "quantize": {"finetune": SHORT}}, folder / "project.toml")


def test_artifact_says_what_was_measured_on_what(project, images, tmp_path):
    lines = []
    train_artifact(project, images, tmp_path / "a.safetensors", report=lambda *line: lines.append(line))
    header = read_header(tmp_path / "a.safetensors")
    assert header["name"] == "tiny" and header["network"] == "network.py:build"
    accuracy = header["accuracy"]
    assert accuracy["samples"] == 50 and accuracy["integer"] > 0.9 and accuracy["float"] > 0.9
    assert header["samples_correct"] == {name: round(50 * accuracy[name]) for name in ("float", "integer")}
    assert header["provenance"]["data_sha256"] == {name: part.digest() for name, part in images.items()}
    assert header["provenance"]["split"] == "200 train, 40 validation (all choices), 50 test (read once)"
    # The stages before fine-tuning are trained once, though both accuracies need them.
    steps = [step for step, _, _ in lines]
    assert sum(step.startswith("dense dense epoch 1/8") for step in steps) == 1
    assert sum(step.startswith("finetune finetune epoch 1/8") for step in steps) == 1


def test_same_seed_same_bytes_and_checkpoints_are_used(project, images, tmp_path):
    steps = []

    def report(step, *_):
        steps.append(step)

    for name in ("a", "b"):
        path = tmp_path / f"{name}.safetensors"
        train_artifact(project, images, path, checkpoints=tmp_path / "kept", report=report)
        steps.append(name)
    train_artifact(project, images, tmp_path / "c.safetensors")
    assert len({(tmp_path / f"{name}.safetensors").read_bytes() for name in "abc"}) == 1
    assert all("reused" in step for step in steps[steps.index("a") + 1 : -1])


def test_a_checkpoint_with_no_epochs_is_only_quantized(images, tmp_path):
    torch.manual_seed(4)
    network = nn.ModuleDict({"conv": nn.Conv2d(1, 4, 3, padding=1), "fc": nn.Linear(16, 2)})
    with torch.no_grad():
        network["conv"].weight.copy_(torch.tensor([0.0, 0.5, -0.3, 0.11])[torch.randint(4, (4, 1, 3, 3))])
        network["fc"].weight.mul_(torch.rand(2, 16) < 0.5)
    save_file(network.state_dict(), tmp_path / "start.safetensors")
    never = {"epochs": 0, "lr": [1e-3, 1e-3]}
    project = make(tmp_path, layers={}, dense=never)
    pixels = {"mean": [51 / 255], "std": [0.5]}
    values = {"name": "tiny", "network": {"start": "start.safetensors"}, "prune": {"dense": never}}
    values["quantize"] = {"weights": 8, "per_channel": True, "finetune": never, "input": pixels}
    project = parse_project(values, project.path)
    train_artifact(project, images, tmp_path / "a.safetensors")
    model = load_artifact(tmp_path / "a.safetensors")
    conv, fc = model.layer("conv"), model.layer("fc")
    assert conv.grid.value == "codebook" and len(conv.codebook) == 4
    assert np.array_equal(conv.weight == 0, (network["conv"].weight == 0).numpy())
    assert not fc.weight[(network["fc"].weight == 0).numpy()].any() and fc.multiplier.shape == (2,)
    digest = sha256((tmp_path / "start.safetensors").read_bytes()).hexdigest()
    assert model.metadata["provenance"]["start"] == f"weights of start.safetensors, sha256 {digest}"
    accuracy = model.metadata["accuracy"]
    assert abs(accuracy["float"] - accuracy["integer"]) <= 0.1
    save_file({"conv.weight": torch.zeros(4, 1, 3, 3)}, tmp_path / "start.safetensors")
    with pytest.raises(PruningError, match=r"start.safetensors' has no tensor 'conv.bias', which the network needs"):
        train_artifact(project, images, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layers": {"cov*": {"kind": "column", "keep": 1}}}, PruningError, "No layer with weights is called 'cov"),
        ({"layers": {"conv": {"kind": "column", "keep": 99}}}, PruningError, "99"),
        ({"activation": "gelu"}, PruningError, "gelu"),
        ({"rho": {"cov": [1, 2]}}, PruningError, "No layer with a set is called 'cov'; the nearest are: conv"),
    ],
)
def test_what_cannot_work_is_refused_before_training(tmp_path, images, monkeypatch, changes, error, message):
    monkeypatch.setattr("zeroskip.pruning.retrain.train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(error, match=message):
        train_artifact(make(tmp_path, **changes), images, tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_label_without_an_output_is_named(project, images, tmp_path):
    images["validation"].labels[3] = 2
    with pytest.raises(
        PruningError, match=r"Layer 'fc' has 2 outputs, but val has the label 2; give the network more outputs"
    ):
        train_artifact(project, images, tmp_path / "a.safetensors")
