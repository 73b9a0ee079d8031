"""Checkpoints: what comes back, and files of other runs and networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zeroskip.pruning import PruningError
from zeroskip.pruning.checkpoints import Checkpoints, StageResult

KEY = "a" * 64


def network(**layers):
    return nn.ModuleDict({name: nn.Linear(*sizes) for name, sizes in layers.items()})


@pytest.fixture
def folder(tmp_path):
    """A folder with the checkpoint of a stage."""
    kept = Checkpoints(tmp_path)
    result = StageResult({"fc1": torch.tensor([[True, False]])}, {"fc1": {"kind": "column", "keep": 1}}, [{"epoch": 1}])
    kept.save("half", KEY, network(fc1=(2, 1)), result)
    return kept


def test_a_stage_comes_back(folder):
    model = network(fc1=(2, 1))
    found = folder.load("half", KEY, model)
    assert found.masks["fc1"].tolist() == [[True, False]]
    assert found.sets == {"fc1": {"kind": "column", "keep": 1}} and found.log == [{"epoch": 1}]
    assert folder.load("other", KEY, model) is None


def test_a_file_of_another_run_is_refused(folder):
    other = "a" * 20 + "b" * 44
    with pytest.raises(PruningError, match="Checkpoint '.*' is of another run than its name says; remove it"):
        folder.load("half", other, network(fc1=(2, 1)))


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ({"fc1": (2, 1), "fc2": (1, 1)}, "the network has a tensor 'fc2.bias', but the other one fc1.bias"),
        ({}, "it has a tensor 'fc1.bias', but the other one none"),
        ({"fc1": (3, 1)}, r"'fc1\.weight' has shape \(1, 2\), but the network needs \(1, 3\)"),
    ],
)
def test_the_checkpoint_of_another_network_is_refused(folder, layers, text):
    with pytest.raises(PruningError, match=f"is of another network: {text}.*; remove it or choose another folder"):
        folder.load("half", KEY, network(**layers))


def test_a_damaged_file_costs_only_the_stage(folder):
    path = folder.path("half", KEY)
    path.write_bytes(path.read_bytes()[:50])
    assert folder.load("half", KEY, network(fc1=(2, 1))) is None
