"""A design whose parameters lie in SPRAM, from the compiler to the mapped netlist that boots from its flash."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

import models
from zeroskip.api import board_limits
from zeroskip.boards import find_board
from zeroskip.boards.capacity import mapped_needs, refuse_misplaced_roms, refuse_overflow
from zeroskip.boards.netlist_check import netlist_check
from zeroskip.boards.synthesis import synthesize
from zeroskip.boards.tools import find_tool
from zeroskip.compiler.errors import CapacityError, InputError, ToolError, VerificationError
from zeroskip.hw.design import compile_artifact

ICE40 = find_board("icebreaker")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small network with two images in SPRAM, one of them in two blocks; read only."""
    try:
        for name in ("yosys", "verilator", "nextpnr-ice40", "icepack"):
            find_tool(name)
    except ToolError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("boot")
    artifact = models.write_artifact(models.tiny("weights_symmetric_6"), folder / "model.safetensors")
    settings = {"lanes": "4", "index_bits": "4", "spram": "1"}
    compile_artifact(artifact, folder / "design", engine="sparse", limits=board_limits(ICE40), settings=settings)
    return folder / "design", synthesize(folder / "design", ICE40, portable=True)


def test_netlist_boots_and_computes(built):
    directory, result = built
    assert result.check.mismatches == 0 and result.check.values > 0
    resources = result.to_report()["resources"]
    assert resources["spram"] == {"used": 3, "available": 4} and resources["primitives"] is False
    sizes = [json.loads((directory / "rom" / f"{name}.json").read_text())["depth"] for name in ("index_0", "weights_0")]
    size = result.flash_image.stat().st_size
    assert size == 2 * (sizes[0] + 2 * sizes[1])
    assert "SPRAMs 3 of 4" in str(result) and "program it with: iceprog -o 1M FILE" in str(result)
    # reset, the flash's wake-up, and two cycles a bit of commands and image
    assert result.boot_ms == pytest.approx((15 + 50 + 2 * (40 + 8 * size) / 12) / 1e3, rel=0.01)


@pytest.mark.parametrize("damage", ["one bit", "empty"])
def test_netlist_does_not_run_on_a_wrong_image(built, tmp_path, damage):
    directory = tmp_path / "copy"
    shutil.copytree(built[0], directory)
    image = directory / "synth" / ICE40.name / "flash.bin"
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 16
    image.write_bytes(bytes(data) if damage == "one bit" else b"")
    with pytest.raises(VerificationError, match=r"^Mapped netlist gave 0 values, but \d+ are expected"):
        netlist_check(directory, ICE40)
    image.unlink()
    with pytest.raises(InputError, match=r"has no flash.bin to boot from; run zeroskip synth first$"):
        netlist_check(directory, ICE40)


def test_lost_and_surplus_blocks_are_refused(built):
    directory, result = built
    cells = json.loads((result.folder / "top.json").read_text())["modules"]["top"]["cells"]
    assert mapped_needs(ICE40, cells)["spram"] == 3
    small = dataclasses.replace(ICE40, spram=2)
    with pytest.raises(
        CapacityError,
        match="^Design needs 3 SPRAMs, but board 'icebreaker' holds 2 SPRAMs; prune further, store fewer bits a "
        "weight, or choose a larger board$",
    ):
        refuse_overflow(small, cells)
    refuse_misplaced_roms(directory, ICE40, cells)
    name = next(name for name, cell in cells.items() if cell["type"] == "SB_SPRAM256KA" and "weights_0" in name)
    del cells[name]
    with pytest.raises(
        VerificationError,
        match=r"^ROM 'weights_0' is planned for 2 SPRAMs, but its instance 'accelerator.*' has 1; compile again, and "
        "leave its module as it was written$",
    ):
        refuse_misplaced_roms(directory, ICE40, cells)


def test_board_without_spram_refuses_the_folder(built):
    with pytest.raises(CapacityError, match=r"into 3 SPRAMs, but board 'ulx3s-25f' has 0; compile again with --board"):
        synthesize(built[0], find_board("ulx3s-25f"))
