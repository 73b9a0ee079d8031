"""The slowest path of small delay files, written as nextpnr writes them."""

from __future__ import annotations

import re

import pytest

from zeroskip.boards import BOARDS
from zeroskip.boards.families.family import CellDelays
from zeroskip.boards.timing import count_cells_named, slowest_path
from zeroskip.compiler.errors import ToolError

CHECK = "(SETUPHOLD (posedge D) (posedge CLK) (90:95:100) (1:2:3))"
FLIP_FLOP = ["(IOPATH CLK Q (300:400:500) (310:410:510))"], [CHECK]
LUT = ["(IOPATH I0 F (500:600:700) (500:600:690))"], []

CELLS = {"pad": ("IBUF", [], []), "a": ("DFF", *FLIP_FLOP), r"b\$1": ("DFF", *FLIP_FLOP), "lut": ("LUT4", *LUT)}
WIRES = [("pad/O", "a/D", 9000), ("a/Q", "lut/I0", 1000), ("lut/F", r"b\$1/D", 2000), (r"b\$1/Q", "a/D", 100)]
MEMORY = {"RAM": CellDelays(setup={"AD": 50}, launch={"DO": 3000}), "BUF": CellDelays(through={"I": 4000})}


def write(path, cells=CELLS, wires=WIRES):
    """Write a delay file of ``cells`` (kind, delays, checks) and ``wires`` (from, to, picoseconds)."""
    lines = [
        "(DELAYFILE", '  (SDFVERSION "3.0")', '  (DESIGN "top")', "  (TIMESCALE 1ps)",
        "  (CELL", '    (CELLTYPE "top")', "    (INSTANCE )", "    (DELAY", "      (ABSOLUTE",
        *(f"        (INTERCONNECT {start} {end} (1:2:{delay}) (1:2:{delay}))" for start, end, delay in wires),
        "      )", "    )", "  )",
    ]  # fmt: skip
    for name, (kind, delays, checks) in cells.items():
        lines += ["  (CELL", f'    (CELLTYPE "{kind}")', f"    (INSTANCE {name})"]
        lines += ["(DELAY", "(ABSOLUTE", *delays, ")", ")", "(TIMINGCHECK", *checks, ")", ")"]
    path.write_text("\n".join([*lines, ")"]))
    return path


def test_delays_add_up_along_the_slowest_path(tmp_path):
    path = slowest_path(write(tmp_path / "a.sdf"), {}, ())
    assert (path.start, path.end) == ("a.Q", "b$1.D")
    assert (path.delay_ns, path.logic_ns, path.routing_ns) == pytest.approx((4.31, 1.31, 3.0))
    assert path.cells == ("  1.51 ns  lut.I0", "  4.21 ns  b$1.D")


def test_a_slower_branch_wins_over_a_longer_one(tmp_path):
    wires = [*WIRES, ("a/Q", r"b\$1/D", 5000)]
    assert slowest_path(write(tmp_path / "a.sdf", wires=wires), {}, ()).delay_ns == pytest.approx(5.61)


def test_missing_delays_are_added_but_replace_none(tmp_path):
    ram = {"ram": ("RAM", [], []), "slow": ("BUF", [], []), "fast": ("BUF", ["(IOPATH I O (1:1:10) (1:1:10))"], [])}
    wires = [*WIRES, ("lut/F", "slow/I", 10), ("slow/O", "ram/AD7", 20), ("ram/DO1", "fast/I", 30)]
    wires.append(("fast/O", "a/D", 40))
    path = write(tmp_path / "a.sdf", {**CELLS, **ram}, wires)
    assert slowest_path(path, {}, ()).delay_ns == pytest.approx(4.31)
    found = slowest_path(path, MEMORY, ("IBUF",))
    assert (found.end, found.delay_ns) == ("ram.AD7", pytest.approx(0.51 + 1 + 0.7 + 0.01 + 4 + 0.02 + 0.05))
    longer = [(start, end, 9000 if start == "ram/DO1" else delay) for start, end, delay in wires]
    found = slowest_path(write(tmp_path / "b.sdf", {**CELLS, **ram}, longer), MEMORY, ("IBUF",))
    assert (found.start, found.delay_ns) == ("ram.DO1", pytest.approx(3 + 9 + 0.01 + 0.04 + 0.1))


def test_a_cell_without_any_delay_is_named(tmp_path):
    cells = {**CELLS, r"odd\$": ("MULT", [], [])}
    wires = [*WIRES, ("lut/F", r"odd\$/A0", 10), (r"odd\$/P3", "a/D", 20)]
    path = write(tmp_path / "a.sdf", cells, wires)
    with pytest.raises(ToolError, match=r"^Delay file must have a delay to port 'P3' of cell 'odd\$', a MULT; "):
        slowest_path(path, MEMORY, ("IBUF",))
    assert slowest_path(path, {**MEMORY, "MULT": CellDelays({"A": 1}, {}, {})}, ("IBUF",)).delay_ns > 4
    idle = [*WIRES, ("pad/O", r"odd\$/A0", 10), (r"odd\$/P3", "a/D", 20)]
    assert slowest_path(write(path, cells, idle), MEMORY, ("IBUF",)).delay_ns == pytest.approx(4.31)


def test_what_cannot_be_timed_is_refused(tmp_path):
    loop = [*WIRES, ("lut/F", "lut/I0", 1)]
    with pytest.raises(
        ToolError, match=r"^Routed design must have a register in every loop, but not in one before b\$1"
    ):
        slowest_path(write(tmp_path / "a.sdf", wires=loop), {}, ())
    with pytest.raises(ToolError, match=f"^Delay file '{re.escape(str(tmp_path / 'b.sdf'))}' must have a path between"):
        slowest_path(write(tmp_path / "b.sdf", wires=[]), {}, ())
    falling = (FLIP_FLOP[0], [CHECK.replace("(posedge CLK)", "(negedge CLK)")])
    with pytest.raises(ToolError, match="^Cell 'a' must work on the rising clock edge, not on the falling one$"):
        slowest_path(write(tmp_path / "c.sdf", {"a": ("DFF", *falling)}), {}, ())


def test_cells_are_counted_by_the_end_of_their_name(tmp_path):
    assert count_cells_named(write(tmp_path / "a.sdf"), "$1") == 1


def test_missing_delays_are_known_for_the_speed_of_every_board():
    for board in BOARDS.values():
        assert not board.family.missing_delays or board.speed in board.family.missing_delays
