"""The front end: issues one parameter slot a cycle, in the order groups, tiles, windows, slots."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import MIN_LEAD
from zeroskip.hw.pipeline import FLAGS
from zeroskip.hw.row_pointer import RowPointer

__all__ = ["Issue"]


class Issue(wiring.Component):
    """Walk the slots of a layer.

    A *unit* accumulates one value a lane: its windows (pooled positions) one after the other, each over all slots of
    its row. Recurrence: one slot a cycle; the only stall is the last slot of a unit while the unit before it still
    drains, so units take ``max(slots, drain)`` cycles and nothing inside the pipeline ever waits. Where ``run`` slots
    belong together the last run waits as a whole, and ends when its last slot would. The first slot issues one cycle
    after ``start``.

    With a decoder, rows have their own length: the first group's comes with the descriptor, the following ones from the
    ``rows`` ROM, one group ahead; the first unit ends when the second group's is there, ``MIN_LEAD`` slots on at least.

    Parameters
    ----------
    layout : StructLayout of the front descriptor
    lanes : int
    position_bits : int
    pointer_bits : int, width of an index slot address; 0: the engine has no decoder
    row_address_bits, row_bits : int, of the ``rows`` ROM
    element_bits : int, of the number of a slot within its block; 0: every slot has its own index
    run : int, slots that issue without a pause, a power of two; rows are whole runs
    paged : bool, parameters come from outside

    Members
    -------
    descriptor : In(layout)
    start : In(1), one cycle; the descriptor is stable from then to the end of the layer
    flags : Out(FLAGS), of the slot issued in this cycle
    position : Out(position_bits), tap number or input of the slot, counted from ``tap_base`` (no decoder)
    pointer : Out(pointer_bits), index slot address (decoder)
    row_addr : Out, row_data : In, the ``rows`` ROM (decoder)
    element : Out(element_bits), element_last : Out(1), of the slot within its block (decoder with blocks)
    done : Out(1), the slot issued in this cycle is the layer's last one
    hold : In(1), no slot issues in this cycle (paged); steady within a group
    """

    def __init__(
        self,
        layout: data.StructLayout,
        lanes: int,
        position_bits: int,
        pointer_bits: int = 0,
        row_address_bits: int = 0,
        row_bits: int = 0,
        element_bits: int = 0,
        run: int = 1,
        paged: bool = False,
    ) -> None:
        self.run = run
        self.paged = paged
        self.lanes = lanes
        # slots from the row's last one, and from the first one of its last run, to the row's end
        self.ends = (1,) if run == 1 else (1, run)
        self.element_bits = element_bits
        self.indexed = pointer_bits > 0
        members = {
            "descriptor": In(layout),
            "start": In(1),
            "flags": Out(FLAGS),
            "position": Out(position_bits),
            "done": Out(1),
            **({"hold": In(1)} if paged else {}),
        }
        if self.indexed:
            members["pointer"] = Out(pointer_bits)
            members["row_addr"] = Out(row_address_bits)
            members["row_data"] = In(row_bits)
            if element_bits:
                members["element"] = Out(element_bits)
                members["element_last"] = Out(1)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Build counters, flags and the row pointer."""
        m = Module()
        d = self.descriptor
        running = Signal()
        remaining = Signal(len(self.row_data) if self.indexed else len(d.slot_last))
        windows = Signal.like(d.window_last)
        tiles = Signal.like(d.tile_last)
        groups = Signal.like(d.group_last)
        timer = Signal.like(d.drain_wait)
        run_bits = (self.run - 1).bit_length()
        first, unit_first = Signal(), Signal()
        unit_last, group_last, step = Signal(), Signal(), Signal()
        # whether each counter has arrived at 0, known with the count itself: what follows must not wait for comparisons
        last_window, last_tile, last_group, waiting = (
            Signal(name=name) for name in ("last_window", "last_tile", "last_group", "waiting")
        )
        ends = Signal(len(self.ends), name="last")
        last = ends[0]
        held = unit_last if self.run == 1 else ends[1] & last_window
        may_run = running & ~self.hold if self.paged else running
        m.d.comb += [
            unit_last.eq(last & last_window),
            group_last.eq(unit_last & last_tile),
            step.eq(may_run & ~(held & waiting)),
            Cat(self.flags.valid, self.flags.first, self.flags.last).eq(Cat(step, first, last)),
            Cat(self.flags.unit_first, self.flags.unit_last, self.flags.group_last).eq(
                Cat(unit_first, unit_last, group_last)
            ),
            self.done.eq(step & group_last & last_group),
        ]
        with m.If(waiting):
            m.d.sync += [timer.eq(timer - 1), waiting.eq(timer != self.run)]
        with m.If(step):
            m.d.sync += [remaining.eq(remaining - 1), ends.eq(Cat(remaining == n for n in self.ends)), first.eq(last)]
            with m.If(last):
                m.d.sync += [windows.eq(windows - 1), last_window.eq(windows == 1), unit_first.eq(unit_last)]
            with m.If(unit_last):
                m.d.sync += [windows.eq(d.window_last), last_window.eq(d.window_last == 0)]
                m.d.sync += [tiles.eq(tiles - 1), last_tile.eq(tiles == 1)]
                m.d.sync += [timer.eq(d.drain_wait), waiting.eq(d.drain_wait[run_bits:] != 0)]
            with m.If(group_last):
                m.d.sync += [tiles.eq(d.tile_last), last_tile.eq(d.tile_last == 0)]
                m.d.sync += [groups.eq(groups - 1), last_group.eq(groups == 1), running.eq(~last_group)]
        with m.If(self.start):
            lead = MIN_LEAD - 1 if self.indexed else 0
            m.d.sync += [
                running.eq(1),
                windows.eq(d.window_last),
                last_window.eq(d.window_last == 0),
                tiles.eq(d.tile_last),
                last_tile.eq(d.tile_last == 0),
                groups.eq(d.group_last),
                last_group.eq(d.group_last == 0),
                timer.eq(lead),
                waiting.eq(lead >= self.run),
                first.eq(1),
                unit_first.eq(1),
            ]
        if self.indexed:
            self._build_rows(m, remaining, ends, step, last_window & last_tile)
        else:
            self._build_slots(m, remaining, ends, step)
        return m

    def _ends(self, behind: Value) -> Value:
        """Return ``ends`` of a slot with ``behind`` slots behind it in its row."""
        return Cat(behind == slots - 1 for slots in self.ends)

    def _build_slots(self, m: Module, remaining: Signal, ends: Signal, step: Signal) -> None:
        """No decoder: every pass walks the same slots."""
        d = self.descriptor
        with m.If(step):
            stride = d.position_step if hasattr(d, "position_step") else 1
            m.d.sync += self.position.eq(self.position + stride)
        with m.If(self.start | (step & ends[0])):
            m.d.sync += [remaining.eq(d.slot_last), ends.eq(self._ends(d.slot_last)), self.position.eq(d.tap_base)]

    def _build_rows(self, m: Module, remaining: Signal, ends: Signal, step: Signal, last_pass: Value) -> None:
        """Decoder: a pass walks its row again until the group's last pass ends, then the row after it."""
        d = self.descriptor
        length = Signal.like(remaining)
        # rows of a single slot or run; the ROM has answered a cycle before its answer is taken
        single, following_single = Signal(len(ends)), Signal(len(ends))
        m.d.sync += following_single.eq(self._ends(self.row_data))
        m.submodules.walk = walk = RowPointer(len(self.pointer), (self.lanes - 1).bit_length())
        # of the whole pass: what follows has the row's end to look at besides
        next_row, leaves = Signal(), Signal(init=1)
        m.d.comb += [
            next_row.eq(last_pass & ~d.row_shared),
            walk.start.eq(self.start),
            walk.base.eq(d.index_base),
            walk.step.eq(step & leaves),
            walk.last.eq(ends[0]),
            walk.next_row.eq(next_row),
            walk.whole_words.eq(d.linear),
            self.pointer.eq(walk.pointer),
        ]
        if self.element_bits:
            m.d.comb += self.element_last.eq(self.element == d.element_last)
            with m.If(step):
                m.d.sync += self.element.eq(Mux(self.element_last, 0, self.element + 1))
            with m.If(self.start):
                m.d.sync += self.element.eq(0)
            m.d.comb += leaves.eq(d.codes_a_slot | self.element_last)
        with m.If(step):
            with m.If(ends[0]):
                m.d.sync += [
                    remaining.eq(Mux(next_row, self.row_data, length)),
                    ends.eq(Mux(next_row, following_single, single)),
                ]
            with m.If(ends[0] & next_row):
                m.d.sync += [length.eq(self.row_data), single.eq(following_single)]
                m.d.sync += self.row_addr.eq(self.row_addr + 1)
        with m.If(self.start):
            m.d.sync += [
                self.row_addr.eq(d.row_base),
                length.eq(d.first_length),
                remaining.eq(d.first_length),
                single.eq(self._ends(d.first_length)),
                ends.eq(self._ends(d.first_length)),
            ]
