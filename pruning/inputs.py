"""How a network sees its input codes, and how statistics of each channel become part of its first layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from zeroskip.pruning.capture import capture
from zeroskip.pruning.checkpoints import LATER, OF_RUN
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.graph import Graph, Kind, Op

__all__ = ["Input", "fold_channels"]

Statistic = float | tuple[float, ...]


@dataclass(frozen=True)
class Input:
    """How a network sees its input: ``x = (code / range - mean) / std``.

    The integer network takes the codes themselves; mean and deviation are folded into its first layer.

    Parameters
    ----------
    range : the code of 1.0; images have codes ``0..range``
    mean, std : one number, or one a channel; the integer network needs one of each, see :func:`fold_channels`
    signed : codes are int8, -128 to 127, as of series; else uint8
    """

    range: int = 255
    mean: Statistic = 0.0
    std: Statistic = 1.0
    signed: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        limit = 128 if self.signed else 255
        if not 1 <= self.range <= limit:
            raise PruningError(f"Input range must be from 1 to {limit}, not {self.range!r}")
        means, stds = _values(self.mean), _values(self.std)
        if not all(map(math.isfinite, means + stds)) or min(stds, default=0.0) <= 0 or not means:
            raise PruningError(f"Input mean must be finite and std positive, not {self.mean!r} and {self.std!r}")

    @property
    def dtype(self) -> torch.dtype:
        """Type of the codes."""
        return torch.int8 if self.signed else torch.uint8

    def normalize(self, codes: Tensor) -> Tensor:
        """Return the float input of the network for ``codes`` (N, C, ...)."""
        if codes.dtype != self.dtype:
            raise PruningError(f"Input codes must be {self.dtype}, not {codes.dtype}; set signed as the codes are")
        mean, std = (_along_channels(value, codes) for value in (self.mean, self.std))
        return (codes.to(torch.float32) / self.range - mean) / std

    def background(self, codes: Tensor) -> Tensor:
        """Return the normalized code 0 of each channel of ``codes``, shaped to be added to (N, C, ...)."""
        means, stds = _values(self.mean), _values(self.std)
        count = max(len(means), len(stds))
        zeros = [-m / s for m, s in zip(means * (count // len(means)), stds * (count // len(stds)), strict=True)]
        return torch.tensor(zeros).reshape(1, -1, *(1,) * (codes.dim() - 2))


def _values(statistic: Statistic) -> tuple[float, ...]:
    return statistic if isinstance(statistic, tuple) else (statistic,)


def _along_channels(statistic: Statistic, codes: Tensor) -> Tensor | float:
    """Return a statistic so that it broadcasts along the channels of ``codes``."""
    if not isinstance(statistic, tuple):
        return statistic
    if codes.dim() < 2 or codes.shape[1] != len(statistic):
        raise PruningError(
            f"Input has statistics of {len(statistic)} channels, but the samples have shape {tuple(codes.shape)}; "
            "give one number, or one a channel"
        )
    return torch.tensor(statistic).reshape(-1, *(1,) * (codes.dim() - 2))


def fold_channels(model: nn.Module, codes: Tensor, source: Input) -> Input:
    """Move statistics of each channel into the layers that read the input, in place; return the Input that is left.

    A layer of the integer network has one weight scale, and its input one code for padding, so channels cannot keep
    means and deviations of their own. With one deviation ``s`` (the mean of all) the weights of channel c are
    multiplied by ``s / std_c``; with one mean ``m`` the constant ``sum(w) * (m - mean_c) / std_c`` goes to the bias or
    the BatchNorm. That changes no result of a window inside the input. Padding stands for ``m`` instead of each
    channel's own mean, and ``m`` is a whole code where a layer pads: exact zeros of the normalized input would need one
    padding code a channel.

    Call it before pruning: it moves weights off levels and breaks magnitudes that were tied across channels.

    Parameters
    ----------
    codes : example samples (N, C, ...)

    Raises
    ------
    PruningError
        If a layer on the input has neither bias nor BatchNorm, or the weights are of a run that did this already.
    """
    if not isinstance(source.mean, tuple) and not isinstance(source.std, tuple):
        return source
    graph = capture(model, source.normalize(codes[:2]))
    channels = graph.in_shape[0]
    means = torch.tensor(_values(source.mean), dtype=torch.float64).expand(channels)
    stds = torch.tensor(_values(source.std), dtype=torch.float64).expand(channels)
    mean, std = float(means.mean()), float(stds.mean())
    if any(any(op.padding) for op in graph.first_layers()):
        mean = round(mean * source.range) / source.range
    if getattr(model, OF_RUN, False):
        raise PruningError(
            "The network starts from the weights of a run, whose first layer has the statistics of each channel in it "
            f"already; give the input mean = {mean!r} and std = {std!r}, or start from other weights"
        )
    tensors = graph.tensors(model)
    with torch.no_grad():
        for op in graph.first_layers():
            _fold(op, graph, tensors, std / stds, (mean - means) / stds)
    return replace(source, mean=mean, std=std)


def _fold(op: Op, graph: Graph, tensors: dict[str, Tensor], gain: Tensor, offset: Tensor) -> None:
    """Rewrite one layer for an input ``x'`` with ``x = gain * x' + offset`` in every channel."""
    weight = tensors[op.weight or ""]
    if op.kind is Kind.LINEAR:
        # Features are in the order C, H, W.
        per_input = gain.repeat_interleave(weight.shape[1] // len(gain))
        constant = offset.repeat_interleave(weight.shape[1] // len(offset))
        gains, constants = per_input.reshape(1, -1), constant.reshape(1, -1)
    else:
        group = torch.arange(len(weight)) // (len(weight) // op.groups)
        inputs = group[:, None] * weight.shape[1] + torch.arange(weight.shape[1])
        gains, constants = (v[inputs].reshape(*inputs.shape, *(1,) * (weight.dim() - 2)) for v in (gain, offset))
    moved = (weight.to(torch.float64) * constants).flatten(1).sum(1)
    weight.copy_(weight.to(torch.float64) * gains)
    if op.bias is not None:
        tensors[op.bias].add_(moved.to(weight.dtype))
    elif op.norm is not None:
        tensors[op.norm.mean].sub_(moved.to(weight.dtype))
    else:
        raise PruningError(
            f"Layer '{op.name}' has neither bias nor BatchNorm to take the means of the input's channels; give it a "
            "bias or the Input one mean"
        )
