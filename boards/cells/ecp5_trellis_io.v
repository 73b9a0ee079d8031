// Behavioural model of an ECP5 pin without tristate nets, which Verilator cannot compare with 1'bz as Yosys' model does.
// A switched-off output reads low, so that a design that never enables it does not pass.
module TRELLIS_IO(inout B, input I, input T, output O);
  parameter DIR = "INPUT";
  generate
    if (DIR == "INPUT") assign O = B;
    else if (DIR == "OUTPUT") assign B = T ? 1'b0 : I;
    else TRELLIS_IO_bidirectional_has_no_model bidirectional();
  endgenerate
endmodule
