"""Read an image from an SPI flash again and again, as a stream of bytes."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.pages import DESELECT_CYCLES, FLASH_COMMANDS, read_lines
from zeroskip.compiler.program import FlashRead

__all__ = ["FlashReader", "flash_signature", "read_steps"]

_WAKE = 0xAB
_ADDRESS_BITS = 24
_IDLE = 0b1100
"""WP and HOLD stay inactive."""
_ONE_LINE = 0b1101
"""All lines but CIPO are driven."""
_DUMMY = {0x03: 0, 0x0B: 8, 0x6B: 8, 0xEB: 4}
"""Clocks between address (and mode) and data."""


def flash_signature() -> wiring.Signature:
    """Return the pins: ``cs`` is high while selected; data lines 0 to 3 are COPI, CIPO, WP and HOLD."""
    return wiring.Signature({"cs": Out(1), "clk": Out(1), "o": Out(4), "oe": Out(4), "i": In(4)})


def read_steps(command: int, address: int) -> list[tuple[int, int]]:
    """Return what is sent before the data of a read, a clock each: the levels of the lines, and which are driven.

    ``0xEB`` sends its address on four lines, and a mode byte that asks for a command at the next select.
    """
    steps = [(_IDLE | bit, _ONE_LINE) for bit in _bits(command, 8)]
    if command == 0xEB:
        nibbles = [address >> shift & 15 for shift in range(_ADDRESS_BITS - 4, -1, -4)]
        steps += [(nibble, 0b1111) for nibble in (*nibbles, 15, 15)]
    else:
        steps += [(_IDLE | bit, _ONE_LINE) for bit in _bits(address, _ADDRESS_BITS)]
    # who drives the lines changes in the dummy clocks
    return steps + [(_IDLE, _ONE_LINE if read_lines(command) == 1 else 0)] * _DUMMY[command]


def _bits(word: int, count: int) -> list[int]:
    return [word >> bit & 1 for bit in range(count - 1, -1, -1)]


class FlashReader(wiring.Component):
    """Read ``length`` bytes from ``read.offset`` on, and then the same again, in SPI mode 0 at half the clock.

    After reset it wakes the flash and waits. The clock stops, with the flash selected, while a byte waits to be taken.
    Cycles from byte to byte, and from the end of the image to its begin: :func:`zeroskip.compiler.pages.read_cycles`.

    Parameters
    ----------
    read : FlashRead
    length : int, bytes

    Members
    -------
    pins : Out(flash_signature()); data lines are sampled at the end of the high half of ``clk``
    o : Out(stream of 8 bits)

    Raises
    ------
    ValueError
        If the command is not one of ``FLASH_COMMANDS``, or the image does not end within the 16 MiB that it reaches.
    """

    def __init__(self, read: FlashRead, length: int) -> None:
        if read.command not in FLASH_COMMANDS:
            known = ", ".join(f"0x{command:02X}" for command in FLASH_COMMANDS)
            raise ValueError(f"Flash command must be one of {known}, not 0x{read.command:02X}")
        if length < 1 or read.offset < 0 or read.offset + length > 1 << _ADDRESS_BITS:
            raise ValueError(f"Image must lie within the flash's 16 MiB, not at {read.offset!r} with {length!r} bytes")
        if read.wake_cycles < 1:
            raise ValueError(f"Flash must have at least one cycle to wake up, not {read.wake_cycles!r}")
        self.read = read
        self.length = length
        self.lines = read_lines(read.command)
        self.steps = read_steps(read.command, read.offset)
        super().__init__({"pins": Out(flash_signature()), "o": Out(stream.Signature(unsigned(8)))})

    def elaborate(self, platform: object) -> Module:
        """Build the bit counter and the state machine."""
        m = Module()
        pins = self.pins
        wake = [(_IDLE | bit, _ONE_LINE) for bit in _bits(_WAKE, 8)]
        idle = [pins.o.eq(_IDLE), pins.oe.eq(_ONE_LINE)]
        step = Signal(range(max(len(self.steps), len(wake))))
        wait = Signal(range(max(self.read.wake_cycles, DESELECT_CYCLES) + 1), init=self.read.wake_cycles)
        left = Signal(range(self.length))
        shift = Signal(8, reset_less=True)
        bit_end, run = Signal(), Signal()
        samples = 8 // self.lines
        sample = Signal(range(samples))
        taken = Cat(pins.i, shift)[:8] if self.lines == 4 else Cat(pins.i[1], shift)[:8]
        m.d.comb += bit_end.eq(pins.clk)
        with m.If(run):
            m.d.sync += pins.clk.eq(~pins.clk)
        with m.If(bit_end):
            m.d.sync += [shift.eq(taken), step.eq(step + 1)]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.FSM():
            with m.State("START"):
                m.d.comb += idle
                m.d.sync += pins.cs.eq(1)
                m.next = "WAKE"
            with m.State("WAKE"):
                m.d.comb += [run.eq(1), *self._drive(wake, step)]
                with m.If(bit_end & (step == len(wake) - 1)):
                    m.d.sync += pins.cs.eq(0)
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += idle
                m.d.sync += [wait.eq(wait - 1), step.eq(0)]
                with m.If(wait == 1):
                    m.d.sync += pins.cs.eq(1)
                    m.next = "COMMAND"
            with m.State("COMMAND"):
                m.d.comb += [run.eq(1), *self._drive(self.steps, step)]
                m.d.sync += [left.eq(self.length - 1), sample.eq(0)]
                with m.If(bit_end & (step == len(self.steps) - 1)):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [pins.o.eq(_IDLE), pins.oe.eq(_ONE_LINE if self.lines == 1 else 0)]
                # a byte begins when the one before it is taken
                m.d.comb += run.eq(bit_end | (sample != 0) | ~self.o.valid | self.o.ready)
                with m.If(bit_end):
                    m.d.sync += sample.eq(sample + 1)
                    with m.If(sample == samples - 1):
                        m.d.sync += [self.o.payload.eq(taken), self.o.valid.eq(1), left.eq(left - 1)]
                        with m.If(left == 0):
                            m.d.sync += [wait.eq(DESELECT_CYCLES), pins.cs.eq(0)]
                            m.next = "WAIT"
        return m

    def _drive(self, steps: list[tuple[int, int]], step: Signal) -> list[Value]:
        """Drive the lines as a list of steps says."""
        tables = [sum(part << 4 * n for n, part in enumerate(column)) for column in zip(*steps, strict=True)]
        levels, driven = (Const(table, 4 * len(steps)) for table in tables)
        return [self.pins.o.eq(levels.word_select(step, 4)), self.pins.oe.eq(driven.word_select(step, 4))]
