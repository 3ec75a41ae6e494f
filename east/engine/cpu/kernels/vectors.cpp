// What is done with parameters and their gradients as vectors: sums of products, and the steps of optimizers.

#include "planes.h"

namespace east {
namespace {

// Several vectors, each by its address and length.
template <typename T>
struct Vectors {
    int64_t count;
    T* const* at;
    const int64_t* lengths;
};

template <typename T>
struct SumOfSquares {
    Vectors<T> vectors;
    double* sums;  // [count]
};

template <typename T>
struct Dot {
    int64_t length;
    const T *left, *right;
    double* sum;
};

template <typename T>
struct ProbeSquares {
    int64_t rows, probes, columns;
    const T* products;  // [rows, probes, columns]
    double* sums;       // [probes]: over rows, then columns
};

template <typename T>
struct Sgd {
    Vectors<T> values;
    const T* const* gradients;
    T* const* momenta;
    double lr, momentum, weight_decay;
    int32_t nesterov;
};

template <typename T>
struct Adam {
    Vectors<T> values;
    const T* const* gradients;
    T* const* means;
    T* const* mean_squares;
    double mean_decay, square_decay, weight_decay, epsilon;
    double step;           // lr / (1 - mean_decay^t)
    double square_factor;  // 1 / sqrt(1 - square_decay^t)
    double shrink;         // lr * (decoupled weight decay); 0 for Adam
};

// In double: lane i takes elements i, i + 32, ..., and lanes are added as everywhere.
template <typename T>
double dot(const T* left, const T* right, int64_t length) {
    double sums[lanes] = {};
    int64_t k = 0;
    for (; k + lanes <= length; k += lanes) {
        for (int32_t lane = 0; lane < lanes; ++lane) {
            sums[lane] = std::fma(double(left[k + lane]), double(right[k + lane]), sums[lane]);
        }
    }
    for (int32_t lane = 0; k < length; ++k, ++lane) sums[lane] = std::fma(double(left[k]), double(right[k]), sums[lane]);
    for (int32_t half = lanes / 2; half > 0; half /= 2) {
        for (int32_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    }
    return sums[0];
}

template <typename T>
void sum_of_squares(const SumOfSquares<T>& s) {
    in_parallel([&](const Thread& thread) {
        thread.share(s.vectors.count, [&](int64_t k) { s.sums[k] = dot(s.vectors.at[k], s.vectors.at[k], s.vectors.lengths[k]); });
    });
}

template <typename T>
void find_dot(const Dot<T>& d) {
    *d.sum = dot(d.left, d.right, d.length);
}

template <typename T>
void probe_squares(const ProbeSquares<T>& s) {
    for (int64_t probe = 0; probe < s.probes; ++probe) {
        double sum = 0;
        for (int64_t row = 0; row < s.rows; ++row) {
            const T* at = s.products + (row * s.probes + probe) * s.columns;
            for (int64_t k = 0; k < s.columns; ++k) sum = std::fma(double(at[k]), double(at[k]), sum);
        }
        s.sums[probe] = sum;
    }
}

// Calls `step(vector, begin, end)` for parts of all vectors, divided among threads.
template <typename T, typename Step>
void for_each_part(const Vectors<T>& vectors, Step step) {
    constexpr int64_t part = 1 << 14;
    in_parallel([&](const Thread& thread) {
        for (int64_t k = 0; k < vectors.count; ++k) {
            thread.divide((vectors.lengths[k] + part - 1) / part, [&](int64_t index) {
                step(k, index * part, std::min((index + 1) * part, vectors.lengths[k]));
            });
        }
    });
}

template <typename T>
void sgd(const Sgd<T>& s) {
    const T decay = T(s.weight_decay), kept = T(s.momentum), lr = T(-s.lr);
    for_each_part(s.values, [&](int64_t k, int64_t begin, int64_t end) {
        T* __restrict value = s.values.at[k];
        T* __restrict momentum = s.momenta[k];
        const T* __restrict gradient = s.gradients[k];
        for (int64_t i = begin; i < end; ++i) {
            const T g = std::fma(decay, value[i], gradient[i]);
            const T m = std::fma(kept, momentum[i], g);
            momentum[i] = m;
            value[i] = std::fma(lr, s.nesterov ? std::fma(kept, m, g) : m, value[i]);
        }
    });
}

template <typename T>
void adam(const Adam<T>& a) {
    const T decay = T(a.weight_decay), kept = T(a.mean_decay), added = T(1 - a.mean_decay);
    const T squares_kept = T(a.square_decay), squares_added = T(1 - a.square_decay);
    const T step = T(-a.step), factor = T(a.square_factor), epsilon = T(a.epsilon), shrink = T(-a.shrink);
    for_each_part(a.values, [&](int64_t k, int64_t begin, int64_t end) {
        T* __restrict value = a.values.at[k];
        T* __restrict mean = a.means[k];
        T* __restrict mean_square = a.mean_squares[k];
        const T* __restrict gradient = a.gradients[k];
        for (int64_t i = begin; i < end; ++i) {
            const T w = a.shrink != 0 ? std::fma(shrink, value[i], value[i]) : value[i];
            const T g = std::fma(decay, w, gradient[i]);
            const T m = std::fma(kept, mean[i], added * g);
            const T v = std::fma(squares_kept, mean_square[i], squares_added * (g * g));
            mean[i] = m;
            mean_square[i] = v;
            value[i] = std::fma(step, m / std::fma(std::sqrt(v), factor, epsilon), w);
        }
    });
}

}  // namespace
}  // namespace east

EAST_KERNEL_OF_VALUES(sum_of_squares, SumOfSquares, sum_of_squares)
EAST_KERNEL_OF_VALUES(dot, Dot, find_dot)
EAST_KERNEL_OF_VALUES(probe_squares, ProbeSquares, probe_squares)
EAST_KERNEL_OF_VALUES(sgd, Sgd, sgd)
EAST_KERNEL_OF_VALUES(adam, Adam, adam)
