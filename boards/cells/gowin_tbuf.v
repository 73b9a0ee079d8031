// Behavioural model of a Gowin output pin without tristate nets, which Verilator cannot compare with 1'bz as Yosys'
// model does. A switched-off output reads low, so that a design that never enables it does not pass.
module TBUF(output O, input I, OEN);
  assign O = OEN ? 1'b0 : I;
endmodule
