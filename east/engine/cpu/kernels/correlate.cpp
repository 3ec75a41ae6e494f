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
    Value<T>* sketches;  // [parts, probes, groups, height, width, 32]; the first part becomes the sum of all
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
    in_parallel([&](const Thread& thread) {
        thread.divide(tasks, [&](int64_t task) {
            const int64_t begin = task / p.probes * sketch_channels, end = std::min(begin + sketch_channels, p.channels);
            T* to = p.sketches + task * p.numbers;
            fill(to, T(0), p.numbers);
            for (int64_t channel = begin; channel < end; ++channel) {
                add_scaled<T>(to, p.dz + channel * p.numbers, p.signs[task % p.probes * p.channels + channel], p.numbers);
            }
        });
    });
}

// Adds up the parts in ascending order.
template <typename T>
void add_parts(const Correlate<T>& c) {
    constexpr int64_t block = 4096;
    const int64_t count = c.probes * c.geometry.out_numbers();
    in_parallel([&](const Thread& thread) {
        thread.divide((count + block - 1) / block, [&](int64_t index) {
            const int64_t begin = index * block;
            const int64_t size = std::min(block, count - begin);
            for (int32_t part = 1; part < c.parts; ++part) {
                add_scaled<Value<T>>(c.sketches + begin, c.sketches + part * count + begin, 1, size);
            }
        });
    });
}

// Rows of an input channel: those of its plane, or one row of a constant again and again.
template <typename T>
struct Rows {
    const T* first;
    int64_t stride;

    const T* operator[](int64_t row) const { return first + row * stride; }
};

// Input channels that are correlated at once: each sum waits for its own last product, so many sums take turns.
constexpr int32_t at_once = 2;

// The three columns of one kernel row of a 3x3 convolution of stride 1, for some input channels: x stays in registers from one
// column to the next.
template <int channels, typename T>
inline void add_kernel_row(const Geometry& g, const Rows<T>* x, const Value<T>* sketch, const Segment& segment,
                           int32_t kernel_row, LaneSums<Value<T>> (*sums)[3]) {
    using V = Vector<T>;
    constexpr int registers = V::count >= 2 && (channels == 1 || EAST_VECTOR_BYTES == 64) ? 2 : 1;
    constexpr int count = channels * registers;
    const int32_t offset = kernel_row - 1;
    const int32_t begin = std::max(segment.row_begin, -offset), end = std::min(segment.row_end, g.in_height - offset);
    for (int r = 0; r < V::count; r += registers) {
        typename V::Register left[count], centre[count], right[count];
        for (int i = 0; i < count; ++i) left[i] = centre[i] = right[i] = V::zero();
        for (int32_t row = begin; row < end; ++row) {
            const T* from[count];
            for (int i = 0; i < count; ++i) from[i] = x[i / registers][row + offset] + (r + i % registers) * V::width;
            const Value<T>* at = sketch + (row - segment.row_begin) * g.out_row() + r * V::width;
            typename V::Register before[count], here[count];
            for (int i = 0; i < count; ++i) here[i] = V::load(from[i]);
            const auto add_column = [&](int32_t column, bool is_first, bool is_last) __attribute__((always_inline)) {
                typename V::Register s[registers];
                for (int i = 0; i < registers; ++i) s[i] = Vector<Value<T>>::load(at + column * lanes + i * V::width);
                for (int i = 0; i < count; ++i) {
                    if (!is_first) left[i] = fma(before[i], s[i % registers], left[i]);
                    centre[i] = fma(here[i], s[i % registers], centre[i]);
                    before[i] = here[i];
                    if (is_last) continue;
                    here[i] = V::load(from[i] + (column + 1) * lanes);
                    right[i] = fma(here[i], s[i % registers], right[i]);
                }
            };
            add_column(0, true, g.out_width == 1);
            for (int32_t column = 1; column < g.out_width - 1; ++column) add_column(column, false, false);
            if (g.out_width > 1) add_column(g.out_width - 1, false, true);
        }
        for (int i = 0; i < count; ++i) {
            sums[i / registers][0].part[r + i % registers] = left[i];
            sums[i / registers][1].part[r + i % registers] = centre[i];
            sums[i / registers][2].part[r + i % registers] = right[i];
        }
    }
}

// Products of some input channels with a sketch over one segment, at every position of a 3x3 kernel of stride 1.
template <int channels, typename T>
void add_near_segment(const Correlate<T>& c, const Rows<T>* images, const Value<T>* of_segment, const Segment& segment,
                      double* const* products) {
    const Geometry& g = c.geometry;
    for (int32_t kernel_row = 0; kernel_row < 3; ++kernel_row) {
        LaneSums<Value<T>> sums[channels][3];
        add_kernel_row<channels>(g, images, of_segment, segment, kernel_row, sums);
        for (int32_t k = 0; k < 3 * channels; ++k) {
            products[k / 3][3 * kernel_row + k % 3] += sums[k / 3][k % 3].total(g.images(segment.group));
        }
    }
}

// The products of one or two input channels with all sketches. `lines` are two rows of memory.
template <typename T>
void correlate_channels(const Correlate<T>& c, const int32_t* channels, int32_t count, const Segments& segments, T* lines) {
    const Geometry& g = c.geometry;
    const int32_t taps = g.kernel * g.kernel;
    const bool is_near = g.kernel == 3 && g.stride == 1 && g.padding == 1;
    for (int32_t i = 0; i < count; ++i) {
        fill(c.products + channels[i] * c.probes * taps, 0.0, c.probes * taps);
        if (!c.x.is_stored(channels[i])) fill(lines + i * g.in_row(), kept_as<T>(c.x.constants[channels[i]]), g.in_row());
    }
    for (int32_t index = 0; index < segments.count(); ++index) {
        const Segment& segment = segments[index];
        Rows<T> images[at_once];
        for (int32_t i = 0; i < count; ++i) {
            const T* image = c.x.data + channels[i] * g.in_plane() + segment.group * g.in_image();
            images[i] = c.x.is_stored(channels[i]) ? Rows<T>{image, g.in_row()} : Rows<T>{lines + i * g.in_row(), 0};
        }
        for (int32_t probe = 0; probe < c.probes; ++probe) {
            const Value<T>* sketch = c.sketches + probe * g.out_numbers();
            const Value<T>* of_segment = sketch + segment.group * g.out_image() + segment.row_begin * g.out_row();
            double* products[at_once];
            for (int32_t i = 0; i < count; ++i) products[i] = c.products + (channels[i] * c.probes + probe) * taps;
            if (is_near && count == at_once) {
                add_near_segment<at_once>(c, images, of_segment, segment, products);
            } else if (is_near) {
                add_near_segment<1>(c, images, of_segment, segment, products);
            } else {
                for (int32_t k = 0; k < count * taps; ++k) {
                    const auto sums = dot_segment(g, c.x, channels[k / taps], k % taps, segment, of_segment);
                    products[k / taps][k % taps] += sums.total(g.images(segment.group));
                }
            }
        }
    }
}

template <typename T>
void correlate(const Correlate<T>& c) {
    const Geometry& g = c.geometry;
    add_parts(c);
    const Segments segments = out_segments(g);
    // To look through the planes that are stored would take as long as to correlate them.
    const NonzeroChannels nonzero(
        g.in_channels, [&](int64_t channel) { return !c.x.is_stored(channel) && c.x.constants[channel] == 0; });
    const int64_t size = int64_t(c.probes) * g.kernel * g.kernel;
    in_parallel([&](const Thread& thread) {
        T* lines = scratch<T, 0>(at_once * g.in_row());
        thread.share((nonzero.count() + at_once - 1) / at_once, [&](int64_t index) {
            const int32_t place = int32_t(index) * at_once;
            const int32_t count = std::min(at_once, nonzero.count() - place);
            correlate_channels(c, &nonzero[place], count, segments, lines);
        });
    });
    for (int32_t channel = 0; channel < g.in_channels; ++channel) {
        if (nonzero.place_of(channel) < 0) fill(c.products + channel * size, 0.0, size);
    }
}

}  // namespace
}  // namespace east

EAST_KERNEL_OF_VALUES(project, Project, project)
EAST_KERNEL(correlate, Correlate, correlate)
