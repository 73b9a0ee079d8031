"""The Program: what the compiler hands to the hardware generator, the simulator and the reports."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from zeroskip.compiler.ir import Layer, Model
from zeroskip.compiler.streams import Decoding
from zeroskip.compiler.target import EngineConfig, Format

__all__ = [
    "FieldSpec",
    "FlashRead",
    "LayerPlan",
    "Page",
    "Paging",
    "Program",
    "Rom",
    "Schedule",
    "Segment",
    "Storage",
    "TensorLayout",
    "Timing",
]


class Storage(enum.Enum):
    """Where a tensor lies: spread over the activation banks, copied into each of them, or in the output buffer."""

    BANKED = "banked"
    REPLICATED = "replicated"
    OUTPUT = "output"


@dataclass(frozen=True)
class TensorLayout:
    """Where element ``(c, y, x)`` lies: linear address ``base * lanes + c * channel_step + rows[y] + columns[x]``.

    Banked: bank = address mod lanes, word = address div lanes. Replicated: every bank holds it at word
    ``base + c * channel_step + rows[y] + columns[x]``; so does the output buffer, whose base is 0.
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
    """A ROM image: ``words[i]`` is the word at address ``i``; ``style`` is where it must land.

    ``logic`` and ``block`` have their content from configuration, ``spram`` is loaded at boot; of ``paged`` ones only
    ``buffer`` words are held at a time, word ``a`` at address ``a mod buffer``.
    """

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
    buffer: int = 0

    @property
    def depth(self) -> int:
        """Number of words."""
        return len(self.words)

    @property
    def held(self) -> int:
        """Number of words that the hardware holds."""
        return self.buffer or self.depth


@dataclass(frozen=True)
class FlashRead:
    """How an SPI flash is read, at half the clock: ``offset`` is the image's address in bytes.

    ``command`` is ``0x03`` or ``0x0B`` (one line), ``0x6B`` (data on four lines) or ``0xEB`` (address, too).
    ``wake_cycles`` lie between the wake-up command and the first read.
    """

    command: int
    offset: int
    wake_cycles: int


@dataclass(frozen=True)
class Page:
    """The words of weights and indices that ``groups`` groups of channels need and that no page before it has.

    ``parts`` says which: index of the layer, first group, number of groups.
    """

    weight_words: int
    index_words: int
    parts: tuple[tuple[int, int, int], ...]

    @property
    def groups(self) -> int:
        """Groups of output channels that run on this page."""
        return sum(count for _, _, count in self.parts)


@dataclass(frozen=True)
class Paging:
    """Weights and indices that come from outside during every inference, page by page.

    ``flash`` says how they are read; None: the host sends them behind the input's words. The buffers have at least
    ``least_words`` words.
    """

    flash: FlashRead | None
    pages: tuple[Page, ...]
    least_words: int

    @property
    def source(self) -> str:
        """The setting ``parameters`` that asks for this."""
        return "host" if self.flash is None else "flash"


@dataclass(frozen=True)
class Schedule:
    """When a layer's slots issue: per group of output channels its slots a pass, ``windows`` passes a tile, ``tiles``.

    ``drain`` is the number of cycles in which a unit's results leave the array; units end at least that far apart, and
    the first one takes ``lead`` cycles at least.
    """

    lengths: tuple[int, ...]
    windows: int
    tiles: int
    drain: int
    lead: int


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """How one layer runs: its descriptor fields, its schedule and what it stores.

    ``front`` holds the fields of what feeds the array, ``back`` those of what takes its results. ``shape`` is the
    output shape, ``(C, H, W)`` or ``(F,)``; ``places`` the output position ``(y, x)`` of each place, None outside the
    map. ``products`` is the number of products a cycle the layer can use. ``macs_dense`` and ``macs_useful`` follow
    the report's definitions; ``entries`` counts the encoded entries of a sparse layer, escapes included; ``idle_slots``
    of a dense row multiply nothing. ``rows_together`` rows of a linear layer leave the array in a cycle.
    """

    name: str
    kind: str
    format: Format
    layer: Layer
    output: str
    shape: tuple[int, ...]
    front: Mapping[str, int]
    back: Mapping[str, int]
    schedule: Schedule
    products: int
    places: tuple[tuple[int, int] | None, ...]
    macs_dense: int
    macs_useful: int
    index_bits: int
    weight_bits: int
    zero_excluded: bool
    entries: int
    decoding: Decoding | None
    storage: Mapping[str, int]
    idle_slots: int = 0
    rows_together: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing:
    """The static schedule of one inference; cycle 0 is the start of the first layer.

    Attributes
    ----------
    starts : cycle in which each layer starts; its first slot issues in the next one
    gaps : cycles between the last slot of a layer and the start of the next, the last of them back to the first layer
    finish : cycle in which the last layer's last value has been written and the output begins to leave
    period : cycles between the starts of two inferences when the next input is there in time
    released : cycle from which the next input may be loaded
    loaded : cycle in which the next inference can start when its input is offered without a pause
    blocked : for each layer, cycles from the last slot of a unit until its results keep input words out, and how long
    """

    starts: tuple[int, ...]
    gaps: tuple[int, ...]
    finish: int
    period: int
    released: int
    loaded: int
    blocked: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled network.

    ``model`` is the IR after every pass (what :func:`zeroskip.compiler.reference.run` executes and the hardware
    computes), ``layers`` the plans in execution order. ``release`` is the layer after which the input's memory is free.
    ``paging`` is there where weights and indices come from outside.
    """

    model: Model
    config: EngineConfig
    layers: tuple[LayerPlan, ...]
    layouts: Mapping[str, TensorLayout]
    roms: tuple[Rom, ...]
    timing: Timing
    release: int
    row_orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    paging: Paging | None = None

    def rom(self, name: str) -> Rom:
        """Return the ROM called ``name``."""
        for rom in self.roms:
            if rom.name == name:
                return rom
        raise KeyError(name)

    def has_rom(self, name: str) -> bool:
        """Whether there is a ROM called ``name``."""
        return any(rom.name == name for rom in self.roms)
