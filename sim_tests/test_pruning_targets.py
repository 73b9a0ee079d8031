"""Targets: read with the queue, names before globs, and what counts as reached."""

from __future__ import annotations

import pytest

from zeroskip.pruning import PruningError
from zeroskip.pruning.rows import queued_names
from zeroskip.pruning.targets import Target, read_targets


def test_the_queue_has_targets_of_its_own_recipes():
    targets = read_targets()
    assert set(targets) <= set(queued_names())
    assert targets["lenet5-mnist-nonstructured-348x-w8a8"] == Target(accuracy=99.0)
    assert targets["lenet5-mnist-filter-8x-w8a8"] == Target(below_dense=0.3)
    assert targets["lenet5-mnist-filter-column-37x-w8a8"] == Target(accuracy=99.1, over_scratch=0.1)


def test_a_name_wins_over_a_glob(tmp_path):
    path = tmp_path / "queue.toml"
    path.write_text('[targets]\ndigits-dense-w4a8 = { accuracy = 97 }\n"digits-*" = { below_dense = 1 }\n')
    targets = read_targets(path)
    assert targets["digits-dense-w4a8"] == Target(accuracy=97)
    assert targets["digits-column-w4a8"] == Target(below_dense=1)
    path.write_text("order = []\n")
    assert read_targets(path) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '"digits-dens" = { accuracy = 97 }',
            "'queue.toml' has a target for 'digits-dens', which is no recipe; .*w4a8",
        ),
        ('"digits-*" = { accurac = 97 }', r"'queue.toml', targets.digits-\* has an unknown key 'accurac'; .*accuracy"),
        ('"digits-*" = { accuracy = "97" }', r"targets.digits-\*.accuracy must be a number, not '97'"),
        ('"digits-*" = 97', r"targets.digits-\* must be a table, not 97"),
    ],
)
def test_refusals(tmp_path, text, message):
    path = tmp_path / "queue.toml"
    path.write_text(f"[targets]\n{text}\n")
    with pytest.raises(PruningError, match=message):
        read_targets(path)


def test_checks():
    target = Target(
        accuracy=99.3, below_dense=0.3, over_scratch=0.1, macs=100_000, bits_weights=7212, bits_storage=16_000
    )
    figures = {"macs_nonzero": 100_000, "bits_weights": 7213}
    assert target.checks(100 * 0.993, 99.6, 99.3 - 99.25, figures) == {
        ">= 99.30": True,
        "dense - 0.3": True,
        "scratch + 0.1": False,
        "<= 100,000 MACs": True,
        "<= 7,212 bits of weights": False,
        "<= 16,000 bits with index": None,
    }
    assert target.checks(99.29, None, None, {})["dense - 0.3"] is None
    assert not target.checks(99.29, None, None, {})[">= 99.30"]
    assert Target().checks(1, None, None, {}) == {}
