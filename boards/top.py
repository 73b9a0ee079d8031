"""The top level of a board: UART, reset, boot and the accelerator between its pins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import (
    Cat,
    ClockDomain,
    ClockSignal,
    Const,
    DomainRenamer,
    Instance,
    Module,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.lib import io, stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from zeroskip.boards.board import Board, Flash
from zeroskip.boards.rom_images import BootImage
from zeroskip.compiler.errors import InputError
from zeroskip.hw.boot import FlashBoot
from zeroskip.hw.host.uart import UartReceiver, UartTransmitter, divisor_for
from zeroskip.hw.verilog import plain_names

__all__ = ["DEFAULT_BAUD", "BoardTop", "ByteSlot", "Plan", "PowerOnReset", "plan_top"]

DEFAULT_BAUD = 1_000_000
"""Bits a second of the host link."""


@dataclass(frozen=True)
class Plan:
    """The board top as files, and the names that a test bench needs.

    Parameters
    ----------
    rtlil : str
        The top level without the accelerator, for Yosys.
    pins : str
        Pin constraints for place and route, without frequencies.
    clock, rx, tx, button : str
        Ports of the top level.
    button_active : int
        Level of the ``button`` port while it is pressed.
    divisor : int, clock cycles a bit
    reset_cycles : int
        Cycles from the release of the button to the end of reset, boot included.
    flash : Mapping[str, str] or None
        Ports to the flash that it reads: ``cs`` (low while selected), ``clk``, ``copi``, ``cipo``. Where the family has
        a ``flash_clock``, only the netlist check has a port ``clk``.
    """

    rtlil: str
    pins: str
    clock: str
    rx: str
    tx: str
    button: str
    button_active: int
    divisor: int
    reset_cycles: int
    flash: Mapping[str, str] | None = None


class PowerOnReset(wiring.Component):
    """Hold ``rst`` from configuration on, and after each press of a button, for a number of cycles.

    The button is synchronized. The domain is ``por``, which itself has no reset: its flip-flops start as configured.

    Parameters
    ----------
    cycles : int, at least 1

    Members
    -------
    button : In(1), asynchronous, high while pressed
    rst : Out(1), registered, high while in reset

    Raises
    ------
    ValueError
        If ``cycles`` is below 1.
    """

    SYNCHRONIZER_STAGES = 2

    def __init__(self, cycles: int) -> None:
        if cycles < 1:
            raise ValueError(f"Reset must last at least one cycle, not {cycles!r}")
        self.cycles = cycles
        super().__init__({"button": In(1), "rst": Out(1, init=1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pressed = Signal()
        timer = Signal(range(self.cycles + 1))
        m.submodules.synchronizer = FFSynchronizer(
            self.button, pressed, o_domain="por", stages=self.SYNCHRONIZER_STAGES
        )
        with m.If(pressed):
            m.d.por += [timer.eq(0), self.rst.eq(1)]
        with m.Elif(self.rst):
            m.d.por += [timer.eq(timer + 1), self.rst.eq(timer != self.cycles)]
        return m


class ByteSlot(wiring.Component):
    """Hold one byte between two streams, so that no path leads from one side to the other within a cycle.

    Latency 1 cycle, initiation interval 2: more than a serial line ever needs.

    Members
    -------
    i : In(stream.Signature(8))
    o : Out(stream.Signature(8))
    """

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.i.ready.eq(~self.o.valid)
        with m.If(self.o.valid):
            m.d.sync += self.o.valid.eq(~self.o.ready)
        with m.Else():
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        return m


class BoardTop(wiring.Component):
    """Connect the host's UART to the module ``accelerator``, and the clock and reset to both.

    With an image to boot, both stay in reset until it lies in SPRAM and its checksum is right. Lamps say how that
    ended; after a failure nothing answers, and the reset button boots again.

    Parameters
    ----------
    board : Board
    divisor : int, clock cycles a bit
    image : BootImage or None
    paged : bool, the accelerator reads its parameters from the flash; lamps say that it has begun, or found a wrong CRC
    """

    def __init__(self, board: Board, divisor: int, image: BootImage | None = None, paged: bool = False) -> None:
        self.board = board
        self.divisor = divisor
        self.reset_cycles = math.ceil(board.family.reset_us * board.clock_mhz) + 1
        self.paged = paged
        self.boot: FlashBoot | None = None
        self.boot_cycles = 0
        self.flash: dict[str, str] | None = None
        if image is not None and board.flash is not None:
            wake_cycles = math.ceil(board.flash.wake_us * board.clock_mhz)
            self.boot = FlashBoot(image.lengths, image.crc, board.flash.offset, wake_cycles)
            # and the register that ends the reset
            self.boot_cycles = self.boot.cycles + 1
        super().__init__({})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        clock = platform.request(self.board.clock, dir="-")
        button = platform.request(*self.board.reset_button, dir="-")
        uart = platform.request("uart", 0, dir="-")
        pins = {"clock": clock, "button": button, "rx": uart.rx, "tx": uart.tx}
        self.pins = {name: pin.io.name for name, pin in pins.items()}
        self.button_active = 0 if any(button.invert) else 1
        buffers = {name: io.Buffer("o" if name == "tx" else "i", pin) for name, pin in pins.items()}
        for name, buffer in buffers.items():
            m.submodules[f"{name}_buffer"] = buffer

        self._build_clock(m, platform, buffers["clock"].i, buffers["button"].i)
        m.submodules.receiver = receiver = UartReceiver(self.divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(self.divisor)
        m.submodules.received = received = ByteSlot()
        m.submodules.transmitted = transmitted = ByteSlot()
        wiring.connect(m, receiver.o, received.i)
        wiring.connect(m, transmitted.o, transmitter.i)
        m.d.comb += [receiver.rx.eq(buffers["rx"].i), buffers["tx"].o.eq(transmitter.tx)]
        boot = (
            {f"i_boot__{name}": getattr(self.boot.boot, name) for name in ("en", "addr", "data")} if self.boot else {}
        )
        m.submodules.accelerator = Instance(
            "accelerator",
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            i_i__payload=received.o.payload,
            i_i__valid=received.o.valid,
            o_i__ready=received.o.ready,
            o_o__payload=transmitted.i.payload,
            o_o__valid=transmitted.i.valid,
            i_o__ready=transmitted.i.ready,
            **boot,
            **(self._build_reader(m, platform) if self.paged else {}),
        )
        return m

    def _build_clock(self, m: Module, platform: Any, clk: Signal, button: Signal) -> None:
        """Make the domains ``por`` (clock only) and ``sync``, which boot holds in reset."""
        m.domains.por = ClockDomain(reset_less=True, local=True)
        m.domains.sync = ClockDomain()
        m.submodules.power_on_reset = power_on_reset = PowerOnReset(self.reset_cycles)
        m.d.comb += [
            ClockSignal("por").eq(clk),
            ClockSignal("sync").eq(clk),
            power_on_reset.button.eq(button),
            ResetSignal("sync").eq(self._build_boot(m, platform, self.boot, power_on_reset.rst)),
        ]

    def _build_boot(self, m: Module, platform: Any, boot: FlashBoot | None, reset: Value) -> Value:
        """Return the reset of everything else; without anything to boot it is ``reset``."""
        flash = self.board.flash
        if boot is None or flash is None:
            return reset
        m.domains.boot = ClockDomain()
        m.d.comb += [ClockSignal("boot").eq(ClockSignal("por")), ResetSignal("boot").eq(reset)]
        m.submodules.boot = DomainRenamer("boot")(boot)
        clock = (boot.sck, ResetSignal("boot"))
        self._build_flash(m, platform, flash, clock, (boot.cs, boot.copi, boot.cipo), (boot.done, boot.failed))
        held = Signal(init=1)
        m.d.boot += held.eq(~boot.done)
        return held

    def _build_reader(self, m: Module, platform: Any) -> dict[str, Value]:
        """Return the ports of the accelerator that reads the flash on one line."""
        if self.board.flash is None:
            raise ValueError(f"Board {self.board.name!r} must have a flash")
        cs, sck, primed, failed, cipo = Signal(), Signal(), Signal(), Signal(), Signal()
        lines = Signal(4)
        clock = (sck, ResetSignal())
        self._build_flash(m, platform, self.board.flash, clock, (cs, lines[0], cipo), (primed, failed))
        return {
            "o_flash__cs": cs,
            "o_flash__clk": sck,
            "o_flash__o": lines,
            "i_flash__i": Cat(Const(1, 1), cipo, Const(3, 2)),
            "o_pages__primed": primed,
            "o_pages__failed": failed,
        }

    def _build_flash(
        self,
        m: Module,
        platform: Any,
        flash: Flash,
        clock: tuple[Value, Value],
        lines: tuple[Value, Value, Value],
        states: tuple[Value, Value],
    ) -> None:
        """Connect the flash's clock (and what releases it), select, data out and in, and the two lamps."""
        pins = platform.request(*flash.resource, dir="-")
        cs, copi, cipo = lines
        # write protection and hold stay inactive
        levels = {"cs": cs, "copi": copi, "wp": Const(0), "hold": Const(0)}
        pad = self.board.family.flash_clock
        if pad is None:
            levels["clk"] = clock[0]
        else:
            inputs = {f"i_{pad.level}": clock[0], f"i_{pad.released}": clock[1]}
            m.submodules.flash_clock = Instance(pad.cell, **inputs)
        ports = {name: getattr(pins, name) for name in (*levels, "cipo")}
        self.flash = {name: ports[name].io.name for name in ("cs", "clk", "copi", "cipo") if name in ports}
        if pad is not None:
            self.flash["clk"] = pad.pad
        for led, level in zip((flash.done_led, flash.failed_led), states, strict=True):
            name = f"{led[0]}_{led[1]}"
            ports[name], levels[name] = platform.request(*led, dir="-"), level
        for name, port in ports.items():
            m.submodules[f"flash_{name}_buffer"] = buffer = io.Buffer("o" if name in levels else "i", port)
            m.d.comb += buffer.o.eq(levels[name]) if name in levels else cipo.eq(buffer.i)


def plan_top(board: Board, baud: int = DEFAULT_BAUD, image: BootImage | None = None, *, paged: bool = False) -> Plan:
    """Return the board top as files; the same arguments give the same text.

    ``image`` is what it boots from the board's flash; a ``paged`` design reads its parameters from there.

    Raises
    ------
    InputError
        If the board's clock cannot make that baud rate.
    """
    try:
        divisor = divisor_for(board.clock_mhz * 1e6, baud)
    except ValueError as error:
        raise InputError(f"Board {board.name!r} cannot run its link at {baud} baud: {error}") from error
    top = BoardTop(board, divisor, image, paged)
    files = board.platform().prepare(top, name="top").files
    suffix = board.family.constraint_suffix
    dropped = ("#", "//", *filter(None, [board.family.clock_constraint]))
    pins = [
        line.strip()
        for line in _text(files[f"top.{suffix}"]).splitlines()
        if line.strip() and not line.strip().startswith(dropped)
    ]
    # Source locations would make the bytes depend on where the package is installed.
    rtlil = [line for line in _text(files["top.il"]).splitlines() if not line.lstrip().startswith("attribute \\src ")]
    return Plan(
        rtlil=plain_names("\n".join(rtlil) + "\n"),
        pins="\n".join(pins) + "\n",
        button_active=top.button_active,
        divisor=divisor,
        reset_cycles=top.reset_cycles + top.boot_cycles + PowerOnReset.SYNCHRONIZER_STAGES + 2,
        flash=top.flash,
        **top.pins,
    )


def _text(content: str | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else content
