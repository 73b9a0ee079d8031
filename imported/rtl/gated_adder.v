// Gated adder, 9 bits, without carry
module gated_adder(
    input wire clear,
    input wire [8:0] a,
    input wire [8:0] b,
    output wire [8:0] s
);
    assign s = (clear ? 9'd0 : a) + b;
endmodule
