"""The number of the largest value, as a network's output holds it: bytes, the lowest first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.ir import Tensor

__all__ = ["index_numbers", "index_shape", "index_tensor", "index_words"]

IntArray = NDArray[Any]

_BYTE = 8


def index_shape(count: int) -> tuple[int]:
    """Return the shape of the tensor that holds one of ``count`` numbers."""
    return (-(-_bits(count) // _BYTE),)


def index_tensor(name: str, count: int) -> Tensor:
    """Return the tensor that holds one of ``count`` numbers: as few bits as they need; beyond 8, bytes."""
    return Tensor(name, index_shape(count), min(_bits(count), _BYTE))


def index_words(numbers: IntArray, words: int) -> IntArray:
    """Return numbers, shape (B,), as ``words`` bytes each, the lowest first: int64, shape (B, words)."""
    return np.asarray(numbers, np.int64)[:, None] >> (_BYTE * np.arange(words)) & 0xFF


def index_numbers(words: IntArray) -> NDArray[np.int64]:
    """Return the numbers that bytes hold, the inverse of :func:`index_words`."""
    numbers: NDArray[np.int64] = (words.astype(np.int64) << (_BYTE * np.arange(words.shape[1]))).sum(axis=1)
    return numbers


def _bits(count: int) -> int:
    return max(1, (count - 1).bit_length())
