"""UART receiver and transmitter, 8 data bits, no parity, one stop bit (8N1), as byte streams."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["FRAME_BITS", "MIN_DIVISOR", "UartReceiver", "UartTransmitter", "divisor_for"]

MIN_DIVISOR = 8
"""Fewest clock cycles a bit for which the receiver keeps its baud tolerance."""

_DATA_BITS = 8
FRAME_BITS = 1 + _DATA_BITS + 1
"""A byte with its start bit and its stop bit."""


def divisor_for(clock_hz: float, baud: float) -> int:
    """Return the clock cycles a bit that come nearest to ``baud``, bits/s, at ``clock_hz``.

    Raises
    ------
    ValueError
        If the clock is too slow, or the nearest divisor misses the baud rate by more than 1 %.
    """
    divisor = round(clock_hz / baud)
    if divisor < MIN_DIVISOR:
        raise ValueError(f"Clock must be at least {MIN_DIVISOR} times the baud rate {baud:g}, not {clock_hz:g} Hz")
    error = abs(clock_hz / divisor / baud - 1)
    if error > 0.01:
        raise ValueError(
            f"Divisor {divisor} has baud rate {clock_hz / divisor:.0f}, but {baud:g} is asked for: {error:.1%} apart"
        )
    return divisor


class UartReceiver(wiring.Component):
    """Turn an asynchronous serial line into a stream of bytes.

    ``rx`` is synchronized inside. Every bit is sampled in its middle, counted from the falling edge of the start bit;
    a start bit shorter than half a bit is taken for noise. A sender within 2 % of the baud rate is received without
    error. One byte is held until it is taken; a byte that arrives while the one before it still waits is lost.

    Parameters
    ----------
    divisor : int, clock cycles a bit, at least ``MIN_DIVISOR``

    Members
    -------
    rx : In(1), idles high
    o : Out(stream.Signature(8))
    overrun : Out(1)
        High for one cycle when a byte is lost because ``o`` was not ready.
    framing : Out(1)
        High for one cycle when a byte is dropped because its stop bit is low.

    Raises
    ------
    TypeError
        If ``divisor`` is not an integer.
    ValueError
        If ``divisor`` is below ``MIN_DIVISOR``.
    """

    def __init__(self, divisor: int) -> None:
        self.divisor = _check_divisor(divisor)
        super().__init__(
            {"rx": In(1, init=1), "o": Out(stream.Signature(_DATA_BITS)), "overrun": Out(1), "framing": Out(1)}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)

        timer = Signal(range(self.divisor))
        bit = Signal(range(FRAME_BITS))
        shift = Signal(_DATA_BITS)

        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        m.d.sync += [self.overrun.eq(0), self.framing.eq(0)]

        with m.FSM():
            with m.State("idle"):
                m.d.sync += [timer.eq((self.divisor - 1) // 2), bit.eq(0)]
                with m.If(~line):
                    m.next = "frame"
            with m.State("frame"):
                m.d.sync += timer.eq(timer - 1)
                with m.If(timer == 0):
                    m.d.sync += [timer.eq(self.divisor - 1), bit.eq(bit + 1), shift.eq(Cat(shift[1:], line))]
                    with m.If((bit == 0) & line):
                        m.next = "idle"
                    with m.If(bit == FRAME_BITS - 1):
                        # The stop bit is not shifted out: the byte is taken before this edge moves it.
                        self._deliver(m, line, shift)
            with m.State("break"):
                with m.If(line):
                    m.next = "idle"
        return m

    def _deliver(self, m: Module, line: Signal, shift: Signal) -> None:
        """Hand over the byte in ``shift`` when the stop bit is high, and leave the frame."""
        with m.If(line):
            m.next = "idle"
            with m.If(self.o.valid & ~self.o.ready):
                m.d.sync += self.overrun.eq(1)
            with m.Else():
                m.d.sync += [self.o.payload.eq(shift), self.o.valid.eq(1)]
        with m.Else():
            # After a low stop bit the line must rise before another start bit can be told from a break.
            m.d.sync += self.framing.eq(1)
            m.next = "break"


class UartTransmitter(wiring.Component):
    """Send a stream of bytes over a serial line.

    A frame takes ``10 * divisor`` cycles; with bytes always available frames follow each other without a gap.

    Parameters
    ----------
    divisor : int, clock cycles a bit, at least ``MIN_DIVISOR``

    Members
    -------
    i : In(stream.Signature(8))
    tx : Out(1), idles high, registered

    Raises
    ------
    TypeError
        If ``divisor`` is not an integer.
    ValueError
        If ``divisor`` is below ``MIN_DIVISOR``.
    """

    def __init__(self, divisor: int) -> None:
        self.divisor = _check_divisor(divisor)
        super().__init__({"i": In(stream.Signature(_DATA_BITS)), "tx": Out(1, init=1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        timer = Signal(range(self.divisor))
        bits_left = Signal(range(FRAME_BITS + 1))
        shift = Signal(FRAME_BITS, init=-1)
        # known with the counts themselves: what follows must not wait for comparisons
        bit_ends, last_bit, idle = Signal(), Signal(), Signal(init=1)

        m.d.comb += [self.tx.eq(shift[0]), self.i.ready.eq(idle | (last_bit & bit_ends))]
        with m.If(~idle):
            m.d.sync += [timer.eq(timer - 1), bit_ends.eq(timer == 1)]
        with m.If(bit_ends):
            m.d.sync += [
                timer.eq(self.divisor - 1),
                bits_left.eq(bits_left - 1),
                last_bit.eq(bits_left == 2),
                idle.eq(last_bit),
                shift.eq(Cat(shift[1:], Const(1, 1))),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                timer.eq(self.divisor - 1),
                bit_ends.eq(0),
                bits_left.eq(FRAME_BITS),
                last_bit.eq(0),
                idle.eq(0),
                shift.eq(Cat(Const(0, 1), self.i.payload, Const(1, 1))),
            ]
        return m


def _check_divisor(divisor: int) -> int:
    """Return ``divisor`` when it is a whole number of cycles that the receiver can sample."""
    if not isinstance(divisor, int) or isinstance(divisor, bool):
        raise TypeError(f"Divisor must be an integer, not {divisor!r}")
    if divisor < MIN_DIVISOR:
        raise ValueError(f"Divisor must be at least {MIN_DIVISOR} cycles a bit, not {divisor!r}")
    return divisor
