"""UART receiver and transmitter: loopback, baud tolerance, back-pressure, line errors."""

from __future__ import annotations

import random

import cocotb
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from drivers import STALLS, StreamSink, StreamSource, start
from simulate import run_component
from zeroskip.hw.host.uart import MIN_DIVISOR, UartReceiver, UartTransmitter, divisor_for

EXTREMES = [0x00, 0xFF, 0x55, 0xAA, 0x80, 0x01]


class Loopback(wiring.Component):
    """A transmitter wired to a receiver; the line is inverted while ``disturb`` is high."""

    def __init__(self, transmit_divisor: int, receive_divisor: int) -> None:
        self.transmitter = UartTransmitter(transmit_divisor)
        self.receiver = UartReceiver(receive_divisor)
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "o": Out(stream.Signature(8)),
                "disturb": In(1),
                "overrun": Out(1),
                "framing": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.transmitter = self.transmitter
        m.submodules.receiver = self.receiver
        wiring.connect(m, wiring.flipped(self.i), self.transmitter.i)
        wiring.connect(m, self.receiver.o, wiring.flipped(self.o))
        m.d.comb += [
            self.receiver.rx.eq(self.transmitter.tx ^ self.disturb),
            self.overrun.eq(self.receiver.overrun),
            self.framing.eq(self.receiver.framing),
        ]
        return m


def random_bytes(count: int, seed: int) -> list[int]:
    """Return the extreme bytes followed by random ones."""
    generator = random.Random(seed)
    return EXTREMES + [generator.randrange(256) for _ in range(count)]


def received(transmit_divisor: int, receive_divisor: int, data: list[int]) -> list[int]:
    """Send ``data`` without a pause and return what arrives."""
    dut = Loopback(transmit_divisor, receive_divisor)
    words: list[int] = []

    async def send(ctx) -> None:
        for word in data:
            ctx.set(dut.i.payload, word)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(12 * transmit_divisor)

    async def receive(ctx) -> None:
        ctx.set(dut.o.ready, 1)
        async for _, _, valid, payload in ctx.tick().sample(dut.o.valid, dut.o.payload):
            if valid:
                words.append(payload)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(receive, background=True)
    simulator.run()
    return words


@pytest.mark.parametrize("divisor", [MIN_DIVISOR, 9, 16, 27])
def test_loopback(divisor):
    data = random_bytes(8, seed=divisor)
    assert received(divisor, divisor, data) == data


@pytest.mark.parametrize(("transmit", "receive"), [(50, 51), (51, 50), (49, 50), (50, 49)])
def test_loopback_tolerates_two_percent(transmit, receive):
    data = random_bytes(6, seed=transmit)
    assert received(transmit, receive, data) == data


def test_loopback_at_ten_percent_differs():
    data = random_bytes(6, seed=1)
    assert received(50, 55, data) != data


def test_frame_is_8n1():
    """A byte takes ten bits: start low, eight data bits from the lowest, stop high; the next follows at once."""
    dut = UartTransmitter(MIN_DIVISOR)
    levels: list[int] = []

    async def bench(ctx) -> None:
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload, 0b10110001)
        await ctx.tick()
        ctx.set(dut.i.payload, 0x00)
        for _ in range(20):
            await ctx.tick().repeat(MIN_DIVISOR // 2)
            levels.append(ctx.get(dut.tx))
            await ctx.tick().repeat(MIN_DIVISOR - MIN_DIVISOR // 2)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert levels == [0, 1, 0, 0, 0, 1, 1, 0, 1, 1] + [0] * 9 + [1]


def receiver_events(line: list[int], divisor: int = MIN_DIVISOR, ready: bool = True) -> dict[str, list[int]]:
    """Drive the levels of ``line``, one bit each, and return the bytes and the flags' counts."""
    dut = UartReceiver(divisor)
    events: dict[str, list[int]] = {"bytes": [], "overrun": [], "framing": []}

    async def drive(ctx) -> None:
        ctx.set(dut.o.ready, int(ready))
        for level in [1, *line, 1, 1]:
            ctx.set(dut.rx, level)
            await ctx.tick().repeat(divisor)

    async def watch(ctx) -> None:
        ports = (dut.o.valid & dut.o.ready, dut.o.payload, dut.overrun, dut.framing)
        async for _, _, accepted, payload, overrun, framing in ctx.tick().sample(*ports):
            events["bytes"] += [payload] if accepted else []
            events["overrun"] += [1] if overrun else []
            events["framing"] += [1] if framing else []

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    return events


def frame(byte: int, stop: int = 1) -> list[int]:
    """Return the line levels of one frame."""
    return [0, *(byte >> bit & 1 for bit in range(8)), stop]


def test_receiver_reports_overrun():
    events = receiver_events(frame(0x12) + frame(0x34) + frame(0x56), ready=False)
    assert events == {"bytes": [], "overrun": [1, 1], "framing": []}


def test_receiver_drops_frame_without_stop_bit():
    events = receiver_events(frame(0x12, stop=0) + [0] * 20 + [1] + frame(0x34))
    assert events == {"bytes": [0x34], "overrun": [], "framing": [1]}


def test_receiver_ignores_short_start_bit():
    dut_divisor = 32
    glitch = UartReceiver(dut_divisor)
    seen: list[int] = []

    async def bench(ctx) -> None:
        ctx.set(glitch.o.ready, 1)
        ctx.set(glitch.rx, 0)
        await ctx.tick().repeat(dut_divisor // 4)
        ctx.set(glitch.rx, 1)
        for _ in range(12 * dut_divisor):
            _, _, valid, framing = await ctx.tick().sample(glitch.o.valid, glitch.framing)
            seen.append(valid | framing)

    simulator = Simulator(glitch)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert not any(seen)


@cocotb.test()
@cocotb.parametrize(gaps=list(STALLS), pauses=["none", "random"])
async def loopback_with_stalls(dut, gaps: str, pauses: str) -> None:
    """Every byte arrives once and in order, with gaps at the sender and pauses below a frame at the receiver."""
    data = random_bytes(40, seed=7)
    await start(dut)
    dut.disturb.value = 0
    source = StreamSource(dut, "i", STALLS[gaps]())
    sink = StreamSink(dut, "o", STALLS[pauses]())
    sending = cocotb.start_soon(source.send(data))
    assert await sink.receive(len(data)) == data
    await sending


def test_loopback_with_stalls():
    run_component(Loopback(MIN_DIVISOR, MIN_DIVISOR), __file__, ["loopback_with_stalls"])


def test_divisor_for_nearest():
    assert divisor_for(25_000_000, 115_200) == 217
    assert divisor_for(12_000_000, 1_000_000) == 12


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: UartReceiver(7), ValueError, "Divisor must be at least 8 cycles a bit, not 7"),
        (lambda: UartTransmitter(0), ValueError, "Divisor must be at least 8 cycles a bit, not 0"),
        (lambda: UartReceiver(8.5), TypeError, "Divisor must be an integer, not 8.5"),
        (
            lambda: divisor_for(1e6, 1e6),
            ValueError,
            r"Clock must be at least 8 times the baud rate 1e\+06, not 1e\+06 Hz",
        ),
        (
            lambda: divisor_for(8.4e6, 1e6),
            ValueError,
            r"Divisor 8 has baud rate 1050000, but 1e\+06 is asked for: 5.0% apart",
        ),
    ],
)
def test_bad_settings(call, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        call()
