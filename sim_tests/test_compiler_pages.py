"""Pages of parameters from outside: what each holds, the image, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import designs
import models
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.emit import load_program
from zeroskip.compiler.errors import CapacityError, CompileError, InputError, VerificationError
from zeroskip.compiler.formats import layer_formats
from zeroskip.compiler.geometry import choose_program
from zeroskip.compiler.ir import Tensor
from zeroskip.compiler.lower import lower
from zeroskip.compiler.pages import image_bytes, page_image, page_parameters, paged_kinds, parse_image
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.program import FlashRead, Program
from zeroskip.compiler.resources import DEFAULT_LIMITS, Limits, program_blocks
from zeroskip.compiler.synthetic import conv, linear
from zeroskip.compiler.target import Engine, Geometry
from zeroskip.hw.design import parse_settings

FLASH = FlashRead(0x6B, 1 << 20, 16)


def paged(model, geometry: Geometry, engine: Engine, least_words: int = 16, flash: FlashRead | None = FLASH) -> Program:
    model, _ = run_passes(model)
    return page_parameters(lower(model, geometry, layer_formats(model, engine)), flash, least_words)


def check_pages(program: Program) -> None:
    """Every group once and in order, every word once, no more than half of a buffer a page with the word it shares."""
    assert program.paging is not None
    walked = [
        (layer, first + n) for page in program.paging.pages for layer, first, count in page.parts for n in range(count)
    ]
    groups = [(layer, n) for layer, plan in enumerate(program.layers) for n in range(len(plan.schedule.lengths))]
    assert walked == groups
    counts = [(page.weight_words, page.index_words) for page in program.paging.pages]
    for kind, roms in enumerate(paged_kinds(program)):
        for rom in roms:
            assert sum(count[kind] for count in counts) == rom.depth
            assert rom.buffer & (rom.buffer - 1) == 0 and rom.buffer >= program.paging.least_words
            assert max(count[kind] for count in counts) < rom.buffer // 2 + 1
    assert all(sum(count) > 0 for count in counts)
    for page in program.paging.pages:
        for layer, first, count in page.parts:
            if program.layers[layer].front["row_shared"]:
                assert (first, count) == (0, len(program.layers[layer].schedule.lengths))


@settings(max_examples=25)
@given(st.integers(0, 1 << 16), st.sampled_from([4, 8]), st.booleans(), st.sampled_from([4, 16, 64, 512]))
def test_pages_hold_everything_once_and_the_image_comes_back(seed, lanes, dense, least_words):
    rng = np.random.default_rng(seed)
    model = models.random_model(rng, structure="dense" if dense else "nonstructured", samples=1)
    geometry = Geometry(lanes, columns=1 + seed % 3) if dense else Geometry(lanes, cores=1 + seed % 3)
    program = paged(model, geometry, Engine.DENSE if dense else Engine.SPARSE, least_words)
    check_pages(program)
    image = page_image(program)
    assert len(image) == image_bytes(program) and image == page_image(program)
    assert {name: tuple(words) for name, words in parse_image(program, image).items()} == {
        rom.name: rom.words for roms in paged_kinds(program) for rom in roms
    }


def test_one_wrong_bit_of_the_image_names_page_and_layer():
    program = paged(models.digits_like("nonstructured"), Geometry(4, cores=2), Engine.SPARSE)
    image = bytearray(page_image(program))
    image[-1] ^= 1
    number = len(program.paging.pages) - 1
    text = (
        rf"^Page {number} of the parameter image \(layer 'fc2'\) has CRC \w+, but its content has \w+; compile again$"
    )
    with pytest.raises(VerificationError, match=text):
        parse_image(program, bytes(image))
    with pytest.raises(
        VerificationError, match=rf"^Parameter image must have {len(image)} bytes, not 3; compile again$"
    ):
        parse_image(program, b"abc")


def test_buffers_take_the_place_of_the_roms():
    model = models.lenet5_like("dense", samples=1)
    geometry = Geometry(8, columns=2)
    program = paged(model, geometry, Engine.DENSE, 512)
    on_chip = lower(run_passes(model)[0], geometry, {})
    shapes = DEFAULT_LIMITS.block_shapes
    assert program_blocks(on_chip, shapes) > DEFAULT_LIMITS.blocks >= program_blocks(program, shapes)
    assert [rom.buffer for rom in program.roms if rom.style == "paged"] == [512, 512]
    # the same words at the same addresses
    assert [rom.words for rom in program.roms if rom.style == "paged"] == [
        rom.words for rom in on_chip.roms if rom.format == "weights"
    ]
    cycles, least = program_cycles(program), program_cycles(on_chip)
    assert cycles.interval >= max(4 * image_bytes(program), least.interval)
    for slow, fast in zip(cycles.layers, least.layers, strict=True):
        assert sum(slow.slots.values()) == slow.cycles * slow.lanes
        assert {**slow.slots, "stall": 0} == {**fast.slots, "stall": 0}


def test_faster_links_take_no_more_cycles():
    model = models.digits_like("nonstructured")
    intervals = [
        program_cycles(
            paged(model, Geometry(4, cores=2), Engine.SPARSE, flash=replace(FLASH, command=command))
        ).interval
        for command in (0x0B, 0x03, 0x6B, 0xEB)
    ]
    assert intervals == sorted(intervals, reverse=True) and intervals[0] > 2 * intervals[-1]


def test_folder_is_proved_and_repeatable(tmp_path):
    model = models.tiny("asymmetric_padding")
    for copy in ("a", "b"):
        (tmp_path / copy).mkdir()
        designs.write_design(model, tmp_path / copy, "dense", 4, columns=2, parameters="flash", flash_command="0xEB")
    files = [
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1]
    program = load_program(tmp_path / "a" / "design")
    assert program.paging is not None and program.paging.flash == FlashRead(0xEB, 1 << 20, 1250)
    image = tmp_path / "a" / "design" / "rom" / "parameters.bin"
    assert image.read_bytes() == page_image(program)
    image.write_bytes(image.read_bytes()[:-1] + b"?")
    with pytest.raises(VerificationError, match=r"^Page 0 of the parameter image \(layer 'conv1', 'fc1'\) has CRC"):
        load_program(tmp_path / "a" / "design")


def test_bitmaps_are_refused():
    model, _ = run_passes(models.digits_like("nonstructured"))
    program = lower(model, Geometry(4), layer_formats(model, Engine.SPARSE, bitmap=True))
    text = (
        "Layer 'conv1' is a bitmap, whose mask words are read ahead of the page they come with; leave out "
        "--set bitmap=1, or keep the parameters on the chip (--set parameters=rom)"
    )
    with pytest.raises(CompileError, match=f"^{re.escape(text)}$"):
        page_parameters(program, None, 16)


def test_clashing_settings_are_refused():
    with pytest.raises(InputError, match="^Setting 'parameters' must be one of rom, flash, host, not 'sram'$"):
        parse_settings({"parameters": "sram"})
    with pytest.raises(InputError, match="^Setting 'flash_command' needs 'parameters=flash'; add --set parameters=fl"):
        parse_settings({"flash_command": "0x6B", "parameters": "host"})
    assert parse_settings({"flash_command": "0x6b", "parameters": "flash"}) == {
        "flash_command": 0x6B,
        "parameters": "flash",
    }
    model, _ = run_passes(models.tiny("asymmetric_padding"))
    with pytest.raises(CompileError, match="^Setting 'flash_command' must be one of 0x03, 0x0B, 0x6B, 0xEB on an"):
        choose_program(model, Engine.DENSE, DEFAULT_LIMITS, lanes=4, parameters="flash", flash_command=0x3B)
    bare = replace(DEFAULT_LIMITS, name="a bare device", flash=None)
    text = (
        "Setting 'parameters=flash' needs a flash that a running design can read, but a bare device has none; name "
        "a board that has with --board, such as icebreaker, or have the host push them: leave out --board, --set "
        "parameters=host, and connect the accelerator's streams in a top level of your own"
    )
    with pytest.raises(CapacityError, match=f"^{text}$"):
        choose_program(model, Engine.DENSE, bare, lanes=4, parameters="flash")
    for flash, remedy in (
        (DEFAULT_LIMITS.flash, "use --set parameters=flash, or have the host"),
        (None, "have the host"),
    ):
        link = replace(bare, flash=flash, can_wait=False)
        with pytest.raises(
            CapacityError, match=f"that of a bare device is a UART; {remedy} push them: leave out --board"
        ):
            choose_program(model, Engine.DENSE, link, lanes=4, parameters="host")
    with pytest.raises(
        CapacityError, match=r"^Setting 'spram' keeps weights and indices on the chip, but parameters=host"
    ):
        choose_program(model, Engine.DENSE, replace(bare, spram=4), lanes=4, parameters="host", spram=1)
    late = replace(DEFAULT_LIMITS, flash=FlashRead(0x6B, (1 << 24) - 100, 16))
    text = (
        r"^Parameters of network 'tiny-asymmetric_padding' take \d+ bytes with 4 lanes x 2 columns, but the flash of "
        r"an ECP5-25F has 100 from address 16777116 on; prune further or store fewer bits a weight$"
    )
    with pytest.raises(CapacityError, match=text):
        choose_program(model, Engine.DENSE, late, lanes=4, parameters="flash")


def wide_maps():
    source = Tensor("input", (3, 64, 64))
    specs = [conv(16, 3, padding=1), conv(8, 3, padding=1, stride=2), linear(10, relu=False, out_signed=True)]
    model = models.build_model(np.random.default_rng(1), source, specs, name="wide", samples=1)
    return run_passes(model)[0]


REMEDY = (
    r"Only weights and indices can come from outside: take a smaller input, fewer channels in its first layers, or a "
    r"larger board"
)


@pytest.mark.parametrize("parameters", ["rom", "flash"])
def test_activations_that_fit_no_geometry_are_refused_without_a_search(parameters, monkeypatch):
    monkeypatch.setattr("zeroskip.compiler.geometry.layer_costs", lambda *_: pytest.fail("searched"))
    small = Limits("a small device", 8, 20, DEFAULT_LIMITS.block_shapes, flash=FLASH)
    needed = (3 + 16) * 64 * 64
    text = (
        f"^Activations of network 'wide' need at least {needed} bytes on the chip, for input and output of layer "
        rf"'conv1', but a small device has 40960 bytes \(20 block RAMs\). {REMEDY}. For reference outputs, simulation "
        "and cycles alone fix the geometry, such as --set lanes=16 --set cores=4$"
    )
    with pytest.raises(CapacityError, match=text):
        choose_program(wide_maps(), Engine.DENSE, small, parameters=parameters)


def test_activations_that_do_not_fit_in_their_banks_are_counted():
    # as many bytes as the first layer has, and none for the banks' last words
    small = Limits("a small device", 8, 38, DEFAULT_LIMITS.block_shapes, flash=FLASH)
    text = (
        r"^Activations of network 'wide' need (\d+) bytes on the chip \((\d+) block RAMs in \d+ banks\), but a small "
        rf"device has 77824 bytes \(38 block RAMs\); layer 'conv\d' alone needs (\d+) bytes for its input and "
        rf"output. {REMEDY}$"
    )
    with pytest.raises(CapacityError, match=text) as error:
        choose_program(wide_maps(), Engine.DENSE, small, parameters="flash")
    needed, blocks, layer = map(int, re.match(text, str(error.value)).groups())
    assert needed >= layer >= 16 * 64 * 64 + 8 * 32 * 32 and blocks > 38


def test_search_finds_an_array_whose_parameters_are_outside():
    source = Tensor("input", (1, 12, 12))
    specs = [conv(4, 3), linear(256), linear(10, relu=False, out_signed=True)]
    model, _ = run_passes(models.build_model(np.random.default_rng(1), source, specs, name="wide", samples=1))
    small = Limits("a small device", 8, 16, DEFAULT_LIMITS.block_shapes, flash=FLASH)
    # the weights have room, but not in the ROMs of any array
    tight = replace(small, blocks=24)
    for limits, remedy in (
        (tight, ", read them from the flash (--set parameters=flash)"),
        (replace(tight, flash=None), ""),
    ):
        text = f"; prune further, use fewer weight bits{remedy} or name a larger board"
        with pytest.raises(CapacityError, match=f"^Network 'wide' needs at least .*{re.escape(text)}$"):
            choose_program(model, Engine.DENSE, limits)
    for parameters in ("flash", "host"):
        choice = choose_program(model, Engine.DENSE, small, parameters=parameters)
        assert program_blocks(choice.program, small.block_shapes) <= small.blocks
        assert any(reason.startswith(f"from the {parameters}: ") for reason in choice.reasons)
