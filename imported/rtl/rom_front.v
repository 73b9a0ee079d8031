// Descriptor ROM front: 1 words of 20 bits
module rom_front(
    input wire clk,
    input wire en,
    input wire [0:0] addr,
    output reg [19:0] data
);
    (* rom_style = "logic" *) reg [19:0] mem [0:0];
    initial $readmemh("rom/front.mem", mem);
    always @(posedge clk) if (en) data <= mem[addr];
endmodule
