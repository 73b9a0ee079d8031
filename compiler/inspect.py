"""Describe a Model: what ``zeroskip inspect`` prints, as plain values ready for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Kind, Layer, Model, Tensor
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.shapes import unpooled_shape

__all__ = ["describe"]

_WINDOWED = (Kind.CONV2D, Kind.MAX_POOL2D, Kind.AVG_POOL2D)
_HEADER = (
    "format",
    "network",
    "dataset",
    "accuracy",
    "samples_correct",
    "recipe",
    "seed",
    "provenance",
    "versions",
    "sha256",
)


def describe(model: Model) -> dict[str, Any]:
    """Return what a network is and where it comes from.

    Returns
    -------
    dict with ``name``, the header's ``format network dataset accuracy samples_correct recipe seed provenance versions
    sha256`` (None where the header is silent), ``input`` and ``output`` (name, shape, bits, signed, scale, zero point),
    ``golden_samples``, ``layers`` (a row each, see :func:`_row`) and ``total`` over the layers: ``weights``, ``kept``,
    ``rate`` (weights / kept, None without weights), ``weight_bits_kept``, ``macs_dense``, ``macs_nonzero``; and
    ``compiled``, with ``kept``, ``rate``, ``weight_bits_kept`` and ``macs_nonzero`` as the compiler leaves them,
    without the channels that are constant or that nothing reads (None where it refuses the network).
    """
    rows = [_row(model, layer) for layer in model.layers]
    total = _total(rows)
    return {
        "name": model.name,
        **{key: model.metadata.get(key) for key in _HEADER},
        "input": _tensor(model.tensors[model.input]),
        "output": _tensor(model.tensors[model.output]),
        "golden_samples": len(model.golden[model.input]) if model.input in model.golden else 0,
        "layers": rows,
        "total": total,
        "compiled": _compiled(model, total["weights"]),
    }


def _total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {
        key: sum(row[key] or 0 for row in rows)
        for key in ("weights", "kept", "weight_bits_kept", "macs_dense", "macs_nonzero")
    }
    return total | {"rate": _rate(total["weights"], total["kept"])}


def _compiled(model: Model, weights: int) -> dict[str, Any] | None:
    """Return what the passes leave of a model's ``weights``, None where they refuse it."""
    try:
        lowered, _ = run_passes(model)
    except CompileError:
        return None
    left = _total([_row(lowered, layer) for layer in lowered.layers])
    counts = {key: left[key] for key in ("kept", "weight_bits_kept", "macs_nonzero")}
    return counts | {"rate": _rate(weights, left["kept"])}


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "bits": tensor.bits,
        "signed": tensor.signed,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
    }


def _rate(weights: int, kept: int) -> float | None:
    return weights / kept if kept else None


def _row(model: Model, layer: Layer) -> dict[str, Any]:
    """Return one layer's row; what a layer without weights does not have is None.

    ``inputs`` names the tensors it reads, ``input_shape`` is that of the first.
    ``columns`` are the weights of one output channel, ``columns_kept`` those that any output channel uses. MACs count
    every output position, padding included, before a fused pooling.
    """
    source, target = model.tensors[layer.input], model.tensors[layer.output]
    row: dict[str, Any] = {
        "name": layer.name,
        "kind": layer.kind.value,
        "inputs": list(layer.inputs),
        "input_shape": list(source.shape),
        "output_shape": list(target.shape),
        "window": _window(layer) if layer.kind in _WINDOWED else None,
        **dict.fromkeys(("weights", "kept", "rate", "columns", "columns_kept", "structure", "bits", "grid")),
        **dict.fromkeys(("weight_bits_kept", "macs_dense", "macs_nonzero"), 0),
    }
    if layer.weight is None:
        return row
    matrix = layer.weight.reshape(layer.weight.shape[0], -1)
    positions = int(np.prod(unpooled_shape(layer, source.shape)[1:]))
    return row | {
        "weights": int(matrix.size),
        "kept": layer.nonzero,
        "rate": _rate(int(matrix.size), layer.nonzero),
        "columns": int(matrix.shape[1]),
        "columns_kept": int(np.count_nonzero(matrix.any(axis=0))),
        "structure": dict(layer.structure),
        "bits": layer.weight_bits,
        "grid": layer.grid.value,
        "weight_bits_kept": layer.nonzero * layer.weight_bits,
        "macs_dense": int(matrix.size) * positions,
        "macs_nonzero": layer.nonzero * positions,
    }


def _window(layer: Layer) -> dict[str, Any]:
    return {
        "kernel": list(layer.kernel),
        "stride": list(layer.stride),
        "padding": list(layer.padding),
        "dilation": list(layer.dilation),
        "groups": layer.groups,
        "pool": None if layer.pool is None else list(layer.pool.kernel),
    }
