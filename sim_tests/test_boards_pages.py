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

ICE40, ECP5 = find_board("icebreaker"), find_board("ulx3s-25f")
SETTINGS = {"lanes": "4", "index_bits": "4", "parameters": "flash", "flash_command": "0x0B"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A small network for the iCEBreaker's flash; read only."""
    folder = tmp_path_factory.mktemp("pages")
    artifact = models.write_artifact(models.digits_like("nonstructured"), folder / "model.safetensors")
    limits = board_limits(ICE40)
    choice = compile_artifact(artifact, folder / "design", engine="sparse", limits=limits, settings=SETTINGS)
    return artifact, folder / "design", choice.program


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
        CapacityError, match="^Setting 'parameters=flash' needs a flash .* but board 'ulx3s-25f' has none;"
    ):
        compile_artifact(artifact, out, limits=board_limits(ECP5), settings=SETTINGS)
    with pytest.raises(CompileError, match="must be one of 0x03, 0x0B on board 'icebreaker', not 0xEB$"):
        compile_artifact(artifact, out, limits=board_limits(ICE40), settings={**SETTINGS, "flash_command": "0xEB"})
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
def test_netlist_reads_the_flash_and_computes(compiled):
    _, directory, program = compiled
    try:
        for name in ("yosys", "verilator", "nextpnr-ice40", "icepack"):
            find_tool(name)
    except ToolError as error:
        pytest.skip(str(error))
    result = synthesize(directory, ICE40)
    assert result.check.mismatches == 0 and result.check.values > 0
    assert result.flash_image.read_bytes() == page_image(program)
    assert "flash image (read during every inference): " in str(result)
    assert "program it with: iceprog -o 1M FILE" in str(result)
    data = bytearray(result.flash_image.read_bytes())
    data[len(data) // 2] ^= 16
    result.flash_image.write_bytes(bytes(data))
    with pytest.raises(VerificationError, match=r"^Mapped netlist gave 0 values, but \d+ are expected"):
        netlist_check(directory, ICE40)
