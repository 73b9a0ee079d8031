// Behavioural model of the ECP5 block RAM DP16KD in the modes that are used: one clock, with and without output register.
//
// The content is 2048 bytes of nine bits; a port of width 18 or 36 sees two or four of them, one of width 4, 2 or 1
// sees a part of the low eight bits. The wide ports take byte enables on their lowest address bits. A read that meets
// a write of the other port to the same place in the same cycle returns noise: the device does not define it.
// RANDOM_START is no parameter of the device: it fills the memory with noise before the first cycle.
module DP16KD(
  input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
  input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
  input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
  output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
  input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
  input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
  input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
  output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
);
  parameter DATA_WIDTH_A = 18;
  parameter DATA_WIDTH_B = 18;
  parameter REGMODE_A = "NOREG";
  parameter REGMODE_B = "NOREG";
  parameter RESETMODE = "SYNC";
  parameter ASYNC_RESET_RELEASE = "SYNC";
  parameter CSDECODE_A = "0b000";
  parameter CSDECODE_B = "0b000";
  parameter WRITEMODE_A = "NORMAL";
  parameter WRITEMODE_B = "NORMAL";
  parameter CLKAMUX = "CLKA";
  parameter CLKBMUX = "CLKB";
  parameter GSR = "ENABLED";
  parameter WID = 0;
  parameter RANDOM_START = 0;
  parameter [319:0] INITVAL_00 = 320'h0;
  parameter [319:0] INITVAL_01 = 320'h0;
  parameter [319:0] INITVAL_02 = 320'h0;
  parameter [319:0] INITVAL_03 = 320'h0;
  parameter [319:0] INITVAL_04 = 320'h0;
  parameter [319:0] INITVAL_05 = 320'h0;
  parameter [319:0] INITVAL_06 = 320'h0;
  parameter [319:0] INITVAL_07 = 320'h0;
  parameter [319:0] INITVAL_08 = 320'h0;
  parameter [319:0] INITVAL_09 = 320'h0;
  parameter [319:0] INITVAL_0A = 320'h0;
  parameter [319:0] INITVAL_0B = 320'h0;
  parameter [319:0] INITVAL_0C = 320'h0;
  parameter [319:0] INITVAL_0D = 320'h0;
  parameter [319:0] INITVAL_0E = 320'h0;
  parameter [319:0] INITVAL_0F = 320'h0;
  parameter [319:0] INITVAL_10 = 320'h0;
  parameter [319:0] INITVAL_11 = 320'h0;
  parameter [319:0] INITVAL_12 = 320'h0;
  parameter [319:0] INITVAL_13 = 320'h0;
  parameter [319:0] INITVAL_14 = 320'h0;
  parameter [319:0] INITVAL_15 = 320'h0;
  parameter [319:0] INITVAL_16 = 320'h0;
  parameter [319:0] INITVAL_17 = 320'h0;
  parameter [319:0] INITVAL_18 = 320'h0;
  parameter [319:0] INITVAL_19 = 320'h0;
  parameter [319:0] INITVAL_1A = 320'h0;
  parameter [319:0] INITVAL_1B = 320'h0;
  parameter [319:0] INITVAL_1C = 320'h0;
  parameter [319:0] INITVAL_1D = 320'h0;
  parameter [319:0] INITVAL_1E = 320'h0;
  parameter [319:0] INITVAL_1F = 320'h0;
  parameter [319:0] INITVAL_20 = 320'h0;
  parameter [319:0] INITVAL_21 = 320'h0;
  parameter [319:0] INITVAL_22 = 320'h0;
  parameter [319:0] INITVAL_23 = 320'h0;
  parameter [319:0] INITVAL_24 = 320'h0;
  parameter [319:0] INITVAL_25 = 320'h0;
  parameter [319:0] INITVAL_26 = 320'h0;
  parameter [319:0] INITVAL_27 = 320'h0;
  parameter [319:0] INITVAL_28 = 320'h0;
  parameter [319:0] INITVAL_29 = 320'h0;
  parameter [319:0] INITVAL_2A = 320'h0;
  parameter [319:0] INITVAL_2B = 320'h0;
  parameter [319:0] INITVAL_2C = 320'h0;
  parameter [319:0] INITVAL_2D = 320'h0;
  parameter [319:0] INITVAL_2E = 320'h0;
  parameter [319:0] INITVAL_2F = 320'h0;
  parameter [319:0] INITVAL_30 = 320'h0;
  parameter [319:0] INITVAL_31 = 320'h0;
  parameter [319:0] INITVAL_32 = 320'h0;
  parameter [319:0] INITVAL_33 = 320'h0;
  parameter [319:0] INITVAL_34 = 320'h0;
  parameter [319:0] INITVAL_35 = 320'h0;
  parameter [319:0] INITVAL_36 = 320'h0;
  parameter [319:0] INITVAL_37 = 320'h0;
  parameter [319:0] INITVAL_38 = 320'h0;
  parameter [319:0] INITVAL_39 = 320'h0;
  parameter [319:0] INITVAL_3A = 320'h0;
  parameter [319:0] INITVAL_3B = 320'h0;
  parameter [319:0] INITVAL_3C = 320'h0;
  parameter [319:0] INITVAL_3D = 320'h0;
  parameter [319:0] INITVAL_3E = 320'h0;
  parameter [319:0] INITVAL_3F = 320'h0;

  // A mode without a model ends the elaboration instead of simulating something else.
  generate
    if ((REGMODE_A != "NOREG" || REGMODE_B != "NOREG") && RESETMODE != "SYNC") DP16KD_asynchronous_output_register_has_no_model output_register();
    if (CSDECODE_A != "0b000" || CSDECODE_B != "0b000") DP16KD_chip_select_has_no_model chip_select();
  endgenerate

  wire [17:0] dia = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
  wire [17:0] dib = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
  wire [13:0] ada = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
  wire [13:0] adb = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
  wire [35:0] din_a = DATA_WIDTH_A == 36 ? {dib, dia} : {18'b0, dia};
  wire [35:0] din_b = {18'b0, dib};
  reg [35:0] out_a, out_b, held_a, held_b;
  wire [35:0] shown_a = REGMODE_A == "OUTREG" ? held_a : out_a;
  wire [35:0] shown_b = REGMODE_B == "OUTREG" ? held_b : out_b;

  assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = DATA_WIDTH_B == 36 ? shown_b[17:0] : shown_a[17:0];
  assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} = DATA_WIDTH_B == 36 ? shown_b[35:18] : shown_b[17:0];

  wire clk_a = CLKAMUX == "INV" ? ~CLKA : CLKA;
  wire clk_b = CLKBMUX == "INV" ? ~CLKB : CLKB;
  always @(posedge clk_a) if (RSTA) held_a <= 36'b0; else if (OCEA) held_a <= out_a;
  always @(posedge clk_b) if (RSTB) held_b <= 36'b0; else if (OCEB) held_b <= out_b;
  wire selected_a = CEA && {CSA2, CSA1, CSA0} == 3'b000;
  wire selected_b = CEB && {CSB2, CSB1, CSB0} == 3'b000;
  wire write_a = selected_a && WEA && !(RESETMODE == "SYNC" && RSTA);
  wire write_b = selected_b && WEB && !(RESETMODE == "SYNC" && RSTB);

  reg [8:0] mem [0:2047];

  // First byte and number of bytes that a port touches.
  wire [10:0] byte_a = DATA_WIDTH_A == 36 ? {ada[13:5], 2'b00} : DATA_WIDTH_A == 18 ? {ada[13:4], 1'b0} : ada[13:3];
  wire [10:0] byte_b = DATA_WIDTH_B == 36 ? {adb[13:5], 2'b00} : DATA_WIDTH_B == 18 ? {adb[13:4], 1'b0} : adb[13:3];
  localparam BYTES_A = DATA_WIDTH_A == 36 ? 4 : DATA_WIDTH_A == 18 ? 2 : 1;
  localparam BYTES_B = DATA_WIDTH_B == 36 ? 4 : DATA_WIDTH_B == 18 ? 2 : 1;
  localparam [10:0] REACH_A = ~(BYTES_A - 1);
  localparam [10:0] REACH_B = ~(BYTES_B - 1);
  // Address bits that choose a part of a byte, for both ports.
  localparam [2:0] PART_A = DATA_WIDTH_A == 1 ? 3'b111 : DATA_WIDTH_A == 2 ? 3'b110 : DATA_WIDTH_A == 4 ? 3'b100 : 3'b000;
  localparam [2:0] PART_B = DATA_WIDTH_B == 1 ? 3'b111 : DATA_WIDTH_B == 2 ? 3'b110 : DATA_WIDTH_B == 4 ? 3'b100 : 3'b000;
  wire same_part = ((ada[2:0] ^ adb[2:0]) & PART_A & PART_B) == 0;

  function [35:0] lane(input [8:0] b3, b2, b1, b0, input integer width, input [2:0] low);
    case (width)
      1: lane = {35'b0, b0[low]};
      2: lane = {34'b0, b0[{low[2:1], 1'b0} +: 2]};
      4: lane = {32'b0, b0[{low[2], 2'b00} +: 4]};
      9: lane = {27'b0, b0};
      18: lane = {18'b0, b1, b0};
      default: lane = {b3, b2, b1, b0};
    endcase
  endfunction

  function [8:0] merge(input [8:0] old, input [8:0] value, input integer width, input [2:0] low);
    begin
      merge = old;
      case (width)
        1: merge[low] = value[0];
        2: merge[{low[2:1], 1'b0} +: 2] = value[1:0];
        4: merge[{low[2], 2'b00} +: 4] = value[3:0];
        default: merge = value;
      endcase
    end
  endfunction

  function [3:0] enables(input integer width, input [3:0] low);
    case (width)
      36: enables = low;
      18: enables = {2'b00, low[1:0]};
      default: enables = 4'b0001;
    endcase
  endfunction

  function [35:0] mask(input [3:0] bytes);
    mask = {{9{bytes[3]}}, {9{bytes[2]}}, {9{bytes[1]}}, {9{bytes[0]}}};
  endfunction

  // Two bytes take 20 bits of the parameters.
  localparam [20479:0] CONTENT = {
    INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38,
    INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30,
    INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
    INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20,
    INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18,
    INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10,
    INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
    INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00
  };
  integer i;
  initial
    if (RANDOM_START) begin
      for (i = 0; i < 2048; i = i + 1) mem[i] = $random;
    end else
      for (i = 0; i < 2048; i = i + 1) mem[i] = CONTENT[20 * (i >> 1) + 9 * (i & 1) +: 9];

  wire [3:0] enable_a = enables(DATA_WIDTH_A, ada[3:0]);
  wire [35:0] old_a = lane(mem[byte_a | 3], mem[byte_a | 2], mem[byte_a | 1], mem[byte_a], DATA_WIDTH_A, ada[2:0]);
  reg [35:0] new_a;
  reg [3:0] noisy_a;
  integer n_a;
  always @(*)
    for (n_a = 0; n_a < 4; n_a = n_a + 1) begin
      new_a[9*n_a +: 9] = enable_a[n_a] ? din_a[9*n_a +: 9] : old_a[9*n_a +: 9];
      noisy_a[n_a] = write_b && same_part && (((byte_a | n_a[10:0]) ^ byte_b) & REACH_B) == 0
                   && enable_b[(byte_a[1:0] | n_a[1:0]) & ~REACH_B[1:0]];
    end
  integer w_a;
  always @(posedge clk_a)
    if (write_a)
      for (w_a = 0; w_a < BYTES_A; w_a = w_a + 1)
        if (enable_a[w_a])
          mem[byte_a | w_a[10:0]] <= merge(mem[byte_a | w_a[10:0]], din_a[9*w_a +: 9], DATA_WIDTH_A, ada[2:0]);
  generate
    if (RESETMODE == "ASYNC") begin : reset_a
      always @(posedge clk_a, posedge RSTA)
        if (RSTA) out_a <= 36'b0;
        else if (selected_a) read_a;
    end else begin : reset_a
      always @(posedge clk_a)
        if (RSTA) out_a <= 36'b0;
        else if (selected_a) read_a;
    end
  endgenerate
  task read_a;
    if (write_a) begin
      if (WRITEMODE_A == "WRITETHROUGH") out_a <= new_a;
      if (WRITEMODE_A == "READBEFOREWRITE") out_a <= old_a;
    end else
      out_a <= |noisy_a ? old_a ^ (mask(noisy_a) & {$random, $random}) : old_a;
  endtask

  wire [3:0] enable_b = enables(DATA_WIDTH_B, adb[3:0]);
  wire [35:0] old_b = lane(mem[byte_b | 3], mem[byte_b | 2], mem[byte_b | 1], mem[byte_b], DATA_WIDTH_B, adb[2:0]);
  reg [35:0] new_b;
  reg [3:0] noisy_b;
  integer n_b;
  always @(*)
    for (n_b = 0; n_b < 4; n_b = n_b + 1) begin
      new_b[9*n_b +: 9] = enable_b[n_b] ? din_b[9*n_b +: 9] : old_b[9*n_b +: 9];
      noisy_b[n_b] = write_a && same_part && (((byte_b | n_b[10:0]) ^ byte_a) & REACH_A) == 0
                   && enable_a[(byte_b[1:0] | n_b[1:0]) & ~REACH_A[1:0]];
    end
  integer w_b;
  always @(posedge clk_b)
    if (write_b)
      for (w_b = 0; w_b < BYTES_B; w_b = w_b + 1)
        if (enable_b[w_b])
          mem[byte_b | w_b[10:0]] <= merge(mem[byte_b | w_b[10:0]], din_b[9*w_b +: 9], DATA_WIDTH_B, adb[2:0]);
  generate
    if (RESETMODE == "ASYNC") begin : reset_b
      always @(posedge clk_b, posedge RSTB)
        if (RSTB) out_b <= 36'b0;
        else if (selected_b) read_b;
    end else begin : reset_b
      always @(posedge clk_b)
        if (RSTB) out_b <= 36'b0;
        else if (selected_b) read_b;
    end
  endgenerate
  task read_b;
    if (write_b) begin
      if (WRITEMODE_B == "WRITETHROUGH") out_b <= new_b;
      if (WRITEMODE_B == "READBEFOREWRITE") out_b <= old_b;
    end else
      out_b <= |noisy_b ? old_b ^ (mask(noisy_b) & {$random, $random}) : old_b;
  endtask

endmodule
