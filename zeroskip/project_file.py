"""Project files: TOML to a :class:`zeroskip.project.Project`, and errors that name table, key and remedy."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from zeroskip.compiler.errors import InputError
from zeroskip.project import Layers, Project, Prune, recipe_values, stages_of

__all__ = ["FILE_NAME", "load_project", "parse_project"]

FILE_NAME = "project.toml"

_WORDS = {
    "Input should": "must",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "a text",
    "a valid array": "a list",
    "an object": "a table",
}
"""Pydantic's words, and TOML's."""


def load_project(path: Path | str) -> Project:
    """Read a project file; a folder stands for its ``project.toml``.

    Raises
    ------
    InputError
        Naming the file, the table, the key and what to change.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"Project file '{path}' does not exist; make one with 'zeroskip new DIR'") from None
    except OSError as error:
        raise InputError(f"Project file '{path}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"Project file '{path}' is not valid TOML: {error}; correct that line") from error
    return parse_project(values, path)


def parse_project(values: Mapping[str, Any], path: Path) -> Project:
    """Return the project that the parsed TOML ``values`` of the file ``path`` describe.

    Raises
    ------
    InputError
        Naming the file, the table, the key and what to change.
    """
    where = f"Project file '{path}'"
    if "path" in values:
        raise InputError(f"{where}: {_unknown('path', (), _keys(Project))}")
    _refuse_unknown_keys(where, values, Project, ())
    path = path.absolute()
    given = {"name": path.parent.name, **values, "path": str(path)}
    try:
        # By way of JSON: strict validation takes its lists for tuples, but nothing else for what it is not.
        project = TypeAdapter(Project).validate_json(json.dumps(given, default=str), strict=True)
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error.errors()[0], given)}") from error
    _check(project, where)
    return project


def _refuse_unknown_keys(where: str, values: Any, kind: Any, place: tuple[str, ...]) -> None:
    """Walk the tables beside the dataclasses and refuse the first key that a dataclass does not have."""
    if get_origin(kind) is tuple and isinstance(values, list):
        for number, entry in enumerate(values):
            _refuse_unknown_keys(where, entry, get_args(kind)[0], (*place[:-1], f"{place[-1]}[{number}]"))
    elif get_origin(kind) is Mapping and isinstance(values, dict):
        for key, entry in values.items():
            _refuse_unknown_keys(where, entry, get_args(kind)[1], (*place, key))
    elif dataclasses.is_dataclass(kind) and isinstance(values, dict):
        hints = get_type_hints(kind)
        for key, entry in values.items():
            if key not in hints:
                raise InputError(f"{where}: {_unknown(key, place, _keys(kind))}")
            _refuse_unknown_keys(where, entry, _table_type(hints[key]), (*place, key))


def _table_type(hint: Any) -> Any:
    """Return what is left of ``X | None``."""
    choices = [choice for choice in get_args(hint) if choice is not type(None)]
    return choices[0] if type(None) in get_args(hint) and len(choices) == 1 else hint


def _keys(kind: Any) -> list[str]:
    """Return the keys that a table may have."""
    return [field.name for field in dataclasses.fields(kind) if field.name != "path"]


def _unknown(key: str, place: tuple[str, ...], known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
    return f"{_table(place)} has an unknown key {key!r}; {hint}"


def _table(place: tuple[str, ...]) -> str:
    return f"table [{'.'.join(place)}]" if place else "the top level"


def _explain(error: Any, values: Any) -> str:
    """Turn pydantic's description of an error into a sentence that names table and key."""
    place: list[str] = []
    here = values
    for step in error["loc"]:
        # A location also names the branch of a union, which is no key.
        if isinstance(here, Mapping) and step in here:
            here = here[step]
            place.append(step)
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
            place[-1] += f"[{step}]"
        elif error["type"] == "missing" and isinstance(here, Mapping):
            return f"{_table(tuple(place))} lacks the key {step!r}; add it"
    message = error["msg"].removeprefix("Value error, ")
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    if error["type"] == "missing":
        message = "must have more items"
    elif error["type"] == "string_pattern_mismatch":
        message = "must be letters, digits, '.', '_' and '-', and begin with a letter or digit"
    return f"{_table(tuple(place[:-1]))}, key {place[-1]!r} {message}, not {here!r}"


def _check(project: Project, where: str) -> None:
    """Refuse what only other modules can tell is wrong, before anything is trained."""
    from zeroskip.boards import find_board
    from zeroskip.hw.design import SETTINGS

    _check_stages(project.prune, where)
    _check_recipe(project, where)
    boards = project.synthesize.boards
    if len(set(boards)) != len(boards):
        raise InputError(f"{where}: table [synthesize], key 'boards' must name each board once, not {list(boards)}")
    sizing = project.compile.board
    for place, board in (*(("[synthesize], key 'boards'", b) for b in boards), ("[compile], key 'board'", sizing)):
        try:
            if board is not None:
                find_board(board)
        except InputError as error:
            raise InputError(f"{where}: table {place}: {error}") from error
    for key in project.compile.settings:
        if key not in SETTINGS:
            raise InputError(f"{where}: {_unknown(key, ('compile', 'settings'), list(SETTINGS))}")
    files = [("network", "module", project.network.module), ("data", "module", project.data.module)]
    if project.network.start is not None:
        files.append(("network", "start", project.network.start))
    for table, key, name in files:
        file = project.folder / name
        if not file.is_file():
            raise InputError(
                f"{where}: table [{table}], key {key!r} names '{file}', which does not exist; "
                "write it or correct the name"
            )


def _check_stages(prune: Prune, where: str) -> None:
    if prune.layers and prune.stages:
        raise InputError(
            f"{where}: table [prune] must have either 'layers' or 'stages', not both; move the layers into a stage"
        )
    names = [stage.name for stage in prune.stages]
    if len(set(names)) != len(names) or {"dense", "finetune"} & set(names):
        raise InputError(
            f"{where}: table [prune.stages], key 'name' must differ from stage to stage, and from 'dense' and "
            f"'finetune', not {names}"
        )
    _check_layers(prune.layers, where, "prune")
    for number, stage in enumerate(prune.stages):
        if not stage.layers:
            raise InputError(f"{where}: stage '{stage.name}' must have at least one layer in its 'layers'; add it")
        _check_layers(stage.layers, where, f"prune.stages[{number}]")
    for stage in stages_of(prune):
        if stage.method in ("admm", "gradual") and not (stage.admm or prune.admm).epochs:
            raise InputError(
                f"{where}: stage '{stage.name}' must have at least 1 ADMM epoch, not 0; raise 'epochs' of its "
                "'admm', or of that in [prune], or leave out its layers"
            )


def _check_recipe(project: Project, where: str) -> None:
    """Refuse settings that cannot be together."""
    if not stages_of(project.prune):
        return
    from zeroskip.pruning.errors import PruningError
    from zeroskip.pruning.recipe_tables import parse_recipe

    try:
        parse_recipe(recipe_values(project), "prune")
    except PruningError as error:
        raise InputError(f"{where}: {error}") from error


def _check_layers(layers: Layers, where: str, table: str) -> None:
    """Refuse what the recipe would refuse later."""
    if not layers:
        return
    from zeroskip.pruning.errors import PruningError
    from zeroskip.pruning.recipe_tables import parse_rule

    for layer, rule in layers.items():
        try:
            parse_rule(rule, f"table [{table}.layers.{layer}]")
        except PruningError as error:
            raise InputError(f"{where}: {error}") from error
