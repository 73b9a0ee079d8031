"""Rows of the tables: order, names, results that are of this very recipe, and the Markdown table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from zeroskip.pruning import PruningError
from zeroskip.pruning.chain import Built
from zeroskip.pruning.recipe_files import builtin_recipes
from zeroskip.pruning.rows import find_rows, queued_names, read_result, write_result

RECIPE = "digits-nonstructured-w4a8"


def finish(row, folder, share, **figures):
    """Write the result of a run that reached ``share``."""
    path = folder / f"{row.name}.safetensors"
    lines = [
        {"stage": "a", "phase": "retrain", "validation": 0.5},
        {"stage": "a", "phase": "retrain", "validation": 0.75},
        {"stage": "a", "phase": "goal", "name": "gap", "found": 2.0, "limit": 1.0, "met": False},
        {"stage": "test", "phase": "integer", "score": share, "samples": 360, "wrong": [3, 7]},
    ]
    path.with_name(f"{row.name}.log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    header = {
        "accuracy": {"integer": share, "float": share, "samples": 360},
        "provenance": {"split": "1 train, 360 test (read once)"},
    }
    counted = {"weights": 1000, "kept": 100, "macs_nonzero": 5000, "bits_value": 400, "bits_total": 900} | figures
    return write_result(row, folder, Built(path, header, False), counted, 1.5)


def test_every_recipe_of_the_queue_exists():
    names = queued_names()
    assert len(names) == len(set(names)) and set(names) <= set(builtin_recipes())


def test_the_queue_refuses_what_it_does_not_know(tmp_path):
    path = tmp_path / "queue.toml"
    path.write_text('order = ["digits-dense"]')
    with pytest.raises(PruningError, match="'queue.toml' names the recipe 'digits-dense', but the nearest are: .*w4a8"):
        queued_names(path)
    path.write_text(f'order = ["{RECIPE}", "{RECIPE}"]')
    with pytest.raises(PruningError, match="more than once"):
        queued_names(path)


def test_rows_follow_the_queue_with_seeds_and_controls():
    queue = queued_names()
    assert list(dict.fromkeys(row.base for row in find_rows([], None, False))) == queue
    both = find_rows([queue[2], RECIPE, queue[1]], [0, 1], False)
    assert [row.base for row in both] == [queue[1], queue[1], queue[2], queue[2], RECIPE, RECIPE]
    rows = find_rows([RECIPE], [0, 2], True)
    assert [row.name for row in rows] == [
        RECIPE, f"{RECIPE}-oneshot", f"{RECIPE}-gradual",
        f"{RECIPE}-seed2", f"{RECIPE}-oneshot-seed2", f"{RECIPE}-gradual-seed2",
    ]  # fmt: skip
    assert [row.recipe.seed for row in rows] == [0] * 3 + [2] * 3
    assert len({row.recipe.digest() for row in rows}) == 6
    with pytest.raises(PruningError, match="Recipe 'nothing' does not exist"):
        find_rows(["nothing"], None, False)


def test_a_result_counts_only_for_its_own_recipe(tmp_path):
    (row,) = find_rows([RECIPE], None, False)
    assert read_result(row, tmp_path) is None
    written = finish(row, tmp_path, 0.95)
    assert read_result(row, tmp_path) == written
    assert written["validation"] == {"a retrain": 0.75} and written["goals"][0]["met"] is False
    assert written["wrong"] == [3, 7] and written["fold"] is None
    changed = replace(row, recipe=replace(row.recipe, batch=32))
    assert read_result(changed, tmp_path) is None
    row.result_path(tmp_path).write_text('{"half')
    assert read_result(row, tmp_path) is None
