"""The ledger: results of rows that stay when their folders are gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from test_pruning_rows import RECIPE, finish
from zeroskip.pruning import PruningError
from zeroskip.pruning.ledger import Ledger
from zeroskip.pruning.rows import find_rows
from zeroskip.pruning.zoo_build import main


def test_results_stay_when_their_folder_is_gone(tmp_path):
    rows = find_rows([RECIPE], [0, 1, 2], True)
    path = tmp_path / "ledger.jsonl"
    results = {rows[number].name: finish(rows[number], tmp_path, 0.9 + number / 100) for number in (1, 0, 4)}
    Ledger(path).take(rows, tmp_path)
    first = path.read_bytes()
    for row in rows:
        row.result_path(tmp_path).unlink(missing_ok=True)
    ledger = Ledger(path)
    assert [ledger.read(row) for row in rows] == [results.get(row.name) for row in rows]
    ledger.take(rows, tmp_path)
    assert path.read_bytes() == first
    anew = finish(rows[0], tmp_path, 0.99)
    ledger.take(rows, tmp_path)
    assert Ledger(path).read(rows[0]) == anew and len(path.read_text().splitlines()) == 3
    changed = replace(rows[1], recipe=replace(rows[1].recipe, batch=7))
    assert ledger.read(changed) is None


def test_a_ledger_that_is_none_is_named(tmp_path):
    path = tmp_path / "ledger.jsonl"
    for text in ("{}\n", "nothing\n", "[1]\n"):
        path.write_text('{"row": "a"}\n' + text)
        with pytest.raises(PruningError, match=r"Line 2 of the ledger '.*ledger.jsonl' is no result of a row; delete"):
            Ledger(path)
        assert path.read_text().endswith(text)
    with pytest.raises(PruningError, match="cannot be read"):
        Ledger(tmp_path)


def test_tables_of_a_ledger(tmp_path, capsys):
    (row,) = find_rows([RECIPE], [0], False)
    finish(row, tmp_path, 0.95)
    ledger = tmp_path / "ledger.jsonl"
    options = ["--table", RECIPE, "--ledger", str(ledger), "--out"]
    assert main([*options, str(tmp_path)]) == 0
    first = capsys.readouterr().out
    assert f"| {RECIPE} | - | 95.00 | 95.00 | not run | not run |" in first
    assert main([*options, str(tmp_path / "nothing")]) == 0
    assert capsys.readouterr().out == first
    with pytest.raises(SystemExit):
        main([RECIPE, "--ledger", str(ledger)])
    assert "--ledger goes with --table" in capsys.readouterr().err
