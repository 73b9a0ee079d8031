"""Measure the projections of ADMM's constraint sets: milliseconds for one weight, against a plain partition.

    python bench/projections.py [--weights 1000000] [--rounds 15] [KIND ...]

Prints a Markdown table: the set, CPU milliseconds of one projection (the least of the rounds, one thread), and the
ratio to ``np.partition`` of the same weights' magnitudes in the same run, which is what any exact top-k has to pay. CPU
time and not wall time, so that other programs on the machine do not count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from zeroskip.pruning import (
    NM,
    BankBalanced,
    Block,
    Channel,
    Codebook,
    Column,
    ConstraintSet,
    Filter,
    FilterColumn,
    Joint,
    Kernel,
    Levels,
    MicroBlock,
    NonStructured,
    Pattern,
    Vector,
)

KEEP = 0.1
SETS: dict[str, tuple[ConstraintSet, ...]] = {
    "nonstructured": (NonStructured(KEEP),),
    "filter": (Filter(KEEP),),
    "channel": (Channel(KEEP),),
    "column": (Column(KEEP), Column(KEEP, 4)),
    "filter_column": (FilterColumn(0.3, 0.3),),
    "kernel": (Kernel(KEEP),),
    "vector": (Vector(KEEP), Vector(KEEP, "output")),
    "block": (Block(KEEP), Block(KEEP, 1, 8)),
    "nm": (NM(2, 4), NM(1, 16)),
    "bank_balanced": (BankBalanced(16, KEEP),),
    "pattern": (Pattern(KEEP),),
    "micro_block": (MicroBlock(), MicroBlock(KEEP, 4, 4, "both"), MicroBlock(0.5, 1, 4, "both", 0.5)),
    "codebook": (Codebook(16),),
    "levels": (Levels(4, 0.5), Levels(4, grid="symmetric")),
    "joint": (Joint(NonStructured(KEEP), Levels(4, 0.5)), Joint(Block(KEEP), Levels(4, 0.5))),
}


def main() -> None:
    """Measure the sets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(SETS))
    parser.add_argument("--weights", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if unknown := [kind for kind in options.kinds if kind not in SETS]:
        parser.error(f"Kinds must be among {', '.join(SETS)}, not {', '.join(unknown)}")
    torch.set_num_threads(1)
    weight = drawn(options.weights)
    magnitudes = weight.abs().reshape(-1).numpy()
    cut = int(magnitudes.size * (1 - KEEP))
    unit = least(lambda: np.partition(magnitudes, cut), options.rounds)
    print(f"{weight.numel()} weights of shape {tuple(weight.shape)}, float32; np.partition takes {unit:.1f} ms\n")
    print("| set | ms | ratio to np.partition |\n|---|---:|---:|")
    for kind in options.kinds or SETS:
        for constraint in SETS[kind]:
            fitted = constraint.fit(weight)
            spent = least(lambda fitted=fitted: fitted.project(weight), options.rounds)  # type: ignore[misc]
            print(f"| `{constraint}` | {spent:.1f} | {spent / unit:.2f} |", flush=True)


def drawn(weights: int) -> torch.Tensor:
    """Return about that many normal weights of a square 3 x 3 convolution with a multiple of 16 channels."""
    channels = max(16, round((weights / 9) ** 0.5 / 16) * 16)
    return torch.randn(channels, channels, 3, 3, generator=torch.Generator().manual_seed(0))


def least(work: Callable[[], object], rounds: int) -> float:
    """Return the least CPU milliseconds of ``work``."""
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return 1e3 * min(spent)


if __name__ == "__main__":
    main()
