// Behavioural models of the Gowin block RAMs that synth_gowin instantiates: SP, SDPB, DPB with bytes of eight bits and
// SPX9, SDPX9B, DPX9B with bytes of nine, without output register.
//
// The content is 2048 bytes; a port sees one, two or four of them, or, in the memories with eight bits, a part of one.
// Ports of two and four bytes take byte enables on their lowest address bits. A read that meets a write of the other
// port to the same byte in the same cycle returns noise there: the device does not define it.
// RANDOM_START is no parameter of the device: it fills the memory with noise before the first cycle.
module gowin_bsram #(
  parameter BYTE = 9, WIDTH_A = 9, WIDTH_B = 9, WRITE_MODE_A = 0, WRITE_MODE_B = 0, ASYNC_RESET = 0, RANDOM_START = 0,
  parameter [2048*BYTE-1:0] CONTENT = 0
) (
  input clk_a, ce_a, wre_a, reset_a, clk_b, ce_b, wre_b, reset_b,
  input [13:0] ad_a, ad_b,
  input [4*BYTE-1:0] di_a, di_b,
  output reg [4*BYTE-1:0] do_a, do_b
);
  reg [BYTE-1:0] mem [0:2047];
  integer i;
  initial for (i = 0; i < 2048; i = i + 1) mem[i] = RANDOM_START ? $random : CONTENT[BYTE*i +: BYTE];

  localparam BYTES_A = WIDTH_A < BYTE ? 1 : WIDTH_A / BYTE;
  localparam BYTES_B = WIDTH_B < BYTE ? 1 : WIDTH_B / BYTE;
  localparam [10:0] REACH_A = ~(BYTES_A - 1);
  localparam [10:0] REACH_B = ~(BYTES_B - 1);
  // Address bits that choose a part of a byte.
  localparam [2:0] PART_A = WIDTH_A == 1 ? 3'b111 : WIDTH_A == 2 ? 3'b110 : WIDTH_A == 4 ? 3'b100 : 3'b000;
  localparam [2:0] PART_B = WIDTH_B == 1 ? 3'b111 : WIDTH_B == 2 ? 3'b110 : WIDTH_B == 4 ? 3'b100 : 3'b000;
  wire [10:0] byte_a = ad_a[13:3] & REACH_A;
  wire [10:0] byte_b = ad_b[13:3] & REACH_B;
  wire [3:0] enable_a = BYTES_A == 1 ? 4'b0001 : BYTES_A == 2 ? {2'b00, ad_a[1:0]} : ad_a[3:0];
  wire [3:0] enable_b = BYTES_B == 1 ? 4'b0001 : BYTES_B == 2 ? {2'b00, ad_b[1:0]} : ad_b[3:0];
  wire write_a = ce_a && wre_a;
  wire write_b = ce_b && wre_b;
  wire same_part = ((ad_a[2:0] ^ ad_b[2:0]) & PART_A & PART_B) == 0;

  // Bits of a byte that a port sees, and where they begin.
  localparam [BYTE-1:0] MASK_A = WIDTH_A < BYTE ? (1 << WIDTH_A) - 1 : {BYTE{1'b1}};
  localparam [BYTE-1:0] MASK_B = WIDTH_B < BYTE ? (1 << WIDTH_B) - 1 : {BYTE{1'b1}};
  wire [2:0] low_a = ad_a[2:0] & PART_A;
  wire [2:0] low_b = ad_b[2:0] & PART_B;

  reg [4*BYTE-1:0] old_a, new_a, noise_a;
  integer n_a, w_a;
  always @(*) begin
    old_a = 0;
    new_a = 0;
    noise_a = 0;
    for (n_a = 0; n_a < BYTES_A; n_a = n_a + 1) begin
      old_a[BYTE*n_a +: BYTE] = (mem[byte_a | n_a[10:0]] >> low_a) & MASK_A;
      new_a[BYTE*n_a +: BYTE] = enable_a[n_a] ? di_a[BYTE*n_a +: BYTE] & MASK_A : old_a[BYTE*n_a +: BYTE];
      if (write_b && same_part && ((byte_a | n_a[10:0]) & REACH_B) == byte_b
          && enable_b[(byte_a[1:0] | n_a[1:0]) & ~REACH_B[1:0]]) noise_a[BYTE*n_a +: BYTE] = MASK_A;
    end
  end
  always @(posedge clk_a) begin
    if (write_a)
      for (w_a = 0; w_a < BYTES_A; w_a = w_a + 1)
        if (enable_a[w_a])
          mem[byte_a | w_a[10:0]] <= (mem[byte_a | w_a[10:0]] & ~(MASK_A << low_a))
                                   | ((di_a[BYTE*w_a +: BYTE] & MASK_A) << low_a);
  end
  task read_a;
    if (write_a) begin
      if (WRITE_MODE_A == 1) do_a <= new_a;
      if (WRITE_MODE_A == 2) do_a <= old_a;
    end else if (ce_a)
      do_a <= old_a ^ (noise_a & {$random, $random});
  endtask
  generate
    if (ASYNC_RESET) begin : output_a
      always @(posedge clk_a, posedge reset_a) if (reset_a) do_a <= 0; else read_a;
    end else begin : output_a
      always @(posedge clk_a) if (reset_a) do_a <= 0; else read_a;
    end
  endgenerate

  reg [4*BYTE-1:0] old_b, new_b, noise_b;
  integer n_b, w_b;
  always @(*) begin
    old_b = 0;
    new_b = 0;
    noise_b = 0;
    for (n_b = 0; n_b < BYTES_B; n_b = n_b + 1) begin
      old_b[BYTE*n_b +: BYTE] = (mem[byte_b | n_b[10:0]] >> low_b) & MASK_B;
      new_b[BYTE*n_b +: BYTE] = enable_b[n_b] ? di_b[BYTE*n_b +: BYTE] & MASK_B : old_b[BYTE*n_b +: BYTE];
      if (write_a && same_part && ((byte_b | n_b[10:0]) & REACH_A) == byte_a
          && enable_a[(byte_b[1:0] | n_b[1:0]) & ~REACH_A[1:0]]) noise_b[BYTE*n_b +: BYTE] = MASK_B;
    end
  end
  always @(posedge clk_b) begin
    if (write_b)
      for (w_b = 0; w_b < BYTES_B; w_b = w_b + 1)
        if (enable_b[w_b])
          mem[byte_b | w_b[10:0]] <= (mem[byte_b | w_b[10:0]] & ~(MASK_B << low_b))
                                   | ((di_b[BYTE*w_b +: BYTE] & MASK_B) << low_b);
  end
  task read_b;
    if (write_b) begin
      if (WRITE_MODE_B == 1) do_b <= new_b;
      if (WRITE_MODE_B == 2) do_b <= old_b;
    end else if (ce_b)
      do_b <= old_b ^ (noise_b & {$random, $random});
  endtask
  generate
    if (ASYNC_RESET) begin : output_b
      always @(posedge clk_b, posedge reset_b) if (reset_b) do_b <= 0; else read_b;
    end else begin : output_b
      always @(posedge clk_b) if (reset_b) do_b <= 0; else read_b;
    end
  endgenerate
endmodule

`define INIT_ROWS \
  parameter [ROW-1:0] INIT_RAM_00 = 0; parameter [ROW-1:0] INIT_RAM_01 = 0; \
  parameter [ROW-1:0] INIT_RAM_02 = 0; parameter [ROW-1:0] INIT_RAM_03 = 0; \
  parameter [ROW-1:0] INIT_RAM_04 = 0; parameter [ROW-1:0] INIT_RAM_05 = 0; \
  parameter [ROW-1:0] INIT_RAM_06 = 0; parameter [ROW-1:0] INIT_RAM_07 = 0; \
  parameter [ROW-1:0] INIT_RAM_08 = 0; parameter [ROW-1:0] INIT_RAM_09 = 0; \
  parameter [ROW-1:0] INIT_RAM_0A = 0; parameter [ROW-1:0] INIT_RAM_0B = 0; \
  parameter [ROW-1:0] INIT_RAM_0C = 0; parameter [ROW-1:0] INIT_RAM_0D = 0; \
  parameter [ROW-1:0] INIT_RAM_0E = 0; parameter [ROW-1:0] INIT_RAM_0F = 0; \
  parameter [ROW-1:0] INIT_RAM_10 = 0; parameter [ROW-1:0] INIT_RAM_11 = 0; \
  parameter [ROW-1:0] INIT_RAM_12 = 0; parameter [ROW-1:0] INIT_RAM_13 = 0; \
  parameter [ROW-1:0] INIT_RAM_14 = 0; parameter [ROW-1:0] INIT_RAM_15 = 0; \
  parameter [ROW-1:0] INIT_RAM_16 = 0; parameter [ROW-1:0] INIT_RAM_17 = 0; \
  parameter [ROW-1:0] INIT_RAM_18 = 0; parameter [ROW-1:0] INIT_RAM_19 = 0; \
  parameter [ROW-1:0] INIT_RAM_1A = 0; parameter [ROW-1:0] INIT_RAM_1B = 0; \
  parameter [ROW-1:0] INIT_RAM_1C = 0; parameter [ROW-1:0] INIT_RAM_1D = 0; \
  parameter [ROW-1:0] INIT_RAM_1E = 0; parameter [ROW-1:0] INIT_RAM_1F = 0; \
  parameter [ROW-1:0] INIT_RAM_20 = 0; parameter [ROW-1:0] INIT_RAM_21 = 0; \
  parameter [ROW-1:0] INIT_RAM_22 = 0; parameter [ROW-1:0] INIT_RAM_23 = 0; \
  parameter [ROW-1:0] INIT_RAM_24 = 0; parameter [ROW-1:0] INIT_RAM_25 = 0; \
  parameter [ROW-1:0] INIT_RAM_26 = 0; parameter [ROW-1:0] INIT_RAM_27 = 0; \
  parameter [ROW-1:0] INIT_RAM_28 = 0; parameter [ROW-1:0] INIT_RAM_29 = 0; \
  parameter [ROW-1:0] INIT_RAM_2A = 0; parameter [ROW-1:0] INIT_RAM_2B = 0; \
  parameter [ROW-1:0] INIT_RAM_2C = 0; parameter [ROW-1:0] INIT_RAM_2D = 0; \
  parameter [ROW-1:0] INIT_RAM_2E = 0; parameter [ROW-1:0] INIT_RAM_2F = 0; \
  parameter [ROW-1:0] INIT_RAM_30 = 0; parameter [ROW-1:0] INIT_RAM_31 = 0; \
  parameter [ROW-1:0] INIT_RAM_32 = 0; parameter [ROW-1:0] INIT_RAM_33 = 0; \
  parameter [ROW-1:0] INIT_RAM_34 = 0; parameter [ROW-1:0] INIT_RAM_35 = 0; \
  parameter [ROW-1:0] INIT_RAM_36 = 0; parameter [ROW-1:0] INIT_RAM_37 = 0; \
  parameter [ROW-1:0] INIT_RAM_38 = 0; parameter [ROW-1:0] INIT_RAM_39 = 0; \
  parameter [ROW-1:0] INIT_RAM_3A = 0; parameter [ROW-1:0] INIT_RAM_3B = 0; \
  parameter [ROW-1:0] INIT_RAM_3C = 0; parameter [ROW-1:0] INIT_RAM_3D = 0; \
  parameter [ROW-1:0] INIT_RAM_3E = 0; parameter [ROW-1:0] INIT_RAM_3F = 0;
`define INIT_CONTENT { \
  INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A, INIT_RAM_39, INIT_RAM_38, \
  INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30, \
  INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28, \
  INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22, INIT_RAM_21, INIT_RAM_20, \
  INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, \
  INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10, \
  INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A, INIT_RAM_09, INIT_RAM_08, \
  INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00 }

module SP(
  input CLK, CE, OCE, RESET, WRE, input [2:0] BLKSEL, input [13:0] AD, input [31:0] DI, output [31:0] DO
);
  parameter READ_MODE = 1'b0;
  parameter WRITE_MODE = 2'b00;
  parameter BIT_WIDTH = 32;
  parameter BLK_SEL = 3'b000;
  parameter RESET_MODE = "SYNC";
  parameter RANDOM_START = 0;
  localparam ROW = 256;
  `INIT_ROWS
  // A mode without a model ends the elaboration instead of simulating something else.
  generate if (READ_MODE) SP_output_register_has_no_model output_register(); endgenerate
  gowin_bsram #(
    .BYTE(8), .WIDTH_A(BIT_WIDTH), .WIDTH_B(BIT_WIDTH), .WRITE_MODE_A(WRITE_MODE), .ASYNC_RESET(RESET_MODE == "ASYNC"), .RANDOM_START(RANDOM_START),
    .CONTENT(`INIT_CONTENT)
  ) core(
    .clk_a(CLK), .ce_a(CE && BLKSEL == BLK_SEL), .wre_a(WRE), .reset_a(RESET), .ad_a(AD), .di_a(DI), .do_a(DO),
    .clk_b(1'b0), .ce_b(1'b0), .wre_b(1'b0), .reset_b(1'b0), .ad_b(14'b0), .di_b(32'b0), .do_b()
  );
endmodule

module SDPB(
  input CLKA, CEA, CLKB, CEB, OCE, RESETA, RESETB, input [2:0] BLKSELA, BLKSELB, input [13:0] ADA, ADB,
  input [31:0] DI, output [31:0] DO
);
  parameter READ_MODE = 1'b0;
  parameter BIT_WIDTH_0 = 32;
  parameter BIT_WIDTH_1 = 32;
  parameter BLK_SEL_0 = 3'b000;
  parameter BLK_SEL_1 = 3'b000;
  parameter RESET_MODE = "SYNC";
  parameter RANDOM_START = 0;
  localparam ROW = 256;
  `INIT_ROWS
  generate if (READ_MODE) SDPB_output_register_has_no_model output_register(); endgenerate
  gowin_bsram #(
    .BYTE(8), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .ASYNC_RESET(RESET_MODE == "ASYNC"), .RANDOM_START(RANDOM_START),
    .CONTENT(`INIT_CONTENT)
  ) core(
    .clk_a(CLKA), .ce_a(CEA && BLKSELA == BLK_SEL_0), .wre_a(1'b1), .reset_a(RESETA), .ad_a(ADA), .di_a(DI), .do_a(),
    .clk_b(CLKB), .ce_b(CEB && BLKSELB == BLK_SEL_1), .wre_b(1'b0), .reset_b(RESETB), .ad_b(ADB), .di_b(32'b0), .do_b(DO)
  );
endmodule

module DPB(
  input CLKA, CEA, OCEA, RESETA, WREA, CLKB, CEB, OCEB, RESETB, WREB, input [2:0] BLKSELA, BLKSELB,
  input [13:0] ADA, ADB, input [15:0] DIA, DIB, output [15:0] DOA, DOB
);
  parameter READ_MODE0 = 1'b0;
  parameter READ_MODE1 = 1'b0;
  parameter WRITE_MODE0 = 2'b00;
  parameter WRITE_MODE1 = 2'b00;
  parameter BIT_WIDTH_0 = 16;
  parameter BIT_WIDTH_1 = 16;
  parameter BLK_SEL_0 = 3'b000;
  parameter BLK_SEL_1 = 3'b000;
  parameter RESET_MODE = "SYNC";
  parameter RANDOM_START = 0;
  localparam ROW = 256;
  `INIT_ROWS
  generate if (READ_MODE0 || READ_MODE1) DPB_output_register_has_no_model output_register(); endgenerate
  wire [31:0] out_a, out_b;
  assign DOA = out_a[15:0];
  assign DOB = out_b[15:0];
  gowin_bsram #(
    .BYTE(8), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .WRITE_MODE_A(WRITE_MODE0), .WRITE_MODE_B(WRITE_MODE1),
    .ASYNC_RESET(RESET_MODE == "ASYNC"), .RANDOM_START(RANDOM_START),
    .CONTENT(`INIT_CONTENT)
  ) core(
    .clk_a(CLKA), .ce_a(CEA && BLKSELA == BLK_SEL_0), .wre_a(WREA), .reset_a(RESETA), .ad_a(ADA),
    .di_a({16'b0, DIA}), .do_a(out_a),
    .clk_b(CLKB), .ce_b(CEB && BLKSELB == BLK_SEL_1), .wre_b(WREB), .reset_b(RESETB), .ad_b(ADB),
    .di_b({16'b0, DIB}), .do_b(out_b)
  );
endmodule

module SPX9(
  input CLK, CE, OCE, RESET, WRE, input [2:0] BLKSEL, input [13:0] AD, input [35:0] DI, output [35:0] DO
);
  parameter READ_MODE = 1'b0;
  parameter WRITE_MODE = 2'b00;
  parameter BIT_WIDTH = 36;
  parameter BLK_SEL = 3'b000;
  parameter RESET_MODE = "SYNC";
  parameter RANDOM_START = 0;
  localparam ROW = 288;
  `INIT_ROWS
  generate if (READ_MODE) SPX9_output_register_has_no_model output_register(); endgenerate
  gowin_bsram #(
    .BYTE(9), .WIDTH_A(BIT_WIDTH), .WIDTH_B(BIT_WIDTH), .WRITE_MODE_A(WRITE_MODE), .ASYNC_RESET(RESET_MODE == "ASYNC"), .RANDOM_START(RANDOM_START),
    .CONTENT(`INIT_CONTENT)
  ) core(
    .clk_a(CLK), .ce_a(CE && BLKSEL == BLK_SEL), .wre_a(WRE), .reset_a(RESET), .ad_a(AD), .di_a(DI), .do_a(DO),
    .clk_b(1'b0), .ce_b(1'b0), .wre_b(1'b0), .reset_b(1'b0), .ad_b(14'b0), .di_b(36'b0), .do_b()
  );
endmodule

module SDPX9B(
  input CLKA, CEA, CLKB, CEB, OCE, RESETA, RESETB, input [2:0] BLKSELA, BLKSELB, input [13:0] ADA, ADB,
  input [35:0] DI, output [35:0] DO
);
  parameter READ_MODE = 1'b0;
  parameter BIT_WIDTH_0 = 36;
  parameter BIT_WIDTH_1 = 36;
  parameter BLK_SEL_0 = 3'b000;
  parameter BLK_SEL_1 = 3'b000;
  parameter RESET_MODE = "SYNC";
  parameter RANDOM_START = 0;
  localparam ROW = 288;
  `INIT_ROWS
  generate if (READ_MODE) SDPX9B_output_register_has_no_model output_register(); endgenerate
  gowin_bsram #(
    .BYTE(9), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .ASYNC_RESET(RESET_MODE == "ASYNC"), .RANDOM_START(RANDOM_START),
    .CONTENT(`INIT_CONTENT)
  ) core(
    .clk_a(CLKA), .ce_a(CEA && BLKSELA == BLK_SEL_0), .wre_a(1'b1), .reset_a(RESETA), .ad_a(ADA), .di_a(DI), .do_a(),
    .clk_b(CLKB), .ce_b(CEB && BLKSELB == BLK_SEL_1), .wre_b(1'b0), .reset_b(RESETB), .ad_b(ADB), .di_b(36'b0), .do_b(DO)
  );
endmodule

module DPX9B(
  input CLKA, CEA, OCEA, RESETA, WREA, CLKB, CEB, OCEB, RESETB, WREB, input [2:0] BLKSELA, BLKSELB,
  input [13:0] ADA, ADB, input [17:0] DIA, DIB, output [17:0] DOA, DOB
);
  parameter READ_MODE0 = 1'b0;
  parameter READ_MODE1 = 1'b0;
  parameter WRITE_MODE0 = 2'b00;
  parameter WRITE_MODE1 = 2'b00;
  parameter BIT_WIDTH_0 = 18;
  parameter BIT_WIDTH_1 = 18;
  parameter BLK_SEL_0 = 3'b000;
  parameter BLK_SEL_1 = 3'b000;
  parameter RESET_MODE = "SYNC";
  parameter RANDOM_START = 0;
  localparam ROW = 288;
  `INIT_ROWS
  generate if (READ_MODE0 || READ_MODE1) DPX9B_output_register_has_no_model output_register(); endgenerate
  wire [35:0] out_a, out_b;
  assign DOA = out_a[17:0];
  assign DOB = out_b[17:0];
  gowin_bsram #(
    .BYTE(9), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .WRITE_MODE_A(WRITE_MODE0), .WRITE_MODE_B(WRITE_MODE1),
    .ASYNC_RESET(RESET_MODE == "ASYNC"), .RANDOM_START(RANDOM_START),
    .CONTENT(`INIT_CONTENT)
  ) core(
    .clk_a(CLKA), .ce_a(CEA && BLKSELA == BLK_SEL_0), .wre_a(WREA), .reset_a(RESETA), .ad_a(ADA),
    .di_a({18'b0, DIA}), .do_a(out_a),
    .clk_b(CLKB), .ce_b(CEB && BLKSELB == BLK_SEL_1), .wre_b(WREB), .reset_b(RESETB), .ad_b(ADB),
    .di_b({18'b0, DIB}), .do_b(out_b)
  );
endmodule

`undef INIT_ROWS
`undef INIT_CONTENT
