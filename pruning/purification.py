"""Purification (experimental): input channels of which pruning has left little are taken out whole, or put back.

ADMM prunes every layer for itself, so that channels stay of which a few weak columns are left; each costs the layer
that makes it a filter. After P-RM (arXiv 1905.00136), whose Algorithm 1 was not available: what is from there are its
two measures of a channel, the share of columns that are empty and the weight of the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zeroskip.pruning.admm import Admm
from zeroskip.pruning.capture import capture
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.graph import Kind, Op
from zeroskip.pruning.layers import weight_of
from zeroskip.pruning.samples import float_inputs
from zeroskip.pruning.training import Phase

if TYPE_CHECKING:
    from zeroskip.pruning.retrain import Run

__all__ = ["Purification", "purify", "weak_channels"]


@dataclass(frozen=True)
class Purification:
    """Which channels are tried, and when they come back.

    Parameters
    ----------
    retrain : how a trial is trained before it is judged
    empty : share of a channel's columns that must be zero, in (0, 1]
    weak : most that the norm of its weights is of the mean norm of the layer's channels
    drop : most that the validation score, a share, may fall below that before purification, over all trials
    """

    retrain: Phase = Phase(1, (1e-3, 1e-4))
    empty: float = 0.5
    weak: float = 0.5
    drop: float = 0.001

    def __post_init__(self) -> None:
        for name, lowest, highest in (("empty", 0.0, 1.0), ("weak", 0.0, math.inf), ("drop", 0.0, 1.0)):
            value = getattr(self, name)
            if not lowest <= value <= highest or (name == "empty" and not value):
                above = "above 0 and at most 1" if name == "empty" else f"from {lowest:g} to {highest:g}"
                raise PruningError(f"{name} must be {above}, not {value!r}")


def weak_channels(weight: Tensor, channels: int, settings: Purification) -> list[int]:
    """Return the input channels that are tried, the weakest first; never all that have weights.

    Parameters
    ----------
    weight : of a convolution ``[O, I, kh, kw]``, or of a linear layer ``[O, I * positions]``
    channels : ``I``
    """
    columns = weight.detach().reshape(len(weight), channels, -1)
    empty = (columns == 0).all(0).float().mean(1)
    norms = columns.square().sum((0, 2)).sqrt()
    used = norms > 0
    if not bool(used.any()):
        return []
    chosen = used & (empty >= settings.empty) & (norms <= settings.weak * norms[used].mean())
    found = [index for index in norms.argsort(stable=True).tolist() if chosen[index]]
    return found[:-1] if len(found) == int(used.sum()) else found


def purify(run: Run, stage: str, admm: Admm, settings: Purification, generator: torch.Generator) -> Admm:
    """Take out what channels can be spared in the layers that ``admm`` has pruned; return the Admm that then holds.

    Each layer loses all its weak channels at once, else the weaker half of them, and so on; a trial after which the
    score is too low, or whose zeros the layer's set does not allow, is undone with its training.
    """
    least = run.judge() - settings.drop
    names = set(admm.names())
    for op in _layers(run):
        if op.module not in names:
            continue
        channels = weak_channels(weight_of(run.model, op.module), op.in_shape[0], settings)
        while channels:
            found = _trial(run, stage, admm, op, channels, settings, generator, least)
            if found is not None:
                admm = found
                break
            channels = channels[: len(channels) // 2]
    return admm


def _layers(run: Run) -> list[Op]:
    """Return the network's layers whose weight has an axis of input channels."""
    graph = capture(run.model, float_inputs(run.validation.x[:1], run.source).to(run.device))
    kinds = (Kind.CONV2D, Kind.LINEAR)
    return [op for op in graph.ops if op.kind in kinds and op.groups == 1]


def _trial(
    run: Run, stage: str, admm: Admm, op: Op, channels: list[int], settings: Purification,
    generator: torch.Generator, least: float,
) -> Admm | None:  # fmt: skip
    """Take out channels of a layer and retrain; return the Admm that then holds, None where that was undone."""
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    score, without = None, None
    try:
        without = Admm(run.model, {}, parent=_masks(admm, run, op, channels), held=admm.on_sets())
        without.harden()
        without.check()
        run.epochs_left += settings.retrain.epochs
        run.train_phase(stage, "purify", settings.retrain, generator, admm=without)
        score = run.judge()
    except PruningError:
        # A set whose blocks must stay whole or whose levels have no zero, or a training that diverged.
        pass
    kept = score is not None and score >= least
    found = None if score is None else round(score, 6)
    run.note(stage, "purification", layer=op.module, channels=sorted(channels), validation=found, kept=kept)
    if not kept:
        run.model.load_state_dict(before)
        return None
    return without


def _masks(admm: Admm, run: Run, op: Op, channels: list[int]) -> Mapping[str, Tensor]:
    """Return the masks with the layer's channels taken out."""
    masks = admm.masks()
    weight = weight_of(run.model, op.module)
    mask = masks.get(op.module, torch.ones_like(weight, dtype=torch.bool))
    columns = mask.reshape(len(mask), op.in_shape[0], -1).clone()
    columns[:, channels] = False
    return masks | {op.module: columns.reshape(mask.shape)}
