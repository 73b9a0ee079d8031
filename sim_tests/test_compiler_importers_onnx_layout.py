"""How reshapes and transpositions move the axes of a map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.importers.onnx_layout import channels_first, layout_shape, natural, reshaped

SHAPE = (4, 6, 5)


@pytest.mark.parametrize(
    ("layout", "target", "result"),
    [
        (("", "C", "H", "W"), (1, 120), ("", "CHW")),
        (("", "C", "H", "W"), (1, 4, 30), ("", "C", "HW")),
        (("", "H", "W", "C"), (1, 30, 4), ("", "HW", "C")),
        (("", "CHW"), (1, 4, 6, 5), ("", "C", "H", "W")),
        (("", "CHW"), (1, 1, 24, 5), ("", "", "CH", "W")),
        (("", "CHW"), (1, 6, 4, 5), None),
        (("", "CHW"), (1, 119), None),
        (("", "CHW"), (1, 240), None),
    ],
)
def test_reshapes_keep_axes_whole(layout, target, result):
    assert reshaped(layout, SHAPE, target) == result


@given(st.permutations("CHW"), st.integers(0, 3), st.tuples(*[st.integers(1, 4)] * 3))
def test_a_layout_says_where_every_element_is(order, cuts, shape):
    layout = natural(shape, "".join(order))
    data = np.arange(np.prod(shape)).reshape(shape)
    moved = data.transpose(["CHW".index(letter) for letter in order])[None]
    assert layout_shape(layout, shape) == moved.shape
    flat = reshaped(layout, shape, (1, data.size))
    assert flat == ("", "".join(letter for letter in order if shape["CHW".index(letter)] > 1))


def test_a_size_of_1_is_anywhere():
    assert channels_first(natural((1, 6, 5), "HWC")) is False
    assert channels_first(natural((4, 1, 1), "CHW"))
    assert channels_first(("", "", "H", "W"))
