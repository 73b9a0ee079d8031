"""The text of the RTL: names that Yosys keeps apart."""

from __future__ import annotations

import re
from pathlib import Path

import zeroskip as zs
from zeroskip import pruning
from zeroskip.boards import BOARDS
from zeroskip.boards.top import DEFAULT_BAUD, plan_top
from zeroskip.hw.verilog import plain_names


def test_names_have_no_brackets():
    text = "wire [8:0] \\x[3] ;\nwire x_4;\nassign \\x[3] [2] = x[3] & (\\x[4] ) & \\x$1[0].y [1];\n"
    assert plain_names(text) == (
        "wire [8:0] \\x_3 ;\nwire x_4;\nassign \\x_3 [2] = x[3] & (\\x_4_ ) & \\x$1_0.y [1];\n"
    )
    rtlil = "  wire width 9 \\x[3]\n  connect \\x[3] [2] \\x [3]\n"
    assert plain_names(rtlil) == "  wire width 9 \\x_3\n  connect \\x_3 [2] \\x [3]\n"
    plain = "wire [8:0] x; assign y = x[3];\n"
    assert plain_names(plain) is plain


def test_no_board_has_such_names_around_the_accelerator():
    for board in BOARDS.values():
        assert not re.search(r"\\\S*\[", plan_top(board, DEFAULT_BAUD).rtlil)


def test_no_accelerator_has_such_names(tmp_path):
    zs.compile(Path(pruning.__file__).parent / "zoo" / "digits-nonstructured-w4a8.safetensors", tmp_path)
    for path in (tmp_path / "rtl").glob("*.v"):
        assert not re.search(r"\\\S*\[", path.read_text()), path.name
