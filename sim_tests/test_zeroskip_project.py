"""Project files: what they say, what they leave out, and every way they can be wrong; and the folder `new` writes."""

from __future__ import annotations

import re
import tomllib

import pytest

from constraint_sets import EVERY_SET
from zeroskip.compiler.errors import InputError
from zeroskip.new import write_project
from zeroskip.project import Training, recipe_values
from zeroskip.project_file import load_project, parse_project
from zeroskip.pruning.budgets import Budget
from zeroskip.pruning.constraints.kinds import as_values
from zeroskip.pruning.recipe import Method
from zeroskip.pruning.recipe_tables import parse_recipe


@pytest.fixture
def path(tmp_path):
    """A project file to be, with the modules that it names by default."""
    for name in ("network.py", "data.py"):
        (tmp_path / name).write_text("")
    return tmp_path / "project.toml"


def read(path, text=""):
    """Return the project that ``text`` describes."""
    return parse_project(tomllib.loads(text), path)


def test_an_empty_file_is_a_project_of_defaults(path):
    project = read(path)
    assert project.name == path.parent.name
    assert project.out == path.parent / "build" / project.name
    assert project.prune.layers == {} and project.quantize.weights == 4
    assert project.synthesize.boards == ("ulx3s-25f",) and project.size_board == "ulx3s-25f"
    assert recipe_values(project)["stages"] == []


def test_values_arrive(path):
    project = read(
        path,
        """
        name = "tiny"
        [prune]
        seed = 3
        admm = { epochs = 5, lr = [1, 0.5] }
        [prune.layers]
        conv2 = { kind = "column", keep = 0.25, group = 2 }
        "fc*" = { kind = "nonstructured", keep = 12 }
        [quantize]
        power_of_two = true
        input = { range = 16, std = 0.5 }
        [compile]
        settings = { lanes = 4 }
        [synthesize]
        boards = ["ulx3s-85f", "icebreaker"]
        """,
    )
    assert project.name == "tiny" and project.prune.seed == 3
    assert project.prune.admm == Training(5, (1, 0.5))
    assert project.prune.layers == {
        "conv2": {"kind": "column", "keep": 0.25, "group": 2},
        "fc*": {"kind": "nonstructured", "keep": 12},
    }
    assert type(project.prune.layers["fc*"]["keep"]) is int
    assert recipe_values(project)["stages"][0]["layers"] == project.prune.layers
    assert project.compile.settings == {"lanes": 4}
    assert project.size_board == "icebreaker"
    values = recipe_values(project)
    assert values["input"] == {"range": 16, "mean": 0.0, "std": 0.5}
    assert values["quantization"]["power_of_two"] is True and "input" not in values["quantization"]


def test_recipe_has_one_stage_of_layers_or_the_stages(path):
    rules = 'layers.a = { kind = "column", keep = 0.5 }'
    one = recipe_values(read(path, f"[prune]\nrho = [0.01, 0.2]\n{rules}"))
    assert [(stage["name"], stage["rho"]) for stage in one["stages"]] == [("prune", [0.01, 0.2])]
    two = recipe_values(
        read(
            path,
            f"[prune]\nupdates_per_epoch = 3\n[[prune.stages]]\nname = 'half'\n{rules}\n"
            f"[[prune.stages]]\nname = 'more'\nrho = [1, 2]\nadmm = {{ epochs = 9, lr = [1, 1] }}\n{rules}",
        )
    )
    assert [stage["name"] for stage in two["stages"]] == ["half", "more"]
    assert [stage["rho"] for stage in two["stages"]] == [[1e-3, 3.0], [1, 2]]
    assert [stage["updates_per_epoch"] for stage in two["stages"]] == [3, 3]
    assert two["stages"][1]["admm"]["epochs"] == 9
    assert parse_recipe(two).stages[1].admm.lr == (1, 1)


def test_methods_and_budgets_reach_the_recipe(path):
    text = """
[[prune.stages]]
name = "cheap"
layers."*" = { kind = "nonstructured", keep = 1.0 }
allocation = { budget = { macs = 900 }, shares = [0.5], retrain = { epochs = 1, lr = [1, 1] } }
retrain = { epochs = 2, lr = [1, 1], flip = true, crop = 2, distill = 0.5, temperature = 3.0, precision = "bfloat16" }
[[prune.stages]]
name = "control"
method = "oneshot"
admm = { epochs = 0, lr = [1, 1] }
layers.a = { kind = "column", keep = 0.5 }
purify = { weak = 0.25, retrain = { epochs = 3, lr = [1, 1] } }
"""
    recipe = parse_recipe(recipe_values(read(path, text)) | {"name": "x"})
    cheap, control = recipe.stages
    assert (cheap.allocation.budget, cheap.allocation.shares) == (Budget(macs=900), (0.5,))
    assert (cheap.allocation.retrain.epochs, cheap.allocation.trials, cheap.allocation.samples) == (1, 60, 10_000)
    purify = control.purify
    assert (purify.weak, purify.empty, purify.retrain.epochs) == (0.25, 0.5, 3) and cheap.purify is None
    phase = cheap.retrain
    assert (phase.flip, phase.crop, phase.distill, phase.temperature, phase.precision.value) == (
        True, 2, 0.5, 3.0, "bfloat16",
    )  # fmt: skip
    assert (cheap.method, control.method) == (Method.ADMM, Method.ONESHOT)


def test_rho_by_layer(path):
    rules = 'layers.a = { kind = "column", keep = 0.5 }\nlayers."b*" = { kind = "filter", keep = 0.5 }'
    project = read(path, f'[prune]\nrho = {{ a = [0.01, 2], "b*" = [1, 20.5] }}\n{rules}')
    values = recipe_values(project) | {"name": "x"}
    assert values["stages"][0]["rho"] == {"a": [0.01, 2], "b*": [1, 20.5]}
    assert parse_recipe(values).stages[0].rho == {"a": (0.01, 2), "b*": (1, 20.5)}
    stage = f"[[prune.stages]]\nname = 'one'\nrho = {{ a = [1, 2] }}\n{rules}"
    assert recipe_values(read(path, stage))["stages"][0]["rho"] == {"a": [1, 2]}


@pytest.mark.parametrize("constraint", EVERY_SET, ids=lambda c: as_values(c)["kind"])
def test_every_set_can_be_said_in_a_project(path, constraint):
    rule = {key: value for key, value in as_values(constraint).items() if value is not None}
    project = parse_project({"prune": {"layers": {"a": rule}}}, path)
    recipe = parse_recipe(recipe_values(project) | {"name": "x"})
    assert recipe.stages[0].layers["a"].constraint() == constraint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prun = 1", "the top level has an unknown key 'prun'; did you mean 'prune'?"),
        (
            "[[prune.stages]]\nname = 'a'\nlayers.b = { kind = 'channel', keep = 1 }\nallocation.budget.products = 2",
            "A budget must be one of weights, macs, cycles, bits, not none",
        ),
        (
            "[[prune.stages]]\nname = 'a'\nlayers.b = { kind = 'codebook', k = 3 }\nmethod = 'magnitude'",
            "Stage 'a' has codebook for layer 'b', but method magnitude needs a set that says which weights stay",
        ),
        ("zzz = 1", "the top level has an unknown key 'zzz'; the keys are name, network, data, prune, quantize, "),
        ("path = 'x'", "the top level has an unknown key 'path'"),
        ("prune = 3", "the top level, key 'prune' must be a table, not 3"),
        ("format = '2.0'", "the top level, key 'format' must be '1.0', not '2.0'"),
        ("name = 'a/b'", "the top level, key 'name' must be letters, digits, '.', '_' and '-', and begin"),
        ("[prune]\nsed = 1", "table [prune] has an unknown key 'sed'; did you mean 'seed'?"),
        ("[prune]\nseed = 1.5", "table [prune], key 'seed' must be a whole number, not 1.5"),
        ("[prune]\nseed = true", "table [prune], key 'seed' must be a whole number, not True"),
        ("[prune]\nseed = -1", "table [prune], key 'seed' must be greater than or equal to 0, not -1"),
        ("[prune]\nrho = { a = [1, 0] }", "table [prune.rho], key 'a[1]' must be greater than 0, not 0"),
        ("[prune]\nrho = { a = 3 }", "table [prune.rho], key 'a' must be a list, not 3"),
        ("[prune]\nrho = 3", "table [prune], key 'rho' must be a list"),
        ("[prune]\nrho = [1, nan]", "table [prune], key 'rho[1]' must be a finite number, not nan"),
        ("[prune]\ndense = { epochs = 3 }", "table [prune.dense] lacks the key 'lr'; add it"),
        ("[prune]\nadmm = { epochs = 3, lr = [1] }", "table [prune.admm], key 'lr' must have more items, not [1]"),
        ("[prune]\nadmm = { epochs = 3, lr = 1 }", "table [prune.admm], key 'lr' must be a list, not 1"),
        (
            "[prune]\nlayers.a = { kind = 'colum', keep = 1 }",
            "table [prune.layers.a] has the unknown kind 'colum'; the nearest are: ",
        ),
        (
            "[prune]\nlayers.a = { kind = 'column', keep = 1.5 }",
            "table [prune.layers.a]: keep must be a fraction in (0, 1] or a whole count, not 1.5",
        ),
        (
            "[prune]\nlayers.a = { kind = 'column', kep = 1 }",
            "table [prune.layers.a] has an unknown key 'kep'; the nearest are: keep",
        ),
        (
            "[prune]\nlayers.a = { kind = 'nonstructured', keep = 1, group = 2 }",
            "table [prune.layers.a] has the key 'group', which belongs to kind column; kind nonstructured has keep",
        ),
        (
            "[prune]\nlayers.a = { kind = 'column', keep = 1 }\n[[prune.stages]]\nname = 'b'\nlayers = {}",
            "table [prune] must have either 'layers' or 'stages', not both; move the layers into a stage",
        ),
        (
            "[[prune.stages]]\nname = 'a'\nlayers.b = { kind = 'nm', n = 2 }",
            "table [prune.stages[0].layers.b] lacks the key 'm'",
        ),
        (
            "[prune]\nlayers.a = { kind = 'column', keep = 1 }\nadmm = { epochs = 0, lr = [1, 1] }",
            "stage 'prune' must have at least 1 ADMM epoch, not 0; raise 'epochs' of its 'admm', or of that in [prune]",
        ),
        (
            "[[prune.stages]]\nname = 'a'\nadmm = { epochs = 0, lr = [1, 1]}\nlayers.b = { kind = 'nm', n = 1, m = 2 }",
            "stage 'a' must have at least 1 ADMM epoch, not 0",
        ),
        ("[[prune.stages]]\nname = 'a'\nlayers = {}", "stage 'a' must have at least one layer in its 'layers'; add it"),
        ("[[prune.stages]]\nname = 'a'", "table [prune.stages[0]] lacks the key 'layers'; add it"),
        ("[[prune.stages]]\nrh = 3", "table [prune.stages[0]] has an unknown key 'rh'; did you mean 'rho'?"),
        ("[[prune.stages]]\nname = 'dense'\nlayers = {}", "key 'name' must differ from stage to stage, and from 'd"),
        ("[quantize]\nweights = 9", "table [quantize], key 'weights' must be less than or equal to 8, not 9"),
        ("[quantize]\ninput = { rang = 3 }", "table [quantize.input] has an unknown key 'rang'; did you mean 'range'?"),
        ("[compile]\nengine = 'fast'", "table [compile], key 'engine' must be 'auto', 'dense' or 'sparse', not 'fa"),
        ("[compile]\nsettings = { lane = 4 }", "[compile.settings] has an unknown key 'lane'; did you mean 'lanes'?"),
        ("[compile]\nsettings = { lanes = 'x' }", "[compile.settings], key 'lanes' must be a whole number, not 'x'"),
        ("[compile]\nboard = 'ulx'", "table [compile], key 'board': Board must be a known one, not 'ulx'; the nearest"),
        ("[synthesize]\nboards = ['ice']", "table [synthesize], key 'boards': Board must be a known one, not 'ice'"),
        ("[synthesize]\nboards = 'x'", "table [synthesize], key 'boards' must be a list, not 'x'"),
        (
            "[synthesize]\nboards = ['icebreaker', 'icebreaker']",
            "table [synthesize], key 'boards' must name each board once, not ['icebreaker', 'icebreaker']",
        ),
    ],
)
def test_errors_name_table_key_and_remedy(path, text, message):
    with pytest.raises(InputError, match=re.escape(f"Project file '{path}': ") + ".*" + re.escape(message)):
        read(path, text)


def test_missing_module_is_named(path):
    (path.parent / "data.py").unlink()
    message = f"table [data], key 'module' names '{path.parent / 'data.py'}', which does not exist; write it or correct"
    with pytest.raises(InputError, match=re.escape(message)):
        read(path)


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match=r"project.toml' does not exist; make one with 'zeroskip new DIR'"):
        load_project(tmp_path)
    (tmp_path / "project.toml").write_text("a = \n")
    with pytest.raises(InputError, match=r"project.toml' is not valid TOML: .*line 1.*; correct that line"):
        load_project(tmp_path)


def test_new_project_is_complete_and_means_what_it_says(tmp_path):
    path = write_project(tmp_path / "my digits!")
    assert sorted(file.name for file in path.parent.iterdir()) == ["README.md", "data.py", "network.py", "project.toml"]
    project = load_project(path.parent)
    assert project.name == "my-digits"
    recipe = parse_recipe(recipe_values(project))
    assert list(recipe.stages[0].layers) == ["conv1", "conv2", "fc*", "fc2"]
    assert recipe.input.range == 16 and recipe.quantization.weights == 4


def test_new_refuses_a_folder_with_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"Folder '.*' must be empty or new, but it holds files; name another one"):
        write_project(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_new_refuses_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Folder '.*file/x' cannot be written: Not a directory; name another one"):
        write_project(tmp_path / "file" / "x")
