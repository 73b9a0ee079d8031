// Behavioural model of the ECP5 cell that drives MCLK, the clock of the configuration flash, with its pad as an output.
// The handover from configuration may swallow clocks: here the first eight are lost, a whole command. A released pad
// reads low, so that a design that never drives it does not pass.
module USRMCLK(input USRMCLKI, input USRMCLKTS, output MCLK);
  reg [3:0] lost = 0;
  always @(negedge USRMCLKI) if (!USRMCLKTS && !lost[3]) lost <= lost + 1'b1;
  assign MCLK = USRMCLKI & !USRMCLKTS & lost[3];
endmodule
