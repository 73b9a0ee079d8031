"""Goals of an ADMM phase: met and missed by name."""

from __future__ import annotations

from zeroskip.pruning.admm import Residual
from zeroskip.pruning.goals import accuracy_goal, residual_goals, verdict, verdicts


def residual(update, layer, relative):
    return Residual(update, layer, 0.1, relative * 3, relative, 0.0)


def test_the_last_residual_of_every_layer_counts():
    lines = [residual(1, "a", 0.9), residual(1, "b", 0.01), residual(2, "a", 0.05), residual(2, "b", 0.06)]
    goals = residual_goals(lines)
    assert [(goal.name, goal.met) for goal in goals] == [("residual of a", True), ("residual of b", False)]
    assert str(goals[1]) == "residual of b 0.06 (at most 0.05)"


def test_the_gap_is_in_points():
    assert accuracy_goal(0.981, 0.99).met
    goal = accuracy_goal(0.9617, 0.9877)
    assert str(goal) == "gap to the retrained network 2.6 (at most 1)"
    assert accuracy_goal(0.99, 0.98).met


def test_the_verdict_names_the_furthest_and_a_remedy():
    goals = residual_goals(
        [residual(1, name, found) for name, found in zip("abcd", (0.2, 0.04, 0.9, 0.06), strict=True)]
    )
    assert verdict(goals[1:2]) == "goals met"
    assert verdict([*goals, accuracy_goal(0.28, 0.91)]) == (
        "goals missed: gap to the retrained network 63 (at most 1), residual of c 0.9 (at most 0.05), "
        "residual of a 0.2 (at most 0.05) and 1 more; a larger last rho, a higher learning rate, more updates or more "
        "epochs of ADMM bring the weights closer to their sets"
    )


def test_a_log_has_a_verdict_for_every_stage_of_admm():
    goals = [
        {
            "phase": "goal",
            "stage": stage,
            "name": f"residual of {name}",
            "found": found,
            "limit": 0.05,
            "met": found < 0.05,
        }
        for stage, name, found in (("a", "x", 0.01), ("a", "y", 0.02), ("b", "x", 0.3), ("b", "y", 0.02))
    ]
    found = verdicts([{"phase": "dense", "stage": "dense"}, *goals, {"phase": "integer", "stage": "test"}])
    assert found["a"] == "goals met"
    assert found["b"].startswith("goals missed: residual of x 0.3 (at most 0.05); ")
    assert verdicts([]) == {}
