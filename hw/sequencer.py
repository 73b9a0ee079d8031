"""The sequencer: the front end and the back end step through the layers, each at its own time."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BackSequencer", "FrontSequencer"]


class FrontSequencer(wiring.Component):
    """Start every layer ``gap`` cycles after the last slot of the one before: the compiler's static schedule.

    The first layer also waits until its input is loaded, the last one until the output buffer is free. From a layer's
    last slot to the next start: ``2 + gap`` cycles. What both wait for is seen a cycle late: a start loads the whole
    descriptor, so nothing but registers may stand in front of it.

    Parameters
    ----------
    layers : int
    gap_bits : int

    Members
    -------
    addr : Out, en : Out(1), of the descriptor ROM, which holds its word
    start : Out(1), one cycle, the descriptor is valid
    index : Out, the layer of the descriptor
    done : In(1), the last slot issues in this cycle
    gap : In(gap_bits), field of the present layer
    ended : Out(1), one cycle, the gap is over
    loaded, output_free : In(1)
    """

    def __init__(self, layers: int, gap_bits: int) -> None:
        self.layers = layers
        super().__init__(
            {
                "addr": Out(range(layers)),
                "en": Out(1),
                "start": Out(1),
                "index": Out(range(layers)),
                "done": In(1),
                "gap": In(gap_bits),
                "ended": Out(1),
                "loaded": In(1),
                "output_free": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the state machine."""
        m = Module()
        wait, over = Signal.like(self.gap), Signal()
        may_start = Signal()
        m.d.sync += may_start.eq(((self.addr != 0) | self.loaded) & ((self.addr != self.layers - 1) | self.output_free))
        m.d.sync += self.start.eq(self.en)
        with m.If(self.en):
            m.d.sync += [self.index.eq(self.addr), self.addr.eq(self.addr + 1)]
            with m.If(self.addr == self.layers - 1):
                m.d.sync += self.addr.eq(0)
        with m.FSM():
            with m.State("HOLD"):
                m.d.comb += self.en.eq(may_start)
                with m.If(may_start):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.sync += [wait.eq(self.gap), over.eq(self.gap == 0)]
                with m.If(self.done):
                    m.next = "GAP"
            with m.State("GAP"):
                m.d.sync += [wait.eq(wait - 1), over.eq(wait == 1)]
                with m.If(over):
                    m.d.comb += [self.ended.eq(1), self.en.eq(may_start)]
                    m.next = "HOLD"
                    with m.If(may_start):
                        m.next = "RUN"
        return m


class BackSequencer(wiring.Component):
    """Change the back end's descriptor when the last value of a layer has passed.

    Parameters
    ----------
    layers : int
    flush_cycles : int, from a drained value to the cycle in which its write is prepared

    Members
    -------
    addr : Out, en : Out(1), of the descriptor ROM
    start : Out(1), one cycle, the descriptor is valid
    index : Out, the layer of the descriptor
    done : In(1), the last value is drained in this cycle
    finished : Out(1), one cycle, the last layer's last value is written
    """

    def __init__(self, layers: int, flush_cycles: int) -> None:
        self.layers = layers
        self.flush_cycles = flush_cycles
        super().__init__(
            {
                "addr": Out(range(layers)),
                "en": Out(1),
                "start": Out(1),
                "index": Out(range(layers)),
                "done": In(1),
                "finished": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the delay from done to the change."""
        m = Module()
        wait = Signal(range(self.flush_cycles + 1))
        over, first, last_layer = Signal(), Signal(init=1), Signal()
        m.d.sync += [self.start.eq(self.en), first.eq(0), last_layer.eq(self.index == self.layers - 1)]
        m.d.sync += over.eq(wait == 1)
        with m.If(self.done):
            m.d.sync += wait.eq(self.flush_cycles - 1)
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        m.d.comb += [self.en.eq(first | over), self.finished.eq(over & last_layer)]
        with m.If(self.en):
            m.d.sync += [self.index.eq(self.addr), self.addr.eq(self.addr + 1)]
            with m.If(self.addr == self.layers - 1):
                m.d.sync += self.addr.eq(0)
        return m
