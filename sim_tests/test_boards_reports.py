"""Reports of the router and netlists of Yosys become the parts of report.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zeroskip.boards import find_board
from zeroskip.boards.capacity import (
    mapped_needs,
    refuse_broken_logic,
    refuse_misplaced_roms,
    refuse_overflow,
    refuse_unroutable,
)
from zeroskip.boards.reports import (
    CriticalPath,
    RouteReport,
    fmax_summary,
    parse_route_report,
    read_netlist,
    resource_table,
)
from zeroskip.compiler.errors import CapacityError, InputError, ToolError, VerificationError


def step(kind, delay, start, end):
    ends = {
        name: {"cell": place.split(".")[0], "port": place.split(".")[1]}
        for name, place in (("from", start), ("to", end))
    }
    return {"type": kind, "delay": delay, **ends}


REPORT = {
    "fmax": {"clk": {"achieved": 50.0, "constraint": 48.0}, "other": {"achieved": 90.0, "constraint": 48.0}},
    "utilization": {
        "ICESTORM_LC": {"used": 100, "available": 5280},
        "ICESTORM_RAM": {"used": 4, "available": 30},
        "ICESTORM_DSP": {"used": 1, "available": 8},
        "ICESTORM_SPRAM": {"used": 2, "available": 4},
    },
    "critical_paths": [
        {
            "from": "posedge clk",
            "to": "posedge clk",
            "path": [
                step("clk-to-q", 1.5, "a.O", "a.O"),
                step("routing", 3.0, "a.O", "b.I0"),
                step("logic", 1.25, "b.I0", "b.O"),
                step("routing", 4.0, "b.O", "c.I3"),
                step("setup", 0.25, "c.I3", "c.I3"),
            ],
        },
        {"from": "<async>", "to": "posedge clk", "path": [step("routing", 30.0, "pin.I", "c.I0")]},
    ],
}


def test_route_report(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(REPORT))
    route = parse_route_report(path)
    assert route.fmax_mhz == 50.0
    assert str(route.path) == (
        "10.00 ns (3.00 logic, 7.00 routing) from a.O to c.I3\n    4.50 ns  b.I0\n    9.75 ns  c.I3"
    )
    cells = {f"ff{number}": {"type": kind} for number, kind in enumerate(["SB_DFF", "SB_DFFESR", "SB_LUT4"])}
    assert resource_table(find_board("icebreaker"), route, cells) == {
        "lut": {"used": 100, "available": 5280},
        "ff": {"used": 2, "available": 5280},
        "bram": {"used": 4, "available": 30},
        "spram": {"used": 2, "available": 4},
        "dsp": {"used": 1, "available": 8},
    }


@pytest.mark.parametrize("damage", [{"fmax": {}}, {"critical_paths": []}, {"utilization": None}])
def test_incomplete_report_is_refused(tmp_path, damage):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**REPORT, **damage}))
    with pytest.raises(
        ToolError, match=r"^Report '.*report.json' must be one of nextpnr with a clock and its slowest path: "
    ):
        parse_route_report(path)


def test_netlist_must_be_one(tmp_path):
    with pytest.raises(ToolError, match=r"^Netlist '.*none.json' must be a Yosys JSON file with a module 'top': "):
        read_netlist(tmp_path / "none.json")


def test_fmax_over_seeds():
    assert fmax_summary([101.234, 99.0, 103.0], 200.0) == {
        "median": 101.23, "min": 99.0, "max": 103.0, "seeds": [101.23, 99.0, 103.0], "constraint": 200.0,
    }  # fmt: skip


def test_overflow_counts_carry_cells_and_small_memories():
    board = find_board("ulx3s-25f")
    kinds = ["LUT4"] * 100 + ["CCU2C"] * 12_000 + ["TRELLIS_DPR16X4"] * 40 + ["DP16KD"] * 57
    cells = {str(number): {"type": kind} for number, kind in enumerate(kinds)}
    with pytest.raises(
        CapacityError,
        match="^Design needs 24340 LUTs, 57 block RAMs, but board 'ulx3s-25f' holds 24288 LUTs, 56 block RAMs; "
        "choose fewer lanes, columns or cores, or a larger board$",
    ):
        refuse_overflow(board, cells)


def test_halves_of_a_multiplier_are_counted():
    board = find_board("tangnano9k")
    cells = {str(number): {"type": kind} for number, kind in enumerate(["MULT9X9"] * 3 + ["MULT18X18", "LUT4", "ALU"])}
    assert mapped_needs(board, cells) == {"lut": 2, "ff": 0, "bram": 0, "dsp": 3}
    bels = {bel for bels in board.family.used.values() for bel in bels}
    used = {**dict.fromkeys(bels, 0), "MULT9X9": 3, "MULT18X18": 1, "LUT4": 5, "ALU": 2, "DFF": 9}
    route = RouteReport(1.0, used, {}, CriticalPath("", "", 1.0, 1.0, 0.0, ()))
    table = resource_table(board, route, cells)
    assert {name: count["used"] for name, count in table.items()} == {"lut": 7, "ff": 9, "bram": 0, "dsp": 3}


def test_full_device_is_told_from_a_broken_tool(tmp_path):
    board = find_board("icebreaker")
    log = tmp_path / "seed-1.log"
    log.write_text("ERROR: unknown option\n")
    refuse_unroutable(board, log, log)
    log.write_text("Info: x\nERROR: Unable to place cell 'a', no BELs remaining to implement cell type 'DSP'\n")
    with pytest.raises(
        CapacityError,
        match=r"^Design cannot be placed and routed on board 'icebreaker' \(Unable to place cell 'a', no BELs "
        r"remaining to implement cell type 'DSP'\); choose fewer lanes, columns or cores, or a larger board "
        r"\(log: kept.log\)$",
    ):
        refuse_unroutable(board, log, Path("kept.log"))


def test_broken_logic_is_refused(tmp_path):
    log = tmp_path / "yosys.log"
    log.write_text("Warning: Wire top.x is used but has no driver.\n")
    refuse_broken_logic(log)
    log.write_text("Warning: found logic loop in module top:\n")
    with pytest.raises(
        VerificationError, match="^Synthesis found broken logic: Warning: found logic loop in module top: "
    ):
        refuse_broken_logic(log)


def test_rom_must_be_in_the_netlist(tmp_path):
    board = find_board("icebreaker")
    (tmp_path / "rom").mkdir()
    description = tmp_path / "rom" / "taps.json"
    description.write_text('{"style": "block"}')
    scope = {"type": "$scopeinfo", "attributes": {"module": "rom_taps"}}
    block = {"type": "SB_RAM40_4K"}
    refuse_misplaced_roms(tmp_path, board, {"a.taps": scope, "a.taps.mem.0.0": block})
    with pytest.raises(
        VerificationError, match="^ROM 'taps' is planned for block RAM, but its instance 'a.taps' has no SB_RAM40_4K"
    ):
        refuse_misplaced_roms(tmp_path, board, {"a.taps": scope, "a.taps2.mem.0.0": block})
    with pytest.raises(
        VerificationError, match="^ROM 'taps' must be in the netlist as module 'rom_taps', but there is none$"
    ):
        refuse_misplaced_roms(tmp_path, board, {"a.taps.mem.0.0": block})
    description.write_text("{}")
    with pytest.raises(InputError, match=r"^ROM description '.*taps.json' must be JSON with a key 'style': KeyError"):
        refuse_misplaced_roms(tmp_path, board, {})


def test_a_long_path_is_printed_by_its_ends():
    cells = tuple(f"{number}.00 ns  {'carry_' * number}{number}.A" for number in range(30))
    lines = str(CriticalPath("start.Q", "end.D", 29.0, 9.0, 20.0, cells)).splitlines()
    assert lines[0] == "29.00 ns (9.00 logic, 20.00 routing) from start.Q to end.D"
    assert lines[1:7] == [f"  {cell}" for cell in cells[:6]] and lines[7] == "  ... 18 more cells"
    assert len(lines) == 14 and all(len(line) < 110 for line in lines)
    assert lines[-1].startswith("  29.00 ns  carry_") and lines[-1].endswith("carry_29.A") and "..." in lines[-1]
