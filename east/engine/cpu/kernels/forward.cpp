// Convolution, batch norm, residual and activation of one unit, output channel by output channel.

#include "convolution.h"
#include "normalization.h"
#include "shifted.h"

namespace east {
namespace {

template <typename T>
struct Forward {
    Geometry geometry;
    Lists by_output;
    const Value<T>* values;
    Planes<T> x;
    BatchNorm<Value<T>> norm;
    int32_t rectify;        // end in a ReLU
    int32_t constants;      // a channel without non-zeros may stay a constant
    const T* residual;      // [out_channels, plane]: added before the activation; null for none
    const uint8_t* wanted;  // [out_channels]: whether anything reads the channel; null for all
    T* y;
    uint8_t* kind;  // [out_channels]: how each channel of y is kept
    Value<T>* constant;  // [out_channels]
    Value<T>* pooled;      // [out_channels, groups, 32]: means of y over positions; null for none
};

// Planes from this size on are written past the caches: before anything reads them, much else has passed through.
constexpr int64_t streamed_bytes = 400'000;

// Convolves a channel with few non-zeros, all of whose inputs are read at once, for its moments; z itself is written if `kept`.
template <int sources, bool kept, typename T>
void convolve_few(const Geometry& g, const Reads<few, T>& from, const T* zeros, Value<T>* z, Value<T>& pivot, double& first,
                  double& second) {
    using V = Vector<T>;
    typename V::Register factors[sources];
    for (int j = 0; j < sources; ++j) factors[j] = V::all(from.items[j].value);
    const Segments segments = out_segments(g);
    const bool straight = from.is_straight();
    bool is_first = true;
    for (int32_t index = 0; index < segments.count(); ++index) {
        const Segment segment = segments[index];
        LaneSums<Value<T>> sums, squares;
        Value<T>* row_of_z = z;
        const auto begin_row = [&](int32_t row) { row_of_z = z + segment.group * g.out_image() + row * g.out_row(); };
        const auto apply = [&](const T* const* at, int64_t k) {
            if (is_first) {
                pivot = 0;
                for (int j = 0; j < sources; ++j) pivot = fma(from.items[j].value, value_of(at[j][0]), pivot);
                pivot = rounded<T>(pivot);
                is_first = false;
            }
            for (int r = 0; r < V::count; ++r) {
                const int64_t n = k + r * V::width;
                for (int j = 0; j < sources; ++j) prefetch(at[j] + n);
                auto value = fma(factors[0], V::load(at[0] + n), V::zero());
                for (int j = 1; j < sources; ++j) value = fma(factors[j], V::load(at[j] + n), value);
                value = V::rounded(value);
                if (kept) Vector<Value<T>>::store(row_of_z + n, value);
                value -= V::all(pivot);
                sums.part[r] += value;
                squares.part[r] = fma(value, value, squares.part[r]);
            }
        };
        for_each_position<sources>(g, segment, from.items, zeros, straight, begin_row, apply);
        const int32_t images = g.images(segment.group);
        first += sums.total(images);
        second += squares.total(images);
    }
}

template <bool kept, typename T>
void convolve_few(const Forward<T>& f, const Reads<few, T>& from, const T* zeros, Value<T>* z, Value<T>& pivot,
                  double& first, double& second) {
    switch (from.count) {
        case 1:
            return convolve_few<1, false>(f.geometry, from, zeros, z, pivot, first, second);
        case 2:
            return convolve_few<2, kept>(f.geometry, from, zeros, z, pivot, first, second);
        default:
            return convolve_few<3, kept>(f.geometry, from, zeros, z, pivot, first, second);
    }
}

// y = factor * z + shift (+ residual), rectified or not.
template <bool residual, bool rectify, bool streamed, typename T, typename Z>
inline void finish(const Z* z, Value<T> factor, Value<T> shift, const T* r, T* y, int64_t count) {
    using V = Vector<T>;
    const auto f = V::all(factor), s = V::all(shift), zero = V::zero();
    for (int64_t k = 0; k < count; k += V::width) {
        if (!streamed) prefetch_for_writing(y + k);
        auto v = fma(f, Vector<Z>::load(z + k), s);
        if (residual) {
            prefetch(r + k);
            v += V::load(r + k);
        }
        if (rectify) v = v <= zero ? zero : v;  // a NaN stays one
        streamed ? V::stream(y + k, v) : V::store(y + k, v);
    }
}

// Whether what is written there may go past the caches: before anything reads it, much else has passed through.
template <typename T>
inline bool is_streamed(const Geometry& g, const T* y) {
    const bool is_large = g.out_numbers() * int64_t(sizeof(T)) >= streamed_bytes;
    return is_large && is_aligned(y);
}

template <bool residual, bool rectify, typename T, typename Z>
inline void finish(bool streamed, const Z* z, Value<T> factor, Value<T> shift, const T* r, T* y, int64_t count) {
    streamed ? finish<residual, rectify, true>(z, factor, shift, r, y, count)
             : finish<residual, rectify, false>(z, factor, shift, r, y, count);
}

template <typename T, typename Z>
void finish(const Forward<T>& f, const Z* z, Value<T> factor, Value<T> shift, const T* r, T* y, int64_t count) {
    const bool streamed = is_streamed(f.geometry, y);
    if (r != nullptr) {
        f.rectify ? finish<true, true>(streamed, z, factor, shift, r, y, count)
                  : finish<true, false>(streamed, z, factor, shift, r, y, count);
    } else {
        f.rectify ? finish<false, true>(streamed, z, factor, shift, r, y, count)
                  : finish<false, false>(streamed, z, factor, shift, r, y, count);
    }
}

// The same for a channel with one non-zero, whose convolution is found again from that non-zero's input.
template <bool residual, bool rectify, bool streamed, typename T>
void finish_single(const Geometry& g, const Reads<few, T>& from, const T* zeros, Value<T> factor, Value<T> shift, const T* r,
                   T* y) {
    using V = Vector<T>;
    const auto value = V::all(from.items[0].value), f = V::all(factor), s = V::all(shift), zero = V::zero();
    const Segments segments = out_segments(g);
    const bool straight = from.is_straight();
    for (int32_t index = 0; index < segments.count(); ++index) {
        const Segment segment = segments[index];
        T* to = y;
        const T* added = r;
        const auto begin_row = [&](int32_t row) {
            const int64_t at = segment.group * g.out_image() + row * g.out_row();
            to = y + at;
            if (residual) added = r + at;
        };
        const auto apply = [&](const T* const* at, int64_t k) {
            for (int part = 0; part < V::count; ++part) {
                const int64_t n = k + part * V::width;
                prefetch(at[0] + n);
                if (!streamed) prefetch_for_writing(to + n);
                auto v = fma(f, V::rounded(fma(value, V::load(at[0] + n), zero)), s);
                if (residual) {
                    prefetch(added + n);
                    v += V::load(added + n);
                }
                if (rectify) v = v <= zero ? zero : v;
                streamed ? V::stream(to + n, v) : V::store(to + n, v);
            }
        };
        for_each_position<1>(g, segment, from.items, zeros, straight, begin_row, apply);
    }
}

template <bool residual, bool rectify, typename T>
void finish_single(const Forward<T>& f, const Reads<few, T>& from, const T* zeros, Value<T> factor, Value<T> shift,
                   const T* r, T* y) {
    const Geometry& g = f.geometry;
    is_streamed(g, y) ? finish_single<residual, rectify, true>(g, from, zeros, factor, shift, r, y)
                      : finish_single<residual, rectify, false>(g, from, zeros, factor, shift, r, y);
}

template <typename T>
void finish_single(const Forward<T>& f, int32_t channel, Value<T> factor, Value<T> shift, const T* r, T* y) {
    const Fillers<T> fillers(f.geometry.out_row(), few);
    const auto from = sources_of(f.geometry, f.by_output, f.values, f.x, channel, fillers);
    const T* zeros = fillers.zeros();
    if (r != nullptr) {
        f.rectify ? finish_single<true, true>(f, from, zeros, factor, shift, r, y)
                  : finish_single<true, false>(f, from, zeros, factor, shift, r, y);
    } else {
        f.rectify ? finish_single<false, true>(f, from, zeros, factor, shift, r, y)
                  : finish_single<false, false>(f, from, zeros, factor, shift, r, y);
    }
}

// A channel without non-zeros: z is 0 everywhere, and so is its variance.
template <typename T>
void dead_channel(const Forward<T>& f, int64_t channel, Value<T> factor, Value<T> shift) {
    using F = Value<T>;
    const Geometry& g = f.geometry;
    const int64_t plane = g.out_plane();
    T* y = f.y + channel * plane;
    const T value = kept_as<T>(f.rectify && shift <= 0 ? F(0) : shift);
    f.constant[channel] = value_of(value);
    f.kind[channel] = f.constants ? constant : stored;
    if (f.constants) return;
    if (f.residual == nullptr) {
        fill(y, value, g.out_numbers());
        return;
    }
    F* zeros = scratch<F, 1>(g.out_image());
    fill(zeros, F(0), g.out_image());
    for (int32_t group = 0; group < g.groups(); ++group) {
        const int64_t at = group * g.out_image();
        finish(f, zeros, factor, shift, f.residual + channel * plane + at, y + at, g.out_image());
    }
}

// The moments of a channel's convolution. Where they are not kept, of two non-zeros or more, segments of z are in `kept`.
template <typename T>
void find_moments(const Forward<T>& f, int32_t channel, Value<T>* kept, bool is_kept, Value<T>& pivot, double& first,
                  double& second) {
    const Geometry& g = f.geometry;
    const Segments segments = out_segments(g);
    pivot = 0;
    first = second = 0;
    for (int32_t index = 0; index < segments.count(); ++index) {
        const Segment segment = segments[index];
        const int64_t at = segment.group * g.out_image() + segment.row_begin * g.out_row();
        Value<T>* to = is_kept ? kept + at : kept;
        convolve_segment(g, f.by_output, f.values, f.x, channel, segment, to);
        if (!f.norm.training) continue;
        if (index == 0) pivot = to[0];
        MomentSums<Value<T>> sums;
        sums.add(to, segment.rows() * g.out_row(), pivot);
        first += sums.first.total(g.images(segment.group));
        second += sums.second.total(g.images(segment.group));
    }
}

template <typename T>
void forward_channel(const Forward<T>& f, int32_t channel) {
    using F = Value<T>;
    const Geometry& g = f.geometry;
    const int64_t plane = g.out_plane();
    const double numbers = double(g.batch) * g.out_height * g.out_width;
    const int32_t nonzeros = f.by_output.count(channel);
    const bool is_wanted = f.wanted == nullptr || f.wanted[channel];
    // What a single non-zero makes of its input is found again as fast as it is read.
    const bool is_kept = nonzeros > 1 && is_wanted;
    F* kept = scratch<F, 0>(is_kept ? g.out_numbers() : out_segments(g).most_rows() * g.out_row());
    F pivot = 0;
    double first = 0, second = 0;
    if (nonzeros > 0 && (f.norm.training || is_kept)) {
        if (nonzeros <= few && is_near(g)) {
            const Fillers<T> fillers(g.out_row(), few);
            const auto from = sources_of(g, f.by_output, f.values, f.x, channel, fillers);
            is_kept ? convolve_few<true>(f, from, fillers.zeros(), kept, pivot, first, second)
                    : convolve_few<false>(f, from, fillers.zeros(), kept, pivot, first, second);
        } else {
            find_moments(f, channel, kept, is_kept, pivot, first, second);
        }
    }
    const Normalization<F>& norm = f.norm.find(channel, numbers, pivot, first, second);
    const F factor = norm.factor, shift = norm.shift;
    T* y = f.y + channel * plane;
    if (nonzeros == 0) {
        dead_channel(f, channel, factor, shift);
    } else {
        f.kind[channel] = is_wanted ? stored : absent;
        if (!is_wanted) return;
        const T* r = f.residual == nullptr ? nullptr : f.residual + channel * plane;
        if (is_kept) {
            finish(f, kept, factor, shift, r, y, g.out_numbers());
        } else if (nonzeros == 1 && is_near(g)) {
            finish_single(f, channel, factor, shift, r, y);
        } else {
            const Segments segments = out_segments(g);
            for (int32_t index = 0; index < segments.count(); ++index) {
                const Segment segment = segments[index];
                const int64_t at = segment.group * g.out_image() + segment.row_begin * g.out_row();
                convolve_segment(g, f.by_output, f.values, f.x, channel, segment, kept);
                finish(f, kept, factor, shift, r == nullptr ? nullptr : r + at, y + at, segment.rows() * g.out_row());
            }
        }
    }
    if (f.pooled == nullptr) return;
    F* means = f.pooled + int64_t(channel) * g.groups() * lanes;
    if (f.kind[channel] == stored) {
        position_means(y, g.batch, g.out_height, g.out_width, means);
    } else {
        constant_means(f.constant[channel], g.batch, g.out_height, g.out_width, means);
    }
}

template <typename T>
void forward(const Forward<T>& f) {
    in_parallel([&](const Thread& thread) {
        thread.share(f.geometry.out_channels, [&](int64_t channel) { forward_channel(f, int32_t(channel)); });
        finish_streaming();
    });
}

template <typename T>
struct Means {
    int64_t channels, height, width, batch;
    Planes<T> x;
    Value<T>* means;  // [channels, groups, 32]
};

// Means over positions of every channel.
template <typename T>
void find_means(const Means<T>& m) {
    const int32_t groups = groups_of(int32_t(m.batch));
    const int64_t plane = plane_stride(groups, m.height, m.width);
    in_parallel([&](const Thread& thread) {
        thread.divide(m.channels, [&](int64_t channel) {
            Value<T>* means = m.means + channel * groups * lanes;
            if (m.x.is_stored(channel)) {
                position_means(m.x.data + channel * plane, int32_t(m.batch), int32_t(m.height), int32_t(m.width), means);
            } else {
                constant_means(m.x.constants[channel], int32_t(m.batch), int32_t(m.height), int32_t(m.width), means);
            }
        });
    });
}

}  // namespace
}  // namespace east

EAST_KERNEL(forward, Forward, forward)
EAST_KERNEL(means, Means, find_means)
