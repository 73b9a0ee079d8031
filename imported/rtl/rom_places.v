// ROM image places: 4 words of 6 bits, format table
module rom_places(
    input wire clk,
    input wire [1:0] addr_0,
    output reg [5:0] data_0
);
    (* rom_style = "logic" *) reg [5:0] mem [0:3];
    initial $readmemh("rom/places.mem", mem);
    reg [5:0] word_0;
    always @(posedge clk) begin
        word_0 <= mem[addr_0];
        data_0 <= word_0;
    end
endmodule
