// An SPI flash that holds a file at an offset, and ones elsewhere. Commands AB (wake-up), 03, 0B, 6B and EB, mode 0.
//
// It sleeps until WAKE cycles of `clk` after the wake-up command; a sleeping flash, or one that is asked anything else,
// does not answer. Who drives a line that the flash drives gets wrong data.
module sim_flash #(
    parameter OFFSET = 0,
    parameter WAKE = 0
) (
    input wire clk,
    input wire cs,
    input wire sck,
    input wire [3:0] o,
    input wire [3:0] oe,
    output reg [3:0] i
);
    integer file;
    initial begin
        file = $fopen("rom/parameters.bin", "rb");
        if (file == 0) $fatal(1, "rom/parameters.bin cannot be opened");
        i = 4'b1111;
        awake = 0;
        count = 0;
        waking = 0;
    end

    reg awake, waking;
    reg [47:0] slept;
    always @(posedge clk) begin
        slept <= waking ? slept + 1 : 0;
        if (waking && slept >= WAKE) awake <= 1;
    end

    // clocks since select, what was received in them, and the byte that is on its way
    reg [31:0] count;
    reg [7:0] command, byte_;
    reg [23:0] address;

    function [7:0] content(input [23:0] at);
        begin
            content = 8'hff;
            if (at >= OFFSET && $fseek(file, at - OFFSET, 0) == 0) content = $fgetc(file);
        end
    endfunction

    wire [31:0] address_clocks = command == 8'heb ? 6 : 24;
    // mode and dummies
    wire [31:0] wait_clocks = command == 8'h03 ? 0 : command == 8'heb ? 6 : 8;
    wire [31:0] first = 8 + address_clocks + wait_clocks;
    wire quad = command == 8'h6b || command == 8'heb;
    wire known = quad || command == 8'h03 || command == 8'h0b;
    wire answers = awake && known && count >= first && count >= 8;

    always @(posedge sck) begin
        if (cs) begin
            count <= count + 1;
            if (count < 8) command <= {command[6:0], o[0]};
            else if (count < 8 + address_clocks)
                address <= command == 8'heb ? {address[19:0], o} : {address[22:0], o[0]};
        end
    end

    wire [31:0] bit_ = quad ? (count - first) % 2 : (count - first) % 8;
    reg [7:0] now;
    always @(negedge sck) begin
        if (cs && answers) begin
            now = bit_ == 0 ? content(address) : byte_;
            byte_ <= now;
            if (quad) begin
                i <= bit_ == 0 ? now[7:4] : now[3:0];
                if (|oe) i <= ~now[3:0];
            end else begin
                i <= {2'b11, oe[1] ? ~now[7 - bit_] : now[7 - bit_], 1'b1};
            end
            if (bit_ == (quad ? 1 : 7)) address <= address + 1;
        end
    end

    always @(negedge cs) begin
        if (command == 8'hab && count == 8) waking <= 1;
        count <= 0;
        i <= 4'b1111;
    end
endmodule
