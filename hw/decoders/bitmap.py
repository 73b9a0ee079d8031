"""Decoder of the bitmap; coder and format: :mod:`zeroskip.compiler.encodings.bitmap`."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BitmapDecoder"]

ROM_CYCLES = 2
"""From ``mask_addr`` to ``mask_data``."""

ARRIVAL_CYCLES = ROM_CYCLES + 1
"""From ``mask_addr`` to a word whose bits are counted."""

FIFO_WORDS = ARRIVAL_CYCLES + 1
"""Words fetched ahead: what is taken in one cycle is asked for in the next and arrives ``ARRIVAL_CYCLES`` later."""


class BitmapDecoder(wiring.Component):
    """Turn the mask words of rows that lie one after the other into positions, lowest first.

    After ``start`` there is one emission for every cycle with ``enable``: a position for each set bit, a filler for a
    mask word without any. Nothing but ``enable`` delays an emission, so a row takes
    :func:`zeroskip.compiler.encodings.bitmap.cycle_count` cycles of it. What lies behind the last row is fetched, too;
    the next ``start`` forgets it.

    Latency 5 cycles from ``start`` to ``valid``, which stays high until the next ``start``; emission interval 1.

    Parameters
    ----------
    width : int, bits of a mask word
    address_bits : int, of the mask ROM
    row_bits : int, of the number of mask words a row
    position_bits : int

    Members
    -------
    start : In(1), begin with the row whose first mask word lies at ``address``
    address : In(address_bits), read with ``start``
    row_words : In(row_bits), mask words a row less one, steady from ``start`` on
    base : In(position_bits), position of a row's first bit, steady from ``start`` on
    mask_addr : Out(address_bits); mask_data : In(width), the mask ROM
    enable : In(1), take the present emission
    valid : Out(1), there is an emission
    position : Out(position_bits), undefined in a filler
    filler : Out(1), nothing to multiply
    row_first, row_last : Out(1), first and last emission of a row

    Raises
    ------
    ValueError
        If a width is below 1.
    """

    latency_cycles = ARRIVAL_CYCLES + 2

    def __init__(self, width: int, address_bits: int, row_bits: int, position_bits: int) -> None:
        for name, bits in (("Mask", width), ("Address", address_bits), ("Row", row_bits), ("Position", position_bits)):
            if bits < 1:
                raise ValueError(f"{name} width must be at least 1, not {bits!r}")
        self.width = width
        self.address_bits = address_bits
        self.row_bits = row_bits
        self.position_bits = position_bits
        super().__init__(
            {
                "start": In(1),
                "address": In(address_bits),
                "row_words": In(row_bits),
                "base": In(position_bits),
                "mask_addr": Out(address_bits),
                "mask_data": In(width),
                "enable": In(1),
                "valid": Out(1),
                "position": Out(position_bits),
                "filler": Out(1),
                "row_first": Out(1),
                "row_last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Fetch ahead, and clear the lowest set bit of the present word until none is left."""
        m = Module()
        rest, others = Signal(self.width), Signal(self.width)
        # counted beforehand: whether a word ends decides too much to be found out in the same cycle
        more, word_last = Signal(range(max(2, self.width))), Signal()
        load = Signal()
        m.d.comb += [
            others.eq(rest & (rest - 1)),
            load.eq(~self.valid | (self.enable & word_last)),
            self.filler.eq(rest == 0),
        ]
        word, available = self._build_fetch(m, load, Cat(rest, more).shape())
        with m.If(load):
            m.d.sync += [Cat(rest, more).eq(word), word_last.eq(word[self.width :] == 0), self.valid.eq(available)]
        with m.Elif(self.enable):
            m.d.sync += [rest.eq(others), more.eq(more - 1), word_last.eq(more == 1)]
        self._build_row(m, rest, others, word_last)
        with m.If(self.start):
            m.d.sync += self.valid.eq(0)
        return m

    def _build_fetch(self, m: Module, load: Signal, shape: Shape) -> tuple[Signal, Signal]:
        """Keep ``FIFO_WORDS`` words stored or on their way; return the next one and whether it is there.

        A word is its mask and, above it, the number of its emissions less one.
        """
        active, fetch = Signal(), Signal()
        on_way = Signal(ARRIVAL_CYCLES)
        ahead, stored = Signal(range(FIFO_WORDS + 1)), Signal(range(FIFO_WORDS + 1))
        words = [Signal(shape, name=f"word_{i}") for i in range(FIFO_WORDS)]
        arrival, word = Signal(shape), Signal(shape)
        available, taken, arrives = Signal(), Signal(), on_way[-1]
        m.d.comb += [
            fetch.eq(active & (ahead != FIFO_WORDS)),
            word.eq(Mux(stored == 0, arrival, words[0])),
            available.eq((stored != 0) | arrives),
            taken.eq(load & available),
        ]
        emissions = sum(self.mask_data) - self.mask_data.any()
        m.d.sync += [
            arrival.eq(Cat(self.mask_data, emissions)),
            on_way.eq((on_way << 1) | fetch),
            ahead.eq(ahead + fetch - taken),
            stored.eq(stored + arrives - taken),
            self.mask_addr.eq(self.mask_addr + fetch),
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
            m.d.sync += [active.eq(1), on_way.eq(0), ahead.eq(0), stored.eq(0), self.mask_addr.eq(self.address)]
        return word, available

    def _build_row(self, m: Module, rest: Signal, others: Signal, word_last: Signal) -> None:
        """Number the words of a row and place the lowest set bit."""
        words_left = Signal(self.row_bits)
        origin = Signal(self.position_bits)
        lowest, bit = Signal(self.width), Signal(range(self.width))
        m.d.comb += [
            lowest.eq(rest & ~others),
            bit.eq(Cat(Cat(lowest[i] for i in range(self.width) if i >> b & 1).any() for b in range(len(bit)))),
            self.position.eq(origin + bit),
            self.row_last.eq(word_last & (words_left == 0)),
        ]
        with m.If(self.valid & self.enable):
            m.d.sync += self.row_first.eq(self.row_last)
            with m.If(word_last):
                m.d.sync += [words_left.eq(words_left - 1), origin.eq(origin + self.width)]
            with m.If(self.row_last):
                m.d.sync += [words_left.eq(self.row_words), origin.eq(self.base)]
        with m.If(self.start):
            m.d.sync += [words_left.eq(self.row_words), origin.eq(self.base), self.row_first.eq(1)]
