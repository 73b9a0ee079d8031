// A two-layer accelerator with the ports of a generated one; rom/fault.mem chooses what it does wrong.
//   conv1 (2, 2, 2): input + rom/conv1.mem      fc1 (3,): conv1[f] - conv1[f + 3] + rom/fc1.mem
module accelerator (
    input wire clk,
    input wire rst,
    input wire [7:0] i__payload,
    input wire i__valid,
    output wire i__ready,
    output wire [7:0] o__payload,
    output wire o__valid,
    input wire o__ready,
    output wire trace__valid,
    output reg trace__odd,
    output wire [0:0] trace__layer,
    output wire [1:0] trace__channel,
    output wire [1:0] trace__place,
    output wire [7:0] trace__data,
    output reg [1:0] state
);
    localparam LOAD = 0, CONV1 = 1, FC1 = 2, UNLOAD = 3;
    localparam WRONG = 1, MISSING = 2, REPEATED = 3, HANG = 4, RUNAWAY = 5, EXTRA_WORD = 6, OUTSIDE = 7, SKIP_STATE = 8;
    localparam QUIT = 9, STUCK = 10;

    wire [7:0] conv1_word, fc1_word;
    reg [3:0] count;
    rom_conv1 conv1_rom (.addr(count[2:0]), .data(conv1_word));
    rom_fc1 fc1_rom (.addr(count[1:0]), .data(fc1_word));

    reg [7:0] fault_rom [0:0];
    initial $readmemh("rom/fault.mem", fault_rom);
    wire [7:0] fault = fault_rom[0];

    reg [7:0] pixels [0:7];
    reg [7:0] features [0:7];
    reg [7:0] results [0:3];
    wire [7:0] feature = pixels[count[2:0]] + conv1_word;
    wire [7:0] result = features[count] - features[count + 3] + fc1_word + (fault == WRONG && count == 1);

    wire repeats = fault == REPEATED && state == FC1 && count == 3;
    assign i__ready = state == LOAD;
    assign o__valid = state == UNLOAD;
    assign o__payload = results[count[1:0]];
    assign trace__valid = (state == CONV1 && !(fault == MISSING && count == 6))
        || (state == FC1 && (count < 3 || fault == RUNAWAY || repeats));
    assign trace__layer = state == FC1;
    assign trace__channel = state == CONV1 ? count[2] : repeats ? 2 : fault == OUTSIDE && count == 2 ? 3 : count[1:0];
    assign trace__place = state == CONV1 ? count[1:0] : 0;
    assign trace__data = state == CONV1 ? feature : repeats ? results[2] : result;

    always @(posedge clk) begin
        if (rst) begin
            state <= LOAD;
            count <= 0;
            trace__odd <= 0;
        end else begin
            if (fault == QUIT) $finish;
            case (state)
                LOAD: if (i__valid) begin
                    pixels[count[2:0]] <= i__payload;
                    count <= count == 7 ? 0 : count + 1;
                    if (count == 7) state <= fault == SKIP_STATE ? FC1 : CONV1;
                end
                CONV1: begin
                    features[count[2:0]] <= feature;
                    count <= count == 7 ? 0 : count + 1;
                    if (count == 7) state <= FC1;
                end
                FC1: begin
                    if (count < 3) results[count[1:0]] <= result;
                    if (count < 3) count <= count + 1;
                    else if (fault != HANG && fault != RUNAWAY) begin
                        count <= 0;
                        state <= UNLOAD;
                    end
                end
                UNLOAD: if (o__ready) begin
                    count <= count + 1;
                    if (count == (fault == EXTRA_WORD ? 3 : 2)) begin
                        count <= 0;
                        state <= LOAD;
                        trace__odd <= !trace__odd && fault != STUCK;
                    end
                end
            endcase
        end
    end
endmodule
