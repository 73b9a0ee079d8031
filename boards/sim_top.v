// Simulation top: feeds module `accelerator` from a file, takes its results and writes what it does to logs.
//
// Plain files, named by +run=FOLDER, so that no test bench code runs while the design runs:
//   in   inputs.bin    one byte an input word, all inferences in a row
//   out  trace.hex     {cycle 48, inference 16, layer 16, channel 16, place 32, data 16}, one record a value written
//   out  outputs.hex   {cycle 48, data 16}, one record an output word accepted
//   out  inputs.hex    {cycle 48, word 48}, one record for the first and the last input word of each inference
//   out  states.hex    {cycle 48, state 16}, one record a change of `state`
//   out  end.hex       {cycle 48, status 16, state 16, input words 48}, one record
//   out  pages.hex     {page 16}, one record where the CRC of a page was wrong (parameters from outside)
// Inference 0 runs alone: the input of inference 1 is offered after its last output word. From there inputs are always
// available. Cycles are counted from the end of reset. With PAGES parameters come from outside, with FLASH from a model of
// the flash; then inference 0 waits until the first pages are there.
module sim_top #(
    parameter LAYER_BITS = 8,
    parameter CHANNEL_BITS = 16,
    parameter PLACE_BITS = 16,
    parameter RESULTS = 1,
    parameter PAGE_BITS = 1,
    parameter FLASH_OFFSET = 0,
    parameter FLASH_WAKE = 0,
    parameter STATE_BITS = 8
) (
    input wire clk  /*verilator public_flat_rw*/,
    input wire rst  /*verilator public_flat_rw*/
);
    localparam RUNNING = 16'd0, DONE = 16'd1, HUNG = 16'd2, RUNAWAY = 16'd3, CORRUPT = 16'd4;
    localparam DRAIN_CYCLES = 64;

    reg finished  /*verilator public_flat_rw*/;

    string run, waves;
    integer input_file, trace_log, output_log, input_log, state_log, end_log, page_log;
    reg [47:0] inferences, input_words, output_words, trace_limit, idle_limit;
    reg [31:0] seed;
    reg [8:0] input_gap, output_gap;

    initial begin
        finished = 0;
        if (!$value$plusargs("run=%s", run)) $fatal(1, "+run is missing");
        if (!$value$plusargs("inferences=%d", inferences)) $fatal(1, "+inferences is missing");
        if (!$value$plusargs("input_words=%d", input_words)) $fatal(1, "+input_words is missing");
        if (!$value$plusargs("output_words=%d", output_words)) $fatal(1, "+output_words is missing");
        if (!$value$plusargs("trace_limit=%d", trace_limit)) $fatal(1, "+trace_limit is missing");
        if (!$value$plusargs("idle_limit=%d", idle_limit)) $fatal(1, "+idle_limit is missing");
        if (!$value$plusargs("seed=%d", seed)) $fatal(1, "+seed is missing");
        if (!$value$plusargs("input_gap=%d", input_gap)) $fatal(1, "+input_gap is missing");
        if (!$value$plusargs("output_gap=%d", output_gap)) $fatal(1, "+output_gap is missing");
        input_file = $fopen({run, "/inputs.bin"}, "rb");
        trace_log = $fopen({run, "/trace.hex"}, "w");
        output_log = $fopen({run, "/outputs.hex"}, "w");
        input_log = $fopen({run, "/inputs.hex"}, "w");
        state_log = $fopen({run, "/states.hex"}, "w");
        end_log = $fopen({run, "/end.hex"}, "w");
        page_log = $fopen({run, "/pages.hex"}, "w");
        if (input_file == 0 || end_log == 0) $fatal(1, "files under +run cannot be opened");
`ifdef __ICARUS__
        if ($value$plusargs("waves=%s", waves)) begin
            $dumpfile(waves);
            $dumpvars(0, sim_top);
        end
`endif
    end

    reg [7:0] i_payload;
    reg i_valid, o_ready;
    wire i_ready, o_valid;
    wire [RESULTS-1:0] trace_valid;
    wire trace_odd;
    wire [7:0] o_payload;
    wire [8*RESULTS-1:0] trace_data;
    wire [LAYER_BITS-1:0] trace_layer;
    wire [CHANNEL_BITS-1:0] trace_channel;
    wire [PLACE_BITS-1:0] trace_place;
    wire [STATE_BITS-1:0] state;

    wire primed, corrupt;
    wire [PAGE_BITS-1:0] page;
    wire [15:0] page_16 = page;
`ifndef PAGES
    assign corrupt = 0;
    assign page = 0;
`endif
`ifdef FLASH
    wire flash_cs, flash_sck;
    wire [3:0] flash_o, flash_oe, flash_i;
    sim_flash #(.OFFSET(FLASH_OFFSET), .WAKE(FLASH_WAKE)) flash (
        .clk(clk), .cs(flash_cs), .sck(flash_sck), .o(flash_o), .oe(flash_oe), .i(flash_i)
    );
`else
    assign primed = 1;
`endif

    accelerator dut (
`ifdef PAGES
        .pages__failed(corrupt), .pages__number(page),
`endif
`ifdef FLASH
        .pages__primed(primed),
        .flash__cs(flash_cs), .flash__clk(flash_sck), .flash__o(flash_o), .flash__oe(flash_oe), .flash__i(flash_i),
`endif
        .clk(clk), .rst(rst),
        .i__payload(i_payload), .i__valid(i_valid), .i__ready(i_ready),
        .o__payload(o_payload), .o__valid(o_valid), .o__ready(o_ready),
        .trace__valid(trace_valid), .trace__odd(trace_odd), .trace__layer(trace_layer), .trace__channel(trace_channel),
        .trace__place(trace_place), .trace__data(trace_data),
        .state(state)
    );

    wire [15:0] layer_16 = trace_layer, channel_16 = trace_channel, state_16 = state;
    wire [31:0] place_32 = trace_place;
    integer result;
    reg [47:0] traced_now;
    // Results of one inference may leave while the next one runs: a bit that changes with every inference tells them.
    reg traced_odd;
    reg [15:0] traced_inference;
    wire [15:0] inference_16 = traced_inference + (trace_odd != traced_odd);

    // xorshift32: one step a cycle gives the gaps of the source and the pauses of the sink.
    reg [31:0] random;
    function [31:0] next_random(input [31:0] value);
        reg [31:0] mixed;
        begin
            mixed = value ^ (value << 13);
            mixed = mixed ^ (mixed >> 17);
            next_random = mixed ^ (mixed << 5);
        end
    endfunction
    wire input_paused = {1'b0, random[7:0]} < input_gap;
    wire output_paused = {1'b0, random[23:16]} < output_gap;

    reg [47:0] cycle, idle, traced;
    reg [47:0] input_word, input_inference, offered_word, offered_inference, output_word, output_inference;
    reg [47:0] accepted_words;
    reg [STATE_BITS-1:0] last_state;
    reg state_known;
    reg [15:0] drain, status;

    wire input_accepted = i_valid & i_ready;
    wire output_accepted = o_valid & o_ready;
    wire all_received = output_inference >= inferences;
    // The second inference waits for the first one's last result; the later ones do not wait.
    wire may_offer = primed && offered_inference < inferences && (offered_inference != 1 || output_inference != 0);

    always @(posedge clk) begin
        if (rst) begin
            i_valid <= 0;
            i_payload <= 0;
            o_ready <= 0;
            random <= seed;
            cycle <= 0;
            idle <= 0;
            traced <= 0;
            traced_odd <= 0;
            traced_inference <= 0;
            input_word <= 0;
            input_inference <= 0;
            offered_word <= 0;
            offered_inference <= 0;
            output_word <= 0;
            output_inference <= 0;
            accepted_words <= 0;
            state_known <= 0;
            drain <= 0;
            status <= RUNNING;
        end else if (!finished) begin
            cycle <= cycle + 1;
            random <= next_random(random);
            o_ready <= !output_paused;

            if (input_accepted || !i_valid) begin
                i_valid <= 0;
                if (may_offer && !input_paused) begin
                    i_valid <= 1;
                    i_payload <= $fgetc(input_file);
                    offered_word <= offered_word + 1;
                    if (offered_word + 1 == input_words) begin
                        offered_word <= 0;
                        offered_inference <= offered_inference + 1;
                    end
                end
            end

            if (input_accepted) begin
                accepted_words <= accepted_words + 1;
                input_word <= input_word + 1;
                if (input_word == 0 || input_word + 1 == input_words)
                    $fwrite(input_log, "%h", {cycle, accepted_words});
                if (input_word + 1 == input_words) begin
                    input_word <= 0;
                    input_inference <= input_inference + 1;
                end
            end

            traced_now = 0;
            for (result = 0; result < RESULTS; result = result + 1) begin
                if (trace_valid[result]) begin
                    traced_now = traced_now + 1;
                    $fwrite(trace_log, "%h",
                            {cycle, inference_16, layer_16, channel_16, place_32 + result, 8'b0, trace_data[8*result +: 8]});
                end
            end
            traced <= traced + traced_now;
            if (|trace_valid) begin
                traced_odd <= trace_odd;
                traced_inference <= inference_16;
            end

            if (output_accepted) begin
                $fwrite(output_log, "%h", {cycle, 8'b0, o_payload});
                output_word <= output_word + 1;
                if (output_word + 1 == output_words) begin
                    output_word <= 0;
                    output_inference <= output_inference + 1;
                    traced <= 0;
                end
            end

            if (!state_known || state != last_state) begin
                $fwrite(state_log, "%h", {cycle, state_16});
                last_state <= state;
                state_known <= 1;
            end

            idle <= input_accepted || |trace_valid || output_accepted ? 0 : idle + 1;
            if (all_received) drain <= drain + 1;

            if (drain == DRAIN_CYCLES) status <= DONE;
            else if (corrupt) status <= CORRUPT;
            else if (traced > trace_limit) status <= RUNAWAY;
            else if (!all_received && idle >= idle_limit) status <= HUNG;

            if (status == CORRUPT) $fwrite(page_log, "%h", page_16);
            if (status != RUNNING) begin
                $fwrite(end_log, "%h", {cycle, status, state_16, accepted_words});
                $fclose(input_file);
                $fclose(trace_log);
                $fclose(output_log);
                $fclose(input_log);
                $fclose(state_log);
                $fclose(end_log);
                $fclose(page_log);
                finished <= 1;
            end
        end
    end
endmodule
