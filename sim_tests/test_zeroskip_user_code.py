"""A project's own Python: what its data and network modules may give, and how their errors read."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from zeroskip.compiler.errors import InputError
from zeroskip.project_file import parse_project
from zeroskip.user_code import code_identity, load_images, load_network

DATA = """
import numpy as np
from sizes import COUNT

def part():
    return np.zeros((COUNT, 1, 4, 4), np.uint8), np.arange(COUNT)

train = validation = test = part
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "sizes.py").write_text("COUNT = 3\n")
    (tmp_path / "data.py").write_text(DATA)
    (tmp_path / "network.py").write_text("from torch import nn\n\ndef build():\n    return nn.Linear(3, 2)\n")
    return parse_project({"quantize": {"input": {"range": 16}}}, tmp_path / "project.toml")


def test_modules_import_their_neighbours_as_they_are_now(project):
    before = list(sys.path)
    assert len(load_images(project)["train"].codes) == 3
    (project.folder / "sizes.py").write_text("COUNT = 5\n")
    parts = load_images(project)
    assert list(parts) == ["train", "validation", "test"]
    assert parts["test"].codes.shape == (5, 1, 4, 4) and parts["test"].labels.dtype == np.int64
    assert sys.path == before and not (project.folder / "__pycache__").exists()


def test_digest_is_of_codes_and_labels(project):
    first = load_images(project)["train"].digest()
    assert load_images(project)["train"].digest() == first
    (project.folder / "data.py").write_text(DATA.replace("np.arange(COUNT)", "np.arange(COUNT)[::-1]"))
    assert load_images(project)["train"].digest() != first


def test_identity_is_of_the_code_but_not_of_the_data_module(project):
    first = code_identity(project)
    assert sorted(first) == ["code network.py", "code sizes.py"]
    (project.folder / "data.py").write_text(DATA + "\n")
    assert code_identity(project) == first
    (project.folder / "sizes.py").write_text("COUNT = 4\n")
    assert code_identity(project)["code sizes.py"] != first["code sizes.py"]


def test_network_is_a_module(project):
    assert load_network(project).weight.shape == (2, 3)
    (project.folder / "network.py").write_text("def build():\n    return 3\n")
    with pytest.raises(InputError, match=r"Function 'build' of '.*network.py' must return a torch.nn.Module, not int"):
        load_network(project)
    (project.folder / "network.py").write_text("def make():\n    return 3\n")
    with pytest.raises(InputError, match=r"network.py' must define a function 'build' without parameters; write it"):
        load_network(project)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", "failed in line 5: ZeroDivisionError: division by zero; correct it and build again"),
        ("return 3", "must return a pair (codes, labels), not int"),
        ("return X, Y, Y", "must return a pair (codes, labels), not tuple"),
        ("return X / 2, Y", "must return uint8 codes of shape (N, C, H, W), not float64 (2, 1, 4, 4)"),
        ("return X[:, 0], Y", "must return uint8 codes of shape (N, C, H, W), not uint8 (2, 4, 4)"),
        ("return X[:0], Y[:0]", "must return uint8 codes of shape (N, C, H, W), not uint8 (0, 1, 4, 4)"),
        ("return X, Y[:1]", "must return 2 integer labels, one an image, not int64 (1,)"),
        ("return X, Y / 2", "must return 2 integer labels, one an image, not float64 (2,)"),
        ("return X, Y - 1", "must return labels from 0 on, not -1"),
        ("return X + 17, Y", "returned the code 17, but [quantize] input says range = 16; raise the range or scale"),
    ],
)
def test_data_errors_name_function_file_and_fault(project, body, message):
    head = "import numpy as np\nX, Y = np.zeros((2, 1, 4, 4), np.uint8), np.arange(2)\n\ndef part():\n"
    (project.folder / "data.py").write_text(f"{head}    {body}\n\ntrain = validation = test = part\n")
    where = re.escape(f"Function 'train' of '{project.folder / 'data.py'}' ")
    with pytest.raises(InputError, match=where + re.escape(message)):
        load_images(project)


def test_parts_of_different_shapes_are_refused(project):
    other = "def test():\n    return np.zeros((1, 1, 5, 4), np.uint8), [0]\n"
    (project.folder / "data.py").write_text(f"{DATA}\n\n{other}")
    shapes = r"train\(\) \(1, 4, 4\), .*test\(\) \(1, 5, 4\)"
    with pytest.raises(InputError, match=f"must return images of one shape, not {shapes}"):
        load_images(project)


def test_broken_module_is_named_with_its_line(project):
    (project.folder / "data.py").write_text("x = 1\nx +\n")
    with pytest.raises(InputError, match=r"File '.*data.py' failed in line 2: SyntaxError: invalid syntax"):
        load_images(project)
