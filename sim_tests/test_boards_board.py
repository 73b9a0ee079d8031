"""Boards are found by name and state what their device holds."""

from __future__ import annotations

import gc

import pytest

from zeroskip.boards import BOARDS, find_board
from zeroskip.boards.rom_images import BootImage
from zeroskip.boards.top import PowerOnReset, plan_top
from zeroskip.compiler.errors import InputError


def test_every_board_states_its_device():
    assert list(BOARDS) == ["icebreaker", "tangnano9k", "ulx3s-25f", "ulx3s-85f"]
    small, large = find_board("ulx3s-25f"), find_board("ulx3s-85f")
    assert small.available == {"lut": 24288, "ff": 24288, "bram": 56, "dsp": 28}
    assert large.available == {"lut": 83640, "ff": 83640, "bram": 208, "dsp": 156}
    assert small.device == {"family": "ecp5", "part": "LFE5U-25F-6BG381C", "package": "CABGA381", "speed": "6"}
    assert find_board("icebreaker").available == {"lut": 5280, "ff": 5280, "bram": 30, "dsp": 8, "spram": 4}
    assert find_board("tangnano9k").available == {"lut": 8640, "ff": 6480, "bram": 26, "dsp": 20}
    for board in BOARDS.values():
        assert all(depth * width <= board.bram_bits for depth, width in board.family.block_shapes)
        assert max(depth * width for depth, width in board.family.block_shapes) == board.bram_bits


def test_unknown_board_names_the_nearest():
    with pytest.raises(
        InputError, match="^Board must be a known one, not 'ulx3s'; the nearest names are ulx3s-85f, ulx3s-25f$"
    ):
        find_board("ulx3s")
    with pytest.raises(
        InputError,
        match="^Board must be a known one, not 'zzz'; the boards are icebreaker, tangnano9k, ulx3s-25f, ulx3s-85f$",
    ):
        find_board("zzz")


@pytest.mark.parametrize("name", list(BOARDS))
def test_top_is_planned_without_frequencies_and_always_the_same(name):
    board = find_board(name)
    plan = plan_top(board)
    assert plan == plan_top(board)
    assert "FREQUENCY" not in plan.pins and "set_frequency" not in plan.pins and "//" not in plan.pins
    for port in (plan.clock, plan.rx, plan.tx, plan.button):
        assert port in plan.pins
    assert "cell \\accelerator \\accelerator" in plan.rtlil
    assert " \\src " not in plan.rtlil
    assert plan.divisor == round(board.clock_mhz)
    # The block RAM of iCE40 is not readable for some microseconds after configuration.
    assert plan.reset_cycles >= board.family.reset_us * board.clock_mhz


def test_board_with_spram_boots_from_its_flash():
    board = find_board("icebreaker")
    image = BootImage((3, 2), bytes(range(10)))
    plan, plain = plan_top(board, image=image), plan_top(board)
    assert plan.reset_cycles - plain.reset_cycles == 1 + 2 * (8 + 32 + 80) + 600 + 2
    assert plain.flash is None and set(plan.flash) == {"cs", "clk", "copi", "cipo"}
    for name, pin in {"cs": 16, "clk": 15, "copi": 14, "cipo": 17}.items():
        assert f"set_io {plan.flash[name]} {pin}\n" in plan.pins
    assert "led_g" in plan.pins and "led_r" in plan.pins and "led" not in plain.pins
    assert "connect \\boot__en" in plan.rtlil and "boot" not in plain.rtlil
    for other in BOARDS.values():
        assert bool(other.spram) == bool(other.family.spram) <= (other.flash is not None)


@pytest.mark.parametrize("name", ["ulx3s-25f", "ulx3s-85f"])
def test_flash_clock_of_an_ecp5_has_a_cell_instead_of_a_pin(name):
    board = find_board(name)
    plan, plain = plan_top(board, paged=True), plan_top(board)
    assert "USRMCLK" not in plain.rtlil and plain.flash is None
    assert plan.flash["clk"] == "MCLK" and "MCLK" not in plan.pins
    for line, pin in {"cs": "R2", "copi": "W2", "cipo": "V2"}.items():
        assert f'LOCATE COMP "{plan.flash[line]}" SITE "{pin}";' in plan.pins
    cell = plan.rtlil.split("cell \\USRMCLK ")[1].split("end\n")[0]
    assert "connect \\USRMCLKI " in cell and "connect \\USRMCLKTS \\rst " in cell
    assert "led_0" in plan.pins and "led_1" in plan.pins
    # behind a boot loader at 0 and what it starts at 2 MiB; the 85F's bitstream has 1.9 MB
    assert board.flash.offset >= (2 << 20) + 2_000_000


def test_link_too_fast_for_the_clock():
    with pytest.raises(
        InputError, match="^Board 'icebreaker' cannot run its link at 2000000 baud: Clock must be at least 8 times"
    ):
        plan_top(find_board("icebreaker"), 2_000_000)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_reset_is_held_after_power_on_and_after_the_button():
    from amaranth.hdl import ClockDomain, Elaboratable, Module
    from amaranth.sim import Simulator

    class Bench(Elaboratable):
        def __init__(self):
            self.reset = PowerOnReset(10)

        def elaborate(self, platform):
            m = Module()
            m.domains.por = ClockDomain(reset_less=True)
            m.submodules.reset = self.reset
            return m

    bench = Bench()
    levels = []

    async def watch(ctx):
        for cycle in range(60):
            ctx.set(bench.reset.button, 30 <= cycle < 33)
            levels.append(ctx.get(bench.reset.rst))
            await ctx.tick("por")

    simulator = Simulator(bench)
    simulator.add_clock(1e-6, domain="por")
    simulator.add_testbench(watch)
    simulator.run()
    # Ten cycles of count and one to leave; the button acts two synchronizer stages and one register later.
    assert levels == [1] * 11 + [0] * 22 + [1] * 13 + [0] * 14

    with pytest.raises(ValueError, match="^Reset must last at least one cycle, not 0$"):
        PowerOnReset(0)
    gc.collect()
