// The backward pass of one unit (convolution, batch norm, residual, activation), output channel by output channel.

#include <algorithm>
#include <cmath>

#include "convolution.h"
#include "sources.h"

namespace east {
namespace {

// A convolution that reads the unit's output, and the gradient at that convolution's own output.
template <typename T>
struct Consumer {
    Geometry geometry;
    Lists by_input;
    const T* values;
    const T* dz;  // null where there is no such consumer
};

enum Activation : int32_t { none = 0, rectify_by_output = 1, rectify_by_input = 2, dynamic = 3 };

template <typename T>
struct Backward {
    Geometry geometry;
    Lists by_output;
    const T* values;
    Planes<T> x;
    const T* z;       // as in the forward pass; the gradient of the non-zeros is then found elsewhere
    const T* weight;  // batch norm's scale and shift
    const T* bias;
    const T* mean;
    const T* inverse_deviation;
    // Where the gradient at the unit's output comes from; all that is there is summed.
    Consumer<T> consumers[2];
    const T* direct;     // [out_channels, plane]
    int32_t activation;
    const T* y;              // [out_channels, plane] of activation `rectify_by_output`; the pre-activation for `dynamic`
    const T* coefficients;   // [out_channels, 4, batch] of activation `dynamic`: a1, a2, b1, b2
    const T* pooled;         // [out_channels, batch] of activation `dynamic`: the gradient through the pooled mean
    const uint8_t* read;     // [out_channels]: whether any gradient reaches the channel; null for all
    T* g;                // [out_channels, plane]: gradient after the activation; may be `direct`; null for not wanted
    T* dz;               // [out_channels, plane]: gradient at the convolution; may be `y`; null for not wanted
    int32_t dz_of_dead;  // dz is wanted for channels without non-zeros too
    T* weight_gradient;
    T* bias_gradient;
    T* value_gradient;
    // Sums over channels of sign * dz. Channels are split into `sketch_parts` consecutive parts, each with sums of its own,
    // so that the order of adding does not depend on threads.
    int32_t probes;
    int32_t sketch_parts;
    const T* signs;  // [probes, out_channels]
    T* sketches;     // [sketch_parts, probes, plane]
};

// One tile of the gradient at the unit's output. `to` may be the same memory as `direct`.
template <typename T>
inline void incoming_tile(const Backward<T>& b, int64_t channel, const Tile& tile, int64_t offset, T* to) {
    const Geometry& g = b.geometry;
    const int64_t batch = g.batch, count = tile.positions() * batch;
    for (int64_t k = 0; k < count; k += 64 / sizeof(T)) prefetch_for_writing(to + k);
    if (b.direct == nullptr) {
        fill(to, T(0), count);
    } else if (const T* from = b.direct + channel * g.out_plane() + offset; from != to) {
        std::memcpy(to, from, count * sizeof(T));
    }
    for (const Consumer<T>& consumer : b.consumers) {
        if (consumer.dz == nullptr) continue;
        gather_tile(consumer.geometry, consumer.by_input, consumer.values, consumer.dz, channel, tile, to);
    }
}

struct Moments {
    double g = 0, product = 0;
};

// In place: the gradient before the activation, its sum, and its sum of products with normalized z.
template <int32_t activation, bool normalized, typename T>
inline void activate_tile(T* g, const T* decide, const T* z, T factor, T shift, T mean, T inverse, T* hat, int64_t count,
                          Moments& moments) {
    using V = Vector<T>;
    auto s = V::zero(), p = V::zero();
    const auto f = V::all(factor), h = V::all(shift), m = V::all(mean), i = V::all(inverse), zero = V::zero();
    int64_t k = 0;
    for (; k + V::lanes <= count; k += V::lanes) {
        auto v = V::load(g + k);
        if (activation == rectify_by_output) prefetch_for_writing(decide + k);
        if (activation == rectify_by_output) v = V::load(decide + k) <= zero ? zero : v;
        if (activation == rectify_by_input) v = V::load(z + k) * f + h <= zero ? zero : v;
        if (activation != none) V::store(g + k, v);
        s += v;
        if (normalized) {
            const auto n = (V::load(z + k) - m) * i;
            V::store(hat + k, n);
            p += v * n;
        }
    }
    moments.g += V::sum(s);
    moments.product += V::sum(p);
    for (; k < count; ++k) {
        T v = g[k];
        if (activation == rectify_by_output && decide[k] <= 0) v = 0;
        if (activation == rectify_by_input && z[k] * factor + shift <= 0) v = 0;
        g[k] = v;
        moments.g += v;
        if (normalized) {
            hat[k] = (z[k] - mean) * inverse;
            moments.product += v * hat[k];
        }
    }
}

// A DyReLU max(a1 u + b1, a2 u + b2): the gradient through the larger line, and through the pooled mean.
template <typename T>
inline void dynamic_tile(T* g, const T* u, const T* coefficients, const T* pooled, int64_t positions, int64_t batch) {
    const T *a1 = coefficients, *a2 = a1 + batch, *b1 = a2 + batch, *b2 = b1 + batch;
    for (int64_t p = 0; p < positions; ++p, g += batch, u += batch) {
        for (int64_t n = 0; n < batch; ++n) {
            const T first = a1[n] * u[n] + b1[n], second = a2[n] * u[n] + b2[n];
            // Where both lines are equal PyTorch gives each half of the gradient.
            const T slope = first > second ? a1[n] : (second > first ? a2[n] : (a1[n] + a2[n]) / 2);
            g[n] = g[n] * slope + pooled[n];
        }
    }
}

template <bool normalized, typename T>
inline void activate(const Backward<T>& b, int64_t channel, int64_t offset, T* g, const T* z, T* hat, T factor, T shift,
                     int64_t count, Moments& moments) {
    const int64_t at = channel * b.geometry.out_plane() + offset, batch = b.geometry.batch;
    const T mean = b.mean[channel], inverse = b.inverse_deviation[channel];
    switch (b.activation) {
        case rectify_by_output:
            activate_tile<rectify_by_output, normalized>(g, b.y + at, z, factor, shift, mean, inverse, hat, count, moments);
            break;
        case rectify_by_input:
            if (!normalized) {  // z is 0 everywhere
                if (shift <= 0) fill(g, T(0), count);
                activate_tile<none, false>(g, b.y, z, factor, shift, mean, inverse, hat, count, moments);
                break;
            }
            activate_tile<rectify_by_input, normalized>(g, b.y, z, factor, shift, mean, inverse, hat, count, moments);
            break;
        case dynamic:
            dynamic_tile(g, b.y + at, b.coefficients + channel * 4 * batch, b.pooled + channel * batch, count / batch, batch);
            [[fallthrough]];
        default:
            activate_tile<none, normalized>(g, b.y, z, factor, shift, mean, inverse, hat, count, moments);
    }
}

// Sums that give the gradient of one non-zero: x over its span with 1, with g and with normalized z.
struct Products {
    double x = 0, g = 0, hat = 0;
};

template <typename T>
inline void add_products(const T* x, const T* g, const T* hat, int64_t count, Products& products) {
    using V = Vector<T>;
    auto a = V::zero(), b = V::zero(), c = V::zero();
    int64_t k = 0;
    for (; k + V::lanes <= count; k += V::lanes) {
        const auto v = V::load(x + k);
        a += v;
        b += v * V::load(g + k);
        c += v * V::load(hat + k);
    }
    products.x += V::sum(a);
    products.g += V::sum(b);
    products.hat += V::sum(c);
    for (; k < count; ++k) {
        products.x += x[k];
        products.g += x[k] * g[k];
        products.hat += x[k] * hat[k];
    }
}

template <typename T>
inline void value_products(const Backward<T>& b, int64_t channel, const Tile& tile, const T* g, const T* hat,
                           Products* products) {
    const Geometry& geometry = b.geometry;
    const int32_t first = b.by_output.start[channel];
    for (int32_t j = first; j < b.by_output.start[channel + 1]; ++j) {
        const int32_t source = b.by_output.channel[j];
        Products& p = products[j - first];
        if (b.x.is_stored(source)) {
            const T* x = b.x.data + source * geometry.in_plane();
            for_each_run(geometry, b.by_output.tap[j], tile, [&](int64_t at, int64_t from, int64_t count) {
                add_products(x + from, g + at, hat + at, count, p);
            });
        } else {
            const double value = b.x.constants[source];
            for_each_run(geometry, b.by_output.tap[j], tile, [&](int64_t at, int64_t, int64_t count) {
                p.x += value * count;
                p.g += value * sum(g + at, count);
                p.hat += value * sum(hat + at, count);
            });
        }
    }
}

// to = a * g + b * hat + c, or a * g + c without hat
template <typename T>
inline void combine(const T* g, const T* hat, T a, T b, T c, T* to, int64_t count) {
    using V = Vector<T>;
    const auto va = V::all(a), vb = V::all(b), vc = V::all(c);
    int64_t k = 0;
    for (; k + V::lanes <= count; k += V::lanes) {
        prefetch_for_writing(to + k);
        prefetch(g + k);
        auto rest = vc;
        if (hat != nullptr) {
            prefetch(hat + k);
            rest += vb * V::load(hat + k);
        }
        V::store(to + k, va * V::load(g + k) + rest);
    }
    for (; k < count; ++k) to[k] = a * g[k] + (hat != nullptr ? b * hat[k] + c : c);
}

// The non-zeros whose gradient is found here: where z is given, so is the gradient, elsewhere.
template <typename T>
inline int32_t count_of(const Backward<T>& b, int64_t channel) {
    return b.z == nullptr ? b.by_output.start[channel + 1] - b.by_output.start[channel] : 0;
}

// The sums of one channel over its plane.
template <typename T>
struct Sums {
    Sum<T> g, product;
    Sum<T> x[most_sources], x_g[most_sources], x_hat[most_sources];

    void flush(int32_t sources) {
        g.flush();
        product.flush();
        for (int32_t j = 0; j < sources; ++j) {
            x[j].flush();
            x_g[j].flush();
            x_hat[j].flush();
        }
    }
};

// What one pass over a span needs besides its planes.
template <typename T>
struct BackwardSpan {
    const T* x[most_sources + 1];
    const T* dz[most_sources + 1];
    T values[most_sources + 1], gradients[most_sources + 1];
    const T* y;
    T factor, shift, mean, inverse;
    T *g, *hat;
};

// The whole first pass of the backward: the gradient at the output (a sum over `readers`), z again (a sum over `sources`),
// the gradient before the activation, normalized z, and all sums, in one loop.
template <int sources, int readers, int32_t activation, typename T>
inline void backward_span(const BackwardSpan<T>& b, int64_t count, Sums<T>& sums) {
    using V = Vector<T>;
    using R = typename V::Register;
    R values[sources + 1], gradients[readers], x[sources + 1];
    R sx[sources + 1], sg[sources + 1], sh[sources + 1];
    for (int j = 0; j < sources; ++j) {
        values[j] = V::all(b.values[j]);
        sx[j] = sums.x[j].fast;
        sg[j] = sums.x_g[j].fast;
        sh[j] = sums.x_hat[j].fast;
    }
    for (int j = 0; j < readers; ++j) gradients[j] = V::all(b.gradients[j]);
    R s = sums.g.fast, p = sums.product.fast;
    const R f = V::all(b.factor), h = V::all(b.shift), m = V::all(b.mean), i = V::all(b.inverse), zero = V::zero();
    int64_t k = 0;
    for (; k + V::lanes <= count; k += V::lanes) {
        for (int j = 0; j < readers; ++j) prefetch(b.dz[j] + k);
        for (int j = 0; j < sources; ++j) prefetch(b.x[j] + k);
        if (activation == rectify_by_output) prefetch_for_writing(b.y + k);
        R g = gradients[0] * V::load(b.dz[0] + k);
        for (int j = 1; j < readers; ++j) g += gradients[j] * V::load(b.dz[j] + k);
        if (activation == rectify_by_output) g = V::load(b.y + k) <= zero ? zero : g;
        if (sources > 0) {
            R z = zero;
            for (int j = 0; j < sources; ++j) {
                x[j] = V::load(b.x[j] + k);
                z += values[j] * x[j];
            }
            if (activation == rectify_by_input) g = z * f + h <= zero ? zero : g;
            const R hat = (z - m) * i;
            V::store(b.hat + k, hat);
            p += g * hat;
            for (int j = 0; j < sources; ++j) {
                sx[j] += x[j];
                sg[j] += x[j] * g;
                sh[j] += x[j] * hat;
            }
        }
        V::store(b.g + k, g);
        s += g;
    }
    sums.g.fast = s;
    sums.product.fast = p;
    for (int j = 0; j < sources; ++j) {
        sums.x[j].fast = sx[j];
        sums.x_g[j].fast = sg[j];
        sums.x_hat[j].fast = sh[j];
    }
    for (; k < count; ++k) {
        T g = 0, z = 0;
        for (int j = 0; j < readers; ++j) g += b.gradients[j] * b.dz[j][k];
        for (int j = 0; j < sources; ++j) z += b.values[j] * b.x[j][k];
        if (activation == rectify_by_output && b.y[k] <= 0) g = 0;
        if (activation == rectify_by_input && z * b.factor + b.shift <= 0) g = 0;
        b.g[k] = g;
        sums.g.rest += g;
        if (sources == 0) continue;
        const T hat = (z - b.mean) * b.inverse;
        b.hat[k] = hat;
        sums.product.rest += g * hat;
        for (int j = 0; j < sources; ++j) {
            sums.x[j].rest += b.x[j][k];
            sums.x_g[j].rest += b.x[j][k] * g;
            sums.x_hat[j].rest += b.x[j][k] * hat;
        }
    }
}

template <typename T>
using SpanKernel = void (*)(const BackwardSpan<T>&, int64_t, Sums<T>&);

template <int sources, int32_t activation, typename T>
SpanKernel<T> span_kernel(int32_t readers) {
    switch (readers) {
        case 1:
            return backward_span<sources, 1, activation, T>;
        case 2:
            return backward_span<sources, 2, activation, T>;
        case 3:
            return backward_span<sources, 3, activation, T>;
        default:
            return backward_span<sources, 4, activation, T>;
    }
}

template <typename T>
SpanKernel<T> span_kernel(int32_t sources, int32_t readers, bool by_output) {
    switch (sources) {
        case 0:
            return by_output ? span_kernel<0, rectify_by_output, T>(readers) : span_kernel<0, none, T>(readers);
        case 1:
            return by_output ? span_kernel<1, rectify_by_output, T>(readers) : span_kernel<1, rectify_by_input, T>(readers);
        case 2:
            return by_output ? span_kernel<2, rectify_by_output, T>(readers) : span_kernel<2, rectify_by_input, T>(readers);
        default:
            return by_output ? span_kernel<3, rectify_by_output, T>(readers) : span_kernel<3, rectify_by_input, T>(readers);
    }
}

// Memory that a thread uses for one channel after the other.
template <typename T>
struct Workspace {
    Workspace(const Backward<T>& b, const Tiling& tiling, int32_t most)
        : hats(scratch<T, 0>(b.geometry.out_plane())),
          gradients(scratch<T, 1>(b.g == nullptr && b.dz == nullptr && b.probes > 0 ? b.geometry.out_plane() : 0)),
          spare(scratch<T, 2>(2 * spare_numbers(b.geometry, tiling))),
          products(scratch<Products, 3>(most)),
          fillers(int64_t(b.geometry.out_width) * b.geometry.batch, most_sources) {}
    // Enough for a tile and for a row.
    static int64_t spare_numbers(const Geometry& g, const Tiling& tiling) {
        return std::max(tiling.most_positions(), g.out_width) * int64_t(g.batch);
    }
    T *hats, *gradients, *spare;
    Products* products;
    Fillers<T> fillers;
};

// The first pass of a channel with few non-zeros and few readers, all of stride 1; false if it is not one.
template <typename T>
bool backward_few(const Backward<T>& b, int32_t channel, T factor, T shift, T* kept, Workspace<T>& work, Moments& moments) {
    const Geometry& g = b.geometry;
    if (b.z != nullptr || !is_near(g)) return false;
    const int32_t sources = b.by_output.start[channel + 1] - b.by_output.start[channel];
    if (sources > most_sources) return false;
    const bool dead = sources == 0;
    if (b.activation != rectify_by_output && b.activation != rectify_by_input) return false;
    Sources<T> readers;
    const int64_t plane = g.out_plane();
    if (b.direct != nullptr) readers.add(b.direct + channel * plane, nullptr, 0, 0, T(1));
    for (const Consumer<T>& consumer : b.consumers) {
        if (consumer.dz == nullptr) continue;
        const int32_t begin = consumer.by_input.start[channel], end = consumer.by_input.start[channel + 1];
        if (begin == end) continue;
        const Geometry& c = consumer.geometry;
        if (!is_near(c) || readers.count + end - begin > most_sources + 1) return false;
        for (int32_t j = begin; j < end; ++j) {
            const int32_t tap = consumer.by_input.tap[j];
            readers.add(consumer.dz + consumer.by_input.channel[j] * plane, nullptr, c.padding - tap / c.kernel,
                        c.padding - tap % c.kernel, consumer.values[consumer.by_input.value[j]]);
        }
    }
    if (readers.count == 0) return false;
    const Sources<T> from = sources_of(g, b.by_output, b.values, b.x, channel, work.fillers);
    // Where z is 0 everywhere, the activation passes everything or nothing.
    const bool blocked = dead && b.activation == rectify_by_input && shift <= 0;
    BackwardSpan<T> span;
    for (int32_t j = 0; j < sources; ++j) span.values[j] = from.items[j].value;
    for (int32_t j = 0; j < readers.count; ++j) span.gradients[j] = blocked ? T(0) : readers.items[j].value;
    span.factor = factor;
    span.shift = shift;
    span.mean = b.mean[channel];
    span.inverse = b.inverse_deviation[channel];
    const SpanKernel<T> kernel = span_kernel<T>(sources, readers.count, b.activation == rectify_by_output);
    Sums<T> sums;
    int32_t row_before = 0;
    for_each_span(g, from.is_straight() && readers.is_straight(), [&](int32_t row, int32_t begin, int32_t end) {
        if (row != row_before) sums.flush(sources);
        row_before = row;
        from.locate(g, row, begin, end, work.fillers.zeros(), span.x);
        readers.locate(g, row, begin, end, work.fillers.zeros(), span.dz);
        const int64_t offset = (int64_t(row) * g.out_width + begin) * g.batch;
        span.y = b.y + channel * plane + offset;
        span.g = kept == nullptr ? work.spare : kept + offset;
        span.hat = work.hats + offset;
        kernel(span, int64_t(end - begin) * g.batch, sums);
    });
    moments.g = sums.g.total();
    moments.product = sums.product.total();
    for (int32_t j = 0; j < sources; ++j) {
        work.products[j] = {sums.x[j].total(), sums.x_g[j].total(), sums.x_hat[j].total()};
    }
    return true;
}

// `first_of_part` tells that the sketches hold nothing yet.
template <typename T>
void backward_channel(const Backward<T>& b, int32_t channel, const Tiling& tiling, Workspace<T>& work, int32_t part,
                      bool& first_of_part) {
    const Geometry& g = b.geometry;
    const int64_t plane = g.out_plane(), batch = g.batch;
    const int32_t first = b.z == nullptr ? b.by_output.start[channel] : 0, count = count_of(b, channel);
    if (b.read != nullptr && !b.read[channel]) {
        b.weight_gradient[channel] = b.bias_gradient[channel] = 0;
        for (int32_t j = 0; j < count; ++j) b.value_gradient[first + j] = 0;
        // Kernels that read dz by themselves must find zeros; lists for gathering leave the channel out.
        if (b.dz != nullptr && (b.dz_of_dead || b.z != nullptr)) fill(b.dz + channel * plane, T(0), plane);
        return;
    }
    const bool dead = is_empty(b.by_output, channel);
    const bool want_dz = b.dz != nullptr && (!dead || b.dz_of_dead);
    const T inverse = b.inverse_deviation[channel];
    const T factor = b.weight[channel] * inverse;
    const T shift = b.bias[channel] - b.mean[channel] * factor;
    // The gradient after the activation: null where only its sums are needed.
    T* kept = nullptr;
    if (b.g != nullptr) {
        kept = b.g + channel * plane;
    } else if (want_dz) {
        kept = b.dz + channel * plane;
    } else if (b.probes > 0) {
        kept = b.dz != nullptr ? b.dz + channel * plane : work.gradients;
    }
    T *hats = work.hats, *spare = work.spare, *second_spare = spare + Workspace<T>::spare_numbers(g, tiling);
    Products* sums = work.products;
    for (int32_t j = 0; j < count; ++j) sums[j] = Products();
    Moments moments;
    const bool done = backward_few(b, channel, factor, shift, kept, work, moments);
    for (int32_t index = 0; index < (done ? 0 : tiling.count()); ++index) {
        const Tile tile = tiling[index];
        const int64_t offset = (int64_t(tile.row_begin) * g.out_width + tile.column_begin) * batch;
        const int64_t size = tile.positions() * batch;
        T *to = kept == nullptr ? second_spare : kept + offset, *hat = hats + offset;
        incoming_tile(b, channel, tile, offset, to);
        if (dead) {
            activate<false>(b, channel, offset, to, static_cast<const T*>(nullptr), hat, factor, shift, size, moments);
            continue;
        }
        const T* z = b.z == nullptr ? spare : b.z + channel * plane + offset;
        if (b.z == nullptr) convolve_tile(g, b.by_output, b.values, b.x, channel, tile, spare);
        activate<true>(b, channel, offset, to, z, hat, factor, shift, size, moments);
        if (count > 0) value_products(b, channel, tile, to, hat, sums);
    }
    b.weight_gradient[channel] = T(moments.product);
    b.bias_gradient[channel] = T(moments.g);
    // dz = factor * (g - mean of g - hat * mean of g hat)
    const double of_hat = -factor * moments.product / double(plane), shared = -factor * moments.g / double(plane);
    for (int32_t j = 0; j < count; ++j) {
        b.value_gradient[first + j] = T(factor * sums[j].g + of_hat * sums[j].hat + shared * sums[j].x);
    }
    if (!want_dz && b.probes == 0) return;
    for (int32_t index = 0; index < tiling.count(); ++index) {
        const Tile tile = tiling[index];
        const int64_t offset = (int64_t(tile.row_begin) * g.out_width + tile.column_begin) * batch;
        const int64_t size = tile.positions() * batch;
        T* to = want_dz ? b.dz + channel * plane + offset : spare;
        if (dead) {
            combine(kept + offset, static_cast<const T*>(nullptr), factor, T(0), T(shared), to, size);
        } else {
            combine(kept + offset, hats + offset, factor, T(of_hat), T(shared), to, size);
        }
        for (int32_t probe = 0; probe < b.probes; ++probe) {
            T* sketch = b.sketches + (int64_t(part) * b.probes + probe) * plane + offset;
            const T sign = b.signs[int64_t(probe) * g.out_channels + channel];
            first_of_part ? set_scaled(sketch, to, sign, size) : add_scaled(sketch, to, sign, size);
        }
    }
    first_of_part = false;
}

template <typename T>
void backward(const Backward<T>& b) {
    const Geometry& g = b.geometry;
    const Tiling tiling(g.out_height, g.out_width, g.batch);
    const int32_t parts = b.probes > 0 ? b.sketch_parts : g.out_channels;
    int32_t most = 0;
    for (int32_t channel = 0; channel < g.out_channels; ++channel) most = std::max(most, count_of(b, channel));
#pragma omp parallel
    {
        Workspace<T> work(b, tiling, most);
#pragma omp for schedule(dynamic, 1)
        for (int32_t part = 0; part < parts; ++part) {
            bool first_of_part = true;
            const int64_t begin = int64_t(part) * g.out_channels / parts, end = int64_t(part + 1) * g.out_channels / parts;
            for (int64_t channel = begin; channel < end; ++channel) {
                backward_channel(b, int32_t(channel), tiling, work, part, first_of_part);
            }
            if (b.probes > 0 && first_of_part) {
                fill(b.sketches + int64_t(part) * b.probes * g.out_plane(), T(0), b.probes * g.out_plane());
            }
        }
    }
}

}  // namespace
}  // namespace east

extern "C" {
void east_backward_f32(const east::Backward<float>* unit) { east::backward(*unit); }
void east_backward_f64(const east::Backward<double>* unit) { east::backward(*unit); }
}
