"""Weights, MACs and stored bits of an artifact, as the compiler counts them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["STORED", "figures", "regular_share"]

_VERB = "from zeroskip.cli import main; main()"
STORED = ("value", "sign", "index", "filler", "row_end", "tap_table")
"""What is stored of a weight: its value, and all that tells where it belongs."""
_SIGN_ADDS = (2, 4, 8, 16)


def figures(artifact: Path) -> dict[str, Any]:
    """Return what the compiler says of an artifact.

    ``weights`` and ``macs_dense`` are those of the network as trained, ``kept``, ``macs_nonzero`` and ``bits_weights``
    (of the kept weights alone) those of ``zeroskip inspect`` as compiled: what a filter that is gone leaves of the
    layer after it is no weight. ``bits`` is the ledger of ``zeroskip compile --set lanes=8``, for few cycles, summed
    over the layers; ``storage`` that of the smallest array with index widths and formats for the least storage, ``--set
    lanes=4 --set least_storage=1 --set bitmap=1`` (micro-blocks: as runs of ``sign_adds``). Neither searches a
    geometry, nor is any network too large for it.
    ``bits_total`` and ``bits_storage`` are their bits of weights with all that tells where these belong: index,
    fillers, ends of rows, tap tables, signs. Null where the design does not compile, with the reason as
    ``bits_missing``, ``storage_missing``. ``regular_share``: see :func:`regular_share`.
    """
    inspected, _ = _run("inspect", str(artifact))
    total, compiled = ((inspected or {}).get(key) or {} for key in ("total", "compiled"))
    found: dict[str, Any] = {key: total.get(key) for key in ("weights", "macs_dense")}
    found |= {key: compiled.get(key) for key in ("kept", "macs_nonzero")}
    layers = [layer for layer in (inspected or {}).get("layers", []) if layer["weights"]]
    found |= {"bits_weights": compiled.get("weight_bits_kept"), "regular_share": regular_share(layers)}
    found |= _ledger(artifact, "bits", "bits_total", "--set", "lanes=8")
    return found | _ledger(artifact, "storage", "bits_storage", *_smallest(layers))


def regular_share(layers: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the storage of the layers with a structure over that of their dense weights, by the model of Mao et al.

    A kept weight takes 8 bits, and a kept group 4 for its relative index, escapes not counted (METHODS 4.2). Null where
    no layer has groups of one known size.

    Parameters
    ----------
    layers : rows of ``zeroskip inspect``
    """
    sized = [(layer, size) for layer in layers if (size := _group_size(layer))]
    dense = sum(8 * layer["weights"] for layer, _ in sized)
    return sum(layer["kept"] * (8 + 4 / size) for layer, size in sized) / dense if dense else None


def _group_size(layer: Mapping[str, Any]) -> int | None:
    """Return how many weights share an index; None for structures of other kinds."""
    structure = layer["structure"]
    kind = structure["kind"]
    if kind == "nonstructured":
        return 1
    if kind == "vector":
        return int(structure["size"])
    if kind == "block":
        return int(structure["rows"] * structure["columns"])
    if kind == "kernel":
        return math.prod(layer["window"]["kernel"]) if layer["window"] else 1
    if kind == "filter":
        return int(layer["columns"])
    return int(layer["weights"] // layer["columns"]) if kind == "column" else None


def _smallest(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings with which an artifact takes the least storage."""
    structures = [layer["structure"] for layer in layers]
    runs = {structure["size"] for structure in structures if structure["kind"] == "micro_block"} & set(_SIGN_ADDS)
    adds = runs.pop() if len(runs) == 1 else 1
    settings = {"lanes": max(4, adds), "sign_adds": adds, "least_storage": 1, "bitmap": 1}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def _ledger(artifact: Path, name: str, sum_name: str, *settings: str) -> dict[str, Any]:
    """Return a ledger by kind and the sum of what is stored of the weights, or why there is none."""
    with tempfile.TemporaryDirectory(prefix="zeroskip-figures-") as folder:
        report, reason = _run("compile", str(artifact), "--out", str(Path(folder) / "design"), *settings)
    if report is None:
        return {name: None, sum_name: None, f"{name}_missing": reason}
    bits: dict[str, int] = {}
    for layer in report["storage_bits"]["layers"]:
        for key, count in layer.items():
            if key != "name":
                bits[key] = bits.get(key, 0) + count
    return {name: bits, sum_name: sum(bits.get(key, 0) for key in STORED)}


def _run(*arguments: str) -> tuple[dict[str, Any] | None, str]:
    """Return the JSON of a verb, or None and its error.

    A process of its own: this folder and the compiler meet only in the artifact file and on the command line.
    """
    done = subprocess.run([sys.executable, "-c", _VERB, *arguments, "--json"], capture_output=True, text=True)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["no output"])[-1]
    result: dict[str, Any] = json.loads(done.stdout)
    return result, ""
