"""The tables and examples of pruning settings in docs/formats.md: read by the code that reads a user's files."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from zeroskip.pruning.budgets import Budget
from zeroskip.pruning.checkpoints import plain_values
from zeroskip.pruning.constraints import NM, Block
from zeroskip.pruning.constraints.kinds import KINDS, option_names
from zeroskip.pruning.constraints.levels import GRIDS
from zeroskip.pruning.constraints.micro_block import MODES
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.networks import NETWORKS
from zeroskip.pruning.purification import Purification
from zeroskip.pruning.recipe import Method, Quantization, Recipe, Stage, StageAllocation
from zeroskip.pruning.recipe_files import load_recipe
from zeroskip.pruning.recipe_tables import parse_recipe, parse_rule
from zeroskip.pruning.training import Phase

TEXT = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
BLOCKS = [(block, tomllib.loads(block)) for block in re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)]
RECIPES = [values for _, values in BLOCKS if isinstance(values.get("network"), str)]
KEYS = {
    Recipe: "\n## Recipe file\n",
    Phase: "\n### Phase\n",
    Stage: "\n### Stages\n",
    StageAllocation: "\n### Allocation\n",
    Budget: "\nA budget has exactly one",
    Purification: "\n### Purification\n",
    Quantization: "\n`[quantization]`:\n",
    Input: "\n`[input]`,",
}
"""What stands before the table of each class's keys."""
OPTION = re.compile(r"`(\w+)(?: = ([^`]+))?`( \(optional\))?")


def table(start):
    """Return the rows of the first table behind ``start``, each a list of its cells."""
    lines = TEXT.partition(start)[2].partition("\n|---")[2].splitlines()[1:]
    ends = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    assert ends, start
    return [line[2:-2].split(" | ") for line in lines[:ends]]


def default_of(field):
    """Return the default of a dataclass field as plain values."""
    made = field.default_factory() if field.default is dataclasses.MISSING else field.default
    return plain_values(made)


def required(field):
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def value(cell):
    """Return the TOML value that a cell shows as code."""
    return tomllib.loads(f"value = {cell.strip('`')}")["value"]


def test_table_names_every_kind_with_its_options():
    rows = table("\n### Constraint sets\n")
    assert [kind.strip("`") for kind, *_ in rows] == list(KINDS)
    for kind, (_, options, _) in zip(KINDS, rows, strict=True):
        fields = {field.name: field for field in dataclasses.fields(KINDS[kind])}
        found = OPTION.findall(options)
        assert sorted(name for name, *_ in found) == sorted(option_names(kind)), kind
        for name, default, optional in found:
            assert required(fields[name]) == (not default and not optional), (kind, name)
            if not required(fields[name]):
                assert default_of(fields[name]) == (value(default) if default else None), (kind, name)


def test_every_kind_has_a_line_that_is_read():
    ((block, rules),) = [entry for entry in BLOCKS if entry[1] not in RECIPES]
    lines = block.splitlines()
    assert [parse_rule(tomllib.loads(line)[name], name).kind for line, name in zip(lines, rules, strict=True)] == [
        *KINDS
    ]


@pytest.mark.parametrize("values", RECIPES, ids=lambda values: values["name"])
def test_recipes_are_read(values):
    assert parse_recipe(values).stages


def test_extending_a_recipe_takes_what_the_page_says(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "base.toml"\nname = "mine"\nquantization = { finetune = { epochs = 1, lr = [1, 1] } }\n')
    (tmp_path / "base.toml").write_text(next(block for block, values in BLOCKS if values in RECIPES))
    base, mine = load_recipe(tmp_path / "base.toml"), load_recipe(path)
    assert (mine.stages, mine.dense, mine.name) == (base.stages, base.dense, "mine")
    assert (base.quantization.calibration, mine.quantization.calibration) == (200, 1024)


@pytest.mark.parametrize("cls", KEYS)
def test_key_tables_have_every_key_and_default(cls):
    rows = {key.strip("`"): default for key, _, default, _ in table(KEYS[cls])}
    # A file's own key: what it extends is part of the recipe once it is read.
    if cls is Recipe:
        assert rows.pop("extends") == "none"
    fields = {field.name: field for field in dataclasses.fields(cls)}
    assert sorted(rows) == sorted(fields)
    for name, default in rows.items():
        assert (default == "required") == required(fields[name]), name
        if default == "required":
            continue
        found, shown = default_of(fields[name]), None if default == "none" else value(default)
        # A table shows what a user would write, without the keys that have their own default.
        assert found == (found | shown if isinstance(shown, dict) else shown), name


def test_choices_are_all_named():
    rows = {start: [row[0].strip("`") for row in table(start)] for start in ("| `mode` of ", "| `grid` of ")}
    assert [sorted(names) for names in rows.values()] == [sorted(MODES), sorted(GRIDS)]
    keys = {row[0].strip("`"): row for cls in (Recipe, Stage) for row in table(KEYS[cls])}
    assert set(re.findall(r"`(\w+)`", keys["network"][3])) == set(NETWORKS)
    assert set(re.findall(r'"(\w+)"', " ".join(keys["method"]))) == {method.value for method in Method}


def test_ragged_shapes_are_as_the_table_says():
    shape = (10, 16, 3, 3)
    assert NM(2, 5).count(shape) == 58 * 10
    assert Block(1.0).count(shape) == 3 * 36
