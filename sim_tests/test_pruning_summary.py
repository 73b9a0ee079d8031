"""Results over seeds and folds: what is finished, scores and errors of all folds together, medians."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from zeroskip.pruning.rows import find_rows, read_result
from zeroskip.pruning.summary import paired, summarize

RECIPE = "cnn1d-ecg5000-column-2x-w8a8"


def finish(row, folder, share, samples=20, **more):
    """Write a made-up result."""
    result = {
        "recipe_sha256": row.recipe.digest(), "seed": row.recipe.seed, "fold": row.recipe.fold, "goals": [],
        "accuracy": {"integer": share, "samples": samples}, **more,
    }  # fmt: skip
    row.result_path(folder).parent.mkdir(exist_ok=True)
    row.result_path(folder).write_text(json.dumps(result))


def read_from(folder):
    """Return what reads the results in a folder."""
    return partial(read_result, folder=folder)


def test_small_sets_have_a_row_a_fold():
    rows = find_rows([RECIPE], [0, 1], True)
    names = [row.name for row in rows if row.control is None]
    assert names[:2] == [f"{RECIPE}-fold0", f"{RECIPE}-fold1"] and names[-1] == f"{RECIPE}-fold4-seed1"
    assert [row.recipe.fold for row in rows[:5]] == [0, 1, 2, 3, 4]
    assert {row.control for row in rows} == {None, "oneshot", "gradual", "scratch"}
    assert len({row.name for row in rows}) == len(rows) == 2 * 4 * 5


def test_folds_are_judged_together(tmp_path):
    rows = find_rows([RECIPE], [0, 1, 2], False)
    for row in rows:
        fold, seed = row.recipe.fold, row.recipe.seed
        if (seed, fold) != (2, 4):
            wrong = list(range(fold + seed))
            finish(row, tmp_path, 1 - len(wrong) / 20, wrong=wrong, kept=100 + fold, goals=[{"met": fold > 2}])
    own = summarize(rows, read_from(tmp_path))[RECIPE].own
    assert own.scores == {0: pytest.approx(90), 1: pytest.approx(85), 2: None}
    assert own.median == pytest.approx(87.5)
    assert own.samples == 100
    assert {seed: int(errors.sum()) for seed, errors in own.errors.items()} == {0: 10, 1: 15}
    assert np.flatnonzero(own.errors[0]).tolist() == [20, 40, 41, 60, 61, 62, 80, 81, 82, 83]
    assert own.figures["kept"] == 102 and own.figures["bits_storage"] is None
    assert own.goals == (4, 10) and own.rate is None


def test_nothing_finished(tmp_path):
    own = summarize(find_rows([RECIPE], [0], False), read_from(tmp_path))[RECIPE].own
    assert own.scores == {0: None} and own.median is None and own.samples == 0


def test_errors_are_paired_by_the_seeds_that_both_have(tmp_path):
    rows = find_rows(["digits-column-w4a8"], [0, 1, 2], True)
    for row in rows:
        if row.control is None or (row.control == "oneshot" and row.recipe.seed != 1):
            finish(row, tmp_path, 0.9, wrong=[0, 1] if row.control is None else [0, 5, 6])
    runs = summarize(rows, read_from(tmp_path))["digits-column-w4a8"]
    found = paired(runs.kinds["oneshot"], runs.own)
    assert (found.base, found.other, found.difference) == ((3, 3), (2, 2), -1)
    assert paired(runs.kinds["gradual"], runs.own) is None
