"""Choose the engine and the size of its array for a network and a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.errors import CapacityError, CompileError
from zeroskip.compiler.ir import Kind, Layer, Model
from zeroskip.compiler.lower import Formats, LayerCost, layer_costs, lower
from zeroskip.compiler.pages import FLASH_COMMANDS, flash_bytes, image_bytes, page_parameters
from zeroskip.compiler.program import FlashRead, LayerPlan, Program, Rom, Storage
from zeroskip.compiler.requantization import scaler_count
from zeroskip.compiler.rom_check import check_roms
from zeroskip.compiler.spram import SPRAM_BITS, SPRAM_DEPTH, move_roms, parameter_roms, spram_count
from zeroskip.compiler.target import (
    MAX_COLUMNS,
    WRITE_WIDTHS,
    Engine,
    EngineConfig,
    Format,
    Geometry,
    pair_bits,
)

__all__ = [
    "DEFAULT_LIMITS",
    "PARAMETERS",
    "Choice",
    "Limits",
    "choose_program",
    "program_blocks",
    "program_multipliers",
]

SPARSE_DENSITY = 0.7
"""Below this density a layer is stored with indices when the engine is free to choose."""

CANDIDATES = 4
"""How many fitting geometries of each kind are compiled to the end."""

CYCLE_TOLERANCE = 1.02
"""A smaller array is taken when it costs no more cycles than this ratio."""

LOGIC_SHARE = 32
"""Of so many multipliers of a device one more product may lie in logic, where an array would fit but for that."""

LANES = (4, 8, 16, 32)
DENSE_UNITS = (1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 16)
SPARSE_UNITS = (1, 2, 3, 4, 5, 6, 7, 8)
RESULTS = (1, 2, 4, 8)


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

PARAMETERS = ("rom", "flash", "host")
"""Where weights and indices come from: they stay on the chip, or come during every inference."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A compiled program for one choice of engine; None: each layer its own."""

    engine: Engine | None
    program: Program
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Choice:
    """A compiled candidate and why it was taken."""

    program: Program
    cycles: int
    reasons: tuple[str, ...]


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
    total = geometry.lanes * geometry.cores * _blocks(config.activation_depth, 8, shapes)
    for rom in program.roms:
        if rom.style in ("block", "paged"):
            total += copies.get(rom.name, 1) * _rom_blocks(rom, shapes)
    return total


def _rom_blocks(rom: Rom, shapes: Sequence[tuple[int, int]]) -> int:
    """Return how many block RAMs one ROM takes."""
    widest = max(width for _, width in shapes)
    if rom.ports == 1:
        return _blocks(rom.held, rom.word_bits, shapes)
    if widest < _BOTH_PORTS:
        return rom.ports * _blocks(rom.held, rom.word_bits, shapes)
    return _blocks(rom.held, rom.word_bits, [shape for shape in shapes if shape[1] < widest])


def _blocks(depth: int, width: int, shapes: Sequence[tuple[int, int]]) -> int:
    return min(-(-depth // d) * -(-width // w) for d, w in shapes)


def program_multipliers(config: EngineConfig) -> int:
    """Return how many hard multipliers the array and the post-processor take."""
    scaling = scaler_count(config) * config.geometry.results
    return config.paired_multipliers + config.single_multipliers + scaling


def best_formats(
    model: Model, geometry: Geometry, index_bits: int | None, bitmap: bool = False, least_storage: bool = False
) -> tuple[dict[str, Format], list[str]]:
    """Return for every layer with weights the format that takes fewest cycles in ``geometry``, and why.

    Within CYCLE_TOLERANCE the dense format wins: it stores no indices. With ``bitmap`` the relative index has a rival,
    and the one with fewer bits wins within that tolerance. With ``least_storage`` the fewest bits win in all cases.
    """
    dense, sparse = layer_formats(model, Engine.DENSE), layer_formats(model, Engine.SPARSE)
    counted = layer_costs(model, geometry, dense)
    indexed = layer_costs(model, geometry, sparse, index_bits, least_storage)
    masks = layer_formats(model, Engine.SPARSE, bitmap)
    masked = layer_costs(model, geometry, masks, index_bits, least_storage) if masks != sparse else indexed
    formats, reasons = {}, []
    for name in dense:
        reason = f"{counted[name].cycles} cycles dense and {indexed[name].cycles} with indices"
        least, takes = indexed[name], sparse
        if masks[name] is not sparse[name]:
            reason += f", {masked[name].cycles} with a bitmap"
            if masked[name].bits < indexed[name].bits if least_storage else _better(masked[name], indexed[name]):
                least, takes = masked[name], masks
        if least_storage:
            reason += f"; {least.bits} bits against {counted[name].bits} dense"
            takes = takes if least.bits < counted[name].bits else dense
        elif least.cycles * CYCLE_TOLERANCE >= counted[name].cycles:
            takes = dense
        formats[name] = takes[name]
        reasons.append(f"layer {name}: {takes[name].value}, {reason}")
    return formats, reasons


def _better(one: LayerCost, other: LayerCost) -> bool:
    """Whether ``one`` takes fewer cycles, or about as many and fewer bits."""
    if one.cycles > other.cycles * CYCLE_TOLERANCE:
        return False
    return one.bits < other.bits or one.cycles * CYCLE_TOLERANCE < other.cycles


def layer_formats(model: Model, engine: Engine | None, bitmap: bool = False) -> dict[str, Format]:
    """Return the format of every layer with weights.

    Without an engine a layer is sparse when it has zeros enough that its indices skip more than they cost;
    :func:`best_formats` counts. ``bitmap`` is that of :func:`sparse_format`.
    """
    formats = {}
    for layer in model.layers:
        if layer.weight is None:
            continue
        sparse = engine is Engine.SPARSE or (engine is None and density(layer) < SPARSE_DENSITY)
        formats[layer.name] = sparse_format(layer, bitmap) if sparse else Format.DENSE
    return formats


def sparse_format(layer: Layer, bitmap: bool = False) -> Format:
    """Return the format with indices that suits the structure of a layer's zeros.

    With ``bitmap`` a convolution whose zeros have no structure is a bitmap instead of a relative index.
    """
    suits = _structured_format(layer)
    if bitmap and suits is Format.RELATIVE and layer.kind is Kind.CONV2D:
        return Format.BITMAP
    return suits


def _structured_format(layer: Layer) -> Format:
    kind = layer.structure.get("kind")
    if layer.groups > 1:
        return Format.RELATIVE
    if kind in ("block", "kernel") or (kind == "vector" and layer.structure.get("axis") == "input"):
        return Format.RELATIVE if kind == "kernel" and layer.kind is Kind.LINEAR else Format.BLOCKS
    if kind in ("nm", "bank_balanced"):
        return Format.BANKS
    if kind == "pattern" and layer.kind is Kind.CONV2D:
        return Format.PATTERN
    return Format.RELATIVE


def density(layer: Layer) -> float:
    """Return the fraction of a layer's weights that are not zero."""
    weight = np.asarray(layer.weight)
    return float(np.count_nonzero(weight)) / weight.size


def choose_program(
    model: Model,
    engine: Engine | None,
    limits: Limits,
    *,
    lanes: int | None = None,
    columns: int | None = None,
    cores: int | None = None,
    results: int | None = None,
    logic_products: int | None = None,
    banked_vectors: int | None = None,
    paired_products: int | None = None,
    sign_adds: int | None = None,
    index_bits: int | None = None,
    bitmap: int | None = None,
    spram: int | None = None,
    least_storage: int | None = None,
    parameters: str = "rom",
    flash_command: int | None = None,
) -> Choice:
    """Compile ``model`` for the fitting geometry with the fewest cycles; ``engine=None`` compares both engines.

    Given ``lanes`` (and the other sizes) fix the geometry; then nothing is searched and nothing is refused for its
    size, which ``reasons`` tell of, but for paired products whose operand is too wide for the device's multipliers.
    ``bitmap`` lets convolutions be bitmaps: with the sparse engine all whose zeros have no structure, else those of
    them that :func:`best_formats` finds better so. ``spram=1`` puts all weights and indices into SPRAM and ``spram=0``
    none; without it they move there as far as block RAM does not hold the design. ``least_storage`` has index widths,
    formats and geometry take the fewest bits, padding to words of memory aside, instead of the fewest cycles.
    ``parameters`` is one of ``PARAMETERS``; ``flash_command`` is the read command, the device's own unless given.

    Raises
    ------
    CompileError
        If a layer cannot be served in the geometry that was given.
    CapacityError
        If no geometry fits, parameters that must lie in SPRAM or in a flash need more of it than there is, or
        activations more than there is on the chip; the text says what the smallest one needs, what there is and what to
        change.
    """
    _refuse_missing_memory(limits, spram, parameters)
    flash = _flash_read(limits, flash_command) if parameters == "flash" else None
    small = bool(least_storage)
    kinds: list[Engine | None] = [engine] if engine is not None else [Engine.DENSE, None]
    if engine is None and all(f is Format.DENSE for f in layer_formats(model, None).values()):
        kinds = [Engine.DENSE]

    def compiled(kind: Engine | None, geometry: Geometry) -> Candidate:
        formats, reasons = _formats(model, kind, geometry, index_bits, bool(bitmap), small)
        program = lower(model, geometry, formats, index_bits=index_bits, least_storage=small)
        if parameters != "rom":
            program = page_parameters(program, flash, min(depth for depth, _ in limits.block_shapes))
            _refuse_large_image(program, limits)
            return Candidate(kind, program, (*reasons, _page_reason(program)))
        program = move_roms(program, spram_names(program, limits, spram))
        return Candidate(kind, program, (*reasons, *_spram_reasons(program, limits)))

    if lanes is not None:
        candidates = [
            compiled(
                kind,
                replace(
                    _fixed_size(kind, lanes, columns, cores, results),
                    logic_products=logic_products or 0,
                    banked_vectors=bool(banked_vectors),
                    paired_products=bool(paired_products),
                    sign_adds=sign_adds or 1,
                ),
            )
            for kind in kinds
        ]
        _refuse_wide_pairs(candidates, limits)
        _refuse_large_parameters(candidates, limits)
        fixed = _best(candidates, limits, small)
        return replace(fixed, reasons=(*fixed.reasons, *_beyond(fixed.program, limits)))
    _refuse_large_network(model, limits, outside=parameters != "rom")
    estimates = _estimated(model, kinds, limits, index_bits, bool(bitmap), small, parameters == "rom")
    candidates, found = _search(estimates, limits, compiled)
    if not found:
        _refuse_large_parameters(candidates, limits)
        raise _too_large(model, candidates, limits)
    return _best(found, limits, small)


@dataclass(frozen=True)
class Estimate:
    """A geometry that is not compiled yet: cycles (or stored bits), and the block RAMs that it takes at least."""

    kind: Engine | None
    geometry: Geometry
    size: int
    blocks: int


def _estimated(
    model: Model,
    kinds: Sequence[Engine | None],
    limits: Limits,
    index_bits: int | None,
    bitmap: bool,
    least_storage: bool,
    on_chip: bool,
) -> list[Estimate]:
    """Return all geometries, the best first."""
    estimates = []
    for kind in kinds:
        for geometry in _geometries(kind, limits, model):
            formats, _ = _formats(model, kind, geometry, index_bits, bitmap, least_storage)
            costs = layer_costs(model, geometry, formats, index_bits, least_storage).values()
            size = sum(cost.bits if least_storage else cost.cycles for cost in costs)
            stored = sum(cost.bits for cost in costs) if on_chip else 0
            estimates.append(Estimate(kind, geometry, size, _least_blocks(model, geometry, stored, limits)))
    return sorted(estimates, key=lambda estimate: (estimate.size, estimate.geometry.products))


def _search(
    estimates: Sequence[Estimate], limits: Limits, compiled: Callable[[Engine | None, Geometry], Candidate]
) -> tuple[list[Candidate], list[Candidate]]:
    """Compile the best geometries until enough of each kind fit; return all that were compiled, and those that fit."""
    # where none can fit, those that come nearest say what is missing
    bound = max(limits.blocks, sorted(estimate.blocks for estimate in estimates)[:CANDIDATES][-1])
    candidates = []
    # paired arrays are larger: apart from the others, they do not crowd out those that hand over faster
    fitting: dict[tuple[Engine | None, bool], list[Candidate]] = {}
    for estimate in estimates:
        kind, geometry = estimate.kind, estimate.geometry
        mine = fitting.setdefault((kind, geometry.paired_products), [])
        if len(mine) >= CANDIDATES or estimate.blocks > bound:
            continue
        candidate = compiled(kind, geometry)
        over = program_multipliers(candidate.program.config) - limits.multipliers
        if 0 < over <= limits.multipliers // LOGIC_SHARE and not geometry.paired_products:
            candidate = compiled(kind, replace(geometry, logic_products=over))
        candidates.append(candidate)
        if _fits(candidate.program, limits):
            mine.append(candidate)
    return candidates, [candidate for mine in fitting.values() for candidate in mine]


def _refuse_missing_memory(limits: Limits, spram: int | None, parameters: str) -> None:
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


_INSIDE = (
    "Only weights and indices can come from outside: take a smaller input, fewer channels in its first layers, or a "
    "larger board"
)
_HOST = (
    "have the host push them: leave out --board, --set parameters=host, and connect the accelerator's streams in a top "
    "level of your own"
)
_NO_BOARD = "For reference outputs, simulation and cycles alone fix the geometry, such as --set lanes=16 --set cores=4"


def _refuse_large_network(model: Model, limits: Limits, *, outside: bool) -> None:
    """Raise when a layer's activations, or these and the kept weights, are too large in any geometry."""
    largest = _largest_layer(model)
    activations = _activation_bytes(model, largest)
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


def _activation_bytes(model: Model, layer: Layer) -> int:
    """Return the bytes that a layer reads and writes."""
    # the parts of a concatenation lie in its output
    names = set(layer.inputs) | ({layer.output} - {model.output} if layer.kind is not Kind.CONCAT else set())
    return sum(model.tensors[name].size for name in names)


def _largest_layer(model: Model) -> Layer:
    return max(model.layers, key=lambda layer: _activation_bytes(model, layer))


def _least_blocks(model: Model, geometry: Geometry, stored: int, limits: Limits) -> int:
    """Return the block RAMs that a geometry takes at least: activations, and weights and indices of ``stored`` bits."""
    depth = -(-_activation_bytes(model, _largest_layer(model)) // geometry.lanes)
    activations = geometry.lanes * geometry.cores * _blocks(depth, 8, limits.block_shapes)
    return activations + max(0, -(-(stored - limits.spram_bits) // limits.block_bits))


def _flash_remedy(limits: Limits) -> str:
    return ", read them from the flash (--set parameters=flash)" if limits.flash is not None else ""


def _too_large(model: Model, candidates: Sequence[Candidate], limits: Limits) -> CapacityError:
    """Return the error that says what the smallest candidate needs."""
    fewest = min((candidate.program for candidate in candidates), key=lambda p: _activation_blocks(p, limits))
    if _activation_blocks(fewest, limits) > limits.blocks:
        return _too_many_activations(fewest, limits)
    least = min(
        (candidate.program for candidate in candidates),
        key=lambda p: (program_blocks(p, limits.block_shapes), program_multipliers(p.config)),
    )
    blocks, multipliers = program_blocks(least, limits.block_shapes), program_multipliers(least.config)
    outside = _flash_remedy(limits) if least.paging is None else ""
    return CapacityError(
        f"Network {model.name!r} needs at least {blocks} block RAMs and {multipliers} multipliers"
        f"{_beside(least, limits)}, "
        f"but {limits.name} has {limits.blocks} and {limits.multipliers}; "
        f"prune further, use fewer weight bits{outside} or name a larger board"
    )


def _activation_blocks(program: Program, limits: Limits) -> int:
    geometry = program.config.geometry
    return geometry.lanes * geometry.cores * _blocks(program.config.activation_depth, 8, limits.block_shapes)


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
        f"({_activation_blocks(program, limits)} block RAMs in {geometry.lanes} banks{copies}), but "
        f"{limits.name} has {holds} bytes ({limits.blocks} block RAMs); layer {largest.name!r} alone needs "
        f"{words(largest) * geometry.lanes} bytes for its input and output. {_INSIDE}"
    )


def _flash_read(limits: Limits, command: int | None) -> FlashRead:
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


def _refuse_large_image(program: Program, limits: Limits) -> None:
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


def _page_reason(program: Program) -> str:
    """Say what comes from outside."""
    paging = program.paging
    pages = paging.pages if paging is not None else ()
    source = paging.source if paging is not None else "rom"
    held = {rom.format: rom.held for rom in program.roms if rom.style == "paged"}
    buffers = " and ".join(f"{words} words of {kind}" for kind, words in held.items())
    return f"from the {source}: {image_bytes(program)} bytes an inference in {len(pages)} pages, buffers of {buffers}"


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
    saved = {rom.name: _blocks(rom.depth, rom.word_bits, shapes) for rom in images}
    taken = {rom.name: spram_count([rom]) for rom in move_roms(program, saved).roms if rom.name in saved}
    names: list[str] = []
    for name in sorted(saved, key=lambda name: (-saved[name] / taken[name], name)):
        if over > 0 and taken[name] <= free:
            names.append(name)
            over -= saved[name]
            free -= taken[name]
    return names


def _spram_reasons(program: Program, limits: Limits) -> tuple[str, ...]:
    """Say which images lie in SPRAM."""
    names = [rom.name for rom in program.roms if rom.style == "spram"]
    if not names:
        return ()
    return (f"in SPRAM: {', '.join(names)}, {spram_count(program.roms)} of {limits.spram} blocks, loaded at boot",)


def _beside(program: Program, limits: Limits) -> str:
    """Say how much of a program lies in SPRAM, and how much could."""
    if not limits.spram:
        return ""
    used = spram_count(program.roms)
    most = spram_count(move_roms(program, [rom.name for rom in parameter_roms(program)]).roms)
    return f" beside {used} of {limits.spram} SPRAMs (all weights and indices would take {most})"


def _refuse_large_parameters(candidates: Sequence[Candidate], limits: Limits) -> None:
    """Raise when in every candidate the images in SPRAM take more blocks than there are."""
    least = min((candidate.program for candidate in candidates), key=lambda program: spram_count(program.roms))
    count = spram_count(least.roms)
    if count > limits.spram:
        raise CapacityError(
            f"Weights and indices of network {least.model.name!r} need {count} SPRAMs with {least.config.geometry}, "
            f"but {limits.name} has {limits.spram}; prune further, store fewer bits a weight, choose fewer lanes, "
            "columns or cores, or leave out --set spram=1, which then moves only what block RAM does not hold"
        )


def _refuse_wide_pairs(candidates: Sequence[Candidate], limits: Limits) -> None:
    """Raise when two levels need a wider operand than the device's multipliers have."""
    for candidate in candidates:
        config = candidate.program.config
        bits = pair_bits(config.level_limit)
        if config.paired_multipliers and bits > limits.operand_bits:
            raise CapacityError(
                f"Network {candidate.program.model.name!r} with paired products and weights up to "
                f"{config.level_limit} needs multiplier operands of {bits} bits, but those of {limits.name} have "
                f"{limits.operand_bits}; store fewer bits a weight or leave out --set paired_products=1"
            )


def _formats(
    model: Model, kind: Engine | None, geometry: Geometry, index_bits: int | None, bitmap: bool, least_storage: bool
) -> tuple[Formats, list[str]]:
    if kind is None:
        return best_formats(model, geometry, index_bits, bitmap, least_storage)
    return layer_formats(model, kind, bitmap), []


def _fixed_size(
    kind: Engine | None,
    lanes: int,
    columns: int | None,
    cores: int | None,
    results: int | None,
) -> Geometry:
    """Return the geometry that the user fixed; a dense array has two columns unless they say otherwise."""
    if columns is None:
        columns = 2 if kind is Engine.DENSE and cores is None else 1
    cores, results = (1 if size is None else size for size in (cores, results))
    return Geometry(lanes, columns, cores, results)


def _geometries(engine: Engine | None, limits: Limits, model: Model) -> list[Geometry]:
    """Return the sizes that the device's multipliers allow, columns for the dense engine and cores for indices.

    Columns are paired where single products might be too many and two levels fit a multiplier's operand.
    """
    weights = [np.asarray(layer.weight, np.int64) for layer in model.layers if layer.weight is not None]
    largest = max((int(np.abs(weight).max()) for weight in weights), default=0)
    pairs = engine is Engine.DENSE and 1 < largest and pair_bits(largest) <= limits.operand_bits
    only_linear = all(layer.kind is Kind.LINEAR or not layer.kind.runs for layer in model.layers)
    result = []
    room = max(limits.multipliers, 4)
    counts = _column_counts(model) if engine is Engine.DENSE else SPARSE_UNITS
    for lanes in LANES:
        for units in counts:
            for results in RESULTS:
                if results > min(lanes // 2, 8) or (results > 1 and lanes * units // results < 8):
                    continue
                if results > 1 and results not in WRITE_WIDTHS and only_linear:
                    continue
                columns, cores = (units, 1) if engine is Engine.DENSE else (1, units)
                size = Geometry(lanes, columns, cores, results)
                if size.products <= room:
                    result.append(size)
                if pairs and columns > 1 and lanes * -(-columns // 2) <= room < size.products + 2 * results:
                    result.append(replace(size, paired_products=True))
    return result


def _column_counts(model: Model) -> list[int]:
    """Return how many columns are worth a look: the usual numbers, and those that share a layer's channels evenly."""
    channels = {
        len(layer.weight)
        for layer in model.layers
        if layer.weight is not None and layer.kind is Kind.CONV2D and layer.groups == 1
    }
    even = {-(-count // parts) for count in channels for parts in range(1, 5)}
    return sorted({*DENSE_UNITS, *(count for count in even if count <= MAX_COLUMNS)})


def _beyond(program: Program, limits: Limits) -> tuple[str, ...]:
    """Say what a geometry that the user fixed has too much of for the device."""
    needs = {
        "block RAMs": (program_blocks(program, limits.block_shapes), limits.blocks),
        "multipliers": (program_multipliers(program.config), limits.multipliers),
    }
    over = [f"{count} {what} of {held}" for what, (count, held) in needs.items() if count > held]
    if not over:
        return ()
    return (f"too large for {limits.name}: {' and '.join(over)}; fit for simulation alone",)


def _fits(program: Program, limits: Limits) -> bool:
    return (
        program_blocks(program, limits.block_shapes) <= limits.blocks
        and spram_count(program.roms) <= limits.spram
        and program_multipliers(program.config) <= limits.multipliers
    )


def _best(candidates: Sequence[Candidate], limits: Limits, least_storage: bool) -> Choice:
    """Take the shortest interval; among nearly equal ones the smallest array, then the fewest block RAMs.

    With ``least_storage`` only those with the fewest stored bits are equal.
    """
    cycles = {id(candidate): program_cycles(candidate.program).interval for candidate in candidates}
    if least_storage:
        sizes = {id(candidate): _stored_bits(candidate.program) for candidate in candidates}
        candidates = [candidate for candidate in candidates if sizes[id(candidate)] == min(sizes.values())]
    bound = min(cycles[id(candidate)] for candidate in candidates) * CYCLE_TOLERANCE

    def cost(candidate: Candidate) -> tuple[int, int, bool, bool, int, int]:
        geometry = candidate.program.config.geometry
        blocks = program_blocks(candidate.program, limits.block_shapes)
        boots = spram_count(candidate.program.roms) > 0
        return geometry.products, geometry.results, geometry.paired_products, boots, blocks, cycles[id(candidate)]

    best = min((candidate for candidate in candidates if cycles[id(candidate)] <= bound), key=cost)
    check_roms(best.program)

    def costs(candidate: Candidate) -> tuple[str, str, str]:
        name = "a choice for every layer" if candidate.engine is None else candidate.engine.value
        blocks = program_blocks(candidate.program, limits.block_shapes)
        return name, f"{cycles[id(candidate)]} cycles", f"{blocks} block RAMs"

    reasons = []
    for kind in dict.fromkeys(candidate.engine for candidate in candidates):
        fastest = min((c for c in candidates if c.engine is kind), key=lambda c: cycles[id(c)])
        name, time, memory = costs(fastest)
        reasons.append(f"{name}: {time} with {fastest.program.config.geometry}, {memory}")
    name, time, memory = costs(best)
    reasons.append(f"chosen: {name}, {best.program.config.geometry}; {time}, {memory}")
    return Choice(best.program, cycles[id(best)], (*reasons, *best.reasons))


def _stored_bits(program: Program) -> int:
    """Return the bits of all layers, without what fills the words of memory."""
    return sum(plan.storage["total"] - plan.storage["padding"] for plan in program.layers)
