"""Recipes: a TOML file to validated frozen dataclasses, every default stated once, here."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from zeroskip.pruning.allocation import Allocation
from zeroskip.pruning.budgets import Budget, groups_of
from zeroskip.pruning.checkpoints import LATER, plain_values
from zeroskip.pruning.constraints import ConstraintSet
from zeroskip.pruning.constraints.base import Structure
from zeroskip.pruning.constraints.kinds import KINDS, as_values, from_values, option_names
from zeroskip.pruning.constraints.topk import check_size
from zeroskip.pruning.errors import PruningError, nearest
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.layers import Rho
from zeroskip.pruning.purification import Purification
from zeroskip.pruning.training import Phase, Precision, Task

__all__ = [
    "LayerRule",
    "Method",
    "Quantization",
    "Recipe",
    "Stage",
    "StageAllocation",
    "builtin_recipes",
    "load_recipe",
    "parse_recipe",
    "parse_rule",
]

RECIPES = Path(__file__).parent / "recipes"
QUEUE = "queue.toml"
"""The file beside the recipes that says in which order they are built."""

_Choice = TypeVar("_Choice", bound=enum.Enum)


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


def builtin_recipes() -> dict[str, Path]:
    """Return the recipes of the repository, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml")) if path.name != QUEUE}


def load_recipe(source: Recipe | Path | str) -> Recipe:
    """Return a recipe given as itself, as the path of a TOML file, or as the name of one in the repository.

    A file with ``extends = "NAME"`` starts from that recipe: its stages come first, its other keys hold where the file
    has none of its own. Recipes with the same first stages train these once.
    """
    if isinstance(source, Recipe):
        return source
    path = builtin_recipes().get(str(source), Path(source))
    return parse_recipe(_file_values(path, str(source), ()), f"recipe '{path.name}'")


def _file_values(path: Path, called: str, children: tuple[Path, ...]) -> dict[str, Any]:
    """Return the values of a recipe file and of those that it extends."""
    known = builtin_recipes()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PruningError(f"Recipe '{called}' does not exist; the nearest are: {nearest(called, known)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PruningError(f"Recipe '{path}' is not valid TOML: {error}") from error
    if "extends" not in values:
        return values
    base = values.pop("extends")
    if not isinstance(base, str) or path in children:
        raise PruningError(f"Recipe '{path}': extends must name another recipe or file, not {base!r}")
    first = _file_values(known.get(base, path.parent / base), base, (*children, path))
    stages = {"stages": [*first.get("stages", []), *values.pop("stages", [])]}
    return first | values | stages
