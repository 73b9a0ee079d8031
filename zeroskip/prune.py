"""The verb ``prune``: a user's project, or a recipe on a known data set, to an artifact."""

from __future__ import annotations

import contextlib
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zeroskip.compiler.errors import InputError
from zeroskip.disk import require_space
from zeroskip.inspection import inspect_source
from zeroskip.progress import Progress

__all__ = ["prune_file"]

FREE_MB = 500
REPORT_SECONDS = 5.0


def prune_file(
    source: Path,
    out: Path | None,
    *,
    data: Path | None = None,
    seed: int | None = None,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> tuple[Path, dict[str, Any]]:
    """Train, prune and quantize what ``source`` describes; return the artifact's path and its description.

    Finished stages are kept beside the artifact: a killed run starts its stage in progress again, with the same bytes.

    Parameters
    ----------
    source : project file, recipe file, or the name of a recipe that ships with zeroskip
    out : artifact to write; by default where the project says, or ``build/zoo/<name>.safetensors``
    data : folder with the data sets, instead of ``ZEROSKIP_DATA``
    seed : instead of the file's
    quiet, say : progress

    Raises
    ------
    InputError
        Before training, if ``out`` cannot be written.
    """
    recipe = _is_recipe(source)
    with contextlib.nullcontext() if out is None else _writable(out, 1):
        artifact = _from_recipe(source, out, data, seed, say) if recipe else _from_project(source, data, seed, quiet)
        if out is not None and out.resolve() != artifact.resolve():
            artifact = _copied(artifact, out)
    return artifact, inspect_source(artifact)[0]


@contextlib.contextmanager
def _writable(path: Path, megabytes: int) -> Iterator[None]:
    """Refuse a file that cannot be written; folders that were made for nothing go at the end."""
    made: list[Path] = []
    try:
        _probe(path, megabytes, made)
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _probe(path: Path, megabytes: int, made: list[Path]) -> None:
    """Write a file beside ``path`` and remove it again; add the folders that had to be made, inner ones first."""
    try:
        if path.is_dir():
            raise InputError(f"File '{path}' cannot be written: it is a folder; name a file in it with --out")
        made += [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        require_space(path.parent, megabytes)
        scratch = _scratch(path)
        scratch.touch()
        scratch.unlink()
    except OSError as error:
        raise InputError(f"File '{path}' cannot be written: {error.strerror}; name another one with --out") from error


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _copied(artifact: Path, out: Path) -> Path:
    """Copy the artifact to ``out``, whole or not at all."""
    try:
        shutil.copyfile(artifact, _scratch(out))
        return _scratch(out).replace(out)
    finally:
        _scratch(out).unlink(missing_ok=True)


def _is_recipe(source: Path) -> bool:
    from zeroskip.pruning.errors import nearest
    from zeroskip.pruning.recipe_files import builtin_recipes

    if not source.exists():
        if str(source) in builtin_recipes():
            return True
        raise InputError(
            f"'{source}' is neither a file nor a recipe; the nearest recipes are: "
            f"{nearest(str(source), builtin_recipes())}; or write a project with 'zeroskip new'"
        )
    try:
        values = tomllib.loads(source.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"File '{source}' must be TOML: {error}") from error
    except OSError as error:
        raise InputError(f"File '{source}' cannot be read: {error.strerror}") from error
    return isinstance(values.get("network"), str) or isinstance(values.get("extends"), str)


def _from_project(source: Path, data: Path | None, seed: int | None, quiet: bool) -> Path:
    from zeroskip.flow import prune_step

    return prune_step(source, Progress(0, quiet=quiet), data=data, seed=seed)


def _from_recipe(
    source: Path, out: Path | None, data: Path | None, seed: int | None, say: Callable[[str], None]
) -> Path:
    from dataclasses import replace

    from zeroskip.pruning.chain import build_artifact
    from zeroskip.pruning.recipe_files import load_recipe

    recipe = load_recipe(source if source.exists() else str(source))
    if seed is not None and seed != recipe.seed:
        recipe = replace(recipe, seed=seed, name=f"{recipe.name}-seed{seed}")
    folder = Path("build/zoo") if out is None else out.parent
    last = [-REPORT_SECONDS]

    def progress(step: str, elapsed: float, expected: float | None) -> None:
        if elapsed - last[0] >= REPORT_SECONDS:
            last[0] = elapsed
            say(f"{step} ... {elapsed:.0f} s" + ("" if expected is None else f" (expected {expected:.0f} s in all)"))

    with _writable(folder / f"{recipe.name}.safetensors", FREE_MB):
        return build_artifact(recipe, folder, data=data, checkpoints=folder / "checkpoints", progress=progress).path
