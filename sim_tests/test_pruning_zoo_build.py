"""The queue: finished rows are skipped, shared stages trained once, and a killed or stopped run goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from zeroskip.compiler.importers import load_model
from zeroskip.compiler.inspect import describe
from zeroskip.pruning import zoo_build
from zeroskip.pruning.figures import figures
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.recipe import LayerRule, Quantization, Recipe, Stage
from zeroskip.pruning.rows import Row, read_result
from zeroskip.pruning.training import Phase
from zeroskip.pruning.zoo_build import Folders, TimeUp, build_row, main, run_queue


def phase(epochs):
    return Phase(epochs, (2e-3, 1e-3))


def stage(name, keep):
    return Stage(name, {"fc1": LayerRule("nonstructured", {"keep": keep})}, phase(1), phase(1))


SHORT = Recipe(
    "short", "digits_cnn", "digits", phase(1), Quantization(phase(1), calibration=32), (stage("half", 0.5),),
    Input(16, 0.0, 0.5), threads=1,
)  # fmt: skip
LONG = replace(SHORT, name="long", stages=(stage("half", 0.5), stage("fifth", 0.2)))


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "out", tmp_path / "stages")


@pytest.fixture
def uncounted(monkeypatch):
    """Leave out the compiler."""
    monkeypatch.setattr(zoo_build, "figures", lambda path: {"kept": 1})


def test_shared_stages_are_trained_once_and_rows_skipped(folders, uncounted, capsys):
    rows = [Row("short", None, SHORT), Row("long", None, LONG)]
    assert run_queue(rows, folders) == []
    kept = sorted(path.name.partition("-")[0] for path in folders.checkpoints.iterdir())
    assert kept == ["dense", "fifth", "finetune", "finetune", "half"]
    results = [read_result(row, folders.out) for row in rows]
    assert [result["epochs"] for result in results] == [4, 6]
    assert (folders.out / "long.toml").exists() and (folders.out / "long.log.jsonl").exists()
    before = {path: path.stat().st_mtime_ns for path in folders.out.iterdir()}
    assert run_queue(rows, folders) == []
    assert {path: path.stat().st_mtime_ns for path in folders.out.iterdir()} == before
    assert "2 rows, 2 of them finished" in capsys.readouterr().err


def test_a_stopped_row_goes_on_with_the_same_bytes(folders, uncounted, tmp_path):
    row = Row("short", None, SHORT)
    with pytest.raises(TimeUp):
        build_row(row, folders, deadline=time.time() - 1)
    assert not folders.out.exists() and read_result(row, folders.out) is None
    assert run_queue([row], folders, until=-1.0) == [] and not folders.out.exists()
    run_queue([row], folders)
    whole = Folders(tmp_path / "whole", tmp_path / "other")
    run_queue([row], whole)
    name = "short.safetensors"
    assert (folders.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_a_row_whose_result_is_lost_is_not_trained_again(folders, uncounted):
    row = Row("short", None, SHORT)
    run_queue([row], folders)
    row.result_path(folders.out).unlink()
    steps = []
    build_row(row, folders, report=lambda *a: steps.append(a))
    assert steps == [] and read_result(row, folders.out)["accuracy"]["samples"] > 0


def test_a_row_that_fails_does_not_stop_the_queue(folders, uncounted, capsys):
    wrong = replace(SHORT, name="wrong", stages=(stage("half", 10**6),))
    assert run_queue([Row("wrong", None, wrong), Row("short", None, SHORT)], folders) == ["wrong"]
    captured = capsys.readouterr()
    assert "wrong: failed: Stage 'half': Layer 'fc1'" in captured.err
    assert "short: " in captured.out


def without_data(seeds=(0, 1, 2)):
    """Rows of a data set that is not there, with one of another set among them."""
    fashion = [replace(SHORT, name=f"fashion-{seed}", dataset="fashion_mnist", seed=seed) for seed in seeds]
    return [Row("x", None, recipe) for recipe in (fashion[0], SHORT, *fashion[1:])]


def test_missing_data_are_said_once_and_their_rows_left_out(folders, uncounted, tmp_path, capsys):
    (tmp_path / "data" / "fashion_mnist").mkdir(parents=True)
    folders = replace(folders, data=tmp_path / "data")
    assert run_queue(without_data(), folders) == ["fashion-0", "fashion-1", "fashion-2"]
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "fashion" in line]
    assert len(lines) == 2 and "fashion-0: failed: Data file '" in lines[0]
    assert lines[1] == "rows left out because they need the data set 'fashion_mnist' too: 2"
    assert captured.out.startswith("short: ")


@pytest.mark.slow
def test_missing_data_end_no_other_job(folders, tmp_path, capsys):
    (tmp_path / "data" / "fashion_mnist").mkdir(parents=True)
    rows = without_data(seeds=range(1, 8))
    assert len(run_queue(rows, replace(folders, data=tmp_path / "data"), jobs=3)) == 7
    captured = capsys.readouterr()
    assert captured.err.count(": failed: ") == captured.err.count("rows left out") == 1


@pytest.mark.slow
def test_two_jobs_take_different_seeds(folders):
    rows = [Row("short", None, replace(SHORT, seed=seed, name=f"short-{seed}")) for seed in (0, 0, 1)]
    rows[1] = Row("long", None, LONG)
    assert run_queue(rows, folders, jobs=2) == []
    assert all(read_result(row, folders.out)["bits_storage"] > 0 for row in rows)
    assert len([path for path in folders.checkpoints.iterdir() if path.name.startswith("half")]) == 2


@pytest.mark.slow
def test_figures_are_those_of_the_compiler(folders, uncounted):
    row = Row("short", None, SHORT)
    run_queue([row], folders)
    found = figures(folders.out / "short.safetensors")
    assert found["weights"] == 72 + 1152 + 2048 + 320 and found["kept"] <= found["weights"] - 1024
    assert found["bits_weights"] == 4 * found["kept"] < found["bits_storage"] < found["bits_total"]
    assert found["bits_total"] < found["bits"]["total"] and 0 < found["regular_share"] < 1
    (folders.out / "bad.safetensors").write_bytes(b"nothing")
    missing = figures(folders.out / "bad.safetensors")
    assert missing["bits"] is None and missing["kept"] is None and "bad.safetensors" in missing["bits_missing"]
    assert missing["bits_storage"] is None and missing["regular_share"] is None


@pytest.mark.slow
def test_figures_count_no_weights_that_read_constant_channels():
    artifact = Path(zoo_build.__file__).parent / "zoo" / "digits-column-w4a8.safetensors"
    inspected = describe(load_model(artifact))
    found = figures(artifact)
    assert found["kept"] == inspected["compiled"]["kept"] < inspected["total"]["kept"]
    assert found["macs_nonzero"] == inspected["compiled"]["macs_nonzero"]
    assert found["bits_weights"] == 4 * found["kept"]
    assert (found["weights"], found["macs_dense"]) == tuple(
        inspected["total"][key] for key in ("weights", "macs_dense")
    )


def test_the_command_line(tmp_path, capsys):
    assert main(["digits-dense-w4a8", "--table", "--seeds", "0,1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| digits-dense-w4a8 | - | not run | not run | not run |" in out
    code = main(["lenet5-mnist-dense-w4a8", "--data", str(tmp_path / "none"), "--out", str(tmp_path)])
    captured = capsys.readouterr()
    assert code == 2 and "failed: Data folder" in captured.err and "0 of 1 rows finished" in captured.err
    assert main(["digits-dens", "--table"]) == 2
    assert "error: Recipe 'digits-dens' does not exist" in capsys.readouterr().err
