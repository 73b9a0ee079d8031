"""The rules that all tests share: nothing skips where skips are forbidden."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import conftest

SAMPLE = """
import pytest

def test_plain():
    pass

def test_skips():
    pytest.skip("no reason at all")

@pytest.mark.optional_tool
def test_optional():
    pytest.skip("optional")

@pytest.mark.xfail
def test_expected():
    assert False

def test_data(data_folder):
    assert data_folder.is_dir()
"""


def run_sample(folder: Path, text: str, **variables: str) -> str:
    """Run pytest on a module with ``text`` under our conftest and return what it printed."""
    (folder / "test_sample.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow:\n    data:\n    optional_tool:\n")
    ours = ("ZEROSKIP_", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PYTHONPATH"] = str(Path(conftest.__file__).parent)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
        "-rA",
        "-q",
        "test_sample.py",
    ]
    done = subprocess.run(
        command, cwd=folder, env={**environment, **variables}, capture_output=True, text=True, check=False
    )
    return done.stdout


def test_skips_by_default(tmp_path):
    assert "1 passed, 3 skipped, 1 xfailed" in run_sample(tmp_path, SAMPLE)


def test_no_skip(tmp_path):
    output = run_sample(tmp_path, SAMPLE, ZEROSKIP_NO_SKIP="1")
    assert "1 failed, 1 passed, 2 skipped, 1 xfailed" in output
    assert "ZEROSKIP_NO_SKIP=1 forbids to skip: Skipped: no reason at all" in output


def test_data_folder(tmp_path):
    output = run_sample(tmp_path, SAMPLE, ZEROSKIP_NO_SKIP="1", ZEROSKIP_DATA=str(tmp_path))
    assert "1 failed, 2 passed, 1 skipped, 1 xfailed" in output
    output = run_sample(tmp_path, SAMPLE, ZEROSKIP_DATA=str(tmp_path / "missing"))
    assert "ZEROSKIP_DATA must name an existing folder" in output


def test_module_skip(tmp_path):
    text = 'import pytest\npytest.skip("whole module", allow_module_level=True)\n'
    assert "1 skipped" in run_sample(tmp_path, text)
    output = run_sample(tmp_path, text, ZEROSKIP_NO_SKIP="1")
    assert "1 error" in output
    assert "forbids to skip: Skipped: whole module" in output


@pytest.mark.parametrize(
    ("markers", "environment", "expected"),
    [
        (set(), {}, False),
        ({"slow"}, {}, False),
        ({"optional_tool"}, {"ZEROSKIP_DATA": "x"}, True),
        ({"data"}, {}, True),
        ({"data"}, {"ZEROSKIP_DATA": "x"}, False),
    ],
)
def test_may_skip(markers, environment, expected):
    assert conftest.may_skip(markers, environment) is expected
