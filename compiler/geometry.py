"""Choose the engine and the size of its array for a network and a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zeroskip.compiler.capacity import (
    beyond,
    flash_read,
    refuse_large_image,
    refuse_large_network,
    refuse_large_parameters,
    refuse_missing_memory,
    refuse_wide_pairs,
    too_large,
)
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.formats import CYCLE_TOLERANCE, best_formats, layer_formats
from zeroskip.compiler.ir import Kind, Model
from zeroskip.compiler.lower import Formats, layer_costs, lower
from zeroskip.compiler.pages import image_bytes, page_parameters
from zeroskip.compiler.program import Program
from zeroskip.compiler.resources import (
    Limits,
    activation_bytes,
    bank_blocks,
    fits,
    largest_layer,
    program_blocks,
    program_multipliers,
    spram_names,
)
from zeroskip.compiler.rom_check import check_roms
from zeroskip.compiler.spram import move_roms, spram_count
from zeroskip.compiler.target import MAX_COLUMNS, WRITE_WIDTHS, Engine, Format, Geometry, pair_bits

__all__ = ["PARAMETERS", "Choice", "choose_program"]

CANDIDATES = 4
"""How many fitting geometries of each kind are compiled to the end."""

LOGIC_SHARE = 32
"""Of so many multipliers of a device one more product may lie in logic, where an array would fit but for that."""

LANES = (4, 8, 16, 32)
DENSE_UNITS = (1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 16)
SPARSE_UNITS = (1, 2, 3, 4, 5, 6, 7, 8)
RESULTS = (1, 2, 4, 8)

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
    refuse_missing_memory(limits, spram, parameters)
    flash = flash_read(limits, flash_command) if parameters == "flash" else None
    small = bool(least_storage)
    kinds: list[Engine | None] = [engine] if engine is not None else [Engine.DENSE, None]
    if engine is None and all(f is Format.DENSE for f in layer_formats(model, None).values()):
        kinds = [Engine.DENSE]

    def compiled(kind: Engine | None, geometry: Geometry) -> Candidate:
        formats, reasons = _formats(model, kind, geometry, index_bits, bool(bitmap), small)
        program = lower(model, geometry, formats, index_bits=index_bits, least_storage=small)
        if parameters != "rom":
            program = page_parameters(program, flash, min(depth for depth, _ in limits.block_shapes))
            refuse_large_image(program, limits)
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
        programs = [candidate.program for candidate in candidates]
        refuse_wide_pairs(programs, limits)
        refuse_large_parameters(programs, limits)
        fixed = _best(candidates, limits, small)
        return replace(fixed, reasons=(*fixed.reasons, *beyond(fixed.program, limits)))
    refuse_large_network(model, limits, outside=parameters != "rom")
    estimates = _estimated(model, kinds, limits, index_bits, bool(bitmap), small, parameters == "rom")
    candidates, found = _search(estimates, limits, compiled)
    if not found:
        programs = [candidate.program for candidate in candidates]
        refuse_large_parameters(programs, limits)
        raise too_large(model, programs, limits)
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
        if fits(candidate.program, limits):
            mine.append(candidate)
    return candidates, [candidate for mine in fitting.values() for candidate in mine]


def _least_blocks(model: Model, geometry: Geometry, stored: int, limits: Limits) -> int:
    """Return the block RAMs that a geometry takes at least: activations, and weights and indices of ``stored`` bits."""
    depth = -(-activation_bytes(model, largest_layer(model)) // geometry.lanes)
    activations = bank_blocks(geometry, depth, limits.block_shapes)
    return activations + max(0, -(-(stored - limits.spram_bits) // limits.block_bits))


def _page_reason(program: Program) -> str:
    """Say what comes from outside."""
    paging = program.paging
    pages = paging.pages if paging is not None else ()
    source = paging.source if paging is not None else "rom"
    held = {rom.format: rom.held for rom in program.roms if rom.style == "paged"}
    buffers = " and ".join(f"{words} words of {kind}" for kind, words in held.items())
    return f"from the {source}: {image_bytes(program)} bytes an inference in {len(pages)} pages, buffers of {buffers}"


def _spram_reasons(program: Program, limits: Limits) -> tuple[str, ...]:
    """Say which images lie in SPRAM."""
    names = [rom.name for rom in program.roms if rom.style == "spram"]
    if not names:
        return ()
    return (f"in SPRAM: {', '.join(names)}, {spram_count(program.roms)} of {limits.spram} blocks, loaded at boot",)


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
