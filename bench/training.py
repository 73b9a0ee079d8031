"""Measure training on the CPU: what ADMM adds to a step, and an epoch of LeNet-5.

    python bench/training.py [--threads 2] [--batch 256] [--images 60000] [--rounds 3] [--precision float32] [ROW ...]

Rows `plain`, `admm` and `retrain`: a block of optimizer steps (Adam, the loop that recipes run) without ADMM, with the
penalty and one update (projection, dual step, residuals) a block, and with the masks of retraining; all on the same
random images in turn, and the least of the rounds counts. The ratio is to `plain`. Row `epoch`: all images once, with
the same steps; the ratio is to its products and sums done by one large float32 matrix product in the same run, the most
that the machine could do in that precision. Times are CPU seconds of all threads and, for the epoch, wall seconds; only
wall seconds suffer from other programs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from zeroskip.pruning import Admm, Input, NonStructured
from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.networks import make_network
from zeroskip.pruning.training import Phase, Precision, make_optimizer, train

ROWS = ("plain", "admm", "retrain", "epoch")
UPDATES_PER_EPOCH = 4
"""As in the zoo's recipes: one update in a quarter of an epoch."""

SOURCE = Input(255, 0.1307, 0.3081)
MACS = {"forward": 2_293_000, "backward": 2 * 2_293_000 - 288_000}
"""Multiply-accumulates of LeNet-5 for one image; the first layer needs no gradient of its input."""


def main() -> None:
    """Measure the rows and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=[p.value for p in Precision], default=Precision.FLOAT32.value)
    options = parser.parse_args()
    if unknown := [row for row in options.rows if row not in ROWS]:
        parser.error(f"Rows must be among {', '.join(ROWS)}, not {', '.join(unknown)}")
    rows = options.rows or ROWS
    torch.set_num_threads(options.threads)
    data = drawn(options.images)
    steps = options.images // options.batch
    phase = Phase(1, (1e-3, 1e-3), shift=2, precision=Precision(options.precision))
    print(
        f"LeNet-5, batch {options.batch}, {options.threads} threads, {options.precision}, torch {torch.__version__}\n"
    )
    kinds = [row for row in ROWS if row != "epoch" and row in rows]
    if kinds:
        block = max(1, steps // UPDATES_PER_EPOCH)
        spent = measured(kinds, data.take(0, block * options.batch), phase, options.batch, options.rounds)
        print(f"| {block} steps | CPU ms a step | ratio to plain |\n|---|---:|---:|")
        for kind in kinds:
            ratio = f"{spent[kind] / spent['plain']:.3f}" if "plain" in spent else ""
            print(f"| {kind} | {1e3 * spent[kind] / block:.2f} | {ratio} |", flush=True)
    if "epoch" in rows:
        cpu, wall = epoch(data, phase, options.batch, options.rounds)
        ideal = steps * options.batch * sum(MACS.values()) / product_speed(options.rounds)
        print(f"\n| epoch of {options.images:,} | CPU s | wall s | CPU s of its products alone | ratio |")
        print(f"|---|---:|---:|---:|---:|\n| | {cpu:.1f} | {wall:.1f} | {ideal:.1f} | {cpu / ideal:.2f} |")


def drawn(images: int) -> ImageSet:
    """Return random images of MNIST's shape."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (images, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return ImageSet(codes, torch.randint(0, 10, (images,), generator=generator))


def trainer(kind: str, data: ImageSet, phase: Phase, batch: int) -> Callable[[], None]:
    """Return what trains a network of its own on the images once, as ``kind`` says."""
    torch.manual_seed(0)
    model = make_network("lenet5").to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = make_optimizer(model.parameters(), 1e-3)
    admm = Admm(model, {"*": NonStructured(0.02)}) if kind in ("admm", "retrain") else None
    if admm is not None:
        admm.attach(optimizer)
        if kind == "retrain":
            admm.harden()
    generator = torch.Generator().manual_seed(0)

    def work() -> None:
        train(model, data, SOURCE, phase, optimizer, batch=batch, generator=generator)
        if admm is not None and kind == "admm":
            admm.update()

    return work


def measured(kinds: list[str], data: ImageSet, phase: Phase, batch: int, rounds: int) -> dict[str, float]:
    """Return the least CPU seconds of one block of every kind, measured in turn."""
    trainers = {kind: trainer(kind, data, phase, batch) for kind in kinds}
    spent = dict.fromkeys(kinds, float("inf"))
    for warm in (False, *[True] * rounds):
        for kind, work in trainers.items():
            start = time.process_time()
            work()
            if warm:
                spent[kind] = min(spent[kind], time.process_time() - start)
    return spent


def epoch(data: ImageSet, phase: Phase, batch: int, rounds: int) -> tuple[float, float]:
    """Return the least CPU and wall seconds of an epoch."""
    work = trainer("plain", data, phase, batch)
    times = []
    for _ in range(rounds):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(cpu for cpu, _ in times), min(wall for _, wall in times)


def product_speed(rounds: int, size: int = 1536) -> float:
    """Return the multiply-accumulates of a matrix product in a CPU second."""
    a, b = torch.randn(2, size, size)
    least = float("inf")
    for _ in range(rounds + 1):
        start = time.process_time()
        a @ b
        least = min(least, time.process_time() - start)
    return size**3 / least


if __name__ == "__main__":
    main()
