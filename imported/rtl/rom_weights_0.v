// ROM image weights_0: 6 words of 20 bits, format weights
module rom_weights_0(
    input wire clk,
    input wire [2:0] addr_0,
    output reg [19:0] data_0
);
    (* rom_style = "block" *) reg [19:0] mem [0:5];
    initial $readmemh("rom/weights_0.mem", mem);
    reg [19:0] word_0;
    always @(posedge clk) begin
        word_0 <= mem[addr_0];
        data_0 <= word_0;
    end
endmodule
