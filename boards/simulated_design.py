"""What a simulation needs to know about a compiled folder: layers, shapes, port widths and the names of its states."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroskip.compiler.errors import InputError
from zeroskip.compiler.pages import PARAMETER_IMAGE

__all__ = ["Outside", "Places", "SimulatedDesign", "read_design"]

_TOP_MODULE = "accelerator"
_PARAMETER_PORTS = {
    "LAYER_BITS": "trace__layer",
    "CHANNEL_BITS": "trace__channel",
    "PLACE_BITS": "trace__place",
    "RESULTS": "trace__valid",
    "STATE_BITS": "state",
}
_PAGE_PORT = "pages__number"
_MAX_PORT_BITS = 16
_MAX_RESULTS = 32


@dataclass(frozen=True)
class Places:
    """What the places in the trace of a layer mean: place ``first + i`` is element ``elements[i]`` of a map.

    With more than one of ``rows``, the places of a word are those of so many channels.
    """

    first: int
    elements: tuple[int, ...]
    rows: int = 1


@dataclass(frozen=True)
class Outside:
    """Where parameters come from during an inference: ``host`` or ``flash``; the layers of each page, its bytes.

    ``image`` is the file of all pages.
    """

    source: str
    image: Path
    size: int
    layers: tuple[tuple[str, ...], ...]

    @property
    def defines(self) -> tuple[str, ...]:
        """What ``sim_top`` is compiled with."""
        return ("PAGES", "FLASH") if self.source == "flash" else ("PAGES",)

    def describe_page(self, page: int) -> str:
        """Return a page and the layers it belongs to, in words."""
        names = self.layers[page] if page < len(self.layers) else ()
        return f"page {page} (layer {', '.join(map(repr, names))})"


@dataclass(frozen=True)
class SimulatedDesign:
    """A compiled folder: ``names``, ``tensors`` and ``shapes`` have one entry a layer, in execution order.

    ``parameters`` are those of ``sim_top``; ``signed`` tells whether a layer's codes are two's complement (None: not
    said) and what the places in its trace mean (None: place ``i`` is element ``i``). ``cycles`` is what the cycle model
    says of all layers together (0: nothing). ``outside`` is where parameters come from, if not from the chip.
    """

    directory: Path
    sources: tuple[Path, ...]
    parameters: Mapping[str, int]
    names: tuple[str, ...]
    tensors: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    signed: tuple[bool | None, ...]
    places: tuple[Places | None, ...]
    input_shape: tuple[int, ...]
    output: str
    output_shape: tuple[int, ...]
    output_signed: bool
    cycles: int
    outside: Outside | None = None

    def describe_state(self, state: int) -> str:
        """Return what the design does in ``state``, in words."""
        if state == 0:
            return "loading the input (state 0)"
        if state <= len(self.names):
            return f"layer '{self.names[state - 1]}' (state {state})"
        if state == len(self.names) + 1:
            return f"unloading the output (state {state})"
        return f"unknown state {state}"


def read_design(directory: Path) -> SimulatedDesign:
    """Read ``ir/program.json`` and the port widths of ``rtl/accelerator.v``.

    Raises
    ------
    InputError
        If a file, a key or a port is missing.
    """
    plan = _read_json(directory / "ir" / "program.json")
    sources = tuple(sorted((directory / "rtl").glob("*.v")))
    accelerator = directory / "rtl" / f"{_TOP_MODULE}.v"
    if accelerator not in sources:
        raise InputError(f"Compiled folder '{directory}' must hold 'rtl/{_TOP_MODULE}.v'; run `zeroskip compile` first")
    header = _module_text(accelerator)
    parameters = {name: _port_bits(header, port, accelerator) for name, port in _PARAMETER_PORTS.items()}
    try:
        layers = plan["layers"]
        outside = _read_outside(plan.get("parameters"), directory)
        if outside is not None:
            parameters["PAGE_BITS"] = _port_bits(header, _PAGE_PORT, accelerator)
            if outside.source == "flash":
                flash = plan["parameters"]["flash"]
                parameters |= {"FLASH_OFFSET": flash["offset"], "FLASH_WAKE": flash["wake_cycles"] - 1}
        return SimulatedDesign(
            directory=directory,
            sources=sources,
            parameters=parameters,
            names=tuple(layer["name"] for layer in layers),
            tensors=tuple(layer["output"] for layer in layers),
            shapes=tuple(tuple(layer["shape"]) for layer in layers),
            signed=tuple(layer.get("signed") for layer in layers),
            places=tuple(
                Places(layer["first_place"], tuple(layer["places"]), layer.get("rows_together", 1))
                if "places" in layer
                else None
                for layer in layers
            ),
            input_shape=tuple(plan["input"]["shape"]),
            output=plan["output"].get("name", layers[-1]["output"]),
            output_shape=tuple(plan["output"]["shape"]),
            output_signed=bool(plan["output"]["signed"]),
            cycles=sum(layer.get("model_cycles", 0) for layer in layers),
            outside=outside,
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"File '{directory / 'ir' / 'program.json'}' lacks an entry: {error}") from error


def _read_outside(parameters: dict[str, Any] | None, directory: Path) -> Outside | None:
    """Return where parameters come from; None: they are on the chip."""
    if parameters is None:
        return None
    image = directory / PARAMETER_IMAGE
    pages = parameters["pages"]
    size = sum(page["bytes"] for page in pages)
    if not image.is_file() or image.stat().st_size != size:
        raise InputError(f"Parameter image '{image}' must have {size} bytes; compile again")
    return Outside(parameters["source"], image, size, tuple(tuple(page["layers"]) for page in pages))


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's content."""
    if not path.is_file():
        raise InputError(f"Compiled folder must hold '{path}'; run `zeroskip compile` first")
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"File '{path}' must be JSON: {error}") from error
    return content


def _module_text(path: Path) -> str:
    """Return the text of the top module in a Verilog file."""
    found = re.search(rf"^\s*module\s+{_TOP_MODULE}\b.*?^\s*endmodule\b", path.read_text(), re.DOTALL | re.MULTILINE)
    if found is None:
        raise InputError(f"File '{path}' must define module '{_TOP_MODULE}'")
    return found.group()


def _port_bits(module: str, port: str, path: Path) -> int:
    """Return the width of an output port."""
    found = re.search(rf"\boutput\b\s*(?:wire|reg|logic)?\s*(?:\[\s*(\d+)\s*:\s*(\d+)\s*\])?\s*{port}\b", module)
    if found is None:
        raise InputError(f"File '{path}' must declare output '{port}'")
    bits = 1 if found[1] is None else int(found[1]) - int(found[2]) + 1
    # one bit a result: no field of the trace's records
    most = _MAX_RESULTS if port == _PARAMETER_PORTS["RESULTS"] else _MAX_PORT_BITS
    if bits > most:
        raise InputError(f"Output '{port}' must have at most {most} bits, not {bits}")
    return bits
