"""Fill the SPRAMs of a design from an SPI flash, and prove the content before anything runs on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.crc import Algorithm
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.spram import SPRAM_BITS, SPRAM_DEPTH

__all__ = ["CRC32", "FlashBoot", "boot_signature"]

CRC32 = Algorithm(
    crc_width=32,
    polynomial=0x04C11DB7,
    initial_crc=0xFFFFFFFF,
    reflect_input=False,
    reflect_output=False,
    xor_output=0xFFFFFFFF,
)
"""CRC-32/BZIP2: that of Ethernet with the most significant bit first, the order in which SPI sends them."""

_WAKE = 0xAB
"""Release from power-down: configuration ends with the flash asleep."""
_READ = 0x03
"""Read data from a 24-bit address on, at up to 50 MHz."""
_COMMAND_BITS = 32


def boot_signature(blocks: int) -> wiring.Signature:
    """Return the write port of ``blocks`` SPRAMs: one enable each, a word address and a word for all of them."""
    return wiring.Signature({"en": Out(blocks), "addr": Out(range(SPRAM_DEPTH)), "data": Out(SPRAM_BITS)})


class FlashBoot(wiring.Component):
    """Read an image from an SPI flash (mode 0) into SPRAMs, block after block, and compare its CRC-32.

    Starts when reset ends: wakes the flash, waits, sends one read command and takes the image in one go, most
    significant bit first, two cycles a bit. Ends after ``cycles`` either with ``done`` or with ``failed``, and stays
    there until the next reset; with no flash at all it fails as well, since it counts and waits for nothing.

    Parameters
    ----------
    lengths : words of each block
    crc : CRC-32 of the image, as :data:`CRC32`
    offset : address of the image in the flash, bytes
    wake_cycles : from the wake-up command to the read command, at least 1

    Members
    -------
    sck, copi : Out(1); cs : Out(1), high while selected; cipo : In(1), sampled at the end of ``sck``'s high half
    boot : Out(boot_signature(len(lengths)))
    done, failed : Out(1)

    Raises
    ------
    ValueError
        If there is no block, a block is empty or longer than an SPRAM, the image does not end within the 16 MiB that
        the read command reaches, or ``wake_cycles`` is below 1.
    """

    def __init__(self, lengths: Sequence[int], crc: int, offset: int, wake_cycles: int) -> None:
        if not lengths or not all(1 <= length <= SPRAM_DEPTH for length in lengths):
            raise ValueError(f"Blocks must have 1 to {SPRAM_DEPTH} words each, not {list(lengths)!r}")
        if offset < 0 or offset + sum(lengths) * SPRAM_BITS // 8 > 1 << 24:
            raise ValueError(f"Image must lie within the flash's 16 MiB, not at {offset!r}")
        if wake_cycles < 1:
            raise ValueError(f"Flash must have at least one cycle to wake up, not {wake_cycles!r}")
        self.lengths = tuple(lengths)
        self.crc = crc
        self.offset = offset
        self.wake_cycles = wake_cycles
        super().__init__(
            {
                "sck": Out(1),
                "cs": Out(1),
                "copi": Out(1),
                "cipo": In(1),
                "boot": Out(boot_signature(len(lengths))),
                "done": Out(1),
                "failed": Out(1),
            }
        )

    @property
    def cycles(self) -> int:
        """Cycles from the end of reset until ``done`` or ``failed`` rises."""
        bits = 8 + _COMMAND_BITS + sum(self.lengths) * SPRAM_BITS
        return 2 * bits + self.wake_cycles + 2

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32(data_width=1).create()
        bit = Signal(range(_COMMAND_BITS))
        wait = Signal(range(self.wake_cycles + 1))
        shift = Signal(SPRAM_BITS)
        # one bit a block: it is the write enable as well
        block = Signal(len(self.lengths), init=1)
        address, write = Signal(range(SPRAM_DEPTH)), Signal()
        bit_ends, last_word = Signal(), Signal()
        m.d.comb += [
            bit_ends.eq(self.sck),
            self.boot.en.eq(block & write.replicate(len(block))),
            self.boot.addr.eq(address),
            self.boot.data.eq(shift),
            crc.data.eq(self.cipo),
        ]
        # a word takes 32 cycles: time enough for a register behind the comparison
        m.d.sync += last_word.eq(address == self._last_address(block))
        with m.If(self.cs):
            m.d.sync += self.sck.eq(~self.sck)
            with m.If(bit_ends):
                m.d.sync += [bit.eq(bit + 1), shift.eq(Cat(self.cipo, shift[:-1]))]
        m.d.sync += write.eq(0)
        with m.If(write):
            m.d.sync += address.eq(address + 1)
            with m.If(last_word):
                m.d.sync += [address.eq(0), block.eq(block << 1)]

        with m.FSM():
            with m.State("wake"):
                m.d.sync += self.cs.eq(1)
                m.d.comb += self.copi.eq(_command(_WAKE, 8, bit))
                with m.If(bit_ends & (bit == 7)):
                    m.d.sync += [self.cs.eq(0), wait.eq(self.wake_cycles)]
                    m.next = "wait"
            with m.State("wait"):
                m.d.sync += [wait.eq(wait - 1), bit.eq(0)]
                with m.If(wait == 1):
                    m.d.sync += self.cs.eq(1)
                    m.next = "command"
            with m.State("command"):
                m.d.comb += [self.copi.eq(_command(_READ << 24 | self.offset, _COMMAND_BITS, bit)), crc.start.eq(1)]
                with m.If(bit_ends & (bit == _COMMAND_BITS - 1)):
                    m.next = "read"
            with m.State("read"):
                m.d.comb += crc.valid.eq(bit_ends)
                with m.If(bit_ends & (bit[:4] == SPRAM_BITS - 1)):
                    m.d.sync += write.eq(1)
                    with m.If(last_word & block[-1]):
                        m.d.sync += self.cs.eq(0)
                        m.next = "check"
            with m.State("check"):
                m.d.sync += [self.done.eq(crc.crc == self.crc), self.failed.eq(crc.crc != self.crc)]
                m.next = "end"
            with m.State("end"):
                pass
        return m

    def _last_address(self, block: Signal) -> Value:
        """Return the address of the last word of the present block."""
        last: Value = Const(self.lengths[-1] - 1)
        for number, length in enumerate(self.lengths[:-1]):
            if length != self.lengths[-1]:
                last = Mux(block[number], length - 1, last)
        return last


def _command(word: int, bits: int, bit: Signal) -> Value:
    """Return bit number ``bit`` of a command, most significant first."""
    return Const(int(f"{word:0{bits}b}"[::-1], 2), bits).bit_select(bit, 1)
