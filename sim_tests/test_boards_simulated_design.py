"""Reading of a compiled folder for simulation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zeroskip.boards.simulated_design import Places, read_design
from zeroskip.compiler.errors import InputError

AMARANTH = """module \\accelerator.sequencer (clk, state);
  output [9:0] state;
endmodule
(* top =  1  *)
module accelerator(clk, rst, trace__valid, trace__odd, trace__layer, trace__channel, trace__place, state);
  output [1:0] trace__layer;
  wire [1:0] trace__layer;
  output [6:0] trace__channel;
  output [3:0] trace__valid;
  output trace__odd;
  output [4:0] trace__place;
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
    widths = {"LAYER_BITS": 2, "CHANNEL_BITS": 7, "PLACE_BITS": 5, "RESULTS": 4, "STATE_BITS": 3}
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


def test_places(tmp_path):
    conv1, fc1 = PROGRAM["layers"]
    layers = [{**conv1, "first_place": 7, "places": [1, 0, -1]}, fc1]
    design = read_design(write(tmp_path, program={**PROGRAM, "layers": layers}))
    assert design.places == (Places(7, (1, 0, -1)), None)


def test_one_result_a_cycle(tmp_path):
    design = read_design(write(tmp_path, AMARANTH.replace("[3:0] trace__valid", "trace__valid")))
    assert design.parameters["RESULTS"] == 1


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
    first = {**PROGRAM["layers"][0], "places": [0]}
    (tmp_path / "ir" / "program.json").write_text(json.dumps({**PROGRAM, "layers": [first]}))
    with pytest.raises(InputError, match="^File '.*program.json' lacks an entry: 'first_place'$"):
        read_design(tmp_path)
    (tmp_path / "ir" / "program.json").write_text("{")
    with pytest.raises(InputError, match="^File '.*program.json' must be JSON: "):
        read_design(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("output [4:0] trace__place;", "", "File '.*' must declare output 'trace__place'"),
        ("[6:0] trace__channel", "[16:0] trace__channel", "Output 'trace__channel' must have at most 16 bits, not 17"),
        ("module accelerator(", "module other(", "File '.*' must define module 'accelerator'"),
    ],
)
def test_wrong_ports(tmp_path, old, new, text):
    with pytest.raises(InputError, match=f"^{text}$"):
        read_design(write(tmp_path, AMARANTH.replace(old, new)))
