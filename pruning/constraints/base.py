"""What every constraint set is: a projection, the distance to the set, and what the artifact says of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroskip.pruning.constraints.ties import Frozen, Tied
from zeroskip.pruning.constraints.topk import largest
from zeroskip.pruning.errors import Diverged, PruningError
from zeroskip.pruning.quantizers import Weights

__all__ = [
    "ConstraintSet",
    "Grouped",
    "Structure",
    "as_kernels",
    "as_matrix",
    "check_axes",
    "energies",
    "finite_values",
]

Values = NDArray[Any]
Mask = NDArray[np.bool_]


class ConstraintSet(ABC):
    """What ADMM needs of a set. Projections are deterministic on ties (the lower flat index wins) and idempotent."""

    @abstractmethod
    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest feasible tensor, same shape and dtype, without gradient."""

    @abstractmethod
    def count(self, shape: Sequence[int]) -> int:
        """Return the number of groups of the view that are kept."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""

    def violation(self, weight: Tensor) -> float:
        """Return the distance to the projection, 0 when feasible."""
        # float64 and scaled by the largest, so that no square of a small difference becomes 0.
        difference = (weight.detach().to(torch.float64) - self.project(weight).to(torch.float64)).abs()
        largest = float(difference.max()) if difference.numel() else 0.0
        return 0.0 if largest == 0 else largest * float((difference / largest).norm())

    def fit(self, weight: Tensor) -> ConstraintSet:
        """Return the set with all that is chosen once, from the weights at the start of ADMM."""
        return self

    def ties(self, weight: Tensor) -> Tied | Frozen | None:
        """Return what retraining of the feasible ``weight`` must hold beside its zeros; None where values are free."""
        return None

    def levels_of(self, weight: Tensor) -> tuple[Weights, float] | None:
        """Return the levels of the feasible ``weight`` and their distance; None where quantization may choose them."""
        return None


class Structure(ConstraintSet):
    """A set that says which weights may be nonzero together; their values are free."""

    @abstractmethod
    def support(self, gains: Values) -> Mask:
        """Return the allowed support with the largest sum of ``gains`` (not negative, shaped as the weight)."""

    def scores(self, values: Values) -> Values:
        """Return what keeping a weight gains: its square; sets of single weights take ``|w|``, of the same order."""
        return energies(values)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest feasible tensor: the groups of largest L2 norm stay, the lower index wins a tie."""
        mask = torch.from_numpy(self.support(self.scores(finite_values(weight))))
        return weight.detach().contiguous() * mask.to(weight.device)


class Grouped(Structure):
    """A structure that keeps the groups of largest sum, at most ``count`` of them; every weight is in one group."""

    @abstractmethod
    def sums(self, gains: Values) -> Values:
        """Return the sum of ``gains`` (shaped as the weight) over every group, an array of any shape."""

    @abstractmethod
    def spread(self, kept: Mask, shape: Sequence[int]) -> Mask:
        """Return the weights of the ``kept`` groups (shaped as :meth:`sums`) of a tensor of this shape."""

    def support(self, gains: Values) -> Mask:
        """Return the groups of largest gain; the lower index wins a tie."""
        count, sums = self.count(gains.shape), self.sums(gains)
        return self.spread(largest(sums.reshape(-1), count).reshape(sums.shape), gains.shape)


def finite_values(weight: Tensor) -> Values:
    """Return the weights as a C-ordered float32 or float64 array after refusing NaN and infinity."""
    if not weight.is_floating_point():
        raise PruningError(f"Weights must be floating-point numbers, not {weight.dtype}; convert the network")
    wide = weight.detach().to("cpu", weight.dtype if weight.dtype.itemsize >= 4 else torch.float32)
    values: Values = wide.contiguous().numpy()
    if not np.isfinite(values).all():
        raise Diverged("Weights must be finite, but a NaN or an infinity was found; lower the learning rate or rho")
    return values


def energies(values: Values) -> Values:
    """Return squares as float64; float64 weights are scaled by a power of two first, so that none overflows."""
    if values.dtype == np.float64 and values.size:
        values = np.ldexp(values, -int(np.frexp(np.abs(values).max())[1]))
    squares: Values = np.square(values, dtype=np.float64)
    return squares


def check_axes(name: str, shape: Sequence[int]) -> None:
    """Refuse a shape that has no output and input axis, or no weights."""
    if len(shape) < 2 or 0 in shape:
        raise PruningError(f"{name} needs a weight with two or more axes, not shape {tuple(shape)}")


def as_matrix(values: Values) -> Values:
    """Return the GEMM view ``[O, I*kh*kw]``."""
    return values.reshape(len(values), -1)


def as_kernels(values: Values) -> Values:
    """Return the view ``[O, I, positions]``; a linear layer has kernels of one position."""
    return values.reshape(*values.shape[:2], -1)
