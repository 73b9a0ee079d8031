"""Build the zoo: run recipes on their data sets and write artifact, recipe and log side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from zeroskip.pruning.chain import Built, build_artifact
from zeroskip.pruning.checkpoints import replace_bytes
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.recipe import builtin_recipes, load_recipe

__all__ = ["ZOO", "build_zoo", "main"]

ZOO = Path(__file__).parent / "zoo"


def build_zoo(names: Sequence[str], out_dir: Path, data: Path | None, checkpoints: Path) -> list[Built]:
    """Build the recipes ``names`` into ``out_dir``; artifacts of the same recipe are kept, finished stages reused."""
    built: list[Built] = []
    recipes = [load_recipe(name) for name in names]
    for name, recipe in zip(names, recipes, strict=True):

        def report(step: str, elapsed: float, expected: float | None, label: str = recipe.name) -> None:
            left = "" if expected is None else f" of about {expected:.0f} s"
            print(f"{label}: {step} ({elapsed:.0f} s{left})", file=sys.stderr, flush=True)

        result = build_artifact(recipe, out_dir, data=data, checkpoints=checkpoints, progress=report)
        source = builtin_recipes().get(name, Path(name))
        replace_bytes(out_dir / f"{recipe.name}.toml", source.read_bytes())
        built.append(result)
        accuracy = result.header["accuracy"]
        state = "kept" if result.reused else "built"
        print(
            f"{result.path.name}: {state}, {100 * accuracy['integer']:.2f} % of {accuracy['samples']} (integer)",
            flush=True,
        )
    return built


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, build, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m zeroskip.pruning.zoo_build", description="build artifacts of the zoo"
    )
    parser.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help="names or TOML files (default: every lenet5 recipe)"
    )
    parser.add_argument("--out", type=Path, default=ZOO, metavar="DIR", help="output folder (default: %(default)s)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets (default: ZEROSKIP_DATA)")
    parser.add_argument("--checkpoints", type=Path, default=Path("build/checkpoints"), metavar="DIR",
                        help="folder of finished stages (default: %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    names = options.recipes or [name for name in builtin_recipes() if name.startswith("lenet5")]
    try:
        build_zoo(names, options.out, options.data, options.checkpoints)
    except PruningError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
