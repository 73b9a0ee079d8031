"""The project file: TOML to frozen dataclasses, every default stated once, here."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from zeroskip.compiler.errors import InputError

__all__ = [
    "FILE_NAME",
    "Compile",
    "Data",
    "InputPixels",
    "Network",
    "Project",
    "Prune",
    "Quantize",
    "Stage",
    "Synthesize",
    "Training",
    "load_project",
    "parse_project",
    "recipe_values",
]

FILE_NAME = "project.toml"
FORMAT: Literal["1.0"] = "1.0"

_STRICT = ConfigDict(strict=True)

_WORDS = {
    "Input should": "must",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "a text",
    "a valid array": "a list",
    "an object": "a table",
}
"""Pydantic's words, and TOML's."""

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Layers = Mapping[str, dict[str, Any]]
"""Constraint sets by layer name or glob, as :func:`zeroskip.pruning.recipe_tables.parse_rule` takes them."""
Penalty = Annotated[
    Annotated[tuple[Rate, Rate], Tag("pair")] | Annotated[Mapping[str, tuple[Rate, Rate]], Tag("table")],
    Discriminator(lambda value: "table" if isinstance(value, Mapping) else "pair"),
]
"""First and last ADMM penalty, or these by layer name or glob."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _is_list(value: Any) -> str:
    return "list" if isinstance(value, (list, tuple)) else "number"


Means = Annotated[
    Annotated[Finite, Tag("number")] | Annotated[tuple[Finite, ...], Field(min_length=1), Tag("list")],
    Discriminator(_is_list),
]
Deviations = Annotated[
    Annotated[Rate, Tag("number")] | Annotated[tuple[Rate, ...], Field(min_length=1), Tag("list")],
    Discriminator(_is_list),
]
"""A number for all channels, or one for each."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


@dataclass(frozen=True, config=_STRICT)
class Network:
    """Where the PyTorch network comes from: ``factory()`` of the Python file ``module`` returns the ``nn.Module``.

    ``start`` is a checkpoint of weights for it, as :func:`zeroskip.pruning.networks.load_start` reads them; with 0
    epochs everywhere a float network is only quantized.
    """

    module: str = "network.py"
    factory: str = "build"
    start: str | None = None


@dataclass(frozen=True, config=_STRICT)
class Data:
    """Where the images come from.

    ``train()``, ``validation()`` and ``test()`` of the Python file ``module`` each return uint8 codes (N, C, H, W) and
    labels (N,).
    """

    module: str = "data.py"


@dataclass(frozen=True, config=_STRICT)
class Training:
    """A stretch of training.

    Parameters
    ----------
    epochs : passes over the training images
    lr : first and last learning rate of a half cosine
    shift : each batch is moved by up to so many random pixels
    restarts : how often the cosine runs
    flip, crop : half of the images are mirrored; each is moved by up to so many random pixels of its own
    distill, temperature : share of the loss that follows the dense network's logits, softened by the temperature
    precision : of products
    """

    epochs: Annotated[int, Field(ge=0)]
    lr: tuple[Rate, Rate]
    shift: Annotated[int, Field(ge=0)] = 0
    restarts: Count = 1
    flip: bool = False
    crop: Annotated[int, Field(ge=0)] = 0
    distill: Annotated[float, Field(ge=0, le=1)] = 0.0
    temperature: Rate = 4.0
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, config=_STRICT)
class Budget:
    """What the layers may cost together, as :class:`zeroskip.pruning.budgets.Budget` has it."""

    weights: Count | None = None
    macs: Count | None = None
    cycles: Count | None = None
    bits: Count | None = None
    products: Count | None = None
    value_bits: Count | None = None


@dataclass(frozen=True, config=_STRICT)
class Allocation:
    """How the layers of a stage share a budget, as :class:`zeroskip.pruning.recipe.StageAllocation` has it."""

    budget: Budget
    floor: Count | None = None
    shares: tuple[Rate, ...] | None = None
    trials: Count | None = None
    retrain: Training | None = None
    samples: Count | None = None


@dataclass(frozen=True, config=_STRICT)
class Purify:
    """Which channels a stage tries to do without, as :class:`zeroskip.pruning.purification.Purification` has it."""

    retrain: Training | None = None
    empty: float | None = None
    weak: float | None = None
    drop: float | None = None


@dataclass(frozen=True, config=_STRICT)
class Stage:
    """One of several pruning steps; what is left out is as in ``[prune]``, and zeros of earlier stages stay.

    Parameters
    ----------
    method : ADMM, or what it is compared with, see :class:`zeroskip.pruning.recipe.Method`
    allocation : finds the ``keep`` of every layer from one budget; the rules then say the most a layer keeps
    purify : takes out input channels of which little is left
    """

    name: Name
    layers: Layers
    rho: Penalty | None = None
    updates_per_epoch: Count | None = None
    admm: Training | None = None
    retrain: Training | None = None
    method: Literal["admm", "oneshot", "gradual", "scratch", "magnitude"] = "admm"
    allocation: Allocation | None = None
    purify: Purify | None = None


@dataclass(frozen=True, config=_STRICT)
class Prune:
    """Training and ADMM pruning.

    Parameters
    ----------
    layers : sets by layer name or glob; without them (and ``stages``) the network stays dense
    dense : training before pruning
    rho : first and last ADMM penalty, for all layers or by layer name or glob
    updates_per_epoch : ADMM updates an epoch
    admm, retrain : training under ADMM, and after it with the pruned weights held at zero
    stages : several pruning steps instead of ``layers``
    seed, threads, batch : threads are part of what makes a run repeatable
    """

    layers: Layers = dataclasses.field(default_factory=dict)
    dense: Training = Training(20, (2e-3, 2e-5))
    rho: Penalty = (1e-3, 3.0)
    updates_per_epoch: Count = 1
    admm: Training = Training(24, (1e-3, 3e-4))
    retrain: Training = Training(20, (1e-3, 3e-5))
    stages: tuple[Stage, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Count = 1
    batch: Count = 64


@dataclass(frozen=True, config=_STRICT)
class InputPixels:
    """How the network sees its pixels: ``x = (code / range - mean) / std``; one number, or one a channel."""

    range: Annotated[int, Field(ge=1, le=255)] = 255
    mean: Means = 0.0
    std: Deviations = 1.0


@dataclass(frozen=True, config=_STRICT)
class Quantize:
    """Bits and scales.

    Parameters
    ----------
    weights, activations : bits; below 8 bits the weights have no level 0, a pruned weight has no code
    power_of_two : scales that need no requantization multiplier
    per_channel : a weight scale for each output channel
    freeze, rounds : share of the free weights that each of so many rounds of ``finetune`` puts on their levels for good
    calibration : validation images that set the activation ranges
    finetune : training with quantized weights and activations
    input : range, mean and deviation of the pixels
    """

    weights: Annotated[int, Field(ge=1, le=8)] = 4
    activations: Annotated[int, Field(ge=1, le=8)] = 8
    power_of_two: bool = False
    per_channel: bool = False
    freeze: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rounds: Count = 1
    calibration: Count = 1024
    finetune: Training = Training(10, (3e-4, 1e-5))
    input: InputPixels = InputPixels()


@dataclass(frozen=True, config=_STRICT)
class Compile:
    """Options of ``zeroskip compile``.

    Without ``board`` the design is sized for the smallest of ``[synthesize] boards``.
    """

    engine: Literal["auto", "dense", "sparse"] = "auto"
    board: str | None = None
    settings: Mapping[str, Count] = dataclasses.field(default_factory=dict)
    parameters: Literal["rom", "flash", "host"] = "rom"


@dataclass(frozen=True, config=_STRICT)
class Synthesize:
    """Boards to place and route for, number of router seeds, and processes at a time."""

    boards: tuple[str, ...] = ("ulx3s-25f",)
    seeds: Count = 1
    jobs: Count = 2


@dataclass(frozen=True, config=_STRICT)
class Project:
    """A whole project; ``name`` is that of the file's folder when the file gives none.

    ``path`` is the project file; modules and ``build/`` lie beside it.
    """

    path: Path
    name: Name
    network: Network = Network()
    data: Data = Data()
    prune: Prune = Prune()
    quantize: Quantize = Quantize()
    compile: Compile = Compile()
    synthesize: Synthesize = Synthesize()
    format: Literal["1.0"] = FORMAT

    @property
    def folder(self) -> Path:
        """The folder of the project file."""
        return self.path.parent

    @property
    def out(self) -> Path:
        """Where a build goes unless told otherwise."""
        return self.folder / "build" / self.name

    @property
    def size_board(self) -> str | None:
        """The board whose size the design must fit, None without any board."""
        from zeroskip.boards import find_board

        if self.compile.board is not None or not self.synthesize.boards:
            return self.compile.board
        boards = [find_board(name) for name in self.synthesize.boards]
        return min(boards, key=lambda board: (board.bram * board.bram_bits, board.dsp)).name


def load_project(path: Path | str) -> Project:
    """Read a project file; a folder stands for its ``project.toml``.

    Raises
    ------
    InputError
        Naming the file, the table, the key and what to change.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"Project file '{path}' does not exist; make one with 'zeroskip new DIR'") from None
    except OSError as error:
        raise InputError(f"Project file '{path}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"Project file '{path}' is not valid TOML: {error}; correct that line") from error
    return parse_project(values, path)


def parse_project(values: Mapping[str, Any], path: Path) -> Project:
    """Return the project that the parsed TOML ``values`` of the file ``path`` describe.

    Raises
    ------
    InputError
        Naming the file, the table, the key and what to change.
    """
    where = f"Project file '{path}'"
    if "path" in values:
        raise InputError(f"{where}: {_unknown('path', (), _keys(Project))}")
    _refuse_unknown_keys(where, values, Project, ())
    path = path.absolute()
    given = {"name": path.parent.name, **values, "path": str(path)}
    try:
        # By way of JSON: strict validation takes its lists for tuples, but nothing else for what it is not.
        project = TypeAdapter(Project).validate_json(json.dumps(given, default=str), strict=True)
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error.errors()[0], given)}") from error
    _check(project, where)
    return project


def recipe_values(project: Project) -> dict[str, Any]:
    """Return the training recipe of a project, as :func:`zeroskip.pruning.recipe_tables.parse_recipe` takes it."""
    prune, quantize = project.prune, project.quantize
    stages = _stages(prune)
    settings = _plain(quantize)
    return {
        "name": project.name,
        "network": f"{project.network.module}:{project.network.factory}",
        "dataset": project.data.module,
        "seed": prune.seed,
        "threads": prune.threads,
        "batch": prune.batch,
        "dense": _plain(prune.dense),
        "stages": [
            {
                "name": stage.name,
                "layers": {name: dict(rule) for name, rule in stage.layers.items()},
                "rho": _penalty(stage.rho or prune.rho),
                "updates_per_epoch": stage.updates_per_epoch or prune.updates_per_epoch,
                "admm": _plain(stage.admm or prune.admm),
                "retrain": _plain(stage.retrain or prune.retrain),
                "method": stage.method,
                **{key: _given(_plain(part)) for key in ("allocation", "purify") if (part := getattr(stage, key))},
            }
            for stage in stages
        ],
        "input": settings.pop("input"),
        "quantization": settings,
    }


def _stages(prune: Prune) -> tuple[Stage, ...]:
    """Return the pruning steps; ``[prune.layers]`` are one of the name ``prune``."""
    return prune.stages or ((Stage("prune", prune.layers),) if prune.layers else ())


def _penalty(rho: Penalty) -> list[float] | dict[str, list[float]]:
    """Return a penalty as JSON values."""
    return {name: list(pair) for name, pair in rho.items()} if isinstance(rho, Mapping) else list(rho)


def _given(values: Any) -> Any:
    """Return tables without the keys that were left out."""
    if not isinstance(values, dict):
        return values
    return {key: _given(value) for key, value in values.items() if value is not None}


def _plain(table: Any) -> dict[str, Any]:
    """Return a dataclass as JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(table)))
    return values


def _refuse_unknown_keys(where: str, values: Any, kind: Any, place: tuple[str, ...]) -> None:
    """Walk the tables beside the dataclasses and refuse the first key that a dataclass does not have."""
    if get_origin(kind) is tuple and isinstance(values, list):
        for number, entry in enumerate(values):
            _refuse_unknown_keys(where, entry, get_args(kind)[0], (*place[:-1], f"{place[-1]}[{number}]"))
    elif get_origin(kind) is Mapping and isinstance(values, dict):
        for key, entry in values.items():
            _refuse_unknown_keys(where, entry, get_args(kind)[1], (*place, key))
    elif dataclasses.is_dataclass(kind) and isinstance(values, dict):
        hints = get_type_hints(kind)
        for key, entry in values.items():
            if key not in hints:
                raise InputError(f"{where}: {_unknown(key, place, _keys(kind))}")
            _refuse_unknown_keys(where, entry, _table_type(hints[key]), (*place, key))


def _table_type(hint: Any) -> Any:
    """Return what is left of ``X | None``."""
    choices = [choice for choice in get_args(hint) if choice is not type(None)]
    return choices[0] if type(None) in get_args(hint) and len(choices) == 1 else hint


def _keys(kind: Any) -> list[str]:
    """Return the keys that a table may have."""
    return [field.name for field in dataclasses.fields(kind) if field.name != "path"]


def _unknown(key: str, place: tuple[str, ...], known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
    return f"{_table(place)} has an unknown key {key!r}; {hint}"


def _table(place: tuple[str, ...]) -> str:
    return f"table [{'.'.join(place)}]" if place else "the top level"


def _explain(error: Any, values: Any) -> str:
    """Turn pydantic's description of an error into a sentence that names table and key."""
    place: list[str] = []
    here = values
    for step in error["loc"]:
        # A location also names the branch of a union, which is no key.
        if isinstance(here, Mapping) and step in here:
            here = here[step]
            place.append(step)
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
            place[-1] += f"[{step}]"
        elif error["type"] == "missing" and isinstance(here, Mapping):
            return f"{_table(tuple(place))} lacks the key {step!r}; add it"
    message = error["msg"].removeprefix("Value error, ")
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    if error["type"] == "missing":
        message = "must have more items"
    elif error["type"] == "string_pattern_mismatch":
        message = "must be letters, digits, '.', '_' and '-', and begin with a letter or digit"
    return f"{_table(tuple(place[:-1]))}, key {place[-1]!r} {message}, not {here!r}"


def _check(project: Project, where: str) -> None:
    """Refuse what only other modules can tell is wrong, before anything is trained."""
    from zeroskip.boards import find_board
    from zeroskip.hw.design import SETTINGS

    _check_stages(project.prune, where)
    _check_recipe(project, where)
    boards = project.synthesize.boards
    if len(set(boards)) != len(boards):
        raise InputError(f"{where}: table [synthesize], key 'boards' must name each board once, not {list(boards)}")
    sizing = project.compile.board
    for place, board in (*(("[synthesize], key 'boards'", b) for b in boards), ("[compile], key 'board'", sizing)):
        try:
            if board is not None:
                find_board(board)
        except InputError as error:
            raise InputError(f"{where}: table {place}: {error}") from error
    for key in project.compile.settings:
        if key not in SETTINGS:
            raise InputError(f"{where}: {_unknown(key, ('compile', 'settings'), list(SETTINGS))}")
    files = [("network", "module", project.network.module), ("data", "module", project.data.module)]
    if project.network.start is not None:
        files.append(("network", "start", project.network.start))
    for table, key, name in files:
        file = project.folder / name
        if not file.is_file():
            raise InputError(
                f"{where}: table [{table}], key {key!r} names '{file}', which does not exist; "
                "write it or correct the name"
            )


def _check_stages(prune: Prune, where: str) -> None:
    if prune.layers and prune.stages:
        raise InputError(
            f"{where}: table [prune] must have either 'layers' or 'stages', not both; move the layers into a stage"
        )
    names = [stage.name for stage in prune.stages]
    if len(set(names)) != len(names) or {"dense", "finetune"} & set(names):
        raise InputError(
            f"{where}: table [prune.stages], key 'name' must differ from stage to stage, and from 'dense' and "
            f"'finetune', not {names}"
        )
    _check_layers(prune.layers, where, "prune")
    for number, stage in enumerate(prune.stages):
        if not stage.layers:
            raise InputError(f"{where}: stage '{stage.name}' must have at least one layer in its 'layers'; add it")
        _check_layers(stage.layers, where, f"prune.stages[{number}]")
    for stage in _stages(prune):
        if stage.method in ("admm", "gradual") and not (stage.admm or prune.admm).epochs:
            raise InputError(
                f"{where}: stage '{stage.name}' must have at least 1 ADMM epoch, not 0; raise 'epochs' of its "
                "'admm', or of that in [prune], or leave out its layers"
            )


def _check_recipe(project: Project, where: str) -> None:
    """Refuse settings that cannot be together."""
    if not _stages(project.prune):
        return
    from zeroskip.pruning.errors import PruningError
    from zeroskip.pruning.recipe_tables import parse_recipe

    try:
        parse_recipe(recipe_values(project), "prune")
    except PruningError as error:
        raise InputError(f"{where}: {error}") from error


def _check_layers(layers: Layers, where: str, table: str) -> None:
    """Refuse what the recipe would refuse later."""
    if not layers:
        return
    from zeroskip.pruning.errors import PruningError
    from zeroskip.pruning.recipe_tables import parse_rule

    for layer, rule in layers.items():
        try:
            parse_rule(rule, f"table [{table}.layers.{layer}]")
        except PruningError as error:
            raise InputError(f"{where}: {error}") from error
