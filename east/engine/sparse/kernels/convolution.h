// The sparse convolution of one tile: every non-zero is a multiply-add over contiguous numbers.
#pragma once

#include "planes.h"
#include "vector.h"

namespace east {

// Calls `apply(output offset in the tile, input offset in the plane, count)` for every run of contiguous numbers that one
// kernel position connects within a tile of the output.
template <typename Apply>
inline void for_each_run(const Geometry& g, int32_t tap, const Tile& tile, Apply apply) {
    const int64_t batch = g.batch;
    const int32_t kernel_row = tap / g.kernel, kernel_column = tap - kernel_row * g.kernel;
    const Span span = valid_columns(g, kernel_column, tile.column_begin, tile.column_end);
    if (span.begin >= span.end) return;
    const int32_t in_column = span.begin * g.stride + kernel_column - g.padding;
    const int32_t width = span.end - span.begin;
    for (int32_t row = tile.row_begin; row < tile.row_end; ++row) {
        const int32_t in_row = row * g.stride + kernel_row - g.padding;
        if (in_row < 0 || in_row >= g.in_height) continue;
        int64_t to = (int64_t(row - tile.row_begin) * tile.columns() + span.begin - tile.column_begin) * batch;
        int64_t from = (int64_t(in_row) * g.in_width + in_column) * batch;
        if (g.stride == 1) {
            apply(to, from, width * batch);
            continue;
        }
        for (int32_t column = 0; column < width; ++column, to += batch, from += g.stride * batch) apply(to, from, batch);
    }
}

// One tile of an output channel: to [positions, batch] = sum over the channel's non-zeros.
template <typename T>
inline void convolve_tile(const Geometry& g, const Lists& by_output, const T* values, const Planes<T>& x, int64_t channel,
                          const Tile& tile, T* to) {
    fill(to, T(0), tile.positions() * g.batch);
    for (int32_t j = by_output.start[channel]; j < by_output.start[channel + 1]; ++j) {
        const T value = values[by_output.value[j]];
        const int32_t source = by_output.channel[j];
        if (x.is_stored(source)) {
            const T* plane = x.data + source * g.in_plane();
            for_each_run(g, by_output.tap[j], tile, [=](int64_t at, int64_t from, int64_t count) {
                add_scaled(to + at, plane + from, value, count);
            });
        } else {
            const T product = value * x.constants[source];
            for_each_run(g, by_output.tap[j], tile,
                         [=](int64_t at, int64_t, int64_t count) { add_constant(to + at, product, count); });
        }
    }
}

// One tile of the gradient at an input channel: to [positions, batch] += sum over the non-zeros that read the channel.
template <typename T>
inline void gather_tile(const Geometry& g, const Lists& by_input, const T* values, const T* dz, int64_t channel,
                        const Tile& tile, T* to) {
    const int64_t batch = g.batch;
    for (int32_t j = by_input.start[channel]; j < by_input.start[channel + 1]; ++j) {
        const int32_t kernel_row = by_input.tap[j] / g.kernel, kernel_column = by_input.tap[j] % g.kernel;
        const T value = values[by_input.value[j]];
        const T* plane = dz + by_input.channel[j] * g.out_plane();
        // Output columns whose input column lies in the tile.
        const int32_t offset = kernel_column - g.padding;
        const int32_t low = tile.column_begin - offset, high = tile.column_end - 1 - offset;
        const int32_t first = low <= 0 ? 0 : (low + g.stride - 1) / g.stride;
        const int32_t last = high < 0 ? -1 : (high / g.stride < g.out_width - 1 ? high / g.stride : g.out_width - 1);
        if (first > last) continue;
        for (int32_t row = tile.row_begin; row < tile.row_end; ++row) {
            const int32_t rows = row + g.padding - kernel_row;  // output row * stride
            if (rows < 0 || rows % g.stride != 0 || rows / g.stride >= g.out_height) continue;
            const T* from = plane + (int64_t(rows / g.stride) * g.out_width + first) * batch;
            T* target = to + (int64_t(row - tile.row_begin) * tile.columns() + first * g.stride + offset - tile.column_begin) * batch;
            if (g.stride == 1) {
                add_scaled(target, from, value, (last - first + 1) * batch);
                continue;
            }
            for (int32_t column = first; column <= last; ++column, target += g.stride * batch, from += batch) {
                add_scaled(target, from, value, batch);
            }
        }
    }
}

}  // namespace east
