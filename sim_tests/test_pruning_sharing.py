"""Shared weights of a checkpoint: found where values repeat, on the narrowest grid that keeps them apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.pruning.graph import Kind, Norm, Op
from zeroskip.pruning.quantizers import SharedWeights
from zeroskip.pruning.sharing import shared_levels


def layer(weight, gain=None):
    """Return a linear layer with these weights, with BatchNorm where gains are given, and its tensors."""
    tensors = {"fc.weight": torch.as_tensor(weight, dtype=torch.float32)}
    norm = None
    if gain is not None:
        norm = Norm("g", None, "m", "v", 0.0)
        tensors |= {"g": torch.tensor(gain), "m": torch.zeros(len(gain)), "v": torch.ones(len(gain))}
    rows, columns = tensors["fc.weight"].shape
    return Op("fc", Kind.LINEAR, ("input",), (columns,), (rows,), "fc.weight", norm=norm), tensors


@given(
    values=st.lists(st.floats(1 / 64, 1, width=32), min_size=1, max_size=20, unique=True),
    signs=st.integers(0, 2**20 - 1),
    seed=st.integers(0, 1000),
)
def test_zeros_stay_zero_and_equal_weights_equal(values, signs, seed):
    values = [-value if signs >> number & 1 else value for number, value in enumerate(values)]
    palette = torch.tensor([0.0, *values])
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(len(palette), (8, 16), generator=generator)
    found = shared_levels(*layer(palette[index]))
    if found is None:
        assert 2 * len(torch.unique(index[index > 0])) > int((index > 0).sum()) or not bool(index.any())
        return
    grid, scale = found
    weight = palette[index]
    levels = grid.levels(weight, scale) * (weight != 0)
    assert torch.equal(levels == 0, weight == 0)
    assert float((levels * scale - weight).abs().max()) <= scale * 0.51
    for entry in range(len(palette)):
        assert len(torch.unique(levels[index == entry])) <= 1


@pytest.mark.parametrize(
    ("values", "bits", "grid"),
    [
        ([0.2, -0.2], 1, "binary"),
        ([0.1, 0.2, 0.3, -0.3], 3, "symmetric"),
        ([0.1, 0.2, 0.3, 0.4, -0.4, -0.1], 3, "codebook"),
        ([0.31, 0.17, -0.44], 2, "codebook"),
        ([level * 0.03 for level in range(-127, 128) if level], 8, "symmetric"),
        ([level * 0.03 for level in range(-60, 61) if level], 7, "symmetric"),
    ],
)
def test_the_narrowest_grid_is_taken(values, bits, grid):
    weight = torch.tensor(values).repeat(4)[torch.randperm(4 * len(values))].reshape(4, -1)
    found, scale = shared_levels(*layer(weight))
    assert (found.grid, found.bits) == (grid, bits)
    if grid != "codebook":
        torch.testing.assert_close(found.levels(weight, scale) * scale, weight)


def test_float_weights_share_nothing():
    assert shared_levels(*layer(torch.randn(10, 10))) is None
    assert shared_levels(*layer(torch.zeros(4, 4))) is None
    assert shared_levels(*layer(torch.randn(64, 300))) is None
    assert shared_levels(*layer(torch.full((4, 4), torch.nan))) is None


def test_signs_that_batch_norm_turns_need_room_in_the_codebook():
    values = np.random.default_rng(0).uniform(0.01, 1, 200).astype(np.float32)
    weight = np.tile(values, 8).reshape(8, 200)
    assert isinstance(shared_levels(*layer(weight, [1.0] * 8))[0], SharedWeights)
    assert shared_levels(*layer(weight, [1.0] * 7 + [-1.0])) is None
    assert isinstance(shared_levels(*layer(np.sign(weight) * 0.3, [1.0] * 7 + [-1.0]))[0].bits, int)
