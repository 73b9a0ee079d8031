"""A design that reads its parameters from the board's flash, from the compiler to the mapped netlist."""

from __future__ import annotations

import dataclasses

import pytest

import models
from zeroskip.api import board_limits
from zeroskip.boards import find_board
from zeroskip.boards.netlist_check import netlist_check
from zeroskip.boards.rom_images import parameter_image
from zeroskip.boards.synthesis import synthesize
from zeroskip.boards.tools import find_tool
from zeroskip.compiler.errors import CapacityError, CompileError, ToolError, VerificationError
from zeroskip.compiler.pages import page_image
from zeroskip.hw.design import compile_artifact

ICE40, ECP5, GOWIN = find_board("icebreaker"), find_board("ulx3s-25f"), find_board("tangnano9k")
SETTINGS = {"lanes": "4", "index_bits": "4", "parameters": "flash", "flash_command": "0x0B"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A small network; read only."""
    path = tmp_path_factory.mktemp("pages") / "model.safetensors"
    return models.write_artifact(models.digits_like("nonstructured"), path)


def compile_for(board, artifact, out):
    limits = board_limits(board)
    return compile_artifact(artifact, out, engine="sparse", limits=limits, settings=SETTINGS).program


@pytest.fixture(scope="module")
def compiled(artifact, tmp_path_factory):
    """The network for the iCEBreaker's flash; read only."""
    out = tmp_path_factory.mktemp("icebreaker") / "design"
    return artifact, out, compile_for(ICE40, artifact, out)


def test_boards_are_checked(compiled):
    artifact, directory, program = compiled
    assert parameter_image(directory, ICE40) == page_image(program)
    text = "reads a flash that is not that of board 'ulx3s-25f'; compile again with --board ulx3s-25f$"
    with pytest.raises(CapacityError, match=text):
        parameter_image(directory, ECP5)
    moved = dataclasses.replace(ICE40, flash=dataclasses.replace(ICE40.flash, offset=1 << 21))
    with pytest.raises(CapacityError, match="that is not that of board 'icebreaker'"):
        parameter_image(directory, moved)
    out = directory.parent / "refused"
    with pytest.raises(
        CapacityError, match="^Setting 'parameters=flash' needs a flash .* but board 'tangnano9k' has none;"
    ):
        compile_artifact(artifact, out, limits=board_limits(GOWIN), settings=SETTINGS)
    with pytest.raises(CompileError, match="must be one of 0x03, 0x0B on board 'icebreaker', not 0xEB$"):
        compile_artifact(artifact, out, limits=board_limits(ICE40), settings={**SETTINGS, "flash_command": "0xEB"})
    with pytest.raises(CompileError, match="must be one of 0x0B, 0x03 on board 'ulx3s-25f', not 0x6B$"):
        compile_artifact(artifact, out, limits=board_limits(ECP5), settings={**SETTINGS, "flash_command": "0x6B"})
    host = {"lanes": "4", "parameters": "host"}
    with pytest.raises(
        CapacityError, match="needs a link that can hold the host back, but that of board 'icebreaker' is"
    ):
        compile_artifact(artifact, out, limits=board_limits(ICE40), settings=host)
    compile_artifact(artifact, out, settings=host)
    with pytest.raises(
        CapacityError, match="takes its parameters from the host, but the UART of board 'icebreaker' can"
    ):
        parameter_image(out, ICE40)


@pytest.mark.slow
@pytest.mark.parametrize("board", [ICE40, ECP5], ids=lambda board: board.name)
def test_netlist_reads_the_flash_and_computes(board, artifact, tmp_path):
    try:
        for name in ("yosys", "verilator", board.family.router, board.family.packer):
            find_tool(name)
    except ToolError as error:
        pytest.skip(str(error))
    directory = tmp_path / "design"
    program = compile_for(board, artifact, directory)
    result = synthesize(directory, board)
    assert result.check.mismatches == 0 and result.check.values > 0
    assert result.flash_image.read_bytes() == page_image(program)
    assert "flash image (read during every inference): " in str(result)
    assert f"program it with: {' '.join(board.flash.programmer)} FILE" in str(result)
    nothing = r"^Mapped netlist gave 0 values, but \d+ are expected"
    if board.family.flash_clock is not None:
        # the handover of the clock may swallow the wake-up command, so configuration must leave the flash awake
        asleep = dataclasses.replace(board, flash=dataclasses.replace(board.flash, sleeps=True))
        with pytest.raises(VerificationError, match=nothing):
            netlist_check(directory, asleep)
    data = bytearray(result.flash_image.read_bytes())
    data[len(data) // 2] ^= 16
    result.flash_image.write_bytes(bytes(data))
    with pytest.raises(VerificationError, match=nothing):
        netlist_check(directory, board)
