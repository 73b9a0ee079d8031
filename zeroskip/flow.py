"""The steps of a build: prune, compile, simulate, synthesize, report; numbered, timed, resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zeroskip import api
from zeroskip.boards.steps import StepRecord, Steps, file_digest
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.importers import stored_model
from zeroskip.disk import require_space
from zeroskip.inspection import inspect_source, missed_goals
from zeroskip.progress import Progress, Step
from zeroskip.project import Project, recipe_values
from zeroskip.project_file import load_project
from zeroskip.report import design_text, html_page
from zeroskip.training import train_artifact
from zeroskip.user_code import code_identity, load_images

__all__ = ["RECORD_NAME", "BuildResult", "artifact_path", "build", "prune_step"]

RECORD_NAME = "build.json"
FREE_MB = 1000

EXPECTED_SECONDS = {"compile": 3.0, "simulate": 15.0, "synth": 90.0, "report": 1.0}
"""What a step takes on an ordinary machine before it was ever run here; training tells by itself."""


@dataclass(frozen=True)
class BuildResult:
    """A finished build: the design, its artifact, and how each step went."""

    project: Project
    artifact: Path
    design: api.Design
    steps: tuple[StepRecord, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the design's report with those of the boards, and the steps, as JSON values."""
        content = self.design.report()
        content["boards"] = {board: self.design.report(board) for board in self.project.synthesize.boards}
        content["artifact"] = str(self.artifact)
        content["folder"] = str(self.design.directory)
        content["steps"] = [dataclasses.asdict(step) for step in self.steps]
        return content

    def __str__(self) -> str:
        ran = [step for step in self.steps if not step.reused]
        counts = f"{len(self.steps)} steps, {len(self.steps) - len(ran)} reused"
        seconds = sum(step.seconds for step in ran)
        return f"{design_text(self.design)}\n{counts}, {seconds:.1f} s; files: {self.design.directory}"


def artifact_path(project: Project, out: Path) -> Path:
    """Return where a project's artifact lies in its output folder."""
    return out / f"{project.name}.safetensors"


def build(
    project: Project | Path | str,
    progress: Progress | None = None,
    *,
    out: Path | None = None,
    data: Path | None = None,
    jobs: int | None = None,
    seed: int | None = None,
) -> BuildResult:
    """Prune, compile, simulate, synthesize for each board, and report; what is there and unchanged is kept.

    A step is skipped when the hashes of its inputs, its options and the tool versions are those of its last run and its
    outputs are intact; a killed build starts the step in progress again, of training only the stage in progress.
    ``out/build.json`` records every step.

    Parameters
    ----------
    project : a project, or the path of its file
    progress : shows the steps; its ``total_steps`` grows by those of this build
    out : folder; ``build/<name>`` beside the project file when None
    data : folder that ``ZEROSKIP_DATA`` names for the project's data module
    jobs, seed : instead of those of the project file

    Raises
    ------
    InputError
        If the project is not usable, ``out`` is not writable or in use, or the disk is nearly full.
    PruningError, CompileError, CapacityError, VerificationError, ToolError
        As the steps raise them.
    """
    chosen = _chosen(project, jobs, seed)
    folder = chosen.out if out is None else out
    boards = chosen.synthesize.boards
    shown = Progress(0, quiet=True) if progress is None else progress
    shown.total_steps += 4 + len(boards)
    require_space(folder, FREE_MB)
    with _exclusive(folder):
        run = _Build(chosen, folder, shown)
        artifact = run.prune(data)
        for line in missed_goals(inspect_source(artifact)[0]):
            shown.note(line)
        design = run.compile(artifact)
        run.simulate(design)
        for board in boards:
            run.synthesize(design, board)
        run.report(design)
        return BuildResult(chosen, artifact, design, tuple(run.records))


def prune_step(
    project: Project | Path | str,
    progress: Progress | None = None,
    *,
    out: Path | None = None,
    data: Path | None = None,
    seed: int | None = None,
) -> Path:
    """Do only the first step of :func:`build` and return the artifact."""
    chosen = _chosen(project, None, seed)
    folder = chosen.out if out is None else out
    shown = Progress(0, quiet=True) if progress is None else progress
    shown.total_steps += 1
    require_space(folder, FREE_MB)
    with _exclusive(folder):
        return _Build(chosen, folder, shown).prune(data)


def _chosen(project: Project | Path | str, jobs: int | None, seed: int | None) -> Project:
    """Return the project with what the caller wants otherwise."""
    chosen = project if isinstance(project, Project) else load_project(project)
    if jobs is not None:
        chosen = dataclasses.replace(chosen, synthesize=dataclasses.replace(chosen.synthesize, jobs=jobs))
    if seed is not None:
        chosen = dataclasses.replace(chosen, prune=dataclasses.replace(chosen.prune, seed=seed))
    return chosen


class _Build:
    """One run of :func:`build`."""

    def __init__(self, project: Project, out: Path, progress: Progress) -> None:
        self.project = project
        self.out = out
        self.progress = progress
        self.records: list[StepRecord] = []
        self._expected = _last_seconds(out / RECORD_NAME)

    def prune(self, data: Path | None) -> Path:
        """Train the artifact."""
        artifact = artifact_path(self.project, self.out)
        with self._step("prune") as step:
            step.detail("load the data")
            with _data_folder(data):
                images = load_images(self.project)
            identity = {
                "recipe": json.dumps(recipe_values(self.project), sort_keys=True),
                **code_identity(self.project),
                **{f"data {name}": part.digest() for name, part in images.items()},
                **_versions("torch", "numpy", packages=("pruning",)),
            }

            def action(scratch: Path) -> None:
                # Beside the scratch folder, which is emptied when a run is killed.
                checkpoints = self.out / "checkpoints"
                with _located(self.project):
                    train_artifact(
                        self.project, images, scratch / artifact.name,
                        checkpoints=checkpoints, report=lambda text, elapsed, expected: step.detail(text, expected),
                    )  # fmt: skip

            self._run(step, "prune", identity, [artifact.name, artifact.with_suffix(".log.jsonl").name], action)
        return artifact

    def compile(self, artifact: Path) -> api.Design:
        """Compile the artifact into the folder itself."""
        options, board = self.project.compile, self.project.size_board
        settings = {key: str(value) for key, value in options.settings.items()}
        if options.parameters != "rom":
            settings["parameters"] = options.parameters
        identity = {
            "artifact": file_digest(artifact),
            "engine": options.engine,
            "limits": _limits_text(board),
            "settings": json.dumps(settings, sort_keys=True),
            **_versions("amaranth", packages=("compiler", "hw")),
        }
        with self._step("compile") as step:

            def action(scratch: Path) -> None:
                api.compile(artifact, self.out, options.engine, board, settings)

            self._run(step, "compile", identity, [], action, intact=_is_intact(self.out))
        return api.load(self.out)

    def simulate(self, design: api.Design) -> None:
        """Compare every layer of the RTL with the reference, and measure the cycles."""
        from zeroskip.boards.verilator_cache import find_toolchain

        summary = "simulation.json"
        identity = {
            "design": file_digest(self.out / "manifest.json"),
            "verilator": find_toolchain().identity,
            **_versions("cocotb", packages=("boards", "compiler")),
        }
        measured = design.report().get("rtl_sha256") == design.rtl_digest()
        with self._step("simulate") as step:

            def action(scratch: Path) -> None:
                result = design.simulate(progress=step.detail).check()
                content = {
                    "vectors": result.vectors,
                    "values_compared": result.values_compared,
                    "mismatches": result.mismatch_count,
                    "simulated_cycles": result.simulated_cycles,
                }
                (scratch / summary).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")

            self._run(step, "simulate", identity, [summary], action, intact=measured)

    def synthesize(self, design: api.Design, board: str) -> None:
        """Synthesize, check, place and route; the tool flow keeps its own finished steps."""
        options = self.project.synthesize
        name = f"synth {board}"
        with self._step(name) as step:

            def show(line: str) -> None:
                text = line.partition("] ")[2] or line
                if self.progress.is_terminal:
                    step.detail(text)
                else:
                    self.progress.note(f"      {text}")

            start = time.monotonic()
            result = design.synthesize(board, options.seeds, jobs=options.jobs, progress=show)
            seconds = time.monotonic() - start
            reused = all(part.reused for part in result.steps)
            if reused:
                seconds = self._expected.get(name, sum(part.seconds for part in result.steps))
            self._finish(step, StepRecord(name, round(seconds, 2), reused))

    def report(self, design: api.Design) -> None:
        """Write the tables as text and as one HTML page."""
        folder = self.out / "report"
        identity = {
            **{str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("report.json"))},
            **_versions("rich", "jinja2"),
            "code": _digest([*_files("zeroskip", "report.py"), *_files("zeroskip", "html/*.jinja")]),
        }
        with self._step("report") as step:

            def action(scratch: Path) -> None:
                (scratch / "report").mkdir()
                (scratch / "report" / "report.txt").write_text(design_text(design) + "\n", encoding="utf-8")
                (scratch / "report" / "report.html").write_text(html_page(design), encoding="utf-8")

            self._run(step, "report", identity, ["report/report.txt", "report/report.html"], action)

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[Step]:
        """Show a step, and write down when it fails."""
        expected = self._expected.get(name, EXPECTED_SECONDS.get(name.split()[0]))
        with self.progress.step(name, expected) as step:
            try:
                yield step
            except BaseException as error:
                self._write({"name": name, "error": str(error) or type(error).__name__})
                raise

    def _run(
        self,
        step: Step,
        name: str,
        identity: Mapping[str, str],
        outputs: Sequence[str],
        action: Callable[[Path], None],
        *,
        intact: bool = True,
    ) -> None:
        """Run one step through the records of :class:`Steps`; ``intact`` False runs it in any case."""
        steps = Steps(self.out, total=1, title=self.project.name, resume=intact)
        self._finish(step, steps.run(name, identity, outputs, action))

    def _finish(self, step: Step, record: StepRecord) -> None:
        if record.reused:
            step.reuse(record.seconds)
        self.records.append(record)
        self._expected[record.name] = record.seconds
        self._write(None)

    def _write(self, failed: Mapping[str, str] | None) -> None:
        """Write ``build.json`` as things stand."""
        content = {
            "format": "1.0",
            "project": {"name": self.project.name, "sha256": file_digest(self.project.path)},
            "steps": [dataclasses.asdict(record) for record in self.records],
            "failed": failed,
            "finished": failed is None and len(self.records) == 4 + len(self.project.synthesize.boards),
            "expected_seconds": self._expected,
            "versions": _versions(),
        }
        api.write_json(self.out / RECORD_NAME, content)


@contextlib.contextmanager
def _located(project: Project) -> Iterator[None]:
    """Name the project file in errors of pruning; they say the stage themselves."""
    from zeroskip.pruning.errors import PruningError

    try:
        yield
    except PruningError as error:
        if str(project.path) in str(error):
            raise
        raise type(error)(f"Project file '{project.path}': {error}") from error


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Keep a second build out of the folder."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Folder '{folder}' is in use by another build; wait for it or name another folder"
            ) from None
        yield


@contextlib.contextmanager
def _data_folder(data: Path | None) -> Iterator[None]:
    """Name the data folder to the project's data module, as the environment does."""
    before = os.environ.get("ZEROSKIP_DATA")
    if data is not None:
        if not data.is_dir():
            raise InputError(f"Data folder '{data}' does not exist; name another one with --data")
        os.environ["ZEROSKIP_DATA"] = str(data.absolute())
    try:
        yield
    finally:
        if data is not None:
            os.environ.pop("ZEROSKIP_DATA")
            if before is not None:
                os.environ["ZEROSKIP_DATA"] = before


def _last_seconds(record: Path) -> dict[str, float]:
    """Return what each step took when it last ran; nothing where there is no readable record."""
    try:
        seconds = json.loads(record.read_text(encoding="utf-8"))["expected_seconds"]
        return {str(name): float(value) for name, value in seconds.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_intact(out: Path) -> bool:
    """Whether a compiled folder is as its manifest says; the reports may have grown since."""
    try:
        manifest = api.read_manifest(out)
        files = {path: digest for path, digest in manifest["files"].items() if not path.startswith("report/")}
        files[stored_model(out).relative_to(out).as_posix()] = manifest["artifact"]["sha256"]
        api.Design(out).report()
        return all(file_digest(out / path) == digest for path, digest in files.items())
    except (InputError, OSError, KeyError, TypeError, AttributeError):
        return False


def _limits_text(board: str | None) -> str:
    from zeroskip.boards import find_board

    return "default" if board is None else repr(api.board_limits(find_board(board)))


def _versions(*distributions: str, packages: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions that a step's result depends on, and digests of the code of ours that it runs."""
    found = {name: version(name) for name in ("zeroskip", *distributions)}
    digests = {f"code {name}": _package_digest(name) for name in packages}
    return {"python": platform.python_version(), **found, **digests}


@functools.cache
def _package_digest(name: str) -> str:
    """Return the digest of a package's code, once: what is imported stays as it is."""
    return _digest(_files(f"zeroskip.{name}", "*.py"))


def _files(package: str, pattern: str) -> list[Path]:
    return sorted(Path(str(resources.files(package))).rglob(pattern))


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name} {file_digest(path)}\n".encode())
    return total.hexdigest()
