"""The whole chain of a recipe: train, prune, quantize, fine-tune, judge; one call, resumable by stage."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.pruning.admm import Admm
from zeroskip.pruning.calibration import Plan, calibrate, fake_quant_forward
from zeroskip.pruning.capture import capture
from zeroskip.pruning.checkpoints import Checkpoints, plain_values, replace_bytes
from zeroskip.pruning.data import ImageSet, Split, data_folder, load
from zeroskip.pruning.devices import repeatable
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.export import Record, read_header
from zeroskip.pruning.freezing import Freezing
from zeroskip.pruning.goals import verdicts
from zeroskip.pruning.graph import Graph
from zeroskip.pruning.inputs import fold_channels
from zeroskip.pruning.judging import auc, integer_score, reconstruction_errors, score, wrong
from zeroskip.pruning.networks import load_start, make_network
from zeroskip.pruning.quantize import QuantizedNetwork, fixed_levels, layer_masks, quantize
from zeroskip.pruning.quantizers import as_factor
from zeroskip.pruning.recipe import Recipe
from zeroskip.pruning.recipe_files import load_recipe
from zeroskip.pruning.replicas import from_first, rank
from zeroskip.pruning.retrain import Progress, Run, run_stages
from zeroskip.pruning.samples import float_inputs
from zeroskip.pruning.training import Task

__all__ = ["Built", "build_artifact", "prune"]


_CHECKED = 32
"""So many samples are quantized by the untrained network."""


@dataclass(frozen=True)
class Built:
    """A finished artifact: its file, its header, and whether it was there already."""

    path: Path
    header: dict[str, Any]
    reused: bool


def prune(
    model: nn.Module,
    train: ImageSet,
    val: ImageSet,
    recipe: Recipe | Path | str,
    *,
    test: ImageSet | None = None,
    checkpoints: Path | None = None,
    log: Path | None = None,
    progress: Progress | None = None,
) -> QuantizedNetwork:
    """Train, prune and quantize ``model`` in place as ``recipe`` says and return the integer network.

    Parameters
    ----------
    train, val : samples with labels; ``val`` is only ever judged on, and calibrates the activation ranges
    recipe : a Recipe, the path of a TOML file, or the name of one in the repository
    test : samples that are read once, at the end; the accuracies of the record are of these, without them of ``val``
    checkpoints : folder that keeps finished stages; a later call goes on from there with the same bytes
    log : file that gets a JSON line for every epoch, update, residual and goal
    progress : called as ``progress(step, elapsed seconds, expected seconds or None)``

    Raises
    ------
    PruningError
        Before any training, if data, network and recipe do not fit together.
    Diverged
        If the loss or a weight is no number any more; the model then has the last good state.
    """
    chosen = load_recipe(recipe)
    _check_network(model, {"train": train, "val": val, **({} if test is None else {"test": test})}, chosen)
    with repeatable(chosen.threads):
        run = Run(chosen, model, train, val, Checkpoints(checkpoints), progress)
        net, unquantized = _finish(run)
        scores = _scores(run, unquantized, net) if test is None else _test_scores(run, unquantized, net, test)
    samples = len(val if test is None else test)
    record = Record(
        name=chosen.name, network=chosen.network, dataset=chosen.dataset, recipe=chosen.as_dict(), seed=chosen.seed,
        accuracy={**scores, "samples": samples}, correct=_correct(scores, samples, chosen.task),
        provenance=_provenance(run),
    )  # fmt: skip
    if log is not None and rank() == 0:
        _write_log(run, log)
    return replace(net, record=record)


def _write_log(run: Run, path: Path) -> None:
    lines = "".join(json.dumps(line, sort_keys=True) + "\n" for line in run.log)
    replace_bytes(path, lines.encode())


def _provenance(run: Run) -> dict[str, Any]:
    """Return what a budget gave each layer, and the verdict on every stage of ADMM."""
    allocated = {line["stage"]: line["keep"] for line in run.log if line["phase"] == "allocation"}
    found = {"allocation": allocated, "goals": verdicts(run.log)}
    return {name: value for name, value in found.items() if value}


def _check_network(model: nn.Module, parts: Mapping[str, ImageSet], recipe: Recipe) -> None:
    """Refuse before training what could not be quantized after it, or is no data for this network."""
    for parameter_name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise PruningError(f"Parameter '{parameter_name}' is {parameter.dtype}; call model.float() before prune()")
    shape = None
    for name, part in parts.items():
        if not isinstance(part, ImageSet):
            raise PruningError(f"{name} must be an ImageSet of codes and labels, not a {type(part).__name__}")
        if not len(part):
            raise PruningError(f"{name} must hold samples, but it is empty")
        shape = shape or part.x.shape[1:]
        if part.x.shape[1:] != shape:
            raise PruningError(f"train has samples of shape {tuple(shape)}, but {name} of {tuple(part.x.shape[1:])}")
    graph = _check_quantization(model, parts["train"].x[:_CHECKED], recipe)
    outs = math.prod(graph.ops[-1].out_shape)
    for name, part in parts.items():
        if recipe.task is Task.CLASSIFY and int(part.y.max()) >= outs:
            raise PruningError(
                f"Layer '{graph.ops[-1].name}' has {outs} outputs, but {name} has the label {int(part.y.max())}; give "
                "the network more outputs"
            )


def _check_quantization(model: nn.Module, codes: Tensor, recipe: Recipe) -> Graph:
    """Choose scales for the untrained network, so that what cannot be quantized is refused now; return its graph."""
    untrained = copy.deepcopy(model).eval()
    source = fold_channels(untrained, codes, recipe.input)
    x, settings = source.normalize(codes), recipe.quantization
    graph = capture(untrained, x[:1])
    calibrate(
        graph, graph.tensors(untrained), x, source, settings.weights, settings.activations, settings.power_of_two,
        reconstruct=recipe.task is Task.RECONSTRUCT, per_channel=settings.per_channel,
    )  # fmt: skip
    return graph


def _structured(run: Run) -> Admm | None:
    """Return the last stage's sets as a hardened Admm over the weights as they are now."""
    if not run.recipe.stages:
        return None
    admm = Admm(run.model, run.held(), parent=run.masks)
    admm.harden()
    return admm


def _finish(run: Run) -> tuple[QuantizedNetwork, nn.Module]:
    """Run all stages, fine-tune under fake quantization; return the integer network, and the float one before that."""
    run_stages(run)
    # What follows but for the fine-tuning is exact, or small.
    run.model.eval().to("cpu")
    unquantized = copy.deepcopy(run.model)
    task = run.recipe.task
    settings = run.recipe.quantization
    admm = _structured(run)
    inputs = run.validation.x[: settings.calibration]
    graph = capture(run.model, float_inputs(inputs[:1], run.source))
    tensors = graph.tensors(run.model)
    plan = calibrate(
        graph, tensors, float_inputs(inputs, run.source), run.source,
        settings.weights, settings.activations, settings.power_of_two,
        reconstruct=task is Task.RECONSTRUCT, fixed=fixed_levels(graph, tensors, admm),
        per_channel=settings.per_channel,
    )  # fmt: skip

    def finetune(generator: torch.Generator) -> None:
        run.model.to(run.device)
        # Buffers and constants of another device are other tensors there.
        live = {name: value.to(run.device) for name, value in graph.tensors(run.model).items()}
        masks = {name: mask.to(run.device) for name, mask in layer_masks(graph, tensors, admm).items()}
        forward = fake_quant_forward(graph, live, plan, masks)
        run.note("finetune", "calibrated", validation=round(run.judge(forward), 6))
        free = admm.released() if admm else None
        if settings.freeze:
            freezing = Freezing(graph, live, plan, masks)
            for number in range(1, settings.rounds + 1):
                # After the last weights are frozen biases train on, so that what is judged last is what comes out.
                freezing.grow(settings.freeze if number < settings.rounds else 1.0)
                kind = f"frozen{number}"
                run.train_phase("finetune", kind, settings.finetune, generator, forward=freezing.forward, admm=free)
        elif settings.finetune.epochs:
            run.train_phase("finetune", "finetune", settings.finetune, generator, forward=forward, admm=free)
            _settle(graph, run.model, plan, admm)

    key = {"quantization": plain_values(settings), "plan": plain_values(plan)}
    run.advance("finetune", key, finetune, settings.epochs())
    run.model.to("cpu")
    return quantize(run.model, inputs[:1], inputs, layers=admm, plan=plan), unquantized


def _settle(graph: Graph, model: nn.Module, plan: Plan, admm: Admm | None) -> None:
    """Put the weights of layers whose set has levels back on these, where the plan's scales have them."""
    tensors = graph.tensors(model)
    for op in graph.ops:
        if op.weight and admm and admm.holds_levels(op.module):
            weight = tensors[op.weight]
            factor = as_factor(plan.weight_scales[op.name], weight)
            levels = plan.grids[op.name].levels(weight.detach(), factor)
            with torch.no_grad():
                weight.copy_(levels * factor * (weight != 0))


def build_artifact(
    recipe: Recipe | Path | str,
    out_dir: Path,
    *,
    data: Path | str | None = None,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
    split: Split | None = None,
) -> Built:
    """Run a zoo recipe on its data set and write ``NAME.safetensors`` and ``NAME.log.jsonl`` into ``out_dir``.

    An artifact of the same recipe that is there already, and whole, is kept. The test images are read once, at the end.
    In a process group all ranks train together, and rank 0 reads and writes the files.
    """
    chosen = load_recipe(recipe)
    path = out_dir / f"{chosen.name}.safetensors"
    built = from_first(_built(path, chosen))
    if built is not None:
        return built
    parts = split or load(chosen.dataset, data, chosen.validation, chosen.fold)
    with repeatable(chosen.threads):
        torch.manual_seed(chosen.seed)
        model = make_network(chosen.network)
        start = data_folder(data) / chosen.start if chosen.start else None
        if start is not None:
            load_start(model, start)
        net = prune(
            model, parts.train, parts.validation, chosen,
            test=parts.test, checkpoints=checkpoints, log=out_dir / f"{chosen.name}.log.jsonl", progress=progress,
        )  # fmt: skip
    if rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        net.save(path, _zoo_record(net.record, chosen, parts, start))
    return Built(path, from_first(read_header(path) if rank() == 0 else {}), False)


def _built(path: Path, recipe: Recipe) -> Built | None:
    """Return the artifact of this very recipe that is there already, None where there is none."""
    try:
        header = read_header(path) if path.exists() else {}
    except PruningError:
        header = {}
    same = header.get("provenance", {}).get("recipe_sha256") == recipe.digest()
    return Built(path, header, True) if same else None


def _scores(run: Run, unquantized: nn.Module, net: QuantizedNetwork) -> dict[str, float]:
    """Return the scores on the validation samples: of the float network before the fine-tuning, of the integer one."""
    task = run.recipe.task
    return {
        "float": score(unquantized, run.validation, run.source, task),
        "integer": integer_score(net, run.validation, task),
    }


def _test_scores(run: Run, unquantized: nn.Module, net: QuantizedNetwork, test: ImageSet) -> dict[str, float]:
    """Return the scores of the float network before the fine-tuning and of the integer network.

    Here alone the test set is read, and the log says so. Its last line has which samples the integer network
    classifies wrongly, or every sample's error of reconstruction and which are anomalous.
    """
    float_score = score(unquantized, test, run.source, run.recipe.task)
    run.note("test", "float", score=round(float_score, 6), samples=len(test))
    if run.recipe.task is Task.CLASSIFY:
        errors = wrong(net, test)
        found = (len(test) - int(errors.sum())) / len(test)
        judged = {"wrong": errors.nonzero()[0].tolist()}
    else:
        distances = reconstruction_errors(net, test)
        found = auc(distances, test.y)
        judged = {"squared_errors": distances.tolist(), "anomalous": test.y.nonzero().flatten().tolist()}
    run.note("test", "integer", score=round(found, 6), samples=len(test), **judged)
    return {"float": float_score, "integer": found}


def _correct(scores: Mapping[str, float], samples: int, task: Task) -> dict[str, int]:
    """Return how many samples were right; nothing for scores that are no shares of samples."""
    return {name: round(value * samples) for name, value in scores.items()} if task is Task.CLASSIFY else {}


def _zoo_record(record: Record, recipe: Recipe, split: Split, start: Path | None) -> Record:
    """Return the record with where the data and the first weights come from."""
    provenance = {
        "dataset": split.provenance, "recipe_sha256": recipe.digest(),
        "split": f"{len(split.train)} train, {len(split.validation)} validation (all choices), "
        f"{len(split.test)} test ({split.test_use})",
        "start": "random weights; no checkpoint of others was used", **record.provenance,
    }  # fmt: skip
    if start is not None:
        digest = hashlib.sha256(start.read_bytes()).hexdigest()
        provenance["start"] = f"dense weights of {recipe.start}, sha256 {digest}"
    if recipe.task is Task.RECONSTRUCT:
        provenance["accuracy"] = (
            "area under the ROC curve: normal (label 0) against other test samples by the reconstruction error, for "
            "the integer network sum((input code - output code)^2), exact"
        )
    return replace(record, provenance=provenance)
