"""ADMM pruning (METHODS 1.2): auxiliary Z, dual U, penalty rho, masked mapping and masked retraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import Optimizer
from torch.utils.hooks import RemovableHandle

from zeroskip.pruning.constraints import ConstraintSet
from zeroskip.pruning.constraints.kinds import KINDS, as_values, from_values
from zeroskip.pruning.constraints.ties import Frozen
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.layers import Layer, Rho, collect, fitted, mask_, set_rho
from zeroskip.pruning.replicas import check_same

__all__ = ["Admm", "Residual"]


@dataclass(frozen=True)
class Residual:
    """One line of the residual log.

    ``primal = ||W - Z||``, ``relative = ||W - Z|| / ||W||`` and ``dual = rho * ||Z - Z_previous||``.
    """

    update: int
    layer: str
    rho: float
    primal: float
    relative: float
    dual: float


class Admm:
    """Prune a model's layers onto constraint sets while the caller trains it.

    ``attach`` hooks the optimizer: before a step ``rho * (W - Z + U)`` is added to ``.grad``, after it pruned positions
    are set to zero again. ``update`` is one Z and U step; ``harden`` maps W onto the sets, after which the same loop is
    masked retraining (gradient, optimizer state and weight are masked).

    In a process group every rank has its own ``Admm`` and does the same; ``attach``, ``update`` and ``harden`` then
    check that W, Z, U and masks are the same on all ranks.

    Parameters
    ----------
    model : the network, or its DistributedDataParallel; its weights are changed in place
    sets : layer name or glob as in ``named_modules()`` -> constraint set; a plain name wins over a glob
    rho : first and last penalty, geometric in between; for all layers, or by layer name or glob as in ``sets``
    updates : number of updates over which rho grows; later updates keep the last rho
    parent : an earlier Admm, or masks by layer name, whose zeros stay zero (progressive pruning)

    Members
    -------
    residuals : list of Residual, one a layer and update
    """

    def __init__(
        self,
        model: nn.Module,
        sets: Mapping[str, ConstraintSet],
        rho: Rho = (1e-3, 0.3),
        updates: int = 24,
        parent: Admm | Mapping[str, Tensor] | None = None,
    ) -> None:
        if updates < 1:
            raise PruningError(f"updates must be at least 1, not {updates!r}")
        self.model: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
        self.updates = updates
        self.updates_done = 0
        self.hardened = False
        self.residuals: list[Residual] = []
        self._optimizers: dict[Optimizer, tuple[RemovableHandle, RemovableHandle]] = {}
        masks = parent.masks() if isinstance(parent, Admm) else dict(parent or {})
        self._layers = collect(self.model, sets, masks)
        set_rho(self._layers, rho)
        with torch.no_grad():
            for layer in self._layers.values():
                mask_(layer.weight, layer.parent)
                if layer.constraint is not None:
                    layer.constraint = fitted(layer.name, layer.constraint, layer.weight)
                    layer.z = layer.projected(layer.constraint, layer.weight)

    @property
    def rho(self) -> dict[str, float]:
        """Penalty that the next step uses, by layer."""
        return {name: self._rho_of(layer) for name, layer in self._layers.items() if layer.constraint is not None}

    def _rho_of(self, layer: Layer) -> float:
        start, end = layer.rho_range
        if self.updates == 1:
            return end
        return float(start * (end / start) ** (min(self.updates_done, self.updates - 1) / (self.updates - 1)))

    def names(self) -> tuple[str, ...]:
        """Return the constrained layers in model order."""
        return tuple(name for name, layer in self._layers.items() if layer.constraint is not None)

    def constraint(self, name: str) -> ConstraintSet | None:
        """Return the set of a layer, None for a layer without one."""
        layer = self._layers.get(name)
        return layer.constraint if layer else None

    def masks(self) -> dict[str, Tensor]:
        """Return the boolean masks that hold now, by layer name."""
        return {name: held.clone() for name, layer in self._layers.items() if (held := layer.held()) is not None}

    def attach(self, optimizer: Optimizer) -> None:
        """Hook ``optimizer``: penalty or mask before each step, mask after it."""
        if optimizer in self._optimizers:
            raise PruningError("This optimizer is already attached to this Admm")
        self._optimizers[optimizer] = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )
        self._mask_state(optimizer)
        self._check_ranks("as the optimizer was attached")

    def detach(self, optimizer: Optimizer) -> None:
        """Take the hooks off ``optimizer`` again, so that another Admm can go on with it."""
        if optimizer not in self._optimizers:
            raise PruningError("This optimizer is not attached to this Admm")
        for handle in self._optimizers.pop(optimizer):
            handle.remove()

    def update(self) -> None:
        """Do one Z step and one U step, log the residuals, and let rho grow with the dual rescaled to it."""
        if self.hardened:
            raise PruningError("Admm.update was called after harden; the ADMM phase is over")
        rho = self.rho
        self.updates_done += 1
        with torch.no_grad():
            for name, layer in self._layers.items():
                if layer.constraint is None:
                    continue
                z_before, weight = layer.z, layer.weight.detach()
                layer.z = layer.projected(layer.constraint, weight + layer.u)
                difference = weight - layer.z
                primal, size = float(difference.norm()), float(weight.norm())
                dual = rho[name] * float((layer.z - z_before).norm())
                relative = primal / size if size else 0.0
                self.residuals.append(Residual(self.updates_done, name, rho[name], primal, relative, dual))
                layer.u = (layer.u + difference) * (rho[name] / self._rho_of(layer))
        self._check_ranks(f"after update {self.updates_done}")

    def mapped(self) -> Callable[[Tensor], Tensor]:
        """Return the network as :meth:`harden` would leave it now, to be judged; the model's weights stay as they are.

        It runs the model itself, so the caller puts that in eval mode before, lest batch norm learn from the samples.
        """
        with torch.no_grad():
            weights = {
                f"{name}.weight" if name else "weight": layer.projected(layer.constraint, layer.weight)
                for name, layer in self._layers.items()
                if layer.constraint is not None
            }

        def forward(x: Tensor) -> Tensor:
            result: Tensor = functional_call(self.model, weights, (x,))
            return result

        return forward

    def harden(self) -> None:
        """Map every weight onto its set, fix the masks, and clear optimizer state of pruned positions.

        In the retraining that follows, weights that share a magnitude or a value keep sharing it, and weights on levels
        are frozen.
        """
        if self.hardened:
            raise PruningError("Admm.harden was called twice")
        with torch.no_grad():
            for layer in self._layers.values():
                if layer.constraint is not None:
                    layer.z = layer.projected(layer.constraint, layer.weight)
                    layer.weight.copy_(layer.z)
                    layer.mask = layer.weight.detach() != 0
                    layer.ties = layer.constraint.ties(layer.z)
                else:
                    layer.mask = layer.parent
        self.hardened = True
        for optimizer in self._optimizers:
            self._mask_state(optimizer)
        self._check_ranks("after harden")
        self.check()

    def holds_levels(self, name: str) -> bool:
        """Return whether hardening has fixed a layer's weights on levels."""
        layer = self._layers.get(name)
        return layer is not None and isinstance(layer.ties, Frozen)

    def released(self) -> Admm:
        """Return a hardened Admm for training through rounded weights: as this, but weights on levels may move.

        Their zeros stay, and whoever trains them puts them on their levels again.
        """
        held = {n: c for n in self.names() if (c := self.constraint(n)) is not None and not self.holds_levels(n)}
        free = Admm(self.model, held, parent=self.masks())
        free.harden()
        return free

    def check(self) -> None:
        """Raise unless every weight lies in its set and every pruned position is zero."""
        if not self.hardened:
            raise PruningError("Admm must be hardened before its result is used; call admm.harden()")
        for name, layer in self._layers.items():
            mask = layer.held()
            if mask is not None and bool((layer.weight.detach()[~mask] != 0).any()):
                raise PruningError(f"Layer '{name}' has nonzero weights at pruned positions; attach the optimizer")
            if layer.constraint is not None and layer.constraint.violation(layer.weight) > 0:
                raise PruningError(f"Layer '{name}' does not satisfy {layer.constraint}; call admm.harden() again")

    def state_dict(self) -> dict[str, Any]:
        """Return the whole ADMM state (Z, U, masks, sets, counters); the weights belong to the model's state."""
        tensors: dict[str, Tensor] = {}
        for name, layer in self._layers.items():
            entries = {"z": layer.z, "u": layer.u, "parent": layer.parent, "mask": layer.mask}
            tensors |= {f"{name}.{key}": value.clone() for key, value in entries.items() if value is not None}
        return {
            "tensors": tensors, "sets": self.sets(), "updates_done": self.updates_done, "hardened": self.hardened,
        }  # fmt: skip

    def sets(self) -> dict[str, dict[str, Any]]:
        """Return the sets as plain values by layer name, with all that they chose from the weights.

        Sets of the caller's own classes are left out.
        """
        layers = {name: layer.constraint for name, layer in self._layers.items()}
        return {name: as_values(c) for name, c in layers.items() if c is not None and type(c) in KINDS.values()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, for the same model and sets."""
        tensors, sets = state["tensors"], state.get("sets", {})
        known = {name.rpartition(".")[0] for name in tensors}
        if known != set(self._layers):
            raise PruningError(f"State holds layers {sorted(known)}, but this Admm has {sorted(self._layers)}")
        for name, layer in self._layers.items():
            if tensors[f"{name}.z"].shape != layer.weight.shape:
                own, stored = tuple(layer.weight.shape), tuple(tensors[f"{name}.z"].shape)
                raise PruningError(f"Layer '{name}' has shape {own}, but the state has {stored}")
        for name, layer in self._layers.items():
            layer.z, layer.u = tensors[f"{name}.z"].clone(), tensors[f"{name}.u"].clone()
            parent, mask = tensors.get(f"{name}.parent"), tensors.get(f"{name}.mask")
            layer.parent = None if parent is None else parent.clone()
            layer.mask = None if mask is None else mask.clone()
            if layer.constraint is not None:
                layer.constraint = from_values(sets[name]) if name in sets else layer.constraint
                layer.ties = layer.constraint.ties(layer.z) if state["hardened"] else None
        self.updates_done, self.hardened = int(state["updates_done"]), bool(state["hardened"])
        for optimizer in self._optimizers:
            self._mask_state(optimizer)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for layer in self._layers.values():
                gradient = layer.weight.grad
                if gradient is None:
                    continue
                if layer.ties is not None:
                    layer.ties.gather_(gradient)
                elif layer.constraint is not None and not self.hardened:
                    gradient.add_(layer.weight.detach() - layer.z + layer.u, alpha=self._rho_of(layer))
                mask_(gradient, layer.held())

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for layer in self._layers.values():
                if layer.ties is not None:
                    layer.ties.hold_(layer.weight)
                mask_(layer.weight, layer.held())

    def _check_ranks(self, when: str) -> None:
        """Raise, in a process group, unless every rank holds the same state."""
        check_same(
            {n: {"W": held.weight, "Z": held.z, "U": held.u, "mask": held.held()} for n, held in self._layers.items()},
            when,
        )

    def _mask_state(self, optimizer: Optimizer) -> None:
        with torch.no_grad():
            for layer in self._layers.values():
                for value in optimizer.state.get(layer.weight, {}).values():
                    if isinstance(value, Tensor) and value.shape == layer.weight.shape:
                        mask_(value, layer.held())
