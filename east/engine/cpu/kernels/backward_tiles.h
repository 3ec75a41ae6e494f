// The products of the backward pass through a convolution, for some columns of a row of its input: the gradient there, and the
// sums for the gradients of non-zeros.
#pragma once

#include "rows.h"

namespace east {

// A non-zero, where its output channel begins in the ring, and where the sum for its gradient is. Others have a sum alone.
template <typename F>
struct Entry {
    int32_t from, tap;
    F value;
    int32_t sum;
};

// What one kernel position meets for the first column of a tile.
template <typename F>
struct Met {
    int64_t from;  // in a channel's ring
    const F* x;
};

// Some columns of a row of an input channel.
template <typename F>
struct Tile {
    const Entry<F>* entries;
    int64_t count;
    const F* ring;
    const Met<F>* taps;
    int64_t step;  // numbers from one column to the next, of x and of g
    F* g;
    F* sums;  // 32 for each entry
};

// g += value * dz, and the sum of an entry += x * dz.
template <typename F, bool gradient, bool sums>
struct AddColumns {
    template <int columns>
    struct Of {
        static void run(const Tile<F>& tile) {
            using V = Vector<F>;
            typename V::Register g[columns][V::count];
            for (int c = 0; c < columns; ++c) {
                for (int r = 0; r < V::count; ++r) {
                    g[c][r] = gradient ? V::load(tile.g + c * tile.step + r * V::width) : V::zero();
                }
            }
            for (int64_t j = 0; j < tile.count; ++j) {
                const Entry<F>& entry = tile.entries[j];
                const Met<F>& met = tile.taps[entry.tap];
                const F *from = tile.ring + entry.from + met.from, *x = met.x;
                F* sum = tile.sums + int64_t(entry.sum) * lanes;
                const auto value = V::all(entry.value);
                typename V::Register s[V::count];
                for (int r = 0; r < V::count; ++r) s[r] = sums ? V::load(sum + r * V::width) : V::zero();
                for (int c = 0; c < columns; ++c) {
                    for (int r = 0; r < V::count; ++r) {
                        auto dz = V::load(from + c * lanes + r * V::width);
                        if (gradient && sums) hold(dz);
                        if (gradient) g[c][r] = fma(value, dz, g[c][r]);
                        if (sums) s[r] = fma(V::load(x + c * tile.step + r * V::width), dz, s[r]);
                    }
                }
                for (int r = 0; r < V::count && sums; ++r) V::store(sum + r * V::width, s[r]);
            }
            for (int c = 0; c < columns && gradient; ++c) {
                for (int r = 0; r < V::count; ++r) V::store(tile.g + c * tile.step + r * V::width, g[c][r]);
            }
        }
    };
};

constexpr int32_t one_other = 1;  // for each register of a group, the sum of an entry beside those of columns

template <typename F>
using AddTile = void (*)(const Tile<F>&);

template <typename F, bool gradient, bool sums>
AddTile<F> add_tile(int32_t columns) {
    constexpr int most = columns_at_once<F>(one_other);
    return function_of<AddTile<F>, AddColumns<F, gradient, sums>::template Of>(columns, std::make_integer_sequence<int, most>());
}

}  // namespace east
