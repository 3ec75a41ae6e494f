// The gradient behind a batch norm and an activation, a row of a channel at a time, and what batch norm needs of it.
#pragma once

#include "rows.h"

namespace east {

// Sums of a row of the gradient before an activation, and of its products with normalized z.
template <typename F>
struct GradientSums {
    LaneSums<F> g, product;
};

// In place: the gradient before the activation; its sums.
template <int32_t activation, bool normalized, typename F, typename T>
void activate_row(F* g, const F* x, const T* z, const Normalization<F>& norm, int64_t count, GradientSums<F>& sums) {
    using V = Vector<F>;
    const auto f = V::all(norm.factor), h = V::all(norm.shift), m = V::all(norm.mean), i = V::all(norm.inverse);
    const auto zero = V::zero();
    GradientSums<F> found = sums;
    for (int64_t k = 0; k < count; k += lanes) {
        for (int r = 0; r < V::count; ++r) {
            const int64_t n = k + r * V::width;
            auto v = V::load(g + n);
            const auto of_z = normalized ? Vector<T>::load(z + n) : zero;
            if (activation == rectify_by_output) v = V::load(x + n) <= zero ? zero : v;
            if (activation == rectify_by_input) v = fma(f, of_z, h) <= zero ? zero : v;
            if (activation != none) V::store(g + n, v);
            found.g.part[r] += v;
            if (normalized) found.product.part[r] = fma(v, (of_z - m) * i, found.product.part[r]);
        }
    }
    sums = found;
}

}  // namespace east
