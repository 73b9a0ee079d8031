"""The finished runs of a recipe or of one of its controls, brought together over seeds and folds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.pruning.comparison import Comparison, compare
from zeroskip.pruning.recipe import Recipe
from zeroskip.pruning.roc import AucComparison, Ranking, compare_auc
from zeroskip.pruning.rows import Row
from zeroskip.pruning.training import Task

__all__ = ["FIGURES", "Results", "Runs", "Summary", "by_network", "measure", "paired", "summarize"]

FIGURES = ("weights", "kept", "macs_nonzero", "bits_weights", "bits_total", "bits_storage", "regular_share")
"""The figures of a result that are summed up by their median."""

Results = Callable[[Row], dict[str, Any] | None]
"""What returns the result of a row, None where it has not run."""


@dataclass(frozen=True)
class Summary:
    """What the runs of one recipe or control have reached.

    Parameters
    ----------
    scores : percent of the integer network by seed, None where a fold is not finished. Folds are taken together
    samples : test samples a seed, of all folds; 0 while nothing is finished
    errors : which samples are wrong, by seed, where all folds of the seed say it
    rankings : how an autoencoder orders the samples of each fold, by seed, where all folds of the seed say it
    figures : medians over the finished runs by name, None where no run has it
    storage : medians of the parts of the stored bits (value, sign, index ...), empty where no run has them
    goals : how many goals of the ADMM phases were met, and how many there are
    """

    scores: Mapping[int, float | None]
    samples: int
    errors: Mapping[int, NDArray[np.bool_]]
    rankings: Mapping[int, Sequence[Ranking]]
    figures: Mapping[str, float | None]
    storage: Mapping[str, float]
    goals: tuple[int, int]

    @property
    def median(self) -> float | None:
        """The median of the finished seeds' scores."""
        finished = [score for score in self.scores.values() if score is not None]
        return statistics.median(finished) if finished else None

    @property
    def rate(self) -> float | None:
        """Weights of the dense network over those that are kept."""
        weights, kept = self.figures["weights"], self.figures["kept"]
        return weights / kept if weights and kept else None


@dataclass(frozen=True)
class Runs:
    """A recipe with the summaries of its own runs (None) and of each control's."""

    recipe: Recipe
    kinds: Mapping[str | None, Summary]

    @property
    def own(self) -> Summary:
        """The recipe's own runs."""
        return self.kinds[None]

    def margin(self, control: str) -> float | None:
        """Return the median less that of ``control`` in points, both over the seeds that both have finished."""
        own, other = self.own.scores, self.kinds[control].scores if control in self.kinds else {}
        mine: list[float] = []
        others: list[float] = []
        for seed, score in own.items():
            controlled = other.get(seed)
            if score is not None and controlled is not None:
                mine.append(score)
                others.append(controlled)
        return statistics.median(mine) - statistics.median(others) if mine else None


def summarize(rows: Iterable[Row], results: Results) -> dict[str, Runs]:
    """Return the runs of every recipe, in the order of the rows; what is not finished counts as not run."""
    recipes: dict[str, Recipe] = {}
    found: dict[str, dict[str | None, dict[int, list[dict[str, Any] | None]]]] = {}
    for row in rows:
        if row.control is None:
            recipes.setdefault(row.base, row.recipe)
        seeds = found.setdefault(row.base, {}).setdefault(row.control, {})
        seeds.setdefault(row.recipe.seed, []).append(results(row))
    return {
        base: Runs(recipes[base], {control: _summary(seeds) for control, seeds in kinds.items()})
        for base, kinds in found.items()
    }


def by_network(rows: Iterable[Row], results: Results) -> dict[tuple[str, str], dict[str, Runs]]:
    """Return the runs of every recipe by network and data set, in the order of the rows."""
    found: dict[tuple[str, str], dict[str, Runs]] = {}
    for base, runs in summarize(rows, results).items():
        found.setdefault((runs.recipe.network, runs.recipe.dataset), {})[base] = runs
    return found


def measure(found: Mapping[str, Runs]) -> str:
    """Return what the scores of one network and data set are."""
    task = next(iter(found.values())).recipe.task
    return "AUC x 100" if task is Task.RECONSTRUCT else "accuracy in %"


def _summary(seeds: Mapping[int, list[dict[str, Any] | None]]) -> Summary:
    """Sum up the results of a recipe or control by seed, of one fold each."""
    whole: dict[int, list[dict[str, Any]]] = {}
    for seed, folds in seeds.items():
        finished = [fold for fold in folds if fold is not None]
        if len(finished) == len(folds):
            whole[seed] = finished
    results = [result for folds in whole.values() for result in folds]
    goals = [goal["met"] for result in results for goal in result["goals"]]
    return Summary(
        scores={seed: _score(whole[seed]) if seed in whole else None for seed in seeds},
        samples=max((_samples(folds) for folds in whole.values()), default=0),
        errors={seed: _errors(folds) for seed, folds in whole.items() if all("wrong" in fold for fold in folds)},
        rankings={
            seed: [_ranking(fold) for fold in folds]
            for seed, folds in whole.items()
            if all("squared_errors" in fold for fold in folds)
        },
        figures={key: _median(results, key) for key in FIGURES},
        storage=_parts([result["storage"] for result in results if result.get("storage")]),
        goals=(sum(goals), len(goals)),
    )


def _samples(folds: list[dict[str, Any]]) -> int:
    return sum(int(fold["accuracy"]["samples"]) for fold in folds)


def _score(folds: list[dict[str, Any]]) -> float:
    """Return the score over the samples of all folds, in percent; an AUC is the mean of its folds'."""
    weighted = [fold["accuracy"]["integer"] * fold["accuracy"]["samples"] for fold in folds]
    return float(100 * sum(weighted) / _samples(folds))


def _errors(folds: list[dict[str, Any]]) -> NDArray[np.bool_]:
    """Return which test samples are wrong, fold after fold."""
    parts = []
    for fold in folds:
        part = np.zeros(fold["accuracy"]["samples"], bool)
        part[fold["wrong"]] = True
        parts.append(part)
    return np.concatenate(parts)


def _ranking(fold: Mapping[str, Any]) -> Ranking:
    errors = np.asarray(fold["squared_errors"], np.int64)
    anomalous = np.zeros(len(errors), bool)
    anomalous[fold["anomalous"]] = True
    return Ranking(errors, anomalous)


def _parts(ledgers: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each part; one that a ledger does not name is 0 there."""
    names = dict.fromkeys(name for ledger in ledgers for name in ledger)
    return {name: statistics.median(ledger.get(name, 0) for ledger in ledgers) for name in names}


def _median(results: list[dict[str, Any]], key: str) -> float | None:
    values = [result[key] for result in results if result.get(key) is not None]
    return statistics.median(values) if values else None


def paired(base: Summary, other: Summary) -> Comparison | AucComparison | None:
    """Compare the errors, or the AUC, of two summaries over the seeds that both have; None where there are none."""
    if ranked := sorted(base.rankings.keys() & other.rankings.keys()):
        return compare_auc(*([summary.rankings[seed] for seed in ranked] for summary in (base, other)))
    seeds = sorted(base.errors.keys() & other.errors.keys())
    if not seeds:
        return None
    return compare(*(np.stack([summary.errors[seed] for seed in seeds]) for summary in (base, other)))
