"""The Program: what the compiler hands to the hardware generator, the simulator and the reports."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from zeroskip.compiler.ir import Layer, Model
from zeroskip.compiler.target import EngineConfig

__all__ = ["FieldSpec", "LayerPlan", "Program", "Rom", "Segment", "Storage", "TensorLayout", "Unit"]


class Storage(enum.Enum):
    """How a tensor lies in the activation banks."""

    BANKED = "banked"
    REPLICATED = "replicated"


@dataclass(frozen=True)
class TensorLayout:
    """Where element ``(c, y, x)`` lies: linear address ``base * lanes + c * channel_step + rows[y] + columns[x]``.

    Banked: bank = address mod lanes, word = address div lanes. Replicated: every bank holds it at word
    ``base + c * channel_step + rows[y] + columns[x]``.
    """

    storage: Storage
    base: int
    words: int
    channel_step: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class FieldSpec:
    """A bit field of a ROM word."""

    name: str
    lsb: int
    bits: int
    signed: bool = False


@dataclass(frozen=True)
class Segment:
    """The words ``[first, first + count)`` of a ROM that belong to one layer."""

    layer: str
    first: int
    count: int


@dataclass(frozen=True)
class Rom:
    """A ROM image: ``words[i]`` is the word at address ``i``; ``style`` is where it must land (block or logic)."""

    name: str
    word_bits: int
    words: tuple[int, ...]
    slots: int
    slot_bits: int
    fields: tuple[FieldSpec, ...]
    segments: tuple[Segment, ...]
    ports: int
    style: str
    format: str

    @property
    def depth(self) -> int:
        """Number of words."""
        return len(self.words)


@dataclass(frozen=True)
class Unit:
    """Cycle counts of the accumulation units of a layer: ``issue`` cycles each, ``repeat`` times in a row."""

    issue: int
    repeat: int


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """How one layer runs: its descriptor fields, its units in order and what it stores.

    ``shape`` is the output shape, ``(C, H, W)`` or ``(F,)``. ``macs_dense`` and ``macs_useful`` follow the report's
    definitions; ``entries`` counts the encoded row entries of a sparse layer, escapes included.
    """

    name: str
    kind: str
    layer: Layer
    output: str
    shape: tuple[int, ...]
    fields: Mapping[str, int]
    units: tuple[Unit, ...]
    macs_dense: int
    macs_useful: int
    index_bits: int
    weight_bits: int
    zero_excluded: bool
    entries: int
    storage: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled network.

    ``model`` is the IR after every pass (what :func:`zeroskip.compiler.reference.run` executes and the hardware
    computes), ``layers`` the plans in execution order, ``descriptors`` the field layout of the ``layers`` ROM.
    """

    model: Model
    config: EngineConfig
    layers: tuple[LayerPlan, ...]
    layouts: Mapping[str, TensorLayout]
    roms: tuple[Rom, ...]
    descriptors: tuple[FieldSpec, ...]
    row_orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rom(self, name: str) -> Rom:
        """Return the ROM called ``name``."""
        for rom in self.roms:
            if rom.name == name:
                return rom
        raise KeyError(name)

    def has_rom(self, name: str) -> bool:
        """Whether there is a ROM called ``name``."""
        return any(rom.name == name for rom in self.roms)
