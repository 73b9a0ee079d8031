// Signed multiplier, 9 x 5 bits, with registered operands and product
module multiplier(
    input wire clk,
    input wire signed [8:0] a,
    input wire signed [4:0] b,
    output reg signed [13:0] p
);
    reg signed [8:0] a_r;
    reg signed [4:0] b_r;
    always @(posedge clk) begin
        a_r <= a;
        b_r <= b;
        p <= a_r * b_r;
    end
endmodule
