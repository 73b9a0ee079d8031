// Descriptor ROM back: 1 words of 29 bits
module rom_back(
    input wire clk,
    input wire en,
    input wire [0:0] addr,
    output reg [28:0] data
);
    (* rom_style = "logic" *) reg [28:0] mem [0:0];
    initial $readmemh("rom/back.mem", mem);
    always @(posedge clk) if (en) data <= mem[addr];
endmodule
