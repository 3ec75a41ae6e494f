// Convolution, batch norm, residual and activation of one unit, output channel by output channel.

#include <cmath>

#include "convolution.h"
#include "sources.h"

namespace east {
namespace {

template <typename T>
struct Forward {
    Geometry geometry;
    Lists by_output;
    const T* values;
    Planes<T> x;
    const T* z;           // [out_channels, plane]: the convolution, where it is computed already; may be y; else null
    const T* weight;      // batch norm's scale and shift
    const T* bias;
    T* running_mean;
    T* running_variance;
    double epsilon, momentum;
    int32_t training;     // batch statistics, and an update of the running ones
    int32_t rectify;      // end in a ReLU
    int32_t constants;    // a channel without non-zeros may stay a constant
    const T* residual;    // [out_channels, plane]: added before the activation; null for none
    const uint8_t* wanted;  // [out_channels]: whether anything reads the channel; null for all
    T* mean;              // [out_channels], for the backward pass
    T* inverse_deviation;
    T* y;
    uint8_t* kind;        // [out_channels]: how each channel of y is kept
    T* constant;          // [out_channels]
    T* pooled;            // [out_channels, batch]: means of y over the plane; null for none
};

// Planes from this size on are written past the caches: before anything reads them, much else has passed through.
constexpr int64_t streamed_bytes = 400'000;

// Sums of z - pivot and their squares over a tile.
template <typename T>
inline void moments(const T* z, int64_t count, T pivot, double& first, double& second) {
    using V = Vector<T>;
    auto s0 = V::zero(), s1 = V::zero(), q0 = V::zero(), q1 = V::zero();
    const auto p = V::all(pivot);
    int64_t k = 0;
    for (; k + 2 * V::lanes <= count; k += 2 * V::lanes) {
        const auto a = V::load(z + k) - p, b = V::load(z + k + V::lanes) - p;
        s0 += a;
        s1 += b;
        q0 += a * a;
        q1 += b * b;
    }
    first += V::sum(s0 + s1);
    second += V::sum(q0 + q1);
    for (; k < count; ++k) {
        const T d = z[k] - pivot;
        first += d;
        second += d * d;
    }
}

// z = sum of value * x over `count` sources, and the sums of z - pivot and of their squares.
template <int sources, bool kept, typename T>
inline void convolve_span(const T* const* x, const T* values, T pivot, T* z, int64_t count, Sum<T>& first, Sum<T>& second) {
    using V = Vector<T>;
    typename V::Register factors[sources];
    for (int j = 0; j < sources; ++j) factors[j] = V::all(values[j]);
    const auto p = V::all(pivot);
    auto s = first.fast, q = second.fast;
    int64_t k = 0;
    for (; k + V::lanes <= count; k += V::lanes) {
        for (int j = 0; j < sources; ++j) prefetch(x[j] + k);
        auto value = factors[0] * V::load(x[0] + k);
        for (int j = 1; j < sources; ++j) value += factors[j] * V::load(x[j] + k);
        if (kept) V::store(z + k, value);
        value -= p;
        s += value;
        q += value * value;
    }
    first.fast = s;
    second.fast = q;
    for (; k < count; ++k) {
        T value = 0;
        for (int j = 0; j < sources; ++j) value += values[j] * x[j][k];
        if (kept) z[k] = value;
        value -= pivot;
        first.rest += value;
        second.rest += value * value;
    }
}

// The convolution of a channel with few non-zeros: all its inputs are read at once. Only its moments remain if not `kept`.
template <int sources, bool kept, typename T>
inline void convolve_channel(const Geometry& g, const Sources<T>& from, const T* zeros, T* z, T& pivot, double& first,
                             double& second) {
    const T* at[most_sources + 1];
    T values[most_sources + 1];
    for (int32_t j = 0; j < from.count; ++j) values[j] = from.items[j].value;
    Sum<T> sum, squares;
    int32_t row_before = 0;
    pivot = 0;
    for_each_span(g, from.is_straight(), [&](int32_t row, int32_t begin, int32_t end) {
        from.locate(g, row, begin, end, zeros, at);
        if (row == 0 && begin == 0) {
            for (int32_t j = 0; j < from.count; ++j) pivot += values[j] * at[j][0];
        }
        if (row != row_before) {
            sum.flush();
            squares.flush();
            row_before = row;
        }
        T* to = z + (int64_t(row) * g.out_width + begin) * g.batch;
        convolve_span<sources, kept>(at, values, pivot, to, int64_t(end - begin) * g.batch, sum, squares);
    });
    first = sum.total();
    second = squares.total();
}

// Whether all inputs of a channel are read at once.
template <typename T>
inline bool is_few(const Forward<T>& f, int64_t channel) {
    return f.z == nullptr && is_near(f.geometry) &&
           f.by_output.start[channel + 1] - f.by_output.start[channel] <= most_sources;
}

template <bool kept, typename T>
void convolve_few(const Forward<T>& f, const Sources<T>& from, const T* zeros, T* z, T& pivot, double& first,
                  double& second) {
    switch (from.count) {
        case 1:
            return convolve_channel<1, false>(f.geometry, from, zeros, z, pivot, first, second);  // never kept
        case 2:
            return convolve_channel<2, kept>(f.geometry, from, zeros, z, pivot, first, second);
        default:
            return convolve_channel<3, kept>(f.geometry, from, zeros, z, pivot, first, second);
    }
}

// y = factor * z + shift (+ residual), rectified or not.
template <bool residual, bool rectify, bool streamed, typename T>
inline void finish(const T* z, T factor, T shift, const T* r, T* y, int64_t count) {
    using V = Vector<T>;
    const auto f = V::all(factor), s = V::all(shift), zero = V::zero();
    int64_t k = 0;
    for (; k + V::lanes <= count; k += V::lanes) {
        if (!streamed) prefetch_for_writing(y + k);
        auto v = V::load(z + k) * f + s;
        if (residual) {
            prefetch(r + k);
            v += V::load(r + k);
        }
        if (rectify) v = v < zero ? zero : v;  // a NaN stays one
        streamed ? V::stream(y + k, v) : V::store(y + k, v);
    }
    for (; k < count; ++k) {
        T v = z[k] * factor + shift;
        if (residual) v += r[k];
        y[k] = rectify && v < 0 ? T(0) : v;
    }
}

template <bool residual, bool rectify, typename T>
inline void finish(bool streamed, const T* z, T factor, T shift, const T* r, T* y, int64_t count) {
    if (streamed && reinterpret_cast<uintptr_t>(y) % EAST_VECTOR_BYTES == 0) {
        finish<residual, rectify, true>(z, factor, shift, r, y, count);
    } else {
        finish<residual, rectify, false>(z, factor, shift, r, y, count);
    }
}

template <typename T>
void finish(const Forward<T>& f, const T* z, T factor, T shift, const T* r, T* y, int64_t count) {
    const bool streamed = f.geometry.out_plane() * int64_t(sizeof(T)) >= streamed_bytes;
    if (r != nullptr) {
        f.rectify ? finish<true, true>(streamed, z, factor, shift, r, y, count)
                  : finish<true, false>(streamed, z, factor, shift, r, y, count);
    } else {
        f.rectify ? finish<false, true>(streamed, z, factor, shift, r, y, count)
                  : finish<false, false>(streamed, z, factor, shift, r, y, count);
    }
}

// The same for a channel with one non-zero, from that non-zero's input.
template <typename T>
void finish_single(const Forward<T>& f, const Sources<T>& from, const T* zeros, T factor, T shift, const T* r, T* y) {
    const Geometry& g = f.geometry;
    for_each_span(g, from.is_straight(), [&](int32_t row, int32_t begin, int32_t end) {
        const T* at[most_sources + 1];
        from.locate(g, row, begin, end, zeros, at);
        const int64_t offset = (int64_t(row) * g.out_width + begin) * g.batch;
        const T* residual = r == nullptr ? nullptr : r + offset;
        finish(f, at[0], factor * from.items[0].value, shift, residual, y + offset, int64_t(end - begin) * g.batch);
    });
}

template <typename T>
void pool(const T* y, int64_t positions, int64_t batch, T* pooled) {
    fill(pooled, T(0), batch);
    for (int64_t p = 0; p < positions; ++p) add_scaled(pooled, y + p * batch, T(1), batch);
    for (int64_t n = 0; n < batch; ++n) pooled[n] /= positions;
}

// A channel without non-zeros: z is 0 everywhere, and so is its variance.
template <typename T>
void dead_channel(const Forward<T>& f, int64_t channel, T shift) {
    const Geometry& g = f.geometry;
    const int64_t plane = g.out_plane();
    if (f.residual == nullptr) {
        const T value = f.rectify && shift < 0 ? T(0) : shift;
        f.constant[channel] = value;
        f.kind[channel] = f.constants ? constant : stored;
        if (!f.constants) fill(f.y + channel * plane, value, plane);
        if (f.pooled != nullptr) fill(f.pooled + channel * g.batch, value, g.batch);
        return;
    }
    f.kind[channel] = stored;
    T* y = f.y + channel * plane;
    finish(f, f.residual + channel * plane, T(1), shift, static_cast<const T*>(nullptr), y, plane);
    if (f.pooled != nullptr) pool(y, plane / g.batch, g.batch, f.pooled + channel * g.batch);
}

template <typename T>
void forward(const Forward<T>& f) {
    const Geometry& g = f.geometry;
    const int64_t plane = g.out_plane(), batch = g.batch;
    const Tiling tiling(g.out_height, g.out_width, g.batch);
    const double numbers = double(plane);
#pragma omp parallel
    {
        T* own = scratch<T, 0>(f.z == nullptr ? plane : 0);
        const Fillers<T> fillers(int64_t(g.out_width) * batch, most_sources);
#pragma omp for schedule(dynamic, 1) nowait
        for (int32_t channel = 0; channel < g.out_channels; ++channel) {
            const bool dead = is_empty(f.by_output, channel);
            const T* z = f.z == nullptr ? own : f.z + channel * plane;
            const bool few = is_few(f, channel);
            const bool is_wanted = f.wanted == nullptr || f.wanted[channel];
            Sources<T> from;
            // Sums of z - pivot and of their squares; of a dead channel all are 0.
            T pivot = 0;
            double first = 0, second = 0;
            if (!dead && few) {
                from = sources_of(g, f.by_output, f.values, f.x, channel, fillers);
                // What a single non-zero makes of its input is found again as fast as it is read.
                if (is_wanted && from.count > 1) {
                    convolve_few<true>(f, from, fillers.zeros(), own, pivot, first, second);
                } else if (f.training) {
                    convolve_few<false>(f, from, fillers.zeros(), own, pivot, first, second);
                }
            } else if (!dead && f.z == nullptr) {
                for (int32_t index = 0; index < tiling.count(); ++index) {
                    const Tile tile = tiling[index];
                    T* to = own + (int64_t(tile.row_begin) * g.out_width + tile.column_begin) * batch;
                    convolve_tile(g, f.by_output, f.values, f.x, channel, tile, to);
                    if (!f.training) continue;
                    if (index == 0) pivot = to[0];
                    moments(to, tile.positions() * batch, pivot, first, second);
                }
            } else if (!dead && f.training) {
                const int64_t row = g.out_width * batch;
                pivot = z[0];
                for (int32_t r = 0; r < g.out_height; ++r) moments(z + r * row, row, pivot, first, second);
            }
            double mean = pivot + first / numbers;
            double variance = second / numbers - (first / numbers) * (first / numbers);
            if (variance < 0) variance = 0;  // a NaN stays one
            if (f.training) {
                f.mean[channel] = T(mean);
                f.inverse_deviation[channel] = T(1 / std::sqrt(variance + f.epsilon));
                const double unbiased = variance * (numbers / (numbers - 1));
                f.running_mean[channel] += T(f.momentum * (mean - f.running_mean[channel]));
                f.running_variance[channel] += T(f.momentum * (unbiased - f.running_variance[channel]));
            } else {
                mean = f.running_mean[channel];
                variance = f.running_variance[channel];
            }
            const T factor = T(f.weight[channel] / std::sqrt(variance + f.epsilon));
            const T shift = T(f.bias[channel] - mean * factor);
            if (dead) {
                dead_channel(f, channel, shift);
                continue;
            }
            f.kind[channel] = is_wanted ? stored : absent;
            if (!is_wanted) continue;
            T* y = f.y + channel * plane;
            const T* r = f.residual == nullptr ? nullptr : f.residual + channel * plane;
            if (few && from.count == 1) {
                finish_single(f, from, fillers.zeros(), factor, shift, r, y);
            } else {
                finish(f, z, factor, shift, r, y, plane);
            }
            if (f.pooled != nullptr) pool(y, plane / batch, batch, f.pooled + channel * batch);
        }
        finish_streaming();
    }
}

}  // namespace
}  // namespace east

extern "C" {
void east_forward_f32(const east::Forward<float>* unit) { east::forward(*unit); }
void east_forward_f64(const east::Forward<double>* unit) { east::forward(*unit); }
}
