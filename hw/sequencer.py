"""The sequencer: load, the layers one after the other, unload."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Sequencer"]


class Sequencer(wiring.Component):
    """Step through the descriptors: fetch, start, wait for the walk to end, let the pipeline empty.

    Parameters
    ----------
    layout : StructLayout of the layer descriptor
    steps : int, load + layers + unload
    flush_cycles : int, from the walker's last value to its write

    Members
    -------
    index : Out, the step; also the address of the ``layers`` ROM
    start : Out(1), one cycle, the descriptor is valid
    running : Out(1), between start and done
    done : In(1), the walk has ended
    """

    overhead_cycles = 2

    def __init__(self, steps: int, flush_cycles: int) -> None:
        self.steps = steps
        self.flush_cycles = flush_cycles
        super().__init__({"index": Out(range(steps)), "start": Out(1), "running": Out(1), "done": In(1)})

    def elaborate(self, platform: object) -> Module:
        """Build the state machine."""
        m = Module()
        wait = Signal(range(self.flush_cycles + 1))
        with m.FSM():
            with m.State("FETCH"):
                m.next = "START"
            with m.State("START"):
                m.d.comb += self.start.eq(1)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                m.d.sync += wait.eq(self.flush_cycles - 1)
                with m.If(self.done):
                    m.next = "FLUSH"
            with m.State("FLUSH"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += self.index.eq(self.index + 1)
                    with m.If(self.index == self.steps - 1):
                        m.d.sync += self.index.eq(0)
                    m.next = "FETCH"
        return m
