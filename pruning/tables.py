"""The accuracy tables in Markdown: targets, seeds, margins over controls, intervals, rates at equal accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from zeroskip.pruning.constraints import MicroBlock
from zeroskip.pruning.figures import STORED
from zeroskip.pruning.rates import Point, rate_at
from zeroskip.pruning.recipe import Recipe
from zeroskip.pruning.roc import AucComparison
from zeroskip.pruning.rows import CONTROLS, Row
from zeroskip.pruning.structures import any_structured, last_pruning, structures
from zeroskip.pruning.summary import Results, Runs, Summary, by_network, measure, paired
from zeroskip.pruning.targets import Target, read_targets

__all__ = ["tables"]

_NOT_RUN = "not run"
_FEW_SAMPLES = 5000
"""Below so many test samples a difference is told in errors of n with its interval."""
_FLOAT_BITS = 32
"""Bits of a weight before compression, as the papers count CR."""
_NAMES = {"oneshot": "(a) one-shot", "gradual": "(b) gradual", "scratch": "(c) scratch"}


def tables(rows: Iterable[Row], results: Results) -> str:
    """Return a section with the tables of each network and data set, in the order of the rows.

    The first table has a line a recipe: the target and whether it is met, the median of the seeds and each seed, the
    margin of the median over each control's, and the medians of the figures; the second, for sets of fewer than 5,000
    test samples, errors and the paired 95 % interval of their difference; the third the rate of a non-structured
    network at the accuracy of each structured one; the last what micro-blocks store and compute. What has not run says
    so.
    """
    targets = read_targets()
    parts = []
    for (network, dataset), found in by_network(rows, results).items():
        parts += [f"### {network}, {dataset} ({measure(found)} of the integer network)", _results(found, targets)]
        parts += [text for text in (_intervals(found), _ratios(found), _micro_blocks(found)) if text]
    return "\n\n".join(parts)


def _table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = ["| " + " | ".join(titles) + " |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    return "\n".join([*head, *("| " + " | ".join(cells) + " |" for cells in lines)])


def _results(found: Mapping[str, Runs], targets: Mapping[str, Target]) -> str:
    seeds = list(dict.fromkeys(seed for runs in found.values() for seed in runs.own.scores))
    titles = [
        "recipe", "target", "median", *(f"seed {seed}" for seed in seeds), *(f"over {_NAMES[c]}" for c in CONTROLS),
        "rate", "weights", "MACs", "bits of weights", "bits with index", "CR", "CR with index", "8+4 bit", "goals",
    ]  # fmt: skip
    lines = []
    for base, runs in found.items():
        own = runs.own
        median = own.median
        target = _target(targets.get(base), runs, _dense(found, runs.recipe))
        scores = [_number(own.scores.get(seed), ".2f") for seed in seeds]
        if median is None:
            lines.append([base, target, *([_NOT_RUN] * (1 + len(seeds))), *([""] * (len(titles) - 3 - len(seeds)))])
            continue
        lines.append([
            base, target, f"{median:.2f}", *scores, *(_margin(runs, control) for control in CONTROLS), *_figures(own)
        ])  # fmt: skip
    return _table(titles, lines)


def _number(value: float | None, form: str, missing: str = _NOT_RUN) -> str:
    return missing if value is None else format(value, form)


def _figures(own: Summary) -> list[str]:
    """Return the cells of a row that the compiler counts."""
    kept, macs, weights, storage, regular = (
        own.figures[key] for key in ("kept", "macs_nonzero", "bits_weights", "bits_storage", "regular_share")
    )
    dense = own.figures["weights"]
    ratios = [_FLOAT_BITS * dense / bits if dense and bits else None for bits in (weights, storage)]
    met, goals = own.goals
    return [
        "-" if own.rate is None else f"{own.rate:.1f}x",
        *(_number(value, ",.0f", "-") for value in (kept, macs, weights, storage)),
        *("-" if ratio is None else f"{ratio:,.1f}x" for ratio in ratios),
        "-" if regular is None else f"{100 * regular:.1f} %",
        f"{met} of {goals}" if goals else "-",
    ]


def _target(target: Target | None, runs: Runs, dense: Runs | None) -> str:
    """Return a target's parts, each with what became of it."""
    if target is None:
        return "-"
    own = runs.own.median
    if own is None:
        return ", ".join(target.checks(0.0, None, None, {}))
    said = {True: "met", False: "missed", None: "open"}
    checks = target.checks(own, dense.own.median if dense else None, runs.margin("scratch"), runs.own.figures)
    return ", ".join(f"{words}: {said[reached]}" for words, reached in checks.items())


def _dense(found: Mapping[str, Runs], recipe: Recipe) -> Runs | None:
    """Return the unpruned network that a recipe is compared with: of as many weight bits, else the first one."""
    others = [runs for runs in found.values() if not runs.recipe.stages]
    bits = recipe.quantization.weights
    return next((runs for runs in others if runs.recipe.quantization.weights == bits), others[0] if others else None)


def _margin(runs: Runs, control: str) -> str:
    """Return the margin over a control in points; only where both have run."""
    return _number(runs.margin(control), "+.2f") if control in runs.kinds else "-"


def _intervals(found: Mapping[str, Runs]) -> str:
    """Return the table of errors, or AUC, and paired intervals; none where no set is small or nothing is known."""
    lines = []
    for base, runs in found.items():
        own = runs.own
        if not (own.errors or own.rankings) or own.samples >= _FEW_SAMPLES:
            continue
        dense = _dense(found, runs.recipe)
        others = [dense.own if dense and dense is not runs else None, *(runs.kinds.get(c) for c in CONTROLS)]
        if own.rankings:
            by_seed = ", ".join(_number(score, ".2f") for _, score in sorted(own.scores.items()))
        else:
            by_seed = ", ".join(str(int(errors.sum())) for _, errors in sorted(own.errors.items()))
            by_seed += f" of {own.samples}"
        lines.append([base, by_seed, *(_interval(other, own) for other in others)])
    if not lines:
        return ""
    what = "errors" if any(runs.own.errors for runs in found.values()) else "AUC x 100"
    titles = [f"{what} more than (95 % interval)", f"{what} by seed", "dense", *(_NAMES[c] for c in CONTROLS)]
    return _table(titles, lines)


def _interval(base: Summary | None, own: Summary) -> str:
    if base is None:
        return "-"
    found = paired(base, own)
    if found is None:
        return _NOT_RUN
    if isinstance(found, AucComparison):
        values = [f"{100 * value:+.2f}" for value in (found.difference, found.low, found.high)]
    else:
        values = [f"{value:+.1f}" for value in (found.difference, found.low, found.high)]
    return f"{values[0]} ({values[1]} to {values[2]})"


def _ratios(found: Mapping[str, Runs]) -> str:
    """Return the table of rates at equal accuracy, among networks of one way of pruning and the same bits."""
    lines = []
    for base, runs in found.items():
        own = runs.own
        if not any_structured(runs.recipe) or own.median is None or own.rate is None:
            continue
        dense = _dense(found, runs.recipe)
        alike = [
            other.own
            for other in found.values()
            if _same_way(other.recipe, runs.recipe) and not any_structured(other.recipe)
        ]
        points = [Point(s.rate, s.median) for s in alike if s.rate is not None and s.median is not None]
        if not points:
            continue
        if dense is not None and dense.own.median is not None:
            points.append(Point(1.0, dense.own.median))
        reached = rate_at(points, own.median)
        if reached is None:
            cells = ["less accurate at every rate", "-"]
        else:
            sign = ">= " if reached.at_least else ""
            cells = [f"{sign}{reached.rate:.1f}x", f"{sign}{reached.rate / own.rate:.2f}"]
        lines.append([base, structures(runs.recipe), f"{own.median:.2f}", f"{own.rate:.1f}x", *cells])
    if not lines:
        return ""
    titles = ["rates at equal accuracy", "structure", "accuracy", "its rate", "non-structured", "ratio"]
    return _table(titles, lines)


def _same_way(one: Recipe, other: Recipe) -> bool:
    """Return whether two recipes prune by the same method, for the same bits."""
    stages = last_pruning(one), last_pruning(other)
    same = one.quantization.weights == other.quantization.weights
    same = same and one.quantization.power_of_two == other.quantization.power_of_two
    return same and stages[0] is not None and stages[1] is not None and stages[0].method is stages[1].method


def _micro_blocks(found: Mapping[str, Runs]) -> str:
    """Return the table of what networks of micro-blocks store and compute.

    With blocks of one magnitude along a row every weight that is not zero is a signed addition, and a block one
    product; smaller blocks at the edges make a few more.
    """
    lines = []
    for base, runs in found.items():
        own, columns = runs.own, _block_columns(runs.recipe)
        macs = own.figures["macs_nonzero"]
        if not columns or not own.storage or macs is None:
            continue
        value, sign = own.storage["value"], own.storage.get("sign", 0)
        together = sum(own.storage.get(part, 0) for part in STORED)
        counts = (value, sign, together - value - sign, together, macs if sign else 0, macs / columns if sign else macs)
        lines.append([base, f"{own.median:.2f}", *(f"{count:,.0f}" for count in counts)])
    if not lines:
        return ""
    titles = ["micro-blocks", "accuracy", "bits of values or magnitudes", "bits of signs", "bits of indices",
              "bits together", "signed additions", "products (at least)"]  # fmt: skip
    return _table(titles, lines)


def _block_columns(recipe: Recipe) -> int:
    """Return the weights of a row that a micro-block of the last stage spans; 0 where there are none."""
    sets = [rule.constraint() for rule in recipe.stages[-1].layers.values()] if recipe.stages else []
    return max((blocks.columns for blocks in sets if isinstance(blocks, MicroBlock)), default=0)
