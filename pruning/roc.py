"""Compare two networks by their AUC on the same test samples, with a paired 95 % interval over seeds and folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from zeroskip.pruning.comparison import LEVEL
from zeroskip.pruning.errors import PruningError

__all__ = ["AucComparison", "Ranking", "compare_auc", "placements"]


@dataclass(frozen=True)
class Ranking:
    """How one network orders the test samples of a fold.

    Parameters
    ----------
    errors : array, shape (samples,), the larger the more anomalous
    anomalous : array[bool], shape (samples,)
    """

    errors: NDArray[np.int64]
    anomalous: NDArray[np.bool_]


@dataclass(frozen=True)
class AucComparison:
    """The mean over the seeds of ``other - base`` in AUC, and its 95 % interval as :func:`compare_auc` defines it."""

    difference: float
    low: float
    high: float


def placements(ranking: Ranking) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each anomalous sample the share of normal ones below it, for each normal one of anomalous ones above.

    Ties count one half; the mean of either is the AUC.

    Raises
    ------
    PruningError
        If there are not at least two samples of each kind.
    """
    above, below = ranking.errors[ranking.anomalous], ranking.errors[~ranking.anomalous]
    if min(len(above), len(below)) < 2:
        raise PruningError(
            f"The interval of an AUC needs at least 2 normal and 2 anomalous samples, not {len(below)} and {len(above)}"
        )
    return _share_below(above, below), 1 - _share_below(below, above)


def _share_below(values: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
    ordered = np.sort(others)
    counts = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    result: NDArray[np.float64] = counts / (2 * len(others))
    return result


def compare_auc(base: Sequence[Sequence[Ranking]], other: Sequence[Sequence[Ranking]]) -> AucComparison:
    """Compare the AUC of two networks, paired by seed and by sample.

    An AUC is the mean over the folds, weighted by their samples, for networks of different folds are not ranked
    against each other. The samples' part of the variance is DeLong's (DeLong, DeLong and Clarke-Pearson 1988) of the
    difference averaged over the seeds: with ``a`` and ``n`` the differences of the :func:`placements` of anomalous and
    normal samples, ``sum over folds of w^2 (var(a) / len(a) + var(n) / len(n))``. To it comes the seeds' part,
    ``var(d) / S`` of the S seeds' differences d. The interval is the normal one; it has no length where no sample's
    placement differs.

    Parameters
    ----------
    base, other : rankings by seed and fold, the same samples at the same place

    Raises
    ------
    PruningError
        If seeds, folds or samples of the two do not agree.
    """
    shapes = [[[len(fold.errors) for fold in folds] for folds in seeds] for seeds in (base, other)]
    if shapes[0] != shapes[1] or not base or not base[0] or any(len(folds) != len(base[0]) for folds in base):
        raise PruningError(
            f"AUCs are compared on the same seeds, folds and samples, not {shapes[0]} and {shapes[1]} samples; judge "
            "both networks on the same test samples with the same seeds"
        )
    total = sum(shapes[0][0])
    by_seed, variance = np.zeros(len(base)), 0.0
    for fold in range(len(base[0])):
        rows = [_differences(first[fold], second[fold]) for first, second in zip(base, other, strict=True)]
        weight = len(base[0][fold].errors) / total
        by_seed += [weight * anomalous.mean() for anomalous, _ in rows]
        for values in (np.mean([row[kind] for row in rows], axis=0) for kind in (0, 1)):
            variance += weight**2 * float(values.var(ddof=1)) / len(values)
    if len(base) > 1:
        variance += float(by_seed.var(ddof=1)) / len(base)
    difference = float(by_seed.mean())
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(variance)
    return AucComparison(difference, difference - reach, difference + reach)


def _differences(base: Ranking, other: Ranking) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if (base.anomalous != other.anomalous).any():
        raise PruningError("AUCs are compared on the same samples, but different ones are anomalous")
    first, second = placements(base), placements(other)
    return second[0] - first[0], second[1] - first[1]
