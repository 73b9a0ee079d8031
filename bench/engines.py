"""Measure the engines: utilization, hand-over and latency of layers and networks, counted in simulation of the RTL.

    python bench/engines.py [--out build/bench-engines] [ROW ...]

Run it from a checkout: networks that have no artifact in the zoo are synthetic ones of sim_tests/models.py, of the real
shapes, with random weights. Every design is compiled, its RTL is simulated, every value of every layer is compared with
the reference, and the cycles counted must equal the cycle model's. Finished designs are kept in the folder, so a killed
run goes on. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from zeroskip.api import board_limits
from zeroskip.boards import BOARDS
from zeroskip.boards.simulation import simulate
from zeroskip.compiler import reference
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.ir import Model, Tensor
from zeroskip.compiler.program import LayerPlan
from zeroskip.hw.design import compile_artifact, source_digest
from zeroskip.inspection import zoo_artifact

sys.path.append(str(Path(__file__).resolve().parents[1] / "sim_tests"))

import models

SAMPLES = 3
"""Inferences simulated: the fewest that show latency and interval."""

LAST: dict[str, Any] = {"relu": False, "out_signed": True}

Result = dict[str, Any]
Layer = dict[str, Any]


@dataclass(frozen=True)
class Design:
    """A network (an artifact of the zoo, or a function that makes one) on an array of ``settings`` or of a board."""

    network: str | Callable[[], Model]
    engine: str
    settings: Mapping[str, str] = field(default_factory=dict)
    board: str | None = None


def array(lanes: int, **others: int) -> dict[str, str]:
    """Return the settings of an array."""
    return {key: str(value) for key, value in {"lanes": lanes, **others}.items()}


def sparse_lenet_conv2(keep: float) -> Model:
    """Return LeNet-5's second convolution with its pooling, and a linear layer behind it."""
    specs = [
        models.conv(50, 5, structure="nonstructured", keep=keep),
        models.max_pool(2),
        models.linear(10, structure="nonstructured", keep=0.1, **LAST),
    ]
    return models.build_model(np.random.default_rng(0), Tensor("input", (20, 12, 12)), specs, samples=SAMPLES)


def conv64(structure: str, keep: float = 1.0, **detail: int) -> Model:
    """Return a 3x3 convolution of 64 channels on 16x16, and a small one behind it, so that it writes to the banks."""
    specs = [
        models.conv(64, 3, padding=1, structure=structure, keep=keep, detail=detail),
        models.conv(8, 1, structure="nonstructured", keep=0.5, **LAST),
    ]
    return models.build_model(np.random.default_rng(0), Tensor("input", (64, 16, 16)), specs, samples=SAMPLES)


def classifier(structure: str = "dense", keep: float = 1.0, **detail: int) -> Model:
    """Return LeNet-5's linear layers, 800-500-10."""
    # enough weights that every output of the first layer is read
    last = {"structure": "nonstructured", "keep": 0.5} if structure != "dense" else {}
    specs = [
        models.linear(500, structure=structure, keep=keep, detail=detail),
        models.linear(10, **last, **LAST),
    ]
    return models.build_model(np.random.default_rng(0), Tensor("input", (800,)), specs, samples=SAMPLES)


def digits_rows() -> Model:
    """Return W1: 64-32-32-10 with 337 of 3,392 weights."""
    specs = [
        models.linear(32, structure="nonstructured", keep=204 / 2048),
        models.linear(32, structure="nonstructured", keep=102 / 1024),
        models.linear(10, structure="nonstructured", keep=31 / 320, **LAST),
    ]
    return models.build_model(np.random.default_rng(0), Tensor("input", (64,), bits=5), specs, samples=SAMPLES)


DESIGNS: dict[str, Design] = {
    "lenet5": Design(lambda: models.lenet5_like("dense", 1.0, samples=SAMPLES), "dense", board="ulx3s-85f"),
    "resnet8": Design(lambda: models.resnet8_like(samples=SAMPLES), "dense", board="ulx3s-85f"),
    "resnet8-w4": Design(lambda: models.resnet8_like(bits=4, samples=SAMPLES), "dense", board="ulx3s-85f"),
    "dscnn": Design(lambda: models.dscnn_like(samples=SAMPLES), "dense", board="ulx3s-85f"),
    "lenet5-80": Design(
        lambda: models.lenet5_like("dense", 1.0, samples=SAMPLES), "dense", array(16, columns=5, results=2)
    ),
    "fc1-32": Design(classifier, "dense", array(16, columns=2)),
    "fc1-128": Design(classifier, "dense", array(32, columns=4)),
    "autoencoder-32": Design(
        lambda: models.autoencoder_like(samples=SAMPLES), "dense", array(16, columns=2, results=2)
    ),
    "autoencoder-128": Design(lambda: models.autoencoder_like(samples=SAMPLES), "dense", array(32, cores=4, results=4)),
    "conv64-32x32": Design(lambda: conv64("dense"), "dense", array(32, columns=32, results=8)),
    "conv2-90": Design(lambda: sparse_lenet_conv2(0.1), "sparse", board="ulx3s-25f"),
    "conv2-98": Design(lambda: sparse_lenet_conv2(0.02), "sparse", board="ulx3s-25f"),
    "conv64-90": Design(lambda: conv64("nonstructured", 0.1), "sparse", board="ulx3s-25f"),
    "conv64-98": Design(lambda: conv64("nonstructured", 0.02), "sparse", board="ulx3s-25f"),
    "conv64-90-4": Design(lambda: conv64("nonstructured", 0.1), "sparse", array(8, cores=4, results=4)),
    "conv64-98-4": Design(lambda: conv64("nonstructured", 0.02), "sparse", array(8, cores=4, results=4)),
    "rows-2": Design(lambda: classifier("nonstructured", 0.02), "sparse", array(8)),
    "rows-5": Design(lambda: classifier("nonstructured", 0.05), "sparse", array(8)),
    "rows-10": Design(lambda: classifier("nonstructured", 0.1), "sparse", array(8)),
    "nm-conv": Design(lambda: conv64("nm", n=2, m=4), "sparse", array(8, cores=2, results=2)),
    "nm-linear": Design(lambda: classifier("nm", n=2, m=4), "sparse", array(8)),
    "bank-conv": Design(lambda: conv64("bank_balanced", 0.125, banks=8), "sparse", array(8, cores=2, results=2)),
    "bank-linear": Design(lambda: classifier("bank_balanced", 0.1, banks=8), "sparse", array(8)),
    "lenet5-zoo-dense": Design("lenet5-mnist-dense-w4a8", "dense", array(8, columns=3, results=2)),
    "lenet5-zoo-71x": Design("lenet5-mnist-nonstructured-71x-w4a8", "sparse", array(8, cores=3, results=2)),
    "lenet5-zoo-167x": Design("lenet5-mnist-nonstructured-167x-w4a8-pow2", "sparse", array(8, cores=3, results=2)),
    "lenet5-zoo-dense-16": Design("lenet5-mnist-dense-w4a8", "dense", array(16, columns=1, results=2)),
    "lenet5-zoo-71x-16": Design("lenet5-mnist-nonstructured-71x-w4a8", "sparse", array(16, results=2)),
    "lenet5-zoo-167x-16": Design("lenet5-mnist-nonstructured-167x-w4a8-pow2", "sparse", array(16, results=2)),
    "w1": Design(digits_rows, "sparse", array(16, results=4)),
}


def measure(name: str, out: Path) -> Result:
    """Compile and simulate one design; return what was counted, from an earlier run when nothing has changed."""
    design, folder = DESIGNS[name], out / name
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    if isinstance(design.network, str):
        artifact = zoo_artifact(design.network)
    else:
        artifact = models.write_artifact(design.network(), folder / "model.safetensors")
    digest = sha256(artifact.read_bytes()).hexdigest()
    identity = [digest, design.engine, dict(design.settings), design.board, source_digest(), SAMPLES]
    key = sha256(json.dumps(identity).encode()).hexdigest()
    kept = folder / "result.json"
    if kept.exists():
        result: Result = json.loads(kept.read_text())
        if result["key"] == key:
            say(name, "kept", started)
            return result
    limits = board_limits(BOARDS[design.board]) if design.board else None
    program = compile_artifact(
        artifact, folder / "design", engine=design.engine, limits=limits, settings=design.settings
    ).program
    say(name, f"{program.config.geometry}, compiled", started)
    inputs = program.model.golden[program.model.input][:SAMPLES]
    model = program_cycles(program)
    run = simulate(folder / "design", inputs, reference.run(program.model, inputs)).check()
    counted = run.cycles
    if counted is None:
        raise SystemExit(f"{name}: the simulation counted no cycles")
    expected = (model.load, {layer.name: layer.cycles for layer in model.layers}, model.unload, model.interval)
    if expected != (counted.load, dict(counted.layers), counted.unload, counted.interval):
        raise SystemExit(f"{name}: the cycle model says {expected}, the simulation {counted}")
    layers = [
        {
            "name": layer.name,
            "kind": plan.kind,
            "k": k_of(plan),
            "groups": plan.layer.groups,
            "cycles": counted.layers[layer.name],
            "lanes": layer.lanes,
            "macs_dense": plan.macs_dense,
            "slots": dict(layer.slots),
        }
        for plan, layer in zip(program.layers, model.layers, strict=True)
    ]
    result = {
        "key": key,
        "geometry": str(program.config.geometry),
        "total": counted.total,
        "interval": counted.interval,
        "values": run.values_compared,
        "layers": layers,
    }
    kept.write_text(json.dumps(result, indent=1) + "\n")
    say(name, f"{run.values_compared:,} values equal, cycles as the model's", started)
    return result


def k_of(plan: LayerPlan) -> int:
    """Return the products of one result, 0 for a layer without weights."""
    return 0 if plan.layer.weight is None else int(np.asarray(plan.layer.weight)[0].size)


def say(name: str, text: str, started: float) -> None:
    """Print a line of progress."""
    print(f"{name}: {text} ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Reading:
    """What a row says: the number against its target, words around it, and what the slots were spent on."""

    met: bool
    measured: str
    limit: str


@dataclass(frozen=True)
class Row:
    """A quantity with a target, read from the results of some designs."""

    quantity: str
    target: str
    designs: tuple[str, ...]
    read: Callable[[Mapping[str, Result]], Reading]


def utilization(layers: Iterable[Layer]) -> float:
    """Return the cycle-weighted utilization over layers."""
    layers = list(layers)
    return sum(layer["slots"]["useful"] for layer in layers) / sum(map(slots_of, layers))


def slots_of(layer: Layer) -> int:
    """Return cycles times lanes of a layer as counted."""
    return int(layer["cycles"] * layer["lanes"])


def losses(layers: Iterable[Layer]) -> str:
    """Return what share of the slots each class took that multiplies nothing useful, the largest first."""
    layers = list(layers)
    total = sum(map(slots_of, layers))
    lost = {
        name: sum(layer["slots"][name] for layer in layers) / total for name in layers[0]["slots"] if name != "useful"
    }
    parts = [f"{name} {100 * share:.1f} %" for name, share in sorted(lost.items(), key=lambda i: -i[1]) if share > 5e-4]
    return ", ".join(parts) or "nothing"


def convolutions(result: Result) -> list[Layer]:
    """Return the convolutions of a network that are not depthwise."""
    return [layer for layer in result["layers"] if layer["kind"] == "conv2d" and layer["groups"] == 1]


def dense_convolution(title: str, design: str) -> Row:
    """Return the row of the dense convolutions of a network."""

    def read(results: Mapping[str, Result]) -> Reading:
        layers = convolutions(results[design])
        long = {layer["name"]: utilization([layer]) for layer in layers if layer["k"] >= 25}
        total, least = utilization(layers), min(long.values())
        listed = ", ".join(f"{name} {value:.3f}" for name, value in long.items())
        return Reading(
            total >= 0.95 and least >= 0.90,
            f"{total:.3f}; least {least:.3f} ({listed}); {results[design]['geometry']}",
            losses(layers),
        )

    return Row(f"dense convolution, {title}", ">= 0.95; each layer with K >= 25 >= 0.90", (design,), read)


def layers_row(quantity: str, target: float, design: str, choose: Callable[[Result], list[Layer]] | None = None) -> Row:
    """Return the row of the utilization of some layers of a design, by default of its first."""

    def read(results: Mapping[str, Result]) -> Reading:
        layers = choose(results[design]) if choose else results[design]["layers"][:1]
        value = utilization(layers)
        return Reading(value >= target, f"{value:.3f}; {results[design]['geometry']}", losses(layers))

    return Row(quantity, f">= {target}", (design,), read)


def every_layer(result: Result) -> list[Layer]:
    """Return all layers of a network."""
    return list(result["layers"])


def depthwise(results: Mapping[str, Result]) -> Reading:
    """Read the least utilization of DS-CNN's depthwise layers."""
    layers = [layer for layer in results["dscnn"]["layers"] if layer["groups"] > 1]
    worst = min(layers, key=lambda layer: utilization([layer]))
    value = utilization([worst])
    return Reading(value >= 0.90, f"{value:.3f}, the least of {len(layers)} layers", losses([worst]))


def ppr_row(reference_design: str, design: str, title: str) -> Row:
    """Return the row of the PPR of a pruned LeNet-5: (dense / nonzero MACs) / (dense / sparse cycles)."""

    def read(results: Mapping[str, Result]) -> Reading:
        dense, sparse = results[reference_design]["layers"], results[design]["layers"]
        if {layer["lanes"] for layer in dense + sparse} != {dense[0]["lanes"]}:
            raise SystemExit(f"{design}: the arrays compared must have the same products a cycle")
        macs = sum(layer["macs_dense"] for layer in dense), sum(layer["slots"]["useful"] for layer in sparse)
        cycles = sum(layer["cycles"] for layer in dense), sum(layer["cycles"] for layer in sparse)
        value = (macs[0] / macs[1]) / (cycles[0] / cycles[1])
        text = (
            f"{value:.3f}: {macs[0]:,} / {macs[1]:,} MACs, {cycles[0]:,} / {cycles[1]:,} cycles at "
            f"{dense[0]['lanes']} products; utilization {utilization(dense):.3f} / {utilization(sparse):.3f}"
        )
        return Reading(value <= 1.10, text, losses(sparse))

    return Row(f"PPR, LeNet-5 of the zoo, {title}", "<= 1.10", (reference_design, design), read)


def hand_over(results: Mapping[str, Result]) -> Reading:
    """Read the most cycles from a layer's last slot to the next layer's first, less one, over all networks."""
    found = []
    for name, result in results.items():
        pairs = zip(result["layers"], result["layers"][1:], strict=False)
        gaps = [(a["slots"]["overhead"] // a["lanes"], f"{a['name']} to {b['name']}") for a, b in pairs]
        if gaps:
            found.append((*max(gaps), name))
    found.sort(reverse=True)
    within = sum(gap <= 15 for gap, _, _ in found)
    listed = ", ".join(f"{name} {gap} ({where})" for gap, where, name in found if gap > 15)
    return Reading(
        found[0][0] <= 15,
        f"{found[0][0]}; within 15 in {within} of {len(found)} networks",
        f"the most of each network above 15: {listed}" if listed else "nothing",
    )


def first_to_last(results: Mapping[str, Result]) -> Reading:
    """Read the cycles from the start of W1's first layer to its last result."""
    layers = results["w1"]["layers"]
    cycles = sum(layer["cycles"] for layer in layers)
    weights = sum(layer["slots"]["useful"] for layer in layers)
    parts = ", ".join(f"{layer['name']} {layer['cycles']}" for layer in layers)
    text = f"{cycles} ({parts}) with {weights} weights that are read; {results['w1']['geometry']}"
    return Reading(cycles < 100, text, losses(layers))


def model_equal(results: Mapping[str, Result]) -> Reading:
    """Count what was compared; :func:`measure` ends the run where the model differs."""
    layers = sum(len(result["layers"]) for result in results.values())
    values = sum(result["values"] for result in results.values())
    return Reading(
        True, f"equal: {len(results)} designs, {layers} layers; {values:,} values compared, 0 differ", "nothing"
    )


ROWS: dict[str, Row] = {
    "conv-lenet5": dense_convolution("LeNet-5 (array chosen for an ECP5-85F)", "lenet5"),
    "conv-lenet5-80": dense_convolution("LeNet-5 (80 products given)", "lenet5-80"),
    "conv-resnet8": dense_convolution("ResNet-8 (array chosen)", "resnet8"),
    "conv-resnet8-w4": dense_convolution("ResNet-8, 4-bit weights (array chosen)", "resnet8-w4"),
    "conv-dscnn": dense_convolution("DS-CNN (array chosen)", "dscnn"),
    "dense-32x32": layers_row("dense 64-channel 3x3, 32 lanes x 32 columns given", 0.95, "conv64-32x32"),
    "linear-32": layers_row("dense linear, LeNet-5 fc1, 32 PEs", 0.95, "fc1-32"),
    "linear-128": layers_row("dense linear, LeNet-5 fc1, 128 PEs", 0.88, "fc1-128"),
    "autoencoder-32": layers_row("dense linear, autoencoder, all layers, 32 PEs", 0.95, "autoencoder-32", every_layer),
    "autoencoder-128": layers_row(
        "dense linear, autoencoder, all layers, 128 PEs", 0.88, "autoencoder-128", every_layer
    ),
    "depthwise": Row("depthwise 3x3 (DS-CNN), of the lanes", ">= 0.90", ("dscnn",), depthwise),
    "sparse-conv2-90": layers_row("non-structured LeNet-5 conv2, 90 % zeros", 0.95, "conv2-90"),
    "sparse-conv2-98": layers_row("non-structured LeNet-5 conv2, 98 % zeros", 0.95, "conv2-98"),
    "sparse-conv64-90": layers_row("non-structured 64-channel 3x3, 90 % zeros", 0.95, "conv64-90"),
    "sparse-conv64-98": layers_row("non-structured 64-channel 3x3, 98 % zeros", 0.95, "conv64-98"),
    "sparse-conv64-90-4": layers_row("the same, 90 % zeros, 4 cores given", 0.95, "conv64-90-4"),
    "sparse-conv64-98-4": layers_row("the same, 98 % zeros, 4 cores given", 0.95, "conv64-98-4"),
    "sparse-linear-2": layers_row("non-structured linear 800x500, 8 lanes, density 2 %", 0.95, "rows-2"),
    "sparse-linear-5": layers_row("non-structured linear 800x500, 8 lanes, density 5 %", 0.95, "rows-5"),
    "sparse-linear-10": layers_row("non-structured linear 800x500, 8 lanes, density 10 %", 0.95, "rows-10"),
    "nm-conv": layers_row("2:4, 64-channel 3x3", 0.98, "nm-conv"),
    "nm-linear": layers_row("2:4, linear 800x500", 0.98, "nm-linear"),
    "bank-conv": layers_row("bank-balanced (8 banks, 1 of 8), 64-channel 3x3", 0.98, "bank-conv"),
    "bank-linear": layers_row("bank-balanced (8 banks, 1 of 10), linear 800x500", 0.98, "bank-linear"),
    "ppr-71x": ppr_row("lenet5-zoo-dense", "lenet5-zoo-71x", "71x, 3 cores"),
    "ppr-167x": ppr_row("lenet5-zoo-dense", "lenet5-zoo-167x", "167x, 3 cores"),
    "ppr-71x-16": ppr_row("lenet5-zoo-dense-16", "lenet5-zoo-71x-16", "71x, 1 core"),
    "ppr-167x-16": ppr_row("lenet5-zoo-dense-16", "lenet5-zoo-167x-16", "167x, 1 core"),
    "hand-over": Row("hand-over between layers, cycles, the most of any network", "<= 15", tuple(DESIGNS), hand_over),
    "w1": Row(
        "W1 (64-32-32-10, 90 % pruned), cycles from first operand to last result", "< 100", ("w1",), first_to_last
    ),
    "model": Row("cycle model against simulation", "equal", tuple(DESIGNS), model_equal),
}


def table(names: Sequence[str], results: Mapping[str, Result]) -> str:
    """Return the Markdown table of the rows called ``names``."""
    lines = ["| quantity | target | measured | limited by |", "|---|---|---|---|"]
    for name in names:
        row = ROWS[name]
        reading = row.read({design: results[design] for design in row.designs})
        measured = reading.measured if reading.met else f"**missed** {reading.measured}"
        lines.append(f"| {row.quantity} | {row.target} | {measured} | {reading.limit} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the designs that the rows need and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--out", type=Path, default=Path("build/bench-engines"))
    options = parser.parse_args()
    # `choices` would refuse an empty list
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"Rows must be among {', '.join(ROWS)}, not {', '.join(unknown)}")
    rows = options.rows or list(ROWS)
    needed = dict.fromkeys(design for name in rows for design in ROWS[name].designs)
    results = {name: measure(name, options.out) for name in needed}
    print(table(rows, results))


if __name__ == "__main__":
    main()
