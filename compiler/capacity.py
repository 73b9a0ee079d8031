"""Refuse what a device does not hold: the texts say what is needed, what there is and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zeroskip.compiler.errors import CapacityError, CompileError
from zeroskip.compiler.ir import Model
from zeroskip.compiler.pages import flash_bytes, image_bytes
from zeroskip.compiler.program import FlashRead, LayerPlan, Program, Storage
from zeroskip.compiler.resources import (
    Limits,
    activation_blocks,
    activation_bytes,
    largest_layer,
    program_blocks,
    program_multipliers,
)
from zeroskip.compiler.spram import move_roms, parameter_roms, spram_count
from zeroskip.compiler.target import pair_bits

__all__ = [
    "beyond",
    "flash_read",
    "refuse_large_image",
    "refuse_large_network",
    "refuse_large_parameters",
    "refuse_missing_memory",
    "refuse_wide_pairs",
    "too_large",
]

_INSIDE = (
    "Only weights and indices can come from outside: take a smaller input, fewer channels in its first layers, or a "
    "larger board"
)

_HOST = (
    "have the host push them: leave out --board, --set parameters=host, and connect the accelerator's streams in a top "
    "level of your own"
)

_NO_BOARD = "For reference outputs, simulation and cycles alone fix the geometry, such as --set lanes=16 --set cores=4"


def refuse_missing_memory(limits: Limits, spram: int | None, parameters: str) -> None:
    """Raise when parameters are to lie, or to come from, where the device has nothing."""
    if spram and not limits.spram:
        raise CapacityError(f"Setting 'spram' needs a device with SPRAM, but {limits.name} has none; leave it out, or "
                            "name a board that has with --board, such as icebreaker")  # fmt: skip
    if spram and parameters != "rom":
        raise CapacityError(
            f"Setting 'spram' keeps weights and indices on the chip, but parameters={parameters} does not; leave out "
            "one of them"
        )
    if parameters == "host" and not limits.can_wait:
        raise CapacityError(
            f"Setting 'parameters=host' needs a link that can hold the host back, but that of {limits.name} is a UART; "
            f"{'use --set parameters=flash, or ' if limits.flash is not None else ''}{_HOST}"
        )


def flash_read(limits: Limits, command: int | None) -> FlashRead:
    """Return how the device's flash is read."""
    if limits.flash is None:
        raise CapacityError(
            f"Setting 'parameters=flash' needs a flash that a running design can read, but {limits.name} has none; "
            f"name a board that has with --board, such as icebreaker, or {_HOST}"
        )
    if command is None:
        return limits.flash
    if command not in limits.flash_commands:
        names = ", ".join(f"0x{known:02X}" for known in limits.flash_commands)
        raise CompileError(f"Setting 'flash_command' must be one of {names} on {limits.name}, not 0x{command:02X}")
    return replace(limits.flash, command=command)


def refuse_large_network(model: Model, limits: Limits, *, outside: bool) -> None:
    """Raise when a layer's activations, or these and the kept weights, are too large in any geometry."""
    largest = largest_layer(model)
    activations = activation_bytes(model, largest)
    holds = limits.activation_bytes
    if activations > holds:
        raise CapacityError(
            f"Activations of network {model.name!r} need at least {activations} bytes on the chip, for input and "
            f"output of layer {largest.name!r}, but {limits.name} has {holds} bytes ({limits.blocks} block RAMs). "
            f"{_INSIDE}. {_NO_BOARD}"
        )
    if outside:
        return
    layers = [layer for layer in model.layers if layer.weight is not None]
    # weights that share a magnitude have a sign each
    shared = [layer.structure.get("kind") == "micro_block" for layer in layers]
    weights = sum(layer.nonzero * (1 if one else layer.weight_bits) for layer, one in zip(layers, shared, strict=True))
    memory = limits.blocks * limits.block_bits + limits.spram_bits
    if weights + 8 * activations > memory:
        raise CapacityError(
            f"Network {model.name!r} needs at least {weights:,} bits for its weights and {8 * activations:,} for input "
            f"and output of layer {largest.name!r}, but {limits.name} has {memory:,} bits of memory; prune further, "
            f"use fewer weight bits{_flash_remedy(limits)}, take smaller inputs or name a larger board. {_NO_BOARD}"
        )


def _flash_remedy(limits: Limits) -> str:
    return ", read them from the flash (--set parameters=flash)" if limits.flash is not None else ""


def too_large(model: Model, programs: Sequence[Program], limits: Limits) -> CapacityError:
    """Return the error that says what the smallest program needs."""
    fewest = min(programs, key=lambda program: activation_blocks(program, limits.block_shapes))
    if activation_blocks(fewest, limits.block_shapes) > limits.blocks:
        return _too_many_activations(fewest, limits)
    least = min(
        programs,
        key=lambda program: (program_blocks(program, limits.block_shapes), program_multipliers(program.config)),
    )
    blocks, multipliers = program_blocks(least, limits.block_shapes), program_multipliers(least.config)
    outside = _flash_remedy(limits) if least.paging is None else ""
    return CapacityError(
        f"Network {model.name!r} needs at least {blocks} block RAMs and {multipliers} multipliers"
        f"{_beside(least, limits)}, "
        f"but {limits.name} has {limits.blocks} and {limits.multipliers}; "
        f"prune further, use fewer weight bits{outside} or name a larger board"
    )


def _too_many_activations(program: Program, limits: Limits) -> CapacityError:
    """Return the error of a network whose activations alone are too large, wherever its parameters are."""
    config = program.config
    geometry = config.geometry

    def words(plan: LayerPlan) -> int:
        layouts = [program.layouts[name] for name in {*plan.layer.inputs, plan.output}]
        return sum(layout.words for layout in layouts if layout.storage is not Storage.OUTPUT)

    largest = max(program.layers, key=words)
    copies = f", {geometry.cores} copies" if geometry.cores > 1 else ""
    needs = config.activation_depth * geometry.lanes * geometry.cores
    holds = limits.activation_bytes
    return CapacityError(
        f"Activations of network {program.model.name!r} need {needs} bytes on the chip "
        f"({activation_blocks(program, limits.block_shapes)} block RAMs in {geometry.lanes} banks{copies}), but "
        f"{limits.name} has {holds} bytes ({limits.blocks} block RAMs); layer {largest.name!r} alone needs "
        f"{words(largest) * geometry.lanes} bytes for its input and output. {_INSIDE}"
    )


def _beside(program: Program, limits: Limits) -> str:
    """Say how much of a program lies in SPRAM, and how much could."""
    if not limits.spram:
        return ""
    used = spram_count(program.roms)
    most = spram_count(move_roms(program, [rom.name for rom in parameter_roms(program)]).roms)
    return f" beside {used} of {limits.spram} SPRAMs (all weights and indices would take {most})"


def refuse_large_image(program: Program, limits: Limits) -> None:
    """Raise when the image does not end within the addresses that the read commands reach."""
    paging = program.paging
    if paging is None or paging.flash is None:
        return
    size, room = image_bytes(program), flash_bytes(paging.flash)
    if size > room:
        raise CapacityError(
            f"Parameters of network {program.model.name!r} take {size} bytes with {program.config.geometry}, but the "
            f"flash of {limits.name} has {room} from address {paging.flash.offset} on; prune further or store fewer "
            "bits a weight"
        )


def refuse_large_parameters(programs: Sequence[Program], limits: Limits) -> None:
    """Raise when in every program the images in SPRAM take more blocks than there are."""
    least = min(programs, key=lambda program: spram_count(program.roms))
    count = spram_count(least.roms)
    if count > limits.spram:
        raise CapacityError(
            f"Weights and indices of network {least.model.name!r} need {count} SPRAMs with {least.config.geometry}, "
            f"but {limits.name} has {limits.spram}; prune further, store fewer bits a weight, choose fewer lanes, "
            "columns or cores, or leave out --set spram=1, which then moves only what block RAM does not hold"
        )


def refuse_wide_pairs(programs: Sequence[Program], limits: Limits) -> None:
    """Raise when two levels need a wider operand than the device's multipliers have."""
    for program in programs:
        config = program.config
        bits = pair_bits(config.level_limit)
        if config.paired_multipliers and bits > limits.operand_bits:
            raise CapacityError(
                f"Network {program.model.name!r} with paired products and weights up to "
                f"{config.level_limit} needs multiplier operands of {bits} bits, but those of {limits.name} have "
                f"{limits.operand_bits}; store fewer bits a weight or leave out --set paired_products=1"
            )


def beyond(program: Program, limits: Limits) -> tuple[str, ...]:
    """Say what a geometry that the user fixed has too much of for the device."""
    needs = {
        "block RAMs": (program_blocks(program, limits.block_shapes), limits.blocks),
        "multipliers": (program_multipliers(program.config), limits.multipliers),
    }
    over = [f"{count} {what} of {held}" for what, (count, held) in needs.items() if count > held]
    if not over:
        return ()
    return (f"too large for {limits.name}: {' and '.join(over)}; fit for simulation alone",)
