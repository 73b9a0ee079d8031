"""Quantizers: levels, scale search over nonzero weights, straight-through gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zeroskip.pruning import PruningError
from zeroskip.pruning.quantizers import (
    SharedWeights,
    Weights,
    alternating_scale,
    fake_quantize,
    search_scale,
)


@pytest.mark.parametrize(
    ("bits", "grid", "legal"),
    [
        (1, "zero_excluded", [-1, 1]),
        (2, "zero_excluded", [-2, -1, 1, 2]),
        (3, "symmetric", [-3, -2, -1, 0, 1, 2, 3]),
        (3, "signed", [-4, -3, -2, -1, 0, 1, 2, 3]),
    ],
)
def test_levels_are_the_nearest_legal_ones(bits, grid, legal):
    values = torch.linspace(-6, 6, 401, dtype=torch.float64)
    levels = Weights(bits, grid).levels(values, 0.7)
    assert set(levels.tolist()) == set(map(float, legal))
    best = (torch.tensor(legal, dtype=torch.float64) * 0.7 - values[:, None]).abs().min(1).values
    torch.testing.assert_close((levels * 0.7 - values).abs(), best)


def test_scale_ignores_pruned_zeros():
    weight = torch.randn(500, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([weight, torch.zeros(5000)])
    assert search_scale(padded, Weights(4, "zero_excluded")) == search_scale(weight, Weights(4, "zero_excluded"))


def test_scale_beats_every_other_of_a_fine_scan():
    weight = torch.randn(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grid = Weights(4, "zero_excluded")

    def error(scale):
        return float(((grid.levels(weight, scale) * scale - weight) ** 2).sum())

    found = error(search_scale(weight, grid))
    top = float(weight.abs().max()) / 8
    assert found <= min(error(top * (0.1 + 0.001 * i)) for i in range(1000)) * 1.01


def test_fake_quantization_is_straight_through_and_masked():
    weight = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    mask = torch.tensor([True, False, True])
    quantized = fake_quantize(weight, Weights(2, "zero_excluded"), 0.25, mask)
    assert quantized.tolist() == [0.25, 0.0, 0.5]
    quantized.sum().backward()
    assert weight.grad.tolist() == [1.0, 0.0, 1.0]


def test_refusals():
    with pytest.raises(PruningError, match="Weight bits must be a whole number from 1 to 8, not 0"):
        Weights(0, "signed")
    with pytest.raises(PruningError, match="Weight grid must be one of signed, .*ternary, not 'odd'"):
        Weights(4, "odd")
    with pytest.raises(PruningError, match="Weight grid 'signed' needs at least 2 bits"):
        Weights(1, "signed")
    with pytest.raises(PruningError, match="Weight grid 'ternary' needs 2 bits, not 3"):
        Weights(3, "ternary")
    with pytest.raises(PruningError, match=r"A codebook must have ascending levels other than 0, not \(0, 3\)"):
        SharedWeights(2, "codebook", (0, 3))


@pytest.mark.parametrize(("grid", "bits", "lo", "hi"), [("binary", 1, -1, 1), ("ternary", 2, -1, 1)])
def test_signs(grid, bits, lo, hi):
    weights = Weights(bits, grid)
    assert (weights.lo, weights.hi, weights.excludes_zero) == (lo, hi, grid == "binary")
    got = weights.levels(torch.tensor([-3.0, -0.2, 0.0, 0.2, 0.8]), 1.0).tolist()
    assert got == ([-1, -1, 1, 1, 1] if grid == "binary" else [-1, 0, 0, 0, 1])


def test_alternating_scale_of_signs_is_the_mean_magnitude():
    weight = torch.tensor([0.5, -1.5, 0.0, 1.0])
    assert alternating_scale(weight, Weights(1, "binary")) == pytest.approx(1.0)
    assert alternating_scale(torch.zeros(3), Weights(1, "binary")) == 1.0


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_alternating_scale_is_close_to_the_best_of_a_scan(bits):
    values = np.random.default_rng(bits).normal(size=400)
    grid = Weights(bits, "symmetric")

    def error(scale):
        return np.square(values - scale * np.clip(np.round(values / scale), grid.lo, grid.hi)).sum()

    best = min(error(scale) for scale in np.linspace(0.02, 1, 400) * np.abs(values).max() / grid.hi * 2)
    found = alternating_scale(torch.tensor(values), grid)
    # Five rounds reach a local optimum, as the method has it.
    assert error(found) <= 1.3 * best


def test_shared_values_become_levels_of_their_own():
    weights, scale = SharedWeights.of_values([-0.5, 1e-9, 0.25])
    assert (weights.codebook, weights.bits, scale) == ((-255, 1, 128), 2, 0.5 / 255)
    values = torch.tensor([-0.5, 1e-9, 0.25, 10.0])
    assert weights.levels(values, scale).tolist() == [-255, 1, 128, 128]
    assert SharedWeights.of_values([])[0].codebook == (1,)
