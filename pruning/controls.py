"""The recipes that show what ADMM adds: the same data, epochs and final sets, reached in other ways."""

from __future__ import annotations

from dataclasses import replace

from zeroskip.pruning.constraints.kinds import as_values
from zeroskip.pruning.gradual import prunes, shape_only, structured
from zeroskip.pruning.recipe import LayerRule, Method, Recipe, Stage

__all__ = ["controls"]


def controls(recipe: Recipe) -> dict[str, Recipe]:
    """Return the control recipes by name; none for a recipe that prunes nothing, or without ADMM.

    ``oneshot`` and ``gradual`` go from the dense network to the final sets in one stage with the epochs of all pruning
    stages. ``scratch``, where a final set is structured, trains the shape that the recipe itself finds from fresh
    weights, with the settings of the dense phase, the distillation and precision of the last retraining and the epochs
    of the dense phase and all pruning stages. Joint sets are pruned only, their levels left to the fine-tuning. Where a
    stage allocates a budget, the controls share the last such budget among all layers that are pruned. Stages that only
    quantize, and the quantization, stay.
    """
    pruning = [stage for stage in recipe.stages if _prunes(stage)]
    if not any(stage.method is Method.ADMM for stage in pruning):
        return {}
    rest = tuple(stage for stage in recipe.stages if not _prunes(stage))
    last = pruning[-1]
    rules: dict[str, LayerRule] = {}
    for stage in pruning:
        rules |= stage.layers
    layers = {name: _shape_rule(rule) for name, rule in rules.items()}
    allocation = next((stage.allocation for stage in reversed(pruning) if stage.allocation), None)
    admm = replace(last.admm, epochs=sum(stage.admm.epochs for stage in pruning))
    retrain = replace(last.retrain, epochs=sum(stage.retrain.epochs for stage in pruning))
    found: dict[str, Recipe] = {}
    for method in (Method.ONESHOT, Method.GRADUAL):
        stage = replace(
            last, name=method.value, layers=layers, admm=admm, retrain=retrain, method=method, allocation=allocation
        )
        found[method.value] = _named(recipe, method, (stage, *rest))
    if any(structured(rule.constraint()) for rule in layers.values()):
        anew = replace(
            recipe.dense,
            epochs=recipe.dense.epochs + admm.epochs + retrain.epochs,
            distill=last.retrain.distill,
            temperature=last.retrain.temperature,
            precision=last.retrain.precision,
        )
        nothing = replace(last.admm, epochs=0)
        # Nothing is penalized: rho is what digests of these rows began with.
        stage = Stage(Method.SCRATCH.value, layers, nothing, anew, rho=(1e-3, 0.3), method=Method.SCRATCH)
        found[Method.SCRATCH.value] = _named(recipe, Method.SCRATCH, (*pruning, stage, *rest))
    return found


def _named(recipe: Recipe, method: Method, stages: tuple[Stage, ...]) -> Recipe:
    return replace(recipe, name=f"{recipe.name}-{method.value}", stages=stages)


def _prunes(stage: Stage) -> bool:
    return any(prunes(rule.constraint()) for rule in stage.layers.values())


def _shape_rule(rule: LayerRule) -> LayerRule:
    """Return the rule without the levels of a joint set."""
    constraint = rule.constraint()
    shape = shape_only(constraint)
    if shape is constraint:
        return rule
    values = as_values(shape)
    return LayerRule(values.pop("kind"), values)
