"""Reading of a compiled folder for simulation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zeroskip.boards.simulated_design import read_design
from zeroskip.compiler.errors import InputError

AMARANTH = """module \\accelerator.sequencer (clk, state);
  output [9:0] state;
endmodule
(* top =  1  *)
module accelerator(clk, rst, trace__layer, trace__channel, trace__y, trace__x, state);
  output [1:0] trace__layer;
  wire [1:0] trace__layer;
  output [6:0] trace__channel;
  output trace__y;
  output [4:0] trace__x;
  output [2:0] state;
  reg [2:0] state = 3'h0;
endmodule
"""

PROGRAM = {
    "layers": [
        {"name": "conv1", "output": "pool1", "shape": [20, 12, 12]},
        {"name": "fc1", "output": "output", "shape": [10], "signed": True},
    ],
    "input": {"shape": [1, 28, 28]},
    "output": {"shape": [10], "signed": True},
}


def write(folder: Path, verilog: str = AMARANTH, program: dict | None = None) -> Path:
    """Write a compiled folder."""
    (folder / "rtl").mkdir()
    (folder / "ir").mkdir()
    (folder / "rtl" / "accelerator.v").write_text(verilog)
    (folder / "rtl" / "rom_a.v").write_text("module rom_a; endmodule")
    (folder / "ir" / "program.json").write_text(json.dumps(PROGRAM if program is None else program))
    return folder


def test_design(tmp_path):
    design = read_design(write(tmp_path))
    widths = {"LAYER_BITS": 2, "CHANNEL_BITS": 7, "Y_BITS": 1, "X_BITS": 5, "STATE_BITS": 3}
    assert design.parameters == widths
    assert [path.name for path in design.sources] == ["accelerator.v", "rom_a.v"]
    assert (design.names, design.tensors) == (("conv1", "fc1"), ("pool1", "output"))
    assert (design.shapes, design.signed) == (((20, 12, 12), (10,)), (None, True))
    assert [design.describe_state(state) for state in (0, 2, 3, 4)] == [
        "loading the input (state 0)",
        "layer 'fc1' (state 2)",
        "unloading the output (state 3)",
        "unknown state 4",
    ]


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match="^Compiled folder must hold '.*program.json'; run `zeroskip compile` first$"):
        read_design(tmp_path)
    (write(tmp_path) / "rtl" / "accelerator.v").unlink()
    text = "^Compiled folder '.*' must hold 'rtl/accelerator.v'; run `zeroskip compile` first$"
    with pytest.raises(InputError, match=text):
        read_design(tmp_path)


def test_broken_program(tmp_path):
    write(tmp_path, program={key: value for key, value in PROGRAM.items() if key != "input"})
    with pytest.raises(InputError, match="^File '.*program.json' lacks an entry: 'input'$"):
        read_design(tmp_path)
    (tmp_path / "ir" / "program.json").write_text("{")
    with pytest.raises(InputError, match="^File '.*program.json' must be JSON: "):
        read_design(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("output trace__y;", "", "File '.*' must declare output 'trace__y'"),
        ("[6:0] trace__channel", "[16:0] trace__channel", "Output 'trace__channel' must have at most 16 bits, not 17"),
        ("module accelerator(", "module other(", "File '.*' must define module 'accelerator'"),
    ],
)
def test_wrong_ports(tmp_path, old, new, text):
    with pytest.raises(InputError, match=f"^{text}$"):
        read_design(write(tmp_path, AMARANTH.replace(old, new)))
