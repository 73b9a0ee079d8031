"""A run of stages: where it diverges, and what is kept then."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from zeroskip.pruning.checkpoints import Checkpoints
from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.errors import Diverged
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.recipe import Quantization, Recipe
from zeroskip.pruning.retrain import Run, run_stages
from zeroskip.pruning.training import Phase


class Fragile(nn.Module):
    """A layer whose output is no number from some training step on."""

    def __init__(self, good_steps):
        super().__init__()
        self.fc = nn.Linear(16, 3)
        self.left = good_steps

    def forward(self, x):
        if self.training:
            self.left -= 1
        return self.fc(x.flatten(1)) * (float("nan") if self.left < 0 else 1.0)


@pytest.mark.parametrize("kept", [False, True])
def test_a_diverged_run_keeps_its_last_good_state(tmp_path, kept):
    torch.manual_seed(0)
    data = ImageSet(torch.randint(0, 255, (32, 1, 4, 4), dtype=torch.uint8), torch.randint(0, 3, (32,)))
    recipe = Recipe(
        "fragile", "own", "own", Phase(4, (1e-2, 1e-2)), Quantization(Phase(0, (1e-3, 1e-3))), (), Input(), batch=8
    )
    states = []
    run = Run(recipe, Fragile(10), data, data, Checkpoints(tmp_path if kept else None))
    run.progress = lambda *_: states.append({name: value.clone() for name, value in run.model.state_dict().items()})
    where = "the last good state is in '.*dense-dense-last-good-.*'" if kept else "the network has its last good state"
    with pytest.raises(
        Diverged, match=f"Stage 'dense', phase 'dense': The loss became nan in epoch 3, step 3 of 4; lower .*{where}"
    ):
        run_stages(run)
    # Two epochs went well.
    assert len(states) == 2
    assert all(torch.equal(value, states[-1][name]) for name, value in run.model.state_dict().items())
    if kept:
        (path,) = tmp_path.iterdir()
        saved = load_file(path)
        assert all(torch.equal(saved[f"model/{name}"], value) for name, value in states[-1].items())
