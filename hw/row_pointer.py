"""The walk along the slots of rows in an image: what index and weight addresses have in common."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from zeroskip.hw.pipeline import delay

__all__ = ["RowPointer"]


class RowPointer(wiring.Component):
    """Walk a row's slots once a pass, the same row again or the one behind it.

    Recurrence: ``pointer' = again ? row's begin : following``, ``following' = again ? row's begin + stride : following
    + stride``. The sums are kept in registers, so that nothing that arrives late stands in front of an addition.
    Latency 1 cycle, initiation interval 1.

    Parameters
    ----------
    bits : int, of a slot address
    lane_bits : int, of a slot's number within its word

    Members
    -------
    start : In(1), begin at ``base``; base : In(bits), the first slot of a word
    step : In(1), leave the present slot
    last : In(1), with ``step``: the slot is its row's last one; next_row : In(1), with ``last``: the row is done with
    whole_words : In(1), steady from ``start`` on: a step leads to the next word, not to the next slot
    pointer : Out(bits), address of the present slot
    """

    def __init__(self, bits: int, lane_bits: int) -> None:
        self.lane_bits = lane_bits
        super().__init__(
            {
                "start": In(1),
                "base": In(bits),
                "step": In(1),
                "last": In(1),
                "next_row": In(1),
                "whole_words": In(1),
                "pointer": Out(bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the pointer, the sum and the begin of the row."""
        m = Module()
        following, chosen, chosen_following, row_start, row_following = (
            Signal.like(self.pointer, name=name)
            for name in ("following", "chosen", "chosen_following", "row_start", "row_following")
        )
        again = self.last & ~self.next_row
        # a pointer of whole words has no slot bits: `following` has ones in their place, so adding 1 leads to the next
        # word, and nothing but the register stands in front of the addition
        slot_bits = delay(m, self.whole_words, 1).replicate(self.lane_bits)
        last_slot, word = Const((1 << self.lane_bits) - 1, self.lane_bits), self.base[self.lane_bits :]
        after_base = Mux(self.whole_words, Cat(last_slot, word + 1), self.base | 1)
        follower = Cat(following[: self.lane_bits] & ~slot_bits, following[self.lane_bits :])
        m.d.comb += [
            chosen.eq(Mux(self.start, self.base, Mux(again, row_start, follower))),
            chosen_following.eq(Mux(self.start, after_base, Mux(again, row_following, (following + 1) | slot_bits))),
        ]
        with m.If(self.start | self.step):
            m.d.sync += [self.pointer.eq(chosen), following.eq(chosen_following)]
        with m.If(self.start | (self.step & self.last & self.next_row)):
            m.d.sync += [row_start.eq(chosen), row_following.eq(chosen_following)]
        return m
