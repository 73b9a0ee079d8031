"""Which axes of the intermediate representation an ONNX tensor's axes hold.

A layout has one text an axis: the axes ``C``, ``H`` and ``W`` of the map that lie in it, outermost first. Axes of
size 1 are left out wherever they are, the batch among them. Channels first is ``("", "C", "H", "W")``, channels last
``("", "H", "W", "C")``, a flattened map ``("", "CHW")``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["Layout", "axis_sizes", "channels_first", "layout_shape", "natural", "reshaped"]

Layout = tuple[str, ...]


def axis_sizes(shape: Sequence[int]) -> dict[str, int]:
    """Return the sizes by letter of a map ``(C, H, W)`` or a vector ``(F,)``."""
    return dict(zip("CHW", shape, strict=False))


def natural(shape: Sequence[int], order: str) -> Layout:
    """Return the layout whose axes behind the batch are ``order``, such as ``CHW`` or ``HWC``."""
    sizes = axis_sizes(shape)
    return ("", *(letter if sizes.get(letter, 1) > 1 else "" for letter in order))


def layout_shape(layout: Layout, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the ONNX shape of a tensor with ``layout``."""
    sizes = axis_sizes(shape)
    return tuple(math.prod(sizes[letter] for letter in letters) for letters in layout)


def channels_first(layout: Layout) -> bool:
    """Whether the axes are batch, channel, then height and width, or width alone."""
    roles = {2: ("", "C"), 3: ("", "C", "W"), 4: ("", "C", "H", "W")}.get(len(layout))
    return roles is not None and all(letters in ("", role) for letters, role in zip(layout, roles, strict=True))


def reshaped(layout: Layout, shape: Sequence[int], target: Sequence[int]) -> Layout | None:
    """Return the layout after a reshape to ``target``; None where an axis of the map would be cut."""
    sizes: Mapping[str, int] = axis_sizes(shape)
    letters = [letter for letters in layout for letter in letters]
    result = []
    for size in target:
        axis, product = "", 1
        while product < size and letters:
            product *= sizes[letters[0]]
            axis += letters.pop(0)
        if product != size:
            return None
        result.append(axis)
    return None if letters else tuple(result)
