"""Judging: integer reconstruction errors, their AUC, and which samples are wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zeroskip.compiler.importers.artifact import load_artifact
from zeroskip.compiler.reference import run
from zeroskip.pruning import Input, PruningError, quantize
from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.judging import auc, integer_score, reconstruction_errors, score, wrong
from zeroskip.pruning.training import Task

SERIES = Input(16, signed=True)


def beats(count=40, length=12, seed=0):
    """Return series of which a constant one is normal and noise is not."""
    random = np.random.default_rng(seed)
    labels = torch.from_numpy(random.integers(0, 2, count))
    level = random.integers(-40, 40, (count, 1, 1)) * np.ones((1, 1, length))
    noise = random.integers(-60, 60, (count, 1, length))
    codes = np.where(labels.numpy()[:, None, None] == 0, level, noise)
    return ImageSet(torch.from_numpy(codes.astype(np.int8)), labels)


class Mean(nn.Module):
    """Reconstruct a series by its mean: exact for constant ones."""

    def __init__(self, length=12):
        super().__init__()
        self.mean, self.spread = nn.Linear(length, 1), nn.Linear(1, length)
        nn.init.constant_(self.mean.weight, 1 / length)
        nn.init.ones_(self.spread.weight)
        nn.init.zeros_(self.mean.bias)
        nn.init.zeros_(self.spread.bias)

    def forward(self, x):
        return self.spread(self.mean(x.flatten(1)))


def test_an_autoencoder_is_judged_by_the_integers_of_its_artifact(tmp_path):
    model, data = Mean(), beats()
    net = quantize(model, data.x[:2], data.x, weights=8, input=SERIES, reconstruct=True)
    assert score(model, data, SERIES, Task.RECONSTRUCT) == 1.0
    assert integer_score(net, data, Task.RECONSTRUCT) == 1.0
    loaded = load_artifact(net.save(tmp_path / "net.safetensors"))
    first, last = (loaded.tensors[name] for name in (loaded.input, loaded.output))
    assert (first.scale, first.bits, first.signed) == (last.scale, last.bits, last.signed) == (1 / 16, 8, True)
    codes = net.codes(data.x).numpy()
    out = run(loaded, codes)[loaded.output]
    errors = np.square(codes.reshape(40, -1).astype(int) - out.reshape(40, -1).astype(int)).sum(1)
    assert np.array_equal(reconstruction_errors(net, data), errors)
    assert errors[data.y.numpy() == 0].max() < errors[data.y.numpy() == 1].min()


def test_reconstructions_need_the_codes_of_the_input():
    model, data = Mean(), beats()
    net = quantize(model, data.x[:2], data.x, weights=8, input=SERIES)
    with pytest.raises(PruningError, match=r"The output has shape .*; quantize the autoencoder with reconstruct=True"):
        reconstruction_errors(net, data)
    with pytest.raises(PruningError, match="code 0 must be 0; use an Input of mean 0"):
        quantize(model, data.x[:2], data.x, input=Input(16, 0.5, signed=True), reconstruct=True)
    with pytest.raises(
        PruningError, match=r"Layer '0' has output shape \(3,\), but a reconstruction ends in .* \(12,\)"
    ):
        x = torch.randn(8, 12)
        quantize(nn.Sequential(nn.Linear(12, 3)), x[:1], x, reconstruct=True)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_ordered_pairs(items):
    errors, labels = np.array([e for e, _ in items]), np.array([int(label) for _, label in items])
    if labels.all() or not labels.any():
        with pytest.raises(PruningError, match="The AUC needs normal samples"):
            auc(errors, torch.from_numpy(labels))
        return
    pairs = [(a > b) + (a == b) / 2 for a in errors[labels == 1] for b in errors[labels == 0]]
    assert auc(errors, torch.from_numpy(labels)) == pytest.approx(sum(pairs) / len(pairs))


def test_wrong_samples_agree_with_the_accuracy():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    data = beats()
    net = quantize(model, data.x[:2], data.x, input=SERIES)
    assert 1 - wrong(net, data).mean() == pytest.approx(net.accuracy(data))
    assert integer_score(net, data, Task.CLASSIFY) == net.accuracy(data)
