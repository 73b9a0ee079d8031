"""Read an artifact, the file that pruning writes, into a Model; every number is checked."""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError, InputError
from zeroskip.compiler.importers.container import ELEMENT_LIMIT, Container, read_container
from zeroskip.compiler.importers.structure import structure_fault
from zeroskip.compiler.ir import Grid, Kind, Layer, Model, Rounding, Tensor
from zeroskip.compiler.verify import verify

__all__ = ["FORMAT_MAJOR", "load_artifact"]

FORMAT_MAJOR = 1

IntArray = NDArray[Any]
Choice = TypeVar("Choice", bound=enum.Enum)

_DTYPES = {
    "weight": "I16",
    "weight_index": "U8",
    "codebook": "I16",
    "bias": "I32",
    "multiplier": "I32",
    "shift": "I8",
    "thresholds": "I32",
}
_REQUIRED = object()
# Layer kinds as files name them, and how many axes their windows have; one axis becomes a map of height 1.
_KINDS = {
    "conv2d": (Kind.CONV2D, 2),
    "linear": (Kind.LINEAR, 0),
    "max_pool2d": (Kind.MAX_POOL2D, 2),
    "avg_pool2d": (Kind.AVG_POOL2D, 2),
    "add": (Kind.ADD, 0),
    "concat": (Kind.CONCAT, 0),
    "argmax": (Kind.ARGMAX, 0),
    "conv1d": (Kind.CONV2D, 1),
    "max_pool1d": (Kind.MAX_POOL2D, 1),
    "avg_pool1d": (Kind.AVG_POOL2D, 1),
}


def load_artifact(path: Path | str) -> Model:
    """Read an artifact file.

    Parameters
    ----------
    path : a ``.safetensors`` file of format 1.x (ARCHITECTURE section 5)

    Returns
    -------
    Model : legal as :func:`zeroskip.compiler.verify.verify` has it; ``metadata`` is the header

    Raises
    ------
    InputError
        Naming the file, the layer or tensor, and the remedy.
    """
    path = Path(path)
    container = read_container(path)
    reader = _Reader(f"Artifact {str(path)!r}", container)
    header = reader.header()
    try:
        model = reader.model(header)
        verify(model)
    except CompileError as error:
        raise InputError(f"{reader.what} is not a legal network: {error}; correct it and export it again") from error
    return model


@dataclass(frozen=True)
class _Reader:
    """The parsing of one file; ``what`` begins every error text."""

    what: str
    container: Container

    def header(self) -> dict[str, Any]:
        """Return the JSON header after checking format version and hash."""
        text = self.container.metadata.get("zeroskip")
        if text is None:
            raise InputError(
                f"{self.what} is a safetensors file without a 'zeroskip' header, perhaps a checkpoint of float "
                "weights; prune and quantize the network with zeroskip first"
            )
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.what} has a damaged 'zeroskip' header ({error}); export it again") from error
        if not isinstance(header, dict):
            raise InputError(f"{self.what} has a 'zeroskip' header that is not a JSON object; export it again")
        version = self.field(header, "header", "format", str)
        match = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", version)
        if match is None:
            raise InputError(f"{self.what} must have a format like '1.0', not {version!r}; export it again")
        if int(match[1]) > FORMAT_MAJOR:
            raise InputError(
                f"{self.what} has format {version}, but this zeroskip reads formats up to {FORMAT_MAJOR}.x; "
                f"install a zeroskip that reads format {match[1]}.x"
            )
        digest = self.field(header, "header", "sha256", str)
        if digest != self.container.sha256:
            raise InputError(
                f"{self.what} is damaged: its header has sha256 {digest}, but its tensors have "
                f"{self.container.sha256}; copy or export it again"
            )
        return header

    def model(self, header: dict[str, Any]) -> Model:
        """Return the network that the header describes, with every tensor of the file used."""
        declared = self.field(header, "header", "tensors", dict)
        tensors = {name: self.tensor(name, declared[name]) for name in declared}
        names: set[str] = set()
        layers = []
        for index, entry in enumerate(self.field(header, "header", "layers", list)):
            if not isinstance(entry, dict):
                raise InputError(f"{self.what} must have tables as layers, but layer number {index} is {entry!r}")
            layers.append(self.layer(index, entry, tensors, names))
        golden = {}
        for name in self.container.arrays:
            if name.startswith("golden/"):
                golden[name.removeprefix("golden/")] = self.golden(name, tensors)
            elif name not in names:
                raise InputError(f"{self.what} has a tensor {name!r}, which belongs to no layer; export it again")
        source, target = (self.field(header, "header", key, str) for key in ("input", "output"))
        for name in (source, target):
            if name not in tensors:
                raise InputError(f"{self.what} has no tensor {name!r} in its header, but names it as input or output")
            if name not in golden:
                raise InputError(f"{self.what} has no tensor 'golden/{name}'; export it again with golden samples")
        for key in ("accuracy", "provenance", "recipe", "versions", "samples_correct"):
            self.field(header, "header", key, dict, {})
        self.check_accuracy(header)
        name = self.field(header, "header", "name", str)
        return Model(name, tuple(layers), tensors, source, target, golden, header)

    def check_accuracy(self, header: dict[str, Any]) -> None:
        """Refuse accuracies that are no fractions."""
        for key, value in (header.get("accuracy") or {}).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and (not number or value < 0 or (key != "samples" and value > 1)):
                raise InputError(f"{self.what} must have an accuracy {key!r} of 0 to 1, not {value!r}")

    def field(self, table: Mapping[str, Any], where: str, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        """Return ``table[key]``, which must be of type ``kind``; a default stands for a missing or null entry."""
        value = table.get(key)
        if value is None:
            if default is _REQUIRED:
                raise InputError(f"{self.what}: {where} must have an entry {key!r}; export it again")
            return default
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            names = {
                dict: "a table",
                list: "a list",
                str: "a text",
                int: "an integer",
                float: "a number",
                bool: "true or false",
            }
            raise InputError(f"{self.what}: {where} must have {names[kind]} as {key!r}, not {value!r}")
        return value

    def integers(self, table: Mapping[str, Any], where: str, key: str, count: int, default: Any = _REQUIRED) -> Any:
        """Return ``table[key]``, which must be a list of ``count`` integers, as a tuple."""
        value = self.field(table, where, key, list, default)
        if len(value) != count or not all(type(item) is int for item in value):
            plural = "s" if count > 1 else ""
            raise InputError(f"{self.what}: {where} must have {count} integer{plural} as {key!r}, not {value!r}")
        return tuple(value)

    def choice(self, table: Mapping[str, Any], where: str, key: str, options: type[Choice]) -> Choice:
        """Return ``table[key]`` as a member of an enum."""
        value = self.field(table, where, key, str)
        try:
            return options(value)
        except ValueError as error:
            known = ", ".join(option.value for option in options)
            raise InputError(f"{self.what}: {where} has {key} {value!r}; supported are {known}") from error

    def tensor(self, name: str, entry: Any) -> Tensor:
        """Return a declared activation tensor."""
        where = f"tensor {name!r}"
        if not isinstance(entry, dict):
            raise InputError(f"{self.what}: {where} must be a table, not {entry!r}")
        shape = self.field(entry, where, "shape", list)
        if not shape or not all(type(size) is int and size > 0 for size in shape):
            raise InputError(f"{self.what}: {where} must have a shape of positive integers, not {shape!r}")
        if math.prod(shape) > ELEMENT_LIMIT:
            raise InputError(f"{self.what}: {where} must have at most {ELEMENT_LIMIT} elements, not shape {shape!r}")
        bits = self.field(entry, where, "bits", int)
        if not 1 <= bits <= 8:
            raise InputError(f"{self.what}: {where} must have 1 to 8 bits, not {bits}")
        return Tensor(
            name,
            # A sequence (C, L) is a map of height 1.
            (shape[0], 1, shape[1]) if len(shape) == 2 else tuple(shape),
            bits,
            self.field(entry, where, "signed", bool),
            self.field(entry, where, "scale", float),
            self.field(entry, where, "zero_point", int, 0),
        )

    def layer(self, index: int, entry: dict[str, Any], tensors: Mapping[str, Tensor], names: set[str]) -> Layer:
        """Return a layer and add the names of its arrays to ``names``."""
        name = self.field(entry, f"layer number {index}", "name", str)
        where = f"layer {name!r}"
        known = self.field(entry, where, "kind", str)
        if known not in _KINDS:
            raise InputError(f"{self.what}: {where} has kind {known!r}; supported are {', '.join(_KINDS)}")
        kind, axes = _KINDS[known]
        inputs = self.field(entry, where, "inputs", list)
        if not inputs or not all(isinstance(item, str) for item in inputs):
            raise InputError(f"{self.what}: {where} must have a list of tensor names as 'inputs', not {inputs!r}")
        output = self.field(entry, where, "output", str)
        if output not in tensors:
            raise InputError(f"{self.what}: {where} writes tensor {output!r}, which the header does not declare")
        target = tensors[output]
        settings: dict[str, Any] = {"name": name, "kind": kind, "inputs": tuple(inputs), "output": output}
        if axes:
            settings["stride"] = self.window(entry, where, "stride", axes)
            padding = self.integers(entry, where, "padding", 2 * axes, [0] * (2 * axes))
            settings["padding"] = padding if axes == 2 else (0, padding[0], 0, padding[1])
        if kind in (Kind.CONV2D, Kind.LINEAR):
            settings |= self.weighted(entry, where, known, target, names)
        elif kind is Kind.ADD:
            settings["left_shift"] = self.field(entry, where, "left_shift", int, 0)
            settings |= self.requantization(entry, where, names)
            settings["clamp"] = self.integers(entry, where, "clamp", 2)
        elif axes:
            settings["kernel"] = self.window(entry, where, "kernel", axes)
            settings["clamp"] = self.integers(entry, where, "clamp", 2, [target.lo, target.hi])
        return Layer(**settings)

    def window(self, table: Mapping[str, Any], where: str, key: str, axes: int, default: Any = _REQUIRED) -> Any:
        """Return ``table[key]``, ``axes`` integers, as ``(y, x)``."""
        values = self.integers(table, where, key, axes, default)
        return values if axes == 2 else (1, *values)

    def weighted(self, entry: dict[str, Any], where: str, kind: str, target: Tensor, names: set[str]) -> dict[str, Any]:
        """Return the settings that only convolutions and linear layers have."""
        settings = self.requantization(entry, where, names)
        grid = settings["grid"] = self.choice(entry, where, "grid", Grid)
        if grid is Grid.CODEBOOK:
            weight, settings["codebook"] = self.decoded(entry["name"], names)
        else:
            weight = self.array(entry["name"], "weight", names)
        order = {"conv2d": "OIHW", "conv1d": "OIL", "linear": "OI"}[kind]
        if weight.ndim != len(order):
            raise InputError(
                f"{self.what}: {where} must have weight of shape {order}, not {weight.shape}; export it again"
            )
        settings["weight_bits"] = self.field(entry, where, "weight_bits", int)
        settings["structure"] = self.structure(entry, where, weight)
        clamp: Any = _REQUIRED
        if settings["rounding"] is Rounding.THRESHOLDS:
            clamp = [target.lo, target.lo + sum(settings["thresholds"].shape[1:])]
            rows = np.zeros(len(weight), np.int32)
            settings["bias"] = self.array(entry["name"], "bias", names, rows)
        else:
            settings["bias"] = self.array(entry["name"], "bias", names)
        settings["clamp"] = self.integers(entry, where, "clamp", 2, clamp)
        if kind == "conv1d":
            weight = weight[:, :, None]
        if kind != "linear":
            settings["kernel"] = tuple(int(size) for size in weight.shape[2:])
            axes = _KINDS[kind][1]
            settings["dilation"] = self.window(entry, where, "dilation", axes, [1] * axes)
            settings["groups"] = self.field(entry, where, "groups", int, 1)
        return settings | {"weight": weight}

    def requantization(self, entry: dict[str, Any], where: str, names: set[str]) -> dict[str, Any]:
        """Return the rounding of a layer and the arrays it takes."""
        rounding = self.choice(entry, where, "rounding", Rounding)
        parts = ("thresholds",) if rounding is Rounding.THRESHOLDS else ("multiplier", "shift")
        return {"rounding": rounding} | {part: self.array(entry["name"], part, names) for part in parts}

    def decoded(self, layer: str, names: set[str]) -> tuple[IntArray, IntArray]:
        """Return the levels that a layer's indices choose from its codebook, and the codebook."""
        index, codebook = (self.array(layer, part, names) for part in ("weight_index", "codebook"))
        if codebook.ndim != 1 or (index.size and int(index.max()) >= len(codebook)):
            raise InputError(
                f"{self.what} has a tensor '{layer}.weight_index' with indices up to {int(index.max(initial=0))}, but "
                f"'{layer}.codebook' has shape {codebook.shape}; export it again"
            )
        return (codebook[index] if index.size else index.astype(np.int16)), codebook

    def structure(self, entry: dict[str, Any], where: str, weight: IntArray) -> dict[str, Any]:
        """Return the sparsity structure, which the weights must have."""
        structure: dict[str, Any] = self.field(entry, where, "structure", dict)
        fault = structure_fault(structure, weight)
        if fault is not None:
            raise InputError(f"{self.what}: {where} {fault}; export it again")
        return structure

    def array(self, layer: str, part: str, names: set[str], default: IntArray | None = None) -> IntArray:
        """Return a layer's array after checking its dtype, and add its name to ``names``."""
        name = f"{layer}.{part}"
        entry = self.container.entries.get(name)
        if entry is None:
            if default is not None:
                return default
            raise InputError(f"{self.what} has no tensor {name!r}, which layer {layer!r} needs; export it again")
        if entry.dtype != _DTYPES[part]:
            raise InputError(
                f"{self.what} must have tensor {name!r} of dtype {_DTYPES[part]}, not {entry.dtype}"
                f"{self.float_hint(name, entry.dtype)}"
            )
        names.add(name)
        return self.container.arrays[name]

    def float_hint(self, name: str, dtype: str) -> str:
        """Return what to do about a float tensor, with its NaNs counted."""
        if not dtype.startswith("F"):
            return "; export it again"
        missing = int(np.isnan(self.container.arrays[name]).sum())
        return f"{f' with {missing} NaN' if missing else ''}; quantize the network before exporting it"

    def golden(self, name: str, tensors: Mapping[str, Tensor]) -> IntArray:
        """Return golden samples after checking that they belong to a declared tensor and have its code dtype."""
        tensor = tensors.get(name.removeprefix("golden/"))
        if tensor is None:
            raise InputError(f"{self.what} has a tensor {name!r}, but its header declares no such activation")
        wanted = "I8" if tensor.signed else "U8"
        dtype = self.container.entries[name].dtype
        if dtype != wanted:
            raise InputError(
                f"{self.what} must have tensor {name!r} of dtype {wanted}, not {dtype}{self.float_hint(name, dtype)}"
            )
        array = self.container.arrays[name]
        return array[:, :, None] if array.ndim == 3 and len(tensor.shape) == 3 and tensor.shape[1] == 1 else array
