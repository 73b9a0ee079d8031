"""The files of a compiled network: ROM images, the program's JSON, and reading both back with proof."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.errors import InputError, VerificationError
from zeroskip.compiler.importers import load_model, stored_model
from zeroskip.compiler.ir import Model
from zeroskip.compiler.lower import lower
from zeroskip.compiler.pages import PARAMETER_IMAGE, page_bytes, page_image, page_parameters, parse_image
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.program import FlashRead, Program, Rom
from zeroskip.compiler.rom_check import check_roms
from zeroskip.compiler.spram import move_roms
from zeroskip.compiler.target import Format, Geometry

__all__ = ["PROGRAM_FORMAT", "check_images", "load_program", "program_files", "read_program"]

PROGRAM_FORMAT = "1.0"


def program_files(program: Program, index_bits: int | None, least_storage: bool = False) -> dict[str, bytes]:
    """Return the files of a program by path: ``rom/*.mem``, ``rom/*.json``, ``ir/program.json``, parameter image."""
    files = {}
    for rom in program.roms:
        files[f"rom/{rom.name}.mem"] = mem_text(rom)
        files[f"rom/{rom.name}.json"] = _json(_rom_header(rom, files[f"rom/{rom.name}.mem"]))
    files["ir/program.json"] = _json(_program_header(program, index_bits, least_storage))
    content = {path: text.encode() for path, text in files.items()}
    if program.paging is not None:
        content[PARAMETER_IMAGE] = page_image(program)
    return content


def mem_text(rom: Rom) -> str:
    """Return a ROM image for ``$readmemh``: one word a line, first address 0."""
    digits = -(-rom.word_bits // 4)
    return "".join(f"{word:0{digits}x}\n" for word in rom.words)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _rom_header(rom: Rom, text: str) -> dict[str, Any]:
    return {
        "name": rom.name,
        "format": rom.format,
        "style": rom.style,
        **({"buffer": rom.buffer} if rom.buffer else {}),
        "word_bits": rom.word_bits,
        "depth": rom.depth,
        "slots": rom.slots,
        "slot_bits": rom.slot_bits,
        "slot_order": "slot 0 in the low bits",
        "row_restart": rom.format == "index",
        "fields": [asdict(spec) for spec in rom.fields],
        "layers": [asdict(segment) for segment in rom.segments],
        "sha256": sha256(text.encode()).hexdigest(),
    }


def _program_header(program: Program, index_bits: int | None, least_storage: bool) -> dict[str, Any]:
    model, config = program.model, program.config
    geometry = config.geometry
    cycles = program_cycles(program)
    tensors = model.tensors
    return {
        "format": PROGRAM_FORMAT,
        "name": model.name,
        "geometry": asdict(geometry),
        "index_bits": index_bits,
        "least_storage": least_storage,
        "spram": [rom.name for rom in program.roms if rom.style == "spram"],
        "parameters": _parameters(program),
        "config": {key: value for key, value in asdict(config).items() if key != "geometry"},
        "input": {"name": model.input, **_tensor(tensors[model.input])},
        "output": {"name": model.output, **_tensor(tensors[model.output])},
        "layers": [
            {
                "name": plan.name,
                "kind": plan.kind,
                "format": plan.format.value,
                "output": plan.output,
                "shape": list(plan.shape),
                "signed": tensors[plan.output].signed,
                "rows_together": plan.rows_together,
                "first_place": plan.back["place_base"] * geometry.results,
                "places": [-1 if place is None else place[0] * plan.shape[-1] + place[1] for place in plan.places],
                "k": plan.index_bits or None,
                "weight_bits": plan.weight_bits,
                "macs_dense": plan.macs_dense,
                "macs_useful": plan.macs_useful,
                "model_cycles": layer_cycles.cycles,
                "storage_bits": dict(plan.storage),
                "row_order": list(program.row_orders[plan.output]) if plan.output in program.row_orders else None,
                "notes": list(plan.notes),
            }
            for plan, layer_cycles in zip(program.layers, cycles.layers, strict=True)
        ],
        "memory": {
            name: {"storage": layout.storage.value, "base": layout.base, "words": layout.words}
            for name, layout in program.layouts.items()
        },
        "notes": list(program.notes),
    }


def _parameters(program: Program) -> dict[str, Any] | None:
    """Return what comes from outside: from where, and in which pages."""
    paging = program.paging
    if paging is None:
        return None
    return {
        "source": paging.source,
        "flash": None if paging.flash is None else asdict(paging.flash),
        "least_words": paging.least_words,
        "pages": [
            {"bytes": page_bytes(program, page), "layers": [program.layers[layer].name for layer, _, _ in page.parts]}
            for page in paging.pages
        ],
    }


def _tensor(tensor: Any) -> dict[str, Any]:
    return {
        "shape": list(tensor.shape),
        "bits": tensor.bits,
        "signed": tensor.signed,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
    }


def load_program(directory: Path) -> Program:
    """Read a compiled folder back: compile its model file again and prove that the images on disk are the network's.

    Raises
    ------
    InputError
        If the folder is not a compiled network.
    VerificationError
        If an image differs; the text names image, word and layer.
    """
    program = read_program(directory, load_model(stored_model(directory)))
    check_images(program, directory)
    return program


def read_program(directory: Path, network: Model) -> Program:
    """Compile ``network`` again, as it was compiled into ``directory``; the images there are not looked at.

    Raises
    ------
    InputError
        If the folder is not a compiled network.
    """
    path = directory / "ir" / "program.json"
    if not path.is_file():
        raise InputError(
            f"Folder '{directory}' is no compiled network: {path} is missing; run 'zeroskip compile' first"
        )
    try:
        header = json.loads(path.read_text())
        geometry = header["geometry"]
        banked, paired = (bool(geometry.pop(key)) for key in ("banked_vectors", "paired_products"))
        sizes = {key: int(value) for key, value in geometry.items()}
        size = Geometry(**sizes, banked_vectors=banked, paired_products=paired)
        formats = {layer["name"]: Format(layer["format"]) for layer in header["layers"]}
        index_bits, least_storage = header["index_bits"], bool(header.get("least_storage"))
        spram, outside = header["spram"], _outside(header.get("parameters"))
        name = str(header["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"File '{path}' is damaged ({error}); compile again") from error
    # A file without a name inside is named after itself, and here it is called model.
    model, _ = run_passes(replace(network, name=name))
    program = move_roms(lower(model, size, formats, index_bits=index_bits, least_storage=least_storage), spram)
    check_roms(program)
    return program if outside is None else page_parameters(program, *outside)


def _outside(parameters: Mapping[str, Any] | None) -> tuple[FlashRead | None, int] | None:
    """Return from where parameters come and the least words of a buffer; None: they are on the chip."""
    if parameters is None:
        return None
    flash = parameters["flash"]
    return None if flash is None else FlashRead(**flash), int(parameters["least_words"])


def check_images(program: Program, directory: Path) -> None:
    """Compare every ROM image in ``directory`` with the program's, word by word.

    Raises
    ------
    VerificationError
        Naming the image, the word and the layer it belongs to.
    """
    for rom in program.roms:
        path = directory / "rom" / f"{rom.name}.mem"
        try:
            lines = path.read_text().split()
            words = [int(line, 16) for line in lines]
        except FileNotFoundError:
            raise InputError(f"ROM image '{path}' is missing; compile again") from None
        except ValueError as error:
            raise VerificationError(f"ROM image '{path}' is not hexadecimal ({error}); compile again") from error
        if len(words) != rom.depth:
            raise VerificationError(
                f"ROM image '{path}' has {len(words)} words, but the network needs {rom.depth}; compile again"
            )
        for address, (got, expected) in enumerate(zip(words, rom.words, strict=True)):
            if got != expected:
                layer = _layer_at(rom, address)
                raise VerificationError(
                    f"ROM image '{path}' word {address} (layer {layer!r}) is {got:x}, "
                    f"but the network has {expected:x}; compile again"
                )
    if program.paging is not None:
        _check_parameters(program, directory / PARAMETER_IMAGE)


def _check_parameters(program: Program, path: Path) -> None:
    """Compare the words that the image of what comes from outside holds."""
    try:
        held = parse_image(program, path.read_bytes())
    except OSError as error:
        raise InputError(f"Parameter image '{path}' cannot be read ({error.strerror}); compile again") from error
    for name, words in held.items():
        if tuple(words) != program.rom(name).words:
            raise VerificationError(f"Parameter image '{path}' does not hold image {name!r}; compile again")


def _layer_at(rom: Rom, address: int) -> str:
    for segment in rom.segments:
        if segment.layer and segment.first <= address < segment.first + segment.count:
            return segment.layer
    return "shared tables"
