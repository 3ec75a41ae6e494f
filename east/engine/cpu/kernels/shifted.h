// One pass over several planes at once, each moved by a kernel position: for channels with few non-zeros.
//
// Reading all planes of a channel in one loop keeps memory busy all the time, and sums stay in registers.
#pragma once

#include "convolution.h"

namespace east {

// A plane, moved by a kernel position, times a weight.
template <typename T>
struct Shifted {
    const T* plane;  // of one channel; null for a constant
    const T* line;   // a row of the constant
    int32_t rows, columns;
    Value<T> value;
};

// Rows of zeros and of constants, that take the place of a plane where it has nothing.
template <typename T>
class Fillers {
  public:
    Fillers(int64_t row, int32_t constants) : row_(row), memory_(scratch<T, 4>(row * (constants + 1))) {
        fill(memory_, kept_as<T>(0), row);
    }
    const T* zeros() const { return memory_; }
    const T* constant(int32_t place, Value<T> value) const {
        T* to = memory_ + (place + 1) * row_;
        fill(to, kept_as<T>(value), row_);
        return to;
    }

  private:
    int64_t row_;
    T* memory_;
};

// Whether a convolution leaves the size of the image as it is and looks no further than one position to each side. Narrow
// images are better off segment by segment.
inline bool is_near(const Geometry& g) {
    return g.stride == 1 && g.kernel <= 3 && g.kernel == 2 * g.padding + 1 && g.out_width >= 6;
}

// Several planes of one size; at most `most`.
template <int most, typename T>
struct Reads {
    Shifted<T> items[most];
    int32_t count = 0;

    void add(const T* plane, const T* line, int32_t rows, int32_t columns, Value<T> value) {
        items[count++] = {plane, line, rows, columns, value};
    }
    bool is_straight() const {
        bool straight = true;
        for (int32_t j = 0; j < count; ++j) straight = straight && items[j].columns == 0;
        return straight;
    }
};

// Where the non-zeros of an output channel read; there are at most `few`.
template <typename T>
inline Reads<few, T> sources_of(const Geometry& g, const Lists& by_output, const Value<T>* values, const Planes<T>& x,
                                int64_t channel, const Fillers<T>& fillers) {
    Reads<few, T> from;
    for (int32_t j = by_output.start[channel]; j < by_output.start[channel + 1]; ++j) {
        const int32_t source = by_output.channel[j], tap = by_output.tap[j];
        const bool is_stored = x.is_stored(source);
        const T* line = is_stored ? nullptr : fillers.constant(from.count, x.constants[source]);
        from.add(is_stored ? x.data + source * g.in_plane() : nullptr, line, tap / g.kernel - g.padding,
                 tap % g.kernel - g.padding, values[by_output.value[j]]);
    }
    return from;
}

// The non-zeros of a channel whose sums are found at once.
constexpr int32_t at_once = 4;

// Calls `apply(places, offset)` for every position of a segment in order: plane j is read at places[j] + offset, and what is
// written lies `offset` numbers after the row that `begin_row(row)` was called with.
template <int count, typename T, typename BeginRow, typename Apply>
inline void for_each_position(const Geometry& g, const Segment& segment, const Shifted<T>* reads, const T* zeros, bool straight,
                              BeginRow begin_row, Apply apply) {
    const int32_t width = g.out_width;
    const int64_t row_numbers = g.out_row(), image = segment.group * g.out_image();
    for (int32_t row = segment.row_begin; row < segment.row_end; ++row) {
        const T *at[count], *border[count];
        for (int j = 0; j < count; ++j) {
            const int32_t from = row + reads[j].rows;
            const bool inside = from >= 0 && from < g.out_height;
            const T* moved = reads[j].plane == nullptr
                                 ? reads[j].line
                                 : reads[j].plane + image + from * row_numbers + reads[j].columns * lanes;
            at[j] = inside ? moved : zeros;
        }
        begin_row(row);
        if (straight) {
            for (int64_t k = 0; k < row_numbers; k += lanes) apply(at, k);
            continue;
        }
        for (int j = 0; j < count; ++j) border[j] = reads[j].columns < 0 ? zeros : at[j];
        apply(border, int64_t(0));
        for (int64_t k = lanes; k < row_numbers - lanes; k += lanes) apply(at, k);
        for (int j = 0; j < count; ++j) border[j] = reads[j].columns > 0 ? zeros : at[j];
        apply(border, int64_t(width - 1) * lanes);
    }
}

// Lane by lane, the sums over a segment of x times what lies in the segment, for the non-zeros [begin, begin + count) of a
// convolution that is near; `fillers` has room for as many constants.
template <int count, typename T>
inline void dot_near(const Geometry& g, const Lists& by_output, const Planes<T>& x, int32_t begin, const Segment& segment,
                     const T* of_segment, const Fillers<T>& fillers, LaneSums<Value<T>>* sums) {
    using V = Vector<T>;
    Shifted<T> reads[count];
    bool straight = true;
    for (int j = 0; j < count; ++j) {
        const int32_t source = by_output.channel[begin + j], tap = by_output.tap[begin + j];
        const bool is_stored = x.is_stored(source);
        const T* line = is_stored ? nullptr : fillers.constant(j, x.constants[source]);
        reads[j] = {is_stored ? x.data + source * g.in_plane() : nullptr, line, tap / g.kernel - g.padding,
                    tap % g.kernel - g.padding, Value<T>(1)};
        straight = straight && reads[j].columns == 0;
    }
    LaneSums<Value<T>> found[count];
    const T* row_of_segment = of_segment;
    const auto begin_row = [&](int32_t row) { row_of_segment = of_segment + (row - segment.row_begin) * g.out_row(); };
    const auto apply = [&](const T* const* at, int64_t k) {
        for (int r = 0; r < V::count; ++r) {
            const int64_t n = k + r * V::width;
            const auto right = V::load(row_of_segment + n);
            for (int j = 0; j < count; ++j) found[j].part[r] = fma(V::load(at[j] + n), right, found[j].part[r]);
        }
    };
    for_each_position<count>(g, segment, reads, fillers.zeros(), straight, begin_row, apply);
    for (int j = 0; j < count; ++j) sums[j] = found[j];
}

// Calls `take(j, sum)` with the sum over one segment for every non-zero j of an output channel.
template <typename T, typename Take>
inline void dot_channel(const Geometry& g, const Lists& by_output, const Planes<T>& x, int32_t channel, const Segment& segment,
                        const T* of_segment, const Fillers<T>& fillers, Take take) {
    int32_t j = by_output.start[channel];
    const int32_t end = by_output.start[channel + 1], images = g.images(segment.group);
    if (is_near(g)) {
        for (; j + at_once <= end; j += at_once) {
            LaneSums<Value<T>> sums[at_once];
            dot_near<at_once>(g, by_output, x, j, segment, of_segment, fillers, sums);
            for (int k = 0; k < at_once; ++k) take(j + k, sums[k].total(images));
        }
        for (; j + 2 <= end; j += 2) {
            LaneSums<Value<T>> sums[2];
            dot_near<2>(g, by_output, x, j, segment, of_segment, fillers, sums);
            for (int k = 0; k < 2; ++k) take(j + k, sums[k].total(images));
        }
    }
    for (; j < end; ++j) {
        const auto sums = dot_segment(g, x, by_output.channel[j], by_output.tap[j], segment, of_segment);
        take(j, sums.total(images));
    }
}

}  // namespace east
