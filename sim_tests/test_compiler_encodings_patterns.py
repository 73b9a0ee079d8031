"""The pattern id: gaps of kernels beside the numbers of their shapes."""

from __future__ import annotations

import pytest

from zeroskip.compiler.encodings.patterns import encode_row
from zeroskip.compiler.errors import CompileError

SHAPES = [(0, 1), (1, 2, 3), (0, 3)]


def test_code_is_the_gap_below_the_number_of_the_shape():
    assert encode_row([[0, 1], [2], [], [3, 0]], SHAPES, 2) == [0, 1 << 2, 1 | 2 << 2]


def test_first_shape_with_all_positions_is_taken():
    assert encode_row([[1], [3]], SHAPES, 2) == [0, 1 << 2]


def test_escape_has_no_shape():
    assert encode_row([[], [], [], [], [0, 3]], SHAPES, 2) == [3, 1 | 2 << 2]
    assert encode_row([[], []], SHAPES, 2) == [3]


def test_kernel_that_fits_no_shape_is_refused():
    with pytest.raises(CompileError, match=r"^Kernel 1 keeps positions \[0, 2\], which no pattern has$"):
        encode_row([[0], [2, 0]], SHAPES, 2)
