"""What a layer's kept groups cost: weights, multiplications, cycles or stored bits, against one budget for all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from zeroskip.pruning.checkpoints import LATER
from zeroskip.pruning.constraints import ConstraintSet, Joint, NonStructured
from zeroskip.pruning.constraints.base import Grouped, Values, as_matrix
from zeroskip.pruning.constraints.topk import check_size
from zeroskip.pruning.errors import PruningError

__all__ = ["Budget", "Price", "groups_of", "price_of", "stored_bits"]

Price = Callable[[int], int]
"""What a layer costs with so many groups kept; never less for more groups."""

_RESOURCES = ("weights", "macs", "cycles", "bits")
_MAX_INDEX_BITS = 12


@dataclass(frozen=True)
class Budget:
    """What a network's layers may cost together; exactly one of the first four is given.

    Parameters
    ----------
    weights : nonzero weights
    macs : products of nonzero weights, an inference, at every output position, as ``zeroskip inspect`` counts them
    cycles : ideal cycles of an engine that skips zeros: the MACs of every layer by ``products``, rounded up
    bits : stored bits of weights and indices, see :func:`stored_bits`; for ``NonStructured`` only
    products : products a cycle, for ``cycles``
    value_bits : bits a weight, for ``bits``; the levels of a ``Joint`` set win. None: what the recipe quantizes to
    """

    weights: int | None = field(default=None, metadata=LATER)
    macs: int | None = field(default=None, metadata=LATER)
    cycles: int | None = field(default=None, metadata=LATER)
    bits: int | None = field(default=None, metadata=LATER)
    products: int = field(default=1, metadata=LATER)
    value_bits: int | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        given = [name for name in _RESOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise PruningError(f"A budget must be one of {', '.join(_RESOURCES)}, not {found}")
        check_size(self.amount, self.resource)
        check_size(self.products, "products")
        if self.value_bits is not None:
            check_size(self.value_bits, "value_bits")
        for name, default, owner in (("products", 1, "cycles"), ("value_bits", None, "bits")):
            if getattr(self, name) != default and owner != self.resource:
                raise PruningError(f"{name} belongs to a budget of {owner}, not of {self.resource}")

    @property
    def resource(self) -> str:
        """What is counted: ``weights``, ``macs``, ``cycles`` or ``bits``."""
        return next(name for name in _RESOURCES if getattr(self, name) is not None)

    @property
    def amount(self) -> int:
        """How much of it there is."""
        amount: int = getattr(self, self.resource)
        return amount

    def quantized(self, value_bits: int) -> Budget:
        """Return the budget with the bits of a weight, where it needs them and does not say them."""
        missing = self.resource == "bits" and self.value_bits is None
        return replace(self, value_bits=value_bits) if missing else self

    def __str__(self) -> str:
        return f"{self.amount} {self.resource}"


def groups_of(constraint: ConstraintSet) -> Grouped:
    """Return the set's structure of groups, of which an allocation chooses how many stay."""
    structure = constraint.structure if isinstance(constraint, Joint) else constraint
    if not isinstance(structure, Grouped):
        raise PruningError(
            "An allocation needs a set that keeps the groups of largest sum (nonstructured, filter, channel, column, "
            f"kernel, vector or block), not {type(structure).__name__}"
        )
    return structure


def price_of(budget: Budget, constraint: ConstraintSet, weight: Values, positions: int) -> Price:
    """Return what a layer costs with its largest groups kept, so that no choice of as many groups costs more.

    Parameters
    ----------
    constraint : a set of groups, or a ``Joint`` one with such a structure
    weight : of the layer as it is; rows and columns of zeros take no bits
    positions : of the layer's output map, 1 in a linear layer
    """
    structure = groups_of(constraint)
    if budget.resource == "bits":
        if not isinstance(structure, NonStructured):
            raise PruningError(
                f"A budget of bits counts the indices of single weights, not of {type(structure).__name__}; use a "
                "budget of weights, macs or cycles"
            )
        value_bits = constraint.levels.bits if isinstance(constraint, Joint) else budget.value_bits
        if value_bits is None:
            raise PruningError("A budget of bits needs value_bits, the bits of a weight")
        alive = as_matrix(weight) != 0
        rows, columns = int(alive.any(axis=1).sum()), int(alive.any(axis=0).sum())
        entry = sum((size - 1).bit_length() for size in weight.shape[1:]) if weight.ndim > 2 else 0
        return lambda kept: stored_bits(kept, rows, columns, value_bits, entry)
    sizes = np.sort(structure.sums(np.ones(weight.shape)).reshape(-1).astype(np.int64))[::-1]
    weights = np.concatenate([[0], np.cumsum(sizes)])
    factor = 1 if budget.resource == "weights" else positions
    return lambda kept: -(-int(weights[kept]) * factor // budget.products)


def stored_bits(kept: int, rows: int, columns: int, value_bits: int, entry_bits: int = 0) -> int:
    """Return the bits that ``kept`` weights are expected to take, spread evenly over ``rows`` of ``columns`` weights.

    The format is the compiler's relative index of k bits in each word: a gap of ``e = 2^k - 1`` or more takes an escape
    word for every e positions. With density d the escapes of a row of L positions are ``sum over m of d (L - m e)
    (1 - d)^(m e)``; k is the best one. A convolution also has a table of the columns that some row uses, with
    ``entry_bits`` for channel, y and x. What depends on the engine's geometry is left out, above all words that wait
    for a longer row of another lane.
    """
    if kept == 0:
        return 0
    zeros = 1 - kept / (rows * columns)
    widths = range(1, _MAX_INDEX_BITS + 1)
    bits = min((kept + rows * _escapes(zeros, columns, (1 << k) - 1)) * (value_bits + k) for k in widths)
    return math.ceil(bits) + math.ceil(columns * (1 - zeros**rows)) * entry_bits


def _escapes(zeros: float, length: int, escape: int) -> float:
    """Return the expected escape words of a row with this share of zeros."""
    skipped = np.arange(escape, length, escape, dtype=np.float64)
    return (1 - zeros) * float(((length - skipped) * zeros**skipped).sum())
