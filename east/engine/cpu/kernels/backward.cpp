// The backward pass of one unit (convolution, batch norm, residual, activation), output channel by output channel.

#include "convolution.h"
#include "dyrelu.h"
#include "normalization.h"
#include "shifted.h"

namespace east {
namespace {

// A convolution that reads the unit's output, and the gradient at that convolution's own output.
template <typename T>
struct Consumer {
    Geometry geometry;
    Lists by_input;
    const Value<T>* values;
    const T* dz;  // null where there is no such consumer
};

template <typename T>
struct Backward {
    Geometry geometry;
    Lists by_output;
    const Value<T>* values;
    Planes<T> x;
    // The convolution, where it is stored: the rest, but for the sums and the gradient after the activation, is found elsewhere.
    const T* z;
    Normalization<Value<T>>* normalization;  // [out_channels], of the forward pass
    // Where the gradient at the unit's output comes from: `direct`, then consumer after consumer.
    Consumer<T> consumers[2];
    const T* direct;  // [out_channels, plane]
    int32_t activation;
    const T* y;             // [out_channels, plane] of activation `rectify_by_output`; the pre-activation for `dynamic`
    const Value<T>* coefficients;  // [out_channels, 4, groups, 32] of activation `dynamic`: a1, a2, b1, b2
    const Value<T>* pooled; // [out_channels, groups, 32] of activation `dynamic`: the gradient at the means
    const uint8_t* read;    // [out_channels]: whether any gradient reaches the channel; null for all
    T* g;                // [out_channels, plane]: gradient after the activation; may be `direct`; null for not wanted
    T* dz;               // [out_channels, plane]: gradient at the convolution; may be `y`; null for not wanted
    int32_t dz_of_dead;  // dz is wanted for channels without non-zeros too
    Value<T>* weight_gradient;
    Value<T>* bias_gradient;
    Value<T>* value_gradient;
    Slope* slopes;  // [out_channels], where z is stored
    // Sums over channels of sign * dz, each over `sketch_channels` channels that follow one another.
    int32_t probes;
    const Value<T>* signs;  // [probes, out_channels]
    Value<T>* sketches;     // [parts, probes, groups, height, width, 32]
};

struct Moments {
    double g = 0, product = 0;
};

// Sums that give the gradient of one non-zero where there are few: x with 1, with g and with normalized z.
struct Products {
    double x = 0, g = 0, hat = 0;
};

// In place: the gradient before the activation; its sum, and its sum of products with normalized z.
template <int32_t activation, bool normalized, typename T, typename Z>
inline void activate(Value<T>* g, const T* decide, const Z* z, const Normalization<Value<T>>& norm, Value<T>* hat,
                     int64_t count, int32_t images, Moments& moments) {
    using V = Vector<Value<T>>;
    LaneSums<Value<T>> sums, products;
    const auto f = V::all(norm.factor), h = V::all(norm.shift), m = V::all(norm.mean), i = V::all(norm.inverse);
    const auto zero = V::zero();
    for (int64_t k = 0; k < count; k += lanes) {
        for (int r = 0; r < V::count; ++r) {
            const int64_t n = k + r * V::width;
            auto v = V::load(g + n);
            if (activation == rectify_by_output) {
                prefetch_for_writing(decide + n);
                v = Vector<T>::load(decide + n) <= zero ? zero : v;
            }
            if (activation == rectify_by_input) v = fma(f, Vector<Z>::load(z + n), h) <= zero ? zero : v;
            if (activation != none) V::store(g + n, v);
            sums.part[r] += v;
            if (normalized) {
                const auto x = (Vector<Z>::load(z + n) - m) * i;
                V::store(hat + n, x);
                products.part[r] = fma(v, x, products.part[r]);
            }
        }
    }
    moments.g += sums.total(images);
    if (normalized) moments.product += products.total(images);
}

// to = a * g + (b * hat + c), or a * g + c without hat
template <bool normalized, typename T>
inline void combine(const T* g, const Value<T>* hat, Value<T> a, Value<T> b, Value<T> c, T* to, int64_t count) {
    using V = Vector<T>;
    const auto va = V::all(a), vb = V::all(b), vc = V::all(c);
    for (int64_t k = 0; k < count; k += V::width) {
        prefetch_for_writing(to + k);
        prefetch(g + k);
        if (normalized) prefetch(hat + k);
        const auto rest = normalized ? fma(vb, Vector<Value<T>>::load(hat + k), vc) : vc;
        V::store(to + k, fma(va, V::load(g + k), rest));
    }
}

// Lane by lane, the sums of one segment for a non-zero among few.
template <typename T>
inline void add_products(const Geometry& g, const Planes<T>& x, int32_t source, int32_t tap, const Segment& segment,
                         const Value<T>* gradient, const Value<T>* hat, Products& products) {
    using V = Vector<Value<T>>;
    LaneSums<Value<T>> ones, gradients, hats;
    const bool is_stored = x.is_stored(source);
    const auto constant = V::all(is_stored ? Value<T>(0) : x.constants[source]);
    const T* image = x.data + source * g.in_plane() + segment.group * g.in_image();
    for_each_run(g, tap, segment, [&](int64_t at, int64_t from, int64_t run) {
        for (int64_t k = 0; k < run; k += lanes) {
            for (int r = 0; r < V::count; ++r) {
                const int64_t n = k + r * V::width;
                const auto v = is_stored ? Vector<T>::load(image + from + n) : constant;
                ones.part[r] += v;
                gradients.part[r] = fma(v, V::load(gradient + at + n), gradients.part[r]);
                hats.part[r] = fma(v, V::load(hat + at + n), hats.part[r]);
            }
        }
    });
    const int32_t images = g.images(segment.group);
    products.x += ones.total(images);
    products.g += gradients.total(images);
    products.hat += hats.total(images);
}

// What a thread works with, for one channel after the other.
template <typename T>
struct Workspace {
    using F = Value<T>;
    Workspace(const Backward<T>& b, int32_t most)
        : segment_numbers(out_segments(b.geometry).most_rows() * b.geometry.out_row()),
          hats(scratch<F, 0>(b.geometry.out_numbers())),
          gradients(scratch<T, 1>(b.g == nullptr && b.dz == nullptr ? b.geometry.out_numbers() : 0)),
          convolved(scratch<F, 2>(2 * segment_numbers)),
          incoming(convolved + segment_numbers),
          spare(scratch<T, 5>(segment_numbers)),
          sums(scratch<double, 3>(most)),
          fillers(b.geometry.out_row(), at_once) {}

    int64_t segment_numbers;
    F* hats;
    T* gradients;
    F *convolved, *incoming;  // of a segment
    T* spare;                 // of a segment, where it is not kept
    double* sums;             // of the non-zeros of a channel with many
    Fillers<T> fillers;
};

// Adds the sums of one segment, whose gradient is in `to` and whose normalized z comes into `hat`.
template <typename T>
void activate_segment(const Backward<T>& b, int32_t channel, const Segment& segment, int64_t at, Value<T>* to, Value<T>* hat,
                      Value<T>* convolved, Moments& moments) {
    using F = Value<T>;
    const Geometry& g = b.geometry;
    const int64_t count = segment.rows() * g.out_row(), plane = g.out_plane();
    const int32_t images = g.images(segment.group);
    const Normalization<F>& norm = b.normalization[channel];
    const bool dead = b.by_output.count(channel) == 0;
    if (b.activation == dynamic) {
        const int64_t of_group = segment.group * lanes, all = int64_t(g.groups()) * lanes;
        dyrelu_gradient(to, b.y + channel * plane + at, b.coefficients + channel * 4 * all + of_group, all,
                        b.pooled + channel * all + of_group, int64_t(g.out_height) * g.out_width, count);
        round_all<T>(to, count);
    }
    const T* decide = b.y + channel * plane + at;
    if (dead) {
        const F* none_given = nullptr;
        if (b.activation == rectify_by_output) {
            activate<rectify_by_output, false>(to, decide, none_given, norm, hat, count, images, moments);
            return;
        }
        // z is 0 everywhere, and the activation passes everything: else the channel is unreached.
        activate<none, false>(to, decide, none_given, norm, hat, count, images, moments);
        return;
    }
    const auto with = [&](const auto* z) {
        switch (b.activation) {
            case rectify_by_output:
                activate<rectify_by_output, true>(to, decide, z, norm, hat, count, images, moments);
                break;
            case rectify_by_input:
                activate<rectify_by_input, true>(to, decide, z, norm, hat, count, images, moments);
                break;
            default:
                activate<none, true>(to, decide, z, norm, hat, count, images, moments);
        }
    };
    if (b.z != nullptr) {
        with(b.z + channel * plane + at);
        return;
    }
    convolve_segment(g, b.by_output, b.values, b.x, channel, segment, convolved);
    with(convolved);
}

// One segment of the gradient at the unit's output. `to` may be the same memory as `direct`.
template <typename T>
void incoming_segment(const Backward<T>& b, int32_t channel, const Segment& segment, int64_t at, Value<T>* to) {
    const int64_t count = segment.rows() * b.geometry.out_row();
    if (b.direct == nullptr) {
        for (int64_t k = 0; k < count; k += 64 / sizeof(*to)) prefetch_for_writing(to + k);
        fill(to, Value<T>(0), count);
    } else if (const T* from = b.direct + channel * b.geometry.out_plane() + at; static_cast<const void*>(from) != to) {
        take(to, from, count);
    }
    for (const Consumer<T>& consumer : b.consumers) {
        if (consumer.dz == nullptr) continue;
        gather_segment(consumer.geometry, consumer.by_input, consumer.values, consumer.dz, channel, segment, to);
    }
}

// Where the gradient of a segment is worked on: in its place where it is kept as it is computed.
template <typename T>
Value<T>* place_of(T* kept, int64_t at, const Workspace<T>& work) {
    if constexpr (std::is_same_v<T, Value<T>>) {
        if (kept != nullptr) return kept + at;
    }
    return work.incoming;
}

constexpr int32_t most_readers = 4;

// What the first pass over a channel with few non-zeros and few readers works with.
template <typename T>
struct FewPass {
    const Geometry& g;
    Reads<few + most_readers, T> reads;  // first the non-zeros, then the readers
    const T* zeros;
    const T* y;
    const Normalization<Value<T>>& norm;
    Value<T>* hats;
    T *kept, *spare;  // `kept` is null where the gradient itself is not needed
    Moments& moments;
    Products* products;
};

// The whole first pass: the gradient at the output (a sum over readers), z again (a sum over sources), the gradient before
// the activation, normalized z, and all sums, in one loop.
template <int sources, int readers, int32_t activation, typename T>
void backward_few(const FewPass<T>& pass) {
    using V = Vector<T>;
    using R = typename V::Register;
    const Geometry& g = pass.g;
    R values[sources + readers];
    for (int j = 0; j < sources + readers; ++j) values[j] = V::all(pass.reads.items[j].value);
    const R f = V::all(pass.norm.factor), h = V::all(pass.norm.shift), m = V::all(pass.norm.mean), i = V::all(pass.norm.inverse);
    const R zero = V::zero();
    const bool straight = pass.reads.is_straight();
    const Segments segments = out_segments(g);
    for (int32_t index = 0; index < segments.count(); ++index) {
        const Segment segment = segments[index];
        LaneSums<Value<T>> sums, hat_sums, x_sums[sources + 1], x_g[sources + 1], x_hat[sources + 1];
        const T* y = pass.y;
        T* to = pass.spare;
        Value<T>* hat = pass.hats;
        const auto begin_row = [&](int32_t row) {
            const int64_t at = segment.group * g.out_image() + row * g.out_row();
            y = pass.y + at;
            hat = pass.hats + at;
            if (pass.kept != nullptr) to = pass.kept + at;
        };
        const auto apply = [&](const T* const* at, int64_t k) {
            for (int r = 0; r < V::count; ++r) {
                const int64_t n = k + r * V::width;
                for (int j = 0; j < sources + readers; ++j) prefetch(at[j] + n);
                if (activation == rectify_by_output) prefetch_for_writing(y + n);
                R gradient = fma(values[sources], V::load(at[sources] + n), zero);
                for (int j = sources + 1; j < sources + readers; ++j) gradient = fma(values[j], V::load(at[j] + n), gradient);
                gradient = V::rounded(gradient);
                if (activation == rectify_by_output) gradient = V::load(y + n) <= zero ? zero : gradient;
                if (sources > 0) {
                    R x[sources + 1], z = zero;
                    for (int j = 0; j < sources; ++j) {
                        x[j] = V::load(at[j] + n);
                        z = fma(values[j], x[j], z);
                    }
                    z = V::rounded(z);
                    if (activation == rectify_by_input) gradient = fma(f, z, h) <= zero ? zero : gradient;
                    const R normalized = (z - m) * i;
                    Vector<Value<T>>::store(hat + n, normalized);
                    hat_sums.part[r] = fma(gradient, normalized, hat_sums.part[r]);
                    for (int j = 0; j < sources; ++j) {
                        x_sums[j].part[r] += x[j];
                        x_g[j].part[r] = fma(x[j], gradient, x_g[j].part[r]);
                        x_hat[j].part[r] = fma(x[j], normalized, x_hat[j].part[r]);
                    }
                }
                V::store(to + n, gradient);
                sums.part[r] += gradient;
            }
        };
        for_each_position<sources + readers>(g, segment, pass.reads.items, pass.zeros, straight, begin_row, apply);
        const int32_t images = g.images(segment.group);
        pass.moments.g += sums.total(images);
        if (sources > 0) pass.moments.product += hat_sums.total(images);
        for (int j = 0; j < sources; ++j) {
            pass.products[j].x += x_sums[j].total(images);
            pass.products[j].g += x_g[j].total(images);
            pass.products[j].hat += x_hat[j].total(images);
        }
    }
}

template <typename T>
using FewKernel = void (*)(const FewPass<T>&);

template <int sources, int32_t activation, typename T>
FewKernel<T> few_kernel(int32_t readers) {
    static constexpr FewKernel<T> kernels[most_readers] = {
        backward_few<sources, 1, activation, T>, backward_few<sources, 2, activation, T>,
        backward_few<sources, 3, activation, T>, backward_few<sources, 4, activation, T>};
    return kernels[readers - 1];
}

template <int32_t activation, typename T>
FewKernel<T> few_kernel(int32_t sources, int32_t readers) {
    switch (sources) {
        case 0:
            return few_kernel<0, activation, T>(readers);
        case 1:
            return few_kernel<1, activation, T>(readers);
        case 2:
            return few_kernel<2, activation, T>(readers);
        default:
            return few_kernel<3, activation, T>(readers);
    }
}

// The first pass of a channel with few non-zeros and few readers, all of stride 1; false if it is not one.
template <typename T>
bool try_few(const Backward<T>& b, int32_t channel, T* kept, Workspace<T>& work, Moments& moments, Products* products) {
    const Geometry& g = b.geometry;
    const int32_t nonzeros = b.by_output.count(channel);
    const bool by_output = b.activation == rectify_by_output;
    if (b.z != nullptr || !is_near(g) || nonzeros > few || (!by_output && b.activation != rectify_by_input)) return false;
    const Normalization<Value<T>>& norm = b.normalization[channel];
    const Reads<few, T> from = sources_of(g, b.by_output, b.values, b.x, channel, work.fillers);
    FewPass<T> pass{g, {}, work.fillers.zeros(), b.y + channel * g.out_plane(), norm, work.hats, kept, work.spare, moments, products};
    for (int32_t j = 0; j < nonzeros; ++j) pass.reads.items[pass.reads.count++] = from.items[j];
    const int64_t plane = g.out_plane();
    if (b.direct != nullptr) pass.reads.add(b.direct + channel * plane, nullptr, 0, 0, Value<T>(1));
    bool is_read = false;
    for (const Consumer<T>& consumer : b.consumers) {
        if (consumer.dz == nullptr) continue;
        const int32_t begin = consumer.by_input.start[channel], end = consumer.by_input.start[channel + 1];
        if (begin == end) continue;
        // What one reader leaves is rounded before the next adds to it.
        if (is_read && !std::is_same_v<T, Value<T>>) return false;
        is_read = true;
        const Geometry& c = consumer.geometry;
        if (!is_near(c) || pass.reads.count - nonzeros + end - begin > most_readers) return false;
        for (int32_t j = begin; j < end; ++j) {
            const int32_t tap = consumer.by_input.tap[j];
            pass.reads.add(consumer.dz + consumer.by_input.channel[j] * plane, nullptr, c.padding - tap / c.kernel,
                           c.padding - tap % c.kernel, consumer.values[consumer.by_input.value[j]]);
        }
    }
    const int32_t readers = pass.reads.count - nonzeros;
    if (readers == 0) return false;
    const auto kernel = by_output ? few_kernel<rectify_by_output, T>(nonzeros, readers)
                                  : few_kernel<rectify_by_input, T>(nonzeros, readers);
    kernel(pass);
    return true;
}

// Whether no gradient reaches a channel: nothing reads it, or it is constant and the activation passes nothing.
template <typename T>
bool is_unreached(const Backward<T>& b, int32_t channel) {
    if (b.read != nullptr && !b.read[channel]) return true;
    return b.by_output.count(channel) == 0 && b.activation == rectify_by_input && b.normalization[channel].shift <= 0;
}

// A channel that no gradient reaches.
template <typename T>
void unread_channel(const Backward<T>& b, int32_t channel) {
    const int64_t plane = b.geometry.out_plane();
    b.weight_gradient[channel] = b.bias_gradient[channel] = 0;
    if (b.z != nullptr) {
        b.slopes[channel] = {};
        return;
    }
    for (int32_t j = b.by_output.start[channel]; j < b.by_output.start[channel + 1]; ++j) {
        b.value_gradient[b.by_output.value[j]] = 0;
    }
    // Kernels that read dz by themselves must find zeros; lists for gathering leave the channel out.
    if (b.dz != nullptr && b.dz_of_dead) fill(b.dz + channel * plane, kept_as<T>(0), b.geometry.out_numbers());
}

// The second pass of a channel: dz, and what is summed of it.
template <typename T>
void finish_channel(const Backward<T>& b, int32_t channel, const T* kept, const Workspace<T>& work, bool want_dz,
                    Value<T> of_hat, Value<T> shared, bool& first_of_part) {
    using F = Value<T>;
    const Geometry& g = b.geometry;
    const int64_t plane = g.out_plane();
    const Segments segments = out_segments(g);
    const int32_t begin = b.by_output.start[channel], nonzeros = b.by_output.count(channel);
    const bool sums_here = nonzeros > few;
    const F factor = b.normalization[channel].factor;
    if (sums_here) fill(work.sums, 0.0, nonzeros);
    for (int32_t index = 0; index < segments.count(); ++index) {
        const Segment segment = segments[index];
        const int64_t at = segment.group * g.out_image() + segment.row_begin * g.out_row();
        const int64_t count = segment.rows() * g.out_row();
        T* to = want_dz ? b.dz + channel * plane + at : work.spare;
        if (nonzeros == 0) {
            combine<false>(kept + at, work.hats, factor, F(0), shared, to, count);
        } else {
            combine<true>(kept + at, work.hats + at, factor, of_hat, shared, to, count);
        }
        if (sums_here) {
            const auto take = [&](int32_t j, F sum) { work.sums[j - begin] += sum; };
            dot_channel<T>(g, b.by_output, b.x, channel, segment, to, work.fillers, take);
        }
        for (int32_t probe = 0; probe < b.probes; ++probe) {
            F* sketch = b.sketches + (int64_t(channel / sketch_channels) * b.probes + probe) * g.out_numbers() + at;
            const F sign = b.signs[int64_t(probe) * g.out_channels + channel];
            first_of_part ? set_scaled<T>(sketch, to, sign, count) : add_scaled<T>(sketch, to, sign, count);
        }
    }
    for (int32_t j = 0; j < (sums_here ? nonzeros : 0); ++j) b.value_gradient[b.by_output.value[begin + j]] = F(work.sums[j]);
    first_of_part = false;
}

// `first_of_part` tells that the sketches hold nothing yet.
template <typename T>
void backward_channel(const Backward<T>& b, int32_t channel, Workspace<T>& work, bool& first_of_part) {
    using F = Value<T>;
    const Geometry& g = b.geometry;
    if (is_unreached(b, channel)) {
        unread_channel(b, channel);
        return;
    }
    const int64_t plane = g.out_plane();
    const int32_t begin = b.by_output.start[channel], nonzeros = b.by_output.count(channel);
    const bool want_dz = b.dz != nullptr && (nonzeros > 0 || b.dz_of_dead);
    const bool second_pass = b.z == nullptr && (want_dz || b.probes > 0 || nonzeros > few);
    // The gradient after the activation: null where only its sums are needed.
    T* kept = nullptr;
    if (b.g != nullptr) {
        kept = b.g + channel * plane;
    } else if (second_pass) {
        kept = b.dz != nullptr ? b.dz + channel * plane : work.gradients;
    }
    const Segments segments = out_segments(g);
    Moments moments;
    Products products[few];
    const bool done = try_few(b, channel, kept, work, moments, products);
    for (int32_t index = 0; index < (done ? 0 : segments.count()); ++index) {
        const Segment segment = segments[index];
        const int64_t at = segment.group * g.out_image() + segment.row_begin * g.out_row();
        F *to = place_of(kept, at, work), *hat = work.hats + at;
        incoming_segment(b, channel, segment, at, to);
        activate_segment(b, channel, segment, at, to, hat, work.convolved, moments);
        if (kept != nullptr && static_cast<void*>(kept + at) != to) keep(kept + at, to, segment.rows() * g.out_row());
        for (int32_t j = 0; j < (nonzeros <= few && b.z == nullptr ? nonzeros : 0); ++j) {
            const int32_t source = b.by_output.channel[begin + j], tap = b.by_output.tap[begin + j];
            add_products(g, b.x, source, tap, segment, to, hat, products[j]);
        }
    }
    b.weight_gradient[channel] = F(moments.product);
    b.bias_gradient[channel] = F(moments.g);
    const double numbers = double(g.batch) * g.out_height * g.out_width;
    const Slope slope(b.normalization[channel], moments.g, moments.product, numbers);
    if (b.z != nullptr) {
        b.slopes[channel] = slope;
        return;
    }
    // dz = factor * (g - mean of g - hat * mean of g hat)
    const F factor = b.normalization[channel].factor;
    for (int32_t j = 0; j < (nonzeros <= few ? nonzeros : 0); ++j) {
        const double sum = factor * products[j].g + slope.of_hat * products[j].hat + slope.shared * products[j].x;
        b.value_gradient[b.by_output.value[begin + j]] = F(sum);
    }
    if (second_pass) finish_channel(b, channel, kept, work, want_dz, F(slope.of_hat), F(slope.shared), first_of_part);
}

template <typename T>
void backward(const Backward<T>& b) {
    const Geometry& g = b.geometry;
    const int32_t at_once = b.probes > 0 ? sketch_channels : 1, parts = (g.out_channels + at_once - 1) / at_once;
    int32_t most = 0;
    for (int32_t channel = 0; channel < g.out_channels; ++channel) most = std::max(most, b.by_output.count(channel));
    in_parallel([&](const Thread& thread) {
        Workspace<T> work(b, most);
        thread.share(parts, [&](int64_t index) {
            const int32_t part = int32_t(index);
            bool first_of_part = true;
            const int32_t end = std::min((part + 1) * at_once, g.out_channels);
            for (int32_t channel = part * at_once; channel < end; ++channel) backward_channel(b, channel, work, first_of_part);
            if (b.probes > 0 && first_of_part) {
                fill(b.sketches + int64_t(part) * b.probes * g.out_numbers(), Value<T>(0), b.probes * g.out_numbers());
            }
        });
    });
}

}  // namespace
}  // namespace east

EAST_KERNEL(backward, Backward, backward)
