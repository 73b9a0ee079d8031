"""The command line: one function a verb; each parses, calls one API function and prints."""

from __future__ import annotations

import atexit
import errno
import gc
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import Any, NoReturn

import click

from zeroskip.compiler.errors import InputError, ZeroskipError

__all__ = ["main"]

EXIT_INTERRUPTED = 130
EXIT_BUG = 70
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says when a file cannot be written; the user's to mend."""


class Options:
    """The global options, accepted before and after the verb."""

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.verbose = False
        self.seed: int | None = None
        self.jobs: int | None = None

    def say(self, line: str) -> None:
        """Print a line of progress to stderr unless quiet."""
        if not self.quiet:
            click.echo(line, err=True)

    def result(self, text: str, content: Mapping[str, Any] | list[Any]) -> None:
        """Print the verb's result: text for people, one JSON object with ``--json``."""
        click.echo(json.dumps(content, sort_keys=True, default=str) if self.json else text)


def _store(name: str, *, flag: Any = None) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, _: click.Parameter, value: Any) -> None:
        options = context.ensure_object(Options)
        if value is not None and value is not False:
            setattr(options, name, value)

    return callback


GLOBAL = (
    click.option(
        "--json",
        "_json",
        is_flag=True,
        expose_value=False,
        callback=_store("json"),
        help="print the result as one JSON object",
    ),
    click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_store("quiet"), help="no progress"),
    click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_store("verbose"), help="show tracebacks"
    ),
    click.option(
        "--seed", type=int, expose_value=False, callback=_store("seed"), metavar="N", help="seed, not the file's"
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1, 256),
        expose_value=False,
        callback=_store("jobs"),
        metavar="N",
        help="processes at a time  [default: 2]",
    ),
)


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the global options to a verb and hand it the Options object first."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(click.get_current_context().ensure_object(Options), *args, **kwargs)

    wrapped = update_wrapper(wrapped, function)
    for option in reversed(GLOBAL):
        wrapped = option(wrapped)
    return wrapped


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value:
        return
    import platform
    from importlib.metadata import version

    from zeroskip.boards.tools import doctor

    click.echo(
        f"zeroskip {version('zeroskip')}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    for row in doctor():
        click.echo(f"  {row.tool} {row.version or 'missing'}")
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="show versions")
@common
def cli(options: Options) -> None:
    """prune a PyTorch network, compile it, prove it in simulation and put it on an FPGA"""


FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


@cli.command()
@click.option("--full", is_flag=True, help="both boards and five seeds for every design")
@click.option("--out", type=FOLDER, default=Path("build/demo"), metavar="DIR", help="where everything is written")
@common
def demo(options: Options, full: bool, out: Path) -> None:
    """train, prune, compile, simulate and synthesize a small network three ways"""
    from zeroskip.demo import run_demo

    show = not options.json
    result = run_demo(out, full=full, jobs=options.jobs or 2, seed=options.seed, quiet=options.quiet, show=show)
    if options.json:
        options.result("", result)


@cli.command()
@click.option("--out", type=FOLDER, default=Path("build/selftest"), metavar="DIR", help="where everything is written")
@common
def selftest(options: Options, out: Path) -> None:
    """compile and simulate one small network on each engine"""
    from zeroskip.selftest import run_selftest

    rows = run_selftest(out, options.say)
    text = "\n".join(
        f"{row['engine']}: {row['values']} values compared, 0 differ, {row['cycles']} cycles" for row in rows
    )
    options.result(text, {"engines": rows})


@cli.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@common
def new(options: Options, folder: Path) -> None:
    """write a project file, a network and a data loader to start from"""
    from zeroskip.new import write_project

    path = write_project(folder)
    options.result(f"wrote {path}; run: zeroskip build {path}", {"project": str(path)})


@cli.command()
@click.argument("project", type=FILE, metavar="PROJECT.toml")
@click.option("--out", type=click.Path(path_type=Path), default=None, metavar="ART", help="the artifact to write")
@click.option(
    "--data", type=FOLDER, default=None, metavar="DIR", help="folder with the data sets  [default: $ZEROSKIP_DATA]"
)
@click.option("--resume", is_flag=True, help="go on from the last checkpoint (also without: finished stages are kept)")
@common
def prune(options: Options, project: Path, out: Path | None, data: Path | None, resume: bool) -> None:
    """train, prune and quantize the network of a project or recipe file"""
    from zeroskip.inspection import missed_goals
    from zeroskip.prune import prune_file

    path, summary = prune_file(project, out, data=data, seed=options.seed, quiet=options.quiet, say=options.say)
    lines = [f"wrote {path}: integer accuracy {100 * summary['accuracy']['integer']:.2f} %", *missed_goals(summary)]
    options.result("\n".join(lines), {"artifact": str(path), **summary})


@cli.command(name="compile")
@click.argument("artifact", type=FILE, metavar="ART|MODEL")
@click.option("--out", type=FOLDER, required=True, metavar="DIR", help="folder to write")
@click.option("--engine", default="auto", metavar="dense|sparse|auto", help="what feeds the array")
@click.option("--board", default=None, metavar="NAME", help="choose a geometry that fits this board")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="lanes, columns, cores, results, logic_products, banked_vectors, paired_products, sign_adds, index_bits, "
    "bitmap, spram, least_storage, parameters or flash_command",
)
@click.option("--explain", is_flag=True, help="say what became of every layer")
@common
def compile_verb(
    options: Options,
    artifact: Path,
    out: Path,
    engine: str,
    board: str | None,
    settings: tuple[str, ...],
    explain: bool,
) -> None:
    """compile an artifact, a .tflite or .onnx file, or one of the zoo by its name, into ROM images, RTL and a report"""
    from zeroskip import api
    from zeroskip.inspection import find_artifact

    design = api.compile(find_artifact(artifact), out, engine, board, _settings(settings))
    lines = [str(design)]
    if explain:
        manifest = json.loads((out / "manifest.json").read_text())
        lines += ["", *design.reasons, *manifest["notes"]]
        lines += [f"node {row['node']} ({row['op']}): {row['became']}" for row in manifest["nodes"]]
        lines += [f"layer {plan.name}: {note}" for plan in design.program.layers for note in plan.notes]
    lines.append(f"wrote {out}; next: zeroskip simulate {out}")
    options.result("\n".join(lines), design.report())


def _settings(pairs: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"Option --set must be KEY=VALUE, not {pair!r}")
        settings[key] = value
    return settings


@cli.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="ART|MODEL|DIR")
@common
def inspect(options: Options, source: Path) -> None:
    """show layers, structure, bits, rate, MACs, accuracy and provenance"""
    from zeroskip.inspection import inspect_source

    content, text = inspect_source(source)
    options.result(text, content)


@cli.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--inputs", type=FILE, required=True, metavar="X.npz", help="codes, or floats that are quantized")
@click.option("--outputs", type=FILE, required=True, metavar="Y.npz", help="file to write")
@common
def reference(options: Options, folder: Path, inputs: Path, outputs: Path) -> None:
    """run the integer reference only"""
    from zeroskip import api
    from zeroskip.vectors import read_inputs, write_outputs

    design = api.load(folder)
    model = design.program.model
    codes = design.reference(read_inputs(inputs, model.tensors[model.input]))
    write_outputs(outputs, model.output, codes)
    options.result(f"wrote {outputs}: {len(codes)} vectors", {"outputs": str(outputs), "vectors": len(codes)})


@cli.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--inputs", type=FILE, default=None, metavar="X.npz", help="default: golden or random samples")
@click.option("--outputs", type=FILE, default=None, metavar="Y.npz", help="write the RTL's output codes")
@click.option("--simulator", default="verilator", metavar="verilator|icarus", help="simulator")
@click.option("--waves", is_flag=True, help="write a waveform file")
@common
def simulate(
    options: Options, folder: Path, inputs: Path | None, outputs: Path | None, simulator: str, waves: bool
) -> None:
    """simulate the RTL and compare every layer with the reference"""
    from zeroskip import api
    from zeroskip.vectors import check_outputs, read_inputs, write_outputs

    if outputs is not None:
        check_outputs(outputs)
    design = api.load(folder)
    model = design.program.model
    codes = None if inputs is None else read_inputs(inputs, model.tensors[model.input])
    result = design.simulate(codes, simulator=simulator, waves=waves, progress=options.say).check()
    if outputs is not None:
        write_outputs(outputs, model.output, result.outputs)
    total = result.cycles.total if result.cycles is not None else 0
    text = (
        f"{'PyTorch = ' if inputs is None and model.golden else ''}reference = RTL: "
        f"{result.values_compared:,} values over {result.vectors} vectors, 0 differ; "
        f"{total:,} cycles an inference"
    )
    if result.waves is not None:
        text += f"\nwaveforms: {result.waves}"
    options.result(text, design.report())


@cli.command()
@click.argument("model", type=FILE, metavar="ART|MODEL")
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--inputs", type=FILE, required=True, metavar="X.npz", help="codes, or floats that are quantized")
@click.option(
    "--floats",
    type=FILE,
    default=None,
    metavar="F.npz",
    help="the source's values by tensor, where the model file has none",
)
@click.option("--outputs", type=FILE, default=None, metavar="Y.npz", help="write all values of every layer")
@click.option("--simulator", default="verilator", metavar="verilator|icarus", help="simulator")
@common
def compare(
    options: Options, model: Path, folder: Path, inputs: Path, floats: Path | None, outputs: Path | None, simulator: str
) -> None:
    """show the float, integer and RTL values of every layer, and where they first differ"""
    from zeroskip.compiler.importers import load_model
    from zeroskip.inspection import find_artifact
    from zeroskip.layerwise import compare as compare_layers
    from zeroskip.vectors import check_outputs, read_array, read_arrays, write_arrays

    if outputs is not None:
        check_outputs(outputs)
    path = find_artifact(model)
    network = load_model(path)
    array = read_array(inputs, network.tensors[network.input])
    given = None if floats is None else read_arrays(floats)
    result = compare_layers(path, folder, array, floats=given, simulator=simulator, progress=options.say)
    if outputs is not None:
        write_arrays(outputs, result.arrays())
    options.result(str(result), result.to_dict())
    result.check()


@cli.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--board", required=True, metavar="NAME", help="see zeroskip boards")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, metavar="N", help="place-and-route seeds")
@click.option(
    "--netlist-check/--no-netlist-check",
    default=True,
    help="simulate the mapped netlist; without it no number is printed",
)
@click.option("--portable", is_flag=True, help="plain Verilog only: no multiplier or block RAM cells of the device")
@common
def synth(options: Options, folder: Path, board: str, seeds: int, netlist_check: bool, portable: bool) -> None:
    """synthesize, check the mapped netlist, place and route"""
    from zeroskip import api
    from zeroskip.report import board_text

    design = api.load(folder)
    result = design.synthesize(
        board,
        seeds,
        jobs=options.jobs or 2,
        netlist_check=netlist_check,
        portable=portable,
        progress=options.say,
    )
    report = design.report(result.board.name)
    text = f"{board_text(result.board.name, report)}\n  slowest path: {report['critical_path']}"
    text += f"\n  bitstream: {result.bitstream}"
    if result.flash_image is not None:
        text += f"\n  {result.flash_text()}"
    options.result(text if netlist_check else str(result), report)


@cli.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--html", is_flag=True, help="write report/report.html as well")
@common
def report(options: Options, folder: Path, html: bool) -> None:
    """show what was counted and measured"""
    from zeroskip import api
    from zeroskip.report import write_html

    design = api.load(folder)
    text = str(design)
    content = design.report()
    content["boards"] = {name: design.report(name) for name in design.boards()}
    if html:
        content["html"] = str(write_html(design))
        text += f"\nwrote {content['html']}"
    options.result(text, content)


@cli.command()
@click.argument("project", type=FILE, metavar="PROJECT.toml")
@click.option(
    "--data", type=FOLDER, default=None, metavar="DIR", help="folder with the data sets  [default: $ZEROSKIP_DATA]"
)
@common
def build(options: Options, project: Path, data: Path | None) -> None:
    """prune, compile, simulate, synthesize and report; finished steps are kept"""
    from zeroskip.flow import build as run_build
    from zeroskip.progress import Progress

    progress = Progress(0, quiet=options.quiet)
    result = run_build(project, progress, data=data, jobs=options.jobs, seed=options.seed)
    options.result(str(result), result.to_dict())


@cli.command()
@common
def doctor(options: Options) -> None:
    """which tools are there, which versions, how to get what is missing"""
    from rich.table import Table

    from zeroskip.boards.tools import doctor as examine
    from zeroskip.report import render

    rows = examine()
    table = Table()
    for title in ("tool", "found", "version", "where or how to get it"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(
            row.tool, "yes" if row.found else "no", row.version or "", str(row.path or "") if row.found else row.remedy
        )
    content = [
        {"tool": r.tool, "found": r.found, "version": r.version, "path": str(r.path or ""), "remedy": r.remedy}
        for r in rows
    ]
    options.result(render(table), {"tools": content})
    if any(not row.found and not row.optional for row in rows):
        raise click.exceptions.Exit(3)


@cli.command()
@common
def boards(options: Options) -> None:
    """list the supported boards"""
    from rich.table import Table

    from zeroskip.boards import BOARDS
    from zeroskip.report import render

    table = Table()
    for title in ("board", "device", "LUT", "block RAM", "DSP", "description"):
        table.add_column(title, overflow="fold")
    content = []
    for name, board in sorted(BOARDS.items()):
        table.add_row(
            name,
            board.part,
            str(board.lut),
            f"{board.bram} x {board.bram_bits} bits",
            str(board.dsp),
            board.description,
        )
        content.append(
            {
                "name": name,
                "part": board.part,
                "lut": board.lut,
                "bram": board.bram,
                "bram_bits": board.bram_bits,
                "dsp": board.dsp,
            }
        )
    options.result(render(table), {"boards": content})


@cli.command()
@common
def zoo(options: Options) -> None:
    """list the artifacts that ship with zeroskip"""
    from zeroskip.inspection import list_zoo

    content, text = list_zoo()
    options.result(text, {"artifacts": content})


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with the contract's code (ARCHITECTURE section 6)."""
    if arguments is None:
        # A compile makes millions of objects that stay until the process ends: searching them for cycles took 4 % of
        # ResNet-8's.
        gc.set_threshold(100_000)
        atexit.register(gc.disable)
    options = Options()
    try:
        code = cli.main(arguments, prog_name="zeroskip", standalone_mode=False, obj=options)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        _stop(options, "interrupted; run the same command again to go on", EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        _stop(options, "interrupted; run the same command again to go on", EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except ZeroskipError as error:
        _stop(options, f"zeroskip: {error}", error.exit_code)
    except OSError as error:
        if error.errno not in NO_ROOM:
            _fail(options, error)
        where = f" '{error.filename}'" if error.filename else ""
        _stop(options, f"zeroskip: File{where} cannot be written: {error.strerror}; free some space or rights", 2)
    except Exception as error:
        _fail(options, error)


def _fail(options: Options, error: Exception) -> NoReturn:
    """End with an error that carries its exit code, or say that it is a bug."""
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        _stop(options, f"zeroskip: {error}", code)
    text = f"zeroskip: internal error: {type(error).__name__}: {error}; run with -v for the traceback"
    _stop(options, text, EXIT_BUG)


def _stop(options: Options, text: str, code: int) -> NoReturn:
    if options.verbose:
        traceback.print_exc()
    click.echo(text, err=True)
    sys.exit(code)
