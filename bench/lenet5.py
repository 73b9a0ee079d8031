"""Measure LeNet-5 on the boards: cycles and utilization from simulation, resources and clock after place and route.

    python bench/lenet5.py [--seeds 5] [--jobs 2] [--out build/bench-lenet5] [ROW ...]

Every row compiles an artifact of the zoo, simulates its golden samples against the reference in every layer, checks the
mapped netlist and routes it with the given seeds. Finished steps are kept, so a killed run goes on. Prints a Markdown
table; ratios are against the first row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroskip import api
from zeroskip.inspection import inspect_source, zoo_artifact


@dataclass(frozen=True)
class Row:
    """One design: an artifact of the zoo on a board."""

    artifact: str
    engine: str
    board: str
    settings: Mapping[str, str]


ROWS = {
    "dense-85f": Row("lenet5-mnist-dense-w4a8", "dense", "ulx3s-85f", {"lanes": "16", "columns": "5"}),
    "nonstructured-25f": Row(
        "lenet5-mnist-nonstructured-71x-w4a8", "sparse", "ulx3s-25f", {"lanes": "8", "cores": "3", "results": "2"}
    ),
    "cycles-25f": Row(
        "lenet5-mnist-nonstructured-90x-w4a8-pow2", "sparse", "ulx3s-25f", {"lanes": "8", "cores": "3", "results": "2"}
    ),
    "cycles-25f-logic": Row(
        "lenet5-mnist-nonstructured-90x-w4a8-pow2",
        "sparse",
        "ulx3s-25f",
        {"lanes": "16", "cores": "2", "results": "4", "logic_products": "4"},
    ),
    "nonstructured-up5k": Row("lenet5-mnist-nonstructured-167x-w4a8-pow2", "sparse", "icebreaker", {"lanes": "4"}),
}

CONVOLUTIONS = ("conv1", "conv2")


def main() -> None:
    """Run the rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/bench-lenet5"))
    options = parser.parse_args()
    # `choices` would refuse an empty list
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"Rows must be among {', '.join(ROWS)}, not {', '.join(unknown)}")
    results = {name: measure(name, options.out, options.seeds, options.jobs) for name in options.rows or ROWS}
    print(table(results))


def measure(name: str, out: Path, seeds: int, jobs: int) -> dict[str, Any]:
    """Compile, simulate and synthesize one row; return its numbers."""
    row = ROWS[name]

    def say(line: str) -> None:
        print(f"{name}: {line}", file=sys.stderr, flush=True)

    artifact = zoo_artifact(row.artifact)
    folder = out / name
    design = api.reuse(artifact, folder, row.settings) or api.compile(
        artifact, folder, row.engine, row.board, row.settings
    )
    if not design.is_simulated():
        design.simulate(progress=say).check()
    result = design.synthesize(row.board, seeds, jobs=jobs, progress=say)
    report = design.report(row.board)
    layers = report["cycles"]["layers"]
    convolutions = [layer for layer in layers if layer["name"] in CONVOLUTIONS]
    if result.check is None:
        raise SystemExit(f"{name}: the netlist was not checked")
    return {
        "row": row,
        "report": report,
        "total": inspect_source(artifact)[0]["total"],
        "utilization": utilization(layers),
        "convolutions": utilization(convolutions),
        "values": report["rtl_values"],
        "netlist_values": result.check.values,
    }


def utilization(layers: list[dict[str, Any]]) -> float:
    """Return the cycle-weighted utilization over layers."""
    return sum(layer["macs_useful"] for layer in layers) / sum(layer["cycles"] * layer["lanes"] for layer in layers)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the Markdown table."""
    titles = (
        "design", "board", "rate", "accuracy %", "products/cycle", "cycles", "utilization (conv)", "utilization (all)",
        "LUT", "FF", "BRAM", "DSP", "Fmax MHz median (min-max)", "latency us", "inferences/s", "ratio", "bits",
        "values checked RTL / netlist",
    )  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    first = next(iter(results.values()))["report"]["throughput_per_s"]
    for name, result in results.items():
        report = result["report"]
        fmax = report["fmax_mhz"]
        cells = [f"{report['resources'][key]['used']:,}" for key in ("lut", "ff", "bram", "dsp")]
        lines.append(
            "| "
            + " | ".join(
                [
                    name,
                    result["row"].board,
                    f"{result['total']['rate']:.1f}x",
                    f"{100 * report['accuracy']['integer']:.2f}",
                    str(report["cycles"]["layers"][0]["lanes"]),
                    f"{report['cycles']['total']:,}",
                    f"{result['convolutions']:.3f}",
                    f"{result['utilization']:.3f}",
                    *cells,
                    f"{fmax['median']:.1f} ({fmax['min']:.1f}-{fmax['max']:.1f})",
                    f"{report['latency_us']:.1f}",
                    f"{report['throughput_per_s']:,.0f}",
                    f"{report['throughput_per_s'] / first:.2f}",
                    f"{report['storage_bits']['total']:,}",
                    f"{result['values']:,} / {result['netlist_values']:,}",
                ]
            )
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
