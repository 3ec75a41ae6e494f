// DyReLU: the larger of two lines whose coefficients belong to one channel of one image.
#pragma once

#include "planes.h"

namespace east {

// The two lines of one channel, for the images of a register.
template <typename T>
struct DyReLULines {
    using V = Vector<T>;
    typename V::Register a1, a2, b1, b2;

    // Coefficients lie `stride` numbers apart.
    DyReLULines(const T* at, int64_t stride)
        : a1(V::load(at)), a2(V::load(at + stride)), b1(V::load(at + 2 * stride)), b2(V::load(at + 3 * stride)) {}

    typename V::Register first(typename V::Register u) const { return fma(a1, u, b1); }
    typename V::Register second(typename V::Register u) const { return fma(a2, u, b2); }
    typename V::Register maximum(typename V::Register u) const {
        const auto one = first(u), two = second(u);
        return ((one > two) | (one != one)) ? one : two;  // a NaN stays one
    }
};

// In place, of one segment: the gradient through the larger line, and through the mean over `positions`.
template <typename T>
inline void dyrelu_gradient(Value<T>* g, const T* u, const Value<T>* coefficients, int64_t stride, const Value<T>* pooled,
                            int64_t positions, int64_t count) {
    using V = Vector<Value<T>>;
    for (int r = 0; r < V::count; ++r) {
        const int32_t lane = r * V::width;
        const DyReLULines<Value<T>> lines(coefficients + lane, stride);
        const auto mean = V::load(pooled + lane) / V::all(Value<T>(positions)), half = V::all(Value<T>(0.5));
        const auto both = (lines.a1 + lines.a2) * half;
        for (int64_t k = lane; k < count; k += lanes) {
            const auto one = lines.first(Vector<T>::load(u + k)), two = lines.second(Vector<T>::load(u + k));
            // Where both lines are equal PyTorch gives each half of the gradient.
            const auto slope = one > two ? lines.a1 : (two > one ? lines.a2 : both);
            V::store(g + k, fma(V::load(g + k), slope, mean));
        }
    }
}

}  // namespace east
