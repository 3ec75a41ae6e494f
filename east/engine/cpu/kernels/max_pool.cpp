// Max pooling. The backward pass looks for the maxima again, so that no indices are kept.

#include "planes.h"

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

// The input positions of one output position: offsets in the image plane, row by row.
class Window {
  public:
    explicit Window(const Geometry& g) : offsets_(scratch<int64_t, 0>(int64_t(g.kernel) * g.kernel)) {}

    void place(const Geometry& g, int32_t row, int32_t column) {
        count_ = 0;
        for (int32_t i = row * g.stride - g.padding; i < row * g.stride - g.padding + g.kernel; ++i) {
            if (i < 0 || i >= g.in_height) continue;
            for (int32_t j = column * g.stride - g.padding; j < column * g.stride - g.padding + g.kernel; ++j) {
                if (j < 0 || j >= g.in_width) continue;
                offsets_[count_++] = (int64_t(i) * g.in_width + j) * lanes;
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
    in_parallel([&](const Thread& thread) {
        Window window(g);
        thread.divide(int64_t(g.out_channels) * g.groups() * g.out_height, [&](int64_t task) {
            const int64_t plane = task / g.out_height, channel = plane / g.groups(), group = plane % g.groups();
            const int32_t row = int32_t(task % g.out_height);
            const T* x = pool.x + channel * g.in_plane() + group * g.in_image();
            T* y = pool.y + channel * g.out_plane() + group * g.out_image() + row * g.out_row();
            for (int32_t column = 0; column < g.out_width; ++column, y += lanes) {
                window.place(g, row, column);
                for (int32_t n = 0; n < lanes; n += V::width) {
                    auto maximum = V::load(x + window[0] + n);
                    for (int32_t k = 1; k < window.count(); ++k) {
                        const auto value = V::load(x + window[k] + n);
                        maximum = replaces(value, maximum) ? value : maximum;
                    }
                    V::store(y + n, maximum);
                }
            }
        });
    });
}

// One window: dx at the maximum of each image += dy.
template <typename T>
inline void scatter(const Window& window, const T* x, const T* dy, Value<T>* dx) {
    using V = Vector<T>;
    using F = Vector<Value<T>>;
    using Index = decltype(V::zero() < V::zero());  // integers as wide as the values
    for (int32_t n = 0; n < lanes; n += V::width) {
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
            Value<T>* to = dx + window[k] + n;
            F::store(to, F::load(to) + (first == Index{} + k ? gradient : V::zero()));
        }
    }
}

// Where the sums of an image plane are found: in their place if they are kept as they are computed.
template <typename T>
Value<T>* summed_in(T* kept, int64_t count) {
    if constexpr (std::is_same_v<T, Value<T>>) {
        return kept;
    } else {
        return scratch<Value<T>, 1>(count);
    }
}

template <typename T>
void max_pool_backward(const MaxPoolBackward<T>& pool) {
    const Geometry& g = pool.geometry;
    in_parallel([&](const Thread& thread) {
        Window window(g);
        thread.share(int64_t(g.out_channels) * g.groups(), [&](int64_t plane) {
            const int64_t channel = plane / g.groups(), group = plane % g.groups();
            const T* x = pool.x + channel * g.in_plane() + group * g.in_image();
            const T* dy = pool.dy + channel * g.out_plane() + group * g.out_image();
            T* kept = pool.dx + channel * g.in_plane() + group * g.in_image();
            Value<T>* dx = summed_in(kept, g.in_image());
            // Each row of dx is cleared when the first window reaches it, so that it is in the cache for the sums.
            int32_t cleared = 0;
            for (int32_t row = 0; row < g.out_height; ++row) {
                const int32_t reached = row * g.stride - g.padding + g.kernel;
                for (; cleared < reached && cleared < g.in_height; ++cleared) {
                    fill(dx + cleared * g.in_row(), Value<T>(0), g.in_row());
                }
                for (int32_t column = 0; column < g.out_width; ++column, dy += lanes) {
                    window.place(g, row, column);
                    scatter(window, x, dy, dx);
                }
            }
            for (; cleared < g.in_height; ++cleared) fill(dx + cleared * g.in_row(), Value<T>(0), g.in_row());
            if (static_cast<void*>(kept) != dx) keep(kept, dx, g.in_image());
        });
    });
}

}  // namespace
}  // namespace east

EAST_KERNEL(max_pool_forward, MaxPoolForward, max_pool_forward)
EAST_KERNEL(max_pool_backward, MaxPoolBackward, max_pool_backward)
