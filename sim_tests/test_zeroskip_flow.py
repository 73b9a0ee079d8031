"""The build of a new project: what it writes, what it skips, how it resumes, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from zeroskip import api, cli
from zeroskip.boards.simulation import Cycles, SimulationResult
from zeroskip.boards.steps import StepRecord, file_digest
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.emit import load_program
from zeroskip.compiler.errors import CapacityError, InputError, ToolError
from zeroskip.flow import build, prune_step
from zeroskip.new import write_project
from zeroskip.progress import Progress
from zeroskip.pruning.errors import Diverged, PruningError
from zeroskip.pruning.export import read_header


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The project that `new` writes, with fewer epochs and no board, built with the real simulator; read only."""
    path = write_project(tmp_path_factory.mktemp("flow") / "digits")
    text = re.sub(r"epochs = \d+", "epochs = 6", path.read_text())
    path.write_text(text.replace('boards = ["ulx3s-25f"]', "boards = []"))
    stream = io.StringIO()
    return path, build(path, Progress(0, stream)), stream.getvalue().splitlines()


@pytest.fixture
def project(built, tmp_path, monkeypatch):
    """A copy of the built project; from here on nothing is simulated, the reference speaks for the RTL."""
    shutil.copytree(built[0].parent, tmp_path / "digits")
    monkeypatch.setattr("zeroskip.boards.simulation.simulate", simulated)
    return tmp_path / "digits" / "project.toml"


def simulated(directory, inputs, expected, **_):
    """Return what a right design would show."""
    cycles = program_cycles(load_program(directory))
    layers = {layer.name: layer.cycles for layer in cycles.layers}
    counts = Cycles(cycles.load, layers, cycles.unload, cycles.total, cycles.interval)
    values = sum(codes.size for codes in expected.values())
    return SimulationResult(
        np.zeros(0), len(inputs), len(inputs), counts, values, 0, (), None, cycles.total, 0.0, 0.0, "none"
    )  # fmt: skip


def edit(path, old, new):
    """Replace a text in a file that has it."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def reused(result):
    """Return which steps of a build were there already."""
    return {step.name: step.reused for step in result.steps}


def record(path):
    """Return the record of the last build."""
    return json.loads((path.parent / "build" / "digits" / "build.json").read_text())


def test_a_new_project_builds_as_it_is(built):
    path, result, lines = built
    out = path.parent / "build" / "digits"
    assert result.design.directory == out and result.artifact == out / "digits.safetensors"
    assert [step.name for step in result.steps] == ["prune", "compile", "simulate", "report"]
    header = read_header(result.artifact)
    assert header["accuracy"]["samples"] == 500 and header["accuracy"]["integer"] > 0.5
    report = result.design.report()
    assert report["accuracy"]["rtl_vectors"] == 16 and report["accuracy"]["rtl_mismatches"] == 0
    assert report["kinds"]["cycles"] == "measured"
    assert all(layer["cycles"] == layer["model_cycles"] for layer in report["cycles"]["layers"])
    assert str(result.design) in (out / "report" / "report.txt").read_text()
    assert "<html" in (out / "report" / "report.html").read_text()
    for number, name in enumerate(("prune", "compile", "simulate", "report"), 1):
        assert any(re.match(rf"\[{number}/4\] {name} \.\.\. \d+\.\d s", line) for line in lines), lines
    noted = record(path)
    assert noted["finished"] and noted["failed"] is None
    assert noted["expected_seconds"] == {step["name"]: step["seconds"] for step in noted["steps"]}
    assert result.to_dict()["steps"] == noted["steps"]
    assert "4 steps, 0 reused" in str(result)
    assert not list(out.glob(".partial*"))


def test_a_second_build_reuses_every_step(built, project):
    out = project.parent / "build" / "digits"
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "build.json"]
    before = {path: file_digest(path) for path in files}
    stream = io.StringIO()
    again = build(project, Progress(0, stream))
    assert set(reused(again).values()) == {True}
    assert [step.seconds for step in again.steps] == [step.seconds for step in built[1].steps]
    assert stream.getvalue().count("unchanged, reused") == 4
    assert {path: file_digest(path) for path in before} == before


def test_a_changed_option_reruns_what_depends_on_it(project):
    edit(project, "lanes = 4", "lanes = 8")
    result = build(project)
    assert reused(result) == {"prune": True, "compile": False, "simulate": False, "report": False}
    assert result.design.report()["geometry"]["lanes"] == 8
    edit(project, "finetune = { epochs = 6", "finetune = { epochs = 7")
    assert reused(build(project))["prune"] is False


def test_a_changed_comment_trains_again_but_changes_nothing_after_it(project):
    artifact = project.parent / "build" / "digits" / "digits.safetensors"
    before = file_digest(artifact)
    edit(project.parent / "network.py", "def build", "# the network of the paper\ndef build")
    assert reused(build(project)) == {"prune": False, "compile": True, "simulate": True, "report": True}
    assert file_digest(artifact) == before


def test_changed_data_train_again(project):
    edit(project.parent / "data.py", "TEST, VALIDATION = 500, 200", "TEST, VALIDATION = 400, 200")
    result = build(project)
    assert not any(reused(result).values())
    assert read_header(result.artifact)["accuracy"]["samples"] == 400


def test_damaged_outputs_are_made_again(project):
    out = project.parent / "build" / "digits"
    image = next((out / "rom").glob("*.mem"))
    good = image.read_bytes()
    image.write_bytes(good.replace(b"1", b"2", 1))
    assert reused(build(project)) == {"prune": True, "compile": False, "simulate": False, "report": False}
    assert image.read_bytes() == good
    (out / "digits.safetensors").unlink()
    (out / "manifest.json").unlink()
    assert reused(build(project)) == {"prune": False, "compile": False, "simulate": False, "report": False}
    (out / "report" / "report.html").write_text("")
    assert reused(build(project)) == {"prune": True, "compile": True, "simulate": True, "report": False}


def test_a_build_goes_on_after_a_failure(project, monkeypatch):
    out = project.parent / "build" / "digits"
    shutil.rmtree(out)

    def broken(*_, **__):
        raise ToolError("Simulator is on strike")

    with monkeypatch.context() as patch:
        patch.setattr("zeroskip.boards.simulation.simulate", broken)
        with pytest.raises(ToolError, match="Simulator is on strike"):
            build(project)
    noted = record(project)
    assert [step["name"] for step in noted["steps"]] == ["prune", "compile"] and not noted["finished"]
    assert noted["failed"] == {"name": "simulate", "error": "Simulator is on strike"}
    assert not list(out.glob(".partial*"))

    stream = io.StringIO()
    result = build(project, Progress(0, stream))
    assert reused(result) == {"prune": True, "compile": True, "simulate": False, "report": False}
    assert stream.getvalue().startswith("[1/4] prune ... unchanged, reused (took ")
    assert record(project)["finished"]


def test_training_goes_on_from_its_last_stage(project, monkeypatch):
    shutil.rmtree(project.parent / "build")
    from zeroskip.pruning import retrain

    train, phases = retrain.train, []

    def interrupted(*arguments, **options):
        phases.append(len(phases))
        if len(phases) == 4:
            raise KeyboardInterrupt
        train(*arguments, **options)

    monkeypatch.setattr(retrain, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prune_step(project)
    assert record(project)["failed"] == {"name": "prune", "error": "KeyboardInterrupt"}
    assert prune_step(project).is_file()
    # Of dense, ADMM, retraining and fine-tuning only the interrupted one ran again.
    assert len(phases) == 5


def test_every_board_is_a_step_of_its_own(project, monkeypatch):
    edit(project, "boards = []", 'boards = ["ulx3s-85f", "ulx3s-25f"]')
    calls = []

    def synthesize(design, board, seeds, *, jobs, progress):
        calls.append((board, seeds, jobs))
        progress(f"[1/3] synthesis {board} ... 1.0 s")
        if board == "ulx3s-25f" and len(calls) == 2:
            raise CapacityError("Design needs 9 multipliers, but there are 8")
        api.write_json(design.directory / "report" / board / "report.json", design.report())
        return SimpleNamespace(steps=[StepRecord("synthesis", 1.0, calls.count((board, seeds, jobs)) > 1)])

    monkeypatch.setattr(api.Design, "synthesize", synthesize)
    with pytest.raises(CapacityError):
        build(project, jobs=1)
    assert record(project)["failed"]["name"] == "synth ulx3s-25f"
    stream = io.StringIO()
    result = build(project, Progress(0, stream), jobs=1)
    assert calls[:2] == calls[2:] == [("ulx3s-85f", 1, 1), ("ulx3s-25f", 1, 1)]
    assert [step.name for step in result.steps][3:] == ["synth ulx3s-85f", "synth ulx3s-25f", "report"]
    assert "[4/6] synth ulx3s-85f ... unchanged, reused" in stream.getvalue()
    assert "      synthesis ulx3s-25f ... 1.0 s" in stream.getvalue()
    assert sorted(result.to_dict()["boards"]) == ["ulx3s-25f", "ulx3s-85f"]


def test_what_admm_missed_is_said(built, project, capsys):
    verdict = read_header(built[1].artifact)["provenance"]["goals"]["prune"]
    assert verdict.startswith("goals missed: ")
    assert f"stage 'prune': {verdict}" in built[2]
    lines = [json.loads(line) for line in built[1].artifact.with_suffix(".log.jsonl").read_text().splitlines()]
    assert {"residual", "mapped", "goal"} <= {line["phase"] for line in lines}
    with pytest.raises(SystemExit, match="0"):
        cli.main(["prune", str(project)])
    assert capsys.readouterr().out.splitlines()[-1] == f"stage 'prune': {verdict}"


def test_seed_is_instead_of_the_files(project):
    before = file_digest(prune_step(project))
    assert file_digest(prune_step(project, seed=0)) == before
    assert file_digest(prune_step(project, seed=1)) != before


def test_data_folder_reaches_the_data_module(project, tmp_path, monkeypatch):
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    line = "import os\nFOLDER = os.environ['ZEROSKIP_DATA']\n"
    (project.parent / "data.py").write_text(line + (project.parent / "data.py").read_text())
    with pytest.raises(InputError, match=r"data.py' failed in line 2: KeyError: 'ZEROSKIP_DATA'"):
        prune_step(project)
    assert prune_step(project, data=tmp_path).is_file()
    with pytest.raises(InputError, match=r"Data folder '.*none' does not exist; name another one with --data"):
        prune_step(project, data=tmp_path / "none")


def test_a_full_disk_is_refused_at_the_start(project, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=123_000_000))
    with pytest.raises(InputError, match=r"has 123 MB free, but 1000 MB are needed"):
        build(project)


def test_an_output_that_cannot_be_is_refused(project, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Folder '.*file/out' cannot be made: Not a directory"):
        build(project, out=tmp_path / "file" / "out")


def test_a_second_build_of_the_same_folder_is_refused(project):
    import fcntl

    with (project.parent / "build" / "digits" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"is in use by another build; wait for it or name another folder"):
            build(project)


STAGES = """
[[prune.stages]]
name = "half"
layers.fc1 = { kind = "nonstructured", keep = 0.5 }

[[prune.stages]]
name = "more"
layers.fc1 = { kind = "nonstructured", keep = 5000 }
"""


def staged(path):
    """Prune in two stages, of which the second asks for too much, instead of in one."""
    text = path.read_text()
    path.write_text(text[: text.index("# Sets by layer")] + STAGES + text[text.index("[quantize]") :])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: edit(p, "\nconv2 =", "\nconv3 ="), "Stage 'prune': No layer with weights is called 'conv3'; the"),
        (lambda p: edit(p, "\nrho = ", "\nrho = { fc9 = [1, 2] } # "), "Stage 'prune': No layer with a set is called"),
        (staged, "Stage 'more': Layer 'fc1': keep is 5000, but the layer has 2048 groups"),
        (lambda p: edit(p.parent / "network.py", "(64, 32)", "(65, 32)"), "The network cannot be captured with"),
    ],
)
def test_refusals_of_a_project_name_its_file_and_stage(tmp_path, monkeypatch, change, text):
    monkeypatch.setattr("zeroskip.pruning.retrain.train", lambda *_, **__: pytest.fail("trained"))
    path = write_project(tmp_path / "digits")
    change(path)
    with pytest.raises(PruningError, match=re.escape(f"Project file '{path}': {text}")) as error:
        prune_step(path)
    assert record(path)["failed"] == {"name": "prune", "error": str(error.value)}


@pytest.mark.parametrize("said", [False, True])
def test_a_diverged_project_is_named_once(tmp_path, monkeypatch, said):
    path = write_project(tmp_path / "digits")
    text = f"Project file '{path}': Stage 'dense', phase 'dense': The loss became nan"

    def diverge(*_, **__):
        raise Diverged(text if said else text.partition(": ")[2])

    monkeypatch.setattr("zeroskip.flow.train_artifact", diverge)
    with pytest.raises(Diverged) as error:
        prune_step(path)
    assert str(error.value) == text
