"""Samples in the forms that callers have them, as codes, as what a float network takes, and checked."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.calibration import Activation
from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.inputs import Input

__all__ = [
    "Samples",
    "as_maps",
    "batches",
    "check_calibration",
    "float_inputs",
    "gather",
    "input_codes",
    "warn_off_codes",
]

Samples = ImageSet | Tensor | tuple[Tensor, Tensor] | Iterable[Any]
"""What holds samples: images with labels, a tensor, (x, y), or batches of either as a DataLoader yields them."""

# Resized or shifted samples lie between codes here and there; others by their normalization do everywhere.
_OFF_CODES, _OFF_SHARE = 0.05, 0.5
_LOOKED_AT = 1 << 16

_log = logging.getLogger(__name__)


def batches(data: Samples) -> Iterable[tuple[Tensor, Tensor | None]]:
    """Yield ``(x, y or None)`` from anything that :data:`Samples` allows."""
    if isinstance(data, ImageSet):
        yield data.x, data.y
    elif isinstance(data, Tensor):
        yield data, None
    elif isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        yield data
    elif isinstance(data, Iterable):
        for item in data:
            if isinstance(item, Tensor):
                yield item, None
            elif isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(part, Tensor) for part in item):
                yield item[0], item[1]
            else:
                raise PruningError(f"A batch must be a tensor or (x, y), not {type(item).__name__}")
    else:
        raise PruningError(
            f"Samples must be an ImageSet, a tensor, (x, y) or batches of them, not {type(data).__name__}"
        )


def gather(data: Samples, count: int) -> Tensor:
    """Return the first ``count`` inputs of ``data``."""
    parts, found = [], 0
    for x, _ in batches(data):
        parts.append(x[: count - found])
        found += len(parts[-1])
        if found >= count:
            break
    if found == 0:
        raise PruningError("The calibration data hold no sample")
    return torch.cat(parts)


def float_inputs(x: Tensor, source: Input | None) -> Tensor:
    """Return what the float network takes: codes are normalized as ``source`` says, floats stay."""
    if x.is_floating_point():
        return x
    if source is None:
        raise PruningError("Integer samples need uint8 or int8 codes and input=Input(range=..., mean=..., std=...)")
    return source.normalize(x)


def input_codes(x: Tensor, form: Activation) -> Tensor:
    """Return the codes of a float network input, rounded half to even; codes stay."""
    if not x.is_floating_point():
        return x
    codes = torch.round(x.to(torch.float64) / form.scale + form.offset)
    return codes.clamp(form.lo, form.hi).to(torch.int8 if form.signed else torch.uint8)


def check_calibration(inputs: Tensor, sample: Tensor) -> None:
    """Refuse calibration samples that are no samples of the network, or no numbers."""
    if inputs.shape[1:] != sample.shape[1:]:
        raise PruningError(
            f"The calibration samples have shape {tuple(inputs.shape[1:])}, but sample {tuple(sample.shape[1:])}"
        )
    if inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
        raise PruningError("The calibration samples hold a NaN or an infinity; give finite ones")


def warn_off_codes(x: Tensor, form: Activation, source: Input | None, what: str) -> None:
    """Say when float samples are hardly what the network was trained on: most lie off the codes of ``source``."""
    if source is None or not x.is_floating_point():
        return
    # Of different values: in most images nearly all are the background.
    values = np.unique(x.detach().cpu().reshape(-1)[:_LOOKED_AT].to(torch.float64).numpy())
    codes = torch.from_numpy(values) / form.scale + form.offset
    off = (codes - codes.round().clamp(form.lo, form.hi)).abs() > _OFF_CODES
    if off.to(torch.float64).mean() > _OFF_SHARE:
        _log.warning(
            "Most values of the %s are not (code / %d - %g) / %g with a code from %d to %d: feed what the float "
            "network was trained on, and give its range, mean and std as input",
            what, source.range, source.mean, source.std, form.lo, form.hi,
        )  # fmt: skip


def as_maps(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return sequences ``(N, C, L)`` as the maps of height 1 that the network takes; everything else stays."""
    return x.unsqueeze(2) if x.dim() == 3 and len(shape) == 3 and shape[1] == 1 else x
