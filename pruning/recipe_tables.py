"""Recipes from plain values, as of a TOML file; unknown keys, missing ones and wrong types are refused by name."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from zeroskip.pruning.budgets import Budget
from zeroskip.pruning.constraints.kinds import KINDS, option_names
from zeroskip.pruning.errors import PruningError, nearest
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.layers import Rho
from zeroskip.pruning.purification import Purification
from zeroskip.pruning.recipe import LayerRule, Method, Quantization, Recipe, Stage, StageAllocation
from zeroskip.pruning.training import Phase, Precision, Task

__all__ = ["parse_recipe", "parse_rule"]

_Choice = TypeVar("_Choice", bound=enum.Enum)


def _build(cls: type[Any], values: Any, where: str, convert: Mapping[str, Any] | None = None) -> Any:
    """Make a frozen dataclass of a TOML table: unknown and missing keys and wrong types are refused."""
    made = _check(cls, values, where, convert)
    try:
        return cls(**made)
    except (PruningError, TypeError) as error:
        raise PruningError(f"{where}: {error}") from error


def _check(cls: type[Any], values: Any, where: str, convert: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the converted values of a TOML table for a dataclass."""
    if not isinstance(values, dict):
        raise PruningError(f"{where} must be a table, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise PruningError(f"{where} has an unknown key '{key}'; the nearest are: {nearest(key, fields)}")
    required = dataclasses.MISSING
    for key, f in fields.items():
        if key not in values and f.default is required and f.default_factory is required:
            raise PruningError(f"{where} lacks the key '{key}'")
    made = {key: (convert or {}).get(key, _plain)(value, f"{where}.{key}") for key, value in values.items()}
    for key, value in made.items():
        wanted = str(fields[key].type)
        if wanted in _SCALARS and (
            isinstance(value, bool) != (wanted == "bool") or not isinstance(value, _SCALARS[wanted])
        ):
            raise PruningError(f"{where}.{key} must be of type {wanted}, not {value!r}")
    return made


_SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "float | int": (int, float),
    "int | None": (int, type(None)),
    "float | None": (int, float, type(None)),
    "str | None": (str, type(None)),
    "tuple[tuple[int, ...], ...] | None": (list, type(None)),
}


def _plain(value: Any, where: str) -> Any:
    return value


def _pair(value: Any, where: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(v) in (int, float) for v in value):
        raise PruningError(f"{where} must be two numbers, not {value!r}")
    return float(value[0]), float(value[1])


def _phase(value: Any, where: str) -> Phase:
    phase: Phase = _build(Phase, value, where, {"lr": _pair, "shift": _shift, "precision": _choice(Precision)})
    return phase


def _shift(value: Any, where: str) -> int | tuple[int, int]:
    if type(value) is int:
        return value
    if not isinstance(value, list) or len(value) != 2 or not all(type(v) is int for v in value):
        raise PruningError(f"{where} must be a whole number, or two of them (y, x), not {value!r}")
    return value[0], value[1]


def _statistic(value: Any, where: str) -> float | tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(type(v) in (int, float) for v in values):
        raise PruningError(f"{where} must be a number, or a list with one a channel, not {value!r}")
    return tuple(float(v) for v in value) if isinstance(value, list) else value


def _rho(value: Any, where: str) -> Rho:
    if isinstance(value, dict):
        return {name: _pair(pair, f"{where}.{name}") for name, pair in value.items()}
    return _pair(value, where)


def _shares(value: Any, where: str) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(type(v) in (int, float) for v in value):
        raise PruningError(f"{where} must be a list of numbers, not {value!r}")
    return tuple(float(v) for v in value)


def _budget(value: Any, where: str) -> Budget:
    made: Budget = _build(Budget, value, where)
    return made


def _allocation(value: Any, where: str) -> StageAllocation:
    convert = {"budget": _budget, "shares": _shares, "retrain": _phase}
    made: StageAllocation = _build(StageAllocation, value, where, convert)
    return made


def _purification(value: Any, where: str) -> Purification:
    made: Purification = _build(Purification, value, where, {"retrain": _phase})
    return made


def _choice(kind: type[_Choice]) -> Callable[[Any, str], _Choice]:
    """Return what takes one of the values of an enumeration."""

    def convert(value: Any, where: str) -> _Choice:
        names = [choice.value for choice in kind]
        if value not in names:
            raise PruningError(f"{where} must be {' or '.join(names)}, not {value!r}")
        return kind(value)

    return convert


def _rules(value: Any, where: str) -> dict[str, LayerRule]:
    if not isinstance(value, dict) or not value:
        raise PruningError(f"{where} must be a table with at least one layer")
    return {name: parse_rule(rule, f"{where}.{name}") for name, rule in value.items()}


def parse_rule(value: Any, where: str) -> LayerRule:
    """Return the rule that a TOML table describes; ``where`` names the table in errors."""
    values = _set_values(value, where)
    try:
        return LayerRule(values.pop("kind"), values)
    except (PruningError, TypeError) as error:
        raise PruningError(f"{where}: {error}") from error


def _set_values(value: Any, where: str) -> dict[str, Any]:
    """Return the checked values of a constraint set: a known kind, its own keys only, values of the right types."""
    if not isinstance(value, dict):
        raise PruningError(f"{where} must be a table, not {value!r}")
    if "kind" not in value:
        raise PruningError(f"{where} lacks the key 'kind'")
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise PruningError(f"{where} has the unknown kind {kind!r}; the nearest are: {nearest(str(kind), KINDS)}")
    options = {key: option for key, option in value.items() if key != "kind"}
    if kind == "nonstructured" and options.get("group") == 1:
        # Recipes that were written out have it, see LayerRule.as_dict.
        del options["group"]
    for key in options:
        owners = [name for name in KINDS if key in option_names(name)]
        if owners and key not in option_names(kind):
            raise PruningError(
                f"{where} has the key '{key}', which belongs to kind {' and '.join(owners)}; kind {kind} has "
                f"{', '.join(option_names(kind))}"
            )
    made = _check(KINDS[kind], options, where, {"structure": _set_values, "levels": _set_values})
    return {"kind": kind, **made}


def _stages(value: Any, where: str) -> tuple[Stage, ...]:
    if not isinstance(value, list):
        raise PruningError(f"{where} must be a list of tables")
    convert = {
        "admm": _phase, "retrain": _phase, "rho": _rho, "layers": _rules, "method": _choice(Method),
        "allocation": _allocation, "purify": _purification,
    }  # fmt: skip
    return tuple(_build(Stage, stage, f"{where}[{i}]", convert) for i, stage in enumerate(value))


def _quantization(value: Any, where: str) -> Quantization:
    made: Quantization = _build(Quantization, value, where, {"finetune": _phase})
    return made


def _input(value: Any, where: str) -> Input:
    made: Input = _build(Input, value, where, {"mean": _statistic, "std": _statistic})
    return made


def parse_recipe(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Return the recipe that plain values (a parsed TOML file) describe."""
    convert = {
        "dense": _phase, "stages": _stages, "quantization": _quantization, "input": _input, "task": _choice(Task),
    }  # fmt: skip
    recipe: Recipe = _build(Recipe, dict(values), where, convert)
    return recipe
