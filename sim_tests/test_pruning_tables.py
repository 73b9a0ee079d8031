"""The Markdown tables of made-up results: targets, seeds, margins, intervals and rates at equal accuracy."""

from __future__ import annotations

import pytest

from test_pruning_summary import finish, read_from
from zeroskip.pruning.rows import find_rows
from zeroskip.pruning.tables import tables

FIGURES = {
    "weights": 430_500, "kept": 6150, "macs_nonzero": 187_000, "bits_weights": 24_600, "bits_storage": 60_000,
    "regular_share": 0.0214,
}  # fmt: skip


def cells(text, first):
    """Return the cells of the first line that begins with ``first``."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def lenet(tmp_path):
    """Results of some LeNet-5 recipes, by seed and control."""
    shares = {
        ("lenet5-mnist-dense-w8a8", None): [0.993, 0.994, 0.995],
        ("lenet5-mnist-nonstructured-71x-w8a8", None): [0.9931, 0.9929, 0.9925],
        ("lenet5-mnist-nonstructured-71x-w8a8", "oneshot"): [0.992, 0.993, 0.9935],
        ("lenet5-mnist-nonstructured-348x-w8a8", None): [0.9891, 0.9893, None],
        ("lenet5-mnist-nonstructured-348x-w8a8", "gradual"): [None, 0.988, 0.99],
        ("lenet5-mnist-filter-column-17.7x-w8a8", None): [0.992, 0.992, 0.992],
        ("lenet5-mnist-filter-column-17.7x-w8a8", "scratch"): [0.988, 0.99, 0.988],
    }
    kept = {"dense": 430_500, "71x": 6063, "348x": 1237, "17.7x": 24_064}
    rows = find_rows(list(dict.fromkeys(base for base, _ in shares)), [0, 1, 2], True)
    for row in rows:
        share = shares.get((row.base, row.control), [None] * 3)[row.recipe.seed]
        count = next(count for name, count in kept.items() if name in row.base)
        if share is not None:
            finish(row, tmp_path, share, 10_000, **FIGURES | {"kept": count}, goals=[{"met": True}])
    return tables(rows, read_from(tmp_path))


def test_results_with_targets_seeds_margins_and_figures(lenet):
    assert lenet.startswith("### lenet5, mnist (accuracy in % of the integer network)\n\n| recipe | target | median |")
    own = cells(lenet, "lenet5-mnist-nonstructured-71x-w8a8")
    assert own == [
        "lenet5-mnist-nonstructured-71x-w8a8", ">= 99.30: missed", "99.29", "99.31", "99.29", "99.25",
        "-0.01", "not run", "-", "71.0x", "6,063", "187,000", "24,600", "60,000", "560.0x", "229.6x", "2.1 %", "3 of 3",
    ]  # fmt: skip
    part = cells(lenet, "lenet5-mnist-nonstructured-348x-w8a8")
    assert part[1:6] == [">= 99.00: missed", "98.92", "98.91", "98.93", "not run"]
    # Seed 1 alone has run of both.
    assert part[6:9] == ["not run", "+0.13", "-"]
    structured = cells(lenet, "lenet5-mnist-filter-column-17.7x-w8a8")
    assert structured[1] == ">= 99.20: met, scratch + 0.3: met"
    assert structured[6:9] == ["not run", "not run", "+0.40"]


def test_large_sets_have_no_intervals(lenet):
    assert "95 % interval" not in lenet


def test_rates_at_equal_accuracy(lenet):
    (line,) = (line for line in lenet.splitlines() if "| filter_column, column |" in line)
    found = [cell.strip() for cell in line.strip("|").split("|")]
    # From 99.29 at 71x to 98.92 at 348x, 99.20 is 0.24 of the way over the logarithm.
    assert found[2:] == ["99.20", "17.9x", "104.5x", "5.84"]


def test_micro_blocks_say_what_they_store_and_compute(tmp_path):
    parts = {"value": 900, "index": 100, "filler": 50, "row_end": 20, "tap_table": 30, "bias": 7}
    storage = {
        "lenet5-mnist-micro-both-1x8-16x-w8a8": parts | {"sign": 400},
        "lenet5-mnist-micro-prune-1x8-16x-w8a8": parts,
    }
    rows = find_rows(list(storage), [0, 1, 2], True)
    for row in rows:
        if row.control is None and row.recipe.seed < 2:
            finish(row, tmp_path, 0.99, 10_000, **FIGURES, storage=storage[row.base])
    lines = tables(rows, read_from(tmp_path)).split("| micro-blocks |")[1].splitlines()[2:]
    prune, both = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert both[1:] == ["99.00", "900", "400", "200", "1,500", "187,000", "23,375"]
    assert prune[1:] == ["99.00", "900", "0", "200", "1,100", "0", "187,000"]


def test_rows_that_have_not_run_are_listed(tmp_path):
    rows = find_rows(["resnet20-cifar10-column-*"], [0, 1, 2], True)
    text = tables(rows, read_from(tmp_path))
    assert "### resnet20, cifar10" in text
    for base in dict.fromkeys(row.base for row in rows):
        found = cells(text, base)
        assert found[2:6] == ["not run"] * 4
    lines = text.splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    targeted = tables(find_rows(["lenet300-*"], [0], True), read_from(tmp_path))
    assert cells(targeted, "lenet300-mnist-nonstructured-23x-w8a8")[1:3] == [">= 98.30", "not run"]


def test_small_sets_tell_errors_with_their_interval(tmp_path):
    rows = find_rows(["cnn1d-ecg5000-dense-w8a8", "cnn1d-ecg5000-column-2x-w8a8"], [0, 1, 2], True)
    for row in rows:
        count = {None: 1 if "column" in row.base else 2, "oneshot": 4}.get(row.control)
        if count is not None:
            finish(row, tmp_path, 1 - count / 20, wrong=list(range(count)), **FIGURES)
    text = tables(rows, read_from(tmp_path))
    own = [line for line in text.splitlines() if line.startswith("| cnn1d-ecg5000-column-2x-w8a8 | 5, 5, 5 of 100")]
    found = [cell.strip() for cell in own[0].strip("|").split("|")]
    assert found[2].startswith("-5.0 (-") and found[3].startswith("-15.0 (-") and found[4:] == ["not run", "not run"]
    dense = [line for line in text.splitlines() if line.startswith("| cnn1d-ecg5000-dense-w8a8 | 10, 10, 10 of 100")]
    assert dense[0].endswith("| - | - | - | - |")


def test_an_autoencoder_is_told_by_its_auc(tmp_path):
    rows = find_rows(["autoencoder-ecg5000-dense-w8a8"], [0], False)
    for row in rows:
        finish(row, tmp_path, 0.98 + row.recipe.fold / 1000, **FIGURES)
    text = tables(rows, read_from(tmp_path))
    assert "### autoencoder, ecg5000_normal (AUC x 100 of the integer network)" in text
    assert cells(text, "autoencoder-ecg5000-dense-w8a8")[2] == "98.20"
    assert "interval" not in text


def test_an_autoencoders_auc_has_an_interval(tmp_path):
    rows = find_rows(["autoencoder-ecg5000-dense-w8a8", "autoencoder-ecg5000-column-4x-w8a8"], [0, 1], False)
    for row in rows:
        # of six samples the last three are anomalous; the pruned network takes one of them for normal
        errors = [1, 2, 3, 4, 5, 0 if "column" in row.base else 6]
        share = 6 / 9 if "column" in row.base else 1.0
        finish(row, tmp_path, share, squared_errors=errors, anomalous=[3, 4, 5], **FIGURES)
    text = tables(rows, read_from(tmp_path))
    assert "| AUC x 100 more than (95 % interval) | AUC x 100 by seed |" in text
    own = [
        line for line in text.splitlines() if line.startswith("| autoencoder-ecg5000-column-4x-w8a8 | 66.67, 66.67 |")
    ]
    assert own[0].split("|")[3].strip().startswith("-33.33 (-")
