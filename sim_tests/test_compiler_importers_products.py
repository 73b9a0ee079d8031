"""The grid of imported weights."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.compiler.importers.products import code_bits, grid_of
from zeroskip.compiler.ir import Grid


@pytest.mark.parametrize(
    ("levels", "bits", "narrow", "binary", "wanted"),
    [
        ([-1, 1], 1, False, True, (Grid.BINARY, 1)),
        ([-1, 0, 1], 1, False, True, (Grid.SIGNED, 2)),
        ([-1, 0, 1], 2, True, False, (Grid.TERNARY, 2)),
        ([-7, 7], 4, True, False, (Grid.SYMMETRIC, 4)),
        ([-8, 7], 4, False, False, (Grid.SIGNED, 4)),
        ([-7, 8], 4, False, False, (Grid.SIGNED, 5)),  # a filter whose signs were turned
        ([-127, 128], 8, False, False, (Grid.ZERO_EXCLUDED, 8)),
        ([0, 255], 8, False, False, (Grid.CODEBOOK, 8)),
        ([-256, 255], 8, False, False, (Grid.CODEBOOK, 8)),
        ([0, 256], 8, False, False, None),
        (list(range(1, 256)), 8, False, False, (Grid.CODEBOOK, 8)),
        (list(range(-1, 256)), 8, False, False, None),
    ],
)
def test_the_narrowest_grid_that_holds_the_levels(levels, bits, narrow, binary, wanted):
    assert grid_of(np.array(levels), bits, narrow, binary) == wanted


@pytest.mark.parametrize(
    ("lo", "hi", "wanted"),
    [
        (0, 1, (1, False)),
        (0, 0, (1, False)),
        (-1, 1, (2, True)),
        (-1, 0, (1, True)),
        (-64, 64, (8, True)),
        (5, 255, (8, False)),
    ],
)
def test_bits_of_codes(lo, hi, wanted):
    assert code_bits(lo, hi) == wanted
