"""What a device holds, and what a program takes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zeroskip.compiler.ir import Kind, Layer, Model
from zeroskip.compiler.pages import FLASH_COMMANDS
from zeroskip.compiler.program import FlashRead, Program, Rom
from zeroskip.compiler.requantization import scaler_count
from zeroskip.compiler.spram import SPRAM_BITS, SPRAM_DEPTH, move_roms, parameter_roms, spram_count
from zeroskip.compiler.target import EngineConfig, Geometry

__all__ = [
    "DEFAULT_LIMITS",
    "ECP5_SHAPES",
    "Limits",
    "activation_blocks",
    "activation_bytes",
    "bank_blocks",
    "fits",
    "largest_layer",
    "program_blocks",
    "program_multipliers",
    "ram_blocks",
    "spram_names",
]


@dataclass(frozen=True)
class Limits:
    """What a device holds.

    ``block_shapes`` are the ``(depth, width)`` one block RAM can take; ``multipliers`` and ``blocks`` are hard blocks;
    ``operand_bits`` are those of a multiplier's signed operand. ``spram`` counts blocks of single-port RAM. ``flash``
    is what a design may read while it runs, with one of ``flash_commands``. A device ``can_wait`` for what its host
    sends where the link can hold the host back.
    """

    name: str
    multipliers: int
    blocks: int
    block_shapes: tuple[tuple[int, int], ...]
    operand_bits: int = 18
    spram: int = 0
    flash: FlashRead | None = None
    flash_commands: tuple[int, ...] = FLASH_COMMANDS
    can_wait: bool = True

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations that the block RAMs hold, in words of whole bytes."""
        return self.blocks * max(depth * (width // 8) for depth, width in self.block_shapes)

    @property
    def block_bits(self) -> int:
        """Bits that a block RAM holds in its best shape."""
        return max(depth * width for depth, width in self.block_shapes)

    @property
    def spram_bits(self) -> int:
        """Bits of all SPRAMs."""
        return self.spram * SPRAM_DEPTH * SPRAM_BITS


_BOTH_PORTS = 36
"""A block RAM with words so wide reads them over two ports, which may also read two words; others have one port."""

ECP5_SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))

DEFAULT_LIMITS = Limits("an ECP5-25F", 28, 56, ECP5_SHAPES, flash=FlashRead(0x6B, 1 << 20, 1250))


def program_blocks(program: Program, shapes: Sequence[tuple[int, int]]) -> int:
    """Return how many block RAMs the activation banks and the block ROMs of ``program`` take."""
    config = program.config
    geometry = config.geometry
    copies = dict.fromkeys(("taps", "offsets", "mask_y", "mask_x"), geometry.cores)
    if config.has_functions:
        # a table serves as many lanes as it has ports
        copies["functions"] = -(-geometry.lanes * geometry.cores // program.rom("functions").ports)
    # the first threshold of a channel is the same for all results
    copies |= {f"thresholds_{stage}": geometry.results for stage in range(1, config.search_stages)}
    total = activation_blocks(program, shapes)
    for rom in program.roms:
        if rom.style in ("block", "paged"):
            total += copies.get(rom.name, 1) * _rom_blocks(rom, shapes)
    return total


def _rom_blocks(rom: Rom, shapes: Sequence[tuple[int, int]]) -> int:
    """Return how many block RAMs one ROM takes."""
    widest = max(width for _, width in shapes)
    if rom.ports == 1:
        return ram_blocks(rom.held, rom.word_bits, shapes)
    if widest < _BOTH_PORTS:
        return rom.ports * ram_blocks(rom.held, rom.word_bits, shapes)
    return ram_blocks(rom.held, rom.word_bits, [shape for shape in shapes if shape[1] < widest])


def ram_blocks(depth: int, width: int, shapes: Sequence[tuple[int, int]]) -> int:
    """Return how many block RAMs a memory of ``depth`` words of ``width`` bits takes in their best shape."""
    return min(-(-depth // d) * -(-width // w) for d, w in shapes)


def program_multipliers(config: EngineConfig) -> int:
    """Return how many hard multipliers the array and the post-processor take."""
    scaling = scaler_count(config) * config.geometry.results
    return config.paired_multipliers + config.single_multipliers + scaling


def activation_blocks(program: Program, shapes: Sequence[tuple[int, int]]) -> int:
    """Return how many block RAMs the activation banks of ``program`` take."""
    return bank_blocks(program.config.geometry, program.config.activation_depth, shapes)


def bank_blocks(geometry: Geometry, depth: int, shapes: Sequence[tuple[int, int]]) -> int:
    """Return how many block RAMs activation banks of ``depth`` bytes take, one a lane and core."""
    return geometry.lanes * geometry.cores * ram_blocks(depth, 8, shapes)


def activation_bytes(model: Model, layer: Layer) -> int:
    """Return the bytes that a layer reads and writes."""
    # the parts of a concatenation lie in its output
    names = set(layer.inputs) | ({layer.output} - {model.output} if layer.kind is not Kind.CONCAT else set())
    return sum(model.tensors[name].size for name in names)


def largest_layer(model: Model) -> Layer:
    """Return the layer with most bytes of input and output."""
    return max(model.layers, key=lambda layer: activation_bytes(model, layer))


def fits(program: Program, limits: Limits) -> bool:
    """Return whether the device holds the program's memories and multipliers."""
    return (
        program_blocks(program, limits.block_shapes) <= limits.blocks
        and spram_count(program.roms) <= limits.spram
        and program_multipliers(program.config) <= limits.multipliers
    )


def spram_names(program: Program, limits: Limits, spram: int | None) -> list[str]:
    """Return the images that move to SPRAM.

    With ``spram=1`` all parameters do, whatever the device holds; without a choice those that save most block RAM for
    their SPRAM, until the others fit or there is no more of it.
    """
    images = parameter_roms(program)
    if spram is not None:
        return [rom.name for rom in images] if spram else []
    shapes, free = limits.block_shapes, limits.spram
    over = program_blocks(program, shapes) - limits.blocks
    saved = {rom.name: ram_blocks(rom.depth, rom.word_bits, shapes) for rom in images}
    taken = {rom.name: spram_count([rom]) for rom in move_roms(program, saved).roms if rom.name in saved}
    names: list[str] = []
    for name in sorted(saved, key=lambda name: (-saved[name] / taken[name], name)):
        if over > 0 and taken[name] <= free:
            names.append(name)
            over -= saved[name]
            free -= taken[name]
    return names
