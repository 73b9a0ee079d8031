// One activation bank: 6 words of 8 bits, 1 written at once
module activation_bank(
    input wire clk,
    input wire [2:0] read_addr,
    output reg [7:0] read_data,
    input wire [2:0] write_addr,
    input wire [7:0] write_data,
    input wire write_en
);
    (* no_rw_check, ram_style = "block" *) reg [7:0] mem [0:5];
    reg [7:0] word;
    always @(posedge clk) begin
        if (write_en) mem[write_addr] <= write_data;
        word <= mem[read_addr];
        read_data <= word;
    end
endmodule
