"""Multipliers and shifts as the hardware applies them: how they are aligned, and into which parts they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from designs import engine_config
from zeroskip.compiler import reference
from zeroskip.compiler.ir import Rounding
from zeroskip.compiler.requantization import Scales, align_shifts, operand_parts, scaler_count
from zeroskip.compiler.target import Geometry

SHIFTS = [rounding for rounding in Rounding if rounding is not Rounding.THRESHOLDS]
PAIRS = st.tuples(st.integers(0, (1 << 31) - 1), st.integers(0, 62))


@given(st.lists(st.tuples(st.sampled_from(SHIFTS), st.lists(PAIRS, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_aligned_scales_round_alike(layers):
    scales = [Scales([m for m, _ in pairs], [s for _, s in pairs], rounding) for rounding, pairs in layers]
    values = np.concatenate([np.arange(-40, 41), [-(1 << 29), (1 << 29) - 1]])
    before = [
        [reference.rescale(values, m, s, scale.rounding) for m, s in zip(scale.multiplier, scale.shift, strict=True)]
        for scale in scales
    ]
    widest = max(m for scale in scales for m in scale.multiplier).bit_length()
    align_shifts(scales)
    assert max(m for scale in scales for m in scale.multiplier).bit_length() <= max(widest, 2)
    for scale, wanted in zip(scales, before, strict=True):
        for m, s, codes in zip(scale.multiplier, scale.shift, wanted, strict=True):
            np.testing.assert_array_equal(reference.rescale(values, m, s, scale.rounding), codes)


def test_two_steps_keep_their_shift_and_others_stay_below():
    scales = [
        Scales([1 << 20, 1 << 20, 1 << 20], [20, 40, 31], Rounding.TFLITE_DOUBLE),
        Scales([(1 << 31) - 1], [45], Rounding.HALF_UP),
    ]
    align_shifts(scales)
    assert scales[0].shift == [30, 40, 31] and scales[0].multiplier == [1 << 30, 1 << 20, 1 << 20]


def test_rounding_in_two_steps_that_needs_one_is_half_up():
    scales = [Scales([1 << 30, 3], [31, 5], Rounding.TFLITE_DOUBLE)]
    align_shifts(scales)
    assert scales[0].rounding is Rounding.HALF_UP and scales[0].shift == [31, 31]


@pytest.mark.parametrize(
    ("accumulator", "bias", "multiplier", "values", "multipliers"),
    [
        (10, 8, 0, (11,), ()),
        (14, 8, 15, (15,), (16,)),
        (15, 8, 15, (16, 1), (16,)),
        (24, 20, 17, (16, 10), (18,)),
        (24, 20, 18, (16, 10), (16, 4)),
        (20, 32, 31, (16, 18), (16, 17)),
        (10, 8, 31, (11,), (16, 17)),
    ],
)
def test_operands_are_cut_into_parts(accumulator, bias, multiplier, values, multipliers):
    config = engine_config(
        Geometry(4), accumulator_width=accumulator, bias_width=bias, multiplier_width=multiplier, has_scales=True
    )
    assert operand_parts(config) == (values, multipliers)
    assert scaler_count(config) == len(values) * len(multipliers)
