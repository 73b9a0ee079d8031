"""A compiled folder in miniature, of the modules that a family may replace: banks, a ROM, multipliers, accumulators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zeroskip.hw.memory import bank_verilog, rom_module
from zeroskip.hw.multiplier import multiplier_verilog

__all__ = ["DEPTH", "golden", "weights", "write_lanes"]

DEPTH = 8
"""Products that a lane sums up."""

_HEAD = """\
module accelerator(input clk, input rst, input [7:0] i__payload, input i__valid, output i__ready,
                   output [7:0] o__payload, output o__valid, input o__ready);
  // Lane l gives the middle byte of the sum over k of x[k][l] * w[k][l]; x is not signed.
  localparam LANES = {lanes};
  reg [1:0] state;
  reg [$clog2(LANES):0] lane;
  reg [{high}:0] k;
  reg [3:0] wait_count;
  reg [4:0] valid, first;
  reg [{high}:0] write_addr;
  reg [7:0] write_data;
  reg [LANES-1:0] write_en;
  reg [24*LANES-1:0] drain;
  wire [{word}:0] word;
  rom_weights weights (.clk(clk), .addr_0(k), .data_0(word));
  assign i__ready = state == 0;
  assign o__valid = state == 3;
  assign o__payload = drain[15:8];
  integer n;
  always @(posedge clk) begin
    write_en <= 0;
    write_addr <= k;
    write_data <= i__payload;
    for (n = 0; n < LANES; n = n + 1) write_en[n] <= state == 0 && i__valid && lane == n;
    valid <= {{valid[3:0], state == 1}};
    first <= {{first[3:0], k == 0}};
    case (state)
      0: if (i__valid) begin
        lane <= lane == LANES - 1 ? 0 : lane + 1;
        if (lane == LANES - 1) begin k <= k + 1; if (k == {last}) state <= 1; end
      end
      1: begin k <= k + 1; wait_count <= 0; if (k == {last}) state <= 2; end
      2: begin
        wait_count <= wait_count + 1;
        if (wait_count == 8) begin drain <= {{{accumulators}}}; state <= 3; end
      end
      3: if (o__ready) begin
        drain <= drain >> 24;
        lane <= lane == LANES - 1 ? 0 : lane + 1;
        if (lane == LANES - 1) state <= 0;
      end
    endcase
    if (rst) begin state <= 0; lane <= 0; k <= 0; valid <= 0; write_en <= 0; end
  end
"""

_LANE = """\
  wire [7:0] x_{lane};
  wire [{product}:0] p_{lane};
  reg signed [23:0] acc_{lane};
  activation_bank bank_{lane} (.clk(clk), .read_addr(k), .read_data(x_{lane}), .write_addr(write_addr),
                               .write_data(write_data), .write_en(write_en[{lane}]));
  multiplier multiplier_{lane} (.clk(clk), .a({{1'b0, x_{lane}}}), .b(word[{top}:{low}]), .p(p_{lane}));
  always @(posedge clk) if (valid[3]) acc_{lane} <= (first[3] ? 24'sd0 : acc_{lane}) + $signed(p_{lane});
"""


def weights(lanes: int, bits: int, depth: int = DEPTH) -> NDArray[np.int64]:
    """Return the signed weights, shape (depth, lanes)."""
    return np.random.default_rng(5).integers(-(1 << (bits - 1)), 1 << (bits - 1), (depth, lanes))


def golden(vectors: int, lanes: int, bits: int, depth: int = DEPTH) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return random inputs, shape (vectors, depth * lanes), and what the lanes compute from them."""
    inputs = np.random.default_rng(6).integers(0, 256, (vectors, depth, lanes), dtype=np.uint8)
    sums = (inputs.astype(np.int64) * weights(lanes, bits, depth)).sum(axis=1)
    return inputs.reshape(vectors, -1), ((sums >> 8) & 255).astype(np.uint8)


def write_lanes(directory: Path, lanes: int, bits: int = 8, *, vectors: int = 3, depth: int = DEPTH) -> Path:
    """Write ``rtl/``, ``rom/`` and the golden samples into ``directory``; ``depth`` is a power of two."""
    from safetensors.numpy import save_file

    for folder in ("rtl", "rom", "ir"):
        (directory / folder).mkdir(parents=True)
    text = _HEAD.format(
        lanes=lanes,
        high=depth.bit_length() - 2,
        last=depth - 1,
        word=lanes * bits - 1,
        accumulators=", ".join(f"acc_{lane}" for lane in reversed(range(lanes))),
    )
    for lane in range(lanes):
        text += _LANE.format(lane=lane, product=9 + bits - 1, low=bits * lane, top=bits * (lane + 1) - 1)
    files = {
        "rtl/accelerator.v": text + "endmodule\n",
        "rtl/activation_bank.v": bank_verilog(depth),
        "rtl/multiplier.v": multiplier_verilog(9, bits),
        "rtl/rom_weights.v": rom_module("weights", depth, lanes * bits, 1, "block", "raw"),
        "rom/weights.json": json.dumps({"style": "block"}),
    }
    mask = (1 << bits) - 1
    words = [sum((int(w) & mask) << (bits * lane) for lane, w in enumerate(row)) for row in weights(lanes, bits, depth)]
    files["rom/weights.mem"] = "".join(f"{word:0{-(-lanes * bits // 4)}x}\n" for word in words)
    for name, content in files.items():
        (directory / name).write_text(content)
    inputs, outputs = golden(vectors, lanes, bits, depth)
    save_file(
        {"golden/input": inputs, "golden/output": outputs},
        directory / "ir" / "model.safetensors",
        metadata={"zeroskip": json.dumps({"format": "1.0", "input": "input", "output": "output"})},
    )
    return directory
