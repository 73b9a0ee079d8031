"""Mapped netlists of small designs behave like their RTL, cycle by cycle: the models of the cells are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pair_bench import count_differences, pair_text
from zeroskip.boards.families.ecp5 import ECP5
from zeroskip.boards.families.family import Family
from zeroskip.boards.families.gowin import GOWIN
from zeroskip.boards.families.ice40 import ICE40
from zeroskip.boards.tools import find_tool, run_tool
from zeroskip.compiler.errors import ToolError

WARM_UP = 600


def rom(width: int, depth: int, enable: str = "1'b1") -> str:
    """A block ROM whose words are a hash of the address."""
    bits = (depth - 1).bit_length()
    return f"""
      (* ram_style = "block" *) reg [{width - 1}:0] mem [0:{depth - 1}];
      integer i;
      initial for (i = 0; i < {depth}; i = i + 1) mem[i] = (i * 64'h9E3779B97F4A7C15) >> 17;
      reg [{width - 1}:0] q;
      wire [{bits - 1}:0] a = in[{bits - 1}:0];
      always @(posedge clk) if ({enable}) q <= mem[a >= {depth} ? a - {depth} : a];
      assign out = q;"""


def ram(
    width: int, depth: int, *, init: bool = False, read: str = "q <= mem[ra];", write: str = "mem[wa] <= d;"
) -> str:
    """A block RAM with one write and one read address, narrow enough that addresses meet often."""
    bits = (depth - 1).bit_length()
    content = f"integer i; initial for (i = 0; i < {depth}; i = i + 1) mem[i] = i * 64'h9E3779B97F4A7C15 >> 9;"
    fill = f"""
      reg [{bits}:0] filled;
      always @(posedge clk) if (rst) filled <= 0; else if (!filled[{bits}]) filled <= filled + 1'b1;
      wire filling = !filled[{bits}];"""
    return f"""
      (* ram_style = "block" *) reg [{width - 1}:0] mem [0:{depth - 1}];
      {content if init else fill}
      {"wire filling = 0; wire [" + str(bits) + ":0] filled = 0;" if init else ""}
      wire [{bits - 1}:0] ra = in[{bits - 1}:0];
      wire [{bits - 1}:0] wa = filling ? filled[{bits - 1}:0] : in[60] ? ra : in[{bits + 14}:15];
      wire [{width - 1}:0] d = {{in[63:32], in[31:0]}} >> 7;
      wire we = filling | in[61];
      reg [{width - 1}:0] q;
      always @(posedge clk) begin
        if (we) begin {write} end
        {read}
      end
      reg settled;
      always @(posedge clk) settled <= !filling;
      assign out = settled ? q : 0;"""


def single_port(width: int, depth: int, mode: str) -> str:
    """A block RAM with one address for reading and writing."""
    bits = (depth - 1).bit_length()
    read = {
        "old": "q <= mem[a];",
        "new": "q <= in[61] ? d : mem[a];",
        "hold": "if (!in[61]) q <= mem[a];",
    }[mode]
    return f"""
      (* ram_style = "block" *) reg [{width - 1}:0] mem [0:{depth - 1}];
      integer i;
      initial for (i = 0; i < {depth}; i = i + 1) mem[i] = i * 64'h9E3779B97F4A7C15 >> 13;
      wire [{bits - 1}:0] a = in[{bits - 1}:0];
      wire [{width - 1}:0] d = in[63:20];
      reg [{width - 1}:0] q;
      always @(posedge clk) if (in[62]) begin if (in[61]) mem[a] <= d; {read} end
      assign out = q;"""


def two_ports(width: int, depth: int, read: str = "") -> str:
    """A true dual-port block RAM: both ports read (``read="else"``: or) write, at addresses that never meet."""
    bits = (depth - 1).bit_length()
    return f"""
      (* ram_style = "block" *) reg [{width - 1}:0] mem [0:{depth - 1}];
      integer i;
      initial for (i = 0; i < {depth}; i = i + 1) mem[i] = i * 64'h9E3779B97F4A7C15 >> 13;
      wire [{bits - 1}:0] a = {{in[{bits - 2}:0], 1'b0}};
      wire [{bits - 1}:0] b = {{in[{bits + 18}:20], 1'b1}};
      reg [{width - 1}:0] p, q;
      always @(posedge clk) begin if (in[61]) mem[a] <= in[59:40]; {read} p <= mem[a]; end
      always @(posedge clk) begin if (in[60]) mem[b] <= in[39:20]; {read} q <= mem[b]; end
      assign out = {{p, q}};"""


def product(a: str, b: str) -> str:
    return f"reg signed [47:0] y; wire {a}; wire {b}; always @(posedge clk) y <= a * b; assign out = y;"


ROMS = {f"rom_{width}x{depth}": rom(width, depth) for width, depth in ((1, 4096), (2, 2500), (4, 2048), (36, 700))}

MEMORIES = {
    "rom_9x600": rom(9, 600),
    "rom_enable": rom(18, 1500, "in[63]"),
    **{f"ram_{width}x{depth}": ram(width, depth) for width, depth in ((4, 64), (8, 512), (36, 32))},
    "ram_read_enable": ram(18, 64, read="if (in[62]) q <= mem[ra];"),
    "ram_read_reset": ram(16, 64, read="if (in[63] & in[62]) q <= 0; else q <= mem[ra];"),
    "ram_bytes": ram(18, 64, write="if (in[58]) mem[wa][8:0] <= d[8:0]; if (in[59]) mem[wa][17:9] <= d[17:9];",
                     init=True),
    **{f"single_{mode}": single_port(9, 64, mode) for mode in ("old", "new", "hold")},
}  # fmt: skip

WIDE_BYTES = ram(
    32, 64, init=True, write="if (in[56]) mem[wa][7:0] <= d[7:0]; if (in[57]) mem[wa][15:8] <= d[15:8];"
    "if (in[58]) mem[wa][23:16] <= d[23:16]; if (in[59]) mem[wa][31:24] <= d[31:24];",
)  # fmt: skip

NARROW_READS = """
      (* ram_style = "block" *) reg [3:0] mem [0:511];
      integer i, n;
      initial for (i = 0; i < 512; i = i + 1) mem[i] = i * 64'h9E3779B97F4A7C15 >> 13;
      reg [3:0] q;
      always @(posedge clk) begin
        if (in[63]) for (n = 0; n < 8; n = n + 1) mem[{in[5:0], n[2:0]}] <= in[20 + 4 * n +: 4];
        q <= mem[{in[60] ? in[5:0] : in[11:6], in[14:12]}];
      end
      assign out = q;"""
"""A block RAM that is written eight words at a time."""

MULTIPLIERS = {
    "mul_s9_s8": product("signed [8:0] a = in[8:0]", "signed [7:0] b = in[40:33]"),
    "mul_u8_u8": product("[7:0] a = in[7:0]", "[7:0] b = in[40:33]"),
    "mul_u18_u18": product("[17:0] a = in[17:0]", "[17:0] b = in[50:33]"),
    "mul_mixed": product("signed [9:0] a = {1'b0, in[8:0]}", "signed [9:0] b = in[42:33]"),
    "mul_s20_s18": product("signed [19:0] a = in[19:0]", "signed [17:0] b = in[50:33]"),
}

SMALL_MEMORY = """
      (* ram_style = "distributed" *) reg [7:0] mem [0:15];
      reg [4:0] filled;
      always @(posedge clk) if (rst) filled <= 0; else if (!filled[4]) filled <= filled + 1'b1;
      always @(posedge clk) if (in[60] | !filled[4]) mem[filled[4] ? in[7:4] : filled[3:0]] <= in[47:40];
      assign out = filled[4] ? mem[in[3:0]] : 0;"""

OTHERS = {
    "flip_flops": """
      reg [7:0] a = 8'h5A, b, c, d;
      always @(posedge clk) begin
        if (in[0]) a <= 8'hC3; else if (in[1]) a <= in[17:10];
        if (in[2]) begin b <= in[25:18]; if (in[3]) b <= 0; end
      end
      always @(posedge clk or posedge in[40]) if (in[40]) c <= 8'hF0; else c <= c + in[33:26];
      always @(negedge clk) d <= in[17:10];
      assign out = {a, b, c, d};""",
    "carry": "reg [31:0] s; always @(posedge clk) s <= in[31:0] - in[63:32]; assign out = {s < 32'h1234567, s};",
}


def map_and_compare(
    designs: dict[str, str], family: Family, folder: Path
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Map every design and run it beside its RTL; return in how many cycles each differs, and the cell counts."""
    for name, body in designs.items():
        text = f"module {name}(input clk, input rst, input [63:0] in, output [63:0] out);{body}\nendmodule\n"
        (folder / f"{name}.v").write_text(text)
    outputs = "".join(f", output [63:0] {name}_out" for name in designs)
    cells = "".join(f"{name} {name}_cell(clk, rst, in, {name}_out);\n" for name in designs)
    (folder / "all.v").write_text(f"module all(input clk, input rst, input [63:0] in{outputs});\n{cells}endmodule\n")
    script = [
        f"read_verilog {' '.join(f'{name}.v' for name in designs)} all.v",
        f"{family.synthesis} -noflatten -top all",
        "tee -q -o cells.json stat -json",
        "delete all",
        *(f"rename {name} {name}_mapped" for name in designs),
        "write_verilog -noattr mapped.v",
    ]
    (folder / "map.ys").write_text("\n".join(script) + "\n")
    code = run_tool(find_tool("yosys"), ["-q", "-s", "map.ys"], cwd=folder, log=folder / "yosys.log")
    assert code == 0, (folder / "yosys.log").read_text()[-2000:]
    modules = json.loads((folder / "cells.json").read_text())["modules"]
    counts = {name: modules[f"\\{name}"]["num_cells_by_type"] for name in designs}
    ports = [".clk(clk)", ".rst(rst)", ".in(in)"]
    texts = [pair_text(name, (name, f"{name}_mapped"), ports, {"out": 64}, WARM_UP) for name in designs]
    sources = [*(folder / f"{name}.v" for name in designs), folder / "mapped.v"]
    return count_differences(texts, sources, family, folder), counts


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    try:
        find_tool("yosys"), find_tool("verilator")
    except ToolError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_ecp5_cells_behave_like_the_rtl(tmp_path):
    blocks = {**ROMS, **MEMORIES, "two_ports": two_ports(18, 64), "wide_bytes": WIDE_BYTES}
    designs = {**blocks, "small_memory": SMALL_MEMORY, **MULTIPLIERS, **OTHERS}
    differences, counts = map_and_compare(designs, ECP5, tmp_path)
    assert [name for name in blocks if not counts[name].get("DP16KD")] == []
    assert [name for name in MULTIPLIERS if not counts[name].get("MULT18X18D")] == []
    assert counts["small_memory"].get("TRELLIS_DPR16X4")
    assert differences == dict.fromkeys(designs, 0)


@pytest.mark.slow
def test_ice40_cells_behave_like_the_rtl(tmp_path):
    designs = {**MEMORIES, **MULTIPLIERS, **OTHERS}
    differences, counts = map_and_compare(designs, ICE40, tmp_path)
    assert [name for name in MEMORIES if not counts[name].get("SB_RAM40_4K")] == []
    assert [name for name in MULTIPLIERS if not counts[name].get("SB_MAC16")] == []
    assert differences == dict.fromkeys(designs, 0)


@pytest.mark.slow
def test_gowin_cells_behave_like_the_rtl(tmp_path):
    blocks = {**ROMS, **MEMORIES, "two_ports": two_ports(18, 64, "else"), "wide_bytes": WIDE_BYTES}
    blocks["narrow_reads"] = NARROW_READS
    multipliers = {**MULTIPLIERS, "mul_s30_s24": product("signed [29:0] a = in[29:0]", "signed [23:0] b = in[56:33]")}
    designs = {**blocks, "small_memory": SMALL_MEMORY, **multipliers, **OTHERS}
    differences, counts = map_and_compare(designs, GOWIN, tmp_path)
    kinds = {kind for name in blocks for kind in GOWIN.block_rams if counts[name].get(kind)}
    assert kinds == set(GOWIN.block_rams)
    assert [name for name in blocks if not kinds & set(counts[name])] == []
    assert [name for name in multipliers if not set(GOWIN.dsp_cost) & set(counts[name])] == []
    assert {kind for name in multipliers for kind in counts[name]} >= set(GOWIN.dsp_cost)
    assert counts["small_memory"].get("RAM16SDP4")
    assert differences == dict.fromkeys(designs, 0)
