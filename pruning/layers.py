"""The constrained layers of a model: found by name or glob, each with its set, penalty and ADMM variables."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from zeroskip.pruning.constraints import ConstraintSet
from zeroskip.pruning.constraints.ties import Frozen, Tied
from zeroskip.pruning.errors import PruningError, nearest

__all__ = ["Layer", "Rho", "collect", "fitted", "mask_", "set_rho", "weight_of"]

Rho = tuple[float, float] | Mapping[str, tuple[float, float]]
"""First and last penalty, or these by layer name or glob."""

_Setting = TypeVar("_Setting")


@dataclass
class Layer:
    """One constrained layer: its parameter, its set and its ADMM variables."""

    name: str
    weight: nn.Parameter
    constraint: ConstraintSet | None
    z: Tensor
    u: Tensor
    parent: Tensor | None
    inherited: bool = False
    """The weights are on the set already, since an earlier Admm, and stay there."""
    rho_range: tuple[float, float] = (1.0, 1.0)
    mask: Tensor | None = None
    ties: Tied | Frozen | None = None

    def aim(self) -> ConstraintSet | None:
        """Return the set that the weights are still to be brought onto."""
        return None if self.inherited else self.constraint

    def held(self) -> Tensor | None:
        """Return the mask that holds now: the hardened one, else the parent's."""
        return self.mask if self.mask is not None else self.parent

    def harden(self) -> None:
        """Map the weights onto the set, and hold its zeros and shared values from now on."""
        constraint = self.aim()
        if constraint is not None:
            self.z = self.projected(constraint, self.weight)
            self.weight.copy_(self.z)
            self.mask, self.ties = self.weight.detach() != 0, constraint.ties(self.z)
        elif not self.inherited:
            self.mask = self.parent

    def inherit(self, constraint: ConstraintSet) -> None:
        """Hold a set on which an earlier Admm has left the weights; weights that are fresh are brought onto it."""
        if constraint.violation(self.weight) > 0:
            self.weight.copy_(self.projected(constraint, self.weight))
        self.constraint, self.inherited = constraint, True
        self.z = self.weight.detach().clone(memory_format=torch.contiguous_format)
        self.mask = self.z != 0 if self.parent is None else self.parent
        self.ties = constraint.ties(self.z)

    def check(self, weight: Tensor) -> None:
        """Raise unless ``weight`` lies in the set and its pruned positions are zero."""
        mask = self.held()
        if mask is not None and bool((weight.detach()[~mask] != 0).any()):
            raise PruningError(f"Layer '{self.name}' has nonzero weights at pruned positions; attach the optimizer")
        if self.constraint is not None and self.constraint.violation(weight) > 0:
            raise PruningError(f"Layer '{self.name}' does not satisfy {self.constraint}; call admm.harden() again")

    def projected(self, constraint: ConstraintSet, weight: Tensor) -> Tensor:
        """Return the projection, which must leave the zeros of the parent alone."""
        try:
            z = constraint.project(weight)
        except PruningError as error:
            raise type(error)(f"Layer '{self.name}': {error}") from error
        if self.parent is not None and bool((z[~self.parent] != 0).any()):
            raise PruningError(
                f"Layer '{self.name}' has pruned weights of an earlier stage to which {constraint} gives values; "
                "prune whole blocks before they are unified"
            )
        return z


def mask_(values: Tensor, mask: Tensor | None) -> None:
    """Set the masked positions of ``values`` to zero in place, also where they are not finite."""
    if mask is not None:
        values.masked_fill_(~mask, 0)


def weight_of(model: nn.Module, name: str) -> nn.Parameter:
    """Return the weight of a layer by its name in ``model``; the model itself is called ''."""
    return model.get_parameter(f"{name}.weight" if name else "weight")


def fitted(name: str, constraint: ConstraintSet, weight: Tensor) -> ConstraintSet:
    """Return the set with all that it chooses once from the weights."""
    try:
        return constraint.fit(weight)
    except PruningError as error:
        raise PruningError(f"Layer '{name}': {error}") from error


def collect(
    model: nn.Module, sets: Mapping[str, ConstraintSet], parents: Mapping[str, Tensor | None]
) -> dict[str, Layer]:
    """Match the patterns against the model's layers and build the state, in model order.

    ``parents`` names the layers that an earlier Admm held, with their masks where it had any.
    """
    if not isinstance(sets, Mapping) or not all(isinstance(value, ConstraintSet) for value in sets.values()):
        raise PruningError(f"sets must map layer names or globs to constraint sets, but they are {sets!r}")
    weights = _weights(model, sets)
    chosen = _by_layer(sets, weights, "layer with weights")
    for name in parents:
        if name not in weights:
            raise PruningError(f"The parent prunes layer '{name}', but the model has: {nearest(name, weights)}")
    layers: dict[str, Layer] = {}
    for name, weight in weights.items():
        if name not in chosen and name not in parents:
            continue
        parent = parents.get(name)
        if parent is not None and parent.shape != weight.shape:
            raise PruningError(f"Layer '{name}' has shape {tuple(weight.shape)}, but its mask {tuple(parent.shape)}")
        zeros = torch.zeros_like(weight, requires_grad=False)
        held = None if parent is None else parent.to(weight.device, torch.bool, copy=True)
        layers[name] = Layer(name, weight, chosen.get(name), zeros, zeros.clone(), held)
    return layers


def _weights(model: nn.Module, sets: Mapping[str, ConstraintSet]) -> dict[str, nn.Parameter]:
    """Return the weights that sets can prune, by layer name; refuse layers that ``sets`` name but none can prune."""
    weights: dict[str, nn.Parameter] = {}
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        named = any(fnmatch.fnmatchcase(name, pattern) for pattern in sets)
        weight = getattr(module, "weight", None)
        if named and isinstance(weight, Tensor) and not isinstance(weight, nn.Parameter):
            raise PruningError(
                f"Layer '{name}' computes its weight from other parameters (weight_norm, a parametrization), so zeros "
                "would not last; remove that first, with torch.nn.utils.parametrize.remove_parametrizations"
            )
        if not isinstance(weight, nn.Parameter) or weight.dim() < 2:
            continue
        if named and isinstance(module, _ConvTransposeNd):
            raise PruningError(
                f"Layer '{name}' is a transposed convolution, whose weight has its inputs first: the sets would prune "
                "the wrong axis; leave it out"
            )
        owner = owners.setdefault(id(weight), name)
        if owner == name:
            weights[name] = weight
        elif name in sets:
            raise PruningError(f"Layer '{name}' has the very weight of layer '{owner}'; name that one alone")
    return weights


def _by_layer(settings: Mapping[str, _Setting], names: Collection[str], what: str) -> dict[str, _Setting]:
    """Return the setting of every layer that a name or a glob matches; a plain name wins over a glob."""
    chosen: dict[str, str] = {}
    for pattern in sorted(settings, key=lambda pattern: pattern in names):
        matches = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise PruningError(f"No {what} is called '{pattern}'; the nearest are: {nearest(pattern, names)}")
        for name in matches:
            if name in chosen and pattern not in names:
                raise PruningError(f"Layer '{name}' is matched by both '{chosen[name]}' and '{pattern}'")
            chosen[name] = pattern
    return {name: settings[pattern] for name, pattern in chosen.items()}


def set_rho(layers: Mapping[str, Layer], rho: Rho) -> None:
    """Give every constrained layer its first and last penalty."""
    names = [name for name, layer in layers.items() if layer.aim() is not None]
    chosen = _by_layer(rho, names, "layer with a set") if isinstance(rho, Mapping) else dict.fromkeys(names, rho)
    for pair in rho.values() if isinstance(rho, Mapping) else (rho,):
        if not (isinstance(pair, Sequence) and len(pair) == 2 and all(math.isfinite(r) and r > 0 for r in pair)):
            raise PruningError(f"rho must be two positive numbers (start, end), not {pair!r}")
    for name in names:
        if name not in chosen:
            raise PruningError(f"rho names no penalty for layer '{name}'; add it, or a glob such as '*'")
        layers[name].rho_range = (float(chosen[name][0]), float(chosen[name][1]))
