// Behavioural models of the Gowin multipliers, any of their registers, without the shift chain between neighbours.
module gowin_mult #(
  parameter WIDTH = 9, AREG = 0, BREG = 0, ASIGN_REG = 0, BSIGN_REG = 0, PIPE_REG = 0, OUT_REG = 0
) (
  input CLK, CE, RESET, ASIGN, BSIGN,
  input [WIDTH-1:0] A, B,
  output [2*WIDTH-1:0] DOUT
);
  reg [WIDTH-1:0] input_a, input_b;
  reg sign_a, sign_b;
  reg signed [2*WIDTH-1:0] pipeline, held;
  wire [WIDTH-1:0] used_a = AREG ? input_a : A;
  wire [WIDTH-1:0] used_b = BREG ? input_b : B;
  wire top_a = (ASIGN_REG ? sign_a : ASIGN) & used_a[WIDTH-1];
  wire top_b = (BSIGN_REG ? sign_b : BSIGN) & used_b[WIDTH-1];
  wire signed [2*WIDTH-1:0] wide_a = {{WIDTH{top_a}}, used_a};
  wire signed [2*WIDTH-1:0] wide_b = {{WIDTH{top_b}}, used_b};
  wire signed [2*WIDTH-1:0] full = wide_a * wide_b;
  wire signed [2*WIDTH-1:0] piped = PIPE_REG ? pipeline : full;
  assign DOUT = OUT_REG ? held : piped;
  always @(posedge CLK)
    if (RESET) begin
      {input_a, input_b, sign_a, sign_b} <= 0;
      pipeline <= 0;
      held <= 0;
    end else if (CE) begin
      {input_a, input_b, sign_a, sign_b} <= {A, B, ASIGN, BSIGN};
      pipeline <= full;
      held <= piped;
    end
endmodule

module MULT9X9(
  input [8:0] A, B, SIA, SIB, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET, output [17:0] DOUT, output [8:0] SOA, SOB
);
  parameter AREG = 1'b0;
  parameter BREG = 1'b0;
  parameter OUT_REG = 1'b0;
  parameter PIPE_REG = 1'b0;
  parameter ASIGN_REG = 1'b0;
  parameter BSIGN_REG = 1'b0;
  parameter SOA_REG = 1'b0;
  parameter MULT_RESET_MODE = "SYNC";
  // A mode without a model ends the elaboration instead of simulating something else.
  generate
    if (MULT_RESET_MODE != "SYNC") MULT9X9_asynchronous_reset_has_no_model reset_mode();
    if (SOA_REG) MULT9X9_shift_register_has_no_model shift_register();
  endgenerate
  gowin_mult #(
    .WIDTH(9), .AREG(AREG), .BREG(BREG), .ASIGN_REG(ASIGN_REG), .BSIGN_REG(BSIGN_REG), .PIPE_REG(PIPE_REG), .OUT_REG(OUT_REG)
  ) core(.CLK(CLK), .CE(CE), .RESET(RESET), .ASIGN(ASIGN), .BSIGN(BSIGN), .A(ASEL ? SIA : A), .B(BSEL ? SIB : B), .DOUT(DOUT));
endmodule

module MULT18X18(
  input [17:0] A, B, SIA, SIB, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET, output [35:0] DOUT, output [17:0] SOA, SOB
);
  parameter AREG = 1'b0;
  parameter BREG = 1'b0;
  parameter OUT_REG = 1'b0;
  parameter PIPE_REG = 1'b0;
  parameter ASIGN_REG = 1'b0;
  parameter BSIGN_REG = 1'b0;
  parameter SOA_REG = 1'b0;
  parameter MULT_RESET_MODE = "SYNC";
  generate
    if (MULT_RESET_MODE != "SYNC") MULT18X18_asynchronous_reset_has_no_model reset_mode();
    if (SOA_REG) MULT18X18_shift_register_has_no_model shift_register();
  endgenerate
  gowin_mult #(
    .WIDTH(18), .AREG(AREG), .BREG(BREG), .ASIGN_REG(ASIGN_REG), .BSIGN_REG(BSIGN_REG), .PIPE_REG(PIPE_REG), .OUT_REG(OUT_REG)
  ) core(.CLK(CLK), .CE(CE), .RESET(RESET), .ASIGN(ASIGN), .BSIGN(BSIGN), .A(ASEL ? SIA : A), .B(BSEL ? SIB : B), .DOUT(DOUT));
endmodule

module MULT36X36(input [35:0] A, B, input ASIGN, BSIGN, CE, CLK, RESET, output [71:0] DOUT);
  parameter AREG = 1'b0;
  parameter BREG = 1'b0;
  parameter OUT0_REG = 1'b0;
  parameter OUT1_REG = 1'b0;
  parameter PIPE_REG = 1'b0;
  parameter ASIGN_REG = 1'b0;
  parameter BSIGN_REG = 1'b0;
  parameter MULT_RESET_MODE = "SYNC";
  generate
    if (AREG || BREG || OUT0_REG || OUT1_REG || PIPE_REG || ASIGN_REG || BSIGN_REG)
      MULT36X36_registers_have_no_model registers();
  endgenerate
  gowin_mult #(.WIDTH(36)) core(
    .CLK(CLK), .CE(CE), .RESET(RESET), .ASIGN(ASIGN), .BSIGN(BSIGN), .A(A), .B(B), .DOUT(DOUT)
  );
endmodule
