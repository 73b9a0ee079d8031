"""The demo's three artifacts: the digits network dense, column-pruned and non-structured at 4-bit weights."""

from __future__ import annotations

import time
from pathlib import Path

from zeroskip.pruning.chain import Built, build_artifact
from zeroskip.pruning.data import load_digits
from zeroskip.pruning.recipe_files import load_recipe
from zeroskip.pruning.retrain import Progress

__all__ = ["DIGITS_RECIPES", "ERROR_TOLERANCE", "equal_accuracy", "errors", "train_digits"]

DIGITS_RECIPES = ("digits-dense-w4a8", "digits-column-w4a8", "digits-nonstructured-w4a8")

# Errors of 500 test images that a pruned network may have more than the dense one and still count as equal; the
# standard deviation of the count itself is about 3 at 98 %.
ERROR_TOLERANCE = 3


def train_digits(out_dir: Path, progress: Progress | None = None) -> list[Built]:
    """Train the three digits networks into ``out_dir`` and return them: dense, column, non-structured.

    Finished artifacts and stages (kept in ``out_dir/checkpoints``) are reused. ``progress`` is called as
    ``progress(step, elapsed seconds, expected seconds or None)`` over all three.
    """
    recipes = [load_recipe(name) for name in DIGITS_RECIPES]
    # The dense phase is trained once and shared through its checkpoint.
    work = [recipe.epochs() - (recipe.dense.epochs if i else 0) for i, recipe in enumerate(recipes)]
    started = time.monotonic()
    split = load_digits()
    built: list[Built] = []
    for i, recipe in enumerate(recipes):
        begun, offset = time.monotonic(), time.monotonic() - started

        def report(step: str, elapsed: float, expected: float | None, i: int = i, offset: float = offset) -> None:
            if progress is None:
                return
            later = None if expected is None else offset + expected * (1 + sum(work[i + 1 :]) / work[i])
            progress(f"{DIGITS_RECIPES[i]}: {step}", offset + elapsed, later)

        built.append(build_artifact(recipe, out_dir, checkpoints=out_dir / "checkpoints", progress=report, split=split))
        done = "reused" if built[-1].reused else "trained"
        report(f"{done} in {time.monotonic() - begun:.1f} s", time.monotonic() - begun, None)
    return built


def errors(built: Built) -> int:
    """Return how many test images the integer network gets wrong."""
    return int(built.header["accuracy"]["samples"] - built.header["samples_correct"]["integer"])


def equal_accuracy(built: list[Built]) -> bool:
    """Return whether every network has at most the first one's errors plus ``ERROR_TOLERANCE``."""
    return all(errors(other) <= errors(built[0]) + ERROR_TOLERANCE for other in built[1:])
