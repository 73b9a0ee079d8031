"""Measure what decoding and gathering cost: LUT cells of a sparse array beyond a dense one of as many products.

    python bench/lanes.py [--out build/bench-lanes]

The digits network of the demo, non-structured, on 8 lanes and 1, 2 and 3 units: columns of the dense engine, cores of
the sparse one, each core with a decoder, a gather and banks of its own. All are placed and routed for the ULX3S 25F,
their netlists checked. The difference over the lanes of all units is the cost of decoding and gathering. Resumable.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from zeroskip import api
from zeroskip.inspection import zoo_artifact

ARTIFACT = "digits-nonstructured-w4a8"
BOARD = "ulx3s-25f"
LANES = 8
UNITS = (1, 2, 3)


def main() -> None:
    """Build the designs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("build/bench-lanes"))
    out = parser.parse_args().out
    print("| 8 lanes x | LUT, dense columns | LUT, sparse cores | LUT a lane beyond dense | ratio |")
    print("|---|---|---|---|---|")
    for units in UNITS:
        dense, sparse = cells(out, "dense", "columns", units), cells(out, "sparse", "cores", units)
        print(
            f"| {units} | {dense:,} | {sparse:,} | {(sparse - dense) / (LANES * units):.1f} | {sparse / dense:.2f} |",
            flush=True,
        )


def cells(out: Path, engine: str, axis: str, units: int) -> int:
    """Return the LUT cells of one design, placed and routed."""
    artifact, folder = zoo_artifact(ARTIFACT), out / f"{engine}-{units}"
    settings = {"lanes": str(LANES), axis: str(units)}
    design = api.reuse(artifact, folder, settings) or api.compile(artifact, folder, engine, BOARD, settings)

    def say(line: str) -> None:
        print(f"{engine} {LANES} x {units}: {line}", file=sys.stderr, flush=True)

    design.synthesize(BOARD, 1, jobs=1, progress=say)
    return int(design.report(BOARD)["resources"]["lut"]["used"])


if __name__ == "__main__":
    main()
