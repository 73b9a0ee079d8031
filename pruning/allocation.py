"""How many groups each layer keeps: LAMP scores by cost as a start, then exchange between layers (METHODS 9)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from zeroskip.pruning.admm import Admm
from zeroskip.pruning.budgets import Budget, Price, groups_of, price_of
from zeroskip.pruning.capture import capture
from zeroskip.pruning.constraints import ConstraintSet, Joint, NonStructured
from zeroskip.pruning.constraints.base import Values, energies, finite_values
from zeroskip.pruning.constraints.topk import check_size
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.layers import Layer, collect

__all__ = ["Allocation", "Judge", "Trial", "allocate", "lamp_scores"]

Judge = Callable[[Admm], float]
"""Takes the network with a candidate's zeros as a hardened Admm; more is better. Training in it is undone."""


@dataclass(frozen=True)
class Trial:
    """One split that was judged.

    Parameters
    ----------
    number : from 1 on
    keep : layer name -> kept groups
    cost : of the whole network, in the budget's unit
    accepted : whether it was the best until then
    """

    number: int
    keep: Mapping[str, int]
    cost: int
    score: float
    accepted: bool


@dataclass(frozen=True)
class Allocation:
    """How layers share a budget.

    Parameters
    ----------
    budget : for all layers of the network; those that are not allocated cost what they have
    floor : least number of groups a layer keeps
    shares : of what a layer costs, which it gives to another one; tried in this order
    trials : most splits that are judged
    """

    budget: Budget
    floor: int = 1
    shares: tuple[float, ...] = (0.4, 0.2, 0.1)
    trials: int = 60

    def __post_init__(self) -> None:
        check_size(self.floor, "floor")
        check_size(self.trials, "trials")
        if not all(math.isfinite(share) and 0 < share <= 1 for share in self.shares):
            raise PruningError(f"shares must be numbers above 0 and at most 1, not {self.shares!r}")


@dataclass(frozen=True)
class _Account:
    """One allocated layer: its prices, its bounds, and the LAMP scores of its groups, best first."""

    name: str
    price: Price
    floor: int
    limit: int
    scores: NDArray[np.float64]

    def unit(self) -> float:
        """Return what one group costs."""
        return self.price(self.limit) / self.limit

    def most(self, money: int) -> int:
        """Return how many groups can be had for so much."""
        return bisect_right(range(self.limit + 1), money, key=self.price) - 1


def lamp_scores(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the LAMP score of every group, best first: its energy by the sum of all that are not smaller.

    Lee et al. 2021, arXiv 2010.07611; energy is the sum of squares. Groups of zeros are left out.
    """
    ordered = np.sort(energy.reshape(-1))[::-1]
    ordered = ordered[ordered > 0]
    result: NDArray[np.float64] = ordered / np.cumsum(ordered)
    return result


def allocate(
    model: nn.Module,
    sets: Mapping[str, ConstraintSet],
    settings: Allocation,
    judge: Judge,
    *,
    sample: Tensor | None = None,
    parent: Mapping[str, Tensor] | None = None,
    held: Mapping[str, ConstraintSet] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> dict[str, ConstraintSet]:
    """Return the sets with the ``keep`` of every layer chosen, together within the budget; the model stays as it is.

    The start keeps the groups of largest LAMP score by cost. Then pairs of layers exchange part of what they cost, and
    what is judged better stays. What is left of the budget goes to the layers in the order of their next scores.

    Parameters
    ----------
    sets : layer name or glob -> set of groups; its ``keep`` is the most that the layer may keep
    judge : see :data:`Judge`; judge on samples that were held back from training, and not on the test set
    sample : input of the network, to count the output positions for ``macs`` and ``cycles``
    parent, held : masks and sets by layer name that stay, as of :class:`Admm`
    on_trial : called after every split that was judged; the last accepted one is the result

    Raises
    ------
    PruningError
        If a layer does not exist, a set has no groups to count, or the budget is below what the floors cost.
    """
    masks = dict(parent or {})
    layers = collect(model, sets, masks)
    positions = _positions(model, sample, settings.budget)
    accounts = _accounts(layers, settings, positions)
    left = settings.budget.amount - _others(model, accounts, settings.budget, positions, masks)
    _check_floors(accounts, left, settings.budget)
    constraints = {name: layer.constraint for name, layer in layers.items() if layer.constraint is not None}
    search = _Search(model, constraints, masks, dict(held or {}), accounts, left, settings, judge, on_trial)
    keep = search.run()
    return {name: with_keep(constraint, keep[name]) for name, constraint in constraints.items()}


def with_keep(constraint: ConstraintSet, keep: float | int) -> ConstraintSet:
    """Return the set with another number of groups, or another share of them."""
    if isinstance(constraint, Joint):
        return replace(constraint, structure=with_keep(constraint.structure, keep))  # type: ignore[arg-type]
    return replace(constraint, keep=keep)  # type: ignore[type-var]


def _positions(model: nn.Module, sample: Tensor | None, budget: Budget) -> dict[str, int] | None:
    """Return the output positions of every layer with weights; None where they do not count."""
    if budget.resource not in ("macs", "cycles"):
        return None
    if sample is None:
        raise PruningError(f"A budget of {budget.resource} needs sample, an input of the network, to count positions")
    graph = capture(model, sample)
    return {op.module: math.prod(op.out_shape[1:]) for op in graph.ops if op.weight}


def _accounts(
    layers: Mapping[str, Layer], settings: Allocation, positions: Mapping[str, int] | None
) -> tuple[_Account, ...]:
    found = []
    for name, layer in layers.items():
        if layer.constraint is None:
            continue
        try:
            weight = _alive(layer)
            structure = groups_of(layer.constraint)
            price = price_of(settings.budget, layer.constraint, weight, _of(positions, name))
            scores = lamp_scores(structure.sums(energies(weight)))
            limit = min(structure.count(weight.shape), len(scores))
        except PruningError as error:
            raise type(error)(f"Layer '{name}': {error}") from error
        if not limit:
            raise PruningError(f"Layer '{name}' has no weight that is not 0; leave it out of the allocation")
        found.append(_Account(name, price, min(settings.floor, limit), limit, scores[:limit]))
    if not found:
        raise PruningError("An allocation needs at least one layer; name them, or give a glob such as '*'")
    return tuple(found)


def _of(positions: Mapping[str, int] | None, name: str) -> int:
    if positions is None:
        return 1
    if name not in positions:
        raise PruningError("the network does not use it for this sample; leave it out of the allocation")
    return positions[name]


def _others(
    model: nn.Module, accounts: tuple[_Account, ...], budget: Budget, positions: Mapping[str, int] | None,
    masks: Mapping[str, Tensor],
) -> int:  # fmt: skip
    """Return what the layers cost that are not allocated, by their nonzero weights."""
    allocated = {account.name for account in accounts}
    total = 0
    for name, layer in collect(model, {"*": NonStructured(1.0)}, masks).items():
        if name not in allocated and (positions is None or name in positions):
            weight = _alive(layer)
            total += price_of(budget, NonStructured(1.0), weight, _of(positions, name))(int(np.count_nonzero(weight)))
    return total


def _alive(layer: Layer) -> Values:
    """Return the weights of a layer without what its parent has pruned."""
    return finite_values(layer.weight if layer.parent is None else layer.weight.detach() * layer.parent)


def _check_floors(accounts: tuple[_Account, ...], left: int, budget: Budget) -> None:
    least = {account.name: account.price(account.floor) for account in accounts}
    needed = sum(least.values())
    if needed > left:
        others = budget.amount - left
        parts = [f"{name} {cost}" for name, cost in least.items()] + ([f"other layers {others}"] if others else [])
        raise PruningError(
            f"A budget of {budget} is below the least of {needed + others} that the floor of "
            f"{accounts[0].floor} groups a layer leaves ({', '.join(parts)}); raise the budget or lower the floor"
        )


@dataclass
class _Search:
    """The splits of one budget: each uses it as far as whole groups allow."""

    model: nn.Module
    constraints: Mapping[str, ConstraintSet]
    masks: Mapping[str, Tensor]
    held: Mapping[str, ConstraintSet]
    accounts: tuple[_Account, ...]
    left: int
    settings: Allocation
    judge: Judge
    on_trial: Callable[[Trial], None] | None
    seen: set[tuple[int, ...]] = field(default_factory=set)
    best: float = -math.inf

    def run(self) -> dict[str, int]:
        """Return the groups kept by layer."""
        keep = self._start()
        self._accepts(keep)
        for share, donor, receiver in self._moves():
            while True:
                moved = self._moved(keep, share, donor, receiver)
                if moved is None or not self._accepts(moved):
                    break
                keep = moved
        return self._named(keep)

    def _start(self) -> tuple[int, ...]:
        """Return the split by LAMP scores over the cost of a group, so that every layer is paid for what it uses."""
        parts = [account.scores[account.floor :] / account.unit() for account in self.accounts]
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        owners = owners[np.argsort(-np.concatenate(parts), kind="stable")]
        floors = np.array([account.floor for account in self.accounts])

        def split(steps: int) -> tuple[int, ...]:
            counts: list[int] = (floors + np.bincount(owners[:steps], minlength=len(floors))).tolist()
            return tuple(counts)

        steps = bisect_right(range(len(owners) + 1), self.left, key=lambda steps: self._cost(split(steps))) - 1
        return self._filled(split(steps))

    def _moves(self) -> Iterator[tuple[float, int, int]]:
        """Yield share, donor and receiver; every layer takes its turn as both before a pair differs by more."""
        count = len(self.accounts)
        for share in self.settings.shares:
            for distance in range(1, count):
                for donor in range(count):
                    yield share, donor, (donor + distance) % count

    def _moved(self, keep: tuple[int, ...], share: float, donor: int, receiver: int) -> tuple[int, ...] | None:
        """Return the split after one exchange, None where nothing moves."""
        giver, taker = self.accounts[donor], self.accounts[receiver]
        moved = list(keep)
        moved[donor] = max(giver.floor, min(keep[donor] - 1, giver.most(int(giver.price(keep[donor]) * (1 - share)))))
        if moved[donor] >= keep[donor]:
            return None
        moved[receiver] = taker.most(self.left - self._cost(moved) + taker.price(keep[receiver]))
        return self._filled(tuple(moved)) if moved[receiver] > keep[receiver] else None

    def _filled(self, keep: tuple[int, ...]) -> tuple[int, ...]:
        """Return the split with what is left given to the layers whose next group has the largest score by cost."""

        def following(index: int) -> float:
            account = self.accounts[index]
            return account.scores[keep[index]] / account.unit() if keep[index] < account.limit else 0.0

        full = list(keep)
        for index in sorted(range(len(keep)), key=following, reverse=True):
            account = self.accounts[index]
            full[index] = account.most(self.left - self._cost(full) + account.price(full[index]))
        return tuple(full)

    def _cost(self, keep: Sequence[int]) -> int:
        return sum(account.price(count) for account, count in zip(self.accounts, keep, strict=True))

    def _named(self, keep: tuple[int, ...]) -> dict[str, int]:
        return {account.name: count for account, count in zip(self.accounts, keep, strict=True)}

    def _accepts(self, keep: tuple[int, ...]) -> bool:
        """Judge a split that was not judged before, if a trial is left; return whether it is the best."""
        if keep in self.seen or len(self.seen) >= self.settings.trials:
            return False
        self.seen.add(keep)
        sets = {name: with_keep(groups_of(self.constraints[name]), count) for name, count in self._named(keep).items()}
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        try:
            admm = Admm(self.model, sets, parent=self.masks, held=self.held)
            admm.harden()
            score = self.judge(admm)
        finally:
            self.model.load_state_dict(state)
        if math.isnan(score):
            raise PruningError("The judge of an allocation must return a number, not nan")
        accepted = score > self.best
        self.best = max(score, self.best)
        if self.on_trial:
            cost = self.settings.budget.amount - self.left + self._cost(keep)
            self.on_trial(Trial(len(self.seen), self._named(keep), cost, score, accepted))
        return accepted
