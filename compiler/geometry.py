"""Choose the engine and the size of its array for a network and a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.errors import CapacityError
from zeroskip.compiler.ir import Model
from zeroskip.compiler.lower import lower
from zeroskip.compiler.program import Program
from zeroskip.compiler.target import Engine, EngineConfig, Geometry

__all__ = ["DEFAULT_LIMITS", "Choice", "Limits", "choose_program", "program_blocks", "program_multipliers"]

CYCLE_TOLERANCE = 1.02
"""A smaller array is taken when it costs no more cycles than this ratio."""

SPARSE_LANES = (4, 8, 16, 32)
DENSE_SIZES = ((4, 2), (4, 5), (8, 2), (8, 3), (8, 5), (16, 1), (8, 10), (16, 5))


@dataclass(frozen=True)
class Limits:
    """What a device holds.

    ``block_shapes`` are the ``(depth, width)`` one block RAM can take; ``multipliers`` and ``blocks`` are hard blocks.
    """

    name: str
    multipliers: int
    blocks: int
    block_shapes: tuple[tuple[int, int], ...]


ECP5_SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))
DEFAULT_LIMITS = Limits("an ECP5-25F", 28, 56, ECP5_SHAPES)


@dataclass(frozen=True, eq=False)
class Choice:
    """A compiled candidate and why it was taken."""

    program: Program
    cycles: int
    reasons: tuple[str, ...]


def program_blocks(program: Program, shapes: Sequence[tuple[int, int]]) -> int:
    """Return how many block RAMs the activation banks and the block ROMs of ``program`` take."""
    config = program.config
    total = config.geometry.lanes * _blocks(config.activation_depth, 8, shapes)
    for rom in program.roms:
        if rom.style == "block":
            total += _blocks(rom.depth, rom.word_bits, shapes)
    return total


def _blocks(depth: int, width: int, shapes: Sequence[tuple[int, int]]) -> int:
    return min(-(-depth // d) * -(-width // w) for d, w in shapes)


def program_multipliers(config: EngineConfig) -> int:
    """Return how many hard multipliers the array and the post-processor take."""
    return config.geometry.products + (2 if config.multiplier_width else 0)


def choose_program(
    model: Model,
    engine: Engine | None,
    limits: Limits,
    *,
    lanes: int | None = None,
    columns: int | None = None,
    index_bits: int | None = None,
) -> Choice:
    """Compile ``model`` for the fitting geometry with the fewest cycles; ``engine=None`` compares both engines.

    Given ``lanes`` (and ``columns``) fix the geometry; then nothing is searched and nothing is refused for its size.

    Raises
    ------
    CapacityError
        If no geometry fits; the text says what the smallest one needs, what there is and what to change.
    """
    engines = (Engine.DENSE, Engine.SPARSE) if engine is None else (engine,)
    if lanes is not None:
        fixed = [_compile(model, Geometry(kind, lanes, _columns(kind, columns)), index_bits) for kind in engines]
        return _best(fixed, engines, limits)
    capacity = limits.blocks * max(depth * width for depth, width in limits.block_shapes)
    possible = [kind for kind in engines if kind is Engine.SPARSE or _dense_bits(model) <= capacity] or engines
    candidates = [_compile(model, geometry, index_bits) for geometry in _geometries(possible, limits)]
    fitting = [program for program in candidates if _fits(program, limits)]
    if not fitting:
        least = min(candidates, key=lambda p: (program_blocks(p, limits.block_shapes), program_multipliers(p.config)))
        blocks, multipliers = program_blocks(least, limits.block_shapes), program_multipliers(least.config)
        raise CapacityError(
            f"Network {model.name!r} needs at least {blocks} block RAMs and {multipliers} multipliers, "
            f"but {limits.name} has {limits.blocks} and {limits.multipliers}; "
            "prune further, use fewer weight bits or name a larger board"
        )
    return _best(fitting, engines, limits)


def _dense_bits(model: Model) -> int:
    """Return the least bits a dense layout stores: every row of the columns that hold any weight."""
    total = 0
    for layer in model.layers:
        if layer.weight is not None:
            matrix = np.asarray(layer.weight).reshape(len(layer.weight), -1)
            total += matrix.shape[0] * int(matrix.any(axis=0).sum()) * layer.weight_bits
    return total


def _columns(engine: Engine, columns: int | None) -> int:
    if engine is Engine.SPARSE:
        return 1
    return 2 if columns is None else columns


def _geometries(engines: Sequence[Engine], limits: Limits) -> list[Geometry]:
    result = []
    if Engine.SPARSE in engines:
        result += [Geometry(Engine.SPARSE, lanes) for lanes in SPARSE_LANES if lanes <= max(limits.multipliers, 4)]
    if Engine.DENSE in engines:
        result += [
            Geometry(Engine.DENSE, lanes, n) for lanes, n in DENSE_SIZES if lanes * n <= max(limits.multipliers, 8)
        ]
    return result


def _compile(model: Model, geometry: Geometry, index_bits: int | None) -> Program:
    return lower(model, geometry, index_bits=index_bits if geometry.engine is Engine.SPARSE else None)


def _fits(program: Program, limits: Limits) -> bool:
    return (
        program_blocks(program, limits.block_shapes) <= limits.blocks
        and program_multipliers(program.config) <= limits.multipliers
    )


def _best(programs: Sequence[Program], engines: Sequence[Engine], limits: Limits) -> Choice:
    """Take the fewest cycles; among nearly equal ones the smallest array, then the fewest block RAMs."""
    cycles = {id(program): program_cycles(program).total for program in programs}
    bound = min(cycles.values()) * CYCLE_TOLERANCE
    best = min(
        (program for program in programs if cycles[id(program)] <= bound),
        key=lambda p: (p.config.geometry.products, program_blocks(p, limits.block_shapes), cycles[id(p)]),
    )
    reasons = []
    for kind in engines:
        mine = [program for program in programs if program.config.geometry.engine is kind]
        if not mine:
            reasons.append(f"{kind.value}: no geometry fits {limits.name}")
            continue
        fastest = min(mine, key=lambda p: cycles[id(p)])
        geometry = fastest.config.geometry
        reasons.append(
            f"{kind.value}: {cycles[id(fastest)]} cycles with {geometry.lanes} lanes x {geometry.columns} columns, "
            f"{program_blocks(fastest, limits.block_shapes)} block RAMs"
        )
    geometry = best.config.geometry
    reasons.append(f"chosen: {geometry.engine.value}, {geometry.lanes} lanes x {geometry.columns} columns")
    return Choice(best, cycles[id(best)], tuple(reasons))
