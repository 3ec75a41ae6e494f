// DyReLU units: coefficients from the output of their linear layers, the units themselves, and gradients at coefficients.

#include "dyrelu.h"
#include "elementary.h"

namespace east {
namespace {

// Of the four coefficients a1, a2, b1, b2: what they are at rest, and how far they may move, in units of beta.
constexpr double rest[4] = {1, 0, 0, 0}, range[4] = {1, 1, 0.5, 0.5};

template <typename T>
struct Coefficients {
    int64_t channels, batch;
    double beta;
    T* code;          // [channels, 4, groups, 32]: what the linear layers give, becomes its sigmoid
    T* coefficients;  // likewise: rest + beta * range * (2 * code - 1)
};

template <typename T>
struct CoefficientsBackward {
    int64_t channels, batch;
    double beta;
    const T* code;
    T* gradient;  // at the coefficients, becomes that at what the linear layers give; zero in lanes without an image
};

template <typename T>
struct DyReLUApply {
    int64_t channels, height, width, batch;
    Planes<T> u;
    const Value<T>* coefficients;
    T* y;  // [channels, groups, height, width, 32]: max(a1 u + b1, a2 u + b2)
};

template <typename T>
struct DyReLUSums {
    int64_t channels, height, width, batch;
    Planes<T> u;
    const Value<T>* coefficients;
    const T* dy;
    Value<T>* gradient;  // [channels, 4, groups, 32]: the gradient at the coefficients
};

template <typename T>
void find_coefficients(const Coefficients<T>& c) {
    const int64_t stride = int64_t(groups_of(int32_t(c.batch))) * lanes;
    in_parallel([&](const Thread& thread) {
        thread.divide(4 * c.channels, [&](int64_t row) {
            const T scale = T(c.beta * range[row % 4]), first = T(rest[row % 4]);
            T *code = c.code + row * stride, *to = c.coefficients + row * stride;
            for (int64_t k = 0; k < stride; ++k) {
                const T found = T(sigmoid(code[k]));
                code[k] = found;
                to[k] = fma(scale, fma(T(2), found, T(-1)), first);
            }
        });
    });
}

template <typename T>
void find_coefficients_backward(const CoefficientsBackward<T>& c) {
    const int64_t stride = int64_t(groups_of(int32_t(c.batch))) * lanes;
    in_parallel([&](const Thread& thread) {
        thread.divide(4 * c.channels, [&](int64_t row) {
            const T scale = T(c.beta * range[row % 4]);
            const T* code = c.code + row * stride;
            T* gradient = c.gradient + row * stride;
            for (int64_t k = 0; k < stride; ++k) {
                const T slope = 2 * scale * (code[k] * (1 - code[k]));
                gradient[k] = k < c.batch ? gradient[k] * slope : T(0);
            }
        });
    });
}

// Where a group's numbers of a channel begin, and a group of a constant where the channel is one.
template <typename T>
struct GroupOf {
    const T* from;
    int64_t step;  // from one position to the next

    GroupOf(const Planes<T>& u, int64_t channel, int64_t at, T* line) : from(u.data + at), step(lanes) {
        if (u.is_stored(channel)) return;
        fill(line, kept_as<T>(u.constants[channel]), lanes);
        from = line;
        step = 0;
    }
};

template <typename T>
void apply_dyrelu(const DyReLUApply<T>& a) {
    using V = Vector<T>;
    const int32_t groups = groups_of(int32_t(a.batch));
    const int64_t stride = int64_t(groups) * lanes, positions = a.height * a.width, image = positions * lanes;
    const int64_t plane = plane_stride(groups, a.height, a.width);
    in_parallel([&](const Thread& thread) {
        T* line = scratch<T, 0>(lanes);
        thread.divide(a.channels * groups, [&](int64_t task) {
            const int64_t channel = task / groups, group = task % groups;
            const int64_t at = channel * plane + group * image;
            const GroupOf<T> u(a.u, channel, at, line);
            T* y = a.y + at;
            for (int r = 0; r < V::count; ++r) {
                const int32_t lane = r * V::width;
                const DyReLULines<Value<T>> lines(a.coefficients + channel * 4 * stride + group * lanes + lane, stride);
                for (int64_t p = 0; p < positions; ++p) {
                    V::store(y + p * lanes + lane, lines.maximum(V::load(u.from + p * u.step + lane)));
                }
            }
        });
    });
}

// Gradients at the coefficients, summed over positions.
template <typename T>
struct CoefficientSums {
    using V = Vector<T>;
    typename V::Register a1{}, a2{}, b1{}, b2{};

    void add(const DyReLULines<T>& lines, typename V::Register u, typename V::Register dy) {
        const auto one = lines.first(u), two = lines.second(u), zero = V::zero();
        // Where both lines are equal PyTorch gives each half of the gradient.
        const auto shared = one == two ? dy * V::all(T(0.5)) : dy;
        const auto of_first = one < two ? zero : shared, of_second = one > two ? zero : shared;
        a1 = fma(of_first, u, a1);
        a2 = fma(of_second, u, a2);
        b1 += of_first;
        b2 += of_second;
    }
    // Adds the sums of a segment to those in double, [4, 32].
    void add_to(double* totals) const {
        for (int r = 0; r < V::width; ++r) {
            totals[r] += a1[r];
            totals[lanes + r] += a2[r];
            totals[2 * lanes + r] += b1[r];
            totals[3 * lanes + r] += b2[r];
        }
    }
};

template <typename T>
void sum_dyrelu(const DyReLUSums<T>& s) {
    using V = Vector<T>;
    const int32_t groups = groups_of(int32_t(s.batch)), height = int32_t(s.height), width = int32_t(s.width);
    const int64_t stride = int64_t(groups) * lanes, image = s.height * s.width * lanes;
    const int64_t plane = plane_stride(groups, s.height, s.width);
    const Segments segments(1, height, width);
    in_parallel([&](const Thread& thread) {
        T* line = scratch<T, 0>(lanes);
        thread.divide(s.channels * groups, [&](int64_t task) {
            const int64_t channel = task / groups, group = task % groups;
            const int64_t at = channel * plane + group * image;
            const GroupOf<T> u(s.u, channel, at, line);
            const T* dy = s.dy + at;
            double totals[4 * lanes] = {};
            for (int32_t index = 0; index < segments.count(); ++index) {
                const int64_t begin = int64_t(segments[index].row_begin) * width;
                const int64_t end = int64_t(segments[index].row_end) * width;
                for (int r = 0; r < V::count; ++r) {
                    const int32_t lane = r * V::width;
                    const DyReLULines<Value<T>> lines(s.coefficients + channel * 4 * stride + group * lanes + lane, stride);
                    CoefficientSums<Value<T>> sums;
                    for (int64_t p = begin; p < end; ++p) {
                        sums.add(lines, V::load(u.from + p * u.step + lane), V::load(dy + p * lanes + lane));
                    }
                    sums.add_to(totals + lane);
                }
            }
            for (int32_t k = 0; k < 4; ++k) {
                Value<T>* to = s.gradient + (channel * 4 + k) * stride + group * lanes;
                for (int32_t lane = 0; lane < lanes; ++lane) to[lane] = Value<T>(totals[k * lanes + lane]);
            }
        });
    });
}

}  // namespace
}  // namespace east

EAST_KERNEL_OF_VALUES(coefficients, Coefficients, find_coefficients)
EAST_KERNEL_OF_VALUES(coefficients_backward, CoefficientsBackward, find_coefficients_backward)
EAST_KERNEL(dyrelu_apply, DyReLUApply, apply_dyrelu)
EAST_KERNEL(dyrelu_sums, DyReLUSums, sum_dyrelu)
