// ROM image bias: 3 words of 1 bits, format table
module rom_bias(
    input wire clk,
    input wire [1:0] addr_0,
    output reg [0:0] data_0
);
    (* rom_style = "logic" *) reg [0:0] mem [0:2];
    initial $readmemh("rom/bias.mem", mem);
    reg [0:0] word_0;
    always @(posedge clk) begin
        word_0 <= mem[addr_0];
        data_0 <= word_0;
    end
endmodule
