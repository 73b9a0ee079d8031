"""Parameters that come from outside: bytes into the buffers, page by page, and issue that waits for them."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.pages import CRC_BYTES
from zeroskip.compiler.program import Rom
from zeroskip.hw.boot import CRC32
from zeroskip.hw.pipeline import descriptor_layout

__all__ = ["InputSplitter", "PageGate", "PageLoader", "load_signature"]

HELD = 2
"""Pages that the buffers hold: one in use, one on its way."""


def load_signature(roms: int, depth: int, word_bits: int) -> wiring.Signature:
    """Return the write port of buffers of ``depth`` words: an enable each, an address and a word for all of them."""
    return wiring.Signature({"en": Out(roms), "addr": Out(range(depth)), "data": Out(word_bits)})


class PageLoader(wiring.Component):
    """Write the bytes of pages into the buffers, as :func:`zeroskip.compiler.pages.page_image` orders them.

    Recurrence: take a page's words and its CRC-32 as soon as one of the ``HELD`` places is free, one byte a cycle;
    after the last page comes the first one again. A word is written one cycle after its last byte. With a wrong CRC it
    stops until the next reset.

    Latency 1 cycle from a page's last byte to ``push``; the next page's first byte is taken 2 cycles later.

    Parameters
    ----------
    table : Rom, the numbers of every page
    kinds : Sequence[tuple[Rom, ...]], the paged images that are filled together; of each kind all have the same shape

    Members
    -------
    i : In(stream of 8 bits)
    table_addr : Out, table_data : In, of the ROM ``pages``
    release : In(1), one cycle: a page is used up
    load_0, load_1 ... : Out(load_signature), one a kind
    push : Out(1), one cycle: a page is complete and its CRC right; group_last : Out, its groups less 1
    last : Out(1), the last byte of the image is taken
    primed : Out(1), as many pages have come as there are places
    failed : Out(1), a CRC was wrong; number : Out, of the present page
    """

    def __init__(self, table: Rom, kinds: list[tuple[Rom, ...]]) -> None:
        self.table = table
        self.kinds = kinds
        self.layout = descriptor_layout(table.fields)
        self.word_bytes = [-(-roms[0].word_bits // 8) for roms in kinds]
        pages = range(max(table.depth, 2))
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(8))),
                "table_addr": Out(pages),
                "table_data": In(table.word_bits),
                "release": In(1),
                **{
                    f"load_{kind}": Out(load_signature(len(roms), roms[0].held, roms[0].word_bits))
                    for kind, roms in enumerate(kinds)
                },
                "push": Out(1),
                "group_last": Out(self.layout["group_last"].width),
                "last": Out(1),
                "primed": Out(1),
                "failed": Out(1),
                "number": Out(pages),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the byte counters, the word register and the state machine."""
        m = Module()
        m.submodules.crc = crc = CRC32(data_width=8).create()
        page = data.View(self.layout, self.table_data)
        last_page = self.table.depth - 1
        free = Signal(range(HELD + 1), init=HELD)
        begin, accepted, word_end = Signal(), Signal(), Signal()
        byte = Signal(range(max(CRC_BYTES, *self.word_bytes)))
        left = [Signal(field.width, name=f"left_{kind}") for kind, field in enumerate(self._counts())]
        m.d.comb += [
            accepted.eq(self.i.valid & self.i.ready),
            crc.start.eq(begin),
            crc.data.eq(self.i.payload),
            crc.valid.eq(accepted),
        ]
        m.d.sync += free.eq(free + self.release - begin)
        with m.If(accepted):
            m.d.sync += byte.eq(Mux(word_end, 0, byte + 1))
        enables = [self._build_writes(m, kind, accepted & word_end) for kind in range(len(self.kinds))]
        with m.FSM():
            with m.State("WAIT"):
                with m.If(free != 0):
                    m.d.comb += begin.eq(1)
                    m.d.sync += [
                        self.number.eq(self.table_addr),
                        self.table_addr.eq(Mux(self.table_addr == last_page, 0, self.table_addr + 1)),
                        self.group_last.eq(page.group_last),
                        *(count.eq(words) for count, words in zip(left, self._words(page), strict=True)),
                    ]
                    self._enter(m, 0, self._words(page))
            for kind, (count, (write, row_end)) in enumerate(zip(left, enables, strict=True)):
                with m.State(f"LOAD_{kind}"):
                    m.d.comb += [self.i.ready.eq(1), write.eq(1), word_end.eq(byte == self.word_bytes[kind] - 1)]
                    with m.If(accepted & word_end & row_end):
                        m.d.sync += count.eq(count - 1)
                        with m.If(count == 1):
                            self._enter(m, kind + 1, left)
            with m.State("CRC"):
                m.d.comb += [self.i.ready.eq(1), word_end.eq(byte == CRC_BYTES - 1)]
                with m.If(accepted & word_end):
                    m.d.comb += self.last.eq(self.number == last_page)
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += self.push.eq(crc.match_detected)
                with m.If(crc.match_detected):
                    m.d.sync += self.primed.eq(self.primed | (free == 0))
                    m.next = "WAIT"
                with m.Else():
                    m.next = "FAILED"
            with m.State("FAILED"):
                m.d.comb += self.failed.eq(1)
        return m

    def _counts(self) -> list[data.Field]:
        names = ("weight_words", "index_words")
        return [self.layout[name] for name in names[: len(self.kinds)]]

    def _words(self, page: data.View) -> list[Value]:
        return [page.weight_words, page.index_words][: len(self.kinds)]

    def _enter(self, m: Module, kind: int, counts: list[Value]) -> None:
        """Go on with the next kind that has words in this page, else with the CRC."""
        m.next = "CRC"
        for later in range(len(self.kinds) - 1, kind - 1, -1):
            with m.If(counts[later] != 0):
                m.next = f"LOAD_{later}"

    def _build_writes(self, m: Module, kind: int, word: Value) -> tuple[Signal, Value]:
        """Write the words of a kind to its buffers in turn; return what says that bytes are its, and its row's end."""
        roms, load = self.kinds[kind], getattr(self, f"load_{kind}")
        size = 8 * self.word_bytes[kind]
        shift = Signal(size, name=f"shift_{kind}", reset_less=True)
        turn = Signal(len(roms), init=1, name=f"turn_{kind}")
        address = Signal(range(roms[0].held), name=f"address_{kind}")
        mine = Signal(name=f"load_{kind}_now")
        m.d.comb += load.data.eq(shift[: roms[0].word_bits])
        m.d.sync += [load.en.eq(0), load.addr.eq(address)]
        with m.If(self.i.valid):
            m.d.sync += shift.eq(Cat(shift, self.i.payload)[8:])
        with m.If(mine & word):
            m.d.sync += [load.en.eq(turn), turn.eq(turn.rotate_left(1))]
            with m.If(turn[-1]):
                m.d.sync += address.eq(address + 1)
        return mine, turn[-1]


class PageGate(wiring.Component):
    """Hold issue in front of a page until it is there, and say when its words may be overwritten.

    Without a pause where the next page is there when the last slot of one issues, else ``hold`` ends 2 cycles after
    ``push``.

    Parameters
    ----------
    group_bits : int
    release_cycles : int, from a slot to the cycle after its last read of a buffer

    Members
    -------
    push : In(1), a page is there; group_last : In(group_bits), its groups less 1
    group_end : In(1), the last slot of a group issues in this cycle
    hold : Out(1), no slot may issue; register
    release : Out(1), one cycle, ``release_cycles`` after a page's last slot
    """

    def __init__(self, group_bits: int, release_cycles: int) -> None:
        self.release_cycles = release_cycles
        super().__init__(
            {
                "push": In(1),
                "group_last": In(group_bits),
                "group_end": In(1),
                "hold": Out(1, init=1),
                "release": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the waiting pages, the count of groups and the delay."""
        m = Module()
        level = Signal(range(HELD + 1))
        waiting = [Signal.like(self.group_last, name=f"waiting_{place}") for place in range(HELD)]
        left, last_group = Signal.like(self.group_last), Signal()
        ends, enter, room = Signal(), Signal(), Signal()
        m.d.comb += [
            ends.eq(self.group_end & last_group),
            room.eq(self.hold | ends),
            enter.eq(room & (level != 0)),
        ]
        m.d.sync += level.eq(level + self.push - enter)
        with m.If(self.group_end):
            m.d.sync += [left.eq(left - 1), last_group.eq(left == 1)]
        with m.If(room):
            m.d.sync += self.hold.eq(level == 0)
        with m.If(enter):
            m.d.sync += [left.eq(waiting[0]), last_group.eq(waiting[0] == 0), waiting[0].eq(waiting[1])]
        with m.If(self.push):
            with m.If(level == Mux(enter, 1, 0)):
                m.d.sync += waiting[0].eq(self.group_last)
            with m.Else():
                m.d.sync += waiting[1].eq(self.group_last)
        passed = Signal(self.release_cycles)
        m.d.sync += passed.eq(Cat(ends, passed))
        m.d.comb += self.release.eq(passed[-1])
        return m


class InputSplitter(wiring.Component):
    """Take the words of an input and the bytes of the parameter image in turn.

    Latency 0, initiation interval 1.

    Parameters
    ----------
    words : int, of an input

    Members
    -------
    i : In(stream of 8 bits)
    inputs, pages : Out(stream of 8 bits)
    last : In(1), the last byte of the image is taken in this cycle
    """

    def __init__(self, words: int) -> None:
        self.words = words
        signature = stream.Signature(unsigned(8))
        super().__init__({"i": In(signature), "inputs": Out(signature), "pages": Out(signature), "last": In(1)})

    def elaborate(self, platform: object) -> Module:
        """Build the count and the switch."""
        m = Module()
        count, in_pages = Signal(range(max(self.words, 2))), Signal()
        m.d.comb += [
            self.inputs.payload.eq(self.i.payload),
            self.pages.payload.eq(self.i.payload),
            self.inputs.valid.eq(self.i.valid & ~in_pages),
            self.pages.valid.eq(self.i.valid & in_pages),
            self.i.ready.eq(Mux(in_pages, self.pages.ready, self.inputs.ready)),
        ]
        with m.If(self.inputs.valid & self.inputs.ready):
            m.d.sync += count.eq(count + 1)
            with m.If(count == self.words - 1):
                m.d.sync += [count.eq(0), in_pages.eq(1)]
        with m.If(self.last):
            m.d.sync += in_pages.eq(0)
        return m
