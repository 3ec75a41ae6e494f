// Plays a tape of kernel calls (tape.py) and compares what they leave in memory with what they left where it was recorded.
//
//     player TAPE
//
// Memory that the tape says nothing about, scratch memory of kernels among it, is filled with the word TAPE_POISON of the
// environment (hexadecimal). Ends with 0 where all checksums are equal, with 1 at the first that differs, and with 2 where the
// tape cannot be played.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernel_table.h"

namespace {

// A NaN, where the environment has none.
uint32_t poison() {
    static const char* const chosen = std::getenv("TAPE_POISON");
    static const uint32_t word = chosen == nullptr ? 0x7fc00000 : std::strtoul(chosen, nullptr, 16);
    return word;
}

void fill_with_poison(void* memory, size_t bytes) {
    const uint32_t word = poison();
    for (size_t at = 0; at < bytes; at += sizeof(word)) {
        std::memcpy(static_cast<char*>(memory) + at, &word, std::min(sizeof(word), bytes - at));
    }
}

// The same function as `checksum` in tape.py, over `bytes` rounded up to whole words.
uint64_t checksum(const char* from, uint64_t bytes) {
    uint64_t sum = 0;
    for (uint64_t at = 0, factor = 0x9e3779b97f4a7c15; at < bytes; at += 4, factor += 0x3c6ef372fe94f82a) {
        uint32_t word;
        std::memcpy(&word, from + at, sizeof(word));
        const uint64_t mixed = (word + uint64_t(1)) * factor;
        sum += mixed ^ (mixed >> 31);
    }
    return sum;
}

class Tape {
  public:
    explicit Tape(const char* path) {
        std::ifstream file(path, std::ios::binary);
        if (!file) throw std::runtime_error("there is no such file");
        content_.assign(std::istreambuf_iterator<char>(file), {});
    }
    bool ended() const { return at_ == content_.size(); }
    const char* bytes(size_t count) {
        if (count > content_.size() - at_) throw std::runtime_error("it is cut short");
        at_ += count;
        return content_.data() + at_ - count;
    }
    uint64_t number() {
        uint64_t value;
        std::memcpy(&value, bytes(sizeof(value)), sizeof(value));
        return value;
    }
    std::string text() {
        const auto count = number();
        return std::string(bytes(count), count);
    }

  private:
    std::vector<char> content_;
    size_t at_ = 0;
};

struct Free {
    void operator()(char* memory) const { std::free(memory); }
};

class Player {
  public:
    explicit Player(const char* path) : tape_(path) {
        if (tape_.text() != "east tape 1") throw std::runtime_error("it is no tape");
    }

    // Returns whether all checksums were equal.
    bool play() {
        while (!tape_.ended()) {
            switch (tape_.number()) {
                case 0: step_ = tape_.text(); break;
                case 1: add_region(); break;
                case 2: write(); break;
                case 3: write_pointers(); break;
                case 4:
                    call();
                    if (!compare()) return false;
                    break;
                case 5:
                    last_ = "a call that was to leave it alone";
                    if (!compare()) return false;
                    break;
                default: throw std::runtime_error("it has an event of an unknown kind");
            }
        }
        std::printf("%zu calls, %zu checksums: all equal\n", calls_, checksums_);
        return true;
    }

  private:
    void add_region() {
        const auto id = tape_.number(), bytes = tape_.number();
        constexpr size_t line = 64;
        const size_t room = (bytes + line - 1) / line * line;
        auto* memory = static_cast<char*>(std::aligned_alloc(line, room));
        fill_with_poison(memory, room);
        regions_[id].reset(memory);
    }

    char* place() {
        const auto id = tape_.number(), offset = tape_.number();
        return regions_.at(id).get() + offset;
    }

    void write() {
        char* to = place();
        const auto bytes = tape_.number();
        std::memcpy(to, tape_.bytes(bytes), bytes);
    }

    void write_pointers() {
        char* to = place();
        for (auto count = tape_.number(); count > 0; --count, to += sizeof(char*)) {
            const char* pointer = place();
            std::memcpy(to, &pointer, sizeof(pointer));
        }
    }

    void call() {
        const auto name = tape_.text();
        last_ = name + " " + tape_.text();
        const auto bytes = tape_.number();
        const char* content = tape_.bytes(bytes);
        std::vector<char> arguments(content, content + bytes);
        for (auto count = tape_.number(); count > 0; --count) {
            const auto offset = tape_.number();
            const char* pointer = place();
            std::memcpy(arguments.data() + offset, &pointer, sizeof(pointer));
        }
        const auto found = tape::kernel_table().find(name);
        if (found == tape::kernel_table().end()) throw std::runtime_error("there is no kernel " + name);
        if (found->second.argument_bytes != bytes) {
            throw std::runtime_error("the arguments of " + name + " take " + std::to_string(bytes) + " bytes there and " +
                                     std::to_string(found->second.argument_bytes) + " here");
        }
        found->second.call(arguments.data());
        ++calls_;
    }

    bool compare() {
        bool equal = true;
        for (auto count = tape_.number(); count > 0; --count) {
            const char* from = place();
            const auto bytes = tape_.number(), expected = tape_.number();
            const auto what = tape_.text();
            equal = equal && checksum(from, bytes) == expected;
            ++checksums_;
            if (!equal) {
                std::printf("%s, call %zu: %s leaves other numbers in %s\n", step_.c_str(), calls_, last_.c_str(), what.c_str());
                return false;
            }
        }
        return true;
    }

    Tape tape_;
    std::unordered_map<uint64_t, std::unique_ptr<char, Free>> regions_;
    std::string step_, last_;
    size_t calls_ = 0, checksums_ = 0;
};

}  // namespace

// Kernels take their scratch memory from here.
extern "C" void* aligned_alloc(size_t alignment, size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment, bytes) != 0) return nullptr;
    fill_with_poison(memory, bytes);
    return memory;
}

// The kernels' own pool takes its number from TAPE_THREADS, as OpenMP does from OMP_NUM_THREADS.
extern "C" void east_use_threads(int32_t threads);

int main(int count, char** arguments) {
    if (const char* threads = std::getenv("TAPE_THREADS")) east_use_threads(std::atoi(threads));
    try {
        return Player(count > 1 ? arguments[1] : "").play() ? 0 : 1;
    } catch (const std::exception& error) {
        std::printf("the tape cannot be played: %s\n", error.what());
        return 2;
    }
}
