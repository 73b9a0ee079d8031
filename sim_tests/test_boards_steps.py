"""Steps are skipped when nothing changed, and run when their inputs, their outputs or their record did."""

from __future__ import annotations

import pytest

from zeroskip.boards.steps import Steps, write_atomically
from zeroskip.compiler.errors import InputError


def run(folder, identity="a", *, content="result", resume=True, lines=None):
    steps = Steps(folder, total=1, title="board", progress=lines.append if lines is not None else None, resume=resume)
    calls = []

    def action(scratch):
        calls.append(scratch)
        (scratch / "out.txt").write_text(content)
        (scratch / "tool.log").write_text("said something")

    record = steps.run("place and route", {"inputs": identity}, ["out.txt"], action, expected_s=12)
    assert record.reused == (not calls)
    return bool(calls)


def test_unchanged_step_is_reused(tmp_path):
    lines: list[str] = []
    assert run(tmp_path, lines=lines)
    assert not run(tmp_path, lines=lines)
    assert lines[0] == "[1/1] place and route board ... about 12 s"
    assert lines[1] == "[1/1] place and route board ... 0.0 s"
    assert lines[2] == "[1/1] place and route board ... unchanged, reused (took 0.0 s)"
    assert (tmp_path / "tool.log").read_text() == "said something"
    assert not (tmp_path / ".partial-place-and-route").exists()


def test_step_runs_again_when_anything_changed(tmp_path):
    assert run(tmp_path)
    assert run(tmp_path, "b")
    assert run(tmp_path, "a")
    (tmp_path / "out.txt").write_text("tampered")
    assert run(tmp_path)
    (tmp_path / "out.txt").unlink()
    assert run(tmp_path)
    (tmp_path / "place-and-route.step.json").write_text('{"identity": ')
    assert run(tmp_path)
    assert run(tmp_path, resume=False)
    assert not run(tmp_path)


def test_failed_step_leaves_no_result_but_its_log(tmp_path):
    assert run(tmp_path)

    def fail(scratch):
        (scratch / "out.txt").write_text("half")
        (scratch / "tool.log").write_text("ERROR")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="^no$"):
        Steps(tmp_path, total=1, title="board").run("place and route", {"inputs": "c"}, ["out.txt"], fail)
    assert (tmp_path / "tool.log").read_text() == "ERROR"
    assert (tmp_path / "out.txt").read_text() == "result"
    # The old result belongs to other inputs, and its record is gone.
    assert run(tmp_path)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^Folder '.*file/synth' must be writable: Not a directory$"):
        Steps(tmp_path / "file" / "synth", total=1, title="board")


def test_atomic_write_leaves_nothing_behind(tmp_path):
    write_atomically(tmp_path / "a.txt", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
