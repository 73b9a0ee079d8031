"""From a project to its artifact: check everything that can be checked first, then train, prune and quantize."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from zeroskip.boards.steps import file_digest
from zeroskip.project import Project, recipe_values
from zeroskip.user_code import Images, load_network

__all__ = ["TrainingReport", "train_artifact"]

TrainingReport = Callable[[str, float, float | None], None]
"""Called as ``report(step, elapsed seconds, expected seconds or None)``."""


def train_artifact(
    project: Project,
    images: Mapping[str, Images],
    artifact: Path,
    *,
    checkpoints: Path | None = None,
    report: TrainingReport | None = None,
) -> None:
    """Train, prune and quantize the project's network and write its artifact, and the log of the run beside it.

    ``checkpoints`` keeps finished stages, from which a killed run goes on. The test images are read once, at the end.

    Raises
    ------
    InputError, PruningError
        If the project, its code or its data do not fit together; found before training where it can be.
    """
    import torch

    from zeroskip.pruning import prune
    from zeroskip.pruning.data import ImageSet
    from zeroskip.pruning.recipe_tables import parse_recipe

    recipe = parse_recipe(recipe_values(project), f"project file '{project.path}'")
    parts = {name: ImageSet(torch.tensor(part.codes), torch.tensor(part.labels)) for name, part in images.items()}
    torch.manual_seed(recipe.seed)
    net = prune(
        load_network(project), parts["train"], parts["validation"], recipe,
        test=parts["test"], checkpoints=checkpoints, log=artifact.with_suffix(".log.jsonl"), progress=report,
    )  # fmt: skip
    name = project.network.start
    start = {} if name is None else {"start": f"weights of {name}, sha256 {file_digest(project.folder / name)}"}
    record = replace(
        net.record,
        provenance={
            "recipe_sha256": recipe.digest(),
            "data_sha256": {name: part.digest() for name, part in images.items()},
            **start,
            **net.record.provenance,
            "split": f"{len(parts['train'])} train, {len(parts['validation'])} validation (all choices), "
            f"{len(parts['test'])} test (read once)",
            "accuracy": "on the test images; float is that of the pruned network before quantization and fine-tuning",
        },
    )
    net.save(artifact, record)
