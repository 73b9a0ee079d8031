"""Parameters that come from outside during an inference: cut into pages, and the image of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from zeroskip.compiler.crc import crc32
from zeroskip.compiler.errors import CompileError, VerificationError
from zeroskip.compiler.program import FlashRead, LayerPlan, Page, Paging, Program, Rom
from zeroskip.compiler.rom import table_rom
from zeroskip.compiler.rom_words import field_layout, pack_word
from zeroskip.compiler.spram import parameter_roms
from zeroskip.compiler.target import Format

__all__ = [
    "CRC_BYTES",
    "DESELECT_CYCLES",
    "FLASH_COMMANDS",
    "PARAMETER_IMAGE",
    "flash_bytes",
    "image_bytes",
    "page_bytes",
    "page_image",
    "page_layers",
    "page_parameters",
    "paged_kinds",
    "parse_image",
    "read_cycles",
    "read_lines",
]

PARAMETER_IMAGE = "rom/parameters.bin"
"""File of a compiled folder: what comes from outside, where weights and indices do."""

CRC_BYTES = 4

FLASH_COMMANDS = (0x03, 0x0B, 0x6B, 0xEB)
"""Read commands: plain, fast, fast with data on four lines, and with the address on four lines as well."""

DESELECT_CYCLES = 4
"""Cycles without select between two commands: more than the 50 ns of the data sheets up to 80 MHz."""

_COMMAND_CLOCKS = {0x03: 32, 0x0B: 40, 0x6B: 40, 0xEB: 20}
"""Clocks of command, address, mode and dummies."""


def read_lines(command: int) -> int:
    """Return on how many lines the data of a read command come."""
    return 4 if command in (0x6B, 0xEB) else 1


def flash_bytes(read: FlashRead) -> int:
    """Return the bytes that the read commands reach from the image's address on: 24 bits of address."""
    return (1 << 24) - read.offset


def read_cycles(read: FlashRead) -> tuple[int, int]:
    """Return the cycles from a byte to the next, and from the last byte of the image to the first one again."""
    byte = 2 * 8 // read_lines(read.command)
    return byte, DESELECT_CYCLES + 2 * _COMMAND_CLOCKS[read.command] + byte


@dataclass(frozen=True)
class _Piece:
    """Groups of one layer that cannot be parted, and the first word behind those they need of each image."""

    layer: int
    group: int
    groups: int
    weight_end: int
    index_end: int


def page_parameters(program: Program, flash: FlashRead | None, least_words: int) -> Program:
    """Return ``program`` with weights and indices that come page by page: from ``flash``, or from the host.

    The buffers are the smallest powers of two from ``least_words`` on of which a half holds the parameters of every
    group of channels. Words and addresses of the images stay as they are.

    Raises
    ------
    CompileError
        If a layer is a bitmap, whose mask words are read ahead of their page.
    """
    for plan in program.layers:
        if plan.format is Format.BITMAP:
            raise CompileError(
                f"Layer {plan.name!r} is a bitmap, whose mask words are read ahead of the page they come with; leave "
                "out --set bitmap=1, or keep the parameters on the chip (--set parameters=rom)"
            )
    pieces = _pieces(program)
    weight_half = _half([piece.weight_end for piece in pieces], least_words)
    index_half = _half([piece.index_end for piece in pieces], least_words)
    pages = tuple(_pages(pieces, weight_half, index_half))
    halves = {"index": index_half}
    names = {rom.name: 2 * halves.get(rom.format, weight_half) for rom in parameter_roms(program)}
    roms = [replace(rom, style="paged", buffer=names[rom.name]) if rom.name in names else rom for rom in program.roms]
    rows = [
        {"group_last": page.groups - 1, "weight_words": page.weight_words, "index_words": page.index_words}
        for page in pages
    ]
    fields = field_layout(rows)
    table = table_rom("pages", fields, [pack_word(fields, row) for row in rows])
    return replace(program, roms=(*roms, table), paging=Paging(flash, pages, least_words))


def _half(ends: Sequence[int], least_words: int) -> int:
    """Return half of the buffer: a group's words, and one that it shares with the group before it."""
    largest = max((end - begin for begin, end in zip((0, *ends), ends, strict=False)), default=0) + 1
    half = least_words // 2
    while half < largest:
        half *= 2
    return half


def _pieces(program: Program) -> list[_Piece]:
    """Return what pages are made of, in the order of use."""
    pieces = []
    weight_end = index_end = 0
    for layer, plan in enumerate(program.layers):
        lengths = plan.schedule.lengths
        shared = bool(plan.front["row_shared"])
        weight_slot, index_slot = plan.front["weight_base"], plan.front.get("index_base", 0)
        for group, length in enumerate(lengths[:1] if shared else lengths):
            weight_slot += _slots(program, plan, length)
            weight_end = _words(program, weight_slot)
            if plan.format is not Format.DENSE:
                index_slot += _slots(program, plan, _codes(plan, length))
                index_end = _words(program, index_slot)
            pieces.append(_Piece(layer, group, len(lengths) if shared else 1, weight_end, index_end))
        for rom in parameter_roms(program):
            # a layer's last word is filled up, and the next one begins behind it
            end = index_end if rom.format == "index" else weight_end
            last = rom.segments[layer].first + rom.segments[layer].count
            if last != end and (rom.format != "index" or plan.format is not Format.DENSE):
                raise CompileError(f"Layer {plan.name!r} ends at word {end} of image {rom.name!r}, not at {last}")
    return pieces


def _slots(program: Program, plan: LayerPlan, slots: int) -> int:
    """Return by how much a slot address moves in ``slots`` slots: a linear layer takes a word at a time."""
    return slots * program.config.geometry.lanes if plan.front["linear"] else slots


def _words(program: Program, slots: int) -> int:
    return -(-slots // program.config.geometry.lanes)


def _codes(plan: LayerPlan, slots: int) -> int:
    """Return how many index codes stand for so many slots."""
    if plan.decoding is None:
        raise CompileError(f"Layer {plan.name!r} has no indices")
    return slots if plan.decoding.codes_a_slot else slots // plan.decoding.elements


def _pages(pieces: Sequence[_Piece], weight_half: int, index_half: int) -> Iterable[Page]:
    """Fill pages one after the other, each with as many pieces as fit a half beside the word they may share."""
    weight_begin = index_begin = 0
    held: list[_Piece] = []
    for piece in pieces:
        fits = piece.weight_end - weight_begin < weight_half and piece.index_end - index_begin < index_half
        if held and not fits:
            yield _page(held, weight_begin, index_begin)
            weight_begin, index_begin = held[-1].weight_end, held[-1].index_end
            held = []
        held.append(piece)
    yield _page(held, weight_begin, index_begin)


def _page(pieces: Sequence[_Piece], weight_begin: int, index_begin: int) -> Page:
    parts = []
    for layer in dict.fromkeys(piece.layer for piece in pieces):
        mine = [piece for piece in pieces if piece.layer == layer]
        parts.append((layer, mine[0].group, sum(piece.groups for piece in mine)))
    last = pieces[-1]
    return Page(last.weight_end - weight_begin, last.index_end - index_begin, tuple(parts))


def page_layers(program: Program, page: Page) -> str:
    """Name the layers whose parameters a page holds."""
    return ", ".join(repr(program.layers[layer].name) for layer, _, _ in page.parts)


def _word_bytes(rom: Rom) -> int:
    return -(-rom.word_bits // 8)


def paged_kinds(program: Program) -> list[tuple[Rom, ...]]:
    """Return the paged images that are filled together: those of weights and, where there are any, of indices."""
    paged = [rom for rom in program.roms if rom.style == "paged"]
    kinds = [tuple(rom for rom in paged if (rom.format == "index") == index) for index in (False, True)]
    return [roms for roms in kinds if roms]


def page_bytes(program: Program, page: Page) -> int:
    """Return the bytes of a page, CRC included."""
    counts = (page.weight_words, page.index_words)
    return CRC_BYTES + sum(
        count * sum(_word_bytes(rom) for rom in roms) for count, roms in zip(counts, paged_kinds(program), strict=False)
    )


def image_bytes(program: Program) -> int:
    """Return the bytes of the image."""
    return sum(page_bytes(program, page) for page in _paging(program).pages)


def page_image(program: Program) -> bytes:
    """Return the parameters as they come: page by page, each with its CRC.

    In a page first the weights, then the indices; word by word, of each word those of all columns or cores; the least
    significant byte of a word first. The CRC-32 of these bytes ends the page, its most significant byte first.
    """
    kinds = paged_kinds(program)
    done = [0, 0]
    image = bytearray()
    for page in _paging(program).pages:
        body = bytearray()
        for kind, (count, roms) in enumerate(zip((page.weight_words, page.index_words), kinds, strict=False)):
            for address in range(done[kind], done[kind] + count):
                for rom in roms:
                    body += rom.words[address].to_bytes(_word_bytes(rom), "little")
            done[kind] += count
        image += body + crc32(bytes(body)).to_bytes(CRC_BYTES, "big")
    return bytes(image)


def parse_image(program: Program, image: bytes) -> dict[str, list[int]]:
    """Return the words of every paged ROM that an image holds, the inverse of :func:`page_image`.

    Raises
    ------
    VerificationError
        If its size or the CRC of a page is wrong; the text names the page and its layers.
    """
    pages = _paging(program).pages
    size = image_bytes(program)
    if len(image) != size:
        raise VerificationError(f"Parameter image must have {size} bytes, not {len(image)}; compile again")
    words: dict[str, list[int]] = {rom.name: [] for roms in paged_kinds(program) for rom in roms}
    begin = 0
    for number, page in enumerate(pages):
        end = begin + page_bytes(program, page)
        body, crc = image[begin : end - CRC_BYTES], int.from_bytes(image[end - CRC_BYTES : end], "big")
        if crc32(body) != crc:
            raise VerificationError(
                f"Page {number} of the parameter image (layer {page_layers(program, page)}) has CRC {crc:08x}, but its "
                f"content has {crc32(body):08x}; compile again"
            )
        begin, at = end, 0
        for count, roms in zip((page.weight_words, page.index_words), paged_kinds(program), strict=False):
            for _ in range(count):
                for rom in roms:
                    words[rom.name].append(int.from_bytes(body[at : at + _word_bytes(rom)], "little"))
                    at += _word_bytes(rom)
    return words


def _paging(program: Program) -> Paging:
    if program.paging is None:
        raise CompileError(f"Program of network {program.model.name!r} keeps its parameters on the chip")
    return program.paging
