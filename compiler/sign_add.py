"""Runs of weights with one magnitude and free signs: their order, their stored words, and the way back.

A run is what one product serves: ``adds`` slots whose activations are added or subtracted, then multiplied by the
run's magnitude (micro-structured unification, Lin et al. 2021, arXiv 2106.08301).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RunCode", "RunNeeds", "order_runs", "run_needs", "shares_runs", "used_runs"]

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


def shares_runs(levels: IntArray, adds: int) -> bool:
    """Return whether in ``levels`` ``(..., slots)`` every run of ``adds`` slots has one magnitude beside 0."""
    magnitude = np.abs(_in_runs(levels, adds))
    return bool(((magnitude == 0) | (magnitude == magnitude.max(axis=-1, keepdims=True))).all())


def order_runs(weight: IntArray, adds: int, *, apart: bool = False) -> tuple[IntArray, Mask]:
    """Cut the columns of ``weight`` ``(rows, positions)`` into runs that share a magnitude in every row.

    A run takes the next positions as long as they fit, which no other cut into runs can do in fewer; ``apart`` gives
    every position a run of its own.

    Returns
    -------
    the position of every slot, shape ``(slots,)``, a multiple of ``adds``; which slots are idle: they repeat a position
    of their run and must have a weight of 0
    """
    magnitude = np.abs(weight)
    order: list[int] = []
    idle: list[bool] = []
    held = np.zeros(len(weight), np.int64)

    def fill() -> None:
        missing = -len(order) % adds
        order.extend(order[-1:] * missing)
        idle.extend([True] * missing)

    for position in range(weight.shape[1]):
        column = magnitude[:, position]
        if apart or not ((column == 0) | (held == 0) | (column == held)).all():
            fill()
        if len(order) % adds == 0:
            held = np.zeros_like(column)
        held = np.maximum(held, column)
        order.append(position)
        idle.append(False)
    fill()
    return np.array(order, np.int64), np.array(idle, bool)


def used_runs(levels: IntArray, adds: int) -> int:
    """Return how many runs of ``levels`` ``(..., slots)`` have a weight."""
    return int(_in_runs(levels, adds).any(axis=-1).sum())


@dataclass(frozen=True)
class RunNeeds:
    """Whether some run has weights and zeros, whether some run has no weight, and the largest magnitude."""

    zeros: bool = False
    empty: bool = False
    largest: int = 0

    def __or__(self, other: RunNeeds) -> RunNeeds:
        """Return the needs of both."""
        return RunNeeds(self.zeros or other.zeros, self.empty or other.empty, max(self.largest, other.largest))


def run_needs(levels: IntArray, adds: int, free: Mask | None = None) -> RunNeeds:
    """Return what the words of ``levels`` ``(..., slots)`` must be able to say; ``free`` slots may say anything."""
    runs = _in_runs(levels, adds)
    used = _in_runs(np.broadcast_to(True if free is None else ~free, levels.shape), adds)
    some, zero = (runs != 0).any(axis=-1), ((runs == 0) & used).any(axis=-1)
    return RunNeeds(bool((some & zero).any()), bool((~some & zero).any()), int(np.abs(levels).max(initial=0)))


@dataclass(frozen=True)
class RunCode:
    """How a ROM word holds L slots: ``L / adds`` runs, each ``adds`` signs and above them a magnitude.

    A sign of 2 bits is -1, 0 or 1, one of 1 bit says whether the weight is negative. Magnitudes are stored less 1
    unless there are empty runs (``base`` 0), whose magnitude is 0. In a windowed layer the slots of a word follow one
    another, run by run. In a linear layer slot ``l`` belongs to lane ``l``; ``adds`` words hold a run of every lane,
    and the magnitude that word ``j`` of them holds for lanes ``g * adds`` and following is that of lane
    ``g * adds + j``, whose turn it is to be multiplied.
    """

    adds: int
    sign_bits: int
    magnitude_bits: int
    base: int

    @property
    def bits(self) -> int:
        """Bits of a run."""
        return self.adds * self.sign_bits + self.magnitude_bits

    def encode(self, levels: IntArray, linear: bool) -> IntArray:
        """Return the runs of ``levels`` ``(words, lanes)`` as codes, shape ``(words, lanes / adds)``."""
        words, lanes = levels.shape
        signs = (np.sign(levels) & 3 if self.sign_bits == 2 else levels < 0).astype(np.int64)
        shifts = np.arange(self.adds) * self.sign_bits
        codes = (signs.reshape(words, lanes // self.adds, self.adds) << shifts).sum(axis=2)
        magnitudes = np.maximum(self._magnitudes(np.abs(levels), linear) - self.base, 0)
        packed: IntArray = codes + (magnitudes << (self.adds * self.sign_bits))
        return packed

    def decode(self, codes: IntArray, linear: bool) -> IntArray:
        """Return the levels that :meth:`encode` encoded."""
        words, runs = codes.shape
        fields = codes[:, :, None] >> (np.arange(self.adds) * self.sign_bits) & ((1 << self.sign_bits) - 1)
        signs = (fields + 1 & 3) - 1 if self.sign_bits == 2 else 1 - 2 * fields
        magnitudes = (codes >> (self.adds * self.sign_bits)) + self.base
        if linear:
            turns = magnitudes.reshape(-1, self.adds, runs).transpose(0, 2, 1).reshape(-1, 1, runs * self.adds)
            spread = np.broadcast_to(turns, (len(turns), self.adds, runs * self.adds)).reshape(words, runs, self.adds)
        else:
            spread = magnitudes[:, :, None]
        levels: IntArray = (signs * spread).reshape(words, runs * self.adds)
        return levels

    def _magnitudes(self, magnitude: IntArray, linear: bool) -> IntArray:
        """Return the magnitude that each word holds for each of its runs, shape ``(words, lanes / adds)``."""
        words, lanes = magnitude.shape
        if not linear:
            alone: IntArray = magnitude.reshape(words, lanes // self.adds, self.adds).max(axis=2)
            return alone
        largest = magnitude.reshape(-1, self.adds, lanes).max(axis=1)
        turns: IntArray = largest.reshape(-1, lanes // self.adds, self.adds).transpose(0, 2, 1).reshape(words, -1)
        return turns


def _in_runs(levels: NDArray, adds: int) -> NDArray:  # type: ignore[type-arg]
    """Return ``(..., slots)`` as ``(..., runs, adds)``, the last run filled up with zeros."""
    missing = -levels.shape[-1] % adds
    padded = np.concatenate([levels, np.zeros((*levels.shape[:-1], missing), levels.dtype)], axis=-1)
    return padded.reshape(*levels.shape[:-1], -1, adds)
