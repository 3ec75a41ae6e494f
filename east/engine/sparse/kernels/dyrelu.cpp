// DyReLU: the larger of two lines whose coefficients belong to one channel of one image.

#include <cstring>

#include "planes.h"
#include "vector.h"

namespace east {
namespace {

template <typename T>
struct DyReLUApply {
    int64_t channels, positions, batch;
    Planes<T> u;
    const T* coefficients;  // [channels, 4, batch]: a1, a2, b1, b2
    T* y;                   // [channels, positions, batch]: max(a1 u + b1, a2 u + b2)
};

template <typename T>
struct DyReLUSums {
    int64_t channels, positions, batch;
    Planes<T> u;
    const T* coefficients;
    const T* dy;
    T* gradient;  // [channels, 4, batch]: the gradient at the coefficients
};

// Numbers that are summed at once. While one part of a plane is read, the next is asked for.
constexpr int64_t part_numbers = 2048;

// The two lines of one channel, at the images from n on.
template <typename Value>
struct Lines {
    Value a1, a2, b1, b2;

    Value maximum(const Value& u) const {
        const Value first = a1 * u + b1, second = a2 * u + b2;
        return (first > second) | (first != first) ? first : second;  // a NaN stays one
    }
};

// Gradients at the coefficients, summed over positions.
template <typename Value>
struct Gradients {
    Value a1{}, a2{}, b1{}, b2{};

    void add(const Lines<Value>& lines, const Value& u, const Value& dy) {
        const Value first = lines.a1 * u + lines.b1, second = lines.a2 * u + lines.b2;
        // Where both lines are equal PyTorch gives each half of the gradient.
        const Value shared = first == second ? dy / 2 : dy;
        const Value of_first = first < second ? Value{} : shared, of_second = first > second ? Value{} : shared;
        a1 += of_first * u;
        a2 += of_second * u;
        b1 += of_first;
        b2 += of_second;
    }
};

template <typename T>
inline Lines<typename Vector<T>::Register> load_lines(const T* at, int64_t batch) {
    using V = Vector<T>;
    return {V::load(at), V::load(at + batch), V::load(at + 2 * batch), V::load(at + 3 * batch)};
}

template <typename T>
inline Lines<T> lines_of(const T* at, int64_t batch) {
    return {at[0], at[batch], at[2 * batch], at[3 * batch]};
}

// One position: y = the larger line at u, where u is [batch].
template <typename T>
inline void apply_position(const T* u, const T* coefficients, T* y, int64_t batch) {
    using V = Vector<T>;
    int64_t n = 0;
    for (; n + V::lanes <= batch; n += V::lanes) {
        prefetch(u + n);
        prefetch_for_writing(y + n);
        V::store(y + n, load_lines(coefficients + n, batch).maximum(V::load(u + n)));
    }
    for (; n < batch; ++n) y[n] = lines_of(coefficients + n, batch).maximum(u[n]);
}

template <typename T>
void apply_dyrelu(const DyReLUApply<T>& a) {
    const int64_t plane = a.positions * a.batch;
#pragma omp parallel
    {
        T* constants = scratch<T, 0>(a.batch);
#pragma omp for schedule(dynamic, 1)
        for (int64_t channel = 0; channel < a.channels; ++channel) {
            const T* coefficients = a.coefficients + channel * 4 * a.batch;
            T* y = a.y + channel * plane;
            if (a.u.is_stored(channel)) {
                const T* u = a.u.data + channel * plane;
                for (int64_t k = 0; k < plane; k += a.batch) apply_position(u + k, coefficients, y + k, a.batch);
            } else {
                fill(constants, a.u.constants[channel], a.batch);
                apply_position(constants, coefficients, y, a.batch);
                for (int64_t k = a.batch; k < plane; k += a.batch) std::memcpy(y + k, y, a.batch * sizeof(T));
            }
        }
    }
}

// gradient += over some positions, u and dy being [positions, batch].
template <typename T>
inline void add_part(const T* u, const T* coefficients, const T* dy, T* gradient, int64_t positions, int64_t batch) {
    using V = Vector<T>;
    const int64_t count = positions * batch;
    int64_t n = 0;
    for (; n + V::lanes <= batch; n += V::lanes) {
        const auto lines = load_lines(coefficients + n, batch);
        Gradients<typename V::Register> sums;
        for (int64_t k = n; k < count; k += batch) {
            __builtin_prefetch(u + k + count, 0, 2);
            __builtin_prefetch(dy + k + count, 0, 2);
            sums.add(lines, V::load(u + k), V::load(dy + k));
        }
        T* to = gradient + n;
        V::store(to, V::load(to) + sums.a1);
        V::store(to + batch, V::load(to + batch) + sums.a2);
        V::store(to + 2 * batch, V::load(to + 2 * batch) + sums.b1);
        V::store(to + 3 * batch, V::load(to + 3 * batch) + sums.b2);
    }
    for (; n < batch; ++n) {
        const auto lines = lines_of(coefficients + n, batch);
        Gradients<T> sums;
        for (int64_t k = n; k < count; k += batch) sums.add(lines, u[k], dy[k]);
        gradient[n] += sums.a1;
        gradient[n + batch] += sums.a2;
        gradient[n + 2 * batch] += sums.b1;
        gradient[n + 3 * batch] += sums.b2;
    }
}

template <typename T>
void sum_dyrelu(const DyReLUSums<T>& s) {
    const int64_t plane = s.positions * s.batch;
    const int64_t positions = part_numbers / s.batch < 1 ? 1 : part_numbers / s.batch;
#pragma omp parallel
    {
        T *constants = scratch<T, 0>(s.batch), *totals = scratch<T, 1>(s.batch);
#pragma omp for schedule(dynamic, 1)
        for (int64_t channel = 0; channel < s.channels; ++channel) {
            const T* coefficients = s.coefficients + channel * 4 * s.batch;
            const T* dy = s.dy + channel * plane;
            T* gradient = s.gradient + channel * 4 * s.batch;
            fill(gradient, T(0), 4 * s.batch);
            if (!s.u.is_stored(channel)) {
                fill(constants, s.u.constants[channel], s.batch);
                fill(totals, T(0), s.batch);
                for (int64_t k = 0; k < plane; k += s.batch) add_scaled(totals, dy + k, T(1), s.batch);
                add_part(constants, coefficients, totals, gradient, 1, s.batch);
                continue;
            }
            const T* u = s.u.data + channel * plane;
            for (int64_t p = 0; p < s.positions; p += positions) {
                const int64_t some = s.positions - p < positions ? s.positions - p : positions;
                add_part(u + p * s.batch, coefficients, dy + p * s.batch, gradient, some, s.batch);
            }
        }
    }
}

}  // namespace
}  // namespace east

extern "C" {
void east_dyrelu_apply_f32(const east::DyReLUApply<float>* unit) { east::apply_dyrelu(*unit); }
void east_dyrelu_apply_f64(const east::DyReLUApply<double>* unit) { east::apply_dyrelu(*unit); }
void east_dyrelu_sums_f32(const east::DyReLUSums<float>* unit) { east::sum_dyrelu(*unit); }
void east_dyrelu_sums_f64(const east::DyReLUSums<double>* unit) { east::sum_dyrelu(*unit); }
}
