"""Recipes written as TOML say what they said."""

from __future__ import annotations

import tomllib

import pytest

from zeroskip.pruning.recipe_files import builtin_recipes, load_recipe
from zeroskip.pruning.recipe_tables import parse_recipe
from zeroskip.pruning.toml import to_toml


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_recipe_comes_back(name):
    recipe = load_recipe(name)
    again = parse_recipe(tomllib.loads(to_toml(recipe.as_dict())))
    assert again.digest() == recipe.digest()


def test_keys_and_values_that_need_quotes():
    values = {"a": None, "b c*": 'x"y\n', "n": {"d": [1, 2.5, True], "e": None}, "t": [{"f": {"g*": 1e-05}}, {"f": {}}]}
    assert tomllib.loads(to_toml(values)) == {
        "b c*": 'x"y\n', "n": {"d": [1, 2.5, True]}, "t": [{"f": {"g*": 1e-05}}, {"f": {}}],
    }  # fmt: skip
