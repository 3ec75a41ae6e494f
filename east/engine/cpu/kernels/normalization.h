// Batch norm of a channel, and means over positions.
#pragma once

#include "planes.h"

namespace east {

// y = factor * z + shift, where factor = weight * inverse and inverse = 1 / sqrt(variance + epsilon).
template <typename T>
struct Normalization {
    T mean, inverse, factor, shift;
};

// The mean over positions for every image: a plane -> [groups, 32], zero in lanes without an image. Segments are summed in T,
// and their sums in double.
template <typename T>
inline void position_means(const T* plane, int32_t batch, int32_t height, int32_t width, Value<T>* means) {
    using V = Vector<T>;
    const Segments segments(groups_of(batch), height, width);
    double totals[lanes];
    int64_t done = 0;
    for (int32_t index = 0; index < segments.count(); ++index) {
        const Segment segment = segments[index];
        if (segment.row_begin == 0) fill(totals, 0.0, lanes);
        const int64_t count = int64_t(segment.rows()) * width * lanes;
        LaneSums<Value<T>> sums;
        for (int64_t k = done; k < done + count; k += lanes) {
            for (int r = 0; r < V::count; ++r) sums.part[r] += V::load(plane + k + r * V::width);
        }
        done += count;
        Value<T> of_segment[lanes];
        sums.store(of_segment);
        for (int32_t lane = 0; lane < lanes; ++lane) totals[lane] += of_segment[lane];
        if (segment.row_end < height) continue;
        for (int32_t lane = 0; lane < lanes; ++lane) {
            const int32_t image = segment.group * lanes + lane;
            means[image] = image < batch ? Value<T>(totals[lane] / (double(height) * width)) : Value<T>(0);
        }
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
