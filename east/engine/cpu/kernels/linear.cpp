// Dense linear layers on [features, groups, 32]: those that find the coefficients of a DyReLU.

#include "planes.h"

namespace east {
namespace {

template <typename T>
struct Linear {
    int64_t inputs, outputs, batch;
    const T* weight;  // [outputs, inputs]
    const T* bias;    // [outputs]
    const T* x;       // [inputs, groups, 32]
    T* y;             // [outputs, groups, 32]
    int32_t rectify;  // y ends in a ReLU
};

template <typename T>
struct LinearBackward {
    int64_t inputs, outputs, batch;
    const T* weight;
    const T* x;          // of the forward pass
    const T* y;          // of the forward pass where it ends in a ReLU, else null
    T* dy;               // zero in lanes without an image; becomes the gradient before the ReLU
    T* dx;               // null for not wanted
    T* weight_gradient;
    T* bias_gradient;
};

// Outputs that are summed at once.
constexpr int64_t at_once = 4;

// to[o] = first[o] + the sum over k, in ascending order, of weight[o * along + k * across] * from[k], for `count` neighbours.
template <int count, typename T>
inline void sum_products(const T* weight, int64_t along, int64_t across, const T* first, const T* from, int64_t stride,
                         int64_t terms, bool rectify, T* to) {
    using V = Vector<T>;
    typename V::Register sums[count][V::count];
    for (int o = 0; o < count; ++o) {
        for (int r = 0; r < V::count; ++r) sums[o][r] = V::all(first == nullptr ? T(0) : first[o]);
    }
    for (int64_t k = 0; k < terms; ++k) {
        for (int o = 0; o < count; ++o) {
            const auto factor = V::all(weight[o * along + k * across]);
            for (int r = 0; r < V::count; ++r) {
                sums[o][r] = fma(factor, V::load(from + k * stride + r * V::width), sums[o][r]);
            }
        }
    }
    for (int o = 0; o < count; ++o) {
        for (int r = 0; r < V::count; ++r) {
            const auto sum = sums[o][r], zero = V::zero();
            V::store(to + o * stride + r * V::width, rectify ? (sum <= zero ? zero : sum) : sum);
        }
    }
}

// The same for all `outputs` and groups: this thread's part.
template <typename T>
void multiply(const Thread& thread, const T* weight, int64_t along, int64_t across, const T* bias, const T* from, int64_t terms,
              int64_t outputs, int32_t groups, bool rectify, T* to) {
    const int64_t stride = int64_t(groups) * lanes, blocks = (outputs + at_once - 1) / at_once;
    thread.divide(blocks * groups, [&](int64_t task) {
        const int64_t begin = task / groups * at_once, group = task % groups * lanes;
        const int64_t count = std::min(at_once, outputs - begin);
        const T *first = bias == nullptr ? nullptr : bias + begin, *rows = weight + begin * along;
        T* at = to + begin * stride + group;
        if (count == at_once) {
            sum_products<at_once>(rows, along, across, first, from + group, stride, terms, rectify, at);
            return;
        }
        for (int64_t o = 0; o < count; ++o) {
            sum_products<1>(rows + o * along, along, across, first == nullptr ? nullptr : first + o, from + group, stride,
                            terms, rectify, at + o * stride);
        }
    });
}

template <typename T>
void linear(const Linear<T>& l) {
    const int32_t groups = groups_of(int32_t(l.batch));
    in_parallel([&](const Thread& thread) {
        multiply(thread, l.weight, l.inputs, 1, l.bias, l.x, l.inputs, l.outputs, groups, l.rectify != 0, l.y);
    });
}

// The sum over images of the products of two features: lane by lane over groups, then over lanes.
template <typename T>
inline T dot(const T* left, const T* right, int32_t groups) {
    using V = Vector<T>;
    LaneSums<T> sums;
    for (int32_t k = 0; k < groups * lanes; k += lanes) {
        for (int r = 0; r < V::count; ++r) {
            sums.part[r] = fma(V::load(left + k + r * V::width), V::load(right + k + r * V::width), sums.part[r]);
        }
    }
    return sums.total(lanes);
}

template <typename T>
void linear_backward(const LinearBackward<T>& l) {
    const int32_t groups = groups_of(int32_t(l.batch));
    const int64_t stride = int64_t(groups) * lanes;
    in_parallel([&](const Thread& thread) {
        T* ones = scratch<T, 0>(stride);
        fill(ones, T(1), stride);
        thread.divide(l.outputs, [&](int64_t o) {
            T* dy = l.dy + o * stride;
            if (l.y != nullptr) {
                for (int64_t k = 0; k < stride; ++k) dy[k] = l.y[o * stride + k] <= 0 ? T(0) : dy[k];
            }
            l.bias_gradient[o] = dot(dy, ones, groups);
            for (int64_t i = 0; i < l.inputs; ++i) {
                l.weight_gradient[o * l.inputs + i] = dot(dy, l.x + i * stride, groups);
            }
        });
        thread.wait();
        if (l.dx != nullptr) {
            const T* none = nullptr;
            multiply(thread, l.weight, 1, l.inputs, none, l.dy, l.outputs, l.inputs, groups, false, l.dx);
        }
    });
}

}  // namespace
}  // namespace east

EAST_KERNEL_OF_VALUES(linear, Linear, linear)
EAST_KERNEL_OF_VALUES(linear_backward, LinearBackward, linear_backward)
