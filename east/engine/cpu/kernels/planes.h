// What kernels are told: geometry of a convolution, lists of its non-zeros, planes of an activation.
//
// A plane is one channel of an activation, [groups, height, width, 32], and a gap behind it; an image plane is one group of it,
// and a row one line of that: width * 32 numbers side by side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "arithmetic.h"
#include "threads.h"

namespace east {

// Numbers from one channel of an activation to the next. Without a gap, all channels would lie a multiple of a large power of
// two apart, and a cache keeps only a few lines at such distances.
inline int64_t plane_stride(int32_t groups, int64_t height, int64_t width) {
    constexpr int64_t gap = 5 * lanes;
    return groups * height * width * lanes + (height * width > 1 ? gap : 0);
}

struct Geometry {
    int32_t in_channels, in_height, in_width;
    int32_t out_channels, out_height, out_width;
    int32_t kernel, stride, padding;
    int32_t batch;

    int32_t groups() const { return groups_of(batch); }
    // Images of a group.
    int32_t images(int32_t group) const { return std::min(lanes, batch - group * lanes); }
    int64_t in_row() const { return int64_t(in_width) * lanes; }
    int64_t out_row() const { return int64_t(out_width) * lanes; }
    int64_t in_image() const { return in_height * in_row(); }
    int64_t out_image() const { return out_height * out_row(); }
    int64_t in_plane() const { return plane_stride(groups(), in_height, in_width); }
    int64_t out_plane() const { return plane_stride(groups(), out_height, out_width); }
    int64_t in_numbers() const { return groups() * in_image(); }
    int64_t out_numbers() const { return groups() * out_image(); }  // of a plane, which lie side by side
};

// The non-zeros of a convolution, grouped by output channel (row) or by input channel, each group in ascending order.
struct Lists {
    const int32_t* start;    // [channels + 1]: where a channel begins
    const int32_t* channel;  // the channel at the other end
    const int32_t* tap;      // kernel row * kernel + kernel column
    const int32_t* value;    // where its weight stands in the vector of values

    int32_t count(int64_t of) const { return start[of + 1] - start[of]; }
};

// How a channel of an activation is kept.
enum Kind : uint8_t { stored = 0, constant = 1, absent = 2 };

template <typename T>
struct Planes {
    T* data;
    const uint8_t* kind;  // [channels], or null where every channel is stored
    const Value<T>* constants;  // [channels]: the value of a constant channel

    bool is_stored(int64_t channel) const { return kind == nullptr || kind[channel] == stored; }
};

// Whether all these numbers, whole groups of 32, are zero of either sign.
template <typename T>
inline bool are_zero(const T* numbers, int64_t count) {
    using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
    for (int64_t k = 0; k < count; k += lanes) {
        Bits of_group[lanes], found = 0;
        std::memcpy(of_group, numbers + k, sizeof(of_group));
        for (int32_t lane = 0; lane < lanes; ++lane) found |= of_group[lane];
        if (Bits(found << 1) != 0) return false;
    }
    return true;
}

// Channels of which some number is not zero. The others, many in a very sparse network, leave zero in every sum of products.
class NonzeroChannels {
  public:
    // Is told of a channel whether it is zero, by several threads at once.
    template <typename IsZero>
    NonzeroChannels(int32_t channels, const IsZero& is_zero) : places_(channels, -1) {
        in_parallel([&](const Thread& thread) {
            thread.share(channels, [&](int64_t channel) { places_[channel] = is_zero(channel) ? -1 : 0; });
        });
        for (int32_t channel = 0; channel < channels; ++channel) {
            if (places_[channel] < 0) continue;
            places_[channel] = count();
            channels_.push_back(channel);
        }
    }

    int32_t count() const { return int32_t(channels_.size()); }
    const int32_t& operator[](int32_t place) const { return channels_[place]; }
    // Negative for a channel of zeros.
    int32_t place_of(int32_t channel) const { return places_[channel]; }

  private:
    std::vector<int32_t> channels_, places_;
};

// Non-zeros of an output channel up to which the gradient of a weight is found from sums of x, x g and x hat: from more,
// from the sum of x dz.
constexpr int32_t few = 3;

// Channels over which signs * dz are summed before these sums are added up.
constexpr int32_t sketch_channels = 8;

// A part of a plane that is worked on at once: a segment of one group. Its numbers lie side by side.
struct Segment {
    int32_t group, row_begin, row_end;

    int32_t rows() const { return row_end - row_begin; }
};

// The segments of a plane in order: group by group, and from the top down.
class Segments {
  public:
    Segments(int32_t groups, int32_t height, int32_t width)
        : groups_(groups), height_(height), rows_(std::min(segment_rows(width), height)), across_(segments_of(height, width)) {}
    int32_t count() const { return groups_ * across_; }
    int32_t most_rows() const { return rows_; }
    Segment operator[](int32_t index) const {
        const int32_t row = index % across_ * rows_;
        return {index / across_, row, std::min(row + rows_, height_)};
    }

  private:
    int32_t groups_, height_, rows_, across_;
};

inline Segments out_segments(const Geometry& g) { return Segments(g.groups(), g.out_height, g.out_width); }

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
        if (memory == nullptr) {
            std::fputs("error: there is no memory left for the kernels.\n", stderr);
            std::_Exit(1);
        }
        held = bytes;
    }
    return static_cast<T*>(memory.get());
}

}  // namespace east
