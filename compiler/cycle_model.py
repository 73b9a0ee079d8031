"""The cycle model: exact cycles of every layer, and what each cycle-times-lane slot was spent on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zeroskip.compiler.page_timing import paged_runs
from zeroskip.compiler.program import LayerPlan, Program
from zeroskip.compiler.target import Format
from zeroskip.compiler.timing import LOADED, unit_ends

__all__ = ["LayerCycles", "ProgramCycles", "layer_cycles", "program_cycles"]


@dataclass(frozen=True)
class LayerCycles:
    """Cycles of one layer and its slots (cycles x lanes): every slot is in exactly one class."""

    name: str
    cycles: int
    lanes: int
    utilization: float
    slots: Mapping[str, int]


@dataclass(frozen=True)
class ProgramCycles:
    """Cycles of one inference; ``interval`` is the time between results when inputs are always available."""

    load: int
    layers: tuple[LayerCycles, ...]
    unload: int
    total: int
    interval: int


def program_cycles(program: Program) -> ProgramCycles:
    """Return the cycles of one inference, from the first input word accepted to the last output word accepted."""
    if program.paging is not None:
        return _paged_cycles(program)
    timing = program.timing
    tensors = program.model.tensors
    ends = (*timing.starts[1:], timing.finish)
    layers = tuple(
        layer_cycles(plan, end - start) for plan, start, end in zip(program.layers, timing.starts, ends, strict=True)
    )
    load = tensors[program.model.input].size - 1 + LOADED
    # a word leaves one cycle after its address, and the cycle of the last one counts
    unload = tensors[program.model.output].size + 1
    total = load + sum(layer.cycles for layer in layers) + unload
    # the last layer waits until the output of the inference before has left, and sees that a cycle late
    sent = timing.finish + unload + 2 - timing.starts[-1]
    return ProgramCycles(load, layers, unload, total, max(timing.period, timing.loaded, sent))


def _paged_cycles(program: Program) -> ProgramCycles:
    """Return the cycles of a program whose parameters come from outside."""
    run, interval = paged_runs(program)
    tensors = program.model.tensors
    ends = (*run.starts[1:], run.finish)
    layers = tuple(
        layer_cycles(plan, end - start, last - start)
        for plan, start, last, end in zip(program.layers, run.starts, run.last_slots, ends, strict=True)
    )
    load = tensors[program.model.input].size - 1 + LOADED
    unload = tensors[program.model.output].size + 1
    return ProgramCycles(load, layers, unload, load + sum(layer.cycles for layer in layers) + unload, interval)


def layer_cycles(plan: LayerPlan, cycles: int, slot_cycles: int | None = None) -> LayerCycles:
    """Split the ``cycles`` of one layer, from its start to the start of the next, into classes.

    Stalls are waits for the drain between two units, and for parameters from outside; overhead is what lies between the
    last slot of a layer and the first of the next. ``slot_cycles`` run from the start to the last slot; without them
    nothing waits but for the drain.
    """
    schedule = plan.schedule
    busy = sum(schedule.lengths) * schedule.windows * schedule.tiles
    stalls = (int(unit_ends(schedule)[-1]) + 1 if slot_cycles is None else slot_cycles) - busy
    lanes = plan.products
    slots = _slots(plan, busy)
    slots["stall"] = stalls * lanes
    slots["drain"] = 0
    slots["overhead"] = (cycles - busy - stalls) * lanes
    return LayerCycles(plan.name, cycles, lanes, plan.macs_useful / (cycles * lanes), slots)


def _slots(plan: LayerPlan, busy: int) -> dict[str, int]:
    """Split the issued slots: useful, outside the map, outside the channels, escapes, waiting for a longer row."""
    lanes = plan.products
    issued = busy * lanes
    useful = plan.macs_useful
    entries = plan.entries if plan.format is not Format.DENSE else 0
    if plan.front["linear"]:
        if plan.format is Format.DENSE:
            filler = plan.shape[0] * plan.idle_slots
            return _classes(useful, column_waste=issued - useful - filler, filler=filler)
        return _classes(useful, filler=entries - useful, imbalance=issued - entries)
    _, height, width = plan.shape
    places = len(plan.places)
    passes = plan.schedule.windows
    if plan.format is Format.DENSE:
        per_row = plan.schedule.lengths[0] * passes
        rows = plan.shape[0] * per_row * places
        filler = plan.shape[0] * plan.idle_slots * passes * height * width
        return _classes(useful, tile_waste=rows - useful - filler, column_waste=issued - rows, filler=filler)
    tile_waste = int(entries * passes * (places - height * width))
    filler = entries * passes * height * width - useful
    imbalance = issued - entries * passes * places
    return _classes(useful, tile_waste=tile_waste, filler=filler, imbalance=imbalance)


def _classes(
    useful: int, *, tile_waste: int = 0, column_waste: int = 0, filler: int = 0, imbalance: int = 0
) -> dict[str, int]:
    return {
        "useful": useful,
        "tile_waste": tile_waste,
        "column_waste": column_waste,
        "filler": filler,
        "imbalance": imbalance,
    }
