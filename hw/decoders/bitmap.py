"""Decoder of the bitmap; coder and format: :mod:`zeroskip.compiler.encodings.bitmap`."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BitmapDecoder"]

ARRIVAL_CYCLES = 3
"""From ``pointer`` to ``mask``: the index ROM, its output register, the slot of its word."""

FIFO_WORDS = ARRIVAL_CYCLES + 1
"""Words fetched ahead: what is taken in one cycle is asked for in the next and arrives ``ARRIVAL_CYCLES`` later."""


class BitmapDecoder(wiring.Component):
    """Turn the mask words of a layer's rows into bit numbers, lowest first.

    A pass over a row takes one emission for every set bit, and a filler for a mask word without any; then fillers until
    ``last``. A row is walked ``pass_last + 1`` times, then the one behind it. All of that is known when the layer
    starts, so the words of the next pass are fetched while this one still runs, and nothing but ``enable`` delays an
    emission. What lies behind the last row is fetched, too; the next ``start`` forgets it.

    Recurrence: ``rest' = rest & (rest - 1)``, or the next word. Latency 5 cycles from ``start`` to the first emission;
    interval 1.

    Parameters
    ----------
    width : int, bits of a mask word
    pointer_bits : int, of the address of a mask word
    row_bits : int, of the number of mask words a row
    pass_bits : int, of the number of passes over a row

    Members
    -------
    start : In(1), begin with the row whose first mask word lies at ``base``
    base : In(pointer_bits), read with ``start``
    mask_last : In(row_bits), pass_last : In(pass_bits), mask words a row and passes less 1, steady from ``start`` on
    pointer : Out(pointer_bits); mask : In(width), the word there, ``ARRIVAL_CYCLES`` later
    enable : In(1), take the present emission; last : In(1), with it, it is the last one of the pass
    valid : Out(1), there is an emission, from 5 cycles after ``start`` to the next
    bit : Out(bit number), in the present word; undefined in a filler
    filler : Out(1), nothing to multiply
    word_end : Out(1), the word's last emission

    Raises
    ------
    ValueError
        If a width is below 1.
    """

    latency_cycles = ARRIVAL_CYCLES + 2

    def __init__(self, width: int, pointer_bits: int, row_bits: int, pass_bits: int) -> None:
        sizes = (("Mask", width), ("Pointer", pointer_bits), ("Row", row_bits), ("Pass", pass_bits))
        for name, bits in sizes:
            if bits < 1:
                raise ValueError(f"{name} width must be at least 1, not {bits!r}")
        self.width = width
        self.pointer_bits = pointer_bits
        self.row_bits = row_bits
        self.pass_bits = pass_bits
        super().__init__(
            {
                "start": In(1),
                "base": In(pointer_bits),
                "mask_last": In(row_bits),
                "pass_last": In(pass_bits),
                "pointer": Out(pointer_bits),
                "mask": In(width),
                "enable": In(1),
                "last": In(1),
                "valid": Out(1),
                "bit": Out(range(max(2, width))),
                "filler": Out(1),
                "word_end": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Fetch ahead, and clear the lowest set bit of the present word until none is left."""
        m = Module()
        # emissions are counted beforehand: whether a word ends decides too much to be found out in the same cycle
        layout = data.StructLayout({"mask": self.width, "more": range(max(2, self.width)), "row_end": 1})
        present = Signal(layout)
        others, load = Signal(self.width), Signal()
        m.d.comb += [
            others.eq(present.mask & (present.mask - 1)),
            load.eq(~self.valid | (self.enable & (self.last | (self.word_end & ~present.row_end)))),
            self.filler.eq(present.mask == 0),
            self.bit.eq(self._number(present.mask & ~others)),
        ]
        word, available = self._build_fetch(m, load, layout)
        with m.If(load):
            m.d.sync += [present.eq(word), self.word_end.eq(word.more == 0), self.valid.eq(available)]
        with m.Elif(self.enable):
            # behind the end of a row nothing is left, and it stays so
            m.d.sync += [
                present.mask.eq(others),
                present.more.eq(present.more - 1),
                self.word_end.eq(self.word_end | (present.more == 1)),
            ]
        with m.If(self.start):
            m.d.sync += self.valid.eq(0)
        return m

    def _number(self, lowest: Value) -> Value:
        """Return the number of the only set bit."""
        return Cat(Cat(lowest[i] for i in range(self.width) if i >> b & 1).any() for b in range(len(self.bit)))

    def _build_fetch(self, m: Module, load: Signal, layout: data.StructLayout) -> tuple[data.View, Signal]:
        """Keep ``FIFO_WORDS`` words stored or on their way; return the next one and whether it is there."""
        active, fetch = Signal(), Signal()
        on_way = Signal(ARRIVAL_CYCLES)
        ahead, stored = Signal(range(FIFO_WORDS + 1)), Signal(range(FIFO_WORDS + 1))
        arrival, word = Signal(layout), Signal(layout)
        words = [Signal(layout, name=f"word_{i}") for i in range(FIFO_WORDS)]
        available, taken, arrives = Signal(), Signal(), on_way[-1]
        m.d.comb += [
            arrival.mask.eq(self.mask),
            arrival.more.eq(sum(self.mask) - self.mask.any()),
            arrival.row_end.eq(self._build_pointer(m, fetch)),
            fetch.eq(active & (ahead != FIFO_WORDS)),
            word.eq(Mux(stored == 0, arrival.as_value(), words[0].as_value())),
            available.eq((stored != 0) | arrives),
            taken.eq(load & available),
        ]
        m.d.sync += [
            on_way.eq((on_way << 1) | fetch),
            ahead.eq(ahead + fetch - taken),
            stored.eq(stored + arrives - taken),
        ]
        # an arriving word goes behind the stored ones; what an empty place holds is never read
        behind = Signal.like(stored)
        m.d.comb += behind.eq(stored - (taken & (stored != 0)))
        for index, place in enumerate(words):
            with m.If(behind == index):
                m.d.sync += place.eq(arrival)
            if index + 1 < FIFO_WORDS:
                with m.Elif(taken):
                    m.d.sync += place.eq(words[index + 1])
        with m.If(self.start):
            m.d.sync += [active.eq(1), on_way.eq(0), ahead.eq(0), stored.eq(0)]
        return word, available

    def _build_pointer(self, m: Module, fetch: Signal) -> Value:
        """Walk every row as often as it has passes; return whether the arriving word is the last of its row."""
        words_left, passes_left = Signal(self.row_bits), Signal(self.pass_bits)
        row_start, following = Signal(self.pointer_bits), Signal(self.pointer_bits)
        row_end, next_row = Signal(), Signal()
        ends = Signal(ARRIVAL_CYCLES)
        m.d.comb += [
            following.eq(self.pointer + 1),
            row_end.eq(words_left == 0),
            next_row.eq(row_end & (passes_left == 0)),
        ]
        m.d.sync += ends.eq((ends << 1) | row_end)
        with m.If(fetch):
            m.d.sync += [words_left.eq(words_left - 1), self.pointer.eq(following)]
            with m.If(row_end):
                m.d.sync += [words_left.eq(self.mask_last), passes_left.eq(passes_left - 1), self.pointer.eq(row_start)]
            with m.If(next_row):
                m.d.sync += [passes_left.eq(self.pass_last), self.pointer.eq(following), row_start.eq(following)]
        with m.If(self.start):
            m.d.sync += [words_left.eq(self.mask_last), passes_left.eq(self.pass_last)]
            m.d.sync += [self.pointer.eq(self.base), row_start.eq(self.base)]
        return ends[-1]
