// Batch norm of a channel, and means over positions.
#pragma once

#include <cmath>

#include "planes.h"

namespace east {

// y = factor * z + shift, where factor = weight * inverse and inverse = 1 / sqrt(variance + epsilon).
template <typename T>
struct Normalization {
    T mean, inverse, factor, shift;
};

// The batch norm of a unit: its parameters, its running statistics, and what becomes of them. Without parameters there is none:
// then y = z, which `inverse` tells by being 0.
template <typename T>
struct BatchNorm {
    const T* weight;
    const T* bias;
    T* running_mean;
    T* running_variance;
    Normalization<T>* normalization;  // [channels], for the backward pass
    double epsilon, momentum;
    int32_t training;  // batch statistics, and an update of the running ones

    // Finds how a channel is normalized. In training, `first` and `second` are the sums over its `numbers` of d and d * d,
    // where d is the distance from `pivot`.
    const Normalization<T>& find(int64_t channel, double numbers, T pivot, double first, double second) const {
        if (weight == nullptr) return normalization[channel] = {0, 0, 1, 0};
        double mean = pivot + first / numbers;
        double variance = second / numbers - (first / numbers) * (first / numbers);
        if (variance < 0) variance = 0;  // a NaN stays one
        if (training) {
            const double unbiased = variance * (numbers / (numbers - 1));
            running_mean[channel] = T(running_mean[channel] + momentum * (mean - running_mean[channel]));
            running_variance[channel] = T(running_variance[channel] + momentum * (unbiased - running_variance[channel]));
        } else {
            mean = running_mean[channel];
            variance = running_variance[channel];
        }
        const double deviation = std::sqrt(variance + epsilon);
        const T factor = T(weight[channel] / deviation);
        return normalization[channel] = {T(mean), T(1 / deviation), factor, T(bias[channel] - mean * factor)};
    }
};

// Lane by lane, sums of z - pivot and of their squares.
template <typename T>
struct MomentSums {
    LaneSums<T> first, second;

    void add(const T* z, int64_t count, T pivot) {
        using V = Vector<T>;
        const auto p = V::all(pivot);
        for (int64_t k = 0; k < count; k += lanes) {
            for (int r = 0; r < V::count; ++r) {
                const auto d = V::load(z + k + r * V::width) - p;
                first.part[r] += d;
                second.part[r] = fma(d, d, second.part[r]);
            }
        }
    }
};

// How the backward pass finds which way an activation went.
enum Activation : int32_t { none = 0, rectify_by_output = 1, rectify_by_input = 2, dynamic = 3 };

// From the sums of g and of g * hat over a plane to the gradient at the convolution: it is factor * g + (of_hat * hat + shared),
// where a gradient reaches the channel.
struct Slope {
    double of_hat, shared, reached;

    Slope() = default;
    template <typename T>
    Slope(const Normalization<T>& norm, double sum, double product, double numbers)
        : of_hat(-norm.factor * product / numbers), shared(norm.inverse == 0 ? 0 : -norm.factor * sum / numbers), reached(1) {}
};

// The mean over positions for every image of a group, from the rows of its plane in order, zero in lanes without an image.
// Segments are summed in T, and their sums in double.
template <typename T>
class PositionMeans {
    using F = Value<T>;

  public:
    PositionMeans(int32_t height, int32_t width) : height_(height), width_(width) { fill(totals_, 0.0, lanes); }

    void add_row(const T* row) {
        using V = Vector<T>;
        for (int32_t column = 0; column < width_; ++column) {
            for (int r = 0; r < V::count; ++r) sums_.part[r] += V::load(row + column * lanes + r * V::width);
        }
        ++rows_;
        if (rows_ % segment_rows(width_) != 0 && rows_ < height_) return;
        F of_segment[lanes];
        sums_.store(of_segment);
        for (int32_t lane = 0; lane < lanes; ++lane) totals_[lane] += of_segment[lane];
        sums_ = LaneSums<F>();
    }
    // Of so many images.
    void write(F* means, int32_t images) const {
        for (int32_t lane = 0; lane < lanes; ++lane) {
            means[lane] = lane < images ? F(totals_[lane] / (double(height_) * width_)) : F(0);
        }
    }

  private:
    int32_t height_, width_, rows_ = 0;
    LaneSums<F> sums_;
    double totals_[lanes];
};

// A plane -> [groups, 32].
template <typename T>
inline void position_means(const T* plane, int32_t batch, int32_t height, int32_t width, Value<T>* means) {
    for (int32_t group = 0; group < groups_of(batch); ++group) {
        PositionMeans<T> found(height, width);
        for (int32_t row = 0; row < height; ++row) {
            found.add_row(plane + (int64_t(group) * height + row) * width * lanes);
        }
        found.write(means + group * lanes, std::min(lanes, batch - group * lanes));
    }
}

// The same of a plane that is a constant.
template <typename T>
inline void constant_means(T value, int32_t batch, int32_t height, int32_t width, T* means) {
    const Segments segments(1, height, width);
    double total = 0;
    for (int32_t index = 0; index < segments.count(); ++index) {
        const int32_t count = segments[index].rows() * width;
        T sum = 0;
        for (int32_t k = 0; k < count; ++k) sum += value;
        total += sum;
    }
    fill(means, T(0), int64_t(groups_of(batch)) * lanes);
    std::fill(means, means + batch, T(total / (double(height) * width)));
}

}  // namespace east
