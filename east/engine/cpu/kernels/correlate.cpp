// Random projections of the dense weight gradient: sums of signs * dz, correlated with every input channel.

#include "convolution.h"

namespace east {
namespace {

template <typename T>
struct Correlate {
    Geometry geometry;
    Planes<T> x;
    int32_t probes;
    int32_t parts;
    T* sketches;       // [parts, probes, groups, height, width, 32]; the first part becomes the sum of all
    double* products;  // [in_channels, probes, kernel * kernel]
};

template <typename T>
struct Project {
    int64_t channels, numbers, probes;
    const T* dz;      // [channels, numbers]
    const T* signs;   // [probes, channels]
    T* sketches;      // [parts, probes, numbers], each over `sketch_channels` channels that follow one another
};

// Sums of signs * dz, for a layer without batch norm.
template <typename T>
void project(const Project<T>& p) {
    const int64_t tasks = (p.channels + sketch_channels - 1) / sketch_channels * p.probes;
    in_parallel([&] {
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t begin = task / p.probes * sketch_channels, end = std::min(begin + sketch_channels, p.channels);
            T* to = p.sketches + task * p.numbers;
            fill(to, T(0), p.numbers);
            for (int64_t channel = begin; channel < end; ++channel) {
                add_scaled(to, p.dz + channel * p.numbers, p.signs[task % p.probes * p.channels + channel], p.numbers);
            }
        }
    });
}

// Adds up the parts in ascending order.
template <typename T>
void add_parts(const Correlate<T>& c) {
    constexpr int64_t block = 4096;
    const int64_t count = c.probes * c.geometry.out_numbers();
    in_parallel([&] {
#pragma omp for schedule(static)
        for (int64_t begin = 0; begin < count; begin += block) {
            const int64_t size = std::min(block, count - begin);
            for (int32_t part = 1; part < c.parts; ++part) {
                add_scaled(c.sketches + begin, c.sketches + part * count + begin, T(1), size);
            }
        }
    });
}

// Rows of an input channel: those of its plane, or one row of a constant again and again.
template <typename T>
struct Rows {
    const T* first;
    int64_t stride;

    const T* operator[](int64_t row) const { return first + row * stride; }
};

// The three columns of one kernel row of a 3x3 convolution of stride 1: x stays in registers from one column to the next.
// Each sum waits for its own last product, so the sums of two registers take turns.
template <typename T>
inline void add_kernel_row(const Geometry& g, const Rows<T>& x, const T* sketch, const Segment& segment, int32_t kernel_row,
                           LaneSums<T>* sums) {
    using V = Vector<T>;
    constexpr int at_once = V::count < 2 ? 1 : 2;
    const int32_t offset = kernel_row - 1;
    const int32_t begin = std::max(segment.row_begin, -offset), end = std::min(segment.row_end, g.in_height - offset);
    for (int r = 0; r < V::count; r += at_once) {
        typename V::Register left[at_once], centre[at_once], right[at_once];
        for (int i = 0; i < at_once; ++i) left[i] = centre[i] = right[i] = V::zero();
        for (int32_t row = begin; row < end; ++row) {
            const T* from = x[row + offset] + r * V::width;
            const T* at = sketch + (row - segment.row_begin) * g.out_row() + r * V::width;
            typename V::Register before[at_once], here[at_once];
            for (int i = 0; i < at_once; ++i) here[i] = V::load(from + i * V::width);
            const auto add_column = [&](int32_t column, bool is_first, bool is_last) __attribute__((always_inline)) {
                for (int i = 0; i < at_once; ++i) {
                    const auto s = V::load(at + column * lanes + i * V::width);
                    if (!is_first) left[i] = fma(before[i], s, left[i]);
                    centre[i] = fma(here[i], s, centre[i]);
                    before[i] = here[i];
                    if (is_last) continue;
                    here[i] = V::load(from + (column + 1) * lanes + i * V::width);
                    right[i] = fma(here[i], s, right[i]);
                }
            };
            add_column(0, true, g.out_width == 1);
            for (int32_t column = 1; column < g.out_width - 1; ++column) add_column(column, false, false);
            if (g.out_width > 1) add_column(g.out_width - 1, false, true);
        }
        for (int i = 0; i < at_once; ++i) {
            sums[0].part[r + i] = left[i];
            sums[1].part[r + i] = centre[i];
            sums[2].part[r + i] = right[i];
        }
    }
}

// Adds the products of one input channel with a sketch over one segment, at every kernel position.
template <typename T>
void add_segment(const Correlate<T>& c, int32_t channel, const T* sketch, const Segment& segment, const T* line,
                 double* products) {
    const Geometry& g = c.geometry;
    const int32_t images = g.images(segment.group);
    const T* of_segment = sketch + segment.group * g.out_image() + segment.row_begin * g.out_row();
    if (g.kernel == 3 && g.stride == 1 && g.padding == 1) {
        const bool is_stored = c.x.is_stored(channel);
        const T* image = c.x.data + channel * g.in_plane() + segment.group * g.in_image();
        const Rows<T> rows = is_stored ? Rows<T>{image, g.in_row()} : Rows<T>{line, 0};
        for (int32_t kernel_row = 0; kernel_row < 3; ++kernel_row) {
            LaneSums<T> sums[3];
            add_kernel_row(g, rows, of_segment, segment, kernel_row, sums);
            for (int32_t k = 0; k < 3; ++k) products[3 * kernel_row + k] += sums[k].total(images);
        }
        return;
    }
    for (int32_t tap = 0; tap < g.kernel * g.kernel; ++tap) {
        products[tap] += dot_segment(g, c.x, channel, tap, segment, of_segment).total(images);
    }
}

template <typename T>
void correlate(const Correlate<T>& c) {
    const Geometry& g = c.geometry;
    add_parts(c);
    const Segments segments = out_segments(g);
    const DistinctChannels<T> distinct(c.x, g.in_channels);
    const int64_t size = int64_t(c.probes) * g.kernel * g.kernel;
    in_parallel([&] {
        T* line = scratch<T, 0>(g.in_row());
#pragma omp for schedule(dynamic, 1)
        for (int32_t place = 0; place < distinct.count(); ++place) {
            const int32_t channel = distinct[place];
            double* products = c.products + channel * size;
            fill(products, 0.0, size);
            if (!c.x.is_stored(channel)) fill(line, c.x.constants[channel], g.in_row());
            for (int32_t index = 0; index < segments.count(); ++index) {
                for (int32_t probe = 0; probe < c.probes; ++probe) {
                    const T* sketch = c.sketches + probe * g.out_numbers();
                    add_segment(c, channel, sketch, segments[index], line, products + probe * g.kernel * g.kernel);
                }
            }
        }
    });
    for (int32_t channel = 0; channel < g.in_channels; ++channel) {
        const int32_t same = distinct[distinct.place_of(channel)];
        if (same != channel) std::copy_n(c.products + same * size, size, c.products + channel * size);
    }
}

}  // namespace
}  // namespace east

EAST_KERNEL(project, Project, project)
EAST_KERNEL(correlate, Correlate, correlate)
