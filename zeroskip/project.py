"""A project as frozen dataclasses, every default stated once, here; each class is a table of its file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

__all__ = [
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
    "recipe_values",
    "stages_of",
]

FORMAT: Literal["1.0"] = "1.0"

_STRICT = ConfigDict(strict=True)

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


def recipe_values(project: Project) -> dict[str, Any]:
    """Return the training recipe of a project, as :func:`zeroskip.pruning.recipe_tables.parse_recipe` takes it."""
    prune, quantize = project.prune, project.quantize
    stages = stages_of(prune)
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


def stages_of(prune: Prune) -> tuple[Stage, ...]:
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
