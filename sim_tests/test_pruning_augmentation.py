"""Augmentation: every result is the sample moved, and the random numbers decide by how much."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zeroskip.pruning.augmentation import cropped, flipped, shifted


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def moved(x, dy, dx, margin, fill):
    """Return images moved by (dy, dx) pixels, each channel's border filled with its own value."""
    padded = torch.stack([F.pad(x[:, c], (margin,) * 4, value=float(fill[c])) for c in range(x.shape[1])], 1)
    height, width = x.shape[2:]
    return padded[:, :, margin + dy : margin + dy + height, margin + dx : margin + dx + width]


def test_a_batch_is_shifted_as_one():
    x, fill = torch.rand(3, 2, 5, 6), torch.tensor([-1.0, 2.0])
    seen = set()
    for seed in range(200):
        got = shifted(x, (1, 2), fill.reshape(1, 2, 1, 1), generator(seed))
        matches = [(dy, dx) for dy in (-1, 0, 1) for dx in range(-2, 3) if torch.equal(got, moved(x, dy, dx, 2, fill))]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 15


def test_an_axis_without_a_shift_stays():
    x = torch.rand(2, 1, 6, 4)
    got = shifted(x, (2, 0), torch.zeros(1, 1, 1, 1), generator(1))
    rows = [row for row in range(-2, 3) if torch.equal(got, moved(x, row, 0, 2, torch.zeros(1)))]
    assert rows


def test_series_keep_their_outermost_values():
    x = torch.arange(1.0, 13).reshape(2, 1, 6)
    seen = set()
    for seed in range(50):
        got = shifted(x, (2,), torch.zeros(1, 1, 1), generator(seed))
        offset = int(got[0, 0, 2] - 3)
        places = (torch.arange(6) + offset).clamp(0, 5)
        assert torch.equal(got, x[:, :, places])
        seen.add(offset)
    assert seen == {-2, -1, 0, 1, 2}


def test_about_half_of_the_images_are_mirrored():
    x = torch.rand(400, 2, 3, 4)
    got = flipped(x, generator())
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(got, x, strict=True)]
    assert all(torch.equal(a, b.flip(2) if m else b) for a, b, m in zip(got, x, mirrored, strict=True))
    assert 150 < sum(mirrored) < 250


def test_every_image_is_cropped_by_its_own_offset():
    x, fill = torch.rand(60, 2, 5, 4), torch.tensor([0.5, -3.0])
    got = cropped(x, 1, fill.reshape(1, 2, 1, 1), generator())
    seen = set()
    for i in range(len(x)):
        one = x[i : i + 1]
        matches = [
            (dy, dx)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if torch.equal(got[i : i + 1], moved(one, dy, dx, 1, fill))
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 9


@pytest.mark.parametrize(
    "change",
    [
        lambda x, g: shifted(x, (2, 2), torch.zeros(1, 1, 1, 1), g),
        flipped,
        lambda x, g: cropped(x, 2, torch.zeros(1, 1, 1, 1), g),
    ],
)
def test_same_random_state_same_result(change):
    x = torch.rand(8, 1, 6, 6)
    assert torch.equal(change(x, generator(3)), change(x, generator(3)))
