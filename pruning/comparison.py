"""Compare two networks on the same test samples: errors of n, and a paired 95 % interval over several seeds."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zeroskip.pruning.errors import PruningError

__all__ = ["LEVEL", "Comparison", "compare"]

LEVEL = 0.95
"""Probability of the interval."""
_MOST_SEEDS = 6
# The transform's rounding leaves probabilities of about 1e-16 where there are none.
_TAIL = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Errors of two networks on the same samples.

    Attributes
    ----------
    samples : test samples a seed
    base, other : errors of each seed
    difference : mean over the seeds of ``other - base``, in errors of ``samples``
    low, high : 95 % interval of the difference, as :func:`compare` defines it
    """

    samples: int
    base: tuple[int, ...]
    other: tuple[int, ...]
    difference: float
    low: float
    high: float

    @property
    def equal(self) -> bool:
        """Whether the interval holds 0: no difference is shown."""
        return self.low <= 0 <= self.high

    def __str__(self) -> str:
        base, other = (", ".join(map(str, errors)) for errors in (self.base, self.other))
        return (
            f"{other} against {base} errors of {self.samples}: {self.difference:+.1f} "
            f"(95 % {self.low:+.1f} to {self.high:+.1f})"
        )


def compare(base: ArrayLike, other: ArrayLike) -> Comparison:
    """Compare the errors of two networks, paired by seed and by sample.

    With ``d[s, i] = other[s, i] - base[s, i]`` (-1, 0 or 1) the difference is ``sum_i mean_s d[s, i]``. Its interval is
    the percentile interval of the bootstrap that draws S seeds and n samples with replacement, independently (Owen
    2007, the pigeonhole bootstrap), so it holds the chance of the seeds and of the samples. It is computed exactly,
    without random numbers: for each multiset of seeds the sum of n draws is an n-fold convolution of the empirical
    distribution of ``mean_s d``. As Agresti and Min (2005) do for matched pairs, one pair is added that differs, half
    of it each way (values of +1 and -1 with half a sample's weight each): without it no disagreement at all would give
    an interval of length 0.

    Parameters
    ----------
    base, other : array[bool], shape (seeds, samples), which samples each network gets wrong; for a cross-validation the
        samples of all folds, each judged by the network that never saw it

    Raises
    ------
    PruningError
        If the shapes differ or are not (1 to 6 seeds, samples).
    """
    first, second = np.asarray(base), np.asarray(other)
    if first.dtype != bool or second.dtype != bool:
        raise PruningError(f"Errors must be arrays of bool, not {first.dtype} and {second.dtype}")
    if first.ndim != 2 or first.shape != second.shape or not first.size:
        raise PruningError(
            f"Errors must be of one shape (seeds, samples), not {first.shape} and {second.shape}; judge both networks "
            "on the same samples with the same seeds"
        )
    seeds, samples = first.shape
    if seeds > _MOST_SEEDS:
        raise PruningError(f"At most {_MOST_SEEDS} seeds can be compared, not {seeds}")
    difference = second.astype(np.int64) - first.astype(np.int64)
    # Sums over the S drawn seeds, so that everything stays whole: from -S * n to S * n.
    total = np.zeros(2 * seeds * samples + 1)
    draws = Counter(tuple(sorted(chosen)) for chosen in itertools.product(range(seeds), repeat=seeds))
    for chosen, ways in draws.items():
        total += ways * _sum_distribution(difference[list(chosen)].sum(0), seeds)
    total /= seeds**seeds
    low, high = _quantiles(total, (1 - LEVEL) / 2)
    offset = seeds * samples
    return Comparison(
        samples=samples,
        base=tuple(int(n) for n in first.sum(1)),
        other=tuple(int(n) for n in second.sum(1)),
        difference=float(difference.sum()) / seeds,
        low=(low - offset) / seeds,
        high=(high - offset) / seeds,
    )


def _sum_distribution(values: NDArray[np.int64], largest: int) -> NDArray[np.float64]:
    """Return the distribution of the sum of n draws from the n ``values`` (-largest..largest) and the added pair."""
    samples = len(values)
    single = np.bincount(values + largest, minlength=2 * largest + 1).astype(np.float64)
    single[[0, -1]] += 0.5
    single /= samples + 1
    length = 2 * largest * samples + 1
    size = 1 << math.ceil(math.log2(length))
    result: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(single, size) ** samples, size)[:length]
    return np.maximum(result, 0)


def _quantiles(probabilities: NDArray[np.float64], tail: float) -> tuple[int, int]:
    """Return the smallest and the largest value that each leave at most ``tail`` outside."""
    below, above = np.cumsum(probabilities), np.cumsum(probabilities[::-1])
    low = int(np.argmax(below > tail + _TAIL))
    high = len(probabilities) - 1 - int(np.argmax(above > tail + _TAIL))
    return low, high
