"""What an ADMM phase must reach: small residuals, and little accuracy left for retraining to regain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroskip.pruning.admm import Residual

__all__ = [
    "LARGEST_GAP",
    "LARGEST_RESIDUAL",
    "REMEDY",
    "Goal",
    "accuracy_goal",
    "residual_goals",
    "verdict",
    "verdicts",
]

LARGEST_RESIDUAL = 0.05
"""Of ``||W - Z|| / ||W||`` in every layer at the end of the phase."""
LARGEST_GAP = 1.0
"""Of the points between the retrained network's validation score and that of Proj(W) before retraining."""

REMEDY = (
    "a larger last rho, a higher learning rate, more updates or more epochs of ADMM bring the weights closer to their "
    "sets"
)

_SHOWN = 3
"""So many missed goals are named, the furthest from their limits first."""


@dataclass(frozen=True)
class Goal:
    """One goal of a stage: what was found against the largest allowed value.

    Parameters
    ----------
    name : ``residual of LAYER`` or ``gap to the retrained network``
    found, limit : numbers; the gap is in points
    """

    name: str
    found: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.found <= self.limit

    def __str__(self) -> str:
        return f"{self.name} {self.found:.3g} (at most {self.limit:g})"


def residual_goals(residuals: Sequence[Residual]) -> list[Goal]:
    """Return the goal of every layer at its last update."""
    last = {residual.layer: residual for residual in residuals}
    return [Goal(f"residual of {name}", residual.relative, LARGEST_RESIDUAL) for name, residual in last.items()]


def accuracy_goal(mapped: float, retrained: float) -> Goal:
    """Return the goal for the scores (0 to 1) of Proj(W) and of the retrained network."""
    return Goal("gap to the retrained network", 100 * (retrained - mapped), LARGEST_GAP)


def verdict(goals: Sequence[Goal]) -> str:
    """Return which goals were missed, and what to change, as one line."""
    missed = sorted((goal for goal in goals if not goal.met), key=lambda goal: goal.found / goal.limit, reverse=True)
    if not missed:
        return "goals met"
    more = f" and {len(missed) - _SHOWN} more" if len(missed) > _SHOWN else ""
    return f"goals missed: {', '.join(map(str, missed[:_SHOWN]))}{more}; {REMEDY}"


def verdicts(log: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the verdict of every ADMM stage in the log of a run."""
    stages: dict[str, list[Goal]] = {}
    for line in log:
        if line["phase"] == "goal":
            stages.setdefault(line["stage"], []).append(Goal(line["name"], line["found"], line["limit"]))
    return {stage: verdict(goals) for stage, goals in stages.items()}
