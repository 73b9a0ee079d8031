"""The self-test: one small network on each engine, compiled, simulated and compared value by value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zeroskip import api
from zeroskip.inspection import zoo_artifact

__all__ = ["SELFTEST_ARTIFACT", "run_selftest"]

SELFTEST_ARTIFACT = "digits-nonstructured-w4a8"
"""A zoo artifact with convolutions, pooling and linear layers, padded and zero-excluded."""


def run_selftest(out: Path, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Compile and simulate the self-test network on the dense and the sparse engine.

    Raises
    ------
    VerificationError
        If a value differs; the text names the layer.
    """
    artifact = zoo_artifact(SELFTEST_ARTIFACT)
    rows: list[dict[str, Any]] = []
    for engine in ("dense", "sparse"):
        report(f"[{len(rows) + 1}/2] {engine} engine")
        design = api.compile(artifact, out / engine, engine, settings={"lanes": "4"})
        result = design.simulate(progress=report).check()
        cycles = None if result.cycles is None else result.cycles.total
        rows.append(
            {"engine": engine, "values": result.values_compared, "mismatches": result.mismatch_count, "cycles": cycles}
        )
    return rows
