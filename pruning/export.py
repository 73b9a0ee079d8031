"""Write the artifact: one safetensors file with integer tensors, golden samples and a JSON header."""

from __future__ import annotations

import hashlib
import json
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from zeroskip.pruning.checkpoints import replace_bytes
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.graph import Kind
from zeroskip.pruning.quantizers import Scale, SharedWeights, Weights

if TYPE_CHECKING:
    from zeroskip.pruning.golden import IntegerLayer
    from zeroskip.pruning.quantize import QuantizedNetwork

__all__ = ["FORMAT", "Record", "artifact_bytes", "read_header", "write_artifact"]

FORMAT = "1.1"
# Readers of 1.0 know no graphs and no other layers and roundings than these; files that need no more say 1.0.
_OLD_FORMAT = "1.0"
_OLD_KINDS = (Kind.CONV2D, Kind.LINEAR, Kind.MAX_POOL2D, Kind.AVG_POOL2D)
_OLD_ROUNDINGS = ("floor", "half_up", "half_away")
_OLD_GRIDS = ("signed", "symmetric", "zero_excluded")
_OLD_STRUCTURES = ("dense", "nonstructured", "column")
_CODEBOOK_LIMIT = 256
_PARTS = {"bias": np.int32, "multiplier": np.int32, "shift": np.int8, "thresholds": np.int32}


@dataclass(frozen=True)
class Record:
    """Where an artifact comes from; what is not known stays None.

    ``accuracy`` holds ``float`` and ``integer`` (shares) and ``samples``; ``correct`` the counts by the same names.
    """

    name: str | None = None
    network: str | None = None
    dataset: str | None = None
    recipe: Mapping[str, Any] | None = None
    seed: int | None = None
    accuracy: Mapping[str, float | int] | None = None
    correct: Mapping[str, int] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def _tensor_header(net: QuantizedNetwork) -> dict[str, Any]:
    return {
        name: {
            "shape": list(t.shape), "bits": t.bits, "signed": t.signed, "scale": t.scale, "zero_point": t.zero_point,
        }
        for name, t in net.golden.tensors.items()
    }  # fmt: skip


def _format(net: QuantizedNetwork) -> str:
    """Return the oldest format that holds the network."""
    read = [name for layer in net.golden.layers for name in layer.inputs]
    old = len(read) == len(set(read))
    old &= all(layer.kind in _OLD_KINDS and layer.rounding.value in _OLD_ROUNDINGS for layer in net.golden.layers)
    old &= all(grid.grid in _OLD_GRIDS for grid in net.grids.values())
    old &= all(structure["kind"] in _OLD_STRUCTURES for structure in net.structures.values())
    return _OLD_FORMAT if old else FORMAT


def _layer_header(net: QuantizedNetwork, layer: IntegerLayer) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": layer.name, "kind": layer.kind.value, "inputs": list(layer.inputs), "output": layer.output,
    }  # fmt: skip
    if layer.kind in (Kind.CONCAT, Kind.ARGMAX):
        return entry
    if layer.kind is Kind.ADD:
        return entry | {
            "left_shift": layer.left_shift, "rounding": layer.rounding.value, "clamp": list(layer.clamp),
        }  # fmt: skip
    if layer.weight is None:
        entry |= {"kernel": list(layer.kernel), "stride": list(layer.stride), "padding": list(layer.padding)}
        return entry | {"clamp": list(layer.clamp)} if layer.kind is Kind.AVG_POOL2D else entry
    if layer.kind is Kind.CONV2D:
        entry |= {
            "stride": list(layer.stride), "padding": list(layer.padding), "dilation": list(layer.dilation),
            "groups": layer.groups,
        }  # fmt: skip
    bits, grid = _grid(net, layer.name, layer.weight)
    return entry | {
        "structure": dict(net.structures[layer.name]), "weight_bits": bits, "grid": grid,
        "weight_scale": _scale(net.weight_scales[layer.name]), "rounding": layer.rounding.value,
        "clamp": list(layer.clamp),
    }  # fmt: skip


def _scale(scale: Scale) -> float | list[float]:
    return list(scale) if isinstance(scale, tuple) else scale


def _grid(net: QuantizedNetwork, name: str, weight: Tensor) -> tuple[int, str]:
    """Return bits and name of a layer's grid; signs with pruned positions are zero-excluded levels of one bit."""
    grid = net.grids[name]
    if isinstance(grid, SharedWeights):
        return (len(_codebook(name, grid, weight)) - 1).bit_length(), grid.grid
    return grid.bits, "zero_excluded" if grid.grid == "binary" and not weight.all() else grid.grid


def _codebook(name: str, grid: SharedWeights, weight: Tensor) -> NDArray[Any]:
    """Return the levels of a layer, entry 0 is 0: BatchNorm may have turned the signs of some."""
    levels = np.unique(weight.numpy())
    codebook = np.array([0, *levels[levels != 0]], np.int16)
    if len(codebook) > _CODEBOOK_LIMIT:
        raise PruningError(
            f"Layer '{name}' has {len(codebook)} levels with the signs that BatchNorm turns, but a codebook holds "
            f"{_CODEBOOK_LIMIT}; use a Codebook of {(_CODEBOOK_LIMIT - 1) // 2} values"
        )
    return codebook if len(codebook) > 1 else np.array([0, grid.codebook[0]], np.int16)


def _weights(name: str, grid: Weights, weight: Tensor) -> dict[str, NDArray[Any]]:
    """Return the tensors that hold a layer's weights: levels, or indices and the codebook."""
    if not isinstance(grid, SharedWeights):
        return {f"{name}.weight": weight.numpy().astype(np.int16)}
    codebook = _codebook(name, grid, weight)
    order = np.argsort(codebook)
    index = order[np.searchsorted(codebook[order], weight.numpy())]
    return {f"{name}.weight_index": index.astype(np.uint8), f"{name}.codebook": codebook}


def _tensors(net: QuantizedNetwork) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    for layer in net.golden.layers:
        if layer.weight is not None:
            grid = net.grids[layer.name]
            weight = layer.weight.numpy()
            if weight.min() < grid.lo or weight.max() > grid.hi:
                raise PruningError(f"Layer '{layer.name}' has levels outside {grid.lo}..{grid.hi}")
            tensors |= _weights(layer.name, grid, layer.weight)
        for part, dtype in _PARTS.items():
            array: Tensor | None = getattr(layer, part)
            if array is not None:
                tensors[f"{layer.name}.{part}"] = array.numpy().astype(dtype)
    for name, values in net.golden.run(net.samples).items():
        tensors[f"golden/{name}"] = values.contiguous().numpy()
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the safetensors header and the tensor bytes behind it."""
    (size,) = struct.unpack("<Q", content[:8])
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    return header, content[8 + size :]


def _digest(content: bytes) -> str:
    """Return the sha256 over the tensor bytes in header order."""
    header, data = _split(content)
    h = hashlib.sha256()
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            h.update(data[begin:end])
    return h.hexdigest()


def artifact_bytes(net: QuantizedNetwork, name: str, record: Record) -> bytes:
    """Return the artifact as bytes; they depend on the network and ``record`` alone."""
    tensors = _tensors(net)
    layers = net.golden.layers
    header = {
        "format": _format(net), "name": record.name or name, "network": record.network, "dataset": record.dataset,
        "input": layers[0].input, "output": layers[-1].output,
        "tensors": _tensor_header(net), "layers": [_layer_header(net, layer) for layer in layers],
        "recipe": record.recipe, "seed": record.seed, "accuracy": record.accuracy,
        "samples_correct": dict(record.correct),
        "provenance": dict(record.provenance),
        "versions": {
            "numpy": np.__version__, "python": platform.python_version(), "safetensors": safetensors.__version__,
            "torch": torch.__version__,
        },
        "sha256": _digest(save(tensors)),
    }  # fmt: skip
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return save(tensors, {"zeroskip": text})


def write_artifact(net: QuantizedNetwork, path: Path, record: Record) -> Path:
    """Write the artifact in one step and return its path; the name is the record's, else the file's."""
    if path.suffix != ".safetensors":
        raise PruningError(f"An artifact's file name must end in .safetensors, not '{path.name}'")
    try:
        replace_bytes(path, artifact_bytes(net, path.stem, record))
    except OSError as error:
        raise PruningError(f"Artifact '{path}' cannot be written: {error.strerror}; choose another folder") from error
    return path


def read_header(path: Path) -> dict[str, Any]:
    """Return an artifact's JSON header after checking the sha256 of its tensors."""
    content = path.read_bytes()
    try:
        header: dict[str, Any] = json.loads(_split(content)[0]["__metadata__"]["zeroskip"])
        digest = _digest(content)
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise PruningError(f"File '{path}' is not an artifact of zeroskip") from error
    if digest != header.get("sha256"):
        raise PruningError(f"Artifact '{path}' is damaged: its tensors do not have the sha256 of its header")
    return header
