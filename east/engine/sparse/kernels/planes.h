// What kernels are told: geometry of a convolution, lists of its non-zeros, planes of an activation.
//
// An activation is [channels, height, width, batch] with the batch innermost. A plane is one channel of it; a row is one
// line of a plane, width * batch numbers side by side.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace east {

struct Geometry {
    int32_t in_channels, in_height, in_width;
    int32_t out_channels, out_height, out_width;
    int32_t kernel, stride, padding;
    int32_t batch;

    int64_t in_plane() const { return int64_t(in_height) * in_width * batch; }
    int64_t out_plane() const { return int64_t(out_height) * out_width * batch; }
};

// The non-zeros of a convolution, grouped by output channel (row) or by input channel.
struct Lists {
    const int32_t* start;    // [groups + 1]: where a group begins
    const int32_t* channel;  // the channel at the other end
    const int32_t* tap;      // kernel row * kernel + kernel column
    const int32_t* value;    // where its weight stands in the vector of values
};

// Whether a group has no non-zero. Without lists (a dense convolution) no group is empty.
inline bool is_empty(const Lists& lists, int64_t group) {
    return lists.start != nullptr && lists.start[group] == lists.start[group + 1];
}

// How a channel of an activation is kept.
enum Kind : uint8_t { stored = 0, constant = 1, absent = 2 };

template <typename T>
struct Planes {
    T* data;
    const uint8_t* kind;  // [channels], or null where every channel is stored
    const T* constants;   // [channels]: the value of a constant channel

    bool is_stored(int64_t channel) const { return kind == nullptr || kind[channel] == stored; }
};

struct Span {
    int32_t begin, end;
};

// The output columns in [begin, end) whose input column for a kernel column lies within the image.
inline Span valid_columns(const Geometry& g, int32_t kernel_column, int32_t begin, int32_t end) {
    const int32_t offset = kernel_column - g.padding;  // input column = output column * stride + offset
    const int32_t first = offset >= 0 ? 0 : (-offset + g.stride - 1) / g.stride;
    const int32_t last = g.in_width - 1 - offset < 0 ? -1 : (g.in_width - 1 - offset) / g.stride;
    return {begin > first ? begin : first, end < last + 1 ? end : last + 1};
}

// A part of a plane that is worked on at once: some rows, or some columns of one row, so that it stays in the cache next to
// the processor. Its numbers lie side by side.
struct Tile {
    int32_t row_begin, row_end, column_begin, column_end;

    int32_t columns() const { return column_end - column_begin; }
    int64_t positions() const { return int64_t(row_end - row_begin) * columns(); }
};

// The tiles of a plane, one after the other.
class Tiling {
  public:
    Tiling(int32_t height, int32_t width, int32_t batch) : height_(height), width_(width) {
        const int32_t positions = tile_numbers / batch < 1 ? 1 : tile_numbers / batch;
        columns_ = positions < width ? positions : width;
        rows_ = columns_ < width ? 1 : (positions / width < height ? positions / width : height);
        across_ = (width + columns_ - 1) / columns_;
    }
    int32_t count() const { return (height_ + rows_ - 1) / rows_ * across_; }
    int32_t most_positions() const { return rows_ * columns_; }
    Tile operator[](int32_t index) const {
        const int32_t row = index / across_ * rows_, column = index % across_ * columns_;
        return {row, row + rows_ < height_ ? row + rows_ : height_, column,
                column + columns_ < width_ ? column + columns_ : width_};
    }

  private:
    static constexpr int32_t tile_numbers = 2048;
    int32_t height_, width_, rows_, columns_, across_;
};

// Memory that a thread keeps from one kernel to the next: taking it anew would clear its pages each time.
template <typename T, int slot>
inline T* scratch(int64_t count) {
    struct Free {
        void operator()(void* data) const { std::free(data); }
    };
    thread_local std::unique_ptr<void, Free> memory;
    thread_local size_t held = 0;
    constexpr size_t line = 64;
    const size_t bytes = (sizeof(T) * count + line - 1) / line * line;
    if (bytes > held) {
        memory.reset();
        memory.reset(std::aligned_alloc(line, bytes));
        held = memory == nullptr ? 0 : bytes;
    }
    return static_cast<T*>(memory.get());
}

}  // namespace east
