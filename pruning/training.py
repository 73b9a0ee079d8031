"""Plain training and evaluation of a network whose data set lies in memory."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from zeroskip.pruning.augmentation import cropped, flipped, shifted
from zeroskip.pruning.checkpoints import LATER
from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.errors import Diverged, PruningError
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.memory import keep_freed_memory
from zeroskip.pruning.replicas import average_, share

__all__ = ["Forward", "Phase", "Precision", "Task", "accuracy", "make_optimizer", "outputs", "train"]

Forward = Callable[[Tensor], Tensor]

# The maps of so many samples stay in a processor's cache: LeNet-5 takes 1.5 times as long with 1,000.
_EVALUATED = 250


class Task(enum.Enum):
    """What a network is trained and judged for: the class of a sample, or its reconstruction."""

    CLASSIFY = "classify"
    RECONSTRUCT = "reconstruct"


class Precision(enum.Enum):
    """In what the products of the forward and backward pass are taken; weights and their updates are float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Parameters
    ----------
    epochs : passes over the data
    lr : first and last learning rate of a half cosine
    shift : each batch is moved by a random -shift..shift positions in every axis; a pair gives y and x of images
    restarts : how often the cosine runs; more than 1 gives the learning rate's saw-tooth of METHODS 1.3
    flip : half of the images are mirrored left to right
    crop : each image is moved by its own random -crop..crop pixels in y and in x
    distill : share of the loss that follows the dense network's logits, 0 to 1 (Hinton et al. 2015)
    temperature : of both softmax functions in that share
    precision : of products; bfloat16 is faster on processors and GPUs that have it
    """

    epochs: int
    lr: tuple[float, float]
    shift: int | tuple[int, int] = 0
    restarts: int = 1
    flip: bool = field(default=False, metadata=LATER)
    crop: int = field(default=0, metadata=LATER)
    distill: float = field(default=0.0, metadata=LATER)
    temperature: float = field(default=4.0, metadata=LATER)
    precision: Precision = field(default=Precision.FLOAT32, metadata=LATER)

    def __post_init__(self) -> None:
        shifts = self.shift if isinstance(self.shift, tuple) else (self.shift,)
        if self.epochs < 0 or min(shifts) < 0 or self.crop < 0 or self.restarts < 1:
            raise PruningError(f"A phase needs epochs, shift and crop >= 0 and restarts >= 1, not {self}")
        if len(self.lr) != 2 or not all(math.isfinite(lr) and lr > 0 for lr in self.lr):
            raise PruningError(f"lr must be two positive numbers (first, last), not {self.lr!r}")
        if not 0 <= self.distill <= 1 or not (math.isfinite(self.temperature) and self.temperature > 0):
            raise PruningError(
                f"distill must be from 0 to 1 and temperature positive, not {self.distill!r} and {self.temperature!r}"
            )

    def margins(self, axes: int) -> tuple[int, ...]:
        """Return the largest shift along each of ``axes`` position axes."""
        shift = self.shift if isinstance(self.shift, tuple) else (self.shift,) * axes
        if len(shift) != axes:
            raise PruningError(f"shift must be one number for series, not {self.shift!r}")
        return shift

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of step ``step`` of ``steps``."""
        tooth = max(1, math.ceil(steps / self.restarts))
        place = (step % tooth) / max(1, tooth - 1)
        first, last = self.lr
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, place)))


def make_optimizer(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Return the optimizer of all recipes: Adam, fused."""
    return torch.optim.Adam(list(parameters), lr=lr, fused=True)


def _augmented(x: Tensor, phase: Phase, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Return a batch of samples with the random changes of the phase."""
    margins = phase.margins(x.dim() - 2)
    if (phase.flip or phase.crop) and x.dim() != 4:
        raise PruningError(f"flip and crop are for images (N, C, H, W), not for {tuple(x.shape)}; use shift")
    if any(margins):
        x = shifted(x, margins, fill, generator)
    if phase.flip:
        x = flipped(x, generator)
    return cropped(x, phase.crop, fill, generator) if phase.crop else x


def _dense(x: Tensor) -> Tensor:
    """Return the batch in the memory layout that is fastest."""
    # With one channel both layouts are the same bytes: to() still marks the tensor, and the layers follow its mark.
    return x.to(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def _loss(task: Task, phase: Phase, x: Tensor, out: Tensor, y: Tensor, teacher: Tensor | None) -> Tensor:
    """Return the loss of one batch; ``teacher`` holds the logits that the distilled share follows."""
    if task is Task.RECONSTRUCT:
        return F.mse_loss(out.flatten(1), x.flatten(1))
    if teacher is None:
        return F.cross_entropy(out, y)
    t = phase.temperature
    soft = F.kl_div(F.log_softmax(out / t, 1), F.log_softmax(teacher / t, 1), reduction="batchmean", log_target=True)
    # The square of the temperature keeps the gradient's size as the temperature changes.
    mixed: Tensor = (1 - phase.distill) * F.cross_entropy(out, y) + phase.distill * t * t * soft
    return mixed


def train(
    forward: Forward,
    data: ImageSet,
    source: Input,
    phase: Phase,
    optimizer: Optimizer,
    *,
    batch: int,
    generator: torch.Generator,
    task: Task = Task.CLASSIFY,
    teacher: Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Train for one phase; every random choice comes from ``generator``.

    The loss is cross entropy, with ``phase.distill`` mixed with ``temperature^2 * KL(teacher || network)``; for
    ``RECONSTRUCT`` the mean squared error to the (changed) sample. ``teacher`` holds the logits of every sample of
    ``data`` as it is. The samples go where the parameters of ``optimizer`` are. ``on_step(step, steps_per_epoch)`` is
    called after each optimizer step (from 1),
    ``on_epoch(epoch, mean loss)`` after each epoch (from 1).

    In a process group each rank takes its part of every batch, and gradients, losses and the statistics of batch norm
    are averaged, so that every rank does the same step; give all the same ``generator``.

    Raises
    ------
    Diverged
        At the step whose loss is not finite, before the weights take it.
    PruningError
        If the phase does not fit the data, or lacks its teacher.
    """
    if phase.distill and (task is not Task.CLASSIFY or teacher is None or len(teacher) != len(data)):
        raise PruningError("distill needs a classifier and the dense network's logits of every training sample")
    keep_freed_memory()
    device = next(parameter.device for group in optimizer.param_groups for parameter in group["params"])
    x, y = source.normalize(data.x).to(device), data.y.to(device)
    fill = source.background(data.x).to(device)
    teacher = None if teacher is None else teacher.to(device)
    per_epoch = max(1, len(y) // batch)
    total = per_epoch * phase.epochs
    for epoch in range(phase.epochs):
        order = torch.randperm(len(y), generator=generator).to(device)
        losses = torch.zeros((), device=device)
        for i in range(per_epoch):
            chosen = order[i * batch : (i + 1) * batch]
            # All ranks change the whole batch, so that their random numbers stay together.
            samples = share(_augmented(x[chosen], phase, fill, generator))
            chosen = share(chosen)
            for group in optimizer.param_groups:
                group["lr"] = phase.rate(epoch * per_epoch + i, total)
            optimizer.zero_grad(set_to_none=True)
            followed = teacher[chosen] if phase.distill and teacher is not None else None
            with torch.autocast(samples.device.type, torch.bfloat16, enabled=phase.precision is Precision.BFLOAT16):
                out = forward(_dense(samples))
            loss = _loss(task, phase, samples, out.float(), y[chosen], followed)
            loss.backward()  # type: ignore[no-untyped-call]
            mean = loss.detach()
            average_([mean, *_of_each_rank(forward, optimizer)])
            if not torch.isfinite(mean):
                raise Diverged(f"The loss became {float(mean)} in epoch {epoch + 1}, step {i + 1} of {per_epoch}")
            optimizer.step()
            losses += mean
            if on_step:
                on_step(i + 1, per_epoch)
        if on_epoch:
            on_epoch(epoch + 1, float(losses) / per_epoch)


def _of_each_rank(forward: Forward, optimizer: Optimizer) -> list[Tensor]:
    """Return what each rank computes from its own samples: gradients, and the statistics of batch norm."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    buffers = forward.buffers() if isinstance(forward, nn.Module) else ()
    return gradients + [buffer for buffer in buffers if buffer.is_floating_point()]


def outputs(forward: Forward, data: ImageSet, source: Input, device: torch.device | None = None) -> Tensor:
    """Return the float output for every sample, in order, of a network that is on ``device``."""
    with torch.no_grad():
        parts = (data.take(start, start + _EVALUATED).x for start in range(0, len(data), _EVALUATED))
        return torch.cat([forward(_dense(source.normalize(x).to(device))) for x in parts]).cpu()


def accuracy(forward: Forward, data: ImageSet, source: Input, device: torch.device | None = None) -> float:
    """Return the share of ``data`` that a network on ``device`` classifies correctly."""
    if not len(data):
        return 0.0
    return int((outputs(forward, data, source, device).argmax(1) == data.y).sum()) / len(data)
