"""The names that an error proposes."""

from __future__ import annotations

import pytest

from zeroskip.pruning.errors import nearest

RECIPES = [f"lenet5-mnist-{kind}-{rate}x-w8a8" for kind in ("column", "filter") for rate in range(2, 10)]


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("fc3", ["fc1", "fc2", "conv1"], "fc2, fc1"),
        ("other", ["fc1", "conv1"], "conv1, fc1"),
        ("anything", [], "none"),
        ("lenet5-mnist-filter-9x", RECIPES, "lenet5-mnist-filter-9x-w8a8, "),
        # A beginning is not close to a long name as a whole.
        ("len", RECIPES, "lenet5-mnist-column-2x-w8a8, lenet5-mnist-column-3x-w8a8, lenet5-mnist-column-4x-w8a8"),
        ("zzz", RECIPES, " and 4 more"),
    ],
)
def test_nearest_names(name, known, text):
    found = nearest(name, known)
    assert text in found
    assert len(found.split(", ")) <= 12
