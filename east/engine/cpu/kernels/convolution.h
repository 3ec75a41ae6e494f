// The sparse convolution of one segment: every non-zero is a multiply-add over contiguous numbers.
#pragma once

#include "planes.h"

namespace east {

// Columns [begin, end) of an axis whose counterpart lies within the image.
struct Span {
    int32_t begin, end;
};

// The output positions at which a kernel position meets the image, on one axis of `outputs` outputs and `inputs` inputs.
inline Span valid_outputs(int32_t outputs, int32_t inputs, int32_t stride, int32_t offset) {
    const int32_t first = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
    const int32_t last = inputs - 1 - offset < 0 ? -1 : (inputs - 1 - offset) / stride;
    return {first, std::min(outputs, last + 1)};
}

// Calls `apply(offset in the segment, offset in the image plane, count)` for every run of contiguous numbers that one kernel
// position connects: the segment is one of outputs, the image plane one of inputs.
template <typename Apply>
inline void for_each_run(const Geometry& g, int32_t tap, const Segment& segment, Apply apply) {
    const int32_t row_offset = tap / g.kernel - g.padding, column_offset = tap % g.kernel - g.padding;
    const Span columns = valid_outputs(g.out_width, g.in_width, g.stride, column_offset);
    const Span rows = valid_outputs(g.out_height, g.in_height, g.stride, row_offset);
    const int32_t begin = std::max(rows.begin, segment.row_begin), end = std::min(rows.end, segment.row_end);
    const int32_t width = columns.end - columns.begin;
    if (begin >= end || width <= 0) return;
    int64_t to = (begin - segment.row_begin) * g.out_row() + columns.begin * lanes;
    int64_t from = (begin * g.stride + row_offset) * g.in_row() + (columns.begin * g.stride + column_offset) * lanes;
    if (g.stride == 1 && width == g.out_width && width == g.in_width) {
        apply(to, from, (end - begin) * g.out_row());
        return;
    }
    for (int32_t row = begin; row < end; ++row, to += g.out_row(), from += g.stride * g.in_row()) {
        if (g.stride == 1) {
            apply(to, from, int64_t(width) * lanes);
            continue;
        }
        for (int32_t column = 0; column < width; ++column) {
            apply(to + column * lanes, from + int64_t(column) * g.stride * lanes, int64_t(lanes));
        }
    }
}

// The same where the segment is one of inputs and the image plane one of outputs, as gradients go.
template <typename Apply>
inline void for_each_run_back(const Geometry& g, int32_t tap, const Segment& segment, Apply apply) {
    const int32_t row_offset = tap / g.kernel - g.padding, column_offset = tap % g.kernel - g.padding;
    const Span columns = valid_outputs(g.out_width, g.in_width, g.stride, column_offset);
    const Span rows = valid_outputs(g.out_height, g.in_height, g.stride, row_offset);
    // Output rows whose input row lies in the segment.
    const int32_t low = segment.row_begin - row_offset, high = segment.row_end - 1 - row_offset;
    const int32_t begin = std::max(rows.begin, low <= 0 ? 0 : (low + g.stride - 1) / g.stride);
    const int32_t end = std::min(rows.end, high < 0 ? 0 : high / g.stride + 1);
    const int32_t width = columns.end - columns.begin;
    if (begin >= end || width <= 0) return;
    int64_t from = begin * g.out_row() + columns.begin * lanes;
    int64_t to = (begin * g.stride + row_offset - segment.row_begin) * g.in_row() +
                 (columns.begin * g.stride + column_offset) * lanes;
    if (g.stride == 1 && width == g.out_width && width == g.in_width) {
        apply(to, from, (end - begin) * g.out_row());
        return;
    }
    for (int32_t row = begin; row < end; ++row, from += g.out_row(), to += g.stride * g.in_row()) {
        if (g.stride == 1) {
            apply(to, from, int64_t(width) * lanes);
            continue;
        }
        for (int32_t column = 0; column < width; ++column) {
            apply(to + int64_t(column) * g.stride * lanes, from + column * lanes, int64_t(lanes));
        }
    }
}

// One segment of an output channel: to = sum over the channel's non-zeros, in ascending order, rounded as it is kept.
template <typename T>
inline void convolve_segment(const Geometry& g, const Lists& by_output, const Value<T>* values, const Planes<T>& x,
                             int64_t channel, const Segment& segment, Value<T>* to) {
    using F = Value<T>;
    const int64_t count = segment.rows() * g.out_row();
    bool is_first = true;
    for (int32_t j = by_output.start[channel]; j < by_output.start[channel + 1]; ++j) {
        const F value = values[by_output.value[j]];
        const int32_t source = by_output.channel[j], tap = by_output.tap[j];
        const bool is_stored = x.is_stored(source);
        const T* image = x.data + source * g.in_plane() + segment.group * g.in_image();
        if (is_first) {
            is_first = false;
            bool is_whole = false;
            if (is_stored) {
                for_each_run(g, tap, segment, [&](int64_t at, int64_t from, int64_t run) {
                    if (run != count) return;
                    set_scaled<T>(to + at, image + from, value, run);
                    is_whole = true;
                });
            }
            if (is_whole) continue;
            fill(to, F(0), count);
        }
        if (is_stored) {
            for_each_run(g, tap, segment, [=](int64_t at, int64_t from, int64_t run) {
                add_scaled<T>(to + at, image + from, value, run);
            });
        } else {
            const F constant = x.constants[source];
            for_each_run(g, tap, segment,
                         [=](int64_t at, int64_t, int64_t run) { add_constant(to + at, constant, value, run); });
        }
    }
    if (is_first) fill(to, F(0), count);
    round_all<T>(to, count);
}

// One segment of the gradient at an input channel: to += sum over the non-zeros that read the channel, in ascending order,
// rounded as it is kept.
template <typename T>
inline void gather_segment(const Geometry& g, const Lists& by_input, const Value<T>* values, const T* dz, int64_t channel,
                           const Segment& segment, Value<T>* to) {
    for (int32_t j = by_input.start[channel]; j < by_input.start[channel + 1]; ++j) {
        const Value<T> value = values[by_input.value[j]];
        const T* image = dz + by_input.channel[j] * g.out_plane() + segment.group * g.out_image();
        for_each_run_back(g, by_input.tap[j], segment, [=](int64_t at, int64_t from, int64_t run) {
            add_scaled<T>(to + at, image + from, value, run);
        });
    }
    round_all<T>(to, segment.rows() * g.in_row());
}

// Lane by lane, sums over a segment: of x times what lies in the segment.
template <typename T, typename S>
inline LaneSums<Value<T>> dot_segment(const Geometry& g, const Planes<T>& x, int32_t source, int32_t tap,
                                      const Segment& segment, const S* of_segment) {
    using V = Vector<T>;
    LaneSums<Value<T>> sums;
    if (x.is_stored(source)) {
        const T* image = x.data + source * g.in_plane() + segment.group * g.in_image();
        for_each_run(g, tap, segment, [&](int64_t at, int64_t from, int64_t run) {
            for (int64_t k = 0; k < run; k += lanes) {
                for (int r = 0; r < V::count; ++r) {
                    const int64_t n = k + r * V::width;
                    prefetch(image + from + n);
                    sums.part[r] = fma(V::load(image + from + n), Vector<S>::load(of_segment + at + n), sums.part[r]);
                }
            }
        });
    } else {
        const auto value = V::all(x.constants[source]);
        for_each_run(g, tap, segment, [&](int64_t at, int64_t, int64_t run) {
            for (int64_t k = 0; k < run; k += lanes) {
                for (int r = 0; r < V::count; ++r) {
                    sums.part[r] = fma(value, Vector<S>::load(of_segment + at + k + r * V::width), sums.part[r]);
                }
            }
        });
    }
    return sums;
}

}  // namespace east
