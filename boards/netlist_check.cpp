// Host side of the netlist check: resets the board top, sends every input vector over the UART and stores what comes back.
//
// Usage: program INPUTS OUTPUTS VECTORS BYTES_IN BYTES_OUT DIVISOR RESET_CYCLES TIMEOUT SEED FLASH OFFSET WAKE_CYCLES SLEEPS
// FLASH is the file that an SPI flash holds from byte OFFSET on, erased elsewhere; - without one. Where it SLEEPS at
// first it answers nothing; either way it answers WAKE_CYCLES after it was woken.
// Exit code 0: every byte came; 3: no byte for TIMEOUT cycles; 4: a frame without a stop bit. A line on standard output
// says how many bytes came and how many cycles ran; OUTPUTS holds the bytes that came.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

namespace {

std::vector<char> read_file(const char* path) {
    std::ifstream source(path, std::ios::binary);
    return std::vector<char>((std::istreambuf_iterator<char>(source)), std::istreambuf_iterator<char>());
}

// SPI NOR flash, mode 0: wake-up (AB) and reads (03, 0B) of what lies there; silent lines read 1.
class Flash {
  public:
    Flash(const char* path, long offset, long wake_cycles, bool sleeps)
        : content_(read_file(path)), offset_(offset), wake_cycles_(wake_cycles), awake_from_(sleeps ? -1 : 0) {}

    // Follows the pins and returns the level of its output; `select` is low while it is addressed.
    int drive(long cycle, int select, int clock, int input) {
        const bool rises = clock && !clock_, falls = !clock && clock_;
        clock_ = clock;
        if (select) {
            if (bits_ == 8 && (word_ & 0xFF) == 0xAB) awake_from_ = cycle + wake_cycles_;
            bits_ = 0;
            output_ = 1;
            return output_;
        }
        if (bits_ == 0 && !rises) listens_ = awake_from_ >= 0 && cycle >= awake_from_;
        if (rises) {
            if (bits_ < 32) word_ = (word_ << 1) | unsigned(input);
            ++bits_;
        }
        const uint32_t command = word_ >> 24;
        // command and address, and the dummies of a fast read
        const long data = command == 0x0B ? 40 : 32;
        if (falls && bits_ >= data && (command == 0x03 || command == 0x0B) && listens_) {
            const long place = long(word_ & 0xFFFFFF) + (bits_ - data) / 8 - offset_;
            const bool held = place >= 0 && place < long(content_.size());
            output_ = held ? (content_[size_t(place)] >> (7 - (bits_ - data) % 8)) & 1 : 1;
        }
        return output_;
    }

  private:
    const std::vector<char> content_;
    const long offset_, wake_cycles_;
    long awake_from_, bits_ = 0;
    uint32_t word_ = 0;
    int clock_ = 0, output_ = 1;
    bool listens_ = false;
};

class Host {
  public:
    Host(Vtop& top, long divisor, Flash flash) : top_(top), divisor_(divisor), flash_(std::move(flash)) {}

    void cycle() {
        top_.clk = 1;
        top_.eval();
        top_.flash_cipo = flash_.drive(cycles, top_.flash_select, top_.flash_clk, top_.flash_copi);
        top_.clk = 0;
        top_.eval();
        ++cycles;
        listen();
    }

    void wait(long count) {
        for (long i = 0; i < count; ++i) cycle();
    }

    void send(uint8_t value) {
        const unsigned frame = (1u << 9) | (unsigned(value) << 1);
        for (int bit = 0; bit < 10; ++bit) {
            top_.rx = (frame >> bit) & 1;
            wait(divisor_);
        }
    }

    void start_listening() { listening_ = true; }

    long cycles = 0;
    bool framing_error = false;
    std::vector<uint8_t> received;

  private:
    // Samples each bit in its middle, counted from the falling edge of the start bit.
    void listen() {
        if (!listening_) return;
        if (bit_ < 0) {
            if (!top_.tx) {
                bit_ = 0;
                countdown_ = divisor_ / 2;
                shift_ = 0;
            }
            return;
        }
        if (--countdown_ > 0) return;
        countdown_ = divisor_;
        if (bit_ >= 1 && bit_ <= 8) shift_ |= unsigned(top_.tx) << (bit_ - 1);
        if (bit_ == 9) {
            if (!top_.tx) framing_error = true;
            received.push_back(uint8_t(shift_));
            bit_ = -1;
            return;
        }
        ++bit_;
    }

    Vtop& top_;
    long divisor_;
    Flash flash_;
    bool listening_ = false;
    int bit_ = -1;
    long countdown_ = 0;
    unsigned shift_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 14) return 2;
    const std::vector<char> inputs = read_file(argv[1]);
    const long vectors = atol(argv[3]), bytes_in = atol(argv[4]), bytes_out = atol(argv[5]);
    const long divisor = atol(argv[6]), reset_cycles = atol(argv[7]), timeout = atol(argv[8]);
    if (long(inputs.size()) != vectors * bytes_in) return 2;

    VerilatedContext context;
    context.randReset(2);
    context.randSeed(atoi(argv[9]));
    Vtop top(&context);
    top.rx = 1;
    top.button = 1;
    top.clk = 0;
    top.flash_cipo = 1;
    Host host(top, divisor, Flash(argv[10], atol(argv[11]), atol(argv[12]), atoi(argv[13]) != 0));
    host.wait(8);
    top.button = 0;
    host.wait(reset_cycles + 2 * divisor);
    host.start_listening();

    int code = 0;
    for (long vector = 0; vector < vectors && !code; ++vector) {
        for (long i = 0; i < bytes_in; ++i) host.send(uint8_t(inputs[vector * bytes_in + i]));
        const size_t wanted = size_t(vector + 1) * bytes_out;
        long last = host.cycles;
        size_t seen = host.received.size();
        while (host.received.size() < wanted && !code) {
            host.cycle();
            if (host.received.size() != seen) {
                seen = host.received.size();
                last = host.cycles;
            }
            if (host.cycles - last > timeout) code = 3;
            if (host.framing_error) code = 4;
        }
    }
    // A byte too many shows here.
    if (!code) host.wait(12 * divisor);
    std::ofstream(argv[2], std::ios::binary)
        .write(reinterpret_cast<const char*>(host.received.data()), std::streamsize(host.received.size()));
    printf("bytes %zu cycles %ld\n", host.received.size(), host.cycles);
    top.final();
    return code;
}
