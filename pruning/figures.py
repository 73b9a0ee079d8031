"""Weights, MACs and stored bits of an artifact, as the compiler counts them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["figures"]

_VERB = "from zeroskip.cli import main; main()"
_INDEX = ("index", "filler", "row_end", "tap_table", "sign")


def figures(artifact: Path) -> dict[str, Any]:
    """Return what the compiler says of an artifact.

    ``weights``, ``kept``, ``macs_dense`` and ``macs_nonzero`` as ``zeroskip inspect`` counts; ``bits`` the ledger of
    ``zeroskip compile`` summed over the layers, ``bits_value`` the bits of the weights alone, ``bits_total`` these with
    all that tells where they belong (index, fillers, ends of rows, tap tables, signs). Null where the design does not
    compile, with the reason as ``bits_missing``.
    """
    inspected, _ = _run("inspect", str(artifact))
    total = (inspected or {}).get("total", {})
    found: dict[str, Any] = {key: total.get(key) for key in ("weights", "kept", "macs_dense", "macs_nonzero")}
    with tempfile.TemporaryDirectory(prefix="zeroskip-figures-") as folder:
        report, reason = _run("compile", str(artifact), "--out", str(Path(folder) / "design"))
    if report is None:
        return found | {"bits": None, "bits_value": None, "bits_total": None, "bits_missing": reason}
    bits: dict[str, int] = {}
    for layer in report["storage_bits"]["layers"]:
        for key, count in layer.items():
            if key != "name":
                bits[key] = bits.get(key, 0) + count
    value = bits["value"]
    return found | {"bits": bits, "bits_value": value, "bits_total": value + sum(bits.get(key, 0) for key in _INDEX)}


def _run(*arguments: str) -> tuple[dict[str, Any] | None, str]:
    """Return the JSON of a verb, or None and its error.

    A process of its own: this folder and the compiler meet only in the artifact file and on the command line.
    """
    done = subprocess.run([sys.executable, "-c", _VERB, *arguments, "--json"], capture_output=True, text=True)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["no output"])[-1]
    result: dict[str, Any] = json.loads(done.stdout)
    return result, ""
