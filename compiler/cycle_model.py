"""The cycle model: exact cycles of every layer, and what each cycle-times-lane slot was spent on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zeroskip.compiler.program import LayerPlan, Program
from zeroskip.compiler.target import Engine, EngineConfig

__all__ = ["LayerCycles", "ProgramCycles", "layer_cycles", "program_cycles"]

SEQUENCER = 2
"""Fetching the descriptor and starting (hw.sequencer)."""
ISSUE_START = {Engine.DENSE: 1, Engine.SPARSE: 3}
"""From start to the first slot (hw.issue)."""
DECODE = {Engine.DENSE: 0, Engine.SPARSE: 3}
"""From a slot to its tap number (hw.decoders.relative)."""
TAP_TO_ACTIVATION = 12
"""hw.gather, windowed layers and dense linear layers."""
WORD_TO_ACTIVATION = 5
"""hw.gather, sparse linear layers: from the decoder's lane words."""
ACCUMULATE = 2
"""hw.array without pooling, from activation to accumulator; pooling adds 1."""
POST = 8
"""hw.postprocess: also the cycles after the last value before the next layer is fetched."""
UNLOAD_WORD = 9
"""hw.accelerator: cycles an output word takes, read path and transfer."""


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
    layers = tuple(layer_cycles(plan, program.config) for plan in program.layers)
    tensors = program.model.tensors
    # the first input word is accepted one cycle after start; flush and hand-over belong to the load
    load = tensors[program.model.input].size + POST
    unload = SEQUENCER + UNLOAD_WORD * tensors[program.model.output].size
    total = load + sum(layer.cycles for layer in layers) + unload
    return ProgramCycles(load, layers, unload, total, total + POST + SEQUENCER)


def layer_cycles(plan: LayerPlan, config: EngineConfig) -> LayerCycles:
    """Return the cycles of one layer.

    Units take ``max(slots, drain)`` cycles each after the first; then the pipeline runs out, the last unit drains and
    the post-processor empties.
    """
    geometry = config.geometry
    drain = plan.fields["drain_wait"] + 1
    busy = sum(unit.issue * unit.repeat for unit in plan.units)
    first = plan.units[0].issue
    stalls = sum(max(unit.issue, drain) * unit.repeat for unit in plan.units) - max(first, drain) + first - busy
    sparse_linear = geometry.engine is Engine.SPARSE and plan.fields["linear"] == 1
    depth = WORD_TO_ACTIVATION if sparse_linear else TAP_TO_ACTIVATION
    latency = depth + DECODE[geometry.engine] + ACCUMULATE + int(config.has_pooling) + geometry.columns
    tail = latency + plan.fields["drain_last"] + POST - 1
    start = SEQUENCER + ISSUE_START[geometry.engine]
    cycles = start + busy + stalls + tail
    lanes = geometry.products
    slots = _slots(plan, config, busy)
    slots["stall"] = stalls * lanes
    slots["drain"] = (tail - POST) * lanes
    slots["overhead"] = (start + POST) * lanes
    return LayerCycles(plan.name, cycles, lanes, plan.macs_useful / (cycles * lanes), slots)


def _slots(plan: LayerPlan, config: EngineConfig, busy: int) -> dict[str, int]:
    """Split the issued slots: useful, outside the map, outside the channels, escapes, waiting lanes."""
    geometry = config.geometry
    fields = plan.fields
    issued = busy * geometry.products
    useful = plan.macs_useful
    if fields["linear"]:
        if geometry.engine is Engine.DENSE:
            columns = fields["slot_last"] + 1
            rows = (fields["group_last"] + 1) * geometry.columns - plan.shape[0]
            column_waste = rows * columns * geometry.lanes
            return {
                "useful": useful,
                "tile_waste": issued - column_waste - useful,
                "column_waste": column_waste,
                "filler": 0,
                "imbalance": 0,
            }
        filler = plan.entries - useful
        return {
            "useful": useful,
            "tile_waste": 0,
            "column_waste": 0,
            "filler": filler,
            "imbalance": issued - useful - filler,
        }
    _, height, width = plan.shape
    tiles = fields["tile_last"] + 1
    filled = height * width / (tiles * geometry.lanes)
    column_waste = 0
    if geometry.engine is Engine.DENSE:
        active = 1 if fields["channel_last"] == 0 else geometry.columns
        groups = fields["group_last"] + 1
        idle = groups * geometry.columns - (plan.shape[0] if active > 1 else groups)
        column_waste = busy * geometry.lanes * idle // groups
    tile_waste = round((issued - column_waste) * (1 - filled))
    filler = issued - column_waste - tile_waste - useful
    return {"useful": useful, "tile_waste": tile_waste, "column_waste": column_waste, "filler": filler, "imbalance": 0}
