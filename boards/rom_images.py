"""The ROM images of a compiled folder as the board tools read them, and the image that fills SPRAM at boot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zeroskip.boards.board import Board
from zeroskip.compiler.crc import crc32
from zeroskip.compiler.errors import CapacityError, InputError
from zeroskip.compiler.pages import PARAMETER_IMAGE
from zeroskip.compiler.spram import spram_words

__all__ = ["FLASH_IMAGE", "BootImage", "boot_image", "parameter_image", "rom_header", "rom_words"]

FLASH_IMAGE = "flash.bin"
"""File beside the bitstream that the board's flash holds."""


@dataclass(frozen=True)
class BootImage:
    """What boot loads: ``lengths`` are the words of each SPRAM, ``data`` all of them, most significant byte first."""

    lengths: tuple[int, ...]
    data: bytes

    @property
    def crc(self) -> int:
        """The checksum that the hardware expects."""
        return crc32(self.data)


def boot_image(directory: Path, board: Board) -> BootImage | None:
    """Return the image of the ROMs in SPRAM of ``directory``, block by block in the order of their names, or None.

    Raises
    ------
    CapacityError
        If they need more SPRAM than the board has.
    InputError
        If an image or its description cannot be read.
    """
    headers = {path.stem: rom_header(path) for path in (directory / "rom").glob("*.json")}
    blocks: list[list[int]] = []
    for name in sorted(headers):
        if headers[name]["style"] == "spram":
            depth, width = headers[name]["depth"], headers[name]["word_bits"]
            blocks += spram_words(rom_words(directory, f"rom_{name}", depth, width), width)
    if not blocks:
        return None
    if len(blocks) > board.spram:
        raise CapacityError(
            f"Design in '{directory}' loads its parameters into {len(blocks)} SPRAMs, but board {board.name!r} has "
            f"{board.spram}; compile again with --board {board.name}"
        )
    data = b"".join(np.array(block, ">u2").tobytes() for block in blocks)
    return BootImage(tuple(len(block) for block in blocks), data)


def parameter_image(directory: Path, board: Board) -> bytes | None:
    """Return what a design reads from the board's flash during every inference, None where it reads nothing.

    Raises
    ------
    CapacityError
        If the design was compiled for another board's flash, or takes its parameters from the host.
    InputError
        If a file cannot be read.
    """
    path = directory / "ir" / "program.json"
    if not path.is_file():
        return None
    try:
        outside = json.loads(path.read_text(encoding="utf-8")).get("parameters")
        flash = outside and outside["flash"]
        image = (directory / PARAMETER_IMAGE).read_bytes() if flash else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"Compiled folder '{directory}' must hold its program and images: {error}") from error
    if outside and not flash:
        raise CapacityError(
            f"Design in '{directory}' takes its parameters from the host, but the UART of board {board.name!r} cannot "
            "hold the host back; compile again with --set parameters=flash, or connect its streams in a top level of "
            "your own"
        )
    there = board.flash
    if flash and (
        there is None
        or flash["command"] not in there.commands
        or (flash["offset"], flash["wake_cycles"]) != (there.offset, there.wake_cycles(board.clock_mhz))
    ):
        raise CapacityError(
            f"Design in '{directory}' reads a flash that is not that of board {board.name!r}; compile again with "
            f"--board {board.name}"
        )
    return image


def rom_header(path: Path) -> dict[str, Any]:
    """Return the description of a ROM image.

    Raises
    ------
    InputError
        If it is no JSON object that says where the ROM lies.
    """
    try:
        header: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        header["style"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"ROM description '{path}' must be JSON with a key 'style': {error!r}") from error
    return header


def rom_words(directory: Path, module: str, depth: int, width: int) -> Sequence[int]:
    """Return the words of the image that ``module``, named ``rom_<name>``, reads.

    Raises
    ------
    InputError
        If the file cannot be read or its words are not ``depth`` of up to ``width`` bits.
    """
    image = directory / "rom" / f"{module.removeprefix('rom_')}.mem"
    try:
        words = tuple(int(word, 16) for word in image.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise InputError(f"ROM image '{image}' must hold one hexadecimal word a line: {error}") from error
    if len(words) != depth or any(word >> width for word in words):
        raise InputError(
            f"ROM image '{image}' has {len(words)} words of up to {max(words, default=0).bit_length()} bits, "
            f"but module {module!r} has {depth} words of {width} bits"
        )
    return words
