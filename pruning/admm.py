"""ADMM pruning (METHODS 1.2): auxiliary Z, dual U, penalty rho, masked mapping and masked retraining."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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
from zeroskip.pruning.goals import REMEDY, residual_goals
from zeroskip.pruning.layers import Layer, Rho, collect, fitted, mask_, set_rho, weight_of
from zeroskip.pruning.replicas import check_same

__all__ = ["Admm", "Residual"]

_log = logging.getLogger(__name__)


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
    updates : number of calls of :meth:`update` over which rho grows; later ones keep the last rho
    parent : an earlier Admm, or masks by layer name, whose zeros stay zero (progressive pruning)
    held : sets by layer name that the weights are on already; those that ``sets`` does not name stay there, with the
        values they share. A hardened ``parent`` brings its own

    Members
    -------
    residuals : list of Residual, one a layer and update
    """

    def __init__(
        self,
        model: nn.Module,
        sets: Mapping[str, ConstraintSet],
        rho: Rho = (1e-3, 3.0),
        updates: int = 24,
        parent: Admm | Mapping[str, Tensor] | None = None,
        held: Mapping[str, ConstraintSet] | None = None,
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
        before = {**(parent.on_sets() if isinstance(parent, Admm) else {}), **(held or {})}
        self._layers = collect(self.model, sets, {**dict.fromkeys(before), **masks})
        set_rho(self._layers, rho)
        self._asked = {name: _options(layer.constraint) for name, layer in self._layers.items()}
        with torch.no_grad():
            for name, layer in self._layers.items():
                mask_(layer.weight, layer.parent)
                if layer.constraint is not None:
                    layer.constraint = fitted(name, layer.constraint, layer.weight)
                    layer.z = layer.projected(layer.constraint, layer.weight)
                elif name in before:
                    layer.inherit(before[name])

    @property
    def rho(self) -> dict[str, float]:
        """Penalty that the next step uses, by layer."""
        return {name: self._rho_of(layer) for name, layer in self._layers.items() if layer.aim() is not None}

    def _rho_of(self, layer: Layer) -> float:
        start, end = layer.rho_range
        if self.updates == 1:
            return end
        return float(start * (end / start) ** (min(self.updates_done, self.updates - 1) / (self.updates - 1)))

    def names(self) -> tuple[str, ...]:
        """Return the layers that this Admm brings onto sets, in model order."""
        return tuple(name for name, layer in self._layers.items() if layer.aim() is not None)

    def constraint(self, name: str) -> ConstraintSet | None:
        """Return the set of a layer, its parent's where this Admm has none for it; None for a layer without one."""
        layer = self._layers.get(name)
        return layer.constraint if layer else None

    def on_sets(self) -> dict[str, ConstraintSet]:
        """Return the sets that weights lie on and stay on, by layer: its parent's, and once hardened its own."""
        layers = self._layers.items()
        return {n: held.constraint for n, held in layers if held.constraint and (self.hardened or held.inherited)}

    def masks(self) -> dict[str, Tensor]:
        """Return the boolean masks that hold now, by layer name."""
        return {name: held.clone() for name, layer in self._layers.items() if (held := layer.held()) is not None}

    def attach(self, optimizer: Optimizer) -> None:
        """Hook ``optimizer``: penalty or mask before each step, mask after it, of those layers whose weights it has.

        Raises
        ------
        PruningError
            If it has none of them, goes uphill, or judges its steps by the loss, in which the penalty does not stand.
        """
        if optimizer in self._optimizers:
            raise PruningError("This optimizer is already attached to this Admm")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise PruningError("LBFGS compares losses, in which the penalty does not stand; use SGD, Adam or the like")
        if self._layers and not self._stepped_by(optimizer):
            raise PruningError(f"This optimizer has no weight of the layers {', '.join(self._layers)}; give it theirs")
        if any(group.get("maximize") for group in optimizer.param_groups):
            raise PruningError("With maximize the penalty would drive weights off their sets; negate the loss instead")
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
        """Do one Z step and one U step, log the residuals, and let rho grow with the dual rescaled to it.

        Raises
        ------
        PruningError
            If a layer's weight cannot move: it needs no gradient, or no attached optimizer has it.
        Diverged
            If a weight is no finite number; nothing has changed then.
        """
        if self.hardened:
            raise PruningError("Admm.update was called after harden; the ADMM phase is over")
        self._check_moving()
        rho = self.rho
        with torch.no_grad():
            aims = {name: held.aim() for name, held in self._layers.items()}
            found = {
                name: self._layers[name].projected(aim, self._layers[name].weight.detach() + self._layers[name].u)
                for name, aim in aims.items()
                if aim is not None
            }
            self.updates_done += 1
            for name, z in found.items():
                layer = self._layers[name]
                z_before, weight = layer.z, layer.weight.detach()
                layer.z = z
                difference = weight - z
                primal, size = float(difference.norm()), float(weight.norm())
                dual = rho[name] * float((z - z_before).norm())
                relative = primal / size if size else 0.0
                self.residuals.append(Residual(self.updates_done, name, rho[name], primal, relative, dual))
                layer.u = (layer.u + difference) * (rho[name] / self._rho_of(layer))
        self._check_ranks(f"after update {self.updates_done}")

    def _check_moving(self) -> None:
        """Raise unless every weight that is to come onto a set can move there."""
        stepped = {layer.name for optimizer in self._optimizers for layer in self._stepped_by(optimizer)}
        for name in self.names():
            if not self._layers[name].weight.requires_grad:
                raise PruningError(f"Layer '{name}' is frozen: its weight needs requires_grad for ADMM to move it")
            if self._optimizers and name not in stepped:
                raise PruningError(f"No attached optimizer has the weight of layer '{name}'; attach the one that does")

    def _stepped_by(self, optimizer: Optimizer) -> list[Layer]:
        """Return the layers whose weights ``optimizer`` has."""
        own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        return [layer for layer in self._layers.values() if id(layer.weight) in own]

    def mapped(self) -> Callable[[Tensor], Tensor]:
        """Return the network as :meth:`harden` would leave it now, to be judged; the model's weights stay as they are.

        It runs the model itself, so the caller puts that in eval mode before, lest batch norm learn from the samples.
        """
        with torch.no_grad():
            weights = {
                f"{name}.weight" if name else "weight": layer.projected(aim, layer.weight)
                for name, layer in self._layers.items()
                if (aim := layer.aim()) is not None
            }

        def forward(x: Tensor) -> Tensor:
            result: Tensor = functional_call(self.model, weights, (x,))
            return result

        return forward

    def harden(self, warn: bool = True) -> None:
        """Map every weight onto its set, fix the masks, and clear optimizer state of pruned positions.

        In the retraining that follows, weights that share a magnitude or a value keep sharing it, and weights on levels
        are frozen.

        Parameters
        ----------
        warn : log a warning where the updates have left weights far from their sets: the mapping costs accuracy then
        """
        if self.hardened:
            raise PruningError("Admm.harden was called twice")
        if warn:
            self._warn_of_distance()
        with torch.no_grad():
            for layer in self._layers.values():
                layer.harden()
        self.hardened = True
        for optimizer in self._optimizers:
            self._mask_state(optimizer)
        self._check_ranks("after harden")
        self.check()

    def _warn_of_distance(self) -> None:
        """Say which layers the updates, where there were any, have left far from their sets, and what helps."""
        missed = [goal for goal in residual_goals(self.residuals) if not goal.met]
        if not missed:
            return
        few = ""
        if self.updates_done < self.updates:
            few = f"; update was called {self.updates_done} of {self.updates} times, too few for rho's last value"
        _log.warning("ADMM ended far from the sets: %s; %s%s", ", ".join(map(str, missed)), REMEDY, few)

    def holds_levels(self, name: str) -> bool:
        """Return whether hardening has fixed a layer's weights on levels."""
        layer = self._layers.get(name)
        return layer is not None and isinstance(layer.ties, Frozen)

    def released(self) -> Admm:
        """Return a hardened Admm for training through rounded weights: as this, but weights on levels may move.

        Their zeros stay, and whoever trains them puts them on their levels again.
        """
        held = {name: c for name, c in self.on_sets().items() if not self.holds_levels(name)}
        free = Admm(self.model, held, parent=self.masks())
        free.harden()
        return free

    def check(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Raise unless every weight lies in its set and every pruned position is zero.

        Parameters
        ----------
        weights : by layer name, those that are judged in place of the model's own, as of a copy
        """
        if not self.hardened:
            raise PruningError("Admm must be hardened before its result is used; call admm.harden()")
        for name, layer in self._layers.items():
            layer.check((weights or {}).get(name, weight_of(self.model, name)))

    def state_dict(self) -> dict[str, Any]:
        """Return the whole ADMM state (Z, U, masks, sets, rho, counters, residuals), but not the model's weights."""
        tensors: dict[str, Tensor] = {}
        for name, layer in self._layers.items():
            entries = {"z": layer.z, "u": layer.u, "parent": layer.parent, "mask": layer.mask}
            tensors |= {f"{name}.{key}": value.clone() for key, value in entries.items() if value is not None}
        return {
            "tensors": tensors, "sets": self.sets(), "updates_done": self.updates_done, "hardened": self.hardened,
            "asked": self._settings(), "residuals": [asdict(line) for line in self.residuals],
        }  # fmt: skip

    def _settings(self) -> dict[str, Any]:
        """Return what the caller chose: sets as they were given, penalties, updates."""
        rho = {name: list(layer.rho_range) for name, layer in self._layers.items() if layer.aim() is not None}
        return {"sets": self._asked, "rho": rho, "updates": self.updates}

    def sets(self) -> dict[str, dict[str, Any]]:
        """Return the sets as plain values by layer name, with all that they chose from the weights.

        Sets of the caller's own classes are left out.
        """
        layers = {name: layer.constraint for name, layer in self._layers.items()}
        return {name: values for name, c in layers.items() if (values := _options(c)) is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, for the same model, sets, penalties and updates."""
        tensors, sets = state["tensors"], state.get("sets", {})
        known = {name.rpartition(".")[0] for name in tensors}
        if known != set(self._layers):
            raise PruningError(f"State holds layers {sorted(known)}, but this Admm has {sorted(self._layers)}")
        for name, layer in self._layers.items():
            if tensors[f"{name}.z"].shape != layer.weight.shape:
                own, stored = tuple(layer.weight.shape), tuple(tensors[f"{name}.z"].shape)
                raise PruningError(f"Layer '{name}' has shape {own}, but the state has {stored}")
        _check_settings(self._settings(), state["asked"])
        for name, layer in self._layers.items():
            held = {key: value.to(layer.weight.device, copy=True) for key, value in _of_layer(tensors, name).items()}
            layer.z, layer.u, layer.parent, layer.mask = held["z"], held["u"], held.get("parent"), held.get("mask")
            if layer.constraint is not None:
                layer.constraint = from_values(sets[name]) if name in sets else layer.constraint
                layer.ties = layer.constraint.ties(layer.z) if state["hardened"] or layer.inherited else None
        self.updates_done, self.hardened = int(state["updates_done"]), bool(state["hardened"])
        self.residuals = [Residual(**line) for line in state["residuals"]]
        for optimizer in self._optimizers:
            self._mask_state(optimizer)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._change_gradients(optimizer)
            return None

        def changed() -> Any:
            # The closure computes the gradients anew, so what was added before it would be gone.
            loss = closure()
            self._change_gradients(optimizer)
            return loss

        return (args[0],), {**kwargs, "closure": changed}

    def _change_gradients(self, optimizer: Optimizer) -> None:
        """Add the penalty to the gradients of the optimizer's layers, share them among ties, and mask them."""
        # A GradScaler leaves it to a fused optimizer to divide the gradients by its scale.
        scale = getattr(optimizer, "grad_scale", None)
        with torch.no_grad():
            for layer in self._stepped_by(optimizer):
                gradient = layer.weight.grad
                if gradient is None:
                    continue
                if layer.ties is not None:
                    layer.ties.gather_(gradient)
                elif layer.aim() is not None and not self.hardened:
                    alpha = self._rho_of(layer) * (1.0 if scale is None else float(scale))
                    gradient.add_(layer.weight.detach() - layer.z + layer.u, alpha=alpha)
                mask_(gradient, layer.held())

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for layer in self._stepped_by(optimizer):
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


def _of_layer(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return a layer's tensors by their own names."""
    split = ((*key.rpartition("."), value) for key, value in tensors.items())
    return {what: value for layer, _, what, value in split if layer == name}


def _options(constraint: ConstraintSet | None) -> dict[str, Any] | None:
    """Return a set as plain values; None for none, and for those of the caller's own classes."""
    return as_values(constraint) if type(constraint) in KINDS.values() else None  # type: ignore[arg-type]


def _check_settings(own: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Refuse the state of an Admm with other sets, penalties or updates."""
    for name, options in own["sets"].items():
        if options != stored["sets"][name]:
            raise PruningError(f"Layer '{name}' is on {options}, but the state on {stored['sets'][name]}")
    for what in ("rho", "updates"):
        if own[what] != stored[what]:
            raise PruningError(f"This Admm has {what} {own[what]}, but the state has {stored[what]}")
