"""Deterministic stratified divisions of a data set: parts of given sizes, and folds of a cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zeroskip.pruning.data.sets import check_validation
from zeroskip.pruning.errors import PruningError

__all__ = ["FOLDS", "Parts", "cross_validation_parts", "divide", "fold_numbers", "hold_out", "stratified_order"]

FOLDS = 5
"""Folds of the small sets: every sample is tested once by a network that never saw it."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Sample numbers (int64) of each part."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def stratified_order(strata: NDArray[np.int64], seed: int) -> list[int]:
    """Return a seeded order whose every prefix holds the strata in nearly their overall shares.

    Parameters
    ----------
    strata : ndarray[int64], shape (N,), the stratum (a class, or class and speaker) of each sample
    """
    rng = np.random.default_rng(seed)
    keyed: list[tuple[float, int]] = []
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        offset = rng.random()
        keyed += [((place + offset) / len(members), int(index)) for place, index in enumerate(members)]
    return [index for _, index in sorted(keyed)]


def fold_numbers(strata: NDArray[np.int64], folds: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """Return the fold, ``0..folds-1``, that tests each sample.

    The members of a stratum are shuffled and dealt out in turn, going on where the stratum before ended: folds differ
    by at most one sample in every stratum and in all.
    """
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.flatnonzero(strata == stratum)) for stratum in np.unique(strata)])
    numbers = np.empty(len(strata), np.int64)
    numbers[order] = np.arange(len(strata)) % folds
    return numbers


def hold_out(samples: NDArray[np.int64], strata: NDArray[np.int64], count: int, seed: int = 0) -> tuple[
    NDArray[np.int64], NDArray[np.int64]
]:  # fmt: skip
    """Return ``samples`` without a stratified part of ``count``, and that part, each ascending."""
    check_validation(count, len(samples))
    order = np.asarray(stratified_order(strata[samples], seed), dtype=np.int64)
    return np.sort(samples[order[count:]]), np.sort(samples[order[:count]])


def cross_validation_parts(
    strata: NDArray[np.int64], fold: int, validation: int, folds: int = FOLDS, seed: int = 0
) -> Parts:
    """Return the parts of fold ``fold`` (0 to ``folds - 1``); ``validation`` of the other folds' samples are held out.

    Raises
    ------
    PruningError
        If there is no such fold, or too few samples for the validation part.
    """
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < folds:
        raise PruningError(f"fold must be from 0 to {folds - 1}, not {fold!r}")
    numbers = fold_numbers(strata, folds, seed)
    train, held = hold_out(np.flatnonzero(numbers != fold), strata, validation, seed)
    return Parts(train, held, np.flatnonzero(numbers == fold))


def divide(strata: NDArray[np.int64], official: int, fold: int | None, validation: int, seed: int = 0) -> Parts:
    """Return the parts of a small set: one fold of all samples, or without ``fold`` the file's own division.

    Parameters
    ----------
    official : samples of the file's training part, which lie before those of its test part
    """
    if fold is not None:
        return cross_validation_parts(strata, fold, validation, seed=seed)
    train, held = hold_out(np.arange(official), strata, validation, seed)
    return Parts(train, held, np.arange(official, len(strata)))
