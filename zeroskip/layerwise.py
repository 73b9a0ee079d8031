"""Layer by layer: the source's float values, the integer reference and what the RTL of a design folder writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from zeroskip.api import SIMULATION_MB, read_manifest
from zeroskip.compiler import reference
from zeroskip.compiler.emit import check_images, read_program
from zeroskip.compiler.errors import InputError, VerificationError
from zeroskip.compiler.importers import load_model
from zeroskip.compiler.ir import Model
from zeroskip.compiler.program import LayerPlan, Program
from zeroskip.disk import require_space
from zeroskip.report import render
from zeroskip.vectors import to_codes, to_floats

__all__ = ["Difference", "LayerValues", "LayerwiseComparison", "compare"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """One value that is not as expected: ``place`` is its ``(channel, y, x)``, or its number in a vector.

    ``got`` is None where the RTL wrote nothing.
    """

    layer: str
    tensor: str
    vector: int
    place: tuple[int, ...]
    expected: float
    got: float | None

    def __str__(self) -> str:
        names = ("channel", "y", "x") if len(self.place) > 1 else ("output",)
        where = ", ".join(f"{name} {at}" for name, at in zip(names, self.place, strict=False))
        got = "nothing" if self.got is None else f"{self.got:g}"
        return f"layer {self.layer!r} (input {self.vector}, {where}): expected {self.expected:g}, got {got}"


@dataclass(frozen=True, eq=False)
class LayerValues:
    """The values of one layer's tensor in the imported network, shape (vectors, *tensor shape).

    Attributes
    ----------
    layer : name of the layer of the design that writes it; of the network where none does
    tensor : its name
    floats : the source framework's values; None where the source has none, or not this tensor
    codes, reals : integer reference, and what the codes stand for
    rtl : codes that the RTL wrote, masked in channels that were removed; None where the tensor is not stored
    silent : where the RTL should have written and did not
    """

    layer: str
    tensor: str
    floats: Array | None
    codes: Array
    reals: Array
    rtl: np.ma.MaskedArray[Any, Any] | None
    silent: Array | None

    @property
    def float_differs(self) -> Array:
        """Where float and integer value are not equal."""
        return np.zeros(self.codes.shape, bool) if self.floats is None else np.asarray(self.floats != self.reals)

    @property
    def rtl_differs(self) -> Array:
        """Where the RTL wrote another code than the integer reference has, or nothing."""
        if self.rtl is None or self.silent is None:
            return np.zeros(self.codes.shape, bool)
        return np.asarray((self.rtl != self.codes).filled(False) | self.silent)

    @property
    def largest_difference(self) -> float | None:
        """The largest distance of a float from its integer value; None without floats."""
        return None if self.floats is None else float(np.abs(self.floats.astype(np.float64) - self.reals).max())

    @property
    def first_difference(self) -> Difference | None:
        """The first place, by input and place, where the RTL differs from the integer reference."""
        return self._first(self.rtl_differs, self.codes, self.rtl)

    @property
    def first_float_difference(self) -> Difference | None:
        """The first place, by input and place, where the integer value differs from the float."""
        return None if self.floats is None else self._first(self.float_differs, self.floats, self.reals)

    def _first(self, differs: Array, expected: Array, got: Any) -> Difference | None:
        if got is None or not differs.any():
            return None
        index = np.unravel_index(int(np.argmax(differs)), differs.shape)
        value = None if got[index] is np.ma.masked else float(got[index])
        vector, *place = (int(at) for at in index)
        return Difference(self.layer, self.tensor, vector, tuple(place), float(expected[index]), value)

    def shown(self) -> tuple[int, ...]:
        """Return the place that is shown: the first difference, or the largest value where there is none."""
        for found in (self.first_difference, self.first_float_difference):
            if found is not None:
                return (found.vector, *found.place)
        weight = np.abs(self.reals) + 1
        if self.rtl is not None:
            weight = np.where(np.ma.getmaskarray(self.rtl), 0, weight)
        return tuple(int(at) for at in np.unravel_index(int(np.argmax(weight)), weight.shape))

    def summary(self) -> dict[str, Any]:
        """Return the row of this layer as plain values."""
        place = self.shown()
        rtl = None if self.rtl is None or self.rtl[place] is np.ma.masked else int(self.rtl[place])
        first, first_float = self.first_difference, self.first_float_difference
        return {
            "layer": self.layer,
            "tensor": self.tensor,
            "values": int(self.codes.size),
            "float": "source" if self.floats is not None else "scale x integer",
            "float_differing": None if self.floats is None else int(self.float_differs.sum()),
            "largest_difference": self.largest_difference,
            "rtl_values": None if self.rtl is None else int((~np.ma.getmaskarray(self.rtl)).sum()),
            "rtl_differing": None if self.rtl is None else int(self.rtl_differs.sum()),
            "first_difference": None if first is None else asdict(first),
            "first_float_difference": None if first_float is None else asdict(first_float),
            "shown": {
                "vector": place[0],
                "place": list(place[1:]),
                "float": float((self.reals if self.floats is None else self.floats)[place]),
                "real": float(self.reals[place]),
                "integer": int(self.codes[place]),
                "rtl": rtl,
            },
        }


@dataclass(frozen=True, eq=False)
class LayerwiseComparison:
    """All layers, in the order of the network.

    ``failure`` says that the design hangs, or writes what no layer has; ``notes`` what explains a difference.
    """

    layers: tuple[LayerValues, ...]
    vectors: int
    failure: str | None
    notes: tuple[str, ...]

    @property
    def first_difference(self) -> Difference | None:
        """The first place where the RTL differs: of the first input, in the first layer; None if nowhere."""
        found = [layer.first_difference for layer in self.layers]
        return min((first for first in found if first is not None), key=lambda first: first.vector, default=None)

    def check(self) -> LayerwiseComparison:
        """Return self when the RTL equals the integer reference.

        Raises
        ------
        VerificationError
            Naming the first difference; differences from floats do not count.
        """
        count = sum(int(layer.rtl_differs.sum()) for layer in self.layers)
        parts = [] if self.failure is None else [self.failure]
        if count:
            parts.append(f"RTL differs from the integer reference in {count:,} values; first: {self.first_difference}")
        if parts:
            raise VerificationError(". ".join(parts))
        return self

    def arrays(self) -> dict[str, Array]:
        """Return all values by ``<tensor>.float``, ``<tensor>.integer`` and ``<tensor>.rtl``; -32768: not written."""
        arrays: dict[str, Array] = {}
        for layer in self.layers:
            # copies of a tensor have its floats and integers, and are told apart by their layer
            name = layer.tensor if f"{layer.tensor}.integer" not in arrays else layer.layer
            arrays[f"{name}.float"] = layer.reals if layer.floats is None else layer.floats
            arrays[f"{name}.integer"] = layer.codes
            if layer.rtl is not None:
                arrays[f"{name}.rtl"] = layer.rtl.filled(np.iinfo(np.int16).min).astype(np.int16)
        return arrays

    def to_dict(self) -> dict[str, Any]:
        """Return what ``zeroskip compare --json`` prints."""
        first = self.first_difference
        return {
            "vectors": self.vectors,
            "layers": [layer.summary() for layer in self.layers],
            "first_difference": None if first is None else asdict(first),
            "failure": self.failure,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        table = Table(title=f"{self.vectors} inputs; at one place a layer: float, integer, RTL", title_justify="left")
        titles = ("layer", "tensor", "values", "float differ", "largest", "RTL differ", "at", "float", "integer", "RTL")
        for number, title in enumerate(titles):
            table.add_column(title, justify="left" if number < 2 else "right", no_wrap=number > 1)
        for layer in self.layers:
            row = layer.summary()
            shown, largest = row["shown"], row["largest_difference"]
            table.add_row(
                row["layer"],
                row["tensor"],
                f"{row['values']:,}",
                _count(row["float_differing"]),
                "-" if largest is None else f"{largest:.4g}",
                _count(row["rtl_differing"]),
                ":".join(map(str, (shown["vector"], *shown["place"]))),
                f"{shown['float']:.6g}",
                f"{shown['integer']} = {shown['real']:.6g}",
                "-" if shown["rtl"] is None else str(shown["rtl"]),
            )
        floats = [layer.first_float_difference for layer in self.layers]
        first_float = next((first for first in floats if first is not None), None)
        lines = [
            f"first difference of the RTL from the integers: {self.first_difference or 'none'}",
            *([f"first difference of the integers from the floats: {first_float}"] if first_float else []),
            *([self.failure] if self.failure else []),
            *self.notes,
        ]
        return render(table, *lines, width=140)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def compare(
    model: Path | str,
    directory: Path | str,
    inputs: NDArray[np.generic],
    *,
    floats: Mapping[str, NDArray[np.generic]] | None = None,
    simulator: str = "verilator",
    progress: Callable[[str], None] | None = None,
) -> LayerwiseComparison:
    """Compare the float, integer and RTL values of every layer of a compiled folder.

    The floats are those of the source: an ``.onnx`` file is evaluated in float32. Other files hold integers only: their
    floats can be given, as :meth:`zeroskip.pruning.QuantizedNetwork.float_values` has them for a torch network, and
    where there are none a float is the scale times the integer. Places are those of the imported network, whatever
    channels a pass removed or moved. The ROM images are simulated as they lie in the folder.

    Parameters
    ----------
    model : the model file that ``directory`` was compiled from
    directory : compiled folder
    inputs : codes, or floats that are quantized, shape (vectors, *input shape)
    floats : tensor name -> the source's values for the same inputs
    simulator : ``"verilator"`` or ``"icarus"``
    progress : called with one line of text at each step

    Raises
    ------
    InputError
        If the folder was compiled from another file, or inputs or floats do not fit.
    """
    from zeroskip.boards.simulation import simulate

    path, folder = Path(model), Path(directory)
    _check_origin(path, read_manifest(folder))
    network = load_model(path)
    source = network.tensors[network.input]
    codes = to_codes(np.asarray(inputs), source, "Inputs")
    program = read_program(folder, network)
    require_space(folder, SIMULATION_MB)
    notes = []
    try:
        check_images(program, folder)
    except VerificationError as error:
        notes.append(str(error))
    integers = reference.run(network, codes)
    values = _source_floats(path, network, inputs, codes) if floats is None else _given_floats(floats, integers)
    stored = [_stored(plan, program, network) for plan in program.layers]
    expected = {
        plan.output: integers[name][:, channels] for plan, (name, channels) in zip(program.layers, stored, strict=True)
    }
    expected[network.output] = integers[network.output]
    result = simulate(folder, codes, expected, simulator=simulator, progress=progress, keep_values=True)
    rtl = [
        (plan.name, name, *_spread(result.values[plan.output], channels, network.tensors[name].shape))
        for plan, (name, channels) in zip(program.layers, stored, strict=True)
    ]
    if network.results != network.output:
        # no layer of the array writes the number of the largest result
        shape = network.tensors[network.output].shape
        outputs = np.ma.masked_all((len(codes), *shape), np.int64)
        outputs[: len(result.outputs)] = result.outputs
        rtl.append((network.layers[-1].name, network.output, *_spread(outputs, np.arange(shape[0]), shape)))
    layers = _rows(network, integers, values, rtl)
    failure = result.failure
    if failure is None and result.mismatch_count and not any(layer.rtl_differs.any() for layer in layers):
        # written twice, too late, or to no place of the map
        failure = f"RTL writes where it must not: {result.first_mismatch}"
    return LayerwiseComparison(layers, len(codes), failure, tuple(notes))


def _check_origin(model: Path, manifest: Mapping[str, Any]) -> None:
    """Check that the folder was compiled from this file."""
    artifact = manifest["artifact"]
    try:
        digest = sha256(model.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"Model '{model}' cannot be read: {error.strerror}; name an existing file") from error
    if artifact.get("sha256") != digest:
        raise InputError(
            f"Model '{model}' has SHA-256 {digest[:12]}..., but the design was compiled from '{artifact.get('file')}' "
            f"with {str(artifact.get('sha256'))[:12]}...; name that file, or compile this one again"
        )


def _source_floats(path: Path, network: Model, inputs: Array, codes: Array) -> dict[str, Array]:
    """Return the float values of the source by tensor; none where the file holds integers."""
    if path.suffix.lower() != ".onnx":
        return {}
    from zeroskip.compiler.importers.onnx_values import onnx_values

    source = network.tensors[network.input]
    integer = network.metadata["input_type"] != "float32"
    return dict(onnx_values(path, network, codes if integer else to_floats(np.asarray(inputs), source, "Inputs")))


def _given_floats(floats: Mapping[str, NDArray[np.generic]], integers: Mapping[str, Array]) -> dict[str, Array]:
    """Return the given float values; a vector may be a map of one value a channel."""
    found = {}
    for name, given in floats.items():
        if name not in integers:
            raise InputError(f"Floats have the tensor {name!r}, but the network has {', '.join(integers)}")
        values: Array = np.asarray(given)
        shape = integers[name].shape
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            raise InputError(f"Floats of tensor {name!r} must be finite floats, not {values.dtype}")
        if values.shape[:1] != shape[:1] or values.size != integers[name].size:
            raise InputError(f"Floats of tensor {name!r} must have shape {shape}, not {values.shape}")
        found[name] = values.reshape(shape).astype(np.float32)
    return found


def _stored(plan: LayerPlan, program: Program, network: Model) -> tuple[str, Array]:
    """Return which tensor of the network a layer of the design writes, and which of its channels in which order."""
    name = plan.output
    while name not in network.tensors:
        # a copy that a pass inserted
        producer = program.model.producer(name)
        if producer is None:
            raise VerificationError(f"Tensor {name!r} of the design is not in the network; compile it again")
        name = producer.input
    count = network.tensors[name].shape[0]
    channels = np.array(program.model.kept_channels.get(plan.output, range(count)))
    return name, channels[list(program.row_orders.get(plan.output, range(len(channels))))]


def _spread(
    values: np.ma.MaskedArray[Any, Any], channels: Array, shape: tuple[int, ...]
) -> tuple[np.ma.MaskedArray[Any, Any], Array]:
    """Return the RTL's values in the places of the network's tensor, and where they are missing."""
    spread = np.ma.masked_all((len(values), *shape), np.int64)
    silent = np.zeros(spread.shape, bool)
    spread[:, channels] = values
    silent[:, channels] = np.ma.getmaskarray(values)
    return spread, silent


def _rows(
    network: Model,
    integers: Mapping[str, Array],
    floats: Mapping[str, Array],
    rtl: list[tuple[str, str, np.ma.MaskedArray[Any, Any], Array]],
) -> tuple[LayerValues, ...]:
    """Return a row for the input, every layer of the network and every copy of its tensor."""
    rows = []
    names = {layer.output: layer.name for layer in network.layers}
    for name in (network.input, *names):
        tensor = network.tensors[name]
        codes = integers[name].astype(np.int64)
        reals = (codes - tensor.zero_point).astype(np.float32) * np.float32(tensor.scale)
        known = (floats.get(name), codes, reals)
        found = [LayerValues(layer, name, *known, values, silent) for layer, at, values, silent in rtl if at == name]
        rows += found or [LayerValues(names.get(name, "input"), name, *known, None, None)]
    return tuple(rows)
