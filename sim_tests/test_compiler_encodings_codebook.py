"""The codebook: levels to codes and back, and how many levels fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.codebook import build_codebook, code_width, decode, encode


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=80))
def test_decoding_gives_back_what_was_encoded(levels):
    codebook = build_codebook(levels, 7)
    codes = encode(levels, codebook)
    assert decode(codes, codebook) == levels
    assert sorted(codebook) == sorted(set(levels))
    assert all(0 <= code < 1 << code_width(codebook) for code in codes)
    assert (0 in levels) == (codebook[0] == 0)


def test_zero_is_entry_0():
    assert build_codebook([3, -2, 0, 3], 2) == (0, -2, 3)


def test_weights_without_zeros_have_no_entry_for_them():
    assert build_codebook([4, -4, 2, -2], 2) == (-4, -2, 2, 4)


@pytest.mark.parametrize(("count", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (17, 5)])
def test_code_width(count, bits):
    assert code_width(range(count)) == bits


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_one_level_too_many_is_refused(bits):
    assert len(build_codebook(range(1 << bits), bits)) == 1 << bits
    text = f"Weights have {(1 << bits) + 1} levels, but a codebook of {bits} bits has {1 << bits}"
    with pytest.raises(ValueError, match=f"^{text}$"):
        build_codebook(range((1 << bits) + 1), bits)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: build_codebook([], 4), "Codebook must have at least one level, not 0"),
        (lambda: encode([1, 5], (0, 1)), r"Level must be one of \[0, 1\], not 5"),
        (lambda: decode([2], (0, 1)), "Code must be 0 to 1, not 2"),
        (lambda: decode([-1], (0, 1)), "Code must be 0 to 1, not -1"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        call()
