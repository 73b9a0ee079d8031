"""From a project to its artifact: check everything that can be checked first, then train, prune and quantize."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zeroskip.boards.steps import file_digest
from zeroskip.compiler.errors import InputError
from zeroskip.project import Project, recipe_values
from zeroskip.user_code import Images, load_network

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.pruning.data import ImageSet
    from zeroskip.pruning.inputs import Input
    from zeroskip.pruning.recipe import Recipe

__all__ = ["TrainingReport", "train_artifact"]

TrainingReport = Callable[[str, float, float | None], None]
"""Called as ``report(step, elapsed seconds, expected seconds or None)``."""

CHECKED_IMAGES = 64


def train_artifact(
    project: Project,
    images: Mapping[str, Images],
    artifact: Path,
    *,
    checkpoints: Path | None = None,
    report: TrainingReport | None = None,
) -> None:
    """Train, prune and quantize the project's network and write its artifact, and the log of the run beside it.

    ``checkpoints`` keeps finished stages, from which a killed run goes on. The test images are read once, at the end.

    Raises
    ------
    InputError, PruningError
        If the project, its code or its data do not fit together; found before training where it can be.
    """
    import torch

    from zeroskip.pruning import prune
    from zeroskip.pruning.data import ImageSet
    from zeroskip.pruning.devices import repeatable
    from zeroskip.pruning.recipe import parse_recipe
    from zeroskip.pruning.training import accuracy

    recipe = parse_recipe(recipe_values(project), f"project file '{project.path}'")
    parts = {name: ImageSet(torch.tensor(part.codes), torch.tensor(part.labels)) for name, part in images.items()}
    test = parts["test"]
    with repeatable(recipe.threads), _stages_kept(checkpoints) as kept:

        def network() -> nn.Module:
            torch.manual_seed(recipe.seed)
            return load_network(project)

        source = _check_network(project, network(), recipe, parts)
        # Without fine-tuning first: the float accuracy is that of the pruned network before it is quantized. The second
        # call takes the stages up to there from their checkpoints.
        pruned = network()
        settings = recipe.quantization
        rounded = replace(settings, finetune=replace(settings.finetune, epochs=0), freeze=0.0, rounds=1)
        quick = replace(recipe, quantization=rounded)
        first, second = _clocks(report, recipe.epochs() / max(1, quick.epochs()))
        prune(pruned, parts["train"], parts["validation"], quick, checkpoints=kept, progress=first)
        log = artifact.with_suffix(".log.jsonl")
        net = prune(network(), parts["train"], parts["validation"], recipe, checkpoints=kept, log=log, progress=second)
        shares = {"float": accuracy(pruned.eval(), test, source), "integer": net.accuracy(test)}
    name = project.network.start
    start = {} if name is None else {"start": f"weights of {name}, sha256 {file_digest(project.folder / name)}"}
    record = replace(
        net.record,
        accuracy={**shares, "samples": len(test)},
        correct={name: round(share * len(test)) for name, share in shares.items()},
        provenance={
            "recipe_sha256": recipe.digest(),
            "data_sha256": {name: part.digest() for name, part in images.items()},
            **start,
            **net.record.provenance,
            "split": f"{len(parts['train'])} train, {len(parts['validation'])} validation (all choices), "
            f"{len(test)} test (read once)",
            "accuracy": "on the test images; float is that of the pruned network before quantization and fine-tuning",
        },
    )
    net.save(artifact, record)


def _clocks(report: TrainingReport | None, ratio: float) -> tuple[TrainingReport | None, TrainingReport | None]:
    """Return the reports of the two calls, with the times of both together: they take ``ratio`` times the first."""
    if report is None:
        return None, None
    started = time.monotonic()

    def first(step: str, elapsed: float, expected: float | None) -> None:
        report(step, time.monotonic() - started, None if expected is None else expected * ratio)

    def second(step: str, elapsed: float, expected: float | None) -> None:
        now = time.monotonic() - started
        report(step, now, None if expected is None else now - elapsed + expected)

    return first, second


@contextlib.contextmanager
def _stages_kept(checkpoints: Path | None) -> Iterator[Path]:
    """Give a folder for the stages, one of its own where the caller keeps none."""
    if checkpoints is not None:
        yield checkpoints
    else:
        with tempfile.TemporaryDirectory(prefix="zeroskip-") as folder:
            yield Path(folder)


def _check_network(project: Project, network: nn.Module, recipe: Recipe, parts: Mapping[str, ImageSet]) -> Input:
    """Do on an untrained copy all that follows training, so that nobody waits for an error.

    Return how the network sees its input once statistics of each channel are part of its first layer.
    """
    from zeroskip.pruning.calibration import calibrate
    from zeroskip.pruning.capture import capture
    from zeroskip.pruning.inputs import fold_channels
    from zeroskip.pruning.quantize import float_inputs
    from zeroskip.pruning.retrain import check_stages

    model = copy.deepcopy(network).eval()
    check_stages(model, recipe.stages)
    codes = parts["validation"].x[:CHECKED_IMAGES]
    source = fold_channels(model, codes, recipe.input)
    inputs = float_inputs(codes, source)
    graph = capture(model, inputs[:1])
    settings = recipe.quantization
    bits = settings.weights, settings.activations
    calibrate(
        graph, graph.tensors(model), inputs, source, *bits, settings.power_of_two,
        per_channel=settings.per_channel,
    )  # fmt: skip
    classes = graph.ops[-1].out_shape[0]
    for name, part in parts.items():
        if int(part.y.max()) >= classes:
            raise InputError(
                f"Network of '{project.folder / project.network.module}' has {classes} outputs, but {name}() of "
                f"'{project.folder / project.data.module}' has the label {int(part.y.max())}; "
                "give the network more outputs"
            )
    return source
