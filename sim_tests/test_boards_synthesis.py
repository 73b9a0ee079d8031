"""The flow from RTL to a checked bitstream, end to end on a small design, and everything that makes it refuse."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections import Counter

import numpy as np
import pytest

from board_sample import BYTES_OUT, GOOD, TRAP, UNRESET, UNWRITTEN, golden, weights, write_sample
from lane_sample import write_lanes
from zeroskip.boards import find_board, synthesis
from zeroskip.boards.netlist_check import NetlistCheck, golden_vectors, netlist_check
from zeroskip.boards.reports import parse_route_report
from zeroskip.boards.synthesis import synthesize
from zeroskip.boards.timing import slowest_path
from zeroskip.boards.tools import Tool, find_tool
from zeroskip.compiler.errors import CapacityError, InputError, ToolError, VerificationError

ECP5 = find_board("ulx3s-25f")
ICE40 = find_board("icebreaker")
GOWIN = find_board("tangnano9k")


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    try:
        for name in ("yosys", "verilator", "nextpnr-ecp5", "ecppack", "nextpnr-ice40", "icepack"):
            find_tool(name)
    except ToolError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sample, built for both boards; read only."""
    directory = write_sample(tmp_path_factory.mktemp("good"))
    lines: list[str] = []
    results = {board.name: synthesize(directory, board, progress=lines.append) for board in (ECP5, ICE40)}
    return directory, results, lines


@pytest.mark.parametrize("board", [ECP5, ICE40], ids=lambda board: board.name)
def test_flow_measures_and_checks(built, board):
    directory, results, lines = built
    result = results[board.name]
    assert result.check == NetlistCheck(4, 4 * BYTES_OUT, 0, result.check.cycles)
    report = copy.deepcopy(result.to_report())
    assert report["netlist_check"] == {"vectors": 4, "values": 16, "mismatches": 0}
    assert report["device"]["part"] == board.part
    # Its RTL is written by hand: nothing to replace.
    assert report["resources"].pop("primitives") is False
    assert {name: count["available"] for name, count in report["resources"].items()} == board.available
    assert 100 < report["resources"]["lut"]["used"] < 400
    assert 80 < report["resources"]["ff"]["used"] < 300
    assert report["resources"]["bram"]["used"] in (1, 2, 3)
    assert report["resources"]["dsp"]["used"] == 2
    fmax = report["fmax_mhz"]
    assert board.clock_mhz < fmax["min"] == fmax["median"] == fmax["max"] == fmax["seeds"][0]
    assert fmax["constraint"] == board.constraint_mhz
    # nextpnr rounds the two differently.
    assert result.critical_path.delay_ns == pytest.approx(1e3 / fmax["max"], rel=0.01)
    assert "LUTs" in str(result) and "16 values, 0 differ" in str(result)
    assert result.bitstream.stat().st_size > 10_000
    assert f"[1/3] synthesis {board.name}" in "\n".join(lines)
    assert not list((directory / "synth" / board.name).glob(".partial*"))


def test_second_run_reuses_every_step_and_a_lost_file_is_made_again(built, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(built[0], directory)
    lines: list[str] = []
    again = synthesize(directory, ICE40, progress=lines.append)
    assert [step.reused for step in again.steps] == [True] * 3
    assert len(lines) == 3 and all("reused" in line for line in lines)
    assert again.to_report() == built[1][ICE40.name].to_report()

    (directory / "synth" / ICE40.name / "seed-1.json").unlink()
    (directory / "synth" / ICE40.name / ".partial-synthesis").mkdir()
    mended = synthesize(directory, ICE40, seeds=(1, 4))
    assert {step.name: step.reused for step in mended.steps} == {
        "synthesis": True, "netlist check": True, "place and route seed 1": False, "place and route seed 4": False,
    }  # fmt: skip
    assert mended.fmax_mhz["seeds"][0] == again.fmax_mhz["seeds"][0]


def test_netlist_check_catches_a_multiplier_that_synthesis_dropped(tmp_path):
    directory = write_sample(tmp_path / "trap", TRAP)
    with pytest.raises(
        VerificationError, match=r"Mapped netlist differs .* first: vector 0, value 0: expected \d+, got"
    ):
        synthesize(directory, ICE40, jobs=1)
    assert not (directory / "synth" / ICE40.name / "netlist-check.json").exists()
    assert not (directory / "synth" / ICE40.name / "top.bin").exists()


@pytest.mark.slow
@pytest.mark.parametrize("board", [ECP5, ICE40], ids=lambda board: board.name)
@pytest.mark.parametrize("form", [UNRESET, UNWRITTEN])
def test_netlist_check_starts_from_random_state(tmp_path, form, board):
    directory = write_sample(tmp_path / "sample", form)
    with pytest.raises(VerificationError, match="Mapped netlist differs from the golden outputs"):
        synthesize(directory, board, jobs=1)


@pytest.fixture
def unrouted(monkeypatch):
    """Make the netlist of a sample for the Gowin board; router and packer are an extra and need not be there."""

    def find(name):
        return (
            Tool(name, ("false",), "", "native")
            if name in (GOWIN.family.router, GOWIN.family.packer)
            else find_tool(name)
        )

    monkeypatch.setattr(synthesis, "find_tool", find)

    def make(directory):
        with pytest.raises(ToolError, match="^Tool 'nextpnr-himbaechel-gowin' failed with exit code 1"):
            synthesize(directory, GOWIN, netlist_check=False)
        return directory

    return make


def test_gowin_netlist_holds_the_rom_and_the_products(tmp_path, unrouted):
    directory = unrouted(write_sample(tmp_path / "sample"))
    check = netlist_check(directory, GOWIN)
    assert (check.vectors, check.values, check.mismatches) == (4, 4 * BYTES_OUT, 0)
    path = directory / "synth" / GOWIN.name / "top.json"
    design = json.loads(path.read_text())
    cells = design["modules"]["top"]["cells"]
    rom = cells["accelerator.weights.mem.0.0"]
    rows = "".join(rom["parameters"][f"INIT_RAM_{row:02X}"][::-1] for row in range(2))
    assert rom["type"] == "SPX9" and int(rom["parameters"]["BIT_WIDTH"], 2) == 18
    assert [int(rows[18 * word : 18 * word + 18][::-1], 2) for word in range(32)] == weights().tolist()
    kinds = Counter(cell["type"] for cell in cells.values())
    assert kinds["MULT9X9"] == 2 and kinds["LUT4"] > 50 and not kinds.keys() & {"LUT1", "LUT2", "LUT3"}

    row = rom["parameters"]["INIT_RAM_00"]
    rom["parameters"]["INIT_RAM_00"] = row[:280] + ("0" if row[280] == "1" else "1") + row[281:]
    path.write_text(json.dumps(design))
    with pytest.raises(VerificationError, match="Mapped netlist differs from the golden outputs"):
        netlist_check(directory, GOWIN)


@pytest.mark.slow
@pytest.mark.parametrize("form", [UNRESET, UNWRITTEN])
def test_gowin_netlist_starts_from_random_state(tmp_path, unrouted, form):
    directory = unrouted(write_sample(tmp_path / "sample", form))
    with pytest.raises(VerificationError, match="Mapped netlist differs from the golden outputs"):
        netlist_check(directory, GOWIN)


@pytest.mark.slow
@pytest.mark.optional_tool
def test_gowin_flow_gives_a_bitstream_and_an_estimated_clock(tmp_path):
    try:
        find_tool(GOWIN.family.router), find_tool(GOWIN.family.packer)
    except ToolError as error:
        pytest.skip(str(error))
    directory = write_lanes(tmp_path / "lanes", 2, bits=4)
    result = synthesize(directory, GOWIN)
    report = result.to_report()
    assert result.check.values == 6 and result.check.mismatches == 0
    assert report["kinds"] == {"resources": "measured", "fmax_mhz": "estimated"}
    router = parse_route_report(result.folder / "seed-1.json")
    own = slowest_path(result.folder / "seed-1.sdf", {}, ())
    assert 1000 / own.delay_ns == pytest.approx(router.fmax_mhz, rel=1e-3)
    assert 27 < report["fmax_mhz"]["median"] < router.fmax_mhz
    assert f"Fmax {report['fmax_mhz']['median']} MHz (estimated, median of 1 seed" in str(result)
    assert report["resources"].pop("primitives") is True
    assert {name: count["available"] for name, count in report["resources"].items()} == GOWIN.available
    assert report["resources"]["dsp"]["used"] == 1
    assert report["resources"]["bram"]["used"] == 3
    assert 100 < report["resources"]["lut"]["used"] < router.used["LUT4"] + router.used["ALU"] < 1000
    header = [line for line in result.bitstream.read_text().splitlines() if not line.startswith("//")]
    assert len(header) > 700 and set(header[0]) == {"1"}


def test_wrong_golden_value_is_named(built):
    directory, _, _ = built
    inputs, expected = golden(4)
    expected[2, 3] ^= 1
    with pytest.raises(
        VerificationError,
        match=r"differs from the golden outputs in 1 of 16 values; first: vector 2, value 3: "
        rf"expected {expected[2, 3]}, got {expected[2, 3] ^ 1} \(as unsigned bytes\)",
    ):
        netlist_check(directory, ECP5, inputs, expected)


def test_missing_and_surplus_outputs_are_named(built):
    directory, _, _ = built
    inputs, expected = golden(2)
    with pytest.raises(
        VerificationError, match="gave 4 values, but 3 are expected; first difference at vector 1, value 0"
    ):
        netlist_check(directory, ECP5, inputs[:1], expected[:1, :3])
    with pytest.raises(
        VerificationError,
        match=r"gave 4 values, but 5 are expected; first difference at vector 0, value 4 \(no output for 9000 cycles\)",
    ):
        netlist_check(directory, ECP5, inputs[:1], np.append(expected[:1], [[0]], axis=1), timeout_cycles=9000)


def test_no_number_without_a_check(built, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(built[0], directory)
    result = synthesize(directory, ICE40, netlist_check=False)
    report = result.to_report()
    assert [report[key] for key in ("resources", "fmax_mhz", "critical_path", "netlist_check")] == [None] * 4
    assert report["kinds"] == {}
    assert str(result) == "icebreaker: no numbers without a netlist check; run with --netlist-check"


def test_rom_out_of_its_place_fails(tmp_path):
    directory = write_sample(tmp_path / "sample", rom_in_logic=True)
    with pytest.raises(
        VerificationError, match="ROM 'weights' is planned for block RAM, but its instance 'accelerator.weights'"
    ):
        synthesize(directory, ECP5)
    (directory / "rom" / "weights.json").write_text(json.dumps({"style": "logic"}))
    assert synthesize(directory, ECP5, netlist_check=False).bitstream.is_file()


def test_design_that_does_not_fit_is_refused(tmp_path):
    directory = write_sample(tmp_path / "sample")
    small = dataclasses.replace(ECP5, lut=50, dsp=1)
    with pytest.raises(
        CapacityError,
        match=r"Design needs \d+ LUTs, 2 multipliers, but board 'ulx3s-25f' holds 50 LUTs, 1 multipliers; "
        "choose fewer lanes, columns or cores, or a larger board",
    ):
        synthesize(directory, small)


def test_design_too_slow_for_the_board_is_refused(built, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(built[0], directory)
    # The clock decides the UART's divisor, so that everything is built anew, for a clock out of reach.
    fast = dataclasses.replace(ICE40, clock_mhz=100.0)
    with pytest.raises(CapacityError, match=r"Design reaches \d+\.\d\d MHz, but board 'icebreaker' runs at 100 MHz"):
        synthesize(directory, fast)


def test_broken_rtl_is_a_tool_error_with_the_log(tmp_path):
    directory = write_sample(tmp_path / "sample")
    (directory / "rtl" / "accelerator.v").write_text("module accelerator(input clk; endmodule\n")
    with pytest.raises(
        ToolError, match=r"Tool 'yosys' failed with exit code 1; its log is .*\n(.*\n)*.*ERROR: syntax error"
    ):
        synthesize(directory, ECP5)
    assert "syntax error" in (directory / "synth" / ECP5.name / "yosys-console.log").read_text()


def test_input_errors(tmp_path):
    with pytest.raises(InputError, match=r"has no rtl/accelerator.v; run zeroskip compile first"):
        synthesize(tmp_path, ECP5)
    with pytest.raises(InputError, match="has no netlist for ulx3s-25f; run zeroskip synth first"):
        netlist_check(tmp_path, ECP5)
    with pytest.raises(InputError, match=r"model.\* is missing; run .zeroskip compile. first"):
        golden_vectors(tmp_path)
    directory = write_sample(tmp_path / "sample", GOOD)
    with pytest.raises(InputError, match=r"Seeds must be at least one and distinct, not \(1, 1\)"):
        synthesize(directory, ECP5, seeds=(1, 1))
    with pytest.raises(
        InputError, match="Board 'icebreaker' cannot run its link at 3000000 baud: Clock must be at least"
    ):
        synthesize(directory, ICE40, baud=3_000_000)
