"""The float half of a recipe: dense training, then per stage ADMM, masked mapping and masked retraining."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from zeroskip.pruning.admm import Admm
from zeroskip.pruning.checkpoints import Checkpoints, StageResult, plain_values, stage_key
from zeroskip.pruning.constraints import ConstraintSet
from zeroskip.pruning.constraints.kinds import from_values
from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.devices import training_device
from zeroskip.pruning.errors import Diverged, PruningError
from zeroskip.pruning.inputs import Input, fold_channels
from zeroskip.pruning.judging import score
from zeroskip.pruning.methods import run_stage
from zeroskip.pruning.recipe import Method, Recipe, Stage
from zeroskip.pruning.replicas import agree_, from_first, rank, size
from zeroskip.pruning.training import Forward, Phase, Task, make_optimizer, outputs, train

__all__ = ["Progress", "Run", "check_stages", "run_stages"]

Progress = Callable[[str, float, float | None], None]


@dataclass
class Run:
    """One recipe being run: the model, its data, and what has happened so far.

    ``progress(step, elapsed seconds, expected seconds or None)`` is called after every epoch. In a process group every
    rank has a Run of the same recipe and data; rank 0 says with which weights it starts and keeps the checkpoints.
    """

    recipe: Recipe
    model: nn.Module
    train: ImageSet
    validation: ImageSet
    checkpoints: Checkpoints
    progress: Progress | None = None
    key: str = ""
    masks: dict[str, Tensor] = field(default_factory=dict)
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    trained_epochs: int = 0
    trained_seconds: float = 0.0
    epochs_left: int = 0
    device: torch.device = field(default_factory=training_device)
    source: Input = field(init=False)
    teacher: Tensor | None = None

    def __post_init__(self) -> None:
        self.epochs_left = self.recipe.epochs()
        agree_(self.model)
        if rank():
            self.checkpoints = Checkpoints(None)
        self.source = fold_channels(self.model, self.train.x, self.recipe.input)
        check_stages(self.model, self.recipe.stages)
        self._check_updates()
        start = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            start.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        self.key = stage_key(
            start.hexdigest(),
            {
                "train": self.train.digest(),
                "validation": self.validation.digest(),
                "input": plain_values(self.recipe.input),
                **({} if self.recipe.task is Task.CLASSIFY else {"task": self.recipe.task.value}),
                "seed": self.recipe.seed,
                "batch": self.recipe.batch,
                "threads": self.recipe.threads,
                "torch": torch.__version__,
                **({} if self.device.type == "cpu" else {"device": self.device.type}),
            },
        )

    def _check_updates(self) -> None:
        """Refuse more updates an epoch than it has steps: so many could not be done."""
        steps = max(1, len(self.train) // self.recipe.batch)
        for stage in self.recipe.stages:
            if stage.method in (Method.ADMM, Method.GRADUAL) and stage.admm.epochs and stage.updates_per_epoch > steps:
                raise PruningError(
                    f"Stage '{stage.name}' has updates_per_epoch {stage.updates_per_epoch}, but an epoch of "
                    f"{len(self.train)} samples has {steps} steps of batch {self.recipe.batch}; choose fewer updates "
                    "or a smaller batch"
                )

    def held(self) -> dict[str, ConstraintSet]:
        """Return the sets that the stages so far have left the weights on, by layer."""
        return {name: from_values(values) for name, values in self.sets.items()}

    def note(self, stage: str, phase: str, **values: Any) -> None:
        """Add a line to the log."""
        self.log.append({"stage": stage, "phase": phase, **values})

    def judge(self, forward: Forward | None = None) -> float:
        """Return the validation score of the model in eval mode, or of ``forward``."""
        with self._evaluating():
            return score(forward or self.model, self.validation, self.source, self.recipe.task, self.device)

    def learn_teacher(self) -> None:
        """Keep the logits of the network as it is now for the phases that distill them."""
        with self._evaluating():
            self.teacher = outputs(self.model, self.train, self.source, self.device)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Have the model in eval mode inside the block."""
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)

    def advance(
        self, stage: str, settings: dict[str, Any], work: Callable[[torch.Generator], None], epochs: int
    ) -> None:
        """Run one stage, or restore it when its checkpoint exists; each stage has random numbers of its own."""
        self.key = stage_key(self.key, {"stage": stage, **settings})
        # So many ranks sum in an order of their own, but take the same samples: these come from the key without them.
        key = self.key if size() == 1 else stage_key(self.key, {"ranks": size()})
        found = from_first(self.checkpoints.load(stage, key, self.model))
        if found is not None:
            agree_(self.model)
            self.masks, self.sets = dict(found.masks), dict(found.sets)
            self.log += [dict(line) for line in found.log]
            self.epochs_left -= epochs
            self.report(f"{stage}: reused")
            return
        before = len(self.log)
        seed = int(self.key[:15], 16)
        with torch.random.fork_rng(devices=[]):
            # What takes numbers from the global generator, as Dropout does, must not know which stages were reused.
            torch.manual_seed(seed + rank())
            work(torch.Generator().manual_seed(seed))
        result = StageResult(self.masks, self.sets, self.log[before:])
        self.checkpoints.save(stage, key, self.model, result)

    def report(self, step: str) -> None:
        """Tell the caller where the run stands."""
        if self.progress:
            elapsed = time.monotonic() - self.started
            rate = self.trained_seconds / self.trained_epochs if self.trained_epochs else None
            self.progress(step, elapsed, None if rate is None else elapsed + rate * self.epochs_left)

    def train_phase(
        self,
        stage: str,
        kind: str,
        phase: Phase,
        generator: torch.Generator,
        forward: Forward | None = None,
        admm: Admm | None = None,
        update: Callable[[Optimizer], None] | None = None,
        updates_per_epoch: int = 0,
    ) -> None:
        """Train one phase with a fresh optimizer and log every epoch; ``update`` is called so many times in each.

        Raises
        ------
        Diverged
            Naming stage, phase and step; the model then has the state after the last epoch that went well.
        """
        optimizer = make_optimizer(self.model.parameters(), phase.lr[0])
        if admm is not None:
            admm.attach(optimizer)
        clock = [time.monotonic()]
        good = {name: value.clone() for name, value in self.model.state_dict().items()}

        def on_step(step: int, per_epoch: int) -> None:
            if update and step * updates_per_epoch // per_epoch > (step - 1) * updates_per_epoch // per_epoch:
                update(optimizer)

        def on_epoch(epoch: int, loss: float) -> None:
            found = self.judge(forward)
            self.note(stage, kind, epoch=epoch, loss=round(loss, 6), validation=round(found, 6))
            for name, value in self.model.state_dict().items():
                good[name].copy_(value)
            now = time.monotonic()
            self.trained_seconds += now - clock[0]
            self.trained_epochs += 1
            self.epochs_left -= 1
            clock[0] = now
            self.report(f"{stage} {kind} epoch {epoch}/{phase.epochs}: validation {100 * found:.2f} %")

        try:
            train(
                forward or self.model, self.train, self.source, phase, optimizer,
                batch=self.recipe.batch, generator=generator, task=self.recipe.task, teacher=self.teacher,
                on_step=on_step, on_epoch=on_epoch,
            )  # fmt: skip
        except Diverged as error:
            self.model.load_state_dict(good)
            path = self.checkpoints.save_good(stage, kind, self.key, good)
            kept = f"the last good state is in '{path}'" if path else "the network has its last good state"
            raise Diverged(
                f"Stage '{stage}', phase '{kind}': {error}; lower the learning rate or rho ({kept})"
            ) from error


def check_stages(model: nn.Module, stages: Sequence[Stage]) -> None:
    """Refuse sets that fit no layer, or not what an earlier stage leaves of one, before anything is trained."""
    untrained = copy.deepcopy(model)
    parent: Admm | None = None
    for stage in stages:
        sets = {name: rule.constraint() for name, rule in stage.layers.items()}
        try:
            admm = Admm(untrained, sets, stage.rho, parent=parent)
            # What a budget leaves of the layers is not known before.
            if stage.allocation is None:
                admm.harden()
                parent = admm
        except PruningError as error:
            raise type(error)(f"Stage '{stage.name}': {error}") from error


def run_stages(run: Run) -> None:
    """Do the recipe's dense phase and pruning stages; finished ones come from their checkpoints."""
    run.model.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    run.model.train()
    dense = run.recipe.dense
    settings = {"dense": plain_values(dense)}
    run.advance("dense", settings, lambda g: run.train_phase("dense", "dense", dense, g), dense.epochs)
    if run.recipe.distills():
        run.learn_teacher()
    for stage in run.recipe.stages:
        epochs = stage.admm.epochs + stage.retrain.epochs
        settings = plain_values(stage)
        if stage.allocation is not None:
            # A budget of bits counts those that the recipe quantizes to.
            settings["allocation"]["budget"] = plain_values(
                stage.allocation.budget.quantized(run.recipe.quantization.weights)
            )
        run.advance(stage.name, settings, lambda g, s=stage: run_stage(run, s, g), epochs)  # type: ignore[misc]
