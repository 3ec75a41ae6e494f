// Random projections of the dense weight gradient: sums of signs * dz, correlated with every input channel.

#include <algorithm>
#include <vector>

#include "convolution.h"
#include "sources.h"

namespace east {
namespace {

template <typename T>
struct Correlate {
    Geometry geometry;
    Planes<T> x;
    int32_t probes;
    int32_t parts;
    T* sketches;       // [parts, probes, plane]; the first part becomes the sum of all
    double* products;  // [in_channels, probes, kernel * kernel]
};

// Adds up the parts, always in the same order.
template <typename T>
void add_parts(const Correlate<T>& c) {
    constexpr int64_t block = 4096;
    const int64_t count = c.probes * c.geometry.out_plane();
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < count; begin += block) {
        const int64_t size = std::min(block, count - begin);
        for (int32_t part = 1; part < c.parts; ++part) {
            add_scaled(c.sketches + begin, c.sketches + part * count + begin, T(1), size);
        }
    }
}

// Products of x with `taps` spans of a sketch that begin at different places: x is loaded once for all of them.
template <int taps, typename T>
inline void add_dots(const T* x, const T* const* spans, int64_t count, Sum<T>* products) {
    using V = Vector<T>;
    typename V::Register sums[taps];
    for (int tap = 0; tap < taps; ++tap) sums[tap] = products[tap].fast;
    int64_t k = 0;
    for (; k + V::lanes <= count; k += V::lanes) {
        prefetch(x + k);
        const auto value = V::load(x + k);
        for (int tap = 0; tap < taps; ++tap) sums[tap] += value * V::load(spans[tap] + k);
    }
    for (int tap = 0; tap < taps; ++tap) {
        products[tap].fast = sums[tap];
        for (int64_t rest = k; rest < count; ++rest) products[tap].rest += x[rest] * spans[tap][rest];
    }
}

// Some columns of one row of x with `rows` rows of a sketch, the first of which meets kernel row `kernel_row`: in a 3x3
// convolution of stride 1, all kernel columns at once where they lie within the image.
template <int rows, typename T>
inline void correlate_columns(const Geometry& g, const T* x, const T* sketch, int32_t begin, int32_t end, Sum<T>* products) {
    const int64_t batch = g.batch, line = g.out_width * batch;
    const bool left = begin == 0, right = end == g.out_width;
    const T *from = x + begin * batch, *at = sketch + begin * batch;
    const int64_t inner = (end - begin - left - right) * batch;
    const T* spans[3 * rows];
    for (int row = 0; row < rows; ++row) {
        const T* centre = at - row * line + (left ? batch : 0);
        spans[3 * row] = centre + batch;
        spans[3 * row + 1] = centre;
        spans[3 * row + 2] = centre - batch;
        if (left) {
            const T* first[2] = {centre, centre - batch};
            add_dots<2>(from, first, batch, products + 3 * row);
        }
        if (right) {
            const T* last[2] = {centre + inner, centre + inner - batch};
            add_dots<2>(from + (left ? batch : 0) + inner, last, batch, products + 3 * row + 1);
        }
    }
    add_dots<3 * rows>(from + (left ? batch : 0), spans, inner, products);
}

// Columns whose part of three rows of a sketch stays in the first-level cache.
constexpr int32_t near_numbers = 1024;

// All columns from `begin` to `end`, row by row.
template <typename T>
inline void correlate_strip(const Geometry& g, const T* x, const T* sketch, int32_t begin, int32_t end, Sum<T>* products) {
    constexpr int32_t rows_between_flushes = 4;
    const int64_t line = int64_t(g.out_width) * g.batch;
    for (int32_t row = 0; row < g.in_height; ++row) {
        const T *from = x + row * line, *at = sketch + row * line;
        const bool first = row == 0, last = row == g.in_height - 1;
        // Kernel row 0 meets the row of the sketch below, kernel row 2 the one above.
        if (!first && !last) {
            correlate_columns<3>(g, from, at + line, begin, end, products);
        } else {
            correlate_columns<1>(g, from, at, begin, end, products + 3);
            if (!last) correlate_columns<1>(g, from, at + line, begin, end, products);
            if (!first) correlate_columns<1>(g, from, at - line, begin, end, products + 6);
        }
        if (last || row % rows_between_flushes == 0) {
            for (int32_t tap = 0; tap < 9; ++tap) products[tap].flush();
        }
    }
}

// The sum of a sketch over the outputs at which a kernel position meets the image: a constant channel multiplies it.
template <typename T>
double add_up(const Geometry& g, const T* sketch, int32_t tap, const Tiling& tiling) {
    double total = 0;
    for (int32_t index = 0; index < tiling.count(); ++index) {
        const Tile tile = tiling[index];
        const T* from = sketch + (int64_t(tile.row_begin) * g.out_width + tile.column_begin) * g.batch;
        for_each_run(g, tap, tile, [&](int64_t at, int64_t, int64_t count) { total += sum(from + at, count); });
    }
    return total;
}

// The products of one stored input channel with a sketch, at every kernel position.
template <typename T>
void correlate_channel(const Geometry& g, const T* x, const T* sketch, const Tiling& tiling, double* products) {
    if (g.kernel == 3 && g.stride == 1 && g.padding == 1 && g.out_width >= 2) {
        Sum<T> sums[9];
        const int32_t columns = std::max(2, near_numbers / g.batch);
        for (int32_t begin = 0, end = 0; begin < g.out_width; begin = end) {
            // The last columns join the ones before, so that no strip is a single column.
            end = begin + 2 * columns > g.out_width ? g.out_width : begin + columns;
            correlate_strip(g, x, sketch, begin, end, sums);
        }
        for (int32_t tap = 0; tap < 9; ++tap) products[tap] = sums[tap].total();
        return;
    }
    for (int32_t tap = 0; tap < g.kernel * g.kernel; ++tap) {
        Sum<T> total;
        for (int32_t index = 0; index < tiling.count(); ++index) {
            const Tile tile = tiling[index];
            const T* from = sketch + (int64_t(tile.row_begin) * g.out_width + tile.column_begin) * g.batch;
            for_each_run(g, tap, tile, [&](int64_t at, int64_t in, int64_t count) {
                const T* span = from + at;
                add_dots<1>(x + in, &span, count, &total);
            });
            total.flush();
        }
        products[tap] = total.total();
    }
}

template <typename T>
void correlate(const Correlate<T>& c) {
    const Geometry& g = c.geometry;
    add_parts(c);
    const Tiling tiling(g.out_height, g.out_width, g.batch);
    const int32_t taps = g.kernel * g.kernel;
    bool any_constant = false;
    for (int32_t channel = 0; channel < g.in_channels; ++channel) any_constant |= !c.x.is_stored(channel);
    std::vector<double> sums(any_constant ? c.probes * taps : 0);
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 1)
        for (int32_t place = 0; place < int32_t(sums.size()); ++place) {
            sums[place] = add_up(g, c.sketches + place / taps * g.out_plane(), place % taps, tiling);
        }
#pragma omp for schedule(dynamic, 1)
        for (int32_t channel = 0; channel < g.in_channels; ++channel) {
            for (int32_t probe = 0; probe < c.probes; ++probe) {
                double* products = c.products + (int64_t(channel) * c.probes + probe) * taps;
                if (c.x.is_stored(channel)) {
                    const T* x = c.x.data + channel * g.in_plane();
                    correlate_channel(g, x, c.sketches + probe * g.out_plane(), tiling, products);
                    continue;
                }
                for (int32_t tap = 0; tap < taps; ++tap) products[tap] = sums[probe * taps + tap] * c.x.constants[channel];
            }
        }
    }
}

}  // namespace
}  // namespace east

extern "C" {
void east_correlate_f32(const east::Correlate<float>* arguments) { east::correlate(*arguments); }
void east_correlate_f64(const east::Correlate<double>* arguments) { east::correlate(*arguments); }
}
