// Max pooling. The backward pass looks for the maxima again, so that no indices are kept.

#include "planes.h"
#include "vector.h"

namespace east {
namespace {

template <typename T>
struct MaxPoolForward {
    Geometry geometry;
    const T* x;
    T* y;
};

template <typename T>
struct MaxPoolBackward {
    Geometry geometry;
    const T* x;
    const T* dy;
    T* dx;
};

// The input positions of one output position: offsets in the plane, row by row.
class Window {
  public:
    explicit Window(const Geometry& g) : offsets_(scratch<int64_t, 0>(int64_t(g.kernel) * g.kernel)) {}

    void place(const Geometry& g, int32_t row, int32_t column) {
        count_ = 0;
        for (int32_t i = row * g.stride - g.padding; i < row * g.stride - g.padding + g.kernel; ++i) {
            if (i < 0 || i >= g.in_height) continue;
            for (int32_t j = column * g.stride - g.padding; j < column * g.stride - g.padding + g.kernel; ++j) {
                if (j < 0 || j >= g.in_width) continue;
                offsets_[count_++] = (int64_t(i) * g.in_width + j) * g.batch;
            }
        }
    }
    int32_t count() const { return count_; }
    int64_t operator[](int32_t index) const { return offsets_[index]; }

  private:
    int64_t* offsets_;
    int32_t count_ = 0;
};

// Whether `value` takes the place of the maximum so far. As in PyTorch, the first of equal maxima stays and a NaN wins.
template <typename Value>
inline auto replaces(const Value& value, const Value& maximum) {
    return (value > maximum) | (value != value);
}

template <typename T>
void max_pool_forward(const MaxPoolForward<T>& pool) {
    using V = Vector<T>;
    const Geometry& g = pool.geometry;
#pragma omp parallel
    {
        Window window(g);
#pragma omp for collapse(2) schedule(static)
        for (int32_t channel = 0; channel < g.out_channels; ++channel) {
            for (int32_t row = 0; row < g.out_height; ++row) {
                const T* x = pool.x + channel * g.in_plane();
                T* y = pool.y + channel * g.out_plane() + int64_t(row) * g.out_width * g.batch;
                for (int32_t column = 0; column < g.out_width; ++column, y += g.batch) {
                    window.place(g, row, column);
                    int64_t n = 0;
                    for (; n + V::lanes <= g.batch; n += V::lanes) {
                        auto maximum = V::load(x + window[0] + n);
                        for (int32_t k = 1; k < window.count(); ++k) {
                            const auto value = V::load(x + window[k] + n);
                            maximum = replaces(value, maximum) ? value : maximum;
                        }
                        V::store(y + n, maximum);
                    }
                    for (; n < g.batch; ++n) {
                        T maximum = x[window[0] + n];
                        for (int32_t k = 1; k < window.count(); ++k) {
                            const T value = x[window[k] + n];
                            maximum = replaces(value, maximum) ? value : maximum;
                        }
                        y[n] = maximum;
                    }
                }
            }
        }
    }
}

// One window: dx at the maximum of each image += dy.
template <typename T>
inline void scatter(const Window& window, const T* x, const T* dy, T* dx, int64_t batch) {
    using V = Vector<T>;
    using Index = decltype(V::zero() < V::zero());  // integers as wide as T
    int64_t n = 0;
    for (; n + V::lanes <= batch; n += V::lanes) {
        auto maximum = V::load(x + window[0] + n);
        Index first = {};
        for (int32_t k = 1; k < window.count(); ++k) {
            const auto value = V::load(x + window[k] + n);
            const auto better = replaces(value, maximum);
            maximum = better ? value : maximum;
            first = better ? Index{} + k : first;
        }
        const auto gradient = V::load(dy + n);
        for (int32_t k = 0; k < window.count(); ++k) {
            T* to = dx + window[k] + n;
            V::store(to, V::load(to) + (first == Index{} + k ? gradient : V::zero()));
        }
    }
    for (; n < batch; ++n) {
        int32_t first = 0;
        for (int32_t k = 1; k < window.count(); ++k) {
            if (replaces(x[window[k] + n], x[window[first] + n])) first = k;
        }
        dx[window[first] + n] += dy[n];
    }
}

template <typename T>
void max_pool_backward(const MaxPoolBackward<T>& pool) {
    const Geometry& g = pool.geometry;
    const int64_t line = int64_t(g.in_width) * g.batch;
#pragma omp parallel
    {
        Window window(g);
#pragma omp for schedule(dynamic, 1)
        for (int32_t channel = 0; channel < g.out_channels; ++channel) {
            const T* x = pool.x + channel * g.in_plane();
            const T* dy = pool.dy + channel * g.out_plane();
            T* dx = pool.dx + channel * g.in_plane();
            // Each row of dx is cleared when the first window reaches it, so that it is in the cache for the sums.
            int32_t cleared = 0;
            for (int32_t row = 0; row < g.out_height; ++row) {
                const int32_t reached = row * g.stride - g.padding + g.kernel;
                for (; cleared < reached && cleared < g.in_height; ++cleared) fill(dx + cleared * line, T(0), line);
                for (int32_t column = 0; column < g.out_width; ++column, dy += g.batch) {
                    window.place(g, row, column);
                    scatter(window, x, dy, dx, g.batch);
                }
            }
            for (; cleared < g.in_height; ++cleared) fill(dx + cleared * line, T(0), line);
        }
    }
}

}  // namespace
}  // namespace east

extern "C" {
void east_max_pool_forward_f32(const east::MaxPoolForward<float>* pool) { east::max_pool_forward(*pool); }
void east_max_pool_forward_f64(const east::MaxPoolForward<double>* pool) { east::max_pool_forward(*pool); }
void east_max_pool_backward_f32(const east::MaxPoolBackward<float>* pool) { east::max_pool_backward(*pool); }
void east_max_pool_backward_f64(const east::MaxPoolBackward<double>* pool) { east::max_pool_backward(*pool); }
}
