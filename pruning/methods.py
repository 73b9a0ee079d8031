"""The ways of a stage: ADMM, its controls (one shot, gradual, from scratch), and pruning by sums of magnitudes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from zeroskip.pruning.admm import Admm
from zeroskip.pruning.allocation import Trial, allocate
from zeroskip.pruning.checkpoints import plain_values
from zeroskip.pruning.constraints import ConstraintSet
from zeroskip.pruning.constraints.base import Structure, finite_values
from zeroskip.pruning.errors import Diverged, PruningError
from zeroskip.pruning.goals import accuracy_goal, residual_goals, verdict
from zeroskip.pruning.gradual import relaxed
from zeroskip.pruning.layers import weight_of
from zeroskip.pruning.purification import purify
from zeroskip.pruning.recipe import Method, Stage, StageAllocation
from zeroskip.pruning.samples import float_inputs
from zeroskip.pruning.training import make_optimizer, train

if TYPE_CHECKING:
    from zeroskip.pruning.retrain import Run

__all__ = ["run_stage"]

Sets = Mapping[str, ConstraintSet]


def run_stage(run: Run, stage: Stage, generator: torch.Generator) -> None:
    """Bring the weights onto the stage's sets as its method says, retrain them, and keep masks and sets in ``run``."""
    sets: Sets = {name: rule.constraint() for name, rule in stage.layers.items()}
    if stage.allocation is not None:
        sets = _allocated(run, stage, stage.allocation, sets, generator)
    admm = _METHODS[stage.method](run, stage, sets, generator)
    if stage.purify is not None:
        admm = purify(run, stage.name, admm, stage.purify, generator)
    admm.check()
    run.masks, run.sets = admm.masks(), admm.sets()


def _allocated(
    run: Run, stage: Stage, settings: StageAllocation, sets: Sets, generator: torch.Generator
) -> dict[str, ConstraintSet]:
    """Return the sets with the ``keep`` that their layers get of the budget, and log every split that was judged."""
    # The same samples in the same order for every split, so that they differ by their zeros alone.
    seed = int(torch.randint(1 << 62, (), generator=generator))
    samples = run.train.take(0, settings.samples)
    chosen: list[Trial] = []

    def judge(admm: Admm) -> float:
        if settings.retrain.epochs:
            optimizer = make_optimizer(run.model.parameters(), settings.retrain.lr[0])
            admm.attach(optimizer)
            try:
                train(
                    run.model, samples, run.source, settings.retrain, optimizer, batch=run.recipe.batch,
                    generator=torch.Generator().manual_seed(seed), task=run.recipe.task, teacher=run.teacher,
                )  # fmt: skip
            except Diverged:
                return 0.0
        return run.judge()

    def on_trial(trial: Trial) -> None:
        if trial.accepted:
            chosen.append(trial)
        run.note(stage.name, "split", **_rounded(asdict(trial)))
        run.report(f"{stage.name} split {trial.number}: validation {100 * trial.score:.2f} %")

    budget = settings.budget.quantized(run.recipe.quantization.weights)
    try:
        found = allocate(
            run.model, sets, replace(settings, budget=budget), judge,
            sample=float_inputs(run.validation.x[:1], run.source).to(run.device),
            parent=run.masks, held=run.held(), on_trial=on_trial,
        )  # fmt: skip
    except PruningError as error:
        raise type(error)(f"Stage '{stage.name}': {error}") from error
    last = chosen[-1]
    run.note(
        stage.name, "allocation", budget=plain_values(budget), cost=last.cost, keep=dict(last.keep),
        validation=round(last.score, 6),
    )  # fmt: skip
    return found


def _admm(run: Run, stage: Stage, sets: Sets, generator: torch.Generator) -> Admm:
    updates = stage.updates_per_epoch * stage.admm.epochs
    admm = Admm(run.model, sets, stage.rho, updates, parent=run.masks, held=run.held())

    def update(optimizer: Optimizer) -> None:
        admm.update()
        lines = [line for line in admm.residuals if line.update == admm.updates_done]
        run.log += [{"stage": stage.name, "phase": "residual", **_rounded(asdict(line))} for line in lines]
        found = run.judge(admm.mapped())
        run.note(stage.name, "mapped", update=admm.updates_done, validation=round(found, 6))

    run.train_phase(
        stage.name, "admm", stage.admm, generator, admm=admm, update=update, updates_per_epoch=stage.updates_per_epoch
    )
    mapped = _map(run, stage, admm)
    run.train_phase(stage.name, "retrain", stage.retrain, generator, admm=admm)
    goals = [*residual_goals(admm.residuals), accuracy_goal(mapped, run.judge())]
    for goal in goals:
        run.note(stage.name, "goal", **_rounded(asdict(goal)), met=goal.met)
    run.report(f"{stage.name}: {verdict(goals)}")
    return admm


def _map(run: Run, stage: Stage, admm: Admm) -> float:
    """Bring the weights onto the sets; return the validation score before retraining."""
    # The stage's verdict will name the residuals.
    admm.harden(warn=False)
    mapped = run.judge()
    run.note(stage.name, "mapping", validation=round(mapped, 6))
    return mapped


def _oneshot(run: Run, stage: Stage, sets: Sets, generator: torch.Generator) -> Admm:
    admm = Admm(run.model, sets, parent=run.masks, held=run.held())
    _map(run, stage, admm)
    _retrain_all_epochs(run, stage, generator, admm)
    return admm


def _gradual(run: Run, stage: Stage, sets: Sets, generator: torch.Generator) -> Admm:
    # The last update's projection is onto the sets themselves.
    final = Admm(run.model, sets, parent=run.masks, held=run.held())
    updates = stage.updates_per_epoch * stage.admm.epochs
    # What earlier sets asked of the layers that are pruned further holds no longer, but for their zeros.
    elsewhere = {name: constraint for name, constraint in run.held().items() if name not in final.names()}
    held = [Admm(run.model, {}, parent=run.masks, held=elsewhere)]
    done = [0]

    def update(optimizer: Optimizer) -> None:
        done[0] += 1
        held[0].detach(optimizer)
        between = _sets_at(run.model, final, done[0] / updates)
        held[0] = Admm(run.model, between, parent=held[0].masks(), held=elsewhere)
        held[0].harden()
        held[0].attach(optimizer)

    run.train_phase(
        stage.name, "gradual", stage.admm, generator, admm=held[0], update=update,
        updates_per_epoch=stage.updates_per_epoch,
    )  # fmt: skip
    admm = Admm(run.model, sets, parent=held[0].masks(), held=elsewhere)
    _map(run, stage, admm)
    run.train_phase(stage.name, "retrain", stage.retrain, generator, admm=admm)
    return admm


def _sets_at(model: nn.Module, final: Admm, done: float) -> dict[str, ConstraintSet]:
    """Return the sets of gradual pruning by layer when a share of the time is over."""
    found: dict[str, ConstraintSet] = {}
    for name in final.names():
        constraint = final.constraint(name)
        weight = weight_of(model, name)
        between = relaxed(constraint, weight.shape, done) if constraint else None
        if between is not None:
            found[name] = between
    return found


def _scratch(run: Run, stage: Stage, sets: Sets, generator: torch.Generator) -> Admm:
    _start_anew(run.model, generator)
    admm = Admm(run.model, sets, parent=run.masks, held=run.held())
    admm.harden()
    _retrain_all_epochs(run, stage, generator, admm)
    return admm


def _magnitude(run: Run, stage: Stage, sets: Sets, generator: torch.Generator) -> Admm:
    masks = dict(run.masks)
    dense = Admm(run.model, sets, parent=run.masks, held=run.held())
    for name in dense.names():
        constraint = dense.constraint(name)
        assert isinstance(constraint, Structure)
        weight = weight_of(run.model, name)
        support = torch.from_numpy(constraint.support(finite_values(weight.abs())))
        masks[name] = support & masks[name].cpu() if name in masks else support
    admm = Admm(run.model, sets, parent=masks, held=run.held())
    _map(run, stage, admm)
    _retrain_all_epochs(run, stage, generator, admm)
    return admm


def _start_anew(model: nn.Module, generator: torch.Generator) -> None:
    """Give every parameter a fresh start from its module's own initialization."""
    fresh: set[int] = set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
        for module in model.modules():
            reset: Callable[[], Any] | None = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                fresh |= {id(parameter) for parameter in module.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in fresh:
            raise PruningError(f"Parameter '{name}' has no reset_parameters(), which training from scratch needs")


def _retrain_all_epochs(run: Run, stage: Stage, generator: torch.Generator, admm: Admm) -> None:
    whole = replace(stage.retrain, epochs=stage.admm.epochs + stage.retrain.epochs)
    run.train_phase(stage.name, "retrain", whole, generator, admm=admm)


def _rounded(line: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in line.items()}


_METHODS = {
    Method.ADMM: _admm,
    Method.ONESHOT: _oneshot,
    Method.GRADUAL: _gradual,
    Method.SCRATCH: _scratch,
    Method.MAGNITUDE: _magnitude,
}
