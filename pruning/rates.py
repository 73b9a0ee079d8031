"""How many times the rate of a structured network a non-structured one reaches at the same accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Point", "RateAt", "rate_at"]


@dataclass(frozen=True)
class Point:
    """One network: its pruning rate (1: dense) and its accuracy."""

    rate: float
    accuracy: float


@dataclass(frozen=True)
class RateAt:
    """A rate at which an accuracy is reached; ``at_least``: no network of lower accuracy says where it ends."""

    rate: float
    at_least: bool


def rate_at(points: Iterable[Point], accuracy: float) -> RateAt | None:
    """Return the largest rate at which ``accuracy`` is reached, None where no point reaches it.

    Between two networks the accuracy is taken to fall in a line over the logarithm of the rate. A network that another
    one beats in rate and accuracy does not count.
    """
    front = _front(sorted(points, key=lambda point: (-point.rate, -point.accuracy)))
    reached = [point for point in front if point.accuracy >= accuracy]
    if not reached:
        return None
    best = reached[0]
    beyond = [point for point in front if point.rate > best.rate]
    if not beyond:
        return RateAt(best.rate, at_least=True)
    following = beyond[-1]
    share = (best.accuracy - accuracy) / (best.accuracy - following.accuracy)
    return RateAt(math.exp(math.log(best.rate) + share * math.log(following.rate / best.rate)), at_least=False)


def _front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats, of falling rate and rising accuracy."""
    front: list[Point] = []
    for point in points:
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front
