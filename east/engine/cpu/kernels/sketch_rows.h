// Sums of a row of a convolution's input and of the rows of a sketch that it meets.
#pragma once

#include "arithmetic.h"

namespace east {

// For a 3x3 kernel of stride 1, some kernel rows of it: sums of a row of x times the rows of a sketch that they meet. What is
// loaded of the sketch stays in registers from one column to the next.
template <int rows, typename F>
inline void add_sketch_rows(const F* x, const F* const* sketch, F* const* sums, int32_t width) {
    using V = Vector<F>;
    for (int32_t lane = 0; lane < lanes; lane += V::width) {
        typename V::Register s[rows][3], before[rows], here[rows], after[rows];
        for (int k = 0; k < rows; ++k) {
            for (int column = 0; column < 3; ++column) s[k][column] = V::load(sums[k] + column * lanes + lane);
            before[k] = after[k] = V::zero();
            here[k] = V::load(sketch[k] + lane);
        }
        const auto add_column = [&](int32_t column, bool is_first, bool is_last) __attribute__((always_inline)) {
            auto value = V::load(x + column * lanes + lane);
            hold(value);
            for (int k = 0; k < rows; ++k) {
                if (!is_last) after[k] = V::load(sketch[k] + (column + 1) * lanes + lane);
                if (!is_last) s[k][0] = fma(value, after[k], s[k][0]);
                s[k][1] = fma(value, here[k], s[k][1]);
                if (!is_first) s[k][2] = fma(value, before[k], s[k][2]);
                before[k] = here[k];
                here[k] = after[k];
            }
        };
        add_column(0, true, width == 1);
        for (int32_t column = 1; column < width - 1; ++column) add_column(column, false, false);
        if (width > 1) add_column(width - 1, false, true);
        for (int k = 0; k < rows; ++k) {
            for (int column = 0; column < 3; ++column) V::store(sums[k] + column * lanes + lane, s[k][column]);
        }
    }
}

// Kernel rows that are summed at once, so that their sums fit the registers.
#if EAST_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int sketch_rows = 3;
#else
constexpr int sketch_rows = 1;
#endif

}  // namespace east
