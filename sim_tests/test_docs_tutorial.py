"""The tutorial's own code: the lines with which a user prunes a network of their own, run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zeroskip.api import Design
from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.pruning.data import load_digits
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.networks import make_network

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
PIXELS = Input(range=255, mean=33 / 255, std=0.31)


def snippets(title):
    """Return the Python blocks of the section with this title."""
    section = TUTORIAL.read_text(encoding="utf-8").partition(f". {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


class Loop:
    """A user's own loop: momentum, clipping and a scheduler; it sees what is nonzero after every step."""

    def __init__(self, model):
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 10, 0.3)
        self.nonzero = []

    def train_one_epoch(self, model, loader, optimizer):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            self.nonzero.append(
                [int(torch.count_nonzero(layer.weight)) for layer in (model.conv2, model.fc1, model.fc2)]
            )
        self.scheduler.step()


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the snippet finds: a trained model, its loop and its data."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    digits = load_digits()
    scaled = [((part.x * 15), part.y) for part in (digits.train.take(0, 640), digits.validation, digits.test)]
    (x, y), val, test = scaled
    loader = DataLoader(TensorDataset(PIXELS.normalize(x), y), batch_size=32, shuffle=True)
    model = make_network("digits_cnn")
    loop = Loop(model)
    for _ in range(10):
        loop.train_one_epoch(model, loader, loop.optimizer)
    return {
        "model": model, "optimizer": loop.optimizer, "train_one_epoch": loop.train_one_epoch, "loader": loader,
        "sample": x[:2], "val": val[0], "test": test, "loop": loop,
    }  # fmt: skip


def test_the_lines_that_prune_a_network(names, tmp_path, capsys):
    prune, _, _, _ = snippets("Prune your own network")
    exec(compile(prune, str(TUTORIAL), "exec"), names)
    assert (tmp_path / "net.safetensors").exists()
    assert float(capsys.readouterr().out) == names["net"].accuracy(names["test"]) > 0.3
    # 0.02 of fc1 and fc2, a quarter of the columns of conv2; nothing comes back in any step after harden.
    kept = [16 * 18, 41, 6]
    steps = len(names["loader"])
    assert all(
        now <= most for step in names["loop"].nonzero[-6 * steps :] for now, most in zip(step, kept, strict=True)
    )
    assert names["net"].structures["conv2"] == {"kind": "column", "keep": 0.25, "group": 1}


@pytest.mark.slow
def test_the_lines_that_make_a_design(names, monkeypatch, capsys):
    prune, design, _, _ = snippets("Prune your own network")
    asked = []
    monkeypatch.setattr(Design, "synthesize", lambda self, **options: asked.append(options) or "placed")
    exec(compile(prune, str(TUTORIAL), "exec"), names)
    exec(compile(design, str(TUTORIAL), "exec"), names)
    assert asked == [{"board": "ulx3s-25f", "seeds": 5}]
    assert capsys.readouterr().out.endswith("placed\n")
    assert names["design"].is_simulated()


def accuracy(model, validation):
    x, y = validation
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def test_the_lines_that_scan_the_layers(names, capsys):
    _, _, _, scan = snippets("Prune your own network")
    x, y = names["test"]
    names |= {"accuracy": accuracy, "validation": (PIXELS.normalize(x), y)}
    exec(compile(scan, str(TUTORIAL), "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 * 6
    assert re.fullmatch(r"conv1 at 50% \(36 weights\): \d+\.\d\d%", lines[0])


def test_the_lines_that_share_a_budget(names):
    _, _, share, _ = snippets("Prune your own network")
    x, y = names["test"]
    x = PIXELS.normalize(x)
    names |= {"accuracy": accuracy, "validation": (x, y), "sample": x[:1]}
    exec(compile(share.replace("100_000", "10_000"), str(TUTORIAL), "exec"), names)
    positions = {"conv1": 64, "conv2": 16, "fc1": 1, "fc2": 1}
    macs = {name: positions[name] * found.count(names["model"].get_parameter(f"{name}.weight").shape)
            for name, found in names["sets"].items()}  # fmt: skip
    assert set(macs) == set(positions) and 9_900 < sum(macs.values()) <= 10_000


def test_the_lines_that_quantize_a_trained_network(tmp_path, monkeypatch):
    (lines,) = snippets("Take a trained network as it is")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    model, trained = make_network("resnet8").eval(), make_network("resnet8").eval()
    with torch.no_grad():
        trained.conv1.weight[torch.rand_like(trained.conv1.weight) < 0.5] = 0
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    names = {"model": model, "codes": torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)}
    exec(compile(lines, str(TUTORIAL), "exec"), names)
    first = load_artifact(tmp_path / "net.safetensors").layer("conv1")
    assert (first.structure["kind"], first.weight_bits) == ("nonstructured", 8)
    assert not first.weight[(trained.conv1.weight == 0).numpy()].any()
