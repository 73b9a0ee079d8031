"""A folder as compile writes it, with a small hand-written accelerator and its golden vectors, for the board tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["BYTES_IN", "BYTES_OUT", "GOOD", "TRAP", "UNRESET", "UNWRITTEN", "golden", "weights", "write_sample"]

BYTES_IN, BYTES_OUT = 8, 4

GOOD = "prod <= x * w0; total <= prod + x55 * w1;"
"""Multiplies and adds in a form that every tool maps well."""

TRAP = "p0 <= x * w0; p1 <= x55 * w1; total <= p0 + p1;"
"""Two registered products, added into a register: ``synth_ice40 -dsp`` loses one of them."""

UNRESET = "carry"
"""The accumulator is never cleared: right only when flip-flops start at zero."""

UNWRITTEN = "memory"
"""One input is never stored: right only when memories start at zero."""

_ACCELERATOR = """\
module accelerator(input clk, input rst, input [7:0] i__payload, input i__valid, output i__ready,
                   output [7:0] o__payload, output o__valid, input o__ready);
  // Output row r is the middle byte of the sum over k of x[k] * w[r][k][7:0] + (x[k] ^ 0x55) * w[r][k][15:8].
  localparam LAST = {last}, ROWS = {rows};
  reg [7:0] mem [0:63];
  reg [1:0] state;
  reg [2:0] k;
  reg [1:0] row;
  reg [3:0] drain;
  reg signed [7:0] x, x55, w0, w1;
  reg signed [15:0] p0, p1;
  reg signed [15:0] prod;
  reg signed [16:0] total;
  reg signed [23:0] sum;
  reg [4:0] valid;
  reg [7:0] stored;
  wire [17:0] word;
  rom_weights weights(.clk(clk), .addr({{row, k}}), .data(word));
  assign i__ready = state == 0;
  assign o__valid = state == 3;
  assign o__payload = sum[15:8];
  always @(posedge clk) begin
    if (state == 0 && i__valid{store}) mem[{{3'b0, k}}] <= i__payload;
    stored <= mem[{{3'b0, k}}];
  end
  always @(posedge clk) begin
    x <= stored; x55 <= stored ^ 8'h55; w0 <= word[7:0]; w1 <= word[15:8];
    {multiply}
    valid <= {{valid[3:0], state == 1}};
    if (valid[3]) sum <= sum + total;
    case (state)
      0: if (i__valid) begin k <= k + 1; if (k == LAST) begin state <= 1; row <= 0; end end
      1: begin k <= k + 1; drain <= 0; if (k == LAST) state <= 2; end
      2: begin drain <= drain + 1; if (drain == 7) state <= 3; end
      3: if (o__ready) begin row <= row + 1; state <= row == ROWS - 1 ? 0 : 1; sum <= 0; end
    endcase
    if (rst) begin state <= 0; k <= 0; row <= 0; valid <= 0; {reset} end
  end
endmodule
"""

_ROM = """\
module rom_weights(input clk, input [4:0] addr, output reg [17:0] data);
  (* rom_style = "{style}" *) reg [17:0] mem [0:31];
  initial $readmemh("rom/weights.mem", mem);
  always @(posedge clk) data <= mem[addr];
endmodule
"""


def weights() -> NDArray[np.int64]:
    """Return the ROM words, shape (BYTES_OUT * BYTES_IN,)."""
    return np.random.default_rng(3).integers(0, 1 << 18, BYTES_OUT * BYTES_IN)


def golden(vectors: int, form: str = GOOD) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return random inputs and what the sample computes from them."""
    inputs = np.random.default_rng(4).integers(0, 256, (vectors, BYTES_IN), dtype=np.uint8)
    stored = inputs.copy()
    if form == UNWRITTEN:
        stored[:, 3] = 0
    x, x55 = stored.view(np.int8).astype(np.int64), (stored ^ 0x55).view(np.int8).astype(np.int64)
    words = weights().reshape(BYTES_OUT, BYTES_IN)
    low, high = (((words >> shift) & 255).astype(np.uint8).view(np.int8).astype(np.int64) for shift in (0, 8))
    sums = x @ low.T + x55 @ high.T
    return inputs, ((sums >> 8) & 255).astype(np.uint8)


def write_sample(directory: Path, form: str = GOOD, *, vectors: int = 4, rom_in_logic: bool = False) -> Path:
    """Write ``rtl/``, ``rom/`` and the golden samples of one form of the sample into ``directory``."""
    from safetensors.numpy import save_file

    for folder in ("rtl", "rom", "ir"):
        (directory / folder).mkdir(parents=True)
    text = _ACCELERATOR.format(
        last=BYTES_IN - 1,
        rows=BYTES_OUT,
        multiply=TRAP if form == TRAP else GOOD,
        store=" && k != 3" if form == UNWRITTEN else "",
        reset="" if form == UNRESET else "sum <= 0;",
    )
    (directory / "rtl" / "accelerator.v").write_text(text)
    rom = _ROM.format(style="logic" if rom_in_logic else "block")
    (directory / "rtl" / "rom_weights.v").write_text(rom)
    (directory / "rom" / "weights.mem").write_text("".join(f"{word:05x}\n" for word in weights()))
    (directory / "rom" / "weights.json").write_text(json.dumps({"style": "block", "word_bits": 18}))
    inputs, outputs = golden(vectors, form)
    header = {"format": "1.0", "input": "input", "output": "output"}
    save_file(
        {"golden/input": inputs, "golden/output": outputs},
        directory / "ir" / "model.safetensors",
        metadata={"zeroskip": json.dumps(header)},
    )
    return directory
