// Behavioural models of iCE40 pins without registers and tristate nets, which Verilator cannot compare with 1'bz as
// Yosys' models do. A switched-off output reads low, so that a design that never enables it does not pass.
module SB_IO(
  inout PACKAGE_PIN,
  input LATCH_INPUT_VALUE, CLOCK_ENABLE, INPUT_CLK, OUTPUT_CLK, OUTPUT_ENABLE, D_OUT_0, D_OUT_1,
  output D_IN_0, D_IN_1
);
  parameter [5:0] PIN_TYPE = 6'b000000;
  parameter [0:0] PULLUP = 1'b0;
  parameter [0:0] NEG_TRIGGER = 1'b0;
  parameter IO_STANDARD = "SB_LVCMOS";
  generate
    if (PIN_TYPE == 6'b000001) assign D_IN_0 = PACKAGE_PIN;
    else if (PIN_TYPE == 6'b011001) assign PACKAGE_PIN = D_OUT_0;
    else if (PIN_TYPE == 6'b101001) assign PACKAGE_PIN = OUTPUT_ENABLE ? D_OUT_0 : 1'b0;
    else SB_IO_pin_type_has_no_model pin_type();
  endgenerate
endmodule

module SB_GB_IO(
  inout PACKAGE_PIN,
  output GLOBAL_BUFFER_OUTPUT,
  input LATCH_INPUT_VALUE, CLOCK_ENABLE, INPUT_CLK, OUTPUT_CLK, OUTPUT_ENABLE, D_OUT_0, D_OUT_1,
  output D_IN_0, D_IN_1
);
  parameter [5:0] PIN_TYPE = 6'b000000;
  parameter [0:0] PULLUP = 1'b0;
  parameter [0:0] NEG_TRIGGER = 1'b0;
  parameter IO_STANDARD = "SB_LVCMOS";
  generate
    if (PIN_TYPE == 6'b000001) begin
      assign GLOBAL_BUFFER_OUTPUT = PACKAGE_PIN;
      assign D_IN_0 = PACKAGE_PIN;
    end else SB_GB_IO_pin_type_has_no_model pin_type();
  endgenerate
endmodule
