"""Plain training and evaluation of a classifier whose data set lies in memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.errors import PruningError

__all__ = ["Forward", "Input", "Phase", "accuracy", "fixed_threads", "make_optimizer", "train"]

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Input:
    """How a network sees its pixels: ``x = (code / range - mean) / std`` of codes ``0..range`` (one channel statistic).

    The integer network takes the codes themselves; mean and deviation are folded into its first layer.
    """

    range: int = 255
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.range <= 255:
            raise PruningError(f"Input range must be from 1 to 255, not {self.range!r}")
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise PruningError(f"Input mean must be finite and std positive, not {self.mean!r} and {self.std!r}")

    def normalize(self, codes: Tensor) -> Tensor:
        """Return the float input of the network for uint8 ``codes``."""
        return (codes.to(torch.float32) / self.range - self.mean) / self.std


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Parameters
    ----------
    epochs : passes over the data
    lr : first and last learning rate of a half cosine
    shift : each batch is moved by a random -shift..shift pixels in y and in x
    restarts : how often the cosine runs; more than 1 gives the learning rate's saw-tooth of METHODS 1.3
    """

    epochs: int
    lr: tuple[float, float]
    shift: int = 0
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.shift < 0 or self.restarts < 1:
            raise PruningError(f"A phase needs epochs >= 0, shift >= 0 and restarts >= 1, not {self}")
        if len(self.lr) != 2 or not all(math.isfinite(lr) and lr > 0 for lr in self.lr):
            raise PruningError(f"lr must be two positive numbers (first, last), not {self.lr!r}")

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of step ``step`` of ``steps``."""
        tooth = max(1, math.ceil(steps / self.restarts))
        place = (step % tooth) / max(1, tooth - 1)
        first, last = self.lr
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, place)))


def make_optimizer(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Return the optimizer of all recipes: Adam, fused."""
    return torch.optim.Adam(list(parameters), lr=lr, fused=True)


@contextlib.contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Run torch with ``threads`` threads inside the block: the count is part of what makes a run repeatable."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shifted(x: Tensor, pixels: int, fill: float, generator: torch.Generator) -> Tensor:
    """Return the batch moved by one random offset, the border filled with ``fill``."""
    dy, dx = (int(v) for v in torch.randint(0, 2 * pixels + 1, (2,), generator=generator))
    height, width = x.shape[2:]
    return F.pad(x, (pixels, pixels, pixels, pixels), value=fill)[:, :, dy : dy + height, dx : dx + width]


def train(
    forward: Forward,
    data: ImageSet,
    source: Input,
    phase: Phase,
    optimizer: Optimizer,
    *,
    batch: int,
    generator: torch.Generator,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Train with cross entropy for one phase; every random choice comes from ``generator``.

    ``on_step(step, steps_per_epoch)`` is called after each optimizer step (from 1), ``on_epoch(epoch, mean loss)``
    after each epoch (from 1).
    """
    x, y = source.normalize(data.x), data.y
    fill = -source.mean / source.std
    per_epoch = max(1, len(y) // batch)
    total = per_epoch * phase.epochs
    for epoch in range(phase.epochs):
        order = torch.randperm(len(y), generator=generator)
        losses = torch.zeros(())
        for i in range(per_epoch):
            chosen = order[i * batch : (i + 1) * batch]
            images = x[chosen]
            if phase.shift:
                images = _shifted(images, phase.shift, fill, generator)
            for group in optimizer.param_groups:
                group["lr"] = phase.rate(epoch * per_epoch + i, total)
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(forward(images.contiguous(memory_format=torch.channels_last)), y[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses += loss.detach()
            if on_step:
                on_step(i + 1, per_epoch)
        mean = float(losses) / per_epoch
        if not math.isfinite(mean):
            raise PruningError(f"The loss became {mean} in epoch {epoch + 1}; lower the learning rate or rho")
        if on_epoch:
            on_epoch(epoch + 1, mean)


def accuracy(forward: Forward, data: ImageSet, source: Input, batch: int = 1000) -> float:
    """Return the share of ``data`` that is classified correctly."""
    correct = 0
    with torch.no_grad():
        for start in range(0, len(data), batch):
            part = data.take(start, start + batch)
            logits = forward(source.normalize(part.x).contiguous(memory_format=torch.channels_last))
            correct += int((logits.argmax(1) == part.y).sum())
    return correct / max(1, len(data))
