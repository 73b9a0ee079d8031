"""Recipes as validated frozen dataclasses, every default stated once, here."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zeroskip.pruning.allocation import Allocation
from zeroskip.pruning.budgets import groups_of
from zeroskip.pruning.checkpoints import LATER, plain_values
from zeroskip.pruning.constraints import ConstraintSet
from zeroskip.pruning.constraints.base import Structure
from zeroskip.pruning.constraints.kinds import as_values, from_values
from zeroskip.pruning.constraints.topk import check_size
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.layers import Rho
from zeroskip.pruning.purification import Purification
from zeroskip.pruning.training import Phase, Task

__all__ = ["LayerRule", "Method", "Quantization", "Recipe", "Stage", "StageAllocation"]


@dataclass(frozen=True)
class LayerRule:
    """The constraint set of one layer or glob, as a recipe says it.

    Parameters
    ----------
    kind : name of the set, such as ``column``
    options : what the set's class takes; ``structure`` and ``levels`` of ``joint`` are tables with a ``kind`` again
    """

    kind: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.constraint()

    def constraint(self) -> ConstraintSet:
        """Return the constraint set."""
        return from_values({"kind": self.kind, **self.options})

    def plain(self) -> dict[str, Any]:
        """Return the rule as plain values, with every default stated."""
        # Digests of recipes began when every rule had a group.
        shared = {"group": 1} if self.kind == "nonstructured" else {}
        return as_values(self.constraint()) | shared


class Method(enum.Enum):
    """How a stage gets the weights onto their sets.

    ``ADMM``: an ADMM phase, the masked mapping, masked retraining. The others are what it is compared with, and train
    as many epochs: ``ONESHOT`` projects the weights at once and retrains; ``GRADUAL`` projects them at every update
    onto sets that shrink with the cube of the time left (Zhu and Gupta 2017), and retrains; ``SCRATCH`` keeps the zeros
    of the stages before it and trains fresh weights in this shape (Liu et al. 2019); ``MAGNITUDE`` keeps the groups of
    largest ``sum |w|`` and retrains, which stage by stage is the iterative pruning of Mao et al. 2017.
    """

    ADMM = "admm"
    ONESHOT = "oneshot"
    GRADUAL = "gradual"
    SCRATCH = "scratch"
    MAGNITUDE = "magnitude"


@dataclass(frozen=True)
class StageAllocation(Allocation):
    """How a stage's layers share a budget; each split is judged on the validation samples.

    Parameters
    ----------
    retrain : how a split is trained before it is judged; that training is undone
    samples : the first so many training samples are used for it
    """

    retrain: Phase = Phase(0, (1e-3, 1e-4))
    samples: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.samples, "samples")


@dataclass(frozen=True)
class Stage:
    """One pruning step; zeros of earlier stages stay.

    Parameters
    ----------
    layers : rules by layer name or glob
    admm, retrain : the phases before and after the weights are mapped onto their sets; methods without an ADMM phase
        train the epochs of both as ``retrain`` says
    rho : first and last ADMM penalty, for all layers or by layer name or glob
    updates_per_epoch : of ADMM, or of gradual pruning
    allocation : finds the ``keep`` of every layer at the start of the stage; the rules then say the most a layer keeps
    purify : experimental: takes out input channels of which little is left, at the end of the stage
    """

    name: str
    layers: Mapping[str, LayerRule]
    admm: Phase
    retrain: Phase
    rho: Rho = (1e-3, 3.0)
    updates_per_epoch: int = 4
    method: Method = field(default=Method.ADMM, metadata=LATER)
    allocation: StageAllocation | None = field(default=None, metadata=LATER)
    purify: Purification | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        updated = self.method in (Method.ADMM, Method.GRADUAL)
        if self.updates_per_epoch < 1 or (updated and self.admm.epochs < 1):
            raise PruningError(f"Stage '{self.name}' needs at least one ADMM epoch and one update an epoch")
        for name, rule in self.layers.items():
            if self.method is Method.MAGNITUDE and not isinstance(rule.constraint(), Structure):
                raise PruningError(
                    f"Stage '{self.name}' has {rule.kind} for layer '{name}', but method magnitude needs a set that "
                    "says which weights stay; choose such a set or method admm"
                )
        if self.allocation is None:
            return
        if self.method is Method.SCRATCH:
            raise PruningError(f"Stage '{self.name}' keeps the zeros of the stages before it; leave out the allocation")
        for name, rule in self.layers.items():
            try:
                groups_of(rule.constraint())
            except PruningError as error:
                raise PruningError(f"Stage '{self.name}', layer '{name}': {error}") from error


@dataclass(frozen=True)
class Quantization:
    """Bits, scales, and the fine-tuning with the mask held.

    Parameters
    ----------
    finetune : straight through rounded weights and activations
    freeze : share of the free weights that each round puts on their levels for good, the last one all of them; 0: all
        are rounded all the time
    rounds : of freezing, each with the epochs of ``finetune``
    """

    finetune: Phase
    weights: int = 4
    activations: int = 8
    power_of_two: bool = False
    calibration: int = 1024
    per_channel: bool = field(default=False, metadata=LATER)
    freeze: float = field(default=0.0, metadata=LATER)
    rounds: int = field(default=1, metadata=LATER)

    def epochs(self) -> int:
        """Return the number of epochs of all rounds."""
        return self.rounds * self.finetune.epochs

    def __post_init__(self) -> None:
        check_size(self.rounds, "rounds")
        if not 0 <= self.freeze < 1 or (self.rounds > 1 and not self.freeze):
            raise PruningError(f"freeze must be a share from 0 to 1, and above 0 for rounds, not {self.freeze!r}")
        for what, bits in (("weights", self.weights), ("activations", self.activations)):
            if not 1 <= bits <= 8:
                raise PruningError(f"{what} must be from 1 to 8 bits, not {bits!r}")
        check_size(self.calibration, "calibration")


@dataclass(frozen=True)
class Recipe:
    """The whole way from a data set to an artifact.

    ``start`` names a checkpoint of dense weights in the data folder, ``fold`` a fold of the set's cross-validation.
    """

    name: str
    network: str
    dataset: str
    dense: Phase
    quantization: Quantization
    stages: tuple[Stage, ...] = ()
    input: Input = field(default_factory=Input)
    validation: int | None = None
    seed: int = 0
    threads: int = 2
    batch: int = 256
    format: str = "1.0"
    task: Task = field(default=Task.CLASSIFY, metadata=LATER)
    start: str | None = field(default=None, metadata=LATER)
    fold: int | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        if self.format != "1.0":
            raise PruningError(f"Recipe format must be 1.0, not {self.format!r}")
        if self.threads < 1 or self.batch < 1:
            raise PruningError("threads and batch must be at least 1")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names) or {"dense", "finetune"} & set(names):
            raise PruningError("Stage names must differ from each other and from 'dense' and 'finetune'")
        if self.dense.distill:
            raise PruningError("The dense phase has nothing to distill; use distill in the phases after it")
        if self.task is Task.RECONSTRUCT and self.distills():
            raise PruningError("A reconstruction has no classes whose logits could be distilled; leave out distill")

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        plain: dict[str, Any] = plain_values(self)
        return plain

    def digest(self) -> str:
        """Return the sha256 of the recipe's values."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def distills(self) -> bool:
        """Return whether any phase follows the dense network's logits."""
        phases = [phase for stage in self.stages for phase in (stage.admm, stage.retrain)]
        return any(phase.distill for phase in (*phases, self.quantization.finetune))

    def epochs(self) -> int:
        """Return the number of epochs of all phases."""
        stages = sum(stage.admm.epochs + stage.retrain.epochs for stage in self.stages)
        return self.dense.epochs + stages + self.quantization.epochs()
